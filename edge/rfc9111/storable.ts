/**
 * Whether a response may be kept, and what of it (RFC 9111 3): one pure answer,
 * with everything an Entry needs, or the reason why not. What a refused
 * response would have been good for is no concern of this file.
 */

import type { EpochMs } from '../../src/clock.js';
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
import { type FreshnessRules, freshness, type LifetimeOverride, mayGuess, type ReceivedHead } from './freshness.js';
import { selectedBy } from './vary.js';

export const STORE_REFUSALS = [
  /** 3: neither GET nor HEAD, nor a POST that says where it would be found. */
  'method',
  /** Interim, 304, or one whose meaning must be known (5.2.2.3) and is not. */
  'status',
  /** 5.2.1.5 */
  'request_no_store',
  /** 5.2.2.5 */
  'no_store',
  /** 5.2.2.7 */
  'private',
  /** 3.5: asked for with a credential, and not said to be for others. */
  'authorization',
  /** 4.1: `*` */
  'vary',
  /** 3: nothing says how long, and the status allows no guess. */
  'no_freshness',
  /** Stale on arrival, with nothing to revalidate it by and no time in which it may be served stale. */
  'no_use',
  /** 3.3, 3.4: a part that could not be told from, or joined with, others. */
  'partial',
  /** Its own end (Sunset) has come. */
  'ended',
] as const;
export type StoreRefusal = (typeof STORE_REFUSALS)[number];

/** All of an Entry but its names, which the caller gives it, and its size where the head does not tell. */
export type StoredHead = Omit<Entry, 'key' | 'primaryKey'>;

export type Storable =
  | { readonly kind: 'store'; readonly head: StoredHead }
  /** 3.4: one part of a representation, for whoever keeps parts; `head` is that of the whole, with status 200. */
  | { readonly kind: 'store_range'; readonly head: StoredHead; readonly span: ByteSpan }
  | { readonly kind: 'refuse'; readonly reason: StoreRefusal };

export interface StorableRequest {
  readonly method: string;
  header(name: string): string | undefined;
  /** The absolute URI asked for; needed for POST alone. */
  readonly uri?: string;
}

/** `media`: origin and edge are one service and the edge asks the gate. `off`: a shared cache before any origin. */
export type CacheMode = 'media' | 'off';

export interface StorableRules {
  readonly mode: CacheMode;
  readonly freshness: FreshnessRules;
  /** Whether parts are kept at all. */
  readonly incomplete: boolean;
}

export interface StorableQuestion {
  readonly request: StorableRequest;
  /** As received, Connection included. */
  readonly response: ReceivedHead;
  readonly now: EpochMs;
  readonly rules: StorableRules;
  readonly override?: LifetimeOverride;
}

export function storable({ request, response, now, rules, override }: StorableQuestion): Storable {
  const governing = governingDirectives(response.headers, rules.freshness.targetedFields);
  const part = response.status === 206 ? partOf(response.headers) : undefined;
  const reason = refusal(request, response, governing.directives, part, rules);
  if (reason !== undefined) return { kind: 'refuse', reason };
  const selected = selectedBy(response.headers, request);
  // 4.1: what no request can select is of no use.
  if (selected === 'never') return { kind: 'refuse', reason: 'vary' };
  // Our own origin says how old its answers are, and its clock may differ from ours.
  const ageSource = rules.mode === 'media' ? 'age' : 'age_and_date';
  const times = freshness(response, governing, rules.freshness, ageSource, override);
  const explicit = isExplicit(response.headers, governing) || (override?.ttlMs ?? null) !== null;
  // 3, last point: a lifetime, `public`, or a status that allows a guess.
  if (!explicit && !mayGuess(response.status, governing.directives)) return { kind: 'refuse', reason: 'no_freshness' };
  // RFC 9110 9.3.3: an answer to POST needs its lifetime stated.
  if (request.method === 'POST' && !explicit) return { kind: 'refuse', reason: 'no_freshness' };
  const deleteAt = rules.mode === 'media' ? endOf(response, times.bornAt) : Number.POSITIVE_INFINITY;
  if (deleteAt <= now) return { kind: 'refuse', reason: 'ended' };
  const usableUntil = Math.max(times.staleAt, times.revalidateUntil, times.errorUntil);
  if (usableUntil <= now && !hasValidator(response.headers)) return { kind: 'refuse', reason: 'no_use' };
  const { bornAt, staleAt, revalidateUntil, errorUntil } = times;
  const headers = storedFields(response, governing.directives);
  const head: StoredHead = {
    mediaId: rules.mode === 'media' ? mediaIdOf(response.headers) : null,
    status: part === undefined ? response.status : 200,
    headers: part === undefined ? headers : wholeFields(headers, part.sizeBytes),
    selectedBy: selected,
    requestedAt: response.requestedAt,
    receivedAt: response.receivedAt,
    bornAt,
    staleAt: Math.min(staleAt, deleteAt),
    revalidateUntil: Math.min(revalidateUntil, deleteAt),
    errorUntil: Math.min(errorUntil, deleteAt),
    deleteAt,
    audience: rules.mode === 'off' || governing.directives.public ? 'anyone' : 'authorised',
    sizeBytes: part?.sizeBytes ?? contentLength(response.headers),
    sha256: sha256Of(response),
  };
  return part === undefined ? { kind: 'store', head } : { kind: 'store_range', head, span: part.span };
}

