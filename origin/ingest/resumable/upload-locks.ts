/**
 * Locks on resumable uploads, so that one request at a time changes each upload.
 * They are in the memory of this process, the only one that uses the folder. A
 * request that reads a body can be interrupted by a newer one; a request that is
 * finishing its upload is waited for.
 */
import { withSignal } from '../../../src/abort.js';
import { Fault } from '../../../src/errors.js';

export interface UploadLock {
  /** Aborts with the signal of the request, or when a newer request interrupts it. */
  readonly signal: AbortSignal;
  release(): void;
}

export interface UploadLocks {
  /** If the upload is locked, `refuse` throws a Fault (409); `interrupt` ends the reading of its body and waits. */
  take(id: string, whenLocked: 'refuse' | 'interrupt', signal: AbortSignal): Promise<UploadLock>;
  isLocked(id: string): boolean;
}

interface Locked {
  readonly interrupted: AbortController;
  readonly released: Promise<void>;
}

export function createUploadLocks(): UploadLocks {
  const locks = new Map<string, Locked>();
  return {
    isLocked: (id) => locks.has(id),
    async take(id, whenLocked, signal) {
      for (let lock = locks.get(id); lock !== undefined; lock = locks.get(id)) {
        if (whenLocked === 'refuse') throw new Fault('conflict', 'Another request is using the upload.');
        lock.interrupted.abort(new Fault('conflict', 'A newer request took over the upload.'));
        await withSignal(lock.released, signal);
      }
      // The client may have left meanwhile, and asked elsewhere how much has arrived: nothing may change after that.
      signal.throwIfAborted();
      const interrupted = new AbortController();
      let announce: () => void = () => undefined;
      const released = new Promise<void>((resolve) => {
        announce = resolve;
      });
      locks.set(id, { interrupted, released });
      return {
        signal: AbortSignal.any([signal, interrupted.signal]),
        release() {
          locks.delete(id);
          announce();
        },
      };
    },
  };
}
