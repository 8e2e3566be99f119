import { randomBytes } from 'node:crypto';
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { ChunkSource } from '../../../origin/ingest/paced-body.js';
import { HEAD_MAX_BYTES, stage, writeOut } from '../../../origin/ingest/stage.js';
import { sha256Of } from '../../kit/origin/stores.js';
import { onSmallDisk } from '../../kit/small-disk.js';

const SIZE_MAX_BYTES = 8_000_000;
const WRITE_BYTES = 512 * 1_024;
const CHUNK_BYTES = 65_536;

/** A body in chunks, which may break off. `seen` is called before each chunk. */
function sourceOf(bytes: Buffer, { breaks = false, seen = async (): Promise<void> => undefined } = {}): ChunkSource {
  let at = 0;
  return {
    async next() {
      await seen();
      const chunk = bytes.subarray(at, at + CHUNK_BYTES);
      at += chunk.length;
      if (chunk.length > 0) return chunk;
      if (breaks) throw new Error('the sender left');
      return undefined;
    },
  };
}

void t.test('a small body can stay in memory, until somebody needs its file', async (t) => {
  const folder = t.testdir();
  const options = { sizeMaxBytes: SIZE_MAX_BYTES, sync: true, small: 'memory' } as const;
  for (const sizeBytes of [1, CHUNK_BYTES, CHUNK_BYTES + 1, HEAD_MAX_BYTES]) {
    const bytes = randomBytes(sizeBytes);
    const path = join(folder, String(sizeBytes));
    const staged = await stage(sourceOf(bytes), path, options);
    t.match(staged, { path, sizeBytes, sha256: sha256Of(bytes), inMemory: true, synced: false });
    t.ok(bytes.equals(staged.head));
    t.same(await readdir(folder), []);
    const { inMemory, ...written } = await writeOut(staged, true);
    t.match({ inMemory, ...written }, { inMemory: undefined, path, sizeBytes, synced: true });
    t.ok(bytes.equals(await readFile(path)));
    t.equal(await writeOut(written, true), written, 'a file is written once');
    await rm(path);
  }
  const bytes = randomBytes(HEAD_MAX_BYTES + 1);
  const staged = await stage(sourceOf(bytes), join(folder, 'large'), options);
  t.match(staged, { inMemory: undefined, synced: true, sha256: sha256Of(bytes) });
  t.ok(bytes.equals(await readFile(staged.path)));
});

for (const sync of [true, false]) {
  const options = { sizeMaxBytes: SIZE_MAX_BYTES, sync };
  const how = sync ? 'with sync' : 'without sync';

  void t.test(`a body of any size is staged whole, ${how}`, async (t) => {
    const folder = t.testdir();
    for (const sizeBytes of [1, 20_000, WRITE_BYTES - 1, WRITE_BYTES, WRITE_BYTES + 1, 5_000_000]) {
      const bytes = randomBytes(sizeBytes);
      const path = join(folder, String(sizeBytes));
      const staged = await stage(sourceOf(bytes), path, options);
      t.match(staged, { path, sizeBytes, sha256: sha256Of(bytes), synced: sync });
      t.ok(bytes.equals(await readFile(path)), `${sizeBytes} bytes`);
      t.equal((await stat(path)).mode & 0o777, 0o600, 'other users cannot read it');
    }
  });

  void t.test(`a body that breaks off leaves no file, ${how}`, async (t) => {
    const folder = t.testdir();
    for (const sizeBytes of [1, 20_000, WRITE_BYTES, 5_000_000]) {
      const source = sourceOf(randomBytes(sizeBytes), { breaks: true });
      await t.rejects(stage(source, join(folder, 'one'), options), { message: 'the sender left' });
      t.same(await readdir(folder), [], `${sizeBytes} bytes`);
    }
  });

  void t.test(`a full disk is reported and leaves no file, ${how}`, async (t) => {
    await onSmallDisk(t, 1_048_576, async (folder) => {
      for (const sizeBytes of [200_000, 1_500_000]) {
        const filler = join(folder, 'filler');
        await writeFile(filler, Buffer.alloc(900_000));
        const staged = stage(sourceOf(randomBytes(sizeBytes)), join(folder, 'one'), options);
        await t.rejects(staged, { code: 'ENOSPC' }, `${sizeBytes} bytes`);
        t.same(await readdir(folder), ['filler']);
      }
    });
  });
}

const SYNCED = { sizeMaxBytes: SIZE_MAX_BYTES, sync: true };

void t.test('a small body does not touch the disk before it is complete', async (t) => {
  const folder = t.testdir();
  const seen = async (): Promise<void> => void t.same(await readdir(folder), []);
  await stage(sourceOf(randomBytes(200_000), { seen }), join(folder, 'one'), SYNCED);
  t.same(await readdir(folder), ['one']);
});

void t.test('an existing file is not overwritten', async (t) => {
  const folder = t.testdir({ one: 'of somebody else' });
  for (const sizeBytes of [20_000, 1_000_000]) {
    await t.rejects(stage(sourceOf(randomBytes(sizeBytes)), join(folder, 'one'), SYNCED), { code: 'EEXIST' });
    t.equal(await readFile(join(folder, 'one'), 'utf8'), 'of somebody else');
  }
});

void t.test('an empty body and one that is too large leave no file', async (t) => {
  const folder = t.testdir();
  await t.rejects(stage(sourceOf(Buffer.alloc(0)), join(folder, 'one'), SYNCED), { code: 'empty' });
  for (const sizeMaxBytes of [100, 1_000_000]) {
    const source = sourceOf(randomBytes(sizeMaxBytes + 1));
    await t.rejects(stage(source, join(folder, 'one'), { ...SYNCED, sizeMaxBytes }), { code: 'too_large' });
  }
  t.same(await readdir(folder), []);
});
