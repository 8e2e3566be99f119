/**
 * Checks that the store agrees with itself: every record can be read and is under
 * its own key; the index entries are those of the records; blobs and ids agree;
 * jobs exist where they are due; the journal has no gaps. Repairs what follows from
 * readable records. Records that cannot be read are moved aside, never deleted.
 *
 * Reads in pages and lets other work run between them. Each repair is a transaction
 * that reads again before it changes anything.
 */
import { parseMediaId, type Sha256 } from '../../src/ids.js';
import { DamagedRecord } from './codec.js';
import type { Change } from './database.js';
import { queueJob } from './queue.js';
import type { StoredBlob } from './records.js';
import type { MetaFinding, VerifyOptions } from './store.js';
import {
  ABOUT,
  BLOBS,
  DEAD,
  decode,
  entryText,
  entryValue,
  INDEX_NAMES,
  INDEXED,
  type IndexEntry,
  type IndexName,
  JOBS,
  JOURNAL,
  type Key,
  keyText,
  LOST,
  liveIdsOf,
  MEDIA,
  OUTBOX,
  putEntry,
  type Reader,
  read,
  type Span,
  type Table,
  TRASH,
  USAGE,
  type Writer,
  write,
} from './tables.js';
import { updateReference } from './takedown.js';
import { appendEntry } from './takedown-journal.js';

/** Rows read at once. */
const PAGE = 500;

interface Check extends VerifyOptions {
  readonly reader: Reader;
  run<T>(body: (change: Change) => T): Promise<T>;
  readonly randomName: () => string;
  found(finding: Omit<MetaFinding, 'repaired'>, repair: (change: Change) => void): Promise<void>;
}

type AnyTable = Table<Key, unknown>;

export async function verifyMeta(
  reader: Reader,
  run: Check['run'],
  randomName: () => string,
  options: VerifyOptions,
): Promise<void> {
  const check: Check = {
    ...options,
    reader,
    run,
    randomName,
    async found(finding, repair) {
      if (options.repair) await run(repair);
      options.onFinding({ ...finding, repaired: options.repair });
    },
  };
  // Records come first: indexes are compared with the records that can be read.
  for (const table of [...INDEXED, USAGE]) await checkRecords(check, table);
  await checkJournal(check);
  for (const table of INDEXED) await checkMissingEntries(check, table);
  for (const index of INDEX_NAMES) await checkStrayEntries(check, index);
  await checkMedia(check);
  await checkBlobs(check);
  await checkJobs(check);
}

/** Every record can be read and has the key that it says. */
async function checkRecords(check: Check, table: AnyTable): Promise<void> {
  for await (const { key, value } of rows(check, table.name)) {
    const why = faultOf(table, key, value);
    if (why === undefined) continue;
    await check.found({ kind: 'damaged', table: table.name, key: keyText(key), detail: why }, (change) => {
      setAside(change, table.name, key);
      const id = parseMediaId(keyText(key));
      // Without the record nobody knows who may see the media, so edges must drop it.
      if (table.name === MEDIA.name && id !== undefined) appendEntry(change, 'delete', [id], check.now);
    });
  }
}

function faultOf(table: AnyTable, key: Key, value: Uint8Array): string | undefined {
  try {
    const record = decode(table, key, value);
    const own = table.keyOf?.(record);
    return own === undefined || keyText(own) === keyText(key) ? undefined : `it says that its key is ${keyText(own)}`;
  } catch (thrown) {
    if (!(thrown instanceof DamagedRecord)) throw thrown;
    return thrown.message;
  }
}

/** Moves a record to the table of lost ones, where its bytes can be examined. */
function setAside({ writer }: Change, table: string, key: Key): void {
  const bytes = writer.get(table, key);
  if (bytes === undefined) return;
  writer.put(LOST, `${table} ${keyText(key)}`, bytes);
  writer.remove(table, key);
}

/**
 * The journal's entries can be read and have no gap. If not, edges cannot know
 * what they missed. The journal then gets a new name, which makes them drop all
 * media and continue from its newest entry.
 */
async function checkJournal(check: Check): Promise<void> {
  let last: number | undefined;
  for await (const { key, value } of rows(check, JOURNAL.name)) {
    const seq = Number(key);
    const why = faultOf(JOURNAL, key, value);
    const gap = last !== undefined && seq !== last + 1;
    last = seq;
    if (why === undefined && !gap) continue;
    const detail = why ?? `entries between this one and ${seq - 1} are missing`;
    await check.found({ kind: 'journal_broken', table: JOURNAL.name, key: keyText(key), detail }, (change) => {
      const older = [...change.writer.range(JOURNAL.name, { end: seq })];
      for (const entry of older) change.writer.remove(JOURNAL.name, entry.key);
      if (why !== undefined) {
        setAside(change, JOURNAL.name, key);
        write(change.writer, JOURNAL, seq, { seq, mark: check.randomName(), at: check.now, cause: 'restore', ids: [] });
      }
      renameJournal(change.writer, check.randomName());
    });
  }
}

function renameJournal(writer: Writer, name: string): void {
  const stamp = read(writer, ABOUT, 'stamp');
  if (stamp !== undefined) write(writer, ABOUT, 'stamp', { ...stamp, journal: name });
}

/** Every record has its index entries. */
async function checkMissingEntries(check: Check, table: AnyTable): Promise<void> {
  for await (const { key, value } of rows(check, table.name)) {
    for (const entry of entriesOf(table, key, value)) {
      if (isPresent(check.reader, entry)) continue;
      const detail = `${table.name} ${keyText(key)} is missing in it`;
      await check.found(
        { kind: 'index_missing', table: entry.index, key: keyText(entry.key), detail },
        ({ writer }) => {
          if (hasEntry(writer, table, key, entry)) putEntry(writer, entry);
        },
      );
    }
  }
}

