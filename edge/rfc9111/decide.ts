/**
 * What is to be done about a request, given what is stored for it (RFC 9111 4):
 * pure, on plain values, and without a new object on the way to a hit.
 *
 * Access, takedown and the lease are decided before; ranges and conditions
 * after, on whatever response this chooses.
 */
import type { EpochMs } from '../../src/clock.js';
import { choice, section, type ValueOf } from '../../src/config/field.js';
import { governingDirectives, type RequestDirectives } from '../../src/http/cache-control.js';
import type { RequestHead } from '../../src/http/conditional.js';
import type { Entry } from '../entry.js';
import { ageMs, forbidsStale } from './freshness.js';
import type { CacheMode } from './storable.js';

export const reuseSection = section('What clients may ask of the cache.', {
  refresh: choice({
    default: 'by_access',
    of: ['by_access', 'honour', 'ignore'],
    help: 'Whether no-cache, max-age, min-fresh and Pragma of a request make the edge ask the origin again. by_access: only with `access: off`; media never change, so that asking again is work without use.',
  }),
});

export type ReuseRules = ValueOf<typeof reuseSection>;

export function honoursRefresh(rules: ReuseRules, mode: CacheMode): boolean {
  return rules.refresh === 'honour' || (rules.refresh === 'by_access' && mode === 'off');
}

export type Decision =
  /** Stored and fresh. */
  | { readonly kind: 'hit' }
  /** Stored and stale, and served so because the client said that it may be (max-stale). */
  | { readonly kind: 'hit_stale' }
  /** Stored and stale; served at once while a newer one is fetched (RFC 5861 3). */
  | { readonly kind: 'stale_while_revalidate' }
  /** Stored, but to be validated first: it is stale, or the request wants a fresher one. */
  | { readonly kind: 'revalidate'; readonly because: 'stale' | 'request' }
  /** Nothing stored that this request selects. */
  | { readonly kind: 'miss' }
  /** 5.2.1.7: only what is stored was wanted, and there is nothing fit: 504. */
  | { readonly kind: 'only_if_cached' };

const HIT: Decision = { kind: 'hit' };
const HIT_STALE: Decision = { kind: 'hit_stale' };
const WHILE_REVALIDATE: Decision = { kind: 'stale_while_revalidate' };
const STALE: Decision = { kind: 'revalidate', because: 'stale' };
const UNWANTED: Decision = { kind: 'revalidate', because: 'request' };
const MISS: Decision = { kind: 'miss' };
const ONLY_IF_CACHED: Decision = { kind: 'only_if_cached' };

/** The part of an Entry that decides. */
export type Decided = Pick<Entry, 'headers' | 'bornAt' | 'staleAt' | 'revalidateUntil' | 'errorUntil' | 'deleteAt'>;

export interface DecideRules {
  /** Whether the request may have what is stored refreshed: `honoursRefresh`. */
  readonly honoursRefresh: boolean;
  /** As in FreshnessRules: where a stored response says whether it may be stale. */
  readonly targetedFields: readonly string[];
}

export function decide(
  entry: Decided | undefined,
  directives: RequestDirectives,
  now: EpochMs,
  rules: DecideRules,
): Decision {
  if (entry === undefined || now >= entry.deleteAt) return directives.onlyIfCached ? ONLY_IF_CACHED : MISS;
  const wanted = !rules.honoursRefresh || suffices(entry, directives, now);
  if (wanted && now < entry.staleAt) return HIT;
  if (wanted && acceptsStale(entry, directives, now, rules)) return HIT_STALE;
  // RFC 5861 3. A request that limits the age wants no stale answer (5.2.1.1), unless its limits do not count.
  const limited = rules.honoursRefresh && (directives.maxAgeMs !== undefined || directives.minFreshMs !== undefined);
  if (wanted && !limited && now < entry.revalidateUntil) return WHILE_REVALIDATE;
  if (directives.onlyIfCached) return ONLY_IF_CACHED;
  return now < entry.staleAt ? UNWANTED : STALE;
}

/** Whether what is stored is young and fresh enough for the request: 5.2.1.1, 5.2.1.3, 5.2.1.4. */
function suffices(entry: Decided, directives: RequestDirectives, now: EpochMs): boolean {
  if (directives.noCache) return false;
  const { maxAgeMs, minFreshMs } = directives;
  // An age of 0 is all but never found: `max-age=0` is how clients ask to revalidate.
  if (maxAgeMs !== undefined && (maxAgeMs === 0 || ageMs(entry, now) > maxAgeMs)) return false;
  return minFreshMs === undefined || entry.staleAt - now >= minFreshMs;
}

/** 5.2.1.2 and 4.2.4: the client takes it so stale, and the origin does not forbid it. */
function acceptsStale(entry: Decided, directives: RequestDirectives, now: EpochMs, rules: DecideRules): boolean {
  const { maxStaleMs } = directives;
  if (maxStaleMs === undefined || now - entry.staleAt > maxStaleMs) return false;
  return !forbidsStale(governingDirectives(entry.headers, rules.targetedFields).directives);
}

export type PassReason = 'method' | 'precondition';

/**
 * Whether a request is none of a cache's affair. RFC 9111 4: only GET and HEAD
 * are answered from what is stored. 4.3.2: If-Match and If-Unmodified-Since are
 * for the origin to judge, which in the media service the edge stands in for:
 * what it holds is what the origin has.
 */
export function passReason(request: RequestHead, mode: CacheMode): PassReason | undefined {
  if (request.method !== 'GET' && request.method !== 'HEAD') return 'method';
  if (mode === 'media') return undefined;
  const judged = request.header('if-match') !== undefined || request.header('if-unmodified-since') !== undefined;
  return judged ? 'precondition' : undefined;
}

/** How a fetch went wrong: no answer, or one that ended early (`none`), or an answer with an error. */
export type OriginFailure = { readonly kind: 'none' } | { readonly kind: 'status'; readonly status: number };

/** RFC 5861 4: the answers that count as an error. */
const ERROR_STATUSES: ReadonlySet<number> = new Set([500, 502, 503, 504]);

export function isOriginError(status: number): boolean {
  return ERROR_STATUSES.has(status);
}

export type FailureDecision = { readonly kind: 'serve_stale' } | { readonly kind: 'tell' };

const SERVE_STALE: FailureDecision = { kind: 'serve_stale' };
const TELL: FailureDecision = { kind: 'tell' };

/** RFC 5861 4, RFC 9111 4.2.4 and 4.3.3: whether what is stored may stand in for an answer that failed. */
export function decideFailure(
  entry: Decided | undefined,
  failure: OriginFailure,
  directives: RequestDirectives,
  now: EpochMs,
  rules: Pick<DecideRules, 'targetedFields'>,
): FailureDecision {
  if (entry === undefined || now >= entry.deleteAt) return TELL;
  if (failure.kind === 'status' && !isOriginError(failure.status)) return TELL;
  if (now < entry.staleAt || now < entry.errorUntil) {
    // 5.2.2.4: no-cache leaves nothing fresh, so `staleAt` alone is enough here.
    return SERVE_STALE;
  }
  const { staleIfErrorMs } = directives;
  if (staleIfErrorMs === undefined || now - entry.staleAt >= staleIfErrorMs) return TELL;
  return forbidsStale(governingDirectives(entry.headers, rules.targetedFields).directives) ? TELL : SERVE_STALE;
}
