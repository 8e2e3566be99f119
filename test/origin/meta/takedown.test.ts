import t from 'tap';
import type { MetaConfig } from '../../../origin/meta/config.js';
import { createDataLimit } from '../../../origin/meta/lmdb/data-limit.js';
import { keysOf, type Quarantine } from '../../../origin/meta/media.js';
import type { StoredBlob } from '../../../origin/meta/records.js';
import type { NewMedia, RecordsRoom } from '../../../origin/meta/store.js';
import { BLOBS, DEAD, JOBS, read, write } from '../../../origin/meta/tables.js';
import {
  blobsAwaitingScan,
  expireDue,
  expireUnused,
  forgetBlob,
  forgetTombstones,
  isAnyDue,
  isUnreferenced,
  quarantine,
  removeMedia,
  resolveScan,
  restore,
  unreferencedBlobs,
  updateReference,
} from '../../../origin/meta/takedown.js';
import { appendEntry, createJournal } from '../../../origin/meta/takedown-journal.js';
import { commitUpload, readUsage, recordBlob } from '../../../origin/meta/uploads.js';
import type { Sha256 } from '../../../src/ids.js';
import type { JournalEntry } from '../../../src/journal/entry.js';
import { createLog } from '../../../src/log.js';
import { adminMark, T0, uploadOf } from '../../kit/origin/meta/contract.js';
import { MemoryTables } from '../../kit/origin/meta/memory-tables.js';

const hashOf = (n: number): Sha256 => n.toString(16).padStart(64, '0') as Sha256;
const [A, B, C] = [1, 2, 3].map(hashOf) as [Sha256, Sha256, Sha256];
const RUBBISH = Buffer.from('rubbish');

function stored(uploads: readonly NewMedia[]): MemoryTables {
  const tables = new MemoryTables();
  for (const upload of uploads) tables.change((change) => commitUpload(change, upload));
  return tables;
}

const blobIn = (tables: MemoryTables, sha256: Sha256): StoredBlob => {
  const found = read(tables, BLOBS, sha256);
  if (found === undefined) throw new Error('there is no such blob');
  return found;
};

void t.test('what expires at once is told in entries of 64 ids at most', (t) => {
  const uploads = Array.from({ length: 130 }, (_, n) => uploadOf(hashOf(n), { expiresAt: T0 + 5 + n }));
  const tables = stored(uploads);
  t.equal(isAnyDue(tables, T0 + 4), false);
  t.equal(isAnyDue(tables, T0 + 5), true);
  const ids = uploads.map(({ id }) => id);
  t.same(
    tables.change((change) => expireDue(change, T0 + 1_000, 129)),
    ids.slice(0, 129),
  );
  t.same(
    tables.journal.map((entry) => [entry.seq, entry.cause, entry.at, entry.ids]),
    [
      [1, 'expire', T0 + 1_000, ids.slice(0, 64)],
      [2, 'expire', T0 + 1_000, ids.slice(64, 128)],
      [3, 'expire', T0 + 1_000, ids.slice(128, 129)],
    ],
  );
  t.same(
    tables.media[70]?.record.state,
    { kind: 'expired', at: T0 + 75 },
    'at its own instant, not at that of the sweep',
  );
  t.equal(tables.media[70]?.endedSeq, 2);
  t.equal(blobIn(tables, hashOf(70)).unreferencedAt, T0 + 1_000);
  t.same(
    tables.change((change) => expireDue(change, T0 + 1_000, 129)),
    ids.slice(129),
  );
  t.equal(isAnyDue(tables, T0 + 2_000), false);
  t.end();
});

void t.test('what nobody used ends now, and media in use does not', (t) => {
  const uploads = [T0 + 1, T0 + 2, T0 + 3].map((now, n) => uploadOf(hashOf(n), { now }));
  const tables = stored(uploads);
  const [first, second] = uploads.map(({ id }) => id);
  t.same(
    tables.change((change) => expireUnused(change, T0 + 3, T0 + 50, 1)),
    [first],
    'no more than asked for',
  );
  t.same(
    tables.change((change) => expireUnused(change, T0 + 3, T0 + 60, 9)),
    [second],
  );
  t.same(
    tables.media.map(({ record }) => record.state),
    [{ kind: 'expired', at: T0 + 50 }, { kind: 'expired', at: T0 + 60 }, { kind: 'live' }],
  );
  t.end();
});

