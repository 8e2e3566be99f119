/**
 * Folders that nobody but the user of this process may enter, and that a power
 * cut does not take away: the folder above is synced. New files are private by
 * the umask that the command line sets; here are folders, and what was made by
 * an earlier release or another tool.
 */
import { randomUUID } from 'node:crypto';
import { chmod, link, lstat, mkdir, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { errorCode } from './errors.js';

const FOLDER_MODE = 0o700;
const OTHERS = 0o077;
/** Of /tmp and its like, which are for everybody. */
const STICKY = 0o1000;

/**
 * Makes the folder with its parents, durably. If there is one, others lose their rights to it and to the files that are
 * directly in it.
 */
export async function openPrivateFolder(folder: string): Promise<void> {
  if ((await makeFolder(folder)) === 'there') await tightenFolder(folder);
}

/** Makes the folder with its parents, durably. One that is there keeps its rights. */
export async function makeFolder(folder: string): Promise<'made' | 'there'> {
  const path = resolve(folder);
  const above = dirname(path);
  const outcome = await makeOne(path);
  // Also if it was there: whoever made it may have been stopped before this step.
  await syncNames(above);
  // The one above, too, may have been there and not be durable.
  if (outcome === 'made') await syncNames(dirname(above));
  return outcome;
}

/** Others may remove the folder above meanwhile. A file system that makes no folders says the same each time. */
const TRIES = 3;

async function makeOne(path: string, tries = TRIES): Promise<'made' | 'there'> {
  try {
    await mkdir(path, FOLDER_MODE);
    return 'made';
  } catch (thrown) {
    switch (errorCode(thrown)) {
      case 'ENOENT':
        // A link that leads nowhere, or the root of a system without one.
        if (tries === 1 || dirname(path) === path) throw thrown;
        if ((await lstat(path).catch(() => undefined)) !== undefined) throw thrown;
        await makeFolder(dirname(path));
        return await makeOne(path, tries - 1);
      case 'EEXIST':
        if (!(await stat(path)).isDirectory()) throw thrown;
        return 'there';
      default:
        // Some systems report a folder that is there, and may not be made, by another code.
        if ((await stat(path).catch(() => undefined))?.isDirectory() === true) return 'there';
        throw thrown;
    }
  }
}

/** Makes a file with this text, whole or not at all, and durably. One that is there stays as it is. */
export async function createFile(path: string, text: string | Buffer): Promise<void> {
  if ((await lstat(path).catch(() => undefined)) !== undefined) return;
  const temporary = `${path}.${randomUUID()}`;
  try {
    await writeFile(temporary, text, { flag: 'wx', mode: 0o600, flush: true });
    await link(temporary, path).catch((thrown: unknown) => {
      if (errorCode(thrown) !== 'EEXIST') throw thrown;
    });
  } finally {
    await rm(temporary, { force: true });
  }
  await syncNames(dirname(path));
}

/** Makes the present names in a folder durable. A folder that we may not read has no names of ours. */
async function syncNames(folder: string): Promise<void> {
  try {
    const handle = await open(folder, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (thrown) {
    const code = errorCode(thrown);
    if (code !== 'EACCES' && code !== 'EPERM') throw thrown;
  }
}

/** The same for a folder that is there. */
export async function tightenFolder(folder: string): Promise<void> {
  if ((await tighten(folder)) === 'left') return;
  for (const name of await readdir(folder)) await tightenFile(join(folder, name));
}

/** Others lose their rights to a file. No error if there is none. */
export async function tightenFile(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isFile() === true) await tighten(path);
}

/** `left`: it belongs to somebody else, is for everybody, or cannot be changed. */
async function tighten(path: string): Promise<'private' | 'left'> {
  try {
    const { uid, mode } = await lstat(path);
    if (uid !== process.getuid?.() || (mode & STICKY) !== 0) return 'left';
    if ((mode & OTHERS) !== 0) await chmod(path, mode & 0o700);
    return 'private';
  } catch {
    return 'left';
  }
}
