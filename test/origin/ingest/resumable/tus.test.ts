/** The tus protocol as tables of requests, and the stored form of an upload. */
import * as fc from 'fast-check';
import t from 'tap';
import { readChecksum } from '../../../../origin/ingest/resumable/checksum.js';
import { metadataValues, readMetadata, writeMetadata } from '../../../../origin/ingest/resumable/metadata.js';
import {
  type Appending,
  type Creation,
  lengthField,
  metadataFields,
  methodOf,
  readAppending,
  readCreation,
  requireVersion,
  stateFields,
  type TusRequest,
} from '../../../../origin/ingest/resumable/tus.js';
import { createUploadLocks } from '../../../../origin/ingest/resumable/upload-locks.js';
import type { UnfinishedUpload } from '../../../../origin/ingest/resumable/upload-record.js';
import { faultOf } from '../../../../src/errors.js';

type Fields = Readonly<Record<string, string>>;

const SIZE_MAX = 1_000;
const A = 'a'.repeat(32);
const B = 'b'.repeat(32);
const CHUNK = { 'content-type': 'application/offset+octet-stream' };

const request = (fields: Fields, bodyBytes: number | null = 0, method = 'POST'): TusRequest => ({
  method,
  header: (name) => fields[name],
  body: { sizeBytes: bodyBytes },
});

/** What `read` returns, or the code of the Fault that it throws. */
function outcome<T>(read: () => T): T | string {
  try {
    return read();
  } catch (thrown) {
    return faultOf(thrown).code;
  }
}

void t.test('what a POST creates', async (t) => {
  const whole = (sizeBytes: number | null): Creation => ({ kind: 'whole', sizeBytes, metadata: '', first: undefined });
  const first = (sizeBytes: number | null): Creation => ({
    kind: 'whole',
    sizeBytes,
    metadata: '',
    first: { sizeBytes, roomBytes: sizeBytes ?? SIZE_MAX, checksum: undefined },
  });
  const final = (concat: string, ...partialIds: string[]): Creation => ({
    kind: 'final',
    partialIds,
    concat,
    metadata: '',
  });
  const joined = `final;/v1/uploads/${B} https://edge.example/v1/uploads/${A}`;
  type Row = readonly [fields: Fields, bodyBytes: number | null, expected: Creation | string];
  const table: readonly Row[] = [
    [{ 'upload-length': '9' }, 0, whole(9)],
    [{ 'upload-length': '0' }, 0, whole(0)],
    [{ 'upload-length': '1000' }, 0, whole(1_000)],
    [{ 'upload-length': '1001' }, 0, 'too_large'],
    [{ 'upload-length': '1'.padEnd(400, '0') }, 0, 'too_large'],
    [{ 'upload-length': '' }, 0, 'malformed'],
    [{ 'upload-length': '-1' }, 0, 'malformed'],
    [{ 'upload-length': '+9' }, 0, 'malformed'],
    [{ 'upload-length': '9.0' }, 0, 'malformed'],
    [{ 'upload-length': '9, 9' }, 0, 'malformed'],
    [{ 'upload-defer-length': '1' }, 0, whole(null)],
    [{ 'upload-defer-length': '0' }, 0, 'malformed'],
    [{ 'upload-defer-length': '1', 'upload-length': '9' }, 0, 'malformed'],
    [{}, 0, 'malformed'],
    // Without a body its type says nothing.
    [{ 'upload-length': '9', 'content-type': 'text/plain' }, 0, whole(9)],
    [{ 'upload-length': '9', ...CHUNK }, 9, first(9)],
    [{ 'upload-length': '9', ...CHUNK }, null, first(9)],
    [{ 'upload-length': '9', 'content-type': 'Application/Offset+Octet-Stream; x=y' }, 1, first(9)],
    [{ 'upload-defer-length': '1', ...CHUNK }, 1_000, first(null)],
    [{ 'upload-defer-length': '1', ...CHUNK }, 1_001, 'too_large'],
    [{ 'upload-length': '9', ...CHUNK }, 10, 'too_large'],
    [{ 'upload-length': '9', 'content-type': 'image/png' }, 9, 'type_refused'],
    [{ 'upload-length': '9' }, 9, 'type_refused'],
    [{ 'upload-length': '9', 'upload-concat': 'partial' }, 0, { ...whole(9), kind: 'partial' } as Creation],
    [{ 'upload-length': '0', 'upload-concat': 'partial' }, 0, { ...whole(0), kind: 'partial' } as Creation],
    [{ 'upload-length': '9', 'upload-concat': 'other' }, 0, 'malformed'],
    [{ 'upload-length': '9', 'upload-concat': '' }, 0, 'malformed'],
    [{ 'upload-concat': 'partial' }, 0, 'malformed'],
    [{ 'upload-concat': joined }, 0, final(joined, B, A)],
    [{ 'upload-concat': `final; uploads/${A}` }, 0, final(`final; uploads/${A}`, A)],
    [{ 'upload-concat': 'final' }, 0, 'malformed'],
    [{ 'upload-concat': 'final;' }, 0, 'malformed'],
    [{ 'upload-concat': `final;/v1/uploads/${A} /v1/uploads/${A}` }, 0, 'malformed'],
    [{ 'upload-concat': `final;/v1/uploads/${A.toUpperCase()}` }, 0, 'malformed'],
    [{ 'upload-concat': `final;/v1/uploads/${A}/../../x` }, 0, 'malformed'],
    [{ 'upload-concat': `final;${A}` }, 0, 'malformed'],
    [{ 'upload-concat': joined, 'upload-length': '9' }, 0, 'malformed'],
    [{ 'upload-concat': joined, 'upload-defer-length': '1' }, 0, 'malformed'],
    [{ 'upload-concat': joined, ...CHUNK }, 9, 'malformed'],
  ];
  for (const [fields, bodyBytes, expected] of table) {
    const what = `${JSON.stringify(fields)} with ${bodyBytes} bytes`;
    t.strictSame(
      outcome(() => readCreation(request(fields, bodyBytes), SIZE_MAX)),
      expected,
      what,
    );
  }
});

