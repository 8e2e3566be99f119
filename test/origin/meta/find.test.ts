import t from 'tap';
import { blobsAfter, findMedia, listMedia, takedownSeqOf } from '../../../origin/meta/find.js';
import { findBlobBySent, findLive, listChanged } from '../../../origin/meta/find-sent.js';
import type { ListQuery, NewMedia } from '../../../origin/meta/store.js';
import { quarantine, removeMedia } from '../../../origin/meta/takedown.js';
import { commitUpload } from '../../../origin/meta/uploads.js';
import { createIdSource, type MediaId, type Sha256 } from '../../../src/ids.js';
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

void t.test('bytes are found by what was sent: refused ones first, then those in use', (t) => {
  const found = (tables: MemoryTables): Sha256 | undefined => findBlobBySent(tables, B)?.sha256;
  const [changed, plain] = [uploadOf(A, { sentSha256: B }), uploadOf(B, { sentSha256: B, public: true })] as const;
  const tables = stored([changed]);
  t.equal(found(tables), A);
  tables.change((change) => commitUpload(change, plain));
  t.equal(found(tables), B, 'the unchanged one, while an id refers to it');
  t.equal(findLive(tables, B, true, listChanged(tables, B))?.record.id, plain.id);
  t.equal(findLive(tables, B, false, listChanged(tables, B))?.record.id, changed.id);
  t.same(
    [findLive(tables, B, true, []), findLive(tables, B, false, [])].map((one) => one?.record.id),
    [plain.id, undefined],
  );
  t.equal(findLive(tables, C, false, listChanged(tables, C)), undefined);
  tables.change((change) => removeMedia(change, plain.id, 'eve', T0));
  t.equal(found(tables), A);
  t.equal(findLive(tables, B, true, listChanged(tables, B)), undefined, 'of that visibility there is none');
  tables.change((change) => quarantine(change, B, adminMark(T0)));
  t.equal(found(tables), B);
  tables.change((change) => removeMedia(change, changed.id, 'eve', T0));
  t.equal(findLive(tables, B, false, listChanged(tables, B)), undefined);
  t.equal(findBlobBySent(tables, C), undefined);
  t.end();
});

const HOUR = 3_600_000;

void t.test('a listing stays within its times, its limits and its owner', (t) => {
  const newId = createIdSource({ now: () => at });
  let at = T0;
  const uploads = Array.from({ length: 8 }, (_, n) => {
    at = T0 + n * HOUR;
    const owner = n % 2 === 0 ? 'ada' : 'bob';
    return uploadOf(hashOf(n), { id: newId(), now: at, owner, mime: n < 4 ? 'image/png' : 'image/gif' });
  });
  const tables = stored(uploads);
  const ids = uploads.map(({ id }) => id);
  const damaged: Parameters<typeof listMedia>[3] = [];
  const list = (query: Partial<ListQuery>, scanMax = 100) => {
    const page = listMedia(tables, { limit: 100, now: at, ...query }, scanMax, damaged);
    const idOf = (found: (typeof page.found)[number]): MediaId =>
      'media' in found ? found.media.record.id : found.record.id;
    return [page.found.map((found) => ids.indexOf(idOf(found))), page.next === null ? null : ids.indexOf(page.next)];
  };
  const after = (n: number): { after: MediaId } => ({ after: ids[n] as MediaId });
  t.same(list({}), [[0, 1, 2, 3, 4, 5, 6, 7], null]);
  t.same(list({ limit: 3 }), [[0, 1, 2], 2]);
  t.same(list({ limit: 3, ...after(2) }), [[3, 4, 5], 5]);
  t.same(list({ limit: 8 }), [[0, 1, 2, 3, 4, 5, 6, 7], 7]);
  t.same(list(after(7)), [[], null]);
  t.same(list({ owner: 'ada' }), [[0, 2, 4, 6], null]);
  t.same(list({ owner: 'ada', limit: 2, ...after(0) }), [[2, 4], 4]);
  t.same(list({ owner: 'ada', ...after(1) }), [[2, 4, 6], null]);
  t.same(list({ mime: 'image/gif' }, 3), [[], 2], 'what is looked at counts, not what is found');
  t.same(list({ mime: 'image/gif', limit: 2, ...after(2) }, 3), [[4, 5], 5]);
  t.same(list({ createdFrom: T0 + 3 * HOUR }), [[3, 4, 5, 6, 7], null]);
  t.same(list({ createdFrom: T0 + 3 * HOUR + 1 }), [[4, 5, 6, 7], null]);
  t.same(list({ createdTo: T0 + 3 * HOUR }), [[0, 1, 2, 3], null]);
  t.same(list({ createdTo: T0 + 3 * HOUR - 1 }), [[0, 1, 2], null]);
  t.same(list({ createdFrom: T0 + 5 * HOUR }, 3), [[5, 6], 6], 'no more is read than an hour before');
  t.same(list({ createdTo: T0 + HOUR, mime: 'x/y' }, 2), [[], 1]);
  t.same(list({ createdTo: T0 + HOUR, mime: 'x/y' }, 3), [[], null], 'nor than an hour after');
  t.same(list({ createdFrom: T0 + 3 * HOUR, ...after(4) }), [[5, 6, 7], null]);
  t.same(
    list({ createdFrom: T0 + 5 * HOUR, ...after(1) }),
    [[5, 6, 7], null],
    'a page begins no earlier than asked for',
  );
  t.same(list({ createdFrom: T0 + 5 * HOUR, ...after(1) }, 3), [[5, 6], 6], 'nor is anything earlier read');
  t.same(list({ owner: 'bob', createdFrom: T0 + 5 * HOUR }, 1), [[5], 5]);
  t.same(list({ owner: 'bob', createdFrom: T0 + 5 * HOUR }), [[5, 7], null]);
  t.same(list({ owner: 'ada', createdFrom: T0 + 5 * HOUR }), [[6], null]);

  tables.change((change) => removeMedia(change, ids[0] as MediaId, 'eve', at));
  tables.change((change) => quarantine(change, hashOf(1), adminMark(at)));
  tables.change((change) => quarantine(change, hashOf(2), adminMark(at, 'held')));
  const states = (['live', 'deleted', 'expired', 'quarantined', 'held'] as const).map((state) => list({ state })[0]);
  t.same(states, [[3, 4, 5, 6, 7], [0], [], [1], [2]]);
  t.same(list({ mime: 'image/png' })[0], [0, 1, 2, 3], 'a tombstone is of the type of its blob');
  t.same(damaged, []);
  tables.put('media', ids[3] as MediaId, RUBBISH);
  tables.put('blob', hashOf(4), RUBBISH);
  tables.remove('blob', hashOf(5));
  tables.remove('blob', hashOf(0));
  t.same(list({}), [[0, 1, 2, 6, 7], null]);
  t.same(
    damaged.map(({ table, key }) => [table, key]),
    [
      ['media', ids[3]],
      ['blob', hashOf(4)],
      ['blob', hashOf(5)],
    ],
  );
  t.same(list({ mime: 'image/png' })[0], [1, 2]);
  t.throws(() => findMedia(tables, ids[5] as MediaId, at), { message: /it is missing, but .* refers to it/ });
  t.end();
});

