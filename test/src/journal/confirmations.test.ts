/** Which edges are counted, as what, and for how long; and when a wait for them is over. */
import { getEventListeners } from 'node:events';
import t from 'tap';
import { type EdgesBehind, NOBODY_BEHIND } from '../../../src/journal/confirmation.js';
import { type Confirmations, createConfirmations, type KnownEdge } from '../../../src/journal/confirmations.js';
import { ManualClock } from '../../kit/clock.js';

const BEHIND: EdgesBehind = { connected: [{ seq: 4, edges: 2 }], away: [{ seq: 1, edges: 3 }] };

function bench({ goneMax = 9, known = [] as readonly KnownEdge[] } = {}) {
  const clock = new ManualClock(50_000);
  const changes: string[] = [];
  const confirmations: Confirmations = createConfirmations({
    goneMax,
    awayMs: 60_000,
    known,
    clock,
    onChange: (which) => changes.push(which),
  });
  return {
    clock,
    changes,
    confirmations,
    say: (edge: string, seq: number, { behind = NOBODY_BEHIND, leaves = false, instance = 'i' } = {}): boolean =>
      confirmations.confirm({ edge, instance, seq, behind, leaves }),
    names: () => confirmations.positions().map(({ edge }) => edge),
  };
}

void t.test('an edge and those behind it are connected together, and away together', async (t) => {
  const { confirmations, say, clock } = bench();
  const link = confirmations.connect('a', 'i', 3);
  t.strictSame(confirmations.counts(), { connected: [{ seq: 3, edges: 1 }], away: [] });
  say('a', 5, { behind: BEHIND });
  const connected = [
    { seq: 5, edges: 1 },
    { seq: 4, edges: 2 },
  ];
  t.strictSame(confirmations.counts(), { connected, away: [{ seq: 1, edges: 3 }] });
  t.strictSame(confirmations.known(), [{ edge: 'a', instance: 'i', behind: 5 }]);
  t.strictSame(await confirmations.wait(5, 0, undefined), { confirmed: 1, known: 6 });
  link.disconnect();
  t.strictSame(confirmations.counts(), { connected: [], away: [...connected, { seq: 1, edges: 3 }] });
  t.strictSame(confirmations.known(), [{ edge: 'a', instance: 'i', behind: 5 }]);
  clock.advance(59_999);
  t.equal(confirmations.known().length, 1);
  clock.advance(1);
  t.strictSame(confirmations.counts(), { connected: [], away: [] }, 'its copies have ended');
  t.strictSame(confirmations.known(), []);
  t.strictSame(confirmations.positions(), [{ edge: 'a', connected: false, confirmed: 5, heardAt: 50_000 }]);
});

void t.test('an edge that reconnects keeps what it has confirmed and who is behind it', async (t) => {
  const { confirmations, say, changes, clock } = bench();
  confirmations.connect('a', 'i', 3);
  say('a', 5, { behind: BEHIND });
  clock.advance(7);
  confirmations.connect('a', 'i', 4);
  t.strictSame(confirmations.counts().away, BEHIND.away);
  t.strictSame(confirmations.positions(), [{ edge: 'a', connected: true, confirmed: 5, heardAt: 50_007 }]);
  confirmations.connect('a', 'i', 8);
  t.equal(confirmations.positions()[0]?.confirmed, 8);
  t.strictSame(changes, ['edges', 'counts', 'edges', 'edges']);
});

void t.test('only what is new is told: a higher number, or other edges behind', async (t) => {
  const { confirmations, say, changes } = bench();
  confirmations.connect('a', 'i', null);
  say('a', 0);
  t.strictSame(changes, ['edges']);
  say('a', 1);
  say('a', 1);
  t.strictSame(changes, ['edges', 'counts']);
  say('a', 1, { behind: BEHIND });
  say('a', 1, { behind: BEHIND });
  t.strictSame(changes, ['edges', 'counts', 'counts']);
  say('a', 1, { leaves: true });
  t.strictSame(changes, ['edges', 'counts', 'counts', 'edges']);
  t.strictSame(confirmations.positions(), []);
  t.notOk(say('a', 2), 'it is not connected any more');
});

