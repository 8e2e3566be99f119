/** Reading all records of an embedded store, and making one of records from elsewhere: what moves between stores need. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { mediaKey, NO_PLACE } from '../../../origin/blobs/blob-store.js';
import { makeStore, readStore } from '../../../origin/meta/lmdb.js';
import { JOURNAL, type StoredRecord, TRASH } from '../../../origin/meta/tables.js';
import { createIdSource, type Sha256 } from '../../../src/ids.js';

const STAMP = { journal: 'one', madeAt: 7 };
const newId = createIdSource({ now: () => 1_767_225_600_000 });

const trashed = (n: number): StoredRecord => {
  const key = mediaKey({ sha256: n.toString(16).padStart(64, '0') as Sha256, place: NO_PLACE });
  return { table: TRASH, key, value: { key, at: n } };
};
const entry: StoredRecord = {
  table: JOURNAL,
  key: 3,
  value: { seq: 3, mark: 'm', at: 4, cause: 'delete', ids: [newId()] },
};

/** Reads a store as one list, slowly, and says how long the pages were. */
async function allOf(folder: string): Promise<{ records: StoredRecord[]; pages: number[]; stamp: unknown }> {
  const records: StoredRecord[] = [];
  const pages: number[] = [];
  let busy = false;
  const stamp = await readStore(folder, [JOURNAL, TRASH], async (page) => {
    if (busy) throw new Error('a page comes before the last one was taken');
    busy = true;
    await new Promise(setImmediate);
    busy = false;
    pages.push(page.length);
    records.push(...page);
  });
  return { records, pages, stamp };
}

void t.test('a store made of records has all of them, and is read table by table in pages', async (t) => {
  for (const [count, pages] of [
    [0, [1, 0]],
    [1_000, [1, 1_000, 0]],
    [2_001, [1, 1_000, 1_000, 1]],
  ] as const) {
    const folder = join(t.testdir({}), 'meta');
    const records = [entry, ...Array.from({ length: count }, (_, n) => trashed(n))];
    await makeStore(folder, STAMP, async (take) => {
      await take(records.slice(0, 5));
      await take(records.slice(5));
    });
    t.same(readdirSync(folder), ['data.mdb'], 'nothing else is left');
    t.equal(statSync(folder).mode & 0o777, 0o700, 'nobody else reads it');
    const read = await allOf(folder);
    t.match(read.stamp, STAMP);
    t.same(read.pages, pages);
    t.same(read.records, records);
  }
});

void t.test('a folder that has metadata keeps them', async (t) => {
  const folder = t.testdir({});
  await makeStore(folder, STAMP, async (take) => take([entry]));
  let asked = false;
  const second = makeStore(folder, STAMP, async () => {
    asked = true;
  });
  await t.rejects(second, { message: /already contains a metadata store/ });
  t.equal(asked, false);
  t.same((await allOf(folder)).records, [entry]);
});

void t.test('a store is not there before all of its records are', async (t) => {
  const folder = t.testdir({});
  const stopped = makeStore(folder, STAMP, async (take) => {
    await take([entry]);
    throw new Error('stopped');
  });
  await t.rejects(stopped, { message: 'stopped' });
  await t.rejects(allOf(folder), 'there is none');
  await makeStore(folder, { ...STAMP, journal: 'two' }, async (take) => take([trashed(1)]));
  const { records, stamp } = await allOf(folder);
  t.same(records, [trashed(1)], 'what the first attempt left is gone');
  t.match(stamp, { journal: 'two' });
});
