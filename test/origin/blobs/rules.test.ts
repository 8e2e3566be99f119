import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import t from 'tap';
import {
  type BlobKey,
  type BlobListing,
  mediaKey as keyIn,
  NO_PLACE,
  newPlace,
  parseBlobKey,
  parsePlace,
  partsOf,
  sourceOf,
  thumbKey as thumbKeyIn,
} from '../../../origin/blobs/blob-store.js';
import { type BlobsConfig, blobsFaults, blobsSection } from '../../../origin/blobs/config.js';
import { isMissing, isWorthRetrying, mayHaveSucceeded, readOutcomeOf } from '../../../origin/blobs/s3-answers.js';
import { storageFault } from '../../../origin/blobs/storage-fault.js';
import {
  clearLeftovers,
  clearStage,
  emptyTrash,
  type Freed,
  freeOrphans,
  freeUnreferenced,
  orphans,
} from '../../../origin/blobs/sweep.js';
import { expectedBlobs } from '../../../origin/blobs/transfer.js';
import { type BlobRecord, keysOf, NO_FACTS, type ThumbMade, type ThumbState } from '../../../origin/meta/media.js';
import { Fault } from '../../../src/errors.js';
import type { Sha256 } from '../../../src/ids.js';
import { configured } from '../../kit/deps.js';
import { mediaKey, PLACE, thumbKey } from '../../kit/origin/keys.js';

const [A, B, C, D] = ['a', 'b', 'c', 'd'].map((digit) => digit.repeat(64)) as [Sha256, Sha256, Sha256, Sha256];
const never = new AbortController().signal;

void t.test('a response of a bucket counts only if its head announces the requested bytes', async (t) => {
  const span = (first: number, last: number) => ({ first, last });
  type Case = readonly [
    what: string,
    asked: ReturnType<typeof span> | undefined,
    length: number | undefined,
    range: string | undefined,
    sizeBytes: number | null,
  ];
  const cases: readonly Case[] = [
    ['the whole', undefined, 10, undefined, 10],
    ['nothing, of an empty blob', undefined, 0, undefined, 0],
    ['no length', undefined, undefined, undefined, null],
    ['the first byte', span(0, 0), 1, 'bytes 0-0/10', 10],
    ['the last byte', span(9, 9), 1, 'bytes 9-9/10', 10],
    ['the middle', span(2, 5), 4, 'bytes 2-5/10', 10],
    ['a range that is cut to the end', span(2, 99), 8, 'bytes 2-9/10', 10],
    ['a byte less', span(2, 5), 3, 'bytes 2-4/10', null],
    ['a byte more', span(2, 5), 5, 'bytes 2-6/10', null],
    ['the whole in place of a range', span(2, 5), 10, undefined, null],
    ['another beginning', span(2, 5), 4, 'bytes 3-6/10', null],
    ['an unknown size', span(2, 5), 4, 'bytes 2-5/*', null],
    ['another unit', span(2, 5), 4, 'items 2-5/10', null],
    ['more than a range', span(2, 5), 4, 'bytes 2-5/10 ', null],
    ['less than a range', span(2, 5), 4, ' bytes 2-5/10', null],
    ['a range without length', span(2, 5), undefined, 'bytes 2-5/10', null],
  ];
  for (const [what, asked, length, range, sizeBytes] of cases) {
    const body = Readable.from([Buffer.from('x')]);
    let released = 0;
    const answer = { Body: body, ContentLength: length, ContentRange: range };
    const read = () => readOutcomeOf(answer, asked, () => (released += 1));
    if (sizeBytes === null) {
      t.throws(read, { message: /other bytes than were requested/ }, what);
      t.same([body.destroyed, released], [true, 1], 'its connection is given back');
      continue;
    }
    t.same(read(), { kind: 'found', sizeBytes, body }, what);
    t.same([body.destroyed, released], [false, 0], 'the body keeps its connection');
    await body.toArray();
    await new Promise(setImmediate);
    t.equal(released, 1);
  }
  let released = 0;
  for (const Body of [undefined, 'text', {}]) {
    t.throws(() => readOutcomeOf({ Body, ContentLength: 4 }, undefined, () => (released += 1)));
  }
  t.equal(released, 3);
});

