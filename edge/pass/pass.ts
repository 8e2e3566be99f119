/**
 * Everything that is not served from the cache, handed to the origin as it
 * comes: uploads, resumable uploads, deletes, preflights.
 *
 * Promises: every request gets an answer or a broken connection, never a hang;
 * a body is sent on only when the origin wants it, and an early refusal reaches
 * a client that is still sending; the origin sees the caller's own credential
 * and nothing of the edge's authority.
 */

import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import { PassThrough, Readable } from 'node:stream';
import { errorCode, Fault, faultOf } from '../../src/errors.js';
import { header, rawFields } from '../../src/http/head.js';
import { problemReply } from '../../src/http/problem.js';
import type { HeaderList } from '../../src/http/reply.js';
import { errorFields, loggable } from '../../src/log.js';
import { pipeBody } from '../../src/server/send.js';
import { REQUEST_ID } from '../../src/wire.js';
import { tlsTroubleOf } from '../upstream/tls.js';
import type { BodySink, PassContext, PassDeps } from './config.js';
import { boundConnect, ClientGone, Exchange, lingerAndEnd, releaseBody, watchTurns } from './exchange.js';
import { answerHeaders, connectionField, forwardedHeaders, hopsLeft, invalidates, mayRepeat } from './guards.js';
import { createPassProxy, type PassProxy } from './proxy.js';

export interface Pass {
  /**
   * Answers the request, whatever happens. Resolves when the answer is sent or
   * the connection broken.
   *
   * A request with `Expect: 100-continue` must come here unanswered.
   */
  handle(request: IncomingMessage, response: ServerResponse, context: PassContext): Promise<void>;
  readonly active: number;
  close(): Promise<void>;
}

export function createPass(options: PassDeps): Pass {
  const { config, log } = options;
  const proxy = createPassProxy({
    originUrl: options.originUrl,
    originTls: options.originTls,
    keepAliveMs: config.keepAliveMs,
    unusedMax: config.concurrentMax,
  });
  const ended = options.metrics.counter('edge_pass_requests_total', 'Requests passed to the origin, by ending.', [
    'ending',
  ]);
  const busy = options.metrics.gauge('edge_pass_active', 'Requests that are being passed to the origin.');
  let active = 0;
  options.metrics.onCollect(() => busy.set(active));

  return {
    get active() {
      return active;
    },
    async handle(request, response, context) {
      const exchange = new Exchange(options, request, response, context);
      active += 1;
      try {
        if (active > config.concurrentMax) throw new Fault('overloaded', 'Too many requests are being passed on.');
        await carry(exchange, proxy);
        ended.add(1, { ending: 'answered' });
      } catch (thrown) {
        const ending = await giveUp(exchange, thrown).catch(() => broken(exchange));
        ended.add(1, { ending });
        const target = loggable(request.url ?? '');
        const trouble = thrown instanceof Fault ? tlsTroubleOf(thrown.cause) : undefined;
        const fields = { requestId: context.requestId, target, ending, ...(trouble !== undefined && { tls: trouble }) };
        log.warn({ ...fields, ...errorFields(thrown) }, 'a pass was not completed');
      } finally {
        active -= 1;
        exchange.close();
      }
    },
    close: async () => proxy.close(),
  };
}

async function carry(exchange: Exchange, proxy: PassProxy): Promise<void> {
  const { request, passed } = exchange;
  const hops = hopsLeft(passed.method, header(passed.headers, 'max-forwards'));
  if (hops.kind === 'final') {
    await respond(exchange, 204, [['allow', 'GET, HEAD, OPTIONS, POST, PATCH, DELETE']]);
    return;
  }
  const unwatch = watchTurns(exchange);
  try {
    const headers = forwardedHeaders(passed, exchange.framing, exchange.facts);
    if (hops.kind === 'left') headers['max-forwards'] = String(hops.hops);
    const askedMs = exchange.options.clock.monotonicMs();
    const answer = await ask(exchange, proxy, headers);
    const tookMs = exchange.options.clock.monotonicMs() - askedMs;
    request.unpipe(exchange.body);
    exchange.answer = answer;
    // Heard again by the pipeline; here, so that an answer that dies before it is not an uncaught error.
    answer.on('error', () => {}).on('data', () => exchange.moved());
    answer.pause();
    await tellInvalidation(exchange, answer);
    await relay(exchange, answer, keepingOf(exchange, answer, tookMs));
  } finally {
    unwatch();
  }
}

/** The head of the origin's answer. A request that an old connection died under is sent once more, where that is safe. */
async function ask(
  exchange: Exchange,
  proxy: PassProxy,
  headers: Readonly<Record<string, string>>,
): Promise<IncomingMessage> {
  const { over, passed, framing } = exchange;
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await attemptOnce(exchange, proxy, headers);
    } catch (thrown) {
      if (over.signal.aborted) throw over.signal.reason;
      const again = attempt === 0 && exchange.sending?.reusedSocket === true && mayRepeat(passed.method, framing);
      if (!again) throw thrown instanceof Fault ? thrown : unreachableOrigin(thrown);
      exchange.body = new PassThrough();
    }
  }
}

