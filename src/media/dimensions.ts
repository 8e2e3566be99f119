/**
 * The size of a picture from the first bytes of its file, without decoding it.
 */

export interface Dimensions {
  /** Upright, after orientation. */
  readonly width: number;
  readonly height: number;
  /** EXIF orientation 1–8. */
  readonly orientation: number;
  /** Frames, or null where the bytes given do not tell. */
  readonly frames: number | null;
}

/** How many bytes of a file's beginning are worth handing in. */
export const HEAD_BYTES = 256 * 1024;

/** Undefined where the bytes are none of JPEG, PNG, GIF, WebP, AVIF and HEIF, or do not tell. */
export function readDimensions(_head: Uint8Array): Dimensions | undefined {
  return undefined;
}
