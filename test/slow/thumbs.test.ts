import { type ChildProcess, execFileSync, fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileTypeFromBuffer } from 'file-type';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { mediaKey, thumbKey } from '../../origin/blobs/blob-store.js';
import type { BlobRecord } from '../../origin/meta/media.js';
import type { Sha256 } from '../../src/ids.js';
import { readAll } from '../kit/origin/blob-contract.js';
import { jobFolders, MISBEHAVING, openThumbFixture, type ThumbFixture } from '../kit/origin/thumb-fixture.js';
import { amrFrames, caf } from '../kit/recordings.js';

const CORPORA = resolve('../shared/corpus');
const corpora = { skip: existsSync(CORPORA) ? false : 'the corpora are not there' } as const;
const installed = (program: string, flag = '-version'): boolean => spawnSync(program, [flag]).error === undefined;
const tools = { skip: installed('ffmpeg') && installed('ffprobe') ? false : 'ffmpeg is not installed' } as const;
const root = t.testdir({});
t.setTimeout(300_000);

/** With one attempt only, a process that is killed ends the job in another way than the table says. */
const strict = {
  children: { count: 2, time_limit: '10s', memory_max: '300MiB' },
  queue: { attempts_max: 1, poll: '1s' },
  video: { enabled: false },
};

/** What becomes of each file: the widths that are made, with `*` if they are animated, or why nothing is made. */
const VALID: Readonly<Record<string, string>> = {
  'Landscape_1.jpg': '160 320 640 1280',
  'Landscape_6.jpg': '160 320 640 1280',
  'Portrait_3.jpg': '160 320 640 1200',
  'Portrait_8.jpg': '160 320 640 1200',
  'basi2c16.png': '32',
  'basn0g01.png': '32',
  'basn0g16.png': '32',
  'basn3p08.png': '32',
  'basn6a16.png': '32',
  'concert.jpg': '160 320 400',
  'dispose_bgnd.gif': '100*',
  'dispose_prev.gif': '100*',
  'exif_gps.jpg': '8',
  'fixture-imovie.mp4': 'unsupported_type',
  'fixture-little-endian.tif': 'unsupported_type',
  'fixture-mif1.heic': 'unsupported_type',
  'fixture-mjpeg.mov': 'unsupported_type',
  'fixture-sequence.avif': '160 320 640 800',
  'fixture-smallest.pdf': 'unsupported_type',
  'fixture.apng': '100*',
  'fixture.bmp': 'unsupported_type',
  'fixture.gif': '160 200',
  'fixture.ico': 'unsupported_type',
  'fixture.jxl': 'unsupported_type',
  'fixture.opus': 'unsupported_type',
  'fixture.png': '160 200',
  'fixture.webm': 'unsupported_type',
  'fixture.webp': '160 200',
  'flower2.webp': '160 300',
  'hopper.avif': '128',
  'hopper_gray.jpg': '128',
  'hopper_orientation_2.jpg': '128',
  'hopper_orientation_4.jpg': '128',
  'hopper_orientation_5.jpg': '128',
  'hopper_orientation_6.webp': '128',
  'hopper_orientation_7.jpg': '128',
  'icc_profile_big.jpg': '160 320 425',
  'iss634.gif': '160* 245*',
  'iss634.webp': '160* 245*',
  'pil_sample_cmyk.jpg': '100',
  'rot1mir0.avif': '160 320 640',
  'rotating-squares.webp': '80*',
  'seine_sdr_gainmap_srgb.jpg': '160 320 400',
  'sugarshack.mpo': '160 320 640',
};

