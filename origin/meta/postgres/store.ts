/**
 * The metadata store on PostgreSQL. What an upload, a takedown or a job does to the records is decided by the same
 * functions as over LMDB (uploads.ts, takedown.ts, queue.ts): here they are given facts that were fetched and locked
 * before, and their changes are written in one transaction (writes.ts).
 */
import { Fault } from '../../../src/errors.js';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import type { Log } from '../../../src/log.js';
import { mediaKey, thumbKey } from '../../blobs/blob-store.js';
import type { MetaConfig } from '../config.js';
import { type MetaSnapshot, makeStore } from '../lmdb.js';
import { NO_DUTIES, ownDuties } from '../origins/duties.js';
import { ONE_ORIGIN } from '../origins.js';
import { createOutboxTable } from '../outbox/postgres.js';
import { finishThumbs, redoThumbs } from '../queue.js';
import type { MetaStore, NewMedia, ThumbOutcome } from '../store.js';
import { JOB_ORDER, ownerKey } from '../tables.js';
import { takeDownOwned } from '../takedown/owned.js';
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
import { commitUpload, recordBlob, userOf } from '../uploads.js';
import { createAuditTable, noted } from './audit.js';
import { dumpRows } from './dump.js';
import { leasedDuties } from './duties.js';
import type { Fact } from './facts.js';
import { openJournal, type PolledJournal } from './journal.js';
import { keepOriginsOut } from './keep-out.js';
import { migrate, readAbout } from './migrate.js';
import { sharedEdges } from './origins/edges.js';
import { createPlaces, trashIntents } from './places.js';
import { openPool, type Pool, type Run, withFaults } from './pool.js';
import { createQueue } from './queue.js';
import { createReads, idsIn } from './reads.js';
import { type Holding, type Registry, register } from './registry.js';
import { checkServer } from './server/check-server.js';
import { createUploadTable } from './uploads.js';
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
/** Those of an origin's leaseholders, whose names start with its own; without a name, those of all. */
const END_LEASES = `
  UPDATE job SET holder = NULL, lease_until = NULL, attempts = attempts + 1
  WHERE holder IS NOT NULL AND ($1::text IS NULL OR starts_with(holder, $1 || '/')) RETURNING sha256`;
const MARK_USED = `
  UPDATE media SET used_at = $2
  WHERE id = ANY ($1::uuid[]) AND ended IS NULL AND used_at < $2 AND $2::bigint - used_at >= $3`;
const FORGET_USAGE = 'DELETE FROM usage WHERE period_at < $1 RETURNING period_at';
const WRITE_NOTHING = 'UPDATE origin SET beat_at = beat_at WHERE name = $1';
const SIZE = 'SELECT pg_database_size(current_database()) AS bytes';
/** How long a measured size is used again. */
const SIZE_AGE_MS = 60_000;

export type PostgresDeps = MetaDeps & { readonly random: () => number; readonly opener: Opener };

export type Opener =
  /** One of several origins. Refused while a living one has the name. */
  | { readonly kind: 'origin'; readonly name: string }
  /** A command that needs the database for itself. Refused while an origin or another such command has it. */
  | { readonly kind: 'alone' }
  /** A command that writes while origins serve. It leaves their jobs and intents as they are. */
  | { readonly kind: 'beside' };

export async function openPostgresStore(config: MetaConfig, deps: PostgresDeps): Promise<MetaStore> {
  const { postgres } = config;
  const { clock, log, randomName } = deps;
  const pool = poolOf(config, log);
  let place: Place | undefined;
  try {
    for (const warning of await checkServer(pool.run)) log.warn({}, warning);
    const about = await migrate(pool, clock.now(), randomName());
    place = await takePlace(pool, config, deps);
    const { registry } = place;
    const journal = await openJournal({ pool, name: about.journal, registry, pollMs: postgres.pollMs, clock, log });
    await registry?.start();
    return storeOf({ pool: withFaults(pool), journal, place, config, deps });
  } catch (thrown) {
    await place?.holding.release();
    await pool.close();
    throw thrown;
  }
}

type Place = {
  readonly holding: Holding;
  readonly registry: Registry | null;
  /** Whether it does what one origin does for all. */
  readonly serves: boolean;
};

/** Whoever has it now takes back what its earlier run left. */
async function takePlace(pool: Pool, { postgres }: MetaConfig, deps: PostgresDeps): Promise<Place> {
  const { opener, log } = deps;
  if (opener.kind === 'alone') {
    const holding = await keepOriginsOut(pool, deps);
    await takeBack(pool, undefined, log);
    return { holding, registry: null, serves: true };
  }
  const { clockOffMaxMs } = postgres;
  const serves = opener.kind === 'origin';
  const name = serves ? opener.name : deps.randomName();
  const registry = await register(pool, { ...deps, name, serves, clockOffMaxMs });
  if (serves) await takeBack(pool, name, log);
  return { holding: registry, registry, serves };
}

