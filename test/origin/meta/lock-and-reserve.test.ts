/** Who may write to a folder of metadata, and the room that is kept there. */
import { existsSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openReserve } from '../../../origin/meta/lmdb/reserve.js';
import { lockWriter } from '../../../origin/meta/lmdb/writer-lock.js';

let names = 0;
const randomName = (): string => {
  names += 1;
  return `name${names}`;
};

void t.test('a folder is locked by one process, which is named in it', async (t) => {
  const folder = t.testdir({});
  const path = join(folder, 'writer.lock');
  const first = await lockWriter(folder, randomName);
  const owner = JSON.parse(readFileSync(path, 'utf8')) as { readonly pid: number; readonly started: string | null };
  t.equal(owner.pid, process.pid);
  if (existsSync('/proc/self/stat')) t.match(owner.started, /^[0-9a-f-]{36}:\d+$/);
  t.same(readdirSync(folder), ['writer.lock'], 'nothing else is left');
  await t.rejects(lockWriter(folder, randomName), {
    name: 'FolderInUse',
    message: new RegExp(`^${folder} is in use by process ${process.pid}\\.`),
  });
  t.same(readdirSync(folder), ['writer.lock']);
  await first.release();
  t.same(readdirSync(folder), []);
  const second = await lockWriter(folder, randomName);
  await first.release();
  t.same(readdirSync(folder), ['writer.lock'], 'a release counts once, and is not one of another lock');
  await second.release();
  await t.rejects(lockWriter(join(folder, 'nothing'), randomName), { code: 'ENOENT' });
});

void t.test('the lock of a process that has ended is taken over', async (t) => {
  const folder = t.testdir({});
  const path = join(folder, 'writer.lock');
  const lockIsOpen = async (content: string): Promise<boolean> => {
    writeFileSync(path, content);
    try {
      const lock = await lockWriter(folder, randomName);
      t.same(readdirSync(folder), ['writer.lock'], 'what was taken away is gone');
      t.match(JSON.parse(readFileSync(path, 'utf8')), { pid: process.pid });
      await lock.release();
      return true;
    } catch (thrown) {
      t.match(thrown, { name: 'FolderInUse' });
      t.equal(readFileSync(path, 'utf8'), content, 'the lock of another stays as it is');
      return false;
    }
  };
  const told = existsSync('/proc/self/stat');
  const own = await lockWriter(folder, randomName);
  const { started } = JSON.parse(readFileSync(path, 'utf8')) as { readonly started: string | null };
  await own.release();
  const cases: readonly (readonly [what: string, owner: unknown, open: boolean])[] = [
    ['a pid that no system gives out', { pid: 2 ** 30, started: null }, true],
    ['that pid, and an instant', { pid: 2 ** 30, started }, true],
    ['a living process of which no more is known', { pid: process.ppid, started: null }, false],
    ['this process', { pid: process.pid, started }, false],
    ['another boot', { pid: process.pid, started: 'another-boot:1' }, told],
    ['no pid', { started }, true],
    ['a pid that is no number', { pid: String(process.ppid), started: null }, true],
    ['an instant that is no text', { pid: process.ppid, started: 7 }, false],
    ['null', null, true],
    ['a number', 7, true],
  ];
  for (const [what, owner, open] of cases) t.equal(await lockIsOpen(JSON.stringify(owner)), open, what);
  t.equal(await lockIsOpen(''), true);
  t.equal(await lockIsOpen('{'), true);
});

void t.test('of several that find the lock of an ended process at once, one has it', async (t) => {
  for (let round = 0; round < 10; round += 1) {
    const folder = t.testdir({ 'writer.lock': JSON.stringify({ pid: 2 ** 30, started: null }) });
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => lockWriter(folder, randomName)));
    t.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    t.same(readdirSync(folder), ['writer.lock']);
  }
});

void t.test('one that ended while it took a lock over keeps nobody from it, and one that is at it does', async (t) => {
  const dead = JSON.stringify({ pid: 2 ** 30, started: null });
  const left = t.testdir({ 'writer.lock': dead, 'writer.lock.claim': dead });
  const lock = await lockWriter(left, randomName);
  t.same(readdirSync(left), ['writer.lock']);
  await lock.release();
  const claimed = t.testdir({
    'writer.lock': dead,
    'writer.lock.claim': JSON.stringify({ pid: process.ppid, started: null }),
  });
  await t.rejects(lockWriter(claimed, randomName), { message: /several processes are starting at once/ });
  t.equal(readFileSync(join(claimed, 'writer.lock'), 'utf8'), dead);
  t.same(readdirSync(claimed).sort(), ['writer.lock', 'writer.lock.claim']);
});

const MiB = 2 ** 20;

void t.test('room is kept in a file, and given back in eight parts', async (t) => {
  const path = join(t.testdir({}), 'reserve');
  const reserve = await openReserve(path, 801);
  t.equal(reserve.whole, false);
  t.equal(existsSync(path), false, 'nothing is taken yet');
  t.equal(await reserve.giveBack(), false);
  t.equal(await reserve.refill(), true);
  t.same([reserve.whole, statSync(path).size, statSync(path).mode & 0o777], [true, 801, 0o600]);
  t.equal(await reserve.refill(), true);
  const left: number[] = [];
  while (await reserve.giveBack()) left.push(statSync(path).size);
  t.same(left, [700, 599, 498, 397, 296, 195, 94, 0]);
  t.equal(reserve.whole, false);
  t.equal(await reserve.giveBack(), false);
  t.equal(await reserve.refill(), true);
  t.equal(statSync(path).size, 801);
});

void t.test(
  'room that an earlier run kept counts, and is completed with bytes that cannot be stored once',
  async (t) => {
    const path = join(t.testdir({}), 'reserve');
    writeFileSync(path, Buffer.alloc(MiB, 7));
    const reserve = await openReserve(path, 2 * MiB + 500_000);
    t.equal(reserve.whole, false);
    t.equal(await reserve.refill(), true);
    const bytes = readFileSync(path);
    t.equal(bytes.length, 2 * MiB + 500_000);
    t.ok(bytes.subarray(0, MiB).equals(Buffer.alloc(MiB, 7)), 'what is there stays');
    for (const at of [MiB, 2 * MiB, bytes.length - 1_000])
      t.ok(new Set(bytes.subarray(at, at + 1_000)).size > 100, 'random bytes');
    const smaller = await openReserve(path, 1_000);
    t.equal(smaller.whole, true, 'more than is wanted is enough');
    t.equal(await smaller.giveBack(), true);
    t.equal(statSync(path).size, 875);
    const shrunk = await openReserve(path, 875);
    truncateSync(path, 0);
    t.equal(await shrunk.giveBack(), false, 'somebody has taken it away');
    t.equal(shrunk.whole, false);
  },
);

void t.test('room that cannot be had is not taken, and no failure is thrown', async (t) => {
  const folder = t.testdir({});
  const path = join(folder, 'reserve');
  const large = await openReserve(path, 2 ** 60);
  t.same([await large.refill(), large.whole, existsSync(path)], [false, false, false]);
  const nowhere = await openReserve(join(folder, 'nothing', 'reserve'), 10);
  t.same([await nowhere.refill(), await nowhere.giveBack()], [false, false]);
});

void t.test('changes of the room come one after the other', async (t) => {
  const path = join(t.testdir({}), 'reserve');
  const reserve = await openReserve(path, 800);
  const all = [reserve.refill(), reserve.giveBack(), reserve.giveBack(), reserve.refill(), reserve.giveBack()];
  t.same(await Promise.all(all), [true, true, true, true, true]);
  t.equal(statSync(path).size, 700);
});
