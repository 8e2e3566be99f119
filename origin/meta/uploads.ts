/**
 * The one transaction of an upload: quarantine, duplicate and quota are decided
 * here once more, whatever was seen before, and then record, indexes, job,
 * usage and journal change together.
 */
import type { EpochMs } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import type { Change } from './database.js';
import { findBlobBySent, listChanged } from './find-sent.js';
import type { BlobRecord, Media, MediaRecord } from './media.js';
import { refusesUpload } from './media.js';
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
  const seen = before !== undefined && before.quarantine === null;
  if (media.blob.sha256 !== sha256 || media.blob.quarantine !== null || seen) return outcome;
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
    // What was sent stands in another form already, and what came now is none's: the sweep's.
    const other = record.sha256 === sha256 ? undefined : read(writer, BLOBS, record.sha256)?.blob;
    return { kind: 'duplicate', media: { record, blob: other ?? keepBlob(change, upload, stored) } };
  }
  const over = overQuota(change, upload, stored === undefined);
  if (over !== undefined) return { kind: 'over_quota', usage: over };
  const record = newRecord(upload);
  write(writer, MEDIA, record.id, { record, endedSeq: 0 });
  return { kind: 'created', media: { record, blob: keepBlob(change, upload, stored) } };
}

/** Records a blob whose record was lost; false where there is one. */
export function recordBlob(change: Change, blob: BlobRecord, now: EpochMs): boolean {
  if (read(change.writer, BLOBS, blob.sha256) !== undefined) return false;
  write(change.writer, BLOBS, blob.sha256, { blob, unreferencedAt: null, markSeq: 0 });
  updateReference(change, blob.sha256, now);
  if (blob.thumbs.kind === 'pending') queueJob(change, blob.sha256, 'backfill', now);
  return true;
}

/** The live record over bytes that were sent so, whether or not its instant has passed. `changed`: as for findSent. */
export function findLive(
  reader: Reader,
  sentSha256: Sha256,
  isPublic: boolean,
  changed: readonly StoredMedia[] = listChanged(reader, sentSha256),
): StoredMedia | undefined {
  const id = reader.get('live', [sentSha256, isPublic ? 1 : 0]);
  if (id !== undefined) return read(reader, MEDIA, Buffer.from(id).toString('latin1') as MediaRecord['id']);
  return changed.find(({ record }) => record.state.kind === 'live' && record.public === isPublic);
}

export function findDuplicate(reader: Reader, sentSha256: Sha256, isPublic: boolean, now: EpochMs): Media | undefined {
  const existing = findLive(reader, sentSha256, isPublic);
  if (existing === undefined || hasExpired(existing.record, now)) return undefined;
  const stored = read(reader, BLOBS, existing.record.sha256);
  return stored === undefined ? undefined : { record: existing.record, blob: stored.blob };
}

export function readUsage(reader: Reader, owner: string, periodStartAt: EpochMs): Usage {
  return read(reader, USAGE, [periodStartAt, ownerKey(owner)]) ?? NO_USAGE;
}

/** The expiry becomes the later of the two, and never is the latest of all. */
function prolong(change: Change, existing: StoredMedia, upload: NewMedia): MediaRecord {
  const { record } = existing;
  const expiresAt =
    record.expiresAt === null || upload.expiresAt === null ? null : Math.max(record.expiresAt, upload.expiresAt);
  const prolonged = { ...record, expiresAt, usedAt: Math.max(record.usedAt, upload.now) };
  write(change.writer, MEDIA, record.id, { ...existing, record: prolonged });
  return prolonged;
}

/** The bytes are in place and held: makes the blob's record where there is none, lifts a mark of rot, sees to the job. */
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
    queueJob(change, sha256, 'upload', now);
  }
  return blob;
}

/** Good bytes lift a mark of rot; those that a scanner has passed, or nobody asks it about, also one of waiting for it. */
function lifts(upload: NewMedia, { quarantine: mark }: BlobRecord): boolean {
  return mark !== null && !(mark.cause === 'held' && upload.quarantine?.cause === 'held');
}

/** Counts the upload, or answers the usage that leaves no room for it. */
function overQuota(change: Change, upload: NewMedia, blobIsNew: boolean): Usage | undefined {
  const { quota, owner } = upload;
  if (quota === undefined) return undefined;
  const usage = readUsage(change.writer, owner, quota.periodStartAt);
  const after = { bytes: usage.bytes + (blobIsNew ? upload.sizeBytes : 0), files: usage.files + 1 };
  if (after.bytes > quota.bytesMax || after.files > quota.filesMax) return usage;
  write(change.writer, USAGE, [quota.periodStartAt, ownerKey(owner)], after);
  return undefined;
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
