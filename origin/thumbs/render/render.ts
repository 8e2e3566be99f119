/**
 * Makes all thumbnails of one picture, inside a child process. The only file
 * that uses sharp, and the only place where uploaded bytes are decoded.
 *
 * Promises: no picture is decoded whose header exceeds the pixel limit. Only
 * the loaders below are enabled, so no SVG, TIFF, PDF or reference to another
 * file is ever read. One decode serves all stills, each scaled from the next
 * larger one. Results are upright, sRGB and without metadata. Limits on time
 * and memory, and crashes, are left to the parent.
 */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp, { type Sharp, type SharpOptions } from 'sharp';
import { rgbaToThumbHash } from 'thumbhash';
import { errorCode } from '../../../src/errors.js';
import { type Dimensions, formatOf, readDimensions } from '../../../src/media/dimensions.js';
import { asAvifStill } from '../../../src/media/heif.js';
import { countScans } from '../../../src/media/jpeg.js';
import type { ThumbFormat, ThumbRefusal } from '../../meta/media.js';
import { baseSize, type PlannedThumb, planThumbs, type Size } from '../plan.js';
import { type Apng, composeApng, openingOfApng, parseApng } from './apng.js';
import {
  clip,
  NO_RENDERED_FACTS,
  type RenderedFacts,
  type RenderedThumb,
  type RenderRequest,
  type RenderResult,
  type RenderSettings,
} from './protocol.js';

/** Only loaders from memory: a loader for files could be led to other files. */
const LOADERS = [
  'VipsForeignLoadJpegBuffer',
  'VipsForeignLoadPngBuffer',
  'VipsForeignLoadWebpBuffer',
  'VipsForeignLoadNsgifBuffer',
  'VipsForeignLoadHeifBuffer',
];

/** Called once per process, before the first picture. */
export function prepareRenderer(): void {
  sharp.block({ operation: ['VipsForeignLoad'] });
  sharp.unblock({ operation: LOADERS });
  sharp.cache(false);
  // Threads work on several thumbnails of a picture at once, and not together on one.
  sharp.concurrency(1);
}

/** Pixels in memory: sRGB or sRGB with alpha, eight bits. */
interface Raster extends Size {
  readonly data: Buffer;
  readonly channels: 3 | 4;
}

/** Several rasters of one size, one below the other. */
interface Animation extends Raster {
  readonly pageHeight: number;
  readonly delaysMs: readonly number[];
  /** 0: for ever. */
  readonly plays: number;
}

/** An expected end without thumbnails. */
class Refusal extends Error {
  readonly reason: ThumbRefusal;
  readonly facts: RenderedFacts;

  constructor(reason: ThumbRefusal, detail: string, facts = NO_RENDERED_FACTS, cause?: unknown) {
    super(detail, { cause });
    this.reason = reason;
    this.facts = facts;
  }
}

/** Given the thumbnails that are made before the others, perhaps none, and the thumbhash. */
type OnEarly = (thumbs: readonly RenderedThumb[], thumbhash: string | null) => void;

/** `onEarly` is given the thumbhash, and of a still the thumbnails of the default variant, before the others are made. */
export async function render(request: RenderRequest, onEarly: OnEarly = () => undefined): Promise<RenderResult> {
  try {
    return await renderPicture(request, onEarly);
  } catch (thrown) {
    if (thrown instanceof Refusal) {
      return { kind: 'refused', reason: thrown.reason, facts: thrown.facts, detail: clip(thrown.message) };
    }
    return { kind: 'failed', code: errorCode(thrown) ?? null, detail: clip(String(thrown)) };
  }
}

async function renderPicture(request: RenderRequest, onEarly: OnEarly): Promise<RenderResult> {
  const { input, folder, upright, animate, settings } = request;
  const bytes = asAvifStill(readSource(input, settings.sourceMaxBytes));
  const header = readHeader(bytes, settings);
  const source = await measure(bytes, header, upright, settings.pixelsMax);
  const { thumbs: planned, servedBy } = planThumbs(source, settings.variants);
  const still = await stillOf(bytes, source);
  const base = await decodeStill(still, source, baseSize(source, planned), settings.pixelsMax);
  const rasters = await scaleAll(base, source, planned);
  const moves = animate && mayMove(source, settings);
  const first = rasters.find(({ thumb }) => thumb.variant === servedBy.get(settings.defaultVariant));
  // A still in the place of an animation would stay where it is shown.
  const thumbhash = await hashOf(rasters.at(-1)?.raster ?? base);
  const early = moves || first === undefined ? [] : await encodeEarly(first, folder, settings);
  onEarly(early, thumbhash);
  const animation = moves ? await decodeAnimation(bytes, source, base, settings) : undefined;
  const encoded = await Promise.all(
    rasters.map(({ thumb, raster }) => {
      const made = early.filter(({ variant }) => variant === thumb.variant);
      return encodeThumb(thumb, raster, animation, folder, settings, made);
    }),
  );
  return { kind: 'rendered', facts: { ...source.facts, thumbhash }, thumbs: encoded.flat() };
}

