import assert from 'node:assert/strict';
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { type Key, open } from 'lmdb';
import t from 'tap';
import { count, createCodec, text } from '../../../origin/meta/codec.js';
import type { LmdbConfig } from '../../../origin/meta/config.js';
import { openMetaReader, openMetaStore as openStore, readStore } from '../../../origin/meta/lmdb.js';
import { jobCodec, journalCodec, mediaCodec, stampCodec } from '../../../origin/meta/records.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { JOBS } from '../../../origin/meta/tables.js';
import type { Sha256 } from '../../../src/ids.js';
import { createLog } from '../../../src/log.js';
import { ManualClock } from '../../kit/clock.js';
import { IN_PLACE, mediaKey } from '../../kit/origin/keys.js';
import { metaAgainContract } from '../../kit/origin/meta/again-contract.js';
import { announced, type MetaUnderTest, metaContract, T0, uploadOf } from '../../kit/origin/meta/contract.js';
import { metaOwnedContract } from '../../kit/origin/meta/owned-contract.js';

const silent = createLog('test', { level: 'silent' });
let names = 0;
const clock = new ManualClock();
const deps = {
  clock,
  log: silent,
  randomName: (): string => {
    names += 1;
    return `name-${names}`;
  },
};

const openMetaStore = async (...given: Parameters<typeof openStore>): Promise<MetaStore> =>
  announced(await openStore(...given));

function configOf(folder: string): LmdbConfig {
  return {
    folder,
    dataMaxBytes: 1e9,
    reserveBytes: 65_536,
    commitMax: 64,
    queueMax: 1_000,
    scanMax: 5,
    usedStepMs: 10,
  };
}

void t.test('the store on LMDB fulfils the contract of metadata stores', async (t) => {
  const root = t.testdir();
  const folders = new Map<MetaStore, string>();
  let made = 0;
  const openIn = async (folder: string): Promise<MetaStore> => {
    const store = await openMetaStore(configOf(folder), deps);
    folders.set(store, folder);
    return store;
  };
  const kit: MetaUnderTest = {
    usedStepMs: 10,
    histories: 8,
    fresh() {
      made += 1;
      return openIn(`${root}/${made}`);
    },
    async again(store) {
      await store.close();
      return openIn(folders.get(store) ?? '');
    },
  };
  await metaContract(t, kit);
  await metaAgainContract(t, kit);
  await metaOwnedContract(t, kit);
});

void t.test('concurrent commits share a sync', async (t) => {
  const folder = t.testdir();
  const store = await openMetaStore(configOf(folder), deps);
  const raw = open(folder, { ...RAW, readOnly: true });
  const commits = (): number => {
    raw.resetReadTxn();
    return (raw.getStats() as { lastTxnId: number }).lastTxnId;
  };
  const before = commits();
  await Promise.all(Array.from({ length: 64 }, (_, n) => store.commitUpload(uploadOf(hashOf(n)))));
  const made = commits() - before;
  t.ok(made >= 1 && made <= 4, `64 uploads took ${made} commits`);
  await raw.close();
  await store.close();
});

void t.test('a transaction that throws undoes its own writes and no others', async (t) => {
  const folder = t.testdir();
  const bad = hashOf(1);
  await tamper(folder, (table) => table('job').putSync(bad, Buffer.from('rubbish')));
  const store = await openMetaStore(configOf(folder), deps);
  const upload = uploadOf(bad);
  const [good, failed, alsoGood] = await Promise.allSettled([
    store.commitUpload(uploadOf(hashOf(2))),
    // Its job cannot be read, which is noticed only after record and indexes were written.
    store.commitUpload(upload),
    store.commitUpload(uploadOf(hashOf(3))),
  ]);
  t.match([good.status, failed.status, alsoGood.status], ['fulfilled', 'rejected', 'fulfilled']);
  t.match(failed, { reason: { name: 'DamagedRecord', table: 'job', key: bad } });
  t.same(await store.find(upload.id, T0), { kind: 'unknown' });
  t.same(await store.idsOfBlob(bad), []);
  t.equal(await store.findBlob(bad), undefined);
  t.same(await verify(store, false), [`damaged job ${bad}`, `job_stray job ${bad}`]);
  t.same(await verify(store, true), [`damaged job ${bad}`]);
  t.match(await store.commitUpload(upload), { kind: 'created' });
  t.same(await verify(store, false), []);
  await store.close();
});

