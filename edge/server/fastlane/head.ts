/**
 * Reads the head of a plain request from the bytes of a connection. Plain means:
 * GET or HEAD, a target in origin form, HTTP/1.1, no field twice, no body, and
 * no field that changes the protocol. `Connection: close` is plain.
 *
 * Promises to accept nothing that node's parser and the inspection behind it
 * (src/server/hygiene.ts) would refuse or read differently. Every other head is
 * `unusual` and is left to them. Pure.
 */

import { HOST, isOriginForm } from '../../../src/http/head.js';
import type { HeaderList } from '../../../src/http/reply.js';
import type { InspectionLimits } from '../../../src/server/hygiene.js';

/** The fields of a request, as text and parsed. A client mostly sends the same text again. */
export interface Fields {
  /** Empty for those of an HTTP/2 stream. */
  readonly text: string;
  /** In the order received, names in lower case. */
  readonly lines: HeaderList;
  readonly values: ReadonlyMap<string, string>;
  /** RFC 9112 9.6: the client wants no further request to be answered on the connection. */
  readonly last: boolean;
}

export interface PlainHead {
  readonly kind: 'plain';
  readonly method: 'GET' | 'HEAD';
  readonly target: string;
  readonly fields: Fields;
  /** Length of the head, in characters and in bytes. */
  readonly length: number;
}

export type HeadRead = PlainHead | { readonly kind: 'incomplete' } | { readonly kind: 'unusual' };

const INCOMPLETE: HeadRead = { kind: 'incomplete' };
const UNUSUAL: HeadRead = { kind: 'unusual' };

const VERSION = ' HTTP/1.1';
const LINE_END = '\r\n';
const HEAD_END = '\r\n\r\n';
/** Node's parser refuses such a head as soon as it sees this (RFC 9112 2.2), so its end need not come. */
const BARE_LINE_FEED = /[^\r]\n/;

/**
 * `text` is what was received, one character for each byte (latin-1). `before`
 * holds the fields of the previous request on the connection; they are returned
 * again if the text is the same.
 */
export function readHead(text: string, limits: InspectionLimits, before: Fields | undefined): HeadRead {
  const method = methodOf(text);
  if (method === undefined) return isBeginningOfMethod(text) ? INCOMPLETE : UNUSUAL;
  const end = text.indexOf(HEAD_END);
  const length = end + HEAD_END.length;
  if (end < 0) return text.length > limits.headersMaxBytes || BARE_LINE_FEED.test(text) ? UNUSUAL : INCOMPLETE;
  if (length > limits.headersMaxBytes) return UNUSUAL;
  const lineEnd = text.indexOf(LINE_END);
  if (!text.startsWith(VERSION, lineEnd - VERSION.length)) return UNUSUAL;
  const target = detached(text.slice(method.length + 1, lineEnd - VERSION.length));
  if (target.length > limits.targetMaxBytes || !isOriginForm(target)) return UNUSUAL;
  const fieldsText = text.slice(lineEnd + LINE_END.length, end + LINE_END.length);
  const fields = before?.text === fieldsText ? before : readFields(detached(fieldsText), limits.headersMaxCount);
  return fields === undefined ? UNUSUAL : { kind: 'plain', method, target, fields, length };
}

/** A copy of the string. A slice would keep the whole text in memory, and a target or a value may be kept for long. */
function detached(part: string): string {
  return ` ${part}`.slice(1);
}

function methodOf(text: string): 'GET' | 'HEAD' | undefined {
  if (text.startsWith('GET /')) return 'GET';
  return text.startsWith('HEAD /') ? 'HEAD' : undefined;
}

function isBeginningOfMethod(text: string): boolean {
  return 'GET /'.startsWith(text) || 'HEAD /'.startsWith(text);
}

/** RFC 9110 5.6.2. */
export const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
/** Visible ASCII, space and tab: no control characters, and no bytes that can be read as UTF-8 or as Latin-1. */
export const VALUE = /^[\t\x20-\x7e]*$/;

/** Fields that frame a body, ask for more than a response, or concern the connection. */
export const NOT_PLAIN: ReadonlySet<string> = new Set([
  'content-length',
  'expect',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Undefined if a field is not plain. `text` is a number of whole lines, each with its line end. */
function readFields(text: string, countMax: number): Fields | undefined {
  const values = new Map<string, string>();
  const lines: [string, string][] = [];
  let last = false;
  for (let at = 0; at < text.length; ) {
    const lineEnd = text.indexOf(LINE_END, at);
    const colon = text.indexOf(':', at);
    if (colon < 0 || colon > lineEnd) return undefined;
    const name = text.slice(at, colon).toLowerCase();
    const raw = text.slice(colon + 1, lineEnd);
    // The test of the name also refuses a folded line (RFC 9112 5.2), which begins with white space.
    if (!TOKEN.test(name) || !VALUE.test(raw) || values.has(name) || NOT_PLAIN.has(name)) return undefined;
    const value = detached(raw.trim());
    if (name === 'connection') {
      const option = value.toLowerCase();
      if (option !== 'keep-alive' && option !== 'close') return undefined;
      last = option === 'close';
    }
    values.set(name, value);
    lines.push([name, value]);
    at = lineEnd + LINE_END.length;
  }
  if (lines.length > countMax || !HOST.test(values.get('host') ?? '')) return undefined;
  return { text, lines, values, last };
}
