/**
 * The metadata store on LMDB. Only this file imports the package.
 *
 * One process writes (writer-lock.ts); others may read meanwhile. Writes that wait
 * at the same time go into one LMDB transaction and share its sync. Each write is
 * a child transaction, which can be rolled back alone.
 */

import { existsSync, statSync } from 'node:fs';
import { readFile, rename, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { type Key as LmdbKey, type Database as LmdbTable, open, type RangeOptions, type RootDatabase } from 'lmdb';
import type { Clock } from '../../src/clock.js';
import { Fault, faultOf } from '../../src/errors.js';
import { openPrivateFolder } from '../../src/private-folder.js';
import { syncPath } from '../blobs/files.js';
import type { DamagedRecord } from './codec.js';
import type { LmdbConfig } from './config.js';
import { type Database, readOrSkip, type Urgency } from './database.js';
import { refuseBroken } from './lmdb/refuse-broken.js';
import { openReserve, type Reserve } from './lmdb/reserve.js';
import { lockWriter, type WriterLock } from './lmdb/writer-lock.js';
import type { Stamp } from './records.js';
import type { MetaStore } from './store.js';
import {
  ABOUT,
  decode,
  type IndexName,
  type Key,
  OUTBOX,
  type Reader,
  read,
  type Span,
  type StoredRecord,
  TABLE_NAMES,
  type Table,
  TRASH,
  type Writer,
  write,
} from './tables.js';
import { copyStore, createReader, createStore, type MetaDeps, type MetaReader } from './transactions.js';

/**
 * The version of the layout of tables and keys. (Codecs have versions of their own for the fields of records.)
 * Version 2 added the hash of the sent bytes: the index `sent`, and a third part in keys of `live`. Version 4 added
 * places: the trash and its index. Version 5 added the outbox and its indexes.
 */
const FORMAT = 5;
/** How long a measured size is used again. */
const USED_BYTES_AGE_MS = 1_000;
/** System error numbers, as LMDB passes them on. */
const ENOSPC = 28;
const EDQUOT = 122;
const EIO = 5;
/** If less than this is free, a commit with an I/O error is taken to have failed for lack of room. */
const ROOM_MIN_BYTES = 4 * 2 ** 20;

export interface OpenOptions {
  /** Replaces a stamp that cannot be read; the journal then gets a new name. For fsck. */
  readonly mendStamp?: boolean;
}

/** Opens the store, and creates it if there is none. Rejects with FolderInUse while another process writes to it. */
export async function openMetaStore(
  config: LmdbConfig,
  deps: MetaDeps,
  { mendStamp = false }: OpenOptions = {},
): Promise<MetaStore> {
  await openPrivateFolder(config.folder);
  await refuseMoved(config.folder);
  const reserve = await openReserve(join(config.folder, RESERVE_NAME), config.reserveBytes);
  const lock = await lockOnFullDisk(reserve, () => lockWriter(config.folder, deps.randomName));
  let database: Database | undefined;
  try {
    await reserve.refill();
    await createIfMissing(config.folder);
    await refuseBroken(join(config.folder, FILE_NAME));
    database = openDatabase(config, deps.clock, lock, reserve);
    const stamp = await stampDatabase(database, config.folder, deps, mendStamp);
    return await createStore(database, stamp, config, deps);
  } catch (thrown) {
    await database?.close();
    await lock.release();
    throw thrown;
  }
}

/** Written into a folder whose records live elsewhere now, so that no origin goes on with the old ones. */
export const MOVED_NAME = 'moved';

async function refuseMoved(folder: string): Promise<void> {
  const path = join(folder, MOVED_NAME);
  const found = await readFile(path, 'utf8').catch(() => undefined);
  if (found === undefined) return;
  throw new Error(`${found.trim()} What was written since is not in ${folder}. Remove ${path} to use it all the same.`);
}

async function createIfMissing(folder: string): Promise<void> {
  const found = await stat(join(folder, FILE_NAME)).catch(() => undefined);
  if (found === undefined || found.size === 0) await makeBeside(folder, async () => undefined);
}

/**
 * Makes a database beside its place, and puts it there once it is whole and on the disk. A power cut while LMDB makes its
 * file would leave one that ends every process which opens it.
 */
async function makeBeside(folder: string, fill: (root: Root, tables: Tables) => Promise<void>): Promise<void> {
  const inner = join(folder, NEW_NAME);
  await rm(inner, { recursive: true, force: true });
  await openPrivateFolder(inner);
  const made: Root = open(inner, { ...SHARED_OPTIONS });
  try {
    await fill(made, openTables(made, inner));
  } finally {
    await made.close();
  }
  await syncPath(join(inner, FILE_NAME));
  await rename(join(inner, FILE_NAME), join(folder, FILE_NAME));
  await rm(inner, { recursive: true, force: true });
  await syncPath(folder);
}

/** The origin must also start on a full disk, for takedowns. */
async function lockOnFullDisk(reserve: Reserve, lock: () => Promise<WriterLock>): Promise<WriterLock> {
  try {
    return await lock();
  } catch (thrown) {
    if (faultOf(thrown).code !== 'storage_full' || !(await reserve.giveBack())) throw thrown;
    return await lock();
  }
}

/** Reads and backups for a second process, while another one may be writing. */
export interface MetaSnapshot extends MetaReader, Pick<MetaStore, 'backup' | 'close'> {}

export async function openMetaReader(config: LmdbConfig, deps: MetaDeps): Promise<MetaSnapshot> {
  if (!existsSync(join(config.folder, FILE_NAME))) throw new Error(`${config.folder} contains no metadata store`);
  await refuseBroken(join(config.folder, FILE_NAME));
  const database = openReadOnly(config, deps.clock);
  try {
    checkFormat(read(database.reader, ABOUT, 'stamp'), config.folder);
  } catch (thrown) {
    await database.close();
    throw thrown;
  }
  return {
    ...createReader(database.reader, config, deps.log),
    backup: (folder) => copyStore(database, folder, deps.randomName),
    close: () => database.close(),
  };
}

async function stampDatabase(database: Database, folder: string, deps: MetaDeps, mendStamp: boolean): Promise<Stamp> {
  const damaged: DamagedRecord[] = [];
  const found = mendStamp
    ? readOrSkip(database.reader, ABOUT, 'stamp', damaged)
    : read(database.reader, ABOUT, 'stamp');
  if (found !== undefined && checkFormat(found, folder).format === FORMAT) return found;
  // Records of an older format stay readable. Older releases cannot read what is written from now on.
  const stamp: Stamp =
    found !== undefined
      ? { ...found, format: FORMAT }
      : { format: FORMAT, journal: deps.randomName(), madeAt: deps.clock.now() };
  await database.transact((writer) => {
    if (damaged.length > 0) writer.remove(ABOUT.name, 'stamp');
    write(writer, ABOUT, 'stamp', stamp);
  }, 'must');
  return stamp;
}

function checkFormat(stamp: Stamp | undefined, folder: string): Stamp {
  if (stamp === undefined) throw new Error(`${folder} contains no metadata store`);
  if (stamp.format > FORMAT) {
    throw new Error(
      `the metadata store in ${folder} was written by a newer release (format ${stamp.format}; this one reads up to ${FORMAT})`,
    );
  }
  return stamp;
}

/** The file with all data of a store. The other files in the folder, LMDB's lock and the reserve, are created again when missing. */
export const FILE_NAME = 'data.mdb';
const RESERVE_NAME = 'reserve';
/** The folder in which a database is made. */
const NEW_NAME = 'new';
const SHARED_OPTIONS = {
  encoding: 'binary',
  maxDbs: TABLE_NAMES.length + 4,
  // With overlapping syncs, a killed writer can leave a database that makes the next writer panic.
  overlappingSync: false,
  // The default takes a folder with a dot in its name for a file.
  noSubdir: false,
  // When a commit fails, LMDB's own batching rejects a promise that nobody can catch.
  eventTurnBatching: false,
} as const;

type Root = RootDatabase<Uint8Array>;
type Tables = ReadonlyMap<string, LmdbTable<Uint8Array>>;

/** Tables that a store of an earlier format may not have. */
const NEW_TABLES: readonly string[] = [
  TRASH.name,
  OUTBOX.name,
  ...(['trash_order', 'hook_media', 'hook_ready', 'hook_since', 'hook_dead'] as const satisfies readonly IndexName[]),
];

/** A write that waits for its transaction. */
interface Waiting {
  readonly urgency: Urgency;
  /** Runs the write as a child transaction and remembers the outcome. */
  attempt(root: Root, writer: Writer): void;
  /** The transaction is synced: resolves or rejects by the outcome. */
  done(): void;
  /** The transaction failed as a whole. */
  fail(error: unknown): void;
}

function openDatabase(config: LmdbConfig, clock: Clock, lock: WriterLock, reserve: Reserve): Database {
  const root: Root = open(config.folder, { ...SHARED_OPTIONS });
  const tables = openTables(root, config.folder);
  const writer = createWriter(tables);
  const copies = new Set<Promise<void>>();
  const isInPlace = createPlaceCheck(join(config.folder, FILE_NAME));
  let waiting: Waiting[] = [];
  let committing: Promise<void> | undefined;
  let closing: Promise<void> | undefined;

  /** Commits until no write waits, including those that arrive meanwhile. */
  async function commitAll(): Promise<void> {
    while (waiting.length > 0) {
      let group: readonly Waiting[] = [];
      const fault = await commitOnce(() => {
        group = waiting.slice(0, config.commitMax);
        waiting = waiting.slice(config.commitMax);
        return group;
      });
      // If the transaction could not even begin, it took no writes: then all waiting ones fail.
      if (fault !== undefined) await commitFailed(group.length > 0 ? group : waiting.splice(0), fault);
    }
    committing = undefined;
  }

  /** On a full disk, writes that must not fail are tried again, each time with another part of the reserve. */
  async function commitFailed(group: readonly Waiting[], fault: Fault): Promise<void> {
    let failed = group;
    for (let reason: Fault | undefined = fault; reason !== undefined; reason = await commitOnce(() => failed)) {
      const urgent = reason.code === 'storage_full' ? failed.filter(({ urgency }) => urgency === 'must') : [];
      const again = urgent.length > 0 && (await reserve.giveBack()) ? urgent : [];
      for (const one of failed) if (!again.includes(one)) one.fail(reason);
      if (again.length === 0) return;
      failed = again;
    }
  }

  async function commitOnce(take: () => readonly Waiting[]): Promise<Fault | undefined> {
    let group: readonly Waiting[] = [];
    try {
      await root.transaction(() => {
        group = take();
        for (const one of group) one.attempt(root, writer);
      });
    } catch (thrown) {
      return await commitFault(thrown, config.folder);
    }
    if (!isInPlace()) return replacedFault(config.folder);
    for (const one of group) one.done();
    return undefined;
  }

  return {
    reader: writer,
    usedBytes: createGauge(tables, clock),
    freeBytes: () => freeBytesIn(config.folder),
    reserve,
    transact(body, urgency, committed) {
      if (closing !== undefined) return Promise.reject(new Fault('overloaded', 'The service is shutting down.'));
      if (waiting.length >= config.queueMax) {
        return Promise.reject(new Fault('overloaded', 'Too many writes are waiting.'));
      }
      return new Promise((resolve, reject) => {
        waiting.push(createWaiting(body, urgency, committed, resolve, reject));
        committing ??= commitAll();
      });
    },
    copyTo(folder, prepare) {
      const copy = copyRoot(root, folder, prepare);
      const ended = copy.then(
        () => void copies.delete(ended),
        () => void copies.delete(ended),
      );
      copies.add(ended);
      return copy;
    },
    close() {
      closing ??= (async () => {
        await Promise.all([committing, ...copies]);
        await root.close();
        await lock.release();
      })();
      return closing;
    },
  };
}

function openReadOnly(config: LmdbConfig, clock: Clock): Database {
  const root: Root = open(config.folder, { ...SHARED_OPTIONS, readOnly: true });
  const tables = openTables(root, config.folder);
  let closing: Promise<void> | undefined;
  return {
    reader: createWriter(tables),
    usedBytes: createGauge(tables, clock),
    freeBytes: () => freeBytesIn(config.folder),
    reserve: { whole: true, giveBack: async () => false, refill: async () => true },
    transact: () => Promise.reject(new Error('the metadata store is open for reading only')),
    copyTo: (folder, prepare) => copyRoot(root, folder, prepare),
    close() {
      closing ??= root.close();
      return closing;
    },
  };
}

type Outcome<T> =
  | { readonly kind: 'waiting' }
  | { readonly kind: 'ran'; readonly value: T }
  | { readonly kind: 'threw'; readonly error: unknown };

function createWaiting<T>(
  body: (writer: Writer) => T,
  urgency: Urgency,
  committed: (() => void) | undefined,
  resolve: (value: T) => void,
  reject: (error: unknown) => void,
): Waiting {
  let outcome: Outcome<T> = { kind: 'waiting' };
  return {
    urgency,
    attempt(root, writer) {
      try {
        outcome = { kind: 'ran', value: root.transactionSync(() => body(writer)) };
      } catch (error) {
        outcome = { kind: 'threw', error };
      }
    },
    done() {
      switch (outcome.kind) {
        case 'ran':
          committed?.();
          resolve(outcome.value);
          break;
        case 'threw':
          reject(outcome.error);
          break;
        case 'waiting':
          reject(new Error('the transaction did not run'));
          break;
      }
    },
    fail: reject,
  };
}

/**
 * Whether the name of the file still leads to the file that is open. Somebody may have removed it, or put another in its
 * place: what is written to it would be gone with the process.
 */
function createPlaceCheck(path: string): () => boolean {
  const opened = statSync(path);
  return () => {
    try {
      const found = statSync(path);
      return found.ino === opened.ino && found.dev === opened.dev;
    } catch {
      return false;
    }
  };
}

function replacedFault(folder: string): Fault {
  const cause = new Error(`the database in ${folder} was removed or replaced; the process must be started again`);
  return new Fault('storage_unavailable', 'The metadata store cannot be used at the moment.', { cause });
}

/** The fault for a failed commit. LMDB gives the cause as a promise on the error. */
async function commitFault(thrown: unknown, folder: string): Promise<Fault> {
  const cause = await causeOf(thrown);
  const code = typeof cause === 'object' && cause !== null && 'code' in cause ? cause.code : undefined;
  // LMDB reports a partial write as an I/O error.
  if (code === ENOSPC || code === EDQUOT || (code === EIO && (await isFull(folder)))) {
    return new Fault('storage_full', 'The metadata store has no room left.', { cause });
  }
  return new Fault('storage_unavailable', 'The metadata store could not commit.', { cause });
}

async function freeBytesIn(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}

async function isFull(folder: string): Promise<boolean> {
  try {
    return (await freeBytesIn(folder)) < ROOM_MIN_BYTES;
  } catch {
    return false;
  }
}

async function causeOf(thrown: unknown): Promise<unknown> {
  if (!(thrown instanceof Error) || !('commitError' in thrown)) return thrown;
  try {
    await thrown.commitError;
    return thrown;
  } catch (cause) {
    return cause;
  }
}

function openTables(root: Root, folder: string): Tables {
  const tables = new Map<string, LmdbTable<Uint8Array>>();
  for (const name of TABLE_NAMES) {
    // Opened read-only, a table that does not exist is undefined, which the package's types do not say.
    const table: LmdbTable<Uint8Array> | undefined = root.openDB({ name, encoding: 'binary' });
    if (table !== undefined) tables.set(name, table);
    else if (!NEW_TABLES.includes(name)) throw new Error(`${folder} contains no metadata store that can be read`);
  }
  return tables;
}

/** Inside a transaction it sees that transaction's writes, outside the latest committed state. */
function createWriter(tables: Tables): Writer {
  const tableOf = (name: string): LmdbTable<Uint8Array> => {
    const table = tables.get(name);
    if (table === undefined) throw new Error(`there is no table ${name}`);
    return table;
  };
  /** Read by a second process, a store of the format before may lack a table. */
  const isAbsent = (name: string): boolean => NEW_TABLES.includes(name) && !tables.has(name);
  return {
    get: (table, key) => (isAbsent(table) ? undefined : tableOf(table).getBinary(key as LmdbKey)),
    range: (table, span) =>
      isAbsent(table) ? [] : (tableOf(table).getRange(rangeOf(span)) as ReturnType<Reader['range']>),
    count: (table) => (isAbsent(table) ? 0 : statsOf(tableOf(table)).entryCount),
    put: (table, key, value) => tableOf(table).putSync(key as LmdbKey, value),
    remove: (table, key) => void tableOf(table).removeSync(key as LmdbKey),
  };
}

function rangeOf(span: Span): RangeOptions {
  const { start, afterStart, end, limit, reverse } = span;
  return {
    ...(start !== undefined && { start: start as LmdbKey }),
    ...(afterStart === true && { exclusiveStart: true }),
    ...(end !== undefined && { end: end as LmdbKey }),
    ...(limit !== undefined && { limit }),
    ...(reverse === true && { reverse }),
  };
}

/** Bytes of live pages, measured `lately` at most once in USED_BYTES_AGE_MS. */
function createGauge(tables: Tables, clock: Clock): Database['usedBytes'] {
  let usedBytes = 0;
  let readAtMs = Number.NEGATIVE_INFINITY;
  return (when) => {
    if (when === 'lately' && clock.monotonicMs() - readAtMs < USED_BYTES_AGE_MS) return usedBytes;
    readAtMs = clock.monotonicMs();
    usedBytes = 0;
    for (const table of tables.values()) {
      const { pageSize, treeBranchPageCount, treeLeafPageCount, overflowPages } = statsOf(table);
      usedBytes += pageSize * (treeBranchPageCount + treeLeafPageCount + overflowPages);
    }
    return usedBytes;
  };
}

interface TableStats {
  readonly pageSize: number;
  readonly entryCount: number;
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

function statsOf(table: LmdbTable<Uint8Array>): TableStats {
  return table.getStats() as TableStats;
}

async function copyRoot(root: Root, folder: string, prepare: (writer: Writer) => void): Promise<void> {
  await openPrivateFolder(folder);
  if (existsSync(join(folder, FILE_NAME))) throw new Error(`${folder} already contains a metadata store`);
  await root.backup(folder, true);
  const copy: Root = open(folder, { ...SHARED_OPTIONS });
  try {
    const writer = createWriter(openTables(copy, folder));
    copy.transactionSync(() => prepare(writer));
  } finally {
    await copy.close();
  }
  await syncPath(join(folder, FILE_NAME));
  await syncPath(folder);
}

/**
 * Every record of a store that no other process writes to, table by table in the order of keys. Records that cannot be read
 * make it fail: fsck comes first.
 */
export async function readStore(
  folder: string,
  tables: readonly Table<Key, unknown>[],
  take: (page: readonly StoredRecord[]) => Promise<void>,
): Promise<Stamp> {
  await refuseBroken(join(folder, FILE_NAME));
  const root: Root = open(folder, { ...SHARED_OPTIONS, readOnly: true });
  try {
    const reader = createWriter(openTables(root, folder));
    const stamp = checkFormat(read(reader, ABOUT, 'stamp'), folder);
    for (const table of tables) {
      let span: Span = { limit: PAGE };
      for (;;) {
        const page = [...reader.range(table.name, span)];
        await take(page.map(({ key, value }) => ({ table, key, value: decode(table, key, value) })));
        const last = page.at(-1);
        if (last === undefined || page.length < PAGE) break;
        span = { start: last.key, afterStart: true, limit: PAGE };
      }
    }
    return stamp;
  } finally {
    await root.close();
  }
}

/** Records that are read at once. */
const PAGE = 1_000;

/** Makes a store of records that come from elsewhere, in a folder that has none. It gets a journal name of its own. */
export async function makeStore(
  folder: string,
  stamp: Omit<Stamp, 'format'>,
  fill: (take: (page: readonly StoredRecord[]) => Promise<void>) => Promise<void>,
): Promise<void> {
  await openPrivateFolder(folder);
  if (existsSync(join(folder, FILE_NAME))) throw new Error(`${folder} already contains a metadata store`);
  await makeBeside(folder, async (root, tables) => {
    const writer = createWriter(tables);
    await fill(async (page) => {
      await root.transaction(() => {
        for (const { table, key, value } of page) write(writer, table, key, value);
      });
    });
    await root.transaction(() => write(writer, ABOUT, 'stamp', { ...stamp, format: FORMAT }));
  });
}
