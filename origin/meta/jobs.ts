/**
 * The durable queue of thumbnail jobs, one for each blob. A claimed job is leased:
 * if the lease ends first, the job returns to the queue with one more attempt
 * counted.
 */
import type { EpochMs } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import type { ThumbRefusal } from './media.js';

/** Higher goes first. Among equals, owners take turns, so that nobody waits behind one who has queued very many. */
export const JOB_PRIORITIES = { backfill: 0, upload: 1, asked: 2 } as const;
export type JobPriority = keyof typeof JOB_PRIORITIES;

export interface Job {
  readonly sha256: Sha256;
  readonly priority: JobPriority;
  /** The key of the owner whose upload queued it, or `OWN_JOBS`. */
  readonly owner: string;
  /** Its place among the waiting jobs of its priority: lower goes first. Null: it goes by `readyAt`. */
  readonly turn: number | null;
  readonly queuedAt: EpochMs;
  /** The job waits until this instant, for backoff. */
  readonly readyAt: EpochMs;
  /** Attempts that failed or lost their lease. */
  readonly attempts: number;
  readonly lease: { readonly holder: string; readonly until: EpochMs } | null;
}

/** The owner of jobs that no upload has queued. */
export const OWN_JOBS = '-';

export interface DeadJob {
  readonly sha256: Sha256;
  readonly attempts: number;
  readonly diedAt: EpochMs;
  readonly reason: string;
}

export interface JobQueue {
  /** Queues a job; if there is one already, only lifts its priority. */
  add(sha256: Sha256, priority: JobPriority, now: EpochMs, owner?: string): Promise<void>;
  /** Lifts the priority of a job. False if there is no job. */
  lift(sha256: Sha256, priority: JobPriority): Promise<boolean>;
  /**
   * Leases up to `limit` ready jobs, highest priority first. Within a priority the owners take turns. A job that waited
   * after a failure goes before those that were queued after its wait. A job whose lease has ended is ready again.
   */
  claim(leaseholder: string, limit: number, now: EpochMs, leaseMs: number): Promise<readonly Job[]>;
  /** Prolongs a lease. False if the leaseholder has lost it. */
  renew(sha256: Sha256, leaseholder: string, until: EpochMs): Promise<boolean>;
  /** Removes a job without an outcome, because its blob is gone. */
  drop(sha256: Sha256): Promise<void>;
  /** Returns a job after a failed attempt and counts the attempt. `priority`: its new one; null: it keeps its own. */
  retry(sha256: Sha256, leaseholder: string, readyAt: EpochMs, priority: JobPriority | null): Promise<void>;
  /** Returns a job that was not tried, for example at shutdown; counts no attempt. Without `readyAt` it is ready at once. */
  giveBack(sha256: Sha256, leaseholder: string, readyAt?: EpochMs): Promise<void>;
  /** Gives up: moves the job to the dead letters and sets the blob's thumbnails to `none` for `refusal`, or `failed`. */
  bury(sha256: Sha256, reason: string, now: EpochMs, refusal?: ThumbRefusal): Promise<void>;
  /** The newest dead letters. */
  dead(limit: number): Promise<readonly DeadJob[]>;
  /** Moves up to `limit` dead letters back to the queue and marks their thumbnails as pending. Returns how many. */
  revive(limit: number, now: EpochMs): Promise<number>;
  counts(): Promise<{ readonly waiting: number; readonly leased: number; readonly dead: number }>;
  /** Null: nobody else ends jobs. */
  readonly others: OtherRunners | null;
  /** When the next job becomes ready, or null if no job waits. */
  nextReadyAt(): Promise<EpochMs | null>;
  /** Called after a job was added or lifted. */
  onAdded(listener: () => void): () => void;
  /** Called after a job was removed, leased or not, because no live id refers to its blob any more. */
  onEnded(listener: (sha256: Sha256) => void): () => void;
}

/** Other origins, which end jobs too. Nobody is told: whoever waits for a job has to ask. */
export interface OtherRunners {
  /** How often to ask while somebody waits. */
  readonly askEveryMs: number;
  /** Those of these blobs whose thumbnails are no longer pending, or which are gone. */
  ended(blobs: readonly Sha256[]): Promise<readonly Sha256[]>;
}
