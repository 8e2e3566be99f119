/** The tables of PostgreSQL: the columns of each, and how a record becomes a row and a row a record. */
import type { EpochMs } from '../../../src/clock.js';
import type { JournalCause, JournalEntry } from '../../../src/journal/entry.js';
import type { BlobKey, Place } from '../../blobs/blob-store.js';
import { type DeadJob, JOB_PRIORITIES, type Job, type JobPriority } from '../jobs.js';
import type { MediaState, PictureFacts, Quarantine, QuarantineCause, ThumbState } from '../media.js';
import type { EventType, OutboxEvent } from '../outbox/outbox.js';
import type { StoredBlob, StoredMedia, Trashed } from '../records.js';
import type { Usage } from '../store.js';
import { BLOBS, DEAD, JOBS, JOURNAL, type Key, MEDIA, OUTBOX, ownerKey, type Table, TRASH, USAGE } from '../tables.js';
import { byteaOf, fromText, hashOf, idOf, textOf, uuidOf, whole } from './values.js';

export type Row = Readonly<Record<string, unknown>>;

export type RowTable<K extends Key = Key, V = unknown> = {
  readonly table: Table<K, V>;
  readonly name: string;
  /** Name and type of each column. The key's come first. */
  readonly columns: readonly (readonly [name: string, type: string])[];
  /** How many columns the key has. */
  readonly keyColumns: number;
  rowOf(key: K, value: V): Row;
  valueOf(row: Row): V;
  keyOf(row: Row): K;
  /** The columns of a key alone, for a delete. */
  keyRow(key: K): Row;
};

const number = (row: Row, column: string): number => row[column] as number;
const text = (row: Row, column: string): string => row[column] as string;
const nullableText = (row: Row, column: string): string | null => {
  const found = row[column] as string | null;
  return found === null ? null : fromText(found);
};

export const MEDIA_ROWS: RowTable<StoredMedia['record']['id'], StoredMedia> = {
  table: MEDIA,
  name: 'media',
  keyColumns: 1,
  columns: [
    ['id', 'uuid'],
    ['sha256', 'bytea'],
    ['sent_sha256', 'bytea'],
    ['public', 'boolean'],
    ['owner', 'text'],
    ['owner_key', 'text'],
    ['filename', 'text'],
    ['created_at', 'bigint'],
    ['expires_at', 'bigint'],
    ['used_at', 'bigint'],
    ['ended', 'text'],
    ['ended_at', 'bigint'],
    ['ended_by', 'text'],
    ['ended_seq', 'bigint'],
  ],
  keyRow: (id) => ({ id: uuidOf(id) }),
  rowOf: (id, { record, endedSeq }) => ({
    id: uuidOf(id),
    sha256: byteaOf(record.sha256),
    sent_sha256: byteaOf(record.sentSha256),
    public: record.public,
    owner: textOf(record.owner),
    owner_key: ownerKey(record.owner),
    filename: record.filename === null ? null : textOf(record.filename),
    created_at: whole(record.createdAt),
    expires_at: record.expiresAt === null ? null : whole(record.expiresAt),
    used_at: whole(record.usedAt),
    ended: record.state.kind === 'live' ? null : record.state.kind,
    ended_at: record.state.kind === 'live' ? null : whole(record.state.at),
    ended_by: record.state.kind === 'deleted' ? textOf(record.state.by) : null,
    ended_seq: endedSeq,
  }),
  keyOf: (row) => idOf(text(row, 'id')),
  valueOf: (row) => ({
    record: {
      id: idOf(text(row, 'id')),
      sha256: hashOf(text(row, 'sha256')),
      sentSha256: hashOf(text(row, 'sent_sha256')),
      public: row['public'] as boolean,
      owner: fromText(text(row, 'owner')),
      filename: nullableText(row, 'filename'),
      createdAt: number(row, 'created_at'),
      expiresAt: row['expires_at'] as EpochMs | null,
      usedAt: number(row, 'used_at'),
      state: stateOf(row),
    },
    endedSeq: number(row, 'ended_seq'),
  }),
};

function stateOf(row: Row): MediaState {
  const at = number(row, 'ended_at');
  switch (row['ended'] as 'deleted' | 'expired' | null) {
    case null:
      return { kind: 'live' };
    case 'deleted':
      return { kind: 'deleted', at, by: nullableText(row, 'ended_by') ?? '' };
    case 'expired':
      return { kind: 'expired', at };
  }
}