/** Reads synchronously, because the process has no other work meanwhile. */
function readSource(path: string, sizeMaxBytes: number): Buffer {
  const { size } = statSync(path);
  if (size > sizeMaxBytes) throw new Refusal('too_expensive', `${size} bytes are beyond the limit`);
  const bytes = readFileSync(path);
  return formatOf(bytes) === 'jpeg' && !bytes.subarray(-2).equals(END_OF_JPEG)
    ? Buffer.concat([bytes, END_OF_JPEG])
    : bytes;
}

/** The marker at the end of a JPEG. Without it a decoder that must report errors rejects what browsers show. */
const END_OF_JPEG = Buffer.from([0xff, 0xd9]);

/** Reads the header with our own parser first, which takes no memory, whatever the header claims. */
function readHeader(bytes: Buffer, { pixelsMax, scansMax, framesMax }: RenderSettings): Dimensions {
  const header = readDimensions(bytes);
  if (header === undefined) {
    throw formatOf(bytes) === undefined
      ? new Refusal('unsupported_type', 'the bytes are of a type that is not rendered')
      : new Refusal('broken_image', 'the header has no size');
  }
  const { width, height, orientation, frames } = header;
  const facts = { ...NO_RENDERED_FACTS, width, height, orientation, frames };
  if (width * height > pixelsMax) {
    throw new Refusal('too_many_pixels', `${width} × ${height} pixels are beyond the limit`, facts);
  }
  // Such files are small and take minutes to decode.
  if ((frames ?? 1) > framesMax) throw new Refusal('too_expensive', `${frames} frames are beyond the limit`, facts);
  if (formatOf(bytes) === 'jpeg' && countScans(bytes, scansMax) > scansMax) {
    throw new Refusal('too_expensive', 'its scans are beyond the limit', facts);
  }
  return header;
}

interface Source extends Size {
  readonly facts: RenderedFacts;
  /** Whether it is shown as it is stored. An animation that must be turned becomes a still. */
  readonly upright: boolean;
  readonly delaysMs: readonly number[];
  readonly plays: number;
}

/** Reads the header with the decoder, whose reading decides about the pixels. */
async function measure(bytes: Buffer, header: Dimensions, upright: boolean, pixelsMax: number): Promise<Source> {
  try {
    const read = await sharp(bytes, optionsOf(pixelsMax)).metadata();
    const { width, height } = upright ? read : read.autoOrient;
    const orientation = upright ? 1 : (read.orientation ?? 1);
    return {
      width,
      height,
      facts: { width, height, orientation, frames: header.frames, thumbhash: null },
      upright: orientation === 1,
      delaysMs: read.delay ?? [],
      plays: read.loop ?? 0,
    };
  } catch (thrown) {
    throw decodingRefusal(thrown);
  }
}

function optionsOf(pixelsMax: number): SharpOptions {
  return { failOn: 'error', limitInputPixels: pixelsMax, sequentialRead: true };
}

function decodingRefusal(thrown: unknown, facts = NO_RENDERED_FACTS): unknown {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (/out of memory|cannot allocate/i.test(message)) return thrown;
  if (/pixel limit/i.test(message)) return new Refusal('too_many_pixels', message, facts, thrown);
  if (/unsupported image format|unsupported (?:file-type|feature|codec)|not been built in/i.test(message))
    return new Refusal('unsupported_type', message, facts, thrown);
  return new Refusal('broken_image', message, facts, thrown);
}

/** The picture to decode for stills: of an animated PNG, the first frame, which need not be the default image. */
async function stillOf(bytes: Buffer, { facts }: Source): Promise<Buffer> {
  const apng = openingOfApng(bytes);
  const frame = apng?.frames[0];
  if (apng === undefined || frame === undefined) return bytes;
  if (frame.width === apng.width && frame.height === apng.height) return frame.png;
  try {
    const data = await composeApng(apng, decodeFrame);
    const raw = { width: apng.width, height: apng.height, channels: 4 } as const;
    const picture = sharp(data, { raw, limitInputPixels: false }).png({ compressionLevel: 0 });
    return await picture.withMetadata({ orientation: facts.orientation ?? 1 }).toBuffer();
  } catch (thrown) {
    throw decodingRefusal(thrown);
  }
}

