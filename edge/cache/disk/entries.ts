/**
 * The entries of the disk tier: keeps the replacement policy, the index and the
 * references to content files in agreement. For each entry only what the policy
 * needs is in memory, so that a million fit.
 *
 * Entries of earlier runs are found from the start: the index has them before
 * recovery has told the policy. Leaves writing and reading bodies to the tier.
 */
import type { Log } from '../../../src/log.js';
import type { CacheKey, Entry } from '../../entry.js';
import { BodyLost } from '../cache.js';
import { type PolicySettings, RenewablePolicy } from '../policy/renewable.js';
import type { Readers } from '../readers.js';
import { Settling } from '../settle.js';
import type { ContentRefs } from './content-refs.js';
import type { DiskIndex, OrderRow } from './disk-index.js';
import { type DiskRecord, digestOf, type KeyDigest } from './record.js';

export interface DiskEntriesDeps {
  readonly index: DiskIndex;
  readonly contentRefs: ContentRefs;
  readonly readers: Readers;
  readonly log: Log;
  policy(): PolicySettings;
  onEvicted(key: CacheKey): void;
  onError(thrown: unknown): void;
}

/** An entry whose body is being written. A newer one for the same key, an eviction or a takedown cancels it. */
export interface Pending {
  readonly digest: KeyDigest;
  state: 'open' | 'entered' | 'cancelled';
}

export class DiskEntries {
  readonly #deps: DiskEntriesDeps;
  readonly #policy: RenewablePolicy;
  readonly #settling = new Settling();
  readonly #pending = new Map<KeyDigest, Pending>();
  #evictions = 0;
  #corrupt = 0;
  #recovered = false;
  #recoveredEntries = 0;

  constructor(deps: DiskEntriesDeps) {
    this.#deps = deps;
    this.#policy = new RenewablePolicy(deps.policy());
    deps.index.onLost = (record, thrown) => this.#lose(record, thrown);
  }

  get count(): number {
    return this.#policy.count;
  }

  get usedBytes(): number {
    return this.#policy.usedBytes;
  }

  /** What they may occupy now: more than the capacity while that is being reached. */
  get allowedBytes(): number {
    return this.#policy.allowedBytes;
  }

  get evictions(): number {
    return this.#evictions;
  }

  /** Entries that were dropped because their content was missing or wrong. */
  get corrupt(): number {
    return this.#corrupt;
  }

  get recovered(): boolean {
    return this.#recovered;
  }

  get recoveredEntries(): number {
    return this.#recoveredEntries;
  }