void t.test('a damaged record causes an error that names it, and affects no other record', async (t) => {
  const folder = t.testdir();
  let store = await openMetaStore(configOf(folder), deps);
  const uploads = [1, 2, 3].map((n) => uploadOf(hashOf(n), { expiresAt: T0 + n }));
  const [one, two, three] = uploads;
  if (one === undefined || two === undefined || three === undefined) throw new Error('three uploads');
  for (const upload of uploads) await store.commitUpload(upload);
  await store.close();

  await tamper(folder, (table) => {
    const bytes = Buffer.from(table('media').getBinary(one.id) ?? []);
    bytes[40] = (bytes[40] ?? 0) ^ 1;
    table('media').putSync(one.id, bytes);
    table('blob').putSync(two.sha256, Buffer.from([9, 0, 0, 0, 0, 123]));
  });
  store = await openMetaStore(configOf(folder), deps);
  await t.rejects(store.find(one.id, T0), {
    name: 'DamagedRecord',
    message: `the record ${one.id} of media is damaged: its checksum is wrong`,
  });
  await t.rejects(store.find(two.id, T0), { table: 'blob', key: two.sha256, message: /version 9; this release reads/ });
  t.match(await store.find(three.id, T0), { kind: 'live' });
  t.match((await store.list({ limit: 9, now: T0 })).found, [{ media: { record: { id: three.id } } }]);
  t.match(await store.remove(two.id, 'eve', T0), { kind: 'removed', seq: 1 }, 'a takedown works without the blob');
  t.same(await store.expireDue(T0 + 9, 9), [three.id], 'expiry skips it');

  t.same(
    (await verify(store, true)).filter((found) => found.startsWith('damaged')),
    [`damaged media ${one.id}`, `damaged blob ${two.sha256}`],
  );
  t.same(await verify(store, false), []);
  t.same(await store.find(one.id, T0), { kind: 'unknown' });
  t.match(await store.journal.read(2, 9), [{ cause: 'delete', ids: [one.id] }], 'edges drop it');
  await store.close();
});

void t.test('missing and stray index entries are found and repaired', async (t) => {
  const folder = t.testdir();
  let store = await openMetaStore(configOf(folder), deps);
  const upload = uploadOf(hashOf(1), { expiresAt: T0 + 5 });
  await store.commitUpload(upload);
  await store.commitUpload(uploadOf(hashOf(2)));
  await store.close();
  await tamper(folder, (table) => {
    table('expiry').removeSync([T0 + 5, upload.id]);
    table('live').removeSync([upload.sha256, 0]);
    table('by_owner').putSync(['nobody', upload.id], Buffer.alloc(0));
    table('job').removeSync(hashOf(2));
    table('journal').putSync(7, journalCodec.encode({ seq: 7, mark: 'a', at: T0, cause: 'delete', ids: [] }));
    table('journal').putSync(9, journalCodec.encode({ seq: 9, mark: 'b', at: T0, cause: 'delete', ids: [] }));
  });
  store = await openMetaStore(configOf(folder), deps);
  const { name } = store.journal;
  const expected = [
    'index_missing expiry',
    'index_missing live',
    'index_stray by_owner',
    'index_stray job_ready',
    'index_stray job_ready',
    'job_missing job',
    'journal_broken journal',
    'reference_wrong blob',
  ];
  const kinds = async (repair: boolean): Promise<readonly string[]> =>
    (await verify(store, repair)).map((found) => found.split(' ').slice(0, 2).join(' ')).sort();
  t.same(await kinds(false), expected);
  t.same(
    await kinds(true),
    expected.filter((kind) => kind !== 'reference_wrong blob'),
    'a fault that another repair has cured is not found',
  );
  t.same(await kinds(false), []);
  await store.close();
  store = await openMetaStore(configOf(folder), deps);
  t.not(store.journal.name, name, 'edges cannot know what they missed');
  t.same([store.journal.oldest(), store.journal.newest()], [9, 9]);
  t.same(await store.expireDue(T0 + 5, 9), [upload.id]);
  await store.close();
});

