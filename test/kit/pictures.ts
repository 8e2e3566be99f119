/** Pictures made with an encoder, different for each seed. */
import sharp, { type Sharp } from 'sharp';

/** A JPEG with three channels: a gradient with a pattern of the seed. */
export async function makeJpeg(seed: number, width: number, height: number): Promise<Buffer> {
  return await paint(seed, width, height).jpeg({ quality: 85 }).toBuffer();
}

function paint(seed: number, width: number, height: number): Sharp {
  const pixels = Buffer.alloc(width * height * 3);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = (y * width + x) * 3;
      pixels[at] = (x * 255) / width;
      pixels[at + 1] = (y * 255) / height;
      pixels[at + 2] = (seed * 37 + ((x ^ y) & 31)) & 255;
    }
  }
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}
