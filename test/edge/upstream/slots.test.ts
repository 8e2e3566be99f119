/** Which requests hold a connection to the origin, when clients read slowly. */
import t from 'tap';
import { type Claim, ConnectionSlots, STALLED_MS } from '../../../edge/upstream/slots.js';
import { ManualClock } from '../../kit/clock.js';

interface Request extends Claim {
  readonly name: string;
  readonly started: boolean;
  readonly dropped: boolean;
  bytes: number;
}

function open(connectionsMax: number, slowMax: number) {
  const clock = new ManualClock();
  const requests: Request[] = [];
  let dropped = 0;
  const slots = new ConnectionSlots({ connectionsMax, slowMax }, clock, () => {
    dropped += 1;
  });
  const enter = (name: string, client = 'one'): Request => {
    const state = { started: false, dropped: false, bytes: 100 };
    const request: Request = {
      name,
      get started() {
        return state.started;
      },
      get dropped() {
        return state.dropped;
      },
      get bytes() {
        return state.bytes;
      },
      set bytes(bytes) {
        state.bytes = bytes;
      },
      start() {
        state.started = true;
      },
      client: () => client,
      waitingBytes: () => state.bytes,
      drop() {
        state.dropped = true;
        slots.leave(request);
      },
    };
    requests.push(request);
    slots.enter(request);
    return request;
  };
  const named = (what: (request: Request) => boolean): string =>
    requests
      .filter(what)
      .map(({ name }) => name)
      .join('');
  return {
    clock,
    slots,
    enter,
    started: () => named((request) => request.started),
    dropped: () => named((request) => request.dropped),
    droppedCount: () => dropped,
  };
}

void t.test('requests beyond the limit wait for a connection, first come first served', async (t) => {
  const test = open(2, 2);
  const [a, , c] = ['a', 'b', 'c', 'd'].map((name) => test.enter(name));
  t.equal(test.started(), 'ab');
  if (c !== undefined) test.slots.leave(c);
  if (a !== undefined) test.slots.leave(a);
  t.equal(test.started(), 'abd', 'who has left waits no more');
});

void t.test('a response that waits for its client keeps no request waiting', async (t) => {
  const test = open(1, 2);
  const slow = test.enter('a');
  const next = test.enter('b');
  t.equal(test.started(), 'a');
  test.slots.stalled(slow);
  t.equal(test.started(), 'ab');
  t.equal(test.slots.uncounted, 1);
  test.slots.stalled(next);
  const third = test.enter('c');
  t.equal(test.started(), 'abc');
  test.slots.leave(slow);
  test.slots.leave(next);
  t.equal(test.slots.uncounted, 0);
  test.enter('d');
  t.equal(test.started(), 'abc', 'those gave back no place that counts');
  test.slots.leave(third);
  t.equal(test.started(), 'abcd');
  t.equal(test.droppedCount(), 0);
});

void t.test('one that reads on counts, and nobody is dropped while the client moves', async (t) => {
  const test = open(1, 0);
  const slow = test.enter('a');
  test.slots.stalled(slow);
  test.enter('b');
  test.clock.advance(STALLED_MS - 1);
  test.slots.moved(slow);
  test.slots.stalled(slow);
  test.clock.advance(STALLED_MS - 1);
  t.equal(test.started(), 'a');
  test.slots.moved(slow);
  test.clock.advance(10 * STALLED_MS);
  t.equal(test.started(), 'a');
  t.equal(test.dropped(), '');
});

void t.test('when no more may go uncounted, the slowest response of the client with the most ends', async (t) => {
  const test = open(4, 1);
  const mine = test.enter('a', 'mine');
  const theirs = ['b', 'c', 'd'].map((name) => test.enter(name, 'theirs'));
  for (const request of [mine, ...theirs]) test.slots.stalled(request);
  // Theirs read, but for one; mine does not.
  for (const request of theirs) if (request.name !== 'c') request.bytes = 50;
  test.enter('e', 'other');
  t.equal(test.started(), 'abcde', 'one goes uncounted');
  test.enter('f', 'other');
  t.equal(test.started(), 'abcde');
  t.equal(test.dropped(), '', 'none has waited long enough');
  test.clock.advance(STALLED_MS);
  t.equal(test.dropped(), 'c');
  t.equal(test.started(), 'abcdef');
  test.enter('g', 'other');
  test.clock.advance(0);
  t.equal(test.started(), 'abcdefg');
  t.equal(test.droppedCount(), 2, 'one for each');
  t.notMatch(test.dropped(), 'a');
  test.clock.advance(10 * STALLED_MS);
  t.equal(test.droppedCount(), 2, 'and none when nobody waits');
});

void t.test('without leave to drop, a request waits', async (t) => {
  const clock = new ManualClock();
  const slots = new ConnectionSlots({ connectionsMax: 1, slowMax: 0 }, clock);
  const started: string[] = [];
  const claimOf = (name: string): Claim => ({
    start: () => void started.push(name),
    client: () => '',
    waitingBytes: () => 1,
    drop: () => t.fail(`${name} is dropped`),
  });
  const stream = claimOf('stream');
  slots.enter(stream);
  slots.stalled(stream);
  slots.enter(claimOf('next'));
  clock.advance(10 * STALLED_MS);
  t.same(started, ['stream']);
  slots.leave(stream);
  t.same(started, ['stream', 'next']);
});