void t.test('whether a blob is referenced is written only where it changes', (t) => {
  const upload = uploadOf(A);
  const tables = stored([upload]);
  tables.change((change) => removeMedia(change, upload.id, 'eve', T0 + 10));
  const update = (sha256: Sha256, now: number): readonly string[] => {
    tables.writes.length = 0;
    tables.change((change) => updateReference(change, sha256, now));
    return tables.writes;
  };
  t.same(update(A, T0 + 99), []);
  t.equal(blobIn(tables, A).unreferencedAt, T0 + 10, 'its grace period does not begin anew');
  t.same(update(B, T0), [], 'there is no such blob');
  const again = uploadOf(A);
  tables.change((change) => commitUpload(change, again));
  t.same(update(A, T0 + 99), []);
  t.equal(blobIn(tables, A).unreferencedAt, null);
  tables.put('blob', A, RUBBISH);
  t.same(update(A, T0), []);
  t.same(
    tables.damaged.map(({ table, key }) => [table, key]),
    [['blob', A]],
  );
  t.match(
    tables.change((change) => removeMedia(change, again.id, 'eve', T0)),
    { kind: 'removed' },
    'a takedown does without it',
  );
  t.end();
});

void t.test('a tombstone is kept while it alone says that bytes are refused', (t) => {
  const [changed, plain, other] = [uploadOf(A, { sentSha256: B }), uploadOf(A), uploadOf(C)] as const;
  const tables = stored([changed, plain, other]);
  for (const { id } of [changed, plain, other]) tables.change((change) => removeMedia(change, id, 'eve', T0 + 1));
  tables.change((change) => quarantine(change, A, adminMark(T0 + 2)));
  const forget = (before: number, limit = 9): number =>
    tables.change((change) => forgetTombstones(change, before, limit));
  t.equal(forget(T0 + 1), 0, 'before its instant');
  t.equal(forget(T0 + 2, 1), 1, 'no more than asked for');
  t.equal(forget(T0 + 2), 1);
  t.same(
    tables.media.map(({ record }) => record.id),
    [changed.id],
  );
  t.match(
    tables.blobs.map(({ blob }) => blob.sha256),
    [A, C],
    'blobs are left to the sweep',
  );
  tables.put('blob', A, RUBBISH);
  t.equal(forget(T0 + 2), 1, 'a blob that cannot be read refuses nothing');
  t.same(
    tables.damaged.map(({ key }) => key),
    [A],
  );
  t.end();
});

void t.test('blobs that may be freed are those without ids and without an admin mark', (t) => {
  const uploads = [0, 1, 2, 3].map((n) => uploadOf(hashOf(n)));
  const tables = stored(uploads);
  for (const [n, { id }] of uploads.slice(0, 3).entries()) {
    tables.change((change) => removeMedia(change, id, 'eve', T0 + n));
  }
  tables.put('blob', hashOf(1), RUBBISH);
  const damaged: Parameters<typeof unreferencedBlobs>[3] = [];
  const free = (before: number, limit: number): readonly Sha256[] =>
    unreferencedBlobs(tables, before, limit, damaged).map(({ sha256 }) => sha256);
  t.same(free(T0 + 9, 9), [hashOf(0), hashOf(2)]);
  t.same(
    damaged.map(({ key }) => key),
    [hashOf(1)],
  );
  t.same(free(T0 + 9, 1), [hashOf(0)]);
  t.same(free(T0 + 9, 0), []);
  t.same(free(T0 + 2, 9), [hashOf(0)]);
  t.same(
    [0, 2, 3, 4].map((n) => isUnreferenced(tables, hashOf(n))),
    [true, true, false, false],
  );
  const forgets = (sha256: Sha256): boolean => tables.change((change) => forgetBlob(change, sha256)) !== undefined;
  t.same(
    [0, 2, 3, 4].map((n) => forgets(hashOf(n))),
    [true, true, false, false],
  );
  t.same(tables.keys('blob'), [hashOf(1), hashOf(3)]);
  t.end();
});

