/** What clients and edges get of media: originals, thumbnails, links and refusals. */
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { signLink } from '../../src/access/link.js';
import type { MediaId } from '../../src/ids.js';
import { cleanFilename, contentDisposition } from '../../src/media/disposition.js';
import { TEST_SECRET } from '../kit/auth-service.js';
import { type HttpResponse, json, member } from '../kit/http/request.js';
import { gif, pdf, png, text, wav } from '../kit/media.js';
import { filesOf } from '../kit/origin/keys.js';
import { startOrigin } from '../kit/origin/origin.js';
import { pausedProbe } from '../kit/origin/paused-probe.js';
import { makeJpeg } from '../kit/pictures.js';

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const code = (response: HttpResponse): string => `${response.status} ${String(json(response)['code'])}`;
const UNKNOWN = '01ARZ3NDEKTSV4RRFFQ69G5FAV';
const NO_THUMBS = { thumbs: { enabled: false, wait: '0ms', video: { enabled: false } } };

/** Fields that differ between two responses with the same content. */
const VOLATILE = new Set(['date', 'x-request-id', 'connection']);
const stable = (response: HttpResponse): Record<string, unknown> =>
  Object.fromEntries(Object.entries(response.headers).filter(([name]) => !VOLATILE.has(name)));

void t.test('originals', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());
  const bytes = png(1, 64, 48);
  const id = await origin.uploaded(bytes, '?filename=gr%C3%BC%C3%9Fe%20%22x%22.png&expires_in=86400');
  const path = `/v1/media/${id}`;

  await t.test('a response has all fields of the original', async (t) => {
    const response = await origin.as('bob', path);
    t.ok(response.bytes.equals(bytes));
    t.match(response, {
      status: 200,
      headers: {
        'content-type': 'image/png',
        'content-length': String(bytes.length),
        etag: `"sha256:${sha256(bytes)}"`,
        'last-modified': 'Thu, 01 Jan 2026 00:00:00 GMT',
        'accept-ranges': 'bytes',
        'repr-digest': `sha-256=:${Buffer.from(sha256(bytes), 'hex').toString('base64')}:`,
        'content-disposition': `inline; filename="gru_e _x_.png"; filename*=UTF-8''gr%C3%BC%C3%9Fe%20%22x%22.png`,
        'media-width': '64',
        'media-height': '48',
        sunset: 'Fri, 02 Jan 2026 00:00:00 GMT',
        'cache-control': 'private, max-age=60',
        'x-content-type-options': 'nosniff',
        'content-security-policy':
          "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
        'cross-origin-resource-policy': 'cross-origin',
        'referrer-policy': 'no-referrer',
        'access-control-allow-origin': '*',
      },
    });
    t.notOk(response.headers['cdn-cache-control'], 'only edges get lifetimes for edges');
    t.notOk(response.headers['media-id']);
    t.equal((await origin.as('bob', path.toUpperCase())).status, 404, 'paths are case-sensitive');
    t.equal((await origin.as('bob', `/v1/media/${id.toLowerCase()}`)).status, 200, 'ids are not case-sensitive');
  });

  await t.test('HEAD, 206 and 304 have the fields of the 200', async (t) => {
    const whole = stable(await origin.as('bob', path));
    const headed = await origin.as('bob', path, { method: 'HEAD' });
    t.equal(headed.status, 200);
    t.equal(headed.bytes.length, 0);
    t.strictSame(stable(headed), whole);
    const part = await origin.as('bob', path, { headers: { range: 'bytes=10-19' } });
    t.equal(part.status, 206);
    t.ok(part.bytes.equals(bytes.subarray(10, 20)));
    t.strictSame(stable(part), {
      ...whole,
      'content-length': '10',
      'content-range': `bytes 10-19/${bytes.length}`,
    });
    const same = await origin.as('bob', path, { headers: { 'if-none-match': String(whole['etag']) } });
    t.equal(same.status, 304);
    const { 'content-length': _length, 'content-type': _type, ...metadata } = whole;
    t.strictSame(stable(same), metadata);
  });

  await t.test('conditions and ranges follow RFC 9110', async (t) => {
    const etag = `"sha256:${sha256(bytes)}"`;
    const later = 'Fri, 02 Jan 2026 00:00:00 GMT';
    const earlier = 'Wed, 31 Dec 2025 00:00:00 GMT';
    const cases: readonly [headers: Record<string, string>, status: number, length: number][] = [
      [{ 'if-match': etag }, 200, bytes.length],
      [{ 'if-match': '"other"' }, 412, -1],
      [{ 'if-none-match': `"x", W/${etag}` }, 304, 0],
      [{ 'if-modified-since': later }, 304, 0],
      [{ 'if-modified-since': earlier }, 200, bytes.length],
      [{ 'if-unmodified-since': earlier }, 412, -1],
      [{ range: 'bytes=0-1' }, 206, 2],
      [{ range: 'bytes=-5' }, 206, 5],
      [{ range: 'bytes=5-' }, 206, bytes.length - 5],
      [{ range: `bytes=${bytes.length}-` }, 416, -1],
      [{ range: 'bytes=5-2' }, 200, bytes.length],
      [{ range: 'bytes=0-1', 'if-range': etag }, 206, 2],
      [{ range: 'bytes=0-1', 'if-range': '"other"' }, 200, bytes.length],
      [{ range: 'bytes=0-9,5-14' }, 200, bytes.length],
      [{ range: `bytes=${Array.from({ length: 17 }, (_, at) => `${at * 4}-${at * 4}`).join()}` }, 200, bytes.length],
    ];
    for (const [headers, status, length] of cases) {
      const response = await origin.as('bob', path, { headers });
      t.equal(response.status, status, JSON.stringify(headers));
      if (length >= 0) t.equal(response.bytes.length, length, JSON.stringify(headers));
    }
    const outside = await origin.as('bob', path, { headers: { range: `bytes=${bytes.length}-` } });
    t.equal(code(outside), '416 range_not_satisfiable');
    t.equal(outside.headers['content-range'], `bytes */${bytes.length}`);
  });

  await t.test('several ranges come as multipart/byteranges', async (t) => {
    const response = await origin.as('bob', path, { headers: { range: 'bytes=0-3,10-13,-4' } });
    t.equal(response.status, 206);
    const boundary =
      /^multipart\/byteranges; boundary=(\S+)$/.exec(String(response.headers['content-type']))?.[1] ?? '';
    const part = (first: number, last: number): string =>
      `--${boundary}\r\nContent-Type: image/png\r\nContent-Range: bytes ${first}-${last}/${bytes.length}\r\n\r\n` +
      `${bytes.toString('latin1', first, last + 1)}\r\n`;
    const expected = `${part(0, 3)}${part(10, 13)}${part(bytes.length - 4, bytes.length - 1)}--${boundary}--\r\n`;
    t.equal(response.bytes.toString('latin1'), expected);
    t.equal(response.headers['content-length'], String(expected.length));
  });

  await t.test('only harmless types are displayed inline', async (t) => {
    const cases: readonly [bytes: Buffer, disposition: RegExp, type: string][] = [
      [gif(1), /^inline; filename="[0-9A-Z]{26}\.gif"$/, 'image/gif'],
      [pdf(1), /^attachment; filename="[0-9A-Z]{26}\.pdf"$/, 'application/pdf'],
      [text(1), /^attachment; filename="[0-9A-Z]{26}\.txt"$/, 'text/plain; charset=utf-8'],
    ];
    for (const [media, disposition, type] of cases) {
      const response = await origin.as('bob', `/v1/media/${await origin.uploaded(media)}`);
      t.match(response.headers, { 'content-disposition': disposition, 'content-type': type });
    }
  });

  await t.test('an edge gets its own lifetimes, and no copy outlives its media', async (t) => {
    const open = await origin.uploaded(png(2), '?public=true');
    const edge = { 'cache-control': 'public, max-age=60', 'media-id': open };
    t.match((await origin.asEdge(`/v1/media/${open}`)).headers, {
      ...edge,
      'cdn-cache-control': 'public, max-age=86400, stale-while-revalidate=3600, stale-if-error=86400',
    });
    t.match((await origin.asEdge(`/v1/media/${open}`, { headers: { 'media-caller': 'anonymous' } })).headers, edge);
    const short = await origin.uploaded(png(3), '?expires_in=90000');
    t.match((await origin.asEdge(`/v1/media/${short}`)).headers, {
      'cache-control': 'private, max-age=60',
      'cdn-cache-control': 'max-age=86400, stale-while-revalidate=3600, stale-if-error=3600',
    });
    const brief = await origin.uploaded(png(4), '?expires_in=30');
    t.match((await origin.asEdge(`/v1/media/${brief}`)).headers, {
      'cache-control': 'private, max-age=30',
      'cdn-cache-control': 'max-age=30, stale-while-revalidate=0, stale-if-error=0',
    });
    t.equal((await origin.send(`/v1/media/${id}`, { headers: { 'edge-authorization': 'v1.guess' } })).status, 401);
    const asked = await origin.asEdge(`/v1/media/${id}`, { headers: { 'media-caller': 'anonymous' } });
    t.equal(asked.status, 401, 'an edge that asks for an anonymous caller gets what that caller may read');
  });

  await t.test('a signed link opens only its own media, until it expires', async (t) => {
    const link = await origin.as('bob', `${path}/link?expires_in=30&w=200`, { method: 'POST' });
    t.equal(link.status, 200);
    t.equal(member(link, 'expires_at'), '2026-01-01T00:10:00.000Z', 'rounded up, so that the next one is the same');
    const url = new URL(member(link, 'url'));
    const response = await origin.send(url.pathname + url.search);
    t.ok(response.bytes.equals(bytes));
    const brief = signLink({ kind: 'original', id: id as MediaId }, origin.clock.now() + 30_000, {
      kid: '1',
      secret: TEST_SECRET,
    });
    const copy = await origin.send(brief);
    t.equal(copy.headers['cache-control'], 'private, max-age=30', 'the copy ends with the link');
    t.match(new URL(member(link, 'thumb_url')).search, /^\?w=200&exp=/);
    t.equal((await origin.send(`/v1/media/${UNKNOWN}${url.search}`)).status, 401);
    const day = await origin.as('bob', `${path}/link?expires_in=604800`, { method: 'POST' });
    t.equal(member(day, 'expires_at'), '2026-01-02T00:00:00.000Z', 'no link outlives its media');
    t.equal(code(await origin.as('bob', `${path}/link?expires_in=604801`, { method: 'POST' })), '400 malformed');
    t.equal((await origin.send(`${path}/link`, { method: 'POST' })).status, 401);
    t.equal(code(await origin.as('bob', `/v1/media/${UNKNOWN}/link`, { method: 'POST' })), '404 not_found');
  });

  await t.test('a lost blob gives a problem response, not a broken body', async (t) => {
    const media = png(5);
    const lost = await origin.uploaded(media);
    const hash = sha256(media);
    for (const file of filesOf(join(origin.folder, 'blobs'), hash)) await rm(file);
    const response = await origin.as('bob', `/v1/media/${lost}`);
    t.equal(code(response), '503 storage_unavailable');
    t.ok(Number(response.headers['retry-after']) > 0);
    t.notMatch(response.bytes.toString(), hash);
    t.equal((await origin.upload(media)).status, 200, 'uploading the same bytes restores it');
    t.ok((await origin.as('bob', `/v1/media/${lost}`)).bytes.equals(media));
  });

  await t.test('every response is described in openapi.json', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('who may read what', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());
  const make = async (seed: number, state: string): Promise<{ open: string; closed: string }> => {
    const ids: string[] = [];
    for (const [at, query] of ['?public=true', ''].entries()) {
      const expiry = state === 'expired' ? `${query === '' ? '?' : '&'}expires_in=10` : '';
      const id = await origin.uploaded(png(seed * 10 + at), query + expiry);
      if (state === 'deleted') await origin.asAdmin(`/v1/media/${id}`, { method: 'DELETE' });
      if (state === 'quarantined') await origin.asAdmin(`/v1/media/${id}/quarantine`, { method: 'POST' });
      ids.push(id);
    }
    const [open = '', closed = ''] = ids;
    return { open, closed };
  };
  const live = await make(1, 'live');
  const deleted = await make(2, 'deleted');
  const quarantined = await make(3, 'quarantined');
  const expired = await make(4, 'expired');
  origin.clock.advance(10_000);
  const link = (id: string): string =>
    signLink({ kind: 'original', id: id as MediaId }, origin.clock.now() + 60_000, { kid: '1', secret: TEST_SECRET });

  await t.test('each caller gets the status in the table', async (t) => {
    const table: readonly [what: string, id: string, anonymous: number, caller: number][] = [
      ['live public', live.open, 200, 200],
      ['live private', live.closed, 401, 200],
      ['deleted public', deleted.open, 410, 410],
      ['deleted private', deleted.closed, 401, 410],
      ['quarantined public', quarantined.open, 403, 403],
      ['quarantined private', quarantined.closed, 401, 403],
      ['expired public', expired.open, 410, 410],
      ['expired private', expired.closed, 401, 410],
      ['unknown', UNKNOWN, 401, 404],
    ];
    for (const [what, id, anonymous, caller] of table) {
      const path = `/v1/media/${id}`;
      for (const suffix of ['', '/thumb']) {
        const seen = (response: HttpResponse): number =>
          suffix === '/thumb' && response.status === 202 ? 200 : response.status;
        const at = path + suffix;
        t.equal(seen(await origin.send(at)), anonymous, `${what}${suffix}, anonymous`);
        t.equal(seen(await origin.as('bob', at)), caller, `${what}${suffix}, caller`);
        t.equal(seen(await origin.asEdge(at)), caller, `${what}${suffix}, edge`);
        const forAnyone = await origin.asEdge(at, { headers: { 'media-caller': 'anonymous' } });
        t.equal(seen(forAnyone), anonymous, `${what}${suffix}, edge for anonymous`);
      }
      t.equal((await origin.send(link(id))).status, caller, `${what}, link`);
      const ranged = await origin.send(path, { headers: { range: 'bytes=0-1', 'if-none-match': '*' } });
      t.equal(ranged.status, anonymous === 200 ? 304 : anonymous, `${what}, conditions come after access`);
    }
  });

  await t.test('without a credential, private media, tombstones and unknown ids look the same', async (t) => {
    const ids = [live.closed, deleted.closed, quarantined.closed, expired.closed, UNKNOWN];
    for (const headers of [{}, { authorization: 'Bearer nonsense' }] as Record<string, string>[]) {
      for (const suffix of ['', '/thumb', '?exp=1&kid=1&sig=x']) {
        const responses = await Promise.all(ids.map((id) => origin.send(`/v1/media/${id}${suffix}`, { headers })));
        const [first, ...others] = responses.map((response) => ({
          status: response.status,
          headers: stable(response),
          body: response.bytes.toString(),
        }));
        t.equal(first?.status, 401);
        for (const other of others) t.strictSame(other, first);
      }
    }
  });

  await t.test('a token for uploads cannot read private media', async (t) => {
    const authorization = `Bearer ${origin.auth.token({ scope: 'media:upload' })}`;
    const status = async (id: string): Promise<number> =>
      (await origin.send(`/v1/media/${id}`, { headers: { authorization } })).status;
    t.equal(await status(live.open), 200);
    t.equal(await status(live.closed), 403);
    t.equal(await status(UNKNOWN), 403);
  });

  await t.test('a malformed id is refused as such', async (t) => {
    for (const id of ['x', `${UNKNOWN}0`, `8${UNKNOWN.slice(1)}`, UNKNOWN.replace('A', 'U'), '%30'.repeat(26)]) {
      t.equal(code(await origin.send(`/v1/media/${encodeURI(id)}`)), '400 invalid_id', id);
    }
  });

  await t.test('every response is described in openapi.json', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('thumbnails', async (t) => {
  const origin = await startOrigin(t.testdir(), {
    thumbs: { wait: '60s', video: { enabled: false }, children: { count: 1 } },
  });
  t.teardown(() => origin.close());
  const source = await makeJpeg(1, 900, 600);
  const path = `/v1/media/${await origin.uploaded(source)}/thumb`;
  const get = (query = '', accept = 'image/webp,*/*', over: Record<string, string> = {}): Promise<HttpResponse> =>
    origin.as('bob', path + query, { headers: { accept, ...over } });

  await t.test('a pending thumbnail is waited for, then served like an original', async (t) => {
    const response = await get();
    t.match(response, {
      status: 200,
      headers: {
        'content-type': 'image/webp',
        vary: 'Accept',
        'media-width': '320',
        'content-disposition': 'inline',
        etag: `"sha256:${sha256(response.bytes)}"`,
        'cache-control': 'private, max-age=60',
      },
    });
    t.equal((await get('', 'image/webp', { 'if-none-match': String(response.headers.etag) })).status, 304);
    const part = await get('', 'image/webp', { range: 'bytes=0-3' });
    t.equal(part.bytes.toString(), 'RIFF');
    t.match((await origin.asEdge(path)).headers, { 'cdn-cache-control': /^max-age=/, vary: 'Accept' });
  });

  await t.test('the wanted size selects the variant, Accept the format, and other parameters nothing', async (t) => {
    const width = async (query: string): Promise<unknown> => (await get(query)).headers['media-width'];
    t.equal(await width('?w=100'), '160');
    t.equal(await width('?w=161'), '320');
    t.equal(await width('?w=700'), '900', 'never enlarged');
    t.equal(await width('?w=100&colour=red'), '160');
    t.equal(await width('?w=nonsense'), '320');
    t.equal((await get('', 'image/jpeg')).headers['content-type'], 'image/jpeg');
    t.equal((await get('', '')).headers['content-type'], 'image/jpeg');
  });

  await t.test('a missing thumbnail gives the reason', async (t) => {
    // A cut JPEG is shown as far as it goes; a cut PNG is not.
    const broken = png(9, 900, 600).subarray(0, 200);
    const cases: readonly [media: Buffer, reason: string][] = [
      [text(7), 'unsupported_type'],
      [broken, 'broken_image'],
    ];
    for (const [media, reason] of cases) {
      const response = await origin.as('bob', `/v1/media/${await origin.uploaded(media)}/thumb`);
      t.match([code(response), json(response)['reason']], ['404 thumbnail_unavailable', reason]);
    }
  });

  await t.test('once it is made, duplicates and the original show the learned facts', async (t) => {
    t.match(json(await origin.upload(source)), { width: 900, height: 600, thumbhash: /^[\w+/=]+$/ });
    t.match((await origin.as('bob', path.replace('/thumb', ''))).headers, { 'media-thumbhash': /^[\w+/=]+$/ });
  });

  await t.test('every response is described in openapi.json', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('while facts about media are pending, edges get a short lifetime, and then the usual one', async (t) => {
  const probe = pausedProbe(t.testdir(), 1.5);
  const origin = await startOrigin(join(t.testdirName, 'origin'), { thumbs: { video: probe.video } });
  t.teardown(() => origin.close());
  const path = `/v1/media/${await origin.uploaded(wav(1))}`;
  const before = await origin.asEdge(path);
  t.equal(
    before.headers['cdn-cache-control'],
    'max-age=5, stale-while-revalidate=3600, stale-if-error=86400, provisional',
  );
  t.notOk(before.headers['media-duration']);
  t.match((await origin.as('bob', path)).headers, { 'cache-control': 'private, max-age=60' });
  probe.release();
  await origin.as('bob', `${path}/thumb`);
  const conditional = { headers: { 'if-none-match': String(before.headers.etag) } };
  const after = await origin.asEdge(path, conditional);
  t.match(after, {
    status: 304,
    headers: {
      'media-duration': '1.500',
      'cdn-cache-control': 'max-age=86400, stale-while-revalidate=3600, stale-if-error=86400',
    },
  });
  t.notMatch(after.headers['cdn-cache-control'], /provisional/);
});

void t.test('a thumbnail that is not made in time gives 202 and Retry-After', async (t) => {
  const origin = await startOrigin(t.testdir(), { thumbs: { ...NO_THUMBS.thumbs, wait: '2345ms' } });
  t.teardown(() => origin.close());
  const id = await origin.uploaded(png(1));
  const response = origin.as('bob', `/v1/media/${id}/thumb`);
  await origin.clock.timerSet(2_345);
  origin.clock.advance(2_345);
  t.match(await response, {
    status: 202,
    headers: { 'retry-after': '2', 'cache-control': 'no-store', vary: 'Accept' },
  });
  t.match(json(await response), { code: 'thumbnail_pending' });
});

void t.test('a picture element that is early gets a placeholder picture, and never JSON', async (t) => {
  const origin = await startOrigin(t.testdir(), {
    thumbs: { ...NO_THUMBS.thumbs, wait: '2345ms', picture_wait: '19123ms' },
  });
  t.teardown(() => origin.close());
  const path = `/v1/media/${await origin.uploaded(png(1, 900, 600))}/thumb`;
  const placeholder = { status: 200, headers: { 'content-type': 'image/png', 'media-placeholder': '?1' } };
  const pending = { status: 202, headers: { 'content-type': /json/, 'retry-after': '2' } };
  const browser = 'image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8';
  type Row = readonly [fields: Record<string, string>, waitMs: number, expected: object];
  const rows: readonly Row[] = [
    [{ accept: browser, 'sec-fetch-dest': 'image' }, 19_123, placeholder],
    [{ 'sec-fetch-dest': 'image' }, 19_123, placeholder],
    [{ accept: 'image/webp' }, 19_123, placeholder],
    [{ accept: 'image/avif;q=0.9, image/*;q=0.1' }, 19_123, placeholder],
    [{ accept: browser, 'sec-fetch-dest': 'empty' }, 2_345, pending],
    [{ accept: browser }, 2_345, pending],
    [{ accept: 'image/webp, application/json;q=0.5' }, 2_345, pending],
    [{ accept: '*/*' }, 2_345, pending],
    [{ accept: 'nonsense' }, 2_345, pending],
    [{}, 2_345, pending],
  ];
  for (const [fields, waitMs, expected] of rows) {
    const response = origin.as('bob', `${path}?w=300`, { headers: fields });
    await origin.clock.timerSet(waitMs);
    origin.clock.advance(waitMs);
    const { status, headers, bytes } = await response;
    t.match({ status, headers }, expected, JSON.stringify(fields));
    t.match(headers, { 'cache-control': 'no-store', vary: 'Accept' }, JSON.stringify(fields));
    if (expected !== placeholder) continue;
    t.match(await sharp(bytes).metadata(), { format: 'png', width: 320, height: 213 }, 'the size of the thumbnail');
  }
});

void t.test('file names', async (t) => {
  await t.test('are reduced to a harmless base name when stored', async (t) => {
    const cases: readonly [given: string, kept: string | null][] = [
      ['photo.jpg', 'photo.jpg'],
      ['../../etc/passwd', 'passwd'],
      ['C:\\Users\\x\\photo.jpg', 'photo.jpg'],
      ['  a b.txt  ', 'a b.txt'],
      ['a\r\nSet-Cookie: x.txt', 'aSet-Cookie: x.txt'],
      ['evil\u202egpj.exe', 'evilgpj.exe'],
      ['e\u0301.txt', 'é.txt'],
      ['日本語 👩‍👩‍👧.png', '日本語 👩‍👩‍👧.png'],
      ['\ud800.txt', '.txt'],
      ['..', null],
      ['', null],
      ['folder/', null],
      [`${'é'.repeat(200)}.jpeg`, `${'é'.repeat(125)}.jpeg`],
    ];
    for (const [given, kept] of cases) t.equal(cleanFilename(given), kept, JSON.stringify(given));
  });

  await t.test('are sent exactly, with an ASCII fallback', async (t) => {
    const cases: readonly [name: string, field: string][] = [
      ['photo.jpg', 'attachment; filename="photo.jpg"'],
      ['a "b" 50%.txt', `attachment; filename="a _b_ 50_.txt"; filename*=UTF-8''a%20%22b%22%2050%25.txt`],
      ["it's (1)*!.txt", `attachment; filename="it's (1)*!.txt"`],
      ['naïve.txt', `attachment; filename="naive.txt"; filename*=UTF-8''na%C3%AFve.txt`],
      ['€.txt', `attachment; filename="_.txt"; filename*=UTF-8''%E2%82%AC.txt`],
      ["€'(*).txt", `attachment; filename="_'(*).txt"; filename*=UTF-8''%E2%82%AC%27%28%2A%29.txt`],
    ];
    for (const [name, field] of cases) t.equal(contentDisposition('attachment', name), field);
  });
});
