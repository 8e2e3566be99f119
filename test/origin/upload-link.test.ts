/** Upload links: what they open, within which terms, and that each is used once. */
import { join } from 'node:path';
import t from 'tap';
import { signUploadLink, type UploadTerms } from '../../src/access/upload-link.js';
import { TEST_SECRET } from '../kit/auth-service.js';
import { startEdge } from '../kit/edge/media-edge.js';
import { type HttpResponse, json, member, type RequestOptions, sendRequest } from '../kit/http/request.js';
import { gif, png } from '../kit/media.js';
import { startOrigin, type TestOrigin } from '../kit/origin/origin.js';

const NO_THUMBS = { thumbs: { enabled: false } };
const code = (response: HttpResponse): string => `${response.status} ${member(response, 'code')}`;
const targetOf = (url: string): string => new URL(url).pathname + new URL(url).search;

async function linkFrom(origin: TestOrigin, terms: object = {}, as = 'alice'): Promise<{ url: string; tus: string }> {
  const answer = await origin.as(as, '/v1/uploads/link', { method: 'POST', body: Buffer.from(JSON.stringify(terms)) });
  if (answer.status !== 200) throw new Error(answer.bytes.toString());
  return { url: targetOf(member(answer, 'url')), tus: targetOf(member(answer, 'tus_url')) };
}

const post = (body: Buffer): RequestOptions => ({ method: 'POST', body });

