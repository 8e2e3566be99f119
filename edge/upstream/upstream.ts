/**
 * The way to the origins: sends requests over pooled connections, repeats those
 * that are safe to repeat, at another origin where there are several, and keeps a
 * circuit breaker for each, so that an origin that is down gets no requests and
 * callers do not wait for it.
 *
 * Promises an outcome for each fetch, never a rejection. Requests of the edge
 * itself, the journal's above all, go to one origin until `moveOn`. Redirects are
 * responses like any other. Leaves to others: what is requested, what the
 * response means, and whether it is stored.
 */
import type { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import { Fault, invariant } from '../../src/errors.js';
import type { Log } from '../../src/log.js';
import { Durations, type Metrics } from '../../src/metrics.js';
import type { BreakerState } from './breaker.js';
import { originUrls, type UpstreamConfig } from './config.js';
import { type Origin, openOrigin } from './origin.js';
import type { OriginState } from './origin-health.js';
import { poolLimits } from './pool.js';
import type { Answered, UpstreamFailure, UpstreamOutcome, UpstreamRequest } from './request.js';
import { inOrderFor } from './spread.js';
import { readOriginTls, type TlsTrouble } from './tls.js';

export interface Upstream {
  /** `signal` ends the request, its body included. */
  fetch(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome>;
  /**
   * Sends a request of the edge itself, such as the journal's, on separate
   * connections: without the breaker, and without a limit on the time between
   * two pieces of the body. All go to the same origin. Rejects if there is no response.
   */
  fetchOwn(
    request: Pick<UpstreamRequest, 'method' | 'target' | 'headers' | 'body'>,
    signal: AbortSignal,
  ): Promise<{ readonly status: number; readonly body: Readable }>;
  /** Asks every origin whether it lives, and so learns which are down. Why none has answered, if none has. */
  askAll(signal: AbortSignal): Promise<'answered' | UpstreamFailure>;
  /** Requests of the edge itself go to another origin from now on. False: no other is up. */
  moveOn(): boolean;
  /** The origins in the order in which to ask them for what has this key: first those that are up. At least one. */
  inOrder(key: string): readonly Origin[];
  /** What was wrong with an origin's certificate at the last connection; null: nothing. */
  readonly tlsTrouble: TlsTrouble | null;
  stats(): UpstreamStats;
  close(): Promise<void>;
}

export interface UpstreamStats {
  /** Closed if that of any origin is. */
  readonly breaker: BreakerState;
  readonly inFlight: number;
  readonly requests: number;
  readonly failures: number;
  /** As they stand in the configuration. */
  readonly origins: readonly OriginStats[];
}

export interface OriginStats {
  readonly url: string;
  readonly state: OriginState;
  /** The journal is followed there. */
  readonly followed: boolean;
  readonly requests: number;
  readonly failures: number;
}

export function openUpstream(deps: {
  readonly config: UpstreamConfig;
  /** Chooses the origin that this edge follows at first. */
  readonly edgeName?: string;
  /** Called whenever the origin has answered `fetch`. */
  onAnswered?(): void;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}): Upstream {
  const { config, metrics } = deps;
  const meters = createMeters(metrics);
  const origins = openOrigins(deps, meters);
  let followed = first(inOrderFor(deps.edgeName ?? '', origins));
  metrics.onCollect(() => {
    for (const each of origins) {
      const origin = new URL(each.url).host;
      meters.up.set(each.state === 'up' ? 1 : 0, { origin });
      meters.followed.set(each === followed ? 1 : 0, { origin });
    }
  });

  function inOrder(key: string): readonly Origin[] {
    const spread = inOrderFor(key, origins);
    return spread.every(({ state }) => state === 'up')
      ? spread
      : spread.toSorted((a, b) => RANK[a.state] - RANK[b.state]);
  }

  async function fetch(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome> {
    const order = inOrder(request.target);
    /** An answer that says no, in case the others have no better one. */
    let held: Answered | undefined;
    for (let attempt = 0; ; attempt += 1) {
      const origin = order[attempt % order.length] ?? first(order);
      const hasNext = attempt + 1 < order.length;
      const outcome = await attemptOnce(origin, request, hasNext && isSafe(request.method), signal);
      if (outcome.kind === 'answered') {
        held?.body.destroy();
        held = undefined;
        if (!hasNext || !isSafe(request.method) || !saysUnable(outcome.status)) return outcome;
        origin.doubted();
        held = outcome;
      } else {
        const { failure } = outcome;
        const again = hasNext
          ? mayMove(request.method, failure)
          : attempt + 1 < order.length + config.retries && mayRetry(request.method, failure);
        if (!again || signal.aborted) return held ?? outcome;
      }
      if (hasNext) meters.moved.add(1, { reason: outcome.kind === 'failed' ? outcome.failure : 'unable' });
    }
  }

  async function attemptOnce(
    origin: Origin,
    request: UpstreamRequest,
    mayMove: boolean,
    signal: AbortSignal,
  ): Promise<UpstreamOutcome> {
    const startedMs = deps.clock.monotonicMs();
    const outcome = await origin.send(request, mayMove, signal);
    if (outcome.kind === 'answered') meters.firstByte.add(deps.clock.monotonicMs() - startedMs);
    if (outcome.kind === 'answered') deps.onAnswered?.();
    else meters.failed.add(1, { failure: outcome.failure });
    return outcome;
  }

  return {
    fetch,
    async fetchOwn(request, signal) {
      const outcome = await followed.sendOwn(request, signal);
      if (outcome.kind === 'answered') return { status: outcome.status, body: outcome.body };
      const cause = outcome.cause ?? new Error(outcome.failure);
      throw new Fault('bad_gateway', 'The origin cannot be reached.', { cause });
    },
    async askAll(signal) {
      const request = { method: 'HEAD', target: '/healthz', headers: [] };
      const asked = origins.map(async (origin) => {
        const outcome = await attemptOnce(origin, request, origins.length > 1, signal);
        if (outcome.kind === 'failed') return outcome.failure;
        outcome.body.destroy();
        return 'answered';
      });
      const outcomes = await Promise.all(asked);
      return outcomes.includes('answered') ? 'answered' : (outcomes[0] ?? 'connect');
    },
    moveOn() {
      const next = inOrder(deps.edgeName ?? '').find((each) => each !== followed);
      if (next === undefined) return false;
      followed = next;
      return next.state === 'up';
    },
    inOrder,
    get tlsTrouble() {
      return origins.find(({ tlsTrouble }) => tlsTrouble !== null)?.tlsTrouble ?? null;
    },
    stats: () => statsOf(origins, followed),
    async close() {
      await Promise.all(origins.map((origin) => origin.close()));
    },
  };
}

/** Those that answer and say that they cannot serve come after those that are up; those that are down come last. */
const RANK: Readonly<Record<OriginState, number>> = { up: 0, unready: 1, down: 2 };

function first(origins: readonly Origin[]): Origin {
  const [origin] = origins;
  invariant(origin !== undefined, 'there is an origin');
  return origin;
}

function openOrigins(
  { config, clock, log }: { readonly config: UpstreamConfig; readonly clock: Clock; readonly log: Log },
  meters: Meters,
): readonly Origin[] {
  const urls = originUrls(config);
  const tls = readOriginTls(config);
  const limits = {
    ...poolLimits(config),
    onDropped: () => meters.slow.add(),
    onReceived: (bytes: number) => meters.received(bytes),
  };
  const onSent = (): void => meters.sent.add();
  const origins: Origin[] = urls.map((url, index) => {
    const others = (): readonly Origin[] => origins.filter((_each, at) => at !== index);
    const othersUp = urls.length === 1 ? null : () => others().some(({ state }) => state === 'up');
    return openOrigin({ url, config, tls, limits, othersUp, onSent, clock, log });
  });
  return origins;
}

/** RFC 9110 9.2.1. */
function isSafe(method: string): boolean {
  return method === 'GET' || method === 'HEAD';
}

/** The origin, or a gateway before it, cannot serve: another may. */
export function saysUnable(status: number): boolean {
  return status >= 502 && status <= 504;
}

/** Whether another origin may be asked: nothing was sent, or the request is safe and nothing was answered. */
function mayMove(method: string, failure: UpstreamFailure): boolean {
  switch (failure) {
    case 'connect':
    case 'connect_timeout':
    case 'tls':
    case 'breaker_open':
    case 'overloaded':
      return true;
    case 'reset':
    case 'silent':
      return isSafe(method);
    // A timeout at the next one would double the wait, and what an origin says wrongly the others may say too.
    case 'head_timeout':
    case 'garbage':
    case 'outdated':
    case 'left':
      return false;
  }
}

/**
 * RFC 9110 9.2.2: only idempotent requests, and only if no response has begun.
 * A timeout is not retried: that would double the wait.
 */
function mayRetry(method: string, failure: UpstreamFailure): boolean {
  return isSafe(method) && (failure === 'reset' || failure === 'connect');
}

function statsOf(origins: readonly Origin[], followed: Origin): UpstreamStats {
  const sum = (of: (origin: Origin) => number): number => origins.reduce((total, origin) => total + of(origin), 0);
  const breakers = origins.map(({ breaker }) => breaker);
  return {
    breaker: breakers.includes('closed') ? 'closed' : (breakers[0] ?? 'closed'),
    inFlight: sum(({ inFlight }) => inFlight),
    requests: sum(({ requests }) => requests),
    failures: sum(({ failures }) => failures),
    origins: origins.map((origin) => {
      const { url, state, requests, failures } = origin;
      return { url, state, followed: origin === followed, requests, failures };
    }),
  };
}

type Meters = ReturnType<typeof createMeters>;

function createMeters(metrics: Metrics) {
  const firstByte = new Durations();
  let receivedBytes = 0;
  metrics.durations('edge_upstream_first_byte_seconds', 'Time until an origin had answered.', () => [
    { labels: {}, durations: firstByte },
  ]);
  metrics.totals('edge_upstream_received_bytes_total', 'Bytes of bodies that came from an origin.', () => [
    { labels: {}, value: receivedBytes },
  ]);
  return {
    firstByte,
    received(bytes: number): void {
      receivedBytes += bytes;
    },
    slow: metrics.counter(
      'edge_upstream_slow_clients_total',
      'Responses that ended because their client read too slowly while others waited for a connection.',
    ),
    failed: metrics.counter('edge_upstream_failures_total', 'Requests to an origin without an answer.', ['failure']),
    sent: metrics.counter('edge_upstream_requests_total', 'Requests sent to an origin.'),
    moved: metrics.counter(
      'edge_upstream_moved_total',
      'Requests that went on to another origin, by what was wrong with the one before.',
      ['reason'],
    ),
    up: metrics.gauge('edge_upstream_origin_up', '1 while the origin is up, else 0.', ['origin'], 'min'),
    followed: metrics.gauge('edge_upstream_origin_followed', '1 if the journal is followed at this origin, else 0.', [
      'origin',
    ]),
  };
}
