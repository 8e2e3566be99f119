/** The steps of a job, and what operators do with jobs, over doubles of the store, the children and the tools. */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import { type BlobKey, type BlobStore, type Place, partsOf } from '../../../origin/blobs/blob-store.js';
import type { DeadJob } from '../../../origin/meta/jobs.js';
import {
  type BlobRecord,
  NO_FACTS,
  type PictureFacts,
  type ThumbMade,
  type ThumbState,
} from '../../../origin/meta/media.js';
import type { ThumbOutcome } from '../../../origin/meta/store.js';
import type { ThumbsConfig } from '../../../origin/thumbs/config.js';
import { type JobEnd, makeThumbs } from '../../../origin/thumbs/job.js';
import {
  type BackfillProgress,
  backfillThumbs,
  isOutdated,
  reportQueue,
  retryThumbs,
} from '../../../origin/thumbs/maintenance.js';
import type { ToolOutcome } from '../../../origin/thumbs/render/media-tools.js';
import type { ProbedMedia } from '../../../origin/thumbs/render/probe.js';
import {
  NO_RENDERED_FACTS,
  type RenderedThumb,
  type RenderRequest,
  type RenderResult,
} from '../../../origin/thumbs/render/protocol.js';
import { type EarlyThumb, readThumbs, storeThumbs } from '../../../origin/thumbs/store-thumb.js';
import type { Sha256 } from '../../../src/ids.js';
import { createSlots } from '../../../src/slots.js';
import { box, heifOf, irot } from '../../kit/heif.js';
import { mediaKey, PLACE } from '../../kit/origin/keys.js';
import { thumbsConfig } from '../../kit/origin/thumb-fixture.js';
import { until } from '../../kit/until.js';

const never = new AbortController().signal;
const sha256Of = (bytes: string): Sha256 => createHash('sha256').update(bytes).digest('hex') as Sha256;
const SOURCE = sha256Of('the original');

function recordOf(mime: string, given: Partial<BlobRecord> = {}): BlobRecord {
  return {
    sha256: SOURCE,
    place: PLACE,
    sizeBytes: 12,
    mime,
    storedAt: 0,
    picture: NO_FACTS,
    thumbs: { kind: 'pending' },
    quarantine: null,
    ...given,
  };
}

const rendered = (name: string, given: Partial<RenderedThumb> = {}): RenderedThumb => ({
  variant: name,
  format: 'webp',
  file: `${name}.webp`,
  width: 4,
  height: 3,
  animated: false,
  ...given,
});
const facts = { ...NO_RENDERED_FACTS, width: 40, height: 30, frames: 2, orientation: 6, thumbhash: 'hash' };

/** A metadata store that records nothing. */
const NOTHING_RECORDED = { intend: async () => undefined, withdraw: async (keys: readonly BlobKey[]) => keys };

interface Working {
  readonly config?: Partial<ThumbsConfig>;
  readonly mime?: string;
  readonly blob?: Partial<BlobRecord>;
  /** What a child makes of it. */
  readonly result?: RenderResult | 'lost';
  /** Thumbnails that are there before the others. */
  readonly early?: readonly RenderedThumb[];
  readonly probe?: ToolOutcome<ProbedMedia>;
  readonly poster?: ToolOutcome<string>;
  readonly heif?: ToolOutcome<string>;
  readonly installed?: { readonly ffmpeg: boolean; readonly heif: boolean };
  readonly stored?: 'as file' | 'as bytes' | 'not at all';
  readonly original?: Buffer;
  readonly animate?: boolean;
}

