/**
 * The cost of a memory hit: processor time per request of the edge, compared
 * with a bare node:http server that has its answers ready, and with nginx and
 * Varnish if they are installed. Processor time is read from the system (Linux),
 * so a busy machine changes the requests per second but hardly this figure. Only
 * the edge checks a token; the others cannot.
 */
import { type ChildProcess, fork, spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeJpeg } from '../test/kit/pictures.js';
import { ownPorts, startService } from '../test/kit/service.js';
import type { LoadAnswer, LoadTask } from './hit-load.js';

const ROUNDS = Number(process.argv[2] ?? 5);
const CONNECTIONS = 32;
const SIZES = [
  { name: '1 KiB', bytes: 1_024, requests: 20_000 },
  { name: '64 KiB', bytes: 65_536, requests: 8_000 },
  { name: '1 MiB', bytes: 1_048_576, requests: 1_000 },
];

interface Server {
  readonly name: string;
  readonly port: number;
  /** Fields besides Host. */
  readonly fields: string;
  /** The paths: by index in SIZES, then the thumbnail. */
  readonly paths: readonly string[];
  /** All processes of the server. */
  pids(): readonly number[];
}

interface Case {
  readonly name: string;
  readonly size: number;
  readonly method: 'GET' | 'HEAD';
  readonly conditional: boolean;
  readonly requests: number;
}

const CASES: readonly Case[] = [
  ...SIZES.map(({ name, requests }, size) => ({
    name: `GET ${name}`,
    size,
    method: 'GET' as const,
    conditional: false,
    requests,
  })),
  { name: 'GET thumbnail', size: SIZES.length, method: 'GET', conditional: false, requests: 20_000 },
  { name: 'HEAD 1 KiB', size: 0, method: 'HEAD', conditional: false, requests: 20_000 },
  { name: 'GET 304', size: 0, method: 'GET', conditional: true, requests: 20_000 },
];

const folder = mkdtempSync(join(tmpdir(), 'bench-hit-'));
const stops: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })];
try {
  await main();
} finally {
  for (const stop of stops.toReversed()) await stop();
}

async function main(): Promise<void> {
  process.stdout.write(
    `node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'}; ${CONNECTIONS} connections, one request at a time on each; ${ROUNDS} rounds\n`,
  );
  const documents = SIZES.map(({ bytes }) => Buffer.concat([Buffer.from('%PDF-1.7\n'), randomBytes(bytes - 9)]));
  const { edges, thumbnail } = await startEdge(documents);
  const bodies = [...documents, thumbnail];
  process.stdout.write(`the thumbnail has ${thumbnail.length} bytes\n`);
  const files = bodies.map((body, index) => {
    const path = join(folder, `body-${index}`);
    writeFileSync(path, body);
    return path;
  });
  const bare = await startBare(files);
  const paths = bodies.map((_, index) => `/${index}`);
  const servers = [...edges, bare, ...(await startNginx(bare.port, paths)), ...(await startVarnish(bare.port, paths))];
  const load = fork(new URL('./hit-load.js', import.meta.url));
  stops.push(() => load.disconnect());
  for (const each of CASES) {
    const cost = new Map<string, { cpuUs: number; perSecond: number }[]>(servers.map(({ name }) => [name, []]));
    for (let round = -1; round < ROUNDS; round += 1) {
      for (const server of servers) {
        const body = bodies[each.size] ?? Buffer.alloc(0);
        const measured = await measure(load, server, each, body);
        // The first round warms the caches and the compiler.
        if (round >= 0) cost.get(server.name)?.push(measured);
      }
    }
    report(each.name, cost);
  }
}

async function measure(load: ChildProcess, server: Server, each: Case, body: Buffer) {
  const sha256 = createHash('sha256').update(body).digest('hex');
  const conditional = each.conditional ? `If-None-Match: "sha256:${sha256}"\r\n` : '';
  const task: LoadTask = {
    port: server.port,
    request: `${each.method} ${server.paths[each.size] ?? '/'} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\n${server.fields}${conditional}\r\n`,
    connections: CONNECTIONS,
    requests: each.requests,
    status: each.conditional ? 304 : 200,
    sha256: each.method === 'GET' && !each.conditional ? sha256 : null,
  };
  const before = cpuMs(server.pids());
  load.send(task);
  const [answer] = (await once(load, 'message')) as [LoadAnswer];
  if ('failed' in answer) throw new Error(`${server.name}, ${each.name}: ${answer.failed}`);
  const spentMs = cpuMs(server.pids()) - before;
  return { cpuUs: (spentMs * 1_000) / each.requests, perSecond: (each.requests * 1_000) / answer.wallMs };
}

function report(name: string, cost: ReadonlyMap<string, readonly { cpuUs: number; perSecond: number }[]>): void {
  process.stdout.write(`${name}\n`);
  const bare = middle((cost.get('bare node:http') ?? []).map(({ cpuUs }) => cpuUs));
  for (const [server, rounds] of cost) {
    const cpu = rounds.map(({ cpuUs }) => cpuUs);
    const spread = `${Math.min(...cpu).toFixed(1)}–${Math.max(...cpu).toFixed(1)}`;
    process.stdout.write(
      `  ${server.padEnd(16)}${middle(cpu).toFixed(1).padStart(8)} µs of processor a request (${spread})  ${(middle(cpu) / bare).toFixed(2)} of bare  ${middle(
        rounds.map(({ perSecond }) => perSecond),
      )
        .toFixed(0)
        .padStart(7)}/s\n`,
    );
  }
}

