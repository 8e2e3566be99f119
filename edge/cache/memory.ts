/**
 * The memory tier: whole bodies, each one Buffer, within a hard limit that
 * counts bodies, heads and what it costs to keep them. Its policy names who has
 * to go. A look-up makes nothing new: what is handed out was made at the put.
 */
import { Readable } from 'node:stream';
import type { ByteSpan } from '../../src/http/range.js';
import type { MediaId } from '../../src/ids.js';
import type { CacheKey, Entry } from '../entry.js';
import type { Body, Stored, TierStats } from './cache.js';
import { KeyIndex } from './key-index.js';
import type { Policy } from './policy/policy.js';
import type { Readers } from './readers.js';

/** What an entry costs beside its body and the text of its head: objects, maps, links. */
export const ENTRY_OVERHEAD_BYTES = 2_048;
/** What a header field costs beside its text, also in the heads that the engine prepares from it. */
const FIELD_OVERHEAD_BYTES = 192;
/** Readers are given so much at a time, so that a takedown finds something left to withhold. */
const SLICE_BYTES = 65_536;

export type PutOutcome = 'stored' | 'too_large' | 'not_admitted';

export class MemoryTier {
  readonly #maxObjectBytes: number;
  readonly #policy: Policy;
  readonly #readers: Readers;
  readonly #held = new Map<CacheKey, Stored>();
  readonly #byMedia = new KeyIndex<MediaId, CacheKey>();
  readonly #byPrimary = new KeyIndex<string, CacheKey>();
  #evictions = 0;
  #refused = 0;

  constructor(policy: Policy, maxObjectBytes: number, readers: Readers) {
    this.#policy = policy;
    this.#maxObjectBytes = maxObjectBytes;
    this.#readers = readers;
  }

  /** Finds and counts as a use. */
  get(key: CacheKey): Stored | undefined {
    const stored = this.#held.get(key);
    if (stored !== undefined) this.#policy.touch(key);
    return stored;
  }

  peek(key: CacheKey): Stored | undefined {
    return this.#held.get(key);
  }

  /** Takes the place of what is held under the key, also when it is refused. */
  put(entry: Entry, bytes: Buffer): PutOutcome {
    this.remove(entry.key);
    if (bytes.length > this.#maxObjectBytes) return 'too_large';
    if (!this.#policy.admit(entry.key, weightOf(entry, bytes), (victim) => this.#evict(victim as CacheKey))) {
      this.#refused += 1;
      return 'not_admitted';
    }
    this.#hold(entry, new BytesBody(entry.key, bytes, this.#readers));
    return 'stored';
  }

  /** A newer head over the same body; false where the key is not held. */
  refresh(entry: Entry): boolean {
    const stored = this.#held.get(entry.key);
    if (stored === undefined) return false;
    this.#forget(stored.entry);
    this.#hold({ ...entry, sizeBytes: stored.entry.sizeBytes, sha256: stored.entry.sha256 }, stored.body);
    return true;
  }

  remove(key: CacheKey): boolean {
    const stored = this.#held.get(key);
    if (stored === undefined) return false;
    this.#policy.remove(key);
    this.#forget(stored.entry);
    return true;
  }

  keysOfMedia(id: MediaId): readonly CacheKey[] {
    return this.#byMedia.membersOf(id);
  }

  keysOfPrimary(primaryKey: string): readonly CacheKey[] {
    return this.#byPrimary.membersOf(primaryKey);
  }

  entries(): readonly Entry[] {
    return Array.from(this.#held.values(), ({ entry }) => entry);
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
    const stored = this.#held.get(key);
    if (stored !== undefined) this.#forget(stored.entry);
    this.#evictions += 1;
  }

  #hold(entry: Entry, body: Body): void {
    this.#held.set(entry.key, { entry, tier: 'memory', body });
    this.#byPrimary.add(entry.primaryKey, entry.key);
    if (entry.mediaId !== null) this.#byMedia.add(entry.mediaId, entry.key);
  }

  #forget(entry: Entry): void {
    this.#held.delete(entry.key);
    this.#byPrimary.remove(entry.primaryKey, entry.key);
    if (entry.mediaId !== null) this.#byMedia.remove(entry.mediaId, entry.key);
  }
}

/** All that the entry takes, so that the limit is one on memory and not on bodies alone. */
function weightOf(entry: Entry, bytes: Buffer): number {
  return ENTRY_OVERHEAD_BYTES + headBytes(entry) + bytes.length;
}

/** What the names and fields of an entry take. */
export function headBytes({ key, headers }: Pick<Entry, 'key' | 'headers'>): number {
  return headers.reduce(
    (sum, [name, value]) => sum + name.length + value.length + FIELD_OVERHEAD_BYTES,
    2 * key.length,
  );
}

/** A body that lies in memory. */
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
      highWaterMark: SLICE_BYTES,
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
