/**
 * Reads the size of a picture from its file without decoding it: from the file for
 * the answer to an upload, and from bytes in memory to check pixels × frames before
 * they are decoded.
 *
 * Promises: every offset is checked against the given bytes, every loop moves
 * forward, and nothing is guessed. Leaves it to the decoder to find out whether
 * the picture is intact.
 */
import { readOrientation } from './exif.js';
import { heifTypeOf, readHeif } from './heif.js';
import { readJpeg } from './jpeg.js';
import { type ReadableFile, type Reading, readBytes, readFromFile } from './reading.js';

export type PictureFormat = 'jpeg' | 'png' | 'gif' | 'webp' | 'heif';

export interface Dimensions {
  /** Width and height are those after orientation is applied. */
  readonly width: number;
  readonly height: number;
  /** EXIF orientation, 1 to 8; 1 if there is none. */
  readonly orientation: number;
  /** Null if more bytes are needed to count them. */
  readonly frames: number | null;
}

/** How many bytes of the beginning to pass if the whole file is not available. */
export const HEAD_BYTES = 1_024 * 1_024;

/** Undefined if the bytes are not a JPEG, PNG, GIF, WebP, AVIF or HEIF, or if more bytes are needed. */
export function readDimensions(file: Uint8Array): Dimensions | undefined {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const format = formatOf(bytes);
  return format === undefined ? undefined : positive(readBytes(READERS[format](), bytes));
}

/** The same for a file. Reads of it no more than it must. */
export async function readFileDimensions(file: ReadableFile): Promise<Dimensions | undefined> {
  const format = formatOf(file.head);
  return format === undefined ? undefined : positive(await readFromFile(READERS[format](), file));
}

function positive(found: Dimensions | undefined): Dimensions | undefined {
  return found !== undefined && found.width > 0 && found.height > 0 ? found : undefined;
}

const READERS: Readonly<Record<PictureFormat, () => Reading<Dimensions>>> = {
  jpeg: jpegDimensions,
  png: readPng,
  gif: readGif,
  webp: readWebp,
  heif: heifDimensions,
};

/** All that is available. */
const EVERYTHING = { at: 0, length: Number.POSITIVE_INFINITY };

export function formatOf(bytes: Buffer): PictureFormat | undefined {
  if (bytes.length < 12) return undefined;
  if (bytes.readUInt16BE(0) === 0xffd8) return 'jpeg';
  if (bytes.readUInt32BE(0) === 0x89504e47 && bytes.readUInt32BE(4) === 0x0d0a1a0a) return 'png';
  if (/^GIF8[79]a$/.test(bytes.toString('latin1', 0, 6))) return 'gif';
  if (bytes.toString('latin1', 0, 4) === 'RIFF' && bytes.toString('latin1', 8, 12) === 'WEBP') return 'webp';
  return heifTypeOf(bytes) === undefined ? undefined : 'heif';
}

function upright(
  size: { readonly width: number; readonly height: number },
  orientation: number,
  frames: number | null,
): Dimensions {
  const swapped = orientation >= 5;
  return {
    width: swapped ? size.height : size.width,
    height: swapped ? size.width : size.height,
    orientation,
    frames,
  };
}

function* jpegDimensions(): Reading<Dimensions> {
  const header = yield* readJpeg();
  return header === undefined ? undefined : upright(header, header.orientation, 1);
}

/** Reads IHDR, acTL for the frames, and eXIf for the orientation (PNG, third edition, 11.2 and 11.3). */
function* readPng(): Reading<Dimensions> {
  const start = yield { at: 0, length: 24 };
  if (start.length < 24 || start.toString('latin1', 12, 16) !== 'IHDR') return undefined;
  const size = { width: start.readUInt32BE(16), height: start.readUInt32BE(20) };
  let frames = 1;
  let orientation = 1;
  for (let at = 8; ; ) {
    const chunk = yield { at, length: 12 };
    if (chunk.length < 8) return undefined;
    const length = chunk.readUInt32BE(0);
    const type = chunk.toString('latin1', 4, 8);
    if (type === 'acTL' && chunk.length === 12) frames = apngFrames(chunk.readUInt32BE(8));
    if (type === 'eXIf') orientation = readOrientation(yield { at: at + 8, length }) ?? 1;
    // acTL comes before the pixels. An eXIf after them is ignored.
    if (type === 'IDAT' || type === 'IEND') return upright(size, orientation, frames);
    at += 12 + length;
  }
}

/** PNG integers end at 2³¹ − 1 (7.1). A chunk that claims more frames is ignored. */
function apngFrames(claimed: number): number {
  return claimed >= 1 && claimed <= 0x7fffffff ? claimed : 1;
}

/**
 * Reads the size and counts frames by walking the blocks (GIF89a, 17 to 26). As browsers and decoders show it: a first
 * frame that reaches beyond the logical screen enlarges it, later ones are cut.
 */
function* readGif(): Reading<Dimensions> {
  const bytes = yield EVERYTHING;
  if (bytes.length < 13) return undefined;
  const [first] = gifFramesFrom(bytes);
  const reach = first === undefined || first + 9 > bytes.length ? { width: 0, height: 0 } : gifReach(bytes, first);
  const size = {
    width: Math.max(bytes.readUInt16LE(6), reach.width),
    height: Math.max(bytes.readUInt16LE(8), reach.height),
  };
  return upright(size, 1, countGifFrames(bytes));
}

