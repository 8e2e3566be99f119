import * as fc from 'fast-check';
import t from 'tap';
import { type ApngFrame, composeApng, openingOfApng, parseApng } from '../../../../origin/thumbs/render/apng.js';
import { pngChunk } from '../../../../src/media/png.js';

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex');
const NO_DATA = Buffer.alloc(0);
/** Eight bits, RGBA, not interlaced. */
const KIND = Buffer.from([8, 6, 0, 0, 0]);

const header = (width: number, height: number): Buffer =>
  pngChunk('IHDR', Buffer.concat([numbers(width, height), KIND]));
const animation = (frames: number, plays = 0): Buffer => pngChunk('acTL', numbers(frames, plays));
const pixels = (text: string): Buffer => pngChunk('IDAT', Buffer.from(text));
const more = (sequence: number, text: string): Buffer =>
  pngChunk('fdAT', Buffer.concat([numbers(sequence), Buffer.from(text)]));
const end = pngChunk('IEND', NO_DATA);

type Control = {
  readonly sequence?: number;
  readonly size?: readonly [width: number, height: number];
  readonly at?: readonly [left: number, top: number];
  readonly delay?: readonly [numerator: number, denominator: number];
  readonly dispose?: number;
  readonly blend?: number;
};

/** A frame control chunk (PNG, third edition, 11.3.3.2). */
function control({
  sequence = 0,
  size = [4, 3],
  at = [0, 0],
  delay = [1, 10],
  dispose = 0,
  blend = 0,
}: Control = {}): Buffer {
  const times = Buffer.alloc(4);
  times.writeUInt16BE(delay[0], 0);
  times.writeUInt16BE(delay[1], 2);
  return pngChunk('fcTL', Buffer.concat([numbers(sequence, ...size, ...at), times, Buffer.from([dispose, blend])]));
}

