/** Which keys a change of a blob's record names from then on, and which it leaves to the trash. */
import t from 'tap';
import { mediaKey, NO_PLACE, type Place, thumbKey } from '../../../origin/blobs/blob-store.js';
import { startChange } from '../../../origin/meta/database.js';
import type { ThumbMade } from '../../../origin/meta/media.js';
import { forgetTrash, isNamed, isTrashed, trashedBefore, writeBlob } from '../../../origin/meta/places.js';
import type { StoredBlob } from '../../../origin/meta/records.js';
import type { Sha256 } from '../../../src/ids.js';
import { blobRecord } from '../../kit/origin/meta/blob-record.js';
import { MemoryTables } from '../../kit/origin/meta/memory-tables.js';

const A = 'a'.repeat(64) as Sha256;
const thumb = (digit: string): ThumbMade => ({
  variant: 'small',
  format: 'webp',
  sha256: digit.repeat(64) as Sha256,
  place: digit.repeat(16) as Place,
  sizeBytes: 5,
  width: 1,
  height: 1,
  animated: false,
});
const [one, two] = [thumb('1'), thumb('2')];
const blobWith = (made: readonly ThumbMade[]): StoredBlob => ({
  blob: blobRecord({ sha256: A, thumbs: { kind: 'ready', made } }),
  unreferencedAt: null,
  markSeq: 0,
});

void t.test('a change names what is new in the record, and what is no longer in it goes to the trash', (t) => {
  const tables = new MemoryTables();
  const key = mediaKey({ sha256: A, place: NO_PLACE });
  const [first, second] = [thumbKey(A, one), thumbKey(A, two)];
  const changed = (now: number, next: StoredBlob | undefined): readonly string[] => {
    const change = startChange(tables, { newMark: () => 'm', now, isIntended: () => false });
    writeBlob(change, A, next);
    return change.placed;
  };
  t.same(changed(5, blobWith([one])), [key, first]);
  t.same(trashedBefore(tables, 100, 9), []);
  t.same(changed(6, blobWith([one, two])), [second], 'what it named before is no news');
  t.same(changed(7, blobWith([two])), []);
  t.same(trashedBefore(tables, 100, 9), [first]);
  t.same([isNamed(tables, first), isNamed(tables, second), isNamed(tables, key)], [false, true, true]);
  t.same(changed(8, undefined), []);
  t.same(trashedBefore(tables, 8, 9), [first], 'before an instant');
  t.same([...trashedBefore(tables, 9, 9)].toSorted(), [first, key, second].toSorted());
  t.same(trashedBefore(tables, 9, 1), [first], 'the oldest first');
  t.same([isTrashed(tables, key), isNamed(tables, key)], [true, false]);
  forgetTrash(startChange(tables, { newMark: () => 'm', now: 9, isIntended: () => false }), [key, first]);
  t.same(trashedBefore(tables, 9, 9), [second]);
  t.end();
});
