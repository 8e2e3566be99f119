/** The streams that read stored bodies, by cache key, so that a takedown can end them in the middle. */
import type { Readable } from 'node:stream';
import type { CacheKey } from '../entry.js';
import type { BodyLost } from './cache.js';
import { KeyIndex } from './key-index.js';

/**
 * For a stream of pieces that are at hand: it gives them one by one. A stream of bytes would join those that it has, and
 * copy each once more.
 */
export const IN_PIECES = { objectMode: true, highWaterMark: 1 } as const;

export class Readers {
  readonly #streams = new KeyIndex<CacheKey, Readable>();

  /** Keeps the stream until it closes. */
  add(key: CacheKey, stream: Readable): void {
    this.#streams.add(key, stream);
    stream.once('close', () => this.#streams.remove(key, stream));
  }

  breakOff(key: CacheKey, reason: BodyLost): void {
    for (const stream of this.#streams.membersOf(key)) stream.destroy(reason);
  }

  breakOffAll(reason: BodyLost): void {
    for (const stream of this.#streams.members()) stream.destroy(reason);
  }
}
