/** Animated PNGs out of plain ones, for tests. */
import { crc32 } from 'node:zlib';
import type { ApngFrame } from '../../../origin/thumbs/render/apng.js';

const DISPOSE = ['none', 'background', 'previous'] as const;
const BLEND = ['source', 'over'] as const;

/** Every frame a PNG of the same kind; the first one gives the canvas. */
export function apngOf(frames: readonly Omit<ApngFrame, 'width' | 'height'>[], plays = 0): Buffer {
  const first = chunksOf(frames[0]?.png ?? Buffer.alloc(0));
  const control = Buffer.alloc(8);
  control.writeUInt32BE(frames.length, 0);
  control.writeUInt32BE(plays, 4);
  let sequence = 0;
  const parts: Buffer[] = [Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')];
  parts.push(chunk('IHDR', first.get('IHDR') ?? Buffer.alloc(13)), chunk('acTL', control));
  for (const [index, frame] of frames.entries()) {
    const chunks = chunksOf(frame.png);
    const header = chunks.get('IHDR') ?? Buffer.alloc(13);
    const about = Buffer.alloc(26);
    const numbers = [sequence++, header.readUInt32BE(0), header.readUInt32BE(4), frame.left, frame.top];
    for (const [place, value] of numbers.entries()) about.writeUInt32BE(value, place * 4);
    about.writeUInt16BE(frame.delayMs, 20);
    about.writeUInt16BE(1_000, 22);
    about[24] = DISPOSE.indexOf(frame.dispose);
    about[25] = BLEND.indexOf(frame.blend);
    parts.push(chunk('fcTL', about));
    const data = chunks.get('IDAT') ?? Buffer.alloc(0);
    if (index === 0) parts.push(chunk('IDAT', data));
    else {
      const number = Buffer.alloc(4);
      number.writeUInt32BE(sequence++);
      parts.push(chunk('fdAT', Buffer.concat([number, data])));
    }
  }
  return Buffer.concat([...parts, chunk('IEND', Buffer.alloc(0))]);
}

/** Of each type all data, joined. */
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
