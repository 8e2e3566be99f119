/** The engine over a queue, records and processes as doubles: how each job ends, who waits for it, and what is counted. */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { NO_PLACE } from '../../../origin/blobs/blob-store.js';
import type { Job, JobQueue } from '../../../origin/meta/jobs.js';
import { type BlobRecord, NO_FACTS, type ThumbState } from '../../../origin/meta/media.js';
import { ONE_ORIGIN } from '../../../origin/meta/origins.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { openThumbs } from '../../../origin/thumbs/engine.js';
import { Fault } from '../../../src/errors.js';
import type { Sha256 } from '../../../src/ids.js';
import { newTrace } from '../../../src/tracing/context.js';
import type { Span, Tracer } from '../../../src/tracing/tracer.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { fakeProcesses } from '../../kit/origin/doubles/process.js';
import { thumbsConfig } from '../../kit/origin/thumb-fixture.js';
import { until } from '../../kit/until.js';

const ONE = '1'.repeat(64) as Sha256;
const TWO = '2'.repeat(64) as Sha256;
const never = new AbortController().signal;
const QUEUE = { attempts_max: 3, backoff: '8s', backoff_max: '10m', lease: '60s', poll: '1h' };
const LEASEHOLDER = `engine-${process.pid}-80000000`;
/** With a random number of a half, a wait is three quarters of the whole. */
const BACKOFF_MS = 6_000;

const jobOf = (sha256: Sha256, given: Partial<Job> = {}): Job => ({
  sha256,
  priority: 'upload',
  owner: 'ann',
  turn: 1,
  queuedAt: 0,
  readyAt: 0,
  attempts: 0,
  lease: null,
  ...given,
});

const blobOf = (sha256: Sha256, mime: string, thumbs: ThumbState = { kind: 'pending' }): BlobRecord => ({
  sha256,
  place: NO_PLACE,
  sizeBytes: 12,
  mime,
  storedAt: 0,
  picture: NO_FACTS,
  thumbs,
  quarantine: null,
});

type Found = (sha256: Sha256) => Promise<BlobRecord | undefined>;

interface Given {
  readonly find?: Found;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly others?: JobQueue['others'];
  readonly tracer?: Tracer;
}

/** A kind of failure that is not the picture's. */
const failure = (code: string): Error => Object.assign(new Error(`${code}: it failed`), { code });

async function setUp(t: Test, given: Given = {}) {
  const stageFolder = t.testdir({ 'thumb-old': {}, 'thumb-older': { in: '' }, 'an upload': '' });
  const clock = new ManualClock(1_000_000);
  const { log, lines, metrics, sample } = testDeps();
  const { launcher, started, refuse } = fakeProcesses();
  const queued: Job[] = [];
  const calls: unknown[][] = [];
  const added = new Set<() => void>();
  const ended = new Set<(sha256: Sha256) => void>();
  const call =
    (name: string) =>
    async (...args: readonly unknown[]): Promise<void> =>
      void calls.push([name, ...args]);
  const listen =
    <T>(to: Set<T>) =>
    (listener: T) => {
      to.add(listener);
      return () => void to.delete(listener);
    };
  const jobs = {
    claim: async (holder: string, limit: number) => {
      if (holder !== LEASEHOLDER) throw new Error(`${holder} is not the engine`);
      return queued.splice(0, limit);
    },
    nextReadyAt: async () => (queued.length === 0 ? null : 0),
    others: given.others ?? null,
    renew: async () => true,
    lift: call('lift'),
    drop: call('drop'),
    retry: call('retry'),
    giveBack: call('giveBack'),
    bury: call('bury'),
    onAdded: listen(added),
    onEnded: listen(ended),
  } as unknown as JobQueue;
  let find: Found = given.find ?? (async () => undefined);
  const meta = {
    jobs,
    origins: ONE_ORIGIN,
    findBlob: (sha256: Sha256) => find(sha256),
    finishThumbs: async (...args: readonly unknown[]) => {
      await call('finish')(...args);
      return true;
    },
  } as unknown as MetaStore;
  const original = join(stageFolder, 'an upload');
  const blobs = { stageFolder, fileOf: () => original, stat: async () => 12 } as never;
  const engine = await openThumbs({
    config: thumbsConfig({ queue: QUEUE, video: { enabled: false }, ...given.config }),
    meta,
    blobs,
    launcher,
    log,
    metrics,
    clock,
    random: () => 0.5,
    ...(given.tracer !== undefined && { tracer: given.tracer }),
  });
  t.teardown(() => engine.close());
  return {
    engine,
    clock,
    calls,
    lines,
    sample,
    started,
    refuse,
    stageFolder,
    ended,
    added,
    finds: (next: Found): void => {
      find = next;
    },
    /** Has the engine run these jobs, and waits until so many ends were recorded. */
    run: async (jobsNow: readonly Job[], ends = calls.length + jobsNow.length): Promise<void> => {
      queued.push(...jobsNow);
      for (const listener of added) listener();
      await until('the ends of the jobs', () => calls.length >= ends);
    },
  };
}

