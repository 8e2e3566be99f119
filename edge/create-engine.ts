/** Makes the engine: translates the configuration into the rules of each step. */
import { randomUUID } from 'node:crypto';
import type { ProcessDeps } from '../src/process.js';
import type { EdgeConfig } from './config.js';
import { createCounters } from './fetch/counters.js';
import type { Engine, EngineDeps } from './fetch/engine.js';
import { createUncacheableMemory } from './fetch/uncacheable.js';
import { createWarmMarks } from './fetch/warm-marks.js';
import { cacheStatusOf } from './respond/cache-status.js';
import { honoursRefresh } from './rfc9111/decide.js';

export function createEngine(config: EdgeConfig, deps: EngineDeps, { clock, log, metrics }: ProcessDeps): Engine {
  const { flights } = deps;
  const { access: mode, name: edgeName, freshness } = config;
  const inProgress = metrics.gauge('edge_flights', 'Requests to the origin under way.');
  metrics.onCollect(() => inProgress.set(flights.fetching));
  return {
    ...deps,
    mode,
    targets: { access: mode, sharedPaths: new Set(config.sharedPaths) },
    uncacheable: createUncacheableMemory(() => deps.policy().fill, clock),
    warmMarks: createWarmMarks(() => deps.policy().warm, metrics),
    counters: createCounters(metrics),
    storing: { ...config.storing, mode, freshness, incomplete: config.cache.parts.sizeBytes > 0 },
    deciding: { honoursRefresh: honoursRefresh(config.reuse, mode), targetedFields: freshness.targetedFields },
    responding: ({ forEdge }) => ({
      rangesMax: deps.policy().rangesMax,
      edgeName,
      to: forEdge ? 'edge' : mode === 'off' ? 'cache' : 'client',
      newBoundary: randomUUID,
    }),
    cacheStatus: cacheStatusOf(edgeName),
    clock,
    log,
  };
}
