/** What the store on PostgreSQL does without a server: how records become rows, and what a rule may read and change. */
import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import t from 'tap';
import { type BlobKey, mediaKey, NO_PLACE, type Place } from '../../../../origin/blobs/blob-store.js';
import { startChange } from '../../../../origin/meta/database.js';
import type { Job } from '../../../../origin/meta/jobs.js';
import { applyChanges } from '../../../../origin/meta/postgres/apply.js';
import { compareKeys, type Fact, Facts, factText, MissingFact } from '../../../../origin/meta/postgres/facts.js';
import {
  BLOB_ROWS,
  DEAD_ROWS,
  JOB_ROWS,
  JOURNAL_ROWS,
  MEDIA_ROWS,
  ROW_TABLES,
  type Row,
  type RowTable,
  TRASH_ROWS,
  USAGE_ROWS,
} from '../../../../origin/meta/postgres/rows.js';
import { STEPS } from '../../../../origin/meta/postgres/schema.js';
import { fromText, idOf, textOf, uuidOf } from '../../../../origin/meta/postgres/values.js';
import type { StoredBlob, StoredMedia } from '../../../../origin/meta/records.js';
import { BLOBS, type Key, MEDIA, read, TRASH, write } from '../../../../origin/meta/tables.js';
import { removeMedia } from '../../../../origin/meta/takedown.js';
import { createIdSource, type Sha256 } from '../../../../src/ids.js';
import { blobRecord } from '../../../kit/origin/meta/blob-record.js';

const newId = createIdSource({ now: () => 1_767_225_600_000 });
const A = 'a'.repeat(64) as Sha256;
const B = 'b'.repeat(64) as Sha256;

