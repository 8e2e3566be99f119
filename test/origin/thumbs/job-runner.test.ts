/** Claiming jobs from the durable queue: how many run at once, what ends them, and what wakes the runner. */
import t, { type Test } from 'tap';
import type { Job, JobQueue } from '../../../origin/meta/jobs.js';
import { JobRunner } from '../../../origin/thumbs/job-runner.js';
import type { Sha256 } from '../../../src/ids.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { openStores, type Stores, sha256Of } from '../../kit/origin/stores.js';
import { thumbsConfig } from '../../kit/origin/thumb-fixture.js';
import { until } from '../../kit/until.js';

const LEASE_MS = 30_000;
const POLL_MS = 5_000;

interface Running {
  readonly job: Job;
  readonly signal: AbortSignal;
  end(thrown?: Error): void;
}

interface Fixture extends Stores {
  readonly runner: JobRunner;
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** Every run so far, in order. */
  readonly runs: readonly Running[];
  readonly queued: (...names: readonly string[]) => Promise<void>;
}

async function openFixture(
  t: Test,
  jobsMax = 2,
  over: (queue: JobQueue) => Partial<JobQueue> = () => ({}),
): Promise<Fixture> {
  const clock = new ManualClock();
  const { log, lines } = testDeps();
  const stores = await openStores(t.testdir(), clock, { log });
  const { jobs } = stores.meta;
  const runs: Running[] = [];
  const runner = new JobRunner({
    queue: { ...jobs, ...over(jobs) },
    config: { ...thumbsConfig({}).queue, leaseMs: LEASE_MS, pollMs: POLL_MS },
    leaseholder: 'me',
    jobsMax,
    clock,
    log,
    run: (job, signal) =>
      new Promise((resolve, reject) => {
        const end = (thrown?: Error): void => (thrown === undefined ? resolve() : reject(thrown));
        runs.push({ job, signal, end });
        // A process takes a while to end.
        signal.addEventListener('abort', () => setImmediate(() => setImmediate(resolve)), { once: true });
      }),
  });
  t.teardown(async () => {
    await runner.close();
    await stores.close();
  });
  const queued = async (...names: readonly string[]): Promise<void> => {
    for (const name of names) await stores.put(name, { thumbs: { kind: 'queue' } });
  };
  return Object.assign(stores, { runner, lines, runs, queued });
}

const names = (runs: readonly Running[]): readonly Sha256[] => runs.map(({ job }) => job.sha256);
/** Gives the runner the time for what it has begun: transactions are made in their order. */
async function settled({ meta }: Stores): Promise<void> {
  for (let round = 0; round < 3; round += 1) {
    for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
    await meta.probe();
  }
}

void t.test('at most so many jobs run at once, and the end of one begins the next', async (t) => {
  const fixture = await openFixture(t);
  const { runner, runs, queued, meta } = fixture;
  await queued('a', 'b', 'c');
  runner.start();
  await until('two jobs', () => runs.length === 2);
  await settled(fixture);
  t.equal(runs.length, 2);
  t.equal(runner.count, 2);
  t.same([runner.has(sha256Of('a')), runner.has(sha256Of('c'))], [true, false]);
  t.same(await meta.jobs.counts(), { waiting: 1, leased: 2, dead: 0 });
  await meta.jobs.drop(sha256Of('a'));
  runs[0]?.end();
  await until('the third job', () => runs.length === 3);
  t.same(new Set(names(runs)).size, 3);
  t.equal(runner.count, 2);
  await queued('d');
  await settled(fixture);
  t.equal(runs.length, 3, 'a job that is added meanwhile waits');
});

void t.test('a job that is added is begun without waiting for a poll', async (t) => {
  const fixture = await openFixture(t);
  const { runner, runs, queued, clock } = fixture;
  runner.start();
  await settled(fixture);
  t.equal(clock.pending > 0, true, 'it polls');
  await queued('a');
  await until('the job', () => runs.length === 1);
});

void t.test('a job that fails with an error is logged, and frees its place', async (t) => {
  const fixture = await openFixture(t, 1);
  const { runner, runs, queued, meta, lines } = fixture;
  await queued('a', 'b');
  runner.start();
  await until('the first job', () => runs.length === 1);
  await meta.jobs.drop(names(runs)[0] ?? sha256Of('a'));
  runs[0]?.end(new Error('a bug'));
  await until('the second job', () => runs.length === 2);
  t.match(
    lines.filter(({ level }) => level === 'error'),
    [{ msg: 'a thumbnail job ended with an error' }],
  );
});

