/** The sweeper over stores of which the test sees every call. */

import { createHash } from 'node:crypto';
import t, { type Test } from 'tap';
import { type BlobRecord, NO_FACTS } from '../../../origin/meta/media.js';
import { type Duties, ownDuties } from '../../../origin/meta/origins/duties.js';
import { type RetentionConfig, retentionSection } from '../../../origin/retention-rules.js';
import { openSweeper, type SweeperDeps } from '../../../origin/upkeep/sweeper.js';
import type { Sha256 } from '../../../src/ids.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { mediaKey, PLACE } from '../../kit/origin/keys.js';
import { until } from '../../kit/until.js';

const never = new AbortController().signal;
const sha256Of = (text: string): Sha256 => createHash('sha256').update(text).digest('hex') as Sha256;

const MINUTE = 60_000;
const MINUTES_10 = 600_000;
const HOUR = 60 * MINUTE;

interface Sweeping {
  readonly config?: Partial<RetentionConfig>;
  /** How much each act does when it is asked again and again; then nothing. */
  readonly does?: Readonly<Record<string, readonly number[]>>;
  readonly room?: readonly string[];
  /** Acts that fail. */
  readonly failing?: readonly string[];
  readonly duties?: Duties;
  /** How long each part of a walk takes. */
  readonly partMs?: number;
}

function sweeping(
  t: Test,
  { config = {}, does = {}, room = [], failing = [], duties = ownDuties(), partMs = 0 }: Sweeping = {},
) {
  const clock = new ManualClock(1_000 * HOUR);
  const calls: string[] = [];
  const left = new Map(Object.entries(does).map(([name, counts]) => [name, [...counts]]));
  const rooms = [...room];
  const folder = t.testdir({});
  /** `onStage` is called before the stage is cleared, which is the last step. */
  const watch: { onStage: () => void; held: Promise<void>; parts: number } = {
    parts: 0,
    onStage: () => undefined,
    /** A step that waits for it. */
    held: Promise.resolve(),
  };
  /** An instant is shown as its distance from now. */
  const did = (name: string, at: number, limit?: number): number => {
    calls.push([name, at - clock.now(), ...(limit === undefined ? [] : [limit])].join(' '));
    if (failing.includes(name)) throw new Error(`${name} fails`);
    return left.get(name)?.shift() ?? 0;
  };
  const keys = (count: number) => Array.from({ length: count }, () => mediaKey(sha256Of('replaced')));
  const ids = (count: number) => Array.from({ length: count }, () => 'id' as never);
  const blob = (n: number): BlobRecord => ({
    sha256: sha256Of(String(n)),
    place: PLACE,
    sizeBytes: 10,
    mime: 'image/png',
    storedAt: 0,
    picture: NO_FACTS,
    thumbs: { kind: 'none', reason: 'failed' },
    quarantine: null,
  });
  const { log, metrics, lines, sample } = testDeps();
  const deps: SweeperDeps = {
    config: { ...configured(retentionSection), stepMax: 2, graceMs: HOUR, tombstonesMs: 3 * HOUR, ...config },
    quota: { periodMs: 24 * HOUR },
    meta: {
      expireDue: async (now, limit) => ids(did('expire', now, limit)),
      expireUnused: async (before, now, limit) => ids(did('unused', before, limit) + (now - clock.now())),
      forgetTombstones: async (before, limit) => did('forget', before, limit),
      forgetUsage: async (before) => {
        const forgotten = did('usage', before);
        await watch.held;
        return forgotten;
      },
      unreferencedBlobs: async (before, limit) => Array.from({ length: did('free', before, limit) }, (_, n) => blob(n)),
      forgetBlob: async (sha256) => [mediaKey(sha256)],
      leftBehind: async (given) => given,
      duties,
      trash: async (before, limit) => keys(did('trash', before, limit)),
      emptied: async () => undefined,
    },
    blobs: {
      get stageFolder() {
        watch.onStage();
        return folder;
      },
      remove: async () => undefined,
      async *list(prefix) {
        watch.parts += 1;
        if (prefix.endsWith('/00')) calls.push(`walk ${prefix}`);
        if (prefix === 'media/00')
          yield { key: mediaKey(sha256Of('orphan')), sizeBytes: 5, storedAt: clock.now() - 2 * HOUR };
        if (prefix === 'media/00')
          yield { key: mediaKey(sha256Of('young')), sizeBytes: 5, storedAt: clock.now() - HOUR };
      },
    },
    room: { state: async () => (rooms.shift() ?? 'enough') as never },
    clock: {
      now: () => clock.now(),
      monotonicMs: () => clock.monotonicMs() + watch.parts * partMs,
      after: (delayMs, run) => clock.after(delayMs, run),
    },
    log,
    metrics,
  };
  const sweeper = openSweeper(deps);
  t.teardown(() => sweeper.close());
  return { sweeper, clock, calls, lines, sample, watch, config: deps.config };
}

