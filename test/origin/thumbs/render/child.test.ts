/** One child process that renders, seen from its parent. */
import { existsSync, readdirSync } from 'node:fs';
import { getPriority } from 'node:os';
import t, { type Test } from 'tap';
import { type Child, type ChildConfig, type ChildOutcome, startChild } from '../../../../origin/thumbs/render/child.js';
import { readMemory } from '../../../../origin/thumbs/render/limits.js';
import { ManualClock } from '../../../kit/clock.js';
import {
  CHILD_CONFIG,
  type FakeProcess,
  fakeProcesses,
  MiB,
  request,
  result,
} from '../../../kit/origin/doubles/process.js';

const never = new AbortController().signal;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const early = { variant: '160', format: 'webp', file: '160.webp', width: 1, height: 1, animated: false } as const;

interface Alone {
  readonly child: Child;
  readonly fake: FakeProcess;
  readonly clock: ManualClock;
  readonly folder: string;
  /** Runs the request; `shown` gets the early thumbnails. */
  readonly run: (signal?: AbortSignal) => Promise<ChildOutcome>;
  readonly shown: unknown[];
}

function alone(t: Test, given: Partial<ChildConfig> = {}, pid?: number, dataMaxBytes: number | null = null): Alone {
  const { launcher, started } = fakeProcesses(pid);
  const clock = new ManualClock();
  const folder = t.testdir({});
  const script = new URL('file:///the/worker.js');
  const child = startChild({ script, launcher, folder, config: { ...CHILD_CONFIG, ...given }, dataMaxBytes }, clock);
  const [fake] = started;
  if (fake === undefined) throw new Error('a process is started');
  const shown: unknown[] = [];
  const run = (signal = never): Promise<ChildOutcome> => child.run(request, signal, (thumbs) => shown.push(thumbs));
  return { child, fake, clock, folder, run, shown };
}

void t.test('a process renders one picture after the other', async (t) => {
  const { child, fake, clock, folder, run, shown } = alone(t, { threads: 3 }, undefined, 5 * MiB);
  const { launch } = fake;
  t.match(launch, {
    command: { program: process.execPath, args: ['--max-old-space-size=128', '/the/worker.js'] },
    limits: { dataMaxBytes: 5 * MiB, cpuMaxS: null, fileMaxBytes: null },
    channels: 'messages',
    network: 'none',
    env: { UV_THREADPOOL_SIZE: '3', MALLOC_ARENA_MAX: '2', VIPS_DISC_THRESHOLD: '64g' },
  });
  t.equal(launch.env['MALLOC_MMAP_THRESHOLD_'], String(32 * MiB));
  t.equal(launch.env['MALLOC_TRIM_THRESHOLD_'], String(64 * MiB));
  t.same(
    readdirSync(folder).map((name) => `${folder}/${name}`),
    [launch.folder],
    'it has a folder of its own',
  );
  const first = run();
  t.same(fake.sent, [], 'nothing is sent before it is ready');
  fake.ready();
  t.same(await child.started, { kind: 'ready', memory: undefined });
  t.same(fake.sent, [{ t: 'render', job: 1, request }]);
  fake.says({ t: 'early', job: 1, thumbs: [early], thumbhash: null });
  fake.says({ t: 'done', job: 1, result });
  t.same([await first, shown], [{ kind: 'done', result }, [[early]]]);
  t.equal(clock.pending, 0, 'no timer is left');
  const second = run();
  t.same(fake.sent[1], { t: 'render', job: 2, request });
  fake.says({ t: 'done', job: 2, result });
  t.same(await second, { kind: 'done', result });
  t.same([child.jobsDone, child.alive, fake.killed], [2, true, 0]);
  await child.end();
  t.same([child.alive, fake.killed > 0, existsSync(launch.folder)], [false, true, false]);
});

