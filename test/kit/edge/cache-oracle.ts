/**
 * Says of one answer of a cache whether it was allowed, by all that the origin
 * ever answered: an infinite memory that never reuses wrongly. Written from RFC
 * 9111 and RFC 5861 by itself, over what the origin meant and not over what it
 * wrote, so that a fault of the cache is none here.
 */
import { parseHttpDate } from '../../../src/http/date.js';
import { type Directives, type ModelOrigin, type OriginAnswer, opaque, representation } from './model-origin.js';

export interface Asked {
  readonly method: 'GET' | 'HEAD';
  readonly path: string;
  readonly headers: ReadonlyMap<string, string>;
  /** What the request's Cache-Control says, in seconds. */
  readonly wishes: Wishes;
  /** Whether it came with a credential. */
  readonly credential: boolean;
  readonly startedSeq: number;
  readonly startedAt: number;
}

export interface Wishes {
  readonly noCache?: boolean;
  readonly noStore?: boolean;
  readonly onlyIfCached?: boolean;
  readonly maxAge?: number;
  readonly minFresh?: number;
  /** Infinity: however stale. */
  readonly maxStale?: number;
}

export interface Given {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly bytes: Buffer;
  /** False where the transfer broke. */
  readonly whole: boolean;
  /** The reader went before the end. */
  readonly left: boolean;
  readonly endedAt: number;
}

export interface World {
  readonly mode: 'media' | 'off';
  readonly origin: ModelOrigin;
  /** When what was held of a path had to be forgotten last, among all that happens. */
  readonly forgottenSeq: ReadonlyMap<string, number>;
  /** Since when, among all that happens, every answer needs the origin: the edge is cut off. */
  readonly cutOff: boolean;
  /** Something was taken down or purged while it was answered: then any transfer may break, whatever it had brought. */
  readonly disturbed: boolean;
}

/** RFC 5861's windows where nobody states any: the defaults of the configuration. */
const USUAL_SIE_S = 60;

/** What was wrong with it; undefined where nothing was. */
export function judgeAnswer(world: World, asked: Asked, given: Given): string | undefined {
  const named = given.headers.get('x-answer');
  if (named === undefined) return judgeOwn(world, asked, given);
  const source = world.origin.answers[Number(named)];
  if (source === undefined) return 'an answer that the origin never gave';
  return (
    judgeSource(world, asked, given, source) ??
    judgeContent(world, asked, given, source) ??
    judgeConditions(world.origin, asked, given, source) ??
    judgeAge(world, asked, given, source) ??
    judgeReuse(world, asked, given, source)
  );
}

/** The edge's own refusals: each only where there is a reason for it. */
function judgeOwn({ mode, origin, cutOff }: World, asked: Asked, { status }: Given): string | undefined {
  const failed = failedFor(origin, asked);
  if (status === 502 || status === 503) return failed || cutOff ? undefined : `${status} without a failure`;
  if (status === 504) return asked.wishes.onlyIfCached === true ? undefined : '504 to who wanted more than the cache';
  if (status === 416) return asked.headers.has('range') ? undefined : '416 without a range';
  if (status === 401) return mode === 'media' && !asked.credential ? undefined : '401 to a caller with a credential';
  return `${status} of its own`;
}

/** Whether the origin failed for this path since the request began. */
function failedFor(origin: ModelOrigin, { path, startedSeq }: Asked): boolean {
  return origin.failures.some((each) => each.path === path && each.seq > startedSeq);
}

function judgeSource(
  { mode, origin, forgottenSeq }: World,
  asked: Asked,
  given: Given,
  source: OriginAnswer,
): string | undefined {
  if (source.path !== asked.path) return `an answer for ${source.path}`;
  const forgotten = forgottenSeq.get(asked.path) ?? 0;
  if (asked.startedSeq >= forgotten && source.seq <= forgotten) return 'what had to be forgotten';
  if (source.says.vary && (source.sent.get('x-kind') ?? '') !== (asked.headers.get('x-kind') ?? '')) {
    return 'what Vary keeps for others';
  }
  const shows = source.status === 200 || source.status === 206 || source.status === 304;
  if (mode === 'media' && !asked.credential && shows && effective(origin, given).public !== true) {
    return 'something private for a stranger';
  }
  return undefined;
}

