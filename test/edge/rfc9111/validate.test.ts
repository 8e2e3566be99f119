/** Selecting, validating, invalidating and telling of stored responses: tables by section, and properties. */
import * as fc from 'fast-check';
import { parseList, Token } from 'structured-headers';
import t from 'tap';
import { cacheStatusOf, type Handling, joinCacheStatus } from '../../../edge/respond/cache-status.js';
import { invalidatedBy } from '../../../edge/rfc9111/invalidate.js';
import { addSpan, combinable, missingOf, rangeField } from '../../../edge/rfc9111/spans.js';
import { type StorableRules, storable } from '../../../edge/rfc9111/storable.js';
import { freshen, identify, judgeByHead, mergeFields, preconditions } from '../../../edge/rfc9111/validate.js';
import { matches, normalise, selectedBy, selectStored, varyNames } from '../../../edge/rfc9111/vary.js';
import { formatHttpDate } from '../../../src/http/date.js';
import { type ByteSpan, spanLength } from '../../../src/http/range.js';
import { type HeaderList, headerOf } from '../../../src/http/reply.js';

const NOW = Date.UTC(2026, 10, 22, 12, 0, 0);
const CHANGED = formatHttpDate(NOW - 86_400_000);

function requesting(fields: Readonly<Record<string, string>>) {
  const given = new Map(Object.entries(fields));
  return { method: 'GET', header: (name: string) => given.get(name) };
}

const RULES: StorableRules = {
  mode: 'off',
  incomplete: false,
  setCookie: 'if_shared',
  freshness: {
    targetedFields: ['cdn-cache-control'],
    heuristicShare: 0.1,
    heuristicMaxMs: 86_400_000,
    staleWhileRevalidateMs: 0,
    staleIfErrorMs: 0,
    malformedAge: 'ignore',
  },
};

void t.test('Vary is read as a list of names (RFC 9110 12.5.5)', async (t) => {
  for (const [values, names] of [
    [[], []],
    [['Accept'], ['accept']],
    [
      ['Foo, bar', 'FOO'],
      ['bar', 'foo'],
    ],
    [[''], []],
    [[' , '], []],
    [['*'], 'any'],
    [['*, *'], 'any'],
    [['', '*'], 'any'],
    [['foo, *'], 'any'],
    [[', *'], 'any'],
  ] as const) {
    t.strictSame(varyNames(values.map((value) => ['vary', value])), names, JSON.stringify(values));
  }
});

void t.test('values with the same meaning have the same normal form, others do not (4.1)', async (t) => {
  const same: readonly (readonly [string, string, string])[] = [
    ['accept-language', 'en, de', 'de, en'],
    ['accept-language', 'en, de', 'eN, De'],
    ['accept-language', 'en, de', ' en ,   de'],
    ['accept-language', 'en;q=0.5, de', 'de;q=1.0, en;q=0.500'],
    ['accept-language', 'en;q=0.5', 'en ; q=0.5'],
    ['accept-language', 'en, en', 'en'],
    ['accept-encoding', 'gzip, br', 'br,GZIP'],
    ['accept', 'text/html;level=1, */*;q=0.1', '*/*;q=0.1,TEXT/html; level=1'],
    ['accept', 'a/b;x="A, B";Y = z', 'A/b;X="A, B";y=z'],
    ['foo', '1, 2', '1,2'],
    ['foo', ' 1 ', '1'],
  ];
  const different: readonly (readonly [string, string | undefined, string | undefined])[] = [
    ['accept-language', 'en, de', 'en'],
    ['accept-language', 'en;q=0.5, de', 'en, de;q=0.5'],
    ['accept-language', 'en;q=0', 'en'],
    ['accept-encoding', 'gzip', undefined],
    ['accept-encoding', '', undefined],
    ['accept', 'a/b;x="A"', 'a/b;x="a"'],
    ['accept', 'a/b;x=A', 'a/b;x=a'],
    ['foo', 'a', 'A'],
    ['foo', '1, 2', '2, 1'],
    ['foo', '"a, b"', '"a,b"'],
    ['foo', 'a  b', 'a b'],
    ['foo', '', undefined],
    ['foo', ' ', undefined],
    ['authorization', 'Bearer a', 'Bearer b'],
    ['cookie', 'a=1; b=2', 'b=2; a=1'],
  ];
  for (const [name, one, other] of same) t.equal(normalise(name, one), normalise(name, other), `${name}: ${one}`);
  for (const [name, one, other] of different) t.not(normalise(name, one), normalise(name, other), `${name}: ${one}`);
  t.equal(normalise('foo', ''), normalise('foo', ' , '));
});

