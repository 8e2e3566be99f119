/**
 * Remembers for a while which keys led to answers that cannot be shared, so
 * that later callers go their own way at once instead of queueing behind one
 * another for nothing (what Varnish calls hit-for-miss). Bounded: the oldest
 * memory is given up first.
 */
import type { Clock, EpochMs } from '../../src/clock.js';

/** `large`: kept nowhere because of its size, so that ranges of it are asked of the origin. */
export type Uncacheable = 'private' | 'large';

export interface UncacheableMemory {
  remember(key: string, why: Uncacheable): void;
  recall(key: string): Uncacheable | undefined;
  forget(key: string): void;
}

export function createUncacheableMemory(
  limits: () => { readonly entriesMax: number; readonly ttlMs: number },
  clock: Pick<Clock, 'monotonicMs'>,
): UncacheableMemory {
  const remembered = new Map<string, { readonly why: Uncacheable; readonly until: EpochMs }>();
  return {
    remember(key, why) {
      const { entriesMax, ttlMs } = limits();
      remembered.delete(key);
      if (ttlMs === 0) return;
      remembered.set(key, { why, until: clock.monotonicMs() + ttlMs });
      for (const oldest of remembered.keys()) {
        if (remembered.size <= entriesMax) break;
        remembered.delete(oldest);
      }
    },
    recall(key) {
      const found = remembered.get(key);
      if (found === undefined) return undefined;
      if (clock.monotonicMs() < found.until) return found.why;
      remembered.delete(key);
      return undefined;
    },
    forget: (key) => void remembered.delete(key),
  };
}
