/**
 * A circuit breaker. After a number of failures in a row, spread over some
 * time, it opens and lets no request through for a while; then it lets one
 * through, whose outcome closes or opens it again. A burst of failures at one
 * instant, as when all pooled connections break, does not open it. Pure except
 * for its clock.
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
  /** Called before each request. A request that is let in must report one of the three endings below. */
  enter(): 'let_in' | 'refused';
  succeeded(): void;
  failed(): void;
  /** The request ended for a reason that says nothing about the origin. */
  abandoned(): void;
  /** Opens at once: it is known that the origin is away. */
  trip(): void;
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
      // The trial request says nothing, so the next request may try at once.
      if (state.kind === 'half_open') state = { kind: 'open', untilMs: clock.monotonicMs() };
    },
    trip() {
      if (config.enabled) state = open();
    },
    get state() {
      return state.kind;
    },
  };
}
