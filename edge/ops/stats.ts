/**
 * The state of the edge at one instant, as plain values: the source of
 * `/stats`, of the live page and of the gauges among the metrics.
 */
import type { Clock, EpochMs } from '../../src/clock.js';
import type { History } from '../../src/history.js';
import { quantileMs } from '../../src/metrics.js';
import type { CacheStats, TierStats } from '../cache/cache.js';
import type { FollowerState } from '../journal/follow.js';
import type { LeaseState, LeaseVerdict } from '../journal/lease.js';
import type { Outcome } from '../request.js';
import type { UpstreamStats } from '../upstream/upstream.js';
import type { Tally } from './tally.js';
import type { FirstByte } from './traffic.js';

export interface StatsSources {
  readonly edgeName: string;
  readonly startedAt: EpochMs;
  readonly clock: Clock;
  readonly tally: Tally;
  cache(): CacheStats;
  /** Null in generic mode, where there is no journal. */
  journal(): FollowerState | null;
  lease(): { readonly verdict: LeaseVerdict; readonly state: LeaseState } | null;
  upstream(): UpstreamStats;
  passing(): number;
  /** How long it took until there was an answer to send. */
  firstByte(): FirstByte;
  /** When the current policy was read, and the faults of a newer file that was refused. */
  policy(): { readonly readAt: EpochMs; readonly faults: readonly string[] };
}

/** From 0 to 1, or null if nothing was counted yet. */
export type Ratio = number | null;

/** Answered from the cache, without waiting for the origin. */
export const HITS: readonly Outcome[] = ['hit_memory', 'hit_disk', 'hit_filling', 'stale'];
/** Answered with the help of the origin, or not at all. */
export const MISSES: readonly Outcome[] = ['revalidated', 'miss', 'failed'];

/**
 * The share of requests that were answered from the cache, of those that could
 * be. Counted in bytes, a revalidated response is a hit: its body came from the
 * cache.
 */
export function hitRatios(counts: Tally['counts']): { readonly requests: Ratio; readonly bytes: Ratio } {
  const sum = (outcomes: readonly Outcome[], unit: 'requests' | 'bytes'): number =>
    outcomes.reduce((total, outcome) => total + counts[outcome][unit], 0);
  const ratio = (part: number, rest: number): Ratio => (part + rest === 0 ? null : part / (part + rest));
  return {
    requests: ratio(sum(HITS, 'requests'), sum(MISSES, 'requests')),
    bytes: ratio(sum([...HITS, 'revalidated'], 'bytes'), sum(['miss', 'failed'], 'bytes')),
  };
}

/** The document of `/stats`. */
export function readStats(sources: StatsSources, history: Pick<History, 'seconds'>): Readonly<Record<string, unknown>> {
  const { clock, tally } = sources;
  const ratios = hitRatios(tally.counts);
  const { memory, disk, fills, corrupt, recovered } = sources.cache();
  const policy = sources.policy();
  return {
    edge: sources.edgeName,
    now: new Date(clock.now()).toISOString(),
    started_at: new Date(sources.startedAt).toISOString(),
    requests: {
      hit_ratio: ratios.requests,
      byte_hit_ratio: ratios.bytes,
      passing: sources.passing(),
      outcomes: tally.counts,
      per_second: history.seconds.rows.map(({ requests }) => requests),
      first_byte_ms: firstByteOf(sources.firstByte()),
    },
    cache: { memory: tierOf(memory), disk: tierOf(disk), filling: fills, corrupt, recovered },
    journal: journalOf(sources.journal()),
    lease: leaseOf(sources.lease()),
    upstream: upstreamOf(sources.upstream()),
    history: history.seconds,
    policy: { read_at: new Date(policy.readAt).toISOString(), faults: policy.faults },
  };
}

/** By outcome, the times within which a half and 95 % of the requests had an answer; null without any. */
function firstByteOf(times: FirstByte): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(times).map(([outcome, counts]) => [
      outcome,
      { p50: quantileMs(counts, 0.5), p95: quantileMs(counts, 0.95) },
    ]),
  );
}

function tierOf({
  entries,
  usedBytes,
  capacityBytes,
  evictions,
  refused,
}: TierStats): Readonly<Record<string, number>> {
  return { entries, used_bytes: usedBytes, capacity_bytes: capacityBytes, evictions, refused };
}

function journalOf(state: FollowerState | null): Readonly<Record<string, unknown>> | null {
  if (state === null) return null;
  const { link, journal, applied, newest, connects, purges } = state;
  const behind = applied === null || newest === null ? null : Math.max(0, newest - applied);
  return { link, journal, applied, newest, behind, connects, purges };
}

function leaseOf(lease: ReturnType<StatsSources['lease']>): Readonly<Record<string, unknown>> | null {
  if (lease === null) return null;
  const currentMsAgo = lease.state.kind === 'new' ? null : Math.round(lease.state.currentMsAgo);
  return { state: lease.state.kind, may_serve: lease.verdict, current_ms_ago: currentMsAgo };
}

function upstreamOf({
  breaker,
  inFlight,
  requests,
  failures,
  origins,
}: UpstreamStats): Readonly<Record<string, unknown>> {
  return { breaker, in_flight: inFlight, requests, failures, origins };
}
