/**
 * How long a response is fresh, and how old it is on arrival (RFC 9111 4.2), as
 * instants: when it was born, when it becomes stale, and until when it may be
 * served stale while it is revalidated or while the origin fails. Pure; the rules
 * come from the configuration.
 */
import type { EpochMs } from '../../src/clock.js';
import { choice, duration, list, ratio, section, text, type ValueOf } from '../../src/config/field.js';
import { type GoverningDirectives, parseDeltaSeconds, type ResponseDirectives } from '../../src/http/cache-control.js';
import { parseHttpDate } from '../../src/http/date.js';
import { fieldLines, fieldValue, listMembers } from '../../src/http/fields.js';
import type { HeaderList } from '../../src/http/reply.js';

export const STALE_IF_ERROR_MS = 60_000;

export const freshnessSection = section('How long responses are reused if they do not say so themselves.', {
  targetedFields: list({
    default: ['cdn-cache-control'],
    of: text({
      default: 'cdn-cache-control',
      pattern: /^[a-z0-9-]{1,64}$/,
      accepts: 'a field name in lower case',
      help: '',
    }),
    max: 8,
    help: 'Fields that this cache reads in place of Cache-Control (RFC 9213). The first one in a response counts.',
  }),
  heuristicShare: ratio({
    default: 0.1,
    min: 0,
    max: 1,
    help: 'A response without a lifetime is fresh for this share of the time since its last change. 0: it is never fresh.',
  }),
  heuristicMaxMs: duration({ default: '24h', help: 'The longest such lifetime.' }),
  staleWhileRevalidateMs: duration({
    default: '0s',
    help: 'How long a stale response is served while a newer one is fetched, if it does not say so itself.',
  }),
  staleIfErrorMs: duration({
    default: `${STALE_IF_ERROR_MS / 1_000}s`,
    help: 'How long a stale response is served when the origin fails, if it does not say so itself. Media are served stale no longer than `journal.lease` allows: see `journal.lease.mode` and `journal.lease.serve_max`.',
  }),
  malformedAge: choice({
    default: 'ignore',
    of: ['ignore', 'stale'],
    help: 'What an Age field means that is not a number or is given twice. ignore: nothing (RFC 9111 5.1). stale: the response is too old.',
  }),
});

export type FreshnessRules = ValueOf<typeof freshnessSection>;

/** What the operator's rules say. Null leaves it to the origin. */
export interface LifetimeOverride {
  readonly ttlMs: number | null;
  readonly staleWhileRevalidateMs: number | null;
  readonly staleIfErrorMs: number | null;
}

export const NO_OVERRIDE: LifetimeOverride = { ttlMs: null, staleWhileRevalidateMs: null, staleIfErrorMs: null };

