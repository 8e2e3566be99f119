/** What is stored for a request: the response that it selects and its caller may see, or else what Vary keeps for others. */
import { requestDirectives } from '../../src/http/cache-control.js';
import { maySee } from '../authorize.js';
import type { EdgeCache, Stored } from '../cache/cache.js';
import type { CacheKey, Entry } from '../entry.js';
import { keyOf } from '../key.js';
import { type Decision, decide } from '../rfc9111/decide.js';
import { matches, selectStored } from '../rfc9111/vary.js';
import { type CacheRequest, selecting } from './cache-request.js';
import type { Engine } from './engine.js';

export type Found =
  | { readonly kind: 'stored'; readonly stored: Stored }
  /** Nothing is stored, or nothing that this caller may know of. */
  | { readonly kind: 'nothing' }
  /** Only responses that Vary keeps for other requests. */
  | { readonly kind: 'others'; readonly entries: readonly Entry[] };

export const NOTHING_FOUND: Found = { kind: 'nothing' };

export function lookUp(cache: Pick<EdgeCache, 'get' | 'variantsOf'>, wanted: CacheRequest): Found {
  const stored = cache.get(keyOf(wanted.target.primaryKey, {}));
  if (stored !== undefined) return maySee(stored.entry, wanted) ? { kind: 'stored', stored } : NOTHING_FOUND;
  // Media never vary by more than their key says.
  return wanted.fetchAs === 'client' ? lookUpVaried(cache, wanted) : NOTHING_FOUND;
}

/** RFC 9111 4.1. */
function lookUpVaried(cache: Pick<EdgeCache, 'get' | 'variantsOf'>, wanted: CacheRequest): Found {
  const entries = cache.variantsOf(wanted.target.primaryKey);
  if (entries.length === 0) return NOTHING_FOUND;
  const entry = selectStored(entries, selecting(wanted));
  const stored = entry === undefined ? undefined : cache.get(entry.key);
  return stored === undefined ? { kind: 'others', entries } : { kind: 'stored', stored };
}

/** Reported as `stale`: Cache-Status has no word for it (RFC 9211 2.2). */
const UNCONFIRMED: Decision = { kind: 'revalidate', because: 'stale' };

/** RFC 9111 4, and the lease: what the request may have of this entry. */
export function decideOn(engine: Engine, wanted: CacheRequest, entry: Entry | undefined): Decision {
  if (entry !== undefined && !mayReuse(engine, entry)) return UNCONFIRMED;
  return decide(entry, requestDirectives(wanted.request), engine.clock.now(), engine.deciding);
}

/** Unless the lease says `yes`, the edge may serve only media that the origin has just confirmed. */
export function mayReuse(engine: Pick<Engine, 'lease'>, { mediaId }: Pick<Entry, 'mediaId'>): boolean {
  return mediaId === null || engine.lease() === 'yes';
}

/** Whether a request may be answered with an entry that was fetched for another request. */
export function fits(entry: Entry, wanted: CacheRequest): boolean {
  return maySee(entry, wanted) && matches(entry, selecting(wanted));
}

/** Every key that is stored under a primary key. */
export function keysUnder(cache: EdgeCache, primaryKey: string): readonly CacheKey[] {
  const variants = cache.variantsOf(primaryKey).map(({ key }) => key);
  return [keyOf(primaryKey, {}), ...variants, ...cache.incomplete.keysOfPrimary(primaryKey)];
}