/** Where a frame ends on the logical screen. `at`: its image descriptor. */
function gifReach(bytes: Buffer, at: number): { readonly width: number; readonly height: number } {
  return {
    width: bytes.readUInt16LE(at + 1) + bytes.readUInt16LE(at + 5),
    height: bytes.readUInt16LE(at + 3) + bytes.readUInt16LE(at + 7),
  };
}

function countGifFrames(bytes: Buffer): number | null {
  const frames = gifFramesFrom(bytes);
  let count = 0;
  for (let next = frames.next(); ; next = frames.next()) {
    if (next.done === true) return next.value === 'cut' ? null : Math.max(1, count);
    count += 1;
  }
}

/** The offsets of the image descriptors. `cut`: the bytes end before the trailer. */
function* gifFramesFrom(bytes: Buffer): Generator<number, 'whole' | 'cut', undefined> {
  let at = 13 + colourTableBytes(bytes[10] ?? 0);
  while (at < bytes.length) {
    const introducer = bytes[at];
    if (introducer === 0x21) {
      at = afterSubBlocks(bytes, at + 2);
    } else if (introducer === 0x2c) {
      yield at;
      at = afterSubBlocks(bytes, at + 11 + colourTableBytes(bytes[at + 9] ?? 0));
    } else {
      return 'whole';
    }
  }
  return 'cut';
}

function colourTableBytes(packed: number): number {
  return (packed & 0x80) === 0 ? 0 : 3 * 2 ** ((packed & 0x07) + 1);
}

function afterSubBlocks(bytes: Buffer, start: number): number {
  let at = start;
  for (let length = bytes[at]; length !== undefined; length = bytes[at]) {
    at += 1 + length;
    if (length === 0) break;
  }
  return at;
}

interface WebpSeen {
  size: { readonly width: number; readonly height: number } | undefined;
  orientation: number;
  frames: number;
  /** Flags of VP8X: there is an EXIF chunk after the pixels; there are animation frames. */
  exif: boolean;
  animated: boolean;
}

/** As much of a chunk as its header takes, for every chunk but EXIF. */
const WEBP_HEADER_BYTES = 16;

/** Reads RIFF chunks (RFC 9649 2.7). */
function* readWebp(): Reading<Dimensions> {
  const seen: WebpSeen = { size: undefined, orientation: 1, frames: 0, exif: false, animated: false };
  const start = yield { at: 0, length: 12 };
  const end = 8 + start.readUInt32LE(4);
  for (let at = 12; at + 8 <= end; ) {
    const chunk = yield { at, length: 8 + WEBP_HEADER_BYTES };
    if (chunk.length < 8) break;
    const type = chunk.toString('latin1', 0, 4);
    const length = chunk.readUInt32LE(4);
    readWebpChunk(seen, type, type === 'EXIF' ? yield { at: at + 8, length } : chunk.subarray(8, 8 + length));
    // A still has no more to tell once its size is known, unless an EXIF chunk follows.
    if (seen.size !== undefined && !seen.exif && !seen.animated) return upright(seen.size, 1, 1);
    at += 8 + length + (length % 2);
  }
  const whole = (yield { at: end - 1, length: 1 }).length === 1;
  if (seen.size === undefined || (seen.exif && !whole)) return undefined;
  if (!seen.animated) return upright(seen.size, seen.orientation, 1);
  return upright(seen.size, seen.orientation, whole ? Math.max(1, seen.frames) : null);
}

function readWebpChunk(seen: WebpSeen, type: string, data: Buffer): void {
  if (type === 'VP8X' && data.length >= 10) {
    const flags = data[0] ?? 0;
    seen.size = { width: data.readUIntLE(4, 3) + 1, height: data.readUIntLE(7, 3) + 1 };
    seen.exif = (flags & 0x08) !== 0;
    seen.animated = (flags & 0x02) !== 0;
  } else if (type === 'VP8 ' && data.length >= 10 && data.readUIntBE(3, 3) === 0x9d012a) {
    seen.size ??= { width: data.readUInt16LE(6) & 0x3fff, height: data.readUInt16LE(8) & 0x3fff };
  } else if (type === 'VP8L' && data.length >= 5 && data[0] === 0x2f) {
    const packed = data.readUInt32LE(1);
    seen.size ??= { width: (packed & 0x3fff) + 1, height: ((packed >>> 14) & 0x3fff) + 1 };
  } else if (type === 'ANMF') {
    seen.frames += 1;
  } else if (type === 'EXIF') {
    const tiff = data.toString('latin1', 0, 6) === 'Exif\0\0' ? data.subarray(6) : data;
    seen.orientation = readOrientation(tiff) ?? 1;
  }
}

/** Only transformations of HEIF itself apply, which leave the picture upright. EXIF orientation must be ignored. */
function* heifDimensions(): Reading<Dimensions> {
  const picture = readHeif(yield EVERYTHING);
  return picture === undefined ? undefined : upright(picture, 1, 1);
}