void t.test('secrets and long values are stored as hashes', async (t) => {
  for (const [name, value] of [
    ['authorization', 'Bearer secret'],
    ['cookie', 'session=secret'],
    ['foo', `secret ${'x'.repeat(300)}`],
  ] as const) {
    t.match(normalise(name, value), /^sha256:[0-9a-f]{64}$/, name);
    t.not(normalise(name, value), normalise(name, `${value}2`));
  }
});

void t.test('a request selects the response that was stored for an equal one (4.1)', async (t) => {
  const vary: HeaderList = [['vary', 'Foo, Bar, Baz']];
  const stored = { selectedBy: selectedBy(vary, requesting({ foo: '1', bar: 'abc' })) };
  if (stored.selectedBy === 'never') throw new Error('it does vary');
  const entry = { selectedBy: stored.selectedBy };
  t.ok(matches(entry, requesting({ foo: '1', bar: 'abc', other: '9' })));
  t.notOk(matches(entry, requesting({ foo: '2', bar: 'abc' })));
  t.notOk(matches(entry, requesting({ foo: '1' })), 'the request leaves one out');
  t.notOk(matches(entry, requesting({ foo: '1', bar: 'abc', baz: '3' })), 'the stored request left one out');
  t.notOk(matches(entry, requesting({})));
  t.equal(selectedBy([['vary', '*']], requesting({})), 'never');
  t.ok(matches({ selectedBy: {} }, requesting({ foo: '1' })), 'without Vary any request will do');
  const odd = selectedBy([['vary', '__proto__, constructor']], requesting({}));
  t.strictSame(Object.keys(odd), ['__proto__', 'constructor']);
});

void t.test('the newest response that matches is chosen, or else one in the preferred language', async (t) => {
  const entry = (bornAt: number, selected: Readonly<Record<string, string>>, headers: HeaderList = []) => ({
    bornAt,
    selectedBy: selected,
    headers,
  });
  const old = entry(1, { foo: '1' });
  const young = entry(2, { foo: '1' });
  const other = entry(3, { foo: '2' });
  t.equal(selectStored([old, young, other], requesting({ foo: '1' })), young);
  t.equal(selectStored([old, young, other], requesting({ foo: '3' })), undefined);
  t.equal(selectStored([], requesting({})), undefined);
  const german = entry(1, { 'accept-language': normalise('accept-language', 'en, de') }, [['content-language', 'de']]);
  const preferring = (value: string) => selectStored([german], requesting({ 'accept-language': value }));
  t.equal(preferring('fr;q=0.5, de;q=1.0'), german);
  t.equal(preferring('de'), german);
  t.equal(preferring('fr, de'), undefined, 'several have the same weight');
  t.equal(preferring('de, fr'), undefined);
  t.equal(preferring('fr, de;q=0.9'), undefined);
  t.equal(preferring('de;q=0'), undefined);
  t.equal(selectStored([german], requesting({})), undefined);
  const also = entry(1, { ...german.selectedBy, foo: '1' }, german.headers);
  t.equal(selectStored([also], requesting({ 'accept-language': 'de', foo: '2' })), undefined);
});

interface Stored {
  readonly headers: HeaderList;
  readonly bornAt: number;
}

const stored = (headers: HeaderList, bornAt = 0): Stored => ({ headers, bornAt });

