/**
 * Starts three origins over one PostgreSQL database and one S3 bucket, two edges before them, and what they need, on one
 * machine; waits until all are ready; says where each is; ends all of them on a signal, in the reverse order.
 *
 * Promises: all that is stored is below the folder, and a second start there goes on with it; when it has ended, however
 * it did, nothing of it runs. Leaves to process.ts how a part is run, and to layout.ts what is where.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, mkdir, rename, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { keepAlive } from '../clock.js';
import { prepareSecrets } from '../dev/dev.js';
import {
  configsOf,
  EDGES,
  type Layout,
  ORIGINS,
  PART_NAMES,
  PORT_NAMES,
  type Ports,
  pathsOf,
  USUAL_PORTS,
} from './layout.js';
import { missingPostgres, preparePostgres, startPostgres } from './postgres.js';
import { CannotRun, isInPath, type Part, startPart, untilReady } from './process.js';
import { missingS3, prepareS3, startS3 } from './s3.js';

const CLI = fileURLToPath(new URL('../cli.js', import.meta.url));
const AUTH = fileURLToPath(new URL('./auth.js', import.meta.url));
const SECRET_BYTES = 24;

interface Step {
  readonly name: string;
  /** The addresses of what it starts, by the names of the parts. */
  readonly shows: Readonly<Record<string, string>>;
  readonly ports: readonly number[];
  /** Adds what it has started to `parts`. */
  start(parts: Part[], signal: AbortSignal): Promise<void>;
}

function stepsOf(layout: Layout): readonly Step[] {
  const { ports } = layout;
  const at = (port: number): string => `http://127.0.0.1:${port}`;
  return [
    {
      name: 'postgres',
      shows: { postgres: `127.0.0.1:${ports.postgres}` },
      ports: [ports.postgres],
      async start(parts, signal) {
        parts.push(await startPostgres(layout, signal));
      },
    },
    {
      name: 's3',
      shows: { 's3-monitor': `127.0.0.1:${ports.s3Monitor}`, 's3-store': '', s3: at(ports.s3) },
      ports: [ports.s3, ports.s3Monitor],
      start: (parts, signal) => startS3(layout, randomUUID, parts, signal),
    },
    {
      name: 'auth',
      shows: { auth: at(ports.auth) },
      ports: [ports.auth],
      start: (parts, signal) => startAuth(layout, parts, signal),
    },
    ...ORIGINS.map((number) =>
      stepOf(layout, 'origin', number, ports[`origin${number}`], ports[`origin${number}Operators`]),
    ),
    ...EDGES.map((number) => stepOf(layout, 'edge', number, ports[`edge${number}`], ports[`edge${number}Operators`])),
  ];
}

function stepOf(layout: Layout, kind: 'origin' | 'edge', number: number, port: number, operators: number): Step {
  const name = `${kind}-${number}`;
  const url = `http://127.0.0.1:${port}`;
  return {
    name,
    shows: { [name]: url },
    ports: [port, operators],
    async start(parts, signal) {
      const part = startNode(layout, name, CLI, [kind, '--config', pathsOf(layout).config(name)]);
      parts.push(part);
      await untilReady(part, async () => (await fetch(`${url}/readyz`, { signal })).ok, signal);
    },
  };
}

async function startAuth(layout: Layout, parts: Part[], signal: AbortSignal): Promise<void> {
  const port = String(layout.ports.auth);
  const part = startNode(layout, 'auth', AUTH, ['127.0.0.1', port, pathsOf(layout).auth]);
  parts.push(part);
  const keys = `http://127.0.0.1:${port}/.well-known/jwks.json`;
  await untilReady(part, async () => (await fetch(keys, { signal })).ok, signal);
}

function startNode(layout: Layout, name: string, script: string, args: readonly string[]): Part {
  const { folder } = layout;
  const logFile = pathsOf(layout).log(name);
  return startPart({ name, program: process.execPath, args: [script, ...args], folder, logFile, signal: 'SIGTERM' });
}

/** What later starts find as it is, and the configuration files, which are written anew. */
async function prepare(layout: Layout): Promise<void> {
  const paths = pathsOf(layout);
  await mkdir(layout.folder, { recursive: true, mode: 0o700 });
  await mkdir(paths.data, { recursive: true, mode: 0o700 });
  await chmod(paths.data, 0o700);
  await prepareSecrets(paths.data);
  const newSecret = (): string => randomBytes(SECRET_BYTES).toString('hex');
  await preparePostgres(layout, newSecret);
  await prepareS3(layout, newSecret);
  for (const [name, text] of Object.entries(configsOf(layout))) await replace(paths.config(name), text);
}

/** In one step: parts that run alone may start at the same time, and read each other's files. */
async function replace(path: string, text: string): Promise<void> {
  const staged = `${path}.${randomUUID()}`;
  await writeFile(staged, text, { flag: 'wx' });
  await rename(staged, path);
}

