/** The requests that the edge sends to the origin for a cache request: which one, and with which fields. */
import { endToEnd, isForwardingField, withCdnLoop, withVia } from '../../src/http/fields.js';
import type { HeaderList } from '../../src/http/reply.js';
import { clientNetwork } from '../../src/server/hygiene.js';
import { TRACE_FIELDS, traceFields } from '../../src/tracing/context.js';
import { EDGE_PROOF, INTERNAL_FIELDS, MEDIA_CALLER, REQUEST_ID } from '../../src/wire.js';
import type { Entry } from '../entry.js';
import type { EdgeRequest } from '../request.js';
import { preconditions, REPLACED_BY_PRECONDITIONS } from '../rfc9111/validate.js';
import { matches } from '../rfc9111/vary.js';
import type { UpstreamRequest } from '../upstream/request.js';
import { type CacheRequest, selecting } from './cache-request.js';

export interface Identity {
  /** The value of `edge-authorization`. */
  readonly proof: string;
  /** The edge's name in Via. */
  readonly edgeName: string;
}

/**
 * For the whole response, to be stored and shared, whatever range or condition
 * the caller sent. With `stored`, only if none of those is valid any more (RFC
 * 9111 4.3.1).
 */
export function wholeRequest(wanted: CacheRequest, stored: readonly Entry[], identity: Identity): UpstreamRequest {
  return forClient(wanted, { method: 'GET', ...sharedHead(wanted, stored, identity) });
}

/** For the head alone, shared by all callers who send HEAD. */
export function headRequest(wanted: CacheRequest, identity: Identity): UpstreamRequest {
  return { method: 'HEAD', ...sharedHead(wanted, [], identity) };
}

/** For this caller alone: with the range and conditions that the caller sent. */
export function ownRequest(wanted: CacheRequest, identity: Identity): UpstreamRequest {
  const { request, target, fetchAs } = wanted;
  const base = baseFields(wanted, identity, NOT_FORWARDED);
  const own = fetchAs === 'client' ? [] : request.fields().filter(([name]) => REPLACED_BY_PRECONDITIONS.has(name));
  const method = request.method === 'HEAD' ? 'HEAD' : 'GET';
  return forClient(wanted, { method, target: target.originTarget, headers: [...base, ...own] });
}

/** For a range of the representation with this entity tag, or the whole if the origin has another one (If-Range). */
export function rangeRequest(wanted: CacheRequest, range: string, etag: string, identity: Identity): UpstreamRequest {
  const headers: HeaderList = [...baseFields(wanted, identity, OF_ONE_CALLER), ['range', range], ['if-range', etag]];
  return forClient(wanted, { method: 'GET', target: wanted.target.originTarget, headers });
}

/** Whether a response made for this caller alone could differ from the whole. */
export function wantsOwn(request: EdgeRequest): boolean {
  if (request.method === 'HEAD') return true;
  for (const name of REPLACED_BY_PRECONDITIONS) if (request.header(name) !== undefined) return true;
  return false;
}

/** Interim responses go to the client whose request this is. Callers who share it get none. */
function forClient({ request, fetchAs }: CacheRequest, sent: UpstreamRequest): UpstreamRequest {
  const traced = { ...sent, client: () => clientNetwork(request.sender().address) };
  if (fetchAs !== 'client' || request.inform === undefined) return traced;
  return { ...traced, onInterim: (status, fields) => request.inform?.(status, fields) };
}

function sharedHead(
  wanted: CacheRequest,
  stored: readonly Entry[],
  identity: Identity,
): Pick<UpstreamRequest, 'target' | 'headers'> {
  const selected = stored.length === 1 && stored.every((entry) => matches(entry, selecting(wanted)));
  const headers = [...baseFields(wanted, identity, OF_ONE_CALLER), ...preconditions(stored, selected)];
  return { target: wanted.target.originTarget, headers };
}

function baseFields(
  { request, target, fetchAs, forEdge }: CacheRequest,
  { proof, edgeName }: Identity,
  without: ReadonlySet<string>,
): HeaderList {
  if (fetchAs === 'client') {
    const kept = endToEnd(request.fields()).filter(([name]) => !without.has(name) && !isForwardingField(name));
    // Not the client's Host: the response is stored for all, under a key without it.
    const { address, scheme } = request.sender();
    const own: HeaderList = [
      [REQUEST_ID, request.requestId],
      ...traceFields(request.trace),
      ['x-forwarded-for', address],
      ['x-forwarded-proto', scheme],
    ];
    return withHop([...kept, ...own], edgeName);
  }
  const own: HeaderList = [
    ['accept', target.accept ?? '*/*'],
    // One stored form serves all clients: media are compressed already.
    ['accept-encoding', 'identity'],
    [EDGE_PROOF, proof],
    ...(fetchAs === 'anonymous' ? ([[MEDIA_CALLER, 'anonymous']] as const) : []),
    [REQUEST_ID, request.requestId],
    ...traceFields(request.trace),
  ];
  // The response is for all: what a client says of earlier hops could make the origin refuse it to others.
  return withHop(forEdge ? [...request.fields().filter(([name]) => HOPS.has(name)), ...own] : own, edgeName);
}

const HOPS: ReadonlySet<string> = new Set(['via', 'cdn-loop']);

/** With this edge among the hops, by which a loop is found. */
function withHop(headers: HeaderList, edgeName: string): HeaderList {
  return withCdnLoop(withVia(headers, '1.1', edgeName), edgeName);
}

/** Framing and request id are made anew; a client may not set the fields between edge and origin. */
const NOT_FORWARDED: ReadonlySet<string> = new Set([
  ...INTERNAL_FIELDS,
  ...TRACE_FIELDS,
  'host',
  'content-length',
  'expect',
]);

/** Fields that make a response right for one caller only. */
const OF_ONE_CALLER: ReadonlySet<string> = new Set([...NOT_FORWARDED, ...REPLACED_BY_PRECONDITIONS]);