/** Runs one job. `asked` is what the child and the tools were asked to do. */
async function work(t: Test, given: Working) {
  const stageFolder = t.testdir({});
  const { stored = 'as file', original = Buffer.from('the original') } = given;
  const own = join(stageFolder, 'stored original');
  writeFileSync(own, original);
  const asked: unknown[] = [];
  const adopted: unknown[] = [];
  const intended: BlobKey[] = [];
  const shown: (readonly EarlyThumb[])[] = [];
  const requests: RenderRequest[] = [];
  const places = new Set<Place | undefined>();
  const toolSlots = createSlots(1);
  const tool = <T>(
    name: string,
    outcome: ToolOutcome<T> | undefined,
    ...details: readonly unknown[]
  ): ToolOutcome<T> => {
    asked.push([name, ...details]);
    return outcome ?? { kind: 'broken', detail: `${name} is not expected` };
  };
  const blobs = {
    stageFolder,
    fileOf: (key: BlobKey) => (stored === 'as bytes' || key !== mediaKey(SOURCE) ? undefined : own),
    stat: async () => (stored === 'as file' ? 12 : undefined),
    read: async () =>
      stored === 'as bytes'
        ? { kind: 'found', sizeBytes: original.length, body: Readable.from([original]) }
        : { kind: 'missing' },
    async adopt(path: string, key: BlobKey, { sizeBytes, sha256 }: ThumbMade) {
      t.ok(intended.includes(key), 'what is stored was intended before');
      const place = partsOf(key)?.place;
      adopted.push([readFileSync(path, 'utf8'), { ...partsOf(key), place: undefined }, sizeBytes, sha256]);
      places.add(place);
    },
  } as unknown as BlobStore;
  const result: RenderResult | 'lost' = given.result ?? { kind: 'rendered', facts, thumbs: [rendered('160')] };
  const end = await makeThumbs(
    {
      config: { ...thumbsConfig(), ...given.config },
      meta: { ...NOTHING_RECORDED, intend: async (keys) => void intended.push(...keys) },
      blobs,
      pool: {
        run: async (request, priority, _signal, onEarly) => {
          requests.push(request);
          asked.push(['render', priority, request.upright, request.animate]);
          for (const { file } of result !== 'lost' && result.kind === 'rendered' ? result.thumbs : []) {
            writeFileSync(join(request.folder, file), `bytes of ${file}`);
          }
          if (given.early !== undefined) {
            for (const { file } of given.early) writeFileSync(join(request.folder, file), `bytes of ${file}`);
            onEarly(given.early, 'hash');
            await until('they are shown', () => shown.length > 0);
          }
          return result === 'lost' ? { kind: 'lost', loss: 'memory', detail: 'much' } : { kind: 'done', result };
        },
        keepReady: () => undefined,
        counts: () => ({ children: 0, busy: 0 }),
        startFailure: () => null,
        close: async () => undefined,
      },
      tools: {
        installed: given.installed ?? { ffmpeg: true, heif: true },
        missing: null,
        probe: async (_job: unknown, demuxer: unknown) => tool('probe', given.probe, demuxer),
        poster: async (_job: unknown, demuxer: unknown, media: ProbedMedia, size: unknown) =>
          tool('poster', given.poster, demuxer, media.stream?.index, size),
        convertHeif: async (_job: unknown, format: unknown) => tool('heif', given.heif, format),
      },
      toolSlots,
    },
    {
      blob: recordOf(given.mime ?? 'image/png', given.blob),
      priority: 2,
      animate: given.animate ?? true,
      onEarly: (early) => shown.push(early),
      onHash: (thumbhash) => t.equal(thumbhash, 'hash'),
    },
    never,
  );
  (await toolSlots.take(AbortSignal.timeout(1_000)))();
  t.same(readdirSync(stageFolder), ['stored original'], 'the folder of the job is gone');
  t.ok(places.size <= 1, 'what one run stores is in one place');
  // Each run has a new place; here they are compared without it.
  const unplaced = end.kind === 'made' ? { ...end, made: end.made.map((thumb) => ({ ...thumb, place: PLACE })) } : end;
  const early = shown.map((thumbs) => thumbs.map((thumb) => ({ ...thumb, place: PLACE })));
  return { end: unplaced, asked, adopted, shown: early, requests };
}

const made = (name: string, given: Partial<ThumbMade> = {}): ThumbMade => ({
  variant: name,
  format: 'webp',
  sha256: sha256Of(`bytes of ${name}.webp`),
  place: PLACE,
  sizeBytes: `bytes of ${name}.webp`.length,
  width: 4,
  height: 3,
  animated: false,
  ...given,
});
const refused = (reason: string, detail: string, picture: PictureFacts = NO_FACTS): object => ({
  kind: 'refused',
  reason,
  picture,
  detail,
});

