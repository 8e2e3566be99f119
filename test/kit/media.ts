/** Small media made without an encoder, different for each seed. */
import { crc32, deflateSync } from 'node:zlib';

/** A whole PNG of one colour. */
export function png(seed: number, width = 8, height = 6): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const row = Buffer.concat([
    Buffer.from([0]),
    Buffer.alloc(width * 3, Buffer.from([seed & 255, (seed >> 8) & 255, (seed >> 16) & 255])),
  ]);
  const pixels = deflateSync(Buffer.concat(Array.from({ length: height }, () => row)));
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    pngChunk('IHDR', header),
    pngChunk('IDAT', pixels),
    pngChunk('IEND', Buffer.alloc(0)),
  ]);
}

function pngChunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const frame = Buffer.alloc(8);
  frame.writeUInt32BE(data.length, 0);
  frame.writeUInt32BE(crc32(body), 4);
  return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
}

/** A PNG of about this size. A text chunk fills it, so that nothing has to be compressed. */
export function largePng(seed: number, sizeBytes: number): Buffer {
  const whole = png(seed);
  const filler = Buffer.alloc(Math.max(8, sizeBytes - whole.length - 12), `seed ${seed} `);
  filler.set(Buffer.from('Comment\0'), 0);
  const end = whole.length - 12;
  return Buffer.concat([whole.subarray(0, end), pngChunk('tEXt', filler), whole.subarray(end)]);
}

/** A GIF of one pixel. Its comment differs by seed. */
export function gif(seed: number): Buffer {
  const comment = Buffer.from(`seed ${seed}`);
  return Buffer.concat([
    Buffer.from('GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff', 'latin1'),
    Buffer.from([0x21, 0xfe, comment.length]),
    comment,
    Buffer.from([0]),
    Buffer.from('2c00000000010001000002024401003b', 'hex'),
  ]);
}

export function pdf(seed: number): Buffer {
  return Buffer.from(`%PDF-1.4\n%seed ${seed}\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n`);
}

/** A short WAV of silence. */
export function wav(seed: number): Buffer {
  const samples = Buffer.alloc(64, seed & 255);
  const head = Buffer.alloc(44);
  head.write('RIFF', 0, 'latin1');
  head.writeUInt32LE(36 + samples.length, 4);
  head.write('WAVEfmt ', 8, 'latin1');
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(8_000, 24);
  head.writeUInt32LE(8_000, 28);
  head.writeUInt16LE(1, 32);
  head.writeUInt16LE(8, 34);
  head.write('data', 36, 'latin1');
  head.writeUInt32LE(samples.length, 40);
  return Buffer.concat([head, samples]);
}

export function text(seed: number): Buffer {
  return Buffer.from(`Nothing but words, number ${seed}.\n`);
}
