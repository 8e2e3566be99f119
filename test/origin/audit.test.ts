/** The audit log: every line is there once, whole and in order, whatever happens to the file. */
import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type AuditAct, openAuditLog } from '../../origin/audit.js';
import { onSmallDisk } from '../kit/small-disk.js';

const AT = Date.UTC(2026, 0, 2, 3, 4, 5);
const act = (n: number, given: Partial<AuditAct> = {}): AuditAct => ({
  at: AT + n,
  by: 'eve',
  act: 'delete',
  target: null,
  outcome: `outcome ${n}`,
  seq: n,
  reason: null,
  requestId: null,
  address: null,
  ...given,
});

interface Opened {
  readonly folder: string;
  readonly file: string;
  readonly open: () => ReturnType<typeof openAuditLog>;
  /** The numbers of the lines in a file. */
  readonly numbers: (name?: string) => readonly unknown[];
}

function setUp(t: Test, rotateBytes = 1e9): Opened {
  const folder = join(t.testdir({}), 'audit');
  const file = join(folder, 'audit.jsonl');
  return {
    folder,
    file,
    open: () => openAuditLog({ file, rotateBytes }),
    numbers: (name = 'audit.jsonl') =>
      readFileSync(join(folder, name), 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => (JSON.parse(line) as { readonly seq: unknown }).seq),
  };
}
const filesIn = (folder: string): readonly string[] =>
  readdirSync(folder)
    .filter((name) => name !== '.reserve')
    .sort();

void t.test('each act is a line, in the order in which they were told', async (t) => {
  const { folder, file, open, numbers } = setUp(t);
  const log = await open();
  t.equal(statSync(file).mode & 0o777, 0o600);
  t.equal(statSync(join(folder, '.reserve')).size, 256 * 1_024, 'room for lines on a full disk');
  const told = act(1, { target: 'a'.repeat(64) as never, reason: 'Grüße ☂', requestId: 'r', address: '192.0.2.1' });
  await log.append(told);
  const { at: _, ...rest } = told;
  t.same(JSON.parse(readFileSync(file, 'utf8')), { at: '2026-01-02T03:04:05.001Z', ...rest });
  await Promise.all([2, 3, 4].map((n) => log.append(act(n))));
  t.same(numbers(), [1, 2, 3, 4]);
  const last = log.append(act(5));
  const closed = log.close();
  await t.rejects(log.append(act(6)), { code: 'overloaded' });
  await Promise.all([last, closed, log.close()]);
  t.same(numbers(), [1, 2, 3, 4, 5], 'what was accepted is written before it is closed');
  const again = await open();
  await again.append(act(7));
  await again.close();
  t.same(numbers(), [1, 2, 3, 4, 5, 7]);
});

void t.test('a line that was cut short is ended, and the next one is whole', async (t) => {
  const { folder, file, open } = setUp(t);
  mkdirSync(folder);
  writeFileSync(file, '{"seq":1}\n{"seq":2');
  const log = await open();
  await log.append(act(3));
  await log.close();
  const lines = readFileSync(file, 'utf8').split('\n');
  t.same(lines.slice(0, 2), ['{"seq":1}', '{"seq":2']);
  t.match(JSON.parse(lines[2] ?? ''), { seq: 3 });
  t.equal(lines.length, 4);
  const whole = await open();
  await whole.close();
  t.equal(readFileSync(file, 'utf8').split('\n').length, 4, 'a file that ends well is left as it is');
});

