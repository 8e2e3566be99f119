/**
 * Removes what is no longer kept: marks media as expired, frees blobs and their
 * thumbnails, forgets old tombstones, and reports what it freed. When media
 * expire is decided by retention-rules.ts.
 *
 * No request waits for it: requests for expired media are answered with 410 from
 * their instant on, swept or not.
 */
import type { Clock, EpochMs, Timer } from '../../src/clock.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { BlobStore } from '../blobs/blob-store.js';
import {
  clearStage,
  emptyTrash,
  type Freed,
  freeOrphans,
  freeUnreferenced,
  type SweepDeps,
  WALK_PARTS,
} from '../blobs/sweep.js';
import type { Room } from '../ingest/room.js';
import type { MetaStore } from '../meta/store.js';
import type { QuotaConfig } from '../quota.js';
import type { RetentionConfig } from '../retention-rules.js';

/** What one sweep did. */
export interface SweepReport {
  /** Ids whose instant has passed, and ids that nobody used. */
  readonly expired: number;
  readonly unused: number;
  /** Tombstones that were removed: requests for their ids are now answered with 404. */
  readonly forgotten: number;
  readonly blobs: number;
  readonly thumbs: number;
  /** Of uploads that are finished, expired or deleted. */
  readonly parts: number;
  readonly bytes: number;
  /** How many of those blobs, thumbnails and parts had no record. */
  readonly orphans: number;
  /** Files removed from the stage. */
  readonly staged: number;
}

export interface Sweeper {
  /** Sweeps once, after the sweep that is running, if any. */
  sweep(signal: AbortSignal): Promise<SweepReport>;
  /** Frees some of what nobody needs, at once. Those who ask at the same time share it. Never rejects. */
  relieve(): Promise<void>;
  /** Stops a running sweep between two steps. May be called twice. */
  close(): Promise<void>;
}

export interface SweeperDeps extends SweepDeps {
  readonly config: RetentionConfig;
  /** Length of a quota's period: usage of the one before the last is forgotten. */
  readonly quota: Pick<QuotaConfig, 'periodMs'>;
  readonly meta: SweepDeps['meta'] &
    Pick<MetaStore, 'expireDue' | 'expireUnused' | 'forgetTombstones' | 'forgetUsage' | 'duties'>;
  readonly blobs: Pick<BlobStore, 'list' | 'remove' | 'stageFolder'>;
  readonly room: Pick<Room, 'state'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** A whole walk over the store has ended, here or before this process began. */
  onWalked?(stored: { readonly objects: number; readonly bytes: number }): void;
}

/** Blobs that an upload waits for. A sweep frees the others. */
const RELIEF_BLOBS = 32;
/** Tombstones that are forgotten early at once: no more than uploads need soon. */
const RELIEF_TOMBSTONES = 16;

const NOTHING_DONE: SweepReport = {
  expired: 0,
  unused: 0,
  forgotten: 0,
  blobs: 0,
  thumbs: 0,
  parts: 0,
  bytes: 0,
  orphans: 0,
  staged: 0,
};

/** Sweeps regularly from now on. */
export function openSweeper(deps: SweeperDeps): Sweeper {
  const { config, clock, log } = deps;
  const reporter = createReporter(deps);
  const closing = new AbortController();
  let last: Promise<unknown> = Promise.resolve();
  let timer: Timer | undefined;
  let expiryTimer: Timer | undefined;
  let expiring: Promise<unknown> = Promise.resolve();
  let relieving: Promise<void> | undefined;

  async function sweepNow(signal: AbortSignal): Promise<SweepReport> {
    const forAll = await deps.meta.duties.take('sweep', config.sweepEveryMs);
    let report = NOTHING_DONE;
    for (const step of forAll ? [...STEPS, CLEAR_STAGE, WALK] : [CLEAR_STAGE]) {
      signal.throwIfAborted();
      try {
        report = { ...report, ...added(report, await step.run(deps, clock.now(), signal)) };
      } catch (thrown) {
        signal.throwIfAborted();
        reporter.failure(step.name, thrown);
      }
    }
    reporter.report(report);
    return report;
  }

  /** One at a time. */
  function sweep(signal: AbortSignal): Promise<SweepReport> {
    const turn = last.then(() => sweepNow(AbortSignal.any([signal, closing.signal])));
    last = turn.catch(() => undefined);
    return turn;
  }

  function schedule(): void {
    // A sweep may end well although the sweeper was closed during its last step.
    if (closing.signal.aborted) return;
    timer = clock.after(config.sweepEveryMs, () => {
      sweep(closing.signal).then(schedule, (thrown: unknown) => {
        if (!closing.signal.aborted) log.error(errorFields(thrown), 'a sweep failed');
        schedule();
      });
    });
  }
  schedule();

  /** Runs beside the sweeps, which may take long: edges hear of an expiry when it is due. */
  async function expire(): Promise<void> {
    try {
      const forAll = await deps.meta.duties.take('expire', config.expireEveryMs);
      const expired = forAll ? await expireAllDue(deps, clock.now(), closing.signal) : 0;
      if (expired > 0) reporter.report({ ...NOTHING_DONE, expired });
    } catch (thrown) {
      if (!closing.signal.aborted) reporter.failure('expire', thrown);
    }
    scheduleExpiry();
  }
  function scheduleExpiry(): void {
    if (closing.signal.aborted) return;
    expiryTimer = clock.after(config.expireEveryMs, () => {
      expiring = expire();
    });
  }
  scheduleExpiry();

  /** Runs beside the sweeps too. */
  async function relieve(): Promise<void> {
    try {
      const now = clock.now();
      const freed = await freeUnreferenced(deps, unneededSince(now), RELIEF_BLOBS, closing.signal);
      const forgotten = await forgetEarly(deps, now, closing.signal);
      reporter.report({ ...NOTHING_DONE, ...freed, forgotten });
    } catch (thrown) {
      if (!closing.signal.aborted) reporter.failure('relieve', thrown);
    } finally {
      relieving = undefined;
    }
  }

  return {
    sweep,
    relieve: () => {
      relieving ??= relieve();
      return relieving;
    },
    async close() {
      timer?.cancel();
      expiryTimer?.cancel();
      closing.abort(new Error('the sweeper is closing'));
      await Promise.all([last, expiring, relieving]);
    },
  };
}

