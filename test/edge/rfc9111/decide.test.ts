/** Freshness, what may be stored, and what a request gets: tables by section of RFC 9111, and properties. */
import * as fc from 'fast-check';
import t from 'tap';
import {
  type DecidableEntry,
  type Decision,
  decide,
  decideFailure,
  honoursRefresh,
  passReason,
} from '../../../edge/rfc9111/decide.js';
import {
  type AgeSource,
  ageMs,
  ageSeconds,
  type Freshness,
  type FreshnessRules,
  freshness,
  freshnessSection,
  type LifetimeOverride,
  NO_OVERRIDE,
} from '../../../edge/rfc9111/freshness.js';
import { type Storable, type StorableQuestion, storable } from '../../../edge/rfc9111/storable.js';
import { parseConfig } from '../../../src/config/load.js';
import { governingDirectives, NO_REQUEST_DIRECTIVES, requestDirectives } from '../../../src/http/cache-control.js';
import { formatHttpDate } from '../../../src/http/date.js';
import { type HeaderList, headerOf } from '../../../src/http/reply.js';

const NOW = Date.UTC(2026, 10, 22, 12, 0, 0);
const HOUR = 3_600_000;

const RULES: FreshnessRules = {
  targetedFields: ['cdn-cache-control'],
  heuristicShare: 0.1,
  heuristicMaxMs: 24 * HOUR,
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 60_000,
  malformedAge: 'ignore',
};

/** An HTTP-date so many seconds from now. */
function date(seconds: number): string {
  return formatHttpDate(NOW + seconds * 1_000);
}

interface Received {
  readonly status?: number;
  readonly delayMs?: number;
  readonly rules?: Partial<FreshnessRules>;
  readonly override?: LifetimeOverride;
  readonly ageSource?: AgeSource;
}

function freshen(
  headers: HeaderList,
  { status = 200, delayMs = 0, rules = {}, override = NO_OVERRIDE, ageSource = 'age_and_date' }: Received = {},
): Freshness {
  const all = { ...RULES, ...rules };
  const response = { status, headers, requestedAt: NOW - delayMs, receivedAt: NOW };
  return freshness(response, governingDirectives(headers, all.targetedFields), all, ageSource, override);
}

/** Header fields, each written as `name: value`. */
function fields(...lines: readonly string[]): HeaderList {
  return lines.map((line) => [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)]);
}

/** What is left of the lifetime at the instant of arrival, in seconds. */
function leftSeconds(headers: HeaderList, received: Received = {}): number {
  return (freshen(headers, received).staleAt - NOW) / 1_000;
}

void t.test('the defaults of the configuration are the rules of these tests', async (t) => {
  const loaded = parseConfig('', { freshness: freshnessSection });
  t.strictSame(loaded, { kind: 'loaded', config: { freshness: RULES } });
});

void t.test('the first lifetime that applies counts; only without one is there a heuristic one (4.2.1)', async (t) => {
  const farAway = Date.UTC(2286, 10, 21, 4, 46, 39);
  const cases: readonly (readonly [name: string, headers: HeaderList, seconds: number, heuristic?: 'heuristic'])[] = [
    ['nothing', [], 0, 'heuristic'],
    ['max-age', fields('cache-control: max-age=60'), 60],
    ['s-maxage over max-age', fields('cache-control: max-age=60, s-maxage=5'), 5],
    ['max-age over Expires', fields('cache-control: max-age=60', `expires: ${date(9)}`), 60],
    ['max-age 0 over Expires', fields('cache-control: max-age=0', `expires: ${date(9)}`), 0],
    ['Expires', fields(`expires: ${date(9)}`), 9],
    ['Expires less Date', fields(`date: ${date(0)}`, `expires: ${date(9)}`), 9],
    ['Expires, Date invalid', fields('date: foo', `expires: ${date(9)}`), 9],
    ['Expires past', fields(`expires: ${date(-9)}`), 0],
    ['Expires 0', fields('expires: 0'), 0],
    ['Expires empty', fields('expires: '), 0],
    ['Expires twice', fields(`expires: ${date(9)}`, `expires: ${date(9)}`), 0],
    ['Date and Expires ahead', fields(`date: ${date(400)}`, `expires: ${date(300)}`), 0],
    [
      'targeted over all',
      fields('cdn-cache-control: max-age=7', 'cache-control: s-maxage=5', `expires: ${date(99)}`),
      7,
    ],
    ['targeted without a lifetime', fields('cdn-cache-control: public', `expires: ${date(99)}`), 0, 'heuristic'],
    ['targeted s-maxage', fields('cdn-cache-control: max-age=7, s-maxage=6'), 6],
    ['no-cache is never fresh', fields('cache-control: max-age=60, no-cache'), 0],
    ['no-cache of fields is', fields('cache-control: max-age=60, no-cache="a"'), 60],
    ['far away', fields('expires: Sun, 21 Nov 2286 04:46:39 GMT'), (farAway - NOW) / 1_000],
  ];
  for (const [name, headers, seconds, heuristic] of cases) {
    t.equal(leftSeconds(headers), seconds, name);
    const changed = fields(`last-modified: ${date(-1_000)}`);
    t.equal(
      leftSeconds([...headers, ...changed]),
      heuristic === undefined ? seconds : 100,
      `${name}, with Last-Modified`,
    );
  }
});

