/**
 * One request that is passed to the origin, and the response to it: its state,
 * when its body may be sent, how long either side may stay idle, and how the
 * connection ends when the client still sends.
 */
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import { PassThrough } from 'node:stream';
import { onAbort } from '../../src/abort.js';
import { Fault } from '../../src/errors.js';
import { originForm } from '../../src/http/head.js';
import { drain } from '../../src/server/drain.js';
import type { PassContext, PassDeps } from './config.js';
import { type Framing, framingOf, type PassFacts, type RequestHead } from './guards.js';
import type { Drains } from './slots.js';

/** Node, the proxy library and the functions below listen for the end of one response: a fixed number, and no leak. */
const RESPONSE_LISTENERS_MAX = 32;

/** Bounds the bodies that are dropped after a refusal. */
export interface PassedDeps extends PassDeps {
  readonly drains: Drains;
}

export class PassedRequest {
  readonly deps: PassedDeps;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly head: RequestHead;
  readonly framing: Framing;
  readonly facts: PassFacts;
  /** Aborts with the reason why the request cannot go on. */
  readonly over = new AbortController();
  /** The body as the origin gets it. Each attempt needs a new one; only requests without a body have a second attempt. */
  body = new PassThrough();
  /** The request to the origin. */
  sending: ClientRequest | undefined;
  originResponse: IncomingMessage | undefined;
  /** Whether the body may be sent. */
  released = false;
  /** When the last byte moved in either direction. */
  activeAtMs: number;
  /** Gives the slot back. A refused body that is still dropped holds none. */
  releaseSlot: () => void = () => undefined;
  readonly #stopListening: () => void;

  constructor(deps: PassedDeps, request: IncomingMessage, response: ServerResponse, context: PassContext) {
    this.deps = deps;
    this.request = request;
    this.response = response;
    const { target, authority } = originForm(request.url ?? '/');
    this.head = {
      method: request.method ?? 'GET',
      target,
      host: authority ?? request.headers.host,
      headers: request.headers,
      httpVersion: request.httpVersion,
      endsAtHead: endsAtHead(request),
    };
    this.framing = framingOf(this.head);
    this.facts = {
      mode: deps.mode,
      requestId: context.requestId,
      trace: context.trace,
      clientAddress: context.clientAddress,
      scheme: 'encrypted' in request.socket && request.socket.encrypted === true ? 'https' : 'http',
      edgeName: deps.edgeName,
    };
    this.activeAtMs = deps.clock.monotonicMs();
    response.setMaxListeners(RESPONSE_LISTENERS_MAX);
    response.once('close', this.#onClientGone);
    if (response.destroyed) this.over.abort(new ClientGone());
    this.#stopListening = onAbort(context.signal, () =>
      this.over.abort(new Fault('overloaded', 'The service is stopping.', { headers: { 'retry-after': '1' } })),
    );
  }

  noteActivity(): void {
    this.activeAtMs = this.deps.clock.monotonicMs();
  }

  close(): void {
    this.releaseSlot();
    this.#stopListening();
    this.response.off('close', this.#onClientGone);
    if (this.sending?.writableFinished !== true || this.originResponse?.complete !== true) this.sending?.destroy();
  }

  readonly #onClientGone = (): void => {
    if (this.response.writableFinished) return;
    // If the origin's response failed first, the edge itself broke the connection.
    if ((this.originResponse?.errored ?? null) === null) this.over.abort(new ClientGone());
  };
}

export class ClientGone extends Error {
  constructor() {
    super('the client left');
  }
}

/** Whether HTTP/2 said with the head that no body follows (END_STREAM, RFC 9113 8.1). */
function endsAtHead(request: object): boolean {
  if (!('stream' in request)) return false;
  const { stream } = request;
  return (
    typeof stream === 'object' && stream !== null && 'endAfterHeaders' in stream && stream.endAfterHeaders === true
  );
}

