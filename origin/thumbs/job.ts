/**
 * The steps of one job: the original is fetched into a folder of its own,
 * turned into a still if it is not a picture, and rendered by a child; the blob
 * store adopts the results. The folder is removed, even after a failure.
 *
 * Returns how the attempt ended and decides nothing about the job. Throws when
 * the storage fails.
 */
import { mkdtemp, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Slots } from '../../src/slots.js';
import { newPlace, type Place } from '../blobs/blob-store.js';
import { inFolder } from '../blobs/files.js';
import { type BlobRecord, NO_FACTS, type PictureFacts, type ThumbMade, type ThumbRefusal } from '../meta/media.js';
import type { ThumbsConfig } from './config.js';
import { baseSize, planThumbs } from './plan.js';
import type { Loss } from './render/child.js';
import type { MediaTools, ToolJob, ToolOutcome } from './render/media-tools.js';
import type { RenderPool } from './render/pool.js';
import type { RenderedThumb, RenderResult } from './render/protocol.js';
import {
  type EarlyThumb,
  fetchOriginal,
  isolatePicture,
  readThumbs,
  type StoreThumbsDeps,
  storeThumbs,
  type ThumbRun,
} from './store-thumb.js';
import { type Demuxer, type Route, routeOf } from './types.js';

export interface JobDeps extends StoreThumbsDeps {
  readonly config: ThumbsConfig;
  readonly pool: RenderPool;
  readonly tools: MediaTools;
  /** Slots for external programs, as many as there are children. */
  readonly toolSlots: Slots;
}

export interface JobTask {
  readonly blob: BlobRecord;
  readonly priority: number;
  /** False: only stills. */
  readonly animate: boolean;
  /** Called when some thumbnails can be shown before the job ends. */
  readonly onEarly: (early: readonly EarlyThumb[]) => void;
  /** Called when the thumbhash is known before the job ends. */
  readonly onHash: (thumbhash: string) => void;
}

export type JobEnd =
  | { readonly kind: 'made'; readonly made: readonly ThumbMade[]; readonly picture: PictureFacts }
  | {
      readonly kind: 'refused';
      readonly reason: ThumbRefusal;
      readonly picture: PictureFacts;
      readonly detail: string;
    }
  /** A process was lost, or it lacked memory, space or permission for its work. */
  | { readonly kind: 'lost'; readonly loss: Loss | 'resources'; readonly detail: string }
  /** The blob has a record but no bytes. */
  | { readonly kind: 'missing' };

/** Prefix of the names of job folders in the stage folder. */
export const JOB_FOLDER_PREFIX = 'thumb-';

/** `file` is the original. */
interface JobWork extends JobDeps, JobTask, ToolJob {
  /** Where what this attempt makes is stored. */
  readonly place: Place;
}

export async function makeThumbs(deps: JobDeps, task: JobTask, signal: AbortSignal): Promise<JobEnd> {
  const { config, blobs, tools } = deps;
  const { blob } = task;
  const route = routeOf(blob.mime, tools.installed);
  if (route.kind === 'none') return refused('unsupported_type', `no thumbnails are made of ${blob.mime}`);
  const sizeMaxBytes = route.kind === 'ffmpeg' ? config.video.sourceMaxBytes : config.sourceMaxBytes;
  if (blob.sizeBytes > sizeMaxBytes) return refused('too_expensive', `${blob.sizeBytes} bytes are beyond the limit`);
  const prefix = join(blobs.stageFolder, JOB_FOLDER_PREFIX);
  const folder = await inFolder(blobs.stageFolder, () => mkdtemp(prefix));
  try {
    const file = await fetchOriginal(blobs, blob, folder, signal);
    if (file === undefined) return { kind: 'missing' };
    return await renderBy(route, { ...deps, ...task, file, folder, place: newPlace(), signal });
  } finally {
    // The folder is usually empty by now, and rmdir is cheaper.
    await rmdir(folder).catch(() => rm(folder, { recursive: true, force: true }));
  }
}

async function renderBy(route: Exclude<Route, { kind: 'none' }>, work: JobWork): Promise<JobEnd> {
  switch (route.kind) {
    case 'picture': {
      const end = await renderPicture(work);
      if (end.kind !== 'refused' || work.blob.mime !== 'image/avif' || !work.tools.installed.ffmpeg) return end;
      // The picture library reads only items of AVIF. A sequence without any has the container of a video.
      const isUndecided = end.reason === 'unsupported_type' || end.reason === 'broken_image';
      const filmed = isUndecided ? await renderVideo(work, 'mov') : end;
      return filmed.kind === 'refused' && filmed.reason === 'broken_image' ? end : filmed;
    }
    case 'heif':
      return renderHeif(work);
    case 'ffmpeg':
      return renderVideo(work, route.demuxer);
  }
}

