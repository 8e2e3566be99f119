/** Which fields of a message go on, in which direction, and how often: each list of names, name by name. */
import t from 'tap';
import {
  dropsContent,
  endToEnd,
  fieldsToForward,
  fieldValue,
  hasUnknownCoding,
  isForwardingField,
  isOfOneLine,
  skipQuoted,
  trimSpace,
} from '../../../src/http/fields.js';
import type { HeaderList } from '../../../src/http/reply.js';

const SINGLE = [
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
];

void t.test('of a field that has one value, the first line goes on (RFC 9110 5.3)', async (t) => {
  for (const name of SINGLE) {
    t.ok(isOfOneLine(name), name);
    const same: HeaderList = [
      [name, 'a'],
      ['x', '1'],
      [name, 'a'],
    ];
    const differing: HeaderList = [
      ['x', '1'],
      [name, 'a'],
      [name, 'b'],
      [name, 'a'],
    ];
    if (name === 'age') {
      // RFC 9111 5.1 has a rule of its own for several members.
      t.strictSame(fieldsToForward(200, same), same);
      t.strictSame(fieldsToForward(200, differing), differing);
      continue;
    }
    t.strictSame(fieldsToForward(200, same), same.slice(0, 2), name);
    const expected: HeaderList =
      name === 'etag' || name === 'last-modified' ? [] : [[name, name === 'expires' ? '0' : 'a']];
    t.strictSame(fieldsToForward(200, differing), [['x', '1'], ...expected], name);
  }
});

void t.test('Age stays as it is beside a field that is repeated', async (t) => {
  const age: HeaderList = [
    ['age', '5'],
    ['age', '6'],
  ];
  t.strictSame(fieldsToForward(200, [...age, ['date', 'a'], ['date', 'a']]), [...age, ['date', 'a']]);
});

void t.test('a field that is a list keeps its lines', async (t) => {
  const lists: HeaderList = ['set-cookie', 'vary', 'cache-control', 'link', 'www-authenticate', 'via'].flatMap(
    (name): HeaderList => [
      [name, 'a'],
      [name, 'b'],
    ],
  );
  t.equal(fieldsToForward(200, lists), lists, 'and the list is not copied');
  for (const [name] of lists) t.notOk(isOfOneLine(name), name);
});

void t.test('a response without content states no length of it (RFC 9110 8.6)', async (t) => {
  const headers: HeaderList = [
    ['content-length', '5'],
    ['etag', '"a"'],
  ];
  for (const status of [204, 205]) t.strictSame(fieldsToForward(status, headers), [['etag', '"a"']], String(status));
  for (const status of [200, 203, 206, 304, 404]) t.equal(fieldsToForward(status, headers), headers, String(status));
  for (const status of [200, 204, 206, 304]) t.notOk(dropsContent(status), String(status));
  t.ok(dropsContent(205), 'a 205 that has some all the same');
});

void t.test('a transfer coding that nobody here decodes is told from chunked (RFC 9112 7)', async (t) => {
  const coded = (...values: readonly string[]): boolean =>
    hasUnknownCoding(values.map((value) => ['transfer-encoding', value]));
  for (const known of [[], ['chunked'], ['Chunked'], [' chunked\t']]) t.notOk(coded(...known), String(known));
  for (const unknown of [
    [''],
    ['gzip'],
    ['gzip, chunked'],
    ['chunked, gzip'],
    ['chunked', 'chunked'],
    ['identity'],
    ['chunkedx'],
  ]) {
    t.ok(coded(...unknown), String(unknown));
  }
});

const ONE_CONNECTION = [
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
];

const ALWAYS = [
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
];

void t.test('Connection removes any field but those that are meant for everyone (RFC 9110 7.6.1)', async (t) => {
  const crossing = (name: string, connection: string): boolean =>
    fieldValue(
      endToEnd([
        ['connection', connection],
        [name, 'x'],
        ['y', '1'],
      ]),
      name,
    ) !== undefined;
  for (const name of ONE_CONNECTION) t.notOk(fieldValue(endToEnd([[name, 'x']]), name), name);
  for (const name of ALWAYS) t.ok(crossing(name, `${name}, close`), name);
  for (const name of ['x-any', 'warning', 'link', 'cookie', 'content-language']) {
    t.notOk(crossing(name, name.toUpperCase()), name);
    t.ok(crossing(name, 'close'), name);
  }
});

const FORWARDING = [
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
  // By how they begin.
  'x-forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-original-url',
  'x-original-uri',
  'x-rewrite-url',
  'x-envoy-external-address',
  'x-http-method-override',
  'x-http-method',
  'x-real-ip',
  'x-client-ip',
  'x-proxy-user-ip',
];

void t.test('every field by which a client could claim another address, host or method is known', async (t) => {
  for (const name of FORWARDING) {
    t.ok(isForwardingField(name), name);
    t.ok(isForwardingField(name.replaceAll('-', '_')), `${name} with underscores`);
    t.notOk(isForwardingField(`a-${name}`), `a-${name}`);
  }
  for (const name of [
    'host',
    'via',
    'x-request-id',
    'x-requested-with',
    'x-forwardedx',
    'x-realm',
    'x-methods',
    'forward',
  ]) {
    t.notOk(isForwardingField(name), name);
  }
});

void t.test('optional white space is space and tab, at the ends (RFC 9110 5.6.3)', async (t) => {
  const cases = [
    ['a', 'a'],
    [' a', 'a'],
    ['a\t', 'a'],
    ['\t a b \t', 'a b'],
    ['', ''],
    [' \t', ''],
    ['\u00a0a\n', '\u00a0a\n'],
  ] as const;
  for (const [text, trimmed] of cases) t.equal(trimSpace(text), trimmed, JSON.stringify(text));
});

void t.test('a quoted text ends at the next quote that is not escaped', async (t) => {
  const cases = [
    ['"a"b', 0, 2],
    ['""', 0, 1],
    ['"a\\"b"c', 0, 5],
    ['"a\\\\"b"', 0, 4],
    ['x"a', 1, 2],
    ['"a\\', 0, 2],
  ] as const;
  for (const [text, open, close] of cases) t.equal(skipQuoted(text, open), close, text);
});
