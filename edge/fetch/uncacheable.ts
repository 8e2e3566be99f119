/**
 * Remembers for a while which keys led to responses that cannot be shared, so
 * that later callers send requests of their own at once, and do not wait for
 * one another for nothing (Varnish: hit-for-miss). Bounded: the oldest goes first.
 */
import type { Clock } from '../../src/clock.js';
import type { FillConfig } from './config.js';

/** `large`: too large to be stored anywhere, so that its ranges are fetched from the origin. */
export type Uncacheable = 'private' | 'large';

export interface UncacheableMemory {
  remember(key: string, why: Uncacheable): void;
  recall(key: string): Uncacheable | undefined;
  forget(key: string): void;
}

export function createUncacheableMemory(
  limits: () => Pick<FillConfig, 'aloneMax' | 'aloneMs'>,
  clock: Pick<Clock, 'monotonicMs'>,
): UncacheableMemory {
  const known = new Map<string, { readonly why: Uncacheable; readonly untilMs: number }>();
  return {
    remember(key, why) {
      const { aloneMax, aloneMs } = limits();
      known.delete(key);
      if (aloneMs === 0) return;
      known.set(key, { why, untilMs: clock.monotonicMs() + aloneMs });
      for (const oldest of known.keys()) {
        if (known.size <= aloneMax) break;
        known.delete(oldest);
      }
    },
    recall(key) {
      const found = known.get(key);
      if (found === undefined) return undefined;
      if (clock.monotonicMs() < found.untilMs) return found.why;
      known.delete(key);
      return undefined;
    },
    forget: (key) => void known.delete(key),
  };
}
