/**
 * A body on disk. Before its first byte goes out it is known to be there and,
 * once in each run of the process, to be right: verified where this run did not
 * write it itself. Small bodies are read in one piece, large ones by offset.
 */
import { createHash, hash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ByteSpan } from '../../../src/http/range.js';
import { type Body, BodyLost } from '../cache.js';
import { BytesBody } from '../memory.js';
import type { Readers } from '../readers.js';
import type { ContentRefs } from './content-refs.js';
import type { DiskIndex } from './disk-index.js';
import { isMissing, type OpenFile } from './files.js';
import { type DiskRecord, digestOf } from './record.js';

const READ_BYTES = 131_072;

export interface DiskReaderDeps {
  readonly contents: ContentRefs;
  readonly index: DiskIndex;
  readonly readers: Readers;
  /** Bodies up to this size are read in one piece. */
  readonly wholeReadBytes: number;
  /** The content is missing or wrong: every entry that shows it is to be dropped. */
  onCorrupt(record: DiskRecord): void;
  onError(thrown: unknown): void;
}

/** Reads and verifies contents; what many ask for at once is done once. */
export class DiskReader {
  readonly #parts: DiskReaderDeps;
  readonly #reading = new Map<string, Promise<Buffer | undefined>>();
  readonly #verifying = new Map<string, Promise<boolean>>();

  constructor(parts: DiskReaderDeps) {
    this.#parts = parts;
  }

  bodyOf(record: DiskRecord): DiskBody {
    return new DiskBody(record, this, this.#parts);
  }

  /** All of it, verified if need be; undefined where it is lost. */
  readWhole(record: DiskRecord): Promise<Buffer | undefined> {
    const { content } = record;
    if (content === null) return Promise.resolve(Buffer.alloc(0));
    return shared(this.#reading, content, () =>
      this.#guarded(record, undefined, () => this.#readWhole(record, content)),
    );
  }

  /** Whether the content is there and right, as far as this run has not seen it yet. */
  verify(record: DiskRecord): Promise<boolean> {
    const { content } = record;
    if (content === null || this.#parts.index.isVerified(record)) return Promise.resolve(true);
    return shared(this.#verifying, content, () => this.rehash(record));
  }

  /** Reads and hashes all of it, whatever was seen before; `pace` is awaited for each piece. False also when aborted. */
  rehash(record: DiskRecord, pace?: (bytes: number) => Promise<void>, signal?: AbortSignal): Promise<boolean> {
    return this.#guarded(record, false, () => this.#rehash(record, pace, signal));
  }

  async #readWhole(record: DiskRecord, content: string): Promise<Buffer | undefined> {
    const file = await this.#parts.contents.open(content);
    try {
      const bytes = Buffer.allocUnsafeSlow(record.entry.sizeBytes);
      const sized = (await file.sizeBytes()) === bytes.length && (await file.read(bytes, 0)) === bytes.length;
      if (!sized) return this.#corrupt(record, undefined);
      if (this.#parts.index.isVerified(record)) return bytes;
      if (hash('sha256', bytes) !== content) return this.#corrupt(record, undefined);
      this.#parts.index.markVerified(digestOf(record.entry.key), record);
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
    const file = await this.#parts.contents.open(record.content);
    try {
      const sum = createHash('sha256');
      const { sizeBytes } = record.entry;
      if ((await file.sizeBytes()) !== sizeBytes) return this.#corrupt(record, false);
      const piece = Buffer.allocUnsafe(Math.min(READ_BYTES, sizeBytes));
      for (let at = 0; at < sizeBytes; at += piece.length) {
        const read = await file.read(piece, at);
        sum.update(piece.subarray(0, read));
        await pace?.(read);
        if (signal?.aborted === true) return false;
      }
      if (sum.digest('hex') !== record.content) return this.#corrupt(record, false);
      this.#parts.index.markVerified(digestOf(record.entry.key), record);
      return true;
    } finally {
      await file.close();
    }
  }

  #corrupt<T>(record: DiskRecord, answer: T): T {
    this.#parts.onCorrupt(record);
    return answer;
  }

  /** A missing file is a corrupt copy; any other trouble leaves the entry for another time. */
  async #guarded<T>(record: DiskRecord, lost: T, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (thrown) {
      if (isMissing(thrown)) return this.#corrupt(record, lost);
      this.#parts.onError(thrown);
      return lost;
    }
  }
}

class DiskBody implements Body {
  readonly #record: DiskRecord;
  readonly #reader: DiskReader;
  readonly #parts: DiskReaderDeps;
  #whole: Buffer | undefined;

