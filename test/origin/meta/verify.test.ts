import t, { type Test } from 'tap';
import type { Change } from '../../../origin/meta/database.js';
import { createQueue } from '../../../origin/meta/queue.js';
import { journalCodec, mediaCodec, type StoredBlob, usageCodec } from '../../../origin/meta/records.js';
import type { MetaFinding, NewMedia } from '../../../origin/meta/store.js';
import { ABOUT, BLOBS, DEAD, JOBS, ownerKey, read, write } from '../../../origin/meta/tables.js';
import { removeMedia } from '../../../origin/meta/takedown.js';
import { commitUpload } from '../../../origin/meta/uploads.js';
import { verifyMeta } from '../../../origin/meta/verify.js';
import type { Sha256 } from '../../../src/ids.js';
import { createLog } from '../../../src/log.js';
import { T0, uploadOf } from '../../kit/origin/meta/contract.js';
import { MemoryTables } from '../../kit/origin/meta/memory-tables.js';

const [A, B, C] = ['a', 'b', 'c'].map((digit) => digit.repeat(64)) as [Sha256, Sha256, Sha256];
const NOW = T0 + 1_000;
const RUBBISH = Buffer.from('rubbish');
const NOTHING = Buffer.alloc(0);

interface Verified {
  readonly findings: readonly MetaFinding[];
  /** Ids whose blob has no record. */
  readonly unknown: readonly string[];
  /** `TABLE: rows` after each page. */
  readonly progress: readonly string[];
}

interface Store {
  readonly tables: MemoryTables;
  readonly one: NewMedia;
  readonly two: NewMedia;
  /** `meanwhile` happens between a finding and its repair. */
  verify(repair: boolean, meanwhile?: () => void): Promise<Verified>;
}

/** A store in which A is uploaded until an instant, B is public, and one upload of C is deleted. */
function setUp(): Store {
  const tables = new MemoryTables();
  const [one, two, three] = [
    uploadOf(A, { expiresAt: T0 + 5_000 }),
    uploadOf(B, { public: true }),
    uploadOf(C),
  ] as const;
  tables.change((change) => {
    write(change.writer, ABOUT, 'stamp', { format: 3, journal: 'the name', madeAt: T0 });
    for (const upload of [one, two, three]) commitUpload(change, upload);
    removeMedia(change, three.id, 'eve', T0);
  });
  let names = 0;
  return {
    tables,
    one,
    two,
    async verify(repair, meanwhile) {
      const [findings, unknown, progress] = [[] as MetaFinding[], [] as string[], [] as string[]];
      const run = <T>(body: (change: Change) => T): Promise<T> => {
        meanwhile?.();
        return tables.run(body);
      };
      const randomName = (): string => {
        names += 1;
        return `name ${names}`;
      };
      const repairs: number[] = [];
      const before = tables.transactions;
      await verifyMeta(tables, run, randomName, {
        repair,
        now: NOW,
        signal: new AbortController().signal,
        onFinding(finding) {
          findings.push(finding);
          if (repair) repairs.push(tables.transactions);
        },
        onBlobUnknown: ({ id }) => unknown.push(id),
        onProgress: ({ table, seen }) => progress.push(`${table}: ${seen}`),
      });
      const inTurn = repairs.map((_, index) => before + index + 1);
      t.same(repairs, inTurn, 'each is repaired before it is told, and before the next is looked for');
      return { findings, unknown, progress };
    },
  };
}

/** Changes a blob's record, and with it its index entries. */
function changeBlob(tables: MemoryTables, sha256: Sha256, given: Partial<StoredBlob>): StoredBlob {
  const stored = tables.blobs.find(({ blob }) => blob.sha256 === sha256);
  if (stored === undefined) throw new Error('there is no such blob');
  write(tables, BLOBS, sha256, { ...stored, ...given });
  return stored;
}

const byText = (findings: readonly MetaFinding[]): readonly string[] =>
  findings.map(({ kind, table, key }) => `${kind} ${table} ${key}`).sort();

/** What is found, that it is found alike when it is repaired, and that nothing is left then. */
async function repaired(t: Test, store: Store, expected: readonly string[], left: readonly string[] = []) {
  const found = await store.verify(false);
  t.same(byText(found.findings), expected.toSorted());
  t.notOk(found.findings.some((finding) => finding.repaired));
  const mended = await store.verify(true);
  t.ok(mended.findings.every((finding) => finding.repaired));
  t.same(byText((await store.verify(false)).findings), left);
  return { found: found.findings, mended: mended.findings };
}

