/**
 * Bounds how much of streamed bodies all connections together send in one turn
 * of the event loop. In each turn the system hands over only one new connection,
 * so that the last of many clients that come at once waits for as many turns. So
 * a turn after a new connection is much shorter than the others.
 *
 * Promises: pieces that wait are sent in the order in which they came, so that
 * each connection has one before any has two; each turn sends at least one.
 */
import { onceATurn } from '../../../src/server/once-a-turn.js';

export interface SendTurns {
  /** Counts bytes that are about to be sent. Returns a promise for the turn in which they may be, unless that is now. */
  take(bytes: number): Promise<void> | undefined;
  /** Counts bytes that are sent now in any case. */
  count(bytes: number): void;
  /** A connection was accepted in this turn. */
  onConnection(): void;
}

export interface TurnLimits {
  readonly bytesMax: number;
  /** The same if a connection was accepted in this turn or in the one before. */
  readonly bytesMaxBesideNew: number;
}

interface Waiting {
  readonly bytes: number;
  readonly send: () => void;
}

/** `nextTurn` calls back in the next turn. */
export function createSendTurns(limits: TurnLimits, nextTurn: (run: () => void) => void): SendTurns {
  let waiting: Waiting[] = [];
  let limitBytes = limits.bytesMax;
  let countedBytes = 0;
  let accepted = false;
  const schedule = onceATurn(nextTurn, turn);

  function turn(): void {
    limitBytes = accepted ? limits.bytesMaxBesideNew : limits.bytesMax;
    accepted = false;
    countedBytes = 0;
    let sent = 0;
    for (; sent < waiting.length && countedBytes < limitBytes; sent += 1) {
      const next = waiting[sent];
      countedBytes += next?.bytes ?? 0;
      next?.send();
    }
    if (sent === 0) return;
    waiting = waiting.slice(sent);
    schedule();
  }

  return {
    take(bytes) {
      schedule();
      if (waiting.length > 0 || countedBytes >= limitBytes) return new Promise((send) => waiting.push({ bytes, send }));
      countedBytes += bytes;
      return undefined;
    },
    count(bytes) {
      schedule();
      countedBytes += bytes;
    },
    onConnection() {
      accepted = true;
      limitBytes = limits.bytesMaxBesideNew;
      schedule();
    },
  };
}
