/** Dates, entity tags, conditions and ranges: tables by section of RFC 9110, properties, and comparisons with oracles. */

import { Readable } from 'node:stream';
import { isDeepStrictEqual } from 'node:util';
import * as fc from 'fast-check';
import fresh from 'fresh';
import rangeParser from 'range-parser';
import t from 'tap';
import { evaluateConditions, ifRangeHolds, type Validators } from '../../../src/http/conditional.js';
import { formatHttpDate, parseHttpDate } from '../../../src/http/date.js';
import { etagsMatchStrongly, etagsMatchWeakly, isEtag, isStrongEtag, listHasEtag } from '../../../src/http/etag.js';
import { multipartBody, multipartPlan } from '../../../src/http/multipart.js';
import {
  type ByteSpan,
  contentRange,
  parseContentRange,
  planRange,
  type RangePlan,
  spanLength,
  unsatisfiedRange,
} from '../../../src/http/range.js';
import { evaluateByOracle } from '../../kit/http/conditional-oracle.js';
import { planByOracle } from '../../kit/http/range-oracle.js';
import { until } from '../../kit/until.js';

const NOW = Date.UTC(2026, 10, 22, 12, 0, 0);

function asking(method: string, fields: Readonly<Record<string, string | undefined>>) {
  return { method, header: (name: string) => fields[name] };
}

void t.test('HTTP-dates are read in all three forms and written in one (5.6.7)', async (t) => {
  const at = Date.UTC(1994, 10, 6, 8, 49, 37);
  for (const text of [
    'Sun, 06 Nov 1994 08:49:37 GMT',
    'Sunday, 06-Nov-94 08:49:37 GMT',
    'Sun Nov  6 08:49:37 1994',
    'sun, 06 NOV 1994 08:49:37 gmt',
  ]) {
    t.equal(parseHttpDate(text, NOW), at, text);
  }
  t.equal(formatHttpDate(at), 'Sun, 06 Nov 1994 08:49:37 GMT');
  t.equal(parseHttpDate('Thu, 29 Feb 2024 00:00:00 GMT'), Date.UTC(2024, 1, 29));
  t.equal(parseHttpDate('Mon, 01 Jan 0001 00:00:00 GMT'), new Date('0001-01-01T00:00:00Z').getTime());
  // A leap second counts as the second after it.
  t.equal(parseHttpDate('Sat, 31 Dec 2016 23:59:60 GMT'), Date.UTC(2017, 0, 1));
});

void t.test('text that is not an HTTP-date is not read as one', async (t) => {
  for (const text of [
    '',
    '0',
    '-1',
    'Sun, 06 Nov 1994 08:49:37 UTC',
    'Sun, 06 Nov 1994 08:49:37 +0000',
    'Sun, 06 Nov 1994 08:49:37',
    'Sun 06 Nov 1994 08:49:37 GMT',
    'Sun, 6 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 94 08:49:37 GMT',
    'Sun, 06-Nov-1994 08:49:37 GMT',
    'Sun, 06  Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 8:49:37 GMT',
    'Sun, 06 Nov 1994 08.49.37 GMT',
    'Sun, 06 Nov 1994 24:00:00 GMT',
    'Sun, 06 Nov 1994 08:60:00 GMT',
    'Sun, 31 Feb 1994 08:49:37 GMT',
    'Thu, 29 Feb 2023 00:00:00 GMT',
    'Sun, 00 Nov 1994 08:49:37 GMT',
    'Sun, 06 Foo 1994 08:49:37 GMT',
    'Xyz, 06 Nov 1994 08:49:37 GMT',
    ' Sun, 06 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT',
    '1994-11-06T08:49:37Z',
  ]) {
    t.equal(parseHttpDate(text, NOW), undefined, text);
  }
});

void t.test('a two-digit year is the nearest that is not more than 50 years ahead (5.6.7)', async (t) => {
  const yearOf = (year: string, now: number): number =>
    new Date(parseHttpDate(`Sunday, 06-Nov-${year} 08:49:37 GMT`, now) ?? Number.NaN).getUTCFullYear();
  t.equal(yearOf('94', NOW), 1994);
  t.equal(yearOf('26', NOW), 2026);
  t.equal(yearOf('76', NOW), 2076, 'almost fifty years ahead');
  t.equal(yearOf('77', NOW), 1977);
  t.equal(yearOf('05', Date.UTC(2098, 0, 1)), 2105, 'across the century');
});

