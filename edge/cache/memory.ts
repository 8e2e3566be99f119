/**
 * The memory tier: complete bodies, each in one Buffer, within a hard limit that
 * counts bodies, heads and overhead. The policy names the entries to evict. A
 * lookup allocates nothing: it returns the object that `put` made.
 */
import { Readable } from 'node:stream';
import { invariant } from '../../src/errors.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { MediaId } from '../../src/ids.js';
import type { CacheKey, Entry } from '../entry.js';
import type { Body, Stored, TierStats } from './cache.js';
import { FieldPool } from './field-pool.js';
import { KeyIndex } from './key-index.js';
import { type PolicySettings, RenewablePolicy } from './policy/renewable.js';
import { IN_PIECES, type Readers } from './readers.js';
import { Settling } from './settle.js';

/**
 * The memory that an entry needs beside its body and its fields, once it has been served: objects, maps, links, and the
 * prepared heads that are kept for it elsewhere (respond/). `npm run bench growth` measures it.
 */
export const ENTRY_OVERHEAD_BYTES = 2_200;
/** The same for a header field beside its text. */
const FIELD_OVERHEAD_BYTES = 64;
/** Readers get the body in slices, so that a takedown can still withhold the rest. */
const SLICE_BYTES = 65_536;

/** With the policy's handle of the key. */
type Kept = Stored & { handle: number };

export type PutOutcome = 'stored' | 'too_large' | 'not_admitted';

export class MemoryTier {
  #maxObjectBytes: number;
  readonly #policy: RenewablePolicy;
  readonly #settling = new Settling();
  readonly #readers: Readers;
  readonly #stored = new Map<CacheKey, Kept>();
  readonly #fields = new FieldPool();
  readonly #byMedia = new KeyIndex<MediaId, CacheKey>();
  /** Without those whose key is their primary key. */
  readonly #byPrimary = new KeyIndex<string, CacheKey>();
  readonly #onEvicted: (key: CacheKey) => void;
  #evictions = 0;
  #refused = 0;

  constructor(
    policy: PolicySettings,
    maxObjectBytes: number,
    readers: Readers,
    onEvicted: (key: CacheKey) => void = () => undefined,
  ) {
    this.#policy = new RenewablePolicy(policy);
    this.#maxObjectBytes = maxObjectBytes;
    this.#readers = readers;
    this.#onEvicted = onEvicted;
  }

