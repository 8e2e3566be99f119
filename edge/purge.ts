/** Purging by hand: reads what an operator asks for, and does it. */
import type { MediaId } from '../src/ids.js';
import type { EdgeCache } from './cache/cache.js';

export type PurgeOrder =
  | { readonly kind: 'ids'; readonly ids: readonly MediaId[] }
  /** Of the normalised target: `/v1/media/01J`. */
  | { readonly kind: 'prefix'; readonly prefix: string }
  | { readonly kind: 'all' };

export interface PurgeHooks {
  readonly cache: Pick<EdgeCache, 'takeDown' | 'purge'>;
  /** For what is under way and not in the cache yet. */
  onTakedown(id: MediaId): void;
  onPurge(which: { readonly prefix: string } | { readonly all: true }): void;
}
