/** Malformed requests, byte by byte, and the status of the response after which the connection is closed. */

const head = (...lines: readonly string[]): string => `${lines.join('\r\n')}\r\n\r\n`;
const HOST = 'Host: a';
const CHUNKED = 'Transfer-Encoding: chunked';
const post = (...lines: readonly string[]): string => head('POST / HTTP/1.1', HOST, ...lines);
const chunked = (body: string): string => `${post(CHUNKED)}${body}`;

export type Malformed = readonly [what: string, bytes: string, status: number];

/** Lines that end in a line feed alone (RFC 9112 2.2). Each is refused as soon as it is there, without waiting for a head's end. */
export const BARE_LINE_FEEDS: readonly Malformed[] = [
  ['bare line feeds', 'GET / HTTP/1.1\nHost: a\n\n', 400],
  ['bare line feeds in an upload', 'POST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc', 400],
  ['a bare line feed behind the request line', 'GET / HTTP/1.1\nHost: a\r\n', 400],
  ['a bare line feed behind a field', 'GET / HTTP/1.1\r\nHost: a\nX: y\r\n', 400],
  ['a bare line feed at the end of the head', 'GET / HTTP/1.1\r\nHost: a\r\n\n', 400],
];

/** Malformed in the head. */
export const MALFORMED_HEADS: readonly Malformed[] = [
  // The host (RFC 9112 3.2)
  ['a second Host', head('GET / HTTP/1.1', HOST, 'Host: b'), 400],
  ['an empty Host', head('GET / HTTP/1.1', 'Host:'), 400],
  ['no Host', head('GET / HTTP/1.1'), 400],
  ['a list of hosts', head('GET / HTTP/1.1', 'Host: a, b'), 400],
  ['a user in Host', head('GET / HTTP/1.1', 'Host: u@a'), 400],
  ['a path in Host', head('GET / HTTP/1.1', 'Host: a/b'), 400],
  // The request line (RFC 9112 3)
  ['GET *', head('GET * HTTP/1.1', HOST), 400],
  ['a fragment', head('GET /a#b HTTP/1.1', HOST), 400],
  ['non-ASCII', head('GET /caf\xc3\xa9 HTTP/1.1', HOST), 400],
  ['a delete character', head('GET /a\x7f HTTP/1.1', HOST), 400],
  ['a tab in the target', head('GET /a\tb HTTP/1.1', HOST), 400],
  ['a user in the target', head('GET http://u@a/ HTTP/1.1', HOST), 400],
  ['tabs for spaces', head('GET\t/\tHTTP/1.1', HOST), 400],
  ['two spaces before the target', head('GET  / HTTP/1.1', HOST), 400],
  ['two spaces behind the target', head('GET /  HTTP/1.1', HOST), 400],
  ['many spaces', head('GET     /a     HTTP/1.1', HOST), 400],
  ['two spaces before an upload', `${head('POST  / HTTP/1.1', HOST, 'Content-Length: 3')}abc`, 400],
  ['a space behind the version', head('GET / HTTP/1.1 ', HOST), 400],
  ['a space before the method', head(' GET / HTTP/1.1', HOST), 400],
  ...'\\|{}^"<>`'
    .split('')
    .map((character) => [`${character} in the target`, head(`GET /a${character}b HTTP/1.1`, HOST), 400] as const),
  ['{} in the query', head('GET /a?b={c} HTTP/1.1', HOST), 400],
  ['two request targets', head('GET / HTTP/1.1 /x HTTP/1.1', HOST), 400],
  ['HTTP/2.0 in the request line', head('GET / HTTP/2.0', HOST), 505],
  ['HTTP/0.9', 'GET /\r\n\r\n', 505],
  ['HTTP/1.10', head('GET / HTTP/1.10', HOST), 400],
  ['http/1.1 in lower case', head('GET / http/1.1', HOST), 400],
  ['an unknown method', head('BREW / HTTP/1.1', HOST), 400],
  ['a method in lower case', head('get / HTTP/1.1', HOST), 400],
  ['TLS on a plain port', '\x16\x03\x01\x02\x00\x01\x00\x01', 400],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
  ['a tunnel', head('CONNECT a:443 HTTP/1.1', HOST), 405],
  // Fields (RFC 9112 5)
  ['a folded line', head('GET / HTTP/1.1', HOST, 'X: 1', ' 2'), 400],
  ['a fold before the first field', head('GET / HTTP/1.1', ' Host: a', HOST), 400],
  ['a space before the colon', head('GET / HTTP/1.1', 'Host : a'), 400],
  ['a line without a colon', head('GET / HTTP/1.1', HOST, 'X'), 400],
  ['a field without a name', head('GET / HTTP/1.1', HOST, ': x'), 400],
  ...BARE_LINE_FEEDS,
  ['a bare carriage return', head('GET / HTTP/1.1', HOST, 'X: a\rb'), 400],
  ['a line feed in a value', head('GET / HTTP/1.1', HOST, 'X: a\nTransfer-Encoding: chunked'), 400],
  ['a control character', head('GET / HTTP/1.1', HOST, 'X: a\x00b'), 400],
  ['a control character in a name', head('GET / HTTP/1.1', HOST, 'X\x01: a'), 400],
  // The length of the body (RFC 9112 6)
  ['an empty coding', post('Transfer-Encoding:', 'Content-Length: 0'), 400],
  ['an unknown coding', `${post('Transfer-Encoding: gzip, chunked')}0\r\n\r\n`, 501],
  ['a coding with a parameter', `${post('Transfer-Encoding: chunked;q=1')}0\r\n\r\n`, 501],
  ['a coding in quotes', `${post('Transfer-Encoding: "chunked"')}0\r\n\r\n`, 501],
  ['a coding whose name ends in chunked', `${post('Transfer-Encoding: xchunked')}0\r\n\r\n`, 501],
  ['a coding behind a vertical tab', `${post('Transfer-Encoding: \x0bchunked')}0\r\n\r\n`, 400],
  ['a coding that is not the last', `${post('Transfer-Encoding: chunked, identity')}0\r\n\r\n`, 400],
  ['two codings in two lines', `${post(CHUNKED, 'Transfer-Encoding: identity')}0\r\n\r\n`, 400],
  ['a folded coding', `${post('Transfer-Encoding:', ' chunked')}0\r\n\r\n`, 400],
  ['a coding in HTTP/1.0', `${head('POST / HTTP/1.0', HOST, CHUNKED)}0\r\n\r\n`, 400],
  ['length and coding', `${post('Content-Length: 3', CHUNKED)}0\r\n\r\n`, 400],
  ['coding and length', `${post(CHUNKED, 'Content-Length: 3')}0\r\n\r\n`, 400],
  ['two lengths', post('Content-Length: 0', 'Content-Length: 0'), 400],
  ['two lengths that differ', post('Content-Length: 0', 'Content-Length: 9'), 400],
  ['a list of lengths', post('Content-Length: 0, 0'), 400],
  ['a signed length', post('Content-Length: +0'), 400],
  ['a negative length', post('Content-Length: -1'), 400],
  ['a hexadecimal length', post('Content-Length: 0x0'), 400],
  ['a fraction of a length', post('Content-Length: 0.0'), 400],
  ['an empty length', post('Content-Length:'), 400],
  ['a length with a space', post('Content-Length: 0 0'), 400],
  ['a length over 64 bits', post('Content-Length: 18446744073709551616'), 400],
  // Expectations (RFC 9110 10.1.1)
  ['an unknown expectation', `${post('Expect: 200-ok', 'Content-Length: 3')}abc`, 417],
  ['an unknown expectation of a GET', head('GET / HTTP/1.1', HOST, 'Expect: the-unexpected'), 417],
  ['two expectations', post('Expect: 100-continue, 200-ok', 'Content-Length: 3'), 417],
  // Over a limit
  ['an overlong target', head(`GET /${'x'.repeat(600)} HTTP/1.1`, HOST), 414],
  ['an endless target', `GET /${'x'.repeat(4_000)}`, 414],
  ['overlong fields', head('GET / HTTP/1.1', HOST, `X: ${'x'.repeat(4_000)}`), 431],
  ['too many fields', head('GET / HTTP/1.1', HOST, ...Array.from({ length: 25 }, () => 'X: 1')), 431],
];

