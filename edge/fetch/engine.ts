/** What the handler and its steps work with. Made once, by create-engine.ts. Types alone. */

import type { Gate } from '../../src/access/grant.js';
import type { Clock } from '../../src/clock.js';
import type { Log } from '../../src/log.js';
import type { ThumbOptions } from '../../src/media/thumb-choice.js';
import type { IsEdge } from '../authorize.js';
import type { EdgeCache } from '../cache/cache.js';
import type { EdgePolicy } from '../config.js';
import type { Entry } from '../entry.js';
import type { LeaseVerdict } from '../journal/lease.js';
import type { TargetRules } from '../key.js';
import type { RateLimits } from '../rate-limits.js';
import type { EdgeRequest } from '../request.js';
import type { Handling } from '../respond/cache-status.js';
import type { RespondRules } from '../respond/respond.js';
import type { DecideRules } from '../rfc9111/decide.js';
import type { CacheMode, StorableRules } from '../rfc9111/storable.js';
import type { Upstream } from '../upstream/upstream.js';
import type { Absences } from './absences.js';
import type { CacheRequest } from './cache-request.js';
import type { EngineCounters } from './counters.js';
import type { Flights } from './flight.js';
import type { Identity } from './origin-request.js';
import type { FetchResult } from './result.js';
import type { UncacheableMemory } from './uncacheable.js';
import type { WarmMarks } from './warm-marks.js';

export interface EngineDeps {
  /** Null in generic mode: callers are not authorised. */
  readonly gate: Gate | null;
  /** Whether a request comes from an edge behind this one. Always false in generic mode. */
  readonly isEdge: IsEdge;
  /** Read anew for each request, so that the proof may be replaced. The proof is empty in generic mode. */
  readonly identity: Identity;
  readonly cache: EdgeCache;
  readonly upstream: Upstream;
  readonly flights: Flights<FetchResult>;
  readonly absences: Absences;
  /** Limits what a client makes this edge ask of the origin. */
  readonly rates: RateLimits;
  /** Whether this edge can sign links now. */
  signsLinks(): boolean;
  /** The thumbnails that the origin makes; undefined until it has said so. */
  thumbOptions(): ThumbOptions | undefined;
  /** Resolves once what the edge behind this one has applied is applied here. Undefined: it is. Rejects with the refusal. */
  caughtUp(request: EdgeRequest, signal: () => AbortSignal): Promise<void> | undefined;
  /** Whether copies of media may be served now. */
  lease(): LeaseVerdict;
  /** The settings that may change while the edge runs. */
  policy(): EdgePolicy;
  /** A body that was fetched because of a HEAD is stored. */
  onWarmed?(entry: Entry): void;
}

export interface Engine extends EngineDeps {
  readonly mode: CacheMode;
  readonly targets: TargetRules;
  readonly uncacheable: UncacheableMemory;
  readonly warmMarks: WarmMarks;
  readonly counters: EngineCounters;
  readonly storing: StorableRules;
  readonly deciding: DecideRules;
  responding(wanted: Pick<CacheRequest, 'forEdge'>): RespondRules;
  cacheStatus(handling: Handling, ttlMs?: number): string;
  readonly clock: Clock;
  readonly log: Log;
}
