/**
 * Passes requests to the origin that the cache does not answer: uploads,
 * resumable uploads, deletes, preflights.
 *
 * Promises: every request ends with an answer or a broken connection and never
 * hangs. Of several origins the next one is asked as long as that is safe. A body is sent on only when the origin wants it, and an early refusal
 * reaches a client that is still sending. A body without a credential is refused
 * before it takes a slot. The origin gets the caller's own credential and
 * nothing that proves an edge.
 */
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import { PassThrough, Readable } from 'node:stream';
import { onAbort, withSignal } from '../../src/abort.js';
import { errorCode, Fault, type FaultCode, faultOf, invariant } from '../../src/errors.js';
import { dropsContent, hasUnknownCoding, isLooping } from '../../src/http/fields.js';
import { header, rawFields } from '../../src/http/head.js';
import { clientProblem } from '../../src/http/problem.js';
import type { HeaderList } from '../../src/http/reply.js';
import { errorFields, loggable } from '../../src/log.js';
import { clientNetwork } from '../../src/server/hygiene.js';
import { pipeBody } from '../../src/server/send.js';
import { REQUEST_ID } from '../../src/wire.js';
import { tlsTroubleOf } from '../upstream/tls.js';
import { saysUnable } from '../upstream/upstream.js';
import type { BodySink, PassContext, PassDeps, PassOrigin, PassSender } from './config.js';
import { answerHeaders, connectionField, forwardedHeaders, hopsLeft, invalidates, mayRepeat } from './guards.js';
import { ClientGone, drainAndEnd, onceConnected, PassedRequest, releaseBody, watchIdle } from './passed-request.js';
import { createPassProxy, type PassProxy } from './proxy.js';
import { createDrains, createPassSlots, type PassSlots } from './slots.js';

export interface Pass {
  /**
   * Answers the request and never rejects. Resolves when the answer is sent or
   * the connection is broken.
   *
   * The caller must not have answered `Expect: 100-continue`.
   */
  handle(request: IncomingMessage, response: ServerResponse, context: PassContext): Promise<void>;
  /** Requests that are being passed on. Refused bodies that are still dropped do not count. */
  readonly active: number;
  close(): Promise<void>;
}

export function createPass(deps: PassDeps): Pass {
  const { config, log, metrics } = deps;
  const proxies = createProxies(deps);
  const ended = metrics.counter('edge_pass_requests_total', 'Requests passed to the origin, by ending.', ['ending']);
  const busy = metrics.gauge('edge_pass_active', 'Requests that are being passed to the origin.');
  const slots = createPassSlots(config);
  const passedDeps = { ...deps, drains: createDrains(config) };
  metrics.onCollect(() => busy.set(slots.active));

  return {
    get active() {
      return slots.active;
    },
    async handle(request, response, context) {
      const passed = new PassedRequest(passedDeps, request, response, context);
      try {
        passed.releaseSlot = admit(passed, context.sender, slots);
        await passOn(passed, proxies);
        ended.add(1, { ending: 'answered' });
      } catch (thrown) {
        const ending = await answerFailure(passed, thrown).catch(() => breakOff(passed));
        ended.add(1, { ending });
        const target = loggable(request.url ?? '');
        const trouble = thrown instanceof Fault ? tlsTroubleOf(thrown.cause) : undefined;
        const fields = {
          request_id: context.requestId,
          target,
          ending,
          ...(trouble !== undefined && { tls: trouble }),
        };
        // Strangers can cause any number of these, and the request has a line of its own.
        const level = thrown instanceof Fault && QUIET.has(thrown.code) ? 'debug' : 'warn';
        log[level]({ ...fields, ...errorFields(thrown) }, 'a pass was not completed');
      } finally {
        passed.close();
      }
    },
    close: async () => proxies.close(),
  };
}

interface Proxies {
  to(origin: PassOrigin): PassProxy;
  close(): void;
}

/** One for each origin. */
function createProxies({ config, origins, originTls }: PassDeps): Proxies {
  const { keepAliveMs, concurrentMax: unusedMax } = config;
  const byUrl = new Map(
    origins.inOrder('').map(({ url }) => [url, createPassProxy({ originUrl: url, originTls, keepAliveMs, unusedMax })]),
  );
  return {
    to({ url }) {
      const proxy = byUrl.get(url);
      invariant(proxy !== undefined, 'each origin has a proxy');
      return proxy;
    },
    close() {
      for (const proxy of byUrl.values()) proxy.close();
    },
  };
}

const QUIET: ReadonlySet<string> = new Set<FaultCode>(['unauthorized', 'rate_limited']);

