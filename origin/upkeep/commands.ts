/**
 * The commands for operators: each opens what it needs, does its work, prints
 * what it found and closes. `restore` needs the stores for itself, and so does `fsck`
 * unless the metadata are in PostgreSQL. `backup` only reads. `scrub` reads, and marks
 * what is wrong: itself if it may write, otherwise through the operators' listener of
 * the running origin.
 */
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { formatSize } from '../../src/bytes.js';
import { keepAlive } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import { parseSha256, type Sha256 } from '../../src/ids.js';
import { errorFields } from '../../src/log.js';
import type { ProcessDeps } from '../../src/process.js';
import { operatorTarget } from '../../src/server/operators.js';
import type { BlobStore } from '../blobs/blob-store.js';
import { openLocalReader, openLocalStore } from '../blobs/local.js';
import { openBlobStore } from '../blobs/open.js';
import type { OriginConfig } from '../config.js';
import type { MetaConfig } from '../meta/config.js';
import { openMetaReader } from '../meta/lmdb.js';
import { checkTarget, moveToLmdb, moveToPostgres } from '../meta/move.js';
import { openMeta, openMetaSnapshot } from '../meta/open.js';
import { DatabaseInUse } from '../meta/postgres/load.js';
import { MetadataInPlace, receiveIntoPostgres, receiveMeta } from '../meta/restore-into.js';
import { type MetaStore, StoreInUse } from '../meta/store.js';
import { routeOf } from '../thumbs/types.js';
import { eventMakerOf } from '../webhooks/event-maker.js';
import { backup } from './backup.js';
import { fsck } from './fsck.js';
import { type RestoreReport, restore } from './restore.js';
import { localMarks, type ScrubDeps, type ScrubMarks, scrub } from './scrub.js';

export interface CommandDeps extends Pick<ProcessDeps, 'clock' | 'log'> {
  readonly config: OriginConfig;
  readonly signal: AbortSignal;
  /** Prints one line of the result. */
  readonly print: (line: string) => void;
  /** Says why there is none. */
  readonly complain: (line: string) => void;
  /** Shows the progress. Each line replaces the one before. */
  readonly progress: (line: string) => void;
}

/** Nothing is wrong, or all of it was repaired. */
const FINE = 0;
/** Something is wrong and was not repaired. */
const WRONG = 1;
/** The command could not be carried out. */
const FAILED = 2;

export function runFsck(deps: CommandDeps, { repair }: { readonly repair: boolean }): Promise<number> {
  return keepingAlive(async () => {
    const { config, clock, signal, print, progress } = deps;
    const opened = await openUnlessInUse(deps, repair);
    if (opened === undefined) {
      deps.complain('fsck needs the stores for itself: stop the origin first.');
      return FAILED;
    }
    const blobs = await openBlobStore(config.blobs, deps);
    try {
      const report = await fsck(
        { meta: opened, blobs, clock, graceMs: config.retention.graceMs, makesThumbs },
        {
          repair,
          signal,
          onFinding: ({ kind, subject, detail, repaired }) =>
            print(`${repaired ? 'repaired' : 'found   '} ${kind} ${subject}: ${detail}`),
          onProgress: ({ step, seen }) => progress(`${step}: ${seen}`),
        },
      );
      print(`${report.findings} found, ${report.repaired} repaired`);
      return report.findings === report.repaired ? FINE : WRONG;
    } finally {
      await blobs.close();
      await opened.close();
    }
  });
}

/** `after` is the last hash that an earlier scrub printed, to go on from there. */
export function runScrub(deps: CommandDeps, given: { readonly after: string | undefined }): Promise<number> {
  return keepingAlive(async () => {
    const { config, signal, print, progress } = deps;
    const after = given.after === undefined ? null : parseSha256(given.after);
    if (after === undefined) {
      deps.complain('--after must be a hash of 64 hexadecimal digits, as an earlier scrub printed it.');
      return FAILED;
    }
    const blobs = await openBlobStore(config.blobs, deps);
    const source = await openForScrub(deps);
    try {
      const report = await scrub(
        { ...deps, config: config.scrub, blobs, meta: source.meta, marks: source.marks },
        {
          after,
          signal,
          onFinding: ({ kind, key, detail }) => print(`found ${kind} ${key}: ${detail}`),
          onProgress: (at) => progress(`${at.blobs} blobs, ${formatSize(at.bytes)}; go on with --after ${at.after}`),
        },
      );
      print(`${report.blobs} blobs and ${report.thumbs} thumbnails read, ${report.findings} wrong`);
      return report.findings === 0 ? FINE : WRONG;
    } finally {
      await source.meta.close();
      await blobs.close();
    }
  });
}

