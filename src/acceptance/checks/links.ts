/** Signed links. */

import type { Answer } from '../answer.js';
import { NotTried } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import { png, text } from '../samples.js';
import { type Place, shortLived, unknownId, type World } from '../world.js';
import { JSON_TYPE } from './ids.js';

const { both, edge, unseen } = checksOf('links');

interface Links {
  readonly url: string;
  readonly thumb: string;
  readonly info: string;
  readonly answer: Answer;
}

/** Path and query of a URL, so that it can be tried at each place. */
const targetOf = (url: string): string => new URL(url).pathname + new URL(url).search;

async function linksOf(world: World, at: Place, path: string): Promise<Links> {
  if (world.capabilities['signed_links'] === null) throw new NotTried('this service signs no links');
  const answer = (await at.post(`${path}/link`, { as: 'user' })).is(200);
  return {
    url: targetOf(answer.text('url')),
    thumb: targetOf(answer.text('thumb_url')),
    info: targetOf(answer.text('info_url')),
    answer,
  };
}

async function many(world: World, at: Place, ids: readonly string[], as: 'user' | 'other' = 'user'): Promise<Answer> {
  if (world.capabilities['signed_links'] === null) throw new NotTried('this service signs no links');
  return at.post('/v1/links', { as, body: JSON.stringify({ ids }), fields: JSON_TYPE });
}

/** The link with one parameter of another value. */
function changed(target: string, name: string, value: string): string {
  const [path = '', query = ''] = target.split('?');
  const parameters = new URLSearchParams(query);
  parameters.set(name, value);
  return `${path}?${parameters.toString()}`;
}

function flipped(target: string): string {
  const sig = new URLSearchParams(target.split('?')[1]).get('sig') ?? '';
  return changed(target, 'sig', `${sig.startsWith('A') ? 'B' : 'A'}${sig.slice(1)}`);
}

const windowOf = (world: World): number => {
  const links = world.capabilities['signed_links'] as { readonly window_seconds?: number } | null;
  return links?.window_seconds ?? 600;
};

