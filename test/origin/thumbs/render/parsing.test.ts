import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import t from 'tap';
import { isEstimated, readProbe, readProgress } from '../../../../origin/thumbs/render/probe.js';
import { clip, parseFromChild, parseToChild } from '../../../../origin/thumbs/render/protocol.js';

type Json = Readonly<Record<string, unknown>>;

/** A copy in which the value at `path` is another one, or is left out if it is undefined. */
function changed(value: unknown, path: readonly string[], to: unknown): unknown {
  const [name, ...rest] = path;
  if (name === undefined) return to;
  const copy: Record<string, unknown> = { ...(value as Json) };
  copy[name] = changed(copy[name], rest, to);
  return Array.isArray(value) ? Object.values(copy) : copy;
}

/** Values of which a few are right in each place. */
const VALUES: readonly unknown[] = [
  undefined,
  null,
  true,
  -1,
  0,
  0.5,
  1,
  8,
  9,
  2 ** 53,
  'x',
  '',
  [],
  [1],
  {},
  { x: 1 },
];
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) >= 0;
const isText = (value: unknown): boolean => typeof value === 'string';
const isFlag = (value: unknown): boolean => typeof value === 'boolean';
const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value);
const isNullOr =
  (right: (value: unknown) => boolean) =>
  (value: unknown): boolean =>
    value === null || right(value);
const never = (): boolean => false;

type Place = readonly [path: string, right: (value: unknown) => boolean];

/** Puts each value in each place, and asks for the message itself, or for nothing, from the parser. */
function tryPlaces(whole: Json, places: readonly Place[], parse: (value: unknown) => unknown): void {
  assert.deepEqual(parse(whole), whole);
  for (const [path, right] of places) {
    for (const value of VALUES) {
      const message = changed(whole, path.split('.'), value);
      const what = `${path} ${JSON.stringify(value)}`;
      assert.deepEqual(parse(message), right(value) ? message : undefined, what);
    }
  }
}

const facts = { width: 1, height: 2, frames: 3, orientation: 4, thumbhash: 'aA0+/=' };
const thumb = { variant: '160', format: 'webp', file: '160.webp', width: 1, height: 2, animated: true };
const factPlaces = (at: string): readonly Place[] => [
  [at, never],
  [`${at}.width`, isNullOr(isCount)],
  [`${at}.height`, isNullOr(isCount)],
  [`${at}.frames`, isNullOr(isCount)],
  [`${at}.orientation`, isNullOr((value) => value === 1 || value === 8)],
  [`${at}.thumbhash`, isNullOr((value) => value === 'x')],
];
const thumbPlaces = (at: string): readonly Place[] => [
  [at, (value) => Array.isArray(value) && value.length === 0],
  [`${at}.0`, never],
  [`${at}.0.variant`, isText],
  [`${at}.0.format`, never],
  [`${at}.0.file`, never],
  [`${at}.0.width`, isCount],
  [`${at}.0.height`, isCount],
  [`${at}.0.animated`, isFlag],
];

void t.test('a child is believed only what is exactly as listed', (t) => {
  t.same(parseFromChild({ t: 'ready', more: 1 }), { t: 'ready' });
  for (const value of VALUES) t.equal(parseFromChild(value), undefined);
  tryPlaces(
    { t: 'early', job: 1, thumbs: [thumb], thumbhash: 'aA0+/=' },
    [['t', never], ['job', isCount], ['thumbhash', isNullOr((value) => value === 'x')], ...thumbPlaces('thumbs')],
    parseFromChild,
  );
  tryPlaces(
    { t: 'done', job: 1, result: { kind: 'rendered', facts, thumbs: [thumb] } },
    [
      ['t', never],
      ['job', isCount],
      ['result', never],
      ['result.kind', never],
      ...factPlaces('result.facts'),
      ...thumbPlaces('result.thumbs'),
    ],
    parseFromChild,
  );
  tryPlaces(
    { t: 'done', job: 1, result: { kind: 'refused', reason: 'broken_image', facts, detail: 'why' } },
    [['result.reason', never], ['result.detail', isText], ...factPlaces('result.facts')],
    parseFromChild,
  );
  tryPlaces(
    { t: 'done', job: 1, result: { kind: 'failed', code: 'ENOSPC', detail: 'why' } },
    [
      ['result.code', isNullOr(isText)],
      ['result.detail', isText],
    ],
    parseFromChild,
  );
  t.end();
});

