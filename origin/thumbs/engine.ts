/**
 * The thumbnail engine: lets children make the thumbnails of queued jobs, and
 * ends each job in one transaction of the metadata store.
 *
 * Promises: a job ends as made, refused or dead, whichever process dies
 * meanwhile; `close` gives back running jobs without counting an attempt. Claims
 * and leases are left to job-runner.ts, the steps of one job to job.ts, and the
 * decision what becomes of a job to verdict.ts.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.js';
import { errorCode, faultOf } from '../../src/errors.js';
import type { Sha256 } from '../../src/ids.js';
import { errorFields, type Log } from '../../src/log.js';
import type { ThumbOptions } from '../../src/media/thumb-choice.js';
import type { Metrics } from '../../src/metrics.js';
import { createSlots } from '../../src/slots.js';
import { rootSpan, type Tracer } from '../../src/tracing/tracer.js';
import { abandon } from '../blobs/abandon.js';
import { type BlobStore, thumbKey } from '../blobs/blob-store.js';
import { JOB_PRIORITIES, type Job } from '../meta/jobs.js';
import type { ThumbState } from '../meta/media.js';
import type { MetaStore, ThumbOutcome } from '../meta/store.js';
import type { ThumbsConfig } from './config.js';
import { JOB_FOLDER_PREFIX, type JobDeps, type JobTask, makeThumbs } from './job.js';
import { JobRunner } from './job-runner.js';
import { countThumbs, type ThumbCounters } from './metrics.js';
import { thumbOptionsOf } from './plan.js';
import type { Launcher } from './render/launcher.js';
import { findMediaTools, type MediaTools } from './render/media-tools.js';
import { openPool, type RenderPool } from './render/pool.js';
import type { EarlyThumb } from './store-thumb.js';
import { routeOf, typesOf } from './types.js';
import { ABORTED, type Attempt, type Verdict, verdictOf } from './verdict.js';
import { createWaiters, type Elsewhere, type Waiters } from './waiters.js';

export interface ThumbsDeps {
  readonly config: ThumbsConfig;
  readonly meta: MetaStore;
  readonly blobs: BlobStore;
  readonly launcher: Launcher;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly tracer?: Tracer;
  /** From 0 up to 1, for jitter and for the name under which leases are taken. */
  readonly random?: () => number;
  /** What a child runs. Only tests of the engine give another script. */
  readonly script?: URL;
}

export interface ThumbCapabilities extends ThumbOptions {
  readonly animated: boolean;
  /** Media types of which thumbnails are made. */
  readonly types: readonly string[];
  /** Posters and durations of video and audio. `reason` says which tools are missing. */
  readonly video: { readonly available: boolean; readonly reason: string | null };
}

export interface Thumbs {
  /** Whether thumbnails are made of media of this type, so that a job is to be queued. */
  accepts(mime: string): boolean;
  /** Moves a job to the front of the queue, because a client waits for its thumbnails. */
  prioritize(sha256: Sha256): Promise<void>;
  /** The state once it is no longer pending, or the state after `waitMs`. Rejects when the signal aborts. */
  wait(sha256: Sha256, waitMs: number, signal: AbortSignal): Promise<ThumbState>;
  /** The same, but ends as soon as there is an early thumbnail. */
  waitForEarly(sha256: Sha256, waitMs: number, signal: AbortSignal): Promise<ThumbState>;
  /**
   * The thumbhash of a picture that was uploaded just now, if it is known within `upload_wait`; null at once if no
   * process is free for it. Never rejects for what becomes of the job; rejects when the signal aborts.
   */
  hashOfUpload(blob: { readonly sha256: Sha256; readonly mime: string }, signal: AbortSignal): Promise<string | null>;
  /** Thumbnails of the default variant while the job makes the others; none at any other time. */
  early(sha256: Sha256): readonly EarlyThumb[];
  capabilities(): ThumbCapabilities;
  /** Why no thumbnails are made at present, in words that anyone may read; null: they are made. */
  unavailable(): string | null;
  close(): Promise<void>;
}

/** Jobs for each child: one that it renders, one that is being fetched or stored. */
const JOBS_PER_CHILD = 2;
const PRIORITIZED_MAX = 10_000;
const NO_SUCH_BLOB: ThumbState = { kind: 'none', reason: 'failed' };

