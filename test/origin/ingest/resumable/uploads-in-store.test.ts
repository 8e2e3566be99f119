/** Unfinished uploads in the database and the blob store: the contract, two origins at one upload, and what a failure leaves. */

import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { BlobKey, BlobStore } from '../../../../origin/blobs/blob-store.js';
import { openLocalStore } from '../../../../origin/blobs/local.js';
import { emptyTrash } from '../../../../origin/blobs/sweep.js';
import { cutIntoParts } from '../../../../origin/ingest/resumable/cut-body.js';
import { openUploadsInFolder } from '../../../../origin/ingest/resumable/uploads-in-folder.js';
import { openUploadsInStore } from '../../../../origin/ingest/resumable/uploads-in-store.js';
import { ManualClock } from '../../../kit/clock.js';
import { chunkSource, drained, NO_LIMITS } from '../../../kit/origin/chunks.js';
import { type MemoryUploads, memoryUploads } from '../../../kit/origin/doubles/upload-table.js';
import {
  begunUpload,
  bodyOfPieces,
  checksumOf,
  type UploadsUnderTest,
  unfinishedContract,
} from '../../../kit/origin/uploads/unfinished-contract.js';
import { uploadTableContract } from '../../../kit/origin/uploads/upload-table-contract.js';
import { until, untilAsync } from '../../../kit/until.js';

const A = 'a'.repeat(32);
const STAGING = { sizeMaxBytes: 1_000, sync: false, signal: new AbortController().signal };
const PARTS = { partSizeBytes: 4, partEveryMs: 2_000 };

interface Kit extends UploadsUnderTest {
  readonly memory: MemoryUploads;
  readonly blobs: BlobStore;
  readonly clock: ManualClock;
  /** The keys of all that is stored. */
  readonly keys: () => Promise<readonly BlobKey[]>;
}

async function setUp(t: Test): Promise<Kit> {
  const folder = t.testdir({});
  const blobs = await openLocalStore({ folder: join(folder, 'blobs'), stageFolder: join(folder, 'stage') });
  const memory = memoryUploads();
  const clock = new ManualClock();
  const again = () => openUploadsInStore({ ...memory, blobs, clock, config: PARTS });
  const keys = async (): Promise<readonly BlobKey[]> => {
    const found: BlobKey[] = [];
    for await (const { key } of blobs.list('part/')) found.push(key);
    return found;
  };
  const storedBytes = async (): Promise<number> => {
    const trash = {
      trash: async () => [...memory.trash],
      emptied: async (gone: readonly BlobKey[]) => gone.forEach((key) => void memory.trash.delete(key)),
    };
    const staged = await readdir(blobs.stageFolder);
    if (memory.intents.size + staged.length > 0) throw new Error('an intent or a file on the stage is left');
    await emptyTrash({ meta: trash as never, blobs }, 0, 100, new AbortController().signal);
    const sizes = await Promise.all((await keys()).map(async (key) => (await blobs.stat(key)) ?? 0));
    return sizes.reduce((all, size) => all + size, 0);
  };
  return { uploads: await again(), again, storedBytes, memory, blobs, clock, keys };
}

void t.test('unfinished uploads in the database and the blob store', async (t) => {
  await unfinishedContract(t, setUp);
});

void t.test('unfinished uploads in a folder', async (t) => {
  await unfinishedContract(t, async (t) => {
    const folder = t.testdir({});
    return {
      uploads: await openUploadsInFolder(folder),
      again: () => openUploadsInFolder(folder),
      async storedBytes() {
        const names = (await readdir(folder)).filter((name) => !/\.(json|end)$/.test(name));
        const sizes = await Promise.all(names.map(async (name) => (await stat(join(folder, name))).size));
        return sizes.reduce((all, size) => all + size, 0);
      },
    };
  });
});

