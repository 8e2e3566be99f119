/**
 * A circuit breaker: after so many failures in a row nothing is sent for a
 * while, then one request tries, and its outcome decides. Pure but for the
 * clock it is handed.
 */
import type { Clock, EpochMs } from '../src/clock.js';

export interface BreakerConfig {
  readonly enabled: boolean;
  readonly failures: number;
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
  | { readonly kind: 'closed'; readonly failures: number }
  | { readonly kind: 'open'; readonly until: EpochMs }
  | { readonly kind: 'half_open' };

export function createBreaker(config: BreakerConfig, clock: Pick<Clock, 'monotonicMs'>): Breaker {
  let state: State = { kind: 'closed', failures: 0 };
  const open = (): State => ({ kind: 'open', until: clock.monotonicMs() + config.openMs });
  return {
    enter() {
      if (!config.enabled || state.kind === 'closed') return 'let_in';
      if (state.kind === 'half_open' || clock.monotonicMs() < state.until) return 'refused';
      state = { kind: 'half_open' };
      return 'let_in';
    },
    succeeded() {
      state = { kind: 'closed', failures: 0 };
    },
    failed() {
      if (state.kind === 'half_open') state = open();
      else if (state.kind === 'closed') {
        const failures = state.failures + 1;
        state = failures >= config.failures ? open() : { kind: 'closed', failures };
      }
    },
    abandoned() {
      // The one that tried has told nothing: the next may try at once.
      if (state.kind === 'half_open') state = { kind: 'open', until: clock.monotonicMs() };
    },
    get state() {
      return state.kind;
    },
  };
}