void t.test('the names, the number and the texts that a child gives are bounded', (t) => {
  const done = (result: Json): unknown => parseFromChild({ t: 'done', job: 1, result });
  const parsed = (result: Json): Json | undefined => (done(result) as { readonly result: Json } | undefined)?.result;
  for (const format of ['webp', 'jpeg', 'png', 'avif']) {
    const result = { kind: 'rendered', facts, thumbs: [{ ...thumb, format, file: `a-_9.${format}` }] };
    t.same(parsed(result), result, format);
  }
  for (const [file, right] of [
    [`${'a'.repeat(64)}.png`, true],
    [`${'a'.repeat(65)}.png`, false],
    ['.png', false],
    ['A.png', false],
    ['a/b.png', false],
    ['..png', false],
    ['a.png ', false],
    [' a.png', false],
    ['a.gif', false],
  ] as const) {
    t.equal(done({ kind: 'rendered', facts, thumbs: [{ ...thumb, file }] }) !== undefined, right, file);
  }
  t.equal(
    done({ kind: 'rendered', facts, thumbs: [{ ...thumb, file: ['160.webp'] }] }),
    undefined,
    'a list of one name',
  );
  const many = (length: number): unknown =>
    done({ kind: 'rendered', facts, thumbs: Array.from({ length }, () => thumb) });
  t.ok(many(100));
  t.equal(many(101), undefined);
  const hash = (thumbhash: string): unknown => done({ kind: 'rendered', facts: { ...facts, thumbhash }, thumbs: [] });
  t.ok(hash('A'.repeat(64)));
  for (const wrong of ['', 'A'.repeat(65), 'a-b', ' A', 'A\n']) t.equal(hash(wrong), undefined, wrong);
  t.equal(parsed({ kind: 'refused', reason: 'failed', facts, detail: 'd'.repeat(501) })?.['detail'], 'd'.repeat(500));
  t.same(parsed({ kind: 'failed', code: 'c'.repeat(65), detail: 'd'.repeat(501) }), {
    kind: 'failed',
    code: 'c'.repeat(64),
    detail: 'd'.repeat(500),
  });
  t.equal(clip('as it is'), 'as it is');
  t.end();
});

void t.test('a child takes only a request that has what rendering needs', (t) => {
  const settings = {
    variants: [{ name: '160', width: 160, height: 0, fit: 'inside' }],
    defaultVariant: '160',
    formats: { webp: {}, jpeg: {}, png: {}, avif: {} },
    animation: { framesMax: 1 },
    pixelsMax: 1,
    sourceMaxBytes: 2,
    scansMax: 3,
    framesMax: 4,
  };
  const request = { input: 'in', folder: 'out', upright: true, animate: false, settings };
  const at = (name: string, right: Place[1]): Place => [`request.settings.${name}`, right];
  tryPlaces(
    { t: 'render', job: 1, request },
    [
      ['t', never],
      ['job', isCount],
      ['request', never],
      ['request.input', isText],
      ['request.folder', isText],
      ['request.upright', isFlag],
      ['request.animate', isFlag],
      ['request.settings', never],
      at('variants', (value) => Array.isArray(value) && value.length === 0),
      at('variants.0', never),
      at('variants.0.width', isCount),
      at('variants.0.height', isCount),
      at('defaultVariant', isText),
      at('formats', never),
      ...['webp', 'jpeg', 'png', 'avif'].map((format) => at(`formats.${format}`, isObject)),
      at('animation', never),
      at('animation.framesMax', isCount),
      ...['pixelsMax', 'sourceMaxBytes', 'scansMax', 'framesMax'].map((name) => at(name, isCount)),
    ],
    parseToChild,
  );
  for (const value of VALUES) t.equal(parseToChild(value), undefined);
  t.end();
});

