/**
 * Whether this edge may trust what it holds. Pure state over a clock that never
 * jumps: it knows when the edge last was known to be current with the journal,
 * and says what may be done with a cached copy now.
 *
 * Promises: neither wall clock plays a part, this one's or the origin's, so
 * skew cannot prolong a lease; a beat that was long under way renews only as
 * much as it is worth. Leaves asking the origin to the engine.
 */
import type { EpochMs } from '../../src/clock.js';
import { choice, duration, section, type ValueOf } from '../../src/config/field.js';

export const leaseSection = section('What the edge does once it is cut off from the takedown journal.', {
  ttlMs: duration({
    default: '10s',
    min: 500,
    max: 3_600_000,
    help: 'How long cached copies are trusted without word from the journal. Several times the beat of the origin.',
  }),
  mode: choice({
    default: 'revalidate',
    of: ['revalidate', 'refuse', 'serve'],
    help: 'After that: ask the origin about every copy, answer 503, or go on serving for `serve_max`.',
  }),
  serveMaxMs: duration({
    default: '10m',
    min: 0,
    max: 86_400_000,
    help: 'With mode `serve`: how long after the lease has ended. Later on, every copy is revalidated.',
  }),
});

export type LeaseConfig = ValueOf<typeof leaseSection>;

/** `revalidate`: only what the origin has just confirmed. `refuse`: nothing from the cache. */
export type LeaseVerdict = 'yes' | 'revalidate' | 'refuse';

export type LeaseState =
  /** Never current since this edge started. */
  | { readonly kind: 'new' }
  | { readonly kind: 'held'; readonly currentMsAgo: number }
  | { readonly kind: 'lapsed'; readonly currentMsAgo: number };

export interface Lease {
  mayServe(): LeaseVerdict;
  state(): LeaseState;
}

/** The follower's side of it. */
export interface LeaseHold extends Lease {
  /** Everything the origin had committed at this instant of the monotonic clock is applied. */
  currentAt(monotonicMs: number): void;
}

export function createLease(config: LeaseConfig, clock: { monotonicMs(): number }): LeaseHold {
  let heldFrom: number | undefined;
  const state = (): LeaseState => {
    if (heldFrom === undefined) return { kind: 'new' };
    const currentMsAgo = clock.monotonicMs() - heldFrom;
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
    currentAt(monotonicMs) {
      if (heldFrom === undefined || monotonicMs > heldFrom) heldFrom = monotonicMs;
    },
  };
}

/**
 * How much longer than the quickest one a beat was under way, told without
 * comparing the two wall clocks: only their difference over time counts. A step
 * of the origin's clock shows as delay at worst, never as less of it.
 */
export function createDelayGauge(): { delayMs(sentAt: EpochMs, arrivedMonotonicMs: number): number } {
  let least: number | undefined;
  return {
    delayMs(sentAt, arrivedMonotonicMs) {
      const apart = arrivedMonotonicMs - sentAt;
      least = Math.min(least ?? apart, apart);
      return apart - least;
    },
  };
}
