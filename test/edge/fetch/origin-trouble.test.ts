/** Access, takedown, and what the edge does when the origin does not answer, or answers with an error. */
import t, { type Test } from 'tap';
import type { MediaId } from '../../../src/ids.js';
import { openTestEdge, type TestEdge, type TestEdgeOptions } from '../../kit/edge/edge.js';
import { mediaHead, mediaScript, type Script } from '../../kit/edge/scripted-origin.js';
import { startDownload } from '../../kit/http/download.js';
import { type HttpResponse, json, sendRequest } from '../../kit/http/request.js';
import { until } from '../../kit/until.js';

const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const PATH = `/v1/media/${ID}`;
const THUMB = `${PATH}/thumb`;
const READER = { authorization: 'Bearer reader' };
const BYTES = Buffer.from('0123456789abcdefghijklmnopqrstuvwxyz');
const THUMBS = {
  variants: [
    { name: 'small', width: 160, height: 160, fit: 'inside' },
    { name: 'large', width: 640, height: 640, fit: 'inside' },
  ],
  formats: ['webp', 'jpeg'],
  default: 'small',
} as const;

async function open(t: Test, options: TestEdgeOptions = {}): Promise<TestEdge> {
  const edge = await openTestEdge(t.testdir(), options);
  t.teardown(() => edge.close());
  return edge;
}

/** Resolves when no fetch from the origin is in progress. */
async function fetchesEnd(edge: TestEdge): Promise<void> {
  await until('no fetch is in progress', () => edge.engine.flights.underWay === 0);
}

/** A promise and the function that resolves it. */
function gate(): [Promise<void>, () => void] {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return [opened, open];
}

/** A problem response of our origin. */
function problem(status: number, code: string, headers: Readonly<Record<string, string>> = {}): Script {
  return (_seen, answer) => {
    const body = JSON.stringify({ code });
    const framing = { 'content-type': 'application/problem+json', 'content-length': String(body.length) };
    answer.head(status, { ...framing, 'cache-control': 'no-store', ...headers });
    answer.end(body);
  };
}

/** All that a caller sees of an answer, without the fields that differ each time. */
function visible({ status, headers, bytes }: HttpResponse): unknown {
  const { date: _date, 'x-request-id': _id, ...rest } = headers;
  return { status, headers: rest, body: bytes.toString() };
}

