/** The info of media, at a whole origin and at a whole edge before it. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import t from 'tap';
import { startEdge } from '../kit/edge/media-edge.js';
import { type HttpResponse, json, sendRequest } from '../kit/http/request.js';
import { png } from '../kit/media.js';
import { startOrigin } from '../kit/origin/origin.js';
import { makeJpeg } from '../kit/pictures.js';
import { untilAsync } from '../kit/until.js';

const NO_THUMBS = { thumbs: { enabled: false } };
const LATER = 'Fri, 02 Jan 2026 00:00:00 GMT';

void t.test('the info is the document of the upload, and whoever may read the media may read it', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());
  const created = await origin.upload(png(1), '?filename=one.png&expires_in=90000');
  const { duplicate: _duplicate, ...document } = json(created);
  const path = `/v1/media/${String(document['id'])}/info`;

  await t.test('with the fields of media, and an entity tag of its own', async (t) => {
    const response = await origin.as('bob', path);
    t.strictSame(json(response), document);
    t.notOk(JSON.stringify(json(response)).includes('alice'), 'the owner is not told');
    t.match(response.headers, {
      'content-type': 'application/json',
      'cache-control': 'private, max-age=60',
      etag: `"sha256:${createHash('sha256').update(response.bytes).digest('hex')}"`,
      sunset: 'Fri, 02 Jan 2026 01:00:00 GMT',
    });
    t.notOk(response.headers['last-modified'], 'nobody knows when it last changed');
    const head = await origin.as('bob', path, { method: 'HEAD' });
    t.match(head, { status: 200, headers: { 'content-length': String(response.bytes.length) } });
    t.equal(head.bytes.length, 0);
    const etag = String(response.headers.etag);
    for (const [headers, status] of [
      [{ 'if-none-match': etag }, 304],
      [{ 'if-modified-since': LATER }, 200],
      [{ 'if-match': '"other"' }, 412],
      [{ range: 'bytes=0-1' }, 206],
    ] as const) {
      t.equal((await origin.as('bob', path, { headers })).status, status, JSON.stringify(headers));
    }
  });

  await t.test('edges keep it for an hour, and hear of a takedown by its id', async (t) => {
    t.match((await origin.asEdge(path)).headers, {
      'cdn-cache-control': 'max-age=3600, stale-while-revalidate=3600, stale-if-error=86400',
      'media-id': String(document['id']),
    });
  });

  await t.test('nobody else may read it, and what is gone is gone', async (t) => {
    const unknown = '/v1/media/01J9ZC8GZ0000000000000000A/info';
    const open = `/v1/media/${await origin.uploaded(png(2), '?public=true')}/info`;
    t.equal((await origin.send(open)).status, 200);
    t.equal((await origin.send(path)).status, 401);
    t.equal((await origin.send(unknown)).status, 401);
    t.equal((await origin.as('bob', unknown)).status, 404);
    t.equal((await origin.asEdge(path, { headers: { 'media-caller': 'anonymous' } })).status, 401);
    await origin.asAdmin(path.replace('/info', ''), { method: 'DELETE' });
    t.equal((await origin.as('bob', path)).status, 410);
    t.equal((await origin.send(path)).status, 401);
  });

  t.strictSame(await origin.undescribed(), []);
});

void t.test('the answer to the upload of a picture has its thumbhash, unless that is switched off', async (t) => {
  const video = { enabled: false };
  const on = await startOrigin(join(t.testdir(), 'on'), { thumbs: { video } });
  t.teardown(() => on.close());
  // The clock stands still, so the answer waits until the thumbhash is known.
  const created = await on.upload(await makeJpeg(1, 300, 200));
  const { id, thumbhash } = json(created);
  t.match(thumbhash, /^[A-Za-z0-9+/=]{8,}$/);
  await untilAsync(
    'the record',
    async () => json(await on.as('bob', `/v1/media/${String(id)}/info`))['thumbhash'] !== null,
  );
  t.equal(json(await on.as('bob', `/v1/media/${String(id)}/info`))['thumbhash'], thumbhash, 'the same as later');

  const off = await startOrigin(join(t.testdirName, 'off'), { thumbs: { video, upload_wait: '0s' } });
  t.teardown(() => off.close());
  const later = json(await off.upload(await makeJpeg(1, 300, 200)));
  t.equal(later['thumbhash'], null);
  await untilAsync('the end of its job', async () => {
    return json(await off.as('bob', `/v1/media/${String(later['id'])}/info`))['thumbhash'] !== null;
  });
});

void t.test('late facts are in the info soon, also at an edge', async (t) => {
  const origin = await startOrigin(join(t.testdir(), 'origin'), { thumbs: { video: { enabled: false } } });
  t.teardown(() => origin.close());
  const edge = await startEdge(join(t.testdirName, 'edge'), origin, {}, origin.clock);
  t.teardown(() => edge.close());
  const headers = { authorization: `Bearer ${origin.auth.token({ sub: 'bob' })}` };
  const ask = (id: string): Promise<HttpResponse> => sendRequest(`${edge.url}/v1/media/${id}/info`, { headers });

  const id = await origin.uploaded(await makeJpeg(1, 300, 200));
  await ask(id);
  await untilAsync('the thumbhash', async () => {
    return json(await origin.as('bob', `/v1/media/${id}/info`))['thumbhash'] !== null;
  });
  origin.clock.advance(5_000);
  t.match(json(await ask(id)), { width: 300, height: 200, thumbhash: /^[A-Za-z0-9+/=]{8,}$/ });
  const again = await ask(id);
  t.match(again.headers['cache-status'], /; hit; ttl=3\d\d\d; detail=memory/, 'what is complete is kept for longer');
  t.equal((await sendRequest(`${edge.url}/v1/media/${id}/info`)).status, 401);
  t.equal((await sendRequest(`${edge.url}/v1/media/${id}/info`, { headers, method: 'HEAD' })).status, 200);
});
