/**
 * The records as stored: those of media.ts and jobs.ts with what only the store
 * needs, and the codec of each.
 */
import { createHash } from 'node:crypto';
import type { EpochMs } from '../../src/clock.js';
import { JOURNAL_CAUSES, type JournalEntry } from '../../src/journal/entry.js';
import { type BlobKey, NO_PLACE, type Place } from '../blobs/blob-store.js';
import {
  blobKey,
  choice,
  count,
  createCodec,
  type Fields,
  flag,
  listOf,
  mediaId,
  nullable,
  number,
  object,
  place,
  type Read,
  sha256,
  text,
} from './codec.js';
import { type DeadJob, type Job, type JobPriority, OWN_JOBS } from './jobs.js';
import {
  type BlobRecord,
  type MediaRecord,
  type MediaState,
  type PictureFacts,
  QUARANTINE_CAUSES,
  type Quarantine,
  THUMB_REFUSALS,
  type ThumbMade,
  type ThumbState,
} from './media.js';
import type { Usage } from './store.js';

export interface StoredMedia {
  readonly record: MediaRecord;
  /** The number of the journal entry that ended it, 0 while it is live. */
  readonly endedSeq: number;
}

export interface StoredBlob {
  readonly blob: BlobRecord;
  /** Since when no live id refers to it; null while one does. */
  readonly unreferencedAt: EpochMs | null;
  /** The number of the latest journal entry of a quarantine or restore, 0 if there is none. */
  readonly markSeq: number;
}

/** A key that no record names any more. Its bytes are to be removed. */
export interface Trashed {
  readonly key: BlobKey;
  readonly at: EpochMs;
}

/** One record in every database. Its shape must never change, so that an older release can refuse a newer database. */
export interface Stamp {
  /** The version of the layout: which tables there are and how their keys are made. */
  readonly format: number;
  readonly journal: string;
  readonly madeAt: EpochMs;
}

const PRIORITIES = ['backfill', 'upload', 'asked'] as const satisfies readonly JobPriority[];
const FORMATS = ['webp', 'jpeg', 'png', 'avif'] as const;

export const mediaCodec = createCodec<StoredMedia>({
  /** Version 1 has no `sentSha256`: what was stored is what was sent. */
  1: (fields) => ({
    record: fields.take(
      'record',
      object((record) => readMedia(record, 'sha256')),
    ),
    endedSeq: fields.take('endedSeq', count),
  }),
  2: (fields) => ({
    record: fields.take(
      'record',
      object((record) => readMedia(record, 'sentSha256')),
    ),
    endedSeq: fields.take('endedSeq', count),
  }),
});

export const blobCodec = createCodec<StoredBlob>({
  /** Version 1 has no places. */
  1: (fields) => readStoredBlob(fields, () => NO_PLACE),
  2: (fields) => readStoredBlob(fields, place),
});

export const trashCodec = createCodec<Trashed>({
  1: (fields) => ({ key: fields.take('key', blobKey), at: fields.take('at', number) }),
});

export const jobCodec = createCodec<Job>({
  /** Version 1 has neither owners nor turns. */
  1: (fields) => ({ ...readJob(fields), owner: OWN_JOBS, turn: null }),
  2: (fields) => ({
    ...readJob(fields),
    owner: fields.take('owner', text),
    turn: fields.take('turn', nullable(count)),
  }),
});

export const deadCodec = createCodec<DeadJob>({
  1: (fields) => ({
    sha256: fields.take('sha256', sha256),
    attempts: fields.take('attempts', count),
    diedAt: fields.take('diedAt', number),
    reason: fields.take('reason', text),
  }),
});

export const journalCodec = createCodec<JournalEntry>({
  /** Version 1 has no mark: one is made of what the entry says, the same at every reading. */
  1: (fields) => {
    const entry = readEntry(fields);
    return { ...entry, mark: createHash('sha256').update(JSON.stringify(entry)).digest('hex').slice(0, 32) };
  },
  2: (fields) => ({ ...readEntry(fields), mark: fields.take('mark', text) }),
});

export const usageCodec = createCodec<Usage>({
  1: (fields) => ({ bytes: fields.take('bytes', count), files: fields.take('files', count) }),
});

export const stampCodec = createCodec<Stamp>({
  1: (fields) => ({
    format: fields.take('format', count),
    journal: fields.take('journal', text),
    madeAt: fields.take('madeAt', number),
  }),
});

