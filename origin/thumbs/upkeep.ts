/**
 * What an operator does to thumbnails: look at the queue, give dead letters
 * another chance, and have made what the configuration now asks for. Each goes
 * in steps and tells how far it is, so that a million media hold up nobody.
 */
import type { Clock, EpochMs } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import type { DeadJob } from '../meta/jobs.js';
import type { BlobRecord, ThumbFormat } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';
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

export async function reportQueue(
  meta: Pick<MetaStore, 'jobs'>,
  clock: Pick<Clock, 'now'>,
  deadMax: number,
): Promise<QueueReport> {
  const counts = await meta.jobs.counts();
  const [deadJobs, nextReadyAt] = [await meta.jobs.dead(deadMax), await meta.jobs.nextReadyAt(clock.now())];
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
  /** Where a run that broke off goes on after; null: everything was seen. */
  readonly next: Sha256 | null;
}

export interface BackfillParts {
  readonly meta: Pick<MetaStore, 'jobs' | 'blobsAfter'>;
  readonly config: ThumbsConfig;
  readonly thumbs: Pick<Thumbs, 'accepts'>;
  readonly clock: Pick<Clock, 'now'>;
}

/** Queues, behind everything else, each blob whose thumbnails are not what the configuration asks for; with `all`, every one. */
export async function* backfillThumbs(
  { meta, config, thumbs, clock }: BackfillParts,
  given: { readonly all: boolean; readonly after: Sha256 | null },
  signal: AbortSignal,
): AsyncGenerator<BackfillProgress> {
  let after = given.after;
  let seen = 0;
  let queued = 0;
  do {
    signal.throwIfAborted();
    const { blobs, next } = await meta.blobsAfter(after, STEP);
    const wanted = blobs.filter((blob) => thumbs.accepts(blob.mime) && (given.all || isOutdated(blob, config)));
    await Promise.all(wanted.map(({ sha256 }) => meta.jobs.add(sha256, 'backfill', clock.now())));
    seen += blobs.length;
    queued += wanted.length;
    after = next;
    yield { seen, queued, next };
  } while (after !== null);
}

/** Whether an accepted type's thumbnails are other than they would be if made now. What was refused for good reason stays. */
export function isOutdated(blob: BlobRecord, config: ThumbsConfig): boolean {
  const { thumbs, picture } = blob;
  switch (thumbs.kind) {
    case 'pending':
      return true;
    case 'none':
      return thumbs.reason === 'unsupported_type' || isNowAllowed(blob, config);
    case 'ready': {
      const { width, height } = picture;
      // Of sound with a cover nothing is known but what was made of the cover.
      if (width === null || height === null) return false;
      const held = new Set(thumbs.made.map((made) => look(made.variant, made.width, made.height, made.format)));
      const { thumbs: planned } = planThumbs({ width, height }, config.variants);
      const looks = planned.flatMap((thumb) =>
        formatsFor(blob, thumb.variant, config).map((format) => look(thumb.variant, thumb.width, thumb.height, format)),
      );
      return held.size !== looks.length || looks.some((wanted) => !held.has(wanted));
    }
  }
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

/** Limits may have been raised since. */
function isNowAllowed({ thumbs, picture, sizeBytes }: BlobRecord, config: ThumbsConfig): boolean {
  if (thumbs.kind !== 'none') return false;
  const pixels = (picture.width ?? Number.POSITIVE_INFINITY) * (picture.height ?? 1);
  if (thumbs.reason === 'too_many_pixels') return pixels <= config.pixelsMax;
  return thumbs.reason === 'too_expensive' && sizeBytes <= config.sourceMaxBytes;
}
