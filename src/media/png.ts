/** Writes the chunks of a PNG file (PNG, third edition, 5.3). */
import { crc32 } from 'node:zlib';

/** A whole chunk: length, type, data and checksum. The type has four letters. */
export function pngChunk(type: string, data: Buffer): Buffer {
  const chunk = Buffer.alloc(12 + data.length);
  chunk.writeUInt32BE(data.length, 0);
  chunk.write(type, 4, 'latin1');
  data.copy(chunk, 8);
  chunk.writeUInt32BE(crc32(chunk.subarray(4, 8 + data.length)), 8 + data.length);
  return chunk;
}