const film = { index: 3, codec_type: 'video', width: 640, height: 480 };
const shownOf = (stream: Json): unknown => readProbe(JSON.stringify({ streams: [stream] }))?.shown ?? null;

void t.test('a picture in a film is shown upright and with square pixels', (t) => {
  const size = (width: number, height: number): object => ({ width, height });
  const aspects: readonly (readonly [aspect: unknown, width: number])[] = [
    ['4:3', 853],
    ['1:1', 640],
    ['10:1', 6_400],
    ['11:1', 640],
    ['1:10', 64],
    ['1:11', 640],
    ['999999:999999', 640],
    ['1999998:999999', 640],
    ['0:1', 640],
    ['1:0', 640],
    ['4:3:2', 640],
    ['-4:3', 640],
    [1.5, 640],
  ];
  for (const [aspect, width] of aspects) {
    t.same(shownOf({ ...film, sample_aspect_ratio: aspect }), size(width, 480), String(aspect));
  }
  t.same(shownOf({ ...film, width: 1, sample_aspect_ratio: '1:10' }), size(1, 480), 'never narrower than a pixel');
  const turned = size(480, 640);
  const upright = size(640, 480);
  const turns: readonly (readonly [stream: Json, shown: object])[] = [
    ...[90, -90, 270, 450, 89, 46, 134].map((rotation) => [{ side_data_list: [{ rotation }] }, turned] as const),
    ...[0, 180, -180, 360, 44, 136].map((rotation) => [{ side_data_list: [{ rotation }] }, upright] as const),
    [{ side_data_list: [{}, { rotation: 90 }] }, turned],
    [{ side_data_list: [null, 7] }, upright],
    [{ side_data_list: [{ rotation: '90' }] }, upright],
    [{ side_data_list: { rotation: 90 } }, upright],
    [{ tags: { rotate: '90' } }, turned],
    [{ tags: { rotate: 'x' } }, upright],
    [{ tags: { rotate: '90' }, side_data_list: [{ rotation: 0 }] }, upright],
    [{ tags: 'rotate' }, upright],
  ];
  for (const [more, shown] of turns) t.same(shownOf({ ...film, ...more }), shown, JSON.stringify(more));
  t.end();
});

void t.test('the still is made from the first picture that is not a cover', (t) => {
  const cover = { ...film, index: 0, disposition: { attached_pic: 1 } };
  const sound = { index: 9, codec_type: 'audio' };
  const shown = { width: 640, height: 480 };
  const stream = { index: 3, shown, cover: false };
  const asCover = { index: 0, shown, cover: true };
  const cases: readonly (readonly [what: string, streams: readonly unknown[], media: object | undefined])[] = [
    ['a film with a cover', [sound, cover, film], { shown, stream, durationMs: null }],
    ['two films', [film, { ...film, index: 4 }], { shown, stream, durationMs: null }],
    ['music with a cover', [sound, cover], { shown: null, stream: asCover, durationMs: null }],
    ['a cover alone', [cover], { shown: null, stream: asCover, durationMs: null }],
    ['music', [sound], { shown: null, stream: null, durationMs: null }],
    [
      'a film that is not a cover',
      [{ ...film, disposition: { attached_pic: 0 } }],
      { shown, stream, durationMs: null },
    ],
    ['subtitles', [{ ...film, codec_type: 'subtitle' }], undefined],
    ['no stream', [], undefined],
    ['what are no streams', [null, 7, 'x'], undefined],
    ...['width', 'height'].flatMap((side) =>
      [0, -1, 1.5, '640', undefined].map(
        (value) => [`${side} ${value}`, [{ ...film, [side]: value }], undefined] as const,
      ),
    ),
    ...['3', 1.5, undefined].map((index) => [`index ${index}`, [{ ...film, index }], undefined] as const),
    [
      'a smallest picture',
      [{ ...film, width: 1, height: 1 }],
      {
        shown: { width: 1, height: 1 },
        stream: { index: 3, shown: { width: 1, height: 1 }, cover: false },
        durationMs: null,
      },
    ],
  ];
  for (const [what, streams, media] of cases) t.same(readProbe(JSON.stringify({ streams })), media, what);
  for (const text of ['', '{', 'null', '7', '{}', '{"streams":{}}']) t.equal(readProbe(text), undefined, text);
  t.end();
});