void t.test('a blob whose thumbnails are being made is not forgotten, nor is anything of it left afterwards', (t) => {
  const upload = uploadOf(A);
  const tables = stored([upload]);
  const job = tables.jobs[0];
  if (job === undefined) throw new Error('it has a job');
  tables.change((change) => removeMedia(change, upload.id, 'eve', T0));
  t.same(tables.last.jobsEnded, [A]);
  const put = (lease: typeof job.lease): void =>
    tables.change((change) => write(change.writer, JOBS, A, { ...job, lease }));
  put({ holder: 'w', until: T0 + 5 });
  t.equal(
    tables.change((change) => forgetBlob(change, A)),
    undefined,
  );
  put(null);
  write(tables, DEAD, A, { sha256: A, attempts: 1, diedAt: T0, reason: '' });
  tables.now = T0 + 3;
  const [{ blob } = { blob: undefined }] = tables.blobs;
  const keys = blob === undefined ? [] : keysOf(blob);
  t.same(
    tables.change((change) => forgetBlob(change, A)),
    keys,
  );
  t.same(
    tables.keys('trash_order'),
    keys.map((key) => `${T0 + 3}/${key}`),
    'but where its bytes are',
  );
  t.same(
    ['blob', 'job', 'dead', 'job_ready', 'dead_order'].map((name) => tables.keys(name)),
    [[], [], [], [], []],
  );
  t.end();
});

void t.test('a mark names all live ids, and a restored blob without ids has a new grace period', (t) => {
  const [one, two, gone] = [uploadOf(A), uploadOf(A, { public: true }), uploadOf(B)] as const;
  const tables = stored([one, two, gone]);
  const mark = adminMark(T0 + 5);
  t.same(
    tables.change((change) => quarantine(change, one.id, mark)),
    { kind: 'done', seq: 1 },
  );
  t.same(blobIn(tables, A), {
    ...blobIn(tables, A),
    blob: { ...blobIn(tables, A).blob, quarantine: mark },
    markSeq: 1,
    unreferencedAt: null,
  });
  t.same(tables.journal, [{ seq: 1, mark: 'm1', at: T0 + 5, cause: 'quarantine', ids: [one.id, two.id] }]);
  t.same(
    tables.change((change) => restore(change, A, T0 + 6)),
    { kind: 'done', seq: 2 },
  );
  t.match(blobIn(tables, A), { blob: { quarantine: null }, markSeq: 2, unreferencedAt: null });
  t.same(tables.journal.at(-1), { seq: 2, mark: 'm2', at: T0 + 6, cause: 'restore', ids: [one.id, two.id] });
  tables.change((change) => removeMedia(change, gone.id, 'eve', T0 + 7));
  tables.change((change) => quarantine(change, B, mark));
  t.same(
    tables.change((change) => restore(change, B, T0 + 8)),
    { kind: 'done', seq: 5 },
  );
  t.match(blobIn(tables, B), { unreferencedAt: T0 + 8, markSeq: 5 });
  t.same(tables.journal.at(-1)?.ids, []);
  t.same(
    tables.change((change) => quarantine(change, C, mark)),
    { kind: 'unknown' },
  );
  t.same(
    tables.change((change) => restore(change, uploadOf(C).id, T0)),
    { kind: 'unknown' },
  );
  t.end();
});

void t.test('a mark replaces a weaker one only', (t) => {
  const causes: readonly Quarantine['cause'][] = ['admin', 'rot', 'held'];
  const done: string[] = [];
  for (const before of causes) {
    for (const after of causes) {
      const tables = stored([uploadOf(A)]);
      tables.change((change) => quarantine(change, A, adminMark(T0 + 1, before)));
      const { kind } = tables.change((change) => quarantine(change, A, adminMark(T0 + 2, after)));
      t.equal(blobIn(tables, A).blob.quarantine?.at, kind === 'done' ? T0 + 2 : T0 + 1);
      if (kind === 'done') done.push(`${before} -> ${after}`);
    }
  }
  t.same(done, ['rot -> admin', 'rot -> held', 'held -> admin', 'held -> held']);
  t.end();
});

