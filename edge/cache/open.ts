/** Opens the cache: its tiers as the configuration wants them, behind the one interface that the engine knows. */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../../src/clock.js';
import type { Log } from '../../src/log.js';
import type { CounterOf, Metrics } from '../../src/metrics.js';
import type { Entry } from '../entry.js';
import type { EdgeCache, TierName, TierStats } from './cache.js';
import type { CacheConfig } from './config.js';
import { type DiskFiles, nodeFiles } from './disk/files.js';
import { DiskTier } from './disk/tier.js';
import { IncompleteTier } from './incomplete.js';
import { MemoryTier } from './memory.js';
import { createPolicy } from './policy/registry.js';
import { Readers } from './readers.js';
import { TieredCache } from './tiered.js';

export interface CacheDeps {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** Whether a body that was hit on disk may be brought into memory; left out: any. */
  readonly mayPromote?: (entry: Entry) => boolean;
  /** Names files that bodies pass through; told apart from all others. */
  readonly randomName?: () => string;
  /** Stands in for the file system. */
  readonly files?: DiskFiles;
}

/** Resolves as soon as it can serve: entries of earlier runs are found, though not all counted yet (`recovered`). */
export async function openCache(config: CacheConfig, parts: CacheDeps): Promise<EdgeCache> {
  const { log, metrics, clock, randomName = randomUUID, files = nodeFiles, mayPromote = () => true } = parts;
  const readers = new Readers();
  const promoted = metrics.counter('cache_promotions_total', 'Bodies brought from disk into memory.');
  const errors = metrics.counter('cache_disk_errors_total', 'Troubles of the disk tier that it survived.');
  const policy = createPolicy(config.memory.policy, config.memory.sizeBytes, config.policies);
  const memory = new MemoryTier(policy, Math.min(config.memory.maxObjectBytes, config.memory.sizeBytes), readers);
  const opened: { cache?: TieredCache } = {};
  const disk =
    config.disk.sizeBytes === 0
      ? undefined
      : await DiskTier.open({
          config,
          log,
          clock,
          files,
          readers,
          randomName,
          onCorrupt: (key) => opened.cache?.dropCorrupt(key),
          onError: () => errors.add(),
        });
  const cache = new TieredCache({
    config,
    log,
    clock,
    memory,
    parts: new IncompleteTier(config.parts, readers, clock),
    disk,
    readers,
    mayPromote,
    onPromoted: () => promoted.add(),
  });
  opened.cache = cache;
  observe(metrics, cache);
  return cache;
}

function observe(metrics: Metrics, cache: EdgeCache): void {
  const entries = metrics.gauge('cache_entries', 'Entries held.', ['tier']);
  const used = metrics.gauge('cache_used_bytes', 'What the entries weigh.', ['tier']);
  const capacity = metrics.gauge('cache_capacity_bytes', 'What the entries may weigh.', ['tier']);
  const filling = metrics.gauge('cache_filling', 'Responses that arrive.');
  const recovered = metrics.gauge('cache_recovered', '1 once all entries of earlier runs are known again.');
  const evictions = rising(metrics.counter('cache_evictions_total', 'Entries that went for others.', ['tier']));
  const refused = rising(metrics.counter('cache_refused_total', 'Entries that a policy did not admit.', ['tier']));
  const corrupt = metrics.counter('cache_corrupt_total', 'Bodies and copies found wrong, and dropped.');
  let corruptBefore = 0;
  metrics.onCollect(() => {
    const stats = cache.stats();
    const tiers: readonly (readonly [TierLabel, TierStats])[] = [
      ['memory', stats.memory],
      ['parts', stats.incomplete],
      ['disk', stats.disk],
    ];
    for (const [tier, held] of tiers) {
      entries.set(held.entries, { tier });
      used.set(held.usedBytes, { tier });
      capacity.set(held.capacityBytes, { tier });
      evictions(tier, held.evictions);
      refused(tier, held.refused);
    }
    filling.set(stats.fills);
    recovered.set(cache.recovered ? 1 : 0);
    corrupt.add(stats.corrupt - corruptBefore);
    corruptBefore = stats.corrupt;
  });
}

/** What is not whole yet stands beside the tiers. */
type TierLabel = TierName | 'parts';

/** Feeds a counter from totals that are read. */
function rising(counter: CounterOf<'tier'>): (tier: TierLabel, total: number) => void {
  const before = { memory: 0, disk: 0, parts: 0 };
  return (tier, total) => {
    counter.add(total - before[tier], { tier });
    before[tier] = total;
  };
}
