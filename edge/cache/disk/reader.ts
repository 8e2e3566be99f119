/**
 * Reads and verifies bodies on disk. A content that this run has not written
 * itself is verified once before its first byte is served. Small bodies are read
 * in one piece, large ones by offset.
 */
import { createHash, hash } from 'node:crypto';
import { Readable } from 'node:stream';
import { onAbort, withSignal } from '../../../src/abort.js';
import type { Budget } from '../../../src/budget.js';
import { type ByteSpan, spanLength } from '../../../src/http/range.js';
import { type Body, BodyLost } from '../cache.js';
import { BytesBody } from '../memory.js';
import { IN_PIECES, type Readers } from '../readers.js';
import type { ContentRefs } from './content-refs.js';
import type { DiskIndex } from './disk-index.js';
import type { DiskEntries } from './entries.js';
import { isMissing, type OpenFile } from './files.js';
import { type DiskRecord, digestOf } from './record.js';

/** Bodies that are not read in one piece are read in pieces of this size, which begin at its multiples. */
const READ_BYTES = 131_072;
/** The number of the piece that is a whole body. */
const WHOLE = -1;
const NOTHING = Buffer.alloc(0);
/** Bodies of up to this size need not fit into the memory for bodies that are read in one piece: a stream needs as much. */
const UNCOUNTED_BYTES = 65_536;

export interface DiskReaderDeps {
  readonly contentRefs: ContentRefs;
  readonly index: DiskIndex;
  readonly entries: DiskEntries;
  readonly readers: Readers;
  /** Bodies of up to this size are read in one piece. */
  readonly wholeReadBytes: number;
  /** The memory of such bodies until they are sent. */
  readonly wholeReads: Budget;
  onError(thrown: unknown): void;
}

/** What several callers need at the same time is read or verified once. */
export class DiskReader {
  readonly #deps: DiskReaderDeps;
  readonly #reading = new Map<string, Promise<Buffer | undefined>>();
  readonly #verifying = new Map<string, Promise<boolean>>();

  constructor(deps: DiskReaderDeps) {
    this.#deps = deps;
  }

