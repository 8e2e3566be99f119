/**
 * The thumbnail engine: claims jobs from the durable queue under a lease, has
 * them worked off by children, and ends each in one transaction of the
 * metadata store.
 *
 * Promises: a job ends as made, refused or dead, whatever dies meanwhile; no
 * more jobs are claimed than there are hands for; no child is started before
 * there is a job; `close` gives back what is in hand, with no attempt counted.
 * Leaves the story of one job to job.ts and the decision about it to verdict.ts.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock, Timer } from '../../src/clock.js';
import { errorCode, faultOf } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import { bugFields, errorFields, type Log } from '../../src/log.js';
import type { ThumbOptions } from '../../src/media/thumb-choice.js';
import type { Metrics } from '../../src/metrics.js';
import { createSlots } from '../../src/slots.js';
import type { BlobStore } from '../blobs/blob-store.js';
import type { HashLocks } from '../blobs/hash-locks.js';
import { JOB_PRIORITIES, type Job } from '../meta/jobs.js';
import type { ThumbState } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';
import type { ThumbsConfig } from './config.js';
import { JOB_FOLDER_PREFIX, type JobParts, makeThumbs } from './job.js';
import { countThumbs } from './metrics.js';
import { thumbOptionsOf } from './plan.js';
import { findFilmTools } from './render/film.js';
import { openPool } from './render/pool.js';
import { routeOf, typesOf } from './types.js';
import { type Attempt, judge, type Verdict } from './verdict.js';
import { createWaiters } from './waiters.js';

export interface ThumbsParts {
  readonly config: ThumbsConfig;
  readonly meta: MetaStore;
  readonly blobs: BlobStore;
  readonly hashLocks: Pick<HashLocks, 'share'>;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** From 0 up to 1, for jitter and for the name under which leases are held. */
  readonly random?: () => number;
  /** What a child runs; another one only where the engine itself is tested. */
  readonly script?: URL;
}

export interface ThumbCapabilities extends ThumbOptions {
  readonly animated: boolean;
  /** Media types of which thumbnails are made. */
  readonly types: readonly string[];
  /** Posters and durations of video and audio; `reason` says what is missing of the tools, in words. */
  readonly video: { readonly available: boolean; readonly reason: string | null };
}

export interface ThumbsStatus {
  readonly waiting: number;
  readonly leased: number;
  readonly dead: number;
  /** Processes that live, and those of them at work. */
  readonly children: number;
  readonly busy: number;
}

export interface Thumbs {
  /** Whether a job is to be queued for media of this type; otherwise `unsupported_type` stands at once. */
  accepts(mime: string): boolean;
  /** Somebody asks for it now: the job goes to the front. */
  hurry(sha256: Sha256): Promise<void>;
  /** The state as soon as it is no longer pending, or what it is after `waitMs`. Rejects when the signal aborts. */
  wait(sha256: Sha256, waitMs: number, signal: AbortSignal): Promise<ThumbState>;
  capabilities(): ThumbCapabilities;
  /** Why no thumbnails are made at present, in words that anyone may read; null: they are made. */
  unavailable(): string | null;
  status(): Promise<ThumbsStatus>;
  close(): Promise<void>;
}

/** A job that is being worked on. */
interface Hand {
  readonly job: Job;
  readonly stop: AbortController;
  done: Promise<void>;
}

/** Jobs in hand for each child: one that it renders, one that is being fetched or stored. */
const HANDS_PER_CHILD = 2;
const RENEWALS_PER_LEASE = 3;
const HURRIED_MAX = 10_000;
const GONE: ThumbState = { kind: 'none', reason: 'failed' };

