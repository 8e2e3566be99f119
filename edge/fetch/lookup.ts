/**
 * What is held for an errand: the stored response that it selects and may see,
 * and what else is held of the same target.
 */
import type { EdgeCache, Stored } from '../cache/cache.js';
import type { CacheKey, Entry } from '../entry.js';
import { keyOf } from '../key.js';
import { matches, selectStored } from '../rfc9111/vary.js';
import { type Errand, selecting } from './origin-request.js';

export type Found =
  | { readonly kind: 'stored'; readonly stored: Stored }
  /** Nothing is held, or nothing that this caller may know of. */
  | { readonly kind: 'nothing' }
  /** Only what Vary keeps for other requests. */
  | { readonly kind: 'others'; readonly entries: readonly Entry[] };

const NOTHING: Found = { kind: 'nothing' };

export function lookUp(cache: EdgeCache, errand: Errand): Found {
  const { place, behalf } = errand;
  const stored = cache.get(keyOf(place.primaryKey, {}));
  if (stored !== undefined)
    return behalf === 'anonymous' && stored.entry.audience !== 'anyone' ? NOTHING : { kind: 'stored', stored };
  // Media never vary by more than their key says.
  return behalf === 'client' ? lookUpVaried(cache, errand) : NOTHING;
}

/** RFC 9111 4.1. */
function lookUpVaried(cache: EdgeCache, errand: Errand): Found {
  const entries = cache.variantsOf(errand.place.primaryKey);
  if (entries.length === 0) return NOTHING;
  const entry = selectStored(entries, selecting(errand));
  const stored = entry === undefined ? undefined : cache.get(entry.key);
  return stored === undefined ? { kind: 'others', entries } : { kind: 'stored', stored };
}

/** Whether an errand may be answered with an entry that was fetched for another. */
export function fits(entry: Entry, errand: Errand): boolean {
  if (errand.behalf === 'anonymous' && entry.audience !== 'anyone') return false;
  return matches(entry, selecting(errand));
}

/** Every key that is held under a primary key. */
export function keysUnder(cache: EdgeCache, primaryKey: string): readonly CacheKey[] {
  const variants = cache.variantsOf(primaryKey).map(({ key }) => key);
  return [keyOf(primaryKey, {}), ...variants, ...cache.incomplete.keysOfPrimary(primaryKey)];
}
