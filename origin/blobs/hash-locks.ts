/**
 * Locks on hashes, so that the sweep never deletes a blob that an upload is
 * about to use. An upload shares the lock of its hash from before it adopts the
 * blob until its record is committed; the sweep takes the lock alone.
 */
import { waitFor } from '../../src/abort.js';
import type { Sha256 } from '../../src/ids.js';

export interface HashLocks {
  /** Waits while somebody has the lock alone, and resolves with the release. Any number may share a lock. */
  share(sha256: Sha256, signal: AbortSignal): Promise<() => void>;
  /** Takes the lock alone and returns the release, or undefined if anybody has the lock or waits for it. */
  tryAlone(sha256: Sha256): (() => void) | undefined;
}

interface Lock {
  /** Those who share the lock, and those who wait to share it. */
  sharers: number;
  alone: boolean;
  readonly waiting: Set<() => void>;
}

export function createHashLocks(): HashLocks {
  const locks = new Map<Sha256, Lock>();

  function lockOf(sha256: Sha256): Lock {
    const found = locks.get(sha256);
    if (found !== undefined) return found;
    const lock: Lock = { sharers: 0, alone: false, waiting: new Set() };
    locks.set(sha256, lock);
    return lock;
  }

  function dropIfUnused(sha256: Sha256, lock: Lock): void {
    if (!lock.alone && lock.sharers === 0) locks.delete(sha256);
  }

  function leave(sha256: Sha256, lock: Lock): void {
    lock.sharers -= 1;
    dropIfUnused(sha256, lock);
  }

  return {
    async share(sha256, signal) {
      signal.throwIfAborted();
      const lock = lockOf(sha256);
      lock.sharers += 1;
      try {
        while (lock.alone) await turnIn(lock.waiting, signal);
      } catch (reason) {
        leave(sha256, lock);
        throw reason;
      }
      return once(() => leave(sha256, lock));
    },
    tryAlone(sha256) {
      if (locks.has(sha256)) return undefined;
      const lock = lockOf(sha256);
      lock.alone = true;
      return once(() => {
        lock.alone = false;
        dropIfUnused(sha256, lock);
        // Each leaves the set when it is woken, and none joins the set before it has run.
        for (const wake of lock.waiting) wake();
      });
    },
  };
}

function once(release: () => void): () => void {
  let released = false;
  return () => {
    if (released) return;
    released = true;
    release();
  };
}

function turnIn(waiting: Set<() => void>, signal: AbortSignal): Promise<void> {
  return waitFor((come) => {
    waiting.add(come);
    return () => waiting.delete(come);
  }, signal);
}
