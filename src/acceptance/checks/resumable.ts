/** Resumable uploads (tus 1.0.0), and links by which somebody uploads without a token. */
import { createHash } from 'node:crypto';
import type { Answer } from '../answer.js';
import { NotTried } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import { sha256, text } from '../samples.js';
import { LIFETIME_S, type Place, type SendOptions, TUS, type World } from '../world.js';
import { JSON_TYPE } from './ids.js';

const { both, unseen } = checksOf('resumable uploads');

const CHUNK = { 'content-type': 'application/offset+octet-stream' } as const;

function metadata(pairs: Readonly<Record<string, string>> = {}): string {
  const all = { filetype: 'text/plain', expires_in: String(LIFETIME_S), ...pairs };
  return Object.entries(all)
    .map(([name, value]) => `${name} ${Buffer.from(value).toString('base64')}`)
    .join(',');
}

/** Begins an upload; resolves with its path. */
async function begin(
  world: World,
  at: Place,
  size: number,
  pairs: Readonly<Record<string, string>> = {},
): Promise<string> {
  if (world.capabilities['resumable'] === null) throw new NotTried('this service has no resumable uploads');
  const fields = { ...TUS, 'upload-length': String(size), 'upload-metadata': metadata(pairs) };
  const answer = (await at.post('/v1/uploads', { as: 'user', fields }))
    .is(201)
    .has('location')
    .has('tus-resumable', '1.0.0');
  answer.has('upload-expires');
  const path = new URL(answer.field('location') ?? '', at.url).pathname;
  world.noteUnfinished(path);
  return path;
}

const append = (
  at: Place,
  path: string,
  offset: number,
  body: Buffer,
  more: SendOptions = { as: 'user' },
): Promise<Answer> =>
  at.send('PATCH', path, {
    ...more,
    body,
    fields: { ...TUS, ...CHUNK, 'upload-offset': String(offset), ...more.fields },
  });

/** The media that the last part has made. */
function mediaOf(world: World, at: Place, answer: Answer): string {
  const path = new URL(answer.has('media-location').field('media-location') ?? '', at.url).pathname;
  world.note(path.slice('/v1/media/'.length));
  return path;
}