void t.test('a sweep does each step until nothing of its kind is due', async (t) => {
  const { sweeper, calls, sample, lines } = sweeping(t, {
    config: { unusedForMs: 5 * HOUR, usedLateMaxMs: HOUR },
    does: { expire: [2, 2, 1], unused: [2, 0], forget: [2, 1], usage: [3], free: [2, 2, 1], trash: [2, 1] },
  });
  const report = await sweeper.sweep(never);
  t.same(report, {
    expired: 5,
    unused: 2,
    forgotten: 3,
    blobs: 9,
    thumbs: 0,
    parts: 0,
    bytes: 55,
    orphans: 1,
    staged: 0,
  });
  t.same(calls, [
    'expire 0 2',
    'expire 0 2',
    'expire 0 2',
    `unused ${-6 * HOUR} 2`,
    `unused ${-6 * HOUR} 2`,
    `forget ${-3 * HOUR} 2`,
    `forget ${-3 * HOUR} 2`,
    `usage ${-48 * HOUR}`,
    `free ${-HOUR} 2`,
    `free ${-HOUR} 2`,
    `free ${-HOUR} 2`,
    `trash ${-MINUTES_10} 2`,
    `trash ${-MINUTES_10} 2`,
    'walk media/00',
    'walk thumb/00',
    'walk part/00',
  ]);
  t.equal(await sample('retention_total{what="expired"}'), 5);
  t.equal(await sample('retention_total{what="blobs"}'), 9);
  t.equal(await sample('retention_freed_bytes_total'), 55);
  t.match(lines, [{ msg: 'swept', expired: 5 }]);
});

void t.test('the whole store is walked rarely, and media that nobody uses are kept unless that is set', async (t) => {
  const { sweeper, clock, calls, config } = sweeping(t);
  const swept = async (): Promise<string> => {
    calls.length = 0;
    await sweeper.sweep(never);
    return calls.map((call) => call.split(' ')[0]).join(' ');
  };
  t.equal(await swept(), 'expire forget usage free trash walk walk walk');
  clock.advance(1);
  t.equal(await swept(), 'expire forget usage free trash');
  const other = sweeping(t, {
    config: { sweepEveryMs: 10 * config.orphansEveryMs, expireEveryMs: 10 * config.orphansEveryMs },
  });
  await other.sweeper.sweep(never);
  for (const [waitMs, walks] of [
    [config.orphansEveryMs - 1, 0],
    [1, 3],
    [config.orphansEveryMs - 1, 0],
  ] as const) {
    other.clock.advance(waitMs);
    other.calls.length = 0;
    await other.sweeper.sweep(never);
    t.equal(other.calls.filter((call) => call.startsWith('walk')).length, walks, String(waitMs));
  }
});

void t.test('an origin sweeps only its own stage while another does the rest', async (t) => {
  const here = sweeping(t, { duties: { ...ownDuties(), take: async () => false }, does: { expire: [1] } });
  t.match(await here.sweeper.sweep(never), { expired: 0, orphans: 0 });
  await here.clock.advanceAsync(here.config.expireEveryMs);
  t.same(here.calls, []);
});

