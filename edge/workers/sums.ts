/** The figures of several workers as those of one edge. Pure. */
import type { CacheStats, TierStats } from '../cache/cache.js';
import type { FollowerState } from '../journal/follow.js';
import type { FirstByte } from '../ops/traffic.js';
import { OUTCOMES } from '../request.js';
import type { OriginStats, UpstreamStats } from '../upstream/upstream.js';
import type { WorkerFigures } from './messages.js';

export type Counts = WorkerFigures['counts'];

export function sumOfCounts(all: readonly Counts[]): Counts {
  const sums = OUTCOMES.map((outcome) => {
    const requests = sum(all, (counts) => counts[outcome].requests);
    return [outcome, { requests, bytes: sum(all, (counts) => counts[outcome].bytes) }] as const;
  });
  return Object.fromEntries(sums) as unknown as Counts;
}

export function sumOfFirstBytes(all: readonly FirstByte[]): FirstByte {
  const buckets = Math.max(0, ...all.map(({ miss }) => miss.length));
  const sums = OUTCOMES.map((outcome) => {
    const counts = Array.from({ length: buckets }, (_, bucket) => sum(all, (each) => each[outcome][bucket] ?? 0));
    return [outcome, counts] as const;
  });
  return Object.fromEntries(sums) as unknown as FirstByte;
}

export function sumOfCaches(all: readonly CacheStats[]): CacheStats {
  return {
    memory: sumOfTiers(all.map(({ memory }) => memory)),
    disk: sumOfTiers(all.map(({ disk }) => disk)),
    incomplete: sumOfTiers(all.map(({ incomplete }) => incomplete)),
    fills: sum(all, ({ fills }) => fills),
    corrupt: sum(all, ({ corrupt }) => corrupt),
    recovered: sum(all, ({ recovered }) => recovered),
    openFiles: sum(all, ({ openFiles }) => openFiles),
  };
}

function sumOfTiers(all: readonly TierStats[]): TierStats {
  return {
    entries: sum(all, ({ entries }) => entries),
    usedBytes: sum(all, ({ usedBytes }) => usedBytes),
    capacityBytes: sum(all, ({ capacityBytes }) => capacityBytes),
    evictions: sum(all, ({ evictions }) => evictions),
    refused: sum(all, ({ refused }) => refused),
  };
}

/** The worker that is furthest behind. Null in generic mode, and before the first worker has reported. */
export function furthestBehind(all: readonly WorkerFigures[]): Pick<WorkerFigures, 'journal' | 'lease'> {
  const behind = all.toSorted((one, other) => rankOf(one) - rankOf(other))[0];
  return { journal: behind?.journal ?? null, lease: behind?.lease ?? null };
}

/** The less, the further behind: not connected, without a lease, by the number that is applied. */
function rankOf({ journal, lease }: WorkerFigures): number {
  const links: readonly FollowerState['link'][] = ['closed', 'waiting', 'connecting', 'replaying', 'current'];
  const leases = ['new', 'lapsed', 'held'] as const;
  const link = journal === null ? 0 : links.indexOf(journal.link);
  const held = lease === null ? 0 : leases.indexOf(lease.state.kind);
  return (link * leases.length + held) * 2 ** 40 + (journal?.applied ?? 0);
}

export function sumOfUpstreams(all: readonly UpstreamStats[]): UpstreamStats {
  const open = all.find(({ breaker }) => breaker !== 'closed');
  const origins = all[0]?.origins ?? [];
  return {
    breaker: open?.breaker ?? 'closed',
    inFlight: sum(all, ({ inFlight }) => inFlight),
    requests: sum(all, ({ requests }) => requests),
    failures: sum(all, ({ failures }) => failures),
    origins: origins.map((origin, at) =>
      sumOfOrigins(
        origin,
        all.flatMap((each) => each.origins[at] ?? []),
      ),
    ),
  };
}

/** One origin as all workers see it: as up as it is to the one to which it is least so. */
function sumOfOrigins(origin: OriginStats, all: readonly OriginStats[]): OriginStats {
  const states = all.map(({ state }) => state);
  return {
    url: origin.url,
    state: states.includes('down') ? 'down' : states.includes('unready') ? 'unready' : 'up',
    followed: all.some(({ followed }) => followed),
    requests: sum(all, ({ requests }) => requests),
    failures: sum(all, ({ failures }) => failures),
  };
}

export function sum<Item>(all: readonly Item[], of: (item: Item) => number): number {
  return all.reduce((total, item) => total + of(item), 0);
}
