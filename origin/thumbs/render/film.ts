/**
 * Video, audio and HEIC through ffmpeg, ffprobe and heif-convert where they are
 * installed: what they are, how long they take, and one still of them as a PNG,
 * which then goes the way of every other picture.
 *
 * Promises: each run is a process of its own under limits; the container is the
 * one that the type says, only listed codecs are opened, and nothing but the
 * file and pipes can be. Absent tools are told in `tools` and break nothing.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../../src/clock.js';
import type { ThumbsConfig } from '../config.js';
import type { Size } from '../plan.js';
import type { Demuxer, Tools } from '../types.js';
import type { Loss } from './child.js';
import { type Film, readProbe, SHOWN, type Stream } from './probe.js';
import { type ProgramOutcome, runProgram } from './program.js';
import { clip } from './protocol.js';

export type FilmOutcome<T> =
  | { readonly kind: 'done'; readonly value: T }
  | { readonly kind: 'broken'; readonly detail: string }
  /** It needs a decoder that is not there or not allowed. */
  | { readonly kind: 'unsupported'; readonly detail: string }
  | { readonly kind: 'lost'; readonly loss: Loss; readonly detail: string };

export interface FilmTools {
  readonly tools: Tools;
  /** What is missing, in words; null: nothing. */
  readonly missing: string | null;
  probe(file: string, demuxer: Demuxer, folder: string, signal: AbortSignal): Promise<FilmOutcome<Film>>;
  /** A still at a sensible instant, no larger than `size`; answers the path of a PNG in the folder. */
  poster(
    file: string,
    demuxer: Demuxer,
    film: Film & { readonly stream: Stream },
    size: Size,
    folder: string,
    signal: AbortSignal,
  ): Promise<FilmOutcome<string>>;
  /** The PNGs in the folder that a HEIC file decodes to; several where it holds several pictures. */
  convertHeif(file: string, folder: string, signal: AbortSignal): Promise<FilmOutcome<readonly string[]>>;
}

/** The decoders of what browsers and telephones make; the hundreds of others stay shut. */
const CODECS = [
  'h264,hevc,vp8,vp9,av1,libdav1d,libaom-av1,mpeg4,mpeg2video,mpeg1video,h263,theora,mjpeg,png',
  'aac,mp3,mp3float,opus,libopus,vorbis,libvorbis,flac,alac,amrnb,amrwb,ac3,eac3',
  'pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s32le,pcm_f32le,pcm_alaw,pcm_mulaw',
].join();

const FENCE = ['-protocol_whitelist', 'file,pipe', '-codec_whitelist', CODECS];
/** A PNG of the largest poster is far smaller. */
const OUTPUT_MAX_BYTES = 512 * 1_024 * 1_024;

