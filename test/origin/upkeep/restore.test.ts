/** Restoring a backup into a folder, and backups and buckets that cannot be used. test/slow/restore.test.ts restores into a bucket. */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openRestoreBench, restoreContract } from '../../kit/origin/restore-contract.js';

void t.test('into a folder', (t) => restoreContract(t, 'local'));

void t.test('a folder that is no backup is refused, and nothing is created', async (t) => {
  const bench = await openRestoreBench(t, 'local', async () => undefined);
  rmSync(join(bench.backup, 'blobs'), { recursive: true });
  t.equal(await bench.restore(), 2);
  t.match(bench.printed.at(-1), /backup is not a backup: there is no blobs in it/);
  rmSync(join(bench.backup, 'meta'), { recursive: true });
  t.equal(await bench.restore(), 2);
  t.match(bench.printed.at(-1), /there is no meta and no blobs in it/);
  t.notOk(existsSync(join(bench.folder, 'latter')));
});

void t.test(
  'the reason why a bucket cannot be used is reported; one that fails during the restore leaves no metadata',
  async (t) => {
    const bench = await openRestoreBench(t, 's3', async (stores) => void (await stores.put('one')));
    bench.s3.failure = () => ({ kind: 'status', status: 403, code: 'AccessDenied' });
    await t.rejects(bench.restore(), { message: /^The storage cannot be used at the moment\..*AccessDenied/ });
    bench.s3.failure = ({ method, key }) =>
      method === 'PUT' && key.startsWith('media/') ? { kind: 'status', status: 403, code: 'AccessDenied' } : undefined;
    await t.rejects(bench.restore(), { code: 'storage_unavailable' });
    t.same(bench.metaFiles(), []);
    bench.s3.failure = () => undefined;
    t.equal(await bench.restore(), 0);
  },
);
