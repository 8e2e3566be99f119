/**
 * What operators do with thumbnails: inspect the queue, retry dead letters, and
 * queue what the configuration asks for and blobs lack. The latter two work in
 * steps and report their progress, so that a million media delay nobody.
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
  /** The newest dead letters. */
  readonly deadJobs: readonly DeadJob[];
  readonly nextReadyAt: EpochMs | null;
}

export async function reportQueue(meta: Pick<MetaStore, 'jobs'>, deadMax: number): Promise<QueueReport> {
  const counts = await meta.jobs.counts();
  const [deadJobs, nextReadyAt] = [await meta.jobs.dead(deadMax), await meta.jobs.nextReadyAt()];
  return { ...counts, deadJobs, nextReadyAt };
}

export interface RetryProgress {
  /** Dead letters that are in the queue again. */
  readonly revived: number;
  readonly left: number;
}

const STEP = 500;

/** Retries as many dead letters as there were at the start, so that jobs which die again meanwhile do not keep it going. */
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
  /** Blobs whose surplus thumbnails were taken off their records. The sweep frees the bytes. */
  readonly trimmed: number;
  /** The hash after which an interrupted run goes on; null: everything was seen. */
  readonly next: Sha256 | null;
}

export interface BackfillDeps {
  readonly meta: Pick<MetaStore, 'jobs' | 'blobsAfter' | 'finishThumbs'>;
  readonly config: ThumbsConfig;
  readonly thumbs: Pick<Thumbs, 'accepts'>;
  readonly clock: Pick<Clock, 'now'>;
}

/**
 * Queues, at the lowest priority, each blob that lacks thumbnails which the configuration asks for; with `all`, every
 * blob. If a blob only has surplus thumbnails, they are taken off its record without rendering.
 */
export async function* backfillThumbs(
  { meta, config, thumbs, clock }: BackfillDeps,
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
    const surplus = accepted.filter((blob) => !wanted.includes(blob) && surplusOf(blob, config).length > 0);
    await Promise.all(surplus.map((blob) => meta.finishThumbs(blob.sha256, trim(blob, config))));
    seen += blobs.length;
    queued += wanted.length;
    trimmed += surplus.length;
    after = next;
    yield { seen, queued, trimmed, next };
  } while (after !== null);
}

/** Whether a blob of an accepted type lacks thumbnails that would be made now. A refusal that still holds is kept. */
export function isOutdated(blob: BlobRecord, config: ThumbsConfig): boolean {
  const { thumbs } = blob;
  switch (thumbs.kind) {
    case 'pending':
      return true;
    case 'none':
      return isNowPossible(blob) || isNowAllowed(blob, config);
    case 'ready': {
      const present = new Set(thumbs.made.map(renditionOf));
      return renditionsFor(blob, config)?.some((rendition) => !present.has(rendition)) ?? false;
    }
  }
}

/** The stored thumbnails that would not be made now. */
function surplusOf(blob: BlobRecord, config: ThumbsConfig): readonly ThumbMade[] {
  const renditions = renditionsFor(blob, config);
  if (blob.thumbs.kind !== 'ready' || renditions === undefined) return [];
  return blob.thumbs.made.filter((made) => !renditions.includes(renditionOf(made)));
}

function trim(blob: BlobRecord, config: ThumbsConfig): ThumbOutcome {
  const surplus = surplusOf(blob, config);
  const made = blob.thumbs.kind === 'ready' ? blob.thumbs.made.filter((thumb) => !surplus.includes(thumb)) : [];
  return { kind: 'made', made, picture: NO_FACTS };
}

/** All that would be made now; undefined for sound with a cover, because the size of the cover is not recorded. */
function renditionsFor(blob: BlobRecord, config: ThumbsConfig): readonly string[] | undefined {
  const { width, height } = blob.picture;
  if (width === null || height === null) return undefined;
  return planThumbs({ width, height }, config.variants).thumbs.flatMap((thumb) =>
    formatsFor(blob, thumb.variant, config).map((format) =>
      rendition(thumb.variant, thumb.width, thumb.height, format),
    ),
  );
}

function renditionOf({ variant, width, height, format }: ThumbMade): string {
  return rendition(variant, width, height, format);
}

function rendition(variant: string, width: number, height: number, format: ThumbFormat): string {
  return `${variant} ${width} ${height} ${format}`;
}

/** Formats also depend on the pixels, and the stored thumbnails show how. */
function formatsFor({ thumbs }: BlobRecord, variant: string, { formats }: ThumbsConfig): readonly ThumbFormat[] {
  const made = thumbs.kind === 'ready' ? thumbs.made : [];
  const transparent = made.some(({ format }) => format === 'png');
  const moves = made.some((thumb) => thumb.animated && thumb.variant === variant);
  return ['webp', transparent ? 'png' : 'jpeg', ...(formats.avif.enabled && !moves ? (['avif'] as const) : [])];
}

/** Tools may have been installed since. If a duration is known, they were there and found no picture. */
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
