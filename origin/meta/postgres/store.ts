/**
 * The metadata store on PostgreSQL. What an upload, a takedown or a job does to the records is decided by the same
 * functions as over LMDB (uploads.ts, takedown.ts, queue.ts): here they are given facts that were fetched and locked
 * before, and their changes are written in one transaction (writes.ts).
 */
import { Fault } from '../../../src/errors.js';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import { ALWAYS_CURRENT } from '../../../src/journal/source.js';
import type { Log } from '../../../src/log.js';
import { mediaKey, thumbKey } from '../../blobs/blob-store.js';
import type { MetaConfig } from '../config.js';
import { type MetaSnapshot, makeStore } from '../lmdb.js';
import { finishThumbs, redoThumbs } from '../queue.js';
import type { MetaStore, NewMedia, ThumbOutcome } from '../store.js';
import { JOB_ORDER, ownerKey } from '../tables.js';
import {
  expireDue,
  expireUnused,
  forgetBlob,
  forgetTombstones,
  quarantine,
  removeMedia,
  resolveScan,
  restore,
} from '../takedown.js';
import type { MetaDeps } from '../transactions.js';
import { commitUpload, recordBlob } from '../uploads.js';
import { dumpRows } from './dump.js';
import type { Fact } from './facts.js';
import { openJournal, type PolledJournal } from './journal.js';
import { migrate, readAbout } from './migrate.js';
import { createPlaces, trashAllIntents } from './places.js';
import { openPool, type Pool, type Run, withFaults } from './pool.js';
import { createQueue } from './queue.js';
import { createReads, idsIn } from './reads.js';
import { type Tenancy, takeAlone } from './tenancy.js';
import { uuidOf } from './values.js';
import { verifyRows } from './verify.js';
import { createWrites, entriesOf } from './writes.js';

/** Tombstones of changed media stay while they are what says that their bytes are refused (find-sent.ts). */
const TOMBSTONES = `
  SELECT id FROM media WHERE ended IS NOT NULL AND ended_at < $1 AND (
    sent_sha256 = sha256
    OR NOT EXISTS (SELECT FROM blob WHERE blob.sha256 = media.sha256 AND mark_cause = 'admin'))
  ORDER BY ended_at, id LIMIT $2`;
const DUE = 'SELECT id FROM media WHERE ended IS NULL AND expires_at <= $1 ORDER BY expires_at, id LIMIT $2';
const UNUSED = 'SELECT id FROM media WHERE ended IS NULL AND used_at < $1 ORDER BY used_at, id LIMIT $2';
const END_LEASES = `
  UPDATE job SET holder = NULL, lease_until = NULL, attempts = attempts + 1 WHERE holder IS NOT NULL RETURNING sha256`;
const MARK_USED = `
  UPDATE media SET used_at = $2
  WHERE id = ANY ($1::uuid[]) AND ended IS NULL AND used_at < $2 AND $2::bigint - used_at >= $3`;
const FORGET_USAGE = 'DELETE FROM usage WHERE period_at < $1 RETURNING period_at';
const WRITE_NOTHING = 'UPDATE about SET made_at = made_at';
const SIZE = 'SELECT pg_database_size(current_database()) AS bytes';
/** How long a measured size is used again. */
const SIZE_AGE_MS = 60_000;

export type PostgresDeps = MetaDeps & {
  readonly random: () => number;
  /** Refuses to open while another origin has the database open, and keeps others out. */
  readonly alone: boolean;
};

export async function openPostgresStore(config: MetaConfig, deps: PostgresDeps): Promise<MetaStore> {
  const { postgres } = config;
  const { clock, log, randomName } = deps;
  const pool = poolOf(config, log);
  let tenancy: Tenancy | null = null;
  try {
    await checkServer(pool.run);
    const about = await migrate(pool, clock.now(), randomName());
    if (deps.alone) {
      tenancy = await takeAlone(pool, deps);
      // Whoever had intents before is gone.
      await trashAllIntents(pool);
    }
    const ended = await pool.run(END_LEASES);
    if (ended.length > 0) log.info({ jobs: ended.length }, 'jobs leased by an earlier run are back in the queue');
    const { proof = ALWAYS_CURRENT } = tenancy ?? {};
    const journal = await openJournal({ pool, name: about.journal, proof, pollMs: postgres.pollMs, clock, log });
    return storeOf({ pool: withFaults(pool), journal, tenancy, config, deps });
  } catch (thrown) {
    await tenancy?.release();
    await pool.close();
    throw thrown;
  }
}

