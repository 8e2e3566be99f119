/**
 * Content files by their SHA-256, in the layout of cacache's content store. A
 * file gets its name by a rename, so a named file is always complete. Only the
 * index knows which files are needed: cacache's own `verify` must not be run on
 * this folder, since it removes whatever cacache's own index does not list.
 */
import { dirname, join, sep } from 'node:path';
import { index, rm } from 'cacache';
import type { DiskFiles, OpenFile } from './files.js';
import { isMissing } from './files.js';

/** cacache spreads content files over two levels of folders, named by two hex digits each. */
const SHARD_DIGITS = 2;
const SHARD_LEVELS = 2;
const SHA256_DIGITS = 64;

export class ContentStore {
  readonly #folder: string;
  readonly #root: string;
  readonly #files: DiskFiles;
  readonly #randomName: () => string;

  private constructor(folder: string, root: string, files: DiskFiles, randomName: () => string) {
    this.#folder = folder;
    this.#root = root;
    this.#files = files;
    this.#randomName = randomName;
  }

  /** Nothing else may use `folder`. */
  static async open(folder: string, files: DiskFiles, randomName: () => string): Promise<ContentStore> {
    await files.makeFolder(folder);
    return new ContentStore(folder, await learnRoot(folder, files, randomName()), files, randomName);
  }

  /** Moves a complete file to its place. Replaces a file with the same content. */
  async publish(spoolPath: string, sha256: string): Promise<void> {
    const path = this.#pathOf(sha256);
    try {
      await this.#files.rename(spoolPath, path);
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown;
      await this.#files.makeFolder(dirname(path));
      await this.#files.rename(spoolPath, path);
    }
  }

  /** Rejects if there is no such file (see isMissing). */
  open(sha256: string): Promise<OpenFile> {
    return this.#files.open(this.#pathOf(sha256));
  }

  async remove(sha256: string): Promise<void> {
    await rm.content(this.#folder, integrityOf(sha256));
  }

  /** Moves everything out of the way in one step. Resolves with a function that removes it. */
  async discardAll(): Promise<() => Promise<void>> {
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

  #pathOf(sha256: string): string {
    const first = sha256.slice(0, SHARD_DIGITS);
    const second = sha256.slice(SHARD_DIGITS, SHARD_DIGITS * SHARD_LEVELS);
    return join(this.#root, first, second, sha256.slice(SHARD_DIGITS * SHARD_LEVELS));
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
