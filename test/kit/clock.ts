/** A clock that stands still until the test moves it. */
import type { Clock, EpochMs, Timer } from '../../src/clock.js';

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

  /** Timers that wait. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Moves time on, running each timer at its own instant, also those that timers set on the way. */
  advance(byMs: number): void {
    const untilMs = this.#elapsedMs + byMs;
    for (let next = this.#due(untilMs); next !== undefined; next = this.#due(untilMs)) {
      this.#elapsedMs = Math.max(this.#elapsedMs, next.dueMs);
      this.#pending.delete(next);
      next.run();
    }
    this.#elapsedMs = untilMs;
  }

  /** Like advance, letting promises settle after each timer. */
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

  /** Moves time on in steps, real work being done between them, until the promise settles. */
  async until<T>(settling: Promise<T>, stepMs = 100): Promise<T> {
    const state = { settled: false };
    const settle = (): void => {
      state.settled = true;
    };
    settling.then(settle, settle);
    while (!state.settled) {
      this.advance(stepMs);
      await new Promise(setImmediate);
    }
    return await settling;
  }

  #due(untilMs: number): Pending | undefined {
    return [...this.#pending]
      .filter((entry) => entry.dueMs <= untilMs)
      .sort((a, b) => a.dueMs - b.dueMs || a.order - b.order)[0];
  }
}
