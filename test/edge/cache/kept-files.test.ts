/** Files of the disk tier that stay open for the next reader, and those that must not. */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import type { Tiers } from '../../../edge/cache/cache.js';
import { nodeFiles, type OpenFile } from '../../../edge/cache/disk/files.js';
import { KeptFiles } from '../../../edge/cache/disk/kept-files.js';
import { Pieces } from '../../../edge/cache/disk/pieces.js';
import {
  bytesOf,
  cacheConfig,
  entryOf,
  FaultyFiles,
  filesBelow,
  keyOf,
  mediaIdOf,
  NEVER,
  openTestCache,
  put,
  readAll,
  type TestCache,
} from '../../kit/edge/cache.js';
import { until, untilAsync } from '../../kit/until.js';

const ON_DISK: Tiers = { memory: false, disk: true };
const NO_MEMORY = { memory: { sizeBytes: 0 } };

async function opened(t: Test, sections: Parameters<typeof cacheConfig>[1] = {}): Promise<TestCache> {
  const files = new FaultyFiles();
  const test = await openTestCache(cacheConfig(t.testdir(), { ...NO_MEMORY, ...sections }), files);
  t.teardown(() => test.cache.close());
  return test;
}

async function read({ cache }: TestCache, key: string): Promise<Buffer | undefined> {
  const stored = cache.get(keyOf(key));
  if (stored === undefined || (await stored.body.ensure(NEVER)) === 'lost') return undefined;
  return readAll(stored.body.open(undefined, NEVER));
}

async function contentPath(folder: string, bytes: Buffer): Promise<string> {
  const name = createHash('sha256').update(bytes).digest('hex').slice(4);
  const found = [...(await filesBelow(folder)).keys()].find((path) => path.endsWith(name));
  if (found === undefined) throw new Error('there is no such content');
  return found;
}

void t.test('a content that is read again is not opened again', async (t) => {
  const test = await opened(t);
  const bytes = bytesOf(20_000);
  await put(test.cache, entryOf('/a', bytes), bytes, ON_DISK);
  let opens = 0;
  test.files.before = (verb) => {
    if (verb === 'open') opens += 1;
  };
  for (let times = 0; times < 3; times += 1) t.ok((await read(test, '/a'))?.equals(bytes));
  t.equal(opens, 1);
  t.equal(test.files.openFiles, 1);
  t.equal(test.cache.stats().openFiles, 1);
  t.match(await test.sample('cache_open_files'), 1);
});

void t.test('no more files stay open than the limit says', async (t) => {
  const test = await opened(t, { disk: { openFilesMax: 2 } });
  for (const seed of [1, 2, 3, 4]) {
    const bytes = bytesOf(9_000, seed);
    await put(test.cache, entryOf(`/${seed}`, bytes), bytes, ON_DISK);
    t.ok((await read(test, `/${seed}`))?.equals(bytes));
  }
  await until('the others are closed', () => test.files.openFiles === 2);
  t.equal(test.cache.stats().openFiles, 2);
});

for (const [how, act] of [
  ['a takedown', (test: TestCache) => test.cache.takeDown(mediaIdOf(1))],
  ['a purge of all', (test: TestCache) => test.cache.purge({ all: true })],
  ['the end of the cache', (test: TestCache) => test.cache.close()],
] as const) {
  void t.test(`${how} closes the file`, async (t) => {
    const test = await opened(t);
    const bytes = bytesOf(20_000);
    await put(test.cache, entryOf('/a', bytes, { mediaId: mediaIdOf(1) }), bytes, ON_DISK);
    await read(test, '/a');
    t.equal(test.files.openFiles, 1);
    await act(test);
    await until('it is closed', () => test.files.openFiles === 0);
    t.equal(test.cache.stats().openFiles, 0);
  });
}

void t.test('a file that a reader has open is closed after its last byte', async (t) => {
  const test = await opened(t, { fill: { wholeReadBytes: 1_000 } });
  const bytes = bytesOf(400_000);
  await put(test.cache, entryOf('/a', bytes), bytes, ON_DISK);
  const stored = test.cache.get(keyOf('/a'));
  const stream = stored?.body.open(undefined, NEVER);
  const pieces = stream?.[Symbol.asyncIterator]();
  const first = (await pieces?.next())?.value as Buffer;
  test.cache.drop(keyOf('/a'), 'replaced');
  const rest: Buffer[] = [first];
  for (let next = await pieces?.next(); next?.done === false; next = await pieces?.next())
    rest.push(next.value as Buffer);
  t.ok(Buffer.concat(rest).equals(bytes), 'what was replaced meanwhile is read to its end');
  await until('the file is closed', () => test.files.openFiles === 0);
});

