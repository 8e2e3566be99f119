/**
 * The lock that lets one process at a time write to a folder, of a database or of a stage: a file that
 * names its owner. An owner that has ended is recognised by its pid and, where the
 * system tells, by the start of that process. So a pid that is used again, or a
 * container whose main process always has pid 1, is not mistaken for the owner.
 */
import { link, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../../../src/errors.js';
import { StoreInUse } from '../store.js';

const LOCK_NAME = 'writer.lock';
/** How often to try again when other processes change the lock at the same time. */
const TRIES = 5;

export interface WriterLock {
  /** May be called twice. */
  release(): Promise<void>;
}

interface LockOwner {
  readonly pid: number;
  /** The boot and the start of the process; null if the system does not tell. */
  readonly started: string | null;
}

export class FolderInUse extends StoreInUse {
  override readonly name = 'FolderInUse';

  constructor(folder: string, pid: number) {
    super(
      `${folder} is in use by process ${pid}. Only one process may write to it: stop that one first, or give this one another folder.`,
    );
  }
}

/** Rejects with FolderInUse while another process, or this one, has the lock. `named`: what its message says is in use. */
export async function lockWriter(
  folder: string,
  randomName: () => string,
  named: string = folder,
): Promise<WriterLock> {
  const path = join(folder, LOCK_NAME);
  const own: LockOwner = { pid: process.pid, started: await startOf(process.pid) };
  const staged = `${path}.${process.pid}.${randomName()}`;
  await writeFile(staged, JSON.stringify(own), { flag: 'wx' });
  try {
    for (let tries = 0; tries < TRIES; tries += 1) {
      if (await tryLink(staged, path)) return { release: once(() => rm(path, { force: true })) };
      const owner = await readOwner(path);
      if (typeof owner === 'object' && (await isAlive(owner))) throw new FolderInUse(named, owner.pid);
      if (await takeOver(path, staged)) return { release: once(() => rm(path, { force: true })) };
    }
  } finally {
    await rm(staged, { force: true });
  }
  throw new Error(`${path} keeps changing: several processes are starting at once`);
}

/** False if there is a lock already. A link is created whole or not at all. */
async function tryLink(staged: string, path: string): Promise<boolean> {
  try {
    await link(staged, path);
    return true;
  } catch (thrown) {
    if (errorCode(thrown) === 'EEXIST') return false;
    throw thrown;
  }
}

/**
 * Puts the staged lock in the place of one whose owner has ended. Only one process at a time may do this, so that none
 * removes a lock that another has just taken. False if another has the lock, or is doing this.
 */
async function takeOver(path: string, staged: string): Promise<boolean> {
  const claim = `${path}.claim`;
  if (!(await tryLink(staged, claim))) {
    const claimant = await readOwner(claim);
    // It ended meanwhile, and left its claim.
    if (claimant !== 'absent' && !(await isAlive(claimant))) await rm(claim, { force: true });
    return false;
  }
  try {
    const owner = await readOwner(path);
    if (await isAlive(owner)) return false;
    if (owner !== 'absent') await rm(path, { force: true });
    return await tryLink(staged, path);
  } finally {
    await rm(claim, { force: true });
  }
}

/** One read decides: a lock that is absent now may be one of a living owner a moment later. */
async function readOwner(path: string): Promise<LockOwner | 'absent' | 'unreadable'> {
  try {
    const lock: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (typeof lock !== 'object' || lock === null || !('pid' in lock) || typeof lock.pid !== 'number') {
      return 'unreadable';
    }
    const started = 'started' in lock && typeof lock.started === 'string' ? lock.started : null;
    return { pid: lock.pid, started };
  } catch (thrown) {
    return errorCode(thrown) === 'ENOENT' ? 'absent' : 'unreadable';
  }
}

async function isAlive(owner: LockOwner | 'absent' | 'unreadable'): Promise<boolean> {
  if (typeof owner === 'string') return false;
  try {
    process.kill(owner.pid, 0);
  } catch (thrown) {
    // EPERM: it is alive and belongs to another user.
    if (errorCode(thrown) !== 'EPERM') return false;
  }
  const started = await startOf(owner.pid);
  return started === null || owner.started === null || started === owner.started;
}

/** When a process started, on Linux: the id of the boot, and the ticks since then (field 22 of stat, proc(5)). */
async function startOf(pid: number): Promise<string | null> {
  try {
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'latin1');
    const stat = await readFile(`/proc/${pid}/stat`, 'latin1');
    // Field 2 is the name in parentheses, which may contain spaces. Field 3 follows it.
    const ticks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    return ticks === undefined ? null : `${boot.trim()}:${ticks}`;
  } catch {
    return null;
  }
}

function once(run: () => Promise<void>): () => Promise<void> {
  let ended: Promise<void> | undefined;
  return () => {
    ended ??= run();
    return ended;
  };
}
