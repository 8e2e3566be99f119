/**
 * The transaction of an upload. It decides on quarantine, duplicate and quota,
 * whatever was found before it began; then record, indexes, job, usage and journal
 * change together. find-sent.ts has an example of uploads whose stored bytes differ
 * from the sent ones.
 */
import type { EpochMs } from '../../src/clock.js';
import { mediaKey, type Place } from '../blobs/blob-store.js';
import type { Change } from './database.js';
import { findBlobBySent, findLive, listChanged } from './find-sent.js';
import { awaitsScan, type BlobRecord, keysOf, type MediaRecord, refusesUpload } from './media.js';
import { dropEventsOf, eventOfCreated } from './outbox/events.js';
import { writeBlob } from './places.js';
import { queueJob } from './queue.js';
import type { StoredBlob, StoredMedia } from './records.js';
import type { CommitOutcome, NewMedia, UploadOnce, Usage } from './store.js';
import { BLOBS, JOBS, MEDIA, ownerKey, type Reader, read, TRASH, USAGE, write } from './tables.js';
import { expireOne, hasExpired, liftMark, quarantine, updateReference } from './takedown.js';

const NO_USAGE: Usage = { bytes: 0, files: 0 };

export function commitUpload(change: Change, upload: NewMedia): CommitOutcome {
  const { once } = upload;
  if (once === undefined) return commitAny(change, upload);
  if (read(change.writer, USAGE, onceKey(once)) !== undefined) return { kind: 'link_used' };
  const outcome = commitAny(change, upload);
  // Refusals record nothing, but for bytes that are withheld.
  if (RECORDED.has(outcome.kind)) write(change.writer, USAGE, onceKey(once), { bytes: 0, files: 1 });
  return outcome;
}

const RECORDED: ReadonlySet<CommitOutcome['kind']> = new Set(['created', 'duplicate', 'quarantined']);

/** A link is a quota of one file, in a period that begins when the link ends: it is forgotten later than the link is valid. */
function onceKey({ link, until }: UploadOnce): readonly [EpochMs, string] {
  return [until, ownerKey(userOf(link))];
}

/** Whose usage the use of a link is. */
export function userOf(link: string): string {
  return `upload link ${link}`;
}

function commitAny(change: Change, upload: NewMedia): CommitOutcome {
  const outcome = commitMarked(change, upload);
  if (outcome.kind === 'created') eventOfCreated(change, outcome.media);
  if (outcome.kind === 'quarantined') dropEventsOf(change, upload.id);
  return outcome;
}

function commitMarked(change: Change, upload: NewMedia): CommitOutcome {
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
  const place = placeOf(change, upload, stored?.blob);
  if (existing !== undefined && !expired) {
    // The existing record may refer to another stored form. Then this one is not needed.
    const ofExisting = existing.record.sha256;
    const other = ofExisting === sha256 ? undefined : read(writer, BLOBS, ofExisting)?.blob;
    if (other !== undefined) {
      return { kind: 'duplicate', media: { record: prolong(change, existing, upload), blob: other } };
    }
    if (place === undefined) return { kind: 'bytes_gone' };
    const record = prolong(change, existing, upload);
    return { kind: 'duplicate', media: { record, blob: keepBlob(change, upload, stored, place) } };
  }
  if (place === undefined) return { kind: 'bytes_gone' };
  if (!countUsage(change, upload, stored === undefined)) return { kind: 'over_quota' };
  const record = newRecord(upload);
  write(writer, MEDIA, record.id, { record, endedSeq: 0 });
  return { kind: 'created', media: { record, blob: keepBlob(change, upload, stored, place) } };
}

/** Where the bytes are once the upload is recorded. Undefined: nowhere, or they are damaged. */
function placeOf(
  { isIntended }: Change,
  { sha256, bytes }: NewMedia,
  known: BlobRecord | undefined,
): Place | undefined {
  const isRotten = known?.quarantine?.cause === 'rot';
  if (bytes.kind === 'found') return isRotten ? undefined : known?.place;
  const { place, damaged } = bytes;
  if (known !== undefined && !isRotten && known.place !== damaged) return known.place;
  return isIntended(mediaKey({ sha256, place })) ? place : undefined;
}

/** Records a blob whose record was lost. False if it has a record. */
export function recordBlob(change: Change, blob: BlobRecord, now: EpochMs): boolean {
  if (read(change.writer, BLOBS, blob.sha256) !== undefined) return false;
  // fsck found the bytes, and needs the store for itself: nobody removes them.
  for (const key of keysOf(blob)) write(change.writer, TRASH, key, undefined);
  writeBlob(change, blob.sha256, { blob, unreferencedAt: null, markSeq: 0 });
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

/** Records the blob of an upload: creates its record, or moves the existing one and lifts its mark; queues a missing job. */
function keepBlob(change: Change, upload: NewMedia, stored: StoredBlob | undefined, place: Place): BlobRecord {
  const { sha256, now } = upload;
  const known = stored ?? { blob: newBlob(upload, place), unreferencedAt: null, markSeq: 0 };
  const moved = { ...known, blob: { ...known.blob, place } };
  if (stored?.blob.place !== place) writeBlob(change, sha256, moved);
  const isFreed = lifts(upload, known.blob);
  if (isFreed) liftMark(change, moved, now);
  if (stored !== undefined) updateReference(change, sha256, now);
  const blob = isFreed ? { ...moved.blob, quarantine: null } : moved.blob;
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

function newBlob(upload: NewMedia, place: Place): BlobRecord {
  return {
    sha256: upload.sha256,
    place,
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
