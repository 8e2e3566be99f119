/** Field lists, forwarded fields, Cache-Control in all its forms, Accept: tables by section of the RFCs, and properties. */
import * as fc from 'fast-check';
import t from 'tap';
import { chooseType } from '../../../src/http/accept.js';
import {
  type FieldScope,
  governingDirectives,
  NO_REQUEST_DIRECTIVES,
  parseDeltaSeconds,
  type RequestDirectives,
  type ResponseDirectives,
  requestDirectives,
  responseDirectives,
  targetedDirectives,
} from '../../../src/http/cache-control.js';
import {
  endToEnd,
  fieldLines,
  fieldValue,
  forwardsInterim,
  isLooping,
  listMembers,
  withCdnLoop,
  withVia,
} from '../../../src/http/fields.js';
import type { HeaderList } from '../../../src/http/reply.js';

const NOTHING_SAID = responseDirectives('');

void t.test(
  'several lines of a field are one value, and lists are split outside quotes only (RFC 9110 5.3, 5.6.1)',
  async (t) => {
    const headers: HeaderList = [
      ['a', '1'],
      ['b', 'x'],
      ['a', '2, 3'],
    ];
    t.equal(fieldValue(headers, 'a'), '1, 2, 3');
    t.equal(fieldValue(headers, 'c'), undefined);
    t.strictSame(fieldLines(headers, 'a'), ['1', '2, 3']);
    for (const [value, members] of [
      ['', []],
      [' , ,, ', []],
      ['a', ['a']],
      [' a ,\tb,', ['a', 'b']],
      ['a="1, 2", b', ['a="1, 2"', 'b']],
      [String.raw`a="\", x", b`, [String.raw`a="\", x"`, 'b']],
      ['a="1, b', ['a="1, b']],
      ['"', ['"']],
    ] as const) {
      t.strictSame(listMembers(value), members, JSON.stringify(value));
    }
  },
);

void t.test(
  'fields of one connection, and those that Connection names, are not forwarded (RFC 9110 7.6.1)',
  async (t) => {
    const crossing = (headers: HeaderList): string[] => endToEnd(headers).map(([name]) => name);
    for (const name of [
      'connection',
      'keep-alive',
      'proxy-connection',
      'te',
      'trailer',
      'transfer-encoding',
      'upgrade',
      'http2-settings',
      'proxy-authenticate',
      'proxy-authorization',
      'proxy-authentication-info',
    ]) {
      t.strictSame(
        crossing([
          [name, 'x'],
          ['etag', '"a"'],
        ]),
        ['etag'],
        name,
      );
    }
    t.strictSame(
      crossing([
        ['connection', 'A, close'],
        ['a', '1'],
        ['connection', ' b'],
        ['b', '2'],
        ['close', '3'],
        ['c', '4'],
      ]),
      ['c'],
    );
    t.strictSame(
      crossing([
        ['connection', 'cache-control, set-cookie, content-length, x'],
        ['cache-control', 'private'],
        ['set-cookie', 'a=b'],
        ['content-length', '5'],
        ['x', '1'],
      ]),
      ['cache-control', 'set-cookie', 'content-length'],
      'Connection cannot remove privacy or length from an answer',
    );
    const plain: HeaderList = [['etag', '"a"']];
    t.equal(endToEnd(plain), plain, 'a list without such fields is not copied');
  },
);

void t.test('Via lists every hop, and shows a loop (RFC 9110 7.6.3)', async (t) => {
  t.strictSame(withVia([['a', '1']], '1.1', 'edge'), [
    ['a', '1'],
    ['via', '1.1 edge'],
  ]);
  t.strictSame(
    withVia(
      [
        ['via', '1.0 fred'],
        ['a', '1'],
        ['via', '1.1 p.example (x)'],
      ],
      '2.0',
      'edge',
    ),
    [
      ['a', '1'],
      ['via', '1.0 fred, 1.1 p.example (x), 2.0 edge'],
    ],
  );
});

