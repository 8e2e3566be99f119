/**
 * Between node:http and the story: makes an Ask of a request and writes what the
 * story answers. The only file of the engine that sees node's request and
 * response objects; what is plain goes by the fast lane and never comes here.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { sharedController } from '../../src/abort.js';
import { Fault } from '../../src/errors.js';
import { forwardsInterim } from '../../src/http/fields.js';
import { header, originForm, rawFields, requestId, splitTarget } from '../../src/http/head.js';
import type { HeaderList } from '../../src/http/reply.js';
import { errorFields } from '../../src/log.js';
import { sentMeter } from '../../src/server/http2.js';
import { isAtHand, send, sendNow } from '../../src/server/send.js';
import { REQUEST_ID } from '../../src/wire.js';
import type { Answer, Leaving } from '../answer.js';
import type { Outcome } from '../ops/tally.js';
import type { Pass } from '../pass/pass.js';
import type { Ask } from '../request.js';
import type { Uses } from '../use-reports.js';
import { account, answerTo, CLIENT_LEFT, type ExchangeParts, failureReply } from './exchange.js';
import type { Departures } from './outgoing.js';

export interface ServeParts extends ExchangeParts {
  readonly pass: Pass;
  readonly uses: Pick<Uses, 'note'>;
  readonly departures: Departures;
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
    if (given.mediaId !== null && response.writableLength > 0) {
      response.once('close', parts.departures.hold(given.mediaId, response));
    }
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
        const answer = answerTo(parts, exchange.ask, exchange);
        if (answer instanceof Promise) void writeLater(exchange, answer);
        else write(exchange, answer)?.catch((thrown: unknown) => fail(exchange, thrown, parts));
      } catch (thrown) {
        fail(exchange, thrown, parts);
      }
    },
    close: () => closing.abort(new Fault('overloaded', 'The edge is stopping.')),
  };
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

  end(parts: ServeParts): void {
    this.#leaving?.abort(CLIENT_LEFT);
    const { response, outcome } = this;
    account(parts, this.ask, {
      outcome,
      status: response.headersSent ? response.statusCode : 0,
      sentBytes: this.#sentBytes(),
      complete: response.writableFinished,
      tookMs: parts.clock.monotonicMs() - this.#startedMs,
    });
  }
}

function askOf(
  request: IncomingMessage,
  response: ServerResponse,
  { clock, newRequestId }: Pick<ServeParts, 'clock' | 'newRequestId'>,
): Ask {
  const { target } = originForm(request.url ?? '');
  const { path, query } = splitTarget(target);
  const { headers } = request;
  return {
    method: request.method ?? '',
    target,
    path,
    query,
    header: (name) => header(headers, name),
    fields: () => rawFields(request.rawHeaders),
    inform: (status, fields) => inform(request, response, status, fields),
    receivedAt: clock.now(),
    requestId: requestId(header(headers, REQUEST_ID)) ?? newRequestId(),
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

/** A failure becomes an answer, or a broken connection where one has begun. */
function fail(exchange: Exchange, thrown: unknown, parts: Pick<ServeParts, 'log'>): void {
  const { request, response, ask } = exchange;
  const gone = response.destroyed || response.closed;
  if (!gone && !response.headersSent) {
    exchange.outcome = 'failed';
    sendNow(failureReply(ask, thrown, parts), request, response);
    return;
  }
  if (!gone) response.destroy();
  parts.log.debug({ requestId: ask.requestId, ...errorFields(thrown) }, 'an answer was broken off');
}
