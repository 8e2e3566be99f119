/**
 * `npm run bench meta [--seconds NUMBER] [--rounds NUMBER] [--writers NUMBER]`: writes per second of both metadata stores on one disk.
 *
 * Uploads are recorded without bytes (each of a new blob, with its job) by 1, 16 and 64 callers at once, over LMDB and over
 * PostgreSQL in turns. Takedowns are deletes by 64 callers of one origin, and of three origins at once, over PostgreSQL. Each
 * store is looked through afterwards: every acknowledged record is there, and the journal has no gap.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { mediaKey } from '../origin/blobs/blob-store.js';
import { type MetaConfig, metaSection } from '../origin/meta/config.js';
import { openMetaStore } from '../origin/meta/lmdb.js';
import { openPostgresStore } from '../origin/meta/postgres/store.js';
import type { MetaStore, NewMedia } from '../origin/meta/store.js';
import { systemClock } from '../src/clock.js';
import { processContext } from '../src/config/load.js';
import type { MediaId, Sha256 } from '../src/ids.js';
import { createLog } from '../src/log.js';
import { uploadOf } from '../test/kit/origin/meta/contract.js';
import { openPostgres } from '../test/kit/postgres/server.js';

const CALLERS = [1, 16, 64] as const;
const ORIGINS = 3;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    writers: { type: 'string', default: '2' },
  },
});
const sliceMs = Number(values.seconds) * 1_000;
const rounds = Number(values.rounds);

const deps = {
  clock: systemClock,
  log: createLog('bench', { level: 'silent' }),
  randomName: () => randomUUID(),
  random: Math.random,
  opener: { kind: 'beside' } as const,
};
const folder = await mkdtemp(join(tmpdir(), 'bench-meta-'));
const server = await openPostgres();
try {
  await run();
} finally {
  await server?.close();
  await rm(folder, { recursive: true, force: true });
}

async function run(): Promise<void> {
  const model = cpus()[0]?.model ?? 'unknown processor';
  print(`node ${process.version}, ${cpus().length} × ${model}, ${rounds} rounds of ${values.seconds} s each`);
  const lmdb = await openMetaStore(configOf('', 'lmdb'), deps);
  const stores: (readonly [string, MetaStore])[] = [['LMDB', lmdb]];
  const urls = server === null ? null : await server.database();
  if (urls === null) print('there is no PostgreSQL server on this machine');
  else stores.push(['PostgreSQL', await openPostgresIn(urls)]);

  print('\nuploads recorded per second, median (least to most)');
  for (const callers of CALLERS) {
    const counted = new Map(stores.map(([name]) => [name, [] as number[]]));
    for (let round = 0; round < rounds; round += 1) {
      for (const [name, store] of stores) counted.get(name)?.push(await uploadsPerSecond(store, callers));
    }
    print(
      `${String(callers).padStart(3)} at once: ${[...counted].map(([name, found]) => `${name} ${shown(found)}`).join(', ')}`,
    );
  }
  for (const [, store] of stores) await store.close();
  if (urls !== null) await takedowns(urls);
}

async function takedowns(url: string): Promise<void> {
  const origins = await Promise.all(Array.from({ length: ORIGINS }, () => openPostgresIn(url)));
  print('\ndeletes per second over PostgreSQL, 64 callers at each origin');
  for (const count of [1, ORIGINS]) {
    const found: number[] = [];
    for (let round = 0; round < rounds; round += 1) found.push(await deletesPerSecond(origins.slice(0, count)));
    print(`${count} ${count === 1 ? 'origin ' : 'origins'}: ${shown(found)}`);
  }
  const newest = Math.max(...origins.map(({ journal }) => journal.newest()));
  const seen = (await origins[0]?.journal.read(0, newest + 1)) ?? [];
  const gap = seen.findIndex(({ seq }, at) => seq !== at + 1);
  if (gap !== -1 || seen.length !== newest) throw new Error(`the journal has ${seen.length} entries of ${newest}`);
  await Promise.all(origins.map((origin) => origin.close()));
}

async function uploadsPerSecond(store: MetaStore, callers: number): Promise<number> {
  const made: MediaId[] = [];
  const fromMs = performance.now();
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (performance.now() - fromMs < sliceMs) {
        const upload = uploadOf(randomHash());
        const { kind } = await commit(store, upload);
        if (kind !== 'created') throw new Error(`an upload was answered ${kind}`);
        made.push(upload.id);
      }
    }),
  );
  const tookMs = performance.now() - fromMs;
  for (const id of made.filter((_, n) => n % 50 === 0)) {
    if ((await store.find(id, systemClock.now())).kind !== 'live') throw new Error(`${id} is not there`);
  }
  return (made.length * 1_000) / tookMs;
}

/** Each deletes what it has recorded before, which is not measured. */
async function deletesPerSecond(origins: readonly MetaStore[]): Promise<number> {
  const waiting = await Promise.all(
    origins.map((origin) => Promise.all(Array.from({ length: 4_000 }, () => recorded(origin)))),
  );
  let removed = 0;
  const fromMs = performance.now();
  await Promise.all(
    origins.flatMap((origin, at) =>
      Array.from({ length: 64 }, async () => {
        for (let id = waiting[at]?.pop(); id !== undefined; id = waiting[at]?.pop()) {
          if (performance.now() - fromMs > sliceMs) return;
          const { kind } = await origin.remove(id, 'bench', systemClock.now());
          if (kind !== 'removed') throw new Error(`a delete was answered ${kind}`);
          removed += 1;
        }
      }),
    ),
  );
  return (removed * 1_000) / (performance.now() - fromMs);
}

async function recorded(origin: MetaStore): Promise<MediaId> {
  const upload = uploadOf(randomHash());
  await commit(origin, upload);
  return upload.id;
}

/** As an upload does it. */
async function commit(store: MetaStore, upload: NewMedia): ReturnType<MetaStore['commitUpload']> {
  const { sha256, bytes } = upload;
  if (bytes.kind === 'stored') await store.intend([mediaKey({ sha256, place: bytes.place })]);
  return store.commitUpload(upload);
}

function openPostgresIn(url: string): Promise<MetaStore> {
  return openPostgresStore(configOf(url, 'unused'), deps);
}

function configOf(url: string, name: string): MetaConfig {
  const adaptor = url === '' ? 'lmdb' : 'postgres';
  return metaSection
    .schema({ ...processContext, env: () => url || '-' })
    .parse({ adaptor, folder: join(folder, name), postgres: { url: 'env:URL', writers_max: Number(values.writers) } });
}

function randomHash(): Sha256 {
  return randomBytes(32).toString('hex') as Sha256;
}

function shown(found: readonly number[]): string {
  const sorted = found.toSorted((a, b) => a - b);
  const at = (share: number): number => Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0);
  return `${at(0.5)} (${at(0)} to ${at(1)})`;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
