/**
 * Up to which byte an unfinished upload is on the disk, in a file beside it. The size of the file of bytes does not say
 * it: after a power cut a file may be as long as it was written, with zeros where bytes did not reach the disk.
 *
 * Promises: a mark is replaced completely or not at all, since it lies in one sector, and is on the disk when a call
 * resolves. Its name in the folder is for the caller to sync.
 */
import { constants } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { errorCode } from '../../../src/errors.js';
import { closeFd, openFd, writeFd } from '../../blobs/files.js';

const DIGITS = 16;
const MARK = /^\d{16}\n$/;
/** Writes at the beginning, and ends only when the bytes are on the disk. */
const SYNCED = constants.O_WRONLY | constants.O_CREAT | constants.O_DSYNC;

export async function writeMark(path: string, offset: number): Promise<void> {
  const descriptor = await openFd(path, SYNCED, 0o600);
  try {
    await writeFd(descriptor, Buffer.from(`${String(offset).padStart(DIGITS, '0')}\n`), 0, DIGITS + 1, 0);
  } finally {
    await closeFd(descriptor);
  }
}

/** Undefined if there is none, as for uploads of earlier releases. A damaged one says that nothing is certain. */
export async function readMark(path: string): Promise<number | undefined> {
  try {
    const text = await readFile(path, 'latin1');
    return MARK.test(text) ? Number(text) : 0;
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
}
