/** Thumbnails. */
import type { Answer } from '../answer.js';
import { NotTried } from '../answer.js';
import { type Check, checksOf } from '../check.js';
import { animatedGif, film, type Pixels, pixelsOf, png, text, turnedJpeg } from '../samples.js';
import type { Media, Place, World } from '../world.js';

const { both, edge } = checksOf('thumbnails');

/** A queue may be long, and pictures are made in turn. */
const MADE_WITHIN_MS = 60_000;

interface Offered {
  readonly variants: readonly {
    readonly name: string;
    readonly fit?: string;
    readonly width: number;
    readonly height: number;
  }[];
  readonly formats: readonly string[];
  readonly default: string;
  readonly video: boolean;
}

function offered({ capabilities }: World): Offered {
  const { thumbnails } = capabilities as { readonly thumbnails?: Offered };
  if (thumbnails === undefined || thumbnails.variants.length === 0)
    throw new NotTried('this service makes no thumbnails');
  return thumbnails;
}

/** The thumbnail once it is made. 202 and nothing else comes before. */
async function made(world: World, at: Place, media: Media, query = '', accept = 'image/webp'): Promise<Answer> {
  offered(world);
  const ask = async (): Promise<Answer> => {
    const answer = await at.get(`${media.path}/thumb${query}`, {
      as: 'user',
      fields: { accept: `${accept}, */*;q=0.1` },
    });
    if (answer.status === 202) pending(answer);
    return answer;
  };
  const answer = await world.until('200', MADE_WITHIN_MS, ask, ({ status }) => status !== 202);
  return answer.is(200).lacks('media-placeholder');
}

function pending(answer: Answer): void {
  answer.has('retry-after', /^\d+$/).has('content-type', /^application\/json\b/);
  answer.equals('"code"', answer.json['code'], 'thumbnail_pending');
}

/** The variant that the contract names for a size: the smallest that covers it, else the largest. */
function variantFor({ variants }: Offered, source: Pick<Pixels, 'width' | 'height'>, size: { w?: number; h?: number }) {
  const sized = variants.map((variant) => {
    const scale = Math.min(1, variant.width / source.width, variant.height / source.height);
    return { width: Math.round(source.width * scale), height: Math.round(source.height * scale) };
  });
  const ordered = sized.toSorted((a, b) => a.width * a.height - b.width * b.height);
  const covering = ordered.find(({ width, height }) => width >= (size.w ?? 0) && height >= (size.h ?? 0));
  return covering ?? ordered.at(-1);
}