void t.test('content that was wrong and is stored anew is not read from its old file', async (t) => {
  const test = await opened(t);
  const bytes = bytesOf(20_000);
  await put(test.cache, entryOf('/a', bytes), bytes, ON_DISK);
  t.ok((await read(test, '/a'))?.equals(bytes));
  const path = await contentPath(t.testdirName, bytes);
  await writeFile(path, bytes.subarray(0, 10_000));
  t.equal(await read(test, '/a'), undefined, 'it is cut short');
  t.equal((await put(test.cache, entryOf('/a', bytes), bytes, ON_DISK)).kind, 'stored');
  t.ok((await read(test, '/a'))?.equals(bytes));
  t.equal(test.cache.stats().corrupt, 1);
});

void t.test('a file that is in the place of a content already is replaced, and not written over', async (t) => {
  const test = await opened(t);
  const bytes = bytesOf(20_000);
  await put(test.cache, entryOf('/a', bytes), bytes, ON_DISK);
  const path = await contentPath(t.testdirName, bytes);
  await copyFile(path, `${t.testdirName}/aside`);
  await test.cache.takeDown(mediaIdOf(9));
  test.cache.drop(keyOf('/a'), 'purged');
  await untilAsync('its file is removed', async () => (await filesBelow(dirname(path))).size === 0);
  await mkdir(dirname(path), { recursive: true });
  await rename(join(t.testdirName, 'aside'), path);
  const old = await nodeFiles.open(path);
  await writeFile(path, 'torn');
  t.equal((await put(test.cache, entryOf('/a', bytes), bytes, ON_DISK)).kind, 'stored');
  t.ok((await read(test, '/a'))?.equals(bytes));
  t.equal(await old.sizeBytes(), 4, 'who had the old one open still has that');
  await old.close();
  t.equal((await filesBelow(join(t.testdirName, 'spool'))).size, 0);
});

void t.test('what was read last needs no disk, until it is replaced or removed', async (t) => {
  const sections = { disk: { readMemoryBytes: 8_000_000 }, fill: { wholeReadBytes: 100_000 } };
  const test = await opened(t, sections);
  const [small, large] = [bytesOf(90_000, 1), bytesOf(700_000, 2)];
  await put(test.cache, entryOf('/small', small, { mediaId: mediaIdOf(1) }), small, ON_DISK);
  await put(test.cache, entryOf('/large', large, { mediaId: mediaIdOf(2) }), large, ON_DISK);
  let reads = 0;
  test.files.before = (verb) => {
    if (verb === 'read') reads += 1;
  };
  const spans = [
    { first: 0, last: 9 },
    { first: 131_070, last: 131_075 },
    { first: 699_990, last: 699_999 },
    { first: 100_000, last: 231_071 },
  ];
  for (let times = 0; times < 3; times += 1) {
    t.ok((await read(test, '/small'))?.equals(small));
    t.ok((await read(test, '/large'))?.equals(large));
    for (const span of spans) {
      const stored = test.cache.get(keyOf('/large'));
      t.equal(await stored?.body.ensure(NEVER, span), 'ready');
      t.ok(stored?.body.bytesOf?.(span)?.equals(large.subarray(span.first, span.last + 1)));
      t.equal(stored?.body.bytesOf?.({ first: span.first, last: span.last - 1 }), undefined, 'and no other span');
    }
  }
  t.equal(reads, 7, 'the small one whole, and each piece of the large one once');
  t.ok(test.cache.get(keyOf('/small'))?.body.whole?.equals(small), 'a small one is at hand at once');
  await test.cache.takeDown(mediaIdOf(1));
  t.equal(test.cache.get(keyOf('/small')), undefined);
  await put(test.cache, entryOf('/small', small), small, ON_DISK);
  t.equal(test.cache.get(keyOf('/small'))?.body.whole, undefined, 'what was removed is read anew');
  t.ok((await read(test, '/small'))?.equals(small));
  t.equal(reads, 8);
});

