/**
 * How figures went: for each second of the last two minutes, and for each minute of the last six hours. Kept in the
 * process, so that a live page shows a graph as soon as it is opened.
 */
import type { Clock, Timer } from './clock.js';

/** Null: there was nothing to measure. */
export type Row = Readonly<Record<string, number | null>>;

/** `R`: what is counted at one instant. */
export interface Measured<R> {
  read(): R;
  /** What happened between two instants. */
  row(now: R, before: R, seconds: number): Row;
}

export interface Rows {
  readonly every_ms: number;
  /** How many there are once it has gone on for long enough. */
  readonly kept: number;
  /** The oldest first. The last one is for the span that ended last. */
  readonly rows: readonly Row[];
}

export interface History {
  readonly seconds: Rows;
  readonly minutes: Rows;
  close(): void;
}

const SECONDS = { everyMs: 1_000, kept: 120 };
const MINUTES = { everyMs: 60_000, kept: 360 };

/** Starts with one second without anything. */
export function openHistory<R>(measured: Measured<R>, clock: Clock): History {
  const start = measured.read();
  const seconds = keepRows(measured, clock, SECONDS, [measured.row(start, start, 1)]);
  const minutes = keepRows(measured, clock, MINUTES, []);
  return {
    get seconds() {
      return seconds.rows();
    },
    get minutes() {
      return minutes.rows();
    },
    close() {
      seconds.close();
      minutes.close();
    },
  };
}

function keepRows<R>(
  measured: Measured<R>,
  clock: Clock,
  { everyMs, kept }: typeof SECONDS,
  first: readonly Row[],
): { rows(): Rows; close(): void } {
  const rows = [...first];
  let before = measured.read();
  let readAtMs = clock.monotonicMs();
  function next(): void {
    const atMs = clock.monotonicMs();
    const now = measured.read();
    // A busy process is late, and then what it counted spreads over a longer time.
    rows.push(measured.row(now, before, Math.max(everyMs, atMs - readAtMs) / 1_000));
    if (rows.length > kept) rows.shift();
    [before, readAtMs] = [now, atMs];
    timer = clock.after(everyMs, next);
  }
  let timer: Timer = clock.after(everyMs, next);
  return {
    rows: () => ({ every_ms: everyMs, kept, rows: [...rows] }),
    close: () => timer.cancel(),
  };
}

/** To one decimal: more is not seen on a graph, and is a lot to send. */
export function perSecond(count: number, seconds: number): number {
  return Math.round((10 * count) / seconds) / 10;
}
