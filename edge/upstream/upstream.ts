/**
 * The way to the origin: sends requests over pooled connections, retries those
 * that are safe to repeat, and keeps a circuit breaker, so that an origin that
 * is down gets no requests and callers do not wait for it.
 *
 * Promises an outcome for each fetch, never a rejection. Redirects are
 * responses like any other. Leaves to others: what is requested, what the
 * response means, and whether it is stored.
 */
import type { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import { type Breaker, type BreakerState, createBreaker } from './breaker.js';
import type { UpstreamConfig } from './config.js';
import { openPool, poolLimits } from './pool.js';
import type { UpstreamFailure, UpstreamOutcome, UpstreamRequest } from './request.js';
import { readOriginTls, type TlsTrouble, tlsTroubleOf } from './tls.js';

export interface Upstream {
  /** `signal` ends the request, its body included. */
  fetch(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome>;
  /**
   * Sends a request of the edge itself, such as the journal's, on separate
   * connections: without the breaker, and without a limit on the time between
   * two pieces of the body. Rejects if there is no response.
   */
  fetchOwn(
    request: Pick<UpstreamRequest, 'method' | 'target' | 'headers' | 'body'>,
    signal: AbortSignal,
  ): Promise<{ readonly status: number; readonly body: Readable }>;
  /** What was wrong with the origin's certificate at the last connection; null: nothing. */
  readonly tlsTrouble: TlsTrouble | null;
  stats(): UpstreamStats;
  close(): Promise<void>;
}

export interface UpstreamStats {
  readonly breaker: BreakerState;
  readonly inFlight: number;
  readonly requests: number;
  readonly failures: number;
}

/** For the journal's stream, its confirmations, and one more. */
const OWN_CONNECTIONS_MAX = 3;

export function openUpstream(deps: {
  readonly config: UpstreamConfig;
  /** Called whenever the origin has answered `fetch`. */
  onAnswered?(): void;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}): Upstream {
  const { config, clock, metrics } = deps;
  const tls = readOriginTls(config);
  const slow = metrics.counter(
    'edge_upstream_slow_clients_total',
    'Responses that ended because their client read too slowly while others waited for a connection.',
  );
  const limits = poolLimits(config);
  const pool = openPool(config, tls, { ...limits, onDropped: () => slow.add() }, clock);
  const ownLimits = { ...limits, connectionsMax: OWN_CONNECTIONS_MAX, slowMax: 0, idleMs: 0 };
  const ownPool = openPool(config, tls, ownLimits, clock);
  const breaker = createBreaker(config.breaker, clock);
  const failed = metrics.counter('edge_upstream_failures_total', 'Requests to the origin without an answer.', [
    'failure',
  ]);
  const sent = metrics.counter('edge_upstream_requests_total', 'Requests sent to the origin.');
  const certificate = watchCertificate(deps.log);
  const counts = { requests: 0, failures: 0 };

  async function fetch(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome> {
    for (let attempt = 0; ; attempt += 1) {
      const outcome = await attemptOnce(request, signal);
      if (outcome.kind === 'answered') return outcome;
      failed.add(1, { failure: outcome.failure });
      counts.failures += 1;
      if (attempt >= config.retries || !mayRetry(request.method, outcome.failure) || signal.aborted) return outcome;
    }
  }

  async function attemptOnce(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome> {
    if (signal.aborted) return { kind: 'failed', failure: 'left' };
    if (pool.inFlight >= config.connectionsMax + config.waitingMax) return { kind: 'failed', failure: 'overloaded' };
    if (breaker.enter() === 'refused') return { kind: 'failed', failure: 'breaker_open' };
    counts.requests += 1;
    sent.add();
    const outcome = await pool.send(request, signal);
    reportTo(breaker, outcome);
    certificate.check(outcome);
    if (outcome.kind === 'answered') deps.onAnswered?.();
    return outcome;
  }

  return {
    fetch,
    async fetchOwn(request, signal) {
      const outcome = await ownPool.send(request, signal);
      certificate.check(outcome);
      if (outcome.kind === 'answered') return { status: outcome.status, body: outcome.body };
      const cause = outcome.cause ?? new Error(outcome.failure);
      throw new Fault('bad_gateway', 'The origin cannot be reached.', { cause });
    },
    get tlsTrouble() {
      return certificate.trouble;
    },
    stats: () => ({ breaker: breaker.state, inFlight: pool.inFlight, ...counts }),
    async close() {
      await Promise.all([pool.close(), ownPool.close()]);
    },
  };
}

/**
 * RFC 9110 9.2.2: only idempotent requests, and only if no response has begun.
 * A timeout is not retried: that would double the wait.
 */
function mayRetry(method: string, failure: UpstreamFailure): boolean {
  return (method === 'GET' || method === 'HEAD') && (failure === 'reset' || failure === 'connect');
}

function reportTo(breaker: Breaker, outcome: UpstreamOutcome): void {
  if (outcome.kind === 'answered') breaker.succeeded();
  else if (outcome.failure === 'left') breaker.abandoned();
  else breaker.failed();
}

/** Logs each new trouble with the origin's certificate once, and knows whether it is over. */
function watchCertificate(log: Log): { readonly trouble: TlsTrouble | null; check(outcome: UpstreamOutcome): void } {
  let trouble: TlsTrouble | null = null;
  return {
    get trouble() {
      return trouble;
    },
    check(outcome) {
      if (outcome.kind === 'answered') trouble = null;
      if (outcome.kind === 'answered' || outcome.failure !== 'tls') return;
      const found = tlsTroubleOf(outcome.cause) ?? 'handshake';
      if (found === trouble) return;
      trouble = found;
      log.error({ trouble, ...errorFields(outcome.cause) }, 'the origin cannot be trusted: its TLS is not accepted');
    },
  };
}