/** 3, point by point; undefined where none forbids it. */
function refusal(
  request: StorableRequest,
  response: ReceivedHead,
  directives: ResponseDirectives,
  part: Part | undefined,
  rules: StorableRules,
): StoreRefusal | undefined {
  if (!methodAllows(request, response)) return 'method';
  if (!statusAllows(response.status, directives)) return 'status';
  if (requestDirectives(request).noStore) return 'request_no_store';
  // 5.2.2.3: must-understand, where the status is understood, takes the place of no-store.
  if (directives.noStore && !directives.mustUnderstand) return 'no_store';
  if (directives.private === 'all') return 'private';
  if (request.header('authorization') !== undefined && !allowsSharing(directives)) return 'authorization';
  if (response.status === 206 && (part === undefined || !rules.incomplete || request.method !== 'GET'))
    return 'partial';
  return undefined;
}

/** RFC 9110 9.3.1 to 9.3.3. HEAD is kept by whoever keeps heads; a POST only where it says that GET would find the same. */
function methodAllows(request: StorableRequest, response: ReceivedHead): boolean {
  if (request.method === 'GET' || request.method === 'HEAD') return true;
  if (request.method !== 'POST' || request.uri === undefined) return false;
  const location = headerOf(response.headers, 'content-location');
  if (location === undefined || !URL.canParse(location, request.uri)) return false;
  return new URL(location, request.uri).href === new URL(request.uri).href;
}

/** RFC 9110 15, and the IANA registry of final status codes: those whose meaning for a cache is known here. */
const UNDERSTOOD: ReadonlySet<number> = new Set([
  200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409,
  410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 511,
]);

/** 3: final, understood where it must be; 304 freshens what is stored and is never stored itself. */
function statusAllows(status: number, directives: ResponseDirectives): boolean {
  if (status < 200 || status > 599 || status === 304) return false;
  return !directives.mustUnderstand || UNDERSTOOD.has(status);
}

/** 3.5: the directives that let a shared cache keep what was asked for with a credential. */
function allowsSharing(directives: ResponseDirectives): boolean {
  return directives.mustRevalidate || directives.public || directives.sMaxageMs !== undefined;
}

/** 4.2.1: whether the response itself says how long it is fresh, if only that it is not. */
function isExplicit(headers: HeaderList, { directives, from }: GoverningDirectives): boolean {
  if (directives.maxAgeMs !== undefined || directives.sMaxageMs !== undefined) return true;
  return from !== 'targeted' && headerOf(headers, 'expires') !== undefined;
}

function hasValidator(headers: HeaderList): boolean {
  return headers.some(([name]) => name === 'etag' || name === 'last-modified');
}

/**
 * 3.1: end-to-end fields, without those that no-cache or private name. The
 * former could be sent again after a revalidation only, the latter never; kept
 * are neither. RFC 9110 6.6.1: with the Date that the answer lacks.
 */
function storedFields(response: ReceivedHead, directives: ResponseDirectives): HeaderList {
  const withheld = new Set([...namesIn(directives.noCache), ...namesIn(directives.private)]);
  const crossing = endToEnd(response.headers);
  const kept = withheld.size === 0 ? crossing : crossing.filter(([name]) => !withheld.has(name));
  const date = fieldValue(kept, 'date');
  if (date !== undefined && parseHttpDate(date, response.receivedAt) !== undefined) return kept;
  return [...kept.filter(([name]) => name !== 'date'), ['date', formatHttpDate(response.receivedAt)]];
}

function namesIn(scope: FieldScope): readonly string[] {
  return typeof scope === 'string' ? [] : scope;
}

/**
 * RFC 8594: when the media ends; 0 for a Sunset that is no date, which keeps
 * nothing alive. Where the origin's clock is ahead of ours, so long after its
 * answer was made as it says itself, or our clock would prolong it.
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

/** RFC 9530: of the representation or, for a 200 the same, of the content. */
function sha256Of({ status, headers }: ReceivedHead): string | null {
  const representation = readDigest(fieldValue(headers, 'repr-digest'));
  if (representation.kind === 'sha256') return representation.sha256;
  const content = status === 206 ? undefined : readDigest(fieldValue(headers, 'content-digest'));
  return content?.kind === 'sha256' ? content.sha256 : null;
}

interface Part {
  readonly span: ByteSpan;
  readonly sizeBytes: number;
}

/** 3.4: a single part, of a known whole, under a strong validator, and as long as it says. */
function partOf(headers: HeaderList): Part | undefined {
  const range = parseContentRange(fieldValue(headers, 'content-range'));
  const etag = headerOf(headers, 'etag');
  if (range === undefined || range.sizeBytes === null || etag === undefined || !isStrongEtag(etag)) return undefined;
  const length = contentLength(headers);
  if (length !== null && length !== spanLength(range.span)) return undefined;
  return { span: range.span, sizeBytes: range.sizeBytes };
}

/** The fields of the whole that a part belongs to. */
function wholeFields(headers: HeaderList, sizeBytes: number): HeaderList {
  const kept = headers.filter(([name]) => !OF_ONE_PART.has(name));
  return [...kept, ['content-length', String(sizeBytes)]];
}

const OF_ONE_PART: ReadonlySet<string> = new Set(['content-digest', 'content-length', 'content-range']);
