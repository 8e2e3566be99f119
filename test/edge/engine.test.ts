/** The edge's story on real sockets, before an origin that does as each test says. */
import { randomBytes } from 'node:crypto';
import t, { type Test } from 'tap';
import type { MediaId } from '../../src/ids.js';
import { ask } from '../kit/ask.js';
import { EDGE_PROOF, openTestEdge, type TestEdge, type TestEdgeOptions } from '../kit/edge.js';
import { startReading } from '../kit/reading.js';
import { mediaHead, mediaScript, type Script, sha256Of } from '../kit/scripted-origin.js';

const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const PATH = `/v1/media/${ID}`;
const READER = { authorization: 'Bearer reader' };
const BYTES = Buffer.from('0123456789abcdefghijklmnopqrstuvwxyz');

async function open(t: Test, options: TestEdgeOptions = {}): Promise<TestEdge> {
  const edge = await openTestEdge(t.testdir(), options);
  t.teardown(() => edge.close());
  return edge;
}

/** Lets what is already decided happen: promises settle, sockets deliver. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
}

/** Resolves once a condition holds; looks again after every turn of the event loop. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise(setImmediate);
}

void t.test('what the cache holds is served without the origin', async (t) => {
  const edge = await open(t);
  edge.origin.on(PATH, mediaScript({ bytes: BYTES, headers: { 'media-id': ID } }));
  const url = edge.url + PATH;
  const first = await ask(url, { headers: READER });
  t.equal(first.status, 200);
  t.same(first.bytes, BYTES);
  t.equal(first.headers['cache-status'], 'edge; fwd=uri-miss; fwd-status=200; ttl=3600; stored');
  t.equal(edge.origin.seen[0]?.headers['edge-authorization'], EDGE_PROOF);
  t.notOk(edge.origin.seen[0]?.headers['authorization'], 'the token stays here');

  edge.clock.advance(10_000);
  const etag = String(first.headers.etag);
  const cases = [
    { name: 'GET', method: 'GET', headers: {}, status: 200, body: BYTES.toString() },
    { name: 'HEAD', method: 'HEAD', headers: {}, status: 200, body: '', length: '36' },
    { name: 'a range', method: 'GET', headers: { range: 'bytes=0-1' }, status: 206, body: '01', length: '2' },
    { name: 'a suffix', method: 'GET', headers: { range: 'bytes=-3' }, status: 206, body: 'xyz' },
    { name: 'an open range', method: 'GET', headers: { range: 'bytes=34-' }, status: 206, body: 'yz' },
    { name: 'HEAD knows no ranges', method: 'HEAD', headers: { range: 'bytes=0-1' }, status: 200, body: '' },
    { name: 'a range beyond', method: 'GET', headers: { range: 'bytes=36-' }, status: 416 },
    {
      name: 'too many ranges',
      method: 'GET',
      headers: { range: `bytes=${Array.from({ length: 17 }, (_, n) => `${n * 2}-${n * 2}`).join()}` },
      status: 200,
    },
    { name: 'a copy that is held', method: 'GET', headers: { 'if-none-match': etag }, status: 304, body: '' },
    {
      name: 'a copy of that date',
      method: 'GET',
      headers: { 'if-modified-since': 'Wed, 01 Jan 2025 00:00:00 GMT' },
      status: 304,
    },
    { name: 'another copy', method: 'GET', headers: { 'if-none-match': '"other"' }, status: 200 },
    { name: 'If-Match of another', method: 'GET', headers: { 'if-match': '"other"' }, status: 412 },
    {
      name: 'If-Range that holds',
      method: 'GET',
      headers: { range: 'bytes=1-2', 'if-range': etag },
      status: 206,
      body: '12',
    },
    { name: 'If-Range that does not', method: 'GET', headers: { range: 'bytes=1-2', 'if-range': '"x"' }, status: 200 },
    { name: 'what clients may not wish for', method: 'GET', headers: { 'cache-control': 'no-cache' }, status: 200 },
  ] as const;
  for (const { name, method, headers, status, ...want } of cases) {
    const answer = await ask(url, { method, headers: { ...READER, ...headers } });
    t.equal(answer.status, status, name);
    if ('body' in want) t.equal(answer.bytes.toString(), want.body, name);
    if ('length' in want) t.equal(answer.headers['content-length'], want.length, name);
    if (status < 400) t.equal(answer.headers.age, '10', name);
    if (status < 400) t.equal(answer.headers['cache-status'], 'edge; hit; ttl=3590; detail=memory', name);
    t.notOk(answer.headers['cdn-cache-control'] ?? answer.headers['media-id'], `${name}: nothing internal`);
  }
  const several = await ask(url, { headers: { ...READER, range: 'bytes=0-1,-2' } });
  t.equal(several.status, 206);
  t.match(several.headers['content-type'], /^multipart\/byteranges; boundary=/);
  t.equal(several.headers['content-length'], String(several.bytes.length));
  t.match(several.bytes.toString(), /bytes 0-1\/36\r\n\r\n01\r\n--.*bytes 34-35\/36\r\n\r\nyz\r\n--/s);
  t.equal(edge.origin.seen.length, 1, 'one request to the origin for all of them');
});

void t.test('what only the disk holds is served from there', async (t) => {
  const edge = await open(t, { cache: 'memory: { max_object: 1KB }' });
  const bytes = randomBytes(500_000);
  edge.origin.on(PATH, mediaScript({ bytes }));
  const url = edge.url + PATH;
  await ask(url, { headers: READER });
  await until(() => edge.engine.flights.underWay === 0);
  const cases = [
    { headers: {}, status: 200, want: bytes },
    { headers: { range: 'bytes=400000-400009' }, status: 206, want: bytes.subarray(400_000, 400_010) },
    { headers: { 'if-none-match': `"sha256:${sha256Of(bytes)}"` }, status: 304, want: Buffer.alloc(0) },
  ];
  for (const { headers, status, want } of cases) {
    const answer = await ask(url, { headers: { ...READER, ...headers } });
    t.equal(answer.status, status);
    t.ok(answer.bytes.equals(want));
    t.equal(answer.headers['cache-status'], 'edge; hit; ttl=3600; detail=disk');
  }
  t.equal((await ask(url, { method: 'HEAD', headers: READER })).headers['content-length'], '500000');
  t.equal(edge.origin.seen.length, 1);
});

void t.test('one request to the origin brings a body to all who want it', async (t) => {
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

  await t.test('each reads from the first byte, whenever they come and however fast they are', async (t) => {
    const edge = await open(t);
    const [go, release] = gate();
    edge.origin.on(PATH, inHalves(go));
    const url = edge.url + PATH;
    const early = await Promise.all(Array.from({ length: 50 }, () => startReading(url, READER)));
    await Promise.all(early.map((reading) => reading.until(half)));
    t.pass('the first half was there before the origin sent the second');
    const late = await startReading(url, READER);
    t.match(late.headers['cache-status'], /; collapsed/);
    await late.until(half);
    const [slow] = early;
    slow?.pause();
    release();
    for (const reading of [...early.slice(1), late]) {
      const { bytes: got, whole } = await reading.over;
      t.ok(whole && got.equals(bytes));
    }
    slow?.resume();
    t.ok((await slow?.over)?.bytes.equals(bytes), 'the slow one has it too');
    t.equal(edge.origin.seen.length, 1);
    t.match((await ask(url, { headers: READER })).headers['cache-status'], /; hit; /);
  });

  await t.test('a reader who leaves ends nothing for others; the last one ends it', async (t) => {
    const edge = await open(t, { edge: ['fill: { finish_share: 1, finish: 0 }'] });
    const [go, release] = gate();
    let broken = 0;
    edge.origin.on(
      PATH,
      inHalves(go, () => (broken += 1)),
    );
    const url = edge.url + PATH;
    const [one, other] = await Promise.all([startReading(url, READER), startReading(url, READER)]);
    await Promise.all([one?.until(half), other?.until(half)]);
    one?.leave();
    await one?.over;
    await settled();
    t.equal(broken, 0);
    t.equal(edge.engine.flights.underWay, 1);
    other?.leave();
    await until(() => edge.engine.flights.underWay === 0);
    await until(() => broken === 1);
    release();
    t.equal(edge.engine.fills.cache.stats().memory.entries, 0);
  });

  await t.test('what is nearly there is finished although nobody wants it any more', async (t) => {
    const edge = await open(t, { edge: ['fill: { finish_share: 0.5, finish: 0 }'] });
    const [go, release] = gate();
    edge.origin.on(PATH, inHalves(go));
    const reading = await startReading(edge.url + PATH, READER);
    await reading.until(half);
    reading.leave();
    await reading.over;
    await settled();
    release();
    await until(() => edge.engine.flights.underWay === 0);
    const answer = await ask(edge.url + PATH, { headers: READER });
    t.match(answer.headers['cache-status'], /; hit; /);
    t.ok(answer.bytes.equals(bytes));
    t.equal(edge.origin.seen.length, 1);
  });

  await t.test(
    'a HEAD and ranges are answered from what has come; a range far ahead is fetched by itself',
    async (t) => {
      const edge = await open(t, { edge: ['fill: { ahead: 100KB }'] });
      const [go, release] = gate();
      const ranges: unknown[] = [];
      edge.origin.on(PATH, async (seen, answer) => {
        const range = seen.headers['range'];
        if (range === undefined) return inHalves(go)(seen, answer);
        ranges.push(range, seen.headers['if-range']);
        const part = bytes.subarray(280_000, 280_010);
        answer.head(206, {
          ...mediaHead({ bytes }),
          'content-length': '10',
          'content-range': 'bytes 280000-280009/300000',
        });
        answer.end(part);
      });
      const url = edge.url + PATH;
      const reading = await startReading(url, READER);
      await reading.until(half);
      const head = await ask(url, { method: 'HEAD', headers: READER });
      t.equal(head.headers['content-length'], '300000');
      const near = await ask(url, { headers: { ...READER, range: 'bytes=100-199' } });
      t.same(near.bytes, bytes.subarray(100, 200));
      const far = await ask(url, { headers: { ...READER, range: 'bytes=280000-280009' } });
      t.equal(far.status, 206);
      t.equal(far.headers['content-range'], 'bytes 280000-280009/300000');
      t.same(far.bytes, bytes.subarray(280_000, 280_010));
      t.same(ranges, ['bytes=280000-280009', `"sha256:${sha256Of(bytes)}"`]);
      const waiting = startReading(url, { ...READER, range: 'bytes=160000-160009' });
      release();
      const { bytes: got } = await (await waiting).over;
      t.same(got, bytes.subarray(160_000, 160_010), 'one not so far ahead waits for its bytes');
      await reading.over;
      t.equal(edge.origin.count(PATH, 'GET'), 2);
    },
  );

  await t.test('an origin that ignores Range is waited for', async (t) => {
    const edge = await open(t, { edge: ['fill: { ahead: 1KB }'] });
    edge.origin.on(PATH, mediaScript({ bytes }));
    const answer = await ask(edge.url + PATH, { headers: { ...READER, range: 'bytes=299990-' } });
    t.equal(answer.status, 206);
    t.same(answer.bytes, bytes.subarray(299_990));
  });
});

void t.test('a body that is not what the origin said is whole for nobody, and not kept', async (t) => {
  const lies: readonly { name: string; script: Script; corrupt?: boolean }[] = [
    {
      name: 'shorter than announced',
      script: (_seen, answer) => {
        answer.head(200, mediaHead({ bytes: BYTES }));
        void answer.write(BYTES.subarray(0, 10)).then(() => answer.hangUp());
      },
    },
    {
      name: 'reset on the way',
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
      name: 'other bytes, of a length that was not announced',
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
  for (const [index, { name, script, corrupt }] of lies.entries()) {
    await t.test(name, async (t) => {
      const path = `/v1/media/01J9ZC8GZ000000000000000${index}B`;
      edge.origin.on(path, script);
      const answers = await Promise.all([0, 1, 2].map(() => ask(edge.url + path, { headers: READER })));
      for (const answer of answers) t.notOk(answer.whole);
      await until(() => edge.engine.flights.underWay === 0);
      edge.origin.on(path, mediaScript({ bytes: BYTES }));
      const healed = await ask(edge.url + path, { headers: READER });
      t.ok(healed.whole);
      t.same(healed.bytes, BYTES);
      t.match(healed.headers['cache-status'], /fwd=uri-miss/, 'fetched again');
      if (corrupt === true) t.ok((await edge.counted('edge_fills_total', '{outcome="corrupt"}')) > 0);
    });
  }
});

/** A promise and what fulfils it. */
function gate(): [Promise<void>, () => void] {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return [opened, open];
}