void t.test('a walk over the store goes on where another origin, or the last sweep, has left it', async (t) => {
  const duties = ownDuties();
  await duties.keepNote('walk', { begunAt: 0, parts: 256 });
  const { sweeper, calls } = sweeping(t, { duties });
  await sweeper.sweep(never);
  t.same(
    calls.filter((call) => call.startsWith('walk')),
    ['walk thumb/00', 'walk part/00'],
  );
  t.match(await duties.note('walk'), { parts: 768 });

  const long = sweeping(t, { config: { sweepEveryMs: 40 }, partMs: 10 });
  await long.sweeper.sweep(never);
  t.equal(long.watch.parts, 5);
  await long.sweeper.sweep(never);
  t.equal(long.watch.parts, 10, 'the next sweep goes on');
});

void t.test('a step that fails is counted, and the others are done', async (t) => {
  const { sweeper, calls, sample, lines } = sweeping(t, { failing: ['forget', 'free'], does: { expire: [1] } });
  t.match(await sweeper.sweep(never), { expired: 1, forgotten: 0, orphans: 1 });
  t.same(
    calls.map((call) => call.split(' ')[0]),
    ['expire', 'forget', 'usage', 'free', 'trash', 'walk', 'walk', 'walk'],
  );
  t.equal(await sample('retention_failures_total{step="forget tombstones"}'), 1);
  t.equal(await sample('retention_failures_total{step="free blobs"}'), 1);
  t.match(
    lines.map(({ msg }) => msg),
    ['a step of the sweep failed', 'a step of the sweep failed', 'swept'],
  );
});

void t.test(
  'without room nothing is kept for its grace period, and with full records tombstones go early',
  async (t) => {
    // The room is asked for once by the tombstones, and then by each step that frees blobs.
    const full = sweeping(t, { room: ['full', 'full', 'enough'], does: { free: [2, 0] } });
    await full.sweeper.sweep(never);
    t.same(
      full.calls.filter((call) => call.startsWith('free')),
      ['free 1 2', `free ${-HOUR} 2`],
    );

    const records = sweeping(t, {
      config: { stepMax: 100 },
      room: ['records_full', 'records_full', 'enough'],
      does: { forget: [7, 16, 3] },
    });
    t.match(await records.sweeper.sweep(never), { forgotten: 26 });
    t.same(
      records.calls.filter((call) => call.startsWith('forget')),
      [`forget ${-3 * HOUR} 100`, 'forget 0 16', 'forget 0 16'],
    );
    const small = sweeping(t, {
      room: Array.from({ length: 9 }, () => 'records_full'),
      does: { forget: [0, 2, 0, 5] },
    });
    t.match(await small.sweeper.sweep(never), { forgotten: 2 }, 'until there is none left');
    t.same(
      small.calls.filter((call) => call.startsWith('forget')),
      [`forget ${-3 * HOUR} 2`, 'forget 0 2', 'forget 0 2'],
    );
  },
);

void t.test('an upload that finds no room has some made at once, and all that wait share it', async (t) => {
  const { sweeper, calls, sample, lines } = sweeping(t, {
    config: { stepMax: 100 },
    does: { free: [3, 1], forget: [4] },
    room: ['records_full', 'enough'],
  });
  await Promise.all([sweeper.relieve(), sweeper.relieve()]);
  t.same(calls, ['free 1 32', 'forget 0 16']);
  t.equal(await sample('retention_total{what="blobs"}'), 3);
  t.equal(await sample('retention_total{what="forgotten"}'), 4);
  t.match(lines, [{ msg: 'swept', blobs: 3, forgotten: 4 }]);
  await sweeper.relieve();
  t.same(calls.slice(2), ['free 1 32'], 'the next one begins anew');
  const failing = sweeping(t, { failing: ['free'] });
  await failing.sweeper.relieve();
  await failing.sweeper.relieve();
  t.equal(await failing.sample('retention_failures_total{step="relieve"}'), 2);
});

