/**
 * So many at once and no more: whoever wants to be one of them waits for a
 * slot, first come first served, and gives it back when done.
 */
import { waitFor } from './abort.js';

export interface Slots {
  /** Resolves with the release; rejects with the signal's reason when that comes first. */
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