export const BLOB_ROWS: RowTable<StoredBlob['blob']['sha256'], StoredBlob> = {
  table: BLOBS,
  name: 'blob',
  keyColumns: 1,
  columns: [
    ['sha256', 'bytea'],
    ['place', 'text'],
    ['size', 'bigint'],
    ['mime', 'text'],
    ['stored_at', 'bigint'],
    ['picture', 'jsonb'],
    ['thumbs', 'jsonb'],
    ['mark_cause', 'text'],
    ['mark_at', 'bigint'],
    ['mark_by', 'text'],
    ['mark_reason', 'text'],
    ['mark_seq', 'bigint'],
    ['free_since', 'bigint'],
  ],
  keyRow: (sha256) => ({ sha256: byteaOf(sha256) }),
  rowOf: (sha256, { blob, unreferencedAt, markSeq }) => ({
    sha256: byteaOf(sha256),
    place: blob.place,
    size: blob.sizeBytes,
    mime: textOf(blob.mime),
    stored_at: whole(blob.storedAt),
    picture: blob.picture,
    thumbs: blob.thumbs,
    mark_cause: blob.quarantine?.cause ?? null,
    mark_at: blob.quarantine === null ? null : whole(blob.quarantine.at),
    mark_by: blob.quarantine === null ? null : textOf(blob.quarantine.by),
    mark_reason: blob.quarantine === null || blob.quarantine.reason === null ? null : textOf(blob.quarantine.reason),
    mark_seq: markSeq,
    free_since: unreferencedAt === null ? null : whole(unreferencedAt),
  }),
  keyOf: (row) => hashOf(text(row, 'sha256')),
  valueOf: (row) => ({
    blob: {
      sha256: hashOf(text(row, 'sha256')),
      place: text(row, 'place') as Place,
      sizeBytes: number(row, 'size'),
      mime: fromText(text(row, 'mime')),
      storedAt: number(row, 'stored_at'),
      picture: row['picture'] as PictureFacts,
      thumbs: row['thumbs'] as ThumbState,
      quarantine: quarantineOf(row),
    },
    unreferencedAt: row['free_since'] as EpochMs | null,
    markSeq: number(row, 'mark_seq'),
  }),
};

function quarantineOf(row: Row): Quarantine | null {
  const cause = row['mark_cause'] as QuarantineCause | null;
  if (cause === null) return null;
  return {
    at: number(row, 'mark_at'),
    by: nullableText(row, 'mark_by') ?? '',
    reason: nullableText(row, 'mark_reason'),
    cause,
  };
}

const PRIORITY_NAMES = Object.keys(JOB_PRIORITIES) as readonly JobPriority[];

export const JOB_ROWS: RowTable<Job['sha256'], Job> = {
  table: JOBS,
  name: 'job',
  keyColumns: 1,
  columns: [
    ['sha256', 'bytea'],
    ['rank', 'smallint'],
    ['owner', 'text'],
    ['turn', 'bigint'],
    ['queued_at', 'bigint'],
    ['ready_at', 'bigint'],
    ['attempts', 'integer'],
    ['holder', 'text'],
    ['lease_until', 'bigint'],
  ],
  keyRow: (sha256) => ({ sha256: byteaOf(sha256) }),
  rowOf: (sha256, job) => ({
    sha256: byteaOf(sha256),
    rank: JOB_PRIORITIES[job.priority],
    owner: job.owner,
    turn: job.turn,
    queued_at: whole(job.queuedAt),
    ready_at: whole(job.readyAt),
    attempts: job.attempts,
    holder: job.lease?.holder ?? null,
    lease_until: job.lease === null ? null : whole(job.lease.until),
  }),
  keyOf: (row) => hashOf(text(row, 'sha256')),
  valueOf: (row) => ({
    sha256: hashOf(text(row, 'sha256')),
    priority: PRIORITY_NAMES[number(row, 'rank')] ?? 'backfill',
    owner: text(row, 'owner'),
    turn: row['turn'] as number | null,
    queuedAt: number(row, 'queued_at'),
    readyAt: number(row, 'ready_at'),
    attempts: number(row, 'attempts'),
    lease: row['holder'] === null ? null : { holder: text(row, 'holder'), until: number(row, 'lease_until') },
  }),
};