void t.test('what is asked of an engine before there is any job', async (t) => {
  const { engine, stageFolder } = await setUp(t);
  t.same(readdirSync(stageFolder), ['an upload'], 'what a killed process left is removed');
  t.ok(engine.accepts('image/png'));
  t.notOk(engine.accepts('video/mp4'), 'without its programs');
  t.notOk(engine.accepts('text/plain'));
  t.equal(engine.unavailable(), null);
  const { types, ...others } = engine.capabilities();
  t.match(others, { animated: true, video: { available: false, reason: 'switched off' } });
  t.ok(types.includes('image/png') && !types.includes('video/mp4'));
  t.same(engine.early(ONE), []);
  t.same(await engine.wait(ONE, 0, never), { kind: 'none', reason: 'failed' }, 'there is no such blob');

  const off = await setUp(t, { config: { enabled: false, animation: { enabled: false } } });
  t.equal(off.engine.unavailable(), 'switched off');
  t.equal(off.added.size + off.ended.size, 0, 'it takes no jobs');
  t.notOk(off.engine.capabilities().animated);
});

void t.test('a job is a trace of its own', async (t) => {
  const spans: Span[] = [];
  const traces = [newTrace(true), newTrace(false)];
  const tracer: Tracer = {
    begin: () => traces.shift() ?? newTrace(false),
    record: (span) => void spans.push(span),
    current: () => undefined,
    within: (_trace, work) => work(),
    close: async () => undefined,
  };
  const { run } = await setUp(t, { find: async () => undefined, tracer });
  const job = { sha256: ONE, attempts: 0 } as Job;
  await run([job]);
  await until('its span', () => spans.length === 1);
  await run([job]);
  t.match(spans, [{ name: 'thumbnail render', kind: 'internal', attributes: { 'media.sha256': ONE }, failed: false }]);
});