export const resumableChecks: readonly Check[] = [
  both('tus/options', 'OPTIONS says what is supported', async (_world, at) => {
    const answer = await at.send('OPTIONS', '/v1/uploads', { fields: TUS });
    answer
      .is(200, 204)
      .has('tus-version', /\b1\.0\.0\b/)
      .has('tus-max-size', /^\d+$/)
      .has('tus-checksum-algorithm', /\bsha/);
    for (const name of ['creation', 'creation-with-upload', 'expiration', 'checksum', 'termination', 'concatenation']) {
      answer.has('tus-extension', new RegExp(`(?:^|,)${name}(?:,|$)`));
    }
  }),
  both('tus/parts', 'an upload in parts becomes media, and says how far it is', async (world, at) => {
    const bytes = text(3_000);
    const path = await begin(world, at, bytes.length, { filename: 'parts.txt' });
    (await append(at, path, 0, bytes.subarray(0, 1_000))).is(204).has('upload-offset', '1000').lacks('media-location');
    const state = (await at.head(path, { as: 'user', fields: TUS })).is(200).has('upload-offset', '1000');
    state.has('upload-length', '3000').has('cache-control', /\bno-store\b/);
    const last = (await append(at, path, 1_000, bytes.subarray(1_000))).is(204);
    const media = (await at.get(mediaOf(world, at, last), { as: 'user' })).is(200);
    media.holds('the bytes that were uploaded', media.body.equals(bytes));
    media.has('content-disposition', /parts\.txt/);
  }),
  both('tus/with-upload', 'an upload may begin with its bytes', async (world, at) => {
    const bytes = text();
    const fields = { ...TUS, ...CHUNK, 'upload-length': String(bytes.length), 'upload-metadata': metadata() };
    const answer = (await at.post('/v1/uploads', { as: 'user', fields, body: bytes })).is(201);
    const media = (await at.get(mediaOf(world, at, answer), { as: 'user' })).is(200);
    media.holds('the bytes that were uploaded', media.body.equals(bytes));
  }),
  both('tus/offset', 'a part at another offset is refused', async (world, at) => {
    const path = await begin(world, at, 100);
    (await append(at, path, 10, text(10))).refuses(409, 'conflict');
  }),
  both('tus/checksum', 'a part with a wrong checksum is not appended', async (world, at) => {
    const bytes = text();
    const path = await begin(world, at, bytes.length);
    const checksum = (of: Buffer): SendOptions => ({
      as: 'user',
      fields: { 'upload-checksum': `sha1 ${createHash('sha1').update(of).digest('base64')}` },
    });
    (await append(at, path, 0, bytes, checksum(text()))).refuses(460, 'checksum_mismatch');
    (await at.head(path, { as: 'user', fields: TUS })).is(200).has('upload-offset', '0');
    mediaOf(world, at, (await append(at, path, 0, bytes, checksum(bytes))).is(204));
  }),
  both('tus/terminate', 'an upload can be given up', async (world, at) => {
    const path = await begin(world, at, 100);
    (await at.send('DELETE', path, { as: 'user', fields: TUS })).is(204);
    (await at.head(path, { as: 'user', fields: TUS })).is(404, 410);
  }),
  both('tus/concat', 'partial uploads are joined', async (world, at) => {
    const parts = [text(700), text(300)];
    const paths: string[] = [];
    for (const part of parts) {
      const fields = { ...TUS, 'upload-length': String(part.length), 'upload-concat': 'partial' };
      const begun = (await at.post('/v1/uploads', { as: 'user', fields })).is(201);
      const path = new URL(begun.field('location') ?? '', at.url).pathname;
      world.noteUnfinished(path);
      (await append(at, path, 0, part)).is(204);
      paths.push(path);
    }
    const fields = { ...TUS, 'upload-concat': `final;${paths.join(' ')}`, 'upload-metadata': metadata() };
    const answer = (await at.post('/v1/uploads', { as: 'user', fields })).is(201);
    const media = (await at.get(mediaOf(world, at, answer), { as: 'user' })).is(200);
    media.holds('the bytes of both', media.body.equals(Buffer.concat(parts)));
  }),
  both('tus/version', 'another version is refused, with the versions that there are', async (_world, at) => {
    const fields = { 'tus-resumable': '0.2.2', 'upload-length': '10' };
    (await at.post('/v1/uploads', { as: 'user', fields })).is(412).has('tus-version', /\b1\.0\.0\b/);
  }),
  both('tus/same-checks', 'a finished upload is checked as a POST is', async (world, at) => {
    const bytes = Buffer.concat([Buffer.from('7f454c4602010100', 'hex'), text()]);
    const path = await begin(world, at, bytes.length, { filetype: 'application/octet-stream' });
    (await append(at, path, 0, bytes)).refuses(415, 'type_refused');
    const large = String(Number(world.wellKnown['max_upload_size']) + 1);
    (await at.post('/v1/uploads', { as: 'user', fields: { ...TUS, 'upload-length': large } })).refuses(
      413,
      'too_large',
    );
  }),
  both('tus/other', 'an upload is continued by its own subject alone', async (world, at) => {
    const path = await begin(world, at, 100);
    const answer = await append(at, path, 0, text(100), { as: 'other' });
    answer.refuses(answer.status, 'not_found', 'forbidden', 'unauthorized');
    (await append(at, path, 0, text(100), {})).refuses(401, 'unauthorized');
    (await at.head(path, { as: 'user', fields: TUS })).is(200).has('upload-offset', '0');
  }),
  unseen('tus/expiration', 'an unfinished upload expires', 'it lasts longer than the run'),
  ...uploadLinkChecks(),
];

interface UploadLink {
  readonly post: string;
  readonly tus: string;
}

async function uploadLink(world: World, at: Place, terms: Readonly<Record<string, unknown>>): Promise<UploadLink> {
  if (world.capabilities['upload_links'] === null) throw new NotTried('this service signs no links');
  const body = JSON.stringify({ expires_in: LIFETIME_S, ...terms });
  const answer = (await at.post('/v1/uploads/link', { as: 'user', body, fields: JSON_TYPE })).is(200);
  answer.text('expires_at');
  const target = (name: string): string => new URL(answer.text(name)).pathname + new URL(answer.text(name)).search;
  return { post: target('url'), tus: target('tus_url') };
}