void t.test('two edges of one name are two while both are connected, and a former start is forgotten', async (t) => {
  const { confirmations, names } = bench();
  const first = confirmations.connect('a', 'one', 1);
  confirmations.connect('a', 'two', 1);
  t.strictSame(names(), ['a', 'a']);
  first.disconnect();
  t.strictSame(names(), ['a', 'a'], 'it may still be serving');
  confirmations.connect('b', 'one', 1);
  t.strictSame(names(), ['a', 'a', 'b']);
  confirmations.connect('a', 'three', 1);
  t.strictSame(
    confirmations.known().map(({ edge, instance }) => `${edge} ${instance}`),
    ['a two', 'b one', 'a three'],
  );
});

void t.test(
  'beyond their limit, edges that have left are forgotten as they leave, the longest gone first',
  async (t) => {
    const { confirmations, names } = bench({ goneMax: 1 });
    const links = ['a', 'b', 'c', 'd'].map((edge) => confirmations.connect(edge, 'i', 1));
    links[1]?.disconnect();
    links[0]?.disconnect();
    t.equal(names().length, 3, 'one of the two was forgotten');
    links[2]?.disconnect();
    t.equal(names().filter((edge) => edge !== 'd').length, 1);
    t.ok(names().includes('d'), 'and never one that is connected');
    const restarted = bench({ goneMax: 0 });
    restarted.confirmations.connect('a', 'i', 1).disconnect();
    t.strictSame(restarted.names(), []);
  },
);

void t.test('an edge that was known before this process started is away, and has confirmed nothing', async (t) => {
  const { confirmations, clock } = bench({
    known: [
      { edge: 'a', instance: 'i', behind: 2 },
      { edge: 'b', instance: 'i', behind: 0 },
    ],
  });
  t.strictSame(confirmations.counts(), { connected: [], away: [{ seq: 0, edges: 4 }] });
  t.strictSame(confirmations.positions()[0], { edge: 'a', connected: false, confirmed: 0, heardAt: 50_000 });
  t.strictSame(await confirmations.wait(1, 5_000, undefined), { confirmed: 0, known: 4 }, 'it is not waited for');
  clock.advance(60_000);
  t.strictSame(await confirmations.wait(1, 0, undefined), { confirmed: 0, known: 0 });
});

void t.test('a wait is over when the last connected edge has confirmed, and leaves nothing behind', async (t) => {
  const { confirmations, say, clock } = bench();
  for (const edge of ['a', 'b', 'c']) confirmations.connect(edge, 'i', 4);
  const { signal } = new AbortController();
  const over: unknown[] = [];
  void confirmations.wait(5, 9_000, signal).then((counted) => over.push(counted));
  const settled = (): Promise<void> => new Promise(setImmediate);
  say('a', 5);
  say('b', 6, { behind: { connected: [{ seq: 4, edges: 1 }], away: [] } });
  await settled();
  t.strictSame(over, []);
  say('b', 6, { behind: { connected: [{ seq: 5, edges: 1 }], away: [{ seq: 4, edges: 1 }] } });
  await settled();
  t.strictSame(over, [], 'one is missing');
  say('c', 4, { leaves: true });
  await settled();
  t.strictSame(over, [{ confirmed: 3, known: 4 }], 'an edge that stops is waited for no longer, nor counted');
  t.equal(clock.pending, 0);
  t.equal(getEventListeners(signal, 'abort').length, 0);
});

void t.test(
  'a wait ends at its time or with its caller, and at once for one that has left or does not wait',
  async (t) => {
    const { confirmations, clock } = bench();
    confirmations.connect('a', 'i', 4);
    const missing = { confirmed: 0, known: 1 };
    t.strictSame(await confirmations.wait(5, 0, undefined), missing);
    t.strictSame(await confirmations.wait(5, 9_000, AbortSignal.abort()), missing);
    t.strictSame(await confirmations.wait(4, 9_000, undefined), { confirmed: 1, known: 1 });
    t.equal(clock.pending, 0);
    const leaving = new AbortController();
    const waits = [confirmations.wait(5, 9_000, leaving.signal), confirmations.wait(5, 9_000, undefined)];
    leaving.abort();
    t.strictSame(await waits[0], missing);
    t.equal(clock.pending, 1);
    clock.advance(9_000);
    t.strictSame(await waits[1], missing);
    const link = confirmations.connect('b', 'i', 4);
    clock.advance(3);
    t.equal(link.silentMs(), 3);
  },
);
