/** Requests that wait for a thumbnail. They are woken when its job ends, and their number is limited. */
import { type Clock, sleep } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';

export interface Waiters {
  /**
   * Resolves when the job ends or the time is over, or at once if `check` is true or too many requests wait. Rejects
   * when the signal aborts.
   */
  wait(sha256: Sha256, waitMs: number, signal: AbortSignal, check: () => Promise<boolean>): Promise<void>;
  wake(sha256: Sha256): void;
  readonly count: number;
}

export function createWaiters(waitersMax: number, clock: Clock): Waiters {
  const waiting = new Map<Sha256, Set<AbortController>>();
  let count = 0;

  return {
    async wait(sha256, waitMs, signal, check) {
      signal.throwIfAborted();
      if (waitMs <= 0 || count >= waitersMax) return;
      const woken = new AbortController();
      const together = waiting.get(sha256) ?? new Set();
      waiting.set(sha256, together.add(woken));
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
        if (together.size === 0) waiting.delete(sha256);
      }
    },
    wake(sha256) {
      const together = waiting.get(sha256);
      waiting.delete(sha256);
      for (const woken of together ?? []) woken.abort();
    },
    get count() {
      return count;
    },
  };
}