void t.test('a picture is rendered by a child, and its thumbnails are stored under their own hashes', async (t) => {
  for (const stored of ['as file', 'as bytes'] as const) {
    const thumbs = [rendered('160'), rendered('320', { animated: true })];
    const { end, asked, adopted, requests } = await work(t, { stored, result: { kind: 'rendered', facts, thumbs } });
    t.same(end, {
      kind: 'made',
      made: [made('160'), made('320', { animated: true })],
      picture: { ...NO_FACTS, ...facts },
    });
    t.same(asked, [['render', 2, false, true]]);
    // Both are stored at once: either may come first.
    t.same(
      adopted.toSorted((a, b) => String(a).localeCompare(String(b))),
      ['160', '320'].map((name) => [
        `bytes of ${name}.webp`,
        { kind: 'thumb', source: SOURCE, sha256: made(name).sha256, place: undefined },
        made(name).sizeBytes,
        made(name).sha256,
      ]),
    );
    const [request] = requests;
    t.match(request?.input, stored === 'as file' ? /\/stored original$/ : /\/original$/);
    const { variants, defaultVariant, formats, animation, pixelsMax, sourceMaxBytes, scansMax, framesMax } =
      thumbsConfig();
    t.same(request?.settings, {
      variants,
      defaultVariant,
      formats,
      animation,
      pixelsMax,
      sourceMaxBytes,
      scansMax,
      framesMax,
    });
  }
  t.same((await work(t, { stored: 'not at all' })).end, { kind: 'missing' });
  t.same((await work(t, { animate: false })).asked, [['render', 2, false, false]]);
});

void t.test('some thumbnails can be shown before the others are made', async (t) => {
  const { shown } = await work(t, { early: [rendered('early')] });
  t.same(shown, [[{ ...made('early'), bytes: Buffer.from('bytes of early.webp') }]]);
});

void t.test('what a child refuses or cannot do ends the attempt', async (t) => {
  const result = { kind: 'refused', reason: 'too_many_pixels', facts, detail: 'many' } as const;
  t.same((await work(t, { result })).end, refused('too_many_pixels', 'many', { ...NO_FACTS, ...facts }));
  t.same((await work(t, { result: 'lost' })).end, { kind: 'lost', loss: 'memory', detail: 'much' });
  const failed = async (code: string | null): Promise<JobEnd> =>
    (await work(t, { result: { kind: 'failed', code, detail: 'no room' } })).end;
  t.same(await failed('ENOSPC'), { kind: 'lost', loss: 'resources', detail: 'ENOSPC no room' });
  t.same(await failed(null), { kind: 'lost', loss: 'resources', detail: 'no room' });
});

void t.test('types and sizes of which nothing is made are refused before anything is read', async (t) => {
  const config = { sourceMaxBytes: 100, video: { ...thumbsConfig().video, sourceMaxBytes: 200 } };
  const sized = async (mime: string, sizeBytes: number): Promise<string> => {
    const { end, asked } = await work(t, {
      mime,
      config,
      blob: { sizeBytes },
      probe: { kind: 'broken', detail: 'it was tried' },
    });
    if (end.kind !== 'refused') return end.kind;
    if (end.reason === 'too_expensive') t.same([end.detail, asked], [`${sizeBytes} bytes are beyond the limit`, []]);
    return end.reason;
  };
  t.same([await sized('image/png', 100), await sized('image/png', 101)], ['made', 'too_expensive']);
  t.same([await sized('video/mp4', 200), await sized('video/mp4', 201)], ['broken_image', 'too_expensive']);
  t.same(
    (await work(t, { mime: 'text/html' })).end,
    refused('unsupported_type', 'no thumbnails are made of text/html'),
  );
  t.same(
    (await work(t, { mime: 'video/mp4', installed: { ffmpeg: false, heif: true } })).end,
    refused('unsupported_type', 'no thumbnails are made of video/mp4'),
  );
});

const film: ProbedMedia = {
  shown: { width: 400, height: 300 },
  durationMs: 5_000,
  stream: { index: 1, shown: { width: 400, height: 300 }, cover: false },
};
const probed = (value: ProbedMedia): ToolOutcome<ProbedMedia> => ({ kind: 'done', value });