void t.test('blobs that await the scanner come in the order of their wait', (t) => {
  const uploads = [0, 1, 2].map((n) => uploadOf(hashOf(n), { quarantine: adminMark(T0 + 9 - n, 'held') }));
  const tables = stored(uploads);
  const waiting = (after: Parameters<typeof blobsAwaitingScan>[1], limit = 9) =>
    blobsAwaitingScan(tables, after, limit, []);
  t.same(
    waiting(null).map(({ sha256 }) => sha256),
    [2, 1, 0].map(hashOf),
  );
  t.same(
    waiting(null, 1).map(({ sha256 }) => sha256),
    [hashOf(2)],
  );
  t.same(
    waiting(waiting(null)[0] ?? null).map(({ sha256 }) => sha256),
    [1, 0].map(hashOf),
  );
  t.equal(
    tables.change((change) => resolveScan(change, hashOf(2), null, T0 + 20)),
    true,
  );
  t.equal(
    tables.change((change) => resolveScan(change, hashOf(1), adminMark(T0 + 21), T0 + 21)),
    true,
  );
  t.same(
    [2, 1].map((n) => tables.change((change) => resolveScan(change, hashOf(n), null, T0))),
    [false, false],
  );
  t.equal(
    tables.change((change) => resolveScan(change, hashOf(7), null, T0)),
    false,
  );
  t.same(
    tables.journal.slice(-2).map(({ cause, at }) => [cause, at]),
    [
      ['restore', T0 + 20],
      ['quarantine', T0 + 21],
    ],
  );
  tables.put('blob', hashOf(0), RUBBISH);
  const damaged: Parameters<typeof blobsAwaitingScan>[3] = [];
  t.same(blobsAwaitingScan(tables, null, 9, damaged), []);
  t.equal(damaged.length, 1);
  t.end();
});

void t.test('a lost record of a blob is made again, with its job', (t) => {
  const upload = uploadOf(A);
  const tables = stored([upload]);
  const { blob } = blobIn(tables, A);
  const record = (): boolean => tables.change((change) => recordBlob(change, blob, T0 + 5));
  t.equal(record(), false, 'it has one');
  for (const table of ['blob', 'job', 'job_ready'])
    for (const { key } of tables.range(table, {})) tables.remove(table, key);
  t.equal(record(), true);
  t.same(tables.blobs, [{ blob, unreferencedAt: null, markSeq: 0 }]);
  t.match(tables.jobs, [{ sha256: A, priority: 'backfill', queuedAt: T0 + 5 }]);
  const none = { ...blob, sha256: B, thumbs: { kind: 'none', reason: 'failed' } } as const;
  t.equal(
    tables.change((change) => recordBlob(change, none, T0 + 6)),
    true,
  );
  t.match(blobIn(tables, B), { unreferencedAt: T0 + 6 }, 'no id refers to it');
  t.equal(tables.jobs.length, 1);
  t.end();
});

void t.test('a quota counts files, and the bytes of new blobs, up to its bounds', (t) => {
  const tables = new MemoryTables();
  const quota = { periodStartAt: T0, bytesMax: 2_000, filesMax: 3 };
  const put = (sha256: Sha256, given: Partial<NewMedia> = {}): string =>
    tables.change((change) => commitUpload(change, uploadOf(sha256, { quota, ...given }))).kind;
  t.same([put(A), put(B)], ['created', 'created'], 'exactly as many bytes');
  t.same(readUsage(tables, 'ada', T0), { bytes: 2_000, files: 2 });
  t.equal(put(C, { sizeBytes: 1 }), 'over_quota');
  t.equal(put(A, { public: true }), 'created', 'exactly as many files');
  t.same(readUsage(tables, 'ada', T0), { bytes: 2_000, files: 3 });
  t.equal(put(B, { public: true }), 'over_quota');
  t.same(readUsage(tables, 'ada', T0), { bytes: 2_000, files: 3 });
  t.same(readUsage(tables, 'bob', T0), { bytes: 0, files: 0 });
  t.equal(tables.media.length, 3, 'nothing is recorded beyond it');
  t.end();
});

