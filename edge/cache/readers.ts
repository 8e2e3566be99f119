/** Who is reading what, so that a takedown can break them off in the middle. */
import type { Readable } from 'node:stream';
import type { CacheKey } from '../entry.js';
import type { BodyLost } from './cache.js';

export class Readers {
  readonly #byKey = new Map<CacheKey, Set<Readable>>();

  /** Knows the stream until it closes. */
  add(key: CacheKey, stream: Readable): void {
    const streams = this.#byKey.get(key) ?? new Set();
    this.#byKey.set(key, streams);
    streams.add(stream);
    stream.once('close', () => {
      streams.delete(stream);
      if (streams.size === 0 && this.#byKey.get(key) === streams) this.#byKey.delete(key);
    });
  }

  breakOff(key: CacheKey, reason: BodyLost): void {
    for (const stream of this.#byKey.get(key) ?? []) stream.destroy(reason);
  }

  breakOffAll(reason: BodyLost): void {
    for (const key of this.#byKey.keys()) this.breakOff(key, reason);
  }
}
