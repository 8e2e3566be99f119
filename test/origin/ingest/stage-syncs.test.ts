/** How a body reaches the disk: when it is synced, what waits for that, short writes, and that every file is closed. */
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { type FileHandle, open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { ChunkSource } from '../../../origin/ingest/paced-body.js';
import { until } from '../../kit/until.js';

const { watchSyncs } = await import('../../kit/syncs.js');
const { HEAD_MAX_BYTES, stage } = await import('../../../origin/ingest/stage.js');

const linux = { skip: existsSync('/proc/self/fd') ? false : 'names of open files are known on Linux alone' };
const MIB = 1_024 * 1_024;
const SYNCED = { sizeMaxBytes: 64 * MIB, sync: true };
const UNSYNCED = { ...SYNCED, sync: false };

/** Bytes that differ from place to place. */
const bytesOf = (sizeBytes: number): Buffer => Buffer.alloc(sizeBytes, Buffer.from('0123456789abcdefg'));

/** `before` is waited for ahead of each chunk, and before the end. */
function sourceOf(
  bytes: Buffer,
  chunkBytes: number,
  before: (chunk: number) => Promise<void> = async () => undefined,
): ChunkSource {
  let given = 0;
  return {
    async next() {
      await before(given);
      const chunk = bytes.subarray(given * chunkBytes, (given + 1) * chunkBytes);
      given += 1;
      return chunk.length === 0 ? undefined : chunk;
    },
  };
}

function isOpen(path: string): boolean {
  return readdirSync('/proc/self/fd').some((descriptor) => {
    try {
      return readlinkSync(join('/proc/self/fd', descriptor)) === path;
    } catch {
      return false;
    }
  });
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
};

void t.test('the beginning of a body is kept, however it is cut into chunks', async (t) => {
  const folder = t.testdir({});
  for (const sizeBytes of [1, HEAD_MAX_BYTES - 1, HEAD_MAX_BYTES, HEAD_MAX_BYTES + 1, 700_000]) {
    for (const chunkBytes of [100_000, HEAD_MAX_BYTES, 1_000_000]) {
      const bytes = bytesOf(sizeBytes);
      const { head } = await stage(sourceOf(bytes, chunkBytes), join(folder, `${sizeBytes}-${chunkBytes}`), UNSYNCED);
      t.ok(head.equals(bytes.subarray(0, 256 * 1_024)), `${sizeBytes} bytes in chunks of ${chunkBytes}`);
    }
  }
});

void t.test('a body is synced once at its end, and not answered before', linux, async (t) => {
  const folder = t.testdir({});
  const syncs = await watchSyncs(t, folder);
  for (const sizeBytes of [MIB, 2 * MIB - 1, 2 * MIB]) {
    syncs.forget();
    const held = syncs.hold(0);
    let done = false;
    const staging = stage(sourceOf(bytesOf(sizeBytes), MIB), join(folder, `${sizeBytes}`), SYNCED).then((staged) => {
      done = true;
      return staged;
    });
    await until('the sync', () => held.isReached());
    await turns();
    t.notOk(done, `${sizeBytes} bytes wait for the sync`);
    held.letGo();
    t.equal((await staging).synced, true);
    t.same(syncs.paths, [`${sizeBytes}`]);
    t.notOk(isOpen(join(folder, `${sizeBytes}`)), 'the file is closed');
  }
  syncs.forget();
  await stage(sourceOf(bytesOf(5 * MIB), MIB), join(folder, 'unsynced'), UNSYNCED);
  await stage(sourceOf(bytesOf(100_000), MIB), join(folder, 'small'), SYNCED);
  t.same(syncs.paths, [], 'neither without `sync` nor for a body that is synced by its only write');
});

void t.test('a long body is synced while it arrives, again and again', linux, async (t) => {
  const folder = t.testdir({});
  const syncs = await watchSyncs(t, folder);
  for (const name of ['a', 'b', 'c', 'd']) {
    syncs.forget();
    const held = syncs.hold(0);
    let done = false;
    let ended = false;
    const source = sourceOf(bytesOf(5 * MIB), MIB, async (chunk) => {
      if (chunk === 2) await until('two mebibytes are being synced', () => held.isReached());
      ended = chunk === 5;
    });
    const staging = stage(source, join(folder, name), SYNCED).finally(() => {
      done = true;
    });
    await until('the rest arrives during the sync', () => ended);
    await turns();
    t.notOk(done, 'the end waits for it');
    t.same(syncs.paths, [name], 'no other sync begins meanwhile');
    held.letGo();
    await staging;
    t.same(syncs.paths, [name, name], 'what came during the sync is synced too');
    t.ok(bytesOf(5 * MIB).equals(await readFile(join(folder, name))));
  }
});

void t.test('a sync that fails fails the upload, whichever it is, and no file stays', linux, async (t) => {
  const folder = t.testdir({});
  const syncs = await watchSyncs(t, folder);
  for (const [sizeBytes, after] of [
    [MIB, 0],
    [2 * MIB, 0],
    [5 * MIB, 0],
  ] as const) {
    syncs.forget();
    syncs.fail(after);
    const path = join(folder, 'one');
    await t.rejects(stage(sourceOf(bytesOf(sizeBytes), MIB), path, SYNCED), { code: 'EIO' }, `${sizeBytes} bytes`);
    t.same(await readdir(folder), []);
    t.notOk(isOpen(path));
  }
  const broken = sourceOf(bytesOf(3 * MIB), MIB, async (chunk) => {
    if (chunk === 2) throw new Error('the sender left');
  });
  await t.rejects(stage(broken, join(folder, 'one'), SYNCED), { message: 'the sender left' });
  t.notOk(isOpen(join(folder, 'one')), 'nor is it open after a body that breaks off');
});

void t.test('a write may write fewer bytes than it is given', async (t) => {
  const folder = t.testdir({});
  const handle = await open(folder, 'r');
  const prototype = Object.getPrototypeOf(handle) as {
    write: (this: FileHandle, bytes: Buffer, at?: number, length?: number) => Promise<{ bytesWritten: number }>;
    writev: (this: FileHandle, buffers: readonly Buffer[]) => Promise<{ bytesWritten: number }>;
  };
  await handle.close();
  const { write, writev } = prototype;
  t.teardown(() => Object.assign(prototype, { write, writev }));
  prototype.write = function (bytes, at = 0) {
    return write.call(this, bytes, at, Math.min(300_001, bytes.length - at));
  };
  prototype.writev = function ([first = Buffer.alloc(0)]) {
    return write.call(this, first, 0, Math.min(first.length, 1_000));
  };
  const bytes = bytesOf(2 * MIB + 77);
  const { sizeBytes } = await stage(sourceOf(bytes, 300_000), join(folder, 'one'), UNSYNCED);
  t.equal(sizeBytes, bytes.length);
  t.ok(bytes.equals(await readFile(join(folder, 'one'))));
});
