/** Partial uploads and the final uploads that join them, by hand and by tus-js-client in parallel. */
import { statSync } from 'node:fs';
import t from 'tap';
import { Upload } from 'tus-js-client';
import { startEdge } from '../../../kit/edge/media-edge.js';
import { connectRaw, requestHead } from '../../../kit/http/raw.js';
import { openRelay } from '../../../kit/http/relay.js';
import { type HttpResponse, json, member } from '../../../kit/http/request.js';
import { largePng, png } from '../../../kit/media.js';
import { startOrigin, type TestOrigin } from '../../../kit/origin/origin.js';
import {
  begin,
  code,
  create,
  type Fields,
  fileOf,
  filesOf,
  head,
  metadata,
  PATCH,
  patch,
  remove,
  TUS,
} from '../../../kit/origin/tus-requests.js';
import { until } from '../../../kit/until.js';

const STILL = { thumbs: { enabled: false, video: { enabled: false } } };
const PARTIAL = { 'upload-concat': 'partial' };

/** A partial upload with these bytes. */
async function partial(origin: TestOrigin, bytes: Uint8Array): Promise<string> {
  const path = await begin(origin, bytes.length, PARTIAL);
  const answer = await patch(origin, path, 0, bytes);
  if (answer.status !== 204) throw new Error(code(answer));
  return path;
}

const partials = (origin: TestOrigin, bytes: Buffer, ...cuts: number[]): Promise<string[]> =>
  Promise.all([0, ...cuts].map((from, index) => partial(origin, bytes.subarray(from, cuts[index] ?? bytes.length))));

const final = (paths: readonly string[]): Fields => ({ 'upload-concat': `final;${paths.join(' ')}` });

const join = (origin: TestOrigin, paths: readonly string[], fields: Fields = {}): Promise<HttpResponse> =>
  create(origin, { ...final(paths), ...fields });