function attemptOnce(
  exchange: Exchange,
  proxy: PassProxy,
  headers: Readonly<Record<string, string>>,
): Promise<IncomingMessage> {
  const { request, response, over, body, passed } = exchange;
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      exchange.sending?.destroy();
      reject(over.signal.reason as Error);
    };
    if (over.signal.aborted) return stop();
    over.signal.addEventListener('abort', stop, { once: true });
    proxy
      .send(request, response, {
        method: passed.method,
        target: passed.target,
        headers,
        body,
        onOpen: (sending) => {
          exchange.sending = sending;
          if (over.signal.aborted) {
            sending.destroy();
            return;
          }
          boundConnect(exchange, sending);
          relayHints(exchange, sending);
          releaseBody(exchange, sending);
        },
      })
      .then(resolve, reject)
      .finally(() => over.signal.removeEventListener('abort', stop));
  });
}

/** RFC 8297: hints help only if they come before the answer. Other interim answers say nothing to this client. */
function relayHints({ response, passed }: Exchange, sending: ClientRequest): void {
  sending.on('information', ({ statusCode, headers }) => {
    if (statusCode !== 103 || headers['link'] === undefined || response.headersSent || passed.httpVersion === '1.0')
      return;
    response.writeEarlyHints({ link: headers['link'] });
  });
}

function unreachableOrigin(cause: unknown): Fault {
  const never = ['ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH', 'ENETUNREACH'].includes(errorCode(cause) ?? '');
  const refused = never || tlsTroubleOf(cause) !== undefined;
  return new Fault('bad_gateway', refused ? 'The origin cannot be reached.' : 'The origin broke off.', { cause });
}

/** RFC 9111 4.4, before the client hears of the change. */
async function tellInvalidation({ options, passed }: Exchange, answer: IncomingMessage): Promise<void> {
  const status = answer.statusCode ?? 0;
  if (!invalidates(passed.method, status)) return;
  await options.onUnsafe({
    method: passed.method,
    target: passed.target,
    status,
    location: answer.headers.location,
    contentLocation: header(answer.headers, 'content-location'),
  });
}

function keepingOf(
  { options, request, passed }: Exchange,
  answer: IncomingMessage,
  tookMs: number,
): BodySink | undefined {
  return options.keep?.({
    method: passed.method,
    target: passed.target,
    header: (name) => header(request.headers, name),
    status: answer.statusCode ?? 0,
    headers: rawFields(answer.rawHeaders),
    tookMs,
  });
}

async function* keptOnTheWay(answer: IncomingMessage, keeping: BodySink): AsyncGenerator<Buffer> {
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    await keeping.write(chunk);
    yield chunk;
  }
  keeping.end();
}

/** Sends the answer on. A body that ends badly breaks the client's connection, so that it is not taken for whole. */
async function relay(exchange: Exchange, answer: IncomingMessage, keeping: BodySink | undefined): Promise<void> {
  const { response, request, passed, facts, over } = exchange;
  const status = answer.statusCode ?? 502;
  const last = !request.complete;
  response.writeHead(status, answerHeaders(answer.rawHeaders, status, passed, facts, last).flat());
  response.on('drain', () => exchange.moved());
  const body = keeping === undefined ? answer : Readable.from(keptOnTheWay(answer, keeping), { objectMode: false });
  try {
    await pipeBody(body, response, { signal: over.signal, end: !last });
  } catch (thrown) {
    keeping?.abort(thrown instanceof Error ? thrown : new Error(String(thrown)));
    throw thrown;
  }
  if (!last) return;
  exchange.sending?.destroy();
  await lingerAndEnd(exchange);
}

/** An answer of our own. */
async function respond(
  exchange: Exchange,
  status: number,
  headers: HeaderList,
  body: Uint8Array = new Uint8Array(0),
): Promise<void> {
  const { response, request, passed, facts } = exchange;
  const last = !request.complete;
  const length: HeaderList = status === 204 ? [] : [['content-length', String(body.byteLength)]];
  const fields = [...headers, ...length, [REQUEST_ID, facts.requestId], ...connectionField(passed, last)];
  response.writeHead(status, fields.flat());
  if (passed.method !== 'HEAD' && body.byteLength > 0) response.write(body);
  if (last) {
    await lingerAndEnd(exchange);
    return;
  }
  await new Promise<void>((resolve) => {
    response.once('close', resolve).once('finish', resolve);
    response.end();
  });
}

/** Answers with the reason, or breaks the connection where an answer has begun. The ending's name, for counting. */
async function giveUp(exchange: Exchange, thrown: unknown): Promise<string> {
  const { response, request, over } = exchange;
  const reason: unknown = over.signal.aborted ? over.signal.reason : thrown;
  request.unpipe(exchange.body);
  if (reason instanceof ClientGone) {
    response.destroy();
    return 'left';
  }
  if (response.headersSent || response.destroyed) return broken(exchange);
  const fault = faultOf(reason);
  const { status, headers, body } = problemReply(fault);
  await respond(exchange, status, headers, body.kind === 'bytes' ? body.bytes : undefined);
  return fault.code;
}

function broken({ response }: Exchange): string {
  response.destroy();
  return 'broken';
}
