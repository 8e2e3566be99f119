/** The head of a request: its target, its fields, its length. */
import fc from 'fast-check';
import t from 'tap';
import {
  contentLength,
  header,
  originForm,
  rawFields,
  requestId,
  splitTarget,
  wholeNumber,
} from '../../../src/http/head.js';
import { inspect } from '../../../src/server/hygiene.js';

void t.test('a target in absolute form is read as its path, query and authority', async (t) => {
  for (const [target, expected, authority] of [
    ['http://b.example:8/x?y=http://c/', '/x?y=http://c/', 'b.example:8'],
    ['HTTPS://b?q', '/?q', 'b'],
    ['http://b', '/', 'b'],
    ['http://b/', '/', 'b'],
    ['http://b//c', '//c', 'b'],
    ['http://b/?', '/?', 'b'],
    ['http://[2001:db8::1]:80/x', '/x', '[2001:db8::1]:80'],
    ['http://b/a%2fb@c:d', '/a%2fb@c:d', 'b'],
  ] as const) {
    t.same(originForm(target), { target: expected, authority }, target);
  }
});

void t.test('every other target stays as it was received', async (t) => {
  for (const target of [
    '/',
    '/x?y',
    '//b/x',
    '/http://b/',
    '*',
    '',
    '?q',
    'x',
    'b:443',
    // No host, a user, or an invalid host (RFC 9110 4.2.1, 4.2.4).
    'http://',
    'http:///x',
    'http://?q',
    'http://:80/x',
    'http://u@b/x',
    'http://u:p@b/x',
    'http://@b/x',
    'http://b:80:80/x',
    'http://b,c/x',
    'http://b\\c/x',
    'http://b%2fc/x',
    // A fragment, in any place.
    'http://b#f',
    'http://b/x#f',
    'http://b#/internal/journal',
    // Bytes that a target cannot hold.
    'http://b/x y',
    'http://b/x\n/y',
    'http://b\n/x',
    'http://b/\u00e9',
    // Other schemes, and what only looks like one.
    'ftp://b/x',
    'http:/x',
    'http:x',
    ' http://b/x',
    'xhttp://b/x',
    'http://http://b/x',
  ]) {
    t.same(originForm(target), { target, authority: undefined }, JSON.stringify(target));
  }
});

void t.test('only a target that the inspection accepts is rewritten, and then it begins with a slash', async () => {
  const limits = { targetMaxBytes: 1_000, headersMaxCount: 10, headersMaxBytes: 10_000 };
  const accepts = (target: string): boolean =>
    inspect({ method: 'GET', target, httpVersion: '1.1', rawHeaders: ['host', 'h'] }, limits).kind === 'ok';
  const piece = fc.constantFrom(
    'http',
    'HTTPS',
    ':',
    '/',
    '//',
    '?',
    '#',
    '@',
    '[::1]',
    'b',
    '.',
    '%2f',
    '\\',
    '\n',
    ' ',
    '80',
    '*',
  );
  const target = fc.oneof(
    fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join('')),
    fc.array(piece, { maxLength: 6 }).map((pieces) => `http://${pieces.join('')}`),
    fc.string({ maxLength: 30 }),
  );
  fc.assert(
    fc.property(target, (given) => {
      const read = originForm(given);
      if (!accepts(given)) return read.target === given && read.authority === undefined;
      return read.target.startsWith('/') && (read.authority === undefined) === given.startsWith('/');
    }),
    { numRuns: 5_000 },
  );
});

void t.test('a target is divided at its first question mark', async (t) => {
  t.same(splitTarget('/a'), { path: '/a', query: '' });
  t.same(splitTarget('/a?'), { path: '/a', query: '' });
  t.same(splitTarget('/a?b?c'), { path: '/a', query: 'b?c' });
});

void t.test('fields are read with names in lower case and values byte for byte', async (t) => {
  t.same(rawFields(['Accept', 'A', 'X-One', '', 'ACCEPT', 'B']), [
    ['accept', 'A'],
    ['x-one', ''],
    ['accept', 'B'],
  ]);
  t.same(rawFields([Buffer.from('ETag'), Buffer.from([0x22, 0xe9, 0x22])]), [['etag', '"\u00e9"']]);
  t.same(rawFields(['Lonely']), []);
});

void t.test('several lines of one field are one value', async (t) => {
  const headers = { accept: 'a', 'set-cookie': ['b', 'c'] };
  t.equal(header(headers, 'accept'), 'a');
  t.equal(header(headers, 'set-cookie'), 'b, c');
  t.equal(header(headers, 'host'), undefined);
});

void t.test('a request id of the client is kept only if it is well formed', async (t) => {
  t.equal(requestId('request_ID-1'), 'request_ID-1');
  for (const wrong of [
    undefined,
    '',
    'short',
    'x'.repeat(65),
    'with space',
    'a'.repeat(8).concat(', b'),
    'id\nid-more',
  ]) {
    t.equal(requestId(wrong), undefined, JSON.stringify(wrong));
  }
});

void t.test('a whole number is digits alone, and few enough to be exact', async (t) => {
  t.equal(wholeNumber('0'), 0);
  t.equal(wholeNumber('007'), 7);
  t.equal(wholeNumber('999999999999999'), 999_999_999_999_999);
  for (const wrong of [
    undefined,
    null,
    '',
    '-1',
    '+1',
    '1.0',
    '1e3',
    '0x1',
    ' 1',
    '1 ',
    '1, 1',
    '1\n',
    '1'.repeat(16),
  ]) {
    t.equal(wholeNumber(wrong), undefined, JSON.stringify(wrong));
  }
  t.equal(contentLength([['content-length', '12']]), 12);
  t.equal(contentLength([['content-length', '12, 12']]), null);
  t.equal(contentLength([]), null);
});
