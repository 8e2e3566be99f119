/** Single values of fields, each with its smallest differences: dates, entity tags, ranges of types, digests, addresses. */
import t from 'tap';
import { chooseType, namesOnly } from '../../../src/http/accept.js';
import { createAddressOf, createTrust, proxyFaults } from '../../../src/http/address.js';
import {
  governingDirectives,
  parseDeltaSeconds,
  requestDirectives,
  responseDirectives,
} from '../../../src/http/cache-control.js';
import { evaluateConditions, ifRangeHolds, type Validators } from '../../../src/http/conditional.js';
import { formatHttpDate, parseHttpDate } from '../../../src/http/date.js';
import { formatDigest, readDigest } from '../../../src/http/digest.js';
import { etagsMatchStrongly, etagsMatchWeakly, isEtag, isStrongEtag, listHasEtag } from '../../../src/http/etag.js';
import { withCdnLoop, withVia } from '../../../src/http/fields.js';
import { splitTarget } from '../../../src/http/head.js';
import { emptyReply, type HeaderList, headerOf, jsonReply, linesOf } from '../../../src/http/reply.js';
import { readDictionary } from '../../../src/http/structured.js';
import type { Sha256 } from '../../../src/ids.js';

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

void t.test('each month is read in each form of a date, in any case (5.6.7)', async (t) => {
  for (const [at, month] of MONTHS.entries()) {
    const expected = Date.UTC(2021, at, 9, 8, 7, 6);
    for (const text of [
      `Mon, 09 ${month} 2021 08:07:06 GMT`,
      `Monday, 09-${month}-21 08:07:06 GMT`,
      `Mon ${month}  9 08:07:06 2021`,
      `mon, 09 ${month.toUpperCase()} 2021 08:07:06 gmt`,
    ]) {
      t.equal(parseHttpDate(text), expected, text);
    }
    t.equal(formatHttpDate(expected).slice(8, 11), month);
  }
  for (const day of ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun']) {
    t.equal(parseHttpDate(`${day}, 09 Jan 2021 08:07:06 GMT`), Date.UTC(2021, 0, 9, 8, 7, 6), day);
    t.equal(parseHttpDate(`${day} Jan 19 08:07:06 2021`), Date.UTC(2021, 0, 19, 8, 7, 6), day);
  }
  for (const day of ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday']) {
    t.equal(parseHttpDate(`${day}, 09-Jan-21 08:07:06 GMT`), Date.UTC(2021, 0, 9, 8, 7, 6), day);
  }
});

void t.test('a date has the bounds of clock and calendar', async (t) => {
  const read = (date: string, time = '00:00:00'): number | undefined => parseHttpDate(`Mon, ${date} ${time} GMT`);
  t.equal(read('09 Jan 2021', '23:59:59'), Date.UTC(2021, 0, 9, 23, 59, 59));
  t.equal(read('09 Jan 2021', '23:59:60'), Date.UTC(2021, 0, 10), 'a leap second');
  for (const time of ['24:00:00', '23:60:00', '23:59:61']) t.equal(read('09 Jan 2021', time), undefined, time);
  t.equal(read('29 Feb 2024'), Date.UTC(2024, 1, 29));
  t.equal(read('31 Dec 1999'), Date.UTC(1999, 11, 31));
  t.equal(read('01 Jan 0050'), new Date(0).setUTCFullYear(50, 0, 1));
  for (const date of ['29 Feb 2023', '31 Apr 2021', '32 Jan 2021', '00 Jan 2021', '09 Foo 2021']) {
    t.equal(read(date), undefined, date);
  }
});

