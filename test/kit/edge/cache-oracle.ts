/**
 * Decides whether one response of the cache was allowed, given all responses of
 * the origin. It was written from RFC 9111 and RFC 5861 alone, and it works on
 * the origin's settings instead of its fields, so that it does not share the
 * cache's faults.
 */
import { parseHttpDate } from '../../../src/http/date.js';
import { type Directives, type ModelOrigin, type OriginResponse, opaque, representation } from './model-origin.js';

export interface ModelRequest {
  readonly method: 'GET' | 'HEAD';
  readonly path: string;
  readonly headers: ReadonlyMap<string, string>;
  /** The directives of its Cache-Control, in seconds. */
  readonly directives: RequestDirectives;
  readonly credential: boolean;
  readonly startedSeq: number;
  readonly startedAt: number;
}

export interface RequestDirectives {
  readonly noCache?: boolean;
  readonly noStore?: boolean;
  readonly onlyIfCached?: boolean;
  readonly maxAge?: number;
  readonly minFresh?: number;
  /** Infinity: any staleness. */
  readonly maxStale?: number;
}

export interface ModelResponse {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly bytes: Buffer;
  /** False if the transfer broke. */
  readonly whole: boolean;
  /** The client went away before the end. */
  readonly aborted: boolean;
  readonly endedAt: number;
}

export interface Context {
  readonly mode: 'media' | 'off';
  readonly origin: ModelOrigin;
  /** For each path, when its stored responses had to be removed last, as a number in the origin's sequence. */
  readonly removedSeq: ReadonlyMap<string, number>;
  /** The edge, and every one before it, is cut off from the journal: every response needs the origin. */
  readonly cutOff: boolean;
  /** Some edge of the row is cut off, and may refuse. */
  readonly anyCutOff: boolean;
  /** How many edges stand in a row. Each cuts Age to whole seconds (RFC 9111 5.1). */
  readonly tiers: number;
  /** Something was taken down or purged meanwhile: any transfer may break, however many bytes it had sent. */
  readonly disturbed: boolean;
}

/** The stale-if-error window (RFC 5861) without a directive: the default of the configuration. */
const USUAL_SIE_S = 60;

/** Returns what is wrong with the response, or undefined. */
export function checkResponse(context: Context, request: ModelRequest, response: ModelResponse): string | undefined {
  const number = response.headers.get('x-response');
  if (number === undefined) return checkOwnRefusal(context, request, response);
  const source = context.origin.responses[Number(number)];
  if (source === undefined) return 'a response that the origin never sent';
  return (
    checkSource(context, request, response, source) ??
    checkContent(context, request, response, source) ??
    checkConditions(context.origin, request, response, source) ??
    checkAge(context, request, response, source) ??
    checkReuse(context, request, response, source)
  );
}

/** The edge's own refusals, each with its only reason. */
function checkOwnRefusal(
  { mode, origin, anyCutOff }: Context,
  request: ModelRequest,
  { status }: ModelResponse,
): string | undefined {
  const failed = failedFor(origin, request);
  if (status === 502 || status === 503) return failed || anyCutOff ? undefined : `${status} without a failure`;
  if (status === 504)
    return request.directives.onlyIfCached === true ? undefined : '504 to a request without only-if-cached';
  if (status === 416) return request.headers.has('range') ? undefined : '416 without a range';
  if (status === 401) return mode === 'media' && !request.credential ? undefined : '401 to a client with a credential';
  return `${status} of its own`;
}

/** Whether the origin failed for this path since the request began. */
function failedFor(origin: ModelOrigin, { path, startedSeq }: ModelRequest): boolean {
  return origin.failures.some((each) => each.path === path && each.seq > startedSeq);
}

function checkSource(
  { mode, origin, removedSeq }: Context,
  request: ModelRequest,
  response: ModelResponse,
  source: OriginResponse,
): string | undefined {
  if (source.path !== request.path) return `a response for ${source.path}`;
  const removed = removedSeq.get(request.path) ?? 0;
  if (request.startedSeq >= removed && source.seq <= removed) return 'a response that had to be removed';
  if (source.settings.vary && (source.sent.get('x-kind') ?? '') !== (request.headers.get('x-kind') ?? '')) {
    return 'a response for other request fields (Vary)';
  }
  const shows = source.status === 200 || source.status === 206 || source.status === 304;
  if (mode === 'media' && !request.credential && shows && effectiveDirectives(origin, response).public !== true) {
    return 'a private response without a credential';
  }
  return undefined;
}

