/**
 * PgBouncer of the system before a test's PostgreSQL server, in transaction mode: each transaction gets one of a few
 * connections to the server, so nothing that a session would keep may be relied on. Null where it is not installed.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ownPort } from '../ports.js';
import { untilAsync } from '../until.js';
import { idsOf, type TestPostgres } from './server.js';

const PROGRAM = '/usr/sbin/pgbouncer';
/** Fewer than a store opens to it. */
const SERVER_CONNECTIONS = 4;

export type TestPgBouncer = {
  /** The same database, by way of PgBouncer. */
  through(url: string): string;
  close(): Promise<void>;
};

export async function openPgBouncer(postgres: TestPostgres): Promise<TestPgBouncer | null> {
  if (!existsSync(PROGRAM)) return null;
  // It refuses to run as root, as the server does.
  const user = process.getuid?.() === 0 ? await idsOf('postgres') : null;
  const root = await mkdtemp(join(tmpdir(), 'pgbouncer-'));
  if (user !== null) await chown(root, user.uid, user.gid);
  const port = await ownPort();
  const settings = [
    '[databases]',
    `* = host=127.0.0.1 port=${postgres.port} user=media`,
    '[pgbouncer]',
    'listen_addr = 127.0.0.1',
    `listen_port = ${port}`,
    'unix_socket_dir =',
    'auth_type = any',
    'pool_mode = transaction',
    `default_pool_size = ${SERVER_CONNECTIONS}`,
    'max_client_conn = 200',
  ];
  const file = join(root, 'pgbouncer.ini');
  await writeFile(file, `${settings.join('\n')}\n`);
  const child = spawn(PROGRAM, [file], { stdio: 'ignore', ...(user !== null && user) });
  const ended = once(child, 'exit');
  const through = (url: string): string => url.replace(`:${postgres.port}/`, `:${port}/`);
  const close = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
    await rm(root, { recursive: true, force: true });
  };
  await untilAsync('PgBouncer answers', async () => {
    if (child.exitCode !== null) throw new Error(`PgBouncer ended with ${child.exitCode}`);
    const url = through(`postgres://media@127.0.0.1:${postgres.port}/postgres`);
    return postgres.query(url, 'SELECT 1').then(
      () => true,
      () => false,
    );
  });
  return { through, close };
}
