/**
 * Deadlines for request heads on HTTP/1.1 connections, each set once, when the
 * first byte is there. Node's parser counts from what it sees itself, so a client
 * whose head was handed over half received would have its time twice, and it lets
 * empty lines before a request (RFC 9112 2.2) keep a connection for ever.
 */
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock, Timer } from '../clock.js';

export interface HeadDeadlines {
  /** A head has begun, and there is no deadline for it yet. */
  begin(socket: Socket): void;
  /** The same for a head that has begun before. `dueMs` is a reading of the monotonic clock. */
  set(socket: Socket, dueMs: number): void;
  /** The head has arrived, or nothing will any more. Must be called when the connection closes. */
  met(socket: Socket): void;
  /** Has the client told that it was too slow, as if the parser had found it. */
  missed(socket: Socket): void;
}

export function createHeadDeadlines(server: Server, clock: Clock, headersWithinMs: number): HeadDeadlines {
  const timers = new Map<Socket, Timer>();

  function set(socket: Socket, dueMs: number): void {
    if (timers.has(socket) || socket.destroyed) return;
    const leftMs = Math.max(0, dueMs - clock.monotonicMs());
    timers.set(
      socket,
      clock.after(leftMs, () => missed(socket)),
    );
  }

  function met(socket: Socket): void {
    timers.get(socket)?.cancel();
    timers.delete(socket);
  }

  function missed(socket: Socket): void {
    const error = Object.assign(new Error('the request did not come in time'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' });
    server.emit('clientError', error, socket);
  }

  return { begin: (socket) => set(socket, clock.monotonicMs() + headersWithinMs), set, met, missed };
}
