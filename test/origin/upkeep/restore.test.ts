/** A backup put back into a folder or a bucket, whole or told what is missing, and never half believed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { type BlobKey, mediaKey } from '../../../origin/blobs/blob-store.js';
import { openBlobStore } from '../../../origin/blobs/open.js';
import { type OriginConfig, originSection } from '../../../origin/config.js';
import { openMetaReader, openMetaStore } from '../../../origin/meta/lmdb.js';
import type { Media } from '../../../origin/meta/media.js';
import { type CommandParts, runBackup, runFsck, runRestore } from '../../../origin/upkeep/commands.js';
import { sharedController } from '../../../src/abort.js';
import { formatFaults, parseConfig } from '../../../src/config/load.js';
import { prepareSecrets } from '../../../src/dev/dev.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { type LightS3, openLightS3 } from '../../kit/origin/light-s3.js';
import { openStores, type Stores, sha256Of } from '../../kit/origin/stores.js';
import { CLI, runCli } from '../../kit/service.js';

const LATER = Date.UTC(2100, 0, 1);
t.setTimeout(150_000);

const KINDS = ['local', 's3'] as const;
type Kind = (typeof KINDS)[number];

interface Bench {
  readonly folder: string;
  /** Where the backup is. */
  readonly backup: string;
  /** What the origin was that it was made of. */
  readonly former: { readonly journal: string };
  readonly target: OriginConfig;
  /** What config.yaml says of the target. */
  readonly document: object;
  readonly s3: LightS3;
  readonly printed: readonly string[];
  restore(options?: { incomplete?: boolean; signal?: AbortSignal; onProgress?: () => void }): Promise<number>;
  fsck(): Promise<number>;
  /** What is stored in the target under a key, past all that we know of it. */
  stored(key: BlobKey): Promise<Buffer | undefined>;
  store(key: BlobKey, bytes: string): void;
  /** Every file of the metadata's folder. */
  metaFiles(): readonly string[];
}

