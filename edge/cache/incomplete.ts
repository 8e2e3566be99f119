/**
 * Responses of which only a part has come (RFC 9111 3.3): what of their bytes is
 * here, in memory alone and within a limit of its own. Bytes are put together
 * only under one strong validator (RFC 9111 3.4); another one throws away what
 * there was. The parts used longest ago go first.
 *
 * Leaves to others: what may be kept at all (storable.ts), what is fetched of
 * the rest, and the whole, which moves to the tiers once it is there.
 */
import { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { MediaId } from '../../src/ids.js';
import type { CacheKey, Entry } from '../entry.js';
import { addSpan, combinable, missingOf } from '../rfc9111/spans.js';
import {
  type Body,
  BodyLost,
  type DropReason,
  type IncompleteResponse,
  type IncompleteResponses,
  type IncompleteWriter,
  type TierStats,
} from './cache.js';
import { KeyIndex } from './key-index.js';
import { ENTRY_OVERHEAD_BYTES, headBytes } from './memory.js';
import type { Readers } from './readers.js';

/** What a chunk costs beside its bytes. */
const CHUNK_OVERHEAD_BYTES = 128;

export interface IncompleteLimits {
  /** All parts together, with what keeping them costs. 0: none are kept. */
  readonly sizeBytes: number;
  /** Of one response. */
  readonly maxObjectBytes: number;
  /** Pieces of one response that lie apart. */
  readonly spansMax: number;
}

/** Bytes from `first` on, as they came. */
interface Chunk {
  readonly first: number;
  readonly bytes: Buffer;
}

export class IncompleteTier implements IncompleteResponses {
  readonly #limits: IncompleteLimits;
  readonly #readers: Readers;
  readonly #clock: Pick<Clock, 'now'>;
  /** Used longest ago first. */
  readonly #held = new Map<CacheKey, Incomplete>();
  readonly #byMedia = new KeyIndex<MediaId, CacheKey>();
  readonly #byPrimary = new KeyIndex<string, CacheKey>();
  #usedBytes = 0;
  #evictions = 0;
  #refused = 0;

  constructor(limits: IncompleteLimits, readers: Readers, clock: Pick<Clock, 'now'>) {
    this.#limits = limits;
    this.#readers = readers;
    this.#clock = clock;
  }

  find(primaryKey: string, suits: (entry: Entry) => boolean): IncompleteResponse | undefined {
    if (this.#held.size === 0) return undefined;
    let newest: Incomplete | undefined;
    for (const key of this.#byPrimary.membersOf(primaryKey)) {
      const part = this.#held.get(key);
      if (part === undefined || !suits(part.entry)) continue;
      if (part.entry.deleteAt <= this.#clock.now()) this.drop(key, 'expired');
      else if (newest === undefined || part.entry.bornAt > newest.entry.bornAt) newest = part;
    }
    if (newest !== undefined) this.#touch(newest);
    return newest;
  }

  open(entry: Entry): IncompleteWriter | undefined {
    const { sizeBytes } = entry;
    if (sizeBytes === null || this.#limits.sizeBytes === 0) return undefined;
    const part = this.#take({ ...entry, sizeBytes });
    return part === undefined ? undefined : { write: (at, chunk) => this.#write(part, at, chunk) };
  }

  /** Those who read what is replaced may finish; what is taken down, purged or wrong is lost to them too. */
  drop(key: CacheKey, reason: DropReason): void {
    const part = this.#held.get(key);
    if (part === undefined) return;
    this.#forget(part);
    if (reason === 'taken_down' || reason === 'purged' || reason === 'corrupt') part.lost = reason;
  }

  keysWhere(matches: (entry: Entry) => boolean): readonly CacheKey[] {
    return [...this.#held.values()].filter(({ entry }) => matches(entry)).map(({ entry }) => entry.key);
  }

  keysOfMedia(id: MediaId): readonly CacheKey[] {
    return this.#byMedia.membersOf(id);
  }

  keysOfPrimary(primaryKey: string): readonly CacheKey[] {
    return this.#byPrimary.membersOf(primaryKey);
  }

  stats(): TierStats {
    return {
      entries: this.#held.size,
      usedBytes: this.#usedBytes,
      capacityBytes: this.#limits.sizeBytes,
      evictions: this.#evictions,
      refused: this.#refused,
    };
  }

  /** RFC 9111 3.4: what is there already, under the newer head; or a new one where that is of another piece. */
  #take(entry: Incomplete['entry']): Incomplete | undefined {
    const held = this.#held.get(entry.key);
    if (held !== undefined && combinable(held.entry, entry)) {
      const grownBytes = headBytes(entry) - headBytes(held.entry);
      if (!this.#makeRoom(held, grownBytes)) return undefined;
      held.entry = entry;
      this.#touch(held);
      return held;
    }
    if (held !== undefined) this.drop(entry.key, 'replaced');
    const part = new Incomplete(entry, this.#readers);
    if (!this.#makeRoom(part, ENTRY_OVERHEAD_BYTES + headBytes(entry))) return undefined;
    this.#held.set(entry.key, part);
    this.#byPrimary.add(entry.primaryKey, entry.key);
    if (entry.mediaId !== null) this.#byMedia.add(entry.mediaId, entry.key);
    return part;
  }

  /** False where no more of it is taken. What is here already is not taken twice: a strong validator vouches for it. */
  #write(part: Incomplete, at: number, chunk: Buffer): boolean {
    if (this.#held.get(part.entry.key) !== part) return false;
    const lacking = missingOf(part.spans, { first: at, last: at + chunk.length - 1 });
    for (const { first, last } of chunk.length === 0 ? [] : lacking) {
      const spans = addSpan(part.spans, { first, last });
      const sizeBytes = last - first + 1;
      const fits =
        spans.length <= this.#limits.spansMax &&
        part.keptBytes + sizeBytes <= this.#limits.maxObjectBytes &&
        this.#makeRoom(part, sizeBytes + CHUNK_OVERHEAD_BYTES);
      if (!fits) {
        this.#refused += 1;
        return false;
      }
      part.add({ first, bytes: copyOf(chunk.subarray(first - at, last + 1 - at)) }, spans);
    }
    return true;
  }

  /** Takes so many bytes for a part, from those used longest ago where there is no room. Never from the part itself. */
  #makeRoom(part: Incomplete, bytes: number): boolean {
    const { sizeBytes } = this.#limits;
    if (part.weightBytes + bytes > sizeBytes) return false;
    for (const other of this.#held.values()) {
      if (this.#usedBytes + bytes <= sizeBytes) break;
      if (other === part) continue;
      this.#forget(other);
      this.#evictions += 1;
    }
    part.weightBytes += bytes;
    this.#usedBytes += bytes;
    return true;
  }

  #touch(part: Incomplete): void {
    const { key } = part.entry;
    if (this.#held.delete(key)) this.#held.set(key, part);
  }

  #forget({ entry, weightBytes }: Incomplete): void {
    this.#held.delete(entry.key);
    this.#byPrimary.remove(entry.primaryKey, entry.key);
    if (entry.mediaId !== null) this.#byMedia.remove(entry.mediaId, entry.key);
    this.#usedBytes -= weightBytes;
  }
}

class Incomplete implements IncompleteResponse {
  entry: Entry & { readonly sizeBytes: number };
  spans: readonly ByteSpan[] = [];
  weightBytes = 0;
  keptBytes = 0;
  lost: DropReason | undefined;
  readonly body: Body;
  /** Ascending, none overlapping another. */
  readonly #chunks: Chunk[] = [];

  constructor(entry: Incomplete['entry'], readers: Readers) {
    this.entry = entry;
    this.body = {
      sizeBytes: entry.sizeBytes,
      whole: undefined,
      ensure: async () => (this.lost === undefined ? 'ready' : 'lost'),
      open: (span, signal) => {
        const stream = this.#open(span ?? { first: 0, last: entry.sizeBytes - 1 }, signal);
        readers.add(entry.key, stream);
        return stream;
      },
    };
  }

  add(chunk: Chunk, spans: readonly ByteSpan[]): void {
    // Most come in order: the place is looked for from the end.
    let place = this.#chunks.length;
    while (place > 0 && (this.#chunks[place - 1]?.first ?? 0) > chunk.first) place -= 1;
    this.#chunks.splice(place, 0, chunk);
    this.keptBytes += chunk.bytes.length;
    this.spans = spans;
  }

  read(span: ByteSpan): readonly Buffer[] {
    const pieces: Buffer[] = [];
    for (const { first, bytes } of this.#chunks) {
      const from = Math.max(span.first, first);
      const to = Math.min(span.last + 1, first + bytes.length);
      if (from < to) pieces.push(bytes.subarray(from - first, to - first));
    }
    return pieces;
  }

  #open(span: ByteSpan, signal: AbortSignal): Readable {
    const pieces = missingOf(this.spans, span).length === 0 ? this.read(span) : undefined;
    let next = 0;
    const read = (stream: Readable): void => {
      if (this.lost !== undefined) stream.destroy(new BodyLost(this.lost));
      else if (pieces === undefined) stream.destroy(new BodyLost('evicted'));
      else stream.push(pieces[next++] ?? null);
    };
    return new Readable({
      signal,
      read() {
        read(this);
      },
    });
  }
}

/** The bytes alone, not the larger piece of memory that they came in. */
function copyOf(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
