/** Pictures made by sharp, rendered in this process: which thumbnails there are, what they show, and what is refused. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import t, { type Test } from 'tap';
import { thumbHashToAverageRGBA } from 'thumbhash';
import { NO_RENDERED_FACTS, type RenderedThumb, type RenderResult } from '../../../../origin/thumbs/render/protocol.js';
import { render } from '../../../../origin/thumbs/render/render.js';
import { thumbsConfig } from '../../../kit/origin/thumb-fixture.js';

interface Picture {
  readonly width: number;
  readonly height: number;
  readonly alpha?: number;
}

/** Red grows from left to right, green from top to bottom. */
function gradient({ width, height, alpha }: Picture): Sharp {
  const channels = alpha === undefined ? 3 : 4;
  const data = Buffer.alloc(width * height * channels);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const colour = [(x + 0.5) / width, (y + 0.5) / height, 0.5].map((part) => Math.round(part * 255));
      data.set(alpha === undefined ? colour : [...colour, alpha], (y * width + x) * channels);
    }
  }
  return sharp(data, { raw: { width, height, channels } });
}

type Given = Readonly<Record<string, unknown>> & { readonly upright?: boolean; readonly animate?: boolean };

async function rendered(t: Test, bytes: Buffer, { upright = false, animate = true, ...config }: Given = {}) {
  const folder = t.testdir({ out: {} });
  const input = join(folder, 'in');
  writeFileSync(input, bytes);
  const early: (readonly RenderedThumb[])[] = [];
  const request = { input, folder: join(folder, 'out'), upright, animate, settings: thumbsConfig(config) };
  const result = await render(request, (thumbs) => void (thumbs.length > 0 && early.push(thumbs)));
  const thumbs = result.kind === 'rendered' ? result.thumbs : [];
  return { result, early, thumbs, read: (file: string) => readFileSync(join(folder, 'out', file)) };
}

const short = (thumbs: readonly RenderedThumb[]): readonly string[] =>
  thumbs.map((one) => `${one.file} ${one.width}x${one.height}${one.animated ? ' animated' : ''}`);

const factsOf = (result: RenderResult) => (result.kind === 'failed' ? undefined : { ...result.facts, thumbhash: null });

/** Checks that the pixels of a thumbnail of a gradient show their parts of `region`, given in shares of the picture. */
async function shows(
  t: Test,
  file: Buffer,
  region = { left: 0, top: 0, width: 1, height: 1 },
  what = 'it shows its region',
): Promise<void> {
  const { data, info } = await sharp(file).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  let off = 0;
  for (let at = 0; at < data.length; at += 3) {
    const pixel = at / 3;
    const x = region.left + (((pixel % info.width) + 0.5) / info.width) * region.width;
    const y = region.top + ((Math.floor(pixel / info.width) + 0.5) / info.height) * region.height;
    off += Math.abs((data[at] ?? 0) - x * 255) + Math.abs((data[at + 1] ?? 0) - y * 255);
  }
  const mean = off / (info.width * info.height * 2);
  t.ok(mean < 8, `${what}: ${mean}`);
}

const VARIANTS = {
  variants: [
    { name: 'small', width: 16 },
    { name: 'middle', width: 40 },
    { name: 'square', width: 32, fit: 'cover' },
  ],
  default_variant: 'middle',
};

void t.test('a still has each thumbnail in each format, the largest first, and shows the same in all', async (t) => {
  const bytes = await gradient({ width: 120, height: 60 }).png().toBuffer();
  const { result, early, thumbs, read } = await rendered(t, bytes, VARIANTS);
  t.same(short(thumbs), [
    'square.webp 32x32',
    'square.jpeg 32x32',
    'middle.webp 40x20',
    'middle.jpeg 40x20',
    'small.webp 16x8',
    'small.jpeg 16x8',
  ]);
  t.same(factsOf(result), { ...NO_RENDERED_FACTS, width: 120, height: 60, orientation: 1, frames: 1 });
  t.same(early.map(short), [['middle.webp 40x20', 'middle.jpeg 40x20']], 'the default variant is there before');
  for (const one of thumbs) {
    const { width, height, format, pages } = await sharp(read(one.file)).metadata();
    t.same([width, height, format, pages ?? 1], [one.width, one.height, one.format, 1]);
    const square = one.variant === 'square' ? { left: 0.25, top: 0, width: 0.5, height: 1 } : undefined;
    await shows(t, read(one.file), square, one.file);
  }
  const hash = result.kind === 'rendered' ? (result.facts.thumbhash ?? '') : '';
  const { r, g, b, a } = thumbHashToAverageRGBA(Buffer.from(hash, 'base64'));
  for (const part of [r, g, b]) t.ok(Math.abs(part - 0.5) < 0.06, `the average is grey: ${part}`);
  t.equal(a, 1);
});

