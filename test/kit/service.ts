/** The whole service as a user starts it: `media-service dev` in a folder of the test, on free ports. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { systemClock } from '../../src/clock.js';
import { issueToken } from '../../src/dev/auth-service.js';
import { ownPort } from './ports.js';
import { untilAsync } from './until.js';

export const CLI = resolve('dist/src/cli.js');

export interface Service {
  readonly edge: string;
  readonly origin: string;
  readonly edgeOperators: string;
  readonly originOperators: string;
  readonly folder: string;
  /** Everything that the command has printed so far. */
  output(): string;
  token(options?: TokenOptions): Promise<string>;
  /** SIGKILL to the command alone, as when a terminal or a supervisor dies. */
  kill(): void;
  /** Sends SIGHUP twice to the whole process group, as a terminal may when it closes. Resolves with the exit code. */
  hangUp(): Promise<number | null>;
  /** SIGTERM, then the exit code. */
  stop(): Promise<number | null>;
}

export interface TokenOptions {
  readonly subject?: string;
  readonly admin?: boolean;
}

export interface Ports {
  readonly origin: number;
  readonly originOperators: number;
  readonly edge: number;
  readonly edgeOperators: number;
  readonly auth: number;
}

/** Starts it and waits until it is ready. */
export async function startService(
  folder: string,
  change: (config: string) => string = (config) => config,
  options: { readonly ownGroup?: boolean } = {},
): Promise<Service> {
  const ports = await ownPorts();
  await writeFile(join(folder, 'config.yaml'), change(configOf(ports)));
  const run = spawn(process.execPath, [CLI, 'dev'], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: options.ownGroup ?? false,
  });
  let printed = '';
  for (const stream of [run.stdout, run.stderr]) stream.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  await untilPrinted(run, 'media-service is running', () => printed);
  // The address that it prints: `change` may have set another one.
  await untilReady(/^ *edge +(http\S+)/m.exec(printed)?.[1] ?? '');
  return {
    edge: `http://127.0.0.1:${ports.edge}`,
    origin: `http://127.0.0.1:${ports.origin}`,
    originOperators: `http://127.0.0.1:${ports.originOperators}`,
    edgeOperators: `http://127.0.0.1:${ports.edgeOperators}`,
    folder,
    output: () => printed,
    token: (options) => issueDevToken(folder, ports, options),
    kill: () => void run.kill('SIGKILL'),
    async hangUp() {
      const exit = once(run, 'exit');
      for (const _ of ['from the shell', 'from the system']) process.kill(-(run.pid ?? 0), 'SIGHUP');
      const [code] = (await exit) as [number | null];
      return code;
    },
    async stop() {
      if (run.exitCode !== null) return run.exitCode;
      const exit = once(run, 'exit');
      run.kill('SIGTERM');
      const [code] = (await exit) as [number | null];
      return code;
    },
  };
}

/** An edge listens before it is ready: it is ready once it is current with the journal. */
export async function untilReady(edge: string): Promise<void> {
  await untilAsync('the edge to be ready', async () => (await fetch(`${edge}/readyz`)).status === 200);
}

export function configOf(ports: Ports): string {
  const issuer = issuerOf(ports);
  return [
    'access:',
    `  issuers: [{ issuer: "${issuer}", jwks_url: "${issuer}/.well-known/jwks.json" }]`,
    'origin:',
    `  listen: { port: ${ports.origin} }`,
    `  operators: { port: ${ports.originOperators} }`,
    'edge:',
    `  listen: { port: ${ports.edge} }`,
    `  operators: { port: ${ports.edgeOperators} }`,
    `  upstream: { url: "http://127.0.0.1:${ports.origin}" }`,
    '',
  ].join('\n');
}

function issuerOf(ports: Ports): string {
  return `http://127.0.0.1:${ports.auth}`;
}

export async function ownPorts(): Promise<Ports> {
  return {
    origin: await ownPort(),
    originOperators: await ownPort(),
    edge: await ownPort(),
    edgeOperators: await ownPort(),
    auth: await ownPort(),
  };
}

/** A token like those of the `token` command, without a process for it. Makes the key where there is none yet. */
export async function issueDevToken(
  folder: string,
  ports: Ports,
  { subject = 'alice', admin = false }: TokenOptions = {},
): Promise<string> {
  const claims = { subject, admin, issuer: issuerOf(ports), audience: 'media', expiresInMs: 3_600_000 };
  return await issueToken(join(folder, 'data', 'auth'), claims, systemClock);
}

/** Runs a command of the service to its end. */
export async function runCli(
  folder: string,
  args: readonly string[],
): Promise<{ code: number; out: string; err: string }> {
  const run = spawn(process.execPath, [CLI, ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, err] = ['', ''];
  run.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  run.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const [code] = (await once(run, 'close')) as [number | null];
  return { code: code ?? 1, out, err };
}

/** Starts a command that runs until it is stopped. */
export function startCli(folder: string, args: readonly string[]) {
  const run = spawn(process.execPath, [CLI, ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  for (const stream of [run.stdout, run.stderr]) stream.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  return {
    /** Resolves once it has printed this. Rejects if it ends before. */
    printed: (text: string) => untilPrinted(run, text, () => printed),
    async stop(): Promise<number | null> {
      if (run.exitCode !== null) return run.exitCode;
      const exit = once(run, 'exit');
      run.kill('SIGTERM');
      const [code] = (await exit) as [number | null];
      return code;
    },
  };
}

async function untilPrinted(run: ChildProcess, text: string, printed: () => string): Promise<void> {
  // `close` comes after the last of its output, `exit` may come before.
  const ended = once(run, 'close').then(([code]) => {
    throw new Error(`it ended with ${String(code)}:\n${printed()}`);
  });
  const seen = new Promise<void>((resolve) => {
    const check = (): void => {
      if (printed().includes(text)) resolve();
    };
    run.stdout?.on('data', check);
    check();
  });
  await Promise.race([seen, ended]);
  ended.catch(() => undefined);
}