void t.test('a store that agrees with itself has no findings, and all of it is read', async (t) => {
  const store = setUp();
  const before = store.tables.writes.length;
  const { findings, unknown, progress } = await store.verify(true);
  t.same([findings, unknown], [[], []]);
  t.equal(store.tables.writes.length, before);
  const indexes = ['by_blob: 3', 'live: 2', 'sent: 0', 'by_owner: 3', 'expiry: 1', 'idle: 2', 'tombstone: 1'];
  const others = ['unreferenced: 1', 'held: 0', 'job_ready: 4', 'job_lease: 0', 'dead_order: 0', 'trash_order: 0'];
  const events = ['hook_media: 0', 'hook_ready: 0', 'hook_since: 0', 'hook_dead: 0'];
  const records = ['media: 3', 'blob: 3', 'job: 2', 'dead: 0', 'trash: 0', 'hook: 0'];
  t.same(
    progress,
    [...records, 'usage: 0', 'journal: 1', ...records, ...indexes, ...others, ...events, ...records.slice(0, 4)],
    'one after the other',
  );
});

void t.test('a record of media that cannot be read is set aside, and edges drop the media', async (t) => {
  const store = setUp();
  const { tables, one } = store;
  tables.put('media', one.id, RUBBISH);
  const owner = ownerKey(one.owner);
  const { found } = await repaired(t, store, [
    `damaged media ${one.id}`,
    `index_stray by_blob ${A}/${one.id}`,
    `index_stray by_owner ${owner}/${one.id}`,
    `index_stray expiry ${T0 + 5_000}/${one.id}`,
    `index_stray idle ${T0}/${one.id}`,
    `index_stray live ${A}/0`,
  ]);
  t.same(found[0], {
    kind: 'damaged',
    table: 'media',
    key: one.id,
    detail: `the record ${one.id} of media is damaged: it has version 114; this release reads up to 2`,
    repaired: false,
  });
  t.match(
    found.find(({ table }) => table === 'live'),
    { detail: `it points to media ${one.id}, which has no such entry` },
  );
  t.match(
    found.find(({ table }) => table === 'idle'),
    { detail: `it points to media ${one.id}, which has no such entry` },
  );
  t.same(tables.get('lost', `media ${one.id}`), RUBBISH, 'its bytes can be examined');
  t.match(tables.journal.at(-1), { seq: 2, cause: 'delete', ids: [one.id], at: NOW });
  t.match(tables.blobs[0], { blob: { sha256: A }, unreferencedAt: NOW }, 'nothing refers to its blob any more');
  t.notOk(tables.jobs.some(({ sha256 }) => sha256 === A));
});

void t.test('a record under another key than its own, and other damaged records, are set aside quietly', async (t) => {
  const store = setUp();
  const { tables, two } = store;
  const bytes = tables.get('media', two.id) ?? NOTHING;
  tables.put('media', 'nonsense', bytes);
  tables.put('job', C, RUBBISH);
  tables.put('dead', C, RUBBISH);
  tables.put('usage', [T0, 'owner'], RUBBISH);
  tables.put('usage', [two.id], RUBBISH);
  const { found } = await repaired(t, store, [
    `damaged usage ${two.id}`,
    'damaged media nonsense',
    `damaged job ${C}`,
    `damaged dead ${C}`,
    `damaged usage ${T0}/owner`,
  ]);
  t.match(
    found.find(({ key }) => key === 'nonsense'),
    { detail: `it says that its key is ${two.id}` },
  );
  t.same(tables.keys('lost'), [`dead ${C}`, `job ${C}`, 'media nonsense', `usage ${two.id}`, `usage ${T0}/owner`]);
  t.equal(tables.journal.length, 1, 'edges have nothing to drop');
  t.same(
    ['media', 'job', 'dead', 'usage'].map((table) => tables.count(table)),
    [3, 2, 0, 0],
  );
});

void t.test('a journal with a gap gets a new name, and goes on behind it', async (t) => {
  const store = setUp();
  const { tables } = store;
  const entry = (seq: number): Buffer => journalCodec.encode({ seq, mark: 'x', at: T0, cause: 'delete', ids: [] });
  for (const seq of [2, 4, 5]) tables.put('journal', seq, entry(seq));
  const { found } = await repaired(t, store, ['journal_broken journal 4']);
  t.same(found, [
    {
      kind: 'journal_broken',
      table: 'journal',
      key: '4',
      detail: 'entries between this one and 3 are missing',
      repaired: false,
    },
  ]);
  t.same(
    tables.journal.map(({ seq }) => seq),
    [4, 5],
  );
  t.same(read(tables, ABOUT, 'stamp'), { format: 3, journal: 'name 1', madeAt: T0 });
  t.same(tables.keys('lost'), []);
});