/** RFC 9110 15.3.7, 14.4, 9.3.2: exactly the bytes of the representation, or of the span in Content-Range. */
function checkContent(
  { origin, disturbed }: Context,
  request: ModelRequest,
  response: ModelResponse,
  source: OriginResponse,
): string | undefined {
  const { status, headers, bytes, whole, aborted } = response;
  const all = representation(source.path, source.version, source.variant);
  if (request.method === 'HEAD' || status === 304)
    return bytes.length === 0 ? undefined : 'a body where none is allowed';
  let wanted = all;
  if (status === 206) {
    const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get('content-range') ?? '');
    if (match === null) return '206 without a Content-Range';
    if (!request.headers.has('range')) return '206 without a Range';
    if (Number(match[3]) !== all.length) return 'a wrong complete length';
    const condition = request.headers.get('if-range');
    const relayed = source.status === 206 && source.sent.get('if-range') === condition;
    if (condition !== undefined && !relayed && (condition !== source.etag || source.settings.etag !== 'strong')) {
      return 'a range although If-Range does not hold';
    }
    wanted = all.subarray(Number(match[1]), Number(match[2]) + 1);
    const first = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get('range') ?? '');
    const last = first?.[2] === '' ? all.length - 1 : Math.min(Number(first?.[2]), all.length - 1);
    if (Number(match[1]) !== Number(first?.[1]) || Number(match[2]) !== last) return 'another range than was requested';
  } else if (status !== source.status && !(status === 200 && [206, 304].includes(source.status))) {
    return `${status} for ${source.status}`;
  }
  if (!bytes.equals(wanted.subarray(0, bytes.length))) return 'other bytes than the representation has';
  if (whole && bytes.length !== wanted.length) return 'a short body without an error';
  if (!whole && !aborted && !disturbed && bytes.length === wanted.length)
    return 'a broken transfer although all bytes were sent';
  if (!whole && !aborted && !disturbed && !failedFor(origin, request)) return 'a broken transfer without a reason';
  const length = headers.get('content-length');
  return length === undefined || Number(length) === wanted.length ? undefined : 'a wrong Content-Length';
}

/** RFC 9110 13.1.2, 13.1.3; RFC 9111 4.3.2: 304 only if a condition says so. */
function checkConditions(
  origin: ModelOrigin,
  request: ModelRequest,
  response: ModelResponse,
  source: OriginResponse,
): string | undefined {
  if (response.status !== 304) return undefined;
  const tags = request.headers.get('if-none-match');
  if (tags !== undefined) {
    const same = source.etag !== null && opaque(tags) === opaque(source.etag);
    return same || tags === '*' ? undefined : '304 for another entity tag';
  }
  const since = parseHttpDate(request.headers.get('if-modified-since') ?? '');
  if (since === undefined) return '304 without a condition';
  const changedAt = ofField(origin, response, 'last-modified')?.modifiedAt ?? source.dateAt;
  return changedAt <= since ? undefined : '304 although it has changed since';
}

/** RFC 9111 4.2.3, 5.1. */
function checkAge(
  { mode, tiers }: Context,
  request: ModelRequest,
  response: ModelResponse,
  source: OriginResponse,
): string | undefined {
  const age = response.headers.get('age');
  if (age === undefined) return source.seq > request.startedSeq ? undefined : 'a stored response without Age';
  if (Number(age) === source.settings.age && source.seq > request.startedSeq) return undefined;
  const bornAt = bornAtOf(mode, source);
  const from = Math.floor((request.startedAt - bornAt) / 1_000) - (tiers - 1);
  // Beyond the first edge, Date and an age of whole seconds may differ by one more.
  const to = Math.floor((response.endedAt - bornAt) / 1_000) + Math.min(1, tiers - 1);
  return Number(age) >= Math.max(0, from) && Number(age) <= to ? undefined : `Age ${age} instead of ${from} to ${to}`;
}

function bornAtOf(mode: Context['mode'], { settings, dateAt, requestedAt, receivedAt }: OriginResponse): number {
  const apparent = mode === 'media' ? 0 : Math.max(0, Math.floor((receivedAt - dateAt) / 1_000) * 1_000);
  return receivedAt - Math.max(apparent, settings.age * 1_000 + (receivedAt - requestedAt));
}

