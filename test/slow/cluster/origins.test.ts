/** Several origins over one PostgreSQL database: their registry, and the journal as each of them tells it. */
import t, { type Test } from 'tap';
import { mediaKey, type Place } from '../../../origin/blobs/blob-store.js';
import { NO_FACTS } from '../../../origin/meta/media.js';
import { openPool } from '../../../origin/meta/postgres/pool.js';
import { openPostgresStore } from '../../../origin/meta/postgres/store.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { type Clock, systemClock } from '../../../src/clock.js';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import type { JournalEntry } from '../../../src/journal/entry.js';
import { ManualClock } from '../../kit/clock.js';
import { adminMark, findingsOf, T0, uploadOf } from '../../kit/origin/meta/contract.js';
import { openPostgres } from '../../kit/postgres/server.js';
import { openStore, postgresConfig, storeDeps } from '../../kit/postgres/stores.js';
import { seeded } from '../../kit/random.js';
import { untilAsync } from '../../kit/until.js';

const postgres = await openPostgres();
const skip = postgres === null ? 'there is no PostgreSQL server on this machine' : false;
t.teardown(() => postgres?.close());

const hashOf = (n: number): Sha256 => n.toString(16).padStart(64, '0') as Sha256;

async function database(): Promise<string> {
  return (await postgres?.database()) ?? '';
}

async function origin(t: Test, url: string, name: string, clock: Clock = systemClock): Promise<MetaStore> {
  const store = await openStore(url, { kind: 'origin', name }, { clock });
  t.teardown(() => store.close());
  return store;
}

const MINE = mediaKey({ sha256: hashOf(8), place: 'mine' as Place });
const THEIRS = mediaKey({ sha256: hashOf(9), place: 'theirs' as Place });

const namesOf = (store: MetaStore): readonly string[] => store.origins.living().map(({ name }) => name);

void t.test('origins know each other, and a name counts until its origin has left', { skip }, async (t) => {
  const url = await database();
  const [b, a] = [await origin(t, url, 'b'), await origin(t, url, 'a')];
  const command = await openStore(url, { kind: 'beside' });
  t.teardown(() => command.close());
  await untilAsync('both know both', async () => [a, b].every((store) => namesOf(store).length === 2));
  t.same(namesOf(a), ['a', 'b'], 'a command beside them does not count');
  t.same(a.origins.living(), b.origins.living());
  await b.close();
  await untilAsync('the other has left', async () => namesOf(a).length === 1);
});

void t.test('a second origin of the same name is refused while the first lives', { skip }, async (t) => {
  const url = await database();
  const first = await origin(t, url, 'a');
  await t.rejects(origin(t, url, 'a'), { message: /another origin has the name a in the same database/ });
  await first.close();
  await origin(t, url, 'a');
});

void t.test(
  'a restarted origin takes back what its earlier run had, and nothing of the others',
  { skip },
  async (t) => {
    const url = await database();
    // Its clock stands still: like a process that was stopped, it beats no more.
    const stopped = await origin(t, url, 'a', new ManualClock(Date.now()));
    const other = await origin(t, url, 'b');
    for (const n of [1, 2, 3]) await other.commitUpload(uploadOf(hashOf(n)));
    const [mine] = await stopped.jobs.claim('a/engine', 1, Date.now(), 3_600_000);
    const [theirs] = await other.jobs.claim('b/engine', 1, Date.now(), 3_600_000);
    const [similar] = await other.jobs.claim('ab/engine', 1, Date.now(), 3_600_000);
    await stopped.intend([MINE]);
    await other.intend([THEIRS]);

    const again = await origin(t, url, 'a');
    t.same(await again.jobs.counts(), { waiting: 1, leased: 2, dead: 0 });
    t.same(
      (await again.jobs.claim('a/next', 9, Date.now(), 3_600_000)).map(({ sha256 }) => sha256),
      [mine?.sha256],
    );
    t.ok(await other.jobs.renew(theirs?.sha256 ?? hashOf(0), 'b/engine', Date.now() + 1_000));
    t.ok(await other.jobs.renew(similar?.sha256 ?? hashOf(0), 'ab/engine', Date.now() + 1_000));
    t.notOk(await stopped.jobs.renew(mine?.sha256 ?? hashOf(0), 'a/engine', Date.now() + 1_000));
    t.same(await again.trash(Date.now() + 60_000, 9), [MINE]);
    t.same(await again.leftBehind([THEIRS]), []);

    const sha256 = hashOf(20);
    const place = 'late' as Place;
    const frozen = await openPostgresStore(postgresConfig(url), {
      ...storeDeps,
      clock: new ManualClock(Date.now()),
      opener: { kind: 'origin', name: 'frozen' },
    });
    t.teardown(() => frozen.close());
    await frozen.intend([mediaKey({ sha256, place })]);
    await origin(t, url, 'frozen');
    const late = { ...uploadOf(sha256), bytes: { kind: 'stored', place, damaged: null } } as const;
    t.same(await frozen.commitUpload(late), { kind: 'bytes_gone' }, 'bytes that are in the trash enter no record');
  },
);

