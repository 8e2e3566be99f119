/** The instants, ages and sizes at which the cache rules turn from one outcome to the other, and the smallest cases of each. */
import t from 'tap';
import { type DecidableEntry, decide, decideFailure } from '../../../edge/rfc9111/decide.js';
import {
  ageMs,
  ageSeconds,
  type Freshness,
  type FreshnessRules,
  freshness,
  NO_OVERRIDE,
} from '../../../edge/rfc9111/freshness.js';
import { type CacheMode, type Storable, type StorableRequest, storable } from '../../../edge/rfc9111/storable.js';
import { identify, judgeByHead, preconditions } from '../../../edge/rfc9111/validate.js';
import { normalise, selectStored } from '../../../edge/rfc9111/vary.js';
import { governingDirectives, NO_REQUEST_DIRECTIVES, type RequestDirectives } from '../../../src/http/cache-control.js';
import { formatHttpDate } from '../../../src/http/date.js';
import { type HeaderList, headerOf } from '../../../src/http/reply.js';

const NOW = Date.UTC(2026, 10, 22, 12, 0, 0);
const RULES: FreshnessRules = {
  targetedFields: ['cdn-cache-control'],
  heuristicShare: 0.1,
  heuristicMaxMs: 86_400_000,
  staleWhileRevalidateMs: 3_000,
  staleIfErrorMs: 6_000,
  malformedAge: 'ignore',
};

/** Born ten seconds ago, stale in twenty, and then of use for another thirty and forty; gone in a hundred. */
const ENTRY: DecidableEntry = {
  headers: [],
  bornAt: NOW - 10_000,
  staleAt: NOW + 20_000,
  revalidateUntil: NOW + 30_000,
  errorUntil: NOW + 40_000,
  deleteAt: NOW + 100_000,
};

void t.test(
  'what a request gets turns at each instant and each limit that it names (4.2, 5.2.1, RFC 5861 3)',
  async (t) => {
    const cases: readonly (readonly [afterMs: number, Partial<RequestDirectives>, kind: string, honours?: boolean])[] =
      [
        [19_999, {}, 'hit'],
        [20_000, {}, 'stale_while_revalidate'],
        [29_999, {}, 'stale_while_revalidate'],
        [30_000, {}, 'revalidate stale'],
        [99_999, {}, 'revalidate stale'],
        [100_000, {}, 'miss'],
        [100_000, { onlyIfCached: true }, 'only_if_cached'],
        [99_999, { onlyIfCached: true }, 'only_if_cached'],
        [0, { onlyIfCached: true }, 'hit'],
        [0, { maxAgeMs: 10_000 }, 'hit'],
        [1, { maxAgeMs: 10_000 }, 'revalidate request'],
        [-10_000, { maxAgeMs: 0 }, 'revalidate request'],
        [-10_000, { maxAgeMs: 1 }, 'hit'],
        [0, { minFreshMs: 20_000 }, 'hit'],
        [0, { minFreshMs: 20_001 }, 'revalidate request'],
        [0, { noCache: true }, 'revalidate request'],
        [0, { noCache: true, onlyIfCached: true }, 'only_if_cached'],
        [25_000, { noCache: true }, 'revalidate stale'],
        [25_000, { maxAgeMs: 50_000 }, 'revalidate stale'],
        [20_000, { minFreshMs: 0 }, 'revalidate stale'],
        [50_000, { maxStaleMs: 30_000 }, 'hit_stale'],
        [50_001, { maxStaleMs: 30_000 }, 'revalidate stale'],
        [50_000, { maxStaleMs: 30_000, maxAgeMs: 1_000 }, 'revalidate stale'],
        [50_000, { maxStaleMs: 30_000, noCache: true }, 'revalidate stale'],
        [100_000, { maxStaleMs: Number.POSITIVE_INFINITY }, 'miss'],
        // A cache that ignores such wishes serves what it would serve without them.
        [0, { noCache: true }, 'hit', false],
        [5, { maxAgeMs: 1 }, 'hit', false],
        [0, { minFreshMs: 60_000 }, 'hit', false],
        [25_000, { maxAgeMs: 1 }, 'stale_while_revalidate', false],
      ];
    for (const [afterMs, directives, expected, honoursRefresh = true] of cases) {
      const decision = decide(ENTRY, { ...NO_REQUEST_DIRECTIVES, ...directives }, NOW + afterMs, {
        honoursRefresh,
        targetedFields: ['cdn-cache-control'],
      });
      const told = decision.kind === 'revalidate' ? `revalidate ${decision.because}` : decision.kind;
      t.equal(told, expected, `${afterMs} ms ${JSON.stringify(directives)} ${honoursRefresh}`);
    }
    const nothing = decide(undefined, NO_REQUEST_DIRECTIVES, NOW, { honoursRefresh: true, targetedFields: [] });
    t.equal(nothing.kind, 'miss');
  },
);

