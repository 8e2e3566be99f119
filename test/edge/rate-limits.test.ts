import t from 'tap';
import { createRateLimits, readStatedRates } from '../../edge/rate-limits.js';
import { createMetrics } from '../../src/metrics.js';
import { ManualClock } from '../kit/clock.js';
import { openTestEdge } from '../kit/edge/edge.js';
import { mediaScript } from '../kit/edge/scripted-origin.js';
import { sendRequest } from '../kit/http/request.js';
import { mediaId } from '../kit/origin/journal.js';

const READER = { authorization: 'Bearer reader' };

void t.test('a client may make the edge ask the origin so often, and takes nothing from others', async (t) => {
  const edge = await openTestEdge(t.testdir(), { edge: ['trusted_proxies: [loopback]'] });
  t.teardown(() => edge.close());
  edge.rates = { windowMs: 10_000, subjectMax: 4, addressMax: 6 };
  for (let at = 1; at <= 40; at += 1) {
    edge.origin.on(`/v1/media/${mediaId(at)}`, mediaScript({ bytes: Buffer.from(`media ${at}`) }));
  }
  edge.origin.on('/v1/uploads/x', (_seen, answer) => {
    answer.head(204, {});
    answer.end();
  });
  let last = 0;
  const next = (): number => {
    last += 1;
    return last;
  };
  const ask = async (address: string, headers = {}, path?: string, method = 'GET') =>
    await sendRequest(`${edge.url}${path ?? `/v1/media/${mediaId(next())}`}`, {
      method,
      headers: { ...headers, 'x-forwarded-for': address },
    });
  const statuses = async (count: number, send: () => Promise<{ readonly status: number }>) => {
    const seen: number[] = [];
    for (let each = 0; each < count; each += 1) seen.push((await send()).status);
    return seen;
  };

  t.same(await statuses(5, () => ask('192.0.2.1', READER)), [200, 200, 200, 200, 429], 'one subject');
  t.same(await statuses(1, () => ask('192.0.2.2', READER)), [429], 'from any address');
  const first = `/v1/media/${mediaId(1)}`;
  t.same(await statuses(20, () => ask('192.0.2.1', READER, first)), Array(20).fill(200), 'hits do not count');
  const limited = await ask('192.0.2.1', READER);
  t.match(limited, { headers: { 'retry-after': '3', 'cache-control': 'no-store' } });
  t.match(JSON.parse(limited.bytes.toString()), { code: 'rate_limited', status: 429 });

  const stranger = { authorization: 'Bearer unknown' };
  t.equal((await ask('192.0.2.9')).status, 401, 'others go on');
  const pass = () => ask('192.0.2.3', stranger, '/v1/uploads/x', 'DELETE');
  t.same(await statuses(7, pass), [...Array(6).fill(204), 429], 'one address, for what is passed on');
  t.equal((await ask('::ffff:192.0.2.3', {})).status, 429, 'and for what is fetched');
  t.same(
    await statuses(7, () => ask(`2001:db8::${next()}`, stranger, '/v1/uploads/x', 'DELETE')),
    [...Array(6).fill(204), 429],
    'a network of IPv6 is one client',
  );
  t.equal((await ask('2001:db8:0:1::1', stranger, '/v1/uploads/x', 'DELETE')).status, 204);
  t.equal(await edge.counted('edge_rate_limited_total', '{limit="subject"}'), 3);

  edge.clock.advance(10_000);
  t.same(await statuses(5, () => ask('192.0.2.1', READER)), [200, 200, 200, 200, 429], 'all is back after a window');
  edge.rates = { windowMs: 10_000, subjectMax: 6, addressMax: null };
  t.same(
    await statuses(7, () => ask('192.0.2.1', READER)),
    [...Array(6).fill(200), 429],
    'the origin has stated others',
  );
  edge.rates = undefined;
  t.same(await statuses(3, () => ask('192.0.2.1', READER)), [200, 200, 200], 'or none');
});

void t.test('refused bodies at a limit take no slot, and an edge behind is not limited', async (t) => {
  const edge = await openTestEdge(t.testdir(), { edge: ['pass: { concurrent_max: 2, reserved_max: 0 }'] });
  t.teardown(() => edge.close());
  edge.rates = { windowMs: 10_000, subjectMax: null, addressMax: 1 };
  edge.origin.on('*', mediaScript({ bytes: Buffer.from('media') }));
  const ask = (at: number, headers: Readonly<Record<string, string>>) =>
    sendRequest(`${edge.url}/v1/media/${mediaId(at)}`, { headers });
  t.equal((await ask(1, READER)).status, 200);
  t.equal((await ask(2, READER)).status, 429);
  const upload = () =>
    sendRequest(`${edge.url}/v1/media`, { method: 'POST', body: Buffer.alloc(100_000), headers: READER });
  for (let count = 0; count < 5; count += 1) t.equal((await upload()).status, 429);
  const { proof } = edge.engine.identity;
  for (let at = 3; at < 8; at += 1) t.equal((await ask(at, { 'edge-authorization': proof })).status, 200);
});

void t.test('what makes no sense as a limit is none', (t) => {
  const rates = { requests: 5 };
  const read = (value: unknown) => readStatedRates(value);
  t.same(read({ window_seconds: 10, subject: rates, address: { requests: null } }), {
    windowMs: 10_000,
    subjectMax: 5,
    addressMax: null,
  });
  t.same(read({ window_seconds: 10, subject: { requests: -1 } }), {
    windowMs: 10_000,
    subjectMax: null,
    addressMax: null,
  });
  for (const wrong of [
    undefined,
    null,
    'x',
    {},
    { window_seconds: 0 },
    { window_seconds: 1e9 },
    { window_seconds: 0.5 },
  ]) {
    t.equal(read(wrong), undefined, JSON.stringify(wrong));
  }
  const off = createRateLimits({
    config: { enabled: false, keysMax: 100 },
    stated: () => ({ windowMs: 1_000, subjectMax: 1, addressMax: 1 }),
    clock: new ManualClock(),
    metrics: createMetrics(''),
  });
  for (let count = 0; count < 5; count += 1) off.admit({ address: '192.0.2.1', subject: 'ann' });
  t.end();
});