async function decodeStill(bytes: Buffer, { upright }: Source, size: Size, pixelsMax: number): Promise<Raster> {
  try {
    const picture = sharp(bytes, optionsOf(pixelsMax));
    return withoutOpaqueAlpha(await rasterOf((upright ? picture : picture.autoOrient()).resize(fill(size))));
  } catch (thrown) {
    throw decodingRefusal(thrown);
  }
}

function fill({ width, height }: Size): { width: number; height: number; fit: 'fill' } {
  return { width, height, fit: 'fill' };
}

async function rasterOf(pipeline: Sharp): Promise<Raster> {
  const { data, info } = await pipeline
    .toColourspace('srgb')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height, channels: info.channels === 4 ? 4 : 3 };
}

/** Drops an alpha channel without transparency, so that a screenshot with one becomes a JPEG and not a PNG. */
async function withoutOpaqueAlpha(given: Raster): Promise<Raster> {
  if (given.channels === 3) return given;
  for (let at = 3; at < given.data.length; at += 4) if (given.data[at] !== 255) return given;
  return rasterOf(fromRaster(given).removeAlpha());
}

function fromRaster({ data, width, height, channels }: Raster): Sharp {
  return sharp(data, { raw: { width, height, channels }, limitInputPixels: false });
}

interface Scaled {
  readonly thumb: PlannedThumb;
  readonly raster: Raster;
}

/** Scales each whole picture from the next larger one, and crops the others from the base. */
async function scaleAll(base: Raster, source: Size, planned: readonly PlannedThumb[]): Promise<readonly Scaled[]> {
  const scaled: Scaled[] = [];
  let larger = base;
  for (const thumb of planned) {
    const whole = thumb.region.width === source.width && thumb.region.height === source.height;
    const raster = whole ? await shrink(larger, thumb) : await crop(base, source, thumb);
    if (whole) larger = raster;
    scaled.push({ thumb, raster });
  }
  return scaled;
}

async function shrink(from: Raster, size: Size): Promise<Raster> {
  if (from.width === size.width && from.height === size.height) return from;
  return rasterOf(fromRaster(from).resize(fill(size)));
}

async function crop(base: Raster, source: Size, { region, width, height }: PlannedThumb): Promise<Raster> {
  const across = base.width / source.width;
  const down = base.height / source.height;
  const left = Math.min(Math.round(region.left * across), base.width - 1);
  const top = Math.min(Math.round(region.top * down), base.height - 1);
  const extent = {
    left,
    top,
    width: Math.min(Math.max(1, Math.round(region.width * across)), base.width - left),
    height: Math.min(Math.max(1, Math.round(region.height * down)), base.height - top),
  };
  return rasterOf(fromRaster(base).extract(extent).resize(fill({ width, height })));
}

async function encodeThumb(
  thumb: PlannedThumb,
  raster: Raster,
  animation: Animation | undefined,
  folder: string,
  settings: RenderSettings,
  made: readonly RenderedThumb[],
): Promise<readonly RenderedThumb[]> {
  const moving = animation === undefined ? undefined : await encodeAnimation(animation, thumb, settings);
  const formats: ThumbFormat[] = [...quickFormats(raster)];
  // A client that reads AVIF reads WebP, and gets the animated one.
  if (settings.formats.avif.enabled && moving === undefined) formats.push('avif');
  const missing = formats.filter((format) => !made.some((each) => each.format === format));
  const others = missing.map(async (format) => {
    const animated = format === 'webp' && moving !== undefined;
    return writeThumb(thumb, format, animated ? moving : await encodeStill(raster, format, settings), animated, folder);
  });
  return [...made, ...(await Promise.all(others))];
}

function encodeEarly(
  { thumb, raster }: Scaled,
  folder: string,
  settings: RenderSettings,
): Promise<readonly RenderedThumb[]> {
  return Promise.all(
    quickFormats(raster).map(async (format) =>
      writeThumb(thumb, format, await encodeStill(raster, format, settings), false, folder),
    ),
  );
}

function writeThumb(
  { variant, width, height }: PlannedThumb,
  format: ThumbFormat,
  bytes: Buffer,
  animated: boolean,
  folder: string,
): RenderedThumb {
  const file = `${variant}.${format}`;
  // Synchronously, because a thread pool write would wait behind the encoders.
  writeFileSync(join(folder, file), bytes, { flag: 'wx' });
  return { variant, format, file, width, height, animated };
}