void t.test('a request that names this hop among its hops goes round (RFC 9110 7.6.3, RFC 8586)', async (t) => {
  for (const [via, cdnLoop, looping] of [
    ['1.0 fred, 1.1  EDGE (some, comment)', undefined, true],
    ['1.0 fred, 1.1 edge-2', undefined, false],
    [undefined, undefined, false],
    [undefined, 'other; v=1, Edge; abc=", edge"', true],
    [undefined, 'other.example:80, edge-2; x="edge, "', false],
    ['1.1 other', 'edge', true],
  ] as const) {
    const header = (name: string): string | undefined => ({ via, 'cdn-loop': cdnLoop })[name];
    t.equal(isLooping(header, 'edge'), looping, `${String(via)} / ${String(cdnLoop)}`);
  }
  t.strictSame(
    withCdnLoop(
      [
        ['cdn-loop', 'a; v=1'],
        ['x', '1'],
        ['cdn-loop', 'b'],
      ],
      'edge',
    ),
    [
      ['x', '1'],
      ['cdn-loop', 'a; v=1, b, edge'],
    ],
    'earlier hops stay',
  );
  const named: HeaderList = [
    ['connection', 'cdn-loop, via'],
    ['cdn-loop', 'a'],
    ['via', '1.1 a'],
  ];
  t.strictSame(endToEnd(named), named.slice(1), 'Connection cannot remove them');
});

void t.test('interim answers are forwarded to clients that know them (RFC 9110 15.2)', async (t) => {
  t.strictSame(
    [100, 101, 102, 103, 199, 200].filter((status) => forwardsInterim(status, '1.1')),
    [102, 103, 199],
  );
  t.notOk(forwardsInterim(103, '1.0'));
});

void t.test('delta-seconds are digits, and never overflow (RFC 9111 1.2.2)', async (t) => {
  for (const [text, ms] of [
    ['0', 0],
    ['1', 1_000],
    ['003600', 3_600_000],
    ['2147483647', 2_147_483_647_000],
    ['2147483648', 2_147_483_648_000],
    ['2147483649', 2_147_483_648_000],
    ['99999999999999999999999999', 2_147_483_648_000],
    ['', undefined],
    ['-1', undefined],
    ['+1', undefined],
    ['1.0', undefined],
    ['1e3', undefined],
    ['0x10', undefined],
    [' 1', undefined],
    ['१', undefined],
  ] as const) {
    t.equal(parseDeltaSeconds(text), ms, JSON.stringify(text));
  }
});