void t.test('a duration is that of the file, or of the first stream that has one', (t) => {
  const durationOf = (document: Json): unknown => readProbe(JSON.stringify(document))?.durationMs;
  const sound = { codec_type: 'audio' };
  const cases: readonly (readonly [document: Json, durationMs: number | null])[] = [
    [{ streams: [sound], format: { duration: '1.5004' } }, 1_500],
    [{ streams: [{ ...sound, duration: '3' }], format: { duration: '2' } }, 2_000],
    [
      { streams: [sound, { ...sound, duration: '3' }, { ...sound, duration: '4' }], format: { duration: 'N/A' } },
      3_000,
    ],
    [
      {
        streams: [
          { ...sound, duration: '0' },
          { ...sound, duration: '4' },
        ],
      },
      4_000,
    ],
    [{ streams: [sound], format: { duration: '0' } }, null],
    [{ streams: [sound], format: { duration: '-1' } }, null],
    [{ streams: [sound], format: { duration: '9999999' } }, 9_999_999_000],
    [{ streams: [sound], format: { duration: '10000000' } }, null],
    [{ streams: [sound], format: { duration: 2 } }, null],
    [{ streams: [sound], format: null }, null],
  ];
  for (const [document, durationMs] of cases) t.equal(durationOf(document), durationMs, JSON.stringify(document));

  t.equal(
    readProgress('out_time=00:00:01.000000\nprogress=continue\nout_time=01:02:03.500000\nprogress=end\n'),
    3_723_500,
  );
  t.equal(readProgress('out_time=100:00:00.000000 \n'), 360_000_000);
  for (const none of [
    '',
    'out_time=N/A\n',
    'x out_time=00:00:01.0\n',
    'out_time=00:00:01.0 x\n',
    'out_time=00:00:00.000000\n',
  ]) {
    t.equal(readProgress(none), null, none);
  }
  t.ok(isEstimated('[mp3 @ 0x1] Estimating duration from bitrate, this may be inaccurate\n'));
  t.notOk(isEstimated(''));
  t.end();
});

void t.test('whatever ffprobe prints, its values make sense', (t) => {
  const value = fc.oneof(fc.integer(), fc.double(), fc.string(), fc.constantFrom(null, 'video', '90', '1:1', {}, []));
  const stream = fc.record(
    {
      index: value,
      codec_type: fc.constantFrom('video', 'audio'),
      width: value,
      height: value,
      sample_aspect_ratio: value,
      duration: value,
      tags: fc.record({ rotate: value }, { requiredKeys: [] }),
      side_data_list: fc.array(fc.record({ rotation: value })),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.array(stream), value, (streams, duration) => {
      const media = readProbe(JSON.stringify({ streams, format: { duration } }));
      for (const side of [media?.shown?.width, media?.shown?.height, media?.durationMs]) {
        assert.ok(side === undefined || side === null || (Number.isInteger(side) && side >= 0), String(side));
      }
    }),
    { numRuns: 100 },
  );
  t.end();
});
