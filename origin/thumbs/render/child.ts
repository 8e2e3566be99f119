/**
 * One child process that renders, seen from its parent: started under limits,
 * given one picture at a time, watched while it works, and killed when it takes
 * too long, takes too much processor time or memory, sends an invalid message, or is no longer
 * needed.
 *
 * Promises: `started` and `run` always end, within their time limits. After any
 * ending but `done` the process is gone or going, and a new one must take its
 * place.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onAbort } from '../../../src/abort.js';
import type { Clock, Timer } from '../../../src/clock.js';
import { inFolderSync } from '../../blobs/files.js';
import type { ThumbsConfig } from '../config.js';
import type { Launcher } from './launcher.js';
import { NO_LIMITS, type ProcessMemory, readCpuMs, readMemory } from './limits.js';
import {
  clip,
  type FromChild,
  parseFromChild,
  type RenderedThumb,
  type RenderRequest,
  type RenderResult,
  type ToChild,
} from './protocol.js';

export type ChildConfig = ThumbsConfig['children'];

/** Why a process was lost with its job. `start`: it never became ready, so the job was not even tried. */
export type Loss = 'start' | 'time' | 'cpu' | 'memory' | 'exit' | 'protocol' | 'aborted';

export interface LostChild {
  readonly kind: 'lost';
  readonly loss: Loss;
  readonly detail: string;
}

export type ChildStart =
  /** `memory`: what the process has before its first picture; undefined where the system does not report it. */
  { readonly kind: 'ready'; readonly memory: ProcessMemory | undefined } | LostChild;

export type ChildOutcome = { readonly kind: 'done'; readonly result: RenderResult } | LostChild;

export interface ChildSpec {
  readonly script: URL;
  readonly launcher: Launcher;
  /** A folder of its own is made here, and removed when it is gone. */
  readonly folder: string;
  readonly config: ChildConfig;
  /** The kernel's limit on the data of the process; null: no limit. */
  readonly dataMaxBytes: number | null;
}

export interface Child {
  /** Never rejects. */
  readonly started: Promise<ChildStart>;
  readonly jobsDone: number;
  readonly alive: boolean;
  /** One at a time. The job waits until the process is ready. `onEarly` is called once at most, before the end. */
  run(request: RenderRequest, signal: AbortSignal, onEarly: OnEarly): Promise<ChildOutcome>;
  /** Resolves when the process is gone. */
  end(): Promise<void>;
}

/** Given the thumbnails that are made before the others, perhaps none, and the thumbhash. */
export type OnEarly = (thumbs: readonly RenderedThumb[], thumbhash: string | null) => void;

interface CurrentJob {
  readonly message: ToChild;
  readonly resolve: (outcome: ChildOutcome) => void;
  readonly stopListening: () => void;
  timers: readonly Timer[];
  /** Undefined once it was called. */
  onEarly: OnEarly | undefined;
}

const WATCH_EVERY_MS = 50;
const STDERR_CHARS_MAX = 2_000;

/** Prefix of the names of the processes' folders. */
export const CHILD_FOLDER_PREFIX = 'thumb-child-';