void t.test('the double of the table does what the table does', async (t) => {
  await uploadTableContract(t, async () => {
    const { table, meta, intents, trash } = memoryUploads();
    return {
      table,
      intend: meta.intend,
      isIntended: async (key) => intents.has(key),
      trash: async () => [...trash].sort(),
    };
  });
});

void t.test('a body is stored in parts of a size, and what has arrived after a while', async (t) => {
  const { uploads, keys, clock } = await setUp(t);
  await uploads.create(begunUpload(A), NO_LIMITS);
  let goOn = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  let waits = false;
  const source = chunkSource(
    ['abcdef', 'g', 'hij'].map((text) => Buffer.from(text)),
    async (index) => {
      if (index !== 2) return;
      waits = true;
      await held;
    },
  );
  const appended = uploads.append(A, { ...bodyOfPieces([]), source });
  await until('the sender is waited for', () => waits && clock.pending === 1);
  t.equal((await keys()).length, 1, 'four bytes; the other three wait for more');
  clock.advance(1_999);
  t.equal(await uploads.offset(begunUpload(A)), 4);
  clock.advance(1);
  await until('the part is stored', () => clock.pending === 0);
  await untilAsync('and its bytes count before the body has ended', async () => {
    return (await uploads.offset(begunUpload(A))) === 7;
  });
  goOn();
  t.equal(await appended, 10);
  const offsets = (await keys()).map((key) => Number(key.split('/')[2]?.split('-')[0]));
  t.same(
    offsets.sort((a, b) => a - b),
    [0, 4, 7],
  );
  t.equal(clock.pending, 0);
});

void t.test('parts are what a body consists of, whatever the pieces in which it arrives', async (t) => {
  const clock = new ManualClock();
  const sizes = async (...pieces: string[]): Promise<readonly string[]> => {
    const parts = cutIntoParts(
      chunkSource(pieces.map((text) => Buffer.from(text))),
      { partSizeBytes: 3, partEveryMs: 10 },
      clock,
    );
    const found: string[] = [];
    while (await parts.more()) found.push(String(await drained(parts.part())));
    parts.requireWhole();
    return found;
  };
  t.same(await sizes(), []);
  t.same(await sizes('', ''), []);
  t.same(await sizes('a'), ['a']);
  t.same(await sizes('abc'), ['abc']);
  t.same(await sizes('ab', 'cd', '', 'efg'), ['abc', 'def', 'g']);
  t.same(await sizes('abcdefgh'), ['abc', 'def', 'gh']);
  t.equal(clock.pending, 0);
});

void t.test('a body with a checksum is one part, whatever its size', async (t) => {
  const { uploads, keys } = await setUp(t);
  await uploads.create(begunUpload(A), NO_LIMITS);
  await uploads.append(A, bodyOfPieces(['abc', 'defghi'], { checksum: checksumOf('abcdefghi') }));
  t.equal((await keys()).length, 1);
});

void t.test('of two origins that append at one offset, one succeeds and the other is told', async (t) => {
  const { uploads, again, storedBytes } = await setUp(t);
  const other = await again();
  await uploads.create(begunUpload(A), NO_LIMITS);
  const outcomes = await Promise.allSettled([
    uploads.append(A, bodyOfPieces(['abc'])),
    other.append(A, bodyOfPieces(['xyz'])),
  ]);
  const refused = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason as { code: string }] : []));
  t.match(refused, [{ code: 'conflict' }]);
  t.equal(await storedBytes(), 3, 'of the other nothing is left');
  const { path, sizeBytes } = await uploads.stage([A], STAGING);
  t.equal(sizeBytes, 3);
  await rm(path);
});

