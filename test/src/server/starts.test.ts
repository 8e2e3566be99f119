/** Requests of HTTP/2 are started a few in each turn, and sessions take turns. */
import t from 'tap';
import { createStarts } from '../../../src/server/starts.js';

interface Bench {
  add(session: object, name: string, isThere?: () => boolean): void;
  turn(): void;
  /** What was started since this was last asked. */
  started(): readonly string[];
  readonly scheduled: number;
}

function open(perTurnMax: number): Bench {
  let turns: (() => void)[] = [];
  let started: string[] = [];
  const starts = createStarts(perTurnMax, (run) => void turns.push(run));
  return {
    add: (session, name, isThere = () => true) =>
      starts.add(session, () => {
        if (isThere()) started.push(name);
        return isThere();
      }),
    turn() {
      const due = turns;
      turns = [];
      for (const run of due) run();
    },
    started() {
      const names = started;
      started = [];
      return names;
    },
    get scheduled() {
      return turns.length;
    },
  };
}

void t.test('a few requests are started at once, and the others in later turns in their order', async (t) => {
  const bench = open(3);
  const session = {};
  for (let at = 1; at <= 8; at += 1) bench.add(session, String(at));
  t.same(bench.started(), ['1', '2', '3']);
  bench.turn();
  t.same(bench.started(), ['4', '5', '6']);
  bench.add(session, '9');
  t.same(bench.started(), [], 'a new one does not overtake those that wait');
  bench.turn();
  t.same(bench.started(), ['7', '8', '9']);
  bench.turn();
  t.equal(bench.scheduled, 0, 'nothing goes on when nothing waits');
});

void t.test('a session with one request does not wait for all of a session with a thousand', async (t) => {
  const bench = open(4);
  const [crowd, one] = [{}, {}];
  for (let at = 0; at < 1_000; at += 1) bench.add(crowd, 'crowd');
  bench.started();
  bench.add(one, 'one');
  bench.turn();
  t.same(bench.started(), ['crowd', 'one', 'crowd', 'crowd']);
});

void t.test('a request whose client has left by its turn is passed over, and costs nothing of the turn', async (t) => {
  const bench = open(2);
  const session = {};
  const there = { is: true };
  for (let at = 0; at < 1_000; at += 1) bench.add(session, 'early', () => there.is);
  bench.started();
  there.is = false;
  bench.add(session, 'late');
  bench.turn();
  t.same(bench.started(), ['late']);
});