void t.test('what a bucket answers decides whether a request is made again', (t) => {
  const answer = (status: number | undefined, name = 'X'): Error =>
    Object.assign(new Error('refused'), { name, $metadata: { httpStatusCode: status } });
  type Case = readonly [thrown: unknown, retry: boolean, missing: boolean];
  const cases: readonly Case[] = [
    [answer(404, 'NoSuchKey'), false, true],
    [answer(404, 'NotFound'), false, true],
    [answer(404, 'NoSuchUpload'), false, true],
    [answer(404, 'NoSuchBucket'), false, false],
    ...[400, 401, 403, 405, 409, 411, 412, 416, 499].map((status): Case => [answer(status), false, false]),
    ...[408, 429, 500, 502, 503, 504, 599].map((status): Case => [answer(status), true, false]),
    // Not implemented, and no room: neither gets better by itself.
    ...[501, 507].map((status): Case => [answer(status), false, false]),
    [answer(400, 'RequestTimeout'), true, false],
    [answer(403, 'RequestTimeTooSkewed'), true, false],
    [answer(400, 'SlowDown'), true, false],
    // No answer: the connection broke.
    [answer(undefined), true, false],
    [new Error('ECONNRESET'), true, false],
    [Object.assign(new Error('no keys'), { name: 'CredentialsProviderError' }), false, false],
    [new Fault('storage_full', 'No room.'), false, false],
    [undefined, true, false],
    [null, true, false],
    ['text', true, false],
  ];
  for (const [thrown, retry, missing] of cases) {
    const what = JSON.stringify([thrown, thrown instanceof Error ? thrown.name : '']);
    t.equal(isWorthRetrying(thrown), retry, what);
    t.equal(isMissing(thrown), missing, what);
    t.equal(mayHaveSucceeded(thrown), retry || missing, what);
  }
  t.end();
});

void t.test('an error of a storage is told apart from a storage without room', (t) => {
  const coded = (code: string): Error => Object.assign(new Error('inner words'), { code });
  const named = (name: string): Error => Object.assign(new Error('inner words'), { name });
  const cases: readonly (readonly [thrown: unknown, code: string])[] = [
    ...['ENOSPC', 'EDQUOT', 'EFBIG'].map((code) => [coded(code), 'storage_full'] as const),
    ...['InsufficientStorage', 'QuotaExceeded', 'XMinioStorageFull'].map(
      (name) => [named(name), 'storage_full'] as const,
    ),
    [coded('EIO'), 'storage_unavailable'],
    [named('AccessDenied'), 'storage_unavailable'],
    ['text', 'storage_unavailable'],
    [undefined, 'storage_unavailable'],
  ];
  for (const [thrown, code] of cases) {
    const fault = storageFault(thrown, never);
    if (!(fault instanceof Fault)) throw new Error('it is a fault');
    t.same([fault.code, fault.cause], [code, thrown]);
    t.notMatch(fault.detail, /inner/);
  }
  const known = new Fault('overloaded', 'Later.');
  t.equal(storageFault(known), known);
  t.equal(storageFault('left', AbortSignal.abort()), 'left');
  t.end();
});

void t.test('a key is that of an original or of a thumbnail of it', (t) => {
  t.same([mediaKey(A), thumbKey(A, B)], [`media/${A}/${PLACE}`, `thumb/${A}/${B}/${PLACE}`]);
  const old = [keyIn({ sha256: A, place: NO_PLACE }), thumbKeyIn(A, { sha256: B, place: NO_PLACE })];
  t.same(old, [`media/${A}`, `thumb/${A}/${B}`], 'as before there were places');
  t.same(old.map(parseBlobKey), old);
  t.same(partsOf(thumbKey(A, B)), { kind: 'thumb', source: A, sha256: B, place: PLACE });
  t.same(partsOf(mediaKey(A)), { kind: 'media', source: A, sha256: A, place: PLACE });
  t.same(partsOf(`media/${A}`), { kind: 'media', source: A, sha256: A, place: NO_PLACE });
  t.equal(parsePlace(newPlace())?.length, 16);
  t.not(newPlace(), newPlace());
  t.same([parsePlace(''), parsePlace('x'), parsePlace(`${PLACE}0`)], [NO_PLACE, undefined, undefined]);
  t.same([sourceOf(mediaKey(A)), sourceOf(thumbKey(A, B))], [A, A]);
  for (const text of [
    '',
    '/',
    'media',
    `media/${A}/`,
    `media/${A}//`,
    `media/${A}/${B}`,
    `media/${A}/${PLACE}/`,
    `media/${A}/${PLACE}/${PLACE}`,
    `media/${A}-${PLACE}`,
    `media/${A}/${PLACE.slice(1)}`,
    `thumb/${A}/${PLACE}`,
    `thumb/${A}`,
    `thumb/${A}/`,
    `thumb/${A}/x`,
    `thumb/x/${B}`,
    `thumb/${A}/${B}/`,
    `other/${A}`,
    `media/${A}x`,
  ]) {
    t.equal(parseBlobKey(text), undefined, text);
  }
  t.same([parseBlobKey(mediaKey(A)), parseBlobKey(thumbKey(A, B))], [mediaKey(A), thumbKey(A, B)]);
  t.end();
});