void t.test('one process at a time writes to a folder', async (t) => {
  const folder = t.testdir();
  const lock = join(folder, 'writer.lock');
  const store = await openMetaStore(configOf(folder), deps);
  await t.rejects(openMetaStore(configOf(folder), deps), {
    name: 'FolderInUse',
    message: /is in use by process \d+\./,
  });
  t.match(await store.commitUpload(uploadOf(hashOf(1))), { kind: 'created' });
  await store.close();
  t.notOk(existsSync(lock));

  writeFileSync(lock, JSON.stringify({ pid: process.ppid, started: null }));
  await t.rejects(openMetaStore(configOf(folder), deps), { message: new RegExp(`process ${process.ppid}\\.`) });
  const dead = [
    // A pid that no system gives out.
    { pid: 2 ** 30, started: null },
    // The process is alive, but started at another time than the owner.
    ...(existsSync('/proc/self/stat') ? [{ pid: process.ppid, started: 'another-boot:1' }] : []),
    'not a lock',
  ];
  for (const left of dead) {
    writeFileSync(lock, JSON.stringify(left));
    const again = await openMetaStore(configOf(folder), deps);
    await t.rejects(openMetaStore(configOf(folder), deps), { name: 'FolderInUse' });
    await again.close();
  }
  t.same(readdirSync(folder).sort(), ['data.mdb', 'lock.mdb', 'reserve']);
});