void t.test('a picture that is cropped from high up, or is not larger than its thumbnail', async (t) => {
  const tall = await gradient({ width: 60, height: 120 }).png().toBuffer();
  const crop = await rendered(t, tall, {
    variants: [{ name: 'c', width: 40, height: 20, fit: 'cover' }],
    default_variant: 'c',
  });
  t.same(short(crop.thumbs), ['c.webp 40x20', 'c.jpeg 40x20']);
  await shows(t, crop.read('c.webp'), { left: 0, top: 0.375, width: 1, height: 0.25 });
  const small = await rendered(t, await gradient({ width: 10, height: 6 }).png().toBuffer(), VARIANTS);
  t.same(short(small.thumbs).slice(0, 2), ['small.webp 10x6', 'small.jpeg 10x6'], 'nothing is enlarged');
  await shows(t, small.read('small.webp'));
});

void t.test('transparency decides the formats, and AVIF comes on top', async (t) => {
  const formats = async (alpha: number | undefined, avif = false) => {
    const picture = gradient({ width: 40, height: 20, ...(alpha !== undefined && { alpha }) });
    const one = { variants: [{ name: 'a', width: 20 }], default_variant: 'a', formats: { avif: { enabled: avif } } };
    return await rendered(t, await picture.png().toBuffer(), one);
  };
  t.same(short((await formats(undefined)).thumbs), ['a.webp 20x10', 'a.jpeg 20x10']);
  t.same(short((await formats(255)).thumbs), ['a.webp 20x10', 'a.jpeg 20x10'], 'an alpha without transparency is none');
  const clear = await formats(100);
  t.same(short(clear.thumbs), ['a.webp 20x10', 'a.png 20x10']);
  for (const file of ['a.webp', 'a.png']) {
    const { data } = await sharp(clear.read(file)).raw().toBuffer({ resolveWithObject: true });
    t.ok(Math.abs((data[3] ?? 0) - 100) < 3, `${file} is as transparent`);
  }
  const avif = await formats(254, true);
  t.same(short(avif.thumbs), ['a.webp 20x10', 'a.png 20x10', 'a.avif 20x10']);
  t.same(avif.early.map(short), [['a.webp 20x10', 'a.png 20x10']], 'which takes longer');
  t.equal((await sharp(avif.read('a.avif')).metadata()).format, 'heif');
});

void t.test('a picture is turned as it says, unless whoever made it has turned it', async (t) => {
  const bytes = await gradient({ width: 120, height: 60 })
    .jpeg({ quality: 100 })
    .withMetadata({ orientation: 3 })
    .toBuffer();
  const one = { variants: [{ name: 'a', width: 30 }], default_variant: 'a' };
  const turned = await rendered(t, bytes, one);
  t.match(factsOf(turned.result), { width: 120, height: 60, orientation: 3 });
  await shows(t, turned.read('a.webp'), { left: 1, top: 1, width: -1, height: -1 });
  const kept = await rendered(t, bytes, { ...one, upright: true });
  t.match(factsOf(kept.result), { width: 120, height: 60, orientation: 1 });
  await shows(t, kept.read('a.webp'));

  const tall = await gradient({ width: 120, height: 60 })
    .jpeg({ quality: 100 })
    .withMetadata({ orientation: 6 })
    .toBuffer();
  const upright = await rendered(t, tall, one);
  t.match(factsOf(upright.result), { width: 60, height: 120, orientation: 6 });
  t.same(short(upright.thumbs), ['a.webp 30x60', 'a.jpeg 30x60']);
  t.match(factsOf((await rendered(t, tall, { ...one, upright: true })).result), { width: 120, height: 60 });
});