void t.test('ids keep their order as the numbers that they are, and come back', (t) => {
  const ids = Array.from({ length: 200 }, newId);
  t.same(ids.map(uuidOf).toSorted(), ids.map(uuidOf));
  t.same(
    ids.map((id) => idOf(uuidOf(id).replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'))),
    ids,
  );
  t.equal(uuidOf('7ZZZZZZZZZZZZZZZZZZZZZZZZZ' as never), 'f'.repeat(32));
  t.equal(uuidOf('00000000000000000000000001' as never), `${'0'.repeat(31)}1`);
  t.end();
});

void t.test('every text can be stored, comes back, and stays another than every other', (t) => {
  const units = fc.array(fc.constantFrom('\0', 'a', '0', '\ud83d', '\ude00', '\ud800', '\ue000', '☂'), {
    maxLength: 12,
  });
  const text = units.map((parts) => parts.join(''));
  fc.assert(
    fc.property(text, text, (one, other) => {
      const stored = textOf(one);
      t.notOk(/\0|\p{Surrogate}/u.test(stored));
      if (fromText(stored) !== one || (one !== other && textOf(other) === stored)) throw new Error(JSON.stringify(one));
    }),
  );
  t.equal(textOf('plain ☂ 😀'), 'plain ☂ 😀', 'what needs no care is stored as it is');
  t.end();
});

const media = (given: Partial<StoredMedia['record']> = {}, endedSeq = 0): StoredMedia => ({
  record: {
    id: newId(),
    sha256: A,
    sentSha256: B,
    public: true,
    owner: 'ada\0',
    filename: null,
    createdAt: 1,
    expiresAt: null,
    usedAt: 2,
    state: { kind: 'live' },
    ...given,
  },
  endedSeq,
});
const blob = (given: Partial<StoredBlob['blob']> = {}, unreferencedAt: number | null = null): StoredBlob => ({
  blob: blobRecord({ sha256: A, ...given }),
  unreferencedAt,
  markSeq: 0,
});
const job: Job = {
  sha256: A,
  priority: 'asked',
  owner: 'x',
  turn: 4,
  queuedAt: 1,
  readyAt: 2,
  attempts: 3,
  lease: null,
};

void t.test('a record becomes a row and the row the record', (t) => {
  const all: readonly (readonly [RowTable, readonly (readonly [Key, unknown])[]])[] = [
    [
      MEDIA_ROWS,
      [
        media(),
        media({ expiresAt: 7, filename: 'Bild ☂.png', public: false, state: { kind: 'expired', at: 7 } }, 5),
        media({ state: { kind: 'deleted', at: 8, by: 'eve\ud800' } }, 6),
      ].map((one) => [one.record.id, one]),
    ],
    [
      BLOB_ROWS,
      [
        blob(),
        blob({ place: '0123456789abcdef' as Place, thumbs: { kind: 'none', reason: 'failed' } }, 4),
        blob({ quarantine: { at: 5, by: 'eve', reason: null, cause: 'held' } }),
        blob({ quarantine: { at: 5, by: 'eve', reason: 'why\0', cause: 'admin' } }),
      ].map((one) => [A, one]),
    ],
    [JOB_ROWS, [job, { ...job, turn: null, lease: { holder: 'w', until: 9 } }].map((one) => [A, one])],
    [DEAD_ROWS, [[A, { sha256: A, attempts: 2, diedAt: 3, reason: 'no\0' }]]],
    [JOURNAL_ROWS, [[4, { seq: 4, mark: 'm', at: 5, cause: 'delete', ids: [newId(), newId()] }]]],
    [USAGE_ROWS, [[[5, 'owner'], { bytes: 6, files: 7 }]]],
    [TRASH_ROWS, [['media/x', { key: 'media/x', at: 5 }]]],
  ];
  for (const [table, records] of all) {
    for (const [key, value] of records) {
      const row = JSON.parse(JSON.stringify(table.rowOf(key, value))) as Row;
      t.same(table.valueOf(row), value, table.name);
      t.same(table.keyOf(row), key);
      t.same(
        Object.keys(row),
        table.columns.map(([name]) => name),
        'every column, in its order',
      );
      t.same(
        Object.keys(table.keyRow(key)),
        table.columns.slice(0, table.keyColumns).map(([name]) => name),
      );
    }
  }
  t.end();
});

const TRASHED = { key: mediaKey({ sha256: A, place: NO_PLACE }), at: 5 };
const NEVER = (): boolean => false;

/** Facts with a blob, its only live media, and nothing else. */
function factsOf(stored: StoredMedia): Facts {
  const facts = new Facts();
  facts.add(MEDIA_ROWS, MEDIA_ROWS.rowOf(stored.record.id, stored));
  facts.add(BLOB_ROWS, BLOB_ROWS.rowOf(A, blob()));
  facts.learn({ kind: 'blob', sha256: A });
  return facts;
}

void t.test('a rule that reads what was not fetched says what is missing', (t) => {
  const key = 'media/x' as BlobKey;
  const id = newId();
  const asked: readonly (readonly [(facts: Facts) => unknown, Fact])[] = [
    [(facts) => facts.get('media', id), { kind: 'media', id }],
    [(facts) => facts.get('blob', A), { kind: 'blob', sha256: A }],
    [(facts) => facts.get('job', A), { kind: 'blob', sha256: A }],
    [(facts) => facts.get('dead', B), { kind: 'blob', sha256: B }],
    [(facts) => facts.get('live', [A, 1, B]), { kind: 'blob', sha256: A }],
    [(facts) => facts.get('usage', [5, 'o']), { kind: 'usage', periodAt: 5, owner: 'o' }],
    [(facts) => facts.get('trash', key), { kind: 'trash', key }],
    [(facts) => facts.isIntended(key), { kind: 'intent', key }],
    [(facts) => [...facts.range('live', { start: [B] })], { kind: 'blob', sha256: B }],
    [(facts) => [...facts.range('sent', { start: [B] })], { kind: 'sent', sha256: B }],
    [(facts) => [...facts.range('job_ready', { start: [1] })], { kind: 'next job', rank: 1 }],
    [(facts) => [...facts.range('job_ready', { start: ['o', 2] })], { kind: 'last job', rank: 2, owner: 'o' }],
  ];
  for (const [ask, fact] of asked) {
    const own = new Facts();
    t.throws(() => ask(own), new MissingFact(fact), factText(fact));
    own.learn(fact);
    t.doesNotThrow(() => ask(own), 'known, and nothing is there');
  }
  const facts = new Facts();
  facts.learn({ kind: 'intent', key });
  t.equal(facts.isIntended(key), false);
  facts.learnIntended(key);
  t.equal(facts.isIntended(key), true);
  for (const table of ['expiry', 'by_owner']) t.throws(() => [...facts.range(table, {})], { message: /must not read/ });
  facts.learnWhole('expiry');
  t.same([...facts.range('expiry', {})], []);
  t.throws(() => facts.get('about', 'stamp'), { message: /must not read/ });
  t.throws(() => facts.count('media'), { message: /must not count/ });
  t.end();
});

void t.test('a rule changes what it was given; what it undoes is as it was', (t) => {
  const stored = media({ sentSha256: A, owner: 'ada' });
  const facts = factsOf(stored);
  const change = startChange(facts, { newMark: () => 'm', now: 9, isIntended: NEVER });
  t.equal(facts.wantsJournal, false);
  t.same(removeMedia(change, stored.record.id, 'eve', 9), { kind: 'removed', seq: 1 });
  t.equal(facts.wantsJournal, true, 'it numbered an entry without knowing the newest');
  facts.undoTo(0);
  t.same(facts.changes(), []);
  t.same(read(facts, MEDIA, stored.record.id), stored);

  const newest = { seq: 41, mark: 'x', at: 1, cause: 'delete', ids: [newId()] } as const;
  facts.add(JOURNAL_ROWS, JOURNAL_ROWS.rowOf(41, newest));
  facts.learnJournal();
  t.same(removeMedia(change, stored.record.id, 'eve', 9), { kind: 'removed', seq: 42 });
  t.equal(facts.wantsJournal, false);
  const { mark } = facts;
  write(facts, BLOBS, A, undefined);
  facts.undoTo(mark);
  const sent: [string, unknown][] = [];
  void applyChanges(
    async (sql, parameters = []) => {
      sent.push([sql, JSON.parse(String(parameters[0]))]);
      return [];
    },
    facts.changes(),
    [],
  );
  t.match(sent, [
    [
      /^WITH blob_changed AS \(UPDATE blob SET .*\), media_changed AS \(UPDATE media SET .*\) SELECT$/,
      {
        blob_changed: [{ free_since: 9, mark_seq: 0 }],
        media_changed: [{ ended: 'deleted', ended_at: 9, ended_by: 'eve', ended_seq: 42 }],
      },
    ],
    [
      /^WITH journal_new AS \(INSERT INTO journal .*\) SELECT$/,
      { journal_new: [{ seq: 42, mark: 'm', at: 9, cause: 'delete', ids: [uuidOf(stored.record.id)] }] },
    ],
  ]);
  t.equal(sent.length, 2);
  t.end();
});

void t.test(
  'a row that was read before it was locked gives way to the locked one, with its place in every index',
  (t) => {
    const facts = new Facts();
    facts.learnWhole('job_ready');
    facts.add(JOB_ROWS, JOB_ROWS.rowOf(A, job));
    facts.add(JOB_ROWS, JOB_ROWS.rowOf(A, { ...job, turn: null, readyAt: 77 }));
    t.same(
      [...facts.range('job_ready', {})].map(({ key }) => key),
      [[0, 77, 1, A]],
    );
    facts.learn({ kind: 'blob', sha256: A });
    t.match(JSON.parse(Buffer.from(facts.get('job', A) ?? []).toString('utf8', 5)), { readyAt: 77, turn: null });
    t.same(facts.changes(), [], 'nothing that a rule has changed');
    t.end();
  },
);

void t.test('keys sort part by part, numbers before strings, and a shorter one before those that it begins', (t) => {
  const sorted: readonly Key[] = [
    1,
    [1, 'a'],
    [1, 'b'],
    [1, 'b', 0],
    2,
    [2, 1],
    10,
    'a',
    ['a', 1],
    ['a', 2],
    ['a', 'a'],
    'b',
  ];
  for (const [at, one] of sorted.entries()) {
    for (const [otherAt, other] of sorted.entries()) {
      t.equal(Math.sign(compareKeys(one, other)), Math.sign(at - otherAt), JSON.stringify([one, other]));
    }
  }
  t.equal(compareKeys(['a'], 'a'), 0);
  t.end();
});

void t.test('a span has the records between its ends, in their order or in reverse, and no more than it may', (t) => {
  const key = fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.integer({ min: 0, max: 3 }));
  const writes = fc.array(fc.tuple(key, fc.boolean()), { maxLength: 20 });
  const span = fc.record(
    { start: key, end: key, afterStart: fc.boolean(), reverse: fc.boolean(), limit: fc.nat({ max: 6 }) },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(writes, span, (steps, asked) => {
      const facts = new Facts();
      facts.learnWhole('expiry');
      const model = new Map<string, readonly [string, number]>();
      for (const [one, stays] of steps) {
        if (stays) facts.put('expiry', one, Buffer.from('x'));
        else facts.remove('expiry', one);
        if (stays) model.set(one.join(), one);
        else model.delete(one.join());
      }
      const { start, end, afterStart = false, reverse = false, limit = 100 } = asked;
      const expected = [...model.entries()]
        .toSorted(([a], [b]) => (a < b ? -1 : 1))
        .filter(([name]) => start === undefined || name > start.join() || (name === start.join() && !afterStart))
        .filter(([name]) => end === undefined || name < end.join())
        .map(([, one]) => one);
      if (reverse) expected.reverse();
      assert.deepEqual(
        [...facts.range('expiry', asked)].map((entry) => entry.key),
        expected.slice(0, limit),
      );
    }),
  );
  t.end();
});

void t.test('only what differs in the end is a change', (t) => {
  const stored = media({ sentSha256: A });
  const facts = factsOf(stored);
  const { id } = stored.record;
  facts.learn({ kind: 'trash', key: TRASHED.key });
  const changed = () => facts.changes().map(({ table, isNew, value }) => [table.name, isNew, value !== undefined]);
  write(facts, MEDIA, id, { ...stored, endedSeq: 7 });
  t.same(changed(), [['media', false, true]]);
  write(facts, MEDIA, id, stored);
  t.same(changed(), [], 'it is written as it was');
  write(facts, TRASH, TRASHED.key, TRASHED);
  t.same(changed(), [['trash', true, true]]);
  write(facts, TRASH, TRASHED.key, undefined);
  t.same(changed(), [], 'it was made and removed');
  write(facts, MEDIA, id, undefined);
  t.same(changed(), [['media', false, false]]);
  facts.undoTo(0);
  facts.add(MEDIA_ROWS, MEDIA_ROWS.rowOf(id, { ...stored, endedSeq: 8 }));
  t.same(changed(), [], 'what others changed meanwhile is no change of this rule');
  write(facts, MEDIA, id, { ...stored, endedSeq: 9 });
  t.match(facts.changes(), [{ isNew: false, value: { endedSeq: 9 } }]);
  t.end();
});

void t.test('rows are sent with the types that the schema gives their columns', (t) => {
  const types = new Map<string, string>();
  for (const { sql } of STEPS) {
    for (const [, table, body] of sql.matchAll(/CREATE TABLE (\w+) \((.*?)\n\)/gs)) {
      for (const [, column, type] of (body ?? '').matchAll(/^ {2}(\w+) ([a-z]+(?:\[\])?)/gm))
        types.set(`${table}.${column}`, type ?? '');
    }
    for (const [, table, column, type] of sql.matchAll(/ALTER TABLE (\w+) ADD COLUMN (\w+) ([a-z]+(?:\[\])?)/g)) {
      types.set(`${table}.${column}`, type ?? '');
    }
  }
  for (const { name, columns } of ROW_TABLES) {
    t.same(
      columns,
      columns.map(([column]) => [column, types.get(`${name}.${column}`)]),
      name,
    );
  }
  t.end();
});
