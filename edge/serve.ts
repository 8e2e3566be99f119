/**
 * Between node:http and the story: makes an Ask of a request, writes what the
 * story answers, counts and logs how it ended. The only file of the engine that
 * sees node's request and response objects.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { sharedController } from '../src/abort.js';
import type { Clock } from '../src/clock.js';
import { Fault, faultOf } from '../src/errors.js';
import { forwardsInterim } from '../src/http/fields.js';
import type { Health } from '../src/http/health.js';
import { sentMeter } from '../src/http/http2.js';
import { problemReply } from '../src/http/problem.js';
import type { HeaderList, Reply } from '../src/http/reply.js';
import { isAtHand, send, sendNow } from '../src/http/send.js';
import type { MediaId } from '../src/ids.js';
import { errorFields, type Log, loggable } from '../src/log.js';
import { type Ask, keepRequestId, splitTarget } from './ask.js';
import type { Answer, Leaving } from './engine.js';
import type { Outcome, Tally } from './ops/stats.js';
import type { Pass } from './pass.js';
import type { Uses } from './uses.js';

export interface ServeParts {
  /** The story. */
  handle(ask: Ask, leaving: Leaving): Answer | Promise<Answer>;
  readonly health: Health;
  readonly pass: Pass;
  readonly tally: Tally;
  readonly uses: Pick<Uses, 'note'>;
  readonly departures: Departures;
  readonly clock: Clock;
  readonly log: Log;
  readonly requestLog: 'all' | 'failed' | 'none';
  newRequestId(): string;
  /** Whose request it is, after trusted proxies were taken into account. */
  addressOf(request: IncomingMessage): string;
}

export interface Server {
  onRequest(request: IncomingMessage, response: ServerResponse): void;
  /** Breaks off everything in hand. */
  close(): void;
}

export function createServer(parts: ServeParts): Server {
  const closing = sharedController();

  /** An answer that is at hand goes out without a promise or a signal. */
  function write(exchange: Exchange, given: Answer): Promise<void> | undefined {
    const { ask, request, response } = exchange;
    exchange.outcome = given.outcome;
    if (given.kind === 'pass') {
      return parts.pass.handle(request, response, {
        requestId: ask.requestId,
        clientAddress: parts.addressOf(request),
        signal: closing.signal,
      });
    }
    parts.uses.note(given);
    if (!isAtHand(given.reply, request)) return send(given.reply, request, response, exchange.leaving());
    if (response.destroyed) return undefined;
    sendNow(given.reply, request, response);
    if (given.mediaId !== null && response.writableLength > 0) parts.departures.hold(given.mediaId, response);
    return undefined;
  }

  async function writeLater(exchange: Exchange, answer: Promise<Answer>): Promise<void> {
    try {
      await write(exchange, await answer);
    } catch (thrown) {
      fail(exchange, thrown, parts);
    }
  }

  return {
    onRequest(request, response) {
      const exchange = new Exchange(request, response, parts);
      response.once('close', () => exchange.end(parts));
      try {
        const own = malformed(exchange.ask) ?? healthOf(exchange.ask, parts.health);
        const answer = own ?? parts.handle(exchange.ask, exchange);
        if (answer instanceof Promise) void writeLater(exchange, answer);
        else write(exchange, answer)?.catch((thrown: unknown) => fail(exchange, thrown, parts));
      } catch (thrown) {
        fail(exchange, thrown, parts);
      }
    },
    close: () => closing.abort(new Fault('overloaded', 'The edge is stopping.')),
  };
}

/** RFC 9112 3.2: a target is in origin form, absolute form, or `*` for OPTIONS; nothing else is forwarded. */
function malformed(ask: Ask): Answer | undefined {
  if (ask.target.startsWith('/') || (ask.target === '*' && ask.method === 'OPTIONS')) return undefined;
  const fault = new Fault('malformed', 'The request target is malformed.');
  return { kind: 'reply', reply: problemReply(fault), outcome: 'refused', mediaId: null };
}

/** The edge's own state is the edge's to tell, whatever is behind it. */
function healthOf(ask: Ask, health: Health): Answer | Promise<Answer> | undefined {
  if (ask.method !== 'GET' && ask.method !== 'HEAD') return undefined;
  if (ask.path === '/healthz') return ownAnswer(health.live());
  if (ask.path === '/readyz') return health.ready().then(ownAnswer);
  return undefined;
}

function ownAnswer(reply: Reply): Answer {
  return { kind: 'reply', reply, outcome: 'own', mediaId: null };
}

/** One request and its answer. Signals are made only for those who ask for one: a memory hit does not. */
class Exchange implements Leaving {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly ask: Ask;
  outcome: Outcome = 'failed';
  readonly #startedMs: number;
  readonly #sentBytes: () => number;
  #leaving: AbortController | undefined;

  constructor(request: IncomingMessage, response: ServerResponse, parts: Pick<ServeParts, 'clock' | 'newRequestId'>) {
    this.request = request;
    this.response = response;
    this.ask = askOf(request, response, parts);
    this.#startedMs = parts.clock.monotonicMs();
    this.#sentBytes = sentMeter(request, response);
  }

