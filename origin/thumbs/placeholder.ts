/**
 * The picture that is shown in place of a thumbnail that is not made yet: plain
 * grey, with the proportions that the thumbnail will have, so that a page does
 * not move when the thumbnail replaces it.
 */
import { crc32, deflateSync } from 'node:zlib';

/** A PNG of one grey (PNG, third edition, 11.2), 1 bit a pixel: a few hundred bytes at any size of a variant. */
export function placeholderPng(width: number, height: number): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // Bit depth 1, colour type 3 (palette). Compression, filter and interlace methods are 0.
  header.set([1, 3], 8);
  const rows = Buffer.alloc(height * (1 + Math.ceil(width / 8)));
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', header),
    chunk('PLTE', GREY),
    chunk('IDAT', deflateSync(rows)),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex');
const GREY = Buffer.from('d8d8dc', 'hex');

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const whole = Buffer.alloc(body.length + 8);
  whole.writeUInt32BE(data.length, 0);
  body.copy(whole, 4);
  whole.writeUInt32BE(crc32(body), body.length + 4);
  return whole;
}