function readJob(fields: Fields): Omit<Job, 'owner' | 'turn'> {
  return {
    sha256: fields.take('sha256', sha256),
    priority: fields.take('priority', choice(PRIORITIES)),
    queuedAt: fields.take('queuedAt', number),
    readyAt: fields.take('readyAt', number),
    attempts: fields.take('attempts', count),
    lease: fields.take('lease', nullable(object(readLease))),
  };
}

function readEntry(fields: Fields): Omit<JournalEntry, 'mark'> {
  return {
    seq: fields.take('seq', count),
    at: fields.take('at', number),
    cause: fields.take('cause', choice(JOURNAL_CAUSES)),
    ids: fields.take('ids', listOf(mediaId)),
  };
}

function readMedia(fields: Fields, sentName: 'sha256' | 'sentSha256'): MediaRecord {
  return {
    id: fields.take('id', mediaId),
    sha256: fields.take('sha256', sha256),
    sentSha256: fields.take(sentName, sha256),
    public: fields.take('public', flag),
    owner: fields.take('owner', text),
    filename: fields.take('filename', nullable(text)),
    createdAt: fields.take('createdAt', number),
    expiresAt: fields.take('expiresAt', nullable(number)),
    usedAt: fields.take('usedAt', number),
    state: fields.take('state', object(readState)),
  };
}

function readState(fields: Fields): MediaState {
  const kind = fields.take('kind', choice(['live', 'deleted', 'expired']));
  switch (kind) {
    case 'live':
      return { kind };
    case 'deleted':
      return { kind, at: fields.take('at', number), by: fields.take('by', text) };
    case 'expired':
      return { kind, at: fields.take('at', number) };
  }
}

function readStoredBlob(fields: Fields, readPlace: Read<Place>): StoredBlob {
  return {
    blob: fields.take(
      'blob',
      object((blob) => readBlob(blob, readPlace)),
    ),
    unreferencedAt: fields.take('unreferencedAt', nullable(number)),
    markSeq: fields.take('markSeq', count),
  };
}

function readBlob(fields: Fields, readPlace: Read<Place>): BlobRecord {
  return {
    sha256: fields.take('sha256', sha256),
    place: fields.take('place', readPlace),
    sizeBytes: fields.take('sizeBytes', count),
    mime: fields.take('mime', text),
    storedAt: fields.take('storedAt', number),
    picture: fields.take('picture', object(readPicture)),
    thumbs: fields.take(
      'thumbs',
      object((thumbs) => readThumbs(thumbs, readPlace)),
    ),
    quarantine: fields.take('quarantine', nullable(object(readQuarantine))),
  };
}

function readPicture(fields: Fields): PictureFacts {
  return {
    width: fields.take('width', nullable(count)),
    height: fields.take('height', nullable(count)),
    durationMs: fields.take('durationMs', nullable(number)),
    frames: fields.take('frames', nullable(count)),
    orientation: fields.take('orientation', nullable(count)),
    thumbhash: fields.take('thumbhash', nullable(text)),
  };
}

function readThumbs(fields: Fields, readPlace: Read<Place>): ThumbState {
  const kind = fields.take('kind', choice(['pending', 'ready', 'none']));
  switch (kind) {
    case 'pending':
      return { kind };
    case 'none':
      return { kind, reason: fields.take('reason', choice(THUMB_REFUSALS)) };
    case 'ready':
      return { kind, made: fields.take('made', listOf(object((made) => readMade(made, readPlace)))) };
  }
}

function readMade(fields: Fields, readPlace: Read<Place>): ThumbMade {
  return {
    variant: fields.take('variant', text),
    format: fields.take('format', choice(FORMATS)),
    sha256: fields.take('sha256', sha256),
    place: fields.take('place', readPlace),
    sizeBytes: fields.take('sizeBytes', count),
    width: fields.take('width', count),
    height: fields.take('height', count),
    animated: fields.take('animated', flag),
  };
}

function readQuarantine(fields: Fields): Quarantine {
  return {
    at: fields.take('at', number),
    by: fields.take('by', text),
    reason: fields.take('reason', nullable(text)),
    cause: fields.take('cause', choice(QUARANTINE_CAUSES)),
  };
}

function readLease(fields: Fields): NonNullable<Job['lease']> {
  return { holder: fields.take('holder', text), until: fields.take('until', number) };
}
