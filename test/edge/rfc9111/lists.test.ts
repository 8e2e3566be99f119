/** Statuses, methods and fields that the cache rules name, each by itself: one that is left out is noticed. */
import t from 'tap';
import { decideFailure, isOriginError, passReason } from '../../../edge/rfc9111/decide.js';
import { freshnessSection, NO_OVERRIDE } from '../../../edge/rfc9111/freshness.js';
import { invalidatedBy } from '../../../edge/rfc9111/invalidate.js';
import { addSpan, combinable, missingOf } from '../../../edge/rfc9111/spans.js';
import { storable } from '../../../edge/rfc9111/storable.js';
import { mergeFields, REPLACED_BY_PRECONDITIONS } from '../../../edge/rfc9111/validate.js';
import { normalise } from '../../../edge/rfc9111/vary.js';
import { parseConfig } from '../../../src/config/load.js';
import { NO_REQUEST_DIRECTIVES } from '../../../src/http/cache-control.js';
import { formatHttpDate } from '../../../src/http/date.js';
import { type HeaderList, headerOf } from '../../../src/http/reply.js';

const NOW = Date.UTC(2026, 10, 22, 12, 0, 0);
const loaded = parseConfig('', { freshness: freshnessSection });
if (loaded.kind !== 'loaded') throw new Error('the defaults are faulty');
const { freshness } = loaded.config;
const EVERY_STATUS = Array.from({ length: 500 }, (_, index) => 100 + index);

function outcomeOf(status: number, headers: HeaderList): string {
  const outcome = storable({
    request: { method: 'GET', header: () => undefined },
    response: { status, headers: [['date', formatHttpDate(NOW)], ...headers], requestedAt: NOW, receivedAt: NOW },
    now: NOW,
    rules: { mode: 'off', freshness, incomplete: true, setCookie: 'if_shared' },
    override: NO_OVERRIDE,
  });
  return outcome.kind === 'refuse' ? outcome.reason : outcome.kind;
}

void t.test('without a lifetime, the statuses of RFC 9110 15.1 are stored and no others', async (t) => {
  const CHANGED: HeaderList = [['last-modified', formatHttpDate(NOW - 86_400_000)]];
  const guessed = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
  for (const status of EVERY_STATUS.filter((each) => each !== 206)) {
    const isFinal = status >= 200 && status !== 304;
    const expected = !isFinal ? 'status' : guessed.includes(status) ? 'store' : 'no_freshness';
    t.equal(outcomeOf(status, CHANGED), expected, String(status));
  }
  const range: HeaderList = [
    ['etag', '"a"'],
    ['content-range', 'bytes 0-4/10'],
    ['content-length', '5'],
  ];
  t.equal(outcomeOf(206, [...CHANGED, ...range]), 'store_range');
});

void t.test('with must-understand, the statuses of the registry are stored and no others (5.2.2.3)', async (t) => {
  const understood = [
    200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409,
    410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 511,
  ];
  const fresh: HeaderList = [['cache-control', 'max-age=60, must-understand']];
  for (const status of EVERY_STATUS) {
    const expected = !understood.includes(status) ? 'status' : status === 206 ? 'partial' : 'store';
    t.equal(outcomeOf(status, fresh), expected, String(status));
  }
});

void t.test('the statuses of RFC 5861 4 are errors, and no others', async (t) => {
  const entry = {
    headers: [],
    bornAt: NOW,
    staleAt: NOW,
    revalidateUntil: NOW,
    errorUntil: NOW + 1,
    deleteAt: NOW + 9,
  };
  for (const status of EVERY_STATUS) {
    const isError = [500, 502, 503, 504].includes(status);
    t.equal(isOriginError(status), isError, String(status));
    const failure = { kind: 'status', status } as const;
    const decision = decideFailure(entry, failure, NO_REQUEST_DIRECTIVES, NOW, freshness);
    t.equal(decision.kind, isError ? 'serve_stale' : 'pass_on', String(status));
  }
});

