/** Fetches in progress by themselves: who joins which, what each counts, and how each ends. */
import t from 'tap';
import {
  createFlights,
  type Flight,
  FlightEnded,
  type FlightLimits,
  type FlightSpec,
} from '../../../edge/fetch/flight.js';
import type { MediaId } from '../../../src/ids.js';
import { mediaIdOf } from '../../kit/edge/cache.js';

interface Run {
  readonly flight: Flight<string>;
  readonly settle: (result: string) => void;
}

function flights(limits: Partial<FlightLimits> = {}) {
  const runs = new Map<string, Run>();
  const all = createFlights<string>(() => ({ concurrentMax: 100, waitersMax: 100, ...limits }));
  const spec = (key: string, changes: Partial<FlightSpec<string>> = {}): FlightSpec<string> => ({
    key,
    primaryKey: `/${key}`,
    mediaId: null,
    background: false,
    run: (flight) => new Promise((settle) => void runs.set(key, { flight, settle })),
    ...changes,
  });
  const run = (key: string): Run => {
    const found = runs.get(key);
    if (found === undefined) throw new Error(`${key} was not started`);
    return found;
  };
  return { all, spec, run };
}

const caller = () => new AbortController();

void t.test('the first caller starts a flight, the next ones join it, and all have its result', async (t) => {
  const { all, spec, run } = flights();
  const started = all.joinOrStart(spec('a'), caller().signal);
  const joined = all.joinOrStart(spec('a'), caller().signal);
  const other = all.joinOrStart(spec('b'), caller().signal);
  t.same([started.kind, joined.kind, other.kind], ['started', 'joined', 'started']);
  if (started.kind !== 'started' || joined.kind !== 'joined') return;
  t.equal(joined.flight, started.flight);
  t.equal(all.find('a'), started.flight);
  t.equal(all.find('none'), undefined);
  t.same([started.flight.waiters, started.flight.isSettled, started.flight.isFinished], [2, false, false]);
  t.same([all.underWay, all.fetching], [2, 2]);
  run('a').settle('result');
  t.equal(await joined.flight.result, 'result');
  t.same([started.flight.isSettled, started.flight.isFinished], [true, false], 'its body may still arrive');
  t.equal(all.find('a'), started.flight);
  started.flight.finish();
  await started.flight.finished;
  t.equal(all.find('a'), undefined);
  t.same([all.underWay, all.fetching], [1, 1]);
});

void t.test(
  'a flight takes its place until the origin has sent everything, and is under way until it is finished',
  async (t) => {
    const { all, spec, run } = flights({ concurrentMax: 1 });
    all.joinOrStart(spec('a'), caller().signal);
    t.same(all.joinOrStart(spec('b'), caller().signal), { kind: 'full', limit: 'flights' });
    const { flight } = run('a');
    flight.arrived();
    flight.arrived();
    t.same([all.fetching, all.underWay], [0, 1]);
    t.equal(all.find('a'), flight, 'it can be joined as long as it is under way');
    t.equal(all.joinOrStart(spec('b'), caller().signal).kind, 'started');
    t.equal(all.joinOrStart(spec('c'), caller().signal).kind, 'full');
    flight.finish();
    flight.finish();
    t.same([all.fetching, all.underWay], [1, 1], 'each counts once');
    run('b').flight.finish();
    t.same([all.fetching, all.underWay], [0, 0]);
  },
);

void t.test('one flight has so many callers at most, and one that has left counts no more', async (t) => {
  const { all, spec, run } = flights({ waitersMax: 2 });
  const [first, second] = [caller(), caller()];
  for (const { signal } of [first, second]) all.joinOrStart(spec('a'), signal);
  t.same(all.joinOrStart(spec('a'), caller().signal), { kind: 'full', limit: 'waiters' });
  second.abort();
  t.equal(run('a').flight.waiters, 1);
  t.equal(all.joinOrStart(spec('a'), caller().signal).kind, 'joined');
  t.equal(run('a').flight.ended, undefined);
});

