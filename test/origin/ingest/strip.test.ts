import * as fc from 'fast-check';
import sharp, { type Sharp } from 'sharp';
import t from 'tap';
import { readDimensions } from '../../../src/media/dimensions.js';
import { apngOf } from '../../kit/origin/apng.js';
import { strip } from '../../kit/origin/strip.js';

/** A picture with metadata that must be removed and a colour profile that must stay. */
function withMetadata(orientation: number): Sharp {
  const pixels = Buffer.from(Array.from({ length: 40 * 24 * 3 }, (_, at) => (at * 7) % 256));
  return sharp(pixels, { raw: { width: 40, height: 24, channels: 3 } })
    .withIccProfile('p3')
    .withMetadata({ orientation })
    .withExifMerge({
      IFD0: { Copyright: 'TELLTALE', Orientation: String(orientation) },
      IFD3: { GPSMapDatum: 'TELLTALE', GPSLatitude: '51/1 30/1 3230/100' },
    })
    .withXmp('<x:xmpmeta xmlns:x="adobe:ns:meta/"><TELLTALE/></x:xmpmeta>');
}

const FILES: Readonly<Record<string, (picture: Sharp) => Promise<Buffer>>> = {
  'image/jpeg': (picture) => picture.jpeg({ progressive: true }).toBuffer(),
  'image/png': (picture) => picture.png().toBuffer(),
  'image/webp': (picture) => picture.webp().toBuffer(),
};

async function twoFrames(): Promise<Sharp> {
  const frames = ['red', 'lime'].map((background) =>
    sharp({ create: { width: 8, height: 8, channels: 3, background } })
      .png()
      .toBuffer(),
  );
  return sharp(await Promise.all(frames), { join: { animated: true } });
}

const ORIENTATIONS = [1, 2, 3, 4, 5, 6, 7, 8];

