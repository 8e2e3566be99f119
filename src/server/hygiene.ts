/**
 * Refuses requests that node's parser accepts but that two parsers could read
 * differently, or that no honest client sends. Pure checks of the head as it was
 * received. They are cheap, because every request goes through them.
 *
 * The parser itself refuses bad framing: conflicting or malformed lengths,
 * folded lines, stray control characters.
 */
import { METHODS } from 'node:http';
import type { FaultCode } from '../errors.js';
import { HOST, TARGET } from '../http/head.js';

export type HygieneReason =
  | 'version'
  | 'method'
  | 'target'
  | 'target_too_long'
  | 'request_line'
  | 'expectation'
  | 'host_missing'
  | 'host_repeated'
  | 'host_malformed'
  | 'transfer_coding'
  | 'field_repeated'
  | 'fields_too_many'
  | 'fields_too_large';

export type Inspection =
  | { readonly kind: 'ok' }
  | {
      readonly kind: 'refused';
      readonly reason: HygieneReason;
      readonly code: FaultCode;
      /** Public. */
      readonly detail: string;
    };

/** The head of a request as received; `rawHeaders` are names and values in turn. */
export interface ReceivedHead {
  readonly method: string;
  readonly target: string;
  /** `1.1` */
  readonly httpVersion: string;
  readonly rawHeaders: readonly string[];
  /** False: the request line was not written as RFC 9112 3 says, although the parser accepts it. */
  readonly regularLine?: boolean | undefined;
}

export interface InspectionLimits {
  readonly targetMaxBytes: number;
  readonly headersMaxCount: number;
  /** For HTTP/2 only: the parser of HTTP/1.1 checks this itself. */
  readonly headersMaxBytes: number;
}

const OK: Inspection = { kind: 'ok' };

export function inspect(head: ReceivedHead, limits: InspectionLimits): Inspection {
  const { httpVersion } = head;
  // RFC 9112 2.3: the parser also accepts 0.9 and 2.0.
  if (httpVersion !== '1.1' && httpVersion !== '1.0') {
    return refused('version', 'http_version', 'This is an HTTP/1.1 server.');
  }
  if (head.regularLine === false) return refused('request_line', 'malformed', 'The request line is malformed.');
  return inspectHead(head, limits);
}

/** The same for HTTP/2, with `:authority` as Host and without the other pseudo-fields. */
export function inspectHttp2(head: Omit<ReceivedHead, 'httpVersion'>, limits: InspectionLimits): Inspection {
  // RFC 9113 8.3.1: `:path` is a path or `*`, never an absolute form.
  if (!head.target.startsWith('/') && head.target !== '*') {
    return refused('target', 'malformed', 'The request target is malformed.');
  }
  // The parser of HTTP/1.1 refuses others. Passed on, `get` would become GET, which it is not (RFC 9110 9.1).
  if (!KNOWN_METHODS.has(head.method)) return refused('method', 'malformed', 'The method is not known here.');
  if (listBytes(head) > limits.headersMaxBytes) {
    return refused('fields_too_large', 'headers_too_large', 'The header fields are too large.');
  }
  return inspectHead({ ...head, httpVersion: '1.1' }, limits);
}

const KNOWN_METHODS: ReadonlySet<string> = new Set(METHODS);

/** RFC 9113 6.5.2: added for each field to the lengths of its name and value. */
export const FIELD_OVERHEAD_BYTES = 32;

function listBytes({ method, target, rawHeaders }: Omit<ReceivedHead, 'httpVersion'>): number {
  let bytes = method.length + target.length + (rawHeaders.length / 2) * FIELD_OVERHEAD_BYTES;
  for (const text of rawHeaders) bytes += text.length;
  return bytes;
}

function inspectHead(head: ReceivedHead, limits: InspectionLimits): Inspection {
  const { method, target, httpVersion, rawHeaders } = head;
  if (target.length > limits.targetMaxBytes) {
    return refused('target_too_long', 'uri_too_long', 'The request target is too long.');
  }
  if (rawHeaders.length > 2 * limits.headersMaxCount) {
    return refused('fields_too_many', 'headers_too_large', 'There are too many header fields.');
  }
  if (!isTarget(method, target)) return refused('target', 'malformed', 'The request target is malformed.');
  return inspectFields(rawHeaders, httpVersion);
}

/**
 * RFC 9112 3.2: origin form, absolute form with a host and without a user, or
 * `*` with OPTIONS.
 */
function isTarget(method: string, target: string): boolean {
  if (target === '*') return method === 'OPTIONS';
  if (!TARGET.test(target)) return false;
  return target.startsWith('/') || HOST.test(/^https?:\/\/([^/?]*)/i.exec(target)?.[1] ?? '');
}