void t.test('a heuristic lifetime is a share of the time since the last change (4.2.2)', async (t) => {
  const changed = (seconds: number): HeaderList => [
    ['date', date(0)],
    ['last-modified', date(-seconds)],
  ];
  t.equal(leftSeconds(changed(1_000)), 100);
  t.equal(leftSeconds(changed(5)), 0.5);
  t.equal(leftSeconds(changed(100 * 86_400)), 86_400, 'up to the cap');
  t.equal(leftSeconds(changed(-1_000)), 0, 'a change in the future tells nothing');
  t.equal(leftSeconds([['last-modified', 'foo']]), 0);
  t.equal(leftSeconds(changed(1_000), { rules: { heuristicShare: 0 } }), 0);
  for (const status of [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501]) {
    t.equal(leftSeconds(changed(1_000), { status }), 100, String(status));
  }
  for (const status of [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599]) {
    t.equal(leftSeconds(changed(1_000), { status }), 0, String(status));
    t.equal(leftSeconds([...changed(1_000), ['cache-control', 'public']], { status }), 100, `${status}, public`);
  }
});

void t.test('the age is the larger one of Age and Date (4.2.3)', async (t) => {
  const lived: HeaderList = fields('cache-control: max-age=100');
  const cases: readonly (readonly [name: string, headers: HeaderList, delayMs: number, seconds: number])[] = [
    ['neither', [], 0, 100],
    ['the time on the way', [], 2_500, 97.5],
    ['Age', fields('age: 30'), 0, 70],
    ['Age and the time on the way', fields('age: 30'), 2_500, 67.5],
    ['Date', fields(`date: ${date(-40)}`), 0, 60],
    ['both', fields('age: 30', `date: ${date(-40)}`), 0, 60],
    ['Date ahead of us', fields(`date: ${date(40)}`), 0, 100],
    ['Date invalid', fields('date: foo'), 0, 100],
    ['older than its lifetime', fields('age: 7200'), 0, -7_100],
    ['older than any lifetime', fields('age: 99999999999999999999'), 0, 100 - 2 ** 31],
    // 5.1: the first member counts; a member that is no number is ignored.
    ['a list', fields('age: 30, 90'), 0, 70],
    ['two lines', fields('age: 30', 'age: 90'), 0, 70],
    ['letters', fields('age: abc'), 0, 100],
    ['negative', fields('age: -30'), 0, 100],
    ['fraction', fields('age: 30.0'), 0, 100],
    ['parameter', fields('age: 30;a=b'), 0, 100],
    ['empty', fields('age: '), 0, 100],
  ];
  for (const [name, headers, delayMs, expected] of cases) {
    t.equal(leftSeconds([...lived, ...headers], { delayMs }), expected, name);
  }
  t.equal(
    leftSeconds([...lived, ['date', formatHttpDate(NOW + 999)]]),
    100,
    'the fraction of a second that Date cannot say makes nothing older',
  );
});

void t.test('if Age is reliable, clocks that differ do not matter (4.2.3)', async (t) => {
  const skewed: HeaderList = [
    ['cache-control', 'max-age=100'],
    ['date', date(-300)],
  ];
  t.equal(leftSeconds(skewed), -200);
  t.equal(leftSeconds(skewed, { ageSource: 'age' }), 100);
  t.equal(leftSeconds([...skewed, ['age', '30']], { ageSource: 'age', delayMs: 1_000 }), 69);
  const head = (mode: 'media' | 'off') => storedHead(store([...skewed, ['etag', '"a"']], { mode }));
  t.strictSame([head('media').bornAt, head('off').bornAt], [NOW, NOW - 300_000]);
});

void t.test('a malformed Age means too old if the operator says so', async (t) => {
  const rules = { malformedAge: 'stale' } as const;
  const fresh = (...ages: readonly string[]): boolean =>
    leftSeconds([['cache-control', 'max-age=3600'], ...ages.map((age) => ['age', age] as const)], { rules }) > 0;
  for (const age of ['abc', '-1', '1.0', '1;a=b', '', '0, 0', '3, 3']) t.notOk(fresh(age), age);
  t.notOk(fresh('0', '0'));
  t.notOk(fresh('0', '7200'));
  t.ok(fresh('0'));
  t.ok(fresh('30'));
  t.ok(fresh('0,7200'));
});