void t.test('access is decided before anything looks at the media', async (t) => {
  await t.test(
    'a caller without a credential learns nothing about private media, stored or not, nor about unknown ones',
    async (t) => {
      const edge = await open(t);
      edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
      edge.origin.on('*', (seen, answer) => {
        const anonymous = seen.headers['media-caller'] === 'anonymous';
        problem(anonymous ? 401 : 404, anonymous ? 'unauthorized' : 'not_found')(seen, answer) as undefined;
      });
      t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 200, 'it is stored now');
      const refused = await sendRequest(edge.url + PATH);
      t.equal(refused.status, 401);
      t.match(refused.headers['www-authenticate'], /^Bearer /);
      const etag = mediaHead({ bytes: BYTES })['etag'] ?? '';
      const only = { 'cache-control': 'only-if-cached' };
      for (const headers of [{}, { range: 'bytes=0-1' }, { 'if-none-match': etag }, { 'if-match': '"x"' }, only]) {
        for (const path of [PATH, '/v1/media/01J9ZC8GZ0000000000000000Z']) {
          t.same(
            visible(await sendRequest(edge.url + path, { headers })),
            visible(refused),
            `${path} ${JSON.stringify(headers)}`,
          );
        }
      }
      const head = await sendRequest(edge.url + PATH, { method: 'HEAD' });
      t.equal(head.status, 401);
      t.equal(head.headers['content-length'], refused.headers['content-length']);
      const unknown = `${edge.url}/v1/media/01J9ZC8GZ0000000000000000Z`;
      t.equal(
        (await sendRequest(unknown, { headers: { ...READER, ...only } })).status,
        504,
        'not for a caller with one',
      );
      const bad = await sendRequest(edge.url + PATH, { headers: { authorization: 'Bearer forged' } });
      t.match(bad.headers['www-authenticate'], /error="invalid_token"/);
    },
  );

  await t.test(
    'anyone may see public media, which are fetched as anonymous for callers without a credential',
    async (t) => {
      const edge = await open(t);
      const [go, release] = gate();
      edge.origin.on(PATH, async (seen, answer) => {
        await go;
        await mediaScript({ bytes: BYTES, public: true })(seen, answer);
      });
      const all = Promise.all([{}, {}, READER, READER].map((headers) => sendRequest(edge.url + PATH, { headers })));
      await edge.origin.arrived(PATH, 2);
      release();
      for (const answer of await all) t.same(answer.bytes, BYTES);
      const anonymous = edge.origin.seen.filter(({ headers }) => headers['media-caller'] === 'anonymous');
      t.equal(edge.origin.seen.length, 2, 'two fetches for four callers');
      t.equal(anonymous.length, 1, 'one of them as anonymous');
      t.match((await sendRequest(edge.url + PATH)).headers['cache-status'], /; hit; /);
    },
  );

  await t.test('a 304 that makes media private is not shown to a caller without a credential', async (t) => {
    const edge = await open(t);
    edge.origin.on(PATH, mediaScript({ bytes: BYTES, public: true, maxAgeSeconds: 1 }));
    t.equal((await sendRequest(edge.url + PATH)).status, 200);
    edge.clock.advance(100_000);
    edge.origin.on(PATH, (_seen, answer) => {
      const { 'content-length': _length, ...head } = mediaHead({ bytes: BYTES });
      answer.head(304, head);
      answer.end();
    });
    t.equal((await sendRequest(edge.url + PATH)).status, 401);
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 200);
  });

  await t.test(
    'a caller without a credential gets only what is marked public, whatever the origin answers',
    async (t) => {
      const edge = await open(t);
      edge.origin.on('*', (_seen, answer) => {
        answer.head(200, mediaHead({ bytes: BYTES }));
        answer.end(BYTES);
      });
      for (const headers of [{}, { range: 'bytes=0-1' }]) {
        t.equal((await sendRequest(edge.url + PATH, { headers })).status, 401);
      }
      t.equal((await sendRequest(edge.url + PATH, { method: 'HEAD' })).status, 401);
    },
  );

  await t.test('each credential has its answer', async (t) => {
    const edge = await open(t);
    edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
    const cases = [
      { path: PATH, headers: { authorization: 'Bearer uploader' }, status: 403, code: 'forbidden' },
      { path: PATH, headers: { authorization: 'Bearer unknown' }, status: 503, code: 'auth_unavailable' },
      { path: '/v1/media/nonsense', headers: READER, status: 400, code: 'invalid_id' },
      { path: '/v1/media/nonsense/thumb', headers: {}, status: 400, code: 'invalid_id' },
      { path: '/internal/v1/journal', headers: READER, status: 404, code: 'not_found' },
    ];
    for (const { path, headers, status, code } of cases) {
      const answer = await sendRequest(edge.url + path, { headers });
      t.equal(answer.status, status, code);
      t.match(json(answer), { code, status });
      t.equal(answer.headers['access-control-allow-origin'], '*');
    }
    t.equal(edge.origin.seen.length, 0);
    const link = await sendRequest(`${edge.url}${PATH}?exp=1&kid=1&sig=good`);
    t.equal(link.status, 200);
    t.equal(edge.origin.seen[0]?.target, PATH, 'the signature is not forwarded');
    t.match((await sendRequest(edge.url + PATH.toLowerCase(), { headers: READER })).headers['cache-status'], /; hit; /);
  });

  await t.test('if the origin does not accept the edge, the caller gets 502, not 401', async (t) => {
    const edge = await open(t);
    edge.origin.on('*', problem(401, 'unauthorized'));
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 502);
  });
});

void t.test('a takedown reaches a response in every state', async (t) => {
  await t.test('before its head has arrived: the caller gets what the origin says now', async (t) => {
    const edge = await open(t);
    const [go, release] = gate();
    edge.origin.on(PATH, async (seen, answer) => {
      await go;
      await mediaScript({ bytes: BYTES })(seen, answer);
    });
    const asked = [
      sendRequest(edge.url + PATH, { headers: READER }),
      sendRequest(edge.url + PATH, { headers: READER }),
    ];
    await edge.origin.arrived(PATH);
    edge.origin.on(PATH, problem(410, 'deleted'));
    await edge.takeDown(ID);
    for (const answer of await Promise.all(asked)) t.equal(answer.status, 410);
    release();
    t.equal(edge.engine.cache.stats().memory.entries, 0);
  });

  await t.test('while its body arrives: readers see it break off, and nothing is stored', async (t) => {
    const edge = await open(t);
    edge.origin.on(PATH, async (_seen, answer) => {
      answer.head(200, mediaHead({ bytes: BYTES }));
      await answer.write(BYTES.subarray(0, 10));
    });
    const reading = await startDownload(edge.url + PATH, READER);
    await reading.until(10);
    await edge.takeDown(ID);
    t.notOk((await reading.ended).whole);
    edge.origin.on(PATH, problem(410, 'deleted'));
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 410);
  });

  await t.test('while it is sent from memory to a slow reader', async (t) => {
    const edge = await open(t, { cache: 'memory: { max_object: 64MB }, disk: { size: 0 }' });
    const large = Buffer.alloc(24_000_000, 7);
    edge.origin.on(PATH, mediaScript({ bytes: large }));
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).bytes.length, large.length);
    const reading = await startDownload(edge.url + PATH, READER);
    reading.pause();
    t.match(reading.headers['cache-status'], /detail=memory/);
    await edge.takeDown(ID);
    reading.resume();
    t.notOk((await reading.ended).whole);
  });

  await t.test('when the request for it went through this edge, before the client is answered', async (t) => {
    const edge = await open(t);
    edge.origin.on(PATH, async (seen, answer) => {
      if (seen.method === 'GET') return await mediaScript({ bytes: BYTES })(seen, answer);
      answer.head(204);
      answer.end();
    });
    await sendRequest(edge.url + PATH, { headers: READER });
    t.equal((await sendRequest(edge.url + PATH, { method: 'DELETE', headers: READER })).status, 204);
    edge.origin.on(PATH, problem(410, 'deleted'));
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 410);
  });

  await t.test('at its expiry: not served from that instant on, not even stale', async (t) => {
    const edge = await open(t);
    const sunset = new Date(edge.clock.now() + 30_000).toUTCString();
    const date = new Date(edge.clock.now()).toUTCString();
    edge.origin.on(PATH, mediaScript({ bytes: BYTES, headers: { sunset, date } }));
    t.equal(
      (await sendRequest(edge.url + PATH, { headers: READER })).headers['cache-status']?.includes('ttl=30'),
      true,
    );
    edge.clock.advance(29_999);
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 200);
    edge.clock.advance(1);
    edge.origin.on(PATH, (_seen, answer) => answer.reset());
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 502);
    edge.origin.on(PATH, problem(410, 'expired'));
    t.match(json(await sendRequest(edge.url + PATH, { headers: READER })), { code: 'expired' });
  });
});

