/**
 * Writes the changes of a rule: one statement for all that is changed or gone, then one for all that is new. What is ended
 * makes room for what is new: there is one live id for the same bytes and visibility.
 */
import type { BlobKey } from '../../blobs/blob-store.js';
import { type Changed, Unwritable } from './facts.js';
import type { Parameter, Run } from './pool.js';
import { ROW_TABLES, type Row, type RowTable } from './rows.js';

/** Some rows of a table, as one part of a statement. */
type Part = { readonly name: string; readonly sql: string; readonly rows: readonly Row[] };

/**
 * Sends everything at once and does not wait. A record that another transaction has made meanwhile breaks the key (23505):
 * then the rule runs again with the facts as they are by then. `placed`: keys that records name now, whose intents end.
 */
export function applyChanges(
  run: Run,
  changes: readonly Changed[],
  placed: readonly BlobKey[],
): readonly Promise<unknown>[] {
  const tables = ROW_TABLES.map((table) => ({ table, own: changes.filter((change) => change.table === table) }));
  const before = tables.flatMap(({ table, own }) => {
    const gone = own.filter(({ value }) => value === undefined);
    const changed = own.filter(({ isNew, value }) => value !== undefined && !isNew);
    return [
      partOf(
        table,
        'gone',
        gone.map(({ key }) => table.keyRow(key)),
      ),
      partOf(table, 'changed', rowsOf(table, changed)),
    ];
  });
  const added = tables.map(({ table, own }) => {
    const made = own.filter(({ isNew, value }) => value !== undefined && isNew);
    return partOf(table, 'new', rowsOf(table, made));
  });
  return [...send(run, before, []), ...send(run, added, placed)];
}

function rowsOf(table: RowTable, changes: readonly Changed[]): readonly Row[] {
  try {
    return changes.map(({ key, value }) => table.rowOf(key, value));
  } catch (thrown) {
    throw new Unwritable(`a record of ${table.name} cannot be written`, { cause: thrown });
  }
}

const MADE_BY = { gone: deleteOf, changed: updateOf, new: insertOf };
const SQL = new Map<string, string>();

function partOf(table: RowTable, kind: keyof typeof MADE_BY, rows: readonly Row[]): Part {
  const name = `${table.name}_${kind}`;
  const sql = SQL.get(name) ?? MADE_BY[kind](table, `$1::jsonb->'${name}'`);
  SQL.set(name, sql);
  return { name, sql, rows };
}

/** One statement for all parts. They concern different rows, so their order does not matter. */
function send(run: Run, parts: readonly Part[], placed: readonly BlobKey[]): readonly Promise<unknown>[] {
  const filled = parts.filter(({ rows }) => rows.length > 0);
  const bodies = filled.map(({ name, sql }) => `${name} AS (${sql})`);
  const parameters: Parameter[] = [];
  if (filled.length > 0) {
    parameters.push(JSON.stringify(Object.fromEntries(filled.map(({ name, rows }) => [name, rows]))));
  }
  if (placed.length > 0) {
    parameters.push(placed);
    bodies.push(`intents AS (DELETE FROM intent WHERE key = ANY ($${parameters.length}::text[]))`);
  }
  return bodies.length === 0 ? [] : [run(`WITH ${bodies.join(', ')} SELECT`, parameters)];
}

/** `source`: an expression for the JSON array of rows. */
export function insertOf({ name, columns }: RowTable, source = '$1::jsonb'): string {
  const names = columns.map(([column]) => column).join(', ');
  return `INSERT INTO ${name} (${names}) SELECT ${names} FROM ${recordset(columns, source)}`;
}

function updateOf({ name, columns, keyColumns }: RowTable, source: string): string {
  const set = columns.slice(keyColumns).map(([column]) => `${column} = given.${column}`);
  return `UPDATE ${name} SET ${set.join(', ')} FROM ${recordset(columns, source)} WHERE ${matches(name, columns, keyColumns)}`;
}

function deleteOf({ name, columns, keyColumns }: RowTable, source: string): string {
  const key = columns.slice(0, keyColumns);
  return `DELETE FROM ${name} USING ${recordset(key, source)} WHERE ${matches(name, key, keyColumns)}`;
}

type Columns = RowTable['columns'];

function recordset(columns: Columns, source: string): string {
  return `jsonb_to_recordset(${source}) AS given(${columns.map(([name, type]) => `${name} ${type}`).join(', ')})`;
}

function matches(name: string, columns: Columns, keyColumns: number): string {
  return columns
    .slice(0, keyColumns)
    .map(([column]) => `${name}.${column} = given.${column}`)
    .join(' AND ');
}
