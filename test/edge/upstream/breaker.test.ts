/** The circuit breaker: what opens it, how long it stays open, and what the one trial request decides. */
import t from 'tap';
import { type Breaker, type BreakerConfig, createBreaker } from '../../../edge/upstream/breaker.js';
import { ManualClock } from '../../kit/clock.js';

const CONFIG: BreakerConfig = { enabled: true, failures: 3, afterMs: 1_000, openMs: 2_000 };

function open(over: Partial<BreakerConfig> = {}): { readonly breaker: Breaker; readonly clock: ManualClock } {
  const clock = new ManualClock();
  // So that a breaker that takes no failure for one at the beginning of time is noticed.
  clock.advance(50_000);
  return { breaker: createBreaker({ ...CONFIG, ...over }, clock), clock };
}

/** Fails at each of these instants, one after the other. */
function failAfter({ breaker, clock }: ReturnType<typeof open>, ...pausesMs: readonly number[]): void {
  for (const pauseMs of pausesMs) {
    clock.advance(pauseMs);
    breaker.failed();
  }
}

void t.test('so many failures in a row open it, if they took long enough from the first to the last', async (t) => {
  for (const [pausesMs, state] of [
    [[0, 0, 0, 0, 0], 'closed'],
    [[0, 500, 500], 'open'],
    [[0, 500, 499], 'closed'],
    [[0, 500, 499, 1], 'open'],
    [[0, 1_000], 'closed'],
    [[900, 50, 50], 'closed'],
  ] as const) {
    const test = open();
    failAfter(test, ...pausesMs);
    t.equal(test.breaker.state, state, String(pausesMs));
    t.equal(test.breaker.enter(), state === 'open' ? 'refused' : 'let_in', String(pausesMs));
  }
});

void t.test('a success begins the count and the time anew', async (t) => {
  const test = open();
  failAfter(test, 0, 1_000);
  test.breaker.succeeded();
  failAfter(test, 0, 900);
  t.equal(test.breaker.state, 'closed');
  failAfter(test, 99);
  t.equal(test.breaker.state, 'closed', 'three in a row, and not long enough');
  failAfter(test, 1);
  t.equal(test.breaker.state, 'open');
});

void t.test('one request tries after the pause, and its ending decides', async (t) => {
  const opened = (): ReturnType<typeof open> => {
    const test = open();
    failAfter(test, 0, 500, 500);
    return test;
  };
  for (const [ending, state, next] of [
    ['succeeded', 'closed', 'let_in'],
    ['failed', 'open', 'refused'],
    ['abandoned', 'open', 'let_in'],
  ] as const) {
    const test = opened();
    test.clock.advance(1_999);
    t.equal(test.breaker.enter(), 'refused');
    test.breaker.failed();
    test.breaker.abandoned();
    t.equal(test.breaker.state, 'open', 'what began before says nothing now');
    test.clock.advance(1);
    t.equal(test.breaker.enter(), 'let_in');
    t.equal(test.breaker.state, 'half_open');
    t.equal(test.breaker.enter(), 'refused', 'one alone');
    test.breaker[ending]();
    t.equal(test.breaker.state, state, ending);
    t.equal(test.breaker.enter(), next, ending);
    if (ending !== 'failed') continue;
    test.clock.advance(1_999);
    t.equal(test.breaker.enter(), 'refused', 'the pause begins anew');
    test.clock.advance(1);
    t.equal(test.breaker.enter(), 'let_in');
  }
});

void t.test('a closed breaker takes no notice of what was given up, and one that is off refuses nothing', async (t) => {
  const test = open();
  failAfter(test, 0, 500);
  test.breaker.abandoned();
  failAfter(test, 500);
  t.equal(test.breaker.state, 'open');
  const off = open({ enabled: false });
  failAfter(off, 0, 1_000, 1_000, 1_000);
  t.equal(off.breaker.enter(), 'let_in');
});
