/**
 * One request on its way to the origin and its answer on the way back: what is
 * known of it, when its body may flow, whose turn it is, and how its connection
 * is left when the client still sends.
 */
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import { PassThrough } from 'node:stream';
import { Fault } from '../../src/errors.js';
import { originForm } from '../../src/http/head.js';
import { drain } from '../../src/server/drain.js';
import type { PassContext, PassDeps } from './config.js';
import { type Framing, framingOf, type PassedRequest, type PassFacts } from './guards.js';

/** Node, the proxy library and each step here want to hear of the end of one response: a bounded number, and no leak. */
const RESPONSE_LISTENERS_MAX = 32;

export class Exchange {
  readonly options: PassDeps;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly context: PassContext;
  readonly passed: PassedRequest;
  readonly framing: Framing;
  readonly facts: PassFacts;
  /** Aborts with the reason why it cannot go on. */
  readonly over = new AbortController();
  /** What the origin is sent. A new one for each attempt; only bodiless requests have a second. */
  body = new PassThrough();
  sending: ClientRequest | undefined;
  answer: IncomingMessage | undefined;
  /** Whether the body may flow. */
  released = false;
  /** When something last moved, either way. */
  movedAtMs: number;

  constructor(options: PassDeps, request: IncomingMessage, response: ServerResponse, context: PassContext) {
    this.options = options;
    this.request = request;
    this.response = response;
    this.context = context;
    const { target, authority } = originForm(request.url ?? '/');
    this.passed = {
      method: request.method ?? 'GET',
      target,
      host: authority ?? request.headers.host,
      headers: request.headers,
      httpVersion: request.httpVersion,
      endsAtHead: endsAtHead(request),
    };
    this.framing = framingOf(this.passed);
    this.facts = {
      requestId: context.requestId,
      clientAddress: context.clientAddress,
      scheme: 'encrypted' in request.socket && request.socket.encrypted === true ? 'https' : 'http',
      edgeName: options.edgeName,
      originHost: new URL(options.originUrl).host,
    };
    this.movedAtMs = options.clock.monotonicMs();
    response.setMaxListeners(RESPONSE_LISTENERS_MAX);
    response.once('close', this.#onClientGone);
    context.signal.addEventListener('abort', this.#onStopping, { once: true });
  }

  moved(): void {
    this.movedAtMs = this.options.clock.monotonicMs();
  }

  close(): void {
    this.context.signal.removeEventListener('abort', this.#onStopping);
    this.response.off('close', this.#onClientGone);
    if (this.sending?.writableFinished !== true || this.answer?.complete !== true) this.sending?.destroy();
  }

  readonly #onClientGone = (): void => {
    if (this.response.writableFinished) return;
    // Where the answer failed first, it was we who broke the connection off.
    if ((this.answer?.errored ?? null) === null) this.over.abort(new ClientGone());
  };
  readonly #onStopping = (): void =>
    this.over.abort(new Fault('overloaded', 'The service is stopping.', { headers: { 'retry-after': '1' } }));
}

export class ClientGone extends Error {
  constructor() {
    super('the client left');
  }
}

/** HTTP/2 tells with the head that nothing follows. */
function endsAtHead(request: object): boolean {
  if (!('stream' in request)) return false;
  const { stream } = request;
  return (
    typeof stream === 'object' && stream !== null && 'endAfterHeaders' in stream && stream.endAfterHeaders === true
  );
}

export function boundConnect({ options, over }: Exchange, sending: ClientRequest): void {
  const { socket } = sending;
  if (socket === null || !socket.connecting) return;
  const timer = options.clock.after(options.config.connectTimeoutMs, () =>
    over.abort(new Fault('gateway_timeout', 'The origin could not be reached in time.')),
  );
  // A connection that is to be encrypted is made once its handshake is done.
  const made = 'encrypted' in socket ? 'secureConnect' : 'connect';
  socket.once(made, () => timer.cancel()).once('close', () => timer.cancel());
}

/** RFC 9110 10.1.1: lets the body flow once the origin wants it, or soon, where it does not say. */
export function releaseBody(exchange: Exchange, sending: ClientRequest): void {
  const { options, request, response, body, passed, framing } = exchange;
  const { config, clock } = options;
  if (framing.kind === 'none') {
    exchange.released = true;
    body.end();
    return;
  }
  const expects = passed.headers.expect !== undefined;
  const release = (): void => {
    timer.cancel();
    if (exchange.released || exchange.answer !== undefined || sending.destroyed) return;
    exchange.released = true;
    exchange.moved();
    if (expects && !response.headersSent) response.writeContinue();
    request.on('data', () => exchange.moved());
    request.once('end', () => exchange.moved());
    body.on('drain', () => exchange.moved());
    request.pipe(body);
  };
  const held = expects || framing.kind === 'chunked' || framing.sizeBytes >= config.askFromBytes;
  const timer = clock.after(held ? config.continueWaitMs : 0, release);
  if (!held) {
    release();
    return;
  }
  sending.setHeader('expect', '100-continue');
  sending.once('continue', release);
  sending.once('close', () => timer.cancel());
  sending.flushHeaders();
}

type Turn = 'origin' | 'client';

/** Whose move it is: who keeps the other waiting if nothing happens now. */
function turnOf({ request, response, answer, released, framing, body }: Exchange): Turn {
  if (answer !== undefined) return response.writableNeedDrain ? 'client' : 'origin';
  if (framing.kind === 'none' || request.complete || !released) return 'origin';
  return body.writableNeedDrain ? 'origin' : 'client';
}

/** Ends the exchange when the one whose turn it is does nothing for too long. */
export function watchTurns(exchange: Exchange): () => void {
  const { clock, config } = exchange.options;
  const limitMs = (): number => (turnOf(exchange) === 'origin' ? config.idleTimeoutMs : config.clientTimeoutMs);
  const look = (): void => {
    const leftMs = exchange.movedAtMs + limitMs() - clock.monotonicMs();
    if (leftMs > 0) timer = clock.after(leftMs, look);
    else exchange.over.abort(stalled(turnOf(exchange)));
  };
  let timer = clock.after(limitMs(), look);
  return () => timer.cancel();
}

function stalled(turn: Turn): Fault {
  return turn === 'origin'
    ? new Fault('gateway_timeout', 'The origin took too long.')
    : new Fault('request_timeout', 'The request took too long to arrive.');
}

/**
 * RFC 9112 9.6: closing while the client still sends would make its system
 * throw the answer away unread. So the answer is given whole, and what still
 * comes is read and dropped for a while.
 */
export async function lingerAndEnd(exchange: Exchange): Promise<void> {
  const { response, request, options } = exchange;
  const { drainMaxBytes, drainWithinMs, drainIdleMs } = options.config;
  response.flushHeaders();
  await drain(request, { sizeMaxBytes: drainMaxBytes, withinMs: drainWithinMs, idleMs: drainIdleMs }, options.clock);
  if (response.destroyed) return;
  response.end();
  if ('stream' in request) request.destroy();
}
