/** Reads media: the one with an id as of an instant, and pages of a listing. */
import type { EpochMs } from '../../src/clock.js';
import { lowestIdAt, type MediaId, type Sha256 } from '../../src/ids.js';
import { DamagedRecord } from './codec.js';
import { readOrSkip } from './database.js';
import { awaitsScan, type BlobRecord, type Found, type MediaRecord } from './media.js';
import type { StoredMedia } from './records.js';
import type { BlobPage, ListPage, ListQuery } from './store.js';
import { BLOBS, MEDIA, ownerKey, type Reader, read, type Span, startingWith, targets } from './tables.js';
import { hasExpired } from './takedown.js';

/** An id carries the instant it was made, which may differ a little from its record's `createdAt`. */
export const ID_SLACK_MS = 3_600_000;

export function findMedia(reader: Reader, id: MediaId, now: EpochMs): Found {
  const stored = read(reader, MEDIA, id);
  return stored === undefined ? { kind: 'unknown' } : resolveMedia(reader, stored, now);
}

export function resolveMedia(
  reader: Reader,
  { record }: StoredMedia,
  now: EpochMs,
): Exclude<Found, { kind: 'unknown' }> {
  return foundAsOf(record, () => read(reader, BLOBS, record.sha256)?.blob, now);
}

/** The state of a record as of `now`: deleted and expired come before quarantined, quarantined before live. */
export function foundAsOf(
  record: MediaRecord,
  readBlob: () => BlobRecord | undefined,
  now: EpochMs,
): Exclude<Found, { kind: 'unknown' }> {
  if (record.state.kind !== 'live') return { kind: record.state.kind, record };
  if (hasExpired(record, now)) {
    return { kind: 'expired', record: { ...record, state: { kind: 'expired', at: record.expiresAt } } };
  }
  const blob = readBlob();
  if (blob === undefined) {
    throw new DamagedRecord(BLOBS.name, record.sha256, `it is missing, but ${record.id} refers to it`);
  }
  return { kind: blob.quarantine === null ? 'live' : 'quarantined', media: { record, blob } };
}

/** The state as admins see it, in which media that awaits the scanner is not `quarantined` but `held`. */
export function stateOf(found: Exclude<Found, { kind: 'unknown' }>): NonNullable<ListQuery['state']> {
  return found.kind === 'quarantined' && awaitsScan(found.media.blob) ? 'held' : found.kind;
}

/** The number of the newest journal entry about an id or its blob; 0 if there is none. */
export function takedownSeqOf(reader: Reader, id: MediaId): number {
  const stored = read(reader, MEDIA, id);
  if (stored === undefined) return 0;
  return Math.max(stored.endedSeq, read(reader, BLOBS, stored.record.sha256)?.markSeq ?? 0);
}

/** Records that cannot be read are left out and added to `damaged`. */
export function listMedia(reader: Reader, query: ListQuery, scanMax: number, damaged: DamagedRecord[]): ListPage {
  const found: ListPage['found'][number][] = [];
  let scanned = 0;
  for (const id of candidates(reader, query)) {
    if (query.createdTo !== undefined && id > lowestIdAt(query.createdTo + ID_SLACK_MS)) break;
    scanned += 1;
    const entry = tryResolve(reader, id, query.now, damaged);
    if (entry !== undefined && matches(reader, query, entry)) found.push(entry);
    if (found.length >= query.limit || scanned >= scanMax) return { found, next: id };
  }
  return { found, next: null };
}

export function blobsAfter(reader: Reader, after: Sha256 | null, limit: number, damaged: DamagedRecord[]): BlobPage {
  const span: Span = after === null ? { limit } : { start: after, afterStart: true, limit };
  const keys = [...reader.range(BLOBS.name, span)].map(({ key }) => key as Sha256);
  const blobs = keys.map((sha256) => readOrSkip(reader, BLOBS, sha256, damaged)?.blob);
  return {
    blobs: blobs.filter((blob): blob is BlobRecord => blob !== undefined),
    next: keys.length < limit ? null : (keys.at(-1) ?? null),
  };
}

function candidates(reader: Reader, query: ListQuery): Iterable<MediaId> {
  const from = query.createdFrom === undefined ? undefined : lowestIdAt(query.createdFrom - ID_SLACK_MS);
  const after = from === undefined || (query.after ?? '') >= from ? query.after : undefined;
  const start = after ?? from;
  if (query.owner === undefined) {
    const span: Span = start === undefined ? {} : { start, afterStart: after !== undefined };
    return keysOf(reader, span);
  }
  const key = ownerKey(query.owner);
  const all = startingWith(key);
  const span: Span = start === undefined ? all : { ...all, start: [key, start], afterStart: after !== undefined };
  return targets<MediaId>(reader, 'by_owner', span);
}

function* keysOf(reader: Reader, span: Span): Iterable<MediaId> {
  for (const { key } of reader.range(MEDIA.name, span)) yield key as MediaId;
}

function tryResolve(
  reader: Reader,
  id: MediaId,
  now: EpochMs,
  damaged: DamagedRecord[],
): ListPage['found'][number] | undefined {
  const stored = readOrSkip(reader, MEDIA, id, damaged);
  if (stored === undefined) return undefined;
  try {
    return resolveMedia(reader, stored, now);
  } catch (thrown) {
    if (!(thrown instanceof DamagedRecord)) throw thrown;
    damaged.push(thrown);
    return undefined;
  }
}

function matches(reader: Reader, query: ListQuery, entry: ListPage['found'][number]): boolean {
  const record = 'media' in entry ? entry.media.record : entry.record;
  if (query.state !== undefined && stateOf(entry) !== query.state) return false;
  if (record.createdAt < (query.createdFrom ?? Number.NEGATIVE_INFINITY)) return false;
  if (record.createdAt > (query.createdTo ?? Number.POSITIVE_INFINITY)) return false;
  if (query.mime === undefined) return true;
  const blob = 'media' in entry ? entry.media.blob : readOrSkip(reader, BLOBS, record.sha256, [])?.blob;
  return blob?.mime === query.mime;
}
