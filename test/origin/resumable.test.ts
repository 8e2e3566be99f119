/** Each request of the tus protocol, answered without sockets: the fields, what is taken and given back, and what is kept. */
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { PassThrough } from 'node:stream';
import t, { type Test } from 'tap';
import { continueResumable, createResumable, resumableOptions } from '../../origin/resumable.js';
import { Fault } from '../../src/errors.js';
import type { Reply } from '../../src/http/reply.js';
import { png } from '../kit/media.js';
import { granted } from '../kit/origin/doubles/request.js';
import { openUploading, type Sent, sentRequest, told, type Uploading } from '../kit/origin/doubles/uploading.js';
import { until } from '../kit/until.js';

const TUS = { 'tus-resumable': '1.0.0' };
const CHUNK = { ...TUS, 'content-type': 'application/offset+octet-stream' };
const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const NOTHING = { quotas: 0, admissions: 0 };
const BYTES = png(1);

async function setUp(t: Test, given: Uploading = {}) {
  const opened = await openUploading(t, given);
  const { deps, folder, resumable, asked } = opened;
  const ask = (id: string, sent: Sent): Promise<Reply> => {
    asked.length = 0;
    return continueResumable(deps, sentRequest(sent).request, id);
  };
  const create = (fields: Readonly<Record<string, string>>, body?: Sent['body'], more: Sent = {}): Promise<Reply> => {
    asked.length = 0;
    const head = body === undefined ? TUS : CHUNK;
    const sent = { fields: { ...head, ...fields }, ...(body !== undefined && { body }), ...more };
    return createResumable(deps, sentRequest(sent).request);
  };
  const patch = (id: string, offset: number, body: Sent['body'] = '', fields = {}, more: Sent = {}) =>
    ask(id, {
      method: 'PATCH',
      fields: { ...CHUNK, 'upload-offset': String(offset), ...fields },
      body,
      ...more,
    });
  const head = (id: string) => ask(id, { method: 'HEAD', fields: TUS });
  const remove = (id: string) => ask(id, { method: 'DELETE', fields: TUS });
  const begin = async (sizeBytes: number, fields = {}, body?: Sent['body']): Promise<string> => {
    const { fields: answer } = told(await create({ 'upload-length': String(sizeBytes), ...fields }, body));
    return String(answer['location']).slice(-32);
  };
  const files = async () => (await readdir(folder)).sort();
  const expires = () => new Date(opened.clock.now() + DAY_MS).toUTCString();
  const found = (id: string) => resumable.uploads.find(id);
  return { ...opened, ask, create, patch, head, remove, begin, files, expires, found };
}

/** The fields that an answer has of its upload. */
const state = (offset: number, more: Readonly<Record<string, string>>) => ({
  ...TUS,
  'cache-control': 'no-store',
  'upload-offset': String(offset),
  ...more,
});

const partsOf = (bytes: Buffer) => [bytes.subarray(0, 20), bytes.subarray(20)] as const;

void t.test('OPTIONS tells browsers and clients of the protocol what they may do', async (t) => {
  const { deps } = await setUp(t);
  const { status, fields } = told(resumableOptions(deps, ['HEAD', 'PATCH']));
  t.equal(status, 204);
  t.match(fields, {
    'access-control-allow-methods': 'HEAD, PATCH',
    'tus-resumable': '1.0.0',
    'tus-max-size': '1000',
  });
});

