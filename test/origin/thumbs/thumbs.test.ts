import assert from 'node:assert/strict';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import * as fc from 'fast-check';
import sharp, { type Sharp } from 'sharp';
import t, { type Test } from 'tap';
import { thumbKey } from '../../../origin/blobs/blob-store.js';
import { emptyTrash, freeOrphans } from '../../../origin/blobs/sweep.js';
import { createHealth } from '../../../origin/health.js';
import { type BlobRecord, NO_FACTS, type ThumbMade } from '../../../origin/meta/media.js';
import { thumbsFaults } from '../../../origin/thumbs/config.js';
import {
  type BackfillProgress,
  backfillThumbs,
  type RetryProgress,
  reportQueue,
  retryThumbs,
} from '../../../origin/thumbs/maintenance.js';
import { pickThumb, planThumbs, thumbOptionsOf } from '../../../origin/thumbs/plan.js';
import { type ApngFrame, composeApng, parseApng } from '../../../origin/thumbs/render/apng.js';
import { readProbe } from '../../../origin/thumbs/render/probe.js';
import { parseFromChild, parseToChild, type RenderResult } from '../../../origin/thumbs/render/protocol.js';
import { prepareRenderer, render } from '../../../origin/thumbs/render/render.js';
import { routeOf } from '../../../origin/thumbs/types.js';
import { type Attempt, backoffMs, verdictOf } from '../../../origin/thumbs/verdict.js';
import { systemClock } from '../../../src/clock.js';
import { createLog } from '../../../src/log.js';
import { createMetrics } from '../../../src/metrics.js';
import { createSlots } from '../../../src/slots.js';
import { apngOf } from '../../kit/origin/apng.js';
import { readAll } from '../../kit/origin/blob-contract.js';
import { PLACE } from '../../kit/origin/keys.js';
import { openLightS3 } from '../../kit/origin/light-s3.js';
import { startOrigin } from '../../kit/origin/origin.js';
import {
  jobFolders,
  MISBEHAVING,
  openThumbFixture,
  type ThumbFixture,
  thumbsConfig,
} from '../../kit/origin/thumb-fixture.js';
import { until, untilAsync } from '../../kit/until.js';

const config = thumbsConfig();
const variant = (name: string, width: number, height = 0, fit: 'inside' | 'cover' = 'inside') => ({
  name,
  width,
  height,
  fit,
});

void t.test('a plan', async (t) => {
  const cases = [
    { source: [1800, 1200], made: '1280:1280x853 640:640x427 320:320x213 160:160x107' },
    { source: [1200, 1800], made: '1280:1200x1800 640:640x960 320:320x480 160:160x240' },
    { source: [200, 133], made: '320:200x133 160:160x106' },
    { source: [160, 90], made: '160:160x90' },
    { source: [32, 32], made: '160:32x32' },
    { source: [1, 1], made: '160:1x1' },
    { source: [100, 10_000], made: '1280:51x5120 640:26x2560 320:13x1280 160:6x640' },
    { source: [50_000, 10], made: '1280:1280x1 640:640x1 320:320x1 160:160x1' },
  ] as const;
  for (const { source, made } of cases) {
    const [width, height] = source;
    const { thumbs } = planThumbs({ width, height }, config.variants);
    t.equal(thumbs.map((thumb) => `${thumb.variant}:${thumb.width}x${thumb.height}`).join(' '), made, source.join('x'));
  }

  await t.test('crops a cover from the middle to its shape, smaller for a small source', async (t) => {
    const square = [variant('square', 100, 100, 'cover')];
    t.match(planThumbs({ width: 400, height: 300 }, square).thumbs, [
      { width: 100, height: 100, region: { left: 50, top: 0, width: 300, height: 300 } },
    ]);
    t.match(planThumbs({ width: 60, height: 300 }, square).thumbs, [
      { width: 60, height: 60, region: { left: 0, top: 120, width: 60, height: 60 } },
    ]);
  });

  await t.test('makes thumbnails that would look alike once, for all their variants', async (t) => {
    const variants = [variant('a', 100), variant('b', 500), variant('c', 900), variant('s', 300, 300, 'cover')];
    const { thumbs, servedBy } = planThumbs({ width: 300, height: 300 }, variants);
    t.same(thumbs.map((thumb) => thumb.variant).sort(), ['a', 's'], 'the cover of a square is the square');
    t.same([...servedBy].map(([name, by]) => `${name} by ${by}`).sort(), ['a by a', 'b by s', 'c by s', 's by s']);
  });

  await t.test('never enlarges, has no two thumbnails that look alike, and serves every variant', async () => {
    const side = fc.integer({ min: 1, max: 20_000 });
    const someVariants = fc.array(
      fc.record({
        width: fc.integer({ min: 8, max: 4_096 }),
        height: fc.oneof(fc.constant(0), fc.integer({ min: 8, max: 4_096 })),
        fit: fc.constantFrom('inside' as const, 'cover' as const),
      }),
      { minLength: 1, maxLength: 6 },
    );
    fc.assert(
      fc.property(side, side, someVariants, (width, height, shapes) => {
        const variants = shapes.map((shape, index) => ({ name: `v${index}`, ...shape }));
        const { thumbs, servedBy } = planThumbs({ width, height }, variants);
        const names = new Set(thumbs.map((thumb) => thumb.variant));
        const appearances = new Set(thumbs.map(({ region, width: w, height: h }) => JSON.stringify([region, w, h])));
        for (const { region, ...thumb } of thumbs) {
          assert.ok(
            thumb.width >= 1 && thumb.width <= region.width && thumb.height >= 1 && thumb.height <= region.height,
          );
          assert.ok(region.left >= 0 && region.left + region.width <= width);
          assert.ok(region.top >= 0 && region.top + region.height <= height);
        }
        assert.equal(appearances.size, thumbs.length);
        assert.ok(variants.every(({ name }) => names.has(servedBy.get(name) ?? '')));
      }),
      { numRuns: 60 },
    );
  });
});

