/** A data folder that the release before made, which has no places. */
import { readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'lmdb';
import t from 'tap';
import { freeOrphans, freeUnreferenced } from '../../../origin/blobs/sweep.js';
import { createCodec } from '../../../origin/meta/codec.js';
import { metaSection } from '../../../origin/meta/config.js';
import { openMetaReader } from '../../../origin/meta/lmdb.js';
import { keysOf } from '../../../origin/meta/media.js';
import { blobCodec, stampCodec } from '../../../origin/meta/records.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { png } from '../../kit/media.js';
import { startOrigin } from '../../kit/origin/origin.js';
import { openStores, sha256Of } from '../../kit/origin/stores.js';

const LATER = Date.UTC(2100, 0, 1);
const never = new AbortController().signal;

/** Makes records and files as the release before wrote them. */
async function age(folder: string): Promise<void> {
  const root = open(join(folder, 'meta'), { encoding: 'binary', noSubdir: false });
  const blobs = root.openDB<Uint8Array>({ name: 'blob', encoding: 'binary' });
  const former = createCodec({ 1: () => ({}) });
  for (const { key, value } of await blobs.getRange({}).asArray) {
    const { blob, ...stored } = blobCodec.decode(value);
    const { place: _, thumbs, ...record } = blob;
    const made = thumbs.kind === 'ready' ? thumbs.made.map(({ place: __, ...thumb }) => thumb) : [];
    const unplaced = { ...record, thumbs: thumbs.kind === 'ready' ? { kind: 'ready', made } : thumbs };
    blobs.putSync(key, former.encode({ ...stored, blob: unplaced }));
  }
  const about = root.openDB<Uint8Array>({ name: 'about', encoding: 'binary' });
  const stamp = stampCodec.decode(about.get('stamp') ?? Buffer.of());
  about.putSync('stamp', stampCodec.encode({ ...stamp, format: 3 }));
  for (const name of ['trash', 'trash_order']) root.openDB({ name, encoding: 'binary' }).dropSync();
  await root.close();
  for (const entry of readdirSync(join(folder, 'blobs'), { recursive: true, withFileTypes: true })) {
    const [name = ''] = entry.name.split('-');
    if (entry.isFile()) renameSync(join(entry.parentPath, entry.name), join(entry.parentPath, name));
  }
}

void t.test('is served, found as a duplicate, thumbnails included, and deleted with all its bytes', async (t) => {
  const folder = t.testdir();
  const clock = new ManualClock(LATER);
  const before = await openStores(folder, clock, testDeps());
  const bytes = png(1);
  const picture = await before.put(bytes, { mime: 'image/png', thumbs: { kind: 'queue' } });
  const { id, sha256 } = picture.record;
  await before.thumb(sha256, 'a thumbnail');
  await before.close();
  await age(folder);

  const config = configured(metaSection, { folder: join(folder, 'meta') });
  const reader = await openMetaReader(config, { clock, log: testDeps().log, randomName: () => 'x' });
  t.match(await reader.findBlob(sha256), { place: '' }, 'a second process reads it too');
  await reader.close();

  const origin = await startOrigin(folder, {}, { clock });
  t.ok((await origin.as('bob', `/v1/media/${id}`)).bytes.equals(bytes));
  t.equal((await origin.upload(bytes)).status, 200);
  await origin.stop();
  await origin.auth.close();

  const after = await openStores(folder, clock, testDeps());
  t.teardown(() => after.close());
  const { meta, blobs } = after;
  const blob = await meta.findBlob(sha256);
  const keys = blob === undefined ? [] : keysOf(blob);
  t.same(keys, [`media/${sha256}`, `thumb/${sha256}/${sha256Of('a thumbnail')}`]);
  t.same(await Promise.all(keys.map((key) => blobs.stat(key))), [bytes.length, 11]);
  t.match(await freeOrphans({ meta, blobs }, LATER, never), { blobs: 0, thumbs: 0 });
  await meta.remove(id, 'eve', LATER);
  t.match(await freeUnreferenced({ meta, blobs }, LATER + 1, 9, never), { blobs: 1, thumbs: 1 });
  const left = readdirSync(join(folder, 'blobs'), { recursive: true, withFileTypes: true });
  t.same(
    left.filter((entry) => entry.isFile()).map(({ name }) => name),
    [],
  );
});

void t.test('a damaged blob of it is healed in a new place', async (t) => {
  const folder = t.testdir();
  const clock = new ManualClock(LATER);
  const before = await openStores(folder, clock, testDeps());
  const sha256 = (await before.put('bytes')).record.sha256;
  await before.close();
  await age(folder);

  const after = await openStores(folder, clock, testDeps());
  t.teardown(() => after.close());
  await after.meta.quarantine(sha256, { at: LATER, by: 'scrub', reason: null, cause: 'rot' });
  const healed = await after.put('bytes');
  t.match(healed.blob, { quarantine: null, place: /^[0-9a-f]{16}$/ });
  t.same(await after.meta.trash(LATER + 1, 9), [`media/${sha256}`]);
  t.equal(await after.blobs.stat(keysOf(healed.blob)[0]), 5);
});
