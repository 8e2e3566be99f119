/** The pool of child processes that render. */
import t, { type Test } from 'tap';
import type { ChildConfig, ChildOutcome } from '../../../../origin/thumbs/render/child.js';
import { readMemory } from '../../../../origin/thumbs/render/limits.js';
import { openPool, type RenderPool } from '../../../../origin/thumbs/render/pool.js';
import { ManualClock } from '../../../kit/clock.js';
import { testDeps } from '../../../kit/deps.js';
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
const canMeasure = readMemory(process.pid) !== undefined;

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
  const { launcher, started, refuse } = fakeProcesses(pid);
  const clock = new ManualClock();
  const { log, lines } = testDeps();
  const config = { ...CHILD_CONFIG, count: 2, readyMin: 0, jobsMax: 3, idleMs: 7_000, ...given };
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
  const { started, render, pool, clock } = await measured(t, { jobsMax: 100, readyMin: 1, count: 1 });
  pool.keepReady();
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
  t.equal(started.length, 2, 'none is started in its place');

  const measuring = pooled(t);
  const waiting = measuring.render();
  await turn();
  await measuring.pool.close();
  t.match(await waiting, { kind: 'lost', loss: 'aborted' });
  t.equal(measuring.pool.startFailure(), null, 'what was ended on purpose did not fail');
});
