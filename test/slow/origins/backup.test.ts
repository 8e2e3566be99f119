/** Backups go from any pair of stores into any other: PostgreSQL and a bucket, the embedded store and a folder, and back. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { type RequestOptions, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { openLightS3 } from '../../kit/origin/light-s3.js';
import { PATCH } from '../../kit/origin/tus-requests.js';
import { openPostgres } from '../../kit/postgres/server.js';
import { asCaller, type Launched, openProcesses } from '../../kit/processes.js';
import { CLI } from '../../kit/service.js';
import { FILE_HANGS_AFTER_MS } from '../../kit/until.js';

const postgres = await openPostgres();
const skip = postgres === null ? 'there is no PostgreSQL server on this machine' : false;
t.teardown(() => postgres?.close());
t.setTimeout(FILE_HANGS_AFTER_MS);

void t.test('a backup of one pair of stores is restored into another, and back', { skip }, async (t) => {
  const folder = t.testdir();
  const s3 = await openLightS3();
  const processes = await openProcesses(folder);
  t.teardown(async () => {
    await processes.close();
    await s3.close();
  });
  const databases = [(await postgres?.database()) ?? '', (await postgres?.database()) ?? ''];
  const envOf = (n: number) => ({ DATABASE: databases[n] ?? '', KEY: 'x' });
  const still = { thumbs: { enabled: false, video: { enabled: false } } };
  const shared = (prefix: string) => ({
    ...still,
    meta: { adaptor: 'postgres', postgres: { url: 'env:DATABASE' } },
    blobs: {
      adaptor: 's3',
      stage_folder: `./data/${prefix}/stage`,
      s3: {
        endpoint: s3.url,
        bucket: s3.bucket,
        prefix: `${prefix}/`,
        access_key_id: 'env:KEY',
        secret_access_key: 'env:KEY',
      },
    },
  });
  const embedded = {
    ...still,
    meta: { folder: './data/embedded/meta' },
    blobs: { folder: './data/embedded/blobs', stage_folder: './data/embedded/stage' },
  };
  const send = async (origin: Launched, path: string, options: RequestOptions = {}) =>
    sendRequest((await origin.ready) + path, asCaller(processes.user, options));
  const run = async (
    origin: Pick<Launched, 'configPath'>,
    env: Readonly<Record<string, string>>,
    ...args: string[]
  ): Promise<string> => {
    const command = [CLI, ...args, '--config', origin.configPath];
    const options = { cwd: folder, env: { ...process.env, ...env } };
    return (await promisify(execFile)(process.execPath, command, options)).stdout;
  };

  const first = await processes.launch('origin', shared('first'), { as: 'first', env: envOf(0) });
  const paths: string[] = [];
  for (const n of [1, 2, 3]) {
    paths.push(String((await send(first, '/v1/media', { method: 'POST', body: png(n) })).headers.location));
  }
  const begun = { ...PATCH, 'upload-length': '100' };
  const unfinished = await send(first, '/v1/uploads', { method: 'POST', headers: begun, body: Buffer.from('abc') });
  t.equal(unfinished.status, 201);
  t.match(await run(first, envOf(0), 'backup', join(folder, 'one')), /3 blobs and thumbnails: 3 new/);
  await first.stop();

  const second = await rewritten('second', embedded);
  t.match(await run(second, {}, 'restore', join(folder, 'one')), /start the origin/);
  const served = await processes.launch('origin', embedded, { as: 'second' });
  for (const [n, path] of paths.entries()) t.ok((await send(served, path)).bytes.equals(png(n + 1)), path);
  const gone = String(unfinished.headers.location);
  t.equal((await send(served, gone, { method: 'HEAD', headers: { 'tus-resumable': '1.0.0' } })).status, 404);
  await run(served, {}, 'backup', join(folder, 'two'));
  await served.stop();

  const third = await rewritten('third', shared('third'));
  t.match(await run(third, envOf(1), 'restore', join(folder, 'two')), /start the origin/);
  const back = await processes.launch('origin', shared('third'), { as: 'third', env: envOf(1) });
  for (const [n, path] of paths.entries()) t.ok((await send(back, path)).bytes.equals(png(n + 1)), path);

  /** A configuration for a command, of an origin that does not run. */
  async function rewritten(
    as: string,
    section: Readonly<Record<string, unknown>>,
  ): Promise<Pick<Launched, 'configPath'>> {
    const never = await processes.launch('origin', section, { as, cli: join(folder, 'no-such-program.js') });
    await t.rejects(never.ready);
    return never;
  }
});
