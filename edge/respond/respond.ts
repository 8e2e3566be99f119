/**
 * From a response of the cache to the Reply for one request: conditions, ranges
 * and the fields that differ for each answer. Pure, except that arriving bodies
 * are opened here; all others are opened when the Reply is sent.
 *
 * A complete body in memory is sent as bytes, in one write. Every other body is a
 * stream that the cache opens.
 */
import type { Readable } from 'node:stream';
import type { EpochMs } from '../../src/clock.js';
import { Fault, unreachable } from '../../src/errors.js';
import { evaluateConditions } from '../../src/http/conditional.js';
import { type MultipartPlan, multipartBody, multipartPlan } from '../../src/http/multipart.js';
import { clientProblem } from '../../src/http/problem.js';
import { type ByteSpan, contentRange, planRange, spanLength, unsatisfiedRange } from '../../src/http/range.js';
import { type HeaderList, headerOf, NO_BODY, type Reply, type ReplyBody } from '../../src/http/reply.js';
import { REQUEST_ID } from '../../src/wire.js';
import type { Body } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import type { EdgeRequest } from '../request.js';
import { ageSeconds } from '../rfc9111/freshness.js';
import { clientCacheControl, clientLifetimeOf, clientMaxAge } from './client-lifetime.js';
import { fieldsFor, headOf, type PreparedHead, type Recipient } from './prepared-head.js';
import type { Timed } from './timed-fields.js';

export interface RespondRules {
  readonly rangesMax: number;
  /** The edge's name in Via. */
  readonly edgeName: string;
  readonly to: Recipient;
  /** A multipart boundary that nobody can predict. */
  newBoundary(): string;
}

/** A response of the cache: stored, arriving, incomplete, or a head alone. */
export interface CachedResponse {
  readonly entry: Entry;
  /** Null for a head alone, which only answers HEAD. */
  readonly body: Body | null;
  /** Absent for what is not stored as a whole. */
  readonly tier?: 'memory' | 'disk';
  /**
   * Given for a body that is available only to those who read it already, such
   * as an arriving one: it is opened with the answer, not when that is sent.
   * Ends the reading.
   */
  readonly gone?: AbortSignal;
  /** Fields that may not be stored, for the caller who caused the fetch. */
  readonly unstoredFields?: HeaderList;
}

/** How and when an answer is sent. */
export interface Sending {
  /** This cache's member of Cache-Status. */
  readonly cacheStatus: string;
  /** When the signed link of the request ends; Infinity without one. */
  readonly endsAt: EpochMs;
  readonly now: EpochMs;
}

export function respond(request: EdgeRequest, response: CachedResponse, sending: Sending, rules: RespondRules): Reply {
  const { cacheStatus } = sending;
  const head = headOf(response.entry, rules);
  const own = ownFields(request, response, head, sending);
  // RFC 9110 13.2.1: conditions apply to responses that would otherwise be 2xx. A 204 has no range, nor has a 404.
  if (response.entry.status !== 200) return whole(request, response, head, own);
  switch (evaluateConditions(request, head.conditions)) {
    case 'not_modified':
      return { status: 304, ...lines(head.notModified, own), body: NO_BODY };
    case 'precondition_failed':
      return refusalReply(request, preconditionFailed(), cacheStatus, rules.edgeName);
    case 'proceed':
      return ranged(request, response, head, own, cacheStatus, rules);
  }
}

/** The spans that `respond` would answer with; undefined if its answer would not be a 206. */
export function spansAnswered(
  request: EdgeRequest,
  entry: Entry,
  sizeBytes: number,
  rules: RespondRules,
): readonly ByteSpan[] | undefined {
  if (entry.status !== 200 || request.header('range') === undefined) return undefined;
  const head = headOf(entry, rules);
  if (evaluateConditions(request, head.conditions) !== 'proceed') return undefined;
  const plan = planRange(request, head.validators, sizeBytes, rules);
  switch (plan.kind) {
    case 'single':
      return [plan.span];
    case 'several':
      return plan.spans;
    case 'whole':
    case 'unsatisfiable':
      return undefined;
    default:
      return unreachable(plan);
  }
}

