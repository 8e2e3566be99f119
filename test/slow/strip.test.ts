/** Stripping what encoders and recorders really write: what is decoded afterwards is the same. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { strip } from '../kit/origin/strip.js';

const missing = (programs: readonly (readonly [name: string, question: string])[]): string | false => {
  const away = programs.filter(([name, question]) => spawnSync(name, [question]).error !== undefined);
  return away.length === 0 ? false : `${away.map(([name]) => name).join(' and ')} not installed`;
};
t.setTimeout(120_000);

const PLACE = ['-metadata', 'location=+51.5-000.1/', '-metadata', 'title=TELLTALE', '-metadata', 'comment=TELLTALE'];
const X264 = ['-c:v', 'libx264', '-c:a', 'aac'];
const VP8 = ['-map', '0:v', '-map', '1:a', '-c:v', 'libvpx', '-b:v', '200k', '-c:a', 'libopus'];
const FILMS: readonly (readonly [name: string, mime: string, options: readonly string[]])[] = [
  ['phone.mov', 'video/quicktime', [...X264, '-timecode', '00:00:00:00']],
  ['phone.mp4', 'video/mp4', X264],
  ['fast.mp4', 'video/mp4', [...X264, '-movflags', 'faststart']],
  [
    'tags.mp4',
    'video/mp4',
    [...X264, '-movflags', 'use_metadata_tags', '-metadata', 'com.apple.quicktime.location.ISO6709=TELLTALE'],
  ],
  ['fragments.mp4', 'video/mp4', [...X264, '-movflags', 'frag_keyframe+empty_moov']],
  ['subtitles.mp4', 'video/mp4', [...X264, '-map', '0:v', '-map', '1:a', '-map', '2', '-c:s', 'mov_text']],
  ['uncompressed.mov', 'video/quicktime', ['-c:v', 'mjpeg', '-c:a', 'pcm_s16be']],
  ['counted.mov', 'video/quicktime', ['-c:v', 'mjpeg', '-c:a', 'adpcm_ima_qt']],
  ['phone.3gp', 'video/3gpp', ['-c:v', 'mpeg4', '-c:a', 'aac']],
  ['memo.m4a', 'audio/mp4', ['-map', '1:a', '-c:a', 'aac']],
  ['browser.webm', 'video/webm', VP8],
  ['live.webm', 'video/webm', [...VP8, '-live', '1']],
];

void t.test('films', { skip: missing([['ffmpeg', '-version']]) }, async (t) => {
  const folder = t.testdir({ 'told.srt': '1\n00:00:00,000 --> 00:00:01,000\nTELLTALE\n' });
  const sources = ['testsrc=d=1:s=160x120:r=10', 'sine=d=1'].flatMap((source) => ['-f', 'lavfi', '-i', source]);
  const decoded = (path: string): string =>
    execFileSync('ffmpeg', ['-v', 'error', '-i', path, '-map', '0:v?', '-map', '0:a', '-f', 'md5', '-'], {
      encoding: 'utf8',
    });
  for (const [name, mime, options] of FILMS) {
    const [made, stripped] = [join(folder, name), join(folder, `stripped-${name}`)];
    execFileSync('ffmpeg', ['-v', 'error', ...sources, '-i', join(folder, 'told.srt'), ...PLACE, ...options, made]);
    const original = await readFile(made);
    const { outcome, bytes } = await strip(original, mime);
    t.same(outcome, { kind: 'stripped' }, name);
    t.ok(original.includes('TELLTALE'), name);
    for (const mark of ['TELLTALE', '51.5', 'ISO6709']) t.notOk(bytes.includes(mark), `${name}: ${mark}`);
    await writeFile(stripped, bytes);
    t.equal(decoded(stripped), decoded(made), `${name}: what is decoded`);
    t.same((await strip(bytes, mime)).outcome, { kind: 'clean' }, name);
  }
});

const heif = missing([
  ['heif-enc', '--version'],
  ['heif-convert', '--version'],
]);
void t.test('pictures of HEIC encoders', { skip: heif }, async (t) => {
  const folder = t.testdir({});
  const path = (name: string): string => join(folder, name);
  await sharp({ create: { width: 96, height: 64, channels: 3, background: 'teal' } })
    .withExif({ IFD0: { Copyright: 'TELLTALE' }, IFD3: { GPSLatitude: '51/1 30/1 3230/100', GPSMapDatum: 'TELLTALE' } })
    .withXmp('<x:xmpmeta xmlns:x="adobe:ns:meta/"><TELLTALE/></x:xmpmeta>')
    .jpeg()
    .toFile(path('photo.jpg'));
  const [encode, convert] = ['heif-enc', 'heif-convert'] as const;
  execFileSync(encode, [path('photo.jpg'), '-o', path('photo.heic')], { stdio: 'ignore' });
  const original = await readFile(path('photo.heic'));
  t.ok(original.includes('TELLTALE'), 'the encoder keeps metadata');
  const { outcome, bytes } = await strip(original, 'image/heic');
  t.same(outcome, { kind: 'stripped' });
  for (const mark of ['TELLTALE', 'adobe:ns']) t.notOk(bytes.includes(mark), mark);
  await writeFile(path('stripped.heic'), bytes);
  const pixels = await Promise.all(
    ['photo', 'stripped'].map(async (name) => {
      execFileSync(convert, [path(`${name}.heic`), path(`${name}.png`)], { stdio: 'ignore' });
      return sharp(path(`${name}.png`))
        .raw()
        .toBuffer();
    }),
  );
  t.same(pixels[1], pixels[0]);
});
