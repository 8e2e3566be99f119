/**
 * Reads and drops the rest of a body that is not needed. RFC 9112 9.6: a
 * connection that is closed while its client still sends is reset, and the
 * client may never read its answer.
 *
 * Leaves to the caller: the answer itself, and what becomes of the connection.
 */
import type { IncomingMessage } from 'node:http';
import type { Clock } from '../clock.js';

export interface DrainLimits {
  readonly sizeMaxBytes: number;
  readonly withinMs: number;
  /** How long the client may send nothing. Without it, only `withinMs` counts. */
  readonly idleMs?: number;
}

/** Resolves when the body has ended, the client has left, or a limit is reached. */
export function drain(request: IncomingMessage, limits: DrainLimits, clock: Clock): Promise<void> {
  const { sizeMaxBytes, withinMs, idleMs = withinMs } = limits;
  if (request.complete || request.readableEnded || request.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    let leftBytes = sizeMaxBytes;
    const finish = (): void => {
      idle.cancel();
      deadline.cancel();
      request.off('data', count).off('end', finish).off('close', finish);
      resolve();
    };
    const count = (chunk: Buffer): void => {
      leftBytes -= chunk.length;
      idle.cancel();
      if (leftBytes < 0) finish();
      else idle = clock.after(idleMs, finish);
    };
    let idle = clock.after(idleMs, finish);
    const deadline = clock.after(withinMs, finish);
    request.on('data', count).once('end', finish).once('close', finish);
    request.resume();
  });
}
