/** What `/healthz` and `/readyz` say, how long a result is shared, and that a check that hangs holds nobody up. */
import t, { type Test } from 'tap';
import type { Reply } from '../../../src/http/reply.js';
import { type Check, openHealth } from '../../../src/server/health.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';

function health(checks: Readonly<Record<string, Check>>, about?: () => Readonly<Record<string, unknown>>) {
  const clock = new ManualClock();
  const deps = testDeps();
  const opened = openHealth({
    checks: Object.entries(checks),
    ...(about !== undefined && { about }),
    clock,
    log: deps.log,
    metrics: deps.metrics,
  });
  return { ...deps, live: () => opened.live(), ready: () => opened.ready(), clock };
}

function said(t: Test, reply: Reply): readonly [number, unknown, string | undefined] {
  if (reply.body.kind !== 'bytes') {
    t.fail('the answer has a body');
    return [reply.status, undefined, undefined];
  }
  const retryAfter = reply.headers.find(([name]) => name === 'retry-after')?.[1];
  return [reply.status, JSON.parse(Buffer.from(reply.body.bytes).toString()), retryAfter];
}

const passes: Check = async () => undefined;
const fails: Check = async () => {
  throw new Error('secret reason');
};

void t.test('a process that runs is live, whatever its checks say', async (t) => {
  const { live, clock } = health({ store: fails });
  t.strictSame(said(t, live()), [200, { status: 'live' }, undefined]);
  t.equal(clock.pending, 0);
});

void t.test('it is ready if every check passes, and says which do', async (t) => {
  const { ready, sample, clock } = health({ store: passes, disk: passes }, () => ({ version: 3 }));
  t.strictSame(said(t, await ready()), [
    200,
    { status: 'ready', failed: [], checks: { store: 'ok', disk: 'ok' }, version: 3 },
    undefined,
  ]);
  t.equal(await sample('ready{check="store"}'), 1);
  t.equal(clock.pending, 0, 'no deadline is left');
});

void t.test('one check that fails is enough; its reason stays in the log', async (t) => {
  const { ready, sample, lines } = health({ store: passes, disk: fails });
  t.strictSame(said(t, await ready()), [
    503,
    { status: 'not_ready', failed: ['disk'], checks: { store: 'ok', disk: 'failed' } },
    '1',
  ]);
  t.equal(await sample('ready{check="store"}'), 1);
  t.match(lines, [{ check: 'disk', msg: 'a readiness check failed' }]);
  t.match(JSON.stringify(lines), 'secret reason');
});

void t.test('a gauge goes down again', async (t) => {
  let works = true;
  const { ready, sample, clock } = health({ store: async () => (works ? undefined : fails(AbortSignal.abort())) });
  await ready();
  t.equal(await sample('ready{check="store"}'), 1);
  works = false;
  clock.advance(1_000);
  t.equal((await ready()).status, 503);
  t.equal(await sample('ready{check="store"}'), 0);
});

void t.test('a result is shared for a second from when it was begun', async (t) => {
  let ran = 0;
  const { ready, clock } = health({
    store: async () => {
      ran += 1;
    },
  });
  await Promise.all([ready(), ready()]);
  clock.advance(999);
  await ready();
  t.equal(ran, 1);
  clock.advance(1);
  await ready();
  t.equal(ran, 2);
  clock.advance(999);
  await ready();
  t.equal(ran, 2);
});

void t.test('a check that hangs has failed after five seconds, and is told to stop', async (t) => {
  const signals: AbortSignal[] = [];
  const { ready, clock } = health({
    store: (signal) => {
      signals.push(signal);
      return new Promise(() => undefined);
    },
  });
  const reply = ready();
  clock.advance(4_999);
  t.equal(signals[0]?.aborted, false);
  clock.advance(1);
  t.match(said(t, await reply), [503, { failed: ['store'] }]);
  t.equal(signals[0]?.aborted, true);
});