void t.test(
  'the times in which a stale response is served come from the response, or else from the configuration',
  async (t) => {
    const windows = (value: string, received: Received = {}): readonly number[] => {
      const { staleAt, revalidateUntil, errorUntil } = freshen([['cache-control', value]], received);
      return [(revalidateUntil - staleAt) / 1_000, (errorUntil - staleAt) / 1_000];
    };
    t.strictSame(windows('max-age=60, stale-while-revalidate=5, stale-if-error=6'), [5, 6]);
    t.strictSame(windows('max-age=60'), [0, 60]);
    t.strictSame(windows('max-age=60, stale-if-error=0'), [0, 0]);
    t.strictSame(windows('max-age=60, stale-if-error=x'), [0, 0]);
    t.strictSame(windows('max-age=60', { rules: { staleWhileRevalidateMs: 3_000 } }), [3, 60]);
    t.strictSame(windows('max-age=0'), [0, 0], 'a response that never was fresh is served stale only if it says so');
    t.strictSame(windows('max-age=0, stale-if-error=6'), [0, 6]);
    // 4.2.4: prohibited whatever else is said
    for (const forbidding of ['must-revalidate', 'proxy-revalidate', 's-maxage=60', 'no-cache']) {
      t.strictSame(
        windows(`max-age=60, stale-while-revalidate=5, stale-if-error=6, ${forbidding}`),
        [0, 0],
        forbidding,
      );
    }
  },
);

void t.test('an override changes lifetimes but not restrictions', async (t) => {
  const override: LifetimeOverride = { ttlMs: 5_000, staleWhileRevalidateMs: 2_000, staleIfErrorMs: 3_000 };
  const { staleAt, revalidateUntil, errorUntil } = freshen([['cache-control', 'max-age=60']], { override });
  t.strictSame([staleAt, revalidateUntil, errorUntil], [NOW + 5_000, NOW + 7_000, NOW + 8_000]);
  const strict = freshen([['cache-control', 'no-cache']], { override });
  t.strictSame([strict.staleAt, strict.errorUntil], [NOW, NOW]);
});

void t.test('an override shortens a provisional lifetime and never prolongs it', async (t) => {
  const staleIn = (value: string, ttlMs: number): number =>
    freshen([['cdn-cache-control', value]], { override: { ...NO_OVERRIDE, ttlMs } }).staleAt - NOW;
  t.equal(staleIn('max-age=5, provisional', 60_000), 5_000);
  t.equal(staleIn('max-age=5, provisional', 2_000), 2_000);
  t.equal(staleIn('max-age=5', 60_000), 60_000);
});

void t.test('Age is in whole seconds, and at most 2^31 (5.1)', async (t) => {
  t.equal(ageSeconds({ bornAt: NOW - 2_999 }, NOW), 2);
  t.equal(ageSeconds({ bornAt: NOW + 5_000 }, NOW), 0);
  t.equal(ageSeconds({ bornAt: Number.MIN_SAFE_INTEGER }, NOW), 2 ** 31);
  t.equal(ageMs({ bornAt: NOW - 7 }, NOW), 7);
});

const GET = { method: 'GET', header: () => undefined };

function requesting(fields: Readonly<Record<string, string>>, method = 'GET', uri?: string) {
  return { method, header: (name: string) => fields[name], ...(uri !== undefined && { uri }) };
}

function store(
  headers: HeaderList,
  options: Partial<Pick<StorableQuestion, 'request' | 'now' | 'override'>> & {
    readonly status?: number;
    readonly mode?: 'media' | 'off';
    readonly incomplete?: boolean;
    readonly setCookie?: 'if_shared' | 'always';
  } = {},
): Storable {
  const { request = GET, status = 200, mode = 'off', incomplete = false, now = NOW, override } = options;
  const { setCookie = 'if_shared' } = options;
  return storable({
    request,
    response: { status, headers, requestedAt: NOW, receivedAt: NOW },
    now,
    rules: { mode, freshness: RULES, incomplete, setCookie },
    ...(override !== undefined && { override }),
  });
}

function outcomeOf(result: Storable): string {
  return result.kind === 'refuse' ? result.reason : result.kind;
}

function storedHead(result: Storable) {
  if (result.kind === 'refuse') throw new Error(`refused: ${result.reason}`);
  return result.head;
}

const FRESH = 'cache-control: max-age=60';

