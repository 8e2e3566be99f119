/**
 * The queue of thumbnail jobs (interface: jobs.ts), kept in the tables of jobs and
 * dead letters. origin/thumbs/job-runner.ts claims jobs from it. Polling an empty queue needs no transaction: a
 * claim first reads whether there is anything to claim.
 */
import type { EpochMs } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import { bugFields, type Log } from '../../src/log.js';
import { thumbKey } from '../blobs/blob-store.js';
import { type Change, readOrSkip } from './database.js';
import { type DeadJob, JOB_PRIORITIES, type Job, type JobPriority, type JobQueue, OWN_JOBS } from './jobs.js';
import { type BlobRecord, keysOf, type PictureFacts, type ThumbRefusal, type ThumbState } from './media.js';
import { eventsOfRendered } from './outbox/events.js';
import { writeBlob } from './places.js';
import type { ThumbOutcome } from './store.js';
import {
  BLOBS,
  DEAD,
  JOB_ORDER,
  JOBS,
  type Key,
  LATEST,
  type Reader,
  read,
  type Span,
  startingWith,
  TURNS,
  targets,
  until,
  write,
} from './tables.js';

type Run = <T>(body: (change: Change) => T) => Promise<T>;

/** The first parts of `job_ready` keys, highest priority first. */
const RANKS = (['asked', 'upload', 'backfill'] as const).map((priority) => JOB_ORDER[priority]);

export interface MetaJobs extends JobQueue {
  /** Called by transactions.ts when a change is synced. */
  announce(change: Pick<Change, 'jobsAdded' | 'jobsEnded'>): void;
}

export type JobListeners = Pick<MetaJobs, 'onAdded' | 'onEnded' | 'announce'>;

/** Who wants to hear of jobs. One that fails does not keep the others from hearing. */
export function createJobListeners(log: Log): JobListeners {
  const onAdded = new Set<() => void>();
  const onEnded = new Set<(sha256: Sha256) => void>();
  const call = (listener: () => void): void => {
    try {
      listener();
    } catch (thrown) {
      log.error(bugFields(thrown), 'a listener of the job queue failed');
    }
  };
  return {
    onAdded(listener) {
      onAdded.add(listener);
      return () => void onAdded.delete(listener);
    },
    onEnded(listener) {
      onEnded.add(listener);
      return () => void onEnded.delete(listener);
    },
    announce({ jobsAdded, jobsEnded }) {
      for (const sha256 of jobsEnded) for (const listener of onEnded) call(() => listener(sha256));
      if (jobsAdded) for (const listener of onAdded) call(listener);
    },
  };
}

export function createQueue(reader: Reader, run: Run, log: Log): MetaJobs {
  return {
    add: (sha256, priority, now, owner) => run((change) => queueJob(change, sha256, priority, now, owner)),
    lift: (sha256, priority) => run((change) => liftJob(change, sha256, priority)),
    async claim(leaseholder, limit, now, leaseMs) {
      if (limit <= 0 || !anyToClaim(reader, now)) return [];
      return run((change) => claimJobs(change, leaseholder, limit, now, leaseMs));
    },
    renew: (sha256, leaseholder, until) =>
      run((change) =>
        changeLeased(change, sha256, leaseholder, (job) => ({ ...job, lease: { holder: leaseholder, until } })),
      ),
    drop: (sha256) => run((change) => write(change.writer, JOBS, sha256, undefined)),
    async retry(sha256, leaseholder, readyAt, priority) {
      await run((change) => retryJob(change, sha256, leaseholder, readyAt, priority));
    },
    async giveBack(sha256, leaseholder, readyAt) {
      await run((change) => giveJobBack(change, sha256, leaseholder, readyAt));
    },
    bury: (sha256, reason, now, refusal) => run((change) => buryJob(change, sha256, reason, now, refusal ?? 'failed')),
    async dead(limit) {
      const newest = [...targets<Sha256>(reader, 'dead_order', { reverse: true, limit })];
      return newest.map((sha256) => read(reader, DEAD, sha256)).filter((job): job is DeadJob => job !== undefined);
    },
    revive: (limit, now) => run((change) => reviveJobs(change, limit, now)),
    async counts() {
      const leased = reader.count('job_lease');
      return { waiting: reader.count(JOBS.name) - leased, leased, dead: reader.count(DEAD.name) };
    },
    others: null,
    nextReadyAt: async () => earliestReady(reader),
    ...createJobListeners(log),
  };
}

