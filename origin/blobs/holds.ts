/**
 * Keeps the sweep and uploads in flight apart, blob by blob. An upload holds
 * its hash from before it looks for a duplicate until its record is committed;
 * the sweep claims a hash before it forgets the record and removes the bytes.
 * Any number may hold at once, a claim is alone.
 *
 * Promises: no upload commits a record over bytes that a sweep is removing.
 * Holds live in memory, as the uploads and sweeps of this process do.
 */
import type { Sha256 } from '../../src/ids.js';

export interface Holds {
  /** Waits for a claim to end. The caller releases, once. */
  hold(sha256: Sha256): Promise<Release>;
  /** Undefined where anyone holds or claims it: the sweep comes by again later. */
  claim(sha256: Sha256): Release | undefined;
}

export type Release = () => void;

interface Entry {
  holders: number;
  /** Set while it is claimed. */
  freed: Promise<void> | undefined;
}

export function createHolds(): Holds {
  const entries = new Map<Sha256, Entry>();
  return {
    async hold(sha256) {
      for (let entry = entries.get(sha256); entry?.freed !== undefined; entry = entries.get(sha256)) await entry.freed;
      const entry = entries.get(sha256) ?? { holders: 0, freed: undefined };
      entry.holders += 1;
      entries.set(sha256, entry);
      return once(() => {
        entry.holders -= 1;
        if (entry.holders === 0) entries.delete(sha256);
      });
    },
    claim(sha256) {
      if (entries.has(sha256)) return undefined;
      const { promise, resolve } = deferred();
      entries.set(sha256, { holders: 0, freed: promise });
      return once(() => {
        entries.delete(sha256);
        resolve();
      });
    },
  };
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

function once(run: () => void): Release {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    run();
  };
}