/** Reads and backups for a second process, while an origin may be writing. */
export async function openPostgresReader(config: MetaConfig, deps: MetaDeps): Promise<MetaSnapshot> {
  const pool = poolOf(config, deps.log);
  try {
    await readAbout(pool);
  } catch (thrown) {
    await pool.close();
    throw thrown;
  }
  return {
    ...createReads(withFaults(pool), config.scanMax),
    backup: (folder) => copyStore(pool, folder, deps),
    close: () => pool.close(),
  };
}

export function poolOf({ postgres }: MetaConfig, log: Log): Pool {
  if (postgres.url === null) throw new Error('origin.meta.postgres.url is needed for adaptor: postgres');
  return openPool(postgres, postgres.url, log);
}

/** A backup has one form, whatever the store: a folder of the embedded one. */
function copyStore(pool: Pool, folder: string, { clock, randomName }: MetaDeps): Promise<void> {
  return makeStore(folder, { journal: randomName(), madeAt: clock.now() }, (take) => dumpRows(pool, take));
}

type Parts = {
  readonly pool: Pool;
  readonly journal: PolledJournal;
  readonly tenancy: Tenancy | null;
  readonly config: MetaConfig;
  readonly deps: PostgresDeps;
};

function storeOf({ pool, journal, tenancy, config, deps }: Parts): MetaStore {
  const { clock, log, randomName } = deps;
  const queue = createQueue(pool, () => writes, log);
  const writes = createWrites({
    pool,
    newMark: randomName,
    now: () => clock.now(),
    commitMax: config.commitMax,
    queueMax: config.queueMax,
    lanesMax: config.postgres.writersMax,
    random: deps.random,
    mayWrite: () => tenancy?.holds() ?? true,
    async committed(changes) {
      await journal.tell(entriesOf(changes));
      for (const change of changes) queue.announce(change);
    },
  });
  const room = createRoom(pool.run, config.dataMaxBytes, clock);
  const must = <T>(facts: readonly Fact[], rule: Parameters<typeof writes.run<T>>[0]['rule']): Promise<T> =>
    writes.run({ rule, facts, urgency: 'must' });
  const may = <T>(facts: readonly Fact[], rule: Parameters<typeof writes.run<T>>[0]['rule']): Promise<T> =>
    writes.run({ rule, facts, urgency: 'may_fail' });
  let closing: Promise<void> | undefined;

  return {
    ...createReads(pool, config.scanMax),
    journal,
    jobs: queue,
    room: async () => ((await room()) ? 'enough' : 'data_max'),
    freeBytes: async () => null,
    ...createPlaces(pool, clock),
    async commitUpload(upload) {
      if (!(await room())) throw new Fault('storage_full', 'The metadata store has no room left.');
      return may(factsOf(upload), (change) => commitUpload(change, upload));
    },
    remove: (id, by, now) => must([{ kind: 'media', id }], (change) => removeMedia(change, id, by, now)),
    quarantine: (target, mark) => must(factsOfTarget(target), (change) => quarantine(change, target, mark)),
    restore: (target, now) => must(factsOfTarget(target), (change) => restore(change, target, now)),
    resolveScan: (sha256, mark, now) =>
      must([{ kind: 'blob', sha256 }], (change) => resolveScan(change, sha256, mark, now)),
    async expireDue(now, limit) {
      if ((await idsIn(pool.run, DUE, [now, 1])).length === 0) return [];
      return writes.runAlone(
        async (run, facts) => {
          facts.learnWhole('expiry');
          return mediaFacts(await idsIn(run, DUE, [now, limit]));
        },
        (change) => expireDue(change, now, limit),
      );
    },
    expireUnused: (before, now, limit) =>
      writes.runAlone(
        async (run, facts) => {
          facts.learnWhole('idle');
          return mediaFacts(await idsIn(run, UNUSED, [before, limit]));
        },
        (change) => expireUnused(change, before, now, limit),
      ),
    forgetTombstones: (before, limit) =>
      writes.runAlone(
        async (run, facts) => {
          facts.learnWhole('tombstone');
          return mediaFacts(await idsIn(run, TOMBSTONES, [before, limit]));
        },
        (change) => forgetTombstones(change, before, limit),
      ),
    forgetBlob: (sha256) => must([{ kind: 'blob', sha256 }], (change) => forgetBlob(change, sha256)),
    async markUsed(ids, at) {
      await pool.run(MARK_USED, [ids.map(uuidOf).sort(), at, config.usedStepMs]);
    },
    finishThumbs: (sha256, outcome, leaseholder) =>
      may(factsOfThumbs(sha256, outcome), (change) => finishThumbs(change, sha256, outcome, leaseholder)),
    redoThumbs: (sha256, priority, now) =>
      may([{ kind: 'blob', sha256 }], (change) => redoThumbs(change, sha256, priority, now)),
    async forgetUsage(before) {
      return (await pool.run(FORGET_USAGE, [before])).length;
    },
    verify: (options) => verifyRows(pool, writes, options),
    recordBlob: (blob) =>
      may([{ kind: 'blob', sha256: blob.sha256 }], (change) => recordBlob(change, blob, clock.now())),
    async probe() {
      await pool.run(WRITE_NOTHING);
    },
    backup: (folder) => copyStore(pool, folder, deps),
    close() {
      closing ??= (async () => {
        await writes.end();
        await journal.close();
        await tenancy?.release();
        await pool.close();
      })();
      return closing;
    },
  };
}

