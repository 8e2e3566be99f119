/**
 * The steps before the transaction of an upload. `classify` decides whether the
 * blob store has the bytes already. `publish` puts them there, whole and durable
 * (in a local store the bytes of files are synced in stage.ts, those of small bodies,
 * names and folders in blobs/local.ts). No crash can spoil the order: the blob first, then one synced
 * transaction with record, indexes, thumbnail job and quota. Only after that may
 * anyone learn of it.
 *
 * The caller has the hash lock (hash-locks.ts) from before `classify` until after
 * the transaction, so that the sweep removes no blob in between.
 */
import type { Sha256 } from '../../src/ids.js';
import { type BlobStore, mediaKey } from '../blobs/blob-store.js';
import { refusesUpload } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';
import { type Staged, writeOut } from './stage.js';

export type Classified =
  /** The blob store does not have the bytes. */
  | { readonly kind: 'new' }
  /** The stored copy is lost or damaged; the upload replaces it. */
  | { readonly kind: 'damaged' }
  /** The blob store has the bytes. */
  | { readonly kind: 'stored' }
  /** Uploads of these bytes are refused. */
  | { readonly kind: 'quarantined' };

export interface CommitDeps {
  readonly meta: Pick<MetaStore, 'findBlob'>;
  readonly blobs: Pick<BlobStore, 'stat' | 'adopt' | 'put' | 'remove'>;
}

/** The transaction decides on quarantine again; to know it here saves the work before. */
export async function classify(
  deps: CommitDeps,
  upload: { readonly sha256: Sha256; readonly sizeBytes: number },
  signal: AbortSignal,
): Promise<Classified> {
  const blob = await deps.meta.findBlob(upload.sha256);
  if (blob === undefined) return { kind: 'new' };
  if (refusesUpload(blob)) return { kind: 'quarantined' };
  if (blob.quarantine?.cause === 'rot') return { kind: 'damaged' };
  const sizeBytes = await deps.blobs.stat(mediaKey(upload.sha256), signal);
  return { kind: sizeBytes === upload.sizeBytes ? 'stored' : 'damaged' };
}

export async function publish(
  deps: Pick<CommitDeps, 'blobs'>,
  staged: Staged,
  classified: Exclude<Classified, { kind: 'quarantined' }>,
  signal: AbortSignal,
): Promise<void> {
  const key = mediaKey(staged.sha256);
  // `adopt` may keep what is stored under the key already, so a damaged copy must be removed first.
  if (classified.kind === 'damaged') await deps.blobs.remove(key, signal);
  if (classified.kind === 'stored') return;
  if (staged.inMemory === true && (await deps.blobs.put?.(key, staged.head, signal)) === 'put') return;
  const file = await writeOut(staged, true);
  await deps.blobs.adopt(file.path, key, file, signal);
}
