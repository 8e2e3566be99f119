/**
 * The transaction of an upload. It decides on quarantine, duplicate and quota,
 * whatever was found before it began; then record, indexes, job, usage and journal
 * change together. find-sent.ts has an example of uploads whose stored bytes differ
 * from the sent ones.
 */
import type { EpochMs } from '../../src/clock.js';
import type { Change } from './database.js';
import { findBlobBySent, findLive, listChanged } from './find-sent.js';
import { awaitsScan, type BlobRecord, type MediaRecord, refusesUpload } from './media.js';
import { queueJob } from './queue.js';
import type { StoredBlob, StoredMedia } from './records.js';
import type { CommitOutcome, NewMedia, Usage } from './store.js';
import { BLOBS, JOBS, MEDIA, ownerKey, type Reader, read, USAGE, write } from './tables.js';
import { expireOne, hasExpired, liftMark, quarantine, updateReference } from './takedown.js';

const NO_USAGE: Usage = { bytes: 0, files: 0 };

export function commitUpload(change: Change, upload: NewMedia): CommitOutcome {
  const { sha256, quarantine: mark } = upload;
  const before = read(change.writer, BLOBS, sha256)?.blob;
  const outcome = recordUpload(change, upload);
  const recorded = outcome.kind === 'created' || outcome.kind === 'duplicate';
  if (!recorded || mark === undefined) return outcome;
  if (mark.cause !== 'held') {
    quarantine(change, sha256, mark);
    return { kind: 'quarantined' };
  }
  const { media } = outcome;
  // Bytes that are visible already are not withheld again.
  const visible = before !== undefined && before.quarantine === null;
  if (media.blob.sha256 !== sha256 || media.blob.quarantine !== null || visible) return outcome;
  quarantine(change, sha256, mark);
  return { ...outcome, media: { ...media, blob: { ...media.blob, quarantine: mark } } };
}

function recordUpload(change: Change, upload: NewMedia): CommitOutcome {
  const { writer } = change;
  const { sha256, sentSha256 = sha256, now } = upload;
  const changed = listChanged(writer, sentSha256);
  const existing = findLive(writer, sentSha256, upload.public, changed);
  const expired = existing !== undefined && hasExpired(existing.record, now);
  if (expired) expireOne(change, existing, now);

  const stored = read(writer, BLOBS, sha256);
  const refused = [stored?.blob, findBlobBySent(writer, sentSha256, changed)].some(
    (blob) => blob !== undefined && refusesUpload(blob),
  );
  if (refused) return { kind: 'quarantined' };
  if (existing !== undefined && !expired) {
    const record = prolong(change, existing, upload);
    // The existing record may refer to another stored form. The blob of this upload is then left to the sweep.
    const other = record.sha256 === sha256 ? undefined : read(writer, BLOBS, record.sha256)?.blob;
    return { kind: 'duplicate', media: { record, blob: other ?? keepBlob(change, upload, stored) } };
  }
  if (!countUsage(change, upload, stored === undefined)) return { kind: 'over_quota' };
  const record = newRecord(upload);
  write(writer, MEDIA, record.id, { record, endedSeq: 0 });
  return { kind: 'created', media: { record, blob: keepBlob(change, upload, stored) } };
}

/** Records a blob whose record was lost. False if it has a record. */
export function recordBlob(change: Change, blob: BlobRecord, now: EpochMs): boolean {
  if (read(change.writer, BLOBS, blob.sha256) !== undefined) return false;
  write(change.writer, BLOBS, blob.sha256, { blob, unreferencedAt: null, markSeq: 0 });
  if (blob.thumbs.kind === 'pending') queueJob(change, blob.sha256, 'backfill', now);
  updateReference(change, blob.sha256, now);
  return true;
}

export function readUsage(reader: Reader, owner: string, periodStartAt: EpochMs): Usage {
  return read(reader, USAGE, [periodStartAt, ownerKey(owner)]) ?? NO_USAGE;
}

/** Sets the later of both expiries; an expiry of null (never) is later than any instant. */
function prolong(change: Change, existing: StoredMedia, upload: NewMedia): MediaRecord {
  const { record } = existing;
  const expiresAt =
    record.expiresAt === null || upload.expiresAt === null ? null : Math.max(record.expiresAt, upload.expiresAt);
  const prolonged = { ...record, expiresAt, usedAt: Math.max(record.usedAt, upload.now) };
  write(change.writer, MEDIA, record.id, { ...existing, record: prolonged });
  return prolonged;
}

/** Records the blob of an upload: creates its record, or lifts a mark from the existing one; queues a missing job. */
function keepBlob(change: Change, upload: NewMedia, stored: StoredBlob | undefined): BlobRecord {
  const { sha256, now } = upload;
  if (stored === undefined) {
    write(change.writer, BLOBS, sha256, { blob: newBlob(upload), unreferencedAt: null, markSeq: 0 });
  } else {
    if (lifts(upload, stored.blob)) liftMark(change, stored, now);
    updateReference(change, sha256, now);
  }
  const blob =
    stored === undefined
      ? newBlob(upload)
      : { ...stored.blob, quarantine: lifts(upload, stored.blob) ? null : stored.blob.quarantine };
  if (blob.thumbs.kind === 'pending' && read(change.writer, JOBS, sha256) === undefined) {
    queueJob(change, sha256, 'upload', now, ownerKey(upload.owner));
  }
  return blob;
}

/**
 * Whether an upload lifts the mark of its blob. Its bytes are good, so it lifts `rot`. It lifts `held` unless its own
 * bytes await the scanner too. (Uploads of bytes that an admin quarantined were refused before this.)
 */
function lifts(upload: NewMedia, blob: BlobRecord): boolean {
  return blob.quarantine !== null && !(awaitsScan(blob) && upload.quarantine?.cause === 'held');
}

/** Counts the upload against its quota. False, and nothing is counted, if the quota has no room for it. */
function countUsage(change: Change, upload: NewMedia, blobIsNew: boolean): boolean {
  const { quota, owner } = upload;
  if (quota === undefined) return true;
  const usage = readUsage(change.writer, owner, quota.periodStartAt);
  const after = { bytes: usage.bytes + (blobIsNew ? upload.sizeBytes : 0), files: usage.files + 1 };
  if (after.bytes > quota.bytesMax || after.files > quota.filesMax) return false;
  write(change.writer, USAGE, [quota.periodStartAt, ownerKey(owner)], after);
  return true;
}

function newBlob(upload: NewMedia): BlobRecord {
  return {
    sha256: upload.sha256,
    sizeBytes: upload.sizeBytes,
    mime: upload.mime,
    storedAt: upload.now,
    picture: upload.picture,
    thumbs: upload.thumbs.kind === 'queue' ? { kind: 'pending' } : upload.thumbs,
    quarantine: null,
  };
}

function newRecord(upload: NewMedia): MediaRecord {
  return {
    id: upload.id,
    sha256: upload.sha256,
    sentSha256: upload.sentSha256 ?? upload.sha256,
    public: upload.public,
    owner: upload.owner,
    filename: upload.filename,
    createdAt: upload.now,
    expiresAt: upload.expiresAt,
    usedAt: upload.now,
    state: { kind: 'live' },
  };
}
