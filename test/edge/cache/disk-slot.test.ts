/** An edge whose disk tier cannot be opened: it works without it, says so, and takes it up again by itself. */
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { FolderInUse } from '../../../edge/cache/disk/lock.js';
import { ManualClock } from '../../kit/clock.js';
import {
  bytesOf,
  cacheConfig,
  diskFull,
  entryOf,
  FaultyFiles,
  keyOf,
  mediaIdOf,
  openTestCache,
  put,
  type TestCache,
} from '../../kit/edge/cache.js';
import { openTestEdge } from '../../kit/edge/edge.js';
import { mediaScript } from '../../kit/edge/scripted-origin.js';
import { json, sendRequest } from '../../kit/http/request.js';
import { until } from '../../kit/until.js';

const ON_DISK = { memory: false, disk: true };
const RETRY_MS = 10_000;

const store = ({ cache }: Pick<TestCache, 'cache'>, n: number) =>
  put(cache, entryOf(`/${n}`, bytesOf(1_000, n), { mediaId: mediaIdOf(n) }), bytesOf(1_000, n), ON_DISK);

const has = ({ cache }: Pick<TestCache, 'cache'>, n: number): boolean => cache.peek(keyOf(`/${n}`)) !== undefined;

async function retry({ cache, clock }: TestCache): Promise<void> {
  clock.advance(RETRY_MS);
  await until('the disk tier is in use', () => cache.diskState === 'in_use');
}

const fails = (code: string): Error => Object.assign(new Error(`${code}: it fails`), { code });

const WAYS: readonly (readonly [what: string, (files: FaultyFiles) => void])[] = [
  [
    'is read-only',
    (files) => {
      files.before = () => {
        throw fails('EROFS');
      };
    },
  ],
  [
    'is forbidden',
    (files) => {
      files.before = () => {
        throw fails('EACCES');
      };
    },
  ],
  [
    'is full for folders',
    (files) => {
      files.before = (verb) => {
        if (verb === 'makeFolder') throw diskFull();
      };
    },
  ],
  [
    'is full for a new index',
    (files) => {
      files.free = 100_000;
    },
  ],
];

for (const [what, fail] of WAYS) {
  void t.test(`a cache whose disk ${what} works without it, and with it later`, async (t) => {
    const files = new FaultyFiles();
    fail(files);
    const test = await openTestCache(cacheConfig(join(t.testdir(), 'cache')), files);
    t.teardown(() => test.cache.close());
    t.equal(test.cache.diskState, 'away');
    t.equal(await test.sample('cache_disk_in_use'), 0);
    await t.rejects(test.cache.probe());
    t.same(await store(test, 1), { kind: 'not_kept', reason: 'no_tier' });
    t.equal(await test.cache.takeDown(mediaIdOf(1)), 0, 'takedowns are applied');
    t.equal(await test.cache.purge({ all: true }), 0);
    t.equal(test.lines.filter(({ level }) => level === 'error').length, 1, 'it is logged once');

    test.clock.advance(RETRY_MS);
    await new Promise(setImmediate);
    t.equal(test.cache.diskState, 'away', 'as long as it is so');
    files.before = () => undefined;
    files.free = undefined;
    await until('another try', () => {
      test.clock.advance(RETRY_MS);
      return test.cache.diskState === 'in_use';
    });
    await test.cache.probe();
    t.equal(await test.sample('cache_disk_in_use'), 1);
    t.match(await store(test, 1), { kind: 'stored', tiers: ['disk'] });
    t.ok(has(test, 1));
  });
}

void t.test('a disk tier that comes later is empty, whatever was taken down meanwhile', async (t) => {
  const root = t.testdir();
  const folder = join(root, 'cache');
  const before = await openTestCache(cacheConfig(folder));
  for (const n of [1, 2]) await store(before, n);
  before.cache.noteApplied({ journal: 'j', seq: 1, mark: 'm1' });
  await before.cache.close();
  renameSync(folder, `${folder}-away`);
  writeFileSync(folder, 'no folder');

  const test = await openTestCache(cacheConfig(folder));
  t.equal(test.cache.diskState, 'away');
  await test.cache.takeDown(mediaIdOf(1));
  test.cache.noteApplied({ journal: 'j', seq: 2, mark: 'm2' });
  rmSync(folder);
  renameSync(`${folder}-away`, folder);
  await retry(test);
  t.same([has(test, 1), has(test, 2)], [false, false]);
  await store(test, 3);
  await test.cache.close();

  const again = await openTestCache(cacheConfig(folder));
  t.teardown(() => again.cache.close());
  t.same([has(again, 1), has(again, 2), has(again, 3)], [false, false, true]);
  t.match(again.cache.appliedBefore, { kind: 'applied', position: { seq: 2, mark: 'm2' } });
});

void t.test('a folder that is in use already is a mistake, which ends the start', async (t) => {
  const config = cacheConfig(join(t.testdir(), 'cache'));
  const { cache } = await openTestCache(config);
  t.teardown(() => cache.close());
  await t.rejects(openTestCache(config), FolderInUse);
});

void t.test('a cache that is closed while its disk is away does not try again', async (t) => {
  const files = new FaultyFiles();
  files.before = () => {
    throw fails('EIO');
  };
  const clock = new ManualClock();
  const { cache } = await openTestCache(cacheConfig(join(t.testdir(), 'cache')), files, clock);
  await cache.close();
  t.equal(clock.pending, 0);
});

void t.test('an edge without its disk tier serves from memory, and /readyz says so', async (t) => {
  const folder = t.testdir({ cache: 'no folder' });
  const edge = await openTestEdge(folder, { cache: 'disk: { size: 10MB, min_free: 0 }' });
  t.teardown(() => edge.close());
  const bytes = Buffer.from('the bytes');
  edge.origin.on('/v1/media/01J9ZC8GZ000000000000000A0', mediaScript({ bytes, maxAgeSeconds: 100 }));
  const get = () =>
    sendRequest(`${edge.url}/v1/media/01J9ZC8GZ000000000000000A0`, { headers: { authorization: 'Bearer reader' } });
  t.equal((await get()).status, 200);
  t.match((await get()).headers['cache-status'], /hit; .*detail=memory/);
  const ready = await sendRequest(`${edge.url}/readyz`);
  t.equal(ready.status, 503);
  t.match(json(ready), { failed: ['cache'], disk_tier: 'away' });
  rmSync(join(folder, 'cache'));
  edge.clock.advance(RETRY_MS);
  const tier = async (): Promise<unknown> => json(await sendRequest(`${edge.url}/readyz`))['disk_tier'];
  while ((await tier()) !== 'in_use') edge.clock.advance(1_000);
  t.match(json(await sendRequest(`${edge.url}/readyz`))['failed'], []);
});