void t.test('a choice is served by a stored thumbnail', async (t) => {
  const of = (name: string, format: ThumbMade['format'], width: number): ThumbMade => ({
    variant: name,
    format,
    width,
    height: width,
    sha256: `${name}.${format}` as ThumbMade['sha256'],
    place: PLACE,
    sizeBytes: 1,
    animated: false,
  });
  const made = [
    of('320', 'webp', 200),
    of('320', 'jpeg', 200),
    of('160', 'webp', 160),
    of('160', 'png', 160),
    of('160', 'avif', 160),
  ];
  const picture = { width: 200, height: 200 };
  const pick = (name: string, format: 'avif' | 'webp' | 'jpeg', from = made): string | undefined =>
    pickThumb(from, picture, config.variants, { variant: name, format })?.sha256;
  t.equal(pick('320', 'webp'), '320.webp');
  t.equal(pick('1280', 'webp'), '320.webp', 'a variant larger than the source is served by the largest thumbnail');
  t.equal(pick('320', 'avif'), '320.webp', 'WebP serves AVIF that was not made');
  t.equal(pick('160', 'avif'), '160.avif');
  t.equal(pick('160', 'jpeg'), '160.png', 'a picture with transparency has no JPEG');
  t.equal(pick('160', 'jpeg', []), undefined);
  const before = [of('old', 'jpeg', 150), of('older', 'jpeg', 20)];
  t.equal(pick('160', 'webp', before), 'old.jpeg', 'the nearest in size serves until the backfill reaches the blob');
  t.same(thumbOptionsOf(config).variants.at(1), { name: '320', width: 320, height: 320, fit: 'inside' });
});

void t.test('an unknown default variant and two variants with one name are faults', async (t) => {
  t.same(thumbsFaults(config), []);
  const faults = thumbsFaults({ ...config, defaultVariant: 'x', variants: [variant('a', 100), variant('a', 200)] });
  t.same(
    faults.map(({ path }) => path),
    ['variants', 'default_variant'],
  );
});

void t.test('what becomes of a job depends on how and how often it failed', async (t) => {
  const queue = { ...config.queue, attemptsMax: 3, backoffMs: 1_000, backoffMaxMs: 5_000 };
  const lost = (loss: 'time' | 'cpu' | 'exit' | 'start' | 'aborted' | 'resources'): Attempt => ({
    kind: 'lost',
    loss,
    detail: '',
  });
  const cases: readonly (readonly [Attempt, number, object])[] = [
    [{ kind: 'gone' }, 0, { kind: 'drop' }],
    [{ kind: 'aborted' }, 2, { kind: 'give_back', delayMs: 0 }],
    [{ kind: 'untried', detail: 'no storage' }, 2, { kind: 'give_back', why: 'no storage' }],
    [lost('start'), 2, { kind: 'give_back' }],
    [lost('aborted'), 2, { kind: 'give_back', delayMs: 0 }],
    [lost('exit'), 0, { kind: 'retry', delayMs: 500, priority: null }],
    [lost('exit'), 1, { kind: 'retry', delayMs: 1_000, priority: null }],
    // The machine may have been busy.
    [lost('time'), 0, { kind: 'retry', delayMs: 2_500, priority: 'backfill' }],
    [lost('cpu'), 1, { kind: 'retry', delayMs: 2_500, priority: 'backfill' }],
    [lost('time'), 2, { kind: 'bury', refusal: 'too_expensive' }],
    [lost('cpu'), 2, { kind: 'bury', refusal: 'too_expensive' }],
    [lost('exit'), 2, { kind: 'bury', refusal: 'failed' }],
    [lost('resources'), 1, { kind: 'retry' }],
    [{ kind: 'missing' }, 2, { kind: 'bury', refusal: 'failed' }],
    [{ kind: 'faulty', detail: 'a bug' }, 2, { kind: 'bury', why: 'a bug' }],
  ];
  for (const [attempt, attempts, verdict] of cases) {
    t.match(verdictOf(attempt, attempts, queue, 0), verdict, `${JSON.stringify(attempt)} after ${attempts}`);
  }
  fc.assert(
    fc.property(fc.nat(200), fc.double({ min: 0, max: 1, noNaN: true }), (attempts, random) => {
      const waited = backoffMs(attempts, queue, random);
      assert.ok(
        waited >= Math.min(5_000, 1_000 * 2 ** attempts) / 2 && waited <= 5_000,
        'between half of the backoff and all of it',
      );
    }),
    { numRuns: 50 },
  );
});

void t.test('only listed types go to a decoder', async (t) => {
  const all = { ffmpeg: true, heif: true };
  t.equal(routeOf('image/jpeg', { ffmpeg: false, heif: false }).kind, 'picture');
  t.equal(routeOf('Audio/Ogg; codecs=opus', all).kind, 'ffmpeg');
  t.equal(routeOf('video/mp4', { ffmpeg: false, heif: true }).kind, 'none');
  t.equal(routeOf('image/heic', { ffmpeg: true, heif: false }).kind, 'none');
  for (const mime of ['image/svg+xml', 'image/tiff', 'application/pdf', 'text/html', '', 'constructor', '__proto__']) {
    t.equal(routeOf(mime, all).kind, 'none', mime);
  }
});