void t.test('an upload link lets somebody without a token upload once, within its terms', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());

  await t.test('as the subject who made it, with the visibility and lifetime that were signed', async (t) => {
    const { url } = await linkFrom(origin, { public: true, expires_in: 100, size: 10_000, types: ['image/png'] });
    const created = await origin.send(`${url}&public=false&expires_in=5&filename=mine.png`, post(png(1)));
    t.equal(created.status, 201, created.bytes.toString());
    t.match(json(created), { public: true, filename: 'mine.png', expires_at: '2026-01-01T00:01:40.000Z' });
    const known = await origin.asAdmin(`/v1/admin/media/${member(created, 'id')}`);
    t.equal(member(known, 'owner'), 'alice');
    t.equal(code(await origin.send(url, post(png(2)))), '403 forbidden', 'a second time');
    t.equal(code(await origin.send(url, post(png(1)))), '403 forbidden', 'also with the same bytes');
    await origin.restart();
    t.equal(code(await origin.send(url, post(png(2)))), '403 forbidden', 'after a restart');
  });

  await t.test('a refused upload does not use it up, and a duplicate does', async (t) => {
    const { url } = await linkFrom(origin, { size: 2_000, types: ['image/png'] });
    t.equal(code(await origin.send(url, post(gif(1)))), '415 type_refused');
    t.equal(code(await origin.send(url, post(png(3, 900, 900)))), '413 too_large');
    const existing = await origin.uploaded(png(4));
    const duplicate = await origin.send(url, post(png(4)));
    t.match(
      json(duplicate),
      { id: existing, duplicate: true, created_at: null },
      'without what its sender may not read',
    );
    t.equal(code(await origin.send(url, post(png(5)))), '403 forbidden');
  });

  await t.test('of two uploads at once, one is recorded', async (t) => {
    const { url } = await linkFrom(origin);
    const answers = await Promise.all([6, 7, 8].map((seed) => origin.send(url, post(png(seed)))));
    t.same(
      answers.map(({ status }) => status).sort((one, other) => one - other),
      [201, 403, 403],
    );
  });

  await t.test('also a resumable one, which nothing else of the subject is open to', async (t) => {
    const { tus } = await linkFrom(origin, { size: 10_000 });
    const bytes = png(9);
    const headers = { 'tus-resumable': '1.0.0', 'upload-length': String(bytes.length) };
    t.equal(
      code(await origin.send(tus, { method: 'POST', headers: { ...headers, 'upload-length': '10001' } })),
      '413 too_large',
    );
    const partial = { ...headers, 'upload-concat': 'partial' };
    t.equal(code(await origin.send(tus, { method: 'POST', headers: partial })), '403 forbidden');
    const begun = await origin.send(tus, { method: 'POST', headers });
    t.equal(begun.status, 201, begun.bytes.toString());
    const location = String(begun.headers.location);
    t.match(location, /^\/v1\/uploads\/[0-9a-f]{32}\?upload=/);
    t.equal(code(await origin.send(tus, { method: 'POST', headers })), '409 conflict', 'it has begun its upload');
    const others = await origin.as('alice', '/v1/uploads', { method: 'POST', headers });
    const stolen = String(others.headers.location) + new URL(tus, 'http://x').search;
    t.equal((await origin.send(stolen, { method: 'HEAD', headers: { 'tus-resumable': '1.0.0' } })).status, 404);
    const chunk = (from: number, to: number): RequestOptions => ({
      method: 'PATCH',
      headers: {
        'tus-resumable': '1.0.0',
        'upload-offset': String(from),
        'content-type': 'application/offset+octet-stream',
      },
      body: bytes.subarray(from, to),
    });
    t.equal((await origin.send(location, chunk(0, 20))).status, 204);
    const head = await origin.send(location, { method: 'HEAD', headers: { 'tus-resumable': '1.0.0' } });
    t.equal(head.headers['upload-offset'], '20');
    const done = await origin.send(location, chunk(20, bytes.length));
    t.match(done.headers['media-location'], /^\/v1\/media\//);
    t.equal(code(await origin.send(tus.replace('/uploads', '/media'), post(png(10)))), '403 forbidden', 'used by tus');
  });

  await t.test('and opens nothing else, nor for longer', async (t) => {
    const { url, tus } = await linkFrom(origin, { lifetime: 60 });
    const query = new URL(url, 'http://x').search;
    const id = await origin.uploaded(png(11));
    for (const [target, method] of [
      [`/v1/media/${id}${query}`, 'GET'],
      [`/v1/media/${id}${query}`, 'DELETE'],
      [`/v1/media/${id}/link${query}`, 'POST'],
      [`/v1/links${query}`, 'POST'],
      [`/v1/uploads/link${query}`, 'POST'],
      [`/v1/admin/media${query}`, 'GET'],
    ] as const) {
      const answer = await origin.send(target, { method, ...(method === 'POST' && { body: Buffer.from('{}') }) });
      t.equal(answer.status, 401, `${method} ${target.split('?')[0]}`);
    }
    const forged = url.replace(/upload=[^&]+/, `upload=${Buffer.from('{"subject":"mo"}').toString('base64url')}`);
    t.equal(code(await origin.send(forged, post(png(12)))), '401 unauthorized');
    t.equal(code(await origin.send(url.replace(/exp=\d/, 'exp=9'), post(png(12)))), '401 unauthorized');
    origin.clock.advance(60_000);
    t.equal(code(await origin.send(url, post(png(12)))), '401 link_expired');
    t.equal(code(await origin.send(tus, post(png(12)))), '401 link_expired');
    t.notMatch(origin.logged.join('\n'), /sig=[A-Za-z0-9_-]{20}/, 'no signature is logged');
  });

  await t.test('only those who may upload make one, in their own name', async (t) => {
    const ask = (terms: unknown, claims: object): Promise<HttpResponse> =>
      origin.send('/v1/uploads/link', {
        method: 'POST',
        headers: { authorization: `Bearer ${origin.auth.token({ sub: 'bob', ...claims })}` },
        body: Buffer.from(JSON.stringify(terms)),
      });
    t.equal(code(await ask({}, { scope: 'media:read' })), '403 forbidden');
    t.equal(code(await ask({ subject: 'alice' }, {})), '403 forbidden');
    t.equal((await ask({ subject: 'alice' }, { scope: 'media:admin' })).status, 200);
    for (const wrong of [
      { size: 0 },
      { size: 10_000_001 },
      { types: ['text/html'] },
      { types: [] },
      { public: 'yes' },
      { lifetime: 90_000 },
      { filename: '' },
      [],
    ]) {
      t.equal(code(await ask(wrong, {})), '400 malformed', JSON.stringify(wrong));
    }
  });

  t.strictSame(await origin.undescribed(), []);
});

void t.test('terms of a link that were signed by another release in another form are refused', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());
  const terms = { id: 'short', subject: 'alice', expiresAt: origin.clock.now() + 60_000 } as unknown as UploadTerms;
  const query = signUploadLink(terms, { kid: '1', secret: TEST_SECRET });
  t.equal(code(await origin.send(`/v1/media?${query}`, post(png(1)))), '401 unauthorized');
});

void t.test('an upload link works at an edge, with an answer that scripts of any site may read', async (t) => {
  const origin = await startOrigin(join(t.testdir(), 'origin'), NO_THUMBS);
  t.teardown(() => origin.close());
  const edge = await startEdge(join(t.testdirName, 'edge'), origin, {}, origin.clock);
  t.teardown(() => edge.close());
  const { url, tus } = await linkFrom(origin);
  const created = await sendRequest(edge.url + url, post(png(1)));
  t.match(created, { status: 201, headers: { 'access-control-allow-origin': '*' } });
  t.equal(code(await sendRequest(edge.url + url, post(png(2)))), '403 forbidden');
  const preflight = await sendRequest(edge.url + tus, { method: 'OPTIONS' });
  t.match(preflight.headers, {
    'access-control-allow-methods': /POST/,
    'access-control-allow-headers': /Upload-Length/,
  });
});
