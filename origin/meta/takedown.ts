/**
 * Everything that ends or withholds media: delete, expire, quarantine and
 * restore. Each writes its journal entry in the same transaction.
 */
import type { EpochMs } from '../../src/clock.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import type { JournalCause } from '../../src/journal/entry.js';
import type { BlobKey } from '../blobs/blob-store.js';
import { type Change, readOrSkip } from './database.js';
import { findBlobBySent } from './find-sent.js';
import {
  awaitsScan,
  type BlobRecord,
  keysOf,
  type MediaRecord,
  type MediaState,
  type Quarantine,
  refusesUpload,
} from './media.js';
import { eventOfEnded, eventsOfMarked } from './outbox/events.js';
import { writeBlob } from './places.js';
import { endJob } from './queue.js';
import type { StoredBlob, StoredMedia } from './records.js';
import type { QuarantineOutcome, RemoveOutcome } from './store.js';
import {
  BLOBS,
  before,
  DEAD,
  type IndexName,
  JOBS,
  liveIdsOf,
  MEDIA,
  type Reader,
  read,
  type Span,
  startingWith,
  targets,
  until,
  write,
} from './tables.js';
import { appendEntry } from './takedown-journal.js';

/** Most ids in one journal entry, so that its line on the stream stays short. */
const ENTRY_IDS_MAX = 64;

export function removeMedia(change: Change, id: MediaId, by: string, now: EpochMs): RemoveOutcome {
  const stored = read(change.writer, MEDIA, id);
  if (stored === undefined) return { kind: 'unknown' };
  if (stored.record.state.kind !== 'live') return { kind: 'already', seq: stored.endedSeq };
  const seq = appendEntry(change, 'delete', [id], now);
  endMedia(change, stored, { kind: 'deleted', at: now, by }, seq);
  updateReference(change, stored.record.sha256, now);
  return { kind: 'removed', seq };
}

/** Whether expireDue would mark anything: it is asked often, and a transaction costs a sync. */
export function isAnyDue(reader: Reader, now: EpochMs): boolean {
  for (const _ of targets(reader, 'expiry', { ...until(now), limit: 1 })) return true;
  return false;
}

/** Marks ids whose expiry has passed. Their tombstones end at that expiry, not now. */
export function expireDue(change: Change, now: EpochMs, limit: number): readonly MediaId[] {
  return expireAll(change, recordsIn(change, 'expiry', until(now), limit), now, (record) => record.expiresAt ?? now);
}

/** Marks ids that were last used before `usedBefore`. */
export function expireUnused(change: Change, usedBefore: EpochMs, now: EpochMs, limit: number): readonly MediaId[] {
  return expireAll(change, recordsIn(change, 'idle', before(usedBefore), limit), now, () => now);
}

/** Ends one live id whose expiry has passed, as expireDue would. */
export function expireOne(change: Change, stored: StoredMedia, now: EpochMs): void {
  expireAll(change, [stored], now, (record) => record.expiresAt ?? now);
}

export function quarantine(change: Change, target: MediaId | Sha256, mark: Quarantine): QuarantineOutcome {
  const found = resolveTarget(change.writer, target, mark.at);
  if (found.kind !== 'blob') return found;
  const { stored } = found;
  const existing = stored.blob.quarantine;
  if (existing !== null && (existing.cause === 'admin' || mark.cause === 'rot')) {
    return { kind: 'already', seq: stored.markSeq };
  }
  return markBlob(change, stored, mark, 'quarantine', mark.at);
}

export function restore(change: Change, target: MediaId | Sha256, now: EpochMs): QuarantineOutcome {
  const found = resolveTarget(change.writer, target, now);
  if (found.kind !== 'blob') return found;
  if (found.stored.blob.quarantine === null) return { kind: 'already', seq: found.stored.markSeq };
  return liftMark(change, found.stored, now);
}

export function liftMark(change: Change, stored: StoredBlob, now: EpochMs): QuarantineOutcome & { kind: 'done' } {
  // An unreferenced blob starts a new grace period before it is swept.
  const unreferencedAt = stored.unreferencedAt === null ? null : now;
  return markBlob(change, { ...stored, unreferencedAt }, null, 'restore', now);
}

/** Applies the scanner's verdict to a blob that awaits it. False if the blob no longer awaits one. */
export function resolveScan(change: Change, sha256: Sha256, mark: Quarantine | null, now: EpochMs): boolean {
  const stored = read(change.writer, BLOBS, sha256);
  if (stored === undefined || !awaitsScan(stored.blob)) return false;
  if (mark === null) liftMark(change, stored, now);
  else markBlob(change, stored, mark, 'quarantine', now);
  return true;
}

