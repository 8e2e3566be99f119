/**
 * The fields of a response as HTTP/2 may carry them and as node:http2 takes them:
 * by name, in lower case, with a list where a field has several lines. Pure.
 *
 * Promises a head that node accepts whatever fields an origin sent.
 */
import { isOfOneLine } from './fields.js';
import type { HeaderList } from './reply.js';

export type Http2Fields = Record<string, string | string[]>;

/** RFC 9113 8.2.2: connection-specific fields would make a response malformed. */
const NOT_IN_HTTP2: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]);

/** Lists that node:http2 nevertheless wants in one line (RFC 9110 5.3 allows it). */
const JOINED: ReadonlySet<string> = new Set(['content-encoding', 'content-language']);

export function mayBeInHttp2(name: string): boolean {
  return !NOT_IN_HTTP2.has(name);
}

/** Adds a line. Node refuses a head in which a field of one line has several: of those the first counts. */
export function addLine(fields: Http2Fields, name: string, value: string): void {
  const before = fields[name];
  if (before === undefined) fields[name] = value;
  else if (JOINED.has(name)) fields[name] = [before, value].flat().join(', ');
  else if (!isOfOneLine(name)) fields[name] = [before, value].flat();
}

export function http2Fields(lines: HeaderList): Http2Fields {
  const fields: Http2Fields = {};
  for (const [name, value] of lines) if (mayBeInHttp2(name)) addLine(fields, name, value);
  return fields;
}

/** RFC 9110 15: 600 and beyond are invalid, and count as an error of the server. Node refuses to send them. */
export function validStatus(status: number): number {
  return status > 599 ? 502 : status;
}
