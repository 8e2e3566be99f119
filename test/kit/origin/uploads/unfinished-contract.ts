/** What unfinished uploads promise, wherever they are kept. */
import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import type { Test } from 'tap';
import type { Checksum } from '../../../../origin/ingest/resumable/checksum.js';
import type { AppendBody, UnfinishedUploads } from '../../../../origin/ingest/resumable/unfinished-uploads.js';
import type { UnfinishedUpload } from '../../../../origin/ingest/resumable/upload-record.js';
import { Fault } from '../../../../src/errors.js';
import { chunkSource, NO_LIMITS } from '../chunks.js';

export interface UploadsUnderTest {
  readonly uploads: UnfinishedUploads;
  /** The same, opened anew: by the next process, or by another origin. */
  readonly again: () => Promise<UnfinishedUploads>;
  /** How many bytes of unfinished uploads are stored, after what is in the trash was removed. */
  readonly storedBytes: () => Promise<number>;
}

const [A, B, C] = ['a', 'b', 'c'].map((digit) => digit.repeat(32)) as [string, string, string];
const BEYOND = new Fault('too_large', 'It is longer than announced.');
const SIGNAL = new AbortController().signal;
const STAGING = { sizeMaxBytes: 1_000_000, sync: false, signal: SIGNAL };

export const begunUpload = (id: string, more: Partial<UnfinishedUpload> = {}): UnfinishedUpload => ({
  id,
  owner: 'ann',
  sizeBytes: 100,
  metadata: '',
  role: { kind: 'whole' },
  expiresAt: 1_000,
  mediaId: null,
  ...more,
});

interface Sending {
  readonly offset?: number;
  readonly sizeMaxBytes?: number;
  readonly checksum?: Checksum;
  /** Before which piece the sender breaks off. */
  readonly breaksAt?: number;
}

export function bodyOfPieces(pieces: readonly string[], sending: Sending = {}): AppendBody {
  const { offset = 0, sizeMaxBytes = 100, checksum, breaksAt } = sending;
  const source = chunkSource(
    pieces.map((piece) => Buffer.from(piece)),
    (index) => {
      if (index === breaksAt) throw new Error('the sender left');
    },
  );
  return { source, offset, sizeMaxBytes, beyond: () => BEYOND, checksum };
}

export const checksumOf = (text: string): Checksum => ({
  algorithm: 'sha256',
  digest: createHash('sha256').update(text).digest(),
});

async function staged(uploads: UnfinishedUploads, ...ids: string[]): Promise<string> {
  const { path } = await uploads.stage(ids, STAGING);
  try {
    return await readFile(path, 'latin1');
  } finally {
    await rm(path);
  }
}