void t.test('a full file is kept under the time of its end, and never replaced', async (t) => {
  const lineBytes =
    `${JSON.stringify({ at: new Date(AT).toISOString(), by: 'eve', act: 'delete', target: null, outcome: 'outcome 1', seq: 1, reason: null, requestId: null, address: null })}\n`
      .length;
  const { folder, open, numbers } = setUp(t, 2 * lineBytes);
  const log = await open();
  const same = { at: AT };
  for (let n = 1; n < 8; n += 1) await log.append(act(n, same));
  const ended = 'audit.jsonl.2026-01-02T030405.000Z';
  t.same(filesIn(folder), ['audit.jsonl', ended, `${ended}-1`, `${ended}-2`]);
  t.same(
    [ended, `${ended}-1`, `${ended}-2`, 'audit.jsonl'].map((name) => numbers(name)),
    [[1, 2], [3, 4], [5, 6], [7]],
  );
  await log.append(act(8, { at: AT + 60_000 }));
  await Promise.all([9, 10].map((n) => log.append(act(n, { at: AT + 61_000 }))));
  await log.close();
  t.same(numbers('audit.jsonl.2026-01-02T030506.000Z'), [7, 8]);
  t.same(numbers(), [9, 10]);
  const again = await open();
  await again.append(act(11, { at: AT + 62_000 }));
  await again.close();
  t.same(numbers(), [11], 'the size of a file counts from before');
});

void t.test('bytes count, and not characters', async (t) => {
  const { folder, open } = setUp(t, 1_000);
  const log = await open();
  await log.append(act(1, { reason: '☂'.repeat(300) }));
  await log.append(act(2));
  await log.close();
  t.equal(filesIn(folder).length, 2);
});

void t.test(
  'a file that was moved by hand is not missed, and a failure is told to those whose lines it lost',
  async (t) => {
    const { folder, file, open, numbers } = setUp(t, 100);
    const log = await open();
    await log.append(act(1));
    rmSync(file);
    await log.append(act(2));
    t.same(numbers(), [2]);
    rmSync(folder, { recursive: true });
    const failed = await Promise.allSettled([log.append(act(3)), log.append(act(4))]);
    t.same(
      failed.map(({ status }) => status),
      ['rejected', 'rejected'],
    );
    mkdirSync(folder);
    await log.append(act(5));
    t.same(numbers(), [5], 'it goes on once it can');
    await log.close();
  },
);

void t.test('a place where no file can be is told at the start', async (t) => {
  const { folder, file, open } = setUp(t);
  mkdirSync(file, { recursive: true });
  await t.rejects(open(), { code: 'EISDIR' });
  rmSync(folder, { recursive: true });
  appendFileSync(folder, '');
  await t.rejects(open());
});

void t.test('on a full disk lines go to the room in reserve, which is taken back when there is room', async (t) => {
  await onSmallDisk(t, 4_194_304, async (folder) => {
    const file = join(folder, 'audit.jsonl');
    const filler = join(folder, 'filler');
    const reserve = (): number => statSync(join(folder, '.reserve')).size;
    const fill = (): void => {
      try {
        for (;;) appendFileSync(filler, Buffer.alloc(4_096));
      } catch {
        // It is full.
      }
    };
    const numbers = (): readonly unknown[] =>
      readFileSync(file, 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => (JSON.parse(line) as { readonly seq: unknown }).seq);
    const log = await openAuditLog({ file, rotateBytes: 1e9 });
    const whole = reserve();
    fill();
    await log.append(act(1));
    t.ok(reserve() < whole, 'some of it was given back');
    rmSync(filler);
    await log.append(act(2));
    t.equal(reserve(), whole);

    fill();
    const long = { reason: 'x'.repeat(20_000) };
    const accepted: number[] = [1, 2];
    const appendUntilFull = async (): Promise<unknown> => {
      for (let n = 3; n < 100; n += 1) {
        try {
          await log.append(act(n, long));
          accepted.push(n);
        } catch (thrown) {
          return thrown;
        }
      }
      return undefined;
    };
    t.match(await appendUntilFull(), { code: 'ENOSPC' });
    t.equal(reserve(), 0, 'all of it was used');
    t.ok(accepted.length > 10, `${accepted.length} lines had room`);
    t.same(numbers(), accepted, 'and no line is there that was refused, nor a part of one');
    rmSync(filler);
    await log.append(act(100));
    t.same(numbers(), [...accepted, 100]);
    t.equal(reserve(), whole);
    await log.close();
  });
});