void t.test('an edge that is cut off from the journal refuses media, or asks the origin about each', async (t) => {
  const edge = await open(t);
  edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
  await sendRequest(edge.url + PATH, { headers: READER });

  edge.lease = 'refuse';
  const refused = await sendRequest(edge.url + PATH, { headers: READER });
  t.equal(refused.status, 503);
  t.equal(refused.headers['retry-after'], '1');
  t.match(json(refused), { code: 'cut_off' });

  edge.lease = 'revalidate';
  for (let time = 1; time <= 2; time += 1) {
    const asked = await sendRequest(edge.url + PATH, { headers: READER });
    t.match(asked.headers['cache-status'], /fwd=stale; fwd-status=304/);
    t.same(asked.bytes, BYTES);
    t.equal(edge.origin.count(PATH), 1 + time, 'the origin is asked each time');
  }
  edge.origin.on(PATH, (_seen, answer) => answer.reset());
  t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 502, 'and nothing stale is served');
  edge.origin.on(PATH, problem(404, 'not_found'));
  t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 404);

  edge.lease = 'yes';
  t.equal(
    (await sendRequest(edge.url + PATH, { headers: READER })).status,
    404,
    'what the origin did not confirm is no longer stored',
  );
});

void t.test('stale responses are served as far as the origin allows', async (t) => {
  await t.test('at once while one fetch brings a newer one', async (t) => {
    const edge = await open(t);
    edge.origin.on(PATH, mediaScript({ bytes: BYTES, maxAgeSeconds: 10 }));
    await sendRequest(edge.url + PATH, { headers: READER });
    edge.clock.advance(20_000);
    const [go, release] = gate();
    edge.origin.on(PATH, async (seen, answer) => {
      await go;
      await mediaScript({ bytes: BYTES, maxAgeSeconds: 10 })(seen, answer);
    });
    const answers = await Promise.all([0, 1, 2, 3].map(() => sendRequest(edge.url + PATH, { headers: READER })));
    for (const answer of answers) {
      t.equal(answer.headers['cache-status'], 'edge; hit; ttl=-10; detail=stale-while-revalidate');
      t.equal(answer.headers.age, '20');
    }
    release();
    await fetchesEnd(edge);
    t.equal(edge.origin.count(PATH), 2);
    t.equal(edge.origin.seen[1]?.headers['if-none-match'], mediaHead({ bytes: BYTES })['etag']);
    t.match(
      (await sendRequest(edge.url + PATH, { headers: READER })).headers['cache-status'],
      /hit; ttl=10; detail=memory/,
    );
  });

  await t.test('when the origin fails, for as long as allowed', async (t) => {
    const failures: readonly (readonly [string, Script])[] = [
      ['a reset', (_seen, answer) => answer.reset()],
      ['no HTTP', (_seen, answer) => answer.raw('SSH-2.0-OpenSSH_9.2\r\n\r\n')],
      ['503', problem(503, 'overloaded')],
      ['500', problem(500, 'internal')],
    ];
    for (const [name, script] of failures) {
      const edge = await open(t);
      edge.origin.on(PATH, mediaScript({ bytes: BYTES, maxAgeSeconds: 10 }));
      await sendRequest(edge.url + PATH, { headers: READER });
      edge.clock.advance(100_000);
      edge.origin.on(PATH, script);
      const stale = await sendRequest(edge.url + PATH, { headers: READER });
      t.equal(stale.status, 200, name);
      t.match(stale.headers['cache-status'], /detail=stale-if-error/, name);
      edge.clock.advance(600_000);
      t.ok((await sendRequest(edge.url + PATH, { headers: READER })).status >= 500, `${name}, later`);
    }
  });

  await t.test('never in place of an answer that the media is gone', async (t) => {
    const edge = await open(t);
    edge.origin.on(PATH, mediaScript({ bytes: BYTES, maxAgeSeconds: 10 }));
    await sendRequest(edge.url + PATH, { headers: READER });
    edge.clock.advance(20_000);
    edge.origin.on(PATH, problem(410, 'deleted'));
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 200, 'stale while it is revalidated');
    await fetchesEnd(edge);
    edge.origin.on(PATH, (_seen, answer) => answer.reset());
    t.equal(
      (await sendRequest(edge.url + PATH, { headers: READER })).status,
      502,
      'the origin has said that it is gone',
    );
  });
});