void t.test('a response is stored if section 3 allows it', async (t) => {
  const authorized = { request: requesting({ authorization: 'Bearer x' }) };
  const post = { request: requesting({}, 'POST', 'http://a/b') };
  const cases: readonly (readonly [string, HeaderList, Parameters<typeof store>[1], string])[] = [
    ['fresh', fields(FRESH), {}, 'store'],
    // Method
    ['HEAD', fields(FRESH), { request: requesting({}, 'HEAD') }, 'store'],
    ['PUT', fields(FRESH), { request: requesting({}, 'PUT') }, 'method'],
    ['POST', fields(FRESH), post, 'method'],
    ['POST, another Content-Location', fields(FRESH, 'content-location: /c'), post, 'method'],
    ['POST, its own Content-Location', fields(FRESH, 'content-location: /b'), post, 'store'],
    ['POST, invalid Content-Location', fields(FRESH, 'content-location: http://['), post, 'method'],
    [
      'POST, its own, without a lifetime',
      fields('content-location: /b', `last-modified: ${date(-1_000)}`),
      post,
      'no_freshness',
    ],
    // Status
    ['103', fields(FRESH), { status: 103 }, 'status'],
    ['304', fields(FRESH), { status: 304 }, 'status'],
    ['999', fields(FRESH), { status: 999 }, 'status'],
    ['599', fields(FRESH), { status: 599 }, 'store'],
    ['599, must-understand', fields('cache-control: max-age=60, must-understand'), { status: 599 }, 'status'],
    ['200, must-understand', fields('cache-control: max-age=60, must-understand, no-store'), {}, 'store'],
    // Directives
    ['request no-store', fields(FRESH), { request: requesting({ 'cache-control': 'no-store' }) }, 'request_no_store'],
    ['no-store', fields('cache-control: max-age=60, NO-STORE'), {}, 'no_store'],
    ['private', fields('cache-control: max-age=60, private'), {}, 'private'],
    ['private and public', fields('cache-control: max-age=60, private, public'), {}, 'private'],
    ['private fields', fields('cache-control: max-age=60, private="set-cookie"'), {}, 'store'],
    ['targeted over no-store', fields('cache-control: no-store', 'cdn-cache-control: max-age=5'), {}, 'store'],
    ['targeted no-store', fields(FRESH, 'cdn-cache-control: no-store'), {}, 'no_store'],
    ['targeted private', fields(FRESH, 'cdn-cache-control: private'), {}, 'private'],
    ['targeted, malformed', fields('cache-control: no-store', 'cdn-cache-control: max-age=5, &'), {}, 'no_store'],
    // 7.3
    ['cookie', fields(FRESH, 'set-cookie: a=b'), {}, 'set_cookie'],
    ['cookie, must-revalidate', fields('cache-control: max-age=6, must-revalidate', 'set-cookie: a'), {}, 'set_cookie'],
    ['cookie, public', fields('cache-control: max-age=60, public', 'set-cookie: a=b'), {}, 'store'],
    ['cookie, s-maxage', fields('cache-control: s-maxage=60', 'set-cookie: a=b'), {}, 'store'],
    ['cookie, private', fields('cache-control: private, s-maxage=60', 'set-cookie: a=b'), {}, 'private'],
    [
      'cookie, named as private',
      fields('cache-control: max-age=60, private="set-cookie"', 'set-cookie: a'),
      {},
      'store',
    ],
    ['cookie, targeted', fields(FRESH, 'cdn-cache-control: max-age=60', 'set-cookie: a=b'), {}, 'set_cookie'],
    ['cookie, targeted public', fields('cdn-cache-control: public, max-age=60', 'set-cookie: a=b'), {}, 'store'],
    [
      'cookie, public for others',
      fields('cache-control: public', 'cdn-cache-control: max-age=6', 'set-cookie: a'),
      {},
      'set_cookie',
    ],
    ['cookie, as configured', fields(FRESH, 'set-cookie: a=b'), { setCookie: 'always' }, 'store'],
    // 3.5
    ['authorized', fields(FRESH), authorized, 'authorization'],
    ['authorized, public', fields('cache-control: max-age=60, public'), authorized, 'store'],
    ['authorized, s-maxage', fields('cache-control: s-maxage=60'), authorized, 'store'],
    ['authorized, must-revalidate', fields('cache-control: max-age=6, must-revalidate'), authorized, 'store'],
    ['authorized, proxy-revalidate', fields('cache-control: max-age=6, proxy-revalidate'), authorized, 'authorization'],
    // 4.1
    ['Vary: *', fields(FRESH, 'vary: *'), {}, 'vary'],
    ['Vary: foo, *', fields(FRESH, 'vary: foo, *'), {}, 'vary'],
    ['Vary: , then *', fields(FRESH, 'vary: ', 'vary: *'), {}, 'vary'],
    // Freshness
    ['no lifetime', [], {}, 'no_use'],
    ['no lifetime, 302', [], { status: 302 }, 'no_freshness'],
    ['no lifetime, with a validator', fields('etag: "a"'), {}, 'store'],
    ['no-cache with a validator', fields('cache-control: no-cache', 'etag: "a"'), {}, 'store'],
    ['no-cache without one', fields('cache-control: no-cache, max-age=60'), {}, 'no_use'],
    ['stale on arrival', fields('cache-control: max-age=60', 'age: 9999'), {}, 'no_use'],
    ['stale on arrival, with a validator', fields('expires: 0', `last-modified: ${date(-9)}`), {}, 'store'],
    ['stale at once, served when the origin fails', fields('cache-control: max-age=0, stale-if-error=9'), {}, 'store'],
    [
      'stale at once, served while revalidated',
      fields('cache-control: max-age=0, stale-while-revalidate=9'),
      {},
      'store',
    ],
    ['302 with Expires', fields(`expires: ${date(60)}`), { status: 302 }, 'store'],
    ['503 with max-age', fields(FRESH), { status: 503 }, 'store'],
    ['override', [], { status: 302, override: { ...NO_OVERRIDE, ttlMs: 5_000 } }, 'store'],
    // Sunset
    ['Sunset ahead', fields(FRESH, `sunset: ${date(10)}`), { mode: 'media' }, 'store'],
    ['Sunset now', fields(FRESH, `sunset: ${date(0)}`), { mode: 'media' }, 'ended'],
    [
      'Sunset now, by a clock that is a minute ahead of ours',
      fields(FRESH, `date: ${date(60)}`, `sunset: ${date(60)}`),
      { mode: 'media' },
      'ended',
    ],
    [
      'Sunset ahead, by both clocks',
      fields(FRESH, `date: ${date(60)}`, `sunset: ${date(70)}`),
      { mode: 'media' },
      'store',
    ],
    ['Sunset malformed', fields(FRESH, 'sunset: soon'), { mode: 'media' }, 'ended'],
    ['Sunset in generic mode', fields(FRESH, `sunset: ${date(-10)}`), { mode: 'off' }, 'store'],
  ];
  for (const [name, headers, options, expected] of cases) {
    t.equal(outcomeOf(store(headers, options)), expected, name);
  }
});