async function renderPicture(work: JobWork): Promise<JobEnd> {
  const result = await runRender(work, work.file, { upright: false, animate: work.animate });
  if ('loss' in result) return result;
  return finishRender(work, result, { ...NO_FACTS, ...result.facts });
}

async function renderHeif(work: JobWork): Promise<JobEnd> {
  const copy = join(work.folder, 'primary.heif');
  const header = await isolatePicture(work.file, copy);
  if (header === undefined) return refused('broken_image', 'the header has no size');
  const picture = { ...NO_FACTS, width: header.width, height: header.height, orientation: 1, frames: 1 };
  if (header.width * header.height > work.config.pixelsMax) return tooManyPixels(header, picture);
  // PNG takes ten times the processor time of JPEG, which has no alpha.
  const format = header.alpha ? 'png' : 'jpg';
  const converted = await withToolSlot(work, () => work.tools.convertHeif({ ...work, file: copy }, format));
  if (converted.kind !== 'done') return endOfTool(converted, picture);
  return renderStill(work, converted.value, picture);
}

async function renderVideo(work: JobWork, demuxer: Demuxer): Promise<JobEnd> {
  const { config, tools } = work;
  const probed = await withToolSlot(work, () => tools.probe(work, demuxer));
  if (probed.kind !== 'done') return endOfTool(probed, NO_FACTS);
  const { stream, shown, durationMs } = probed.value;
  const isImage = work.blob.mime.startsWith('image/');
  const size = { width: shown?.width ?? null, height: shown?.height ?? null };
  const picture = { ...NO_FACTS, ...size, durationMs: isImage ? null : durationMs };
  if (stream === null) return refused('unsupported_type', 'it has no picture', picture);
  if (stream.shown.width * stream.shown.height > config.pixelsMax) return tooManyPixels(stream.shown, picture);
  const posterSize = baseSize(stream.shown, planThumbs(stream.shown, config.variants).thumbs);
  const media = { ...probed.value, stream };
  const poster = await withToolSlot(work, () => tools.poster(work, demuxer, media, posterSize));
  if (poster.kind !== 'done') return endOfTool(poster, picture);
  return renderStill(work, poster.value, picture);
}

/** Renders a still that a tool has made. Of the facts about the still, only the hash is true of the original too. */
async function renderStill(work: JobWork, still: string, picture: PictureFacts): Promise<JobEnd> {
  const result = await runRender(work, still, { upright: true, animate: false });
  if ('loss' in result) return result;
  return finishRender(work, result, { ...picture, thumbhash: result.facts.thumbhash });
}

async function withToolSlot<T>({ toolSlots, signal }: JobWork, run: () => Promise<T>): Promise<T> {
  const release = await toolSlots.take(signal);
  try {
    return await run();
  } finally {
    release();
  }
}

function endOfTool(outcome: Exclude<ToolOutcome<never>, { kind: 'done' }>, picture: PictureFacts): JobEnd {
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

function tooManyPixels(size: { readonly width: number; readonly height: number }, picture: PictureFacts): JobEnd {
  return refused('too_many_pixels', `${size.width} × ${size.height} pixels are beyond the limit`, picture);
}

type RenderEnd = Exclude<RenderResult, { kind: 'failed' }>;

async function runRender(
  work: JobWork,
  input: string,
  how: { readonly upright: boolean; readonly animate: boolean },
): Promise<RenderEnd | Extract<JobEnd, { kind: 'lost' }>> {
  const { config, pool, folder, priority, signal, onEarly, onHash } = work;
  const { variants, defaultVariant, formats, animation, pixelsMax, sourceMaxBytes, scansMax, framesMax } = config;
  const settings = { variants, defaultVariant, formats, animation, pixelsMax, sourceMaxBytes, scansMax, framesMax };
  const show = (thumbs: readonly RenderedThumb[], thumbhash: string | null): void => {
    if (thumbhash !== null) onHash(thumbhash);
    if (thumbs.length === 0) return;
    // A file that cannot be read now is reported when it is stored.
    readThumbs(thumbs, runOf(work)).then(onEarly, () => undefined);
  };
  const outcome = await pool.run({ input, folder, ...how, settings }, priority, signal, show);
  if (outcome.kind === 'lost') return outcome;
  const { result } = outcome;
  if (result.kind !== 'failed') return result;
  return { kind: 'lost', loss: 'resources', detail: `${result.code ?? ''} ${result.detail}`.trim() };
}

function runOf({ blob, place, folder }: JobWork): ThumbRun {
  return { source: blob.sha256, place, folder };
}

async function finishRender(work: JobWork, result: RenderEnd, picture: PictureFacts): Promise<JobEnd> {
  if (result.kind === 'refused') return refused(result.reason, result.detail, picture);
  const made = await storeThumbs(work, runOf(work), result.thumbs, work.signal);
  return { kind: 'made', made, picture };
}