export const thumbChecks: readonly Check[] = [
  both('thumb/made', 'a thumbnail is made, and answered as media are', async (world, at) => {
    const answer = await made(world, at, await world.shared('picture'));
    answer
      .has('content-type', /^image\//)
      .has('etag')
      .has('vary', /\bAccept\b/i)
      .has('cache-control', /^private, max-age=\d+$/);
    answer.has('x-content-type-options', 'nosniff').has('content-length', String(answer.body.length));
    const etag = answer.field('etag') ?? '';
    const { path } = await world.shared('picture');
    const fields = { accept: 'image/webp, */*;q=0.1' };
    (await at.get(`${path}/thumb`, { as: 'user', fields: { ...fields, 'if-none-match': etag } })).is(304);
    const part = (await at.get(`${path}/thumb`, { as: 'user', fields: { ...fields, range: 'bytes=0-1' } })).is(206);
    part.has('content-range', `bytes 0-1/${answer.body.length}`);
    (await at.head(`${path}/thumb`, { as: 'user', fields })).is(200).has('etag', etag);
    (await at.get(`${path}/thumb`)).refuses(401, 'unauthorized');
  }),
  both('thumb/format', 'the format follows Accept', async (world, at) => {
    const media = await world.shared('picture');
    const { formats } = offered(world);
    for (const format of ['webp', 'avif', 'jpeg'].filter((each) => formats.includes(each))) {
      const answer = await made(world, at, media, '', `image/${format}`);
      answer
        .has('content-type', `image/${format}`)
        .equals('the format of the bytes', pixelsOf(answer.body).format, format);
    }
  }),
  both('thumb/transparent', 'a transparent picture stays so for a client that takes PNG', async (world, at) => {
    const media = await world.upload(png({ width: 200, height: 100, transparent: true }), { type: 'image/png' });
    const answer = await made(world, at, media, '', 'image/png');
    answer.has('content-type', 'image/png').equals('the format of the bytes', pixelsOf(answer.body).format, 'png');
  }),
  both(
    'thumb/variant',
    'the smallest variant that covers the size is chosen, and never a larger one than the source',
    async (world, at) => {
      const media = await world.shared('picture');
      const source = { width: 400, height: 300 };
      const thumbs = offered(world);
      if (thumbs.variants.some(({ fit = 'inside' }) => fit !== 'inside'))
        throw new NotTried('this service has variants that are cut');
      for (const size of [{ w: 1 }, { w: 161 }, { h: 200 }, { w: 10, h: 239 }, { w: 5_000 }]) {
        const query = Object.entries(size)
          .map(([name, value]) => `${name}=${value}`)
          .join('&');
        const answer = await made(world, at, media, `?${query}`);
        const { width, height } = pixelsOf(answer.body);
        answer.equals(`the size for ${query}`, { width, height }, variantFor(thumbs, source, size));
      }
    },
  ),
  both('thumb/default', 'without a size the default variant is chosen', async (world, at) => {
    const media = await world.shared('picture');
    const { variants, default: name } = offered(world);
    const variant = variants.find((each) => each.name === name);
    const [plain, asked] = [
      await made(world, at, media),
      await made(world, at, media, `?w=${Math.min(400, variant?.width ?? 0)}`),
    ];
    plain.equals('the ETag of the default variant', plain.field('etag'), asked.field('etag'));
  }),
  edge('thumb/unknown-parameters', 'unknown parameters are ignored, and make no other copy', async (world, at) => {
    const media = await world.shared('picture');
    const first = await made(world, at, media, '?w=100');
    const again = await made(world, at, media, '?w=100&size=large&x=1');
    again.equals('the ETag', again.field('etag'), first.field('etag')).has('cache-status', /; hit\b/);
  }),
  both('thumb/placeholder', 'a picture element never gets JSON', async (world, at) => {
    for (const fields of [{ accept: '*/*', 'sec-fetch-dest': 'image' }, { accept: 'image/webp,image/png,image/*' }]) {
      const media = await world.upload(png({ width: 600, height: 500 }), { type: 'image/png' });
      const answer = await at.get(`${media.path}/thumb`, { as: 'user', fields });
      answer.is(200).has('content-type', /^image\//);
      if (answer.field('media-placeholder') !== undefined) answer.has('cache-control', /\bno-store\b/);
    }
  }),
  both('thumb/none', 'media that have no thumbnail say so, with a reason', async (world, at) => {
    const answer = (await at.get(`${(await world.shared('text')).path}/thumb`, { as: 'user' })).refuses(
      404,
      'thumbnail_unavailable',
    );
    answer.text('reason');
  }),
  both(
    'thumb/broken',
    'a broken picture, or one of too many pixels, has no thumbnail, with a reason',
    async (world, at) => {
      const good = png({ width: 64, height: 64 });
      const broken = Buffer.concat([good.subarray(0, 60), text(200)]);
      for (const bytes of [broken, png({ width: 16, height: 16, claims: { width: 60_000, height: 60_000 } })]) {
        const { path } = await world.upload(bytes, { type: 'image/png' });
        const ask = (): Promise<Answer> => at.get(`${path}/thumb`, { as: 'user' });
        const answer = await world.until('404', MADE_WITHIN_MS, ask, ({ status }) => status !== 202);
        answer.refuses(404, 'thumbnail_unavailable').text('reason');
      }
    },
  ),
  both('thumb/orientation', 'orientation is applied, and metadata are left out', async (world, at) => {
    const media = await world.upload(turnedJpeg(320, 160), { type: 'image/jpeg' });
    for (const accept of ['image/webp', 'image/jpeg']) {
      const answer = await made(world, at, media, '?w=10', accept);
      const { width, height } = pixelsOf(answer.body);
      answer.holds(`a picture that stands, not ${width} x ${height}`, height === 2 * width);
      answer.holds('no EXIF', !answer.body.includes('Exif') && !answer.body.includes('EXIF'));
    }
    (await at.get(media.path, { as: 'user' })).is(200).has('media-width', '160').has('media-height', '320');
  }),
  both('thumb/animated', 'an animated picture has a thumbnail', async (world, at) => {
    const media = await world.upload(animatedGif(), { type: 'image/gif' });
    (await made(world, at, media)).has('content-type', 'image/webp');
  }),
  both('thumb/film', 'a film has a thumbnail', async (world, at) => {
    if (!offered(world).video) throw new NotTried('this service has no program for films');
    const bytes = film();
    if (bytes === undefined) throw new NotTried('ffmpeg, which makes a film to upload, is not on this machine');
    (await made(world, at, await world.upload(bytes, { type: 'video/mp4' }))).has('content-type', 'image/webp');
  }),
  both('thumb/thumbhash', 'the thumbhash is known at last, in the info and as a field', async (world, at) => {
    const media = await world.shared('picture');
    await made(world, at, media);
    const ask = (): Promise<Answer> => at.get(`${media.path}/info`, { as: 'user' });
    await world.until(
      'a thumbhash',
      MADE_WITHIN_MS,
      ask,
      (answer) => typeof answer.is(200).json['thumbhash'] === 'string',
    );
    const head = (): Promise<Answer> => at.head(media.path, { as: 'user' });
    await world.until(
      'Media-Thumbhash',
      MADE_WITHIN_MS,
      head,
      (answer) => answer.field('media-thumbhash') !== undefined,
    );
  }),
];
