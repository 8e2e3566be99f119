/**
 * What the store needs of a database: ordered tables, snapshots to read from,
 * and synced transactions. lmdb.ts provides it.
 */
import type { JournalEntry } from '../../src/journal/entry.js';
import { DamagedRecord } from './codec.js';
import { type Key, type Reader, read, type Table, type Writer } from './tables.js';

export interface Database {
  /** Sees every transaction that was resolved; one synchronous stretch of code sees one state. */
  readonly reader: Reader;
  /**
   * Runs `body` in a transaction and resolves with its result once it is synced.
   * Bodies that wait at the same time share a sync; one that throws takes back
   * its own writes and nobody else's. `committed` is called before it resolves,
   * in the order in which the bodies ran.
   */
  transact<T>(body: (writer: Writer) => T, committed?: () => void): Promise<T>;
  /** Bytes that records and indexes take up. */
  usedBytes(): number;
  /** A consistent copy in another, empty folder, while all goes on; `prepare` may change the copy before it counts. */
  copyTo(folder: string, prepare: (writer: Writer) => void): Promise<void>;
  /** Lets what waits finish; later calls are refused. May be called twice. */
  close(): Promise<void>;
}

/** A transaction under way and what has to be told once it is committed. */
export interface Change {
  readonly writer: Writer;
  readonly entries: JournalEntry[];
  readonly damaged: DamagedRecord[];
  jobsAdded: boolean;
}

export function startChange(writer: Writer): Change {
  return { writer, entries: [], damaged: [], jobsAdded: false };
}

/** Reads a record that the work can do without: a damaged one is noted and passed over. */
export function readOrNote<K extends Key, V>(
  reader: Reader,
  table: Table<K, V>,
  key: K,
  damaged: DamagedRecord[],
): V | undefined {
  try {
    return read(reader, table, key);
  } catch (thrown) {
    if (!(thrown instanceof DamagedRecord)) throw thrown;
    damaged.push(thrown);
    return undefined;
  }
}
