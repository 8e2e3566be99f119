/**
 * Field lines as lists of values: joined, split and stripped. What of them may
 * cross a hop (RFC 9110 7.6) is decided here for both directions and for what
 * a cache keeps (RFC 9111 3.1).
 */
import type { HeaderList } from './reply.js';

/** RFC 9110 5.3: several lines of one field are one value, joined by commas. Undefined where there is none. */
export function fieldValue(headers: HeaderList, name: string): string | undefined {
  let joined: string | undefined;
  for (const [held, value] of headers) {
    if (held === name) joined = joined === undefined ? value : `${joined}, ${value}`;
  }
  return joined;
}

/** Each line's value by itself, for fields in which a second line is a fault. */
export function fieldLines(headers: HeaderList, name: string): string[] {
  const lines: string[] = [];
  for (const [held, value] of headers) if (held === name) lines.push(value);
  return lines;
}

/**
 * RFC 9110 5.6.1: the members of a list, without surrounding white space and
 * without empty ones. A comma inside quotes separates nothing; an unclosed
 * quote reaches to the end.
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

/** The index of the quote that closes the one at `open`, or the last index where none does. */
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
 * Fields of one connection (RFC 9110 7.6.1), and those that a proxy consumes
 * (RFC 9111 3.1). They are neither forwarded nor stored.
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
 * Fields that Connection must not take away. RFC 9110 7.6.1 forbids senders to
 * name what is meant for every recipient; whoever does so wants a hop to forget
 * that an answer is private, or where a message ends.
 */
const NEVER_NAMED: ReadonlySet<string> = new Set([
  'age',
  'authorization',
  'cache-control',
  'cdn-cache-control',
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
]);

/**
 * The end-to-end fields: without those of one connection and without those that
 * Connection names. Add fields of one's own afterwards, or the other side could
 * have them taken away.
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

/** RFC 9110 7.6.3: the list with this hop's Via added behind those that are there. */
export function withVia(headers: HeaderList, protocol: '1.0' | '1.1' | '2.0', pseudonym: string): HeaderList {
  const before = fieldValue(headers, 'via');
  const own = `${protocol} ${pseudonym}`;
  const others = before === undefined ? headers : headers.filter(([name]) => name !== 'via');
  return [...others, ['via', before === undefined ? own : `${before}, ${own}`]];
}

/** RFC 9110 7.6.3: whether a message has been here before, which makes it a loop. */
export function viaNames(via: string | undefined, pseudonym: string): boolean {
  if (via === undefined) return false;
  return listMembers(via).some((member) => member.split(/[ \t]+/)[1]?.toLowerCase() === pseudonym.toLowerCase());
}

/**
 * RFC 9110 15.2: whether an interim answer goes on to the client. 100 belongs
 * to whoever sent `Expect`, 101 to one connection, and HTTP/1.0 knows none.
 */
export function forwardsInterim(status: number, clientProtocol: '1.0' | '1.1' | '2.0'): boolean {
  return status > 101 && status < 200 && clientProtocol !== '1.0';
}
