/** The tables of a metadata store in memory, sorted as a database sorts them, so that a test sees every row. */
import assert from 'node:assert/strict';
import type { DamagedRecord } from '../../../../origin/meta/codec.js';
import { type Change, type Database, startChange } from '../../../../origin/meta/database.js';
import { compareKeys } from '../../../../origin/meta/postgres/facts.js';
import {
  BLOBS,
  DEAD,
  INDEX_NAMES,
  JOBS,
  JOURNAL,
  type Key,
  keyText,
  MEDIA,
  type Span,
  TABLE_NAMES,
  type Table,
  type Writer,
} from '../../../../origin/meta/tables.js';

interface Row {
  readonly key: Key;
  readonly value: Uint8Array;
}

export class MemoryTables implements Writer {
  #tables: ReadonlyMap<string, readonly Row[]> = new Map();
  #marks = 0;
  /** How many transactions there were. */
  transactions = 0;
  /** What was put and removed, as `put TABLE KEY` and `remove TABLE KEY`. */
  readonly writes: string[] = [];
  /** The damaged records that transactions met. */
  readonly damaged: DamagedRecord[] = [];
  /** The latest transaction. */
  last: Change = startChange(this, { newMark: () => '', now: 0, isIntended: () => true });
  /** When transactions begin. */
  now = 0;
  /** Whether bytes may be stored under a key. */
  isIntended: Change['isIntended'] = () => true;

  /** Marks of journal entries are `m1`, `m2` and so on. */
  async run<T>(body: (change: Change) => T): Promise<T> {
    // A caller that does not wait for it goes on first.
    await new Promise(setImmediate);
    return this.change(body);
  }

  change<T>(body: (change: Change) => T): T {
    this.transactions += 1;
    const newMark = (): string => {
      this.#marks += 1;
      return `m${this.#marks}`;
    };
    this.last = startChange(this, { newMark, now: this.now, isIntended: this.isIntended });
    const result = body(this.last);
    this.damaged.push(...this.last.damaged);
    return result;
  }

  get(table: string, key: Key): Uint8Array | undefined {
    return this.#rows(table).find((row) => compareKeys(row.key, key) === 0)?.value;
  }

  *range(table: string, { start, afterStart = false, end, limit = Number.POSITIVE_INFINITY, reverse = false }: Span) {
    const rows = this.#rows(table).filter(({ key }) => {
      const from = start === undefined ? 1 : compareKeys(key, start);
      return (afterStart ? from > 0 : from >= 0) && (end === undefined || compareKeys(key, end) < 0);
    });
    let given = 0;
    for (const row of reverse ? rows.toReversed() : rows) {
      given += 1;
      if (given > limit) return;
      yield row;
    }
  }

  count(table: string): number {
    return this.#rows(table).length;
  }

  put(table: string, key: Key, value: Uint8Array): void {
    this.writes.push(`put ${table} ${keyText(key)}`);
    const rows = this.#rows(table);
    const at = rows.findIndex((row) => compareKeys(row.key, key) >= 0);
    const found = rows[at];
    const [from, end] = at === -1 ? [rows.length, rows.length] : [at, at];
    const replaced = found !== undefined && compareKeys(found.key, key) === 0 ? 1 : 0;
    this.#set(table, [...rows.slice(0, from), { key, value }, ...rows.slice(end + replaced)]);
  }

  remove(table: string, key: Key): void {
    this.writes.push(`remove ${table} ${keyText(key)}`);
    this.#set(
      table,
      this.#rows(table).filter((row) => compareKeys(row.key, key) !== 0),
    );
  }

  /** The keys of a table as text; of an index also the values. */
  keys(table: string): readonly string[] {
    const isIndex = (INDEX_NAMES as readonly string[]).includes(table);
    return this.#rows(table).map(({ key, value }) =>
      isIndex && value.length > 0 ? `${keyText(key)} ${Buffer.from(value).toString()}` : keyText(key),
    );
  }

  /** The records of a table. */
  records<V>(table: Table<Key, V>): readonly V[] {
    return this.#rows(table.name).map(({ value }) => table.codec.decode(value));
  }

  get media() {
    return this.records(MEDIA);
  }

  get blobs() {
    return this.records(BLOBS);
  }

  get jobs() {
    return this.records(JOBS);
  }

  get dead() {
    return this.records(DEAD);
  }

  get journal() {
    return this.records(JOURNAL);
  }

  /** Runs a body whose writes are undone if it throws. */
  wholly<T>(body: () => T): T {
    const before = this.#tables;
    try {
      return body();
    } catch (thrown) {
      this.#tables = before;
      throw thrown;
    }
  }

  #rows(table: string): readonly Row[] {
    assert.ok(TABLE_NAMES.includes(table), `there is no table ${table}`);
    return this.#tables.get(table) ?? [];
  }

  #set(table: string, rows: readonly Row[]): void {
    this.#tables = new Map([...this.#tables, [table, rows]]);
  }
}

/** A database of these tables, without limits. */
export function memoryDatabase(tables: MemoryTables): Database {
  let last: Promise<unknown> = Promise.resolve();
  return {
    reader: tables,
    transact(body, _urgency, committed) {
      const done = last.then(() => {
        tables.transactions += 1;
        const value = tables.wholly(() => body(tables));
        committed?.();
        return value;
      });
      last = done.catch(() => undefined);
      return done;
    },
    usedBytes: () => 0,
    freeBytes: async () => 1e9,
    reserve: { whole: true, giveBack: async () => false, refill: async () => true },
    copyTo: async () => assert.fail('it is not copied'),
    close: async () => void (await last),
  };
}