void t.test('stripping', async (t) => {
  for (const [mime, make] of Object.entries(FILES)) {
    await t.test(`${mime} keeps every pixel, the profile and the orientation, and no other metadata`, async (t) => {
      for (const orientation of ORIENTATIONS) {
        const original = await make(withMetadata(orientation));
        t.ok(original.includes('TELLTALE'), 'the original has the metadata');
        const { outcome, bytes } = await strip(original, mime);
        t.same(outcome, { kind: 'stripped' });
        for (const mark of ['TELLTALE', 'GPS', 'xmp', 'XMP', 'adobe:ns']) t.notOk(bytes.includes(mark), mark);
        t.same(await sharp(bytes).raw().toBuffer(), await sharp(original).raw().toBuffer(), 'the pixels');
        const [before, after] = [await sharp(original).metadata(), await sharp(bytes).metadata()];
        t.same(after.icc, before.icc, 'the profile');
        t.equal(after.orientation ?? 1, orientation);
        t.equal(readDimensions(bytes)?.orientation, orientation);
        t.equal(after.exif === undefined, orientation === 1, 'EXIF only if the picture must be turned');
        t.same((await strip(bytes, mime)).outcome, { kind: 'clean' }, 'a stripped file is clean');
      }
    });
  }

  await t.test('leaves a file without metadata unchanged', async (t) => {
    const plain = sharp({ create: { width: 9, height: 9, channels: 3, background: 'teal' } });
    for (const [mime, make] of Object.entries(FILES)) {
      t.same((await strip(await make(plain.clone()), mime)).outcome, { kind: 'clean' }, mime);
    }
    t.same((await strip(Buffer.from('MM\0*'), 'image/tiff')).outcome, { kind: 'unsupported' });
  });

  await t.test('drops data after the end of the picture', async (t) => {
    const plain = sharp({ create: { width: 9, height: 9, channels: 3, background: 'teal' } });
    for (const [mime, make] of Object.entries(FILES)) {
      const alone = await make(plain.clone());
      const { outcome, bytes } = await strip(Buffer.concat([alone, await make(withMetadata(1))]), mime);
      t.match(outcome, { kind: 'stripped' }, mime);
      t.same(bytes, alone);
    }
  });

  await t.test(
    'drops comments, other application data and other pictures of a JPEG, and keeps restart markers',
    async (t) => {
      const plain = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'teal' } })
        .jpeg()
        .toBuffer();
      const segment = (code: number, content: string): Buffer => {
        const head = Buffer.from([0xff, code, 0, 0]);
        head.writeUInt16BE(content.length + 2, 2);
        return Buffer.concat([head, Buffer.from(content, 'latin1')]);
      };
      const dropped = [
        segment(0xfe, 'TELLTALE'),
        segment(0xed, 'Photoshop 3.0\0TELLTALE'),
        segment(0xe2, 'MPF\0TELLTALE'),
        segment(0xe0, 'JFXX\0TELLTALE'),
        segment(0xeb, 'JP TELLTALE'),
      ];
      const kept = segment(0xee, 'Adobe\0d\0\0\0\0\x01');
      const original = Buffer.concat([plain.subarray(0, 2), ...dropped, kept, plain.subarray(2)]);
      t.same(
        (await strip(original, 'image/jpeg')).bytes,
        Buffer.concat([plain.subarray(0, 2), kept, plain.subarray(2)]),
      );
      const scanned = Buffer.concat([
        plain.subarray(0, -2),
        Buffer.from([0xff, 0xd0, 1, 0xff, 0, 0xff, 0xff]),
        plain.subarray(-2),
      ]);
      t.same((await strip(scanned, 'image/jpeg')).outcome, { kind: 'clean' });
      const endless = plain.subarray(0, -2);
      t.same((await strip(endless, 'image/jpeg')).outcome, { kind: 'clean' }, 'a missing end is not malformed');
    },
  );

  await t.test('reads a JPEG as its decoder does', async (t) => {
    const original = await withMetadata(6).jpeg().toBuffer();
    const table = original.indexOf('ffdb', 0, 'hex');
    const inserted = (hex: string): Buffer =>
      Buffer.concat([original.subarray(0, table), Buffer.from(hex, 'hex'), original.subarray(table)]);
    const files: Readonly<Record<string, Buffer>> = {
      'bytes between markers': inserted(Buffer.from('\0\0TELLTALE').toString('hex')),
      'bytes and stuffing between markers': inserted('01ff0002'),
      'fill bytes': inserted('ffffff'),
      'a restart marker before the scan': inserted('ffd0'),
      'a segment whose length is 0': inserted('ffec0000'),
      'no end': original.subarray(0, -2),
    };
    for (const [name, file] of Object.entries(files)) {
      const { outcome, bytes } = await strip(file, 'image/jpeg');
      t.same(outcome, { kind: 'stripped' }, name);
      t.notOk(bytes.includes('TELLTALE'), name);
      const pixels = (picture: Buffer): Promise<Buffer> => sharp(picture, { failOn: 'none' }).raw().toBuffer();
      t.same(await pixels(bytes), await pixels(original), `${name}: the pixels`);
      t.equal(readDimensions(bytes)?.orientation, 6, name);
    }
    const headers = original.subarray(0, original.indexOf('ffda', 0, 'hex'));
    t.same((await strip(headers, 'image/jpeg')).outcome, { kind: 'broken' }, 'no scan');
  });

  await t.test('keeps the frames of an animated PNG', async (t) => {
    const png = await sharp({ create: { width: 8, height: 8, channels: 4, background: 'red' } })
      .png()
      .toBuffer();
    const frame = { png, left: 0, top: 0, delayMs: 10, dispose: 'none', blend: 'source' } as const;
    const apng = apngOf([frame, frame]);
    const text = await sharp(png)
      .withExif({ IFD0: { Copyright: 'TELLTALE' } })
      .png()
      .toBuffer();
    const exif = text.subarray(
      text.indexOf('eXIf') - 4,
      text.indexOf('eXIf') + 8 + text.readUInt32BE(text.indexOf('eXIf') - 4),
    );
    const { bytes } = await strip(Buffer.concat([apng.subarray(0, 33), exif, apng.subarray(33)]), 'image/apng');
    t.same(bytes, apng);
  });

  await t.test('keeps the frames of an animated WebP, and no unknown chunk in one', async (t) => {
    const frames = await (await twoFrames()).webp({ lossless: true, loop: 0, delay: [100, 200] }).toBuffer();
    const [at, last] = [frames.indexOf('ANMF'), frames.lastIndexOf('ANMF')];
    t.ok(at > 0 && last > at, 'there are two frames');
    const unknown = Buffer.from('XTRA\x08\0\0\0TELLTALE', 'latin1');
    const original = Buffer.concat([frames.subarray(0, last), unknown, frames.subarray(last)]);
    original.writeUInt32LE(frames.readUInt32LE(4) + unknown.length, 4);
    original.writeUInt32LE(frames.readUInt32LE(at + 4) + unknown.length, at + 4);
    t.same((await strip(original, 'image/webp')).bytes, frames);
  });

  await t.test('removes comments, texts, XMP and unknown data from a GIF, and keeps its frames', async (t) => {
    const plain = await (await twoFrames()).gif({ loop: 3, delay: [100, 200] }).toBuffer();
    t.same((await strip(plain, 'image/gif')).outcome, { kind: 'clean' });
    const block = (hex: string, ...content: readonly string[]): Buffer =>
      Buffer.concat([
        Buffer.from(hex, 'hex'),
        ...content.map((each) => Buffer.from(`${String.fromCharCode(each.length)}${each}`, 'latin1')),
        Buffer.alloc(1),
      ]);
    const trailer = Array.from({ length: 258 }, (_, index) => (index === 0 ? 1 : index === 257 ? 0 : 256 - index));
    const xmp = Buffer.concat([
      block('21ff', 'XMP DataXMP').subarray(0, -1),
      Buffer.from('<x:xmpmeta>TELLTALE, and a text of more than one block</x:xmpmeta>'),
      Buffer.from(trailer),
    ]);
    const added = [
      block('21fe', 'TELLTALE', 'TELLTALE'),
      xmp,
      block('21ff', 'ABCDEFGH1.0', 'TELLTALE'),
      block('21f9', '\0\x01\0\0'),
      block('2101', '\0'.repeat(12), 'TELLTALE'),
    ];
    const frame = plain.indexOf('21f904', 0, 'hex');
    const original = Buffer.concat([plain.subarray(0, frame), ...added, plain.subarray(frame), ...added]);
    t.same((await strip(original, 'image/gif')).bytes, plain);
    const cut = original.subarray(0, frame + Buffer.concat(added).length + 40);
    const { outcome, bytes } = await strip(cut, 'image/gif');
    t.same(outcome, { kind: 'stripped' }, 'a picture that is cut short');
    t.notOk(bytes.includes('TELLTALE'));
    t.same((await strip(bytes, 'image/gif')).outcome, { kind: 'clean' });
    for (const file of ['GIF89a', 'GIF89a\x01\0\x01\0\0\0\0;']) {
      t.same((await strip(Buffer.from(file, 'latin1'), 'image/gif')).outcome, { kind: 'broken' }, 'no picture');
    }
  });

  await t.test('reports a malformed file, and writes nothing', async (t) => {
    for (const [mime, make] of Object.entries(FILES)) {
      const whole = await make(withMetadata(6));
      t.same((await strip(whole.subarray(0, 60), mime)).outcome, { kind: 'broken' }, mime);
      t.same((await strip(Buffer.alloc(0), mime)).outcome, { kind: 'broken' }, mime);
    }
    const unknown = Buffer.from((await FILES['image/png']?.(withMetadata(1))) ?? Buffer.alloc(0));
    unknown.write('CgBI', 37, 'latin1');
    t.same((await strip(unknown, 'image/png')).outcome, { kind: 'broken' }, 'an unknown critical chunk');
    t.same((await strip(Buffer.from('RIFF\xff\xff\xff\xffWEBPVP8 \0\0\0\0', 'latin1'), 'image/webp')).outcome, {
      kind: 'broken',
    });
  });

  await t.test('never throws on damaged files, and what it writes is clean', async () => {
    const wholes = await Promise.all(
      Object.entries({ ...FILES, 'image/gif': (picture: Sharp) => picture.gif().toBuffer() }).map(
        async ([mime, make]) => [mime, await make(withMetadata(6))] as const,
      ),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...wholes),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.nat(),
        async ([mime, whole], changes, cut) => {
          const damaged = Buffer.from(whole.subarray(0, cut % 3 === 0 ? cut % whole.length : whole.length));
          for (const [at, value] of changes) if (damaged.length > 0) damaged[at % damaged.length] = value;
          const once = await strip(damaged, mime);
          if (once.outcome.kind !== 'stripped') return true;
          return (await strip(once.bytes, mime)).outcome.kind === 'clean';
        },
      ),
      { numRuns: 150 },
    );
  });
});