export const DEAD_ROWS: RowTable<DeadJob['sha256'], DeadJob> = {
  table: DEAD,
  name: 'dead',
  keyColumns: 1,
  columns: [
    ['sha256', 'bytea'],
    ['attempts', 'integer'],
    ['died_at', 'bigint'],
    ['reason', 'text'],
  ],
  keyRow: (sha256) => ({ sha256: byteaOf(sha256) }),
  rowOf: (sha256, { attempts, diedAt, reason }) => ({
    sha256: byteaOf(sha256),
    attempts,
    died_at: whole(diedAt),
    reason: textOf(reason),
  }),
  keyOf: (row) => hashOf(text(row, 'sha256')),
  valueOf: (row) => ({
    sha256: hashOf(text(row, 'sha256')),
    attempts: number(row, 'attempts'),
    diedAt: number(row, 'died_at'),
    reason: fromText(text(row, 'reason')),
  }),
};

export const JOURNAL_ROWS: RowTable<number, JournalEntry> = {
  table: JOURNAL,
  name: 'journal',
  keyColumns: 1,
  columns: [
    ['seq', 'bigint'],
    ['mark', 'text'],
    ['at', 'bigint'],
    ['cause', 'text'],
    ['ids', 'uuid[]'],
  ],
  keyRow: (seq) => ({ seq }),
  rowOf: (seq, { mark, at, cause, ids }) => ({ seq, mark, at: whole(at), cause, ids: ids.map(uuidOf) }),
  keyOf: (row) => number(row, 'seq'),
  valueOf: (row) => ({
    seq: number(row, 'seq'),
    mark: row['mark'] as string | null,
    at: number(row, 'at'),
    cause: row['cause'] as JournalCause,
    ids: (row['ids'] as readonly string[]).map(idOf),
  }),
};

export const USAGE_ROWS: RowTable<readonly [EpochMs, string], Usage> = {
  table: USAGE,
  name: 'usage',
  keyColumns: 2,
  columns: [
    ['period_at', 'bigint'],
    ['owner_key', 'text'],
    ['bytes', 'bigint'],
    ['files', 'bigint'],
  ],
  keyRow: ([periodAt, owner]) => ({ period_at: periodAt, owner_key: owner }),
  rowOf: ([periodAt, owner], { bytes, files }) => ({ period_at: periodAt, owner_key: owner, bytes, files }),
  keyOf: (row) => [number(row, 'period_at'), text(row, 'owner_key')],
  valueOf: (row) => ({ bytes: number(row, 'bytes'), files: number(row, 'files') }),
};

export const TRASH_ROWS: RowTable<BlobKey, Trashed> = {
  table: TRASH,
  name: 'trash',
  keyColumns: 1,
  columns: [
    ['key', 'text'],
    ['at', 'bigint'],
  ],
  keyRow: (key) => ({ key }),
  rowOf: (key, { at }) => ({ key, at: whole(at) }),
  keyOf: (row) => text(row, 'key') as BlobKey,
  valueOf: (row) => ({ key: text(row, 'key') as BlobKey, at: number(row, 'at') }),
};

export const OUTBOX_ROWS: RowTable<string, OutboxEvent> = {
  table: OUTBOX,
  name: 'hook',
  keyColumns: 1,
  columns: [
    ['name', 'text'],
    ['n', 'bigint'],
    ['type', 'text'],
    ['at', 'bigint'],
    ['media', 'uuid'],
    ['data', 'text'],
    ['since', 'bigint'],
    ['ready_at', 'bigint'],
    ['attempts', 'integer'],
    ['fault', 'text'],
    ['died_at', 'bigint'],
  ],
  keyRow: (name) => ({ name }),
  rowOf: (name, event) => ({
    name,
    n: event.turn,
    type: event.type,
    at: whole(event.at),
    media: uuidOf(event.id),
    data: textOf(event.data),
    since: whole(event.since),
    ready_at: whole(event.readyAt),
    attempts: event.attempts,
    fault: event.fault === null ? null : textOf(event.fault),
    died_at: event.diedAt === null ? null : whole(event.diedAt),
  }),
  keyOf: (row) => text(row, 'name'),
  valueOf: (row) => ({
    name: text(row, 'name'),
    turn: number(row, 'n'),
    type: row['type'] as EventType,
    at: number(row, 'at'),
    id: idOf(text(row, 'media')),
    data: fromText(text(row, 'data')),
    since: number(row, 'since'),
    readyAt: number(row, 'ready_at'),
    attempts: number(row, 'attempts'),
    fault: nullableText(row, 'fault'),
    diedAt: row['died_at'] as EpochMs | null,
  }),
};

/** In the order in which changes are written. */
export const ROW_TABLES: readonly RowTable[] = [
  BLOB_ROWS,
  MEDIA_ROWS,
  JOB_ROWS,
  DEAD_ROWS,
  TRASH_ROWS,
  USAGE_ROWS,
  JOURNAL_ROWS,
  OUTBOX_ROWS,
];
