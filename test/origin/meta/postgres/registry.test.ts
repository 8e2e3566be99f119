/** The row of an origin in the database: who gets it, what a beat proves, and when nothing may be written. No server is needed. */
import t from 'tap';
import { keepOriginsOut } from '../../../../origin/meta/postgres/keep-out.js';
import { type Beat, HOLD_MS, register } from '../../../../origin/meta/postgres/registry.js';
import type { Row } from '../../../../origin/meta/postgres/rows.js';
import { StoreInUse } from '../../../../origin/meta/store.js';
import { createLog } from '../../../../src/log.js';
import { ManualClock } from '../../../kit/clock.js';
import { createRecordedPool, type Statement } from '../../../kit/postgres/recorded-pool.js';

const BEAT_MS = 1_000;
const LIVING_MS = 3_000;
const CLOCK_OFF_MAX_MS = 5_000;
const log = createLog('test', { level: 'silent' }, { write: () => undefined });

/** The tables `origin` and `about`, with what their statements do to one row, by a clock that may differ. */
class Database {
  readonly clock: ManualClock;
  row: { started: string; beatAt: number } | null = null;
  kept = false;
  aheadMs = 0;
  fails = false;
  newest: Row[] = [];
  living: Row[] = [];

  constructor(clock: ManualClock) {
    this.clock = clock;
  }

  get now(): number {
    return this.clock.now() + this.aheadMs;
  }

  answer({ sql, parameters }: Statement): readonly Row[] {
    if (this.fails) throw new Error('the connection was lost');
    if (sql.includes('AS kept')) return [{ kept: this.kept }];
    if (sql.startsWith('INSERT INTO origin')) {
      const { row } = this;
      if (row !== null && row.started !== parameters[1] && row.beatAt >= this.now - LIVING_MS) return [];
      this.row = { started: String(parameters[1]), beatAt: this.now };
      return [{ name: parameters[0] }];
    }
    if (sql.startsWith('SELECT beat_at')) return this.row === null ? [] : [{ beat_at: this.row.beatAt }];
    if (sql.startsWith('UPDATE origin')) {
      const { row } = this;
      if (row === null || row.started !== parameters[1]) return [];
      this.row = { ...row, beatAt: this.now };
      return [{ beat_at: this.now }];
    }
    if (sql.startsWith('DELETE FROM origin WHERE name')) this.row = null;
    if (sql.startsWith('SELECT seq')) return this.newest;
    return sql.startsWith('SELECT name') ? this.living : [];
  }
}

async function turns(): Promise<void> {
  for (let count = 0; count < 3; count += 1) await new Promise(setImmediate);
}

function opened(clock = new ManualClock(), database = new Database(clock)) {
  const pool = createRecordedPool((statement) => database.answer(statement));
  const registerAs = (started: string) =>
    register(pool, {
      name: 'north',
      serves: true,
      clockOffMaxMs: CLOCK_OFF_MAX_MS,
      clock,
      log,
      randomName: () => started,
    });
  const pass = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 250) {
      clock.advance(Math.min(left, 250));
      await turns();
    }
  };
  return { clock, database, pool, register: registerAs, pass };
}

/** A registered origin whose first beat has been told. */
async function started() {
  const given = opened();
  const registry = await given.register('run-1');
  const beats: Beat[] = [];
  registry.onBeat(async (beat) => void beats.push(beat));
  await registry.start();
  return { ...given, registry, beats };
}

void t.test('an origin has its row, renews it regularly, and tells what each beat proved', async (t) => {
  const { clock, database, pool, register: enter, pass } = opened();
  database.newest = [{ seq: 41, mark: 'm' }];
  database.living = [
    { name: 'north', started: 'run-1' },
    { name: 'south', started: 'run-9' },
  ];
  const registry = await enter('run-1');
  t.same(pool.statements.find(({ sql }) => sql.startsWith('INSERT'))?.parameters, ['north', 'run-1', true]);
  t.equal(pool.wordsOf(1).at(-1), 'COMMIT');
  t.same(registry.origins.living(), [{ name: 'north', started: 'run-1' }]);
  t.equal(registry.holds(), true);
  const beats: Beat[] = [];
  let told = (): void => undefined;
  const leave = registry.onBeat((beat) => {
    beats.push(beat);
    return new Promise((resolve) => (told = resolve));
  });
  clock.advance(7);
  let isStarted = false;
  const starting = registry.start().then(() => (isStarted = true));
  await turns();
  t.equal(isStarted, false, 'it has started once the first beat was told');
  told();
  await starting;
  t.same(beats, [{ begunMs: 7, seq: 41, mark: 'm' }]);
  t.same(registry.origins.living(), database.living);
  t.equal(registry.origins.name, 'north');
  t.equal(registry.mayWork(), true);
  await registry.origins.checkClock();
  leave();
  database.newest = [];
  registry.onBeat(async (beat) => void beats.push(beat));
  clock.advance(BEAT_MS - 1);
  await turns();
  t.equal(beats.length, 1);
  await pass(2 * BEAT_MS);
  t.same(
    beats.slice(1).map(({ seq, mark }) => [seq, mark]),
    [
      [0, null],
      [0, null],
    ],
    'an empty journal',
  );
  await registry.release();
  await registry.release();
  t.equal(database.row, null);
  t.equal(clock.pending, 0);
  t.equal(pool.statements.filter(({ sql }) => sql.startsWith('DELETE FROM origin WHERE name')).length, 1);
});