const HOSTILE: Readonly<Record<string, string>> = {
  '65536-uint32-limit.png': 'too_many_pixels',
  'SVG_XSS1.svg': 'unsupported_type',
  'badwidth.bmp': 'unsupported_type',
  'broken.png': 'unsupported_type',
  'broken_data_stream.png': 'broken_image',
  'chunk_no_fdat.png': '128',
  'corrupt-header.jpg': 'broken_image',
  'crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif': 'unsupported_type',
  'crash-63b1dffefc8c075ddc606c0a2f5fdc15ece78863.tif': 'unsupported_type',
  'decompression_bomb.gif': 'too_many_pixels',
  'decompression_bomb.ico': 'unsupported_type',
  'decompression_bomb_extents.gif': '100',
  'fixture-corrupt.mkv': 'unsupported_type',
  'g-apng-300f-2000x2000.png': '160 320 640 1280',
  'g-empty.jpg': 'unsupported_type',
  'g-gif-100f-2000x2000.gif': '160 320 640 1280',
  'g-gif-html-comment.gif': '10',
  'g-gifar.gif': '16',
  'g-html-as.png': 'unsupported_type',
  'g-jpg-exif-ifd-loop.jpg': '128',
  'g-jpg-html-com.jpg': '128',
  'g-jpg-pdf-polyglot.jpg': '128',
  'g-jpg-sof-65500.jpg': 'too_many_pixels',
  'g-mp4-mdat-4GB.mp4': 'unsupported_type',
  'g-mz-as.jpg': 'unsupported_type',
  'g-png-1bit-30000x30000.png': 'too_many_pixels',
  'g-png-grey-16000x16000.png': 'too_many_pixels',
  'g-png-idat-50MB-1x1.png': '1',
  'g-png-ihdr-max-noidat.png': 'too_many_pixels',
  'g-sig-only.png': 'unsupported_type',
  'g-svg-1e6x1e6.svg': 'unsupported_type',
  'g-svg-billion-laughs.svg': 'unsupported_type',
  'g-svg-foreignobject.svg': 'unsupported_type',
  'g-svg-xxe-file.svg': 'unsupported_type',
  'g-tiff-ifd-loop.tif': 'unsupported_type',
  'g-webp-vp8x-16383-empty.webp': 'too_many_pixels',
  'imagetragik1_payload_url_touch.jpg': 'unsupported_type',
  'no_palette.gif': '1',
  'oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif': 'unsupported_type',
  'payload_in_all_known_metadata.jpg': '160 229',
  'png_decompression_dos.png': '1',
  'psd-oob-write-overflow.psd': 'unsupported_type',
  'ssrf_svg_image.svg': 'unsupported_type',
  'sugarshack_bad_mpo_header.jpg': '160 320 640',
  'syntax_num_frames_invalid.png': '128',
  'truncated.jpg': '160 320 640 1280',
  'truncated.png': 'broken_image',
};

/** Its bytes do not show its type, so it ends in another way when a type is given. */
const AS_JPEG: Readonly<Record<string, string>> = { 'broken.png': 'broken_image' };

function outcomeOf({ thumbs }: BlobRecord): string {
  switch (thumbs.kind) {
    case 'pending':
      return 'pending';
    case 'none':
      return thumbs.reason;
    case 'ready':
      return thumbs.made
        .filter(({ format }) => format === 'webp')
        .sort((one, other) => one.width - other.width)
        .map(({ width, animated }) => `${width}${animated ? '*' : ''}`)
        .join(' ');
  }
}

const METADATA = [
  'Exif',
  'EXIF',
  'eXIf',
  'http://ns.adobe',
  'XMP',
  'xmpmeta',
  'ICC_PROFILE',
  'ICCP',
  'iCCP',
  'GPS',
  'Photoshop',
  'tEXt',
  'iTXt',
  'zTXt',
];
const ACTIVE = ['<script', 'alert(', 'onload', '%PDF', 'PK\u0003\u0004', '<html'];

/** Checks that each stored thumbnail has its recorded size and no metadata. */
async function checkThumbs(
  t: Test,
  fixture: ThumbFixture,
  name: string,
  { sha256, thumbs }: BlobRecord,
): Promise<void> {
  for (const made of thumbs.kind === 'ready' ? thumbs.made : []) {
    const found = await fixture.blobs.read(thumbKey(sha256, made));
    if (found.kind !== 'found') throw new Error('a thumbnail is not stored');
    const bytes = await readAll(found.body);
    const read = await sharp(bytes, { animated: true }).metadata();
    t.same(
      [read.width, read.pageHeight ?? read.height],
      [made.width, made.height],
      `${name} ${made.variant}.${made.format}`,
    );
    t.equal(read.space, 'srgb', `${name} is sRGB`);
    const marks = [...METADATA, ...ACTIVE].filter((mark) => bytes.includes(mark));
    // Compressed pixels may contain a short mark by chance. Only longer ones count.
    t.same(
      marks.filter((mark) => mark.length > 3),
      [],
      `${name} ${made.variant}.${made.format} has no metadata`,
    );
  }
}

