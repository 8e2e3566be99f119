/**
 * One process at a time may use a cache folder: two would remove each other's
 * content. The lock is a file that names its holder; one whose holder has ended
 * is taken over. (Processes that cannot see each other, in containers of their
 * own over one volume, are not told apart from ended ones.)
 */
import { open, readFile, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../../../src/errors.js';

const TRIES_MAX = 3;

/** What this process holds: its own number in a file says nothing, a copied folder has it too. */
const held = new Set<string>();

/** Resolves with what gives it back; rejects where another process, or this one, has it. */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const path = join(await realpath(folder), 'lock');
  if (held.has(path)) throw new Error(`the cache folder ${folder} is in use already`);
  held.add(path);
  try {
    await claim(path, folder);
  } catch (thrown) {
    held.delete(path);
    throw thrown;
  }
  return async () => {
    await rm(path, { force: true });
    held.delete(path);
  };
}

async function claim(path: string, folder: string): Promise<void> {
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    if (await create(path)) return;
    const [pid = '', startedAt = ''] = (await textOf(path)).split(' ');
    const alive = Number(pid) !== process.pid && (await isRunning(Number(pid), startedAt));
    if (alive) throw new Error(`the cache folder ${folder} is in use by process ${pid}`);
    await rm(path, { force: true });
  }
  throw new Error(`the cache folder ${folder} is being taken by another process`);
}

/** False where there is one. */
async function create(path: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(`${process.pid} ${await startOf(process.pid)}`);
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
  // The number may belong to another process by now.
  const actual = await startOf(pid);
  return actual === '' || startedAt === '' || actual === startedAt;
}

/** When a process began, in the kernel's own count; empty where it does not tell. */
async function startOf(pid: number): Promise<string> {
  const text = await textOf(`/proc/${pid}/stat`);
  // The name of the program may hold blanks and brackets; what follows its last bracket does not.
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return '';
  }
}
