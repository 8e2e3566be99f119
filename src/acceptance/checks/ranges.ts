/** Conditions and ranges (RFC 9110 13 and 14). */
import type { Answer } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import type { Media, Place } from '../world.js';

const { both } = checksOf('conditions and ranges');

type Fields = Readonly<Record<string, string>>;

const get = (at: Place, { path }: Media, fields: Fields): Promise<Answer> => at.get(path, { as: 'user', fields });
const etagOf = ({ answer }: Media): string => answer.field('etag') ?? '';

async function modifiedAt(at: Place, media: Media): Promise<string> {
  return (await at.get(media.path, { as: 'user' })).is(200).has('last-modified').field('last-modified') ?? '';
}

const EARLIER = 'Sat, 01 Jan 2000 00:00:00 GMT';
const LATER = 'Fri, 01 Jan 2100 00:00:00 GMT';

function part(answer: Answer, media: Media, from: number, to: number): void {
  answer.is(206).has('content-range', `bytes ${from}-${to - 1}/${media.bytes.length}`);
  answer.has('content-length', String(to - from)).has('etag', etagOf(media));
  answer.holds('the bytes of that range', answer.body.equals(media.bytes.subarray(from, to)));
}

function whole(answer: Answer, media: Media): void {
  answer.is(200).lacks('content-range').holds('the whole bytes', answer.body.equals(media.bytes));
}

/** The parts of a multipart/byteranges body, as their Content-Range and their bytes. */
function partsOf(answer: Answer): readonly { readonly range: string; readonly bytes: Buffer }[] {
  const boundary = /^multipart\/byteranges; *boundary="?([^";]+)"?/.exec(answer.field('content-type') ?? '')?.[1] ?? '';
  answer.holds('a multipart/byteranges body', boundary !== '');
  return answer.body
    .toString('latin1')
    .split(`--${boundary}`)
    .slice(1, -1)
    .map((each) => {
      const [head = '', ...rest] = each.replace(/^\r\n/, '').split('\r\n\r\n');
      return {
        range: /^content-range: *(.*)$/im.exec(head)?.[1] ?? '',
        bytes: Buffer.from(rest.join('\r\n\r\n').replace(/\r\n$/, ''), 'latin1'),
      };
    });
}