/** Every index entry belongs to the record that it points to. */
async function checkStrayEntries(check: Check, index: IndexName): Promise<void> {
  const table = OWNERS[index];
  for await (const { key, value } of rows(check, index)) {
    const entry = entryOf(index, key, value);
    const target = entry.value === '' ? lastOf(key) : entry.value;
    if (hasEntry(check.reader, table, target, entry)) continue;
    const detail = `it points to ${table.name} ${target}, which has no such entry`;
    await check.found({ kind: 'index_stray', table: index, key: keyText(key), detail }, ({ writer }) => {
      if (!hasEntry(writer, table, target, entry)) writer.remove(index, key);
    });
  }
}

const OWNERS = {
  by_blob: MEDIA,
  live: MEDIA,
  sent: MEDIA,
  by_owner: MEDIA,
  expiry: MEDIA,
  idle: MEDIA,
  tombstone: MEDIA,
  unreferenced: BLOBS,
  held: BLOBS,
  job_ready: JOBS,
  job_lease: JOBS,
  dead_order: DEAD,
  trash_order: TRASH,
  hook_media: OUTBOX,
  hook_ready: OUTBOX,
  hook_since: OUTBOX,
  hook_dead: OUTBOX,
} as const satisfies Record<IndexName, unknown>;

/** Every live id has a blob. One without is only reported: what to do depends on the bytes. */
async function checkMedia(check: Check): Promise<void> {
  for await (const { key, value } of rows(check, MEDIA.name)) {
    const record = readable(() => decode(MEDIA, key, value))?.record;
    if (record?.state.kind !== 'live' || check.reader.get(BLOBS.name, record.sha256) !== undefined) continue;
    check.onBlobUnknown(record);
  }
}

/** Every blob is right about whether it is referenced. If it is, it has a job while its thumbnails are pending. */
async function checkBlobs(check: Check): Promise<void> {
  for await (const { key, value } of rows(check, BLOBS.name)) {
    const stored = readable(() => decode(BLOBS, key, value));
    if (stored === undefined) continue;
    const { sha256 } = stored.blob;
    if (referenceIsWrong(check.reader, stored)) {
      const detail = stored.unreferencedAt === null ? 'no live id refers to it' : 'a live id refers to it';
      await check.found({ kind: 'reference_wrong', table: BLOBS.name, key: sha256, detail }, (change) => {
        updateReference(change, sha256, check.now);
      });
    }
    const waits = stored.blob.thumbs.kind === 'pending' && liveIdsOf(check.reader, sha256).length > 0;
    if (waits && check.reader.get(JOBS.name, sha256) === undefined) {
      const detail = 'its thumbnails are pending, but it has no job';
      await check.found({ kind: 'job_missing', table: JOBS.name, key: sha256, detail }, (change) => {
        queueJob(change, sha256, 'backfill', check.now);
      });
    }
  }
}

function referenceIsWrong(reader: Reader, { blob, unreferencedAt }: StoredBlob): boolean {
  return (unreferencedAt === null) !== liveIdsOf(reader, blob.sha256).length > 0;
}

/** Every job has a blob. */
async function checkJobs(check: Check): Promise<void> {
  for (const table of [JOBS, DEAD]) {
    for await (const { key } of rows(check, table.name)) {
      const sha256 = key as Sha256;
      if (check.reader.get(BLOBS.name, sha256) !== undefined) continue;
      const detail = 'there is no such blob';
      await check.found({ kind: 'job_stray', table: table.name, key: sha256, detail }, ({ writer }) => {
        if (writer.get(BLOBS.name, sha256) !== undefined) return;
        if (table === JOBS) write(writer, JOBS, sha256, undefined);
        else write(writer, DEAD, sha256, undefined);
      });
    }
  }
}

/** All rows of a table, read in pages. The table may be written to between pages. */
async function* rows(check: Check, table: string): AsyncIterable<{ readonly key: Key; readonly value: Uint8Array }> {
  let span: Span = { limit: PAGE };
  for (let seen = 0; ; ) {
    const page = [...check.reader.range(table, span)];
    yield* page;
    seen += page.length;
    check.onProgress({ table, seen });
    await new Promise(setImmediate);
    check.signal.throwIfAborted();
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) return;
    span = { start: last.key, afterStart: true, limit: PAGE };
  }
}

function entriesOf(table: AnyTable, key: Key, value: Uint8Array): readonly IndexEntry[] {
  return readable(() => table.indexes(decode(table, key, value))) ?? [];
}

/** Whether there is a readable record that has this index entry. */
function hasEntry(reader: Reader, table: AnyTable, key: Key, entry: IndexEntry): boolean {
  const bytes = reader.get(table.name, key);
  if (bytes === undefined) return false;
  return entriesOf(table, key, bytes).some((own) => entryText(own) === entryText(entry));
}

function isPresent(reader: Reader, { index, key, value }: IndexEntry): boolean {
  const bytes = reader.get(index, key);
  return bytes !== undefined && entryValue(bytes) === value;
}

function entryOf(index: IndexName, key: Key, value: Uint8Array): IndexEntry {
  return { index, key, value: entryValue(value) };
}

/** The record that `decodeRecord` gives, or undefined if it is damaged. */
function readable<T>(decodeRecord: () => T): T | undefined {
  try {
    return decodeRecord();
  } catch (thrown) {
    if (thrown instanceof DamagedRecord) return undefined;
    throw thrown;
  }
}

function lastOf(key: Key): string {
  return String(typeof key === 'object' ? key.at(-1) : key);
}
