/**
 * Uploads of the same bytes meet sweeps, each other and late deletes, as by several origins: nothing is shared
 * between them but the metadata store and the blob store.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { type BlobKey, type BlobStore, mediaKey } from '../../../origin/blobs/blob-store.js';
import { emptyTrash, freeOrphans, freeUnreferenced, type SweepDeps } from '../../../origin/blobs/sweep.js';
import { uploadSection } from '../../../origin/ingest/config.js';
import { type IngestDeps, type Ingested, ingest } from '../../../origin/ingest/ingest.js';
import { stage } from '../../../origin/ingest/stage.js';
import { retentionSection } from '../../../origin/retention-rules.js';
import { createIdSource, type MediaId } from '../../../src/ids.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { png } from '../../kit/media.js';
import { openStores, type Stores, sha256Of } from '../../kit/origin/stores.js';

/** Later than any file that is made now, so that all of them count as old. */
const LATER = Date.UTC(2100, 0, 1);
const never = new AbortController().signal;

interface Uploading extends Stores {
  upload(bytes: Buffer, changes?: Partial<IngestDeps>): Promise<Ingested>;
  /** Frees all that nobody needs, at once. */
  sweep(changes?: Partial<SweepDeps>): Promise<void>;
  remove(id: MediaId): Promise<void>;
  keys(): Promise<readonly BlobKey[]>;
}

async function opened(t: Test, folder = t.testdir()): Promise<Uploading> {
  const clock = new ManualClock(LATER);
  const stores = await openStores(folder, clock, testDeps());
  const { meta, blobs } = stores;
  const deps: IngestDeps = {
    clock,
    ids: createIdSource(clock),
    meta,
    blobs,
    thumbs: { accepts: () => false },
    quotas: { retryAfterMs: () => 0 },
    scanner: { scan: async () => ({ kind: 'admit' }) },
    config: { upload: configured(uploadSection), retention: configured(retentionSection) },
  };
  return {
    ...stores,
    async upload(bytes, changes = {}) {
      const chunks = [bytes];
      const source = { next: async () => chunks.shift() };
      const staged = await stage(source, join(blobs.stageFolder, randomUUID()), { sizeMaxBytes: 1e6, sync: true });
      const options = { public: false, expiresInSeconds: undefined, filename: undefined };
      const upload = { staged, declaredType: undefined, owner: 'ada', options, quota: undefined };
      return await ingest({ ...deps, ...changes }, upload, never);
    },
    async sweep(changes = {}) {
      const sweeping = { meta, blobs, ...changes };
      await freeUnreferenced(sweeping, clock.now() + 1, 99, never);
      await emptyTrash(sweeping, clock.now() + 1, 99, never);
      await freeOrphans(sweeping, LATER, never);
    },
    async remove(id) {
      await meta.remove(id, 'eve', clock.now());
    },
    async keys() {
      const found: BlobKey[] = [];
      for await (const { key } of blobs.list('media/')) found.push(key);
      return found;
    },
  };
}

/** The store, with some methods replaced. */
function over<S extends object>(store: S, changes: Partial<S>): S {
  return new Proxy(store, {
    get(target, name) {
      const found: unknown = Reflect.get(name in changes ? changes : target, name);
      return typeof found === 'function' ? found.bind(target) : found;
    },
  });
}

void t.test('bytes that an upload found and that are swept before its record are stored again', async (t) => {
  const fixture = await opened(t);
  t.teardown(() => fixture.close());
  const { media } = await fixture.upload(png(1));
  await fixture.remove(media.record.id);
  let swept = 0;
  const blobs = over<BlobStore>(fixture.blobs, {
    async stat(key) {
      const found = await fixture.blobs.stat(key);
      swept += 1;
      await fixture.sweep();
      return found;
    },
  });
  const again = await fixture.upload(png(1), { blobs });
  t.equal(swept, 1, 'the first look found them');
  t.equal(again.duplicate, false);
  t.not(mediaKey(again.media.blob), mediaKey(media.blob), 'in another place');
  t.same(await fixture.keys(), [mediaKey(again.media.blob)]);
});

void t.test('bytes that an upload stores are left alone by a sweep, whatever their age', async (t) => {
  const fixture = await opened(t);
  t.teardown(() => fixture.close());
  const meta = over(fixture.meta, {
    async commitUpload(upload) {
      await fixture.sweep();
      t.equal((await fixture.keys()).length, 1);
      return await fixture.meta.commitUpload(upload);
    },
  });
  const { media } = await fixture.upload(png(1), { meta });
  await fixture.sweep();
  t.same(await fixture.keys(), [mediaKey(media.blob)]);
});

void t.test('a delete that comes late, after the same bytes were uploaded again, hits nothing of them', async (t) => {
  const fixture = await opened(t);
  t.teardown(() => fixture.close());
  const { media } = await fixture.upload(png(1));
  await fixture.remove(media.record.id);
  let again: Ingested | undefined;
  const blobs = over<BlobStore>(fixture.blobs, {
    async remove(key) {
      // The record is forgotten, and the bytes are about to be removed.
      again = await fixture.upload(png(1));
      await fixture.blobs.remove(key);
    },
  });
  await fixture.sweep({ blobs });
  if (again === undefined) throw new Error('the sweep has removed nothing');
  t.equal(again.duplicate, false);
  t.same(await fixture.keys(), [mediaKey(again.media.blob)]);
});

void t.test('of uploads of the same bytes at once one copy stays', async (t) => {
  const fixture = await opened(t);
  t.teardown(() => fixture.close());
  const uploads = await Promise.all(Array.from({ length: 5 }, () => fixture.upload(png(1))));
  t.equal(uploads.filter(({ duplicate }) => !duplicate).length, 1);
  const keys = new Set(uploads.map(({ media }) => mediaKey(media.blob)));
  t.same(await fixture.keys(), [...keys]);
  t.equal(keys.size, 1);
});

