/** Ids, the form of refusals, and that a refusal tells nothing. */

import type { Answer } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import { text } from '../samples.js';
import { unknownId } from '../world.js';

const { both, edge, origin } = checksOf('ids and errors');

/** What may differ between two equal refusals. */
const OF_THE_MOMENT = [
  'date',
  'x-request-id',
  'age',
  'cache-status',
  'keep-alive',
  'connection',
  'ratelimit',
  'ratelimit-policy',
];

function lasting(answer: Answer): readonly unknown[] {
  const fields = Object.entries(answer.got.fields).filter(([name]) => !OF_THE_MOMENT.includes(name));
  return [answer.status, Object.fromEntries(fields), answer.body.toString()];
}

export const idChecks: readonly Check[] = [
  both('id/form', 'an id is a ULID in upper case', async (world, at) => {
    const { answer } = await world.upload(text(), { at });
    answer.holds('an id of 26 characters of Crockford Base32', /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/.test(answer.text('id')));
  }),
  both('id/either-case', 'an id is read in lower case too, and named in upper case', async (world, at) => {
    const media = await world.shared('text');
    const answer = (await at.get(media.path.toLowerCase(), { as: 'user' })).is(200);
    answer.equals('the body', answer.body.toString(), media.bytes.toString());
    const info = await at.get(`${media.path.toLowerCase()}/info`, { as: 'user' });
    info.is(200).equals('"id"', info.json['id'], media.id);
  }),
  both('id/other', 'what is no id is refused as invalid_id', async (_world, at) => {
    for (const wrong of ['nothing', '8'.repeat(26), `${'0'.repeat(25)}U`, '0'.repeat(25), '0'.repeat(27)]) {
      (await at.get(`/v1/media/${wrong}`, { as: 'user' })).refuses(400, 'invalid_id');
    }
  }),
  both(
    'error/form',
    'a refusal is a problem document with a code, not stored, with nothing internal',
    async (_world, at) => {
      (await at.get(`/v1/media/${unknownId()}`, { as: 'user' })).refuses(404, 'not_found');
      (await at.get('/v1/nothing-is-here')).refuses(404, 'not_found');
      (await at.send('PUT', '/v1/media', { as: 'user' })).refuses(405, 'method_not_allowed').has('allow', /\bPOST\b/);
      (await at.get('/v1/media/%00%ff', { as: 'user' })).refuses(400);
      (await at.post('/v1/links', { as: 'user', body: '{', fields: JSON_TYPE })).refuses(400, 'malformed');
    },
  ),
  both('error/head', 'a HEAD is refused as a GET is, without the document', async (_world, at) => {
    const answer = await at.head(`/v1/media/${unknownId()}`, { as: 'user' });
    answer.refuses(404).equals('the size of the body', answer.body.length, 0);
  }),
  both('oracle/no-credential', 'private, unknown and deleted media answer the same 401', async (world, at) => {
    const media = await world.upload(text());
    const gone = await world.upload(text());
    (await at.get(media.path, { as: 'user' })).is(200);
    const paths = [media.path, `/v1/media/${unknownId()}`];
    const remover =
      world.tokens.admin === undefined && world.capabilities['owners_may_delete'] !== true
        ? undefined
        : world.remover();
    if (remover !== undefined) {
      (await at.send('DELETE', gone.path, { as: remover })).is(204);
      paths.push(gone.path);
    }
    for (const suffix of ['', '/thumb', '/info', '?exp=9999999999&kid=1&sig=AAAA']) {
      const [first, ...others] = await Promise.all(paths.map((path) => at.get(path + suffix)));
      first?.refuses(401, 'unauthorized');
      for (const answer of others) answer.equals('the refusal of another id', lasting(answer), first && lasting(first));
    }
  }),
  both('oracle/conditions', 'without a credential no condition, range or HEAD says anything', async (world, at) => {
    const media = await world.shared('text');
    const etag = media.answer.field('etag') ?? '';
    (await at.get(media.path, { as: 'user' })).is(200);
    for (const fields of [{ 'if-none-match': etag }, { 'if-match': '"x"' }, { range: 'bytes=999999-' }]) {
      (await at.get(media.path, { fields })).refuses(401, 'unauthorized');
      (await at.head(media.path, { fields })).refuses(401);
    }
  }),
  edge('oracle/hits', 'access is decided on every hit', async (world, at) => {
    const media = await world.shared('text');
    await world.until(
      'a hit',
      30_000,
      () => at.get(media.path, { as: 'user' }),
      (answer) => /; hit\b/.test(answer.field('cache-status') ?? ''),
    );
    (await at.get(media.path)).refuses(401, 'unauthorized');
    (await at.get(media.path, { token: 'e30.e30.e30' })).refuses(401, 'unauthorized');
  }),
  origin('id/no-edge-needed', 'each client path works at the origin too', async (world, at) => {
    const media = await world.shared('public');
    for (const suffix of ['', '/info']) (await at.get(media.path + suffix)).is(200);
  }),
];

export const JSON_TYPE = { 'content-type': 'application/json' } as const;
