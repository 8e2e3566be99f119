/** The edge on real sockets, in front of an origin that each test scripts. */
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import type { CacheKey } from '../../../edge/entry.js';
import { createUseReports } from '../../../edge/use-reports.js';
import { NO_BODY } from '../../../src/http/reply.js';
import type { MediaId } from '../../../src/ids.js';
import { parseUseReport, USES_PATH } from '../../../src/journal/use-report.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { type Counts, runModel, steps } from '../../kit/edge/cache-model.js';
import { EDGE_PROOF, openTestEdge, type TestEdge, type TestEdgeOptions } from '../../kit/edge/edge.js';
import { mediaHead, mediaScript, rangedScript, type Script, sha256Of } from '../../kit/edge/scripted-origin.js';
import { startDownload } from '../../kit/http/download.js';
import { connectRaw } from '../../kit/http/raw.js';
import { type HttpResponse, sendRequest } from '../../kit/http/request.js';
import { mediaId } from '../../kit/origin/journal.js';
import { until } from '../../kit/until.js';

const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const PATH = `/v1/media/${ID}`;
const READER = { authorization: 'Bearer reader' };
const BYTES = Buffer.from('0123456789abcdefghijklmnopqrstuvwxyz');

async function open(t: Test, options: TestEdgeOptions = {}): Promise<TestEdge> {
  const edge = await openTestEdge(t.testdir(), options);
  t.teardown(() => edge.close());
  return edge;
}

/** Gives promises and sockets the time to deliver what is decided already. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
}

/** Resolves when no fetch from the origin is in progress. */
async function fetchesEnd(edge: TestEdge): Promise<void> {
  await until('no fetch is in progress', () => edge.engine.flights.underWay === 0);
}

void t.test('stored responses are served without the origin', async (t) => {
  const edge = await open(t);
  edge.origin.on(PATH, mediaScript({ bytes: BYTES, headers: { 'media-id': ID } }));
  const url = edge.url + PATH;
  const first = await sendRequest(url, { headers: READER });
  t.equal(first.status, 200);
  t.same(first.bytes, BYTES);
  t.equal(first.headers['cache-status'], 'edge; fwd=uri-miss; fwd-status=200; ttl=3600; stored');
  t.equal(edge.origin.seen[0]?.headers['edge-authorization'], EDGE_PROOF);
  t.notOk(edge.origin.seen[0]?.headers['authorization'], 'the client’s token is not forwarded');

  edge.clock.advance(10_000);
  const etag = String(first.headers.etag);
  const cases = [
    { name: 'GET', method: 'GET', headers: {}, status: 200, body: BYTES.toString() },
    { name: 'HEAD', method: 'HEAD', headers: {}, status: 200, body: '', length: '36' },
    { name: 'a range', method: 'GET', headers: { range: 'bytes=0-1' }, status: 206, body: '01', length: '2' },
    { name: 'a suffix', method: 'GET', headers: { range: 'bytes=-3' }, status: 206, body: 'xyz' },
    { name: 'an open range', method: 'GET', headers: { range: 'bytes=34-' }, status: 206, body: 'yz' },
    { name: 'HEAD ignores Range', method: 'HEAD', headers: { range: 'bytes=0-1' }, status: 200, body: '' },
    { name: 'a range beyond the end', method: 'GET', headers: { range: 'bytes=36-' }, status: 416 },
    {
      name: 'too many ranges',
      method: 'GET',
      headers: { range: `bytes=${Array.from({ length: 17 }, (_, n) => `${n * 2}-${n * 2}`).join()}` },
      status: 200,
    },
    { name: 'an entity tag that matches', method: 'GET', headers: { 'if-none-match': etag }, status: 304, body: '' },
    {
      name: 'a date that matches',
      method: 'GET',
      headers: { 'if-modified-since': 'Wed, 01 Jan 2025 00:00:00 GMT' },
      status: 304,
    },
    { name: 'another entity tag', method: 'GET', headers: { 'if-none-match': '"other"' }, status: 200 },
    { name: 'If-Match with another entity tag', method: 'GET', headers: { 'if-match': '"other"' }, status: 412 },
    {
      name: 'If-Range that matches',
      method: 'GET',
      headers: { range: 'bytes=1-2', 'if-range': etag },
      status: 206,
      body: '12',
    },
    {
      name: 'If-Range that does not match',
      method: 'GET',
      headers: { range: 'bytes=1-2', 'if-range': '"x"' },
      status: 200,
    },
    { name: 'no-cache, which is ignored', method: 'GET', headers: { 'cache-control': 'no-cache' }, status: 200 },
  ] as const;
  for (const { name, method, headers, status, ...want } of cases) {
    const answer = await sendRequest(url, { method, headers: { ...READER, ...headers } });
    t.equal(answer.status, status, name);
    if ('body' in want) t.equal(answer.bytes.toString(), want.body, name);
    if ('length' in want) t.equal(answer.headers['content-length'], want.length, name);
    if (status < 400) t.equal(answer.headers.age, '10', name);
    if (status < 400) t.equal(answer.headers['cache-status'], 'edge; hit; ttl=3590; detail=memory', name);
    t.notOk(answer.headers['cdn-cache-control'] ?? answer.headers['media-id'], `${name}: nothing internal`);
  }
  const several = await sendRequest(url, { headers: { ...READER, range: 'bytes=0-1,-2' } });
  t.equal(several.status, 206);
  t.match(several.headers['content-type'], /^multipart\/byteranges; boundary=/);
  t.equal(several.headers['content-length'], String(several.bytes.length));
  t.match(several.bytes.toString(), /bytes 0-1\/36\r\n\r\n01\r\n--.*bytes 34-35\/36\r\n\r\nyz\r\n--/s);
  t.equal(edge.origin.seen.length, 1, 'the origin got one request');
});

