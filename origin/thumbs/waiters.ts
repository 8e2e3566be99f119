/** Requests that wait for a thumbnail under a key. They are woken by that key, and their number is limited. */
import { type Clock, sleep, type Timer } from '../../src/clock.js';

export interface Waiters {
  /**
   * Resolves when the key is woken or the time is over, or at once if `check` is true or too many requests wait. Rejects
   * when the signal aborts.
   */
  wait(key: string, waitMs: number, signal: AbortSignal, check: () => Promise<boolean>): Promise<void>;
  wake(key: string): void;
  readonly count: number;
}

/** Ends what is waited for without waking anybody. It is looked for while somebody waits. */
export interface Elsewhere {
  readonly lookEveryMs: number;
  /** Wakes those of these keys that have ended. Never rejects. */
  look(keys: readonly string[]): Promise<void>;
}

export function createWaiters(waitersMax: number, clock: Clock, elsewhere: Elsewhere | null = null): Waiters {
  const waiting = new Set<{ readonly key: string; readonly woken: AbortController }>();
  let timer: Timer | undefined;
  let looking = false;

  function lookLater(): void {
    if (elsewhere === null || looking || waiting.size === 0) return;
    timer ??= clock.after(elsewhere.lookEveryMs, () => {
      timer = undefined;
      looking = true;
      void elsewhere.look([...new Set([...waiting].map(({ key }) => key))]).then(() => {
        looking = false;
        lookLater();
      });
    });
  }

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
        lookLater();
        await sleep(clock, waitMs, AbortSignal.any([signal, woken.signal]));
      } catch (reason) {
        if (signal.aborted || !woken.signal.aborted) throw reason;
      } finally {
        waiting.delete(own);
        if (waiting.size === 0) {
          timer?.cancel();
          timer = undefined;
        }
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