/** Malformed in the body, after a valid head (RFC 9112 7.1). */
export const MALFORMED_BODIES: readonly Malformed[] = [
  ['a chunk size that is no number', chunked('x\r\n'), 400],
  ['a chunk size with a prefix', chunked('0x3\r\nabc\r\n0\r\n\r\n'), 400],
  ['a signed chunk size', chunked('+3\r\nabc\r\n0\r\n\r\n'), 400],
  ['a negative chunk size', chunked('-1\r\nabc\r\n0\r\n\r\n'), 400],
  ['a chunk size over 64 bits', chunked('10000000000000000\r\nabc\r\n0\r\n\r\n'), 400],
  ['an empty chunk size', chunked('\r\nabc\r\n0\r\n\r\n'), 400],
  ['a space before a chunk size', chunked(' 3\r\nabc\r\n0\r\n\r\n'), 400],
  ['a chunk line that ends in a line feed', chunked('3\nabc\r\n0\r\n\r\n'), 400],
  ['a chunk extension with a line feed', chunked('3;a\nb\r\nabc\r\n0\r\n\r\n'), 400],
  ['a length in the trailers', chunked('3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n'), 400],
  ['endless chunk extensions', chunked(`3;${'x'.repeat(40_000)}\r\nabc\r\n0\r\n\r\n`), 413],
];

/** The limits that some of these requests exceed. */
export const MALFORMED_LIMITS = { headersMaxBytes: 2_048, targetMaxBytes: 512, headersMaxCount: 20 };

/** Sent after each of them. It must never be read as a request. */
export const SMUGGLED = head('GET /smuggled HTTP/1.1', HOST);
