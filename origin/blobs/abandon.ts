/**
 * Ends what was begun with an intent and was not recorded: a refused upload, a broken
 * off job. The key is in no record and never will be, so its bytes can go at once.
 */
import type { MetaStore } from '../meta/store.js';
import type { BlobKey, BlobStore } from './blob-store.js';

export interface AbandonDeps {
  readonly meta: Pick<MetaStore, 'withdraw'>;
  readonly blobs: Pick<BlobStore, 'remove'>;
}

/** Never rejects: what cannot be removed now is found as left behind (sweep.ts). */
export async function abandon({ meta, blobs }: AbandonDeps, keys: readonly BlobKey[]): Promise<void> {
  const unrecorded = await meta.withdraw(keys).catch((): readonly BlobKey[] => []);
  await Promise.all(unrecorded.map((key) => blobs.remove(key).catch(() => undefined)));
}