void t.test('each end of a job is recorded, counted and logged', async (t) => {
  const throwing = (thrown: Error) => async (): Promise<never> => {
    throw thrown;
  };
  const refused = (reason: string) => ['finish', ONE, { kind: 'refused', reason, picture: NO_FACTS }, LEASEHOLDER];
  const given = (delayMs: number) => ['giveBack', ONE, LEASEHOLDER, 1_000_000 + delayMs];
  for (const [what, job, find, call, end, verdict, logged] of [
    [
      'of no picture',
      {},
      async () => blobOf(ONE, 'text/plain'),
      refused('unsupported_type'),
      'refused',
      'finish',
      'no thumbnail',
    ],
    [
      'too large',
      {},
      async () => ({ ...blobOf(ONE, 'image/png'), sizeBytes: 1e9 }),
      refused('too_expensive'),
      'refused',
      'finish',
      'no thumbnail',
    ],
    ['gone', {}, async () => undefined, ['drop', ONE], 'gone', 'drop', 'a thumbnail job has lost its media'],
    [
      'a bug',
      {},
      throwing(new Error('a bug')),
      ['retry', ONE, LEASEHOLDER, 1_000_000 + BACKOFF_MS, null],
      'faulty',
      'retry',
      'a thumbnail job goes back to the queue',
    ],
    [
      'a bug again',
      { attempts: 1 },
      throwing(new Error('a bug')),
      ['retry', ONE, LEASEHOLDER, 1_000_000 + 2 * BACKOFF_MS, null],
      'faulty',
      'retry',
      'a thumbnail job goes back to the queue',
    ],
    [
      'a bug for the last time',
      { attempts: 2 },
      throwing(new Error('a bug')),
      ['bury', ONE, 'a bug', 1_000_000, 'failed'],
      'faulty',
      'bury',
      'a thumbnail job is given up',
    ],
    [
      'cut off each time',
      { attempts: 3 },
      throwing(failure('EIO')),
      ['bury', ONE, 'every attempt was cut off', 1_000_000, 'failed'],
      'faulty',
      'bury',
      'a thumbnail job is given up',
    ],
    [
      'the storage',
      {},
      throwing(new Fault('storage_unavailable', 'Away.')),
      given(BACKOFF_MS),
      'untried',
      'give_back',
      'a thumbnail job goes back to the queue',
    ],
    ...['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'EROFS', 'EIO', 'EACCES', 'ENOMEM', 'EAGAIN'].map(
      (code) =>
        [
          code,
          {},
          throwing(failure(code)),
          given(BACKOFF_MS),
          'untried',
          'give_back',
          'a thumbnail job goes back to the queue',
        ] as const,
    ),
    [
      'another error',
      {},
      throwing(failure('EINVAL')),
      ['retry', ONE, LEASEHOLDER, 1_000_000 + BACKOFF_MS, null],
      'faulty',
      'retry',
      'a thumbnail job goes back to the queue',
    ],
  ] as const) {
    const { run, calls, lines, sample, engine } = await setUp(t, { find });
    await run([jobOf(ONE, job)]);
    t.same(calls, [call], what);
    await engine.close();
    const reason = call[0] === 'finish' ? (call[2] as { readonly reason: string }).reason : '';
    t.equal(await sample(`thumbs_attempts_total{end="${end}",reason="${reason}"}`), 1, what);
    t.equal(await sample(`thumbs_verdicts_total{verdict="${verdict}"}`), 1, what);
    t.equal(await sample('thumbs_attempt_seconds_count'), 1);
    t.equal(await sample('thumbs_job_age_seconds_count'), verdict === 'finish' ? 1 : 0);
    if (verdict === 'finish') t.equal(await sample('thumbs_job_age_seconds_sum'), 1_000);
    const line = lines.find(({ msg }) => msg === logged);
    t.match(line, { sha256: ONE, attempt: jobOf(ONE, job).attempts + 1, end }, what);
  }
});

void t.test('after a failure that the next job would meet too, none is begun for a while', async (t) => {
  let looked = 0;
  const { run, clock, calls, finds } = await setUp(t, {
    find: async () => {
      looked += 1;
      throw failure('ENOSPC');
    },
  });
  await run([jobOf(ONE)]);
  finds(async () => {
    looked += 1;
    return undefined;
  });
  const later = run([jobOf(TWO)]);
  await clock.timerSet(8_000);
  t.equal(looked, 1);
  clock.advance(8_000);
  await later;
  t.same(calls[1], ['drop', TWO]);

  const bug = await setUp(t, {
    find: async () => {
      throw new Error('a bug');
    },
  });
  await bug.run([jobOf(ONE)]);
  await bug.run([jobOf(TWO)]);
  t.equal(bug.calls.length, 2, 'a failure of one picture holds up no other');
});

