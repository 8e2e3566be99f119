/** The metadata store on PostgreSQL, with a server of the system. */
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { openMetaStore } from '../../origin/meta/lmdb.js';
import { NO_FACTS } from '../../origin/meta/media.js';
import { moveToLmdb, moveToPostgres } from '../../origin/meta/move.js';
import { type Opener, openPostgresStore } from '../../origin/meta/postgres/store.js';
import type { MetaStore } from '../../origin/meta/store.js';
import { Fault } from '../../src/errors.js';
import type { MediaId, Sha256 } from '../../src/ids.js';
import { createLog } from '../../src/log.js';
import { ManualClock } from '../kit/clock.js';
import { metaAgainContract } from '../kit/origin/meta/again-contract.js';
import {
  adminMark,
  announced,
  findingsOf,
  type MetaUnderTest,
  metaContract,
  T0,
  uploadOf,
} from '../kit/origin/meta/contract.js';
import { metaOwnedContract } from '../kit/origin/meta/owned-contract.js';
import { openPostgres } from '../kit/postgres/server.js';
import { postgresConfig } from '../kit/postgres/stores.js';
import { seeded } from '../kit/random.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../kit/until.js';

const postgres = await openPostgres();
const skip = postgres === null ? 'there is no PostgreSQL server on this machine' : false;
t.teardown(() => postgres?.close());
t.setTimeout(FILE_HANGS_AFTER_MS);

const deps = {
  clock: new ManualClock(),
  log: createLog('test', { level: 'silent' }),
  randomName: () => randomUUID(),
  random: Math.random,
  opener: { kind: 'alone' },
} as const;

async function openIn(url: string, opener: Opener = deps.opener): Promise<MetaStore> {
  return announced(await openPostgresStore(postgresConfig(url), { ...deps, opener }));
}

function openOrigin(url: string, name: string): Promise<MetaStore> {
  return openIn(url, { kind: 'origin', name });
}

void t.test('the store on PostgreSQL fulfils the contract of metadata stores', { skip }, async (t) => {
  const urls = new Map<MetaStore, string>();
  const open = async (url: string): Promise<MetaStore> => {
    const store = await openIn(url);
    urls.set(store, url);
    return store;
  };
  const kit: MetaUnderTest = {
    usedStepMs: 10,
    histories: 8,
    fresh: async () => open((await postgres?.database()) ?? ''),
    async again(store) {
      await store.close();
      return open(urls.get(store) ?? '');
    },
  };
  await metaContract(t, kit);
  await metaAgainContract(t, kit);
  await metaOwnedContract(t, kit);
});

const A = 'a'.repeat(64) as Sha256;
const hashOf = (n: number): Sha256 => n.toString(16).padStart(64, '0') as Sha256;

async function two(t: Test): Promise<readonly [MetaStore, MetaStore, string]> {
  const url = (await postgres?.database()) ?? '';
  const stores = [await openOrigin(url, 'a'), await openOrigin(url, 'b')] as const;
  t.teardown(() => Promise.all(stores.map((store) => store.close())));
  return [...stores, url];
}

void t.test('two origins that upload the same bytes at once make one record of them', { skip }, async (t) => {
  const [one, other] = await two(t);
  for (let round = 0; round < 20; round += 1) {
    const sha256 = hashOf(round);
    const outcomes = await Promise.all(
      Array.from({ length: 8 }, (_, n) => (n % 2 === 0 ? one : other).commitUpload(uploadOf(sha256))),
    );
    t.same(outcomes.map(({ kind }) => kind).sort(), ['created', ...Array<string>(7).fill('duplicate')]);
    t.equal((await other.idsOfBlob(sha256)).length, 1);
  }
  t.same(await findingsOf(one), []);
});

void t.test(
  'numbers of the journal have no gaps and become visible in order, whoever takes down',
  { skip },
  async (t) => {
    const [one, other, url] = await two(t);
    const reader = await openIn(url, { kind: 'beside' });
    t.teardown(() => reader.close());
    const uploads = Array.from({ length: 200 }, (_, n) => uploadOf(hashOf(n)));
    await Promise.all(uploads.map((upload) => one.commitUpload(upload)));
    const stop = new AbortController();
    const seen: number[] = [];
    // A follower that asks all the time and never looks back.
    const following = (async () => {
      while (!stop.signal.aborted || seen.length < uploads.length) {
        for (const { seq } of await reader.journal.read(seen.at(-1) ?? 0, 7)) seen.push(seq);
      }
    })();
    const removed = await Promise.all(uploads.map(({ id }, n) => (n % 2 === 0 ? one : other).remove(id, 'eve', T0)));
    stop.abort();
    await following;
    const all = uploads.map((_, n) => n + 1);
    t.same(seen, all);
    t.same(
      removed.map((outcome) => (outcome.kind === 'removed' ? outcome.seq : 0)).sort((a, b) => a - b),
      all,
    );
    t.ok(one.journal.newest() === 200 || other.journal.newest() === 200);
  },
);

