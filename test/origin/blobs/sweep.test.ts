/** Freeing bytes: what meets an upload, what is too young, in which order, and what is let go when a step fails. */
import { mkdirSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type BlobKey, mediaKey, thumbKey } from '../../../origin/blobs/blob-store.js';
import {
  clearLeftovers,
  clearStage,
  freeOrphans,
  freeUnreferenced,
  type SweepDeps,
} from '../../../origin/blobs/sweep.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { openStores, type Stores, sha256Of } from '../../kit/origin/stores.js';
import { until } from '../../kit/until.js';

const LATER = Date.UTC(2100, 0, 1);
const never = new AbortController().signal;

async function opened(t: Test): Promise<Stores & { readonly deps: SweepDeps; readonly folder: string }> {
  const folder = t.testdir();
  const stores = await openStores(folder, new ManualClock(LATER), testDeps());
  t.teardown(() => stores.close());
  const { meta, blobs, hashLocks } = stores;
  return { ...stores, folder, deps: { meta, blobs, hashLocks } };
}

/** The metadata store, with some methods replaced. */
function metaWith({ meta }: SweepDeps, changes: Partial<SweepDeps['meta']>): SweepDeps['meta'] {
  return {
    unreferencedBlobs: (before, limit) => meta.unreferencedBlobs(before, limit),
    forgetBlob: (sha256) => meta.forgetBlob(sha256),
    findBlob: (sha256) => meta.findBlob(sha256),
    ...changes,
  };
}

async function removedBlob(stores: Stores, bytes: string): Promise<BlobKey> {
  const { record } = await stores.put(bytes);
  await stores.meta.remove(record.id, 'eve', stores.clock.now());
  return mediaKey(record.sha256);
}

void t.test('bytes whose upload is committed while the sweep looks at them stay', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs } = fixture;
  const key = mediaKey(sha256Of('bytes'));
  const thumb = thumbKey(sha256Of('bytes'), sha256Of('its thumb'));
  for (const [each, bytes] of [
    [key, 'bytes'],
    [thumb, 'its thumb'],
  ] as const)
    await fixture.store(each, bytes);
  let looks = 0;
  const meta = metaWith(deps, {
    async findBlob(sha256) {
      looks += 1;
      const found = await deps.meta.findBlob(sha256);
      // The upload begins and ends between the first look and the lock.
      if (looks === 1) await fixture.put('bytes', { thumbs: { kind: 'queue' } });
      return found;
    },
  });
  t.match(await freeOrphans({ ...deps, meta }, LATER, never), { blobs: 0, thumbs: 0 });
  t.equal(await blobs.stat(key), 5);
  t.equal(await blobs.stat(thumb), 9, 'thumbnails that are being made are not recorded yet');
  t.ok(looks >= 2);
});

void t.test('bytes without a record have their time to get one', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs, folder } = fixture;
  const key = mediaKey(sha256Of('orphan'));
  await fixture.store(key, 'orphan');
  const [, sha256 = ''] = key.split('/');
  const { mtimeMs } = await stat(join(folder, 'blobs', 'media', sha256.slice(0, 2), sha256));
  for (const before of [mtimeMs - 3_600_000, mtimeMs - 1, mtimeMs]) {
    t.match(await freeOrphans(deps, before, never), { blobs: 0 });
    t.equal(await blobs.stat(key), 6);
  }
  t.same(await freeOrphans(deps, Math.ceil(mtimeMs) + 1, never), { blobs: 1, thumbs: 0, bytes: 6 });
  t.equal(await blobs.stat(key), undefined);
});

void t.test('bytes that an upload has under its lock are left alone, and the lock is free afterwards', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs, hashLocks } = fixture;
  const orphan = mediaKey(sha256Of('orphan'));
  await fixture.store(orphan, 'orphan');
  const unreferenced = await removedBlob(fixture, 'unreferenced');
  const locks = await Promise.all(['orphan', 'unreferenced'].map((bytes) => hashLocks.share(sha256Of(bytes), never)));
  t.match(await freeOrphans(deps, LATER, never), { blobs: 0 });
  t.match(await freeUnreferenced(deps, LATER + 1, 9, never), { blobs: 0 });
  for (const release of locks) release();
  t.match(await freeOrphans(deps, LATER, never), { blobs: 1 });
  t.match(await freeUnreferenced(deps, LATER + 1, 9, never), { blobs: 1 });
  for (const key of [orphan, unreferenced]) t.equal(await blobs.stat(key), undefined);
  for (const bytes of ['orphan', 'unreferenced']) {
    t.type(hashLocks.tryAlone(sha256Of(bytes)), 'function', 'the sweep has let go too');
  }
});

void t.test('a record goes before its bytes, and bytes stay as long as a record could be there', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs, hashLocks } = fixture;
  const key = await removedBlob(fixture, 'bytes');
  const sha256 = sha256Of('bytes');
  let go = (): void => undefined;
  const asked = new Promise<void>((resolve) => {
    const meta = metaWith(deps, {
      forgetBlob: () =>
        new Promise((_, reject) => {
          go = () => reject(new Error('the disk fails'));
          resolve();
        }),
    });
    const freed = freeUnreferenced({ ...deps, meta }, LATER + 1, 9, never);
    void t.rejects(freed, { message: 'the disk fails' });
  });
  await asked;
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  t.equal(await blobs.stat(key), 5, 'while the record is being removed');
  t.equal(hashLocks.tryAlone(sha256), undefined, 'no upload may come in between');
  go();
  await new Promise(setImmediate);
  t.equal(await blobs.stat(key), 5, 'and when it could not be');
  hashLocks.tryAlone(sha256)?.();

  const refused = metaWith(deps, { forgetBlob: async () => false });
  t.match(await freeUnreferenced({ ...deps, meta: refused }, LATER + 1, 9, never), { blobs: 0, bytes: 0 });
  t.equal(await blobs.stat(key), 5, 'nor if it is referenced again');
  t.type(hashLocks.tryAlone(sha256), 'function', 'the lock is free after each');
});

