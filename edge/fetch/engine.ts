/**
 * What the story works with, made once by the composition root. Types alone.
 */
import type { Gate } from '../../src/access/grant.js';
import type { Clock } from '../../src/clock.js';
import type { Log } from '../../src/log.js';
import type { ThumbOptions } from '../../src/media/thumb-choice.js';
import type { EdgeCache } from '../cache/cache.js';
import type { EdgePolicy } from '../config.js';
import type { LeaseVerdict } from '../journal/lease.js';
import type { TargetRules } from '../key.js';
import type { Handling } from '../respond/cache-status.js';
import type { RespondRules } from '../respond/respond.js';
import type { DecideRules } from '../rfc9111/decide.js';
import type { CacheMode, StorableRules } from '../rfc9111/storable.js';
import type { Upstream } from '../upstream/upstream.js';
import type { EngineCounters } from './counters.js';
import type { Flights } from './flight.js';
import type { Identity } from './origin-request.js';
import type { FetchResult } from './result.js';
import type { UncacheableMemory } from './uncacheable.js';
import type { WarmMarks } from './warm-marks.js';

export interface Engine {
  readonly mode: CacheMode;
  /** Null in generic mode: nobody is asked. */
  readonly gate: Gate | null;
  readonly targets: TargetRules;
  /** Undefined until the origin has told its thumbnails. */
  thumbOptions(): ThumbOptions | undefined;
  /** What may be done with copies of media now. */
  lease(): LeaseVerdict;
  readonly cache: EdgeCache;
  readonly upstream: Upstream;
  readonly uncacheable: UncacheableMemory;
  readonly warmMarks: WarmMarks;
  readonly identity: Identity;
  readonly storing: StorableRules;
  readonly counters: EngineCounters;
  readonly flights: Flights<FetchResult>;
  readonly deciding: DecideRules;
  /** May be replaced while the edge runs. */
  policy(): EdgePolicy;
  responding(): RespondRules;
  cacheStatus(handling: Handling): string;
  readonly clock: Clock;
  readonly log: Log;
}
