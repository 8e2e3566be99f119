/**
 * Brings what was hit on disk into memory, in the background: each body once
 * at a time, few at once, and no queue behind them. What is hit often gets its
 * turn at the next hit.
 */

import type { CacheKey, Entry } from '../entry.js';
import type { DiskTier } from './disk/tier.js';
import type { MemoryTier } from './memory.js';

export interface PromoterDeps {
  readonly memory: MemoryTier;
  readonly disk: DiskTier;
  readonly maxObjectBytes: number;
  readonly concurrencyMax: number;
  /** Whether a body may lie in memory at all. */
  readonly mayPromote: (entry: Entry) => boolean;
  onPromoted(): void;
}

export class Promoter {
  readonly #parts: PromoterDeps;
  readonly #under = new Set<CacheKey>();

  constructor(parts: PromoterDeps) {
    this.#parts = parts;
  }

  /** Never rejects; resolves when the body is in memory or has been passed over. */
  async promote(key: CacheKey): Promise<void> {
    const { memory, disk, maxObjectBytes, concurrencyMax, mayPromote } = this.#parts;
    const record = disk.recordOf(key);
    if (record === undefined || record.entry.sizeBytes > maxObjectBytes) return;
    if (this.#under.size >= concurrencyMax || this.#under.has(key) || !mayPromote(record.entry)) return;
    this.#under.add(key);
    try {
      const bytes = await disk.reader.readWhole(record);
      // What was replaced, refreshed or taken down in the meantime is looked at anew.
      const current = disk.recordOf(key);
      if (bytes === undefined || current?.seq !== record.seq || memory.peek(key) !== undefined) return;
      if (memory.put(current.entry, bytes) === 'stored') this.#parts.onPromoted();
    } finally {
      this.#under.delete(key);
    }
  }
}
