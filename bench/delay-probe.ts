/**
 * Loaded into the edge by bench/delay.ts: every millisecond, how late its timer
 * is, and how much processor time the thread of the event loop has used since the
 * last time. The latter is what keeps a loop busy that has a core of its own.
 * `SIGUSR2` begins anew, or ends and writes the percentiles as a file.
 */
import { readFileSync, writeFileSync } from 'node:fs';

export interface Delays {
  readonly ticks: number;
  /** In milliseconds: the 50th, 99th and 99.9th percentile and the longest. */
  readonly late: readonly number[];
  readonly busy: readonly number[];
}

const RANKS = [0.5, 0.99, 0.999, 1];
const report = process.env['DELAY_REPORT'];

function busyMs(): number {
  return Number(readFileSync('/proc/self/schedstat', 'latin1').split(' ')[0]) / 1e6;
}

function percentiles(values: readonly number[]): number[] {
  const sorted = values.toSorted((a, b) => a - b);
  return RANKS.map((rank) => sorted[Math.min(sorted.length - 1, Math.floor(rank * sorted.length))] ?? 0);
}

function probe(path: string): void {
  let late: number[] | undefined;
  let busy: number[] = [];
  let last = { at: 0, busy: 0 };
  const timer = setInterval(() => {
    const now = { at: performance.now(), busy: busyMs() };
    late?.push(now.at - last.at);
    busy.push(now.busy - last.busy);
    last = now;
  }, 1);
  timer.unref();
  process.on('SIGUSR2', () => {
    if (late !== undefined) {
      const delays: Delays = { ticks: late.length, late: percentiles(late), busy: percentiles(busy) };
      writeFileSync(path, JSON.stringify(delays));
    }
    [late, busy, last] = [late === undefined ? [] : undefined, [], { at: performance.now(), busy: busyMs() }];
  });
}

if (report !== undefined && process.argv.includes('edge')) probe(report);