void t.test('a message that is not exactly as specified is invalid', async (t) => {
  const facts = { width: 1, height: 1, frames: 1, orientation: 1, thumbhash: null };
  const thumb = { variant: '160', format: 'webp', file: '160.webp', width: 1, height: 1, animated: false };
  const done = (result: unknown) => parseFromChild({ t: 'done', job: 1, result });
  t.ok(done({ kind: 'rendered', facts, thumbs: [thumb] }));
  const wrong: readonly unknown[] = [
    null,
    'done',
    { kind: 'rendered', facts, thumbs: [{ ...thumb, file: '../160.webp' }] },
    { kind: 'rendered', facts, thumbs: [{ ...thumb, file: 'original' }] },
    { kind: 'rendered', facts, thumbs: [{ ...thumb, format: 'svg' }] },
    { kind: 'rendered', facts, thumbs: Array.from({ length: 101 }, () => thumb) },
    { kind: 'rendered', facts: { ...facts, width: -1 }, thumbs: [] },
    { kind: 'rendered', facts: { ...facts, orientation: 9 }, thumbs: [] },
    { kind: 'rendered', facts: { ...facts, thumbhash: '<script>' }, thumbs: [] },
    { kind: 'refused', reason: 'because', facts, detail: '' },
    { kind: 'failed', code: 1, detail: '' },
  ];
  for (const result of wrong) t.equal(done(result), undefined, JSON.stringify(result));
  fc.assert(
    fc.property(fc.anything(), (value) => {
      assert.equal(parseToChild(value), undefined);
      parseFromChild(value);
    }),
    { numRuns: 100 },
  );
});

void t.test('values of ffprobe that make no sense count as unknown', async (t) => {
  const probed = (document: unknown) => readProbe(JSON.stringify(document));
  const stream = { index: 1, codec_type: 'video', width: 640, height: 480 };
  t.match(probed({ streams: [stream], format: { duration: '1.5' } }), {
    shown: { width: 640, height: 480 },
    durationMs: 1_500,
    stream: { index: 1 },
  });
  const turned = { ...stream, sample_aspect_ratio: '4:3', side_data_list: [{ rotation: -90 }] };
  t.match(probed({ streams: [turned] }), { shown: { width: 480, height: 853 }, durationMs: null });
  t.match(probed({ streams: [{ ...stream, tags: { rotate: '270' } }] }), { shown: { width: 480, height: 640 } });
  const cover = { ...stream, disposition: { attached_pic: 1 } };
  t.match(probed({ streams: [{ codec_type: 'audio', duration: '2.92' }, cover] }), {
    shown: null,
    durationMs: 2_920,
    stream: { cover: true },
  });
  for (const nothing of [
    {},
    { streams: [] },
    { streams: [{ codec_type: 'video', width: 0, height: 1, index: 0 }] },
    7,
  ]) {
    t.equal(probed(nothing), undefined);
  }
  t.equal(readProbe('{'), undefined);
  t.match(probed({ streams: [{ ...stream, sample_aspect_ratio: '0:1' }] }), { shown: { width: 640 } });
});

void t.test('slots are taken in order, given back only once, and not taken after an abort', async (t) => {
  const slots = createSlots(1);
  const { signal } = new AbortController();
  const first = await slots.take(signal);
  const leaving = new AbortController();
  const left = slots.take(leaving.signal);
  const third = slots.take(signal);
  leaving.abort(new Error('left'));
  await t.rejects(left, /left/);
  first();
  first();
  const release = await third;
  let entered = false;
  const fourth = slots.take(signal).finally(() => {
    entered = true;
  });
  await new Promise(setImmediate);
  t.notOk(entered, 'one slot is taken once');
  release();
  (await fourth)();
  (await slots.take(signal))();
  await t.rejects(slots.take(AbortSignal.abort(new Error('too late'))), /too late/);
});

// Rendering.

const root = t.testdir({});
prepareRenderer();

interface Rendered {
  readonly result: RenderResult;
  readonly read: (file: string) => Promise<Buffer>;
  readonly pixels: (file: string) => Promise<{ data: Buffer; width: number; height: number }>;
}

async function renderBytes(bytes: Buffer, given: Readonly<Record<string, unknown>> = {}): Promise<Rendered> {
  const folder = await mkdtemp(join(root, 'r-'));
  const input = join(folder, 'original');
  await writeFile(input, bytes);
  const settings = thumbsConfig(given);
  const result = await render({ input, folder, upright: false, animate: true, settings });
  const read = (file: string): Promise<Buffer> => readFile(join(folder, file));
  return {
    result,
    read,
    async pixels(file) {
      const { data, info } = await sharp(await read(file))
        .removeAlpha()
        .raw()
        .toBuffer({ resolveWithObject: true });
      return { data, width: info.width, height: info.height };
    },
  };
}

function furthest(one: Buffer, other: Buffer): number {
  let most = 0;
  for (const [at, value] of one.entries()) most = Math.max(most, Math.abs(value - (other[at] ?? 999)));
  return one.length === other.length ? most : 999;
}

/** Four colours in the corners of a picture that is not square. */
function corners(at: (x: number, y: number) => readonly [number, number], width: number, height: number): Sharp {
  const colours = [
    [230, 20, 20],
    [20, 200, 20],
    [20, 20, 220],
    [220, 220, 40],
  ];
  const pixels = Buffer.alloc(width * height * 3);
  for (let y = 0; y < 64; y += 1) {
    for (let x = 0; x < 96; x += 1) {
      const [column, row] = at(x, y);
      Buffer.from(colours[(x < 48 ? 0 : 1) + (y < 32 ? 0 : 2)] ?? []).copy(pixels, (row * width + column) * 3);
    }
  }
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}

