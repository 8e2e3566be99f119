/** Deletes, quarantines, expiry and the acts of admins: on media of this run alone. */
import type { Answer } from '../answer.js';
import { NotTried } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import { png, text } from '../samples.js';
import { type Media, type Place, shortLived, unknownId, type World } from '../world.js';

const { both, edge, unseen } = checksOf('takedown');

const NOBODY = 'acceptance-nobody';

/** Every form in which the edge could still show it. */
async function shown(at: Place, { path, answer }: Media): Promise<readonly Answer[]> {
  const etag = answer.field('etag') ?? '';
  return await Promise.all([
    at.get(path, { as: 'user' }),
    at.head(path, { as: 'user' }),
    at.get(path, { as: 'user', fields: { range: 'bytes=0-1' } }),
    at.get(path, { as: 'user', fields: { 'if-none-match': etag } }),
    at.get(`${path}/info`, { as: 'user' }),
    at.get(`${path}/thumb`, { as: 'user' }),
  ]);
}

/** Each form is refused within the time, and stays so. */
async function gone(world: World, at: Place, media: Media, status: number, code: string): Promise<void> {
  const ask = (): Promise<Answer> => at.get(media.path, { as: 'user' });
  await world.until(`${status}`, world.takedownWithinMs, ask, (answer) => answer.status === status);
  for (const answer of await shown(at, media)) answer.refuses(status, code);
}

async function cached(world: World, at: Place, options: { readonly query?: string } = {}): Promise<Media> {
  const media = await world.upload(png({ width: 64, height: 48 }), { type: 'image/png', ...options });
  for (const answer of await shown(at, media)) answer.holds('no refusal before', answer.status < 400);
  return media;
}