void t.test('an origin that fails affects only the requests that need it', async (t) => {
  const cases: readonly { name: string; script: Script; status: number; code: string; times: number }[] = [
    { name: 'resets', script: (_seen, answer) => answer.reset(), status: 502, code: 'bad_gateway', times: 2 },
    { name: 'hangs up', script: (_seen, answer) => answer.hangUp(), status: 502, code: 'bad_gateway', times: 2 },
    {
      name: 'speaks no HTTP',
      script: (_seen, answer) => answer.raw('hello?\r\n\r\n'),
      status: 502,
      code: 'bad_gateway',
      times: 1,
    },
    { name: 'says nothing', script: () => undefined, status: 504, code: 'gateway_timeout', times: 1 },
  ];
  const edge = await open(t, { upstream: 'head_within: 150ms' });
  for (const { name, script, status, code, times } of cases) {
    edge.origin.on(PATH, async (seen, answer) => {
      const waiters = (): number => edge.engine.flights.find(`GET edge ${PATH}`)?.waiters ?? 3;
      await until('three wait', () => waiters() === 3);
      await script(seen, answer);
    });
    const before = edge.origin.count(PATH);
    const answers = await Promise.all([0, 1, 2].map(() => sendRequest(edge.url + PATH, { headers: READER })));
    for (const answer of answers) {
      t.equal(answer.status, status, name);
      t.match(json(answer), { code });
      t.notMatch(answer.bytes.toString(), /127\.0\.0\.1|ECONN|undici|node:/, 'nothing internal');
    }
    t.equal(edge.origin.count(PATH) - before, times, `${name}: asked ${times} times for three callers`);
  }
  await t.test('one reset on a reused connection is not seen by the client', async (t) => {
    let first = true;
    edge.origin.on(PATH, (seen, answer) => {
      if (!first) return mediaScript({ bytes: BYTES })(seen, answer);
      first = false;
      answer.reset();
    });
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 200);
  });
  await t.test('the head is sent although the body is slow to begin', async (t) => {
    const [go, release] = gate();
    edge.origin.on(PATH, async (_seen, answer) => {
      answer.head(200, mediaHead({ bytes: Buffer.from('slow') }));
      await go;
      answer.end('slow');
    });
    await edge.takeDown(ID);
    const reading = await startDownload(edge.url + PATH, READER);
    t.match(reading.headers['content-length'], '4');
    release();
    t.ok((await reading.ended).whole);
  });
  await t.test('a body that stops midway is broken off', async (t) => {
    const slow = await open(t, { upstream: 'idle: 100ms' });
    slow.origin.on(PATH, async (_seen, answer) => {
      answer.head(200, mediaHead({ bytes: BYTES }));
      await answer.write(BYTES.subarray(0, 5));
    });
    t.notOk((await sendRequest(slow.url + PATH, { headers: READER })).whole);
  });
  await t.test('the breaker opens after an outage, and closes with the first response', async (t) => {
    const broken = await open(t, { upstream: 'retries: 0, breaker: { failures: 3, after: 1s, open: 2s }' });
    broken.origin.on('*', (_seen, answer) => answer.reset());
    for (let time = 0; time < 4; time += 1) {
      await sendRequest(`${broken.url}${PATH}`, { headers: READER });
      broken.clock.advance(500);
    }
    const before = broken.origin.seen.length;
    t.equal((await sendRequest(broken.url + PATH, { headers: READER })).status, 502);
    t.equal(broken.origin.seen.length, before, 'the origin got no request');
    t.equal(broken.engine.upstream.stats().breaker, 'open');
    broken.clock.advance(2_000);
    broken.origin.on('*', mediaScript({ bytes: BYTES }));
    t.equal((await sendRequest(broken.url + PATH, { headers: READER })).status, 200);
    t.equal(broken.engine.upstream.stats().breaker, 'closed');
  });
  await t.test('requests beyond the limits are refused and counted', async (t) => {
    const full = await open(t, { edge: ['fill: { concurrent_max: 1, waiters_max: 2 }'] });
    const [go, release] = gate();
    full.origin.on('*', async (seen, answer) => {
      await go;
      await mediaScript({ bytes: BYTES })(seen, answer);
    });
    const waiting = [
      sendRequest(full.url + PATH, { headers: READER }),
      sendRequest(full.url + PATH, { headers: READER }),
    ];
    await full.origin.arrived(PATH);
    await until('two wait', () => full.engine.flights.find(`GET edge ${PATH}`)?.waiters === 2);
    for (const path of [PATH, '/v1/media/01J9ZC8GZ0000000000000000Z']) {
      const refused = await sendRequest(full.url + path, { headers: READER });
      t.equal(refused.status, 503);
      t.match(json(refused), { code: 'overloaded' });
      t.ok(refused.headers['retry-after']);
    }
    t.equal(await full.counted('edge_refusals_total', '{reason="overloaded"}'), 2);
    release();
    for (const answer of await Promise.all(waiting)) t.equal(answer.status, 200);
  });
});