  bodyOf(record: DiskRecord): DiskBody {
    return new DiskBody(record, this, this.#deps);
  }

  /** The whole body, if it was read in one piece a moment ago. */
  recentWhole({ content }: DiskRecord): Buffer | undefined {
    return content === null ? NOTHING : this.#deps.contentRefs.pieces.get(content, WHOLE);
  }

  /** The whole content, verified if need be. Undefined if it is lost. */
  readWhole(record: DiskRecord): Promise<Buffer | undefined> {
    const { content } = record;
    const recent = this.recentWhole(record);
    if (recent !== undefined || content === null) return Promise.resolve(recent);
    return shared(this.#reading, content, () =>
      this.#guarded(record, undefined, () => this.#readWhole(record, content)),
    );
  }

  /** Whether the content exists and is correct. Reads it unless this run has done so. */
  verify(record: DiskRecord): Promise<boolean> {
    const { content } = record;
    if (content === null || this.#deps.index.isVerified(record)) return Promise.resolve(true);
    return shared(this.#verifying, content, () => this.rehash(record));
  }

  /** Reads and hashes the content in any case, and awaits `pace` after each piece. False also if aborted. */
  rehash(record: DiskRecord, pace?: (bytes: number) => Promise<void>, signal?: AbortSignal): Promise<boolean> {
    return this.#guarded(record, false, () => this.#rehash(record, pace, signal));
  }

  async #readWhole(record: DiskRecord, content: string): Promise<Buffer | undefined> {
    const file = await this.#deps.contentRefs.lend(content);
    try {
      const bytes = Buffer.allocUnsafeSlow(record.entry.sizeBytes);
      if ((await file.read(bytes, 0)) < bytes.length) return this.#dropCorrupt(record, undefined);
      if (!this.#deps.index.isVerified(record)) {
        const correct = (await file.sizeBytes()) === bytes.length && hash('sha256', bytes) === content;
        if (!correct) return this.#dropCorrupt(record, undefined);
        this.#deps.index.markVerified(digestOf(record.entry.key), record);
      }
      this.#remember(record, WHOLE, bytes);
      return bytes;
    } finally {
      await file.close();
    }
  }

  async #rehash(
    record: DiskRecord,
    pace: ((bytes: number) => Promise<void>) | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    if (record.content === null) return true;
    const file = await this.#deps.contentRefs.open(record.content);
    try {
      const sum = createHash('sha256');
      const { sizeBytes } = record.entry;
      if ((await file.sizeBytes()) !== sizeBytes) return this.#dropCorrupt(record, false);
      const piece = Buffer.allocUnsafe(Math.min(READ_BYTES, sizeBytes));
      for (let at = 0; at < sizeBytes; at += piece.length) {
        const read = await file.read(piece, at);
        sum.update(piece.subarray(0, read));
        await pace?.(read);
        if (signal?.aborted === true) return false;
      }
      if (sum.digest('hex') !== record.content) return this.#dropCorrupt(record, false);
      this.#deps.index.markVerified(digestOf(record.entry.key), record);
      return true;
    } finally {
      await file.close();
    }
  }

  /** The bytes of a span, if its pieces were read a moment ago. */
  recentSpan({ content }: DiskRecord, { first, last }: ByteSpan): Buffer | undefined {
    const { pieces } = this.#deps.contentRefs;
    const found: Buffer[] = [];
    for (let number = Math.floor(first / READ_BYTES); number * READ_BYTES <= last; number += 1) {
      const piece = content === null ? undefined : pieces.get(content, number);
      if (piece === undefined) return undefined;
      const start = number * READ_BYTES;
      found.push(piece.subarray(Math.max(0, first - start), last + 1 - start));
    }
    const [only] = found;
    return found.length === 1 ? only : Buffer.concat(found);
  }

  /** The bytes of a span of a verified body; undefined if it is lost. */
  readSpan(record: DiskRecord, { first, last }: ByteSpan): Promise<Buffer | undefined> {
    return this.#guarded(record, undefined, async () => {
      const file = await this.#deps.contentRefs.lend(record.content ?? '');
      try {
        const pieces: Buffer[] = [];
        for (let at = first; at <= last; ) {
          const bytes = await this.piece(record, file, at);
          if (bytes === undefined) return undefined;
          pieces.push(bytes.subarray(0, last + 1 - at));
          at += bytes.length;
        }
        const [only] = pieces;
        return pieces.length === 1 ? only : Buffer.concat(pieces);
      } finally {
        await file.close();
      }
    });
  }

  /** What the piece has from `at` on. Undefined if the file ends before its end: the entry is dropped. */
  async piece(record: DiskRecord, file: OpenFile, at: number): Promise<Buffer | undefined> {
    const { content, entry } = record;
    const number = Math.floor(at / READ_BYTES);
    const start = number * READ_BYTES;
    const found = content === null ? undefined : this.#deps.contentRefs.pieces.get(content, number);
    if (found !== undefined) return found.subarray(at - start);
    const bytes = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, entry.sizeBytes - start));
    if ((await file.read(bytes, start)) < bytes.length) return this.#dropCorrupt(record, undefined);
    this.#remember(record, number, bytes);
    return bytes.subarray(at - start);
  }

  /** Unless the content has been replaced or removed meanwhile. */
  #remember(record: DiskRecord, number: number, bytes: Buffer): void {
    const { contentRefs, index } = this.#deps;
    const current = index.get(digestOf(record.entry.key));
    if (record.content !== null && current?.seq === record.seq) contentRefs.pieces.put(record.content, number, bytes);
  }

  #dropCorrupt<T>(record: DiskRecord, result: T): T {
    this.#deps.entries.dropCorrupt(record);
    return result;
  }

  /** A missing file counts as corrupt. After any other error the entry stays and can be tried again. */
  async #guarded<T>(record: DiskRecord, lost: T, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (thrown) {
      if (isMissing(thrown)) return this.#dropCorrupt(record, lost);
      this.#deps.onError(thrown);
      return lost;
    }
  }
}

class DiskBody implements Body {
  readonly #record: DiskRecord;
  readonly #reader: DiskReader;
  readonly #deps: DiskReaderDeps;
  #whole: Buffer | undefined;
  #part: { readonly first: number; readonly last: number; readonly bytes: Buffer } | undefined;

  constructor(record: DiskRecord, reader: DiskReader, deps: DiskReaderDeps) {
    this.#record = record;
    this.#reader = reader;
    this.#deps = deps;
    this.#whole = reader.recentWhole(record);
  }

  get sizeBytes(): number {
    return this.#record.entry.sizeBytes;
  }

  get whole(): Buffer | undefined {
    return this.#whole;
  }

  bytesOf({ first, last }: ByteSpan): Buffer | undefined {
    return this.#part?.first === first && this.#part.last === last ? this.#part.bytes : undefined;
  }

