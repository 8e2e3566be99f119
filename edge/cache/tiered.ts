/**
 * The cache that the rest of the edge uses: memory over disk, incomplete
 * responses, and fills. A lookup asks memory first; a hit on disk is copied into
 * memory. A response that has arrived is stored in each tier that its rules
 * name. A takedown reaches all of them at once.
 */

import { Budget } from '../../src/budget.js';
import type { Clock } from '../../src/clock.js';
import type { MediaId } from '../../src/ids.js';
import type { JournalPosition } from '../../src/journal/entry.js';
import { errorFields, type Log } from '../../src/log.js';
import type { CacheKey, Entry } from '../entry.js';
import {
  type AppliedToCache,
  BodyLost,
  type CacheStats,
  type DiskState,
  type DropReason,
  type EdgeCache,
  type Fill,
  type FillOutcome,
  type HeldRules,
  type NotKeptReason,
  type Stored,
  type TierName,
  type TierStats,
  type Tiers,
} from './cache.js';
import type { CacheConfig } from './config.js';
import type { SpoolFile } from './disk/spool.js';
import type { Source } from './disk/stores.js';
import type { DiskTier } from './disk/tier.js';
import type { DiskSlot } from './disk-slot.js';
import type { FateTable } from './fates.js';
import { type Arrived, FillWriter } from './fill-writer.js';
import { GrowingBody } from './growing-body.js';
import type { IncompleteTier } from './incomplete.js';
import type { MemoryTier } from './memory.js';
import type { Readers } from './readers.js';

export interface TieredDeps {
  readonly config: CacheConfig;
  readonly log: Log;
  readonly clock: Clock;
  readonly memory: MemoryTier;
  readonly incomplete: IncompleteTier;
  /** Undefined without a disk tier. */
  readonly disk: DiskSlot | undefined;
  readonly readers: Readers;
  readonly fates: FateTable;
  /** Absent: the rules never change. */
  readonly held?: HeldRules | undefined;
  /** Whether the disk tier may store what has this primary key. */
  readonly ownsDisk: (primaryKey: string) => boolean;
  /** A stored response was removed for another reason than room, or all of them were. */
  readonly onDropped: (key: CacheKey | 'all') => void;
}

/** How many entries in memory are looked at between two turns of the event loop. */
const RULED_PER_STEP = 500;

export class TieredCache implements EdgeCache {
  readonly #deps: TieredDeps;
  readonly #budget: Budget;
  /** Also those that have ended, as long as they have readers. */
  readonly #fills = new Set<FillWriter>();
  /** Background work, which `close` waits for. */
  readonly #tasks = new Set<Promise<unknown>>();
  #openFills = 0;
  #corruptFills = 0;
  #closed: Promise<void> | undefined;
  #rulesApplied: unknown;

  constructor(deps: TieredDeps) {
    this.#deps = deps;
    this.#budget = new Budget(deps.config.fill.memoryBytes);
    this.#rulesApplied = deps.held?.version();
  }

  get incomplete(): IncompleteTier {
    return this.#deps.incomplete;
  }

  get fates(): FateTable {
    return this.#deps.fates;
  }

  get diskState(): DiskState {
    return this.#deps.disk?.state ?? 'off';
  }

  get recovered(): boolean {
    return this.#disk?.recovered ?? true;
  }

  get appliedBefore(): AppliedToCache {
    return this.#disk?.appliedBefore ?? { kind: 'nothing_stored' };
  }

  noteApplied(position: JournalPosition): void {
    this.#deps.disk?.noteApplied(position);
  }

  get(key: CacheKey): Stored | undefined {
    const { memory, disk: slot } = this.#deps;
    const disk = slot?.tier;
    const promoter = slot?.promoter;
    const inMemory = this.#usable(memory.get(key));
    if (inMemory !== undefined) return inMemory;
    const onDisk = this.#usable(disk?.get(key));
    if (onDisk !== undefined && promoter !== undefined) this.#run(promoter.promote(onDisk.entry));
    return onDisk;
  }