void t.test('a client that leaves before the head arrives ends only its own answer', async (t) => {
  const edge = await open(t);
  const bytes = randomBytes(300_000);
  const ranges = ['', 'Range: bytes=5-9\r\n', 'Range: bytes=200000-200010,250000-250010\r\n'];
  // With Connection: close, node:http answers in place of the fast lane.
  const ways = ['', 'Connection: close\r\n'];
  const cases = ways.flatMap((way) => ranges.map((range) => way + range));
  for (const [index, fields] of cases.entries()) {
    const path = `/v1/media/01J9ZC8GZ000000000000000${index}B`;
    const waiting = (): number => edge.engine.flights.find(`GET edge ${path}`)?.waiters ?? 0;
    const [go, answer] = gate();
    edge.origin.on(path, async (seen, answering) => {
      await go;
      await mediaScript({ bytes })(seen, answering);
    });
    const stays = sendRequest(edge.url + path, { headers: READER });
    await edge.origin.arrived(path);
    const leaves = await connectRaw(Number(new URL(edge.url).port));
    leaves.write(`GET ${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer reader\r\n${fields}\r\n`);
    await until('both wait', () => waiting() === 2);
    leaves.reset();
    await until('one has left', () => waiting() === 1);
    answer();
    t.ok((await stays).bytes.equals(bytes), JSON.stringify(fields));
  }
});

void t.test('a client may reuse media for as long as the origin says, counted from when it gets them', async (t) => {
  const edge = await open(t);
  const start = edge.clock.now();
  edge.origin.on(PATH, mediaScript({ bytes: BYTES, headers: { 'media-id': ID } }));
  const other = PATH.replace('00A', '00B');
  const sunset = new Date(start + 1_000_000).toUTCString();
  const date = new Date(start).toUTCString();
  edge.origin.on(other, mediaScript({ bytes: BYTES, public: true, headers: { sunset, date } }));
  const lifetime = async (target: string, headers = {}, method = 'GET'): Promise<string> => {
    const answer = await sendRequest(edge.url + target, { method, headers });
    t.ok([200, 206, 304].includes(answer.status), `${target}: ${answer.status}`);
    return `${answer.headers.age ?? 'none'}: ${answer.headers['cache-control']}`;
  };
  t.equal(await lifetime(PATH, READER), '0: private, max-age=60');
  edge.clock.advance(500_000);
  const etag = `"sha256:${sha256Of(BYTES)}"`;
  // RFC 9111 4.2: the client may reuse them for max-age less Age.
  t.equal(await lifetime(PATH, READER), '500: private, max-age=560');
  t.equal(await lifetime(PATH, READER, 'HEAD'), '500: private, max-age=560');
  t.equal(await lifetime(PATH, { ...READER, range: 'bytes=0-1' }), '500: private, max-age=560');
  t.equal(await lifetime(PATH, { ...READER, 'if-none-match': etag }), '500: private, max-age=560');
  t.equal(await lifetime(other), '0: public, max-age=60');

  await t.test('but not beyond the expiry of the media', async (t) => {
    edge.clock.advance(470_000);
    t.equal(await lifetime(other), '470: public, max-age=500', 'of which 30 seconds are left');
  });

  await t.test('nor beyond the end of the signed link', async (t) => {
    const link = (seconds: number): string => `?exp=${Math.floor(edge.clock.now() / 1_000) + seconds}&sig=good`;
    t.equal(await lifetime(PATH + link(20)), '970: private, max-age=990');
    t.equal(await lifetime(PATH + link(600)), '970: private, max-age=1030');
    const fresh = PATH.replace('00A', '00C');
    edge.origin.on(fresh, mediaScript({ bytes: BYTES }));
    t.equal(await lifetime(fresh + link(20)), '0: private, max-age=20', 'when it is fetched for this request');
    const unstored = PATH.replace('00A', '00D');
    edge.origin.on(unstored, mediaScript({ bytes: BYTES, headers: { 'cdn-cache-control': 'no-store' } }));
    t.equal(await lifetime(unstored + link(20)), 'none: private, max-age=20', 'and when it is not stored');
    t.equal(await lifetime(unstored, READER), 'none: private, max-age=60');
  });
});

