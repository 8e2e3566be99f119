/** The operators' listener over real sockets: figures, the live page, purging and reloading. */
import { readdirSync, readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { CacheStats } from '../../../edge/cache/cache.js';
import { operatorsSection } from '../../../edge/ops/config.js';
import { openOps } from '../../../edge/ops/ops.js';
import { purge, readPurge } from '../../../edge/ops/purge.js';
import { hitRatios, type StatsSources } from '../../../edge/ops/stats.js';
import { createTally } from '../../../edge/ops/tally.js';
import { createTraffic, type Traffic } from '../../../edge/ops/traffic.js';
import { sumOfTops } from '../../../edge/ops/watch.js';
import type { Watching } from '../../../edge/ops/watching.js';
import { OUTCOMES } from '../../../edge/request.js';
import type { MediaId } from '../../../src/ids.js';
import type { ReloadOutcome } from '../../../src/reload.js';
import { limitsSection } from '../../../src/server/limits.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { type HttpResponse, sendRequest } from '../../kit/http/request.js';
import { mediaId } from '../../kit/origin/journal.js';

const TIER = { entries: 3, usedBytes: 300, capacityBytes: 1_000, evictions: 2, refused: 1 };
const CACHE: CacheStats = {
  memory: TIER,
  disk: { ...TIER, entries: 9 },
  incomplete: TIER,
  fills: 1,
  corrupt: 0,
  recovered: 4,
  openFiles: 0,
};

const ORIGIN = { url: 'http://origin:9000', state: 'up', followed: true, requests: 40, failures: 3 } as const;
const NOBODY: Watching = {
  explain: async () => [],
  log: async () => ({ requests: [], skipped: 0, after: {} }),
  top: async () => sumOfTops([]),
};

interface Bench {
  readonly clock: ManualClock;
  readonly url: string;
  readonly tally: ReturnType<typeof createTally>;
  readonly traffic: Traffic;
  readonly purged: unknown[];
  readonly sample: (name: string) => Promise<number>;
  /** The result of the next reload. */
  outcome: ReloadOutcome;
}

async function openBench(t: Test, media = true): Promise<Bench> {
  const { log, metrics, sample } = testDeps();
  const clock = new ManualClock();
  const tally = createTally();
  const traffic = createTraffic(metrics);
  const purged: unknown[] = [];
  const sources: StatsSources = {
    edgeName: 'edge-1',
    startedAt: clock.now(),
    clock,
    tally,
    cache: () => CACHE,
    journal: () =>
      media ? { link: 'current', journal: 'a name of its own', applied: 7, newest: 9, connects: 1, purges: 1 } : null,
    lease: () => (media ? { verdict: 'yes', state: { kind: 'held', currentMsAgo: 12.4 } } : null),
    upstream: () => ({ breaker: 'half_open', inFlight: 2, requests: 40, failures: 3, origins: [ORIGIN] }),
    passing: () => 5,
    policy: () => ({ readAt: clock.now(), faults: [] }),
    firstByte: () => traffic.firstByte(),
  };
  const cache = {
    takeDown: async (id: MediaId) => purged.push(id),
    purge: async (which: object) => purged.push(which),
  };
  const bench: Bench = {
    url: '',
    clock,
    tally,
    traffic,
    purged,
    sample,
    outcome: { kind: 'applied', changed: true, changes: ['edge.rules: 0 entries -> 1 entries'], needRestart: [] },
  };
  const ops = await openOps({
    config: configured(operatorsSection, { port: 0, orderMaxBytes: 1_024 }),
    limits: configured(limitsSection, { closeWithinMs: 0 }),
    sources,
    purge: (order) =>
      purge(order, {
        cache,
        onTakedown: (id) => purged.push(`flights of ${id}`),
        onPurge: (which) => purged.push({ flights: which }),
      }),
    reload: () => bench.outcome,
    watching: NOBODY,
    takedowns: async () => [],
    clock,
    log,
    metrics,
  });
  t.teardown(() => ops.close());
  return Object.assign(bench, { url: ops.url });
}

function post(url: string, body: string, headers: Readonly<Record<string, string>> = {}): Promise<HttpResponse> {
  return sendRequest(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body });
}

const read = (answer: HttpResponse): Readonly<Record<string, unknown>> =>
  JSON.parse(answer.bytes.toString()) as Readonly<Record<string, unknown>>;

