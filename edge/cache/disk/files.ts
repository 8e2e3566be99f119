/**
 * The part of the file system that the disk tier uses, as an interface, so that
 * tests can make it fail. All files and folders are accessible to this user only.
 */
import { close, fstat, open, read, write } from 'node:fs';
import { mkdir, readdir, rename, rm, statfs } from 'node:fs/promises';
import { errorCode } from '../../../src/errors.js';

const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;

export interface OpenFile {
  /** Writes all of it or rejects. */
  write(block: Buffer, at: number): Promise<void>;
  /** Reads from this position until `into` is full or the file ends. Resolves with the number of bytes. */
  read(into: Buffer, at: number): Promise<number>;
  sizeBytes(): Promise<number>;
  /** The file is closed once its reads and writes have ended. */
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
  create: (path) => openFile(path, 'wx+'),
  open: (path) => openFile(path, 'r'),
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

/** What was read from and written to files. */
export interface FileTraffic {
  readBytes: number;
  writtenBytes: number;
}

/** The same files, counted. */
export function countingFiles(files: DiskFiles, traffic: FileTraffic): DiskFiles {
  const counting = async (opening: Promise<OpenFile>): Promise<OpenFile> => {
    const file = await opening;
    return {
      async write(block, at) {
        await file.write(block, at);
        traffic.writtenBytes += block.length;
      },
      async read(into, at) {
        const count = await file.read(into, at);
        traffic.readBytes += count;
        return count;
      },
      sizeBytes: () => file.sizeBytes(),
      close: () => file.close(),
    };
  };
  return {
    create: (path) => counting(files.create(path)),
    open: (path) => counting(files.open(path)),
    rename: (from, to) => files.rename(from, to),
    remove: (path) => files.remove(path),
    makeFolder: (path) => files.makeFolder(path),
    names: (folder) => files.names(folder),
    freeBytes: (folder) => files.freeBytes(folder),
  };
}

/** Whether an operation failed because there is no such file or folder. */
export function isMissing(thrown: unknown): boolean {
  const code = errorCode(thrown);
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function openFile(path: string, flags: 'r' | 'wx+'): Promise<OpenFile> {
  return new Promise((resolve, reject) => {
    open(path, flags, FILE_MODE, (failure, descriptor) => {
      if (failure === null) resolve(new DescriptorFile(descriptor));
      else reject(failure);
    });
  });
}

/**
 * A file by its descriptor, which costs half of what node's FileHandle does. The system gives the number of a closed
 * file to the next one that is opened. So none is used after `close`, and it is closed after all that use it.
 */
class DescriptorFile implements OpenFile {
  readonly #descriptor: number;
  #inUse = 0;
  #closing: Promise<void> | undefined;
  #onUnused: (() => void) | undefined;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  async write(block: Buffer, at: number): Promise<void> {
    for (let done = 0; done < block.length; ) {
      done += await this.#use((descriptor, settle) =>
        write(descriptor, block, done, block.length - done, at + done, settle),
      );
    }
  }

  async read(into: Buffer, at: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const bytesRead = await this.#use((descriptor, settle) =>
        read(descriptor, into, done, into.length - done, at + done, settle),
      );
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  sizeBytes(): Promise<number> {
    return this.#use((descriptor, settle) => fstat(descriptor, (failure, stats) => settle(failure, stats?.size ?? 0)));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#inUse > 0) {
      await new Promise<void>((resolve) => {
        this.#onUnused = resolve;
      });
    }
    await new Promise<void>((resolve, reject) => {
      close(this.#descriptor, (failure) => ((failure ?? null) === null ? resolve() : reject(failure)));
    });
  }

  #use(
    operation: (descriptor: number, settle: (failure: Error | null, value: number) => void) => void,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#closing !== undefined) {
        reject(new Error('the file is closed'));
        return;
      }
      this.#inUse += 1;
      operation(this.#descriptor, (failure, value) => {
        this.#inUse -= 1;
        if (this.#inUse === 0) this.#onUnused?.();
        if (failure === null) resolve(value);
        else reject(failure);
      });
    });
  }
}