void t.test('a range is stored if it is known what it is a range of (3.3, 3.4)', async (t) => {
  const range = fields(
    FRESH,
    'etag: "a"',
    'content-range: bytes 5-9/100',
    'content-length: 5',
    'content-digest: sha-256=:AA==:',
  );
  const replaced = (name: string, value: string): HeaderList =>
    range.map(([each, was]) => [each, each === name ? value : was]);
  const stores = { status: 206, incomplete: true };
  const stored = store(range, stores);
  t.equal(stored.kind, 'store_range');
  if (stored.kind !== 'store_range') return;
  t.strictSame(stored.span, { first: 5, last: 9 });
  t.equal(stored.head.status, 200);
  t.equal(stored.head.sizeBytes, 100);
  t.strictSame(
    stored.head.headers.filter(([name]) => name.startsWith('content-')),
    [['content-length', '100']],
    'the head is that of the whole',
  );
  for (const [name, headers, options] of [
    ['ranges are not stored', range, { status: 206 }],
    ['weak validator', replaced('etag', 'W/"a"'), stores],
    ['no validator', range.filter(([name]) => name !== 'etag'), stores],
    ['size unknown', replaced('content-range', 'bytes 5-9/*'), stores],
    ['range broken', replaced('content-range', 'bytes 9-5/100'), stores],
    ['several ranges', range.filter(([name]) => name !== 'content-range'), stores],
    ['another length', replaced('content-length', '6'), stores],
    ['HEAD', range, { ...stores, request: requesting({}, 'HEAD') }],
  ] as const) {
    t.equal(outcomeOf(store(headers, options)), 'partial', name);
  }
});

void t.test('end-to-end fields are stored, without those that are for one caller', async (t) => {
  const { headers } = storedHead(
    store([
      ['cache-control', 'max-age=60, private="set-cookie", no-cache="X-One, x-two"'],
      ['date', date(0)],
      ['connection', 'x-hop'],
      ['x-hop', '1'],
      ['transfer-encoding', 'chunked'],
      ['set-cookie', 'a=b'],
      ['x-one', '1'],
      ['x-two', '2'],
      ['x-three', '3'],
    ]),
  );
  t.strictSame(
    headers.map(([name]) => name),
    ['cache-control', 'date', 'x-three'],
  );
  const dated = storedHead(store(fields(FRESH, 'date: foo'))).headers;
  t.strictSame(dated, fields(FRESH, `date: ${date(0)}`), 'a Date that is none is replaced (RFC 9110 6.6.1)');
  t.equal(headerOf(storedHead(store(fields(FRESH))).headers, 'date'), date(0));
  t.equal(
    outcomeOf(
      store([
        ['cache-control', 'private'],
        ['connection', 'cache-control'],
      ]),
    ),
    'private',
    'Connection hides no directive',
  );
});