void t.test('max-stale and stale-if-error of a request end where the origin forbids it (4.2.4)', async (t) => {
  for (const [headers, allowed] of [
    [[], true],
    [[['cache-control', 'max-age=1']], true],
    [[['cache-control', 'must-revalidate']], false],
    [[['cache-control', 's-maxage=1']], false],
    [[['cdn-cache-control', 'proxy-revalidate']], false],
    [
      [
        ['cache-control', 'must-revalidate'],
        ['cdn-cache-control', 'max-age=1'],
      ],
      true,
    ],
  ] as readonly (readonly [HeaderList, boolean])[]) {
    const entry = { ...ENTRY, headers, revalidateUntil: ENTRY.staleAt, errorUntil: ENTRY.staleAt };
    const rules = { honoursRefresh: true, targetedFields: ['cdn-cache-control'] };
    const wish = { ...NO_REQUEST_DIRECTIVES, maxStaleMs: 60_000, staleIfErrorMs: 60_000 };
    const at = ENTRY.staleAt + 1_000;
    t.equal(decide(entry, wish, at, rules).kind, allowed ? 'hit_stale' : 'revalidate', JSON.stringify(headers));
    const failed = decideFailure(entry, { kind: 'none' }, wish, at, rules).kind;
    t.equal(failed, allowed ? 'serve_stale' : 'pass_on', JSON.stringify(headers));
  }
});

void t.test('nothing that is stored, or nothing any more, replaces a failure', async (t) => {
  const rules = { targetedFields: [] };
  for (const failure of [{ kind: 'none' }, { kind: 'status', status: 500 }] as const) {
    const at = (entry: DecidableEntry | undefined, now: number): string =>
      decideFailure(entry, failure, NO_REQUEST_DIRECTIVES, now, rules).kind;
    t.equal(at(undefined, NOW), 'pass_on');
    const ending = { ...ENTRY, deleteAt: NOW };
    t.strictSame([at(ending, NOW - 1), at(ending, NOW)], ['serve_stale', 'pass_on']);
  }
});

function times(
  headers: HeaderList,
  rules: Partial<FreshnessRules> = {},
  override = NO_OVERRIDE,
  delayMs = 0,
): Freshness {
  const response = { status: 200, headers, requestedAt: NOW - delayMs, receivedAt: NOW };
  return freshness(
    response,
    governingDirectives(headers, RULES.targetedFields),
    { ...RULES, ...rules },
    'age',
    override,
  );
}

void t.test('lifetimes and ages are exact at their bounds', async (t) => {
  const whole = times([['cache-control', 'max-age=5, stale-while-revalidate=7, stale-if-error=9']]);
  t.strictSame(whole, { bornAt: NOW, staleAt: NOW + 5_000, revalidateUntil: NOW + 12_000, errorUntil: NOW + 14_000 });
  const shortest = times([], {}, { ...NO_OVERRIDE, ttlMs: 1 });
  t.strictSame(shortest, { bornAt: NOW, staleAt: NOW + 1, revalidateUntil: NOW + 3_001, errorUntil: NOW + 6_001 });
  const never = times([], {}, { ...NO_OVERRIDE, ttlMs: 0 });
  t.strictSame(never, { bornAt: NOW, staleAt: NOW, revalidateUntil: NOW, errorUntil: NOW });
  const late = times(
    [
      ['cache-control', 'max-age=5'],
      ['age', '2'],
    ],
    {},
    NO_OVERRIDE,
    1_500,
  );
  t.strictSame([late.bornAt, late.staleAt], [NOW - 3_500, NOW + 1_500]);

  const future: HeaderList = [['last-modified', formatHttpDate(NOW + 60_000)]];
  t.equal(times(future, { heuristicShare: 1 }).staleAt, NOW, 'a change in the future gives no lifetime');
  const changed: HeaderList = [['last-modified', formatHttpDate(NOW - 60_000)]];
  t.equal(times(changed, { heuristicShare: 1 }).staleAt, NOW + 60_000);
  t.equal(times(changed, { heuristicShare: 1, heuristicMaxMs: 59_999 }).staleAt, NOW + 59_999);

  t.strictSame([ageMs({ bornAt: NOW }, NOW), ageMs({ bornAt: NOW + 9 }, NOW)], [0, 0]);
  t.strictSame([ageSeconds({ bornAt: NOW - 5_000 }, NOW), ageSeconds({ bornAt: NOW - 5_999 }, NOW)], [5, 5]);
});

