import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as fc from 'fast-check';
import sharp from 'sharp';
import t from 'tap';
import { readDimensions } from '../../../src/media/dimensions.js';

const CORPUS = resolve('../shared/corpus/valid');

const picture = () => sharp({ create: { width: 30, height: 20, channels: 3, background: 'teal' } });

void t.test('the size of a picture is read from its header', async (t) => {
  const turned = picture().withMetadata({ orientation: 6 });
  const still = { width: 30, height: 20, orientation: 1, frames: 1 };
  const cases: Readonly<Record<string, readonly [Buffer, object]>> = {
    jpeg: [await picture().jpeg().toBuffer(), still],
    'progressive jpeg': [await picture().jpeg({ progressive: true }).toBuffer(), still],
    png: [await picture().png().toBuffer(), still],
    gif: [await picture().gif().toBuffer(), still],
    'lossy webp': [await picture().webp().toBuffer(), still],
    'lossless webp': [await picture().webp({ lossless: true }).toBuffer(), still],
    avif: [await picture().avif().toBuffer(), still],
    'turned jpeg': [await turned.clone().jpeg().toBuffer(), { width: 20, height: 30, orientation: 6 }],
    'turned webp': [await turned.clone().webp().toBuffer(), { width: 20, height: 30, orientation: 6 }],
    'turned png': [await turned.clone().png().toBuffer(), { width: 20, height: 30, orientation: 6 }],
  };
  for (const [name, [bytes, expected]] of Object.entries(cases)) {
    t.match(readDimensions(bytes), expected, name);
    // The first bytes of a file give the same result or none, never another one.
    for (let length = 0; length < bytes.length; length += Math.max(1, bytes.length >> 6)) {
      const found = readDimensions(bytes.subarray(0, length));
      if (found !== undefined) t.match({ ...found, frames: 1 }, { ...expected, frames: 1 }, `${name}, ${length} bytes`);
    }
  }
});

void t.test('a JPEG has a size wherever its decoder finds one', async (t) => {
  const whole = await picture().withMetadata({ orientation: 6 }).jpeg().toBuffer();
  const table = whole.indexOf('ffdb', 0, 'hex');
  const scan = whole.indexOf('ffda', 0, 'hex');
  const withBytes = (at: number, hex: string): Buffer =>
    Buffer.concat([whole.subarray(0, at), Buffer.from(hex, 'hex'), whole.subarray(at)]);
  const files: Readonly<Record<string, Buffer>> = {
    'zero bytes before a table': withBytes(table, '000000'),
    'other bytes before a table': withBytes(table, '0102ff00ff0003'),
    'bytes before the first marker': withBytes(2, '00112233'),
    'many bytes before a table': withBytes(table, '11'.repeat(5_000)),
    'fill bytes before a table': withBytes(table, 'ff'.repeat(700)),
    'a restart marker before a table': withBytes(table, 'ffd0'),
    'a segment whose length is 0': withBytes(table, 'ffec0000'),
    'a segment whose length is 1': withBytes(table, 'ffec0001'),
    'an empty segment': withBytes(table, 'ffec0002'),
    'bytes before the scan': withBytes(scan, '010203'),
    'bytes after the end': Buffer.concat([whole, Buffer.alloc(40, 9)]),
    'no end': whole.subarray(0, -2),
    'half a scan': whole.subarray(0, scan + 20),
  };
  for (const [name, bytes] of Object.entries(files)) {
    t.match(readDimensions(bytes), { width: 20, height: 30, orientation: 6, frames: 1 }, name);
    const { width, height } = await sharp(bytes).metadata();
    t.same([width, height], [30, 20], `${name}, as the decoder reads it`);
  }
});

void t.test('any bytes are read without an error', async () => {
  const starts = await Promise.all([
    picture().jpeg().toBuffer(),
    picture().png().toBuffer(),
    picture().gif().toBuffer(),
    picture().webp().toBuffer(),
    picture().avif().toBuffer(),
  ]);
  fc.assert(
    fc.property(
      fc.constantFrom(...starts),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }),
      fc.nat(),
      (start, changes, cut) => {
        const bytes = Buffer.from(start.subarray(0, 1 + (cut % start.length)));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        const found = readDimensions(bytes);
        return (
          found === undefined ||
          (found.width > 0 && found.height > 0 && found.orientation >= 1 && found.orientation <= 8)
        );
      },
    ),
    { numRuns: 2_000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => readDimensions(bytes) === undefined || true));
});

void t.test('a first frame of a GIF that reaches beyond its screen enlarges it, as decoders show it', async (t) => {
  const whole = await picture().gif().toBuffer();
  const descriptor = whole.indexOf(Buffer.from([0x2c, 0, 0, 0, 0, 30, 0, 20, 0]));
  t.ok(descriptor > 0);
  for (const [screen, offset] of [
    [
      [30, 20],
      [0, 0],
    ],
    [
      [10, 20],
      [0, 0],
    ],
    [
      [10, 5],
      [0, 0],
    ],
    [
      [0, 0],
      [0, 0],
    ],
    [
      [30, 20],
      [7, 3],
    ],
    [
      [100, 9],
      [7, 3],
    ],
    [
      [100, 90],
      [7, 3],
    ],
  ] as const) {
    const bytes = Buffer.from(whole);
    for (const [n, value] of screen.entries()) bytes.writeUInt16LE(value, 6 + 2 * n);
    for (const [n, value] of offset.entries()) bytes.writeUInt16LE(value, descriptor + 1 + 2 * n);
    const { width, height } = await sharp(bytes).metadata();
    t.match(readDimensions(bytes), { width, height }, `${screen.join('x')} with a frame at ${offset.join()}`);
  }
});

void t.test('impossible sizes are undefined', async (t) => {
  const png = await picture().png().toBuffer();
  const flat = Buffer.from(png);
  flat.writeUInt32BE(0, 16);
  t.equal(readDimensions(flat), undefined, 'a width of 0');
  t.equal(readDimensions(Buffer.from('<svg width="1" height="1"/>')), undefined);
  const endless = Buffer.concat([Buffer.from('GIF89a', 'latin1'), Buffer.from([9, 0, 9, 0, 0, 0, 0, 0x21, 0xfe])]);
  t.match(readDimensions(Buffer.concat([endless, Buffer.alloc(100, 255)])), { width: 9, frames: null });
});

void t.test(
  'the size of every picture of the corpus is that of its manifest',
  { skip: existsSync(CORPUS) ? false : 'there is no corpus beside this checkout' },
  async (t) => {
    const lines = readFileSync(join(CORPUS, 'manifest.csv'), 'utf8').split('\n').slice(1);
    let seen = 0;
    for (const line of lines) {
      const match = /^([^,]+),.*,(image\/(?:jpeg|png|apng|gif|webp|avif|heif)),(\d+),(\d+),/.exec(line);
      if (match === null) continue;
      const [, name = '', , width, height] = match;
      const found = readDimensions(readFileSync(join(CORPUS, name)));
      // The manifest gives the stored size, before EXIF orientation is applied.
      const stored =
        found !== undefined && found.orientation >= 5 ? [found.height, found.width] : [found?.width, found?.height];
      t.same(stored, [Number(width), Number(height)], name);
      seen += 1;
    }
    t.ok(seen > 30);
  },
);
