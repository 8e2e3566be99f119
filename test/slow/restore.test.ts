/** Restoring a backup into a bucket, also by a process that is killed in the middle. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { openBlobStore } from '../../origin/blobs/open.js';
import { prepareSecrets } from '../../src/dev/dev.js';
import { mediaKey } from '../kit/origin/keys.js';
import { openRestoreBench, restoreContract, storeDeps } from '../kit/origin/restore-contract.js';
import { sha256Of } from '../kit/origin/stores.js';
import { CLI, runCli } from '../kit/service.js';

t.setTimeout(150_000);

void t.test('into a bucket', (t) => restoreContract(t, 's3'));

void t.test(
  'a process that is killed in the middle leaves no metadata, and the next run finishes the restore',
  async (t) => {
    const bench = await openRestoreBench(t, 's3', async (stores) => {
      for (const text of ['one', 'two', 'three', 'four', 'five', 'six']) await stores.put(text);
    });
    await prepareSecrets(join(bench.folder, 'data'));
    await writeFile(join(bench.folder, 'config.yaml'), JSON.stringify({ origin: bench.document }));
    const environment = { ...process.env, KEY: 'key', SECRET: 'secret' };
    const inTheMiddle = new Promise<'reached'>((resolve) => {
      let sent = 0;
      bench.s3.failure = ({ method, key }) => {
        if (method === 'PUT' && key.startsWith('media/')) sent += 1;
        if (sent <= 3) return undefined;
        resolve('reached');
        return { kind: 'stall' };
      };
    });
    const run = spawn(process.execPath, [CLI, 'restore', 'backup'], {
      cwd: bench.folder,
      env: environment,
      stdio: 'ignore',
    });
    const ended = once(run, 'exit');
    t.equal(await Promise.race([inTheMiddle, ended]), 'reached');
    run.kill('SIGKILL');
    await ended;
    t.notOk(bench.metaFiles().includes('data.mdb'));
    const stored = bench.s3.objects.size;
    t.ok(stored > 0 && stored < 6, `${stored} are stored`);

    bench.s3.failure = () => undefined;
    Object.assign(process.env, { KEY: 'key', SECRET: 'secret' });
    const { code, out, err } = await runCli(bench.folder, ['restore', 'backup']);
    t.equal(code, 0, err);
    t.match(out, new RegExp(`^6 blobs and thumbnails are stored \\(${6 - stored} copied, .*start the origin\\n$`));
    t.same(bench.metaFiles(), ['data.mdb', ...bench.metaFiles().filter((name) => name !== 'data.mdb')]);
    t.notOk(bench.metaFiles().includes('incoming'));
    t.match(await runCli(bench.folder, ['restore', 'backup']), { code: 2, err: /never replaced/ });
    const blobs = await openBlobStore(bench.target.blobs, storeDeps());
    t.equal(await blobs.stat(mediaKey(sha256Of('six'))), 3);
    await blobs.close();
  },
);
