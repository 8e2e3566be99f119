/**
 * HTTP/2 on connections that a listener hands over: sessions with bounds on
 * what one client may hold or make the server do, ended when nothing moves, and
 * closed in order.
 *
 * Floods of resets, settings and pings are refused by nghttp2 itself.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import type { Clock } from '../clock.js';
import { http2Exchange, PIECE_BYTES } from './http2.js';
import type { ListenLimits } from './limits.js';

export interface SessionsOptions {
  readonly limits: ListenLimits;
  /** At once in one session. */
  readonly streamsMax: number;
  readonly clock: Clock;
  onRequest(request: IncomingMessage, response: ServerResponse): void;
  /** A request that waits for 100-continue. */
  onExpectation(request: IncomingMessage, response: ServerResponse): void;
}

export interface Sessions {
  /** The connection is a session's from now on. */
  take(socket: Socket): void;
  /** No new requests; each session ends with its last one. */
  close(): void;
  breakOff(): void;
}

/** RFC 9113 8.3.1: fields that the target and its method take up. */
const PSEUDO_FIELDS = 4;

/** What a client may send ahead of being read; more would be a client's to fill. */
const WINDOW_BYTES = 262_144;

/** Misframed or refused streams after which a client is not worth its session. */
const BAD_STREAMS_MAX = 100;

export function openSessions(options: SessionsOptions): Sessions {
  const { limits, clock } = options;
  const sockets = new Set<Socket>();
  const sessions = new Set<ServerHttp2Session>();
  let closing = false;
  const server = createServer({
    // One more than is let in, so that what goes beyond is answered and not just reset.
    maxHeaderListPairs: limits.headersMaxCount + PSEUDO_FIELDS + 1,
    // In megabytes: a piece each way for every stream, and as much again for the session itself.
    maxSessionMemory: 10 + Math.ceil((options.streamsMax * (PIECE_BYTES + WINDOW_BYTES)) / 1_000_000),
    maxSessionInvalidFrames: BAD_STREAMS_MAX,
    maxSessionRejectedStreams: BAD_STREAMS_MAX,
    settings: {
      maxConcurrentStreams: options.streamsMax,
      maxHeaderListSize: limits.headersMaxBytes,
      initialWindowSize: WINDOW_BYTES,
      enablePush: false,
    },
  });

  function hold(session: ServerHttp2Session, socket: Socket): void {
    sessions.add(session);
    let open = 0;
    session.once('close', () => sessions.delete(session));
    session.on('error', () => {});
    session.setTimeout(limits.idleMs, () => session.destroy());
    session.on('stream', (stream, fields, _flags, rawFields?: unknown) => {
      open += 1;
      session.setTimeout(limits.stalledMs);
      stream.once('close', () => {
        open -= 1;
        if (open === 0 && !session.destroyed) session.setTimeout(limits.idleMs);
      });
      bound(stream);
      const raw = Array.isArray(rawFields)
        ? (rawFields as readonly string[])
        : Object.entries(fields).flat().map(String);
      const { request, response } = http2Exchange(stream, fields, raw, socket);
      if (fields.expect?.toLowerCase() === '100-continue') options.onExpectation(request, response);
      else options.onRequest(request, response);
    });
    if (closing) session.close();
  }

  /** As for a connection of HTTP/1.1: time to arrive, and time in which nothing moves. */
  function bound(stream: ServerHttp2Stream): void {
    stream.setTimeout(limits.stalledMs, () => stream.destroy(new Error('the stream stalled')));
    if (stream.endAfterHeaders) return;
    const arriving = clock.after(limits.requestWithinMs, () =>
      stream.destroy(new Error('the request took too long to arrive')),
    );
    stream.once('end', () => arriving.cancel()).once('close', () => arriving.cancel());
  }

  return {
    take(socket) {
      if (socket.destroyed) return;
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      const onSession = (session: ServerHttp2Session): void => hold(session, socket);
      server.once('session', onSession);
      server.emit('connection', socket);
      server.off('session', onSession);
    },
    close() {
      closing = true;
      for (const session of sessions) session.close();
    },
    breakOff() {
      for (const session of sessions) session.destroy();
      for (const socket of sockets) socket.destroy();
    },
  };
}
