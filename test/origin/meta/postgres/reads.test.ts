/** What is read from PostgreSQL: what is asked for, and what the rows mean. No server is needed. */
import t from 'tap';
import type { Place } from '../../../../origin/blobs/blob-store.js';
import type { BlobRecord } from '../../../../origin/meta/media.js';
import { createReads, hashesIn, idsIn } from '../../../../origin/meta/postgres/reads.js';
import { BLOB_ROWS, MEDIA_ROWS, type Row, USAGE_ROWS } from '../../../../origin/meta/postgres/rows.js';
import { byteaOf, uuidOf } from '../../../../origin/meta/postgres/values.js';
import type { StoredMedia } from '../../../../origin/meta/records.js';
import type { ListQuery } from '../../../../origin/meta/store.js';
import { ownerKey } from '../../../../origin/meta/tables.js';
import { createIdSource, lowestIdAt, type MediaId, type Sha256 } from '../../../../src/ids.js';
import { blobRecord } from '../../../kit/origin/meta/blob-record.js';
import { createRecordedPool } from '../../../kit/postgres/recorded-pool.js';

const T0 = 1_767_225_600_000;
const HOUR_MS = 3_600_000;
const newId = createIdSource({ now: () => T0 });
const A = 'a'.repeat(64) as Sha256;
const B = 'b'.repeat(64) as Sha256;

const media = (given: Partial<StoredMedia['record']> = {}): StoredMedia => ({
  record: {
    id: newId(),
    sha256: A,
    sentSha256: B,
    public: true,
    owner: 'ada',
    filename: null,
    createdAt: T0,
    expiresAt: null,
    usedAt: 2,
    state: { kind: 'live' },
    ...given,
  },
  endedSeq: 0,
});
const blob = (given: Partial<BlobRecord> = {}): BlobRecord => blobRecord({ sha256: A, ...given });
const blobRow = (record: BlobRecord, unreferencedAt: number | null = null): Row =>
  BLOB_ROWS.rowOf(record.sha256, { blob: record, unreferencedAt, markSeq: 0 });
const NO_BLOB: Row = Object.fromEntries(BLOB_ROWS.columns.map(([name]) => [name, null]));
/** A row of media joined with its blob, whose columns come last. */
const joined = ({ record, endedSeq }: StoredMedia, of: BlobRecord | null): Row => ({
  ...MEDIA_ROWS.rowOf(record.id, { record, endedSeq }),
  media_sha256: byteaOf(record.sha256),
  ...(of === null ? NO_BLOB : blobRow(of)),
});

function readsOf(rows: readonly Row[]) {
  const pool = createRecordedPool(() => rows);
  const asked = () => pool.statements.map(({ parameters }) => parameters);
  return { reads: createReads(pool, 100), asked };
}

void t.test('media is found as of an instant, with its blob', async (t) => {
  const live = media({ expiresAt: 50 });
  const { reads, asked } = readsOf([joined(live, blob())]);
  t.same(await reads.find(live.record.id, 49), { kind: 'live', media: { record: live.record, blob: blob() } });
  t.match(await reads.find(live.record.id, 50), { kind: 'expired' });
  t.same(asked()[0], [uuidOf(live.record.id)]);
  const held = blob({ quarantine: { at: 1, by: 'eve', reason: null, cause: 'admin' } });
  t.match(await readsOf([joined(live, held)]).reads.find(live.record.id, 1), { kind: 'quarantined' });
  t.same(await readsOf([]).reads.find(live.record.id, 1), { kind: 'unknown' });

  const gone = media({ state: { kind: 'deleted', at: 1, by: 'eve' } });
  const deleted = await readsOf([joined(gone, null)]).reads.find(gone.record.id, 1);
  t.same(deleted, { kind: 'deleted', record: gone.record }, 'its blob may be gone, and it keeps its own hash');
  await t.rejects(readsOf([joined(live, null)]).reads.find(live.record.id, 1), { message: /it is missing/ });
});

void t.test('a blob is found by its hash, and by that of the bytes as they were sent', async (t) => {
  const { reads, asked } = readsOf([blobRow(blob())]);
  t.same(await reads.findBlob(A), blob());
  t.same(asked()[0], [byteaOf(A)]);
  t.equal(await readsOf([]).reads.findBlob(A), undefined);

  const asSent = { ...blobRow(blob({ sha256: B })), by: null };
  const freeAsSent = { ...blobRow(blob({ sha256: B }), 5), by: null };
  const changed = { ...blobRow(blob()), by: uuidOf(newId()) };
  const bySent = async (rows: readonly Row[]) => (await readsOf(rows).reads.findBlobBySent(B))?.sha256;
  t.equal(await bySent([asSent, changed]), B);
  t.equal(await bySent([freeAsSent, changed]), A, 'one that a live id refers to comes before one that is free');
  t.equal(await bySent([changed]), A);
  t.equal(await bySent([]), undefined);
});