void t.test('an entry has its audience, its media, its expiry, its size and its hash', async (t) => {
  const sha256 = 'ab'.repeat(32);
  const digest = `sha-256=:${Buffer.from(sha256, 'hex').toString('base64')}:`;
  const media: HeaderList = [
    ['cdn-cache-control', 'max-age=3600, stale-while-revalidate=60, stale-if-error=60'],
    ['cache-control', 'private, max-age=5'],
    ['media-id', '01arz3ndektsv4rrffq69g5fav'],
    ['sunset', date(600)],
    ['content-length', '12'],
    ['repr-digest', digest],
    ['vary', 'Accept'],
  ];
  const head = storedHead(store(media, { mode: 'media', request: requesting({ accept: 'image/webp' }) }));
  t.equal(head.audience, 'authorised');
  t.equal(head.mediaId, '01ARZ3NDEKTSV4RRFFQ69G5FAV');
  t.equal(head.deleteAt, NOW + 600_000);
  t.strictSame([head.staleAt, head.revalidateUntil, head.errorUntil], [NOW + 600_000, NOW + 600_000, NOW + 600_000]);
  t.equal(head.sizeBytes, 12);
  t.equal(head.sha256, sha256);
  t.strictSame({ ...head.selectedBy }, { accept: 'image/webp' });
  const open = (cacheControl: HeaderList) => storedHead(store(cacheControl, { mode: 'media' })).audience;
  t.equal(open([['cdn-cache-control', 'public, max-age=5']]), 'anyone');
  t.equal(
    open([
      ['cdn-cache-control', 'max-age=5'],
      ['cache-control', 'public'],
    ]),
    'authorised',
  );
  t.equal(open([['cache-control', 'public, max-age=5']]), 'anyone');
  t.equal(open([['cache-control', 'max-age=5']]), 'authorised');
  const generic = storedHead(store(media));
  t.strictSame([generic.audience, generic.mediaId, generic.deleteAt], ['anyone', null, Number.POSITIVE_INFINITY]);
  const bare = storedHead(store(fields(FRESH, `content-digest: ${digest}`, 'content-length: 1e3')));
  t.strictSame([bare.sha256, bare.sizeBytes], [sha256, null]);
});

function entry(changes: Partial<DecidableEntry> = {}): DecidableEntry {
  return {
    headers: fields(FRESH),
    bornAt: NOW - 10_000,
    staleAt: NOW + 50_000,
    revalidateUntil: NOW + 60_000,
    errorUntil: NOW + 70_000,
    deleteAt: Number.POSITIVE_INFINITY,
    ...changes,
  };
}

const STALE: Partial<DecidableEntry> = {
  staleAt: NOW - 10_000,
  revalidateUntil: NOW - 10_000,
  errorUntil: NOW - 10_000,
};
const REVALIDATING: Partial<DecidableEntry> = { ...STALE, revalidateUntil: NOW + 1 };

function asked(cacheControl: string, stored: DecidableEntry | undefined, honours = true, now = NOW): string {
  const directives = requestDirectives({ header: (name) => (name === 'cache-control' ? cacheControl : undefined) });
  return textOf(decide(stored, directives, now, { honoursRefresh: honours, targetedFields: RULES.targetedFields }));
}

function textOf(decision: Decision): string {
  return decision.kind === 'revalidate' ? `revalidate: ${decision.because}` : decision.kind;
}

