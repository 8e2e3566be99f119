/**
 * The child processes as one thing that renders: as many as configured, started
 * when there is work, each replaced after so many pictures and after any loss,
 * and ended when idle, except for those that are kept ready. Work beyond their
 * number waits, the highest priority first.
 *
 * Promises: a picture may take `memory_max` on top of what a process has before
 * its first picture, on every version of Node. A start that fails is logged,
 * and reported by `startFailure` until a start succeeds.
 */
import { waitFor, withSignal } from '../../../src/abort.js';
import type { Clock, Timer } from '../../../src/clock.js';
import { errorFields, type Log } from '../../../src/log.js';
import {
  type Child,
  type ChildConfig,
  type ChildOutcome,
  type ChildStart,
  type LostChild,
  type OnEarly,
  startChild,
} from './child.js';
import type { Launcher } from './launcher.js';
import type { RenderRequest } from './protocol.js';

export interface PoolDeps {
  /** What a child runs. */
  readonly script: URL;
  readonly launcher: Launcher;
  /** The processes have their own folders below it. */
  readonly folder: string;
  readonly config: ChildConfig;
  readonly clock: Clock;
  readonly log: Log;
}

export interface RenderPool {
  /** Starts as many processes as are kept ready, now and whenever fewer are left. */
  keepReady(): void;
  /** Rejects only when `signal` aborts before the request has a process. */
  run(request: RenderRequest, priority: number, signal: AbortSignal, onEarly: OnEarly): Promise<ChildOutcome>;
  counts(): { readonly children: number; readonly busy: number };
  /** Why the latest start of a process failed; null: it did not. */
  startFailure(): string | null;
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

/** The kernel's limit on the data of a child. */
type DataLimit = { readonly kind: 'measured'; readonly dataMaxBytes: number | null } | LostChild;

/** What the kernel allows beyond the watch on resident memory, which should act first because it can say why. */
const DATA_MARGIN_BYTES = 128 * 1_024 * 1_024;

export function openPool(deps: PoolDeps): RenderPool {
  const { config, clock, log } = deps;
  const seats: Seat[] = Array.from({ length: config.count }, () => ({
    child: undefined,
    busy: false,
    idle: undefined,
  }));
  const ending = new Set<Promise<void>>();
  let waiting: Waiting[] = [];
  let measuring: Child | undefined;
  let dataLimit: Promise<DataLimit> | undefined;
  let startFailure: string | null = null;
  /** How many processes are kept ready. */
  let readyMin = 0;

  function start(dataMaxBytes: number | null): Child {
    const child = startChild({ ...deps, dataMaxBytes }, clock);
    void child.started.then(noteStart);
    return child;
  }

  function noteStart(outcome: ChildStart): void {
    if (outcome.kind === 'lost' && outcome.loss === 'aborted') return;
    const failure = outcome.kind === 'lost' ? outcome.detail : null;
    if (failure !== null && startFailure === null) {
      log.error(
        { detail: failure },
        'no thumbnails can be made: a child process does not start; see origin.thumbs.children',
      );
    }
    if (failure === null && startFailure !== null) log.info({}, 'child processes for thumbnails start again');
    startFailure = failure;
  }

  /**
   * Starts one child without a limit and ends it before it sees a picture. What Node maps in a fresh process differs
   * by half a gigabyte between versions and processors, so a limit must start from there.
   */
  async function measureDataLimit(): Promise<DataLimit> {
    const child = start(null);
    measuring = child;
    const outcome = await child.started;
    measuring = undefined;
    end(child);
    if (outcome.kind === 'lost') {
      dataLimit = undefined;
      return outcome;
    }
    const { memory } = outcome;
    const dataMaxBytes = memory === undefined ? null : memory.dataBytes + config.memoryMaxBytes + DATA_MARGIN_BYTES;
    return { kind: 'measured', dataMaxBytes };
  }

  function takeSeat(priority: number, signal: AbortSignal): Promise<Seat> {
    // One that runs already is better than one that must be started.
    const free = seats.filter(({ busy }) => !busy);
    const seat = free.find(({ child }) => child?.alive === true) ?? free[0];
    if (seat !== undefined) return Promise.resolve(occupy(seat));
    return waitFor<Seat>((come) => {
      const entry: Waiting = { priority, take: (freed) => come(occupy(freed)) };
      waiting.push(entry);
      return () => {
        waiting = waiting.filter((other) => other !== entry);
      };
    }, signal);
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
      next.take(seat);
      return;
    }
    if (seat.child !== undefined) seat.idle = clock.after(config.idleMs, () => dismissIdle(seat));
    keepEnough();
  }

  function dismissIdle(seat: Seat): void {
    if (aliveCount() > readyMin) dismiss(seat);
  }

  function aliveCount(): number {
    return seats.filter(({ child }) => child?.alive === true).length;
  }

  /** A start that fails is not repeated before the next job, which would meet the same failure. */
  function keepEnough(): void {
    startMissing().catch((thrown: unknown) => {
      noteStart({ kind: 'lost', loss: 'start', detail: String(errorFields(thrown)['error']) });
    });
  }

  async function startMissing(): Promise<void> {
    if (aliveCount() >= readyMin) return;
    const limit = await measured().catch(() => undefined);
    for (const seat of seats) {
      if (limit?.kind !== 'measured' || aliveCount() >= readyMin) return;
      if (seat.busy || seat.child?.alive === true) continue;
      dismiss(seat);
      seat.child = start(limit.dataMaxBytes);
    }
  }

  function measured(): Promise<DataLimit> {
    dataLimit ??= measureDataLimit().catch((thrown: unknown) => {
      dataLimit = undefined;
      throw thrown;
    });
    return dataLimit;
  }

  function dismiss(seat: Seat): void {
    const { child } = seat;
    if (child === undefined) return;
    seat.child = undefined;
    seat.idle?.cancel();
    end(child);
  }

  function end(child: Child): void {
    const ended = child.end().finally(() => ending.delete(ended));
    ending.add(ended);
  }

  return {
    keepReady() {
      readyMin = Math.min(config.readyMin, config.count);
      keepEnough();
    },
    async run(request, priority, signal, onEarly) {
      signal.throwIfAborted();
      const seat = await takeSeat(priority, signal);
      try {
        const limit = await withSignal(measured(), signal);
        if (limit.kind === 'lost') return limit;
        if (seat.child?.alive === false) dismiss(seat);
        seat.child ??= start(limit.dataMaxBytes);
        const outcome = await seat.child.run(request, signal, onEarly);
        if (outcome.kind === 'lost') dismiss(seat);
        if (outcome.kind === 'lost' && outcome.loss === 'start') dataLimit = undefined;
        return outcome;
      } finally {
        release(seat);
      }
    },
    counts: () => ({
      children: aliveCount(),
      busy: seats.filter(({ busy }) => busy).length,
    }),
    startFailure: () => startFailure,
    async close() {
      readyMin = 0;
      if (measuring !== undefined) end(measuring);
      for (const seat of seats) dismiss(seat);
      await Promise.all(ending);
    },
  };
}