void t.test('POST begins an upload, which PATCH continues and finishes', async (t) => {
  const { create, patch, head, asked, held, expires, clock, files, found, sample } = await setUp(t);
  const size = BYTES.length;
  const begun = told(await create({ 'upload-length': String(size), 'upload-metadata': 'filename YS5wbmc=' }));
  const location = String(begun.fields['location']);
  const id = location.slice(-32);
  t.same(begun, {
    status: 201,
    fields: {
      location: `/v1/uploads/${id}`,
      ...state(0, { 'upload-expires': expires(), 'upload-length': String(size) }),
    },
    json: undefined,
  });
  t.same(asked, [
    ['quota', 'ada', size, 1],
    ['admit', { subject: 'ada', sizeBytes: size, form: false }],
  ]);
  t.same(held, NOTHING);
  const [first, second] = partsOf(BYTES);
  t.same(told(await patch(id, 0, first)), {
    status: 204,
    fields: state(20, { 'upload-expires': expires() }),
    json: undefined,
  });
  t.same(asked.slice(0, 3), [
    ['quota', 'ada', size, 1],
    ['admit', { subject: 'ada', sizeBytes: 20, form: false }],
    ['hold', 20],
  ]);
  t.same(
    told(await head(id)).fields,
    state(20, {
      'upload-expires': expires(),
      'upload-length': String(size),
      'upload-metadata': 'filename YS5wbmc=',
    }),
  );
  t.same([asked, held], [[], NOTHING], 'a look takes nothing');
  const last = told(await patch(id, 20, second));
  const mediaId = (await found(id))?.mediaId;
  t.same(last, {
    status: 204,
    fields: state(size, { 'media-location': `/v1/media/${mediaId}`, etag: `"sha256:${hashOf(BYTES)}"` }),
    json: undefined,
  });
  t.same(held, NOTHING);
  t.same(await files(), [`${id}.json`], 'its bytes are in the blob store');
  t.equal((await found(id))?.expiresAt, clock.now() + HOUR_MS, 'it answers for a while');
  t.equal(await sample('resumable_uploads_ended_total{ending="finished"}'), 1);
  t.equal(await sample('uploads_total{outcome="created"}'), 1);

  const done = state(size, { 'media-location': `/v1/media/${mediaId}` });
  t.same(told(await head(id)).fields, {
    ...done,
    'upload-length': String(size),
    'upload-metadata': 'filename YS5wbmc=',
  });
  t.same(told(await patch(id, size, '')), { status: 204, fields: done, json: undefined }, 'it is told again');
  t.same(asked, [], 'and nothing is taken for that');
  const conflict = {
    code: 'conflict',
    headers: { ...TUS, 'media-location': `/v1/media/${mediaId}`, 'upload-offset': String(size) },
  };
  await t.rejects(patch(id, size, 'more'), conflict);
});

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

void t.test('an answer describes the media where it may have a body', async (t) => {
  const { create, patch, begin } = await setUp(t);
  const once = told(await create({ 'upload-length': String(BYTES.length) }, BYTES));
  t.equal(once.status, 201);
  t.match(once.json, { mime: 'image/png', size: BYTES.length, duplicate: false });
  t.match(once.fields, { 'content-type': 'application/json; charset=utf-8', 'media-location': String, etag: String });
  const described = async (accept: string | undefined) =>
    told(await patch(await begin(BYTES.length), 0, BYTES, accept === undefined ? {} : { accept }));
  t.match(await described('text/html, application/json;q=0.5'), { status: 200, json: { duplicate: true } });
  for (const accept of [undefined, '*/*', 'application/jsonx']) {
    t.match(await described(accept), { status: 204, json: undefined }, accept ?? 'none');
  }
  const part = told(await patch(await begin(BYTES.length), 0, 'part', { accept: 'application/json' }));
  t.match(part, { status: 204, json: undefined }, 'there is nothing to describe yet');
});

