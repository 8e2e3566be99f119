/** A JPEG as pieces: markers with their segments, and the data of scans (ITU-T T.81 Annex B). */
import { hasSegment, type Marker, nextMarker, segmentEnd } from '../../../src/media/jpeg.js';

export const SOI = 0xd8;
const EOI = 0xd9;
const SOS = 0xda;

/** A marker with its segment, or the data of a scan, which has no code. */
export interface Piece {
  readonly code: number | undefined;
  readonly whole: Buffer;
  /** What the segment holds. */
  readonly content: Buffer;
}

export interface Picture {
  readonly pieces: readonly Piece[];
  /** The offset after it. */
  readonly end: number;
}

/** The picture whose SOI is at `start`; undefined if it is malformed. Bytes between markers are left out. */
export function readPicture(bytes: Buffer, start: number): Picture | undefined {
  if (start + 4 > bytes.length || bytes.readUInt16BE(start) !== 0xffd8) return undefined;
  const pieces: Piece[] = [{ code: SOI, whole: bytes.subarray(start, start + 2), content: Buffer.alloc(0) }];
  let scans = 0;
  for (let at = start + 2; at < bytes.length; ) {
    const marker = nextMarker(bytes, at);
    if (marker === undefined) break;
    const end = hasSegment(marker.code) ? afterSegment(bytes, marker) : marker.end;
    if (end === undefined) return undefined;
    const content = bytes.subarray(marker.end + 2, end);
    pieces.push({ code: marker.code, whole: bytes.subarray(marker.start, end), content });
    if (marker.code === EOI) return { pieces, end };
    at = end;
    if (marker.code === SOS) {
      const scanned = afterScan(bytes, at);
      pieces.push({ code: undefined, whole: bytes.subarray(at, scanned), content: Buffer.alloc(0) });
      at = scanned;
      scans += 1;
    }
  }
  // Decoders add an end that is missing, but no picture.
  return scans > 0 ? { pieces, end: bytes.length } : undefined;
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

/** A marker with its segment. */
export function segment(code: number, content: Buffer): Buffer {
  const head = Buffer.from([0xff, code, 0, 0]);
  head.writeUInt16BE(content.length + 2, 2);
  return Buffer.concat([head, content]);
}
