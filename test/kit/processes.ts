/**
 * The origin and the edge as the processes that production runs, started and
 * killed one by one in a folder of their own. The Authentication Service stays
 * with the test, so that tokens outlive them.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { systemClock } from '../../src/clock.js';
import { issueToken, openDevAuth } from '../../src/dev/auth-service.js';
import { prepareSecrets } from '../../src/dev/dev.js';
import type { RequestOptions } from './http/request.js';
import { CLI } from './service.js';

export interface Processes {
  readonly folder: string;
  /** The fields by which a client says who it is. */
  readonly user: Readonly<Record<string, string>>;
  readonly admin: Readonly<Record<string, string>>;
  /**
   * `section`: what config.yaml says below the name; whatever it leaves out of folders and ports is set. `options.as`:
   * what tells it from another of its kind; `options.access`: what that section says beside the issuer;
   * `options.level`: of its log, without which it tells errors alone.
   */
  launch(
    name: 'origin' | 'edge',
    section: Readonly<Record<string, unknown>>,
    options?: { readonly as?: string; readonly access?: Readonly<Record<string, unknown>>; readonly level?: string },
  ): Promise<Launched>;
  /** Has the next origin load its code now, so that launching it takes less. */
  preload(): void;
  /** Kills what still runs. */
  close(): Promise<void>;
}

export interface Launched {
  readonly configPath: string;
  readonly pid: number;
  /** All that it printed so far. */
  printed(): string;
  /** Where clients reach it, once it listens. Rejects where it ends before. */
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
    const wish = { subject, admin, issuer, audience: 'media', expiresInMs: TOKEN_MS };
    return { authorization: `Bearer ${await issueToken(keys, wish, systemClock)}` };
  };
  const running = new Set<ChildProcess>();
  let foreseen: ChildProcess | undefined;

  function start(script: string, args: readonly string[]): ChildProcess {
    const child = fork(script, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    running.add(child);
    child.once('exit', () => running.delete(child));
    return child;
  }

  return {
    folder,
    user: await fieldsOf('alice', false),
    admin: await fieldsOf('mo', true),
    async launch(name, section, { as = name, access = {}, level = 'error' } = {}) {
      const configPath = join(folder, `${as}.yaml`);
      await writeFile(
        configPath,
        JSON.stringify({
          log: { level, requests: 'none' },
          access: { issuers: [{ issuer, jwks_url: `${issuer}/.well-known/jwks.json` }], ...access },
          [name]: { listen: { port: 0 }, operators: { port: 0 }, ...section },
        }),
      );
      const args = [name, '--config', configPath];
      const child = (name === 'origin' ? foreseen : undefined) ?? start(CLI, args);
      if (child === foreseen) {
        foreseen = undefined;
        child.send(args);
      }
      return launched(child, configPath);
    },
    preload() {
      foreseen ??= start(ORIGIN_CHILD, []);
    },
    async close() {
      await Promise.all([...running].map((child) => killed(child)));
      await auth.close();
    },
  };
}

function launched(child: ChildProcess, configPath: string): Launched {
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => (printed += String(chunk)));
  const ready = new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve(mediaUrlOf(message)));
    child.once('exit', (code) => reject(new Error(`it ended with ${String(code)} before it was ready:\n${printed}`)));
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

/** Options with the fields of a caller added. */
export function asCaller(caller: Readonly<Record<string, string>>, options: RequestOptions = {}): RequestOptions {
  return { ...options, headers: { ...caller, ...options.headers } };
}
