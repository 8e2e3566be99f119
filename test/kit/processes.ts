/**
 * The origin and the edge as the processes of production, started and killed one by one in a folder of the test. The
 * Authentication Service runs in the process of the test, so that tokens outlive them.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { systemClock } from '../../src/clock.js';
import { issueToken, openDevAuth } from '../../src/dev/auth-service.js';
import { prepareSecrets } from '../../src/dev/dev.js';
import type { RequestOptions } from './http/request.js';
import { ownPort } from './ports.js';
import { CLI } from './service.js';

export interface Processes {
  readonly folder: string;
  /** Header fields with the token of a user, of another one, and of an admin. */
  readonly user: Readonly<Record<string, string>>;
  readonly other: Readonly<Record<string, string>>;
  readonly admin: Readonly<Record<string, string>>;
  /**
   * `section`: the keys of config.yaml below the name; ports are chosen where it has none. `options.as`: a name of its
   * own, where several of a kind run; `options.access`: more keys of the section `access`; `options.level`: the level of
   * its log, `error` by default; `options.requests`: whether it logs requests; `options.log`: more keys of the section `log`; `options.env`: more variables of its
   * environment; `options.cli`: the command of another build.
   */
  launch(
    name: 'origin' | 'edge',
    section: Readonly<Record<string, unknown>>,
    options?: {
      readonly as?: string;
      readonly access?: Readonly<Record<string, unknown>>;
      readonly level?: string;
      readonly env?: Readonly<Record<string, string>>;
      readonly requests?: 'all' | 'none';
      readonly log?: Readonly<Record<string, unknown>>;
      readonly cli?: string;
    },
  ): Promise<Launched>;
  /** Starts to load the code of the next origin now, so that launching it takes less time. */
  preload(): void;
  /** Kills the processes that still run. */
  close(): Promise<void>;
}

export interface Launched {
  readonly configPath: string;
  readonly pid: number;
  /** Everything that it has printed so far. */
  printed(): string;
  /** Its URL for clients, once it listens. Rejects if it ends before. */
  readonly ready: Promise<string>;
  /** SIGKILL; resolves once it is gone. */
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
}

const TOKEN_MS = 3_600_000;
const ORIGIN_CHILD = resolve('dist/test/kit/origin/origin-child.js');

export async function openProcesses(folder: string): Promise<Processes> {
  const data = join(folder, 'data');
  await prepareSecrets(data);
  const keys = join(data, 'auth');
  const auth = await openDevAuth({ host: '127.0.0.1', port: 0, folder: keys });
  const issuer = auth.urls['auth'] ?? '';
  const fieldsOf = async (subject: string, admin: boolean): Promise<Readonly<Record<string, string>>> => {
    const claims = { subject, admin, issuer, audience: 'media', expiresInMs: TOKEN_MS };
    return { authorization: `Bearer ${await issueToken(keys, claims, systemClock)}` };
  };
  const running = new Set<ChildProcess>();
  let preloaded: ChildProcess | undefined;

  function start(script: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
    const stdio = ['ignore', 'pipe', 'pipe', 'ipc'] as const;
    const child = fork(script, args, { cwd: folder, stdio: [...stdio], env: { ...process.env, ...env } });
    running.add(child);
    child.once('exit', () => running.delete(child));
    return child;
  }

  return {
    folder,
    user: await fieldsOf('alice', false),
    other: await fieldsOf('bob', false),
    admin: await fieldsOf('mo', true),
    async launch(
      name,
      section,
      { as = name, access = {}, level = 'error', requests = 'none', log, env, cli = CLI } = {},
    ) {
      const configPath = join(folder, `${as}.yaml`);
      await writeFile(
        configPath,
        JSON.stringify({
          log: { level, requests, ...log },
          access: { issuers: [{ issuer, jwks_url: `${issuer}/.well-known/jwks.json` }], ...access },
          [name]: { listen: { port: await ownPort() }, operators: { port: 0 }, ...section },
        }),
      );
      const args = [name, '--config', configPath];
      const child = (name === 'origin' && env === undefined ? preloaded : undefined) ?? start(cli, args, env);
      if (child === preloaded) {
        preloaded = undefined;
        child.send(args);
      }
      return launched(child, configPath);
    },
    preload() {
      preloaded ??= start(ORIGIN_CHILD, []);
    },
    async close() {
      await Promise.all([...running].map((child) => killed(child)));
      await auth.close();
    },
  };
}

/** Of what a process prints, the last characters are kept: a benchmark makes it print millions of lines. */
const PRINTED_KEPT = 1_000_000;

function launched(child: ChildProcess, configPath: string): Launched {
  let printed = '';
  const keep = (chunk: Buffer): void => {
    printed += String(chunk);
    if (printed.length > 2 * PRINTED_KEPT) printed = printed.slice(-PRINTED_KEPT);
  };
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', keep);
  const ready = new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve(mediaUrlOf(message)));
    // `close` comes after the last of its output, `exit` may come before.
    child.once('close', (code) => reject(new Error(`it ended with ${String(code)} before it was ready:\n${printed}`)));
  });
  ready.catch(() => undefined);
  return {
    configPath,
    pid: child.pid ?? 0,
    printed: () => printed,
    ready,
    kill: () => killed(child),
    async stop() {
      if (hasEnded(child)) return child.exitCode;
      child.kill('SIGTERM');
      const [code] = (await once(child, 'exit')) as [number | null];
      return code;
    },
  };
}

async function killed(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function mediaUrlOf(message: unknown): string {
  const { urls } = message as { readonly urls: Readonly<Record<string, string>> };
  return urls['media'] ?? '';
}

/** Request options with the header fields of a caller. */
export function asCaller(caller: Readonly<Record<string, string>>, options: RequestOptions = {}): RequestOptions {
  return { ...options, headers: { ...caller, ...options.headers } };
}
