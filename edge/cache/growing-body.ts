/**
 * A body while it arrives: one writer, any number of readers, each at its own
 * place and pace. A small body stays in memory; a large one goes through a file,
 * which readers follow; one for which neither has room is passed on to those who
 * read it and forgotten behind the slowest of them.
 *
 * The last byte is held back until the whole has been found right, so that
 * nobody takes a broken body for a complete one. Leaves to its owner what right
 * means, and where the body goes then.
 */
import { Readable } from 'node:stream';
import type { ByteSpan } from '../../src/http/range.js';
import type { Budget } from './budget.js';
import { BodyLost } from './cache.js';

/** A file that is read while it is written. */
export interface Spool {
  /** How much can be read from it. */
  readonly writtenBytes: number;
  /** One at a time, in order. */
  append(block: Buffer): Promise<void>;
  read(into: Buffer, at: number): Promise<number>;
  close(): Promise<void>;
}

export interface GrowingBodyDeps {
  /** A body up to this size stays in memory, if the budget allows it. */
  readonly memoryMaxBytes: number;
  readonly budget: Budget;
  /** A file for a body of this size (null: unknown); undefined where there is no room for it. */
  openSpool(sizeBytes: number | null): Spool | undefined;
  /** The file failed; the body is now passed. */
  onSpoolFailure(thrown: unknown): void;
  /** The owner is done with the body, and the last reader has left. */
  onClosed(): void;
}

const BLOCK_BYTES = 65_536;
/** The writer waits when so many full blocks have not reached the file. */
const UNWRITTEN_BLOCKS_MAX = 4;
/** Blocks kept in memory behind the file's end, where most readers are. */
const LINGERING_BLOCKS = 2;
/** The writer waits when so many blocks wait for readers, while the body is passed. */
const PASSING_BLOCKS_MAX = 8;

type Next =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | { readonly kind: 'file'; readonly sizeBytes: number }
  | { readonly kind: 'end' }
  | { readonly kind: 'wait' }
  | { readonly kind: 'lost'; readonly reason: BodyLost };

export class GrowingBody {
  readonly #sizeBytes: number | null;
  readonly #parts: GrowingBodyDeps;
  readonly #readers = new Set<GrowingReader>();
  readonly #waiting = new Set<GrowingReader>();
  #blockBytes = BLOCK_BYTES;
  /** Consecutive blocks, the first of which has the number `#firstBlock`. */
  #blocks: Buffer[] = [];
  #firstBlock = 0;
  #receivedBytes = 0;
  #takenBytes = 0;
  #spool: Spool | undefined;
  #phase: 'memory' | 'file' | 'passing' = 'memory';
  #flushing: Promise<void> | undefined;
  #writerWaits: (() => void)[] = [];
  #complete = false;
  #failure: BodyLost | undefined;
  #ownerDone = false;
  #closed = false;