void t.test('whatever goes wrong, the job ends with the reason, and the process is killed', async (t) => {
  const job = { t: 'done', job: 1, result };
  type Case = readonly [what: string, happens: (of: Alone) => void, loss: string, detail: string | RegExp];
  const cases: readonly Case[] = [
    ['an invalid message', ({ fake }) => fake.says({ t: 'what' }), 'protocol', 'it sent an invalid message'],
    ['a second ready', ({ fake }) => fake.ready(), 'protocol', 'it sent an invalid message'],
    ['the end of another job', ({ fake }) => fake.says({ ...job, job: 2 }), 'protocol', 'it sent an invalid message'],
    [
      'early thumbnails of another job',
      ({ fake }) => fake.says({ t: 'early', job: 2, thumbs: [], thumbhash: null }),
      'protocol',
      'it sent an invalid message',
    ],
    ['an exit', ({ fake }) => fake.leave(3), 'exit', 'exit code 3'],
    ['a signal', ({ fake }) => fake.leave(null, 'SIGSEGV'), 'exit', 'SIGSEGV'],
    ['a failure', ({ fake }) => fake.emit('error', new Error('EPERM')), 'exit', 'EPERM'],
    ['time', ({ clock }) => clock.advance(5_000), 'time', 'over 5000 ms'],
  ];
  for (const [what, happens, loss, detail] of cases) {
    const of = alone(t, {}, undefined, 7);
    of.fake.ready();
    const running = of.run();
    happens(of);
    t.same(await running, { kind: 'lost', loss, detail }, what);
    t.ok(of.fake.killed > 0, what);
    await of.child.end();
    t.equal(of.clock.pending, 0, what);
  }
  const twice = alone(t);
  twice.fake.ready();
  const running = twice.run();
  twice.fake.says({ t: 'early', job: 1, thumbs: [early], thumbhash: null });
  twice.fake.says({ t: 'early', job: 1, thumbs: [early], thumbhash: null });
  t.match(await running, { loss: 'protocol' }, 'early thumbnails come once');
  t.equal(twice.shown.length, 1);
  const soon = alone(t);
  soon.fake.says({ t: 'early', job: 1, thumbs: [], thumbhash: null });
  t.match(await soon.child.started, { loss: 'protocol' }, 'the first message is that it is ready');
  const again = alone(t);
  again.fake.ready();
  const once = again.run();
  again.fake.says(job);
  again.fake.says(job);
  t.match(await once, { kind: 'done' });
  await turn();
  t.same([again.child.jobsDone, again.fake.killed > 0], [1, true], 'a job ends once');
  const late = alone(t);
  late.fake.ready();
  late.fake.says(job);
  await turn();
  t.equal(late.fake.killed > 0, true, 'a result that nobody asked for');
});

void t.test('a process that does not start is lost with its job, and says why', async (t) => {
  const slow = alone(t);
  const waiting = slow.run();
  slow.clock.advance(999);
  await turn();
  t.equal(slow.fake.killed, 0);
  slow.clock.advance(1);
  const lost = {
    kind: 'lost',
    loss: 'start',
    detail: 'it was not ready after 1000 ms (origin.thumbs.children.start_limit)',
  };
  t.same([await slow.child.started, await waiting], [lost, lost]);

  const broken = alone(t, {}, undefined, 7);
  broken.fake.stderr.write(`${'x'.repeat(3_000)}the end`);
  await turn();
  broken.fake.leave(1);
  const start = await broken.child.started;
  t.equal(broken.clock.pending, 0);
  const detail = start.kind === 'lost' ? start.detail : '';
  t.match(detail, /^exit code 1 with 7 bytes of data allowed \(origin\.thumbs\.children\.memory_max\) x+$/);
  t.equal(detail.length, 500);
  t.same(await broken.run(), { kind: 'lost', loss: 'start', detail: 'it is gone' }, 'nor does it take another');
  const short = alone(t);
  short.fake.stderr.write('no memory\n');
  await turn();
  short.fake.leave(1);
  t.match(await short.child.started, { detail: 'exit code 1 no memory' });
});

