/**
 * What every restore promises, into a folder or a bucket: the whole backup, or a list of what is missing and no
 * metadata in place.
 */
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Test } from 'tap';
import type { BlobKey } from '../../../origin/blobs/blob-store.js';
import { type OriginConfig, originSection } from '../../../origin/config.js';
import { openMetaReader, openMetaStore } from '../../../origin/meta/lmdb.js';
import type { Media } from '../../../origin/meta/media.js';
import { type CommandDeps, runBackup, runFsck, runRestore } from '../../../origin/upkeep/commands.js';
import { sharedController } from '../../../src/abort.js';
import { formatFaults, parseConfig } from '../../../src/config/load.js';
import { ManualClock } from '../clock.js';
import { testDeps } from '../deps.js';
import { fileOfKey, mediaKey } from './keys.js';
import { type LightS3, openLightS3 } from './light-s3.js';
import { openStores, type Stores, sha256Of } from './stores.js';

const LATER = Date.UTC(2100, 0, 1);
type Adaptor = 'local' | 's3';

export interface RestoreBench {
  readonly folder: string;
  /** Where the backup is. */
  readonly backup: string;
  /** The origin that the backup was made from. */
  readonly former: { readonly journal: string };
  readonly target: OriginConfig;
  /** The target's section of config.yaml. */
  readonly document: object;
  readonly s3: LightS3;
  readonly printed: readonly string[];
  restore(options?: { incomplete?: boolean; signal?: AbortSignal; onProgress?: () => void }): Promise<number>;
  fsck(): Promise<number>;
  /** The bytes under a key in the target, read directly and not through the blob store. */
  stored(key: BlobKey): Promise<Buffer | undefined>;
  store(key: BlobKey, bytes: string): void;
  /** Every file of the metadata's folder. */
  metaFiles(): readonly string[];
}

export async function openRestoreBench(
  t: Test,
  adaptor: Adaptor,
  fill: (stores: Stores) => Promise<void>,
): Promise<RestoreBench> {
  const folder = t.testdir();
  const clock = new ManualClock(LATER);
  const { log } = testDeps();
  const s3 = await openLightS3();
  t.teardown(() => s3.close());
  const stores = await openStores(join(folder, 'former'), clock, { log });
  await fill(stores);
  const { name: journal } = stores.meta.journal;
  await stores.close();
  const printed: string[] = [];
  const depsOf = (config: OriginConfig): CommandDeps => ({
    config,
    clock,
    log,
    signal: sharedController().signal,
    print: (line) => void printed.push(line),
    complain: (line) => void printed.push(line),
    progress: () => undefined,
  });
  const backup = join(folder, 'backup');
  const code = await runBackup(depsOf(configOf(placesIn(join(folder, 'former')))), { folder: backup });
  if (code !== 0) throw new Error(printed.join('\n'));
  const places = placesIn(join(folder, 'latter'));
  const keys = { access_key_id: 'env:KEY', secret_access_key: 'env:SECRET' };
  const sizes = { multipart_above: '5MiB', part_size: '5MiB', retry: '1ms' };
  const document = {
    ...places,
    blobs: { ...places.blobs, adaptor, s3: { endpoint: s3.url, bucket: s3.bucket, ...keys, ...sizes } },
  };
  const target = configOf(document);
  const pathOf = (key: BlobKey): string => fileOfKey(target.blobs.folder, key);
  return {
    folder,
    backup,
    former: { journal },
    target,
    document,
    s3,
    printed,
    restore: ({ incomplete = false, signal, onProgress } = {}) =>
      runRestore(
        { ...depsOf(target), ...(signal && { signal }), ...(onProgress && { progress: onProgress }) },
        { folder: backup, incomplete },
      ),
    fsck: () => runFsck(depsOf(target), { repair: false }),
    async stored(key) {
      if (adaptor === 's3') return s3.objects.get(key)?.bytes;
      return existsSync(pathOf(key)) ? await readFile(pathOf(key)) : undefined;
    },
    store(key, bytes) {
      s3.objects.set(key, { bytes: Buffer.from(bytes), storedAt: new Date() });
      mkdirSync(dirname(pathOf(key)), { recursive: true });
      writeFileSync(pathOf(key), bytes);
    },
    metaFiles: () => (existsSync(target.meta.folder) ? readdirSync(target.meta.folder).sort() : []),
  };
}

