/** One child process and the pool of them, seen from their parent: the processes are doubles that a test speaks for. */
import type { ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { getPriority } from 'node:os';
import { PassThrough } from 'node:stream';
import t, { type Test } from 'tap';
import { type Child, type ChildConfig, type ChildOutcome, startChild } from '../../../../origin/thumbs/render/child.js';
import type { Launch, Launcher } from '../../../../origin/thumbs/render/launcher.js';
import { readMemory } from '../../../../origin/thumbs/render/limits.js';
import { openPool, type RenderPool } from '../../../../origin/thumbs/render/pool.js';
import { NO_RENDERED_FACTS, type RenderRequest, type RenderResult } from '../../../../origin/thumbs/render/protocol.js';
import { ManualClock } from '../../../kit/clock.js';
import { testDeps } from '../../../kit/deps.js';
import { thumbsConfig } from '../../../kit/origin/thumb-fixture.js';

const never = new AbortController().signal;
const MiB = 2 ** 20;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A process of which the test says what it does. */
class FakeProcess extends EventEmitter {
  readonly stderr = new PassThrough();
  readonly sent: unknown[] = [];
  readonly launch: Launch;
  pid: number | undefined;
  killed = 0;
  /** Whether it is gone as soon as it is killed. */
  obeys = true;
  sendFailure: Error | null = null;
  #gone = false;

  constructor(launch: Launch, pid: number | undefined) {
    super();
    this.launch = launch;
    this.pid = pid;
  }

  send(message: unknown, sent: (error: Error | null) => void): boolean {
    this.sent.push(message);
    sent(this.sendFailure);
    return true;
  }

  kill(signal: string): boolean {
    t.equal(signal, 'SIGKILL');
    this.killed += 1;
    if (this.obeys) queueMicrotask(() => this.leave(null, 'SIGKILL'));
    return true;
  }

  leave(code: number | null, signal: string | null = null): void {
    if (this.#gone) return;
    this.#gone = true;
    this.emit('close', code, signal);
  }

  says(message: unknown): void {
    this.emit('message', message);
  }

  ready(): void {
    this.says({ t: 'ready' });
  }
}

function fakes(pid?: number) {
  const started: FakeProcess[] = [];
  let refusal: Error | null = null;
  const launcher: Launcher = {
    confinement: { network: 'none', privileges: 'none_gained' },
    start(launch) {
      if (refusal !== null) throw refusal;
      const fake = new FakeProcess(launch, pid);
      started.push(fake);
      return fake as unknown as ChildProcess;
    },
  };
  const refuse = (reason: Error | null): void => {
    refusal = reason;
  };
  return { launcher, started, refuse };
}

const request: RenderRequest = {
  input: 'in',
  folder: 'out',
  upright: false,
  animate: true,
  settings: thumbsConfig(),
};
const result: RenderResult = { kind: 'refused', reason: 'broken_image', facts: NO_RENDERED_FACTS, detail: 'why' };
const early = { variant: '160', format: 'webp', file: '160.webp', width: 1, height: 1, animated: false } as const;
const CONFIG: ChildConfig = {
  ...thumbsConfig().children,
  startLimitMs: 1_000,
  timeLimitMs: 5_000,
  niceness: 0,
  memoryMaxBytes: 10_000 * MiB,
  cpuLimitMs: 1e9,
};

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
  const { launcher, started } = fakes(pid);
  const clock = new ManualClock();
  const folder = t.testdir({});
  const script = new URL('file:///the/worker.js');
  const child = startChild({ script, launcher, folder, config: { ...CONFIG, ...given }, dataMaxBytes }, clock);
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
  fake.says({ t: 'early', job: 1, thumbs: [early] });
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
      ({ fake }) => fake.says({ t: 'early', job: 2, thumbs: [] }),
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
  twice.fake.says({ t: 'early', job: 1, thumbs: [early] });
  twice.fake.says({ t: 'early', job: 1, thumbs: [early] });
  t.match(await running, { loss: 'protocol' }, 'early thumbnails come once');
  t.equal(twice.shown.length, 1);
  const soon = alone(t);
  soon.fake.says({ t: 'early', job: 1, thumbs: [] });
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

// The pool.

interface Pooled {
  readonly pool: RenderPool;
  readonly started: FakeProcess[];
  readonly clock: ManualClock;
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** From now on no process can be started, for this reason. */
  readonly refuse: (reason: Error | null) => void;
  /** The process that was started last, made ready. */
  readonly last: () => FakeProcess;
  readonly render: (priority?: number, signal?: AbortSignal) => Promise<ChildOutcome>;
}

function pooled(t: Test, given: Partial<ChildConfig> = {}, pid?: number): Pooled {
  const { launcher, started, refuse } = fakes(pid);
  const clock = new ManualClock();
  const { log, lines } = testDeps();
  const config = { ...CONFIG, count: 2, readyMin: 0, jobsMax: 3, idleMs: 7_000, ...given };
  const pool = openPool({
    script: new URL('file:///the/worker.js'),
    launcher,
    folder: t.testdir({}),
    config,
    clock,
    log,
  });
  t.teardown(() => pool.close());
  return {
    pool,
    started,
    clock,
    lines,
    refuse,
    last: () => {
      const fake = started.at(-1);
      if (fake === undefined) throw new Error('a process is started');
      fake.ready();
      return fake;
    },
    render: (priority = 1, signal = never) => pool.run(request, priority, signal, () => undefined),
  };
}

/** Ends the job that a process has. */
function done(fake: FakeProcess): void {
  const { job } = fake.sent.at(-1) as { readonly job: number };
  fake.says({ t: 'done', job, result });
}

void t.test(
  'a first process is measured and ended, and those that render are limited by what it had',
  { skip: !canMeasure && 'the system does not tell it' },
  async (t) => {
    const { started, last, render, pool, lines } = pooled(t, { memoryMaxBytes: 1_000 * MiB }, process.pid);
    const running = render();
    await turn();
    t.equal(started[0]?.launch.limits.dataMaxBytes, null);
    const before = readMemory(process.pid)?.dataBytes ?? 0;
    last();
    await turn();
    const after = readMemory(process.pid)?.dataBytes ?? 0;
    t.equal(started.length, 2);
    t.ok((started[0]?.killed ?? 0) > 0, 'it sees no picture');
    const limit = (started[1]?.launch.limits.dataMaxBytes ?? 0) - (1_000 + 128) * MiB;
    t.ok(limit >= Math.min(before, after) && limit <= Math.max(before, after), String(limit));
    done(last());
    t.match(await running, { kind: 'done' });
    const next = render();
    await turn();
    t.equal(started.length, 2, 'it is measured once, and the process is used again');
    done(started[1] as FakeProcess);
    await next;
    t.same(pool.counts(), { children: 1, busy: 0 });
    t.same(lines, [], 'what starts well is not worth a line');
  },
);

/** A pool whose first process has been measured, and that has rendered nothing yet. */
async function measured(t: Test, given: Partial<ChildConfig> = {}): Promise<Pooled> {
  const of = pooled(t, given);
  const first = of.render();
  await turn();
  of.last();
  await turn();
  done(of.last());
  await first;
  return of;
}

void t.test('work beyond the processes waits, and the highest priority goes first', async (t) => {
  const { started, last, render, pool } = await measured(t, { jobsMax: 100 });
  const order: string[] = [];
  const queued = (name: string, priority: number): Promise<unknown> => render(priority).then(() => order.push(name));
  const all = [queued('a', 1), queued('b', 1)];
  await turn();
  const second = last();
  t.equal(started.length, 3, 'a second process for the second picture');
  t.same(pool.counts(), { children: 2, busy: 2 });
  const leaving = new AbortController();
  const left = render(9, leaving.signal);
  all.push(queued('low', 1), queued('high', 5), queued('high too', 5), queued('low too', 1));
  leaving.abort(new Error('left'));
  await t.rejects(left, { message: 'left' });
  for (let n = 0; n < 5; n += 1) {
    done(started[1] as FakeProcess);
    await turn();
  }
  done(second);
  await Promise.all(all);
  t.same(order, ['a', 'high', 'high too', 'low', 'low too', 'b']);
  t.equal(started.length, 3, 'no other process was started');
  t.same(pool.counts(), { children: 2, busy: 0 });
  await t.rejects(render(1, AbortSignal.abort(new Error('too late'))), { message: 'too late' });
});

void t.test('a process is replaced after so many pictures, and after a loss', async (t) => {
  const { started, last, render, pool } = await measured(t, { count: 1, jobsMax: 2 });
  const first = started[1] as FakeProcess;
  const running = render();
  await turn();
  done(first);
  await running;
  await turn();
  t.ok(first.killed > 0, 'two pictures are enough');
  t.same(pool.counts(), { children: 0, busy: 0 });
  const second = render();
  await turn();
  t.equal(started.length, 3);
  last().leave(null, 'SIGSEGV');
  t.match(await second, { kind: 'lost', loss: 'exit' });
  const third = render();
  await turn();
  t.equal(started.length, 4);
  done(last());
  await third;
  // One that ended while it was idle is replaced too.
  started[3]?.leave(1);
  await turn();
  const fourth = render();
  await turn();
  t.equal(started.length, 5);
  done(last());
  t.match(await fourth, { kind: 'done' });
});

void t.test('an idle process ends after a while, unless it gets work', async (t) => {
  const { started, render, clock, pool } = await measured(t, { jobsMax: 100 });
  const fake = started[1] as FakeProcess;
  clock.advance(6_999);
  const running = render();
  await turn();
  clock.advance(4_000);
  t.equal(fake.killed, 0);
  done(fake);
  await running;
  clock.advance(6_999);
  await turn();
  t.equal(fake.killed, 0, 'the time begins anew');
  clock.advance(1);
  await turn();
  t.same([fake.killed > 0, pool.counts()], [true, { children: 0, busy: 0 }]);
  t.equal(clock.pending, 0);
});

void t.test('as many as configured are kept ready, and no more than there may be', async (t) => {
  const { started, last, render, clock, pool } = pooled(t, { readyMin: 5, count: 2, jobsMax: 1 });
  pool.keepReady();
  t.equal(started.length, 1);
  last();
  await turn();
  t.equal(started.length, 3, 'one is measured, and two are kept');
  for (const fake of started.slice(1)) fake.ready();
  t.same(pool.counts(), { children: 2, busy: 0 });
  const running = render();
  await turn();
  const busy = started.slice(1).find(({ sent }) => sent.length > 0) as FakeProcess;
  done(busy);
  await running;
  await turn();
  t.equal(started.length, 4, 'one that had enough pictures is replaced at once');
  started[3]?.ready();
  clock.advance(20_000);
  await turn();
  t.same(pool.counts(), { children: 2, busy: 0 }, 'those that are kept ready do not end when they are idle');
  await pool.close();
  t.equal(
    started.every(({ killed }) => killed > 0),
    true,
  );
  t.same(pool.counts(), { children: 0, busy: 0 });
  t.equal(clock.pending, 0);
});

void t.test('beyond those that are kept ready, idle processes end', async (t) => {
  const { started, last, render, clock, pool } = await measured(t, { readyMin: 1, jobsMax: 100 });
  pool.keepReady();
  await turn();
  t.equal(started.length, 2, 'one runs already');
  const both = [render(), render()];
  await turn();
  const second = last();
  done(second);
  done(started[1] as FakeProcess);
  await Promise.all(both);
  t.equal(started.length, 3);
  clock.advance(6_999);
  t.equal(pool.counts().children, 2);
  clock.advance(1);
  await turn();
  t.equal(pool.counts().children, 1);
  clock.advance(20_000);
  await turn();
  t.equal(pool.counts().children, 1, 'the last one stays');
  const next = render();
  await turn();
  t.equal(started.length, 3, 'it is taken before another one is started');
  done([started[1], second].find((fake) => fake?.killed === 0) as FakeProcess);
  await next;
  await pool.close();
  t.equal(clock.pending, 0, 'no idle timer is left');
});

void t.test('a process that runs is better than one that must be started', async (t) => {
  const { started, last, render } = await measured(t, { jobsMax: 100 });
  const both = [render(), render()];
  await turn();
  const second = last();
  started[1]?.leave(1);
  done(second);
  t.match(await Promise.all(both), [{ loss: 'exit' }, { kind: 'done' }]);
  const next = render();
  await turn();
  t.equal(started.length, 3);
  done(second);
  t.match(await next, { kind: 'done' });
});

void t.test('a system that starts no process is told like one that does not start', async (t) => {
  const { started, last, render, pool, refuse } = pooled(t, { readyMin: 1 });
  refuse(new Error('EAGAIN'));
  pool.keepReady();
  await turn();
  t.equal(pool.startFailure(), null, 'the next job meets the same failure');
  await t.rejects(render(), { message: 'EAGAIN' });
  refuse(null);
  const running = render();
  await turn();
  t.equal(started.length, 1);
  last();
  await turn();
  refuse(new Error('EMFILE'));
  done(last());
  t.match(await running, { kind: 'done' });
  started.at(-1)?.leave(1);
  pool.keepReady();
  await turn();
  t.equal(pool.startFailure(), 'EMFILE');
});

void t.test('a start that fails is told once, until a start succeeds', async (t) => {
  const { started, last, render, pool, lines } = pooled(t);
  for (let n = 0; n < 2; n += 1) {
    const failing = render();
    await turn();
    started.at(-1)?.leave(127);
    t.match(await failing, { kind: 'lost', loss: 'start', detail: 'exit code 127' });
    t.equal(pool.startFailure(), 'exit code 127');
  }
  t.same(
    lines.map(({ level, detail }) => [level, detail]),
    [[lines[0]?.['level'], 'exit code 127']],
  );
  const running = render();
  await turn();
  t.equal(started.length, 3, 'it is measured again');
  last();
  await turn();
  // The measured one was fine. The next one fails, as it would under a limit that is too small.
  started.at(-1)?.leave(1);
  t.match(await running, { loss: 'start' });
  t.equal(pool.startFailure(), 'exit code 1');
  const again = render();
  await turn();
  t.equal(started.at(-1)?.launch.limits.dataMaxBytes, null, 'so the limit is measured anew');
  last();
  await turn();
  done(last());
  t.match(await again, { kind: 'done' });
  t.equal(pool.startFailure(), null);
  t.match(
    lines.map(({ msg }) => msg),
    [/does not start/, /start again/, /does not start/, /start again/],
  );
});

void t.test('a pool that closes ends all its work', async (t) => {
  const { started, render, pool, clock } = await measured(t, { jobsMax: 100 });
  const running = render();
  await turn();
  let closed = false;
  const fake = started[1] as FakeProcess;
  fake.obeys = false;
  const closing = pool.close().then(() => {
    closed = true;
  });
  t.match(await running, { kind: 'lost', loss: 'aborted' });
  await turn();
  t.notOk(closed, 'it waits until the process is gone');
  fake.leave(null, 'SIGKILL');
  await closing;
  t.same(pool.counts(), { children: 0, busy: 0 });
  t.equal(clock.pending, 0);

  const measuring = pooled(t);
  const waiting = measuring.render();
  await turn();
  await measuring.pool.close();
  t.match(await waiting, { kind: 'lost', loss: 'aborted' });
  t.equal(measuring.pool.startFailure(), null, 'what was ended on purpose did not fail');
});
