import { randomBytes } from 'node:crypto';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { ChunkSource } from '../../../origin/ingest/paced-body.js';
import { stage } from '../../../origin/ingest/stage.js';
import { sha256Of } from '../../kit/origin/stores.js';
import { onSmallDisk } from '../../kit/small-disk.js';

const SIZE_MAX_BYTES = 8_000_000;
const WRITE_BYTES = 512 * 1_024;
const CHUNK_BYTES = 65_536;

/** A body in pieces, which may break off; `seen` is called before each piece. */
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

for (const sync of [true, false]) {
  const wish = { sizeMaxBytes: SIZE_MAX_BYTES, sync };
  const how = sync ? 'synced' : 'left to the system';

  void t.test(`a body of any size is staged whole, its bytes ${how}`, async (t) => {
    const folder = t.testdir();
    for (const sizeBytes of [1, 20_000, WRITE_BYTES - 1, WRITE_BYTES, WRITE_BYTES + 1, 5_000_000]) {
      const bytes = randomBytes(sizeBytes);
      const path = join(folder, String(sizeBytes));
      const staged = await stage(sourceOf(bytes), path, wish);
      t.match(staged, { path, sizeBytes, sha256: sha256Of(bytes), synced: sync });
      t.ok(bytes.equals(await readFile(path)), `${sizeBytes} bytes`);
      t.equal((await stat(path)).mode & 0o777, 0o600, 'for nobody else to read');
    }
  });

  void t.test(`a body that breaks off leaves nothing where it was to be ${how}`, async (t) => {
    const folder = t.testdir();
    for (const sizeBytes of [1, 20_000, WRITE_BYTES, 5_000_000]) {
      const source = sourceOf(randomBytes(sizeBytes), { breaks: true });
      await t.rejects(stage(source, join(folder, 'one'), wish), { message: 'the sender left' });
      t.same(await readdir(folder), [], `${sizeBytes} bytes`);
    }
  });

  void t.test(`a disk that is full is told as such and survived by bytes that were to be ${how}`, async (t) => {
    await onSmallDisk(t, 1_048_576, async (folder) => {
      for (const sizeBytes of [200_000, 1_500_000]) {
        const filler = join(folder, 'filler');
        await writeFile(filler, Buffer.alloc(900_000));
        const staged = stage(sourceOf(randomBytes(sizeBytes)), join(folder, 'one'), wish);
        await t.rejects(staged, { code: 'ENOSPC' }, `${sizeBytes} bytes`);
        t.same(await readdir(folder), ['filler']);
      }
    });
  });
}

const WISH = { sizeMaxBytes: SIZE_MAX_BYTES, sync: true };

void t.test('a small body does not touch the disk before it is whole', async (t) => {
  const folder = t.testdir();
  const seen = async (): Promise<void> => void t.same(await readdir(folder), []);
  await stage(sourceOf(randomBytes(200_000), { seen }), join(folder, 'one'), WISH);
  t.same(await readdir(folder), ['one']);
});

void t.test('a file that stands there already is refused and left alone', async (t) => {
  const folder = t.testdir({ one: 'of somebody else' });
  for (const sizeBytes of [20_000, 1_000_000]) {
    await t.rejects(stage(sourceOf(randomBytes(sizeBytes)), join(folder, 'one'), WISH), { code: 'EEXIST' });
    t.equal(await readFile(join(folder, 'one'), 'utf8'), 'of somebody else');
  }
});

void t.test('an empty body and one that is too large leave nothing', async (t) => {
  const folder = t.testdir();
  await t.rejects(stage(sourceOf(Buffer.alloc(0)), join(folder, 'one'), WISH), { code: 'empty' });
  for (const sizeMaxBytes of [100, 1_000_000]) {
    const source = sourceOf(randomBytes(sizeMaxBytes + 1));
    await t.rejects(stage(source, join(folder, 'one'), { ...WISH, sizeMaxBytes }), { code: 'too_large' });
  }
  t.same(await readdir(folder), []);
});
