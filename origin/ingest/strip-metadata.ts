/**
 * Removes metadata from JPEG, PNG and WebP files without changing a pixel. The
 * orientation and the colour profile stay.
 *
 * The location of a picture can be in EXIF, XMP, IPTC, maker notes, comments and in
 * data after the end of the picture, so all of these are removed. If the picture
 * must be turned for display, a new EXIF block with only the orientation is added.
 * A file that cannot be parsed to its end is reported as broken, because part of
 * its metadata might remain. The file is read into memory, so the caller must limit
 * its size.
 */
import { open, readFile, rm } from 'node:fs/promises';
import { readOrientation } from '../../src/media/exif.js';
import { hasSegment, type Marker, nextMarker, segmentEnd } from '../../src/media/jpeg.js';
import { pngChunk } from '../../src/media/png.js';

export type StripOutcome =
  /** A new file was written to the target path and synced. */
  | { readonly kind: 'stripped' }
  /** The file has no metadata to remove; nothing was written. */
  | { readonly kind: 'clean' }
  /** The type is not supported; nothing was written. */
  | { readonly kind: 'unsupported' }
  /** The file is malformed; nothing was written. */
  | { readonly kind: 'broken' };

/** Reads `source`. If there is metadata to remove, writes the result to `target`, which must not exist. */
export async function stripMetadata(
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
  const keptBytes = kept.reduce((sum, piece) => sum + piece.length, 0);
  if (keptBytes === bytes.length && Buffer.concat(kept).equals(bytes)) return { kind: 'clean' };
  await writePieces(target, kept);
  return { kind: 'stripped' };
}

async function writePieces(target: string, kept: readonly Buffer[]): Promise<void> {
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

/** The pieces of a file that are kept, in order; undefined if the file is malformed. */
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

/** The orientation in an EXIF block; undefined if the picture is upright, so that no EXIF needs to be kept. */
function turnOf(tiff: Buffer): number | undefined {
  const orientation = readOrientation(tiff) ?? 1;
  return orientation === 1 ? undefined : orientation;
}

/**
 * Markers and segments of ITU-T T.81 Annex B, up to the end of the first picture. Bytes between them, which decoders
 * skip, are dropped.
 */
function keepJpeg(bytes: Buffer): readonly Buffer[] | undefined {
  if (bytes.length < 4 || bytes.readUInt16BE(0) !== 0xffd8) return undefined;
  const kept = [bytes.subarray(0, 2)];
  let turned = false;
  let scans = 0;
  for (let at = 2; at < bytes.length; ) {
    const marker = nextMarker(bytes, at);
    if (marker === undefined) break;
    const end = hasSegment(marker.code) ? afterSegment(bytes, marker) : marker.end;
    if (end === undefined) return undefined;
    const content = bytes.subarray(marker.end + 2, end);
    if (marker.code === 0xe1 && startsWith(content, EXIF_MARK)) {
      const orientation: number | undefined = turned ? undefined : turnOf(content.subarray(EXIF_MARK.length));
      if (orientation !== undefined) kept.push(exifSegment(orientation));
      turned ||= orientation !== undefined;
    } else if (staysInJpeg(marker.code, content)) {
      kept.push(bytes.subarray(marker.start, end));
    }
    // Data after the end (other pictures, videos, more metadata) is dropped.
    if (marker.code === 0xd9) return kept;
    at = end;
    if (marker.code === 0xda) {
      const scanned = afterScan(bytes, at);
      kept.push(bytes.subarray(at, scanned));
      at = scanned;
      scans += 1;
    }
  }
  // Decoders add an end that is missing, but no picture.
  return scans > 0 ? kept : undefined;
}

/** Undefined if the bytes end within the segment. */
function afterSegment(bytes: Buffer, marker: Marker): number | undefined {
  if (marker.end + 2 > bytes.length) return undefined;
  const end = segmentEnd(marker, bytes.readUInt16BE(marker.end));
  return end > bytes.length ? undefined : end;
}

/** The offset of the next marker that is neither stuffing nor a restart (B.1.1.5). */
function afterScan(bytes: Buffer, start: number): number {
  for (let at = bytes.indexOf(0xff, start); at >= 0 && at + 1 < bytes.length; at = bytes.indexOf(0xff, at + 1)) {
    const next = bytes[at + 1] ?? 0;
    if (next !== 0 && next !== 0xff && !(next >= 0xd0 && next <= 0xd7)) return at;
  }
  return bytes.length;
}

/** Of the application segments, keeps only those needed to decode pixels: JFIF, colour profile, Adobe's transform. */
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

/** The chunks needed to decode pixels or to order frames (PNG, third edition, 11). */
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
    // An unknown critical chunk (5.4) can neither be kept nor dropped safely.
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

const WEBP_STAYS = new Set(['VP8 ', 'VP8L', 'VP8X', 'ICCP', 'ALPH', 'ANIM', 'ANMF']);
/** The flags of VP8X for EXIF and XMP chunks (RFC 9649 2.7.1). */
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

/** A chunk of data of even length, which needs no padding. */
function webpChunk(type: string, data: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.write(type, 0, 'latin1');
  head.writeUInt32LE(data.length, 4);
  return Buffer.concat([head, data]);
}
