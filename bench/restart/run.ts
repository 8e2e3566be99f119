/**
 * `node dist/bench/restart/run.js [entries]`: the cost of the disk tier's index
 * and of a restart with this number of entries (a million by default): storing
 * rows, memory for each entry, recovery, a look-up by key. There are rows only,
 * no content files. Checks what it finds before it prints the times.
 */

import { createHash } from 'node:crypto';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DiskIndex } from '../../edge/cache/disk/disk-index.js';
import { type DiskRecord, digestOf, diskWeight } from '../../edge/cache/disk/record.js';
import { createPolicy, type PolicyName } from '../../edge/cache/policy/registry.js';
import type { CacheKey, Entry } from '../../edge/entry.js';
import { systemClock } from '../../src/clock.js';

const ROWS_PER_STEP = 512;
const LOOK_UPS = 50_000;

const HEAD: Entry['headers'] = [
  ['content-type', 'image/jpeg'],
  ['content-disposition', 'inline; filename="photograph.jpg"; filename*=UTF-8\'\'photograph.jpg'],
  ['cache-control', 'private, max-age=300'],
  ['cdn-cache-control', 'max-age=86400, stale-while-revalidate=60, stale-if-error=3600'],
  [
    'content-security-policy',
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
  ],
  ['cross-origin-resource-policy', 'cross-origin'],
  ['access-control-allow-origin', '*'],
  ['accept-ranges', 'bytes'],
  ['last-modified', 'Thu, 01 Jan 2026 00:00:00 GMT'],
  ['etag', `"sha256:${'ab'.repeat(32)}"`],
  ['media-width', '4032'],
  ['media-height', '3024'],
  ['media-id', '01ARZ3NDEKTSV4RRFFQ69G5FAV'],
  ['x-content-type-options', 'nosniff'],
];

function keyOf(n: number): CacheKey {
  return `/v1/media/01ARZ3NDEKTSV4RR${String(n).padStart(10, '0')}` as CacheKey;
}

function recordOf(n: number, index: DiskIndex): DiskRecord {
  const key = keyOf(n);
  const entry = {
    key,
    primaryKey: key,
    mediaId: key.slice(-26) as NonNullable<Entry['mediaId']>,
    status: 200,
    headers: HEAD,
    selectedBy: {},
    requestedAt: n,
    receivedAt: n,
    bornAt: n,
    staleAt: n,
    revalidateUntil: n,
    errorUntil: n,
    deleteAt: Number.POSITIVE_INFINITY,
    audience: 'authorised' as const,
    sizeBytes: 20_000,
    sha256: null,
  };
  const content = createHash('sha256').update(key).digest('hex');
  return { entry, content, weightBytes: diskWeight(entry, 20_000), seq: index.takeSeq(), run: index.run };
}

function print(what: string, value: string): void {
  process.stdout.write(`${what.padEnd(44)}${value}\n`);
}

function rate(count: number, fromMs: number): string {
  return `${Math.round((count / (performance.now() - fromMs)) * 1_000).toLocaleString('en')}/s`;
}

function heapBytes(): number {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

async function store(path: string, entries: number): Promise<void> {
  const index = await DiskIndex.open(path, { clock: systemClock, commitWithinMs: 0 });
  const from = performance.now();
  for (let n = 0; n < entries; n += 1) {
    index.put(digestOf(keyOf(n)), recordOf(n, index));
    if (n % 2_000 === 1_999) await index.flushed();
  }
  await index.flushed();
  print('rows stored, 2,000 a commit', rate(entries, from));
  await index.close();
  const { size } = await stat(path);
  print('index on disk, for each entry', `${Math.round(size / entries)} bytes`);
}

async function recover(path: string, entries: number, policyName: PolicyName): Promise<void> {
  const index = await DiskIndex.open(path, { clock: systemClock, commitWithinMs: 0 });
  const before = heapBytes();
  const from = performance.now();
  const policy = createPolicy(policyName, 1e15, { smallShare: 0.1, promoteAt: 1, windowShare: 0.1 });
  let longestMs = 0;
  let stepFrom = performance.now();
  for (const rows of index.inOrder(ROWS_PER_STEP)) {
    for (const { digest, weightBytes } of rows) policy.admit(digest, weightBytes, () => undefined);
    longestMs = Math.max(longestMs, performance.now() - stepFrom);
    await new Promise(setImmediate);
    stepFrom = performance.now();
  }
  if (policy.count !== entries) throw new Error(`recovered ${policy.count} of ${entries}`);
  print(`recovered into ${policyName}`, `${rate(entries, from)}, longest step ${longestMs.toFixed(1)} ms`);
  const usedBytes = heapBytes() - before;
  print('  memory for each entry', `${Math.round(usedBytes / policy.count)} bytes`);
  await index.close();
}

async function lookUp(path: string, entries: number): Promise<void> {
  const index = await DiskIndex.open(path, { clock: systemClock, commitWithinMs: 0 });
  const from = performance.now();
  for (let n = 0; n < LOOK_UPS; n += 1) {
    const key = keyOf((n * 7_919) % entries);
    if (index.get(digestOf(key))?.entry.key !== key) throw new Error(`${key} is not found`);
  }
  print('a record by its key, decoded', `${(((performance.now() - from) / LOOK_UPS) * 1_000).toFixed(1)} µs`);
  await index.close();
}

async function run(): Promise<void> {
  const entries = Number(process.argv[2] ?? 1_000_000);
  const folder = await mkdtemp(join(tmpdir(), 'media-restart-'));
  const path = join(folder, 'index');
  print('node', process.version);
  print('entries', entries.toLocaleString('en'));
  if (globalThis.gc === undefined) print('memory', 'run node with --expose-gc for exact figures');
  try {
    await store(path, entries);
    for (const policy of ['s3-fifo', 'lru', 'gdsf'] as const) await recover(path, entries, policy);
    await lookUp(path, entries);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

await run();