/** RFC 9110 14.2. While its size is not known, a response is sent whole: no range can be measured. */
function ranged(
  request: EdgeRequest,
  response: CachedResponse,
  head: PreparedHead,
  own: OwnFields,
  cacheStatus: string,
  rules: RespondRules,
): Reply {
  const { body, gone } = response;
  const sizeBytes = body?.sizeBytes ?? null;
  if (body === null || sizeBytes === null || request.header('range') === undefined) {
    return whole(request, response, head, own);
  }
  const plan = planRange(request, head.validators, sizeBytes, rules);
  switch (plan.kind) {
    case 'whole':
      return whole(request, response, head, own);
    case 'single':
      return single(body, gone, plan.span, sizeBytes, head, own);
    case 'several':
      return several(
        body,
        gone,
        multipartPlan(plan.spans, sizeBytes, head.contentType, rules.newBoundary()),
        head,
        own,
      );
    case 'unsatisfiable':
      return refusalReply(request, rangeNotSatisfiable(sizeBytes), cacheStatus, rules.edgeName);
    default:
      return unreachable(plan);
  }
}

function preconditionFailed(): Fault {
  return new Fault('precondition_failed', 'The media does not meet the condition of the request.');
}

function rangeNotSatisfiable(sizeBytes: number): Fault {
  const headers = { 'content-range': unsatisfiedRange(sizeBytes) };
  return new Fault('range_not_satisfiable', 'The media ends before the range begins.', { headers });
}

function whole(request: EdgeRequest, { entry, body, gone }: CachedResponse, head: PreparedHead, own: OwnFields): Reply {
  const sizeBytes = body === null ? entry.sizeBytes : (body.sizeBytes ?? entry.sizeBytes);
  const hasLength = sizeBytes === head.sizeBytes || entry.status === 204;
  const isHead = body === null || request.method === 'HEAD';
  return {
    status: entry.status,
    // The size is known here: of a body whose size is not known, the prepared head has none either.
    ...(hasLength ? lines(head.whole, own) : lines(head.unsized, own, [['content-length', String(sizeBytes)]])),
    body: isHead ? unopened(sizeBytes) : bodyOf(body, gone, undefined, sizeBytes),
  };
}

function single(
  body: Body,
  gone: AbortSignal | undefined,
  span: ByteSpan,
  sizeBytes: number,
  head: PreparedHead,
  own: OwnFields,
): Reply {
  return {
    status: 206,
    ...lines(head.partial, own, [
      ...typeField(head),
      ['content-range', contentRange(span, sizeBytes)],
      ['content-length', String(spanLength(span))],
    ]),
    body: bodyOf(body, gone, span, spanLength(span)),
  };
}

function several(
  body: Body,
  gone: AbortSignal | undefined,
  plan: MultipartPlan,
  head: PreparedHead,
  own: OwnFields,
): Reply {
  const opened = new Map(gone === undefined ? [] : plan.parts.map(({ span }) => [span, openNow(body, span, gone)]));
  return {
    status: 206,
    ...lines(head.partial, own, [
      ['content-type', plan.contentType],
      ['content-length', String(plan.sizeBytes)],
    ]),
    body: multipartBody(plan, (span, signal) => opened.get(span) ?? body.open(span, signal)),
  };
}

function bodyOf(
  body: Body,
  gone: AbortSignal | undefined,
  span: ByteSpan | undefined,
  sizeBytes: number | null,
): ReplyBody {
  const bytes = body.whole;
  if (bytes !== undefined) {
    return { kind: 'bytes', bytes: span === undefined ? bytes : bytes.subarray(span.first, span.last + 1) };
  }
  const part = span === undefined ? undefined : body.bytesOf?.(span);
  if (part !== undefined) return { kind: 'bytes', bytes: part };
  if (gone === undefined) return { kind: 'stream', sizeBytes, open: (signal) => body.open(span, signal) };
  const opened = openNow(body, span, gone);
  return { kind: 'stream', sizeBytes, open: () => opened };
}

