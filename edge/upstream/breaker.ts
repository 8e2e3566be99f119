/**
 * A circuit breaker: after so many failures in a row, over some time, nothing is
 * sent for a while; then one request tries, and its outcome decides. A burst
 * that fails at one instant, as when a connection pool is cut, opens nothing.
 * Pure but for the clock it is handed.
 */
import type { Clock } from '../../src/clock.js';

export interface BreakerConfig {
  readonly enabled: boolean;
  readonly failures: number;
  readonly afterMs: number;
  readonly openMs: number;
}

export type BreakerState = 'closed' | 'open' | 'half_open';

export interface Breaker {
  /** Asked before each request; who is let in reports one of the three below. */
  enter(): 'let_in' | 'refused';
  succeeded(): void;
  failed(): void;
  /** It ended for reasons that say nothing of the other side. */
  abandoned(): void;
  readonly state: BreakerState;
}

type State =
  | { readonly kind: 'closed'; readonly failures: number; readonly sinceMs: number }
  | { readonly kind: 'open'; readonly untilMs: number }
  | { readonly kind: 'half_open' };

const NO_FAILURE: State = { kind: 'closed', failures: 0, sinceMs: 0 };

export function createBreaker(config: BreakerConfig, clock: Pick<Clock, 'monotonicMs'>): Breaker {
  let state: State = NO_FAILURE;
  const open = (): State => ({ kind: 'open', untilMs: clock.monotonicMs() + config.openMs });
  return {
    enter() {
      if (!config.enabled || state.kind === 'closed') return 'let_in';
      if (state.kind === 'half_open' || clock.monotonicMs() < state.untilMs) return 'refused';
      state = { kind: 'half_open' };
      return 'let_in';
    },
    succeeded() {
      state = NO_FAILURE;
    },
    failed() {
      if (state.kind === 'half_open') state = open();
      else if (state.kind === 'closed') {
        const now = clock.monotonicMs();
        const failures = state.failures + 1;
        const sinceMs = failures === 1 ? now : state.sinceMs;
        const opens = failures >= config.failures && now - sinceMs >= config.afterMs;
        state = opens ? open() : { kind: 'closed', failures, sinceMs };
      }
    },
    abandoned() {
      // The one that tried has told nothing: the next may try at once.
      if (state.kind === 'half_open') state = { kind: 'open', untilMs: clock.monotonicMs() };
    },
    get state() {
      return state.kind;
    },
  };
}
