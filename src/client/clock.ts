/** Time in browsers and Node, and waits that a signal ends. Only this file of the library asks the machine. */

export interface ClientClock {
  /** Milliseconds since 1970-01-01T00:00:00Z. */
  now(): number;
  /** Calls `run` once after `delayMs`. The result cancels it. */
  after(delayMs: number, run: () => void): () => void;
}

/** Timers with a longer delay fire at once. */
const DELAY_MAX_MS = 2 ** 31 - 1;

export const machineClock: ClientClock = {
  now: () => Date.now(),
  after(delayMs, run) {
    const timer = setTimeout(run, Math.min(delayMs, DELAY_MAX_MS));
    return () => clearTimeout(timer);
  },
};

/** Waits. Rejects with the signal's reason as soon as it aborts; ends early when a browser is online again. */
export async function pause(clock: ClientClock, delayMs: number, signal: AbortSignal): Promise<void> {
  const over = new AbortController();
  try {
    await new Promise<void>((resolve, reject) => {
      signal.throwIfAborted();
      const once = { signal: over.signal };
      over.signal.addEventListener('abort', clock.after(delayMs, resolve));
      signal.addEventListener('abort', () => reject(signal.reason as Error), once);
      // Node has no such event, and old versions of it no such function.
      globalThis.addEventListener?.('online', () => resolve(), once);
    });
  } finally {
    over.abort();
  }
}