void t.test('two digits of a year mean the nearest that is not more than fifty years ahead', async (t) => {
  const yearOf = (digits: string, seenFrom: number): number =>
    new Date(parseHttpDate(`Monday, 01-Jan-${digits} 00:00:00 GMT`, seenFrom) ?? Number.NaN).getUTCFullYear();
  for (const [digits, seenFrom, expected] of [
    ['76', Date.UTC(2026, 0, 1), 2076],
    ['77', Date.UTC(2026, 0, 1), 1977],
    ['76', Date.UTC(2025, 11, 31), 1976],
    ['00', Date.UTC(2026, 0, 1), 2000],
    ['10', Date.UTC(2080, 0, 1), 2110],
    ['31', Date.UTC(2080, 0, 1), 2031],
    ['99', Date.UTC(2000, 0, 1), 1999],
    ['50', Date.UTC(2000, 0, 1), 2050],
    ['51', Date.UTC(2000, 0, 1), 1951],
    ['03', Date.UTC(1955, 0, 1), 2003],
    ['06', Date.UTC(1955, 0, 1), 1906],
  ] as const) {
    t.equal(yearOf(digits, seenFrom), expected, `${digits} seen from ${new Date(seenFrom).toISOString()}`);
  }
  const alone = (date: string): number | undefined => parseHttpDate(`Monday, ${date} GMT`);
  t.equal(alone('31-Dec-69 23:59:59'), Date.UTC(2069, 11, 31, 23, 59, 59), 'without an instant to see it from');
  t.equal(alone('01-Jan-70 00:00:00'), 0);
  // No 29 February in the nearest year with these digits.
  t.equal(parseHttpDate('Monday, 29-Feb-00 00:00:00 GMT', Date.UTC(2060, 0, 1)), Date.UTC(2000, 1, 29));
  t.equal(
    parseHttpDate('Monday, 29-Feb-00 00:00:00 GMT', Date.UTC(2150, 0, 1)),
    Date.UTC(2000, 1, 29),
    'nor before it',
  );
});

void t.test('an entity tag is one from its first character to its last', async (t) => {
  const cases: readonly (readonly [string, tag: boolean, strong: boolean])[] = [
    ['"a"', true, true],
    ['""', true, true],
    ['W/"a"', true, false],
    ['W/""', true, false],
    ['"!~\u00ff"', true, true],
    ['"a,b\\"', true, true],
    ['"a', false, false],
    ['a"', false, false],
    ['"a"b', false, false],
    ['"a""', false, false],
    ['w/"a"', false, false],
    ['W/a', false, false],
    ['"a b"', false, false],
    ['"a\u007f"', false, false],
    ['"a\t"', false, false],
    ['"', false, false],
    ['W/"', false, false],
    ['', false, false],
  ];
  for (const [text, tag, strong] of cases) {
    t.strictSame([isEtag(text), isStrongEtag(text)], [tag, strong], text);
    t.strictSame([etagsMatchStrongly(text, text), etagsMatchWeakly(text, text)], [strong, tag], text);
  }
  t.strictSame([etagsMatchWeakly('"a"', 'W/"a"'), etagsMatchWeakly('W/"a"', '"a"')], [true, true]);
  t.notOk(etagsMatchWeakly('"a"', '"b"'));
});

void t.test('a list of entity tags is searched past what is malformed in it', async (t) => {
  const has = (list: string, tag = '"b"'): readonly boolean[] => [
    listHasEtag(list, tag, 'weak'),
    listHasEtag(list, tag, 'strong'),
  ];
  const cases: readonly (readonly [string, weak: boolean, strong: boolean])[] = [
    ['"b"', true, true],
    ['W/"b"', true, false],
    ['"a", "b"', true, true],
    ['"a","b"', true, true],
    ['"a"\t,\t"b" ', true, true],
    [',, "b" ,,', true, true],
    ['"a,b", "b"', true, true],
    ['"a,"b"', false, false],
    ['x, "b"', true, true],
    ['"a" x, "b"', true, true],
    ['"a"x, "b"', true, true],
    ['"x y", "b"', true, true],
    ['"b"x', false, false],
    ['"b" "b"', false, false],
    ['b', false, false],
    ['"a, "b', false, false],
    ['', false, false],
    [' ', false, false],
    [',', false, false],
  ];
  for (const [list, weak, strong] of cases) t.strictSame(has(list), [weak, strong], JSON.stringify(list));
  t.strictSame(has('"b"', 'W/"b"'), [true, false]);
});

