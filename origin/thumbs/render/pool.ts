/**
 * The child processes as one thing that renders: as many as configured, started
 * when there is work, each replaced after so many pictures, after any loss, and
 * ended when idle. Work beyond their number waits, the most wanted first.
 */
import type { Clock, Timer } from '../../../src/clock.js';
import { type Child, type ChildConfig, type ChildOutcome, startChild } from './child.js';
import type { RenderRequest } from './protocol.js';

export interface RenderPool {
  /** Rejects only when `signal` aborts while the request waits for a process. */
  run(request: RenderRequest, priority: number, signal: AbortSignal): Promise<ChildOutcome>;
  counts(): { readonly children: number; readonly busy: number; readonly waiting: number };
  close(): Promise<void>;
}

interface Waiting {
  readonly priority: number;
  readonly take: (seat: Seat) => void;
}

/** A place for one process. The process comes with the first job and may change; the place stays. */
interface Seat {
  child: Child | undefined;
  busy: boolean;
  idle: Timer | undefined;
}

export function openPool(script: URL, config: ChildConfig, clock: Clock): RenderPool {
  const seats: Seat[] = Array.from({ length: config.count }, () => ({
    child: undefined,
    busy: false,
    idle: undefined,
  }));
  const ending = new Set<Promise<void>>();
  let waiting: Waiting[] = [];

  function take(priority: number, signal: AbortSignal): Promise<Seat> {
    // One that runs already is better than one that must be started.
    const free = seats.filter(({ busy }) => !busy);
    const seat = free.find(({ child }) => child?.alive === true) ?? free[0];
    if (seat !== undefined) return Promise.resolve(occupy(seat));
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        waiting = waiting.filter((other) => other !== entry);
        reject(signal.reason);
      };
      const entry: Waiting = {
        priority,
        take(freed) {
          signal.removeEventListener('abort', onAbort);
          resolve(occupy(freed));
        },
      };
      waiting.push(entry);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  function occupy(seat: Seat): Seat {
    seat.busy = true;
    seat.idle?.cancel();
    seat.idle = undefined;
    return seat;
  }

  function release(seat: Seat): void {
    if (seat.child !== undefined && seat.child.jobsDone >= config.jobsMax) dismiss(seat);
    seat.busy = false;
    const next = waiting.reduce<Waiting | undefined>(
      (best, entry) => (best === undefined || entry.priority > best.priority ? entry : best),
      undefined,
    );
    if (next !== undefined) {
      waiting = waiting.filter((other) => other !== next);
      next.take(seat);
    } else if (seat.child !== undefined) {
      seat.idle = clock.after(config.idleMs, () => dismiss(seat));
    }
  }

  function dismiss(seat: Seat): void {
    const { child } = seat;
    if (child === undefined) return;
    seat.child = undefined;
    seat.idle?.cancel();
    const ended = child.end().finally(() => ending.delete(ended));
    ending.add(ended);
  }

  return {
    async run(request, priority, signal) {
      signal.throwIfAborted();
      const seat = await take(priority, signal);
      try {
        if (seat.child?.alive === false) dismiss(seat);
        seat.child ??= startChild(script, config, clock);
        const outcome = await seat.child.run(request, signal);
        if (outcome.kind === 'lost') dismiss(seat);
        return outcome;
      } finally {
        release(seat);
      }
    },
    counts: () => ({
      children: seats.filter(({ child }) => child?.alive === true).length,
      busy: seats.filter(({ busy }) => busy).length,
      waiting: waiting.length,
    }),
    async close() {
      for (const seat of seats) dismiss(seat);
      await Promise.all(ending);
    },
  };
}
