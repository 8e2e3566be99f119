/**
 * What lies in the tables: the records of media.ts and jobs.ts together with
 * what only the store needs to know of them, and how each is read back.
 */
import type { EpochMs } from '../../src/clock.js';
import { parseMediaId } from '../../src/ids.js';
import { JOURNAL_CAUSES, type JournalEntry } from '../../src/journal/entry.js';
import { createCodec, type Fields } from './codec.js';
import type { DeadJob, Job, JobPriority } from './jobs.js';
import { type BlobRecord, type MediaRecord, type MediaState, THUMB_REFUSALS, type ThumbState } from './media.js';
import type { Usage } from './store.js';

export interface StoredMedia {
  readonly record: MediaRecord;
  /** The journal entry that ended it, 0 while it lives. */
  readonly endedSeq: number;
}

export interface StoredBlob {
  readonly blob: BlobRecord;
  /** Since when no live id holds it; null while one does. */
  readonly unreferencedAt: EpochMs | null;
  /** The latest journal entry of a quarantine or restore, 0 where there was none. */
  readonly markSeq: number;
}

/** Stands once in every database. Its shape must stay readable for ever, so that an older release can refuse by name. */
export interface Stamp {
  /** Layout of the database as a whole: its tables and keys. */
  readonly format: number;
  readonly journal: string;
  readonly madeAt: EpochMs;
}

const PRIORITIES = ['backfill', 'upload', 'asked'] as const satisfies readonly JobPriority[];
const FORMATS = ['webp', 'jpeg', 'png', 'avif'] as const;

export const mediaCodec = createCodec<StoredMedia>({
  1: (fields) => ({ record: fields.object('record', readMedia), endedSeq: fields.count('endedSeq') }),
});

export const blobCodec = createCodec<StoredBlob>({
  1: (fields) => ({
    blob: fields.object('blob', readBlob),
    unreferencedAt: fields.nullable('unreferencedAt', fields.number),
    markSeq: fields.count('markSeq'),
  }),
});

export const jobCodec = createCodec<Job>({
  1: (fields) => ({
    sha256: fields.sha256('sha256'),
    priority: fields.choice('priority', PRIORITIES),
    queuedAt: fields.number('queuedAt'),
    readyAt: fields.number('readyAt'),
    attempts: fields.count('attempts'),
    lease: fields.nullable('lease', (name) =>
      fields.object(name, (lease) => ({ holder: lease.text('holder'), until: lease.number('until') })),
    ),
  }),
});

export const deadCodec = createCodec<DeadJob>({
  1: (fields) => ({
    sha256: fields.sha256('sha256'),
    attempts: fields.count('attempts'),
    diedAt: fields.number('diedAt'),
    reason: fields.text('reason'),
  }),
});

export const journalCodec = createCodec<JournalEntry>({
  1: (fields) => ({
    seq: fields.count('seq'),
    at: fields.number('at'),
    cause: fields.choice('cause', JOURNAL_CAUSES),
    ids: fields.texts('ids').map((id) => {
      const parsed = parseMediaId(id);
      if (parsed === undefined) throw new Error('`ids` holds what is no media id');
      return parsed;
    }),
  }),
});

export const usageCodec = createCodec<Usage>({
  1: (fields) => ({ bytes: fields.count('bytes'), files: fields.count('files') }),
});

export const stampCodec = createCodec<Stamp>({
  1: (fields) => ({
    format: fields.count('format'),
    journal: fields.text('journal'),
    madeAt: fields.number('madeAt'),
  }),
});

function readMedia(fields: Fields): MediaRecord {
  return {
    id: fields.mediaId('id'),
    sha256: fields.sha256('sha256'),
    public: fields.flag('public'),
    owner: fields.text('owner'),
    filename: fields.nullable('filename', fields.text),
    createdAt: fields.number('createdAt'),
    expiresAt: fields.nullable('expiresAt', fields.number),
    usedAt: fields.number('usedAt'),
    state: fields.object('state', readState),
  };
}

function readState(fields: Fields): MediaState {
  const kind = fields.choice('kind', ['live', 'deleted', 'expired']);
  switch (kind) {
    case 'live':
      return { kind };
    case 'deleted':
      return { kind, at: fields.number('at'), by: fields.text('by') };
    case 'expired':
      return { kind, at: fields.number('at') };
  }
}

function readBlob(fields: Fields): BlobRecord {
  return {
    sha256: fields.sha256('sha256'),
    sizeBytes: fields.count('sizeBytes'),
    mime: fields.text('mime'),
    storedAt: fields.number('storedAt'),
    picture: fields.object('picture', (picture) => ({
      width: picture.nullable('width', picture.count),
      height: picture.nullable('height', picture.count),
      durationMs: picture.nullable('durationMs', picture.number),
      frames: picture.nullable('frames', picture.count),
      orientation: picture.nullable('orientation', picture.count),
      thumbhash: picture.nullable('thumbhash', picture.text),
    })),
    thumbs: fields.object('thumbs', readThumbs),
    quarantine: fields.nullable('quarantine', (name) =>
      fields.object(name, (mark) => ({
        at: mark.number('at'),
        by: mark.text('by'),
        reason: mark.nullable('reason', mark.text),
        cause: mark.choice('cause', ['admin', 'rot']),
      })),
    ),
  };
}

function readThumbs(fields: Fields): ThumbState {
  const kind = fields.choice('kind', ['pending', 'ready', 'none']);
  switch (kind) {
    case 'pending':
      return { kind };
    case 'none':
      return { kind, reason: fields.choice('reason', THUMB_REFUSALS) };
    case 'ready':
      return {
        kind,
        made: fields.objects('made', (made) => ({
          variant: made.text('variant'),
          format: made.choice('format', FORMATS),
          sha256: made.sha256('sha256'),
          sizeBytes: made.count('sizeBytes'),
          width: made.count('width'),
          height: made.count('height'),
          animated: made.flag('animated'),
        })),
      };
  }
}