void t.test('figures are the same as JSON and for Prometheus', async (t) => {
  const bench = await openBench(t);
  for (let count = 0; count < 3; count += 1) bench.tally.count('hit_memory', 100);
  bench.tally.count('revalidated', 60);
  bench.tally.count('miss', 40);
  bench.tally.count('pass', 1_000);
  const stats = read(await sendRequest(`${bench.url}/stats`));
  t.match(stats, {
    edge: 'edge-1',
    requests: {
      hit_ratio: 0.6,
      byte_hit_ratio: 0.9,
      passing: 5,
      outcomes: { hit_memory: { requests: 3, bytes: 300 }, failed: { requests: 0, bytes: 0 } },
    },
    cache: {
      memory: { entries: 3, used_bytes: 300, capacity_bytes: 1_000, evictions: 2 },
      disk: { entries: 9 },
      filling: 1,
    },
    journal: { link: 'current', applied: 7, newest: 9, behind: 2 },
    lease: { state: 'held', may_serve: 'yes', current_ms_ago: 12 },
    upstream: { breaker: 'half_open', in_flight: 2, requests: 40, failures: 3, origins: [ORIGIN] },
    policy: { faults: [] },
  });
  t.equal((await sendRequest(`${bench.url}/metrics`)).status, 200);
  t.equal(await bench.sample('edge_journal_lag_seconds'), 0.0124);
  t.equal(await bench.sample('edge_upstream_breaker_open'), 1);

  const generic = read(await sendRequest(`${(await openBench(t, false)).url}/stats`));
  t.same([generic['journal'], generic['lease']], [null, null]);
  t.same(hitRatios(createTally().counts), { requests: null, bytes: null }, 'no ratio before anything was counted');
  t.equal(new Set(OUTCOMES).size, OUTCOMES.length);
});

void t.test('the requests of each second of the last two minutes are kept, however often they are read', async (t) => {
  const bench = await openBench(t);
  const perSecond = async (): Promise<readonly number[]> => {
    const { per_second } = read(await sendRequest(`${bench.url}/stats`))['requests'] as { per_second: number[] };
    return per_second;
  };
  t.same(await perSecond(), [0], 'it starts with an empty second');
  for (const requests of [3, 0, 12]) {
    for (let count = 0; count < requests; count += 1) bench.tally.count(count % 2 === 0 ? 'hit_memory' : 'own', 1);
    bench.clock.advance(1_000);
  }
  t.same(await perSecond(), [0, 3, 0, 12]);
  bench.tally.count('miss', 1);
  bench.clock.advance(118_000);
  const later = await perSecond();
  t.equal(later.length, 120);
  t.same(later.slice(0, 4), [0, 12, 1, 0], 'the oldest are dropped');
});

void t.test('the graphs have hits, times and tiers of each second, and the minutes before', async (t) => {
  const bench = await openBench(t);
  const ended = { answer: undefined, status: 200, complete: true, tookMs: 90 } as const;
  const take = (outcome: 'hit_memory' | 'miss', sentBytes: number, decidedMs: number): void => {
    bench.tally.count(outcome, sentBytes);
    bench.traffic.note({ method: 'GET', path: '/' }, { ...ended, outcome, sentBytes, decidedMs });
  };
  for (let count = 0; count < 3; count += 1) take('hit_memory', 100, 0.4);
  take('miss', 100, 60);
  bench.clock.advance(1_000);
  const { history, requests } = read(await sendRequest(`${bench.url}/stats`)) as unknown as Figures;
  t.match(history, { every_ms: 1_000, kept: 120 });
  t.same(history.rows.at(-1), {
    requests: 4,
    hits: 3,
    misses: 1,
    hit_ratio: 0.75,
    byte_hit_ratio: 0.75,
    hit_p95_ms: 0.5,
    miss_p95_ms: 97.5,
    memory_bytes: 300,
    disk_bytes: 300,
  });
  t.same(requests.first_byte_ms['hit_memory'], { p50: 0.3, p95: 0.5 });
  t.same(requests.first_byte_ms['failed'], { p50: null, p95: null });
  bench.clock.advance(1_000);
  const later = read(await sendRequest(`${bench.url}/stats`)) as unknown as Figures;
  t.match(later.history.rows.at(-1), { requests: 0, hit_ratio: null, hit_p95_ms: null });
  bench.clock.advance(58_000);
  t.match(read(await sendRequest(`${bench.url}/history`)), {
    every_ms: 60_000,
    kept: 360,
    rows: [{ hit_ratio: 0.75 }],
  });
});

interface Figures {
  readonly history: { readonly rows: readonly object[] };
  readonly requests: { readonly first_byte_ms: Readonly<Record<string, unknown>> };
}

