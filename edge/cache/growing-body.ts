/**
 * A body while it arrives: one writer, any number of readers, each at its own
 * offset and pace. Where its bytes are:
 *
 *     memory ───────> file ───────> passing
 *        │                             ▲
 *        └─────────────────────────────┘
 *
 * - memory: all bytes, in blocks that count against the budget. A body of known
 *   size has one block. A body that is too large, or for which the budget is
 *   used up, leaves memory and never comes back.
 * - file: each full block is appended to a spool file. The newest blocks also
 *   stay in memory, and older ones until the readers have passed them, while at
 *   least half of the budget is left; a reader that is further behind than that
 *   keeps none. Who needs others reads the file. The writer waits for the file,
 *   never for a reader.
 * - passing: no room for a file, or the file failed. The blocks that follow the
 *   file's end stay in memory until the slowest reader has them, and the writer
 *   waits for that reader. Without readers, the first blocks stay while they are
 *   few.
 *
 * The last byte is withheld until `complete`, so that no reader takes a wrong
 * body for a complete one. Leaves to its owner: checking the body, and storing it.
 */
import type { Readable } from 'node:stream';
import type { Budget } from '../../src/budget.js';
import type { ByteSpan } from '../../src/http/range.js';
import { BodyLost } from './cache.js';
import { GrowingReader, type GrowingSource, type Next, PIECE_BYTES } from './growing-reader.js';

/** A file that is read while it is written. */
export interface Spool {
  /** The bytes that can be read from it. */
  readonly writtenBytes: number;
  /** One call at a time. */
  append(block: Buffer): Promise<void>;
  read(into: Buffer, at: number): Promise<number>;
  close(): Promise<void>;
}

export interface GrowingBodyDeps {
  /** A larger body never stays in memory. */
  readonly memoryMaxBytes: number;
  readonly budget: Budget;
  /** Opens a file for a body of this size (null: unknown), or returns undefined if there is no room. */
  openSpool(sizeBytes: number | null): Spool | undefined;
  /** The file could not be written, and the body is passing from now on; or it could not be closed. */
  onSpoolFailure(thrown: unknown): void;
  /** The owner has released the body, and the last reader has left. */
  onClosed(): void;
}

const BLOCK_BYTES = PIECE_BYTES;
/** State file: the writer waits when so many full blocks are not in the file yet. */
const UNWRITTEN_BLOCKS_MAX = 4;
/** State file: so many blocks stay in memory after they were written, whether or not there are readers and budget. */
const LINGERING_BLOCKS = 2;
/** State passing: the writer waits when so many blocks wait for readers. */
const PASSING_BLOCKS_MAX = 8;

export class GrowingBody implements GrowingSource {
  readonly #sizeBytes: number | null;
  readonly #deps: GrowingBodyDeps;
  readonly #readers = new Set<GrowingReader>();
  readonly #waiting = new Set<GrowingReader>();
  #state: 'memory' | 'file' | 'passing' = 'memory';
  #blockBytes = BLOCK_BYTES;
  /** Consecutive blocks, and the number of the first of them within the body. */
  #blocks: Buffer[] = [];
  #firstBlock = 0;
  #receivedBytes = 0;
  /** Taken from the budget. */
  #budgetedBytes = 0;
  #spool: Spool | undefined;
  #flushing: Promise<void> | undefined;
  #writerWaits: (() => void)[] = [];
  #complete = false;
  #failure: BodyLost | undefined;
  /** Since the last look at where the readers are. */
  #movesOfReaders = 0;
  #ownerDone = false;
  #closed = false;

