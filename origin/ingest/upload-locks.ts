/**
 * One request at a time for each partial upload. Kept in this process, which is
 * the only one that has its folder. What a break-off ends is the reading of a
 * part; whoever is finishing an upload is waited for.
 */
import { Fault } from '../../src/errors.js';

export interface UploadLock {
  /** Aborts when the request's own does, or when a newer request wants the upload. */
  readonly signal: AbortSignal;
  release(): void;
}

export interface UploadLocks {
  /** `refuse`: 409 where it is held; `break_off`: the reading of a part ends, and this waits until it has. */
  take(id: string, whenLocked: 'refuse' | 'break_off', signal: AbortSignal): Promise<UploadLock>;
  isLocked(id: string): boolean;
}

interface Holder {
  readonly breaking: AbortController;
  readonly released: Promise<void>;
}

export function createUploadLocks(): UploadLocks {
  const holders = new Map<string, Holder>();
  return {
    isLocked: (id) => holders.has(id),
    async take(id, whenLocked, signal) {
      for (let holder = holders.get(id); holder !== undefined; holder = holders.get(id)) {
        if (whenLocked === 'refuse') throw new Fault('conflict', 'Another request is at work on the upload.');
        holder.breaking.abort(new Fault('conflict', 'A newer request took the upload over.'));
        await abortable(holder.released, signal);
      }
      const breaking = new AbortController();
      let free: () => void = () => undefined;
      const released = new Promise<void>((resolve) => {
        free = resolve;
      });
      holders.set(id, { breaking, released });
      return {
        signal: AbortSignal.any([signal, breaking.signal]),
        release() {
          holders.delete(id);
          free();
        },
      };
    },
  };
}

function abortable(settling: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    void settling.then(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
  });
}
