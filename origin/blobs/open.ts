/** Opens the blob store that the configuration names. */
import type { Parts } from '../../src/process.js';
import type { BlobStore } from './blob-store.js';
import type { BlobsConfig } from './config.js';
import { openLocalStore } from './local.js';

export async function openBlobStore(config: BlobsConfig, _parts: Pick<Parts, 'clock' | 'log'>): Promise<BlobStore> {
  if (config.adaptor === 's3') throw new Error('follows');
  return await openLocalStore(config);
}