export function blobsAwaitingScan(
  reader: Reader,
  after: BlobRecord | null,
  limit: number,
  damaged: Change['damaged'],
): readonly BlobRecord[] {
  const start = after === null ? {} : { start: [after.quarantine?.at ?? 0, after.sha256], afterStart: true };
  const all = [...targets<Sha256>(reader, 'held', { ...start, limit })];
  return all.map((sha256) => readOrSkip(reader, BLOBS, sha256, damaged)?.blob).filter((blob) => blob !== undefined);
}

/** Records whether any live id refers to a blob, after one was added or ended. Without one, its job ends. */
export function updateReference(change: Change, sha256: Sha256, now: EpochMs): void {
  // A takedown must not fail because a blob record cannot be read.
  const stored = readOrSkip(change.writer, BLOBS, sha256, change.damaged);
  if (stored === undefined) return;
  const referenced = liveIdsOf(change.writer, sha256).length > 0;
  if (!referenced) endJob(change, sha256);
  if (referenced === (stored.unreferencedAt === null)) return;
  writeBlob(change, sha256, { ...stored, unreferencedAt: referenced ? null : now });
}

export function idsOfBlob(reader: Reader, sha256: Sha256): readonly MediaId[] {
  return [...targets<MediaId>(reader, 'by_blob', startingWith(sha256))];
}

/** Forgets tombstones that ended before `endedBefore`. Their blobs are left to the sweep. */
export function forgetTombstones(change: Change, endedBefore: EpochMs, limit: number): number {
  const ended = recordsIn(
    change,
    'tombstone',
    before(endedBefore),
    limit,
    ({ record }) => !isNeededToRefuse(change, record),
  );
  for (const { record } of ended) write(change.writer, MEDIA, record.id, undefined);
  return ended.length;
}

/** Whether uploads are refused because of this record alone: it is changed (find-sent.ts), its blob quarantined. */
function isNeededToRefuse(change: Change, { sha256, sentSha256 }: MediaRecord): boolean {
  if (sha256 === sentSha256) return false;
  const stored = readOrSkip(change.writer, BLOBS, sha256, change.damaged);
  return stored !== undefined && refusesUpload(stored.blob);
}

export function unreferencedBlobs(
  reader: Reader,
  freeBefore: EpochMs,
  limit: number,
  damaged: Change['damaged'],
): readonly BlobRecord[] {
  const blobs: BlobRecord[] = [];
  for (const sha256 of targets<Sha256>(reader, 'unreferenced', before(freeBefore))) {
    if (blobs.length >= limit) break;
    const stored = readOrSkip(reader, BLOBS, sha256, damaged);
    if (stored !== undefined) blobs.push(stored.blob);
  }
  return blobs;
}

/** Whether a blob may be freed: it has a record, no live id refers to it, and no admin quarantined it. */
export function isUnreferenced(reader: Reader, sha256: Sha256): boolean {
  const stored = read(reader, BLOBS, sha256);
  return stored !== undefined && !refusesUpload(stored.blob) && liveIdsOf(reader, sha256).length === 0;
}

/** Forgets a blob that may be freed, with its job and dead letter, unless its thumbnails are being made. Returns its keys. */
export function forgetBlob(change: Change, sha256: Sha256): readonly BlobKey[] | undefined {
  const { writer } = change;
  const stored = read(writer, BLOBS, sha256);
  if (stored === undefined || !isUnreferenced(writer, sha256)) return undefined;
  if ((read(writer, JOBS, sha256)?.lease ?? null) !== null) return undefined;
  writeBlob(change, sha256, undefined);
  write(writer, JOBS, sha256, undefined);
  write(writer, DEAD, sha256, undefined);
  return keysOf(stored.blob);
}

/** Up to `limit` records in a span of an index, without damaged ones. */
function recordsIn(
  change: Change,
  index: IndexName,
  span: Span,
  limit: number,
  wanted: (stored: StoredMedia) => boolean = () => true,
): readonly StoredMedia[] {
  const found: StoredMedia[] = [];
  for (const id of targets<MediaId>(change.writer, index, span)) {
    if (found.length >= limit) break;
    const stored = readOrSkip(change.writer, MEDIA, id, change.damaged);
    if (stored !== undefined && wanted(stored)) found.push(stored);
  }
  return found;
}

