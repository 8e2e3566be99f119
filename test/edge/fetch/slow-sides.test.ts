/** A slow disk and slow clients keep nobody else from the origin. */
import { once } from 'node:events';
import t, { type Test } from 'tap';
import { hasOpenssl, selfSigned } from '../../kit/certificates.js';
import { FaultyFiles } from '../../kit/edge/cache.js';
import { openTestEdge, type TestEdge, type TestEdgeOptions } from '../../kit/edge/edge.js';
import { connectHttp2, fetchHttp2 } from '../../kit/http/http2.js';
import { connectRaw, type RawConnection } from '../../kit/http/raw.js';
import { sendRequest } from '../../kit/http/request.js';
import { until } from '../../kit/until.js';

const BODY = Buffer.alloc(8_192, 'x');

async function open(t: Test, options: TestEdgeOptions): Promise<TestEdge> {
  const edge = await openTestEdge(t.testdir(), options);
  t.teardown(() => edge.close());
  return edge;
}

for (const memory of ['100MB', '0B']) {
  void t.test(`a slow disk keeps no fetch waiting, with a memory tier of ${memory}`, async (t) => {
    const files = new FaultyFiles();
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    files.before = async (verb, path) => {
      if (verb === 'create' && path.includes('spool')) await held;
    };
    const edge = await open(t, {
      edge: ['access: off', 'fill: { concurrent_max: 4 }'],
      cache: `memory: { size: ${memory} }, disk: { min_free: 0B }`,
      files,
    });
    t.teardown(release);
    edge.origin.on('*', (_seen, answer) => {
      answer.head(200, { 'cache-control': 'max-age=600', 'content-length': String(BODY.length) });
      answer.end(BODY);
    });
    for (let key = 0; key < 40; key += 1) {
      const { status, bytes } = await sendRequest(`${edge.url}/${key}`);
      t.equal(status, 200, `${key}`);
      t.ok(bytes.equals(BODY));
    }
    t.equal((await sendRequest(`${edge.url}/0`)).status, 200);
    t.equal(edge.origin.count('/0'), 1, 'what is not stored yet is served from where it is');
    t.equal(edge.engine.flights.fetching, 0);
    release();
    await until('all are stored', () => edge.engine.cache.stats().disk.entries === 40);
  });
}

/** Larger than what the system buffers between two sockets. */
const LARGE = Buffer.alloc(24 * 1_048_576, 'x');

/** Responses of these sizes, at `/small/...` and `/large/...`, that may not be stored. */
function serveUncacheable(edge: TestEdge, small: Buffer): void {
  edge.origin.on('*', (seen, answer) => {
    const body = seen.path.startsWith('/large') ? LARGE : small;
    answer.head(200, { 'cache-control': 'no-store', 'content-length': String(body.length) });
    answer.end(body);
  });
}

async function readSlowly(t: Test, edge: TestEdge, path: string): Promise<RawConnection> {
  const raw = await connectRaw(edge.listener.port);
  t.teardown(() => raw.socket.destroy());
  raw.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
  await raw.until(/^HTTP\/1\.1 200 /);
  raw.socket.pause();
  return raw;
}

void t.test('clients that do not read keep no other client from the origin', async (t) => {
  const edge = await open(t, { edge: ['access: off'], upstream: 'connections_max: 2, slow_max: 4' });
  serveUncacheable(edge, BODY);
  for (const path of ['/large/1', '/large/2', '/large/3', '/large/4']) await readSlowly(t, edge, path);
  for (let turn = 0; turn < 8; turn += 1) {
    const { status, whole } = await sendRequest(`${edge.url}/small/${turn}`);
    t.same({ status, whole }, { status: 200, whole: true });
  }
});