void t.test('a validation names entity tags and the date (4.3.1)', async (t) => {
  const tagged = stored([
    ['etag', '"a"'],
    ['last-modified', CHANGED],
  ]);
  t.strictSame(preconditions([tagged], true), [
    ['if-none-match', '"a"'],
    ['if-modified-since', CHANGED],
  ]);
  t.strictSame(preconditions([stored([['etag', 'W/"a"']])], true), [['if-none-match', 'W/"a"']]);
  t.strictSame(preconditions([stored([['last-modified', CHANGED]])], true), [['if-modified-since', CHANGED]]);
  t.strictSame(preconditions([stored([['etag', 'bare']])], true), [['if-none-match', 'bare']]);
  t.strictSame(preconditions([stored([])], true), []);
  t.strictSame(preconditions([], false), []);
  t.strictSame(
    preconditions([tagged, stored([['etag', '"b"']]), stored([['etag', 'bare']]), stored([['etag', '"a"']])], false),
    [['if-none-match', '"a", "b"']],
    'of several by their tags alone',
  );
  t.strictSame(preconditions([tagged], false), [['if-none-match', '"a"']], 'of another variant too');
  t.strictSame(preconditions([stored([['last-modified', CHANGED]])], false), [], 'which a date does not tell apart');
  const many = Array.from({ length: 20 }, (_, index) => stored([['etag', `"${index}"`]]));
  t.equal(preconditions(many, false)[0]?.[1].split(',').length, 8);
});

void t.test('a 304 updates the response that it names, and nothing else (4.3.4)', async (t) => {
  const a = stored(
    [
      ['etag', '"a"'],
      ['last-modified', CHANGED],
    ],
    1,
  );
  const a2 = stored([['etag', '"a"']], 2);
  const b = stored([['etag', '"b"']], 3);
  const weak = stored([['etag', 'W/"w"']], 4);
  const dated = stored([['last-modified', CHANGED]], 5);
  const bare = stored([], 6);
  const cases: readonly (readonly [string, readonly Stored[], HeaderList, readonly Stored[] | undefined])[] = [
    ['strong', [a, b], [['etag', '"a"']], [a]],
    ['strong, twice', [a, a2, b], [['etag', '"a"']], [a, a2]],
    ['strong, of none', [a, b], [['etag', '"c"']], undefined],
    [
      'strong beats a date that fits',
      [a],
      [
        ['etag', '"c"'],
        ['last-modified', CHANGED],
      ],
      undefined,
    ],
    ['weak', [weak, b], [['etag', 'W/"w"']], [weak]],
    ['weak, of none', [weak], [['etag', 'W/"v"']], undefined],
    ['weak of a strong one', [a, a2], [['etag', 'W/"a"']], [a2]],
    ['date, the newest', [a, dated, b], [['last-modified', CHANGED]], [dated]],
    ['another date', [dated], [['last-modified', formatHttpDate(NOW)]], undefined],
    [
      'weak and another date',
      [weak, a],
      [
        ['etag', 'W/"a"'],
        ['last-modified', formatHttpDate(NOW)],
      ],
      undefined,
    ],
    ['nothing named, one asked', [bare], [], [bare]],
    ['nothing named, one asked by its tag', [a], [], [a]],
    ['nothing named, several asked', [a, b], [], undefined],
    ['nothing asked', [], [], undefined],
    ['a validator where none was stored', [bare], [['last-modified', CHANGED]], undefined],
  ];
  for (const [name, asked, received, expected] of cases) {
    const found = identify(asked, received);
    t.strictSame(found, expected === undefined ? { kind: 'contradicts' } : { kind: 'update', entries: expected }, name);
  }
});

