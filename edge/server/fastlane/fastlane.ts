/**
 * The fast lane: reads connections before node:http does, and answers by itself
 * what is plain: GET and HEAD without a body, one after the other. The story is
 * the same (handler.ts); what is saved is everything that a general server has
 * to make, check and keep for requests that are not plain.
 *
 * Keeps the listener's limits on waiting; leaves all others, and every request
 * that is not plain, to node:http and the guard before it.
 */
import type { Clock } from '../../../src/clock.js';
import type { ListenLimits } from '../../../src/server/limits.js';
import type { FirstConnection, FirstReader } from '../../../src/server/listen.js';
import { Connection } from './connection.js';
import type { LaneParts } from './lane.js';
import { createHeadWriter } from './write-head.js';

/** How often connections are looked at that may have waited too long; half the shortest wait, where that is less. */
const SWEEP_MAX_MS = 1_000;

/** For a listener with these limits, and its clock, by which clients are waited for. */
export function createFastlane(parts: LaneParts, limits: ListenLimits, clock: Clock): FirstReader {
  const sweepMs = Math.max(10, Math.min(SWEEP_MAX_MS, limits.headersWithinMs / 2, limits.idleMs / 2));
  const connections = new Set<Connection>();
  let sweeping = false;
  const lane = {
    parts,
    limits,
    clock,
    writer: createHeadWriter(parts.clock, limits.idleMs),
    closing: false,
    left: (connection: Connection) => void connections.delete(connection),
  };

  function sweep(): void {
    const nowMs = clock.monotonicMs();
    for (const connection of connections) connection.expire(nowMs);
    sweeping = connections.size > 0;
    if (sweeping) clock.after(sweepMs, sweep);
  }

  return {
    take(own: FirstConnection) {
      connections.add(new Connection(lane, own));
      if (!sweeping) clock.after(sweepMs, sweep);
      sweeping = true;
    },
    close() {
      lane.closing = true;
      for (const connection of connections) connection.close();
    },
    breakOff() {
      for (const connection of connections) connection.breakOff();
    },
  };
}