void t.test('a body that is stored on disk alone is served from there', async (t) => {
  const edge = await open(t, { cache: 'memory: { max_object: 1KB }' });
  const bytes = randomBytes(500_000);
  edge.origin.on(PATH, mediaScript({ bytes }));
  const url = edge.url + PATH;
  await sendRequest(url, { headers: READER });
  await fetchesEnd(edge);
  const cases = [
    { headers: {}, status: 200, want: bytes },
    { headers: { range: 'bytes=400000-400009' }, status: 206, want: bytes.subarray(400_000, 400_010) },
    { headers: { 'if-none-match': `"sha256:${sha256Of(bytes)}"` }, status: 304, want: Buffer.alloc(0) },
  ];
  for (const { headers, status, want } of cases) {
    const answer = await sendRequest(url, { headers: { ...READER, ...headers } });
    t.equal(answer.status, status);
    t.ok(answer.bytes.equals(want));
    t.equal(answer.headers['cache-status'], 'edge; hit; ttl=3600; detail=disk');
  }
  const several = await sendRequest(url, { headers: { ...READER, range: 'bytes=-2,100-101' } });
  t.equal(several.headers['content-length'], String(several.bytes.length));
  t.ok(several.bytes.includes(bytes.subarray(100, 102)) && several.bytes.includes(bytes.subarray(499_998)));
  t.equal((await sendRequest(url, { method: 'HEAD', headers: READER })).headers['content-length'], '500000');
  t.equal(edge.origin.seen.length, 1);
});

