/**
 * How many requests ended each second of the last two minutes, kept in the
 * process, so that the live page has something to show when it is opened.
 */
import type { Clock } from '../../src/clock.js';
import type { Tally } from './tally.js';

/** How often the counters are looked at, and how many looks are kept: what the page has room for. */
const EVERY_MS = 1_000;
const KEPT_MAX = 120;

export interface History {
  /** Requests a second, the oldest first. The last is of the second that ended last. */
  perSecond(): readonly number[];
  close(): void;
}

/** Begins with a second in which nothing was asked. */
export function openHistory({ counts }: Pick<Tally, 'counts'>, clock: Clock): History {
  const kept = [0];
  let lookedAtMs = clock.monotonicMs();
  let before = totalOf(counts);
  function look(): void {
    const now = clock.monotonicMs();
    const total = totalOf(counts);
    // A busy process looks late: what it counted meanwhile belongs to all of that time.
    const seconds = Math.max(EVERY_MS, now - lookedAtMs) / 1_000;
    kept.push(Math.round((10 * (total - before)) / seconds) / 10);
    if (kept.length > KEPT_MAX) kept.shift();
    lookedAtMs = now;
    before = total;
    timer = clock.after(EVERY_MS, look);
  }
  let timer = clock.after(EVERY_MS, look);
  return {
    perSecond: () => [...kept],
    close: () => timer.cancel(),
  };
}

function totalOf(counts: Tally['counts']): number {
  return Object.values(counts).reduce((sum, { requests }) => sum + requests, 0);
}
