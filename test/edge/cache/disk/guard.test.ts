/** What is looked at before the index of a cache folder is opened: its file, and who uses the folder. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { IndexGuard } from '../../../../edge/cache/disk/index-guard.js';
import { lockFolder } from '../../../../edge/cache/disk/lock.js';

/** The head of an LMDB file of so many pages. */
function head({ magic = 0xbeef_c0de, pageBytes = 4_096, lastPage = 1n, sizeBytes = 8_192 } = {}): Buffer {
  const file = Buffer.alloc(sizeBytes);
  file.writeUInt32LE(magic, 24);
  file.writeUInt32LE(pageBytes, 48);
  file.writeBigUInt64LE(lastPage, 144);
  return file;
}

const guardIn = (t: Test, file: Buffer | undefined) => {
  const path = join(t.testdir(), 'index');
  if (file !== undefined) writeFileSync(path, file);
  return { guard: new IndexGuard(path), path, starts: () => readFileSync(`${path}-starts`, 'utf8') };
};

void t.test('an index is opened if its head is that of LMDB and fits its size', async (t) => {
  const cases: readonly (readonly [what: string, file: Buffer | undefined, fault: RegExp | undefined])[] = [
    ['no file', undefined, undefined],
    ['an empty file', Buffer.alloc(0), undefined],
    ['a whole file', head(), undefined],
    ['a file that is longer', head({ sizeBytes: 16_384 }), undefined],
    ['a byte too short', head({ sizeBytes: 8_191 }), /truncated/],
    ['more pages than it has', head({ lastPage: 2n }), /truncated/],
    ['another magic number', head({ magic: 1 }), /not an LMDB file/],
    ['text', Buffer.from('text that is nothing of the kind'), /not an LMDB file/],
    ['the smallest pages', head({ pageBytes: 512, sizeBytes: 1_024 }), undefined],
    ['smaller pages', head({ pageBytes: 511 }), /page size/],
    ['the largest pages', head({ pageBytes: 65_536, sizeBytes: 131_072 }), undefined],
    ['larger pages', head({ pageBytes: 65_537, sizeBytes: 200_000 }), /page size/],
  ];
  for (const [what, file, fault] of cases) {
    const { guard, starts } = guardIn(t, file);
    const found = await guard.fault();
    if (fault === undefined) t.equal(found, undefined, what);
    else t.match(found, fault, what);
    t.equal(starts(), '1', what);
  }
});

void t.test('an index is not tried again after two starts that did not read it', async (t) => {
  const { guard, path, starts } = guardIn(t, head());
  t.equal(await guard.fault(), undefined);
  t.equal(await guard.fault(), undefined);
  t.equal(starts(), '2');
  t.match(await guard.fault(), /ended 2 times/);
  t.equal(starts(), '2');
  await guard.renew();
  t.equal(starts(), '1', 'the new one is being read for the first time');
  t.equal(await guard.fault(), undefined);
  await guard.proven();
  t.equal(starts(), '0');
  t.equal(statSync(`${path}-starts`).mode & 0o777, 0o600);
  writeFileSync(`${path}-starts`, 'many');
  t.equal(await guard.fault(), undefined, 'what is no number is none');
  t.equal(starts(), '1');
});

void t.test('a file that cannot be looked at is a failure and no fault of its own', async (t) => {
  const folder = t.testdir({ index: {}, 'index-starts': {} });
  await t.rejects(new IndexGuard(join(folder, 'index')).fault(), { code: 'EISDIR' });
});

void t.test('a folder is locked once, also within one process, and free again afterwards', async (t) => {
  const folder = t.testdir();
  const lock = join(folder, 'lock');
  const unlock = await lockFolder(folder);
  t.match(readFileSync(lock, 'utf8'), new RegExp(`^${process.pid} \\d*$`));
  t.equal(statSync(lock).mode & 0o777, 0o600);
  await t.rejects(lockFolder(folder), { name: 'FolderInUse' });
  t.ok(existsSync(lock), 'the one that holds it keeps it');
  await unlock();
  t.notOk(existsSync(lock));
  await (await lockFolder(folder))();
});

void t.test('a lock counts as long as its process runs', async (t) => {
  const child = spawn('sleep', ['600']);
  t.teardown(() => child.kill('SIGKILL'));
  const startOf = (pid: number): string => {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  };
  const pid = child.pid ?? 0;
  const cases: readonly (readonly [what: string, text: string, locked: boolean])[] = [
    ['a process that runs', `${pid} ${startOf(pid)}`, true],
    ['one whose start is unknown', `${pid} `, true],
    ['one that started at another time', `${pid} 1`, false],
    ['one that has ended', '2147483646 1', false],
    ['this process, by a copied folder', `${process.pid} ${startOf(process.pid)}`, false],
    ['no process', 'what', false],
    ['a number that is none of a process', '-1 1', false],
    ['nothing', '', false],
  ];
  for (const [what, text, locked] of cases) {
    const folder = t.testdir({ lock: text });
    if (locked) {
      await t.rejects(lockFolder(folder), { name: 'FolderInUse' }, what);
      t.equal(readFileSync(join(folder, 'lock'), 'utf8'), text, `${what}: its lock stays`);
      // The refusal keeps nothing: once the process has ended the folder can be locked.
      writeFileSync(join(folder, 'lock'), '2147483646 1');
    }
    const unlock = await lockFolder(folder);
    t.match(readFileSync(join(folder, 'lock'), 'utf8'), new RegExp(`^${process.pid} `), what);
    await unlock();
  }
});

void t.test('a folder that is not there cannot be locked', async (t) => {
  await t.rejects(lockFolder(join(t.testdir(), 'none')), { code: 'ENOENT' });
});