function expireAll(
  change: Change,
  ended: readonly StoredMedia[],
  now: EpochMs,
  endOf: (record: MediaRecord) => EpochMs,
): readonly MediaId[] {
  endAll(change, 'expire', ended, now, (record) => ({ kind: 'expired', at: endOf(record) }));
  return ended.map(({ record }) => record.id);
}

/** Ends live ids, and names several of them in one entry. */
export function endAll(
  change: Change,
  cause: 'expire' | 'delete',
  ended: readonly StoredMedia[],
  now: EpochMs,
  stateOf: (record: MediaRecord) => Exclude<MediaState, { kind: 'live' }>,
): void {
  for (let first = 0; first < ended.length; first += ENTRY_IDS_MAX) {
    const group = ended.slice(first, first + ENTRY_IDS_MAX);
    const ids = group.map(({ record }) => record.id);
    const seq = appendEntry(change, cause, ids, now);
    for (const stored of group) {
      endMedia(change, stored, stateOf(stored.record), seq);
      updateReference(change, stored.record.sha256, now);
    }
  }
}

function endMedia(
  change: Change,
  stored: StoredMedia,
  state: Exclude<MediaState, { kind: 'live' }>,
  seq: number,
): void {
  const { record } = stored;
  write(change.writer, MEDIA, record.id, { record: { ...record, state }, endedSeq: seq });
  eventOfEnded(change, record.id, state.kind);
}

function markBlob(
  change: Change,
  stored: StoredBlob,
  mark: Quarantine | null,
  cause: JournalCause,
  now: EpochMs,
): QuarantineOutcome & { kind: 'done' } {
  const ids = liveIdsOf(change.writer, stored.blob.sha256);
  return { kind: 'done', seq: markTogether(change, [stored], ids, mark, cause, now) };
}

/** Sets or lifts the marks of several blobs, and names their live ids in as few entries as may be. Returns these ids. */
export function markAll(
  change: Change,
  blobs: readonly StoredBlob[],
  mark: Quarantine | null,
  cause: JournalCause,
  now: EpochMs,
): readonly MediaId[] {
  const all: MediaId[] = [];
  let group: StoredBlob[] = [];
  let ids: MediaId[] = [];
  const end = (): void => {
    if (group.length > 0) markTogether(change, group, ids, mark, cause, now);
    all.push(...ids);
    [group, ids] = [[], []];
  };
  for (const stored of blobs) {
    const live = liveIdsOf(change.writer, stored.blob.sha256);
    if (ids.length + live.length > ENTRY_IDS_MAX) end();
    group.push(stored);
    ids.push(...live);
  }
  end();
  return all;
}

/** `ids`: the live ids of these blobs. Returns the number of their entry. */
function markTogether(
  change: Change,
  blobs: readonly StoredBlob[],
  ids: readonly MediaId[],
  mark: Quarantine | null,
  cause: JournalCause,
  now: EpochMs,
): number {
  const seq = appendEntry(change, cause, ids, now);
  for (const stored of blobs) {
    const blob = { ...stored.blob, quarantine: mark };
    writeBlob(change, blob.sha256, { ...stored, blob, markSeq: seq });
    eventsOfMarked(change, stored.blob, mark);
  }
  return seq;
}

type Target =
  | { readonly kind: 'blob'; readonly stored: StoredBlob }
  | { readonly kind: 'gone'; readonly state: 'deleted' | 'expired' }
  | { readonly kind: 'unknown' };

function resolveTarget(reader: Reader, target: MediaId | Sha256, now: EpochMs): Target {
  let sha256 = target as Sha256;
  if (isMediaId(target)) {
    const media = read(reader, MEDIA, target);
    if (media === undefined) return { kind: 'unknown' };
    const { record } = media;
    if (record.state.kind !== 'live') return { kind: 'gone', state: record.state.kind };
    if (hasExpired(record, now)) return { kind: 'gone', state: 'expired' };
    sha256 = record.sha256;
  }
  // A caller that names a hash may know only that of the bytes as sent.
  const stored = read(reader, BLOBS, sha256) ?? read(reader, BLOBS, findBlobBySent(reader, sha256)?.sha256 ?? sha256);
  return stored === undefined ? { kind: 'unknown' } : { kind: 'blob', stored };
}

/** Whether a record's expiry has passed, whether or not the sweep has marked it yet. */
export function hasExpired(record: MediaRecord, now: EpochMs): record is MediaRecord & { readonly expiresAt: EpochMs } {
  return record.expiresAt !== null && record.expiresAt <= now;
}

/** An id has 26 characters, a hash 64. */
function isMediaId(target: MediaId | Sha256): target is MediaId {
  return target.length === 26;
}
