/** What a generic cache answers, shares, joins and keeps: whole answers, without sockets. */
import { PassThrough, Readable } from 'node:stream';
import t, { type Test } from 'tap';
import type { EdgeConfig } from '../../../edge/config.js';
import type { UpstreamRequest } from '../../../edge/upstream/request.js';
import { bytesOf, keyOf } from '../../kit/edge/cache.js';
import {
  type Asking,
  type DirectEdge,
  type Got,
  openDirectEdge,
  respondWith,
  type Scripted,
} from '../../kit/edge/direct-edge.js';
import { until } from '../../kit/until.js';

const BYTES = bytesOf(1_000);

async function opened(t: Test, change?: (config: EdgeConfig) => EdgeConfig): Promise<DirectEdge> {
  const edge = await openDirectEdge('off', change);
  t.teardown(() => edge.close());
  return edge;
}

const fresh = { 'cache-control': 'max-age=60', etag: '"a"' };

function serves(edge: DirectEdge, scripted: Scripted | ((request: UpstreamRequest) => Scripted)): void {
  edge.origin = (request) => respondWith(edge.clock, typeof scripted === 'function' ? scripted(request) : scripted);
}

const statusOf = ({ headers }: Got) => headers['cache-status'];

/** Callers who ask while the origin holds its answer. */
async function together(
  edge: DirectEdge,
  askings: readonly Asking[],
  scripted: Scripted,
  target = '/x',
): Promise<readonly Got[]> {
  let go = (): void => undefined;
  const held = new Promise<void>((resolve) => (go = resolve));
  const before = edge.sent.length;
  edge.origin = async () => {
    await held;
    return respondWith(edge.clock, scripted);
  };
  const all = askings.map((asking) => edge.ask(target, asking));
  await until('a fetch', () => edge.sent.length > before);
  go();
  return Promise.all(all);
}

void t.test(
  'the origin gets the fields of the client, without those that are for this hop or for one caller',
  async (t) => {
    const edge = await opened(t);
    serves(edge, { fields: fresh, bytes: BYTES });
    const headers = {
      accept: 'text/html',
      cookie: 'a=b',
      host: 'client',
      'content-length': '0',
      expect: '100-continue',
      'x-forwarded-for': '203.0.113.1',
      'edge-authorization': 'forged',
      via: '1.1 before',
      range: 'bytes=0-1',
      'if-none-match': '"z"',
      connection: 'x-hop',
      'x-hop': '1',
    };
    const got = await edge.ask('/x?y=z', { headers });
    t.equal(got.status, 206);
    t.strictSame(edge.sent[0]?.fields, {
      accept: 'text/html',
      cookie: 'a=b',
      'x-request-id': 'request',
      'x-forwarded-for': '192.0.2.1',
      'x-forwarded-proto': 'https',
      via: '1.1 before, 1.1 edge',
      'cdn-loop': 'edge',
    });
    t.equal(edge.sent[0]?.target, '/x?y=z');
  },
);

void t.test('responses that differ by a field are kept apart, and asked about together', async (t) => {
  const edge = await opened(t);
  serves(edge, ({ headers }) => {
    const accept = new Map(headers).get('accept') ?? '';
    return { fields: { ...fresh, etag: `"${accept}"`, vary: 'accept' }, bytes: Buffer.from(accept) };
  });
  const ask = (accept: string) => edge.ask('/x', { headers: { accept } });
  t.same(
    [statusOf(await ask('a')), statusOf(await ask('b')), statusOf(await ask('a'))],
    [
      'edge; fwd=uri-miss; fwd-status=200; ttl=60; stored',
      'edge; fwd=vary-miss; fwd-status=200; ttl=60; stored',
      'edge; hit; ttl=60; detail=memory',
    ],
  );
  t.equal(edge.sent[1]?.fields['if-none-match'], '"a"', 'the origin may say that it is one of those');
  serves(edge, { status: 304, fields: { ...fresh, etag: '"b"', vary: 'accept' } });
  const third = await ask('c');
  t.same([third.status, third.bytes.toString()], [200, 'b'], 'the 304 names the one that it means');
  t.same(String(edge.sent[2]?.fields['if-none-match']).split(', ').sort(), ['"a"', '"b"']);
});