void t.test('an age that is not known is older than the longest lifetime', async (t) => {
  for (const age of ['abc', '-1', '', '0, 0']) {
    const { bornAt, staleAt } = times(
      [
        ['cache-control', 'max-age=2147483648'],
        ['age', age],
      ],
      { malformedAge: 'stale' },
    );
    t.ok(staleAt < NOW, age);
    t.ok(Number.isSafeInteger(bornAt), age);
  }
});

function store(
  headers: HeaderList,
  request: Partial<StorableRequest> = {},
  { status = 200, mode = 'off', now = NOW }: { status?: number; mode?: CacheMode; now?: number } = {},
): Storable {
  return storable({
    request: { method: 'GET', header: () => undefined, ...request },
    response: { status, headers: [['date', formatHttpDate(NOW)], ...headers], requestedAt: NOW, receivedAt: NOW },
    now,
    rules: { mode, freshness: RULES, incomplete: true, setCookie: 'if_shared' },
  });
}

const FRESH = ['cache-control', 'max-age=60'] as const;
const told = (outcome: Storable): string => (outcome.kind === 'refuse' ? outcome.reason : outcome.kind);

void t.test('only a POST that names its own target is stored, and no other method is (RFC 9110 9.3.3)', async (t) => {
  const cases: readonly (readonly [Partial<StorableRequest>, HeaderList, string])[] = [
    [{ method: 'POST', uri: 'http://a/b' }, [FRESH, ['content-location', 'http://a/b']], 'store'],
    [{ method: 'PUT', uri: 'http://a/b' }, [FRESH, ['content-location', '/b']], 'method'],
    [{ method: 'POST' }, [FRESH, ['content-location', 'http://a/b']], 'method'],
    [{ method: 'POST', uri: 'http://a/undefined' }, [FRESH], 'method'],
    [
      { method: 'POST', uri: 'http://a/b' },
      [
        ['cache-control', 's-maxage=60'],
        ['content-location', '/b'],
      ],
      'store',
    ],
    [
      { method: 'POST', uri: 'http://a/b' },
      [
        ['expires', formatHttpDate(NOW + 9_000)],
        ['content-location', '/b'],
      ],
      'store',
    ],
    [
      { method: 'POST', uri: 'http://a/b' },
      [
        ['cache-control', 'public'],
        ['content-location', '/b'],
      ],
      'no_freshness',
    ],
  ];
  for (const [request, headers, outcome] of cases)
    t.equal(told(store(headers, request)), outcome, JSON.stringify([request, headers]));
});

void t.test('a lifetime is stated by max-age, s-maxage, or Expires where no targeted field replaces it', async (t) => {
  const expires = ['expires', formatHttpDate(NOW + 9_000)] as const;
  const cases: readonly (readonly [HeaderList, string])[] = [
    [[['cache-control', 's-maxage=60']], 'store'],
    [[FRESH], 'store'],
    [[expires], 'store'],
    [[['cdn-cache-control', 'must-revalidate'], expires], 'no_freshness'],
    [[], 'no_freshness'],
  ];
  for (const [headers, outcome] of cases)
    t.equal(told(store(headers, {}, { status: 403 })), outcome, JSON.stringify(headers));
});

