/**
 * The metadata store on any database of database.ts; another database would be
 * used from here. Each method is one read or one transaction, and what it does is
 * in the file of its subject (find, uploads, takedown, queue, ...). After a commit,
 * journal entries are published and new jobs announced.
 */
import type { Clock, EpochMs } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { MediaId } from '../../src/ids.js';
import type { Log } from '../../src/log.js';
import type { BlobKey } from '../blobs/blob-store.js';
import type { DamagedRecord } from './codec.js';
import type { LmdbConfig } from './config.js';
import { type Change, type Database, readOrSkip, startChange, type Urgency } from './database.js';
import { blobsAfter, findMedia, listMedia, takedownSeqOf } from './find.js';
import { findBlobBySent } from './find-sent.js';
import { createDataLimit } from './lmdb/data-limit.js';
import { ownDuties } from './origins/duties.js';
import { ONE_ORIGIN } from './origins.js';
import type { EventMaker } from './outbox/outbox.js';
import { createOutbox, keepEvents } from './outbox/tables.js';
import { createIntents, forgetTrash, isNamed, isTrashed, trashedBefore } from './places.js';
import { createQueue, endLeases, finishThumbs, redoThumbs } from './queue.js';
import type { Stamp } from './records.js';
import type { MetaStore } from './store.js';
import { ABOUT, BLOBS, before, MEDIA, type Reader, read, USAGE, write } from './tables.js';
import { ownedMedia, takeDownOwned } from './takedown/owned.js';
import {
  blobsAwaitingScan,
  expireDue,
  expireUnused,
  forgetBlob,
  forgetTombstones,
  idsOfBlob,
  isAnyDue,
  isUnreferenced,
  quarantine,
  removeMedia,
  resolveScan,
  restore,
  unreferencedBlobs,
} from './takedown.js';
import { createJournal } from './takedown-journal.js';
import { commitUpload, readUsage, recordBlob } from './uploads.js';
import { verifyMeta } from './verify.js';

export interface MetaDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** A random name, for a new journal. */
  readonly randomName: () => string;
  /** How events for the chat server are made; left out, the store keeps none. */
  readonly eventMaker?: EventMaker | undefined;
}

/** Most ids that one transaction marks as used, and most usage records that one forgets. */
const STEP = 500;

/** The methods that only read: what a second process may do while another one writes. */
export type MetaReader = Pick<
  MetaStore,
  | 'isUnreferenced'
  | 'find'
  | 'findBlob'
  | 'findBlobBySent'
  | 'blobsAwaitingScan'
  | 'list'
  | 'owned'
  | 'blobsAfter'
  | 'unreferencedBlobs'
  | 'idsOfBlob'
  | 'takedownSeqOf'
  | 'usage'
>;

export function createReader(reader: Reader, config: LmdbConfig, log: Log): MetaReader {
  /** Runs a read that leaves out damaged records, and logs which. */
  function skipDamaged<T>(readAll: (damaged: DamagedRecord[]) => T): T {
    const damaged: DamagedRecord[] = [];
    const result = readAll(damaged);
    logDamaged(log, damaged);
    return result;
  }

  return {
    find: async (id, now) => findMedia(reader, id, now),
    findBlob: async (sha256) => read(reader, BLOBS, sha256)?.blob,
    findBlobBySent: async (sentSha256) => findBlobBySent(reader, sentSha256),
    blobsAwaitingScan: async (after, limit) =>
      skipDamaged((damaged) => blobsAwaitingScan(reader, after, limit, damaged)),
    unreferencedBlobs: async (freeBefore, limit) =>
      skipDamaged((damaged) => unreferencedBlobs(reader, freeBefore, limit, damaged)),
    list: async (query) => skipDamaged((damaged) => listMedia(reader, query, config.scanMax, damaged)),
    owned: async (query) => skipDamaged((damaged) => ownedMedia(reader, query, damaged)),
    blobsAfter: async (after, limit) => skipDamaged((damaged) => blobsAfter(reader, after, limit, damaged)),
    idsOfBlob: async (sha256) => idsOfBlob(reader, sha256),
    isUnreferenced: async (sha256) => isUnreferenced(reader, sha256),
    takedownSeqOf: async (id) => takedownSeqOf(reader, id),
    usage: async (owner, periodStartAt) => readUsage(reader, owner, periodStartAt),
  };
}

/**
 * The copy gets another journal name. The original goes on to give out numbers
 * that the copy would give out again, and edges must not take one for the other.
 */
export function copyStore(database: Database, folder: string, randomName: () => string): Promise<void> {
  return database.copyTo(folder, (writer) => {
    const stamp = read(writer, ABOUT, 'stamp');
    if (stamp !== undefined) write(writer, ABOUT, 'stamp', { ...stamp, journal: randomName() });
  });
}