void t.test('an entry of the journal that cannot be read is replaced', async (t) => {
  const store = setUp();
  const { tables } = store;
  tables.put('journal', 2, RUBBISH);
  tables.put('journal', 3, journalCodec.encode({ seq: 3, mark: 'x', at: T0, cause: 'expire', ids: [] }));
  const { found } = await repaired(t, store, ['journal_broken journal 2']);
  t.match(found[0], { detail: /^the record 2 of journal is damaged/ });
  t.same(tables.journal, [
    { seq: 2, mark: 'name 1', at: NOW, cause: 'restore', ids: [] },
    { seq: 3, mark: 'x', at: T0, cause: 'expire', ids: [] },
  ]);
  t.match(read(tables, ABOUT, 'stamp'), { journal: 'name 2' });
  t.same(tables.get('lost', 'journal 2'), RUBBISH);

  const first = setUp();
  first.tables.put('journal', 1, RUBBISH);
  first.tables.remove('about', 'stamp');
  t.same(byText((await first.verify(true)).findings), ['journal_broken journal 1']);
  t.equal(first.tables.count('about'), 0, 'a store without a stamp gets none');
});

void t.test('index entries that are missing or wrong are put right', async (t) => {
  const store = setUp();
  const { tables, one, two } = store;
  const before = ['by_blob', 'live', 'expiry', 'job_ready', 'unreferenced', 'dead_order'].map((name) =>
    tables.keys(name),
  );
  tables.remove('expiry', [T0 + 5_000, one.id]);
  tables.remove('unreferenced', [T0, C]);
  tables.put('live', [A, 0], Buffer.from(two.id));
  tables.put('by_blob', [A, two.id], NOTHING);
  tables.put('dead_order', [T0, A], NOTHING);
  tables.put('live', 'alone', NOTHING);
  const { found } = await repaired(t, store, [
    `index_missing expiry ${T0 + 5_000}/${one.id}`,
    `index_missing live ${A}/0`,
    `index_missing unreferenced ${T0}/${C}`,
    `index_stray by_blob ${A}/${two.id}`,
    `index_stray dead_order ${T0}/${A}`,
    `index_stray live ${A}/0`,
    'index_stray live alone',
  ]);
  t.match(found[0], { kind: 'index_missing', detail: `media ${one.id} is missing in it`, repaired: false });
  t.match(
    found.find(({ table }) => table === 'dead_order'),
    { detail: `it points to dead ${A}, which has no such entry` },
  );
  t.match(
    found.find(({ key }) => key === 'alone'),
    { detail: 'it points to media alone, which has no such entry' },
  );
  t.same(
    ['by_blob', 'live', 'expiry', 'job_ready', 'unreferenced', 'dead_order'].map((name) => tables.keys(name)),
    before,
  );
});

void t.test('whether a blob is referenced is put right, and its grace period begins now', async (t) => {
  const store = setUp();
  const { tables, one } = store;
  const stored = (sha256: Sha256) => tables.blobs.find(({ blob }) => blob.sha256 === sha256);
  changeBlob(tables, A, { unreferencedAt: T0 });
  changeBlob(tables, C, { unreferencedAt: null });
  const { found } = await repaired(t, store, [`reference_wrong blob ${A}`, `reference_wrong blob ${C}`]);
  t.same(
    found.map(({ detail }) => detail),
    ['a live id refers to it', 'no live id refers to it'],
  );
  t.same([stored(A)?.unreferencedAt, stored(C)?.unreferencedAt], [null, NOW]);

  tables.remove('blob', A);
  const { findings, unknown } = await store.verify(false);
  t.same(unknown, [one.id], 'a live id whose blob has no record is reported');
  t.same(byText(findings), [`job_stray job ${A}`]);
  tables.put('media', one.id, RUBBISH);
  t.same((await store.verify(false)).unknown, []);
});

