/**
 * The story of one job: the original is fetched into a folder of its own,
 * turned into a still if it is no picture, rendered by a child, and the results
 * are adopted by the blob store. Whatever happens, the folder is removed.
 *
 * Says what came of it and decides nothing about the job; a storage that fails
 * throws.
 */
import { mkdtemp, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.js';
import type { Slots } from '../../src/slots.js';
import type { BlobStore } from '../blobs/blob-store.js';
import { type BlobRecord, NO_FACTS, type PictureFacts, type ThumbMade, type ThumbRefusal } from '../meta/media.js';
import type { ThumbsConfig } from './config.js';
import { baseSize, planThumbs } from './plan.js';
import type { Loss } from './render/child.js';
import type { FilmOutcome, FilmTools } from './render/film.js';
import type { RenderPool } from './render/pool.js';
import type { RenderResult } from './render/protocol.js';
import { adoptThumb, fetchOriginal, findSized, readHead } from './store-thumb.js';
import { type Route, routeOf } from './types.js';

export interface JobParts {
  readonly config: ThumbsConfig;
  readonly blobs: BlobStore;
  readonly pool: RenderPool;
  readonly film: FilmTools;
  /** For programs from outside, as many at once as there are children. */
  readonly filmSlots: Slots;
  readonly clock: Clock;
}

export interface JobTask {
  readonly blob: BlobRecord;
  readonly priority: number;
  readonly animate: boolean;
}

export type JobEnd =
  | { readonly kind: 'made'; readonly made: readonly ThumbMade[]; readonly picture: PictureFacts }
  | {
      readonly kind: 'refused';
      readonly reason: ThumbRefusal;
      readonly picture: PictureFacts;
      readonly detail: string;
    }
  /** A process was lost, or could not do its work for want of something. */
  | { readonly kind: 'lost'; readonly loss: Loss | 'resources'; readonly detail: string }
  /** There is a record, but no bytes. */
  | { readonly kind: 'missing' };

/** What the names of job folders below the stage start with. */
export const JOB_FOLDER_PREFIX = 'thumb-';

export async function makeThumbs(parts: JobParts, task: JobTask, signal: AbortSignal): Promise<JobEnd> {
  const { config, blobs, film } = parts;
  const { blob } = task;
  const route = routeOf(blob.mime, film.tools);
  if (route.kind === 'none') return refused('unsupported_type', `nothing is made of ${blob.mime}`);
  const sizeMaxBytes = route.kind === 'film' ? config.video.sourceMaxBytes : config.sourceMaxBytes;
  if (blob.sizeBytes > sizeMaxBytes) return refused('too_expensive', `${blob.sizeBytes} bytes are beyond the limit`);
  const folder = await mkdtemp(join(blobs.stageFolder, JOB_FOLDER_PREFIX));
  try {
    const original = await fetchOriginal(blobs, blob, folder, signal);
    if (original === undefined) return { kind: 'missing' };
    return await renderBy(route, parts, task, { original, folder }, signal);
  } finally {
    // Mostly nothing is left in it.
    await rmdir(folder).catch(() => rm(folder, { recursive: true, force: true }));
  }
}

interface Place {
  readonly original: string;
  readonly folder: string;
}

async function renderBy(
  route: Exclude<Route, { kind: 'none' }>,
  parts: JobParts,
  task: JobTask,
  place: Place,
  signal: AbortSignal,
): Promise<JobEnd> {
  switch (route.kind) {
    case 'picture': {
      const end = await renderPicture(parts, task, place, signal);
      // Of AVIF the library reads stills only; a sequence is a film in all but name.
      const sequence = end.kind === 'refused' && end.reason === 'unsupported_type' && task.blob.mime === 'image/avif';
      return sequence && parts.film.tools.film ? renderFilm(parts, task, 'mov', place, signal) : end;
    }
    case 'heif':
      return renderHeif(parts, task, place, signal);
    case 'film':
      return renderFilm(parts, task, route.demuxer, place, signal);
  }
}

async function renderPicture(parts: JobParts, task: JobTask, place: Place, signal: AbortSignal): Promise<JobEnd> {
  const result = await runRender(parts, task, place.original, place.folder, false, signal);
  if ('loss' in result) return result;
  const picture = { ...NO_FACTS, ...factsOf(result) };
  return finishRender(parts, task, result, picture, place.folder, signal);
}

async function renderHeif(parts: JobParts, task: JobTask, place: Place, signal: AbortSignal): Promise<JobEnd> {
  const header = await readHead(place.original);
  if (header === undefined) return refused('broken_image', 'the header tells no size');
  const picture = { ...NO_FACTS, width: header.width, height: header.height, orientation: 1, frames: 1 };
  if (header.width * header.height > parts.config.pixelsMax) {
    return refused('too_many_pixels', `${header.width} × ${header.height} pixels are beyond the limit`, picture);
  }
  const converted = await withFilmSlot(parts, signal, () =>
    parts.film.convertHeif(place.original, place.folder, signal),
  );
  if (converted.kind !== 'done') return endOfFilm(converted, picture);
  const still = await findSized(converted.value, header);
  if (still === undefined) return refused('broken_image', 'it decodes to another size than its header says', picture);
  return renderStill(parts, task, still, picture, place, signal);
}

async function renderFilm(
  parts: JobParts,
  task: JobTask,
  demuxer: Extract<Route, { kind: 'film' }>['demuxer'],
  place: Place,
  signal: AbortSignal,
): Promise<JobEnd> {
  const { config, film } = parts;
  const probed = await withFilmSlot(parts, signal, () => film.probe(place.original, demuxer, place.folder, signal));
  if (probed.kind !== 'done') return endOfFilm(probed, NO_FACTS);
  const { stream, shown, durationMs } = probed.value;
  const moving = !task.blob.mime.startsWith('image/');
  const size = { width: shown?.width ?? null, height: shown?.height ?? null };
  const picture = { ...NO_FACTS, ...size, durationMs: moving ? durationMs : null };
  if (stream === null) return refused('unsupported_type', 'it has no picture', picture);
  const { width, height } = stream.shown;
  if (width * height > config.pixelsMax) {
    return refused('too_many_pixels', `${width} × ${height} pixels are beyond the limit`, picture);
  }
  const posterSize = baseSize(stream.shown, planThumbs(stream.shown, config.variants).thumbs);
  const poster = await withFilmSlot(parts, signal, () =>
    film.poster(place.original, demuxer, { ...probed.value, stream }, posterSize, place.folder, signal),
  );
  if (poster.kind !== 'done') return endOfFilm(poster, picture);
  return renderStill(parts, task, poster.value, picture, place, signal);
}

/** A still that a tool has made: of its facts only the hash says anything of the original. */
async function renderStill(
  parts: JobParts,
  task: JobTask,
  still: string,
  picture: PictureFacts,
  place: Place,
  signal: AbortSignal,
): Promise<JobEnd> {
  const result = await runRender(parts, { ...task, animate: false }, still, place.folder, true, signal);
  if ('loss' in result) return result;
  const thumbhash = factsOf(result).thumbhash;
  return finishRender(parts, task, result, { ...picture, thumbhash }, place.folder, signal);
}

async function withFilmSlot<T>(parts: JobParts, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
  const release = await parts.filmSlots.take(signal);
  try {
    return await run();
  } finally {
    release();
  }
}

function endOfFilm(outcome: Exclude<FilmOutcome<never>, { kind: 'done' }>, picture: PictureFacts): JobEnd {
  switch (outcome.kind) {
    case 'broken':
      return refused('broken_image', outcome.detail, picture);
    case 'unsupported':
      return refused('unsupported_type', outcome.detail, picture);
    case 'lost':
      return outcome;
  }
}

function refused(reason: ThumbRefusal, detail: string, picture = NO_FACTS): JobEnd {
  return { kind: 'refused', reason, picture, detail };
}

type Lost = Extract<JobEnd, { kind: 'lost' }>;

async function runRender(
  { config, pool }: JobParts,
  { animate, priority }: JobTask,
  input: string,
  folder: string,
  upright: boolean,
  signal: AbortSignal,
): Promise<Exclude<RenderResult, { kind: 'failed' }> | Lost> {
  const { variants, formats, animation, pixelsMax, sourceMaxBytes } = config;
  const settings = { variants, formats, animation, pixelsMax, sourceMaxBytes };
  const outcome = await pool.run({ input, folder, upright, animate, settings }, priority, signal);
  if (outcome.kind === 'lost') return outcome;
  const { result } = outcome;
  if (result.kind !== 'failed') return result;
  return { kind: 'lost', loss: 'resources', detail: `${result.code ?? ''} ${result.detail}`.trim() };
}

function factsOf(result: Exclude<RenderResult, { kind: 'failed' }>): Omit<PictureFacts, 'durationMs'> {
  return result.facts;
}

async function finishRender(
  { blobs }: JobParts,
  { blob }: JobTask,
  result: Exclude<RenderResult, { kind: 'failed' }>,
  picture: PictureFacts,
  folder: string,
  signal: AbortSignal,
): Promise<JobEnd> {
  if (result.kind === 'refused') return refused(result.reason, result.detail, picture);
  const made = await Promise.all(result.thumbs.map((thumb) => adoptThumb(blobs, blob.sha256, thumb, folder, signal)));
  return { kind: 'made', made, picture };
}