interface Step {
  readonly name: string;
  run(deps: SweeperDeps, now: EpochMs, signal: AbortSignal): Promise<Partial<SweepReport>>;
}

/** Each does all that is due of its kind, for all origins. A step that fails does not stop the others. */
const STEPS: readonly Step[] = [
  {
    name: 'expire',
    run: async (deps, now, signal) => ({ expired: await expireAllDue(deps, now, signal) }),
  },
  {
    name: 'expire unused',
    async run({ meta, config }, now, signal) {
      const { unusedForMs, usedLateMaxMs } = config;
      if (unusedForMs === null) return {};
      // Reports of uses may arrive this late.
      const expire = async (limit: number): Promise<number> =>
        (await meta.expireUnused(now - unusedForMs - usedLateMaxMs, now, limit)).length;
      return { unused: await untilFew(config.stepMax, signal, expire) };
    },
  },
  {
    name: 'forget tombstones',
    async run(deps, now, signal) {
      const { meta, config } = deps;
      const due = await untilFew(config.stepMax, signal, (limit) =>
        meta.forgetTombstones(now - config.tombstonesMs, limit),
      );
      return { forgotten: due + (await forgetEarly(deps, now, signal)) };
    },
  },
  {
    name: 'forget usage',
    async run({ meta, quota }, now) {
      await meta.forgetUsage(now - 2 * quota.periodMs);
      return {};
    },
  },
  {
    name: 'free blobs',
    async run(deps, now, signal) {
      const { config, room } = deps;
      let done: Partial<SweepReport> = {};
      for (;;) {
        const hasRoom = (await room.state()) === 'enough';
        const since = hasRoom ? now - config.graceMs : unneededSince(now);
        const freed = await freeUnreferenced(deps, since, config.stepMax, signal);
        done = added({ ...NOTHING_DONE, ...done }, freed);
        // Fewer than the step allows: nothing more is due, or the rest is in use.
        if (freed.blobs < config.stepMax) return done;
      }
    },
  },
  {
    name: 'empty the trash',
    async run(deps, now, signal) {
      const { config } = deps;
      let done: Partial<SweepReport> = {};
      for (;;) {
        const freed = await emptyTrash(deps, now - config.trashMs, config.stepMax, signal);
        done = added({ ...NOTHING_DONE, ...done }, freed);
        if (freed.blobs + freed.thumbs + freed.parts < config.stepMax) return done;
      }
    },
  },
];

/** Each origin has a stage of its own. */
const CLEAR_STAGE: Step = {
  name: 'clear the stage',
  run: async ({ blobs, config }, now, signal) => ({
    staged: await clearStage(blobs.stageFolder, now - config.stageMs, signal),
  }),
};

/**
 * Walks the whole store, so it runs less often, and part by part: a long walk lets the next sweep begin, and goes on after
 * it, or at another origin.
 */
