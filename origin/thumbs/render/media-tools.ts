/**
 * Video, audio and HEIC through ffmpeg, ffprobe and heif-convert, if they are
 * installed: what the media are, how long they take, and one still of them as a
 * PNG or JPEG, which is then rendered like every other picture.
 *
 * Promises: each run is a process of its own under limits. A file is read only
 * as the container that its type names, only listed codecs are opened, and
 * nothing but the file and pipes can be read. Missing tools are reported in
 * `installed` and are no error.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../../src/clock.js';
import type { ThumbsConfig } from '../config.js';
import type { Size } from '../plan.js';
import type { Demuxer, InstalledTools } from '../types.js';
import type { LostChild } from './child.js';
import type { Launcher } from './launcher.js';
import { isEstimated, type ProbedMedia, readProbe, readProgress, SHOWN, type Stream } from './probe.js';
import { type ProgramOutcome, runProgram } from './program.js';
import { clip } from './protocol.js';

export type ToolOutcome<T> =
  | { readonly kind: 'done'; readonly value: T }
  | { readonly kind: 'broken'; readonly detail: string }
  /** The media need a decoder that is not installed or not allowed. */
  | { readonly kind: 'unsupported'; readonly detail: string }
  | LostChild;

/** One original and where its results go. */
export interface ToolJob {
  /** The original. */
  readonly file: string;
  /** Results are written here, and programs run here. */
  readonly folder: string;
  readonly signal: AbortSignal;
}

export interface MediaTools {
  readonly installed: InstalledTools;
  /** Which tools are missing, in words; null: none. */
  readonly missing: string | null;
  probe(job: ToolJob, demuxer: Demuxer): Promise<ToolOutcome<ProbedMedia>>;
  /** Makes a still at a good instant, no larger than `size`. The value is the path of a PNG in the folder. */
  poster(
    job: ToolJob,
    demuxer: Demuxer,
    media: ProbedMedia & { readonly stream: Stream },
    size: Size,
  ): Promise<ToolOutcome<string>>;
  /** Decodes a HEIC file with a single picture. The value is the path of the result in the folder. */
  convertHeif(job: ToolJob, format: 'png' | 'jpg'): Promise<ToolOutcome<string>>;
}

/** The decoders for what browsers and phones make. Hundreds of others are not allowed. */
const CODECS = [
  'h264,hevc,vp8,vp9,av1,libdav1d,libaom-av1,mpeg4,mpeg2video,mpeg1video,h263,theora,mjpeg,png',
  'aac,mp3,mp3float,opus,libopus,vorbis,libvorbis,flac,alac,amrnb,amrwb,ac3,eac3',
  'pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s32le,pcm_f32le,pcm_alaw,pcm_mulaw',
].join();

const RESTRICTIONS = ['-protocol_whitelist', 'file,pipe', '-codec_whitelist', CODECS];
/** A PNG of the largest poster is far smaller. */
const OUTPUT_MAX_BYTES = 512 * 1_024 * 1_024;

/** Formats that are frames and little else. Without an optional header ffprobe guesses how long they take, and warns. */
const FRAMES_ALONE: ReadonlySet<Demuxer> = new Set(['mp3', 'aac', 'amr']);
/** High enough that a thumbnail shows no trace of it. */
const JPEG_QUALITY = '95';

type Run = (
  program: string,
  args: readonly string[],
  job: Pick<ToolJob, 'folder' | 'signal'>,
) => Promise<ProgramOutcome>;

type ToolsConfig = Pick<ThumbsConfig, 'video' | 'pixelsMax'>;

export async function findMediaTools(
  config: ToolsConfig,
  launcher: Launcher,
  folder: string,
  clock: Clock,
): Promise<MediaTools> {
  const { video } = config;
  const limits = { ...video, fileMaxBytes: OUTPUT_MAX_BYTES };
  const run: Run = (program, args, job) => {
    const command = { program, args };
    return runProgram(launcher, { command, limits, folder: job.folder, network: 'none' }, clock, job.signal);
  };
  const { signal } = new AbortController();
  const runs = async (program: string, args: readonly string[]): Promise<boolean> =>
    video.enabled && (await run(program, args, { folder, signal })).kind === 'ended';
  const [ffmpeg, ffprobe, heifConvert] = await Promise.all([
    runs(video.ffmpeg, ['-hide_banner', '-version']),
    runs(video.ffprobe, ['-hide_banner', '-version']),
    runs(video.heifConvert, ['--version']),
  ]);
  const missing = missingOf(video, { ffmpeg, ffprobe, 'heif-convert': heifConvert });
  return new InstalledMediaTools({ ffmpeg: ffmpeg && ffprobe, heif: heifConvert }, missing, config, run);
}

