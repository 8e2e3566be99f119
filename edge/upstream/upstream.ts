/**
 * The way to the origin: pooled connections, one request at a time on each,
 * with bounds on every wait and a breaker that spares an origin that is down.
 * Promises an outcome, never a throw: an answer whose head has arrived, or the
 * reason why there is none. A body that ends short or breaks is an error on its
 * stream. Redirects are answers like any other.
 *
 * Leaves to others: what is asked, what the answer means, and whether it is kept.
 */

import { Readable } from 'node:stream';
import { type Dispatcher, Pool } from 'undici';
import type { Clock, EpochMs } from '../../src/clock.js';
import {
  duration,
  flag,
  integer,
  optionalText,
  origin,
  section,
  size,
  text,
  type ValueOf,
} from '../../src/config/field.js';
import { errorCode, Fault } from '../../src/errors.js';
import { endToEnd } from '../../src/http/fields.js';
import { contentLength, rawFields } from '../../src/http/head.js';
import type { HeaderList } from '../../src/http/reply.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import { type Breaker, type BreakerState, createBreaker } from './breaker.js';
import { type OriginTls, readOriginTls, type TlsTrouble, tlsTroubleOf } from './tls.js';

export const upstreamSection = section('The origin, and how long it may take.', {
  url: origin({ default: 'http://127.0.0.1:9000', help: 'Where the origin listens.' }),
  caFile: optionalText({
    default: null,
    help: 'With https: a file of certificates (PEM) that are trusted for the origin in place of the system’s.',
  }),
  serverName: text({
    default: '',
    help: 'With https: the name that the certificate must carry, where it is not the host of the URL; empty: the host.',
  }),
  connectionsMax: integer({ default: 128, min: 1, max: 10_000, help: 'Connections to the origin at once.' }),
  waitingMax: integer({
    default: 1_024,
    min: 0,
    max: 100_000,
    help: 'Requests that may wait for a connection; further ones are answered 503.',
  }),
  connectWithinMs: duration({ default: '3s', min: 10, max: 60_000, help: 'Time to connect, TLS included.' }),
  headWithinMs: duration({ default: '30s', min: 10, help: 'Time from the request to the head of its answer.' }),
  idleMs: duration({ default: '30s', min: 10, help: 'Time between two pieces of a body.' }),
  keepAliveMs: duration({ default: '4s', min: 100, help: 'How long an unused connection is kept.' }),
  headMaxBytes: size({ default: '32KiB', min: 1_024, max: 1_048_576, help: 'Header fields of an answer together.' }),
  retries: integer({
    default: 1,
    min: 0,
    max: 5,
    help: 'How often a GET or HEAD that broke before any answer is sent again. A timeout is never retried.',
  }),
  breaker: section('Spares an origin that is down, and callers the wait for it.', {
    enabled: flag({ default: true, help: 'Whether there is one.' }),
    failures: integer({ default: 8, min: 1, max: 1_000, help: 'Failures in a row that open it,' }),
    afterMs: duration({ default: '1s', help: 'and over how long at least.' }),
    openMs: duration({ default: '2s', min: 10, help: 'How long no request is sent then; after it, one that tries.' }),
  }),
});

export type UpstreamConfig = ValueOf<typeof upstreamSection>;

export interface UpstreamRequest {
  readonly method: string;
  /** Origin form. */
  readonly target: string;
  /** End-to-end fields; Host and framing are added here. */
  readonly headers: HeaderList;
  readonly body?: Buffer;
  /** Hears interim answers. */
  onInterim?(status: number, headers: HeaderList): void;
}

/** Why no answer came. */
export const UPSTREAM_FAILURES = [
  'connect',
  'connect_timeout',
  'tls',
  'head_timeout',
  'reset',
  'garbage',
  'breaker_open',
  'overloaded',
  'left',
] as const;
export type UpstreamFailure = (typeof UPSTREAM_FAILURES)[number];

export interface Answered {
  readonly kind: 'answered';
  readonly status: number;
  /** End-to-end fields only, in the order sent, names in lower case, values as latin-1. */
  readonly headers: HeaderList;
  /** Must be read to its end or destroyed. Fails where the origin's bytes end short of what it announced. */
  readonly body: Readable;
  /** What the origin says the body's size is, or null. */
  readonly sizeBytes: number | null;
  readonly requestedAt: EpochMs;
  readonly receivedAt: EpochMs;
}

export type UpstreamOutcome =
  | Answered
  | {
      readonly kind: 'failed';
      readonly failure: UpstreamFailure;
      /** What the connection said, for the log. */
      readonly cause?: Error;
    };

