/** Makes the engine of its parts: what a configuration means to the story, in one place. */
import { randomUUID } from 'node:crypto';
import type { Gate } from '../src/access/grant.js';
import type { ThumbOptions } from '../src/media/thumb-choice.js';
import type { ProcessDeps } from '../src/process.js';
import type { EdgeCache } from './cache/cache.js';
import type { EdgeConfig, EdgePolicy } from './config.js';
import { createCounters } from './fetch/counters.js';
import type { Engine } from './fetch/engine.js';
import { createFlights } from './fetch/flight.js';
import type { Identity } from './fetch/origin-request.js';
import type { FetchResult } from './fetch/result.js';
import { createUncacheableMemory } from './fetch/uncacheable.js';
import { createWarmMarks } from './fetch/warm-marks.js';
import type { LeaseVerdict } from './journal/lease.js';
import { cacheStatusOf } from './respond/cache-status.js';
import { honoursRefresh } from './rfc9111/decide.js';
import type { Upstream } from './upstream/upstream.js';

export interface EngineDeps {
  /** Null in generic mode. */
  readonly gate: Gate | null;
  /** Read anew for every request, so that what proves this edge may be replaced; the proof is empty in generic mode. */
  readonly identity: Identity;
  readonly cache: EdgeCache;
  readonly upstream: Upstream;
  thumbOptions(): ThumbOptions | undefined;
  lease(): LeaseVerdict;
  /** Read anew for every request, so that it may be replaced. */
  readonly policy: { readonly current: EdgePolicy };
}

export function createEngine(config: EdgeConfig, deps: EngineDeps, { clock, log, metrics }: ProcessDeps): Engine {
  const { gate, identity, cache, upstream, policy } = deps;
  const { access: mode, name: edgeName, freshness } = config;
  const fillLimits = (): EdgePolicy['fill'] => policy.current.fill;
  const flights = createFlights<FetchResult>(() => ({
    flightsMax: fillLimits().concurrentMax,
    waitersMax: fillLimits().waitersMax,
  }));
  const flying = metrics.gauge('edge_flights', 'Requests to the origin under way.');
  metrics.onCollect(() => flying.set(flights.underWay));
  return {
    mode,
    gate,
    targets: { access: mode, sharedPaths: new Set(config.sharedPaths) },
    thumbOptions: () => deps.thumbOptions(),
    lease: () => deps.lease(),
    cache,
    upstream,
    uncacheable: createUncacheableMemory(
      () => ({ entriesMax: fillLimits().aloneMax, ttlMs: fillLimits().aloneMs }),
      clock,
    ),
    warmMarks: createWarmMarks(() => policy.current.warm, metrics),
    identity,
    storing: { mode, freshness, parts: config.cache.parts.sizeBytes > 0 },
    counters: createCounters(metrics),
    flights,
    deciding: { honoursRefresh: honoursRefresh(config.reuse, mode), targetedFields: freshness.targetedFields },
    policy: () => policy.current,
    responding: () => ({ rangesMax: policy.current.rangesMax, edgeName, newBoundary: randomUUID }),
    cacheStatus: cacheStatusOf(edgeName),
    clock,
    log,
  };
}
