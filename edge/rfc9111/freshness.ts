/**
 * For how long a response is fresh and how old it already is (RFC 9111 4.2),
 * said in instants: born, stale, no longer to be served while it is
 * revalidated, no longer when the origin fails. Pure; the rules come from the
 * configuration.
 */
import type { EpochMs } from '../../src/clock.js';
import { choice, duration, list, ratio, section, text, type ValueOf } from '../../src/config/field.js';
import { type GoverningDirectives, parseDeltaSeconds, type ResponseDirectives } from '../../src/http/cache-control.js';
import { parseHttpDate } from '../../src/http/date.js';
import { fieldLines, fieldValue, listMembers } from '../../src/http/fields.js';
import type { HeaderList } from '../../src/http/reply.js';

export const freshnessSection = section('For how long responses are reused where they do not say it themselves.', {
  targetedFields: list({
    default: ['cdn-cache-control'],
    of: text({
      default: 'cdn-cache-control',
      pattern: /^[a-z0-9-]{1,64}$/,
      accepts: 'a field name in lower case',
      help: '',
    }),
    max: 8,
    help: 'Fields that speak to this cache in place of Cache-Control (RFC 9213), the first that is there.',
  }),
  heuristicShare: ratio({
    default: 0.1,
    min: 0,
    max: 1,
    help: 'Without a stated lifetime: this share of the time since the last change. 0: none.',
  }),
  heuristicMaxMs: duration({ default: '24h', help: 'And at most so long.' }),
  staleWhileRevalidateMs: duration({
    default: '0s',
    help: 'How long after its lifetime a response is still served while a newer one is fetched, where it does not say.',
  }),
  staleIfErrorMs: duration({
    default: '60s',
    help: 'How long after its lifetime a response is still served when the origin fails, where it does not say.',
  }),
  malformedAge: choice({
    default: 'ignore',
    of: ['ignore', 'stale'],
    help: 'What an Age field that is no number or stands there twice means: nothing (RFC 9111 5.1), or that the response is too old.',
  }),
});

export type FreshnessRules = ValueOf<typeof freshnessSection>;

/** What an operator has set for a kind of response; null leaves it to the origin. */
export interface LifetimeOverride {
  readonly ttlMs: number | null;
  readonly staleWhileRevalidateMs: number | null;
  readonly staleIfErrorMs: number | null;
}

export const NO_OVERRIDE: LifetimeOverride = { ttlMs: null, staleWhileRevalidateMs: null, staleIfErrorMs: null };

/** What gave a response its lifetime, most telling first. */
export type LifetimeBasis = 'override' | 's-maxage' | 'max-age' | 'expires' | 'heuristic' | 'none';

export interface Freshness {
  readonly basis: LifetimeBasis;
  readonly bornAt: EpochMs;
  readonly staleAt: EpochMs;
  readonly revalidateUntil: EpochMs;
  readonly errorUntil: EpochMs;
}

/** A response's head as it was received. */
export interface ReceivedHead {
  readonly status: number;
  readonly headers: HeaderList;
  readonly requestedAt: EpochMs;
  readonly receivedAt: EpochMs;
}

/**
 * What tells how old a response was on arrival. RFC 9111 4.2.3 lets Age alone
 * do so, and Date beside it where a cache on the way may have left Age out; a
 * Date is only as good as two clocks agree.
 */
export type AgeSource = 'age' | 'age_and_date';

/**
 * An override takes the place of the lifetimes that the origin states or leaves
 * out, never of its restrictions: what must be revalidated still is, and what is
 * provisional becomes no older than the origin says.
 */
export function freshness(
  response: ReceivedHead,
  governing: GoverningDirectives,
  rules: FreshnessRules,
  ageSource: AgeSource,
  override: LifetimeOverride = NO_OVERRIDE,
): Freshness {
  const { directives } = governing;
  const bornAt = bornAtOf(response, rules, ageSource);
  const stated = lifetime(response, governing, rules);
  const { basis, lifetimeMs } =
    override.ttlMs === null || (directives.provisional && stated.lifetimeMs < override.ttlMs)
      ? stated
      : { basis: 'override' as const, lifetimeMs: override.ttlMs };
  // 5.2.2.4: no-cache is never fresh.
  const staleAt = directives.noCache === 'all' ? bornAt : bornAt + lifetimeMs;
  if (forbidsStale(directives)) return { basis, bornAt, staleAt, revalidateUntil: staleAt, errorUntil: staleAt };
  // What never was fresh is to be asked for each time: only those who say so let it be served stale.
  const usual = lifetimeMs > 0 ? rules : NO_GRACE;
  const revalidateMs =
    override.staleWhileRevalidateMs ?? directives.staleWhileRevalidateMs ?? usual.staleWhileRevalidateMs;
  const errorMs = override.staleIfErrorMs ?? directives.staleIfErrorMs ?? usual.staleIfErrorMs;
  return { basis, bornAt, staleAt, revalidateUntil: staleAt + revalidateMs, errorUntil: staleAt + errorMs };
}

const NO_GRACE = { staleWhileRevalidateMs: 0, staleIfErrorMs: 0 };

/**
 * 4.2.4: whether the origin forbids to serve it stale, whoever would allow it:
 * must-revalidate (5.2.2.2), proxy-revalidate (5.2.2.8), s-maxage, which means
 * that too (5.2.2.10), and no-cache.
 */
