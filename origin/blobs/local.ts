/**
 * Blobs as files of this machine: `media/<2 digits>/<sha256>-<place>`,
 * `thumb/<2 digits>/<source>/<sha256>-<place>` and `part/<2 digits>/<id>/<offset>-<place>`
 * below one folder; without `-<place>` if the place is empty. A place has no folder of its own, which would have to be
 * made and synced for each upload.
 *
 * Promises: a blob that was stored stays so, also after a power cut: its bytes are
 * synced, and the folders that name it. A staged file is renamed into place in one
 * step. A small body is written into its place at once: until `put` resolves the file
 * may be there in part, which no record names. Nothing else is written here except a
 * probe, which is removed.
 */

import { randomUUID } from 'node:crypto';
import type { Dirent } from 'node:fs';
import {
  type FileHandle,
  mkdir,
  open,
  opendir,
  readFile,
  rename,
  rm,
  rmdir,
  stat,
  statfs,
  writeFile,
} from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { errorCode, Fault, invariant } from '../../src/errors.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { Sha256 } from '../../src/ids.js';
import { openPrivateFolder } from '../../src/private-folder.js';
import {
  type BlobKey,
  type BlobListing,
  type BlobStore,
  isPartKey,
  type ListPrefix,
  NO_PLACE,
  parseBlobKey,
  partsOf,
  type ReadOutcome,
} from './blob-store.js';
import type { BlobsConfig } from './config.js';
import { inFolder, openNew, syncNames, syncPath, writeWhole } from './files.js';
import { createGroupSync } from './group-sync.js';
import { storageFault } from './storage-fault.js';

/** Makes the folders, and proves that a file can be renamed from the stage to its place. */
export async function openLocalStore(config: Pick<BlobsConfig, 'folder' | 'stageFolder'>): Promise<BlobStore> {
  const root = resolve(config.folder);
  const stageFolder = resolve(config.stageFolder);
  for (const folder of [stageFolder, root, join(root, 'media'), join(root, 'thumb')]) {
    await openPrivateFolder(folder);
  }
  await removeOldProbes(root);
  await proveSameFileSystem(stageFolder, root);
  return new LocalStore(root, stageFolder);
}

/** Only for reading, from a folder that nothing is to be written to. */
export function openLocalReader(folder: string): Pick<BlobStore, 'read'> {
  return new LocalStore(resolve(folder), resolve(folder));
}

class LocalStore implements BlobStore {
  readonly kind = 'local';
  readonly region = null;
  readonly stageFolder: string;
  readonly #root: string;
  /** The latest folders that are durable, or are being made so. */
  readonly #folders = new Map<string, Promise<void>>();
  /** Makes the present names in a folder durable. */
  readonly #syncNames = createGroupSync(syncNames);

  constructor(root: string, stageFolder: string) {
    this.#root = root;
    this.stageFolder = stageFolder;
  }

  async adopt(
    stagedPath: string,
    key: BlobKey,
    facts: { sizeBytes: number; sha256: Sha256; synced?: boolean },
    signal?: AbortSignal,
  ): Promise<void> {
    try {
      signal?.throwIfAborted();
      if (facts.synced !== true) await syncStaged(stagedPath, facts.sizeBytes);
      await this.#publish(stagedPath, this.#pathOf(key));
    } catch (thrown) {
      await rm(stagedPath, { force: true });
      throw storageFault(thrown, signal);
    }
  }

