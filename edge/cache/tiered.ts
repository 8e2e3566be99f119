/**
 * The cache that the engine sees: memory over disk, and what arrives. Memory
 * answers first; a disk hit brings the body into memory; a response that has
 * arrived goes to each tier that its placement names. Whatever is taken down is
 * gone from all three at once.
 */
import type { Clock } from '../../src/clock.js';
import type { MediaId } from '../../src/ids.js';
import { errorFields, type Log } from '../../src/log.js';
import type { CacheKey, Entry } from '../entry.js';
import { Budget } from './budget.js';
import {
  BodyLost,
  type CacheStats,
  type DropReason,
  type EdgeCache,
  type Fill,
  type FillOutcome,
  type NotKeptReason,
  type Stored,
  type TierName,
  type TierStats,
  type Tiers,
} from './cache.js';
import type { CacheConfig } from './config.js';
import { recover, sweep } from './disk/recovery.js';
import { scrub } from './disk/scrub.js';
import type { SpoolFile } from './disk/spool.js';
import type { DiskTier } from './disk/tier.js';
import { type Arrived, FillWriter } from './fill.js';
import { GrowingBody } from './growing-body.js';
import type { IncompleteTier } from './incomplete.js';
import type { MemoryTier } from './memory.js';
import { Promoter } from './promote.js';
import type { Readers } from './readers.js';

/** Rows of the disk's order looked at between two turns of the event loop. */
const ROWS_PER_STEP = 256;

export interface TieredDeps {
  readonly config: CacheConfig;
  readonly log: Log;
  readonly clock: Clock;
  readonly memory: MemoryTier;
  readonly parts: IncompleteTier;
  /** Undefined where it is turned off. */
  readonly disk: DiskTier | undefined;
  readonly readers: Readers;
  readonly mayPromote: (entry: Entry) => boolean;
  onPromoted(): void;
}

export class TieredCache implements EdgeCache {
  readonly #parts: TieredDeps;
  readonly #budget: Budget;
  readonly #promoter: Promoter | undefined;
  /** Also those that have ended, as long as somebody reads them. */
  readonly #fills = new Set<FillWriter>();
  readonly #background = new AbortController();
  readonly #tasks = new Set<Promise<unknown>>();
  #filling = 0;
  #corrupt = 0;
  #closed: Promise<void> | undefined;

