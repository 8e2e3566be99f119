/** The origin's server: connections, the log, rate limits, and closing. */
import { strict as assert } from 'node:assert';
import * as fc from 'fast-check';
import t from 'tap';
import { createBuckets } from '../../../src/server/token-buckets.js';
import { connectRaw, requestHead } from '../../kit/http/raw.js';
import { type HttpResponse, json, type RequestOptions } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { startOrigin } from '../../kit/origin/origin.js';

const NO_THUMBS = { thumbs: { enabled: false, wait: '0ms', video: { enabled: false } } };
const code = (response: HttpResponse): string => `${response.status} ${String(json(response)['code'])}`;

void t.test('a request and its response', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());
  const id = await origin.uploaded(png(1), '?public=true');

  await t.test('a target in absolute form is accepted', async (t) => {
    const wire = await connectRaw(origin.port);
    wire.write(requestHead('GET', `http://media.example/v1/media/${id}?x=1`, { connection: 'close' }));
    t.match(await wire.whole(), /^HTTP\/1\.1 200 /);
    wire.socket.destroy();
  });

  await t.test(
    'a response to a request with an unread body keeps or closes the connection, and never mixes up requests',
    async (t) => {
      const wire = await connectRaw(origin.port);
      wire.write(requestHead('POST', '/v1/nothing', { 'content-length': 5 }));
      await wire.until(/404[\s\S]*not_found[^}]*\}/);
      wire.write(`hello${requestHead('GET', '/healthz', {})}`);
      t.match(await wire.until(/"live"\}$/), /HTTP\/1\.1 200 OK[\s\S]*"live"\}$/);
      wire.socket.destroy();
      const large = await connectRaw(origin.port);
      large.write(requestHead('POST', '/v1/nothing', { 'content-length': 1_000_000 }));
      await large.until(/not_found[^}]*\}/);
      large.write(Buffer.alloc(1_000_000));
      t.match(await large.whole(), /connection: close/i);
      large.socket.destroy();
    },
  );

  await t.test('the log has a line for each request, with its id and without secrets', async (t) => {
    const token = origin.auth.token({ sub: 'carol' });
    await origin.send(`/v1/media/${id}?exp=1&kid=1&sig=topsecretsignature`, {
      headers: { authorization: `Bearer ${token}`, 'x-request-id': 'routes-test-0001' },
    });
    const find = (): string | undefined => origin.logged.find((each) => each.includes('routes-test-0001'));
    while (find() === undefined) await new Promise(setImmediate);
    const line = JSON.parse(find() ?? '{}') as Record<string, unknown>;
    t.match(line, {
      method: 'GET',
      status: 200,
      msg: 'request',
      subject: /^[0-9a-f]{12}$/,
      total_ms: Number,
      bytes: Number,
      address: '127.0.0.1',
    });
    const all = origin.logged.join('\n');
    for (const secret of ['topsecretsignature', token, token.split('.')[2] ?? token, 'carol']) t.notMatch(all, secret);
    const strange = await origin.send('/healthz', { headers: { 'x-request-id': 'not <well> formed' } });
    t.match(strange.headers['x-request-id'], /^[0-9a-f-]{36}$/);
  });

  await t.test('every response is described in openapi.json', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('a bucket never gives more points than it has plus those that came back', async () => {
  const steps = fc.array(fc.record({ afterMs: fc.nat(3_000), points: fc.integer({ min: 1, max: 4 }), key: fc.nat(2) }));
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 7 }), (taken, pointsMax) => {
      const windowMs = 1_000;
      const buckets = createBuckets({ pointsMax, windowMs, keysMax: 3 });
      const given = new Map<number, { atMs: number; points: number }[]>();
      let nowMs = 0;
      for (const { afterMs, points, key } of taken) {
        nowMs += afterMs;
        const { admitted, left, retryInMs } = buckets.take(String(key), points, nowMs);
        const log = given.get(key) ?? [];
        if (admitted) given.set(key, [...log, { atMs: nowMs, points }]);
        else assert.ok(retryInMs > 0);
        // In any span of time: all points of a bucket, plus those that come back in that time.
        for (const [from, { atMs }] of (given.get(key) ?? []).entries()) {
          const sum = (given.get(key) ?? []).slice(from).reduce((total, each) => total + each.points, 0);
          assert.ok(sum <= pointsMax + ((nowMs - atMs) / windowMs) * pointsMax + 1e-6);
        }
        assert.ok(left >= 0 && left <= pointsMax);
        if (!admitted && points <= pointsMax) {
          assert.ok(!buckets.take(String(key), points, nowMs + retryInMs - 1).admitted);
          nowMs += Math.ceil(retryInMs);
          assert.ok(buckets.take(String(key), points, nowMs).admitted, 'as promised');
          given.set(key, [...(given.get(key) ?? []), { atMs: nowMs, points }]);
        }
      }
    }),
    { numRuns: 200 },
  );
});