function placesIn(folder: string) {
  return {
    meta: { folder: join(folder, 'meta') },
    blobs: { folder: join(folder, 'blobs'), stage_folder: join(folder, 'stage') },
  };
}

function configOf(section: object): OriginConfig {
  const context = { env: () => 'key', file: () => undefined };
  const loaded = parseConfig(JSON.stringify({ origin: section }), { origin: originSection }, context);
  if (loaded.kind === 'faulty') throw new Error(formatFaults(loaded.faults));
  return loaded.config.origin;
}

export const storeDeps = () => ({ clock: new ManualClock(LATER), log: testDeps().log, randomName: () => 'looking' });

/** The restore tests that every adaptor passes. */
export async function restoreContract(t: Test, adaptor: Adaptor): Promise<void> {
  await t.test('a backup is restored whole, with a new journal name, and only once', async (t) => {
    const large = Buffer.alloc(6 * 2 ** 20, 'large');
    const put: { one?: Media; thumb?: BlobKey; removed?: Media } = {};
    const bench = await openRestoreBench(t, adaptor, async (stores) => {
      put.one = await stores.put('one', { thumbs: { kind: 'queue' } });
      put.thumb = await stores.thumb(put.one.record.sha256, 'the thumbnail of one');
      await stores.put(large);
      put.removed = await stores.put('removed');
      await stores.meta.remove(put.removed.record.id, 'mo', LATER);
    });
    t.equal(await bench.restore(), 0, bench.printed.join('\n'));
    t.match(
      bench.printed.at(-1),
      /^4 blobs and thumbnails are stored \(4 copied, \d+B\); the metadata are in .*latter\/meta: start the origin$/,
    );
    t.equal((await bench.stored(mediaKey(sha256Of('one'))))?.toString(), 'one');
    t.equal((await bench.stored(put.thumb as BlobKey))?.toString(), 'the thumbnail of one');
    t.ok((await bench.stored(mediaKey(sha256Of(large))))?.equals(large));
    t.equal(await bench.fsck(), 0, bench.printed.join('\n'));
    t.same(readdirSync(bench.target.blobs.stageFolder), [], 'no staged file is left');

    const meta = await openMetaStore(bench.target.meta, storeDeps());
    const backedUp = await openMetaReader({ ...bench.target.meta, folder: join(bench.backup, 'meta') }, storeDeps());
    t.equal((await meta.find((put.one as Media).record.id, LATER)).kind, 'live');
    t.equal((await meta.find((put.removed as Media).record.id, LATER)).kind, 'deleted');
    t.not(meta.journal.name, bench.former.journal);
    t.equal(await bench.restore(), 2);
    t.match(bench.printed.at(-1), /stop the origin first/, 'an origin has it open');
    await meta.close();
    await backedUp.close();

    const before = bench.metaFiles();
    t.equal(await bench.restore(), 2);
    t.match(bench.printed.at(-1), /latter\/meta already contains metadata, which is never replaced/);
    t.same(bench.metaFiles(), before);
  });

  await t.test(
    'a restore that is stopped leaves no metadata, and the next one copies only what is missing',
    async (t) => {
      const names = Array.from({ length: 90 }, (_, n) => `text ${n}`);
      const bench = await openRestoreBench(t, adaptor, async (stores) => {
        await Promise.all(names.map((name) => stores.put(name)));
      });
      const stopping = sharedController();
      const stopped = bench.restore({
        signal: stopping.signal,
        onProgress: () => stopping.abort(new Error('stopped')),
      });
      await t.rejects(stopped, { message: 'stopped' });
      t.same(bench.metaFiles(), []);
      t.equal(await bench.restore(), 0, bench.printed.join('\n'));
      t.match(bench.printed.at(-1), /^90 blobs and thumbnails are stored \(26 copied,/);
      const puts = bench.s3.seen.filter(({ method, key }) => method === 'PUT' && key.startsWith('media/'));
      t.equal(puts.length, adaptor === 's3' ? 90 : 0, 'no blob was sent twice');
      t.equal(await bench.fsck(), 0);
    },
  );

  await t.test('blobs that are already in the target are read, and wrong ones are replaced', async (t) => {
    const bench = await openRestoreBench(t, adaptor, async (stores) => {
      for (const text of ['right', 'wrong', 'short']) await stores.put(text);
    });
    bench.store(mediaKey(sha256Of('right')), 'right');
    bench.store(mediaKey(sha256Of('wrong')), 'wr0ng');
    bench.store(mediaKey(sha256Of('short')), 'sh');
    t.equal(await bench.restore(), 0, bench.printed.join('\n'));
    t.match(bench.printed.at(-1), /^3 blobs and thumbnails are stored \(2 copied,/);
    for (const text of ['right', 'wrong', 'short']) {
      t.equal((await bench.stored(mediaKey(sha256Of(text))))?.toString(), text);
    }
  });

  await t.test(
    'missing originals are listed and no metadata is put in place, unless an incomplete restore is asked for',
    async (t) => {
      const put: { thumb?: BlobKey; gone?: Media } = {};
      const bench = await openRestoreBench(t, adaptor, async (stores) => {
        const one = await stores.put('one', { thumbs: { kind: 'queue' } });
        put.thumb = await stores.thumb(one.record.sha256, 'the thumbnail of one');
        put.gone = await stores.put('gone');
        await stores.put('turned');
        await stores.put('saved');
        const unreferenced = await stores.put('unreferenced');
        await stores.meta.remove(unreferenced.record.id, 'mo', LATER);
      });
      const inBackup = (key: BlobKey): string => fileOfKey(join(bench.backup, 'blobs'), key);
      const thumb = put.thumb as BlobKey;
      for (const key of [thumb, ...['gone', 'saved', 'unreferenced'].map((text) => mediaKey(sha256Of(text)))])
        rmSync(inBackup(key));
      writeFileSync(inBackup(mediaKey(sha256Of('turned'))), 'burned');
      bench.store(mediaKey(sha256Of('saved')), 'saved');

      t.equal(await bench.restore(), 1);
      const printed = bench.printed.slice(-5);
      t.match(
        printed.at(-1),
        /^2 blobs and thumbnails are stored .*, 3 originals missing: the metadata were not put in place/,
      );
      t.same(
        printed.slice(0, -1).sort(),
        [
          `missing ${thumb}: nothing is stored`,
          `missing ${mediaKey(sha256Of('gone'))}: nothing is stored`,
          `missing ${mediaKey(sha256Of('unreferenced'))}: nothing is stored`,
          `rotten ${mediaKey(sha256Of('turned'))}: its bytes hash to ${sha256Of('burned')}`,
        ].sort(),
      );
      t.same(bench.metaFiles(), []);

      t.equal(await bench.restore({ incomplete: true }), 1);
      t.match(bench.printed.at(-1), /, 3 originals withheld, 1 thumbnail to be made again; the metadata are in/);
      t.equal(await bench.fsck(), 0, 'fsck has nothing to add');
      const meta = await openMetaStore(bench.target.meta, storeDeps());
      t.match(await meta.find((put.gone as Media).record.id, LATER), {
        kind: 'quarantined',
        media: { blob: { quarantine: { cause: 'rot', by: 'restore' } } },
      });
      t.match(await meta.findBlob(sha256Of('one')), { thumbs: { kind: 'pending' } });
      t.equal(await meta.findBlob(sha256Of('unreferenced')), undefined);
      await meta.close();
    },
  );
}
