/** Films, posters and HEIC with doubles of the programs: what they are asked for, and what follows from their answers. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { openLauncher } from '../../../origin/thumbs/render/launcher.js';
import { findMediaTools, type MediaTools, type ToolJob } from '../../../origin/thumbs/render/media-tools.js';
import type { Demuxer } from '../../../origin/thumbs/types.js';
import { systemClock } from '../../../src/clock.js';
import { createLog } from '../../../src/log.js';
import { createMediaPrograms, type MediaPrograms } from '../../kit/origin/media-programs.js';
import { openThumbFixture, thumbsConfig } from '../../kit/origin/thumb-fixture.js';

const log = createLog('test', { level: 'silent' });

type Fixture = { readonly programs: MediaPrograms; readonly tools: MediaTools; readonly job: ToolJob };

async function fixtureOf(t: Test, video: Readonly<Record<string, unknown>> = {}): Promise<Fixture> {
  const folder = t.testdir({ programs: {}, job: {}, original: 'bytes' });
  const programs = await createMediaPrograms(join(folder, 'programs'));
  const config = thumbsConfig({ video: { ...programs.video, ...video }, pixels_max: 123_456 });
  const launcher = await openLauncher(folder, log);
  const tools = await findMediaTools(config, launcher, folder, systemClock);
  const job = { file: join(folder, 'original'), folder: join(folder, 'job'), signal: new AbortController().signal };
  return { programs, tools, job };
}

/** Commands that print a value as ffprobe does. */
function printed(value: unknown): string {
  return `cat <<'END'\n${JSON.stringify(value)}\nEND`;
}

const PICTURE = { index: 1, codec_type: 'video', width: 640, height: 360 };
const SOUND = { index: 0, codec_type: 'audio' };
const failing = (message: string): string => `echo '${message}' >&2; exit 1`;

void t.test('the programs that are absent are named, and switched off is said', async (t) => {
  const { tools } = await fixtureOf(t);
  t.match(tools, { installed: { ffmpeg: true, heif: true }, missing: null });
  const absent = await fixtureOf(t, { ffprobe: '/nowhere/ffprobe' });
  t.match(absent.tools, { installed: { ffmpeg: false, heif: true }, missing: 'not installed: ffprobe' });
  const heif = await fixtureOf(t, { heif_convert: '/nowhere/heif-convert' });
  t.match(heif.tools, { installed: { ffmpeg: true, heif: false }, missing: 'not installed: heif-convert' });
  const off = await fixtureOf(t, { enabled: false });
  t.match(off.tools, { installed: { ffmpeg: false, heif: false }, missing: 'switched off' });
  t.same(await off.programs.calls('ffmpeg'), [], 'what is switched off is not started');
});

type Answers = { readonly ffprobe: string; readonly ffmpeg?: string; readonly demuxer?: Demuxer };