export function forbidsStale(directives: ResponseDirectives): boolean {
  return (
    directives.mustRevalidate ||
    directives.proxyRevalidate ||
    directives.sMaxageMs !== undefined ||
    directives.noCache === 'all'
  );
}

/** 4.2.3: the instant at which the response would have had age 0. */
function bornAtOf(response: ReceivedHead, rules: FreshnessRules, ageSource: AgeSource): EpochMs {
  const { headers, requestedAt, receivedAt } = response;
  const dateAt = ageSource === 'age' ? receivedAt : dateOf(headers, receivedAt);
  // In whole seconds, as Date is: a fraction would make every answer look up to a second older than it is.
  const apparentAgeMs = Math.max(0, Math.floor((receivedAt - dateAt) / 1_000) * 1_000);
  const responseDelayMs = Math.max(0, receivedAt - requestedAt);
  const correctedAgeMs = ageOf(headers, rules) + responseDelayMs;
  return receivedAt - Math.max(apparentAgeMs, correctedAgeMs);
}

/** RFC 9110 6.6.1: what has no Date, or none that is one, was made when it arrived. */
function dateOf(headers: HeaderList, receivedAt: EpochMs): EpochMs {
  const value = fieldValue(headers, 'date');
  return (value === undefined ? undefined : parseHttpDate(value, receivedAt)) ?? receivedAt;
}

/** Older than any lifetime, and still a number that can be reckoned with. */
const TOO_OLD_MS = 2 ** 32 * 1_000;

/**
 * 5.1: the first member counts and what is no number is passed over. Under the
 * rule `stale`, an Age that is malformed, or that a hop has added a second time
 * (as a line of its own or the same value again), tells of an age that nobody
 * knows.
 */
function ageOf(headers: HeaderList, rules: FreshnessRules): number {
  const lines = fieldLines(headers, 'age');
  const [line] = lines;
  if (line === undefined) return 0;
  const [first = '', second] = listMembers(line);
  const ageMs = parseDeltaSeconds(first);
  if (rules.malformedAge === 'ignore') return ageMs ?? 0;
  const doubtful = ageMs === undefined || lines.length > 1 || first === second;
  return doubtful ? TOO_OLD_MS : ageMs;
}

/** 4.2.1: the first that applies. A targeted field (RFC 9213 2.2) leaves Expires out of account. */
function lifetime(
  response: ReceivedHead,
  { directives, from }: GoverningDirectives,
  rules: FreshnessRules,
): { readonly basis: LifetimeBasis; readonly lifetimeMs: number } {
  if (directives.sMaxageMs !== undefined) return { basis: 's-maxage', lifetimeMs: directives.sMaxageMs };
  if (directives.maxAgeMs !== undefined) return { basis: 'max-age', lifetimeMs: directives.maxAgeMs };
  if (from !== 'targeted') {
    const expiresMs = expiresIn(response);
    if (expiresMs !== undefined) return { basis: 'expires', lifetimeMs: expiresMs };
  }
  const heuristicMs = heuristicLifetime(response, directives, rules);
  return heuristicMs > 0 ? { basis: 'heuristic', lifetimeMs: heuristicMs } : { basis: 'none', lifetimeMs: 0 };
}

/** 5.3: Expires less Date; an Expires that is no date, `0` above all, lies in the past. Undefined without the field. */
function expiresIn({ headers, receivedAt }: ReceivedHead): number | undefined {
  const value = fieldValue(headers, 'expires');
  if (value === undefined) return undefined;
  const expiresAt = parseHttpDate(value, receivedAt);
  if (expiresAt === undefined) return 0;
  return Math.max(0, expiresAt - wholeSecond(dateOf(headers, receivedAt)));
}

function wholeSecond(at: EpochMs): EpochMs {
  return Math.floor(at / 1_000) * 1_000;
}

/** RFC 9110 15.1: statuses that may be reused without a stated lifetime. */
const HEURISTIC_STATUSES: ReadonlySet<number> = new Set([200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501]);

/** 4.2.2: whether a lifetime may be guessed; `public` allows it for any status. */
export function mayGuess(status: number, directives: ResponseDirectives): boolean {
  return directives.public || HEURISTIC_STATUSES.has(status);
}

/** 4.2.2: a share of the time since the last change. Without Last-Modified there is nothing to guess from. */
function heuristicLifetime(
  { status, headers, receivedAt }: ReceivedHead,
  directives: ResponseDirectives,
  rules: FreshnessRules,
): number {
  if (!mayGuess(status, directives)) return 0;
  const value = fieldValue(headers, 'last-modified');
  const modifiedAt = value === undefined ? undefined : parseHttpDate(value, receivedAt);
  if (modifiedAt === undefined) return 0;
  const unchangedMs = Math.max(0, dateOf(headers, receivedAt) - modifiedAt);
  return Math.floor(Math.min(unchangedMs * rules.heuristicShare, rules.heuristicMaxMs));
}

/** 4.2.3: how old it is, in milliseconds. */
export function ageMs(entry: Pick<Freshness, 'bornAt'>, now: EpochMs): number {
  return Math.max(0, now - entry.bornAt);
}

/** 5.1: the value of the Age field: whole seconds, never more than a field can hold. */
export function ageSeconds(entry: Pick<Freshness, 'bornAt'>, now: EpochMs): number {
  return Math.min(2 ** 31, Math.floor(ageMs(entry, now) / 1_000));
}
