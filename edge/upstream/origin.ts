/**
 * One origin: its connections, its breaker, and, where there are others, whether it is up. Sends a request once;
 * upstream.ts decides what is sent again and where.
 */
import type { Clock } from '../../src/clock.js';
import { errorFields, type Log } from '../../src/log.js';
import { type Breaker, type BreakerState, createBreaker } from './breaker.js';
import type { UpstreamConfig } from './config.js';
import { followHealth, type OriginHealth } from './origin-health.js';
import { openPool, type PoolLimits } from './pool.js';
import type { UpstreamFailure, UpstreamOutcome, UpstreamRequest } from './request.js';
import { type OriginTls, type TlsTrouble, tlsTroubleOf } from './tls.js';

export interface Origin extends Pick<OriginHealth, 'state' | 'heard' | 'doubted' | 'lost'> {
  /** `http://host:port` or `https://…`, without a path. */
  readonly url: string;
  readonly breaker: BreakerState;
  readonly inFlight: number;
  readonly requests: number;
  readonly failures: number;
  /** What was wrong with its certificate at the last connection; null: nothing. */
  readonly tlsTrouble: TlsTrouble | null;
  /** Through the breaker. `mayMove`: the request is given up if the origin falls silent, since another can be asked. */
  send(request: UpstreamRequest, mayMove: boolean, signal: AbortSignal): Promise<UpstreamOutcome>;
  /** A request of the edge itself: on other connections, without the breaker, and with no limit between two pieces of the body. */
  sendOwn(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamOutcome>;
  /** A request on connections of the caller's waits for its answer: `onSilent` is called if the origin answers nothing any more. Returns how to stop. */
  watch(onSilent: () => void): () => void;
  close(): Promise<void>;
}

export interface OriginDeps {
  readonly url: string;
  readonly config: UpstreamConfig;
  readonly tls: OriginTls;
  readonly limits: PoolLimits;
  /** Null: this is the only origin. Otherwise whether another is up. */
  readonly othersUp: (() => boolean) | null;
  /** A request is sent through the breaker. */
  onSent(): void;
  readonly clock: Clock;
  readonly log: Log;
}

/** For the journal's stream, its confirmations, the question whether the origin is up, and one more. */
const OWN_CONNECTIONS_MAX = 4;
/** Beats arrive every second: a stream that is quiet for longer makes the edge ask. */
const STREAM_QUIET_MS = 1_250;

export function openOrigin(deps: OriginDeps): Origin {
  const { url, config, tls, limits, clock, log } = deps;
  const breaker = createBreaker(config.breaker, clock);
  const heard = (): void => health?.heard();
  const pool = openPool({ ...config, url }, tls, { ...limits, onHeard: heard }, clock);
  const { onDropped: _never, ...rest } = limits;
  const ownLimits = { ...rest, connectionsMax: OWN_CONNECTIONS_MAX, slowMax: 0, idleMs: 0, onHeard: heard };
  const ownPool = openPool({ ...config, url }, tls, ownLimits, clock);
  const certificate = watchCertificate(log);
  const counts = { requests: 0, failures: 0 };
  const health = deps.othersUp === null ? null : healthOf({ ...deps, othersUp: deps.othersUp }, breaker, askThere);
  const { askAfterMs } = config.failover;

  async function askThere(target: string, signal: AbortSignal): Promise<number> {
    const outcome = await ownPool.send({ method: 'HEAD', target, headers: [] }, signal);
    certificate.check(outcome);
    if (outcome.kind === 'failed') throw new Error(outcome.failure);
    outcome.body.destroy();
    return outcome.status;
  }

  function note(outcome: UpstreamOutcome): void {
    certificate.check(outcome);
    if (outcome.kind === 'failed' && outcome.failure === 'connect') health?.lost();
  }

  /** Why nothing is sent. */
  function refusalOf(signal: AbortSignal): UpstreamFailure | undefined {
    if (signal.aborted) return 'left';
    if (pool.inFlight >= config.connectionsMax + config.waitingMax) return 'overloaded';
    return breaker.enter() === 'refused' ? 'breaker_open' : undefined;
  }

  return {
    url,
    get state() {
      return health?.state ?? (breaker.state === 'closed' ? 'up' : 'down');
    },
    get breaker() {
      return breaker.state;
    },
    get inFlight() {
      return pool.inFlight;
    },
    get requests() {
      return counts.requests;
    },
    get failures() {
      return counts.failures;
    },
    get tlsTrouble() {
      return certificate.trouble;
    },
    async send(request, mayMove, signal) {
      const refusal = refusalOf(signal);
      if (refusal !== undefined) {
        counts.failures += 1;
        return { kind: 'failed', failure: refusal };
      }
      counts.requests += 1;
      deps.onSent();
      const watch = mayMove ? (giveUp: () => void) => health?.watch(askAfterMs, giveUp) ?? nothing : undefined;
      const outcome = await pool.send(request, signal, watch);
      if (outcome.kind === 'failed') counts.failures += 1;
      reportTo(breaker, outcome);
      note(outcome);
      health?.recheck();
      return outcome;
    },
    async sendOwn(request, signal) {
      const outcome = await ownPool.send(request, signal, (giveUp) => health?.watch(askAfterMs, giveUp) ?? nothing);
      note(outcome);
      if (outcome.kind === 'answered' && health !== null) {
        const { body } = outcome;
        const stop = health.watch(STREAM_QUIET_MS, () => void body.destroy(new Error('the origin is silent')));
        body.once('close', stop);
      }
      return outcome;
    },
    watch: (onSilent) => health?.watch(askAfterMs, onSilent) ?? nothing,
    heard,
    doubted: () => health?.doubted(),
    lost: () => health?.lost(),
    async close() {
      health?.close();
      await Promise.all([pool.close(), ownPool.close()]);
    },
  };
}

const nothing = (): void => undefined;

function healthOf(
  { url, config, othersUp, clock, log }: OriginDeps & { readonly othersUp: () => boolean },
  breaker: Breaker,
  ask: (target: string, signal: AbortSignal) => Promise<number>,
): OriginHealth {
  return followHealth({
    url,
    breaker,
    answerWithinMs: config.failover.answerWithinMs,
    retryMs: config.breaker.openMs,
    retryWithinMs: config.connectWithinMs,
    ask,
    othersUp,
    clock,
    log,
  });
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