void t.test('newer fields replace stored ones, except those that describe the body (3.2)', async (t) => {
  const merged = mergeFields(
    [
      ['etag', '"a"'],
      ['content-length', '5'],
      ['content-encoding', 'br'],
      ['content-range', 'x'],
      ['content-md5', 'm'],
      ['repr-digest', 'd'],
      ['content-type', 'text/plain'],
      ['date', formatHttpDate(NOW - 9_000)],
      ['age', '7'],
      ['via', '1.1 old'],
      ['set-cookie', 'a=1'],
      ['set-cookie', 'b=1'],
      ['x-kept', '1'],
    ],
    [
      ['etag', '"b"'],
      ['content-length', '0'],
      ['content-encoding', 'gzip'],
      ['content-range', 'y'],
      ['content-md5', 'n'],
      ['repr-digest', 'e'],
      ['content-type', 'text/html'],
      ['connection', 'x-hop'],
      ['x-hop', '1'],
      ['keep-alive', '5'],
      ['set-cookie', 'c=1'],
      ['last-modified', CHANGED],
    ],
  );
  t.strictSame(merged, [
    ['etag', '"a"'],
    ['content-length', '5'],
    ['content-encoding', 'br'],
    ['content-range', 'x'],
    ['content-md5', 'm'],
    ['repr-digest', 'd'],
    ['x-kept', '1'],
    ['content-type', 'text/html'],
    ['set-cookie', 'c=1'],
    ['last-modified', CHANGED],
  ]);
  t.strictSame(
    mergeFields([['a', '1']], [['etag', '"b"']]),
    [
      ['a', '1'],
      ['etag', '"b"'],
    ],
    'a validator that was missing is added',
  );
});

void t.test('a validated response has the lifetime of the newer head', async (t) => {
  const request = { ...requesting({ foo: 'now' }), method: 'GET' };
  const first = storable({
    request: requesting({ foo: 'then' }),
    response: {
      status: 404,
      headers: [
        ['cache-control', 'max-age=5'],
        ['age', '4'],
        ['vary', 'foo'],
        ['etag', '"a"'],
        ['content-length', '5'],
      ],
      requestedAt: NOW - 60_000,
      receivedAt: NOW - 60_000,
    },
    now: NOW - 60_000,
    rules: RULES,
  });
  if (first.kind !== 'store') throw new Error(first.kind);
  const again = (headers: HeaderList) =>
    freshen({
      entry: first.head,
      received: { status: 304, headers, requestedAt: NOW - 1_000, receivedAt: NOW },
      request,
      now: NOW,
      rules: RULES,
    });
  const kept = again([['date', formatHttpDate(NOW)]]);
  if (kept.kind !== 'store') throw new Error(kept.kind);
  t.equal(kept.head.status, 404, 'the status is that of what is stored');
  t.equal(kept.head.bornAt, NOW - 1_000, 'an old Age does not age the new head');
  t.equal(kept.head.staleAt, NOW + 4_000);
  t.equal(kept.head.sizeBytes, 5);
  t.equal(headerOf(kept.head.headers, 'etag'), '"a"');
  t.strictSame({ ...kept.head.selectedBy }, { foo: 'then' }, 'it is still selected by what first asked for it');
  const longer = again([['cache-control', 'max-age=600']]);
  t.equal(longer.kind === 'store' && longer.head.staleAt, NOW - 1_000 + 600_000);
  t.equal(longer.kind === 'store' && headerOf(longer.head.headers, 'date'), formatHttpDate(NOW));
  t.strictSame(again([['cache-control', 'no-store']]), { kind: 'refuse', reason: 'no_store' });
  t.strictSame(again([['vary', '*']]), { kind: 'refuse', reason: 'vary' });
  const moved = again([['vary', 'foo, bar']]);
  t.strictSame(moved.kind === 'store' && Object.keys(moved.head.selectedBy), ['bar', 'foo']);
});

void t.test('a HEAD shows whether the stored response is still the same (4.3.5)', async (t) => {
  const entry = {
    headers: [
      ['etag', '"a"'],
      ['last-modified', CHANGED],
    ] as HeaderList,
    sizeBytes: 5,
  };
  const verdictOf = (headers: HeaderList, status = 200, stored: Parameters<typeof judgeByHead>[0] = entry): string =>
    judgeByHead(stored, { status, headers, requestedAt: NOW, receivedAt: NOW });
  for (const [headers, verdict] of [
    [[], 'stale'],
    [[['etag', '"a"']], 'freshen'],
    [[['content-length', '5']], 'freshen'],
    [
      [
        ['etag', '"a"'],
        ['last-modified', CHANGED],
        ['content-length', '5'],
      ],
      'freshen',
    ],
    [[['etag', '"b"']], 'stale'],
    [[['etag', 'W/"a"']], 'stale'],
    [
      [
        ['etag', '"a"'],
        ['last-modified', formatHttpDate(NOW)],
      ],
      'stale',
    ],
    [[['content-length', '6']], 'stale'],
  ] as const) {
    t.equal(verdictOf(headers), verdict, JSON.stringify(headers));
  }
  t.equal(verdictOf([['etag', '"a"']], 200, { headers: [], sizeBytes: null }), 'stale');
  t.equal(
    verdictOf([['content-length', '5']], 200, { headers: [['content-length', '5']], sizeBytes: null }),
    'freshen',
  );
  for (const status of [204, 304, 404, 410, 500]) t.equal(verdictOf([['etag', '"b"']], status), 'nothing', `${status}`);
});

