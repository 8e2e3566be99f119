/** Requests that wait for a thumbnail under a key. They are woken by that key, and their number is limited. */
import { type Clock, sleep } from '../../src/clock.js';

export interface Waiters {
  /**
   * Resolves when the key is woken or the time is over, or at once if `check` is true or too many requests wait. Rejects
   * when the signal aborts.
   */
  wait(key: string, waitMs: number, signal: AbortSignal, check: () => Promise<boolean>): Promise<void>;
  wake(key: string): void;
  readonly count: number;
}

export function createWaiters(waitersMax: number, clock: Clock): Waiters {
  const waiting = new Set<{ readonly key: string; readonly woken: AbortController }>();

  return {
    async wait(key, waitMs, signal, check) {
      signal.throwIfAborted();
      if (waitMs <= 0 || waiting.size >= waitersMax) return;
      const woken = new AbortController();
      const own = { key, woken };
      waiting.add(own);
      try {
        // Checked only now that a wake-up cannot be missed.
        if (await check()) return;
        await sleep(clock, waitMs, AbortSignal.any([signal, woken.signal]));
      } catch (reason) {
        if (signal.aborted || !woken.signal.aborted) throw reason;
      } finally {
        waiting.delete(own);
      }
    },
    wake(key) {
      for (const one of waiting) if (one.key === key) one.woken.abort();
    },
    get count() {
      return waiting.size;
    },
  };
}