  /** Larger at once, smaller in steps; another policy takes over what is stored. Resolves when that is done. */
  async renew(policy: PolicySettings, maxObjectBytes: number): Promise<void> {
    this.#maxObjectBytes = maxObjectBytes;
    if (!this.#policy.renew(policy)) return;
    const moved = (key: string, handle: number): void => {
      const stored = this.#stored.get(key as CacheKey);
      if (stored !== undefined) stored.handle = handle;
    };
    await this.#settling.run(() => this.#policy.step((victim) => this.#evict(victim as CacheKey), moved));
  }

  /** Ends what `renew` has begun. */
  async close(): Promise<void> {
    await this.#settling.stop();
  }

  /** Finds a stored response and counts a use. */
  get(key: CacheKey): Stored | undefined {
    const stored = this.#stored.get(key);
    if (stored !== undefined) this.#policy.use(key, stored.handle);
    return stored;
  }

  peek(key: CacheKey): Stored | undefined {
    return this.#stored.get(key);
  }

  /** Whether such a body can be stored at all. */
  takes(entry: Entry): boolean {
    const sizeBytes = entry.sizeBytes ?? 0;
    return sizeBytes <= this.#maxObjectBytes && weightOf(entry, sizeBytes) <= this.#policy.capacityBytes;
  }

  /** Whether `put` will store such a body. */
  surelyTakes(entry: Entry): boolean {
    return this.takes(entry) && !this.#policy.mayRefuse;
  }

  /** Replaces what is stored under the key, even if the new body is refused. */
  put(entry: Entry, bytes: Buffer): PutOutcome {
    this.remove(entry.key);
    if (bytes.length > this.#maxObjectBytes) return 'too_large';
    if (!this.#policy.admit(entry.key, weightOf(entry, bytes.length), (victim) => this.#evict(victim as CacheKey))) {
      this.#refused += 1;
      return 'not_admitted';
    }
    const handle = this.#policy.handleOf(entry.key);
    invariant(handle !== undefined, 'a policy has what it has admitted');
    this.#add(entry, new BytesBody(entry.key, bytes, this.#readers), handle);
    return 'stored';
  }

  /** Puts a newer head over the stored body. False if the key is not stored. */
  refresh(entry: Entry): boolean {
    const stored = this.#stored.get(entry.key);
    if (stored === undefined) return false;
    this.#forget(stored.entry);
    this.#add({ ...entry, sizeBytes: stored.entry.sizeBytes, sha256: stored.entry.sha256 }, stored.body, stored.handle);
    return true;
  }

  remove(key: CacheKey): boolean {
    const stored = this.#stored.get(key);
    if (stored === undefined) return false;
    this.#policy.remove(key);
    this.#forget(stored.entry);
    return true;
  }

  keysOfMedia(id: MediaId): readonly CacheKey[] {
    return this.#byMedia.membersOf(id);
  }

  keysOfPrimary(primaryKey: string): readonly CacheKey[] {
    const variants = this.#byPrimary.membersOf(primaryKey);
    const plain = primaryKey as CacheKey;
    return this.#stored.has(plain) ? [plain, ...variants] : variants;
  }

  keys(): readonly CacheKey[] {
    return [...this.#stored.keys()];
  }

  keysWhere(matches: (entry: Entry) => boolean): readonly CacheKey[] {
    return [...this.#stored.values()].filter(({ entry }) => matches(entry)).map(({ entry }) => entry.key);
  }

  stats(): TierStats {
    return {
      entries: this.#policy.count,
      usedBytes: this.#policy.usedBytes,
      capacityBytes: this.#policy.capacityBytes,
      evictions: this.#evictions,
      refused: this.#refused,
    };
  }

  #evict(key: CacheKey): void {
    const stored = this.#stored.get(key);
    if (stored !== undefined) this.#forget(stored.entry);
    this.#evictions += 1;
    this.#onEvicted(key);
  }

  #add(entry: Entry, body: Body, handle: number): void {
    const headers = this.#fields.share(entry.headers);
    this.#stored.set(entry.key, { entry: { ...entry, headers }, tier: 'memory', body, handle });
    if (entry.key !== entry.primaryKey) this.#byPrimary.add(entry.primaryKey, entry.key);
    if (entry.mediaId !== null) this.#byMedia.add(entry.mediaId, entry.key);
  }

  #forget(entry: Entry): void {
    this.#stored.delete(entry.key);
    if (entry.key !== entry.primaryKey) this.#byPrimary.remove(entry.primaryKey, entry.key);
    if (entry.mediaId !== null) this.#byMedia.remove(entry.mediaId, entry.key);
  }
}

function weightOf(entry: Entry, sizeBytes: number): number {
  return memoryWeight(headBytes(entry), sizeBytes);
}

/** All memory that an entry needs, so that the limit is on memory and not on bodies alone. */
export function memoryWeight(ofHeadBytes: number, sizeBytes: number): number {
  return ENTRY_OVERHEAD_BYTES + ofHeadBytes + sizeBytes;
}

/** The memory that the keys and fields of an entry need. Most text is there twice: as it was received and as it is sent. */
export function headBytes({ key, headers }: Pick<Entry, 'key' | 'headers'>): number {
  return headers.reduce(
    (sum, [name, value]) => sum + 2 * (name.length + value.length) + FIELD_OVERHEAD_BYTES,
    2 * key.length,
  );
}

/** A body in memory. */
export class BytesBody implements Body {
  readonly whole: Buffer;
  readonly #key: CacheKey;
  readonly #readers: Readers;

  constructor(key: CacheKey, whole: Buffer, readers: Readers) {
    this.#key = key;
    this.whole = whole;
    this.#readers = readers;
  }

  get sizeBytes(): number {
    return this.whole.length;
  }

  async ensure(): Promise<'ready'> {
    return 'ready';
  }

  open(span: ByteSpan | undefined, signal: AbortSignal): Readable {
    const { whole } = this;
    const end = span === undefined ? whole.length : Math.min(span.last + 1, whole.length);
    let at = span?.first ?? 0;
    const stream = new Readable({
      signal,
      ...IN_PIECES,
      read() {
        const slice = whole.subarray(at, Math.min(at + SLICE_BYTES, end));
        at += slice.length;
        this.push(slice.length === 0 ? null : slice);
      },
    });
    this.#readers.add(this.#key, stream);
    return stream;
  }
}