void t.test('one request to the origin serves all clients that want the same body', async (t) => {
  const bytes = randomBytes(300_000);
  const half = bytes.length / 2;

  /** Sends the first half, then waits for `go`. */
  function inHalves(go: Promise<void>, gone?: () => void): Script {
    return async (_seen, answer) => {
      answer.head(200, mediaHead({ bytes }));
      await answer.write(bytes.subarray(0, half));
      void answer.gone.then(gone);
      await go;
      answer.end(bytes.subarray(half));
    };
  }

  await t.test('each client reads from the first byte, whenever it comes and however fast it reads', async (t) => {
    const edge = await open(t);
    const [go, release] = gate();
    edge.origin.on(PATH, inHalves(go));
    const url = edge.url + PATH;
    const early = await Promise.all(Array.from({ length: 50 }, () => startDownload(url, READER)));
    await Promise.all(early.map((reading) => reading.until(half)));
    t.pass('the first half arrived before the origin sent the second');
    const late = await startDownload(url, READER);
    t.match(late.headers['cache-status'], /; collapsed/);
    await late.until(half);
    const [slow] = early;
    slow?.pause();
    release();
    for (const reading of [...early.slice(1), late]) {
      const { bytes: got, whole } = await reading.ended;
      t.ok(whole && got.equals(bytes));
    }
    slow?.resume();
    t.ok((await slow?.ended)?.bytes.equals(bytes), 'the slow one gets it all too');
    t.equal(edge.origin.seen.length, 1);
    t.match((await sendRequest(url, { headers: READER })).headers['cache-status'], /; hit; /);
  });

  await t.test('a client that leaves ends nothing for others; the last one ends the fetch', async (t) => {
    const edge = await open(t, { edge: ['fill: { finish_share: 1, finish: 0 }'] });
    const [go, release] = gate();
    let broken = 0;
    edge.origin.on(
      PATH,
      inHalves(go, () => (broken += 1)),
    );
    const url = edge.url + PATH;
    const [one, other] = await Promise.all([startDownload(url, READER), startDownload(url, READER)]);
    await Promise.all([one?.until(half), other?.until(half)]);
    one?.abort();
    await one?.ended;
    await settled();
    t.equal(broken, 0);
    t.equal(edge.engine.flights.underWay, 1);
    other?.abort();
    await fetchesEnd(edge);
    await until('the origin sees the end', () => broken === 1);
    release();
    t.equal(edge.engine.cache.stats().memory.entries, 0);
  });

  await t.test(
    'a body that has nearly arrived is fetched to its end although no client wants it any more',
    async (t) => {
      const edge = await open(t, { edge: ['fill: { finish_share: 0.5, finish: 0 }'] });
      const [go, release] = gate();
      edge.origin.on(PATH, inHalves(go));
      const reading = await startDownload(edge.url + PATH, READER);
      await reading.until(half);
      reading.abort();
      await reading.ended;
      await settled();
      release();
      await fetchesEnd(edge);
      const answer = await sendRequest(edge.url + PATH, { headers: READER });
      t.match(answer.headers['cache-status'], /; hit; /);
      t.ok(answer.bytes.equals(bytes));
      t.equal(edge.origin.seen.length, 1);
    },
  );

  await t.test(
    'HEAD and ranges are answered from an arriving body; a range far ahead is fetched by itself',
    async (t) => {
      const edge = await open(t, { edge: ['fill: { ahead: 100KB }'] });
      const [go, release] = gate();
      const ranges: unknown[] = [];
      edge.origin.on(PATH, async (seen, answer) => {
        const range = seen.headers['range'];
        if (range === undefined) return inHalves(go)(seen, answer);
        ranges.push(range, seen.headers['if-range']);
        answer.head(206, {
          ...mediaHead({ bytes }),
          'content-length': '10',
          'content-range': 'bytes 280000-280009/300000',
        });
        answer.end(bytes.subarray(280_000, 280_010));
      });
      const url = edge.url + PATH;
      const reading = await startDownload(url, READER);
      await reading.until(half);
      const head = await sendRequest(url, { method: 'HEAD', headers: READER });
      t.equal(head.headers['content-length'], '300000');
      const near = await sendRequest(url, { headers: { ...READER, range: 'bytes=100-199' } });
      t.same(near.bytes, bytes.subarray(100, 200));
      const several = await sendRequest(url, { headers: { ...READER, range: 'bytes=0-9, 140000-140009' } });
      t.equal(several.headers['content-length'], String(several.bytes.length));
      t.ok(several.bytes.includes(bytes.subarray(0, 10)) && several.bytes.includes(bytes.subarray(140_000, 140_010)));
      const far = await sendRequest(url, { headers: { ...READER, range: 'bytes=280000-280009' } });
      t.equal(far.status, 206);
      t.equal(far.headers['content-range'], 'bytes 280000-280009/300000');
      t.same(far.bytes, bytes.subarray(280_000, 280_010));
      t.same(ranges, ['bytes=280000-280009', `"sha256:${sha256Of(bytes)}"`]);
      const waiting = startDownload(url, { ...READER, range: 'bytes=160000-160009' });
      release();
      const { bytes: got } = await (await waiting).ended;
      t.same(got, bytes.subarray(160_000, 160_010), 'a range that is not so far ahead waits for its bytes');
      await reading.ended;
      t.equal(edge.origin.count(PATH, 'GET'), 2);
    },
  );

  await t.test('if the origin ignores Range, the range waits for the arriving body', async (t) => {
    const edge = await open(t, { edge: ['fill: { ahead: 1KB }'] });
    edge.origin.on(PATH, mediaScript({ bytes }));
    const answer = await sendRequest(edge.url + PATH, { headers: { ...READER, range: 'bytes=299990-' } });
    t.equal(answer.status, 206);
    t.same(answer.bytes, bytes.subarray(299_990));
  });
});

void t.test('a body with the wrong length or hash is complete for nobody, and is not stored', async (t) => {
  const cases: readonly { name: string; script: Script; corrupt?: boolean }[] = [
    {
      name: 'shorter than announced',
      script: (_seen, answer) => {
        answer.head(200, mediaHead({ bytes: BYTES }));
        void answer.write(BYTES.subarray(0, 10)).then(() => answer.hangUp());
      },
    },
    {
      name: 'reset midway',
      script: (_seen, answer) => {
        answer.head(200, mediaHead({ bytes: BYTES }));
        void answer.write(BYTES.subarray(0, 10)).then(() => answer.reset());
      },
    },
    {
      name: 'other bytes of the same length',
      script: (_seen, answer) => {
        answer.head(200, mediaHead({ bytes: BYTES }));
        answer.end(BYTES.toString().toUpperCase());
      },
      corrupt: true,
    },
    {
      name: 'other bytes, without an announced length',
      script: (_seen, answer) => {
        const { 'content-length': _length, ...head } = mediaHead({ bytes: BYTES });
        answer.head(200, head);
        answer.end('something else');
      },
      corrupt: true,
    },
    {
      name: 'a hash in the entity tag alone',
      script: (_seen, answer) => {
        const { 'repr-digest': _digest, ...head } = mediaHead({ bytes: BYTES });
        answer.head(200, head);
        answer.end(BYTES.toString().toUpperCase());
      },
      corrupt: true,
    },
  ];
  const edge = await open(t);
  for (const [index, { name, script, corrupt }] of cases.entries()) {
    await t.test(name, async (t) => {
      const path = `/v1/media/01J9ZC8GZ000000000000000${index}B`;
      edge.origin.on(path, script);
      const answers = await Promise.all([0, 1, 2].map(() => sendRequest(edge.url + path, { headers: READER })));
      // A body that is lost before its first byte was sent is a failure; afterwards its answer breaks off.
      for (const { status, whole } of answers) t.ok(status === 502 || (status === 200 && !whole), `${status} ${whole}`);
      await fetchesEnd(edge);
      edge.origin.on(path, mediaScript({ bytes: BYTES }));
      const healed = await sendRequest(edge.url + path, { headers: READER });
      t.ok(healed.whole);
      t.same(healed.bytes, BYTES);
      t.match(healed.headers['cache-status'], /fwd=(?:uri-miss|partial); fwd-status=200/, 'fetched again');
      if (corrupt === true) t.ok((await edge.counted('edge_fills_total', '{outcome="corrupt"}')) > 0);
    });
  }
});