/** Decides by the credential before the request takes a slot, and before its body is read. Throws the refusal. */
function admit({ deps, framing, facts, head }: PassedRequest, sender: PassSender, slots: PassSlots): () => void {
  if (isLooping((name) => header(head.headers, name), facts.edgeName)) {
    throw new Fault('misdirected', 'The request has been at this cache before.');
  }
  const { subject, admin } = sender;
  const hasBody = framing.kind !== 'none';
  const refusal = hasBody ? sender.refuseBody?.() : undefined;
  if (refusal !== undefined) throw refusal;
  const kind = admin ? 'admin' : hasBody ? 'body' : 'bodiless';
  if (!admin) deps.rates.admit({ address: facts.clientAddress, subject });
  return slots.take({ kind, subject, clientAddress: facts.clientAddress });
}

async function passOn(passed: PassedRequest, proxies: Proxies): Promise<void> {
  const { request, head } = passed;
  const { clock } = passed.deps;
  const hops = hopsLeft(head.method, header(head.headers, 'max-forwards'));
  if (hops.kind === 'final') {
    await answer(passed, 204, [['allow', 'GET, HEAD, OPTIONS, POST, PATCH, DELETE']]);
    return;
  }
  const stopWatching = watchIdle(passed);
  try {
    const sentMs = clock.monotonicMs();
    const response = await requestOrigin(passed, proxies, hops.kind === 'left' ? hops.hops : undefined);
    const tookMs = clock.monotonicMs() - sentMs;
    request.unpipe(passed.body);
    passed.originResponse = response;
    passed.deps.onAnswered?.();
    // The pipeline below receives errors too. This listener is for a response that fails before it is read.
    response.on('error', () => undefined).on('data', () => passed.noteActivity());
    response.pause();
    await reportUnsafe(passed, response);
    if (hasUnknownCoding(rawFields(response.rawHeaders))) {
      response.destroy();
      throw new Fault('bad_gateway', 'The origin gave no usable answer.');
    }
    await relay(passed, response, sinkFor(passed, response, tookMs));
  } finally {
    stopWatching();
  }
}

/**
 * Resolves with the head of the origin's response. The next origin is asked if there is one and that is safe. Otherwise a
 * request whose reused connection broke is sent once more if it may be repeated.
 */
async function requestOrigin(
  passed: PassedRequest,
  proxies: Proxies,
  hops: number | undefined,
): Promise<IncomingMessage> {
  const { over, head, framing, facts, deps } = passed;
  const order = deps.origins.inOrder(clientNetwork(facts.clientAddress));
  let repeated = false;
  for (let at = 0; ; ) {
    const origin = order[at];
    invariant(origin !== undefined, 'there is an origin to ask');
    const isLast = at + 1 === order.length;
    const mayMove = (): boolean => !isLast && (!passed.released || mayRepeat(head.method, framing));
    const attempt = { origin, proxy: proxies.to(origin), hops, mayMove };
    try {
      const response = await attemptOnce(passed, attempt);
      if (!saysUnable(response.statusCode ?? 0) || !mayMove()) return response;
      origin.doubted();
      response.on('error', () => undefined).destroy();
      passed.sending?.destroy();
    } catch (thrown) {
      over.signal.throwIfAborted();
      if (NEVER_REACHED.has(errorCode(thrown) ?? '')) origin.lost();
      const again = !repeated && passed.sending?.reusedSocket === true && mayRepeat(head.method, framing);
      if (!mayMove() && !again) throw thrown instanceof Fault ? thrown : originFault(thrown);
    }
    if (isLast) repeated = true;
    else at += 1;
    passed.body = new PassThrough();
    passed.released = false;
  }
}

interface Attempt {
  readonly origin: PassOrigin;
  readonly proxy: PassProxy;
  /** For Max-Forwards; undefined: the client sent none that counts. */
  readonly hops: number | undefined;
  /** Whether the request may be sent to another origin in place of this one. */
  readonly mayMove: () => boolean;
}

async function attemptOnce(passed: PassedRequest, { origin, proxy, hops, mayMove }: Attempt): Promise<IncomingMessage> {
  const { request, response, over, body, head, framing, facts } = passed;
  over.signal.throwIfAborted();
  const stopListening = onAbort(over.signal, () => passed.sending?.destroy());
  const stopWatching = origin.watch(() => {
    if (mayMove()) passed.sending?.destroy(new Error('the origin is silent'));
  });
  const onOpen = (sending: ClientRequest): void => {
    passed.sending = sending;
    if (over.signal.aborted) {
      sending.destroy();
      return;
    }
    relayHints(passed, sending);
    sending.once('continue', () => origin.heard());
    onceConnected(passed, sending, () => releaseBody(passed, sending, mayMove()));
  };
  const { method, target } = head;
  const headers = forwardedHeaders(head, framing, facts, new URL(origin.url).host);
  if (hops !== undefined) headers['max-forwards'] = String(hops);
  try {
    const answered = await withSignal(
      proxy.send(request, response, { method, target, headers, body, onOpen }),
      over.signal,
    );
    origin.heard();
    return answered;
  } finally {
    stopWatching();
    stopListening();
  }
}

