/** What a reader is given of a file: the bytes it asks for, shortened at the end, however they lie to what was read before. */
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t from 'tap';
import { type Reading, readBytes, readFromFile, type Span } from '../../../src/media/reading.js';

const folder = t.testdir({});
const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, at) => (at * 31 + (at >> 8)) & 255));

function* taking(spans: readonly Span[]): Reading<readonly Buffer[]> {
  const taken: Buffer[] = [];
  for (const span of spans) taken.push(Buffer.from(yield span));
  return taken;
}

void t.test('any spans are read alike from a file, from its head and from memory', async (t) => {
  const path = join(folder, 'file');
  await writeFile(path, bytes);
  const place = fc.oneof(fc.nat(300), fc.integer({ min: 65_000, max: 66_500 }), fc.nat(200_100));
  const span = fc.record({ at: place, length: fc.oneof(fc.nat(300), fc.constant(70_000)) });
  await fc.assert(
    fc.asyncProperty(fc.array(span, { maxLength: 8 }), fc.constantFrom(0, 100, 70_000), async (spans, headBytes) => {
      const expected = spans.map(({ at, length }) => bytes.subarray(at, at + length));
      t.same(readBytes(taking(spans), bytes), expected);
      const file = { path, sizeBytes: bytes.length, head: bytes.subarray(0, headBytes) };
      t.same(await readFromFile(taking(spans), file), expected);
    }),
    { numRuns: 60 },
  );
});

void t.test('a file that fits its head is not opened', async (t) => {
  const absent = { path: join(folder, 'absent'), sizeBytes: 100, head: bytes.subarray(0, 100) };
  const spans = [
    { at: 0, length: 100 },
    { at: 90, length: 50 },
    { at: 100, length: 1 },
  ];
  t.same(await readFromFile(taking(spans), absent), [bytes.subarray(0, 100), bytes.subarray(90, 100), Buffer.alloc(0)]);
  await t.rejects(readFromFile(taking([{ at: 100, length: 1 }]), { ...absent, sizeBytes: 101 }), { code: 'ENOENT' });
});

const noDescriptors = existsSync('/proc/self/fd') ? false : 'this system does not list open files';

void t.test('a file that was opened is closed', { skip: noDescriptors }, async (t) => {
  const path = join(folder, 'opened');
  await writeFile(path, bytes);
  const file = { path, sizeBytes: bytes.length, head: Buffer.alloc(0) };
  await readFromFile(
    taking([
      { at: 0, length: 1 },
      { at: 100_000, length: 1 },
      { at: 5, length: 1 },
    ]),
    file,
  );
  t.notOk(isOpen(path), 'closed at the end');
  await t.rejects(readFromFile(failing(), file), { message: 'as it reads' });
  t.notOk(isOpen(path), 'closed by a reader that throws');
});

/** Whether this process has the file open. */
function isOpen(path: string): boolean {
  return readdirSync('/proc/self/fd').some((descriptor) => {
    try {
      return readlinkSync(join('/proc/self/fd', descriptor)) === path;
    } catch {
      return false;
    }
  });
}

function* failing(): Reading<never> {
  yield { at: 0, length: 1 };
  yield { at: 150_000, length: 1 };
  throw new Error('as it reads');
}

void t.test('spans are shortened to the limit, counted, and refused once the caller has gone', async (t) => {
  const path = join(folder, 'limited');
  await writeFile(path, bytes);
  const file = { path, sizeBytes: bytes.length, head: Buffer.alloc(0) };
  const limits = { spansMax: 3, spanMaxBytes: 10 };
  const span = { at: 7, length: 100 };
  const three = [span, span, span];
  t.same(
    await readFromFile(taking(three), file, limits),
    three.map(() => bytes.subarray(7, 17)),
  );
  t.equal(await readFromFile(taking([...three, span]), file, limits), undefined, 'one more than the limit');
  t.same(await readFromFile(taking([{ at: 0, length: 2 ** 21 }]), file), [bytes], 'whole, where it is smaller');
  const gone = new AbortController();
  gone.abort(new Error('gone'));
  await t.rejects(readFromFile(taking(three), file, limits, gone.signal), { message: 'gone' });
});
