/** Spool files: the room that they reserve and give back, and what is left of them. */
import { readdirSync, readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { DiskRoom } from '../../../../edge/cache/disk/room.js';
import { type SpoolFile, SpoolFolder } from '../../../../edge/cache/disk/spool.js';
import { bytesOf, FaultyFiles } from '../../../kit/edge/cache.js';

const BLOCK = 4_096;

async function opened(t: Test, sizeBytes = 10 * BLOCK) {
  const files = new FaultyFiles();
  const limits = { sizeBytes, fillRoomBytes: sizeBytes, minFreeBytes: 0 };
  const room = new DiskRoom(limits, () => 0);
  room.endRecovery();
  let names = 0;
  const path = `${t.testdir({ spool: { old: 'of an earlier run' } })}/spool`;
  const randomName = (): string => {
    names += 1;
    return `spool-${names}`;
  };
  const folder = new SpoolFolder(path, files, room, randomName);
  await folder.open();
  return { files, room, folder, path, left: () => roomLeft(room, sizeBytes) };
}

/** How many bytes can still be reserved. */
function roomLeft(room: DiskRoom, mostBytes: number): number {
  for (let bytes = mostBytes; bytes > 0; bytes -= BLOCK) {
    if (!room.tryReserve(bytes)) continue;
    room.release(bytes);
    return bytes;
  }
  return 0;
}

const made = (spool: SpoolFile | undefined): SpoolFile => {
  if (spool === undefined) throw new Error('there was no room');
  return spool;
};

void t.test('the folder is emptied at the start', async (t) => {
  const { path } = await opened(t);
  t.same(readdirSync(path), []);
});

void t.test('a body of known size reserves its room at once, and one of unknown size as it arrives', async (t) => {
  const { folder, left, files } = await opened(t);
  const known = made(folder.create(BLOCK + 1, 100_000));
  t.equal(left(), 8 * BLOCK, 'in whole blocks');
  t.equal(folder.create(9 * BLOCK, 100_000), undefined, 'there is no room for it');
  const unknown = made(folder.create(null, 100_000));
  t.equal(left(), 8 * BLOCK);
  await unknown.append(bytesOf(1));
  t.equal(left(), 7 * BLOCK);
  await unknown.append(bytesOf(BLOCK - 1));
  t.equal(left(), 7 * BLOCK, 'what fits into its last block needs no more');
  await unknown.append(bytesOf(1));
  t.equal(left(), 6 * BLOCK);
  await known.append(bytesOf(BLOCK + 1));
  t.equal(left(), 6 * BLOCK, 'what was reserved is not reserved again');
  for (const spool of [known, unknown]) {
    await spool.close();
    await spool.discard();
    await spool.discard();
  }
  t.equal(left(), 10 * BLOCK, 'each gives its room back once');
  t.equal(files.openFiles, 0);
});

void t.test('bytes are read back from where they were written, and none from a file that is closed', async (t) => {
  const { folder, path } = await opened(t);
  const spool = made(folder.create(null, 100_000));
  t.equal(await spool.read(Buffer.alloc(4), 0), 0, 'nothing was written');
  await spool.append(bytesOf(100));
  await spool.append(bytesOf(50, 2));
  t.equal(spool.writtenBytes, 150);
  const into = Buffer.alloc(20);
  t.equal(await spool.read(into, 90), 20);
  t.ok(into.equals(Buffer.concat([bytesOf(100).subarray(90), bytesOf(50, 2).subarray(0, 10)])));
  t.equal(await spool.read(into, 145), 5, 'to the end of the file');
  await spool.close();
  t.equal(await spool.read(into, 0), 0);
  t.ok(readFileSync(spool.path).equals(Buffer.concat([bytesOf(100), bytesOf(50, 2)])), 'the path stays');
  t.equal(spool.path, `${path}/spool-1`);
});

void t.test('a body that is too large or finds no room is written no further', async (t) => {
  const { folder, left } = await opened(t);
  const limited = made(folder.create(null, 100));
  await limited.append(bytesOf(100));
  await t.rejects(limited.append(bytesOf(1)), { name: 'NoRoom' }, 'more than one body may have');
  t.equal(limited.writtenBytes, 100);
  const taken = made(folder.create(8 * BLOCK, 100_000));
  const other = made(folder.create(null, 100_000));
  await other.append(bytesOf(BLOCK));
  await t.rejects(other.append(bytesOf(1)), { name: 'NoRoom' });
  t.equal(left(), 0);
  await taken.discard();
  t.equal(left(), 8 * BLOCK);
  await other.append(bytesOf(BLOCK));
  t.equal(left(), 7 * BLOCK);
  await Promise.all([limited, other].map((spool) => spool.close()));
});

void t.test('what became a content is not removed, and belongs to its entry', async (t) => {
  const { folder, room, left } = await opened(t);
  const spool = made(folder.create(BLOCK, BLOCK));
  await spool.append(bytesOf(BLOCK));
  spool.becameContent();
  t.equal(left(), 10 * BLOCK, 'its bytes are counted by the policy');
  await spool.discard();
  t.equal(left(), 10 * BLOCK);
  t.ok(room.tryReserve(10 * BLOCK));
  t.equal(readFileSync(spool.path).length, BLOCK);
  await spool.close();
});

void t.test('a file is removed and closed after what is still written to it', async (t) => {
  const { folder, files, left } = await opened(t);
  for (const end of ['discard', 'close'] as const) {
    const spool = made(folder.create(BLOCK, BLOCK));
    let go = (): void => undefined;
    const held = new Promise<void>((resolve) => (go = resolve));
    files.before = (verb) => (verb === 'write' ? held : undefined);
    const appended = spool.append(bytesOf(10));
    let ended = false;
    const ending = spool[end]().then(() => (ended = true));
    for (let turns = 0; turns < 5; turns += 1) await new Promise(setImmediate);
    t.equal(ended, false, end);
    go();
    await Promise.all([appended, ending]);
    files.before = () => undefined;
    await spool.close();
    await spool.discard();
    t.equal(left(), 10 * BLOCK);
  }
});

void t.test('a file that cannot be removed gives its room back all the same', async (t) => {
  const { folder, files, left } = await opened(t);
  const spool = made(folder.create(3 * BLOCK, 3 * BLOCK));
  files.before = (verb) => {
    if (verb === 'remove') throw new Error('EROFS');
  };
  await t.rejects(spool.discard(), { message: 'EROFS' });
  t.equal(left(), 10 * BLOCK);
  const failing = made(folder.create(BLOCK, BLOCK));
  files.before = () => {
    throw new Error('EIO');
  };
  await t.rejects(failing.append(bytesOf(1)), { message: 'EIO' });
  t.equal(failing.writtenBytes, 0);
});

void t.test('a body that may wait gets its room once files are removed', async (t) => {
  const { folder, room } = await opened(t);
  room.removing(10 * BLOCK);
  let spool: SpoolFile | undefined;
  const waiting = folder.createWhenRoom(BLOCK + 1).then((made) => (spool = made));
  await new Promise(setImmediate);
  t.equal(spool, undefined);
  room.removed(10 * BLOCK);
  await waiting;
  t.ok(spool);
  await t.rejects(made(spool).append(bytesOf(BLOCK + 2)), { name: 'NoRoom' }, 'it is as large as was asked for');
  t.equal(await folder.createWhenRoom(9 * BLOCK), undefined);
});
