/**
 * What is held for an errand: the stored response that it selects and may see,
 * and what else is held of the same target.
 */
import type { EdgeCache, Stored } from '../cache/cache.js';
import type { CacheKey, Entry } from '../entry.js';
import { keyOf } from '../key.js';
import { matches, selectStored } from '../rfc9111/vary.js';
import { type CacheRequest, selecting } from './origin-request.js';

export type Found =
  | { readonly kind: 'stored'; readonly stored: Stored }
  /** Nothing is held, or nothing that this caller may know of. */
  | { readonly kind: 'nothing' }
  /** Only what Vary keeps for other requests. */
  | { readonly kind: 'others'; readonly entries: readonly Entry[] };

const NOTHING: Found = { kind: 'nothing' };

export function lookUp(cache: EdgeCache, wanted: CacheRequest): Found {
  const { target, fetchAs } = wanted;
  const stored = cache.get(keyOf(target.primaryKey, {}));
  if (stored !== undefined)
    return fetchAs === 'anonymous' && stored.entry.audience !== 'anyone' ? NOTHING : { kind: 'stored', stored };
  // Media never vary by more than their key says.
  return fetchAs === 'client' ? lookUpVaried(cache, wanted) : NOTHING;
}

/** RFC 9111 4.1. */
function lookUpVaried(cache: EdgeCache, wanted: CacheRequest): Found {
  const entries = cache.variantsOf(wanted.target.primaryKey);
  if (entries.length === 0) return NOTHING;
  const entry = selectStored(entries, selecting(wanted));
  const stored = entry === undefined ? undefined : cache.get(entry.key);
  return stored === undefined ? { kind: 'others', entries } : { kind: 'stored', stored };
}

/** Whether an errand may be answered with an entry that was fetched for another. */
export function fits(entry: Entry, wanted: CacheRequest): boolean {
  if (wanted.fetchAs === 'anonymous' && entry.audience !== 'anyone') return false;
  return matches(entry, selecting(wanted));
}

/** Every key that is held under a primary key. */
export function keysUnder(cache: EdgeCache, primaryKey: string): readonly CacheKey[] {
  const variants = cache.variantsOf(primaryKey).map(({ key }) => key);
  return [keyOf(primaryKey, {}), ...variants, ...cache.incomplete.keysOfPrimary(primaryKey)];
}