void t.test('dates of a condition count in whole seconds, and where they are dates (13.1.3, 13.1.4)', async (t) => {
  const changedAt = Date.UTC(2026, 0, 1, 12, 0, 0) + 700;
  const at = (seconds: number): string => formatHttpDate(changedAt + seconds * 1_000);
  const outcome = (
    fields: Readonly<Record<string, string>>,
    lastModifiedAt: number | null = changedAt,
    method = 'GET',
  ) => evaluateConditions({ method, header: (name) => fields[name] }, { etag: null, lastModifiedAt });
  for (const [seconds, since, unmodified] of [
    [-1, 'proceed', 'precondition_failed'],
    [0, 'not_modified', 'proceed'],
    [1, 'not_modified', 'proceed'],
  ] as const) {
    t.equal(outcome({ 'if-modified-since': at(seconds) }), since, `${seconds} s`);
    t.equal(outcome({ 'if-unmodified-since': at(seconds) }), unmodified, `${seconds} s`);
    t.equal(outcome({ 'if-modified-since': ` ${at(seconds)} ` }), since);
    t.equal(outcome({ 'if-unmodified-since': ` ${at(seconds)} ` }), unmodified);
  }
  for (const name of ['if-modified-since', 'if-unmodified-since']) {
    t.equal(outcome({ [name]: 'yesterday' }), 'proceed');
    t.equal(outcome({ [name]: at(0) }, null), 'proceed', 'nothing is known of its last change');
    t.equal(outcome({ [name]: formatHttpDate(-1_000) }, null), 'proceed');
  }
  t.equal(outcome({ 'if-modified-since': at(0) }, changedAt, 'POST'), 'proceed');
  for (const method of ['OPTIONS', 'TRACE', 'CONNECT']) {
    t.equal(outcome({ 'if-match': '"x"' }, changedAt, method), 'proceed', method);
    t.equal(outcome({ 'if-none-match': '*' }, changedAt, method), 'proceed', method);
  }
  t.equal(outcome({ 'if-match': '"x"' }, changedAt, 'PUT'), 'precondition_failed');
  t.equal(outcome({ 'if-match': '*', 'if-unmodified-since': at(-1) }), 'proceed', 'If-Match replaces the date');
  t.equal(outcome({ 'if-none-match': '"x"', 'if-modified-since': at(0) }), 'proceed', 'and so does If-None-Match');
  t.equal(outcome({ 'if-none-match': '*' }), 'not_modified');
  t.equal(outcome({ 'if-none-match': ' * ' }, changedAt, 'PUT'), 'precondition_failed');
});

void t.test('a date is a strong validator if the answer was made at least a second later (8.8.2.2)', async (t) => {
  const lastModifiedAt = Date.UTC(2026, 0, 1, 12, 0, 0) + 900;
  const holds = (value: string, more: Partial<Validators> = {}): boolean =>
    ifRangeHolds({ method: 'GET', header: () => value }, { etag: '"a"', lastModifiedAt, ...more });
  const date = formatHttpDate(lastModifiedAt);
  t.ok(holds(date));
  t.ok(holds(` ${date} `));
  t.ok(holds(' "a" '));
  t.notOk(holds('"b"'));
  t.notOk(holds('"a"', { etag: null }));
  t.notOk(holds('a'));
  t.notOk(holds(formatHttpDate(lastModifiedAt + 1_000)));
  t.notOk(holds(formatHttpDate(lastModifiedAt - 1_000)));
  t.notOk(holds(date, { lastModifiedAt: null }));
  t.notOk(holds(formatHttpDate(0), { lastModifiedAt: null }));
  for (const [dateAt, strong] of [
    [null, false],
    [lastModifiedAt, false],
    [lastModifiedAt + 99, false],
    [lastModifiedAt + 100, true],
    [lastModifiedAt + 1_000, true],
  ] as const) {
    t.equal(holds(date, { dateAt }), strong, String(dateAt));
  }
  t.notOk(holds(date, { dateAt: null, lastModifiedAt: 0 }));
  t.notOk(holds(formatHttpDate(-5_000), { dateAt: null, lastModifiedAt: -5_000 }), 'before 1970 too');
  t.ok(ifRangeHolds({ method: 'GET', header: () => undefined }, { etag: null, lastModifiedAt: null }));
});