void t.test('what a PATCH appends to an upload', async (t) => {
  const chunk = (sizeBytes: number | null, roomBytes: number): Appending => ({
    sizeBytes,
    roomBytes,
    checksum: undefined,
  });
  const at = (offset: string): Fields => ({ ...CHUNK, 'upload-offset': offset });
  type Row = readonly [state: readonly [number, number | null], Fields, number | null, Appending | string];
  const table: readonly Row[] = [
    [[0, 9], at('0'), 9, chunk(9, 9)],
    [[4, 9], at('4'), 5, chunk(9, 5)],
    [[4, 9], at('4'), null, chunk(9, 5)],
    [[4, 9], at('4'), 0, chunk(9, 5)],
    [[9, 9], at('9'), 0, chunk(9, 0)],
    [[4, 9], at('4'), 6, 'too_large'],
    [[4, 9], at('3'), 5, 'conflict'],
    [[4, 9], at('5'), 4, 'conflict'],
    [[4, 9], at('9'.repeat(40)), 4, 'conflict'],
    [[4, 9], at('-4'), 5, 'malformed'],
    [[4, 9], at('4x'), 5, 'malformed'],
    [[4, 9], CHUNK, 5, 'malformed'],
    [[4, 9], { 'upload-offset': '4' }, 5, 'type_refused'],
    [[4, 9], { ...at('4'), 'content-type': 'application/octet-stream' }, 5, 'type_refused'],
    [[4, 9], { ...at('4'), 'upload-length': '9' }, 5, chunk(9, 5)],
    [[4, 9], { ...at('4'), 'upload-length': '10' }, 5, 'malformed'],
    [[4, null], at('4'), 5, chunk(null, SIZE_MAX - 4)],
    [[4, null], at('4'), SIZE_MAX - 3, 'too_large'],
    [[4, null], { ...at('4'), 'upload-length': '9' }, 5, chunk(9, 5)],
    [[4, null], { ...at('4'), 'upload-length': '4' }, 0, chunk(4, 0)],
    [[4, null], { ...at('4'), 'upload-length': '3' }, 0, 'malformed'],
    [[4, null], { ...at('4'), 'upload-length': '1001' }, 0, 'too_large'],
    [[4, null], { ...at('4'), 'upload-length': '8' }, 5, 'too_large'],
    [[0, 9], { ...at('0'), 'upload-checksum': 'md5 AAAA' }, 9, 'malformed'],
  ];
  for (const [[offset, sizeBytes], fields, bodyBytes, expected] of table) {
    const what = `${offset} of ${sizeBytes}: ${JSON.stringify(fields)} with ${bodyBytes} bytes`;
    t.strictSame(
      outcome(() => readAppending(request(fields, bodyBytes), { sizeBytes }, offset, SIZE_MAX)),
      expected,
      what,
    );
  }
});

