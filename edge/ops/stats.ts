/**
 * What the edge tells of itself at an instant, as plain values: the source of
 * `/stats`, of the live page and of the gauges among the metrics.
 */
import type { Clock } from '../../src/clock.js';
import type { CacheStats } from '../cache/cache.js';
import type { FollowerState } from '../journal/follow.js';
import type { LeaseState, LeaseVerdict } from '../journal/lease.js';

/** How a request ended, seen from the cache. */
export const OUTCOMES = [
  'hit_memory',
  'hit_disk',
  'hit_filling',
  'stale',
  'revalidated',
  'miss',
  'pass',
  'refused',
  'failed',
  /** Of the edge itself: its health. */
  'own',
] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** Counts requests as they end; made once, called by the engine. */
export interface Tally {
  count(outcome: Outcome, sentBytes: number): void;
  readonly counts: Readonly<Record<Outcome, { readonly requests: number; readonly bytes: number }>>;
}

export function createTally(): Tally {
  const entries = OUTCOMES.map((outcome) => [outcome, { requests: 0, bytes: 0 }] as const);
  const counts = Object.fromEntries(entries) as Record<Outcome, { requests: number; bytes: number }>;
  return {
    counts,
    count(outcome, sentBytes) {
      const held = counts[outcome];
      held.requests += 1;
      held.bytes += sentBytes;
    },
  };
}

/** What the upstream tells of itself. */
export interface UpstreamStats {
  readonly breaker: 'closed' | 'open' | 'half_open';
  readonly inFlight: number;
  readonly requests: number;
  readonly failures: number;
}

export interface StatsSources {
  readonly clock: Clock;
  readonly edgeName: string;
  readonly version: string;
  readonly tally: Tally;
  cache(): CacheStats;
  journal(): FollowerState;
  lease(): { readonly verdict: LeaseVerdict; readonly state: LeaseState };
  upstream(): UpstreamStats;
  passing(): number;
}
