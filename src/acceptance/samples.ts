/**
 * Media that the run makes itself. Each one has random bytes in it, so that it is never a duplicate of what somebody
 * else has uploaded, and deleting it harms nobody.
 */
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';

export function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** Letters and digits, so that each byte says where it stands when two texts are compared. */
export function text(size = 1_000): Buffer {
  return Buffer.from(randomBytes(size).toString('base64url').slice(0, size));
}

interface Picture {
  readonly width: number;
  readonly height: number;
  readonly transparent?: boolean;
  /** What the header says in place of the true size. */
  readonly claims?: { readonly width: number; readonly height: number };
}

const CELL = 16;

/** Cells of random colours. */
export function png({ width, height, transparent = false, claims }: Picture): Buffer {
  const channels = transparent ? 4 : 3;
  const colours = randomBytes(4_096);
  const rows = Array.from({ length: height }, (_, y) => {
    const row = Buffer.alloc(1 + width * channels);
    for (let x = 0; x < width; x += 1) {
      const from = (Math.floor(y / CELL) * 67 + Math.floor(x / CELL) * 5) % 4_000;
      for (let at = 0; at < channels; at += 1) row[1 + x * channels + at] = colours[from + at] ?? 0;
      if (transparent) row[channels * (x + 1)] = x % 2 === 0 ? 0 : 200;
    }
    return row;
  });
  const header = Buffer.alloc(13);
  header.writeUInt32BE(claims?.width ?? width, 0);
  header.writeUInt32BE(claims?.height ?? height, 4);
  header.set([8, transparent ? 6 : 2], 8);
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    pngChunk('IHDR', header),
    pngChunk('IDAT', deflateSync(Buffer.concat(rows))),
    pngChunk('IEND', Buffer.alloc(0)),
  ]);
}

function pngChunk(name: string, data: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(name), data]);
  const chunk = Buffer.alloc(8 + named.length);
  chunk.writeUInt32BE(data.length, 0);
  chunk.set(named, 4);
  chunk.writeUInt32BE(crc32(named), 4 + named.length);
  return chunk;
}

/** Two frames of one second. LZW without compression: a clear code before the codes would grow. */
export function animatedGif(side = 32): Buffer {
  const frame = (): Buffer => {
    const pixels = randomBytes(side * side).map((byte) => byte & 127);
    const codes: number[] = [];
    for (const [at, pixel] of pixels.entries()) codes.push(...(at % 100 === 0 ? [128, pixel] : [pixel]));
    codes.push(129);
    const blocks: Buffer[] = [];
    for (let at = 0; at < codes.length; at += 255) {
      const part = codes.slice(at, at + 255);
      blocks.push(Buffer.from([part.length, ...part]));
    }
    const control = [0x21, 0xf9, 4, 0, 100, 0, 0, 0];
    return Buffer.concat([
      Buffer.from([...control, 0x2c, 0, 0, 0, 0, side, 0, side, 0, 0, 7]),
      ...blocks,
      Buffer.from([0]),
    ]);
  };
  const forEver = Buffer.from([0x21, 0xff, 11, ...Buffer.from('NETSCAPE2.0'), 3, 1, 0, 0, 0]);
  const screen = Buffer.from([...Buffer.from('GIF89a'), side, 0, side, 0, 0xf6, 0, 0]);
  return Buffer.concat([screen, randomBytes(128 * 3), forEver, frame(), frame(), Buffer.from([0x3b])]);
}

/** A grey baseline JPEG of plain 8x8 blocks, with EXIF that turns it by 90 degrees and has a position. */
export function turnedJpeg(width: number, height: number): Buffer {
  const [quantization, dcLengths, acLengths] = [Buffer.alloc(64, 1), Buffer.alloc(16), Buffer.alloc(16)];
  dcLengths[3] = 12; // twelve codes of four bits: the sizes of a difference
  acLengths[0] = 1; // one code of one bit: the end of a block
  let bits = '';
  let previous = 0;
  for (const byte of randomBytes(Math.ceil(width / 8) * Math.ceil(height / 8))) {
    const value = byte * 4 - 512;
    const difference = value - previous;
    previous = value;
    const size = difference === 0 ? 0 : Math.abs(difference).toString(2).length;
    const code = difference < 0 ? difference + 2 ** size - 1 : difference;
    const bitsOfValue = size === 0 ? '' : code.toString(2).padStart(size, '0');
    bits += `${size.toString(2).padStart(4, '0')}${bitsOfValue}0`;
  }
  const scan: number[] = [];
  for (let at = 0; at < bits.length; at += 8) {
    const byte = Number.parseInt(bits.slice(at, at + 8).padEnd(8, '1'), 2);
    scan.push(byte, ...(byte === 0xff ? [0] : []));
  }
  const frame = [8, height >> 8, height & 255, width >> 8, width & 255, 1, 1, 0x11, 0];
  return Buffer.concat([
    Buffer.from([0xff, 0xd8]),
    jpegSegment(0xe1, exifTurnedWithPosition()),
    jpegSegment(0xdb, Buffer.concat([Buffer.from([0]), quantization])),
    jpegSegment(0xc0, Buffer.from(frame)),
    jpegSegment(0xc4, Buffer.from([0x00, ...dcLengths, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])),
    jpegSegment(0xc4, Buffer.from([0x10, ...acLengths, 0])),
    jpegSegment(0xda, Buffer.from([1, 1, 0, 0, 63, 0])),
    Buffer.from([...scan, 0xff, 0xd9]),
  ]);
}

