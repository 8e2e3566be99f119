/**
 * The lease: whether this edge may use its cached copies. It remembers when the
 * edge was last known to be current with the journal, by the monotonic clock, and
 * says what may be done with a copy now. With a lapsed lease, mode `refuse`
 * answers every request for media 503 `cut_off` (handler.ts); `revalidate` asks the
 * origin about every copy, and answers 502 or 504 if the origin gives no answer;
 * `serve` goes on serving for `serve_max` and then does as `revalidate`.
 *
 * Promises: it uses no wall clock, so skew cannot prolong it; a beat that arrives
 * late renews it only from the time at which the beat was sent.
 */
import type { EpochMs } from '../../src/clock.js';
import { choice, duration, section, type ValueOf } from '../../src/config/field.js';

export const leaseSection = section('What the edge does when it is cut off from the takedown journal.', {
  ttlMs: duration({
    default: '10s',
    min: 500,
    max: 3_600_000,
    help: 'How long cached copies may be used without a beat of the journal. Choose several beats of the origin.',
  }),
  mode: choice({
    default: 'revalidate',
    of: ['revalidate', 'refuse', 'serve'],
    help: 'After that: revalidate every copy at the origin, answer 503, or go on serving for `serve_max`. While the origin is away, only `serve` lets stale copies be served for longer than `ttl`, whatever `stale_if_error` says.',
  }),
  serveMaxMs: duration({
    default: '10m',
    min: 0,
    max: 86_400_000,
    help: 'Mode `serve`: how long copies are served after the lease has ended. After that, every copy is revalidated.',
  }),
});

export type LeaseConfig = ValueOf<typeof leaseSection>;

/** `yes`: copies may be used. `revalidate`: only after the origin has confirmed them. `refuse`: not at all. */
export type LeaseVerdict = 'yes' | 'revalidate' | 'refuse';

export type LeaseState =
  /** Not current yet since this edge started. */
  | { readonly kind: 'new' }
  | { readonly kind: 'held'; readonly currentMsAgo: number }
  | { readonly kind: 'lapsed'; readonly currentMsAgo: number };

export interface Lease {
  mayServe(): LeaseVerdict;
  state(): LeaseState;
}

/** The lease as the follower sees it. */
export interface RenewableLease extends Lease {
  /** Everything is applied that the origin had committed at this instant of the monotonic clock. */
  renewAt(monotonicMs: number): void;
}

export function createLease(config: LeaseConfig, clock: { monotonicMs(): number }): RenewableLease {
  let currentAtMs: number | undefined;
  const state = (): LeaseState => {
    if (currentAtMs === undefined) return { kind: 'new' };
    const currentMsAgo = clock.monotonicMs() - currentAtMs;
    return { kind: currentMsAgo <= config.ttlMs ? 'held' : 'lapsed', currentMsAgo };
  };
  return {
    state,
    mayServe() {
      const now = state();
      switch (now.kind) {
        case 'held':
          return 'yes';
        case 'new':
          return config.mode === 'refuse' ? 'refuse' : 'revalidate';
        case 'lapsed':
          if (config.mode === 'serve')
            return now.currentMsAgo <= config.ttlMs + config.serveMaxMs ? 'yes' : 'revalidate';
          return config.mode;
      }
    },
    renewAt(monotonicMs) {
      currentAtMs = Math.max(currentAtMs ?? monotonicMs, monotonicMs);
    },
  };
}

/**
 * Measures how much longer a beat was on its way than the fastest beat so far. It
 * needs no agreement of the two clocks: only changes of their difference count. A
 * step of the origin's clock can add delay, but never hide any.
 */
export function createDelayGauge(): { delayMs(sentAt: EpochMs, arrivedMonotonicMs: number): number } {
  let least: number | undefined;
  return {
    delayMs(sentAt, arrivedMonotonicMs) {
      const difference = arrivedMonotonicMs - sentAt;
      least = Math.min(least ?? difference, difference);
      return difference - least;
    },
  };
}