export interface Freshness {
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
 * What the age of a response on arrival is computed from. RFC 9111 4.2.3 allows
 * Age alone; Date helps if a cache on the way leaves Age out, but only as far as
 * two clocks agree.
 */
export type AgeSource = 'age' | 'age_and_date';

/**
 * An override replaces the lifetimes that the origin states or leaves out, but
 * not its restrictions: a response that must be revalidated still is, and a
 * provisional one is not fresh for longer than the origin says.
 */
export function freshness(
  response: ReceivedHead,
  governing: GoverningDirectives,
  rules: FreshnessRules,
  ageSource: AgeSource,
  override: LifetimeOverride = NO_OVERRIDE,
): Freshness {
  const bornAt = bornAtOf(response, rules, ageSource);
  const { freshMs, revalidateMs, errorMs } = lifetimesOf(statedOf(response, governing, rules), rules, override);
  const staleAt = bornAt + freshMs;
  return { bornAt, staleAt, revalidateUntil: staleAt + revalidateMs, errorUntil: staleAt + errorMs };
}

/** What a response says of its lifetimes, or what is guessed for it. Null: it does not say. */
export interface StatedLifetimes {
  readonly lifetimeMs: number;
  readonly staleWhileRevalidateMs: number | null;
  readonly staleIfErrorMs: number | null;
  /** It is not fresh for longer than it says, whatever a rule says. */
  readonly provisional: boolean;
  /** 5.2.2.4: no-cache is never fresh. */
  readonly neverFresh: boolean;
  readonly forbidsStale: boolean;
}

export function statedOf(
  response: ReceivedHead,
  governing: GoverningDirectives,
  rules: FreshnessRules,
): StatedLifetimes {
  const { directives } = governing;
  return {
    lifetimeMs: lifetime(response, governing, rules),
    staleWhileRevalidateMs: directives.staleWhileRevalidateMs ?? null,
    staleIfErrorMs: directives.staleIfErrorMs ?? null,
    provisional: directives.provisional,
    neverFresh: directives.noCache === 'all',
    forbidsStale: forbidsStale(directives),
  };
}

/** How long a response is fresh, and for how long after that it may be served stale. */
export interface Lifetimes {
  readonly freshMs: number;
  readonly revalidateMs: number;
  readonly errorMs: number;
}

export function lifetimesOf(
  stated: StatedLifetimes,
  rules: Pick<FreshnessRules, 'staleWhileRevalidateMs' | 'staleIfErrorMs'>,
  override: LifetimeOverride,
): Lifetimes {
  const { ttlMs } = override;
  const lifetimeMs = ttlMs === null || (stated.provisional && stated.lifetimeMs < ttlMs) ? stated.lifetimeMs : ttlMs;
  const freshMs = stated.neverFresh ? 0 : lifetimeMs;
  if (stated.forbidsStale) return { freshMs, revalidateMs: 0, errorMs: 0 };
  // A response that never was fresh is served stale only if it says so itself.
  const usual = lifetimeMs > 0 ? rules : NO_GRACE;
  return {
    freshMs,
    revalidateMs: override.staleWhileRevalidateMs ?? stated.staleWhileRevalidateMs ?? usual.staleWhileRevalidateMs,
    errorMs: override.staleIfErrorMs ?? stated.staleIfErrorMs ?? usual.staleIfErrorMs,
  };
}

const NO_GRACE = { staleWhileRevalidateMs: 0, staleIfErrorMs: 0 };

/**
 * 4.2.4: whether the origin forbids serving it stale, whatever else allows it:
 * must-revalidate (5.2.2.2), proxy-revalidate (5.2.2.8), s-maxage, which implies
 * proxy-revalidate (5.2.2.10), and no-cache.
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
  // In whole seconds, as Date is: with a fraction every response would seem up to a second too old.
  const apparentAgeMs = Math.max(0, Math.floor((receivedAt - dateAt) / 1_000) * 1_000);
  const responseDelayMs = Math.max(0, receivedAt - requestedAt);
  const correctedAgeMs = ageOf(headers, rules) + responseDelayMs;
  return receivedAt - Math.max(apparentAgeMs, correctedAgeMs);
}

/** RFC 9110 6.6.1: a response without a valid Date counts as made when it arrived. */
function dateOf(headers: HeaderList, receivedAt: EpochMs): EpochMs {
  return parseHttpDate(fieldValue(headers, 'date') ?? '', receivedAt) ?? receivedAt;
}

/** Older than any lifetime, and still small enough for exact arithmetic. */
const TOO_OLD_MS = 2 ** 32 * 1_000;

/**
 * 5.1: the first member counts, and a member that is not a number is ignored.
 * Under the rule `stale`, a malformed Age, or one that a hop has added again (as
 * a second line or the same value twice), means that the age is unknown.
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

/** 4.2.1: the first that applies. Under a targeted field Expires does not count (RFC 9213 2.2). */
function lifetime(response: ReceivedHead, { directives, from }: GoverningDirectives, rules: FreshnessRules): number {
  const expiresMs = from === 'targeted' ? undefined : expiresIn(response);
  return directives.sMaxageMs ?? directives.maxAgeMs ?? expiresMs ?? heuristicLifetime(response, directives, rules);
}

/** 5.3: Expires less Date. An Expires that is not a date, such as `0`, is in the past. Undefined without the field. */
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

/** 4.2.2: a share of the time since the last change; 0 without Last-Modified. */
function heuristicLifetime(
  { status, headers, receivedAt }: ReceivedHead,
  directives: ResponseDirectives,
  rules: FreshnessRules,
): number {
  if (!mayGuess(status, directives)) return 0;
  const modifiedAt = parseHttpDate(fieldValue(headers, 'last-modified') ?? '', receivedAt);
  if (modifiedAt === undefined) return 0;
  const unchangedMs = Math.max(0, dateOf(headers, receivedAt) - modifiedAt);
  return Math.floor(Math.min(unchangedMs * rules.heuristicShare, rules.heuristicMaxMs));
}

/** 4.2.3. */
export function ageMs(entry: Pick<Freshness, 'bornAt'>, now: EpochMs): number {
  return Math.max(0, now - entry.bornAt);
}

/** 5.1: the value of the Age field, in whole seconds, at most 2^31. */
export function ageSeconds(entry: Pick<Freshness, 'bornAt'>, now: EpochMs): number {
  return Math.min(2 ** 31, Math.floor(ageMs(entry, now) / 1_000));
}