void t.test('a database of a newer release is refused, and a damaged stamp is replaced on request', async (t) => {
  const folder = t.testdir();
  await (await openMetaStore(configOf(folder), deps)).close();
  const stamp = { format: 6, journal: 'x', madeAt: T0 };
  await tamper(folder, (table) => table('about').putSync('stamp', stampCodec.encode(stamp)));
  await t.rejects(openMetaStore(configOf(folder), deps), { message: /by a newer release \(format 6; this one reads/ });
  await t.rejects(openMetaReader(configOf(folder), deps), { message: /by a newer release/ });
  await tamper(folder, (table) => table('about').putSync('stamp', Buffer.from('rubbish')));
  await t.rejects(openMetaStore(configOf(folder), deps), { name: 'DamagedRecord', table: 'about' });
  const mended = await openMetaStore(configOf(folder), deps, { mendStamp: true });
  t.not(mended.journal.name, 'x');
  await mended.close();
  await t.rejects(openMetaReader(configOf(join(folder, 'nothing')), deps), { message: /contains no metadata store/ });
});

void t.test('a database of the previous format is read, and then written in this one', async (t) => {
  const folder = t.testdir();
  const made = await openMetaStore(configOf(folder), deps);
  const upload = uploadOf(hashOf(1));
  await made.commitUpload(upload);
  await made.close();
  await tamper(folder, (table) => {
    const { sentSha256: _, ...record } = mediaCodec.decode(table('media').getBinary(upload.id) ?? Buffer.of()).record;
    table('media').putSync(upload.id, createCodec({ 1: () => ({}) }).encode({ record, endedSeq: 0 }));
    table('about').putSync('stamp', stampCodec.encode({ format: 1, journal: 'x', madeAt: T0 }));
  });
  const store = await openMetaStore(configOf(folder), deps);
  t.match(await store.find(upload.id, T0), { media: { record: { sentSha256: hashOf(1) } } });
  t.match(await store.commitUpload(uploadOf(hashOf(1))), { kind: 'duplicate' });
  t.equal(store.journal.name, 'x', 'the journal keeps its name, so edges drop nothing');
  t.same(await verify(store, false), []);
  await store.close();
  await tamper(folder, (table) => {
    t.match(stampCodec.decode(table('about').getBinary('stamp') ?? Buffer.of()), { format: 5 });
  });
});

void t.test('a job of the version before is claimed, and others take turns beside it', async (t) => {
  const folder = t.testdir();
  const made = await openMetaStore(configOf(folder), deps);
  const hashes = [hashOf(1), hashOf(2), hashOf(3)];
  for (const sha256 of hashes) await made.commitUpload(uploadOf(sha256));
  await made.close();
  const [first = hashOf(1)] = hashes;
  await tamper(folder, (table) => {
    const now = jobCodec.decode(table('job').getBinary(first) ?? Buffer.of());
    for (const { key } of JOBS.indexes(now)) table('job_ready').removeSync(key as string[]);
    const { owner: _, turn: __, ...job } = now;
    table('job').putSync(first, createCodec({ 1: () => ({}) }).encode(job));
    table('job_ready').putSync([1, job.readyAt, job.queuedAt, first], Buffer.alloc(0));
    table('about').putSync('stamp', stampCodec.encode({ format: 2, journal: 'x', madeAt: T0 }));
  });
  const store = await openMetaStore(configOf(folder), deps);
  t.same(await verify(store, false), []);
  t.same((await store.jobs.claim('w', 9, T0 + 9, 9)).map(({ sha256 }) => sha256).sort(), [...hashes].sort());
  await store.jobs.giveBack(first, 'w');
  t.same(await verify(store, false), []);
  await store.close();
});

void t.test('a journal entry of the version before has a mark too, the same at every reading', async (t) => {
  const folder = t.testdir();
  await (await openMetaStore(configOf(folder), deps)).close();
  const old = { seq: 1, at: T0, cause: 'delete', ids: [] };
  await tamper(folder, (table) => table('journal').putSync(1, createCodec({ 1: () => ({}) }).encode(old)));
  const marks: unknown[] = [];
  for (let run = 0; run < 2; run += 1) {
    const store = await openMetaStore(configOf(folder), deps);
    const [entry] = await store.journal.read(0, 1);
    t.match(entry, old);
    marks.push(entry?.mark, store.journal.markOf(1));
    await store.close();
  }
  t.match(marks[0], /^[0-9a-f]{32}$/);
  t.equal(new Set(marks).size, 1);
});

void t.test('after the folder was put back to a snapshot, the same number has another mark', async (t) => {
  const root = t.testdir();
  const [folder, snapshot] = [join(root, 'meta'), join(root, 'snapshot')];
  const takeDown = async (count: number): Promise<readonly unknown[]> => {
    const store = await openMetaStore(configOf(folder), deps);
    for (let n = 0; n < count; n += 1) {
      const upload = uploadOf(hashOf(n + 1));
      await store.commitUpload(upload);
      await store.remove(upload.id, 'eve', T0);
    }
    const marks = [1, 2, 3].map((seq) => store.journal.markOf(seq));
    await store.close();
    return marks;
  };
  await takeDown(1);
  cpSync(folder, snapshot, { recursive: true });
  const before = await takeDown(2);
  rmSync(folder, { recursive: true });
  cpSync(snapshot, folder, { recursive: true });
  const after = await takeDown(2);
  t.equal(after[0], before[0], 'what the snapshot has is the same entry');
  for (const n of [1, 2]) t.ok(typeof before[n] === 'string' && after[n] !== before[n]);
});

void t.test('at its limits the store refuses writes with the right code', async (t) => {
  const root = t.testdir();
  const full = await openMetaStore({ ...configOf(`${root}/full`), dataMaxBytes: 10_000 }, deps);
  const first = uploadOf(hashOf(1));
  t.match(await full.commitUpload(first), { kind: 'created' });
  clock.advance(5_000);
  await t.rejects(full.commitUpload(uploadOf(hashOf(2))), { code: 'storage_full' });
  t.match(await full.remove(first.id, 'eve', T0), { kind: 'removed' }, 'deletes still work');
  t.equal(await full.room(), 'data_max');
  t.equal(await full.forgetTombstones(T0 + 1, 10), 1);
  t.equal(await full.room(), 'enough', 'a medium that is forgotten makes room for another');
  t.match(await full.commitUpload(uploadOf(hashOf(3))), { kind: 'created' });
  t.equal(await full.room(), 'data_max', 'for one');
  await t.rejects(full.commitUpload(uploadOf(hashOf(4))), { code: 'storage_full' });
  await full.close();

  const own = await openStore({ ...configOf(`${root}/busy`), queueMax: 2, commitMax: 1 }, deps);
  const busy = announced(own);
  const outcomes = await Promise.allSettled([1, 2, 3, 4].map((n) => busy.commitUpload(uploadOf(hashOf(n)))));
  t.same(
    outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value.kind : outcome.reason.code)),
    ['created', 'created', 'overloaded', 'overloaded'],
  );
  const accepted = uploadOf(hashOf(9), { bytes: IN_PLACE });
  await own.intend([mediaKey(accepted.sha256)]);
  const last = own.commitUpload(accepted);
  const closed = busy.close();
  t.match(await last, { kind: 'created' }, 'an accepted write is finished');
  await t.rejects(busy.commitUpload(uploadOf(hashOf(8))), { code: 'overloaded' });
  await Promise.all([closed, busy.close()]);
});