void t.test('all eight orientations give the same thumbnail', async (t) => {
  // Where the pixel seen at x, y of a picture 96 × 64 is stored (EXIF 2.32 4.6.4, tag 0112).
  const stored: readonly ((x: number, y: number) => readonly [number, number])[] = [
    (x, y) => [x, y],
    (x, y) => [95 - x, y],
    (x, y) => [95 - x, 63 - y],
    (x, y) => [x, 63 - y],
    (x, y) => [y, x],
    (x, y) => [y, 95 - x],
    (x, y) => [63 - y, 95 - x],
    (x, y) => [63 - y, x],
  ];
  const upright = await corners((x, y) => [x, y], 96, 64)
    .raw()
    .toBuffer();
  for (const [index, at] of stored.entries()) {
    const orientation = index + 1;
    const picture = corners(at, orientation < 5 ? 96 : 64, orientation < 5 ? 64 : 96).withMetadata({ orientation });
    const files = {
      jpeg: await picture.clone().jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toBuffer(),
      webp: await picture.clone().webp({ lossless: true }).toBuffer(),
    };
    for (const [type, bytes] of Object.entries(files)) {
      const made = await renderBytes(bytes, { formats: { jpeg: { quality: 100 }, webp: { quality: 100 } } });
      t.match(
        made.result,
        { kind: 'rendered', facts: { width: 96, height: 64, orientation } },
        `${type} ${orientation}`,
      );
      const { data, width, height } = await made.pixels('160.jpeg');
      t.same([width, height], [96, 64]);
      // Chroma is averaged at the edges between colours; the middle of each quarter is exact.
      for (const [x, y] of [
        [20, 12],
        [76, 12],
        [20, 50],
        [76, 50],
      ] as const) {
        const pixel = (y * 96 + x) * 3;
        t.ok(
          furthest(data.subarray(pixel, pixel + 3), upright.subarray(pixel, pixel + 3)) <= 6,
          `${type} ${orientation} at ${x},${y}`,
        );
      }
    }
  }
});

void t.test('no metadata of a file is left in a thumbnail', async (t) => {
  const described = corners((x, y) => [x, y], 96, 64)
    .withIccProfile('p3')
    .withExifMerge({
      IFD0: { Copyright: 'TELLTALE' },
      IFD3: { GPSLatitude: '51/1 30/1 3230/100', GPSMapDatum: 'TELLTALE' },
    })
    .withXmp('<x:xmpmeta xmlns:x="adobe:ns:meta/"><TELLTALE/></x:xmpmeta>');
  const files = [
    await described.clone().jpeg().toBuffer(),
    await described.clone().webp().toBuffer(),
    await described.clone().png().toBuffer(),
  ];
  for (const bytes of files) {
    t.ok(bytes.includes('TELLTALE'), 'the original has it');
    const { result, read } = await renderBytes(bytes, { formats: { avif: { enabled: true } } });
    t.equal(result.kind, 'rendered');
    for (const thumb of result.kind === 'rendered' ? result.thumbs : []) {
      const made = await read(thumb.file);
      for (const mark of [
        'TELLTALE',
        'Exif',
        'EXIF',
        'eXIf',
        'adobe',
        'xmp',
        'XMP',
        'ICC',
        'iCCP',
        'GPS',
        'prof',
        'iTXt',
        'tEXt',
      ]) {
        t.notOk(made.includes(mark), `${thumb.file}: ${mark}`);
      }
    }
  }
});

void t.test('colours of other profiles look the same in sRGB', async (t) => {
  const plain = sharp({ create: { width: 40, height: 40, channels: 3, background: { r: 200, g: 80, b: 60 } } });
  const wide = await sharp(await plain.png().toBuffer())
    .withIccProfile('p3')
    .png()
    .toBuffer();
  const unlike = await sharp(wide).raw().toBuffer();
  t.ok(furthest(unlike.subarray(0, 3), Buffer.from([200, 80, 60])) >= 0);
  const { pixels } = await renderBytes(wide, { formats: { jpeg: { quality: 100 } } });
  const { data } = await pixels('160.jpeg');
  t.ok(furthest(data.subarray(0, 3), Buffer.from([200, 80, 60])) <= 4, [...data.subarray(0, 3)].join());
  const grey = await renderBytes(await plain.clone().toColourspace('b-w').png().toBuffer());
  t.equal(grey.result.kind, 'rendered');
});

void t.test('transparency decides between JPEG and PNG', async (t) => {
  const of = async (alpha: number) => {
    const background = { r: 10, g: 20, b: 30, alpha };
    const bytes = await sharp({ create: { width: 30, height: 20, channels: 4, background } })
      .png()
      .toBuffer();
    const { result } = await renderBytes(bytes);
    return result.kind === 'rendered' ? result.thumbs.map(({ format }) => format).sort() : [];
  };
  t.same(await of(0.5), ['png', 'webp']);
  t.same(await of(1), ['jpeg', 'webp'], 'an opaque alpha channel is not transparency');
});

/** An animation of `count` frames, each of one colour. */
async function animationOf(format: 'gif' | 'webp', count: number, side = 24, noise = 0): Promise<Buffer> {
  const pages = Buffer.alloc(side * side * 3 * count);
  for (let page = 0; page < count; page += 1) {
    pages.fill(Buffer.from([page * 20, 255 - page * 20, 90]), page * side * side * 3, (page + 1) * side * side * 3);
  }
  if (noise > 0) for (const at of pages.keys()) pages[at] = (Math.imul(at, 2_654_435_761) >>> 8) % noise;
  const raw = { width: side, height: side * count, channels: 3, pageHeight: side } as const;
  const moving = sharp(pages, { raw, animated: true });
  const delay = Array.from({ length: count }, () => 80);
  return format === 'gif' ? moving.gif({ delay, loop: 3 }).toBuffer() : moving.webp({ delay, loop: 3 }).toBuffer();
}