void t.test('pages of blobs go on after the last one, until a page is not full', async (t) => {
  const two = [blobRow(blob()), blobRow(blob({ sha256: B }))];
  const { reads, asked } = readsOf(two);
  t.match(await reads.blobsAfter(null, 2), { blobs: [blob(), blob({ sha256: B })], next: B });
  t.match(await reads.blobsAfter(A, 3), { next: null });
  t.same(asked(), [
    ['\\x', 2],
    [byteaOf(A), 3],
  ]);
  t.same(await readsOf([]).reads.blobsAfter(B, 0), { blobs: [], next: null });

  const scan = readsOf([]);
  const held = blob({ quarantine: { at: 7, by: 'scan', reason: null, cause: 'held' } });
  await scan.reads.blobsAwaitingScan(null, 4);
  await scan.reads.blobsAwaitingScan(held, 5);
  await scan.reads.unreferencedBlobs(8, 6);
  t.same(scan.asked(), [
    [-1, '\\x', 4],
    [7, byteaOf(A), 5],
    [8, 6],
  ]);
  t.same(await reads.unreferencedBlobs(8, 6), [blob(), blob({ sha256: B })]);
});

void t.test('single values have a meaning where there is no row', async (t) => {
  const none = readsOf([]).reads;
  const id = newId();
  t.equal(await none.isUnreferenced(A), false, 'nothing is free that has no record');
  t.equal(await readsOf([{ free: true }]).reads.isUnreferenced(A), true);
  t.equal(await readsOf([{ free: false }]).reads.isUnreferenced(A), false);
  t.equal(await none.takedownSeqOf(id), 0);
  t.equal(await readsOf([{ seq: 7 }]).reads.takedownSeqOf(id), 7);
  t.same(await none.usage('ada', 5), { bytes: 0, files: 0 });
  const used = readsOf([USAGE_ROWS.rowOf([5, ownerKey('ada')], { bytes: 6, files: 7 })]);
  t.same(await used.reads.usage('ada', 5), { bytes: 6, files: 7 });
  t.same(used.asked(), [[5, ownerKey('ada')]]);
  const ids = [newId(), newId()];
  t.same(await readsOf(ids.map((one) => ({ id: uuidOf(one) }))).reads.idsOfBlob(A), ids);
  const selected = createRecordedPool(() => [{ id: uuidOf(id), sha256: byteaOf(B) }]);
  t.same(await idsIn(selected.run, 'SELECT', [1]), [id]);
  t.same(await hashesIn(selected.run, 'SELECT', [2]), [B]);
  t.same(
    selected.statements.map(({ parameters }) => parameters),
    [[1], [2]],
  );
});

/** A table of media in the order of their ids, of which a listing reads pages. */
function listing(all: readonly StoredMedia[], scanMax: number, of: BlobRecord = blob()) {
  const pool = createRecordedPool(({ sql, parameters }) => {
    const from = String(parameters[0]).replaceAll('-', '');
    const itself = sql.includes('id >= $1');
    const later = all.filter(({ record: { id } }) => (itself ? uuidOf(id) >= from : uuidOf(id) > from));
    return later.slice(0, Number(parameters.at(-1))).map((one) => joined(one, of));
  });
  const reads = createReads(pool, scanMax);
  const page = async (query: Partial<ListQuery>): Promise<{ ids: readonly MediaId[]; next: MediaId | null }> => {
    const { found, next } = await reads.list({ limit: 2, now: T0, ...query });
    return { ids: found.map((one) => ('media' in one ? one.media.record.id : one.record.id)), next };
  };
  return { pool, page };
}

