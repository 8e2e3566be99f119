/** EXIF blocks that hold an orientation and nothing else (EXIF 2.32 4.6). */
import { readOrientation } from '../../../src/media/exif.js';

/** What stands before the TIFF structure in JPEG, and often elsewhere. */
export const EXIF_MARK = Buffer.from('Exif\0\0', 'latin1');

/** A TIFF structure with one entry (4.6.4). */
export function orientationOnly(orientation: number): Buffer {
  const tiff = Buffer.from('4d4d002a00000008000101120003000000010000000000000000', 'hex');
  tiff.writeUInt16BE(orientation, 18);
  return tiff;
}

/** The orientation in an EXIF block; undefined if the picture is upright, so that no EXIF needs to be kept. */
export function turnOf(tiff: Buffer): number | undefined {
  const orientation = readOrientation(tiff) ?? 1;
  return orientation === 1 ? undefined : orientation;
}

export function withoutMark(exif: Buffer): Buffer {
  return startsWith(exif, EXIF_MARK) ? exif.subarray(EXIF_MARK.length) : exif;
}

export function startsWith(bytes: Buffer, start: Buffer): boolean {
  return bytes.subarray(0, start.length).equals(start);
}