function uploadLinkChecks(): readonly Check[] {
  const plain = { 'content-type': 'text/plain' };
  return [
    both(
      'upload-link/once',
      'an upload link opens one upload without a token, and reads nothing',
      async (world, at) => {
        const { post } = await uploadLink(world, at, { types: ['text/plain'], size: 5_000 });
        const answer = (await at.post(post, { body: text(), fields: plain })).is(201);
        const id = answer.text('id');
        world.note(id);
        answer.equals('"public"', answer.json['public'], false);
        const second = await at.post(post, { body: text(), fields: plain });
        if (second.status < 300) world.note(second.text('id'));
        second
          .holds('a refusal of the second upload', second.status >= 400 && second.status < 500)
          .refuses(second.status);
        (await at.get(`/v1/media/${id}?${post.split('?')[1]}`)).refuses(401, 'unauthorized');
      },
    ),
    both('upload-link/terms', 'size and types are those that were asked for', async (world, at) => {
      const { post } = await uploadLink(world, at, { types: ['text/plain'], size: 500 });
      (await at.post(post, { body: text(501), fields: plain })).refuses(413, 'too_large');
      const picture = Buffer.from('GIF89a\x01\0\x01\0\0\0\0;', 'latin1');
      (await at.post(post, { body: picture, fields: { 'content-type': 'image/gif' } })).refuses(
        415,
        'type_refused',
        'type_mismatch',
      );
      const stored = (await at.post(`${post}&public=true`, { body: text(500), fields: plain })).is(201, 400, 403);
      if (stored.status !== 201) return;
      world.note(stored.text('id'));
      (await at.get(`/v1/media/${stored.text('id')}`)).refuses(401, 'unauthorized');
    }),
    both('upload-link/changed', 'an upload link that was changed is refused', async (world, at) => {
      const { post } = await uploadLink(world, at, {});
      const exp = /exp=(\d+)/.exec(post)?.[1] ?? '';
      const later = post.replace(`exp=${exp}`, `exp=${Number(exp) + 60}`);
      for (const wrong of [later, post.replace(/sig=./, (found) => `sig=${found.endsWith('A') ? 'B' : 'A'}`)]) {
        const answer = await at.post(wrong, { body: text(), fields: plain });
        if (answer.status < 300) world.note(answer.text('id'));
        answer.refuses(401, 'unauthorized');
      }
    }),
    both('upload-link/tus', 'an upload link opens a resumable upload too', async (world, at) => {
      const { tus } = await uploadLink(world, at, {});
      const bytes = text();
      const fields = { ...TUS, ...CHUNK, 'upload-length': String(bytes.length), 'upload-metadata': metadata() };
      const answer = (await at.post(tus, { fields, body: bytes })).is(201);
      const media = (await at.get(mediaOf(world, at, answer), { as: 'user' })).is(200);
      media.has('repr-digest', `sha-256=:${sha256(bytes).toString('base64')}:`);
    }),
    both(
      'upload-link/duplicate',
      'whoever may not read gets nothing of the known media but its id, address and ETag',
      async (world, at) => {
        const bytes = text();
        const media = await world.upload(bytes, { query: 'filename=secret-name.txt' });
        const { post } = await uploadLink(world, at, {});
        const answer = (await at.post(post, { body: bytes, fields: plain })).is(200);
        answer.equals('"id"', answer.json['id'], media.id);
        answer.holds('nothing of the other upload', !answer.body.toString().includes('secret-name'));
        answer.equals('"created_at"', answer.json['created_at'] ?? null, null);
      },
    ),
    both('upload-link/unlawful', 'terms that are none are refused', async (_world, at) => {
      for (const body of ['{"size":-1}', '{"types":"x"}', '[]', '{"lifetime":"long"}']) {
        (await at.post('/v1/uploads/link', { as: 'user', body, fields: JSON_TYPE })).refuses(400, 'malformed');
      }
    }),
    both('upload-link/subject', 'a user makes no upload link in the name of another', async (_world, at) => {
      const body = JSON.stringify({ subject: 'somebody-else' });
      (await at.post('/v1/uploads/link', { as: 'user', body, fields: JSON_TYPE })).refuses(403, 'forbidden');
    }),
  ];
}