void t.test('callers who want the same share one fetch, and who differs has one alone', async (t) => {
  const edge = await opened(t);
  const [first, second] = await together(edge, [{}, {}], { fields: fresh, bytes: BYTES });
  t.same(
    [first && statusOf(first), second && statusOf(second)],
    [
      'edge; fwd=uri-miss; fwd-status=200; ttl=60; stored',
      'edge; fwd=uri-miss; fwd-status=200; ttl=60; stored; collapsed',
    ],
  );
  t.equal(edge.sent.length, 1);
  const demands = [{}, { headers: { 'cache-control': 'max-age=5' } }, { headers: { 'cache-control': 'max-age=5' } }];
  await together(edge, demands, { fields: fresh, bytes: BYTES }, '/demands');
  t.equal(edge.sent.length, 3, 'those who demand the same share too');
  const head = await together(edge, [{ method: 'HEAD' }, {}], { fields: fresh, bytes: BYTES }, '/head');
  t.same([head[0]?.bytes.length, head[1]?.bytes.length, edge.sent.length], [0, 1_000, 5]);
  await together(edge, [{}, { method: 'HEAD' }], { fields: fresh, bytes: BYTES }, '/get-first');
  t.equal(edge.sent.length, 6, 'a GET that is under way serves a HEAD too');
});

void t.test(
  'a response that nobody may share goes to the first who waits, and the others ask for themselves',
  async (t) => {
    const edge = await opened(t);
    const own = { fields: { 'cache-control': 'private', x: 'y' }, bytes: BYTES };
    const got = await together(edge, [{}, {}], own);
    t.same(
      got.map(({ status, bytes }) => [status, bytes.length]),
      [
        [200, 1_000],
        [200, 1_000],
      ],
    );
    t.equal(edge.sent.length, 2);
    t.same(got.map(statusOf), [
      'edge; fwd=uri-miss; fwd-status=200',
      'edge; fwd=uri-miss; fwd-status=200; detail=private',
    ]);
    serves(edge, own);
    t.match(statusOf(await edge.ask('/x')), /detail=private$/, 'later callers wait for nobody');
    edge.clock.advance(120_000);
    t.notMatch(statusOf(await edge.ask('/x')), /detail/, 'for two minutes');
    serves(edge, { fields: fresh, bytes: BYTES });
    t.match(statusOf(await edge.ask('/x')), /stored; detail=private/);
    edge.cache.drop(keyOf('/x'), 'purged');
    t.notMatch(statusOf(await edge.ask('/x')), /detail/, 'what was stored is shared again');
  },
);

void t.test(
  'a request of one caller is sent with its own range and conditions where the response is not shared',
  async (t) => {
    const edge = await opened(t);
    const own = { 'cache-control': 'private' };
    serves(edge, { fields: own, bytes: BYTES });
    await edge.ask('/x');
    serves(edge, { status: 206, fields: { ...own, 'content-range': 'bytes 0-1/1000' }, bytes: BYTES.subarray(0, 2) });
    const got = await edge.ask('/x', { headers: { range: 'bytes=0-1', 'if-range': '"a"' } });
    t.same([got.status, got.bytes.length, got.headers['content-range']], [206, 2, 'bytes 0-1/1000']);
    t.same([edge.sent[1]?.fields['range'], edge.sent[1]?.fields['if-range']], ['bytes=0-1', '"a"']);
    serves(edge, { status: 304, fields: { ...own, etag: '"a"' } });
    const unchanged = await edge.ask('/x', { headers: { 'if-none-match': '"a"' } });
    t.same([unchanged.status, unchanged.bytes.length], [304, 0]);
    serves(edge, { fields: { ...own, etag: '"a"' }, bytes: BYTES });
    t.equal(
      (await edge.ask('/x', { headers: { 'if-none-match': '"a"' } })).status,
      304,
      'also where the origin sends it again',
    );
    t.equal((await edge.ask('/x', { method: 'HEAD' })).bytes.length, 0);
    t.equal(edge.sent.at(-1)?.method, 'HEAD');
  },
);

