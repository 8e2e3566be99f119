/** Every record of a database in pages, as one moment has it: what a backup is made of. */

import type { StoredRecord } from '../tables.js';
import type { Pool } from './pool.js';
import { ROW_TABLES, type RowTable } from './rows.js';

const PAGE = 1_000;

/** Calls `take` with each page, table by table in the order of keys. It is one transaction that reads alone: long, but it holds no lock that a write waits for. */
export async function dumpRows(pool: Pool, take: (page: readonly StoredRecord[]) => Promise<void>): Promise<void> {
  await pool.transact(async (run) => {
    await run('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    // Whoever takes the pages may be slow.
    await run('SET LOCAL idle_in_transaction_session_timeout = 0');
    for (const table of ROW_TABLES) {
      await run(`DECLARE ${table.name}_dump NO SCROLL CURSOR FOR SELECT * FROM ${table.name} ORDER BY ${keyOf(table)}`);
      for (;;) {
        const rows = await run(`FETCH ${PAGE} FROM ${table.name}_dump`);
        await take(rows.map((row) => ({ table: table.table, key: table.keyOf(row), value: table.valueOf(row) })));
        if (rows.length < PAGE) break;
      }
      await run(`CLOSE ${table.name}_dump`);
    }
    await run('COMMIT');
  });
}

function keyOf({ columns, keyColumns }: RowTable): string {
  return columns
    .slice(0, keyColumns)
    .map(([column]) => column)
    .join(', ');
}