void t.test('the most specific range of a type counts, and ranges beyond the bound do not', async (t) => {
  const chosen = (accept: string | undefined, named: readonly string[] = []): string | undefined =>
    chooseType(accept, ['image/a', 'image/b', 'text/c'], named);
  const cases: readonly (readonly [string | undefined, string | undefined])[] = [
    [undefined, 'image/a'],
    ['', 'image/a'],
    ['image/b', 'image/b'],
    ['IMAGE/B', 'image/b'],
    ['*/*', 'image/a'],
    ['*/*;q=0.5, text/c', 'text/c'],
    ['text/*', 'text/c'],
    ['image/*;q=0.2, */*;q=0.9', 'text/c'],
    ['*/*;q=0.9, image/*;q=0.2', 'text/c'],
    ['image/a;q=0.1, image/*;q=0.9', 'image/b'],
    ['image/*;q=0.9, image/a;q=0.1', 'image/b'],
    ['image/b;q=0.001, image/a;q=0', 'image/b'],
    ['*/*;q=0', undefined],
    ['other/x', undefined],
    ['image/', 'image/a'],
    ['/a', 'image/a'],
    ['image', 'image/a'],
    ['/;q=1', 'image/a'],
    ['image/;q=1', 'image/a'],
    ['o/x', undefined],
    ['image/a;q=1, image/b', 'image/a'],
    ['image/a;q=2, text/c', 'text/c'],
    ['image/a;level=1, text/c', 'text/c'],
    ['image/a ; q=0.5, text/c;q=0.6;ext=1', 'text/c'],
  ];
  for (const [accept, expected] of cases) t.equal(chosen(accept), expected, String(accept));
  t.equal(chosen('*/*', ['image/a', 'image/b']), 'text/c');
  t.equal(chosen('image/*', ['image/a']), 'image/b');
  t.equal(chosen('image/a, */*', ['image/a']), 'image/a');
  t.equal(chosen(undefined, ['image/a']), 'image/b');
  const behind = (count: number): string => `${'other/x,'.repeat(count)}text/c`;
  t.strictSame([chosen(behind(63)), chosen(behind(64))], ['text/c', undefined]);
  for (const [accept, only] of [
    [undefined, false],
    ['', false],
    ['image/a', true],
    ['image/*, image/b;q=0.1', true],
    ['image/a, */*', false],
    ['images/a', false],
    ['image', false],
  ] as const) {
    t.equal(namesOnly(accept, 'image'), only, String(accept));
  }
});

