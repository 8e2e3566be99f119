/**
 * Limits how many of something happen at once. Whoever gets no slot waits for
 * one, first come first served.
 */
import { waitFor } from './abort.js';

export interface Slots {
  /** Resolves with a function that gives the slot back. Rejects with the signal's reason if it aborts first. */
  take(signal: AbortSignal): Promise<() => void>;
}

export function createSlots(slotsMax: number): Slots {
  let taken = 0;
  const queue = new Set<() => void>();

  function occupy(): () => void {
    let released = false;
    taken += 1;
    return () => {
      if (released) return;
      released = true;
      taken -= 1;
      const [next] = queue;
      next?.();
    };
  }

  return {
    take(signal) {
      if (signal.aborted) return Promise.reject(signal.reason);
      if (taken < slotsMax) return Promise.resolve(occupy());
      return waitFor((come) => {
        const enter = (): void => come(occupy());
        queue.add(enter);
        return () => queue.delete(enter);
      }, signal);
    },
  };
}