function numbers(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

const file = (...chunks: readonly Buffer[]): Buffer => Buffer.concat([SIGNATURE, ...chunks]);
/** Two frames of a canvas of 4 times 3; `first` and `second` are their control chunks. */
const twoFrames = (first: Buffer, second: Buffer): Buffer =>
  file(header(4, 3), animation(2), first, pixels('one'), second, more(2, 'two'), end);

void t.test('each frame of an animated PNG is a PNG of its own size, with what its pixels need', (t) => {
  const palette = pngChunk('PLTE', Buffer.from([1, 2, 3]));
  const profile = pngChunk('iCCP', Buffer.from('profile'));
  const text = pngChunk('tEXt', Buffer.from('who\0somebody'));
  const apng = parseApng(
    file(
      header(4, 3),
      text,
      palette,
      animation(3, 5),
      profile,
      control({ delay: [1, 4] }),
      pixels('on'),
      pixels('e'),
      control({ sequence: 1, size: [2, 1], at: [2, 2], delay: [7, 0], dispose: 1, blend: 1 }),
      more(2, 'tw'),
      more(3, 'o'),
      control({ sequence: 4, size: [1, 3], at: [3, 0], delay: [1, 1_500], dispose: 2 }),
      more(5, 'three'),
      end,
    ),
    3,
  );
  const png = (width: number, height: number, ...data: readonly string[]): Buffer =>
    file(header(width, height), palette, profile, ...data.map(pixels), end);
  t.same(apng, {
    width: 4,
    height: 3,
    plays: 5,
    framesStated: 3,
    frames: [
      {
        left: 0,
        top: 0,
        width: 4,
        height: 3,
        delayMs: 250,
        dispose: 'none',
        blend: 'source',
        png: png(4, 3, 'on', 'e'),
      },
      {
        left: 2,
        top: 2,
        width: 2,
        height: 1,
        delayMs: 70,
        dispose: 'background',
        blend: 'over',
        png: png(2, 1, 'tw', 'o'),
      },
      {
        left: 3,
        top: 0,
        width: 1,
        height: 3,
        delayMs: 1,
        dispose: 'previous',
        blend: 'source',
        png: png(1, 3, 'three'),
      },
    ],
  });
  t.end();
});

void t.test('chunks that say how to read and show pixels go into each frame, others do not', (t) => {
  // PNG, third edition, 11.2.2, 11.3.1, 11.3.2; the orientation of a picture is in eXIf.
  const shared = ['PLTE', 'tRNS', 'gAMA', 'cHRM', 'sRGB', 'iCCP', 'cICP', 'sBIT', 'eXIf'];
  for (const type of [...shared, 'tEXt', 'iTXt', 'tIME', 'pHYs', 'bKGD']) {
    const extra = pngChunk(type, Buffer.from('x'));
    const bytes = file(
      header(4, 3),
      extra,
      animation(2),
      control(),
      pixels('1'),
      control({ sequence: 1 }),
      more(2, '2'),
      end,
    );
    for (const { png } of parseApng(bytes, 2)?.frames ?? []) t.equal(png.includes(extra), shared.includes(type), type);
  }
  t.end();
});

void t.test('an animated PNG that is inconsistent has no frames', (t) => {
  const first = control();
  const second = control({ sequence: 1 });
  const whole = twoFrames(first, second);
  const withSecond = (change: Control): Buffer => twoFrames(first, control({ sequence: 1, ...change }));
  const cases: readonly (readonly [what: string, bytes: Buffer, frames: number | undefined])[] = [
    ['as it should be', whole, 2],
    ['a frame in the last column and row', withSecond({ size: [1, 1], at: [3, 2] }), 2],
    ['a frame without width', withSecond({ size: [0, 3] }), undefined],
    ['a frame without height', withSecond({ size: [4, 0] }), undefined],
    ['a frame that is too wide', withSecond({ size: [5, 3] }), undefined],
    ['a frame that is too high', withSecond({ size: [4, 4] }), undefined],
    ['a frame beside the canvas', withSecond({ size: [1, 1], at: [4, 0] }), undefined],
    ['a frame below the canvas', withSecond({ size: [1, 1], at: [0, 3] }), undefined],
    ['the last way to dispose', withSecond({ dispose: 2 }), 2],
    ['an unknown way to dispose', withSecond({ dispose: 3 }), undefined],
    ['an unknown way to blend', withSecond({ blend: 2 }), undefined],
    ['no header', file(animation(2), first, pixels('1'), second, more(2, '2'), end), undefined],
    [
      'a header behind another chunk',
      file(animation(2), header(4, 3), first, pixels('1'), second, more(2, '2'), end),
      undefined,
    ],
    ['a header of 12 bytes', file(pngChunk('IHDR', Buffer.alloc(12, 1)), whole.subarray(33)), undefined],
    ['a header of 14 bytes', file(pngChunk('IHDR', Buffer.alloc(14, 1)), whole.subarray(33)), undefined],
    ['no animation control', file(header(4, 3), first, pixels('1'), second, more(2, '2'), end), undefined],
    [
      'an animation control of 7 bytes',
      file(header(4, 3), pngChunk('acTL', Buffer.from([0, 0, 0, 2, 0, 0, 0])), whole.subarray(53)),
      undefined,
    ],
    [
      'an animation control of 9 bytes',
      file(header(4, 3), pngChunk('acTL', Buffer.from([0, 0, 0, 2, 0, 0, 0, 0, 0])), whole.subarray(53)),
      undefined,
    ],
    ['a frame control of 25 bytes', twoFrames(first, pngChunk('fcTL', second.subarray(8, 33))), undefined],
    [
      'a frame control of 27 bytes',
      twoFrames(first, pngChunk('fcTL', Buffer.concat([second.subarray(8, 34), NO_DATA, Buffer.alloc(1)]))),
      undefined,
    ],
    ['a frame without data', file(header(4, 3), animation(2), first, pixels('1'), second, end), undefined],
    [
      'frame data before any frame',
      file(header(4, 3), animation(2), more(0, 'x'), first, pixels('1'), second, more(2, '2'), end),
      undefined,
    ],
    [
      'frame data without a number',
      file(header(4, 3), animation(2), first, pixels('1'), second, pngChunk('fdAT', Buffer.alloc(3)), end),
      undefined,
    ],
    ['frame data that are a number alone', twoFrames(first, Buffer.concat([second, pngChunk('fdAT', numbers(1))])), 2],
    ['fewer frames than stated', file(header(4, 3), animation(3), whole.subarray(53)), undefined],
    ['more frames than stated', file(header(4, 3), animation(1), whole.subarray(53)), undefined],
    ['one frame', file(header(4, 3), animation(1), first, pixels('1'), end), undefined],
    ['no end', whole.subarray(0, -12), 2],
    ['a last chunk that is torn', whole.subarray(0, -13), undefined],
    [
      'frames behind the end',
      file(header(4, 3), animation(2), first, pixels('1'), end, second, more(2, '2'), end),
      undefined,
    ],
    ['nothing', NO_DATA, undefined],
  ];
  for (const [what, bytes, frames] of cases) t.equal(parseApng(bytes, 2)?.frames.length, frames, what);
  t.equal(parseApng(whole, 1), undefined, 'more frames than are allowed');
  t.end();
});

void t.test('the default image of an animation is its opening only where it is none of the frames', (t) => {
  const frame = [control(), more(1, 'one'), control({ sequence: 2 }), more(3, 'two'), end];
  const cases: readonly (readonly [what: string, bytes: Buffer, opening: boolean])[] = [
    ['a default image before the first frame', file(header(4, 3), animation(2), pixels('0'), ...frame), true],
    [
      'a single frame beside the default image',
      file(header(4, 3), animation(1), pixels('0'), control(), more(1, 'one'), end),
      true,
    ],
    ['a default image that is the first frame', twoFrames(control(), control({ sequence: 1 })), false],
    ['no animation', file(header(4, 3), pixels('0'), end), false],
    ['an animation control behind the pixels', file(header(4, 3), pixels('0'), animation(2), ...frame), false],
    ['no default image', file(header(4, 3), animation(2), ...frame), false],
    ['an animation without frames', file(header(4, 3), animation(2), pixels('0'), end), false],
    [
      'a first frame beyond the canvas',
      file(header(4, 3), animation(2), pixels('0'), control({ size: [5, 3] }), more(1, 'one'), end),
      false,
    ],
  ];
  for (const [what, bytes, isOpening] of cases) {
    const opening = openingOfApng(bytes);
    t.same(
      opening?.frames.map(({ png }) => png),
      isOpening ? [file(header(4, 3), pixels('one'), end)] : undefined,
      what,
    );
  }
  t.end();
});

type Drawn = Pick<ApngFrame, 'left' | 'top' | 'width' | 'height' | 'dispose' | 'blend'> & { readonly rgba: Uint8Array };

const CANVAS = { width: 3, height: 2 };
const drawnFrame: fc.Arbitrary<Drawn> = fc
  .record({ left: fc.nat(CANVAS.width - 1), top: fc.nat(CANVAS.height - 1) })
  .chain(({ left, top }) =>
    fc
      .record({
        width: fc.integer({ min: 1, max: CANVAS.width - left }),
        height: fc.integer({ min: 1, max: CANVAS.height - top }),
      })
      .chain(({ width, height }) =>
        fc.record({
          left: fc.constant(left),
          top: fc.constant(top),
          width: fc.constant(width),
          height: fc.constant(height),
          dispose: fc.constantFrom('none', 'background', 'previous'),
          blend: fc.constantFrom('source', 'over'),
          rgba: fc.uint8Array({ minLength: width * height * 4, maxLength: width * height * 4 }),
        }),
      ),
  );

void t.test('frames are composed as the standard says, pixel by pixel', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(drawnFrame, { minLength: 1, maxLength: 5 }), async (drawn) => {
      const frames = drawn.map(({ rgba, ...frame }) => ({ ...frame, delayMs: 10, png: Buffer.from(rgba) }));
      const pages = await composeApng({ ...CANVAS, plays: 0, frames }, async (png) => png);
      t.same([...pages], shown(drawn));
    }),
    { numRuns: 150 },
  );
  const full = {
    left: 0,
    top: 0,
    ...CANVAS,
    dispose: 'none',
    blend: 'over',
    delayMs: 10,
    png: Buffer.alloc(23),
  } as const;
  await t.rejects(
    composeApng({ ...CANVAS, plays: 0, frames: [full] }, async (png) => png),
    'too few pixels',
  );
});