void t.test('an animation', async (t) => {
  const summary = async ({ result, read }: Rendered) => {
    const thumbs = result.kind === 'rendered' ? result.thumbs : [];
    const moving = thumbs.find(({ animated }) => animated);
    const seen = moving === undefined ? undefined : await sharp(await read(moving.file), { animated: true }).metadata();
    return {
      formats: thumbs
        .map(({ format, animated }) => (animated ? `${format}*` : format))
        .sort()
        .join(' '),
      frames: result.kind === 'rendered' ? result.facts.frames : null,
      pages: seen?.pages,
      delay: seen?.delay?.[0],
      loop: seen?.loop,
    };
  };
  const moves = { formats: 'jpeg webp*', frames: 5, pages: 5, delay: 80, loop: 3 };
  for (const format of ['gif', 'webp'] as const) {
    t.same(
      await summary(await renderBytes(await animationOf(format, 5), { formats: { avif: { enabled: true } } })),
      moves,
      format,
    );
  }
  const png = await sharp({ create: { width: 8, height: 8, channels: 4, background: 'red' } })
    .png()
    .toBuffer();
  const blue = await sharp({ create: { width: 4, height: 4, channels: 4, background: 'blue' } })
    .png()
    .toBuffer();
  const apng = apngOf([
    { png, left: 0, top: 0, delayMs: 80, dispose: 'none', blend: 'source' },
    { png: blue, left: 2, top: 2, delayMs: 40, dispose: 'none', blend: 'over' },
  ]);
  t.match(await summary(await renderBytes(apng)), {
    formats: 'jpeg webp*',
    frames: 2,
    pages: 2,
    delay: 80,
    loop: 0,
  });

  await t.test('is a still beyond the limits of animation', async (t) => {
    const still = { formats: 'jpeg webp', pages: undefined };
    const bytes = await animationOf('gif', 5, 60, 200);
    t.match(await summary(await renderBytes(bytes)), { formats: 'jpeg webp*' });
    for (const animation of [{ enabled: false }, { frames_max: 4 }, { pixels_max: 1_000 }, { output_max: '1KB' }]) {
      t.match(await summary(await renderBytes(bytes, { animation })), still, JSON.stringify(animation));
    }
  });

  await t.test('has a still of its first frame, and not of a default image that is no frame', async (t) => {
    const green = await sharp({ create: { width: 8, height: 8, channels: 4, background: 'lime' } })
      .png()
      .toBuffer();
    const frame = { left: 0, top: 0, delayMs: 80, dispose: 'none', blend: 'source' } as const;
    const small = { ...frame, png: blue, left: 2, top: 2 };
    const cases: readonly (readonly [string, Buffer, object, readonly number[]])[] = [
      ['a frame of the size of the picture', apngOf([{ ...frame, png: green }, small], 0, png), {}, [0, 255, 0, 255]],
      ['a frame alone', apngOf([{ ...frame, png: green }], 0, png), {}, [0, 255, 0, 255]],
      ['a smaller frame', apngOf([small, small], 0, png), {}, [0, 0, 0, 0]],
      ['more frames than are animated', apngOf([small, small, small], 0, png), { frames_max: 2 }, [0, 0, 0, 0]],
      ['a default image that is the first frame', apngOf([{ ...frame, png }, small]), {}, [255, 0, 0, 255]],
    ];
    for (const [name, bytes, limits, corner] of cases) {
      const { result, read } = await renderBytes(bytes, { animation: { enabled: false, ...limits } });
      if (result.kind !== 'rendered') throw new Error(JSON.stringify(result));
      const still = sharp(await read(result.thumbs.find(({ format }) => format !== 'webp')?.file ?? ''));
      const pixels = await still.ensureAlpha().raw().toBuffer();
      t.ok(furthest(pixels.subarray(0, 4), Buffer.from(corner)) < 8, `${name}: ${[...pixels.subarray(0, 4)].join()}`);
    }
  });

  await t.test('is a still if it is inconsistent', async (t) => {
    const torn = Buffer.from(apng);
    torn.writeUInt32BE(7, torn.indexOf('acTL') + 4);
    t.match(await summary(await renderBytes(torn)), { formats: 'jpeg webp', frames: 7 });
  });
});

void t.test('an animated PNG is composed as a browser shows it', async (t) => {
  const plain = async (width: number, height: number, background: object) =>
    await sharp({ create: { width, height, channels: 4, background: background as { r: number } } })
      .png()
      .toBuffer();
  const red = await plain(3, 1, { r: 255, g: 0, b: 0, alpha: 1 });
  const half = await plain(1, 1, { r: 0, g: 0, b: 255, alpha: 0.5 });
  const frame = (png: Buffer, left: number, rest: Pick<ApngFrame, 'dispose' | 'blend'>) => ({
    png,
    left,
    top: 0,
    delayMs: 10,
    ...rest,
  });
  const apng = parseApng(
    apngOf([
      frame(red, 0, { dispose: 'none', blend: 'source' }),
      frame(half, 0, { dispose: 'previous', blend: 'over' }),
      frame(half, 1, { dispose: 'background', blend: 'source' }),
      frame(half, 2, { dispose: 'none', blend: 'over' }),
    ]),
    10,
  );
  if (apng === undefined) throw new Error('it parses');
  const pages = await composeApng(apng, (png) => sharp(png).ensureAlpha().raw().toBuffer());
  const R = [255, 0, 0, 255];
  const mixed = [127, 0, 128, 255];
  const blue = [0, 0, 255, 128];
  t.same([...pages.subarray(0, 12)], [...R, ...R, ...R]);
  t.same([...pages.subarray(12, 24)], [...mixed, ...R, ...R], 'composited over the frame before');
  t.same(
    [...pages.subarray(24, 36)],
    [...R, ...blue, ...R],
    'the frame before is taken back, and this one replaces the pixels',
  );
  t.same([...pages.subarray(36, 48)], [...R, 0, 0, 0, 0, ...mixed], 'the frame before is cleared');
  t.equal(parseApng(red, 10), undefined, 'a plain PNG has no frames');
});

