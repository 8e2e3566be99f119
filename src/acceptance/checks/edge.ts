/** The edge as a cache. */
import type { Answer } from '../answer.js';
import { NotTried } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import { png, text } from '../samples.js';

const { edge, unseen } = checksOf('edge');

const isHit = (answer: Answer): boolean => /; hit\b/.test(answer.field('cache-status') ?? '');
const KEPT_WITHIN_MS = 30_000;
const READERS = 8;

export const edgeChecks: readonly Check[] = [
  edge(
    'edge/miss-and-hit',
    'the first read is forwarded and stored, the next one is a hit, with Age',
    async (world, at) => {
      const media = await world.upload(text(20_000));
      const first = (await at.get(media.path, { as: 'user' })).is(200).has('age', /^\d+$/);
      first.has('cache-status', /; fwd=[a-z-]+; fwd-status=200\b.*; stored\b/);
      const again = await world.until('a hit', KEPT_WITHIN_MS, () => at.get(media.path, { as: 'user' }), isHit);
      again.has('age', /^\d+$/).has('cache-status', /; hit; ttl=\d+; detail=[\w"-]+/);
      again.holds('the bytes that were uploaded', again.body.equals(media.bytes));
      again.has('etag', first.field('etag') ?? '');
    },
  ),
  edge('edge/shared', 'private media are held once for all who may see them', async (world, at) => {
    const media = await world.upload(text());
    await world.until('a hit', KEPT_WITHIN_MS, () => at.get(media.path, { as: 'user' }), isHit);
    (await at.get(media.path, { as: 'other' })).is(200).has('cache-status', /; hit\b/);
  }),
  edge('edge/collapsed', 'many who miss at once cause one request', async (world, at) => {
    const media = await world.upload(text(200_000));
    const answers = await Promise.all(Array.from({ length: READERS }, () => at.get(media.path, { as: 'user' })));
    const asked = new Map<string, number>();
    for (const answer of answers) {
      answer.is(200).holds('the bytes that were uploaded', answer.body.equals(media.bytes));
      const own = (answer.field('cache-status') ?? '').split(/, */).at(-1) ?? '';
      const name = own.split(';')[0] ?? '';
      if (/; fwd=/.test(own) && !/; collapsed\b/.test(own)) asked.set(name, (asked.get(name) ?? 0) + 1);
    }
    answers[0]?.holds(
      `one request of each edge, not ${[...asked.values()].join(', ')}`,
      [...asked.values()].every((count) => count <= 1),
    );
  }),
  edge('edge/ranges-of-a-hit', 'ranges and conditions are answered from the copy', async (world, at) => {
    const media = await world.upload(text());
    await world.until('a hit', KEPT_WITHIN_MS, () => at.get(media.path, { as: 'user' }), isHit);
    const part = (await at.get(media.path, { as: 'user', fields: { range: 'bytes=10-19' } }))
      .is(206)
      .has('cache-status', /; hit\b/);
    part.holds('the bytes of that range', part.body.equals(media.bytes.subarray(10, 20)));
    const etag = media.answer.field('etag') ?? '';
    (await at.get(media.path, { as: 'user', fields: { 'if-none-match': etag } }))
      .is(304)
      .has('cache-status', /; hit\b/);
  }),
  edge('edge/head-warms', 'a HEAD that misses is answered at once, and may fetch the body', async (world, at) => {
    const media = await world.upload(png({ width: 100, height: 80 }), { type: 'image/png' });
    const head = (await at.head(media.path, { as: 'user' })).is(200).has('content-length', String(media.bytes.length));
    head.has('cache-status', /; fwd=/);
    // Whether it warms is its policy, and only a hit on the first read of the body shows it.
    await world.pause(1_000);
    const answer = (await at.get(media.path, { as: 'user' })).is(200);
    if (!isHit(answer)) throw new NotTried('the edge did not warm the body, which its policy may say');
  }),
  edge('edge/writes-pass', 'what changes something goes to the origin', async (world, at) => {
    const media = await world.upload(text(), { at });
    media.answer.has('cache-status', /; fwd=(?:method|bypass|request)\b/);
    (await world.origin.get(media.path, { as: 'user' })).is(200);
  }),
  unseen('edge/no-call', 'a hit needs no call to the origin', 'needs the origin to be stopped'),
  unseen(
    'edge/stale',
    'stale-while-revalidate, stale-if-error and the other rules of RFC 9111',
    'needs an origin that answers as the test says',
  ),
  unseen(
    'edge/slow-readers',
    'slow readers hold up nobody, and a reader that leaves ends no fill',
    'needs an origin that answers slowly',
  ),
  unseen('edge/damaged', 'a copy of wrong length or hash is never served whole', 'needs the cache folder'),
  unseen(
    'edge/cut-off',
    'an edge that is cut off notices within its lease',
    'needs the connection between edge and origin',
  ),
  unseen('edge/in-a-row', 'edges in a row prove themselves and confirm together', 'needs to know how edges are set up'),
  unseen(
    'edge/restart',
    'an edge that was down applies what it missed before it serves',
    'needs the process to be stopped',
  ),
  unseen(
    'edge/operators',
    'metrics, purge, statistics and the live page',
    'are on a listener that outsiders do not reach, and a purge would touch what others have stored',
  ),
  unseen('edge/reload', 'the cache policy is read again without dropping a connection', 'needs the configuration file'),
];
