/**
 * Runs an external program once, under limits: no input, bounded output, killed when its time is over or nobody needs it any more. A kill
 * that does not come from here counts as the kernel's, for its processor time.
 */
import type { Readable } from 'node:stream';
import { onAbort } from '../../../src/abort.js';
import type { Clock } from '../../../src/clock.js';
import { errorCode } from '../../../src/errors.js';
import type { Launch, Launcher } from './launcher.js';
import type { Command } from './limits.js';

export interface ProgramLimits {
  readonly timeLimitMs: number;
  /** Processor time, all threads together. The kernel counts whole seconds. */
  readonly cpuLimitMs: number;
  readonly memoryMaxBytes: number;
  readonly fileMaxBytes: number;
}

/** What to run, and where. */
export interface Program extends Pick<Launch, 'folder' | 'network'> {
  readonly command: Command;
  readonly limits: ProgramLimits;
}

export type ProgramOutcome =
  | { readonly kind: 'ended'; readonly code: number | null; readonly output: string; readonly stderr: string }
  | { readonly kind: 'killed'; readonly loss: 'time' | 'cpu' | 'aborted' }
  /** There is no such program. */
  | { readonly kind: 'absent' };

const OUTPUT_CHARS_MAX = 256 * 1_024;
/** Exit codes of the shell that sets the limits, when it cannot exec the program. */
const NOT_FOUND = new Set([126, 127]);

export function runProgram(
  launcher: Launcher,
  { command, limits, folder, network }: Program,
  clock: Clock,
  signal: AbortSignal,
): Promise<ProgramOutcome> {
  const running = launcher.start({
    command,
    limits: {
      dataMaxBytes: limits.memoryMaxBytes,
      // This limit also ends a process that outlives its parent.
      cpuMaxS: Math.ceil(limits.cpuLimitMs / 1_000),
      fileMaxBytes: limits.fileMaxBytes,
    },
    folder,
    env: { LC_ALL: 'C' },
    channels: 'output',
    network,
  });
  const output = collect(running.stdout);
  const stderr = collect(running.stderr);
  return new Promise((resolve, reject) => {
    let killed: 'time' | 'aborted' | undefined;
    const kill = (loss: 'time' | 'aborted'): void => {
      killed ??= loss;
      running.kill('SIGKILL');
    };
    const timer = clock.after(limits.timeLimitMs, () => kill('time'));
    const stopListening = onAbort(signal, () => kill('aborted'));
    const stopWaiting = (): void => {
      timer.cancel();
      stopListening();
    };
    running.once('error', (error) => {
      stopWaiting();
      if (errorCode(error) === 'ENOENT') resolve({ kind: 'absent' });
      else reject(error);
    });
    running.once('close', (code, by) => {
      stopWaiting();
      if (killed !== undefined) resolve({ kind: 'killed', loss: killed });
      else if (by === 'SIGKILL' || by === 'SIGXCPU') resolve({ kind: 'killed', loss: 'cpu' });
      else if (code !== null && NOT_FOUND.has(code)) resolve({ kind: 'absent' });
      else resolve({ kind: 'ended', code, output: output(), stderr: stderr() });
    });
  });
}

function collect(stream: Readable | null): () => string {
  let text = '';
  stream?.setEncoding('utf8').on('data', (chunk: string) => {
    if (text.length < OUTPUT_CHARS_MAX) text += chunk;
  });
  return () => text.slice(0, OUTPUT_CHARS_MAX);
}