  peek(key: CacheKey): Stored | undefined {
    const { memory } = this.#deps;
    const disk = this.#disk;
    return this.#usable(memory.peek(key)) ?? this.#usable(disk?.peek(key));
  }

  variantsOf(primaryKey: string): readonly Entry[] {
    const { memory, clock } = this.#deps;
    const disk = this.#disk;
    const found = new Map<CacheKey, Entry>();
    for (const entry of disk?.entriesOfPrimary(primaryKey) ?? []) found.set(entry.key, entry);
    for (const key of memory.keysOfPrimary(primaryKey)) {
      const stored = memory.peek(key);
      if (stored !== undefined) found.set(key, stored.entry);
    }
    const now = clock.now();
    return [...found.values()].filter(({ deleteAt }) => deleteAt > now);
  }

  fill(entry: Entry, chosen: Tiers): Fill {
    const { config, ownsDisk } = this.#deps;
    const tiers = ownsDisk(entry.primaryKey) ? chosen : { ...chosen, disk: false };
    const disk = this.#disk;
    let spool: SpoolFile | undefined;
    const body = new GrowingBody(entry.sizeBytes, {
      memoryMaxBytes: config.memory.maxObjectBytes,
      budget: this.#budget,
      openSpool: (sizeBytes) => {
        spool = disk?.createSpool(sizeBytes);
        return spool;
      },
      onSpoolFailure: (thrown) => this.#warn(thrown, 'an arriving body cannot be written to disk'),
      onClosed: () => this.#fills.delete(fill),
    });
    const fill = new FillWriter(entry, tiers, body, {
      wouldStore: () => this.#wouldStore(entry, tiers, body),
      goesToMemory: () => tiers.memory && this.#deps.memory.surelyTakes(entry),
      store: (arrived) => this.#storeAndNote(arrived, spool),
      onCorrupt: () => {
        this.#corruptFills += 1;
        this.#deps.fates.note(entry.key, 'corrupt');
      },
      onEnded: () => {
        this.#openFills -= 1;
        if (spool !== undefined) this.#run(spool.discard());
      },
    });
    this.#openFills += 1;
    this.#fills.add(fill);
    return fill;
  }

