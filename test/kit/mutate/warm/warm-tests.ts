/**
 * Runs test files in one process that stays, which spares each of them the start of a process and the loading of tap and of
 * packages. A failure counts where the same file passes there without the wrong line and fails again with it.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { on } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { WarmAnswer, WarmOrder } from './messages.js';

type Done = Extract<WarmAnswer, { kind: 'done' }>;

export type WarmVerdict = 'passed' | 'failed' | 'unclear';

/** Puts the wrong line into the module, and the right one back. */
export type Lines = { wrong(): Promise<void>; right(): Promise<void> };

export type WarmTests = {
  /** `unclear`: it fails by chance or without the wrong line too, and a process of its own must decide. */
  run(file: string, changed: string, withinMs: number, put: Lines): Promise<WarmVerdict>;
  close(): void;
};

/** Each run leaves modules behind that are never freed. */
const RUNS_MAX = 80;
const START_MS = 60_000;
const PROCESS = fileURLToPath(new URL('process.js', import.meta.url));
const FLAGS = ['--experimental-vm-modules', '--no-warnings', '--max-old-space-size=1500'];

export function createWarmTests(root: string): WarmTests {
  const unfit = new Set<string>();
  let child: ChildProcess | null = null;
  let runs = 0;

  async function start(): Promise<ChildProcess> {
    const started = fork(PROCESS, [], {
      cwd: root,
      execArgv: FLAGS,
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      detached: true,
    });
    child = started;
    runs = 0;
    await messageOf(started, 'ready', AbortSignal.timeout(START_MS));
    return started;
  }

  /** With all that it started: it leads a group of its own. */
  function stop(): void {
    try {
      if (child?.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
    child = null;
  }

  /** Whether the file passes. A process that hangs, ends or has run often is replaced. */
  async function passes(order: WarmOrder, withinMs: number): Promise<boolean> {
    const asked = child ?? (await start());
    runs += 1;
    const answer = await answerOf(asked, order, withinMs);
    if (answer === null || runs >= RUNS_MAX) stop();
    return answer?.passed === true;
  }

  process.once('exit', stop);
  return {
    async run(file, changed, withinMs, put) {
      if (unfit.has(file)) return 'unclear';
      const passesNow = (): Promise<boolean> => passes({ file, changed }, withinMs);
      await put.wrong();
      if (await passesNow()) return 'passed';
      await put.right();
      if (await passesNow()) {
        await put.wrong();
        return (await passesNow()) ? 'unclear' : 'failed';
      }
      // What the failure left behind may be the reason.
      stop();
      if (!(await passesNow())) unfit.add(file);
      return 'unclear';
    },
    close() {
      stop();
      process.off('exit', stop);
    },
  };
}

/** Null where none comes in time. */
async function answerOf(child: ChildProcess, order: WarmOrder, withinMs: number): Promise<Done | null> {
  const done = new AbortController();
  const timer = setTimeout(() => done.abort(), withinMs);
  const onExit = (): void => done.abort();
  child.once('exit', onExit);
  try {
    child.send(order);
    return await messageOf(child, 'done', done.signal);
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
    child.off('exit', onExit);
  }
}

/** The next message of the kind. tap sends messages of its own to the parent of a process. */
async function messageOf<Kind extends WarmAnswer['kind']>(
  child: ChildProcess,
  kind: Kind,
  signal: AbortSignal,
): Promise<Extract<WarmAnswer, { kind: Kind }>> {
  for await (const [message] of on(child, 'message', { signal })) {
    const answer = message as Partial<WarmAnswer>;
    if (answer.kind === kind) return answer as Extract<WarmAnswer, { kind: Kind }>;
  }
  throw new Error('the messages ended');
}