void t.test('a file that LMDB would map and believe is refused with what is wrong with it', async (t) => {
  const config = configOf(t.testdir());
  const path = join(config.folder, 'data.mdb');
  const store = await openMetaStore(config, deps);
  for (let n = 0; n < 300; n += 1) await store.commitUpload(uploadOf(n.toString(16).padStart(64, '0') as Sha256));
  await store.close();
  const whole = readFileSync(path);
  const pages = whole.length / 4_096;
  const cases: readonly (readonly [what: string, bytes: Buffer, why: RegExp])[] = [
    ['cut to its heads', whole.subarray(0, 2 * 4_096), /truncated to 2 of \d+ pages/],
    ['cut within its heads', whole.subarray(0, 100), /not an LMDB file|truncated/],
    ['text', Buffer.from('something else '.repeat(1_000)), /not an LMDB file/],
    ['zeros', Buffer.alloc(whole.length), /not an LMDB file/],
    ['pages of a size that there is not', changedAt(whole, 48, 100), /page size/],
    ['a root behind its end', changedAt(whole, 136, pages + 1, 4_096 + 136), /truncated/],
    ['more pages than it has', changedAt(whole, 144, pages + 1_025), /truncated/],
  ];
  for (const [what, bytes, why] of cases) {
    writeFileSync(path, bytes);
    await t.rejects(openMetaStore(config, deps), { message: why }, what);
    await t.rejects(openMetaReader(config, deps), { message: why }, what);
    const nothing = async (): Promise<void> => undefined;
    await t.rejects(readStore(config.folder, [], nothing), { message: why }, what);
    await t.rejects(
      openMetaStore(config, deps),
      { message: /data\.mdb cannot be opened: .*; restore the metadata/ },
      what,
    );
  }
  for (const bytes of [whole, changedAt(whole, 144, pages + 1_024 - 1)]) {
    writeFileSync(path, bytes);
    const again = await openMetaStore(config, deps);
    t.match(await again.findBlob('1'.padStart(64, '0') as Sha256), { sha256: '1'.padStart(64, '0') });
    await again.close();
  }
});

/** A copy with a number in the places given: of four bytes before byte 88, of eight from there on. */
function changedAt(bytes: Buffer, at: number, value: number, alsoAt = at): Buffer {
  const changed = Buffer.from(bytes);
  for (const place of [at, alsoAt]) {
    if (at < 88) changed.writeUInt32LE(value, place);
    else changed.writeBigUInt64LE(BigInt(value), place);
  }
  return changed;
}