void t.test('directives of responses are read in every form (RFC 9111 5.2.2)', async (t) => {
  const cases: readonly (readonly [string, Partial<ResponseDirectives>])[] = [
    ['', {}],
    ['max-age=5', { maxAgeMs: 5_000 }],
    ['MaX-aGe=5', { maxAgeMs: 5_000 }],
    ['max-age="5"', { maxAgeMs: 5_000 }],
    ['s-maxage=5, max-age=1', { sMaxageMs: 5_000, maxAgeMs: 1_000 }],
    ['foo, max-age=5,bar=baz', { maxAgeMs: 5_000 }],
    ['public, must-revalidate', { public: true, mustRevalidate: true }],
    ['proxy-revalidate', { proxyRevalidate: true }],
    ['must-understand, no-store', { mustUnderstand: true, noStore: true }],
    ['no-transform,immutable', {}],
    ['provisional', { provisional: true }],
    ['provisional=1', {}],
    ['stale-while-revalidate=5, stale-if-error=6', { staleWhileRevalidateMs: 5_000, staleIfErrorMs: 6_000 }],
    // Quoted text is an argument, never directives
    ['ext="max-age=3600", max-age=1', { maxAgeMs: 1_000 }],
    ['max-age=1, ext="no-store, private"', { maxAgeMs: 1_000 }],
    ['ext="max-age=1', {}],
    // 4.2.1: an invalid lifetime is stale
    ['max-age', { maxAgeMs: 0 }],
    ['max-age=', { maxAgeMs: 0 }],
    ['max-age=-5', { maxAgeMs: 0 }],
    ['max-age=5.0', { maxAgeMs: 0 }],
    ['max-age=a5', { maxAgeMs: 0 }],
    ['max-age=5a', { maxAgeMs: 0 }],
    ["max-age='5'", { maxAgeMs: 0 }],
    ['max-age =5', { maxAgeMs: 0 }],
    ['max-age= 5', { maxAgeMs: 0 }],
    ['max-age="5', { maxAgeMs: 0 }],
    ['max-age="5"x', { maxAgeMs: 0 }],
    ['s-maxage', { sMaxageMs: 0 }],
    ['stale-if-error=x', { staleIfErrorMs: 0 }],
    // 4.2.1: several that agree count as one, several that differ are stale
    ['max-age=5, max-age=5', { maxAgeMs: 5_000 }],
    ['max-age=5, max-age=6', { maxAgeMs: 0 }],
    ['max-age=6, max-age=5', { maxAgeMs: 0 }],
    ['max-age=5, max-age=x', { maxAgeMs: 0 }],
    // A restriction counts with any argument, a permission only without one
    ['no-store=x', { noStore: true }],
    ['must-revalidate=0', { mustRevalidate: true }],
    ['no-store =1', { noStore: true }],
    ['public=x', {}],
    ['must-understand=1', {}],
    // Fields
    ['no-cache', { noCache: 'all' }],
    ['no-cache="a"', { noCache: ['a'] }],
    ['no-cache="A, b"', { noCache: ['a', 'b'] }],
    ['no-cache=a', { noCache: ['a'] }],
    ['private="set-cookie", no-cache="x"', { private: ['set-cookie'], noCache: ['x'] }],
    ['no-cache="a", no-cache="b"', { noCache: ['a', 'b'] }],
    ['no-cache="a", no-cache', { noCache: 'all' }],
    ['private, private="a"', { private: 'all' }],
    ['private=""', { private: 'all' }],
    ['private=', { private: 'all' }],
    ['private="a b"', { private: 'all' }],
    ['private="a', { private: 'all' }],
    ['private ="a"', { private: 'all' }],
    ['private= "a"', { private: 'all' }],
  ];
  for (const [value, expected] of cases) {
    t.strictSame(responseDirectives(value), { ...NOTHING_SAID, ...expected }, JSON.stringify(value));
  }
});

void t.test('targeted fields that are not dictionaries count as missing (RFC 9213 2.1)', async (t) => {
  const cases: readonly (readonly [string, Partial<ResponseDirectives> | undefined])[] = [
    ['max-age=60', { maxAgeMs: 60_000 }],
    ['public, max-age=60, stale-while-revalidate=5', { public: true, maxAgeMs: 60_000, staleWhileRevalidateMs: 5_000 }],
    ['max-age=99999999999', { maxAgeMs: 2_147_483_648_000 }],
    ['max-age=1, max-age=2', { maxAgeMs: 2_000 }],
    ['foo, max-age=5', { maxAgeMs: 5_000 }],
    ['max-age=5;x=y', { maxAgeMs: 5_000 }],
    ['no-store=?0, max-age=5', { maxAgeMs: 5_000 }],
    ['no-store=1', { noStore: true }],
    ['private="set-cookie"', { private: ['set-cookie'] }],
    ['private, no-cache=x', { private: 'all', noCache: ['x'] }],
    ['max-age="60"', { maxAgeMs: 0 }],
    ['max-age=-1', { maxAgeMs: 0 }],
    ['max-age=1.5', { maxAgeMs: 0 }],
    ['max-age', { maxAgeMs: 0 }],
    ['max-age=tok', { maxAgeMs: 0 }],
    ['max-age=(1 2)', { maxAgeMs: 0 }],
    ['private=:AA==:', { private: 'all' }],
    ['foo', {}],
    ['', undefined],
    ['MaX-aGe=60', undefined],
    ['max-age =60', undefined],
    ['max-age= 60', undefined],
    ['max-age=60, &&&', undefined],
    ['max-age=60,', undefined],
    ["max-age='60'", undefined],
  ];
  for (const [value, expected] of cases) {
    t.strictSame(targetedDirectives(value), expected && { ...NOTHING_SAID, ...expected }, JSON.stringify(value));
  }
});