class InstalledMediaTools implements MediaTools {
  readonly installed: InstalledTools;
  readonly missing: string | null;
  readonly #config: ToolsConfig;
  readonly #run: Run;

  constructor(installed: InstalledTools, missing: string | null, config: ToolsConfig, run: Run) {
    this.installed = installed;
    this.missing = missing;
    this.#config = config;
    this.#run = run;
  }

  async probe(job: ToolJob, demuxer: Demuxer): Promise<ToolOutcome<ProbedMedia>> {
    const level = FRAMES_ALONE.has(demuxer) ? 'warning' : 'error';
    const args = ['-v', level, ...RESTRICTIONS, '-f', demuxer, '-show_entries', SHOWN, '-of', 'json'];
    const ended = await this.#run(this.#config.video.ffprobe, [...args, `file:${job.file}`], job);
    if (ended.kind !== 'ended' || ended.code !== 0) {
      const failed = failure(ended, 'ffprobe');
      return failed.kind === 'unsupported' ? this.#probeContainer(job, demuxer, failed) : failed;
    }
    const media = readProbe(ended.output);
    if (media === undefined) return { kind: 'broken', detail: 'it has neither picture nor sound' };
    if (media.durationMs !== null && !isEstimated(ended.stderr)) return { kind: 'done', value: media };
    const durationMs = (await this.#measure(job, demuxer)) ?? media.durationMs;
    return { kind: 'done', value: { ...media, durationMs } };
  }

  /**
   * For a file that states no duration, as live recordings do: where its last packet ends. Reads the packets and decodes
   * none. Null if that takes longer than a program may run.
   */
  async #measure(job: ToolJob, demuxer: Demuxer): Promise<number | null> {
    const args = [
      ['-nostdin', '-hide_banner', '-v', 'error', ...RESTRICTIONS, '-f', demuxer, '-i', `file:${job.file}`],
      // All sound, and all pictures that are not covers.
      ['-map', '0:a?', '-map', '0:V?', '-c', 'copy', '-f', 'null', '-nostats', '-progress', 'pipe:1', '-'],
    ].flat();
    const ended = await this.#run(this.#config.video.ffmpeg, args, job);
    return ended.kind === 'ended' && ended.code === 0 ? readProgress(ended.output) : null;
  }