  find(key: CacheKey): DiskRecord | undefined {
    const digest = digestOf(key);
    const known = this.#policy.has(digest);
    if (!known && this.#recovered) return undefined;
    const record = this.#deps.index.get(digest);
    if (record === undefined && known && !this.#pending.has(digest)) this.#policy.remove(digest);
    if (record === undefined || record.entry.key !== key) return undefined;
    if (!known) this.recover({ seq: record.seq, digest, weightBytes: record.weightBytes });
    return this.#policy.has(digest) ? record : undefined;
  }

  /** Counts a use. */
  touch(key: CacheKey): void {
    this.#policy.touch(digestOf(key));
  }

  /** Puts a newer head over the stored body. False if the key is not stored. */
  refresh(entry: Entry): boolean {
    const record = this.find(entry.key);
    if (record === undefined) return false;
    const { sizeBytes, sha256 } = record.entry;
    this.#deps.index.put(digestOf(entry.key), { ...record, entry: { ...entry, sizeBytes, sha256 } });
    return true;
  }

  /** Removes what is stored under the key and cancels what is being written. False if nothing was stored. */
  remove(key: CacheKey): boolean {
    return this.#remove(digestOf(key)) !== undefined;
  }

  /** Removes everything at once. Returns the bytes that it occupied. */
  clear(): number {
    this.cancelPending();
    const bytes = this.#policy.usedBytes;
    this.#policy.clear();
    this.#deps.index.clear();
    return bytes;
  }

  /** Starts an entry; what is stored under its key is removed. `admit`, `enter` and `end` follow. */
  begin(key: CacheKey): Pending {
    const digest = digestOf(key);
    this.#remove(digest);
    const pending: Pending = { digest, state: 'open' };
    this.#pending.set(digest, pending);
    return pending;
  }

  /** Asks the policy for room and evicts what it names. False: the policy refuses the entry. */
  admit({ digest }: Pending, weightBytes: number): boolean {
    return this.#policy.admit(digest, weightBytes, (victim) => this.#evict(victim));
  }

  /** Puts the entry into the index. The content file is in its place by now, written or verified by `run`. */
  enter(pending: Pending, placed: Omit<DiskRecord, 'seq' | 'run'>, run: number): void {
    const { index } = this.#deps;
    index.put(pending.digest, { ...placed, seq: index.takeSeq(), run });
    pending.state = 'entered';
  }

  /** The store has ended. An entry that was not entered leaves nothing behind. */
  end(pending: Pending): void {
    const { digest, state } = pending;
    if (state === 'open') this.#policy.remove(digest);
    if (this.#pending.get(digest) === pending) this.#pending.delete(digest);
  }

  cancelPending(): void {
    for (const pending of this.#pending.values()) pending.state = 'cancelled';
  }

  /** Tells the policy of an entry of an earlier run. */
  recover({ seq, digest, weightBytes }: OrderRow): void {
    if (this.#policy.has(digest)) return;
    if (this.#policy.admit(digest, weightBytes, (victim) => this.#evict(victim))) this.#recoveredEntries += 1;
    else if (this.#remove(digest) === undefined) this.#deps.index.discard({ seq, digest });
  }

  /** The policy knows all entries now. */
  endRecovery(): void {
    this.#recovered = true;
  }

  /** Removes a row of the index that leads to no readable record. */
  discard(row: OrderRow): void {
    if (this.#pending.has(row.digest)) return;
    this.#policy.remove(row.digest);
    this.#deps.index.discard(row);
  }

  /** Resolves when the entries agree with it. */
  async renew(policy: PolicySettings): Promise<void> {
    if (!this.#policy.renew(policy)) return;
    await this.#settling.run(() =>
      this.#policy.step(
        (victim) => this.#evict(victim),
        () => undefined,
      ),
    );
  }

  /** Ends what `renew` has begun. */
  async stop(): Promise<void> {
    await this.#settling.stop();
  }

  /** Evicts until the entries occupy no more than this. */
  shrink(toBytes: number): void {
    this.#policy.shrink(toBytes, (victim) => this.#evict(victim));
  }

  /**
   * The content of an entry is missing or wrong: removes every entry that shows it, unless this one is
   * gone already.
   */
  dropCorrupt(record: DiskRecord): void {
    const { index, contentRefs, readers, log } = this.#deps;
    if (record.content === null) return;
    contentRefs.forget(record.content);
    if (index.get(digestOf(record.entry.key))?.seq !== record.seq) return;
    for (const { entry } of index.byContent(record.content)) {
      const { key } = entry;
      this.remove(key);
      this.#corrupt += 1;
      readers.breakOff(key, new BodyLost('corrupt'));
      log.warn({ key }, 'the content of an entry on disk is missing or wrong');
    }
  }

  #evict(victim: string): void {
    this.#evictions += 1;
    const record = this.#remove(victim as KeyDigest);
    if (record !== undefined) this.#deps.onEvicted(record.entry.key);
  }

  /** Undefined if nothing was stored. */
  #remove(digest: KeyDigest): DiskRecord | undefined {
    const pending = this.#pending.get(digest);
    if (pending !== undefined) pending.state = 'cancelled';
    this.#policy.remove(digest);
    const record = this.#deps.index.get(digest);
    if (record === undefined) return undefined;
    this.#deps.index.remove(digest);
    this.#deps.contentRefs.release(record);
    return record;
  }

  /** The index could not commit this record. */
  #lose(record: DiskRecord, thrown: unknown): void {
    this.#deps.onError(thrown);
    this.#policy.remove(digestOf(record.entry.key));
    this.#deps.contentRefs.release(record);
  }
}
