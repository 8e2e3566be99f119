/** How writes are put into transactions, which facts and locks they take, and what is told of them. No server is needed. */
import pg from 'pg';
import t from 'tap';
import { type BlobKey, mediaKey, NO_PLACE } from '../../../../origin/blobs/blob-store.js';
import type { Change } from '../../../../origin/meta/database.js';
import type { Fact } from '../../../../origin/meta/postgres/facts.js';
import { BLOB_ROWS, MEDIA_ROWS, type Row } from '../../../../origin/meta/postgres/rows.js';
import { byteaOf, uuidOf } from '../../../../origin/meta/postgres/values.js';
import { type Committed, createWrites, entriesOf, type WritesDeps } from '../../../../origin/meta/postgres/writes.js';
import type { StoredMedia } from '../../../../origin/meta/records.js';
import { MEDIA, read, TRASH, USAGE, write } from '../../../../origin/meta/tables.js';
import { removeMedia } from '../../../../origin/meta/takedown.js';
import { createIdSource, type Sha256 } from '../../../../src/ids.js';
import { type Answer, createRecordedPool, type RecordedPool } from '../../../kit/postgres/recorded-pool.js';

const newId = createIdSource({ now: () => 1_767_225_600_000 });
const A = 'a'.repeat(64) as Sha256;
const stored: StoredMedia = {
  record: {
    id: newId(),
    sha256: A,
    sentSha256: A,
    public: true,
    owner: 'ada',
    filename: null,
    createdAt: 1,
    expiresAt: null,
    usedAt: 2,
    state: { kind: 'live' },
  },
  endedSeq: 0,
};
const { id } = stored.record;
const media: Fact = { kind: 'media', id };
const MEDIA_ROW = MEDIA_ROWS.rowOf(id, stored);

/** What is fetched for the media record. */
const fetched: Answer = ({ sql, parameters }) =>
  sql.includes('lock_facts') && parameters.flat().includes(uuidOf(id))
    ? [
        { kind: 'wanted', fact: byteaOf(A) },
        { kind: 'media', fact: MEDIA_ROW },
      ]
    : [];

function writesOver(pool: RecordedPool, given: Partial<WritesDeps> = {}) {
  const told: (readonly Committed[])[] = [];
  const writes = createWrites({
    pool,
    newMark: () => 'm',
    now: () => 9,
    commitMax: 2,
    queueMax: 4,
    lanesMax: 1,
    committed: async (changes) => void told.push(changes),
    mayWrite: () => true,
    random: () => 0,
    ...given,
  });
  const upload = <T>(rule: (change: Change) => T, facts: readonly Fact[] = []): Promise<T> =>
    writes.run({ rule, facts, urgency: 'may_fail' });
  const takedown = <T>(rule: (change: Change) => T): Promise<T> => writes.run({ rule, facts: [], urgency: 'must' });
  return { writes, told, upload, takedown };
}

