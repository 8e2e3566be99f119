import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { createLines, type Output } from '../../../src/logs/lines.js';
import { ManualClock } from '../../kit/clock.js';

const LOG = new URL('../../../src/log.js', import.meta.url).href;

/** Writes `count` lines of about 1 KB in one turn, says so on standard error, and ends. */
function writer(count: number, ending: string): ChildProcess {
  const script = `
    import { createLog } from '${LOG}';
    import { writeSync } from 'node:fs';
    const log = createLog('test', { level: 'info' });
    for (let n = 0; n < ${count}; n += 1) log.info({ n, pad: 'x'.repeat(1_000) }, 'line');
    process.once('uncaughtException', () => { writeSync(2, '.'); process.exit(1); });
    ${ending}`;
  return spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'pipe'] });
}

const ENDINGS: Readonly<Record<string, string>> = {
  'by process.exit': `writeSync(2, '.'); process.exit(0);`,
  'by an exception': `setImmediate(() => { log.info({ n: 3_000 }, 'late'); throw new Error('end'); });`,
  'by itself': `writeSync(2, '.');`,
};

for (const [name, ending] of Object.entries(ENDINGS)) {
  void t.test(`a reader that is late gets every line of a process that ends ${name}`, async (t) => {
    const child = writer(3_000, ending);
    const { stdout, stderr } = child;
    if (stdout === null || stderr === null) throw new Error('no pipes');
    // The pipe is full when the process ends, for nobody has read by then.
    await once(stderr, 'data');
    const [written] = await Promise.all([text(stdout), once(child, 'exit')]);
    const lines = written
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { n: number }).n);
    t.same(
      lines,
      Array.from({ length: ending.includes('late') ? 3_001 : 3_000 }, (_, n) => n),
    );
  });
}

void t.test('a process whose output nobody reads ends all the same', async () => {
  const child = writer(3_000, `process.exit(0);`);
  child.stdout?.destroy();
  await once(child, 'exit');
});

/** An output that takes what it is told to. */
function createOutput(waitingMaxBytes = 1_000) {
  const clock = new ManualClock();
  const given: { readonly text: string; readonly done: () => void }[] = [];
  const tail: string[] = [];
  const pauses: number[] = [];
  const state: { unsent: number; room: (call: number) => number | 'EAGAIN' | 'EPIPE' } = {
    unsent: 0,
    room: () => Number.POSITIVE_INFINITY,
  };
  let calls = 0;
  const output: Output = {
    write: (chunk, done) => given.push({ text: chunk.toString(), done }),
    unsentBytes: () => state.unsent,
    writeSync(chunk) {
      const room = state.room(calls++);
      if (typeof room === 'string') throw Object.assign(new Error(room), { code: room });
      tail.push(chunk.toString('utf8', 0, room));
      return Math.min(chunk.length, room);
    },
  };
  const lines = createLines({
    output,
    clock,
    waitingMaxBytes: () => waitingMaxBytes,
    lost: (count) => `lost ${count}\n`,
    pause: (ms) => void pauses.push(ms),
  });
  const texts = (): readonly string[] => given.map((one) => one.text);
  return { lines, clock, given, texts, tail, pauses, state };
}

const turn = (): Promise<void> => new Promise((done) => setImmediate(done));

void t.test(
  'the lines of one turn are written together, and frequent ones a moment later or with the next',
  async (t) => {
    const { lines, clock, given, texts } = createOutput();
    lines.write('one\n');
    lines.write('two\n');
    t.same(texts(), []);
    await turn();
    t.same(texts(), ['one\ntwo\n']);
    given[0]?.done();
    lines.gather('three\n');
    await turn();
    clock.advance(19);
    t.same(texts(), ['one\ntwo\n']);
    clock.advance(1);
    t.same(texts(), ['one\ntwo\n', 'three\n']);
    given[1]?.done();
    lines.gather('four\n');
    lines.write('five\n');
    await turn();
    t.same(texts().slice(2), ['four\nfive\n']);
  },
);

void t.test('one chunk at a time is under way, and a large one does not wait for the end of the turn', async (t) => {
  const { lines, given, texts } = createOutput(200_000);
  const large = `${'x'.repeat(65_535)}\n`;
  lines.write(large);
  t.same(texts(), [large]);
  lines.write(large);
  lines.write('last\n');
  await turn();
  t.equal(given.length, 1);
  given[0]?.done();
  t.same(texts(), [large, `${large}last\n`]);
  given[1]?.done();
  await turn();
  t.equal(given.length, 2, 'nothing is written twice');
});

void t.test('of a reader that is stuck, lines beyond the limit are lost and counted', async (t) => {
  const { lines, given, texts } = createOutput(10);
  lines.write('under way\n');
  await turn();
  lines.write('ab\n');
  lines.write('0123456\n');
  lines.write('0123456789\n');
  lines.write('cdefg\n');
  await turn();
  given[0]?.done();
  t.same(texts(), ['under way\n', 'ab\ncdefg\nlost 2\n']);
  given[1]?.done();
  lines.write('again\n');
  await turn();
  t.same(texts()[2], 'again\n', 'lost lines are told of once');
});

void t.test('at the end the rest of what is under way is written, then what waits', async (t) => {
  const { lines, texts, tail, pauses, state } = createOutput(12);
  lines.write('begun and not\n');
  t.same(texts(), [], 'longer than the limit');
  lines.write('half done\n');
  await turn();
  state.unsent = 5;
  lines.gather('waits\n');
  state.room = (call) => (call % 2 === 0 ? 'EAGAIN' : 3);
  lines.end();
  t.equal(tail.join(''), 'done\nwaits\nlost 1\n');
  t.same(new Set(pauses), new Set([5]));
  lines.end();
  t.equal(tail.join(''), 'done\nwaits\nlost 1\n', 'what waited is written once');
});

for (const [name, room, pausesMs] of [
  ['has gone', 'EPIPE', 0],
  ['takes nothing for five seconds', 'EAGAIN', 5_000],
] as const) {
  void t.test(`at the end a reader that ${name} is given up`, async (t) => {
    const { lines, tail, pauses, state } = createOutput();
    lines.gather('waits\n');
    state.room = () => room;
    lines.end();
    t.same(tail, []);
    t.equal(
      pauses.reduce((sum, ms) => sum + ms, 0),
      pausesMs,
    );
  });
}
