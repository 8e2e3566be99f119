/**
 * Answers that went out in one write and leave the process only as fast as
 * their clients read: what they show can still be taken down.
 */
import type { MediaId } from '../../src/ids.js';

/** What an answer is leaving through. */
export interface Departing {
  destroy(): unknown;
}

export interface Departures {
  /** To be released once it has left, or its client has. */
  hold(id: MediaId, departing: Departing): () => void;
  breakOff(id: MediaId): void;
  breakOffAll(): void;
}

export function createDepartures(): Departures {
  const held = new Map<MediaId, Set<Departing>>();
  const cut = (departing: Iterable<Departing>): void => {
    for (const each of departing) each.destroy();
  };
  return {
    hold(id, departing) {
      const all = held.get(id) ?? new Set();
      held.set(id, all.add(departing));
      return () => {
        all.delete(departing);
        if (all.size === 0 && held.get(id) === all) held.delete(id);
      };
    },
    breakOff: (id) => cut(held.get(id) ?? []),
    breakOffAll() {
      for (const departing of held.values()) cut(departing);
    },
  };
}
