/** The metadata store on a full disk: a small tmpfs, where this user may mount one. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { metaSection } from '../../../origin/meta/config.js';
import { openMetaStore } from '../../../origin/meta/lmdb.js';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { announced, findingsOf, T0, uploadOf } from '../../kit/origin/meta/contract.js';
import { onSmallDisk } from '../../kit/small-disk.js';

const SIZE_BYTES = 3_000_000;

void t.test(
  'a full disk is reported as such, loses nothing, and works again once there is space',
  { timeout: 60_000 },
  (t) => onSmallDisk(t, SIZE_BYTES, (folder) => fillAndGoOn(t, folder)),
);

void t.test(
  'many takedowns at once are written on a full disk, with the room kept for them',
  { timeout: 60_000 },
  (t) =>
    onSmallDisk(t, 16 * 2 ** 20, async (folder) => {
      const config = configured(metaSection, { folder: join(folder, 'meta'), reserveBytes: 4 * 2 ** 20 });
      const deps = { clock: new ManualClock(T0), log: testDeps().log, randomName: () => 'name' };
      const store = announced(await openMetaStore(config, deps));
      const uploads = Array.from({ length: 2_000 }, (_, n) => uploadOf(n.toString(16).padStart(64, '0') as Sha256));
      await Promise.all(uploads.map((upload) => store.commitUpload(upload)));
      fill(join(folder, 'pad'));
      t.equal(await store.room(), 'enough');
      const removed = await Promise.allSettled(uploads.map(({ id }) => store.remove(id, 'eve', T0)));
      t.same(
        [...new Set(removed.map((each) => (each.status === 'fulfilled' ? each.value.kind : each.reason)))],
        ['removed'],
      );
      t.equal(await store.room(), 'no_reserve');
      const more = uploadOf('f'.repeat(64) as Sha256);
      await t.rejects(store.commitUpload(more), { code: 'storage_full' }, 'uploads get nothing of it');

      rmSync(join(folder, 'pad'));
      t.equal(await store.room(), 'enough');
      t.match(await store.commitUpload(more), { kind: 'created' });
      t.same(await findingsOf(store), []);
      await store.close();
    }),
);

/** Writes a file until the disk has no room left. */
function fill(path: string): void {
  for (const bytes of [Buffer.alloc(2 ** 20), Buffer.alloc(4_096)]) {
    try {
      for (;;) writeFileSync(path, bytes, { flag: 'a' });
    } catch {
      // The disk has less room than this.
    }
  }
}

async function fillAndGoOn(t: Test, folder: string): Promise<void> {
  const pad = join(folder, 'pad');
  writeFileSync(pad, Buffer.alloc(SIZE_BYTES / 3));
  const unhandled: unknown[] = [];
  const onUnhandled = (thrown: unknown): void => void unhandled.push(thrown);
  process.on('unhandledRejection', onUnhandled);
  t.teardown(() => process.off('unhandledRejection', onUnhandled));

  mkdirSync(join(folder, 'meta'));
  const config = configured(metaSection, { folder: join(folder, 'meta'), reserveBytes: 65_536 });
  const deps = { clock: new ManualClock(T0), log: testDeps().log, randomName: () => 'name' };
  let store = announced(await openMetaStore(config, deps));
  const stored: MediaId[] = [];
  let refused: { readonly code?: unknown } | undefined;
  for (let n = 0; refused === undefined && n < 20_000; n += 8) {
    const uploads = Array.from({ length: 8 }, (_, more) =>
      uploadOf((n + more).toString(16).padStart(64, '0') as Sha256),
    );
    const outcomes = await Promise.allSettled(uploads.map((upload) => store.commitUpload(upload)));
    for (const [index, outcome] of outcomes.entries()) {
      const upload = uploads[index];
      if (outcome.status === 'rejected') refused = outcome.reason as { readonly code?: unknown };
      else if (upload !== undefined) stored.push(upload.id);
    }
  }
  t.equal(refused?.code, 'storage_full');
  t.ok(stored.length > 100);
  for (const id of stored) if ((await store.find(id, T0)).kind !== 'live') t.fail(`${id} is lost`);

  rmSync(pad);
  t.match(
    await store.remove(stored[0] as MediaId, 'eve', T0),
    { kind: 'removed', seq: 1 },
    'with space again it works',
  );
  t.match(await store.commitUpload(uploadOf('f'.repeat(64) as Sha256)), { kind: 'created' });
  await store.close();
  store = announced(await openMetaStore(config, deps));
  t.same(await findingsOf(store), []);
  for (const id of stored.slice(1)) if ((await store.find(id, T0)).kind !== 'live') t.fail(`${id} is lost`);
  await store.close();
  t.same(unhandled, []);
}
