/** The record of a blob, for tests of what is made of records. */

import { NO_PLACE } from '../../../../origin/blobs/blob-store.js';
import { type BlobRecord, NO_FACTS } from '../../../../origin/meta/media.js';
import type { Sha256 } from '../../../../src/ids.js';

export function blobRecord(given: Partial<BlobRecord> = {}): BlobRecord {
  return {
    sha256: 'a'.repeat(64) as Sha256,
    place: NO_PLACE,
    sizeBytes: 9,
    mime: 'image/png',
    storedAt: 3,
    picture: NO_FACTS,
    thumbs: { kind: 'pending' },
    quarantine: null,
    ...given,
  };
}
