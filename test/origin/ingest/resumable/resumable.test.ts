/** Resumable uploads, by hand and by tus-js-client through an edge over a connection that breaks. */
import { existsSync } from 'node:fs';
import { appendFile, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { Upload, type UploadOptions } from 'tus-js-client';
import { writeMark } from '../../../../origin/ingest/resumable/end-mark.js';
import { startEdge } from '../../../kit/edge/media-edge.js';
import { connectRaw, requestHead } from '../../../kit/http/raw.js';
import { openRelay } from '../../../kit/http/relay.js';
import { type HttpResponse, json, member, sendRequest } from '../../../kit/http/request.js';
import { largePng, png } from '../../../kit/media.js';
import { startOrigin } from '../../../kit/origin/origin.js';
import {
  base64,
  begin,
  checksum,
  code,
  create,
  fileOf,
  filesOf,
  folderOf,
  head,
  metadata,
  offsetOf,
  PATCH,
  patch,
  remove,
  TUS,
} from '../../../kit/origin/tus-requests.js';
import { until, untilAsync } from '../../../kit/until.js';

const STILL = { thumbs: { enabled: false, video: { enabled: false } } };
const DAY_MS = 86_400_000;

void t.test('resumable uploads', async (t) => {
  const origin = await startOrigin(t.testdir(), {
    upload: { size_max: '1MB' },
    resumable: { unfinished_max_per_subject: 20, sweep_every: '1m' },
    ...STILL,
  });
  t.teardown(() => origin.close());

  await t.test('OPTIONS and /.well-known state the capabilities', async (t) => {
    for (const path of ['/v1/uploads', `/v1/uploads/${'a'.repeat(32)}`]) {
      const { status, headers } = await origin.send(path, { method: 'OPTIONS' });
      t.equal(status, 204);
      t.match(headers, {
        'tus-version': '1.0.0',
        'tus-extension':
          'creation,creation-with-upload,creation-defer-length,termination,expiration,checksum,concatenation',
        'tus-max-size': '1000000',
        'tus-checksum-algorithm': 'sha256,sha1',
        'access-control-allow-headers': /Upload-Checksum.*Upload-Offset/,
        'access-control-expose-headers': /Media-Location.*Tus-Checksum-Algorithm.*Upload-Expires/,
      });
    }
    const { resumable } = json(await origin.send('/.well-known'))['capabilities'] as { resumable: unknown };
    t.match(resumable, {
      endpoint: /\/v1\/uploads$/,
      version: '1.0.0',
      extensions: [/^creation$/, /./, /./, /./, /./, /^checksum$/, /^concatenation$/],
      checksum_algorithms: ['sha256', 'sha1'],
      expires_seconds: 86_400,
    });
  });

  await t.test('two PATCHes become media with the name, type, visibility and expiry of the creation', async (t) => {
    const bytes = largePng(1, 50_000);
    const path = await begin(origin, bytes.length, {
      ...metadata({ filename: 'grüße.png', filetype: 'image/png', public: 'true', expires_in: '3600', other: 'kept' }),
    });
    t.match(path, /^\/v1\/uploads\/[0-9a-f]{32}$/);
    const first = await patch(origin, path, 0, bytes.subarray(0, 20_000));
    t.equal(first.status, 204);
    t.match(first.headers, {
      'tus-resumable': '1.0.0',
      'upload-offset': '20000',
      'upload-expires': new Date(origin.clock.now() + DAY_MS).toUTCString(),
    });
    const between = await head(origin, path);
    t.match(between.headers, {
      'upload-offset': '20000',
      'upload-length': '50000',
      'cache-control': 'no-store',
      'upload-metadata': new RegExp(`filename ${base64('grüße.png')}`),
    });
    const last = await patch(origin, path, 20_000, bytes.subarray(20_000));
    t.equal(last.status, 204, 'as tus requires');
    t.equal(last.headers['upload-expires'], undefined);
    const location = String(last.headers['media-location']);
    const media = await origin.send(location);
    t.ok(media.bytes.equals(bytes), 'public, with the same bytes');
    t.match(media.headers, { 'content-type': 'image/png', etag: last.headers.etag ?? 'none' });
    t.match(media.headers['content-disposition'], /gr%C3%BC%C3%9Fe\.png/);
    t.equal(media.headers['sunset'], new Date(origin.clock.now() + 3_600_000).toUTCString());
    t.match((await head(origin, path)).headers, { 'upload-offset': '50000', 'media-location': location });
    t.notOk(existsSync(fileOf(origin, path)), 'its bytes are stored only once');
  });

  await t.test('an upload may come whole with its creation, and Accept asks for its description', async (t) => {
    const bytes = png(2);
    const fields = { 'upload-length': String(bytes.length), ...checksum('sha256', bytes) };
    const once = await create(origin, fields, bytes);
    t.equal(once.status, 201);
    t.match(json(once), { mime: 'image/png', size: bytes.length, duplicate: false, public: false });
    t.equal(once.headers['media-location'], `/v1/media/${member(once, 'id')}`);
    t.match(once.headers.location, /^\/v1\/uploads\//);

    const again = await patch(origin, await begin(origin, bytes.length), 0, bytes, { accept: 'application/json' });
    t.equal(again.status, 200);
    t.match(json(again), { id: member(once, 'id'), duplicate: true }, 'the same bytes are the same media');
  });

  await t.test('the length may be given later, and other methods may be sent as POST', async (t) => {
    const bytes = png(3);
    const created = await create(origin, { 'upload-defer-length': '1' });
    const path = created.headers.location ?? '';
    t.equal(created.headers['upload-defer-length'], '1');
    t.equal((await head(origin, path)).headers['upload-defer-length'], '1');
    t.equal((await patch(origin, path, 0, bytes.subarray(0, 10))).status, 204);
    const last = await origin.as('alice', path, {
      method: 'POST',
      headers: {
        ...PATCH,
        'x-http-method-override': 'PATCH',
        'upload-offset': '10',
        'upload-length': String(bytes.length),
      },
      body: bytes.subarray(10),
    });
    t.equal(last.status, 204);
    t.match(last.headers['media-location'], /^\/v1\/media\//);
    t.equal(code(await origin.as('alice', path, { method: 'POST', headers: TUS })), '405 method_not_allowed');
  });

  await t.test('a body that does not match its checksum is dropped', async (t) => {
    const bytes = png(4);
    const path = await begin(origin, bytes.length);
    t.equal((await patch(origin, path, 0, bytes.subarray(0, 8), checksum('sha1', bytes.subarray(0, 8)))).status, 204);
    const wrong = await patch(origin, path, 8, bytes.subarray(8), checksum('sha256', bytes));
    t.equal(code(wrong), '460 checksum_mismatch');
    t.equal(wrong.headers['tus-resumable'], '1.0.0');
    t.equal(await offsetOf(origin, path), 8);
    const table = [
      ['md5 AAAA', '400 malformed'],
      ['sha256', '400 malformed'],
      ['sha1 not-base64', '400 malformed'],
      [`sha1 ${base64('x'.repeat(20))} more`, '400 malformed'],
      ['sha256 AAAA', '460 checksum_mismatch'],
      [
        checksum('sha1', bytes.subarray(8))['upload-checksum']?.replace('sha1', 'sha256') ?? '',
        '460 checksum_mismatch',
      ],
    ] as const;
    for (const [field, outcome] of table) {
      t.equal(code(await patch(origin, path, 8, bytes.subarray(8), { 'upload-checksum': field })), outcome, field);
    }
    t.equal(await offsetOf(origin, path), 8);
    const right = await patch(origin, path, 8, bytes.subarray(8), checksum('sha256', bytes.subarray(8)));
    t.match(right.headers['media-location'], /^\/v1\/media\//);
    t.same(
      (await readdir(folderOf(origin))).filter((name) => name.endsWith('.part')),
      [],
    );
  });

  await t.test('malformed and impossible requests are refused', async (t) => {
    const bytes = png(5);
    const path = await begin(origin, bytes.length);
    const before = await filesOf(origin);
    const oneMore = Buffer.concat([bytes, Buffer.from('x')]);
    const chunked = { 'transfer-encoding': 'chunked' };
    const nine = { 'upload-length': '9' };
    type Row = readonly [outcome: string, why: string, answer: () => Promise<HttpResponse>];
    const table: readonly Row[] = [
      ['413 too_large', 'a length beyond the limit', () => create(origin, { 'upload-length': '1000001' })],
      ['413 too_large', 'a length beyond all numbers', () => create(origin, { 'upload-length': '9'.repeat(400) })],
      ['413 too_large', 'a body beyond the end', () => patch(origin, path, 0, oneMore)],
      ['413 too_large', 'the same without a length', () => patch(origin, path, 0, oneMore, chunked)],
      ['400 empty', 'a length of 0', () => create(origin, { 'upload-length': '0' })],
      ['400 malformed', 'no length', () => create(origin, {})],
      ['400 malformed', 'malformed metadata', () => create(origin, { ...nine, 'upload-metadata': 'a b c' })],
      ['400 malformed', 'a malformed option', () => create(origin, { ...nine, ...metadata({ public: 'perhaps' }) })],
      ['400 malformed', 'long metadata', () => create(origin, { ...nine, ...metadata({ note: 'x'.repeat(5_000) }) })],
      ['400 malformed', 'a malformed type', () => create(origin, { ...nine, ...metadata({ filetype: 'no type' }) })],
      [
        '460 checksum_mismatch',
        'a first body that does not match its checksum',
        () => create(origin, { 'upload-length': '99', ...checksum('sha1', Buffer.from('x')) }, bytes.subarray(0, 50)),
      ],
      [
        '415 type_refused',
        'a first body of another type',
        () => create(origin, { 'upload-length': '9', 'content-type': 'image/png' }, Buffer.alloc(9)),
      ],
      ['413 too_large', 'a first body beyond the end', () => create(origin, nine, bytes)],
      ['412 precondition_failed', 'no version', () => create(origin, { ...nine, 'tus-resumable': '' })],
      ['412 precondition_failed', 'another version', () => create(origin, { ...nine, 'tus-resumable': '0.2.2' })],
      ['405 method_not_allowed', 'another method', () => create(origin, { 'x-http-method-override': 'DELETE' })],
      ['409 conflict', 'another offset', () => patch(origin, path, 3, bytes.subarray(3))],
      ['400 malformed', 'no offset', () => patch(origin, path, 0, bytes, { 'upload-offset': '' })],
      ['400 malformed', 'another length', () => patch(origin, path, 0, bytes, nine)],
      ['415 type_refused', 'another type', () => patch(origin, path, 0, bytes, { 'content-type': 'image/png' })],
    ];
    for (const [outcome, why, answer] of table) {
      const given = await answer();
      t.equal(code(given), outcome, why);
      if (why === 'a body beyond the end')
        t.equal(member(given, 'detail'), 'The body goes beyond the end of the upload.');
      if (why === 'another offset') t.equal(given.headers['upload-offset'], '0', 'and is told the right one');
      if (given.status === 412) t.equal(given.headers['tus-version'], '1.0.0');
      t.equal(given.headers['tus-resumable'], '1.0.0', why);
    }
    t.equal(await offsetOf(origin, path), 0, 'nothing was stored');
    t.same(await filesOf(origin), before, 'no upload was created, and no file was left');
    t.equal((await remove(origin, path)).status, 204);
  });

  await t.test('metadata may have white space behind their commas, and a comma at their end', async (t) => {
    const spaced = `filename ${base64('a')}, filetype ${base64('image/png')} ,,`;
    const path = await begin(origin, 9, { 'upload-metadata': spaced });
    t.equal((await head(origin, path)).headers['upload-metadata'], `filename YQ==,filetype ${base64('image/png')}`);
    t.equal((await remove(origin, path)).status, 204);
  });

  await t.test('a token is required first, and only its owner can see an upload', async (t) => {
    const path = await begin(origin, 100);
    for (const method of ['HEAD', 'PATCH', 'DELETE', 'POST']) {
      t.equal((await origin.send(path, { method })).status, 401, method);
      t.equal((await origin.as('bob', path, { method, headers: PATCH })).status, method === 'POST' ? 405 : 404, method);
      if (method === 'POST') continue;
      const never = `/v1/uploads/${'0'.repeat(32)}`;
      t.equal((await origin.as('alice', never, { method, headers: PATCH })).status, 404, method);
      t.equal((await origin.as('alice', '/v1/uploads/..%2f..%2fmeta', { method, headers: PATCH })).status, 404, method);
    }
    t.equal((await origin.send('/v1/uploads', { method: 'POST' })).status, 401, 'before the tus version is checked');
    t.equal(await offsetOf(origin, path), 0, 'nobody else changed it');
    const reader = origin.auth.token({ sub: 'alice', scope: 'media:read' });
    const scoped = await origin.send('/v1/uploads', {
      method: 'POST',
      headers: { ...TUS, authorization: `Bearer ${reader}`, 'upload-length': '9' },
    });
    t.equal(scoped.status, 403, 'the scope for reading does not allow uploads');
  });

  await t.test('an upload whose content is refused ends with the code of the refusal', async (t) => {
    const bytes = png(6);
    const mislabelled = await begin(origin, bytes.length, metadata({ filetype: 'video/mp4' }));
    t.equal(code(await patch(origin, mislabelled, 0, bytes)), '415 type_mismatch');
    t.equal((await head(origin, mislabelled)).status, 404);

    const id = await origin.uploaded(bytes);
    t.equal((await origin.asAdmin(`/v1/media/${id}/quarantine`, { method: 'POST' })).status, 204);
    const refused = await begin(origin, bytes.length);
    t.equal(code(await patch(origin, refused, 0, bytes)), '403 quarantined');
    t.equal((await head(origin, refused)).status, 404);
    t.same(
      (await readdir(join(origin.folder, 'stage'))).filter((name) => name.startsWith('upload-')),
      [],
    );
  });

  await t.test('an upload can be deleted until it is finished', async (t) => {
    const path = await begin(origin, 100);
    await patch(origin, path, 0, Buffer.alloc(10));
    t.equal((await remove(origin, path)).status, 204);
    t.equal((await head(origin, path)).status, 404);
    t.notOk(existsSync(fileOf(origin, path)));

    const bytes = png(7);
    const done = await begin(origin, bytes.length);
    const location = String((await patch(origin, done, 0, bytes)).headers['media-location']);
    const nothing = await patch(origin, done, bytes.length, Buffer.alloc(0));
    t.match([nothing.status, nothing.headers['media-location']], [204, location], 'no bytes change nothing');
    for (const method of ['DELETE', 'PATCH']) {
      const answer = await origin.as('alice', done, {
        method,
        headers: { ...PATCH, 'upload-offset': '0' },
        body: bytes,
      });
      t.equal(code(answer), '409 conflict', method);
      t.match(answer.headers, { 'media-location': location, 'upload-offset': String(bytes.length) }, method);
    }
    t.equal((await origin.as('alice', location)).status, 200, 'the media stays');
  });

  await t.test('an abandoned upload expires and is removed', async (t) => {
    const path = await begin(origin, 100);
    await patch(origin, path, 0, Buffer.alloc(10));
    await origin.clock.advanceAsync(DAY_MS - 1_000);
    t.equal((await head(origin, path)).status, 200);
    // The sweep runs once a minute. Before it, an expired upload is answered 410.
    await origin.clock.advanceAsync(1_000);
    t.ok([404, 410].includes((await head(origin, path)).status));
    await origin.clock.advanceAsync(120_000);
    await untilAsync('the expired upload is counted', async () => {
      const metrics = await sendRequest(`${origin.operators}/metrics`);
      return /resumable_uploads_ended_total\{ending="expired"\} [1-9]/.test(metrics.bytes.toString());
    });
    t.equal((await head(origin, path)).status, 404);
    await until('its file is removed', () => !existsSync(fileOf(origin, path)));
  });

  await t.test('the OpenAPI document describes every answer', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('resumable uploads after failures', async (t) => {
  const origin = await startOrigin(t.testdir(), { resumable: { unfinished_max_per_subject: 3 }, ...STILL });
  t.teardown(() => origin.close());
  const halfway = async (bytes: Buffer) => {
    const path = await begin(origin, bytes.length);
    const wire = await connectRaw(Number(new URL(origin.url).port));
    wire.write(
      requestHead('PATCH', path, {
        ...PATCH,
        authorization: `Bearer ${origin.auth.token({ sub: 'alice' })}`,
        'upload-offset': '0',
        'content-length': String(bytes.length),
      }),
    );
    wire.write(bytes.subarray(0, 1_000));
    const file = fileOf(origin, path);
    while ((await readFile(file)).length < 1_000) await new Promise(setImmediate);
    return { path, wire };
  };

  await t.test('a second PATCH is refused, and a HEAD interrupts the first one', async (t) => {
    const bytes = largePng(11, 20_000);
    const { path, wire } = await halfway(bytes);
    t.equal(code(await patch(origin, path, 0, bytes)), '409 conflict');
    t.equal(await offsetOf(origin, path), 1_000, 'the received bytes are kept');
    t.match(await wire.until(/\r\n\r\n/), /^HTTP\/1\.1 409 /);
    wire.reset();
    const last = await patch(origin, path, 1_000, bytes.subarray(1_000));
    t.ok((await origin.as('alice', String(last.headers['media-location']))).bytes.equals(bytes));
  });

  await t.test('an upload continues after the client disconnects and the origin restarts', async (t) => {
    const bytes = largePng(12, 20_000);
    const { path, wire } = await halfway(bytes);
    wire.reset();
    t.equal(await offsetOf(origin, path), 1_000);
    t.same(
      origin.logged.filter((line) => line.includes('a request failed')),
      [],
      'a client that disconnects is not logged as a failure',
    );
    const strays = ['0'.repeat(32), `${path.slice(-32)}.part`, `${'2'.repeat(32)}.json`, `${'3'.repeat(32)}.stage`];
    for (const name of strays) await writeFile(join(folderOf(origin), name), '{');
    await origin.restart();
    t.equal(await offsetOf(origin, path), 1_000);
    t.same(
      (await readdir(folderOf(origin))).filter((name) => strays.includes(name)),
      [],
      'stray files are removed',
    );
    const last = await patch(origin, path, 1_000, bytes.subarray(1_000));
    const location = String(last.headers['media-location']);
    t.ok((await origin.as('alice', location)).bytes.equals(bytes));
    await origin.restart();
    t.equal(
      (await head(origin, path)).headers['media-location'],
      location,
      'also after a restart it is known which media it became',
    );
  });

  await t.test('an upload that a crash kept from being finished is finished by HEAD', async (t) => {
    const bytes = largePng(13, 20_000);
    const path = await begin(origin, bytes.length);
    await patch(origin, path, 0, bytes.subarray(0, 5_000));
    await origin.stop();
    await writeFile(fileOf(origin, path), bytes);
    await writeMark(`${fileOf(origin, path)}.end`, bytes.length);
    await origin.restart();
    const { headers } = await head(origin, path);
    t.equal(headers['upload-offset'], '20000');
    t.ok((await origin.as('alice', String(headers['media-location']))).bytes.equals(bytes));
  });

  await t.test('bytes that were not on the disk when the power was cut are sent again', async (t) => {
    const bytes = largePng(14, 20_000);
    const [cut, earlier] = [await begin(origin, bytes.length), await begin(origin, bytes.length)];
    for (const path of [cut, earlier]) await patch(origin, path, 0, bytes.subarray(0, 5_000));
    await origin.stop();
    // A file may be as long as it was written, with zeros in it.
    await appendFile(fileOf(origin, cut), Buffer.alloc(3_000));
    await appendFile(fileOf(origin, earlier), bytes.subarray(5_000, 8_000));
    await rm(`${fileOf(origin, earlier)}.end`);
    await origin.restart();
    t.equal(await offsetOf(origin, cut), 5_000);
    t.equal(await offsetOf(origin, earlier), 8_000, 'an earlier release has written no mark');
    const { headers } = await patch(origin, cut, 5_000, bytes.subarray(5_000));
    t.ok((await origin.as('alice', String(headers['media-location']))).bytes.equals(bytes));
    t.equal((await remove(origin, earlier)).status, 204);
  });

  await t.test('the number of unfinished uploads is limited', async (t) => {
    const answers = await Promise.all(Array.from({ length: 9 }, () => create(origin, { 'upload-length': '10' })));
    const statuses = answers.map(({ status }) => status).sort((left, right) => left - right);
    t.same(statuses, [201, 201, 201, 429, 429, 429, 429, 429, 429], 'also of requests at the same time');
    t.ok(answers.every(({ status, headers }) => status === 201 || headers['retry-after'] !== undefined));
  });
});

void t.test('tus-js-client, through an edge, over a connection that is cut ten times', async (t) => {
  const folder = t.testdir({ origin: {}, edge: {} });
  const origin = await startOrigin(join(folder, 'origin'), STILL);
  t.teardown(() => origin.close());
  const edge = await startEdge(join(folder, 'edge'), origin, {}, origin.clock);
  t.teardown(() => edge.close());
  const relay = await openRelay(() => Number(new URL(edge.url).port));
  t.teardown(() => relay.close());

  const bytes = largePng(21, 6_000_000);
  let cuts = 0;
  let lines = 0;
  let resumed = 0;
  let location: string | undefined;
  const options: UploadOptions = {
    endpoint: `${relay.url}/v1/uploads`,
    chunkSize: 1_000_000,
    retryDelays: Array.from({ length: 30 }, () => 0),
    headers: { authorization: `Bearer ${origin.auth.token({ sub: 'alice' })}` },
    metadata: { filename: 'long.png', filetype: 'image/png' },
    onProgress(sent) {
      // Cuts each connection once, somewhere inside a body.
      if (cuts >= 10 || sent === 0 || relay.accepted === lines) return;
      lines = relay.accepted;
      cuts += 1;
      relay.cut();
    },
    onBeforeRequest(request) {
      if (request.getMethod() === 'HEAD') resumed += 1;
    },
    onAfterResponse(_request, response) {
      location = response.getHeader('Media-Location') ?? location;
    },
  };
  await new Promise<void>((resolve, reject) => {
    new Upload(bytes, { ...options, onSuccess: () => resolve(), onError: reject }).start();
  });
  t.equal(cuts, 10);
  t.ok(resumed >= 10, 'after each cut it asked for the offset');
  const media = await origin.as('alice', location ?? '');
  t.ok(media.bytes.equals(bytes), 'complete, with the same bytes');
  t.match(media.headers['content-disposition'], /long\.png/);

  const options2 = await sendRequest(`${edge.url}/v1/uploads`, { method: 'OPTIONS' });
  t.equal(
    options2.headers['tus-checksum-algorithm'],
    'sha256,sha1',
    'the edge passes the capabilities of the origin on',
  );
});