void t.test('a JPEG without its end is rendered, and one that is cut off is not', async (t) => {
  const whole = await gradient({ width: 40, height: 20 }).jpeg().toBuffer();
  t.equal((await rendered(t, whole.subarray(0, -2))).result.kind, 'rendered');
  const cut = await gradient({ width: 300, height: 200 }).png().toBuffer();
  const broken = await rendered(t, cut.subarray(0, Math.floor(cut.length / 2)));
  t.match(broken.result, { kind: 'refused', reason: 'broken_image' });
  t.same(broken.early, []);
});

void t.test('what is refused, and that the limits hold to the pixel, the byte and the frame', async (t) => {
  const bytes = await gradient({ width: 40, height: 25 }).png().toBuffer();
  const jpeg = await gradient({ width: 40, height: 25 }).jpeg({ progressive: true }).toBuffer();
  const facts = { ...NO_RENDERED_FACTS, width: 40, height: 25, orientation: 1, frames: 1 };
  const outcome = async (of: Buffer, config: Given = {}) => (await rendered(t, of, config)).result;
  t.same(await outcome(bytes, { pixels_max: 1_000 }), await outcome(bytes));
  const wide = await gradient({ width: 1_001, height: 1 }).png().toBuffer();
  t.same(await outcome(wide, { pixels_max: 1_000 }), {
    kind: 'refused',
    reason: 'too_many_pixels',
    facts: { ...facts, width: 1_001, height: 1 },
    detail: '1001 × 1 pixels are beyond the limit',
  });
  const filled = Buffer.concat([bytes, Buffer.alloc(3_000 - bytes.length)]);
  t.equal((await outcome(filled, { source_max: '3000B' })).kind, 'rendered');
  t.same(await outcome(Buffer.concat([filled, Buffer.alloc(1)]), { source_max: '3000B' }), {
    kind: 'refused',
    reason: 'too_expensive',
    facts: NO_RENDERED_FACTS,
    detail: '3001 bytes are beyond the limit',
  });
  t.same(await outcome(Buffer.from('a text')), {
    kind: 'refused',
    reason: 'unsupported_type',
    facts: NO_RENDERED_FACTS,
    detail: 'the bytes are of a type that is not rendered',
  });
  t.same(await outcome(bytes.subarray(0, 12)), {
    kind: 'refused',
    reason: 'broken_image',
    facts: NO_RENDERED_FACTS,
    detail: 'the header has no size',
  });
  t.same(await outcome(jpeg, { scans_max: 1 }), {
    kind: 'refused',
    reason: 'too_expensive',
    facts,
    detail: 'its scans are beyond the limit',
  });
  t.equal((await outcome(jpeg, { scans_max: 100 })).kind, 'rendered');
  t.equal((await outcome(bytes, { scans_max: 1 })).kind, 'rendered', 'a PNG has none');
  const moving = await animation(3);
  t.match(await outcome(moving, { frames_max: 2 }), {
    kind: 'refused',
    reason: 'too_expensive',
    facts: { width: 24, height: 16, frames: 3 },
    detail: '3 frames are beyond the limit',
  });
  t.equal((await outcome(moving, { frames_max: 3 })).kind, 'rendered');
  const missing = { input: '/no/such/file', folder: '/', upright: false, animate: true, settings: thumbsConfig() };
  t.match(await render(missing), { kind: 'failed', code: 'ENOENT', detail: /no such file/ });
});

/** Frames in different colours, each for another time. */
async function animation(
  frames: number,
  { loop = 2, format = 'gif' }: { loop?: number; format?: 'gif' | 'webp' } = {},
) {
  const stills = Array.from({ length: frames }, (_, at) =>
    sharp({ create: { width: 24, height: 16, channels: 3, background: { r: 80 * at, g: 200 - 60 * at, b: 40 } } })
      .png()
      .toBuffer(),
  );
  const joined = sharp(await Promise.all(stills), { join: { animated: true } });
  const delay = Array.from({ length: frames }, (_, at) => 100 * (at + 1));
  return format === 'gif'
    ? await joined.gif({ delay, loop }).toBuffer()
    : await joined.webp({ delay, loop, lossless: true }).toBuffer();
}