void t.test('a film gets the thumbnails of its poster, which say of the film only how it looks', async (t) => {
  const { end, asked, requests } = await work(t, {
    mime: 'video/webm',
    probe: probed(film),
    poster: { kind: 'done', value: '/the/poster.png' },
  });
  t.same(asked, [
    ['probe', 'matroska'],
    ['poster', 'matroska', 1, { width: 400, height: 300 }],
    ['render', 2, true, false],
  ]);
  t.equal(requests[0]?.input, '/the/poster.png');
  const picture = { ...NO_FACTS, width: 400, height: 300, durationMs: 5_000, thumbhash: 'hash' };
  t.same(end, { kind: 'made', made: [made('160')], picture });
  const large: ProbedMedia = {
    ...film,
    shown: { width: 4_000, height: 3_000 },
    stream: { index: 1, shown: { width: 4_000, height: 3_000 }, cover: false },
  };
  const { asked: ofLarge } = await work(t, {
    mime: 'video/mp4',
    probe: probed(large),
    poster: { kind: 'done', value: 'x' },
  });
  t.same(ofLarge[1], ['poster', 'mov', 1, { width: 1_280, height: 960 }], 'no larger than its largest thumbnail');
});

void t.test('a film that cannot be shown keeps what is known of it', async (t) => {
  const known = { ...NO_FACTS, width: 400, height: 300, durationMs: 5_000 };
  const poster = (outcome: ToolOutcome<string>): Promise<{ readonly end: JobEnd }> =>
    work(t, { mime: 'video/mp4', probe: probed(film), poster: outcome });
  t.same((await poster({ kind: 'broken', detail: 'no frame' })).end, refused('broken_image', 'no frame', known));
  t.same(
    (await poster({ kind: 'unsupported', detail: 'no codec' })).end,
    refused('unsupported_type', 'no codec', known),
  );
  t.same((await poster({ kind: 'lost', loss: 'time', detail: 'slow' })).end, {
    kind: 'lost',
    loss: 'time',
    detail: 'slow',
  });
  t.same(
    (await work(t, { mime: 'video/mp4', probe: { kind: 'unsupported', detail: 'what' } })).end,
    refused('unsupported_type', 'what'),
  );
  const still = { kind: 'done', value: 'x' } as const;
  const rejected = await work(t, {
    mime: 'video/mp4',
    probe: probed(film),
    poster: still,
    result: { kind: 'refused', reason: 'failed', facts, detail: 'f' },
  });
  t.same(rejected.end, refused('failed', 'f', { ...known, thumbhash: 'hash' }));
  t.same((await work(t, { mime: 'video/mp4', probe: probed(film), poster: still, result: 'lost' })).end, {
    kind: 'lost',
    loss: 'memory',
    detail: 'much',
  });
  const pixels = (pixelsMax: number): Promise<{ readonly end: JobEnd }> =>
    work(t, { mime: 'video/mp4', config: { pixelsMax }, probe: probed(film), poster: still });
  t.equal((await pixels(120_000)).end.kind, 'made');
  t.same((await pixels(119_999)).end, refused('too_many_pixels', '400 × 300 pixels are beyond the limit', known));
  const sound = await work(t, { mime: 'audio/mpeg', probe: probed({ shown: null, durationMs: 9_000, stream: null }) });
  t.same(sound.end, refused('unsupported_type', 'it has no picture', { ...NO_FACTS, durationMs: 9_000 }));
  const cover = { shown: null, durationMs: 9_000, stream: { index: 2, shown: { width: 10, height: 10 }, cover: true } };
  t.match((await work(t, { mime: 'audio/mpeg', probe: probed(cover), poster: still })).end, {
    kind: 'made',
    picture: { width: null, durationMs: 9_000 },
  });
});