void t.test('an upload that comes while the last id is deleted keeps its blob', { skip }, async (t) => {
  const [one, other] = await two(t);
  let live = uploadOf(A);
  await one.commitUpload(live);
  for (let round = 0; round < 60; round += 1) {
    const next = uploadOf(A, { public: round % 2 === 0 });
    const [, , freed] = await Promise.all([
      one.remove(live.id, 'eve', T0),
      other.commitUpload(next),
      one.forgetBlob(A),
    ]);
    const found = await other.find(next.id, T0);
    if (found.kind === 'live') t.ok(await one.findBlob(A), `round ${round}, ${freed?.length ?? 0} keys freed`);
    t.same(await findingsOf(one), [], `round ${round}`);
    live = next;
  }
});

void t.test('random acts of two origins leave records that agree, and each act happens once', { skip }, async (t) => {
  const [one, other] = await two(t);
  const random = seeded(7);
  const ids: MediaId[] = [];
  const acts: Promise<unknown>[] = [];
  for (let n = 0; n < 600; n += 1) {
    const store = random() < 0.5 ? one : other;
    const sha256 = hashOf(Math.floor(random() * 12));
    const id = ids[Math.floor(random() * ids.length)];
    const kind = Math.floor(random() * 8);
    if (kind <= 2 || id === undefined) {
      const upload = uploadOf(sha256, { public: random() < 0.5, expiresAt: random() < 0.3 ? T0 + n : null });
      ids.push(upload.id);
      acts.push(store.commitUpload({ ...upload, quota: { periodStartAt: T0, bytesMax: 1e9, filesMax: 1e6 } }));
    } else if (kind === 3) acts.push(store.remove(id, 'eve', T0 + n));
    else if (kind === 4) acts.push(store.quarantine(sha256, adminMark(T0 + n, 'rot')), store.restore(sha256, T0 + n));
    else if (kind === 5) acts.push(store.expireDue(T0 + n, 5), store.forgetBlob(sha256));
    else if (kind === 6) acts.push(claimAndEnd(store, n));
    else acts.push(store.redoThumbs(sha256, 'asked', T0 + n));
    if (n % 20 === 0) await Promise.all(acts);
  }
  await Promise.all(acts);
  t.same(await findingsOf(one), []);
  const entries = await one.journal.read(0, 10_000);
  t.same(
    entries.map(({ seq }) => seq),
    entries.map((_, n) => n + 1),
  );
  const ended = entries.filter(({ cause }) => cause === 'delete' || cause === 'expire').flatMap((entry) => entry.ids);
  t.equal(new Set(ended).size, ended.length, 'no id ends twice');
});

async function claimAndEnd(store: MetaStore, n: number): Promise<void> {
  for (const job of await store.jobs.claim(`w${n}`, 2, T0 + n, 1_000_000)) {
    if (n % 3 === 0) await store.jobs.retry(job.sha256, `w${n}`, T0 + n, null);
    else await store.finishThumbs(job.sha256, { kind: 'refused', reason: 'failed', picture: NO_FACTS });
  }
}

void t.test('a job is claimed by one of many', { skip }, async (t) => {
  const [one, other] = await two(t);
  await Promise.all(Array.from({ length: 40 }, (_, n) => one.commitUpload(uploadOf(hashOf(n)))));
  const claimed = await Promise.all(
    Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? one : other).jobs.claim(`w${n}`, 3, T0, 1_000_000)),
  );
  const hashes = claimed.flat().map(({ sha256 }) => sha256);
  t.equal(new Set(hashes).size, hashes.length, 'none twice');
  t.same(await one.jobs.counts(), { waiting: 40 - hashes.length, leased: hashes.length, dead: 0 });
});