function jpegSegment(marker: number, data: Buffer): Buffer {
  const size = data.length + 2;
  return Buffer.concat([Buffer.from([0xff, marker, size >> 8, size & 255]), data]);
}

/** Orientation 6, and a GPS directory with a latitude reference. */
function exifTurnedWithPosition(): Buffer {
  const entry = (tag: number, type: number, value: readonly number[]): number[] => [
    tag >> 8,
    tag & 255,
    0,
    type,
    0,
    0,
    0,
    type === 2 ? 2 : 1,
    ...value,
  ];
  const first = [0, 2, ...entry(0x0112, 3, [0, 6, 0, 0]), ...entry(0x8825, 4, [0, 0, 0, 38]), 0, 0, 0, 0];
  const gps = [0, 1, ...entry(1, 2, [0x4e, 0, 0, 0]), 0, 0, 0, 0];
  const tiff = [0x4d, 0x4d, 0, 42, 0, 0, 0, 8, ...first, ...gps];
  return Buffer.from([...Buffer.from('Exif\0\0', 'latin1'), ...tiff]);
}

/** One second of noise. */
export function wav(): Buffer {
  const samples = randomBytes(8_000);
  const header = Buffer.alloc(44);
  header.write('RIFF', 0);
  header.writeUInt32LE(36 + samples.length, 4);
  header.write('WAVEfmt ', 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(8_000, 24);
  header.writeUInt32LE(8_000, 28);
  header.writeUInt16LE(1, 32);
  header.writeUInt16LE(8, 34);
  header.write('data', 36);
  header.writeUInt32LE(samples.length, 40);
  return Buffer.concat([header, samples]);
}

/** A film of one second, made by ffmpeg; undefined where it is not installed. */
export function film(): Buffer | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'media-acceptance-'));
  try {
    const path = join(folder, 'film.mp4');
    const comment = `comment=${randomBytes(16).toString('hex')}`;
    const source = ['-f', 'lavfi', '-i', 'testsrc=size=320x240:rate=5:duration=1'];
    const made = spawnSync('ffmpeg', ['-v', 'error', ...source, '-pix_fmt', 'yuv420p', '-metadata', comment, path]);
    return made.status === 0 ? readFileSync(path) : undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export interface Pixels {
  readonly format: 'png' | 'jpeg' | 'webp' | 'avif' | 'other';
  readonly width: number;
  readonly height: number;
}

/** The format and the size that the header of a picture states. */
export function pixelsOf(bytes: Buffer): Pixels {
  const at = (from: number, to: number): string => bytes.toString('latin1', from, to);
  if (at(1, 4) === 'PNG') return { format: 'png', width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) };
  if (at(0, 4) === 'RIFF' && at(8, 12) === 'WEBP') return { format: 'webp', ...webpSize(bytes, at(12, 16)) };
  if (at(4, 8) === 'ftyp') return { format: 'avif', ...avifSize(bytes) };
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return { format: 'jpeg', ...jpegSize(bytes) };
  return { format: 'other', width: 0, height: 0 };
}

type Size = Pick<Pixels, 'width' | 'height'>;

function webpSize(bytes: Buffer, kind: string): Size {
  if (kind === 'VP8X') return { width: bytes.readUIntLE(24, 3) + 1, height: bytes.readUIntLE(27, 3) + 1 };
  if (kind === 'VP8L') {
    const bits = bytes.readUInt32LE(21);
    return { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 };
  }
  return { width: bytes.readUInt16LE(26) & 0x3fff, height: bytes.readUInt16LE(28) & 0x3fff };
}

function avifSize(bytes: Buffer): Size {
  const at = bytes.indexOf('ispe');
  return at < 0 ? { width: 0, height: 0 } : { width: bytes.readUInt32BE(at + 8), height: bytes.readUInt32BE(at + 12) };
}

function jpegSize(bytes: Buffer): Size {
  let at = 2;
  while (at + 9 < bytes.length) {
    const marker = bytes[at + 1] ?? 0;
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return { width: bytes.readUInt16BE(at + 7), height: bytes.readUInt16BE(at + 5) };
    at += 2 + bytes.readUInt16BE(at + 2);
  }
  return { width: 0, height: 0 };
}