void t.test('an upload whose bytes are removed each time is refused in the end, and can be sent again', async (t) => {
  const fixture = await opened(t);
  t.teardown(() => fixture.close());
  let looks = 0;
  const meta = over(fixture.meta, {
    async commitUpload() {
      looks += 1;
      return { kind: 'bytes_gone' } as const;
    },
  });
  const { media } = await fixture.upload(png(1));
  await t.rejects(fixture.upload(png(1), { meta }), { code: 'storage_unavailable' });
  t.equal(looks, 5);
  await t.rejects(fixture.upload(png(2), { meta }), { code: 'storage_unavailable' });
  t.same(await fixture.keys(), [mediaKey(media.blob)], 'nothing is left of it');
});

void t.test('a damaged copy is replaced in another place, and its bytes are removed later', async (t) => {
  const fixture = await opened(t);
  t.teardown(() => fixture.close());
  const { media } = await fixture.upload(png(1));
  const { sha256 } = media.blob;
  await fixture.meta.quarantine(sha256, { at: LATER, by: 'scrub', reason: null, cause: 'rot' });
  const found: Ingested = await fixture.upload(png(1));
  t.match(found, { duplicate: true, media: { blob: { quarantine: null } } });
  t.same((await fixture.keys()).toSorted(), [mediaKey(media.blob), mediaKey(found.media.blob)].toSorted());
  t.same(await fixture.meta.trash(LATER + 1, 9), [mediaKey(media.blob)], 'somebody may be reading them');
  await fixture.sweep();
  t.same(await fixture.keys(), [mediaKey(found.media.blob)]);

  // Marked as damaged after an upload has found the bytes, and before its record.
  const blobs = over<BlobStore>(fixture.blobs, {
    async stat(key) {
      const size = await fixture.blobs.stat(key);
      await fixture.meta.quarantine(sha256, { at: LATER, by: 'scrub', reason: null, cause: 'rot' });
      return size;
    },
  });
  const healed = await fixture.upload(png(1), { blobs });
  t.match(healed.media.blob.quarantine, null);
  t.not(mediaKey(healed.media.blob), mediaKey(found.media.blob), 'it does not lift the mark without other bytes');
});

const CONTENTS = [png(1), png(2)];

void t.test('whatever meets what, live media have their bytes, and nothing is left behind', async (t) => {
  const root = t.testdir();
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat({ max: 25 }), { minLength: 40, maxLength: 40 }),
      fc.array(fc.constantFrom('upload 0', 'upload 1', 'upload 0', 'sweep', 'empty', 'walk'), {
        minLength: 20,
        maxLength: 30,
      }),
      async (pauses, acts) => {
        runs += 1;
        await meet(await opened(t, join(root, String(runs))), pauses, acts);
      },
    ),
    { numRuns: 8, endOnFailure: true },
  );
});

/** Does all acts at once, each step after a drawn pause. An upload is deleted again, if it is a new one. */
async function meet(fixture: Uploading, pauses: readonly number[], acts: readonly string[]): Promise<void> {
  let drawn = 0;
  const pause = async (): Promise<void> => {
    drawn += 1;
    for (let turns = pauses[drawn % pauses.length] ?? 0; turns > 0; turns -= 1) await fixture.blobs.freeBytes();
  };
  const blobs = over<BlobStore>(fixture.blobs, {
    async stat(...given) {
      const size = await fixture.blobs.stat(...given);
      await pause();
      return size;
    },
    async adopt(...given) {
      await pause();
      await fixture.blobs.adopt(...given);
      await pause();
    },
    async remove(...given) {
      await pause();
      await fixture.blobs.remove(...given);
    },
  });
  const { meta, clock } = fixture;
  const live = new Set<MediaId>();
  const run = async (act: string, n: number): Promise<void> => {
    // They begin one after the other, and each meets several others.
    for (let before = 0; before < n / 3; before += 1) await pause();
    if (act === 'sweep') await freeUnreferenced({ meta, blobs }, clock.now() + 1, 99, never);
    else if (act === 'empty') await emptyTrash({ meta, blobs }, clock.now() + 1, 99, never);
    else if (act === 'walk') await freeOrphans({ meta, blobs }, LATER, never);
    else {
      const { media, duplicate } = await fixture.upload(CONTENTS[Number(act.at(-1))] ?? Buffer.of(), { blobs });
      live.add(media.record.id);
      await pause();
      await allHaveBytes(fixture, live);
      if (duplicate) return;
      live.delete(media.record.id);
      await fixture.remove(media.record.id);
    }
  };
  try {
    await Promise.all(acts.map(run));
    await allHaveBytes(fixture, live);
    await fixture.sweep();
    const named = await Promise.all(CONTENTS.map((bytes) => meta.findBlob(sha256Of(bytes))));
    const wanted = named.filter((blob) => blob !== undefined).map(mediaKey);
    const keys = await fixture.keys();
    if (wanted.toSorted().join() !== keys.toSorted().join())
      throw new Error(`stored: ${keys.join(' ')}; wanted: ${wanted.join(' ')}`);
  } finally {
    await fixture.close();
  }
}

async function allHaveBytes({ meta, blobs }: Uploading, ids: ReadonlySet<MediaId>): Promise<void> {
  for (const id of ids) {
    const found = await meta.find(id, LATER);
    if (found.kind !== 'live') continue;
    const size = await blobs.stat(mediaKey(found.media.blob));
    // Taken down and swept between the two looks.
    if (size === undefined && (await meta.find(id, LATER)).kind === 'live') throw new Error(`${id} has no bytes`);
  }
}