/** Queues a job, or lifts the priority of the existing one. Removes a dead letter of the same blob. */
export function queueJob(
  change: Change,
  sha256: Sha256,
  priority: JobPriority,
  now: EpochMs,
  owner: string = OWN_JOBS,
): void {
  if (read(change.writer, JOBS, sha256) !== undefined) {
    liftJob(change, sha256, priority);
    return;
  }
  if (read(change.writer, DEAD, sha256) !== undefined) write(change.writer, DEAD, sha256, undefined);
  const turn = nextTurn(change.writer, priority, owner);
  const waits = { queuedAt: now, readyAt: now, attempts: 0, lease: null };
  write(change.writer, JOBS, sha256, { sha256, priority, owner, turn, ...waits });
  change.jobsAdded = true;
}

/**
 * The turn of a new job: after the last one of its owner, and not before the next one to be claimed. So each owner has one
 * job in each turn, and an owner without waiting jobs waits for one job of each other owner at most.
 */
function nextTurn(reader: Reader, priority: JobPriority, owner: string): number {
  const rank = JOB_ORDER[priority];
  const [head] = reader.range('job_ready', { ...turnsOf(rank), limit: 1 });
  const [last] = reader.range('job_ready', { ...startingWith(owner, rank), limit: 1 });
  return Math.max(
    head === undefined ? 0 : numberIn(head.key, 1) - TURNS,
    last === undefined ? 0 : LATEST - numberIn(last.key, 2) + 1,
  );
}

function turnsOf(rank: number): Span {
  return { start: [rank], end: [rank, 0] };
}

function numberIn(key: Key, position: number): number {
  return typeof key === 'object' ? Number(key[position]) : Number.NaN;
}

/** Ends a job, leased or not, of a blob to which no live id refers any more. A takedown must not fail because of it. */
export function endJob(change: Change, sha256: Sha256): void {
  if (readOrSkip(change.writer, JOBS, sha256, change.damaged) === undefined) return;
  write(change.writer, JOBS, sha256, undefined);
  change.jobsEnded.push(sha256);
}

/** Ends a job with its outcome. Facts of the picture that are null in the outcome stay as they were. */
export function finishThumbs(change: Change, sha256: Sha256, outcome: ThumbOutcome, leaseholder?: string): boolean {
  const { writer } = change;
  const job = read(writer, JOBS, sha256);
  const stored = read(writer, BLOBS, sha256);
  if (leaseholder !== undefined && job?.lease?.holder !== leaseholder) return false;
  if (stored !== undefined && !arePlaced(change, stored.blob, outcome)) return false;
  if (job !== undefined) write(writer, JOBS, sha256, undefined);
  const thumbs: ThumbState =
    outcome.kind === 'made' ? { kind: 'ready', made: outcome.made } : { kind: 'none', reason: outcome.reason };
  const known = changeBlob(change, sha256, (blob) => ({
    ...blob,
    thumbs,
    picture: mergeFacts(blob.picture, outcome.picture),
  }));
  if (known !== undefined) eventsOfRendered(change, job, known);
  return known !== undefined;
}

/** Whether the bytes of each thumbnail are in a place that the record names, or that was intended. */
function arePlaced({ isIntended }: Change, blob: BlobRecord, outcome: ThumbOutcome): boolean {
  if (outcome.kind === 'refused') return true;
  const named = keysOf(blob);
  return outcome.made.every((thumb) => {
    const key = thumbKey(blob.sha256, thumb);
    return named.includes(key) || isIntended(key);
  });
}

