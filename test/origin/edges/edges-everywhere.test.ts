/** `?wait=edges` over several origins: each knows its own edges, and the one that is asked adds up. */
import t, { type Test } from 'tap';
import { openEdgesEverywhere } from '../../../origin/edges/edges-everywhere.js';
import { NOBODY_BEHIND } from '../../../src/journal/confirmation.js';
import { createConfirmations } from '../../../src/journal/confirmations.js';
import { ManualClock, untilInTime } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { SharedRecords } from '../../kit/origin/meta/shared-edges.js';

const WAIT_MS = 5_000;

/** Origins over the same records, each with the edges that follow it. */
function openOrigins(t: Test, ...names: readonly string[]) {
  const clock = new ManualClock();
  const records = new SharedRecords();
  const living = new Set(names);
  const origins = names.map((name) => {
    const confirmations = createConfirmations({ goneMax: 9, awayMs: 60_000, known: [], clock, onChange: () => {} });
    const everywhere = openEdgesEverywhere({
      stream: {
        confirmed: (seq, timeoutMs, signal) => confirmations.wait(seq, timeoutMs, signal),
        positions: () => confirmations.positions(),
        following: () => confirmations.following(),
        forget: (edges) => confirmations.forget(edges),
      },
      shared: records.of(name),
      origins: { name, living: () => [...living].map((each) => ({ name: each, started: each })) },
      config: { waitMaxMs: WAIT_MS, awayMs: 60_000 },
      clock,
      log: testDeps().log,
    });
    t.teardown(() => everywhere.close());
    return {
      everywhere,
      connect: (edge: string) => confirmations.connect(edge, `${edge} started`, null),
      confirm: (edge: string, seq: number, leaves = false) =>
        confirmations.confirm({ edge, instance: `${edge} started`, seq, behind: NOBODY_BEHIND, leaves }),
      /** As a process that is killed: it answers nobody any more. */
      async die() {
        living.delete(name);
        await everywhere.close();
      },
    };
  });
  const recorded = (edge: string) => [...records.edges.values()].find((each) => each.edge === edge);
  return { clock, records, living, recorded, origins };
}

void t.test('the edges of all origins are waited for and counted', async (t) => {
  const { clock, records, origins } = openOrigins(t, 'a', 'b', 'c');
  const [a, b] = origins;
  a?.connect('edge-1');
  b?.connect('edge-2');
  let answered: unknown;
  const waiting = a?.everywhere.confirmed(7, WAIT_MS).then((result) => (answered = result));
  a?.confirm('edge-1', 7);
  await untilInTime(
    'the others are asked',
    clock,
    () => records.questions.some(({ answer }) => answer?.isFinal === true),
    50,
  );
  t.equal(answered, undefined, 'an edge of another origin has not confirmed yet');
  b?.confirm('edge-2', 7);
  await untilInTime('all have answered', clock, () => answered !== undefined, 50);
  await waiting;
  t.same(answered, { confirmed: 2, known: 2 });
  t.ok(clock.monotonicMs() < WAIT_MS);
  t.same(records.questions, [], 'nothing is left of the question');
});

void t.test('when the time is over, what has been confirmed so far is told', async (t) => {
  const { clock, origins } = openOrigins(t, 'a', 'b');
  const [a, b] = origins;
  b?.connect('edge-1');
  b?.connect('edge-2');
  b?.confirm('edge-1', 3);
  let answered: unknown;
  void a?.everywhere.confirmed(3, WAIT_MS).then((result) => (answered = result));
  await untilInTime('the wait is over', clock, () => answered !== undefined);
  t.same(answered, { confirmed: 1, known: 2 });
});

void t.test(
  'the edges of an origin that is silent or dead count, and have not confirmed, until they follow another',
  async (t) => {
    const { clock, recorded, living, origins } = openOrigins(t, 'a', 'b');
    const [a, b] = origins;
    const before = b?.connect('edge-1');
    b?.confirm('edge-1', 3);
    await untilInTime('it is recorded', clock, () => recorded('edge-1')?.origin === 'b', 50);
    await b?.die();
    living.add('b');
    let silent: unknown;
    void a?.everywhere.confirmed(3, 1_000).then((result) => (silent = result));
    await untilInTime('the wait is over', clock, () => silent !== undefined, 50);
    t.same(silent, { confirmed: 0, known: 1 }, 'it still counts as alive, and answers nothing');
    living.delete('b');
    t.same(await a?.everywhere.confirmed(3, WAIT_MS), { confirmed: 0, known: 1 }, 'its edge may be serving');
    before?.disconnect();
    a?.connect('edge-1');
    a?.confirm('edge-1', 3);
    t.same(await a?.everywhere.confirmed(3, WAIT_MS), { confirmed: 1, known: 1 });
  },
);

void t.test('every origin lists the edges of all in one order', async (t) => {
  const { clock, recorded, origins } = openOrigins(t, 'a', 'b');
  const [a, b] = origins;
  a?.connect('edge-2');
  b?.connect('edge-1');
  await untilInTime(
    'both are recorded',
    clock,
    () => ['edge-1', 'edge-2'].every((name) => recorded(name) !== undefined),
    50,
  );
  for (const origin of origins) {
    t.same(
      (await origin.everywhere.positions()).map(({ edge }) => edge),
      ['edge-1', 'edge-2'],
    );
  }
});

void t.test('an edge that has gone over to another origin counts once', async (t) => {
  const { clock, recorded, origins } = openOrigins(t, 'a', 'b');
  const [a, b] = origins;
  const before = a?.connect('edge-1');
  await untilInTime('it is recorded', clock, () => recorded('edge-1')?.origin === 'a', 50);
  before?.disconnect();
  b?.connect('edge-1');
  b?.confirm('edge-1', 5);
  await untilInTime('it is recorded anew', clock, () => recorded('edge-1')?.origin === 'b', 50);
  await untilInTime('the first one has heard of it', clock, async () => {
    const here = (await a?.everywhere.positions()) ?? [];
    return here.length === 1 && here[0]?.connected === true;
  });
  let answered: unknown;
  void a?.everywhere.confirmed(5, WAIT_MS).then((result) => (answered = result));
  await untilInTime('it is answered', clock, () => answered !== undefined, 50);
  t.same(answered, { confirmed: 1, known: 1 });
  b?.confirm('edge-1', 5, true);
  await untilInTime('it has said that it stops', clock, () => recorded('edge-1') === undefined, 50);
});

void t.test('while the database cannot be reached, other origins count as ones that have not confirmed', async (t) => {
  const { records, origins } = openOrigins(t, 'a', 'b');
  const [a] = origins;
  a?.connect('edge-1');
  a?.confirm('edge-1', 2);
  records.questions.push = () => {
    throw new Error('there is no database');
  };
  t.same(await a?.everywhere.confirmed(2, WAIT_MS), { confirmed: 1, known: 2 });
});