void t.test('text that is not an entity tag is not read as one (8.8.3)', async (t) => {
  for (const tag of ['""', '"a"', 'W/"a"', '"a,b"', String.raw`"a\b"`, '"ü"']) t.ok(isEtag(tag), tag);
  for (const text of ['', 'a', '"a', 'a"', 'w/"a"', 'W/a', 'W"a"', '"a b"', '"a""b"', '*', "'a'", '"a" ']) {
    t.notOk(isEtag(text), text);
  }
  t.ok(isStrongEtag('"a"'));
  t.notOk(isStrongEtag('W/"a"'));
});

void t.test('entity tags compare as the table of 8.8.3.2 says', async (t) => {
  for (const [one, other, strong, weak] of [
    ['W/"1"', 'W/"1"', false, true],
    ['W/"1"', 'W/"2"', false, false],
    ['W/"1"', '"1"', false, true],
    ['"1"', '"1"', true, true],
    ['1', '1', false, false],
  ] as const) {
    t.equal(etagsMatchStrongly(one, other), strong, `${one} strongly ${other}`);
    t.equal(etagsMatchWeakly(one, other), weak, `${one} weakly ${other}`);
  }
});

void t.test('a list of entity tags is searched member by member', async (t) => {
  for (const [list, stored, found] of [
    ['"a"', '"a"', true],
    ['"x", "a"', '"a"', true],
    ['"x","y" , "a"', '"a"', true],
    [', ,"a",', '"a"', true],
    ['"x, "a"', '"a"', true],
    ['a, "a"', '"a"', true],
    ['junk"a"', '"a"', false],
    ['"a"junk', '"a"', false],
    ['"a,b"', '"a,b"', true],
    ['"x,"a","', '"a"', false],
    ['W/"a"', '"a"', true],
    ['', '"a"', false],
    ['*', '"*"', false],
  ] as const) {
    t.equal(listHasEtag(list, stored, 'weak'), found, `${list} names ${stored}`);
  }
});

const CHANGED = Date.UTC(2026, 0, 1, 12, 0, 0);
const BEFORE = formatHttpDate(CHANGED - 1_000);
const EXACTLY = formatHttpDate(CHANGED);
const AFTER = formatHttpDate(CHANGED + 1_000);
const STRONG: Validators = { etag: '"v1"', lastModifiedAt: CHANGED + 400 };
const WEAK: Validators = { etag: 'W/"v1"', lastModifiedAt: CHANGED };
const BARE: Validators = { etag: null, lastModifiedAt: null };
const DATED: Validators = { etag: null, lastModifiedAt: CHANGED };

