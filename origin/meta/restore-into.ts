/**
 * Restores metadata into a folder that has none. A copy of another store is made
 * in a folder inside it, where it can be changed, and is then put in place in one
 * step. Existing metadata is never replaced. A restore that is interrupted leaves
 * only the inner folder, which the next restore removes.
 */

import { existsSync } from 'node:fs';
import { link, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { errorCode } from '../../src/errors.js';
import { openPrivateFolder } from '../../src/private-folder.js';
import { syncPath } from '../blobs/files.js';
import type { LmdbConfig, MetaConfig } from './config.js';
import { lockWriter } from './lmdb/writer-lock.js';
import { FILE_NAME, type MetaSnapshot, openMetaStore, readStore } from './lmdb.js';
import { openLoad } from './postgres/load.js';
import { ROW_TABLES } from './postgres/rows.js';
import { checkServer } from './postgres/server/check-server.js';
import { poolOf } from './postgres/store.js';
import type { MetaStore } from './store.js';
import type { MetaDeps } from './transactions.js';

export interface RestoredMeta {
  /** The copy, open. */
  readonly store: MetaStore;
  /** Closes the copy and puts it in place, durably. */
  publish(): Promise<void>;
  /** Unlocks the folder and drops a copy that was not published. May be called twice. */
  close(): Promise<void>;
}

export class MetadataInPlace extends Error {
  override readonly name = 'MetadataInPlace';

  constructor(folder: string) {
    super(`${folder} already contains metadata, which is never replaced. Move it away, or name another folder.`);
  }
}

/** Rejects with FolderInUse while another process uses the folder, and with MetadataInPlace if it has metadata. */
export async function receiveMeta(
  config: LmdbConfig,
  source: Pick<MetaSnapshot, 'backup'>,
  deps: MetaDeps,
): Promise<RestoredMeta> {
  const folder = resolve(config.folder);
  const inner = join(folder, 'incoming');
  const [staged, final] = [join(inner, FILE_NAME), join(folder, FILE_NAME)];
  await openPrivateFolder(folder);
  const lock = await lockWriter(folder, deps.randomName);
  return receiveInto({ ...config, folder: inner }, source, deps, {
    async prepare() {
      if (existsSync(final)) throw new MetadataInPlace(folder);
      return async () => {
        await syncPath(staged);
        // Unlike rename, link never replaces a file.
        await link(staged, final).catch((thrown: unknown) => {
          throw errorCode(thrown) === 'EEXIST' ? new MetadataInPlace(folder) : thrown;
        });
        await syncPath(folder);
        await syncPath(dirname(folder));
      };
    },
    release: () => lock.release(),
  });
}

/**
 * The same for a database, which must be empty: the copy is made in a folder below `folder`, and loaded when it is
 * published. Rejects with DatabaseInUse if the database has metadata.
 */
export async function receiveIntoPostgres(
  config: MetaConfig,
  folder: string,
  source: Pick<MetaSnapshot, 'backup'>,
  deps: MetaDeps,
): Promise<RestoredMeta> {
  const inner = join(folder, 'incoming-meta');
  const pool = poolOf(config, deps.log);
  return receiveInto({ ...config, folder: inner }, source, deps, {
    async prepare() {
      await checkServer(pool.run);
      const load = await openLoad(pool, deps.clock.now());
      return async () => {
        const tables = ROW_TABLES.map(({ table }) => table);
        const stamp = await readStore(inner, tables, (page) => load.take(page));
        await load.finish(stamp.journal, stamp.madeAt);
      };
    },
    release: () => pool.close(),
  });
}

type Place = {
  /** Resolves with how the copy, which is closed by then, is put in place. Rejects if there is something already. */
  readonly prepare: () => Promise<() => Promise<void>>;
  readonly release: () => Promise<void>;
};

/** `config.folder` is where the copy is made. */
async function receiveInto(
  config: LmdbConfig,
  source: Pick<MetaSnapshot, 'backup'>,
  deps: MetaDeps,
  { prepare, release }: Place,
): Promise<RestoredMeta> {
  async function cleanUp(): Promise<void> {
    await rm(config.folder, { recursive: true, force: true });
    await release();
  }
  try {
    const put = await prepare();
    await rm(config.folder, { recursive: true, force: true });
    await source.backup(config.folder);
    const store = await openMetaStore(config, deps);
    return {
      store,
      async publish() {
        await store.close();
        await put();
      },
      async close() {
        await store.close();
        await cleanUp();
      },
    };
  } catch (thrown) {
    await cleanUp();
    throw thrown;
  }
}
