/** Pictures that are small files and dear to decode, made of bytes, for tests. */

/**
 * A progressive JPEG of one colour in as many scans as are asked for, all of which
 * the format allows: each coefficient may have a scan for each of its bits (ITU-T T.81 G.1).
 * The picture is `side` pixels wide and high; at most 255 blocks of 8 × 8 pixels.
 */
export function jpegOfScans(scansMax: number, side = 64): Buffer {
  const blocks = Math.ceil(side / 8) ** 2;
  const frame = Buffer.from([8, 0, 0, 0, 0, 1, 1, 0x11, 0]);
  frame.writeUInt16BE(side, 1);
  frame.writeUInt16BE(side, 3);
  // A run of blocks without coefficients: its class, of one bit, and then its length without the first bit.
  const bits = Math.floor(Math.log2(blocks));
  const run = `0${(blocks - 2 ** bits).toString(2).padStart(bits, '0')}`.padEnd(16, '1');
  const nothing = Buffer.from([Number.parseInt(run.slice(0, 8), 2), Number.parseInt(run.slice(8), 2)]);
  const scans = [scan(0, 0, 0, 0, Buffer.alloc(Math.ceil(blocks / 8)))];
  for (let coefficient = 1; coefficient < 64; coefficient += 1) {
    for (let bit = 13; bit >= 0; bit -= 1)
      scans.push(scan(coefficient, coefficient, bit === 13 ? 0 : bit + 1, bit, nothing));
  }
  return Buffer.concat([
    Buffer.from([0xff, 0xd8]),
    segment(0xdb, Buffer.concat([Buffer.from([0]), Buffer.alloc(64, 1)])),
    segment(0xc2, frame),
    codes(0, 0),
    codes(1, bits * 16),
    ...scans.slice(0, scansMax),
    Buffer.from([0xff, 0xd9]),
  ]);
}

function segment(code: number, data: Buffer): Buffer {
  const head = Buffer.from([0xff, code, 0, 0]);
  head.writeUInt16BE(data.length + 2, 2);
  return Buffer.concat([head, data]);
}

/** A table of a single code, of one bit. */
function codes(kind: 0 | 1, symbol: number): Buffer {
  return segment(0xc4, Buffer.from([kind * 16, 1, ...Array.from({ length: 15 }, () => 0), symbol]));
}

function scan(first: number, last: number, before: number, bit: number, data: Buffer): Buffer {
  return Buffer.concat([segment(0xda, Buffer.from([1, 1, 0, first, last, before * 16 + bit])), data]);
}

/** A GIF with so many frames of one pixel. */
export function gifOfFrames(count: number): Buffer {
  const head = Buffer.from('GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff', 'latin1');
  const frame = Buffer.from('2c0000000001000100000202440100', 'hex');
  return Buffer.concat([head, ...Array.from({ length: count }, () => frame), Buffer.from([0x3b])]);
}

/** A WebP with so many frames. `still` is a WebP of one pixel. */
export function webpOfFrames(count: number, still: Buffer): Buffer {
  const place = Buffer.alloc(16);
  place[12] = 10;
  const frame = chunk('ANMF', Buffer.concat([place, still.subarray(12)]));
  const canvas = Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  const frames = Array.from({ length: count }, () => frame);
  const head = [Buffer.from('WEBP'), chunk('VP8X', canvas), chunk('ANIM', Buffer.alloc(6))];
  return chunk('RIFF', Buffer.concat([...head, ...frames]));
}

function chunk(type: string, data: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.write(type, 'latin1');
  head.writeUInt32LE(data.length, 4);
  return Buffer.concat([head, data, Buffer.alloc(data.length % 2)]);
}
