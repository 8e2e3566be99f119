/**
 * Incomplete responses (RFC 9111 3.3): the ranges of a body that have arrived so
 * far, in memory only and within a limit of their own. Bytes are combined only
 * if both responses have the same strong validator (RFC 9111 3.4); with another
 * validator the new bytes replace the old ones. The least recently used response
 * is evicted first.
 *
 * Leaves to others: what may be stored (rfc9111/storable.ts), fetching the
 * missing bytes, and moving a complete body to the tiers (fetch/complete.ts).
 */
import { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { MediaId } from '../../src/ids.js';
import type { CacheKey, Entry, SizedEntry } from '../entry.js';
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

/** The memory that a chunk needs beside its bytes. */
const CHUNK_OVERHEAD_BYTES = 128;

export interface IncompleteLimits {
  /** All incomplete responses together, with their overhead. 0: none are stored. */
  readonly sizeBytes: number;
  /** The bytes of one response. */
  readonly maxObjectBytes: number;
  /** The separate ranges of one response. */
  readonly spansMax: number;
}

/** Bytes that arrived together; the offset of the first one is `first`. */
interface Chunk {
  readonly first: number;
  readonly bytes: Buffer;
}

export class IncompleteTier implements IncompleteResponses {
  readonly #limits: IncompleteLimits;
  readonly #readers: Readers;
  readonly #clock: Pick<Clock, 'now'>;
  /** The least recently used first. */
  readonly #stored = new Map<CacheKey, Incomplete>();
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
    if (this.#stored.size === 0) return undefined;
    let newest: Incomplete | undefined;
    for (const key of this.#byPrimary.membersOf(primaryKey)) {
      const response = this.#stored.get(key);
      if (response === undefined || !suits(response.entry)) continue;
      if (response.entry.deleteAt <= this.#clock.now()) this.drop(key, 'expired');
      else if (newest === undefined || response.entry.bornAt > newest.entry.bornAt) newest = response;
    }
    if (newest !== undefined) this.#renew(newest);
    return newest;
  }

  open(entry: Entry): IncompleteWriter | undefined {
    const { sizeBytes } = entry;
    if (sizeBytes === null || this.#limits.sizeBytes === 0) return undefined;
    const response = this.#findOrAdd({ ...entry, sizeBytes });
    return response === undefined ? undefined : { write: (at, chunk) => this.#write(response, at, chunk) };
  }

  /** After a takedown, a purge or corruption its readers fail; in all other cases they may finish. */
  drop(key: CacheKey, reason: DropReason): void {
    const response = this.#stored.get(key);
    if (response === undefined) return;
    this.#forget(response);
    if (reason === 'taken_down' || reason === 'purged' || reason === 'corrupt') response.lost = reason;
  }

  keysWhere(matches: (entry: Entry) => boolean): readonly CacheKey[] {
    return [...this.#stored.values()].filter(({ entry }) => matches(entry)).map(({ entry }) => entry.key);
  }

  keysOfMedia(id: MediaId): readonly CacheKey[] {
    return this.#byMedia.membersOf(id);
  }

  keysOfPrimary(primaryKey: string): readonly CacheKey[] {
    return this.#byPrimary.membersOf(primaryKey);
  }

  stats(): TierStats {
    return {
      entries: this.#stored.size,
      usedBytes: this.#usedBytes,
      capacityBytes: this.#limits.sizeBytes,
      evictions: this.#evictions,
      refused: this.#refused,
    };
  }

  /** The stored response under the newer head, if the two can be combined (RFC 9111 3.4); otherwise a new one. */
  #findOrAdd(entry: SizedEntry): Incomplete | undefined {
    const stored = this.#stored.get(entry.key);
    if (stored !== undefined && combinable(stored.entry, entry)) {
      const grownBytes = headBytes(entry) - headBytes(stored.entry);
      if (!this.#allot(stored, grownBytes)) return undefined;
      stored.entry = entry;
      this.#renew(stored);
      return stored;
    }
    if (stored !== undefined) this.drop(entry.key, 'replaced');
    const response = new Incomplete(entry, this.#readers);
    if (!this.#allot(response, ENTRY_OVERHEAD_BYTES + headBytes(entry))) return undefined;
    this.#stored.set(entry.key, response);
    this.#byPrimary.add(entry.primaryKey, entry.key);
    if (entry.mediaId !== null) this.#byMedia.add(entry.mediaId, entry.key);
    return response;
  }

  /** Stores the bytes that are missing; those that are present are the same, by the strong validator. */
  #write(response: Incomplete, at: number, chunk: Buffer): boolean {
    if (this.#stored.get(response.entry.key) !== response) return false;
    const missing = missingOf(response.spans, { first: at, last: at + chunk.length - 1 });
    for (const { first, last } of chunk.length === 0 ? [] : missing) {
      const spans = addSpan(response.spans, { first, last });
      const sizeBytes = last - first + 1;
      const fits =
        spans.length <= this.#limits.spansMax &&
        response.storedBytes + sizeBytes <= this.#limits.maxObjectBytes &&
        this.#allot(response, sizeBytes + CHUNK_OVERHEAD_BYTES);
      if (!fits) {
        this.#refused += 1;
        return false;
      }
      response.add({ first, bytes: copyOf(chunk.subarray(first - at, last + 1 - at)) }, spans);
    }
    return true;
  }

  /** Gives a response this many more bytes of the limit, and evicts others for them if need be. */
  #allot(response: Incomplete, bytes: number): boolean {
    const { sizeBytes } = this.#limits;
    if (response.weightBytes + bytes > sizeBytes) return false;
    for (const other of this.#stored.values()) {
      if (this.#usedBytes + bytes <= sizeBytes) break;
      if (other === response) continue;
      this.#forget(other);
      this.#evictions += 1;
    }
    response.weightBytes += bytes;
    this.#usedBytes += bytes;
    return true;
  }

  /** Makes it the most recently used. */
  #renew(response: Incomplete): void {
    const { key } = response.entry;
    if (this.#stored.delete(key)) this.#stored.set(key, response);
  }

  #forget({ entry, weightBytes }: Incomplete): void {
    this.#stored.delete(entry.key);
    this.#byPrimary.remove(entry.primaryKey, entry.key);
    if (entry.mediaId !== null) this.#byMedia.remove(entry.mediaId, entry.key);
    this.#usedBytes -= weightBytes;
  }
}

class Incomplete implements IncompleteResponse {
  entry: SizedEntry;
  spans: readonly ByteSpan[] = [];
  weightBytes = 0;
  storedBytes = 0;
  lost: DropReason | undefined;
  readonly body: Body;
  /** Ascending, without overlap. */
  readonly #chunks: Chunk[] = [];

  constructor(entry: SizedEntry, readers: Readers) {
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
    // Most chunks arrive in order, so the search starts at the end.
    let place = this.#chunks.length;
    while (place > 0 && (this.#chunks[place - 1]?.first ?? 0) > chunk.first) place -= 1;
    this.#chunks.splice(place, 0, chunk);
    this.storedBytes += chunk.bytes.length;
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

/** A copy that keeps only these bytes alive, not the larger buffer around them. */
function copyOf(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
