/**
 * Moves all records from one metadata store into another that is empty, reads the target back and compares. It may be
 * stopped and run again. The journal keeps its name and marks, so edges keep their caches. The source is closed for
 * origins afterwards: the embedded store by a file in its folder, a database by the absence of its row `about`.
 */
import { createHash, type Hash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { syncPath } from '../blobs/files.js';
import type { MetaConfig } from './config.js';
import { lockWriter } from './lmdb/writer-lock.js';
import { MOVED_NAME, makeStore, readStore } from './lmdb.js';
import { dumpRows } from './postgres/dump.js';
import { keepOriginsOut } from './postgres/keep-out.js';
import { openLoad } from './postgres/load.js';
import { closeStore, readAbout } from './postgres/migrate.js';
import type { Pool } from './postgres/pool.js';
import { ROW_TABLES } from './postgres/rows.js';
import { checkServer } from './postgres/server/check-server.js';
import { poolOf } from './postgres/store.js';
import { SERVER_NOW } from './postgres/values.js';
import type { StoredRecord } from './tables.js';
import type { MetaDeps } from './transactions.js';

export type MoveProgress = (moved: { readonly records: number; readonly table: string }) => void;

export type Moved = { readonly records: number; readonly sum: string };

const TABLES = ROW_TABLES.map(({ table }) => table);

/** Rejects with StoreInUse while an origin has the folder open, with DatabaseInUse if the database has metadata. */
export function moveToPostgres(
  config: MetaConfig,
  deps: MetaDeps,
  signal: AbortSignal,
  progress: MoveProgress,
): Promise<Moved> {
  return betweenBoth(config, deps, async (pool) => {
    await checkServer(pool.run);
    const load = await openLoad(pool, deps.clock.now());
    const sent = createTally(signal, progress);
    const stamp = await readStore(config.folder, TABLES, async (page) => {
      await load.take(page);
      sent.add(page);
    });
    const stored = createTally(signal, () => undefined);
    await dumpRows(pool, async (page) => stored.add(page));
    const moved = compared(sent.end(), stored.end());
    await load.finish(stamp.journal, stamp.madeAt);
    await markMoved(config.folder, deps.clock.now());
    return moved;
  });
}

/** The way back. The folder must have no metadata. Rejects with StoreInUse while an origin has the database open. */
export function moveToLmdb(
  config: MetaConfig,
  deps: MetaDeps,
  signal: AbortSignal,
  progress: MoveProgress,
): Promise<Moved> {
  return betweenBoth(config, deps, async (pool) => {
    const about = await readAbout(pool);
    const kept = await keepOriginsOut(pool, deps);
    try {
      const sent = createTally(signal, progress);
      await makeStore(config.folder, { journal: about.journal, madeAt: deps.clock.now() }, (take) =>
        dumpRows(pool, async (page) => {
          await take(page);
          sent.add(page);
        }),
      );
      const stored = createTally(signal, () => undefined);
      await readStore(config.folder, TABLES, async (page) => stored.add(page));
      const moved = compared(sent.end(), stored.end());
      await closeStore(pool);
      return moved;
    } finally {
      await kept.release();
    }
  });
}

/** Keeps other writers out of the folder meanwhile. */
async function betweenBoth(config: MetaConfig, deps: MetaDeps, move: (pool: Pool) => Promise<Moved>): Promise<Moved> {
  const lock = await lockWriter(config.folder, deps.randomName);
  const pool = poolOf(config, deps.log);
  try {
    return await move(pool);
  } finally {
    await pool.close();
    await lock.release();
  }
}

/** What `migrate --check` tells of the target before anything is moved. */
export async function checkTarget(
  config: MetaConfig,
  deps: MetaDeps,
): Promise<{ readonly latencyMs: number; readonly skewMs: number; readonly warnings: readonly string[] }> {
  const pool = poolOf(config, deps.log);
  try {
    const warnings = await checkServer(pool.run);
    return { ...(await measure(pool, deps)), warnings };
  } finally {
    await pool.close();
  }
}

async function measure(
  pool: Pool,
  { clock }: MetaDeps,
): Promise<{ readonly latencyMs: number; readonly skewMs: number }> {
  const [fromMs, fromAt] = [clock.monotonicMs(), clock.now()];
  const [row] = await pool.run(`SELECT ${SERVER_NOW} AS now`);
  const latencyMs = clock.monotonicMs() - fromMs;
  return { latencyMs, skewMs: (row?.['now'] as number) - fromAt - latencyMs / 2 };
}

type Tally = { add(page: readonly StoredRecord[]): void; end(): Moved };

/** Counts records, and sums them up in their order as the embedded store would write them. */
function createTally(signal: AbortSignal, progress: MoveProgress): Tally {
  const hash = createHash('sha256');
  let records = 0;
  return {
    add(page) {
      signal.throwIfAborted();
      for (const one of page) addTo(hash, one);
      records += page.length;
      progress({ records, table: page[0]?.table.name ?? '' });
    },
    end: () => ({ records, sum: hash.digest('hex') }),
  };
}

function addTo(hash: Hash, { table, value }: StoredRecord): void {
  // Written and read once more, members stand in one order whichever store they come from.
  const written = table.codec.encode(table.codec.decode(table.codec.encode(value)));
  hash.update(table.name).update(written);
}

function compared(sent: Moved, stored: Moved): Moved {
  if (sent.records === stored.records && sent.sum === stored.sum) return stored;
  throw new Error(
    `the target has ${stored.records} records (${stored.sum}) where the source has ${sent.records} (${sent.sum}): empty the target, and move again`,
  );
}

async function markMoved(folder: string, now: number): Promise<void> {
  const path = join(folder, MOVED_NAME);
  await writeFile(path, `The metadata were moved to PostgreSQL on ${new Date(now).toISOString()}.\n`, { mode: 0o600 });
  await syncPath(path);
  await syncPath(folder);
}
