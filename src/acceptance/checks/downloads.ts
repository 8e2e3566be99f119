/** What a GET and a HEAD of media carry. */
import type { Answer } from '../answer.js';
import { NotTried } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import { film, png, sha256, text } from '../samples.js';
import { form, KNOWN_WITHIN_MS } from './uploads.js';

const { both } = checksOf('downloads');

const POLICY = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox";
const EXPOSED = [
  'ETag',
  'Content-Range',
  'Content-Length',
  'Content-Disposition',
  'Accept-Ranges',
  'Repr-Digest',
  'Last-Modified',
  'Sunset',
  'Media-Width',
  'Media-Height',
  'Media-Duration',
  'Media-Thumbhash',
];

/** Fields that belong to the moment or to the connection. */
const OF_THE_MOMENT = new Set([
  'date',
  'age',
  'cache-status',
  'x-request-id',
  'connection',
  'keep-alive',
  'transfer-encoding',
]);

function lasting(answer: Answer): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(answer.got.fields).filter(([name]) => !OF_THE_MOMENT.has(name)));
}

export const downloadChecks: readonly Check[] = [
  both('get/fields', 'an original has ETag, length, type, digest, ranges, dates', async (world, at) => {
    const media = await world.shared('picture');
    const answer = (await at.get(media.path, { as: 'user' })).is(200);
    answer.holds('the bytes that were uploaded', answer.body.equals(media.bytes));
    const hash = sha256(media.bytes);
    answer.has('etag', `"sha256:${hash.toString('hex')}"`).has('repr-digest', `sha-256=:${hash.toString('base64')}:`);
    answer
      .has('content-length', String(media.bytes.length))
      .has('content-type', 'image/png')
      .has('accept-ranges', 'bytes');
    answer.has('last-modified', / GMT$/).has('media-width', '400').has('media-height', '300');
    const sunset = Date.parse(answer.has('sunset').field('sunset') ?? '');
    answer.equals(
      'Sunset, in seconds',
      Math.floor(sunset / 1_000),
      Math.floor(Date.parse(media.answer.text('expires_at')) / 1_000),
    );
  }),
  both('get/head', 'a HEAD is the GET without its body', async (world, at) => {
    for (const kind of ['picture', 'public'] as const) {
      const { path } = await world.shared(kind);
      const [head, get] = [await at.head(path, { as: 'user' }), await at.get(path, { as: 'user' })];
      head.is(get.status).equals('the size of the body', head.body.length, 0);
      // The age and what is left of lifetimes may differ by a second between two requests.
      head.equals('the names of the fields', Object.keys(lasting(head)).sort(), Object.keys(lasting(get)).sort());
      for (const [name, value] of Object.entries(lasting(get))) {
        if (name !== 'cache-control') head.equals(name, head.field(name), value);
      }
    }
  }),
  both('get/safety', 'an answer cannot run, frame or leak anything in a browser', async (world, at) => {
    const { path } = await world.shared('public');
    for (const suffix of ['', '/info']) {
      const answer = (await at.get(path + suffix)).is(200);
      answer.has('x-content-type-options', 'nosniff').has('content-security-policy', POLICY);
      answer.has('cross-origin-resource-policy', 'cross-origin').has('referrer-policy', 'no-referrer');
    }
  }),
  both('get/disposition', 'pictures are shown, other files are offered', async (world, at) => {
    (await at.get((await world.shared('picture')).path, { as: 'user' })).has('content-disposition', /^inline\b/);
    (await at.get((await world.shared('text')).path, { as: 'user' })).has('content-disposition', /^attachment\b/);
  }),
  both('get/filename', 'a name in other letters comes back as filename*', async (world, at) => {
    const body = form(
      { expires_in: '600', filename: 'Übung №1.txt' },
      { bytes: text(), type: 'text/plain', name: 'x' },
    );
    const stored = (await at.post('/v1/media', { as: 'user', ...body })).is(201);
    world.note(stored.text('id'));
    const answer = await at.get(`/v1/media/${stored.text('id')}`, { as: 'user' });
    answer.has('content-disposition', /filename\*=UTF-8''%C3%9Cbung%20%E2%84%961\.txt/i);
  }),
  both('get/public', 'public media are read by anyone, private ones are not', async (world, at) => {
    (await at.get((await world.shared('public')).path)).is(200).has('cache-control', /^public, max-age=\d+$/);
    (await at.get((await world.shared('text')).path, { as: 'user' })).has('cache-control', /^private, max-age=\d+$/);
    (await at.get((await world.shared('text')).path)).refuses(401, 'unauthorized');
  }),
  both('get/edge-lifetime', 'the lifetime for edges is not told to clients', async (world, at) => {
    (await at.get((await world.shared('public')).path)).is(200).lacks('cdn-cache-control');
  }),
  both('get/lifetime-cut', "a client's lifetime ends with the media", async (world, at) => {
    const { path } = await world.upload(text(), { query: 'expires_in=20' });
    for (const _ of ['first', 'again']) {
      const answer = (await at.get(path, { as: 'user' })).is(200);
      const maxAge = Number(/max-age=(\d+)/.exec(answer.field('cache-control') ?? '')?.[1]);
      answer.holds('max-age of at most 20', maxAge <= 20);
    }
  }),
  both('get/duration', 'a film has its duration and its size', async (world, at) => {
    const bytes = film();
    if (bytes === undefined) throw new NotTried('ffmpeg, which makes a film to upload, is not on this machine');
    const { path } = await world.upload(bytes, { type: 'video/mp4' });
    const ask = (): Promise<Answer> => at.get(path, { as: 'user' });
    const isKnown = (answer: Answer): boolean => answer.is(200).field('media-duration') !== undefined;
    const answer = await world.until('Media-Duration', KNOWN_WITHIN_MS, ask, isKnown);
    answer.has('media-duration', /^1(?:\.\d+)?$/).has('content-disposition', /^inline\b/);
    answer.has('media-width', '320').has('media-height', '240');
  }),
  both('get/unknown', 'an unknown id is not found, for whoever has a token', async (world, at) => {
    const media = await world.upload(png({ width: 3, height: 3 }), { type: 'image/png' });
    const other = `${media.path.slice(0, -1)}${media.path.endsWith('0') ? '1' : '0'}`;
    for (const suffix of ['', '/thumb', '/info']) {
      const answer = await at.get(other + suffix, { as: 'user' });
      answer.refuses(404, 'not_found');
    }
  }),
  both('info/document', 'the info is the document of the upload, with conditions of its own', async (world, at) => {
    const media = await world.shared('text');
    const info = (await at.get(`${media.path}/info`, { as: 'user' }))
      .is(200)
      .has('content-type', /^application\/json\b/);
    for (const name of ['id', 'url', 'etag', 'sha256', 'size', 'mime', 'public', 'created_at', 'expires_at']) {
      info.equals(`"${name}"`, info.json[name], media.answer.json[name]);
    }
    const etag = info.has('etag').field('etag') ?? '';
    (await at.get(`${media.path}/info`, { as: 'user', fields: { 'if-none-match': etag } })).is(304);
    const head = (await at.head(`${media.path}/info`, { as: 'user' }))
      .is(200)
      .has('content-length', String(info.body.length));
    head.equals('the size of the body', head.body.length, 0);
    (await at.get(`${media.path}/info`)).refuses(401, 'unauthorized');
  }),
  both('cors/answers', 'any page may read an answer and its fields, without cookies', async (world, at) => {
    const { path } = await world.shared('public');
    const answer = (await at.get(path, { fields: { origin: 'https://chat.example' } })).is(200);
    answer.has('access-control-allow-origin', '*').lacks('access-control-allow-credentials');
    const exposed = (answer.field('access-control-expose-headers') ?? '').toLowerCase().split(/, */);
    answer.equals(
      'fields that are not exposed',
      EXPOSED.filter((name) => !exposed.includes(name.toLowerCase())),
      [],
    );
    const refused = await at.get('/v1/media/nothing', { fields: { origin: 'https://chat.example' } });
    refused.has('access-control-allow-origin', '*');
  }),
  both('cors/preflight', 'a preflight names the methods and the fields', async (world, at) => {
    const { path } = await world.shared('text');
    const wanted: readonly (readonly [string, string, readonly string[]])[] = [
      [
        path,
        'GET',
        ['authorization', 'range', 'if-none-match', 'if-match', 'if-range', 'if-modified-since', 'if-unmodified-since'],
      ],
      ['/v1/media', 'POST', ['authorization', 'content-type', 'repr-digest', 'content-digest']],
      [
        '/v1/uploads',
        'POST',
        ['authorization', 'tus-resumable', 'upload-length', 'upload-metadata', 'upload-concat', 'upload-checksum'],
      ],
      [
        '/v1/uploads/x',
        'PATCH',
        ['authorization', 'content-type', 'tus-resumable', 'upload-offset', 'upload-checksum'],
      ],
      [path, 'DELETE', ['authorization']],
    ];
    for (const [target, method, names] of wanted) {
      const fields = {
        origin: 'https://chat.example',
        'access-control-request-method': method,
        'access-control-request-headers': names.join(','),
      };
      const answer = (await at.send('OPTIONS', target, { fields }))
        .is(200, 204)
        .has('access-control-allow-origin', '*');
      answer
        .lacks('access-control-allow-credentials')
        .has('access-control-allow-methods', new RegExp(`\\b${method}\\b`));
      const allowed = (answer.field('access-control-allow-headers') ?? '').toLowerCase().split(/, */);
      answer.equals(
        'fields that are not allowed',
        names.filter((name) => !allowed.includes(name)),
        [],
      );
    }
  }),
];
