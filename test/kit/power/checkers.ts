/** Tries the disks that a power cut could leave, several at the same time, each in a process that may die of it. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { seeded } from '../random.js';
import type { Disk } from './disk.js';
import type { Recording } from './record.js';
import { replay } from './replay.js';
import { cuts, type DiskState, everything, fingerprint, layOut, stateAfter } from './states.js';

export interface CheckRequest {
  readonly of: 'origin' | 'edge';
  readonly folder: string;
  readonly notes: readonly unknown[];
  /** Also starts everything that a process consists of, and sends it requests. */
  readonly whole: boolean;
}

export interface CheckAnswer {
  readonly fault: string | null;
}

export interface Tried {
  /** Steps after which the power was cut. */
  readonly moments: number;
  /** Different disks, or different answers that were out when the disk was left. */
  readonly disks: number;
  /** The first of each kind. */
  readonly faults: readonly string[];
}

export interface TryOptions {
  readonly of: CheckRequest['of'];
  /** An empty folder. */
  readonly folder: string;
  readonly seed: number;
  /** How many cuts are drawn at each moment, and of those where one thing differs from all others. */
  readonly drawn: number;
  readonly single: number;
}

const CHECKER = fileURLToPath(new URL('./checker.js', import.meta.url));
const PROCESSES = 2;
/** One disk in so many gets a whole process. */
const WHOLE_EVERY = 20;
/** With so many kinds of faults the rest tells nothing new. */
const FAULTS_MAX = 20;
/** Names that differ from run to run. */
const NAMES = /[0-9a-f]{32,64}|[0-9A-Z]{26}|disk-\d+|[0-9]+ bytes/g;

export async function tryCuts(recording: Recording, options: TryOptions): Promise<Tried> {
  const random = seeded(options.seed);
  const seen = new Set<string>();
  const faults = new Map<string, string>();
  let moments = 0;
  const free = Array.from({ length: PROCESSES }, () => new Checker(options.of, options.folder));
  const running = new Set<Promise<void>>();
  let last: Disk | undefined;
  for (const { disk, notes, step } of replay<unknown>(recording.calls, recording.root, recording.notesPath)) {
    moments += 1;
    last = disk;
    for (const cut of cuts(disk, { ...options, random })) {
      const state = stateAfter(disk, cut, random);
      const print = `${notes.length} ${fingerprint(state)}`;
      if (seen.has(print)) continue;
      seen.add(print);
      if (free.length === 0) await Promise.race(running);
      const checker = free.pop();
      if (checker === undefined) throw new Error('no process is free');
      const checking = checker.check(state, seen.size, [...notes]).then((fault) => {
        free.push(checker);
        running.delete(checking);
        const kind = fault?.replace(NAMES, '…');
        if (kind !== undefined && !faults.has(kind)) faults.set(kind, `after ${step}, ${cut.what}: ${fault}`);
      });
      running.add(checking);
    }
    if (faults.size >= FAULTS_MAX) break;
  }
  await Promise.all(running);
  if (last !== undefined && faults.size < FAULTS_MAX) compareWithReal(last, recording.left);
  for (const checker of free) checker.close();
  return { moments, disks: seen.size, faults: [...faults.values()] };
}

/** At the end the model has what the real folder has. LMDB's lock files are written by mapping. */
function compareWithReal(disk: Disk, left: DiskState): void {
  const modelled = stateAfter(disk, everything('all', 'kept', true), () => 0);
  for (const path of new Set([...modelled.keys(), ...left.keys()])) {
    if (/(^|\/)(lock\.mdb|index-lock)$/.test(path)) continue;
    const [here, there] = [modelled.get(path), left.get(path)];
    const same = here instanceof Buffer && there instanceof Buffer ? here.equals(there) : here === there;
    if (!same) throw new Error(`the model is wrong about ${path}`);
  }
}

class Checker {
  readonly #of: CheckRequest['of'];
  readonly #folder: string;
  #child: ChildProcess | undefined;

  constructor(of: CheckRequest['of'], folder: string) {
    this.#of = of;
    this.#folder = folder;
  }

  async check(state: DiskState, nth: number, notes: readonly unknown[]): Promise<string | undefined> {
    const folder = join(this.#folder, `disk-${nth}`);
    mkdirSync(folder);
    layOut(state, folder);
    this.#child ??= fork(CHECKER);
    const child = this.#child;
    const ended = new AbortController();
    const { signal } = ended;
    child.send({ of: this.#of, folder, notes, whole: nth % WHOLE_EVERY === 0 } satisfies CheckRequest);
    const answered = once(child, 'message', { signal }).then(([answer]) => (answer as CheckAnswer).fault ?? undefined);
    const died = once(child, 'exit', { signal }).then(([code, by]) => {
      this.#child = undefined;
      return `the process ended with ${String(code ?? by)}`;
    });
    const fault = await Promise.race([answered, died]);
    answered.catch(() => undefined);
    died.catch(() => undefined);
    ended.abort();
    rmSync(folder, { recursive: true });
    return fault;
  }

  close(): void {
    this.#child?.kill('SIGKILL');
  }
}
