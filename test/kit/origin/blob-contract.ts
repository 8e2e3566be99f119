/** What every blob store promises, with any adaptor. */
import { hash, randomBytes } from 'node:crypto';
import { access, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import * as fc from 'fast-check';
import type { Test } from 'tap';
import {
  type BlobKey,
  type BlobListing,
  type BlobStore,
  mediaKey as keyIn,
  NO_PLACE,
  newPlace,
  type ReadOutcome,
  sourceOf,
} from '../../../origin/blobs/blob-store.js';
import type { ByteSpan } from '../../../src/http/range.js';
import type { Sha256 } from '../../../src/ids.js';
import { mediaKey, thumbKey } from './keys.js';

export interface StagedBlob {
  readonly path: string;
  readonly bytes: Buffer;
  readonly sha256: Sha256;
  readonly key: BlobKey;
  readonly facts: { readonly sizeBytes: number; readonly sha256: Sha256 };
}

/** A staged file with these bytes, as ingest leaves it. */
export async function stage(store: BlobStore, bytes: Buffer): Promise<StagedBlob> {
  await mkdir(store.stageFolder, { recursive: true });
  const path = join(store.stageFolder, randomBytes(8).toString('hex'));
  await writeFile(path, bytes, { mode: 0o600 });
  const sha256 = hash('sha256', bytes) as Sha256;
  return { path, bytes, sha256, key: mediaKey(sha256), facts: { sizeBytes: bytes.length, sha256 } };
}

/** Stores a blob of random bytes. */
export async function put(store: BlobStore, sizeBytes: number): Promise<StagedBlob> {
  const staged = await stage(store, randomBytes(sizeBytes));
  await store.adopt(staged.path, staged.key, staged.facts);
  return staged;
}

export async function readAll(body: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export async function bytesOf(store: BlobStore, key: BlobKey): Promise<Buffer | undefined> {
  const outcome = await store.read(key);
  return outcome.kind === 'found' ? await readAll(outcome.body) : undefined;
}

type Found = Extract<ReadOutcome, { kind: 'found' }>;

/** A read that must find the blob. */
export async function find(store: BlobStore, key: BlobKey, span?: ByteSpan, signal?: AbortSignal): Promise<Found> {
  const outcome = await store.read(key, span, signal);
  if (outcome.kind !== 'found') throw new Error(`${key} is ${outcome.kind}`);
  return outcome;
}

async function keysOf(listing: AsyncIterable<BlobListing>, source?: Sha256): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of listing) if (source === undefined || sourceOf(key) === source) keys.push(key);
  return keys.sort();
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/** `largeBytes`: a size that the adaptor handles as a large blob. */
export async function blobContract(
  t: Test,
  open: () => Promise<BlobStore>,
  { largeBytes, runs }: { readonly largeBytes: number; readonly runs: number },
): Promise<void> {
  const store = await open();
  t.teardown(() => store.close());

  await t.test('an adopted file is read back byte for byte, and is gone from the stage', async (t) => {
    for (const sizeBytes of [1, 1_000, 300_000, largeBytes]) {
      const blob = await put(store, sizeBytes);
      const outcome = await find(store, blob.key);
      t.equal(outcome.sizeBytes, sizeBytes);
      t.ok(blob.bytes.equals(await readAll(outcome.body)), `${sizeBytes} bytes`);
      t.equal(await store.stat(blob.key), sizeBytes);
      t.notOk(await exists(blob.path), 'the staged file is gone');
      const file = store.fileOf(blob.key);
      t.ok(file === undefined || blob.bytes.equals(await readFile(file)), 'its local file has the same bytes');
    }
  });

  await t.test('a span is read with exactly its bytes, cut at the end of the blob', async (t) => {
    const { key, bytes } = await put(store, 1_000);
    for (const [first, last] of [
      [0, 0],
      [0, 1],
      [0, 999],
      [10, 19],
      [999, 999],
      [990, 5_000],
    ] as const) {
      const outcome = await find(store, key, { first, last });
      t.equal(outcome.sizeBytes, 1_000, 'the size is that of the whole');
      t.ok(bytes.subarray(first, last + 1).equals(await readAll(outcome.body)), `${first}-${last}`);
    }
    t.same(await store.read(key, { first: 1_000, last: 1_000 }), { kind: 'unsatisfiable', sizeBytes: 1_000 });
    t.same(await store.read(key, { first: 9_999, last: 10_000 }), { kind: 'unsatisfiable', sizeBytes: 1_000 });
  });

  await t.test('a span in the middle of a large blob is found', async (t) => {
    const { key, bytes } = await put(store, largeBytes);
    const first = Math.floor(largeBytes / 2) - 70_000;
    const outcome = await find(store, key, { first, last: first + 200_000 });
    t.ok(bytes.subarray(first, first + 200_001).equals(await readAll(outcome.body)));
  });

  await t.test('a blob that does not exist is missing, and removing it is no error', async (t) => {
    const { key } = await stage(store, randomBytes(20));
    t.same(await store.read(key), { kind: 'missing' });
    t.same(await store.read(key, { first: 0, last: 1 }), { kind: 'missing' });
    t.equal(await store.stat(key), undefined);
    await store.remove(key);
    t.same(await keysOf(store.list(`media/${'0'.repeat(64) as Sha256}`)), []);
  });

  await t.test('the same key may be adopted again, even by many at once', async (t) => {
    const bytes = randomBytes(200_000);
    const staged = await Promise.all(Array.from({ length: 8 }, () => stage(store, bytes)));
    await Promise.all(staged.map(({ path, key, facts }) => store.adopt(path, key, facts)));
    const again = await stage(store, bytes);
    await store.adopt(again.path, again.key, again.facts);
    t.ok(bytes.equals((await bytesOf(store, again.key)) ?? Buffer.alloc(0)));
    for (const { path } of [...staged, again]) t.notOk(await exists(path));
  });

  await t.test('a staged file of another size than announced is never adopted', async (t) => {
    const short = await stage(store, randomBytes(5_000));
    await t.rejects(store.adopt(short.path, short.key, { ...short.facts, sizeBytes: 5_001 }), {
      code: 'storage_unavailable',
    });
    t.equal(await store.stat(short.key), undefined);
    t.notOk(await exists(short.path));
    await t.rejects(store.adopt(short.path, short.key, short.facts), { code: 'storage_unavailable' }, 'it is gone');
    t.equal(await store.stat(short.key), undefined);
  });

  await t.test('an aborted adopt leaves neither blob nor staged file', async (t) => {
    const staged = await stage(store, randomBytes(5_000));
    const reason = new Error('the caller has left');
    await t.rejects(store.adopt(staged.path, staged.key, staged.facts, AbortSignal.abort(reason)), reason);
    t.equal(await store.stat(staged.key), undefined);
    t.notOk(await exists(staged.path));
  });

  await t.test('an aborted read ends its body with an error', async (t) => {
    const { key } = await put(store, largeBytes);
    const leaving = new AbortController();
    const outcome = await find(store, key, undefined, leaving.signal);
    const reading = readAll(outcome.body);
    leaving.abort(new Error('the caller has left'));
    await t.rejects(reading);
    await t.rejects(store.read(key, undefined, leaving.signal), { message: 'the caller has left' });
  });

  await t.test('a caller who leaves while the bytes are opened gets no body that has failed already', async (t) => {
    const { key, bytes } = await put(store, 30_000);
    for (let turns = 0; turns < 6; turns += 1) {
      const leaving = new AbortController();
      const reading = store.read(key, undefined, leaving.signal).then(
        async (outcome) => {
          if (outcome.kind !== 'found') throw new Error(outcome.kind);
          t.equal(outcome.body.errored, null, `opened after ${turns} turns`);
          // Whoever leaves late has everything.
          await readAll(outcome.body).then(
            (all) => t.ok(all.equals(bytes)),
            (thrown: unknown) => t.match(thrown, Error),
          );
        },
        (thrown: unknown) => {
          t.match(thrown, { message: 'the caller has left' });
        },
      );
      for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
      leaving.abort(new Error('the caller has left'));
      await reading;
    }
  });

  await t.test('bodies that are destroyed unread leave no resources taken', async (t) => {
    const { key, bytes } = await put(store, 300_000);
    for (let count = 0; count < 40; count += 1) {
      (await find(store, key)).body.destroy();
    }
    t.ok(bytes.equals((await bytesOf(store, key)) ?? Buffer.alloc(0)));
  });

  await t.test('a blob that is read and removed at once is whole or missing', async (t) => {
    const { key, bytes } = await put(store, 300_000);
    const reads = Array.from({ length: 4 }, () => bytesOf(store, key));
    await store.remove(key);
    const found = (await Promise.allSettled(reads)).map((read) =>
      read.status === 'fulfilled' ? read.value : undefined,
    );
    for (const read of found) t.ok(read === undefined || bytes.equals(read));
    t.equal(await bytesOf(store, key), undefined);
  });

  await t.test('thumbnails are grouped by source, and are listed and removed one by one', async (t) => {
    const [source, other] = [await stage(store, randomBytes(9)), await stage(store, randomBytes(9))];
    const keys: BlobKey[] = [];
    const startedAt = Date.now();
    for (const [of, sizeBytes] of [
      [source, 100],
      [source, 200],
      [other, 300],
    ] as const) {
      const thumb = await stage(store, randomBytes(sizeBytes));
      const key = thumbKey(of.sha256, thumb.sha256);
      await store.adopt(thumb.path, key, thumb.facts);
      keys.push(key);
    }
    const listed: BlobListing[] = [];
    for await (const listing of store.list('thumb/')) if (sourceOf(listing.key) === source.sha256) listed.push(listing);
    t.same(listed.map(({ key }) => key).sort(), keys.slice(0, 2).sort());
    t.same(new Set(listed.map(({ sizeBytes }) => sizeBytes)), new Set([100, 200]));
    // Listings may give whole seconds.
    for (const { storedAt } of listed) t.ok(Math.abs(storedAt - startedAt) < 120_000, 'stored about now');
    t.same(await keysOf(store.list('thumb/')), [...keys].sort());
    for (const key of keys.slice(0, 2)) await store.remove(key);
    t.same(await keysOf(store.list('thumb/')), keys.slice(2));
    for (const key of await keysOf(store.list('media/'))) t.match(key, /^media\/[0-9a-f]{64}\/[0-9a-f]{16}$/);
  });

  await t.test('adopting and removing the thumbnails of one source at once never fails', async (t) => {
    const source = (await stage(store, randomBytes(9))).sha256;
    for (let round = 0; round < 5; round += 1) {
      const thumbs = await Promise.all(
        Array.from({ length: 4 }, (_, at) => stage(store, Buffer.from(`${round}.${at}`))),
      );
      const keys = thumbs.map(({ sha256 }) => thumbKey(source, sha256));
      await Promise.all(thumbs.map(({ path, facts }, at) => store.adopt(path, keys[at] as BlobKey, facts)));
      t.same(await keysOf(store.list('thumb/'), source), [...keys].sort());
      const more = await stage(store, Buffer.from(`${round}`));
      const kept = thumbKey(source, more.sha256);
      await Promise.all([...keys.map((key) => store.remove(key)), store.adopt(more.path, kept, more.facts)]);
      t.same(await keysOf(store.list('thumb/'), source), [kept]);
      await store.remove(kept);
    }
  });

  await t.test('the same bytes are stored once in each place, each of which is removed alone', async (t) => {
    const bytes = randomBytes(50);
    const places = [NO_PLACE, newPlace(), newPlace()];
    const sha256 = hash('sha256', bytes) as Sha256;
    const keys: BlobKey[] = [];
    for (const place of places) {
      const { path, facts } = await stage(store, bytes);
      const key = keyIn({ sha256, place });
      await store.adopt(path, key, facts);
      keys.push(key);
    }
    t.same(await keysOf(store.list(`media/${sha256}`)), keys.toSorted());
    for (const [n, key] of keys.entries()) {
      await store.remove(key);
      t.same(await keysOf(store.list(`media/${sha256}`)), keys.slice(n + 1).toSorted());
      t.same(
        await Promise.all(keys.slice(n + 1).map((left) => store.stat(left))),
        keys.slice(n + 1).map(() => 50),
      );
    }
  });

  await t.test('a listing can be abandoned', async (t) => {
    await Promise.all(Array.from({ length: 5 }, () => put(store, 10)));
    for await (const listing of store.list('media/')) {
      t.ok(listing.sizeBytes > 0);
      break;
    }
    await t.rejects(keysOf(store.list('media/', AbortSignal.abort(new Error('enough')))), { message: 'enough' });
  });

  await t.test('the probe passes and leaves nothing', async (t) => {
    const before = await keysOf(store.list('media/'));
    await store.probe();
    t.same(await keysOf(store.list('media/')), before);
    const freeBytes = await store.freeBytes();
    t.ok(freeBytes === null || freeBytes > 0);
  });

  await t.test('a malformed key never reaches the storage', async (t) => {
    for (const key of [
      '../secret',
      'media/../../secret',
      'media/',
      `media/${'A'.repeat(64)}`,
      `thumb/${'0'.repeat(64)}`,
    ]) {
      await t.rejects(store.read(key as BlobKey), { message: /well formed/ }, key);
      await t.rejects(store.remove(key as BlobKey), { message: /well formed/ }, key);
    }
  });

  await t.test('any sequence of operations leaves what a map has after the same operations', async (t) => {
    const blobs = Array.from({ length: 3 }, (_, at) => randomBytes(at * 7 + 1));
    const act = fc.record({
      verb: fc.constantFrom('adopt', 'remove', 'read'),
      at: fc.nat(2),
      first: fc.nat(20),
      length: fc.integer({ min: 1, max: 20 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(act, { maxLength: 12 }), async (acts) => {
        const model = new Map<BlobKey, Buffer>();
        for (const { verb, at, first, length } of acts) {
          const staged = await stage(store, blobs[at] as Buffer);
          if (verb === 'adopt') {
            await store.adopt(staged.path, staged.key, staged.facts);
            model.set(staged.key, staged.bytes);
          } else if (verb === 'remove') {
            await store.remove(staged.key);
            model.delete(staged.key);
          } else {
            const outcome = await store.read(staged.key, { first, last: first + length - 1 });
            const modelled = model.get(staged.key);
            const expected = modelled === undefined ? 'missing' : first >= modelled.length ? 'unsatisfiable' : 'found';
            if (outcome.kind !== expected) throw new Error(`${outcome.kind} instead of ${expected}`);
            if (outcome.kind === 'found') {
              const read = await readAll(outcome.body);
              if (modelled?.subarray(first, first + length).equals(read) !== true) throw new Error('other bytes');
            }
          }
        }
        for (const bytes of blobs) await store.remove(mediaKey(hash('sha256', bytes) as Sha256));
      }),
      { numRuns: runs },
    );
    t.pass();
  });

  await t.test('it may be closed twice', async () => {
    await store.close();
    await store.close();
  });
}
