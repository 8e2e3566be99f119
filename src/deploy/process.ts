/**
 * The processes of a cluster: each has a log of its own, and ends with the process that started it, however that one ends.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, openSync } from 'node:fs';
import { access, constants, readFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { sleep, systemClock } from '../clock.js';
import { errorCode } from '../errors.js';

export interface Part {
  readonly name: string;
  readonly pid: number;
  /** How it ended, in words. */
  readonly ended: Promise<string>;
  /** Resolves when it has ended. */
  stop(): Promise<void>;
}

export interface Command {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  /** Where it runs. */
  readonly folder: string;
  readonly logFile: string;
  readonly env?: Readonly<Record<string, string>>;
  /** The user that it runs as, where this process is root. */
  readonly user?: User;
  /** Asks it to end. */
  readonly signal: 'SIGTERM' | 'SIGINT';
  /** What the kernel sends in its place if the one who started it is killed: it waits for others, which end then too. */
  readonly orphaned?: 'SIGKILL';
}

export interface User {
  readonly uid: number;
  readonly gid: number;
}

/** A failure that the person who started the cluster can mend. Its message is the whole report. */
export class CannotRun extends Error {}

/** Longer than an origin or an edge lets open requests go on. */
const STOP_WITHIN_MS = 40_000;

/**
 * A process group of its own, so that Ctrl-C reaches the one who stops the parts in their order. The kernel sends
 * the signal if that one is killed (`setpriv --pdeathsig`).
 */
export function startPart({ name, program, args, folder, logFile, env, user, signal, orphaned }: Command): Part {
  mkdirSync(join(logFile, '..'), { recursive: true });
  const log = openSync(logFile, 'a', 0o600);
  const as = user === undefined ? [] : [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups'];
  const child = spawn('setpriv', [...as, `--pdeathsig=${(orphaned ?? signal).slice(3)}`, '--', program, ...args], {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ['ignore', log, log],
    detached: true,
  });
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, by) => resolve(by === null ? `with code ${code}` : `by ${by}`));
  });
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  return {
    name,
    pid: child.pid ?? 0,
    ended,
    async stop() {
      if (isOver) return;
      child.kill(signal);
      const kill = systemClock.after(STOP_WITHIN_MS, () => child.kill('SIGKILL'));
      await ended;
      kill.cancel();
    },
  };
}

/** Runs a program to its end. Rejects with what it said if it fails. */
export async function run(
  program: string,
  args: readonly string[],
  options: { readonly folder: string; readonly user?: User; readonly env?: Readonly<Record<string, string>> },
): Promise<string> {
  const { folder: cwd, user, env } = options;
  const given = { cwd, env: { ...process.env, ...env }, timeout: 120_000, ...(user !== undefined && user) };
  const { stdout } = await promisify(execFile)(program, [...args], given);
  return stdout;
}

/** Repeats `isReady` until it holds. Rejects if the process ends before, or if it takes too long. */
export async function untilReady(part: Part, isReady: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
  const startedMs = systemClock.monotonicMs();
  const over = part.ended.then((how) => {
    throw new CannotRun(`${part.name} ended ${how} before it was ready`);
  });
  over.catch(() => undefined);
  while (!(await Promise.race([isReady().catch(() => false), over]))) {
    signal.throwIfAborted();
    if (systemClock.monotonicMs() - startedMs > READY_WITHIN_MS) throw new CannotRun(`${part.name} does not get ready`);
    await Promise.race([sleep(systemClock, 200, signal), over]);
  }
}

const READY_WITHIN_MS = 180_000;

export async function isInPath(program: string): Promise<boolean> {
  const folders = program.includes('/') ? [''] : (process.env['PATH'] ?? '').split(delimiter);
  for (const folder of folders) {
    const found = await access(join(folder, program), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}

/** The ids of a user of this system, or undefined. */
export async function userNamed(name: string): Promise<User | undefined> {
  const line = (await readFile('/etc/passwd', 'utf8')).split('\n').find((each) => each.startsWith(`${name}:`));
  const [, , uid, gid] = (line ?? '').split(':');
  return uid === undefined || gid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) };
}

export async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return false;
    throw thrown;
  }
}
