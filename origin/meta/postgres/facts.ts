/**
 * The facts that a rule needs (uploads.ts, takedown.ts, queue.ts), read from PostgreSQL beforehand, and the changes that
 * it makes to them. A rule reads and writes synchronously, as over LMDB. What it reads must have been fetched: otherwise
 * `MissingFact` says what to fetch, and the rule runs again.
 */
import type { EpochMs } from '../../../src/clock.js';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import type { BlobKey } from '../../blobs/blob-store.js';
import {
  BLOBS,
  DEAD,
  type IndexName,
  JOBS,
  JOURNAL,
  type Key,
  type KeyPart,
  keyText,
  MEDIA,
  type Span,
  TRASH,
  USAGE,
  type Writer,
} from '../tables.js';
import { ROW_TABLES, type Row, type RowTable } from './rows.js';

export type Fact =
  /** The record of a blob, its live media, its job and its dead letter. */
  | { readonly kind: 'blob'; readonly sha256: Sha256 }
  /** A media record with all that belongs to its blob. */
  | { readonly kind: 'media'; readonly id: MediaId }
  /** The changed records of bytes sent with this hash, with all that belongs to their blobs. */
  | { readonly kind: 'sent'; readonly sha256: Sha256 }
  | { readonly kind: 'trash'; readonly key: BlobKey }
  /** Whether somebody is about to record bytes under this key. */
  | { readonly kind: 'intent'; readonly key: BlobKey }
  | { readonly kind: 'usage'; readonly periodAt: EpochMs; readonly owner: string }
  /** The waiting job of this rank in JOB_ORDER that is next in turn. */
  | { readonly kind: 'next job'; readonly rank: number }
  /** The waiting job of this owner and rank that is last in turn. */
  | { readonly kind: 'last job'; readonly rank: number; readonly owner: string };

export function factText(fact: Fact): string {
  return Object.values(fact).join(' ');
}

export class MissingFact extends Error {
  override readonly name = 'MissingFact';
  readonly fact: Fact;

  constructor(fact: Fact) {
    super(`not fetched: ${factText(fact)}`);
    this.fact = fact;
  }
}

/** What a rule did cannot be written, whatever the state of the database. */
export class Unwritable extends Error {
  override readonly name = 'Unwritable';
}

/** A record that a rule has changed; `value` is undefined if it was removed. */
export type Changed = { readonly table: RowTable; readonly key: Key; readonly isNew: boolean; readonly value: unknown };

type Entry = { readonly key: Key; readonly value: Uint8Array };

export class Facts implements Writer {
  readonly #tables = new Map<string, Entry[]>();
  readonly #known = new Set<string>();
  readonly #intended = new Set<BlobKey>();
  readonly #wholeIndexes = new Set<IndexName>();
  /** How to undo each write, in their order. */
  readonly #undo: (() => void)[] = [];
  /** Records that were written: as they were fetched. */
  #before = new Map<string, { readonly table: RowTable; readonly key: Key; readonly bytes: Uint8Array | undefined }>();
  #journal: 'not asked for' | 'wanted' | 'fetched' = 'not asked for';

  /** Whether a rule has numbered an entry without knowing the newest number. */
  get wantsJournal(): boolean {
    return this.#journal === 'wanted';
  }

  knows(fact: Fact): boolean {
    return this.#known.has(factText(fact));
  }

  learn(fact: Fact): void {
    this.#known.add(factText(fact));
  }

  learnJournal(): void {
    this.#journal = 'fetched';
  }

  learnIntended(key: BlobKey): void {
    this.#intended.add(key);
  }

  isIntended(key: BlobKey): boolean {
    this.#demand({ kind: 'intent', key });
    return this.#intended.has(key);
  }

  /** The records that were fetched are all of these indexes that the rule is to see. */
  learnWhole(...indexes: readonly IndexName[]): void {
    for (const index of indexes) this.#wholeIndexes.add(index);
  }

  /** Adds a row as fetched, or in place of what was fetched before it was locked. Only while no rule has written. */
  add(table: RowTable, row: Row): void {
    const key = table.keyOf(row);
    const { at, found } = find(this.#entries(table.table.name), key);
    const earlier = found ? this.#entries(table.table.name)[at] : undefined;
    if (earlier !== undefined) {
      const before = table.table.codec.decode(earlier.value);
      for (const entry of table.table.indexes(before)) this.#set(entry.index, entry.key, undefined);
    }
    const value = table.valueOf(row);
    this.#set(table.table.name, key, table.table.codec.encode(value));
    for (const entry of table.table.indexes(value)) this.#set(entry.index, entry.key, Buffer.from(entry.value));
    if (table.name === MEDIA.name) this.learnKey(MEDIA.name, key);
  }

  learnKey(table: string, key: Key): void {
    this.#known.add(`${table} ${keyText(key)}`);
  }

  get(table: string, key: Key): Uint8Array | undefined {
    this.#demandKey(table, key);
    const { at, found } = find(this.#entries(table), key);
    return found ? this.#entries(table)[at]?.value : undefined;
  }

  *range(table: string, span: Span): Iterable<Entry> {
    const { start, afterStart = false, end, limit = Number.POSITIVE_INFINITY, reverse = false } = span;
    this.#demandSpan(table, span);
    const rows = this.#entries(table).filter(({ key }) => {
      const from = start === undefined ? 1 : compareKeys(key, start);
      return (afterStart ? from > 0 : from >= 0) && (end === undefined || compareKeys(key, end) < 0);
    });
    if (reverse) rows.reverse();
    yield* rows.slice(0, limit);
  }