function middle(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** The edge twice: private media with a token, public media without one. Also the thumbnail of a picture. */
async function startEdge(documents: readonly Buffer[]): Promise<{ edges: Server[]; thumbnail: Buffer }> {
  const service = await startService(folder);
  stops.push(() => service.stop());
  const token = await service.token();
  const authorization = `Bearer ${token}`;
  const upload = async (body: Buffer, open: boolean): Promise<string> => {
    const answer = await fetch(`${service.origin}/v1/media?public=${open}`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/octet-stream' },
      body: new Uint8Array(body),
    });
    const { id } = (await answer.json()) as { id: string };
    return `/v1/media/${id}`;
  };
  const picture = await makeJpeg(1, 1_200, 800);
  const pathsOf = async (open: boolean): Promise<string[]> => [
    ...(await Promise.all(documents.map((body) => upload(body, open)))),
    `${await upload(picture, open)}/thumb?w=320`,
  ];
  const [kept, open] = [await pathsOf(false), await pathsOf(true)];
  const thumbnail = await thumbnailAt(service.edge + (open.at(-1) ?? ''));
  const edge = { port: Number(new URL(service.edge).port), pids: () => processesIn(folder, 'edge') };
  if (edge.pids().length === 0) throw new Error('the process of the edge was not found');
  const accept = 'Accept: image/avif,image/webp,*/*\r\n';
  const edges = [
    { ...edge, name: 'edge, token', fields: `${accept}Authorization: ${authorization}\r\n`, paths: kept },
    { ...edge, name: 'edge, public', fields: accept, paths: open },
  ];
  return { edges, thumbnail };
}

/** Waits until it is made. */
async function thumbnailAt(url: string): Promise<Buffer> {
  for (let attempt = 1; attempt <= 20; attempt += 1) {
    const answer = await fetch(url, { headers: { accept: 'image/webp' } });
    const bytes = Buffer.from(await answer.arrayBuffer());
    if (answer.status === 200) return bytes;
  }
  throw new Error('the thumbnail was not made');
}

async function startBare(files: readonly string[]): Promise<Server> {
  const child = fork(new URL('./hit-bare.js', import.meta.url), [...files]);
  stops.push(() => child.disconnect());
  const [port] = (await once(child, 'message')) as [number];
  return {
    name: 'bare node:http',
    port,
    fields: '',
    paths: files.map((_, index) => `/${index}`),
    pids: () => family(child),
  };
}

async function startNginx(origin: number, paths: readonly string[]): Promise<Server[]> {
  if (spawnSync('nginx', ['-v']).error !== undefined) return absent('nginx');
  const { edge: port } = await ownPorts();
  const home = join(folder, 'nginx');
  mkdirSync(home);
  const config = `
daemon off; ${process.getuid?.() === 0 ? 'user root;' : ''} worker_processes 1; pid ${home}/pid; error_log ${home}/error.log;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=100;
  client_body_temp_path ${home}/body; proxy_temp_path ${home}/proxy; fastcgi_temp_path ${home}/f; uwsgi_temp_path ${home}/u; scgi_temp_path ${home}/s;
  proxy_cache_path ${home}/cache keys_zone=hits:10m;
  server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${origin}; proxy_cache hits; add_header X-Cache $upstream_cache_status; } }
}`;
  writeFileSync(join(home, 'nginx.conf'), config);
  const child = spawn('nginx', ['-p', home, '-c', join(home, 'nginx.conf')], { stdio: 'ignore' });
  stops.push(() => child.kill());
  await untilAnswers(port);
  return [{ name: 'nginx', port, fields: '', paths, pids: () => family(child) }];
}

async function startVarnish(origin: number, paths: readonly string[]): Promise<Server[]> {
  if (spawnSync('varnishd', ['-V']).error !== undefined) return absent('varnishd');
  const { edge: port } = await ownPorts();
  const home = join(folder, 'varnish');
  const args = ['-F', '-n', home, '-a', `127.0.0.1:${port}`, '-b', `127.0.0.1:${origin}`, '-s', 'malloc,64m'];
  const child = spawn('varnishd', [...args, '-j', 'none'], { stdio: 'ignore' });
  stops.push(() => child.kill());
  await untilAnswers(port);
  return [{ name: 'Varnish', port, fields: '', paths, pids: () => family(child) }];
}

function absent(program: string): [] {
  process.stdout.write(`${program} is not installed and is left out\n`);
  return [];
}

async function untilAnswers(port: number): Promise<void> {
  let last: unknown;
  for (let attempt = 1; attempt <= 100; attempt += 1) {
    try {
      const answer = await fetch(`http://127.0.0.1:${port}/0`);
      await answer.arrayBuffer();
      if (answer.status === 200) return;
      last = new Error(`answered ${answer.status}`);
    } catch (thrown) {
      last = thrown;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw last;
}

/** User and system time of all of them until now. */
function cpuMs(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks * 10;
}

function allPids(): number[] {
  return readdirSync('/proc').map(Number).filter(Number.isInteger);
}

/** A process and its descendants. */
function family(child: ChildProcess): number[] {
  const parents = new Map(allPids().map((pid) => [pid, parentOf(pid)]));
  const isIn = (pid: number): boolean => pid === child.pid || (pid > 1 && isIn(parents.get(pid) ?? 0));
  return [...parents.keys()].filter(isIn);
}

function parentOf(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ')[1]);
  } catch {
    return 0;
  }
}

/** Processes that run in a folder and have a word on their command line. */
function processesIn(home: string, word: string): number[] {
  return allPids().filter((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      return readlinkSync(`/proc/${pid}/cwd`) === home && words.includes(word);
    } catch {
      return false;
    }
  });
}