  constructor(record: DiskRecord, reader: DiskReader, parts: DiskReaderDeps) {
    this.#record = record;
    this.#reader = reader;
    this.#parts = parts;
    if (record.content === null) this.#whole = Buffer.alloc(0);
  }

  get sizeBytes(): number {
    return this.#record.entry.sizeBytes;
  }

  get whole(): Buffer | undefined {
    return this.#whole;
  }

  async ensure(signal: AbortSignal): Promise<'ready' | 'lost'> {
    const { content } = this.#record;
    if (this.#whole !== undefined || content === null) return 'ready';
    this.#parts.contents.pin(content);
    if (this.sizeBytes > this.#parts.wholeReadBytes) {
      return (await untilAborted(this.#reader.verify(this.#record), signal)) ? 'ready' : 'lost';
    }
    this.#whole = await untilAborted(this.#reader.readWhole(this.#record), signal);
    return this.#whole === undefined ? 'lost' : 'ready';
  }

  open(span: ByteSpan | undefined, signal: AbortSignal): Readable {
    const { key } = this.#record.entry;
    if (this.#whole !== undefined) return new BytesBody(key, this.#whole, this.#parts.readers).open(span, signal);
    const stream = new DiskReadable(this.#record, this.#reader, this.#parts, span, signal);
    this.#parts.readers.add(key, stream);
    return stream;
  }
}

class DiskReadable extends Readable {
  readonly #record: DiskRecord;
  readonly #reader: DiskReader;
  readonly #parts: DiskReaderDeps;
  readonly #end: number;
  #at: number;
  #file: OpenFile | undefined;

  constructor(
    record: DiskRecord,
    reader: DiskReader,
    parts: DiskReaderDeps,
    span: ByteSpan | undefined,
    signal: AbortSignal,
  ) {
    super({ signal, highWaterMark: READ_BYTES });
    this.#record = record;
    this.#reader = reader;
    this.#parts = parts;
    this.#at = span?.first ?? 0;
    this.#end = span === undefined ? record.entry.sizeBytes : Math.min(span.last + 1, record.entry.sizeBytes);
  }

  override _read(): void {
    this.#give().catch((thrown: unknown) => this.destroy(thrown instanceof BodyLost ? thrown : this.#lost(thrown)));
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
      this.#parts.onError(thrown);
    }
  }

  async #give(): Promise<void> {
    const sizeBytes = Math.min(READ_BYTES, this.#end - this.#at);
    if (sizeBytes <= 0) {
      this.push(null);
      return;
    }
    const file = this.#file ?? (await this.#open());
    if (file === undefined) return;
    const bytes = Buffer.allocUnsafe(sizeBytes);
    const read = await file.read(bytes, this.#at);
    if (this.destroyed) return;
    if (read < sizeBytes) {
      this.#parts.onCorrupt(this.#record);
      throw new BodyLost('corrupt');
    }
    this.#at += sizeBytes;
    this.push(bytes);
  }

  /** Undefined where the reader left in the meantime. */
  async #open(): Promise<OpenFile | undefined> {
    if (!(await this.#reader.verify(this.#record))) throw new BodyLost('corrupt');
    const file = await this.#parts.contents.open(this.#record.content ?? '');
    if (this.destroyed) {
      await file.close();
      return undefined;
    }
    this.#file = file;
    return file;
  }

  #lost(thrown: unknown): BodyLost {
    if (isMissing(thrown)) return new BodyLost('evicted', thrown);
    this.#parts.onError(thrown);
    return new BodyLost('aborted', thrown);
  }
}

function shared<T>(flights: Map<string, Promise<T>>, key: string, start: () => Promise<T>): Promise<T> {
  const under = flights.get(key);
  if (under !== undefined) return under;
  const flight = start().finally(() => flights.delete(key));
  flights.set(key, flight);
  return flight;
}

/** The work goes on for others who wait for it. */
function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
