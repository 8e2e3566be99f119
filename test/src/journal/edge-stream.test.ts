/** One stream of entries to one edge, over a response and a journal that note what is done with them. */
import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import t from 'tap';
import type { Confirmations } from '../../../src/journal/confirmations.js';
import { openEdgeStream, type StreamEnd, type StreamStart } from '../../../src/journal/edge-stream.js';
import type { JournalEntry } from '../../../src/journal/entry.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';

class Response extends EventEmitter {
  readonly heads: unknown[] = [];
  readonly lines: Readonly<Record<string, unknown>>[] = [];
  readonly over: string[] = [];
  full = false;
  destroyed = false;

  get writableNeedDrain(): boolean {
    return this.full;
  }

  writeHead(...head: readonly unknown[]): void {
    this.heads.push(head);
  }

  write(text: string): boolean {
    if (!text.endsWith('\n')) throw new Error('a line ends with a line feed');
    this.lines.push(JSON.parse(text) as Readonly<Record<string, unknown>>);
    return !this.full;
  }

  end(): void {
    this.over.push('end');
  }

  destroy(): void {
    this.over.push('destroy');
  }
}

const START: StreamStart = { edge: 'e', instance: 'i', from: null, mark: null, journal: null };

/** A journal `j` with the entries from `oldest` to `newest`, of which `seq` has the mark `m` and its number. */
function stream(
  start: Partial<StreamStart> = {},
  { oldest = 3, newest = 9, batchMax = 100, uses = undefined as number | undefined } = {},
) {
  const clock = new ManualClock(5_000);
  const deps = testDeps();
  const response = new Response();
  const state = {
    oldest,
    newest,
    age: 1.5 as number | null,
    silentMs: 0,
    fails: false,
    connects: [] as unknown[],
    disconnects: 0,
    reads: [] as unknown[],
    listeners: new Set<() => void>(),
    renewals: new Set<() => void>(),
  };
  const entryOf = (seq: number): JournalEntry => ({ seq, mark: `m${seq}`, at: seq, cause: 'delete', ids: [] });
  const held = <Item>(set: Set<Item>, item: Item): (() => void) => {
    set.add(item);
    return () => void set.delete(item);
  };
  const confirmations: Pick<Confirmations, 'connect'> = {
    connect: (...said) => {
      state.connects.push(said);
      return {
        silentMs: () => state.silentMs,
        disconnect: () => {
          state.disconnects += 1;
        },
      };
    },
  };
  const opened = openEdgeStream(
    {
      journal: {
        name: 'j',
        newest: () => state.newest,
        refresh: async () => undefined,
        oldest: () => state.oldest,
        markOf: (seq) => (seq >= state.oldest - 1 && seq <= state.newest ? `m${seq}` : undefined),
        read: async (after, limit) => {
          state.reads.push([after, limit]);
          if (state.fails) throw new Error('the disk failed');
          const first = Math.max(after + 1, state.oldest);
          return Array.from({ length: Math.max(0, Math.min(limit, state.newest - first + 1)) }, (_, at) =>
            entryOf(first + at),
          );
        },
        subscribe: (listener) => held(state.listeners, listener as () => void),
      },
      proof: { isOwn: false, ageMs: () => state.age, onRenewal: (listener) => held(state.renewals, listener) },
      confirmations: confirmations as Confirmations,
      config: { beatMs: 1_000, silenceMaxMs: 10_000, batchMax },
      usesEveryMs: () => uses,
      clock,
      log: deps.log,
    },
    { ...START, ...start },
    response as unknown as ServerResponse,
  );
  const reasons: string[] = [];
  void opened.ended.then((reason) => reasons.push(reason));
  return {
    ...deps,
    clock,
    response,
    state,
    reasons,
    end: (reason: StreamEnd) => opened.end(reason),
    settled: () => new Promise(setImmediate),
    /** Kinds of lines, with the number of each entry. */
    told: () => response.lines.map((line) => (line['t'] === 'entry' ? line['seq'] : line['t'])),
  };
}

