/**
 * Brings the database to this release's schema: each numbered step in a transaction of its own, under a lock, so that
 * several origins may start at once. A database of a newer release is refused, and so is one whose steps were changed.
 */
import { createHash } from 'node:crypto';
import type { EpochMs } from '../../../src/clock.js';
import type { Pool, Run } from './pool.js';
import { STEPS, type Step } from './schema.js';

/** A new database becomes a store. One with records but without this row is being filled (load.ts). */
const MAKE_ABOUT = `
  INSERT INTO about (journal, made_at) SELECT $1, $2::bigint
  WHERE NOT EXISTS (SELECT FROM blob) AND NOT EXISTS (SELECT FROM media) AND NOT EXISTS (SELECT FROM journal)
  ON CONFLICT DO NOTHING RETURNING journal`;
const TABLE = `
  CREATE TABLE IF NOT EXISTS migration (version integer PRIMARY KEY, name text NOT NULL, sum text NOT NULL, at bigint NOT NULL)`;

export type About = { readonly journal: string };

/** Rejects if the database holds records that are still being moved into it. */
export async function migrate(pool: Pool, now: EpochMs, journalName: string): Promise<About> {
  await createSchema(pool, now);
  const made = await pool.run(MAKE_ABOUT, [journalName, now]);
  if (made.length > 0) return { journal: journalName };
  return readAbout(pool);
}

/** All steps that this release has. */
export async function createSchema(pool: Pool, now: EpochMs): Promise<void> {
  await pool.run(TABLE).catch((thrown: unknown) => ignoreRace(pool, thrown));
  for (const step of STEPS) {
    await pool.transact(async (run) => {
      await run('LOCK TABLE migration IN EXCLUSIVE MODE');
      const done = await run('SELECT version, name, sum FROM migration ORDER BY version');
      checkHistory(done.map((row) => ({ version: row['version'] as number, sum: row['sum'] as string })));
      if (!done.some((row) => row['version'] === step.version)) await take(run, step, now);
      await run('COMMIT');
    });
  }
}

export async function readAbout(pool: Pool): Promise<About> {
  const [made] = await pool.run("SELECT to_regclass('about') IS NOT NULL AS there");
  if (made?.['there'] !== true) throw new Error('the database contains no metadata');
  const [about] = await pool.run('SELECT journal FROM about');
  if (about === undefined) {
    throw new Error('the database holds a move that has not ended: run `media-service migrate` again');
  }
  return { journal: about['journal'] as string };
}

async function take(run: Run, { version, name, sql }: Step, now: EpochMs): Promise<void> {
  await run(sql);
  const values = [version, name, sumOf(sql), now] as const;
  await run('INSERT INTO migration (version, name, sum, at) VALUES ($1, $2, $3, $4)', values);
}

function checkHistory(done: readonly { readonly version: number; readonly sum: string }[]): void {
  const newest = STEPS.at(-1)?.version ?? 0;
  const last = done.at(-1)?.version ?? 0;
  if (last > newest) {
    throw new Error(`the database was written by a newer release (schema ${last}; this one knows up to ${newest})`);
  }
  for (const { version, sum } of done) {
    const step = STEPS.find((one) => one.version === version);
    if (step === undefined || sumOf(step.sql) !== sum) {
      throw new Error(`the database was made with another step ${version} of the schema than this release has`);
    }
  }
}

function sumOf(sql: string): string {
  return createHash('sha256').update(sql).digest('hex');
}

/** Two that create the table at once: one of them fails on a name that is taken, and the table is there. */
async function ignoreRace(pool: Pool, thrown: unknown): Promise<void> {
  const [found] = await pool.run("SELECT to_regclass('migration') IS NOT NULL AS there");
  if (found?.['there'] !== true) throw thrown;
}

/** After a move away: no origin starts on it any more, and its records stay until somebody drops them. */
export async function closeStore(pool: Pool): Promise<void> {
  await pool.run('DELETE FROM about');
}