void t.test('bytes whose intent a crash of the database took do not stay in the store', { skip }, async (t) => {
  const url = await database();
  const store = await origin(t, url, 'a');
  await store.intend([MINE, THEIRS]);
  // An intent costs no sync, so the last ones are lost if the server is killed.
  await postgres?.query(url, 'DELETE FROM intent');
  t.same(await store.withdraw([MINE]), [MINE], 'who gives up is told to remove them');
});

void t.test('an origin whose clock is off says so, and proves nothing to edges', { skip }, async (t) => {
  const clock: Clock = { ...systemClock, now: () => systemClock.now() + 60_000 };
  const url = await database();
  const off = await origin(t, url, 'off', clock);
  await t.rejects(off.origins.checkClock(), { code: 'storage_unavailable' });
  t.equal(off.journal.proof.ageMs(), null);
  const right = await origin(t, url, 'right');
  await right.origins.checkClock();
  t.type(right.journal.proof.ageMs(), 'number');

  await right.commitUpload(uploadOf(hashOf(1)));
  await off.jobs.claim('off/engine', 1, clock.now(), 30_000);
  t.same(await right.jobs.claim('right/engine', 1, systemClock.now() + 29_000, 1), [], 'a lease is as long as meant');
  t.equal((await right.jobs.claim('right/engine', 1, systemClock.now() + 31_000, 1)).length, 1);
});

void t.test('every origin tells every entry in order, whoever has added it', { skip }, async (t) => {
  const url = await database();
  const [one, two, three] = [await origin(t, url, 'a'), await origin(t, url, 'b'), await origin(t, url, 'c')];
  const stores = [one, two, three] as const;
  const told = stores.map((store) => {
    const entries: JournalEntry[] = [];
    store.journal.subscribe((entry) => entries.push(entry));
    return entries;
  });
  const uploads = Array.from({ length: 120 }, (_, n) => uploadOf(hashOf(n)));
  await Promise.all(uploads.map((upload) => one.commitUpload(upload)));
  await Promise.all(uploads.map(({ id }, n) => stores[(n % 3) as 0 | 1 | 2].remove(id, 'eve', T0)));
  await untilAsync('all are told everywhere', async () => told.every((entries) => entries.length === uploads.length));
  for (const entries of told)
    t.same(
      entries.map(({ seq }) => seq),
      uploads.map((_, n) => n + 1),
    );
  t.same(told[1], told[0]);
  const added = await one.remove(uploadOf(hashOf(500)).id, 'eve', T0);
  t.same(added, { kind: 'unknown' });
});

void t.test(
  'a journal that goes on from an earlier state is noticed, whatever number it has reached',
  { skip },
  async (t) => {
    const url = await database();
    const [store, other] = [await origin(t, url, 'a'), await origin(t, url, 'b')];
    const resets: number[] = [];
    store.journal.onReset(() => resets.push(store.journal.newest()));
    const told: JournalEntry[] = [];
    store.journal.subscribe((entry) => told.push(entry));
    const uploads = Array.from({ length: 12 }, (_, n) => uploadOf(hashOf(n)));
    for (const upload of uploads) await store.commitUpload(upload);
    for (const { id } of uploads.slice(0, 5)) await store.remove(id, 'eve', T0);
    t.equal(store.journal.newest(), 5);
    const lost = store.journal.markOf(5);

    await postgres?.query(
      url,
      "BEGIN; DELETE FROM journal WHERE seq > 2; INSERT INTO journal SELECT n, 'later' || n, 0, 'delete', '{}' FROM generate_series(3, 9) AS n; COMMIT",
    );
    await untilAsync('both notice', async () => [store, other].every(({ journal }) => journal.markOf(9) === 'later9'));
    t.same(resets, [9]);
    t.equal(told.length, 5, 'nothing of the other history was told as if it followed');
    t.not(store.journal.markOf(5), lost);
    await store.remove(uploads[6]?.id ?? uploadOf(hashOf(0)).id, 'eve', T0);
    t.match(told.at(-1), { seq: 10 });
    t.equal((await store.journal.read(0, 100)).length, 10);
  },
);

void t.test('one origin has a duty until it leaves, and the next goes on from its note', { skip }, async (t) => {
  const url = await database();
  const [a, b] = [await origin(t, url, 'a'), await origin(t, url, 'b')];
  for (let time = 0; time < 2; time += 1) {
    t.ok(await a.duties.take('walk', 1_000));
    t.notOk(await b.duties.take('walk', 1_000));
  }
  t.ok(await b.duties.take('sweep', 1_000), 'each duty is one of its own');
  await a.duties.keepNote('walk', { parts: 7 });
  await b.duties.keepNote('walk', { parts: 1 });
  t.same(await b.duties.note('walk'), { parts: 7 }, 'only its holder notes');
  await a.close();
  t.ok(await b.duties.take('walk', 1_000));
  t.same(await b.duties.note('walk'), { parts: 7 });
  const off = await origin(t, url, 'off', { ...systemClock, now: () => systemClock.now() + 60_000 });
  t.notOk(await off.duties.take('trim', 1_000), 'an origin whose clock is off ends nothing for the others');
});