export interface Upstream {
  /** `signal` ends the request, its body included. */
  fetch(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome>;
  /**
   * A conversation of the edge's own on connections apart: past the breaker,
   * without a limit on the time between two pieces of the body. Rejects where
   * no head comes.
   */
  fetchOwn(
    request: { readonly method: string; readonly path: string; readonly headers: HeaderList; readonly body?: Buffer },
    signal: AbortSignal,
  ): Promise<{ readonly status: number; readonly body: Readable }>;
  /** Whether the last thing heard of the origin was good. */
  readonly reachable: boolean;
  /** What was wrong with the origin's certificate when it was last shown; null: nothing. */
  readonly tlsTrouble: TlsTrouble | null;
  stats(): UpstreamFigures;
  close(): Promise<void>;
}

export interface UpstreamFigures {
  readonly breaker: BreakerState;
  readonly inFlight: number;
  readonly requests: number;
  readonly failures: number;
}

export function openUpstream(deps: {
  readonly config: UpstreamConfig;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}): Upstream {
  const { config, clock } = deps;
  const tls = readOriginTls(config);
  const pool = openPool(config, tls, { connections: config.connectionsMax, bodyTimeout: config.idleMs });
  const ownPool = openPool(config, tls, { connections: OWN_CONNECTIONS_MAX, bodyTimeout: 0 });
  const host = new URL(config.url).host;
  const breaker = createBreaker(config.breaker, clock);
  const failures = deps.metrics.counter('edge_upstream_failures_total', 'Requests to the origin without an answer.', [
    'failure',
  ]);
  const requests = deps.metrics.counter('edge_upstream_requests_total', 'Requests sent to the origin.');
  const certificate = watchCertificate(deps.log);
  const held = { inFlight: 0, reachable: true, requests: 0, failures: 0 };

  async function fetch(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome> {
    for (let attempt = 0; ; attempt += 1) {
      const outcome = await attemptOnce(request, signal);
      if (outcome.kind === 'answered') return outcome;
      failures.add(1, { failure: outcome.failure });
      held.failures += 1;
      if (attempt >= config.retries || !mayRetry(request.method, outcome.failure) || signal.aborted) return outcome;
    }
  }

  async function attemptOnce(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome> {
    if (signal.aborted) return { kind: 'failed', failure: 'left' };
    if (held.inFlight >= config.connectionsMax + config.waitingMax) return { kind: 'failed', failure: 'overloaded' };
    const pass = breaker.enter();
    if (pass === 'refused') return { kind: 'failed', failure: 'breaker_open' };
    held.inFlight += 1;
    held.requests += 1;
    requests.add();
    const outcome = await dispatch({ pool, host, clock, request, signal, waitMs: config.headWithinMs }, () => {
      held.inFlight -= 1;
    });
    report(breaker, outcome, held);
    certificate.heard(outcome);
    return outcome;
  }

  return {
    fetch,
    async fetchOwn({ method, path, headers, body }, signal) {
      const request = { method, target: path, headers, ...(body !== undefined && { body }) };
      const order = { pool: ownPool, host, clock, request, signal, waitMs: config.headWithinMs };
      const outcome = await dispatch(order, () => undefined);
      certificate.heard(outcome);
      if (outcome.kind === 'answered') return { status: outcome.status, body: outcome.body };
      const cause = outcome.cause ?? new Error(outcome.failure);
      throw new Fault('bad_gateway', 'The origin cannot be reached.', { cause });
    },
    get reachable() {
      return held.reachable;
    },
    get tlsTrouble() {
      return certificate.trouble;
    },
    stats: () => ({
      breaker: breaker.state,
      inFlight: held.inFlight,
      requests: held.requests,
      failures: held.failures,
    }),
    async close() {
      await Promise.all([pool.destroy(), ownPool.destroy()]);
    },
  };
}

function report(breaker: Breaker, outcome: UpstreamOutcome, held: { reachable: boolean }): void {
  if (outcome.kind === 'answered') {
    breaker.succeeded();
    held.reachable = true;
  } else if (outcome.failure === 'left') {
    breaker.abandoned();
  } else {
    breaker.failed();
    held.reachable = false;
  }
}

/** Tells once of each trouble with the origin's certificate, and knows whether it is over. */
function watchCertificate(log: Log): { readonly trouble: TlsTrouble | null; heard(outcome: UpstreamOutcome): void } {
  let trouble: TlsTrouble | null = null;
  return {
    get trouble() {
      return trouble;
    },
    heard(outcome) {
      if (outcome.kind === 'answered') trouble = null;
      if (outcome.kind === 'answered' || outcome.failure !== 'tls') return;
      const found = tlsTroubleOf(outcome.cause) ?? 'handshake';
      if (found === trouble) return;
      trouble = found;
      log.error({ trouble, ...errorFields(outcome.cause) }, 'the origin cannot be trusted: its TLS is not accepted');
    },
  };
}

/** The journal's stream, its confirmations, and one to spare. */
const OWN_CONNECTIONS_MAX = 3;

function openPool(
  config: UpstreamConfig,
  tls: OriginTls,
  bounds: { readonly connections: number; readonly bodyTimeout: number },
): Pool {
  return new Pool(config.url, {
    ...bounds,
    pipelining: 1,
    headersTimeout: config.headWithinMs,
    keepAliveTimeout: config.keepAliveMs,
    keepAliveMaxTimeout: config.keepAliveMs,
    maxHeaderSize: config.headMaxBytes,
    strictContentLength: true,
    connect: { timeout: config.connectWithinMs, ...tls },
  });
}

/** RFC 9110 9.2.2: only what is idempotent, and only where no head has come; a timeout would double the wait. */
function mayRetry(method: string, failure: UpstreamFailure): boolean {
  return (method === 'GET' || method === 'HEAD') && (failure === 'reset' || failure === 'connect');
}

interface Dispatched {
  readonly pool: Pool;
  readonly host: string;
  readonly clock: Clock;
  readonly request: UpstreamRequest;
  readonly signal: AbortSignal;
  /** How long it may wait for a connection. */
  readonly waitMs: number;
}

/** One request on one connection. `done` is called once, when nothing of it is left. */
function dispatch(
  { pool, host, clock, request, signal, waitMs }: Dispatched,
  done: () => void,
): Promise<UpstreamOutcome> {
  return new Promise((resolve) => {
    const requestedAt = clock.now();
    let controller: Dispatcher.DispatchController | undefined;
    let body: Readable | undefined;
    let givenUp = false;
    /** Ends it at once for whoever waits; what undici still holds ends when it comes to it. */
    const giveUp = (failure: UpstreamFailure): void => {
      givenUp = true;
      controller?.abort(LEFT);
      body?.destroy(LEFT);
      resolve({ kind: 'failed', failure });
    };
    const leave = (): void => giveUp('left');
    const waiting = clock.after(waitMs, () => giveUp('head_timeout'));
    const finish = (): void => {
      waiting.cancel();
      signal.removeEventListener('abort', leave);
      done();
    };
    signal.addEventListener('abort', leave, { once: true });
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart(given) {
        controller = given;
        waiting.cancel();
        if (givenUp) given.abort(LEFT);
      },
      onResponseStart(given, status) {
        const headers = endToEnd(rawFields(Array.isArray(given.rawHeaders) ? given.rawHeaders : []));
        // RFC 9110 15.2: interim answers are not the answer.
        if (status < 200) {
          request.onInterim?.(status, headers);
          return;
        }
        body = bodyOf(given);
        resolve({
          kind: 'answered',
          status,
          headers,
          body,
          sizeBytes: announcedSize(request.method, status, headers),
          requestedAt,
          receivedAt: clock.now(),
        });
      },
      onResponseData(given, chunk) {
        if (body?.push(chunk) === false) given.pause();
      },
      onResponseEnd() {
        body?.push(null);
        finish();
      },
      onResponseError(_given, error) {
        body?.destroy(error);
        finish();
        resolve({ kind: 'failed', failure: failureOf(error), cause: error });
      },
    };
    pool.dispatch(
      {
        method: request.method,
        path: request.target,
        headers: ['host', host, ...request.headers.flat()],
        body: request.body ?? null,
      },
      handler,
    );
  });
}

const LEFT = new Error('nobody waits for it any more');

function bodyOf(controller: Dispatcher.DispatchController): Readable {
  const body = new Readable({
    highWaterMark: BODY_AHEAD_BYTES,
    read: () => controller.resume(),
    destroy(error, done) {
      // A no-op once the answer is complete.
      controller.abort(error ?? LEFT);
      done(error);
    },
  });
  // Whoever reads hears of a failure all the same; nobody reads the body of an answer that is thrown away.
  return body.on('error', () => undefined);
}

/** How much of a body may wait here for whoever reads it. */
const BODY_AHEAD_BYTES = 65_536;

function failureOf(error: Error): UpstreamFailure {
  if (error === LEFT) return 'left';
  const code = errorCode(error);
  if (code === 'UND_ERR_CONNECT_TIMEOUT') return 'connect_timeout';
  if (code === 'UND_ERR_HEADERS_TIMEOUT') return 'head_timeout';
  if (code === 'UND_ERR_HEADERS_OVERFLOW' || error.name === 'HTTPParserError') return 'garbage';
  if (code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE') return 'reset';
  return tlsTroubleOf(error) === undefined ? 'connect' : 'tls';
}

function announcedSize(method: string, status: number, headers: HeaderList): number | null {
  if (status === 204 || status === 304) return method === 'HEAD' ? null : 0;
  return contentLength(headers);
}

/** The whole body, or undefined where it is longer or breaks. */
export async function readAtMost(
  body: AsyncIterable<Buffer> & { destroy(): unknown },
  maxBytes: number,
): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const chunk of body) {
      sizeBytes += chunk.length;
      if (sizeBytes > maxBytes) return undefined;
      chunks.push(chunk);
    }
    return Buffer.concat(chunks, sizeBytes);
  } catch {
    return undefined;
  }
}
