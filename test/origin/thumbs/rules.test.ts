import { once } from 'node:events';
import { inflateSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { type BlobRecord, NO_FACTS, type ThumbMade } from '../../../origin/meta/media.js';
import { thumbsFaults, type VariantConfig } from '../../../origin/thumbs/config.js';
import { placeholderPng } from '../../../origin/thumbs/placeholder.js';
import {
  baseSize,
  inFormat,
  pickThumb,
  planThumbs,
  type Size,
  sizeOfVariant,
  thumbOptionsOf,
} from '../../../origin/thumbs/plan.js';
import { routeOf, typesOf } from '../../../origin/thumbs/types.js';
import { type Attempt, backoffMs, type Verdict, verdictOf } from '../../../origin/thumbs/verdict.js';
import { createWaiters, type Waiters } from '../../../origin/thumbs/waiters.js';
import { ManualClock } from '../../kit/clock.js';
import { PLACE } from '../../kit/origin/keys.js';
import { thumbsConfig } from '../../kit/origin/thumb-fixture.js';

const config = thumbsConfig();
const size = (width: number, height: number): Size => ({ width, height });
const inside = (name: string, width: number, height = 0): VariantConfig => ({ name, width, height, fit: 'inside' });
const cover = (name: string, width: number, height = 0): VariantConfig => ({ name, width, height, fit: 'cover' });

void t.test('a thumbnail shows the whole picture inside its box, or the middle of it in the shape of the box', (t) => {
  type Case = readonly [source: Size, variant: VariantConfig, made: Size, region: readonly number[]];
  const cases: readonly Case[] = [
    [size(400, 300), inside('v', 100), size(100, 75), [0, 0, 400, 300]],
    [size(300, 400), inside('v', 100), size(100, 133), [0, 0, 300, 400]],
    [size(300, 400), inside('v', 100, 100), size(75, 100), [0, 0, 300, 400]],
    [size(400, 300), inside('v', 100, 1), size(1, 1), [0, 0, 400, 300]],
    [size(400, 300), cover('v', 100, 1), size(100, 1), [0, 148, 400, 4]],
    [size(100, 400), inside('v', 100), size(100, 400), [0, 0, 100, 400]],
    // Four times as tall as wide, at most.
    [size(100, 1_000), inside('v', 100), size(40, 400), [0, 0, 100, 1_000]],
    [size(40, 30), inside('v', 100), size(40, 30), [0, 0, 40, 30]],
    [size(100, 30), inside('v', 100), size(100, 30), [0, 0, 100, 30]],
    [size(9_999, 1), inside('v', 100), size(100, 1), [0, 0, 9_999, 1]],
    [size(1, 9_999), inside('v', 100), size(1, 400), [0, 0, 1, 9_999]],
    // WebP has 14 bits for a side.
    [size(4_096, 20_000), inside('v', 4_096), size(3_355, 16_383), [0, 0, 4_096, 20_000]],
    [size(400, 300), cover('v', 100), size(100, 100), [50, 0, 300, 300]],
    [size(401, 300), cover('v', 100), size(100, 100), [50, 0, 300, 300]],
    [size(300, 401), cover('v', 100), size(100, 100), [0, 50, 300, 300]],
    [size(400, 300), cover('v', 100, 50), size(100, 50), [0, 50, 400, 200]],
    [size(60, 20), cover('v', 100, 50), size(40, 20), [10, 0, 40, 20]],
    [size(3, 1_000), cover('v', 100), size(3, 3), [0, 498, 3, 3]],
    [size(7, 1), cover('v', 100, 30), size(3, 1), [2, 0, 3, 1]],
    [size(1_000, 1), cover('v', 8, 100), size(1, 1), [499, 0, 1, 1]],
    [size(1, 1_000), cover('v', 100, 8), size(1, 1), [0, 499, 1, 1]],
  ];
  for (const [source, variant, made, [left, top, width, height]] of cases) {
    const what = `${source.width}x${source.height} ${variant.fit} ${variant.width}x${variant.height}`;
    const planned = { variant: 'v', region: { left, top, width, height }, ...made };
    t.same(planThumbs(source, [variant]).thumbs, [planned], what);
    t.match(sizeOfVariant({ ...NO_FACTS, ...source }, [inside('other', 8), variant], 'v'), made, what);
  }
  t.end();
});

void t.test('variants that look alike are made once, under the name of the smallest, and the largest first', (t) => {
  const planOf = (source: Size, ...variants: readonly VariantConfig[]): object => {
    const { thumbs, servedBy } = planThumbs(source, variants);
    return { made: thumbs.map(({ variant }) => variant), servedBy: Object.fromEntries(servedBy) };
  };
  t.same(planOf(size(1_000, 1_000), inside('m', 300), inside('l', 500), inside('s', 200)), {
    made: ['l', 'm', 's'],
    servedBy: { s: 's', m: 'm', l: 'l' },
  });
  t.same(planOf(size(100, 100), inside('l', 500), inside('s', 200), inside('m', 300)), {
    made: ['s'],
    servedBy: { s: 's', m: 's', l: 's' },
  });
  t.same(planOf(size(100, 100), cover('square', 400), inside('whole', 500)), {
    made: ['square'],
    servedBy: { square: 'square', whole: 'square' },
  });
  t.same(
    planOf(size(200, 100), cover('square', 100), inside('whole', 100)),
    { made: ['square', 'whole'], servedBy: { whole: 'whole', square: 'square' } },
    'a part of the picture does not look like the whole',
  );
  t.same(
    planOf(size(200, 100), inside('a', 100, 50), cover('b', 100, 50)),
    { made: ['a'], servedBy: { a: 'a', b: 'a' } },
    'a box of the shape of the picture crops nothing',
  );
  t.end();
});

void t.test('without a known size a thumbnail has the size of its box', (t) => {
  const variants = [inside('a', 100), cover('b', 100, 50), inside('c', 100, 70)];
  const boxes = { a: size(100, 100), b: size(100, 50), c: size(100, 70) };
  for (const [name, box] of Object.entries(boxes)) {
    t.same(sizeOfVariant(NO_FACTS, variants, name), box);
    t.same(sizeOfVariant({ ...NO_FACTS, width: 10 }, variants, name), box);
    t.same(sizeOfVariant({ ...NO_FACTS, height: 10 }, variants, name), box);
  }
  t.throws(() => sizeOfVariant(NO_FACTS, variants, 'd'), RangeError);
  t.end();
});

void t.test('a picture is decoded at the smallest size from which every thumbnail can be shrunk', (t) => {
  const planned = (source: Size, ...variants: readonly VariantConfig[]) => planThumbs(source, variants).thumbs;
  const cases: readonly (readonly [source: Size, variants: readonly VariantConfig[], base: Size])[] = [
    [size(1_000, 500), [inside('a', 100)], size(100, 50)],
    [size(1_000, 500), [inside('a', 100), inside('b', 200)], size(200, 100)],
    [size(1_000, 500), [inside('a', 100), cover('b', 100)], size(200, 100)],
    [size(500, 1_000), [inside('a', 100), cover('b', 100)], size(100, 200)],
    [size(10, 10), [inside('a', 100)], size(10, 10)],
    [size(3_000, 10), [cover('a', 100, 10)], size(3_000, 10)],
    // The rounded height asks for more than the width does.
    [size(1_000, 6), [inside('a', 100)], size(167, 1)],
    [size(6, 1_000), [inside('a', 8, 100)], size(1, 167)],
  ];
  for (const [source, variants, base] of cases) {
    t.same(baseSize(source, planned(source, ...variants)), base, `${source.width}x${source.height}`);
  }
  t.same(
    baseSize(size(1_000, 1), [{ variant: 'a', region: { left: 0, top: 0, ...size(10, 10) }, ...size(1, 1) }]),
    size(100, 1),
  );
  t.same(
    baseSize(size(1, 1_000), [{ variant: 'a', region: { left: 0, top: 0, ...size(10, 10) }, ...size(1, 1) }]),
    size(1, 100),
  );
  t.end();
});

void t.test('clients choose among all boxes, and AVIF only where it is made', (t) => {
  const given = { ...config, variants: [inside('a', 100), cover('b', 100, 50)], defaultVariant: 'b' };
  const options = {
    variants: [
      { name: 'a', width: 100, height: 100, fit: 'inside' },
      { name: 'b', width: 100, height: 50, fit: 'cover' },
    ],
    formats: ['webp', 'jpeg'],
    default: 'b',
  };
  t.same(thumbOptionsOf(given), options);
  const formats = { ...config.formats, avif: { ...config.formats.avif, enabled: true } };
  t.same(thumbOptionsOf({ ...given, formats }), { ...options, formats: ['avif', 'webp', 'jpeg'] });
  t.end();
});

const madeThumb = (variant: string, format: ThumbMade['format'], width = 100): ThumbMade => ({
  variant,
  format,
  width,
  height: width,
  sha256: `${variant}.${format}` as ThumbMade['sha256'],
  place: PLACE,
  sizeBytes: 1,
  animated: false,
});

void t.test('a format that was not made is served by the next best that every such client reads', (t) => {
  const cases = [
    ['avif', 'png jpeg webp avif', 'avif'],
    ['avif', 'png jpeg webp', 'webp'],
    ['avif', 'png jpeg', 'jpeg'],
    ['avif', 'png', 'png'],
    ['webp', 'avif png jpeg webp', 'webp'],
    ['webp', 'avif png jpeg', 'jpeg'],
    ['webp', 'avif png', 'png'],
    ['webp', 'avif', undefined],
    ['jpeg', 'avif webp png jpeg', 'jpeg'],
    ['jpeg', 'avif webp png', 'png'],
    ['jpeg', 'avif webp', undefined],
  ] as const;
  for (const [chosen, made, served] of cases) {
    const thumbs = made.split(' ').map((format) => madeThumb('a', format as ThumbMade['format']));
    t.equal(inFormat(thumbs, chosen)?.format, served, `${chosen} of ${made}`);
  }
  t.end();
});

void t.test('a variant that was not made is served by its stand-in, or by the nearest in width', (t) => {
  const variants = [inside('s', 100), inside('m', 200), inside('l', 400)];
  const pick = (
    made: readonly ThumbMade[],
    variant: string,
    picture: Pick<BlobRecord['picture'], 'width' | 'height'>,
  ) => pickThumb(made, picture, variants, { variant, format: 'webp' })?.sha256;
  const current = [madeThumb('s', 'webp', 100), madeThumb('m', 'webp', 150), madeThumb('m', 'jpeg', 150)];
  const picture = size(150, 150);
  t.equal(pick(current, 's', picture), 's.webp');
  t.equal(pick(current, 'm', picture), 'm.webp');
  t.equal(pick(current, 'l', picture), 'm.webp', 'the variant that looks alike');
  for (const unknown of [
    { width: null, height: 150 },
    { width: 150, height: null },
    { width: null, height: null },
  ]) {
    t.equal(pick(current, 'm', unknown), 'm.webp', 'by its name where the size is unknown');
  }
  const changed = [madeThumb('s', 'webp', 90), madeThumb('x', 'webp', 100)];
  t.equal(pick(changed, 's', picture), 's.webp', 'of its name, although it had another width when it was made');
  const old = [madeThumb('x', 'webp', 120), madeThumb('y', 'webp', 280), madeThumb('z', 'webp', 420)];
  const large = size(1_000, 1_000);
  for (const made of [old, old.toReversed()]) {
    t.same(
      ['s', 'm', 'l'].map((name) => pick(made, name, large)),
      ['x.webp', made === old ? 'x.webp' : 'y.webp', 'z.webp'],
    );
  }
  t.equal(pick([], 's', large), undefined);
  t.end();
});

void t.test('variants have different names, and the default is one of them', (t) => {
  const given = (defaultVariant: string, ...names: readonly string[]) =>
    thumbsFaults({ ...config, defaultVariant, variants: names.map((name) => inside(name, 100)) });
  t.same(given('b', 'a', 'b'), []);
  t.same(given('a', 'a', 'b', 'a'), [{ path: 'variants', message: 'two variants have the name a' }]);
  t.same(given('c', 'a', 'b'), [{ path: 'default_variant', message: 'is none of the variants a, b' }]);
  t.same(
    given('c', 'b', 'b').map(({ path }) => path),
    ['variants', 'default_variant'],
  );
  t.end();
});

/** The containers that each reader of ffmpeg reads. */
const DEMUXED = {
  mov: 'video/mp4 video/quicktime video/x-m4v video/3gpp video/3gpp2 audio/mp4 audio/x-m4a audio/3gpp audio/3gpp2',
  matroska: 'video/webm video/matroska video/x-matroska audio/webm audio/matroska',
  ogg: 'video/ogg audio/ogg audio/opus',
  avi: 'video/vnd.avi video/x-msvideo',
  mpeg: 'video/mpeg',
  mpegts: 'video/mp2t',
  mp3: 'audio/mpeg',
  aac: 'audio/aac',
  flac: 'audio/flac audio/x-flac',
  wav: 'audio/wav audio/x-wav',
  amr: 'audio/amr',
  caf: 'audio/x-caf',
};
const PICTURES = 'image/jpeg image/png image/apng image/gif image/webp image/avif';
const HEIF = 'image/heic image/heif image/heic-sequence image/heif-sequence';

void t.test('a type goes to the decoder that reads it, if that is installed', (t) => {
  const expected = new Map<string, object>([
    ...PICTURES.split(' ').map((type) => [type, { kind: 'picture' }] as const),
    ...HEIF.split(' ').map((type) => [type, { kind: 'heif' }] as const),
    ...Object.entries(DEMUXED).flatMap(([demuxer, types]) =>
      types.split(' ').map((type) => [type, { kind: 'ffmpeg', demuxer }] as const),
    ),
  ]);
  for (const tools of [
    { ffmpeg: true, heif: true },
    { ffmpeg: true, heif: false },
    { ffmpeg: false, heif: true },
    { ffmpeg: false, heif: false },
  ]) {
    const installed = { picture: true, ...tools };
    const served: string[] = [];
    for (const [type, route] of expected) {
      const available = installed[(route as { readonly kind: 'picture' | 'heif' | 'ffmpeg' }).kind];
      const wanted = available ? route : { kind: 'none' };
      t.same(routeOf(type, tools), wanted, `${type} ${JSON.stringify(tools)}`);
      t.same(routeOf(` ${type.toUpperCase()} ; codecs="x;y"`, tools), wanted);
      if (available) served.push(type);
    }
    t.same(typesOf(tools).toSorted(), served.toSorted());
  }
  for (const type of ['image/svg+xml', 'image/tiff', 'text/html', 'video', '', ';', 'constructor', '__proto__']) {
    t.same(routeOf(type, { ffmpeg: true, heif: true }), { kind: 'none' }, type);
  }
  t.end();
});

void t.test('what becomes of an attempt, and of the last one', (t) => {
  const queue = { ...config.queue, attemptsMax: 3, backoffMs: 1_000, backoffMaxMs: 60_000 };
  const lost = (loss: Extract<Attempt, { kind: 'lost' }>['loss']): Attempt => ({ kind: 'lost', loss, detail: 'it' });
  const picture = { ...NO_FACTS, width: 3 };
  const made = [madeThumb('a', 'webp')];
  const giveBack = (delayMs: number, why: string): Verdict => ({ kind: 'give_back', delayMs, why });
  const retry = (delayMs: number, why: string, slow = false): Verdict => ({
    kind: 'retry',
    delayMs,
    priority: slow ? 'backfill' : null,
    why,
  });
  const bury = (why: string, refusal: 'failed' | 'too_expensive' = 'failed'): Verdict => ({
    kind: 'bury',
    refusal,
    why,
  });
  /** The verdicts after no attempt, one and two, with all of the backoff. */
  const cases: readonly (readonly [Attempt, readonly [Verdict, Verdict, Verdict]])[] = [
    ...(['exit', 'resources'] as const).map(
      (loss) => [lost(loss), [retry(1_000, `${loss}: it`), retry(2_000, `${loss}: it`), bury(`${loss}: it`)]] as const,
    ),
    ...(['time', 'cpu'] as const).map((loss) => {
      const why = `${loss}: it`;
      return [lost(loss), [retry(8_000, why, true), retry(16_000, why, true), bury(why, 'too_expensive')]] as const;
    }),
    [lost('memory'), [retry(1_000, 'memory: it'), retry(2_000, 'memory: it'), bury('memory: it', 'too_expensive')]],
    [lost('start'), [giveBack(1_000, 'it'), giveBack(2_000, 'it'), giveBack(4_000, 'it')]],
    [lost('aborted'), [giveBack(0, 'aborted'), giveBack(0, 'aborted'), giveBack(0, 'aborted')]],
    [{ kind: 'aborted' }, [giveBack(0, 'aborted'), giveBack(0, 'aborted'), giveBack(0, 'aborted')]],
    [
      { kind: 'untried', detail: 'no disk' },
      [giveBack(1_000, 'no disk'), giveBack(2_000, 'no disk'), giveBack(4_000, 'no disk')],
    ],
    [{ kind: 'faulty', detail: 'a bug' }, [retry(1_000, 'a bug'), retry(2_000, 'a bug'), bury('a bug')]],
    [{ kind: 'gone' }, [{ kind: 'drop' }, { kind: 'drop' }, { kind: 'drop' }]],
  ];
  for (const [attempt, verdicts] of cases) {
    for (const [attempts, verdict] of verdicts.entries()) {
      t.same(verdictOf(attempt, attempts, queue, 1), verdict, `${JSON.stringify(attempt)} after ${attempts}`);
    }
  }
  t.match(verdictOf({ kind: 'missing' }, 1, queue, 1), { kind: 'retry', delayMs: 2_000, priority: null });
  t.match(verdictOf({ kind: 'missing' }, 2, queue, 1), { kind: 'bury', refusal: 'failed' });
  for (const attempts of [0, 5]) {
    t.same(verdictOf({ kind: 'made', made, picture }, attempts, queue, 1), {
      kind: 'finish',
      outcome: { kind: 'made', made, picture },
    });
    t.same(verdictOf({ kind: 'refused', reason: 'broken_image', picture, detail: 'it' }, attempts, queue, 1), {
      kind: 'finish',
      outcome: { kind: 'refused', reason: 'broken_image', picture },
    });
  }
  t.equal(backoffMs(3, queue, 0), 4_000, 'half of it at the least');
  t.equal(backoffMs(3, queue, 0.5), 6_000);
  t.equal(backoffMs(6, queue, 1), 60_000, 'the longest wait');
  t.equal(backoffMs(100, { ...queue, backoffMs: 1, backoffMaxMs: 2 ** 52 }, 1), 2 ** 30);
  t.end();
});

void t.test('a placeholder is a grey PNG of the size that is asked for', (t) => {
  for (const [width, height] of [
    [1, 1],
    [8, 3],
    [9, 2],
    [1_280, 853],
  ] as const) {
    const png = placeholderPng(width, height);
    const at = (type: string): number => png.indexOf(type, 8, 'latin1');
    t.equal(png.subarray(0, 16).toString('hex'), '89504e470d0a1a0a0000000d49484452');
    const header = Buffer.alloc(13);
    header.writeUInt32BE(width, 0);
    header.writeUInt32BE(height, 4);
    header.set([1, 3, 0, 0, 0], 8);
    t.same(png.subarray(16, 29), header, 'one bit for a pixel, of a palette');
    t.equal(png.readUInt32BE(at('PLTE') - 4), 3);
    const [red, green, blue] = png.subarray(at('PLTE') + 4);
    t.ok(red === green && Math.abs(Number(blue) - Number(red)) < 8, 'grey');
    const data = png.subarray(at('IDAT') + 4, at('IDAT') + 4 + png.readUInt32BE(at('IDAT') - 4));
    t.same(inflateSync(data), Buffer.alloc(height * (1 + Math.ceil(width / 8))), 'each row with its filter byte');
    t.same(png.subarray(-12), Buffer.from('0000000049454e44ae426082', 'hex'), 'nothing behind the end');
  }
  t.end();
});

void t.test('waiting for a thumbnail', async (t) => {
  const never = new AbortController().signal;
  /** Whether the promise has settled by now. */
  const settled = async (waiting: Promise<void>): Promise<boolean> => {
    let done = false;
    const mark = (): void => {
      done = true;
    };
    void waiting.then(mark, mark);
    await new Promise(setImmediate);
    return done;
  };
  const setUp = (waitersMax = 9): { clock: ManualClock; waiters: Waiters; checks: string[] } => {
    const clock = new ManualClock();
    return { clock, waiters: createWaiters(waitersMax, clock), checks: [] };
  };
  const nothingLeft = (t: Test, clock: ManualClock, waiters: Waiters): void => {
    t.equal(waiters.count, 0);
    t.equal(clock.pending, 0);
  };
  const no = async (): Promise<boolean> => false;

  await t.test('ends for all that wait under the key that is woken, and for no others', async (t) => {
    const { clock, waiters } = setUp();
    const [a, b, other] = ['k', 'k', 'other'].map((key) => waiters.wait(key, 100, never, no)) as [
      Promise<void>,
      Promise<void>,
      Promise<void>,
    ];
    t.equal(waiters.count, 3);
    await new Promise(setImmediate);
    waiters.wake('k');
    t.ok((await settled(a)) && (await settled(b)));
    t.notOk(await settled(other));
    t.equal(waiters.count, 1);
    clock.advance(99);
    t.notOk(await settled(other), 'not before its time is over');
    clock.advance(1);
    t.ok(await settled(other));
    nothingLeft(t, clock, waiters);
  });

  await t.test('looks elsewhere while somebody waits, one look at a time', async (t) => {
    const clock = new ManualClock();
    const looks: (readonly string[])[] = [];
    const answers: (() => void)[] = [];
    const waiters = createWaiters(9, clock, {
      lookEveryMs: 20,
      look(keys) {
        looks.push(keys);
        return new Promise((answer) => answers.push(answer));
      },
    });
    t.equal(clock.pending, 0);
    const waiting = ['k', 'k', 'other'].map((key) => waiters.wait(key, 100, never, no));
    await new Promise(setImmediate);
    clock.advance(50);
    t.same(looks, [['k', 'other']], 'not again before the answer');
    waiters.wake('k');
    answers[0]?.();
    await new Promise(setImmediate);
    clock.advance(20);
    t.same(looks.slice(1), [['other']]);
    waiters.wake('other');
    await Promise.all(waiting);
    const late = waiters.wait('late', 100, never, no);
    await new Promise(setImmediate);
    answers[1]?.();
    await new Promise(setImmediate);
    clock.advance(20);
    t.same(looks.slice(2), [['late']]);
    clock.advance(100);
    answers[2]?.();
    await late;
    await new Promise(setImmediate);
    nothingLeft(t, clock, waiters);
  });

  await t.test('ends at once where the thumbnail is there, where there is no time, and beyond the limit', async (t) => {
    const { clock, waiters, checks } = setUp(1);
    const checked = (answer: boolean) => async (): Promise<boolean> => {
      checks.push(String(answer));
      return answer;
    };
    await waiters.wait('k', 100, never, checked(true));
    t.same(checks.splice(0), ['true']);
    nothingLeft(t, clock, waiters);
    await waiters.wait('k', 0, never, checked(false));
    t.same(checks, [], 'without time nothing is looked up');
    const first = waiters.wait('k', 1, never, no);
    await waiters.wait('k', 100, never, checked(false));
    t.same(checks, []);
    t.equal(waiters.count, 1);
    await new Promise(setImmediate);
    clock.advance(1);
    await first;
    nothingLeft(t, clock, waiters);
  });

  await t.test('is woken also while it is checked, and by a second wake-up in the same turn', async (t) => {
    const { clock, waiters } = setUp();
    const answered = new EventTarget();
    const checking = waiters.wait('k', 100, never, async () => {
      await once(answered, 'answer');
      return false;
    });
    waiters.wake('k');
    answered.dispatchEvent(new Event('answer'));
    t.ok(await settled(checking));
    const first = waiters.wait('k', 100, never, no);
    await new Promise(setImmediate);
    waiters.wake('k');
    const second = waiters.wait('k', 100, never, no);
    await first;
    t.notOk(await settled(second));
    waiters.wake('k');
    t.ok(await settled(second), 'the first that leaves does not take the second along');
    nothingLeft(t, clock, waiters);
  });

  await t.test('fails with the request and with the check', async (t) => {
    const { clock, waiters } = setUp();
    const left = new Error('the client left');
    const unasked = async (): Promise<boolean> => t.fail('nothing is looked up for a client that left');
    await t.rejects(waiters.wait('k', 100, AbortSignal.abort(left), unasked), left);
    const leaving = new AbortController();
    const waiting = waiters.wait('k', 100, leaving.signal, no);
    await new Promise(setImmediate);
    leaving.abort(left);
    await t.rejects(waiting, left);
    const broken = new Error('no database');
    await t.rejects(
      waiters.wait('k', 100, never, () => Promise.reject(broken)),
      broken,
    );
    nothingLeft(t, clock, waiters);
  });
});
