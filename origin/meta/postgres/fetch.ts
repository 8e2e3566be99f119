/**
 * Fetches facts inside a transaction, and locks what a rule may change, always in the order blobs, media, jobs, dead
 * letters, trash, intents, usage, journal, each by key. Whoever adds or ends media of a blob has locked the blob first: that is what
 * makes "no live id refers to it" true until the commit. Each statement has a snapshot of its own, so those behind a lock
 * see what its former holder committed. All are sent at once.
 */
import type { BlobKey } from '../../blobs/blob-store.js';
import type { Fact, Facts } from './facts.js';
import type { Parameter, Run } from './pool.js';
import {
  BLOB_ROWS,
  DEAD_ROWS,
  JOB_ROWS,
  JOURNAL_ROWS,
  MEDIA_ROWS,
  type RowTable,
  TRASH_ROWS,
  USAGE_ROWS,
} from './rows.js';
import { byteaOf, hashOf, uuidOf } from './values.js';

/** Parameters: hashes of blobs, ids, hashes as sent. */
const WANTED = `
  WITH wanted AS (
    SELECT unnest($1::bytea[]) AS sha256
    UNION SELECT sha256 FROM media WHERE id = ANY ($2::uuid[])
    UNION SELECT sha256 FROM media WHERE sent_sha256 = ANY ($3::bytea[]) AND sent_sha256 <> sha256
  )`;
const lockedOf = (rows: RowTable): string =>
  `${WANTED} SELECT * FROM ${rows.name} WHERE sha256 IN (SELECT sha256 FROM wanted) ORDER BY sha256 FOR UPDATE`;
const LOCK_BLOBS = lockedOf(BLOB_ROWS);
const LOCK_JOBS = lockedOf(JOB_ROWS);
const LOCK_DEAD = lockedOf(DEAD_ROWS);
const LOCK_MEDIA = `${WANTED}
  SELECT * FROM media WHERE id IN (
    SELECT id FROM media WHERE ended IS NULL AND sha256 IN (SELECT sha256 FROM wanted)
    UNION SELECT unnest($2::uuid[])
    UNION SELECT id FROM media WHERE sent_sha256 = ANY ($3::bytea[]) AND sent_sha256 <> sha256
  ) ORDER BY id FOR UPDATE`;
const LOCK_TRASH = 'SELECT * FROM trash WHERE key = ANY ($1::text[]) ORDER BY key FOR UPDATE';
const LOCK_INTENTS = 'SELECT key FROM intent WHERE key = ANY ($1::text[]) ORDER BY key FOR UPDATE';
const LOCK_USAGE = `
  SELECT * FROM usage WHERE (period_at, owner_key) IN (SELECT * FROM unnest($1::bigint[], $2::text[]))
  ORDER BY period_at, owner_key FOR UPDATE`;
/** Parameter: the priorities as numbers in JOB_PRIORITIES. */
const NEXT_JOBS = `
  SELECT next.* FROM unnest($1::smallint[]) AS wanted(rank) CROSS JOIN LATERAL (
    SELECT * FROM job WHERE holder IS NULL AND turn IS NOT NULL AND rank = wanted.rank
    ORDER BY turn, queued_at, sha256 LIMIT 1) AS next`;
const LAST_JOBS = `
  SELECT last.* FROM unnest($1::smallint[], $2::text[]) AS wanted(rank, owner) CROSS JOIN LATERAL (
    SELECT * FROM job WHERE holder IS NULL AND turn IS NOT NULL AND rank = wanted.rank AND owner = wanted.owner
    ORDER BY turn DESC LIMIT 1) AS last`;
const LOCK_JOURNAL = 'SELECT journal FROM about FOR UPDATE';
const NEWEST = 'SELECT * FROM journal ORDER BY seq DESC LIMIT 1';

/** JOB_ORDER and JOB_PRIORITIES count in opposite directions. */
const HIGHEST_PRIORITY = 2;

export async function fetchFacts(run: Run, facts: Facts, wanted: readonly Fact[]): Promise<void> {
  const [blobs, media, sent, trash, intents, usage, next, last] = [
    wanted.filter((fact) => fact.kind === 'blob'),
    wanted.filter((fact) => fact.kind === 'media'),
    wanted.filter((fact) => fact.kind === 'sent'),
    wanted.filter((fact) => fact.kind === 'trash'),
    wanted.filter((fact) => fact.kind === 'intent'),
    wanted.filter((fact) => fact.kind === 'usage'),
    wanted.filter((fact) => fact.kind === 'next job'),
    wanted.filter((fact) => fact.kind === 'last job'),
  ];
  const fetches: Promise<void>[] = [];
  const fetch = async (table: RowTable, sql: string, parameters: readonly Parameter[]): Promise<void> => {
    for (const row of await run(sql, parameters)) facts.add(table, row);
  };
  if (blobs.length + media.length + sent.length > 0) {
    const parameters = [
      blobs.map(({ sha256 }) => byteaOf(sha256)),
      media.map(({ id }) => uuidOf(id)),
      sent.map(({ sha256 }) => byteaOf(sha256)),
    ];
    const hashes = async (): Promise<void> => {
      const found = await run(`${WANTED} SELECT sha256 FROM wanted`, parameters);
      for (const row of found) facts.learn({ kind: 'blob', sha256: hashOf(row['sha256'] as string) });
    };
    fetches.push(
      ...(media.length + sent.length > 0 ? [hashes()] : []),
      fetch(BLOB_ROWS, LOCK_BLOBS, parameters),
      fetch(MEDIA_ROWS, LOCK_MEDIA, parameters),
      fetch(JOB_ROWS, LOCK_JOBS, parameters),
      fetch(DEAD_ROWS, LOCK_DEAD, parameters),
    );
  }
  if (trash.length > 0) fetches.push(fetch(TRASH_ROWS, LOCK_TRASH, [trash.map(({ key }) => key)]));
  if (intents.length > 0) {
    const intended = async (): Promise<void> => {
      const rows = await run(LOCK_INTENTS, [intents.map(({ key }) => key)]);
      for (const row of rows) facts.learnIntended(row['key'] as BlobKey);
    };
    fetches.push(intended());
  }
  if (usage.length > 0) {
    const parameters = [usage.map(({ periodAt }) => periodAt), usage.map(({ owner }) => owner)];
    fetches.push(fetch(USAGE_ROWS, LOCK_USAGE, parameters));
  }
  const rankOf = ({ rank }: { readonly rank: number }): number => HIGHEST_PRIORITY - rank;
  if (next.length > 0) fetches.push(fetch(JOB_ROWS, NEXT_JOBS, [next.map(rankOf)]));
  if (last.length > 0) {
    const parameters = [last.map(rankOf), last.map(({ owner }) => owner)];
    fetches.push(fetch(JOB_ROWS, LAST_JOBS, parameters));
  }
  await Promise.all(fetches);
  for (const fact of wanted) facts.learn(fact);
}

/** The last lock of a transaction: whoever has it gives out the next numbers, and nobody else does until the commit. */
export async function fetchJournal(run: Run, facts: Facts): Promise<void> {
  const [, rows] = await Promise.all([run(LOCK_JOURNAL), run(NEWEST)]);
  for (const row of rows) facts.add(JOURNAL_ROWS, row);
  facts.learnJournal();
}
