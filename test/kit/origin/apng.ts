/** Animated PNGs made of plain ones, for tests. */
import { crc32 } from 'node:zlib';
import type { ApngFrame } from '../../../origin/thumbs/render/apng.js';

const DISPOSE = ['none', 'background', 'previous'] as const;
const BLEND = ['source', 'over'] as const;

/**
 * All frames must be PNGs of the same kind. The first one has the size of the canvas,
 * unless there is a default image beside the frames.
 */
export function apngOf(
  frames: readonly Omit<ApngFrame, 'width' | 'height'>[],
  plays = 0,
  defaultImage?: Buffer,
): Buffer {
  const first = chunksOf(defaultImage ?? frames[0]?.png ?? Buffer.alloc(0));
  const animation = Buffer.alloc(8);
  animation.writeUInt32BE(frames.length, 0);
  animation.writeUInt32BE(plays, 4);
  let sequence = 0;
  const chunks: Buffer[] = [Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')];
  chunks.push(chunk('IHDR', first.get('IHDR') ?? Buffer.alloc(13)), chunk('acTL', animation));
  if (defaultImage !== undefined) chunks.push(chunk('IDAT', first.get('IDAT') ?? Buffer.alloc(0)));
  for (const [index, frame] of frames.entries()) {
    const source = chunksOf(frame.png);
    const header = source.get('IHDR') ?? Buffer.alloc(13);
    const control = Buffer.alloc(26);
    const numbers = [sequence++, header.readUInt32BE(0), header.readUInt32BE(4), frame.left, frame.top];
    for (const [place, value] of numbers.entries()) control.writeUInt32BE(value, place * 4);
    control.writeUInt16BE(frame.delayMs, 20);
    control.writeUInt16BE(1_000, 22);
    control[24] = DISPOSE.indexOf(frame.dispose);
    control[25] = BLEND.indexOf(frame.blend);
    chunks.push(chunk('fcTL', control));
    const data = source.get('IDAT') ?? Buffer.alloc(0);
    if (index === 0 && defaultImage === undefined) chunks.push(chunk('IDAT', data));
    else {
      const number = Buffer.alloc(4);
      number.writeUInt32BE(sequence++);
      chunks.push(chunk('fdAT', Buffer.concat([number, data])));
    }
  }
  return Buffer.concat([...chunks, chunk('IEND', Buffer.alloc(0))]);
}

/** The joined data of all chunks of each type. */
function chunksOf(png: Buffer): Map<string, Buffer> {
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at + 12 <= png.length; ) {
    const length = png.readUInt32BE(at);
    const type = png.toString('latin1', at + 4, at + 8);
    const data = png.subarray(at + 8, at + 8 + length);
    chunks.set(type, Buffer.concat([chunks.get(type) ?? Buffer.alloc(0), data]));
    at += 12 + length;
  }
  return chunks;
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const framed = Buffer.alloc(8 + body.length);
  framed.writeUInt32BE(data.length, 0);
  body.copy(framed, 4);
  framed.writeUInt32BE(crc32(body), 4 + body.length);
  return framed;
}