/** Sends 103 responses on: hints help only before the final response (RFC 8297). Other interim responses are dropped. */
function relayHints({ response, head }: PassedRequest, sending: ClientRequest): void {
  sending.on('information', ({ statusCode, headers }) => {
    if (statusCode !== 103 || headers['link'] === undefined || response.headersSent || head.httpVersion === '1.0')
      return;
    response.writeEarlyHints({ link: headers['link'] });
  });
}

const NEVER_REACHED: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH', 'ENETUNREACH']);

function originFault(cause: unknown): Fault {
  const unreachable = NEVER_REACHED.has(errorCode(cause) ?? '') || tlsTroubleOf(cause) !== undefined;
  return new Fault('bad_gateway', unreachable ? 'The origin cannot be reached.' : 'The origin broke off.', { cause });
}

/** RFC 9111 4.4: invalidates stored responses before the client learns of the change. */
async function reportUnsafe({ deps, head }: PassedRequest, response: IncomingMessage): Promise<void> {
  const status = response.statusCode ?? 0;
  if (!invalidates(head.method, status)) return;
  await deps.onUnsafe({
    method: head.method,
    target: head.target,
    status,
    location: response.headers.location,
    contentLocation: header(response.headers, 'content-location'),
  });
}

function sinkFor(
  { deps, request, head }: PassedRequest,
  response: IncomingMessage,
  tookMs: number,
): BodySink | undefined {
  return deps.keep?.({
    method: head.method,
    target: head.target,
    header: (name) => header(request.headers, name),
    status: response.statusCode ?? 0,
    headers: rawFields(response.rawHeaders),
    tookMs,
  });
}

/** Sends the origin's response on. If its body fails, the client's connection breaks, so that it is not taken for complete. */
async function relay(
  passed: PassedRequest,
  originResponse: IncomingMessage,
  sink: BodySink | undefined,
): Promise<void> {
  const { response, request, head, facts, over } = passed;
  const status = originResponse.statusCode ?? 502;
  const last = !request.complete;
  response.writeHead(status, answerHeaders(originResponse.rawHeaders, status, head, facts, last).flat());
  response.on('drain', () => passed.noteActivity());
  const body = contentOf(originResponse, status, sink);
  try {
    await pipeBody(body, response, { signal: over.signal, end: !last });
  } catch (thrown) {
    sink?.abort(thrown instanceof Error ? thrown : new Error(String(thrown)));
    throw thrown;
  }
  if (!last) return;
  passed.sending?.destroy();
  await drainAndEnd(passed);
}

function contentOf(originResponse: IncomingMessage, status: number, sink: BodySink | undefined): Readable {
  if (dropsContent(status)) {
    originResponse.resume();
    sink?.end();
    return Readable.from([]);
  }
  return sink === undefined ? originResponse : Readable.from(copiedTo(sink, originResponse), { objectMode: false });
}

/** Yields the body and writes each chunk to the sink. */
async function* copiedTo(sink: BodySink, body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for await (const chunk of body) {
    await sink.write(chunk);
    yield chunk;
  }
  sink.end();
}

/** Sends an answer of the edge itself. */
async function answer(
  passed: PassedRequest,
  status: number,
  headers: HeaderList,
  body: Uint8Array = new Uint8Array(0),
): Promise<void> {
  const { response, request, head, facts } = passed;
  const last = !request.complete;
  const length: HeaderList = status === 204 ? [] : [['content-length', String(body.byteLength)]];
  const fields = [...headers, ...length, [REQUEST_ID, facts.requestId], ...connectionField(head, last)];
  response.writeHead(status, fields.flat());
  if (head.method !== 'HEAD' && body.byteLength > 0) response.write(body);
  if (last) {
    await drainAndEnd(passed);
    return;
  }
  await new Promise<void>((resolve) => {
    response.once('close', resolve).once('finish', resolve);
    response.end();
  });
}

/** Answers with the failure, or breaks the connection if an answer has begun. Returns the ending, for its counter. */
async function answerFailure(passed: PassedRequest, thrown: unknown): Promise<string> {
  const { response, request, over } = passed;
  const reason: unknown = over.signal.aborted ? over.signal.reason : thrown;
  request.unpipe(passed.body);
  if (reason instanceof ClientGone) {
    response.destroy();
    return 'left';
  }
  if (response.headersSent || response.destroyed) return breakOff(passed);
  const fault = faultOf(reason);
  const { status, headers, body } = clientProblem(fault);
  await answer(passed, status, headers, body.kind === 'bytes' ? body.bytes : undefined);
  return fault.code;
}

function breakOff({ response }: PassedRequest): string {
  response.destroy();
  return 'broken';
}