export async function findFilmTools(
  config: Pick<ThumbsConfig, 'video' | 'pixelsMax'>,
  folder: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<FilmTools> {
  const { video, pixelsMax } = config;
  const limits = { ...video, fileMaxBytes: OUTPUT_MAX_BYTES };
  const run = (program: string, args: readonly string[], cwd: string, until: AbortSignal): Promise<ProgramOutcome> =>
    runProgram({ program, args }, limits, cwd, clock, until);
  const here = async (program: string, args: readonly string[]): Promise<boolean> => {
    if (!video.enabled) return false;
    const found = await run(program, args, folder, signal);
    return found.kind === 'ended';
  };
  const [ffmpeg, ffprobe, heif] = await Promise.all([
    here(video.ffmpeg, ['-hide_banner', '-version']),
    here(video.ffprobe, ['-hide_banner', '-version']),
    here(video.heifConvert, ['--version']),
  ]);

  async function probe(file: string, demuxer: Demuxer, cwd: string, until: AbortSignal): Promise<FilmOutcome<Film>> {
    const args = ['-v', 'error', ...FENCE, '-f', demuxer, '-show_entries', SHOWN, '-of', 'json', `file:${file}`];
    const ended = await run(video.ffprobe, args, cwd, until);
    if (ended.kind !== 'ended' || ended.code !== 0) {
      const failed = failure(ended, 'ffprobe');
      return failed.kind === 'unsupported' ? probeContainer(file, demuxer, failed, cwd, until) : failed;
    }
    const film = readProbe(ended.output);
    return film === undefined
      ? { kind: 'broken', detail: 'it holds neither picture nor sound' }
      : { kind: 'done', value: film };
  }

  /** A codec that may not be opened leaves the container's own word for how long it takes, which ffmpeg tells before it gives up. */
  async function probeContainer(
    file: string,
    demuxer: Demuxer,
    failed: FilmOutcome<Film>,
    cwd: string,
    until: AbortSignal,
  ): Promise<FilmOutcome<Film>> {
    const args = ['-nostdin', '-hide_banner', '-v', 'info', ...FENCE, '-f', demuxer, '-i', `file:${file}`];
    const ended = await run(video.ffmpeg, args, cwd, until);
    const durationMs = ended.kind === 'ended' ? readDuration(ended.complaints) : null;
    return durationMs === null ? failed : { kind: 'done', value: { stream: null, shown: null, durationMs } };
  }

  async function posterAt(
    atMs: number,
    given: { readonly file: string; readonly demuxer: Demuxer; readonly stream: Stream; readonly size: Size },
    cwd: string,
    until: AbortSignal,
  ): Promise<FilmOutcome<Poster>> {
    const { file, demuxer, stream, size } = given;
    const name = `poster-${Math.round(atMs)}.png`;
    // Even a jump to the very beginning would skip a cover, which stands before it.
    const jump = atMs > 0 ? ['-ss', String(atMs / 1_000)] : [];
    const input = ['-max_pixels', String(pixelsMax), '-threads', '1', ...jump, '-f', demuxer];
    const still = [
      '-frames:v',
      '1',
      '-vf',
      // A cover is meant to be as it is; a film may still be black.
      `scale=${size.width}:${size.height},setsar=1${stream.cover ? '' : MEASURED}`,
      '-f',
      'image2',
      '-update',
      '1',
    ];
    const args = ['-nostdin', '-hide_banner', '-v', 'error', ...FENCE, ...input, '-i', `file:${file}`].concat(
      ['-map', `0:${stream.index}`, ...still],
      ['-c:v', 'png', '-compression_level', '1', '-y', `file:${join(cwd, name)}`],
    );
    const ended = await run(video.ffmpeg, args, cwd, until);
    if (ended.kind !== 'ended') return failure(ended, 'ffmpeg');
    const made = (await readdir(cwd)).includes(name);
    if (!made) return failure(ended, 'ffmpeg');
    return { kind: 'done', value: { path: join(cwd, name), plain: isPlain(ended.output) } };
  }

  return {
    tools: { film: ffmpeg && ffprobe, heif },
    missing: missingOf(video, { ffmpeg, ffprobe, heif }),
    probe,
    async poster(file, demuxer, { stream, durationMs }, size, cwd, until) {
      const given = { file, demuxer, stream, size };
      let best: FilmOutcome<Poster> | undefined;
      for (const atMs of posterInstants(stream.cover ? 0 : (durationMs ?? 0), video.posterAtMs)) {
        const tried = await posterAt(atMs, given, cwd, until);
        if (tried.kind === 'done' && !tried.value.plain) return { kind: 'done', value: tried.value.path };
        if (tried.kind === 'lost' || tried.kind === 'unsupported') return tried;
        if (best?.kind !== 'done') best = tried;
      }
      if (best === undefined) return { kind: 'broken', detail: 'it has no instants' };
      return best.kind === 'done' ? { kind: 'done', value: best.value.path } : best;
    },
    async convertHeif(file, cwd, until) {
      const ended = await run(video.heifConvert, [file, join(cwd, 'picture.png')], cwd, until);
      if (ended.kind !== 'ended' || ended.code !== 0) return failure(ended, 'heif-convert');
      const made = (await readdir(cwd)).filter((name) => /^picture(?:-\d+)?\.png$/.test(name)).sort();
      return made.length === 0
        ? failure(ended, 'heif-convert')
        : { kind: 'done', value: made.map((name) => join(cwd, name)) };
    },
  };
}

interface Poster {
  readonly path: string;
  /** Nearly all of it is of one colour, as before a film fades in. */
  readonly plain: boolean;
}

/** Has ffmpeg say how the brightness and the colours of a frame are spread. */
const MEASURED = ',signalstats,metadata=mode=print:file=-';
/** The tenth and the ninetieth percentile are no further apart, of 256 steps. */
const PLAIN_SPREAD_MAX = 12;

/** Of the first frame, which is the one that is kept. */
function isPlain(stats: string): boolean {
  const read = (name: string): number => Number(new RegExp(`signalstats\\.${name}=([\\d.]+)`).exec(stats)?.[1]);
  return ['Y', 'U', 'V'].every((plane) => read(`${plane}HIGH`) - read(`${plane}LOW`) <= PLAIN_SPREAD_MAX);
}

/** Where a poster is looked for, the most wanted first. A film may be black, or have no picture, at any of them. */
function posterInstants(durationMs: number, posterAtMs: number): readonly number[] {
  const wanted = Math.min(posterAtMs, durationMs / 3);
  return [...new Set([wanted, durationMs / 3, durationMs / 2, 0].map(Math.round))];
}

const DURATION = /^ *Duration: (\d{2,4}):(\d{2}):(\d{2}(?:\.\d+)?),/m;

function readDuration(said: string): number | null {
  const [, hours, minutes, seconds] = DURATION.exec(said) ?? [];
  const durationMs = Math.round((Number(hours) * 3_600 + Number(minutes) * 60 + Number(seconds)) * 1_000);
  return durationMs > 0 ? durationMs : null;
}

function missingOf(video: ThumbsConfig['video'], found: Readonly<Record<string, boolean>>): string | null {
  if (!video.enabled) return 'switched off';
  const absent = Object.keys(found).filter((name) => found[name] !== true);
  const names: Readonly<Record<string, string>> = { heif: 'heif-convert' };
  return absent.length === 0 ? null : `not installed: ${absent.map((name) => names[name] ?? name).join(', ')}`;
}

function failure(ended: ProgramOutcome, program: string): Exclude<FilmOutcome<never>, { kind: 'done' }> {
  switch (ended.kind) {
    case 'killed':
      return { kind: 'lost', loss: ended.loss, detail: program };
    case 'absent':
      return { kind: 'lost', loss: 'start', detail: `${program} is not there` };
    case 'ended': {
      const detail = clip(`${program}: ${ended.complaints.trim()}`);
      // Killed by the kernel for its CPU time, or fallen over: another attempt may fare better.
      if (ended.code === null) return { kind: 'lost', loss: 'exit', detail };
      return { kind: /not on whitelist|decoder not found/i.test(detail) ? 'unsupported' : 'broken', detail };
    }
  }
}