void t.test('a response may replace an error until the instant it names, not at it (RFC 5861 4)', async (t) => {
  const entry = {
    headers: [],
    bornAt: NOW,
    staleAt: NOW,
    revalidateUntil: NOW,
    errorUntil: NOW,
    deleteAt: NOW + 9_000,
  };
  const decided = (now: number, staleIfErrorMs?: number, deleteAt = entry.deleteAt): string =>
    decideFailure(
      { ...entry, deleteAt },
      { kind: 'none' },
      { ...NO_REQUEST_DIRECTIVES, staleIfErrorMs },
      now,
      freshness,
    ).kind;
  t.equal(decided(NOW - 1), 'serve_stale');
  t.equal(decided(NOW), 'pass_on');
  t.equal(decided(NOW + 999, 1_000), 'serve_stale');
  t.equal(decided(NOW + 1_000, 1_000), 'pass_on');
  t.equal(decided(NOW + 4, 1_000, NOW + 5), 'serve_stale');
  t.equal(decided(NOW + 5, 1_000, NOW + 5), 'pass_on', 'what has ended is not served');
});

void t.test(
  'GET and HEAD alone are answered from the cache; conditions on the state go to the origin (4, 4.3.2)',
  async (t) => {
    const asking = (method: string, ...names: readonly string[]) => ({
      method,
      header: (name: string) => (names.includes(name) ? '"a"' : undefined),
    });
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'QUERY', 'get']) {
      t.equal(passReason(asking(method), 'off'), 'method', method);
      t.equal(passReason(asking(method), 'media'), 'method', method);
    }
    for (const method of ['GET', 'HEAD']) {
      t.equal(passReason(asking(method), 'off'), undefined);
      t.equal(passReason(asking(method, 'if-match'), 'off'), 'precondition');
      t.equal(passReason(asking(method, 'if-unmodified-since'), 'off'), 'precondition');
      t.equal(passReason(asking(method, 'if-match', 'if-unmodified-since'), 'media'), undefined);
      t.equal(passReason(asking(method, 'if-none-match', 'if-modified-since', 'if-range', 'range'), 'off'), undefined);
    }
  },
);

void t.test('a safe method, an error and a status that is not final make nothing invalid (4.4)', async (t) => {
  const uri = 'http://a/b#c';
  const by = (method: string, status: number): readonly string[] =>
    invalidatedBy({ method, uri, status, location: '/d#e', contentLocation: 'http://other/f' });
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'TRACE']) t.strictSame(by(method, 200), [], method);
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'PURGE', 'get']) {
    t.strictSame(by(method, 200), ['http://a/b', 'http://a/d'], method);
  }
  for (const status of [199, 400, 404, 500]) t.strictSame(by('PUT', status), [], String(status));
  for (const status of [200, 204, 303, 399])
    t.strictSame(by('PUT', status), ['http://a/b', 'http://a/d'], String(status));
  t.strictSame(invalidatedBy({ method: 'PUT', uri: 'b', status: 200, location: '/d', contentLocation: '/e' }), []);
});

void t.test('fields that describe the stored body stay, and those of one message go (3.2)', async (t) => {
  const body = [
    'content-digest',
    'content-encoding',
    'content-length',
    'content-md5',
    'content-range',
    'etag',
    'repr-digest',
  ];
  for (const name of body) {
    t.strictSame(mergeFields([[name, 'old']], [[name, 'new']]), [[name, 'old']], name);
    t.strictSame(mergeFields([], [[name, 'new']]), [[name, 'new']], name);
  }
  for (const name of ['age', 'cache-status', 'date', 'via', 'warning']) {
    t.strictSame(mergeFields([[name, 'old']], []), [], name);
    t.strictSame(mergeFields([[name, 'old']], [[name, 'new']]), [[name, 'new']], name);
  }
  for (const name of ['content-type', 'last-modified', 'cache-control', 'sunset', 'x-any']) {
    t.strictSame(mergeFields([[name, 'old']], []), [[name, 'old']], name);
    t.strictSame(mergeFields([[name, 'old']], [[name, 'new']]), [[name, 'new']], name);
  }
});

void t.test('the client’s own conditions are not sent beside those of the cache (4.3.1)', async (t) => {
  t.strictSame([...REPLACED_BY_PRECONDITIONS].sort(), [
    'if-match',
    'if-modified-since',
    'if-none-match',
    'if-range',
    'if-unmodified-since',
    'range',
  ]);
});