export function runBackup(deps: CommandDeps, { folder }: { readonly folder: string }): Promise<number> {
  return keepingAlive(async () => {
    const { config, clock, log, signal, print, progress } = deps;
    const metaDeps = { clock, log, randomName: randomUUID };
    const meta = await openMetaSnapshot(config.meta, metaDeps);
    const blobs = await openBlobStore(config.blobs, deps);
    try {
      const report = await backup(
        {
          meta,
          blobs,
          clock,
          openMeta: (path) => openMetaReader({ ...config.meta, folder: path }, metaDeps),
          openBlobs: (path, stageFolder) => openLocalStore({ folder: path, stageFolder }),
        },
        {
          folder,
          signal,
          onFinding: ({ kind, key, detail }) => print(`left out, ${kind}: ${key}: ${detail}`),
          onProgress: ({ step, blobs: seen, copiedBytes }) =>
            progress(`${step}: ${seen} blobs, ${formatSize(copiedBytes)} copied`),
        },
      );
      print(
        `${folder} has ${report.blobs - report.findings} blobs and thumbnails: ${report.copied} new (${formatSize(report.copiedBytes)}), ${report.pruned} removed, ${report.findings} left out`,
      );
      return report.findings === 0 ? FINE : WRONG;
    } finally {
      await blobs.close();
      await meta.close();
    }
  });
}

/** `incomplete`: whether the metadata are put in place although originals are missing. */
export function runRestore(
  deps: CommandDeps,
  { folder, incomplete }: { readonly folder: string; readonly incomplete: boolean },
): Promise<number> {
  return keepingAlive(async () => {
    const { config, clock, log, signal, print, progress } = deps;
    const missing = ['meta', 'blobs'].filter((name) => !existsSync(join(folder, name)));
    if (missing.length > 0) {
      deps.complain(`${folder} is not a backup: there is no ${missing.join(' and no ')} in it.`);
      return FAILED;
    }
    const metaDeps = { clock, log, randomName: randomUUID };
    const backedUp = await openMetaReader({ ...config.meta, folder: join(folder, 'meta') }, metaDeps);
    const opened: { close(): Promise<void> }[] = [backedUp];
    try {
      const incoming =
        config.meta.adaptor === 'postgres'
          ? await receiveIntoPostgres(config.meta, config.blobs.stageFolder, backedUp, metaDeps)
          : await receiveMeta(config.meta, backedUp, metaDeps);
      opened.push(incoming);
      const target = await openBlobStore(config.blobs, deps);
      opened.push(target);
      await probeStorage(target, signal);
      const source = openLocalReader(join(folder, 'blobs'));
      const report = await restore(
        { source, target, incoming, clock },
        {
          incomplete,
          signal,
          onFinding: ({ kind, key, detail }) => print(`${kind} ${key}: ${detail}`),
          onProgress: ({ blobs, copiedBytes }) =>
            progress(`${blobs} blobs and thumbnails, ${formatSize(copiedBytes)} copied`),
        },
      );
      print(restored(report, config.meta.adaptor === 'postgres' ? 'the database' : config.meta.folder));
      return report.originalsMissing + report.thumbsMissing === 0 ? FINE : WRONG;
    } catch (thrown) {
      if (thrown instanceof StoreInUse) deps.complain('restore needs the stores for itself: stop the origin first.');
      else if (thrown instanceof MetadataInPlace || thrown instanceof DatabaseInUse) deps.complain(thrown.message);
      else throw thrown;
      return FAILED;
    } finally {
      for (const each of opened.toReversed()) await each.close();
    }
  });
}

/** Fails before anything is done if the storage does not work, and gives the reason. */
async function probeStorage(target: BlobStore, signal: AbortSignal): Promise<void> {
  try {
    await target.probe(signal);
  } catch (thrown) {
    signal.throwIfAborted();
    if (!(thrown instanceof Fault) || thrown.cause === undefined) throw thrown;
    throw new Error(`${thrown.detail} ${String(errorFields(thrown.cause)['error'])}`, { cause: thrown });
  }
}

