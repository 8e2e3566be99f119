/**
 * How a passed request and its response look on the other side of the edge:
 * framing, fields, hop limits, and which requests may be repeated. Pure.
 */
import type { IncomingHttpHeaders } from 'node:http';
import {
  endToEnd,
  fieldsToForward,
  fieldValue,
  isForwardingField,
  withCdnLoop,
  withVia,
} from '../../src/http/fields.js';
import { header, rawFields } from '../../src/http/head.js';
import type { HeaderList } from '../../src/http/reply.js';
import { TRACE_FIELDS, type Trace, traceFields } from '../../src/tracing/context.js';
import { INTERNAL_FIELDS, REQUEST_ID } from '../../src/wire.js';
import { cacheStatusOf, joinCacheStatus } from '../respond/cache-status.js';
import type { CacheMode } from '../rfc9111/storable.js';

/** How the body of a request is delimited. The client's framing fields are never copied; they are made anew from this. */
export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly sizeBytes: number }
  | { readonly kind: 'chunked' };

/** What decides how a request is passed on. */
export interface RequestHead {
  readonly method: string;
  /** In origin form. */
  readonly target: string;
  /** The host that the client named, for X-Forwarded-Host. */
  readonly host: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly httpVersion: string;
  /** HTTP/2 said with the head that no body follows. */
  readonly endsAtHead: boolean;
}

/** RFC 9112 6.3. A request with contradictory framing was refused before. */
export function framingOf(request: RequestHead): Framing {
  if (request.headers['transfer-encoding'] !== undefined) return { kind: 'chunked' };
  const stated = request.headers['content-length'];
  if (stated !== undefined) {
    const sizeBytes = Number(stated);
    return sizeBytes === 0 ? { kind: 'none' } : { kind: 'length', sizeBytes };
  }
  return request.httpVersion.startsWith('2') && !request.endsAtHead ? { kind: 'chunked' } : { kind: 'none' };
}

/** Besides the forwarding fields: never taken from a client, because the origin trusts the edge to set them. */
const FROM_NO_CLIENT: ReadonlySet<string> = new Set([
  ...INTERNAL_FIELDS,
  ...TRACE_FIELDS,
  // Set anew: framing and expectation by the edge, Host for the origin.
  'content-length',
  'expect',
  'host',
]);

/** What the edge adds to a request. */
export interface PassFacts {
  readonly mode: CacheMode;
  readonly requestId: string;
  readonly trace?: Trace | undefined;
  readonly clientAddress: string;
  readonly scheme: 'http' | 'https';
  readonly edgeName: string;
}

/** The fields that the origin at this host gets. */
export function forwardedHeaders(
  request: RequestHead,
  framing: Framing,
  facts: PassFacts,
  originHost: string,
): Record<string, string> {
  const received = Object.entries(request.headers).flatMap(([name, value]) =>
    value === undefined || name.startsWith(':') ? [] : [[name, [value].flat().join(', ')] as const],
  );
  const kept = endToEnd(received).filter(
    ([name]) => !FROM_NO_CLIENT.has(name) && (!isForwardingField(name) || isTusOverride(name, request, facts)),
  );
  return {
    ...Object.fromEntries(withCdnLoop(withVia(kept, protocolOf(request.httpVersion), facts.edgeName), facts.edgeName)),
    host: originHost,
    [REQUEST_ID]: facts.requestId,
    ...Object.fromEntries(traceFields(facts.trace)),
    'x-forwarded-for': facts.clientAddress,
    'x-forwarded-proto': facts.scheme,
    ...(request.host !== undefined && { 'x-forwarded-host': request.host }),
    ...framingHeaders(request.method, framing),
  };
}

/**
 * tus has a field for clients that cannot send PATCH (tus 1.0.0,
 * X-HTTP-Method-Override). Only resumable uploads know it, and only as POST.
 */
function isTusOverride(name: string, { method, target, headers }: RequestHead, { mode }: PassFacts): boolean {
  if (name !== TUS_OVERRIDE || mode !== 'media' || method !== 'POST') return false;
  return /^\/v1\/uploads\/[^/?]+$/.test(target) && /^(?:HEAD|PATCH|DELETE)$/.test(header(headers, name) ?? '');
}

const TUS_OVERRIDE = 'x-http-method-override';

function protocolOf(version: string): '1.0' | '1.1' | '2.0' {
  return version === '1.0' || version === '2.0' ? version : '1.1';
}

function framingHeaders(method: string, framing: Framing): Record<string, string> {
  switch (framing.kind) {
    case 'chunked':
      return { 'transfer-encoding': 'chunked' };
    case 'length':
      return { 'content-length': String(framing.sizeBytes) };
    case 'none':
      // RFC 9110 8.6: a method that usually has content states that there is none.
      return ['POST', 'PUT', 'PATCH'].includes(method) ? { 'content-length': '0' } : {};
  }
}

/** Fields for edges only, and fields that the edge makes anew. In generic mode anyone may be a cache (RFC 9213 3.1). */
const HIDDEN: Readonly<Record<CacheMode, ReadonlySet<string>>> = {
  media: new Set([...INTERNAL_FIELDS, 'cdn-cache-control', 'cache-status']),
  off: new Set([...INTERNAL_FIELDS, 'cache-status']),
};

/** The fields that the client gets. `last`: the connection ends with this response. */
export function answerHeaders(
  rawHeaders: readonly string[],
  status: number,
  request: RequestHead,
  facts: PassFacts,
  last: boolean,
): HeaderList {
  const received = rawFields(rawHeaders);
  const kept = fieldsToForward(status, received).filter(([name]) => !HIDDEN[facts.mode].has(name));
  const reason = request.method === 'GET' || request.method === 'HEAD' ? 'bypass' : 'method';
  const handling = cacheStatusOf(facts.edgeName)({ kind: 'forwarded', reason, status });
  return [
    ...withVia(kept, '1.1', facts.edgeName),
    [REQUEST_ID, facts.requestId],
    ['cache-status', joinCacheStatus(fieldValue(received, 'cache-status'), handling)],
    ...connectionField(request, last),
  ];
}

/** HTTP/2 has no Connection field (RFC 9113 8.2.2). */
export function connectionField(request: Pick<RequestHead, 'httpVersion'>, last: boolean): HeaderList {
  return last && request.httpVersion.startsWith('1') ? [['connection', 'close']] : [];
}

/** RFC 9110 9.2.2: whether a request may be sent again after its connection broke: idempotent, and without a body. */
export function mayRepeat(method: string, framing: Framing): boolean {
  return framing.kind === 'none' && ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'PUT', 'TRACE'].includes(method);
}

/** RFC 9111 4.4: whether stored responses for the target must not be used any more. */
export function invalidates(method: string, status: number): boolean {
  return !['GET', 'HEAD', 'OPTIONS', 'TRACE'].includes(method) && status >= 200 && status < 400;
}

/** RFC 9110 7.6.2: how many more hops a request may make. `final`: the edge itself must answer it. */
export function hopsLeft(
  method: string,
  maxForwards: string | undefined,
): { readonly kind: 'unlimited' } | { readonly kind: 'left'; readonly hops: number } | { readonly kind: 'final' } {
  if ((method !== 'OPTIONS' && method !== 'TRACE') || maxForwards === undefined || !/^\d{1,9}$/.test(maxForwards)) {
    return { kind: 'unlimited' };
  }
  const hops = Number(maxForwards);
  return hops === 0 ? { kind: 'final' } : { kind: 'left', hops: hops - 1 };
}
