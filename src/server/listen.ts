/**
 * Opens a listening socket with a limit for everything that a client can make
 * the server wait for, and with the guard before its handlers. Closes it in
 * order: no new connections, idle ones ended, those in use finished within a
 * deadline, the rest broken off.
 */
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { AddressInfo, ListenOptions as NetListenOptions, Socket } from 'node:net';
import type { SecureContextOptions, TLSSocket } from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../clock.js';
import { Fault } from '../errors.js';
import { clientProblem } from '../http/problem.js';
import type { Reply } from '../http/reply.js';
import type { Log } from '../log.js';
import { readCertificate, type TlsConfig } from './certificate.js';
import { type Guard, type GuardReason, guardServer } from './guard.js';
import { createHeadDeadlines, type HeadDeadlines } from './head-deadlines.js';
import { isHttp2 } from './http2.js';
import type { ListenLimits } from './limits.js';
import { openSessions, type Sessions, type SessionsOptions, type StreamReader } from './sessions.js';
import { type Reading, type Receive, shareReads, unshared } from './shared-reads.js';
import { createTurns } from './turns.js';

export interface ListenOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Listens on a socket with this path in place of host and port. */
  readonly path?: string;
  /** Whether other processes may listen on the same port, and the system spreads the connections. */
  readonly reusePort?: boolean;
  /** Without it, or if it names no files: plain HTTP/1.1. */
  readonly tls?: TlsConfig;
  readonly limits: ListenLimits;
  readonly clock: Clock;
  readonly log: Log;
  onRequest(request: IncomingMessage, response: ServerResponse): void;
  /** For requests with `Expect: 100-continue`. Without it, 100 is sent and the request handled like any other. */
  onExpectation?(request: IncomingMessage, response: ServerResponse): void;
  /** How refusals by the listener itself look. Without it, as on a listener for clients. */
  readonly problem?: (fault: Fault) => Reply;
  /** Is told why the guard refused a request. */
  onRefused?(reason: GuardReason): void;
  /** Reads HTTP/1.1 connections before node's parser does. */
  firstReader?(limits: ListenLimits, clock: Clock): FirstReader;
}

/** Answers the requests of a connection that it can, and hands the connection over for the rest. */
export interface FirstReader {
  take(connection: FirstConnection): void;
  /** The same for the streams of an HTTP/2 session. */
  readonly readStreams?: (socket: Socket) => StreamReader;
  /** Ends waiting connections at once and the others after their current answer. */
  close(): void;
  /** Ends all connections at once. */
  breakOff(): void;
}

export interface FirstConnection {
  readonly socket: Socket;
  /** Gives what arrives from now on to `receive`, until the connection is handed over or `release` is called. */
  readonly start: (receive: Receive) => void;
  /** From now on what arrives are `data` of the socket. */
  readonly release: () => void;
  /** The request did not arrive in time: answers 408 and ends the connection. */
  tooSlow(): void;
  /**
   * From now on node's parser reads the connection, beginning with these bytes that were received already. `headDueMs`:
   * when a head that is not complete must be, by the monotonic clock.
   */
  handOver(received: Buffer, headDueMs?: number): void;
}

export interface Listener {
  readonly port: number;
  readonly url: string;
  /**
   * Reads the certificate and its key again and uses them for new connections.
   * If they do not fit together, that is logged and the current ones stay.
   */
  renewCertificate(): void;
  /** May be called twice. */
  close(): Promise<void>;
}