/** The formats that every thumbnail has, and that take little time. */
function quickFormats({ channels }: Raster): readonly ThumbFormat[] {
  return ['webp', channels === 4 ? 'png' : 'jpeg'];
}

function encodeStill(raster: Raster, format: ThumbFormat, { formats }: RenderSettings): Promise<Buffer> {
  const picture = fromRaster(raster);
  switch (format) {
    case 'webp':
      return picture.webp(formats.webp).toBuffer();
    case 'jpeg':
      return picture.jpeg(formats.jpeg).toBuffer();
    case 'png':
      return picture.png({ compressionLevel: formats.png.compression }).toBuffer();
    case 'avif':
      return picture.avif({ quality: formats.avif.quality, effort: formats.avif.effort }).toBuffer();
  }
}

/** Whether the picture is an animation, and one that may stay one. */
function mayMove({ facts, width, height, upright }: Source, { animation, pixelsMax }: RenderSettings): boolean {
  const frames = facts.frames ?? 1;
  const pixels = width * height * frames;
  const allowed = frames <= animation.framesMax && pixels <= Math.min(animation.pixelsMax, pixelsMax);
  return animation.enabled && frames > 1 && allowed && upright;
}

/** All frames at the size of the largest thumbnail; undefined if they cannot be read. */
async function decodeAnimation(
  bytes: Buffer,
  source: Source,
  base: Size,
  { animation, pixelsMax }: RenderSettings,
): Promise<Animation | undefined> {
  try {
    const apng = parseApng(bytes, animation.framesMax);
    if (apng !== undefined) return await animationOfApng(apng, base);
    const { width, height } = base;
    const pipeline = sharp(bytes, { ...optionsOf(pixelsMax), animated: true }).resize({ width, height, fit: 'fill' });
    return await animationOf(pipeline, source);
  } catch {
    // The still is complete, so a broken animation is no reason to refuse the picture.
    return undefined;
  }
}

/** A frame is no larger than the picture, whose size was checked. */
async function decodeFrame(png: Buffer): Promise<Buffer> {
  const options = { failOn: 'error', sequentialRead: true, limitInputPixels: false } as const;
  const picture = sharp(png, options).ensureAlpha().toColourspace('srgb');
  return await picture.raw({ depth: 'uchar' }).toBuffer();
}

async function animationOfApng(apng: Apng, base: Size): Promise<Animation | undefined> {
  const { width, frames, plays } = apng;
  const data = await composeApng(apng, decodeFrame);
  const raw = { width, height: apng.height * frames.length, channels: 4, pageHeight: apng.height } as const;
  const pipeline = sharp(data, { raw, animated: true, limitInputPixels: false }).resize(fill(base));
  return animationOf(pipeline, { delaysMs: frames.map(({ delayMs }) => delayMs), plays });
}

async function animationOf(
  pipeline: Sharp,
  timing: Pick<Animation, 'delaysMs' | 'plays'>,
): Promise<Animation | undefined> {
  const { data, info } = await pipeline
    .toColourspace('srgb')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true });
  if (info.pageHeight === undefined) return undefined;
  return {
    data,
    width: info.width,
    height: info.height,
    channels: info.channels === 4 ? 4 : 3,
    pageHeight: info.pageHeight,
    delaysMs: timing.delaysMs,
    plays: timing.plays,
  };
}

/** Undefined if the result is larger than allowed or has only one distinct frame. */
async function encodeAnimation(
  source: Animation,
  { width, height }: Size,
  { formats, animation }: RenderSettings,
): Promise<Buffer | undefined> {
  const raw = { width: source.width, height: source.height, channels: source.channels, pageHeight: source.pageHeight };
  const bytes = await sharp(source.data, { raw, animated: true, limitInputPixels: false })
    .resize({ width, height, fit: 'cover' })
    .webp({ ...formats.webp, delay: [...source.delaysMs], loop: source.plays })
    .toBuffer();
  const moves = (readDimensions(bytes)?.frames ?? 1) > 1;
  return moves && bytes.length <= animation.outputMaxBytes ? bytes : undefined;
}

/** A thumbhash is made of at most 100 × 100 pixels. */
const HASH_SIDE_MAX = 100;

async function hashOf(raster: Raster): Promise<string> {
  const pipeline = fromRaster(raster).resize({
    width: HASH_SIDE_MAX,
    height: HASH_SIDE_MAX,
    fit: 'inside',
    withoutEnlargement: true,
  });
  const { data, width, height } = await rasterOf(pipeline.ensureAlpha());
  return Buffer.from(rgbaToThumbHash(width, height, data)).toString('base64');
}