void t.test('an upload that was finished or dropped elsewhere takes no more bytes', async (t) => {
  const { uploads, again, storedBytes } = await setUp(t);
  const other = await again();
  for (const end of [
    () => other.finish([{ ...begunUpload(A), sizeBytes: 3, mediaId: 'media' }]),
    () => other.drop(A),
  ]) {
    await uploads.drop(A);
    await uploads.create(begunUpload(A), NO_LIMITS);
    await uploads.append(A, bodyOfPieces(['abc']));
    await end();
    await t.rejects(uploads.append(A, bodyOfPieces(['def'], { offset: 3 })), { code: 'conflict' });
    await t.rejects(uploads.change(begunUpload(A)), { code: 'conflict' });
    t.equal(await storedBytes(), 0);
  }
  await t.rejects(uploads.offset(begunUpload(A)), { code: 'not_found' });
});

void t.test('a declared length holds back what another origin receives beyond it', async (t) => {
  const { uploads, again } = await setUp(t);
  const other = await again();
  const unknown = begunUpload(A, { sizeBytes: null });
  await uploads.create(unknown, NO_LIMITS);
  await uploads.append(A, bodyOfPieces(['abc']));
  await t.rejects(other.change({ ...unknown, sizeBytes: 2 }), { code: 'conflict' });
  await other.change({ ...unknown, sizeBytes: 4 });
  await t.rejects(uploads.append(A, bodyOfPieces(['de'], { offset: 3 })), { code: 'conflict' });
  t.equal(await uploads.append(A, bodyOfPieces(['d'], { offset: 3 })), 4);
});

void t.test('whatever fails while a part is stored, nothing is left of it', async (t) => {
  const { memory, blobs, clock, storedBytes, uploads } = await setUp(t);
  await uploads.create(begunUpload(A), NO_LIMITS);
  const failing = async (): Promise<never> => {
    throw new Error('failed');
  };
  for (const deps of [
    { meta: { ...memory.meta, intend: failing } },
    { blobs: { ...local(blobs), adopt: failing } },
    { table: { ...memory.table, extend: failing } },
  ]) {
    const broken = await openUploadsInStore({ ...memory, blobs: local(blobs), clock, config: PARTS, ...deps });
    await t.rejects(broken.append(A, bodyOfPieces(['abc'])), { message: 'failed' });
    t.same([await uploads.offset(begunUpload(A)), await storedBytes()], [0, 0]);
  }
  const forgetful = { ...memory.table, extend: async () => 'not_intended' as const };
  const lost = await openUploadsInStore({ ...memory, table: forgetful, blobs: local(blobs), clock, config: PARTS });
  await t.rejects(lost.append(A, bodyOfPieces(['abc'])), { code: 'storage_unavailable' });
  t.equal(await storedBytes(), 0);
});

void t.test('a part that is recorded although the answer was lost stays', async (t) => {
  const { memory, blobs, clock, storedBytes, uploads } = await setUp(t);
  await uploads.create(begunUpload(A), NO_LIMITS);
  const table = {
    ...memory.table,
    async extend(part: Parameters<typeof memory.table.extend>[0]): Promise<never> {
      await memory.table.extend(part);
      throw new Error('the answer was lost');
    },
  };
  const broken = await openUploadsInStore({ ...memory, table, blobs: local(blobs), clock, config: PARTS });
  await t.rejects(broken.append(A, bodyOfPieces(['abc'])), { message: 'the answer was lost' });
  t.same([await uploads.offset(begunUpload(A)), await storedBytes()], [3, 3]);
});

void t.test('bytes that cannot be read end no upload', async (t) => {
  const { blobs, uploads, keys } = await setUp(t);
  await uploads.create(begunUpload(A), NO_LIMITS);
  await uploads.append(A, bodyOfPieces(['abcdef']));
  const [first] = await keys();
  await blobs.remove(first as BlobKey);
  await t.rejects(uploads.stage([A], STAGING), { code: 'storage_unavailable' });
});

/** The members that are used, so that one can be replaced. */
function local(blobs: BlobStore) {
  return {
    kind: blobs.kind,
    stageFolder: blobs.stageFolder,
    adopt: blobs.adopt.bind(blobs),
    read: blobs.read.bind(blobs),
    remove: blobs.remove.bind(blobs),
  };
}
