/** How requests, hits, times and tiers of the edge went, for the graphs of the live page. */
import type { Clock } from '../../src/clock.js';
import { type History, type Measured, openHistory, perSecond, type Row } from '../../src/history.js';
import { quantileMs } from '../../src/metrics.js';
import { OUTCOMES, type Outcome } from '../request.js';
import { HITS, hitRatios, MISSES, type StatsSources } from './stats.js';
import type { Tally } from './tally.js';
import type { FirstByte } from './traffic.js';

interface Reading {
  readonly counts: Tally['counts'];
  readonly firstByte: FirstByte;
  readonly memoryBytes: number;
  readonly diskBytes: number;
}

export function openEdgeHistory(sources: Pick<StatsSources, 'tally' | 'firstByte' | 'cache'>, clock: Clock): History {
  const measured: Measured<Reading> = {
    read() {
      const { memory, disk } = sources.cache();
      return {
        // The counts go on in the same objects.
        counts: byOutcome((outcome) => ({ ...sources.tally.counts[outcome] })),
        firstByte: sources.firstByte(),
        memoryBytes: memory.usedBytes,
        diskBytes: disk.usedBytes,
      };
    },
    row: rowOf,
  };
  return openHistory(measured, clock);
}

function rowOf(now: Reading, before: Reading, seconds: number): Row {
  const counts = byOutcome((outcome) => ({
    requests: now.counts[outcome].requests - before.counts[outcome].requests,
    bytes: now.counts[outcome].bytes - before.counts[outcome].bytes,
  }));
  const ratios = hitRatios(counts);
  const rate = (outcomes: readonly Outcome[]): number =>
    perSecond(
      outcomes.reduce((sum, outcome) => sum + counts[outcome].requests, 0),
      seconds,
    );
  return {
    requests: rate(OUTCOMES),
    hits: rate(HITS),
    misses: rate(MISSES),
    hit_ratio: ratios.requests,
    byte_hit_ratio: ratios.bytes,
    hit_p95_ms: quantileMs(between(now.firstByte, before.firstByte, HITS), 0.95),
    miss_p95_ms: quantileMs(between(now.firstByte, before.firstByte, MISSES), 0.95),
    memory_bytes: now.memoryBytes,
    disk_bytes: now.diskBytes,
  };
}

/** The times of these outcomes together that came between. */
function between(now: FirstByte, before: FirstByte, outcomes: readonly Outcome[]): readonly number[] {
  return now.miss.map((_, bucket) =>
    outcomes.reduce((sum, outcome) => sum + (now[outcome][bucket] ?? 0) - (before[outcome][bucket] ?? 0), 0),
  );
}

function byOutcome<V>(make: (outcome: Outcome) => V): Readonly<Record<Outcome, V>> {
  return Object.fromEntries(OUTCOMES.map((outcome) => [outcome, make(outcome)])) as Record<Outcome, V>;
}