void t.test('an animation stays one within its limits, with its times and its plays', async (t) => {
  const one = {
    variants: [
      { name: 'a', width: 12 },
      { name: 'b', width: 8, fit: 'cover' },
    ],
    default_variant: 'a',
    formats: { avif: { enabled: true } },
  };
  const bytes = await animation(3);
  const moving = await rendered(t, bytes, one);
  t.same(short(moving.thumbs), ['a.webp 12x8 animated', 'a.jpeg 12x8', 'b.webp 8x8 animated', 'b.jpeg 8x8']);
  t.same(moving.early, [], 'a still in its place would stay where it is shown');
  t.match(factsOf(moving.result), { width: 24, height: 16, frames: 3 });
  for (const [file, width, height] of [
    ['a.webp', 12, 8],
    ['b.webp', 8, 8],
  ] as const) {
    const read = await sharp(moving.read(file), { animated: true }).metadata();
    t.match(read, { width, pageHeight: height, pages: 3, delay: [100, 200, 300], loop: 2 }, file);
  }
  const limits = (given: Readonly<Record<string, unknown>>, more: Given = {}) =>
    rendered(t, bytes, { ...one, ...more, animation: given });
  const still = ['a.webp 12x8', 'a.jpeg 12x8', 'a.avif 12x8', 'b.webp 8x8', 'b.jpeg 8x8', 'b.avif 8x8'];
  const pixels = 24 * 16 * 3;
  for (const [what, found, expected] of [
    ['switched off', await limits({ enabled: false }), still],
    ['too many frames', await limits({ frames_max: 2 }), still],
    ['as many frames', await limits({ frames_max: 3 }), short(moving.thumbs)],
    ['too many pixels', await limits({ pixels_max: pixels - 1 }), still],
    ['as many pixels', await limits({ pixels_max: pixels }), short(moving.thumbs)],
    ['too many for a picture', await limits({}, { pixels_max: pixels - 1 }), still],
    ['not wanted', await limits({}, { animate: false }), still],
  ] as const) {
    t.same(short(found.thumbs), expected, what);
    t.equal(found.early.length, expected === still ? 1 : 0, what);
  }
  const same = await sharp(
    await Promise.all(
      [0, 1].map(() =>
        sharp({ create: { width: 24, height: 16, channels: 3, background: 'red' } })
          .png()
          .toBuffer(),
      ),
    ),
    { join: { animated: true } },
  )
    .gif({ keepDuplicateFrames: true })
    .toBuffer();
  t.notOk(
    (await rendered(t, same, one)).thumbs.some(({ animated }) => animated),
    'frames that are alike do not move',
  );
});

void t.test('an animation that would be too large is a still', async (t) => {
  const noise = Array.from({ length: 4 }, (_, at) => {
    const data = Buffer.from(Array.from({ length: 64 * 64 * 3 }, (__, index) => (index * index * (at + 7)) % 251));
    return sharp(data, { raw: { width: 64, height: 64, channels: 3 } })
      .png()
      .toBuffer();
  });
  const bytes = await sharp(await Promise.all(noise), { join: { animated: true } })
    .webp({ lossless: true })
    .toBuffer();
  const one = { variants: [{ name: 'a', width: 64 }], default_variant: 'a' };
  const large = await rendered(t, bytes, one);
  t.same(short(large.thumbs), ['a.webp 64x64 animated', 'a.jpeg 64x64']);
  const size = large.read('a.webp').length;
  const output = (outputMax: number) => rendered(t, bytes, { ...one, animation: { output_max: `${outputMax}B` } });
  t.same(short((await output(size)).thumbs), short(large.thumbs), 'exactly as large as allowed');
  t.same(short((await output(size - 1)).thumbs), ['a.webp 64x64', 'a.jpeg 64x64']);
});