void t.test('an AVIF that the picture library does not read is tried as a film', async (t) => {
  const broken = { kind: 'refused', reason: 'broken_image', facts, detail: 'no items' } as const;
  const asFilm = { mime: 'image/avif', probe: probed(film), poster: { kind: 'broken', detail: 'no frame' } } as const;
  const own = refused('broken_image', 'no items', { ...NO_FACTS, ...facts });
  t.same((await work(t, { ...asFilm, result: broken })).end, own, 'what is broken as both is broken as a picture');
  const unsupported = { ...asFilm, poster: { kind: 'unsupported', detail: 'no codec' } } as const;
  const filmed = await work(t, { ...unsupported, result: broken });
  t.same(
    filmed.end,
    refused('unsupported_type', 'no codec', { ...NO_FACTS, width: 400, height: 300 }),
    'without a duration, as a picture has none',
  );
  t.same((await work(t, { ...unsupported, result: { ...broken, reason: 'unsupported_type' } })).end, filmed.end);
  t.same(
    (await work(t, { ...unsupported, result: { ...broken, reason: 'too_many_pixels' } })).asked.length,
    1,
    'not for any other reason',
  );
  t.same((await work(t, { ...unsupported, result: broken, installed: { ffmpeg: false, heif: true } })).end, own);
  t.same((await work(t, { ...unsupported, result: broken, mime: 'image/png' })).end, own);
  t.equal((await work(t, asFilm)).end.kind, 'made', 'nor one that it reads');
});

void t.test('a HEIC without a header is refused before a converter sees it', async (t) => {
  const { end, asked } = await work(t, { mime: 'image/heic' });
  t.same([end, asked], [refused('broken_image', 'the header has no size'), []]);
});

void t.test('a HEIC is converted, and upright as its own transformations say', async (t) => {
  const plain = {
    coded: { type: 'hvc1', configuration: box('hvcC', Buffer.alloc(4)), width: 40, height: 30, data: Buffer.from('x') },
  };
  const converted = { kind: 'done', value: '/the/picture' } as const;
  const heic = (original: Buffer, given: Working = {}) =>
    work(t, { mime: 'image/heic', original, heif: converted, ...given });
  const turned = heifOf([{ ...plain, transformations: [irot(1)] }]);
  const { end, asked, requests } = await heic(turned);
  t.same(asked, [
    ['heif', 'jpg'],
    ['render', 2, true, false],
  ]);
  t.equal(requests[0]?.input, '/the/picture');
  const size = { ...NO_FACTS, width: 30, height: 40, orientation: 1, frames: 1 };
  t.same(end, { kind: 'made', made: [made('160')], picture: { ...size, thumbhash: 'hash' } });
  t.same(
    (await heic(heifOf([plain, { ...plain, alpha: true }]))).asked[0],
    ['heif', 'png'],
    'JPEG has no transparency',
  );
  t.equal((await heic(turned, { config: { pixelsMax: 1_200 } })).end.kind, 'made');
  const tooMany = await heic(turned, { config: { pixelsMax: 1_199 } });
  t.same(tooMany.end, refused('too_many_pixels', '30 × 40 pixels are beyond the limit', size));
  t.same(tooMany.asked, [], 'it is not converted');
  t.same(
    (await heic(turned, { heif: { kind: 'unsupported', detail: 'no HEVC' } })).end,
    refused('unsupported_type', 'no HEVC', size),
  );
});

void t.test('a child is believed no name, no size and no hash', async (t) => {
  const folder = t.testdir({});
  writeFileSync(join(folder, '160.webp'), 'bytes of 160.webp');
  const blobs = { adopt: async () => undefined } as unknown as BlobStore;
  const run = { source: SOURCE, place: PLACE, folder };
  const store = (file: string): Promise<unknown> =>
    storeThumbs({ meta: NOTHING_RECORDED, blobs }, run, [rendered('160', { file })], never);
  t.same(await store('160.webp'), [made('160')]);
  mkdirSync(join(folder, 'folder.webp'));
  symlinkSync(join(folder, '160.webp'), join(folder, 'link.webp'));
  await t.rejects(store('link.webp'), { message: 'a child names no plain file' });
  await t.rejects(store('nothing.webp'), { message: 'a child names no plain file' });
  await t.rejects(store('folder.webp'), { message: /plain files/ });
  await t.rejects(store('160.webp/x'), { code: 'ENOTDIR' }, 'other failures are those of the storage');
  t.same(await readThumbs([], run), []);
});

// What operators do.

const [A, B, C] = ['a', 'b', 'c'].map((digit) => digit.repeat(64)) as [Sha256, Sha256, Sha256];