void t.test('every request names the version, and POST may stand for another method', async (t) => {
  for (const [version, expected] of [
    ['1.0.0', undefined],
    ['1.0', 'precondition_failed'],
    ['0.2.2', 'precondition_failed'],
    ['1.0.0, 1.0.0', 'precondition_failed'],
  ] as const) {
    t.equal(
      outcome(() => requireVersion(request({ 'tus-resumable': version }))),
      expected,
      version,
    );
  }
  t.equal(
    outcome(() => requireVersion(request({}))),
    'precondition_failed',
  );
  const override = { 'x-http-method-override': 'DELETE' };
  t.equal(methodOf(request(override)), 'DELETE');
  t.equal(methodOf(request(override, 0, 'HEAD')), 'HEAD', 'a safe method stays safe');
  t.equal(methodOf(request({})), 'POST');
});

void t.test('metadata are read as every list in HTTP', async (t) => {
  const table: readonly (readonly [field: string | undefined, metadata: string])[] = [
    [undefined, ''],
    ['', ''],
    ['filename YQ==', 'filename YQ=='],
    ['filename YQ==,filetype dGV4dC9wbGFpbg==', 'filename YQ==,filetype dGV4dC9wbGFpbg=='],
    ['filename YQ==, filetype dGV4dC9wbGFpbg==', 'filename YQ==,filetype dGV4dC9wbGFpbg=='],
    ['filename YQ==\t,\tfiletype  dGV4dC9wbGFpbg==', 'filename YQ==,filetype dGV4dC9wbGFpbg=='],
    ['filename YQ==,', 'filename YQ=='],
    [', ,filename YQ==, ,', 'filename YQ=='],
    ['key', 'key'],
    ['key ,other ', 'key,other'],
    ['__proto__ YQ==,2 YQ==,1 YQ==', '__proto__ YQ==,2 YQ==,1 YQ=='],
    ['a b c', 'malformed'],
    ['a YQ==,a YQ==', 'malformed'],
    ['a YQ', 'malformed'],
    ['a Y_==', 'malformed'],
    ['a =', 'malformed'],
    ['a ====', 'malformed'],
    ['ü YQ==', 'malformed'],
    [`a ${'YWFh'.repeat(2_000)}`, 'malformed'],
  ];
  for (const [field, metadata] of table) {
    t.equal(
      outcome(() => readMetadata(field)),
      metadata,
      field ?? 'none',
    );
  }
  t.strictSame(
    [...metadataValues('filename Z3LDvMOfZS5wbmc=,key,__proto__ YQ==')],
    [
      ['filename', 'grüße.png'],
      ['__proto__', 'a'],
    ],
  );
  t.strictSame([...metadataValues('')], []);
  const longest = (characters: number): string => `key ${'YWFh'.repeat(characters / 4 - 1)}`;
  t.equal(readMetadata(longest(6_144)).length, 6_144);
  t.equal(
    outcome(() => readMetadata(longest(6_148))),
    'malformed',
  );
});

