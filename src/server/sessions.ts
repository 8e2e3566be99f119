/**
 * HTTP/2 on connections that a listener hands over: sessions with bounds on
 * what one client may hold or make the server do, ended when nothing moves, and
 * closed in order.
 *
 * Floods of pings, settings and resets are counted here. Endless or too many
 * fields, and acknowledgements that nobody reads, are ended by nghttp2 itself.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants, createServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import type { Clock, Timer } from '../clock.js';
import { http2Exchange, PIECE_BYTES } from './http2.js';
import type { ListenLimits } from './limits.js';

export interface SessionsOptions {
  readonly limits: ListenLimits;
  /** At once in one session. */
  readonly streamsMax: number;
  /** Of one session in INTERRUPTIONS_WINDOW_MS. */
  readonly interruptionsMax: number;
  readonly clock: Clock;
  onRequest(request: IncomingMessage, response: ServerResponse): void;
  /** A request that waits for 100-continue. */
  onExpectation(request: IncomingMessage, response: ServerResponse): void;
  /** A session was ended for keeping the server busy with nothing. */
  onFlood(): void;
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

const INTERRUPTIONS_WINDOW_MS = 10_000;

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
    const idle = idleTimer(session);
    const interrupted = countInterruptions(session);
    session.once('close', () => {
      sessions.delete(session);
      idle.stop();
    });
    session.on('error', () => {});
    session.on('ping', interrupted).on('remoteSettings', interrupted);
    // While streams are open; without any, the idle timer is stricter.
    session.setTimeout(limits.stalledMs, () => session.destroy());
    session.on('stream', (stream, fields, _flags, rawFields?: unknown) => {
      idle.opened();
      stream.once('aborted', interrupted).once('close', () => idle.closed());
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

  /** Ends a session that has had no stream for so long, whatever else its client sends to keep it. */
  function idleTimer(session: ServerHttp2Session): { opened(): void; closed(): void; stop(): void } {
    let open = 0;
    let timer: Timer | undefined;
    const wait = (): void => {
      timer = clock.after(limits.idleMs, () => session.destroy());
    };
    wait();
    return {
      opened() {
        open += 1;
        timer?.cancel();
      },
      closed() {
        open -= 1;
        if (open === 0 && !session.destroyed) wait();
      },
      stop: () => timer?.cancel(),
    };
  }

  /** RFC 9113 10.5: what costs a client nothing and has the server answer or begin in vain. */
  function countInterruptions(session: ServerHttp2Session): () => void {
    let count = 0;
    let windowMs = clock.monotonicMs();
    return () => {
      const now = clock.monotonicMs();
      if (now - windowMs > INTERRUPTIONS_WINDOW_MS) {
        count = 0;
        windowMs = now;
      }
      count += 1;
      if (count <= options.interruptionsMax || session.destroyed) return;
      options.onFlood();
      session.destroy(new Error('the client floods'), constants.NGHTTP2_ENHANCE_YOUR_CALM);
    };
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