void t.test('a range is told from a whole by the status alone', async (t) => {
  const range: HeaderList = [FRESH, ['etag', '"a"'], ['content-range', 'bytes 0-4/10'], ['content-length', '5']];
  const whole = store(range);
  t.equal(whole.kind, 'store');
  t.match(whole, { head: { status: 200, sizeBytes: 5 } });
  const part = store(range, {}, { status: 206 });
  t.match(part, { kind: 'store_range', head: { status: 200, sizeBytes: 10 }, span: { first: 0, last: 4 } });
  const unmeasured = range.filter(([name]) => name !== 'content-length');
  t.equal(store(unmeasured, {}, { status: 206 }).kind, 'store_range');
  t.equal(told(store([...unmeasured, ['content-length', '4']], {}, { status: 206 })), 'partial');
  t.equal(told(store([FRESH], {}, { status: 600 })), 'status');
});

void t.test(
  'a digest of the content is that of the whole only where the content is the whole (RFC 9530 2)',
  async (t) => {
    const sha256 = '0f'.repeat(32);
    const digest = `sha-256=:${Buffer.from(sha256, 'hex').toString('base64')}:`;
    const range: HeaderList = [FRESH, ['etag', '"a"'], ['content-range', 'bytes 0-4/10']];
    const stored = (headers: HeaderList, status: number): unknown => {
      const outcome = store(headers, {}, { status });
      return outcome.kind === 'refuse' ? outcome.reason : outcome.head.sha256;
    };
    t.equal(stored([FRESH, ['content-digest', digest]], 200), sha256);
    t.equal(stored([FRESH, ['repr-digest', digest]], 200), sha256);
    t.equal(stored([...range, ['content-digest', digest]], 206), null);
    t.equal(stored([...range, ['repr-digest', digest]], 206), sha256);
    t.equal(stored([FRESH], 200), null);
  },
);

void t.test('what is stale on arrival is stored until it is of no use (3)', async (t) => {
  const stale: HeaderList = [['cache-control', 'max-age=0, stale-if-error=5']];
  t.equal(told(store(stale, {}, { now: NOW + 4_999 })), 'store');
  t.equal(told(store(stale, {}, { now: NOW + 5_000 })), 'no_use');
  for (const validator of [
    ['etag', '"a"'],
    ['last-modified', formatHttpDate(NOW)],
  ] as const) {
    t.equal(
      told(store([...stale, validator], {}, { now: NOW + 5_000 })),
      'store',
      'with a validator it can be validated',
    );
  }
  const ends: HeaderList = [FRESH, ['sunset', formatHttpDate(NOW + 5_000)]];
  t.equal(told(store(ends, {}, { mode: 'media', now: NOW + 4_999 })), 'store');
  t.equal(told(store(ends, {}, { mode: 'media', now: NOW + 5_000 })), 'ended');
  t.equal(told(store(ends, {}, { now: NOW + 5_000 })), 'store', 'of any other origin it is a field like others');
  const head = store(ends, {}, { mode: 'media' });
  t.match(head, {
    head: { staleAt: NOW + 5_000, revalidateUntil: NOW + 5_000, errorUntil: NOW + 5_000, deleteAt: NOW + 5_000 },
  });
});

void t.test(
  'only the fields that a directive names are left out, whatever their names (5.2.2.4, 5.2.2.7)',
  async (t) => {
    const letters: HeaderList = 'abelnov'.split('').map((name) => [name, '1']);
    const keptWith = (cacheControl: string): string => {
      const outcome = store([['cache-control', cacheControl], ['etag', '"x"'], ...letters]);
      if (outcome.kind !== 'store') throw new Error(cacheControl);
      return outcome.head.headers.flatMap(([name]) => (name.length === 1 ? [name] : [])).join('');
    };
    t.equal(keptWith('max-age=60'), 'abelnov');
    t.equal(keptWith('max-age=60, no-cache'), 'abelnov');
    t.equal(keptWith('max-age=60, no-cache="b", private="e, v"'), 'alno');
  },
);

