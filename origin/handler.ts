/**
 * Between node:http and the stories: makes an OriginRequest of what arrived,
 * finds its row, turns whatever is thrown into the one answer that may be told,
 * and gives every answer what every answer has. The only place in the origin
 * that sees a server's request object, but for the journal stream.
 */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { sharedController } from '../src/abort.js';
import { EDGE_PROOF_HEADER, isEdgeProof } from '../src/access/edge-proof.js';
import type { Clock } from '../src/clock.js';
import { duration, section, size, type ValueOf } from '../src/config/field.js';
import { FAULTS, Fault, faultOf } from '../src/errors.js';
import { CORS_HEADERS, GUARD_HEADERS, preflightReply } from '../src/http/browser.js';
import { problemReply } from '../src/http/problem.js';
import { type HeaderList, headerOf, type Reply } from '../src/http/reply.js';
import { createMatcher, type Route, type RouteMatch } from '../src/http/routes.js';
import { send } from '../src/http/send.js';
import { bugFields, errorFields, type Log, type LogConfig, type LogFields, loggable } from '../src/log.js';
import type { CounterOf, HistogramOf, Metrics } from '../src/metrics.js';
import { drainedReply } from './drain.js';
import type { Limits } from './limits.js';
import type { OriginRequest, Sender } from './request.js';

export const drainSection = section(
  'What becomes of a body that is refused: it is read on, so that the answer arrives.',
  {
    sizeMaxBytes: size({
      default: '64MB',
      min: 0,
      help: 'Bytes that are read and dropped before the connection is cut.',
    }),
    withinMs: duration({ default: '10s', min: 0, help: 'Time for that.' }),
  },
);

