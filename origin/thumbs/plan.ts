/**
 * Which thumbnails a picture of a given size gets, and which of those a choice
 * is served by: pure functions of sizes and configuration.
 *
 * A picture is never enlarged. Variants that would come out alike are made
 * once, under the name of the smallest, and the others are served by that one:
 * of a picture 200 pixels wide the variants 160 and 320 are made (the latter at
 * 200), and 640 and 1280 are served by 320.
 */
import type { ChosenFormat, ThumbOptions } from '../../src/media/thumb-choice.js';
import type { PictureFacts, ThumbFormat, ThumbMade } from '../meta/media.js';
import type { ThumbsConfig, VariantConfig } from './config.js';

/** A rectangle of the upright source. */
export interface Region {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export interface PlannedThumb {
  readonly variant: string;
  /** What of the source is shown. */
  readonly region: Region;
  readonly width: number;
  readonly height: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface ThumbPlan {
  /** Largest first. No two show the same. */
  readonly thumbs: readonly PlannedThumb[];
  /** Name of each configured variant -> name of the one that it is served by. */
  readonly servedBy: ReadonlyMap<string, string>;
}

/** WebP has 14 bits for a side; beside it no format that we make has a tighter bound. */
const SIDE_MAX = 16_383;
/** A variant without a height of its own is as tall as this many times its width at most. */
const TALLEST = 4;

export function planThumbs(source: Size, variants: readonly VariantConfig[]): ThumbPlan {
  const planned = [...variants]
    .sort((a, b) => area(boxOf(a)) - area(boxOf(b)))
    .map((variant) => planVariant(source, variant))
    .sort((a, b) => area(a) - area(b));
  const thumbs = new Map<string, PlannedThumb>();
  const servedBy = new Map<string, string>();
  for (const thumb of planned) {
    const look = `${Object.values(thumb.region).join()} ${thumb.width} ${thumb.height}`;
    const alike = thumbs.get(look);
    if (alike === undefined) thumbs.set(look, thumb);
    servedBy.set(thumb.variant, (alike ?? thumb).variant);
  }
  return { thumbs: [...thumbs.values()].toReversed(), servedBy };
}

function planVariant(source: Size, variant: VariantConfig): PlannedThumb {
  return variant.fit === 'inside' ? planInside(source, variant) : planCover(source, variant);
}

function planInside(source: Size, variant: VariantConfig): PlannedThumb {
  const widthMax = Math.min(variant.width, SIDE_MAX);
  const heightMax = Math.min(variant.height > 0 ? variant.height : variant.width * TALLEST, SIDE_MAX);
  const scale = Math.min(1, widthMax / source.width, heightMax / source.height);
  return {
    variant: variant.name,
    region: { left: 0, top: 0, ...source },
    width: side(source.width * scale),
    height: side(source.height * scale),
  };
}

/** The largest centred part of the configured shape; smaller sources give a smaller picture of that shape. */
function planCover(source: Size, variant: VariantConfig): PlannedThumb {
  const box = boxOf(variant);
  const shrink = Math.min(1, source.width / box.width, source.height / box.height);
  const width = side(box.width * shrink);
  const height = side(box.height * shrink);
  const scale = Math.max(width / source.width, height / source.height);
  const shown = {
    width: Math.min(source.width, side(width / scale)),
    height: Math.min(source.height, side(height / scale)),
  };
  return {
    variant: variant.name,
    region: {
      left: Math.floor((source.width - shown.width) / 2),
      top: Math.floor((source.height - shown.height) / 2),
      ...shown,
    },
    width,
    height,
  };
}

function area({ width, height }: Size): number {
  return width * height;
}

function side(pixels: number): number {
  return Math.max(1, Math.round(pixels));
}

/** The box by which a wish chooses: a variant without a height of its own answers wishes up to its width both ways. */
function boxOf({ width, height }: VariantConfig): Size {
  return { width, height: height > 0 ? height : width };
}

/** The whole picture at the smallest scale from which every thumbnail can be had by shrinking. */
export function baseSize(source: Size, planned: readonly PlannedThumb[]): Size {
  const scale = Math.max(
    ...planned.map(({ region, width, height }) => Math.max(width / region.width, height / region.height)),
  );
  return {
    width: Math.max(1, Math.round(source.width * scale)),
    height: Math.max(1, Math.round(source.height * scale)),
  };
}

/** What there is to choose from, as origin and edge both read it. */
export function thumbOptionsOf(config: ThumbsConfig): ThumbOptions {
  return {
    variants: config.variants.map((variant) => ({ name: variant.name, fit: variant.fit, ...boxOf(variant) })),
    formats: config.formats.avif.enabled ? ['avif', 'webp', 'jpeg'] : ['webp', 'jpeg'],
    default: config.defaultVariant,
  };
}

/**
 * What a chosen format is served as, best first. Whoever reads AVIF reads WebP,
 * so what has no AVIF, as an animation, need not be a still for them.
 */
const SERVED_AS: Readonly<Record<ChosenFormat, readonly ThumbFormat[]>> = {
  avif: ['avif', 'webp', 'jpeg', 'png'],
  webp: ['webp', 'jpeg', 'png'],
  jpeg: ['jpeg', 'png'],
};

/**
 * The stored thumbnail that serves a choice; undefined where none was made.
 * After a change of the configuration, until the backfill has come by, the
 * nearest in size of those that were made before serves.
 */
export function pickThumb(
  made: readonly ThumbMade[],
  picture: Pick<PictureFacts, 'width' | 'height'>,
  variants: readonly VariantConfig[],
  chosen: { readonly variant: string; readonly format: ChosenFormat },
): ThumbMade | undefined {
  const { width, height } = picture;
  const plan = width === null || height === null ? undefined : planThumbs({ width, height }, variants);
  const variant = plan?.servedBy.get(chosen.variant) ?? chosen.variant;
  const exact = made.filter((thumb) => thumb.variant === variant);
  if (exact.length > 0) return inFormat(exact, chosen.format);
  const wish = plan?.thumbs.find((thumb) => thumb.variant === variant);
  return inFormat(nearest(made, wish?.width ?? 0), chosen.format);
}

function inFormat(made: readonly ThumbMade[], format: ChosenFormat): ThumbMade | undefined {
  for (const served of SERVED_AS[format]) {
    const found = made.find((thumb) => thumb.format === served);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** All formats of the variant whose width is nearest. */
function nearest(made: readonly ThumbMade[], width: number): readonly ThumbMade[] {
  const best = made.reduce<ThumbMade | undefined>(
    (held, thumb) =>
      held === undefined || Math.abs(thumb.width - width) < Math.abs(held.width - width) ? thumb : held,
    undefined,
  );
  return made.filter((thumb) => thumb.variant === best?.variant);
}
