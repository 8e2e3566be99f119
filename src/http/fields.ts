/**
 * Field lines as lists of values: joined, split and stripped. Also decides which
 * fields are forwarded (RFC 9110 7.6), in both directions, and which a cache
 * stores (RFC 9111 3.1).
 */
import type { HeaderList } from './reply.js';

/** RFC 9110 5.3: several lines of one field are one value, joined by commas. Undefined if there is none. */
export function fieldValue(headers: HeaderList, name: string): string | undefined {
  let joined: string | undefined;
  for (const [each, value] of headers) {
    if (each === name) joined = joined === undefined ? value : `${joined}, ${value}`;
  }
  return joined;
}

/** The value of each line, for fields that must not have a second line. */
export function fieldLines(headers: HeaderList, name: string): string[] {
  const lines: string[] = [];
  for (const [each, value] of headers) if (each === name) lines.push(value);
  return lines;
}

/** Response fields that have one value and are no lists. */
const OF_ONE_LINE: ReadonlySet<string> = new Set([
  'access-control-allow-credentials',
  'access-control-max-age',
  'age',
  'content-length',
  'content-location',
  'content-md5',
  'content-range',
  'content-type',
  'date',
  'etag',
  'expires',
  'last-modified',
  'location',
  'retry-after',
  'tk',
  'x-content-type-options',
]);

export function isOfOneLine(name: string): boolean {
  return OF_ONE_LINE.has(name);
}

/**
 * The same response with one line of each field that has one value (RFC 9110 5.3
 * forbids a sender more). Of lines that differ the first counts. Two validators
 * that differ validate nothing, so both go. Two instants of expiry count as past
 * (RFC 9111 4.2.1). Age is left to its own rule (RFC 9111 5.1).
 */
function withSingleLines(headers: HeaderList): HeaderList {
  const first = new Map<string, string>();
  const differing = new Set<string>();
  let repeated = false;
  for (const [name, value] of headers) {
    if (name === 'age' || !OF_ONE_LINE.has(name)) continue;
    const before = first.get(name);
    if (before === undefined) {
      first.set(name, value);
      continue;
    }
    repeated = true;
    if (before !== value) differing.add(name);
  }
  return repeated ? headers.flatMap((line) => singleLine(line, first, differing)) : headers;
}

/**
 * The fields of an origin's response that go on: end to end, one line of each
 * that has one value, and no Content-Length where there is no content to measure
 * (RFC 9110 8.6 forbids it in a 204, and a 205 has none that goes on).
 */
export function fieldsToForward(status: number, received: HeaderList): HeaderList {
  const forwarded = withSingleLines(endToEnd(received));
  return status === 204 || status === 205 ? forwarded.filter(([name]) => name !== 'content-length') : forwarded;
}

/**
 * RFC 9110 15.3.6: a 205 has no content. What an origin sends with it is
 * dropped: over HTTP/2 node refuses to send it, and ends the stream with an error.
 */
export function dropsContent(status: number): boolean {
  return status === 205;
}

/**
 * RFC 9112 6.1, 7: whether the body is in a transfer coding other than chunked,
 * which nobody here decodes. Forwarded, it would be taken for the content.
 */
export function hasUnknownCoding(received: HeaderList): boolean {
  const codings = fieldValue(received, 'transfer-encoding');
  return codings !== undefined && trimSpace(codings).toLowerCase() !== 'chunked';
}

/** What stands in the place of a line: itself, or nothing, or a line that says less. */
function singleLine(
  line: HeaderList[number],
  first: Map<string, string>,
  differing: ReadonlySet<string>,
): readonly HeaderList[number][] {
  const [name, value] = line;
  if (name === 'age' || !OF_ONE_LINE.has(name)) return [line];
  if (!first.delete(name)) return [];
  if (!differing.has(name)) return [line];
  if (name === 'etag' || name === 'last-modified') return [];
  return [[name, name === 'expires' ? '0' : value]];
}

/**
 * RFC 9110 5.6.1: the members of a list, without surrounding white space and
 * without empty ones. A comma inside quotes does not separate members. An
 * unclosed quote reaches to the end.
 */
export function listMembers(value: string): string[] {
  if (!value.includes(',')) return pushMember([], value);
  const members: string[] = [];
  if (!value.includes('"')) {
    for (const part of value.split(',')) pushMember(members, part);
    return members;
  }
  let start = 0;
  for (let at = 0; at < value.length; at += 1) {
    const char = value[at];
    if (char === '"') at = skipQuoted(value, at);
    else if (char === ',') {
      pushMember(members, value.slice(start, at));
      start = at + 1;
    }
  }
  return pushMember(members, value.slice(start));
}

function pushMember(members: string[], text: string): string[] {
  const member = trimSpace(text);
  if (member !== '') members.push(member);
  return members;
}

/** The index of the quote that closes the one at `open`; the last index if none does. */
export function skipQuoted(text: string, open: number): number {
  for (let at = open + 1; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === '"') return at;
  }
  return text.length - 1;
}

/** Without optional white space (RFC 9110 5.6.3: space and tab, nothing else) at either end. */
export function trimSpace(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isSpace(text.charCodeAt(start))) start += 1;
  while (end > start && isSpace(text.charCodeAt(end - 1))) end -= 1;
  return start === 0 && end === text.length ? text : text.slice(start, end);
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