export const takedownChecks: readonly Check[] = [
  both('delete/everywhere', 'what is deleted is gone at the edge within a second, in every form', async (world, at) => {
    const media = await cached(world, world.edge);
    (await at.send('DELETE', media.path, { as: world.remover() })).is(204);
    await gone(world, world.edge, media, 410, 'deleted');
    await gone(world, world.origin, media, 410, 'deleted');
    (await world.edge.get(media.path)).refuses(401, 'unauthorized');
  }),
  both('delete/again', 'a second delete is answered as the first', async (world, at) => {
    const media = await world.upload(text());
    for (const _ of ['first', 'again']) (await at.send('DELETE', media.path, { as: world.remover() })).is(204);
    const unknown = await at.send('DELETE', `/v1/media/${unknownId()}`, { as: world.remover() });
    unknown.is(403, 404);
    if (world.remover() === 'admin') unknown.refuses(404, 'not_found');
  }),
  both('delete/one-id', 'a delete covers one id, not the bytes', async (world, at) => {
    const bytes = text();
    const [hidden, open] = [await world.upload(bytes), await world.upload(bytes, { query: 'public=true' })];
    (await at.send('DELETE', open.path, { as: world.remover() })).is(204);
    await gone(world, at, open, 410, 'deleted');
    (await at.get(hidden.path, { as: 'user' })).is(200);
    const again = await at.post('/v1/media?public=true&expires_in=600', {
      as: 'user',
      body: bytes,
      fields: { 'content-type': 'text/plain' },
    });
    world.note(again.is(201).text('id'));
    again.holds('a new id after the delete', again.text('id') !== open.id);
  }),
  both('delete/wait', '?wait=edges answers when the edges have confirmed', async (world, at) => {
    const media = await cached(world, world.edge);
    const answer = (await at.send('DELETE', `${media.path}?wait=edges`, { as: world.remover() })).is(204);
    const [confirmed, all] = (answer.has('takedown-confirmed', /^\d+\/\d+$/).field('takedown-confirmed') ?? '').split(
      '/',
    );
    answer.equals('the edges that confirmed', confirmed, all).holds('at least one edge', Number(all) >= 1);
    for (const each of await shown(world.edge, media)) each.refuses(410, 'deleted');
  }),
  both('quarantine/everywhere', 'what is quarantined is withheld under every id, and comes back', async (world, at) => {
    const bytes = png({ width: 40, height: 30 });
    const [media, other] = [
      await world.upload(bytes, { type: 'image/png' }),
      await world.upload(bytes, { type: 'image/png', query: 'public=true' }),
    ];
    (await world.edge.get(media.path, { as: 'user' })).is(200);
    for (const each of [media, other]) world.noteQuarantined(each.id);
    for (const _ of ['first', 'again']) (await at.post(`${media.path}/quarantine`, { as: 'admin' })).is(204);
    await gone(world, world.edge, media, 403, 'quarantined');
    await gone(world, world.edge, other, 403, 'quarantined');
    const upload = await at.post('/v1/media?expires_in=600', {
      as: 'other',
      body: bytes,
      fields: { 'content-type': 'image/png' },
    });
    upload.refuses(403, 'quarantined');
    for (const _ of ['first', 'again']) (await at.send('DELETE', `${media.path}/quarantine`, { as: 'admin' })).is(204);
    for (const each of [media, other]) {
      const ask = (): Promise<Answer> => world.edge.get(each.path, { as: 'user' });
      await world.until('200', world.takedownWithinMs, ask, (answer) => answer.status === 200);
    }
  }),
  both('quarantine/wait', '?wait=edges holds for quarantines too', async (world, at) => {
    const media = await cached(world, world.edge);
    world.noteQuarantined(media.id);
    const answer = (await at.post(`${media.path}/quarantine?wait=edges`, { as: 'admin' })).is(204);
    answer.has('takedown-confirmed', /^(\d+)\/\1$/);
    for (const each of await shown(world.edge, media)) each.refuses(403, 'quarantined');
    (await at.send('DELETE', `${media.path}/quarantine?wait=edges`, { as: 'admin' })).is(204).has('takedown-confirmed');
  }),
  both('quarantine/unknown', 'what is not there cannot be quarantined', async (world, at) => {
    const media = await world.upload(text());
    (await at.send('DELETE', media.path, { as: 'admin' })).is(204);
    for (const method of ['POST', 'DELETE']) {
      (await at.send(method, `/v1/media/${unknownId()}/quarantine`, { as: 'admin' })).refuses(404, 'not_found');
      (await at.send(method, `${media.path}/quarantine`, { as: 'admin' })).refuses(410, 'deleted');
    }
  }),
  both('expiry/everywhere', 'what has expired is gone, in every form', async (world, at) => {
    const media = await shortLived(world, (query) => cached(world, world.edge, { query }));
    await world.pause(Math.max(0, Date.parse(media.answer.text('expires_at')) - world.nowMs()));
    await gone(world, at, media, 410, 'expired');
    (await at.get(media.path)).refuses(401, 'unauthorized');
  }),
  both('owner/nobody', 'an act on all media of an owner says how many there were', async (_world, at) => {
    for (const act of ['quarantine', 'restore', 'delete']) {
      const subject = `${NOBODY}-${unknownId()}`;
      const answer = (await at.post(`/v1/admin/owners/${subject}/${act}`, { as: 'admin' })).is(202);
      answer.equals('"media"', answer.json['media'], 0);
    }
    (await at.post(`/v1/admin/owners/${NOBODY}/forget`, { as: 'admin' })).refuses(404);
  }),
  edge('owner/acts', 'all media of an owner are withheld, given back and deleted', async (world, at) => {
    if (world.tokens.make === undefined) throw new NotTried('no subject of its own (only with --dev)');
    const subject = `acceptance-owner-${unknownId()}`;
    const token = await world.tokens.make({ subject });
    const stored: Media[] = [];
    for (const bytes of [text(), text()]) {
      const answer = await at.post('/v1/media?expires_in=600', {
        token,
        body: bytes,
        fields: { 'content-type': 'text/plain' },
      });
      const id = answer.is(201).text('id');
      world.note(id);
      stored.push({ id, path: `/v1/media/${id}`, bytes, answer });
    }
    const [first, second] = stored;
    if (first === undefined || second === undefined) return;
    const act = async (name: string): Promise<void> => {
      const answer = (await at.post(`/v1/admin/owners/${subject}/${name}?wait=edges`, { as: 'admin' })).is(202);
      answer.equals('"media"', answer.json['media'], 2).has('takedown-confirmed', /^(\d+)\/\1$/);
    };
    for (const { id } of stored) world.noteQuarantined(id);
    await act('quarantine');
    for (const { path } of stored) (await at.get(path, { as: 'user' })).refuses(403, 'quarantined');
    await act('restore');
    for (const { path } of stored) (await at.get(path, { as: 'user' })).is(200);
    await act('delete');
    for (const { path } of stored) (await at.get(path, { as: 'user' })).refuses(410, 'deleted');
  }),
  both('own/delete', 'an owner may delete what they uploaded, where the service says so', async (world, at) => {
    const media = await world.upload(text());
    const answer = await at.send('DELETE', media.path, { as: 'user' });
    if (world.capabilities['owners_may_delete'] !== true) answer.refuses(403, 'forbidden');
    else answer.is(204);
  }),
  both(
    'own/list',
    'the list of media is for admins, and of their own for owners where the service says so',
    async (world, at) => {
      const media = await world.upload(text());
      const mine = await at.get('/v1/admin/media?limit=5', { as: 'user' });
      if (world.capabilities['owners_may_delete'] === true) {
        mine.is(200).holds('the list of "items"', Array.isArray(mine.json['items']));
      } else mine.refuses(403, 'forbidden');
      const all = (await at.get('/v1/admin/media?limit=1', { as: 'admin' }))
        .is(200)
        .has('cache-control', /\bno-store\b/);
      all.holds('the list of "items"', Array.isArray(all.json['items']));
      const one = (await at.get(`/v1/admin/media/${media.id}`, { as: 'admin' }))
        .is(200)
        .has('cache-control', /\bno-store\b/);
      one.holds('the record of the media', one.body.toString().includes(media.id));
      (await at.get(`/v1/admin/media/${media.id}`, { as: 'other' })).refuses(403, 'forbidden');
    },
  ),
  unseen(
    'takedown/cut-off',
    'an edge that is cut off does as its lease says',
    'needs the connection between edge and origin',
  ),
  unseen('takedown/audit', 'acts of admins are in the audit log', 'is a file or a table of the operator'),
];

export const elsewhereChecks: readonly Check[] = [
  checksOf('several origins').unseen(
    'origins/same',
    'every promise holds at each origin',
    'run it once for each: --origin takes one',
  ),
  checksOf('several origins').unseen(
    'origins/wait',
    '?wait=edges counts the edges of all origins',
    'needs to know how many edges there are',
  ),
  checksOf('webhooks').unseen(
    'webhooks/sent',
    'events are signed, sent at least once and in order',
    'are sent to the chat server, not to clients',
  ),
];