void t.test('every file of the corpora ends as expected, within limits of time and memory', corpora, async (t) => {
  const fixture = await openThumbFixture(await mkdtemp(join(root, 'corpora-')));
  t.teardown(() => fixture.close());
  for (const [corpus, table] of [
    ['valid', VALID],
    ['hostile', HOSTILE],
  ] as const) {
    const folder = join(CORPORA, corpus);
    t.same(
      readdirSync(folder)
        .filter((name) => name !== 'manifest.csv')
        .sort(),
      Object.keys(table).sort(),
      'the table has every file',
    );
    for (const asJpeg of [false, true]) {
      const thumbs = await fixture.open(strict);
      const put: (readonly [string, string, Sha256])[] = [];
      for (const [name, outcome] of Object.entries(table)) {
        const given = readFileSync(join(folder, name));
        const detected = (await fileTypeFromBuffer(given))?.mime ?? 'application/octet-stream';
        // Stored as a JPEG, it ends in the same way. One more byte makes it another blob.
        const bytes = asJpeg ? Buffer.concat([given, Buffer.from([0])]) : given;
        put.push([name, outcome, await fixture.put(bytes, asJpeg ? 'image/jpeg' : detected)]);
      }
      for (const [name, outcome, sha256] of put) {
        const record = await fixture.finished(thumbs, sha256);
        const expected = asJpeg ? (AS_JPEG[name] ?? outcome) : outcome;
        t.equal(outcomeOf(record), expected, `${name}${asJpeg ? ' as a JPEG' : ''}`);
        if (!asJpeg) await checkThumbs(t, fixture, name, record);
      }
      t.same(await fixture.meta.jobs.dead(10), [], 'no process was lost');
      await thumbs.close();
    }
  }
});

void t.test('orientation, size and hash of originals are recorded', corpora, async (t) => {
  const fixture = await openThumbFixture(await mkdtemp(join(root, 'facts-')));
  t.teardown(() => fixture.close());
  const thumbs = await fixture.open(strict);
  const facts = async (name: string, mime: string) =>
    (await fixture.finished(thumbs, await fixture.put(readFileSync(join(CORPORA, 'valid', name)), mime))).picture;
  const landscape = await facts('Landscape_1.jpg', 'image/jpeg');
  t.match(landscape, { width: 1_800, height: 1_200, orientation: 1 });
  const turned = await facts('Landscape_6.jpg', 'image/jpeg');
  t.match(turned, { width: 1_800, height: 1_200, orientation: 6, thumbhash: landscape.thumbhash });
  t.match(await facts('iss634.gif', 'image/gif'), { frames: 42 });
});

// Processes that fail or are killed.

const quick = {
  children: { count: 2, time_limit: '10s', memory_max: '256MiB' },
  queue: { backoff: '1ms', backoff_max: '2ms', poll: '50ms' },
  video: { enabled: false },
};

