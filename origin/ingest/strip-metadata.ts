/**
 * Takes the place where a picture was made out of its file, and nothing that
 * touches a pixel: JPEG, PNG and WebP, losslessly, keeping orientation and
 * colour profile.
 *
 * Location hides in EXIF, XMP, IPTC, makers' notes, comments and whatever is
 * hung on behind the picture, so all of that goes; where the picture must be
 * turned to be seen, a new EXIF says so and nothing else. What cannot be
 * followed to its end is told to be broken and left alone: a promise about half
 * a file would be none. The file is held in memory, so its size must be bounded
 * by the caller.
 */
import { open, readFile, rm } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { readOrientation } from '../../src/media/dimensions.js';

export type StripOutcome =
  /** A new file stands at the target path, synced. */
  | { readonly kind: 'stripped'; readonly sizeBytes: number }
  /** The file holds nothing to take out; nothing was written. */
  | { readonly kind: 'clean' }
  /** Not of a type that this knows. */
  | { readonly kind: 'unsupported' }
  /** Its structure does not hold together; nothing was written. */
  | { readonly kind: 'broken' };

/** Reads `source` and writes `target`, which must not be there, where something was to be taken out. */
export async function stripLocation(
  source: string,
  target: string,
  mime: string,
  signal?: AbortSignal,
): Promise<StripOutcome> {
  const keep = KEEPERS[mime];
  if (keep === undefined) return { kind: 'unsupported' };
  const bytes = await readFile(source, { ...(signal !== undefined && { signal }) });
  const kept = keep(bytes);
  if (kept === undefined) return { kind: 'broken' };
  const sizeBytes = kept.reduce((sum, part) => sum + part.length, 0);
  // What was kept whole is one part: pieces that only happen to have the size of the whole are not.
  if (sizeBytes === bytes.length && Buffer.concat(kept).equals(bytes)) return { kind: 'clean' };
  await writeParts(target, kept);
  return { kind: 'stripped', sizeBytes };
}

async function writeParts(target: string, kept: readonly Buffer[]): Promise<void> {
  const file = await open(target, 'wx');
  try {
    await file.writev(kept);
    await file.sync();
  } catch (thrown) {
    await rm(target, { force: true });
    throw thrown;
  } finally {
    await file.close();
  }
}

/** What of a file stays, in order; undefined where it does not hold together. */
type Keeper = (bytes: Buffer) => readonly Buffer[] | undefined;

const KEEPERS: Readonly<Record<string, Keeper | undefined>> = {
  'image/jpeg': keepJpeg,
  'image/png': keepPng,
  'image/apng': keepPng,
  'image/webp': keepWebp,
};

const EXIF_MARK = Buffer.from('Exif\0\0', 'latin1');

/** A TIFF structure with one entry (EXIF 2.32 4.6.4). */
function orientationOnly(orientation: number): Buffer {
  const tiff = Buffer.from('4d4d002a00000008000101120003000000010000000000000000', 'hex');
  tiff.writeUInt16BE(orientation, 18);
  return tiff;
}

/** The orientation in an EXIF block that has a reason to stay; undefined where the picture stands upright anyway. */
function turnOf(tiff: Buffer): number | undefined {
  const orientation = readOrientation(tiff) ?? 1;
  return orientation === 1 ? undefined : orientation;
}

/** Markers and segments of ITU-T T.81 Annex B, up to the end of the first picture. */
function keepJpeg(bytes: Buffer): readonly Buffer[] | undefined {
  if (bytes.length < 4 || bytes.readUInt16BE(0) !== 0xffd8) return undefined;
  const kept = [bytes.subarray(0, 2)];
  let turned = false;
  let at = 2;
  while (at < bytes.length) {
    const marker = markerAt(bytes, at);
    if (marker === undefined) return undefined;
    // Whatever is hung on behind the end is no part of this picture: others, films, more metadata.
    if (marker.code === 0xd9) return [...kept, bytes.subarray(at, marker.end)];
    if (marker.end + 2 > bytes.length) return undefined;
    const end = marker.end + bytes.readUInt16BE(marker.end);
    if (end > bytes.length || end < marker.end + 2) return undefined;
    const content = bytes.subarray(marker.end + 2, end);
    if (marker.code === 0xe1 && startsWith(content, EXIF_MARK)) {
      const orientation: number | undefined = turned ? undefined : turnOf(content.subarray(EXIF_MARK.length));
      if (orientation !== undefined) kept.push(exifSegment(orientation));
      turned ||= orientation !== undefined;
    } else if (staysInJpeg(marker.code, content)) {
      kept.push(bytes.subarray(at, end));
    }
    at = end;
    if (marker.code === 0xda) {
      const scanned = afterScan(bytes, at);
      kept.push(bytes.subarray(at, scanned));
      at = scanned;
    }
  }
  return kept;
}

/** A marker may be preceded by any number of fill bytes (B.1.1.2). */
function markerAt(bytes: Buffer, start: number): { readonly code: number; readonly end: number } | undefined {
  let at = start;
  while (bytes[at] === 0xff) {
    const code = bytes[at + 1];
    if (code === undefined || code === 0) return undefined;
    if (code !== 0xff) return { code, end: at + 2 };
    at += 1;
  }
  return undefined;
}

