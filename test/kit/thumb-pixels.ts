/** A picture with another colour in each corner, and which of them is where in a thumbnail. */
import sharp, { type Sharp } from 'sharp';
import { thumbKey } from '../../origin/blobs/blob-store.js';
import type { BlobRecord } from '../../origin/meta/media.js';
import { readAll } from './origin/blob-contract.js';
import type { ThumbFixture } from './origin/thumb-fixture.js';

const COLOURS: Readonly<Record<string, readonly [number, number, number]>> = {
  red: [255, 0, 0],
  lime: [0, 255, 0],
  blue: [0, 0, 255],
  yellow: [255, 255, 0],
};

/** From the left and from the top: red, lime, blue, yellow. */
export function corners(width = 96, height = 64): Sharp {
  const colours = Object.values(COLOURS);
  const pixels = Buffer.alloc(width * height * 3);
  for (let at = 0; at < width * height; at += 1) {
    const quarter = (at % width < width / 2 ? 0 : 1) + (at < (width * height) / 2 ? 0 : 2);
    pixels.set(colours[quarter] ?? [], at * 3);
  }
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}

interface Shape {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
}

/** The colours near the corners, in the same order. */
export function colourAt(data: Buffer, { width, height, channels }: Shape): readonly string[] {
  const [right, below] = [width - 5, height - 5];
  return [
    [4, 4],
    [right, 4],
    [4, below],
    [right, below],
  ].map(([x = 0, y = 0]) => nearest(data.subarray((y * width + x) * channels)));
}

function nearest(pixel: Buffer): string {
  const named = Object.entries(COLOURS).find(([, colour]) =>
    colour.every((value, at) => Math.abs(value - (pixel[at] ?? 999)) < 60),
  );
  return named?.[0] ?? pixel.subarray(0, 3).join();
}

/** The largest thumbnail in WebP. */
export async function thumbOf(fixture: ThumbFixture, { sha256, thumbs }: BlobRecord): Promise<Buffer> {
  const made = thumbs.kind === 'ready' ? thumbs.made.filter(({ format }) => format === 'webp') : [];
  const largest = made.toSorted((one, other) => other.width - one.width)[0];
  const found = largest === undefined ? undefined : await fixture.blobs.read(thumbKey(sha256, largest));
  if (found?.kind !== 'found') throw new Error(`there is no thumbnail: ${JSON.stringify(thumbs)}`);
  return readAll(found.body);
}

export async function cornersOf(fixture: ThumbFixture, record: BlobRecord): Promise<readonly string[]> {
  const { data, info } = await sharp(await thumbOf(fixture, record))
    .raw()
    .toBuffer({ resolveWithObject: true });
  return colourAt(data, info);
}