  constructor(parts: TieredDeps) {
    const { config, memory, disk } = parts;
    this.#parts = parts;
    this.#budget = new Budget(config.fill.memoryBytes);
    if (disk === undefined) return;
    const { maxObjectBytes, sizeBytes } = config.memory;
    this.#promoter = new Promoter({
      memory,
      disk,
      maxObjectBytes: Math.min(maxObjectBytes, sizeBytes),
      concurrencyMax: config.fill.promotions,
      mayPromote: parts.mayPromote,
      onPromoted: () => parts.onPromoted(),
    });
    this.#run(this.#tend(disk));
  }

  get incomplete(): IncompleteTier {
    return this.#parts.parts;
  }

  get recovered(): boolean {
    return this.#parts.disk?.recovered ?? true;
  }

  get(key: CacheKey): Stored | undefined {
    const inMemory = this.#live(this.#parts.memory.get(key));
    if (inMemory !== undefined) return inMemory;
    const onDisk = this.#live(this.#parts.disk?.get(key));
    if (onDisk !== undefined && this.#promoter !== undefined) this.#run(this.#promoter.promote(key));
    return onDisk;
  }

  peek(key: CacheKey): Stored | undefined {
    return this.#live(this.#parts.memory.peek(key)) ?? this.#live(this.#parts.disk?.peek(key));
  }

  variantsOf(primaryKey: string): readonly Entry[] {
    const { memory, disk, clock } = this.#parts;
    const found = new Map<CacheKey, Entry>();
    for (const entry of disk?.entriesOfPrimary(primaryKey) ?? []) found.set(entry.key, entry);
    for (const key of memory.keysOfPrimary(primaryKey)) {
      const stored = memory.peek(key);
      if (stored !== undefined) found.set(key, stored.entry);
    }
    const now = clock.now();
    return [...found.values()].filter(({ deleteAt }) => deleteAt > now);
  }

  fill(entry: Entry, placement: Tiers): Fill {
    const { config, disk } = this.#parts;
    let spool: SpoolFile | undefined;
    const body = new GrowingBody(entry.sizeBytes, {
      memoryMaxBytes: config.memory.maxObjectBytes,
      budget: this.#budget,
      openSpool: (sizeBytes) => {
        spool = disk?.createSpool(sizeBytes);
        return spool;
      },
      onSpoolFailure: (thrown) => this.#note(thrown, 'a body that arrives cannot be written to disk'),
      onClosed: () => this.#fills.delete(fill),
    });
    const fill = new FillWriter(entry, placement, body, {
      keep: (arrived) => this.#keep(arrived, spool),
      onCorrupt: () => {
        this.#corrupt += 1;
      },
      onSettled: () => {
        this.#filling -= 1;
        if (spool !== undefined) this.#run(spool.discard());
      },
    });
    this.#filling += 1;
    this.#fills.add(fill);
    return fill;
  }

  refresh(entry: Entry): boolean {
    const inMemory = this.#parts.memory.refresh(entry);
    return (this.#parts.disk?.refresh(entry) ?? false) || inMemory;
  }

  drop(key: CacheKey, reason: DropReason): void {
    this.#forget(key);
    this.#parts.parts.drop(key, reason);
    switch (reason) {
      case 'taken_down':
      case 'purged':
      case 'corrupt':
        this.#breakOff(key, reason);
        break;
      case 'invalidated':
        for (const fill of this.#fills) if (fill.entry.key === key) fill.forgo();
        break;
      case 'expired':
      case 'replaced':
        break;
    }
  }

  async takeDown(id: MediaId): Promise<number> {
    const { memory, parts, disk } = this.#parts;
    const keys = new Set([...memory.keysOfMedia(id), ...parts.keysOfMedia(id), ...(disk?.keysOfMedia(id) ?? [])]);
    for (const fill of this.#fills) if (fill.entry.mediaId === id && !fill.failed) keys.add(fill.entry.key);
    for (const key of keys) this.drop(key, 'taken_down');
    await disk?.flushed();
    return keys.size;
  }

  async purge(which: { readonly prefix: string } | { readonly all: true }): Promise<number> {
    const matches = (entry: Entry): boolean => 'all' in which || entry.primaryKey.startsWith(which.prefix);
    const { memory, parts, disk, readers } = this.#parts;
    const heldOnDisk = disk?.stats().entries ?? 0;
    const keys = new Set<CacheKey>(parts.keysWhere(matches));
    for (const fill of this.#fills) if (matches(fill.entry) && !fill.failed) keys.add(fill.entry.key);
    for (const entry of memory.entries()) if (matches(entry)) keys.add(entry.key);
    for (const key of keys) this.drop(key, 'purged');
    if (disk === undefined) return keys.size;
    if (!('all' in which)) return keys.size + (await this.#purgeDisk(disk, matches));
    readers.breakOffAll(new BodyLost('purged'));
    await disk.removeAll();
    await disk.flushed();
    return Math.max(keys.size, heldOnDisk);
  }

  stats(): CacheStats {
    const { memory, parts, disk } = this.#parts;
    return {
      memory: memory.stats(),
      incomplete: parts.stats(),
      disk: disk?.stats() ?? NO_TIER,
      fills: this.#filling,
      corrupt: this.#corrupt,
      recovered: disk?.recoveredEntries ?? 0,
    };
  }

  async probe(): Promise<void> {
    await this.#parts.disk?.probe();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** A copy on disk was found missing or wrong and is gone from there. */
  dropCorrupt(key: CacheKey): void {
    this.#corrupt += 1;
    this.#parts.readers.breakOff(key, new BodyLost('corrupt'));
    this.#parts.log.warn({ key }, 'a copy on disk was missing or wrong');
  }

  async #close(): Promise<void> {
    this.#background.abort(new BodyLost('aborted'));
    for (const fill of this.#fills) fill.fail('aborted');
    this.#parts.readers.breakOffAll(new BodyLost('aborted'));
    await Promise.allSettled(this.#tasks);
    await this.#parts.disk?.close();
  }

  /** Never an entry past its deleteAt, wherever it was found. */
  #live(stored: Stored | undefined): Stored | undefined {
    if (stored === undefined || stored.entry.deleteAt > this.#parts.clock.now()) return stored;
    this.drop(stored.entry.key, 'expired');
    return undefined;
  }

  #forget(key: CacheKey): void {
    this.#parts.memory.remove(key);
    this.#parts.disk?.remove(key);
  }

  #breakOff(key: CacheKey, reason: 'taken_down' | 'purged' | 'corrupt'): void {
    for (const fill of this.#fills) if (fill.entry.key === key) fill.fail(reason);
    this.#parts.readers.breakOff(key, new BodyLost(reason));
  }

  /** What was held under the key goes, whether the new response can be kept or not: it has taken its place. */
  async #keep(arrived: Arrived, spool: SpoolFile | undefined): Promise<FillOutcome> {
    const { entry, placement, body } = arrived;
    if (!arrived.mayBeKept()) return { kind: 'not_kept', reason: 'invalidated' };
    this.#forget(entry.key);
    this.#parts.parts.drop(entry.key, 'replaced');
    const tiers: TierName[] = [];
    let reason: NotKeptReason = 'placement';
    if (placement.memory) {
      const outcome = body.whole === undefined ? 'too_large' : this.#parts.memory.put(entry, body.whole);
      if (outcome === 'stored') tiers.push('memory');
      else reason = outcome;
    }
    if (placement.disk && this.#parts.disk !== undefined) {
      const outcome = await this.#keepOnDisk(this.#parts.disk, arrived, spool);
      if (outcome === 'stored') tiers.push('disk');
      else reason = outcome;
    }
    return tiers.length > 0 ? { kind: 'stored', tiers } : { kind: 'not_kept', reason };
  }

  async #keepOnDisk(disk: DiskTier, arrived: Arrived, spool: SpoolFile | undefined): Promise<'stored' | NotKeptReason> {
    const { entry, sha256, body, placement } = arrived;
    const { whole } = body;
    const isCancelled = (): boolean => !arrived.mayBeKept();
    if (whole === undefined && spool === undefined) return disk.takes(entry.sizeBytes) ? 'disk_full' : 'too_large';
    if (whole === undefined && !(await body.flushed())) return disk.takes(entry.sizeBytes) ? 'disk_full' : 'too_large';
    const outcome =
      whole !== undefined
        ? await disk.store(entry, sha256, { kind: 'bytes', bytes: whole }, isCancelled, placement.admission)
        : spool !== undefined
          ? await disk.store(entry, sha256, { kind: 'spool', spool }, isCancelled, placement.admission)
          : 'disk_full';
    return outcome === 'cancelled' ? 'not_admitted' : outcome;
  }

  /** In small steps, by the order of storing: an operator's purge may take its time, readers may not wait for it. */
  async #purgeDisk(disk: DiskTier, matches: (entry: Entry) => boolean): Promise<number> {
    let purged = 0;
    let seq = 0;
    await disk.flushed();
    for (let rows = disk.index.ordered(seq, ROWS_PER_STEP); ; rows = disk.index.ordered(seq, ROWS_PER_STEP)) {
      const last = rows.at(-1);
      if (last === undefined) break;
      seq = last.seq + 1;
      for (const { digest } of rows) {
        const record = disk.index.get(digest);
        if (record === undefined || !matches(record.entry)) continue;
        this.drop(record.entry.key, 'purged');
        purged += 1;
      }
      await new Promise(setImmediate);
    }
    await disk.flushed();
    return purged;
  }

  /** What the disk tier needs done behind the scenes, from the start to the end. */
  async #tend(disk: DiskTier): Promise<void> {
    const { signal } = this.#background;
    const { log, clock, config } = this.#parts;
    await recover(disk, signal);
    log.info({ entries: disk.recoveredEntries }, 'the disk tier knows all its entries again');
    const removed = await sweep(disk, signal);
    if (removed > 0) log.info({ removed }, 'content that no entry led to was removed');
    const { verifyPerSecondBytes } = config.disk;
    if (verifyPerSecondBytes > 0) await scrub({ tier: disk, clock, bytesPerSecond: verifyPerSecondBytes, signal });
  }

  #run(task: Promise<unknown>): void {
    this.#tasks.add(task);
    task
      .catch((thrown: unknown) => this.#note(thrown, 'work behind the cache failed'))
      .finally(() => this.#tasks.delete(task));
  }

  #note(thrown: unknown, words: string): void {
    this.#parts.log.warn(errorFields(thrown), words);
  }
}

const NO_TIER: TierStats = { entries: 0, usedBytes: 0, capacityBytes: 0, evictions: 0, refused: 0 };
