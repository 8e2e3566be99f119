/**
 * From a stored or arriving response to the Reply that one request gets:
 * conditions, ranges, the fields that only this answer has. Pure but for the
 * bodies that a Reply opens when it is sent.
 *
 * A complete body in memory goes out as bytes, in one write; everything else
 * is a stream that the cache opens.
 */

import { Readable } from 'node:stream';
import type { EpochMs } from '../../src/clock.js';
import { Fault, unreachable } from '../../src/errors.js';
import { CORS_HEADERS, GUARD_HEADERS } from '../../src/http/browser.js';
import { evaluateConditions, type Validators } from '../../src/http/conditional.js';
import { parseHttpDate } from '../../src/http/date.js';
import { problemReply } from '../../src/http/problem.js';
import {
  type ByteSpan,
  contentRange,
  multipartPlan,
  planRange,
  spanLength,
  unsatisfiedRange,
} from '../../src/http/range.js';
import { type HeaderList, headerOf, NO_BODY, type Reply, type ReplyBody } from '../../src/http/reply.js';
import { INTERNAL_FIELDS, REQUEST_ID } from '../../src/wire.js';
import type { Body } from '../cache/cache.js';
import type { Entry } from '../entry.js';
import type { EdgeRequest } from '../request.js';
import { ageSeconds } from '../rfc9111/freshness.js';
import { type ClientLifetime, clientCacheControl, clientLifetimeOf } from './client-lifetime.js';

export interface RespondRules {
  readonly rangesMax: number;
  /** What stands in Via. */
  readonly edgeName: string;
  /** A part boundary that nobody can foresee. */
  newBoundary(): string;
}

/** A response to be told, whether it is stored, arrives or is a head alone. */
export interface CachedResponse {
  readonly entry: Entry;
  /** Null for an answer to HEAD: there is none to open. */
  readonly body: Body | null;
  /** The Cache-Status of this answer, this cache's part. */
  readonly cacheStatus: string;
  /**
   * Set for a body that still arrives, which is held for those who read it
   * already: it is then opened with the answer, not when that is sent. Ends the
   * reading.
   */
  readonly gone?: AbortSignal;
  /** When the right to see it ends, by which it was asked for: of a signed link; otherwise Infinity. */
  readonly endsAt: EpochMs;
  /** Fields that the entry was stored without and that this caller alone gets. */
  readonly unstoredFields?: HeaderList;
}

export function respond(request: EdgeRequest, response: CachedResponse, now: EpochMs, rules: RespondRules): Reply {
  const head = headOf(response.entry, rules.edgeName);
  const own = ownFields(request, response, head, now);
  // RFC 9110 13.2.1: conditions are about what would otherwise be 2xx. A 204 or a 404 has no range either.
  if (response.entry.status !== 200) return whole(request, response, head, own);
  switch (evaluateConditions(request, head.conditions)) {
    case 'not_modified':
      return { status: 304, leading: head.notModified, headers: own, body: NO_BODY };
    case 'precondition_failed':
      return refuse(
        request,
        new Fault('precondition_failed', 'The media is not as the request wants it.'),
        response.cacheStatus,
        rules.edgeName,
      );
    case 'proceed':
      return ranged(request, response, head, own, rules);
  }
}

