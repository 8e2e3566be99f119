/**
 * A PostgreSQL server of the system for one test file: a cluster in a folder of its own, on a free port of the loopback
 * address. initdb refuses to run as root, so it runs as the user `postgres` there. Null where there is no server.
 */
import { execFile, spawn } from 'node:child_process';
import { chmod, chown, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { ownPort } from '../ports.js';
import { untilAsync } from '../until.js';

const run = promisify(execFile);
const PACKAGES = '/usr/lib/postgresql';

export type TestPostgres = {
  readonly port: number;
  /** A new, empty database. */
  database(): Promise<string>;
  /** Runs a statement in a database. */
  query(url: string, sql: string): Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** As in a crash, and up again. */
  restart(): Promise<void>;
  /** As in a crash. */
  stop(): Promise<void>;
  start(): Promise<void>;
  /**
   * Makes a standby that has everything up to now, and to which nothing more is sent. The result is called to lose the
   * server and to promote the standby, which has its address from then on.
   */
  standby(): Promise<() => Promise<void>>;
  close(): Promise<void>;
};

export async function openPostgres(settings: readonly string[] = []): Promise<TestPostgres | null> {
  const programs = await programsFolder();
  if (programs === null) return null;
  const user = process.getuid?.() === 0 ? await idsOf('postgres') : null;
  const as = user === null ? {} : { uid: user.uid, gid: user.gid };
  const root = await mkdtemp(join(tmpdir(), 'postgres-'));
  await chmod(root, 0o700);
  if (user !== null) await chown(root, user.uid, user.gid);
  let folder = join(root, 'data');
  const options = { ...as, cwd: root, env: { PATH: process.env['PATH'], LC_ALL: 'C.UTF-8' } };
  await run(join(programs, 'initdb'), ['-D', folder, '-U', 'media', '-A', 'trust', '-E', 'UTF8', '--no-sync'], options);
  const port = await ownPort();
  const urlOf = (name: string): string => `postgres://media@127.0.0.1:${port}/${name}`;
  let made = 0;

  async function query(url: string, sql: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => undefined);
    await client.connect();
    try {
      return (await client.query(sql)).rows;
    } finally {
      await client.end();
    }
  }

  async function start(): Promise<void> {
    const given = [`port=${port}`, `unix_socket_directories=${root}`, 'listen_addresses=127.0.0.1', ...settings];
    const server = spawn(join(programs ?? '', 'postgres'), ['-D', folder, ...given.flatMap((one) => ['-c', one])], {
      ...options,
      stdio: 'ignore',
    });
    server.unref();
    await untilAsync('the database server answers', async () => {
      if (server.exitCode !== null) throw new Error(`the database server ended with ${server.exitCode}`);
      return query(urlOf('postgres'), 'SELECT 1').then(
        () => true,
        () => false,
      );
    });
  }

  async function stop(): Promise<void> {
    await run(join(programs ?? '', 'pg_ctl'), ['-D', folder, '-m', 'immediate', '-w', 'stop'], options);
  }

  await start();
  return {
    port,
    async database() {
      made += 1;
      await query(urlOf('postgres'), `CREATE DATABASE test_${made}`);
      return urlOf(`test_${made}`);
    },
    query,
    async restart() {
      await stop();
      await start();
    },
    stop,
    start,
    async standby() {
      const copy = join(root, 'standby');
      await run(
        join(programs, 'pg_basebackup'),
        ['-D', copy, '-h', root, '-p', `${port}`, '-U', 'media', '-c', 'fast'],
        {
          ...options,
        },
      );
      return async () => {
        await stop();
        folder = copy;
        await writeFile(join(copy, 'standby.signal'), '', { mode: 0o600 });
        if (user !== null) await chown(join(copy, 'standby.signal'), user.uid, user.gid);
        await start();
        await run(join(programs, 'pg_ctl'), ['-D', folder, '-w', 'promote'], options);
      };
    },
    async close() {
      await stop().catch(() => undefined);
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** Debian keeps each version's programs apart. The newest is taken. */
async function programsFolder(): Promise<string | null> {
  const versions = await readdir(PACKAGES).catch(() => []);
  const newest = versions
    .map(Number)
    .filter(Number.isInteger)
    .sort((a, b) => b - a)[0];
  return newest === undefined ? null : join(PACKAGES, String(newest), 'bin');
}

/** Of a user of this machine. */
export async function idsOf(user: string): Promise<{ readonly uid: number; readonly gid: number }> {
  const line = (await readFile('/etc/passwd', 'utf8')).split('\n').find((one) => one.startsWith(`${user}:`));
  const [, , uid, gid] = (line ?? '').split(':');
  if (uid === undefined || gid === undefined) throw new Error(`there is no user ${user}`);
  return { uid: Number(uid), gid: Number(gid) };
}
