import { hash, randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type BlobStore, parseBlobKey } from '../../../origin/blobs/blob-store.js';
import { type BlobsConfig, blobsFaults, blobsSection } from '../../../origin/blobs/config.js';
import { createGroupSync } from '../../../origin/blobs/group-sync.js';
import { openBlobStore } from '../../../origin/blobs/open.js';
import { storageFault } from '../../../origin/blobs/storage-fault.js';
import { systemClock } from '../../../src/clock.js';
import { Fault } from '../../../src/errors.js';
import type { Sha256 } from '../../../src/ids.js';
import { createLog } from '../../../src/log.js';
import { blobContract, bytesOf, find, put, readAll, stage } from '../../kit/origin/blob-contract.js';
import { mediaKey, PLACE, thumbKey } from '../../kit/origin/keys.js';
import { type Failure, type LightS3, openLightS3, type SeenRequest } from '../../kit/origin/light-s3.js';

const deps = { clock: systemClock, log: createLog('test', { level: 'silent' }) };
const NOTHING = Buffer.alloc(0);

function config(given: Readonly<Record<string, unknown>>): BlobsConfig {
  return blobsSection.schema({ env: (name) => `the ${name}`, file: () => undefined }).parse(given);
}

async function openLocal(folder: string): Promise<BlobStore> {
  return await openBlobStore(config({ folder: join(folder, 'blobs'), stage_folder: join(folder, 'stage') }), deps);
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

async function deviceOf(path: string): Promise<number | undefined> {
  return await stat(path).then(
    ({ dev }) => dev,
    () => undefined,
  );
}

void t.test('blobs in local folders', async (t) => {
  await t.test('keep the contract', async (t) => {
    const folder = t.testdir();
    await blobContract(t, () => openLocal(folder), { largeBytes: 2_000_000, runs: 25 });
  });

  await t.test('are files in two-digit folders, and nothing else is there', async (t) => {
    const folder = t.testdir();
    const store = await openLocal(folder);
    const { sha256 } = await put(store, 10);
    const thumb = await stage(store, randomBytes(5));
    await store.adopt(thumb.path, thumbKey(sha256, thumb.sha256), thumb.facts);
    await store.probe();
    t.same((await filesBelow(folder)).map((path) => path.slice(folder.length)).sort(), [
      `/blobs/media/${sha256.slice(0, 2)}/${sha256}-${PLACE}`,
      `/blobs/thumb/${sha256.slice(0, 2)}/${sha256}/${thumb.sha256}-${PLACE}`,
    ]);
    await store.remove(thumbKey(sha256, thumb.sha256));
    t.same(
      await readdir(join(folder, 'blobs/thumb', sha256.slice(0, 2))),
      [],
      'the folder of the source is removed too',
    );
  });

  await t.test('are replaced by a fresh copy when their stored bytes are wrong', async (t) => {
    const folder = t.testdir();
    const store = await openLocal(folder);
    const bytes = randomBytes(1_000);
    const first = await stage(store, bytes);
    await store.adopt(first.path, first.key, first.facts);
    const path = join(folder, 'blobs/media', first.sha256.slice(0, 2), `${first.sha256}-${PLACE}`);
    for (const rot of [randomBytes(1_000), randomBytes(10)]) {
      await writeFile(path, rot);
      const again = await stage(store, bytes);
      await store.adopt(again.path, again.key, again.facts);
      t.ok(bytes.equals(await readFile(path)));
    }
  });

  await t.test('are written into their place at once if they are small and in memory', async (t) => {
    const folder = t.testdir();
    const store = await openLocal(folder);
    const bytes = randomBytes(1_000);
    const { key, sha256, path: staged } = await stage(store, bytes);
    const path = join(folder, 'blobs/media', sha256.slice(0, 2), `${sha256}-${PLACE}`);
    t.equal(await store.put?.(key, bytes), 'put');
    t.ok(bytes.equals(await readFile(path)));
    t.equal((await stat(path)).mode & 0o777, 0o600, 'other users cannot read it');
    t.equal(await store.put?.(key, randomBytes(10)), 'taken');
    t.ok(bytes.equals(await readFile(path)), 'what is there stays');
    await rm(join(folder, 'blobs/media'), { recursive: true });
    t.equal(await store.put?.(key, bytes), 'put', 'folders that somebody removed are made again');
    t.ok(bytes.equals(await readFile(path)));
    await rm(staged);
    t.same(await readdir(store.stageFolder), []);
    await t.rejects(async () => void (await store.put?.(key, bytes, AbortSignal.abort())));
  });

  await t.test('are read to the end by a reader that began before they were removed', async (t) => {
    const store = await openLocal(t.testdir());
    const { key, bytes } = await put(store, 500_000);
    const { body } = await find(store, key);
    await store.remove(key);
    t.ok(bytes.equals(await readAll(body)));
  });

  await t.test('leave other files in the folder alone and out of listings; an old probe is removed', async (t) => {
    const misplaced = 'cd'.repeat(32);
    const folder = t.testdir({ blobs: { '.probe-old': 'x', media: { ab: { note: 'x', [misplaced]: 'x' } } } });
    const store = await openLocal(folder);
    for await (const { key } of store.list('media/')) t.fail(`listed ${key}`);
    t.equal((await filesBelow(folder)).length, 2);
  });

  await t.test('are still there when the store is opened again', async (t) => {
    const folder = t.testdir();
    const first = await openLocal(folder);
    const { key, bytes } = await put(first, 100);
    await first.close();
    t.ok(bytes.equals((await bytesOf(await openLocal(folder), key)) ?? NOTHING));
  });

  const memory = '/dev/shm';
  const apart = (await deviceOf(memory)) !== (await deviceOf('.')) && (await deviceOf(memory)) !== undefined;
  const skip = apart ? false : 'there is no second file system here';
  await t.test('refuse a stage in another file system at the start, with a clear message', { skip }, async (t) => {
    const elsewhere = await mkdtemp(join(memory, 'stage-'));
    t.teardown(() => rm(elsewhere, { recursive: true }));
    const opened = openBlobStore(config({ folder: join(t.testdir(), 'blobs'), stage_folder: elsewhere }), deps);
    await t.rejects(opened, { message: /stage_folder \(.*\) must be in the same file system/ });
    t.same(await readdir(elsewhere), []);
  });
});

interface Bucket {
  readonly s3: LightS3;
  readonly store: BlobStore;
}

async function openBucket(t: Test, over: Readonly<Record<string, unknown>> = {}, s3?: LightS3): Promise<Bucket> {
  const server = s3 ?? (await openLightS3());
  const store = await openBlobStore(
    config({
      adaptor: 's3',
      stage_folder: join(t.testdir(), 'stage'),
      s3: {
        endpoint: server.url,
        bucket: server.bucket,
        access_key_id: 'env:KEY',
        secret_access_key: 'env:SECRET',
        multipart_above: '5MiB',
        part_size: '5MiB',
        sockets_max: 4,
        retry: '1ms',
        request_timeout: '20s',
        ...over,
      },
    }),
    deps,
  );
  t.teardown(async () => {
    await store.close();
    await server.close();
  });
  return { s3: server, store };
}

type Which = (request: SeenRequest) => boolean;

/** Makes the first `times` requests of a kind fail. */
function makeFail(s3: LightS3, times: number, which: Which, failure: Failure): void {
  let left = times;
  s3.failure = (request) => {
    if (left === 0 || !which(request)) return undefined;
    left -= 1;
    return failure;
  };
}

const isPut: Which = ({ method }) => method === 'PUT';
const isGet: Which = ({ method, key }) => method === 'GET' && key !== '';
const isPart: Which = ({ query }) => query.has('partNumber');
const isEnd: Which = ({ method, query }) => method === 'POST' && query.has('uploadId');

void t.test('blobs in a bucket', async (t) => {
  await t.test('keep the contract', async (t) => {
    const { s3, store } = await openBucket(t, { prefix: 'some/where/' });
    await blobContract(t, async () => store, { largeBytes: 6_000_000, runs: 6 });
    t.ok(
      [...s3.objects.keys()].every((key) => key.startsWith('some/where/')),
      'every key has the prefix',
    );
    t.equal(s3.uploads.size, 0, 'no parts are left');
  });

  await t.test('report their region', async (t) => {
    const { store } = await openBucket(t, { region: 'eu-central-1' });
    t.equal(store.kind, 's3');
    t.equal(store.region, 'eu-central-1');
    t.equal(await store.freeBytes(), null);
  });

  await t.test('are written with the hash of their bytes, so that the server can refuse other bytes', async (t) => {
    const { s3, store } = await openBucket(t);
    const { sha256 } = await put(store, 1_000);
    t.equal(s3.seen.find(isPut)?.headers['x-amz-content-sha256'], sha256);
    const lying = await stage(store, randomBytes(100));
    const other = hash('sha256', 'other bytes') as Sha256;
    await t.rejects(store.adopt(lying.path, mediaKey(other), { sizeBytes: 100, sha256: other }), {
      code: 'storage_unavailable',
    });
    t.equal(await store.stat(mediaKey(other)), undefined);
  });

  await t.test('a request that fails is repeated, within limits', async (t) => {
    const { s3, store } = await openBucket(t);
    const hasty = await openBucket(t, { request_timeout: '200ms', attempts_max: 8 }, s3);
    const cases: readonly [name: string, which: Which, failure: Failure][] = [
      ['500 to a put', isPut, { kind: 'status', status: 500, code: 'InternalError' }],
      ['503 to a put', isPut, { kind: 'status', status: 503, code: 'SlowDown' }],
      ['a reset put', isPut, { kind: 'reset' }],
      ['a put whose response is lost', isPut, { kind: 'lose_response' }],
      ['a put that stalls', isPut, { kind: 'stall' }],
      ['500 to a get', isGet, { kind: 'status', status: 500, code: 'InternalError' }],
      ['a reset get', isGet, { kind: 'reset' }],
      ['a get that stalls', isGet, { kind: 'stall' }],
    ];
    for (const [name, which, failure] of cases) {
      makeFail(s3, 1, which, failure);
      const asked = failure.kind === 'stall' ? hasty.store : store;
      const { key, bytes } = await put(asked, 50_000);
      t.ok(bytes.equals((await bytesOf(asked, key)) ?? NOTHING), `${name}, once`);
    }
    for (const [name, which, failure] of cases.filter(([, , { kind }]) => kind === 'status' || kind === 'reset')) {
      makeFail(s3, 100, which, failure);
      const before = s3.seen.filter(which).length;
      await t.rejects(
        put(store, 50_000).then(({ key }) => store.read(key)),
        { code: 'storage_unavailable' },
        name,
      );
      const seen = s3.seen.filter(which).length - before;
      // The server never sees an attempt on a connection that was reset meanwhile.
      t.ok(seen === 3 || (seen === 2 && failure.kind === 'reset'), `${name}: three attempts`);
    }
  });

  await t.test('a write of which every answer is lost is looked up', async (t) => {
    const { s3, store } = await openBucket(t);
    for (const [which, sizeBytes] of [
      [isPut, 50_000],
      [isEnd, 6_000_000],
    ] as const) {
      makeFail(s3, 100, which, { kind: 'lose_response' });
      const { key, bytes } = await put(store, sizeBytes);
      t.ok(bytes.equals((await bytesOf(store, key)) ?? NOTHING), `${sizeBytes} bytes`);
      t.equal(s3.uploads.size, 0);
    }
  });

  await t.test('a refusal is not repeated, and a full server is reported as such', async (t) => {
    const { s3, store } = await openBucket(t);
    for (const [status, code, fault] of [
      [403, 'AccessDenied', 'storage_unavailable'],
      [404, 'NoSuchBucket', 'storage_unavailable'],
      [403, 'QuotaExceeded', 'storage_full'],
      [507, 'InsufficientStorage', 'storage_full'],
    ] as const) {
      makeFail(s3, 100, isPut, { kind: 'status', status, code });
      const before = s3.seen.filter(isPut).length;
      await t.rejects(put(store, 100), { code: fault }, code);
      t.equal(s3.seen.filter(isPut).length - before, 1, `${code}: one attempt`);
    }
    makeFail(s3, 1, isGet, { kind: 'status', status: 404, code: 'NoSuchBucket' });
    await t.rejects(store.read(mediaKey('0'.repeat(64) as Sha256)), { code: 'storage_unavailable' });
  });

  await t.test('writes that are refused before the server reads them keep no connection', async (t) => {
    const { s3, store } = await openBucket(t);
    makeFail(s3, 12, isPut, { kind: 'early_status', status: 403, code: 'AccessDenied' });
    for (let count = 0; count < 12; count += 1) await t.rejects(put(store, 2_000_000), { code: 'storage_unavailable' });
    await put(store, 2_000_000);
    t.equal(s3.seen.filter(isPut).length, 13, 'none was repeated');
  });

  await t.test('a body that breaks off or stalls errors, and never ends as if it were whole', async (t) => {
    const { s3, store } = await openBucket(t, { request_timeout: '200ms', attempts_max: 8 });
    const { key } = await put(store, 400_000);
    for (const kind of ['break_body', 'stall_body'] as const) {
      makeFail(s3, 1, isGet, { kind, afterBytes: 100_000 });
      const { body } = await find(store, key);
      await t.rejects(readAll(body), kind);
    }
  });

  await t.test('a response that ignores the range is an error', async (t) => {
    const { s3, store } = await openBucket(t);
    const { key } = await put(store, 1_000);
    makeFail(s3, 1, isGet, { kind: 'ignore_range' });
    await t.rejects(store.read(key, { first: 10, last: 19 }), { code: 'storage_unavailable' });
  });

  await t.test('a blob that the server stored only in part is removed, and the adoption fails', async (t) => {
    const { s3, store } = await openBucket(t);
    makeFail(s3, 1, isPut, { kind: 'store_less', storedBytes: 10 });
    const staged = await stage(store, randomBytes(1_000));
    await t.rejects(store.adopt(staged.path, staged.key, staged.facts), { code: 'storage_unavailable' });
    t.equal(s3.objects.size, 0);
  });

  await t.test('in parts: whichever request fails, the blob is stored whole or nothing of it is left', async (t) => {
    const { s3, store } = await openBucket(t);
    for (const [name, which, failure, survives] of [
      ['a part is reset once', isPart, { kind: 'reset' }, true],
      ['the response to the end is lost', isEnd, { kind: 'lose_response' }, true],
      ['a part is refused', isPart, { kind: 'status', status: 403, code: 'AccessDenied' }, false],
      ['the end is refused', isEnd, { kind: 'status', status: 400, code: 'InvalidPart' }, false],
      ['a part is kept short', isPart, { kind: 'store_less', storedBytes: 4 }, false],
    ] as const) {
      makeFail(s3, 1, which, failure);
      const staged = await stage(store, randomBytes(6_000_000));
      const adopted = store.adopt(staged.path, staged.key, staged.facts);
      if (survives) await adopted;
      else await t.rejects(adopted, { code: 'storage_unavailable' });
      const bytes = await bytesOf(store, staged.key);
      t.ok(survives ? staged.bytes.equals(bytes ?? NOTHING) : bytes === undefined, name);
      t.equal(s3.uploads.size, 0, `${name}: no parts are left`);
    }
  });

  await t.test('a caller who leaves during a write ends it, and no parts are left', async (t) => {
    const { s3, store } = await openBucket(t);
    for (const [sizeBytes, which] of [
      [1_000, isPut],
      [6_000_000, isPart],
    ] as const) {
      const leaving = new AbortController();
      s3.failure = (request) => {
        if (!which(request)) return undefined;
        leaving.abort(new Error('the caller has left'));
        return { kind: 'stall' };
      };
      const staged = await stage(store, randomBytes(sizeBytes));
      const adopted = store.adopt(staged.path, staged.key, staged.facts, leaving.signal);
      await t.rejects(adopted, { message: 'the caller has left' });
      t.equal(await store.stat(staged.key), undefined);
      t.equal(s3.uploads.size, 0);
    }
  });

  await t.test('parts that an earlier process abandoned are removed at the start, recent ones are not', async (t) => {
    const s3 = await openLightS3();
    const begun = (daysAgo: number): { key: string; parts: Map<number, Buffer>; begunAt: Date } => ({
      key: 'media/x',
      parts: new Map(),
      begunAt: new Date(Date.now() - daysAgo * 86_400_000),
    });
    s3.uploads.set('old', begun(2)).set('young', begun(0));
    await openBucket(t, {}, s3);
    while (s3.uploads.has('old')) await new Promise(setImmediate);
    await (await openBucket(t, {}, s3)).store.close();
    t.same([...s3.uploads.keys()], ['young']);
  });

  await t.test('connections stay within their limit, however many read', async (t) => {
    const { s3, store } = await openBucket(t);
    const { key, bytes } = await put(store, 200_000);
    const reads = await Promise.all(Array.from({ length: 30 }, async () => await bytesOf(store, key)));
    t.ok(reads.every((read) => read?.equals(bytes)));
    t.ok((await s3.connections()) <= 4);
  });

  await t.test('with an unreachable server the probe fails and gives the reason', async (t) => {
    const s3 = await openLightS3();
    await s3.close();
    const { store } = await openBucket(t, { attempts_max: 1 }, s3);
    await t.rejects(store.probe(), { code: 'storage_unavailable', cause: { message: /ECONNREFUSED/ } });
  });
});

void t.test('blob keys, faults and configuration', async (t) => {
  const [a, b] = ['a'.repeat(64) as Sha256, 'b'.repeat(64) as Sha256];
  await t.test('only well-formed keys are parsed', async (t) => {
    for (const key of [mediaKey(a), thumbKey(a, b)]) t.equal(parseBlobKey(key), key);
    for (const text of [
      '',
      'media',
      'media/',
      `media/${a}/`,
      `media/${a}/${b}`,
      `media/${a.slice(1)}`,
      `/media/${a}`,
      `thumb/${a}`,
      `thumb/${a}/`,
      `thumb/${a}/../${b}`,
      `thumb/${a}/${b}/`,
      `x/${a}`,
    ]) {
      t.equal(parseBlobKey(text), undefined, text);
    }
  });

  await t.test('an error of the storage becomes a fault with its cause; an abort stays as it is', async (t) => {
    for (const [code, fault] of [
      ['ENOSPC', 'storage_full'],
      ['EDQUOT', 'storage_full'],
      ['EIO', 'storage_unavailable'],
      ['EACCES', 'storage_unavailable'],
    ] as const) {
      const thrown = Object.assign(new Error('inner words'), { code });
      const made = storageFault(thrown);
      t.ok(made instanceof Fault && made.code === fault && made.cause === thrown, code);
      t.notMatch(made instanceof Fault ? made.detail : '', /inner/);
    }
    const reason = new Error('left');
    t.equal(storageFault(reason, AbortSignal.abort(reason)), reason);
  });

  await t.test('settings that do not fit each other are found', async (t) => {
    t.same(blobsFaults(config({ s3: { access_key_id: 'env:KEY' } }), 1e7), [], 'they do not matter with local folders');
    const faults = blobsFaults(config({ adaptor: 's3', s3: { access_key_id: 'env:KEY', part_size: '5MiB' } }), 1e12);
    t.same(
      faults.map(({ path }) => path),
      ['origin.blobs.s3', 'origin.blobs.s3.part_size'],
    );
  });
});

// Syncs of folders.

interface Begun {
  readonly folder: string;
  end(): void;
  fail(): void;
}

/** A sync whose ends the test decides, and a list of those that began. */
function watched() {
  const begun: Begun[] = [];
  const groupSync = createGroupSync(
    (folder) =>
      new Promise((resolve, reject) => {
        begun.push({ folder, end: resolve, fail: () => reject(new Error(`${folder} was not synced`)) });
      }),
  );
  return { begun, groupSync };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Whether it is settled by now, and how. */
async function stateOf(waiting: Promise<void>): Promise<string> {
  const pending = turn().then(() => 'waiting');
  const settled = waiting.then(
    () => 'synced',
    (thrown: Error) => thrown.message,
  );
  return await Promise.race([settled, pending]);
}

void t.test('a sync begins at once if none is running', async (t) => {
  const { begun, groupSync } = watched();
  const waiting = groupSync('a');
  t.equal(begun.length, 1);
  begun[0]?.end();
  await waiting;
  void groupSync('a');
  t.equal(begun.length, 2, 'a sync that has ended covers no later call');
});

void t.test('a call is never resolved by a sync that began before it', async (t) => {
  const { begun, groupSync } = watched();
  const first = groupSync('a');
  const second = groupSync('a');
  begun[0]?.end();
  t.equal(await stateOf(first), 'synced');
  t.equal(await stateOf(second), 'waiting');
  const third = groupSync('a');
  t.equal(begun.length, 2);
  begun[1]?.end();
  t.equal(await stateOf(second), 'synced');
  t.equal(await stateOf(third), 'waiting', 'a call during the second sync waits for a third');
  begun[2]?.end();
  t.equal(await stateOf(third), 'synced');
  t.equal(begun.length, 3);
});

void t.test('all calls during a sync share the next one', async (t) => {
  const { begun, groupSync } = watched();
  const first = groupSync('a');
  const others = Array.from({ length: 20 }, () => groupSync('a'));
  begun[0]?.end();
  await first;
  await turn();
  t.equal(begun.length, 2);
  begun[1]?.end();
  await Promise.all(others);
  t.equal(begun.length, 2);
});

void t.test('a shared sync that fails rejects all calls that share it, and no others', async (t) => {
  const { begun, groupSync } = watched();
  const first = groupSync('a');
  const [second, third] = [groupSync('a'), groupSync('a')];
  begun[0]?.end();
  t.equal(await stateOf(first), 'synced');
  begun[1]?.fail();
  t.equal(await stateOf(second), 'a was not synced');
  t.equal(await stateOf(third), 'a was not synced');
  const fourth = groupSync('a');
  begun[2]?.end();
  t.equal(await stateOf(fourth), 'synced', 'the next sync is a new one');
});

void t.test('a sync that fails does not fail the one that waits behind it', async (t) => {
  const { begun, groupSync } = watched();
  const [first, second] = [groupSync('a'), groupSync('a')];
  begun[0]?.fail();
  t.equal(await stateOf(first), 'a was not synced');
  begun[1]?.end();
  t.equal(await stateOf(second), 'synced');
});

void t.test('folders do not wait for each other', async (t) => {
  const { begun, groupSync } = watched();
  const [first, other] = [groupSync('a'), groupSync('b')];
  t.same(
    begun.map(({ folder }) => folder),
    ['a', 'b'],
  );
  begun[1]?.end();
  t.equal(await stateOf(other), 'synced');
  t.equal(await stateOf(first), 'waiting');
});
