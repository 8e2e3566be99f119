/**
 * Fills an empty database with the records of another store, page by page. It goes on where an earlier run stopped: what
 * is there already is left. Only at the end does the database get its row `about`, without which no origin starts on it.
 */
import type { EpochMs } from '../../../src/clock.js';
import type { StoredRecord } from '../tables.js';
import { insertOf } from './apply.js';
import { createSchema } from './migrate.js';
import type { Pool } from './pool.js';
import { ROW_TABLES } from './rows.js';

export type Load = {
  take(page: readonly StoredRecord[]): Promise<void>;
  /** Makes it a store. */
  finish(journal: string, now: EpochMs): Promise<void>;
};

/** New events come after those that were loaded. */
const AFTER_ALL_TURNS =
  "SELECT setval(pg_get_serial_sequence('hook', 'n'), (SELECT coalesce(max(n), 0) + 1 FROM hook))";

export class DatabaseInUse extends Error {
  override readonly name = 'DatabaseInUse';

  constructor() {
    super('the database already contains metadata, which are never replaced. Name another database.');
  }
}

/** Rejects with DatabaseInUse if it is a store already. */
export async function openLoad(pool: Pool, now: EpochMs): Promise<Load> {
  await createSchema(pool, now);
  if ((await pool.run('SELECT journal FROM about')).length > 0) throw new DatabaseInUse();
  return {
    async take(page) {
      await pool.transact(async (run) => {
        const sent = ROW_TABLES.flatMap((table) => {
          const rows = page
            .filter((one) => one.table.name === table.table.name)
            .map(({ key, value }) => table.rowOf(key, value));
          return rows.length === 0 ? [] : [run(`${insertOf(table)} ON CONFLICT DO NOTHING`, [JSON.stringify(rows)])];
        });
        await Promise.all([...sent, run('COMMIT')]);
      });
    },
    async finish(journal, at) {
      const made = await pool.run(
        'INSERT INTO about (journal, made_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING journal',
        [journal, at],
      );
      if (made.length === 0) throw new DatabaseInUse();
      await pool.run(AFTER_ALL_TURNS);
    },
  };
}
