/** Bodies on their way to the disk: equal ones are written once, and those that wait are bounded. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { EdgeCache, Tiers } from '../../../edge/cache/cache.js';
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
import { until } from '../../kit/until.js';

const ON_DISK: Tiers = { memory: false, disk: true };
const KEYS = Array.from({ length: 60 }, (_, number) => `/${number}`);

type Sections = Parameters<typeof cacheConfig>[1];

async function opened(t: Test, folder: string, sections: Sections = {}, files = new FaultyFiles()): Promise<TestCache> {
  const test = await openTestCache(cacheConfig(folder, sections), files);
  t.teardown(() => test.cache.close());
  return test;
}

/** Files that are written only once the test lets them; counts them. */
function heldFiles(): { readonly files: FaultyFiles; readonly written: () => number; readonly release: () => void } {
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let written = 0;
  const files = new FaultyFiles();
  files.before = async (verb) => {
    if (verb !== 'write') return;
    written += 1;
    await held;
  };
  return { files, written: () => written, release };
}

async function read(cache: EdgeCache, key: string): Promise<Buffer | undefined> {
  const stored = cache.get(keyOf(key));
  if (stored === undefined || (await stored.body.ensure(NEVER)) === 'lost') return undefined;
  return readAll(stored.body.open(undefined, NEVER));
}

void t.test('equal bodies are written once, however many keys have them at once', async (t) => {
  const folder = t.testdir();
  const { files, written, release } = heldFiles();
  const { cache } = await opened(t, folder, {}, files);
  const bytes = bytesOf(8_192);
  const stores = Promise.all(KEYS.map((key) => put(cache, entryOf(key, bytes), bytes, ON_DISK)));
  await until('the first is being written', () => written() === 1);
  release();
  t.ok((await stores).every(({ kind }) => kind === 'stored'));
  t.equal(written(), 1);
  t.equal((await put(cache, entryOf('/late', bytes), bytes, ON_DISK)).kind, 'stored');
  t.equal(written(), 1, 'nor when another comes later');
  for (const key of KEYS.slice(1)) cache.drop(keyOf(key), 'invalidated');
  cache.drop(keyOf('/late'), 'invalidated');
  t.ok((await read(cache, '/0'))?.equals(bytes), 'the last key still has it');
});

void t.test('a body that waits for an equal one is not stored once it is taken down', async (t) => {
  const { files, written, release } = heldFiles();
  const { cache } = await opened(t, t.testdir(), {}, files);
  const bytes = bytesOf(8_192);
  const first = put(cache, entryOf('/first', bytes, { mediaId: mediaIdOf(1) }), bytes, ON_DISK);
  const second = put(cache, entryOf('/second', bytes, { mediaId: mediaIdOf(2) }), bytes, ON_DISK);
  await until('the first is being written', () => written() === 1);
  const taken = [cache.takeDown(mediaIdOf(1)), cache.takeDown(mediaIdOf(2))];
  const third = put(cache, entryOf('/third', bytes), bytes, ON_DISK);
  release();
  await Promise.all(taken);
  t.same(
    (await Promise.all([first, second, third])).map(({ kind }) => kind),
    ['aborted', 'aborted', 'stored'],
  );
  t.equal(cache.get(keyOf('/first')), undefined);
  t.equal(cache.get(keyOf('/second')), undefined);
  t.ok((await read(cache, '/third'))?.equals(bytes));
});

void t.test('if the one that is written fails, the others write it themselves', async (t) => {
  const files = new FaultyFiles();
  const { cache } = await opened(t, t.testdir(), {}, files);
  let failures = 3;
  files.before = (verb) => {
    if (verb !== 'write' || failures === 0) return;
    failures -= 1;
    throw new Error('EIO');
  };
  const bytes = bytesOf(8_192);
  const outcomes = await Promise.all(KEYS.map((key) => put(cache, entryOf(key, bytes), bytes, ON_DISK)));
  t.equal(outcomes.filter(({ kind }) => kind === 'not_kept').length, 3);
  t.equal(outcomes.filter(({ kind }) => kind === 'stored').length, KEYS.length - 3);
});

void t.test('shared content that an earlier run has written is verified before it is served', async (t) => {
  const folder = t.testdir();
  const bytes = bytesOf(8_192);
  const before = await opened(t, folder);
  await put(before.cache, entryOf('/old', bytes), bytes, ON_DISK);
  await before.cache.close();
  for (const path of (await filesBelow(join(folder, 'content'))).keys()) await writeFile(path, bytesOf(8_192, 2));
  const { cache } = await opened(t, folder);
  t.equal((await put(cache, entryOf('/new', bytes), bytes, ON_DISK)).kind, 'stored');
  t.equal(await read(cache, '/new'), undefined, 'it is not what it should be');
  t.equal((await put(cache, entryOf('/new', bytes), bytes, ON_DISK)).kind, 'stored');
  t.ok((await read(cache, '/new'))?.equals(bytes), 'and is written anew');
});

void t.test('beyond the limit of bodies that wait, a body is not stored on disk', async (t) => {
  const { files, written, release } = heldFiles();
  const { cache } = await opened(t, t.testdir(), { disk: { storesMax: 2 } }, files);
  const store = (seed: number) => put(cache, entryOf(`/${seed}`, bytesOf(2_000, seed)), bytesOf(2_000, seed), ON_DISK);
  const waiting = [store(1), store(2)];
  await until('they are being written', () => written() === 2);
  t.same(await store(3), { kind: 'not_kept', reason: 'not_admitted' });
  t.equal(cache.stats().disk.refused, 1);
  release();
  t.ok((await Promise.all(waiting)).every(({ kind }) => kind === 'stored'));
  t.equal((await store(3)).kind, 'stored');
});

void t.test('what has arrived when the cache closes is still stored', async (t) => {
  const folder = t.testdir();
  const { files, written, release } = heldFiles();
  const { cache } = await opened(t, folder, {}, files);
  const bytes = bytesOf(8_192);
  const storing = put(cache, entryOf('/last', bytes), bytes);
  await until('it is being written', () => written() === 1);
  const closed = cache.close();
  release();
  await closed;
  t.equal((await storing).kind, 'stored');
  t.ok((await read((await opened(t, folder)).cache, '/last'))?.equals(bytes));
});