void t.test('the first valid field of the target list governs alone (RFC 9213 2.2)', async (t) => {
  const govern = (headers: HeaderList, targets = ['a-cache-control', 'cdn-cache-control']) => {
    const { directives, from } = governingDirectives(headers, targets);
    return [from, directives.maxAgeMs, directives.noStore];
  };
  const plain = ['cache-control', 'max-age=1, no-store'] as const;
  t.strictSame(govern([plain]), ['cache_control', 1_000, true]);
  t.strictSame(govern([]), ['nowhere', undefined, false]);
  t.strictSame(govern([plain, ['cdn-cache-control', 'max-age=5']]), ['targeted', 5_000, false]);
  t.strictSame(govern([plain, ['cdn-cache-control', 'max-age=5'], ['a-cache-control', 'max-age=9']]), [
    'targeted',
    9_000,
    false,
  ]);
  t.strictSame(govern([plain, ['cdn-cache-control', 'max-age=5'], ['a-cache-control', '!']]), [
    'targeted',
    5_000,
    false,
  ]);
  t.strictSame(govern([plain, ['cdn-cache-control', '']]), ['cache_control', 1_000, true]);
  t.strictSame(govern([plain, ['cdn-cache-control', 'max-age=5']], []), ['cache_control', 1_000, true]);
  t.strictSame(
    govern([
      ['cdn-cache-control', 'max-age=5'],
      ['cdn-cache-control', 'no-store'],
    ]),
    ['targeted', 5_000, true],
    'several lines are one dictionary',
  );
});

void t.test('directives of requests are read in every form (RFC 9111 5.2.1, 5.4)', async (t) => {
  const cases: readonly (readonly [string | undefined, string | undefined, Partial<RequestDirectives>])[] = [
    [undefined, undefined, {}],
    ['no-cache', undefined, { noCache: true }],
    ['no-cache=x', undefined, { noCache: true }],
    ['NO-STORE, only-if-cached', undefined, { noStore: true, onlyIfCached: true }],
    ['max-age=5', undefined, { maxAgeMs: 5_000 }],
    ['max-age="5"', undefined, { maxAgeMs: 5_000 }],
    ['max-age=5, max-age=3', undefined, { maxAgeMs: 3_000 }],
    ['max-age', undefined, {}],
    ['max-age=x', undefined, {}],
    ['max-age=-1', undefined, {}],
    ['min-fresh=5, min-fresh=9', undefined, { minFreshMs: 9_000 }],
    ['max-stale', undefined, { maxStaleMs: Number.POSITIVE_INFINITY }],
    ['max-stale=5', undefined, { maxStaleMs: 5_000 }],
    ['max-stale, max-stale=5', undefined, { maxStaleMs: 5_000 }],
    ['max-stale=x', undefined, {}],
    ['stale-if-error=5', undefined, { staleIfErrorMs: 5_000 }],
    ['nothing-to-see-here', undefined, {}],
    [undefined, 'no-cache', { noCache: true }],
    [undefined, 'foo, No-Cache', { noCache: true }],
    [undefined, 'foo', {}],
    ['max-age=5', 'no-cache', { maxAgeMs: 5_000 }],
    ['', 'no-cache', {}],
  ];
  for (const [cacheControl, pragma, expected] of cases) {
    const fields: Record<string, string | undefined> = { 'cache-control': cacheControl, pragma };
    const read = requestDirectives({ header: (name) => fields[name] });
    t.strictSame(read, { ...NO_REQUEST_DIRECTIVES, ...expected }, `${cacheControl} ${pragma}`);
  }
  t.equal(
    requestDirectives({ header: () => undefined }),
    NO_REQUEST_DIRECTIVES,
    'no object is made for a request without directives',
  );
});