void t.test(
  'an incomplete response is stored, answers ranges within it, and is completed (RFC 9111 3.3, 3.4)',
  async (t) => {
    const url = (edge: TestEdge): string => edge.url + PATH;
    const ranges = (edge: TestEdge): unknown[] => edge.origin.seen.map(({ headers }) => headers['range']);
    const breaksAt =
      (bytes: Buffer, at: number, etag?: string): Script =>
      async (_seen, answer) => {
        answer.head(200, { ...mediaHead({ bytes }), ...(etag !== undefined && { etag }) });
        await answer.write(bytes.subarray(0, at));
        answer.reset();
      };
    /** An edge that has stored the first ten bytes, from a transfer that broke off, and nothing else. */
    async function broken(t: Test, given?: TestEdge): Promise<TestEdge> {
      const edge = given ?? (await open(t));
      await edge.engine.cache.purge({ all: true });
      edge.origin.on(PATH, breaksAt(BYTES, 10));
      t.notOk((await sendRequest(url(edge), { headers: READER })).whole);
      await fetchesEnd(edge);
      t.equal(incompleteOf(edge).entries, 1);
      return edge;
    }
    const incompleteOf = (edge: TestEdge) => edge.engine.cache.stats().incomplete;
    const get = (edge: TestEdge, headers: Readonly<Record<string, string>> = {}, method = 'GET') =>
      sendRequest(url(edge), { method, headers: { ...READER, ...headers } });

    await t.test('after a broken transfer only the rest is fetched', async (t) => {
      const edge = await broken(t);
      edge.origin.on(PATH, rangedScript({ bytes: BYTES, headers: { 'x-new': '1' } }));
      const within = await get(edge, { range: 'bytes=2-5' });
      t.same([within.status, within.bytes.toString(), within.headers['content-range']], [206, '2345', 'bytes 2-5/36']);
      t.equal(within.headers['cache-status'], 'edge; hit; ttl=3600; detail=partial');
      const two = await get(edge, { range: 'bytes=0-1, 8-9' });
      t.match(two.headers['content-type'], /^multipart\/byteranges/);
      t.equal(edge.origin.seen.length, 1);
      const whole = await get(edge);
      t.same([whole.status, whole.bytes.toString()], [200, BYTES.toString()]);
      t.equal(whole.headers['cache-status'], 'edge; fwd=partial; fwd-status=206; ttl=3600; stored');
      t.equal(whole.headers['x-new'], '1', 'newer fields replace stored ones');
      t.notOk(whole.headers['content-range']);
      t.same(ranges(edge), [undefined, 'bytes=10-']);
      t.equal(edge.origin.seen[1]?.headers['if-range'], `"sha256:${sha256Of(BYTES)}"`);
      t.equal((await get(edge)).headers['cache-status'], 'edge; hit; ttl=3600; detail=memory');
      t.equal(incompleteOf(edge).entries, 0);
    });

    await t.test('it answers only ranges within it', async (t) => {
      const edge = await broken(t);
      edge.origin.on(PATH, rangedScript({ bytes: BYTES }));
      const etag = `"sha256:${sha256Of(BYTES)}"`;
      t.equal((await get(edge, {}, 'HEAD')).headers['cache-status'], 'edge; fwd=uri-miss; fwd-status=200; ttl=3600');
      const unchanged = await get(edge, { 'if-none-match': etag, range: 'bytes=1-2' });
      t.same([unchanged.status, edge.origin.count(PATH, 'GET')], [304, 2], 'no 304 without the origin');
    });

    await t.test('after a second break the bytes of both are stored; separate ranges are joined', async (t) => {
      const bytes = randomBytes(100_000);
      const edge = await open(t, { edge: ['fill: { ahead: 10KB, finish_share: 1, finish: 0 }'] });
      edge.origin.on(PATH, breaksAt(bytes, 30_000));
      t.notOk((await get(edge)).whole);
      await fetchesEnd(edge);
      edge.origin.on(PATH, async (seen, answer) => {
        if (seen.headers['range'] !== 'bytes=30000-') return rangedScript({ bytes })(seen, answer);
        answer.head(206, {
          ...mediaHead({ bytes }),
          'content-length': '70000',
          'content-range': 'bytes 30000-99999/100000',
        });
        await answer.write(bytes.subarray(30_000, 50_000));
        await edge.origin.arrived(PATH, 3);
        answer.reset();
      });
      const first = get(edge);
      await edge.origin.arrived(PATH, 2);
      const far = await get(edge, { range: 'bytes=80000-89999' });
      t.ok(far.bytes.equals(bytes.subarray(80_000, 90_000)));
      t.notOk((await first).whole);
      await fetchesEnd(edge);
      const whole = await get(edge);
      t.ok(whole.whole && whole.bytes.equals(bytes));
      t.same(ranges(edge).slice(3), ['bytes=50000-79999', 'bytes=90000-']);
    });

    await t.test('bytes of two representations are never joined', async (t) => {
      const other = Buffer.from(BYTES.toString().toUpperCase());
      const edge = await open(t);
      /** Sends the range of its present representation, and ignores If-Range. */
      const ignoresIfRange: Script = (seen, answer) => {
        const { 'if-range': _condition, ...headers } = seen.headers;
        return rangedScript({ bytes: other })({ ...seen, headers }, answer);
      };
      for (const script of [rangedScript({ bytes: other }), mediaScript({ bytes: other }), ignoresIfRange]) {
        await broken(t, edge);
        edge.origin.on(PATH, script);
        const answer = await get(edge);
        t.same([answer.status, answer.whole, answer.bytes.toString()], [200, true, other.toString()]);
        t.equal((await get(edge, { range: 'bytes=10-11' })).bytes.toString(), 'AB');
        t.equal(incompleteOf(edge).entries, 0);
      }
      // An origin that sends the same entity tag with other bytes: the whole is wrong, complete for nobody, and fetched again.
      await broken(t, edge);
      const lying = rangedScript({ bytes: other, headers: { etag: `"sha256:${sha256Of(BYTES)}"`, 'repr-digest': '' } });
      edge.origin.on(PATH, lying);
      t.notOk((await get(edge)).whole);
      await fetchesEnd(edge);
      edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
      t.equal((await get(edge)).bytes.toString(), BYTES.toString());
      // A range of another whole, another range, or no range at all.
      for (const range of ['bytes 10-35/37', 'bytes 11-35/36', 'bytes */36']) {
        await broken(t, edge);
        const before = edge.origin.seen.length;
        edge.origin.on(PATH, (seen, answer) => {
          if (seen.headers['range'] === undefined) return mediaScript({ bytes: BYTES })(seen, answer);
          answer.head(206, { ...mediaHead({ bytes: BYTES }), 'content-length': '26', 'content-range': range });
          answer.end(BYTES.subarray(10));
        });
        t.equal((await get(edge)).bytes.toString(), BYTES.toString(), range);
        t.same(ranges(edge).slice(before), ['bytes=10-', undefined], range);
      }
    });

    await t.test('nothing is stored with a weak validator, or without one', async (t) => {
      const edge = await open(t);
      for (const etag of ['W/"a"', '']) {
        edge.origin.on(PATH, breaksAt(BYTES, 10, etag));
        await get(edge);
        await fetchesEnd(edge);
        t.equal(incompleteOf(edge).entries, 0, etag);
      }
    });

    await t.test('ranges of a body that is too large to be stored are stored', async (t) => {
      const edge = await open(t, { edge: ['fill: { object_max: 1KiB }'] });
      const large = randomBytes(5_000);
      edge.origin.on(PATH, rangedScript({ bytes: large }));
      await get(edge, { range: 'bytes=100-199' });
      const before = edge.origin.seen.length;
      const inner = await get(edge, { range: 'bytes=150-160' });
      t.ok(inner.bytes.equals(large.subarray(150, 161)));
      t.equal(edge.origin.seen.length, before);
      const next = await get(edge, { range: 'bytes=150-299' });
      t.ok(
        next.bytes.equals(large.subarray(150, 300)),
        'not all bytes are stored: the range is fetched from the origin',
      );
      const joined = await get(edge, { range: 'bytes=100-299' });
      t.equal(joined.headers['cache-status'], 'edge; hit; ttl=3600; detail=partial');
      t.ok(joined.bytes.equals(large.subarray(100, 300)));
    });

    await t.test('ranges that add up to the whole are stored as a complete response, for any origin', async (t) => {
      const edge = await open(t, { edge: ['access: "off"'] });
      const page = `${edge.url}/page`;
      const head = { 'cache-control': 'max-age=60', etag: '"p"' };
      edge.origin.on('/page', (_seen, answer) => {
        answer.head(200, { ...head, 'cache-control': 'private' });
        answer.end('0123456789');
      });
      t.equal(
        (await sendRequest(page)).status,
        200,
        'it cannot be shared: from now on clients do not wait for one another',
      );
      edge.origin.on(
        '/page',
        rangedScript({ bytes: Buffer.from('0123456789'), headers: { ...head, 'repr-digest': '' } }),
      );
      const get = (range: string): Promise<HttpResponse> => sendRequest(page, { headers: { range } });
      t.equal((await get('bytes=6-')).bytes.toString(), '6789');
      t.equal((await get('bytes=0-6')).bytes.toString(), '0123456');
      await until('the response is complete', () => incompleteOf(edge).entries === 0);
      const before = edge.origin.seen.length;
      const whole = await sendRequest(page);
      t.same([whole.status, whole.bytes.toString(), edge.origin.seen.length], [200, '0123456789', before]);
    });

    await t.test('takedown, purge and invalidation reach it, also while it arrives', async (t) => {
      const removals: readonly ((edge: TestEdge) => Promise<unknown>)[] = [
        (edge) => edge.takeDown(ID),
        (edge) => edge.engine.cache.purge({ prefix: '/v1/media/' }),
        (edge) => edge.engine.cache.purge({ all: true }),
        async (edge) => {
          edge.origin.on(`${PATH}/x`, (_seen, answer) => {
            answer.head(200, { 'content-location': PATH });
            answer.end();
          });
          await sendRequest(`${edge.url}${PATH}/x`, { method: 'PUT', headers: READER });
        },
      ];
      const edge = await open(t);
      for (const remove of removals) {
        await broken(t, edge);
        await remove(edge);
        t.equal(incompleteOf(edge).entries, 0);
        edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
        t.match((await get(edge, { range: 'bytes=2-5' })).headers['cache-status'], /fwd=uri-miss/);
      }
      edge.engine.cache.drop(PATH as CacheKey, 'purged');
      edge.origin.on(PATH, async (_seen, answer) => {
        answer.head(200, mediaHead({ bytes: BYTES }));
        await answer.write(BYTES.subarray(0, 10));
      });
      const reading = await startDownload(url(edge), READER);
      await reading.until(10);
      await edge.takeDown(ID);
      await fetchesEnd(edge);
      t.equal(incompleteOf(edge).entries, 0, 'nothing stays of an arriving body that was taken down');
    });

    await t.test('a stale one is revalidated, and so is any while the edge is cut off', async (t) => {
      const edge = await broken(t);
      edge.origin.on(PATH, rangedScript({ bytes: BYTES }));
      edge.lease = 'revalidate';
      t.match((await get(edge, { range: 'bytes=2-5' })).headers['cache-status'], /fwd=partial; fwd-status=206/);
      edge.lease = 'yes';
      await broken(t, edge);
      edge.origin.on(PATH, rangedScript({ bytes: BYTES }));
      edge.clock.advance(3_600_000);
      t.match((await get(edge, { range: 'bytes=2-5' })).headers['cache-status'], /fwd=partial; fwd-status=206/);
    });
  },
);