void t.test('a bucket needs both parts of its key, and parts in which the largest upload fits', (t) => {
  const MiB = 2 ** 20;
  const faults = (
    s3: Partial<BlobsConfig['s3']>,
    largest = 10_000 * 8 * MiB,
    adaptor: BlobsConfig['adaptor'] = 's3',
  ): readonly string[] => {
    const whole = configured(blobsSection, { adaptor });
    return blobsFaults({ ...whole, s3: { ...whole.s3, ...s3 } }, largest).map(({ path }) => path);
  };
  t.same(faults({}), [], 'ten thousand parts are as many as S3 takes');
  t.same(faults({}, 10_000 * 8 * MiB + 1), ['origin.blobs.s3.part_size']);
  t.same(faults({ accessKeyId: 'id' }), ['origin.blobs.s3']);
  t.same(faults({ secretAccessKey: 'secret' }), ['origin.blobs.s3']);
  t.same(faults({ accessKeyId: 'id', secretAccessKey: 'secret' }), []);
  t.same(faults({ accessKeyId: 'id' }, 1, 'local'), [], 'of no matter where there is no bucket');
  t.end();
});

const madeThumb = (sha256: Sha256, sizeBytes = 1): ThumbMade => ({
  variant: '160',
  format: 'webp',
  sha256,
  place: PLACE,
  sizeBytes,
  width: 1,
  height: 1,
  animated: false,
});
const blobOf = (sha256: Sha256, thumbs: ThumbState = { kind: 'pending' }): BlobRecord => ({
  sha256,
  place: PLACE,
  sizeBytes: 100,
  mime: 'image/png',
  storedAt: 0,
  picture: NO_FACTS,
  thumbs,
  quarantine: null,
});

void t.test('a record expects its original, and the thumbnails that are made', (t) => {
  const original = { key: mediaKey(A), sha256: A, sizeBytes: 100 };
  t.same(expectedBlobs(blobOf(A)), [original]);
  t.same(expectedBlobs(blobOf(A, { kind: 'none', reason: 'failed' })), [original]);
  t.same(expectedBlobs(blobOf(A, { kind: 'ready', made: [madeThumb(B, 7), madeThumb(C, 8)] })), [
    original,
    { key: thumbKey(A, B), sha256: B, sizeBytes: 7 },
    { key: thumbKey(A, C), sha256: C, sizeBytes: 8 },
  ]);
  t.end();
});

/** A blob store and records, and what was done to them, in order. */
function setUp(records: readonly BlobRecord[], stored: readonly BlobListing[]) {
  const done: string[] = [];
  const known = new Map(records.map((record) => [record.sha256, record]));
  const held: Sha256[] = [];
  const trash = new Set<BlobKey>();
  const deps = {
    meta: {
      unreferencedBlobs: async (_before: number, limit: number) => records.slice(0, limit),
      leftBehind: async (keys: readonly BlobKey[]) =>
        keys.filter((key) => {
          const record = known.get(sourceOf(key));
          return record === undefined || !keysOf(record).includes(key);
        }),
      trash: async (_before: number, limit: number) => [...trash].slice(0, limit),
      emptied: async (keys: readonly BlobKey[]) => {
        done.push(`emptied ${keys.length}`);
        for (const key of keys) trash.delete(key);
      },
      forgetBlob: async (sha256: Sha256) => {
        done.push(`forget ${sha256[0]}`);
        const record = known.get(sha256);
        if (record === undefined || held.includes(sha256)) return undefined;
        return keysOf(record);
      },
    },
    blobs: {
      async *list(prefix: string, signal?: AbortSignal) {
        for (const listed of stored.filter(({ key }) => key.startsWith(prefix))) {
          signal?.throwIfAborted();
          yield listed;
        }
      },
      remove: async (key: BlobKey) =>
        void done.push(`remove ${key.replace(`/${PLACE}`, '').replaceAll(/([a-d])\1+/g, '$1')}`),
    },
  };
  return { deps, done, known, held, trash };
}
const listed = (key: BlobKey, sizeBytes = 10, storedAt = 0): BlobListing => ({ key, sizeBytes, storedAt });