  count(table: string): number {
    throw new Error(`a rule must not count ${table}`);
  }

  put(table: string, key: Key, value: Uint8Array): void {
    this.#remember(table, key);
    this.#set(table, key, value);
  }

  remove(table: string, key: Key): void {
    this.#remember(table, key);
    this.#set(table, key, undefined);
  }

  /** A place to go back to. */
  get mark(): number {
    return this.#undo.length;
  }

  /** Undoes all writes since `mark`. */
  undoTo(mark: number): void {
    while (this.#undo.length > mark) this.#undo.pop()?.();
    if (mark === 0) this.#before = new Map();
  }

  changes(): readonly Changed[] {
    return [...this.#before.values()].flatMap(({ table, key, bytes }) => {
      const { at, found } = find(this.#entries(table.table.name), key);
      const now = found ? this.#entries(table.table.name)[at]?.value : undefined;
      if (now === bytes || (now !== undefined && bytes !== undefined && Buffer.compare(now, bytes) === 0)) return [];
      return [{ table, key, isNew: bytes === undefined, value: now && decoded(table, now) }];
    });
  }

  #entries(table: string): Entry[] {
    const found = this.#tables.get(table);
    if (found !== undefined) return found;
    const made: Entry[] = [];
    this.#tables.set(table, made);
    return made;
  }

  #set(table: string, key: Key, value: Uint8Array | undefined): void {
    const entries = this.#entries(table);
    const { at, found } = find(entries, key);
    entries.splice(at, found ? 1 : 0, ...(value === undefined ? [] : [{ key, value }]));
  }

  #remember(table: string, key: Key): void {
    const { at, found } = find(this.#entries(table), key);
    const bytes = found ? this.#entries(table)[at]?.value : undefined;
    this.#undo.push(() => this.#set(table, key, bytes));
    const stored = ROWS_BY_NAME.get(table);
    const name = `${table} ${keyText(key)}`;
    if (stored !== undefined && !this.#before.has(name)) this.#before.set(name, { table: stored, key, bytes });
  }

  #demandKey(table: string, key: Key): void {
    if (table === JOURNAL.name || this.#known.has(`${table} ${keyText(key)}`)) return;
    const [first, second] = partsOf(key);
    switch (table) {
      case MEDIA.name:
        this.#demand({ kind: 'media', id: first as MediaId });
        break;
      case BLOBS.name:
      case JOBS.name:
      case DEAD.name:
      case 'live':
        this.#demand({ kind: 'blob', sha256: first as Sha256 });
        break;
      case TRASH.name:
        this.#demand({ kind: 'trash', key: first as BlobKey });
        break;
      case USAGE.name:
        this.#demand({ kind: 'usage', periodAt: Number(first), owner: String(second) });
        break;
      default:
        throw new Error(`a rule must not read one key of ${table}`);
    }
  }

  #demandSpan(table: string, { start = [] }: Span): void {
    if (table === JOURNAL.name) {
      if (this.#journal === 'not asked for') this.#journal = 'wanted';
      return;
    }
    if (this.#wholeIndexes.has(table as IndexName)) return;
    const [first, second] = partsOf(start);
    switch (table as IndexName) {
      case 'live':
        this.#demand({ kind: 'blob', sha256: first as Sha256 });
        break;
      case 'sent':
        this.#demand({ kind: 'sent', sha256: first as Sha256 });
        break;
      case 'job_ready':
        if (typeof first === 'number') this.#demand({ kind: 'next job', rank: first });
        else this.#demand({ kind: 'last job', rank: Number(second), owner: String(first) });
        break;
      default:
        throw new Error(`a rule must not read a span of ${table}`);
    }
  }

  #demand(fact: Fact): void {
    if (!this.knows(fact)) throw new MissingFact(fact);
  }
}

function decoded({ name, table }: RowTable, bytes: Uint8Array): unknown {
  try {
    return table.codec.decode(bytes);
  } catch (thrown) {
    throw new Unwritable(`a record of ${name} cannot be written`, { cause: thrown });
  }
}

const ROWS_BY_NAME: ReadonlyMap<string, RowTable> = new Map(ROW_TABLES.map((rows) => [rows.table.name, rows]));
/** Part by part, numbers before strings. */
export function compareKeys(one: Key, other: Key): number {
  const [a, b] = [partsOf(one), partsOf(other)];
  for (let at = 0; at < Math.min(a.length, b.length); at += 1) {
    const order = compareParts(a[at] ?? '', b[at] ?? '');
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function partsOf(key: Key): readonly KeyPart[] {
  return typeof key === 'object' ? key : [key];
}

function compareParts(one: KeyPart, other: KeyPart): number {
  if (typeof one !== typeof other) return typeof one === 'number' ? -1 : 1;
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

/** Where a key is, or would be. */
function find(entries: readonly Entry[], key: Key): { readonly at: number; readonly found: boolean } {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const order = compareKeys(entries[middle]?.key ?? '', key);
    if (order === 0) return { at: middle, found: true };
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return { at: low, found: false };
}
