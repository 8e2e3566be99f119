/**
 * A blurred preview of a picture from the 25 bytes of its ThumbHash
 * (https://evanw.github.io/thumbhash/), as pixels or as the URL of a small bitmap.
 * Pure, without a canvas.
 */

export interface Pixels {
  readonly width: number;
  readonly height: number;
  /** Red, green, blue and alpha of each pixel, row by row; not premultiplied. */
  readonly rgba: Uint8ClampedArray<ArrayBuffer>;
}

/** The pixels of a thumbhash, given as bytes or in Base64. Undefined if it is none. At most 32 pixels wide and high. */
export function thumbhashPixels(thumbhash: string | Uint8Array): Pixels | undefined {
  const hash = typeof thumbhash === 'string' ? fromBase64(thumbhash) : thumbhash;
  if (hash === undefined || hash.length < 5) return undefined;
  const [b0 = 0, b1 = 0, b2 = 0, b3 = 0, b4 = 0, b5 = 0] = hash;
  const [first, second] = [b0 | (b1 << 8) | (b2 << 16), b3 | (b4 << 8)];
  const bits = (from: number, shift: number, most: number): number => ((from >> shift) & most) / most;
  const [hasAlpha, isLandscape] = [first >> 23 > 0, second >> 15 > 0];
  const [long, short] = [hasAlpha ? 5 : 7, Math.max(1, second & 7)];
  const [nx, ny] = isLandscape ? [long, short] : [short, long];

  // Where the next factor is, in half bytes.
  let at = hasAlpha ? 12 : 10;
  /** A channel: its constant, and the factors of its frequencies, which stand in a triangle. */
  const channel = (constant: number, fx: number, fy: number, scale: number): Channel => {
    const factors: Factor[] = [];
    for (let cy = 0; cy < fy; cy += 1) {
      for (let cx = cy > 0 ? 0 : 1; cx * fy < fx * (fy - cy); cx += 1, at += 1) {
        factors.push([cx, cy, (bits(hash[at >> 1] ?? 0, (at & 1) * 4, 15) * 2 - 1) * scale * 2]);
      }
    }
    return { constant, factors };
  };
  const luminance = channel(bits(first, 0, 63), Math.max(3, nx), Math.max(3, ny), bits(first, 18, 31));
  const yellowBlue = channel(((first >> 6) & 63) / 31.5 - 1, 3, 3, bits(second, 3, 63) * 1.25);
  const redGreen = channel(((first >> 12) & 63) / 31.5 - 1, 3, 3, bits(second, 9, 63) * 1.25);
  const alpha = hasAlpha ? channel(bits(b5, 0, 15), 5, 5, bits(b5, 4, 15)) : { constant: 1, factors: [] };
  if (at > hash.length * 2) return undefined;

  const [width, height] = [nx, ny].map((each) => Math.round((32 * each) / Math.max(nx, ny))) as [number, number];
  const rgba = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < rgba.length; i += 4) {
    const x = (Math.PI / width) * (((i / 4) % width) + 0.5);
    const y = (Math.PI / height) * (Math.floor(i / 4 / width) + 0.5);
    const [l, p, q, a] = [luminance, yellowBlue, redGreen, alpha].map(({ constant, factors }) =>
      factors.reduce((sum, [cx, cy, factor]) => sum + factor * Math.cos(x * cx) * Math.cos(y * cy), constant),
    ) as [number, number, number, number];
    const blue = l - (2 / 3) * p;
    const red = (3 * l - blue + q) / 2;
    rgba.set(
      [red, red - q, blue, a].map((value) => value * 255),
      i,
    );
  }
  return { width, height, rgba };
}

/** A `data:` URL of a bitmap, for the background or `src` of a picture that is still on its way. */
export function thumbhashUrl(thumbhash: string | Uint8Array): string | undefined {
  const pixels = thumbhashPixels(thumbhash);
  return pixels === undefined ? undefined : bitmapUrl(pixels);
}

/** Frequencies across and down, and how much there is of them. */
type Factor = readonly [cx: number, cy: number, factor: number];

interface Channel {
  readonly constant: number;
  readonly factors: readonly Factor[];
}

/** A bitmap with transparency (BITMAPV4HEADER), which needs no compression and no checksums. */
function bitmapUrl({ width, height, rgba }: Pixels): string {
  const HEAD = 122;
  const bytes = new Uint8Array(HEAD + rgba.length);
  const view = new DataView(bytes.buffer);
  const words = {
    // "BM", where the pixels begin, and the size of the head.
    0: 0x4d42,
    2: bytes.length,
    10: HEAD,
    14: 108,
    18: width,
    // Negative: rows from the top.
    22: -height,
    26: 0x200001,
    30: 3,
    // The masks of red, green, blue and alpha, which have the order of a canvas then.
    54: 0xff,
    58: 0xff00,
    62: 0xff0000,
    66: 0xff000000,
    70: 0x57696e20,
  };
  for (const [at, value] of Object.entries(words)) view.setInt32(Number(at), value, true);
  bytes.set(rgba, HEAD);
  return `data:image/bmp;base64,${btoa(String.fromCharCode(...bytes))}`;
}

function fromBase64(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    return undefined;
  }
}
