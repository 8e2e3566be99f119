/** Least recently used: the victim is the entry whose last use is longest ago. */
import type { Policy } from './policy.js';

export function createLru(capacityBytes: number): Policy {
  const weights = new Map<string, number>();
  let usedBytes = 0;
  return {
    name: 'lru',
    touch(key) {
      const weight = weights.get(key);
      if (weight === undefined) return;
      weights.delete(key);
      weights.set(key, weight);
    },
    admit(key, weightBytes, evict) {
      if (weightBytes > capacityBytes) return false;
      for (const [victim, weight] of weights) {
        if (usedBytes + weightBytes <= capacityBytes) break;
        weights.delete(victim);
        usedBytes -= weight;
        evict(victim);
      }
      weights.set(key, weightBytes);
      usedBytes += weightBytes;
      return true;
    },
    remove(key) {
      usedBytes -= weights.get(key) ?? 0;
      weights.delete(key);
    },
    has: (key) => weights.has(key),
    get usedBytes() {
      return usedBytes;
    },
    get count() {
      return weights.size;
    },
  };
}