void t.test('the page loads nothing but its own files, and has every element that its scripts name', async (t) => {
  const { url } = await openBench(t);
  const page = await sendRequest(`${url}/`);
  t.match(String(page.headers['content-security-policy']), /^default-src 'none'; script-src 'self'; style-src 'self';/);
  t.equal((await sendRequest(`${url}/`, { method: 'HEAD' })).bytes.length, 0);
  for (const folder of ['edge/ops/page', 'origin/ops/page']) {
    const html = readFileSync(`${folder}/index.html`, 'utf8');
    t.notMatch(html, /https?:|"\/\/|@import|url\(| on[a-z]+=|style=|<style|<script>/i, folder);
    const scripts = [folder, 'src/live'].flatMap((each) =>
      readdirSync(`dist/${each}`)
        .filter((name) => name.endsWith('.js'))
        .map((name) => `${each}/${name}`),
    );
    for (const script of scripts) {
      const named = readFileSync(`dist/${script}`, 'utf8').matchAll(/\b(?:byId|say|fillTable)\('([\w-]+)'/g);
      for (const [, id] of named) t.ok(html.includes(`id="${id}"`), `${folder} has ${id}, for ${script}`);
    }
  }
  for (const path of ['/edge/ops/page/main.js', '/src/live/chart.js', '/src/client/clock.js', '/src/live/live.css']) {
    t.equal((await sendRequest(url + path)).status, 200, path);
  }
  for (const path of ['/origin/ops/page/main.js', '/edge/ops/ops.js', '/src/live/..%2flog.js', '/src/live/chart.ts']) {
    t.equal((await sendRequest(url + path)).status, 404, path);
  }
});

void t.test(
  'purging takes one order at a time, ends fetches first, and answers how many responses were dropped',
  async (t) => {
    const bench = await openBench(t);
    const [first, second] = [mediaId(1), mediaId(2)];
    t.same(read(await post(`${bench.url}/purge`, JSON.stringify({ ids: [first.toLowerCase(), second] }))), {
      dropped: 3 + 4,
    });
    t.same(bench.purged.splice(0), [`flights of ${first}`, `flights of ${second}`, first, second]);
    t.equal((await post(`${bench.url}/purge`, '{"prefix":"/v1/media/01J"}')).status, 200);
    t.equal((await post(`${bench.url}/purge`, '{"all":true}')).status, 200);
    t.same(bench.purged.splice(0), [
      { flights: { prefix: '/v1/media/01J' } },
      { prefix: '/v1/media/01J' },
      { flights: { all: true } },
      { all: true },
    ]);
    const refused: readonly unknown[] = [
      undefined,
      null,
      1,
      'all',
      [],
      {},
      { all: false },
      { all: 'true' },
      { all: true, ids: [first] },
      { ids: [] },
      { ids: 'x' },
      { ids: [first, '../x'] },
      { ids: [1] },
      { prefix: '' },
      { prefix: 'v1' },
      { prefix: 1 },
      { host: '*' },
    ];
    for (const order of refused) t.equal(readPurge(order).kind, 'refused', JSON.stringify(order));
    const table: readonly (readonly [string, number])[] = [
      ['', 400],
      ['{', 400],
      ['{"all":1}', 400],
      [`{"prefix":"/${'x'.repeat(2_000)}"}`, 413],
    ];
    for (const [body, status] of table)
      t.equal((await post(`${bench.url}/purge`, body)).status, status, body.slice(0, 20));
    t.same(bench.purged, []);
  },
);

void t.test('a page of another site, or under a rebound name, can do nothing', async (t) => {
  const bench = await openBench(t);
  const own = bench.url.replace('http://', '');
  const table: readonly (readonly [Readonly<Record<string, string>>, number])[] = [
    [{}, 200],
    [{ origin: bench.url }, 200],
    [{ origin: bench.url, 'sec-fetch-site': 'same-origin' }, 200],
    [{ host: 'edge-3.internal' }, 403],
    [{ 'content-type': 'text/plain' }, 415],
    [{ origin: 'http://evil.example' }, 403],
    [{ origin: 'null' }, 403],
    [{ 'sec-fetch-site': 'cross-site' }, 403],
    [{ 'sec-fetch-site': 'same-site', origin: bench.url }, 403],
    [{ origin: 'http://evil.example', host: 'evil.example', 'sec-fetch-site': 'same-origin' }, 403],
    [{ origin: `http://${own.replace('127.0.0.1', 'localhost')}`, host: own.replace('127.0.0.1', 'localhost') }, 200],
  ];
  for (const [headers, status] of table) {
    t.equal((await post(`${bench.url}/purge`, '{"all":true}', headers)).status, status, JSON.stringify(headers));
  }
  t.equal((await post(`${bench.url}/reload`, '', { 'sec-fetch-site': 'cross-site' })).status, 403);
  t.equal((await sendRequest(`${bench.url}/purge`)).status, 405);
  t.equal((await sendRequest(`${bench.url}/purge`)).headers['allow'], 'POST');
  t.equal((await sendRequest(`${bench.url}/nothing`)).status, 404);
});

void t.test('a reload that is refused answers with all its faults', async (t) => {
  const bench = await openBench(t);
  t.same(read(await post(`${bench.url}/reload`, '')), {
    changed: true,
    changes: ['edge.rules: 0 entries -> 1 entries'],
    need_restart: [],
  });
  bench.outcome = { kind: 'refused', faults: ['edge.a: is wrong', 'edge.b: too'] };
  const refused = await post(`${bench.url}/reload`, '');
  t.equal(refused.status, 409);
  t.match(read(refused), { code: 'conflict', faults: ['edge.a: is wrong', 'edge.b: too'] });
});