/** RFC 9110 15.3.7, 14.4, 9.3.2: the very bytes, all of them or the span that is named. */
function judgeContent(
  { origin, disturbed }: World,
  asked: Asked,
  given: Given,
  source: OriginAnswer,
): string | undefined {
  const { status, headers, bytes, whole, left } = given;
  const all = representation(source.path, source.version, source.variant);
  if (asked.method === 'HEAD' || status === 304) return bytes.length === 0 ? undefined : 'bytes where none belong';
  let wanted = all;
  if (status === 206) {
    const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get('content-range') ?? '');
    if (match === null) return '206 without a Content-Range';
    if (!asked.headers.has('range')) return '206 to who wanted all';
    if (Number(match[3]) !== all.length) return 'a size that is not the whole’s';
    const condition = asked.headers.get('if-range');
    const relayed = source.status === 206 && source.sent.get('if-range') === condition;
    if (condition !== undefined && !relayed && (condition !== source.etag || source.says.etag !== 'strong')) {
      return 'a range although If-Range does not hold';
    }
    wanted = all.subarray(Number(match[1]), Number(match[2]) + 1);
    const first = /^bytes=(\d+)-(\d*)$/.exec(asked.headers.get('range') ?? '');
    const last = first?.[2] === '' ? all.length - 1 : Math.min(Number(first?.[2]), all.length - 1);
    if (Number(match[1]) !== Number(first?.[1]) || Number(match[2]) !== last) return 'another range than was wanted';
  } else if (status !== source.status && !(status === 200 && [206, 304].includes(source.status))) {
    return `${status} for ${source.status}`;
  }
  if (!bytes.equals(wanted.subarray(0, bytes.length))) return 'other bytes than the representation has';
  if (whole && bytes.length !== wanted.length) return 'a short body that ended as if it were whole';
  if (!whole && !left && !disturbed && bytes.length === wanted.length) return 'a broken transfer that had all of it';
  if (!whole && !left && !disturbed && !failedFor(origin, asked)) return 'a transfer that broke for no reason';
  const length = headers.get('content-length');
  return length === undefined || Number(length) === wanted.length ? undefined : 'a wrong Content-Length';
}

/** RFC 9110 13.1.2, 13.1.3; RFC 9111 4.3.2: 304 only where a condition says so. */
function judgeConditions(origin: ModelOrigin, asked: Asked, given: Given, source: OriginAnswer): string | undefined {
  if (given.status !== 304) return undefined;
  const tags = asked.headers.get('if-none-match');
  if (tags !== undefined) {
    const same = source.etag !== null && opaque(tags) === opaque(source.etag);
    return same || tags === '*' ? undefined : '304 for an entity tag that is not held';
  }
  const since = parseHttpDate(asked.headers.get('if-modified-since') ?? '');
  if (since === undefined) return '304 without a condition';
  const changedAt = ofField(origin, given, 'last-modified')?.modifiedAt ?? source.dateAt;
  return changedAt <= since ? undefined : '304 although it changed since';
}

/** RFC 9111 4.2.3, 5.1. */
function judgeAge({ mode }: World, asked: Asked, given: Given, source: OriginAnswer): string | undefined {
  const age = given.headers.get('age');
  if (age === undefined) return source.seq > asked.startedSeq ? undefined : 'a stored answer without an Age';
  if (Number(age) === source.says.age && source.seq > asked.startedSeq) return undefined;
  const bornAt = bornAtOf(mode, source);
  const from = Math.floor((asked.startedAt - bornAt) / 1_000);
  const to = Math.floor((given.endedAt - bornAt) / 1_000);
  return Number(age) >= Math.max(0, from) && Number(age) <= to ? undefined : `Age ${age}, and it is ${from} to ${to}`;
}

function bornAtOf(mode: World['mode'], { says, dateAt, requestedAt, receivedAt }: OriginAnswer): number {
  const apparent = mode === 'media' ? 0 : Math.max(0, Math.floor((receivedAt - dateAt) / 1_000) * 1_000);
  return receivedAt - Math.max(apparent, says.age * 1_000 + (receivedAt - requestedAt));
}

