/**
 * What the disk tier asks of the file system, and nothing else, so that a test
 * can stand in its place and be full. Everything made here is for this user alone.
 */
import { type FileHandle, mkdir, open, readdir, rename, rm, statfs } from 'node:fs/promises';
import { errorCode } from '../../../src/errors.js';

const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;

export interface OpenFile {
  /** Writes all of it or rejects. */
  write(block: Buffer, at: number): Promise<void>;
  /** Fills `into` from this position as far as the file goes; answers how many bytes that were. */
  read(into: Buffer, at: number): Promise<number>;
  sizeBytes(): Promise<number>;
  close(): Promise<void>;
}

export interface DiskFiles {
  /** A new file; rejects where there is one. */
  create(path: string): Promise<OpenFile>;
  /** An existing file, to read. */
  open(path: string): Promise<OpenFile>;
  /** Takes the place of a file that is there. */
  rename(from: string, to: string): Promise<void>;
  /** A file or a whole folder; no error where there is none. */
  remove(path: string): Promise<void>;
  /** With all folders above it. */
  makeFolder(path: string): Promise<void>;
  /** What a folder holds; nothing where there is none. */
  names(folder: string): Promise<readonly string[]>;
  /** What this user may still write to the file system. */
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

/** Whether it failed because there is no such file or folder. */
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
