/** Intents and the trash in PostgreSQL: what is asked for together, and which bytes nobody names. No server is needed. */
import t from 'tap';
import { mediaKey, NO_PLACE, sourceOf } from '../../../../origin/blobs/blob-store.js';
import { createPlaces, trashIntents } from '../../../../origin/meta/postgres/places.js';
import type { Parameter } from '../../../../origin/meta/postgres/pool.js';
import { BLOB_ROWS } from '../../../../origin/meta/postgres/rows.js';
import { byteaOf } from '../../../../origin/meta/postgres/values.js';
import type { Sha256 } from '../../../../src/ids.js';
import { ManualClock } from '../../../kit/clock.js';
import { blobRecord } from '../../../kit/origin/meta/blob-record.js';
import { type Answer, createRecordedPool } from '../../../kit/postgres/recorded-pool.js';

const DAY_MS = 86_400_000;
const A = 'a'.repeat(64) as Sha256;
const keyOf = (digit: string) => mediaKey({ sha256: digit.repeat(64) as Sha256, place: NO_PLACE });
const [a, b, c] = [keyOf('a'), keyOf('b'), keyOf('c')];
/** The record that names `a`. */
const NAMED = BLOB_ROWS.rowOf(A, {
  blob: blobRecord({ sha256: A }),
  unreferencedAt: null,
  markSeq: 0,
});

const isOf = ([keys]: readonly Parameter[], key: string): boolean => Array.isArray(keys) && keys.includes(key);

function placesOver(answer?: Answer) {
  const pool = createRecordedPool(answer);
  const clock = new ManualClock();
  return { pool, clock, places: createPlaces(pool, 'north', clock) };
}

void t.test('intents that come while others are written wait for one statement for all of them', async (t) => {
  let letGo = (): void => undefined;
  const { pool, clock, places } = placesOver(({ parameters }) =>
    isOf(parameters, a) ? new Promise((resolve) => (letGo = () => resolve([]))) : [],
  );
  const first = places.intend([a]);
  await new Promise(setImmediate);
  const done: string[] = [];
  const rest = [places.intend([b]).then(() => done.push('b')), places.intend([c]).then(() => done.push('c'))];
  await new Promise(setImmediate);
  t.equal(pool.statements.length, 1);
  letGo();
  await Promise.all([first, ...rest]);
  t.match(pool.statements[0]?.sql, /^INSERT INTO intent .*'synchronous_commit', 'off'/, 'it costs no sync');
  t.same(
    pool.statements.map(({ parameters }) => parameters),
    [
      [[a], clock.now(), 'north'],
      [[b, c], clock.now(), 'north'],
    ],
  );
  await places.intend([]);
  t.same(await places.withdraw([]), []);
  t.equal(pool.statements.length, 2, 'nothing is asked for no keys');
});

void t.test('a failure is a fault, and the next intents are written all the same', async (t) => {
  const { pool, places } = placesOver(({ parameters }) => {
    if (isOf(parameters, a)) throw new Error('lost');
    return [];
  });
  await t.rejects(places.intend([a]), { code: 'storage_unavailable' });
  await places.intend([b]);
  t.equal(pool.statements.length, 2);
});

void t.test(
  'who withdraws is told which of its own bytes nobody names, also where a crash took the intent',
  async (t) => {
    const [d, e] = [keyOf('d'), keyOf('e')];
    const { pool, places } = placesOver(({ sql }) => {
      if (sql.startsWith('DELETE')) return [{ key: a }, { key: b }];
      if (sql.includes('FROM blob')) return [NAMED];
      return [{ key: e }];
    });
    t.same(await places.withdraw([a, b]), [b], 'one is named by a record');
    t.same(pool.statements.at(-1)?.parameters, [[byteaOf(A), byteaOf('b'.repeat(64))]]);
    const asked = pool.statements.length;
    t.same(await places.withdraw([a, b, d, e]), [b, d], 'two had no intent any more, of which one is in the trash');
    t.ok(pool.statements.length > asked);
  },
);

void t.test('bytes are left behind which no intent, no record and no trash names, asked in this order', async (t) => {
  const d = keyOf('d');
  let asked = 0;
  const { pool, places } = placesOver(({ sql }) => {
    if (sql.includes('FROM blob')) return [NAMED];
    asked += 1;
    // A key may go on into the trash meanwhile.
    return asked === 1 ? [{ key: b }] : [{ key: c }];
  });
  t.same(await places.leftBehind([a, b, c, d]), [d]);
  t.same(
    pool.statements.map(({ parameters }) => parameters[0]),
    [[a, b, c, d], [a, c, d].map((key) => byteaOf(sourceOf(key))), [c, d]],
  );
  const none = placesOver();
  t.same(await none.places.leftBehind([]), []);
  t.same(none.pool.statements, []);
});

void t.test('intents of a day ago become trash, and the trash is read and emptied by its keys', async (t) => {
  const { pool, clock, places } = placesOver(({ sql }) =>
    sql.startsWith('SELECT key') ? [{ key: a }, { key: b }] : [],
  );
  t.same(await places.trash(7, 5), [a, b]);
  await places.emptied([a]);
  await trashIntents(pool, undefined);
  await trashIntents(pool, 'north');
  t.same(
    pool.statements.map(({ parameters }) => parameters),
    [[clock.now() - DAY_MS], [7, 5], [[a]], [], ['north']],
  );
});

void t.test('what could not be withdrawn while the database was away is given up when it is back', async (t) => {
  let away = true;
  const { pool, clock, places } = placesOver(({ sql }) => {
    if (away) throw new Error('away');
    return sql.includes('FROM blob') ? [NAMED] : [];
  });
  await t.rejects(places.withdraw([a, b]), { code: 'storage_unavailable' });
  await places.withdrawLate();
  away = false;
  const before = pool.statements.length;
  await places.withdrawLate();
  const made = pool.statements.slice(before);
  t.same(made[0]?.parameters, [[a, b]], 'an attempt that fails is made again');
  t.match(made[0]?.sql, /DELETE FROM intent WHERE key = ANY(.|\n)*INSERT INTO trash/);
  t.match(made.at(-1)?.sql, /^INSERT INTO trash/);
  t.same(made.at(-1)?.parameters, [[b], clock.now()], 'bytes whose intent a crash took are in the trash as well');
  await places.withdrawLate();
  t.equal(pool.statements.length, before + made.length);
});

void t.test('what the database refuses to give up is given up at a later beat', async (t) => {
  let fails = 2;
  const { pool, places } = placesOver(({ sql }) => {
    if (fails > 0 && (fails === 2 || sql.startsWith('INSERT INTO trash'))) {
      fails -= 1;
      throw new Error('away');
    }
    return [];
  });
  await t.rejects(places.withdraw([a]), { code: 'storage_unavailable' });
  await places.withdrawLate();
  await places.withdrawLate();
  t.same(pool.statements.at(-1)?.parameters?.[0], [a]);
  t.match(pool.statements.at(-1)?.sql, /^INSERT INTO trash/);
});