void t.test('sweeps come regularly, expiries more often, and both end with the sweeper', async (t) => {
  const { sweeper, clock, calls, lines, sample } = sweeping(t, {
    config: { sweepEveryMs: MINUTE, expireEveryMs: 25_000 },
    does: { expire: [1] },
  });
  await clock.advanceAsync(24_999);
  t.same(calls, []);
  await clock.advanceAsync(1);
  await until('both timers are set', () => clock.pending === 2);
  t.same(calls.splice(0), ['expire 0 2']);
  t.equal(await sample('retention_total{what="expired"}'), 1);
  t.match(lines, [{ msg: 'swept', expired: 1 }]);
  await clock.advanceAsync(25_000);
  await until('both timers are set', () => clock.pending === 2);
  t.same(calls.splice(0), ['expire 0 2']);
  t.equal(lines.length, 1, 'what does nothing says nothing');
  await clock.advanceAsync(10_000);
  await until('both timers are set', () => clock.pending === 2);
  t.equal(calls.splice(0).length, 8, 'a whole sweep');
  await clock.advanceAsync(MINUTE);
  await until('both timers are set', () => clock.pending === 2);
  t.equal(calls.splice(0).filter((call) => call.startsWith('free')).length, 1, 'and another one');
  await sweeper.close();
  t.equal(clock.pending, 0);
  await clock.advanceAsync(HOUR);
  t.same(calls, []);
  await sweeper.close();
  await t.rejects(sweeper.sweep(never), { message: 'the sweeper is closing' });
});

void t.test('a sweeper that is closed during a last step sets no timer again', async (t) => {
  const { sweeper, clock, watch } = sweeping(t, { config: { sweepEveryMs: MINUTE, expireEveryMs: HOUR } });
  await sweeper.sweep(never);
  let closed: Promise<void> | undefined;
  watch.onStage = () => {
    closed = sweeper.close();
  };
  await clock.advanceAsync(MINUTE);
  await until('it is closed', () => closed !== undefined);
  await closed;
  await new Promise(setImmediate);
  t.equal(clock.pending, 0);
});

void t.test('a step waits for the one before, and a sweeper that closes for the step that is running', async (t) => {
  const { sweeper, calls, watch } = sweeping(t);
  let go = (): void => undefined;
  watch.held = new Promise((resolve) => {
    go = resolve;
  });
  const sweep = sweeper.sweep(never);
  sweep.catch(() => undefined);
  await until('a step hangs', () => calls.some((call) => call.startsWith('usage')));
  await new Promise(setImmediate);
  t.notOk(calls.some((call) => call.startsWith('free')));
  let closed = false;
  const closing = sweeper.close().then(() => {
    closed = true;
  });
  await new Promise(setImmediate);
  t.notOk(closed);
  go();
  await closing;
  await t.rejects(sweep, { message: 'the sweeper is closing' });
  t.notOk(
    calls.some((call) => call.startsWith('free')),
    'no other step is begun',
  );
});

void t.test('sweeps that are asked for come one after the other, and an abort ends its own', async (t) => {
  const { sweeper, calls } = sweeping(t);
  const leaving = new AbortController();
  const left = sweeper.sweep(leaving.signal);
  const second = sweeper.sweep(never);
  leaving.abort(new Error('left'));
  await t.rejects(left, { message: 'left' });
  await second;
  t.equal(calls.filter((call) => call.startsWith('expire')).length, 1, 'the one that was left did nothing');
  t.equal(calls.filter((call) => call.startsWith('usage')).length, 1);
});

void t.test('a failure of the expiries is told, and they go on', async (t) => {
  const { clock, calls, sample } = sweeping(t, {
    config: { expireEveryMs: 1_000, sweepEveryMs: HOUR },
    failing: ['expire'],
  });
  for (let n = 1; n < 3; n += 1) {
    await clock.advanceAsync(1_000);
    await until('both timers are set', () => clock.pending === 2);
    t.equal(calls.length, n);
    t.equal(await sample('retention_failures_total{step="expire"}'), n);
  }
});