void t.test('a picture that takes too long goes behind all others, and may be asked for again', async (t) => {
  const { run, calls, clock, started, engine, sample, stageFolder } = await setUp(t, {
    find: async () => blobOf(ONE, 'image/png'),
    config: { children: { time_limit: '40s', start_limit: '20s', count: 1 } },
  });
  writeFileSync(join(stageFolder, 'an upload'), 'the original');
  await engine.prioritize(ONE);
  await engine.prioritize(ONE);
  t.same(calls, [['lift', ONE, 'asked']], 'it is asked for once');
  const running = run([jobOf(ONE)], 2);
  await until('the process', () => started.length === 1);
  started[0]?.ready();
  await until('the picture', () => (started.at(-1)?.sent.length ?? 0) > 0 || started.length > 1);
  started.at(-1)?.ready();
  await until('the picture', () => (started.at(-1)?.sent.length ?? 0) > 0);
  t.equal(await sample('thumbs_jobs_in_hand'), 1);
  t.equal(await sample('thumbs_children{state="busy"}'), 1);
  await engine.prioritize(ONE);
  t.equal(calls.length, 1, 'while it runs there is nothing to hurry');
  await clock.timerSet(40_000);
  clock.advance(40_000);
  await running;
  t.match(calls[1], ['retry', ONE, LEASEHOLDER, Number, 'backfill']);
  await until('the end of the job', () => calls.length === 2);
  let asked = 2;
  while (calls.length === 2 && asked < 100) {
    await engine.prioritize(ONE);
    await new Promise(setImmediate);
    asked += 1;
  }
  t.same(calls[2], ['lift', ONE, 'asked'], 'who asks again lifts it again');
});

void t.test('the last attempt makes stills, since a picture may fail by its frames', async (t) => {
  for (const [attempts, attemptsMax, animate] of [
    [0, 3, true],
    [1, 3, true],
    [2, 3, false],
    [0, 1, true],
  ] as const) {
    const { run, started } = await setUp(t, {
      find: async () => blobOf(ONE, 'image/png'),
      config: { queue: { ...QUEUE, attempts_max: attemptsMax }, children: { count: 1 } },
    });
    const running = run([jobOf(ONE, { attempts })]);
    await until('the process', () => started.length === 1);
    started[0]?.ready();
    await until('another one, or the picture', () => started.length > 1 || (started[0]?.sent.length ?? 0) > 0);
    if (started.length > 1) started[1]?.ready();
    await until('the picture', () => (started.at(-1)?.sent.length ?? 0) > 0);
    t.match(started.at(-1)?.sent[0], { t: 'render', request: { animate } }, `attempt ${attempts} of ${attemptsMax}`);
    started.at(-1)?.leave(1);
    await running;
  }
});

void t.test('who waits for a thumbnail is told as soon as its job ends, however it ends', async (t) => {
  let state: ThumbState = { kind: 'pending' };
  const find: Found = async (sha256) => blobOf(sha256, 'text/plain', state);
  const { engine, run, ended, clock, sample } = await setUp(t, { find });
  t.same(await engine.wait(ONE, 0, never), { kind: 'pending' });
  const first = engine.wait(ONE, 5_000, never);
  const early = engine.waitForEarly(ONE, 5_000, never);
  await until('both to wait', () => clock.pending >= 2);
  t.equal(await sample('thumbs_waiting_requests'), 2);
  state = { kind: 'none', reason: 'unsupported_type' };
  await run([jobOf(ONE)]);
  t.same(await first, state);
  t.same(await early, state);

  state = { kind: 'pending' };
  const second = engine.wait(TWO, 5_000, never);
  const other = engine.waitForEarly(TWO, 5_000, never);
  await until('both to wait', () => clock.pending >= 2);
  state = { kind: 'none', reason: 'failed' };
  for (const listener of ended) listener(TWO);
  t.same([await second, await other], [state, state], 'also where its media are gone');

  state = { kind: 'pending' };
  const third = engine.wait(ONE, 5_000, never);
  await clock.timerSet(5_000);
  clock.advance(5_000);
  t.same(await third, state, 'and after the time it is told that nothing has come');
});

void t.test('media that are asked for are lifted once until their job ends', async (t) => {
  const { engine, calls, ended, run } = await setUp(t);
  const lifts = () => calls.filter(([name]) => name === 'lift').length;
  await engine.prioritize(ONE);
  await engine.prioritize(ONE);
  await engine.prioritize(TWO);
  t.equal(lifts(), 2);
  for (const listener of ended) listener(ONE);
  await engine.prioritize(ONE);
  t.equal(lifts(), 3);
  await run([jobOf(ONE)]);
  await until('its end', () => calls.some(([name]) => name === 'drop'));
  await engine.close();
  await engine.prioritize(ONE);
  t.equal(lifts(), 4);
});

