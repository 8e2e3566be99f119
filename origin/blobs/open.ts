/** Opens the blob store that the configuration names. */
import { unreachable } from '../../src/errors.js';
import type { ProcessDeps } from '../../src/process.js';
import type { BlobStore } from './blob-store.js';
import type { BlobsConfig } from './config.js';
import { openLocalStore } from './local.js';

/** Passes on only these two of its deps: the caller's may have a `config` of another kind. */
export async function openBlobStore(
  config: BlobsConfig,
  { clock, log }: Pick<ProcessDeps, 'clock' | 'log'>,
): Promise<BlobStore> {
  switch (config.adaptor) {
    case 'local':
      return await openLocalStore(config);
    case 's3': {
      // Loaded only when it is used: the SDK takes longer to load than the rest of the origin.
      const { openS3Store } = await import('./s3.js');
      return await openS3Store({ config: config.s3, stageFolder: config.stageFolder, clock, log });
    }
    default:
      return unreachable(config.adaptor);
  }
}