export async function listen(options: ListenOptions): Promise<Listener> {
  const { limits } = options;
  const opened = openServer(options.tls, {
    maxHeaderSize: limits.headersMaxBytes,
    headersTimeout: Math.min(limits.headersWithinMs, limits.requestWithinMs),
    requestTimeout: limits.requestWithinMs,
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: Math.min(1_000, limits.headersWithinMs / 2),
    noDelay: true,
    keepAlive: true,
    // The guard answers this with a problem document.
    requireHostHeader: false,
  });
  const { server } = opened;
  server.maxConnections = limits.connectionsMax;
  // One more than is allowed, so that the guard sees the excess: node drops further fields silently.
  server.maxHeadersCount = limits.headersMaxCount + 1;
  server.timeout = limits.stalledMs;
  const onRefused = (reason: GuardReason): void => {
    options.log.debug({ reason }, 'the guard refused a request');
    options.onRefused?.(reason);
  };
  const turns = createTurns();
  const heads = createHeadDeadlines(server, options.clock, limits.headersWithinMs);
  const guard = guardServer(server, {
    limits,
    turns,
    heads,
    problem: options.problem ?? clientProblem,
    encrypted: opened.kind === 'tls',
    clock: options.clock,
    onRefused,
  });
  const openResponses = new Set<ServerResponse>();
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    track(request, response);
    if (guard.admit(request, response)) options.onRequest(request, response);
  };
  const onExpectation = (request: IncomingMessage, response: ServerResponse): void => {
    track(request, response);
    if (!guard.admit(request, response)) return;
    if (options.onExpectation !== undefined) {
      options.onExpectation(request, response);
      return;
    }
    response.writeContinue();
    options.onRequest(request, response);
  };
  // The guard refuses every other expectation.
  server.on('request', onRequest).on('checkContinue', onExpectation).on('checkExpectation', onRequest);
  const firstReader = options.firstReader?.(limits, options.clock);
  const speakHttp1 = readFirst(opened, guard, heads, firstReader);
  const sessions =
    opened.kind === 'tls'
      ? offerHttp2(opened.server, opened.tls, speakHttp1, {
          ...options,
          onRequest,
          onExpectation,
          onFlood: () => onRefused('flood'),
          ...(firstReader?.readStreams !== undefined && { readStreams: firstReader.readStreams }),
        })
      : undefined;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(whereToListen(options), resolve);
  });
  server.on('error', (error) => options.log.error({ error: error.message }, 'listener failed'));
  const address = server.address() as AddressInfo | string;
  let closing: Promise<void> | undefined;

  function track(request: IncomingMessage, response: ServerResponse): void {
    // Requests that still arrive on an open connection are answered, and then the connection ends.
    if (closing !== undefined) response.shouldKeepAlive = false;
    openResponses.add(response);
    if (!isHttp2(request)) {
      turns.add(request, response);
      heads.met(request.socket);
    }
    response.once('close', () => {
      openResponses.delete(response);
      // The head may have promised to keep the connection before closing began.
      if (closing !== undefined) setImmediate(() => server.closeIdleConnections());
    });
  }

  return {
    port: typeof address === 'string' ? 0 : address.port,
    url: urlOf(opened.kind === 'tls' ? 'https' : 'http', address),
    renewCertificate() {
      if (opened.kind === 'tls') renew(opened, options.log);
    },
    close() {
      closing ??= new Promise((resolve) => {
        const deadline = options.clock.after(limits.closeWithinMs, () => {
          server.closeAllConnections();
          sessions?.breakOff();
          firstReader?.breakOff();
        });
        server.close(() => {
          deadline.cancel();
          resolve();
        });
        server.closeIdleConnections();
        sessions?.close();
        firstReader?.close();
        for (const response of openResponses) response.shouldKeepAlive = false;
      });
      return closing;
    },
  };
}

/** `exclusive`: the socket is this process's own, also where it is one of several workers. */
function whereToListen({ host, port, path, reusePort = false }: ListenOptions): NetListenOptions {
  if (path !== undefined) return { path, exclusive: true };
  return { host, port, ...(reusePort && { reusePort: true }) };
}

function urlOf(scheme: string, address: AddressInfo | string): string {
  if (typeof address === 'string') return `unix:${address}`;
  const host = address.address.includes(':') ? `[${address.address}]` : address.address;
  return `${scheme}://${host}:${address.port}`;
}

type Opened =
  | { readonly kind: 'plain'; readonly server: Server }
  | {
      readonly kind: 'tls';
      readonly server: TlsServer;
      readonly tls: TlsConfig;
      /** The certificate and key in use. */
      shown: SecureContextOptions;
    };

