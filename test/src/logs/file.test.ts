/** The file of a log: rotated, opened anew, written to by several, and on a disk that is full. */
import { readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type LogFileConfig, openLogFile } from '../../../src/logs/file.js';
import { createLines } from '../../../src/logs/lines.js';
import { ManualClock } from '../../kit/clock.js';

function openFile(t: Test, config: Partial<LogFileConfig> = {}) {
  const folder = t.testdir();
  const path = join(folder, 'logs', 'edge.log');
  const troubles: unknown[] = [];
  const whole = { path, sizeMaxBytes: 0, keep: 2, ...config };
  const file = openLogFile(whole, (thrown) => troubles.push(thrown));
  const put = (text: string, to = file): Promise<Error | null | undefined> =>
    new Promise((resolve) => {
      to.write(Buffer.from(text), resolve);
    });
  return { folder: join(folder, 'logs'), path, file, put, troubles, config: whole };
}

const never = (t: Test) => (what: unknown) => void t.fail(String(what));

void t.test('a file is made with its folder for its user alone, and appended to', async (t) => {
  const { path, put, folder, config } = openFile(t);
  t.equal(await put('one\n'), null);
  await put('two\n', openLogFile(config, never(t)));
  t.equal(await readFile(path, 'utf8'), 'one\ntwo\n');
  t.same([statSync(path).mode & 0o077, statSync(folder).mode & 0o077], [0, 0]);
  t.throws(() => openLogFile({ ...config, path: folder }, never(t)), { code: 'EISDIR' });
});

void t.test('a file that would grow too large is renamed, and as many are kept as configured', async (t) => {
  for (const [keep, expected] of [
    [2, { 'edge.log': '7\n', 'edge.log.1': '5\n6\n', 'edge.log.2': '3\n4\n' }],
    [1, { 'edge.log': '7\n', 'edge.log.1': '5\n6\n' }],
    [0, { 'edge.log': '7\n' }],
  ] as const) {
    const { folder, put, troubles } = openFile(t, { sizeMaxBytes: 4, keep });
    for (const digit of '1234567') await put(`${digit}\n`);
    const names = (await readdir(folder)).sort();
    t.same(Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name), 'utf8')])), expected);
    t.same(troubles, []);
    rmSync(folder, { recursive: true });
  }
  const { path, put } = openFile(t, { sizeMaxBytes: 4 });
  await put('a line that is longer than the file may be\n');
  t.match(await readFile(path, 'utf8'), /^a line.*\n$/, 'goes into a file of its own');
});

void t.test('a file that was moved away is opened anew when that is asked for', async (t) => {
  const { path, file, put, troubles } = openFile(t);
  await put('one\n');
  renameSync(path, `${path}.old`);
  await put('two\n');
  t.equal(await readFile(`${path}.old`, 'utf8'), 'one\ntwo\n');
  file.reopen();
  await put('three\n');
  t.equal(await readFile(path, 'utf8'), 'three\n');

  rmSync(path);
  await mkdir(path);
  file.reopen();
  await put('four\n');
  t.match(troubles, [{ code: 'EISDIR' }], 'one that cannot be opened leaves the one before');
  rmSync(path, { recursive: true });
  file.reopen();
  await put('five\n');
  t.equal(await readFile(path, 'utf8'), 'five\n');
});

void t.test('several writers of one file tear no line, also while one of them rotates it', async (t) => {
  const { folder, file, put, config } = openFile(t, { sizeMaxBytes: 30_000, keep: 100 });
  const others = [file, openLogFile(config, never(t)), openLogFile({ ...config, sizeMaxBytes: 0 }, never(t))];
  const line = (writer: number, n: number): string => `${writer} ${n} ${'x'.repeat(200 + (n % 50))}\n`;
  await Promise.all(
    others.map(async (to, writer) => {
      for (let n = 0; n < 300; n += 3) await put([0, 1, 2].map((more) => line(writer, n + more)).join(''), to);
    }),
  );
  const names = await readdir(folder);
  t.ok(names.length > 1);
  const written = names.flatMap((name) => readFileSync(join(folder, name), 'utf8').split(/(?<=\n)/));
  const wanted = others.flatMap((_, writer) => Array.from({ length: 300 }, (_each, n) => line(writer, n)));
  t.same(written.sort(), wanted.sort());
});

void t.test('a full disk costs lines, which are counted and told of once there is room', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'edge.log');
  symlinkSync('/dev/full', path);
  const file = openLogFile({ path, sizeMaxBytes: 0, keep: 1 }, never(t));
  const clock = new ManualClock();
  const lines = createLines({
    output: file,
    clock,
    waitingMaxBytes: () => 1_000,
    lost: (count) => `lost ${count}\n`,
    pause: never(t),
  });
  lines.write('one\ntwo\n');
  await lines.flush();
  t.equal(lines.lost, 2);
  lines.write('three\n');
  await lines.flush();
  t.equal(lines.lost, 3, 'the line that told of it is no loss');
  rmSync(path);
  file.reopen();
  clock.advance(1_000);
  await lines.flush();
  t.equal(await readFile(path, 'utf8'), 'lost 3\n', 'also if nothing else is written');
  lines.gather('four\n');
  lines.end();
  t.equal(await readFile(path, 'utf8'), 'lost 3\nfour\n');
});
