/**
 * How many requests ended in each second of the last two minutes. Kept in the
 * process, so that the live page shows a graph as soon as it is opened.
 */
import type { Clock } from '../../src/clock.js';
import type { Tally } from './tally.js';

/** The time between two samples, and how many are kept: as many as the page can show. */
const EVERY_MS = 1_000;
const KEPT_MAX = 120;

export interface History {
  /** Requests a second, oldest first. The last value is for the second that ended last. */
  perSecond(): readonly number[];
  close(): void;
}

/** Starts with one second without requests. */
export function openHistory({ counts }: Pick<Tally, 'counts'>, clock: Clock): History {
  const kept = [0];
  let sampledAtMs = clock.monotonicMs();
  let before = totalOf(counts);
  function sample(): void {
    const now = clock.monotonicMs();
    const total = totalOf(counts);
    // A busy process samples late, and then the requests spread over a longer time.
    const seconds = Math.max(EVERY_MS, now - sampledAtMs) / 1_000;
    kept.push(Math.round((10 * (total - before)) / seconds) / 10);
    if (kept.length > KEPT_MAX) kept.shift();
    sampledAtMs = now;
    before = total;
    timer = clock.after(EVERY_MS, sample);
  }
  let timer = clock.after(EVERY_MS, sample);
  return {
    perSecond: () => [...kept],
    close: () => timer.cancel(),
  };
}

function totalOf(counts: Tally['counts']): number {
  return Object.values(counts).reduce((sum, { requests }) => sum + requests, 0);
}