  constructor(sizeBytes: number | null, parts: GrowingBodyDeps) {
    this.#sizeBytes = sizeBytes;
    this.#parts = parts;
    if (sizeBytes === null) return;
    if (sizeBytes <= parts.memoryMaxBytes && this.#take(sizeBytes)) this.#blockBytes = Math.max(1, sizeBytes);
    else this.#leaveMemory();
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  get readers(): number {
    return this.#readers.size;
  }

  get failure(): BodyLost | undefined {
    return this.#failure;
  }

  /** True once bytes have gone that a new reader would need. */
  get passing(): boolean {
    return this.#firstBlock * this.#blockBytes > this.#fileBytes;
  }

  /** All of it, once it is complete, where it lies in memory. */
  get whole(): Buffer | undefined {
    return this.#complete && this.#phase === 'memory' ? this.#blocks[0] : undefined;
  }

  /** Takes a chunk, which is copied. Resolves when the next may come; at once and without effect after a failure. */
  append(chunk: Buffer): Promise<void> | undefined {
    if (this.#failure !== undefined) return undefined;
    for (let done = 0; done < chunk.length; ) {
      const inBlock = this.#receivedBytes % this.#blockBytes;
      const block = inBlock === 0 ? this.#addBlock() : this.#blocks.at(-1);
      const copied = block === undefined ? 0 : chunk.copy(block, inBlock, done);
      done += copied;
      this.#receivedBytes += copied;
    }
    this.#wakeReaders();
    this.#keepFlushing();
    this.#releaseBlocks();
    return this.#mustWait() ? new Promise((resolve) => this.#writerWaits.push(resolve)) : undefined;
  }

  /** All has arrived and is right: readers may finish. */
  complete(): void {
    if (this.#failure !== undefined) return;
    if (this.#phase === 'memory') this.#joinBlocks();
    this.#complete = true;
    this.#wakeReaders();
  }

  /** After complete(): whether all of it lies in its file. */
  async flushed(): Promise<boolean> {
    this.#keepFlushing();
    await this.#flushing;
    return this.#phase === 'file' && this.#failure === undefined && this.#fileBytes === this.#receivedBytes;
  }

  /** Breaks off every reader. Allowed at any time, also after complete(). */
  fail(reason: BodyLost): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    for (const reader of this.#readers) reader.destroy(reason);
    this.#waiting.clear();
    this.#admitWriter();
  }

  /** The owner is done: what the body holds goes with its last reader. */
  release(): void {
    this.#ownerDone = true;
    this.#closeWhenUnused();
  }

  open(span: ByteSpan | undefined, signal: AbortSignal): Readable {
    const reader = new GrowingReader(this, span, signal);
    this.#readers.add(reader);
    reader.once('close', () => this.#leave(reader));
    if (this.#failure !== undefined) reader.destroy(this.#failure);
    return reader;
  }

  /** What of [at, last] lies ready. A reader told to wait is woken once. */
  next(reader: GrowingReader, at: number, last: number): Next {
    if (this.#failure !== undefined) return { kind: 'lost', reason: this.#failure };
    const end = Math.min(this.#readyBytes(), last + 1);
    if (at >= end) {
      if (at > last || this.#complete) return { kind: 'end' };
      this.#waiting.add(reader);
      return { kind: 'wait' };
    }
    const number = Math.floor(at / this.#blockBytes);
    const block = this.#blocks[number - this.#firstBlock];
    if (block !== undefined) {
      const start = number * this.#blockBytes;
      return { kind: 'bytes', bytes: block.subarray(at - start, end - start) };
    }
    const inFile = Math.min(end, this.#fileBytes) - at;
    if (inFile > 0) return { kind: 'file', sizeBytes: Math.min(inFile, BLOCK_BYTES) };
    return { kind: 'lost', reason: new BodyLost('passed') };
  }

  async readFile(at: number, sizeBytes: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(sizeBytes);
    const read = (await this.#spool?.read(bytes, at)) ?? 0;
    if (read < sizeBytes) throw new BodyLost('corrupt');
    return bytes;
  }

  /** A reader has come further: what it needed last may go, while the body is passed. */
  advanced(): void {
    if (this.#phase !== 'passing') return;
    this.#releaseBlocks();
    if (!this.#mustWait()) this.#admitWriter();
  }

  get #fileBytes(): number {
    return this.#spool?.writtenBytes ?? 0;
  }

  #readyBytes(): number {
    if (this.#complete || this.#sizeBytes === null) return this.#receivedBytes;
    return Math.min(this.#receivedBytes, this.#sizeBytes - 1);
  }

  #take(bytes: number): boolean {
    if (!this.#parts.budget.tryTake(bytes)) return false;
    this.#takenBytes += bytes;
    return true;
  }

  #addBlock(): Buffer {
    if (this.#phase === 'memory' && this.#sizeBytes === null) {
      const fits = this.#receivedBytes + BLOCK_BYTES <= Math.max(this.#parts.memoryMaxBytes, BLOCK_BYTES);
      if (!fits || !this.#take(BLOCK_BYTES)) this.#leaveMemory();
    }
    const block = Buffer.allocUnsafeSlow(this.#blockBytes);
    this.#blocks.push(block);
    return block;
  }

  #leaveMemory(): void {
    this.#parts.budget.give(this.#takenBytes);
    this.#takenBytes = 0;
    this.#spool = this.#parts.openSpool(this.#sizeBytes);
    this.#phase = this.#spool === undefined ? 'passing' : 'file';
  }

  #joinBlocks(): void {
    const [only] = this.#blocks;
    if (this.#blocks.length !== 1 || only?.length !== this.#receivedBytes) {
      const whole = Buffer.allocUnsafeSlow(this.#receivedBytes);
      for (const [number, block] of this.#blocks.entries()) block.copy(whole, number * this.#blockBytes);
      this.#blocks = [whole];
    }
    this.#blockBytes = Math.max(1, this.#receivedBytes);
  }

  #keepFlushing(): void {
    if (this.#flushing !== undefined || this.#nextToFlush() === undefined) return;
    this.#flushing = this.#flush().finally(() => {
      this.#flushing = undefined;
      this.#closeWhenUnused();
    });
  }

  async #flush(): Promise<void> {
    for (let block = this.#nextToFlush(); block !== undefined; block = this.#nextToFlush()) {
      try {
        await this.#spool?.append(block);
      } catch (thrown) {
        this.#phase = 'passing';
        this.#parts.onSpoolFailure(thrown);
      }
      this.#releaseBlocks();
      if (!this.#mustWait()) this.#admitWriter();
    }
  }

  /** The next full block, or the rest once all has arrived. */
  #nextToFlush(): Buffer | undefined {
    if (this.#phase !== 'file' || this.#failure !== undefined) return undefined;
    const left = this.#receivedBytes - this.#fileBytes;
    if (left === 0 || (left < BLOCK_BYTES && !this.#complete)) return undefined;
    const block = this.#blocks[this.#fileBytes / BLOCK_BYTES - this.#firstBlock];
    return left < BLOCK_BYTES ? block?.subarray(0, left) : block;
  }

  /** Lets go of the oldest blocks that are in the file or, while the body is passed, behind every reader. */
  #releaseBlocks(): void {
    if (this.#phase === 'memory') return;
    const fullBlocks = Math.floor(this.#receivedBytes / BLOCK_BYTES);
    const neededFrom = this.#phase === 'file' ? this.#fileBytes : Math.max(this.#fileBytes, this.#slowestReaderAt());
    const lingering = this.#phase === 'file' ? LINGERING_BLOCKS : 0;
    const keepFrom = Math.min(fullBlocks - lingering, Math.floor(neededFrom / BLOCK_BYTES));
    const released = Math.min(this.#blocks.length, keepFrom - this.#firstBlock);
    if (released <= 0) return;
    this.#blocks.splice(0, released);
    this.#firstBlock += released;
  }

  /** Without readers a passed body is kept from its start while it fits, for one who comes at once. */
  #slowestReaderAt(): number {
    let slowest = Number.POSITIVE_INFINITY;
    for (const reader of this.#readers) slowest = Math.min(slowest, reader.at);
    if (slowest < Number.POSITIVE_INFINITY) return slowest;
    return this.#blocks.length > PASSING_BLOCKS_MAX ? this.#receivedBytes : 0;
  }

  #mustWait(): boolean {
    if (this.#failure !== undefined || this.#phase === 'memory') return false;
    if (this.#phase === 'passing') return this.#blocks.length > PASSING_BLOCKS_MAX;
    return this.#receivedBytes - this.#fileBytes > UNWRITTEN_BLOCKS_MAX * BLOCK_BYTES;
  }

  #admitWriter(): void {
    const waits = this.#writerWaits;
    this.#writerWaits = [];
    for (const resume of waits) resume();
  }

  #wakeReaders(): void {
    const woken = [...this.#waiting];
    this.#waiting.clear();
    for (const reader of woken) reader.pump();
  }

  #leave(reader: GrowingReader): void {
    this.#readers.delete(reader);
    this.#waiting.delete(reader);
    this.advanced();
    this.#closeWhenUnused();
  }

  #closeWhenUnused(): void {
    if (this.#closed || !this.#ownerDone || this.#readers.size > 0 || this.#flushing !== undefined) return;
    this.#closed = true;
    this.#blocks = [];
    this.#parts.budget.give(this.#takenBytes);
    this.#spool?.close().catch((thrown: unknown) => this.#parts.onSpoolFailure(thrown));
    this.#parts.onClosed();
  }
}

class GrowingReader extends Readable {
  readonly #body: GrowingBody;
  readonly #last: number;
  #at: number;
  #reading = false;

  constructor(body: GrowingBody, span: ByteSpan | undefined, signal: AbortSignal) {
    super({ signal, highWaterMark: BLOCK_BYTES });
    this.#body = body;
    this.#at = span?.first ?? 0;
    this.#last = span?.last ?? Number.POSITIVE_INFINITY;
  }

  get at(): number {
    return this.#at;
  }

  override _read(): void {
    this.pump();
  }

  /** Gives what lies ready, once; called again when more is wanted and when more has come. */
  pump(): void {
    if (this.#reading || this.destroyed) return;
    const next = this.#body.next(this, this.#at, this.#last);
    switch (next.kind) {
      case 'bytes':
        this.#give(next.bytes);
        break;
      case 'file':
        this.#readFile(next.sizeBytes);
        break;
      case 'end':
        this.push(null);
        break;
      case 'wait':
        break;
      case 'lost':
        this.destroy(next.reason);
        break;
    }
  }

  #readFile(sizeBytes: number): void {
    this.#reading = true;
    this.#body.readFile(this.#at, sizeBytes).then(
      (bytes) => {
        this.#reading = false;
        if (!this.destroyed) this.#give(bytes);
      },
      (thrown: unknown) => this.destroy(thrown instanceof BodyLost ? thrown : new BodyLost('aborted', thrown)),
    );
  }

  #give(bytes: Buffer): void {
    this.#at += bytes.length;
    this.push(bytes);
    this.#body.advanced();
  }
}