void t.test('a blob is freed record first, then its bytes and its thumbnails', async (t) => {
  const ready: ThumbState = { kind: 'ready', made: [madeThumb(C, 3), madeThumb(D, 4)] };
  const { deps, done, held } = setUp([blobOf(A, ready), blobOf(B)], []);
  const free = (limit = 9, signal = never): Promise<Freed> => freeUnreferenced(deps, 5, limit, signal);
  t.same(await free(1), { blobs: 1, thumbs: 2, parts: 0, bytes: 107 });
  t.same(done.splice(0), ['forget a', 'remove media/a', 'remove thumb/a/c', 'remove thumb/a/d', 'emptied 3']);
  held.push(A);
  t.same(await free(), { blobs: 1, thumbs: 0, parts: 0, bytes: 100 });
  t.same(done.splice(0), ['forget a', 'forget b', 'remove media/b', 'emptied 1'], 'what is referenced again stays');
  await t.rejects(free(9, AbortSignal.abort(new Error('enough'))), { message: 'enough' });
  t.same(done.splice(0), ['emptied 0']);
  deps.meta.forgetBlob = () => Promise.reject(new Error('no database'));
  await t.rejects(free(), { message: 'no database' });
});

void t.test('stored bytes without a record are freed, once they are old enough', async (t) => {
  const ready = blobOf(A, { kind: 'ready', made: [madeThumb(B)] });
  const none = blobOf(C, { kind: 'none', reason: 'failed' });
  const elsewhere = newPlace();
  const stored = [
    listed(mediaKey(A)),
    listed(keyIn({ sha256: A, place: elsewhere }), 17),
    listed(thumbKey(A, B)),
    listed(thumbKey(A, D), 3),
    listed(mediaKey(C)),
    listed(thumbKey(C, D), 5),
    listed(mediaKey(D), 7),
    listed(thumbKey(D, A), 11),
    listed(thumbKey(D, B), 13, 99),
    listed(thumbKey(D, C), 13, 100),
  ];
  const { deps, done, known } = setUp([ready, none], stored);
  const found: BlobKey[] = [];
  for await (const { key } of orphans(deps, 100, never)) found.push(key);
  const other = keyIn({ sha256: A, place: elsewhere });
  const expected = [other, mediaKey(D), thumbKey(A, D), thumbKey(C, D), thumbKey(D, A), thumbKey(D, B)];
  t.same(found.toSorted(), expected.toSorted());
  t.same(done, [], 'they are only listed');
  t.same(await freeOrphans(deps, 100, never), { blobs: 2, thumbs: 4, parts: 0, bytes: 17 + 7 + 3 + 5 + 11 + 13 });
  t.same(done.splice(0).slice(1, 3), ['remove media/d', 'remove thumb/a/d']);
  known.set(D, blobOf(D, { kind: 'ready', made: [madeThumb(A), madeThumb(B)] }));
  t.match(await freeOrphans(deps, 100, never), { blobs: 1, thumbs: 2 }, 'what was recorded meanwhile stays');
  await t.rejects(freeOrphans(deps, 100, AbortSignal.abort(new Error('enough'))), { message: 'enough' });
});

void t.test('the trash is emptied up to its limit, and a stop ends it between two keys', async (t) => {
  const { deps, done, trash } = setUp([], []);
  for (const key of [mediaKey(A), thumbKey(A, B), mediaKey(C)]) trash.add(key);
  t.same(await emptyTrash(deps, 5, 2, never), { blobs: 1, thumbs: 1, parts: 0, bytes: 0 });
  t.same(done.splice(0), ['remove media/a', 'remove thumb/a/b', 'emptied 2']);
  t.match(await emptyTrash(deps, 5, 9, AbortSignal.abort()), { blobs: 0 });
  t.same(done.splice(0), ['emptied 0']);
  t.match(await emptyTrash(deps, 5, 9, never), { blobs: 1 });
});

void t.test('files on the stage are removed by when they were last written, and folders are left alone', async (t) => {
  const folder = t.testdir({});
  mkdirSync(join(folder, 'folder'));
  const put = (name: string, seconds: number): void => {
    writeFileSync(join(folder, name), name);
    utimesSync(join(folder, name), seconds, seconds);
  };
  put('old', 99);
  put('at the instant', 100);
  put('young', 101);
  t.equal(await clearStage(folder, 100_000, never), 1);
  t.same(readdirSync(folder).sort(), ['at the instant', 'folder', 'young']);
  await t.rejects(clearStage(folder, 200_000, AbortSignal.abort(new Error('enough'))), { message: 'enough' });
  t.equal(readdirSync(folder).length, 3);
  t.equal(await clearLeftovers(folder), 2);
  t.same(readdirSync(folder), ['folder']);
  t.equal(await clearLeftovers(join(folder, 'nothing')), 0);
  t.notOk(existsSync(join(folder, 'nothing')));
  await t.rejects(clearLeftovers(join(folder, 'nothing\0')), 'other failures are told');
});