void t.test('a job that nobody needs any more ends, and its process with it', async (t) => {
  const { fake, run, child, clock } = alone(t);
  fake.ready();
  const leaving = new AbortController();
  const running = run(leaving.signal);
  leaving.abort();
  t.same(await running, { kind: 'lost', loss: 'aborted', detail: 'no longer needed' });
  t.ok(fake.killed > 0);
  t.equal(clock.pending, 0);
  const other = alone(t);
  other.fake.ready();
  t.same(await other.run(AbortSignal.abort()), { kind: 'lost', loss: 'aborted', detail: '' });
  t.same([other.fake.killed, other.fake.sent], [0, []], 'one that was left before it began costs nothing');
  const ended = alone(t);
  const waiting = ended.run();
  ended.fake.obeys = false;
  let isOver = false;
  const ending = ended.child.end().then(() => {
    isOver = true;
  });
  t.same(await waiting, { kind: 'lost', loss: 'aborted', detail: 'no longer needed' });
  t.match(await ended.child.started, { loss: 'aborted' });
  await turn();
  t.notOk(isOver, 'until the process is gone');
  ended.fake.leave(null, 'SIGKILL');
  await ending;
  await child.end();
  const unsent = alone(t);
  unsent.fake.ready();
  unsent.fake.sendFailure = new Error('EPIPE');
  t.same(await unsent.run(), { kind: 'lost', loss: 'exit', detail: 'EPIPE' });
});

const canMeasure = readMemory(process.pid) !== undefined;

void t.test(
  'memory and processor time are watched',
  { skip: !canMeasure && 'the system does not tell them' },
  async (t) => {
    // The process that is measured is this one.
    const watched = async (given: Partial<ChildConfig>): Promise<ChildOutcome | 'goes on'> => {
      const { fake, clock, run } = alone(t, given, process.pid);
      fake.ready();
      const running = run();
      t.equal(clock.pending, 2);
      clock.advance(49);
      const early = await Promise.race([running, turn().then(() => 'goes on' as const)]);
      t.equal(early, 'goes on', 'it is looked at every 50 ms');
      for (let n = 0; n < 3; n += 1) clock.advance(50);
      const outcome = await Promise.race([running, turn().then(() => 'goes on' as const)]);
      if (outcome !== 'goes on') t.equal(clock.pending, 0);
      fake.leave(0);
      return outcome;
    };
    t.equal(await watched({}), 'goes on');
    // What it had and used before counts for nothing.
    t.equal(await watched({ memoryMaxBytes: 40 * MiB, cpuLimitMs: 250 }), 'goes on');
    t.match(await watched({ memoryMaxBytes: -1_000 * MiB }), { loss: 'memory', detail: /^\d+ bytes$/ });
    t.match(await watched({ cpuLimitMs: -1 }), { loss: 'cpu', detail: /^\d+ ms of processor time$/ });
    const { child, fake } = alone(t, {}, process.pid);
    fake.ready();
    const start = await child.started;
    t.ok(start.kind === 'ready' && (start.memory?.residentBytes ?? 0) > MiB, 'it is measured before its first picture');
    fake.leave(0);
  },
);

void t.test('a process yields to the others, and finds the libraries of this one', (t) => {
  const before = getPriority();
  alone(t, { niceness: Math.min(19, before + 1) }, process.pid).fake.leave(0);
  t.equal(getPriority(), Math.min(19, before + 1));
  const given = process.env['LD_LIBRARY_PATH'];
  const pathOf = (): string | undefined => alone(t).fake.launch.env['LD_LIBRARY_PATH'];
  process.env['LD_LIBRARY_PATH'] = '/the/libraries';
  t.equal(pathOf(), '/the/libraries');
  delete process.env['LD_LIBRARY_PATH'];
  t.notOk('LD_LIBRARY_PATH' in alone(t).fake.launch.env);
  if (given !== undefined) process.env['LD_LIBRARY_PATH'] = given;
  t.end();
});