void t.test('a small response that may not be stored is still shared by all who wait', async (t) => {
  const edge = await open(t);
  edge.thumbOptions = THUMBS;
  const cases: readonly (readonly [number, string, Record<string, string>])[] = [
    [202, 'thumbnail_pending', { 'retry-after': '1' }],
    [404, 'thumbnail_unavailable', {}],
    [403, 'quarantined', {}],
  ];
  for (const [status, code, headers] of cases) {
    const [go, release] = gate();
    edge.origin.on(THUMB, async (seen, answer) => {
      await go;
      await problem(status, code, headers)(seen, answer);
    });
    const before = edge.origin.seen.length;
    const url = `${edge.url}${THUMB}?w=100`;
    const asked = Promise.all(Array.from({ length: 20 }, () => sendRequest(url, { headers: READER })));
    await edge.origin.arrived(`${THUMB}?w=160&h=160`, before + 1);
    const key = `GET edge ${THUMB}?w=160&h=160#jpeg`;
    await until('all wait', () => edge.engine.flights.find(key)?.waiters === 20);
    release();
    for (const answer of await asked) {
      t.equal(answer.status, status);
      t.match(json(answer), { code });
      if (status === 202) t.equal(answer.headers['retry-after'], '1');
    }
    t.equal(edge.origin.seen.length - before, 1);
    await sendRequest(url, { headers: READER });
    t.equal(edge.origin.seen.length - before, 2, 'the next request is sent to the origin again');
  }
  await t.test('unless the origin gives the error a lifetime', async (t) => {
    edge.origin.on(PATH, problem(404, 'not_found', { 'cdn-cache-control': 'max-age=5' }));
    const before = edge.origin.count(PATH);
    for (let time = 0; time < 3; time += 1)
      t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 404);
    t.equal(edge.origin.count(PATH) - before, 1);
    t.equal((await sendRequest(edge.url + PATH)).status, 401, 'a caller without a credential may not know that');
  });
});

void t.test('thumbnails are stored by the variant and format that are chosen, not by the query', async (t) => {
  const edge = await open(t);
  edge.origin.on('/v1/media/01J9ZC8GZ0000000000000000B/thumb', problem(404, 'x'));
  t.equal(
    (await sendRequest(`${edge.url}/v1/media/01J9ZC8GZ0000000000000000B/thumb?w=1`, { headers: READER })).status,
    404,
  );
  t.equal(
    edge.origin.seen[0]?.target,
    '/v1/media/01J9ZC8GZ0000000000000000B/thumb?w=1',
    'passed on until the variants are known',
  );
  edge.thumbOptions = THUMBS;
  edge.origin.on(THUMB, mediaScript({ bytes: BYTES, headers: { vary: 'Accept' } }));
  const queries = ['', '?w=1', '?w=160&h=160', '?h=2&x=y', '?w=abc', '?w=-1', '?w=1&sig=bad&exp=1'];
  const accepts = ['*/*', 'image/png', 'image/jpeg, */*;q=0.1', 'image/webp;q=0', 'text/html'];
  for (const query of queries) {
    for (const accept of accepts) {
      const answer = await sendRequest(edge.url + THUMB + query, { headers: { ...READER, accept } });
      t.equal(answer.headers.vary, 'Accept', 'caches behind this one need to know');
    }
  }
  t.same(
    edge.origin.seen.slice(1).map(({ target, headers }) => [target, headers['accept']]),
    [[`${THUMB}?w=160&h=160`, 'image/jpeg, application/json;q=0.5']],
  );
  await sendRequest(`${edge.url}${THUMB}?w=161`, { headers: { ...READER, accept: 'image/avif, image/webp' } });
  t.same(edge.origin.seen.at(-1)?.target, `${THUMB}?w=640&h=640`);
  t.same(edge.origin.seen.at(-1)?.headers['accept'], 'image/webp');
});