export async function createStore(
  database: Database,
  stamp: Stamp,
  config: LmdbConfig,
  deps: MetaDeps,
): Promise<MetaStore> {
  const { reader } = database;
  const { clock, log, randomName, eventMaker } = deps;

  const intents = createIntents();

  function runAs<T>(urgency: Urgency, body: (change: Change) => T): Promise<T> {
    let change: Change | undefined;
    return database.transact(
      (writer) => {
        const isIntended = (key: BlobKey): boolean => intents.has(key);
        change = startChange(writer, { newMark: randomName, now: clock.now(), isIntended, eventMaker });
        const outcome = body(change);
        keepEvents(writer, change.events);
        return outcome;
      },
      urgency,
      () => {
        if (change === undefined) return;
        logDamaged(log, change.damaged);
        intents.end(change.placed);
        journal.publish(change.entries);
        queue.announce(change);
      },
    );
  }
  const run = <T>(body: (change: Change) => T): Promise<T> => runAs('may_fail', body);
  /** Takedowns, and what frees room. */
  const mustRun = <T>(body: (change: Change) => T): Promise<T> => runAs('must', body);
  const journal = createJournal(stamp.journal, reader, mustRun, log);
  const queue = createQueue(reader, run, log);
  const leased = await mustRun(endLeases);
  if (leased > 0) log.info({ jobs: leased }, 'jobs leased by an earlier run are back in the queue');

  const limit = createDataLimit(database, config);
  return {
    ...createReader(reader, config, log),
    journal,
    jobs: queue,
    edges: null,
    origins: ONE_ORIGIN,
    duties: ownDuties(),
    shared: null,
    outbox: createOutbox(reader, mustRun),
    async room() {
      await database.reserve.refill();
      return limit.room('now');
    },
    freeBytes: () => database.freeBytes(),
    async commitUpload(upload) {
      if (limit.room('lately') !== 'enough') throw new Fault('storage_full', 'The metadata store has no room left.');
      const outcome = await run((change) => commitUpload(change, upload));
      if (outcome.kind === 'created') limit.added();
      return outcome;
    },
    intend: async (keys) => intents.add(keys),
    withdraw: async (keys) => intents.end(keys).filter((key) => !isNamed(reader, key)),
    leftBehind: async (keys) =>
      keys.filter((key) => !intents.has(key) && !isNamed(reader, key) && !isTrashed(reader, key)),
    trash: async (at, limit) => trashedBefore(reader, at, limit),
    async emptied(keys) {
      const known = keys.filter((key) => isTrashed(reader, key));
      if (known.length > 0) await mustRun((change) => forgetTrash(change, known));
    },
    remove: (id, by, now) => mustRun((change) => removeMedia(change, id, by, now)),
    quarantine: (target, mark) => mustRun((change) => quarantine(change, target, mark)),
    restore: (target, now) => mustRun((change) => restore(change, target, now)),
    resolveScan: (sha256, mark, now) => mustRun((change) => resolveScan(change, sha256, mark, now)),
    takeDownOwned: (owner, ids, act, now) => mustRun((change) => takeDownOwned(change, owner, ids, act, now)),
    expireDue: async (now, limit) => (isAnyDue(reader, now) ? mustRun((change) => expireDue(change, now, limit)) : []),
    expireUnused: (usedBefore, now, limit) => mustRun((change) => expireUnused(change, usedBefore, now, limit)),
    async forgetTombstones(endedBefore, most) {
      const forgotten = await mustRun((change) => forgetTombstones(change, endedBefore, most));
      limit.forgot(forgotten);
      return forgotten;
    },
    forgetBlob: (sha256) => mustRun((change) => forgetBlob(change, sha256)),
    async markUsed(ids, at) {
      for (let first = 0; first < ids.length; first += STEP) {
        const group = ids.slice(first, first + STEP).filter((id) => usedLongAgo(reader, id, at, config.usedStepMs));
        if (group.length > 0) await run((change) => markUsed(change, group, at));
      }
    },
    finishThumbs: (sha256, outcome, leaseholder) => run((change) => finishThumbs(change, sha256, outcome, leaseholder)),
    redoThumbs: (sha256, priority, now) => run((change) => redoThumbs(change, sha256, priority, now)),
    async forgetUsage(periodsBefore) {
      let forgotten = 0;
      for (;;) {
        const step = await mustRun((change) => forgetUsage(change, periodsBefore));
        forgotten += step;
        if (step < STEP) return forgotten;
      }
    },
    verify: (options) => verifyMeta(reader, run, randomName, options),
    recordBlob: (blob) => run((change) => recordBlob(change, blob, clock.now())),
    probe: () => run(({ writer }) => write(writer, ABOUT, 'stamp', stamp)),
    backup: (folder) => copyStore(database, folder, randomName),
    close: () => database.close(),
  };
}

function usedLongAgo(reader: Reader, id: MediaId, at: EpochMs, stepMs: number): boolean {
  const stored = readOrSkip(reader, MEDIA, id, []);
  return stored?.record.state.kind === 'live' && at - stored.record.usedAt >= stepMs;
}

function markUsed(change: Change, ids: readonly MediaId[], at: EpochMs): void {
  for (const id of ids) {
    const stored = readOrSkip(change.writer, MEDIA, id, change.damaged);
    if (stored?.record.state.kind !== 'live' || stored.record.usedAt >= at) continue;
    write(change.writer, MEDIA, id, { ...stored, record: { ...stored.record, usedAt: at } });
  }
}

function forgetUsage({ writer }: Change, periodsBefore: EpochMs): number {
  const keys = [...writer.range(USAGE.name, { ...before(periodsBefore), limit: STEP })].map(({ key }) => key);
  for (const key of keys) writer.remove(USAGE.name, key);
  return keys.length;
}

function logDamaged(log: Log, damaged: readonly DamagedRecord[]): void {
  for (const { table, key, message } of damaged)
    log.error({ table, key, error: message }, 'a record is damaged; run fsck');
}