void t.test('dead letters are queued again in steps, and those that die meanwhile are left', async (t) => {
  const steps: number[] = [];
  const deadJobs: readonly DeadJob[] = [{ sha256: A, attempts: 1, diedAt: 2, reason: 'why' }];
  const jobs = (dead: number, revived: readonly number[] = []) => {
    const left = [...revived];
    return {
      counts: async () => ({ waiting: 1, leased: 2, dead }),
      dead: async (limit: number) => deadJobs.slice(0, limit),
      nextReadyAt: async () => 77,
      revive: async (limit: number, now: number) => {
        t.equal(now, 5);
        steps.push(limit);
        return left.shift() ?? limit;
      },
    } as never;
  };
  const retry = async (...given: Parameters<typeof jobs>): Promise<readonly object[]> => {
    steps.length = 0;
    const told: object[] = [];
    for await (const step of retryThumbs({ jobs: jobs(...given) }, { now: () => 5 }, never)) told.push(step);
    return told;
  };
  t.same(await retry(1_200), [
    { revived: 500, left: 700 },
    { revived: 1_000, left: 200 },
    { revived: 1_200, left: 0 },
  ]);
  t.same(steps, [500, 500, 200]);
  t.same(await retry(0), []);
  t.same(await retry(10, [4, 0]), [{ revived: 4, left: 6 }], 'until there is none left');
  const stopped = retryThumbs({ jobs: jobs(1) }, { now: () => 5 }, AbortSignal.abort(new Error('enough')));
  await t.rejects(stopped.next(), { message: 'enough' });
  t.same(await reportQueue({ jobs: jobs(3) }, 9), { waiting: 1, leased: 2, dead: 3, deadJobs, nextReadyAt: 77 });
  t.same(await reportQueue({ jobs: jobs(3) }, 0), { waiting: 1, leased: 2, dead: 3, deadJobs: [], nextReadyAt: 77 });
});

const config: ThumbsConfig = {
  ...thumbsConfig(),
  variants: [
    { name: 's', width: 100, height: 0, fit: 'inside' },
    { name: 'l', width: 200, height: 0, fit: 'inside' },
  ],
  pixelsMax: 1_000,
  sourceMaxBytes: 50,
};
const avif: ThumbsConfig = {
  ...config,
  formats: { ...config.formats, avif: { ...config.formats.avif, enabled: true } },
};
const stored = (variant: 's' | 'l', format: ThumbMade['format'], given: Partial<ThumbMade> = {}): ThumbMade => {
  const [width, height] = variant === 's' ? [100, 75] : [200, 150];
  return { variant, format, sha256: A, place: PLACE, sizeBytes: 1, width, height, animated: false, ...given };
};
const both = (format: ThumbMade['format'], given: Partial<ThumbMade> = {}): readonly ThumbMade[] => [
  stored('s', format, given),
  stored('l', format, given),
];
const ready = (...thumbs: readonly ThumbMade[]): ThumbState => ({ kind: 'ready', made: thumbs });
const picture = { ...NO_FACTS, width: 400, height: 300 };

void t.test('a blob is outdated if it lacks what would be made now', (t) => {
  const outdated = (thumbs: ThumbState, given: Partial<BlobRecord> = {}, settings = config): boolean =>
    isOutdated(recordOf('image/png', { thumbs, picture, ...given }), settings);
  const whole = ready(...both('webp'), ...both('jpeg'));
  t.equal(outdated({ kind: 'pending' }), true);
  t.equal(outdated(whole), false);
  t.equal(outdated(ready(...both('webp'), ...both('png'))), false, 'transparency has PNG in place of JPEG');
  t.equal(outdated(ready(...both('webp'))), true);
  t.equal(outdated(ready(...both('webp'), stored('s', 'jpeg'))), true);
  t.equal(outdated(ready(...both('webp', { width: 99 }), ...both('jpeg'))), true, 'of another size');
  t.equal(outdated(ready(...both('webp', { height: 99 }), ...both('jpeg'))), true);
  t.equal(outdated(whole, {}, avif), true);
  t.equal(outdated(ready(...both('webp'), ...both('jpeg'), ...both('avif')), {}, avif), false);
  t.equal(
    outdated(ready(...both('webp', { animated: true }), ...both('jpeg')), {}, avif),
    false,
    'an animation has no AVIF',
  );
  t.equal(
    outdated(ready(stored('s', 'webp', { animated: true }), stored('l', 'webp'), ...both('jpeg')), {}, avif),
    true,
  );
  t.equal(outdated(ready(), { picture: NO_FACTS }), false, 'without a size nobody knows');
  t.equal(outdated(ready(), { picture: { ...picture, height: null } }), false);
  t.equal(outdated(ready(), { picture: { ...picture, width: null } }), false);
  const none = (
    reason: 'unsupported_type' | 'broken_image' | 'too_many_pixels' | 'too_expensive' | 'failed',
    given: Partial<BlobRecord> = {},
  ): boolean => outdated({ kind: 'none', reason }, given);
  t.same([none('broken_image'), none('failed')], [false, false]);
  t.equal(none('unsupported_type'), true, 'a tool may have been installed since');
  t.equal(none('unsupported_type', { picture: { ...picture, durationMs: 1 } }), false, 'it was there');
  const size = (width: number | null, height: number | null): Partial<BlobRecord> => ({
    picture: { ...NO_FACTS, width, height },
  });
  t.same(
    [
      none('too_many_pixels', size(100, 10)),
      none('too_many_pixels', size(1_001, 1)),
      none('too_many_pixels', size(1_000, null)),
      none('too_many_pixels', size(null, 1)),
    ],
    [true, false, true, false],
  );
  t.same([none('too_expensive', { sizeBytes: 50 }), none('too_expensive', { sizeBytes: 51 })], [true, false]);
  t.end();
});

