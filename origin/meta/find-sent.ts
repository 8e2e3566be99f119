/**
 * Finds what became of bytes that were uploaded before.
 *
 * An upload is recognised by the hash of the bytes as sent. With `strip_originals`
 * the stored bytes may differ from the sent ones; such a record is called changed.
 * An example, in which stripping photo P gives Q:
 *
 *   upload P              record 1 is created: sent P, stored Q, changed. Blob Q.
 *   upload P again        is a duplicate of record 1, found by index `sent` [P, 1].
 *   upload Q              record 2 is created: sent Q, stored Q. Still the one blob Q.
 *   quarantine blob Q     from now on uploads of P and of Q are refused.
 *   delete record 1       its tombstone stays as long as Q is quarantined, because no
 *                         other record says that P must be refused too.
 *
 * While a record of P exists, P is stored as Q even if `strip_originals` is off by
 * then, and a blob P is stored unchanged even if it is on (ingest.ts).
 */
import type { MediaId, Sha256 } from '../../src/ids.js';
import { type BlobRecord, refusesUpload } from './media.js';
import type { StoredBlob, StoredMedia } from './records.js';
import { BLOBS, entryValue, MEDIA, type Reader, read, startingWith, targets } from './tables.js';

/** The live record of bytes sent with this hash and visibility, even if its expiry has passed. */
export function findLive(
  reader: Reader,
  sentSha256: Sha256,
  isPublic: boolean,
  changed: readonly StoredMedia[],
): StoredMedia | undefined {
  const unchanged = reader.get('live', [sentSha256, isPublic ? 1 : 0]);
  if (unchanged !== undefined) return read(reader, MEDIA, entryValue(unchanged) as MediaId);
  return changed.find(({ record }) => record.state.kind === 'live' && record.public === isPublic);
}

export function findBlobBySent(
  reader: Reader,
  sentSha256: Sha256,
  changed: readonly StoredMedia[] = listChanged(reader, sentSha256),
): BlobRecord | undefined {
  const others = changed.map(({ record }) => read(reader, BLOBS, record.sha256));
  return chooseBlob(read(reader, BLOBS, sentSha256), others);
}

/**
 * The blob that stores bytes sent with a hash. `asSent` is the one of that hash, `others` are those of changed records. If
 * there are several: one whose uploads are refused, else the unchanged one if a live id refers to it, else the one of a
 * changed record.
 */
export function chooseBlob(
  asSent: StoredBlob | undefined,
  others: readonly (StoredBlob | undefined)[],
): BlobRecord | undefined {
  const candidates = [...(asSent?.unreferencedAt === null ? [asSent] : []), ...others, asSent];
  const blobs = candidates.map((stored) => stored?.blob).filter((blob) => blob !== undefined);
  return blobs.find(refusesUpload) ?? blobs[0];
}

/** The changed records of bytes sent with this hash, live or not. There are few: two live ones and some tombstones. */
export function listChanged(reader: Reader, sentSha256: Sha256): readonly StoredMedia[] {
  const ids = [...targets<MediaId>(reader, 'sent', startingWith(sentSha256))];
  return ids.map((id) => read(reader, MEDIA, id)).filter((stored) => stored !== undefined);
}