  leaving(): AbortSignal {
    if (this.#leaving === undefined) {
      this.#leaving = new AbortController();
      if (this.response.destroyed || this.response.closed) this.#leaving.abort(CLIENT_LEFT);
    }
    return this.#leaving.signal;
  }

  end({ tally, clock, log, requestLog }: ServeParts): void {
    this.#leaving?.abort(CLIENT_LEFT);
    const sentBytes = this.#sentBytes();
    tally.count(this.outcome, sentBytes);
    const status = this.response.headersSent ? this.response.statusCode : 0;
    if (requestLog === 'none' || (requestLog === 'failed' && status < 500 && status !== 0)) return;
    log.info(
      {
        requestId: this.ask.requestId,
        method: this.ask.method,
        target: loggable(this.ask.target),
        status,
        outcome: this.outcome,
        sentBytes,
        complete: this.response.writableFinished,
        tookMs: Math.round(clock.monotonicMs() - this.#startedMs),
      },
      'request',
    );
  }
}

/** The client is gone, or has all it wanted. One for all: it says nothing of who. */
const CLIENT_LEFT = new Error('the exchange with the client is over');

function askOf(
  request: IncomingMessage,
  response: ServerResponse,
  { clock, newRequestId }: Pick<ServeParts, 'clock' | 'newRequestId'>,
): Ask {
  const target = originForm(request.url ?? '');
  const { path, query } = splitTarget(target);
  const { headers } = request;
  return {
    method: request.method ?? '',
    target,
    path,
    query,
    header(name) {
      const value = headers[name];
      return Array.isArray(value) ? value.join(', ') : value;
    },
    fields: () => fieldsOf(request.rawHeaders),
    inform: (status, fields) => inform(request, response, status, fields),
    receivedAt: clock.now(),
    requestId: keepRequestId(oneOf(headers['x-request-id'])) ?? newRequestId(),
  };
}

/** Node can send two kinds of interim answer; others are left out, as RFC 9110 15.2 lets a proxy do that could not otherwise. */
function inform(request: IncomingMessage, response: ServerResponse, status: number, fields: HeaderList): void {
  const { httpVersion } = request;
  const protocol = httpVersion === '1.0' ? '1.0' : '1.1';
  if (!forwardsInterim(status, protocol) || response.headersSent || response.destroyed) return;
  if (status === 102) response.writeProcessing();
  const links = fields.filter(([name]) => name === 'link').map(([, value]) => value);
  if (status === 103 && links.length > 0) response.writeEarlyHints({ link: links });
}

/** RFC 9112 3.2.2: a server accepts the absolute form too. Whose authority it names is the listener's affair. */
function originForm(target: string): string {
  const match = /^https?:\/\/[^/?#]*(\/[^#]*|\?[^#]*)?$/i.exec(target);
  if (match === null) return target;
  const rest = match[1] ?? '/';
  return rest.startsWith('/') ? rest : `/${rest}`;
}

function oneOf(value: string | string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function fieldsOf(raw: readonly string[]): HeaderList {
  const fields: [string, string][] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) fields.push([(raw[at] ?? '').toLowerCase(), raw[at + 1] ?? '']);
  return fields;
}

/**
 * Answers that went out in one write and leave the process only as fast as
 * their clients read: what they show can still be taken down.
 */
export interface Departures {
  hold(id: MediaId, response: ServerResponse): void;
  breakOff(id: MediaId): void;
  breakOffAll(): void;
}

export function createDepartures(): Departures {
  const held = new Map<MediaId, Set<ServerResponse>>();
  const cut = (responses: Iterable<ServerResponse>): void => {
    for (const response of responses) response.destroy();
  };
  return {
    hold(id, response) {
      const responses = held.get(id) ?? new Set();
      held.set(id, responses.add(response));
      response.once('close', () => {
        responses.delete(response);
        if (responses.size === 0 && held.get(id) === responses) held.delete(id);
      });
    },
    breakOff: (id) => cut(held.get(id) ?? []),
    breakOffAll() {
      for (const responses of held.values()) cut(responses);
    },
  };
}

/** The one place where a failure of the edge becomes an answer, or a broken connection where one has begun. */
function fail(exchange: Exchange, thrown: unknown, { log }: Pick<ServeParts, 'log'>): void {
  const { response, ask } = exchange;
  const gone = response.destroyed || response.closed;
  if (!gone && !response.headersSent) {
    const fault = faultOf(thrown);
    if (fault.side === 'self') log.error({ requestId: ask.requestId, ...errorFields(thrown) }, 'a request failed');
    exchange.outcome = 'failed';
    writeNow(problemReply(fault), ask, response);
    return;
  }
  if (!gone) response.destroy();
  log.debug({ requestId: ask.requestId, ...errorFields(thrown) }, 'an answer was broken off');
}

function writeNow(reply: Reply, ask: Ask, response: ServerResponse): void {
  response.writeHead(reply.status, [...reply.headers, ['x-request-id', ask.requestId]].flat());
  response.end(reply.body.kind === 'bytes' && ask.method !== 'HEAD' ? reply.body.bytes : undefined);
}