void t.test('the engine under stress', async (t) => {
  const folder = await mkdtemp(join(root, 'stress-'));
  const fixture = await openThumbFixture(folder);
  t.teardown(() => fixture.close());

  await t.test(
    'starts no process before there is a job, and ends it when it is idle or has done its number of jobs',
    async (t) => {
      const thumbs = await fixture.open({
        ...quick,
        children: { ...quick.children, count: 1, idle: '100ms', jobs_max: 2 },
      });
      t.same(await fixture.children(), { busy: 0, idle: 0 });
      for (let seed = 10; seed < 13; seed += 1) {
        const sha256 = await fixture.put(await photo(seed), 'image/jpeg');
        t.equal((await fixture.finished(thumbs, sha256)).thumbs.kind, 'ready');
      }
      while ((await fixture.children()).idle > 0) await new Promise(setImmediate);
      await thumbs.close();
    },
  );

  await t.test('survives every failure of a child, and the queue drains', async (t) => {
    const children = { count: 2, time_limit: '3s', memory_max: '256MiB' };
    const thumbs = await fixture.open({ ...quick, children, queue: { ...quick.queue, attempts_max: 1 } }, MISBEHAVING);
    const ends: Readonly<Record<string, string>> = {
      hang: 'too_expensive',
      grow: 'too_expensive',
      map: 'failed',
      exit: 'failed',
      abort: 'failed',
      lie: 'failed',
      link: 'failed',
      fail: 'failed',
    };
    const put = await Promise.all(
      Object.keys(ends).map(
        async (failure) => [failure, await fixture.put(Buffer.from(`${failure} `), 'image/png')] as const,
      ),
    );
    const good = await fixture.put(await photo(3), 'image/jpeg');
    t.equal((await fixture.finished(thumbs, good)).thumbs.kind, 'ready', 'a good picture among them');
    for (const [failure, sha256] of put) {
      t.same((await fixture.finished(thumbs, sha256)).thumbs, { kind: 'none', reason: ends[failure] }, failure);
    }
    t.match(await fixture.meta.jobs.counts(), { waiting: 0, leased: 0, dead: put.length });
    const reasons = (await fixture.meta.jobs.dead(100)).map(({ reason }) => reason).join('\n');
    for (const part of [
      'time: over 3000 ms',
      'memory: ',
      'allocation failed',
      'exit: exit code 3',
      'exit: SIGABRT',
      'protocol: ',
    ]) {
      t.match(reasons, part, 'a dead letter has the reason');
    }
    t.same(
      (await jobFolders(fixture.blobs.stageFolder)).filter((name) => name !== 'once'),
      [],
    );
    await t.rejects(stat(join(folder, 'x.webp')), 'no result is written outside the folder of a job');
    await thumbs.close();
  });

  await t.test('retries a job that failed once', async (t) => {
    const thumbs = await fixture.open({ ...quick, children: { count: 1 } }, MISBEHAVING);
    const sha256 = await fixture.put(Buffer.from('once '), 'image/png');
    t.equal((await fixture.finished(thumbs, sha256)).thumbs.kind, 'ready');
    await thumbs.close();
  });

  await t.test('makes thumbnails that a client waits for before the others', async (t) => {
    const put = [];
    for (let seed = 20; seed < 26; seed += 1) put.push(await fixture.put(await photo(seed), 'image/jpeg'));
    const asked = put.at(-1);
    if (asked === undefined) throw new Error('there are some');
    const thumbs = await fixture.open({ ...quick, enabled: false });
    await thumbs.prioritize(asked);
    await thumbs.close();
    const engine = await fixture.open({ ...quick, children: { count: 1 } });
    t.equal((await fixture.finished(engine, asked)).thumbs.kind, 'ready');
    t.ok((await fixture.meta.jobs.counts()).waiting > 0, 'others still wait');
    for (const sha256 of put) await fixture.finished(engine, sha256);
    await engine.close();
  });

  await t.test('counts no attempt when the storage fails', async (t) => {
    const sha256 = await fixture.put(await photo(5), 'image/jpeg');
    const adopt = fixture.blobs.adopt.bind(fixture.blobs);
    let failures = 2;
    fixture.blobs.adopt = (...given) => {
      failures -= 1;
      if (failures < 0) return adopt(...given);
      return Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC' }));
    };
    const thumbs = await fixture.open({ ...quick, queue: { ...quick.queue, attempts_max: 1 } });
    t.equal((await fixture.finished(thumbs, sha256)).thumbs.kind, 'ready');
    fixture.blobs.adopt = adopt;
    await thumbs.close();
  });
});

const brief = { poll: '20ms', backoff: '1ms', backoff_max: '5ms', attempts_max: 50, lease: '500ms' };

async function photo(seed: number): Promise<Buffer> {
  const background = { r: (seed * 53) % 256, g: (seed * 91) % 256, b: seed % 256 };
  return await sharp({ create: { width: 900, height: 700, channels: 3, background } })
    .jpeg()
    .toBuffer();
}

