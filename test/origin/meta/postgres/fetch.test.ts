/** Which rows a fact stands for, how they are asked for, and what is known afterwards. No server is needed. */
import t from 'tap';
import type { BlobKey } from '../../../../origin/blobs/blob-store.js';
import { type Fact, Facts } from '../../../../origin/meta/postgres/facts.js';
import { fetchFacts, fetchJournal } from '../../../../origin/meta/postgres/fetch.js';
import { JOB_ROWS } from '../../../../origin/meta/postgres/rows.js';
import { byteaOf, uuidOf } from '../../../../origin/meta/postgres/values.js';
import { JOB_ORDER } from '../../../../origin/meta/tables.js';
import { createIdSource, type Sha256 } from '../../../../src/ids.js';
import { createRecordedPool } from '../../../kit/postgres/recorded-pool.js';

const id = createIdSource({ now: () => 1_767_225_600_000 })();
const A = 'a'.repeat(64) as Sha256;
const B = 'b'.repeat(64) as Sha256;
const key = 'media/x' as BlobKey;
const BLOB_LOCKS = ['select blob lock', 'select media lock', 'select job lock', 'select dead lock'];
const RANKS = { asked: 2, fresh: 1, backfill: 0 };

void t.test('each kind of fact locks the rows that a rule may change', async (t) => {
  const cases: readonly (readonly [Fact, readonly string[], readonly unknown[]])[] = [
    [{ kind: 'blob', sha256: A }, BLOB_LOCKS, [[byteaOf(A)], [], []]],
    [{ kind: 'media', id }, ['select wanted', ...BLOB_LOCKS], [[], [uuidOf(id)], []]],
    [{ kind: 'sent', sha256: B }, ['select wanted', ...BLOB_LOCKS], [[], [], [byteaOf(B)]]],
    [{ kind: 'trash', key }, ['select trash lock'], [[key]]],
    [{ kind: 'intent', key }, ['select intent lock'], [[key]]],
    [{ kind: 'usage', periodAt: 5, owner: 'o' }, ['select usage lock'], [[5], ['o']]],
    [{ kind: 'next job', rank: JOB_ORDER.asked }, ['select job'], [[RANKS.asked]]],
    [{ kind: 'last job', rank: JOB_ORDER.backfill, owner: 'o' }, ['select job'], [[RANKS.backfill], ['o']]],
  ];
  for (const [fact, words, parameters] of cases) {
    const pool = createRecordedPool();
    const facts = new Facts();
    await fetchFacts(pool.run, facts, [fact]);
    t.same(pool.wordsOf(0), words, fact.kind);
    for (const statement of pool.statements) t.same(statement.parameters, parameters, fact.kind);
    t.equal(facts.knows(fact), true, `${fact.kind} is known, and nothing is there`);
  }
  const all = createRecordedPool();
  await fetchFacts(
    all.run,
    new Facts(),
    cases.map(([fact]) => fact),
  );
  t.same(
    all.wordsOf(0),
    [
      'select wanted',
      ...BLOB_LOCKS,
      'select trash lock',
      'select intent lock',
      'select usage lock',
      'select job',
      'select job',
    ],
    'always in one order',
  );
  const none = createRecordedPool();
  await fetchFacts(none.run, new Facts(), []);
  t.same(none.statements, []);
});

void t.test('what belongs to the blob of a media record is known with it', async (t) => {
  const pool = createRecordedPool(({ sql }) => {
    if (sql.endsWith('SELECT sha256 FROM wanted')) return [{ sha256: byteaOf(B) }];
    return sql.includes('FROM intent') ? [{ key }] : [];
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
  const pool = createRecordedPool(async ({ sql }) => {
    if (!sql.includes('FROM job WHERE sha256')) return [];
    await new Promise<void>((resolve) => (answer = resolve));
    return [row];
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