void t.test('a second upload of the same bytes prolongs the first, and uses it', (t) => {
  const first = uploadOf(A, { expiresAt: T0 + 50, now: T0 + 10 });
  const tables = stored([first]);
  const again = (given: Partial<NewMedia>): object | undefined => {
    tables.change((change) => commitUpload(change, uploadOf(A, given)));
    const { expiresAt, usedAt, createdAt } = tables.media[0]?.record ?? {};
    return [tables.media.length, expiresAt, usedAt, createdAt];
  };
  t.same(again({ expiresAt: T0 + 40, now: T0 + 20 }), [1, T0 + 50, T0 + 20, T0 + 10]);
  t.same(again({ expiresAt: T0 + 60, now: T0 + 15 }), [1, T0 + 60, T0 + 20, T0 + 10]);
  t.same(again({ expiresAt: null, now: T0 + 30 }), [1, null, T0 + 30, T0 + 10]);
  t.same(again({ expiresAt: T0 + 70, now: T0 + 30 }), [1, null, T0 + 30, T0 + 10]);
  t.end();
});

void t.test('a journal is read, followed and trimmed by its numbers', async (t) => {
  const tables = new MemoryTables();
  const log = createLog('test', { level: 'silent' });
  const open = () => createJournal('the name', tables, (body) => tables.run(body), log);
  const empty = open();
  t.same(
    [empty.name, empty.oldest(), empty.newest(), empty.markOf(0), empty.markOf(1)],
    ['the name', 1, 0, '', undefined],
  );
  const uploads = Array.from({ length: 4 }, (_, n) => uploadOf(hashOf(n)));
  const heard: (readonly [JournalEntry, number])[] = [];
  empty.subscribe(() => {
    throw new Error('a subscriber that fails');
  });
  const stop = empty.subscribe((entry) => heard.push([entry, empty.newest()]));
  for (const [n, upload] of uploads.entries()) {
    tables.change((change) => {
      commitUpload(change, upload);
      removeMedia(change, upload.id, 'eve', T0 + n);
    });
    empty.publish(tables.last.entries);
  }
  t.same(
    heard,
    tables.journal.map((entry) => [entry, entry.seq]),
  );
  t.same([empty.newest(), empty.markOf(4), empty.markOf(2), empty.markOf(5)], [4, 'm4', 'm2', undefined]);
  t.same(
    (await empty.read(1, 2)).map(({ seq }) => seq),
    [2, 3],
  );
  stop();
  empty.publish(tables.last.entries);
  t.equal(heard.length, 4);

  const again = open();
  t.same([again.oldest(), again.newest(), again.markOf(4)], [1, 4, 'm4']);
  t.equal(await again.trim(T0 + 1), 0, 'the last that is old enough stays');
  t.equal(await again.trim(T0 + 2), 1);
  t.same([again.oldest(), tables.journal.map(({ seq }) => seq)], [2, [2, 3, 4]]);
  tables.put('journal', 3, RUBBISH);
  t.equal(again.markOf(3), undefined, 'a mark that cannot be read is none');
  tables.remove('journal', 3);
  t.equal(await again.trim(T0 + 99), 1);
  t.same([again.oldest(), again.newest()], [4, 4]);

  const long = new MemoryTables();
  const journal = createJournal('long', long, (body) => long.run(body), log);
  long.change((change) => {
    for (let n = 0; n < 1_002; n += 1) appendEntry(change, 'delete', [], T0);
  });
  journal.publish(long.last.entries);
  const before = long.transactions;
  t.equal(await journal.trim(T0 + 1), 1_001);
  t.same([journal.oldest(), long.count('journal'), long.transactions - before], [1_002, 1, 2], 'a thousand at a time');
});

void t.test('at the limit of the data, each medium that is forgotten makes room for one', (t) => {
  let [used, whole] = [100, true];
  const reserve = {
    get whole() {
      return whole;
    },
    giveBack: async () => false,
    refill: async () => true,
  };
  const limit = createDataLimit({ usedBytes: () => used, reserve }, { dataMaxBytes: 100 } as MetaConfig);
  const room = (): RecordsRoom => limit.room('now');
  t.equal(room(), 'enough', 'at the limit, not above it');
  limit.forgot(5);
  used = 101;
  t.equal(room(), 'data_max', 'what was forgotten before is of no use');
  limit.forgot(2);
  t.equal(room(), 'enough');
  limit.added();
  t.equal(room(), 'enough');
  limit.added();
  limit.added();
  t.equal(room(), 'data_max');
  limit.forgot(1);
  t.equal(room(), 'enough', 'one that had no room takes none from later ones');
  used = 100;
  t.equal(room(), 'enough');
  used = 101;
  t.equal(room(), 'data_max');
  whole = false;
  t.equal(room(), 'no_reserve');
  t.end();
});