void t.test('conditions are evaluated in the order of 13.2.2', async (t) => {
  const cases: readonly (readonly [Validators, string, Record<string, string>, string])[] = [
    [STRONG, 'GET', {}, 'proceed'],
    // 13.1.1
    [STRONG, 'GET', { 'if-match': '"v1"' }, 'proceed'],
    [STRONG, 'GET', { 'if-match': '"v0", "v1"' }, 'proceed'],
    [STRONG, 'GET', { 'if-match': '*' }, 'proceed'],
    [BARE, 'GET', { 'if-match': '*' }, 'proceed'],
    [STRONG, 'GET', { 'if-match': '"v2"' }, 'precondition_failed'],
    [STRONG, 'GET', { 'if-match': 'W/"v1"' }, 'precondition_failed'],
    [WEAK, 'GET', { 'if-match': 'W/"v1"' }, 'precondition_failed'],
    [BARE, 'GET', { 'if-match': '"v1"' }, 'precondition_failed'],
    [STRONG, 'GET', { 'if-match': 'v1' }, 'precondition_failed'],
    [STRONG, 'GET', { 'if-match': '' }, 'precondition_failed'],
    // 13.1.4, ignored with If-Match, without Last-Modified, and if it is not a date
    [STRONG, 'GET', { 'if-unmodified-since': EXACTLY }, 'proceed'],
    [STRONG, 'GET', { 'if-unmodified-since': AFTER }, 'proceed'],
    [STRONG, 'GET', { 'if-unmodified-since': BEFORE }, 'precondition_failed'],
    [STRONG, 'GET', { 'if-match': '"v1"', 'if-unmodified-since': BEFORE }, 'proceed'],
    [BARE, 'GET', { 'if-unmodified-since': BEFORE }, 'proceed'],
    [STRONG, 'GET', { 'if-unmodified-since': 'yesterday' }, 'proceed'],
    // 13.1.2
    [STRONG, 'GET', { 'if-none-match': '"v1"' }, 'not_modified'],
    [STRONG, 'HEAD', { 'if-none-match': 'W/"v1"' }, 'not_modified'],
    [WEAK, 'GET', { 'if-none-match': '"v1"' }, 'not_modified'],
    [STRONG, 'GET', { 'if-none-match': '*' }, 'not_modified'],
    [STRONG, 'PUT', { 'if-none-match': '*' }, 'precondition_failed'],
    [STRONG, 'DELETE', { 'if-none-match': '"v1"' }, 'precondition_failed'],
    [STRONG, 'GET', { 'if-none-match': '"v2"' }, 'proceed'],
    [STRONG, 'GET', { 'if-none-match': 'v1' }, 'proceed'],
    // 13.1.3, ignored with If-None-Match and for other methods
    [STRONG, 'GET', { 'if-modified-since': EXACTLY }, 'not_modified'],
    [STRONG, 'GET', { 'if-modified-since': AFTER }, 'not_modified'],
    [STRONG, 'HEAD', { 'if-modified-since': 'Thu Jan  1 12:00:00 2026' }, 'not_modified'],
    [STRONG, 'GET', { 'if-modified-since': BEFORE }, 'proceed'],
    [STRONG, 'GET', { 'if-modified-since': '0' }, 'proceed'],
    [STRONG, 'GET', { 'if-modified-since': `${EXACTLY}, ${EXACTLY}` }, 'proceed'],
    [STRONG, 'POST', { 'if-modified-since': AFTER }, 'proceed'],
    [STRONG, 'GET', { 'if-none-match': '"v2"', 'if-modified-since': AFTER }, 'proceed'],
    [STRONG, 'GET', { 'if-none-match': '"v1"', 'if-modified-since': BEFORE }, 'not_modified'],
    [BARE, 'GET', { 'if-modified-since': AFTER }, 'proceed'],
    [STRONG, 'GET', { 'if-match': '"v2"', 'if-none-match': '"v1"' }, 'precondition_failed'],
    // 13.2.1
    [STRONG, 'OPTIONS', { 'if-match': '"v2"' }, 'proceed'],
    [STRONG, 'TRACE', { 'if-match': '"v2"' }, 'proceed'],
    [STRONG, 'CONNECT', { 'if-match': '"v2"' }, 'proceed'],
    [STRONG, 'DELETE', { 'if-match': '"v2"' }, 'precondition_failed'],
    // A date alone, without an entity tag
    [DATED, 'GET', { 'if-modified-since': EXACTLY }, 'not_modified'],
    [DATED, 'GET', { 'if-modified-since': BEFORE }, 'proceed'],
    [DATED, 'GET', { 'if-none-match': '"v1"', 'if-modified-since': AFTER }, 'proceed'],
  ];
  for (const [stored, method, fields, expected] of cases) {
    t.equal(evaluateConditions(asking(method, fields), stored), expected, `${method} ${JSON.stringify(fields)}`);
  }
});

void t.test('If-Range needs the same strong validator (13.1.5)', async (t) => {
  const cases: readonly (readonly [Validators, string | undefined, boolean])[] = [
    [STRONG, undefined, true],
    [STRONG, '"v1"', true],
    [STRONG, ' "v1" ', true],
    [STRONG, '"v2"', false],
    [STRONG, 'W/"v1"', false],
    [WEAK, 'W/"v1"', false],
    [STRONG, '"v1", "v2"', false],
    [STRONG, '*', false],
    [BARE, '"v1"', false],
    [STRONG, EXACTLY, true],
    [STRONG, BEFORE, false],
    [STRONG, AFTER, false],
    [STRONG, 'yesterday', false],
    [BARE, EXACTLY, false],
    [{ ...STRONG, dateAt: CHANGED + 1_000 }, EXACTLY, true],
    [{ ...STRONG, dateAt: CHANGED + 900 }, EXACTLY, false],
    [{ ...STRONG, dateAt: null }, EXACTLY, false],
    [{ ...DATED, dateAt: CHANGED }, EXACTLY, false],
  ];
  for (const [stored, value, expected] of cases) {
    t.equal(ifRangeHolds(asking('GET', { 'if-range': value }), stored), expected, String(value));
  }
});