  /** For a codec that may not be opened: the duration that the container states, which ffmpeg prints before it fails. */
  async #probeContainer(
    job: ToolJob,
    demuxer: Demuxer,
    failed: ToolOutcome<ProbedMedia>,
  ): Promise<ToolOutcome<ProbedMedia>> {
    const args = ['-nostdin', '-hide_banner', '-v', 'info', ...RESTRICTIONS, '-f', demuxer, '-i', `file:${job.file}`];
    const ended = await this.#run(this.#config.video.ffmpeg, args, job);
    const durationMs = ended.kind === 'ended' ? readDuration(ended.stderr) : null;
    return durationMs === null ? failed : { kind: 'done', value: { stream: null, shown: null, durationMs } };
  }

  async poster(
    job: ToolJob,
    demuxer: Demuxer,
    { stream, durationMs }: ProbedMedia & { readonly stream: Stream },
    size: Size,
  ): Promise<ToolOutcome<string>> {
    let best: ToolOutcome<Poster> = { kind: 'broken', detail: 'it has no instants' };
    for (const atMs of posterInstants(stream.cover ? 0 : (durationMs ?? 0), this.#config.video.posterAtMs)) {
      const made = await this.#posterAt(atMs, job, demuxer, stream, size);
      if (made.kind === 'done' && !made.value.plain) return { kind: 'done', value: made.value.path };
      if (made.kind === 'lost' || made.kind === 'unsupported') return made;
      if (best.kind !== 'done') best = made;
    }
    return best.kind === 'done' ? { kind: 'done', value: best.value.path } : best;
  }

  async #posterAt(
    atMs: number,
    job: ToolJob,
    demuxer: Demuxer,
    stream: Stream,
    size: Size,
  ): Promise<ToolOutcome<Poster>> {
    const name = `poster-${Math.round(atMs)}.png`;
    const path = join(job.folder, name);
    // Even a seek to 0 would skip a cover, which comes before all frames.
    const seek = atMs > 0 ? ['-ss', String(atMs / 1_000)] : [];
    // A cover is used as it is. A frame of a video is measured, because it may be black.
    const filter = `scale=${size.width}:${size.height},setsar=1${stream.cover ? '' : MEASURED}`;
    const args = [
      ['-nostdin', '-hide_banner', '-v', 'error', ...RESTRICTIONS],
      ['-max_pixels', String(this.#config.pixelsMax), '-threads', '1', ...seek],
      ['-f', demuxer, '-i', `file:${job.file}`, '-map', `0:${stream.index}`],
      ['-frames:v', '1', '-vf', filter, '-f', 'image2', '-update', '1'],
      ['-c:v', 'png', '-compression_level', '1', '-y', `file:${path}`],
    ].flat();
    const ended = await this.#run(this.#config.video.ffmpeg, args, job);
    if (ended.kind !== 'ended' || !(await readdir(job.folder)).includes(name)) return failure(ended, 'ffmpeg');
    return { kind: 'done', value: { path, plain: isPlain(ended.output) } };
  }

  async convertHeif(job: ToolJob, format: 'png' | 'jpg'): Promise<ToolOutcome<string>> {
    const name = `picture.${format}`;
    const path = join(job.folder, name);
    const ended = await this.#run(this.#config.video.heifConvert, ['-q', JPEG_QUALITY, job.file, path], job);
    // With several pictures the names would be numbered.
    const made = ended.kind === 'ended' && ended.code === 0 && (await readdir(job.folder)).includes(name);
    return made ? { kind: 'done', value: path } : failure(ended, 'heif-convert');
  }
}

interface Poster {
  readonly path: string;
  /** Nearly all of it has one colour, as before a video fades in. */
  readonly plain: boolean;
}

/** Makes ffmpeg print how the brightness and the colours of a frame are spread. */
const MEASURED = ',signalstats,metadata=mode=print:file=-';
/** The largest distance between the tenth and the ninetieth percentile of a plain frame, of 256 steps. */
const PLAIN_SPREAD_MAX = 12;

/** Judges the first frame that was measured, which is the frame of the poster. */
function isPlain(stats: string): boolean {
  const read = (name: string): number => Number(new RegExp(`signalstats\\.${name}=([\\d.]+)`).exec(stats)?.[1]);
  return ['Y', 'U', 'V'].every((plane) => read(`${plane}HIGH`) - read(`${plane}LOW`) <= PLAIN_SPREAD_MAX);
}

/** The instants to try for a poster, the best first. At any of them a video may be black or have no picture. */
function posterInstants(durationMs: number, posterAtMs: number): readonly number[] {
  const configured = Math.min(posterAtMs, durationMs / 3);
  return [...new Set([configured, durationMs / 3, durationMs / 2, 0].map(Math.round))];
}

const DURATION = /^ *Duration: (\d{2,4}):(\d{2}):(\d{2}(?:\.\d+)?),/m;

function readDuration(text: string): number | null {
  const [, hours, minutes, seconds] = DURATION.exec(text) ?? [];
  const durationMs = Math.round((Number(hours) * 3_600 + Number(minutes) * 60 + Number(seconds)) * 1_000);
  return durationMs > 0 ? durationMs : null;
}

function missingOf(video: ThumbsConfig['video'], found: Readonly<Record<string, boolean>>): string | null {
  if (!video.enabled) return 'switched off';
  const absent = Object.keys(found).filter((name) => found[name] !== true);
  return absent.length === 0 ? null : `not installed: ${absent.join(', ')}`;
}

function failure(ended: ProgramOutcome, program: string): Exclude<ToolOutcome<never>, { kind: 'done' }> {
  switch (ended.kind) {
    case 'killed':
      return { kind: 'lost', loss: ended.loss, detail: program };
    case 'absent':
      return { kind: 'lost', loss: 'start', detail: `${program} is not installed` };
    case 'ended': {
      const detail = clip(`${program}: ${ended.stderr.trim()}`);
      // The kernel killed it for its CPU time, or it crashed: another attempt may succeed.
      if (ended.code === null) return { kind: 'lost', loss: 'exit', detail };
      return {
        kind: /not on whitelist|decoder not found|not an HEIF|unsupported (?:codec|HEIF)/i.test(detail)
          ? 'unsupported'
          : 'broken',
        detail,
      };
    }
  }
}