/** A small generator of random numbers, so that a failing run can be repeated. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function childrenOf(pid: number | undefined): number[] {
  const text = spawnSync('ps', ['-o', 'pid=', '--ppid', String(pid)], { encoding: 'utf8' }).stdout;
  return text
    .split('\n')
    .map(Number)
    .filter((child) => child > 0);
}

const isAlive = (pid: number): boolean =>
  existsSync(`/proc/${pid}/stat`) && !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));

void t.test('the queue drains, whatever is killed', async (t) => {
  await t.test('children, in every round', async (t) => {
    const fixture = await openThumbFixture(await mkdtemp(join(root, 'children-')));
    t.teardown(() => fixture.close());
    const thumbs = await fixture.open({ ...strict, queue: brief });
    const put: Sha256[] = [];
    for (let round = 0; round < 6; round += 1) {
      const together: Sha256[] = [];
      for (let at = 0; at < 4; at += 1) together.push(await fixture.put(await photo(round * 4 + at), 'image/jpeg'));
      put.push(...together);
      // The child that made the first of these was started after the last kill, so every round has a child to kill.
      await Promise.race(together.map((sha256) => fixture.finished(thumbs, sha256)));
      const workers = childrenOf(process.pid).filter((pid) => commandOf(pid).includes('worker.js'));
      for (const pid of workers) process.kill(pid, 'SIGKILL');
      t.not(workers.length, 0, 'some are killed');
    }
    for (const sha256 of put) t.equal((await fixture.finished(thumbs, sha256)).thumbs.kind, 'ready');
    t.same(await fixture.meta.jobs.counts(), { waiting: 0, leased: 0, dead: 0 });
    await thumbs.close();
  });

  await t.test('the process of the engine, and its children end with it', async (t) => {
    const folder = await mkdtemp(join(root, 'engine-'));
    const random = seeded(11);
    const fixture = await openThumbFixture(folder);
    const put: Sha256[] = [];
    for (let seed = 100; seed < 124; seed += 1) put.push(await fixture.put(await photo(seed), 'image/jpeg'));
    put.push(await fixture.put(Buffer.from('exit '), 'image/png'));
    await fixture.close();
    const config = JSON.stringify({ ...strict, queue: { ...brief, attempts_max: 14 } });
    let kills = 0;
    for (let done = false; !done; kills += 1) {
      const endsMax = 3 + Math.floor(random() * 4);
      const args = [folder, config, MISBEHAVING.href, String(endsMax)];
      const engine = fork(new URL('../kit/origin/thumb-engine.js', import.meta.url), args);
      done = (await messageOf(engine)) === 'drained';
      const children = childrenOf(engine.pid);
      await killAndWait(engine);
      while (children.some(isAlive)) await new Promise(setImmediate);
    }
    t.ok(kills > 3, `it was killed ${kills} times`);
    const after = await openThumbFixture(folder);
    t.teardown(() => after.close());
    const thumbs = await after.open({ ...strict, enabled: false });
    t.same(await readdir(after.blobs.stageFolder), [], 'a new engine has cleared the stage');
    await thumbs.close();
    for (const sha256 of put.slice(0, -1)) await checkThumbs(t, after, 'photo', await after.record(sha256));
    t.same((await after.record(put.at(-1) ?? put[0] ?? ('' as Sha256))).thumbs, { kind: 'none', reason: 'failed' });
    t.match(await after.meta.jobs.counts(), { waiting: 0, leased: 0, dead: 1 });
  });
});

/** The only message of the process. */
async function messageOf(engine: ChildProcess): Promise<string> {
  const received = new AbortController();
  const exit = once(engine, 'exit', received).then(([code]) => {
    throw new Error(`the engine left with ${String(code)}`);
  });
  const [message] = (await Promise.race([once(engine, 'message', received), exit])) as [string];
  exit.catch(() => undefined);
  received.abort();
  return message;
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return '';
  }
}

async function killAndWait(engine: ChildProcess): Promise<void> {
  const gone = once(engine, 'exit');
  if (engine.exitCode === null && engine.kill('SIGKILL')) await gone;
}

// Video, audio and HEIC.

/** Mean of the smallest thumbnail, from 0 to 255. */
async function brightness(fixture: ThumbFixture, { sha256, thumbs }: BlobRecord): Promise<number> {
  const [made] = thumbs.kind === 'ready' ? thumbs.made.toSorted((one, other) => one.width - other.width) : [];
  if (made === undefined) throw new Error('there is no thumbnail');
  const found = await fixture.blobs.read(thumbKey(sha256, made));
  if (found.kind !== 'found') throw new Error('there is no thumbnail');
  const { channels } = await sharp(await readAll(found.body)).stats();
  return channels.reduce((sum, { mean }) => sum + mean, 0) / channels.length;
}