const WHOLE: RangePlan = { kind: 'whole' };
const UNSATISFIABLE: RangePlan = { kind: 'unsatisfiable' };
const single = (first: number, last: number): RangePlan => ({ kind: 'single', span: { first, last } });
const several = (...spans: readonly (readonly [number, number])[]): RangePlan => ({
  kind: 'several',
  spans: spans.map(([first, last]) => ({ first, last })),
});

function plan(range: string, sizeBytes = 100, method = 'GET', rangesMax = 4): RangePlan {
  return planRange(asking(method, { range }), STRONG, sizeBytes, { rangesMax });
}

void t.test('ranges are planned as 14.1.2 and 14.2 say', async (t) => {
  const cases: readonly (readonly [string, RangePlan])[] = [
    ['bytes=0-1', single(0, 1)],
    ['bytes=0-', single(0, 99)],
    ['bytes=0-99', single(0, 99)],
    ['bytes=0-1000', single(0, 99)],
    ['bytes=99-', single(99, 99)],
    ['bytes=-1', single(99, 99)],
    ['bytes=-100', single(0, 99)],
    ['bytes=-1000', single(0, 99)],
    ['BYTES=5-6', single(5, 6)],
    ['bytes= 5-6 ', single(5, 6)],
    ['bytes=007-08', single(7, 8)],
    ['bytes=0-99999999999999999999999', single(0, 99)],
    // Beyond the end
    ['bytes=100-', UNSATISFIABLE],
    ['bytes=100-200', UNSATISFIABLE],
    ['bytes=-0', UNSATISFIABLE],
    ['bytes=99999999999999999999999-', UNSATISFIABLE],
    ['bytes=100-, -0', UNSATISFIABLE],
    // Malformed, or another unit: ignored
    ['bytes', WHOLE],
    ['bytes=', WHOLE],
    ['bytes=,', WHOLE],
    ['bytes=-', WHOLE],
    ['bytes=a-b', WHOLE],
    ['bytes=1', WHOLE],
    ['bytes=5-2', WHOLE],
    ['bytes=0-1,5-2', WHOLE],
    ['bytes=+1-2', WHOLE],
    ['bytes=1 - 2', WHOLE],
    ['bytes=1-2-3', WHOLE],
    ['bytes=0x1-2', WHOLE],
    ['bytes=1.0-2', WHOLE],
    ['bytes 0-1', WHOLE],
    ['byte=0-1', WHOLE],
    ['items=0-1', WHOLE],
    ['', WHOLE],
    // Several
    ['bytes=0-1,4-5', several([0, 1], [4, 5])],
    ['bytes=0-1, ,4-5,', several([0, 1], [4, 5])],
    ['bytes=-2,0-1', several([0, 1], [98, 99])],
    ['bytes=4-5,0-1', several([0, 1], [4, 5])],
    ['bytes=0-1,200-300', single(0, 1)],
    ['bytes=0-1,2-3', single(0, 3)],
    ['bytes=2-3,0-1,10-', several([0, 3], [10, 99])],
    // Overlapping, or too many
    ['bytes=0-5,5-6', WHOLE],
    ['bytes=0-,-1', WHOLE],
    ['bytes=0-1,0-1', WHOLE],
    ['bytes=0-0,2-2,4-4,6-6', several([0, 0], [2, 2], [4, 4], [6, 6])],
    ['bytes=0-0,2-2,4-4,6-6,8-8', WHOLE],
    ['bytes=200-,201-,202-,203-,204-', WHOLE],
  ];
  for (const [range, expected] of cases) t.strictSame(plan(range), expected, range);
});

void t.test('only GET has ranges, and only if If-Range allows it', async (t) => {
  for (const method of ['HEAD', 'POST', 'PUT', 'OPTIONS', 'get'])
    t.strictSame(plan('bytes=0-1', 100, method), WHOLE, method);
  const guarded = (ifRange: string): RangePlan =>
    planRange(asking('GET', { range: 'bytes=0-1', 'if-range': ifRange }), STRONG, 100, { rangesMax: 4 });
  t.strictSame(guarded('"v1"'), single(0, 1));
  t.strictSame(guarded('"v2"'), WHOLE);
  t.strictSame(
    planRange(asking('GET', { range: 'bytes=200-', 'if-range': '"v2"' }), STRONG, 100, { rangesMax: 4 }),
    WHOLE,
    'a range of another version is ignored, not unsatisfiable',
  );
});

