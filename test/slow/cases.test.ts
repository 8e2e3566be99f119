/**
 * Files and requests from public reports that once went wrong, in a folder beside this checkout. Each kind has its own
 * tests, which make their inputs themselves; here the reported inputs get the answers that they should have had.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { type HttpResponse, json, member } from '../kit/http/request.js';
import { startOrigin, type TestOrigin } from '../kit/origin/origin.js';
import { makeJpeg } from '../kit/pictures.js';

const CASES = join('..', 'shared', 'cases');
const programs = ['heif-convert', 'ffmpeg'].every((name) => spawnSync(name, ['-version']).error === undefined);
const missing = existsSync(CASES) ? !programs && 'heif-convert and ffmpeg are not installed' : 'there are no cases';
const fileOf = (...path: readonly string[]): Promise<Buffer> => readFile(join(CASES, ...path));

t.setTimeout(120_000);

void t.test('what once went wrong', { skip: missing }, async (t) => {
  const origin = await startOrigin(t.testdir(), { thumbs: { wait: '60s', children: { count: 1 } } });
  t.teardown(() => origin.close());
  const upload = async (bytes: Buffer, type?: string): Promise<HttpResponse> =>
    origin.upload(bytes, '', type === undefined ? {} : { 'content-type': type });
  const get = async (answer: HttpResponse, path = '', method = 'GET'): Promise<HttpResponse> =>
    origin.as('bob', `/v1/media/${member(answer, 'id')}${path}`, { method, headers: { accept: 'image/webp' } });
  const factsOf = ({ headers }: HttpResponse): readonly unknown[] => [headers['media-width'], headers['media-height']];
  /** Its size, and its first pixel. */
  const thumbOf = async (answer: HttpResponse): Promise<readonly number[]> => {
    const thumb = await get(answer, '/thumb');
    if (thumb.status !== 200) throw new Error(`${thumb.status}: ${thumb.bytes.toString()}`);
    const { data, info } = await sharp(thumb.bytes).raw().toBuffer({ resolveWithObject: true });
    return [
      info.width,
      info.height,
      ...Array.from(data.subarray(0, info.channels), (value) => Math.round(value / 32) * 32),
    ];
  };

  await t.test('01: EXIF in a HEIC says nothing', async (t) => {
    const answer = await upload(await fileOf('01-heic-exif-orientation-6', 'iphone_o6.heic'), 'image/heic');
    t.match(json(answer), { width: 96, height: 64 });
    t.same(await thumbOf(answer), [96, 64, 256, 0, 0]);
  });

  await t.test('03: the primary picture is shown', async (t) => {
    const answer = await upload(await fileOf('03-heic-primary-is-second', 'multi_second_primary.heic'), 'image/heic');
    t.same(await thumbOf(answer), [96, 64, 0, 256, 0]);
  });

  await t.test('05 and 07: a clean aperture crops, and every answer says the same size', async (t) => {
    for (const [folder, file, side] of [
      ['05-heic-clap-ignored', 'hevc32.heif', 32],
      ['07-avif-clap-201-differs-from-head', 'clap.avif', 1],
    ] as const) {
      const answer = await upload(await fileOf(folder, file));
      t.match(json(answer), { width: side, height: side });
      const [width, height] = await thumbOf(answer);
      t.same([width, height], [side, side]);
      t.same(factsOf(await get(answer, '', 'HEAD')), [String(side), String(side)]);
    }
  });

  await t.test('08: text in UTF-16 is no sound', async (t) => {
    const bytes = await fileOf('08-utf16-csv-is-audio-mpeg', 'bom.csv');
    for (const type of [undefined, 'application/octet-stream', 'text/csv']) {
      const answer = await upload(bytes, type);
      t.equal(answer.status, 415);
      t.match(json(answer)['detail'], /UTF-16/);
    }
  });

  await t.test('10 and 12: a voice message is sound, and has a duration', async (t) => {
    const voice = await upload(await fileOf('10-voice-mp4-is-video', 'safari_voice.mp4'), 'audio/mp4');
    t.match(json(voice), { mime: 'audio/mp4' });
    const recorded = await upload(await fileOf('12-mediarecorder-no-duration', 'rec_voice.webm'), 'audio/webm');
    t.equal((await get(recorded, '/thumb')).status, 404);
    t.match((await get(recorded, '', 'HEAD')).headers['media-duration'], /^(?:1(?:\.0\d*)?|0\.9[5-9]\d*)$/);
  });

  await t.test('14: bytes between the markers of a JPEG are skipped', async (t) => {
    const answer = await upload(await fileOf('14-jpeg-junk-between-markers', 'junk3.jpg'));
    t.match(json(answer), { width: 16, height: 12 });
    t.same((await thumbOf(answer)).slice(0, 2), [16, 12]);
  });

  await t.test('16, 18 and 20: types and names are read as their senders mean them', async (t) => {
    const form = { 'content-type': 'multipart/form-data; boundary=b' };
    const excel = await origin.upload(await fileOf('16-csv-declared-as-ms-excel', 'request.bin'), '', form);
    t.match(json(excel), { mime: 'text/csv' });
    t.equal((await upload(await makeJpeg(1, 40, 30), 'image/*')).status, 201);
    const named = await origin.upload(await fileOf('20-dotnet-filename-star', 'request.bin'), '', form);
    t.match(json(named), { filename: 'Grüße.txt' });
    t.match((await get(named)).headers['content-disposition'], /filename\*=UTF-8''Gr%C3%BC%C3%9Fe\.txt/i);
  });

  await t.test('19: fields of an upload may be followed by a space', async (t) => {
    const [, metadata = ''] = /Upload-Metadata: ([^\r\n]*)/.exec(
      (await fileOf('19-tus-metadata-space-after-comma', 'request.txt')).toString(),
    ) ?? ['', ''];
    for (const given of [metadata, `${metadata},`]) {
      const headers = { 'tus-resumable': '1.0.0', 'upload-length': '5', 'upload-metadata': given };
      t.equal((await origin.as('alice', '/v1/uploads', { method: 'POST', headers })).status, 201, given);
    }
  });

  await t.test('24: a picture in HEIF is never a film', async (t) => {
    const folder = '24-heif-brands-are-video';
    t.match(json(await upload(await fileOf(folder, 'osm_mif3.avif'))), { mime: 'image/avif' });
    t.match(json(await upload(await fileOf(folder, 'avc32.heif'))), { mime: 'image/heif' });
  });

  await t.test('28 and 29: the first frame is shown, with its transparency', async (t) => {
    const star = await upload(await fileOf('28-animated-avif-loses-alpha', 'star.avifs'));
    const [, , ...pixel] = await thumbOf(star);
    t.equal(pixel[3], 0, 'transparent');
    const hidden = await upload(await fileOf('29-apng-hidden-default-image', 'mode_palette_alpha.png'));
    t.same((await thumbOf(hidden)).slice(2, 5), [0, 256, 0], 'green');
  });

  await t.test('14 and 22: with stripping on, no location is stored and no intact picture is refused', async (t) => {
    const stripping: TestOrigin = await startOrigin(t.testdir(), {
      upload: { strip_originals: { enabled: true } },
      thumbs: { enabled: false },
    });
    t.teardown(() => stripping.close());
    t.equal((await stripping.upload(await fileOf('14-jpeg-junk-between-markers', 'junk3.jpg'))).status, 201);
    const sent = await fileOf('22-strip-originals-heic-gps', 'gps.heic');
    const answer = await stripping.upload(sent);
    t.equal(answer.status, 201);
    const { bytes } = await stripping.as('bob', `/v1/media/${member(answer, 'id')}`);
    t.ok(sent.includes('8825', 0, 'hex'), 'the tag of the GPS directory');
    t.notOk(bytes.includes('8825', 0, 'hex'));
    t.equal(bytes.length, sent.length);
  });
});
