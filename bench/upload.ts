/**
 * Uploads over a real socket into a real origin, compared with what the machine
 * can do with the same bytes in the same run: hashing them, writing and syncing
 * them as files, and a bare node:http server that does only these two. Large
 * bodies are measured in MB/s, small ones in durable uploads per second. Client
 * and server share the processors, so the bare server shows what is possible.
 */
import { fork } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, open, rm } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { startService } from '../test/kit/service.js';

interface Case {
  readonly name: string;
  readonly sizeBytes: number;
  readonly count: number;
}

interface Measured {
  readonly perSecond: number;
  readonly mbPerSecond: number;
}

const CASES: readonly Case[] = [
  { name: '10 MB', sizeBytes: 10_000_000, count: 48 },
  { name: '20 KB', sizeBytes: 20_000, count: 1_024 },
];
const CONCURRENCIES = [1, 16, 64];
const ROUNDS = 3;
/** A document gets no thumbnail, so that only the upload is measured. */
const PDF_HEAD = Buffer.from('%PDF-1.7\n');

const folder = mkdtempSync(join(tmpdir(), 'bench-upload-'));
try {
  await main();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function main(): Promise<void> {
  process.stdout.write(
    `node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'}; random bodies that never repeat; the median of ${ROUNDS} rounds\n`,
  );
  const service = await startService(folder);
  const bare = await startBare();
  try {
    const token = await service.token();
    await proveRight(service.origin, token);
    for (const each of CASES) {
      for (const concurrency of CONCURRENCIES)
        await measure(each, concurrency, { service: service.origin, bare: bare.url, token });
    }
  } finally {
    bare.stop();
    await service.stop();
  }
}

interface Bare {
  readonly url: string;
  stop(): void;
}

async function startBare(): Promise<Bare> {
  const target = join(folder, 'bare');
  await mkdir(target);
  const child = fork(new URL('./upload-bare.js', import.meta.url), [target]);
  const [port] = (await once(child, 'message')) as [number];
  return { url: `http://127.0.0.1:${port}`, stop: () => child.disconnect() };
}

interface Targets {
  readonly service: string;
  readonly bare: string;
  readonly token: string;
}

interface Round {
  readonly hash: Measured;
  readonly disk: Measured;
  readonly bare: Measured;
  readonly service: Measured;
}

/** All of them in turn in each round, so that a machine that changes speed does so for each. */
async function measure(each: Case, concurrency: number, targets: Targets): Promise<void> {
  const rounds: Round[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const bodies = Array.from({ length: each.count }, () => bodyOf(each.sizeBytes));
    const written = join(folder, 'written');
    await mkdir(written);
    rounds.push({
      hash: await timed(each, bodies, 1, async (body) => void createHash('sha256').update(body).digest()),
      disk: await timed(each, bodies, concurrency, (body, index) => writeDurably(body, join(written, String(index)))),
      bare: await uploads(each, bodies, concurrency, targets.bare, targets.token),
      service: await uploads(each, bodies, concurrency, targets.service, targets.token),
    });
    await rm(written, { recursive: true });
  }
  report(`${each.name} × ${concurrency}`, rounds);
}

async function uploads(
  each: Case,
  bodies: readonly Buffer[],
  concurrency: number,
  url: string,
  token: string,
): Promise<Measured> {
  const agent = new Agent({ keepAlive: true, maxSockets: concurrency });
  try {
    return await timed(each, bodies, concurrency, async (body) => {
      const { status } = await post(url, token, body, agent);
      if (status !== 201) throw new Error(`an upload was answered with ${status}`);
    });
  } finally {
    agent.destroy();
  }
}

function report(name: string, rounds: readonly Round[]): void {
  const lower = ({ hash, disk }: Round): number => Math.min(hash.perSecond, disk.perSecond);
  const show = (of: (round: Round) => Measured): string => {
    const { perSecond, mbPerSecond } = middle(rounds.map(of), (measured) => measured.perSecond);
    return `${perSecond.toFixed(0).padStart(6)}/s ${mbPerSecond.toFixed(1).padStart(7)} MB/s`;
  };
  const ratio = (of: (round: Round) => number): string => {
    const all = rounds.map((round) => round.service.perSecond / of(round)).toSorted((a, b) => a - b);
    return `${middle(all, (value) => value).toFixed(2)} (${all.map((value) => value.toFixed(2)).join(' ')})`;
  };
  process.stdout.write(
    [
      name,
      `  service      ${show((round) => round.service)}`,
      `  sha256       ${show((round) => round.hash)}`,
      `  write+fsync  ${show((round) => round.disk)}   service is ${ratio(lower)} of the lower of these two`,
      `  bare server  ${show((round) => round.bare)}   service is ${ratio((round) => round.bare.perSecond)} of it`,
      '',
    ].join('\n'),
  );
}

function middle<T>(values: readonly T[], by: (value: T) => number): T {
  const sorted = values.toSorted((a, b) => by(a) - by(b));
  const found = sorted[Math.floor(sorted.length / 2)];
  if (found === undefined) throw new Error('nothing was measured');
  return found;
}

async function timed(
  each: Case,
  bodies: readonly Buffer[],
  concurrency: number,
  run: (body: Buffer, index: number) => Promise<void>,
): Promise<Measured> {
  let next = 0;
  const startedMs = performance.now();
  const lane = async (): Promise<void> => {
    for (let index = next++; index < bodies.length; index = next++) {
      const body = bodies[index];
      if (body !== undefined) await run(body, index);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, lane));
  const seconds = (performance.now() - startedMs) / 1_000;
  return { perSecond: bodies.length / seconds, mbPerSecond: (bodies.length * each.sizeBytes) / 1e6 / seconds };
}

function bodyOf(sizeBytes: number): Buffer {
  return Buffer.concat([PDF_HEAD, randomBytes(sizeBytes - PDF_HEAD.length)]);
}

/** The least that a durable store must do. The service also syncs names and folders, which is not counted here. */
async function writeDurably(body: Buffer, path: string): Promise<void> {
  const file = await open(path, 'w');
  await file.writeFile(body);
  await file.sync();
  await file.close();
}

function post(origin: string, token: string, body: Buffer, agent?: Agent): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(
      `${origin}/v1/media`,
      {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/pdf', 'content-length': body.length },
        ...(agent !== undefined && { agent }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }));
        response.on('error', reject);
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}

async function proveRight(origin: string, token: string): Promise<void> {
  const body = bodyOf(100_000);
  const { status, text } = await post(origin, token, body);
  const answered = JSON.parse(text) as Readonly<Record<string, unknown>>;
  if (status !== 201 || answered['sha256'] !== createHash('sha256').update(body).digest('hex')) {
    throw new Error(`the upload is not right: ${status} ${text}`);
  }
}