void t.test('the lock is kept until the last thumbnail is removed', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs, hashLocks, meta } = fixture;
  const { record } = await fixture.put('bytes', { thumbs: { kind: 'queue' } });
  await fixture.thumb(record.sha256, 'its thumb');
  await meta.remove(record.id, 'eve', LATER);
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  let waiting = false;
  const slow: SweepDeps['blobs'] = {
    list: (prefix, signal) => blobs.list(prefix, signal),
    async remove(key, signal) {
      if (key.startsWith('thumb/')) {
        waiting = true;
        await gate;
      }
      await blobs.remove(key, signal);
    },
  };
  let done = false;
  const freeing = freeUnreferenced({ ...deps, blobs: slow }, LATER + 1, 9, never).then((freed) => {
    done = true;
    return freed;
  });
  await until('the removal', () => waiting);
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  t.equal(done, false);
  t.equal(hashLocks.tryAlone(record.sha256), undefined, 'the same bytes, uploaded now, would lose their thumbnail');
  go();
  t.match(await freeing, { blobs: 1, thumbs: 1 });
});

void t.test('bytes that cannot be removed leave their lock free', async (t) => {
  const fixture = await opened(t);
  const { deps, hashLocks } = fixture;
  await fixture.store(mediaKey(sha256Of('orphan')), 'orphan');
  await removedBlob(fixture, 'unreferenced');
  const failing: SweepDeps = {
    ...deps,
    blobs: {
      list: (prefix, signal) => deps.blobs.list(prefix, signal),
      remove: () => Promise.reject(new Error('the storage fails')),
    },
  };
  await t.rejects(freeUnreferenced(failing, LATER + 1, 9, never), { message: 'the storage fails' });
  await t.rejects(freeOrphans(failing, LATER, never), { message: 'the storage fails' });
  for (const bytes of ['orphan', 'unreferenced']) t.type(hashLocks.tryAlone(sha256Of(bytes)), 'function', bytes);
});

void t.test('a sweep that is stopped frees nothing more', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs } = fixture;
  const keys = [await removedBlob(fixture, 'one'), await removedBlob(fixture, 'two')];
  const stopping = new AbortController();
  const meta = metaWith(deps, {
    async forgetBlob(sha256) {
      stopping.abort(new Error('stopped'));
      return deps.meta.forgetBlob(sha256);
    },
  });
  await t.rejects(freeUnreferenced({ ...deps, meta }, LATER + 1, 9, stopping.signal), { message: 'stopped' });
  const left = (await Promise.all(keys.map((key) => blobs.stat(key)))).filter((size) => size !== undefined);
  t.equal(left.length, 1, 'the one that had begun is finished');
});

void t.test('of a thumbnail, exactly what its record does not name is freed', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs, meta } = fixture;
  const made = await fixture.put('made', { thumbs: { kind: 'queue' } });
  const kept = await fixture.thumb(made.record.sha256, 'kept');
  const wide = thumbKey(made.record.sha256, sha256Of('wide'));
  await fixture.store(wide, 'wide');
  const record = await meta.findBlob(made.record.sha256);
  if (record?.thumbs.kind !== 'ready') throw new Error('its thumbnail is recorded');
  const [first] = record.thumbs.made;
  if (first === undefined) throw new Error('its thumbnail is recorded');
  const both = [first, { ...first, variant: 'wide', sha256: sha256Of('wide') }];
  await meta.finishThumbs(made.record.sha256, { kind: 'made', made: both, picture: record.picture });
  const older = thumbKey(made.record.sha256, sha256Of('older'));
  const none = await fixture.put('none');
  const stray = thumbKey(none.record.sha256, sha256Of('stray'));
  for (const key of [older, stray]) await fixture.store(key, key === older ? 'older' : 'stray');
  t.same(await freeOrphans(deps, LATER, never), { blobs: 0, thumbs: 2, bytes: 10 });
  t.same(await Promise.all([kept, wide, older, stray].map((key) => blobs.stat(key))), [4, 4, undefined, undefined]);
  await meta.remove(made.record.id, 'eve', LATER);
  t.same(await freeUnreferenced(deps, LATER + 1, 9, never), { blobs: 1, thumbs: 2, bytes: 12 });
  t.equal(await blobs.stat(kept), undefined);
});

void t.test('the stage loses old files, and neither folders nor young files', async (t) => {
  const stage = join(t.testdir(), 'stage');
  t.equal(await clearStage(stage, LATER, never), 0, 'a folder that is not there has no files');
  mkdirSync(join(stage, 'folder'), { recursive: true });
  for (const [name, atSeconds] of [
    ['old', 999],
    ['at the instant', 1_000],
    ['young', 1_001],
  ] as const) {
    writeFileSync(join(stage, name), name);
    utimesSync(join(stage, name), atSeconds, atSeconds);
  }
  t.equal(await clearStage(stage, 1_000_000, never), 1);
  t.same(readdirSync(stage).sort(), ['at the instant', 'folder', 'young']);
  const stopped = AbortSignal.abort(new Error('stopped'));
  await t.rejects(clearStage(stage, LATER, stopped), { message: 'stopped' });
  t.equal(await clearLeftovers(stage), 2);
  t.same(readdirSync(stage), ['folder']);
  rmSync(stage, { recursive: true });
});
