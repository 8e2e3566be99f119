/**
 * From the hash of what was sent to what is stored. Mostly they are one; where
 * something was taken out before storing, the records of ids tell of both.
 */
import type { Sha256 } from '../../src/ids.js';
import { type BlobRecord, type MediaRecord, refusesUpload } from './media.js';
import type { StoredMedia } from './records.js';
import { BLOBS, MEDIA, type Reader, read, targets, under } from './tables.js';

/**
 * The blob in which bytes that were sent so stand: as they came, where an id over them lives; else as what became of
 * them. One that an admin withholds comes before any other. `changed`: what sentAs answers, where that is known.
 */
export function findBlobBySent(
  reader: Reader,
  sentSha256: Sha256,
  changed: readonly StoredMedia[] = listChanged(reader, sentSha256),
): BlobRecord | undefined {
  const asSent = read(reader, BLOBS, sentSha256);
  const others = changed.map(({ record }) => read(reader, BLOBS, record.sha256));
  const known = [...(asSent?.unreferencedAt === null ? [asSent] : []), ...others, asSent];
  const blobs = known.map((stored) => stored?.blob).filter((blob) => blob !== undefined);
  return blobs.find(refusesUpload) ?? blobs[0];
}

/** The records of what was sent so and is stored otherwise: a few at most, one for each time that it was deleted. */
export function listChanged(reader: Reader, sentSha256: Sha256): readonly StoredMedia[] {
  const ids = [...targets<MediaRecord['id']>(reader, 'sent', under(sentSha256))];
  return ids.map((id) => read(reader, MEDIA, id)).filter((stored) => stored !== undefined);
}