function factsOf({ sha256, sentSha256 = sha256, bytes, quota, owner, thumbs }: NewMedia): readonly Fact[] {
  const rank = JOB_ORDER.upload;
  return [
    { kind: 'blob', sha256 },
    { kind: 'blob', sha256: sentSha256 },
    { kind: 'sent', sha256: sentSha256 },
    ...(bytes.kind === 'stored' ? [{ kind: 'intent', key: mediaKey({ sha256, place: bytes.place }) } as const] : []),
    ...(quota === undefined ? [] : [{ kind: 'usage', periodAt: quota.periodStartAt, owner: ownerKey(owner) } as const]),
    ...(thumbs.kind === 'queue'
      ? ([
          { kind: 'next job', rank },
          { kind: 'last job', rank, owner: ownerKey(owner) },
        ] as const)
      : []),
  ];
}

function factsOfThumbs(sha256: Sha256, outcome: ThumbOutcome): readonly Fact[] {
  const made = outcome.kind === 'made' ? outcome.made : [];
  return [{ kind: 'blob', sha256 }, ...made.map((thumb): Fact => ({ kind: 'intent', key: thumbKey(sha256, thumb) }))];
}

function factsOfTarget(target: MediaId | Sha256): readonly Fact[] {
  return target.length === 26
    ? [{ kind: 'media', id: target as MediaId }]
    : [{ kind: 'blob', sha256: target as Sha256 }];
}

function mediaFacts(ids: readonly MediaId[]): readonly Fact[] {
  return ids.map((id) => ({ kind: 'media', id }));
}

/** Whether the database may take more uploads. Measuring it costs, so a measured size is used for a while. */
function createRoom(run: Run, maxBytes: number, clock: PostgresDeps['clock']): () => Promise<boolean> {
  let usedBytes = 0;
  let measuredAtMs = Number.NEGATIVE_INFINITY;
  return async () => {
    if (clock.monotonicMs() - measuredAtMs >= SIZE_AGE_MS) {
      measuredAtMs = clock.monotonicMs();
      const [row] = await run(SIZE);
      usedBytes = row?.['bytes'] as number;
    }
    return usedBytes < maxBytes;
  };
}

const OLDEST_VERSION = 130_000;
const SERVER = `
  SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS recovering,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('server_encoding') AS encoding`;

/** Refuses a server on which an acknowledged write could be lost or not be written at all. */
export async function checkServer(run: Run): Promise<void> {
  const [row] = await run(SERVER);
  const is = (name: string): unknown => row?.[name];
  if ((is('version') as number) < OLDEST_VERSION) throw new Error('the database server is older than PostgreSQL 13');
  if (is('recovering') === true) {
    throw new Error('the database is in recovery: it is a standby, or has not finished starting');
  }
  for (const name of ['fsync', 'full_page_writes']) {
    if (is(name) !== 'on') throw new Error(`the database runs with ${name} off, and would lose acknowledged writes`);
  }
  if (is('synchronous_commit') === 'off') {
    throw new Error('the database runs with synchronous_commit off, and would lose acknowledged writes');
  }
  if (is('encoding') !== 'UTF8') throw new Error(`the database has the encoding ${String(is('encoding'))}, not UTF8`);
}