const SIZED = { index: 1, shown: { width: 640, height: 360 }, cover: false };
const PROBES: readonly (readonly [what: string, answers: Answers, outcome: unknown])[] = [
  [
    'a film',
    { ffprobe: printed({ streams: [SOUND, PICTURE], format: { duration: '2.5' } }) },
    { kind: 'done', value: { durationMs: 2_500, shown: SIZED.shown, stream: SIZED } },
  ],
  [
    'a film that is stored turned',
    {
      ffprobe: printed({
        streams: [{ ...PICTURE, side_data_list: [{ rotation: -90 }] }],
        format: { duration: '1' },
      }),
    },
    { kind: 'done', value: { durationMs: 1_000, shown: { width: 360, height: 640 } } },
  ],
  [
    'music with a cover',
    {
      ffprobe: printed({
        streams: [SOUND, { ...PICTURE, disposition: { attached_pic: 1 } }],
        format: { duration: '3' },
      }),
    },
    { kind: 'done', value: { durationMs: 3_000, shown: null, stream: { ...SIZED, cover: true } } },
  ],
  [
    'a film with a cover',
    {
      ffprobe: printed({
        streams: [{ ...PICTURE, index: 7, disposition: { attached_pic: 1 } }, PICTURE],
        format: { duration: '3' },
      }),
    },
    { kind: 'done', value: { shown: SIZED.shown, stream: SIZED } },
  ],
  [
    'sound alone',
    { ffprobe: printed({ streams: [SOUND], format: { duration: '4' } }) },
    { kind: 'done', value: { durationMs: 4_000, shown: null, stream: null } },
  ],
  [
    'neither picture nor sound',
    { ffprobe: printed({ streams: [], format: { duration: '4' } }) },
    { kind: 'broken', detail: 'it has neither picture nor sound' },
  ],
  [
    'a broken file',
    { ffprobe: failing('moov atom not found') },
    { kind: 'broken', detail: 'ffprobe: moov atom not found' },
  ],
  ['output that is no JSON', { ffprobe: 'echo what' }, { kind: 'broken' }],
  [
    'a codec that may not be opened, in a container that states a duration',
    {
      ffprobe: failing('Codec (x) not on whitelist'),
      ffmpeg: `echo '  Duration: 01:02:03.45, start: 0' >&2; exit 1`,
    },
    { kind: 'done', value: { durationMs: 3_723_450, shown: null, stream: null } },
  ],
  [
    'a codec that may not be opened, without a duration',
    { ffprobe: failing('Codec (x) not on whitelist'), ffmpeg: failing('  Duration: N/A, start: 0') },
    { kind: 'unsupported', detail: 'ffprobe: Codec (x) not on whitelist' },
  ],
  [
    'a recording without a duration: its last packet',
    {
      ffprobe: printed({ streams: [SOUND] }),
      ffmpeg: 'echo out_time=00:00:01.000000; echo out_time=00:00:07.250000; echo progress=end',
    },
    { kind: 'done', value: { durationMs: 7_250 } },
  ],
  [
    'a recording without a duration whose packets cannot be read',
    { ffprobe: printed({ streams: [SOUND] }), ffmpeg: `echo out_time=00:00:07.250000; ${failing('broken')}` },
    { kind: 'done', value: { durationMs: null } },
  ],
  [
    'a duration that is guessed from the bit rate: the last packet counts',
    {
      demuxer: 'mp3',
      ffprobe: `echo 'Estimating duration from bitrate, this may be inaccurate' >&2; ${printed({
        streams: [SOUND],
        format: { duration: '99' },
      })}`,
      ffmpeg: 'echo out_time=00:00:05.000000',
    },
    { kind: 'done', value: { durationMs: 5_000 } },
  ],
  [
    'a guess is kept where the packets cannot be read',
    {
      demuxer: 'mp3',
      ffprobe: `echo 'Estimating duration from bitrate' >&2; ${printed({ streams: [SOUND], format: { duration: '99' } })}`,
      ffmpeg: 'exit 1',
    },
    { kind: 'done', value: { durationMs: 99_000 } },
  ],
  ['a program that the kernel ends', { ffprobe: 'kill -KILL $$' }, { kind: 'lost', loss: 'cpu', detail: 'ffprobe' }],
  ['a program that crashes', { ffprobe: 'kill -SEGV $$' }, { kind: 'lost', loss: 'exit' }],
  [
    'a program that has gone',
    { ffprobe: 'exit 127' },
    { kind: 'lost', loss: 'start', detail: 'ffprobe is not installed' },
  ],
];

void t.test('what is learnt about a file', async (t) => {
  for (const [what, { ffprobe, ffmpeg = 'exit 1', demuxer = 'mov' }, outcome] of PROBES) {
    await t.test(what, async (t) => {
      const { programs, tools, job } = await fixtureOf(t);
      await programs.does('ffprobe', ffprobe);
      await programs.does('ffmpeg', ffmpeg);
      t.match(await tools.probe(job, demuxer), outcome);
    });
  }
});

void t.test('a file is read as the container of its type, with listed protocols and codecs alone', async (t) => {
  const { programs, tools, job } = await fixtureOf(t);
  await programs.does('ffprobe', printed({ streams: [SOUND] }));
  await tools.probe(job, 'ogg');
  await tools.probe(job, 'mp3');
  const stream = { index: 3, shown: { width: 640, height: 360 }, cover: false };
  await tools.poster(job, 'matroska', { stream, shown: null, durationMs: 0 }, { width: 64, height: 36 });
  const [ogg = [], mp3 = []] = await programs.calls('ffprobe');
  const [measured = [], , still = []] = await programs.calls('ffmpeg');
  for (const [args, demuxer] of [
    [ogg, 'ogg'],
    [mp3, 'mp3'],
    [measured, 'ogg'],
    [still, 'matroska'],
  ] as const) {
    const after = (name: string): string | undefined => args[args.indexOf(name) + 1];
    t.equal(after('-f'), demuxer);
    t.equal(after('-protocol_whitelist'), 'file,pipe');
    t.match(after('-codec_whitelist'), /^h264,.*,pcm_mulaw$/);
    t.ok(args.includes(`file:${job.file}`), 'a name is never taken for an option or a protocol');
    const input = args.indexOf(`file:${job.file}`);
    for (const name of ['-f', '-protocol_whitelist', '-codec_whitelist']) t.ok(args.indexOf(name) < input, name);
  }
  t.equal(ogg[ogg.indexOf('-v') + 1], 'error');
  t.equal(mp3[mp3.indexOf('-v') + 1], 'warning', 'a guess is only told as a warning');
  t.equal(still[still.indexOf('-max_pixels') + 1], '123456');
  t.equal(still[still.indexOf('-map') + 1], '0:3');
  t.equal(still[still.indexOf('-vf') + 1]?.split(',')[0], 'scale=64:36');
});