void t.test('limits of a request are the strictest that it states', async (t) => {
  const read = (value: string) =>
    requestDirectives({ header: (name) => (name === 'cache-control' ? value : undefined) });
  t.match(read('max-age=5, max-age=3, max-age=4, max-age=x, max-age'), { maxAgeMs: 3_000 });
  t.match(read('min-fresh=3, min-fresh=5, min-fresh=4, min-fresh=x'), { minFreshMs: 5_000 });
  t.match(read('min-fresh=0'), { minFreshMs: 0 });
  t.match(read('stale-if-error=5, stale-if-error=3'), { staleIfErrorMs: 3_000 });
  t.match(read('max-stale, max-stale=9'), { maxStaleMs: 9_000 });
  t.match(read('max-stale=9, max-stale'), { maxStaleMs: 9_000 });
  t.match(read('max-stale'), { maxStaleMs: Number.POSITIVE_INFINITY });
  t.match(read('max-stale=x'), { maxStaleMs: undefined });
  t.match(read('max-age="7"'), { maxAgeMs: 7_000 });
  t.match(read('max-age ="7"'), { maxAgeMs: undefined });
  t.strictSame([parseDeltaSeconds('2147483648'), parseDeltaSeconds('2147483649')], [2 ** 31 * 1_000, 2 ** 31 * 1_000]);
  t.strictSame(responseDirectives('private="a\\"b, c", no-cache="x"').noCache, ['x']);
  t.equal(responseDirectives('private="a\\"b, c"').private, 'all');
  t.equal(responseDirectives('private="a, b@"').private, 'all');
  t.equal(responseDirectives('no-cache="').noCache, 'all');
  t.equal(responseDirectives('max-age=15"').maxAgeMs, 0);
  t.equal(responseDirectives('max-age="1\\5"').maxAgeMs, 15_000);
  t.equal(responseDirectives('max-age="5').maxAgeMs, 0);
  t.equal(responseDirectives('max-age="5"6').maxAgeMs, 0);
  t.equal(responseDirectives('max-age=5, max-age=5').maxAgeMs, 5_000);
  t.equal(responseDirectives('max-age=5, max-age=6').maxAgeMs, 0);
  t.equal(responseDirectives('max-age=0, max-age=6, max-age=6').maxAgeMs, 0);
  t.equal(
    governingDirectives([['cdn-cache-control', 'public=?0, max-age=3']], ['cdn-cache-control']).directives.public,
    false,
  );
});

void t.test('a digest is SHA-256 of 32 bytes, or there is none', async (t) => {
  const sha256 = '0f'.repeat(32) as Sha256;
  const base64 = Buffer.from(sha256, 'hex').toString('base64');
  t.equal(formatDigest(sha256), `sha-256=:${base64}:`);
  t.strictSame(readDigest(formatDigest(sha256)), { kind: 'sha256', sha256 });
  t.strictSame(readDigest(`md5=:AAAA:, sha-256=:${base64}:`), { kind: 'sha256', sha256 });
  for (const [field, kind] of [
    [undefined, 'none'],
    ['', 'none'],
    ['md5=:AAAA:', 'none'],
    ['sha-256=:AAAA:', 'malformed'],
    [`sha-256="${base64}"`, 'malformed'],
    ['sha-256', 'malformed'],
    ['sha-256=12', 'malformed'],
    [`sha-256=${base64}`, 'malformed'],
    [`sha-256=:${base64}`, 'malformed'],
  ] as const) {
    t.equal(readDigest(field).kind, kind, String(field));
  }
});

void t.test('the members of a dictionary are read by their types (RFC 9651)', async (t) => {
  const members = readDictionary('a=1, b=1.5, c="x", d=tok, e, f=?0, g=:AQI=:, h=(1 2), a=2;p, i=@5');
  t.strictSame(Object.fromEntries(members ?? []), {
    a: { kind: 'number', value: 2 },
    b: { kind: 'number', value: 1.5 },
    c: { kind: 'text', text: 'x' },
    d: { kind: 'token', text: 'tok' },
    e: { kind: 'boolean', value: true },
    f: { kind: 'boolean', value: false },
    g: { kind: 'bytes', bytes: Buffer.from([1, 2]) },
    h: { kind: 'other' },
    i: { kind: 'other' },
  });
  t.equal(readDictionary('a=1, B=2'), undefined);
  t.equal(readDictionary('')?.size, 0);
});

