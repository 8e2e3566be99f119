/**
 * What an operator does to thumbnails: look at the queue, give dead letters
 * another chance, and have made what the configuration now asks for. Each goes
 * in steps and tells how far it is, so that a million media hold up nobody.
 */
import type { Clock, EpochMs } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import type { DeadJob } from '../meta/jobs.js';
import { type BlobRecord, NO_FACTS, type ThumbFormat, type ThumbMade } from '../meta/media.js';
import type { MetaStore, ThumbOutcome } from '../meta/store.js';
import type { ThumbsConfig } from './config.js';
import type { Thumbs } from './engine.js';
import { planThumbs } from './plan.js';

export interface QueueReport {
  readonly waiting: number;
  readonly leased: number;
  readonly dead: number;
  /** The latest dead letters. */
  readonly deadJobs: readonly DeadJob[];
  readonly nextReadyAt: EpochMs | null;
}

export async function reportQueue(meta: Pick<MetaStore, 'jobs'>, deadMax: number): Promise<QueueReport> {
  const counts = await meta.jobs.counts();
  const [deadJobs, nextReadyAt] = [await meta.jobs.dead(deadMax), await meta.jobs.nextReadyAt()];
  return { ...counts, deadJobs, nextReadyAt };
}

export interface RetryProgress {
  /** Dead letters that wait in the queue again. */
  readonly revived: number;
  readonly left: number;
}

const STEP = 500;

/** Takes back the dead letters there were at the start, and not those that die again meanwhile. */
export async function* retryThumbs(
  meta: Pick<MetaStore, 'jobs'>,
  clock: Pick<Clock, 'now'>,
  signal: AbortSignal,
): AsyncGenerator<RetryProgress> {
  const { dead } = await meta.jobs.counts();
  let revived = 0;
  while (revived < dead) {
    signal.throwIfAborted();
    const step = await meta.jobs.revive(Math.min(STEP, dead - revived), clock.now());
    if (step === 0) return;
    revived += step;
    yield { revived, left: dead - revived };
  }
}

export interface BackfillProgress {
  readonly seen: number;
  readonly queued: number;
  /** Those that only had more than is asked for: their records no longer name it, and the sweep frees it. */
  readonly trimmed: number;
  /** Where a run that broke off goes on after; null: everything was seen. */
  readonly next: Sha256 | null;
}

export interface BackfillParts {
  readonly meta: Pick<MetaStore, 'jobs' | 'blobsAfter' | 'finishThumbs'>;
  readonly config: ThumbsConfig;
  readonly thumbs: Pick<Thumbs, 'accepts'>;
  readonly clock: Pick<Clock, 'now'>;
}

/**
 * Queues, behind everything else, each blob that lacks thumbnails the configuration asks for; with `all`, every one.
 * What is surplus alone is taken off the record without rendering.
 */
export async function* backfillThumbs(
  { meta, config, thumbs, clock }: BackfillParts,
  given: { readonly all: boolean; readonly after: Sha256 | null },
  signal: AbortSignal,
): AsyncGenerator<BackfillProgress> {
  let after = given.after;
  let seen = 0;
  let queued = 0;
  let trimmed = 0;
  do {
    signal.throwIfAborted();
    const { blobs, next } = await meta.blobsAfter(after, STEP);
    const accepted = blobs.filter((blob) => thumbs.accepts(blob.mime));
    const wanted = accepted.filter((blob) => given.all || isOutdated(blob, config));
    await Promise.all(wanted.map(({ sha256 }) => meta.jobs.add(sha256, 'backfill', clock.now())));
    const ample = accepted.filter((blob) => !wanted.includes(blob) && surplusOf(blob, config).length > 0);
    await Promise.all(ample.map((blob) => meta.finishThumbs(blob.sha256, trim(blob, config))));
    seen += blobs.length;
    queued += wanted.length;
    trimmed += ample.length;
    after = next;
    yield { seen, queued, trimmed, next };
  } while (after !== null);
}

/** Whether an accepted type lacks thumbnails that would be made now. What was refused for good reason stays. */
export function isOutdated(blob: BlobRecord, config: ThumbsConfig): boolean {
  const { thumbs } = blob;
  switch (thumbs.kind) {
    case 'pending':
      return true;
    case 'none':
      return isNowPossible(blob) || isNowAllowed(blob, config);
    case 'ready': {
      const held = new Set(thumbs.made.map(lookOf));
      return looksFor(blob, config)?.some((wanted) => !held.has(wanted)) ?? false;
    }
  }
}

/** What was made and would not be now. */
function surplusOf(blob: BlobRecord, config: ThumbsConfig): readonly ThumbMade[] {
  const looks = looksFor(blob, config);
  if (blob.thumbs.kind !== 'ready' || looks === undefined) return [];
  return blob.thumbs.made.filter((made) => !looks.includes(lookOf(made)));
}

function trim(blob: BlobRecord, config: ThumbsConfig): ThumbOutcome {
  const surplus = surplusOf(blob, config);
  const made = blob.thumbs.kind === 'ready' ? blob.thumbs.made.filter((thumb) => !surplus.includes(thumb)) : [];
  return { kind: 'made', made, picture: NO_FACTS };
}

/** All that would be made now; undefined of sound with a cover, of which nothing is known but what was made of the cover. */
function looksFor(blob: BlobRecord, config: ThumbsConfig): readonly string[] | undefined {
  const { width, height } = blob.picture;
  if (width === null || height === null) return undefined;
  return planThumbs({ width, height }, config.variants).thumbs.flatMap((thumb) =>
    formatsFor(blob, thumb.variant, config).map((format) => look(thumb.variant, thumb.width, thumb.height, format)),
  );
}

function lookOf({ variant, width, height, format }: ThumbMade): string {
  return look(variant, width, height, format);
}

function look(variant: string, width: number, height: number, format: ThumbFormat): string {
  return `${variant} ${width} ${height} ${format}`;
}

/** Formats depend on the pixels as well, so those that are there already say which they are. */
function formatsFor({ thumbs }: BlobRecord, variant: string, { formats }: ThumbsConfig): readonly ThumbFormat[] {
  const made = thumbs.kind === 'ready' ? thumbs.made : [];
  const transparent = made.some(({ format }) => format === 'png');
  const moves = made.some((thumb) => thumb.animated && thumb.variant === variant);
  return ['webp', transparent ? 'png' : 'jpeg', ...(formats.avif.enabled && !moves ? (['avif'] as const) : [])];
}

/** Tools may be there that were not; where a duration is known they were, and found nothing to show. */
function isNowPossible({ thumbs, picture }: BlobRecord): boolean {
  return thumbs.kind === 'none' && thumbs.reason === 'unsupported_type' && picture.durationMs === null;
}

/** Limits may have been raised since. */
function isNowAllowed({ thumbs, picture, sizeBytes }: BlobRecord, config: ThumbsConfig): boolean {
  if (thumbs.kind !== 'none') return false;
  const pixels = (picture.width ?? Number.POSITIVE_INFINITY) * (picture.height ?? 1);
  if (thumbs.reason === 'too_many_pixels') return pixels <= config.pixelsMax;
  return thumbs.reason === 'too_expensive' && sizeBytes <= config.sourceMaxBytes;
}
