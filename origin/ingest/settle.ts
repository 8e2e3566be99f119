/**
 * Whether these bytes are new here, known, or barred, before anything is
 * stored. The last word is the commit's, in its own transaction; this saves the
 * work where the answer is already plain.
 */
import type { Sha256 } from '../../src/ids.js';
import { type BlobStore, mediaKey } from '../blobs/blob-store.js';
import { refusesUpload } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';

export type Classified =
  /** The blob must be put in place. */
  | { readonly kind: 'store' }
  /** What is in place is lost or no longer what it was: the one in hand heals it. */
  | { readonly kind: 'replace' }
  /** The bytes are in place already, under this id or another. */
  | { readonly kind: 'stored' }
  | { readonly kind: 'quarantined' };

export interface ClassifyDeps {
  readonly meta: Pick<MetaStore, 'findBlob'>;
  readonly blobs: Pick<BlobStore, 'stat'>;
}

/** The caller holds the hash (in-flight.ts), so that what is in place stays in place until the commit. */
export async function classify(
  deps: ClassifyDeps,
  upload: { readonly sha256: Sha256; readonly sizeBytes: number },
  signal: AbortSignal,
): Promise<Classified> {
  const blob = await deps.meta.findBlob(upload.sha256);
  if (blob === undefined) return { kind: 'store' };
  if (refusesUpload(blob)) return { kind: 'quarantined' };
  if (blob.quarantine?.cause === 'rot') return { kind: 'replace' };
  const sizeBytes = await deps.blobs.stat(mediaKey(upload.sha256), signal);
  return { kind: sizeBytes === upload.sizeBytes ? 'stored' : 'replace' };
}