void t.test('an id is gone from the instant of its expiry, and its takedowns are numbered', (t) => {
  const upload = uploadOf(A, { expiresAt: T0 + 50 });
  const tables = stored([upload]);
  const kindAt = (at: number): string => findMedia(tables, upload.id, at).kind;
  t.same([kindAt(T0 + 49), kindAt(T0 + 50)], ['live', 'expired']);
  t.same(findMedia(tables, upload.id, T0 + 90), {
    kind: 'expired',
    record: { ...tables.media[0]?.record, state: { kind: 'expired', at: T0 + 50 } },
  });
  t.same(findMedia(tables, uploadOf(A).id, T0), { kind: 'unknown' });
  t.equal(takedownSeqOf(tables, upload.id), 0);
  t.equal(takedownSeqOf(tables, uploadOf(A).id), 0);
  tables.change((change) => quarantine(change, A, adminMark(T0)));
  t.equal(takedownSeqOf(tables, upload.id), 1);
  tables.change((change) => removeMedia(change, upload.id, 'eve', T0));
  t.equal(takedownSeqOf(tables, upload.id), 2);
  t.equal(kindAt(T0 + 60), 'deleted');
  tables.remove('blob', A);
  t.equal(takedownSeqOf(tables, upload.id), 2);
  const other = uploadOf(B);
  tables.change((change) => commitUpload(change, other));
  tables.remove('blob', B);
  t.equal(takedownSeqOf(tables, other.id), 0);
  t.end();
});

void t.test('a listing fails with the database, and not with a damaged record', (t) => {
  class Failing extends MemoryTables {
    override get(table: string, key: Parameters<MemoryTables['get']>[1]): Uint8Array | undefined {
      if (table === 'blob' && this.broken) throw new Error('the disk is gone');
      return super.get(table, key);
    }
    broken = false;
  }
  const tables = new Failing();
  tables.change((change) => commitUpload(change, uploadOf(A)));
  tables.broken = true;
  t.throws(() => listMedia(tables, { limit: 1, now: T0 }, 9, []), { message: 'the disk is gone' });
  t.end();
});

void t.test('blobs are read in pages in the order of their hashes', (t) => {
  const tables = stored([0, 1, 2].map((n) => uploadOf(hashOf(n))));
  const page = (after: number | null, limit: number): object => {
    const { blobs, next } = blobsAfter(tables, after === null ? null : hashOf(after), limit, []);
    return [blobs.map(({ sha256 }) => Number(sha256)), next === null ? null : Number(next)];
  };
  t.same(page(null, 2), [[0, 1], 1]);
  t.same(page(1, 2), [[2], null]);
  t.same(page(null, 3), [[0, 1, 2], 2]);
  t.same(page(2, 3), [[], null]);
  tables.put('blob', hashOf(1), RUBBISH);
  t.same(page(null, 2), [[0], 1]);
  t.end();
});