void t.test('a range is stored under the head of the whole, without what is true of the range alone', async (t) => {
  const outcome = storable({
    request: { method: 'GET', header: () => undefined },
    response: {
      status: 206,
      headers: [
        ['date', formatHttpDate(NOW)],
        ['cache-control', 'max-age=60'],
        ['etag', '"a"'],
        ['content-range', 'bytes 2-6/10'],
        ['content-length', '5'],
        ['content-digest', 'sha-256=:AAAA:'],
        ['content-type', 'text/plain'],
      ],
      requestedAt: NOW,
      receivedAt: NOW,
    },
    now: NOW,
    rules: { mode: 'off', freshness, incomplete: true, setCookie: 'if_shared' },
  });
  if (outcome.kind !== 'store_range') throw new Error(outcome.kind);
  const { head, span } = outcome;
  t.strictSame(span, { first: 2, last: 6 });
  t.match(head, { status: 200, sizeBytes: 10, sha256: null });
  t.equal(headerOf(head.headers, 'content-length'), '10');
  t.equal(headerOf(head.headers, 'content-type'), 'text/plain');
  for (const name of ['content-range', 'content-digest']) t.equal(headerOf(head.headers, name), undefined, name);
});

void t.test('secrets are never in a key, nor are long values', async (t) => {
  for (const name of ['authorization', 'cookie', 'proxy-authorization']) {
    t.match(normalise(name, 'secret'), /^sha256:[0-9a-f]{64}$/, name);
    t.not(normalise(name, 'secret'), normalise(name, 'Secret'), name);
  }
  t.equal(normalise('x-any', 'a'.repeat(256)), 'a'.repeat(256));
  t.match(normalise('x-any', 'a'.repeat(257)), /^sha256:/);
  t.not(normalise('x-any', undefined), normalise('x-any', ''), 'absent is not empty');
});

void t.test('spans join where they touch, and only there', async (t) => {
  const spans = [
    { first: 2, last: 4 },
    { first: 8, last: 9 },
  ];
  const cases = [
    [{ first: 0, last: 0 }, '0-0 2-4 8-9'],
    [{ first: 0, last: 1 }, '0-4 8-9'],
    [{ first: 5, last: 6 }, '2-6 8-9'],
    [{ first: 6, last: 6 }, '2-4 6-6 8-9'],
    [{ first: 5, last: 7 }, '2-9'],
    [{ first: 3, last: 3 }, '2-4 8-9'],
    [{ first: 10, last: 12 }, '2-4 8-12'],
    [{ first: 11, last: 12 }, '2-4 8-9 11-12'],
  ] as const;
  const written = (list: readonly { readonly first: number; readonly last: number }[]): string =>
    list.map(({ first, last }) => `${first}-${last}`).join(' ');
  for (const [added, expected] of cases) t.equal(written(addSpan(spans, added)), expected, written([added]));
  const wanted = [
    [{ first: 2, last: 4 }, ''],
    [{ first: 1, last: 5 }, '1-1 5-5'],
    [{ first: 4, last: 8 }, '5-7'],
    [{ first: 5, last: 7 }, '5-7'],
    [{ first: 9, last: 11 }, '10-11'],
    [{ first: 0, last: 1 }, '0-1'],
  ] as const;
  for (const [asked, missing] of wanted) t.equal(written(missingOf(spans, asked)), missing, written([asked]));
});

void t.test('ranges are of one representation only with the same strong validator and size (3.4)', async (t) => {
  const part = (etag: string | null, sizeBytes: number | null) => ({
    headers: etag === null ? [] : ([['etag', etag]] as const),
    sizeBytes,
  });
  t.ok(combinable(part('"a"', 5), part('"a"', 5)));
  for (const [stored, received] of [
    [part('"a"', 5), part('"b"', 5)],
    [part('W/"a"', 5), part('W/"a"', 5)],
    [part('"a"', 5), part('"a"', 6)],
    [part('"a"', null), part('"a"', null)],
    [part(null, 5), part('"a"', 5)],
    [part('"a"', 5), part(null, 5)],
    [part(null, 5), part(null, 5)],
  ] as const) {
    t.notOk(combinable(stored, received), JSON.stringify([stored, received]));
  }
});