void t.test('a HEAD that misses is answered by a HEAD, and the body is fetched as configured', async (t) => {
  for (const mode of ['off', 'mark', 'now'] as const) {
    await t.test(mode, async (t) => {
      const edge = await open(t, {
        edge: [`warm: { mode: "${mode}", max: 1KB }`, 'fill: { finish_share: 1, finish: 0 }'],
      });
      edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
      const heads = await Promise.all(
        [0, 1].map(() => sendRequest(edge.url + PATH, { method: 'HEAD', headers: READER })),
      );
      for (const head of heads) {
        t.equal(head.status, 200);
        t.equal(head.headers['content-length'], '36');
        t.match(head.headers['cache-status'], /fwd=uri-miss; fwd-status=200/);
      }
      await fetchesEnd(edge);
      t.equal(edge.origin.count(PATH, 'HEAD'), 1);
      t.equal(edge.origin.count(PATH, 'GET'), mode === 'now' ? 1 : 0);
      await sendRequest(edge.url + PATH, { method: 'HEAD', headers: READER });
      t.equal(await edge.counted('edge_warm_used_total'), 0, 'another HEAD does not use the body');
      const got = await sendRequest(edge.url + PATH, { headers: READER });
      t.match(got.headers['cache-status'], mode === 'now' ? /; hit; / : /fwd=uri-miss/);
      await sendRequest(edge.url + PATH, { headers: READER });
      t.equal(await edge.counted('edge_warm_used_total'), mode === 'now' ? 1 : 0);
    });
  }

  await t.test('a body that a HEAD has marked is fetched to its end although its client leaves', async (t) => {
    const edge = await open(t, { edge: ['warm: { mode: mark }', 'fill: { finish_share: 1, finish: 0 }'] });
    edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
    await sendRequest(edge.url + PATH, { method: 'HEAD', headers: READER });
    const [go, release] = gate();
    edge.origin.on(PATH, async (_seen, answer) => {
      answer.head(200, mediaHead({ bytes: BYTES }));
      await answer.write(BYTES.subarray(0, 5));
      await go;
      answer.end(BYTES.subarray(5));
    });
    const reading = await startDownload(edge.url + PATH, READER);
    await reading.until(5);
    reading.abort();
    await reading.ended;
    release();
    await fetchesEnd(edge);
    t.match((await sendRequest(edge.url + PATH, { headers: READER })).headers['cache-status'], /; hit; /);
  });

  await t.test('a large body is not fetched at once', async (t) => {
    const edge = await open(t, { edge: ['warm: { mode: now, max: 10B }'] });
    edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
    await sendRequest(edge.url + PATH, { method: 'HEAD', headers: READER });
    t.equal(edge.engine.flights.underWay, 0);
    t.equal(edge.origin.count(PATH, 'GET'), 0);
  });

  await t.test('a client that joins such a fetch counts as using the body', async (t) => {
    const edge = await open(t, { edge: ['warm: { mode: now }'] });
    const [go, release] = gate();
    edge.origin.on(PATH, async (seen, answer) => {
      if (seen.method === 'HEAD') return mediaScript({ bytes: BYTES })(seen, answer);
      answer.head(200, mediaHead({ bytes: BYTES }));
      await answer.write(BYTES.subarray(0, 5));
      await go;
      answer.end(BYTES.subarray(5));
    });
    await sendRequest(edge.url + PATH, { method: 'HEAD', headers: READER });
    const reading = await startDownload(edge.url + PATH, READER);
    await reading.until(5);
    release();
    await reading.ended;
    await fetchesEnd(edge);
    await sendRequest(edge.url + PATH, { headers: READER });
    t.equal(edge.origin.count(PATH, 'GET'), 1);
    t.equal(await edge.counted('edge_warm_used_total'), 1);
  });

  await t.test('the default thumbnail of an image is fetched too, even if the image is too large', async (t) => {
    const edge = await open(t, { edge: ['warm: { mode: now, thumbnail: true, max: 10B }'] });
    edge.thumbOptions = THUMBS;
    edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
    edge.origin.on(THUMB, mediaScript({ bytes: BYTES }));
    await sendRequest(edge.url + PATH, { method: 'HEAD', headers: { ...READER, accept: 'image/webp' } });
    await fetchesEnd(edge);
    const thumb = await sendRequest(edge.url + THUMB, { headers: { ...READER, accept: 'image/webp' } });
    t.match(thumb.headers['cache-status'], /; hit; /);
  });

  await t.test('a HEAD that finds another representation drops the stored one', async (t) => {
    const edge = await open(t);
    edge.origin.on(PATH, mediaScript({ bytes: BYTES, maxAgeSeconds: 1 }));
    await sendRequest(edge.url + PATH, { headers: READER });
    edge.clock.advance(100_000);
    edge.origin.on(PATH, mediaScript({ bytes: Buffer.from('other') }));
    const head = await sendRequest(edge.url + PATH, { method: 'HEAD', headers: READER });
    t.equal(head.headers['content-length'], '5');
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).bytes.toString(), 'other');
  });
});