export const linkChecks: readonly Check[] = [
  both(
    'link/opens',
    'a link to the original opens it, its thumbnail and its info, without a token',
    async (world, at) => {
      const media = await world.shared('picture');
      const { url, answer } = await linksOf(world, at, media.path);
      answer.text('expires_at');
      const original = (await at.get(url)).is(200);
      original.holds('the bytes that were uploaded', original.body.equals(media.bytes));
      (await at.head(url)).is(200);
      (await at.get(url.replace('?', '/info?'))).is(200);
      (await at.get(url.replace('?', '/thumb?'))).is(200, 202);
    },
  ),
  both(
    'link/thumb-scope',
    'a link to the thumbnail opens every variant and the info, and not the original',
    async (world, at) => {
      const media = await world.shared('picture');
      const { thumb, info } = await linksOf(world, at, media.path);
      for (const query of ['', '&w=1', '&w=10000']) (await at.get(thumb + query)).is(200, 202);
      (await at.get(info)).is(200);
      (await at.get(thumb.replace('/thumb?', '?'))).refuses(401, 'unauthorized');
      (await at.head(info.replace('/info?', '?'))).refuses(401);
    },
  ),
  both('link/changed', 'a link with another id, end, key or signature is refused', async (world, at) => {
    const [media, other] = [await world.shared('text'), await world.upload(text())];
    const { url } = await linksOf(world, at, media.path);
    const exp = Number(new URLSearchParams(url.split('?')[1]).get('exp'));
    const wrong = [
      flipped(url),
      changed(url, 'exp', String(exp + 1)),
      changed(url, 'kid', 'no-such-key'),
      changed(url, 'sig', ''),
    ];
    for (const target of [...wrong, url.replace(media.id, other.id)])
      (await at.get(target)).refuses(401, 'unauthorized');
  }),
  both('link/reads-only', 'a link opens GET and HEAD alone', async (world, at) => {
    const { url } = await linksOf(world, at, (await world.shared('text')).path);
    (await at.send('DELETE', url)).refuses(401, 'unauthorized');
    (await at.post(url.replace('?', '/link?'))).refuses(401, 'unauthorized');
  }),
  both(
    'link/same-url',
    'links that are asked for again are the same, and end at a multiple of the window',
    async (world, at) => {
      const { id } = await world.shared('text');
      const ends = (answer: Answer): readonly Readonly<Record<string, unknown>>[] =>
        answer.is(200).json['links'] as readonly Readonly<Record<string, unknown>>[];
      // Two requests may stand on both sides of the end of a window.
      const answers = [await many(world, at, [id]), await many(world, at, [id]), await many(world, at, [id])];
      const urls = answers.map((answer) => ends(answer)[0]?.['url']);
      const last = answers[2] ?? answers[0];
      last?.holds('the same link twice', urls[0] === urls[1] || urls[1] === urls[2]);
      const exp = Number(new URL(String(urls[2])).searchParams.get('exp'));
      last?.equals('the end, by the window', exp % windowOf(world), 0);
    },
  ),
  both('link/many', 'links to many media come in their order, and say nothing of existence', async (world, at) => {
    const { id } = await world.shared('text');
    const unknown = unknownId();
    const answer = (await many(world, at, [unknown, id])).is(200).has('cache-control', /\bno-store\b/);
    const links = answer.json['links'] as readonly Readonly<Record<string, unknown>>[];
    answer.equals(
      'the ids',
      links.map((link) => link['id']),
      [unknown, id],
    );
    for (const name of ['url', 'thumb_url', 'info_url']) {
      answer.holds(
        `"${name}" in each`,
        links.every((link) => typeof link[name] === 'string'),
      );
    }
    answer.text('expires_at');
    (await at.get(targetOf(String(links[1]?.['url'])))).is(200);
    (await at.get(targetOf(String(links[0]?.['url'])))).refuses(404, 'not_found');
  }),
  both('link/many-limit', 'links to 500 media are given at once, and more are refused', async (world, at) => {
    const ids = Array.from({ length: 501 }, unknownId);
    const answer = (await many(world, at, ids.slice(0, 500))).is(200);
    answer.equals('the number of links', (answer.json['links'] as readonly unknown[]).length, 500);
    (await many(world, at, ids)).refuses(400, 'malformed');
    (await many(world, at, ['nothing'])).refuses(400);
  }),
  both('link/lifetime', 'links last as long as is asked for, up to the end of a window', async (world, at) => {
    if (world.capabilities['signed_links'] === null) throw new NotTried('this service signs no links');
    const before = world.nowMs();
    const body = JSON.stringify({ ids: [unknownId()], lifetime: 60 });
    const answer = (await at.post('/v1/links', { as: 'user', body, fields: JSON_TYPE })).is(200);
    const lastsMs = Date.parse(answer.text('expires_at')) - before;
    answer.holds(
      'an end in 60 seconds to a minute after a window',
      lastsMs > 30_000 && lastsMs < (windowOf(world) + 120) * 1_000,
    );
  }),
  both('link/lifetime', 'links last as long as is asked for, up to the end of a window', async (world, at) => {
    if (world.capabilities['signed_links'] === null) throw new NotTried('this service signs no links');
    const before = world.nowMs();
    const body = JSON.stringify({ ids: [unknownId()], lifetime: 60 });
    const answer = (await at.post('/v1/links', { as: 'user', body, fields: JSON_TYPE })).is(200);
    const lastsMs = Date.parse(answer.text('expires_at')) - before;
    answer.holds(
      'an end in 60 seconds to a minute after a window',
      lastsMs > 30_000 && lastsMs < (windowOf(world) + 120) * 1_000,
    );
  }),
  edge('link/many-by-edge', 'links to many media are not asked of the origin', async (world, at) => {
    const answer = (await many(world, at, [unknownId()])).is(200);
    answer.holds('no forwarding in Cache-Status', !/\bfwd=/.test(answer.field('cache-status') ?? ''));
  }),
  both('link/over', 'a link that is over is refused as link_expired', async (world, at) => {
    const { url, answer } = await shortLived(world, async (query) =>
      linksOf(world, at, (await world.upload(text(), { query })).path),
    );
    const leftMs = Date.parse(answer.text('expires_at')) - world.nowMs();
    if (leftMs > 10_000) throw new NotTried('every link of this service lasts longer than the run');
    await world.pause(Math.max(0, leftMs));
    // Clocks may differ a little, and a service may allow for it.
    const late = await world.until(
      '401',
      130_000,
      () => at.get(url),
      (got) => got.status === 401,
    );
    late.refuses(401, 'link_expired');
  }),
  both('link/unknown', 'there is no link to an unknown id', async (_world, at) => {
    (await at.post(`/v1/media/${unknownId()}/link`, { as: 'user' })).refuses(404, 'not_found');
  }),
  both('link/gone', 'there is no link to deleted media, and old ones are over', async (world, at) => {
    const media = await world.upload(text());
    const { url } = await linksOf(world, at, media.path);
    (await at.send('DELETE', media.path, { as: world.remover() })).is(204);
    (await at.post(`${media.path}/link`, { as: 'user' })).refuses(410, 'deleted');
    (
      await world.until(
        '410',
        world.takedownWithinMs,
        () => at.get(url),
        (got) => got.status === 410,
      )
    ).refuses(410, 'deleted');
  }),
  both('download/name', 'download= changes Content-Disposition alone, also behind a link', async (world, at) => {
    const media = await world.shared('picture');
    const { url } = await linksOf(world, at, media.path);
    const plain = (await at.get(url)).is(200);
    const named = (await at.get(`${url}&download=${encodeURIComponent('Ferien “1”.png')}`)).is(200);
    named.has('content-disposition', /^attachment; .*filename\*=UTF-8''Ferien%20%E2%80%9C1%E2%80%9D\.png/i);
    for (const name of ['etag', 'content-type', 'content-length', 'repr-digest']) {
      named.equals(name, named.field(name), plain.field(name));
    }
    named.holds('the same bytes', named.body.equals(plain.body));
    (await at.get(`${media.path}?download=a.png`, { as: 'user' })).has('content-disposition', /^attachment\b.*a\.png/);
  }),
  edge('link/cache-key', 'neither a signature nor download= makes another copy', async (world, at) => {
    const media = await world.upload(png({ width: 20, height: 20 }), { type: 'image/png' });
    const { url } = await linksOf(world, at, media.path);
    const isHit = (answer: Answer): boolean => /; hit\b/.test(answer.field('cache-status') ?? '');
    await world.until('a hit', 30_000, () => at.get(media.path, { as: 'user' }), isHit);
    for (const target of [url, `${url}&download=x.png`]) {
      (await at.get(target)).is(200).has('cache-status', /; hit\b/);
    }
  }),
  unseen('link/rotation', 'links of several secrets are valid at once', 'needs the operator to add a secret'),
];
