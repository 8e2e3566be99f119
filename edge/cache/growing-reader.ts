/**
 * One reader of a body that is still arriving (growing-body.ts): a stream of the
 * pieces of a span, each as soon as the body has it. Ends with the error of the
 * body if that is lost.
 */
import { Readable } from 'node:stream';
import type { ByteSpan } from '../../src/http/range.js';
import { BodyLost } from './cache.js';
import { IN_PIECES } from './readers.js';

/** No piece is larger, unless the whole body is in memory. */
export const PIECE_BYTES = 65_536;

/** What a reader gets next. */
export type Next =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | { readonly kind: 'file'; readonly sizeBytes: number }
  | { readonly kind: 'end' }
  | { readonly kind: 'wait' }
  | { readonly kind: 'lost'; readonly reason: BodyLost };

/** What a reader needs of its body. */
export interface GrowingSource {
  /** What a reader at `at` can have of the span that ends at `last`. A reader that gets `wait` is woken once. */
  next(reader: GrowingReader, at: number, last: number): Next;
  readFile(at: number, sizeBytes: number): Promise<Buffer>;
  onReaderMoved(): void;
}

export class GrowingReader extends Readable {
  readonly #body: GrowingSource;
  readonly #last: number;
  #at: number;
  #reading = false;

  constructor(body: GrowingSource, span: ByteSpan | undefined, signal: AbortSignal) {
    super({ signal, ...IN_PIECES });
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

  /** Pushes one piece, if one is ready. Called when the stream wants more and when more has arrived. */
  pump(): void {
    if (this.#reading || this.destroyed) return;
    const next = this.#body.next(this, this.#at, this.#last);
    switch (next.kind) {
      case 'bytes':
        this.#push(next.bytes);
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
        if (!this.destroyed) this.#push(bytes);
      },
      (thrown: unknown) => this.destroy(thrown instanceof BodyLost ? thrown : new BodyLost('aborted', thrown)),
    );
  }

  #push(bytes: Buffer): void {
    this.#at += bytes.length;
    this.push(bytes);
    this.#body.onReaderMoved();
  }
}
