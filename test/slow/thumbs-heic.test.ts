import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtemp, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import t from 'tap';
import { readHeif } from '../../src/media/heif.js';
import { clap, codedIn, type HeifItem, type HeifOptions, heifOf, irot, transformationsOf } from '../kit/heif.js';
import { openThumbFixture } from '../kit/origin/thumb-fixture.js';
import { colourAt, corners, cornersOf, thumbOf } from '../kit/thumb-pixels.js';

const installed = ['heif-convert', 'heif-enc'].every(
  (program) => spawnSync(program, ['--version']).error === undefined,
);
const tools = { skip: installed ? false : 'heif-convert and heif-enc are not installed' } as const;
t.setTimeout(300_000);

void t.test('HEIC through heif-convert', tools, async (t) => {
  const folder = t.testdir({});
  const fixture = await openThumbFixture(await mkdtemp(join(folder, 'fixture-')));
  t.teardown(() => fixture.close());
  const thumbs = await fixture.open({ queue: { attempts_max: 1 } });
  const end = async (bytes: Buffer) => fixture.finished(thumbs, await fixture.put(bytes, 'image/heic'));
  const encode = async (picture: Sharp, quality: number, preset = 'medium'): Promise<Buffer> => {
    await picture.png().toFile(join(folder, 'source.png'));
    const args = ['-p', `preset=${preset}`, '-q', String(quality), join(folder, 'source.png')];
    execFileSync('heif-enc', [...args, '-o', join(folder, 'made.heic')], { stdio: 'ignore' });
    return readFile(join(folder, 'made.heic'));
  };
  const picture = codedIn(await encode(corners(), 95));
  const blue = sharp({ create: { width: 96, height: 64, channels: 3, background: 'blue' } });
  const other = codedIn(await encode(blue, 95));

  await t.test('is shown as its own transformations say, whatever EXIF says', async (t) => {
    for (let orientation = 1; orientation <= 8; orientation += 1) {
      const turned = await corners().withMetadata({ orientation }).png().toBuffer();
      const { data, info } = await sharp(turned).autoOrient().raw().toBuffer({ resolveWithObject: true });
      for (const exif of [undefined, 6]) {
        const item: HeifItem = { coded: picture, transformations: transformationsOf(orientation) };
        const record = await end(heifOf([item], exif === undefined ? {} : { exif }));
        t.match(record.picture, { width: info.width, height: info.height, orientation: 1 });
        t.same(await cornersOf(fixture, record), colourAt(data, info), `orientation ${orientation}, EXIF ${exif}`);
      }
    }
  });

  await t.test('is its primary picture, cropped once, with its transparency', async (t) => {
    const seen = async (items: readonly HeifItem[], options?: HeifOptions): Promise<readonly string[]> => {
      const bytes = heifOf(items, options);
      const record = await end(bytes);
      const { width, height } = readHeif(bytes) ?? { width: 0, height: 0 };
      t.match(record.picture, { width, height });
      const shown = await sharp(await thumbOf(fixture, record)).metadata();
      t.same([shown.width, shown.height], [width, height], 'the thumbnail has the size that the upload had');
      return cornersOf(fixture, record);
    };
    t.same(await seen([{ coded: other }, { coded: picture }], { primary: 2 }), ['red', 'lime', 'blue', 'yellow']);
    t.same(await seen([{ coded: picture }, { coded: other }], { primary: 2 }), ['blue', 'blue', 'blue', 'blue']);
    const corner = clap(40, 1, 20, 1, -28, 1, -22, 1);
    t.same(await seen([{ coded: picture, transformations: [corner, irot(1)] }]), ['red', 'red', 'red', 'red']);
    t.same(
      await seen([{ coded: picture }], { brands: ['mif1', 'heic'] }),
      ['red', 'lime', 'blue', 'yellow'],
      'under another brand',
    );
    const translucent = await end(await encode(corners().ensureAlpha(0.5), 90));
    const { channels } = await sharp(await thumbOf(fixture, translucent)).stats();
    t.ok(Math.abs((channels[3]?.mean ?? 0) - 128) < 8, 'half transparent');
  });

  await t.test('of 24 and of 48 megapixels takes little processor time', async (t) => {
    await thumbs.close();
    const quick = await fixture.open({ queue: { attempts_max: 1 }, video: { cpu_limit: '5s' } });
    for (const [width, height] of [
      [5_712, 4_284],
      [8_064, 6_048],
    ] as const) {
      const bytes = await encode(corners(width, height).modulate({ brightness: 0.99 }), 50, 'ultrafast');
      const record = await fixture.finished(quick, await fixture.put(bytes, 'image/heic'));
      t.match(record, { thumbs: { kind: 'ready' }, picture: { width, height } }, `${width} × ${height}`);
    }
    await quick.close();
  });
});