void t.test('a file that must be in memory and is too large is not read', async (t) => {
  const png = await withMetadata(1).png().toBuffer();
  t.same((await strip(png, 'image/png', png.length - 1)).outcome, { kind: 'too_large' });
  t.same((await strip(png, 'image/png', png.length)).outcome, { kind: 'stripped' });
});

void t.test('an Ultra HDR JPEG keeps its gain map', async (t) => {
  const segment = (code: number, content: Buffer | string): Buffer => {
    const head = Buffer.from([0xff, code, 0, 0]);
    head.writeUInt16BE(content.length + 2, 2);
    return Buffer.concat([head, Buffer.from(content as string, 'latin1')]);
  };
  const xmp = (rest: string): Buffer =>
    segment(0xe1, `http://ns.adobe.com/xap/1.0/\0<x:xmpmeta TELLTALE="1"><rdf:Description hdrgm:Version="1.0" ${rest}`);
  const iso = segment(0xe2, 'urn:iso:std:iso:ts:21496:-1\0\0\0\0\0');
  const described =
    'hdrgm:GainMapMax="1.5" hdrgm:Gamma=\'TELLTALE\' hdrgm:BaseRenditionIsHDR="False" TELLTALE="51.5">' +
    '<hdrgm:GainMapMin><rdf:Seq><rdf:li>-0.25</rdf:li><rdf:li>0</rdf:li><rdf:li>1e-3</rdf:li></rdf:Seq></hdrgm:GainMapMin>' +
    '<hdrgm:OffsetHDR>0.015</hdrgm:OffsetHDR>';
  const main = await withMetadata(6).jpeg().toBuffer();
  const map = await withMetadata(1).greyscale().resize(10, 6).jpeg().toBuffer();
  const other = await withMetadata(1).resize(4).jpeg().toBuffer();
  const withSegments = (jpeg: Buffer, ...segments: readonly Buffer[]): Buffer =>
    Buffer.concat([jpeg.subarray(0, 2), ...segments, jpeg.subarray(2)]);
  const cases = {
    'described by XMP': [xmp('>'), xmp(described)],
    'described by ISO 21496-1': [iso, iso],
    'described by both': [Buffer.concat([xmp('>'), iso]), Buffer.concat([xmp(described), iso])],
  } as const;
  for (const [name, [inMain, inMap]] of Object.entries(cases)) {
    const film = Buffer.from('a film with TELLTALE');
    const original = Buffer.concat([withSegments(main, inMain), other, withSegments(map, inMap), film]);
    const { outcome, bytes } = await strip(original, 'image/jpeg');
    t.same(outcome, { kind: 'stripped' }, name);
    for (const mark of ['TELLTALE', 'GPS', '51.5']) t.notOk(bytes.includes(mark), `${name}: ${mark}`);
    const pictures = picturesOf(bytes);
    t.equal(pictures.length, 2, `${name}: two pictures`);
    t.equal(
      pictures.reduce((sum, { length }) => sum + length, 0),
      bytes.length,
      `${name}: and nothing else`,
    );
    const [first = bytes, second = bytes] = pictures;
    t.equal(readDimensions(first)?.orientation, 6);
    for (const [now, before] of [
      [first, main],
      [second, map],
    ] as const) {
      t.same(await sharp(now).raw().toBuffer(), await sharp(before).raw().toBuffer(), `${name}: the pixels`);
    }
    t.equal(second.includes(iso), inMap.includes(iso));
    t.equal(
      first.includes(`Item:Semantic="GainMap" Item:Length="${second.length}"`),
      name !== 'described by ISO 21496-1',
    );
    if (inMap !== iso) {
      for (const kept of [
        'hdrgm:GainMapMax="1.5"',
        'hdrgm:OffsetHDR="0.015"',
        '<rdf:li>-0.25</rdf:li><rdf:li>0</rdf:li><rdf:li>1e-3</rdf:li>',
      ]) {
        t.ok(second.includes(kept), kept);
      }
      t.notOk(second.includes('hdrgm:Gamma'), 'a value that is no number is dropped');
    }
    t.same((await strip(bytes, 'image/jpeg')).outcome, { kind: 'clean' }, name);
  }
});

/** The pictures that the MPF segment of a file lists. */
function picturesOf(jpeg: Buffer): readonly Buffer[] {
  const header = jpeg.indexOf('MPF\0') + 4;
  t.equal(jpeg.toString('hex', header, header + 8), '4d4d002a00000008');
  const directory = header + 8;
  const entries = Array.from({ length: jpeg.readUInt16BE(directory) }, (_, index) => directory + 2 + index * 12);
  const list = entries.find((at) => jpeg.readUInt16BE(at) === 0xb002) ?? 0;
  return Array.from({ length: jpeg.readUInt32BE(list + 4) / 16 }, (_, index) => {
    const at = header + jpeg.readUInt32BE(list + 8) + index * 16;
    const from = index === 0 ? 0 : header + jpeg.readUInt32BE(at + 8);
    return jpeg.subarray(from, from + jpeg.readUInt32BE(at + 4));
  });
}
