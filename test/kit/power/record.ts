/** Runs a program under the system's tracer, and gives what it did to the files in a folder. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { type DiskState, readState } from './states.js';
import { type FileCall, parseTrace, straceArguments } from './trace.js';

/** Why nothing can be recorded here, or false. */
export function whyNotTraced(): string | false {
  const tried = spawnSync('strace', ['-f', '--seccomp-bpf', '-o', '/dev/null', 'true']);
  if (tried.error !== undefined) return 'there is no strace';
  return tried.status === 0 ? false : 'no process may be traced here';
}

export interface Recording {
  readonly calls: readonly FileCall[];
  /** The folder that the program wrote to, and the file with its notes. */
  readonly root: string;
  readonly notesPath: string;
  /** What was there at the end. */
  readonly left: DiskState;
}

const TIMEOUT_MS = 120_000;

/**
 * `script` is run with the paths of an empty folder and of a file for its notes, one JSON text a line. Both are in
 * `folder`, and are gone when this resolves. Rejects if the program fails.
 */
export async function record(script: string, folder: string): Promise<Recording> {
  const [root, notesPath, tracePath] = [join(folder, 'disk'), join(folder, 'notes'), join(folder, 'trace')];
  writeFileSync(notesPath, '');
  const traced = spawn('strace', [...straceArguments(tracePath), process.execPath, script, root, notesPath], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, UV_USE_IO_URING: '0' },
    timeout: TIMEOUT_MS,
  });
  const errors = buffer(traced.stderr);
  const [code, signal] = (await once(traced, 'close')) as [number | null, string | null];
  if (code !== 0) throw new Error(`${script} ended with ${String(code ?? signal)}: ${String(await errors)}`);
  const calls = parseTrace(readFileSync(tracePath, 'latin1'));
  const left = readState(root);
  for (const path of [root, notesPath, tracePath]) rmSync(path, { recursive: true, force: true });
  return { calls, root, notesPath, left };
}