void t.test('the origin gets reports of the media that were served from the cache, if it wants them', async (t) => {
  const edge = await open(t, { edge: ['uses: { media_max: 1000 }'] });
  const { origin, clock, uses } = edge;
  const other = '01J9ZC8GZ0000000000000000B' as MediaId;
  const missing = '/v1/media/01J9ZC8GZ0000000000000000C';
  for (const id of [ID, other]) {
    origin.on(`/v1/media/${id}`, mediaScript({ bytes: BYTES, headers: { 'media-id': id } }));
  }
  let status = 204;
  origin.on(USES_PATH, (_seen, answer) => {
    answer.head(status);
    answer.end();
  });
  const reports = (): unknown[] =>
    origin.seen
      .filter(({ path }) => path === USES_PATH)
      .map(({ body, headers }) => {
        t.equal(headers['edge-authorization'], EDGE_PROOF);
        return parseUseReport(body.toString())?.uses;
      });
  /** Moves on to the next report and waits for its outcome. */
  const reported = async (outcome: string, times: number): Promise<void> => {
    clock.advance(60_000);
    while ((await edge.counted('edge_use_reports_total', `{outcome="${outcome}"}`)) < times) await settled();
  };
  const get = (path: string, headers = {}) => sendRequest(edge.url + path, { headers: { ...READER, ...headers } });

  await get(PATH);
  await get(PATH);
  clock.advance(3_600_000);
  t.same(reports(), [], 'the origin does not want reports');

  uses.want(60_000);
  await get(`/v1/media/${other}`);
  await get(missing);
  clock.advance(60_000);
  t.same(reports(), [], 'the origin saw these requests itself');
  await get(PATH);
  await get(PATH, { range: 'bytes=0-1' });
  await reported('told', 1);
  t.same(reports(), [[{ agoMs: 0, ids: [ID] }]], 'each media once, however often it was served');
  await get(PATH, { range: 'bytes=99-' });
  clock.advance(60_000);
  t.equal(reports().length, 1, 'a refusal does not count as use');

  status = 503;
  await get(`/v1/media/${other}`, { 'if-none-match': `"sha256:${sha256Of(BYTES)}"` });
  await reported('failed', 1);
  await get(PATH);
  await reported('failed', 2);
  status = 204;
  await reported('told', 2);
  const late = [
    { agoMs: 120_000, ids: [other] },
    { agoMs: 60_000, ids: [ID] },
  ];
  t.same(reports().at(-1), late, 'a report that failed is sent again later, with the time of the use');
  clock.advance(60_000);
  t.equal(reports().length, 4, 'and only once');

  await get(PATH);
  await uses.close();
  t.same(reports().at(-1), [{ agoMs: 0, ids: [ID] }], 'the rest is reported at the end');
});