void t.test('Accept chooses by weight, then by the order of the offered types (RFC 9110 12.5.1)', async (t) => {
  const offered = ['image/avif', 'image/webp', 'image/jpeg'];
  const cases: readonly (readonly [string | undefined, string | undefined])[] = [
    [undefined, 'image/avif'],
    ['', 'image/avif'],
    ['*/*', 'image/avif'],
    ['image/*', 'image/avif'],
    ['image/webp', 'image/webp'],
    ['IMAGE/WebP', 'image/webp'],
    ['image/jpeg, image/webp', 'image/webp'],
    ['image/webp;q=0.5, image/jpeg;q=0.6', 'image/jpeg'],
    ['image/webp ; q=0.5 , image/jpeg', 'image/jpeg'],
    ['image/avif;q=0, */*', 'image/webp'],
    ['image/*;q=0.5, image/jpeg', 'image/jpeg'],
    ['image/jpeg;q=0.1, image/*;q=0.5, */*;q=0.9', 'image/avif'],
    ['image/*;q=0, */*', undefined],
    ['text/html', undefined],
    ['image/webp;q=0', undefined],
    ['image/webp;q=0.001', 'image/webp'],
    ['image/webp;Q=1.000;ext=1', 'image/webp'],
    // A range with parameters covers no offered type; one with a malformed weight is ignored
    ['image/webp;a=b, image/jpeg', 'image/jpeg'],
    ['image/webp;q=2, image/jpeg;q=0.1', 'image/jpeg'],
    ['image/webp;q=, image/jpeg;q=0.1', 'image/jpeg'],
    ['image/webp;q=0.1234, image/jpeg;q=0.1', 'image/jpeg'],
    ['webp, image/jpeg', 'image/jpeg'],
    [',,image/jpeg,', 'image/jpeg'],
    ['junk', 'image/avif'],
  ];
  for (const [accept, expected] of cases) t.equal(chooseType(accept, offered), expected, String(accept));
});

void t.test('a wildcard does not cover a type that must be named', async (t) => {
  const choose = (accept: string | undefined) => chooseType(accept, ['image/webp', 'image/jpeg'], ['image/webp']);
  t.equal(choose('*/*'), 'image/jpeg');
  t.equal(choose(undefined), 'image/jpeg');
  t.equal(choose('image/*, */*;q=0.8'), 'image/jpeg');
  t.equal(choose('image/webp, */*;q=0.8'), 'image/webp');
  t.equal(choose('image/webp;q=0.5, */*;q=0.8'), 'image/jpeg');
});

const names = [
  'max-age',
  's-maxage',
  'no-cache',
  'private',
  'public',
  'no-store',
  'stale-if-error',
  'max-stale',
  'min-fresh',
  'x',
];
const directive = fc.oneof(
  fc.constantFrom(...names),
  fc
    .tuple(fc.constantFrom(...names), fc.oneof(fc.nat().map(String), fc.string(), fc.constant('"a, b"')))
    .map(([name, argument]) => `${name}=${argument}`),
  fc.string({ unit: 'binary' }),
);
const anyValue = fc.array(directive, { maxLength: 6 }).map((members) => members.join(', '));

void t.test('no field value makes a parser throw, or a lifetime negative or infinite', async (t) => {
  fc.assert(
    fc.property(anyValue, (value) => {
      const response = responseDirectives(value);
      const targeted = targetedDirectives(value);
      const request = requestDirectives({ header: (name) => (name === 'cache-control' ? value : undefined) });
      chooseType(value, ['image/webp']);
      endToEnd([['connection', value]]);
      const limits = [
        response.maxAgeMs,
        response.sMaxageMs,
        response.staleIfErrorMs,
        targeted?.maxAgeMs,
        request.maxAgeMs,
        request.minFreshMs,
      ];
      return limits.every((ms) => ms === undefined || (Number.isInteger(ms) && ms >= 0 && ms <= 2 ** 31 * 1_000));
    }),
  );
  t.pass();
});

void t.test('another directive never makes a response more reusable', async (t) => {
  const rank = (scope: FieldScope): number =>
    scope === 'none' ? 0 : scope === 'all' ? Number.POSITIVE_INFINITY : scope.length;
  fc.assert(
    fc.property(anyValue, anyValue, (value, more) => {
      // An unclosed quote would contain the directives after it.
      if (value.includes('"')) return true;
      const before = responseDirectives(value);
      const after = responseDirectives(`${value}, ${more}`);
      return (
        after.noStore >= before.noStore &&
        rank(after.private) >= rank(before.private) &&
        rank(after.noCache) >= rank(before.noCache) &&
        (before.maxAgeMs === undefined || (after.maxAgeMs ?? Number.POSITIVE_INFINITY) <= before.maxAgeMs)
      );
    }),
  );
  t.pass();
});