/** The spans that `respond` answers with; undefined where its answer is no 206. */
export function spansAnswered(
  request: EdgeRequest,
  entry: Entry,
  sizeBytes: number,
  rules: RespondRules,
): readonly ByteSpan[] | undefined {
  if (entry.status !== 200 || request.header('range') === undefined) return undefined;
  const head = headOf(entry, rules.edgeName);
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

/** RFC 9110 14.2. While the size is not known there is nothing to measure a range by: it is answered whole. */
function ranged(
  request: EdgeRequest,
  response: CachedResponse,
  head: Head,
  own: HeaderList,
  rules: RespondRules,
): Reply {
  const { body } = response;
  const sizeBytes = body?.sizeBytes ?? null;
  if (body === null || sizeBytes === null || request.header('range') === undefined)
    return whole(request, response, head, own);
  const plan = planRange(request, head.validators, sizeBytes, rules);
  switch (plan.kind) {
    case 'whole':
      return whole(request, response, head, own);
    case 'single':
      return single({ ...response, body }, plan.span, sizeBytes, head, own);
    case 'several':
      return several({ ...response, body }, plan.spans, sizeBytes, head, own, rules.newBoundary());
    case 'unsatisfiable':
      return refuse(
        request,
        new Fault('range_not_satisfiable', 'The media ends before the range begins.', {
          headers: { 'content-range': unsatisfiedRange(sizeBytes) },
        }),
        response.cacheStatus,
        rules.edgeName,
      );
    default:
      return unreachable(plan);
  }
}

function whole(request: EdgeRequest, response: CachedResponse, head: Head, own: HeaderList): Reply {
  const { entry, body } = response;
  const sizeBytes = body === null ? entry.sizeBytes : (body.sizeBytes ?? entry.sizeBytes);
  const stated = sizeBytes === head.sizeBytes || entry.status === 204;
  const silent = body === null || request.method === 'HEAD';
  return {
    status: entry.status,
    leading: stated ? head.whole : head.unsized,
    headers: stated ? own : withLength(own, sizeBytes),
    body: silent ? unopened(sizeBytes) : bodyOf(body, response.gone, undefined, sizeBytes),
  };
}

/** Of a body whose size is another than its head told, or was not known with it. */
function withLength(own: HeaderList, sizeBytes: number | null): HeaderList {
  return sizeBytes === null ? own : [['content-length', String(sizeBytes)], ...own];
}

type Bodied = CachedResponse & { readonly body: Body };

function single(response: Bodied, span: ByteSpan, sizeBytes: number, head: Head, own: HeaderList): Reply {
  return {
    status: 206,
    leading: head.partial,
    headers: [
      ...typeField(head),
      ['content-range', contentRange(span, sizeBytes)],
      ['content-length', String(spanLength(span))],
      ...own,
    ],
    body: bodyOf(response.body, response.gone, span, spanLength(span)),
  };
}

function several(
  { body, gone }: Bodied,
  spans: readonly ByteSpan[],
  sizeBytes: number,
  head: Head,
  own: HeaderList,
  boundary: string,
): Reply {
  const plan = multipartPlan(spans, sizeBytes, head.contentType, boundary);
  const opened = gone === undefined ? [] : plan.parts.map(({ span }) => openNow(body, span, gone));
  async function* frames(signal: AbortSignal): AsyncGenerator<Buffer> {
    for (const [index, { head, span }] of plan.parts.entries()) {
      yield head;
      yield* (opened[index] ?? body.open(span, signal)) as AsyncIterable<Buffer>;
    }
    yield plan.tail;
  }
  return {
    status: 206,
    leading: head.partial,
    headers: [['content-type', plan.contentType], ['content-length', String(plan.sizeBytes)], ...own],
    body: {
      kind: 'stream',
      sizeBytes: plan.sizeBytes,
      open: (signal) => Readable.from(frames(signal), { objectMode: false }),
    },
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
  if (gone === undefined) return { kind: 'stream', sizeBytes, open: (signal) => body.open(span, signal) };
  const opened = openNow(body, span, gone);
  return { kind: 'stream', sizeBytes, open: () => opened };
}

/**
 * Before anybody reads it. Where the client has left already it is broken off at
 * once, and perhaps read by nobody: an error that nobody hears would end the
 * process.
 */
function openNow(body: Body, span: ByteSpan | undefined, gone: AbortSignal): Readable {
  return body.open(span, gone).on('error', () => undefined);
}

/** A body whose size is told and whose bytes are not sent: the answer to HEAD. */
function unopened(sizeBytes: number | null): ReplyBody {
  return {
    kind: 'stream',
    sizeBytes,
    open: () => {
      throw new Error('an answer to HEAD has no bytes');
    },
  };
}

function typeField(head: Head): HeaderList {
  return head.contentType === undefined ? [] : [['content-type', head.contentType]];
}

/** What every request gets anew. RFC 9111 5.1: Age in whole seconds. */
function ownFields(request: EdgeRequest, response: CachedResponse, { client }: Head, now: EpochMs): HeaderList {
  const { entry, cacheStatus, unstoredFields } = response;
  const age = ageSeconds(entry, now);
  const own: [string, string][] = [
    ['age', String(age)],
    ['cache-status', cacheStatus],
    [REQUEST_ID, request.requestId],
  ];
  if (client !== undefined) {
    own.push(['cache-control', clientCacheControl(client, age, Math.min(entry.deleteAt, response.endsAt), now)]);
  }
  return unstoredFields === undefined ? own : [...unstoredFields, ...own];
}

function withFields(reply: Reply, fields: HeaderList): Reply {
  return { ...reply, headers: [...reply.headers, ...fields] };
}

/** What is between origin and edge alone. RFC 9213 2.2: the targeted field was for us. */
const NOT_FOR_CLIENTS: ReadonlySet<string> = new Set([
  ...INTERNAL_FIELDS,
  'cdn-cache-control',
  'age',
  'content-length',
]);

/** The fields of an origin's answer that a client may see, without those that each answer gets anew. */
export function clientFields(headers: HeaderList, edgeName: string): [name: string, value: string][] {
  const fields: [string, string][] = [];
  for (const [name, value] of headers) if (!NOT_FOR_CLIENTS.has(name)) fields.push([name, value]);
  fields.push(['via', `1.1 ${edgeName}`]);
  return fields;
}

/** What all answers from one stored head share; made once for each head. */
interface Head {
  /** What conditions are judged by, and what a range's own condition is. */
  readonly conditions: Validators;
  readonly validators: Validators;
  readonly contentType: string | undefined;
  /** What a client is told for how long anew each time; undefined where the lists below say it. */
  readonly client: ClientLifetime | undefined;
  /** The size that `whole` states; null: none. */
  readonly sizeBytes: number | null;
  readonly whole: HeaderList;
  readonly unsized: HeaderList;
  readonly partial: HeaderList;
  readonly notModified: HeaderList;
}

const heads = new WeakMap<Entry, Head>();

function headOf(entry: Entry, edgeName: string): Head {
  const found = heads.get(entry);
  if (found !== undefined) return found;
  const made = makeHead(entry, edgeName);
  heads.set(entry, made);
  return made;
}

function makeHead(entry: Entry, edgeName: string): Head {
  const client = entry.mediaId === null ? undefined : clientLifetimeOf(entry.headers);
  const response = clientFields(entry.headers, edgeName);
  const fields = client === undefined ? response : response.filter(([name]) => name !== 'cache-control');
  const etag = headerOf(entry.headers, 'etag') ?? null;
  const lastModifiedAt = instantOf(entry, 'last-modified');
  const dateAt = instantOf(entry, 'date');
  const sizeBytes = entry.status === 204 ? null : entry.sizeBytes;
  return {
    // RFC 9111 4.3.2: without Last-Modified, what is held is as old as its Date.
    conditions: { etag, lastModifiedAt: lastModifiedAt ?? dateAt ?? entry.receivedAt, dateAt },
    validators: { etag, lastModifiedAt, dateAt },
    contentType: headerOf(entry.headers, 'content-type'),
    client,
    sizeBytes,
    whole: sizeBytes === null ? fields : [...fields, ['content-length', String(sizeBytes)]],
    unsized: fields,
    partial: fields.filter(([name]) => !OF_THE_WHOLE.has(name)),
    notModified: fields.filter(([name]) => !OF_THE_BODY.has(name)),
  };
}

function instantOf(entry: Entry, name: string): EpochMs | null {
  const value = headerOf(entry.headers, name);
  return (value === undefined ? undefined : parseHttpDate(value)) ?? null;
}

/** Fields that would be wrong beside a part of the bytes (RFC 9110 15.3.7, RFC 9530 2). */
const OF_THE_WHOLE: ReadonlySet<string> = new Set(['content-type', 'content-digest', 'content-md5']);

/** Metadata of the representation, which a 304 leaves to what the client holds (RFC 9110 15.4.5). */
const OF_THE_BODY: ReadonlySet<string> = new Set([
  'content-type',
  'content-encoding',
  'content-language',
  'content-range',
  'content-digest',
  'content-md5',
  'content-disposition',
  'repr-digest',
  'transfer-encoding',
]);

/** An answer of the origin that is not from the cache, as a client may see it. */
export function relay(
  request: EdgeRequest,
  answer: Reply,
  cacheStatus: string,
  endsAt: EpochMs,
  now: EpochMs,
  rules: RespondRules,
): Reply {
  const { status, body } = answer;
  const sizeBytes = headerOf(answer.headers, 'content-length');
  const length: HeaderList = sizeBytes === undefined || body.kind === 'bytes' ? [] : [['content-length', sizeBytes]];
  // RFC 9111 4.2.3: where nothing is added to it, the age that the answer came with is its age.
  const age = answer.headers.filter(([name]) => name === 'age');
  return {
    status,
    headers: [
      ...clientFields(
        endsAt === Number.POSITIVE_INFINITY ? answer.headers : endingAt(answer.headers, endsAt, now),
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

/** What comes by a link is used no longer than it holds. */
function endingAt(headers: HeaderList, endsAt: EpochMs, now: EpochMs): HeaderList {
  const client = clientLifetimeOf(headers);
  if (client === undefined) return headers;
  const value = clientCacheControl(client, 0, endsAt, now);
  return headers.map((line) => (line[0] === 'cache-control' ? ['cache-control', value] : line));
}

/** A refusal of the edge's own, as a script in a browser may read it. */
export function refuse(request: EdgeRequest, fault: Fault, cacheStatus: string | undefined, edgeName: string): Reply {
  return withFields(problemReply(fault), [
    ...GUARD_HEADERS,
    ...CORS_HEADERS,
    ['via', `1.1 ${edgeName}`],
    ...(cacheStatus === undefined ? [] : ([['cache-status', cacheStatus]] as const)),
    [REQUEST_ID, request.requestId],
  ]);
}
