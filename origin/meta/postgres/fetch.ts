/**
 * Fetches facts inside a transaction, and locks what a rule may change, always in the order blobs, media, jobs, dead
 * letters, trash, intents, usage, journal, each by key. Whoever adds or ends media of a blob has locked the blob first: that is what
 * makes "no live id refers to it" true until the commit. Each statement has a snapshot of its own, so those behind a lock
 * see what its former holder committed. All are one call of a function of the database (schema.ts).
 */
import type { BlobKey } from '../../blobs/blob-store.js';
import type { Fact, Facts } from './facts.js';
import type { Run } from './pool.js';
import {
  BLOB_ROWS,
  DEAD_ROWS,
  JOB_ROWS,
  JOURNAL_ROWS,
  MEDIA_ROWS,
  type Row,
  type RowTable,
  TRASH_ROWS,
  USAGE_ROWS,
} from './rows.js';
import { byteaOf, hashOf, uuidOf } from './values.js';

const LOCK_FACTS = `
  SELECT kind, fact FROM lock_facts(
    $1::bytea[], $2::uuid[], $3::bytea[], $4::text[], $5::text[], $6::bigint[], $7::text[],
    $8::smallint[], $9::smallint[], $10::text[])`;
const LOCK_JOURNAL = 'SELECT journal FROM about FOR UPDATE';
const NEWEST = 'SELECT * FROM journal ORDER BY seq DESC LIMIT 1';

const FETCHED: ReadonlyMap<string, RowTable> = new Map(
  [BLOB_ROWS, MEDIA_ROWS, JOB_ROWS, DEAD_ROWS, TRASH_ROWS, USAGE_ROWS].map((table) => [table.name, table as RowTable]),
);

/** JOB_ORDER and JOB_PRIORITIES count in opposite directions. */
const HIGHEST_PRIORITY = 2;

export async function fetchFacts(run: Run, facts: Facts, wanted: readonly Fact[]): Promise<void> {
  if (wanted.length === 0) return;
  const usage = wanted.filter((fact) => fact.kind === 'usage');
  const last = wanted.filter((fact) => fact.kind === 'last job');
  const rankOf = ({ rank }: { readonly rank: number }): number => HIGHEST_PRIORITY - rank;
  const found = await run(LOCK_FACTS, [
    wanted.filter((fact) => fact.kind === 'blob').map(({ sha256 }) => byteaOf(sha256)),
    wanted.filter((fact) => fact.kind === 'media').map(({ id }) => uuidOf(id)),
    wanted.filter((fact) => fact.kind === 'sent').map(({ sha256 }) => byteaOf(sha256)),
    wanted.filter((fact) => fact.kind === 'trash').map(({ key }) => key),
    wanted.filter((fact) => fact.kind === 'intent').map(({ key }) => key),
    usage.map(({ periodAt }) => periodAt),
    usage.map(({ owner }) => owner),
    wanted.filter((fact) => fact.kind === 'next job').map(rankOf),
    last.map(rankOf),
    last.map(({ owner }) => owner),
  ]);
  for (const row of found) add(facts, row['kind'] as string, row['fact']);
  for (const fact of wanted) facts.learn(fact);
}

/** `fact`: a hash whose blob was looked for, the key of an intent, or a row of the table that `kind` names. */
function add(facts: Facts, kind: string, fact: unknown): void {
  const table = FETCHED.get(kind);
  if (table !== undefined) facts.add(table, fact as Row);
  else if (kind === 'wanted') facts.learn({ kind: 'blob', sha256: hashOf(fact as string) });
  else facts.learnIntended((fact as Row)['key'] as BlobKey);
}

/** The last lock of a transaction: whoever has it gives out the next numbers, and nobody else does until the commit. */
export async function fetchJournal(run: Run, facts: Facts): Promise<void> {
  const [, rows] = await Promise.all([run(LOCK_JOURNAL), run(NEWEST)]);
  for (const row of rows) facts.add(JOURNAL_ROWS, row);
  facts.learnJournal();
}
