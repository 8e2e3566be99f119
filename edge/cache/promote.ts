/**
 * Copies bodies that were hit on disk into memory, in the background: a few at
 * once, each only once at a time, and without a queue. An entry that finds no
 * free place is copied after a later hit.
 */
import type { CounterOf } from '../../src/metrics.js';
import type { CacheKey, Entry, SizedEntry } from '../entry.js';
import type { DiskTier } from './disk/tier.js';
import type { MemoryTier } from './memory.js';

export interface PromoterDeps {
  readonly memory: MemoryTier;
  readonly disk: DiskTier;
  readonly maxObjectBytes: () => number;
  readonly concurrencyMax: number;
  /** Whether the operator's rules allow this entry in memory. */
  readonly mayPromote: (entry: Entry) => boolean;
  readonly promotions: CounterOf<never>;
}

export class Promoter {
  readonly #deps: PromoterDeps;
  readonly #running = new Set<CacheKey>();

  constructor(deps: PromoterDeps) {
    this.#deps = deps;
  }

  /** Never rejects. Resolves when the body is in memory, or will not be copied this time. */
  async promote(entry: SizedEntry): Promise<void> {
    const { memory, disk, maxObjectBytes, concurrencyMax, mayPromote, promotions } = this.#deps;
    const { key } = entry;
    if (entry.sizeBytes > maxObjectBytes() || !mayPromote(entry)) return;
    if (this.#running.size >= concurrencyMax || this.#running.has(key)) return;
    this.#running.add(key);
    try {
      const found = await disk.readWhole(key);
      if (found === undefined || memory.peek(key) !== undefined) return;
      if (memory.put(found.entry, found.bytes) === 'stored') promotions.add();
    } finally {
      this.#running.delete(key);
    }
  }
}
