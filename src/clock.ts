/**
 * Time. Code that needs an instant or a timer is given a Clock; only this file
 * asks the machine. Tests give a clock that they move.
 */
import { onAbort, waitFor } from './abort.js';

/** An instant: milliseconds since 1970-01-01T00:00:00Z. */
export type EpochMs = number;

export interface Clock {
  /** The wall clock, for instants that are stored or sent. */
  now(): EpochMs;
  /** Milliseconds since an arbitrary point, for measuring time. They never jump. */
  monotonicMs(): number;
  /** Calls `run` once after `delayMs`. The timer does not keep the process alive. */
  after(delayMs: number, run: () => void): Timer;
}

export interface Timer {
  cancel(): void;
}

/** Node fires timers with a longer delay at once. So a longer delay is cut to this one, and its owner must set the timer again. */
export const TIMER_DELAY_MAX_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, run) {
    const handle = setTimeout(run, Math.min(Math.max(delayMs, 0), TIMER_DELAY_MAX_MS));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
};

/**
 * A clock whose instants never step back: where the wall clock is set back, they go on by the monotonic
 * clock. For lifetimes that must not get longer. After a step ahead and back again, it stays ahead, so
 * nothing that cannot be undone may hang on it.
 */
export function steadyClock(clock: Clock): Clock {
  let at = clock.now();
  let readMs = clock.monotonicMs();
  return {
    now() {
      const nowMs = clock.monotonicMs();
      at = Math.max(clock.now(), at + nowMs - readMs);
      readMs = nowMs;
      return Math.floor(at);
    },
    monotonicMs: () => clock.monotonicMs(),
    after: (delayMs, run) => clock.after(delayMs, run),
  };
}

/** Waits, or rejects with the signal's reason as soon as it aborts. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return waitFor((come) => {
    const timer = clock.after(delayMs, come);
    return () => timer.cancel();
  }, signal);
}

export interface Deadline {
  readonly clock: Clock;
  readonly ms: number;
  /** The reason of the signal when the time is over. */
  readonly late: () => Error;
  /** Aborts the work earlier. */
  readonly signal?: AbortSignal;
}

/** Runs `work` with a signal that aborts when the time is over or the given signal aborts. */
export async function withDeadline<T>(deadline: Deadline, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const { clock, ms, late, signal } = deadline;
  const ended = new AbortController();
  const stopListening = onAbort(signal, () => ended.abort(signal?.reason));
  const timer = clock.after(ms, () => ended.abort(late()));
  try {
    return await work(ended.signal);
  } finally {
    timer.cancel();
    stopListening();
  }
}

/** Keeps the process alive until it is released; timers do not. */
export function keepAlive(): { release(): void } {
  const handle = setInterval(() => undefined, TIMER_DELAY_MAX_MS);
  return { release: () => clearInterval(handle) };
}
