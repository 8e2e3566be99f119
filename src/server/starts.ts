/**
 * Starts the requests of all HTTP/2 sessions of a listener, a few in each turn of
 * the event loop. One piece that a client sends may hold thousands of requests.
 * Between two turns other connections are read, so that no client waits for all
 * of another's. Sessions take turns, and a request whose client has left by then
 * is not started.
 */
import { onceATurn } from './once-a-turn.js';

/** Starts a request. Returns false if there is nothing to start any more. */
export type Start = () => boolean;

export interface Starts {
  /** Calls `start` in this turn or in a later one. */
  add(session: object, start: Start): void;
}

/** `nextTurn` calls back in the next turn. */
export function createStarts(perTurnMax: number, nextTurn: (run: () => void) => void): Starts {
  const waiting = new Map<object, Start[]>();
  let left = perTurnMax;
  const schedule = onceATurn(nextTurn, turn);

  function turn(): void {
    left = perTurnMax;
    while (left > 0) {
      const next = takeNext();
      if (next === undefined) return;
      if (next()) left -= 1;
    }
    schedule();
  }

  /** Takes the next request of the session whose turn it is, and puts that session last. */
  function takeNext(): Start | undefined {
    const [first] = waiting;
    if (first === undefined) return undefined;
    const [session, queue] = first;
    const start = queue.shift();
    waiting.delete(session);
    if (queue.length > 0) waiting.set(session, queue);
    return start;
  }

  return {
    add(session, start) {
      schedule();
      if (waiting.size === 0 && left > 0) {
        if (start()) left -= 1;
        return;
      }
      const queue = waiting.get(session);
      if (queue === undefined) waiting.set(session, [start]);
      else queue.push(start);
    },
  };
}
