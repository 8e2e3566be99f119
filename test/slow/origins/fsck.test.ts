/** fsck and scrub beside an origin that serves, over PostgreSQL and a bucket. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import t from 'tap';
import { type RequestOptions, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { openLightS3 } from '../../kit/origin/light-s3.js';
import { openPostgres } from '../../kit/postgres/server.js';
import { asCaller, openProcesses } from '../../kit/processes.js';
import { CLI } from '../../kit/service.js';
import { FILE_HANGS_AFTER_MS } from '../../kit/until.js';

const postgres = await openPostgres();
const skip = postgres === null ? 'there is no PostgreSQL server on this machine' : false;
t.teardown(() => postgres?.close());
t.setTimeout(FILE_HANGS_AFTER_MS);

void t.test('fsck and scrub check and repair while an origin serves', { skip }, async (t) => {
  const folder = t.testdir();
  const s3 = await openLightS3();
  const processes = await openProcesses(folder);
  t.teardown(async () => {
    await processes.close();
    await s3.close();
  });
  const env = { DATABASE: (await postgres?.database()) ?? '', KEY: 'x' };
  const origin = await processes.launch(
    'origin',
    {
      thumbs: { enabled: false, video: { enabled: false } },
      meta: { adaptor: 'postgres', postgres: { url: 'env:DATABASE' } },
      blobs: {
        adaptor: 's3',
        s3: { endpoint: s3.url, bucket: s3.bucket, access_key_id: 'env:KEY', secret_access_key: 'env:KEY' },
      },
    },
    { env },
  );
  const url = await origin.ready;
  const send = (path: string, options: RequestOptions = {}) =>
    sendRequest(url + path, asCaller(processes.user, options));
  const upload = async (n: number): Promise<string> =>
    String((await send('/v1/media', { method: 'POST', body: png(n) })).headers.location);
  const run = async (...args: string[]): Promise<string> => {
    const command = [CLI, ...args, '--config', origin.configPath];
    const options = { cwd: folder, env: { ...process.env, ...env } };
    return promisify(execFile)(process.execPath, command, options).then(
      ({ stdout }) => stdout,
      (thrown: { stdout: string }) => thrown.stdout,
    );
  };

  const paths = [await upload(1), await upload(2), await upload(3)];
  // Uploads and deletes go on meanwhile.
  const over = new AbortController();
  const traffic = (async () => {
    for (let n = 10; !over.signal.aborted; n += 1) {
      const path = await upload(n);
      await sendRequest(url + path, asCaller(processes.admin, { method: 'DELETE' }));
    }
  })();
  t.match(await run('fsck', '--repair'), /^0 found, 0 repaired$/m);
  t.match(await run('scrub'), / 0 wrong$/m);
  over.abort();
  await traffic;
  t.equal((await send(paths[0] ?? '')).status, 200);

  const etag = (await send(paths[0] ?? '')).headers.etag ?? '';
  const lost = [...s3.objects.keys()].find((key) => key.startsWith(`media/${etag.slice(8, 72)}`)) ?? '';
  t.ok(s3.objects.delete(lost));
  t.match(await run('fsck', '--repair'), /repaired bytes_missing[\s\S]*1 found, 1 repaired/);
  t.equal((await send(paths[0] ?? '')).status, 403, 'it is withheld');
  t.equal((await send(paths[1] ?? '')).status, 200, 'the others are served');
  t.equal(await upload(1), paths[0], 'the same bytes heal it');
  t.equal((await send(paths[0] ?? '')).status, 200);
});