void t.test('a picture that cannot be rendered is refused with the reason', async (t) => {
  const jpeg = await corners((x, y) => [x, y], 96, 64)
    .jpeg()
    .toBuffer();
  const refusal = async (bytes: Buffer, given = {}) => {
    const { result } = await renderBytes(bytes, given);
    return result.kind === 'refused' ? result.reason : result.kind;
  };
  t.equal(
    await refusal(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')),
    'unsupported_type',
  );
  t.equal(await refusal(Buffer.alloc(0)), 'unsupported_type');
  t.equal(await refusal(jpeg.subarray(0, 30)), 'broken_image');
  t.equal(await refusal(jpeg, { pixels_max: 96 * 64 - 1 }), 'too_many_pixels');
  t.equal(
    await refusal(jpeg, { source_max: 1_000, pixels_max: 1_000 }),
    jpeg.length > 1_000 ? 'too_expensive' : 'too_many_pixels',
  );
});

// The engine.

const quick = {
  children: { count: 2, time_limit: '10s', memory_max: '256MiB' },
  queue: { backoff: '1ms', backoff_max: '2ms', poll: '50ms' },
  video: { enabled: false },
};

async function photo(seed: number, width = 400, height = 300): Promise<Buffer> {
  const background = { r: (seed * 53) % 256, g: (seed * 91) % 256, b: seed % 256 };
  return await sharp({ create: { width, height, channels: 3, background } })
    .jpeg()
    .toBuffer();
}

async function checkStored(t: Test, fixture: ThumbFixture, blob: BlobRecord): Promise<void> {
  if (blob.thumbs.kind !== 'ready') throw new Error(`thumbnails are ${JSON.stringify(blob.thumbs)}`);
  for (const made of blob.thumbs.made) {
    const size = await fixture.blobs.stat(thumbKey(blob.sha256, made));
    t.equal(size, made.sizeBytes, `${made.variant}.${made.format} is stored`);
  }
}

interface ReadyDocument {
  readonly capabilities: Readonly<Record<string, unknown>>;
}

void t.test('as many processes as configured are kept ready', async (t) => {
  const fixture = await openThumbFixture(t.testdir({}));
  t.teardown(() => fixture.close());
  const children = { count: 3, ready_min: 2, jobs_max: 1, idle: '100ms', memory_max: '256MiB' };
  const thumbs = await fixture.open({ ...quick, children });
  const ready = async (): Promise<boolean> => {
    const { busy, idle } = await fixture.children();
    return busy === 0 && idle === 2;
  };
  await untilAsync('two processes before there is a job', ready);
  const shas = await Promise.all([1, 2, 3].map(async (seed) => fixture.put(await photo(seed), 'image/jpeg')));
  for (const sha256 of shas) t.equal((await fixture.finished(thumbs, sha256)).thumbs.kind, 'ready');
  await untilAsync('two other processes in place of those that have done their number of jobs', ready);
  await thumbs.close();
  t.same(await fixture.children(), { busy: 0, idle: 0 });
});

void t.test('the engine', async (t) => {
  const folder = t.testdir({});
  const logged: string[] = [];
  const log = createLog('test', { level: 'info' }, { write: (line) => void logged.push(line) });
  const fixture = await openThumbFixture(folder, { log });
  t.teardown(() => fixture.close());
  const never = new AbortController().signal;

  await t.test('makes and records thumbnails of uploads from before and after its start', async (t) => {
    const before = await fixture.put(await photo(1), 'image/jpeg');
    t.equal((await fixture.record(before)).thumbs.kind, 'pending');
    const thumbs = await fixture.open(quick);
    const after = await fixture.put(await photo(2), 'image/jpeg');
    for (const sha256 of [before, after]) {
      const blob = await fixture.finished(thumbs, sha256);
      await checkStored(t, fixture, blob);
      t.match(blob.picture, { width: 400, height: 300, frames: 1, orientation: 1, thumbhash: /^[A-Za-z0-9+/=]{8,}$/ });
    }
    t.match(await fixture.meta.jobs.counts(), { waiting: 0, leased: 0, dead: 0 });
    t.same(await fixture.children(), { busy: 0, idle: 2 });
    t.same(await jobFolders(fixture.blobs.stageFolder), [], 'nothing is left on the stage');
    t.ok(thumbs.accepts('image/webp') && !thumbs.accepts('video/mp4') && !thumbs.accepts('text/plain'));
    t.match(thumbs.capabilities(), { default: '320', video: { available: false, reason: 'switched off' } });
    await thumbs.close();
    await thumbs.close();
  });

  await t.test('makes thumbnails again after a change of the configuration, and retries dead letters', async (t) => {
    const closed = { ...quick, enabled: false };
    const thumbs = await fixture.open(closed);
    const parts = { meta: fixture.meta, thumbs, clock: systemClock };
    const backfill = async (given: Readonly<Record<string, unknown>>, all = false) => {
      let last: BackfillProgress | undefined;
      const steps = backfillThumbs({ ...parts, config: thumbsConfig(given) }, { all, after: null }, never);
      for await (last of steps);
      return last;
    };
    t.match(await backfill({}), { seen: 2, queued: 0, next: null }, 'blobs that lack nothing are not queued');
    const blobs = (await fixture.meta.blobsAfter(null, 9)).blobs.map(({ sha256 }) => sha256);
    const stored = async () => {
      const keys: string[] = [];
      for await (const { key } of fixture.blobs.list('thumb/')) keys.push(key);
      return keys.sort();
    };
    const named = async () => {
      const records = await Promise.all(blobs.map((sha256) => fixture.record(sha256)));
      const keys = records.map(({ sha256, thumbs: { kind, ...rest } }) =>
        kind === 'ready' && 'made' in rest ? rest.made.map((made) => thumbKey(sha256, made)) : [],
      );
      return [...new Set(keys.flat())].sort();
    };
    t.same(await stored(), await named());
    const before = (await stored()).length;
    const fewer = { variants: [{ name: '160', width: 160 }], default_variant: '160' };
    t.match(await backfill(fewer), { queued: 0, trimmed: 2 }, 'nothing is rendered only to remove surplus thumbnails');
    t.match(await backfill(fewer), { queued: 0, trimmed: 0 });
    t.equal((await stored()).length, before, 'the sweep removes the surplus bytes later');
    t.match(await freeOrphans(fixture, Number.POSITIVE_INFINITY, never), { thumbs: 0 }, 'they are in the trash');
    await emptyTrash(fixture, Number.POSITIVE_INFINITY, 99, never);
    t.same(await stored(), await named(), 'and it removes exactly what no record names');

    t.match(await backfill({}), { queued: 2, trimmed: 0 });
    const jobs = await fixture.meta.jobs.claim('test', 10, Date.now(), 60_000);
    t.same(
      jobs.map(({ priority }) => priority),
      ['backfill', 'backfill'],
    );
    for (const { sha256 } of jobs) await fixture.meta.jobs.bury(sha256, 'a reason', Date.now());
    t.match(await reportQueue(fixture.meta, 1), {
      waiting: 0,
      dead: 2,
      deadJobs: [{ reason: 'a reason' }],
    });
    const revived: RetryProgress[] = [];
    for await (const progress of retryThumbs(fixture.meta, systemClock, never)) revived.push(progress);
    t.same(revived, [{ revived: 2, left: 0 }]);
    for (const { sha256 } of jobs) {
      t.same((await fixture.record(sha256)).thumbs, { kind: 'pending' });
      await fixture.meta.finishThumbs(sha256, { kind: 'refused', reason: 'broken_image', picture: NO_FACTS });
    }
    t.match(await backfill({}), { queued: 0 }, 'a refusal that still holds is kept');
    for (const [durationMs, queued] of [
      [null, 2],
      [2_920, 0],
    ] as const) {
      const picture = { ...NO_FACTS, durationMs };
      for (const { sha256 } of jobs) {
        await fixture.meta.finishThumbs(sha256, { kind: 'refused', reason: 'unsupported_type', picture });
      }
      t.match(await backfill({}), { queued }, 'sound is not probed again once its duration is known');
      for (const { sha256 } of jobs) await fixture.meta.jobs.drop(sha256);
    }
    t.match(await backfill({}, true), { queued: 2 });
    for (const { sha256 } of jobs) await fixture.meta.jobs.drop(sha256);
    await thumbs.close();
  });

  await t.test('gives back running jobs when it closes, and counts no attempt', async (t) => {
    const thumbs = await fixture.open({ ...quick, children: { count: 1 } }, MISBEHAVING);
    const sha256 = await fixture.put(Buffer.from('hang again'), 'image/png');
    while ((await fixture.children()).busy === 0) await new Promise(setImmediate);
    await thumbs.close();
    const [job] = await fixture.meta.jobs.claim('test', 10, Date.now() + 60_000, 1_000);
    t.match(job, { sha256, attempts: 0 });
    await fixture.meta.jobs.drop(sha256);
  });

  await t.test('shows the colours of a wider profile as they are meant', async (t) => {
    const red = sharp({ create: { width: 64, height: 64, channels: 3, background: { r: 255, g: 0, b: 0 } } });
    const wide = await red.withIccProfile('p3').png().toBuffer();
    const unconverted = await sharp(wide, { ignoreIcc: true }).stats();
    t.ok((unconverted.channels[1]?.mean ?? 0) > 30, 'without its profile it is another red');
    const thumbs = await fixture.open({ ...quick, children: { count: 1 } });
    const blob = await fixture.finished(thumbs, await fixture.put(wide, 'image/png'));
    for (const made of blob.thumbs.kind === 'ready' ? blob.thumbs.made : []) {
      const found = await fixture.blobs.read(thumbKey(blob.sha256, made));
      if (found.kind !== 'found') throw new Error('a thumbnail is not stored');
      const bytes = await readAll(found.body);
      t.equal((await sharp(bytes).metadata()).icc, undefined, 'no profile is left');
      const [r, g, b] = (await sharp(bytes).stats()).channels.map(({ mean }) => mean);
      t.ok((r ?? 0) > 245 && (g ?? 255) < 12 && (b ?? 255) < 12, `${made.format}: ${r} ${g} ${b}`);
    }
    t.equal(blob.thumbs.kind, 'ready');
    await thumbs.close();
  });

  await t.test('renders a large interlaced PNG within memory_max, whatever Node itself maps', async (t) => {
    // An interlaced picture is decoded as a whole: 103 MiB of pixels.
    const large = sharp({
      create: { width: 6_000, height: 4_500, channels: 4, background: { r: 9, g: 9, b: 9, alpha: 0.5 } },
    });
    const png = await large.png({ progressive: true, compressionLevel: 1 }).toBuffer();
    const children = { ...quick.children, count: 1, memory_max: '256MiB' };
    const thumbs = await fixture.open({ ...quick, children, queue: { ...quick.queue, attempts_max: 1 } });
    await checkStored(t, fixture, await fixture.finished(thumbs, await fixture.put(png, 'image/png')));
    await thumbs.close();
  });

  await t.test('reports that no child starts, loses no job, and goes on when a child starts again', async (t) => {
    const script = join(folder, 'worker.mjs');
    const thumbs = await fixture.open({ ...quick, children: { ...quick.children, count: 1 } }, pathToFileURL(script));
    const capability = async () => {
      const gate = { probe: () => Promise.resolve(), issuers: () => ({}) };
      const room = { require: () => Promise.resolve() };
      const deps = { ...fixture, gate, thumbs, clock: systemClock, log, metrics: createMetrics(''), room };
      const { status, body } = await createHealth(deps).ready();
      t.equal(status, 200, 'uploads are accepted all the same');
      const { capabilities } = JSON.parse(body.kind === 'bytes' ? String(body.bytes) : '') as ReadyDocument;
      return capabilities['thumbnails'];
    };
    t.equal(await capability(), 'available');
    const sha256 = await fixture.put(await photo(7), 'image/jpeg');
    await until('a start fails', () => thumbs.unavailable() !== null);
    t.equal(await capability(), 'the processes that render do not start');
    t.match(await fixture.metrics(), 'test_thumbs_children_start_failing 1');
    const [line = '{}', ...more] = logged.filter((each) => each.includes('a child process does not start'));
    t.match(JSON.parse(line), { level: 'error', detail: /Cannot find module/, msg: /origin\.thumbs\.children/ });
    t.same(more, [], 'it is logged once');
    await writeFile(script, `await import(${JSON.stringify(MISBEHAVING.href)});`);
    await checkStored(t, fixture, await fixture.finished(thumbs, sha256));
    t.equal(await capability(), 'available');
    t.match(await fixture.metrics(), 'test_thumbs_children_start_failing 0');
    await thumbs.close();
  });

  await t.test('refuses at once types and sizes that it does not render', async (t) => {
    const thumbs = await fixture.open({ ...quick, source_max: '2KB' });
    const text = await fixture.put(Buffer.from('%PDF-1.7'), 'application/pdf');
    const large = await fixture.put(Buffer.alloc(3_000), 'image/jpeg');
    t.same((await fixture.finished(thumbs, text)).thumbs, { kind: 'none', reason: 'unsupported_type' });
    t.same((await fixture.finished(thumbs, large)).thumbs, { kind: 'none', reason: 'too_expensive' });
    t.same(await fixture.children(), { busy: 0, idle: 0 }, 'no process is started for them');
    await thumbs.close();
  });

  await t.test('waits no longer than requested, and not at all if too many requests wait', async (t) => {
    const thumbs = await fixture.open({ ...quick, enabled: false, waiters_max: 1 });
    const sha256 = await fixture.put(await photo(4), 'image/jpeg');
    await thumbs.prioritize(sha256);
    t.same(await thumbs.wait(sha256, 10, never), { kind: 'pending' });
    const leaving = new AbortController();
    const waiting = thumbs.wait(sha256, 60_000, leaving.signal);
    t.same(await thumbs.wait(sha256, 60_000, never), { kind: 'pending' }, 'a second request does not wait');
    leaving.abort(new Error('the client left'));
    await t.rejects(waiting, /the client left/);
    const [first] = await fixture.meta.jobs.claim('test', 1, Date.now(), 1_000);
    t.match(first, { sha256, priority: 'asked' });
    await fixture.meta.jobs.drop(sha256);
    const unknown = await thumbs.wait('0'.repeat(64) as typeof sha256, 10, never);
    t.same(unknown, { kind: 'none', reason: 'failed' });
    await thumbs.close();
  });
});

void t.test(
  'an origin over S3 makes and serves thumbnails, removes them with their media, and leaves nothing on its stage',
  async (t) => {
    const s3 = await openLightS3();
    t.teardown(() => s3.close());
    const folder = t.testdir();
    const keys = { access_key_id: 'env:KEY', secret_access_key: 'env:SECRET' };
    const blobs = {
      adaptor: 's3',
      stage_folder: join(folder, 'stage'),
      s3: { endpoint: s3.url, bucket: s3.bucket, ...keys },
    };
    const thumbs = { children: { count: 1 }, video: { enabled: false } };
    const origin = await startOrigin(folder, { blobs, thumbs });
    t.teardown(() => origin.close());
    const picture = await sharp({ create: { width: 900, height: 600, channels: 3, background: 'teal' } })
      .jpeg()
      .toBuffer();
    const id = await origin.uploaded(picture, '?public=true');
    const look = () =>
      origin.send(`/v1/media/${id}/thumb?w=200`, { headers: { accept: 'image/webp, application/json;q=0.1' } });
    // The request waits for the engine, because the clock, which would end the wait, stands still.
    const answer = await look();
    t.match(answer, { status: 200, headers: { 'content-type': 'image/webp', 'media-width': '320', vary: 'Accept' } });
    t.match(await sharp(answer.bytes).metadata(), { format: 'webp', width: 320, height: 213 });
    t.equal(s3.objects.size, 1 + 8, 'four sizes in two formats beside the original');
    t.same(
      await jobFolders(join(folder, 'stage')),
      ['lock', 'resumable'],
      'nothing is left of the fetched original and the results',
    );
    t.equal((await origin.asAdmin(`/v1/media/${id}`, { method: 'DELETE' })).status, 204);
    t.equal((await look()).status, 410);
  },
);

void t.test('a JPEG that decoders repair gets a thumbnail', async (t) => {
  const whole = await sharp({ create: { width: 64, height: 48, channels: 3, background: 'teal' } })
    .jpeg()
    .toBuffer();
  const table = whole.indexOf('ffdb', 0, 'hex');
  const files: Readonly<Record<string, Buffer>> = {
    'bytes between markers': Buffer.concat([whole.subarray(0, table), Buffer.alloc(3), whole.subarray(table)]),
    'no end marker': whole.subarray(0, -2),
    'a part of the scan': whole.subarray(0, -20),
  };
  for (const [name, bytes] of Object.entries(files)) {
    const { result } = await renderBytes(bytes);
    t.equal(result.kind, 'rendered', name);
  }
});