function restored(report: RestoreReport, metaFolder: string): string {
  const { blobs, copied, copiedBytes, originalsMissing, thumbsMissing, withheld, published } = report;
  const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;
  const stored = `${blobs} blobs and thumbnails are stored (${copied} copied, ${formatSize(copiedBytes)})`;
  if (!published) {
    return `${stored}, ${counted(originalsMissing, 'original')} missing: the metadata were not put in place. With --incomplete they are, and missing originals are withheld until they are uploaded again.`;
  }
  const without = [
    originalsMissing + withheld > 0 ? `, ${counted(originalsMissing + withheld, 'original')} withheld` : '',
    thumbsMissing > 0 ? `, ${counted(thumbsMissing, 'thumbnail')} to be made again` : '',
  ].join('');
  return `${stored}${without}; the metadata are in ${metaFolder}: start the origin`;
}

/** `check`: only looks at the target. Otherwise everything in one metadata store is moved to the other. */
export function runMigrate(
  deps: CommandDeps,
  { to, check }: { readonly to: MetaConfig['adaptor']; readonly check: boolean },
): Promise<number> {
  return keepingAlive(async () => {
    const { config, clock, log, signal, print, progress } = deps;
    const metaDeps = { clock, log, randomName: randomUUID };
    try {
      if (check) {
        const { latencyMs, skewMs, warnings } = await checkTarget(config.meta, metaDeps);
        for (const warning of warnings) print(`warning: ${warning}`);
        print(
          `the database can be used: it answers in ${latencyMs.toFixed(1)} ms, its clock differs by ${Math.round(Math.abs(skewMs))} ms`,
        );
        return FINE;
      }
      const move = to === 'postgres' ? moveToPostgres : moveToLmdb;
      const moved = await move(config.meta, metaDeps, signal, ({ records, table }) =>
        progress(`${records} records, now of ${table}`),
      );
      const named = to === 'postgres' ? 'the database' : config.meta.folder;
      print(`${moved.records} records are in ${named}, read back and equal (sha256 ${moved.sum})`);
      print(`set origin.meta.adaptor: ${to} and start the origin`);
      return FINE;
    } catch (thrown) {
      if (thrown instanceof StoreInUse) deps.complain('migrate needs the metadata for itself: stop the origin first.');
      else if (thrown instanceof DatabaseInUse) deps.complain(thrown.message);
      else throw thrown;
      return FAILED;
    }
  });
}

/** Keeps the process alive while it works, because timers alone do not. */
async function keepingAlive(work: () => Promise<number>): Promise<number> {
  const alive = keepAlive();
  try {
    return await work();
  } finally {
    alive.release();
  }
}

/** Opens the store, also while origins use it if it is PostgreSQL, or returns undefined if it cannot be shared. */
async function openUnlessInUse(
  { config, clock, log }: CommandDeps,
  mendStamp: boolean,
): Promise<MetaStore | undefined> {
  try {
    const metaDeps = { clock, log, randomName: randomUUID, eventMaker: eventMakerOf(config) };
    return await openMeta(config.meta, metaDeps, { mendStamp, beside: true });
  } catch (thrown) {
    if (thrown instanceof StoreInUse) return undefined;
    throw thrown;
  }
}

interface ScrubSource {
  readonly meta: ScrubDeps['meta'] & Pick<MetaStore, 'close'>;
  readonly marks: ScrubMarks;
}

async function openForScrub(deps: CommandDeps): Promise<ScrubSource> {
  const { config, clock, log } = deps;
  const opened = await openUnlessInUse(deps, false);
  if (opened === undefined) {
    const meta = await openMetaSnapshot(config.meta, { clock, log, randomName: randomUUID });
    return { meta, marks: remoteMarks(deps) };
  }
  return { meta: opened, marks: localMarks(opened, clock) };
}

/** Sends the marks as requests to the running origin (operators.ts). */
function remoteMarks({ config, signal }: CommandDeps): ScrubMarks {
  const { base, headers } = operatorTarget(config.operators);
  async function post(sha256: Sha256, what: string, query: string): Promise<void> {
    const response = await fetch(`${base}/scrub/${sha256}/${what}${query}`, { method: 'POST', headers, signal });
    await response.body?.cancel();
    if (!response.ok) throw new Error(`the origin at ${base} answered ${response.status} to the mark on ${sha256}`);
  }
  return {
    rotten: (sha256, reason) => post(sha256, 'rotten', `?reason=${encodeURIComponent(reason)}`),
    redoThumbs: (sha256) => post(sha256, 'thumbs', ''),
  };
}

/** Assumes that all tools are installed: the engine of the origin refuses what it cannot make. */
function makesThumbs(mime: string): boolean {
  return routeOf(mime, { ffmpeg: true, heif: true }).kind !== 'none';
}
