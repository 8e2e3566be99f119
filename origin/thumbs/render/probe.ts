/**
 * Reads what ffprobe prints about a file. The file may be hostile, so a value
 * that is missing, malformed or out of bounds counts as unknown.
 */
import type { Size } from '../plan.js';

export interface Stream {
  readonly index: number;
  readonly shown: Size;
  /** Whether it is the cover of a piece of music, which is a single picture. */
  readonly cover: boolean;
}

export interface ProbedMedia {
  /** Size of the picture as it is shown, upright and with square pixels; null if there is none or only a cover. */
  readonly shown: Size | null;
  readonly durationMs: number | null;
  /** The stream from which a still is made; null: there is none. */
  readonly stream: Stream | null;
}

/** The entries that ffprobe is to print. */
export const SHOWN = [
  'stream=index,codec_type,width,height,sample_aspect_ratio,duration',
  'stream_disposition=attached_pic',
  'stream_side_data=rotation',
  'stream_tags=rotate',
  'format=duration',
].join(':');

/** Undefined if there is neither picture nor sound. */
export function readProbe(text: string): ProbedMedia | undefined {
  const document = asRecord(parseJson(text));
  const streams = Array.isArray(document?.['streams']) ? document['streams'].map(asRecord) : [];
  const sound = streams.some((stream) => stream?.['codec_type'] === 'audio');
  const pictures = streams.map(readStream).filter((stream) => stream !== undefined);
  const stream = pictures.find(({ cover }) => !cover) ?? pictures[0] ?? null;
  if (stream === null && !sound) return undefined;
  const durationMs =
    readSeconds(asRecord(document?.['format'])?.['duration']) ??
    streams.map((each) => readSeconds(each?.['duration'])).find((each) => each !== null) ??
    null;
  return { stream, durationMs, shown: stream === null || stream.cover ? null : stream.shown };
}

/** The last instant that ffmpeg reports with `-progress`: where the last packet ends. */
export function readProgress(text: string): number | null {
  const [, hours, minutes, seconds] = [...text.matchAll(/^out_time=(\d{2,4}):(\d{2}):(\d{2}\.\d+)\s*$/gm)].at(-1) ?? [];
  return readSeconds(String(Number(hours) * 3_600 + Number(minutes) * 60 + Number(seconds)));
}

/** Whether ffprobe warns that the duration is a guess from the bit rate. */
export function isEstimated(stderr: string): boolean {
  return stderr.includes('Estimating duration from bitrate');
}

function readStream(stream: Readonly<Record<string, unknown>> | undefined): Stream | undefined {
  if (stream?.['codec_type'] !== 'video') return undefined;
  const { index, width, height } = stream;
  if (!isPositive(width) || !isPositive(height) || typeof index !== 'number' || !Number.isInteger(index))
    return undefined;
  const size = { width: Math.max(1, Math.round(width * readAspect(stream['sample_aspect_ratio']))), height };
  const turned = readRotation(stream) % 180 !== 0;
  return {
    index,
    shown: turned ? { width: size.height, height: size.width } : size,
    cover: asRecord(stream['disposition'])?.['attached_pic'] === 1,
  };
}

/** `4:3` as a number; 1 for a value that makes no sense. */
function readAspect(value: unknown): number {
  const match = typeof value === 'string' ? /^(\d{1,6}):(\d{1,6})$/.exec(value) : null;
  const aspect = Number(match?.[1]) / Number(match?.[2]);
  return aspect >= 0.1 && aspect <= 10 ? aspect : 1;
}

/** Degrees, in whole quarter turns. */
function readRotation(stream: Readonly<Record<string, unknown>>): number {
  const side = Array.isArray(stream['side_data_list']) ? stream['side_data_list'].map(asRecord) : [];
  const stated = side.map((data) => data?.['rotation']).find((rotation) => typeof rotation === 'number');
  const degrees = stated ?? Number(asRecord(stream['tags'])?.['rotate'] ?? 0);
  return Number.isFinite(degrees) ? Math.round(degrees / 90) * 90 : 0;
}

function readSeconds(value: unknown): number | null {
  const seconds = typeof value === 'string' ? Number(value) : Number.NaN;
  return seconds > 0 && seconds < 1e7 ? Math.round(seconds * 1_000) : null;
}

function isPositive(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) > 0;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function asRecord(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
}
