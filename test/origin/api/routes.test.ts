/** The table of the origin's endpoints: what routes, validates and describes. */
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { retentionText } from '../../../origin/api/well-known.js';
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
import { type HttpResponse, json, member } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { startOrigin } from '../../kit/origin/origin.js';

const NO_THUMBS = { thumbs: { enabled: false, wait: '0ms', video: { enabled: false } } };
const code = (response: HttpResponse): string => `${response.status} ${String(json(response)['code'])}`;

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

  await t.test('a path finds its row and named segments exactly', async (t) => {
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

void t.test('the endpoints of the origin', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());
  const id = await origin.uploaded(png(1), '?public=true');

  await t.test('an unknown path is 404, an unknown method 405', async (t) => {
    t.equal(code(await origin.send('/v1/nothing')), '404 not_found');
    const refused = await origin.send(`/v1/media/${id}`, { method: 'PUT', body: 'x' });
    t.equal(code(refused), '405 method_not_allowed');
    t.equal(refused.headers.allow, 'GET, HEAD, DELETE, OPTIONS');
    t.equal((await origin.send(`/v1/media/${id}`, { method: 'PROPFIND' })).status, 405);
  });

  await t.test('browsers on any site may send requests and read the responses', async (t) => {
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

  await t.test('errors are problem documents without internal details', async (t) => {
    const response = await origin.send('/v1/media/x');
    t.match(response.headers, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
    t.strictSame(json(response), {
      type: 'urn:media-service:problem:invalid_id',
      title: 'Not a media id',
      status: 400,
      detail: 'A media id is a ULID of 26 characters.',
      code: 'invalid_id',
    });
  });

  await t.test('the retention rules are given as text, also without rules', async (t) => {
    const { retention } = json(await origin.send('/.well-known'))['capabilities'] as { retention: unknown };
    t.match(retention, { text: 'Kept: everything until it is deleted or its own expiry.', rules: [] });
    const rule = { types: ['video/*'], visibility: 'public', minSizeBytes: 1_000_000, keepMs: 7 * 86_400_000 } as const;
    t.equal(
      retentionText({ rules: [rule], unusedForMs: 90 * 86_400_000 }),
      'Kept: public video/* of 1000000 bytes and more for 7d; everything else until it is deleted or its own expiry. What nobody fetches for 90d expires.',
    );
  });

  await t.test('the well-known document may be cached and revalidated', async (t) => {
    const response = await origin.send('/.well-known');
    t.match(json(response), {
      base_uri: 'http://127.0.0.1:8080',
      auth_required: true,
      max_upload_size: 10_000_000,
      storage_mode: 'local',
      capabilities: { digest_algorithms: ['sha-256'], signed_links: { lifetime_seconds: 3_600 } },
    });
    t.notOk('region' in json(response));
    const { thumbnails } = json(response)['capabilities'] as { thumbnails: unknown };
    t.ok(readThumbOptions(thumbnails), 'an edge can read it');
    t.match(response.headers, { etag: /^"/, 'cache-control': 'public, max-age=300' });
    const tag = String(response.headers.etag);
    t.equal((await origin.send('/.well-known', { headers: { 'if-none-match': tag } })).status, 304);
    t.equal((await origin.send('/.well-known/media-service')).headers.etag, tag);
    t.equal((await origin.send('/.well-known', { method: 'HEAD' })).headers.etag, tag);
  });

  await t.test('openapi.json is OpenAPI and has every path', async (t) => {
    const response = await origin.send('/openapi.json');
    t.match(response.headers, { 'content-type': 'application/json', etag: /^"/, 'cache-control': /^public/ });
    const document = json(response) as { paths: Record<string, Record<string, { parameters: unknown[] }>> };
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
        '/v1/admin/owners/{subject}/delete',
        '/v1/admin/owners/{subject}/quarantine',
        '/v1/admin/owners/{subject}/restore',
        '/v1/links',
        '/v1/media',
        '/v1/media/{id}',
        '/v1/media/{id}/info',
        '/v1/media/{id}/link',
        '/v1/media/{id}/quarantine',
        '/v1/media/{id}/thumb',
        '/v1/uploads',
        '/v1/uploads/link',
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

  await t.test('the table in the README has every path and method, and no others', async (t) => {
    const document = json(await origin.send('/openapi.json')) as { paths: Record<string, Record<string, unknown>> };
    // A cell is like `POST` `DELETE /v1/a/{id}`. `…` covers a path and all paths below it, GET covers HEAD.
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
    const missing = described.filter((each) => each.method !== 'OPTIONS' && !rows.some((row) => covers(row, each)));
    t.strictSame(missing, []);
    t.strictSame(
      rows.filter((row) => !described.some((each) => covers(row, each))),
      [],
    );
  });

  await t.test('operators have their own listener', async (t) => {
    const { sendRequest: ask } = await import('../../kit/http/request.js');
    const metrics = await ask(`${origin.operators}/metrics`);
    t.match(
      metrics.bytes.toString(),
      /media_requests_total\{route="\/v1\/media\/\{id\}",method="GET",status="200"\} \d/,
    );
    t.equal((await ask(`${origin.operators}/readyz`)).status, 200);
    t.equal((await ask(`${origin.operators}/v1/media/${id}`)).status, 405, 'only what takes media down');
    t.equal((await origin.send('/metrics')).status, 404);
  });

  await t.test('every response is described in openapi.json', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('readiness', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());
  const ready = (): Promise<HttpResponse> => origin.send('/readyz');

  await t.test('readiness is checked, and the result is used for a second', async (t) => {
    t.match(json(await ready()), { status: 'ready', failed: [] });
    await rm(join(origin.folder, 'blobs'), { recursive: true });
    t.equal((await ready()).status, 200, 'the result of the last check');
    origin.clock.advance(1_000);
    const response = await ready();
    t.equal(response.status, 503);
    t.match(json(response), {
      status: 'not_ready',
      failed: ['storage'],
      checks: { storage: 'failed', database: 'ok' },
    });
    t.notMatch(response.bytes.toString(), origin.folder);
    t.match(origin.logged.join('\n'), /a readiness check failed/);
    t.equal((await origin.send('/healthz')).status, 200, 'the process still runs');
  });

  await t.test('every response is described in openapi.json', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('without keys the origin is not ready, and refused uploads get a Retry-After', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS, {
    prepare: (auth) => auth.override(JWKS_PATH, (_, response) => response.writeHead(500).end()),
  });
  t.teardown(() => origin.close());
  const response = await origin.upload(png(1));
  t.equal(code(response), '503 auth_unavailable');
  t.match(response.headers['retry-after'], /^\d+$/);
  t.match(json(await origin.send('/readyz')), { failed: ['keys'] });
  t.equal(member(await origin.send(`/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV`), 'code'), 'unauthorized');
});

void t.test(
  'an origin that lacks the keys of one issuer is ready for the tokens of the other, and names it',
  async (t) => {
    const away = 'http://127.0.0.1:1';
    const origin = await startOrigin(t.testdir(), NO_THUMBS, { issuers: [away] });
    t.teardown(() => origin.close());
    const response = await origin.send('/readyz');
    t.equal(response.status, 200);
    t.match(json(response), { status: 'ready', issuers: { [origin.auth.issuer]: 'current', [away]: 'unknown' } });
    t.equal((await origin.upload(png(1))).status, 201);
  },
);
