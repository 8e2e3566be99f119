/** The stored form of an unfinished upload: read as it was written, in its version and the one before, and nothing else. */
import t from 'tap';
import { writeMetadata } from '../../../../origin/ingest/resumable/metadata.js';
import { readRecord, type UnfinishedUpload, writeRecord } from '../../../../origin/ingest/resumable/upload-record.js';

const A = 'a'.repeat(32);
const B = 'b'.repeat(32);
const UPLOAD: UnfinishedUpload = {
  id: A,
  owner: 'alice',
  sizeBytes: 9,
  metadata: 'filename YQ==',
  role: { kind: 'whole' },
  expiresAt: 86_400_000,
  mediaId: null,
};

void t.test('a record is read as it was written, and so is one of the version before', async (t) => {
  for (const upload of [
    UPLOAD,
    { ...UPLOAD, sizeBytes: null, role: { kind: 'partial', finalId: B }, mediaId: 'x' },
    { ...UPLOAD, role: { kind: 'final', concat: `final;/v1/uploads/${B}` }, mediaId: 'x' },
  ] as const) {
    t.strictSame(readRecord(writeRecord(upload)), upload);
  }
  const { role: _, ...first } = UPLOAD;
  const versionOne = JSON.stringify({ ...first, metadata: { filename: 'a', empty: null } });
  t.strictSame(readRecord(versionOne), { ...UPLOAD, metadata: 'filename YQ==,empty' });
  t.equal(writeMetadata({ filename: 'grüße.png', empty: null }), 'filename Z3LDvMOfZS5wbmc=,empty');
  for (const text of [
    '',
    '{',
    'null',
    '[]',
    '"text"',
    '7',
    JSON.stringify({ ...UPLOAD, version: 3 }),
    JSON.stringify(UPLOAD),
    JSON.stringify({ ...first, metadata: { filename: 1 } }),
    JSON.stringify({ ...first, metadata: { filename: 'a', other: 1 } }),
    JSON.stringify({ ...first, metadata: null }),
    ...Object.entries({
      id: ['../x', `${A}a`, 7, [A], undefined],
      owner: [7, null, undefined],
      sizeBytes: [0.5, '9', undefined],
      metadata: [null, undefined],
      role: [null, 'whole', undefined, {}, { kind: 'other' }, { kind: 'partial' }, { kind: 'partial', finalId: 7 }],
      expiresAt: [null, '7', 0.5, undefined],
      mediaId: [7, undefined],
    }).flatMap(([key, values]) => values.map((value) => JSON.stringify({ ...UPLOAD, version: 2, [key]: value }))),
    writeRecord({ ...UPLOAD, role: { kind: 'final' } as never }),
    writeRecord({ ...UPLOAD, role: { kind: 'other', concat: 'final;x' } as never }),
  ]) {
    t.equal(readRecord(text), undefined, text);
  }
});
