/**
 * The steps before the transaction of an upload. `classify` decides whether the
 * blob store has the bytes already. `publish` puts them there, whole and durable
 * (in a local store the bytes of files are synced in stage.ts, those of small bodies,
 * names and folders in blobs/local.ts), in a place of their own that was intended
 * before. No crash can spoil the order: the blob first, then one synced transaction
 * with record, indexes, thumbnail job and quota. Only after that may anyone learn of it.
 *
 * Nothing is locked meanwhile. The transaction says `bytes_gone` if what `classify`
 * found was removed before it; and what `publish` stored is in no record yet, so
 * nobody else knows its place.
 */
import type { Sha256 } from '../../src/ids.js';
import { type AbandonDeps, abandon } from '../blobs/abandon.js';
import { type BlobKey, type BlobStore, mediaKey, newPlace, type Place } from '../blobs/blob-store.js';
import { refusesUpload } from '../meta/media.js';
import type { MetaStore, UploadBytes } from '../meta/store.js';
import { type Staged, writeOut } from './stage.js';

export type Classified =
  /** The blob store does not have the bytes. */
  | { readonly kind: 'new' }
  /** The stored copy is lost or damaged; the upload replaces it. */
  | { readonly kind: 'damaged'; readonly place: Place }
  /** The blob store has the bytes. */
  | { readonly kind: 'stored' }
  /** Uploads of these bytes are refused. */
  | { readonly kind: 'quarantined' };

export interface CommitDeps extends AbandonDeps {
  readonly meta: Pick<MetaStore, 'findBlob' | 'intend' | 'withdraw'>;
  readonly blobs: Pick<BlobStore, 'stat' | 'adopt' | 'put' | 'remove'>;
}

/** The transaction decides on quarantine again; to know it here saves the work before. */
export async function classify(
  deps: { readonly meta: Pick<MetaStore, 'findBlob'>; readonly blobs: Pick<BlobStore, 'stat'> },
  upload: { readonly sha256: Sha256; readonly sizeBytes: number },
  signal: AbortSignal,
): Promise<Classified> {
  const blob = await deps.meta.findBlob(upload.sha256);
  if (blob === undefined) return { kind: 'new' };
  if (refusesUpload(blob)) return { kind: 'quarantined' };
  if (blob.quarantine?.cause === 'rot') return { kind: 'damaged', place: blob.place };
  const sizeBytes = await deps.blobs.stat(mediaKey(blob), signal);
  return sizeBytes === upload.sizeBytes ? { kind: 'stored' } : { kind: 'damaged', place: blob.place };
}

/** If the result is `stored` and no record names its place in the end, the caller abandons it. */
export async function publish(
  deps: CommitDeps,
  staged: Staged,
  classified: Exclude<Classified, { kind: 'quarantined' }>,
  signal: AbortSignal,
): Promise<UploadBytes> {
  if (classified.kind === 'stored') return { kind: 'found' };
  const place = newPlace();
  const key = mediaKey({ sha256: staged.sha256, place });
  await deps.meta.intend([key]);
  try {
    await putOrAdopt(deps, staged, key, signal);
  } catch (thrown) {
    await abandon(deps, [key]);
    throw thrown;
  }
  return { kind: 'stored', place, damaged: classified.kind === 'damaged' ? classified.place : null };
}

async function putOrAdopt(
  { blobs }: Pick<CommitDeps, 'blobs'>,
  staged: Staged,
  key: BlobKey,
  signal: AbortSignal,
): Promise<void> {
  if (staged.inMemory === true && (await blobs.put?.(key, staged.head, signal)) === 'put') return;
  const file = await writeOut(staged, true);
  await blobs.adopt(file.path, key, file, signal);
}
