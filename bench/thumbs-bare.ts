/**
 * The limit of the library: sharp alone in one process, on files in memory,
 * without storing anything. Decodes each picture once and makes every thumbnail
 * from the next larger one, several pictures at a time. The parent process sends
 * the paths and receives the times.
 */
import { readFileSync } from 'node:fs';
import sharp, { type Sharp } from 'sharp';

export interface BareTask {
  readonly paths: readonly string[];
  readonly widths: readonly number[];
  readonly atOnce: number;
  readonly webp: { readonly quality: number; readonly effort: number };
  readonly jpeg: { readonly quality: number };
}

export interface BareAnswer {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly bytes: number;
}

sharp.cache(false);
sharp.concurrency(1);
process.on('message', (task: BareTask) => void run(task).then((answer) => process.send?.(answer)));
process.send?.('ready');

async function run(task: BareTask): Promise<BareAnswer> {
  const files = task.paths.map((path) => readFileSync(path));
  const started = performance.now();
  const cpu = process.cpuUsage();
  let next = 0;
  let bytes = 0;
  const work = async (): Promise<void> => {
    for (let file = files[next++]; file !== undefined; file = files[next++]) bytes += await renderAll(file, task);
  };
  await Promise.all(Array.from({ length: task.atOnce }, work));
  const { user, system } = process.cpuUsage(cpu);
  return { wallMs: performance.now() - started, cpuMs: (user + system) / 1_000, bytes };
}

/** The largest first. Returns the number of bytes made. */
async function renderAll(file: Buffer, { widths, webp, jpeg }: BareTask): Promise<number> {
  let bytes = 0;
  let larger: Sharp = sharp(file, { sequentialRead: true, failOn: 'error' }).autoOrient();
  for (const width of widths) {
    const pipeline = larger.resize({ width, withoutEnlargement: true }).toColourspace('srgb').raw({ depth: 'uchar' });
    const { data, info } = await pipeline.toBuffer({ resolveWithObject: true });
    const raster = (): Sharp =>
      sharp(data, { raw: { width: info.width, height: info.height, channels: info.channels } });
    const made = await Promise.all([raster().webp(webp).toBuffer(), raster().jpeg(jpeg).toBuffer()]);
    bytes += made[0].length + made[1].length;
    larger = raster();
  }
  return bytes;
}
