/**
 * What to do about a request, given what is stored for it (RFC 9111 4). Pure, and
 * a hit makes no new object.
 *
 * Access, takedown and the lease are decided before; ranges and conditions after,
 * on the response that is chosen here.
 */
import type { EpochMs } from '../../src/clock.js';
import { choice, section, type ValueOf } from '../../src/config/field.js';
import { governingDirectives, type RequestDirectives } from '../../src/http/cache-control.js';
import type { RequestHead } from '../../src/http/conditional.js';
import type { Entry } from '../entry.js';
import { ageMs, forbidsStale } from './freshness.js';
import type { CacheMode } from './storable.js';

export const reuseSection = section('What requests may demand of the cache.', {
  refresh: choice({
    default: 'by_access',
    of: ['by_access', 'honour', 'ignore'],
    help: 'Whether no-cache, max-age, min-fresh and Pragma in a request make the edge ask the origin again. by_access: only with `access: off`, because media never change.',
  }),
});

export type ReuseRules = ValueOf<typeof reuseSection>;

export function honoursRefresh(rules: ReuseRules, mode: CacheMode): boolean {
  return rules.refresh === 'honour' || (rules.refresh === 'by_access' && mode === 'off');
}

export type Decision =
  /** Stored and fresh. */
  | { readonly kind: 'hit' }
  /** Stored and stale, and the request allows it to be stale (max-stale). */
  | { readonly kind: 'hit_stale' }
  /** Stored and stale: served at once while a newer response is fetched (RFC 5861 3). */
  | { readonly kind: 'stale_while_revalidate' }
  /** Stored, but it is validated first: it is stale, or the request wants a fresher response. */
  | { readonly kind: 'revalidate'; readonly because: 'stale' | 'request' }
  /** Nothing is stored that this request selects. */
  | { readonly kind: 'miss' }
  /** 5.2.1.7: the request wants a stored response, and none fits: 504. */
  | { readonly kind: 'only_if_cached' };

const HIT: Decision = { kind: 'hit' };
const HIT_STALE: Decision = { kind: 'hit_stale' };
const WHILE_REVALIDATE: Decision = { kind: 'stale_while_revalidate' };
const STALE: Decision = { kind: 'revalidate', because: 'stale' };
const UNWANTED: Decision = { kind: 'revalidate', because: 'request' };
const MISS: Decision = { kind: 'miss' };
const ONLY_IF_CACHED: Decision = { kind: 'only_if_cached' };

/** The members of an Entry that matter for the decision. */
export type DecidableEntry = Pick<
  Entry,
  'headers' | 'bornAt' | 'staleAt' | 'revalidateUntil' | 'errorUntil' | 'deleteAt'
>;

export interface DecideRules {
  /** Whether requests may demand a fresher response than the stored one. */
  readonly honoursRefresh: boolean;
  /** As in FreshnessRules: the fields in which a stored response says whether it may be stale. */
  readonly targetedFields: readonly string[];
}

export function decide(
  entry: DecidableEntry | undefined,
  directives: RequestDirectives,
  now: EpochMs,
  rules: DecideRules,
): Decision {
  if (entry === undefined || now >= entry.deleteAt) return directives.onlyIfCached ? ONLY_IF_CACHED : MISS;
  const suits = !rules.honoursRefresh || suffices(entry, directives, now);
  if (suits && now < entry.staleAt) return HIT;
  if (suits && acceptsStale(entry, directives, now, rules)) return HIT_STALE;
  // RFC 5861 3. A request that limits the age wants no stale response (5.2.1.1), unless its limits are ignored.
  const limited = rules.honoursRefresh && (directives.maxAgeMs !== undefined || directives.minFreshMs !== undefined);
  if (suits && !limited && now < entry.revalidateUntil) return WHILE_REVALIDATE;
  if (directives.onlyIfCached) return ONLY_IF_CACHED;
  return now < entry.staleAt ? UNWANTED : STALE;
}

/** Whether a stored response is young and fresh enough for the request: 5.2.1.1, 5.2.1.3, 5.2.1.4. */
function suffices(entry: DecidableEntry, directives: RequestDirectives, now: EpochMs): boolean {
  if (directives.noCache) return false;
  const { maxAgeMs = Number.POSITIVE_INFINITY, minFreshMs = Number.NEGATIVE_INFINITY } = directives;
  // Clients send `max-age=0` to revalidate; an age of exactly 0 must not prevent that.
  if (maxAgeMs === 0 || ageMs(entry, now) > maxAgeMs) return false;
  return entry.staleAt - now >= minFreshMs;
}

/** 5.2.1.2, 4.2.4: the request allows it to be so stale, and the origin does not forbid it. */
function acceptsStale(entry: DecidableEntry, directives: RequestDirectives, now: EpochMs, rules: DecideRules): boolean {
  const { maxStaleMs } = directives;
  if (maxStaleMs === undefined || now - entry.staleAt > maxStaleMs) return false;
  return !forbidsStale(governingDirectives(entry.headers, rules.targetedFields).directives);
}

export type PassReason = 'method' | 'precondition';

/**
 * Why a request bypasses the cache, if it does. RFC 9111 4: only GET and HEAD are
 * answered from the cache. 4.3.2: the origin evaluates If-Match and
 * If-Unmodified-Since. For media the edge may do so, because a stored response
 * never differs from the origin's.
 */
export function passReason(request: RequestHead, mode: CacheMode): PassReason | undefined {
  if (request.method !== 'GET' && request.method !== 'HEAD') return 'method';
  if (mode === 'media') return undefined;
  const conditional = request.header('if-match') !== undefined || request.header('if-unmodified-since') !== undefined;
  return conditional ? 'precondition' : undefined;
}

/** How a fetch failed: there was no response, or one with this status. */
export type OriginFailure = { readonly kind: 'none' } | { readonly kind: 'status'; readonly status: number };

/** RFC 5861 4: the statuses that count as an error. */
const ERROR_STATUSES: ReadonlySet<number> = new Set([500, 502, 503, 504]);

export function isOriginError(status: number): boolean {
  return ERROR_STATUSES.has(status);
}

/** `pass_on`: the client gets the failure. */
export type FailureDecision = { readonly kind: 'serve_stale' } | { readonly kind: 'pass_on' };

const SERVE_STALE: FailureDecision = { kind: 'serve_stale' };
const PASS_ON: FailureDecision = { kind: 'pass_on' };

/** RFC 5861 4, RFC 9111 4.2.4, 4.3.3: whether a stored response may be served in place of one that failed. */
export function decideFailure(
  entry: DecidableEntry | undefined,
  failure: OriginFailure,
  directives: RequestDirectives,
  now: EpochMs,
  rules: Pick<DecideRules, 'targetedFields'>,
): FailureDecision {
  if (entry === undefined || now >= entry.deleteAt) return PASS_ON;
  if (failure.kind === 'status' && !isOriginError(failure.status)) return PASS_ON;
  // Never before `staleAt`. 5.2.2.4: a response with no-cache is never fresh, so the instants tell enough.
  if (now < entry.errorUntil) return SERVE_STALE;
  const { staleIfErrorMs } = directives;
  if (staleIfErrorMs === undefined || now - entry.staleAt >= staleIfErrorMs) return PASS_ON;
  return forbidsStale(governingDirectives(entry.headers, rules.targetedFields).directives) ? PASS_ON : SERVE_STALE;
}
