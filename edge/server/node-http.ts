/**
 * The edge's server on node:http and HTTP/2: makes an EdgeRequest of each
 * request, has it answered, and writes the answer. No other file of the edge
 * reads node's request and response objects, except what passes requests on
 * (edge/pass). Plain requests are answered by the fast lane and do not come here.
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
import type { Behind } from '../journal/behind.js';
import type { Links } from '../links.js';
import type { Pass } from '../pass/pass.js';
import type { Answer, EdgeRequest, Outcome } from '../request.js';
import { account, answerTo, failureReply, LazyClientSignal, type ServerDeps, schemeOf } from './exchange.js';

export interface NodeServerDeps extends ServerDeps {
  readonly pass: Pass;
  /** Answers the edges behind this one; null in generic mode. */
  readonly behind: Pick<Behind, 'handle'> | null;
  /** Signs links; null in generic mode. */
  readonly links: Pick<Links, 'answer'> | null;
}

export interface Server {
  onRequest(incoming: IncomingMessage, response: ServerResponse): void;
  /** Ends the requests that are being passed on. */
  close(): void;
}

export function createServer(deps: NodeServerDeps): Server {
  const closing = sharedController();

  /** Returns undefined if the answer is complete already: a reply without a stream needs no promise. */
  function write(exchange: NodeExchange, answer: Answer): Promise<void> | undefined {
    const { request, incoming, response } = exchange;
    exchange.decide(answer, deps.clock.monotonicMs());
    if (answer.kind === 'pass') {
      return deps.pass.handle(incoming, response, {
        requestId: request.requestId,
        trace: request.trace,
        sender: answer.sender,
        clientAddress: deps.addressOf(incoming),
        signal: closing.signal,
      });
    }
    if (answer.kind === 'of_edge') return writeToEdge(exchange);
    if (answer.kind === 'links') return writeLinks(exchange);
    deps.uses.note(answer);
    if (!isAtHand(answer.reply, incoming)) return send(answer.reply, incoming, response, exchange.gone());
    if (response.destroyed) return undefined;
    sendNow(answer.reply, incoming, response);
    if (answer.mediaId !== null && response.writableLength > 0) {
      response.once('close', deps.outgoing.add(answer.mediaId, response));
    }
    return undefined;
  }

  async function writeToEdge(exchange: NodeExchange): Promise<void> {
    const { incoming, response } = exchange;
    const reply = await deps.behind?.handle(incoming, response, closing.signal);
    if (reply !== undefined) await send(reply, incoming, response, exchange.gone());
  }

  async function writeLinks(exchange: NodeExchange): Promise<void> {
    const { request, incoming, response } = exchange;
    const signal = AbortSignal.any([closing.signal, exchange.gone()]);
    const reply = await deps.links?.answer(incoming, response, request.requestId, signal);
    if (reply !== undefined) await send(reply, incoming, response, exchange.gone());
  }

  async function writeLater(exchange: NodeExchange, answer: Promise<Answer>): Promise<void> {
    try {
      await write(exchange, await answer);
    } catch (thrown) {
      fail(exchange, thrown, deps);
    }
  }

  return {
    onRequest(incoming, response) {
      const exchange = new NodeExchange(incoming, response, deps);
      response.once('close', () => exchange.end(deps));
      try {
        const answer = answerTo(deps, exchange.request, exchange);
        if (answer instanceof Promise) void writeLater(exchange, answer);
        else write(exchange, answer)?.catch((thrown: unknown) => fail(exchange, thrown, deps));
      } catch (thrown) {
        fail(exchange, thrown, deps);
      }
    },
    close: () => closing.abort(new Fault('overloaded', 'The edge is stopping.')),
  };
}

/** One request and its response. */
class NodeExchange extends LazyClientSignal {
  readonly incoming: IncomingMessage;
  readonly response: ServerResponse;
  readonly request: EdgeRequest;
  outcome: Outcome = 'failed';
  #answer: Answer | undefined;
  #decidedMs: number | undefined;
  readonly #startedMs: number;
  readonly #sentBytes: () => number;

  constructor(
    incoming: IncomingMessage,
    response: ServerResponse,
    deps: Pick<ServerDeps, 'clock' | 'newRequestId' | 'addressOf'>,
  ) {
    super();
    this.incoming = incoming;
    this.response = response;
    this.request = edgeRequest(incoming, response, deps);
    this.#startedMs = deps.clock.monotonicMs();
    this.#sentBytes = sentMeter(incoming, response);
  }

  override get over(): boolean {
    return this.response.destroyed || this.response.closed;
  }

  decide(answer: Answer, nowMs: number): void {
    this.outcome = answer.outcome;
    this.#answer = answer;
    this.#decidedMs = nowMs - this.#startedMs;
  }

  end(deps: Pick<ServerDeps, 'clock' | 'tally' | 'traffic' | 'watch' | 'requestLog'>): void {
    this.signalGone();
    const { response, outcome } = this;
    const tookMs = deps.clock.monotonicMs() - this.#startedMs;
    account(deps, this.request, {
      outcome,
      answer: this.#answer,
      status: response.headersSent ? response.statusCode : 0,
      sentBytes: this.#sentBytes(),
      complete: response.writableFinished,
      tookMs,
      decidedMs: this.#decidedMs ?? tookMs,
    });
  }
}

function edgeRequest(
  incoming: IncomingMessage,
  response: ServerResponse,
  { newRequestId, addressOf }: Pick<ServerDeps, 'newRequestId' | 'addressOf'>,
): EdgeRequest {
  const { target } = originForm(incoming.url ?? '');
  const { path, query } = splitTarget(target);
  const { headers } = incoming;
  // Read now: HTTP/2 has no socket any more once its session is over.
  const sender = {
    address: addressOf(incoming),
    scheme: schemeOf(incoming.socket),
    peer: incoming.socket.remoteAddress,
  };
  return {
    method: incoming.method ?? '',
    target,
    path,
    query,
    header: (name) => header(headers, name),
    fields: () => rawFields(incoming.rawHeaders),
    sender: () => sender,
    inform: (status, fields) => inform(incoming, response, status, fields),
    requestId: requestId(header(headers, REQUEST_ID)) ?? newRequestId(),
    protocol: `HTTP/${incoming.httpVersion}`,
    caller: undefined,
    trace: undefined,
  };
}

/**
 * Sends an interim response on. RFC 9110 15.2 wants all of them forwarded, but
 * node can send only 102 and 103.
 */
function inform(incoming: IncomingMessage, response: ServerResponse, status: number, fields: HeaderList): void {
  const { httpVersion } = incoming;
  const protocol = httpVersion === '1.0' ? '1.0' : '1.1';
  if (!forwardsInterim(status, protocol) || response.headersSent || response.destroyed) return;
  if (status === 102) response.writeProcessing();
  const links = fields.filter(([name]) => name === 'link').map(([, value]) => value);
  if (status === 103 && links.length > 0) response.writeEarlyHints({ link: links });
}

/** Answers with the failure, or breaks the connection if an answer has begun. */
function fail(exchange: NodeExchange, thrown: unknown, deps: Pick<ServerDeps, 'log'>): void {
  const { request, incoming, response, over } = exchange;
  if (!over && !response.headersSent) {
    exchange.outcome = 'failed';
    sendNow(failureReply(request, thrown, deps), incoming, response);
    return;
  }
  if (!over) response.destroy();
  deps.log.debug({ request_id: request.requestId, ...errorFields(thrown) }, 'an answer was broken off');
}
