import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t from 'tap';
import { retentionText } from '../../../origin/api/well-known.js';
import { createBuckets } from '../../../origin/server/token-buckets.js';
import { Fault } from '../../../src/errors.js';
import { emptyReply } from '../../../src/http/reply.js';
import { readThumbOptions } from '../../../src/media/thumb-choice.js';
import {
  booleanParameter,
  choiceParameter,
  createMatcher,
  instantParameter,
  integerParameter,
  mediaId,
  type Parameter,
  type Route,
  route,
  sha256,
  textParameter,
} from '../../../src/server/routes.js';
import { JWKS_PATH } from '../../kit/auth-service.js';
import { connectRaw, requestHead } from '../../kit/http/raw.js';
import { type HttpResponse, json, member, type RequestOptions } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { startOrigin } from '../../kit/origin/origin.js';

const STILL = { thumbs: { enabled: false, wait: '0ms', video: { enabled: false } } };
const code = (answer: HttpResponse): string => `${answer.status} ${String(json(answer)['code'])}`;

void t.test('a table of routes', async (t) => {
  const row = (methods: Route<unknown>['methods'], pattern: string): Route<unknown> =>
    route({
      methods,
      pattern,
      summary: '',
      audience: 'anyone',
      path: {},
      query: {},
      responses: [],
      handle: () => Promise.resolve(emptyReply(204)),
    });
  const match = createMatcher([
    row(['GET', 'HEAD'], '/v1/media/{id}'),
    row(['DELETE'], '/v1/media/{id}'),
    row(['POST'], '/v1/media/{id}/link'),
    row(['PATCH'], '/v1/uploads/{id}'),
  ]);

  await t.test('finds the row and the named segments, exactly', async (t) => {
    const cases: readonly [method: string, path: string, found: unknown][] = [
      ['GET', '/v1/media/x', ['/v1/media/{id}', { id: 'x' }]],
      ['DELETE', '/v1/media/x', ['/v1/media/{id}', { id: 'x' }]],
      ['POST', '/v1/media/a%2Fb/link', ['/v1/media/{id}/link', { id: 'a%2Fb' }]],
      ['PATCH', '/v1/uploads/', ['/v1/uploads/{id}', { id: '' }]],
      ['PATCH', '/v1/uploads/a/b', 'none'],
      ['PUT', '/v1/media/x', ['GET', 'HEAD', 'DELETE']],
      ['GET', '/v1/media/x/', 'none'],
      ['GET', '/v1/media', 'none'],
      ['GET', '//v1/media/x', 'none'],
      ['GET', '/V1/media/x', 'none'],
      ['GET', '*', 'none'],
      ['GET', '', 'none'],
    ];
    for (const [method, path, expected] of cases) {
      const found = match(method, path);
      const shown =
        found.kind === 'found'
          ? [found.route.pattern, found.segments]
          : found.kind === 'method'
            ? found.allowed
            : found.kind;
      t.strictSame(shown, expected, `${method} ${path}`);
    }
  });

  await t.test('parameters are read by their own rules', async (t) => {
    const count = integerParameter('', { min: 1, max: 100 });
    const word = choiceParameter('', ['a', 'b']);
    const cases: readonly [parameter: Parameter<unknown>, text: string | undefined, value: unknown][] = [
      [booleanParameter(''), undefined, undefined],
      [booleanParameter(''), 'true', true],
      [booleanParameter(''), 'TRUE', 'malformed'],
      [count, '1', 1],
      [count, '100', 100],
      [count, '101', 'malformed'],
      [count, '0', 'malformed'],
      [count, '1.5', 'malformed'],
      [count, ' 1', 'malformed'],
      [count, '', 'malformed'],
      [word, 'a', 'a'],
      [word, 'c', 'malformed'],
      [textParameter('', 3), 'abc', 'abc'],
      [textParameter('', 3), 'abcd', 'malformed'],
      [instantParameter(''), '2026-01-31T12:00:00Z', Date.UTC(2026, 0, 31, 12)],
      [instantParameter(''), '2026-01-31T12:00:00.5+01:00', Date.UTC(2026, 0, 31, 11, 0, 0, 500)],
      [instantParameter(''), '2026-01-31', 'malformed'],
      [instantParameter(''), '2026-13-31T12:00:00Z', 'malformed'],
      [mediaId, '01arz3ndektsv4rrffq69g5fav', '01ARZ3NDEKTSV4RRFFQ69G5FAV'],
      [mediaId, undefined, 'invalid_id'],
      [sha256, 'A'.repeat(64), 'malformed'],
      [sha256, 'a'.repeat(64), 'a'.repeat(64)],
    ];
    for (const [parameter, text, expected] of cases) {
      const read = (): unknown => {
        try {
          return parameter.read(text, 'name');
        } catch (thrown) {
          return thrown instanceof Fault ? thrown.code : thrown;
        }
      };
      t.equal(read(), expected, String(text));
    }
  });
});

