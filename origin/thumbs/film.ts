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
import type { Clock } from '../../src/clock.js';
import type { Loss } from './child.js';
import type { ThumbsConfig } from './config.js';
import type { Size } from './plan.js';
import { type Film, readProbe, SHOWN, type Stream } from './probe.js';
import { type ProgramOutcome, runProgram } from './program.js';
import { clip } from './protocol.js';
import type { Demuxer, Tools } from './types.js';

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
    if (ended.kind !== 'ended' || ended.code !== 0) return failure(ended, 'ffprobe');
    const film = readProbe(ended.output);
    return film === undefined
      ? { kind: 'broken', detail: 'it holds neither picture nor sound' }
      : { kind: 'done', value: film };
  }

  async function posterAt(
    atMs: number,
    given: { readonly file: string; readonly demuxer: Demuxer; readonly stream: Stream; readonly size: Size },
    cwd: string,
    until: AbortSignal,
  ): Promise<FilmOutcome<string>> {
    const { file, demuxer, stream, size } = given;
    const poster = join(cwd, 'poster.png');
    // Even a jump to the very beginning would skip a cover, which stands before it.
    const jump = atMs > 0 ? ['-ss', String(atMs / 1_000)] : [];
    const input = ['-max_pixels', String(pixelsMax), '-threads', '1', ...jump, '-f', demuxer];
    const still = [
      '-frames:v',
      '1',
      '-vf',
      `scale=${size.width}:${size.height},setsar=1`,
      '-f',
      'image2',
      '-update',
      '1',
    ];
    const args = ['-nostdin', '-hide_banner', '-v', 'error', ...FENCE, ...input, '-i', `file:${file}`].concat(
      ['-map', `0:${stream.index}`, ...still],
      ['-c:v', 'png', '-compression_level', '1', '-y', `file:${poster}`],
    );
    const ended = await run(video.ffmpeg, args, cwd, until);
    if (ended.kind !== 'ended') return failure(ended, 'ffmpeg');
    const made = (await readdir(cwd)).includes('poster.png');
    return made ? { kind: 'done', value: poster } : failure(ended, 'ffmpeg');
  }

  return {
    tools: { film: ffmpeg && ffprobe, heif },
    missing: missingOf(video, { ffmpeg, ffprobe, heif }),
    probe,
    async poster(file, demuxer, { stream, durationMs }, size, cwd, until) {
      const given = { file, demuxer, stream, size };
      const atMs = stream.cover ? 0 : Math.min(video.posterAtMs, (durationMs ?? 0) / 3);
      const wanted = await posterAt(atMs, given, cwd, until);
      // A film may have no picture at that instant, or be cut off before it.
      return wanted.kind === 'broken' && atMs > 0 ? posterAt(0, given, cwd, until) : wanted;
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