void t.test('this hop is added to what a message says of its hops, in one line', async (t) => {
  const lines: HeaderList = [
    ['via', '1.1 a'],
    ['cdn-loop', 'one; x="y"'],
    ['x-a', '1'],
    ['via', '2.0 b'],
    ['cdn-loop', 'two'],
  ];
  const others = lines.filter(([name]) => name === 'x-a');
  t.strictSame(withVia(others, '1.1', 'me'), [...others, ['via', '1.1 me']]);
  t.strictSame(withCdnLoop(others, 'me'), [...others, ['cdn-loop', 'me']]);
  const withoutVia = lines.filter(([name]) => name !== 'via');
  t.strictSame(withVia(lines, '2.0', 'me'), [...withoutVia, ['via', '1.1 a, 2.0 b, 2.0 me']]);
  const withoutLoop = lines.filter(([name]) => name !== 'cdn-loop');
  t.strictSame(withCdnLoop(lines, 'me'), [...withoutLoop, ['cdn-loop', 'one; x="y", two, me']]);
  t.strictSame(splitTarget('?a'), { path: '', query: 'a' });
});

void t.test('a document is not stored unless it says how, and the first line of a field is its value', async (t) => {
  const { status, headers, body } = jsonReply(201, { a: [1] });
  t.equal(status, 201);
  t.strictSame(headers, [
    ['content-type', 'application/json; charset=utf-8'],
    ['cache-control', 'no-store'],
  ]);
  t.equal(body.kind === 'bytes' && Buffer.from(body.bytes).toString(), '{"a":[1]}');
  const own: HeaderList = [
    ['x-a', '1'],
    ['cache-control', 'max-age=1'],
  ];
  t.strictSame(jsonReply(200, null, own).headers, [['content-type', 'application/json; charset=utf-8'], ...own]);
  t.strictSame(emptyReply(204, own), { status: 204, headers: own, body: { kind: 'none' } });
  t.strictSame(linesOf({ ...emptyReply(200, own), leading: [['x-b', '2']] }), [['x-b', '2'], ...own]);
  t.strictSame([headerOf([...own, ['x-a', '2']], 'x-a'), headerOf(own, 'x-b')], ['1', undefined]);
});

void t.test('a client is its peer, or whom trusted proxies name', async (t) => {
  const addressOf = (peer: string | undefined, forwarded?: string): string =>
    createAddressOf(['10.0.0.0/8', 'loopback'])({
      socket: { remoteAddress: peer },
      headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded },
    });
  for (const [peer, forwarded, expected] of [
    ['203.0.113.1', undefined, '203.0.113.1'],
    ['203.0.113.1', '198.51.100.1', '203.0.113.1'],
    ['10.1.2.3', '198.51.100.1', '198.51.100.1'],
    ['10.1.2.3', '192.0.2.9, 198.51.100.1', '198.51.100.1'],
    ['10.1.2.3', '198.51.100.1, 10.9.9.9', '198.51.100.1'],
    ['127.0.0.1', '2001:db8::1', '2001:db8::1'],
    ['10.1.2.3', 'unknown', '10.1.2.3'],
    ['10.1.2.3', '1'.repeat(46), '10.1.2.3'],
  ] as const) {
    t.equal(addressOf(peer, forwarded), expected, `${peer} ${forwarded}`);
  }
  t.strictSame(proxyFaults(['loopback', '10.0.0.0/33', '::1', '1.2.3'], 'edge.trusted'), [
    { path: 'edge.trusted.1', message: 'is neither an address nor a range' },
    { path: 'edge.trusted.3', message: 'is neither an address nor a range' },
  ]);
});

void t.test('a peer is trusted by its address alone, and none is not', async (t) => {
  const isTrusted = createTrust(['10.0.0.0/8', '::1']);
  for (const [peer, trusted] of [
    ['10.1.2.3', true],
    ['::ffff:10.1.2.3', true],
    ['::1', true],
    ['11.1.2.3', false],
    ['::2', false],
    [undefined, false],
  ] as const) {
    t.equal(isTrusted(peer), trusted, String(peer));
  }
  t.equal(createTrust([])('10.1.2.3'), false, 'nobody is, unless named');
});