  async ensure(signal: AbortSignal, span?: ByteSpan): Promise<'ready' | 'lost'> {
    const { content } = this.#record;
    if (this.#whole !== undefined || content === null) return 'ready';
    const recent = this.#recentPart(span);
    if (recent !== undefined) {
      this.#part = recent;
      return 'ready';
    }
    this.#deps.contentRefs.pin(content);
    if (!this.#mayReadWhole(signal)) {
      if (!(await withSignal(this.#reader.verify(this.#record), signal))) return 'lost';
      if (span === undefined || spanLength(span) > READ_BYTES) return 'ready';
      const bytes = await withSignal(this.#reader.readSpan(this.#record, span), signal);
      this.#part = bytes && { ...span, bytes };
      return bytes === undefined ? 'lost' : 'ready';
    }
    this.#whole = await withSignal(this.#reader.readWhole(this.#record), signal);
    return this.#whole === undefined ? 'lost' : 'ready';
  }

  #recentPart(span: ByteSpan | undefined): { first: number; last: number; bytes: Buffer } | undefined {
    if (span === undefined || spanLength(span) > READ_BYTES) return undefined;
    const bytes = this.#reader.recentSpan(this.#record, span);
    return bytes && { ...span, bytes };
  }

  /** Takes the memory for the body until its client has it or is gone. */
  #mayReadWhole(signal: AbortSignal): boolean {
    const { sizeBytes } = this;
    const { wholeReadBytes, wholeReads } = this.#deps;
    if (sizeBytes > wholeReadBytes) return false;
    if (sizeBytes <= UNCOUNTED_BYTES) return true;
    if (!wholeReads.tryTake(sizeBytes)) return false;
    onAbort(signal, () => wholeReads.giveBack(sizeBytes));
    return true;
  }

  open(span: ByteSpan | undefined, signal: AbortSignal): Readable {
    const { key } = this.#record.entry;
    if (this.#whole !== undefined) return new BytesBody(key, this.#whole, this.#deps.readers).open(span, signal);
    const stream = new DiskReadable(this.#record, this.#reader, this.#deps, span, signal);
    this.#deps.readers.add(key, stream);
    return stream;
  }
}

class DiskReadable extends Readable {
  readonly #record: DiskRecord;
  readonly #reader: DiskReader;
  readonly #deps: DiskReaderDeps;
  readonly #end: number;
  #at: number;
  #file: OpenFile | undefined;

  constructor(
    record: DiskRecord,
    reader: DiskReader,
    deps: DiskReaderDeps,
    span: ByteSpan | undefined,
    signal: AbortSignal,
  ) {
    super({ signal, ...IN_PIECES });
    this.#record = record;
    this.#reader = reader;
    this.#deps = deps;
    this.#at = span?.first ?? 0;
    this.#end = span === undefined ? record.entry.sizeBytes : Math.min(span.last + 1, record.entry.sizeBytes);
  }

  override _read(): void {
    this.#readOn().catch((thrown: unknown) => this.destroy(thrown instanceof BodyLost ? thrown : this.#lost(thrown)));
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    void this.#close();
    done(error);
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    try {
      await file?.close();
    } catch (thrown) {
      this.#deps.onError(thrown);
    }
  }

  async #readOn(): Promise<void> {
    const left = this.#end - this.#at;
    if (left <= 0) {
      this.push(null);
      return;
    }
    const file = this.#file ?? (await this.#open());
    if (file === undefined) return;
    const piece = await this.#reader.piece(this.#record, file, this.#at);
    if (this.destroyed) return;
    if (piece === undefined) throw new BodyLost('corrupt');
    const bytes = piece.subarray(0, left);
    this.#at += bytes.length;
    this.push(bytes);
  }

  /** Undefined if the stream was destroyed meanwhile. */
  async #open(): Promise<OpenFile | undefined> {
    if (!(await this.#reader.verify(this.#record))) throw new BodyLost('corrupt');
    const file = await this.#deps.contentRefs.lend(this.#record.content ?? '');
    if (this.destroyed) {
      await file.close();
      return undefined;
    }
    this.#file = file;
    return file;
  }

  #lost(thrown: unknown): BodyLost {
    if (isMissing(thrown)) return new BodyLost('evicted', thrown);
    this.#deps.onError(thrown);
    return new BodyLost('aborted', thrown);
  }
}

/** Starts the work, or returns what is running under the same key. */
function shared<T>(running: Map<string, Promise<T>>, key: string, start: () => Promise<T>): Promise<T> {
  const found = running.get(key);
  if (found !== undefined) return found;
  const work = start().finally(() => running.delete(key));
  running.set(key, work);
  return work;
}
