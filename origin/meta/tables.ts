/**
 * The tables of the store and their indexes. Index entries are computed from the
 * record alone (`indexes`), and only `write` changes records, so that records and
 * indexes cannot disagree. fsck computes the entries again and compares.
 *
 * Reads and writes are synchronous calls inside one transaction or snapshot,
 * which the implementation of Reader and Writer provides.
 */
import { hash } from 'node:crypto';
import type { EpochMs } from '../../src/clock.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import type { JournalEntry } from '../../src/journal/entry.js';
import type { BlobKey } from '../blobs/blob-store.js';
import { type Codec, DamagedRecord } from './codec.js';
import type { DeadJob, Job, JobPriority } from './jobs.js';
import { awaitsScan, type MediaRecord, refusesUpload } from './media.js';
import { type OutboxEvent, outboxCodec } from './outbox/outbox.js';
import {
  blobCodec,
  deadCodec,
  jobCodec,
  journalCodec,
  mediaCodec,
  type Stamp,
  type StoredBlob,
  type StoredMedia,
  stampCodec,
  type Trashed,
  trashCodec,
  usageCodec,
} from './records.js';
import type { Usage } from './store.js';

export type KeyPart = string | number;
/** Keys sort part by part, numbers before strings. */
export type Key = KeyPart | readonly KeyPart[];

export const INDEX_NAMES = [
  /** [sha256, id]: every id that refers to a blob, live or not. */
  'by_blob',
  /** [sha256, 0 private | 1 public] -> id, of live ids. Changed records (find-sent.ts) have sentSha256 as third part. */
  'live',
  /** [sentSha256, id]: every changed record, live or not. */
  'sent',
  /** [owner's hash, id] */
  'by_owner',
  /** [expiresAt, id] of live ids. */
  'expiry',
  /** [usedAt, id] of live ids. */
  'idle',
  /** [when it ended, id] of tombstones. */
  'tombstone',
  /** [unreferencedAt, sha256] of blobs that may be swept. */
  'unreferenced',
  /** [since when, sha256] of blobs that await the scanner. */
  'held',
  /**
   * Of jobs that are not leased: [rank in JOB_ORDER, TURNS + turn or readyAt, queuedAt, sha256], and for those with a turn
   * also [owner, rank, LATEST - turn, sha256], by which the last turn of an owner is found.
   */
  'job_ready',
  /** [end of the lease, sha256] of leased jobs. */
  'job_lease',
  /** [diedAt, sha256] */
  'dead_order',
  /** [since when, key of the blob] of what is in the trash. */
  'trash_order',
  /** [media id, turn, name] of events that wait. */
  'hook_media',
  /** [readyAt, name] of events that wait. */
  'hook_ready',
  /** [since when, name] of events that wait. */
  'hook_since',
  /** [diedAt, name] of events that were given up. */
  'hook_dead',
] as const;
export type IndexName = (typeof INDEX_NAMES)[number];

export interface IndexEntry {
  readonly index: IndexName;
  readonly key: Key;
  /** The id in `live`, else empty. */
  readonly value: string;
}

export interface Table<K extends Key, V> {
  readonly name: string;
  readonly codec: Codec<V>;
  /** The key, for records that contain it. */
  keyOf?(value: V): K;
  indexes(value: V): readonly IndexEntry[];
}

/** A record of any table, for those that move whole stores. */
export type StoredRecord = { readonly table: Table<Key, unknown>; readonly key: Key; readonly value: unknown };

export interface Span {
  readonly start?: Key;
  /** Excludes `start` itself. */
  readonly afterStart?: boolean;
  /** The first key that is not in the span. */
  readonly end?: Key;
  readonly limit?: number;
  readonly reverse?: boolean;
}

export interface Reader {
  get(table: string, key: Key): Uint8Array | undefined;
  /** Reads as it is iterated. Do not write to the same table meanwhile: collect the keys first. */
  range(table: string, span: Span): Iterable<{ readonly key: Key; readonly value: Uint8Array }>;
  count(table: string): number;
}

export interface Writer extends Reader {
  put(table: string, key: Key, value: Uint8Array): void;
  remove(table: string, key: Key): void;
}