export async function openThumbs(parts: ThumbsParts): Promise<Thumbs> {
  const { config, meta, blobs, log, clock } = parts;
  const random = parts.random ?? Math.random;
  const holder = `engine-${process.pid}-${Math.floor(random() * 2 ** 32).toString(16)}`;
  const closing = new AbortController();
  await removeLeftovers(blobs.stageFolder);
  const film = await findFilmTools(config, blobs.stageFolder, clock, closing.signal);
  const script = parts.script ?? new URL('./render/worker.js', import.meta.url);
  const pool = openPool({ script, config: config.children, clock, log });
  const waiters = createWaiters(config.waitersMax, clock);
  const counters = countThumbs(parts.metrics, () => ({
    ...pool.counts(),
    startFailing: pool.startFailure() !== null,
    hands: hands.size,
    waiters: waiters.count,
  }));
  const jobParts: JobParts = { config, blobs, pool, film, filmSlots: createSlots(config.children.count), clock };
  const hands = new Map<Sha256, Hand>();
  const hurried = new Set<Sha256>();
  const handsMax = config.children.count * HANDS_PER_CHILD;
  let pumping: Promise<void> | undefined;
  let wanted = false;
  let alarm: Timer | undefined;
  let renewal: Timer | undefined;
  let pausedUntil = 0;

  /** Claims while there are hands free; whoever finds something to do calls it, and one loop serves all. */
  function pump(): void {
    wanted = true;
    pumping ??= claimAll()
      .catch((thrown: unknown) => {
        log.error(bugFields(thrown), 'the queue of thumbnails cannot be read');
        setAlarm(config.queue.pollMs);
      })
      .finally(() => {
        pumping = undefined;
        if (wanted && !closing.signal.aborted) pump();
      });
  }

  async function claimAll(): Promise<void> {
    while (wanted) {
      wanted = false;
      const free = handsMax - hands.size;
      if (closing.signal.aborted || free <= 0 || clock.now() < pausedUntil) break;
      const jobs = await meta.jobs.claim(holder, free, clock.now(), config.queue.leaseMs);
      for (const job of jobs) take(job);
    }
    if (closing.signal.aborted) return;
    const nextAt = await meta.jobs.nextReadyAt();
    const dueAt = Math.max(nextAt ?? Number.POSITIVE_INFINITY, pausedUntil);
    // With all hands full the end of a job is the next occasion, and no alarm is needed.
    if (hands.size < handsMax) setAlarm(Math.min(config.queue.pollMs, Math.max(0, dueAt - clock.now())));
  }

  function setAlarm(delayMs: number): void {
    alarm?.cancel();
    alarm = closing.signal.aborted ? undefined : clock.after(Math.max(delayMs, 1), pump);
  }

  function take(job: Job): void {
    const stop = new AbortController();
    const hand: Hand = { job, stop, done: Promise.resolve() };
    hands.set(job.sha256, hand);
    renewal ??= clock.after(config.queue.leaseMs / RENEWALS_PER_LEASE, renewLeases);
    hand.done = workHeld(job, AbortSignal.any([stop.signal, closing.signal]))
      .catch((thrown: unknown) => log.error({ sha256: job.sha256, ...bugFields(thrown) }, 'a thumbnail job was left'))
      .finally(() => {
        // After a lost lease the same job may already be in hand again.
        if (hands.get(job.sha256) === hand) hands.delete(job.sha256);
        pump();
      });
  }

  /** What is stored again may be what the sweep is about to take, so it is kept off until the record names it. */
  async function workHeld(job: Job, signal: AbortSignal): Promise<void> {
    const release = await parts.hashLocks.share(job.sha256, signal).catch(() => undefined);
    try {
      await work(job, signal);
    } finally {
      release?.();
    }
  }

  async function work(job: Job, signal: AbortSignal): Promise<void> {
    const startedMs = clock.monotonicMs();
    const attempt = await attemptJob(job, signal);
    const verdict = judge(attempt, job.attempts, config.queue, random());
    counters.attempt(attempt, verdict, clock.monotonicMs() - startedMs);
    tell(job, attempt, verdict, log);
    if (attempt.kind === 'untried' || (attempt.kind === 'lost' && attempt.loss === 'start')) {
      pausedUntil = clock.now() + config.queue.backoffMs;
    }
    await carryOut(job, verdict);
    if (verdict.kind === 'finish') counters.finished(clock.now() - job.queuedAt);
  }

  async function attemptJob(job: Job, signal: AbortSignal): Promise<Attempt> {
    // Whoever held it before did not come back to say what happened; that counts as well.
    if (job.attempts >= config.queue.attemptsMax) return { kind: 'faulty', detail: 'every attempt was cut off' };
    try {
      const blob = await meta.findBlob(job.sha256);
      if (blob === undefined) return { kind: 'gone' };
      // What was too much with all its frames may still be had as a still.
      const animate = job.attempts === 0 || job.attempts + 1 < config.queue.attemptsMax;
      return await makeThumbs(jobParts, { blob, priority: JOB_PRIORITIES[job.priority], animate }, signal);
    } catch (thrown) {
      if (signal.aborted) return { kind: 'aborted' };
      const { error } = errorFields(thrown);
      return { kind: isOurs(thrown) ? 'untried' : 'faulty', detail: String(error) };
    }
  }

  async function carryOut({ sha256 }: Job, verdict: Verdict): Promise<void> {
    switch (verdict.kind) {
      case 'finish':
        await meta.finishThumbs(sha256, verdict.outcome);
        return settle(sha256);
      case 'bury':
        await meta.jobs.bury(sha256, verdict.why, clock.now(), verdict.refusal);
        return settle(sha256);
      case 'drop':
        await meta.jobs.drop(sha256);
        return settle(sha256);
      case 'retry':
        return meta.jobs.retry(sha256, holder, clock.now() + verdict.delayMs);
      case 'give_back':
        return meta.jobs.giveBack(sha256, holder, clock.now() + verdict.delayMs);
    }
  }

  function settle(sha256: Sha256): void {
    hurried.delete(sha256);
    waiters.wake(sha256);
  }

  function renewLeases(): void {
    renewal = undefined;
    if (hands.size === 0 || closing.signal.aborted) return;
    renewal = clock.after(config.queue.leaseMs / RENEWALS_PER_LEASE, renewLeases);
    for (const hand of hands.values()) void renewLease(hand);
  }

  async function renewLease({ job, stop }: Hand): Promise<void> {
    try {
      const held = await meta.jobs.renew(job.sha256, holder, clock.now() + config.queue.leaseMs);
      if (!held && hands.get(job.sha256)?.job === job) stop.abort(new Error('the lease was lost'));
    } catch (thrown) {
      log.warn({ sha256: job.sha256, ...errorFields(thrown) }, 'a lease could not be renewed');
    }
  }

  async function stateOf(sha256: Sha256): Promise<ThumbState> {
    return (await meta.findBlob(sha256))?.thumbs ?? GONE;
  }

  const unsubscribe = config.enabled ? meta.jobs.onAdded(pump) : undefined;
  if (config.enabled) pump();

  return {
    accepts: (mime) => routeOf(mime, film.tools).kind !== 'none',
    async hurry(sha256) {
      if (hands.has(sha256) || hurried.has(sha256)) return;
      if (hurried.size >= HURRIED_MAX) hurried.clear();
      hurried.add(sha256);
      await meta.jobs.lift(sha256, 'asked');
    },
    async wait(sha256, waitMs, signal) {
      await waiters.wait(sha256, waitMs, signal, async () => (await stateOf(sha256)).kind !== 'pending');
      return stateOf(sha256);
    },
    capabilities: () => ({
      ...thumbOptionsOf(config),
      animated: config.animation.enabled,
      types: typesOf(film.tools),
      video: { available: film.tools.film, reason: film.missing },
    }),
    unavailable() {
      if (!config.enabled) return 'switched off';
      return pool.startFailure() === null ? null : 'the processes that render do not start';
    },
    async status() {
      const { children, busy } = pool.counts();
      return { ...(await meta.jobs.counts()), children, busy };
    },
    async close() {
      closing.abort(new Error('the thumbnail engine closes'));
      unsubscribe?.();
      alarm?.cancel();
      renewal?.cancel();
      await pumping;
      await Promise.all([...hands.values()].map(({ done }) => done));
      await pool.close();
    },
  };
}