/** The place of the next marker that is neither stuffing nor a restart (B.1.1.5). */
function afterScan(bytes: Buffer, start: number): number {
  for (let at = bytes.indexOf(0xff, start); at >= 0 && at + 1 < bytes.length; at = bytes.indexOf(0xff, at + 1)) {
    const next = bytes[at + 1] ?? 0;
    if (next !== 0 && next !== 0xff && !(next >= 0xd0 && next <= 0xd7)) return at;
  }
  return bytes.length;
}

/** Of the application segments only those that say how pixels are to be read: JFIF, the colour profile, Adobe's transform. */
function staysInJpeg(code: number, content: Buffer): boolean {
  if (code === 0xe0) return startsWith(content, Buffer.from('JFIF\0', 'latin1'));
  if (code === 0xe2) return startsWith(content, Buffer.from('ICC_PROFILE\0', 'latin1'));
  if (code === 0xee) return startsWith(content, Buffer.from('Adobe', 'latin1'));
  return !(code >= 0xe0 && code <= 0xef) && code !== 0xfe;
}

function exifSegment(orientation: number): Buffer {
  const content = Buffer.concat([EXIF_MARK, orientationOnly(orientation)]);
  const head = Buffer.from([0xff, 0xe1, 0, 0]);
  head.writeUInt16BE(content.length + 2, 2);
  return Buffer.concat([head, content]);
}

function startsWith(bytes: Buffer, start: Buffer): boolean {
  return bytes.subarray(0, start.length).equals(start);
}

/** Chunks of PNG, third edition, 11 that say how pixels are to be read or how frames follow each other. */
const PNG_STAYS = new Set(
  'IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP mDCV cLLI sBIT bKGD hIST pHYs sPLT acTL fcTL fdAT'.split(' '),
);

function keepPng(bytes: Buffer): readonly Buffer[] | undefined {
  if (bytes.length < 8 || bytes.toString('latin1', 1, 4) !== 'PNG') return undefined;
  const kept = [bytes.subarray(0, 8)];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const end = at + 12 + length;
    if (end > bytes.length) return undefined;
    const type = bytes.toString('latin1', at + 4, at + 8);
    if (PNG_STAYS.has(type)) kept.push(bytes.subarray(at, end));
    // A critical chunk that nobody knows (5.4) is part of the picture in a way that cannot be judged here.
    else if (/^[A-Z]/.test(type)) return undefined;
    else if (type === 'eXIf') {
      const orientation = turnOf(bytes.subarray(at + 8, end - 4));
      if (orientation !== undefined) kept.push(pngChunk('eXIf', orientationOnly(orientation)));
    }
    if (type === 'IEND') return kept;
    at = end;
  }
  return undefined;
}

function pngChunk(type: string, data: Buffer): Buffer {
  const chunk = Buffer.alloc(12 + data.length);
  chunk.writeUInt32BE(data.length, 0);
  chunk.write(type, 4, 'latin1');
  data.copy(chunk, 8);
  chunk.writeUInt32BE(crc32(chunk.subarray(4, 8 + data.length)), 8 + data.length);
  return chunk;
}

const WEBP_STAYS = new Set(['VP8 ', 'VP8L', 'VP8X', 'ICCP', 'ALPH', 'ANIM', 'ANMF']);
/** Of VP8X: that EXIF and XMP chunks are there (RFC 9649 2.7.1). */
const WEBP_EXIF = 0x08;
const WEBP_XMP = 0x04;

function keepWebp(bytes: Buffer): readonly Buffer[] | undefined {
  if (bytes.length < 20 || bytes.toString('latin1', 0, 4) !== 'RIFF' || bytes.toString('latin1', 8, 12) !== 'WEBP') {
    return undefined;
  }
  const end = 8 + bytes.readUInt32LE(4);
  if (end > bytes.length) return undefined;
  const kept: Buffer[] = [];
  let extended: Buffer | undefined;
  let orientation: number | undefined;
  for (let at = 12; at < end; ) {
    if (at + 8 > end) return undefined;
    const length = bytes.readUInt32LE(at + 4);
    const next = at + 8 + length + (length % 2);
    if (next > end) return undefined;
    const type = bytes.toString('latin1', at, at + 4);
    const chunk = bytes.subarray(at, next);
    if (type === 'VP8X') extended ??= Buffer.from(chunk);
    if (type === 'EXIF') orientation ??= turnOf(withoutMark(bytes.subarray(at + 8, at + 8 + length)));
    if (WEBP_STAYS.has(type)) kept.push(type === 'VP8X' ? (extended ?? chunk) : chunk);
    at = next;
  }
  if (extended === undefined || extended.length < 18) return riff(kept);
  const flags = extended[8] ?? 0;
  extended[8] = (flags & ~(WEBP_EXIF | WEBP_XMP)) | (orientation === undefined ? 0 : WEBP_EXIF);
  return riff(orientation === undefined ? kept : [...kept, webpChunk('EXIF', orientationOnly(orientation))]);
}

function withoutMark(exif: Buffer): Buffer {
  return startsWith(exif, EXIF_MARK) ? exif.subarray(EXIF_MARK.length) : exif;
}

function riff(chunks: readonly Buffer[]): readonly Buffer[] {
  const head = Buffer.from('RIFF\0\0\0\0WEBP', 'latin1');
  head.writeUInt32LE(
    chunks.reduce((sum, chunk) => sum + chunk.length, 4),
    4,
  );
  return [head, ...chunks];
}

/** For data of even length, which needs no padding. */
function webpChunk(type: string, data: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.write(type, 0, 'latin1');
  head.writeUInt32LE(data.length, 4);
  return Buffer.concat([head, data]);
}
