/** An upload from its head to its answer: what is taken for it, given back, counted and told. */
import { readdir } from 'node:fs/promises';
import { Readable } from 'node:stream';
import t from 'tap';
import { upload } from '../../origin/upload.js';
import { Fault } from '../../src/errors.js';
import { png } from '../kit/media.js';
import { granted } from '../kit/origin/doubles/request.js';
import { openUploading, type Sent, sentRequest, told, type Uploading } from '../kit/origin/doubles/uploading.js';
import { sha256Of } from '../kit/origin/stores.js';

const NONE = { public: undefined, expiresInSeconds: undefined, filename: undefined };

async function setUp(t: Parameters<typeof openUploading>[0], given: Uploading = {}) {
  const opened = await openUploading(t, given);
  const send = (sent: Sent, query = {}) => upload(opened.deps, sentRequest(sent).request, { ...NONE, ...query });
  const staged = async () => (await readdir(opened.stores.blobs.stageFolder)).filter((name) => name !== 'resumable');
  return { ...opened, send, staged };
}

void t.test('an upload is answered with what it became, and the same again with that', async (t) => {
  const { send, staged, held, asked, sample, clock, deps } = await setUp(t);
  const bytes = png(1);
  const { request, counted } = sentRequest({ body: bytes, fields: { 'content-type': 'image/png' } });
  const created = told(await upload(deps, request, { ...NONE, filename: 'a.png', expiresInSeconds: 60 }));
  const { id } = created.json as { readonly id: string };
  const etag = `"sha256:${sha256Of(bytes)}"`;
  const url = `https://media.example/v1/media/${id}`;
  t.same(created, {
    status: 201,
    fields: {
      'content-type': 'application/json; charset=utf-8',
      'cache-control': 'no-store',
      location: `/v1/media/${id}`,
      etag,
    },
    json: {
      id,
      url,
      thumb_url: null,
      etag,
      sha256: sha256Of(bytes),
      size: bytes.length,
      mime: 'image/png',
      public: false,
      width: 8,
      height: 6,
      duration: null,
      thumbhash: null,
      filename: 'a.png',
      created_at: new Date(clock.now()).toISOString(),
      expires_at: new Date(clock.now() + 60_000).toISOString(),
      duplicate: false,
    },
  });
  t.same(asked, [
    ['quota', 'ada', bytes.length, 1],
    ['admit', { subject: 'ada', sizeBytes: bytes.length, form: false }],
    ['hold', bytes.length],
    ['hold', bytes.length],
  ]);
  for (const each of ['subject ada', 'upload', 'note media,mime,size,outcome']) t.ok(counted.includes(each), each);
  t.same([held, await staged()], [{ quotas: 0, admissions: 0 }, []]);

  const again = told(await send({ body: bytes }, { filename: 'b.png', expiresInSeconds: 30 }));
  t.same([again.status, again.fields['location']], [200, `/v1/media/${id}`]);
  t.match(again.json, { id, filename: 'b.png', duplicate: true, created_at: String });
  t.same(await staged(), [], 'its staged file is removed');
  for (const [outcome, count] of [
    ['created', 1],
    ['duplicate', 1],
  ] as const) {
    t.equal(await sample(`uploads_total{outcome="${outcome}"}`), count);
    t.equal(await sample(`uploads_bytes_total{outcome="${outcome}"}`), bytes.length);
  }
  const open = told(await send({ body: bytes }, { public: true }));
  t.match([open.status, open.json], [201, { public: true, duplicate: false }], 'public is another media');
});

void t.test('whoever may not read private media is told of a duplicate what was sent, and no more', async (t) => {
  const { send } = await setUp(t, { grant: granted({ scope: 'upload' }) });
  const bytes = png(2);
  t.match(told(await send({ body: bytes })).json, { duplicate: false, created_at: String });
  t.match(told(await send({ body: bytes })).json, { duplicate: true, created_at: null, width: null });
});

void t.test('the fields of a form win over the query, and the name of the file comes last', async (t) => {
  const { send, asked } = await setUp(t, { sizeMaxBytes: 10_000 });
  const form = (fields: Readonly<Record<string, string>>) => ({
    fields: { 'content-type': 'multipart/form-data; boundary=b' },
    body: Buffer.concat([
      ...Object.entries(fields).map(([name, value]) =>
        Buffer.from(`--b\r\ncontent-disposition: form-data; name=${name}\r\n\r\n${value}\r\n`),
      ),
      Buffer.from('--b\r\ncontent-disposition: form-data; name=file; filename=file.png\r\n\r\n'),
      png(3),
      Buffer.from('\r\n--b--\r\n'),
    ]),
  });
  t.match(told(await send(form({}))).json, { filename: 'file.png', public: false });
  t.match(asked[1], ['admit', { form: true }]);
  t.match(told(await send(form({ public: 'true' }), { filename: 'query.png' })).json, { filename: 'query.png' });
  t.match(told(await send(form({ filename: 'field.png' }), { filename: 'query.png' })).json, { filename: 'field.png' });
  await t.rejects(send(form({ public: 'maybe' })), { code: 'malformed' });
});

void t.test('a refusal gives everything back, and says why', async (t) => {
  const bytes = png(4);
  const QUOTA = { code: 'quota_exceeded', headers: { 'retry-after': '7' } };
  const admit = (): never => {
    throw new Fault('overloaded', 'Too many.');
  };
  for (const [what, given, sent, query, expected, told] of [
    ['no token', { grant: { kind: 'anonymous', refusal: 'none' } }, {}, {}, { code: 'unauthorized' }, 0],
    ['coded', {}, { fields: { 'content-encoding': 'gzip' } }, {}, { code: 'type_refused' }, 0],
    ['for too long', { expiresInMaxMs: 60_000 }, {}, { expiresInSeconds: 61 }, { code: 'malformed' }, 0],
    ['beyond the quota', { quotaLeft: false }, {}, {}, QUOTA, 1],
    ['too many', { admit }, {}, {}, { code: 'overloaded' }, 1],
    ['too large', { sizeMaxBytes: 10 }, {}, {}, { code: 'too_large' }, 1],
    ['of another type', {}, { fields: { 'content-type': 'image/gif' } }, {}, { code: 'type_mismatch' }, 1],
    ['infected', { scan: async () => ({ kind: 'quarantine', reason: 'EICAR' }) }, {}, {}, { code: 'quarantined' }, 1],
    [
      'broken off',
      {},
      {
        body: new Readable({
          read() {
            this.destroy(new Error('reset'));
          },
        }),
      },
      {},
      { code: 'malformed' },
      1,
    ],
  ] as const) {
    const { send, held, staged, failures, stores } = await setUp(t, given as Uploading);
    await t.rejects(send({ body: bytes, ...sent }, query), expected, what);
    t.same(held, { quotas: 0, admissions: 0 }, what);
    t.same(await staged(), [], what);
    t.equal(failures.length, told, `${what}: whoever makes room hears of failures after the head`);
    if (what !== 'infected') t.equal(await stores.meta.findBlob(sha256Of(bytes)), undefined, what);
  }
});