void t.test('concatenation', async (t) => {
  const origin = await startOrigin(t.testdir(), {
    upload: { size_max: '100KB' },
    resumable: { unfinished_max_per_subject: 4, finished_keep: '1h' },
    ...STILL,
  });
  t.teardown(() => origin.close());

  await t.test('a final upload has the bytes of its partial uploads in its own order', async (t) => {
    const bytes = largePng(1, 60_000);
    const [second = '', third = ''] = await partials(origin, bytes.subarray(10_000), 30_000);
    const first = (await create(origin, { 'upload-length': '10000', ...PARTIAL }, bytes.subarray(0, 10_000))).headers;
    t.match(first, { 'upload-offset': '10000', 'upload-concat': 'partial', 'upload-expires': /GMT/ });
    t.equal(first['media-location'], undefined, 'a partial upload is no media');
    const whole = [first.location ?? '', second, third];

    const field = `final;${origin.url}${whole[0]} ${whole[1]} https://edge.example${whole[2]}`;
    const given = metadata({ filename: 'joined.png', filetype: 'image/png', public: 'true' });
    const answer = await create(origin, { 'upload-concat': field, ...given });
    t.equal(answer.status, 201);
    t.match(json(answer), { mime: 'image/png', size: 60_000, duplicate: false, public: true });
    const location = `/v1/media/${member(answer, 'id')}`;
    const state = { 'upload-offset': '60000', 'upload-length': '60000', 'media-location': location };
    t.match(answer.headers, { ...state, 'upload-concat': field });
    const media = await origin.send(location);
    t.ok(media.bytes.equals(bytes));
    t.match(media.headers['content-disposition'], /joined\.png/);

    const path = answer.headers.location ?? '';
    t.match((await head(origin, path)).headers, { ...state, 'upload-concat': field, ...given });
    t.equal(code(await patch(origin, path, 60_000, Buffer.alloc(0))), '403 forbidden');
    t.equal(code(await remove(origin, path)), '409 conflict');
    const used = await head(origin, second);
    t.match(used.headers, { 'upload-offset': '30000', 'upload-concat': 'partial', 'media-location': location });
    t.equal(code(await remove(origin, second)), '409 conflict', 'the media has its bytes now');
    t.ok(
      (await filesOf(origin)).every((name) => name.endsWith('.json')),
      'the bytes are stored only once',
    );

    const again = await create(origin, { 'upload-concat': field, ...given });
    t.match([again.status, again.headers.location, again.headers['media-location']], [201, path, location]);
    await origin.restart();
    t.equal((await create(origin, { 'upload-concat': field, ...given })).headers.location, path);
    t.equal(code(await join(origin, whole.toReversed())), '400 malformed', 'they are not joined otherwise');
  });

  await t.test('the same answer for everything that cannot be joined', async (t) => {
    const bytes = png(2);
    const [left = '', right = ''] = await partials(origin, bytes, 20);
    const begun = await begin(origin, 10, PARTIAL);
    const unknown = `/v1/uploads/${'0'.repeat(32)}`;
    const never = await join(origin, [left, unknown]);
    t.equal(code(never), '400 malformed');
    const whole = await begin(origin, 10);
    for (const [what, answer] of [
      ['not complete', await join(origin, [left, begun])],
      ['not partial', await join(origin, [left, whole])],
      ['no upload', await join(origin, [left, '/v1/media/x'])],
      [
        'of another',
        await origin.as('bob', '/v1/uploads', { method: 'POST', headers: { ...TUS, ...final([left, right]) } }),
      ],
    ] as const) {
      t.equal(member(answer, 'detail'), member(never, 'detail'), what);
      t.equal(answer.status, 400, what);
      t.equal(answer.headers['tus-resumable'], '1.0.0', what);
    }
    await remove(origin, begun);
    await remove(origin, whole);
    t.equal((await join(origin, [left, right])).status, 201, 'and nothing has changed them');
  });

  await t.test('a final upload does not interrupt a partial one that still arrives', async (t) => {
    const bytes = png(8);
    const path = await begin(origin, bytes.length, PARTIAL);
    const wire = await connectRaw(origin.port);
    const token = { authorization: `Bearer ${origin.auth.token({ sub: 'alice' })}` };
    wire.write(
      requestHead('PATCH', path, { ...PATCH, ...token, 'upload-offset': '0', 'content-length': bytes.length }),
    );
    wire.write(bytes.subarray(0, 10));
    await until('the first bytes arrive', () => statSync(fileOf(origin, path)).size === 10);
    t.equal(code(await join(origin, [path])), '400 malformed');
    const stranger = { method: 'POST', headers: { ...TUS, ...final([path]) } };
    t.equal((await origin.as('bob', '/v1/uploads', stranger)).status, 400);
    wire.write(bytes.subarray(10));
    t.match(await wire.until(/\r\n\r\n/), /^HTTP\/1\.1 204 /);
    wire.reset();
    t.equal((await join(origin, [path])).status, 201);
  });

  await t.test('limits hold for partial uploads and for what they make', async (t) => {
    const four = await Promise.all([1, 2, 3, 4].map((seed) => partial(origin, largePng(seed, 30_000))));
    t.equal(code(await create(origin, { 'upload-length': '1', ...PARTIAL })), '429 rate_limited');
    t.equal(code(await join(origin, four)), '413 too_large');
    t.equal(code(await create(origin, { 'upload-length': '100001', ...PARTIAL })), '413 too_large');
    for (const path of four) t.equal((await remove(origin, path)).status, 204);
    const bytes = png(3);
    const full = await partials(origin, bytes, 10, 20, 30);
    t.equal((await join(origin, full)).status, 201, 'a final upload only makes room');
    await remove(origin, await begin(origin, 1));
  });

  await t.test('a file that is cut into more parts than it has bytes has empty ones', async (t) => {
    const bytes = png(4);
    const empty = await begin(origin, 0, PARTIAL);
    t.equal((await head(origin, empty)).headers['upload-offset'], '0');
    const answer = await join(origin, [empty, await partial(origin, bytes)]);
    t.equal(json(answer)['size'], bytes.length);
    const nothing = await begin(origin, 0, PARTIAL);
    t.equal(code(await join(origin, [nothing])), '400 empty', 'but the whole has bytes');
    await remove(origin, nothing);
  });

  await t.test('refused content ends all of them', async (t) => {
    const paths = await partials(origin, png(5), 10);
    t.equal(code(await join(origin, paths, metadata({ filetype: 'video/mp4' }))), '415 type_mismatch');
    for (const path of paths) t.equal((await head(origin, path)).status, 404);
    t.notOk((await filesOf(origin)).some((name) => !name.endsWith('.json')));
  });

  await t.test('of requests at the same time one joins them, and the same request gets the same answer', async (t) => {
    const paths = await partials(origin, png(6), 10, 20);
    const answers = await Promise.all([paths, paths, paths.toReversed(), paths].map((each) => join(origin, each)));
    const same = [answers[0], answers[1], answers[3]].map((each) => `${each?.status} ${each?.headers.location}`);
    const reversed = answers[2]?.status ?? 0;
    if (reversed === 400) {
      t.match(same[0], /^201 /);
      t.equal(new Set(same).size, 1);
    } else {
      // It came first, and is no picture.
      t.equal(reversed, 415);
      t.same(new Set(same), new Set(['400 undefined']));
    }
  });

  await t.test('the OpenAPI document describes every answer', async (t) => {
    t.strictSame(await origin.undescribed(), []);
  });
});

