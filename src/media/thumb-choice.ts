/**
 * Chooses the thumbnail for a request: `w` and `h` of the query choose among the
 * configured variants, Accept among the enabled formats. These are pure functions,
 * from which the origin makes its answers and the edge its cache keys, so that both
 * always choose the same. What is possible for a source (never enlarged, PNG for
 * transparency) is decided by the origin and does not change the choice.
 */

import { chooseType, namesOnly } from '../http/accept.js';

export type ThumbFit = 'cover' | 'inside';

export interface ThumbVariant {
  readonly name: string;
  /** In pixels, like the height: the box that the thumbnail fills or fits into. */
  readonly width: number;
  readonly height: number;
  readonly fit: ThumbFit;
}

/** The formats a client can ask for. `jpeg` stands for a still that every client can read: PNG if it is transparent. */
export const CHOSEN_FORMATS = ['avif', 'webp', 'jpeg'] as const;
export type ChosenFormat = (typeof CHOSEN_FORMATS)[number];

/** What a choice depends on in the origin's configuration; part of `/.well-known`. */
export interface ThumbOptions {
  /** At least one, with distinct names. */
  readonly variants: readonly ThumbVariant[];
  /** Enabled formats; `jpeg` is always enabled, listed or not. */
  readonly formats: readonly string[];
  /** The name of the variant for requests without a size. */
  readonly default: string;
}

/** The size that a request asks for. */
export interface ThumbSize {
  readonly w: number | undefined;
  readonly h: number | undefined;
}

const PIXELS = /^[1-9]\d{0,5}$/;

/** The size in a query. Values that are not plain positive numbers are ignored, so that they share a cache key. */
export function readThumbSize(query: string): ThumbSize {
  if (query === '') return NO_SIZE;
  const parameters = new URLSearchParams(query);
  return { w: readPixels(parameters.get('w')), h: readPixels(parameters.get('h')) };
}

const NO_SIZE: ThumbSize = { w: undefined, h: undefined };

function readPixels(text: string | null): number | undefined {
  return text !== null && PIXELS.test(text) ? Number(text) : undefined;
}

/**
 * The smallest variant that covers the size, or the largest if none does; the
 * default without a size. The exact size of a variant chooses that variant, or the
 * first with that size, so a choice can be written as a size again.
 */
export function chooseVariant(options: Pick<ThumbOptions, 'variants' | 'default'>, size: ThumbSize): ThumbVariant {
  const { variants } = options;
  const fallback = variants.find(({ name }) => name === options.default) ?? variants[0];
  if (fallback === undefined) throw new RangeError('there must be at least one thumbnail variant');
  if (size.w === undefined && size.h === undefined) return fallback;
  const covering = variants.filter(({ width, height }) => width >= (size.w ?? 0) && height >= (size.h ?? 0));
  if (covering.length > 0) return covering.reduce((best, each) => (area(each) < area(best) ? each : best));
  return variants.reduce((best, each) => (area(each) > area(best) ? each : best));
}

function area({ width, height }: ThumbVariant): number {
  return width * height;
}

/**
 * The format with the highest weight in Accept (RFC 9110 12.5.1); among equals
 * AVIF, then WebP, then JPEG. AVIF and WebP must be named, because clients that
 * know neither send wildcards. A client that accepts no format gets JPEG.
 */
export function chooseFormat(accept: string | undefined, formats: readonly string[]): ChosenFormat {
  const offered = NEWEST_FIRST.filter((type) => type === JPEG || formats.includes(formatOf(type)));
  const chosen = chooseType(accept, offered, NAMED_ONLY);
  return chosen === undefined ? 'jpeg' : formatOf(chosen);
}

/**
 * Whether the answer is for a picture element, which can show nothing but a
 * picture: Fetch Metadata says so (Sec-Fetch-Dest), or Accept names pictures alone.
 */
export function isForPicture(destination: string | undefined, picturesAlone: boolean): boolean {
  return destination === 'image' || picturesAlone;
}

export function acceptsPicturesAlone(accept: string | undefined): boolean {
  return namesOnly(accept, 'image');
}

const JPEG = 'image/jpeg';
const NAMED_ONLY = ['image/avif', 'image/webp'] as const;
const NEWEST_FIRST = [...NAMED_ONLY, JPEG] as const;

function formatOf(type: string): ChosenFormat {
  return CHOSEN_FORMATS.find((format) => type === `image/${format}`) ?? 'jpeg';
}

const VARIANTS_MAX = 64;
const EDGE_MAX_PIXELS = 100_000;

/** Reads the options from another service's document; undefined if they are malformed. */
export function readThumbOptions(value: unknown): ThumbOptions | undefined {
  if (!isObject(value)) return undefined;
  const { variants, formats, default: fallback } = value;
  if (!Array.isArray(variants) || variants.length === 0 || variants.length > VARIANTS_MAX) return undefined;
  if (!Array.isArray(formats) || !formats.every((format) => typeof format === 'string')) return undefined;
  const read = variants.map(readVariant).filter((variant) => variant !== undefined);
  const names = new Set(read.map(({ name }) => name));
  if (read.length !== variants.length || names.size !== read.length) return undefined;
  if (typeof fallback !== 'string' || !names.has(fallback)) return undefined;
  return { variants: read, formats, default: fallback };
}

function readVariant(value: unknown): ThumbVariant | undefined {
  if (!isObject(value)) return undefined;
  const { name, width, height, fit } = value;
  if (typeof name !== 'string' || !/^[A-Za-z0-9_-]{1,32}$/.test(name)) return undefined;
  if (!isPixels(width) || !isPixels(height) || (fit !== 'cover' && fit !== 'inside')) return undefined;
  return { name, width, height, fit };
}

function isPixels(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= EDGE_MAX_PIXELS;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}