  constructor(sizeBytes: number | null, deps: GrowingBodyDeps) {
    this.#sizeBytes = sizeBytes;
    this.#deps = deps;
    if (sizeBytes === null) return;
    if (sizeBytes <= deps.memoryMaxBytes && this.#takeMemory(sizeBytes)) this.#blockBytes = Math.max(1, sizeBytes);
    else this.#leaveMemory();
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  get failure(): BodyLost | undefined {
    return this.#failure;
  }

  /** True once the first bytes are neither in memory nor in the file. */
  get passing(): boolean {
    return this.#firstBlock * this.#blockBytes > this.#fileBytes;
  }

  /** Where the bytes that arrive next go. A body that has left memory does not come back. */
  get place(): 'memory' | 'file' | 'passing' {
    return this.#state;
  }

  /** The whole body, once it is complete and if it is in memory. */
  get whole(): Buffer | undefined {
    return this.#complete && this.#state === 'memory' ? this.#blocks[0] : undefined;
  }

  /** Copies a chunk. If the writer has to wait, returns a promise for it. Does nothing after a failure. */
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
    this.#startFlushing();
    this.#releaseBlocks();
    return this.#mustWait() ? new Promise((resolve) => this.#writerWaits.push(resolve)) : undefined;
  }

  /** The body has ended and is correct: readers get the last byte. */
  complete(): void {
    if (this.#failure !== undefined) return;
    if (this.#state === 'memory') this.#joinBlocks();
    this.#complete = true;
    this.#wakeReaders();
  }

  /** After `complete`: resolves with whether the file has the whole body. */
  async flushed(): Promise<boolean> {
    this.#startFlushing();
    await this.#flushing;
    return this.#state === 'file' && this.#failure === undefined && this.#fileBytes === this.#receivedBytes;
  }

  /** Ends every reader with this error. Allowed at any time, also after `complete`. */
  fail(reason: BodyLost): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    for (const reader of this.#readers) reader.destroy(reason);
    this.#resumeWriter();
  }

  /** The owner needs the body no more: its memory and its file go with the last reader. */
  release(): void {
    this.#ownerDone = true;
    this.#closeIfUnused();
  }

  open(span: ByteSpan | undefined, signal: AbortSignal): Readable {
    const reader = new GrowingReader(this, span, signal);
    this.#readers.add(reader);
    reader.once('close', () => this.#leave(reader));
    if (this.#failure !== undefined) reader.destroy(this.#failure);
    return reader;
  }

  /** What a reader at `at` can have of the span that ends at `last`. A reader that gets `wait` is woken once. */
  next(reader: GrowingReader, at: number, last: number): Next {
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

  /** A reader has moved on or has left: blocks may go and, while the body is passing, the writer may continue. */
  onReaderMoved(): void {
    this.#movesOfReaders += 1;
    if (this.#state !== 'passing' && this.#movesOfReaders < this.#readers.size) return;
    this.#releaseBlocks();
    if (this.#state === 'passing' && !this.#mustWait()) this.#resumeWriter();
  }

  get #fileBytes(): number {
    return this.#spool?.writtenBytes ?? 0;
  }

  #readyBytes(): number {
    if (this.#complete || this.#sizeBytes === null) return this.#receivedBytes;
    return Math.min(this.#receivedBytes, this.#sizeBytes - 1);
  }

  #takeMemory(bytes: number, leavingBytes = 0): boolean {
    if (!this.#deps.budget.tryTake(bytes, leavingBytes)) return false;
    this.#budgetedBytes += bytes;
    return true;
  }

  #giveMemoryBack(bytes = this.#budgetedBytes): void {
    this.#deps.budget.giveBack(bytes);
    this.#budgetedBytes -= bytes;
  }

  #addBlock(): Buffer {
    if (this.#state === 'memory' && this.#sizeBytes === null) {
      const fits = this.#receivedBytes + BLOCK_BYTES <= Math.max(this.#deps.memoryMaxBytes, BLOCK_BYTES);
      if (!fits || !this.#takeMemory(BLOCK_BYTES)) this.#leaveMemory();
    }
    const block = Buffer.allocUnsafeSlow(this.#blockBytes);
    this.#blocks.push(block);
    return block;
  }

  #leaveMemory(): void {
    this.#giveMemoryBack();
    this.#spool = this.#deps.openSpool(this.#sizeBytes);
    this.#state = this.#spool === undefined ? 'passing' : 'file';
  }

  /** Makes one block of exactly the body's size. */
  #joinBlocks(): void {
    const [only] = this.#blocks;
    if (this.#blocks.length !== 1 || only?.length !== this.#receivedBytes) {
      const whole = Buffer.allocUnsafeSlow(this.#receivedBytes);
      for (const [number, block] of this.#blocks.entries()) block.copy(whole, number * this.#blockBytes);
      this.#blocks = [whole];
    }
    this.#blockBytes = Math.max(1, this.#receivedBytes);
  }

  #startFlushing(): void {
    if (this.#flushing !== undefined || this.#nextToFlush() === undefined) return;
    this.#flushing = this.#flush().finally(() => {
      this.#flushing = undefined;
      this.#closeIfUnused();
    });
  }

  async #flush(): Promise<void> {
    for (let block = this.#nextToFlush(); block !== undefined; block = this.#nextToFlush()) {
      try {
        await this.#spool?.append(block);
      } catch (thrown) {
        this.#state = 'passing';
        this.#deps.onSpoolFailure(thrown);
      }
      this.#releaseBlocks();
      if (!this.#mustWait()) this.#resumeWriter();
    }
  }

  /** The next full block; once the body is complete, also the rest. */
  #nextToFlush(): Buffer | undefined {
    if (this.#state !== 'file' || this.#failure !== undefined) return undefined;
    const left = this.#receivedBytes - this.#fileBytes;
    if (left === 0 || (left < BLOCK_BYTES && !this.#complete)) return undefined;
    const block = this.#blocks[this.#fileBytes / BLOCK_BYTES - this.#firstBlock];
    return left < BLOCK_BYTES ? block?.subarray(0, left) : block;
  }

  /** Drops the oldest blocks that are not needed, and those for which there is no budget. */
  #releaseBlocks(): void {
    this.#movesOfReaders = 0;
    if (this.#state === 'memory') return;
    if (this.#state === 'passing') {
      this.#dropBlocks(Math.floor(Math.max(this.#fileBytes, this.#passedAt()) / BLOCK_BYTES));
      return;
    }
    const fullBlocks = Math.floor(this.#receivedBytes / BLOCK_BYTES);
    const mayGo = Math.min(fullBlocks - LINGERING_BLOCKS, Math.floor(this.#fileBytes / BLOCK_BYTES));
    const halfBytes = this.#deps.budget.limitBytes / 2;
    const neededFrom = this.#slowestReaderAt(this.#receivedBytes - halfBytes);
    this.#dropBlocks(Math.min(mayGo, Math.floor(neededFrom / BLOCK_BYTES)));
    while (this.#firstBlock + this.#budgetedBytes / BLOCK_BYTES < mayGo) {
      if (!this.#takeMemory(BLOCK_BYTES, halfBytes)) this.#dropBlocks(this.#firstBlock + 1);
    }
  }

  /** The oldest blocks are those that take budget. */
  #dropBlocks(before: number): void {
    const dropped = Math.min(this.#blocks.length, before - this.#firstBlock);
    if (dropped <= 0) return;
    this.#blocks.splice(0, dropped);
    this.#firstBlock += dropped;
    this.#giveMemoryBack(Math.min(this.#budgetedBytes, dropped * BLOCK_BYTES));
  }

  /** What every reader has. Without readers, a passing body keeps its first blocks as long as they are few, for one that comes soon. */
  #passedAt(): number {
    if (this.#readers.size > 0) return Math.min(this.#slowestReaderAt(0), this.#receivedBytes);
    return this.#blocks.length > PASSING_BLOCKS_MAX ? this.#receivedBytes : 0;
  }

  /** Of the readers that are at `fromAt` or have passed it. Infinity if there are none. */
  #slowestReaderAt(fromAt: number): number {
    let slowest = Number.POSITIVE_INFINITY;
    for (const { at } of this.#readers) if (at >= fromAt && at < slowest) slowest = at;
    return slowest;
  }

  #mustWait(): boolean {
    if (this.#failure !== undefined || this.#state === 'memory') return false;
    if (this.#state === 'passing') return this.#blocks.length > PASSING_BLOCKS_MAX;
    return this.#receivedBytes - this.#fileBytes > UNWRITTEN_BLOCKS_MAX * BLOCK_BYTES;
  }

  #resumeWriter(): void {
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
    this.onReaderMoved();
    this.#closeIfUnused();
  }

  #closeIfUnused(): void {
    if (this.#closed || !this.#ownerDone || this.#readers.size > 0 || this.#flushing !== undefined) return;
    this.#closed = true;
    this.#blocks = [];
    this.#giveMemoryBack();
    this.#spool?.close().catch((thrown: unknown) => this.#deps.onSpoolFailure(thrown));
    this.#deps.onClosed();
  }
}
