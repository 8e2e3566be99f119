/** What trips to the origin, and the steps that follow them, work with. Types alone. */
import type { Clock } from '../../src/clock.js';
import type { Log } from '../../src/log.js';
import type { EdgeCache } from '../cache/cache.js';
import type { StorableRules } from '../rfc9111/storable.js';
import type { Upstream } from '../upstream/upstream.js';
import type { FillConfig } from './config.js';
import type { EngineCounters } from './counters.js';
import type { Identity } from './origin-request.js';
import type { Rule } from './rules.js';
import type { UncacheableMemory } from './uncacheable.js';
import type { Warming } from './warm-marks.js';

export interface FillParts {
  readonly cache: EdgeCache;
  readonly upstream: Upstream;
  readonly uncacheable: UncacheableMemory;
  readonly warming: Warming;
  readonly identity: Identity;
  readonly storing: StorableRules;
  policy(): { readonly fill: FillConfig; readonly rules: readonly Rule[] };
  readonly counters: EngineCounters;
  readonly clock: Clock;
  readonly log: Log;
}
