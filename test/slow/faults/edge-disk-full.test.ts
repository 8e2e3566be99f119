/** The disk tier on a full file system, full also for its index: a small tmpfs, where this user may mount one. */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  bytesOf,
  cacheConfig,
  entryOf,
  FaultyFiles,
  keyOf,
  mediaIdOf,
  NEVER,
  openTestCache,
  put,
  readAll,
} from '../../kit/edge/cache.js';
import { onSmallDisk } from '../../kit/small-disk.js';

const ON_DISK = { memory: false, disk: true };

const DISK_BYTES = 6 * 1_024 * 1_024;

void t.test('a full file system for contents and index', (t) =>
  onSmallDisk(t, DISK_BYTES, (folder) => fillUp(t, folder)),
);

async function fillUp(t: Test, folder: string): Promise<void> {
  const unhandled: unknown[] = [];
  const onUnhandled = (thrown: unknown): void => void unhandled.push(thrown);
  process.on('unhandledRejection', onUnhandled);
  t.teardown(() => void process.off('unhandledRejection', onUnhandled));

  const config = cacheConfig(join(folder, 'cache'));
  const files = new FaultyFiles();
  const { cache, sample, lines } = await openTestCache(config, files);
  const bytes = (n: number): Buffer => bytesOf(20_000, n);
  const store = (n: number) => put(cache, entryOf(`/${n}`, bytes(n), { mediaId: mediaIdOf(n) }), bytes(n), ON_DISK);
  for (let n = 0; n < 20; n += 1) t.equal((await store(n)).kind, 'stored');
  t.equal(await cache.takeDown(mediaIdOf(0)), 1);

  const pad = join(folder, 'pad');
  await writeFile(pad, Buffer.alloc(10_000_000)).catch(() => undefined);
  for (let n = 20; n < 60; n += 1) await store(n);
  t.ok((await sample('cache_disk_errors_total')) > 0, 'errors are counted');
  // An entry without a body needs space in the index alone.
  const headers = [['x-large', 'x'.repeat(3_000)]] as const;
  const nothing = Buffer.alloc(0);
  const heads = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, n) =>
      put(cache, entryOf(`/head/${from + n}`, nothing, { headers }), nothing, ON_DISK),
    );
  const refusals = (): number => lines.filter(({ error }) => String(error).startsWith('Commit failed')).length;
  for (let from = 0; refusals() === 0 && from < 4_000; from += 50) {
    await Promise.all(heads(from, from + 50));
    await new Promise(setImmediate);
  }
  t.ok(refusals() > 0, 'a commit of the index has failed');
  for (let n = 1; n < 20; n += 1) {
    const stored = cache.get(keyOf(`/${n}`));
    const read = stored && (await readAll(stored.body.open(undefined, NEVER)));
    t.ok(read?.equals(bytes(n)), `/${n} was stored before and is served`);
  }
  const refused = await cache.takeDown(mediaIdOf(1)).then(
    () => false,
    () => true,
  );
  t.equal(cache.get(keyOf('/1')), undefined, 'taken down in this process, whether or not it could be written');
  t.comment(`a takedown on a full disk ${refused ? 'reported that it was not written' : 'was written'}`);

  await rm(pad);
  await cache.takeDown(mediaIdOf(2));
  for (let n = 100; n < 110; n += 1) t.equal((await store(n)).kind, 'stored', 'stored again once there is space');
  await cache.close();

  const again = await openTestCache(config);
  for (const n of [0, 1, 2]) t.equal(again.cache.get(keyOf(`/${n}`)), undefined, `/${n} stays down after a restart`);
  for (const n of [5, 105]) {
    const stored = again.cache.get(keyOf(`/${n}`));
    const read = stored && (await readAll(stored.body.open(undefined, NEVER)));
    t.ok(read?.equals(bytes(n)), `/${n} is there`);
  }
  await again.cache.close();
  t.same(unhandled, []);
}
