/**
 * Which blobs are being stored right now, so that the sweep never deletes one
 * under an upload that counts on it. An upload holds its hash from before it
 * adopts the blob until its record is committed; the sweep claims a hash alone.
 */
import type { Sha256 } from '../../src/ids.js';

export interface InFlight {
  /** Resolves with the release once no sweep has the hash; any number may hold it at once. */
  hold(sha256: Sha256, signal: AbortSignal): Promise<() => void>;
  /** For the sweep: the release, or undefined where an upload or another sweep has the hash. */
  claim(sha256: Sha256): (() => void) | undefined;
  /** Hashes held or claimed. */
  readonly count: number;
}

interface Place {
  /** Uploads that have the hash or wait for the sweep to let go of it. */
  holders: number;
  claimed: boolean;
  readonly waiting: Set<() => void>;
}

export function createInFlight(): InFlight {
  const places = new Map<Sha256, Place>();

  function placeOf(sha256: Sha256): Place {
    const found = places.get(sha256);
    if (found !== undefined) return found;
    const place: Place = { holders: 0, claimed: false, waiting: new Set() };
    places.set(sha256, place);
    return place;
  }

  function drop(sha256: Sha256, place: Place): void {
    place.holders -= 1;
    if (!place.claimed && place.holders === 0) places.delete(sha256);
  }

  return {
    async hold(sha256, signal) {
      signal.throwIfAborted();
      const place = placeOf(sha256);
      place.holders += 1;
      try {
        while (place.claimed) await turn(place.waiting, signal);
      } catch (reason) {
        drop(sha256, place);
        throw reason;
      }
      return once(() => drop(sha256, place));
    },
    claim(sha256) {
      if (places.has(sha256)) return undefined;
      const place = placeOf(sha256);
      place.claimed = true;
      return once(() => {
        place.claimed = false;
        if (place.holders === 0) places.delete(sha256);
        // A woken one leaves the set, and none joins before it has run.
        for (const wake of place.waiting) wake();
      });
    },
    get count() {
      return places.size;
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

/** Waits until woken, or rejects with the signal's reason. */
function turn(waiting: Set<() => void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (settle: () => void): void => {
      waiting.delete(wake);
      signal.removeEventListener('abort', onAbort);
      settle();
    };
    const wake = (): void => end(resolve);
    const onAbort = (): void => end(() => reject(signal.reason));
    waiting.add(wake);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}