void t.test('an error of the origin says nothing about who may share a response', async (t) => {
  const edge = await opened(t);
  serves(edge, { status: 503, fields: { 'cache-control': 'no-store' } });
  const got = [await edge.ask('/x'), await edge.ask('/x')];
  t.same(
    got.map((each) => [each.status, statusOf(each)]),
    [
      [503, 'edge; fwd=uri-miss; fwd-status=503'],
      [503, 'edge; fwd=uri-miss; fwd-status=503'],
    ],
  );
});

void t.test('a request that the cache must not answer is passed to the origin as it is', async (t) => {
  const edge = await opened(t);
  serves(edge, { fields: fresh, bytes: BYTES });
  await edge.ask('/x');
  const got = await edge.ask('/x', { headers: { 'if-match': '"a"' } });
  t.equal(statusOf(got), 'edge; fwd=bypass; fwd-status=200; detail=precondition');
  t.equal(edge.sent[1]?.fields['if-match'], '"a"');
  edge.origin = () => ({ kind: 'failed', failure: 'reset' });
  t.equal((await edge.ask('/x', { headers: { 'if-match': '"a"' } })).status, 502);
  edge.admit = () => {
    throw new Error('a fault of its own');
  };
  t.equal((await edge.ask('/x', { headers: { 'if-match': '"a"' } })).status, 500);
  t.equal((await edge.answer('/x', { method: 'PUT' })).kind, 'pass');
});

void t.test('fields that may not be stored reach the caller who caused the fetch, and nobody later', async (t) => {
  const edge = await opened(t);
  const fields = {
    'cache-control': 'max-age=60, private="x-own", no-cache="x-two"',
    'x-own': 'secret',
    'x-two': 'b',
    'x-all': 'c',
  };
  const shown = ({ headers }: Got) => [headers['x-own'], headers['x-two'], headers['x-all']];
  const got = await together(edge, [{}, {}], { fields, bytes: BYTES });
  t.same(got.map(shown), [
    ['secret', 'b', 'c'],
    [undefined, undefined, 'c'],
  ]);
  t.same(shown(await edge.ask('/x')), [undefined, undefined, 'c']);
});

void t.test('who leaves ends the fetch, if nobody else wants it and little has arrived', async (t) => {
  const edge = await opened(t, (config) => ({ ...config, fill: { ...config.fill, finishBytes: 100 } }));
  const cases: readonly (readonly [what: string, arrived: number, marked: boolean, ends: boolean])[] = [
    ['little', 100, false, true],
    ['just less than half', 499, false, true],
    ['half', 500, false, false],
    ['all but a hundred', 900, false, false],
    ['little, of a marked one', 100, true, false],
  ];
  for (const [number, [what, arrived, marked, ends]] of cases.entries()) {
    const target = `/${number}`;
    if (marked) edge.engine.warmMarks.mark(keyOf(target));
    const body = new PassThrough();
    body.on('error', () => undefined);
    let signal: AbortSignal | undefined;
    edge.origin = (_request, given) => {
      signal = given;
      given.addEventListener('abort', () => body.destroy(new Error('ended')));
      return respondWith(edge.clock, { fields: { ...fresh, 'content-length': '1000' }, body, sizeBytes: 1_000 });
    };
    const client = new AbortController();
    const answer = await edge.answer(target, { gone: client.signal });
    t.equal(answer.kind, 'reply');
    body.write(BYTES.subarray(0, arrived));
    await until(
      'it has arrived',
      () => edge.engine.flights.find(`GET client ${target}`)?.fill?.receivedBytes === arrived,
    );
    client.abort();
    t.equal(signal?.aborted, ends, what);
    body.end(BYTES.subarray(arrived));
    await until('its end', () => edge.engine.flights.underWay === 0);
    t.equal(edge.cache.peek(keyOf(target)) !== undefined, !ends, what);
    if (ends) {
      const kept = edge.cache.incomplete.find(target, () => true)?.spans;
      t.same(kept, [{ first: 0, last: arrived - 1 }], `${what}: what has arrived is kept`);
    }
  }
});

