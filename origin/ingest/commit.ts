/**
 * Makes an upload durable, in the one order that a crash cannot spoil: the blob
 * first, whole and synced; then one transaction with record, indexes, thumbnail
 * job and quota. Only then may anyone be told.
 */
import { type BlobStore, mediaKey } from '../blobs/blob-store.js';
import type { CommitOutcome, MetaStore, NewMedia } from '../meta/store.js';
import type { Settled } from './settle.js';
import type { Staged } from './stage.js';

export interface CommitParts {
  readonly meta: Pick<MetaStore, 'commitUpload'>;
  readonly blobs: Pick<BlobStore, 'adopt' | 'remove'>;
}

export async function commit(
  parts: CommitParts,
  staged: Staged,
  settled: Exclude<Settled, { kind: 'quarantined' }>,
  media: NewMedia,
  signal: AbortSignal,
): Promise<CommitOutcome> {
  const key = mediaKey(staged.sha256);
  // Adopting keeps a copy that stands, so a bad one must be out of the way.
  if (settled.kind === 'replace') await parts.blobs.remove(key, signal);
  if (settled.kind !== 'stored') await parts.blobs.adopt(staged.path, key, staged, signal);
  return await parts.meta.commitUpload(media);
}