void t.test('a stream begins with the state of the journal and a beat', async (t) => {
  const { response, state, settled } = stream({ from: 9, mark: 'm9', journal: 'j' }, { uses: 700 });
  await settled();
  t.strictSame(response.heads, [[200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' }]]);
  t.strictSame(response.lines, [
    {
      t: 'hello',
      journal: 'j',
      oldest: 3,
      newest: 9,
      mark: 'm9',
      beatMs: 1_000,
      confirmEveryMs: 3_333,
      usesEveryMs: 700,
    },
    { t: 'beat', newest: 9, mark: 'm9', at: 5_000, ageMs: 2 },
  ]);
  t.strictSame(state.connects, [['e', 'i', 9]]);
  const unproven = stream();
  unproven.state.age = null;
  unproven.clock.advance(1_000);
  t.strictSame(unproven.response.lines.at(-1), {
    t: 'beat',
    newest: 9,
    mark: 'm9',
    at: 6_000,
    ageMs: Number.MAX_SAFE_INTEGER,
  });
  t.notOk('usesEveryMs' in (unproven.response.lines[0] ?? {}));
});

void t.test('it continues after what the edge has applied, or with a gap where that is not known here', async (t) => {
  const ALL = [3, 4, 5, 6, 7, 8, 9];
  const cases: readonly (readonly [string, Partial<StreamStart>, readonly unknown[], unknown])[] = [
    ['an empty cache needs nothing', { from: null, mark: 'x', journal: 'other' }, [], null],
    ['all is applied', { from: 9 }, [], 9],
    ['some is', { from: 7, mark: 'm7', journal: 'j' }, [8, 9], 7],
    ['the oldest entry is the next', { from: 2 }, ALL, 2],
    ['entries are gone', { from: 1 }, ['gap'], 'gap'],
    ['it is ahead of this journal', { from: 10 }, ['gap'], 'gap'],
    ['another journal', { from: 7, journal: 'other' }, ['gap'], 'gap'],
    ['another history', { from: 7, mark: 'm8', journal: 'j' }, ['gap'], 'gap'],
    ['a mark of what is gone', { from: 1, mark: 'm1' }, ['gap'], 'gap'],
  ];
  for (const [name, start, told, connected] of cases) {
    const one = stream(start);
    await one.settled();
    const [hello, ...rest] = one.told();
    const beat = rest.indexOf('beat');
    t.equal(hello, 'hello');
    t.strictSame([...rest.slice(0, beat), ...rest.slice(beat + 1)], told, name);
    t.strictSame(one.state.connects, [['e', 'i', connected]], name);
    if (connected === 'gap') {
      t.strictSame(one.response.lines[1], { t: 'gap', newest: 9, mark: 'm9' }, name);
      t.strictSame(one.state.reads, [[9, 100]], `${name}: nothing older is read`);
    }
  }
});

void t.test('new entries are told once, a batch at a time', async (t) => {
  const { state, settled, told } = stream({ from: 9 }, { batchMax: 2 });
  await settled();
  state.newest = 14;
  for (const listener of state.listeners) listener();
  for (const listener of state.listeners) listener();
  await settled();
  t.strictSame(told(), ['hello', 'beat', 10, 11, 12, 13, 14]);
  t.strictSame(state.reads.slice(1, 4), [
    [9, 2],
    [11, 2],
    [13, 2],
  ]);
});

void t.test('an edge that does not read gets one batch and no beats, and goes on when it reads', async (t) => {
  const { state, response, clock, settled, told } = stream({ from: 2 }, { batchMax: 2 });
  response.full = true;
  await settled();
  clock.advance(3_000);
  await settled();
  t.strictSame(told(), ['hello', 'beat', 3, 4]);
  t.equal(state.reads.length, 1);
  t.equal(response.listenerCount('drain'), 1);
  response.full = false;
  response.emit('drain');
  await settled();
  t.strictSame(told(), ['hello', 'beat', 3, 4, 5, 6, 7, 8, 9]);
  t.equal(response.listenerCount('drain'), 0);
  clock.advance(1_000);
  t.equal(told().at(-1), 'beat');
});

void t.test('an edge for which the journal was trimmed meanwhile gets a gap, not a hole', async (t) => {
  const { state, response, settled, told } = stream({ from: 2 }, { batchMax: 2 });
  response.full = true;
  await settled();
  state.oldest = 8;
  response.full = false;
  response.emit('drain');
  await settled();
  t.strictSame(told(), ['hello', 'beat', 3, 4, 'gap']);
  t.strictSame(response.lines.at(-1), { t: 'gap', newest: 9, mark: 'm9' });
  state.newest = 10;
  for (const listener of state.listeners) listener();
  await settled();
  t.equal(told().at(-1), 10, 'and then goes on after it');
});

void t.test('beats come at their interval, and when the proof is renewed', async (t) => {
  const { state, clock, told } = stream();
  const beats = (): number => told().filter((kind) => kind === 'beat').length;
  clock.advance(999);
  t.equal(beats(), 1);
  clock.advance(1);
  t.equal(beats(), 2);
  clock.advance(600);
  for (const renew of state.renewals) renew();
  t.equal(beats(), 3);
  clock.advance(999);
  t.equal(beats(), 3, 'the interval begins anew');
  clock.advance(1);
  t.equal(beats(), 4);
  t.equal(clock.pending, 1);
});

void t.test('an edge that confirms nothing for too long is disconnected', async (t) => {
  const { state, response, clock, reasons, settled } = stream();
  state.silentMs = 10_000;
  clock.advance(1_000);
  await settled();
  t.strictSame(reasons, []);
  state.silentMs = 10_001;
  clock.advance(1_000);
  await settled();
  t.strictSame(reasons, ['silent']);
  t.strictSame(response.over, ['destroy']);
});

void t.test('the end releases everything, once, and nothing is written after it', async (t) => {
  for (const [reason, over] of [
    ['closing', 'end'],
    ['replaced', 'destroy'],
    ['left', 'destroy'],
  ] as const) {
    const { state, response, clock, reasons, end, settled, told } = stream({ from: 9 });
    await settled();
    const before = told().length;
    if (reason === 'left') response.emit('close');
    else end(reason);
    end('failed');
    await settled();
    t.strictSame(reasons, [reason]);
    t.strictSame(response.over, [over], reason);
    t.strictSame([state.listeners.size, state.renewals.size, clock.pending, state.disconnects], [0, 0, 0, 1], reason);
    clock.advance(9_000);
    t.equal(told().length, before);
  }
});

void t.test('a journal that cannot be read ends the stream', async (t) => {
  const { state, response, reasons, lines, settled } = stream({ from: 9 });
  await settled();
  state.fails = true;
  for (const listener of state.listeners) listener();
  await settled();
  t.strictSame(reasons, ['failed']);
  t.strictSame(response.over, ['destroy']);
  t.match(lines, [{ edge: 'e', msg: 'the journal could not be read for an edge' }]);
});