void t.test('every refusal names the version, and gives everything back', async (t) => {
  const { create, ask, patch, begin, held, failures, deps, files } = await setUp(t);
  const refused = async (work: Promise<Reply>, code: string, headers: Readonly<Record<string, string>> = {}) => {
    const before = failures.length;
    await t.rejects(work, { code, headers: { ...headers, ...TUS } }, code);
    t.same(held, NOTHING);
    t.equal(failures.length, before + 1);
  };
  const request = (sent: Sent) => sentRequest(sent).request;
  await refused(createResumable(deps, request({ fields: {} })), 'precondition_failed', { 'tus-version': '1.0.0' });
  await refused(continueResumable(deps, request({ fields: {} }), 'x'), 'precondition_failed');
  const override = { ...TUS, 'x-http-method-override': 'PATCH' };
  await refused(createResumable(deps, request({ fields: override })), 'method_not_allowed', { allow: 'POST, OPTIONS' });
  const id = await begin(50);
  for (const method of ['POST', 'PUT', 'GET']) {
    const allow = 'HEAD, PATCH, DELETE, OPTIONS';
    await refused(ask(id, { method, fields: TUS }), 'method_not_allowed', { allow });
  }
  await refused(ask('a'.repeat(32), { method: 'HEAD', fields: TUS }), 'not_found');
  await refused(patch(id, 1, 'x'), 'conflict', { 'upload-offset': '0' });
  await refused(create({ 'upload-length': '1001' }), 'too_large');
  const before = await files();
  const wrong = { 'upload-checksum': `sha1 ${Buffer.alloc(20).toString('base64')}` };
  await refused(create({ 'upload-length': '5', ...wrong }, 'hello'), 'checksum_mismatch');
  await refused(create({ 'upload-length': '5', 'upload-metadata': 'filetype bm9uZQ==' }), 'malformed');
  t.same(await files(), before, 'an upload that nobody knows of is not kept');

  const other = { ...deps, gate: (await openUploading(t, { grant: granted({ subject: 'eve' }) })).deps.gate };
  await t.rejects(continueResumable(other, request({ method: 'HEAD', fields: TUS }), id), { code: 'not_found' });
});

void t.test('limits of quotas, of uploads and of what is unfinished', async (t) => {
  const none = await setUp(t, { quotaLeft: false });
  await t.rejects(none.create({ 'upload-length': '5' }), { code: 'quota_exceeded', headers: { 'retry-after': '7' } });
  t.same([none.held, await none.files()], [NOTHING, []]);
  const full = await setUp(t, {
    admit: () => {
      throw new Fault('overloaded', 'Too many.');
    },
  });
  await t.rejects(full.create({ 'upload-length': '5' }), { code: 'overloaded' });
  t.same([full.held, await full.files()], [NOTHING, []]);
  const few = await setUp(t, { unfinishedMaxPerSubject: 1 });
  const id = await few.begin(5);
  await t.rejects(few.create({ 'upload-length': '5' }), { code: 'rate_limited' });
  t.same([few.held, few.resumable.uploads.unfinished()], [NOTHING, 1]);
  await few.remove(id);
  await few.begin(5);
});

void t.test('partial uploads count as no file, and an empty one takes no room', async (t) => {
  const { create, begin, asked, held, patch } = await setUp(t);
  const partial = { 'upload-concat': 'partial' };
  const begun = told(await create({ 'upload-length': '5', ...partial }));
  t.match(begun.fields, { 'upload-concat': 'partial', 'upload-length': '5' });
  t.match(asked, [
    ['quota', 'ada', 5, 0],
    ['admit', { sizeBytes: 5 }],
  ]);
  await begin(0, partial);
  t.same(asked, [['quota', 'ada', 0, 0], ['room']]);
  await create({ 'upload-defer-length': '1', ...partial });
  t.match(asked, [
    ['quota', 'ada', null, 0],
    ['admit', { sizeBytes: null }],
  ]);
  await create({ 'upload-length': '0' });
  t.match(asked[1], ['admit', { sizeBytes: 0 }], 'a whole one without bytes is refused by whoever admits');
  const id = await begin(5, partial);
  t.same(told(await patch(id, 0, 'hello')).fields['media-location'], undefined, 'it waits for the final one');
  t.match(asked[0], ['quota', 'ada', 5, 0]);
  t.same(held, NOTHING);
});

