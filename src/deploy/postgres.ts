/**
 * PostgreSQL as a part of a cluster: Debian's programs over a folder of its own. It never runs as root: there its
 * programs run as the user that the package has made.
 */
import { chmod, chown, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createFile } from '../private-folder.js';
import { type Layout, pathsOf } from './layout.js';
import {
  CannotRun,
  isInPath,
  isThere,
  type Part,
  run,
  startPart,
  type User,
  untilReady,
  userNamed,
} from './process.js';

/** Debian keeps the programs of each version apart. */
const PACKAGES = '/usr/lib/postgresql';
const USER = 'media';
const DATABASE = 'media';

export async function missingPostgres(): Promise<readonly string[]> {
  return (await programsFolder()) === undefined ? ['postgresql'] : [];
}

export async function startPostgres(layout: Layout, signal: AbortSignal): Promise<Part> {
  const programs = await programsFolder();
  if (programs === undefined) throw new CannotRun('postgresql is missing');
  const paths = pathsOf(layout);
  const { folder, ports } = layout;
  const user = process.getuid?.() === 0 ? await userNamed('postgres') : undefined;
  await mkdir(paths.postgres, { recursive: true, mode: 0o700 });
  await chmod(paths.postgres, 0o700);
  const data = join(paths.postgres, 'data');
  const as = user === undefined ? {} : { user };
  const env = { PGPASSWORD: (await readFile(paths.databaseSecret, 'utf8')).trim(), LC_ALL: 'C.UTF-8' };
  if (user !== undefined) await letIn(user, layout);
  const options = { folder: paths.postgres, env, ...as };
  if (!(await isThere(join(data, 'PG_VERSION')))) await initialize(programs, data, paths.databaseSecret, options);
  const settings = [
    `port=${ports.postgres}`,
    'listen_addresses=127.0.0.1',
    `unix_socket_directories=${paths.postgres}`,
    'max_connections=100',
  ];
  const part = startPart({
    name: 'postgres',
    program: join(programs, 'postgres'),
    args: ['-D', data, ...settings.flatMap((setting) => ['-c', setting])],
    logFile: paths.log('postgres'),
    // Ends open connections at once, and writes what a start would have to repeat.
    signal: 'SIGINT',
    ...options,
    folder: user === undefined ? folder : paths.postgres,
  });
  const where = ['-h', '127.0.0.1', '-p', String(ports.postgres), '-U', USER];
  try {
    await untilReady(part, () => succeeds(run(join(programs, 'pg_isready'), [...where, '-q'], options)), signal);
    await run(join(programs, 'createdb'), [...where, DATABASE], options).catch((thrown: unknown) => {
      if (!String(thrown).includes('already exists')) throw thrown;
    });
    return part;
  } catch (thrown) {
    await part.stop();
    throw thrown;
  }
}

/** Makes the password, unless there is one. */
export async function preparePostgres(layout: Layout, newSecret: () => string): Promise<void> {
  const { databaseSecret, databaseUrl } = pathsOf(layout);
  await createFile(databaseSecret, `${newSecret()}\n`);
  const password = (await readFile(databaseSecret, 'utf8')).trim();
  const url = `postgres://${USER}:${password}@127.0.0.1:${layout.ports.postgres}/${DATABASE}\n`;
  await writeFile(databaseUrl, url, { mode: 0o600 });
}

async function initialize(
  programs: string,
  data: string,
  secretFile: string,
  options: { readonly folder: string; readonly user?: User; readonly env: Readonly<Record<string, string>> },
): Promise<void> {
  // Left by a start that was stopped.
  await rm(data, { recursive: true, force: true });
  const given = join(options.folder, 'password');
  await writeFile(given, await readFile(secretFile), { mode: 0o600 });
  if (options.user !== undefined) await chown(given, options.user.uid, options.user.gid);
  try {
    const args = ['-D', data, '-U', USER, '-A', 'scram-sha-256', '--pwfile', given, '-E', 'UTF8'];
    await run(join(programs, 'initdb'), args, options);
  } catch (thrown) {
    await rm(data, { recursive: true, force: true });
    throw thrown;
  } finally {
    await rm(given, { force: true });
  }
}

/** Its folder belongs to that user, who must be able to reach it. */
async function letIn(user: User, layout: Layout): Promise<void> {
  const { postgres } = pathsOf(layout);
  await chown(postgres, user.uid, user.gid);
  await chmod(layout.folder, 0o711);
  if (await succeeds(run('ls', [postgres], { folder: '/', user }))) return;
  throw new CannotRun(
    `PostgreSQL does not run as root, and its user postgres cannot reach ${layout.folder}: choose a folder that others may enter`,
  );
}

async function programsFolder(): Promise<string | undefined> {
  const versions = (await readdir(PACKAGES).catch(() => [])).map(Number).filter(Number.isInteger);
  for (const version of versions.toSorted((a, b) => b - a)) {
    const folder = join(PACKAGES, String(version), 'bin');
    if (await isInPath(join(folder, 'postgres'))) return folder;
  }
  return undefined;
}

function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}
