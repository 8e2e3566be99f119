/**
 * The durable queue of thumbnail jobs, one per blob. A claim is a lease: who
 * does not finish in time loses it, and the job returns with one attempt more.
 */
import type { EpochMs } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import type { ThumbRefusal } from './media.js';

/** Higher goes first; within one, the oldest. */
export const JOB_PRIORITIES = { backfill: 0, upload: 1, asked: 2 } as const;
export type JobPriority = keyof typeof JOB_PRIORITIES;

export interface Job {
  readonly sha256: Sha256;
  readonly priority: JobPriority;
  readonly queuedAt: EpochMs;
  /** Not before this instant: backoff. */
  readonly readyAt: EpochMs;
  /** How many attempts have failed or lost their lease. */
  readonly attempts: number;
  readonly lease: { readonly holder: string; readonly until: EpochMs } | null;
}

export interface DeadJob {
  readonly sha256: Sha256;
  readonly attempts: number;
  readonly diedAt: EpochMs;
  readonly reason: string;
}

export interface JobQueue {
  /** Queues a job unless there is one; then it only lifts its priority. */
  add(sha256: Sha256, priority: JobPriority, now: EpochMs): Promise<void>;
  /** Lifts a waiting job's priority; false where there is none. */
  lift(sha256: Sha256, priority: JobPriority): Promise<boolean>;
  /** Takes up to `limit` ready jobs, best first; expired leases are ready again. */
  claim(holder: string, limit: number, now: EpochMs, leaseMs: number): Promise<readonly Job[]>;
  /** Prolongs a lease; false: it was lost. */
  renew(sha256: Sha256, holder: string, until: EpochMs): Promise<boolean>;
  /** Ends a job that is done (its outcome is written by MetaStore.finishThumbs, in the same transaction). */
  drop(sha256: Sha256): Promise<void>;
  /** Gives a job back after a failed attempt, which is counted. */
  retry(sha256: Sha256, holder: string, readyAt: EpochMs): Promise<void>;
  /** Gives a job back that was not tried, as at shutdown or without storage; no attempt is counted. Ready at once unless told. */
  giveBack(sha256: Sha256, holder: string, readyAt?: EpochMs): Promise<void>;
  /** Gives up: the job moves to the dead letters, and its blob's thumbnails are `none`, `failed` unless told. */
  bury(sha256: Sha256, reason: string, now: EpochMs, refusal?: ThumbRefusal): Promise<void>;
  dead(limit: number): Promise<readonly DeadJob[]>;
  /** Moves dead letters back to the queue, their blobs' thumbnails pending again; answers how many. */
  revive(limit: number, now: EpochMs): Promise<number>;
  counts(): Promise<{ readonly waiting: number; readonly leased: number; readonly dead: number }>;
  /** When the next job becomes ready, or null where none waits. */
  nextReadyAt(now: EpochMs): Promise<EpochMs | null>;
  /** Called after a job was added or lifted. */
  onAdded(listener: () => void): () => void;
}