void t.test('after a broken transfer only the rest is fetched, and joined if it belongs to the same', async (t) => {
  const edge = await opened(t);
  const broken = async function* () {
    yield BYTES.subarray(0, 400);
    throw new Error('reset');
  };
  const breakOff = async (target: string, etag = '"a"') => {
    serves(edge, {
      fields: { ...fresh, etag },
      body: Readable.from(broken(), { objectMode: false }),
      sizeBytes: 1_000,
    });
    await t.rejects(edge.ask(target), { name: 'BodyLost' });
  };
  const rest = (etag: string, over: Partial<Scripted> = {}, range = 'bytes 400-999/1000') =>
    ({
      status: 206,
      fields: { ...fresh, etag, 'content-range': range, 'content-length': '600' },
      bytes: BYTES.subarray(400),
      ...over,
    }) as Scripted;

  await breakOff('/joined');
  const within = await edge.ask('/joined', { headers: { range: 'bytes=10-19' } });
  t.same(
    [within.status, statusOf(within), within.bytes],
    [206, 'edge; hit; ttl=60; detail=partial', BYTES.subarray(10, 20)],
  );
  serves(edge, rest('"a"'));
  const whole = await edge.ask('/joined');
  t.same(
    [whole.status, whole.bytes.equals(BYTES), statusOf(whole)],
    [200, true, 'edge; fwd=partial; fwd-status=206; ttl=60; stored'],
  );
  t.same([edge.sent.at(-1)?.fields['range'], edge.sent.at(-1)?.fields['if-range']], ['bytes=400-', '"a"']);
  t.equal(whole.headers['content-length'], '1000');
  t.equal(
    edge.cache.incomplete.find('/joined', () => true),
    undefined,
  );
  t.equal((await edge.ask('/joined')).outcome, 'hit_memory');

  // Another answer than the missing range: the whole is fetched, and what was there is forgotten.
  const whole2 = { fields: { ...fresh, etag: '"b"' }, bytes: BYTES };
  for (const [what, first] of [
    ['another tag', rest('"b"')],
    ['another range', rest('"a"', { bytes: BYTES.subarray(401) }, 'bytes 401-999/1000')],
    ['another size', rest('"a"', {}, 'bytes 400-999/1001')],
    ['without its range', rest('"a"', { fields: fresh })],
    ['another length than announced', rest('"a"', { sizeBytes: 599 })],
    ['no such range', { status: 416, fields: { 'content-range': 'bytes */3' } }],
    [
      'not to be stored',
      rest('"a"', { fields: { etag: '"a"', 'cache-control': 'no-store', 'content-range': 'bytes 400-999/1000' } }),
    ],
  ] as const) {
    const target = `/${what.replaceAll(' ', '-')}`;
    await breakOff(target);
    const before = edge.sent.length;
    edge.origin = ({ headers }) => respondWith(edge.clock, new Map(headers).has('range') ? first : whole2);
    const got = await edge.ask(target);
    t.same([got.status, got.bytes.equals(BYTES), got.headers['etag']], [200, true, '"b"'], what);
    t.equal(edge.sent.length - before, 2, what);
  }
  await breakOff('/replaced');
  serves(edge, whole2);
  const replaced = await edge.ask('/replaced');
  t.same([replaced.status, replaced.bytes.equals(BYTES)], [200, true], 'the origin may send the whole at once');
  await breakOff('/error');
  serves(edge, { status: 503, fields: { 'cache-control': 'no-store' } });
  t.equal((await edge.ask('/error')).status, 503);
  t.same(
    edge.cache.incomplete.find('/error', () => true)?.spans,
    [{ first: 0, last: 399 }],
    'an error says nothing about the bytes',
  );
  await breakOff('/weak', 'W/"a"');
  t.equal(
    edge.cache.incomplete.find('/weak', () => true),
    undefined,
    'nothing is kept under a weak tag',
  );
});

