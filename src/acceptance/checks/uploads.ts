/** POST of media: what is stored, what is answered, and what is refused. */
import type { Answer } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import { png, sha256, text, wav } from '../samples.js';
import { LIFETIME_S, type Place, type World } from '../world.js';

const { both, unseen } = checksOf('uploads');

const LIFETIME = `expires_in=${LIFETIME_S}`;
/** What is not known at once is found out in turn. */
export const KNOWN_WITHIN_MS = 60_000;
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/;
const MEMBERS =
  'id url thumb_url etag sha256 size mime public width height duration thumbhash filename created_at expires_at duplicate'.split(
    ' ',
  );

/** Sends what must be refused. Where it is stored all the same, it is noted. */
async function post(
  world: World,
  at: Place,
  bytes: Buffer,
  fields: Readonly<Record<string, string>>,
  query = '',
): Promise<Answer> {
  const answer = await at.post(`/v1/media?${LIFETIME}${query}`, { as: 'user', body: bytes, fields });
  if (answer.status === 200 || answer.status === 201) world.note(answer.text('id'));
  return answer;
}

export function form(parts: Readonly<Record<string, string>>, file?: { bytes: Buffer; type: string; name: string }) {
  const boundary = 'the-parts-of-an-acceptance-run';
  const chunks = Object.entries(parts).map(([name, value]) =>
    Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`),
  );
  if (file !== undefined) {
    const head = `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="${file.name}"\r\nContent-Type: ${file.type}\r\n\r\n`;
    chunks.push(Buffer.concat([Buffer.from(head), file.bytes, Buffer.from('\r\n')]));
  }
  return {
    body: Buffer.concat([...chunks, Buffer.from(`--${boundary}--\r\n`)]),
    fields: { 'content-type': `multipart/form-data; boundary=${boundary}` },
  };
}

export const uploadChecks: readonly Check[] = [
  both('upload/raw', 'raw bytes are stored: 201 with Location, ETag and the whole document', async (world, at) => {
    const bytes = png({ width: 60, height: 40 });
    const query = 'filename=a%20picture.png';
    const { answer, id, path } = await world.upload(bytes, { at, type: 'image/png', query });
    const document = answer.has('content-type', /^application\/json\b/).has('location').json;
    answer.equals('the path of Location', new URL(answer.field('location') ?? '', at.url).pathname, path);
    answer.equals(
      'missing members',
      MEMBERS.filter((name) => !(name in document)),
      [],
    );
    const hash = sha256(bytes).toString('hex');
    const etag = `"sha256:${hash}"`;
    answer.has('etag', etag).equals('"etag"', document['etag'], etag);
    answer.equals('"sha256"', document['sha256'], hash).equals('"size"', document['size'], bytes.length);
    answer.equals('"mime"', document['mime'], 'image/png').equals('"filename"', document['filename'], 'a picture.png');
    answer.equals('"public"', document['public'], false).equals('"duplicate"', document['duplicate'], false);
    answer.equals('width and height', [document['width'], document['height']], [60, 40]);
    answer.holds('"created_at" of RFC 3339', INSTANT.test(String(document['created_at'])));
    const base = String(world.wellKnown['base_uri']);
    answer.equals('"url"', document['url'], `${base}/v1/media/${id}`);
    answer.equals('"thumb_url"', document['thumb_url'], `${base}/v1/media/${id}/thumb`);
    const read = (await at.get(path, { as: 'user' })).is(200).has('etag', etag);
    read.holds('the bytes that were uploaded', read.body.equals(bytes));
  }),
  both('upload/expiry', 'expires_in sets the end', async (world, at) => {
    const before = world.nowMs();
    const { answer } = await world.upload(text(), { at, query: 'expires_in=600' });
    const offMs = Date.parse(answer.text('expires_at')) - before - 600_000;
    answer.holds('an end in 600 seconds, give or take 60', Math.abs(offMs) < 60_000);
  }),
  both('upload/form', 'a form with one file is stored, with its options', async (world, at) => {
    const bytes = text();
    const options = { public: 'true', expires_in: String(LIFETIME_S), filename: 'named.txt' };
    const { body, fields } = form(options, { bytes, type: 'text/plain', name: 'other.txt' });
    const answer = (await at.post('/v1/media', { as: 'user', body, fields })).is(201);
    world.note(answer.text('id'));
    answer.equals('"filename"', answer.json['filename'], 'named.txt').equals('"public"', answer.json['public'], true);
    const read = (await at.get(`/v1/media/${answer.text('id')}`)).is(200);
    read.holds('the bytes that were uploaded', read.body.equals(bytes));
  }),
  both('upload/form-without-file', 'a form without a file is refused', async (_world, at) => {
    (await at.post('/v1/media', { as: 'user', ...form({ public: 'false' }) })).refuses(400, 'malformed', 'empty');
  }),
  both('upload/digest', 'a digest that is given must match', async (world, at) => {
    const plain = { 'content-type': 'text/plain' };
    for (const name of ['repr-digest', 'content-digest']) {
      const bytes = text();
      const right = `sha-256=:${sha256(bytes).toString('base64')}:`;
      const wrong = `sha-256=:${sha256(text()).toString('base64')}:`;
      (await post(world, at, bytes, { ...plain, [name]: wrong })).refuses(400, 'digest_mismatch');
      (await post(world, at, bytes, { ...plain, [name]: right })).is(201);
    }
  }),
  both('upload/cut', 'a body that is cut leaves nothing behind', async (world, at) => {
    const bytes = text(50_000);
    const fields = { 'content-type': 'text/plain' };
    await at.cut(`/v1/media?${LIFETIME}`, { as: 'user', body: bytes, fields, cutAfter: 20_000 });
    await at.cut(`/v1/media?${LIFETIME}`, { as: 'user', body: bytes, fields, cutAfter: 49_999 });
    const head = bytes.subarray(0, 20_000);
    (await post(world, at, head, fields)).is(201);
    (await post(world, at, bytes, fields)).is(201);
  }),
  both('upload/empty', 'an empty body is refused', async (world, at) => {
    (await post(world, at, Buffer.alloc(0), { 'content-type': 'text/plain' })).refuses(400, 'empty');
  }),
  both('upload/options', 'options that are none are refused', async (world, at) => {
    const fields = { 'content-type': 'text/plain' };
    for (const query of ['&public=perhaps']) (await post(world, at, text(), fields, query)).refuses(400, 'malformed');
    const answer = await at.post('/v1/media?expires_in=soon', { as: 'user', body: text(), fields });
    if (answer.status < 300) world.note(answer.text('id'));
    answer.refuses(400, 'malformed');
  }),
  both('upload/type-mismatch', 'a declared type that the bytes are not is refused', async (world, at) => {
    (await post(world, at, text(), { 'content-type': 'image/png' })).refuses(415, 'type_mismatch');
    (await post(world, at, png({ width: 8, height: 8 }), { 'content-type': 'image/jpeg' })).refuses(
      415,
      'type_mismatch',
    );
  }),
  both('upload/type-detected', 'without a declared type the bytes decide', async (world, at) => {
    for (const fields of [{}, { 'content-type': 'application/octet-stream' }]) {
      const answer = (await post(world, at, png({ width: 9, height: 9 }), fields)).is(201);
      answer.equals('"mime"', answer.json['mime'], 'image/png');
    }
  }),
  both('upload/type-refused', 'types that are not on the list are refused', async (world, at) => {
    const marker = text(20).toString();
    const program = Buffer.concat([Buffer.from('7f454c4602010100', 'hex'), Buffer.alloc(56), text()]);
    (await post(world, at, program, {})).refuses(415, 'type_refused');
    const page = Buffer.from(`<!doctype html><html><body>${marker}</body></html>`);
    (await post(world, at, page, { 'content-type': 'text/html' })).refuses(415, 'type_refused');
    const drawing = Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg"><title>${marker}</title></svg>`);
    (await post(world, at, drawing, { 'content-type': 'image/svg+xml' })).refuses(415, 'type_refused');
  }),
  both('upload/utf-8', 'text that is no UTF-8 is refused', async (world, at) => {
    const bytes = Buffer.concat([text(), Buffer.from([0xc3, 0x28, 0xff]), text()]);
    (await post(world, at, bytes, { 'content-type': 'text/plain' })).refuses(415);
  }),
  both('upload/duration', 'the duration of sound is in the answer, or in the info soon', async (world, at) => {
    const media = await world.upload(wav(), { at, type: 'audio/wav' });
    const said = media.answer.json['duration'];
    media.answer.holds('"duration" of 1 or null', said === 1 || said === null);
    const ask = (): Promise<Answer> => at.get(`${media.path}/info`, { as: 'user' });
    await world.until('a duration of 1', KNOWN_WITHIN_MS, ask, (answer) => answer.is(200).json['duration'] === 1);
  }),
  both('upload/too-large', 'a body that is too large is refused before it is sent', async (world, at) => {
    const size = Number(world.wellKnown['max_upload_size']) + 1;
    const fields = { 'content-type': 'text/plain', 'content-length': String(size) };
    const answer = await at.post('/v1/media', { as: 'user', fields, body: '', expectContinue: true });
    answer.refuses(413, 'too_large').holds('no 100 before it', !answer.got.continued);
  }),
  both('upload/continue', 'a client that waits for 100 sends a body only where it is wanted', async (world, at) => {
    const fields = { 'content-type': 'text/plain' };
    const refused = await at.post('/v1/media', { fields, body: text(), expectContinue: true });
    refused.refuses(401, 'unauthorized').holds('no 100 before it', !refused.got.continued);
    const path = `/v1/media?${LIFETIME}`;
    const stored = (await at.post(path, { as: 'user', fields, body: text(), expectContinue: true })).is(201);
    world.note(stored.text('id'));
    stored.holds('100 before it', stored.got.continued);
  }),
  both(
    'upload/duplicate',
    'the same bytes again: 200, the same id, the later end, the own filename',
    async (world, at) => {
      const bytes = text();
      const first = await world.upload(bytes, { at, query: 'expires_in=300&filename=first.txt' });
      const answer = await post(world, at, bytes, { 'content-type': 'text/plain' }, '&filename=second.txt');
      answer.is(200).equals('"id"', answer.json['id'], first.id).equals('"duplicate"', answer.json['duplicate'], true);
      answer.equals('"filename"', answer.json['filename'], 'second.txt').has('etag', first.answer.field('etag') ?? '');
      answer.has('location');
      const end = Date.parse(answer.text('expires_at'));
      answer.holds('the later end', end > Date.parse(first.answer.text('expires_at')));
      const info = (await world.origin.get(`${first.path}/info`, { as: 'user' })).is(200);
      info.equals('"expires_at" of the info', info.json['expires_at'], answer.json['expires_at']);
      const earlier = await at.post('/v1/media?expires_in=60', {
        as: 'user',
        body: bytes,
        fields: { 'content-type': 'text/plain' },
      });
      earlier
        .is(200)
        .equals('"expires_at" after a shorter lifetime', earlier.json['expires_at'], answer.json['expires_at']);
    },
  ),
  both('upload/two-ids', 'the same bytes private and public are two ids', async (world, at) => {
    const bytes = text();
    const [hidden, open] = [await world.upload(bytes, { at }), await world.upload(bytes, { at, query: 'public=true' })];
    open.answer.holds('another id', open.id !== hidden.id);
    (await at.get(open.path)).is(200);
    (await at.get(hidden.path)).refuses(401, 'unauthorized');
  }),
  both('upload/chunked', 'a body without a stated length is stored', async (world, at) => {
    const bytes = text(5_000);
    const fields = { 'content-type': 'text/plain', 'transfer-encoding': 'chunked' };
    const answer = (await post(world, at, bytes, fields)).is(201);
    answer.equals('"size"', answer.json['size'], bytes.length);
  }),
  unseen('upload/durable', 'what was answered survives a kill and a power cut', 'needs the process to be killed'),
  unseen('upload/quota', 'quota_exceeded and rate_limited with Retry-After', 'would use up the limits of real users'),
  unseen('upload/overloaded', 'overloaded where too much is asked for at once', 'would disturb real users'),
  unseen('upload/full', 'storage_full where there is no room', 'needs a full disk'),
];