void t.test('a PATCH without bytes may give the length, and finish the upload', async (t) => {
  const { create, patch, asked, found, head } = await setUp(t);
  const begun = told(await create({ 'upload-defer-length': '1' }));
  const id = String(begun.fields['location']).slice(-32);
  t.equal(begun.fields['upload-defer-length'], '1');
  t.equal(told(await patch(id, 0, BYTES)).status, 204);
  t.match(asked[0], ['quota', 'ada', null, 1]);
  t.equal(told(await head(id)).fields['upload-defer-length'], '1');
  const last = told(await patch(id, BYTES.length, '', { 'upload-length': String(BYTES.length) }));
  t.notOk(
    asked.some((each) => (each as string[])[0] === 'admit'),
    'no bytes need no room',
  );
  t.equal(last.fields['media-location'], `/v1/media/${(await found(id))?.mediaId}`);
  const long = String(told(await create({ 'upload-defer-length': '1' })).fields['location']).slice(-32);
  const source = new PassThrough();
  source.end(Buffer.alloc(1_001));
  await t.rejects(patch(long, 0, source), { code: 'too_large', members: { max_size: 1_000 } });
  const known = String(told(await create({ 'upload-length': '9' })).fields['location']).slice(-32);
  const more = new PassThrough();
  more.end(Buffer.alloc(10));
  await t.rejects(patch(known, 0, more), { message: 'The body goes beyond the end of the upload.' });
});

void t.test('DELETE removes an upload, unless it is finished', async (t) => {
  const { remove, begin, files, sample, found, patch } = await setUp(t);
  const id = await begin(5);
  t.same(told(await remove(id)), { status: 204, fields: { ...TUS, 'cache-control': 'no-store' }, json: undefined });
  t.same([await found(id), await files()], [undefined, []]);
  t.equal(await sample('resumable_uploads_ended_total{ending="terminated"}'), 1);
  await t.rejects(remove(id), { code: 'not_found' });
  const done = await begin(BYTES.length, {}, BYTES);
  const mediaId = (await found(done))?.mediaId;
  await t.rejects(remove(done), { code: 'conflict', headers: { 'media-location': `/v1/media/${mediaId}` } });
  t.ok(await found(done));
  await t.rejects(patch(done, 0, 'x'), { code: 'conflict' });
});

void t.test('a newer PATCH is refused, a newer HEAD takes over from one whose client is silent', async (t) => {
  const { begin, patch, head, asked, held } = await setUp(t);
  const id = await begin(50);
  const body = new PassThrough();
  body.write('hello');
  const first = patch(id, 0, body);
  await until('the first bytes', () => asked.some((each) => (each as unknown[])[1] === 5));
  await t.rejects(patch(id, 0, 'x'), { code: 'conflict' });
  const looked = head(id);
  await t.rejects(first, { code: 'conflict', message: 'A newer request took over the upload.' });
  t.equal(told(await looked).fields['upload-offset'], '5', 'what has arrived is kept');
  t.same(held, NOTHING);
});

void t.test('a refusal of the content ends the upload, and one that may pass does not', async (t) => {
  for (const [code, thrown, kept] of [
    ['quarantined', undefined, false],
    ['storage_full', new Fault('storage_full', 'No.'), true],
    ['internal', new Error('a bug'), true],
  ] as const) {
    let failing = true;
    const { begin, patch, head, found, sample, files, held } = await setUp(t, {
      scan: async () => {
        if (!failing) return { kind: 'admit' };
        if (thrown === undefined) return { kind: 'quarantine', reason: 'EICAR' };
        throw thrown;
      },
    });
    const id = await begin(BYTES.length);
    await t.rejects(patch(id, 0, BYTES), { code, headers: TUS });
    t.equal((await found(id)) !== undefined, kept, code);
    t.equal(await sample('resumable_uploads_ended_total{ending="refused"}'), kept ? 0 : 1, code);
    t.same(await files(), kept ? [id, `${id}.end`, `${id}.json`] : [], 'no staged file is left');
    t.same(held, NOTHING);
    failing = false;
    if (kept) {
      const answer = told(await head(id));
      t.equal(answer.fields['media-location'], `/v1/media/${(await found(id))?.mediaId}`, 'the next HEAD finishes it');
      t.equal(await sample('resumable_uploads_ended_total{ending="finished"}'), 1);
      t.same(held, NOTHING);
    }
  }
  const gone = new AbortController();
  const left = await setUp(t, {
    scan: async () => {
      gone.abort(new Fault('malformed', 'The client left.'));
      throw new Fault('malformed', 'The client left.');
    },
  });
  const id = await left.begin(BYTES.length);
  await t.rejects(left.patch(id, 0, BYTES, {}, { signal: gone.signal }), { code: 'malformed' });
  t.ok(await left.found(id), 'a client that left can come back');
});