void t.test('a file that is cut short is found so by a range too', async (t) => {
  const test = await opened(t, { fill: { wholeReadBytes: 100_000 } });
  const bytes = bytesOf(700_000);
  await put(test.cache, entryOf('/a', bytes), bytes, ON_DISK);
  await truncate(await contentPath(t.testdirName, bytes), 300_000);
  const at = (first: number) => test.cache.get(keyOf('/a'))?.body.ensure(NEVER, { first, last: first + 9 });
  t.equal(await at(10), 'ready');
  t.equal(await at(299_995), 'lost');
  t.equal(test.cache.get(keyOf('/a')), undefined);
});

void t.test('pieces are bounded in bytes', async (t) => {
  const pieces = new Pieces(1_000);
  for (let number = 0; number < 50; number += 1) pieces.put(`content-${number % 3}`, number, Buffer.alloc(50));
  t.equal(pieces.usedBytes, 1_000);
  t.equal(pieces.get('content-2', 29), undefined, 'the oldest went first');
  t.ok(pieces.get('content-0', 30));
  pieces.put('new', 1, Buffer.alloc(50));
  t.ok(pieces.get('content-0', 30), 'what was used is not the oldest');
  t.equal(pieces.get('content-1', 31), undefined);
  pieces.put('large', 1, Buffer.alloc(63));
  t.equal(pieces.get('large', 1), undefined, 'one piece takes a small part of the room');
  pieces.put('new', 1, Buffer.alloc(20));
  t.equal(pieces.usedBytes, 970, 'a piece that is put again counts once');
  pieces.drop('new');
  t.equal(pieces.get('new', 1), undefined);
  t.equal(pieces.usedBytes, 950);
  pieces.dropAll();
  t.equal(pieces.usedBytes, 0);
  const none = new Pieces(0);
  none.put('a', 1, Buffer.alloc(1));
  t.equal(none.get('a', 1), undefined);
});

void t.test('files that are kept', async (t) => {
  const opens: string[] = [];
  const closed: string[] = [];
  const fileOf = (name: string): OpenFile => ({
    write: async () => undefined,
    read: async () => 0,
    sizeBytes: async () => 0,
    close: async () => void closed.push(name),
  });
  const errors: unknown[] = [];
  const kept = new KeptFiles(
    2,
    async (name) => {
      opens.push(name);
      if (name === 'bad') throw new Error('EIO');
      return fileOf(name);
    },
    (thrown) => errors.push(thrown),
  );
  const [one, same] = await Promise.all([kept.lend('a'), kept.lend('a')]);
  t.same(opens, ['a'], 'two readers at once share one');
  kept.drop('a');
  await one.close();
  await one.close();
  t.same(closed, [], 'a reader who closes twice closes for itself alone');
  await same.close();
  await until('the last reader closes it', () => closed.length === 1);
  await t.rejects(kept.lend('bad'), { message: 'EIO' });
  t.equal(kept.count, 0, 'one that cannot be opened is not kept');
  for (const name of ['b', 'c']) await (await kept.lend(name)).close();
  await (await kept.lend('b')).close();
  await (await kept.lend('d')).close();
  await until('one is closed', () => closed.length === 2);
  t.same(closed, ['a', 'c'], 'the one that was read longest ago');
  kept.dropAll();
  await until('all are closed', () => closed.length === 4);
  t.same(errors, []);
});

void t.test('a file is closed after what still uses it, and not used after that', async (t) => {
  const path = join(t.testdir(), 'file');
  const bytes = bytesOf(3_000_000);
  await writeFile(path, bytes);
  const file = await nodeFiles.open(path);
  const into = Buffer.alloc(bytes.length);
  const reading = file.read(into, 0);
  const [closing, again] = [file.close(), file.close()];
  await t.rejects(file.sizeBytes(), { message: 'the file is closed' });
  t.equal(await reading, bytes.length);
  t.ok(into.equals(bytes));
  await Promise.all([closing, again]);
  await t.rejects(nodeFiles.create(path), { code: 'EEXIST' });
  await rm(path);
  await t.rejects(nodeFiles.open(path), { code: 'ENOENT' });
});
