/** What the cache waits for, what it gives back, and what it must not keep, where its disk is slow or wrong. */
import { cpSync, statSync, truncateSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { Tiers } from '../../../edge/cache/cache.js';
import { ManualClock } from '../../kit/clock.js';
import {
  BOTH,
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
  writeAll,
} from '../../kit/edge/cache.js';
import { until, untilAsync } from '../../kit/until.js';

const ON_DISK: Tiers = { memory: false, disk: true };
const BLOCK_BYTES = 65_536;
const turn = (): Promise<void> => new Promise(setImmediate);

async function opened(t: Test, sections: Parameters<typeof cacheConfig>[1] = {}): Promise<TestCache> {
  const test = await openTestCache(cacheConfig(t.testdir(), sections));
  t.teardown(() => test.cache.close());
  return test;
}

/** The operations on files that wait until they are let go. */
function held(
  files: FaultyFiles,
  verb: 'write' | 'read' | 'rename',
): { readonly waiting: () => number; letGo(): void } {
  let go = (): void => undefined;
  let waiting = 0;
  const gate = new Promise<void>((resolve) => (go = resolve));
  files.before = (each) => {
    if (each !== verb) return;
    waiting += 1;
    return gate;
  };
  return {
    waiting: () => waiting,
    letGo() {
      files.before = () => undefined;
      go();
    },
  };
}

void t.test('a hit in memory keeps a response there, for every policy that counts uses', async (t) => {
  const bytes = bytesOf(90_000);
  for (const policy of ['lru', 'sieve', 'w-tinylfu', 's3-fifo', 'gdsf'] as const) {
    const sections = { memory: { sizeBytes: 1_000_000, policy }, disk: { sizeBytes: 0 } };
    const { cache } = await openTestCache(cacheConfig(t.testdirName, sections));
    const fill = (key: string) => put(cache, entryOf(key, bytes), bytes);
    await fill('used');
    for (let other = 0; other < 40; other += 1) {
      for (let times = 0; times < 4; times += 1) cache.get(keyOf('used'));
      await fill(`other ${other}`);
    }
    t.not(cache.peek(keyOf('used')), undefined, policy);
    t.ok(cache.stats().memory.evictions >= 30, `${policy} has evicted others`);
    await cache.close();
  }
});

void t.test('a look that is no use keeps nothing', async (t) => {
  const bytes = bytesOf(90_000);
  const { cache } = await opened(t, { memory: { sizeBytes: 1_000_000, policy: 'lru' }, disk: { sizeBytes: 0 } });
  await put(cache, entryOf('looked at', bytes), bytes);
  for (let other = 0; other < 12; other += 1) {
    cache.peek(keyOf('looked at'));
    await put(cache, entryOf(`other ${other}`, bytes), bytes);
  }
  t.equal(cache.peek(keyOf('looked at')), undefined);
});

void t.test('what was removed stays removed if the process dies the moment after', async (t) => {
  const nothing = Buffer.alloc(0);
  /** More than a search takes in one step, so that the last are committed after the first. */
  const keys = Array.from({ length: 300 }, (_, number) => `/one/${number}`);
  const removals: readonly (readonly [what: string, removed: number, remove: (test: TestCache) => Promise<number>])[] =
    [
      ['by a takedown', 300, ({ cache }) => cache.takeDown(mediaIdOf(1))],
      ['by a purge of a prefix', 300, ({ cache }) => cache.purge({ prefix: '/one' })],
      ['by a purge of everything', 301, ({ cache }) => cache.purge({ all: true })],
    ];
  for (const [number, [what, removed, remove]] of removals.entries()) {
    const config = cacheConfig(`${t.testdirName}/${number}`);
    const test = await openTestCache(config);
    const mediaId = mediaIdOf(1);
    await Promise.all(keys.map((key) => put(test.cache, entryOf(key, nothing, { mediaId }), nothing, ON_DISK)));
    await put(test.cache, entryOf('/other', nothing, { mediaId: mediaIdOf(2) }), nothing, ON_DISK);
    // A takedown waits until everything before it is durable: the entries are.
    await test.cache.takeDown(mediaIdOf(3));
    t.equal(await remove(test), removed, what);
    cpSync(config.folder, `${config.folder}-copy`, { recursive: true });
    await test.cache.close();
    const { cache, lines } = await openTestCache({ ...config, folder: `${config.folder}-copy` });
    t.same(lines, [], `${what}: the index is not taken for a damaged one`);
    const left = keys.filter((key) => cache.peek(keyOf(key)) !== undefined);
    t.same(left, [], what);
    t.equal(cache.peek(keyOf('/other')) !== undefined, removed === 300, `${what}: and nothing else`);
    await cache.close();
  }
});

void t.test('a body that became invalid while it arrived is not stored, in any tier', async (t) => {
  for (const [name, sizeBytes] of [
    ['in memory', 1_000],
    ['through a file', 400_000],
  ] as const) {
    const { cache, files } = await openTestCache(cacheConfig(t.testdir()));
    const bytes = bytesOf(sizeBytes);
    const fill = cache.fill(entryOf('a', bytes), BOTH);
    await writeAll(fill, bytes);
    cache.drop(keyOf('a'), 'invalidated');
    t.same(await fill.end(), { kind: 'not_kept', reason: 'invalidated' }, name);
    t.equal(cache.peek(keyOf('a')), undefined, name);
    t.match(cache.stats(), { memory: { entries: 0 }, disk: { entries: 0, usedBytes: 0 }, fills: 0 }, name);
    await until('its file is closed', () => files.openFiles === 0);
    await cache.close();
  }
});

void t.test('a body that becomes invalid while it is written to disk is not found there', async (t) => {
  const { cache, files } = await opened(t, { memory: { sizeBytes: 0 } });
  const bytes = bytesOf(400_000);
  const fill = cache.fill(entryOf('a', bytes), BOTH);
  await writeAll(fill, bytes);
  const renames = held(files, 'rename');
  const ended = fill.end();
  await until('the file is to be moved', () => renames.waiting() === 1);
  cache.drop(keyOf('a'), 'invalidated');
  renames.letGo();
  t.same(await ended, { kind: 'not_kept', reason: 'invalidated' });
  t.equal(cache.peek(keyOf('a')), undefined);
  t.match(cache.stats().disk, { entries: 0, usedBytes: 0 });
});

void t.test('a disk that is slower than the origin holds the origin back', async (t) => {
  const { cache, files } = await opened(t);
  const bytes = bytesOf(3_000_000);
  const writes = held(files, 'write');
  const fill = cache.fill(entryOf('a', bytes), BOTH);
  let written = 0;
  const writing = (async () => {
    for (let at = 0; at < bytes.length; at += 50_000) {
      await fill.write(bytes.subarray(at, at + 50_000));
      written = at + 50_000;
    }
  })();
  await until('a write', () => writes.waiting() === 1);
  for (let turns = 0; turns < 50; turns += 1) await turn();
  t.ok(written <= 6 * BLOCK_BYTES, `${written} bytes were taken while none could be written`);
  writes.letGo();
  await writing;
  t.same(await fill.end(), { kind: 'stored', tiers: ['disk'] });
  t.ok(
    (await readAll(cache.get(keyOf('a'))?.body.open(undefined, NEVER) ?? fill.open(undefined, NEVER))).equals(bytes),
  );
});

void t.test('a body of unknown length stays in memory as far as one of known length may', async (t) => {
  const { cache, files } = await opened(t, { memory: { maxObjectBytes: 200_000 } });
  let created = 0;
  files.before = (verb) => {
    if (verb === 'create') created += 1;
  };
  const inMemory = { memory: true, disk: false };
  for (const [sizeBytes, outcome] of [
    [1, { kind: 'stored', tiers: ['memory'] }],
    [190_000, { kind: 'stored', tiers: ['memory'] }],
    [300_000, { kind: 'not_kept', reason: 'too_large' }],
  ] as const) {
    const bytes = bytesOf(sizeBytes);
    t.same(await put(cache, entryOf('a', bytes, { sizeBytes: null }), bytes, inMemory), outcome, `${sizeBytes}`);
    const stored = cache.get(keyOf('a'));
    if (outcome.kind === 'stored') t.equal(stored?.entry.sizeBytes, sizeBytes, 'its length is known then');
    else t.equal(stored, undefined);
  }
  t.equal(created, 1, 'only the last one needed a file');
});

void t.test('a file that is shorter than it should be is sent to nobody', async (t) => {
  const { cache, files } = await opened(t);
  const bytes = bytesOf(2_000_000);
  let path = '';
  files.before = (verb, at) => {
    if (verb === 'create') path = at;
  };
  const fill = cache.fill(entryOf('a', bytes), BOTH);
  const slow = fill.open(undefined, NEVER);
  slow.read(0);
  await writeAll(fill, bytes.subarray(0, 1_900_000));
  await until('its full blocks are in the file', () => statSync(path).size === 28 * BLOCK_BYTES);
  truncateSync(path, 700_001);
  await t.rejects(readAll(slow), { message: /corrupt/ });
  fill.abort(new Error('enough'));
  await until('the file is closed', () => files.openFiles === 0);
});

void t.test('whatever ends a body, its file is closed and removed, and its memory is given back', async (t) => {
  const bytes = bytesOf(400_000);
  const ends: readonly (readonly [what: string, end: (test: TestCache) => Promise<unknown>])[] = [
    ['it is stored', ({ cache }) => put(cache, entryOf('stored', bytes), bytes)],
    [
      'it is aborted',
      async ({ cache }) => {
        const fill = cache.fill(entryOf('aborted', bytes), BOTH);
        await writeAll(fill, bytes.subarray(0, 200_000));
        fill.abort(new Error('the origin went away'));
        await fill.end();
      },
    ],
    ['its hash is wrong', ({ cache }) => put(cache, entryOf('wrong', bytes, { sha256: 'ab'.repeat(32) }), bytes)],
    [
      'it is taken down',
      async ({ cache }) => {
        const fill = cache.fill(entryOf('taken', bytes, { mediaId: mediaIdOf(1) }), BOTH);
        await writeAll(fill, bytes.subarray(0, 200_000));
        await cache.takeDown(mediaIdOf(1));
        await fill.end();
      },
    ],
    [
      'it is read while it arrives',
      async ({ cache }) => {
        const fill = cache.fill(entryOf('read', bytes), BOTH);
        const read = readAll(fill.open(undefined, NEVER));
        await writeAll(fill, bytes);
        await fill.end();
        await read;
      },
    ],
    [
      'nobody wants it on disk',
      async ({ cache }) => {
        const fill = cache.fill(entryOf('nowhere', bytes), { memory: true, disk: false });
        await writeAll(fill, bytes);
        t.same(await fill.end(), { kind: 'not_kept', reason: 'too_large' });
      },
    ],
  ];
  for (const [what, end] of ends) {
    const folder = t.testdir();
    const test = await openTestCache(
      cacheConfig(folder, { fill: { memoryBytes: 300_000 } }),
      new FaultyFiles(),
      new ManualClock(),
    );
    await end(test);
    await until(`${what}: no file is open`, () => test.files.openFiles === 0);
    t.match(test.cache.stats(), { fills: 0 }, what);
    await untilAsync(`${what}: no file is left`, async () => (await filesBelow(`${folder}/spool`)).size === 0);
    // A body that fits the memory of arriving bodies exactly needs no file.
    let created = 0;
    test.files.before = (verb) => {
      if (verb === 'create') created += 1;
    };
    const small = cache150();
    const fill = test.cache.fill(entryOf('small', small), { memory: true, disk: false });
    const other = test.cache.fill(entryOf('other', small), { memory: true, disk: false });
    await writeAll(fill, small);
    await writeAll(other, small);
    await fill.end();
    await other.end();
    t.equal(created, 0, `${what}: its memory was given back`);
    await test.cache.close();
  }

  function cache150(): Buffer {
    return bytesOf(150_000, 3);
  }
});
