/**
 * The cache folder: locks it, and opens the content files and the index in it.
 * An index that cannot be read is replaced by an empty one, since everything in
 * the cache can be fetched again.
 */
import { join } from 'node:path';
import { errorFields, type Log } from '../../../src/log.js';
import type { CounterOf } from '../../../src/metrics.js';
import { tightenFolder } from '../../../src/private-folder.js';
import { ContentStore } from './content-store.js';
import { type CommitPace, DiskIndex } from './disk-index.js';
import type { DiskFiles } from './files.js';
import { IndexGuard } from './index-guard.js';
import { lockFolder } from './lock.js';

export interface FolderDeps {
  readonly files: DiskFiles;
  readonly log: Log;
  readonly randomName: () => string;
  /** Most content files that stay open between two reads. */
  readonly openFilesMax: number;
  /** The memory for what was read last. */
  readonly readMemoryBytes: number;
  readonly pace: CommitPace;
  /** Counts errors that the tier survived. */
  readonly errors: CounterOf<never>;
  readonly onError: (thrown: unknown) => void;
}

export interface CacheFolder {
  readonly contentStore: ContentStore;
  readonly index: DiskIndex;
  readonly guard: IndexGuard;
  /** Rejects if the index could not be committed. The folder is unlocked in any case. */
  close(): Promise<void>;
}

/**
 * LMDB maps its files. On a full disk the process would end by a signal when it writes to a file that has no room yet.
 */
const NEW_INDEX_BYTES = 2 ** 18;

/** `empty`: removes first what is stored in the folder. */
export async function openFolder(path: string, deps: FolderDeps, what: 'as_it_is' | 'empty'): Promise<CacheFolder> {
  const { files } = deps;
  await files.makeFolder(path);
  await tightenFolder(path);
  const unlock = await lockFolder(path);
  try {
    const indexPath = join(path, 'index');
    const contentPath = join(path, 'content');
    if (what === 'empty') {
      for (const old of [contentPath, indexPath, `${indexPath}-lock`, `${indexPath}-starts`]) await files.remove(old);
    }
    await requireRoomForIndex(path, files);
    const contentStore = await ContentStore.open(contentPath, deps);
    const guard = new IndexGuard(indexPath);
    const index = await openIndex(indexPath, guard, contentStore, deps);
    return { contentStore, index, guard, close: () => close(contentStore, index, guard, unlock) };
  } catch (thrown) {
    await unlock();
    throw thrown;
  }
}

async function requireRoomForIndex(path: string, files: DiskFiles): Promise<void> {
  const names = await files.names(path);
  if (names.includes('index') && names.includes('index-lock')) return;
  const freeBytes = await files.freeBytes(path);
  if (freeBytes < NEW_INDEX_BYTES) throw new Error(`the disk is full: a new index needs ${NEW_INDEX_BYTES} bytes`);
}

async function openIndex(
  path: string,
  guard: IndexGuard,
  contentStore: ContentStore,
  { files, log, errors, pace }: FolderDeps,
): Promise<DiskIndex> {
  const fault = await guard.fault();
  if (fault === undefined) {
    try {
      return await DiskIndex.open(path, pace);
    } catch (thrown) {
      log.warn(errorFields(thrown), 'the index of the disk tier cannot be opened');
    }
  }
  log.warn({ fault: fault ?? 'it cannot be opened' }, 'the disk tier starts empty');
  errors.add();
  await files.remove(path);
  await files.remove(`${path}-lock`);
  await guard.renew();
  // The sweep after recovery removes the discarded contents.
  await contentStore.discardAll();
  return DiskIndex.open(path, pace);
}

async function close(
  contentStore: ContentStore,
  index: DiskIndex,
  guard: IndexGuard,
  unlock: () => Promise<void>,
): Promise<void> {
  contentStore.close();
  try {
    await index.close();
    await guard.proven();
  } finally {
    await unlock();
  }
}