async function openBench(t: Test, kind: Kind, fill: (house: Stores) => Promise<void>): Promise<Bench> {
  const folder = t.testdir();
  const clock = new ManualClock(LATER);
  const { log } = testDeps();
  const s3 = await openLightS3();
  t.teardown(() => s3.close());
  const house = await openStores(join(folder, 'former'), clock, { log });
  await fill(house);
  const { name: journal } = house.meta.journal;
  await house.close();
  const printed: string[] = [];
  const partsOf = (config: OriginConfig): CommandParts => ({
    config,
    clock,
    log,
    signal: sharedController().signal,
    print: (line) => void printed.push(line),
    progress: () => undefined,
  });
  const backup = join(folder, 'backup');
  const code = await runBackup(partsOf(configOf(placesIn(join(folder, 'former')))), { folder: backup });
  if (code !== 0) throw new Error(printed.join('\n'));
  const places = placesIn(join(folder, 'latter'));
  const keys = { access_key_id: 'env:KEY', secret_access_key: 'env:SECRET' };
  const sizes = { multipart_above: '5MiB', part_size: '5MiB', retry: '1ms' };
  const document = {
    ...places,
    blobs: { ...places.blobs, adaptor: kind, s3: { endpoint: s3.url, bucket: s3.bucket, ...keys, ...sizes } },
  };
  const target = configOf(document);
  const pathOf = (key: BlobKey): string => {
    const [what = '', first = '', second = ''] = key.split('/');
    return join(target.blobs.folder, what, first.slice(0, 2), first, second);
  };
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
        { ...partsOf(target), ...(signal && { signal }), ...(onProgress && { progress: onProgress }) },
        { folder: backup, incomplete },
      ),
    fsck: () => runFsck(partsOf(target), { repair: false }),
    async stored(key) {
      if (kind === 's3') return s3.objects.get(key)?.bytes;
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

const parts = () => ({ clock: new ManualClock(LATER), log: testDeps().log, randomName: () => 'looking' });

for (const kind of KINDS) {
  void t.test(`into a ${kind === 'local' ? 'folder' : 'bucket'}`, async (t) => {
    await t.test('a backup is put back whole, under a journal of its own name, and once only', async (t) => {
      const large = Buffer.alloc(6 * 2 ** 20, 'large');
      const put: { one?: Media; thumb?: BlobKey; removed?: Media } = {};
      const bench = await openBench(t, kind, async (house) => {
        put.one = await house.put('one', { thumbs: { kind: 'queue' } });
        put.thumb = await house.thumb(put.one.record.sha256, 'the thumbnail of one');
        await house.put(large);
        put.removed = await house.put('removed');
        await house.meta.remove(put.removed.record.id, 'mo', LATER);
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
      t.same(readdirSync(bench.target.blobs.stageFolder), [], 'nothing is left on the stage');

      const meta = await openMetaStore(bench.target.meta, parts());
      const backedUp = await openMetaReader({ ...bench.target.meta, folder: join(bench.backup, 'meta') }, parts());
      t.equal((await meta.find((put.one as Media).record.id, LATER)).kind, 'live');
      t.equal((await meta.find((put.removed as Media).record.id, LATER)).kind, 'deleted');
      t.not(meta.journal.name, bench.former.journal);
      t.equal(await bench.restore(), 2);
      t.match(bench.printed.at(-1), /stop the origin first/, 'an origin has it');
      await meta.close();
      await backedUp.close();

      const before = bench.metaFiles();
      t.equal(await bench.restore(), 2);
      t.match(bench.printed.at(-1), /latter\/meta already holds metadata, which is never replaced/);
      t.same(bench.metaFiles(), before);
    });

    await t.test('one that is stopped leaves no metadata, and the next copies only what is not there', async (t) => {
      const names = Array.from({ length: 90 }, (_, n) => `text ${n}`);
      const bench = await openBench(t, kind, async (house) => {
        await Promise.all(names.map((name) => house.put(name)));
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
      t.equal(puts.length, kind === 's3' ? 90 : 0, 'none was sent twice');
      t.equal(await bench.fsck(), 0);
    });

    await t.test('bytes that stand there already are read, and those that are wrong give way', async (t) => {
      const bench = await openBench(t, kind, async (house) => {
        for (const text of ['right', 'wrong', 'short']) await house.put(text);
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

    await t.test('what is missing is named and keeps the metadata out, until they are wanted without', async (t) => {
      const put: { thumb?: BlobKey; gone?: Media } = {};
      const bench = await openBench(t, kind, async (house) => {
        const one = await house.put('one', { thumbs: { kind: 'queue' } });
        put.thumb = await house.thumb(one.record.sha256, 'the thumbnail of one');
        put.gone = await house.put('gone');
        await house.put('turned');
        await house.put('saved');
        const unheld = await house.put('unheld');
        await house.meta.remove(unheld.record.id, 'mo', LATER);
      });
      const inBackup = (key: BlobKey): string => {
        const [what = '', first = '', second = ''] = key.split('/');
        return join(bench.backup, 'blobs', what, first.slice(0, 2), first, second);
      };
      const thumb = put.thumb as BlobKey;
      for (const key of [thumb, ...['gone', 'saved', 'unheld'].map((text) => mediaKey(sha256Of(text)))])
        rmSync(inBackup(key));
      writeFileSync(inBackup(mediaKey(sha256Of('turned'))), 'burned');
      bench.store(mediaKey(sha256Of('saved')), 'saved');

      t.equal(await bench.restore(), 1);
      const told = bench.printed.slice(-5);
      t.match(
        told.at(-1),
        /^2 blobs and thumbnails are stored .*, 3 originals missing: the metadata were not put in place/,
      );
      t.same(
        told.slice(0, -1).sort(),
        [
          `missing ${thumb}: nothing is stored`,
          `missing ${mediaKey(sha256Of('gone'))}: nothing is stored`,
          `missing ${mediaKey(sha256Of('unheld'))}: nothing is stored`,
          `rotten ${mediaKey(sha256Of('turned'))}: its bytes hash to ${sha256Of('burned')}`,
        ].sort(),
      );
      t.same(bench.metaFiles(), []);

      t.equal(await bench.restore({ incomplete: true }), 1);
      t.match(bench.printed.at(-1), /, 3 originals withheld, 1 thumbnail to be made again; the metadata are in/);
      t.equal(await bench.fsck(), 0, 'fsck has nothing to add');
      const meta = await openMetaStore(bench.target.meta, parts());
      t.match(await meta.find((put.gone as Media).record.id, LATER), {
        kind: 'quarantined',
        media: { blob: { quarantine: { cause: 'rot', by: 'restore' } } },
      });
      t.match(await meta.findBlob(sha256Of('one')), { thumbs: { kind: 'pending' } });
      t.equal(await meta.findBlob(sha256Of('unheld')), undefined);
      await meta.close();
    });
  });
}

void t.test('a folder that is no backup is told so, and nothing is made', async (t) => {
  const bench = await openBench(t, 'local', async () => undefined);
  rmSync(join(bench.backup, 'blobs'), { recursive: true });
  t.equal(await bench.restore(), 2);
  t.match(bench.printed.at(-1), /backup holds no backup: there is no blobs in it/);
  rmSync(join(bench.backup, 'meta'), { recursive: true });
  t.equal(await bench.restore(), 2);
  t.match(bench.printed.at(-1), /there is no meta and no blobs in it/);
  t.notOk(existsSync(join(bench.folder, 'latter')));
});

void t.test(
  'a bucket that cannot be used is told with its reason, one that fails on the way leaves no metadata',
  async (t) => {
    const bench = await openBench(t, 's3', async (house) => void (await house.put('one')));
    bench.s3.misdeed = () => ({ kind: 'status', status: 403, code: 'AccessDenied' });
    await t.rejects(bench.restore(), { message: /^The storage cannot be used at the moment\..*AccessDenied/ });
    bench.s3.misdeed = ({ method, key }) =>
      method === 'PUT' && key.startsWith('media/') ? { kind: 'status', status: 403, code: 'AccessDenied' } : undefined;
    await t.rejects(bench.restore(), { code: 'storage_unavailable' });
    t.same(bench.metaFiles(), []);
    bench.s3.misdeed = () => undefined;
    t.equal(await bench.restore(), 0);
  },
);

void t.test(
  'killed in the middle, as a process, it leaves nothing to believe in, and the next run ends it',
  async (t) => {
    const bench = await openBench(t, 's3', async (house) => {
      for (const text of ['one', 'two', 'three', 'four', 'five', 'six']) await house.put(text);
    });
    await prepareSecrets(join(bench.folder, 'data'));
    await writeFile(join(bench.folder, 'config.yaml'), JSON.stringify({ origin: bench.document }));
    const environment = { ...process.env, KEY: 'key', SECRET: 'secret' };
    const inTheMiddle = new Promise<'reached'>((resolve) => {
      let sent = 0;
      bench.s3.misdeed = ({ method, key }) => {
        if (method === 'PUT' && key.startsWith('media/')) sent += 1;
        if (sent <= 3) return undefined;
        resolve('reached');
        return { kind: 'stall' };
      };
    });
    const run = spawn(process.execPath, [CLI, 'restore', 'backup'], {
      cwd: bench.folder,
      env: environment,
      stdio: 'ignore',
    });
    const ended = once(run, 'exit');
    t.equal(await Promise.race([inTheMiddle, ended]), 'reached');
    run.kill('SIGKILL');
    await ended;
    t.notOk(bench.metaFiles().includes('data.mdb'));
    const stored = bench.s3.objects.size;
    t.ok(stored > 0 && stored < 6, `${stored} are stored`);

    bench.s3.misdeed = () => undefined;
    Object.assign(process.env, { KEY: 'key', SECRET: 'secret' });
    const { code, out, err } = await runCli(bench.folder, ['restore', 'backup']);
    t.equal(code, 0, err);
    t.match(out, new RegExp(`^6 blobs and thumbnails are stored \\(${6 - stored} copied, .*start the origin\\n$`));
    t.same(bench.metaFiles(), ['data.mdb', ...bench.metaFiles().filter((name) => name !== 'data.mdb')]);
    t.notOk(bench.metaFiles().includes('incoming'));
    t.match(await runCli(bench.folder, ['restore', 'backup']), { code: 2, out: /never replaced/ });
    const blobs = await openBlobStore(bench.target.blobs, parts());
    t.equal(await blobs.stat(mediaKey(sha256Of('six'))), 3);
    await blobs.close();
  },
);
