/**
 * Uploads over a real socket into a real origin, beside what the machine itself
 * can do with the same bytes in the same run: hashing them, and writing and
 * syncing them as files. Large bodies are measured in MB/s, small ones in
 * durable uploads per second.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, open, rename } from 'node:fs/promises';
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
/** A tiny but true PNG head, so that the bytes are accepted as what they say; the rest is noise. */
const PNG_HEAD = Buffer.from(
  '89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082',
  'hex',
);

const folder = mkdtempSync(join(tmpdir(), 'bench-upload-'));
try {
  await main();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function main(): Promise<void> {
  process.stdout.write(
    `node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'}, bodies are random and never repeat\n`,
  );
  const service = await startService(folder, unlimited);
  try {
    const token = await service.token();
    await proveRight(service.origin, token);
    for (const each of CASES) {
      for (const concurrency of CONCURRENCIES) await measure(each, concurrency, service.origin, token);
    }
  } finally {
    await service.stop();
  }
}

/** No limit of the service is in the way of the measurement. */
function unlimited(config: string): string {
  return config.replace(
    'origin:\n',
    'origin:\n  limits: { requests: 1000000000, bytes: 1000TB, quota_bytes: 1000TB, quota_files: 1000000000 }\n',
  );
}

/** The limits and the service in turn, round by round, so that a machine that drifts drifts for both. */
async function measure(each: Case, concurrency: number, origin: string, token: string): Promise<void> {
  const rounds: { hash: Measured; disk: Measured; service: Measured; ratio: number }[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const bodies = Array.from({ length: each.count }, () => bodyOf(each.sizeBytes));
    const hash = await timed(each, bodies, 1, async (body) => void createHash('sha256').update(body).digest());
    const disk = await timed(each, bodies, concurrency, (body, index) => writeDurably(body, `${round}-${index}`));
    const agent = new Agent({ keepAlive: true, maxSockets: concurrency });
    const service = await timed(each, bodies, concurrency, async (body) => {
      const { status } = await post(origin, token, body, agent);
      if (status !== 201) throw new Error(`an upload was answered ${status}`);
    });
    agent.destroy();
    rounds.push({ hash, disk, service, ratio: service.perSecond / Math.min(hash.perSecond, disk.perSecond) });
  }
  const middle = rounds.toSorted((a, b) => a.ratio - b.ratio)[Math.floor(ROUNDS / 2)];
  if (middle === undefined) return;
  const show = ({ perSecond, mbPerSecond }: Measured): string =>
    `${perSecond.toFixed(0).padStart(6)}/s ${mbPerSecond.toFixed(1).padStart(7)} MB/s`;
  const spread = rounds
    .map(({ ratio }) => ratio.toFixed(2))
    .sort()
    .join(' ');
  process.stdout.write(
    `${each.name} × ${String(concurrency).padEnd(2)}  service ${show(middle.service)}   sha256 ${show(middle.hash)}   write+fsync ${show(middle.disk)}   of the lower limit ${middle.ratio.toFixed(2)} (${spread})\n`,
  );
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
  return Buffer.concat([PNG_HEAD, randomBytes(sizeBytes - PNG_HEAD.length)]);
}

/** What any durable store must do: write, sync, rename, sync the folder. */
async function writeDurably(body: Buffer, name: string): Promise<void> {
  const shard = join(folder, 'limit', name.slice(-2));
  await mkdir(shard, { recursive: true });
  const staged = join(folder, 'limit', `${name}.part`);
  const file = await open(staged, 'w');
  await file.writeFile(body);
  await file.datasync();
  await file.close();
  await rename(staged, join(shard, name));
  const directory = await open(shard, 'r');
  await directory.sync();
  await directory.close();
}

function post(origin: string, token: string, body: Buffer, agent?: Agent): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(
      `${origin}/v1/media`,
      {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'image/png', 'content-length': body.length },
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
  const told = JSON.parse(text) as Readonly<Record<string, unknown>>;
  if (status !== 201 || told['sha256'] !== createHash('sha256').update(body).digest('hex')) {
    throw new Error(`the upload is not right: ${status} ${text}`);
  }
}