function openServer(tls: TlsConfig | undefined, options: ServerOptions & { readonly headersTimeout: number }): Opened {
  const read = tls === undefined ? ({ kind: 'off' } as const) : readCertificate(tls);
  if (tls === undefined || read.kind === 'off') return { kind: 'plain', server: createServer(options) };
  if (read.kind === 'faulty')
    throw new Fault('internal', `The certificate for clients cannot be used: ${read.message}.`);
  const server = createTlsServer({
    ...options,
    ...read.context,
    ALPNProtocols: tls.http2 ? ['h2', 'http/1.1'] : ['http/1.1'],
    handshakeTimeout: options.headersTimeout,
  });
  return { kind: 'tls', server, tls, shown: read.context };
}

/** Returns what to do with an HTTP/1.1 connection: the first reader takes it, if there is one, otherwise node's parser. */
function readFirst(
  opened: Opened,
  guard: Guard,
  heads: HeadDeadlines,
  first: FirstReader | undefined,
): (socket: Socket) => void {
  const server: Server = opened.server;
  const event = opened.kind === 'tls' ? 'secureConnection' : 'connection';
  const [parse] = server.listeners(event) as ((socket: Socket) => void)[];
  if (parse === undefined) throw new Error(`node:http does not listen to ${event}`);
  const speak = (socket: Socket): void => {
    parse.call(server, socket);
    guard.watch(socket);
  };
  const take = (reading: Reading): void => {
    if (first === undefined || guard.hasRefused(reading.socket)) {
      reading.lend();
      speak(reading.socket);
    } else first.take(firstConnection(reading, heads, speak));
  };
  if (opened.kind === 'tls') {
    server.on('connection', (socket: Socket) => guard.meet(socket));
    return (socket) => take(unshared(socket));
  }
  server.off(event, parse).on(event, (accepted: Socket) => {
    const reading = shareReads(accepted);
    guard.meet(reading.socket);
    take(reading);
  });
  return speak;
}

function firstConnection(reading: Reading, heads: HeadDeadlines, speak: (socket: Socket) => void): FirstConnection {
  const { socket } = reading;
  return {
    ...reading,
    tooSlow() {
      // It has no other listener any more, and may be reset while it lingers.
      socket.on('error', () => undefined);
      heads.missed(socket);
    },
    handOver(received, headDueMs) {
      socket.pause();
      reading.lend();
      if (received.length > 0) socket.unshift(received);
      speak(socket);
      if (headDueMs !== undefined) heads.set(socket, headDueMs);
      socket.resume();
    },
  };
}

/** Chooses HTTP/2 or HTTP/1.1 by what was agreed in the TLS handshake (RFC 7301). */
function offerHttp2(
  server: TlsServer,
  tls: TlsConfig,
  speakHttp1: (socket: Socket) => void,
  options: Omit<SessionsOptions, 'streamsMax' | 'interruptionsMax'>,
): Sessions {
  const sessions = openSessions({ ...options, streamsMax: tls.streamsMax, interruptionsMax: tls.interruptionsMax });
  server.removeAllListeners('secureConnection');
  server.on('secureConnection', (socket: TLSSocket) => {
    if (socket.alpnProtocol === 'h2') sessions.take(socket);
    else speakHttp1(socket);
  });
  return sessions;
}

function renew(opened: Opened & { readonly kind: 'tls' }, log: Log): void {
  const read = readCertificate(opened.tls);
  if (read.kind !== 'read') {
    const reason = read.kind === 'faulty' ? read.message : 'the configuration names no files';
    log.error({ reason }, 'the changed certificate is refused; the current one stays');
    return;
  }
  const { fingerprint256, validTo } = read.certificate;
  if (isDeepStrictEqual(read.context, opened.shown)) return;
  opened.server.setSecureContext(read.context);
  opened.shown = read.context;
  log.info({ fingerprint256, validTo }, 'a new certificate is in use for clients');
}