void t.test('responses that cannot be shared delay nobody', async (t) => {
  await t.test(
    'private ones: one caller takes the response, the others fetch for themselves, and next time at once',
    async (t) => {
      const edge = await open(t, { edge: ['access: "off"'] });
      const [go, release] = gate();
      let count = 0;
      edge.origin.on('/private', async (_seen, answer) => {
        await go;
        count += 1;
        answer.head(200, { 'cache-control': 'private', 'content-length': String(String(count).length) });
        answer.end(String(count));
      });
      const asked = Promise.all([0, 1, 2].map(() => sendRequest(`${edge.url}/private`)));
      await edge.origin.arrived('/private');
      await until('three wait', () => edge.engine.flights.find('GET client /private')?.waiters === 3);
      release();
      const bodies = (await asked).map(({ bytes }) => bytes.toString()).sort();
      t.same(bodies, ['1', '2', '3'], 'each caller got its own');
      const next = await sendRequest(`${edge.url}/private`);
      t.match(next.headers['cache-status'], /detail=private/);
      edge.origin.on('/private', (_seen, answer) => {
        answer.head(200, { 'cache-control': 'max-age=60', 'content-length': '6' });
        answer.end('public');
      });
      await sendRequest(`${edge.url}/private`);
      t.match(
        (await sendRequest(`${edge.url}/private`)).headers['cache-status'],
        /; hit; /,
        'and stored as soon as it may be',
      );
    },
  );

  await t.test('a fetch for one caller that a purge ends is repeated', async (t) => {
    const edge = await open(t, { edge: ['access: "off"'] });
    const [go, release] = gate();
    edge.origin.on('/alone', async (seen, answer) => {
      if (seen.headers['if-match'] !== undefined && edge.origin.count('/alone') === 1) await go;
      answer.head(200, { 'content-length': '2' });
      answer.end('ok');
    });
    const asked = sendRequest(`${edge.url}/alone`, { headers: { 'if-match': '*' } });
    await edge.origin.arrived('/alone');
    edge.engine.flights.breakOffWhere(() => true);
    t.equal((await asked).status, 200);
    release();
  });

  await t.test('large ones: their ranges are fetched from the origin', async (t) => {
    const edge = await open(t, { edge: ['fill: { object_max: 1KiB }'] });
    const large = Buffer.alloc(5_000, 'x');
    edge.origin.on(PATH, (seen, answer) => {
      if (seen.headers['range'] === undefined) return mediaScript({ bytes: large })(seen, answer);
      answer.head(206, { ...mediaHead({ bytes: large }), 'content-length': '2', 'content-range': 'bytes 7-8/5000' });
      answer.end('ab');
    });
    const first = await sendRequest(edge.url + PATH, { headers: { ...READER, range: 'bytes=7-8' } });
    t.equal(first.status, 206);
    t.equal(first.bytes.toString(), 'ab');
    t.equal(edge.origin.count(PATH), 2, 'the first request found out the size');
    const second = await sendRequest(edge.url + PATH, { headers: { ...READER, range: 'bytes=7-9' } });
    t.equal(second.headers['content-range'], 'bytes 7-8/5000');
    t.equal(edge.origin.count(PATH), 3, 'the size is remembered');
    t.equal((await sendRequest(edge.url + PATH, { headers: READER })).bytes.length, 5_000);
  });
});