void t.test('an empty representation has no satisfiable range', async (t) => {
  t.strictSame(plan('bytes=0-', 0), UNSATISFIABLE);
  t.strictSame(plan('bytes=-5', 0), WHOLE);
  t.strictSame(plan('bytes=-0', 0), UNSATISFIABLE);
});

void t.test('Content-Range is written and read (14.4)', async (t) => {
  t.equal(contentRange({ first: 0, last: 1 }, 100), 'bytes 0-1/100');
  t.equal(unsatisfiedRange(100), 'bytes */100');
  t.strictSame(parseContentRange('bytes 0-1/100'), { span: { first: 0, last: 1 }, sizeBytes: 100 });
  t.strictSame(parseContentRange('bytes 99-99/100'), { span: { first: 99, last: 99 }, sizeBytes: 100 });
  t.strictSame(parseContentRange('BYTES 5-9/*'), { span: { first: 5, last: 9 }, sizeBytes: null });
  for (const text of [
    undefined,
    '',
    'bytes */100',
    'bytes 2-1/100',
    'bytes 0-100/100',
    'bytes=0-1/100',
    'items 0-1/100',
    'bytes 0-1/100, bytes 5-6/100',
  ]) {
    t.equal(parseContentRange(text), undefined, String(text));
  }
});

const anyField = fc.oneof(
  fc.string(),
  fc.stringMatching(/^[0-9,= -]{0,20}$/).map((text) => `bytes=${text}`),
  fc
    .array(fc.tuple(fc.option(fc.nat(120)), fc.option(fc.nat(120))), { maxLength: 8 })
    .map((pairs) => `bytes=${pairs.map(([a, b]) => `${a ?? ''}-${b ?? ''}`).join(', ')}`),
);

void t.test('for any Range field, the spans are inside the representation, ascending and apart', async (t) => {
  fc.assert(
    fc.property(anyField, fc.nat(110), fc.integer({ min: 1, max: 6 }), (range, sizeBytes, rangesMax) => {
      const planned = plan(range, sizeBytes, 'GET', rangesMax);
      const spans: readonly ByteSpan[] =
        planned.kind === 'single' ? [planned.span] : planned.kind === 'several' ? planned.spans : [];
      if (planned.kind === 'several' && (spans.length < 2 || spans.length > rangesMax)) return false;
      let end = -2;
      return spans.every(({ first, last }) => {
        const apart = first > end + 1;
        end = last;
        return apart && first >= 0 && first <= last && last < sizeBytes;
      });
    }),
  );
  t.pass();
});

void t.test('a plan covers exactly the bytes that its ranges name', async (t) => {
  const pair = fc.tuple(fc.nat(60), fc.nat(20)).map(([first, more]) => ({ first, last: first + more }));
  fc.assert(
    fc.property(fc.array(pair, { minLength: 1, maxLength: 4 }), (pairs) => {
      const planned = plan(`bytes=${pairs.map(({ first, last }) => `${first}-${last}`).join(',')}`, 100);
      const wanted = new Set(pairs.flatMap(({ first, last }) => bytesOf({ first, last })));
      const overlap = wanted.size < pairs.reduce((sum, span) => sum + spanLength(span), 0);
      if (overlap) return planned.kind === 'whole';
      const given = planned.kind === 'single' ? [planned.span] : planned.kind === 'several' ? planned.spans : [];
      const covered = given.flatMap(bytesOf);
      return covered.length === wanted.size && covered.every((byte) => wanted.has(byte));
    }),
  );
  t.pass();
});

function bytesOf({ first, last }: ByteSpan): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

void t.test('a range is planned as the oracle without a package plans it', async () => {
  const size = fc.oneof(fc.nat(110), fc.constantFrom(0, 1, 2 ** 40));
  fc.assert(
    fc.property(anyField, size, fc.integer({ min: 1, max: 6 }), (range, sizeBytes, rangesMax) =>
      isDeepStrictEqual(plan(range, sizeBytes, 'GET', rangesMax), planByOracle(range, sizeBytes, rangesMax)),
    ),
    { numRuns: 5_000 },
  );
});

