/** Which rows a fact stands for, how they are asked for, and what is known afterwards. No server is needed. */
import t from 'tap';
import type { BlobKey } from '../../../../origin/blobs/blob-store.js';
import { type Fact, Facts } from '../../../../origin/meta/postgres/facts.js';
import { fetchFacts, fetchJournal } from '../../../../origin/meta/postgres/fetch.js';
import { JOB_ROWS } from '../../../../origin/meta/postgres/rows.js';
import { STEPS } from '../../../../origin/meta/postgres/schema.js';
import { byteaOf, uuidOf } from '../../../../origin/meta/postgres/values.js';
import { JOB_ORDER } from '../../../../origin/meta/tables.js';
import { createIdSource, type Sha256 } from '../../../../src/ids.js';
import { createRecordedPool } from '../../../kit/postgres/recorded-pool.js';

const id = createIdSource({ now: () => 1_767_225_600_000 })();
const A = 'a'.repeat(64) as Sha256;
const B = 'b'.repeat(64) as Sha256;
const key = 'media/x' as BlobKey;
const RANKS = { asked: 2, fresh: 1, backfill: 0 };
/** The parameters of the one statement, by their places. */
const NOTHING: readonly (readonly unknown[])[] = Array.from({ length: 10 }, () => []);

void t.test('each kind of fact is asked for by its keys, and known afterwards', async (t) => {
  const cases: readonly (readonly [Fact, Readonly<Record<number, unknown>>])[] = [
    [{ kind: 'blob', sha256: A }, { 0: [byteaOf(A)] }],
    [{ kind: 'media', id }, { 1: [uuidOf(id)] }],
    [{ kind: 'sent', sha256: B }, { 2: [byteaOf(B)] }],
    [{ kind: 'trash', key }, { 3: [key] }],
    [{ kind: 'intent', key }, { 4: [key] }],
    [
      { kind: 'usage', periodAt: 5, owner: 'o' },
      { 5: [5], 6: ['o'] },
    ],
    [{ kind: 'next job', rank: JOB_ORDER.asked }, { 7: [RANKS.asked] }],
    [
      { kind: 'last job', rank: JOB_ORDER.backfill, owner: 'o' },
      { 8: [RANKS.backfill], 9: ['o'] },
    ],
  ];
  for (const [fact, given] of cases) {
    const pool = createRecordedPool();
    const facts = new Facts();
    await fetchFacts(pool.run, facts, [fact]);
    t.same(pool.wordsOf(0), ['select lock_facts'], fact.kind);
    t.same(pool.statements[0]?.parameters, Object.assign([...NOTHING], given), fact.kind);
    t.equal(facts.knows(fact), true, `${fact.kind} is known, and nothing is there`);
  }
  const all = createRecordedPool();
  await fetchFacts(
    all.run,
    new Facts(),
    cases.map(([fact]) => fact),
  );
  t.same(all.wordsOf(0), ['select lock_facts'], 'all at once');
  t.same(all.statements[0]?.parameters, Object.assign([...NOTHING], ...cases.map(([, given]) => given)));
  const none = createRecordedPool();
  await fetchFacts(none.run, new Facts(), []);
  t.same(none.statements, []);
});

void t.test('the database locks always in one order, each kind by its keys', (t) => {
  const sql = STEPS.map((step) => step.sql).findLast((one) => one.includes('FUNCTION lock_facts')) ?? '';
  const locks = [...sql.matchAll(/FROM (\w+) [^()]*?(?:\([^()]*\)[^()]*)*?ORDER BY (.*?) FOR UPDATE/g)];
  t.same(
    locks.map(([, table, keys]) => [table, keys]),
    [
      ['blob', 'sha256'],
      ['media', 'id'],
      ['job', 'sha256'],
      ['dead', 'sha256'],
      ['trash', 'key'],
      ['intent', 'key'],
      ['usage', 'period_at, owner_key'],
    ],
  );
  t.end();
});

void t.test('what belongs to the blob of a media record is known with it', async (t) => {
  const pool = createRecordedPool(({ sql }) => {
    t.match(sql, /lock_facts/);
    return [
      { kind: 'wanted', fact: byteaOf(B) },
      { kind: 'intent', fact: { key } },
    ];
  });
  const facts = new Facts();
  const [other] = ['media/y' as BlobKey];
  await fetchFacts(pool.run, facts, [
    { kind: 'media', id },
    { kind: 'intent', key },
    { kind: 'intent', key: other },
  ]);
  t.equal(facts.knows({ kind: 'blob', sha256: B }), true);
  t.equal(facts.get('job', B), undefined, 'it has no job');
  t.equal(facts.get('media', id), undefined);
  t.equal(facts.isIntended(key), true);
  t.equal(facts.isIntended(other), false);
});

void t.test('a fetch ends once every row has come', async (t) => {
  let answer = (): void => undefined;
  const row = JOB_ROWS.rowOf(A, {
    sha256: A,
    priority: 'asked',
    owner: 'o',
    turn: 1,
    queuedAt: 1,
    readyAt: 1,
    attempts: 0,
    lease: null,
  });
  const pool = createRecordedPool(async () => {
    await new Promise<void>((resolve) => (answer = resolve));
    return [{ kind: 'job', fact: row }];
  });
  const facts = new Facts();
  let done = false;
  const fetched = fetchFacts(pool.run, facts, [{ kind: 'blob', sha256: A }]).then(() => (done = true));
  await new Promise(setImmediate);
  t.equal(done, false);
  t.equal(facts.knows({ kind: 'blob', sha256: A }), false);
  answer();
  await fetched;
  t.ok(facts.get('job', A));
});

void t.test('the newest entry of the journal is read behind its lock', async (t) => {
  const newest = { seq: 41, mark: 'x', at: 1, cause: 'delete', ids: [uuidOf(id)] };
  const pool = createRecordedPool(({ sql }) => (sql.includes('FROM journal') ? [newest] : []));
  const facts = new Facts();
  await fetchJournal(pool.run, facts);
  t.same(pool.wordsOf(0), ['select about lock', 'select journal']);
  t.same(
    [...facts.range('journal', { reverse: true, limit: 1 })].map((entry) => entry.key),
    [41],
  );
  t.equal(facts.wantsJournal, false);
});