void t.test('unreported uses are bounded, and are reported early when half the room is used', async (t) => {
  const accepted: number[] = [];
  let reachable = false;
  const watched = testDeps();
  const clock = new ManualClock();
  const uses = createUseReports({
    config: { mediaMax: 1_000, answerWithinMs: 1_000 },
    upstream: {
      async fetchOwn({ body }) {
        if (!reachable) throw new Error('away');
        const reported = parseUseReport(body?.toString() ?? '')?.uses ?? [];
        accepted.push(reported.reduce((sum, { ids }) => sum + ids.length, 0));
        return { status: 204, body: Readable.from([]) };
      },
    },
    proof: () => EDGE_PROOF,
    clock,
    random: () => 1,
    ...watched,
  });
  const serve = (from: number, count: number): void => {
    for (let each = from; each < from + count; each += 1) {
      const reply = { status: 200, headers: [], body: NO_BODY } as const;
      uses.note({ kind: 'reply', reply, outcome: 'hit_memory', mediaId: mediaId(each) });
    }
  };
  uses.want(60_000);
  serve(0, 400);
  clock.advance(60_000);
  await settled();
  serve(400, 700);
  serve(400, 700);
  t.equal(await watched.sample('edge_uses_lost_total'), 200, 'uses beyond the bound are counted as lost');
  reachable = true;
  clock.advance(60_000);
  await settled();
  t.same(accepted, [1_000]);
  serve(2_000, 500);
  await settled();
  t.same(accepted, [1_000, 500], 'with half the room used they are reported at once');
  serve(0, 10);
  uses.want(undefined);
  clock.advance(60_000);
  await uses.close();
  t.same(accepted, [1_000, 500], 'an origin that wants no reports any more gets none');
});