void t.test('a rest of another length than announced is joined by nobody', async (t) => {
  for (const [what, bytes, sizeBytes] of [
    ['more', bytesOf(700), null],
    ['less', bytesOf(500), null],
  ] as const) {
    const edge = await opened(t);
    const writer = edge.cache.incomplete.open({
      ...(await stored(edge, '/x')),
      headers: Object.entries(fresh),
    });
    writer?.write(0, BYTES.subarray(0, 400));
    serves(edge, { status: 206, fields: { ...fresh, 'content-range': 'bytes 400-999/1000' }, bytes, sizeBytes });
    await t.rejects(edge.ask('/x'), { name: 'BodyLost' }, what);
    t.equal(edge.cache.peek(keyOf('/x')), undefined, what);
    t.equal(
      edge.cache.incomplete.find('/x', () => true),
      undefined,
      `${what}: nor are the bytes trusted that were there`,
    );
  }
});

/** The entry of a stored response that is dropped again. */
async function stored(edge: DirectEdge, target: string) {
  serves(edge, { fields: fresh, bytes: BYTES });
  await edge.ask(target);
  const entry = edge.cache.peek(keyOf(target))?.entry;
  edge.cache.drop(keyOf(target), 'replaced');
  if (entry === undefined) throw new Error('it was not stored');
  return entry;
}

void t.test('ranges of a response that is not stored as a whole are kept, and become the whole', async (t) => {
  const edge = await opened(t);
  serves(edge, { fields: { ...fresh, 'cache-control': 'private' }, bytes: BYTES });
  await edge.ask('/x');
  const range = (first: number, last: number, bytes = BYTES.subarray(first, last + 1)): void =>
    serves(edge, {
      status: 206,
      fields: { ...fresh, 'content-range': `bytes ${first}-${last}/1000` },
      bytes,
      sizeBytes: null,
    });
  const ask = (first: number, last: number) => edge.ask('/x', { headers: { range: `bytes=${first}-${last}` } });
  range(0, 499);
  t.equal((await ask(0, 499)).status, 206);
  t.same(edge.cache.incomplete.find('/x', () => true)?.spans, [{ first: 0, last: 499 }]);
  range(700, 799, BYTES.subarray(0, 101));
  await ask(700, 799);
  t.equal(
    edge.cache.incomplete.find('/x', () => true),
    undefined,
    'one that is longer than it says spoils all',
  );
  range(0, 499);
  await ask(0, 499);
  range(500, 999, BYTES.subarray(500, 998));
  await ask(500, 999);
  t.equal(
    edge.cache.incomplete.find('/x', () => true),
    undefined,
    'and so does one that is shorter',
  );
  range(0, 499);
  await ask(0, 499);
  range(500, 999);
  await ask(500, 999);
  await until('the whole', () => edge.cache.peek(keyOf('/x')) !== undefined);
  t.ok(edge.cache.peek(keyOf('/x'))?.body.whole?.equals(BYTES));
  t.equal(await edge.sample('edge_fills_total{outcome="stored"}'), 1);
});

void t.test('a body that is too large to be stored goes to one caller, and ranges of it are fetched', async (t) => {
  const edge = await opened(t, (config) => ({ ...config, fill: { ...config.fill, objectMaxBytes: 999 } }));
  serves(edge, { fields: fresh, bytes: BYTES });
  const got = await edge.ask('/x');
  t.same([got.bytes.length, statusOf(got)], [1_000, 'edge; fwd=uri-miss; fwd-status=200']);
  t.equal(edge.cache.peek(keyOf('/x')), undefined);
  serves(edge, ({ headers }) =>
    new Map(headers).has('range')
      ? { status: 206, fields: { ...fresh, 'content-range': 'bytes 0-1/1000' }, bytes: BYTES.subarray(0, 2) }
      : { fields: fresh, bytes: BYTES },
  );
  const range = await edge.ask('/x', { headers: { range: 'bytes=0-1' } });
  t.same([range.status, statusOf(range)], [206, 'edge; fwd=uri-miss; fwd-status=206; detail=large']);
  const first = await edge.ask('/new', { headers: { range: 'bytes=0-1' } });
  t.same([first.status, first.bytes.length], [206, 2], 'the whole of an unknown one is not sent for a range');
});