export function startChild(spec: ChildSpec, clock: Clock): Child {
  const { config, dataMaxBytes } = spec;
  const folder = inFolderSync(spec.folder, () => mkdtempSync(join(spec.folder, CHILD_FOLDER_PREFIX)));
  const running = launch(spec, folder);
  let ready: Extract<ChildStart, { kind: 'ready' }> | undefined;
  let alive = true;
  let jobsDone = 0;
  let stderr = '';
  let current: CurrentJob | undefined;
  let resolveStarted: (start: ChildStart) => void = () => undefined;
  const started = new Promise<ChildStart>((resolve) => {
    resolveStarted = resolve;
  });
  const startTimer = clock.after(config.startLimitMs, () =>
    lose('start', `it was not ready after ${config.startLimitMs} ms (origin.thumbs.children.start_limit)`),
  );

  running.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_CHARS_MAX);
  });
  running.on('message', (value) => receive(parseFromChild(value)));
  const gone = new Promise<void>((resolve) => {
    const onGone = (how: string): void => {
      alive = false;
      rmSync(folder, { recursive: true, force: true });
      lose(ready === undefined ? 'start' : 'exit', `${how} ${ready === undefined ? limitNote() : ''}${stderr}`);
      resolve();
    };
    running.on('error', (error) => onGone(error.message));
    running.once('close', (code, signal) => onGone(signal ?? `exit code ${code}`));
  });

  function limitNote(): string {
    if (dataMaxBytes === null) return '';
    return `with ${dataMaxBytes} bytes of data allowed (origin.thumbs.children.memory_max) `;
  }

  function receive(message: FromChild | undefined): void {
    if (message?.t === 'ready' && ready === undefined) {
      startTimer.cancel();
      ready = { kind: 'ready', memory: memoryOf(running) };
      resolveStarted(ready);
      if (current !== undefined) begin(current);
    } else if (message?.t === 'early' && message.job === current?.message.job && current.onEarly !== undefined) {
      current.onEarly(message.thumbs, message.thumbhash);
      current.onEarly = undefined;
    } else if (message?.t === 'done' && message.job === current?.message.job) {
      jobsDone += 1;
      finish({ kind: 'done', result: message.result });
    } else {
      lose('protocol', 'it sent an invalid message');
    }
  }

  function begin(job: CurrentJob): void {
    const freshBytes = ready?.memory?.residentBytes ?? 0;
    const cpuBeforeMs = cpuOf(running);
    job.timers = [
      clock.after(config.timeLimitMs, () => lose('time', `over ${config.timeLimitMs} ms`)),
      watch(clock, () => {
        const { residentBytes = 0 } = memoryOf(running) ?? {};
        const cpuMs = cpuOf(running) - cpuBeforeMs;
        if (residentBytes > freshBytes + config.memoryMaxBytes) lose('memory', `${residentBytes} bytes`);
        else if (cpuMs > config.cpuLimitMs) lose('cpu', `${cpuMs} ms of processor time`);
        else return 'go_on';
        return 'stop';
      }),
    ];
    running.send(job.message, (error) => {
      if (error !== null) lose('exit', error.message);
    });
  }

  function lose(loss: Loss, detail: string): void {
    const lost: LostChild = { kind: 'lost', loss, detail: clip(detail.trim()) };
    running.kill('SIGKILL');
    startTimer.cancel();
    resolveStarted(lost);
    finish(lost);
  }

  function finish(outcome: ChildOutcome): void {
    const job = current;
    current = undefined;
    for (const timer of job?.timers ?? []) timer.cancel();
    job?.stopListening();
    job?.resolve(outcome);
  }

  return {
    started,
    get jobsDone() {
      return jobsDone;
    },
    get alive() {
      return alive;
    },
    run(request, signal, onEarly) {
      return new Promise((resolve) => {
        if (signal.aborted) return resolve({ kind: 'lost', loss: 'aborted', detail: '' });
        current = {
          message: { t: 'render', job: jobsDone + 1, request },
          resolve,
          stopListening: onAbort(signal, () => lose('aborted', 'no longer needed')),
          timers: [],
          onEarly,
        };
        if (!alive) lose('start', 'it is gone');
        else if (ready !== undefined) begin(current);
      });
    },
    async end() {
      lose('aborted', 'no longer needed');
      await gone;
    },
  };
}

function launch({ script, launcher, config, dataMaxBytes }: ChildSpec, folder: string): ChildProcess {
  const { LD_LIBRARY_PATH } = process.env;
  const running = launcher.start({
    command: { program: process.execPath, args: ['--max-old-space-size=128', fileURLToPath(script)] },
    limits: { ...NO_LIMITS, dataMaxBytes },
    folder,
    channels: 'messages',
    network: 'none',
    env: {
      // What it may need to find libraries.
      ...(LD_LIBRARY_PATH !== undefined && { LD_LIBRARY_PATH }),
      UV_THREADPOOL_SIZE: String(config.threads),
      // With fewer arenas, malloc keeps less memory that nobody uses.
      MALLOC_ARENA_MAX: '2',
      // Rasters of several megabytes come and go: malloc keeps their pages instead of asking the system for each picture.
      MALLOC_MMAP_THRESHOLD_: String(32 * 1_024 * 1_024),
      MALLOC_TRIM_THRESHOLD_: String(64 * 1_024 * 1_024),
      // Large pictures stay in memory, where the limit counts them, and out of temporary files.
      VIPS_DISC_THRESHOLD: '64g',
    },
  });
  lowerPriority(running.pid, config.niceness);
  return running;
}

function lowerPriority(pid: number | undefined, niceness: number): void {
  if (pid === undefined) return;
  try {
    setPriority(pid, niceness);
  } catch {
    // The process is gone, which its exit will report, or the system does not allow this, which does no harm.
  }
}

function memoryOf({ pid }: ChildProcess): ProcessMemory | undefined {
  return pid === undefined ? undefined : readMemory(pid);
}

/** 0 where the system does not report it, so that the limit on time alone remains. */
function cpuOf({ pid }: ChildProcess): number {
  return pid === undefined ? 0 : (readCpuMs(pid) ?? 0);
}

function watch(clock: Clock, check: () => 'go_on' | 'stop'): Timer {
  let timer = clock.after(WATCH_EVERY_MS, again);
  function again(): void {
    if (check() === 'go_on') timer = clock.after(WATCH_EVERY_MS, again);
  }
  return { cancel: () => timer.cancel() };
}