void t.test('video, audio and HEIC through tools', tools, async (t) => {
  const folder = await mkdtemp(join(root, 'films-'));
  const fixture = await openThumbFixture(folder);
  t.teardown(() => fixture.close());
  const thumbs = await fixture.open({ queue: { attempts_max: 1 } });
  const make = async (name: string, args: readonly string[]): Promise<Buffer> => {
    execFileSync('ffmpeg', ['-v', 'error', '-y', ...args, join(folder, name)]);
    return await readFile(join(folder, name));
  };
  const end = async (bytes: Buffer, mime: string) => await fixture.finished(thumbs, await fixture.put(bytes, mime));
  const source = ['-f', 'lavfi', '-i', 'testsrc=size=320x180:rate=10:duration=3'];
  const tone = ['-f', 'lavfi', '-i', 'sine=frequency=440:duration=2.5'];

  await t.test('get a poster, their size as shown and their duration', async (t) => {
    const plain = await end(await make('plain.mp4', [...source, '-c:v', 'mpeg4']), 'video/mp4');
    t.match(plain, { picture: { width: 320, height: 180, durationMs: 3_000, frames: null, thumbhash: /./ } });
    t.equal(outcomeOf(plain), '160 320');
    await checkThumbs(t, fixture, 'plain.mp4', plain);
    // The first two seconds are black, and the configured instant is one of them.
    const fade = 'testsrc=size=320x180:rate=10:duration=9,fade=in:st=2:d=1';
    const faded = await end(await make('fade.mp4', ['-f', 'lavfi', '-i', fade, '-c:v', 'mpeg4']), 'video/mp4');
    t.ok((await brightness(fixture, faded)) > 40, 'a poster shows a frame that is not black, if there is one');
    const black = ['-f', 'lavfi', '-i', 'color=black:size=320x180:rate=10:duration=3', '-c:v', 'mpeg4'];
    const dark = await end(await make('black.mp4', black), 'video/mp4');
    t.ok((await brightness(fixture, dark)) < 20, 'otherwise a black frame');
    const closed = await end(await make('closed.mov', [...source, '-c:v', 'prores']), 'video/quicktime');
    t.match(closed, { picture: { durationMs: 3_000 }, thumbs: { kind: 'none', reason: 'unsupported_type' } });
    const turned = await make('turned.mp4', [
      '-i',
      join(folder, 'plain.mp4'),
      '-c',
      'copy',
      '-metadata:s:v:0',
      'rotate=90',
    ]);
    t.match(await end(turned, 'video/mp4'), { picture: { width: 180, height: 320, durationMs: 3_000 } });
    const webm = await end(await make('film.webm', [...source, '-c:v', 'libvpx', '-vf', 'setsar=2/1']), 'video/webm');
    t.match(webm, { picture: { width: 640, height: 180, durationMs: 3_000 } });
    t.equal(outcomeOf(webm), '160 320 640');
    const short = await make('short.mp4', [
      '-f',
      'lavfi',
      '-i',
      'testsrc=size=64x48:rate=10:duration=0.1',
      '-c:v',
      'mpeg4',
    ]);
    t.equal(outcomeOf(await end(short, 'video/mp4')), '64');
  });

  await t.test('get the duration of sound, and a thumbnail of its cover if it has one', async (t) => {
    const wav = await end(await make('tone.wav', tone), 'audio/wav');
    t.match(wav, { picture: { width: null, durationMs: 2_500 }, thumbs: { kind: 'none', reason: 'unsupported_type' } });
    const cover = await make('cover.png', ['-f', 'lavfi', '-i', 'testsrc=size=200x200:duration=1', '-frames:v', '1']);
    t.ok(cover.length > 0);
    const song = await make('song.mp3', [
      ...tone,
      '-i',
      join(folder, 'cover.png'),
      '-map',
      '0',
      '-map',
      '1',
      '-c:v',
      'copy',
      '-id3v2_version',
      '3',
      '-disposition:v',
      'attached_pic',
    ]);
    const made = await end(song, 'audio/mpeg');
    t.equal(outcomeOf(made), '160 200');
    t.equal(made.picture.width, null, 'sound has no size');
    t.ok(Math.abs((made.picture.durationMs ?? 0) - 2_500) < 100);
  });

  await t.test('get the duration of recordings that state none, or none that is exact', async (t) => {
    const pipe = (name: string, args: readonly string[]): Buffer =>
      execFileSync('ffmpeg', ['-v', 'error', '-f', 'lavfi', '-i', 'sine=duration=2.5', ...args, '-f', name, '-']);
    const fragments = ['-movflags', 'frag_keyframe+empty_moov', '-frag_duration', '500000'];
    const recordings: readonly (readonly [mime: string, bytes: Buffer])[] = [
      ['audio/webm', pipe('webm', ['-c:a', 'libopus'])],
      ['audio/ogg', pipe('ogg', ['-c:a', 'libopus'])],
      ['audio/mp4', pipe('mp4', ['-c:a', 'aac', ...fragments])],
      ['audio/aac', pipe('adts', ['-c:a', 'aac'])],
      ['audio/mpeg', pipe('mp3', ['-c:a', 'libmp3lame', '-q:a', '4'])],
      ['audio/amr', amrFrames(125)],
      ['audio/amr', amrFrames(125, 'wide')],
      [
        'video/webm',
        pipe('webm', [...source.slice(0, 3), 'testsrc=size=64x48:rate=10:duration=2.5', '-c:v', 'libvpx']),
      ],
    ];
    for (const [mime, bytes] of recordings) {
      const { durationMs } = (await end(bytes, mime)).picture;
      t.ok(Math.abs((durationMs ?? 0) - 2_500) < 60, `${mime}: ${durationMs} ms`);
    }
    const { picture } = await end(caf(), 'audio/x-caf');
    t.equal(picture.durationMs, 500);
  });

  await t.test(
    'are refused if they are not what their type says, and no reference out of the file is followed',
    async (t) => {
      const secret = join(folder, 'plain.mp4');
      const playlist = `#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:3,\n${secret}\n#EXT-X-ENDLIST\n`;
      const concat = `ffconcat version 1.0\nfile ${secret}\n`;
      for (const text of [playlist, concat, 'some other text']) {
        for (const mime of ['video/mp4', 'video/webm', 'audio/mpeg', 'video/vnd.avi', 'video/mp2t']) {
          const { thumbs: state, picture } = await end(Buffer.from(`${text}# ${mime}`), mime);
          t.equal(state.kind, 'none', `${text.slice(0, 8)} as ${mime}`);
          t.equal(picture.width, null);
        }
      }
      const huge = await make('huge.mp4', [
        '-f',
        'lavfi',
        '-i',
        'color=size=4096x4096:rate=1:duration=1',
        '-c:v',
        'mpeg4',
      ]);
      const small = await fixture.open({ pixels_max: 1_000_000, queue: { attempts_max: 1 } });
      await thumbs.close();
      t.same((await fixture.finished(small, await fixture.put(huge, 'video/mp4'))).thumbs, {
        kind: 'none',
        reason: 'too_many_pixels',
      });
      await small.close();
    },
  );

  await t.test('of the corpus end as expected', corpora, async (t) => {
    const engine = await fixture.open({ queue: { attempts_max: 1 } });
    const cases: readonly (readonly [string, string, string, number | null])[] = [
      ['fixture-imovie.mp4', 'video/mp4', '160 320 640', 67],
      ['fixture.webm', 'video/webm', '160 320 640', 72],
      ['fixture-mjpeg.mov', 'video/quicktime', '160 320 640', 1_500],
      ['fixture-sequence.avif', 'image/avif', '160 320 640 800', null],
      ['fixture.opus', 'audio/ogg; codecs=opus', 'unsupported_type', 2_920],
      ...(installed('heif-convert', '--version')
        ? ([['fixture-mif1.heic', 'image/heif', '160 320 640 1280', null]] as const)
        : []),
    ];
    for (const [name, mime, outcome, durationMs] of cases) {
      const record = await fixture.finished(
        engine,
        await fixture.put(readFileSync(join(CORPORA, 'valid', name)), mime),
      );
      t.equal(outcomeOf(record), outcome, name);
      t.equal(record.picture.durationMs, durationMs, name);
    }
    for (const name of ['fixture-corrupt.mkv', 'g-mp4-mdat-4GB.mp4']) {
      const record = await fixture.finished(
        engine,
        await fixture.put(readFileSync(join(CORPORA, 'hostile', name)), 'video/mp4'),
      );
      t.equal(record.thumbs.kind, 'none', name);
    }
    await engine.close();
  });
});

void t.test('a job whose original is missing in the store is given up with the reason', async (t) => {
  const fixture = await openThumbFixture(await mkdtemp(join(root, 'gone-')));
  t.teardown(() => fixture.close());
  const sha256 = await fixture.put(await photo(1), 'image/jpeg');
  await fixture.blobs.remove(mediaKey(await fixture.record(sha256)));
  const thumbs = await fixture.open(strict);
  t.same((await fixture.finished(thumbs, sha256)).thumbs, { kind: 'none', reason: 'failed' });
  t.match(await fixture.meta.jobs.dead(1), [{ sha256, reason: 'the original is not in the store' }]);
  await thumbs.close();
});
