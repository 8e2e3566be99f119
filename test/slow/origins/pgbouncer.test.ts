/** Stores and origins that reach PostgreSQL through PgBouncer in transaction mode. */
import { randomUUID } from 'node:crypto';
import t from 'tap';
import type { MetaStore } from '../../../origin/meta/store.js';
import type { JournalEntry } from '../../../src/journal/entry.js';
import { type MetaUnderTest, metaContract, T0, uploadOf } from '../../kit/origin/meta/contract.js';
import { openPgBouncer } from '../../kit/postgres/pgbouncer.js';
import { openPostgres } from '../../kit/postgres/server.js';
import { openStore } from '../../kit/postgres/stores.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../../kit/until.js';

t.setTimeout(3 * FILE_HANGS_AFTER_MS);

const postgres = await openPostgres();
const pgbouncer = postgres === null ? null : await openPgBouncer(postgres);
const skip = pgbouncer === null ? 'there is no PostgreSQL server or no PgBouncer on this machine' : false;
t.teardown(async () => {
  await pgbouncer?.close();
  await postgres?.close();
});

async function database(): Promise<string> {
  return pgbouncer?.through((await postgres?.database()) ?? '') ?? '';
}

void t.test('the store fulfils the contract of metadata stores', { skip }, async (t) => {
  const urls = new Map<MetaStore, string>();
  const open = async (url: string): Promise<MetaStore> => {
    const store = await openStore(url, { kind: 'alone' });
    urls.set(store, url);
    return store;
  };
  const kit: MetaUnderTest = {
    usedStepMs: 10,
    histories: 4,
    fresh: async () => open(await database()),
    async again(store) {
      await store.close();
      return open(urls.get(store) ?? '');
    },
  };
  await metaContract(t, kit);
});

void t.test('two origins with more requests than connections to the server lose no entry', { skip }, async (t) => {
  const url = await database();
  const stores: MetaStore[] = [];
  for (const name of ['a', 'b']) {
    const store = await openStore(url, { kind: 'origin', name });
    t.teardown(() => store.close());
    stores.push(store);
  }
  const heard = stores.map((store) => {
    const entries: JournalEntry[] = [];
    store.journal.subscribe((entry) => entries.push(entry));
    return entries;
  });
  const hashOf = (n: number) => n.toString(16).padStart(64, '0') as Parameters<typeof uploadOf>[0];
  const uploads = Array.from({ length: 200 }, (_, n) => uploadOf(hashOf(n)));
  const at = (n: number): MetaStore => stores[n % 2] as MetaStore;
  await Promise.all(uploads.map((upload, n) => at(n).commitUpload(upload)));
  await Promise.all(uploads.map(({ id }, n) => at(n + 1).remove(id, `admin-${randomUUID()}`, T0)));
  await untilAsync('both have heard all', async () => heard.every((entries) => entries.length === uploads.length));
  const numbers = uploads.map((_, n) => n + 1);
  for (const entries of heard) {
    t.same(
      entries.map(({ seq }) => seq),
      numbers,
    );
  }
});