void t.test('who waits for thumbnails learns which ones another origin has made', { skip }, async (t) => {
  const url = await database();
  const [a, b] = [await origin(t, url, 'a'), await origin(t, url, 'b')];
  const hashes = [1, 2, 3].map(hashOf);
  for (const sha256 of hashes.slice(0, 2)) await a.commitUpload(uploadOf(sha256));
  t.same(await b.jobs.others?.ended(hashes), [hashOf(3)], 'one that is gone is not waited for');
  await a.finishThumbs(hashOf(1), { kind: 'refused', reason: 'failed', picture: NO_FACTS });
  t.same(await b.jobs.others?.ended(hashes.slice(0, 2)), [hashOf(1)]);
});

void t.test('an origin that stops within a transaction does not hold up the others for long', { skip }, async (t) => {
  const url = await database();
  const other = await origin(t, url, 'b');
  const upload = uploadOf(hashOf(1));
  await other.commitUpload(upload);
  const config = postgresConfig(url, '', { statement_timeout: '300ms' });
  const stopped = openPool(config.postgres, url, storeDeps.log);
  t.teardown(() => stopped.close());
  let goOn = (): void => undefined;
  const transaction = stopped.transact(async (run) => {
    await run('SELECT FROM about FOR UPDATE');
    await new Promise<void>((resolve) => {
      goOn = resolve;
    });
    await run('COMMIT');
  });
  transaction.catch(() => undefined);
  await untilAsync('it has the lock of the journal', async () => {
    const held = "SELECT FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%about%'";
    return ((await postgres?.query(url, held)) ?? []).length > 0;
  });
  t.match(await other.remove(upload.id, 'eve', T0), { kind: 'removed' });
  goOn();
  await t.rejects(transaction, 'its own transaction is gone');
});

void t.test('every act of two origins is in the journal, in the order in which it took effect', { skip }, async (t) => {
  const url = await database();
  const [a, b] = [await origin(t, url, 'a'), await origin(t, url, 'b')];
  const random = seeded(11);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  const blobs = Array.from({ length: 8 }, (_, n) => ({
    sha256: hashOf(n),
    ids: [uploadOf(hashOf(n), { public: true }), uploadOf(hashOf(n), { public: false })],
  }));
  for (const upload of blobs.flatMap(({ ids }) => ids)) t.match(await a.commitUpload(upload), { kind: 'created' });
  const done: { readonly seq: number; readonly cause: string; readonly ids: readonly MediaId[] }[] = [];
  const act = async (store: MetaStore, n: number): Promise<void> => {
    const { sha256, ids } = pick(blobs);
    const all = ids.map(({ id }) => id);
    const kind = random();
    if (kind < 0.06) {
      const { id } = pick(ids);
      const outcome = await store.remove(id, 'eve', T0 + n);
      if (outcome.kind === 'removed') done.push({ seq: outcome.seq, cause: 'delete', ids: [id] });
    } else if (kind < 0.5) {
      const outcome = await store.quarantine(sha256, adminMark(T0 + n));
      if (outcome.kind === 'done') done.push({ seq: outcome.seq, cause: 'quarantine', ids: all });
    } else {
      const outcome = await store.restore(sha256, T0 + n);
      if (outcome.kind === 'done') done.push({ seq: outcome.seq, cause: 'restore', ids: all });
    }
  };
  for (let n = 0; n < 400; n += 20) {
    await Promise.all(Array.from({ length: 20 }, (_, m) => act(m % 2 === 0 ? a : b, n + m)));
  }
  const entries = await b.journal.read(0, 10_000);
  t.same(
    done.map(({ seq, cause }) => [seq, cause]).sort((one, other) => Number(one[0]) - Number(other[0])),
    entries.map(({ seq, cause }) => [seq, cause]),
    'each act has its entry, and each entry its act',
  );
  for (const { sha256, ids } of blobs) {
    const own = entries.filter((entry) => ids.some(({ id }) => entry.ids.includes(id)));
    const marks = own.filter(({ cause }) => cause !== 'delete').map(({ cause }) => cause);
    t.same(
      marks,
      marks.map((_, n) => (n % 2 === 0 ? 'quarantine' : 'restore')),
      'they take turns',
    );
    for (const { id } of ids) {
      const deletes = own.filter((entry) => entry.cause === 'delete' && entry.ids.includes(id));
      t.ok(deletes.length <= 1);
      const found = await a.find(id, T0 + 1_000);
      if (deletes.length > 0) t.equal(found.kind, 'deleted');
      else t.equal(found.kind, marks.at(-1) === 'quarantine' ? 'quarantined' : 'live', sha256);
    }
  }
  t.same(await findingsOf(a), []);
});
