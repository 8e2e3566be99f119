/** Opens a file that is to be imported. Links, folders, pipes and devices are refused, and no open waits for one of them. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../../src/errors.js';
import { type Entry, type Read, refusedHere } from './entry.js';

export interface OpenedFile {
  readonly kind: 'file';
  /** The caller closes it. */
  readonly handle: FileHandle;
  readonly path: string;
  readonly sizeBytes: number;
}

const READ = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

export async function openFile(
  folder: string,
  { id, path }: Entry,
): Promise<OpenedFile | (Read & { kind: 'refused' })> {
  const whole = join(folder, path);
  let handle: FileHandle;
  try {
    handle = await open(whole, READ);
  } catch (thrown) {
    const code = errorCode(thrown) ?? '';
    return code === 'ENOENT' || code === 'ENOTDIR'
      ? refusedHere(id, path, 'missing', 'There is no such file.')
      : refusedHere(id, path, 'unreadable', `The file cannot be opened (${code}).`);
  }
  const facts = await handle.stat();
  if (facts.isFile()) return { kind: 'file', handle, path: whole, sizeBytes: facts.size };
  await handle.close();
  return refusedHere(id, path, 'unreadable', 'It is no regular file.');
}
