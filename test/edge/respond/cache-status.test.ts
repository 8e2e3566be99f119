/** Cache-Status says what is true: `stored` where something was kept, and why nothing stale was served. */
import t, { type Test } from 'tap';
import { edgeSection } from '../../../edge/config.js';
import { edgeWarnings } from '../../../edge/warnings.js';
import { parseConfig } from '../../../src/config/load.js';
import { openTestEdge, type TestEdge, type TestEdgeOptions } from '../../kit/edge/edge.js';
import { mediaScript } from '../../kit/edge/scripted-origin.js';
import { sendRequest } from '../../kit/http/request.js';
import { until } from '../../kit/until.js';

const BODY = Buffer.alloc(20_000, 'x');
const DISK = 'disk: { min_free: 0B }';
const NO_MEMORY = 'memory: { size: 0B }';
const NO_DISK = 'disk: { size: 0B }';

async function open(t: Test, options: TestEdgeOptions): Promise<TestEdge> {
  const edge = await openTestEdge(t.testdir(), options);
  t.teardown(() => edge.close());
  return edge;
}

interface Row {
  readonly name: string;
  readonly cache: string;
  readonly rule?: string;
  /** For each request in turn, whether its answer says `stored`, and its response is stored. */
  readonly stored: readonly boolean[];
}

const ROWS: readonly Row[] = [
  { name: 'memory over disk', cache: DISK, stored: [true] },
  { name: 'memory alone', cache: NO_DISK, stored: [true] },
  { name: 'disk alone', cache: `${NO_MEMORY}, ${DISK}`, stored: [true] },
  { name: 'no tier', cache: `${NO_MEMORY}, ${NO_DISK}`, stored: [false, false] },
  { name: 'a rule that names no tier', cache: DISK, rule: 'tiers: none', stored: [false, false] },
  { name: 'a rule that names a tier that is off', cache: NO_DISK, rule: 'tiers: disk', stored: [false, false] },
  { name: 'a rule for other bodies', cache: DISK, rule: 'tiers: none, from: 1MB', stored: [true] },
  { name: 'too large for memory', cache: `memory: { max_object: 1KB }, ${NO_DISK}`, stored: [false, false] },
  { name: 'larger than all memory', cache: `memory: { size: 10KB }, ${NO_DISK}`, stored: [false, false] },
  {
    name: 'too large for the disk',
    cache: `${NO_MEMORY}, disk: { max_object: 1KB, min_free: 0B }`,
    stored: [false, false],
  },
  { name: 'too large for memory, not for the disk', cache: `memory: { max_object: 1KB }, ${DISK}`, stored: [true] },
  { name: 'a disk below its floor', cache: `${NO_MEMORY}, disk: { min_free: 1000TB }`, stored: [false, false] },
  {
    name: 'a disk that admits at the second request',
    cache: `${NO_MEMORY}, disk: { min_free: 0B, admission: second_hit }`,
    stored: [false, true],
  },
  {
    name: 'the same by a rule',
    cache: `${NO_MEMORY}, ${DISK}`,
    rule: 'admission: second_hit',
    stored: [false, true],
  },
  {
    name: 'the same, where memory takes it',
    cache: `disk: { min_free: 0B, admission: second_hit }`,
    stored: [true],
  },
];

void t.test('`stored` is told only where something was kept', async (t) => {
  for (const { name, cache, rule, stored } of ROWS) {
    for (const framing of ['content-length', 'chunked']) {
      // At its head nobody knows how long a chunked body will be.
      if (framing === 'chunked' && /large|floor|other bodies/.test(name)) continue;
      await t.test(`${name}, ${framing}`, async (t) => {
        const edge = await open(t, {
          edge: ['access: off', ...(rule === undefined ? [] : [`rules: [{ ${rule} }]`])],
          cache,
        });
        edge.origin.on('*', (_seen, answer) => {
          const length = framing === 'chunked' ? {} : { 'content-length': String(BODY.length) };
          answer.head(200, { 'cache-control': 'max-age=600', ...length });
          answer.end(BODY);
        });
        for (const expected of stored) {
          const { status, headers } = await sendRequest(`${edge.url}/a`);
          t.equal(status, 200);
          t.match(headers['cache-status'], /^edge; fwd=uri-miss; fwd-status=200; ttl=600(?:; stored)?$/);
          t.equal(/; stored/.test(String(headers['cache-status'])), expected);
          await until(
            'it is stored or dropped',
            () => edge.engine.flights.underWay + edge.engine.cache.stats().fills === 0,
          );
          t.equal(entriesIn(edge) > 0, expected);
        }
      });
    }
  }
});

