/** The machine's clock: its timers fire once, can be cancelled, and none is longer than node can count. */
import t from 'tap';
import { keepAlive, systemClock, TIMER_DELAY_MAX_MS } from '../../src/clock.js';

void t.test(
  'a timer fires once after its time, at once for a time that has passed, and not when it was cancelled',
  async (t) => {
    const fired: string[] = [];
    const from = systemClock.monotonicMs();
    systemClock.after(5, () => fired.push('cancelled')).cancel();
    systemClock.after(1e12, () => fired.push('a long time')).cancel();
    await new Promise<void>((resolve) => systemClock.after(-5, resolve));
    const alive = keepAlive();
    await new Promise<void>((resolve) => {
      systemClock.after(5, () => {
        fired.push('once');
        resolve();
      });
    });
    alive.release();
    t.strictSame(fired, ['once']);
    // Node may fire a timer a little before its time is over by the finer clock.
    t.ok(systemClock.monotonicMs() - from >= 4);
    t.equal(TIMER_DELAY_MAX_MS, 2_147_483_647);
  },
);

void t.test('a delay beyond what node counts is cut, and does not fire at once', async (t) => {
  const fired: string[] = [];
  const alive = keepAlive();
  const timer = systemClock.after(2 ** 40, () => fired.push('too early'));
  await new Promise<void>((resolve) => systemClock.after(2, resolve));
  t.strictSame(fired, []);
  alive.release();
  timer.cancel();
});

void t.test('the wall clock is in milliseconds of the epoch', async (t) => {
  const before = Date.now();
  const now = systemClock.now();
  t.ok(before <= now && now <= Date.now());
});
