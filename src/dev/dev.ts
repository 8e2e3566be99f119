/**
 * Runs everything on one machine, for development: an Authentication Service on
 * loopback, and an origin and an edge as the same processes as in production.
 * Makes their secrets on first use. Stops all of them when one ends or the user
 * asks for it.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { chmod, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { systemClock } from '../clock.js';
import { createFile, makeFolder } from '../private-folder.js';
import { type Running, startFailure } from '../process.js';
import { PAGE_ADDRESS } from './page-address.js';
import { BASE_URI, baseUriOfEdge } from './service-address.js';

export interface DevOptions {
  /** The module that runs `media-service origin` and `media-service edge`. */
  readonly cliPath: string;
  readonly configPath: string | undefined;
  /** The folder of secrets, keys and logs. */
  readonly folder: string;
  /** Starts the Authentication Service; undefined if the configuration names another one. */
  openAuth(): Promise<Running> | undefined;
  /** Starts the page for people, which needs the development Authentication Service. */
  openPage(edge: () => string): Promise<Running> | undefined;
  print(text: string): void;
}

interface Child {
  readonly name: string;
  readonly process: ChildProcess;
  /** Resolves with the URLs by name. Rejects if the child ends before it is ready. */
  readonly ready: Promise<Readonly<Record<string, string>>>;
  readonly ended: Promise<number>;
}

/** How long a child may take to stop before it is killed. */
const STOP_WITHIN_MS = 35_000;

/** Runs until a signal or until a process ends. Resolves with the exit code. */
export async function runDev(options: DevOptions): Promise<number> {
  const { configPath } = options;
  await prepareSecrets(options.folder);
  const children: Child[] = [];
  const signal = userStops();
  const opened: Running[] = [];
  try {
    const auth = await options.openAuth();
    if (auth !== undefined) opened.push(auth);
    const urls: Record<string, string> = { ...auth?.urls };
    const page = await options.openPage(() => urls['edge media'] ?? '');
    if (page !== undefined) opened.push(page);
    const baseUri = configPath === undefined ? undefined : baseUriOfEdge(await readFile(configPath, 'utf8'));
    for (const name of ['origin', 'edge']) {
      const env = { [PAGE_ADDRESS]: page?.urls['page'], [BASE_URI]: baseUri };
      const child = await startChild(name, options, env);
      children.push(child);
      for (const [what, url] of Object.entries(await child.ready)) urls[`${name} ${what}`] = url;
    }
    if (page !== undefined) urls['page'] = `${urls['edge media']}/`;
    options.print(banner(urls, options.folder));
    const first = await Promise.race([signal, ...children.map((child) => child.ended.then(() => child.name))]);
    const expected = first === 'signal';
    if (!expected)
      options.print(`\nThe ${first} ended; stopping the rest. Its log is ${logPath(options.folder, first)}.`);
    return expected ? 0 : 1;
  } catch (thrown) {
    options.print(startFailure(thrown));
    return 1;
  } finally {
    for (const child of children.toReversed()) await stopChild(child);
    for (const running of opened) await running.close();
  }
}

/** Makes the secrets that the defaults name, unless they exist. */
export async function prepareSecrets(folder: string): Promise<void> {
  const secrets = join(folder, 'secrets');
  await makeFolder(secrets);
  await chmod(secrets, 0o700);
  for (const name of ['edge', 'link']) {
    await createFile(join(secrets, name), `${randomBytes(32).toString('base64url')}\n`);
  }
}

async function startChild(
  name: string,
  options: DevOptions,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Child> {
  await mkdir(join(options.folder, 'logs'), { recursive: true });
  const child = fork(
    options.cliPath,
    [name, ...(options.configPath === undefined ? [] : ['--config', options.configPath])],
    {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      env: { ...process.env, ...env },
    },
  );
  const file = createWriteStream(logPath(options.folder, name), { flags: 'a', mode: 0o600 });
  child.stdout?.pipe(file);
  if (child.stdout !== null) {
    createInterface({ input: child.stdout }).on('line', (line) => showTrouble(line, options));
  }
  const ended = new Promise<number>((resolve) => child.once('exit', (code) => resolve(code ?? 1)));
  const ready = new Promise<Readonly<Record<string, string>>>((resolve, reject) => {
    child.on('message', (message) => {
      if (isReady(message)) resolve(message.urls);
    });
    void ended.then(() => reject(new Error(`The ${name} did not start.`)));
  });
  ready.catch(() => undefined);
  return { name, process: child, ready, ended };
}

async function stopChild(child: Child): Promise<void> {
  if (child.process.exitCode === null) child.process.kill('SIGTERM');
  const kill = systemClock.after(STOP_WITHIN_MS, () => child.process.kill('SIGKILL'));
  await child.ended;
  kill.cancel();
}

function userStops(): Promise<'signal'> {
  return new Promise((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve('signal'));
    // A terminal that closes may send it more than once, and the processes must still be stopped.
    process.on('SIGHUP', () => resolve('signal'));
  });
}

function isReady(message: unknown): message is { readonly urls: Readonly<Record<string, string>> } {
  return (
    typeof message === 'object' &&
    message !== null &&
    'kind' in message &&
    message.kind === 'ready' &&
    'urls' in message
  );
}

/** Shows the warnings and errors of the processes; their log files have everything. */
function showTrouble(line: string, options: DevOptions): void {
  try {
    const record = JSON.parse(line) as Readonly<Record<string, unknown>>;
    if (record['level'] !== 'warn' && record['level'] !== 'error') return;
    const { name, level, msg, error, status, target } = record;
    const about = [error, status, target]
      .filter((part) => typeof part === 'string' || typeof part === 'number')
      .join(' ');
    options.print(`${String(name)} ${level}: ${String(msg)}${about === '' ? '' : ` (${about})`}`);
  } catch {
    options.print(line);
  }
}

function logPath(folder: string, name: string): string {
  return join(folder, 'logs', `${name}.log`);
}

const PURPOSES: Readonly<Record<string, string>> = {
  page: 'a small chat to try everything in, in a browser (not in production)',
  'edge media': 'clients fetch here, and may upload through it',
  'origin media': 'clients upload here',
  'edge operators': 'live page, metrics, statistics, purge',
  'origin operators': 'live page, metrics, statistics of the origin',
  auth: 'development Authentication Service (loopback only)',
};

function banner(urls: Readonly<Record<string, string>>, folder: string): string {
  const edge = urls['edge media'] ?? 'http://127.0.0.1:8080';
  const rows = Object.entries(PURPOSES)
    .filter(([name]) => urls[name] !== undefined)
    .map(([name, purpose]) => `  ${name.replace(' media', '').padEnd(17)} ${(urls[name] ?? '').padEnd(24)} ${purpose}`);
  return [
    'media-service is running, for development',
    '',
    ...rows,
    `  ${'data'.padEnd(17)} ${folder.padEnd(24)} logs in ${join(folder, 'logs')}`,
    '',
    'A first upload, from another terminal in this folder:',
    '',
    '  TOKEN=$(npx media-service token)',
    `  printf 'hello' | curl -sS -H "Authorization: Bearer $TOKEN" -H 'Content-Type: text/plain' --data-binary @- ${edge}/v1/media`,
    '',
    'Ctrl-C stops everything.',
  ].join('\n');
}