/**
 * Fields that belong to one connection (RFC 9110 7.6.1) or are consumed by a
 * proxy (RFC 9111 3.1). They are neither forwarded nor stored.
 */
const CONNECTION_FIELDS: ReadonlySet<string> = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authentication-info',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/**
 * Fields that Connection cannot remove. RFC 9110 7.6.1 forbids senders to name
 * fields that are meant for all recipients. An attacker would do so to make a
 * hop forget that an answer is private, or where a message ends.
 */
const NEVER_NAMED: ReadonlySet<string> = new Set([
  'age',
  'authorization',
  'cache-control',
  'cdn-cache-control',
  'cdn-loop',
  'content-encoding',
  'content-length',
  'content-range',
  'content-type',
  'date',
  'etag',
  'expires',
  'host',
  'last-modified',
  'set-cookie',
  'vary',
  'via',
]);

/**
 * The end-to-end fields: without those of one connection and those that
 * Connection names. Add own fields afterwards, or the other side could have them
 * removed.
 */
export function endToEnd(headers: HeaderList): HeaderList {
  const named = connectionNamed(headers);
  const crosses = (name: string): boolean =>
    !CONNECTION_FIELDS.has(name) && (named === undefined || !named.has(name) || NEVER_NAMED.has(name));
  return headers.every(([name]) => crosses(name)) ? headers : headers.filter(([name]) => crosses(name));
}

function connectionNamed(headers: HeaderList): ReadonlySet<string> | undefined {
  const value = fieldValue(headers, 'connection');
  return value === undefined ? undefined : new Set(listMembers(value.toLowerCase()));
}

/** Names that begin so, or are one of the set, tell a server behind proxies who asked, and for what. */
const FORWARDING_PREFIX =
  /^(?:x-forwarded|x-original|x-rewrite|x-envoy|x-http-method|x-real|x-client-ip|x-proxy)(?:-|$)/;
const FORWARDING_FIELDS: ReadonlySet<string> = new Set([
  'cf-connecting-ip',
  'cf-connecting-ipv6',
  'client-ip',
  'fastly-client-ip',
  'forwarded',
  'forwarded-for',
  'front-end-https',
  'true-client-ip',
  'x-cluster-client-ip',
  'x-forward-for',
  'x-host',
  'x-http-host-override',
  'x-method',
  'x-method-override',
  'x-originating-ip',
  'x-remote-addr',
  'x-remote-ip',
  'x-scheme',
  'x-true-client-ip',
  'x-url-scheme',
]);

/**
 * Whether a field states the address, host, scheme, target or method that a
 * request had before a proxy. Frameworks believe such fields, so they are never
 * taken from a client. Underscores count as hyphens, as CGI makes them alike.
 */
export function isForwardingField(name: string): boolean {
  const hyphened = name.includes('_') ? name.replaceAll('_', '-') : name;
  return FORWARDING_PREFIX.test(hyphened) || FORWARDING_FIELDS.has(hyphened);
}

/** RFC 9110 7.6.3: the fields with this hop added to Via. */
export function withVia(headers: HeaderList, protocol: '1.0' | '1.1' | '2.0', pseudonym: string): HeaderList {
  const before = fieldValue(headers, 'via');
  const own = `${protocol} ${pseudonym}`;
  const others = before === undefined ? headers : headers.filter(([name]) => name !== 'via');
  return [...others, ['via', before === undefined ? own : `${before}, ${own}`]];
}

/** RFC 9110 7.6.3: whether a message has passed this hop before, which means a loop. */
function viaNames(via: string | undefined, pseudonym: string): boolean {
  if (via === undefined) return false;
  return listMembers(via).some((member) => member.split(/[ \t]+/)[1]?.toLowerCase() === pseudonym.toLowerCase());
}

/** RFC 8586 2: the fields with this hop added to CDN-Loop, which no hop may remove. */
export function withCdnLoop(headers: HeaderList, pseudonym: string): HeaderList {
  const before = fieldValue(headers, 'cdn-loop');
  const others = before === undefined ? headers : headers.filter(([name]) => name !== 'cdn-loop');
  return [...others, ['cdn-loop', before === undefined ? pseudonym : `${before}, ${pseudonym}`]];
}

/** RFC 8586 2: whether a request has passed this hop before. A member may have parameters. */
function cdnLoopNames(cdnLoop: string | undefined, pseudonym: string): boolean {
  if (cdnLoop === undefined) return false;
  return listMembers(cdnLoop).some(
    (member) => trimSpace(member.split(';', 1)[0] ?? '').toLowerCase() === pseudonym.toLowerCase(),
  );
}

/** Whether a request has passed this hop before, by either field: other hops may add only one of them. */
export function isLooping(header: (name: string) => string | undefined, pseudonym: string): boolean {
  return viaNames(header('via'), pseudonym) || cdnLoopNames(header('cdn-loop'), pseudonym);
}

/**
 * RFC 9110 15.2: whether an interim answer is forwarded to the client. 100 is for
 * the hop that sent `Expect`, 101 for one connection, and HTTP/1.0 has none.
 */
export function forwardsInterim(status: number, clientProtocol: '1.0' | '1.1' | '2.0'): boolean {
  return status > 101 && status < 200 && clientProtocol !== '1.0';
}
