/** Runs one test file in a process of its own. Says whether it passed, what it printed and how long it took. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

export type TestResult = {
  /** `timeout`: the file ran longer than `withinSeconds`, which is also a failure. */
  readonly outcome: 'passed' | 'failed' | 'timeout';
  /** TAP, as the file printed it. */
  readonly output: string;
  readonly tookMs: number;
};

export type TestRun = {
  readonly file: string;
  /** Test files that `file` runs. */
  readonly runs?: readonly string[];
  /** The folder in which the file is looked for and run: the project, or a copy of it. */
  readonly root?: string;
  readonly withinSeconds: number;
  readonly env?: Readonly<Record<string, string>>;
  /** What the test prints to standard error is shown unless this is false. */
  readonly loud?: boolean;
};

/** How long a file may take to report its own timeout before it is killed with all that it started. */
const GRACE_SECONDS = 10;

/** tap removes a test's folder before its teardown, while processes of the test still write there. */
const TAP = { TAP_OMIT_VERSION: '1', TAP_SAVE_FIXTURE: '1' } as const;

export async function runTestFile(run: TestRun): Promise<TestResult> {
  const child = spawn(process.execPath, ['--enable-source-maps', run.file, ...(run.runs ?? [])], {
    cwd: run.root,
    stdio: ['ignore', 'pipe', run.loud === false ? 'ignore' : 'inherit'],
    env: { ...process.env, ...run.env, ...TAP, TAP_TIMEOUT: String(run.withinSeconds) },
    // A group of its own, so that a test that hangs takes its children with it.
    detached: true,
  });
  const startedAt = performance.now();
  let late = false;
  const killer = setTimeout(
    () => {
      late = true;
      kill(child.pid);
    },
    (run.withinSeconds + GRACE_SECONDS) * 1_000,
  );
  const onExit = (): void => kill(child.pid);
  process.once('exit', onExit);
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  clearTimeout(killer);
  process.off('exit', onExit);
  await removeFixtures(run);
  // A file with a failed test has reported it. One that ended otherwise may have reported nothing.
  if (code !== 0 && !/^\s*not ok /m.test(output)) output += `not ok - it ended with ${String(code ?? signal)}\n`;
  return {
    outcome: late ? 'timeout' : code === 0 ? 'passed' : 'failed',
    output,
    tookMs: performance.now() - startedAt,
  };
}

/** The folders that tap made for the tests of a file. */
async function removeFixtures({ root = '.', file, runs = [] }: TestRun): Promise<void> {
  const fixtures = join(root, '.tap', 'fixtures');
  const prefix = [file, ...runs.slice(0, 1)].join('-').replaceAll('/', '-');
  const names = await readdir(fixtures).catch(() => []);
  const own = names.filter((name) => name === prefix || name.startsWith(`${prefix}-`));
  await Promise.all(own.map((name) => rm(join(fixtures, name), { recursive: true, force: true, maxRetries: 5 })));
}

function kill(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}