void t.test('leases are renewed while their jobs run, and a job without its lease is ended', async (t) => {
  let renewals = 0;
  let lost = false;
  let failing = false;
  const fixture = await openFixture(t, 2, (queue) => ({
    async renew(sha256, holder, until) {
      renewals += 1;
      if (failing) throw new Error('the disk fails');
      return lost ? false : queue.renew(sha256, holder, until);
    },
  }));
  const { runner, runs, queued, clock, meta, lines } = fixture;
  await queued('a', 'b');
  runner.start();
  await until('both jobs', () => runs.length === 2);
  for (let third = 1; third <= 6; third += 1) {
    clock.advance(LEASE_MS / 3);
    await until('their renewals', () => renewals === 2 * third);
    await settled(fixture);
  }
  t.same(await meta.jobs.claim('another', 9, clock.now(), 1), [], 'after two leases they are still ours');
  failing = true;
  clock.advance(LEASE_MS / 3);
  await until('the failure', () => lines.some(({ msg }) => msg === 'a lease could not be renewed'));
  t.notOk(
    runs.some(({ signal }) => signal.aborted),
    'a failure of the store ends nobody',
  );
  failing = false;
  lost = true;
  clock.advance(LEASE_MS / 3);
  await until('their end', () => runs.slice(0, 2).every(({ signal }) => signal.aborted));
  t.match(runs[0]?.signal.reason, { message: 'the lease was lost' });
});

void t.test('the job of media that are gone is ended', async (t) => {
  const { runner, runs, meta, put, clock } = await openFixture(t).then((fixture) => ({
    ...fixture,
    put: (name: string) => fixture.put(name, { thumbs: { kind: 'queue' } }),
  }));
  const [one] = [await put('one'), await put('other')];
  runner.start();
  await until('both jobs', () => runs.length === 2);
  await meta.remove(one.record.id, 'eve', clock.now());
  const gone = runs.find(({ job }) => job.sha256 === one.record.sha256);
  await until('its end', () => gone?.signal.aborted === true);
  t.match(gone?.signal.reason, { message: 'its media are gone' });
  t.equal(runs.filter(({ signal }) => signal.aborted).length, 1, 'and no other');
});

void t.test('a pause claims nothing, and ends by itself', async (t) => {
  const fixture = await openFixture(t);
  const { runner, runs, queued, clock } = fixture;
  runner.pause(60_000);
  runner.start();
  await queued('a');
  await settled(fixture);
  for (let poll = 0; poll < 11; poll += 1) {
    clock.advance(POLL_MS);
    await settled(fixture);
  }
  t.equal(runs.length, 0);
  clock.advance(POLL_MS);
  await until('the job', () => runs.length === 1);
});

void t.test('a job that is due later is begun when it is due, before the next poll', async (t) => {
  const fixture = await openFixture(t);
  const { runner, runs, queued, clock, meta } = fixture;
  await queued('a');
  await meta.jobs.claim('me', 1, clock.now(), LEASE_MS);
  await meta.jobs.giveBack(sha256Of('a'), 'me', clock.now() + 1_000);
  runner.start();
  await settled(fixture);
  t.equal(runs.length, 0);
  clock.advance(999);
  await settled(fixture);
  t.equal(runs.length, 0);
  clock.advance(1);
  await until('the job', () => runs.length === 1);
});

void t.test('a queue that cannot be read is read again after a while', async (t) => {
  let failing = true;
  const fixture = await openFixture(t, 2, (queue) => ({
    claim: (...given) => (failing ? Promise.reject(new Error('the disk fails')) : queue.claim(...given)),
  }));
  const { runner, runs, queued, clock, lines } = fixture;
  await queued('a');
  runner.start();
  await until('the failure', () => lines.some(({ msg }) => msg === 'the queue of thumbnail jobs cannot be read'));
  await settled(fixture);
  failing = false;
  clock.advance(POLL_MS);
  await until('the job', () => runs.length === 1);
});

void t.test('closing ends every job and waits for its end, and leaves no timer', async (t) => {
  const fixture = await openFixture(t);
  const { runner, runs, queued, clock } = fixture;
  await queued('a', 'b', 'c');
  runner.start();
  await until('two jobs', () => runs.length === 2);
  let ended = 0;
  for (const { signal } of runs) signal.addEventListener('abort', () => (ended += 1));
  await runner.close();
  t.equal(ended, 2);
  t.equal(runner.count, 0, 'and their ends were awaited');
  t.equal(clock.pending, 0);
  await queued('d');
  await settled(fixture);
  t.equal(runs.length, 2, 'nothing begins any more');
  await runner.close();
});