void t.test('a flight ends when its last caller leaves, unless it keeps going or is finished', async (t) => {
  const { all, spec, run } = flights();
  const [first, second] = [caller(), caller()];
  for (const { signal } of [first, second]) all.joinOrStart(spec('a'), signal);
  first.abort();
  t.equal(run('a').flight.ended, undefined, 'somebody waits');
  second.abort();
  t.equal(run('a').flight.ended, 'unwanted');
  const { signal } = run('a').flight;
  t.ok(signal.aborted && signal.reason instanceof FlightEnded && signal.reason.why === 'unwanted');
  t.equal(all.find('a'), undefined, 'new callers start another one');
  t.equal(all.underWay, 1, 'it is under way until its fetch has ended');

  const kept = caller();
  all.joinOrStart(spec('kept'), kept.signal);
  run('kept').flight.keepsGoing = () => true;
  kept.abort();
  t.equal(run('kept').flight.ended, undefined);

  const done = caller();
  all.joinOrStart(spec('done'), done.signal);
  run('done').flight.finish();
  done.abort();
  t.equal(run('done').flight.ended, undefined);

  const gone = caller();
  gone.abort();
  const late = all.joinOrStart(spec('late'), gone.signal);
  t.equal(late.kind, 'started');
  t.equal(run('late').flight.ended, 'unwanted', 'one that had left before is gone too');
});

void t.test('a flight in the background goes on without callers, also if one was begun by a caller', async (t) => {
  const { all, spec, run } = flights();
  t.equal(all.joinOrStart(spec('a', { background: true }), undefined).kind, 'started');
  t.equal(run('a').flight.waiters, 0);
  const passing = caller();
  t.equal(all.joinOrStart(spec('a'), passing.signal).kind, 'joined');
  passing.abort();
  t.equal(run('a').flight.ended, undefined);

  const first = caller();
  all.joinOrStart(spec('b'), first.signal);
  t.equal(all.joinOrStart(spec('b'), undefined).kind, 'joined');
  t.equal(all.joinOrStart(spec('b', { background: true }), undefined).kind, 'joined');
  first.abort();
  t.equal(run('b').flight.ended, undefined, 'it is wanted in the background');

  const alone = caller();
  all.joinOrStart(spec('c'), alone.signal);
  all.joinOrStart(spec('c'), undefined);
  alone.abort();
  t.equal(run('c').flight.ended, 'unwanted', 'who waits for nothing keeps nothing');
});

void t.test('a closed flight takes nobody new, and leaves a newer one of its key alone', async (t) => {
  const { all, spec, run } = flights();
  all.joinOrStart(spec('a'), caller().signal);
  const old = run('a').flight;
  old.close();
  old.close();
  t.equal(old.ended, undefined);
  t.equal(all.joinOrStart(spec('a'), caller().signal).kind, 'started');
  const newer = run('a').flight;
  t.not(newer, old);
  old.finish();
  t.equal(all.find('a'), newer);
});

void t.test('a takedown and a purge end what they concern, once, and nothing else', async (t) => {
  const { all, spec, run } = flights();
  const start = (key: string, mediaId: MediaId | null): void =>
    void all.joinOrStart(spec(key, { mediaId }), caller().signal);
  start('a', mediaIdOf(1));
  start('b', mediaIdOf(1));
  start('c', mediaIdOf(2));
  start('d', null);
  start('finished', mediaIdOf(1));
  run('finished').flight.finish();
  all.breakOff(mediaIdOf(1));
  const ended = (): unknown => ['a', 'b', 'c', 'd', 'finished'].map((key) => run(key).flight.ended);
  t.same(ended(), ['taken_down', 'taken_down', undefined, undefined, undefined]);
  all.breakOffWhere((key) => key === '/a' || key === '/d');
  t.same(ended(), ['taken_down', 'taken_down', undefined, 'purged', undefined], 'the first reason stands');
});

void t.test('to close ends all flights, starts none, and waits for the last', async (t) => {
  const { all, spec, run } = flights();
  all.joinOrStart(spec('a'), caller().signal);
  all.joinOrStart(spec('b', { background: true }), undefined);
  let closed = false;
  const closing = all.close().then(() => (closed = true));
  t.same([run('a').flight.ended, run('b').flight.ended], ['closing', 'closing']);
  t.equal(all.joinOrStart(spec('c'), caller().signal).kind, 'full');
  run('a').flight.finish();
  for (let turns = 0; turns < 3; turns += 1) await new Promise(setImmediate);
  t.equal(closed, false);
  run('b').flight.finish();
  await closing;
  await flights().all.close();
  t.pass('without flights it is closed at once');
});