/**
 * Fields that may be there once: servers differ in which of two lines they use.
 * Each has a bit, to note whether it was seen.
 */
const ONCE: ReadonlyMap<string, number> = new Map(
  ['host', 'authorization', 'content-length', 'content-type', 'expect', 'transfer-encoding'].map((name, at) => [
    name,
    1 << at,
  ]),
);

/** The lengths of those names: most fields are ruled out by their length alone. */
const ONCE_LENGTHS: ReadonlySet<number> = new Set([...ONCE.keys()].map((name) => name.length));

function inspectFields(rawHeaders: readonly string[], httpVersion: string): Inspection {
  let host: string | undefined;
  let seen = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const raw = rawHeaders[at] ?? '';
    if (!ONCE_LENGTHS.has(raw.length)) continue;
    const name = raw.toLowerCase();
    const bit = ONCE.get(name);
    if (bit === undefined) continue;
    if ((seen & bit) !== 0) return repeated(name);
    seen |= bit;
    const value = rawHeaders[at + 1] ?? '';
    if (name === 'host') host = value;
    const judged = inspectValue(name, value, httpVersion);
    if (judged.kind === 'refused') return judged;
  }
  return inspectHost(host, httpVersion);
}

function repeated(name: string): Inspection {
  return name === 'host'
    ? refused('host_repeated', 'malformed', 'There is more than one Host.')
    : refused('field_repeated', 'malformed', 'A field that may be sent once was sent twice.');
}

function inspectValue(name: string, value: string, httpVersion: string): Inspection {
  switch (name) {
    case 'transfer-encoding':
      return inspectCoding(value, httpVersion);
    case 'expect':
      return inspectExpectation(value, httpVersion);
    default:
      return OK;
  }
}

/** RFC 9110 10.1.1: 100-continue is the only expectation. One in HTTP/1.0 is ignored. */
function inspectExpectation(value: string, httpVersion: string): Inspection {
  if (httpVersion === '1.0' || value === '' || /^100-continue$/i.test(value)) return OK;
  return refused('expectation', 'expectation_failed', 'The only expectation that can be met is 100-continue.');
}

/** RFC 9112 6.1: only chunked is supported. An empty value hides a body from some parsers, and HTTP/1.0 has no transfer coding. */
function inspectCoding(value: string, httpVersion: string): Inspection {
  if (httpVersion === '1.0' || value === '') {
    return refused('transfer_coding', 'malformed', 'The transfer coding is malformed.');
  }
  if (value.toLowerCase() === 'chunked') return OK;
  return refused('transfer_coding', 'not_implemented', 'Only the transfer coding chunked is supported.');
}

/** RFC 9112 3.2: every HTTP/1.1 request has exactly one Host. */
function inspectHost(host: string | undefined, httpVersion: string): Inspection {
  if (host === undefined) {
    return httpVersion === '1.0' ? OK : refused('host_missing', 'malformed', 'There is no Host.');
  }
  return HOST.test(host) ? OK : refused('host_malformed', 'malformed', 'The Host is malformed.');
}

function refused(reason: HygieneReason, code: FaultCode, detail: string): Inspection {
  return { kind: 'refused', reason, code, detail };
}

/**
 * The answer to bytes that node's parser refused, by node's error code.
 * `lineTooLong`: the request line alone is longer than a head may be.
 */
export function parserFault(
  code: string | undefined,
  lineTooLong: boolean,
): { readonly code: FaultCode; readonly detail: string } {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return lineTooLong
        ? { code: 'uri_too_long', detail: 'The request line is too long.' }
        : { code: 'headers_too_large', detail: 'The header fields are too large.' };
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return { code: 'too_large', detail: 'The chunk extensions are too large.' };
    case 'HPE_INVALID_EOF_STATE':
      return { code: 'malformed', detail: 'The request ended before it was complete.' };
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return { code: 'request_timeout', detail: 'The request took too long to arrive.' };
    default:
      return { code: 'malformed', detail: 'The request is not HTTP/1.1.' };
  }
}

/**
 * The name by which connections of one client are counted: an IPv4 address, or
 * the /64 network of an IPv6 address, because one client owns a whole /64.
 */
export function clientNetwork(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped?.[1] !== undefined) return mapped[1];
  if (!address.includes(':')) return address;
  const [head = '', tail] = (address.split('%', 1)[0] ?? '').toLowerCase().split('::');
  const first = head === '' ? [] : head.split(':');
  const last = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - first.length - last.length);
  const groups = [...first, ...Array<string>(zeros).fill('0'), ...last];
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':')}::/64`;
}
