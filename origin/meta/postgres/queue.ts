/** The queue of thumbnail jobs (interface: jobs.ts) in PostgreSQL. Who claims a job locks it and skips those that others lock. */
import type { EpochMs } from '../../../src/clock.js';
import type { Sha256 } from '../../../src/ids.js';
import type { Log } from '../../../src/log.js';
import type { Change } from '../database.js';
import { JOB_PRIORITIES, OWN_JOBS } from '../jobs.js';
import {
  buryJob,
  changeLeased,
  claimJobs,
  createJobListeners,
  giveJobBack,
  liftJob,
  type MetaJobs,
  queueJob,
  retryJob,
  reviveJobs,
} from '../queue.js';
import { JOB_ORDER, JOBS, write } from '../tables.js';
import type { Fact, Facts } from './facts.js';
import type { Pool, Run } from './pool.js';
import { hashesIn } from './reads.js';
import { DEAD_ROWS, JOB_ROWS } from './rows.js';
import { byteaOf } from './values.js';
import type { Writes } from './writes.js';

const LAPSED = `
  SELECT * FROM job WHERE holder IS NOT NULL AND lease_until <= $1 ORDER BY lease_until, sha256 LIMIT $2
  FOR UPDATE SKIP LOCKED`;
const IN_TURN = `
  SELECT * FROM job WHERE holder IS NULL AND turn IS NOT NULL AND rank = $1 ORDER BY turn, queued_at, sha256 LIMIT $2
  FOR UPDATE SKIP LOCKED`;
const DUE = `
  SELECT * FROM job WHERE holder IS NULL AND turn IS NULL AND rank = $1 AND ready_at <= $2
  ORDER BY ready_at, queued_at, sha256 LIMIT $3 FOR UPDATE SKIP LOCKED`;
/** Whether a claim would find anything: it is asked often. */
const ANY = `
  SELECT EXISTS (SELECT FROM job WHERE holder IS NOT NULL AND lease_until <= $1)
    OR EXISTS (SELECT FROM job WHERE holder IS NULL AND turn IS NOT NULL)
    OR EXISTS (SELECT FROM job WHERE holder IS NULL AND turn IS NULL AND ready_at <= $1) AS any`;
const NEXT = `
  SELECT least(
    (SELECT min(lease_until) FROM job WHERE holder IS NOT NULL),
    (SELECT min(queued_at) FROM job WHERE holder IS NULL AND turn IS NOT NULL),
    (SELECT min(ready_at) FROM job WHERE holder IS NULL AND turn IS NULL)) AS at`;
const COUNTS = `
  SELECT count(*) FILTER (WHERE holder IS NULL) AS waiting, count(holder) AS leased,
    (SELECT count(*) FROM dead) AS dead FROM job`;
const NEWEST_DEAD = 'SELECT * FROM dead ORDER BY died_at DESC, sha256 DESC LIMIT $1';
const ENDED = `
  SELECT wanted.sha256 FROM unnest($1::bytea[]) AS wanted(sha256) LEFT JOIN blob USING (sha256)
  WHERE blob.sha256 IS NULL OR blob.thumbs->>'kind' <> 'pending'`;
const OLDEST_DEAD = 'SELECT sha256 FROM dead ORDER BY died_at, sha256 LIMIT $1';

const RANKS = Object.values(JOB_PRIORITIES);
/** Most lapsed leases that one claim ends. */
const LAPSED_MAX = 1_000;

/** `aheadMs`: how far the clock of the database, by which leases end, is ahead of the one of this machine. */
export function createQueue(
  pool: Pool,
  writes: () => Writes,
  aheadMs: () => number,
  askEveryMs: number,
  log: Log,
): MetaJobs {
  const change = <T>(sha256: Sha256, rule: (change: Change) => T, more: readonly Fact[] = []): Promise<T> =>
    writes().run({ rule, facts: [{ kind: 'blob', sha256 }, ...more], urgency: 'may_fail' });

  const toServer = (at: EpochMs): EpochMs => at + aheadMs();

  return {
    add: (sha256, priority, now, owner = OWN_JOBS) => {
      const rank = JOB_ORDER[priority];
      const turns: readonly Fact[] = [
        { kind: 'next job', rank },
        { kind: 'last job', rank, owner },
      ];
      return change(sha256, (one) => queueJob(one, sha256, priority, now, owner), turns);
    },
    lift: (sha256, priority) => change(sha256, (one) => liftJob(one, sha256, priority)),
    async claim(leaseholder, limit, at, leaseMs) {
      if (limit <= 0) return [];
      const now = toServer(at);
      const [found] = await pool.run(ANY, [now]);
      if (found?.['any'] !== true) return [];
      return writes().runAlone(
        (run, facts) => fetchClaimable(run, facts, limit, now),
        (one) => claimJobs(one, leaseholder, limit, now, leaseMs),
      );
    },
    renew: (sha256, leaseholder, until) =>
      change(sha256, (one) =>
        changeLeased(one, sha256, leaseholder, (job) => ({
          ...job,
          lease: { holder: leaseholder, until: toServer(until) },
        })),
      ),
    drop: (sha256) => change(sha256, (one) => write(one.writer, JOBS, sha256, undefined)),
    async retry(sha256, leaseholder, readyAt, priority) {
      await change(sha256, (one) => retryJob(one, sha256, leaseholder, toServer(readyAt), priority));
    },
    async giveBack(sha256, leaseholder, readyAt) {
      await change(sha256, (one) =>
        giveJobBack(one, sha256, leaseholder, readyAt === undefined ? undefined : toServer(readyAt)),
      );
    },
    bury: (sha256, reason, now, refusal) =>
      change(sha256, (one) => buryJob(one, sha256, reason, now, refusal ?? 'failed')),
    async dead(limit) {
      return (await pool.run(NEWEST_DEAD, [limit])).map((row) => DEAD_ROWS.valueOf(row));
    },
    revive: (limit, now) =>
      writes().runAlone(
        async (run, facts) => {
          facts.learnWhole('dead_order');
          const hashes = await hashesIn(run, OLDEST_DEAD, [limit]);
          return hashes.map((sha256): Fact => ({ kind: 'blob', sha256 }));
        },
        (one) => reviveJobs(one, limit, now),
      ),
    async counts() {
      const [row] = await pool.run(COUNTS);
      return { waiting: row?.['waiting'] as number, leased: row?.['leased'] as number, dead: row?.['dead'] as number };
    },
    others: {
      askEveryMs,
      ended: (blobs) => hashesIn(pool.run, ENDED, [blobs.map(byteaOf)]),
    },
    async nextReadyAt() {
      const [row] = await pool.run(NEXT);
      const at = row?.['at'] as EpochMs | null;
      return at === null ? null : at - aheadMs();
    },
    ...createJobListeners(log),
  };
}

async function fetchClaimable(run: Run, facts: Facts, limit: number, now: EpochMs): Promise<readonly Fact[]> {
  const fetched = await Promise.all([
    run(LAPSED, [now, LAPSED_MAX]),
    ...RANKS.flatMap((rank) => [run(IN_TURN, [rank, limit]), run(DUE, [rank, now, limit])]),
  ]);
  for (const row of fetched.flat()) {
    facts.add(JOB_ROWS, row);
    facts.learn({ kind: 'blob', sha256: JOB_ROWS.keyOf(row) });
  }
  facts.learnWhole('job_lease', 'job_ready');
  return [];
}
