/**
 * Whether a response may be stored (RFC 9111 3): the head of its entry, or the
 * reason why not. Pure.
 */

import type { EpochMs } from '../../src/clock.js';
import { choice, section, type ValueOf } from '../../src/config/field.js';
import {
  type FieldScope,
  type GoverningDirectives,
  governingDirectives,
  type ResponseDirectives,
  requestDirectives,
} from '../../src/http/cache-control.js';
import { formatHttpDate, parseHttpDate } from '../../src/http/date.js';
import { readDigest } from '../../src/http/digest.js';
import { isStrongEtag } from '../../src/http/etag.js';
import { endToEnd, fieldValue } from '../../src/http/fields.js';
import { contentLength } from '../../src/http/head.js';
import { type ByteSpan, parseContentRange, spanLength } from '../../src/http/range.js';
import { type HeaderList, headerOf } from '../../src/http/reply.js';
import { type MediaId, parseMediaId } from '../../src/ids.js';
import { MEDIA_ID } from '../../src/wire.js';
import type { Entry } from '../entry.js';
import {
  type AgeSource,
  type FreshnessRules,
  freshness,
  type LifetimeOverride,
  mayGuess,
  type ReceivedHead,
} from './freshness.js';
import { selectedBy } from './vary.js';

export const storingSection = section('Which responses are stored for all clients.', {
  setCookie: choice({
    default: 'if_shared',
    of: ['if_shared', 'always'],
    help: 'Whether a response with Set-Cookie is stored, which gives the cookie to every client. if_shared: only if the origin says public or s-maxage. always: like any other (RFC 9111 7.3).',
  }),
});

type StoringConfig = ValueOf<typeof storingSection>;

export type StoreRefusal =
  /** 3: not GET or HEAD, nor a POST whose response is valid for GET. */
  | 'method'
  /** Interim, 304, or unknown with must-understand (5.2.2.3). */
  | 'status'
  /** 5.2.1.5 */
  | 'request_no_store'
  /** 5.2.2.5 */
  | 'no_store'
  /** 5.2.2.7 */
  | 'private'
  /** 7.3: it sets a cookie, and does not say that it is for all clients. */
  | 'set_cookie'
  /** 3.5: the request had a credential, and the response does not allow sharing. */
  | 'authorization'
  /** 4.1: `*` */
  | 'vary'
  /** 3: no lifetime is stated, and the status allows no heuristic one. */
  | 'no_freshness'
  /** Stale on arrival, without a validator, and never to be served stale. */
  | 'no_use'
  /** 3.3, 3.4: a range that could not be joined with others. */
  | 'partial'
  /** Its Sunset has passed. */
  | 'ended';

/** An Entry without its keys, which the caller adds. */
export type StoredHead = Omit<Entry, 'key' | 'primaryKey'>;

export type Storable =
  | { readonly kind: 'store'; readonly head: StoredHead }
  /** 3.4: one range of a representation. `head` is that of the whole, with status 200. */
  | { readonly kind: 'store_range'; readonly head: StoredHead; readonly span: ByteSpan }
  | { readonly kind: 'refuse'; readonly reason: StoreRefusal };

export interface StorableRequest {
  readonly method: string;
  header(name: string): string | undefined;
  /** The absolute target URI. Needed for POST alone. */
  readonly uri?: string;
}

/** `media`: origin and edge are one service, and the gate authorises callers. `off`: a shared cache before any origin. */
export type CacheMode = 'media' | 'off';

export interface StorableRules extends StoringConfig {
  readonly mode: CacheMode;
  readonly freshness: FreshnessRules;
  /** Whether incomplete responses are stored at all. */
  readonly incomplete: boolean;
}

export interface StorableQuestion {
  readonly request: StorableRequest;
  /** As received, with Connection. */
  readonly response: ReceivedHead;
  readonly now: EpochMs;
  readonly rules: StorableRules;
  readonly override?: LifetimeOverride;
}

