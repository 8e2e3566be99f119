import { mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { prepareRenderer, render } from '../../../origin/thumbs/render/render.js';
import { countScans } from '../../../src/media/jpeg.js';
import { gifOfFrames, jpegOfScans, webpOfFrames } from '../../kit/origin/dear-pictures.js';
import { thumbsConfig } from '../../kit/origin/thumb-fixture.js';

const root = t.testdir({});
prepareRenderer();

void t.test('a small file that takes long to decode is refused before it is decoded', async (t) => {
  const create = { width: 1, height: 1, channels: 3, background: 'red' } as const;
  const still = await sharp({ create }).webp().toBuffer();
  const settings = thumbsConfig({ scans_max: 20, frames_max: 50 });
  const CASES: readonly (readonly [name: string, bytes: Buffer, end: string])[] = [
    ['a JPEG of few scans', jpegOfScans(20), 'rendered'],
    ['a JPEG of one scan too many', jpegOfScans(21), 'too_expensive'],
    ['a JPEG of many scans', jpegOfScans(883), 'too_expensive'],
    ['the same without its end', jpegOfScans(883).subarray(0, -2), 'too_expensive'],
    ['a GIF of few frames', gifOfFrames(50), 'rendered'],
    ['a GIF of many frames', gifOfFrames(51), 'too_expensive'],
    ['a WebP of few frames', webpOfFrames(50, still), 'rendered'],
    ['a WebP of many frames', webpOfFrames(51, still), 'too_expensive'],
  ];
  for (const [name, bytes, end] of CASES) {
    const folder = await mkdtemp(join(root, 'r-'));
    const input = join(folder, 'original');
    await writeFile(input, bytes);
    const result = await render({ input, folder, upright: false, animate: true, settings });
    t.equal(result.kind === 'refused' ? result.reason : result.kind, end, `${name} ${JSON.stringify(result)}`);
  }
});

void t.test('scans are counted as a decoder meets them', async (t) => {
  const create = { width: 30, height: 20, channels: 3, background: 'red' } as const;
  const plain = await sharp({ create }).jpeg().toBuffer();
  const inComment = Buffer.concat([plain.subarray(0, 2), Buffer.from('fffe0006ffdaffda', 'hex'), plain.subarray(2)]);
  const many = jpegOfScans(883);
  t.equal(countScans(plain, 9), 1);
  t.equal(countScans(inComment, 9), 1, 'the bytes of a comment are no marker');
  t.equal(countScans(Buffer.concat([plain, many]), 9), 1, 'nor what comes after the end');
  t.equal(countScans(many, 1_000), 883);
  t.equal(countScans(many, 9), 10, 'no further than the limit');
  t.equal(countScans(Buffer.from([0xff, 0xd8, 0xff, 0xda]), 9), 1);
  t.equal(countScans(Buffer.alloc(0), 9), 0);
});
