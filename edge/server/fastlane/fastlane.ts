/**
 * The fast lane: reads connections before node:http does and answers plain
 * requests by itself: GET and HEAD without a body, one after the other. The
 * handler is the same (edge/handler.ts); the fast lane saves the work that
 * node:http does for requests that are not plain.
 *
 * Keeps the listener's time limits. All other limits, and every request that is
 * not plain, are left to node:http and the guard before it.
 */
import type { Clock } from '../../../src/clock.js';
import type { ListenLimits } from '../../../src/server/limits.js';
import type { FirstConnection, FirstReader } from '../../../src/server/listen.js';
import type { ServerDeps } from '../exchange.js';
import { Connection } from './connection.js';
import { createJoiner, createLender } from './join.js';
import { createSendTurns } from './send-turns.js';
import { createStreamHeadWriter, readStreams } from './stream.js';
import { createHeadWriter } from './write-head.js';

/** The longest time between two searches for connections that have waited too long. */
const SWEEP_MAX_MS = 1_000;
/** How much of streamed bodies is sent in one turn of the event loop: about a millisecond's work, or a tenth of it. */
const SENT_PER_TURN = { bytesMax: 1_048_576, bytesMaxBesideNew: 131_072 };

/** `limits` are the listener's. `clock` is the listener's too, and measures how long clients take. */
export function createFastlane(deps: ServerDeps, limits: ListenLimits, clock: Clock): FirstReader {
  const sweepMs = Math.max(10, Math.min(SWEEP_MAX_MS, limits.headersWithinMs / 2, limits.idleMs / 2));
  const connections = new Set<Connection>();
  let sweeping = false;
  const lane = {
    deps,
    limits,
    clock,
    writer: createHeadWriter(deps.clock, limits.idleMs),
    joiner: createJoiner(),
    lender: createLender(),
    heads: createStreamHeadWriter(),
    sendTurns: createSendTurns(SENT_PER_TURN, setImmediate),
    closing: false,
    remove: (connection: Connection) => void connections.delete(connection),
  };

  function sweep(): void {
    const nowMs = clock.monotonicMs();
    for (const connection of connections) connection.expire(nowMs);
    sweeping = connections.size > 0;
    if (sweeping) clock.after(sweepMs, sweep);
  }

  return {
    take(raw: FirstConnection) {
      lane.sendTurns.onConnection();
      connections.add(new Connection(lane, raw));
      if (!sweeping) clock.after(sweepMs, sweep);
      sweeping = true;
    },
    readStreams: (socket) => readStreams(lane, socket),
    close() {
      lane.closing = true;
      for (const connection of connections) connection.close();
    },
    breakOff() {
      for (const connection of connections) connection.breakOff();
    },
  };
}
