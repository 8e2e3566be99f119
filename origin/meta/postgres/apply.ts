/** Writes the changes of a rule: for each table one statement for what is new, one for what is changed, one for what is gone. */
import type { Changed } from './facts.js';
import type { Run } from './pool.js';
import { ROW_TABLES, type Row, type RowTable } from './rows.js';

/**
 * Sends everything at once and does not wait. A record that another transaction has made meanwhile breaks the key (23505):
 * then the rule runs again with the facts as they are by then.
 */
export function applyChanges(run: Run, changes: readonly Changed[]): readonly Promise<unknown>[] {
  return ROW_TABLES.flatMap((table) => {
    const own = changes.filter((change) => change.table === table);
    const rows = (some: readonly Changed[]): readonly Row[] => some.map(({ key, value }) => table.rowOf(key, value));
    const [gone, kept] = [
      own.filter(({ value }) => value === undefined),
      own.filter(({ value }) => value !== undefined),
    ];
    return [
      ...send(
        run,
        deleteOf(table),
        gone.map(({ key }) => table.keyRow(key)),
      ),
      // What is ended makes room for what is new: one live id for the same bytes and visibility.
      ...send(run, updateOf(table), rows(kept.filter(({ isNew }) => !isNew))),
      ...send(run, insertOf(table), rows(kept.filter(({ isNew }) => isNew))),
    ];
  });
}

function send(run: Run, sql: string, rows: readonly Row[]): readonly Promise<unknown>[] {
  return rows.length === 0 ? [] : [run(sql, [JSON.stringify(rows)])];
}

export function insertOf({ name, columns }: RowTable): string {
  const names = columns.map(([column]) => column).join(', ');
  return `INSERT INTO ${name} (${names}) SELECT ${names} FROM ${recordset(columns)}`;
}

function updateOf({ name, columns, keyColumns }: RowTable): string {
  const set = columns.slice(keyColumns).map(([column]) => `${column} = given.${column}`);
  return `UPDATE ${name} SET ${set.join(', ')} FROM ${recordset(columns)} WHERE ${matches(name, columns, keyColumns)}`;
}

function deleteOf({ name, columns, keyColumns }: RowTable): string {
  const key = columns.slice(0, keyColumns);
  return `DELETE FROM ${name} USING ${recordset(key)} WHERE ${matches(name, key, keyColumns)}`;
}

type Columns = RowTable['columns'];

function recordset(columns: Columns): string {
  return `jsonb_to_recordset($1::jsonb) AS given(${columns.map(([name, type]) => `${name} ${type}`).join(', ')})`;
}

function matches(name: string, columns: Columns, keyColumns: number): string {
  return columns
    .slice(0, keyColumns)
    .map(([column]) => `${name}.${column} = given.${column}`)
    .join(' AND ');
}
