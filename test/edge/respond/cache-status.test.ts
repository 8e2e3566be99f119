/** Cache-Status says what is true: `stored` where something was kept, and why nothing stale was served. */
import t, { type Test } from 'tap';
import { openTestEdge, type TestEdge, type TestEdgeOptions } from '../../kit/edge/edge.js';
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
