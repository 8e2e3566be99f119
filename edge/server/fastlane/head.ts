/**
 * Reads the head of a plain request from the text of a connection: GET or HEAD,
 * a target in origin form, HTTP/1.1, fields that each stand there once, no body
 * and nothing that asks for another protocol or another end of the connection.
 *
 * Promises to accept nothing that node's parser and the inspection behind it
 * (src/server/hygiene.ts) would refuse or read in another way. Whatever is not
 * plainly so is `unusual`, and theirs. Pure.
 */

import { HOST, isOriginForm } from '../../../src/http/head.js';
import type { HeaderList } from '../../../src/http/reply.js';
import type { InspectionLimits } from '../../../src/server/hygiene.js';

/** The fields of a request, as text and as read. A client mostly sends the same ones again. */
export interface Fields {
  readonly text: string;
  /** In the order received, names in lower case. */
  readonly lines: HeaderList;
  readonly values: ReadonlyMap<string, string>;
}

export interface PlainHead {
  readonly kind: 'plain';
  readonly method: 'GET' | 'HEAD';
  readonly target: string;
  readonly fields: Fields;
  /** Characters, and bytes, that the head takes. */
  readonly length: number;
}

export type HeadRead = PlainHead | { readonly kind: 'incomplete' } | { readonly kind: 'unusual' };

const INCOMPLETE: HeadRead = { kind: 'incomplete' };
const UNUSUAL: HeadRead = { kind: 'unusual' };

const VERSION = ' HTTP/1.1';
const LINE_END = '\r\n';
const HEAD_END = '\r\n\r\n';

/**
 * `text`: what was received, one character a byte (latin-1). `before`: the
 * fields of the request before on the same connection, handed back where they
 * are the same.
 */
export function readHead(text: string, limits: InspectionLimits, before: Fields | undefined): HeadRead {
  const method = methodOf(text);
  if (method === undefined) return isBeginningOfMethod(text) ? INCOMPLETE : UNUSUAL;
  const end = text.indexOf(HEAD_END);
  const length = end + HEAD_END.length;
  if (end < 0) return text.length > limits.headersMaxBytes ? UNUSUAL : INCOMPLETE;
  if (length > limits.headersMaxBytes) return UNUSUAL;
  const lineEnd = text.indexOf(LINE_END);
  if (!text.startsWith(VERSION, lineEnd - VERSION.length)) return UNUSUAL;
  const target = detached(text.slice(method.length + 1, lineEnd - VERSION.length));
  if (target.length > limits.targetMaxBytes || !isOriginForm(target)) return UNUSUAL;
  const fieldsText = text.slice(lineEnd + LINE_END.length, end + LINE_END.length);
  const fields = before?.text === fieldsText ? before : readFields(detached(fieldsText), limits.headersMaxCount);
  return fields === undefined ? UNUSUAL : { kind: 'plain', method, target, fields, length };
}

/** A copy: a part of a text keeps all of it, and what is read of a request may be kept for long. */
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
const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
/** Visible ASCII, space and tab: neither a stray control character nor what one reader takes for UTF-8 and another for Latin-1. */
const VALUE = /^[\t\x20-\x7e]*$/;

/** What frames a body, asks for something else than an answer, or concerns the connection. */
const NOT_PLAIN: ReadonlySet<string> = new Set([
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

/** Undefined where one of them is not plain. `text` is whole lines, each with its end. */
function readFields(text: string, countMax: number): Fields | undefined {
  const values = new Map<string, string>();
  const lines: [string, string][] = [];
  for (let at = 0; at < text.length; ) {
    const lineEnd = text.indexOf(LINE_END, at);
    const colon = text.indexOf(':', at);
    if (colon < 0 || colon > lineEnd) return undefined;
    const name = text.slice(at, colon).toLowerCase();
    const raw = text.slice(colon + 1, lineEnd);
    // A name that is no token also stands for a folded line (RFC 9112 5.2), which begins with white space.
    if (!TOKEN.test(name) || !VALUE.test(raw) || values.has(name) || NOT_PLAIN.has(name)) return undefined;
    const value = detached(raw.trim());
    if (name === 'connection' && value.toLowerCase() !== 'keep-alive') return undefined;
    values.set(name, value);
    lines.push([name, value]);
    at = lineEnd + LINE_END.length;
  }
  if (lines.length > countMax || !HOST.test(values.get('host') ?? '')) return undefined;
  return { text, lines, values };
}
