/** Which servers are refused, each with a sentence, and what is only warned of. */
import t from 'tap';
import { metaFaults, metaSection } from '../../../../origin/meta/config.js';
import { checkServer } from '../../../../origin/meta/postgres/server/check-server.js';
import { configured } from '../../../kit/deps.js';

const GOOD = {
  version: 170_002,
  recovering: false,
  fsync: 'on',
  full_page_writes: 'on',
  synchronous_commit: 'on',
  encoding: 'UTF8',
  read_only: 'off',
  synchronous_standbys: 'FIRST 1 (s1)',
};
const check = (given: Partial<typeof GOOD>): Promise<unknown> => checkServer(async () => [{ ...GOOD, ...given }]);

void t.test('a server that could lose what was acknowledged is refused with a sentence', async (t) => {
  t.same(await check({}), []);
  t.same(await check({ version: 130_000, synchronous_commit: 'remote_apply' }), []);
  for (const [given, sentence] of [
    [{ version: 129_999 }, /older than PostgreSQL 13/],
    [{ recovering: true, read_only: 'on' }, /in recovery: it is a standby/],
    [{ read_only: 'on' }, /only read \(transaction_read_only\): name the primary/],
    [{ fsync: 'off' }, /fsync off, and would lose acknowledged writes/],
    [{ full_page_writes: 'off' }, /full_page_writes off, and would lose acknowledged writes/],
    [{ synchronous_commit: 'off' }, /synchronous_commit off, and would lose acknowledged writes/],
    [{ encoding: 'LATIN1' }, /encoding LATIN1, not UTF8/],
  ] as const) {
    await t.rejects(check(given), { message: sentence });
  }
  await t.rejects(
    checkServer(async () => []),
    { message: /does not say/ },
  );
});

void t.test('a server without a synchronous standby is warned of', async (t) => {
  t.match(await check({ synchronous_standbys: '' }), [/no synchronous standby: a failover may bring back/]);
});

void t.test('a database needs blobs that every origin reaches', async (t) => {
  const given = configured(metaSection);
  const config = { ...given, adaptor: 'postgres', postgres: { ...given.postgres, url: 'postgres://db' } } as const;
  t.same(metaFaults(config, { local: false }), []);
  t.match(metaFaults(config, { local: true }), [{ path: 'origin.meta.adaptor', message: /blobs.folder_shared: true/ }]);
  t.same(metaFaults({ ...config, adaptor: 'lmdb' }, { local: true }), []);
});
