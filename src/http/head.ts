/**
 * Reads the head of a request as node:http, HTTP/2 or a parser of our own
 * received it: its target, its fields, its length. Pure.
 *
 * Promises one reading for every listener. What may be a request at all is
 * decided before, by src/server/hygiene.ts.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { type HeaderList, headerOf } from './reply.js';

/**
 * RFC 9112 3.2 and RFC 3986: the characters of a URI without `#`, since a request
 * target has no fragment. Brackets belong to a host, but clients send them in
 * queries as they are.
 */
export const TARGET = /^[!$%&'()*+,\-./0-9:;=?@A-Z[\]_a-z~]+$/;

/** RFC 9110 7.2: a host and perhaps a port. No user, no path, no list. */
export const HOST = /^(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/;

const ABSOLUTE = /^https?:\/\/([^/?]*)(.*)$/i;

/** The form that clients send to servers, except to proxies (RFC 9112 3.2.1). */
export function isOriginForm(target: string): boolean {
  return target.startsWith('/') && TARGET.test(target);
}

export interface OriginForm {
  readonly target: string;
  /** The host and port that an absolute target names. It counts instead of the Host field (RFC 9112 3.2.2). */
  readonly authority: string | undefined;
}

/**
 * The path and query of a request target. A server also accepts the absolute
 * form (RFC 9112 3.2.2), but only of http and https, with a host and without a
 * user (RFC 9110 4.2.1, 4.2.4). An empty path means `/` (RFC 9110 4.2.3). Every
 * other target is returned unchanged, so it never names more than it did.
 */
export function originForm(target: string): OriginForm {
  if (target.startsWith('/') || !TARGET.test(target)) return { target, authority: undefined };
  const [, authority = '', rest = ''] = ABSOLUTE.exec(target) ?? [];
  if (!HOST.test(authority)) return { target, authority: undefined };
  return { target: rest.startsWith('/') ? rest : `/${rest}`, authority };
}

/** A target divided at its first `?`; without one, the query is empty. */
export function splitTarget(target: string): { readonly path: string; readonly query: string } {
  const mark = target.indexOf('?');
  return mark < 0 ? { path: target, query: '' } : { path: target.slice(0, mark), query: target.slice(mark + 1) };
}

/** Node's or undici's flat list of names and values as field lines: names in lower case, bytes read as Latin-1. */
export function rawFields(raw: readonly (string | Buffer)[]): HeaderList {
  const fields: [name: string, value: string][] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) fields.push([latin1(raw[at]).toLowerCase(), latin1(raw[at + 1])]);
  return fields;
}

function latin1(text: string | Buffer | undefined): string {
  return typeof text === 'string' ? text : (text?.toString('latin1') ?? '');
}

/** A field's value by lower-case name; several lines are joined by `, ` (RFC 9110 5.3). */
export function header(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value.join(', ') : value;
}

const REQUEST_ID = /^[A-Za-z0-9_-]{8,64}$/;

/** The client's own request id if it is well formed, so that one id can cross several services. */
export function requestId(given: string | undefined): string | undefined {
  return given !== undefined && REQUEST_ID.test(given) ? given : undefined;
}

/** A number as fields and queries write it: digits only, and few enough to be exact. */
export function wholeNumber(text: string | null | undefined): number | undefined {
  return text !== null && text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** RFC 9110 8.6. Null if there is none or it is malformed. */
export function contentLength(headers: HeaderList): number | null {
  return wholeNumber(headerOf(headers, 'content-length')) ?? null;
}
