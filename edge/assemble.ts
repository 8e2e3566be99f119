/** Makes the engine of its parts: what a configuration means to the story, in one place. */
import { randomUUID } from 'node:crypto';
import type { Gate } from '../src/access/grant.js';
import type { ThumbMenu } from '../src/media/thumb-choice.js';
import type { Parts } from '../src/process.js';
import type { EdgeCache } from './cache/cache.js';
import { cacheStatusOf } from './cache-status.js';
import type { EdgeConfig, EdgePolicy } from './config.js';
import { createCounters } from './counters.js';
import { honoursRefresh } from './decide.js';
import type { Engine } from './engine.js';
import type { Identity } from './errand.js';
import type { FillParts } from './fill-parts.js';
import { createFlights } from './flight.js';
import type { LeaseVerdict } from './journal/lease.js';
import type { Landing } from './landing.js';
import { createUncacheableMemory } from './uncacheable.js';
import type { Upstream } from './upstream.js';
import { createWarming } from './warming.js';

export interface EngineParts {
  /** Null in generic mode. */
  readonly gate: Gate | null;
  /** Read anew for every request, so that what proves this edge may be replaced; the proof is empty in generic mode. */
  readonly identity: Identity;
  readonly cache: EdgeCache;
  readonly upstream: Upstream;
  menu(): ThumbMenu | undefined;
  lease(): LeaseVerdict;
  /** Read anew for every request, so that it may be replaced. */
  readonly policy: { readonly current: EdgePolicy };
}

export function createEngine(config: EdgeConfig, parts: EngineParts, { clock, log, metrics }: Parts): Engine {
  const { gate, identity, cache, upstream, policy } = parts;
  const { access: mode, name: edgeName, freshness } = config;
  const fillLimits = (): EdgePolicy['fill'] => policy.current.fill;
  const fills: FillParts = {
    cache,
    upstream,
    uncacheable: createUncacheableMemory(
      () => ({ entriesMax: fillLimits().aloneMax, ttlMs: fillLimits().aloneMs }),
      clock,
    ),
    warming: createWarming(() => policy.current.warm, metrics),
    identity,
    storing: { mode, freshness, parts: config.cache.parts.sizeBytes > 0 },
    policy: () => policy.current,
    counters: createCounters(metrics),
    clock,
    log,
  };
  const flights = createFlights<Landing>(() => ({
    flightsMax: fillLimits().concurrentMax,
    waitersMax: fillLimits().waitersMax,
  }));
  const flying = metrics.gauge('edge_flights', 'Requests to the origin under way.');
  metrics.onCollect(() => flying.set(flights.underWay));
  return {
    mode,
    gate,
    aims: { access: mode, sharedPaths: new Set(config.sharedPaths) },
    menu: () => parts.menu(),
    lease: () => parts.lease(),
    fills,
    flights,
    deciding: { honoursRefresh: honoursRefresh(config.reuse, mode), targetedFields: freshness.targetedFields },
    policy: () => policy.current,
    responding: () => ({ rangesMax: policy.current.rangesMax, edgeName, newBoundary: randomUUID }),
    cacheStatus: cacheStatusOf(edgeName),
    clock,
    log,
  };
}