export const MEDIA: Table<MediaId, StoredMedia> = {
  name: 'media',
  codec: mediaCodec,
  keyOf: (value) => value.record.id,
  indexes: indexMedia,
};
export const BLOBS: Table<Sha256, StoredBlob> = {
  name: 'blob',
  codec: blobCodec,
  keyOf: (value) => value.blob.sha256,
  indexes: indexBlob,
};
export const JOBS: Table<Sha256, Job> = {
  name: 'job',
  codec: jobCodec,
  keyOf: (value) => value.sha256,
  indexes: indexJob,
};
export const DEAD: Table<Sha256, DeadJob> = {
  name: 'dead',
  codec: deadCodec,
  keyOf: (value) => value.sha256,
  indexes: indexDead,
};
export const JOURNAL: Table<number, JournalEntry> = {
  name: 'journal',
  codec: journalCodec,
  keyOf: (value) => value.seq,
  indexes: () => [],
};
export const TRASH: Table<BlobKey, Trashed> = {
  name: 'trash',
  codec: trashCodec,
  keyOf: (value) => value.key,
  indexes: ({ at, key }) => [entry('trash_order', [at, key])],
};
/** Events for the chat server, by name. */
export const OUTBOX: Table<string, OutboxEvent> = {
  name: 'hook',
  codec: outboxCodec,
  keyOf: (value) => value.name,
  indexes: indexEvent,
};
/** Keys are [periodStartAt, owner's hash]. */
export const USAGE: Table<readonly [EpochMs, string], Usage> = {
  name: 'usage',
  codec: usageCodec,
  indexes: () => [],
};
export const ABOUT: Table<'stamp', Stamp> = {
  name: 'about',
  codec: stampCodec,
  indexes: () => [],
};

/** Damaged records that fsck moved here, by their former table and key. */
export const LOST = 'lost';

/** Tables with indexes. */
export const INDEXED = [MEDIA, BLOBS, JOBS, DEAD, TRASH, OUTBOX] as const;
export const TABLE_NAMES: readonly string[] = [
  ...[...INDEXED, JOURNAL, USAGE, ABOUT].map((table) => table.name),
  ...INDEX_NAMES,
  LOST,
];

/** The rank of each priority in keys of `job_ready`. The highest priority sorts first. */
export const JOB_ORDER: Readonly<Record<JobPriority, number>> = { asked: 0, upload: 1, backfill: 2 };

/** What a turn is added to in keys of `job_ready`: below every instant, so that both sort in one index. */
export const TURNS = -(2 ** 40);
/** More than any turn: the latest turn of an owner sorts first. */
export const LATEST = 2 ** 40;

/** Throws DamagedRecord if there is a record that cannot be read. */
export function read<K extends Key, V>(reader: Reader, table: Table<K, V>, key: K): V | undefined {
  const bytes = reader.get(table.name, key);
  return bytes === undefined ? undefined : decode(table, key, bytes);
}

export function decode<V>(table: Table<Key, V>, key: Key, bytes: Uint8Array): V {
  try {
    return table.codec.decode(bytes);
  } catch (thrown) {
    throw new DamagedRecord(table.name, keyText(key), thrown instanceof Error ? thrown.message : String(thrown));
  }
}

/** Sets a record, or removes it if `value` is undefined, and updates its index entries. */
export function write<K extends Key, V>(writer: Writer, table: Table<K, V>, key: K, value: V | undefined): void {
  const before = read(writer, table, key);
  const after = value === undefined ? [] : table.indexes(value);
  if (before === undefined) for (const entry of after) putEntry(writer, entry);
  else changeEntries(writer, table.indexes(before), after);
  if (value === undefined) writer.remove(table.name, key);
  else writer.put(table.name, key, table.codec.encode(value));
}

function changeEntries(writer: Writer, before: readonly IndexEntry[], after: readonly IndexEntry[]): void {
  const wanted = new Set(after.map(entryText));
  for (const entry of before) if (!wanted.has(entryText(entry))) writer.remove(entry.index, entry.key);
  const present = new Set(before.map(entryText));
  for (const entry of after) if (!present.has(entryText(entry))) putEntry(writer, entry);
}

