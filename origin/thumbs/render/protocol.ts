/**
 * The messages between the engine and its children, and how each side parses
 * them: a message that is not exactly as listed is invalid. A child decodes
 * hostile files, so it is trusted with no more than the names of its results.
 */
import { THUMB_REFUSALS, type ThumbFormat, type ThumbRefusal } from '../../meta/media.js';
import type { ThumbsConfig } from '../config.js';

/** The part of the configuration that a child needs. */
export type RenderSettings = Pick<
  ThumbsConfig,
  'variants' | 'defaultVariant' | 'formats' | 'animation' | 'pixelsMax' | 'sourceMaxBytes' | 'scansMax' | 'framesMax'
>;

export interface RenderRequest {
  /** The picture, as a file. */
  readonly input: string;
  /** The folder for the results. */
  readonly folder: string;
  /** The picture is upright, whatever its metadata say. */
  readonly upright: boolean;
  /** False: only stills, even of an animation. */
  readonly animate: boolean;
  readonly settings: RenderSettings;
}

/** What a decoder finds out about a picture. */
export interface RenderedFacts {
  readonly width: number | null;
  readonly height: number | null;
  readonly frames: number | null;
  readonly orientation: number | null;
  readonly thumbhash: string | null;
}

export const NO_RENDERED_FACTS: RenderedFacts = {
  width: null,
  height: null,
  frames: null,
  orientation: null,
  thumbhash: null,
};

export interface RenderedThumb {
  readonly variant: string;
  readonly format: ThumbFormat;
  /** Name of the file in the request's folder. */
  readonly file: string;
  readonly width: number;
  readonly height: number;
  readonly animated: boolean;
}

export type RenderResult =
  | { readonly kind: 'rendered'; readonly facts: RenderedFacts; readonly thumbs: readonly RenderedThumb[] }
  | { readonly kind: 'refused'; readonly reason: ThumbRefusal; readonly facts: RenderedFacts; readonly detail: string }
  /** Not the fault of the picture: a file could not be written, or memory was not available. */
  | { readonly kind: 'failed'; readonly code: string | null; readonly detail: string };

export type ToChild = { readonly t: 'render'; readonly job: number; readonly request: RenderRequest };

export type FromChild =
  | { readonly t: 'ready' }
  /** Once for a job, before it is done: the thumbnails that were made first, perhaps none, and the thumbhash. */
  | {
      readonly t: 'early';
      readonly job: number;
      readonly thumbs: readonly RenderedThumb[];
      readonly thumbhash: string | null;
    }
  | { readonly t: 'done'; readonly job: number; readonly result: RenderResult };

/** Details go only to the log, and no longer than this. */
const DETAIL_CHARS_MAX = 500;
const THUMBS_MAX = 100;
const FORMATS: readonly ThumbFormat[] = ['webp', 'jpeg', 'png', 'avif'];

export function clip(detail: string): string {
  return detail.slice(0, DETAIL_CHARS_MAX);
}

export function parseToChild(value: unknown): ToChild | undefined {
  if (!isRecord(value) || value['t'] !== 'render' || !isCount(value['job'])) return undefined;
  const { job, request } = value;
  if (!isRecord(request)) return undefined;
  const { input, folder, upright, animate, settings } = request;
  if (typeof input !== 'string' || typeof folder !== 'string') return undefined;
  if (typeof upright !== 'boolean' || typeof animate !== 'boolean') return undefined;
  if (!isSettings(settings)) return undefined;
  return { t: 'render', job, request: { input, folder, upright, animate, settings } };
}

/** Checks only the shape: the values were checked when the configuration was read. */
function isSettings(value: unknown): value is RenderSettings {
  if (!isRecord(value)) return false;
  const { variants, defaultVariant, formats, animation } = value;
  return (
    Array.isArray(variants) &&
    typeof defaultVariant === 'string' &&
    variants.every((variant) => isRecord(variant) && isCount(variant['width']) && isCount(variant['height'])) &&
    isRecord(formats) &&
    FORMATS.every((format) => isRecord(formats[format])) &&
    isRecord(animation) &&
    isCount(animation['framesMax']) &&
    ['pixelsMax', 'sourceMaxBytes', 'scansMax', 'framesMax'].every((name) => isCount(value[name]))
  );
}

export function parseFromChild(value: unknown): FromChild | undefined {
  if (!isRecord(value)) return undefined;
  const { t, job } = value;
  if (t === 'ready') return { t };
  if (!isCount(job)) return undefined;
  if (t === 'early') {
    const thumbs = parseThumbs(value['thumbs']);
    const { thumbhash } = value;
    return thumbs && isHashOrNull(thumbhash) ? { t, job, thumbs, thumbhash } : undefined;
  }
  const result = t === 'done' ? parseResult(value['result']) : undefined;
  return result && { t: 'done', job, result };
}

function parseResult(value: unknown): RenderResult | undefined {
  if (!isRecord(value)) return undefined;
  const { kind, facts, thumbs, reason, detail, code } = value;
  switch (kind) {
    case 'rendered': {
      const readFacts = parseFacts(facts);
      const readThumbs = parseThumbs(thumbs);
      return readFacts && readThumbs && { kind, facts: readFacts, thumbs: readThumbs };
    }
    case 'refused': {
      const known = THUMB_REFUSALS.find((refusal) => refusal === reason);
      const readFacts = parseFacts(facts);
      if (known === undefined || readFacts === undefined || typeof detail !== 'string') return undefined;
      return { kind, reason: known, facts: readFacts, detail: clip(detail) };
    }
    case 'failed': {
      if (typeof detail !== 'string' || (code !== null && typeof code !== 'string')) return undefined;
      return { kind, code: code === null ? null : code.slice(0, 64), detail: clip(detail) };
    }
    default:
      return undefined;
  }
}

function parseFacts(value: unknown): RenderedFacts | undefined {
  if (!isRecord(value)) return undefined;
  const { width, height, frames, orientation, thumbhash } = value;
  if (!isCountOrNull(width) || !isCountOrNull(height) || !isCountOrNull(frames)) return undefined;
  if (orientation !== null && !(isCount(orientation) && orientation >= 1 && orientation <= 8)) return undefined;
  if (!isHashOrNull(thumbhash)) return undefined;
  return { width, height, frames, orientation, thumbhash };
}

function isHashOrNull(value: unknown): value is string | null {
  return value === null || (typeof value === 'string' && /^[A-Za-z0-9+/=]{1,64}$/.test(value));
}

function parseThumbs(value: unknown): readonly RenderedThumb[] | undefined {
  if (!Array.isArray(value) || value.length > THUMBS_MAX) return undefined;
  const thumbs = value.map(parseThumb);
  return thumbs.every((thumb) => thumb !== undefined) ? thumbs : undefined;
}

function parseThumb(value: unknown): RenderedThumb | undefined {
  if (!isRecord(value)) return undefined;
  const { variant, file, width, height, animated } = value;
  const format = FORMATS.find((known) => known === value['format']);
  if (typeof variant !== 'string' || format === undefined || typeof animated !== 'boolean') return undefined;
  if (typeof file !== 'string' || !/^[a-z0-9_-]{1,64}\.(?:webp|jpeg|png|avif)$/.test(file)) return undefined;
  if (!isCount(width) || !isCount(height)) return undefined;
  return { variant, format, file, width, height, animated };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function isCountOrNull(value: unknown): value is number | null {
  return value === null || isCount(value);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
