/**
 * Files by their descriptors, for the few steps that every upload takes: a
 * FileHandle costs about as much again as the call itself. Whoever opens closes.
 */
import { close, closeSync, constants, fsync, mkdirSync, open, openSync, write } from 'node:fs';
import { promisify } from 'node:util';
import { errorCode } from '../../src/errors.js';
import { makeFolder } from '../../src/private-folder.js';

export const openFd = promisify(open);
export const writeFd = promisify(write);
export const closeFd = promisify(close);
const syncFd = promisify(fsync);

/** Creates the file; fails if it exists. */
export const NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
/** The same; each write ends only when its bytes are on the disk (POSIX: synchronized I/O data integrity completion). */
const NEW_SYNCED = NEW | constants.O_DSYNC;
export const FILE_MODE = 0o600;

/** Makes a file that `writeWhole` is to fill. With `synced`, what is written is on the disk. */
export function openNew(path: string, synced: boolean): Promise<number> {
  return openFd(path, synced ? NEW_SYNCED : NEW, FILE_MODE);
}

/** Writes a whole small file and closes it. A single write may write fewer bytes than given. */
export async function writeWhole(descriptor: number, bytes: Buffer): Promise<void> {
  try {
    for (let written = 0; written < bytes.length; ) {
      written += (await writeFd(descriptor, bytes, written)).bytesWritten;
    }
  } finally {
    // Nothing is left to be written, so this waits for no disk.
    closeSync(descriptor);
  }
}

/** Makes the present content of a file durable, or the present names in a folder. */
export async function syncPath(path: string): Promise<void> {
  const descriptor = await openFd(path, 'r');
  try {
    await syncFd(descriptor);
  } finally {
    await closeFd(descriptor);
  }
}

/** The same for a folder in which a name was just made or changed: to open it needs no disk. */
export async function syncNames(folder: string): Promise<void> {
  const descriptor = openSync(folder, 'r');
  try {
    await syncFd(descriptor);
  } finally {
    closeSync(descriptor);
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