void t.test('an unsafe request makes invalid what it names on its own origin (4.4)', async (t) => {
  const change = (given: Partial<Parameters<typeof invalidatedBy>[0]> = {}): readonly string[] =>
    invalidatedBy({
      method: 'POST',
      uri: 'http://a.test/x/y?q=1',
      status: 200,
      location: undefined,
      contentLocation: undefined,
      ...given,
    });
  const target = 'http://a.test/x/y?q=1';
  t.strictSame(change(), [target]);
  for (const method of ['PUT', 'DELETE', 'PATCH', 'M-SEARCH', 'UNHEARD-OF']) t.strictSame(change({ method }), [target]);
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'TRACE']) t.strictSame(change({ method }), [], method);
  for (const status of [201, 204, 303, 304]) t.strictSame(change({ status }), [target], `${status}`);
  for (const status of [100, 400, 404, 500, 503]) t.strictSame(change({ status }), [], `${status}`);
  t.strictSame(change({ location: 'z#frag', contentLocation: '/w' }), [target, 'http://a.test/x/z', 'http://a.test/w']);
  t.strictSame(change({ location: target }), [target]);
  for (const location of [
    'http://b.test/x',
    'https://a.test/x',
    'http://a.test:81/x',
    '//b.test/',
    'http://[',
    'data:x',
  ]) {
    t.strictSame(change({ location, contentLocation: location }), [target], location);
  }
  t.strictSame(change({ uri: '/no/origin' }), []);
});

void t.test('Cache-Status says what the cache did, as a structured field (RFC 9211 2)', async (t) => {
  const cacheStatus = cacheStatusOf('edge-1');
  const cases: readonly (readonly [Handling, number | undefined, string])[] = [
    [{ kind: 'hit', detail: 'memory' }, 59_999, 'edge-1; hit; ttl=59; detail=memory'],
    [{ kind: 'hit' }, -1, 'edge-1; hit; ttl=-1'],
    [
      { kind: 'forwarded', reason: 'uri-miss', status: 200, stored: true },
      undefined,
      'edge-1; fwd=uri-miss; fwd-status=200; stored',
    ],
    [
      { kind: 'forwarded', reason: 'stale', status: 304, stored: true, collapsed: true, detail: 'rule 1' },
      60_000,
      'edge-1; fwd=stale; fwd-status=304; ttl=60; stored; collapsed; detail="rule 1"',
    ],
    [{ kind: 'forwarded', reason: 'bypass' }, undefined, 'edge-1; fwd=bypass'],
    [{ kind: 'forwarded', reason: 'miss', stored: false, collapsed: false }, undefined, 'edge-1; fwd=miss'],
    [{ kind: 'hit' }, Number.POSITIVE_INFINITY, 'edge-1; hit; ttl=999999999999999'],
  ];
  for (const [handling, ttlMs, expected] of cases) t.equal(cacheStatus(handling, ttlMs), expected);
  t.equal(cacheStatusOf('Bob’s "edge"\r\n')({ kind: 'hit' }, 0), String.raw`"Bobs \"edge\""; hit; ttl=0`);
  t.equal(joinCacheStatus('origin; hit', 'edge; fwd=miss'), 'origin; hit, edge; fwd=miss');
  t.equal(joinCacheStatus(undefined, 'edge; hit'), 'edge; hit');
});

