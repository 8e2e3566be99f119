/**
 * What the metadata store needs from a database: ordered tables, snapshots to
 * read from, and synced transactions. lmdb.ts implements it.
 */
import type { EpochMs } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import type { JournalEntry, Mark } from '../../src/journal/entry.js';
import type { BlobKey } from '../blobs/blob-store.js';
import { DamagedRecord } from './codec.js';
import type { Reserve } from './lmdb/reserve.js';
import type { AuditLine } from './origins/shared.js';
import type { EventMaker, MediaEvent } from './outbox/outbox.js';
import { type Key, type Reader, read, type Table, type Writer } from './tables.js';

/**
 * What happens to a write on a full disk. `may_fail`: it fails. `must`: it also gets the room that is kept in reserve:
 * takedowns, and what frees room.
 */
export type Urgency = 'may_fail' | 'must';

export interface Database {
  /** Sees every transaction that has resolved. Synchronous code sees one state throughout. */
  readonly reader: Reader;
  /**
   * Runs `body` in a transaction and resolves with its result once it is synced.
   * Bodies that wait at the same time share a sync. A body that throws undoes its
   * own writes and no others. `committed` is called before the promise resolves,
   * in the order in which the bodies ran. A body may run again after a failure.
   */
  transact<T>(body: (writer: Writer) => T, urgency: Urgency, committed?: () => void): Promise<T>;
  /** Bytes used by records and indexes, as of a moment ago, or measured now. */
  usedBytes(when: 'lately' | 'now'): number;
  /** Free bytes in the file system. */
  freeBytes(): Promise<number>;
  /** Room in the file system for writes that must not fail. */
  readonly reserve: Reserve;
  /** Writes a consistent copy to an empty folder while the database is in use. `prepare` may change the copy. */
  copyTo(folder: string, prepare: (writer: Writer) => void): Promise<void>;
  /** Finishes waiting transactions and refuses later ones. May be called twice. */
  close(): Promise<void>;
}

/** What a transaction is given. */
export interface ChangeDeps {
  /** Makes the mark of a new journal entry. */
  readonly newMark: () => Mark;
  /** When the transaction began. */
  readonly now: EpochMs;
  /** Whether bytes may have been stored under this key by somebody who is about to record them (places.ts). */
  readonly isIntended: (key: BlobKey) => boolean;
  /** How events for the chat server are made; left out, there are none. */
  readonly eventMaker?: EventMaker | undefined;
}

/** A running transaction, and what to announce or log once it is committed. */
export interface Change extends ChangeDeps {
  readonly writer: Writer;
  /** Keys that a record names from now on. */
  readonly placed: BlobKey[];
  readonly entries: JournalEntry[];
  readonly damaged: DamagedRecord[];
  jobsAdded: boolean;
  /** Blobs whose job was removed because nothing refers to them any more. */
  readonly jobsEnded: Sha256[];
  /** For the audit log, where the database has it. */
  readonly notes: AuditLine[];
  /** For the chat server, one for each id. */
  readonly events: MediaEvent[];
}

export function startChange(writer: Writer, deps: ChangeDeps): Change {
  const collected = { placed: [], entries: [], damaged: [], jobsEnded: [], notes: [], events: [] };
  return { ...deps, ...collected, writer, jobsAdded: false };
}

/** Reads a record that the caller can do without. A damaged one is added to `damaged` and counts as absent. */
export function readOrSkip<K extends Key, V>(
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
