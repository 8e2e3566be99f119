/** Records and rows of the disk tier's index: what they weigh, and that nothing but their own form is read. */
import t from 'tap';
import { appliedRow, readApplied } from '../../../../edge/cache/disk/applied.js';
import {
  type DiskRecord,
  decodeRecord,
  digestOf,
  diskWeight,
  encodeRecord,
  fileBytes,
} from '../../../../edge/cache/disk/record.js';
import type { SizedEntry } from '../../../../edge/entry.js';
import { bytesOf, entryOf, mediaIdOf } from '../../../kit/edge/cache.js';

const ENTRY = entryOf('key', bytesOf(10), {
  primaryKey: 'primary',
  mediaId: mediaIdOf(1),
  selectedBy: { accept: 'image/avif', 'accept-language': 'de' },
}) as SizedEntry;
const RECORD: DiskRecord = { entry: ENTRY, content: 'ab'.repeat(32), weightBytes: 5_000, seq: 7, run: 3 };

void t.test('a record is read as it was written, whatever may be null in it', (t) => {
  for (const record of [
    RECORD,
    { ...RECORD, content: null },
    { ...RECORD, entry: { ...ENTRY, mediaId: null, sha256: null, selectedBy: {}, headers: [] } },
    { ...RECORD, entry: { ...ENTRY, audience: 'anyone' as const, deleteAt: 12 } },
  ]) {
    t.strictSame(decodeRecord(encodeRecord(record)), record);
  }
  t.end();
});

void t.test('each place of a record has its kind of value, and a record with another one is none', (t) => {
  const written = encodeRecord(RECORD);
  t.equal(written.length, 21);
  for (const place of written.keys()) {
    for (const wrong of [undefined, {}, true]) {
      const damaged = written.map((value, index) => (index === place ? wrong : value));
      t.equal(decodeRecord(damaged), undefined, `${place} is ${JSON.stringify(wrong)}`);
    }
  }
  const damaged: readonly (readonly [what: string, place: number, value: unknown])[] = [
    ['another version', 0, 2],
    ['an id that is none', 7, 'not an id'],
    ['a field without its value', 9, ['etag']],
    ['a field that is no text', 9, ['etag', 1]],
    ['a name that is no text', 9, [1, 'etag']],
    ['a selection without its value', 10, ['accept']],
    ['an audience that nobody knows', 18, 'everyone'],
  ];
  for (const [what, place, value] of damaged) {
    t.equal(decodeRecord(written.map((each, index) => (index === place ? value : each))), undefined, what);
  }
  t.equal(decodeRecord([...written, 1]), undefined, 'more than belongs to it');
  t.equal(decodeRecord(written.slice(0, 20)), undefined, 'less');
  for (const other of [undefined, null, 'text', { length: 21, 0: 1 }]) t.equal(decodeRecord(other), undefined);
  t.end();
});

void t.test('a body takes whole blocks of the disk, and an entry its rows beside them', (t) => {
  t.same([0, 1, 4_095, 4_096, 4_097, 8_192].map(fileBytes), [0, 4_096, 4_096, 4_096, 8_192, 8_192]);
  const headers = [['ab', 'cde']] as const;
  t.equal(diskWeight({ ...ENTRY, headers: [] }, 0), 4 * 'key'.length + 512);
  const grown = diskWeight({ ...ENTRY, headers }, 4_097) - diskWeight({ ...ENTRY, headers: [] }, 0);
  t.equal(grown, 8_192 + 2 * 5);
  t.end();
});

void t.test('a digest is the beginning of a SHA-256', (t) => {
  const digest = digestOf('abc');
  t.equal(Buffer.from(digest, 'latin1').toString('hex'), 'ba7816bf8f01cfea414140de5dae2223');
  t.end();
});

void t.test('a row of the applied position is read as it was written, and nothing else is', (t) => {
  for (const position of [
    { journal: 'j', seq: 0, mark: null },
    { journal: 'j', seq: 9, mark: '' },
    { journal: 'other', seq: Number.MAX_SAFE_INTEGER, mark: 'abcdefghijklmnop' },
  ]) {
    t.strictSame(readApplied(appliedRow(position)), position);
  }
  const row = { v: 1, journal: 'j', seq: 3, mark: null };
  t.strictSame(readApplied(row), { journal: 'j', seq: 3, mark: null });
  for (const wrong of [
    { v: 2 },
    { journal: 1 },
    { seq: '3' },
    { seq: -1 },
    { seq: 1.5 },
    { mark: 7 },
    { mark: undefined },
  ]) {
    t.equal(readApplied({ ...row, ...wrong }), undefined, JSON.stringify(wrong));
  }
  for (const none of [undefined, null, 3, 'row']) t.equal(readApplied(none), undefined);
  t.end();
});
