/**
 * One child process that renders, seen from its parent: started under limits,
 * given one picture at a time, watched while it works, and killed when it takes
 * too long, takes too much, says what is no message, or is no longer wanted.
 *
 * Promises: `run` always ends, within the time limit; after any ending but
 * `done` the process is gone or going, and a new one must take its place.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { setPriority } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Clock, Timer } from '../../../src/clock.js';
import type { ThumbsConfig } from '../config.js';
import { limited, residentBytes } from './limits.js';
import {
  clip,
  type FromChild,
  parseFromChild,
  type RenderRequest,
  type RenderResult,
  type ToChild,
} from './protocol.js';

export type ChildConfig = ThumbsConfig['children'];

/** Why a process was lost with its job. `start`: it never became ready, so the job was not even tried. */
export const LOSSES = ['start', 'time', 'memory', 'exit', 'protocol', 'aborted'] as const;
export type Loss = (typeof LOSSES)[number];

export type ChildOutcome =
  | { readonly kind: 'done'; readonly result: RenderResult }
  | { readonly kind: 'lost'; readonly loss: Loss; readonly detail: string };

export interface Child {
  readonly jobsDone: number;
  readonly alive: boolean;
  /** One at a time. */
  run(request: RenderRequest, signal: AbortSignal): Promise<ChildOutcome>;
  /** Resolves when the process is gone. */
  end(): Promise<void>;
}

interface CurrentJob {
  readonly message: ToChild;
  readonly resolve: (outcome: ChildOutcome) => void;
  readonly stop: () => void;
  timer: Timer;
}

const WATCH_EVERY_MS = 50;
const STDERR_CHARS_MAX = 2_000;
/** What a process may map beyond the watched limit: the watch should see it first and say why. */
const DATA_MARGIN_BYTES = 256 * 1_024 * 1_024;

export function startChild(script: URL, config: ChildConfig, clock: Clock): Child {
  const running = launch(script, config);
  let ready = false;
  let alive = true;
  let jobsDone = 0;
  let complaints = '';
  let current: CurrentJob | undefined;

  running.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaints = (complaints + text).slice(-STDERR_CHARS_MAX);
  });
  running.on('message', (value) => hear(parseFromChild(value)));
  const gone = new Promise<void>((resolve) => {
    const leave = (how: string): void => {
      alive = false;
      lose(ready ? 'exit' : 'start', `${how} ${complaints}`);
      resolve();
    };
    running.on('error', (error) => leave(error.message));
    running.once('close', (code, signal) => leave(signal ?? `exit code ${code}`));
  });

  function hear(message: FromChild | undefined): void {
    if (message?.t === 'ready' && !ready) {
      ready = true;
      if (current !== undefined) begin(current);
    } else if (message?.t === 'done' && message.job === current?.message.job) {
      jobsDone += 1;
      finish({ kind: 'done', result: message.result });
    } else {
      lose('protocol', 'it said what is no message');
    }
  }

  function begin(job: CurrentJob): void {
    job.timer.cancel();
    job.timer = clock.after(config.timeLimitMs, () => lose('time', `over ${config.timeLimitMs} ms`));
    running.send(job.message, (error) => {
      if (error !== null) lose('exit', error.message);
    });
  }

  function lose(loss: Loss, detail: string): void {
    running.kill('SIGKILL');
    finish({ kind: 'lost', loss, detail: clip(detail.trim()) });
  }

  function finish(outcome: ChildOutcome): void {
    const job = current;
    current = undefined;
    job?.timer.cancel();
    job?.stop();
    job?.resolve(outcome);
  }

  return {
    get jobsDone() {
      return jobsDone;
    },
    get alive() {
      return alive;
    },
    run(request, signal) {
      return new Promise((resolve) => {
        const onAbort = (): void => lose('aborted', 'no longer wanted');
        const watch = watchMemory(running, config.memoryMaxBytes, clock, (held) => lose('memory', `${held} bytes`));
        current = {
          message: { t: 'render', job: jobsDone + 1, request },
          resolve,
          stop() {
            watch.cancel();
            signal.removeEventListener('abort', onAbort);
          },
          timer: clock.after(config.startLimitMs, () => lose('start', 'it did not become ready')),
        };
        signal.addEventListener('abort', onAbort, { once: true });
        if (signal.aborted) onAbort();
        else if (!alive) lose('start', 'it is gone');
        else if (ready) begin(current);
      });
    },
    async end() {
      running.kill('SIGKILL');
      await gone;
    },
  };
}

/** Nothing of the parent's environment but what finding libraries needs: there may be secrets in it. */
function launch(script: URL, config: ChildConfig): ChildProcess {
  const limits = { dataMaxBytes: config.memoryMaxBytes + DATA_MARGIN_BYTES, cpuMaxS: null, fileMaxBytes: null };
  const node = { program: process.execPath, args: ['--max-old-space-size=128'] };
  const command = limited(node, limits);
  const { PATH, LD_LIBRARY_PATH } = process.env;
  const running = fork(fileURLToPath(script), [], {
    execPath: command.program,
    execArgv: [...command.args],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    serialization: 'json',
    env: {
      ...(PATH !== undefined && { PATH }),
      ...(LD_LIBRARY_PATH !== undefined && { LD_LIBRARY_PATH }),
      UV_THREADPOOL_SIZE: String(config.threads),
      // Fewer heaps of malloc hold less that nobody uses.
      MALLOC_ARENA_MAX: '2',
      // Rasters come and go by the megabyte: kept, their pages need not be asked of the system again for each picture.
      MALLOC_MMAP_THRESHOLD_: String(32 * 1_024 * 1_024),
      MALLOC_TRIM_THRESHOLD_: String(64 * 1_024 * 1_024),
      // Large pictures stay in memory, where the limit counts them, and out of temporary files.
      VIPS_DISC_THRESHOLD: '64g',
    },
  });
  stepBack(running.pid, config.niceness);
  return running;
}

function stepBack(pid: number | undefined, niceness: number): void {
  if (pid === undefined) return;
  try {
    setPriority(pid, niceness);
  } catch {
    // It is gone already, which its exit will tell, or the system does not allow it, which harms nobody.
  }
}

function watchMemory(running: ChildProcess, maxBytes: number, clock: Clock, over: (held: number) => void): Timer {
  let timer = clock.after(WATCH_EVERY_MS, look);
  function look(): void {
    const held = running.pid === undefined ? undefined : residentBytes(running.pid);
    if (held !== undefined && held > maxBytes) over(held);
    else timer = clock.after(WATCH_EVERY_MS, look);
  }
  return { cancel: () => timer.cancel() };
}