void t.test('rate limits', async (t) => {
  const origin = await startOrigin(t.testdir(), {
    ...NO_THUMBS,
    rate_limits: {
      window: '10s',
      subject: { requests_max: 3, uploaded_max: '1000B' },
      address: { requests_max: 5, downloaded_max: '1000B' },
      keys_max: 100,
    },
  });
  t.teardown(() => origin.close());
  const from = (address: string, subject = 'alice', options: RequestOptions = {}): Promise<HttpResponse> =>
    origin.as(subject, '/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV', {
      ...options,
      headers: { ...options.headers, 'x-forwarded-for': address },
    });

  await t.test('a subject has its limit at every address, and its requests come back evenly', async (t) => {
    const first = await from('192.0.2.1');
    t.match(first, {
      status: 404,
      headers: {
        'ratelimit-policy': '"address";q=5;w=10, "subject";q=3;w=10',
        ratelimit: '"address";r=4;t=2, "subject";r=2;t=4',
      },
    });
    t.equal((await from('192.0.2.2')).status, 404);
    t.equal((await from('192.0.2.3')).status, 404);
    const refused = await from('192.0.2.4');
    t.equal(code(refused), '429 rate_limited');
    t.match(refused.headers, { 'retry-after': '4', ratelimit: /"subject";r=0;t=10/ });
    t.equal((await from('192.0.2.4', 'bob')).status, 404, 'another subject is not limited');
    origin.clock.advance(3_000);
    t.equal((await from('192.0.2.4')).status, 429);
    origin.clock.advance(1_000);
    t.equal((await from('192.0.2.4')).status, 404, 'a refused request did not count');
    t.equal((await from('192.0.2.4')).status, 429, 'and no new window begins with all requests');
    origin.clock.advance(10_000);
  });

  await t.test('an address has its limit, and so has a whole network of IPv6', async (t) => {
    const spend = async (address: string): Promise<number[]> => {
      const statuses: number[] = [];
      for (let nth = 0; nth < 6; nth += 1) {
        statuses.push((await from(address.replace('%', String(nth)), `subject-${address}-${nth}`)).status);
      }
      return statuses;
    };
    t.strictSame(await spend('198.51.100.7'), [404, 404, 404, 404, 404, 429]);
    t.strictSame(await spend('198.51.100.%'), [404, 404, 404, 404, 404, 404]);
    t.strictSame(await spend('2001:db8::%'), [404, 404, 404, 404, 404, 429]);
    t.strictSame(await spend('2001:db8:0:%::1'), [429, 404, 404, 404, 404, 404]);
    t.equal((await origin.send('/healthz', { headers: { 'x-forwarded-for': '198.51.100.7' } })).status, 200);
    t.equal((await origin.asEdge('/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV')).status, 404, 'edges are not limited');
  });

  await t.test('bytes of uploads are counted when they are announced, or as they arrive', async (t) => {
    origin.clock.advance(10_000);
    const words = (seed: string): Buffer => Buffer.alloc(600, `${seed} `);
    t.equal((await origin.upload(words('some'))).status, 201);
    const second = await origin.upload(words('more'));
    t.match(
      second,
      { status: 201, headers: { ratelimit: /"subject-bytes";r=0;t=12/ } },
      'an upload may be larger than what is left',
    );
    const refused = await origin.upload(words('other'));
    t.equal(code(refused), '429 rate_limited');
    t.equal(refused.headers['retry-after'], '3', 'and the next one waits until that is made up for');
    origin.clock.advance(20_000);
    const chunked = await origin.upload(words('chunked'), '', { 'transfer-encoding': 'chunked' });
    t.match(chunked.headers['ratelimit'], /"subject-bytes";r=400;t=6/);
    const broken = await origin.upload(words('wrong'), '', {
      'transfer-encoding': 'chunked',
      'content-digest': `sha-256=:${'A'.repeat(43)}=:`,
    });
    t.equal(code(broken), '400 digest_mismatch');
    t.match(broken.headers['ratelimit'], /"subject-bytes";r=0;t=12/, 'bytes of a refused upload count too');
  });

  await t.test('sent bytes are counted, but not those sent to edges', async (t) => {
    origin.clock.advance(20_000);
    const id = await origin.uploaded(Buffer.alloc(900, 'out '), '?public=true');
    const get = (method = 'GET', headers = {}): Promise<HttpResponse> =>
      origin.send(`/v1/media/${id}`, { method, headers });
    t.notMatch((await get('HEAD')).headers['ratelimit'] ?? '', /download/, 'what is left is told once some is used');
    t.match((await get('GET', { range: 'bytes=0-99' })).headers['ratelimit'], /"address-download-bytes";r=900;t=1/);
    t.match(await get(), { status: 200, headers: { ratelimit: /"address-download-bytes";r=0;t=10/ } });
    t.equal(code(await get()), '429 rate_limited');
    t.equal((await origin.asEdge(`/v1/media/${id}`)).status, 200);
    const { capabilities } = json(await origin.send('/.well-known')) as { capabilities: Record<string, unknown> };
    t.match(capabilities['rate_limits'], { address: { download_bytes: 1_000 }, subject: { upload_bytes: 1_000 } });
  });

  await t.test('only a trusted proxy may name the client', async (t) => {
    const wary = await startOrigin(t.testdir(), {
      ...NO_THUMBS,
      trusted_proxies: ['192.0.2.0/24'],
      rate_limits: { address: { requests_max: 1 } },
    });
    t.teardown(() => wary.close());
    const path = '/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV';
    const statuses = [];
    for (const address of ['198.51.100.1', '198.51.100.2']) {
      statuses.push((await wary.send(path, { headers: { 'x-forwarded-for': address } })).status);
    }
    t.strictSame(statuses, [401, 429]);
  });

  await t.test('every response is described in openapi.json', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('closing finishes the requests that have begun', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  const bytes = png(1);
  const wire = await connectRaw(origin.port);
  const authorization = `Bearer ${origin.auth.token()}`;
  wire.write(
    requestHead('POST', '/v1/media', { authorization, 'content-length': bytes.length, expect: '100-continue' }),
  );
  await wire.until(/100 Continue/);
  const closed = origin.close();
  wire.write(bytes);
  t.match(await wire.whole(), /HTTP\/1\.1 201 /);
  wire.socket.destroy();
  await closed;
  await t.rejects(connectRaw(origin.port));
});