void t.test('whatever metadata are accepted read the same again, and keep every value', async (t) => {
  const pieces = fc.array(fc.constantFrom('key', 'YQ==', 'YWI=', '=', ',', ' ', '\t', 'ü', '__proto__'), {
    maxLength: 9,
  });
  fc.assert(
    fc.property(
      fc.oneof(
        pieces.map((parts) => parts.join('')),
        fc.string(),
      ),
      (field) => {
        const metadata = outcome(() => readMetadata(field));
        if (metadata === 'malformed') return;
        t.equal(readMetadata(metadata), metadata, field);
      },
    ),
  );
  fc.assert(
    fc.property(
      fc.dictionary(fc.stringMatching(/^[!-+\--~]{1,9}$/), fc.string({ minLength: 1, unit: 'binary' })),
      (values) => {
        const metadata = readMetadata(writeMetadata(values));
        const read = Object.fromEntries(metadataValues(metadata));
        t.strictSame(
          read,
          Object.fromEntries(Object.entries(values).map(([key, value]) => [key, Buffer.from(value).toString()])),
        );
      },
    ),
  );
});

void t.test('a checksum names a known algorithm and a digest of any length', async (t) => {
  t.equal(readChecksum(undefined), undefined);
  t.strictSame(readChecksum('sha1 AAEC'), { algorithm: 'sha1', digest: Buffer.from([0, 1, 2]) });
  t.strictSame(readChecksum(' sha256  AAEC '), { algorithm: 'sha256', digest: Buffer.from([0, 1, 2]) });
  for (const field of ['', 'sha1', 'sha1 ', 'SHA1 AAEC', 'md5 AAEC', 'sha1 AAEC x', 'sha1 A_EC', 'sha1 AA=EC']) {
    t.equal(
      outcome(() => readChecksum(field)),
      'malformed',
      field ?? 'none',
    );
  }
});

const UPLOAD: UnfinishedUpload = {
  id: A,
  owner: 'alice',
  sizeBytes: 9,
  metadata: 'filename YQ==',
  role: { kind: 'whole' },
  expiresAt: 86_400_000,
  mediaId: null,
};

void t.test('the fields of a reply follow from the state of the upload', async (t) => {
  const state = (over: Partial<UnfinishedUpload>) => Object.fromEntries(stateFields({ ...UPLOAD, ...over }, 4));
  const core = { 'tus-resumable': '1.0.0', 'cache-control': 'no-store', 'upload-offset': '4' };
  const expires = { 'upload-expires': 'Fri, 02 Jan 1970 00:00:00 GMT' };
  t.strictSame(state({}), { ...core, ...expires });
  t.strictSame(state({ mediaId: 'x' }), core);
  t.strictSame(state({ role: { kind: 'partial', finalId: null } }), {
    ...core,
    'upload-concat': 'partial',
    ...expires,
  });
  t.strictSame(state({ role: { kind: 'final', concat: 'final;x' }, mediaId: 'x' }), {
    ...core,
    'upload-concat': 'final;x',
  });
  t.strictSame(lengthField(UPLOAD), ['upload-length', '9']);
  t.strictSame(lengthField({ ...UPLOAD, sizeBytes: null }), ['upload-defer-length', '1']);
  t.strictSame(metadataFields(UPLOAD), [['upload-metadata', 'filename YQ==']]);
  t.strictSame(metadataFields({ ...UPLOAD, metadata: '' }), []);
});

void t.test('one request at a time has the lock of an upload, and none whose client has left', async (t) => {
  const locks = createUploadLocks();
  const { signal } = new AbortController();
  const first = await locks.take(A, 'refuse', signal);
  await t.rejects(locks.take(A, 'refuse', signal), { code: 'conflict' });
  const leaving = new AbortController();
  const waits = locks.take(A, 'interrupt', signal);
  const left = locks.take(A, 'interrupt', leaving.signal);
  t.ok(first.signal.aborted, 'the newer request interrupts it');
  leaving.abort(new Error('the client has left'));
  await t.rejects(left, /has left/);
  first.release();
  (await waits).release();
  await t.rejects(locks.take(A, 'refuse', leaving.signal), /has left/);
  t.notOk(locks.isLocked(A));
});
