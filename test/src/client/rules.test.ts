/** The parts of the client library that compute: codes, retries, addresses of thumbnails, placeholders. */
import t from 'tap';
import { rgbaToThumbHash, thumbHashToRGBA } from 'thumbhash';
import {
  MediaError,
  thumbhashPixels,
  thumbhashUrl,
  thumbnailSrcset,
  thumbnailUrl,
} from '../../../src/client/client.js';
import { SERVICE_CODES } from '../../../src/client/codes.js';
import { errorOf, retryAfterMs } from '../../../src/client/errors.js';
import { RETRY_RULES, waitBeforeRetry } from '../../../src/client/retry.js';
import { FAULTS } from '../../../src/errors.js';

void t.test('every code of the service is one of the library', async (t) => {
  t.same(
    Object.keys(FAULTS).filter((code) => !(SERVICE_CODES as readonly string[]).includes(code)),
    [],
  );
});

void t.test('a problem document becomes an error, and so does whatever else came back', async (t) => {
  const received = (status: number, text: string) => ({
    status,
    text,
    field: (name: string) => (name === 'retry-after' ? '7' : null),
  });
  const problem = errorOf(received(413, '{"title":"Too large","detail":"At most 1 MB","code":"too_large"}'), 0);
  t.match(problem, { code: 'too_large', status: 413, message: 'At most 1 MB', retryAfterMs: 7_000 });
  for (const text of ['', '<html>', 'null', '[]', '{"code":"a_new_one"}'])
    t.match(errorOf(received(502, text), 0), { code: 'unexpected', status: 502 });
  t.equal(retryAfterMs('Thu, 01 Jan 1970 00:00:10 GMT', 4_000), 6_000);
  t.equal(retryAfterMs('soon', 0), undefined);
});

void t.test('what passes is tried again, and nothing else', async (t) => {
  const error = (code: MediaError['code'], status?: number, waitMs?: number) =>
    new MediaError(code, '', { status, retryAfterMs: waitMs });
  const cases: readonly (readonly [string, MediaError, number, number | undefined])[] = [
    ['a broken connection, first', error('network'), 0, 500],
    ['the fourth time', error('network'), 3, 4_000],
    ['the last time', error('network'), 8, undefined],
    ['an overloaded service that names a time', error('overloaded', 503, 9_000), 0, 9_000],
    ['one that wants more than the longest wait', error('rate_limited', 429, 61_000), 0, undefined],
    ['an answer of a proxy', error('unexpected', 502), 0, 500],
    ['a used quota', error('quota_exceeded', 429, 1_000), 0, undefined],
    ['a full storage', error('storage_full', 507), 0, undefined],
    ['a refused type', error('type_refused', 415), 0, undefined],
    ['what was cancelled', error('aborted'), 0, undefined],
    ['damaged bytes, once', error('digest_mismatch', 400), 1, 1_000],
    ['damaged bytes, each time', error('digest_mismatch', 400), 2, undefined],
    ['an unimplemented method', error('not_implemented', 501), 0, undefined],
  ];
  for (const [name, thrown, failures, waitMs] of cases)
    t.equal(waitBeforeRetry(thrown, failures, RETRY_RULES, 1), waitMs, name);
  t.equal(waitBeforeRetry(error('network'), 0, RETRY_RULES, 0), 250, 'with luck, half of it');
});

void t.test('thumbnails are named by the width of a variant', async (t) => {
  const variants = [320, 800, 96].map((width) => ({ name: String(width), width, height: width }));
  const cases: readonly (readonly [number, number, number])[] = [
    [96, 1, 96],
    [97, 1, 320],
    [160, 2, 320],
    [160.5, 2, 800],
    [2_000, 1, 800],
  ];
  for (const [width, pixelRatio, chosen] of cases)
    t.equal(thumbnailUrl('/t', { width, pixelRatio }, variants), `/t?w=${chosen}`, `${width} at ${pixelRatio}`);
  t.equal(thumbnailUrl('/t?exp=1', { width: 50 }), '/t?exp=1&w=50', 'beside a signature, and without variants');
  t.equal(thumbnailSrcset('/t', 200, variants), '/t?w=320 1x, /t?w=800 2x', 'none twice');
});

void t.test('a placeholder is what the reference decoder makes of the thumbhash', async (t) => {
  for (const [width, height, alpha] of [
    [100, 60, 255],
    [40, 100, 255],
    [64, 64, 128],
    [100, 7, 200],
  ] as const) {
    const rgba = Uint8Array.from({ length: width * height * 4 }, (_, at) =>
      at % 4 === 3 ? (at % 8 === 3 ? alpha : 255) : (at * 7 + (at >> 6) * 3) & 255,
    );
    const hash = rgbaToThumbHash(width, height, rgba);
    const expected = thumbHashToRGBA(hash);
    const pixels = thumbhashPixels(hash);
    t.same([pixels?.width, pixels?.height], [expected.w, expected.h]);
    const off = [...(pixels?.rgba ?? [])].filter((value, at) => Math.abs(value - (expected.rgba[at] ?? 0)) > 1);
    t.equal(off.length, 0, 'every pixel, but for rounding');
    const url = thumbhashUrl(Buffer.from(hash).toString('base64'));
    const bitmap = Buffer.from((url ?? '').replace('data:image/bmp;base64,', ''), 'base64');
    t.equal(bitmap.readUInt32LE(2), bitmap.length);
    t.ok(bitmap.subarray(bitmap.readUInt32LE(10)).equals(Buffer.from(pixels?.rgba ?? [])), 'as a bitmap');
  }
  for (const wrong of ['', '*', 'AAAA', 'AAAAAAAA']) t.equal(thumbhashUrl(wrong), undefined, 'no thumbhash');
});
