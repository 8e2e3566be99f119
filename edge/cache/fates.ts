/**
 * What became of keys that the cache does not hold: evicted, expired, purged, or
 * never stored, and why. It is for metrics and for operators; nothing decides by
 * it. Its size is fixed: a newer key takes the place of an older one, and a key
 * that was displaced counts as never seen.
 */
import type { Clock } from '../../src/clock.js';
import type { Fate, Fates, KnownFate } from './cache.js';

export class FateTable implements Fates {
  readonly #clock: Pick<Clock, 'now'>;
  /** One slot for each remembered key: its hash, the place of its fate in `#names`, and the instant. */
  readonly #hashes: Uint32Array;
  readonly #fates: Uint8Array;
  readonly #times: Float64Array;
  readonly #names: Fate[] = [];
  #emptiedAt = Number.NEGATIVE_INFINITY;

  constructor(keysMax: number, clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
    this.#hashes = new Uint32Array(keysMax);
    this.#fates = new Uint8Array(keysMax);
    this.#times = new Float64Array(keysMax);
  }

  note(key: string, fate: Fate): void {
    const hash = hashOf(key);
    const slot = hash % this.#hashes.length;
    this.#hashes[slot] = hash;
    this.#fates[slot] = this.#numberOf(fate);
    this.#times[slot] = this.#clock.now();
  }

  /** Everything that is stored has been purged at once. */
  noteEmptied(): void {
    this.#emptiedAt = this.#clock.now();
  }

  recall(key: string): KnownFate | undefined {
    const hash = hashOf(key);
    const slot = hash % this.#hashes.length;
    const at = this.#times[slot];
    if (this.#hashes[slot] !== hash || at === undefined || at === 0) return undefined;
    const fate = this.#names[this.#fates[slot] ?? 0];
    if (fate === undefined) return undefined;
    return fate === 'stored' && at <= this.#emptiedAt ? { fate: 'purged', at: this.#emptiedAt } : { fate, at };
  }

  #numberOf(fate: Fate): number {
    const known = this.#names.indexOf(fate);
    return known >= 0 ? known : this.#names.push(fate) - 1;
  }
}

/** FNV-1a. */
function hashOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at += 1) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}
