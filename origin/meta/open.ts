/** Opens the metadata store that the configuration names. */
import type { MetaConfig } from './config.js';
import { type MetaSnapshot, type OpenOptions, openMetaReader, openMetaStore } from './lmdb.js';
import { openPostgresReader, openPostgresStore } from './postgres/store.js';
import type { MetaStore } from './store.js';
import type { MetaDeps } from './transactions.js';

/**
 * For an origin of this name, or for a command: `beside` the origins where the store allows that, or one that needs the
 * store for itself. Rejects with StoreInUse while others have it that may not be beside.
 */
export function openMeta(
  config: MetaConfig,
  deps: MetaDeps,
  { origin, beside = false, ...options }: OpenOptions & { readonly origin?: string; readonly beside?: boolean } = {},
): Promise<MetaStore> {
  switch (config.adaptor) {
    case 'lmdb':
      return openMetaStore(config, deps, options);
    case 'postgres':
      return openPostgresStore(config, {
        ...deps,
        random: Math.random,
        opener: origin === undefined ? { kind: beside ? 'beside' : 'alone' } : { kind: 'origin', name: origin },
      });
  }
}

/** For a second process, while another one may be writing. */
export function openMetaSnapshot(config: MetaConfig, deps: MetaDeps): Promise<MetaSnapshot> {
  switch (config.adaptor) {
    case 'lmdb':
      return openMetaReader(config, deps);
    case 'postgres':
      return openPostgresReader(config, deps);
  }
}
