/** Closing what was opened: the order, failures on the way, and the deadline. */
import t from 'tap';
import { Closer, closeWithin, openOrClose, Releases, unlessKept } from '../../src/lifecycle.js';
import { ManualClock } from '../kit/clock.js';
import { testDeps } from '../kit/deps.js';

function recorder() {
  const closed: string[] = [];
  return { closed, closeable: (name: string) => ({ close: () => void closed.push(name) }) };
}

void t.test('what was opened is closed in reverse order, once', async (t) => {
  const { closed, closeable } = recorder();
  const opened = new Closer(testDeps().log);
  opened.add('first', closeable('first'));
  opened.add('second', closeable('second'));
  await Promise.all([opened.close(), opened.close()]);
  await opened.close();
  t.strictSame(closed, ['second', 'first']);
});

void t.test('a component that fails to close is logged and does not stop the others', async (t) => {
  const { closed, closeable } = recorder();
  const { log, lines } = testDeps();
  const opened = new Closer(log);
  opened.add('first', closeable('first'));
  opened.add('broken', { close: () => Promise.reject(new Error('no')) });
  opened.add('broken at once', {
    close() {
      throw new Error('no');
    },
  });
  await opened.close();
  t.strictSame(closed, ['first']);
  t.strictSame(
    lines.map(({ part, error }) => ({ part, error })),
    [
      { part: 'broken at once', error: 'no' },
      { part: 'broken', error: 'no' },
    ],
  );
});

void t.test('when opening fails half-way, what was open by then is closed', async (t) => {
  const { closed, closeable } = recorder();
  const { log } = testDeps();
  const half = openOrClose(log, async (opened) => {
    opened.add('first', closeable('first'));
    opened.add('second', closeable('second'));
    throw new Error('the third cannot be opened');
  });
  await t.rejects(half, { message: 'the third cannot be opened' });
  t.strictSame(closed, ['second', 'first']);
});

void t.test('what opened as a whole stays open', async (t) => {
  const { closed, closeable } = recorder();
  const first = closeable('first');
  t.equal(await openOrClose(testDeps().log, async (opened) => opened.add('first', first)), first);
  t.strictSame(closed, []);
});

void t.test('closing says whether it succeeded before its deadline', async (t) => {
  const clock = new ManualClock();
  t.equal(await closeWithin({ close: () => undefined }, 1_000, clock), true);
  t.equal(await closeWithin({ close: () => Promise.reject(new Error('no')) }, 1_000, clock), false);
  const late = closeWithin({ close: () => new Promise<void>(() => undefined) }, 1_000, clock);
  clock.advance(1_000);
  t.equal(await late, false);
});

void t.test('what was taken is released in reverse order, even where one fails to be released', async (t) => {
  const released: string[] = [];
  const taken = new Releases();
  const first = taken.add({ release: () => void released.push('first') });
  t.type(first.release, 'function', 'add returns what it was given');
  taken.add({ release: () => Promise.reject(new Error('no')) });
  taken.add({ release: async () => void released.push('third') });
  await t.rejects(taken.release(), { message: 'no' });
  t.strictSame(released, ['third', 'first']);
  await taken.release();
  t.strictSame(released, ['third', 'first'], 'nothing is released twice');
});

void t.test('what is kept is not removed at its release', async (t) => {
  const removed: string[] = [];
  const kept = unlessKept(async () => void removed.push('kept'));
  const lost = unlessKept(async () => void removed.push('lost'));
  kept.keep();
  for (const each of [kept, lost]) await each.release();
  t.strictSame(removed, ['lost']);
});
