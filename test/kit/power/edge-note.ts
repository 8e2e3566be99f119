/** What edge-workload.ts notes, and what it and its check agree on. */
import type { Entry } from '../../../edge/entry.js';
import type { MediaId } from '../../../src/ids.js';
import { bytesOf, entryOf, mediaIdOf } from '../edge/cache.js';

export type EdgeNote =
  /** A fill of this response begins. */
  | { readonly will: 'store'; readonly stored: StoredMedia }
  /** The origin has an entry with this number: these media were taken down. */
  | { readonly did: 'entry'; readonly seq: number; readonly ids: readonly MediaId[] }
  /** The edge is about to tell the origin that everything up to this number is applied. */
  | { readonly will: 'confirm'; readonly seq: number };

/** Bytes of a seed under the key of a media. Several media may have the same bytes. */
export interface StoredMedia {
  readonly media: number;
  readonly seed: number;
  readonly sizeBytes: number;
}

export function contentOf({ seed, sizeBytes }: StoredMedia): Buffer {
  return bytesOf(sizeBytes, seed);
}

export function cacheEntryOf(stored: StoredMedia): Entry {
  return entryOf(`/${stored.media}`, contentOf(stored), { mediaId: mediaIdOf(stored.media) });
}