void t.test('a listing has pages, each after the last id that was looked at', async (t) => {
  const all = [1, 2, 3, 4, 5].map((n) => media(n % 2 === 0 ? {} : { state: { kind: 'deleted', at: 1, by: 'eve' } }));
  const [one, two, three, four, five] = all.map(({ record }) => record.id) as [
    MediaId,
    MediaId,
    MediaId,
    MediaId,
    MediaId,
  ];
  const { page } = listing(all, 100);
  t.same(await page({}), { ids: [one, two], next: two });
  t.same(await page({ after: two }), { ids: [three, four], next: four });
  t.same(await page({ after: four }), { ids: [five], next: null });
  t.same(await page({ after: three }), { ids: [four, five], next: five }, 'a full page says where to go on');
  t.same(await page({ after: five }), { ids: [], next: null });
  t.same(await page({ state: 'live' }), { ids: [two, four], next: four }, 'others are read over');
  t.same(await page({ state: 'deleted', limit: 3 }), { ids: [one, three, five], next: five });
  t.same(await page({ state: 'live', limit: 3 }), { ids: [two, four], next: null });
  const few = listing(all, 3);
  t.same(
    await few.page({ state: 'live' }),
    { ids: [two], next: three },
    'no further than may be looked at for one page',
  );
  t.same(await few.page({ state: 'quarantined' }), { ids: [], next: three });
  t.same(
    few.pool.statements.map(({ parameters }) => parameters.at(-1)),
    [2, 1, 2, 1],
  );
  const held = listing(all, 100, blob({ quarantine: { at: 1, by: 'scan', reason: null, cause: 'held' } }));
  t.same(await held.page({ state: 'held' }), { ids: [two, four], next: four });
  t.same(await held.page({ state: 'quarantined' }), { ids: [], next: null }, 'what awaits the scanner is told apart');
});

void t.test('a listing asks the database for what it can decide', async (t) => {
  const { pool, page } = listing([], 100);
  const lowest = (at: number): string => uuidOf(lowestIdAt(at));
  const id = newId();
  await page({ owner: 'ada\0', mime: 'image/png', createdFrom: T0, createdTo: T0 + 5, after: id });
  const [asked] = pool.statements;
  t.match(
    asked?.sql,
    / WHERE id > \$1 AND owner_key = \$2 AND owner = \$3 AND mime = \$4 AND created_at >= \$5 AND created_at <= \$6 AND id <= \$7 ORDER BY id LIMIT \$8$/,
  );
  t.same(asked?.parameters, [
    uuidOf(id),
    ownerKey('ada\0'),
    'ada\ue0000000',
    'image/png',
    T0,
    T0 + 5,
    lowest(T0 + 5 + HOUR_MS),
    2,
  ]);
  // An id carries its own instant, which may be a little before that of its record.
  for (const after of [undefined, lowestIdAt(T0 - 2 * HOUR_MS)]) {
    await page({ createdFrom: T0, ...(after !== undefined && { after }) });
    t.match(pool.statements.at(-1)?.sql, / WHERE id >= \$1 AND created_at >= \$2 ORDER BY/);
    t.same(pool.statements.at(-1)?.parameters, [lowest(T0 - HOUR_MS), T0, 2]);
  }
  await page({ createdFrom: T0, after: lowestIdAt(T0 - HOUR_MS) });
  t.match(pool.statements.at(-1)?.sql, / WHERE id > \$1 AND created_at >= \$2 ORDER BY/, 'the page before ended there');
  await page({});
  t.match(pool.statements.at(-1)?.sql, / WHERE id >= \$1 ORDER BY id LIMIT \$2$/);
});

void t.test('a place and a hash are read as they were written', async (t) => {
  const placed = blob({ place: '0123456789abcdef' as Place });
  t.same(await readsOf([blobRow(placed)]).reads.findBlob(A), placed);
});

void t.test(
  'a step over the media of an owner looks at so many rows, and tells which an act would change',
  async (t) => {
    const [live, ended, lost] = [media(), media({ state: { kind: 'expired', at: 1 } }), media()];
    const rows = [joined(live, blob()), joined(ended, blob()), joined(lost, null)];
    const { reads, asked } = readsOf(rows);
    const query = { owner: 'ada\0', after: null, limit: 3, now: T0 } as const;
    t.same(await reads.owned({ ...query, act: 'delete' }), {
      ids: [live.record.id, lost.record.id],
      next: lost.record.id,
    });
    t.same(
      await reads.owned({ ...query, act: 'quarantine', limit: 4, after: live.record.id }),
      { ids: [live.record.id], next: null },
      'bytes without a record cannot be marked',
    );
    t.same((await reads.owned({ ...query, act: 'restore' })).ids, []);
    const stored = '\uE0000000';
    t.same(asked().slice(0, 2), [
      [ownerKey('ada\0'), `ada${stored}`, '00000000-0000-0000-0000-000000000000', 3],
      [ownerKey('ada\0'), `ada${stored}`, uuidOf(live.record.id), 4],
    ]);
    t.same(await readsOf([]).reads.owned({ ...query, act: 'delete' }), { ids: [], next: null });
  },
);
