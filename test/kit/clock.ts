/** A clock that stands still until the test advances it. */
import type { Clock, EpochMs, Timer } from '../../src/clock.js';
import { HANGS_AFTER_MS, until } from './until.js';

interface Pending {
  readonly dueMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class ManualClock implements Clock {
  readonly #startAt: EpochMs;
  #elapsedMs = 0;
  #order = 0;
  readonly #pending = new Set<Pending>();

  constructor(startAt: EpochMs = Date.UTC(2026, 0, 1)) {
    this.#startAt = startAt;
  }

  now(): EpochMs {
    return this.#startAt + this.#elapsedMs;
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  after(delayMs: number, run: () => void): Timer {
    this.#order += 1;
    const entry: Pending = { dueMs: this.#elapsedMs + Math.max(0, delayMs), order: this.#order, run };
    this.#pending.add(entry);
    return { cancel: () => void this.#pending.delete(entry) };
  }

  /** The number of timers that are set. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Advances the time and runs each timer at its own instant, also timers that are set meanwhile. */
  advance(byMs: number): void {
    const untilMs = this.#elapsedMs + byMs;
    for (let next = this.#due(untilMs); next !== undefined; next = this.#due(untilMs)) {
      this.#elapsedMs = Math.max(this.#elapsedMs, next.dueMs);
      this.#pending.delete(next);
      next.run();
    }
    this.#elapsedMs = untilMs;
  }

  /** The same, with a turn of the event loop after each timer. */
  async advanceAsync(byMs: number): Promise<void> {
    const untilMs = this.#elapsedMs + byMs;
    for (let next = this.#due(untilMs); next !== undefined; next = this.#due(untilMs)) {
      this.#elapsedMs = Math.max(this.#elapsedMs, next.dueMs);
      this.#pending.delete(next);
      next.run();
      await new Promise(setImmediate);
    }
    this.#elapsedMs = untilMs;
    await new Promise(setImmediate);
  }

  /**
   * Resolves once a timer is due in exactly `delayMs`. Sockets and files take real time: a test whose code sets a timer
   * after using them waits for that timer here, and advances the clock only then. Use a delay that no other timer has.
   */
  async timerSet(delayMs: number): Promise<void> {
    const dueMs = this.#elapsedMs + delayMs;
    await until(`a timer of ${delayMs} ms`, () => [...this.#pending].some((entry) => entry.dueMs === dueMs));
  }

  #due(untilMs: number): Pending | undefined {
    return [...this.#pending]
      .filter((entry) => entry.dueMs <= untilMs)
      .sort((a, b) => a.dueMs - b.dueMs || a.order - b.order)[0];
  }
}

/**
 * Advances the clock in steps until something holds. Timeouts end on the way. Sockets and files take real time, so each step
 * lasts longer than the one before: on a slow machine too, the clock is soon slower than the work that the timeouts bound.
 */
export async function untilInTime(
  what: string,
  clock: ManualClock,
  holds: () => boolean | Promise<boolean>,
  stepMs = 100,
): Promise<void> {
  const from = performance.now();
  for (let pauseMs = 0; !(await holds()); pauseMs += 0.1) {
    if (performance.now() - from > HANGS_AFTER_MS) throw new Error(`waited in vain: ${what}`);
    clock.advance(stepMs);
    await turns(10);
    if (pauseMs >= 1) await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

/** Some turns of the event loop, to see that something does not happen. They promise nothing of what does. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise(setImmediate);
}
