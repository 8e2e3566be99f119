/**
 * The tables of the store and the indexes beside them. An index entry follows
 * from its record alone (`indexes`), and records are written here alone
 * (`write`), so that record and indexes cannot disagree; fsck derives them anew
 * and compares.
 *
 * Reads and writes are synchronous calls inside one transaction or snapshot,
 * which whoever implements Reader and Writer provides.
 */
import { hash } from 'node:crypto';
import type { EpochMs } from '../../src/clock.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import type { JournalEntry } from '../../src/journal/entry.js';
import { type Codec, DamagedRecord } from './codec.js';
import type { DeadJob, Job, JobPriority } from './jobs.js';
import type { MediaRecord } from './media.js';
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
  usageCodec,
} from './records.js';
import type { Usage } from './store.js';

export type KeyPart = string | number;
/** Sorts part by part, numbers before texts. */
export type Key = KeyPart | readonly KeyPart[];

export const INDEX_NAMES = [
  /** [sha256, id]: every id over a blob, live or not. */
  'by_blob',
  /**
   * [sha256, 0 | 1] -> id: the live id over a blob, private and public, where the blob is what was sent. Each other one
   * has the hash of what was sent as a third part.
   */
  'live',
  /** [sentSha256, id]: every id, live or not, whose blob is not what was sent. */
  'sent',
  /** [owner's hash, id] */
  'by_owner',
  /** [expiresAt, id] of live ids. */
  'expiry',
  /** [usedAt, id] of live ids. */
  'idle',
  /** [instant of its end, id] of ids that are gone. */
  'tombstone',
  /** [unreferencedAt, sha256] of blobs that may be swept. */
  'unreferenced',
  /** [since when, sha256] of blobs that wait for the scanner. */
  'held',
  /** [place in JOB_ORDER, readyAt, queuedAt, sha256] of jobs nobody holds. */
  'job_ready',
  /** [until, sha256] of jobs that somebody holds. */
  'job_lease',
  /** [diedAt, sha256] */
  'dead_order',
] as const;
export type IndexName = (typeof INDEX_NAMES)[number];

export interface IndexEntry {
  readonly index: IndexName;
  readonly key: Key;
  /** Empty but for `live`. */
  readonly value: string;
}

export interface Table<K extends Key, V> {
  readonly name: string;
  readonly codec: Codec<V>;
  /** The key that a record itself tells, where it does. */
  keyOf?(value: V): K;
  indexes(value: V): readonly IndexEntry[];
}

export interface Span {
  readonly start?: Key;
  /** Without the start itself. */
  readonly afterStart?: boolean;
  /** The first key no longer in it. */
  readonly end?: Key;
  readonly limit?: number;
  readonly reverse?: boolean;
}

export interface Reader {
  get(table: string, key: Key): Uint8Array | undefined;
  /** Reads on demand. Must not be used while the same table is written: collect first. */
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
/** By [periodStartAt, owner's hash]. */
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

/** What fsck set aside, by the table and key it had. */
export const LOST = 'lost';

/** Tables whose records have indexes, for checking. */
export const INDEXED = [MEDIA, BLOBS, JOBS, DEAD] as const;
export const TABLE_NAMES: readonly string[] = [
  ...[MEDIA, BLOBS, JOBS, DEAD, JOURNAL, USAGE, ABOUT].map((table) => table.name),
  ...INDEX_NAMES,
  LOST,
];

/** Keys sort upwards, so the best comes first. */
export const JOB_ORDER: Readonly<Record<JobPriority, number>> = { asked: 0, upload: 1, backfill: 2 };

const NOTHING = Buffer.alloc(0);

/** Throws DamagedRecord where what lies there cannot be read. */
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

/** Sets a record, or takes it away with undefined; its index entries follow. */
export function write<K extends Key, V>(writer: Writer, table: Table<K, V>, key: K, value: V | undefined): void {
  const before = read(writer, table, key);
  const has = value === undefined ? [] : table.indexes(value);
  if (before === undefined) for (const entry of has) putEntry(writer, entry);
  else changeEntries(writer, table.indexes(before), has);
  if (value === undefined) writer.remove(table.name, key);
  else writer.put(table.name, key, table.codec.encode(value));
}

function changeEntries(writer: Writer, had: readonly IndexEntry[], has: readonly IndexEntry[]): void {
  const kept = new Set(has.map(entryText));
  for (const entry of had) if (!kept.has(entryText(entry))) writer.remove(entry.index, entry.key);
  const stood = new Set(had.map(entryText));
  for (const entry of has) if (!stood.has(entryText(entry))) putEntry(writer, entry);
}

export function putEntry(writer: Writer, entry: IndexEntry): void {
  writer.put(entry.index, entry.key, entry.value === '' ? NOTHING : Buffer.from(entry.value));
}

/** The last part of each key in a span of an index: the id or hash that it leads to. */
export function* targets<T extends string>(reader: Reader, index: IndexName, span: Span): Iterable<T> {
  for (const { key } of reader.range(index, span)) yield lastPart(key) as T;
}

/** Every key that begins with these parts. */
export function under(...parts: readonly KeyPart[]): Span {
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

/** Owners come from outside: of any length, with any character. */
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

export function liveKey({ sha256, sentSha256, public: isPublic }: MediaRecord): Key {
  const key = [sha256, isPublic ? 1 : 0] as const;
  return sentSha256 === sha256 ? key : [...key, sentSha256];
}

function indexBlob({ blob, unreferencedAt }: StoredBlob): readonly IndexEntry[] {
  // Bytes that an admin withholds stay: they may be restored, and are evidence.
  const sweepable = unreferencedAt !== null && blob.quarantine?.cause !== 'admin';
  return [
    ...(sweepable ? [entry('unreferenced', [unreferencedAt, blob.sha256])] : []),
    ...(blob.quarantine?.cause === 'held' ? [entry('held', [blob.quarantine.at, blob.sha256])] : []),
  ];
}

function indexJob(job: Job): readonly IndexEntry[] {
  if (job.lease !== null) return [entry('job_lease', [job.lease.until, job.sha256])];
  return [entry('job_ready', [JOB_ORDER[job.priority], job.readyAt, job.queuedAt, job.sha256])];
}

function indexDead(job: DeadJob): readonly IndexEntry[] {
  return [entry('dead_order', [job.diedAt, job.sha256])];
}

function entry(index: IndexName, key: Key, value = ''): IndexEntry {
  return { index, key, value };
}
