/**
 * Random requests to one resumable upload, over connections that are cut, beside a
 * model: the number of bytes that the upload has. At the end the media has the
 * bytes that were sent.
 */
import { statSync } from 'node:fs';
import * as fc from 'fast-check';
import t from 'tap';
import { connectRaw, requestHead } from '../../../kit/http/raw.js';
import { largePng } from '../../../kit/media.js';
import { startOrigin, type TestOrigin } from '../../../kit/origin/origin.js';
import { checksum, create, fileOf, offsetOf, PATCH, patch } from '../../../kit/origin/tus-requests.js';
import { FILE_HANGS_AFTER_MS, until } from '../../../kit/until.js';

const SIZE = 4_000;
const SIZE_MAX = 2 * SIZE;
const STEP_MAX = SIZE / 4;
const RUNS = Number(process.env['MODEL_RUNS'] ?? 15);

t.setTimeout(FILE_HANGS_AFTER_MS + RUNS * 2_000);

type Step =
  /** A whole request. `shift`: how far its offset is off. */
  | { readonly kind: 'patch'; readonly bytes: number; readonly shift: number; readonly sum: Sum }
  /** The sender closes or resets the connection behind these bytes, of which not all may have arrived. */
  | {
      readonly kind: 'cut';
      readonly bytes: number;
      readonly arrived: boolean;
      readonly sum: Sum;
      readonly reset: boolean;
    }
  /** A chunked body that is one byte longer than the upload. */
  | { readonly kind: 'beyond' }
  | { readonly kind: 'restart' };

type Sum = 'none' | 'right' | 'wrong';

const sum = fc.constantFrom<Sum>('none', 'none', 'right', 'wrong');
const bytes = fc.integer({ min: 0, max: STEP_MAX });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('patch'), bytes, shift: fc.constantFrom(0, 0, 0, -1, 1), sum }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('cut'), bytes, arrived: fc.boolean(), sum, reset: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('beyond') }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart') }) },
);

void t.test('any requests over any connections leave the bytes that were confirmed', async (t) => {
  const origin = await startOrigin(t.testdir(), {
    upload: { size_max: `${SIZE_MAX}B` },
    thumbs: { enabled: false, video: { enabled: false } },
  });
  t.teardown(() => origin.close());
  let seed = 0;
  const property = fc.asyncProperty(fc.boolean(), fc.array(step, { maxLength: 10 }), async (deferred, steps) => {
    seed += 1;
    await run(origin, largePng(seed, SIZE), deferred, steps);
  });
  await fc.assert(property, { numRuns: RUNS });
  t.pass(`${RUNS} uploads`);
});

async function run(origin: TestOrigin, file: Buffer, deferred: boolean, steps: readonly Step[]): Promise<void> {
  const length = { 'upload-length': String(file.length) };
  const path = (await create(origin, deferred ? { 'upload-defer-length': '1' } : length)).headers.location ?? '';
  let offset = 0;
  for (const each of steps) {
    offset = await take(origin, path, file, offset, each);
    const told = await offsetOf(origin, path);
    if (told !== offset) throw new Error(`after ${JSON.stringify(each)}: ${told} and not ${offset}`);
  }
  const last = await patch(origin, path, offset, file.subarray(offset), length);
  if (last.status !== 204) throw new Error(`the last request: ${last.status} ${last.bytes.toString()}`);
  const media = await origin.as('alice', String(last.headers['media-location']));
  if (!media.bytes.equals(file)) throw new Error('the media has other bytes');
}

/** Takes one step and returns the offset after it. */
async function take(origin: TestOrigin, path: string, file: Buffer, offset: number, step: Step): Promise<number> {
  switch (step.kind) {
    case 'patch': {
      const body = bodyOf(file, offset, step.bytes);
      const { status } = await patch(origin, path, offset + step.shift, body, sumOf(step.sum, body));
      const expected = step.shift === 0 ? (step.sum === 'wrong' ? 460 : 204) : offset + step.shift < 0 ? 400 : 409;
      if (status !== expected) throw new Error(`${JSON.stringify(step)}: ${status} and not ${expected}`);
      return status === 204 ? offset + body.length : offset;
    }
    case 'cut':
      return await cut(origin, path, offset, bodyOf(file, offset, step.bytes), step);
    case 'beyond': {
      const body = Buffer.alloc(SIZE_MAX + 1 - offset);
      const { status } = await patch(origin, path, offset, body, { 'transfer-encoding': 'chunked' });
      if (status !== 413) throw new Error(`beyond the end: ${status}`);
      return offset;
    }
    case 'restart':
      await origin.restart();
      return offset;
  }
}

async function cut(
  origin: TestOrigin,
  path: string,
  offset: number,
  body: Buffer,
  { arrived, sum, reset }: Extract<Step, { kind: 'cut' }>,
): Promise<number> {
  const wire = await connectRaw(origin.port);
  const fields = {
    ...PATCH,
    ...sumOf(sum, body),
    authorization: `Bearer ${origin.auth.token({ sub: 'alice' })}`,
    'upload-offset': String(offset),
    'content-length': body.length + 1,
  };
  wire.write(requestHead('PATCH', path, fields));
  wire.write(body);
  const end = sum === 'none' ? offset + body.length : offset;
  if (arrived) await until('the bytes arrive', () => statSync(fileOf(origin, path)).size === end);
  if (arrived && reset) {
    wire.reset();
  } else {
    wire.end();
    await wire.closed;
  }
  const told = await offsetOf(origin, path);
  if (arrived ? told !== end : told < offset || told > end) throw new Error(`after a cut: ${told}, not ${end}`);
  return told;
}

/** At most `bytes`, and never the last one, so that the upload is not finished. */
function bodyOf(file: Buffer, offset: number, bytes: number): Buffer {
  return file.subarray(offset, Math.min(offset + bytes, file.length - 2));
}

function sumOf(sum: Sum, body: Buffer): Readonly<Record<string, string>> {
  switch (sum) {
    case 'none':
      return {};
    case 'right':
      return checksum('sha256', body);
    case 'wrong':
      return checksum('sha1', Buffer.from('other'));
  }
}