  refresh(entry: Entry): boolean {
    const inMemory = this.#deps.memory.refresh(entry);
    return (this.#disk?.refresh(entry) ?? false) || inMemory;
  }

  drop(key: CacheKey, reason: DropReason): void {
    const removed = this.#remove(key);
    if (removed && reason !== 'replaced') {
      this.#deps.fates.note(key, reason);
      this.#deps.onDropped(key);
    }
    this.#deps.incomplete.drop(key, reason);
    switch (reason) {
      case 'taken_down':
      case 'purged':
      case 'corrupt':
        this.#breakOff(key, reason);
        break;
      case 'invalidated':
        for (const fill of this.#fills) if (fill.entry.key === key) fill.invalidate();
        break;
      case 'expired':
      case 'replaced':
        break;
    }
  }

  async takeDown(id: MediaId): Promise<number> {
    const { memory, incomplete } = this.#deps;
    const disk = this.#disk;
    const keys = new Set([...memory.keysOfMedia(id), ...incomplete.keysOfMedia(id), ...(disk?.keysOfMedia(id) ?? [])]);
    for (const fill of this.#fills) if (fill.entry.mediaId === id && !fill.failed) keys.add(fill.entry.key);
    for (const key of keys) this.drop(key, 'taken_down');
    await disk?.flushed();
    return keys.size;
  }

  async purge(which: { readonly prefix: string } | { readonly all: true }): Promise<number> {
    const { memory, incomplete, readers } = this.#deps;
    const disk = this.#disk;
    const matches = (entry: Entry): boolean => 'all' in which || entry.primaryKey.startsWith(which.prefix);
    const entriesOnDisk = disk?.stats().entries ?? 0;
    const keys = new Set([...memory.keysWhere(matches), ...incomplete.keysWhere(matches)]);
    for (const fill of this.#fills) if (matches(fill.entry) && !fill.failed) keys.add(fill.entry.key);
    for (const key of keys) this.drop(key, 'purged');
    if ('all' in which) {
      this.#deps.fates.noteEmptied();
      this.#deps.onDropped('all');
    }
    if (disk === undefined) return keys.size;
    if ('all' in which) {
      readers.breakOffAll(new BodyLost('purged'));
      await disk.removeAll();
      return Math.max(keys.size, entriesOnDisk);
    }
    let purged = keys.size;
    for await (const key of disk.keysWhere(matches)) {
      this.drop(key, 'purged');
      purged += 1;
    }
    await disk.flushed();
    return purged;
  }

  /** Removes what changed rules do not allow in its tier any more, a little in each turn of the event loop. */
  async applyRules(): Promise<void> {
    const { memory, held } = this.#deps;
    if (held === undefined || held.version() === this.#rulesApplied) return;
    this.#rulesApplied = held.version();
    let looked = 0;
    for (const key of memory.keys()) {
      const stored = memory.peek(key);
      if (stored !== undefined && !held.allows(stored.entry, 'memory')) this.#leave(key, 'memory');
      looked += 1;
      if (looked % RULED_PER_STEP === 0) await new Promise(setImmediate);
      if (this.#closed !== undefined) return;
    }
    for await (const key of this.#disk?.keysWhere((entry) => !held.allows(entry, 'disk')) ?? []) {
      this.#leave(key, 'disk');
      if (this.#closed !== undefined) return;
    }
  }

  stats(): CacheStats {
    const { memory, incomplete } = this.#deps;
    const disk = this.#disk;
    return {
      memory: memory.stats(),
      incomplete: incomplete.stats(),
      disk: disk?.stats() ?? NO_TIER,
      fills: this.#openFills,
      corrupt: this.#corruptFills + (disk?.corruptEntries ?? 0),
      recovered: disk?.recoveredEntries ?? 0,
      openFiles: disk?.openFiles ?? 0,
    };
  }

  async probe(): Promise<void> {
    await this.#deps.disk?.probe();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** What has arrived completely is stored; what is still arriving is not. */
  get #disk(): DiskTier | undefined {
    return this.#deps.disk?.tier;
  }

  async #close(): Promise<void> {
    for (const fill of this.#fills) if (fill.ending === undefined) fill.fail('aborted');
    await Promise.allSettled([...this.#fills].flatMap(({ ending }) => ending ?? []));
    for (const fill of this.#fills) fill.fail('aborted');
    this.#deps.readers.breakOffAll(new BodyLost('aborted'));
    await Promise.allSettled(this.#tasks);
    await this.#deps.memory.close();
    await this.#deps.disk?.close();
  }

  /** Drops an entry past its deleteAt, in whatever tier it was found. */
  #unlessExpired<T extends Stored>(stored: T | undefined): T | undefined {
    if (stored === undefined || stored.entry.deleteAt > this.#deps.clock.now()) return stored;
    this.drop(stored.entry.key, 'expired');
    return undefined;
  }

  /** As the rules of now have it; not what may not be where it was found. */
  #usable<T extends Stored>(found: T | undefined): T | undefined {
    const stored = this.#unlessExpired(found);
    const { held } = this.#deps;
    if (stored === undefined || held === undefined) return stored;
    const entry = held.judge(stored.entry, stored.tier);
    if (entry === stored.entry) return stored;
    if (entry === undefined) {
      this.#leave(stored.entry.key, stored.tier);
      return undefined;
    }
    this.refresh(entry);
    return { ...stored, entry };
  }

  /** A rule does not allow it in this tier any more. */
  #leave(key: CacheKey, tier: TierName): void {
    const { memory, fates, onDropped } = this.#deps;
    if (tier === 'memory') memory.remove(key);
    else this.#disk?.remove(key);
    if (memory.peek(key) !== undefined || this.#disk?.peek(key) !== undefined) return;
    fates.note(key, 'no_tier');
    onDropped(key);
  }

  /** False if nothing was stored. */
  #remove(key: CacheKey): boolean {
    const inMemory = this.#deps.memory.remove(key);
    return (this.#disk?.remove(key) ?? false) || inMemory;
  }

  #breakOff(key: CacheKey, reason: 'taken_down' | 'purged' | 'corrupt'): void {
    for (const fill of this.#fills) if (fill.entry.key === key) fill.fail(reason);
    this.#deps.readers.breakOff(key, new BodyLost(reason));
  }

  /** As `#store` will decide, as far as it is known now. A body of unknown size is taken for a small one. */
  #wouldStore(entry: Entry, { memory, disk, admission }: Tiers, { place }: GrowingBody): boolean {
    if (place === 'passing') return false;
    if (memory && place === 'memory' && this.#deps.memory.takes(entry)) return true;
    return disk && this.#disk?.wouldStore(entry, admission, place === 'file') === true;
  }

  async #storeAndNote(arrived: Arrived, spool: SpoolFile | undefined): Promise<FillOutcome> {
    const { fates } = this.#deps;
    const outcome = await this.#store(arrived, spool);
    if (outcome.kind === 'not_kept') fates.note(arrived.entry.key, outcome.reason);
    return outcome;
  }

  /**
   * Stores a response in its tiers. What was stored under its key is removed, even if no tier takes the
   * new response.
   */
  async #store(arrived: Arrived, spool: SpoolFile | undefined): Promise<FillOutcome> {
    const { memory, incomplete } = this.#deps;
    const disk = this.#disk;
    const { entry, tiers, body } = arrived;
    if (!arrived.mayBeStored()) return { kind: 'not_kept', reason: 'invalidated' };
    this.#remove(entry.key);
    incomplete.drop(entry.key, 'replaced');
    // Before it is stored: what evicts it then is newer.
    this.#deps.fates.note(entry.key, 'stored');
    const stored: TierName[] = [];
    let reason: NotKeptReason = 'no_tier';
    if (tiers.memory) {
      const outcome = body.whole === undefined ? 'too_large' : memory.put(entry, body.whole);
      if (outcome === 'stored') stored.push('memory');
      else reason = outcome;
    }
    if (tiers.disk && disk !== undefined) {
      const outcome = await storeOnDisk(disk, arrived, spool);
      if (outcome === 'stored') stored.push('disk');
      else reason = outcome;
    }
    return stored.length > 0 ? { kind: 'stored', tiers: stored } : { kind: 'not_kept', reason };
  }

  #run(task: Promise<unknown>): void {
    this.#tasks.add(task);
    task
      .catch((thrown: unknown) => this.#warn(thrown, 'background work of the cache failed'))
      .finally(() => this.#tasks.delete(task));
  }

  #warn(thrown: unknown, message: string): void {
    this.#deps.log.warn(errorFields(thrown), message);
  }
}

async function storeOnDisk(
  disk: DiskTier,
  arrived: Arrived,
  spool: SpoolFile | undefined,
): Promise<'stored' | NotKeptReason> {
  const { entry, sha256, tiers, body } = arrived;
  const source = await sourceOf(body, spool);
  if (source === undefined) return disk.takes(entry.sizeBytes) ? 'disk_full' : 'too_large';
  const outcome = await disk.store({
    entry,
    sha256,
    source,
    admission: tiers.admission,
    isCancelled: () => !arrived.mayBeStored(),
  });
  return outcome === 'cancelled' ? 'not_admitted' : outcome;
}

/** Where the whole body is. Undefined if it was passed to its readers. */
async function sourceOf(body: GrowingBody, spool: SpoolFile | undefined): Promise<Source | undefined> {
  if (body.whole !== undefined) return { kind: 'bytes', bytes: body.whole };
  if (spool === undefined || !(await body.flushed())) return undefined;
  return { kind: 'spool', spool };
}

const NO_TIER: TierStats = { entries: 0, usedBytes: 0, capacityBytes: 0, evictions: 0, refused: 0 };
