/**
 * Takes jobs from the durable queue: claims them while there is capacity, runs
 * each, and renews its lease meanwhile.
 *
 * Promises: at most `jobsMax` jobs run at once; the signal of a job aborts when
 * its lease is lost or its media are gone; `close` aborts all jobs and waits for their end. What
 * becomes of a job is left to `run`.
 */
import { sharedController } from '../../src/abort.js';
import type { Clock, Timer } from '../../src/clock.js';
import type { Sha256 } from '../../src/ids.js';
import { bugFields, errorFields, type Log } from '../../src/log.js';
import type { Job, JobQueue } from '../meta/jobs.js';
import type { QueueConfig } from './verdict.js';

export interface JobRunnerDeps {
  readonly queue: JobQueue;
  readonly config: QueueConfig;
  /** The name under which leases are taken. */
  readonly leaseholder: string;
  readonly jobsMax: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly run: (job: Job, signal: AbortSignal) => Promise<void>;
}

interface RunningJob {
  readonly job: Job;
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

const RENEWALS_PER_LEASE = 3;

export class JobRunner {
  readonly #deps: JobRunnerDeps;
  readonly #running = new Map<Sha256, RunningJob>();
  readonly #closing = sharedController();
  #stopListening: readonly (() => void)[] = [];
  /** The claim loop while it runs. */
  #claiming: Promise<void> | undefined;
  /** Whether the claim loop has reason for another round. */
  #claimAgain = false;
  #alarm: Timer | undefined;
  #renewal: Timer | undefined;
  #pausedUntil = 0;

  constructor(deps: JobRunnerDeps) {
    this.#deps = deps;
  }

  get count(): number {
    return this.#running.size;
  }

  has(sha256: Sha256): boolean {
    return this.#running.has(sha256);
  }

  start(): void {
    const { queue } = this.#deps;
    const end = (sha256: Sha256): void => this.#running.get(sha256)?.stop.abort(new Error('its media are gone'));
    this.#stopListening = [queue.onAdded(() => this.#wake()), queue.onEnded(end)];
    this.#wake();
  }

  /** Claims no jobs for so long, after a failure that the next job would meet too. */
  pause(delayMs: number): void {
    this.#pausedUntil = this.#deps.clock.now() + delayMs;
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('the thumbnail engine is closing'));
    for (const stop of this.#stopListening) stop();
    this.#alarm?.cancel();
    this.#renewal?.cancel();
    await this.#claiming;
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
  }

  /** Called whenever there may be a job to claim. One loop serves all calls. */
  #wake(): void {
    this.#claimAgain = true;
    this.#claiming ??= this.#claimAll()
      .catch((thrown: unknown) => {
        this.#deps.log.error(bugFields(thrown), 'the queue of thumbnail jobs cannot be read');
        this.#setAlarm(this.#deps.config.pollMs);
      })
      .finally(() => {
        this.#claiming = undefined;
        if (this.#claimAgain && !this.#closing.signal.aborted) this.#wake();
      });
  }

  async #claimAll(): Promise<void> {
    const { queue, config, leaseholder, jobsMax, clock } = this.#deps;
    while (this.#claimAgain) {
      this.#claimAgain = false;
      const free = jobsMax - this.#running.size;
      if (this.#closing.signal.aborted || free <= 0 || clock.now() < this.#pausedUntil) break;
      for (const job of await queue.claim(leaseholder, free, clock.now(), config.leaseMs)) this.#begin(job);
    }
    if (this.#closing.signal.aborted) return;
    const nextAt = await queue.nextReadyAt();
    const dueAt = Math.max(nextAt ?? Number.POSITIVE_INFINITY, this.#pausedUntil);
    // Without capacity, the end of a job wakes the loop, and no alarm is needed.
    if (this.#running.size < jobsMax) this.#setAlarm(Math.min(config.pollMs, Math.max(0, dueAt - clock.now())));
  }

  #setAlarm(delayMs: number): void {
    this.#alarm?.cancel();
    if (this.#closing.signal.aborted) return;
    this.#alarm = this.#deps.clock.after(Math.max(delayMs, 1), () => this.#wake());
  }

  #begin(job: Job): void {
    const { config, clock, log, run } = this.#deps;
    const { sha256 } = job;
    const stop = new AbortController();
    const ended = run(job, AbortSignal.any([stop.signal, this.#closing.signal]))
      .catch((thrown: unknown) => log.error({ sha256, ...bugFields(thrown) }, 'a thumbnail job ended with an error'))
      .finally(() => {
        // After a lost lease the same job may already run again.
        if (this.#running.get(sha256)?.job === job) this.#running.delete(sha256);
        this.#wake();
      });
    this.#running.set(sha256, { job, stop, ended });
    this.#renewal ??= clock.after(config.leaseMs / RENEWALS_PER_LEASE, () => this.#renewLeases());
  }

  #renewLeases(): void {
    this.#renewal = undefined;
    if (this.#running.size === 0 || this.#closing.signal.aborted) return;
    const { config, clock } = this.#deps;
    this.#renewal = clock.after(config.leaseMs / RENEWALS_PER_LEASE, () => this.#renewLeases());
    for (const running of this.#running.values()) void this.#renewLease(running);
  }

  async #renewLease({ job, stop }: RunningJob): Promise<void> {
    const { queue, config, leaseholder, clock, log } = this.#deps;
    try {
      const renewed = await queue.renew(job.sha256, leaseholder, clock.now() + config.leaseMs);
      if (!renewed && this.#running.get(job.sha256)?.job === job) stop.abort(new Error('the lease was lost'));
    } catch (thrown) {
      log.warn({ sha256: job.sha256, ...errorFields(thrown) }, 'a lease could not be renewed');
    }
  }
}