void t.test('without its guard, range-parser reads these differently from RFC 9110', async (t) => {
  t.equal(rangeParser(10, 'bytes=-20'), -1, 'a suffix longer than the file is unsatisfiable');
  t.match(rangeParser(10, 'bytes=0-1,5-2'), [{ start: 0, end: 1 }], 'a backward range is left out');
  t.match(rangeParser(10, 'items=0-1'), [{ start: 0, end: 1 }], 'any unit counts bytes');
  t.match(rangeParser(10, 'bytes=1 - 2'), [{ start: 1, end: 2 }], 'spaces within a range are allowed');
  t.equal(rangeParser(10, 'bytes=0-1,,4-5'), -2, 'an empty member is an error');
  t.equal(rangeParser(10, 'bytes=5-2'), -1, 'a malformed range is unsatisfiable');
  t.match(
    rangeParser(10, `bytes=${'0-,'.repeat(1_000)}0-`),
    { length: 1_001 },
    'there is no limit, overlapping or not',
  );
});

const anyTag = fc
  .tuple(fc.constantFrom('', 'W/'), fc.stringMatching(/^[ab,é\\ ]{0,2}$/))
  .map(([weak, text]) => `${weak}"${text}"`);
const anyTagList = fc.oneof(
  fc.array(anyTag, { maxLength: 4 }).map((tags) => tags.join(', ')),
  fc
    .array(fc.constantFrom('"', 'a', 'b', ',', ' ', '\t', 'W/', '*', '"a"', 'W/"b"'), { maxLength: 8 })
    .map((all) => all.join('')),
);
const anyInstant = fc.oneof(
  fc.integer({ min: CHANGED - 3_000, max: CHANGED + 3_000 }),
  fc.integer({ min: Date.UTC(0, 0), max: Date.UTC(9999, 0) }),
  fc.integer({ min: -62_167_219_200_000, max: -59_011_459_200_000 + 3_600_000 }),
);
const anyDate = fc.oneof(
  anyInstant.map(formatHttpDate),
  anyInstant.map((at) => new Date(at).toISOString()),
  fc.constantFrom(
    '0',
    '',
    'Sunday, 06-Nov-94 08:49:37 GMT',
    'Sunday, 06-Nov-60 08:49:37 GMT',
    'Sat, 31 Dec 2016 23:59:60 GMT',
    'Thu Jan  1 12:00:00 2026',
    ` ${EXACTLY} `,
    '2026',
    'Thu, 1 Jan 2026',
  ),
);

void t.test('conditions have the outcome of the oracle without a package', async () => {
  const orNone = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined });
  const stored = fc.record({
    etag: fc.option(fc.oneof(anyTag, fc.constantFrom('a', '"a', 'W/W/"a"', ''))),
    lastModifiedAt: fc.option(anyInstant),
  });
  const fields = fc.record({
    'if-match': fc.option(anyTagList, { nil: undefined, freq: 1 }),
    'if-none-match': orNone(anyTagList),
    'if-modified-since': orNone(anyDate),
    'if-unmodified-since': fc.option(anyDate, { nil: undefined, freq: 1 }),
    'cache-control': orNone(fc.constant('no-cache')),
  });
  fc.assert(
    fc.property(fc.constantFrom('GET', 'HEAD', 'PUT'), fields, stored, (method, given, validators) => {
      const request = asking(method, given);
      return evaluateConditions(request, validators) === evaluateByOracle(request, validators);
    }),
    { numRuns: 5_000 },
  );
});

void t.test('without its guard, fresh reads these differently from RFC 9110', async (t) => {
  const etag = '"v1"';
  t.notOk(fresh({ 'if-none-match': etag, 'cache-control': 'no-cache' }, { etag }), 'no-cache undoes the condition');
  t.notOk(fresh({ 'if-none-match': '"a,b"' }, { etag: '"a,b"' }), 'a comma inside a tag divides it');
  t.notOk(fresh({ 'if-none-match': `"v0",\t${etag}` }, { etag }), 'a tab does not count as white space');
  t.ok(fresh({ 'if-none-match': '"x,"v1","' }, { etag }), 'a tag is found inside of another');
  t.ok(fresh({ 'if-none-match': 'v1' }, { etag: 'v1' }), 'text that is not an entity tag matches');
  const changed = { 'last-modified': EXACTLY };
  t.ok(fresh({ 'if-modified-since': '2027' }, changed), 'text that is not an HTTP-date counts');
  t.ok(fresh({ 'if-modified-since': 'Fri, 01 Jan 0049 00:00:00 GMT' }, changed), 'the year 49 is 2049');
});