void t.test('a final upload that fails for a while leaves its partial uploads, also over a restart', async (t) => {
  const origin = await startOrigin(t.testdir(), { quota: { files_max: 1, period: '1h' }, ...STILL });
  t.teardown(() => origin.close());
  const paths = await partials(origin, png(1), 10);
  await origin.uploaded(png(2));
  t.equal(code(await join(origin, paths)), '429 quota_exceeded');
  await origin.restart();
  await origin.clock.advanceAsync(3_600_000);
  t.equal((await join(origin, paths)).status, 201);
});

void t.test('tus-js-client in three parallel uploads, through an edge, over connections that are cut', async (t) => {
  const folder = t.testdir({ origin: {}, edge: {} });
  const origin = await startOrigin(folder, STILL);
  t.teardown(() => origin.close());
  const edge = await startEdge(`${folder}/edge`, origin, {}, origin.clock);
  t.teardown(() => edge.close());
  const relay = await openRelay(() => Number(new URL(edge.url).port));
  t.teardown(() => relay.close());

  const bytes = largePng(7, 3_000_000);
  let cuts = 0;
  let location: string | undefined;
  await new Promise<void>((resolve, reject) => {
    new Upload(bytes, {
      endpoint: `${relay.url}/v1/uploads`,
      chunkSize: 300_000,
      parallelUploads: 3,
      // PATCH as POST with X-HTTP-Method-Override.
      overridePatchMethod: true,
      retryDelays: Array.from({ length: 30 }, () => 0),
      headers: { authorization: `Bearer ${origin.auth.token({ sub: 'alice' })}` },
      metadata: { filename: 'parallel.png', filetype: 'image/png' },
      onProgress(sent) {
        if (sent < (cuts + 1) * 700_000 || sent > 2_800_000) return;
        cuts += 1;
        relay.cut();
      },
      onAfterResponse(_request, response) {
        location = response.getHeader('Media-Location') ?? location;
      },
      onSuccess: () => resolve(),
      onError: reject,
    }).start();
  });
  t.ok(cuts > 1);
  const media = await origin.as('alice', location ?? '');
  t.ok(media.bytes.equals(bytes));
  t.match(media.headers['content-disposition'], /parallel\.png/);
});
