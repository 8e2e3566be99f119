/** Databases on which no origin starts, each refused with a sentence: a server of the system, set up wrongly. */
import t from 'tap';
import { openPostgres } from '../../kit/postgres/server.js';
import { openStore } from '../../kit/postgres/stores.js';

const postgres = await openPostgres();
const skip = postgres === null ? 'there is no PostgreSQL server on this machine' : false;
t.teardown(() => postgres?.close());

async function prepared(sql: string): Promise<string> {
  const url = (await postgres?.database()) ?? '';
  const store = await openStore(url, { kind: 'origin', name: 'a' });
  await store.close();
  await postgres?.query(url, sql.replace('DATABASE', `DATABASE ${new URL(url).pathname.slice(1)}`));
  return url;
}

void t.test(
  'a database that may only be read, or that confirms what it has not synced, is refused',
  { skip },
  async (t) => {
    for (const [sql, sentence] of [
      ['ALTER DATABASE SET default_transaction_read_only = on', /only read \(transaction_read_only\)/],
      ['ALTER DATABASE SET synchronous_commit = off', /synchronous_commit off/],
    ] as const) {
      await t.rejects(openStore(await prepared(sql), { kind: 'origin', name: 'a' }), { message: sentence });
    }
  },
);