export function storable({ request, response, now, rules, override }: StorableQuestion): Storable {
  const governing = governingDirectives(response.headers, rules.freshness.targetedFields);
  const range = response.status === 206 ? rangeOf(response.headers) : undefined;
  const reason = refusal(request, response, governing.directives, range, rules);
  if (reason !== undefined) return { kind: 'refuse', reason };
  const selected = selectedBy(response.headers, request);
  // 4.1: no later request could select it.
  if (selected === 'never') return { kind: 'refuse', reason: 'vary' };
  const times = freshness(response, governing, rules.freshness, ageSourceOf(rules), override);
  const explicit = isExplicit(response.headers, governing) || (override?.ttlMs ?? null) !== null;
  // 3, last point: a lifetime, `public`, or a status that allows a heuristic lifetime.
  if (!explicit && !mayGuess(response.status, governing.directives)) return { kind: 'refuse', reason: 'no_freshness' };
  // RFC 9110 9.3.3: the response to a POST must state its lifetime.
  if (request.method === 'POST' && !explicit) return { kind: 'refuse', reason: 'no_freshness' };
  const deleteAt = rules.mode === 'media' ? endOf(response, times.bornAt) : Number.POSITIVE_INFINITY;
  if (deleteAt <= now) return { kind: 'refuse', reason: 'ended' };
  const usableUntil = Math.max(times.staleAt, times.revalidateUntil, times.errorUntil);
  if (usableUntil <= now && !hasValidator(response.headers)) return { kind: 'refuse', reason: 'no_use' };
  const { bornAt, staleAt, revalidateUntil, errorUntil } = times;
  const headers = storedFields(response, governing.directives);
  const head: StoredHead = {
    mediaId: rules.mode === 'media' ? mediaIdOf(response.headers) : null,
    status: range === undefined ? response.status : 200,
    headers: range === undefined ? headers : wholeFields(headers, range.sizeBytes),
    selectedBy: selected,
    requestedAt: response.requestedAt,
    receivedAt: response.receivedAt,
    bornAt,
    staleAt: Math.min(staleAt, deleteAt),
    revalidateUntil: Math.min(revalidateUntil, deleteAt),
    errorUntil: Math.min(errorUntil, deleteAt),
    deleteAt,
    audience: rules.mode === 'off' || governing.directives.public ? 'anyone' : 'authorised',
    sizeBytes: range?.sizeBytes ?? contentLength(response.headers),
    sha256: sha256Of(response),
  };
  return range === undefined ? { kind: 'store', head } : { kind: 'store_range', head, span: range.span };
}

/** The instants of a response that is stored already, under other rules. Its end stays. */
export function timesUnder(
  entry: Entry,
  rules: Pick<StorableRules, 'mode' | 'freshness'>,
  override: LifetimeOverride,
): Pick<Entry, 'staleAt' | 'revalidateUntil' | 'errorUntil'> {
  const governing = governingDirectives(entry.headers, rules.freshness.targetedFields);
  const times = freshness(entry, governing, rules.freshness, ageSourceOf(rules), override);
  return {
    staleAt: Math.min(times.staleAt, entry.deleteAt),
    revalidateUntil: Math.min(times.revalidateUntil, entry.deleteAt),
    errorUntil: Math.min(times.errorUntil, entry.deleteAt),
  };
}

/** Our own origin sends Age, and its clock may differ from ours. */
function ageSourceOf({ mode }: Pick<StorableRules, 'mode'>): AgeSource {
  return mode === 'media' ? 'age' : 'age_and_date';
}

/** 3, point by point. Undefined if no point forbids storing. */
function refusal(
  request: StorableRequest,
  response: ReceivedHead,
  directives: ResponseDirectives,
  range: KnownRange | undefined,
  rules: StorableRules,
): StoreRefusal | undefined {
  if (!methodAllows(request, response)) return 'method';
  if (!statusAllows(response.status, directives)) return 'status';
  if (requestDirectives(request).noStore) return 'request_no_store';
  // 5.2.2.3: if the status is understood, must-understand overrides no-store.
  if (directives.noStore && !directives.mustUnderstand) return 'no_store';
  if (directives.private === 'all') return 'private';
  if (rules.setCookie === 'if_shared' && !isForAll(directives) && setsCookie(response, directives)) return 'set_cookie';
  if (request.header('authorization') !== undefined && !allowsSharing(directives)) return 'authorization';
  if (response.status === 206 && (range === undefined || !rules.incomplete || request.method !== 'GET'))
    return 'partial';
  return undefined;
}

/** RFC 9110 9.3.1 to 9.3.3: POST only if its Content-Location says that a GET of the target gets the same response. */
function methodAllows(request: StorableRequest, response: ReceivedHead): boolean {
  if (request.method === 'GET' || request.method === 'HEAD') return true;
  if (request.method !== 'POST' || request.uri === undefined) return false;
  const location = headerOf(response.headers, 'content-location');
  if (location === undefined || !URL.canParse(location, request.uri)) return false;
  return new URL(location, request.uri).href === new URL(request.uri).href;
}

/** RFC 9110 15 and the IANA registry: the final status codes that this cache understands. */
const UNDERSTOOD: ReadonlySet<number> = new Set([
  200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409,
  410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 511,
]);

/** 3: final, and understood if must-understand demands it. A 304 updates a stored response and is not stored itself. */
function statusAllows(status: number, directives: ResponseDirectives): boolean {
  if (status < 200 || status > 599 || status === 304) return false;
  return !directives.mustUnderstand || UNDERSTOOD.has(status);
}

