/**
 * The disk tier: bodies as content files, entries in the index, and in memory
 * for each entry only what the policy needs, so that a million fit. Whatever
 * happens at once, the bytes in its folder stay within its size.
 *
 * It serves from the first moment: an entry of an earlier run is found in the
 * index, also before recovery has told the policy of it. Leaves to the cache
 * what is worth keeping, and to the engine what is fresh.
 */
import { join } from 'node:path';
import type { Clock, Timer } from '../../../src/clock.js';
import { errorFields, type Log } from '../../../src/log.js';
import type { CacheKey, Entry } from '../../entry.js';
import type { Stored, TierStats } from '../cache.js';
import type { CacheConfig } from '../config.js';
import type { Policy } from '../policy/policy.js';
import { type AdmissionName, createAdmission, createPolicy } from '../policy/registry.js';
import type { Admission } from '../policy/second-hit.js';
import type { Readers } from '../readers.js';
import { DiskReader } from './body.js';
import { ContentRefs } from './content-refs.js';
import { ContentStore } from './content-store.js';
import { DiskIndex, type OrderRow } from './disk-index.js';
import type { DiskFiles } from './files.js';
import { IndexGuard } from './index-guard.js';
import { lockFolder } from './lock.js';
import { type DiskRecord, digestOf, diskWeight, type KeyDigest } from './record.js';
import { DiskRoom } from './room.js';
import { NoRoom, type SpoolFile, SpoolFolder } from './spool.js';

/** How often free space is asked for and what was put off is tried again. */
const HOUSEKEEPING_MS = 5_000;
/** So much goes between two turns of the event loop where the file system has too little left. */
const SHRINK_STEP_BYTES = 8_388_608;
/** A second_hit admission remembers as much as would fill the tier so many times. */
const REMEMBERED_CAPACITIES = 2;

export interface DiskTierDeps {
  readonly config: CacheConfig;
  readonly log: Log;
  readonly clock: Clock;
  readonly files: DiskFiles;
  readonly readers: Readers;
  readonly randomName: () => string;
  /** A copy was found missing or wrong, and dropped under this key. */
  onCorrupt(key: CacheKey): void;
  /** Something that the tier survived. */
  onError(): void;
}

/** Where the bytes to be stored are. */
export type Source =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | { readonly kind: 'spool'; readonly spool: SpoolFile };

export type StoreOutcome = 'stored' | 'too_large' | 'not_admitted' | 'disk_full' | 'cancelled';

/** A store under way; a newer one for the same key, an eviction or a takedown cancels it. */
interface Storing {
  cancelled: boolean;
}

/** What is opened before the tier is made of it. */
interface OpenedParts {
  readonly content: ContentStore;
  readonly index: DiskIndex;
  readonly guard: IndexGuard;
  readonly unlock: () => Promise<void>;
}

export class DiskTier {
  readonly #parts: DiskTierDeps;
  readonly #maxObjectBytes: number;
  readonly #capacityBytes: number;
  readonly #room: DiskRoom;
  readonly #spools: SpoolFolder;
  readonly #content: ContentStore;
  readonly #index: DiskIndex;
  readonly #guard: IndexGuard;
  readonly #unlock: () => Promise<void>;
  readonly #contents: ContentRefs;
  readonly #reader: DiskReader;
  readonly #storing = new Map<KeyDigest, Storing>();
  readonly #stores = new Set<Promise<unknown>>();
  readonly #counts = { evictions: 0, refused: 0 };
  #policy: Policy;
  /** Both ways, made when first asked for: rules may choose another than the tier's own. */
  readonly #admissions = new Map<AdmissionName, Admission>();
  #shrinking = false;
  #housekeeping: Timer | undefined;
  #recovered = false;
  #recoveredEntries = 0;
  /** Reservations that recovery has to end before they are given back. */
  #untilRecovered: SpoolFile[] = [];