export function putEntry(writer: Writer, entry: IndexEntry): void {
  writer.put(entry.index, entry.key, Buffer.from(entry.value));
}

/** The value of an index entry as it was put. */
export function entryValue(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}

/** The ids or hashes that a span of an index points to: the last part of each key. */
export function* targets<T extends string>(reader: Reader, index: IndexName, span: Span): Iterable<T> {
  for (const { key } of reader.range(index, span)) yield lastPart(key) as T;
}

export function liveIdsOf(reader: Reader, sha256: Sha256): readonly MediaId[] {
  return [...reader.range('live', startingWith(sha256))].map(({ value }) => entryValue(value) as MediaId);
}

/** Every key that begins with these parts. */
export function startingWith(...parts: readonly KeyPart[]): Span {
  return { start: parts, end: [...parts, '\uffff'] };
}

/** Every key whose first part is an instant before this one. */
export function before(instant: EpochMs): Span {
  return { end: [instant] };
}

/** Every key whose first part is this instant or before it. */
export function until(instant: EpochMs): Span {
  return { end: [instant, '\uffff'] };
}

/** Owners are names from outside, of any length and with any characters, so keys contain their hash. */
export function ownerKey(owner: string): string {
  return hash('sha256', owner).slice(0, 32);
}

export function keyText(key: Key): string {
  return typeof key === 'object' ? key.join('/') : String(key);
}

export function entryText(entry: IndexEntry): string {
  return `${entry.index} ${keyText(entry.key)} ${entry.value}`;
}

function lastPart(key: Key): string {
  return String(typeof key === 'object' ? key.at(-1) : key);
}

function indexMedia({ record }: StoredMedia): readonly IndexEntry[] {
  const { id, sha256, sentSha256, owner, state, expiresAt, usedAt } = record;
  const entries: IndexEntry[] = [entry('by_blob', [sha256, id]), entry('by_owner', [ownerKey(owner), id])];
  if (sentSha256 !== sha256) entries.push(entry('sent', [sentSha256, id]));
  if (state.kind !== 'live') return [...entries, entry('tombstone', [state.at, id])];
  entries.push(entry('live', liveKey(record), id), entry('idle', [usedAt, id]));
  if (expiresAt !== null) entries.push(entry('expiry', [expiresAt, id]));
  return entries;
}

function liveKey({ sha256, sentSha256, public: isPublic }: MediaRecord): Key {
  const key = [sha256, isPublic ? 1 : 0] as const;
  return sentSha256 === sha256 ? key : [...key, sentSha256];
}

function indexBlob({ blob, unreferencedAt }: StoredBlob): readonly IndexEntry[] {
  // Bytes that an admin quarantined are kept: they may be restored, and are evidence.
  const sweepable = unreferencedAt !== null && !refusesUpload(blob);
  return [
    ...(sweepable ? [entry('unreferenced', [unreferencedAt, blob.sha256])] : []),
    ...(awaitsScan(blob) ? [entry('held', [blob.quarantine?.at ?? 0, blob.sha256])] : []),
  ];
}

function indexJob(job: Job): readonly IndexEntry[] {
  if (job.lease !== null) return [entry('job_lease', [job.lease.until, job.sha256])];
  const { priority, owner, turn, readyAt, queuedAt, sha256 } = job;
  const rank = JOB_ORDER[priority];
  if (turn === null) return [entry('job_ready', [rank, readyAt, queuedAt, sha256])];
  return [
    entry('job_ready', [rank, TURNS + turn, queuedAt, sha256]),
    entry('job_ready', [owner, rank, LATEST - turn, sha256]),
  ];
}

function indexDead(job: DeadJob): readonly IndexEntry[] {
  return [entry('dead_order', [job.diedAt, job.sha256])];
}

function indexEvent({ name, id, turn, readyAt, since, diedAt }: OutboxEvent): readonly IndexEntry[] {
  if (diedAt !== null) return [entry('hook_dead', [diedAt, name])];
  return [
    entry('hook_media', [id, turn, name]),
    entry('hook_ready', [readyAt, name]),
    entry('hook_since', [since, name]),
  ];
}

function entry(index: IndexName, key: Key, value = ''): IndexEntry {
  return { index, key, value };
}