/** 3.5: the directives that let a shared cache store the response to a request with a credential. */
function allowsSharing(directives: ResponseDirectives): boolean {
  return directives.mustRevalidate || isForAll(directives);
}

/** 5.2.2.9, 5.2.2.10: the directives that speak of shared caches alone. */
function isForAll(directives: ResponseDirectives): boolean {
  return directives.public || directives.sMaxageMs !== undefined;
}

/** Whether Set-Cookie would be stored. If the response names it as private, it is not. */
function setsCookie({ headers }: ReceivedHead, { noCache, private: scope }: ResponseDirectives): boolean {
  const named = [...namesIn(noCache), ...namesIn(scope)];
  return headers.some(([name]) => name === 'set-cookie') && !named.includes('set-cookie');
}

/** 4.2.1: whether the response states its lifetime, be it 0. */
function isExplicit(headers: HeaderList, { directives, from }: GoverningDirectives): boolean {
  if (directives.maxAgeMs !== undefined || directives.sMaxageMs !== undefined) return true;
  return from !== 'targeted' && headerOf(headers, 'expires') !== undefined;
}

function hasValidator(headers: HeaderList): boolean {
  return headers.some(([name]) => name === 'etag' || name === 'last-modified');
}

/**
 * 3.1: the end-to-end fields without those that no-cache or private name. Fields
 * named by no-cache could be sent after a revalidation, those named by private
 * never; neither are stored. RFC 9110 6.6.1: a missing Date is added.
 */
function storedFields(response: ReceivedHead, directives: ResponseDirectives): HeaderList {
  const named = new Set([...namesIn(directives.noCache), ...namesIn(directives.private)]);
  const all = endToEnd(response.headers);
  const kept = named.size === 0 ? all : all.filter(([name]) => !named.has(name));
  if (parseHttpDate(fieldValue(kept, 'date') ?? '', response.receivedAt) !== undefined) return kept;
  return [...kept.filter(([name]) => name !== 'date'), ['date', formatHttpDate(response.receivedAt)]];
}

function namesIn(scope: FieldScope): readonly string[] {
  return typeof scope === 'string' ? [] : scope;
}

/**
 * RFC 8594: when the media expires. An invalid Sunset counts as passed. If our
 * clock is behind the origin's, Sunset less Date, counted from when the response
 * was made, ends earlier than Sunset itself; the earlier one counts.
 */
function endOf({ headers, receivedAt }: ReceivedHead, bornAt: EpochMs): EpochMs {
  const value = fieldValue(headers, 'sunset');
  if (value === undefined) return Number.POSITIVE_INFINITY;
  const endsAt = parseHttpDate(value, receivedAt) ?? 0;
  const madeAt = parseHttpDate(fieldValue(headers, 'date') ?? '', receivedAt);
  return madeAt === undefined ? endsAt : Math.min(endsAt, bornAt + Math.max(0, endsAt - madeAt));
}

function mediaIdOf(headers: HeaderList): MediaId | null {
  return parseMediaId(headerOf(headers, MEDIA_ID) ?? '') ?? null;
}

/** RFC 9530: of the representation, or of the content, which is the same unless it is a range. */
function sha256Of({ status, headers }: ReceivedHead): string | null {
  const representation = readDigest(fieldValue(headers, 'repr-digest'));
  if (representation.kind === 'sha256') return representation.sha256;
  const content = status === 206 ? undefined : readDigest(fieldValue(headers, 'content-digest'));
  return content?.kind === 'sha256' ? content.sha256 : null;
}

interface KnownRange {
  readonly span: ByteSpan;
  readonly sizeBytes: number;
}

/** 3.4: a single range of a whole of known size, with a strong validator and the announced length. */
function rangeOf(headers: HeaderList): KnownRange | undefined {
  const range = parseContentRange(fieldValue(headers, 'content-range'));
  const etag = headerOf(headers, 'etag');
  if (range === undefined || range.sizeBytes === null || etag === undefined || !isStrongEtag(etag)) return undefined;
  const length = contentLength(headers);
  if (length !== null && length !== spanLength(range.span)) return undefined;
  return { span: range.span, sizeBytes: range.sizeBytes };
}

/** The fields of the whole that a range belongs to. */
function wholeFields(headers: HeaderList, sizeBytes: number): HeaderList {
  const kept = headers.filter(([name]) => !OF_ONE_RANGE.has(name));
  return [...kept, ['content-length', String(sizeBytes)]];
}

const OF_ONE_RANGE: ReadonlySet<string> = new Set(['content-digest', 'content-length', 'content-range']);
