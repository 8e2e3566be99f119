/**
 * Runs a program that is not ours, once, under limits: no input, no
 * environment to speak of, its output bounded, killed when its time is over or
 * nobody wants it any more.
 */
import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { Clock } from '../../../src/clock.js';
import { errorCode } from '../../../src/errors.js';
import { type Command, limited } from './limits.js';

export interface ProgramLimits {
  readonly timeLimitMs: number;
  readonly memoryMaxBytes: number;
  readonly fileMaxBytes: number;
}

export type ProgramOutcome =
  | { readonly kind: 'ended'; readonly code: number | null; readonly output: string; readonly complaints: string }
  | { readonly kind: 'killed'; readonly loss: 'time' | 'aborted' }
  /** There is no such program. */
  | { readonly kind: 'absent' };

const OUTPUT_CHARS_MAX = 256 * 1_024;
/** The shell that sets the limits says so when there is nothing to become. */
const NOT_FOUND = new Set([126, 127]);

export function runProgram(
  command: Command,
  limits: ProgramLimits,
  folder: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<ProgramOutcome> {
  const { program, args } = limited(command, {
    dataMaxBytes: limits.memoryMaxBytes,
    // Several threads use CPU time faster than time passes. This ends what our own death would leave behind.
    cpuMaxS: Math.ceil((limits.timeLimitMs / 1_000) * 4),
    fileMaxBytes: limits.fileMaxBytes,
  });
  const { PATH = '/usr/local/bin:/usr/bin:/bin' } = process.env;
  const running = spawn(program, args, {
    cwd: folder,
    env: { PATH, LC_ALL: 'C', HOME: folder, TMPDIR: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = collect(running.stdout);
  const complaints = collect(running.stderr);
  return new Promise((resolve, reject) => {
    let killed: 'time' | 'aborted' | undefined;
    const kill = (loss: 'time' | 'aborted'): void => {
      killed ??= loss;
      running.kill('SIGKILL');
    };
    const onAbort = (): void => kill('aborted');
    const timer = clock.after(limits.timeLimitMs, () => kill('time'));
    const settle = (): void => {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    running.once('error', (error) => {
      settle();
      if (errorCode(error) === 'ENOENT') resolve({ kind: 'absent' });
      else reject(error);
    });
    running.once('close', (code) => {
      settle();
      if (killed !== undefined) resolve({ kind: 'killed', loss: killed });
      else if (code !== null && NOT_FOUND.has(code)) resolve({ kind: 'absent' });
      else resolve({ kind: 'ended', code, output: output(), complaints: complaints() });
    });
  });
}

function collect(stream: Readable): () => string {
  let text = '';
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    if (text.length < OUTPUT_CHARS_MAX) text += chunk;
  });
  return () => text.slice(0, OUTPUT_CHARS_MAX);
}
