/** Whose turn it is to work for all origins: when the database is asked, and what is answered without it. No server is needed. */
import t from 'tap';
import { leasedDuties } from '../../../../origin/meta/postgres/duties.js';
import type { Row } from '../../../../origin/meta/postgres/rows.js';
import { createLog } from '../../../../src/log.js';
import { ManualClock } from '../../../kit/clock.js';
import { createRecordedPool } from '../../../kit/postgres/recorded-pool.js';

const log = createLog('test', { level: 'silent' }, { write: () => undefined });

/** Duties over a database in which another has them, nobody has, or which is lost. */
function opened() {
  const state = { others: false, taken: true, lost: false, mayWork: true, note: [] as readonly Row[] };
  const clock = new ManualClock();
  const pool = createRecordedPool(({ sql }) => {
    if (state.lost) throw new Error('the connection was lost');
    if (sql.startsWith('SELECT FROM duty')) return state.others ? [{}] : [];
    if (sql.startsWith('INSERT')) return state.taken ? [{ name: 'x' }] : [];
    return sql.startsWith('SELECT note') ? state.note : [];
  });
  const duties = leasedDuties({ pool, origin: 'north', mayWork: () => state.mayWork, clock, log });
  return { state, clock, pool, duties };
}

void t.test(
  'a duty that is free is taken for some of its intervals, and asked for again after half of that',
  async (t) => {
    for (const [everyMs, leaseMs] of [
      [60_000, 180_000],
      [1_000, 10_000],
    ] as const) {
      const { clock, pool, duties } = opened();
      t.equal(await duties.take('sweep', everyMs), true);
      t.same(
        pool.statements.map(({ parameters }) => parameters),
        [
          ['sweep', 'north'],
          ['sweep', 'north', leaseMs],
        ],
      );
      clock.advance(leaseMs / 2 - 1);
      t.equal(await duties.take('sweep', everyMs), true);
      t.equal(pool.statements.length, 2, 'without asking');
      clock.advance(1);
      t.equal(await duties.take('sweep', everyMs), true);
      t.equal(pool.statements.length, 4);
    }
  },
);

void t.test('a duty of another is asked for each time, and nothing is written for it', async (t) => {
  const { state, clock, pool, duties } = opened();
  state.others = true;
  t.equal(await duties.take('sweep', 60_000), false);
  t.equal(await duties.take('sweep', 60_000), false);
  t.same(
    pool.statements.map(({ sql }) => sql.split(' ', 2)[0]),
    ['SELECT', 'SELECT'],
  );
  state.others = false;
  state.taken = false;
  t.equal(await duties.take('sweep', 60_000), false, 'somebody was quicker');
  state.taken = true;
  t.equal(await duties.take('sweep', 60_000), true);
  clock.advance(90_000);
  state.others = true;
  t.equal(await duties.take('sweep', 60_000), false, 'another has it by now');
  const asked = pool.statements.length;
  t.equal(await duties.take('sweep', 60_000), false);
  t.equal(pool.statements.length, asked + 1, 'and the former lease does not count');
});

void t.test('who may not write, cannot ask or has left takes none', async (t) => {
  const { state, pool, duties } = opened();
  state.mayWork = false;
  t.equal(await duties.take('sweep', 60_000), false);
  t.same(pool.statements, []);
  state.mayWork = true;
  state.lost = true;
  t.equal(await duties.take('sweep', 60_000), false);
  state.lost = false;
  t.equal(await duties.take('sweep', 60_000), true);
  state.mayWork = false;
  t.equal(await duties.take('sweep', 60_000), false, 'also while its lease goes on');
  state.mayWork = true;
  state.lost = true;
  await duties.release();
  t.same(pool.statements.at(-1)?.parameters, ['north']);
  const asked = pool.statements.length;
  t.equal(await duties.take('sweep', 60_000), false);
  t.equal(pool.statements.length, asked);
});

void t.test('a duty has a note for whoever does it next', async (t) => {
  const { state, pool, duties } = opened();
  t.equal(await duties.note('walk'), undefined);
  state.note = [{ note: null }];
  t.equal(await duties.note('walk'), undefined);
  state.note = [{ note: { after: 'x' } }];
  t.same(await duties.note('walk'), { after: 'x' });
  await duties.keepNote('walk', { after: 'y' });
  t.same(pool.statements.at(-1)?.parameters, ['walk', 'north', '{"after":"y"}']);
});