/** RFC 9111 3, 4 and 5.2; RFC 5861: whether an answer that was not fetched for this request might be given to it. */
function judgeReuse(world: World, asked: Asked, given: Given, source: OriginAnswer): string | undefined {
  const { mode, origin, cutOff } = world;
  if (source.seq > asked.startedSeq) return undefined;
  if (cutOff) return 'a stored answer while the edge is cut off';
  const { wishes } = asked;
  const said = effective(origin, given);
  const refusal = storeRefusal(mode, said, source);
  if (refusal !== undefined) return `a stored answer that was not to be stored: ${refusal}`;
  if (source.sunsetAt !== null && mode === 'media' && asked.startedAt >= source.sunsetAt) return 'past its end';
  const bornAt = bornAtOf(mode, source);
  const lifetimeMs = lifetimeOf(origin, given, said, source) * 1_000;
  const atBest = asked.startedAt - bornAt - lifetimeMs;
  const failed = failedFor(origin, asked);
  const forbids = said.mustRevalidate || said.proxyRevalidate || said.sMaxage !== undefined || said.noCache;
  if (failed && forbids !== true && atBest < (said.sie ?? (lifetimeMs > 0 ? USUAL_SIE_S : 0)) * 1_000) return undefined;
  if (failed && atBest < 0) return undefined;
  const honours = mode === 'off';
  if (honours && wishes.noCache === true) return 'a stored answer to no-cache';
  if (honours && wishes.maxAge !== undefined && asked.startedAt - bornAt > wishes.maxAge * 1_000)
    return 'older than max-age';
  if (honours && wishes.minFresh !== undefined && -atBest < wishes.minFresh * 1_000) return 'less fresh than min-fresh';
  if (atBest < 0) return undefined;
  if (forbids === true) return `stale by ${atBest} ms, which is forbidden`;
  if (wishes.maxStale !== undefined && atBest <= wishes.maxStale * 1_000) return undefined;
  const limited = honours && (wishes.maxAge !== undefined || wishes.minFresh !== undefined);
  if (!limited && atBest < (said.swr ?? 0) * 1_000) return undefined;
  return `stale by ${atBest} ms`;
}

/** RFC 9111 3.2: the fields that are given may have come with different answers; each says with which. */
function ofField(origin: ModelOrigin, given: Given, name: string): OriginAnswer | undefined {
  const number = given.headers.get(`x-of-${name}`);
  return number === undefined ? undefined : origin.answers[Number(number)];
}

function effective(origin: ModelOrigin, given: Given): Directives {
  return (
    ofField(origin, given, 'cdn-cache-control')?.says.cdn ?? ofField(origin, given, 'cache-control')?.says.cc ?? {}
  );
}

/** In generic mode what may not be kept is one caller's alone, also among those who wait together. */
export function isForOneAlone({ mode, origin }: World, given: Given): boolean {
  const source = origin.answers[Number(given.headers.get('x-answer') ?? '-1')];
  return mode === 'off' && source !== undefined && storeRefusal(mode, effective(origin, given), source) !== undefined;
}

function storeRefusal(mode: World['mode'], said: Directives, source: OriginAnswer): string | undefined {
  if (said.noStore === true) return 'no-store';
  if (said.private === true) return 'private';
  if (source.status === 503) return 'an error';
  if (mode === 'media') return undefined;
  if (/no-store/.test(source.sent.get('cache-control') ?? '')) return 'the request said no-store';
  const shared = said.mustRevalidate === true || said.public === true || said.sMaxage !== undefined;
  return source.sent.has('authorization') && !shared ? 'asked for with a credential' : undefined;
}

/** RFC 9111 4.2.1, 4.2.2; RFC 9213 2.2. In seconds. */
function lifetimeOf(origin: ModelOrigin, given: Given, said: Directives, source: OriginAnswer): number {
  if (said.noCache === true) return 0;
  if (said.sMaxage !== undefined) return said.sMaxage;
  if (said.maxAge !== undefined) return said.maxAge;
  const expires = ofField(origin, given, 'expires');
  const targeted = ofField(origin, given, 'cdn-cache-control') !== undefined;
  if (expires !== undefined && !targeted) {
    const at = Math.floor(expires.receivedAt / 1_000) * 1_000 + (expires.says.expiresIn ?? 0) * 1_000;
    return Math.max(0, (at - source.dateAt) / 1_000);
  }
  const modified = ofField(origin, given, 'last-modified')?.modifiedAt ?? null;
  return modified === null ? 0 : Math.max(0, (source.dateAt - modified) / 10_000);
}
