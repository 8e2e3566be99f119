/**
 * Stands before the handlers of a node:http server: counts connections by
 * client, refuses requests whose head does not pass inspection, answers requests
 * that the parser could not read, and closes the connection after each refusal.
 * The requests before a refused one get their answers first (RFC 9112 9.3.2).
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import type { Clock } from '../clock.js';
import { errorCode, Fault, type FaultCode } from '../errors.js';
import { formatHttpDate } from '../http/date.js';
import type { Reply } from '../http/reply.js';
import type { Metrics } from '../metrics.js';
import type { HeadDeadlines } from './head-deadlines.js';
import { isHttp2 } from './http2.js';
import {
  clientNetwork,
  type HygieneReason,
  type InspectionLimits,
  inspect,
  inspectHttp2,
  parserFault,
} from './hygiene.js';
import { type BodyFraming, RequestLines } from './request-lines.js';
import type { Turns } from './turns.js';

export type GuardReason = HygieneReason | 'connections' | 'connect' | 'unreadable' | 'slow' | 'handshake' | 'flood';

export interface GuardOptions {
  readonly limits: InspectionLimits & {
    /** Connections of one client; 0: any number. */
    readonly connectionsPerClientMax: number;
  };
  /** Whether connections begin with a TLS handshake. No answer can be sent before it. */
  readonly encrypted: boolean;
  readonly clock: Clock;
  readonly turns: Turns;
  readonly heads: HeadDeadlines;
  /** How a refusal looks on this listener. */
  problem(fault: Fault): Reply;
  /** Is told why something was refused. */
  onRefused(reason: GuardReason): void;
}

export interface Guard {
  /** Must be called with each connection, before its first byte is read. Counts it and may refuse it. */
  meet(socket: Socket): void;
  /** False: the request was refused and answered. */
  admit(request: IncomingMessage, response: ServerResponse): boolean;
  /** Whether the connection was refused: what still arrives on it must not be read as requests. */
  hasRefused(socket: Duplex): boolean;
  /** Must be called when node's parser begins to read a connection: request lines are checked as they were sent. */
  watch(socket: Socket): void;
}

/** Counts refusals by their reason. To be made once per process. */
export function countRefusals(metrics: Metrics): (reason: GuardReason) => void {
  const refused = metrics.counter(
    'http_refused_total',
    'Requests and connections that were refused before they reached a handler, by reason.',
    ['reason'],
  );
  return (reason) => refused.add(1, { reason });
}

/** How long a refused connection stays open, so that its client can read the answer. */
const LINGER_MS = 1_000;