export async function openThumbs(deps: ThumbsDeps): Promise<Thumbs> {
  const { config, blobs, log, clock, launcher } = deps;
  await removeOldJobFolders(blobs.stageFolder);
  const tools = await findMediaTools(config, launcher, blobs.stageFolder, clock);
  const script = deps.script ?? new URL('./render/worker.js', import.meta.url);
  const pool = openPool({ script, launcher, folder: blobs.stageFolder, config: config.children, clock, log });
  const engine = new ThumbEngine(deps, tools, pool);
  if (config.enabled) engine.start();
  return engine;
}

class ThumbEngine implements Thumbs {
  readonly #deps: ThumbsDeps;
  readonly #random: () => number;
  readonly #tools: MediaTools;
  readonly #pool: RenderPool;
  readonly #jobDeps: JobDeps;
  readonly #leaseholder: string;
  readonly #runner: JobRunner;
  readonly #waiters: Waiters;
  readonly #counters: ThumbCounters;
  /** Jobs that were moved to the front already. */
  readonly #prioritized = new Set<Sha256>();
  /** By blob, the thumbnails that can be shown while its job runs. */
  readonly #early = new Map<Sha256, readonly EarlyThumb[]>();
  /** By blob, the thumbhash while its job runs. */
  readonly #hashes = new Map<Sha256, string>();
  readonly #jobsMax: number;
  #stopListening: () => void = () => undefined;