async function takeBack(pool: Pool, origin: string | undefined, log: Log): Promise<void> {
  await trashIntents(pool, origin);
  const ended = await pool.run(END_LEASES, [origin ?? null]);
  if (ended.length > 0) log.info({ jobs: ended.length }, 'jobs leased by an earlier run are back in the queue');
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
  readonly place: Place;
  readonly config: MetaConfig;
  readonly deps: PostgresDeps;
};

function storeOf({ pool, journal, place: { holding, registry, serves }, config, deps }: Parts): MetaStore {
  const { clock, log, randomName } = deps;
  const { origins } = registry ?? { origins: ONE_ORIGIN };
  const queue = createQueue(
    pool,
    () => writes,
    () => registry?.aheadMs() ?? 0,
    config.postgres.pollMs,
    log,
  );
  const writes = createWrites({
    pool,
    newMark: randomName,
    now: () => clock.now(),
    eventMaker: deps.eventMaker,
    commitMax: config.commitMax,
    queueMax: config.queueMax,
    lanesMax: config.postgres.writersMax,
    random: deps.random,
    mayWrite: () => holding.holds(),
    async committed(changes) {
      await journal.committed(entriesOf(changes));
      for (const change of changes) queue.announce(change);
    },
  });
  const leased =
    serves && registry !== null
      ? leasedDuties({ pool, origin: registry.origins.name, mayWork: () => registry.mayWork(), clock, log })
      : null;
  const duties = leased ?? (registry === null ? ownDuties() : NO_DUTIES);
  const places = createPlaces(pool, origins.name, clock);
  const stopWithdrawing = registry?.onBeat(() => places.withdrawLate());
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
    origins,
    duties,
    shared: { uploads: createUploadTable(pool, clock), audit: createAuditTable(pool) },
    outbox: createOutboxTable(pool),
    edges: leased === null ? null : sharedEdges(pool, origins.name),
    room: async () => ((await room()) ? 'enough' : 'data_max'),
    freeBytes: async () => null,
    ...places,
    async commitUpload(upload) {
      if (!(await room())) throw new Fault('storage_full', 'The metadata store has no room left.');
      return may(factsOf(upload), (change) => commitUpload(change, upload));
    },
    remove: (id, by, now, note) =>
      must(
        [{ kind: 'media', id }],
        noted((change) => removeMedia(change, id, by, now), note),
      ),
    quarantine: (target, mark, note) =>
      must(
        factsOfTarget(target),
        noted((change) => quarantine(change, target, mark), note),
      ),
    restore: (target, now, note) =>
      must(
        factsOfTarget(target),
        noted((change) => restore(change, target, now), note),
      ),
    resolveScan: (sha256, mark, now) =>
      must([{ kind: 'blob', sha256 }], (change) => resolveScan(change, sha256, mark, now)),
    takeDownOwned: (owner, ids, act, now) =>
      writes.runAlone(
        async () => mediaFacts(ids),
        (change) => takeDownOwned(change, owner, ids, act, now),
      ),
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
      if (!holding.holds()) throw new Fault('storage_unavailable', 'The database is held by another.');
      await pool.run(WRITE_NOTHING, [origins.name]);
    },
    backup: (folder) => copyStore(pool, folder, deps),
    close() {
      closing ??= (async () => {
        stopWithdrawing?.();
        await writes.end();
        await journal.close();
        await leased?.release();
        await holding.release();
        await pool.close();
      })();
      return closing;
    },
  };
}

function factsOf({ id, sha256, sentSha256 = sha256, bytes, quota, owner, thumbs, once }: NewMedia): readonly Fact[] {
  const rank = JOB_ORDER.upload;
  return [
    { kind: 'media', id },
    { kind: 'blob', sha256 },
    { kind: 'blob', sha256: sentSha256 },
    { kind: 'sent', sha256: sentSha256 },
    ...(bytes.kind === 'stored' ? [{ kind: 'intent', key: mediaKey({ sha256, place: bytes.place }) } as const] : []),
    ...(quota === undefined ? [] : [{ kind: 'usage', periodAt: quota.periodStartAt, owner: ownerKey(owner) } as const]),
    ...(once === undefined
      ? []
      : [{ kind: 'usage', periodAt: once.until, owner: ownerKey(userOf(once.link)) } as const]),
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