void t.test('partial uploads are joined into one, once', async (t) => {
  const { begin, create, asked, held, found, files, sample, head, patch } = await setUp(t);
  const [first, second] = partsOf(BYTES);
  const partial = { 'upload-concat': 'partial' };
  const one = await begin(first.length, partial, first);
  const two = await begin(second.length, partial, second);
  const concat = (...ids: readonly string[]) => ({
    'upload-concat': `final;${ids.map((each) => `/v1/uploads/${each}`).join(' ')}`,
  });
  const joined = told(await create(concat(one, two)));
  const id = String(joined.fields['location']).slice(-32);
  const mediaId = (await found(id))?.mediaId;
  t.match(joined.fields, {
    'upload-offset': String(BYTES.length),
    'upload-length': String(BYTES.length),
    'media-location': `/v1/media/${mediaId}`,
    ...concat(one, two),
  });
  t.match(joined.json, { mime: 'image/png', size: BYTES.length, sha256: hashOf(BYTES) });
  t.same(asked, [
    ['quota', 'ada', BYTES.length, 1],
    ['admit', { subject: 'ada', sizeBytes: BYTES.length, form: false }],
  ]);
  t.same(held, NOTHING);
  t.same(await files(), [id, one, two].map((each) => `${each}.json`).sort());
  t.match(
    [await found(one), await found(two)],
    [
      { mediaId, role: { finalId: id } },
      { mediaId, role: { finalId: id } },
    ],
  );
  t.equal((await found(one))?.expiresAt, (await found(id))?.expiresAt);
  t.equal(await sample('resumable_uploads_ended_total{ending="finished"}'), 1);
  t.equal(await sample('resumable_uploads_ended_total{ending="joined"}'), 2);

  const again = told(await create(concat(one, two)));
  t.match(again.fields, { location: `/v1/uploads/${id}`, 'media-location': `/v1/media/${mediaId}` });
  t.same([again.json, asked], [undefined, []], 'a client that lost the answer gets the same upload');
  const NOT_PARTIAL = { code: 'malformed', message: /complete partial uploads/ };
  for (const ids of [[two, one], [one], [id]]) await t.rejects(create(concat(...ids)), NOT_PARTIAL);
  const open = await begin(5, partial);
  for (const ids of [[one, open], [open]]) await t.rejects(create(concat(...ids)), NOT_PARTIAL, 'not complete');
  await t.rejects(create(concat('f'.repeat(32))), NOT_PARTIAL);
  await t.rejects(patch(id, BYTES.length, ''), { code: 'forbidden' }, 'a final upload cannot be changed');
  t.equal(told(await head(id)).status, 200);
  t.same(held, NOTHING);
});

void t.test('what is joined may be as large as one upload, and a failure keeps its parts', async (t) => {
  let failing = true;
  const { begin, create, files, found, held, sample } = await setUp(t, {
    sizeMaxBytes: 100,
    scan: async () => {
      if (failing) throw new Fault('storage_full', 'No.');
      return { kind: 'quarantine', reason: 'EICAR' };
    },
  });
  const partial = { 'upload-concat': 'partial' };
  const text = async (bytes: number) => await begin(bytes, partial, 'x'.repeat(bytes));
  const [one, two, three] = [await text(60), await text(40), await text(41)];
  const join = (...ids: readonly string[]) =>
    create({ 'upload-concat': `final;${ids.map((each) => `/v1/uploads/${each}`).join(' ')}` });
  await t.rejects(join(one, three), { code: 'too_large' });
  const before = await files();
  await t.rejects(join(one, two), { code: 'storage_full' });
  t.same(await files(), before);
  failing = false;
  await t.rejects(join(one, two), { code: 'quarantined' });
  t.same(
    [await found(one), await found(two), (await found(three))?.id],
    [undefined, undefined, three],
    'what it was made of is gone',
  );
  t.equal(await sample('resumable_uploads_ended_total{ending="refused"}'), 2);
  t.same(held, NOTHING);
});
