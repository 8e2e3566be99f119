/**
 * The part of the file system that the disk tier uses, as an interface, so that
 * tests can make it fail. All files and folders are accessible to this user only.
 */
import { type FileHandle, mkdir, open, readdir, rename, rm, statfs } from 'node:fs/promises';
import { errorCode } from '../../../src/errors.js';

const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;

export interface OpenFile {
  /** Writes all of it or rejects. */
  write(block: Buffer, at: number): Promise<void>;
  /** Reads from this position until `into` is full or the file ends. Resolves with the number of bytes. */
  read(into: Buffer, at: number): Promise<number>;
  sizeBytes(): Promise<number>;
  close(): Promise<void>;
}

export interface DiskFiles {
  /** Creates a file. Rejects if it exists. */
  create(path: string): Promise<OpenFile>;
  /** Opens an existing file for reading. */
  open(path: string): Promise<OpenFile>;
  /** Replaces an existing file. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file, or a folder with everything in it. No error if there is none. */
  remove(path: string): Promise<void>;
  /** Creates a folder and its parents. */
  makeFolder(path: string): Promise<void>;
  /** The names in a folder; none if there is no such folder. */
  names(folder: string): Promise<readonly string[]>;
  /** The space that this user may still use in the file system. */
  freeBytes(folder: string): Promise<number>;
}

export const nodeFiles: DiskFiles = {
  create: async (path) => openFile(await open(path, 'wx+', FILE_MODE)),
  open: async (path) => openFile(await open(path, 'r')),
  rename,
  remove: (path) => rm(path, { recursive: true, force: true }),
  async makeFolder(path) {
    await mkdir(path, { recursive: true, mode: FOLDER_MODE });
  },
  async names(folder) {
    try {
      return await readdir(folder);
    } catch (thrown) {
      if (isMissing(thrown)) return [];
      throw thrown;
    }
  },
  async freeBytes(folder) {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  },
};

/** Whether an operation failed because there is no such file or folder. */
export function isMissing(thrown: unknown): boolean {
  const code = errorCode(thrown);
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function openFile(handle: FileHandle): OpenFile {
  return {
    async write(block, at) {
      for (let done = 0; done < block.length; ) {
        const { bytesWritten } = await handle.write(block, done, block.length - done, at + done);
        done += bytesWritten;
      }
    },
    async read(into, at) {
      let done = 0;
      while (done < into.length) {
        const { bytesRead } = await handle.read(into, done, into.length - done, at + done);
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return done;
    },
    sizeBytes: async () => (await handle.stat()).size,
    close: () => handle.close(),
  };
}