export interface HandlerParts {
  readonly routes: readonly Route<OriginRequest>[];
  /** What edges ask for: undefined where the request is none of that, a promise of nothing where it writes its answer itself. */
  internal(raw: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<Reply | undefined> | undefined;
  addressOf(request: IncomingMessage): string;
  readonly limits: Limits;
  readonly edgeSecret: string;
  readonly drain: ValueOf<typeof drainSection>;
  readonly requests: LogConfig['requests'];
  readonly counts: RequestCounts;
  readonly clock: Clock;
  readonly log: Log;
}

export interface RequestCounts {
  readonly requests: CounterOf<'route' | 'method' | 'status'>;
  readonly seconds: HistogramOf<'route'>;
}

export function requestCounts(metrics: Metrics): RequestCounts {
  return {
    requests: metrics.counter('requests_total', 'Requests by route and status.', ['route', 'method', 'status']),
    seconds: metrics.histogram(
      'request_seconds',
      'Time from the head of a request to the end of its answer.',
      [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30],
      ['route'],
    ),
  };
}

export interface Handler {
  /** `waits`: the client sends its body once it is told to (RFC 9110 10.1.1). */
  take(raw: IncomingMessage, response: ServerResponse, body: 'sends' | 'waits'): void;
  /** Breaks off what is in hand, and resolves when the last of it has ended. */
  close(): Promise<void>;
}

export function createHandler(parts: HandlerParts): Handler {
  const match = createMatcher(parts.routes);
  const closing = sharedController();
  const { counts } = parts;
  const inHand = new Set<Promise<void>>();

  async function handle(raw: IncomingMessage, response: ServerResponse, expects: boolean): Promise<void> {
    const exchange = openExchange(parts, raw, response, expects, closing.signal);
    const { request, signal } = exchange;
    let pattern = 'none';
    let status = 0;
    let fault: Fault | undefined;
    try {
      const found = match(request.method, request.path);
      const story = async (): Promise<Reply | undefined> => {
        const internal = parts.internal(raw, response, signal);
        if (internal !== undefined) pattern = 'internal';
        else if (found.kind === 'found') pattern = found.route.pattern;
        return await (internal ?? runRoute(found, request));
      };
      const reply = await story().catch((thrown: unknown) => {
        if (response.headersSent) throw thrown;
        fault = faultOf(thrown);
        return problemReply(fault);
      });
      if (reply === undefined) {
        status = response.statusCode;
        return;
      }
      status = reply.status;
      await exchange.answer(reply);
    } catch (thrown) {
      // Before the head went out there still is somebody to tell; after it the connection has been broken off.
      if (response.headersSent || response.destroyed) {
        exchange.note({ broken: true, ...(!signal.aborted && { why: errorFields(thrown)['error'] }) });
        response.destroy();
      } else {
        fault = faultOf(thrown);
        status = fault.status;
        await exchange.answer(problemReply(fault)).catch(() => response.destroy());
      }
    } finally {
      const seconds = exchange.elapsedMs() / 1_000;
      counts.requests.add(1, { route: pattern, method: countedMethod(request.method), status: String(status) });
      counts.seconds.observe(seconds, { route: pattern });
      exchange.log(status, fault);
      exchange.close();
    }
  }

  return {
    take(raw, response, body) {
      const handling = handle(raw, response, body === 'waits').finally(() => inHand.delete(handling));
      inHand.add(handling);
    },
    async close() {
      closing.abort(new Fault('overloaded', 'The service is stopping.'));
      await Promise.allSettled(inHand);
    },
  };
}

async function runRoute(found: RouteMatch<OriginRequest>, request: OriginRequest): Promise<Reply> {
  switch (found.kind) {
    case 'found':
      if (found.route.audience !== 'anyone') request.meter.address();
      return await found.route.run(request, found.segments, request.query);
    case 'method': {
      const allowed = [...found.allowed, 'OPTIONS'];
      if (request.method === 'OPTIONS') return preflightReply(allowed);
      throw new Fault('method_not_allowed', `The path knows ${allowed.join(', ')}.`, {
        headers: { allow: allowed.join(', ') },
      });
    }
    case 'none':
      throw new Fault('not_found', 'There is nothing at this path.');
  }
}

interface Exchange {
  readonly request: OriginRequest;
  readonly signal: AbortSignal;
  answer(reply: Reply): Promise<void>;
  note(fields: LogFields): void;
  elapsedMs(): number;
  log(status: number, fault: Fault | undefined): void;
  close(): void;
}

function openExchange(
  parts: HandlerParts,
  raw: IncomingMessage,
  response: ServerResponse,
  expects: boolean,
  closing: AbortSignal,
): Exchange {
  const { clock } = parts;
  const startedMs = clock.monotonicMs();
  const sentBefore = raw.socket.bytesWritten;
  const leaving = new AbortController();
  const onClosing = (): void => leaving.abort(closing.reason);
  if (closing.aborted) onClosing();
  closing.addEventListener('abort', onClosing, { once: true });
  response.once('close', () => leaving.abort(new Error('the client left')));
  // Its errors are told by the streams that read it; without a listener they would end the process.
  raw.on('error', () => undefined);

  const notes: Record<string, unknown> = {};
  const id = requestId(raw.headers['x-request-id']);
  const target = originForm(raw.url ?? '/');
  const mark = target.indexOf('?');
  let invited = !expects;
  const sender = senderOf(raw, parts.edgeSecret);
  const address = parts.addressOf(raw);
  const request: OriginRequest = {
    id,
    method: raw.method ?? 'GET',
    path: mark < 0 ? target : target.slice(0, mark),
    query: mark < 0 ? '' : target.slice(mark + 1),
    sender,
    address,
    receivedAt: clock.now(),
    signal: leaving.signal,
    header(name) {
      const value = raw.headers[name];
      return Array.isArray(value) ? value.join(', ') : value;
    },
    body: {
      sizeBytes: bodySize(raw),
      open() {
        if (!invited) response.writeContinue();
        invited = true;
        return raw;
      },
    },
    meter: sender === 'client' ? parts.limits.meter(address) : parts.limits.unlimited,
    note: (fields) => void Object.assign(notes, fields),
  };

  return {
    request,
    signal: leaving.signal,
    note: (fields) => request.note(fields),
    elapsedMs: () => clock.monotonicMs() - startedMs,
    async answer(reply) {
      // A response that was closed before tells nobody when it ends.
      leaving.signal.throwIfAborted();
      const dressed = {
        ...reply,
        headers: [
          ...reply.headers,
          ['x-request-id', id],
          ...request.meter.headers(),
          ...(headerOf(reply.headers, 'access-control-allow-origin') === undefined ? CORS_HEADERS : []),
          ...GUARD_HEADERS,
        ],
      } as const;
      const pending = invited ? drainedReply(dressed, raw, parts.drain, clock) : closeAfter(dressed, raw);
      await send(pending, raw, response, leaving.signal);
    },
    log(status, fault) {
      const lasted = clock.monotonicMs() - startedMs;
      const fields = {
        request: id,
        method: request.method,
        target: loggable(raw.url ?? ''),
        status,
        ...(fault !== undefined && { code: fault.code }),
        sender: request.sender,
        address: request.address,
        bytes: raw.socket.bytesWritten - sentBefore,
        ms: Math.round(lasted * 10) / 10,
        ...notes,
      };
      if (fault !== undefined && FAULTS[fault.code].side !== 'client') {
        parts.log.error({ ...fields, ...bugFields(fault.cause ?? fault) }, 'a request failed');
      } else if (parts.requests === 'all' || (parts.requests === 'failed' && status >= 500)) {
        parts.log.info(fields, 'request');
      }
    },
    close() {
      closing.removeEventListener('abort', onClosing);
    },
  };
}

const REQUEST_ID = /^[A-Za-z0-9_-]{8,64}$/;

function requestId(given: string | string[] | undefined): string {
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomBytes(12).toString('base64url');
}

/** RFC 9112 3.2.2: a server takes the absolute form too. What else a target may be stays as it is, and finds no row. */
function originForm(target: string): string {
  const match = /^https?:\/\/[^/?#]+(.*)$/i.exec(target);
  if (match === null) return target;
  const rest = match[1] ?? '';
  return rest.startsWith('/') ? rest : `/${rest}`;
}

function senderOf(raw: IncomingMessage, edgeSecret: string): Sender {
  const proof = raw.headers[EDGE_PROOF_HEADER];
  if (!isEdgeProof(Array.isArray(proof) ? undefined : proof, edgeSecret)) return 'client';
  return raw.headers['media-caller'] === 'anonymous' ? 'edge_for_anonymous' : 'edge';
}

function bodySize(raw: IncomingMessage): number | null {
  if (raw.headers['transfer-encoding'] !== undefined) return null;
  const length = raw.headers['content-length'];
  return length === undefined ? 0 : Number(length);
}

/** RFC 9110 10.1.1: nobody knows whether the body still comes, so nothing can follow on this connection. */
function closeAfter(reply: Reply, raw: IncomingMessage): Reply {
  return raw.complete ? reply : { ...reply, headers: [...reply.headers, ['connection', 'close']] satisfies HeaderList };
}

const COUNTED = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** Labels are a closed list. */
function countedMethod(method: string): string {
  return COUNTED.has(method) ? method : 'other';
}