export async function unfinishedContract(t: Test, open: (t: Test) => Promise<UploadsUnderTest>): Promise<void> {
  await t.test('an upload that begins is there, also when it is opened anew', async (t) => {
    const { uploads, again } = await open(t);
    t.equal(await uploads.find(A), undefined);
    for (const upload of [begunUpload(A), begunUpload(B, { owner: 'grüße\0\ud800', metadata: 'filename YQ==' })]) {
      t.equal(await uploads.create(upload, NO_LIMITS), 'created');
    }
    t.same([await uploads.find(A), await uploads.offset(begunUpload(A)), uploads.unfinished()], [begunUpload(A), 0, 2]);
    await uploads.change(begunUpload(A, { sizeBytes: 7 }));
    const later = await again();
    t.same(
      [await later.find(A), await later.find(B)],
      [begunUpload(A, { sizeBytes: 7 }), begunUpload(B, { owner: 'grüße\0\ud800', metadata: 'filename YQ==' })],
    );
    t.equal(later.unfinished(), 2);
    t.equal(await later.create(begunUpload(A, { owner: 'eve' }), NO_LIMITS), 'exists');
    t.match(await uploads.find(A), { owner: 'ann' }, 'what was there stays');
  });

  await t.test('no more uploads begin than allowed, of one owner and of all', async (t) => {
    const { uploads } = await open(t);
    const limits = { unfinishedMax: 2, unfinishedMaxPerSubject: 1 };
    t.equal(await uploads.create(begunUpload(A), limits), 'created');
    t.equal(await uploads.create(begunUpload(B), limits), 'full_for_owner');
    t.equal(await uploads.create(begunUpload(B, { owner: 'bob' }), limits), 'created');
    t.equal(await uploads.create(begunUpload(C, { owner: 'eve' }), limits), 'full');
    t.equal(await uploads.find(C), undefined);
    await uploads.finish([{ ...begunUpload(A), mediaId: 'media' }]);
    t.equal(await uploads.create(begunUpload(C), limits), 'created', 'a finished one does not count');
    await uploads.drop(B);
    t.equal(await uploads.create(begunUpload(B, { owner: 'eve' }), limits), 'created');
  });

  await t.test('bodies are appended at their offset, and go on after it was opened anew', async (t) => {
    const { uploads, again } = await open(t);
    await uploads.create(begunUpload(A), NO_LIMITS);
    t.equal(await uploads.append(A, bodyOfPieces(['abc', 'de'])), 5);
    const later = await again();
    t.equal(await later.offset(begunUpload(A)), 5);
    t.equal(await later.append(A, bodyOfPieces(['fg'], { offset: 5, sizeMaxBytes: 2 })), 7, 'as much as is allowed');
    t.equal(await later.append(A, bodyOfPieces([], { offset: 7 })), 7, 'no bytes change nothing');
    t.equal(await later.append(A, bodyOfPieces(['h', 'i'], { offset: 7, checksum: checksumOf('hi') })), 9);
    t.equal(await later.append(A, bodyOfPieces([], { offset: 9, checksum: checksumOf('') })), 9);
    t.same([await staged(later, A), await later.offset(begunUpload(A))], ['abcdefghi', 9]);
  });

  await t.test('of a body that breaks off what has arrived is kept, unless it has a checksum', async (t) => {
    const { uploads, storedBytes } = await open(t);
    await uploads.create(begunUpload(A), NO_LIMITS);
    const left = { message: 'the sender left' };
    await t.rejects(uploads.append(A, bodyOfPieces(['abc', 'd'], { breaksAt: 1 })), left);
    await t.rejects(uploads.append(A, bodyOfPieces(['d'], { offset: 3, breaksAt: 0 })), left);
    t.same([await staged(uploads, A), await storedBytes()], ['abc', 3]);
    const checked = { offset: 3, breaksAt: 1, checksum: checksumOf('de') };
    await t.rejects(uploads.append(A, bodyOfPieces(['d', 'e'], checked)), left);
    t.same([await staged(uploads, A), await storedBytes()], ['abc', 3]);
  });

  await t.test('a body that is too long or does not match its checksum is dropped as a whole', async (t) => {
    const { uploads, storedBytes } = await open(t);
    await uploads.create(begunUpload(A), NO_LIMITS);
    await uploads.append(A, bodyOfPieces(['abc']));
    for (const pieces of [['defg'], ['d', 'efg'], ['def', 'g']]) {
      for (const checksum of [undefined, checksumOf('defg')]) {
        const long = { offset: 3, sizeMaxBytes: 3, ...(checksum !== undefined && { checksum }) };
        await t.rejects(uploads.append(A, bodyOfPieces(pieces, long)), BEYOND);
        t.same([await uploads.offset(begunUpload(A)), await storedBytes()], [3, 3], pieces.join());
      }
    }
    const other = bodyOfPieces(['def'], { offset: 3, checksum: checksumOf('deg') });
    await t.rejects(uploads.append(A, other), { code: 'checksum_mismatch' });
    t.same([await staged(uploads, A), await storedBytes()], ['abc', 3]);
    t.equal(await uploads.append(A, bodyOfPieces(['def'], { offset: 3 })), 6);
    t.equal(await staged(uploads, A), 'abcdef');
  });

  await t.test('the bytes of several uploads are staged in the order that is asked for', async (t) => {
    const { uploads, storedBytes } = await open(t);
    for (const [id, text] of [
      [A, 'abc'],
      [B, 'de'],
      [C, ''],
    ] as const) {
      await uploads.create(begunUpload(id), NO_LIMITS);
      if (text !== '') await uploads.append(id, bodyOfPieces([text]));
    }
    const { path, ...facts } = await uploads.stage([B, A], STAGING);
    t.match(facts, { sizeBytes: 5, sha256: createHash('sha256').update('deabc').digest('hex') });
    t.same(facts.head, Buffer.from('deabc'));
    await rm(path);
    t.equal(await staged(uploads, A, C, A), 'abcabc');
    await t.rejects(uploads.stage([C], STAGING), { code: 'empty' });
    await t.rejects(uploads.stage([A, B], { ...STAGING, sizeMaxBytes: 4 }), { code: 'too_large' });
    const reason = new Error('the client has left');
    await t.rejects(uploads.stage([A, B], { ...STAGING, signal: AbortSignal.abort(reason) }), reason);
    t.equal(await storedBytes(), 5, 'the uploads themselves stay');
  });

  await t.test('a finished upload keeps its record, and loses its bytes', async (t) => {
    const { uploads, again, storedBytes } = await open(t);
    const partial = { kind: 'partial', finalId: C } as const;
    await uploads.create(begunUpload(A, { role: { kind: 'partial', finalId: null } }), NO_LIMITS);
    await uploads.append(A, bodyOfPieces(['abc']));
    const ended = { sizeBytes: 3, mediaId: 'media', expiresAt: 2_000 };
    const done = [
      { ...begunUpload(C, { role: { kind: 'final', concat: 'final;x' } }), ...ended },
      { ...begunUpload(A, { role: partial }), ...ended },
    ];
    await uploads.finish(done);
    t.same([await uploads.find(C), await uploads.find(A), uploads.unfinished()], [...done, 0]);
    t.equal(await uploads.offset({ ...begunUpload(A), ...ended }), 3, 'it has all its bytes');
    t.equal(await storedBytes(), 0);
    const later = await again();
    t.same([await later.find(C), await later.find(A)], done);
  });

  await t.test('an upload is dropped with its bytes, once', async (t) => {
    const { uploads, again, storedBytes } = await open(t);
    for (const id of [A, B]) {
      await uploads.create(begunUpload(id), NO_LIMITS);
      await uploads.append(id, bodyOfPieces(['abc']));
    }
    t.equal(await uploads.drop(A), true);
    t.equal(await uploads.drop(A), false);
    t.same([await uploads.find(A), uploads.unfinished(), await storedBytes()], [undefined, 1, 3]);
    t.equal(await (await again()).find(A), undefined);
  });

  await t.test('uploads that have ended are told of, and no others', async (t) => {
    const { uploads } = await open(t);
    await uploads.create(begunUpload(A, { expiresAt: 5 }), NO_LIMITS);
    await uploads.create(begunUpload(B, { expiresAt: 6 }), NO_LIMITS);
    await uploads.create(begunUpload(C, { expiresAt: 7 }), NO_LIMITS);
    const expired = async (now: number): Promise<unknown> =>
      (await uploads.expired(now, 10)).map(({ id }) => id).sort();
    t.same([await expired(4), await expired(5), await expired(6), await expired(9)], [[], [A], [A, B], [A, B, C]]);
  });
}