void t.test('a multipart answer is framed as 14.6 and RFC 2046 say', async (t) => {
  const spans = [
    { first: 0, last: 1 },
    { first: 5, last: 5 },
  ];
  const source = Buffer.from('abcdefgh');
  const framed = multipartPlan(spans, 8, 'image/png', 'b0undary');
  t.equal(framed.contentType, 'multipart/byteranges; boundary=b0undary');
  t.equal(
    assemble(framed, source).toString(),
    [
      '--b0undary',
      'Content-Type: image/png',
      'Content-Range: bytes 0-1/8',
      '',
      'ab',
      '--b0undary',
      'Content-Type: image/png',
      'Content-Range: bytes 5-5/8',
      '',
      'f',
      '--b0undary--',
      '',
    ].join('\r\n'),
  );
  const typeless = multipartPlan(spans, 8, undefined, 'b');
  t.notMatch(assemble(typeless, source).toString(), /Content-Type/);
  for (const wrong of ['', 'a b', 'a"b', 'a\r\nb', 'x'.repeat(71)]) {
    t.throws(() => multipartPlan(spans, 8, undefined, wrong), /boundary/);
  }
});

function assemble(framed: ReturnType<typeof multipartPlan>, source: Buffer): Buffer {
  const parts = framed.parts.flatMap(({ head, span }) => [head, source.subarray(span.first, span.last + 1)]);
  return Buffer.concat([...parts, framed.tail]);
}

void t.test(
  'a multipart body opens one span after the other, and leaves none open when it is broken off',
  async (t) => {
    const spans = [
      { first: 0, last: 1 },
      { first: 5, last: 5 },
    ];
    const source = Buffer.from('abcdefgh');
    const plan = multipartPlan(spans, 8, undefined, 'b');
    const opened: Readable[] = [];
    const body = multipartBody(plan, async ({ first, last }) => {
      t.ok(
        opened.every(({ destroyed }) => destroyed),
        'the one before has ended',
      );
      const stream = Readable.from([source.subarray(first, last + 1)]);
      opened.push(stream);
      return stream;
    });
    if (body.kind !== 'stream') throw new Error('a multipart body is a stream');
    t.equal(body.sizeBytes, plan.sizeBytes);
    const { signal } = new AbortController();
    t.same(Buffer.concat(await (await body.open(signal)).toArray()), assemble(plan, source));
    t.equal(opened.length, 2);

    for await (const chunk of await body.open(signal)) if (String(chunk) === 'ab') break;
    await until('all to be closed', () => opened.every(({ destroyed }) => destroyed));
    t.ok(opened.length > 2);
  },
);

void t.test('a multipart answer is exactly as long as it says', async (t) => {
  const gaps = fc.array(fc.tuple(fc.nat(9), fc.nat(9)), { minLength: 2, maxLength: 5 });
  fc.assert(
    fc.property(gaps, fc.option(fc.constantFrom('text/plain', 'video/mp4'), { nil: undefined }), (steps, type) => {
      let next = 0;
      const spans = steps.map(([gap, more]) => {
        const span = { first: next + gap, last: next + gap + more };
        next = span.last + 2;
        return span;
      });
      const framed = multipartPlan(spans, next, type, 'boundary');
      return assemble(framed, Buffer.alloc(next)).length === framed.sizeBytes;
    }),
  );
  t.pass();
});

void t.test('no request makes a decision throw', async (t) => {
  const field = fc.option(fc.string({ unit: 'binary' }), { nil: undefined });
  fc.assert(
    fc.property(field, field, field, field, fc.constantFrom(STRONG, WEAK, BARE), (one, two, three, range, stored) => {
      const request = asking('GET', {
        'if-match': one,
        'if-none-match': two,
        'if-modified-since': three,
        'if-unmodified-since': one,
        'if-range': two,
        range,
      });
      evaluateConditions(request, stored);
      planRange(request, stored, 100, { rangesMax: 4 });
    }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 0, max: Date.UTC(9999, 0, 1) }), (at) => {
      const second = Math.floor(at / 1_000) * 1_000;
      return parseHttpDate(formatHttpDate(at)) === second;
    }),
  );
  t.pass();
});