const plane = (name: string, low: number, high: number): string =>
  `echo lavfi.signalstats.${name}LOW=${low}; echo lavfi.signalstats.${name}HIGH=${high}`;
const PLAIN = `${plane('Y', 16, 28)}; ${plane('U', 128, 128)}; ${plane('V', 128, 128)}`;
const LIVELY = `${plane('Y', 16, 29)}; ${plane('U', 128, 128)}; ${plane('V', 128, 128)}`;
const COLOURED = `${plane('Y', 16, 16)}; ${plane('U', 100, 128)}; ${plane('V', 128, 128)}`;
const stillOf = (stats: string): string => `echo frame > "$last"; ${stats}`;

type PosterCase = {
  readonly durationMs: number | null;
  readonly ffmpeg: string;
  /** Seconds, in the order in which they were tried. */
  readonly seeks: readonly (string | null)[];
  /** The name of the file, or another outcome. */
  readonly outcome: string | { readonly kind: string; readonly detail?: string };
  readonly cover?: true;
};

const POSTERS: readonly (readonly [what: string, PosterCase])[] = [
  ['the configured instant', { durationMs: 60_000, ffmpeg: stillOf(LIVELY), seeks: ['1'], outcome: 'poster-1000.png' }],
  ['a third of a short film', { durationMs: 900, ffmpeg: stillOf(LIVELY), seeks: ['0.3'], outcome: 'poster-300.png' }],
  [
    'the start, where no duration is known',
    { durationMs: null, ffmpeg: stillOf(LIVELY), seeks: [null], outcome: 'poster-0.png' },
  ],
  [
    'colours alone are enough',
    { durationMs: 60_000, ffmpeg: stillOf(COLOURED), seeks: ['1'], outcome: 'poster-1000.png' },
  ],
  [
    'a plain frame is passed over',
    {
      durationMs: 60_000,
      ffmpeg: `echo frame > "$last"; if [ $at = 30 ]; then ${LIVELY}; else ${PLAIN}; fi`,
      seeks: ['1', '20', '30'],
      outcome: 'poster-30000.png',
    },
  ],
  [
    'the first plain frame, where all are plain',
    { durationMs: 60_000, ffmpeg: stillOf(PLAIN), seeks: ['1', '20', '30', null], outcome: 'poster-1000.png' },
  ],
  [
    'a frame of any kind after instants without one',
    {
      durationMs: 60_000,
      ffmpeg: `[ $at = 0 ] || exit 1; ${stillOf(PLAIN)}`,
      seeks: ['1', '20', '30', null],
      outcome: 'poster-0.png',
    },
  ],
  [
    'no frame at any instant',
    {
      durationMs: 60_000,
      ffmpeg: failing('no frame'),
      seeks: ['1', '20', '30', null],
      outcome: { kind: 'broken', detail: 'ffmpeg: no frame' },
    },
  ],
  [
    'a decoder that is not there is not asked again',
    { durationMs: 60_000, ffmpeg: failing('Decoder not found'), seeks: ['1'], outcome: { kind: 'unsupported' } },
  ],
  ['nor one that was ended', { durationMs: 60_000, ffmpeg: 'kill -KILL $$', seeks: ['1'], outcome: { kind: 'lost' } }],
  [
    'a cover, which has no instant and may be plain',
    { durationMs: 60_000, ffmpeg: stillOf(''), seeks: [null], outcome: 'poster-0.png', cover: true },
  ],
];

void t.test('the poster of a film', async (t) => {
  for (const [what, { durationMs, ffmpeg, seeks, outcome, cover = false }] of POSTERS) {
    await t.test(what, async (t) => {
      const { programs, tools, job } = await fixtureOf(t);
      await programs.does('ffmpeg', ffmpeg);
      const media = { stream: { ...SIZED, cover }, shown: SIZED.shown, durationMs };
      const made = await tools.poster(job, 'mov', media, { width: 64, height: 36 });
      t.match(made.kind === 'done' ? basename(made.value) : made, outcome);
      const calls = await programs.calls('ffmpeg');
      t.same(
        calls.map((args) => (args.includes('-ss') ? args[args.indexOf('-ss') + 1] : null)),
        seeks,
      );
      for (const args of calls)
        t.equal(
          args.some((each) => each.includes('signalstats')),
          !cover,
          'only films are measured',
        );
    });
  }
});

