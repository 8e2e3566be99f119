/**
 * The picture that is shown in place of a thumbnail that is not made yet: plain
 * grey, with the proportions that the thumbnail will have, so that a page does
 * not move when the thumbnail replaces it.
 */
import { deflateSync } from 'node:zlib';
import { pngChunk } from '../../src/media/png.js';

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
    pngChunk('IHDR', header),
    pngChunk('PLTE', GREY),
    pngChunk('IDAT', deflateSync(rows)),
    pngChunk('IEND', Buffer.alloc(0)),
  ]);
}

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex');
const GREY = Buffer.from('d8d8dc', 'hex');
