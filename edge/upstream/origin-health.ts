/**
 * Whether one of several origins is up. It is asked only while there is a reason: a request has waited for it for a
 * while and nothing else was heard from it, it has answered that it cannot serve, or it was down. A healthy origin
 * costs nothing.
 *
 * Promises: requests that wait for an origin that answers nothing are told so within `ask_after` and `answer_within`,
 * whatever their own limits are; the last origin that is up is never taken for down because it is slow.
 */
import { type Clock, type Timer, withDeadline } from '../../src/clock.js';
import type { Log } from '../../src/log.js';
import type { Breaker } from './breaker.js';

/** `unready`: it answers, and says that it cannot serve. It is asked after those that are up. */
export type OriginState = 'up' | 'unready' | 'down';

export interface OriginHealth {
  readonly state: OriginState;
  /** Something has arrived from the origin. */
  heard(): void;
  /** The origin has answered a request with 502, 503 or 504. */
  doubted(): void;
  /** A request found nobody at its address. */
  lost(): void;
  /** A request has ended, and the breaker was told. */
  recheck(): void;
  /**
   * Somebody waits for the origin, from now on. `onSilent` is called once, if the origin does not even answer `/healthz`
   * after it was quiet for `quietMs`. Returns how to stop.
   */
  watch(quietMs: number, onSilent: () => void): () => void;
  close(): void;
}

export interface OriginHealthDeps {
  readonly url: string;
  readonly breaker: Breaker;
  readonly answerWithinMs: number;
  /** How often, and with which limit, an origin that is not up is asked. */
  readonly retryMs: number;
  readonly retryWithinMs: number;
  /** The status of its answer. Rejects if there is none. */
  ask(target: '/healthz' | '/readyz', signal: AbortSignal): Promise<number>;
  /** Whether another origin is up. */
  othersUp(): boolean;
  readonly clock: Clock;
  readonly log: Log;
}

export function followHealth(deps: OriginHealthDeps): OriginHealth {
  const { breaker, clock, log, url } = deps;
  const closing = new AbortController();
  let unready = false;
  let heardMs = clock.monotonicMs();
  let asking: Promise<boolean> | undefined;
  let retry: Timer | undefined;
  let told: OriginState = 'up';
  const state = (): OriginState => (breaker.state !== 'closed' ? 'down' : unready ? 'unready' : 'up');

  /** Undefined: no answer in time. */
  async function ask(target: '/healthz' | '/readyz', ms: number): Promise<number | undefined> {
    const late = (): Error => new Error('the origin took too long');
    try {
      return await withDeadline({ clock, ms, late, signal: closing.signal }, (signal) => deps.ask(target, signal));
    } catch {
      return undefined;
    }
  }

  function recheck(): void {
    const now = state();
    if (now !== told) {
      told = now;
      if (now === 'up') log.info({ origin: url }, 'an origin is up again');
      else log.warn({ origin: url, state: now }, 'an origin is not up; requests go to the others');
    }
    if (now !== 'up' && !closing.signal.aborted) retry ??= clock.after(deps.retryMs, () => void tryAgain());
  }

  /** Asks until it is up. A request of a client is not used for this: it would wait for an origin that is away. */
  async function tryAgain(): Promise<void> {
    if (breaker.state === 'closed' || breaker.enter() === 'let_in') {
      const status = await ask('/readyz', deps.retryWithinMs);
      if (closing.signal.aborted) return;
      if (status !== undefined) {
        heardMs = clock.monotonicMs();
        breaker.succeeded();
        unready = status >= 500;
      } else if (breaker.state === 'closed') giveUp();
      else breaker.failed();
    }
    retry = undefined;
    recheck();
  }

  function giveUp(): void {
    if (deps.othersUp()) breaker.trip();
    recheck();
  }

  function askAlive(): Promise<boolean> {
    asking ??= (async () => {
      const status = await ask('/healthz', deps.answerWithinMs);
      asking = undefined;
      if (status !== undefined) heardMs = clock.monotonicMs();
      else if (!closing.signal.aborted) giveUp();
      return status !== undefined;
    })();
    return asking;
  }

  return {
    get state() {
      return state();
    },
    heard() {
      heardMs = clock.monotonicMs();
    },
    doubted() {
      if (retry !== undefined || closing.signal.aborted) return;
      retry = clock.after(0, () => void tryAgain());
    },
    lost: giveUp,
    recheck,
    watch(quietMs, onSilent) {
      const sinceMs = clock.monotonicMs();
      let stopped = false;
      let timer = clock.after(quietMs, check);
      function check(): void {
        const leftMs = quietMs - (clock.monotonicMs() - Math.max(heardMs, sinceMs));
        if (leftMs > 0) {
          timer = clock.after(leftMs, check);
          return;
        }
        void askAlive().then((alive) => {
          if (stopped) return;
          if (alive) timer = clock.after(quietMs, check);
          else onSilent();
        });
      }
      return () => {
        stopped = true;
        timer.cancel();
      };
    },
    close() {
      closing.abort();
      retry?.cancel();
    },
  };
}