  constructor(deps: ThumbsDeps, tools: MediaTools, pool: RenderPool) {
    const { config, meta, blobs, log, clock } = deps;
    const { count } = config.children;
    this.#deps = deps;
    this.#random = deps.random ?? Math.random;
    this.#jobsMax = count * JOBS_PER_CHILD;
    this.#tools = tools;
    this.#pool = pool;
    this.#jobDeps = { config, meta, blobs, pool, tools, toolSlots: createSlots(count) };
    this.#leaseholder = leaseholderOf(meta.origins.name, this.#random);
    this.#runner = new JobRunner({
      queue: meta.jobs,
      config: config.queue,
      leaseholder: this.#leaseholder,
      jobsMax: this.#jobsMax,
      clock,
      log,
      // No request waits for a job, so it has a trace of its own.
      run: (job, signal) =>
        rootSpan(deps, 'thumbnail render', { 'media.sha256': job.sha256 }, () => this.#runShown(job, signal)),
    });
    this.#waiters = createWaiters(config.waitersMax, clock, this.#elsewhere());
    this.#counters = countThumbs(deps.metrics, () => ({
      ...pool.counts(),
      startFailing: pool.startFailure() !== null,
      jobs: this.#runner.count,
      waiters: this.#waiters.count,
    }));
  }

  /** Other origins make thumbnails too. Whoever waits for one hears of it as if it were made here. */
  #elsewhere(): Elsewhere | null {
    const { meta, log } = this.#deps;
    const { others } = meta.jobs;
    if (others === null) return null;
    return {
      lookEveryMs: others.askEveryMs,
      look: (keys) =>
        others.ended([...new Set(keys.map(blobOf))]).then(
          (ended) => {
            for (const sha256 of ended) this.#onEnd(sha256);
          },
          (thrown: unknown) =>
            log.warn(errorFields(thrown), 'whether thumbnails are made cannot be read at the moment'),
        ),
    };
  }

  start(): void {
    this.#stopListening = this.#deps.meta.jobs.onEnded((sha256) => this.#onEnd(sha256));
    this.#runner.start();
    this.#pool.keepReady();
  }

  accepts(mime: string): boolean {
    return routeOf(mime, this.#tools.installed).kind !== 'none';
  }

  async prioritize(sha256: Sha256): Promise<void> {
    if (this.#runner.has(sha256) || this.#prioritized.has(sha256)) return;
    if (this.#prioritized.size >= PRIORITIZED_MAX) this.#prioritized.clear();
    this.#prioritized.add(sha256);
    await this.#deps.meta.jobs.lift(sha256, 'asked');
  }

  async wait(sha256: Sha256, waitMs: number, signal: AbortSignal): Promise<ThumbState> {
    await this.#waiters.wait(sha256, waitMs, signal, async () => (await this.#stateOf(sha256)).kind !== 'pending');
    return this.#stateOf(sha256);
  }

  async waitForEarly(sha256: Sha256, waitMs: number, signal: AbortSignal): Promise<ThumbState> {
    const isEnough = async (): Promise<boolean> =>
      this.#early.has(sha256) || (await this.#stateOf(sha256)).kind !== 'pending';
    await this.#waiters.wait(earlyKey(sha256), waitMs, signal, isEnough);
    return this.#stateOf(sha256);
  }

  async hashOfUpload(
    { sha256, mime }: { readonly sha256: Sha256; readonly mime: string },
    signal: AbortSignal,
  ): Promise<string | null> {
    const { uploadWaitMs } = this.#deps.config;
    // Its own job may have been claimed already.
    const isBusy = this.#runner.count >= this.#jobsMax && !this.#runner.has(sha256);
    if (uploadWaitMs === 0 || isBusy || this.unavailable() !== null) return null;
    if (routeOf(mime, this.#tools.installed).kind !== 'picture') return null;
    let known: string | null = null;
    const isKnown = async (): Promise<boolean> => {
      const blob = await this.#deps.meta.findBlob(sha256);
      known = this.#hashes.get(sha256) ?? blob?.picture.thumbhash ?? null;
      return known !== null || blob?.thumbs.kind !== 'pending';
    };
    await this.#waiters.wait(hashKey(sha256), uploadWaitMs, signal, isKnown);
    if (known === null) await isKnown();
    return known;
  }

  early(sha256: Sha256): readonly EarlyThumb[] {
    return this.#early.get(sha256) ?? [];
  }

  capabilities(): ThumbCapabilities {
    const { installed, missing } = this.#tools;
    return {
      ...thumbOptionsOf(this.#deps.config),
      animated: this.#deps.config.animation.enabled,
      types: typesOf(installed),
      video: { available: installed.ffmpeg, reason: missing },
    };
  }

  unavailable(): string | null {
    if (!this.#deps.config.enabled) return 'switched off';
    return this.#pool.startFailure() === null ? null : 'the processes that render do not start';
  }

  async close(): Promise<void> {
    this.#stopListening();
    await this.#runner.close();
    await this.#pool.close();
  }

  /** Early thumbnails are shown until the end: then all are recorded, or there are none. */
  async #runShown(job: Job, signal: AbortSignal): Promise<void> {
    const { sha256 } = job;
    let over = false;
    const show = (early: readonly EarlyThumb[]): void => {
      if (over) return;
      this.#early.set(sha256, early);
      this.#waiters.wake(earlyKey(sha256));
    };
    const noteHash = (thumbhash: string): void => {
      if (over) return;
      this.#hashes.set(sha256, thumbhash);
      this.#waiters.wake(hashKey(sha256));
    };
    try {
      await this.#run(job, { onEarly: show, onHash: noteHash }, signal);
    } finally {
      over = true;
      this.#early.delete(sha256);
      this.#hashes.delete(sha256);
    }
  }

  async #run(job: Job, show: Pick<JobTask, 'onEarly' | 'onHash'>, signal: AbortSignal): Promise<void> {
    const { config, clock, log } = this.#deps;
    const startedMs = clock.monotonicMs();
    const attempt = await this.#attempt(job, show, signal);
    const verdict = verdictOf(attempt, job.attempts, config.queue, this.#random());
    this.#counters.attempt(attempt, verdict, clock.monotonicMs() - startedMs);
    logVerdict(job, attempt, verdict, log);
    if (attempt.kind === 'untried' || (attempt.kind === 'lost' && attempt.loss === 'start')) {
      this.#runner.pause(config.queue.backoffMs);
    }
    await this.#carryOut(job, verdict);
    if (verdict.kind === 'finish') this.#counters.finished(clock.now() - job.queuedAt);
  }

  async #attempt(job: Job, show: Pick<JobTask, 'onEarly' | 'onHash'>, signal: AbortSignal): Promise<Attempt> {
    const { attemptsMax } = this.#deps.config.queue;
    // An attempt whose process died counts too, although nobody reported its end.
    if (job.attempts >= attemptsMax) return { kind: 'faulty', detail: 'every attempt was cut off' };
    try {
      const blob = await this.#deps.meta.findBlob(job.sha256);
      if (blob === undefined) return { kind: 'gone' };
      // A picture that failed with all its frames may still succeed as a still, so the last attempt makes stills.
      const animate = job.attempts === 0 || job.attempts + 1 < attemptsMax;
      const task = { blob, priority: JOB_PRIORITIES[job.priority], animate, ...show };
      return await makeThumbs(this.#jobDeps, task, signal);
    } catch (thrown) {
      if (signal.aborted) return { kind: 'aborted' };
      const { error } = errorFields(thrown);
      return { kind: isOwnFailure(thrown) ? 'untried' : 'faulty', detail: String(error) };
    }
  }

  async #carryOut({ sha256 }: Job, verdict: Verdict): Promise<void> {
    const { meta, clock } = this.#deps;
    switch (verdict.kind) {
      case 'finish':
        await this.#finish(sha256, verdict.outcome);
        return this.#onEnd(sha256);
      case 'bury':
        await meta.jobs.bury(sha256, verdict.why, clock.now(), verdict.refusal);
        return this.#onEnd(sha256);
      case 'drop':
        await meta.jobs.drop(sha256);
        return this.#onEnd(sha256);
      case 'retry':
        // A client that asks again may lift it again.
        if (verdict.priority !== null) this.#prioritized.delete(sha256);
        return meta.jobs.retry(sha256, this.#leaseholder, clock.now() + verdict.delayMs, verdict.priority);
      case 'give_back':
        return meta.jobs.giveBack(sha256, this.#leaseholder, clock.now() + verdict.delayMs);
    }
  }

  /** Records what was made. If nobody wants it any more, or it cannot be recorded, it is removed again. */
  async #finish(sha256: Sha256, outcome: ThumbOutcome): Promise<void> {
    const { meta } = this.#deps;
    const keys = outcome.kind === 'made' ? outcome.made.map((thumb) => thumbKey(sha256, thumb)) : [];
    let recorded = false;
    try {
      recorded = await meta.finishThumbs(sha256, outcome, this.#leaseholder);
    } finally {
      if (!recorded) await abandon(this.#deps, keys);
    }
  }

  #onEnd(sha256: Sha256): void {
    this.#prioritized.delete(sha256);
    this.#waiters.wake(sha256);
    this.#waiters.wake(earlyKey(sha256));
    this.#waiters.wake(hashKey(sha256));
  }

  async #stateOf(sha256: Sha256): Promise<ThumbState> {
    return (await this.#deps.meta.findBlob(sha256))?.thumbs ?? NO_SUCH_BLOB;
  }
}

/** Under which requests wait that an early thumbnail is enough for. */
function earlyKey(sha256: Sha256): string {
  return `early ${sha256}`;
}

function blobOf(key: string): Sha256 {
  return key.slice(-64) as Sha256;
}

/** Under which uploads wait for the thumbhash. */
function hashKey(sha256: Sha256): string {
  return `hash ${sha256}`;
}

/** A process that was killed leaves the folders of its jobs and children. */
async function removeOldJobFolders(stageFolder: string): Promise<void> {
  const old = (await readdir(stageFolder)).filter((name) => name.startsWith(JOB_FOLDER_PREFIX));
  await Promise.all(old.map((name) => rm(join(stageFolder, name), { recursive: true, force: true })));
}

const DISK = ['ENOSPC', 'EDQUOT', 'EROFS', 'EIO', 'EACCES'];
/** A process that cannot be started for lack of memory or of places for processes is such a failure too. */
const MACHINE = ['EMFILE', 'ENFILE', 'ENOMEM', 'EAGAIN'];
const EXHAUSTED: ReadonlySet<string> = new Set([...DISK, ...MACHINE]);

/** Whether a failure came from the storage or the machine, and not from the picture. */
function isOwnFailure(thrown: unknown): boolean {
  return faultOf(thrown).side === 'storage' || EXHAUSTED.has(errorCode(thrown) ?? '');
}

function logVerdict(job: Job, attempt: Attempt, verdict: Verdict, log: Log): void {
  const fields = { sha256: job.sha256, attempt: job.attempts + 1, end: attempt.kind };
  switch (verdict.kind) {
    case 'finish':
      if (attempt.kind === 'refused')
        log.info({ ...fields, reason: attempt.reason, detail: attempt.detail }, 'no thumbnail');
      else log.debug(fields, 'thumbnails made');
      return;
    case 'give_back':
    case 'retry':
      if (verdict.why === ABORTED) log.debug(fields, 'a thumbnail job is broken off');
      else
        log.warn({ ...fields, why: verdict.why, delay_ms: verdict.delayMs }, 'a thumbnail job goes back to the queue');
      return;
    case 'bury':
      log.error({ ...fields, why: verdict.why }, 'a thumbnail job is given up');
      return;
    case 'drop':
      log.debug(fields, 'a thumbnail job has lost its media');
  }
}

/** A restarted origin takes back the leases of its own name. */
function leaseholderOf(origin: string, random: () => number): string {
  const engine = `engine-${process.pid}-${Math.floor(random() * 2 ** 32).toString(16)}`;
  return origin === '' ? engine : `${origin}/${engine}`;
}