void t.test('in generic mode any origin is cached as it says', async (t) => {
  const edge = await open(t, { edge: ['access: "off"'] });
  edge.origin.on('/page', (seen, answer) => {
    if (seen.method === 'POST') {
      answer.head(200, { 'content-length': '2' });
      answer.end('ok');
      return;
    }
    const language = String(seen.headers['accept-language'] ?? 'none');
    answer.head(200, {
      'cache-control': 'max-age=60',
      vary: 'Accept-Language',
      'content-length': String(language.length),
    });
    answer.end(language);
  });
  const get = (language: string): Promise<HttpResponse> =>
    sendRequest(`${edge.url}/page`, { headers: { 'accept-language': language } });

  await t.test('callers that Vary distinguishes get their own responses, even all at once', async (t) => {
    const answers = await Promise.all(['de', 'fr', 'de', 'fr', 'en'].map(get));
    t.same(
      answers.map(({ bytes }) => bytes.toString()),
      ['de', 'fr', 'de', 'fr', 'en'],
    );
    const before = edge.origin.seen.length;
    for (const language of ['fr', 'de', 'en']) {
      const answer = await get(language);
      t.equal(answer.bytes.toString(), language);
      t.match(answer.headers['cache-status'], /; hit; /);
    }
    t.equal(edge.origin.seen.length, before);
    t.match((await get('it')).headers['cache-status'], /fwd=vary-miss/);
  });

  await t.test('an unsafe request makes all of them invalid', async (t) => {
    await sendRequest(`${edge.url}/page`, { method: 'POST', body: 'x' });
    for (const language of ['fr', 'de']) t.match((await get(language)).headers['cache-status'], /fwd=/);
  });

  await t.test('requests are forwarded without hop-by-hop fields and internal ones', async (t) => {
    await sendRequest(`${edge.url}/page?q=1`, {
      headers: { connection: 'x-hop', 'x-hop': '1', 'x-mine': '2', 'edge-authorization': 'me', 'media-caller': 'me' },
    });
    const seen = edge.origin.seen.at(-1);
    t.equal(seen?.target, '/page?q=1');
    t.match(seen?.headers, { 'x-mine': '2', via: '1.1 edge' });
    for (const name of ['x-hop', 'edge-authorization', 'media-caller']) t.notOk(seen?.headers[name], name);
  });

  await t.test(
    'fields that may not be stored reach the caller who caused the fetch, and nobody else (5.2.2.4, 5.2.2.7)',
    async (t) => {
      for (const directive of ['private="set-cookie, x-mine"', 'no-cache="Set-Cookie, X-Mine"']) {
        const path = `/fields?${encodeURIComponent(directive)}`;
        edge.origin.on('/fields', (_seen, answer) => {
          answer.head(200, {
            'cache-control': `max-age=60, ${directive}`,
            'set-cookie': ['a=1', 'b=2'],
            'x-mine': 'secret',
            'x-all': 'public',
            'content-length': '2',
          });
          answer.end('ok');
        });
        const first = await sendRequest(edge.url + path);
        t.same(
          [first.headers['set-cookie'], first.headers['x-mine'], first.headers['x-all']],
          [['a=1', 'b=2'], 'secret', 'public'],
        );
        const next = await sendRequest(edge.url + path);
        t.match(next.headers['cache-status'], /; hit; /);
        t.same(
          [next.headers['set-cookie'], next.headers['x-mine'], next.headers['x-all']],
          [undefined, undefined, 'public'],
        );
      }
    },
  );

  await t.test(
    'a response to POST is stored for GET if it says so, complete and under its own target (RFC 9110 9.3.3)',
    async (t) => {
      const cases = [
        { name: 'the target named', location: '/posted?0', fresh: 'max-age=60', stored: true },
        { name: 'no target named', location: undefined, fresh: 'max-age=60', stored: false },
        { name: 'another target named', location: '/other', fresh: 'max-age=60', stored: false },
        { name: 'no lifetime', location: '/posted?3', fresh: 'public', stored: false },
        { name: 'no-store', location: '/posted?4', fresh: 'max-age=60, no-store', stored: false },
        { name: 'broken off', location: '/posted?5', fresh: 'max-age=60', stored: false, breaks: true },
      ] as const;
      for (const [index, { name, location, fresh, stored, ...rest }] of cases.entries()) {
        edge.origin.on('/posted', async (seen, answer) => {
          if (seen.method !== 'POST') {
            answer.head(200, { 'content-length': '5' });
            answer.end('asked');
            return;
          }
          answer.head(200, {
            'cache-control': fresh,
            'content-length': '6',
            ...(location !== undefined && { 'content-location': location }),
          });
          if (!('breaks' in rest)) return answer.end('posted');
          await answer.write('pos');
          answer.reset();
        });
        const url = `${edge.url}/posted?${index}`;
        const posted = await sendRequest(url, { method: 'POST', body: 'x' });
        t.equal(posted.bytes.toString(), 'breaks' in rest ? 'pos' : 'posted', name);
        const got = await sendRequest(url);
        t.equal(got.bytes.toString(), stored ? 'posted' : 'asked', name);
        t.match(got.headers['cache-status'], stored ? /; hit; / : /fwd=/, name);
        if (!stored) continue;
        await sendRequest(url, { method: 'PUT', body: 'x' });
        t.match((await sendRequest(url)).headers['cache-status'], /fwd=/, 'until an unsafe request makes it invalid');
      }
    },
  );

  await t.test('interim responses reach the client whose request it is', async (t) => {
    edge.origin.on('/hints', (_seen, answer) => {
      answer.hint('</style.css>; rel=preload');
      answer.head(200, { 'content-length': '2' });
      answer.end('ok');
    });
    const interim: unknown[] = [];
    const answer = await sendRequest(`${edge.url}/hints`, {
      onInterim: (status, headers) => interim.push([status, headers]),
    });
    t.equal(answer.status, 200);
    t.same(interim, [[103, { link: '</style.css>; rel=preload' }]]);
  });

  await t.test('a request that has passed this edge before is refused (RFC 9110 7.6.3)', async (t) => {
    const before = edge.origin.seen.length;
    const answer = await sendRequest(`${edge.url}/round`, { headers: { via: '1.1 other, 1.1 edge' } });
    t.equal(answer.status, 421);
    t.equal(edge.origin.seen.length, before);
  });

  await t.test('a client may ask for only what is cached, or for nothing that is', async (t) => {
    const only = await sendRequest(`${edge.url}/unseen`, { headers: { 'cache-control': 'only-if-cached' } });
    t.equal(only.status, 504);
    const before = edge.origin.seen.length;
    await sendRequest(`${edge.url}/page`, { headers: { 'accept-language': 'fr', 'cache-control': 'no-cache' } });
    t.equal(edge.origin.seen.length, before + 1);
  });
});

void t.test('the edge says how it is', async (t) => {
  const edge = await open(t);
  t.equal((await sendRequest(`${edge.url}/healthz`)).status, 200);
  t.match(json(await sendRequest(`${edge.url}/readyz`)), {
    status: 'ready',
    checks: { origin: 'ok', cache: 'ok', journal: 'ok' },
  });
  edge.lease = 'revalidate';
  t.equal((await sendRequest(`${edge.url}/readyz`)).status, 200, 'the answer is kept for a moment');
  edge.clock.advance(1_000);
  const answer = await sendRequest(`${edge.url}/readyz`);
  t.equal(answer.status, 503);
  t.same(json(answer)['failed'], ['journal']);
});
