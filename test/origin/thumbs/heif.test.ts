import { chmod, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import type { BlobRecord } from '../../../origin/meta/media.js';
import { readDimensions } from '../../../src/media/dimensions.js';
import { readHeif } from '../../../src/media/heif.js';
import { clap, codedIn, type HeifItem, type HeifOptions, heifOf, irot, transformationsOf } from '../../kit/heif.js';
import { openThumbFixture, type ThumbFixture } from '../../kit/origin/thumb-fixture.js';
import { colourAt, corners, cornersOf, thumbOf } from '../../kit/thumb-pixels.js';

const root = t.testdir({});
const queue = { backoff: '1ms', backoff_max: '2ms', poll: '50ms', attempts_max: 1 };
const WITHOUT_TOOLS = { children: { count: 1 }, queue, video: { enabled: false } };

async function openFixture(t: Test, name: string): Promise<ThumbFixture> {
  const fixture = await openThumbFixture(await mkdtemp(join(root, name)));
  t.teardown(() => fixture.close());
  return fixture;
}

/** Small differences keep the files apart, because media with the same bytes are one blob. */
async function coded(quality: number) {
  return codedIn(await corners().avif({ quality, chromaSubsampling: '4:4:4' }).toBuffer());
}

void t.test('an AVIF is shown as its own transformations say, whatever EXIF says', async (t) => {
  const fixture = await openFixture(t, 'avif-');
  const thumbs = await fixture.open(WITHOUT_TOOLS);
  const end = async (items: readonly HeifItem[], options?: HeifOptions): Promise<BlobRecord> => {
    const bytes = heifOf(items, options);
    const record = await fixture.finished(thumbs, await fixture.put(bytes, 'image/avif'));
    const found = readDimensions(bytes);
    t.match(record.picture, { width: found?.width, height: found?.height }, 'the upload and the thumbnail agree');
    return record;
  };
  const picture = await coded(90);
  for (let orientation = 1; orientation <= 8; orientation += 1) {
    const record = await end([{ coded: picture, transformations: transformationsOf(orientation) }], { exif: 6 });
    t.same(await cornersOf(fixture, record), await cornersSeen(orientation), `orientation ${orientation}`);
  }
  const cropped = await end([{ coded: picture, transformations: [clap(40, 1, 20, 1, -28, 1, -22, 1), irot(1)] }]);
  t.match(cropped.picture, { width: 20, height: 40 });
  t.same(await cornersOf(fixture, cropped), ['red', 'red', 'red', 'red'], 'the clean aperture is at the top left');
  const black = codedIn(
    await sharp({ create: { width: 96, height: 64, channels: 3, background: 'blue' } })
      .avif()
      .toBuffer(),
  );
  const second = await end([{ coded: black }, { coded: picture }], { primary: 2 });
  t.same(await cornersOf(fixture, second), await cornersSeen(1), 'the primary picture is the second one');
});

/** The colours at the corners of the picture after an EXIF orientation is applied by the picture library. */
async function cornersSeen(orientation: number): Promise<readonly string[]> {
  const turned = await corners().withMetadata({ orientation }).png().toBuffer();
  const { data, info } = await sharp(turned).autoOrient().raw().toBuffer({ resolveWithObject: true });
  return colourAt(data, info);
}

void t.test('an AVIF sequence with a primary picture keeps its transparency', async (t) => {
  const fixture = await openFixture(t, 'avis-');
  const thumbs = await fixture.open(WITHOUT_TOOLS);
  const grey = await sharp({ create: { width: 96, height: 64, channels: 3, background: '#808080' } })
    .toColourspace('b-w')
    .avif()
    .toBuffer();
  const items = [{ coded: await coded(90) }, { coded: codedIn(grey), alpha: true }];
  const bytes = heifOf(items, { brands: ['avis', 'msf1', 'mif1', 'avif'] });
  const record = await fixture.finished(thumbs, await fixture.put(bytes, 'image/avif'));
  const { channels } = await sharp(await thumbOf(fixture, record)).stats();
  t.equal(channels.length, 4);
  t.ok(Math.abs((channels[3]?.mean ?? 0) - 128) < 8, 'half transparent');
});

void t.test('a HEIC is converted alone, and EXIF that a converter copies is not applied', async (t) => {
  const folder = await mkdtemp(join(root, 'heic-'));
  const fixture = await openFixture(t, 'heic-');
  // A double of heif-convert, which keeps what it was given, and answers with a picture whose EXIF says "turned".
  const turned = corners().withMetadata({ orientation: 6 });
  await turned.clone().jpeg({ chromaSubsampling: '4:4:4' }).toFile(join(folder, 'answer.jpg'));
  await turned.clone().png().toFile(join(folder, 'answer.png'));
  const program = join(folder, 'heif-convert');
  const script = [
    '#!/bin/sh',
    '[ "$1" = --version ] && exit 0',
    'cp "$3" seen',
    'cp "answer.$(basename "$4" | cut -d. -f2)" "$4"',
  ];
  await writeFile(
    program,
    script.join('\n').replaceAll(/seen|answer/g, (name) => join(folder, name)),
  );
  await chmod(program, 0o700);
  const thumbs = await fixture.open({ ...WITHOUT_TOOLS, video: { heif_convert: program } });
  const picture = { ...(await coded(90)), type: 'hvc1' };
  await writeFile(join(folder, 'seen'), '');
  const large = heifOf([{ coded: { ...picture, width: 20_000, height: 20_000 } }]);
  const refused = await fixture.finished(thumbs, await fixture.put(large, 'image/heic'));
  t.match(refused, { thumbs: { kind: 'none', reason: 'too_many_pixels' }, picture: { width: 20_000 } });
  t.equal((await readFile(join(folder, 'seen'))).length, 0, 'what has too many pixels is not converted');
  const items = [{ coded: { ...picture, width: 4_000 } }, { coded: picture }, { coded: picture, alpha: true }];
  for (const primary of [1, 2]) {
    const bytes = heifOf(items.slice(0, primary + 1), { primary, exif: 6 });
    const record = await fixture.finished(thumbs, await fixture.put(bytes, 'image/heic'));
    const expected = readHeif(bytes);
    t.match(record, { thumbs: { kind: 'ready' }, picture: { width: expected?.width, height: 64, orientation: 1 } });
    t.same(await cornersOf(fixture, record), await cornersSeen(1), `primary ${primary}`);
    const seen = await readFile(join(folder, 'seen'));
    t.same(readHeif(seen), expected, 'the converter gets the same primary picture');
    t.notOk(seen.includes('Exif'), 'and no EXIF');
  }
});