void t.test('Cache-Status parses as a structured list, whatever names it contains', async (t) => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary' }),
      fc.string({ unit: 'binary' }),
      fc.double({ noNaN: true }),
      (name, detail, ttlMs) => {
        const own = cacheStatusOf(name)({ kind: 'hit', detail }, ttlMs);
        const members = parseList(joinCacheStatus('inner; fwd=miss', own));
        const [, parameters] = members[1] ?? [undefined, new Map()];
        const shown = parameters.get('detail');
        return (
          members.length === 2 &&
          parameters.get('hit') === true &&
          Number.isInteger(parameters.get('ttl')) &&
          (typeof shown === 'string' || shown instanceof Token)
        );
      },
    ),
  );
  t.pass();
});

void t.test('ranges are joined only with the same strong validator (3.4)', async (t) => {
  const range = (etag: string | undefined, sizeBytes: number | null) => ({
    headers: (etag === undefined ? [] : [['etag', etag]]) as HeaderList,
    sizeBytes,
  });
  t.ok(combinable(range('"a"', 9), range('"a"', 9)));
  for (const [one, other] of [
    [range('"a"', 9), range('"b"', 9)],
    [range('W/"a"', 9), range('W/"a"', 9)],
    [range('"a"', 9), range(undefined, 9)],
    [range(undefined, 9), range(undefined, 9)],
    [range('"a"', 9), range('"a"', 8)],
    [range('"a"', null), range('"a"', null)],
  ] as const) {
    t.notOk(combinable(one, other));
  }
  t.equal(rangeField({ first: 5, last: 9 }), 'bytes=5-9');
});

void t.test('spans cover exactly what was added, and the rest is missing', async (t) => {
  const span = fc.tuple(fc.nat(40), fc.nat(12)).map(([first, more]) => ({ first, last: first + more }));
  fc.assert(
    fc.property(fc.array(span, { maxLength: 8 }), span, (added, wanted) => {
      const held = added.reduce<readonly ByteSpan[]>(addSpan, []);
      const model = new Set(added.flatMap(bytesOf));
      const missing = missingOf(held, wanted);
      const lacking = bytesOf(wanted).filter((byte) => !model.has(byte));
      return (
        apart(held) &&
        apart(missing) &&
        held.reduce((sum, each) => sum + spanLength(each), 0) === model.size &&
        held.flatMap(bytesOf).every((byte) => model.has(byte)) &&
        JSON.stringify(missing.flatMap(bytesOf)) === JSON.stringify(lacking)
      );
    }),
  );
  t.pass();
});

function bytesOf({ first, last }: ByteSpan): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

function apart(spans: readonly ByteSpan[]): boolean {
  return spans.every((each, index) => each.first <= each.last && each.first > (spans[index - 1]?.last ?? -2) + 1);
}

void t.test('no field value makes selection or validation throw', async (t) => {
  const value = fc.string({ unit: 'binary' });
  const fields = fc.array(
    fc.tuple(fc.constantFrom('etag', 'last-modified', 'vary', 'date', 'age', 'connection', 'cache-control'), value),
  );
  fc.assert(
    fc.property(fields, fields, value, (one, other, wish) => {
      const request = { method: 'GET', header: () => wish };
      identify([stored(one)], other);
      preconditions([stored(one), stored(other)], false);
      selectedBy(one, request);
      freshen({
        entry: { headers: one, status: 200, selectedBy: {} },
        received: { status: 304, headers: other, requestedAt: NOW, receivedAt: NOW },
        request,
        now: NOW,
        rules: RULES,
      });
      invalidatedBy({ method: 'POST', uri: 'http://a.test/', status: 200, location: wish, contentLocation: wish });
      for (const name of ['accept', 'accept-language', 'cookie', 'foo']) normalise(name, wish);
    }),
  );
  fc.assert(
    fc.property(fc.constantFrom('accept', 'accept-encoding', 'accept-language', 'foo'), value, (name, wish) => {
      // A normal form is stable: normalising it again changes nothing.
      const normal = normalise(name, wish);
      return normal.startsWith('sha256:') || normal === ' ' || normalise(name, normal) === normal;
    }),
  );
  t.pass();
});
