/** What requests are counted as: by route, method, status, outcome, kind and time, and why the origin was asked. */
import t from 'tap';
import { createTraffic, kindOf } from '../../../edge/ops/traffic.js';
import type { MediaId } from '../../../src/ids.js';
import { routeOf } from '../../../src/logs/route.js';
import { createMetrics, Durations, quantileMs, renderTogether } from '../../../src/metrics.js';
import { openTestEdge } from '../../kit/edge/edge.js';
import { mediaHead } from '../../kit/edge/scripted-origin.js';
import { sendRequest } from '../../kit/http/request.js';

const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const PATH = `/v1/media/${ID}`;
const READER = { authorization: 'Bearer reader' };

void t.test('a request has the route of its path', async (t) => {
  for (const [path, route] of [
    [PATH, 'original'],
    [`${PATH}/thumb`, 'thumb'],
    [`${PATH}/info`, 'info'],
    [`${PATH}/link`, 'media'],
    ['/v1/media', 'media'],
    ['/v1/uploads/x', 'uploads'],
    ['/v1/links', 'links'],
    ['/v1/admin/media', 'admin'],
    ['/internal/v1/journal', 'internal'],
    ['/healthz', 'health'],
    ['/readyz', 'health'],
    ['/', 'other'],
  ] as const) {
    t.equal(routeOf(path), route, path);
  }
});

void t.test('content has the kind of its type, and thumbnails are a kind of their own', async (t) => {
  const entry = (type: string, primaryKey = PATH) => ({
    mediaId: ID,
    primaryKey,
    headers: [['content-type', type]] as const,
  });
  for (const [type, kind] of [
    ['image/png', 'image'],
    ['video/mp4', 'video'],
    ['audio/ogg', 'audio'],
    ['text/plain; charset=utf-8', 'file'],
    ['', 'file'],
  ] as const) {
    t.equal(kindOf(entry(type)), kind, type);
  }
  t.equal(kindOf(entry('image/webp', `${PATH}/thumb?w=1&h=1#webp`)), 'thumbnail');
  t.equal(kindOf(undefined), 'none');
});

void t.test('an edge counts its requests, their kinds, and why the origin was asked', async (t) => {
  const edge = await openTestEdge(t.testdir());
  t.teardown(() => edge.close());
  const bytes = Buffer.alloc(1_000, 7);
  edge.origin.on(PATH, (_seen, answer) => {
    answer.head(200, mediaHead({ bytes, contentType: 'image/webp' }));
    answer.end(bytes);
  });
  for (let count = 0; count < 3; count += 1) await sendRequest(edge.url + PATH, { headers: READER });
  await sendRequest(edge.url + PATH);
  await edge.engine.cache.purge({ all: true });
  await sendRequest(edge.url + PATH, { headers: READER });
  const request = (outcome: string, status: number): string =>
    `{route="original",method="GET",status="${status}",outcome="${outcome}"}`;
  t.equal(await edge.counted('edge_requests_total', request('hit_memory', 200)), 2);
  t.equal(await edge.counted('edge_requests_total', request('miss', 200)), 2);
  t.equal(await edge.counted('edge_requests_total', request('refused', 401)), 1);
  t.equal(await edge.counted('edge_answers_total', '{outcome="hit_memory",kind="image"}'), 2);
  t.equal(await edge.counted('edge_answers_total', '{outcome="refused",kind="none"}'), 1);
  t.ok((await edge.counted('edge_sent_bytes_total', '{outcome="hit_memory",kind="image"}')) > 2_000);
  t.equal(await edge.counted('edge_misses_total', '{reason="never_seen"}'), 1);
  t.equal(await edge.counted('edge_misses_total', '{reason="purged"}'), 1);
  t.equal(await edge.counted('edge_first_byte_seconds_count', '{outcome="miss"}'), 2);
  t.equal(await edge.counted('edge_request_seconds_bucket', '{le="+Inf",outcome="hit_memory"}'), 2);
  t.equal(await edge.counted('edge_stored_total', '{tier="memory"}'), 2);
  t.equal(await edge.counted('edge_upstream_first_byte_seconds_count'), 2);
  t.equal(await edge.counted('edge_upstream_received_bytes_total'), 2_000);
});

void t.test('durations fall into buckets that add up', async (t) => {
  const durations = new Durations();
  for (const ms of [0, 0.5, 0.6, 30, 40_000]) durations.add(ms);
  const counts = new Map(durations.cumulative());
  t.equal(counts.get('0.0005'), 2);
  t.equal(counts.get('0.001'), 3);
  t.equal(counts.get('0.05'), 4);
  t.equal(counts.get('30'), 4);
  t.equal(counts.get('+Inf'), 5);
  t.equal(Math.round(durations.sumSeconds * 1e6), 40_031_100);
  t.equal(
    durations.counts().reduce((sum, count) => sum + count, 0),
    5,
  );
});

void t.test(
  'the time within which a share of durations stayed is found between the bounds of its bucket',
  async (t) => {
    const shares = (all: readonly number[], share: number): number | null => {
      const durations = new Durations();
      for (const ms of all) durations.add(ms);
      return quantileMs(durations.counts(), share);
    };
    t.equal(shares([], 0.5), null);
    t.equal(shares([0.1], 0.5), 0.3, 'the middle of the first bucket');
    t.equal(shares([60, 60, 60, 60], 0.5), 75);
    t.equal(shares([0.1, 0.1, 0.1, 60], 0.75), 0.5, 'the upper bound of the bucket that has them all');
    t.equal(shares([0.1, 0.1, 0.1, 60], 0.95), 90);
    t.equal(shares([90_000], 0.95), 30_000, 'longer than every bound');
  },
);

void t.test('the counts of several processes are added', async (t) => {
  const snapshots = [1, 2].map(async (times) => {
    const metrics = createMetrics('m_');
    const traffic = createTraffic(metrics);
    for (let count = 0; count < times; count += 1) {
      traffic.note(
        { method: 'GET', path: '/' },
        { outcome: 'pass', answer: undefined, status: 200, sentBytes: 5, complete: true, tookMs: 2, decidedMs: 1 },
      );
    }
    return await metrics.snapshot();
  });
  const { text } = await renderTogether(await Promise.all(snapshots));
  t.match(text, /^m_edge_requests_total\{route="other",method="GET",status="200",outcome="pass"\} 3$/m);
  t.match(text, /^m_edge_request_seconds_bucket\{le="0\.0025",outcome="pass"\} 3$/m);
  t.match(text, /^m_edge_request_seconds_count\{outcome="pass"\} 3$/m);
});