void t.test('a second process can read and copy while the first one writes', async (t) => {
  const root = t.testdir();
  const folder = `${root}/live`;
  const store = await openMetaStore(configOf(folder), deps);
  const reader = await openMetaReader(configOf(folder), deps);
  const upload = uploadOf(hashOf(1));
  t.same(await reader.find(upload.id, T0), { kind: 'unknown' });
  await store.commitUpload(upload);
  await store.remove(upload.id, 'eve', T0);
  await new Promise(setImmediate);
  t.match(await reader.find(upload.id, T0), { kind: 'deleted' });
  await reader.backup(`${root}/copy`);
  await store.commitUpload(uploadOf(hashOf(2)));
  await t.rejects(store.backup(`${root}/copy`), { message: /already contains a metadata store/ });
  await store.backup(`${root}/copy2`);
  await reader.close();
  await store.close();

  const copy = await openMetaStore(configOf(`${root}/copy`), deps);
  t.match(await copy.find(upload.id, T0), { kind: 'deleted' });
  t.equal(await copy.findBlob(hashOf(2)), undefined);
  t.equal(copy.journal.newest(), 1);
  t.not(copy.journal.name, store.journal.name, 'the copy gives out journal numbers of its own');
  t.same(await verify(copy, false), []);
  await copy.close();
});

void t.test('stored records have a version and a checksum', async (t) => {
  const old = createCodec({ 1: (fields) => ({ name: fields.take('name', text) }) });
  const now = createCodec({
    1: (fields) => ({ name: fields.take('name', text), size: 0 }),
    2: (fields) => ({ name: fields.take('name', text), size: fields.take('size', count) }),
  });
  t.equal(now.encode({ name: 'x', size: 1 })[0], 2);
  t.same(now.decode(old.encode({ name: 'x' })), { name: 'x', size: 0 }, 'the previous version is read');
  t.throws(() => old.decode(now.encode({ name: 'x', size: 1 })), {
    message: 'it has version 2; this release reads up to 1',
  });
  t.throws(() => now.decode(old.encode({} as { name: string })), { message: '`name` is not a string' });
  t.throws(() => now.decode(Buffer.from([2, 0])), { message: 'it has only 2 bytes' });
  fc.assert(
    fc.property(anyText, fc.nat(), (name, flip) => {
      const bytes = now.encode({ name, size: flip });
      assert.deepEqual(now.decode(bytes), { name, size: flip });
      const at = flip % bytes.length;
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (flip % 8));
      assert.throws(() => now.decode(bytes));
    }),
    { numRuns: 50 },
  );
});

/** Any UTF-16 units, lone surrogates included. */
const anyText = fc.array(fc.nat({ max: 0xffff })).map((units) => String.fromCharCode(...units));

const RAW = { encoding: 'binary', maxDbs: 32, overlappingSync: false, noSubdir: false } as const;

type RawTable = (name: string) => {
  getBinary(key: Key): Buffer | undefined;
  putSync(key: Key, value: Buffer): void;
  removeSync(key: Key): boolean;
};

/** Changes the database behind the store's back, as a failing disk would. */
async function tamper(folder: string, change: (table: RawTable) => void): Promise<void> {
  const root = open(folder, RAW);
  change((name) => root.openDB({ name, encoding: 'binary' }));
  await root.close();
}

async function verify(store: MetaStore, repair: boolean): Promise<readonly string[]> {
  const found: string[] = [];
  await store.verify({
    repair,
    now: T0,
    signal: new AbortController().signal,
    onFinding: ({ kind, table, key }) => found.push(`${kind} ${table} ${key}`),
    onBlobUnknown: ({ id }) => found.push(`blob_unknown media ${id}`),
    onProgress: () => undefined,
  });
  return found;
}

function hashOf(n: number): Sha256 {
  return n.toString(16).padStart(64, '0') as Sha256;
}