const WALK: Step = {
  name: 'free orphans',
  async run(deps, now, signal) {
    const { meta, config, clock } = deps;
    const { duties } = meta;
    const startedMs = clock.monotonicMs();
    let done: Partial<SweepReport> = {};
    const note = await duties.note('walk');
    reportStored(deps, note as Walk | undefined);
    let walk = nextWalk(note, now, config.orphansEveryMs);
    while (walk !== undefined && (await duties.take('walk', config.sweepEveryMs))) {
      const part = WALK_PARTS[walk.parts];
      if (part === undefined || clock.monotonicMs() - startedMs > config.sweepEveryMs) break;
      signal.throwIfAborted();
      const seen = { objects: 0, bytes: 0 };
      const freed = await freeOrphans({ meta, blobs: counting(deps.blobs, seen) }, now - config.graceMs, signal, [
        part,
      ]);
      done = added({ ...NOTHING_DONE, ...done }, { ...freed, orphans: freed.blobs + freed.thumbs + freed.parts });
      const { objects = 0, bytes = 0, parts } = walk;
      walk = { ...walk, parts: parts + 1, objects: objects + seen.objects, bytes: bytes + seen.bytes };
      await duties.keepNote('walk', walk);
      reportStored(deps, walk);
    }
    return done;
  },
};

/** A walk over the store: when it began, and how many parts are done. */
interface Walk {
  readonly begunAt: EpochMs;
  readonly parts: number;
  /** What it has seen so far. Absent in a walk that an earlier release began. */
  readonly objects?: number;
  readonly bytes?: number;
}

/** Keeps count of what a walk sees. */
function counting(
  blobs: SweeperDeps['blobs'],
  seen: { objects: number; bytes: number },
): Pick<BlobStore, 'list' | 'remove'> {
  return {
    async *list(prefix, signal) {
      for await (const listed of blobs.list(prefix, signal)) {
        seen.objects += 1;
        seen.bytes += listed.sizeBytes;
        yield listed;
      }
    },
    remove: (key, signal) => blobs.remove(key, signal),
  };
}

/** Only a whole walk says how much is stored. */
function reportStored(deps: SweeperDeps, walk: Walk | undefined): void {
  if (walk?.objects === undefined || walk.bytes === undefined || walk.parts < WALK_PARTS.length) return;
  deps.onWalked?.({ objects: walk.objects, bytes: walk.bytes });
}

/** The walk to go on with, or a new one; undefined while none is due. */
function nextWalk(note: unknown, now: EpochMs, everyMs: number): Walk | undefined {
  const last = note as Walk | undefined;
  if (last === undefined || (last.parts >= WALK_PARTS.length && now - last.begunAt >= everyMs)) {
    return { begunAt: now, parts: 0, objects: 0, bytes: 0 };
  }
  return last.parts < WALK_PARTS.length ? last : undefined;
}

function expireAllDue({ meta, config }: SweeperDeps, now: EpochMs, signal: AbortSignal): Promise<number> {
  return untilFew(config.stepMax, signal, async (limit) => (await meta.expireDue(now, limit)).length);
}

/** While there is no room for uploads, bytes that nobody needs are not kept for the grace period. */
function unneededSince(now: EpochMs): EpochMs {
  // Freed is what has been unreferenced since before an instant.
  return now + 1;
}

/** While the metadata are at their limit, tombstones make room, the oldest first. */
async function forgetEarly({ meta, config, room }: SweeperDeps, now: EpochMs, signal: AbortSignal): Promise<number> {
  let forgotten = 0;
  while ((await room.state()) === 'records_full') {
    signal.throwIfAborted();
    const step = await meta.forgetTombstones(now, Math.min(config.stepMax, RELIEF_TOMBSTONES));
    forgotten += step;
    if (step === 0) break;
  }
  return forgotten;
}

/** Repeats a step until one does less than its limit. */
async function untilFew(
  stepMax: number,
  signal: AbortSignal,
  take: (limit: number) => Promise<number>,
): Promise<number> {
  let did = 0;
  for (;;) {
    signal.throwIfAborted();
    const now = await take(stepMax);
    did += now;
    if (now < stepMax) return did;
  }
}

function added(report: SweepReport, more: Partial<SweepReport> | Freed): Partial<SweepReport> {
  return Object.fromEntries(Object.entries(more).map(([name, did]) => [name, report[name as keyof SweepReport] + did]));
}

interface Reporter {
  report(report: SweepReport): void;
  failure(step: string, thrown: unknown): void;
}

function createReporter({ metrics, log }: SweeperDeps): Reporter {
  const done = metrics.counter(
    'retention_total',
    'Media that expired, tombstones that were forgotten, and blobs, thumbnails, parts of uploads and files that were removed.',
    ['what'],
  );
  const bytes = metrics.counter('retention_freed_bytes_total', 'Bytes of blobs, thumbnails and parts that were freed.');
  const failures = metrics.counter('retention_failures_total', 'Steps of a sweep that failed.', ['step']);
  return {
    report(report) {
      const { bytes: freedBytes, ...counts } = report;
      bytes.add(freedBytes);
      for (const [what, did] of Object.entries(counts)) done.add(did, { what });
      if (Object.values(report).some((did) => did > 0)) log.info({ ...report }, 'swept');
    },
    failure(step, thrown) {
      failures.add(1, { step });
      log.error({ step, ...errorFields(thrown) }, 'a step of the sweep failed');
    },
  };
}