void t.test('nobody enters a database that is kept for a command', async (t) => {
  const { database, pool, register: enter } = opened();
  database.kept = true;
  const refused = await enter('run-1').catch((thrown: unknown) => thrown);
  t.ok(refused instanceof StoreInUse);
  t.match(refused, { message: /kept by a command/ });
  t.equal(pool.wordsOf(1).at(-1), 'ROLLBACK');
});

void t.test('a name belongs to the origin that is alive, and to the next one once that has died', async (t) => {
  const { clock, database, register: enter, pass } = opened();
  database.row = { started: 'run-0', beatAt: database.now };
  let ended = '';
  const refused = enter('run-1').catch((thrown: unknown) => (ended = String(thrown)));
  await turns();
  t.equal(ended, '', 'it looks again before it says so');
  clock.advance(100);
  database.row = { started: 'run-0', beatAt: database.now };
  await pass(250);
  await refused;
  t.match(ended, /another origin has the name north/);

  const entering = enter('run-1').then((registry) => registry.holds());
  await pass(LIVING_MS + 500);
  t.equal(await entering, true, 'the row showed no beat for so long');
  t.equal(database.row?.started, 'run-1');
});

void t.test('an origin that cannot renew its row writes for a while, and then only once it has it again', async (t) => {
  const { clock, database, pool, registry, beats, pass } = await started();
  const entries = (): number => pool.statements.filter(({ sql }) => sql.startsWith('INSERT')).length;
  database.fails = true;
  await pass(HOLD_MS - 250);
  t.equal(registry.holds(), true);
  await pass(250);
  t.equal(registry.holds(), false, 'counted from the beginning of its last beat');
  t.equal(registry.mayWork(), false);
  const told = beats.length;
  database.fails = false;
  const before = entries();
  await pass(BEAT_MS);
  t.equal(entries(), before + 1, 'the row may be gone by now');
  t.equal(registry.holds(), true);
  t.equal(beats.length, told + 1);
  await pass(BEAT_MS);
  t.equal(entries(), before + 1);

  database.row = { started: 'run-2', beatAt: database.now };
  await pass(BEAT_MS);
  t.equal(registry.holds(), false, 'another has its row');
  const seen = beats.length;
  for (let beat = 0; beat < 3; beat += 1) {
    database.row = { started: 'run-2', beatAt: database.now };
    await pass(BEAT_MS);
  }
  t.equal(registry.holds(), false);
  t.equal(beats.length, seen, 'and nothing is proved');
  await pass(LIVING_MS + BEAT_MS);
  t.equal(registry.holds(), true, 'once the other has died');
  t.ok(beats.length > seen);
  database.kept = true;
  database.row = null;
  await pass(BEAT_MS);
  t.equal(registry.holds(), false);
  await pass(BEAT_MS);
  t.equal(registry.holds(), false, 'a command keeps the database');
  await registry.release();
  t.equal(clock.pending, 0);
});

void t.test('an origin whose clock differs too much decides nothing and proves nothing', async (t) => {
  for (const aheadMs of [CLOCK_OFF_MAX_MS + 1, -CLOCK_OFF_MAX_MS - 1]) {
    const { database, registry, beats, pass } = await started();
    t.equal(registry.aheadMs(), 0);
    database.aheadMs = aheadMs;
    await pass(BEAT_MS);
    t.equal(registry.aheadMs(), aheadMs);
    t.equal(registry.holds(), true);
    t.equal(registry.mayWork(), false);
    await t.rejects(registry.origins.checkClock(), { code: 'storage_unavailable' });
    const told = beats.length;
    t.equal(told, 1);
    database.aheadMs = Math.sign(aheadMs) * CLOCK_OFF_MAX_MS;
    await pass(BEAT_MS);
    t.equal(registry.mayWork(), true);
    await registry.origins.checkClock();
    t.equal(beats.length, told + 1);
    await registry.release();
  }
});

void t.test('a command keeps all origins out for as long as it renews that', async (t) => {
  const clock = new ManualClock();
  let taken: readonly Row[] = [{ origin: 'x' }];
  let fails = false;
  const pool = createRecordedPool(({ sql }) => {
    if (fails) throw new Error('the connection was lost');
    return sql.startsWith('UPDATE about') ? taken : [];
  });
  const open = () => keepOriginsOut(pool, { clock, log, randomName: () => 'x' });
  const holding = await open();
  t.equal(holding.holds(), true);
  fails = true;
  clock.advance(14_999);
  t.equal(holding.holds(), true);
  clock.advance(1);
  t.equal(holding.holds(), false, 'it could not renew');
  await turns();
  fails = false;
  clock.advance(3_000);
  await turns();
  t.equal(holding.holds(), true, 'nobody else took it meanwhile');
  taken = [];
  clock.advance(3_000);
  await turns();
  t.equal(holding.holds(), false, 'somebody did');
  taken = [{ origin: 'x' }];
  clock.advance(3_000);
  await turns();
  t.equal(holding.holds(), false, 'and may have written');
  await holding.release();
  t.equal(clock.pending, 0);
  t.same(pool.statements.at(-1)?.parameters, ['x']);
  taken = [];
  t.ok((await open().catch((thrown: unknown) => thrown)) instanceof StoreInUse);
});