/** Queues the thumbnails of a blob to be made again. False if there is no such blob. */
export function redoThumbs(change: Change, sha256: Sha256, priority: JobPriority, now: EpochMs): boolean {
  const known = changeBlob(change, sha256, (blob) => ({ ...blob, thumbs: { kind: 'pending' } })) !== undefined;
  if (known) queueJob(change, sha256, priority, now);
  return known;
}

/** Ends every lease and counts an attempt for each job: the leaseholders ended with the previous process. */
export function endLeases(change: Change): number {
  const leased = [...targets<Sha256>(change.writer, 'job_lease', {})];
  for (const sha256 of leased) endLease(change, sha256);
  return leased.length;
}

export function liftJob(change: Change, sha256: Sha256, priority: JobPriority): boolean {
  const job = read(change.writer, JOBS, sha256);
  if (job === undefined) return false;
  if (JOB_PRIORITIES[priority] <= JOB_PRIORITIES[job.priority]) return true;
  const turn = job.turn === null ? null : nextTurn(change.writer, priority, job.owner);
  write(change.writer, JOBS, sha256, { ...job, priority, turn });
  change.jobsAdded = true;
  return true;
}

export function claimJobs(
  change: Change,
  leaseholder: string,
  limit: number,
  now: EpochMs,
  leaseMs: number,
): readonly Job[] {
  const lapsed = [...targets<Sha256>(change.writer, 'job_lease', until(now))];
  for (const sha256 of lapsed) endLease(change, sha256);
  const claimed: Job[] = [];
  for (const sha256 of readyJobs(change.writer, now, limit)) {
    const job = readOrSkip(change.writer, JOBS, sha256, change.damaged);
    if (job === undefined) continue;
    const leased = { ...job, lease: { holder: leaseholder, until: now + leaseMs } };
    write(change.writer, JOBS, sha256, leased);
    claimed.push(leased);
  }
  return claimed;
}

function readyJobs(reader: Reader, now: EpochMs, limit: number): readonly Sha256[] {
  const ready: Sha256[] = [];
  for (const rank of RANKS) {
    if (ready.length >= limit) break;
    const some = { limit: limit - ready.length };
    const inTurn = reader.range('job_ready', { ...turnsOf(rank), ...some });
    const due = reader.range('job_ready', { start: [rank, 0], end: [rank, now, '\uffff'], ...some });
    ready.push(...merge(sinceIn(inTurn, 2), sinceIn(due, 1)).slice(0, some.limit));
  }
  return ready;
}

interface WaitingJob {
  readonly sha256: Sha256;
  readonly since: EpochMs;
}

function sinceIn(entries: Iterable<{ readonly key: Key }>, position: number): readonly WaitingJob[] {
  return [...entries].map(({ key }) => ({
    sha256: (typeof key === 'object' ? key.at(-1) : key) as Sha256,
    since: numberIn(key, position),
  }));
}

/** Both in their own order. Of the first two, that which has waited longer goes first. */
function merge(inTurn: readonly WaitingJob[], due: readonly WaitingJob[]): readonly Sha256[] {
  const [turns, dues, merged] = [[...inTurn], [...due], [] as Sha256[]];
  for (;;) {
    const [one, other] = [turns[0], dues[0]];
    const from = one !== undefined && (other === undefined || one.since <= other.since) ? turns : dues;
    const next = from.shift();
    if (next === undefined) return merged;
    merged.push(next.sha256);
  }
}

function anyToClaim(reader: Reader, now: EpochMs): boolean {
  const lapsed = targets(reader, 'job_lease', { ...until(now), limit: 1 });
  return readyJobs(reader, now, 1).length > 0 || [...lapsed].length > 0;
}

