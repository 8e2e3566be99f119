import { readdirSync, statSync } from 'node:fs';
import { cp, mkdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import type { EdgeCache, FillOutcome, Stored, Tiers } from '../../../edge/cache/cache.js';
import type { CacheConfig } from '../../../edge/cache/config.js';
import { isMissing } from '../../../edge/cache/disk/files.js';
import { type DiskRecord, decodeRecord, encodeRecord } from '../../../edge/cache/disk/record.js';
import { KeyIndex } from '../../../edge/cache/key-index.js';
import { ENTRY_VERSION, type Entry } from '../../../edge/entry.js';
import { ManualClock } from '../../kit/clock.js';
import {
  bytesOf,
  cacheConfig,
  diskFull,
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

const STORED_BOTH: FillOutcome = { kind: 'stored', tiers: ['memory', 'disk'] };
const ON_DISK: Tiers = { memory: false, disk: true };

type Sections = Parameters<typeof cacheConfig>[1];

async function opened(t: Test, sections: Sections = {}, files?: FaultyFiles, clock?: ManualClock): Promise<TestCache> {
  const test = await openTestCache(cacheConfig(t.testdir(), sections), files, clock);
  t.teardown(() => test.cache.close());
  return test;
}

/** Opens a copy of the folder as it is now, as after a kill -9. */
async function reopened(t: Test, config: CacheConfig, name: string, files?: FaultyFiles): Promise<TestCache> {
  const folder = join(dirname(config.folder), `${t.name.replace(/\W/g, '')}-${name}`);
  await cp(config.folder, folder, { recursive: true });
  const test = await openTestCache({ ...config, folder }, files);
  t.teardown(() => test.cache.close());
  return test;
}

function storedIn(cache: EdgeCache, key: string): Stored {
  const stored = cache.get(keyOf(key));
  if (stored === undefined) throw new Error(`${key} is not stored`);
  return stored;
}

async function read(cache: EdgeCache, key: string): Promise<Buffer | undefined> {
  const stored = cache.get(keyOf(key));
  return stored === undefined ? undefined : readAll(stored.body.open(undefined, NEVER));
}

/** The path of the file with these bytes. */
async function contentPath(folder: string, bytes: Buffer): Promise<string> {
  const digest = entryOf('', bytes).sha256 ?? '';
  for (const path of (await filesBelow(join(folder, 'content'))).keys()) {
    if (path.replaceAll('/', '').endsWith(digest)) return path;
  }
  throw new Error('there is no such content file');
}

async function contentFiles(folder: string): Promise<number> {
  return (await filesBelow(join(folder, 'content'))).size;
}

/** All at one instant: nothing of this process writes or removes meanwhile that had not begun before. */
function bytesBelow(folder: string): number {
  try {
    const paths = readdirSync(folder).map((name) => join(folder, name));
    return paths.reduce((sum, path) => {
      const found = statSync(path, { throwIfNoEntry: false });
      if (found === undefined) return sum;
      return sum + (found.isDirectory() ? bytesBelow(path) : found.size);
    }, 0);
  } catch (thrown) {
    // Its removal had begun.
    if (isMissing(thrown)) return 0;
    throw thrown;
  }
}

/** Waits until there are so many content files. */
async function untilFiles(folder: string, files: number): Promise<void> {
  for (let looks = 0; (await contentFiles(folder)) !== files; looks += 1) {
    if (looks > 2_000) throw new Error(`there were never ${files} files`);
  }
}

const TIERS: readonly { readonly name: string; readonly sections: Sections; readonly tier: 'memory' | 'disk' }[] = [
  { name: 'memory alone', sections: { disk: { sizeBytes: 0 } }, tier: 'memory' },
  { name: 'disk alone', sections: { memory: { sizeBytes: 0 } }, tier: 'disk' },
  { name: 'memory over disk', sections: {}, tier: 'memory' },
];

for (const { name, sections, tier } of TIERS) {
  void t.test(`the contract of the cache: ${name}`, async (t) => {
    const clock = new ManualClock();
    const { cache } = await opened(t, sections, undefined, clock);

    await t.test('a stored response is found by its key alone, and read whole or by range', async (t) => {
      const bytes = bytesOf(150_000);
      const headers = [
        ['content-type', 'text/plain; charset="utf-8"'],
        ['x-twice', '1'],
        ['x-twice', 'ü'],
      ] as const;
      const entry = entryOf('/found', bytes, { headers, selectedBy: { accept: 'image/webp' }, mediaId: mediaIdOf(7) });
      t.equal((await put(cache, entry, bytes)).kind, 'stored');
      const stored = cache.get(keyOf('/found'));
      t.same(stored?.entry, entry);
      t.equal(stored?.tier, tier);
      t.equal(stored?.body.sizeBytes, 150_000);
      t.equal(await stored?.body.ensure(NEVER), 'ready');
      t.ok((await read(cache, '/found'))?.equals(bytes));
      for (const span of [
        { first: 0, last: 0 },
        { first: 65_530, last: 131_090 },
        { first: 149_999, last: 149_999 },
      ]) {
        const range = await readAll(storedIn(cache, '/found').body.open(span, NEVER));
        t.ok(range.equals(bytes.subarray(span.first, span.last + 1)), `${span.first}-${span.last}`);
      }
      t.equal(cache.get(keyOf('/foun')), undefined);
      t.equal(cache.peek(keyOf('/found'))?.tier, tier);
    });

    await t.test('an empty body is stored too', async (t) => {
      t.equal((await put(cache, entryOf('/empty', Buffer.alloc(0), { status: 301 }), Buffer.alloc(0))).kind, 'stored');
      const stored = cache.get(keyOf('/empty'));
      t.equal(stored?.entry.status, 301);
      t.equal(stored?.body.whole?.length, 0);
      t.equal((await read(cache, '/empty'))?.length, 0);
    });

    await t.test('a newer response replaces an older one, even if it cannot be stored', async (t) => {
      const old = bytesOf(1_000, 1);
      const young = bytesOf(1_200, 2);
      await put(cache, entryOf('/replaced', old), old);
      await put(cache, entryOf('/replaced', young), young);
      t.ok((await read(cache, '/replaced'))?.equals(young));
      t.same(await put(cache, entryOf('/replaced', old), old, { memory: false, disk: false }), {
        kind: 'not_kept',
        reason: 'no_tier',
      });
      t.equal(cache.get(keyOf('/replaced')), undefined);
    });

    await t.test('a newer head keeps the body', async (t) => {
      const bytes = bytesOf(500, 3);
      const entry = entryOf('/refreshed', bytes);
      await put(cache, entry, bytes);
      const headers = [['etag', '"y"']] as const;
      t.equal(cache.refresh({ ...entry, headers, staleAt: 99, sizeBytes: null, sha256: null }), true);
      t.same(cache.get(keyOf('/refreshed'))?.entry, { ...entry, headers, staleAt: 99 });
      t.ok((await read(cache, '/refreshed'))?.equals(bytes));
      t.equal(cache.refresh(entryOf('/unknown', bytes)), false);
    });

    await t.test('variants are found by their primary key', async (t) => {
      const bytes = bytesOf(10);
      for (const variant of ['webp', 'jpeg']) {
        const changes = { primaryKey: '/thumb', selectedBy: { accept: variant } };
        await put(cache, entryOf(`/thumb#${variant}`, bytes, changes), bytes);
      }
      const variants = (): readonly string[] =>
        cache
          .variantsOf('/thumb')
          .map(({ key }) => key)
          .sort();
      t.same(variants(), ['/thumb#jpeg', '/thumb#webp']);
      cache.drop(keyOf('/thumb#jpeg'), 'invalidated');
      t.same(variants(), ['/thumb#webp']);
      t.same(cache.variantsOf('/thum'), []);
    });

    await t.test('no entry is found past its deleteAt', async (t) => {
      const bytes = bytesOf(10);
      const changes = { deleteAt: clock.now() + 1_000, primaryKey: '/sunset' };
      await put(cache, entryOf('/sunset', bytes, changes), bytes);
      clock.advance(999);
      t.not(cache.peek(keyOf('/sunset')), undefined);
      clock.advance(1);
      t.same(cache.variantsOf('/sunset'), []);
      t.equal(cache.get(keyOf('/sunset')), undefined);
      t.equal(cache.peek(keyOf('/sunset')), undefined);
    });

    await t.test('a takedown removes everything that shows the media, and nothing else', async (t) => {
      const bytes = bytesOf(2_000, 4);
      for (const key of ['/t/1', '/t/1/thumb', '/t/1/thumb2']) {
        await put(cache, entryOf(key, bytes, { mediaId: mediaIdOf(1) }), bytes);
      }
      await put(cache, entryOf('/t/2', bytes, { mediaId: mediaIdOf(2) }), bytes);
      t.equal(await cache.takeDown(mediaIdOf(1)), 3);
      for (const key of ['/t/1', '/t/1/thumb', '/t/1/thumb2']) t.equal(cache.get(keyOf(key)), undefined, key);
      t.ok((await read(cache, '/t/2'))?.equals(bytes), 'the same bytes under another id stay');
      t.equal(await cache.takeDown(mediaIdOf(1)), 0);
    });

    await t.test('a takedown ends its readers', async (t) => {
      const bytes = bytesOf(200_000, 5);
      await put(cache, entryOf('/broken', bytes, { mediaId: mediaIdOf(3) }), bytes);
      const stream = storedIn(cache, '/broken').body.open(undefined, NEVER);
      const broken = new Promise((resolve) => stream.once('error', resolve));
      await until('the reader has started', () => stream.readableLength > 0 || stream.read(0) !== null);
      await cache.takeDown(mediaIdOf(3));
      t.match(await broken, { name: 'BodyLost', reason: 'taken_down' });
    });

    await t.test('a purge removes what starts with a prefix, or everything', async (t) => {
      const bytes = bytesOf(3_000, 6);
      for (const key of ['/p/a', '/p/b', '/q/a']) await put(cache, entryOf(key, bytes), bytes);
      t.equal(await cache.purge({ prefix: '/p/' }), 2);
      t.equal(cache.get(keyOf('/p/a')), undefined);
      t.ok((await read(cache, '/q/a'))?.equals(bytes));
      t.ok((await cache.purge({ all: true })) >= 1);
      t.equal(cache.get(keyOf('/q/a')), undefined);
      const { memory, disk } = cache.stats();
      t.match(
        [memory, disk],
        [
          { entries: 0, usedBytes: 0 },
          { entries: 0, usedBytes: 0 },
        ],
      );
      t.equal((await put(cache, entryOf('/q/a', bytes), bytes)).kind, 'stored');
      t.ok((await read(cache, '/q/a'))?.equals(bytes), 'and stores again');
    });

    await t.test('a body that is too large for every tier is not stored', async (t) => {
      const bytes = bytesOf(200_001);
      const outcome = await put(cache, entryOf('/large', bytes), bytes);
      if (tier === 'memory' && cache.stats().disk.capacityBytes === 0) {
        t.same(outcome, { kind: 'not_kept', reason: 'too_large' });
      } else t.same(outcome, { kind: 'stored', tiers: ['disk'] });
    });

    await t.test('the probe writes to it, and it may be closed twice', async () => {
      await cache.probe();
      await cache.close();
      await cache.close();
    });
  });
}

void t.test('the limits are kept under concurrent fills', async (t) => {
  const sections = {
    memory: { sizeBytes: 300_000, maxObjectBytes: 60_000 },
    disk: { sizeBytes: 2_000_000, fillRoomBytes: 1_000_000, maxObjectBytes: 400_000 },
    fill: { memoryBytes: 200_000 },
  };
  for (const policy of ['gdsf', 's3-fifo', 'w-tinylfu'] as const) {
    const { cache } = await opened(t, { ...sections, disk: { ...sections.disk, policy } });
    const folder = t.testdirName;
    const watching = new AbortController();
    let mostBytes = 0;
    const watch = (async () => {
      while (!watching.signal.aborted) {
        await new Promise(setImmediate);
        mostBytes = Math.max(mostBytes, bytesBelow(join(folder, 'content')) + bytesBelow(join(folder, 'spool')));
        const { memory, disk } = cache.stats();
        if (memory.usedBytes > memory.capacityBytes || disk.usedBytes > disk.capacityBytes)
          throw new Error('a tier exceeds its capacity');
      }
    })();
    let next = 0;
    let kept = 0;
    const worker = async (): Promise<void> => {
      for (let n = next++; n < 150; n = next++) {
        const bytes = bytesOf((n * 7_919) % 150_000, n);
        const outcome = await put(cache, entryOf(`/${n % 120}`, bytes), bytes);
        if (outcome.kind === 'stored' && outcome.tiers.includes('disk')) kept += 1;
      }
    };
    await Promise.all(Array.from({ length: 6 }, worker));
    watching.abort();
    await watch;
    t.ok(mostBytes <= 2_000_000, `${policy}: at most ${mostBytes} bytes were on disk`);
    t.ok(kept > 20, `${policy}: ${kept} responses were stored`);
    for (let n = 0; n < 120; n += 1) {
      const stored = cache.get(keyOf(`/${n}`));
      if (stored !== undefined) await readAll(stored.body.open(undefined, NEVER));
    }
    await cache.close();
  }
});

void t.test('incomplete responses', async (t) => {
  const limits = { sizeBytes: 60_000, maxObjectBytes: 20_000, spansMax: 3 };
  const { cache, clock } = await opened(t, { disk: { sizeBytes: 0 }, parts: limits });
  const { incomplete } = cache;
  const strong = (etag: string) => ({ headers: [['etag', etag]] as const });
  const find = (key: string) => incomplete.find(key, () => true);

  await t.test('combine what was written under one validator, in any order', async (t) => {
    const bytes = bytesOf(5_000);
    const entry = entryOf('/ranges', bytes, strong('"a"'));
    const writer = incomplete.open(entry);
    for (const [first, end] of [
      [4_000, 4_500],
      [100, 900],
      [500, 1_500],
      [4_500, 4_600],
      [90, 1_600],
    ] as const) {
      t.ok(writer?.write(first, bytes.subarray(first, end)));
    }
    t.same(find('/ranges')?.spans, [
      { first: 90, last: 1_599 },
      { first: 4_000, last: 4_599 },
    ]);
    for (const span of [
      { first: 90, last: 1_599 },
      { first: 899, last: 901 },
      { first: 4_499, last: 4_500 },
    ]) {
      const read = await readAll(find('/ranges')?.body.open(span, NEVER) ?? Readable.from([]));
      t.ok(read.equals(bytes.subarray(span.first, span.last + 1)));
    }
    await t.rejects(readAll(find('/ranges')?.body.open({ first: 1_590, last: 1_600 }, NEVER) ?? Readable.from([])));
    incomplete.open(entryOf('/ranges', bytes, strong('"b"')))?.write(0, bytes.subarray(0, 10));
    t.same(find('/ranges')?.spans, [{ first: 0, last: 9 }], 'another validator replaces what was stored');
    t.notOk(writer?.write(200, bytes.subarray(200, 300)), 'and its writer can write no more');
  });

  await t.test('stay within their limits; the least recently used is evicted first', async (t) => {
    const bytes = bytesOf(30_000);
    const writer = incomplete.open(entryOf('/wide', bytes, strong('"a"')));
    t.ok([0, 100, 200].every((at) => writer?.write(at, bytes.subarray(at, at + 10))));
    t.notOk(writer?.write(300, bytes.subarray(300, 310)), 'no fourth separate range');
    t.ok(writer?.write(10, bytes.subarray(10, 100)), 'but one that joins two of them');
    t.notOk(writer?.write(1_000, bytes.subarray(1_000, 25_000)), 'and no more bytes of one response than allowed');
    for (let n = 0; n < 20; n += 1) {
      incomplete.open(entryOf(`/n${n}`, bytes, strong('"a"')))?.write(0, bytes.subarray(0, 9_000));
      const { usedBytes, capacityBytes } = cache.stats().incomplete;
      t.ok(usedBytes <= capacityBytes);
    }
    t.notOk(find('/n0'));
    t.ok(find('/n19'));
    t.ok(cache.stats().incomplete.evictions >= 14);
  });

  await t.test('are removed past deleteAt, by a takedown, and when the complete response is stored', async (t) => {
    const bytes = bytesOf(9_000);
    const ends = { ...strong('"a"'), deleteAt: clock.now() + 1_000 };
    incomplete.open(entryOf('/ends', bytes, ends))?.write(0, bytes.subarray(0, 100));
    incomplete
      .open(entryOf('/taken', bytes, { ...strong('"a"'), mediaId: mediaIdOf(5) }))
      ?.write(0, bytes.subarray(0, 9));
    incomplete.open(entryOf('/whole', bytes, strong('"a"')))?.write(0, bytes.subarray(0, 100));
    t.ok(find('/ends') && find('/whole'));
    const reading = find('/taken')?.body.open({ first: 0, last: 8 }, NEVER);
    clock.advance(1_000);
    t.notOk(find('/ends'));
    t.equal(await cache.takeDown(mediaIdOf(5)), 1);
    t.notOk(find('/taken'));
    await t.rejects(readAll(reading ?? Readable.from([])), /taken_down/);
    await put(cache, entryOf('/whole', bytes), bytes);
    t.notOk(find('/whole'));
  });
});

void t.test('a hit on disk copies no body into memory that the rules keep out', async (t) => {
  const mayPromote = (entry: Entry): boolean => entry.primaryKey !== '/kept-out';
  const { cache, sample } = await openTestCache(cacheConfig(t.testdir()), undefined, undefined, mayPromote);
  t.teardown(() => cache.close());
  const bytes = bytesOf(1_000);
  for (const key of ['/kept-out', '/a']) await put(cache, entryOf(key, bytes), bytes, ON_DISK);
  t.equal(cache.get(keyOf('/kept-out'))?.tier, 'disk');
  cache.get(keyOf('/a'));
  await until('the other is in memory', () => cache.get(keyOf('/a'))?.tier === 'memory');
  t.equal(cache.get(keyOf('/kept-out'))?.tier, 'disk');
  t.equal(await sample('cache_promotions_total'), 1);
});

void t.test('a hit on disk copies the body into memory, once', async (t) => {
  const { cache, sample, files } = await opened(t);
  const bytes = bytesOf(100_000);
  await put(cache, entryOf('/a', bytes), bytes, ON_DISK);
  let opens = 0;
  files.before = (verb) => {
    if (verb === 'open') opens += 1;
  };
  const stored = cache.get(keyOf('/a'));
  t.equal(stored?.tier, 'disk');
  for (let n = 0; n < 10; n += 1) cache.get(keyOf('/a'));
  t.equal(await stored?.body.ensure(NEVER), 'ready');
  t.ok(stored?.body.whole?.equals(bytes), 'a small body is read in one piece');
  await until('it is in memory', () => cache.get(keyOf('/a'))?.tier === 'memory');
  t.equal(opens, 1, 'read once for everybody');
  t.equal(await sample('cache_promotions_total'), 1);
  const large = bytesOf(250_000);
  await put(cache, entryOf('/large', large), large, ON_DISK);
  cache.get(keyOf('/large'));
  t.ok((await read(cache, '/large'))?.equals(large));
  t.equal(cache.get(keyOf('/large'))?.tier, 'disk', 'a body that is too large for memory stays on disk');
});

void t.test('a body that is taken down while it is copied into memory does not come back', async (t) => {
  const { cache, files } = await opened(t);
  const bytes = bytesOf(100_000);
  await put(cache, entryOf('/a', bytes, { mediaId: mediaIdOf(1) }), bytes, ON_DISK);
  let go = (): void => undefined;
  const reached = new Promise<void>((resolve) => {
    files.before = (verb) => {
      if (verb !== 'read') return undefined;
      resolve();
      return new Promise<void>((release) => {
        go = release;
      });
    };
  });
  cache.get(keyOf('/a'));
  await reached;
  await cache.takeDown(mediaIdOf(1));
  go();
  await cache.close();
  t.equal(cache.stats().memory.entries, 0);
});

void t.test('the same bytes under several keys are one file, which stays as long as a key needs it', async (t) => {
  const { cache } = await opened(t);
  const folder = t.testdirName;
  const bytes = bytesOf(5_000);
  for (const key of ['/public', '/private']) await put(cache, entryOf(key, bytes), bytes, ON_DISK);
  t.equal(await contentFiles(folder), 1);
  cache.drop(keyOf('/public'), 'invalidated');
  t.ok((await read(cache, '/private'))?.equals(bytes));
  cache.drop(keyOf('/private'), 'invalidated');
  await put(cache, entryOf('/again', bytes), bytes, ON_DISK);
  t.ok((await read(cache, '/again'))?.equals(bytes), 'even if it is needed again at once');
  await cache.takeDown(mediaIdOf(1));
  t.equal(await contentFiles(folder), 1);
  cache.drop(keyOf('/again'), 'invalidated');
  await untilFiles(folder, 0);
});

void t.test('the files in the folder are accessible to this user only', async (t) => {
  const { cache } = await opened(t);
  const bytes = bytesOf(5_000);
  await put(cache, entryOf('/a', bytes), bytes);
  await cache.close();
  for (const path of (await filesBelow(t.testdirName)).keys()) {
    const { mode } = await stat(path);
    if (!path.endsWith('-lock')) t.equal(mode & 0o077, 0, path);
    t.equal((await stat(dirname(path))).mode & 0o077 & (dirname(path) === t.testdirName ? 0 : 0o777), 0, dirname(path));
  }
});

void t.test('a folder is locked by one process, and taken over when that has ended', async (t) => {
  const { cache } = await opened(t);
  const config = cacheConfig(t.testdirName);
  await t.rejects(openTestCache(config), /in use already/);
  await cache.close();
  const lock = join(config.folder, 'lock');
  await writeFile(lock, `${process.ppid} `);
  await t.rejects(openTestCache(config), {
    message: `the cache folder ${config.folder} is in use by process ${process.ppid}`,
  });
  await writeFile(lock, `${process.ppid} 1`);
  await (await openTestCache(config)).cache.close();
  for (const ended of ['999999999 5', String(process.pid), 'nonsense', '']) {
    await writeFile(lock, ended);
    await (await openTestCache(config)).cache.close();
  }
  await t.rejects(stat(lock), { code: 'ENOENT' }, 'and the lock is removed');
});

void t.test('with the admission second_hit, a response that is fetched once is not written', async (t) => {
  const { cache, files } = await opened(t, { disk: { admission: 'second_hit' } });
  let created = 0;
  files.before = (verb) => {
    if (verb === 'create') created += 1;
  };
  const bytes = bytesOf(5_000);
  t.same(await put(cache, entryOf('/a', bytes), bytes, ON_DISK), { kind: 'not_kept', reason: 'not_admitted' });
  t.equal(created, 0);
  t.same(await put(cache, entryOf('/a', bytes), bytes, ON_DISK), { kind: 'stored', tiers: ['disk'] });
  t.equal(cache.stats().disk.refused, 1);
  t.same(
    await put(cache, entryOf('/b', bytes), bytes, { ...ON_DISK, admission: 'always' }),
    { kind: 'stored', tiers: ['disk'] },
    'unless a rule says otherwise',
  );
});

void t.test('a restart', async (t) => {
  await t.test('finds all entries from the start, and recovers them soon after', async (t) => {
    const config = cacheConfig(`${t.testdir()}/cache`);
    const { cache } = await openTestCache(config);
    const store = async (n: number): Promise<void> => {
      const bytes = bytesOf(n, n);
      await put(cache, entryOf(`/${n}`, bytes, { mediaId: mediaIdOf(n) }), bytes, ON_DISK);
    };
    await Promise.all(Array.from({ length: 60 }, (_, n) => store(n)));
    await cache.takeDown(mediaIdOf(0));
    const again = await reopened(t, config, 'killed');
    t.equal(again.cache.recovered, false);
    t.equal(again.cache.get(keyOf('/0')), undefined, 'except for what was taken down');
    const early = storedIn(again.cache, '/59');
    const takenDown = again.cache.takeDown(mediaIdOf(5));
    const replaced = put(again.cache, entryOf('/6', bytesOf(9)), bytesOf(9), ON_DISK);
    t.equal(again.cache.recovered, false, 'all this before recovery has started');
    t.ok((await readAll(early.body.open(undefined, NEVER))).equals(bytesOf(59, 59)));
    t.equal(await takenDown, 1);
    t.equal((await replaced).kind, 'stored');
    await until('recovery has ended', () => again.cache.recovered);
    t.equal(again.cache.get(keyOf('/5')), undefined, 'a takedown wins over recovery');
    t.match(again.cache.stats(), { disk: { entries: 58 } });
    for (const n of [1, 6, 30, 59]) {
      const expected = n === 6 ? bytesOf(9) : bytesOf(n, n);
      t.ok((await read(again.cache, `/${n}`))?.equals(expected), `/${n}`);
    }
    await cache.close();
    await again.cache.close();
  });

  await t.test('drops damaged contents before a byte of them is sent', async (t) => {
    const config = cacheConfig(`${t.testdir()}/cache`, { fill: { wholeReadBytes: 10_000 } });
    const { cache } = await openTestCache(config);
    const cases = ['rotten', 'short', 'long', 'missing', 'sound'] as const;
    for (const [at, name] of cases.entries()) {
      for (const size of [8_000, 150_000]) {
        const bytes = bytesOf(size, at);
        await put(cache, entryOf(`/${name}/${size}`, bytes), bytes, ON_DISK);
        await put(cache, entryOf(`/${name}/${size}/twin`, bytes), bytes, ON_DISK);
      }
    }
    await cache.close();
    for (const [at, name] of cases.entries()) {
      for (const size of [8_000, 150_000]) {
        const path = await contentPath(config.folder, bytesOf(size, at));
        const whole = await readFile(path);
        if (name === 'rotten') await writeFile(path, whole.fill(whole[100] === 1 ? 2 : 1, 100, 101));
        if (name === 'short') await truncate(path, size - 1);
        if (name === 'long') await writeFile(path, Buffer.concat([whole, Buffer.from('x')]));
        if (name === 'missing') await rm(path);
      }
    }
    for (const way of ['ensure', 'open'] as const) {
      const again = await reopened(t, config, way);
      for (const name of cases) {
        for (const size of [8_000, 150_000]) {
          const { body } = storedIn(again.cache, `/${name}/${size}`);
          const outcome =
            way === 'ensure'
              ? await body.ensure(NEVER)
              : await readAll(body.open({ first: 0, last: 9 }, NEVER)).then(
                  () => 'ready',
                  () => 'lost',
                );
          t.equal(outcome, name === 'sound' ? 'ready' : 'lost', `${way} ${name} ${size}`);
          for (const key of [`/${name}/${size}`, `/${name}/${size}/twin`]) {
            t.equal(again.cache.get(keyOf(key)) !== undefined, name === 'sound', `${key} after that`);
          }
        }
      }
      t.equal(again.cache.stats().corrupt, 16, 'each dropped entry is counted');
      const bytes = bytesOf(8_000, 0);
      await put(again.cache, entryOf('/rotten/8000', bytes), bytes, ON_DISK);
      t.ok((await read(again.cache, '/rotten/8000'))?.equals(bytes), 'and can be stored again');
      await again.cache.close();
    }
  });

  await t.test('removes what a crash left: spool files, and content files without a row', async (t) => {
    const config = cacheConfig(`${t.testdir()}/cache`);
    const { cache } = await openTestCache(config);
    const bytes = bytesOf(5_000);
    await put(cache, entryOf('/a', bytes), bytes, ON_DISK);
    await cache.close();
    const orphan = join(
      dirname(dirname(dirname(await contentPath(config.folder, bytes)))),
      'ab',
      'cd',
      'ef'.repeat(30),
    );
    await mkdir(dirname(orphan), { recursive: true });
    await writeFile(orphan, 'left behind');
    await writeFile(join(config.folder, 'spool', 'half'), 'half a body');
    const again = await openTestCache(config);
    t.teardown(() => again.cache.close());
    t.equal((await filesBelow(join(config.folder, 'spool'))).size, 0);
    await until('the orphan is gone', () => again.lines.some(({ removed }) => removed === 1));
    t.ok((await read(again.cache, '/a'))?.equals(bytes));
    t.equal(await contentFiles(config.folder), 1);
  });

  await t.test('with an index that cannot be read starts empty', async (t) => {
    const config = cacheConfig(`${t.testdir()}/cache`);
    const { cache } = await openTestCache(config);
    const bytes = bytesOf(5_000);
    await put(cache, entryOf('/a', bytes), bytes, ON_DISK);
    await cache.close();
    const path = join(config.folder, 'index');
    const damages: Readonly<Record<string, () => Promise<void>>> = {
      'is no index': () => writeFile(path, Buffer.alloc(20_000, 'no index')),
      'is cut off': async () => truncate(path, (await stat(path)).size - 4_096),
      'ended the process twice while it was read': () => writeFile(`${path}-starts`, '2'),
    };
    for (const [damage, make] of Object.entries(damages)) {
      await make();
      const again = await openTestCache(config);
      t.equal(again.cache.get(keyOf('/a')), undefined, damage);
      t.same(await put(again.cache, entryOf('/a', bytes), bytes, ON_DISK), { kind: 'stored', tiers: ['disk'] });
      t.ok((await read(again.cache, '/a'))?.equals(bytes));
      await again.cache.close();
    }
    const sound = await openTestCache(config);
    t.teardown(() => sound.cache.close());
    t.ok((await read(sound.cache, '/a'))?.equals(bytes), 'a sound one is read');
  });

  await t.test('with a smaller tier keeps only what fits', async (t) => {
    const config = cacheConfig(`${t.testdir()}/cache`);
    const { cache } = await openTestCache(config);
    const store = async (n: number): Promise<void> => {
      const bytes = bytesOf(50_000, n);
      await put(cache, entryOf(`/${n}`, bytes), bytes, ON_DISK);
    };
    await Promise.all(Array.from({ length: 50 }, (_, n) => store(n)));
    await cache.close();
    const again = await openTestCache({
      ...config,
      disk: { ...config.disk, sizeBytes: 2_000_000, fillRoomBytes: 500_000 },
    });
    t.teardown(() => again.cache.close());
    await until('recovery has ended', () => again.cache.recovered);
    const { disk } = again.cache.stats();
    t.ok(disk.usedBytes <= disk.capacityBytes && disk.entries < 50 && disk.entries > 10);
    await untilFiles(config.folder, disk.entries);
  });
});

void t.test('the scrub drops damaged contents and expired entries', async (t) => {
  const clock = new ManualClock();
  const { cache } = await opened(t, { disk: { verifyPerSecondBytes: 1_000_000 } }, undefined, clock);
  const [rotten, sound] = [bytesOf(50_000, 1), bytesOf(50_000, 2)];
  await put(cache, entryOf('/rotten', rotten), rotten, ON_DISK);
  await put(cache, entryOf('/sound', sound), sound, ON_DISK);
  await put(cache, entryOf('/expired', sound, { deleteAt: clock.now() + 10 }), sound, ON_DISK);
  await cache.takeDown(mediaIdOf(1));
  const path = await contentPath(t.testdirName, rotten);
  await writeFile(path, Buffer.alloc(50_000));
  await until('one entry is left', () => {
    clock.advance(100);
    return cache.stats().disk.entries <= 1;
  });
  t.equal(cache.stats().disk.entries, 1);
  t.equal(cache.stats().corrupt, 1);
  t.equal(cache.peek(keyOf('/rotten')), undefined);
  t.not(cache.peek(keyOf('/sound')), undefined);
});

void t.test('a disk without room', async (t) => {
  const bytes = bytesOf(50_000);

  await t.test('below the free-disk floor stores nothing until there is room again', async (t) => {
    const files = new FaultyFiles();
    files.free = 1_000_000;
    const { cache, clock } = await opened(t, { disk: { minFreeBytes: 980_000 } }, files);
    t.same(await put(cache, entryOf('/a', bytes), bytes), { kind: 'stored', tiers: ['memory'] });
    t.same(await put(cache, entryOf('/b', bytes), bytes, ON_DISK), { kind: 'not_kept', reason: 'disk_full' });
    files.free = 900_000;
    await clock.advanceAsync(5_000);
    await cache.probe();
    t.same(await put(cache, entryOf('/b', bytes), bytes, ON_DISK), { kind: 'not_kept', reason: 'disk_full' });
    files.free = 2_000_000;
    await clock.advanceAsync(5_000);
    t.same(await put(cache, entryOf('/b', bytes), bytes, ON_DISK), { kind: 'stored', tiers: ['disk'] });
  });

  await t.test('below the free-disk floor evicts entries in the order of the policy', async (t) => {
    const files = new FaultyFiles();
    files.free = 2_000_000;
    const disk = { minFreeBytes: 1_000_000, policy: 'lru' as const };
    const { cache, clock } = await opened(t, { memory: { sizeBytes: 0 }, disk }, files);
    for (let n = 0; n < 10; n += 1) {
      const each = bytesOf(50_000, n);
      await put(cache, entryOf(`/s${n}`, each), each);
    }
    cache.get(keyOf('/s0'));
    files.free = 900_000;
    await clock.advanceAsync(5_000);
    await until('two entries are gone', () => cache.stats().disk.entries === 8);
    t.ok(cache.get(keyOf('/s0')), 'the most recently used entry stays');
    t.notOk(cache.get(keyOf('/s1')) ?? cache.get(keyOf('/s2')));
    await untilFiles(t.testdirName, 8);
    t.equal(cache.stats().disk.evictions, 2);
    files.free = 1_000_001;
    await clock.advanceAsync(5_000);
    t.equal(cache.stats().disk.entries, 8, 'and no more than needed');
    files.free = 0;
    await clock.advanceAsync(5_000);
    await until('all are gone', () => cache.stats().disk.entries === 0);
  });

  for (const verb of ['create', 'write', 'makeFolder'] as const) {
    await t.test(`that fails to ${verb} is survived and counted, and nothing is left behind`, async (t) => {
      const { cache, files, sample } = await opened(t);
      await cache.probe();
      files.before = (now) => {
        if (now === verb) throw diskFull();
      };
      if (verb === 'create' || verb === 'write')
        await t.rejects(cache.probe(), { code: 'ENOSPC' }, 'and the probe reports it');
      t.same(await put(cache, entryOf('/a', bytes), bytes), { kind: 'stored', tiers: ['memory'] });
      t.same(await put(cache, entryOf('/b', bytes), bytes, ON_DISK), { kind: 'not_kept', reason: 'disk_full' });
      t.match(cache.stats(), { disk: { entries: 0, usedBytes: 0 } });
      t.equal(await sample('cache_disk_errors_total'), 2);
      t.equal((await filesBelow(join(t.testdirName, 'spool'))).size, 0);
      files.before = () => undefined;
      t.same(await put(cache, entryOf('/b', bytes), bytes), STORED_BOTH);
    });
  }
});

void t.test('a body that cannot be moved to its place is not stored, and nothing is left behind', async (t) => {
  const { cache, files, sample } = await opened(t);
  const large = bytesOf(300_000);
  files.before = (verb) => {
    if (verb === 'rename') throw diskFull();
  };
  t.same(await put(cache, entryOf('/a', large), large, ON_DISK), { kind: 'not_kept', reason: 'disk_full' });
  t.match(cache.stats(), { disk: { entries: 0, usedBytes: 0 } });
  t.equal(await sample('cache_disk_errors_total'), 1);
  t.equal((await filesBelow(join(t.testdirName, 'spool'))).size, 0);
});

void t.test('the stored form of an entry', async (t) => {
  const bytes = bytesOf(10);
  const entry = { ...entryOf('/a', bytes, { mediaId: mediaIdOf(4), selectedBy: { accept: 'x' } }), sizeBytes: 10 };
  const record: DiskRecord = { entry, content: 'ab'.repeat(32), weightBytes: 5_000, seq: 3, run: 2 };
  const stored = encodeRecord(record);
  t.same(decodeRecord(stored), record, 'is read back unchanged');
  t.equal(stored[0], ENTRY_VERSION, 'and starts with its version');
  const damaged = stored.map((_, at) => stored.with(at, at === 7 ? 'no id' : Symbol('damage')));
  for (const [at, form] of damaged.entries()) t.equal(decodeRecord(form), undefined, `damaged at ${at}: no record`);
  for (const form of [undefined, null, 'x', {}, [], [...stored, 1], stored.slice(1)]) {
    t.equal(decodeRecord(form), undefined);
  }
});

void t.test('a key index returns the members of each key as a map of sets does', async (t) => {
  const step = fc.record({
    verb: fc.constantFrom('add' as const, 'add' as const, 'remove' as const),
    key: fc.constantFrom('a', 'b'),
    member: fc.constantFrom('1', '2', '3'),
  });
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const index = new KeyIndex<string, string>();
      const sets = new Map<string, Set<string>>();
      for (const { verb, key, member } of steps) {
        index[verb](key, member);
        const members = sets.get(key) ?? new Set();
        sets.set(key, members);
        if (verb === 'add') members.add(member);
        else members.delete(member);
      }
      const all = [...sets.values()].flatMap((members) => [...members]);
      t.strictSame(index.members().toSorted(), all.toSorted());
      for (const [key, members] of sets) t.strictSame(index.membersOf(key), [...members]);
    }),
  );
});
