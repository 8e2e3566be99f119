/** Freeing bytes: what meets an upload, what is too young, in which order, and what is let go when a step fails. */
import { mkdirSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { BlobKey } from '../../../origin/blobs/blob-store.js';
import {
  clearLeftovers,
  clearStage,
  emptyTrash,
  freeOrphans,
  freeUnreferenced,
  type SweepDeps,
} from '../../../origin/blobs/sweep.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { mediaKey, PLACE, thumbKey } from '../../kit/origin/keys.js';
import { openStores, type Stores, sha256Of } from '../../kit/origin/stores.js';

const LATER = Date.UTC(2100, 0, 1);
const never = new AbortController().signal;

async function opened(t: Test): Promise<Stores & { readonly deps: SweepDeps; readonly folder: string }> {
  const folder = t.testdir();
  const stores = await openStores(folder, new ManualClock(LATER), testDeps());
  t.teardown(() => stores.close());
  const { meta, blobs } = stores;
  // `meta` is another one after it was opened again.
  return Object.assign(Object.create(stores) as Stores, { folder, deps: { meta, blobs } });
}

/** The metadata store, with some methods replaced. */
function metaWith({ meta }: SweepDeps, changes: Partial<SweepDeps['meta']>): SweepDeps['meta'] {
  return {
    unreferencedBlobs: (before, limit) => meta.unreferencedBlobs(before, limit),
    forgetBlob: (sha256) => meta.forgetBlob(sha256),
    leftBehind: (keys) => meta.leftBehind(keys),
    trash: (before, limit) => meta.trash(before, limit),
    emptied: (keys) => meta.emptied(keys),
    ...changes,
  };
}

async function removedBlob(stores: Stores, bytes: string): Promise<BlobKey> {
  const { record } = await stores.put(bytes);
  await stores.meta.remove(record.id, 'eve', stores.clock.now());
  return mediaKey(record.sha256);
}

void t.test('bytes that somebody is about to record stay, and bytes that were given up go', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs, meta } = fixture;
  const key = mediaKey(sha256Of('bytes'));
  const thumb = thumbKey(sha256Of('bytes'), sha256Of('its thumb'));
  await meta.intend([key, thumb]);
  await fixture.store(key, 'bytes');
  await fixture.store(thumb, 'its thumb');
  t.match(await freeOrphans(deps, LATER, never), { blobs: 0, thumbs: 0 });
  t.same(await meta.withdraw([thumb]), [thumb], 'no record names it');
  t.same(await meta.withdraw([thumb]), []);
  t.match(await freeOrphans(deps, LATER, never), { blobs: 0, thumbs: 1 });
  await fixture.put('bytes');
  t.match(await freeOrphans(deps, LATER, never), { blobs: 0, thumbs: 0 });
  t.equal(await blobs.stat(key), 5);
  await fixture.reopen();
  t.same(await fixture.meta.leftBehind([key, thumb]), [thumb], 'an upload ends with its process');
});

void t.test('bytes without a record have their time to get one', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs, folder } = fixture;
  const key = mediaKey(sha256Of('orphan'));
  await fixture.store(key, 'orphan');
  const [, sha256 = ''] = key.split('/');
  const { mtimeMs } = await stat(join(folder, 'blobs', 'media', sha256.slice(0, 2), `${sha256}-${PLACE}`));
  for (const before of [mtimeMs - 3_600_000, mtimeMs - 1, mtimeMs]) {
    t.match(await freeOrphans(deps, before, never), { blobs: 0 });
    t.equal(await blobs.stat(key), 6);
  }
  t.same(await freeOrphans(deps, Math.ceil(mtimeMs) + 1, never), { blobs: 1, thumbs: 0, parts: 0, bytes: 6 });
  t.equal(await blobs.stat(key), undefined);
});

void t.test('a record goes before its bytes, and bytes stay as long as a record could be there', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs } = fixture;
  const key = await removedBlob(fixture, 'bytes');
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
  go();
  await new Promise(setImmediate);
  t.equal(await blobs.stat(key), 5, 'and when it could not be');

  const refused = metaWith(deps, { forgetBlob: async () => undefined });
  t.match(await freeUnreferenced({ ...deps, meta: refused }, LATER + 1, 9, never), { blobs: 0, bytes: 0 });
  t.equal(await blobs.stat(key), 5, 'nor if it is referenced again');
});

void t.test('bytes that cannot be removed are in the trash until they can be', async (t) => {
  const fixture = await opened(t);
  const { deps, blobs, meta } = fixture;
  const key = await removedBlob(fixture, 'unreferenced');
  const fine = await removedBlob(fixture, 'fine');
  let failing = true;
  const blobsOf: SweepDeps['blobs'] = {
    list: (prefix, signal) => blobs.list(prefix, signal),
    async remove(each) {
      if (failing && each === key) throw new Error('the storage fails');
      await blobs.remove(each);
    },
  };
  const run = { ...deps, blobs: blobsOf };
  for (let sweep = 0; sweep < 2; sweep += 1) {
    await t.rejects(freeUnreferenced(run, LATER + 1, 1, never), { message: 'the storage fails' });
    if ((await meta.findBlob(sha256Of('unreferenced'))) === undefined) break;
  }
  t.equal(await blobs.stat(key), 12);
  t.same(await meta.leftBehind([key]), [], 'nobody reports it as lost');
  t.same(await meta.trash(LATER, 9), [], 'not before its instant');
  await meta.forgetBlob(sha256Of('fine'));
  await t.rejects(emptyTrash(run, LATER + 1, 9, never), { message: 'the storage fails' });
  t.equal(await blobs.stat(fine), undefined, 'one that cannot be removed does not keep the others');
  t.same(await meta.trash(LATER + 1, 9), [key]);
  failing = false;
  t.match(await emptyTrash(run, LATER + 1, 9, never), { blobs: 1 });
  t.same(await meta.trash(LATER + 1, 9), []);
  t.equal(await blobs.stat(key), undefined);
});

void t.test('a process that dies between the record and the bytes leaves them to the next one', async (t) => {
  const fixture = await opened(t);
  const { blobs } = fixture;
  const { record } = await fixture.put('bytes', { thumbs: { kind: 'queue' } });
  const thumb = await fixture.thumb(record.sha256, 'its thumb');
  await fixture.meta.remove(record.id, 'eve', LATER);
  t.same(await fixture.meta.forgetBlob(record.sha256), [mediaKey(record.sha256), thumb]);
  await fixture.reopen();
  t.match(await emptyTrash({ meta: fixture.meta, blobs }, LATER + 1, 9, never), { blobs: 1, thumbs: 1 });
  for (const key of [mediaKey(record.sha256), thumb]) t.equal(await blobs.stat(key), undefined);
  t.same(await fixture.meta.trash(LATER + 1, 9), []);
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
  await meta.intend([wide]);
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
  t.same(await freeOrphans(deps, LATER, never), { blobs: 0, thumbs: 2, parts: 0, bytes: 10 });
  t.same(await Promise.all([kept, wide, older, stray].map((key) => blobs.stat(key))), [4, 4, undefined, undefined]);
  await meta.remove(made.record.id, 'eve', LATER);
  t.same(await freeUnreferenced(deps, LATER + 1, 9, never), { blobs: 1, thumbs: 2, parts: 0, bytes: 12 });
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
