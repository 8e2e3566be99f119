/**
 * Metadata on their way into a folder that has none: a copy of another store in
 * a folder inside it, which may be changed before it counts, and then is put in
 * place in one step. Nothing is ever replaced. Whoever breaks off leaves at most
 * the inner folder, which nobody reads and the next one removes.
 */
import { existsSync } from 'node:fs';
import { link, mkdir, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { errorCode } from '../../src/errors.js';
import { syncPath } from '../blobs/sync-path.js';
import type { MetaConfig } from './config.js';
import { FILE_NAME, type MetaSnapshot, openMetaStore } from './lmdb.js';
import type { MetaStore } from './store.js';
import type { MetaDeps } from './transactions.js';
import { lockWriter } from './writer-lock.js';

export interface RestoredMeta {
  /** The copy, open. */
  readonly store: MetaStore;
  /** Puts it in place, durably. The store is closed then. */
  publish(): Promise<void>;
  /** Lets go of the folder; drops what was not published. May be called twice. */
  close(): Promise<void>;
}

export class MetadataInPlace extends Error {
  override readonly name = 'MetadataInPlace';

  constructor(folder: string) {
    super(`${folder} holds metadata already, which are never replaced: move them away, or name another folder.`);
  }
}

/** Rejects with FolderInUse while another process has the folder, with MetadataInPlace where it holds a store. */
export async function receiveMeta(
  config: MetaConfig,
  source: Pick<MetaSnapshot, 'backup'>,
  deps: MetaDeps,
): Promise<RestoredMeta> {
  const folder = resolve(config.folder);
  const inner = join(folder, 'incoming');
  const [staged, final] = [join(inner, FILE_NAME), join(folder, FILE_NAME)];
  await mkdir(folder, { recursive: true });
  const lock = await lockWriter(folder, deps.randomName);
  async function letGo(): Promise<void> {
    await rm(inner, { recursive: true, force: true });
    await lock.release();
  }
  try {
    if (existsSync(final)) throw new MetadataInPlace(folder);
    await rm(inner, { recursive: true, force: true });
    // Under a name of its own: what edges know of the journal that it was copied from does not hold here.
    await source.backup(inner);
    const store = await openMetaStore({ ...config, folder: inner }, deps);
    return {
      store,
      async publish() {
        await store.close();
        await syncPath(staged);
        // Unlike a rename, a link replaces nothing.
        await link(staged, final).catch((thrown: unknown) => {
          throw errorCode(thrown) === 'EEXIST' ? new MetadataInPlace(folder) : thrown;
        });
        await syncPath(folder);
        await syncPath(dirname(folder));
      },
      async close() {
        await store.close();
        await letGo();
      },
    };
  } catch (thrown) {
    await letGo();
    throw thrown;
  }
}
