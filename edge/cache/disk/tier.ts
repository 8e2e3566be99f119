/**
 * The disk tier: stores bodies as content files and their entries in the index,
 * and finds, reads and removes them. The bytes in its folder never exceed its
 * size. It serves from the start, while recovery still runs.
 *
 * Beside it: the folder (folder.ts), the entries (entries.ts), reading
 * (reader.ts), storing (stores.ts), room (room.ts) and background work (housekeeping.ts). Leaves to
 * the cache which responses are stored here.
 */
import { join } from 'node:path';
import { Budget } from '../../../src/budget.js';
import type { Clock } from '../../../src/clock.js';
import type { JournalPosition } from '../../../src/journal/entry.js';
import { errorFields, type Log } from '../../../src/log.js';
import type { CounterOf } from '../../../src/metrics.js';
import type { CacheKey, Entry, SizedEntry } from '../../entry.js';
import type { AppliedToCache, Stored, TierStats } from '../cache.js';
import type { CacheConfig } from '../config.js';
import { diskLimits } from '../limits.js';
import type { AdmissionName } from '../policy/registry.js';
import type { PolicySettings } from '../policy/renewable.js';
import type { Readers } from '../readers.js';
import { ContentRefs } from './content-refs.js';
import { DiskEntries } from './entries.js';
import type { DiskFiles } from './files.js';
import { type CacheFolder, openFolder } from './folder.js';
import { Housekeeping } from './housekeeping.js';
import { DiskReader } from './reader.js';
import { fileBytes } from './record.js';
import { DiskRoom } from './room.js';
import { type SpoolFile, SpoolFolder } from './spool.js';
import { DiskStores, type StoreOutcome, type StoreRequest } from './stores.js';

/** The rows that a search through all entries reads between two turns of the event loop. */
const ROWS_PER_STEP = 256;

export interface DiskTierDeps {
  readonly config: CacheConfig;
  readonly log: Log;
  readonly clock: Clock;
  readonly files: DiskFiles;
  readonly readers: Readers;
  readonly randomName: () => string;
  /** Counts errors that the tier survived. */
  readonly errors: CounterOf<never>;
  onEvicted(key: CacheKey): void;
}

export class DiskTier {
  readonly #deps: DiskTierDeps;
  readonly #folder: CacheFolder;
  readonly #room: DiskRoom;
  readonly #spools: SpoolFolder;
  readonly #contentRefs: ContentRefs;
  readonly #entries: DiskEntries;
  readonly #reader: DiskReader;
  readonly #housekeeping: Housekeeping;
  readonly #stores: DiskStores;

  /** `empty`: removes first what is stored in the folder. */
  static async open(deps: DiskTierDeps, what: 'as_it_is' | 'empty'): Promise<DiskTier> {
    const { folder: path, disk } = deps.config;
    const onError = (thrown: unknown): void => noteError(deps, thrown);
    const pace = { clock: deps.clock, commitWithinMs: disk.commitWithinMs };
    const folder = await openFolder(path, { ...deps, ...disk, pace, onError }, what);
    try {
      const tier = new DiskTier(deps, folder);
      await tier.#spools.open();
      await tier.#housekeeping.start();
      return tier;
    } catch (thrown) {
      await folder.close();
      throw thrown;
    }
  }

