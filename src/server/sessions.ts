/**
 * HTTP/2 on connections that a listener hands over: sessions with limits on what
 * one client may occupy or make the server do. They end when nothing is
 * transferred, and are closed in order.
 *
 * Floods of pings, settings and resets are counted here. nghttp2 itself ends
 * endless or too many fields, and acknowledgements that nobody reads.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants, createServer, type ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { Clock } from '../clock.js';
import { http2Exchange, PIECE_BYTES } from './http2.js';
import type { ListenLimits } from './limits.js';
import { OpenStream, watchDeadlines } from './open-streams.js';
import { createStarts } from './starts.js';

export interface SessionsOptions {
  readonly limits: ListenLimits;
  /** Open streams in one session. */
  readonly streamsMax: number;
  /** Interruptions of one session within INTERRUPTIONS_WINDOW_MS. */
  readonly interruptionsMax: number;
  readonly clock: Clock;
  onRequest(request: IncomingMessage, response: ServerResponse): void;
  /** A request that waits for 100-continue. */
  onExpectation(request: IncomingMessage, response: ServerResponse): void;
  /** A session was ended because its client flooded it. */
  onFlood(): void;
  /** Called once for each session. Its reader answers the requests that it can, and `onRequest` all others. */
  readonly readStreams?: (socket: Socket) => StreamReader;
}

/** Answers a request. Returns false for one that it leaves to `onRequest`, with which it has done nothing yet. */
export type StreamReader = (opened: OpenStream) => boolean;

export interface Sessions {
  /** Starts a session on the connection. */
  take(socket: Socket): void;
  /** Accepts no new requests; each session ends with its last one. */
  close(): void;
  breakOff(): void;
}

/** RFC 9113 8.3.1: method, scheme, authority and path. */
const PSEUDO_FIELDS = 4;

/** How much a client may send before it is read. It limits the memory that one stream can take. */
const WINDOW_BYTES = 262_144;

/** After this many invalid or refused streams, the session is ended. */
const BAD_STREAMS_MAX = 100;

const INTERRUPTIONS_WINDOW_MS = 10_000;

/** Each may cost as much as a lookup in the cache and a request to the origin. */
const STARTS_PER_TURN = 16;

const ignore = (): void => undefined;

export function openSessions(options: SessionsOptions): Sessions {
  const { limits, clock } = options;
  const sockets = new Set<Socket>();
  const sessions = new Set<ServerHttp2Session>();
  const starts = createStarts(STARTS_PER_TURN, setImmediate);
  let closing = false;
  const server = createServer({
    // One more than is allowed, so that the guard answers the excess and nghttp2 does not just reset the stream.
    maxHeaderListPairs: limits.headersMaxCount + PSEUDO_FIELDS + 1,
    // In megabytes: for each stream a piece in each direction, and 10 for the session itself.
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

  function watch(session: ServerHttp2Session, socket: Socket): void {
    sessions.add(session);
    const read = options.readStreams?.(socket);
    const deadlines = watchDeadlines(session, limits, options.streamsMax, clock);
    const streams = { clock, pass: (opened: OpenStream) => pass(opened, socket) };
    const interrupted = countInterruptions(session);
    session.once('close', () => {
      sessions.delete(session);
      deadlines.stop();
    });
    session.on('error', ignore);
    session.on('ping', interrupted).on('remoteSettings', interrupted);
    session.on('stream', (stream, fields, _flags, rawFields?: unknown) => {
      const raw = Array.isArray(rawFields) ? rawFields : Object.entries(fields).flat().map(String);
      const opened = new OpenStream(stream, fields, raw, streams);
      deadlines.add(opened);
      // What goes wrong with a stream is seen by its end.
      stream.on('error', ignore);
      stream.once('close', () => {
        deadlines.remove(opened);
        opened.onEnd?.();
        if (stream.aborted || opened.brokenOff) interrupted();
      });
      starts.add(session, () => {
        if (stream.closed || stream.destroyed) return false;
        if (read?.(opened) !== true) opened.handOver();
        return true;
      });
    });
    if (closing) session.close();
  }

  /** RFC 9113 10.5: counts frames that cost a client nothing but make the server work. */
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

  function pass(opened: OpenStream, socket: Socket): void {
    const { stream, fields, rawFields } = opened;
    const { request, response } = http2Exchange(stream, fields, rawFields, socket, () => opened.moved());
    if (fields.expect?.toLowerCase() === '100-continue') options.onExpectation(request, response);
    else options.onRequest(request, response);
  }

  return {
    take(socket) {
      if (socket.destroyed) return;
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      const onSession = (session: ServerHttp2Session): void => watch(session, socket);
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
