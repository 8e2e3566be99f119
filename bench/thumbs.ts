/**
 * The whole thumbnail engine (queue, children, store, record), compared with
 * sharp alone, which makes the same thumbnails of the same files on the same
 * cores in the same run, and with `vipsthumbnail` if it is installed. Then the
 * time from an upload to its thumbnails, with an idle and a loaded queue.
 *
 *     npm run bench thumbs [PICTURES [ROUNDS]]
 */
import { execFile, fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import sharp from 'sharp';
import { thumbKey } from '../origin/blobs/blob-store.js';
import type { Thumbs } from '../origin/thumbs/engine.js';
import { readAll } from '../test/kit/origin/blob-contract.js';
import { openThumbFixture, type ThumbFixture, thumbsConfig } from '../test/kit/origin/thumb-fixture.js';
import type { BareAnswer, BareTask } from './thumbs-bare.js';

const [pictures = 48, rounds = 3] = process.argv.slice(2).map(Number);
const CORES = cpus().length;
const { formats, variants } = thumbsConfig();
const WIDTHS = variants.map(({ width }) => width).toSorted((one, other) => other - one);
const SEED = 20_260_101;
/** The unit in which the kernel counts the CPU time of processes. */
const TICK_MS = 10;
/** Jobs that wait while the latency under load is measured: more than can be done in that time. */
const BACKLOG = 120;
const run = promisify(execFile);

/** Typical pictures of a chat: photographs of telephones, forwarded pictures, screenshots. */
const KINDS = [
  { width: 4_000, height: 3_000, type: 'jpeg' },
  { width: 1_600, height: 1_200, type: 'jpeg' },
  { width: 1_170, height: 2_532, type: 'png' },
  { width: 1_280, height: 960, type: 'webp' },
] as const;

interface Measured {
  readonly wallMs: number;
  readonly cpuMs: number;
}

const folder = mkdtempSync(join(tmpdir(), 'bench-thumbs-'));
try {
  await main();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function main(): Promise<void> {
  say(
    `node ${process.version}, sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}, ${CORES} cores, seed ${SEED}`,
  );
  say(`${pictures} pictures, thumbnails ${WIDTHS.join(', ')} pixels wide, each as WebP and JPEG; ${rounds} rounds`);
  const sources = await paintSources();
  const fixture = await openThumbFixture(join(folder, 'fixture'));
  const settings = { children: { count: CORES, threads: 1, niceness: 0 }, video: { enabled: false } };
  const thumbs = await fixture.open(settings);
  const bare = await startBare();
  try {
    await proveRight(fixture, thumbs, sources);
    const all: { bare: Measured; engine: Measured }[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const paths = writeRound(sources, round);
      all.push({ bare: await bare.run(paths), engine: await runEngine(fixture, paths) });
    }
    report(all);
    await measureVips(writeRound(sources, rounds).slice(0, Math.min(pictures, 16)));
    await measureLatency(fixture, thumbs, sources);
  } finally {
    bare.end();
    await fixture.close();
  }
}

/** Smooth shapes with grain, which compress about like photographs. */
async function paintSources(): Promise<readonly { readonly type: string; readonly bytes: Buffer }[]> {
  const random = seeded(SEED);
  return await Promise.all(
    KINDS.map(async ({ width, height, type }) => {
      const small = Buffer.from(Array.from({ length: 12 * 9 * 3 }, () => Math.floor(random() * 256)));
      const shapes = await sharp(small, { raw: { width: 12, height: 9, channels: 3 } })
        .resize({ width, height, fit: 'fill', kernel: 'cubic' })
        .raw()
        .toBuffer();
      for (const at of shapes.keys())
        shapes[at] = Math.max(0, Math.min(255, (shapes[at] ?? 0) + (random() - 0.5) * 18));
      const picture = sharp(shapes, { raw: { width, height, channels: 3 } });
      const bytes =
        type === 'jpeg'
          ? picture.jpeg({ quality: 85 })
          : type === 'png'
            ? picture.blur(3).png()
            : picture.webp({ quality: 80 });
      return { type, bytes: await bytes.toBuffer() };
    }),
  );
}

/** The same picture with other bytes at its end is another blob and causes the same work. */
function writeRound(
  sources: readonly { readonly bytes: Buffer }[],
  round: number,
  count = pictures,
): readonly string[] {
  const place = join(folder, `round-${round}`);
  mkdirSync(place);
  return Array.from({ length: count }, (_, index) => {
    const source = sources[index % sources.length]?.bytes ?? Buffer.alloc(0);
    const path = join(place, `${index}.${KINDS[index % KINDS.length]?.type ?? ''}`);
    writeFileSync(path, Buffer.concat([source, Buffer.from(`${round} ${index}`)]));
    return path;
  });
}

interface Bare {
  run(paths: readonly string[]): Promise<Measured>;
  end(): void;
}

async function startBare(): Promise<Bare> {
  const child = fork(new URL('./thumbs-bare.js', import.meta.url), {
    env: { ...process.env, UV_THREADPOOL_SIZE: String(CORES), MALLOC_ARENA_MAX: '2' },
  });
  await once(child, 'message');
  return {
    async run(paths) {
      const { webp, jpeg } = formats;
      const task: BareTask = { paths, widths: WIDTHS, atOnce: CORES * 2, webp, jpeg };
      const answered = once(child, 'message') as Promise<[BareAnswer]>;
      child.send(task);
      return (await answered)[0];
    },
    end: () => child.kill(),
  };
}

/** From the queueing of the first job to the record of the last. */
async function runEngine(fixture: ThumbFixture, paths: readonly string[]): Promise<Measured> {
  const stored = await Promise.all(
    paths.map((path) => fixture.put(readFileSync(path), mimeOf(path), { queued: false })),
  );
  const cpuBefore = cpuOfAllMs();
  const started = performance.now();
  await Promise.all(stored.map((sha256) => fixture.meta.jobs.add(sha256, 'upload', Date.now())));
  await drained(fixture);
  return { wallMs: performance.now() - started, cpuMs: cpuOfAllMs() - cpuBefore };
}

async function drained(fixture: ThumbFixture): Promise<void> {
  for (;;) {
    const { waiting, leased } = await fixture.meta.jobs.counts();
    if (waiting + leased === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function mimeOf(path: string): string {
  return `image/${path.slice(path.lastIndexOf('.') + 1)}`;
}

/** CPU time so far of this process and its children. */
function cpuOfAllMs(): number {
  const { user, system } = process.cpuUsage();
  let ticks = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
        .replace(/^.*\) /, '')
        .split(' ');
      if (Number(fields[1]) === process.pid) ticks += Number(fields[11]) + Number(fields[12]);
    } catch {
      // The process has ended meanwhile.
    }
  }
  return (user + system) / 1_000 + ticks * TICK_MS;
}

/** Checks that every thumbnail has the planned size and looks like one that is made from the source in one step. */
async function proveRight(
  fixture: ThumbFixture,
  thumbs: Thumbs,
  sources: readonly { readonly type: string; readonly bytes: Buffer }[],
): Promise<void> {
  let checked = 0;
  for (const { type, bytes } of sources) {
    const record = await fixture.finished(thumbs, await fixture.put(bytes, `image/${type}`));
    if (record.thumbs.kind !== 'ready') throw new Error(`no thumbnails of ${type}: ${JSON.stringify(record.thumbs)}`);
    for (const made of record.thumbs.made) {
      const found = await fixture.blobs.read(thumbKey(record.sha256, made));
      if (found.kind !== 'found') throw new Error('a thumbnail is not stored');
      const seen = await sharp(await readAll(found.body))
        .removeAlpha()
        .raw()
        .toBuffer({ resolveWithObject: true });
      const size = { width: made.width, height: made.height };
      const plain = await sharp(bytes)
        .autoOrient()
        .resize({ ...size, fit: 'fill' })
        .removeAlpha()
        .raw()
        .toBuffer();
      const distance = meanDistance(seen.data, plain);
      if (seen.info.width !== made.width || seen.info.height !== made.height || distance > 6) {
        throw new Error(
          `${type} ${made.variant}.${made.format} is wrong: ${seen.info.width} × ${seen.info.height}, ${distance}`,
        );
      }
      checked += 1;
    }
  }
  say(`checked: ${checked} thumbnails have the right size and look like their source`);
}

function meanDistance(one: Buffer, other: Buffer): number {
  if (one.length !== other.length) return Number.POSITIVE_INFINITY;
  let sum = 0;
  for (let at = 0; at < one.length; at += 1) sum += Math.abs((one[at] ?? 0) - (other[at] ?? 0));
  return sum / one.length;
}

function report(all: readonly { readonly bare: Measured; readonly engine: Measured }[]): void {
  const perSecond = ({ wallMs }: Measured): number => (pictures * 1_000) / wallMs;
  const row = (name: string, of: readonly Measured[]): void => {
    const speeds = of.map(perSecond);
    const cpu = median(of.map(({ cpuMs }) => cpuMs / pictures));
    say(`${name.padEnd(16)} ${spread(speeds)} images/s   ${cpu.toFixed(0).padStart(4)} ms CPU each`);
  };
  row(
    'bare sharp',
    all.map(({ bare }) => bare),
  );
  row(
    'engine',
    all.map(({ engine }) => engine),
  );
  const ratios = all.map(({ bare, engine }) => bare.wallMs / engine.wallMs);
  say(`engine / bare    ${spread(ratios, 2)} by the time it takes`);
  // On a machine that also does other work, this says more than the time.
  const shares = all.map(({ bare, engine }) => bare.cpuMs / engine.cpuMs);
  say(`                 ${spread(shares, 2)} by the CPU time it takes`);
}

/** One run for each thumbnail and format, as a script would do it, on the same number of cores. */
async function measureVips(paths: readonly string[]): Promise<void> {
  if (spawnSync('vipsthumbnail', ['--vips-version']).error !== undefined) return say('vipsthumbnail   not installed');
  const started = performance.now();
  const queue = paths.flatMap((path) =>
    WIDTHS.flatMap((width) => [
      [
        path,
        '-s',
        `${width}x`,
        '-o',
        join(folder, `v%s-${width}.webp[Q=${formats.webp.quality},effort=${formats.webp.effort},strip]`),
      ],
      [path, '-s', `${width}x`, '-o', join(folder, `v%s-${width}.jpg[Q=${formats.jpeg.quality},strip]`)],
    ]),
  );
  const work = async (): Promise<void> => {
    for (let args = queue.shift(); args !== undefined; args = queue.shift()) {
      await run('vipsthumbnail', args, { env: { ...process.env, VIPS_CONCURRENCY: '1' } });
    }
  };
  await Promise.all(Array.from({ length: CORES }, work));
  say(
    `vipsthumbnail    ${((paths.length * 1_000) / (performance.now() - started)).toFixed(1)} images/s (${paths.length} pictures, one round)`,
  );
}

/** From the commit of an upload to the record of its thumbnails. */
async function measureLatency(
  fixture: ThumbFixture,
  thumbs: Thumbs,
  sources: readonly { readonly type: string; readonly bytes: Buffer }[],
): Promise<void> {
  const photo = sources[1];
  if (photo === undefined) return;
  const one = async (index: number, asked: boolean): Promise<number> => {
    const bytes = Buffer.concat([photo.bytes, Buffer.from(`latency ${asked} ${index}`)]);
    const started = performance.now();
    const sha256 = await fixture.put(bytes, `image/${photo.type}`);
    if (asked) await thumbs.prioritize(sha256);
    await fixture.finished(thumbs, sha256);
    return performance.now() - started;
  };
  const idle: number[] = [];
  for (let index = 0; index < 15; index += 1) idle.push(await one(index, false));
  say(`idle queue       ${spread(idle, 0)} ms from upload to thumbnails (1600 × 1200 JPEG)`);
  for (const path of writeRound(sources, rounds + 1, BACKLOG)) await fixture.put(readFileSync(path), mimeOf(path));
  const loaded: number[] = [];
  for (let index = 0; index < 10; index += 1) loaded.push(await one(index, true));
  const { waiting } = await fixture.meta.jobs.counts();
  say(`loaded queue     ${spread(loaded, 0)} ms, asked for at once, ${waiting} others still waiting at the end`);
}

function spread(values: readonly number[], digits = 1): string {
  const sorted = values.toSorted((one, other) => one - other);
  const show = (value: number | undefined): string => (value ?? 0).toFixed(digits);
  return `${show(median(sorted)).padStart(6)} (${show(sorted[0])}–${show(sorted.at(-1))})`;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[sorted.length >> 1] ?? 0;
}

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