void t.test('a job is made where one is due, and removed where it is of no use', async (t) => {
  const store = setUp();
  const { tables } = store;
  write(tables, JOBS, A, undefined);
  const [letter, stray] = ['d'.repeat(64) as Sha256, 'e'.repeat(64) as Sha256];
  write(tables, DEAD, letter, { sha256: letter, attempts: 1, diedAt: T0, reason: '' });
  await createQueue(tables, (body) => tables.run(body), createLog('test', { level: 'silent' })).add(
    stray,
    'upload',
    T0,
  );
  const { found } = await repaired(t, store, [
    `job_missing job ${A}`,
    `job_stray job ${stray}`,
    `job_stray dead ${letter}`,
  ]);
  t.same(
    found.map(({ detail }) => detail),
    ['its thumbnails are pending, but it has no job', 'there is no such blob', 'there is no such blob'],
  );
  t.match(tables.jobs, [{ sha256: A, priority: 'backfill', queuedAt: NOW }, { sha256: B }]);
  t.equal(tables.jobs.length, 2);
  t.same(
    ['dead', 'dead_order'].map((name) => tables.keys(name)),
    [[], []],
  );
  t.equal(tables.keys('job_ready').length, 4);

  const { blob } = changeBlob(tables, B, {});
  changeBlob(tables, B, { blob: { ...blob, thumbs: { kind: 'none', reason: 'failed' } } });
  write(tables, JOBS, B, undefined);
  t.same(
    (await store.verify(false)).findings,
    [],
    'none is due for thumbnails that will not be made, nor for a blob without ids',
  );
});

void t.test('a repair reads again, and changes nothing that was put right meanwhile', async (t) => {
  const gone = setUp();
  gone.tables.remove('expiry', [T0 + 5_000, gone.one.id]);
  const bytes = gone.tables.get('media', gone.one.id) ?? NOTHING;
  await gone.verify(true, () => gone.tables.remove('media', gone.one.id));
  t.same(gone.tables.keys('expiry'), [], 'no entry is made for a record that is gone');

  const back = setUp();
  back.tables.put('expiry', [T0 + 9_000, back.one.id], NOTHING);
  const { record, endedSeq } = mediaCodec.decode(bytes);
  await back.verify(true, () =>
    back.tables.put(
      'media',
      back.one.id,
      mediaCodec.encode({ endedSeq, record: { ...record, id: back.one.id, expiresAt: T0 + 9_000 } }),
    ),
  );
  t.ok(back.tables.keys('expiry').includes(`${T0 + 9_000}/${back.one.id}`), 'no entry is removed that is right by now');

  const jobs = setUp();
  const blob = jobs.tables.get('blob', A) ?? NOTHING;
  jobs.tables.remove('blob', A);
  await jobs.verify(true, () => jobs.tables.put('blob', A, blob));
  t.ok(
    jobs.tables.jobs.some(({ sha256 }) => sha256 === A),
    'no job is removed whose blob is there',
  );

  const aside = setUp();
  aside.tables.put('usage', [T0, 'owner'], RUBBISH);
  await aside.verify(true, () => aside.tables.remove('usage', [T0, 'owner']));
  t.same(aside.tables.keys('lost'), []);
});

void t.test('tables are read in pages, and an abort ends it between them', async (t) => {
  const fill = (rows: number): Store => {
    const store = setUp();
    for (let n = 0; n < rows; n += 1) store.tables.put('usage', [n, 'x'], usageCodec.encode({ bytes: n, files: 1 }));
    return store;
  };
  const pages = async (rows: number): Promise<readonly string[]> =>
    (await fill(rows).verify(false)).progress.filter((line) => line.startsWith('usage')).map((line) => line.slice(7));
  t.same(await pages(499), ['499']);
  t.same(await pages(500), ['500', '500']);
  t.same(await pages(501), ['500', '501']);
  const large = fill(501);
  large.tables.put('usage', [500, 'x'], RUBBISH);
  t.same(byText((await large.verify(false)).findings), ['damaged usage 500/x'], 'the second page too');

  const stopped = setUp();
  const stopping = new AbortController();
  const seen: string[] = [];
  await t.rejects(
    verifyMeta(
      stopped.tables,
      (body) => stopped.tables.run(body),
      () => '',
      {
        repair: false,
        now: NOW,
        signal: stopping.signal,
        onFinding: () => t.fail('there is nothing to find'),
        onBlobUnknown: () => t.fail('nor is a blob unknown'),
        onProgress: ({ table }) => {
          seen.push(table);
          stopping.abort(new Error('enough'));
        },
      },
    ),
    { message: 'enough' },
  );
  t.same(seen, ['media']);
});
