/**
 * Content files by their SHA-256, in the layout of cacache's content store. Only
 * the index knows which files are needed and complete: cacache's own `verify` must
 * not be run on this folder, since it removes whatever cacache's own index does not
 * list. A file that no entry needs may be incomplete, after a crash for example.
 */
import { dirname, join, sep } from 'node:path';
import { index, rm } from 'cacache';
import { errorCode } from '../../../src/errors.js';
import type { DiskFiles, OpenFile } from './files.js';
import { isMissing } from './files.js';
import { KeptFiles } from './kept-files.js';
import { Pieces } from './pieces.js';

/** cacache spreads content files over two levels of folders, named by two hex digits each. */
const SHARD_DIGITS = 2;
const SHARD_LEVELS = 2;
const SHARDS_DIGITS = SHARD_DIGITS * SHARD_LEVELS;
const SHA256_DIGITS = 64;

export interface ContentStoreDeps {
  readonly files: DiskFiles;
  readonly randomName: () => string;
  /** Most files that stay open between two reads. */
  readonly openFilesMax: number;
  /** The memory for what was read last. */
  readonly readMemoryBytes: number;
  readonly onError: (thrown: unknown) => void;
}

export class ContentStore {
  readonly #folder: string;
  readonly #root: string;
  readonly #files: DiskFiles;
  readonly #randomName: () => string;
  readonly #kept: KeptFiles;
  /** 1 for each folder that this run has made, or has found. */
  readonly #foldersMade = new Uint8Array(16 ** SHARDS_DIGITS);
  /** What was read last. A content that is replaced or removed has none. */
  readonly pieces: Pieces;

  private constructor(folder: string, root: string, deps: ContentStoreDeps) {
    const { files, randomName, openFilesMax, readMemoryBytes, onError } = deps;
    this.#folder = folder;
    this.#root = root;
    this.#files = files;
    this.#randomName = randomName;
    this.#kept = new KeptFiles(openFilesMax, (sha256) => this.open(sha256), onError);
    this.pieces = new Pieces(readMemoryBytes);
  }

  /** Nothing else may use `folder`. */
  static async open(folder: string, deps: ContentStoreDeps): Promise<ContentStore> {
    const { files, randomName } = deps;
    await files.makeFolder(folder);
    return new ContentStore(folder, await learnRoot(folder, files, randomName()), deps);
  }

  /** The files that are kept open. */
  get openFiles(): number {
    return this.#kept.count;
  }

  /** Moves a complete file to its place. Replaces a file with the same content. */
  async publish(spoolPath: string, sha256: string): Promise<void> {
    const path = this.#pathOf(sha256);
    await this.#inFolder(path, () => this.#files.rename(spoolPath, path));
    this.forget(sha256);
  }

  /**
   * Writes a content into its place, which takes fewer steps than to move it there. A file that is there already may be
   * incomplete, or have readers: that one is replaced, by way of `sparePath`.
   */
  async write(bytes: Buffer, sha256: string, sparePath: string): Promise<void> {
    const path = this.#pathOf(sha256);
    try {
      const file = await this.#inFolder(path, () => this.#files.create(path));
      await this.#fill(file, path, bytes);
    } catch (thrown) {
      if (errorCode(thrown) !== 'EEXIST') throw thrown;
      await this.#fill(await this.#files.create(sparePath), sparePath, bytes);
      await this.#files.rename(sparePath, path);
    }
    this.forget(sha256);
  }

  /** Rejects if there is no such file (see isMissing). */
  open(sha256: string): Promise<OpenFile> {
    return this.#files.open(this.#pathOf(sha256));
  }

  /** As `open`, but the file may stay open for the next reader. */
  lend(sha256: string): Promise<OpenFile> {
    return this.#kept.lend(sha256);
  }

  /** The next reader opens and reads the file again. */
  forget(sha256: string): void {
    this.#kept.drop(sha256);
    this.pieces.drop(sha256);
  }

  async remove(sha256: string): Promise<void> {
    this.forget(sha256);
    await rm.content(this.#folder, integrityOf(sha256));
  }

  /** Closes the files that are kept open. */
  close(): void {
    this.#kept.dropAll();
    this.pieces.dropAll();
  }

  /** Moves everything out of the way in one step. Resolves with a function that removes it. */
  async discardAll(): Promise<() => Promise<void>> {
    this.#kept.dropAll();
    this.pieces.dropAll();
    const trash = join(this.#folder, `trash-${this.#randomName()}`);
    try {
      await this.#files.rename(this.#root, trash);
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown;
    }
    return () => this.#files.remove(trash);
  }

  /** Removes what earlier runs discarded and could not remove. */
  async emptyTrash(): Promise<void> {
    for (const name of await this.#files.names(this.#folder)) {
      if (name.startsWith('trash-') || name.startsWith('learn-')) await this.#files.remove(join(this.#folder, name));
    }
  }

  /**
   * The SHA-256 of all files, folder by folder. Any other name of that length is listed too, for the
   * sweep to remove.
   */
  async *list(): AsyncIterable<readonly string[]> {
    for (const first of await this.#files.names(this.#root)) {
      for (const second of await this.#files.names(join(this.#root, first))) {
        const names = await this.#files.names(join(this.#root, first, second));
        yield names.map((name) => `${first}${second}${name}`).filter((sha256) => sha256.length === SHA256_DIGITS);
      }
    }
  }

  /** Makes the folder of this path if there is none. The first file of a folder in each run costs that call. */
  async #inFolder<T>(path: string, operation: () => Promise<T>): Promise<T> {
    const folder = dirname(path);
    const shard = Number.parseInt(path.slice(this.#root.length).replaceAll(sep, '').slice(0, SHARDS_DIGITS), 16);
    if (this.#foldersMade[shard] === 0) await this.#makeFolder(folder, shard);
    try {
      return await operation();
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown;
      await this.#makeFolder(folder, shard);
      return operation();
    }
  }

  async #makeFolder(folder: string, shard: number): Promise<void> {
    await this.#files.makeFolder(folder);
    this.#foldersMade[shard] = 1;
  }

  /** Writes a new file. If that fails, the file is removed. */
  async #fill(file: OpenFile, path: string, bytes: Buffer): Promise<void> {
    try {
      try {
        await file.write(bytes, 0);
      } finally {
        await file.close();
      }
    } catch (thrown) {
      await this.#files.remove(path);
      throw thrown;
    }
  }

  #pathOf(sha256: string): string {
    const first = sha256.slice(0, SHARD_DIGITS);
    const second = sha256.slice(SHARD_DIGITS, SHARDS_DIGITS);
    return join(this.#root, first, second, sha256.slice(SHARDS_DIGITS));
  }
}

/** Finds the folder in which cacache puts content: its index returns the path when an entry is inserted. */
async function learnRoot(folder: string, files: DiskFiles, name: string): Promise<string> {
  const sample = '0123456789abcdef'.repeat(4);
  const scratch = join(folder, `learn-${name}`);
  try {
    const { path } = (await index.insert(scratch, 'sample', integrityOf(sample), { size: 0 })) as { path: string };
    const tail = [sample.slice(0, 2), sample.slice(2, 4), sample.slice(4)].join(sep);
    if (!path.endsWith(sep + tail))
      throw new Error('this version of cacache uses another layout for its content files');
    return join(folder, path.slice(scratch.length, -tail.length));
  } finally {
    await files.remove(scratch);
  }
}

function integrityOf(sha256: string): string {
  return `sha256-${Buffer.from(sha256, 'hex').toString('base64')}`;
}