function entriesIn(edge: TestEdge): number {
  const { memory, disk } = edge.engine.cache.stats();
  return memory.entries + disk.entries;
}

void t.test('a stale copy that only the lease keeps from being served is told of', async (t) => {
  const path = '/v1/media/01J9ZC8GZ0000000000000000A';
  const headers = { authorization: 'Bearer reader' };
  const edge = await open(t, {});
  const ask = async () => {
    const answer = await sendRequest(edge.url + path, { headers });
    return { status: answer.status, cacheStatus: String(answer.headers['cache-status']) };
  };
  edge.origin.on(path, mediaScript({ bytes: BODY, maxAgeSeconds: 1, headers: { 'x-kind': 'good' } }));
  t.match((await ask()).cacheStatus, /; stored$/);
  edge.clock.advance(70_000);
  edge.origin.on(path, (_seen, answer) => answer.reset());
  t.match(await ask(), { status: 200, cacheStatus: /^edge; hit; ttl=-\d+; detail=stale-if-error$/ });
  edge.lease = 'revalidate';
  t.match(await ask(), { status: 502, cacheStatus: /^edge; fwd=stale; detail=lease$/ });
  edge.origin.on(path, (_seen, answer) => {
    answer.head(503, { 'content-length': '0' });
    answer.end();
  });
  t.match(await ask(), { status: 503, cacheStatus: /^edge; fwd=stale; fwd-status=503; detail=lease$/ });
  edge.origin.on(path, mediaScript({ bytes: BODY }));
  t.match(await ask(), {
    status: 200,
    cacheStatus: /^edge; fwd=stale; fwd-status=304; ttl=3600; stored; detail=lease$/,
  });
  t.match(await ask(), { status: 200, cacheStatus: /; detail=lease$/ }, 'also why a fresh copy is revalidated');
});

void t.test('check warns of stale media that the lease does not let be served for so long', async (t) => {
  const warned = (...lines: readonly string[]): readonly string[] => {
    const text = ['edge:', ...lines.map((line) => `  ${line}`)].join('\n');
    const read = parseConfig(text, { edge: edgeSection });
    if (read.kind === 'faulty') throw new Error(JSON.stringify(read.faults));
    return edgeWarnings(read.config.edge).map((warning) => warning.path);
  };
  const hour = 'freshness: { stale_if_error: 1h }';
  const rule = 'rules: [{ path: thumb, tiers: memory }, { stale_if_error: 1h }]';
  const lease = (text: string): string => `journal: { lease: { ${text} } }`;
  t.same(warned(), [], 'not of the default');
  t.same(warned(hour), ['edge.freshness.stale_if_error']);
  t.same(warned(hour, rule), ['edge.freshness.stale_if_error', 'edge.rules.1.stale_if_error']);
  t.same(warned(hour, lease('mode: refuse')), ['edge.freshness.stale_if_error']);
  t.same(warned(hour, lease('mode: serve, serve_max: 10m')), ['edge.freshness.stale_if_error']);
  t.same(warned(hour, lease('mode: serve, serve_max: 1h')), []);
  t.same(warned(hour, lease('ttl: 1h')), []);
  t.same(warned('access: off', hour), [], 'a generic cache has no lease');
  t.same(warned('freshness: { stale_if_error: 5s }'), []);
});