/** Pages one below the other, by the words of the standard (PNG, third edition, 11.3.3.2 and 13.16). */
function shown(frames: readonly Drawn[]): readonly number[] {
  let canvas: readonly (readonly number[])[] = Array.from({ length: CANVAS.width * CANVAS.height }, () => [0, 0, 0, 0]);
  const pages: number[] = [];
  for (const [index, frame] of frames.entries()) {
    const before = canvas;
    const inFrame = (place: number): number | undefined => {
      const [x, y] = [(place % CANVAS.width) - frame.left, Math.floor(place / CANVAS.width) - frame.top];
      return x >= 0 && y >= 0 && x < frame.width && y < frame.height ? y * frame.width + x : undefined;
    };
    canvas = before.map((below, place) => {
      const at = inFrame(place);
      if (at === undefined) return below;
      const above = [...frame.rgba.subarray(at * 4, at * 4 + 4)];
      return frame.blend === 'source' ? above : over(above, below);
    });
    pages.push(...canvas.flat());
    const restored = frame.dispose === 'previous' && index > 0;
    if (restored) canvas = before;
    else if (frame.dispose !== 'none')
      canvas = canvas.map((pixel, place) => (inFrame(place) === undefined ? pixel : [0, 0, 0, 0]));
  }
  return pages;
}

function over(above: readonly number[], below: readonly number[]): readonly number[] {
  const [a = 0, b = 0] = [above[3], below[3]];
  if (a === 0) return below;
  // All in units of 1/65025, so that only the last division is rounded.
  const [aboveWeight, belowWeight] = [a * 255, b * (255 - a)];
  const weight = aboveWeight + belowWeight;
  const rounded = (of: number, by: number): number => Math.floor((2 * of + by) / (2 * by));
  return [
    ...[0, 1, 2].map((channel) =>
      rounded((above[channel] ?? 0) * aboveWeight + (below[channel] ?? 0) * belowWeight, weight),
    ),
    rounded(weight, 255),
  ];
}
