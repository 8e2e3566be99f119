/** The disk of an edge's cache that is full or read-only when the edge starts: a small tmpfs, where this user may mount one. */
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { bytesOf, cacheConfig, entryOf, keyOf, openTestCache, put, type TestCache } from '../../kit/edge/cache.js';
import { onSmallDisk } from '../../kit/small-disk.js';
import { until } from '../../kit/until.js';

const MIB = 2 ** 20;
const ON_DISK = { memory: false, disk: true };
const store = ({ cache }: TestCache, n: number) =>
  put(cache, entryOf(`/${n}`, bytesOf(20_000, n)), bytesOf(20_000, n), ON_DISK);
const has = ({ cache }: TestCache, n: number): boolean => cache.peek(keyOf(`/${n}`)) !== undefined;

async function retried(test: TestCache): Promise<void> {
  await until('the disk tier is in use', () => {
    test.clock.advance(10_000);
    return test.cache.diskState === 'in_use';
  });
}

function fill(path: string): void {
  for (const bytes of [Buffer.alloc(MIB), Buffer.alloc(4_096)]) {
    try {
      for (;;) writeFileSync(path, bytes, { flag: 'a' });
    } catch {
      // The disk has less room than this.
    }
  }
}

for (const known of [false, true]) {
  void t.test(`an edge starts on a full disk, ${known ? 'with' : 'without'} a cache of an earlier run`, (t) =>
    onSmallDisk(t, 8 * MIB, async (disk) => {
      const config = cacheConfig(join(disk, 'cache'));
      if (known) {
        const before = await openTestCache(config);
        t.equal((await store(before, 1)).kind, 'stored');
        await before.cache.close();
      }
      fill(join(disk, 'pad'));
      const test = await openTestCache(config);
      t.not((await store(test, 2)).kind, 'stored');
      rmSync(join(disk, 'pad'));
      if (test.cache.diskState === 'away') await retried(test);
      t.equal((await store(test, 3)).kind, 'stored');
      await test.cache.close();
      const again = await openTestCache(config);
      t.ok(has(again, 3));
      await again.cache.close();
    }),
  );
}

void t.test('an edge starts on a read-only disk, and takes the disk up again when it can', (t) =>
  onSmallDisk(t, 8 * MIB, async (disk) => {
    const config = cacheConfig(join(disk, 'cache'));
    const before = await openTestCache(config);
    await store(before, 1);
    await before.cache.close();
    const remount = (how: string): unknown =>
      execFileSync('mount', ['-o', `remount,${how}`, disk], { stdio: 'ignore' });
    remount('ro');
    const test = await openTestCache(config);
    t.equal(test.cache.diskState, 'away');
    t.same(await store(test, 2), { kind: 'not_kept', reason: 'no_tier' });
    test.clock.advance(10_000);
    remount('rw');
    await retried(test);
    t.same([has(test, 1), has(test, 2)], [false, false], 'it starts empty');
    t.equal((await store(test, 3)).kind, 'stored');
    await test.cache.close();
  }),
);