void t.test('no more than so many that were asked for are remembered', async (t) => {
  const { engine, calls } = await setUp(t);
  await engine.prioritize(ONE);
  for (let index = 1; index < 10_000; index += 1) await engine.prioritize(`${index}` as Sha256);
  await engine.prioritize(ONE);
  t.equal(calls.length, 10_000);
  await engine.prioritize(TWO);
  await engine.prioritize(ONE);
  t.equal(calls.length, 10_002, 'beyond that all are forgotten');
});

void t.test('closing gives running jobs back at once, and waits for that', async (t) => {
  let fail: (thrown: Error) => void = () => undefined;
  const { engine, run, calls, ended, lines } = await setUp(t, {
    find: () =>
      new Promise((_, reject) => {
        fail = reject;
      }),
  });
  const running = run([jobOf(ONE, { attempts: 1 })]);
  await until('the look', () => fail.length > 0);
  let closed = false;
  const closing = engine.close().then(() => {
    closed = true;
  });
  t.equal(ended.size, 0, 'it listens no longer');
  await new Promise(setImmediate);
  t.notOk(closed);
  fail(new Error('interrupted'));
  await closing;
  await running;
  t.same(calls, [['giveBack', ONE, LEASEHOLDER, 1_000_000]]);
  t.match(
    lines.find(({ msg }) => msg === 'a thumbnail job is broken off'),
    { level: 'debug' },
  );
});

void t.test('processes that do not start are said, and none is blamed on a picture', async (t) => {
  const { engine, run, calls, started, refuse, sample } = await setUp(t, {
    find: async () => blobOf(ONE, 'image/png'),
    config: { children: { count: 1 } },
  });
  t.equal(await sample('thumbs_children_start_failing'), 0);
  const running = run([jobOf(ONE, { attempts: 2 })]);
  await until('the start', () => started.length === 1);
  started[0]?.emit('error', failure('EAGAIN'));
  await running;
  t.same(calls, [['giveBack', ONE, LEASEHOLDER, 1_000_000 + 4 * BACKOFF_MS]]);
  t.equal(engine.unavailable(), 'the processes that render do not start');
  t.equal(await sample('thumbs_children_start_failing'), 1);
  t.equal(await sample('thumbs_attempts_total{end="lost",reason="start"}'), 1);

  // Node throws what the system says of a lack of memory, and of little else.
  const full = await setUp(t, { find: async () => blobOf(ONE, 'image/png') });
  full.refuse(failure('ENOMEM'));
  await full.run([jobOf(ONE, { attempts: 2 })]);
  t.same(full.calls, [['giveBack', ONE, LEASEHOLDER, 1_000_000 + 4 * BACKOFF_MS]]);
  refuse(null);
});

void t.test('an upload is told the thumbhash if it is known in time, and never waits without hope', async (t) => {
  const state: { thumbs: ThumbState; thumbhash: string | null } = { thumbs: { kind: 'pending' }, thumbhash: null };
  const find: Found = async (sha256) => {
    const blob = blobOf(sha256, 'image/png', state.thumbs);
    return blob === undefined ? blob : { ...blob, picture: { ...blob.picture, thumbhash: state.thumbhash } };
  };
  const { engine, clock, ended } = await setUp(t, { find });
  const hash = (mime = 'image/png'): Promise<string | null> => engine.hashOfUpload({ sha256: ONE, mime }, never);
  t.equal(await hash('video/mp4'), null, 'a film takes longer');
  t.equal(await hash('text/plain'), null);

  const inTime = hash();
  await clock.timerSet(250);
  state.thumbs = { kind: 'ready', made: [] };
  state.thumbhash = 'hash';
  for (const listener of ended) listener(ONE);
  t.equal(await inTime, 'hash');
  t.equal(await hash(), 'hash', 'at once, if it is recorded');

  state.thumbs = { kind: 'pending' };
  state.thumbhash = null;
  const late = hash();
  await clock.timerSet(250);
  clock.advance(250);
  t.equal(await late, null);
  t.equal(
    await engine.hashOfUpload({ sha256: ONE, mime: 'image/png' }, AbortSignal.abort()).catch(() => 'left'),
    'left',
  );
});