function earliestReady(reader: Reader): EpochMs | null {
  const instants = RANKS.flatMap((rank) => [
    firstInstant(reader, 'job_ready', turnsOf(rank), 2),
    firstInstant(reader, 'job_ready', { start: [rank, 0], end: [rank, '\uffff'] }, 1),
  ]);
  instants.push(firstInstant(reader, 'job_lease', {}, 0));
  const known = instants.filter((at): at is EpochMs => at !== undefined);
  return known.length === 0 ? null : Math.min(...known);
}

/** The instant at `position` in the first key of a span. */
function firstInstant(
  reader: Reader,
  index: 'job_ready' | 'job_lease',
  span: { readonly start?: Key; readonly end?: Key },
  position: number,
): number | undefined {
  for (const { key } of reader.range(index, { ...span, limit: 1 })) {
    return numberIn(key, position);
  }
  return undefined;
}

function endLease(change: Change, sha256: Sha256): void {
  const job = readOrSkip(change.writer, JOBS, sha256, change.damaged);
  if (job === undefined) return;
  write(change.writer, JOBS, sha256, { ...job, attempts: job.attempts + 1, lease: null });
}

export function retryJob(
  change: Change,
  sha256: Sha256,
  leaseholder: string,
  readyAt: EpochMs,
  priority: JobPriority | null,
): void {
  changeLeased(change, sha256, leaseholder, (job) => ({
    ...job,
    readyAt,
    turn: null,
    priority: priority ?? job.priority,
    attempts: job.attempts + 1,
    lease: null,
  }));
}

export function giveJobBack(change: Change, sha256: Sha256, leaseholder: string, readyAt: EpochMs | undefined): void {
  changeLeased(change, sha256, leaseholder, (job) => ({
    ...job,
    ...(readyAt !== undefined && { readyAt, turn: null }),
    lease: null,
  }));
}

/** Changes a leased job. False if the leaseholder has lost its lease. */
export function changeLeased(change: Change, sha256: Sha256, leaseholder: string, next: (job: Job) => Job): boolean {
  const job = read(change.writer, JOBS, sha256);
  if (job?.lease?.holder !== leaseholder) return false;
  write(change.writer, JOBS, sha256, next(job));
  return true;
}

export function buryJob(change: Change, sha256: Sha256, reason: string, now: EpochMs, refusal: ThumbRefusal): void {
  const job = read(change.writer, JOBS, sha256);
  if (job === undefined) return;
  write(change.writer, JOBS, sha256, undefined);
  write(change.writer, DEAD, sha256, { sha256, attempts: job.attempts, diedAt: now, reason });
  const known = changeBlob(change, sha256, (blob) => ({ ...blob, thumbs: { kind: 'none', reason: refusal } }));
  if (known !== undefined) eventsOfRendered(change, job, known);
}

export function reviveJobs(change: Change, limit: number, now: EpochMs): number {
  const dead = [...targets<Sha256>(change.writer, 'dead_order', { limit })];
  for (const sha256 of dead) {
    write(change.writer, DEAD, sha256, undefined);
    redoThumbs(change, sha256, 'backfill', now);
  }
  return dead.length;
}

/** Returns the blob as it is now, or undefined if there is none. */
function changeBlob(change: Change, sha256: Sha256, next: (blob: BlobRecord) => BlobRecord): BlobRecord | undefined {
  const stored = read(change.writer, BLOBS, sha256);
  if (stored === undefined) return undefined;
  const blob = next(stored.blob);
  writeBlob(change, sha256, { ...stored, blob });
  return blob;
}

function mergeFacts(known: PictureFacts, learnt: PictureFacts): PictureFacts {
  return {
    width: learnt.width ?? known.width,
    height: learnt.height ?? known.height,
    durationMs: learnt.durationMs ?? known.durationMs,
    frames: learnt.frames ?? known.frames,
    orientation: learnt.orientation ?? known.orientation,
    thumbhash: learnt.thumbhash ?? known.thumbhash,
  };
}
