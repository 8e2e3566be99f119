/** Waits that end with a signal, and leave no listener behind. */
import { EventEmitter, getEventListeners } from 'node:events';
import t from 'tap';
import { onAbort, sharedController, waitFor, withSignal } from '../../src/abort.js';
import { sleep, withDeadline } from '../../src/clock.js';
import { ManualClock } from '../kit/clock.js';

const LEFT = new Error('left');
const listeners = (signal: AbortSignal): number => getEventListeners(signal, 'abort').length;

void t.test(
  'a listener hears of an abort once, at once if it has happened, and never after it was taken away',
  async (t) => {
    const heard: string[] = [];
    const stop = new AbortController();
    onAbort(stop.signal, () => heard.push('before'));
    onAbort(stop.signal, () => heard.push('taken away'))();
    t.equal(listeners(stop.signal), 1);
    stop.abort();
    onAbort(stop.signal, () => heard.push('after'))();
    onAbort(undefined, () => heard.push('no signal'))();
    t.same(heard, ['before', 'after']);
  },
);

void t.test('a signal ends the waiting for work, and the work goes on', async (t) => {
  const stop = sharedController();
  let finish: (value: string) => void = () => undefined;
  const work = new Promise<string>((resolve) => {
    finish = resolve;
  });
  const [early, late] = [withSignal(work, stop.signal), withSignal(work, undefined)];
  stop.abort(LEFT);
  await t.rejects(early, LEFT);
  await t.rejects(withSignal(work, stop.signal), LEFT);
  finish('done');
  t.equal(await late, 'done');

  const { signal } = new AbortController();
  t.equal(await withSignal(Promise.resolve(1), signal), 1);
  await t.rejects(withSignal(Promise.reject(LEFT), signal), LEFT);
  await t.rejects(withSignal(Promise.reject(new Error('of the work')), AbortSignal.abort(LEFT)), LEFT);
  t.equal(listeners(signal), 0);
});

void t.test('a wait for an event ends with the event or the signal, and listens to neither afterwards', async (t) => {
  const door = new EventEmitter();
  const rings = (signal: AbortSignal | undefined): Promise<string> =>
    waitFor((come) => {
      door.once('ring', come);
      return () => door.off('ring', come);
    }, signal);
  const [kept, left] = [new AbortController(), new AbortController()];
  const waits = [rings(kept.signal), rings(left.signal), rings(undefined)] as const;
  left.abort(LEFT);
  await t.rejects(waits[1], LEFT);
  t.equal(door.listenerCount('ring'), 2);
  door.emit('ring', 'twice');
  t.same(await Promise.all([waits[0], waits[2]]), ['twice', 'twice']);
  t.equal(door.listenerCount('ring') + listeners(kept.signal), 0);
  await t.rejects(rings(AbortSignal.abort(LEFT)), LEFT);
  t.equal(door.listenerCount('ring'), 0);
});

void t.test('work ends with its deadline, with its signal, or by itself, and leaves no timer', async (t) => {
  const clock = new ManualClock();
  const stop = new AbortController();
  const deadline = { clock, ms: 1_000, late: () => new Error('too late'), signal: stop.signal };
  const endless = (signal: AbortSignal): Promise<void> => sleep(clock, 60_000, signal);

  t.equal(await withDeadline(deadline, async () => 'done'), 'done');
  await t.rejects(
    withDeadline(deadline, async () => {
      throw LEFT;
    }),
    LEFT,
  );
  const slow = withDeadline(deadline, endless);
  clock.advance(1_000);
  await t.rejects(slow, /too late/);
  const left = withDeadline(deadline, endless);
  stop.abort(LEFT);
  await t.rejects(left, LEFT);
  await t.rejects(withDeadline(deadline, endless), LEFT);
  t.equal(clock.pending + listeners(stop.signal), 0);
});