/**
 * Opens a body before it is sent. If the client is gone already, the stream fails
 * at once and perhaps nobody reads it: without a listener that error would end
 * the process.
 */
function openNow(body: Body, span: ByteSpan | undefined, gone: AbortSignal): Readable {
  return body.open(span, gone).on('error', () => undefined);
}

/** For HEAD: a body with a size whose bytes are not sent. */
function unopened(sizeBytes: number | null): ReplyBody {
  return {
    kind: 'stream',
    sizeBytes,
    open: () => {
      throw new Error('an answer to HEAD has no bytes');
    },
  };
}

function typeField(head: PreparedHead): HeaderList {
  return head.contentType === undefined ? [] : [['content-type', head.contentType]];
}

/** The fields that differ for each answer: with time, and with the request. */
interface OwnFields {
  readonly timed: Timed;
  readonly ofRequest: HeaderList;
}

/** RFC 9111 5.1: Age in whole seconds. */
function ownFields(
  request: EdgeRequest,
  { entry, unstoredFields }: CachedResponse,
  { timed }: PreparedHead,
  { cacheStatus, endsAt, now }: Sending,
): OwnFields {
  const id = [REQUEST_ID, request.requestId] as const;
  return {
    timed: timed({
      ageSeconds: ageSeconds(entry, now),
      cacheStatus,
      endsAt: Math.min(entry.deleteAt, endsAt),
      now,
    }),
    ofRequest: unstoredFields === undefined ? [id] : [...unstoredFields, id],
  };
}

function lines(
  base: HeaderList,
  { timed, ofRequest }: OwnFields,
  more: HeaderList = [],
): Pick<Reply, 'leading' | 'headers'> {
  const leading = timed.leading(base);
  const beside = leading === base ? timed.fields : [];
  return {
    leading,
    headers: more.length + beside.length === 0 ? ofRequest : [...more, ...beside, ...ofRequest],
  };
}

/** A response of the origin that is not from the cache, as its recipient may see it. */
export function relay(
  request: EdgeRequest,
  { status, headers, body }: Reply,
  { cacheStatus, endsAt, now }: Sending,
  rules: RespondRules,
): Reply {
  const sizeBytes = headerOf(headers, 'content-length');
  const length: HeaderList = sizeBytes === undefined || body.kind === 'bytes' ? [] : [['content-length', sizeBytes]];
  // RFC 9111 4.2.3: it was not stored, so its age is the one that it arrived with.
  const age = headers.filter(([name]) => name === 'age');
  return {
    status,
    headers: [
      ...fieldsFor(
        rules.to,
        endsAt === Number.POSITIVE_INFINITY ? headers : endingAt(headers, endsAt, now),
        rules.edgeName,
      ),
      ...length,
      ...age,
      ['cache-status', cacheStatus],
      [REQUEST_ID, request.requestId],
    ],
    body: body.kind === 'none' && request.method === 'HEAD' ? unopened(null) : body,
  };
}

/** A client may use media that it got by a signed link only until the link ends. */
function endingAt(headers: HeaderList, endsAt: EpochMs, now: EpochMs): HeaderList {
  const client = clientLifetimeOf(headers);
  if (client === undefined) return headers;
  const value = clientCacheControl(client, clientMaxAge(client, 0, endsAt, now));
  return headers.map((line) => (line[0] === 'cache-control' ? ['cache-control', value] : line));
}

/** A refusal of the edge itself. */
export function refusalReply(
  request: EdgeRequest,
  fault: Fault,
  cacheStatus: string | undefined,
  edgeName: string,
): Reply {
  const reply = clientProblem(fault);
  return {
    ...reply,
    headers: [
      ...reply.headers,
      ['via', `1.1 ${edgeName}`],
      ...(cacheStatus === undefined ? [] : ([['cache-status', cacheStatus]] as const)),
      [REQUEST_ID, request.requestId],
    ],
  };
}