void t.test('a client that does not read gets the whole once it reads, though its connection was lent', async (t) => {
  const edge = await open(t, { edge: ['access: off'], upstream: 'connections_max: 1, slow_max: 1' });
  serveUncacheable(edge, BODY);
  const slow = await readSlowly(t, edge, '/large/1');
  t.equal((await sendRequest(`${edge.url}/small/1`)).status, 200);
  let receivedBytes = 0;
  slow.socket.removeAllListeners('data').on('data', (chunk: Buffer) => (receivedBytes += chunk.length));
  slow.socket.resume();
  await until('all has come', () => receivedBytes > LARGE.length - 100_000);
  t.equal(await edge.counted('edge_upstream_slow_clients_total'), 0);
});

void t.test('a client that has waited too long is cut off, if another needs its connection', async (t) => {
  const edge = await open(t, { edge: ['access: off'], upstream: 'connections_max: 1, slow_max: 0, head_within: 10m' });
  serveUncacheable(edge, BODY);
  const slow = await readSlowly(t, edge, '/large/1');
  const other = sendRequest(`${edge.url}/small/1`);
  let answered = false;
  void other.then(() => (answered = true));
  await until('the other is answered', () => {
    edge.clock.advance(10);
    return answered;
  });
  t.equal((await other).status, 200);
  t.equal(await edge.counted('edge_upstream_slow_clients_total'), 1);
  slow.socket.resume();
  await slow.closed;
});

void t.test('what fits in memory frees its connection at once, and is cut off by a takedown', async (t) => {
  const edge = await open(t, {
    edge: ['access: off', 'fill: { concurrent_max: 2 }'],
    upstream: 'connections_max: 1, slow_max: 0, ahead: { body_max: 32MB, total: 64MB }',
  });
  serveUncacheable(edge, BODY);
  const slow = [await readSlowly(t, edge, '/large/1'), await readSlowly(t, edge, '/large/2')];
  for (let turn = 0; turn < 4; turn += 1) t.equal((await sendRequest(`${edge.url}/small/${turn}`)).status, 200);
  t.equal(edge.engine.flights.fetching, 0);
  edge.engine.flights.breakOffWhere(() => true);
  for (const raw of slow) {
    raw.socket.resume();
    await raw.closed;
    t.ok(raw.text.length < LARGE.length, 'it is not the whole');
  }
});

void t.test('memory that all bodies share bounds what is received ahead', async (t) => {
  const edge = await open(t, {
    edge: ['access: off'],
    upstream: 'connections_max: 1, slow_max: 0, ahead: { body_max: 32MB, total: 0B }, head_within: 10m',
  });
  serveUncacheable(edge, BODY);
  await readSlowly(t, edge, '/large/1');
  const other = sendRequest(`${edge.url}/small/1`);
  await until('it waits', () => edge.engine.upstream.stats().inFlight === 2);
  t.equal(edge.origin.count('/small/1'), 0);
  let answered = false;
  void other.then(() => (answered = true));
  await until('the other is answered', () => {
    edge.clock.advance(10);
    return answered;
  });
});

void t.test(
  'nor do clients that do not read their streams of HTTP/2',
  { skip: hasOpenssl ? false : 'openssl is missing' },
  async (t) => {
    const { certFile, keyFile, cert } = selfSigned(t.testdir({}), 'slow');
    const tls = `certificate_file: ${JSON.stringify(certFile)}, key_file: ${JSON.stringify(keyFile)}`;
    const edge = await openTestEdge(t.testdirName, {
      edge: ['access: off'],
      upstream: 'connections_max: 2, slow_max: 4',
      tls,
    });
    t.teardown(() => edge.close());
    serveUncacheable(edge, BODY);
    const [slow, other] = [await connectHttp2(edge.url, cert), await connectHttp2(edge.url, cert)];
    for (const client of [slow, other]) t.teardown(() => client.destroy());
    for (let stream = 0; stream < 4; stream += 1) await once(slow.request({ ':path': `/large/${stream}` }), 'response');
    for (let turn = 0; turn < 4; turn += 1) {
      const { status, bytes } = await fetchHttp2(other, { ':path': `/small/${turn}` });
      t.equal(status, 200);
      t.ok(bytes.equals(BODY));
    }
  },
);
