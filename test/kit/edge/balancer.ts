/** nginx with the example configuration, and more edges as processes, for a running service. */
import { type ChildProcess, execFile, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { CLI, untilReady } from '../service.js';

const EXAMPLE = resolve('test/kit/edge/balancer.conf');
/** Debian installs nginx in a folder that is only in the PATH of root. */
const ENV = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin` };

export async function hasNginx(): Promise<boolean> {
  return await promisify(execFile)('nginx', ['-v'], { env: ENV }).then(
    () => true,
    () => false,
  );
}

export interface EdgeAddress {
  readonly name: string;
  readonly port: number;
  readonly operatorsPort: number;
}

/** The section `edge` of an edge behind a balancer. */
export function edgeSectionOf({ name, port, operatorsPort }: EdgeAddress, originUrl: string): string {
  return [
    'edge:',
    `  name: ${name}`,
    `  listen: { port: ${port}, limits: { connections_per_client_max: 0 } }`,
    '  trusted_proxies: [loopback]',
    `  operators: { port: ${operatorsPort} }`,
    `  upstream: { url: "${originUrl}" }`,
    `  cache: { folder: ./data/${name}/cache }`,
    '',
  ].join('\n');
}

/** A configuration of `dev` with its section `edge` replaced. */
export function withEdge(config: string, section: string): string {
  return config.slice(0, config.indexOf('\nedge:\n') + 1) + section;
}

export interface EdgeProcess {
  readonly name: string;
  readonly url: string;
  start(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** SIGTERM, then the exit code. */
  stop(): Promise<number | null>;
}

/** Prepares one more edge in the folder of a service, without starting it. */
export async function addEdge(folder: string, at: EdgeAddress, originUrl: string): Promise<EdgeProcess> {
  const shared = await readFile(join(folder, 'config.yaml'), 'utf8');
  const file = `${at.name}.yaml`;
  await writeFile(join(folder, file), withEdge(shared, edgeSectionOf(at, originUrl)));
  let run: ChildProcess | undefined;
  async function end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> {
    if (run === undefined || run.exitCode !== null || run.signalCode !== null) return run?.exitCode ?? null;
    const exit = once(run, 'exit');
    run.kill(signal);
    const [code] = (await exit) as [number | null];
    return code;
  }
  return {
    name: at.name,
    url: `http://127.0.0.1:${at.port}`,
    async start() {
      const child = fork(CLI, ['edge', '--config', file], {
        cwd: folder,
        stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      });
      run = child;
      const ended = once(child, 'exit').then(([code]) => {
        throw new Error(`${at.name} ended with ${String(code)}`);
      });
      ended.catch(() => undefined);
      await Promise.race([once(child, 'message').then(() => untilReady(`http://127.0.0.1:${at.port}`)), ended]);
    },
    kill: async () => void (await end('SIGKILL')),
    stop: () => end('SIGTERM'),
  };
}

export interface Balancer {
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts nginx with the example configuration on these ports. */
export async function startBalancer(folder: string, port: number, edges: readonly EdgeAddress[]): Promise<Balancer> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'balancer.conf'), withPorts(await readFile(EXAMPLE, 'utf8'), port, edges));
  const main = join(folder, 'nginx.conf');
  await writeFile(main, mainConfig(folder));
  const run = spawn('nginx', ['-p', folder, '-c', main, '-e', 'stderr'], {
    env: ENV,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let errors = '';
  run.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  while (!(await accepts(port))) {
    if (run.exitCode !== null) throw new Error(`nginx ended: ${errors}`);
    await new Promise((later) => setTimeout(later, 20));
  }
  return {
    url: `http://127.0.0.1:${port}`,
    async stop() {
      if (run.exitCode !== null) return;
      const exit = once(run, 'exit');
      run.kill('SIGTERM');
      await exit;
    },
  };
}

/** The example with other ports. Throws if the example is not as expected here. */
function withPorts(example: string, port: number, edges: readonly EdgeAddress[]): string {
  const servers = example.match(/^ *server 127\.0\.0\.1:\d+/gm) ?? [];
  if (servers.length !== edges.length) throw new Error(`the example has ${servers.length} edges`);
  let config = example.replace('listen 127.0.0.1:8080;', `listen 127.0.0.1:${port};`);
  if (config === example) throw new Error('the example listens elsewhere');
  for (const [index, edge] of edges.entries())
    config = config.replace(`server 127.0.0.1:${8_101 + index} `, `server 127.0.0.1:${edge.port} `);
  return config;
}

/** The main configuration that includes the example, for a user who is not root. */
function mainConfig(folder: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `  ${name}_temp_path ${join(folder, name)};`,
  );
  return [
    'daemon off;',
    'worker_processes 2;',
    `pid ${join(folder, 'nginx.pid')};`,
    'events { worker_connections 512; }',
    'http {',
    '  access_log off;',
    ...temporary,
    `  include ${join(folder, 'balancer.conf')};`,
    '}',
    '',
  ].join('\n');
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
