/**
 * Locks a cache folder: only one process at a time may use it, since two would
 * remove each other's content. The lock is a file that names its process; the
 * lock of a process that has ended is taken over. Processes in separate
 * containers over one volume cannot see each other: to each, the other has ended.
 */
import { open, readFile, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../../../src/errors.js';

const TRIES_MAX = 3;

/** The locks of this process. Its own number in a file proves nothing: a copied folder has it too. */
const locked = new Set<string>();

/** Another process, or this one, uses the folder already. */
export class FolderInUse extends Error {
  override readonly name = 'FolderInUse';
}

/** Resolves with a function that unlocks the folder. Rejects with FolderInUse if it is locked. */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const path = join(await realpath(folder), 'lock');
  if (locked.has(path)) throw new FolderInUse(`the cache folder ${folder} is in use already`);
  locked.add(path);
  try {
    await claim(path, folder);
  } catch (thrown) {
    locked.delete(path);
    throw thrown;
  }
  return async () => {
    await rm(path, { force: true });
    locked.delete(path);
  };
}

async function claim(path: string, folder: string): Promise<void> {
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    if (await create(path)) return;
    const [pid = '', startedAt = ''] = (await textOf(path)).split(' ');
    const alive = Number(pid) !== process.pid && (await isRunning(Number(pid), startedAt));
    if (alive) throw new FolderInUse(`the cache folder ${folder} is in use by process ${pid}`);
    await rm(path, { force: true });
  }
  throw new FolderInUse(`another process is locking the cache folder ${folder}`);
}

/** False if the file exists. */
async function create(path: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(`${process.pid} ${await startOf(process.pid)}`);
    } catch (thrown) {
      await rm(path, { force: true });
      throw thrown;
    } finally {
      await file.close();
    }
    return true;
  } catch (thrown) {
    if (errorCode(thrown) === 'EEXIST') return false;
    throw thrown;
  }
}

async function isRunning(pid: number, startedAt: string): Promise<boolean> {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
  } catch (thrown) {
    if (errorCode(thrown) === 'ESRCH') return false;
  }
  // The number may belong to a newer process.
  const actual = await startOf(pid);
  return actual === '' || startedAt === '' || actual === startedAt;
}

/** The start time of a process, in the kernel's own unit. Empty if it is unknown. */
async function startOf(pid: number): Promise<string> {
  const text = await textOf(`/proc/${pid}/stat`);
  // The program's name may contain spaces and brackets; after its closing bracket there are only plain fields.
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return '';
  }
}