void t.test(
  'what was acknowledged is there after the server was killed, and the store goes on by itself',
  { skip },
  async (t) => {
    const server = await openPostgres();
    t.teardown(() => server?.close());
    const url = (await server?.database()) ?? '';
    const store = await openIn(url);
    t.teardown(() => store.close());
    const acknowledged: MediaId[] = [];
    const removed: MediaId[] = [];
    let refused = 0;
    const stop = new AbortController();
    const working = Array.from({ length: 8 }, async (_, worker) => {
      for (let n = 0; !stop.signal.aborted; n += 1) {
        const upload = uploadOf(hashOf(worker * 1_000_000 + n));
        try {
          await store.commitUpload(upload);
          acknowledged.push(upload.id);
          if (n % 3 > 0) continue;
          await store.remove(upload.id, 'eve', T0);
          removed.push(upload.id);
        } catch (thrown) {
          t.equal(thrown instanceof Fault && thrown.status, 503, String(thrown));
          refused += 1;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
    });
    for (let round = 1; round <= 3; round += 1) {
      const before = acknowledged.length;
      await untilAsync('uploads are acknowledged', async () => acknowledged.length > before + 50);
      await server?.restart();
    }
    const before = acknowledged.length;
    await untilAsync('uploads are acknowledged again', async () => acknowledged.length > before + 50);
    stop.abort();
    await Promise.all(working);
    t.ok(refused > 0, 'the server was away');
    const gone = new Set(removed);
    for (const id of acknowledged) {
      const { kind } = await store.find(id, T0);
      // A delete whose answer was lost may have happened.
      if (kind !== 'deleted' || gone.has(id)) t.equal(kind, gone.has(id) ? 'deleted' : 'live', id);
    }
    const entries = await store.journal.read(0, 100_000);
    t.same(
      entries.map(({ seq }) => seq),
      entries.map((_, n) => n + 1),
    );
    t.same(await findingsOf(store), []);
  },
);

void t.test('a command that needs the database for itself and origins keep each other out', { skip }, async (t) => {
  const url = (await postgres?.database()) ?? '';
  const first = await openOrigin(url, 'a');
  const second = await openOrigin(url, 'b');
  await first.close();
  await t.rejects(openIn(url), { name: 'Error', message: /in use by an origin: stop every origin first/ });
  await second.close();
  const command = await openIn(url);
  await t.rejects(openOrigin(url, 'a'), { name: 'Error', message: /kept by a command that needs it for itself/ });
  await t.rejects(openIn(url), { name: 'Error', message: /in use by an origin/ });
  await command.close();
  const third = await openOrigin(url, 'a');
  await third.close();
});

void t.test(
  'edges may count on the journal only from the last write that the database has taken',
  { skip },
  async (t) => {
    const server = await openPostgres();
    t.teardown(() => server?.close());
    const clock = new ManualClock(Date.now());
    const url = (await server?.database()) ?? '';
    const opener = { kind: 'origin', name: 'a' } as const;
    const store = await openPostgresStore(postgresConfig(url, '', { clock_off_max: '10m' }), {
      ...deps,
      clock,
      opener,
    });
    const { proof } = store.journal;
    t.equal(proof.ageMs(), 0, 'the first beat is proved when the store is open');
    let renewals = 0;
    const stop = proof.onRenewal(() => (renewals += 1));
    clock.advance(900);
    t.equal(proof.ageMs(), 900);
    clock.advance(100);
    await untilAsync('the next beat is committed', async () => renewals === 1);
    t.equal(proof.ageMs(), 0);

    await server?.stop();
    clock.advance(14_000);
    t.equal(proof.ageMs(), 14_000, 'the journal may have gone on elsewhere');
    clock.advance(1_000);
    await t.rejects(
      store.remove(uploadOf(A).id, 'eve', T0),
      { code: 'storage_unavailable' },
      'it may have been moved away meanwhile',
    );
    await server?.start();
    await untilAsync('a beat is committed again', async () => {
      clock.advance(1_000);
      return renewals > 1;
    });
    t.same(await store.remove(uploadOf(A).id, 'eve', T0), { kind: 'unknown' });
    stop();
    await store.close();
  },
);

void t.test('a server that could lose what was acknowledged is refused', { skip }, async (t) => {
  for (const [setting, message] of [
    ['fsync=off', /fsync off/],
    ['full_page_writes=off', /full_page_writes off/],
    ['synchronous_commit=off', /synchronous_commit off/],
  ] as const) {
    const server = await openPostgres([setting]);
    const url = (await server?.database()) ?? '';
    await t.rejects(openIn(url), { message });
    await server?.close();
  }
});

void t.test('a schema of a newer release, or another one of the same number, is refused', { skip }, async (t) => {
  const url = (await postgres?.database()) ?? '';
  await (await openIn(url)).close();
  await postgres?.query(url, "UPDATE migration SET sum = 'other' WHERE version = 1");
  await t.rejects(openIn(url), { message: /another step 1 of the schema/ });
  await postgres?.query(url, "INSERT INTO migration VALUES (99, 'later', '', 0)");
  await t.rejects(openIn(url), { message: /written by a newer release \(schema 99/ });
});

void t.test(
  'everything moves from LMDB to PostgreSQL and back, is read back, and may not be used twice',
  { skip },
  async (t) => {
    const folder = t.testdir();
    const config = postgresConfig((await postgres?.database()) ?? '', join(folder, 'meta'));
    const source = announced(await openMetaStore(config, deps));
    const uploads = Array.from({ length: 30 }, (_, n) =>
      uploadOf(hashOf(n), { owner: `o\0${n % 4}\ud800`, filename: n % 2 === 0 ? null : 'Bild ☂\ue000.png' }),
    );
    for (const upload of uploads)
      await source.commitUpload({ ...upload, quota: { periodStartAt: T0, bytesMax: 1e9, filesMax: 1e9 } });
    for (const { id } of uploads.slice(0, 9)) await source.remove(id, 'eve', T0 + 1);
    await source.quarantine(hashOf(20), { at: T0, by: 'eve', reason: 'why\0', cause: 'admin' });
    const [job] = await source.jobs.claim('w', 1, T0, 10);
    await source.jobs.bury(job?.sha256 ?? A, 'broken', T0);
    const listed = await source.list({ limit: 100, now: T0 });
    const entries = await source.journal.read(0, 100);
    const never = new AbortController().signal;
    await t.rejects(
      moveToPostgres(config, deps, never, () => undefined),
      { name: 'FolderInUse' },
    );
    await source.close();

    const stopped = AbortSignal.abort(new Error('stopped'));
    await t.rejects(
      moveToPostgres(config, deps, stopped, () => undefined),
      { message: 'stopped' },
    );
    await t.rejects(openPostgresStore(config, deps), { message: /run `media-service migrate` again/ });
    const { records } = await moveToPostgres(config, deps, never, () => undefined);
    t.equal(records, 30 + 30 + 20 + 1 + 4 + entries.length, 'media, blobs, jobs, dead letters, usage and entries');
    await t.rejects(openMetaStore(config, deps), {
      message: /were moved to PostgreSQL on .* Remove .*moved to use it/,
    });
    await t.rejects(
      moveToPostgres(config, deps, never, () => undefined),
      { name: 'DatabaseInUse' },
    );

    const moved = announced(await openPostgresStore(config, deps));
    t.same(await moved.list({ limit: 100, now: T0 }), listed);
    t.same(await moved.journal.read(0, 100), entries);
    t.equal(moved.journal.name, source.journal.name);
    t.same(await moved.usage('o\x001\ud800', T0), { bytes: 8_000, files: 8 });
    t.match(await moved.jobs.dead(9), [{ sha256: job?.sha256, reason: 'broken' }]);
    const late = uploadOf(A);
    await moved.commitUpload(late);
    t.same(await moved.remove(late.id, 'eve', T0), { kind: 'removed', seq: entries.length + 1 });
    await moved.close();

    const back = { ...config, folder: join(folder, 'back') };
    await mkdir(back.folder);
    const origin = await openPostgresStore(config, { ...deps, opener: { kind: 'origin', name: 'a' } });
    await t.rejects(
      moveToLmdb(back, deps, never, () => undefined),
      { message: /in use by an origin/ },
    );
    await origin.close();
    await t.rejects(
      moveToLmdb(back, deps, stopped, () => undefined),
      { message: 'stopped' },
    );
    t.notOk(
      existsSync(join(back.folder, 'data.mdb')),
      'a move that was stopped leaves nothing that an origin would start on',
    );
    await moveToLmdb(back, deps, never, () => undefined);
    await t.rejects(openPostgresStore(config, deps), { message: /run `media-service migrate` again/ });
    const returned = await openMetaStore(back, deps);
    t.match(await returned.find(late.id, T0), { kind: 'deleted' });
    t.same((await returned.journal.read(0, 100)).slice(0, -1), entries);
    t.same(await findingsOf(returned), []);
    await returned.close();
  },
);

void t.test('a backup of the database is one of the embedded store', { skip }, async (t) => {
  const folder = join(t.testdir(), 'copy');
  const store = await openIn((await postgres?.database()) ?? '');
  const upload = uploadOf(A);
  await store.commitUpload(upload);
  await store.backup(folder);
  await store.close();
  const copy = await openMetaStore(postgresConfig('-', folder), deps);
  t.match(await copy.find(upload.id, T0), { kind: 'live' });
  t.not(copy.journal.name, store.journal.name, 'edges must not take one history for the other');
  await copy.close();
});
