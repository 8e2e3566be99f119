/** What a database must be before an origin trusts it with acknowledged writes, and what an operator should know of it. */
import type { Run } from '../pool.js';
import type { Row } from '../rows.js';

const OLDEST_VERSION = 130_000;
const SERVER = `
  SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS recovering,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('server_encoding') AS encoding,
    current_setting('transaction_read_only') AS read_only,
    current_setting('synchronous_standby_names') AS synchronous_standbys`;

/** Rejects for a server on which an acknowledged write could be lost or not be written at all. Resolves with warnings. */
export async function checkServer(run: Run): Promise<readonly string[]> {
  const [row] = await run(SERVER);
  if (row === undefined) throw new Error('the database does not say how it is set up');
  const reason = refusalOf(row);
  if (reason !== undefined) throw new Error(reason);
  return row['synchronous_standbys'] === ''
    ? ['the database has no synchronous standby: a failover may bring back what was taken down']
    : [];
}

function refusalOf(row: Row): string | undefined {
  if ((row['version'] as number) < OLDEST_VERSION) return 'the database server is older than PostgreSQL 13';
  if (row['recovering'] === true) return 'the database is in recovery: it is a standby, or has not finished starting';
  if (row['read_only'] !== 'off') {
    return 'the database lets this user only read (transaction_read_only): name the primary, or a user that may write';
  }
  for (const name of ['fsync', 'full_page_writes']) {
    if (row[name] !== 'on') return `the database runs with ${name} off, and would lose acknowledged writes`;
  }
  if (row['synchronous_commit'] === 'off') {
    return 'the database runs with synchronous_commit off, and would lose acknowledged writes';
  }
  if (row['encoding'] !== 'UTF8') return `the database has the encoding ${String(row['encoding'])}, not UTF8`;
  return undefined;
}
