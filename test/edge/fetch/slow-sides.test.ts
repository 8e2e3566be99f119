/** A slow disk and slow clients keep nobody else from the origin. */
import t, { type Test } from 'tap';
import { FaultyFiles } from '../../kit/edge/cache.js';
import { openTestEdge, type TestEdge, type TestEdgeOptions } from '../../kit/edge/edge.js';
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
