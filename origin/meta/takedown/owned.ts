/**
 * Acts on all media of an owner: which they would change, and what one transaction does to some of them. The walk over
 * all of them is the caller's (origin/takedown/of-owner.ts): each step is small, and may be repeated.
 */
import type { EpochMs } from '../../../src/clock.js';
import type { MediaId } from '../../../src/ids.js';
import type { DamagedRecord } from '../codec.js';
import { type Change, readOrSkip } from '../database.js';
import { type BlobRecord, type MediaRecord, refusesUpload, SCANNER } from '../media.js';
import type { StoredBlob, StoredMedia } from '../records.js';
import type { OwnedOutcome, OwnedPage, OwnedQuery, OwnerAct } from '../store.js';
import { BLOBS, MEDIA, ownerKey, type Reader, startingWith, targets } from '../tables.js';
import { endAll, hasExpired, markAll } from '../takedown.js';

/** `blob` is undefined if its record is lost or damaged: such media can be deleted, and not marked. */
export function wouldChange(
  act: OwnerAct['kind'],
  record: MediaRecord,
  blob: BlobRecord | undefined,
  now: EpochMs,
): boolean {
  if (record.state.kind !== 'live') return false;
  switch (act) {
    case 'delete':
      return true;
    case 'quarantine':
      return blob !== undefined && !hasExpired(record, now) && !refusesUpload(blob);
    case 'restore':
      return blob !== undefined && !hasExpired(record, now) && isMarkOfAdmin(blob);
  }
}

/** What the scanner has found has the same cause as what an admin has decided. */
function isMarkOfAdmin({ quarantine }: BlobRecord): boolean {
  return quarantine?.cause === 'admin' && quarantine.by !== SCANNER;
}

/** Records that cannot be read are left out and added to `damaged`. */
export function ownedMedia(reader: Reader, query: OwnedQuery, damaged: DamagedRecord[]): OwnedPage {
  const { owner, act, after, limit, now } = query;
  const key = ownerKey(owner);
  const start = after === null ? {} : { start: [key, after], afterStart: true };
  const looked = [...targets<MediaId>(reader, 'by_owner', { ...startingWith(key), ...start, limit })];
  const ids = looked.filter((id) => {
    const record = readOrSkip(reader, MEDIA, id, damaged)?.record;
    return record?.owner === owner && wouldChange(act, record, blobOf(reader, act, record, damaged), now);
  });
  return { ids, next: looked.length < limit ? null : (looked.at(-1) ?? null) };
}

/** A delete does without it. */
function blobOf(
  reader: Reader,
  act: OwnerAct['kind'],
  { sha256 }: MediaRecord,
  damaged: DamagedRecord[],
): BlobRecord | undefined {
  return act === 'delete' ? undefined : readOrSkip(reader, BLOBS, sha256, damaged)?.blob;
}

/** Leaves out what meanwhile belongs to nobody, is gone or is marked already. */
export function takeDownOwned(
  change: Change,
  owner: string,
  ids: readonly MediaId[],
  act: OwnerAct,
  now: EpochMs,
): OwnedOutcome {
  const own = ids
    .map((id) => readOrSkip(change.writer, MEDIA, id, change.damaged))
    .filter((stored): stored is StoredMedia => stored?.record.owner === owner);
  if (act.kind === 'delete') {
    const live = own.filter(({ record }) => wouldChange('delete', record, undefined, now));
    endAll(change, 'delete', live, now, () => ({ kind: 'deleted', at: now, by: act.by }));
    return { media: live.length, others: 0 };
  }
  const marked =
    act.kind === 'quarantine'
      ? markAll(change, blobsToChange(change, own, act.kind, now), act.mark, 'quarantine', now)
      : markAll(change, blobsToChange(change, own, act.kind, now), null, 'restore', now);
  const media = marked.filter((id) => readOrSkip(change.writer, MEDIA, id, change.damaged)?.record.owner === owner);
  return { media: media.length, others: marked.length - media.length };
}

/** Each once, though several media may share it. */
function blobsToChange(
  change: Change,
  own: readonly StoredMedia[],
  act: 'quarantine' | 'restore',
  now: EpochMs,
): readonly StoredBlob[] {
  const blobs = new Map<string, StoredBlob>();
  for (const { record } of own) {
    const stored = readOrSkip(change.writer, BLOBS, record.sha256, change.damaged);
    if (stored !== undefined && wouldChange(act, record, stored.blob, now)) blobs.set(record.sha256, stored);
  }
  return [...blobs.values()];
}