export function guardServer(server: Server, options: GuardOptions): Guard {
  const { limits, clock, heads, turns } = options;
  const onRefused = (reason: GuardReason): void => options.onRefused(reason);
  const refused = new WeakSet<Duplex>();
  const lines = new WeakMap<Duplex, RequestLines>();
  const replyOf = (code: FaultCode, detail: string, headers: Readonly<Record<string, string>> = {}): Reply =>
    lastReply(options.problem(new Fault(code, detail, { headers })), clock);

  /** Refuses what has no response object: answers on the bare connection and ends it. */
  function refuse(socket: Duplex, reply: Reply): void {
    refused.add(socket);
    turns.afterWhole(socket, () => end(socket, reply));
  }

  function end(socket: Duplex, reply: Reply): void {
    const last = turns.last(socket);
    // The fault is in the body of this request. Once its answer has begun, no other can follow.
    const answered = last !== undefined && !last.request.complete && last.response.headersSent;
    if (!socket.writable || (answered && !last.response.writableEnded)) {
      socket.destroy();
      return;
    }
    const timer = clock.after(LINGER_MS, () => socket.destroy());
    socket.once('close', () => timer.cancel());
    if (answered) socket.end();
    else socket.end(rawReply(reply));
  }

  const meet = clientCount(limits.connectionsPerClientMax, (socket) => {
    onRefused('connections');
    if (options.encrypted) socket.destroy();
    else refuse(socket, replyOf('overloaded', 'There are too many connections from this client.'));
  });
  server.on('clientError', (error, socket) => {
    if (refused.has(socket)) return;
    const code = errorCode(error) ?? '';
    if (code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    if (options.encrypted && isHandshakeFailure(error, socket)) {
      onRefused('handshake');
      socket.destroy();
      return;
    }
    // Every other error is that of a connection which is broken, perhaps by this process.
    if (!code.startsWith('HPE_') && code !== 'ERR_HTTP_REQUEST_TIMEOUT') {
      socket.destroy();
      return;
    }
    const lineTooLong = (lines.get(socket)?.lineBytes ?? 0) >= limits.headersMaxBytes;
    const fault = parserFault(code, lineTooLong);
    onRefused(fault.code === 'request_timeout' ? 'slow' : 'unreadable');
    refuse(socket, replyOf(fault.code, fault.detail));
  });
  // RFC 9110 9.3.6: this server is not a proxy.
  server.on('connect', (_request, socket) => {
    onRefused('connect');
    refuse(socket, replyOf('method_not_allowed', 'CONNECT is not allowed here.', { allow: 'GET, HEAD, OPTIONS' }));
  });

  /** Only the stream is refused: other streams of its connection are framed independently. */
  function admitHttp2(request: IncomingMessage, response: ServerResponse): boolean {
    const { method = '', url: target = '', rawHeaders } = request;
    if (method === 'CONNECT') {
      onRefused('connect');
      answer(response, replyOf('method_not_allowed', 'CONNECT is not allowed here.', { allow: 'GET, HEAD, OPTIONS' }));
      return false;
    }
    const seen = inspectHttp2({ method, target, rawHeaders }, limits);
    if (seen.kind === 'ok') return true;
    onRefused(seen.reason);
    answer(response, replyOf(seen.code, seen.detail));
    return false;
  }

  return {
    meet,
    hasRefused: (socket) => refused.has(socket),
    watch(socket) {
      const watched = new RequestLines();
      lines.set(socket, watched);
      socket.prependListener('data', (bytes: Buffer) => {
        watched.push(bytes);
        if (watched.inHead) heads.begin(socket);
      });
      socket.once('close', () => heads.met(socket));
    },
    admit(request, response) {
      if (isHttp2(request)) return admitHttp2(request, response);
      const { socket } = request;
      if (refused.has(socket)) return false;
      const { method = '', url: target = '', httpVersion, rawHeaders } = request;
      const regularLine = lines.get(socket)?.next(framingOf(request));
      const seen = inspect({ method, target, httpVersion, rawHeaders, regularLine }, limits);
      if (seen.kind === 'ok') {
        // RFC 9110 7.8: an upgrade may be ignored. The parser stops reading after one, so the connection ends with it.
        if (request.headers.upgrade !== undefined) response.shouldKeepAlive = false;
        return true;
      }
      // Two readers could disagree about where this request ends, so what follows it is not read.
      refused.add(socket);
      onRefused(seen.reason);
      answer(response, replyOf(seen.code, seen.detail));
      return false;
    },
  };
}

function answer(response: ServerResponse, reply: Reply): void {
  response.writeHead(reply.status, reply.headers.flat());
  response.end(bytesOf(reply));
}

function framingOf({ headers }: IncomingMessage): BodyFraming {
  if (headers['transfer-encoding'] !== undefined) return { kind: 'chunked' };
  const length = headers['content-length'];
  return length === undefined ? { kind: 'none' } : { kind: 'length', sizeBytes: Number(length) };
}

/** TLS failures come through the same event as requests that the parser refuses. */
function isHandshakeFailure(error: Error, socket: Duplex): boolean {
  const code = errorCode(error) ?? '';
  return /^(?:ERR_SSL|ERR_TLS|EPROTO)/.test(code) || !(socket instanceof TLSSocket) || socket.getProtocol() === null;
}

/** Returns what counts a new connection. */
function clientCount(max: number, onTooMany: (socket: Socket) => void): (socket: Socket) => void {
  if (max === 0) return () => undefined;
  const counts = new Map<string, number>();
  return (socket) => {
    const client = clientNetwork(socket.remoteAddress ?? '');
    const count = counts.get(client) ?? 0;
    if (count >= max) {
      // A refused connection is not counted while it lingers, or a client that tries again would lock itself out.
      onTooMany(socket);
      return;
    }
    counts.set(client, count + 1);
    socket.once('close', () => {
      const left = (counts.get(client) ?? 1) - 1;
      if (left === 0) counts.delete(client);
      else counts.set(client, left);
    });
  };
}

/** Adds what the last answer of a connection says. RFC 9110 6.6.1: a refusal has a Date. */
function lastReply(reply: Reply, clock: Clock): Reply {
  const length = ['content-length', String(bytesOf(reply).byteLength)] as const;
  const date = ['date', formatHttpDate(clock.now())] as const;
  return { ...reply, headers: [...reply.headers, length, date, ['connection', 'close']] };
}

function bytesOf({ body }: Reply): Uint8Array {
  return body.kind === 'bytes' ? body.bytes : new Uint8Array(0);
}

/** For a connection that has no response object. */
function rawReply(reply: Reply): Buffer {
  const fields = reply.headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  return Buffer.concat([Buffer.from(`HTTP/1.1 ${reply.status} Refused\r\n${fields}\r\n`, 'latin1'), bytesOf(reply)]);
}