/** Jobs that an earlier process was killed over left their folders. */
async function removeLeftovers(stageFolder: string): Promise<void> {
  const left = (await readdir(stageFolder)).filter((name) => name.startsWith(JOB_FOLDER_PREFIX));
  await Promise.all(left.map((name) => rm(join(stageFolder, name), { recursive: true, force: true })));
}

const EXHAUSTED: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'EROFS', 'EIO', 'EACCES']);

/** Whether a failure is one of storage or machine, and so says nothing of the picture. */
function isOurs(thrown: unknown): boolean {
  return faultOf(thrown).side === 'storage' || EXHAUSTED.has(errorCode(thrown) ?? '');
}

function tell(job: Job, attempt: Attempt, verdict: Verdict, log: Log): void {
  const fields = { sha256: job.sha256, attempt: job.attempts + 1, end: attempt.kind };
  switch (verdict.kind) {
    case 'finish':
      if (attempt.kind === 'refused')
        log.info({ ...fields, reason: attempt.reason, detail: attempt.detail }, 'no thumbnail');
      else log.debug(fields, 'thumbnails made');
      return;
    case 'retry':
    case 'give_back':
      log.warn({ ...fields, why: verdict.why, delay_ms: verdict.delayMs }, 'a thumbnail job goes back to the queue');
      return;
    case 'bury':
      log.error({ ...fields, why: verdict.why }, 'a thumbnail job is given up');
      return;
    case 'drop':
      log.debug(fields, 'a thumbnail job has lost its media');
  }
}