void t.test('a Date that is missing or no date is replaced by the instant of arrival (RFC 9110 6.6.1)', async (t) => {
  for (const [date, stored] of [
    ['foo', formatHttpDate(NOW)],
    [formatHttpDate(NOW - 9_000), formatHttpDate(NOW - 9_000)],
  ] as const) {
    const outcome = storable({
      request: { method: 'GET', header: () => undefined },
      response: { status: 200, headers: [['date', date], FRESH], requestedAt: NOW, receivedAt: NOW },
      now: NOW,
      rules: { mode: 'off', freshness: RULES, incomplete: false, setCookie: 'if_shared' },
    });
    if (outcome.kind !== 'store') throw new Error(outcome.kind);
    t.strictSame(
      outcome.head.headers.filter(([name]) => name === 'date'),
      [['date', stored]],
    );
  }
});

void t.test('a tag without quotes is compared as it is, and names nothing beside others', async (t) => {
  const stored = (headers: HeaderList, bornAt = 0) => ({ headers, bornAt });
  const bare = stored([['etag', 'bare']]);
  t.strictSame(identify([bare], [['etag', 'bare']]), { kind: 'update', entries: [bare] });
  t.strictSame(identify([bare], [['etag', 'other']]), { kind: 'contradicts' });
  t.strictSame(preconditions([bare], false), []);
  const dated = stored([
    ['etag', 'W/"a"'],
    ['last-modified', formatHttpDate(NOW)],
  ]);
  const other = formatHttpDate(NOW - 1_000);
  t.strictSame(
    identify(
      [dated],
      [
        ['etag', 'W/"a"'],
        ['last-modified', other],
      ],
    ),
    { kind: 'contradicts' },
  );
  t.strictSame(identify([dated], [['last-modified', other]]), { kind: 'contradicts' });
  const [old, young] = [stored(dated.headers, 1), stored(dated.headers, 2)];
  t.strictSame(identify([young, old], [['etag', 'W/"a"']]), { kind: 'update', entries: [young] }, 'in whatever order');
});

void t.test('a HEAD says the same of a stored response only if all that both say is equal (4.3.5)', async (t) => {
  const judge = (stored: HeaderList, sizeBytes: number | null, headers: HeaderList): string =>
    judgeByHead({ headers: stored, sizeBytes }, { status: 200, headers, requestedAt: NOW, receivedAt: NOW });
  const tag = ['etag', '"a"'] as const;
  t.equal(judge([tag], 5, [tag, ['content-length', '6']]), 'stale');
  t.equal(
    judge([tag, ['content-length', '9']], 5, [tag, ['content-length', '5']]),
    'freshen',
    'what was received counts',
  );
  t.equal(judge([tag], null, [tag, ['content-length', '5']]), 'stale');
  t.equal(judge([['last-modified', 'x']], null, [['last-modified', 'x']]), 'freshen');
  t.equal(judge([tag], null, [['last-modified', 'x'], tag]), 'stale');
});

void t.test('of several stored responses the newest that fits is selected, in whatever order they come', async (t) => {
  const entry = (bornAt: number, language: string, accepted = 'en, de') => ({
    bornAt,
    selectedBy: { 'accept-language': normalise('accept-language', accepted), foo: normalise('foo', '1') },
    headers: [['content-language', language]] as HeaderList,
  });
  const request = (fields: Readonly<Record<string, string>>) => ({ header: (name: string) => fields[name] });
  const [old, young, english] = [entry(1, 'de'), entry(2, 'DE'), entry(3, 'en')];
  const preferring = request({ 'accept-language': 'de', foo: '1' });
  t.equal(selectStored([young, old, english], preferring), young);
  t.equal(selectStored([old, english, young], preferring), young);
  t.equal(selectStored([old], request({ 'accept-language': 'de', foo: '2' })), undefined);
  t.equal(selectStored([old], request({ foo: '1' })), undefined, 'it prefers no language');
  t.equal(selectStored([old], request({ 'accept-language': 'fr;q=0.9, de;q=0.9', foo: '1' })), undefined);
  t.equal(selectStored([old], request({ 'accept-language': 'fr;q=0.8, de;q=0.9, it;q=0.9, de;q=1', foo: '1' })), old);
  const silent = { ...old, headers: [] };
  t.equal(selectStored([silent], preferring), undefined, 'it does not say its language');
  const exact = entry(0, 'fr', 'de');
  t.equal(selectStored([young, exact], preferring), exact, 'an equal field counts before a preference');
  t.equal(headerOf(exact.headers, 'content-language'), 'fr');
});