  private constructor(deps: DiskTierDeps, folder: CacheFolder) {
    const { config, files, readers, log, clock, randomName } = deps;
    const { index, guard, contentStore } = folder;
    const onError = (thrown: unknown): void => noteError(deps, thrown);
    const room = new DiskRoom(
      {
        // A smaller size is reached in steps.
        get sizeBytes() {
          return entries.allowedBytes + diskLimits(config.disk).fillRoomBytes;
        },
        get fillRoomBytes() {
          return diskLimits(config.disk).fillRoomBytes;
        },
        get minFreeBytes() {
          return config.disk.minFreeBytes;
        },
      },
      () => entries.usedBytes,
      // Files are removed after their rows.
      () => void index.flushed().catch(() => undefined),
    );
    const contentRefs = new ContentRefs({ contentStore, index, room, onError });
    const entries = new DiskEntries({
      index,
      contentRefs,
      readers,
      log,
      policy: () => policyOf(config),
      onEvicted: (key) => deps.onEvicted(key),
      onError,
    });
    const { wholeReadBytes, wholeReadsBytes } = config.fill;
    const wholeReads = new Budget(wholeReadsBytes);
    const reader = new DiskReader({ contentRefs, index, entries, readers, wholeReadBytes, wholeReads, onError });
    const spools = new SpoolFolder(join(config.folder, 'spool'), files, room, randomName);
    this.#deps = deps;
    this.#folder = folder;
    this.#room = room;
    this.#spools = spools;
    this.#stores = new DiskStores({
      index,
      entries,
      contentRefs,
      spools,
      get capacityBytes() {
        return diskLimits(config.disk).capacityBytes;
      },
      get maxObjectBytes() {
        return diskLimits(config.disk).maxObjectBytes;
      },
      get admission() {
        return config.disk.admission;
      },
      get storesMax() {
        return config.disk.storesMax;
      },
      onError,
    });
    this.#contentRefs = contentRefs;
    this.#entries = entries;
    this.#reader = reader;
    this.#housekeeping = new Housekeeping({
      config,
      clock,
      log,
      files,
      room,
      index,
      guard,
      entries,
      contentStore,
      contentRefs,
      reader,
      onError,
    });
  }

  /**
   * Its configuration has changed: larger at once, smaller in steps; another policy takes over what is stored. Resolves when
   * that is done.
   */
  async renew(): Promise<void> {
    this.#stores.resizeAdmissions();
    await this.#entries.renew(policyOf(this.#deps.config));
    await this.#housekeeping.observeFree();
  }

  /** True once the policy knows all entries of earlier runs. */
  get recovered(): boolean {
    return this.#entries.recovered;
  }

  get recoveredEntries(): number {
    return this.#entries.recoveredEntries;
  }

  /** Entries that were removed because their content was missing or wrong. */
  get corruptEntries(): number {
    return this.#entries.corrupt;
  }

  get appliedBefore(): AppliedToCache {
    return this.#folder.index.appliedBefore;
  }

  noteApplied(position: JournalPosition): void {
    this.#folder.index.noteApplied(position);
  }

  /** Finds a stored response and counts a use. */
  get(key: CacheKey): (Stored & { readonly entry: SizedEntry }) | undefined {
    const stored = this.peek(key);
    if (stored !== undefined) this.#entries.touch(key);
    return stored;
  }

  peek(key: CacheKey): (Stored & { readonly entry: SizedEntry }) | undefined {
    const record = this.#entries.find(key);
    return record && { entry: record.entry, tier: 'disk', body: this.#reader.bodyOf(record) };
  }

  /** The entry and its whole body. Undefined if the body is lost, or was replaced or removed while it was read. */
  async readWhole(key: CacheKey): Promise<{ readonly entry: SizedEntry; readonly bytes: Buffer } | undefined> {
    const record = this.#entries.find(key);
    if (record === undefined) return undefined;
    const bytes = await this.#reader.readWhole(record);
    const current = this.#entries.find(key);
    return bytes === undefined || current?.seq !== record.seq ? undefined : { entry: current.entry, bytes };
  }

  /** Content files that are kept open for the next reader. */
  get openFiles(): number {
    return this.#folder.contentStore.openFiles;
  }

  keysOfMedia(id: string): readonly CacheKey[] {
    return this.#folder.index.byMedia(id).map(({ entry }) => entry.key);
  }

  entriesOfPrimary(primaryKey: string): readonly Entry[] {
    return this.#folder.index.byPrimary(primaryKey).map(({ entry }) => entry);
  }

  /** The keys of all entries that match, in small steps: readers do not have to wait for an operator's purge. */
  async *keysWhere(matches: (entry: Entry) => boolean): AsyncGenerator<CacheKey, void> {
    const { index } = this.#folder;
    await index.flushed();
    for (const rows of index.inOrder(ROWS_PER_STEP)) {
      for (const { digest } of rows) {
        const entry = index.get(digest)?.entry;
        if (entry !== undefined && matches(entry)) yield entry.key;
      }
      await new Promise(setImmediate);
    }
  }

  /** Whether a body of this size can be stored at all. */
  takes(sizeBytes: number): boolean {
    return this.#stores.takes(sizeBytes);
  }

  /** Whether a body that arrives would be stored, as far as is known before its end. `reserved`: it has its room. */
  wouldStore(entry: Entry, admission: AdmissionName | undefined, reserved: boolean): boolean {
    const sizeBytes = entry.sizeBytes ?? 0;
    if (!this.takes(sizeBytes) || !this.#stores.wouldAdmit(entry.key, admission)) return false;
    return reserved || this.#room.mayHave(fileBytes(sizeBytes));
  }

  /** A file for a body that arrives. Undefined if it is too large or there is no room. */
  createSpool(sizeBytes: number | null): SpoolFile | undefined {
    if (sizeBytes !== null && !this.takes(sizeBytes)) return undefined;
    return this.#spools.create(sizeBytes, diskLimits(this.#deps.config.disk).maxObjectBytes);
  }

  /**
   * Stores a response: it can be found once its content file is complete. On any other outcome nothing
   * of it is left.
   */
  store(request: StoreRequest): Promise<StoreOutcome> {
    return this.#stores.store(request);
  }

  /** Puts a newer head over the stored body. False if the key is not stored. */
  refresh(entry: Entry): boolean {
    return this.#entries.refresh(entry);
  }

  /** Removes what is stored under the key and cancels what is being stored. False if nothing was stored. */
  remove(key: CacheKey): boolean {
    return this.#entries.remove(key);
  }

  /** Removes everything at once. Resolves when it would stay so after a restart. */
  async removeAll(): Promise<void> {
    const bytes = this.#entries.clear();
    this.#stores.forgetAdmissions();
    this.#room.removing(bytes);
    try {
      const removeForGood = await this.#folder.contentStore.discardAll();
      void removeForGood()
        .catch((thrown: unknown) => this.#onError(thrown))
        .finally(() => this.#room.removed(bytes));
    } catch (thrown) {
      this.#room.removed(bytes);
      throw thrown;
    }
    await this.flushed();
  }

  /** Resolves when all that was removed so far would stay so after a restart. */
  flushed(): Promise<void> {
    return this.#folder.index.flushed();
  }

  stats(): TierStats {
    const { count, usedBytes, evictions } = this.#entries;
    const { capacityBytes } = diskLimits(this.#deps.config.disk);
    return { entries: count, usedBytes, capacityBytes, evictions, refused: this.#stores.refused };
  }

  /**
   * Writes, reads and deletes a file. Also below the free-disk floor: an edge that stores nothing more
   * still serves.
   */
  async probe(): Promise<void> {
    const { files, randomName } = this.#deps;
    const path = this.#spools.pathOf(randomName());
    const written = Buffer.from('probe');
    const read = Buffer.alloc(written.length);
    try {
      const file = await files.create(path);
      try {
        await file.write(written, 0);
        await file.read(read, 0);
      } finally {
        await file.close();
      }
    } finally {
      await files.remove(path);
    }
    if (!read.equals(written)) throw new Error('the cache folder returned other bytes than were written');
  }

  async close(): Promise<void> {
    await this.#housekeeping.stop();
    await this.#entries.stop();
    this.#entries.cancelPending();
    // A store may wait for a removal, and may itself leave something to remove.
    await Promise.allSettled([this.#stores.ended(), this.#contentRefs.removalsDone()]);
    await this.#contentRefs.removalsDone();
    await this.#folder.close().catch((thrown: unknown) => this.#onError(thrown));
  }

  #onError(thrown: unknown): void {
    noteError(this.#deps, thrown);
  }
}

/** A copy: the configuration may change. */
function policyOf(config: CacheConfig): PolicySettings {
  return {
    name: config.disk.policy,
    capacityBytes: diskLimits(config.disk).capacityBytes,
    parameters: { ...config.policies },
  };
}

function noteError({ errors, log }: DiskTierDeps, thrown: unknown): void {
  errors.add();
  log.warn(errorFields(thrown), 'an operation of the disk tier failed');
}
