/**
 * Files by their descriptors, for the few steps that every upload takes: a
 * FileHandle costs about as much again as the call itself. Whoever opens closes.
 */
import { close, fsync, mkdirSync, open, write } from 'node:fs';
import { promisify } from 'node:util';
import { errorCode } from '../../src/errors.js';
import { makeFolder } from '../../src/private-folder.js';

export const openFd = promisify(open);
export const writeFd = promisify(write);
export const closeFd = promisify(close);
const syncFd = promisify(fsync);

/** Makes the present content of a file durable, or the present names in a folder. */
export async function syncPath(path: string): Promise<void> {
  const descriptor = await openFd(path, 'r');
  try {
    await syncFd(descriptor);
  } finally {
    await closeFd(descriptor);
  }
}

/** Runs `make`, which makes a file or a folder in `folder`. If the folder was removed, it is made again. */
export async function inFolder<T>(folder: string, make: () => Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (thrown) {
    if (errorCode(thrown) !== 'ENOENT') throw thrown;
    await makeFolder(folder);
    return await make();
  }
}

/** The same for a synchronous call. */
export function inFolderSync<T>(folder: string, make: () => T): T {
  try {
    return make();
  } catch (thrown) {
    if (errorCode(thrown) !== 'ENOENT') throw thrown;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    return make();
  }
}
