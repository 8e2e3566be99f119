/** Folders and files that are made durably and for this user alone, and files that are watched. */
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createFile, makeFolder, openPrivateFolder, tightenFile, tightenFolder } from '../../src/private-folder.js';
import { watchFile } from '../../src/watch.js';
import { ManualClock } from '../kit/clock.js';
import { until } from '../kit/until.js';

const skip = process.platform === 'win32' ? 'there are no such rights' : false;
const modeOf = (path: string): number => lstatSync(path).mode & 0o7777;

void t.test('a folder is made with all that is missing above it, and one that is there stays', { skip }, async (t) => {
  const root = t.testdir({ file: 'x' });
  const deep = join(root, 'a', 'b', 'c');
  t.equal(await makeFolder(deep), 'made');
  for (const made of ['a', 'a/b', 'a/b/c']) t.equal(modeOf(join(root, made)), 0o700, made);
  chmodSync(deep, 0o755);
  t.equal(await makeFolder(deep), 'there');
  t.equal(modeOf(deep), 0o755);
  await t.rejects(makeFolder(join(root, 'file')), { code: 'EEXIST' });
  await t.rejects(makeFolder(join(root, 'file', 'below')), { code: 'ENOTDIR' });
  symlinkSync(join(root, 'nowhere'), join(root, 'link'));
  await t.rejects(makeFolder(join(root, 'link')), { code: 'ENOENT' }, 'a link that leads nowhere');
  symlinkSync(deep, join(root, 'good'));
  t.equal(await makeFolder(join(root, 'good')), 'there', 'a link to a folder is one');
});

const noProc = process.platform === 'linux' ? false : 'there is no /proc';
void t.test('where no folder can be made, the attempt ends', { skip: noProc }, async (t) => {
  await t.rejects(makeFolder('/proc/none/below'), { code: 'ENOENT', path: /^\/proc\/none/ });
});

void t.test('others lose their rights to a folder and to the files in it, and to nothing else', { skip }, async (t) => {
  const root = t.testdir({ ours: { open: 'x', closed: 'x', inner: { deep: 'x' } } });
  const ours = join(root, 'ours');
  const at = (name: string): string => join(ours, name);
  for (const [path, mode] of [
    [ours, 0o755],
    [at('open'), 0o666],
    [at('closed'), 0o600],
    [at('inner'), 0o755],
    [at('inner/deep'), 0o644],
  ] as const) {
    chmodSync(path, mode);
  }
  writeFileSync(join(root, 'elsewhere'), 'x');
  chmodSync(join(root, 'elsewhere'), 0o644);
  symlinkSync(join(root, 'elsewhere'), at('link'));
  await openPrivateFolder(ours);
  t.strictSame(
    [ours, at('open'), at('closed'), at('inner'), at('inner/deep'), join(root, 'elsewhere')].map(modeOf),
    [0o700, 0o600, 0o600, 0o755, 0o644, 0o644],
  );
  const common = join(root, 'common');
  mkdirSync(common);
  chmodSync(common, 0o1777);
  writeFileSync(join(common, 'file'), 'x');
  chmodSync(join(common, 'file'), 0o644);
  await tightenFolder(common);
  t.strictSame([modeOf(common), modeOf(join(common, 'file'))], [0o1777, 0o644], 'a folder for everybody stays so');
  await tightenFile(join(root, 'nothing'));
  await tightenFile(at('inner'));
  t.equal(modeOf(at('inner')), 0o755, 'a folder is no file');
  await openPrivateFolder(join(root, 'new'));
  t.equal(modeOf(join(root, 'new')), 0o700);
});

void t.test('a file is made whole, and one that is there stays as it is', { skip }, async (t) => {
  const root = t.testdir();
  const path = join(root, 'file');
  await createFile(path, 'first');
  t.strictSame([readFileSync(path, 'utf8'), modeOf(path)], ['first', 0o600]);
  await createFile(path, 'second');
  t.equal(readFileSync(path, 'utf8'), 'first');
  await Promise.all(['a', 'b', 'c'].map((text) => createFile(join(root, 'raced'), text.repeat(9))));
  t.match(readFileSync(join(root, 'raced'), 'utf8'), /^(aaaaaaaaa|bbbbbbbbb|ccccccccc)$/);
  await t.rejects(createFile(join(root, 'no', 'folder'), 'x'), { code: 'ENOENT' });
  t.strictSame(readdirSync(root).sort(), ['file', 'raced'], 'nothing else is left');
});

void t.test('a change of a watched file is told once it has settled, with or without an event', { skip }, async (t) => {
  const root = t.testdir({ file: 'one', other: 'x', old: { real: 'one' }, new: { real: 'two' } });
  const clock = new ManualClock();
  const told = { times: 0 };
  const trouble: unknown[] = [];
  const onChange = (): void => {
    told.times += 1;
  };
  const stop = watchFile(join(root, 'file'), onChange, clock, (one) => trouble.push(one));
  t.equal(clock.pending, 1);
  writeFileSync(join(root, 'file'), 'changed');
  await until('the event', () => clock.pending === 2);
  clock.advance(199);
  t.equal(told.times, 0);
  writeFileSync(join(root, 'file'), 'changed again');
  await clock.timerSet(200);
  clock.advance(199);
  t.equal(told.times, 0, 'an editor writes in several steps');
  clock.advance(1);
  t.equal(told.times, 1);
  stop();
  t.equal(clock.pending, 0);

  // A link in another folder changes without an event where the file is looked for.
  symlinkSync(join(root, 'old'), join(root, 'now'));
  const linked = watchFile(join(root, 'now', 'real'), onChange, clock, (one) => trouble.push(one));
  clock.advance(5_000);
  clock.advance(200);
  t.equal(told.times, 1, 'nothing has changed');
  symlinkSync(join(root, 'new'), join(root, 'next'));
  renameSync(join(root, 'next'), join(root, 'now'));
  clock.advance(4_800);
  t.equal(clock.pending, 2, 'it is looked at every five seconds');
  clock.advance(200);
  t.equal(told.times, 2);
  clock.advance(10_000);
  t.equal(told.times, 2, 'and told once');
  linked();
  t.equal(clock.pending, 0);
  t.strictSame(trouble, []);

  const absent = watchFile(join(root, 'no', 'file'), onChange, clock, (one) => trouble.push(one));
  t.match(trouble, [{ code: 'ENOENT' }]);
  mkdirSync(join(root, 'no'));
  writeFileSync(join(root, 'no', 'file'), 'there');
  clock.advance(5_200);
  t.equal(told.times, 3, 'a file that comes later is noticed too');
  absent();
  t.equal(clock.pending, 0);
});
