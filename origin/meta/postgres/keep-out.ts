/**
 * Keeps all origins out of the database while a command needs it for itself: a lease in the row `about`, by the clock of
 * the database. It is refused until every origin has left, or has not been heard of for as long as it may write.
 */
import type { Clock } from '../../../src/clock.js';
import { errorFields, type Log } from '../../../src/log.js';
import { StoreInUse } from '../store.js';
import type { Pool } from './pool.js';
import { HOLD_MS, type Holding } from './registry.js';
import { SERVER_NOW } from './values.js';

export type KeepOutDeps = { readonly clock: Clock; readonly log: Log; readonly randomName: () => string };

const LEASE_MS = 15_000;
const RENEW_MS = 3_000;
const LOCK = 'SELECT FROM about FOR UPDATE';
/** An origin that renews its row at this moment has it locked, so this waits and then leaves it. */
const END_LAPSED = `DELETE FROM origin WHERE beat_at < ${SERVER_NOW} - ${HOLD_MS}`;
const TAKE = `
  UPDATE about SET origin = $1, origin_until = ${SERVER_NOW} + $2
  WHERE (origin IS NULL OR origin = $1 OR origin_until < ${SERVER_NOW}) AND NOT EXISTS (SELECT FROM origin)
  RETURNING origin`;
const RENEW = `UPDATE about SET origin_until = ${SERVER_NOW} + $2 WHERE origin = $1 RETURNING origin`;
const RELEASE = 'UPDATE about SET origin = NULL, origin_until = NULL WHERE origin = $1';

/** Rejects with StoreInUse while an origin or another command has the database. */
export async function keepOriginsOut(pool: Pool, { clock, log, randomName }: KeepOutDeps): Promise<Holding> {
  const name = randomName();
  let askedMs = clock.monotonicMs();
  const taken = await pool.transact(async (run) => {
    const [, , rows] = await Promise.all([run(LOCK), run(END_LAPSED), run(TAKE, [name, LEASE_MS]), run('COMMIT')]);
    return rows.length > 0;
  });
  if (!taken) {
    throw new StoreInUse(
      'the database is in use by an origin: stop every origin first, or give this one another database',
    );
  }
  let heldAtMs = askedMs;
  let lost = false;
  let released = false;
  let timer = clock.after(RENEW_MS, renew);
  let renewing: Promise<void> = Promise.resolve();

  function renew(): void {
    askedMs = clock.monotonicMs();
    renewing = pool
      .run(RENEW, [name, LEASE_MS])
      .then(
        (rows) => {
          lost ||= rows.length === 0;
          if (!lost) heldAtMs = askedMs;
        },
        (thrown: unknown) => log.warn(errorFields(thrown), 'the lease of the database cannot be renewed at the moment'),
      )
      .then(() => {
        if (!released) timer = clock.after(RENEW_MS, renew);
      });
  }

  return {
    holds: () => !lost && clock.monotonicMs() < heldAtMs + LEASE_MS,
    async release() {
      released = true;
      timer.cancel();
      await renewing;
      await pool.run(RELEASE, [name]).catch(() => undefined);
    },
  };
}
