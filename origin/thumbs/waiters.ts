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
  const waiting = new Map<string, Set<AbortController>>();
  let count = 0;

  return {
    async wait(key, waitMs, signal, check) {
      signal.throwIfAborted();
      if (waitMs <= 0 || count >= waitersMax) return;
      const woken = new AbortController();
      const together = waiting.get(key) ?? new Set();
      waiting.set(key, together.add(woken));
      count += 1;
      try {
        // Checked only now that a wake-up cannot be missed.
        if (await check()) return;
        await sleep(clock, waitMs, AbortSignal.any([signal, woken.signal]));
      } catch (reason) {
        if (signal.aborted || !woken.signal.aborted) throw reason;
      } finally {
        count -= 1;
        together.delete(woken);
        // After a wake-up, others may wait under the key already.
        if (together.size === 0 && waiting.get(key) === together) waiting.delete(key);
      }
    },
    wake(key) {
      const together = waiting.get(key);
      waiting.delete(key);
      for (const woken of together ?? []) woken.abort();
    },
    get count() {
      return count;
    },
  };
}
