/** What the table of unfinished uploads promises: in PostgreSQL, and as a double in memory. */
import type { Test } from 'tap';
import { type BlobKey, type Place, partKey } from '../../../../origin/blobs/blob-store.js';
import type { UploadRow, UploadTable } from '../../../../origin/meta/origins/shared.js';
import { NO_LIMITS } from '../chunks.js';

export interface TableUnderTest {
  readonly table: UploadTable;
  readonly intend: (keys: readonly BlobKey[]) => Promise<void>;
  readonly isIntended: (key: BlobKey) => Promise<boolean>;
  /** In the order of their texts. */
  readonly trash: () => Promise<readonly BlobKey[]>;
}

const A = 'a'.repeat(32);
const begunUpload = (id: string, more: Partial<UploadRow> = {}): UploadRow => {
  const row = { id, owner: 'ann', sizeBytes: 100, expiresAt: 1_000, mediaId: null, ...more };
  return { ...row, record: `${row.id} ${row.mediaId}` };
};
const placeOf = (n: number): Place => n.toString(16).padStart(16, '0') as Place;

export async function uploadTableContract(t: Test, open: () => Promise<TableUnderTest>): Promise<void> {
  await t.test('a part is added where the upload ends, and nowhere else', async (t) => {
    const { table, intend, isIntended, trash } = await open();
    let made = 0;
    const extend = async (offset: number, sizeBytes: number, intended = true) => {
      made += 1;
      const key = partKey(A, offset, placeOf(made));
      if (intended) await intend([key]);
      const outcome = await table.extend({ uploadId: A, offset, sizeBytes, key });
      t.equal(await isIntended(key), false);
      return { key, outcome };
    };
    t.equal((await extend(0, 3)).outcome, 'moved', 'there is no such upload');
    await table.create(begunUpload(A, { sizeBytes: 10 }), NO_LIMITS);
    const first = await extend(0, 3);
    const second = await extend(3, 4);
    t.same([first.outcome, second.outcome], ['extended', 'extended']);
    t.match(await table.find(A), { offset: 7 });
    const refused = [await extend(0, 3), await extend(3, 1), await extend(8, 1), await extend(7, 4)];
    t.same(
      refused.map(({ outcome }) => outcome),
      ['moved', 'moved', 'moved', 'moved'],
    );
    t.equal((await extend(7, 1, false)).outcome, 'not_intended');
    t.match(await table.find(A), { offset: 7 });
    const parts = [
      { uploadId: A, offset: 0, sizeBytes: 3, key: first.key },
      { uploadId: A, offset: 3, sizeBytes: 4, key: second.key },
    ];
    t.same(await table.parts(A), parts);
    t.equal((await trash()).length, 5, 'what was refused is in the trash');
    await table.cut(A, 3, 6);
    t.same(await table.parts(A), parts, 'it ends elsewhere');
    await table.cut(A, 3, 7);
    t.same(await table.parts(A), parts.slice(0, 1));
    t.match(await table.find(A), { offset: 3 });
    t.ok((await trash()).includes(second.key));
    await table.finish([begunUpload(A, { sizeBytes: 3, mediaId: 'one' })]);
    t.same([await table.parts(A), (await trash()).includes(first.key)], [[], true]);
    t.equal((await extend(3, 1)).outcome, 'moved', 'a finished one takes none');
    t.equal(await table.change(begunUpload(A)), false);
    await table.finish([begunUpload(A, { sizeBytes: 3, mediaId: 'two' })]);
    t.match(await table.find(A), { record: `${A} one`, offset: 3 }, 'it stays what it has become');
  });

  await t.test('of parts that are added at once at one offset, one is', async (t) => {
    const { table, intend } = await open();
    await table.create(begunUpload(A), NO_LIMITS);
    for (let offset = 0; offset < 10; offset += 1) {
      const keys = Array.from({ length: 8 }, (_, n) => partKey(A, offset, placeOf(offset * 8 + n)));
      await intend(keys);
      const outcomes = await Promise.all(keys.map((key) => table.extend({ uploadId: A, offset, sizeBytes: 1, key })));
      t.equal(outcomes.filter((outcome) => outcome === 'extended').length, 1);
    }
    t.equal((await table.parts(A)).length, 10);
  });

  await t.test('a part that comes while the upload ends is in the trash', async (t) => {
    const { table, intend, trash } = await open();
    for (let round = 0; round < 20; round += 1) {
      await table.create(begunUpload(A), NO_LIMITS);
      const keys = [0, 1].map((offset) => partKey(A, offset, placeOf(1_000 + 2 * round + offset)));
      await intend(keys);
      const end = round % 2 === 0 ? table.finish([begunUpload(A, { mediaId: 'one' })]) : table.drop(A);
      const adding = keys.map((key, offset) => table.extend({ uploadId: A, offset, sizeBytes: 1, key }));
      await Promise.all([...adding, end]);
      await table.drop(A);
      const thrown = await trash();
      t.ok(
        keys.every((key) => thrown.includes(key)),
        `round ${round}`,
      );
    }
  });
}
