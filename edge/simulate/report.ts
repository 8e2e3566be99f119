/** A simulation as text for a terminal, and as plain data. Pure. */
import type { Ratio } from '../ops/stats.js';
import type { Outcome } from '../request.js';
import type { TraceColumns } from './read-trace.js';
import { CONTENT_KINDS, type Tally } from './tally.js';

export interface Simulated {
  readonly trace: TraceColumns;
  readonly skip: number;
  readonly today: Tally;
  readonly next: Tally;
  readonly caveats: readonly string[];
}

const [LABEL, CELL] = [34, 15];

export function reportLines({ trace, skip, today, next, caveats }: Simulated): readonly string[] {
  const { sampleShare } = trace;
  const row = (label: string, of: (tally: Tally) => string, recorded = ''): string =>
    [label.padEnd(LABEL), ...[recorded, of(today), of(next)].map((cell) => cell.padStart(CELL))].join('').trimEnd();
  const scaled = (value: number): number => value / sampleShare;
  const shares = (label: string, outcomes: readonly Outcome[], unit: 'requests' | 'bytes'): string =>
    row(
      label,
      (tally) => percent(tally.share(outcomes, unit, 'simulated')),
      percent(today.share(outcomes, unit, 'recorded')),
    );
  return [
    ...traceLines(trace, skip, today),
    '',
    `${''.padEnd(LABEL)}${['recorded', 'today', 'new'].map((name) => name.padStart(CELL)).join('')}`,
    row('object hit ratio', ({ ratios }) => percent(ratios.requests), percent(today.recordedRatios.requests)),
    shares('  in memory', ['hit_memory'], 'requests'),
    shares('  on disk', ['hit_disk'], 'requests'),
    shares('  while it arrives', ['hit_filling'], 'requests'),
    shares('  stale', ['stale'], 'requests'),
    shares('revalidated', ['revalidated'], 'requests'),
    row('byte hit ratio', ({ ratios }) => percent(ratios.bytes), percent(today.recordedRatios.bytes)),
    shares('  in memory', ['hit_memory'], 'bytes'),
    shares('  on disk', ['hit_disk'], 'bytes'),
    '',
    'object hit ratio by kind',
    ...CONTENT_KINDS.filter((kind) => today.kind(kind).requests > 0).map((kind) =>
      row(`  ${kind}`, (tally) => percent(tally.kind(kind).hits / tally.kind(kind).requests)),
    ),
    '',
    row('requests to the origin', (tally) => count(scaled(tally.originRequests))),
    row('bytes from the origin', (tally) => bytes(scaled(tally.originBytes))),
    row('bodies written to disk', (tally) => count(scaled(tally.diskWrites))),
    row('bytes written to disk', (tally) => bytes(scaled(tally.diskWrittenBytes))),
    row('evicted from memory', (tally) => count(scaled(tally.evictions.memory))),
    row('evicted from disk', (tally) => count(scaled(tally.evictions.disk))),
    ...(caveats.length === 0 ? [] : ['', ...caveats.map((caveat) => `Note: ${caveat}.`)]),
  ];
}

function traceLines(trace: TraceColumns, skip: number, { requests, requestedBytes }: Tally): readonly string[] {
  const { count: events, times, keys, sampleShare, skipped } = trace;
  const at = (index: number): string => new Date(times[index] ?? 0).toISOString().slice(0, 19);
  return [
    `trace: ${count(requests)} requests for ${count(keys.length)} keys, ${bytes(requestedBytes)} sent, ${at(0)} to ${at(events - 1)} UTC`,
    ...(skip > 0 ? [`the first ${count(skip)} events fill the caches and are not counted`] : []),
    ...(sampleShare < 1
      ? [
          `sampled: ${(sampleShare * 100).toPrecision(3)} % of the keys, in tiers of as much of their size; totals are estimates for all keys`,
        ]
      : []),
    ...(skipped > 0 ? [`left out: ${count(skipped)} records that this release does not know`] : []),
  ];
}

/** The figures without their layout. Totals are estimates for all keys. */
export function reportData({ trace, today, next, caveats }: Simulated): Readonly<Record<string, unknown>> {
  const { sampleShare } = trace;
  const figures = (tally: Tally): Readonly<Record<string, unknown>> => ({
    object_hit_ratio: tally.ratios.requests,
    byte_hit_ratio: tally.ratios.bytes,
    memory: ratiosOf(tally, 'hit_memory'),
    disk: ratiosOf(tally, 'hit_disk'),
    stale: ratiosOf(tally, 'stale'),
    revalidated: ratiosOf(tally, 'revalidated'),
    origin_requests: Math.round(tally.originRequests / sampleShare),
    origin_bytes: Math.round(tally.originBytes / sampleShare),
    disk_writes: Math.round(tally.diskWrites / sampleShare),
    disk_written_bytes: Math.round(tally.diskWrittenBytes / sampleShare),
  });
  return {
    requests: today.requests,
    keys: trace.keys.length,
    sampled: sampleShare,
    recorded: {
      object_hit_ratio: today.recordedRatios.requests,
      byte_hit_ratio: today.recordedRatios.bytes,
    },
    today: figures(today),
    new: figures(next),
    notes: caveats,
  };
}

function ratiosOf(tally: Tally, outcome: Outcome): Readonly<Record<string, Ratio>> {
  return {
    requests: tally.share([outcome], 'requests', 'simulated'),
    bytes: tally.share([outcome], 'bytes', 'simulated'),
  };
}

export function percent(ratio: Ratio): string {
  return ratio === null || Number.isNaN(ratio) ? '–' : `${(ratio * 100).toFixed(2)} %`;
}

function count(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** In units of 1000, with three digits. */
export function bytes(value: number): string {
  let [rest, unit] = [value, 0];
  while (rest >= 999.5 && unit < UNITS.length - 1) [rest, unit] = [rest / 1_000, unit + 1];
  return `${unit === 0 ? Math.round(rest) : rest.toPrecision(3)} ${UNITS[unit]}`;
}