void t.test('a backfill queues what lacks thumbnails, and takes surplus ones off the record', async (t) => {
  const whole = ready(...both('webp'), ...both('jpeg'));
  const surplus = ready(...both('webp'), ...both('jpeg'), ...both('avif'));
  const records = [
    recordOf('image/png', { sha256: A, thumbs: whole, picture }),
    recordOf('image/png', { sha256: B, thumbs: surplus, picture }),
    recordOf('image/png', { sha256: C, thumbs: { kind: 'pending' }, picture }),
    recordOf('image/png', { sha256: sha256Of('f'), thumbs: { kind: 'none', reason: 'broken_image' }, picture }),
    recordOf('text/plain', { sha256: sha256Of('d'), thumbs: { kind: 'pending' } }),
    recordOf('image/png', { sha256: sha256Of('e'), thumbs: surplus, picture: NO_FACTS }),
  ];
  const run = async (all: boolean, after: Sha256 | null = null) => {
    const done: unknown[] = [];
    const told: BackfillProgress[] = [];
    const pages = [records.slice(0, 2), records.slice(2)];
    const deps = {
      meta: {
        blobsAfter: async (from: Sha256 | null, limit: number) => {
          done.push(['page', from, limit]);
          const blobs = pages.shift() ?? [];
          return { blobs, next: pages.length === 0 ? null : B };
        },
        jobs: {
          add: async (sha256: Sha256, priority: string, now: number) => {
            await new Promise(setImmediate);
            done.push(['add', sha256, priority, now]);
          },
        },
        finishThumbs: async (sha256: Sha256, outcome: ThumbOutcome) => {
          await new Promise(setImmediate);
          done.push(['finish', sha256, outcome]);
        },
      },
      config,
      thumbs: { accepts: (mime: string) => mime.startsWith('image/') },
      clock: { now: () => 5 },
    };
    for await (const step of backfillThumbs(
      deps as unknown as Parameters<typeof backfillThumbs>[0],
      { all, after },
      never,
    ))
      told.push(step);
    return { done, told };
  };
  const some = await run(false);
  t.same(some.done, [
    ['page', null, 500],
    ['finish', B, { kind: 'made', made: [...both('webp'), ...both('jpeg')], picture: NO_FACTS }],
    ['page', B, 500],
    ['add', C, 'backfill', 5],
  ]);
  t.same(some.told, [
    { seen: 2, queued: 0, trimmed: 1, next: B },
    { seen: 6, queued: 1, trimmed: 1, next: null },
  ]);
  const all = await run(true, A);
  t.same(all.done[0], ['page', A, 500]);
  t.same(all.told.at(-1), { seen: 6, queued: 5, trimmed: 0, next: null }, 'what is made again is not trimmed');
  const stopped = backfillThumbs(
    {} as Parameters<typeof backfillThumbs>[0],
    { all: true, after: null },
    AbortSignal.abort(new Error('enough')),
  );
  await t.rejects(stopped.next(), { message: 'enough' });
});