  async put(key: BlobKey, bytes: Buffer, signal?: AbortSignal): Promise<'put' | 'taken'> {
    const path = this.#pathOf(key);
    const folder = dirname(path);
    try {
      signal?.throwIfAborted();
      const descriptor = await this.#inFolder(folder, () => openNew(path, true));
      // The name is there, so it is synced while the bytes are. After a failure neither is still in progress.
      const [written, named] = await Promise.allSettled([writeWhole(descriptor, bytes), this.#syncNames(folder)]);
      for (const each of [written, named]) if (each.status === 'rejected') throw each.reason;
      return 'put';
    } catch (thrown) {
      if (errorCode(thrown) === 'EEXIST') return 'taken';
      throw storageFault(thrown, signal);
    }
  }

  async read(key: BlobKey, span?: ByteSpan, signal?: AbortSignal): Promise<ReadOutcome> {
    signal?.throwIfAborted();
    const handle = await openForReading(this.#pathOf(key));
    if (handle === undefined) return { kind: 'missing' };
    try {
      const { size: sizeBytes } = await handle.stat();
      if (span !== undefined && span.first >= sizeBytes) {
        await handle.close();
        return { kind: 'unsatisfiable', sizeBytes };
      }
      // A stream that is made with a signal that has aborted fails before anybody can listen.
      signal?.throwIfAborted();
      // With an end, the stream stops there even if the file grows.
      const range = span === undefined ? {} : { start: span.first, end: Math.min(span.last, sizeBytes - 1) };
      const body = handle.createReadStream({ ...range, ...(signal !== undefined && { signal }) });
      return { kind: 'found', sizeBytes, body };
    } catch (thrown) {
      await handle.close();
      throw storageFault(thrown, signal);
    }
  }

  fileOf(key: BlobKey): string {
    return this.#pathOf(key);
  }

  async stat(key: BlobKey): Promise<number | undefined> {
    try {
      return (await stat(this.#pathOf(key))).size;
    } catch (thrown) {
      if (isAbsent(thrown)) return undefined;
      throw storageFault(thrown);
    }
  }

  async remove(key: BlobKey): Promise<void> {
    const path = this.#pathOf(key);
    try {
      await rm(path, { force: true });
      // The last thumbnail of a source takes their folder with it, and so does the last part of an upload.
      if (key.startsWith('media/')) return;
      await rmdir(dirname(path));
      this.#folders.delete(dirname(path));
    } catch (thrown) {
      if (!isAbsent(thrown) && errorCode(thrown) !== 'ENOTEMPTY' && errorCode(thrown) !== 'EEXIST') {
        throw storageFault(thrown);
      }
    }
  }

  async *list(prefix: ListPrefix, signal?: AbortSignal): AsyncIterable<BlobListing> {
    const [kind = '', sha256 = ''] = prefix.split('/');
    for await (const path of walk(join(this.#root, kind, sha256.slice(0, 2)), signal)) {
      const key = keyOf(path.slice(this.#root.length + 1));
      if (key?.startsWith(prefix) !== true || this.#pathOf(key) !== path) continue;
      const found = await stat(path).catch(absentOrThrow);
      if (found !== undefined) yield { key, sizeBytes: found.size, storedAt: found.mtimeMs };
    }
  }

  /** Takes the way of an upload, from the stage into the folder of the blobs. */
  async probe(signal?: AbortSignal): Promise<void> {
    const name = `${PROBE}${randomUUID()}`;
    const [staged, path] = [join(this.stageFolder, name), join(this.#root, name)];
    const written = randomUUID();
    const cancel = signal === undefined ? {} : { signal };
    try {
      await inFolder(this.stageFolder, () => writeFile(staged, written, { flag: 'wx', flush: true, ...cancel }));
      await rename(staged, path);
      const read = await readFile(path, { encoding: 'utf8', ...cancel });
      if (read !== written) throw new Error('other bytes were read than written');
    } catch (thrown) {
      throw storageFault(thrown, signal);
    } finally {
      // A folder that cannot be written to has been reported above, or nothing is there to remove.
      await Promise.all([staged, path].map((each) => rm(each, { force: true }).catch(() => undefined)));
    }
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#root);
    return bavail * bsize;
  }

  async close(): Promise<void> {}

  async #publish(stagedPath: string, path: string): Promise<void> {
    const folder = dirname(path);
    // The folder is absent, or the staged file is, which would be reported by every attempt.
    await this.#inFolder(
      folder,
      () => rename(stagedPath, path),
      () => stat(stagedPath),
    );
    await this.#syncNames(folder);
  }

  /**
   * Makes a name in a folder of blobs. In between, `remove` may remove a folder of thumbnails, and an operator any
   * folder: then it tries again, if `retries` allows it.
   */
  async #inFolder<T>(folder: string, make: () => Promise<T>, retries?: () => Promise<unknown>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#ensureFolder(folder);
        return await make();
      } catch (thrown) {
        if (!isAbsent(thrown) || attempt === PUBLISH_ATTEMPTS) throw thrown;
        for (let gone = folder; gone !== this.#root; gone = dirname(gone)) this.#folders.delete(gone);
        await retries?.();
      }
    }
  }

  /** Resolves when a folder exists and is durable. Callers with the same folder share the work. */
  #ensureFolder(folder: string): Promise<void> {
    const known = this.#folders.get(folder);
    if (known !== undefined) return known;
    const made = this.#makeFolder(folder);
    made.catch(() => this.#folders.delete(folder));
    this.#folders.set(folder, made);
    const [oldest] = this.#folders.keys();
    if (this.#folders.size > FOLDERS_MAX && oldest !== undefined) this.#folders.delete(oldest);
    return made;
  }

  async #makeFolder(folder: string): Promise<void> {
    const parent = dirname(folder);
    if (parent !== this.#root) await this.#ensureFolder(parent);
    // One level at a time: for several, Node 20 reports a full disk as ENOENT.
    await mkdir(folder).catch((thrown: unknown) => {
      if (errorCode(thrown) !== 'EEXIST') throw thrown;
    });
    // Also if the folder existed: whoever made it may have been stopped before this step.
    await syncPath(parent);
  }

  #pathOf(key: BlobKey): string {
    // A malformed key, cast to a BlobKey, must not reach the file system.
    const parts = partsOf(key);
    if (parts === undefined && isPartKey(key)) {
      const [kind = '', id = '', name = ''] = key.split('/');
      return join(this.#root, kind, id.slice(0, 2), id, name);
    }
    invariant(parts !== undefined, 'a blob key is well formed');
    const { kind, source, sha256, place } = parts;
    const name = place === NO_PLACE ? sha256 : `${sha256}${BEFORE_PLACE}${place}`;
    return join(this.#root, kind, source.slice(0, 2), kind === 'thumb' ? source : '', name);
  }
}

const PUBLISH_ATTEMPTS = 5;
const FOLDERS_MAX = 4_096;
const PROBE = '.probe-';
/** Between hash and place in the name of a file. */
const BEFORE_PLACE = '-';

/** The key whose path this may be. Undefined for a path that is not of a blob. */
function keyOf(relativePath: string): BlobKey | undefined {
  const [kind, , ...names] = relativePath.split('/');
  if (kind === 'part') return parseBlobKey([kind, ...names].join('/'));
  return parseBlobKey([kind, ...names].join('/').replace(BEFORE_PLACE, '/'));
}

/** Puts the bytes of a staged file on the disk, and checks that they are as many as were counted. */
async function syncStaged(path: string, sizeBytes: number): Promise<void> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    if (size !== sizeBytes) {
      throw new Fault('storage_unavailable', 'The upload could not be stored whole.', {
        cause: new Error(`a staged file has ${size} bytes instead of ${sizeBytes}`),
      });
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function openForReading(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (thrown) {
    if (isAbsent(thrown)) return undefined;
    throw storageFault(thrown);
  }
}

/** Every file below a folder, one folder at a time. What vanishes meanwhile is left out. */
async function* walk(folder: string, signal: AbortSignal | undefined): AsyncIterable<string> {
  const entries = await opendir(folder).catch(absentOrThrow);
  if (entries === undefined) return;
  for await (const entry of entries as AsyncIterable<Dirent>) {
    signal?.throwIfAborted();
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* walk(path, signal);
    else if (entry.isFile()) yield path;
  }
}

/** A crash may have left a probe. */
async function removeOldProbes(root: string): Promise<void> {
  for await (const entry of await opendir(root)) {
    if (entry.name.startsWith(PROBE)) await rm(join(root, entry.name), { force: true });
  }
}

/** A rename across file systems would fail at the first upload. This reports it at the start. */
async function proveSameFileSystem(stageFolder: string, root: string): Promise<void> {
  const name = `${PROBE}${randomUUID()}`;
  const [staged, adopted] = [join(stageFolder, name), join(root, name)];
  try {
    await writeFile(staged, '', { flag: 'wx' });
    await rename(staged, adopted);
  } catch (thrown) {
    if (errorCode(thrown) !== 'EXDEV') throw thrown;
    throw new Error(`blobs.stage_folder (${stageFolder}) must be in the same file system as blobs.folder (${root}).`, {
      cause: thrown,
    });
  } finally {
    await Promise.all([rm(staged, { force: true }), rm(adopted, { force: true })]);
  }
}

function isAbsent(thrown: unknown): boolean {
  const code = errorCode(thrown);
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function absentOrThrow(thrown: unknown): undefined {
  if (!isAbsent(thrown)) throw storageFault(thrown);
}
