/**
 * Makes an upload durable, in the one order that a crash cannot spoil: the blob
 * first, whole and synced; then one transaction with record, indexes, thumbnail
 * job and quota. Only then may anyone be told.
 */
import { type BlobStore, mediaKey } from '../blobs/blob-store.js';
import type { CommitOutcome, MetaStore, NewMedia } from '../meta/store.js';
import type { Classified } from './settle.js';
import type { Staged } from './stage.js';

export interface CommitDeps {
  readonly meta: Pick<MetaStore, 'commitUpload'>;
  readonly blobs: Pick<BlobStore, 'adopt' | 'remove'>;
}

export async function commit(
  deps: CommitDeps,
  staged: Staged,
  classified: Exclude<Classified, { kind: 'quarantined' }>,
  media: NewMedia,
  signal: AbortSignal,
): Promise<CommitOutcome> {
  const key = mediaKey(staged.sha256);
  // Adopting keeps a copy that stands, so a bad one must be out of the way.
  if (classified.kind === 'replace') await deps.blobs.remove(key, signal);
  if (classified.kind !== 'stored') await deps.blobs.adopt(staged.path, key, staged, signal);
  return await deps.meta.commitUpload(media);
}