  /** Reads nothing back yet: `recover` does. */
  static async open(parts: DiskTierDeps): Promise<DiskTier> {
    const { config, files } = parts;
    await files.makeFolder(config.folder);
    const unlock = await lockFolder(config.folder);
    try {
      return await DiskTier.#open(parts, unlock);
    } catch (thrown) {
      await unlock();
      throw thrown;
    }
  }

  static async #open(parts: DiskTierDeps, unlock: () => Promise<void>): Promise<DiskTier> {
    const { config, files, randomName } = parts;
    const content = await ContentStore.open(join(config.folder, 'content'), files, randomName);
    const guard = new IndexGuard(indexPath(config.folder));
    const index = await openIndex(parts, content, guard);
    try {
      const tier = new DiskTier(parts, { content, index, guard, unlock });
      await tier.#spools.open();
      await tier.#observeFree();
      tier.#keepHouse();
      return tier;
    } catch (thrown) {
      await index.close();
      throw thrown;
    }
  }

  private constructor(parts: DiskTierDeps, { content, index, guard, unlock }: OpenedParts) {
    const { disk, folder, fill } = parts.config;
    const fillRoomBytes = Math.min(disk.fillRoomBytes, Math.floor(disk.sizeBytes / 2));
    this.#parts = parts;
    this.#content = content;
    this.#index = index;
    this.#guard = guard;
    this.#unlock = unlock;
    index.onLost = (record, thrown) => this.#lose(record, thrown);
    this.#capacityBytes = disk.sizeBytes - fillRoomBytes;
    this.#maxObjectBytes = Math.min(disk.maxObjectBytes, fillRoomBytes);
    this.#policy = this.#newPolicy();
    const limits = { sizeBytes: disk.sizeBytes, fillRoomBytes, minFreeBytes: disk.minFreeBytes };
    this.#room = new DiskRoom(limits, () => this.#policy.usedBytes);
    this.#spools = new SpoolFolder(join(folder, 'spool'), parts.files, this.#room, parts.randomName);
    this.#contents = new ContentRefs({ content, index, room: this.#room, onError: (thrown) => this.#note(thrown) });
    this.#reader = new DiskReader({
      contents: this.#contents,
      index,
      readers: parts.readers,
      wholeReadBytes: fill.wholeReadBytes,
      onCorrupt: (record) => this.#dropCorrupt(record),
      onError: (thrown) => this.#note(thrown),
    });
  }

  get index(): DiskIndex {
    return this.#index;
  }

  get content(): ContentStore {
    return this.#content;
  }

  get contents(): ContentRefs {
    return this.#contents;
  }

  get reader(): DiskReader {
    return this.#reader;
  }

  get recovered(): boolean {
    return this.#recovered;
  }

  get recoveredEntries(): number {
    return this.#recoveredEntries;
  }

  /** Finds and counts as a use. */
  get(key: CacheKey): Stored | undefined {
    const digest = digestOf(key);
    const record = this.#find(digest, key);
    if (record === undefined) return undefined;
    this.#policy.touch(digest);
    return this.#stored(record);
  }

  peek(key: CacheKey): Stored | undefined {
    const record = this.#find(digestOf(key), key);
    return record === undefined ? undefined : this.#stored(record);
  }

  /** The record behind a key, for those who move its body. */
  recordOf(key: CacheKey): DiskRecord | undefined {
    return this.#find(digestOf(key), key);
  }

  keysOfMedia(id: string): readonly CacheKey[] {
    return this.#index.byMedia(id).map(({ entry }) => entry.key);
  }

  entriesOfPrimary(primaryKey: string): readonly Entry[] {
    return this.#index.byPrimary(primaryKey).map(({ entry }) => entry);
  }

  /** Whether a body of this size is kept at all. */
  takes(sizeBytes: number): boolean {
    return sizeBytes <= this.#maxObjectBytes;
  }

  /** A file for a body that arrives; undefined where there is no room, or it is too large. */
  createSpool(sizeBytes: number | null): SpoolFile | undefined {
    if (sizeBytes !== null && sizeBytes > this.#maxObjectBytes) return undefined;
    return this.#spools.create(sizeBytes, this.#maxObjectBytes);
  }

  /** Makes an entry findable once all of its bytes lie in place, or leaves nothing of it. `admission`: in place of the tier's own. */
  store(
    entry: DiskRecord['entry'],
    sha256: string,
    source: Source,
    cancelled: () => boolean,
    admission?: AdmissionName,
  ): Promise<StoreOutcome> {
    const storing = this.#store(entry, sha256, source, cancelled, admission);
    this.#stores.add(storing);
    return storing.finally(() => this.#stores.delete(storing));
  }

  /** A newer head over the same body; false where the key is not held. */
  refresh(entry: Entry): boolean {
    const digest = digestOf(entry.key);
    const record = this.#find(digest, entry.key);
    if (record === undefined) return false;
    const { sizeBytes, sha256 } = record.entry;
    this.#index.put(digest, { ...record, entry: { ...entry, sizeBytes, sha256 } });
    return true;
  }

  /** What is stored, and what is being stored under the key. False where nothing is stored. */
  remove(key: CacheKey): boolean {
    return this.#forget(digestOf(key));
  }

  /** Everything, at once. */
  async removeAll(): Promise<void> {
    for (const storing of this.#storing.values()) storing.cancelled = true;
    const bytes = this.#policy.usedBytes;
    this.#policy = this.#newPolicy();
    this.#admissions.clear();
    this.#index.clear();
    this.#room.removing(bytes);
    try {
      const removeForGood = await this.#content.discardAll();
      void removeForGood()
        .catch((thrown: unknown) => this.#note(thrown))
        .finally(() => this.#room.removed(bytes));
    } catch (thrown) {
      this.#room.removed(bytes);
      throw thrown;
    }
  }

  /** Resolves when all that was removed so far would stay so after a restart. */
  flushed(): Promise<void> {
    return this.#index.flushed();
  }

  /** Tells the policy of an entry of an earlier run. */
  recover({ seq, digest, weightBytes }: OrderRow): void {
    if (this.#policy.has(digest)) return;
    if (!this.#policy.admit(digest, weightBytes, (victim) => this.#evict(victim as KeyDigest))) {
      if (!this.#forget(digest)) this.#index.discard({ seq, digest });
      return;
    }
    this.#recoveredEntries += 1;
  }

  /** The policy knows of everything now. */
  async endRecovery(): Promise<void> {
    this.#recovered = true;
    for (const spool of this.#untilRecovered) spool.settle();
    this.#untilRecovered = [];
    await this.#guard.proven();
  }

  stats(): TierStats {
    return {
      entries: this.#policy.count,
      usedBytes: this.#policy.usedBytes,
      capacityBytes: this.#capacityBytes,
      evictions: this.#counts.evictions,
      refused: this.#counts.refused,
    };
  }

  /** A real write, read and delete. Below the free-disk floor too: an edge that keeps nothing more on disk still serves. */
  async probe(): Promise<void> {
    const { files, randomName } = this.#parts;
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
    if (!read.equals(written)) throw new Error('the cache folder gave back other bytes than were written');
  }

  /** A row that leads to nothing that can be read. */
  discardRow(row: OrderRow): void {
    if (this.#storing.has(row.digest)) return;
    this.#policy.remove(row.digest);
    this.#index.discard(row);
  }

  async close(): Promise<void> {
    this.#housekeeping?.cancel();
    this.#housekeeping = undefined;
    for (const storing of this.#storing.values()) storing.cancelled = true;
    // What is being stored may wait for what is being removed, and leaves something to remove itself.
    await Promise.allSettled([...this.#stores, this.#contents.settled()]);
    await this.#contents.settled();
    try {
      await this.#index.close();
      await this.#guard.proven();
    } catch (thrown) {
      this.#note(thrown);
    } finally {
      await this.#unlock();
    }
  }

  #newPolicy(): Policy {
    const { disk, policies } = this.#parts.config;
    return createPolicy(disk.policy, this.#capacityBytes, policies);
  }

  #admissionOf(wanted: AdmissionName | undefined): Admission {
    const name = wanted ?? this.#parts.config.disk.admission;
    const found = this.#admissions.get(name);
    if (found !== undefined) return found;
    const made = createAdmission(name, REMEMBERED_CAPACITIES * this.#capacityBytes);
    this.#admissions.set(name, made);
    return made;
  }

  #stored(record: DiskRecord): Stored {
    return { entry: record.entry, tier: 'disk', body: this.#reader.bodyOf(record) };
  }

  #find(digest: KeyDigest, key: CacheKey): DiskRecord | undefined {
    const known = this.#policy.has(digest);
    if (!known && this.#recovered) return undefined;
    const record = this.#index.get(digest);
    if (record === undefined && known && !this.#storing.has(digest)) this.#policy.remove(digest);
    if (record === undefined || record.entry.key !== key) return undefined;
    if (!known) this.recover({ seq: record.seq, digest, weightBytes: record.weightBytes });
    return this.#policy.has(digest) ? record : undefined;
  }

  async #store(
    entry: DiskRecord['entry'],
    sha256: string,
    source: Source,
    cancelled: () => boolean,
    admission: AdmissionName | undefined,
  ): Promise<StoreOutcome> {
    const { sizeBytes } = entry;
    const digest = digestOf(entry.key);
    const weightBytes = diskWeight(entry, sizeBytes);
    if (sizeBytes > this.#maxObjectBytes) return 'too_large';
    if (!this.#admissionOf(admission).admits(digest, weightBytes)) return this.#refuse();
    const spool = source.kind === 'spool' ? source.spool : await this.#spools.createInTime(sizeBytes);
    if (spool === undefined) return 'disk_full';
    this.#forget(digest);
    const storing: Storing = { cancelled: false };
    this.#storing.set(digest, storing);
    try {
      if (cancelled()) return 'cancelled';
      if (!this.#policy.admit(digest, weightBytes, (victim) => this.#evict(victim as KeyDigest))) return this.#refuse();
      if (source.kind === 'bytes' && sizeBytes > 0) await writeWhole(spool, source.bytes);
      const record = { entry, content: sizeBytes === 0 ? null : sha256, weightBytes };
      const entered = await this.#place(digest, record, spool, () => storing.cancelled || cancelled());
      if (!entered && !storing.cancelled) this.#policy.remove(digest);
      return entered ? 'stored' : 'cancelled';
    } catch (thrown) {
      if (!storing.cancelled) this.#policy.remove(digest);
      if (!(thrown instanceof NoRoom)) this.#note(thrown);
      return 'disk_full';
    } finally {
      if (this.#storing.get(digest) === storing) this.#storing.delete(digest);
      await spool.discard().catch((thrown: unknown) => this.#note(thrown));
    }
  }

  /** The file to its place, then the row: false where it was cancelled on the way. */
  async #place(
    digest: KeyDigest,
    placed: Omit<DiskRecord, 'seq' | 'run'>,
    spool: SpoolFile,
    isCancelled: () => boolean,
  ): Promise<boolean> {
    const enter = (): boolean => {
      if (isCancelled()) {
        this.#contents.release(placed);
        return false;
      }
      this.#index.put(digest, { ...placed, seq: this.#index.takeSeq(), run: this.#index.run });
      return true;
    };
    if (isCancelled()) return false;
    if (placed.content === null) return enter();
    return this.#contents.publish(spool.path, placed.content, () => {
      spool.moved();
      // Until recovery has ended the policy counts too little, so what is stored stays reserved as well.
      if (this.#recovered) spool.settle();
      else this.#untilRecovered.push(spool);
      return enter();
    });
  }

  #refuse(): 'not_admitted' {
    this.#counts.refused += 1;
    return 'not_admitted';
  }

  #evict(digest: KeyDigest): void {
    this.#counts.evictions += 1;
    this.#forget(digest);
  }

  #forget(digest: KeyDigest): boolean {
    const storing = this.#storing.get(digest);
    if (storing !== undefined) storing.cancelled = true;
    this.#policy.remove(digest);
    const record = this.#index.get(digest);
    if (record === undefined) return false;
    this.#index.remove(digest);
    this.#contents.release(record);
    return true;
  }

  /** Every entry that shows this content goes, unless it has gone already. */
  #dropCorrupt(record: DiskRecord): void {
    if (record.content === null || this.#index.get(digestOf(record.entry.key))?.seq !== record.seq) return;
    for (const { entry } of this.#index.byContent(record.content)) {
      this.#forget(digestOf(entry.key));
      this.#parts.onCorrupt(entry.key);
    }
  }

  /** What could not be committed to the index is no longer held. */
  #lose(record: DiskRecord, thrown: unknown): void {
    this.#note(thrown);
    this.#policy.remove(digestOf(record.entry.key));
    this.#contents.release(record);
  }

  #note(thrown: unknown): void {
    this.#parts.onError();
    this.#parts.log.warn(errorFields(thrown), 'the disk tier had trouble');
  }

  #keepHouse(): void {
    this.#housekeeping = this.#parts.clock.after(HOUSEKEEPING_MS, () => {
      this.#contents.agePins();
      this.#index.retry();
      void this.#observeFree();
      this.#keepHouse();
    });
  }

  /** Below the free-disk floor entries go, as the policy names them, until what is missing has been given up. */
  async #shrink(): Promise<void> {
    const shortBytes = Math.min(this.#room.shortBytes, this.#policy.usedBytes);
    if (shortBytes === 0 || this.#shrinking) return;
    this.#shrinking = true;
    this.#parts.log.warn({ shortBytes }, 'the file system has less left than it must: entries of the disk tier go');
    const toBytes = this.#policy.usedBytes - shortBytes;
    while (this.#policy.usedBytes > toBytes && this.#housekeeping !== undefined) {
      const stepBytes = Math.max(toBytes, this.#policy.usedBytes - SHRINK_STEP_BYTES);
      this.#policy.shrink(stepBytes, (victim) => this.#evict(victim as KeyDigest));
      await new Promise(setImmediate);
    }
    this.#shrinking = false;
  }

  async #observeFree(): Promise<void> {
    try {
      this.#room.observeFree(await this.#parts.files.freeBytes(this.#parts.config.folder));
      await this.#shrink();
    } catch (thrown) {
      this.#note(thrown);
    }
  }
}

async function writeWhole(spool: SpoolFile, bytes: Buffer): Promise<void> {
  try {
    await spool.append(bytes);
  } finally {
    await spool.close();
  }
}

/** An index that cannot be read is thrown away with all it led to: nothing here cannot be fetched again. */
async function openIndex(parts: DiskTierDeps, content: ContentStore, guard: IndexGuard): Promise<DiskIndex> {
  const path = indexPath(parts.config.folder);
  const fault = await guard.fault();
  if (fault === undefined) {
    try {
      return await DiskIndex.open(path);
    } catch (thrown) {
      parts.log.warn(errorFields(thrown), 'the index of the disk tier cannot be opened');
    }
  }
  parts.log.warn({ fault: fault ?? 'it cannot be opened' }, 'the disk tier starts with nothing');
  parts.onError();
  await parts.files.remove(path);
  await parts.files.remove(`${path}-lock`);
  await guard.renew();
  // What is thrown away here, the sweep after recovery removes.
  await content.discardAll();
  return DiskIndex.open(path);
}

function indexPath(folder: string): string {
  return join(folder, 'index');
}