void t.test('a request gets the stored response, a validation or a fetch (4)', async (t) => {
  const strict: HeaderList = [['cache-control', 'max-age=60, must-revalidate']];
  const cases: readonly (readonly [string, DecidableEntry | undefined, string, string?])[] = [
    ['', undefined, 'miss'],
    ['', entry(), 'hit'],
    ['', entry({ staleAt: NOW }), 'stale_while_revalidate'],
    ['', entry({ staleAt: NOW + 1 }), 'hit'],
    ['', entry(STALE), 'revalidate: stale'],
    ['', entry({ deleteAt: NOW }), 'miss'],
    ['', entry({ deleteAt: NOW + 1 }), 'hit'],
    // RFC 5861 3
    ['', entry(REVALIDATING), 'stale_while_revalidate'],
    ['', entry({ ...REVALIDATING, revalidateUntil: NOW }), 'revalidate: stale'],
    // 5.2.1.4, 5.4
    ['no-cache', entry(), 'revalidate: request', 'hit'],
    ['no-cache', entry(REVALIDATING), 'revalidate: stale', 'stale_while_revalidate'],
    ['no-cache', entry({ staleAt: NOW, revalidateUntil: NOW }), 'revalidate: stale'],
    ['no-cache', undefined, 'miss'],
    // 5.2.1.1
    ['max-age=0', entry({ bornAt: NOW }), 'revalidate: request', 'hit'],
    ['max-age=9', entry(), 'revalidate: request', 'hit'],
    ['max-age=10', entry(), 'hit'],
    ['max-age=999', entry(REVALIDATING), 'revalidate: stale', 'stale_while_revalidate'],
    // 5.2.1.3
    ['min-fresh=50', entry(), 'hit'],
    ['min-fresh=51', entry(), 'revalidate: request', 'hit'],
    ['min-fresh=0', entry(REVALIDATING), 'revalidate: stale', 'stale_while_revalidate'],
    // 5.2.1.2
    ['max-stale', entry(STALE), 'hit_stale'],
    ['max-stale=10', entry(STALE), 'hit_stale'],
    ['max-stale=9', entry(STALE), 'revalidate: stale'],
    ['max-stale', entry(), 'hit'],
    ['max-stale, max-age=15', entry(STALE), 'hit_stale'],
    ['max-stale, max-age=5', entry(STALE), 'revalidate: stale', 'hit_stale'],
    ['max-stale, no-cache', entry(STALE), 'revalidate: stale', 'hit_stale'],
    ['max-stale', entry({ ...STALE, headers: strict }), 'revalidate: stale'],
    ['max-stale', entry({ ...STALE, headers: [['cache-control', 's-maxage=1']] }), 'revalidate: stale'],
    ['max-stale', entry({ ...STALE, headers: [['cache-control', 'proxy-revalidate']] }), 'revalidate: stale'],
    ['max-stale', entry({ ...STALE, headers: [['cache-control', 'no-cache']] }), 'revalidate: stale'],
    ['max-stale', entry({ ...STALE, headers: [...strict, ['cdn-cache-control', 'max-age=1']] }), 'hit_stale'],
    // 5.2.1.5: no-store is about storing
    ['no-store', entry(), 'hit'],
    // 5.2.1.7
    ['only-if-cached', undefined, 'only_if_cached'],
    ['only-if-cached', entry(), 'hit'],
    ['only-if-cached', entry(STALE), 'only_if_cached'],
    ['only-if-cached', entry(REVALIDATING), 'stale_while_revalidate'],
    ['only-if-cached, max-stale', entry(STALE), 'hit_stale'],
    ['only-if-cached, no-cache', entry(), 'only_if_cached', 'hit'],
    ['only-if-cached', entry({ deleteAt: NOW }), 'only_if_cached'],
  ];
  for (const [cacheControl, stored, honoured, ignored = honoured] of cases) {
    t.equal(asked(cacheControl, stored), honoured, `${cacheControl} (honoured)`);
    t.equal(asked(cacheControl, stored, false), ignored, `${cacheControl} (ignored)`);
  }
});

void t.test('for media, demands for fresher responses are ignored unless the operator says otherwise', async (t) => {
  t.notOk(honoursRefresh({ refresh: 'by_access' }, 'media'));
  t.ok(honoursRefresh({ refresh: 'by_access' }, 'off'));
  t.ok(honoursRefresh({ refresh: 'honour' }, 'media'));
  t.notOk(honoursRefresh({ refresh: 'ignore' }, 'off'));
});

void t.test('requests that are not for a cache are passed on (4, 4.3.2)', async (t) => {
  t.equal(passReason(requesting({}, 'POST'), 'media'), 'method');
  t.equal(passReason(requesting({}, 'get'), 'off'), 'method');
  t.equal(passReason(requesting({}, 'HEAD'), 'off'), undefined);
  for (const name of ['if-match', 'if-unmodified-since']) {
    t.equal(passReason(requesting({ [name]: 'x' }), 'off'), 'precondition');
    t.equal(passReason(requesting({ [name]: 'x' }), 'media'), undefined);
  }
  t.equal(passReason(requesting({ 'if-none-match': 'x' }), 'off'), undefined);
});

