import t from 'tap';
import {
  type BlobRecord,
  type MediaRecord,
  NO_FACTS,
  type Quarantine,
  SCANNER,
} from '../../../../origin/meta/media.js';
import type { NewMedia, OwnerAct } from '../../../../origin/meta/store.js';
import { BLOBS, read } from '../../../../origin/meta/tables.js';
import { ownedMedia, takeDownOwned, wouldChange } from '../../../../origin/meta/takedown/owned.js';
import { commitUpload } from '../../../../origin/meta/uploads.js';
import type { Sha256 } from '../../../../src/ids.js';
import { PLACE } from '../../../kit/origin/keys.js';
import { adminMark, T0, uploadOf } from '../../../kit/origin/meta/contract.js';
import { MemoryTables } from '../../../kit/origin/meta/memory-tables.js';

const hashOf = (n: number): Sha256 => n.toString(16).padStart(64, '0') as Sha256;
const RUBBISH = Buffer.from('rubbish');
const ACTS = ['delete', 'quarantine', 'restore'] as const;
const MARK: OwnerAct = { kind: 'quarantine', mark: adminMark(T0 + 5) };

function stored(uploads: readonly NewMedia[]): MemoryTables {
  const tables = new MemoryTables();
  for (const upload of uploads) tables.change((change) => commitUpload(change, upload));
  return tables;
}

void t.test('which acts would change media, by their state and their mark', (t) => {
  const { id, owner } = uploadOf(hashOf(1));
  const record = (given: Partial<MediaRecord> = {}): MediaRecord => ({
    id,
    sha256: hashOf(1),
    sentSha256: hashOf(1),
    public: false,
    owner,
    filename: null,
    createdAt: T0,
    expiresAt: null,
    usedAt: T0,
    state: { kind: 'live' },
    ...given,
  });
  const blob = (quarantine: Quarantine | null): BlobRecord => ({
    sha256: hashOf(1),
    place: PLACE,
    sizeBytes: 1,
    mime: 'image/png',
    storedAt: T0,
    picture: NO_FACTS,
    thumbs: { kind: 'pending' },
    quarantine,
  });
  const cases: readonly [name: string, MediaRecord, BlobRecord | undefined, acts: readonly string[]][] = [
    ['live', record(), blob(null), ['delete', 'quarantine']],
    ['not expired yet', record({ expiresAt: T0 + 1 }), blob(null), ['delete', 'quarantine']],
    ['expired, and not swept', record({ expiresAt: T0 }), blob(null), ['delete']],
    ['withheld and expired', record({ expiresAt: T0 }), blob(adminMark(T0)), ['delete']],
    ['deleted', record({ state: { kind: 'deleted', at: T0, by: '' } }), blob(adminMark(T0)), []],
    ['ended', record({ state: { kind: 'expired', at: T0 } }), blob(null), []],
    ['withheld by an admin', record(), blob(adminMark(T0)), ['delete', 'restore']],
    ['withheld by the scanner', record(), blob({ ...adminMark(T0), by: SCANNER }), ['delete']],
    ['damaged', record(), blob(adminMark(T0, 'rot')), ['delete', 'quarantine']],
    ['awaiting scan', record(), blob(adminMark(T0, 'held')), ['delete', 'quarantine']],
    ['without a record of its bytes', record(), undefined, ['delete']],
  ];
  for (const [name, of, bytes, acts] of cases) {
    t.same(
      ACTS.filter((act) => wouldChange(act, of, bytes, T0)),
      acts,
      name,
    );
  }
  t.end();
});

void t.test('marks of many blobs are told in entries of 64 ids at most, unless one blob has more', (t) => {
  const uploads = Array.from({ length: 33 }, (_, n) => [
    uploadOf(hashOf(n)),
    uploadOf(hashOf(n), { public: true, owner: 'bob' }),
  ]).flat();
  const tables = stored(uploads);
  const own = uploads.filter(({ owner }) => owner === 'ada').map(({ id }) => id);
  t.same(
    tables.change((change) => takeDownOwned(change, 'ada', own, MARK, T0 + 5)),
    { media: 33, others: 33 },
  );
  t.same(
    tables.journal.map(({ cause, at, ids }) => [cause, at, ids.length]),
    [
      ['quarantine', T0 + 5, 64],
      ['quarantine', T0 + 5, 2],
    ],
  );
  t.same(new Set(tables.journal.flatMap(({ ids }) => ids)), new Set(uploads.map(({ id }) => id)));
  t.equal(read(tables, BLOBS, hashOf(31))?.markSeq, 1);
  t.equal(read(tables, BLOBS, hashOf(32))?.markSeq, 2);

  const early = uploadOf(hashOf(1));
  const one = Array.from({ length: 70 }, (_, n) => uploadOf(hashOf(99), { sentSha256: hashOf(1_000 + n) }));
  const many = stored([early, ...one, uploadOf(hashOf(2))]);
  const ids = ownedMedia(many, { owner: 'ada', act: 'quarantine', after: null, limit: 99, now: T0 }, []).ids;
  many.change((change) => takeDownOwned(change, 'ada', ids, MARK, T0 + 5));
  t.same(
    many.journal.map((entry) => entry.ids.length),
    [1, 70, 1],
  );
  t.end();
});

void t.test('damaged records are left out and reported, and hold up nothing else', (t) => {
  const uploads = [1, 2, 3].map((n) => uploadOf(hashOf(n)));
  const tables = stored(uploads);
  const [first, second, third] = uploads.map(({ id }) => String(id));
  tables.put('media', first ?? '', RUBBISH);
  tables.put('blob', hashOf(2), RUBBISH);
  const look = (act: OwnerAct['kind']): unknown => {
    const damaged: Parameters<typeof ownedMedia>[2] = [];
    const { ids } = ownedMedia(tables, { owner: 'ada', act, after: null, limit: 9, now: T0 }, damaged);
    return [ids, damaged.map(({ table }) => table)];
  };
  t.same(look('delete'), [[second, third], ['media']]);
  t.same(look('quarantine'), [[third], ['media', 'blob']]);
  const ids = uploads.map(({ id }) => id);
  t.same(
    tables.change((change) => takeDownOwned(change, 'ada', ids, MARK, T0 + 5)),
    { media: 1, others: 0 },
  );
  t.same(
    tables.change((change) => takeDownOwned(change, 'ada', ids, { kind: 'delete', by: 'eve' }, T0 + 6)),
    { media: 2, others: 0 },
    'a delete does without the record of the bytes',
  );
  t.end();
});