const HEIF: readonly (readonly [what: string, commands: string, outcome: unknown])[] = [
  ['a picture', 'echo picture > "$last"', { kind: 'done', value: /picture\.jpg$/ }],
  ['several pictures, which get numbers', 'echo picture > "$(dirname "$last")/picture-1.jpg"', { kind: 'broken' }],
  [
    'a picture and an error',
    `echo picture > "$last"; ${failing('half')}`,
    { kind: 'broken', detail: 'heif-convert: half' },
  ],
  ['no HEIC', failing('Input file is not an HEIF file'), { kind: 'unsupported' }],
  ['an unknown codec', failing('Unsupported codec'), { kind: 'unsupported' }],
  ['no program', 'exit 126', { kind: 'lost', loss: 'start' }],
];

void t.test('a HEIC is converted', async (t) => {
  for (const [what, commands, outcome] of HEIF) {
    await t.test(what, async (t) => {
      const { programs, tools, job } = await fixtureOf(t);
      await programs.does('heif-convert', commands);
      t.match(await tools.convertHeif(job, 'jpg'), outcome);
    });
  }
});

void t.test('a program that nobody waits for is ended', async (t) => {
  const { programs, tools, job } = await fixtureOf(t);
  await programs.does('ffprobe', 'echo started >&2; exec sleep 600');
  const stop = new AbortController();
  const probing = tools.probe({ ...job, signal: stop.signal }, 'mov');
  stop.abort();
  t.match(await probing, { kind: 'lost', loss: 'aborted' });
});

void t.test('films get thumbnails of their poster', async (t) => {
  const folder = t.testdir({ programs: {} });
  const programs = await createMediaPrograms(join(folder, 'programs'));
  const still = join(folder, 'still.png');
  await sharp({ create: { width: 400, height: 300, channels: 3, background: '#a05020' } })
    .png()
    .toFile(still);
  await programs.does('ffmpeg', `cp '${still}' "$last"; ${LIVELY}`);
  const fixture = await openThumbFixture(join(folder, 'origin'));
  t.teardown(() => fixture.close());
  const video = { ...programs.video };
  const thumbs = await fixture.open({ children: { count: 1 }, pixels_max: 400 * 300, video });
  const probeOf = (width: number, height: number): Promise<void> =>
    programs.does('ffprobe', printed({ streams: [{ ...PICTURE, width, height }], format: { duration: '2' } }));

  await probeOf(400, 300);
  // More films than slots, so that one that is kept would stop the last.
  for (let count = 0; count < 4; count += 1) {
    const sha256 = await fixture.put(Buffer.from(`film ${count}`), 'video/mp4');
    const record = await fixture.finished(thumbs, sha256);
    t.match(record, { thumbs: { kind: 'ready' }, picture: { width: 400, height: 300, durationMs: 2_000 } });
  }

  await probeOf(401, 300);
  const large = await fixture.finished(thumbs, await fixture.put(Buffer.from('large'), 'video/mp4'));
  t.match(large, {
    thumbs: { kind: 'none', reason: 'too_many_pixels' },
    picture: { width: 401, height: 300, durationMs: 2_000 },
  });
  const stills = (await programs.calls('ffmpeg')).length;
  t.equal(stills, 4, 'what has too many pixels is not decoded');

  await programs.does('ffprobe', printed({ streams: [SOUND], format: { duration: '9' } }));
  const sound = await fixture.finished(thumbs, await fixture.put(Buffer.from('sound'), 'audio/mp4'));
  t.match(sound, { thumbs: { kind: 'none', reason: 'unsupported_type' }, picture: { width: null, durationMs: 9_000 } });
  t.equal((await programs.calls('ffmpeg')).length, stills);
});

void t.test('a film that is larger than its own limit is not opened', async (t) => {
  const folder = t.testdir({ programs: {} });
  const programs = await createMediaPrograms(join(folder, 'programs'));
  const fixture = await openThumbFixture(join(folder, 'origin'));
  t.teardown(() => fixture.close());
  const video = { ...programs.video, source_max: 1_000 };
  const thumbs = await fixture.open({ children: { count: 1 }, source_max: 10_000, video });
  await mkdir(join(folder, 'out'));
  await writeFile(join(folder, 'out', 'film'), Buffer.alloc(1_001));
  const bytes = await readFile(join(folder, 'out', 'film'));
  const record = await fixture.finished(thumbs, await fixture.put(bytes, 'video/mp4'));
  t.match(record.thumbs, { kind: 'none', reason: 'too_expensive' });
  t.same(await programs.calls('ffprobe'), []);
});