void t.test('a stale response is served in place of an error for as long as allowed (RFC 5861 4)', async (t) => {
  const none = { kind: 'none' } as const;
  const onFailure = (
    stored: DecidableEntry | undefined,
    failure: Parameters<typeof decideFailure>[1] = none,
    staleIfErrorMs?: number,
  ): string => decideFailure(stored, failure, { ...NO_REQUEST_DIRECTIVES, staleIfErrorMs }, NOW, RULES).kind;
  t.equal(onFailure(undefined), 'pass_on');
  t.equal(onFailure(entry()), 'serve_stale');
  t.equal(onFailure(entry({ ...STALE, errorUntil: NOW + 1 })), 'serve_stale');
  t.equal(onFailure(entry({ ...STALE, errorUntil: NOW })), 'pass_on');
  t.equal(onFailure(entry({ ...STALE, errorUntil: NOW + 1, deleteAt: NOW })), 'pass_on');
  for (const status of [500, 502, 503, 504]) {
    t.equal(
      onFailure(entry({ ...STALE, errorUntil: NOW + 1 }), { kind: 'status', status }),
      'serve_stale',
      `${status}`,
    );
  }
  for (const status of [200, 304, 401, 403, 404, 410, 429, 501]) {
    t.equal(onFailure(entry(), { kind: 'status', status }), 'pass_on', `${status}`);
  }
  t.equal(onFailure(entry(STALE), none, 10_001), 'serve_stale', 'the request may allow more');
  t.equal(onFailure(entry(STALE), none, 10_000), 'pass_on');
  t.equal(onFailure(entry({ ...STALE, headers: [['cache-control', 'must-revalidate']] }), none, 10_001), 'pass_on');
});

const anyHeaders = fc.array(
  fc.tuple(
    fc.constantFrom(
      'cache-control',
      'cdn-cache-control',
      'age',
      'date',
      'expires',
      'last-modified',
      'vary',
      'sunset',
      'etag',
    ),
    fc.oneof(
      fc.constantFrom(
        'max-age=60',
        'no-cache',
        'private',
        's-maxage=5, public',
        '0',
        '30',
        '*',
        '"a"',
        'must-revalidate',
      ),
      fc.integer({ min: -9_999_999, max: 9_999_999 }).map(date),
      fc.string({ unit: 'binary' }),
    ),
  ),
  { maxLength: 8 },
);

void t.test(
  'whatever an origin sends, the instants of an entry are in order and every restriction is kept',
  async (t) => {
    fc.assert(
      fc.property(anyHeaders, fc.constantFrom(200, 206, 304, 404, 599), fc.boolean(), (headers, status, media) => {
        const result = store(headers, { status, mode: media ? 'media' : 'off', incomplete: true });
        if (result.kind === 'refuse') return true;
        const { head } = result;
        const { directives } = governingDirectives(headers, RULES.targetedFields);
        return (
          Number.isFinite(head.bornAt) &&
          head.bornAt <= NOW &&
          head.staleAt >= Math.min(head.bornAt, head.deleteAt) &&
          head.revalidateUntil >= head.staleAt &&
          head.errorUntil >= head.staleAt &&
          head.errorUntil <= head.deleteAt &&
          head.deleteAt > NOW &&
          !directives.noStore &&
          directives.private !== 'all' &&
          (directives.noCache !== 'all' || head.staleAt <= NOW) &&
          (media || head.audience === 'anyone')
        );
      }),
    );
    t.pass();
  },
);

void t.test('freshness only runs out with time, and a longer lifetime or a lower age never shortens it', async (t) => {
  fc.assert(
    fc.property(fc.nat(10_000), fc.nat(10_000), fc.nat(10_000), fc.nat(20_000), (life, more, age, later) => {
      const at = (maxAge: number, ageSeconds: number): Freshness =>
        freshen([
          ['cache-control', `max-age=${maxAge}`],
          ['age', String(ageSeconds)],
        ]);
      const stored = entry({ ...at(life, age), deleteAt: Number.POSITIVE_INFINITY });
      const first = asked('', stored, true, NOW + later * 1_000);
      const second = asked('', stored, true, NOW + (later + more) * 1_000);
      return (
        at(life + more, age).staleAt >= at(life, age).staleAt &&
        at(life, age + more).staleAt <= at(life, age).staleAt &&
        (first === 'hit') === life - age > later &&
        (second !== 'hit' || first === 'hit')
      );
    }),
  );
  t.pass();
});

void t.test('a stricter request never gets a staler response', async (t) => {
  const demands = fc.constantFrom('no-cache', 'max-age=0', 'max-age=5', 'min-fresh=20', 'min-fresh=90');
  const instant = fc.integer({ min: NOW - 100_000, max: NOW + 100_000 });
  fc.assert(
    fc.property(demands, instant, fc.nat(100_000), fc.nat(100_000), (demand, staleAt, revalidateMs, bornMs) => {
      const stored = entry({ bornAt: NOW - bornMs, staleAt, revalidateUntil: staleAt + revalidateMs });
      const served = (outcome: string): boolean => outcome !== 'miss' && !outcome.startsWith('revalidate:');
      return !served(asked(demand, stored)) || asked(demand, stored) === 'hit';
    }),
  );
  t.pass();
});
