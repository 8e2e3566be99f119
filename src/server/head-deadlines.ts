/**
 * Deadlines for request heads whose beginning was read before node's parser took
 * the connection: the parser counts from what it sees itself, so that a slow
 * client would have its time twice.
 */
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock, Timer } from '../clock.js';

export interface HeadDeadlines {
  /** `dueMs` is a reading of the monotonic clock. */
  set(socket: Socket, dueMs: number): void;
  /** The head has arrived. */
  met(socket: Socket): void;
  /** Has the client told that it was too slow, as if the parser had found it. */
  missed(socket: Socket): void;
}

export function createHeadDeadlines(server: Server, clock: Clock): HeadDeadlines {
  const timers = new WeakMap<Socket, Timer>();

  function met(socket: Socket): void {
    timers.get(socket)?.cancel();
    timers.delete(socket);
  }

  function missed(socket: Socket): void {
    const error = Object.assign(new Error('the request did not come in time'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' });
    server.emit('clientError', error, socket);
  }

  return {
    set(socket, dueMs) {
      const leftMs = Math.max(0, dueMs - clock.monotonicMs());
      timers.set(
        socket,
        clock.after(leftMs, () => missed(socket)),
      );
      socket.once('close', () => met(socket));
    },
    met,
    missed,
  };
}