/** RFC 9111 3, 4 and 5.2; RFC 5861: whether a stored response may be reused for this request. */
function checkReuse(
  context: Context,
  request: ModelRequest,
  response: ModelResponse,
  source: OriginResponse,
): string | undefined {
  const { mode, origin, cutOff, tiers } = context;
  if (source.seq > request.startedSeq) return undefined;
  if (cutOff) return 'a stored response while the edge is cut off';
  const { directives } = request;
  const effective = effectiveDirectives(origin, response);
  const refusal = storeRefusal(mode, effective, source);
  if (refusal !== undefined) return `a response that must not be stored: ${refusal}`;
  if (source.sunsetAt !== null && mode === 'media' && request.startedAt >= source.sunsetAt) return 'past its end';
  const bornAt = bornAtOf(mode, source) + (tiers - 1) * 1_000;
  const lifetimeMs = lifetimeOf(origin, response, effective, source) * 1_000;
  const atBest = request.startedAt - bornAt - lifetimeMs;
  const failed = failedFor(origin, request);
  const forbids =
    effective.mustRevalidate || effective.proxyRevalidate || effective.sMaxage !== undefined || effective.noCache;
  if (failed && forbids !== true && atBest < (effective.sie ?? (lifetimeMs > 0 ? USUAL_SIE_S : 0)) * 1_000)
    return undefined;
  if (failed && atBest < 0) return undefined;
  const honoursRequest = mode === 'off';
  if (honoursRequest && directives.noCache === true) return 'a stored response for no-cache';
  if (honoursRequest && directives.maxAge !== undefined && request.startedAt - bornAt > directives.maxAge * 1_000)
    return 'older than max-age';
  if (honoursRequest && directives.minFresh !== undefined && -atBest < directives.minFresh * 1_000)
    return 'less fresh than min-fresh';
  if (atBest < 0) return undefined;
  if (forbids === true) return `stale by ${atBest} ms, which a directive forbids`;
  if (directives.maxStale !== undefined && atBest <= directives.maxStale * 1_000) return undefined;
  const limited = honoursRequest && (directives.maxAge !== undefined || directives.minFresh !== undefined);
  if (!limited && atBest < (effective.swr ?? 0) * 1_000) return undefined;
  return `stale by ${atBest} ms`;
}

/** The origin's response that a field came with: a stored head may be updated field by field (RFC 9111 3.2). */
function ofField(origin: ModelOrigin, response: ModelResponse, name: string): OriginResponse | undefined {
  const number = response.headers.get(`x-of-${name}`);
  return number === undefined ? undefined : origin.responses[Number(number)];
}

function effectiveDirectives(origin: ModelOrigin, response: ModelResponse): Directives {
  return (
    ofField(origin, response, 'cdn-cache-control')?.settings.cdn ??
    ofField(origin, response, 'cache-control')?.settings.cc ??
    {}
  );
}

/** In generic mode: whether the response is for one client only, even among clients that wait for the same fetch. */
export function isUnshareable({ mode, origin }: Context, response: ModelResponse): boolean {
  const source = origin.responses[Number(response.headers.get('x-response') ?? '-1')];
  return (
    mode === 'off' &&
    source !== undefined &&
    storeRefusal(mode, effectiveDirectives(origin, response), source) !== undefined
  );
}

function storeRefusal(mode: Context['mode'], effective: Directives, source: OriginResponse): string | undefined {
  if (effective.noStore === true) return 'no-store';
  if (effective.private === true) return 'private';
  if (source.status === 503) return 'an error';
  if (mode === 'media') return undefined;
  if (/no-store/.test(source.sent.get('cache-control') ?? '')) return 'no-store in the request';
  const shared = effective.mustRevalidate === true || effective.public === true || effective.sMaxage !== undefined;
  return source.sent.has('authorization') && !shared ? 'the request had a credential' : undefined;
}

/** RFC 9111 4.2.1, 4.2.2; RFC 9213 2.2. In seconds. */
function lifetimeOf(
  origin: ModelOrigin,
  response: ModelResponse,
  effective: Directives,
  source: OriginResponse,
): number {
  if (effective.noCache === true) return 0;
  if (effective.sMaxage !== undefined) return effective.sMaxage;
  if (effective.maxAge !== undefined) return effective.maxAge;
  const expires = ofField(origin, response, 'expires');
  const targeted = ofField(origin, response, 'cdn-cache-control') !== undefined;
  if (expires !== undefined && !targeted) {
    const at = Math.floor(expires.receivedAt / 1_000) * 1_000 + (expires.settings.expiresIn ?? 0) * 1_000;
    return Math.max(0, (at - source.dateAt) / 1_000);
  }
  const modified = ofField(origin, response, 'last-modified')?.modifiedAt ?? null;
  return modified === null ? 0 : Math.max(0, (source.dateAt - modified) / 10_000);
}
