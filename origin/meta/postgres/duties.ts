/** Duties as rows with a lease, by the clock of the database. */
import type { Clock } from '../../../src/clock.js';
import { errorFields, type Log } from '../../../src/log.js';
import type { Duties, DutyName } from '../origins/duties.js';
import type { Pool } from './pool.js';
import { SERVER_NOW } from './values.js';

export type LeasedDuties = Duties & {
  /** Leaves them to the others at once. */
  release(): Promise<void>;
};

export type LeasedDutiesDeps = {
  readonly pool: Pool;
  readonly origin: string;
  /** Whether this origin may work for all: not if it may not write, or if its clock is off. */
  readonly mayWork: () => boolean;
  readonly clock: Pick<Clock, 'monotonicMs'>;
  readonly log: Log;
};

/** A short interval must not make every origin take the duty in turn. */
const LEASE_MIN_MS = 10_000;
const INTERVALS_PER_LEASE = 3;

/** Whether somebody else has it: most are asked for in vain, which must not write. */
const OTHERS = `SELECT FROM duty WHERE name = $1 AND holder <> $2 AND until >= ${SERVER_NOW}`;
const TAKE = `
  INSERT INTO duty (name, holder, until) VALUES ($1, $2, ${SERVER_NOW} + $3)
  ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
  WHERE duty.holder = excluded.holder OR duty.until < ${SERVER_NOW} RETURNING name`;
const RELEASE = 'UPDATE duty SET until = 0 WHERE holder = $1';
const NOTE = 'SELECT note FROM duty WHERE name = $1';
const KEEP_NOTE = 'UPDATE duty SET note = $3::jsonb WHERE name = $1 AND holder = $2';

export function leasedDuties({ pool, origin, mayWork, clock, log }: LeasedDutiesDeps): LeasedDuties {
  /** Until when a duty need not be taken again, by the monotonic clock. */
  const heldUntilMs = new Map<DutyName, number>();
  let released = false;

  async function lease(name: DutyName, leaseMs: number): Promise<boolean> {
    const askedMs = clock.monotonicMs();
    const [taken] =
      (await pool.run(OTHERS, [name, origin])).length > 0 ? [] : await pool.run(TAKE, [name, origin, leaseMs]);
    if (taken === undefined) heldUntilMs.delete(name);
    else heldUntilMs.set(name, askedMs + leaseMs / 2);
    return taken !== undefined;
  }

  return {
    async take(name, everyMs) {
      if (released || !mayWork()) return false;
      if (clock.monotonicMs() < (heldUntilMs.get(name) ?? Number.NEGATIVE_INFINITY)) return true;
      try {
        return await lease(name, Math.max(LEASE_MIN_MS, INTERVALS_PER_LEASE * everyMs));
      } catch (thrown) {
        log.warn({ duty: name, ...errorFields(thrown) }, 'whose turn it is cannot be read from the database');
        return false;
      }
    },
    async note(name) {
      const [row] = await pool.run(NOTE, [name]);
      return row?.['note'] ?? undefined;
    },
    async keepNote(name, note) {
      await pool.run(KEEP_NOTE, [name, origin, JSON.stringify(note)]);
    },
    async release() {
      released = true;
      await pool.run(RELEASE, [origin]).catch(() => undefined);
    },
  };
}