void t.test(
  'whatever is requested, changed, broken or taken down, an infinite memory allows every answer',
  async (t) => {
    for (const mode of ['off', 'media'] as const) {
      const seen: Counts = new Map();
      const property = fc.asyncProperty(steps({ lengthMax: 10, restarts: false }), (given) =>
        runModel({ mode }, given, seen),
      );
      // The same steps every time, so that each kind of answer occurs. test/slow/edge-model.test.ts draws others.
      await fc.assert(property, { seed: 3, numRuns: 15 });
      for (const kind of ['hit', '206', '304', 'fwd=stale', 'fwd=partial', 'stale-while-revalidate', '502']) {
        t.ok((seen.get(kind) ?? 0) > 0, `${mode}: ${kind}`);
      }
    }
  },
);

void t.test('the same holds for every edge of a row', async (t) => {
  for (const mode of ['off', 'media'] as const) {
    const seen: Counts = new Map();
    const property = fc.asyncProperty(steps({ lengthMax: 10, restarts: false }), (given) =>
      runModel({ mode, tiers: 3 }, given, seen),
    );
    await fc.assert(property, { seed: 1, numRuns: 10 });
    for (const kind of ['hit', '206', '304', 'fwd=stale', '502']) t.ok((seen.get(kind) ?? 0) > 0, `${mode}: ${kind}`);
  }
});

/** A promise and the function that resolves it. */
function gate(): [Promise<void>, () => void] {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return [opened, open];
}
