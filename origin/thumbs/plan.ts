/**
 * Which thumbnails a picture of a given size gets, and which of them serves a
 * request: pure functions of sizes and configuration.
 *
 * A picture is never enlarged. Variants that would look alike are made once,
 * under the name of the smallest, which serves the others too. For example, a
 * picture 200 pixels wide gets the variants 160 and 320 (the latter 200 pixels
 * wide), and 320 serves 640 and 1280.
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
  /** The part of the source that is shown. */
  readonly region: Region;
  readonly width: number;
  readonly height: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface ThumbPlan {
  /** Largest first. No two look alike. */
  readonly thumbs: readonly PlannedThumb[];
  /** Name of each configured variant -> name of the variant that serves it. */
  readonly servedBy: ReadonlyMap<string, string>;
}

/** WebP has 14 bits for a side. The other formats allow more. */
const SIDE_MAX = 16_383;
/** A variant without a configured height is at most this many times as tall as wide. */
const HEIGHT_PER_WIDTH_MAX = 4;

export function planThumbs(source: Size, variants: readonly VariantConfig[]): ThumbPlan {
  const planned = [...variants]
    .sort((a, b) => area(boxOf(a)) - area(boxOf(b)))
    .map((variant) => planVariant(source, variant))
    .sort((a, b) => area(a) - area(b));
  const thumbs = new Map<string, PlannedThumb>();
  const servedBy = new Map<string, string>();
  for (const thumb of planned) {
    const appearance = `${Object.values(thumb.region).join()} ${thumb.width} ${thumb.height}`;
    const alike = thumbs.get(appearance);
    if (alike === undefined) thumbs.set(appearance, thumb);
    servedBy.set(thumb.variant, (alike ?? thumb).variant);
  }
  return { thumbs: [...thumbs.values()].toReversed(), servedBy };
}

/** The size of the thumbnail for a variant before it is made: its box, if the size of the source is not known. */
export function sizeOfVariant({ width, height }: PictureFacts, variants: readonly VariantConfig[], name: string): Size {
  const variant = variants.find((each) => each.name === name);
  if (variant === undefined) throw new RangeError(`there is no variant ${name}`);
  return width === null || height === null ? boxOf(variant) : planVariant({ width, height }, variant);
}

function planVariant(source: Size, variant: VariantConfig): PlannedThumb {
  return variant.fit === 'inside' ? planInside(source, variant) : planCover(source, variant);
}

function planInside(source: Size, variant: VariantConfig): PlannedThumb {
  const heightMax = Math.min(variant.height > 0 ? variant.height : variant.width * HEIGHT_PER_WIDTH_MAX, SIDE_MAX);
  const scale = Math.min(1, variant.width / source.width, heightMax / source.height);
  return {
    variant: variant.name,
    region: { left: 0, top: 0, ...source },
    width: side(source.width * scale),
    height: side(source.height * scale),
  };
}

/** The largest centred region with the configured shape. A small source gives a smaller thumbnail of that shape. */
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

/** The box that requests are compared with. Without a configured height, the box is a square. */
function boxOf({ width, height }: VariantConfig): Size {
  return { width, height: height > 0 ? height : width };
}

/** The size of the whole picture at the smallest scale from which every thumbnail can be shrunk. */
export function baseSize(source: Size, planned: readonly PlannedThumb[]): Size {
  const scale = Math.max(
    ...planned.map(({ region, width, height }) => Math.max(width / region.width, height / region.height)),
  );
  return {
    width: Math.max(1, Math.round(source.width * scale)),
    height: Math.max(1, Math.round(source.height * scale)),
  };
}

/** The variants and formats that a request can choose from. */
export function thumbOptionsOf(config: ThumbsConfig): ThumbOptions {
  return {
    variants: config.variants.map((variant) => ({ name: variant.name, fit: variant.fit, ...boxOf(variant) })),
    formats: config.formats.avif.enabled ? ['avif', 'webp', 'jpeg'] : ['webp', 'jpeg'],
    default: config.defaultVariant,
  };
}

/**
 * The formats that serve a chosen format, best first. A client that reads AVIF
 * reads WebP, so an animation, which has no AVIF, is served as WebP.
 */
const SERVED_AS: Readonly<Record<ChosenFormat, readonly ThumbFormat[]>> = {
  avif: ['avif', 'webp', 'jpeg', 'png'],
  webp: ['webp', 'jpeg', 'png'],
  jpeg: ['jpeg', 'png'],
};

/**
 * The stored thumbnail that serves a choice; undefined if none was made. After
 * a change of the configuration, and until the backfill reaches the blob, the
 * nearest in size of the old thumbnails serves.
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
  const planned = plan?.thumbs.find((thumb) => thumb.variant === variant);
  return inFormat(nearest(made, planned?.width ?? 0), chosen.format);
}

/** The best of the formats that serve a chosen format. */
export function inFormat<T extends { readonly format: ThumbFormat }>(
  made: readonly T[],
  format: ChosenFormat,
): T | undefined {
  for (const served of SERVED_AS[format]) {
    const found = made.find((thumb) => thumb.format === served);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** All formats of the variant with the nearest width. */
function nearest(made: readonly ThumbMade[], width: number): readonly ThumbMade[] {
  const chosen = made.reduce<ThumbMade | undefined>(
    (best, thumb) =>
      best === undefined || Math.abs(thumb.width - width) < Math.abs(best.width - width) ? thumb : best,
    undefined,
  );
  return made.filter((thumb) => thumb.variant === chosen?.variant);
}
