/**
 * So many at once and no more: whoever wants to be one of them waits for a
 * slot, first come first served, and gives it back when done.
 */

export interface Slots {
  /** Resolves with the release; rejects with the signal's reason when that comes first. */
  take(signal: AbortSignal): Promise<() => void>;
  readonly taken: number;
  readonly waiting: number;
}

export function createSlots(slotsMax: number): Slots {
  let taken = 0;
  const queue: (() => void)[] = [];

  function occupy(): () => void {
    let released = false;
    taken += 1;
    return () => {
      if (released) return;
      released = true;
      taken -= 1;
      queue.shift()?.();
    };
  }

  return {
    take(signal) {
      if (signal.aborted) return Promise.reject(signal.reason);
      if (taken < slotsMax) return Promise.resolve(occupy());
      return new Promise((resolve, reject) => {
        const onAbort = (): void => {
          queue.splice(queue.indexOf(enter), 1);
          reject(signal.reason);
        };
        const enter = (): void => {
          signal.removeEventListener('abort', onAbort);
          resolve(occupy());
        };
        queue.push(enter);
        signal.addEventListener('abort', onAbort, { once: true });
      });
    },
    get taken() {
      return taken;
    },
    get waiting() {
      return queue.length;
    },
  };
}