void t.test('a range far ahead of what has arrived is fetched by itself', async (t) => {
  const edge = await opened(t, (config) => ({ ...config, fill: { ...config.fill, aheadBytes: 300 } }));
  const body = new PassThrough();
  edge.origin = () => respondWith(edge.clock, { fields: fresh, body, sizeBytes: 1_000 });
  const whole = edge.ask('/x');
  await until('the fetch', () => edge.engine.flights.find('GET client /x')?.fill !== undefined);
  body.write(BYTES.subarray(0, 100));
  await until('it arrives', () => edge.engine.flights.find('GET client /x')?.fill?.receivedBytes === 100);
  serves(edge, {
    status: 206,
    fields: { ...fresh, 'content-range': 'bytes 400-409/1000' },
    bytes: BYTES.subarray(400, 410),
  });
  const ahead = await edge.ask('/x', { headers: { range: 'bytes=400-409' } });
  t.same([ahead.status, ahead.bytes], [206, BYTES.subarray(400, 410)]);
  t.same([edge.sent[1]?.fields['range'], edge.sent[1]?.fields['if-range']], ['bytes=400-409', '"a"']);
  const waits = edge.ask('/x', { headers: { range: 'bytes=399-409' } });
  serves(edge, { fields: { ...fresh, etag: '"b"' }, bytes: BYTES });
  const ignored = edge.ask('/x', { headers: { range: 'bytes=500-509' } });
  await until('the origin is asked for it', () => edge.sent.length === 3);
  body.end(BYTES.subarray(100));
  t.same((await waits).bytes, BYTES.subarray(399, 410), 'a byte less is waited for');
  t.same((await ignored).bytes, BYTES.subarray(500, 510), 'and so is one that the origin does not send by itself');
  t.ok((await whole).bytes.equals(BYTES));
  t.equal(edge.sent.length, 3);
});

void t.test('beyond the limits callers are refused, or have a request of their own', async (t) => {
  for (const overflow of ['refuse', 'pass'] as const) {
    const edge = await opened(t, (config) => ({ ...config, fill: { ...config.fill, waitersMax: 1, overflow } }));
    const [, second] = await together(edge, [{}, {}], { fields: fresh, bytes: BYTES });
    t.equal(second?.status, overflow === 'refuse' ? 503 : 200, overflow);
    if (overflow === 'refuse') t.same([second?.outcome, second?.headers['retry-after']], ['refused', '1']);
    else t.match(second && statusOf(second), /detail=overflow/);
    t.equal(edge.sent.length, overflow === 'refuse' ? 1 : 2);
  }
  const edge = await opened(t, (config) => ({
    ...config,
    fill: { ...config.fill, concurrentMax: 1, overflow: 'pass' },
  }));
  let go = (): void => undefined;
  edge.origin = () =>
    new Promise((resolve) => (go = () => resolve(respondWith(edge.clock, { fields: fresh, bytes: BYTES }))));
  const first = edge.ask('/x');
  await until('the fetch', () => edge.sent.length === 1);
  t.equal((await edge.ask('/y')).status, 503);
  go();
  t.equal((await first).status, 200);
});

void t.test('a purge while a response is on its way makes the caller ask again', async (t) => {
  const edge = await opened(t);
  let count = 0;
  edge.origin = async (_request, signal) => {
    count += 1;
    if (count === 1) {
      edge.engine.flights.breakOffWhere(() => true);
      t.ok(signal.aborted);
    }
    return respondWith(edge.clock, { fields: fresh, bytes: Buffer.from(`${count}`) });
  };
  t.equal((await edge.ask('/x')).bytes.toString(), '2');
  count = -10;
  edge.origin = () => {
    count += 1;
    edge.engine.flights.breakOffWhere(() => true);
    return respondWith(edge.clock, { fields: fresh, bytes: BYTES });
  };
  const got = await edge.ask('/never');
  t.same([got.status, count], [503, -4], 'it tries so often, and no more');
});

void t.test('interim responses reach the caller whose request it is, in generic mode', async (t) => {
  const edge = await opened(t);
  edge.origin = (request) => {
    request.onInterim?.(103, [['link', '</a>']]);
    return respondWith(edge.clock, { fields: fresh, bytes: BYTES });
  };
  const seen: unknown[] = [];
  await edge.ask('/x', { inform: (status, fields) => seen.push([status, fields]) });
  t.same(seen, [[103, [['link', '</a>']]]]);
  await edge.ask('/y');
  t.notOk('onInterim' in (edge.sent[1] ?? {}));
});