/** A pool whose commits wait until they are let through. */
function heldPool(): RecordedPool & { letThrough(): void } {
  let waiting: (() => void)[] = [];
  const pool = createRecordedPool(async ({ sql }) => {
    if (sql === 'COMMIT') await new Promise<void>((resolve) => waiting.push(resolve));
    return [];
  });
  return {
    ...pool,
    letThrough() {
      const held = waiting;
      waiting = [];
      for (const go of held) go();
    },
  };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

void t.test('writes that wait share a transaction, as many as it may have, in their order', async (t) => {
  for (const [lanesMax, expected] of [
    [1, [['a'], ['b', 'c'], ['d']]],
    [2, [['a'], ['b'], ['c', 'd']]],
  ] as const) {
    const pool = heldPool();
    const { upload, told } = writesOver(pool, { lanesMax });
    const ran: string[] = [];
    const done = ['a', 'b', 'c', 'd'].map((name) => upload(() => void ran.push(name)));
    const before = async (count: number): Promise<void> => {
      await turn();
      t.equal(pool.statements.length, count, 'transactions that were begun');
      pool.letThrough();
    };
    await before(lanesMax);
    await before(lanesMax === 1 ? 2 : 3);
    if (lanesMax === 1) await before(3);
    await Promise.all(done);
    t.same(ran, ['a', 'b', 'c', 'd']);
    t.same(
      told.map((changes) => changes.length),
      expected.map((names) => names.length),
    );
  }
});

void t.test('a takedown does not wait for uploads', async (t) => {
  const pool = heldPool();
  const { upload, takedown } = writesOver(pool);
  const uploads = [upload(() => 1), upload(() => 2)];
  let taken = false;
  const ended = takedown(() => 3).then(() => (taken = true));
  await turn();
  t.same(pool.wordsOf(2), ['COMMIT'], 'two transactions are under way, and a third write waits');
  t.equal(pool.statements.length, 2);
  pool.letThrough();
  await ended;
  t.equal(taken, true);
  await turn();
  pool.letThrough();
  t.same(await Promise.all(uploads), [1, 2]);
});

void t.test('a write that throws undoes its own changes alone, and nobody is told of it', async (t) => {
  const pool = createRecordedPool();
  const { upload, told } = writesOver(pool, { commitMax: 3, lanesMax: 1 });
  const keyOf = (name: string): BlobKey => mediaKey({ sha256: name.repeat(64) as Sha256, place: NO_PLACE });
  const put = (change: Change, name: string): string => {
    const key = keyOf(name);
    write(change.writer, TRASH, key, { key, at: 1 });
    return name;
  };
  const trash = ['a', 'b', 'c'].map((name): Fact => ({ kind: 'trash', key: keyOf(name) }));
  const results = await Promise.allSettled([
    upload(() => 'first'),
    upload((change) => put(change, 'a'), trash),
    upload((change) => {
      put(change, 'b');
      throw new Error('no');
    }),
    upload((change) => put(change, 'c')),
  ]);
  t.match(results, [{ value: 'first' }, { value: 'a' }, { reason: { message: 'no' } }, { value: 'c' }]);
  t.same(
    told.map((changes) => changes.length),
    [1, 2],
  );
  const inserted = pool.statements.find(({ sql }) => sql.includes('INSERT'));
  t.match(JSON.parse(String(inserted?.parameters[0])), { trash_new: [{ key: keyOf('a') }, { key: keyOf('c') }] });
  t.same(pool.wordsOf(2).slice(-2), ['insert trash', 'COMMIT'], 'what is changed is sent before the commit');
});

void t.test('what a rule lacks is fetched and locked, and what it learned before stays known', async (t) => {
  const pool = createRecordedPool(fetched);
  const { upload } = writesOver(pool);
  let runs = 0;
  const key = 'media/x' as BlobKey;
  const trash: Fact = { kind: 'trash', key };
  const found = await upload(
    (change) => {
      runs += 1;
      return [read(change.writer, TRASH, key), read(change.writer, MEDIA, id)?.record.owner];
    },
    [trash, trash],
  );
  t.same(found, [undefined, 'ada']);
  t.equal(runs, 2, 'once more with what it lacked');
  t.same(pool.wordsOf(1), ['select lock_facts', 'select lock_facts', 'COMMIT']);
  const [first, second] = pool.statements;
  t.same(first?.parameters.flat(), [key], 'a fact that two writes name is asked for once');
  t.same(second?.parameters.flat(), [uuidOf(id)]);
});

void t.test('a takedown takes the lock of the journal last, and has the number after the newest', async (t) => {
  const newest = { seq: 41, mark: 'x', at: 1, cause: 'delete', ids: [uuidOf(newId())] };
  const pool = createRecordedPool((statement) =>
    statement.sql.includes('FROM journal') ? [newest] : fetched(statement),
  );
  const { writes, told } = writesOver(pool);
  const removed = await writes.run({
    rule: (change) => removeMedia(change, id, 'eve', 9),
    facts: [media],
    urgency: 'must',
  });
  t.same(removed, { kind: 'removed', seq: 42 });
  t.same(pool.wordsOf(1).slice(1), ['select about lock', 'select journal', 'update media', 'insert journal', 'COMMIT']);
  t.match(entriesOf(told.flat()), [{ seq: 42, mark: 'm', at: 9, cause: 'delete', ids: [id] }]);
});

void t.test('intents end with the transaction that names their keys', async (t) => {
  const pool = createRecordedPool();
  const { upload } = writesOver(pool, { commitMax: 3 });
  const key = 'media/x' as BlobKey;
  const place = (change: Change): void => void change.placed.push(key);
  await Promise.allSettled([
    upload(place),
    upload((change) => {
      place(change);
      throw new Error('no');
    }),
  ]);
  t.same(pool.wordsOf(1), ['delete intent', 'COMMIT']);
  t.same(pool.statements[0]?.parameters, [[key]]);
  t.same(pool.wordsOf(2), ['COMMIT'], 'those of a write that threw stay');
});

void t.test('a write is told once its listeners know of it', async (t) => {
  let tell = (): void => undefined;
  const pool = createRecordedPool();
  const { upload } = writesOver(pool, { committed: () => new Promise((resolve) => (tell = resolve)) });
  let done = false;
  const written = upload(() => 1).then(() => (done = true));
  await turn();
  t.same(pool.wordsOf(1), ['COMMIT']);
  t.equal(done, false);
  tell();
  await written;
});

/** An error of the server with its SQLSTATE. */
function serverError(code: string): Error {
  return Object.assign(new pg.DatabaseError('no', 2, 'error'), { code });
}

void t.test('a transaction that others came in between runs again, a few times', async (t) => {
  for (const code of ['40001', '40P01', '23505']) {
    let failures = 2;
    const pool = createRecordedPool(({ sql }) => {
      if (sql !== 'COMMIT' || failures === 0) return [];
      failures -= 1;
      throw serverError(code);
    });
    let runs = 0;
    const { upload, told } = writesOver(pool);
    t.equal(await upload(() => (runs += 1)), 3, code);
    t.equal(told.length, 1);
  }
  const never = createRecordedPool(({ sql }) => {
    if (sql === 'COMMIT') throw serverError('40001');
    return [];
  });
  await t.rejects(
    writesOver(never).upload(() => 1),
    { code: 'overloaded' },
  );
  t.equal(never.statements.filter(({ sql }) => sql === 'COMMIT').length, 6);
});

void t.test('a record that cannot be written fails alone, and what shared its transaction is written', async (t) => {
  const keyOf = (name: string): BlobKey => mediaKey({ sha256: name.repeat(64) as Sha256, place: NO_PLACE });
  const put =
    (name: string, at = 1) =>
    (change: Change): string => {
      write(change.writer, TRASH, keyOf(name), { key: keyOf(name), at });
      return name;
    };
  const trash = (name: string): readonly Fact[] => [{ kind: 'trash', key: keyOf(name) }];
  for (const code of ['22003', '22P05', '23502', '23505', '54000']) {
    const pool = createRecordedPool(({ sql, parameters }) => {
      if (sql.includes('INSERT') && String(parameters[0]).includes(keyOf('c'))) throw serverError(code);
      return [];
    });
    const { upload } = writesOver(pool, { commitMax: 8, queueMax: 8 });
    const first = upload(() => 'first');
    const results = await Promise.allSettled([
      first,
      ...['a', 'b', 'c', 'd'].map((name) => upload(put(name), trash(name))),
    ]);
    t.match(
      results,
      [{ value: 'first' }, { value: 'a' }, { value: 'b' }, { status: 'rejected' }, { value: 'd' }],
      code,
    );
  }
  const broken: Fact = { kind: 'trash', key: keyOf('b') };
  const { upload } = writesOver(createRecordedPool(), { commitMax: 8 });
  const endless = (change: Change): void => void read(change.writer, USAGE, [Math.random(), 'o']);
  const results = await Promise.allSettled([
    upload(() => 'first'),
    upload(put('a'), trash('a')),
    upload(endless, [broken]),
    upload(
      (change) => {
        write(change.writer, MEDIA, id, { ...stored, record: { ...stored.record, filename: 7 as never } });
      },
      [media],
    ),
    upload(put('d'), trash('d')),
  ]);
  t.match(results, [
    { value: 'first' },
    { value: 'a' },
    { reason: { message: /without end/ } },
    { reason: { message: /cannot be written/ } },
    { value: 'd' },
  ]);
});

void t.test('what the database cannot do is a fault, and is not tried again', async (t) => {
  const cases: readonly (readonly [Error, string])[] = [
    [serverError('53100'), 'storage_full'],
    [serverError('57014'), 'storage_unavailable'],
    [new Error('the connection was lost'), 'storage_unavailable'],
  ];
  for (const [error, code] of cases) {
    const pool = createRecordedPool(({ sql }) => {
      if (sql === 'COMMIT') throw error;
      return [];
    });
    const { upload, told } = writesOver(pool);
    await t.rejects(
      upload(() => 1),
      { code, cause: error },
    );
    t.same(pool.wordsOf(1), ['COMMIT', 'ROLLBACK']);
    t.equal(pool.statements.length, 2);
    t.same(told, []);
  }
});

void t.test('a process that may have lost the database sends nothing', async (t) => {
  const pool = createRecordedPool();
  await t.rejects(
    writesOver(pool, { mayWrite: () => false }).upload(() => 1),
    { code: 'storage_unavailable' },
  );
  t.same(pool.statements, []);
});

void t.test('as many writes wait as may, and later ones are refused', async (t) => {
  const pool = heldPool();
  const { upload } = writesOver(pool);
  // One under way, four that wait.
  const done = [1, 2, 3, 4, 5].map((n) => upload(() => n));
  await t.rejects(
    upload(() => 6),
    { code: 'overloaded' },
  );
  for (let round = 0; round < 3; round += 1) {
    await turn();
    pool.letThrough();
  }
  t.same(await Promise.all(done), [1, 2, 3, 4, 5]);
});

void t.test('a transaction of its own looks for its records itself', async (t) => {
  const row: Row = BLOB_ROWS.rowOf(A, {
    blob: {
      sha256: A,
      place: NO_PLACE,
      sizeBytes: 9,
      mime: 'image/png',
      storedAt: 3,
      picture: { width: null, height: null, durationMs: null, placeholder: null } as never,
      thumbs: { kind: 'pending' },
      quarantine: null,
    },
    unreferencedAt: null,
    markSeq: 0,
  });
  const pool = createRecordedPool(({ sql }) => (sql === 'LOOK' ? [row] : []));
  const { writes, told } = writesOver(pool);
  const key = 'media/x' as BlobKey;
  const value = await writes.runAlone(
    async (run, facts) => {
      t.equal((await run('LOOK')).length, 1);
      facts.learn({ kind: 'trash', key });
      return [{ kind: 'usage', periodAt: 5, owner: 'o' }];
    },
    (change) => read(change.writer, TRASH, key),
  );
  t.equal(value, undefined);
  t.same(pool.wordsOf(1), ['LOOK', 'select lock_facts', 'COMMIT'], 'what was found is not fetched again');
  t.equal(told.length, 1);
  await t.rejects(
    writes.runAlone(
      async () => [],
      () => {
        throw new Error('no');
      },
    ),
    { message: 'no' },
  );
});

void t.test('the end waits for what is under way, and refuses the rest', async (t) => {
  const pool = heldPool();
  const { writes, upload, takedown } = writesOver(pool);
  const done: string[] = [];
  const work = [
    upload(() => 1).then(() => done.push('upload')),
    takedown(() => 2).then(() => done.push('takedown')),
    writes
      .runAlone(
        async () => [],
        () => 3,
      )
      .then(() => done.push('alone')),
  ];
  const ended = writes.end().then(() => done.push('end'));
  await t.rejects(
    upload(() => 4),
    { code: 'overloaded' },
  );
  await t.rejects(
    takedown(() => 5),
    { code: 'overloaded' },
  );
  await t.rejects(
    writes.runAlone(
      async () => [],
      () => 6,
    ),
    { code: 'overloaded' },
  );
  await turn();
  t.same(done, []);
  pool.letThrough();
  await Promise.all([...work, ended]);
  t.equal(done.at(-1), 'end');
  t.equal(done.length, 4);
});

void t.test('the end also waits for a transaction of its own', async (t) => {
  const pool = heldPool();
  const { writes } = writesOver(pool);
  const done: string[] = [];
  const alone = writes.runAlone(
    async () => [],
    () => done.push('alone'),
  );
  const ended = writes.end().then(() => done.push('end'));
  await turn();
  t.same(done, ['alone'], 'it waits for its commit');
  pool.letThrough();
  await Promise.all([alone, ended]);
  t.same(done, ['alone', 'end']);
});

void t.test('a write that runs again because another lacked something finds what it found at first', async (t) => {
  const pool = createRecordedPool();
  const { upload } = writesOver(pool, { commitMax: 3 });
  const count = (change: Change): void => {
    const before = read(change.writer, USAGE, [5, 'o']) ?? { bytes: 0, files: 0 };
    write(change.writer, USAGE, [5, 'o'], { ...before, files: before.files + 1 });
  };
  const usage: Fact = { kind: 'usage', periodAt: 5, owner: 'o' };
  const key = mediaKey({ sha256: A, place: NO_PLACE });
  const first = upload(() => undefined);
  await Promise.all([
    first,
    upload(count, [usage]),
    upload(count),
    upload((change) => read(change.writer, TRASH, key)),
  ]);
  const inserted = pool.statements.filter(({ sql }) => sql.includes('INSERT INTO usage'));
  t.match(
    inserted.map(({ parameters }) => JSON.parse(String(parameters[0])) as unknown),
    [{ usage_new: [{ files: 2 }] }],
  );
});

void t.test('takedowns are written one transaction after the other', async (t) => {
  const pool = heldPool();
  const { takedown } = writesOver(pool, { lanesMax: 4 });
  const taken = [takedown(() => 1), takedown(() => 2)];
  await turn();
  t.equal(pool.statements.length, 1);
  pool.letThrough();
  await turn();
  t.equal(pool.statements.length, 2);
  pool.letThrough();
  t.same(await Promise.all(taken), [1, 2]);
});