void t.test('the origin at its door', async (t) => {
  const origin = await startOrigin(t.testdir(), STILL);
  t.teardown(() => origin.close());
  const id = await origin.uploaded(png(1), '?public=true');

  await t.test('unknown paths and methods are told apart', async (t) => {
    t.equal(code(await origin.send('/v1/nothing')), '404 not_found');
    const refused = await origin.send(`/v1/media/${id}`, { method: 'PUT', body: 'x' });
    t.equal(code(refused), '405 method_not_allowed');
    t.equal(refused.headers.allow, 'GET, HEAD, DELETE, OPTIONS');
    t.equal((await origin.send(`/v1/media/${id}`, { method: 'PROPFIND' })).status, 405);
  });

  await t.test('browsers of any site may ask, and read what is answered', async (t) => {
    const preflight = await origin.send('/v1/media', {
      method: 'OPTIONS',
      headers: {
        origin: 'https://chat.example',
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,repr-digest',
      },
    });
    t.equal(preflight.status, 204);
    t.equal(preflight.headers['access-control-allow-origin'], '*');
    t.notOk(preflight.headers['access-control-allow-credentials']);
    t.equal(preflight.headers['access-control-allow-methods'], 'POST, OPTIONS');
    const allowed = String(preflight.headers['access-control-allow-headers']).toLowerCase().split(', ');
    for (const name of ['authorization', 'range', 'if-none-match', 'if-range', 'repr-digest', 'upload-offset']) {
      t.ok(allowed.includes(name), name);
    }
    for (const path of [`/v1/media/${id}`, '/v1/media/x', '/v1/nothing', '/.well-known', '/healthz']) {
      const { headers } = await origin.send(path);
      t.match(headers, { 'access-control-allow-origin': '*', 'x-content-type-options': 'nosniff' }, path);
      const exposed = String(headers['access-control-expose-headers']).split(', ');
      const [wanted, spared] = path.endsWith(id) ? ['Repr-Digest', 'Upload-Offset'] : ['Retry-After', 'Repr-Digest'];
      t.match([exposed.includes(wanted), exposed.includes(spared)], [true, false], `${path} exposes its own fields`);
    }
    t.equal((await origin.send('/v1/nothing', { method: 'OPTIONS' })).status, 404);
  });

  await t.test('errors are problem documents that tell nothing of the inside', async (t) => {
    const answer = await origin.send('/v1/media/x');
    t.match(answer.headers, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
    t.strictSame(json(answer), {
      type: 'urn:media-service:problem:invalid_id',
      title: 'Not a media id',
      status: 400,
      detail: 'A media id is a ULID of 26 characters.',
      code: 'invalid_id',
    });
  });

  await t.test('a target in absolute form means the same', async (t) => {
    const wire = await connectRaw(origin.port);
    wire.write(requestHead('GET', `http://media.example/v1/media/${id}?x=1`, { connection: 'close' }));
    t.match(await wire.whole(), /^HTTP\/1\.1 200 /);
    wire.socket.destroy();
  });

  await t.test(
    'an answer to a request with an unread body keeps or closes the connection, never confuses it',
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

  await t.test('the log has a line for each request, with its id and without its secrets', async (t) => {
    const token = origin.auth.token({ sub: 'carol' });
    await origin.send(`/v1/media/${id}?exp=1&kid=1&sig=topsecretsignature`, {
      headers: { authorization: `Bearer ${token}`, 'x-request-id': 'routes-test-0001' },
    });
    const find = (): string | undefined => origin.logged.find((each) => each.includes('routes-test-0001'));
    while (find() === undefined) await new Promise(setImmediate);
    const line = JSON.parse(find() ?? '{}') as Record<string, unknown>;
    t.match(line, { method: 'GET', status: 200, msg: 'request', subject: /^[0-9a-f]{12}$/, ms: Number, bytes: Number });
    const all = origin.logged.join('\n');
    for (const secret of ['topsecretsignature', token, token.split('.')[2] ?? token, 'carol']) t.notMatch(all, secret);
    const strange = await origin.send('/healthz', { headers: { 'x-request-id': 'not <well> formed' } });
    t.match(strange.headers['x-request-id'], /^[0-9a-f-]{36}$/);
  });

  await t.test('what is kept how long is told in words, with and without rules', async (t) => {
    const { retention } = json(await origin.send('/.well-known'))['capabilities'] as { retention: unknown };
    t.match(retention, { text: 'Kept: everything until it is deleted or its own expiry.', rules: [] });
    const rule = { types: ['video/*'], visibility: 'public', minSizeBytes: 1_000_000, keepMs: 7 * 86_400_000 } as const;
    t.equal(
      retentionText({ rules: [rule], unusedForMs: 90 * 86_400_000 }),
      'Kept: public video/* of 1000000 bytes and more for 7d; everything else until it is deleted or its own expiry. What nobody fetches for 90d expires.',
    );
  });

  await t.test('the service describes itself, cacheably', async (t) => {
    const answer = await origin.send('/.well-known');
    t.match(json(answer), {
      base_uri: 'http://127.0.0.1:8080',
      auth_required: true,
      max_upload_size: 10_000_000,
      storage_mode: 'local',
      capabilities: { digest_algorithms: ['sha-256'], signed_links: { lifetime_seconds: 3_600 } },
    });
    t.notOk('region' in json(answer));
    const { thumbnails } = json(answer)['capabilities'] as { thumbnails: unknown };
    t.ok(readThumbOptions(thumbnails), 'as an edge reads it');
    t.match(answer.headers, { etag: /^"/, 'cache-control': 'public, max-age=300' });
    const tag = String(answer.headers.etag);
    t.equal((await origin.send('/.well-known', { headers: { 'if-none-match': tag } })).status, 304);
    t.equal((await origin.send('/.well-known/media-service')).headers.etag, tag);
    t.equal((await origin.send('/.well-known', { method: 'HEAD' })).headers.etag, tag);
  });

  await t.test('the description is OpenAPI, and has every path', async (t) => {
    const answer = await origin.send('/openapi.json');
    t.match(answer.headers, { 'content-type': 'application/json', etag: /^"/, 'cache-control': /^public/ });
    const document = json(answer) as { paths: Record<string, Record<string, { parameters: unknown[] }>> };
    t.match(document, { openapi: '3.1.0', info: { version: /^\d/ }, servers: [{ url: 'http://127.0.0.1:8080' }] });
    t.strictSame(
      Object.keys(document.paths).sort((one, other) => (one < other ? -1 : 1)),
      [
        '/.well-known',
        '/.well-known/media-service',
        '/healthz',
        '/openapi.json',
        '/readyz',
        '/v1/admin/blobs/{sha256}/quarantine',
        '/v1/admin/media',
        '/v1/admin/media/{id}',
        '/v1/media',
        '/v1/media/{id}',
        '/v1/media/{id}/link',
        '/v1/media/{id}/quarantine',
        '/v1/media/{id}/thumb',
        '/v1/uploads',
        '/v1/uploads/{upload}',
      ],
    );
    t.strictSame(Object.keys(document.paths['/v1/media/{id}'] ?? {}), ['get', 'head', 'delete']);
    t.match(document.paths['/v1/media/{id}/thumb']?.['get']?.parameters, [
      { name: 'id', in: 'path', required: true },
      { name: 'w', in: 'query', required: false, schema: { type: 'integer' } },
      { name: 'h', in: 'query' },
    ]);
  });

  await t.test('the table of the README has every path and method, and no others', async (t) => {
    const document = json(await origin.send('/openapi.json')) as { paths: Record<string, Record<string, unknown>> };
    // A cell such as `POST` `DELETE /v1/a/{id}`; `…` stands for a path and what is below it; HEAD goes with GET.
    const [, section = ''] = readFileSync('README.md', 'utf8').split('## What it answers\n');
    const cells = (section.split('\n## ')[0] ?? '').matchAll(/^\| (`[A-Z].*?`) \|/gm);
    const rows = [...cells].flatMap(([, cell = '']) =>
      [...cell.matchAll(/((?:`[A-Z]+` )*)`([A-Z]+) (\/[^`?…]*)[^`…]*(…?)[^`]*`/g)].flatMap(
        ([, others = '', last = '', path = '', more]) =>
          [...others.matchAll(/[A-Z]+/g), [last]].map(([method = '']) => ({ method, path, more: more === '…' })),
      ),
    );
    const described = Object.entries(document.paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => ({ method: method.toUpperCase(), path })),
    );
    const covers = (row: (typeof rows)[number], { method, path }: (typeof described)[number]): boolean =>
      (row.method === method || (row.method === 'GET' && method === 'HEAD')) &&
      (row.path === path || (row.more && path.startsWith(row.path)));
    t.ok(rows.length > 15);
    const untold = described.filter((each) => each.method !== 'OPTIONS' && !rows.some((row) => covers(row, each)));
    t.strictSame(untold, []);
    t.strictSame(
      rows.filter((row) => !described.some((each) => covers(row, each))),
      [],
    );
  });

  await t.test('operators have a listener of their own', async (t) => {
    const { sendRequest: ask } = await import('../../kit/http/request.js');
    const metrics = await ask(`${origin.operators}/metrics`);
    t.match(
      metrics.bytes.toString(),
      /media_requests_total\{route="\/v1\/media\/\{id\}",method="GET",status="200"\} \d/,
    );
    t.equal((await ask(`${origin.operators}/readyz`)).status, 200);
    t.equal((await ask(`${origin.operators}/v1/media/${id}`)).status, 404);
    t.equal((await origin.send('/metrics')).status, 404);
  });

  await t.test('every answer is one that the description knows', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('readiness', async (t) => {
  const origin = await startOrigin(t.testdir(), STILL);
  t.teardown(() => origin.close());
  const ready = (): Promise<HttpResponse> => origin.send('/readyz');

  await t.test('is real, and shared for a second', async (t) => {
    t.match(json(await ready()), { status: 'ready', failed: [] });
    await rm(join(origin.folder, 'blobs'), { recursive: true });
    t.equal((await ready()).status, 200, 'the answer of a moment ago');
    origin.clock.advance(1_000);
    const answer = await ready();
    t.equal(answer.status, 503);
    t.match(json(answer), { status: 'not_ready', failed: ['storage'], checks: { storage: 'failed', database: 'ok' } });
    t.notMatch(answer.bytes.toString(), origin.folder);
    t.match(origin.logged.join('\n'), /a readiness check failed/);
    t.equal((await origin.send('/healthz')).status, 200, 'the process lives all the same');
  });

  await t.test('every answer is one that the description knows', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('without keys the origin is not ready, and says who may come back', async (t) => {
  const origin = await startOrigin(t.testdir(), STILL, {
    prepare: (auth) => auth.override(JWKS_PATH, (_, response) => response.writeHead(500).end()),
  });
  t.teardown(() => origin.close());
  const answer = await origin.upload(png(1));
  t.equal(code(answer), '503 auth_unavailable');
  t.match(answer.headers['retry-after'], /^\d+$/);
  t.match(json(await origin.send('/readyz')), { failed: ['keys'] });
  t.equal(member(await origin.send(`/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV`), 'code'), 'unauthorized');
});

void t.test('a bucket never gives more than it holds and what has come back since', async () => {
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
        // Over any span: what it holds, and what drains in that time.
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
    ...STILL,
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

  await t.test('a subject has its share, wherever it comes from, and gets it back bit by bit', async (t) => {
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
    t.equal((await from('192.0.2.4', 'bob')).status, 404, 'another subject is not meant');
    origin.clock.advance(3_000);
    t.equal((await from('192.0.2.4')).status, 429);
    origin.clock.advance(1_000);
    t.equal((await from('192.0.2.4')).status, 404, 'what was refused has cost nothing');
    t.equal((await from('192.0.2.4')).status, 429, 'and no window begins anew with all of it');
    origin.clock.advance(10_000);
  });

  await t.test('an address has its share, and so has a whole network of IPv6', async (t) => {
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

  await t.test('bytes of uploads are counted before they are read, or as they come', async (t) => {
    origin.clock.advance(10_000);
    const words = (seed: string): Buffer => Buffer.alloc(600, `${seed} `);
    t.equal((await origin.upload(words('some'))).status, 201);
    const second = await origin.upload(words('more'));
    t.match(
      second,
      { status: 201, headers: { ratelimit: /"subject-bytes";r=0;t=12/ } },
      'one may be larger than what is left',
    );
    const refused = await origin.upload(words('other'));
    t.equal(code(refused), '429 rate_limited');
    t.equal(refused.headers['retry-after'], '3', 'and the next one waits for it');
    origin.clock.advance(20_000);
    const chunked = await origin.upload(words('chunked'), '', { 'transfer-encoding': 'chunked' });
    t.match(chunked.headers['ratelimit'], /"subject-bytes";r=400;t=6/);
    const broken = await origin.upload(words('wrong'), '', {
      'transfer-encoding': 'chunked',
      'content-digest': `sha-256=:${'A'.repeat(43)}=:`,
    });
    t.equal(code(broken), '400 digest_mismatch');
    t.match(broken.headers['ratelimit'], /"subject-bytes";r=0;t=12/, 'bytes that were refused came all the same');
  });

  await t.test('bytes that go out are counted, but not those of edges', async (t) => {
    origin.clock.advance(20_000);
    const id = await origin.uploaded(Buffer.alloc(900, 'out '), '?public=true');
    const get = (method = 'GET', headers = {}): Promise<HttpResponse> =>
      origin.send(`/v1/media/${id}`, { method, headers });
    t.match((await get('HEAD')).headers['ratelimit'], /"address-download-bytes";r=1000;t=0/);
    t.match((await get('GET', { range: 'bytes=0-99' })).headers['ratelimit'], /"address-download-bytes";r=900;t=1/);
    t.match(await get(), { status: 200, headers: { ratelimit: /"address-download-bytes";r=0;t=10/ } });
    t.equal(code(await get()), '429 rate_limited');
    t.equal((await origin.asEdge(`/v1/media/${id}`)).status, 200);
    const { capabilities } = json(await origin.send('/.well-known')) as { capabilities: Record<string, unknown> };
    t.match(capabilities['rate_limits'], { address: { download_bytes: 1_000 }, subject: { upload_bytes: 1_000 } });
  });

  await t.test('only a trusted proxy says for whom it speaks', async (t) => {
    const wary = await startOrigin(t.testdir(), {
      ...STILL,
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

  await t.test('every answer is one that the description knows', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('closing finishes what is in hand', async (t) => {
  const origin = await startOrigin(t.testdir(), STILL);
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
