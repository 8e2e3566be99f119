/** Which heads the fast lane reads itself, at each limit and field by field; how it leaves all others alone. */
import t from 'tap';
import { type Fields, type HeadRead, readHead } from '../../../../edge/server/fastlane/head.js';

const LIMITS = { headersMaxBytes: 400, headersMaxCount: 4, targetMaxBytes: 20 };

function read(text: string, before?: Fields): HeadRead {
  return readHead(text, LIMITS, before);
}

/** A head with these lines behind its Host. */
function withLines(...lines: readonly string[]): string {
  return ['GET /a HTTP/1.1', 'Host: h', ...lines, '', ''].join('\r\n');
}

function plain(text: string): Extract<HeadRead, { kind: 'plain' }> {
  const found = read(text);
  if (found.kind !== 'plain') throw new Error(`it is ${found.kind}: ${text}`);
  return found;
}

void t.test('a plain head is read with all that is in it, and what follows is left', async (t) => {
  const text = 'HEAD /a?b=1 HTTP/1.1\r\nHOST:h:80\r\nX-A: \t v w \t\r\nConnection: Close\r\n\r\n';
  const { kind, method, target, length, fields } = plain(`${text}GET /next`);
  t.strictSame(
    { kind, method, target, length },
    { kind: 'plain', method: 'HEAD', target: '/a?b=1', length: text.length },
  );
  const lines = [
    ['host', 'h:80'],
    ['x-a', 'v w'],
    ['connection', 'Close'],
  ];
  t.strictSame(fields.lines, lines);
  t.strictSame([...fields.values], lines);
  t.equal(fields.last, true);
  t.equal(fields.text, 'HOST:h:80\r\nX-A: \t v w \t\r\nConnection: Close\r\n');
  t.equal(plain(withLines()).fields.last, false);
  t.equal(plain(withLines('connection: Keep-Alive')).fields.last, false);
  t.equal(plain(withLines('x-empty:')).fields.values.get('x-empty'), '');
});

void t.test('a head whose end has not come is incomplete as long as it may become a plain one', async (t) => {
  for (const begun of [
    '',
    'G',
    'GET ',
    'H',
    'HEAD ',
    'GET /',
    'HEAD /a',
    'GET /a HTTP/1.1\r',
    withLines().slice(0, -1),
  ]) {
    t.equal(read(begun).kind, 'incomplete', JSON.stringify(begun));
  }
  for (const other of [
    'P',
    'GET a',
    'GETT',
    'get /',
    'HEAD a',
    'POST /',
    'GET  /',
    '\r\n',
    'GET /a\n',
    'GET /a HTTP/1.1\r\nA: b\n',
  ]) {
    t.equal(read(other).kind, 'unusual', JSON.stringify(other));
  }
});

void t.test('a head has at most so many bytes, fields and bytes of its target', async (t) => {
  const filled = (bytes: number): string => withLines(`x: ${'v'.repeat(bytes - withLines('x: ').length)}`);
  t.equal(plain(filled(400)).length, 400);
  t.equal(read(filled(401)).kind, 'unusual');
  const endless = (bytes: number): string => `GET /a HTTP/1.1\r\nx: ${'v'.repeat(bytes - 20)}`;
  t.equal(endless(400).length, 400);
  t.equal(read(endless(400)).kind, 'incomplete');
  t.equal(read(endless(401)).kind, 'unusual');
  t.equal(plain(withLines('a: 1', 'b: 2', 'c: 3')).fields.lines.length, 4);
  t.equal(read(withLines('a: 1', 'b: 2', 'c: 3', 'd: 4')).kind, 'unusual');
  const target = (bytes: number): string => withLines().replace('/a', `/${'a'.repeat(bytes - 1)}`);
  t.equal(plain(target(20)).target.length, 20);
  t.equal(read(target(21)).kind, 'unusual');
});

void t.test('what frames a body, concerns the connection or comes twice is left to others', async (t) => {
  for (const line of [
    'content-length: 0',
    'expect: 100-continue',
    'http2-settings: x',
    'keep-alive: x',
    'proxy-connection: keep-alive',
    'te: trailers',
    'trailer: x',
    'transfer-encoding: chunked',
    'upgrade: h2c',
    'connection: upgrade',
    'connection: keep-alive, x',
    'connection:',
    'host: h',
    'HOST: h',
    'no colon',
    ': no name',
    'x y: a space in the name',
    ' folded: x',
    'x : a space behind the name',
    'x: \u0000',
    'x: \u007f',
    'x: \u0080',
    'x: \u00e9',
  ]) {
    t.equal(read(withLines(line)).kind, 'unusual', JSON.stringify(line));
    t.equal(
      read(withLines(line.toUpperCase().replace(/^( ?)CONTENT/, '$1CONTENT'))).kind,
      'unusual',
      line.toUpperCase(),
    );
  }
  t.equal(plain(withLines("!#$%&'*+.^_`|~09-az: \t!~")).fields.lines.length, 2);
  for (const text of [
    withLines().replace('Host: h\r\n', ''),
    withLines().replace('Host: h', 'Host:'),
    withLines().replace('Host: h', 'Host: h/'),
    withLines().replace('HTTP/1.1', 'HTTP/1.0'),
    withLines().replace('HTTP/1.1', 'HTTP/1.1 '),
    withLines().replace(' HTTP/1.1', '\tHTTP/1.1'),
    withLines().replace('/a', '/a b'),
    withLines().replace('/a', '/a#b'),
    withLines().replace('/a', '/\u00e9'),
  ]) {
    t.equal(read(text).kind, 'unusual', JSON.stringify(text));
  }
});

void t.test('the same fields as before are not read again, and other ones are', async (t) => {
  const first = plain(withLines('a: 1'));
  const again = read(withLines('a: 1').replace('/a', '/b'), first.fields);
  t.equal(again.kind === 'plain' && again.fields, first.fields);
  const other = read(withLines('a: 2'), first.fields);
  t.strictSame(other.kind === 'plain' && other.fields.lines[1], ['a', '2']);
});