async function requirePackages(): Promise<void> {
  const setpriv = (await isInPath('setpriv')) ? [] : ['util-linux'];
  const missing = [...(await missingPostgres()), ...(await missingS3()), ...setpriv];
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  throw new CannotRun(`${missing.length === 1 ? 'a package is' : 'packages are'} missing: ${command}`);
}

async function requireFreePorts(steps: readonly Step[]): Promise<void> {
  for (const { name, ports } of steps) {
    for (const port of ports) {
      if (await isTaken(port)) {
        throw new CannotRun(`another process listens on 127.0.0.1:${port}, which ${name} needs: stop that process`);
      }
    }
  }
}

function isTaken(port: number): Promise<boolean> {
  return new Promise((tell) => {
    const socket = createConnection({ host: '127.0.0.1', port });
    const end = (taken: boolean) => (): void => {
      socket.destroy();
      tell(taken);
    };
    socket.once('connect', end(true)).once('error', end(false));
  });
}

interface Options {
  readonly host: string;
  readonly ports?: string | undefined;
  readonly only?: string | undefined;
}

async function runCluster(folder: string, options: Options): Promise<number> {
  const layout: Layout = { folder: resolve(folder), host: options.host, ports: portsFrom(options.ports) };
  const steps = stepsOf(layout).filter(({ name }) => options.only === undefined || options.only === name);
  if (steps.length === 0) throw new CannotRun(`there is no part ${options.only}`);
  if (options.only === undefined) await requirePackages();
  await requireFreePorts(steps);
  await prepare(layout);
  const stopping = new AbortController();
  const stopped = new Promise<void>((come) => {
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(name, () => {
        stopping.abort(new CannotRun('stopped'));
        come();
      });
    }
  });
  const parts: Part[] = [];
  const alive = keepAlive();
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  try {
    for (const step of steps) {
      stopping.signal.throwIfAborted();
      await step.start(parts, stopping.signal);
      for (const part of parts.filter(({ name }) => name in step.shows)) {
        say(`${part.name.padEnd(12)}${(step.shows[part.name] ?? '').padEnd(24)}pid ${part.pid}`);
      }
    }
    if (options.only === undefined) say(READY(layout));
    for (const { name, pid, ended } of parts) {
      void ended.then((how) => {
        if (!stopping.signal.aborted) say(`${name} (pid ${pid}) ended ${how}; the others go on`);
      });
    }
    // A part that runs alone is started again by whoever runs it.
    const ended = options.only === undefined ? [] : parts.map((part) => part.ended);
    await Promise.race([stopped, ...ended]);
    return stopping.signal.aborted ? 0 : 1;
  } catch (thrown) {
    if (stopping.signal.aborted) return 0;
    throw thrown;
  } finally {
    stopping.abort();
    for (const part of parts.toReversed()) await part.stop();
    alive.release();
  }
}

const READY = ({ folder, ports }: Layout): string => `
All of them are ready. Logs are in ${folder}/logs. In another terminal:

  TOKEN=$(cd ${folder} && ${CLI} token --config origin-1.yaml)
  printf hello | curl -sS -H "Authorization: Bearer $TOKEN" -H 'Content-Type: text/plain' --data-binary @- http://127.0.0.1:${ports.edge1}/v1/media

Kill any origin by its pid: the rest goes on. To start it again: (cd ${folder} && ${CLI} origin --config origin-1.yaml)
Ctrl-C ends everything; what was stored stays in ${folder}.`;

function portsFrom(list: string | undefined): Ports {
  if (list === undefined) return USUAL_PORTS;
  const given = list.split(',').map(Number);
  if (given.length !== PORT_NAMES.length || !given.every((port) => Number.isInteger(port) && port > 0)) {
    throw new CannotRun(`--ports takes ${PORT_NAMES.length} numbers: ${PORT_NAMES.join(', ')}`);
  }
  return Object.fromEntries(PORT_NAMES.map((name, index) => [name, given[index]])) as Ports;
}

const USAGE = `Usage: cluster [options] <folder>

Three origins over PostgreSQL and an S3 server, two edges and a development
Authentication Service on this machine, until Ctrl-C. Everything is stored in the
folder, which is made if it is not there. Needs Debian's packages postgresql,
ceph-mon, ceph-osd and radosgw. Never use it for anything that must not be lost.

  --ports <list>    other ports, separated by commas, for
                    ${PORT_NAMES.join(', ')}
  --host <address>  where origins and edges listen for clients (127.0.0.1)
  --only <part>     start this part alone: ${PART_NAMES.join(', ')}
  --help            say this
`;

async function main(): Promise<number> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      ports: { type: 'string' },
      host: { type: 'string', default: '127.0.0.1' },
      only: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const [folder] = positionals;
  if (values.help || folder === undefined || positionals.length > 1) {
    process[values.help ? 'stdout' : 'stderr'].write(USAGE);
    return values.help ? 0 : 64;
  }
  return await runCluster(folder, values);
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (thrown: unknown) => {
    process.stderr.write(`cluster: ${thrown instanceof Error ? thrown.message : String(thrown)}\n`);
    process.exitCode = thrown instanceof CannotRun ? 69 : 70;
  },
);