/** Calls `then` when the connection to the origin is open. Ends this attempt if that takes too long. */
export function onceConnected({ deps }: PassedRequest, sending: ClientRequest, then: () => void): void {
  const { socket } = sending;
  if (socket === null || !socket.connecting) {
    then();
    return;
  }
  const timer = deps.clock.after(deps.config.connectTimeoutMs, () =>
    sending.destroy(new Fault('gateway_timeout', 'The origin could not be reached in time.')),
  );
  // A TLS connection is open once its handshake is done.
  const opened = 'encrypted' in socket ? 'secureConnect' : 'connect';
  socket
    .once(opened, () => {
      timer.cancel();
      then();
    })
    .once('close', () => timer.cancel());
}

/**
 * RFC 9110 10.1.1: sends the body once the origin asks for it with 100
 * (Continue), or after a while if the origin says nothing. A small body is sent
 * at once, unless the client itself waits for 100, or the request may still go to another origin.
 */
export function releaseBody(passed: PassedRequest, sending: ClientRequest, mayMove: boolean): void {
  const { deps, request, response, body, head, framing } = passed;
  const { config, clock } = deps;
  if (framing.kind === 'none') {
    passed.released = true;
    body.end();
    return;
  }
  const expects = head.headers.expect !== undefined;
  const release = (): void => {
    timer.cancel();
    if (passed.released || passed.originResponse !== undefined || sending.destroyed) return;
    passed.released = true;
    passed.noteActivity();
    if (expects && !response.headersSent) response.writeContinue();
    request.on('data', () => passed.noteActivity());
    request.once('end', () => passed.noteActivity());
    body.on('drain', () => passed.noteActivity());
    request.pipe(body);
  };
  const waits = mayMove || expects || framing.kind === 'chunked' || framing.sizeBytes >= config.askFromBytes;
  const timer = clock.after(waits ? config.continueWaitMs : 0, release);
  if (!waits) {
    release();
    return;
  }
  sending.setHeader('expect', '100-continue');
  sending.once('continue', release);
  sending.once('close', () => timer.cancel());
  sending.flushHeaders();
}

type Side = 'origin' | 'client';

/** The side that has to act next. */
function awaitedSide({ request, response, originResponse, released, framing, body }: PassedRequest): Side {
  if (originResponse !== undefined) return response.writableNeedDrain ? 'client' : 'origin';
  if (framing.kind === 'none' || request.complete || !released) return 'origin';
  return body.writableNeedDrain ? 'origin' : 'client';
}

/** Ends the request if the side that has to act next does nothing for too long. Returns how to stop watching. */
export function watchIdle(passed: PassedRequest): () => void {
  const { clock, config } = passed.deps;
  const limitMs = (): number => (awaitedSide(passed) === 'origin' ? config.idleTimeoutMs : config.clientTimeoutMs);
  const check = (): void => {
    const leftMs = passed.activeAtMs + limitMs() - clock.monotonicMs();
    if (leftMs > 0) timer = clock.after(leftMs, check);
    else passed.over.abort(idleFault(awaitedSide(passed)));
  };
  let timer = clock.after(limitMs(), check);
  return () => timer.cancel();
}

function idleFault(side: Side): Fault {
  return side === 'origin'
    ? new Fault('gateway_timeout', 'The origin took too long.')
    : new Fault('request_timeout', 'The request took too long to arrive.');
}

/**
 * Ends an answer whose client still sends. RFC 9112 9.6: to close at once could
 * reset the connection before the client reads the answer. So the answer goes
 * out, and the rest of the body is read and dropped for a while, without a slot
 * and for a limited number of bodies of one client.
 */
export async function drainAndEnd(passed: PassedRequest): Promise<void> {
  const { response, request, deps, facts } = passed;
  const { drainMaxBytes, drainWithinMs, drainIdleMs } = deps.config;
  passed.releaseSlot();
  response.flushHeaders();
  const finish = deps.drains.take(facts.clientAddress);
  if (finish !== undefined) {
    const limits = { sizeMaxBytes: drainMaxBytes, withinMs: drainWithinMs, idleMs: drainIdleMs };
    await drain(request, limits, deps.clock).finally(finish);
  }
  if (response.destroyed) return;
  response.end();
  if ('stream' in request) request.destroy();
}