export const rangeChecks: readonly Check[] = [
  both('condition/none-match', 'If-None-Match answers 304 without a body', async (world, at) => {
    const media = await world.shared('text');
    const etag = etagOf(media);
    for (const value of [etag, `"x", ${etag}`, `W/${etag}`, '*']) {
      const answer = (await get(at, media, { 'if-none-match': value })).is(304).has('etag', etag).has('cache-control');
      answer.equals('the size of the body', answer.body.length, 0);
    }
    whole(await get(at, media, { 'if-none-match': '"x"' }), media);
    (await at.head(media.path, { as: 'user', fields: { 'if-none-match': etag } })).is(304);
  }),
  both('condition/match', 'If-Match compares strongly and refuses with 412', async (world, at) => {
    const media = await world.shared('text');
    for (const value of [etagOf(media), `"x", ${etagOf(media)}`, '*'])
      whole(await get(at, media, { 'if-match': value }), media);
    for (const value of ['"x"', `W/${etagOf(media)}`]) {
      (await get(at, media, { 'if-match': value })).refuses(412, 'precondition_failed');
    }
  }),
  both(
    'condition/modified',
    'If-Modified-Since answers 304, and counts only without If-None-Match',
    async (world, at) => {
      const media = await world.shared('text');
      const modified = await modifiedAt(at, media);
      for (const value of [modified, LATER]) (await get(at, media, { 'if-modified-since': value })).is(304);
      for (const value of [EARLIER, 'yesterday']) whole(await get(at, media, { 'if-modified-since': value }), media);
      whole(await get(at, media, { 'if-modified-since': modified, 'if-none-match': '"x"' }), media);
    },
  ),
  both(
    'condition/unmodified',
    'If-Unmodified-Since refuses with 412, and counts only without If-Match',
    async (world, at) => {
      const media = await world.shared('text');
      const modified = await modifiedAt(at, media);
      whole(await get(at, media, { 'if-unmodified-since': modified }), media);
      whole(await get(at, media, { 'if-unmodified-since': EARLIER, 'if-match': etagOf(media) }), media);
      (await get(at, media, { 'if-unmodified-since': EARLIER })).refuses(412, 'precondition_failed');
    },
  ),
  both('condition/order', 'If-Match counts before If-None-Match', async (world, at) => {
    const media = await world.shared('text');
    const fields = { 'if-match': '"x"', 'if-none-match': etagOf(media) };
    (await get(at, media, fields)).refuses(412, 'precondition_failed');
  }),
  both('range/one', 'one range is answered 206 with those bytes', async (world, at) => {
    const media = await world.shared('text');
    const size = media.bytes.length;
    for (const [value, from, to] of [
      ['bytes=0-1', 0, 2],
      ['bytes=0-0', 0, 1],
      ['bytes=100-199', 100, 200],
      ['bytes=990-', 990, size],
      ['bytes=990-5000', 990, size],
      ['bytes=-10', size - 10, size],
      ['bytes=-5000', 0, size],
    ] as const) {
      part(await get(at, media, { range: value }), media, from, to);
    }
  }),
  both('range/outside', 'a range outside is answered 416 with the size', async (world, at) => {
    const media = await world.shared('text');
    for (const range of ['bytes=1000-', 'bytes=5000-6000', 'bytes=-0']) {
      const answer = (await get(at, media, { range })).refuses(416, 'range_not_satisfiable');
      answer.has('content-range', `bytes */${media.bytes.length}`);
    }
  }),
  both('range/ignored', 'what is no range of bytes is ignored', async (world, at) => {
    const media = await world.shared('text');
    for (const range of ['bytes=5-2', 'bytes=a-b', 'lines=0-1', 'bytes', 'bytes='])
      whole(await get(at, media, { range }), media);
  }),
  both('range/head', 'Range counts for GET alone', async (world, at) => {
    const media = await world.shared('text');
    const fields = { range: 'bytes=0-1' };
    (await at.head(media.path, { as: 'user', fields })).is(200).has('content-length', String(media.bytes.length));
  }),
  both('range/several', 'several ranges come as multipart/byteranges', async (world, at) => {
    const media = await world.shared('text');
    const answer = (await get(at, media, { range: 'bytes=0-9, 100-149,-5' })).is(206).lacks('content-range');
    const parts = partsOf(answer);
    const size = media.bytes.length;
    answer.equals(
      'the ranges',
      parts.map(({ range }) => range),
      [`bytes 0-9/${size}`, `bytes 100-149/${size}`, `bytes ${size - 5}-${size - 1}/${size}`],
    );
    const expected = [media.bytes.subarray(0, 10), media.bytes.subarray(100, 150), media.bytes.subarray(-5)];
    answer.holds(
      'the bytes of those ranges',
      parts.every(({ bytes }, at) => bytes.equals(expected[at] ?? Buffer.alloc(0))),
    );
    answer.has('content-length', String(answer.body.length));
  }),
  both('range/too-many', 'ranges that overlap, or too many, are answered with the whole', async (world, at) => {
    const media = await world.shared('text');
    whole(await get(at, media, { range: 'bytes=0-100,50-150' }), media);
    const many = Array.from({ length: 200 }, (_, n) => `${n * 4}-${n * 4}`);
    whole(await get(at, media, { range: `bytes=${many.join(',')}` }), media);
  }),
  both('range/if-range', 'If-Range gives a part only of the same bytes', async (world, at) => {
    const media = await world.shared('text');
    const range = 'bytes=0-9';
    part(await get(at, media, { range, 'if-range': etagOf(media) }), media, 0, 10);
    for (const value of ['"x"', `W/${etagOf(media)}`, EARLIER]) {
      whole(await get(at, media, { range, 'if-range': value }), media);
    }
  }),
  both('range/condition', 'a condition counts before a range', async (world, at) => {
    const media = await world.shared('text');
    (await get(at, media, { range: 'bytes=0-1', 'if-none-match': etagOf(media) })).is(304);
    (await get(at, media, { range: 'bytes=0-1', 'if-match': '"x"' })).refuses(412, 'precondition_failed');
  }),
];
