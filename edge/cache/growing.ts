/**
 * A body while it arrives: one writer, any number of readers, each at its own
 * place and pace. A reader is given what lies ready and waits for the rest;
 * the last byte is held back until the whole has been found right, so that
 * nobody takes a broken body for a complete one.
 */
import { Readable } from 'node:stream';
import type { ByteSpan } from '../../src/http/range.js';
import type { BodyLost } from './cache.js';

export class GrowingBody {
  readonly #sizeBytes: number | null;
  readonly #waiting = new Set<GrowingReader>();
  readonly #reading = new Set<GrowingReader>();
  #buffer: Buffer;
  #receivedBytes = 0;
  #complete = false;
  #failure: BodyLost | undefined;

  constructor(sizeBytes: number | null) {
    this.#sizeBytes = sizeBytes;
    this.#buffer = Buffer.allocUnsafeSlow(sizeBytes ?? 65_536);
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  get readers(): number {
    return this.#reading.size;
  }

  get failure(): BodyLost | undefined {
    return this.#failure;
  }

  get whole(): Buffer | undefined {
    return this.#complete ? this.#buffer : undefined;
  }

  append(chunk: Buffer): void {
    const wanted = this.#receivedBytes + chunk.length;
    if (wanted > this.#buffer.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(wanted, this.#buffer.length * 2));
      this.#buffer.copy(larger, 0, 0, this.#receivedBytes);
      this.#buffer = larger;
    }
    chunk.copy(this.#buffer, this.#receivedBytes);
    this.#receivedBytes = wanted;
    this.#wake();
  }

  complete(): Buffer {
    if (this.#receivedBytes < this.#buffer.length) {
      const exact = Buffer.allocUnsafeSlow(this.#receivedBytes);
      this.#buffer.copy(exact, 0, 0, this.#receivedBytes);
      this.#buffer = exact;
    }
    this.#complete = true;
    this.#wake();
    return this.#buffer;
  }

  fail(reason: BodyLost): void {
    if (this.#failure !== undefined || this.#complete) return;
    this.#failure = reason;
    for (const reader of this.#reading) reader.destroy(reason);
  }

  open(span: ByteSpan | undefined, signal: AbortSignal): Readable {
    const reader = new GrowingReader(this, span, signal);
    this.#reading.add(reader);
    reader.once('close', () => {
      this.#reading.delete(reader);
      this.#waiting.delete(reader);
    });
    if (this.#failure !== undefined) reader.destroy(this.#failure);
    return reader;
  }

  /** What of the span from `at` on lies ready; `end` when there is no more; undefined: wait. */
  next(reader: GrowingReader, at: number, last: number): Buffer | 'end' | undefined {
    if (this.#failure !== undefined) return undefined;
    const end = Math.min(this.#ready(), last + 1);
    if (at < end) return this.#buffer.subarray(at, end);
    if (at > last || this.#complete) return 'end';
    this.#waiting.add(reader);
    return undefined;
  }

  #ready(): number {
    if (this.#complete || this.#sizeBytes === null) return this.#receivedBytes;
    return Math.min(this.#receivedBytes, this.#sizeBytes - 1);
  }

  #wake(): void {
    const woken = [...this.#waiting];
    this.#waiting.clear();
    for (const reader of woken) reader.wake();
  }
}

class GrowingReader extends Readable {
  readonly #body: GrowingBody;
  readonly #last: number;
  #at: number;

  constructor(body: GrowingBody, span: ByteSpan | undefined, signal: AbortSignal) {
    super({ signal });
    this.#body = body;
    this.#at = span?.first ?? 0;
    this.#last = span?.last ?? Number.POSITIVE_INFINITY;
  }

  wake(): void {
    this._read();
  }

  override _read(): void {
    const given = this.#body.next(this, this.#at, this.#last);
    if (given === 'end') this.push(null);
    else if (given !== undefined) {
      this.#at += given.length;
      this.push(given);
    }
  }
}
