/**
 * What a passed request and its answer may look like on the other side, as pure
 * functions: framing, fields, expectations, and what may be sent a second time.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { endToEnd, fieldValue, withVia } from '../../src/http/fields.js';
import { rawFields } from '../../src/http/head.js';
import type { HeaderList } from '../../src/http/reply.js';
import { INTERNAL_FIELDS, REQUEST_ID } from '../../src/wire.js';
import { cacheStatusOf, joinCacheStatus } from '../respond/cache-status.js';

/** How the body of a request is delimited. The client's own framing is never copied without being understood. */
export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly sizeBytes: number }
  | { readonly kind: 'chunked' };

/** The part of a request that is looked at; `endsAtHead`: HTTP/2 says that no body follows. */
export interface PassedRequest {
  readonly method: string;
  /** In origin form. */
  readonly target: string;
  /** As the client named it, for X-Forwarded-Host. */
  readonly host: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly httpVersion: string;
  readonly endsAtHead: boolean;
}

/** RFC 9112 6.3. What contradicts itself was refused before it came here. */
export function framingOf(request: PassedRequest): Framing {
  if (request.headers['transfer-encoding'] !== undefined) return { kind: 'chunked' };
  const stated = request.headers['content-length'];
  if (stated !== undefined) {
    const sizeBytes = Number(stated);
    return sizeBytes === 0 ? { kind: 'none' } : { kind: 'length', sizeBytes };
  }
  return request.httpVersion.startsWith('2') && !request.endsAtHead ? { kind: 'chunked' } : { kind: 'none' };
}

/** Never taken from a client: what an edge says to the origin, and who the client is said to be. */
const FROM_NO_CLIENT: ReadonlySet<string> = new Set([
  ...INTERNAL_FIELDS,
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-real-ip',
  // Framing and expectation are ours to state; Host is the origin's.
  'content-length',
  'expect',
  'host',
]);

export interface PassFacts {
  readonly requestId: string;
  readonly clientAddress: string;
  readonly scheme: 'http' | 'https';
  readonly edgeName: string;
  readonly originHost: string;
}

/** The fields of the request as the origin gets them. */
export function forwardedHeaders(request: PassedRequest, framing: Framing, facts: PassFacts): Record<string, string> {
  const came = Object.entries(request.headers).flatMap(([name, value]) =>
    value === undefined || name.startsWith(':') ? [] : [[name, [value].flat().join(', ')] as const],
  );
  const kept = endToEnd(came).filter(([name]) => !FROM_NO_CLIENT.has(name));
  return {
    ...Object.fromEntries(withVia(kept, protocolOf(request.httpVersion), facts.edgeName)),
    host: facts.originHost,
    [REQUEST_ID]: facts.requestId,
    'x-forwarded-for': facts.clientAddress,
    'x-forwarded-proto': facts.scheme,
    ...(request.host !== undefined && { 'x-forwarded-host': request.host }),
    ...framingHeaders(request.method, framing),
  };
}

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
      // RFC 9110 8.6: methods that anticipate content say that there is none.
      return ['POST', 'PUT', 'PATCH'].includes(method) ? { 'content-length': '0' } : {};
  }
}

/** Meant for edges, or made anew here. */
const NOT_FOR_CLIENTS: ReadonlySet<string> = new Set([...INTERNAL_FIELDS, 'cdn-cache-control', 'cache-status']);

/** The fields of the origin's answer as the client gets them. `last`: the connection ends with this answer. */
export function answerHeaders(
  rawHeaders: readonly string[],
  status: number,
  request: PassedRequest,
  facts: PassFacts,
  last: boolean,
): HeaderList {
  const came = rawFields(rawHeaders);
  const kept = endToEnd(came).filter(([name]) => !NOT_FOR_CLIENTS.has(name));
  const reason = request.method === 'GET' || request.method === 'HEAD' ? 'bypass' : 'method';
  const handling = cacheStatusOf(facts.edgeName)({ kind: 'forwarded', reason, status });
  return [
    ...withVia(kept, '1.1', facts.edgeName),
    [REQUEST_ID, facts.requestId],
    ['cache-status', joinCacheStatus(fieldValue(came, 'cache-status'), handling)],
    ...connectionField(request, last),
  ];
}

/** HTTP/2 has no such field (RFC 9113 8.2.2). */
export function connectionField(request: Pick<PassedRequest, 'httpVersion'>, last: boolean): HeaderList {
  return last && request.httpVersion.startsWith('1') ? [['connection', 'close']] : [];
}

/** RFC 9110 9.2.2: may be sent again after a connection died under it, as far as it was sent whole. */
export function mayRepeat(method: string, framing: Framing): boolean {
  return framing.kind === 'none' && ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'PUT', 'TRACE'].includes(method);
}

/** RFC 9111 4.4: what it changes must not be answered from the cache any more. */
export function invalidates(method: string, status: number): boolean {
  return !['GET', 'HEAD', 'OPTIONS', 'TRACE'].includes(method) && status >= 200 && status < 400;
}

/** RFC 9110 7.6.2: how many hops a request may still take; `final`: it is answered here. */
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
