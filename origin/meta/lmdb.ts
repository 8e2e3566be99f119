/** The metadata store on LMDB. */
import type { Clock } from '../../src/clock.js';
import type { Log } from '../../src/log.js';
import type { MetaConfig } from './config.js';
import type { MetaStore } from './store.js';

export interface MetaParts {
  readonly clock: Clock;
  readonly log: Log;
  /** A random name, for a new journal. */
  readonly randomName: () => string;
}

export function openMetaStore(config: MetaConfig, _parts: MetaParts): Promise<MetaStore> {
  return Promise.reject(new Error(`no metadata store in ${config.folder} yet`));
}
