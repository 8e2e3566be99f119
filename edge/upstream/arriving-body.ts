/**
 * The body of an origin's response. It is received ahead of a slow reader, up to a
 * limit of its own and a budget that all share, so that a small body frees its
 * connection whoever reads it. Beyond that, the origin waits.
 *
 * Promises: what waits for readers after the origin has ended is within the budget,
 * or its owner is told that it is not.
 */
import { Readable } from 'node:stream';
import type { Budget } from '../../src/budget.js';

/** What each body may have waiting beside the budget, as long as it arrives. */
const BUFFERED_MAX_BYTES = 65_536;

export interface ArrivingBodyDeps {
  readonly budget: Budget;
  /** Most bytes of this body that may be taken from the budget. */
  readonly aheadMaxBytes: number;
  /** The origin may go on: the reader has nearly everything. */
  resume(): void;
  /** Ends the response. Does nothing once it is complete. */
  abort(error: Error): void;
}

export class ArrivingBody extends Readable {
  readonly #deps: ArrivingBodyDeps;
  /** Taken from the budget. */
  #takenBytes = 0;
  #isComplete = false;

  constructor(deps: ArrivingBodyDeps) {
    super({ highWaterMark: BUFFERED_MAX_BYTES });
    this.#deps = deps;
    // Readers receive errors too. Without a listener, the error of a body that nobody reads would be thrown.
    this.on('error', () => undefined);
  }

  /** Takes a chunk. False: the origin has to wait for the reader. */
  receive(chunk: Buffer): boolean {
    return this.push(chunk) || this.#takeAhead();
  }

  /** The origin has sent the last byte. False: what waits for the reader finds no room in the budget. */
  complete(): boolean {
    this.#isComplete = true;
    this.push(null);
    return this.#take(this.readableLength);
  }

  /** All bytes, if the last one has arrived. Undefined otherwise: then nothing is read. Only before anything else is read. */
  takeWhole(): Buffer | undefined {
    if (!this.#isComplete || this.destroyed) return undefined;
    // `read()` returns all pieces in some versions of node, and one in others. The last one tells it that this is the end.
    const pieces: Buffer[] = [];
    for (let piece = this.#next(); piece !== null; piece = this.#next()) pieces.push(piece);
    const [only, ...more] = pieces;
    return only === undefined || more.length > 0 ? Buffer.concat(pieces) : only;
  }

  #next(): Buffer | null {
    return this.read() as Buffer | null;
  }

  #takeAhead(): boolean {
    const wantedBytes = this.readableLength - BUFFERED_MAX_BYTES;
    return wantedBytes <= this.#deps.aheadMaxBytes && this.#take(wantedBytes);
  }

  #take(bytes: number): boolean {
    if (bytes <= this.#takenBytes) return true;
    if (!this.#deps.budget.tryTake(bytes - this.#takenBytes)) return false;
    this.#takenBytes = bytes;
    return true;
  }

  #giveBack(): void {
    this.#deps.budget.giveBack(this.#takenBytes);
    this.#takenBytes = 0;
  }

  override _read(): void {
    this.#giveBack();
    this.#deps.resume();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#giveBack();
    this.#deps.abort(error ?? GIVEN_UP);
    done(error);
  }
}

/** Nobody wants the response any more. */
export const GIVEN_UP = new Error('nobody waits for this request any more');
