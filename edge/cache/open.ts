/** Opens the cache with the tiers that the configuration asks for. */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../../src/clock.js';
import type { Log } from '../../src/log.js';
import type { CounterOf, Metrics } from '../../src/metrics.js';
import type { CacheKey, Entry } from '../entry.js';
import type { EdgeCache, HeldRules, TierName, TierStats } from './cache.js';
import type { CacheConfig } from './config.js';
import { countingFiles, type DiskFiles, type FileTraffic, nodeFiles } from './disk/files.js';
import { DiskTier } from './disk/tier.js';
import { DiskSlot, type OpenDisk } from './disk-slot.js';
import { FateTable } from './fates.js';
import { IncompleteTier } from './incomplete.js';
import { memoryLimits } from './limits.js';
import { MemoryTier } from './memory.js';
import type { PolicySettings } from './policy/renewable.js';
import { Promoter } from './promote.js';
import { Readers } from './readers.js';
import { TieredCache } from './tiered.js';

export interface CacheDeps {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** Whether a body that was hit on disk may be copied into memory. Absent: always. */
  readonly mayPromote?: (entry: Entry) => boolean;
  readonly held?: HeldRules;
  /** Whether the disk tier here may store what has this primary key. Absent: everything. */
  readonly ownsDisk?: (primaryKey: string) => boolean;
  /** A stored response was removed for another reason than room, or all of them were. */
  readonly onDropped?: (key: CacheKey | 'all') => void;
  /** Makes names for files; no two may be the same. */
  readonly randomName?: () => string;
  /** Replaces the file system in tests. */
  readonly files?: DiskFiles;
}

/**
 * Resolves as soon as the cache can serve. Entries of earlier runs are found from the start;
 * `recovered` comes later.
 */
export async function openCache(config: CacheConfig, deps: CacheDeps): Promise<OpenedCache> {
  const { log, metrics, clock, randomName = randomUUID, files = nodeFiles } = deps;
  const { mayPromote = () => true, ownsDisk = () => true, onDropped = () => undefined } = deps;
  const promotions = metrics.counter('cache_promotions_total', 'Bodies copied from disk into memory.');
  const errors = metrics.counter('cache_disk_errors_total', 'Errors that the disk tier survived.');
  const readers = new Readers();
  const fates = new FateTable(config.rememberedMax, clock);
  const onEvicted = (key: CacheKey): void => fates.note(key, 'evicted');
  const memory = new MemoryTier(memoryPolicyOf(config), memoryLimits(config.memory).maxObjectBytes, readers, onEvicted);
  const incomplete = new IncompleteTier(config.parts, readers, clock);
  const concurrencyMax = config.fill.promotions;
  const traffic: FileTraffic = { readBytes: 0, writtenBytes: 0 };
  const counted = countingFiles(files, traffic);
  const openDisk = async (what: 'as_it_is' | 'empty'): Promise<OpenDisk> => {
    const tier = await DiskTier.open(
      { config, log, clock, files: counted, readers, randomName, errors, onEvicted },
      what,
    );
    const promoter = new Promoter({
      memory,
      disk: tier,
      maxObjectBytes: () => memoryLimits(config.memory).maxObjectBytes,
      concurrencyMax,
      mayPromote,
      promotions,
    });
    return { tier, promoter };
  };
  const { retryMs } = config.disk;
  const isWanted = (): boolean => config.disk.sizeBytes > 0;
  const disk = await DiskSlot.open({ isWanted, retryMs, open: openDisk, clock, log });
  const cache = new TieredCache({
    config,
    log,
    clock,
    memory,
    incomplete,
    disk,
    readers,
    fates,
    held: deps.held,
    ownsDisk,
    onDropped,
  });
  observe(metrics, cache);
  observeDisk(metrics, traffic);
  return Object.assign(cache, {
    async renew(): Promise<void> {
      await Promise.all([
        memory.renew(memoryPolicyOf(config), memoryLimits(config.memory).maxObjectBytes),
        disk.renew(),
        cache.applyRules(),
      ]);
    },
  });
}

export interface OpenedCache extends EdgeCache {
  /** The live keys of its configuration have changed. Resolves when what is stored agrees with them. */
  renew(): Promise<void>;
}

/** A copy: the configuration may change. */
function memoryPolicyOf({ memory, policies }: CacheConfig): PolicySettings {
  return { name: memory.policy, capacityBytes: memoryLimits(memory).capacityBytes, parameters: { ...policies } };
}

function observeDisk(metrics: Metrics, traffic: FileTraffic): void {
  const labels = {};
  metrics.totals('cache_disk_read_bytes_total', 'Bytes that the disk tier has read.', () => [
    { labels, value: traffic.readBytes },
  ]);
  metrics.totals('cache_disk_written_bytes_total', 'Bytes that the disk tier has written.', () => [
    { labels, value: traffic.writtenBytes },
  ]);
}

function observe(metrics: Metrics, cache: EdgeCache): void {
  const entries = metrics.gauge('cache_entries', 'Stored entries.', ['tier']);
  const used = metrics.gauge('cache_used_bytes', 'Bytes that the entries occupy.', ['tier']);
  const capacity = metrics.gauge('cache_capacity_bytes', 'Bytes that the entries may occupy.', ['tier']);
  const fills = metrics.gauge('cache_filling', 'Responses that are arriving.');
  const recovered = metrics.gauge(
    'cache_recovered',
    '1 once all entries of earlier runs have been read back.',
    [],
    'min',
  );
  const evictions = rising(metrics.counter('cache_evictions_total', 'Entries evicted for others.', ['tier']));
  const refused = rising(metrics.counter('cache_refused_total', 'Entries that a policy did not admit.', ['tier']));
  const openFiles = metrics.gauge('cache_open_files', 'Files of the disk tier that are kept open for the next reader.');
  const diskInUse = metrics.gauge(
    'cache_disk_in_use',
    '1: the disk tier is in use, 0: it is not, or is off.',
    [],
    'min',
  );
  const corrupt = metrics.counter('cache_corrupt_total', 'Bodies and contents that were wrong, and were dropped.');
  let corruptBefore = 0;
  metrics.onCollect(() => {
    const stats = cache.stats();
    const tiers: readonly (readonly [TierLabel, TierStats])[] = [
      ['memory', stats.memory],
      ['parts', stats.incomplete],
      ['disk', stats.disk],
    ];
    for (const [tier, values] of tiers) {
      entries.set(values.entries, { tier });
      used.set(values.usedBytes, { tier });
      capacity.set(values.capacityBytes, { tier });
      evictions(tier, values.evictions);
      refused(tier, values.refused);
    }
    fills.set(stats.fills);
    openFiles.set(stats.openFiles);
    recovered.set(cache.recovered ? 1 : 0);
    diskInUse.set(cache.diskState === 'in_use' ? 1 : 0);
    corrupt.add(stats.corrupt - corruptBefore);
    corruptBefore = stats.corrupt;
  });
}

/** `parts`: the incomplete responses, which are a tier of their own to the metrics. */
type TierLabel = TierName | 'parts';

/** Adds what a total has grown by to a counter. */
function rising(counter: CounterOf<'tier'>): (tier: TierLabel, total: number) => void {
  const before = { memory: 0, disk: 0, parts: 0 };
  return (tier, total) => {
    counter.add(total - before[tier], { tier });
    before[tier] = total;
  };
}
