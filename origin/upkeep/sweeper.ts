/**
 * How long media are kept. Whether and when an upload expires is decided here as
 * a pure function that the upload asks; the sweeper then does by the clock what
 * is due: marks the expired, frees blobs and their thumbnails, forgets what has
 * been told for long enough, and says what it freed.
 *
 * Nobody waits for it: an expired media is gone at its instant, swept or not.
 */

import type { Clock, EpochMs, Timer } from '../../src/clock.js';
import {
  choice,
  duration,
  integer,
  list,
  optionalDuration,
  section,
  size,
  text,
  type ValueOf,
} from '../../src/config/field.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { BlobStore } from '../blobs/blob-store.js';
import { clearStage, type Freed, freeOrphans, freeUnreferenced, type SweepParts } from '../blobs/sweep.js';
import type { MetaStore } from '../meta/store.js';

const ruleSection = section('One rule: what it covers and how long that is kept.', {
  types: list({
    default: ['*/*'],
    of: text({
      default: '',
      pattern: /^(\*|[a-z0-9.+-]+)\/(\*|[a-z0-9.+-]+)$/,
      accepts: 'a type such as image/gif, video/* or */*',
      help: 'A type.',
    }),
    min: 1,
    help: 'Media types that the rule covers.',
  }),
  visibility: choice({
    default: 'any',
    of: ['any', 'public', 'private'],
    help: 'Whether it covers public media, private media or both.',
  }),
  minSizeBytes: size({ default: '0', help: 'It covers media of at least this size.' }),
  keepMs: duration({ default: '30d', min: 1_000, help: 'How long such media are kept, at most.' }),
});

export const retentionSection = section('How long things are kept.', {
  rules: list({
    default: [],
    of: ruleSection,
    help: 'Rules with `types`, `visibility`, `min_size` and `keep`; the first that covers an upload bounds its life. None: media live until deleted, or for as long as the upload asks.',
  }),
  unusedForMs: optionalDuration({
    default: null,
    min: 60_000,
    help: 'Media that nobody fetched for so long, from the origin or an edge, expire; they go on for up to `used_late_max` more.',
  }),
  usesEveryMs: duration({
    default: '10m',
    min: 1_000,
    max: 86_400_000,
    help: 'How often edges report what they served from their copies. Only with `unused_for`; otherwise they report nothing.',
  }),
  usedLateMaxMs: duration({
    default: '24h',
    min: 1_000,
    help: 'How late word of a fetch may come: longer than `meta.used_step` and two reports of the edges. An edge cut off for so long that its report comes later has its media taken for unused.',
  }),
  tombstonesMs: duration({
    default: '30d',
    min: 0,
    help: 'How long a deleted or expired id is answered with 410; with 404 from then on.',
  }),
  graceMs: duration({
    default: '1h',
    min: 1_000,
    help: 'How long the bytes of deleted media stay before they are freed, and bytes without a record before they are taken for the remains of a crash.',
  }),
  stageMs: duration({
    default: '24h',
    min: 60_000,
    help: 'Files left on the stage that nobody wrote to for so long are removed.',
  }),
  sweepEveryMs: duration({ default: '1m', min: 100, help: 'How often the sweeper looks for what is due.' }),
  orphansEveryMs: duration({
    default: '24h',
    min: 60_000,
    help: 'How often it walks the whole blob store for bytes without a record.',
  }),
  stepMax: integer({
    default: 500,
    min: 1,
    max: 10_000,
    help: 'Ids or blobs that one step takes together; the sweep goes on until nothing is due.',
  }),
});

export type RetentionConfig = ValueOf<typeof retentionSection>;
export type RetentionRule = RetentionConfig['rules'][number];

export interface Kept {
  readonly mime: string;
  readonly sizeBytes: number;
  readonly public: boolean;
}

/** When an upload expires: as it asks (`expires_in`), but no later than the first rule that covers it; null: never. */
export function decideExpiry(
  rules: readonly RetentionRule[],
  media: Kept,
  requestedMs: number | null,
  now: EpochMs,
): EpochMs | null {
  const ruledMs = rules.find((rule) => covers(rule, media))?.keepMs ?? null;
  if (ruledMs === null) return requestedMs === null ? null : now + requestedMs;
  return now + Math.min(ruledMs, requestedMs ?? ruledMs);
}

function covers(rule: RetentionRule, media: Kept): boolean {
  if (rule.visibility !== 'any' && (rule.visibility === 'public') !== media.public) return false;
  return media.sizeBytes >= rule.minSizeBytes && rule.types.some((pattern) => matches(pattern, media.mime));
}

function matches(pattern: string, mime: string): boolean {
  const [type = '', subtype = ''] = pattern.split('/');
  const [ofType = '', ofSubtype = ''] = mime.split('/');
  return (type === '*' || type === ofType) && (subtype === '*' || subtype === ofSubtype);
}

/** What one sweep did. */
export interface SweepReport {
  /** Ids whose instant had passed, and ids that nobody had used. */
  readonly expired: number;
  readonly unused: number;
  /** Tombstones that are answered with 404 from now on. */
  readonly forgotten: number;
  readonly blobs: number;
  readonly thumbs: number;
  readonly bytes: number;
  /** How many of those blobs and thumbnails had no record. */
  readonly orphans: number;
  /** Files removed from the stage. */
  readonly staged: number;
}

export interface Retention {
  /** Does now what is due now; a sweep that is under way is waited for first. */
  sweep(signal: AbortSignal): Promise<SweepReport>;
  /** Breaks a sweep off between two steps. May be called twice. */
  close(): Promise<void>;
}

export interface RetentionParts extends SweepParts {
  readonly config: RetentionConfig;
  /** Length of a quota's period: usage of the one before the last is forgotten. */
  readonly quotaPeriodMs: number;
  readonly meta: SweepParts['meta'] &
    Pick<MetaStore, 'expireDue' | 'expireUnused' | 'forgetTombstones' | 'forgetUsage'>;
  readonly blobs: Pick<BlobStore, 'list' | 'remove' | 'stageFolder'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

const NOTHING_DONE: SweepReport = {
  expired: 0,
  unused: 0,
  forgotten: 0,
  blobs: 0,
  thumbs: 0,
  bytes: 0,
  orphans: 0,
  staged: 0,
};

/** Sweeps by the clock from now on. */
export function openRetention(parts: RetentionParts): Retention {
  const { config, clock, log } = parts;
  const tell = createTelling(parts);
  const closing = new AbortController();
  let last: Promise<unknown> = Promise.resolve();
  let orphansAtMs = Number.NEGATIVE_INFINITY;
  let timer: Timer | undefined;

  async function sweepNow(signal: AbortSignal): Promise<SweepReport> {
    const walk = clock.monotonicMs() - orphansAtMs >= config.orphansEveryMs;
    if (walk) orphansAtMs = clock.monotonicMs();
    let report = NOTHING_DONE;
    for (const step of walk ? [...STEPS, WALK] : STEPS) {
      signal.throwIfAborted();
      try {
        report = { ...report, ...added(report, await step.run(parts, clock.now(), signal)) };
      } catch (thrown) {
        signal.throwIfAborted();
        tell.failure(step.name, thrown);
      }
    }
    tell.report(report);
    return report;
  }

  /** One at a time. */
  function sweep(signal: AbortSignal): Promise<SweepReport> {
    const turn = last.then(() => sweepNow(AbortSignal.any([signal, closing.signal])));
    last = turn.catch(() => undefined);
    return turn;
  }

  function schedule(): void {
    timer = clock.after(config.sweepEveryMs, () => {
      sweep(closing.signal).then(schedule, (thrown: unknown) => {
        if (closing.signal.aborted) return;
        log.error(errorFields(thrown), 'a sweep failed');
        schedule();
      });
    });
  }
  schedule();

  return {
    sweep,
    async close() {
      timer?.cancel();
      closing.abort(new Error('the sweeper is closing'));
      await last;
    },
  };
}

interface Step {
  readonly name: string;
  run(parts: RetentionParts, now: EpochMs, signal: AbortSignal): Promise<Partial<SweepReport>>;
}

/** Each does all that is due of its kind; one that fails does not keep the others from theirs. */
const STEPS: readonly Step[] = [
  {
    name: 'expire',
    run: async ({ meta, config }, now, signal) => ({
      expired: await untilFew(config.stepMax, signal, async (limit) => (await meta.expireDue(now, limit)).length),
    }),
  },
  {
    name: 'expire unused',
    async run({ meta, config }, now, signal) {
      const { unusedForMs, usedLateMaxMs } = config;
      if (unusedForMs === null) return {};
      // What is known of uses is complete only up to so long ago.
      const expire = async (limit: number): Promise<number> =>
        (await meta.expireUnused(now - unusedForMs - usedLateMaxMs, now, limit)).length;
      return { unused: await untilFew(config.stepMax, signal, expire) };
    },
  },
  {
    name: 'forget tombstones',
    run: async ({ meta, config }, now, signal) => ({
      forgotten: await untilFew(config.stepMax, signal, (limit) =>
        meta.forgetTombstones(now - config.tombstonesMs, limit),
      ),
    }),
  },
  {
    name: 'forget usage',
    async run({ meta, quotaPeriodMs }, now) {
      await meta.forgetUsage(now - 2 * quotaPeriodMs);
      return {};
    },
  },
  {
    name: 'free blobs',
    async run(parts, now, signal) {
      const { config } = parts;
      let done: Partial<SweepReport> = {};
      for (;;) {
        const freed = await freeUnreferenced(parts, now - config.graceMs, config.stepMax, signal);
        done = added({ ...NOTHING_DONE, ...done }, freed);
        // Fewer: nothing more is due, or what is due is in use just now.
        if (freed.blobs < config.stepMax) return done;
      }
    },
  },
  {
    name: 'clear the stage',
    run: async ({ blobs, config }, now, signal) => ({
      staged: await clearStage(blobs.stageFolder, now - config.stageMs, signal),
    }),
  },
];

/** Looks at every stored byte's name, so it runs more seldom. */
const WALK: Step = {
  name: 'free orphans',
  async run(parts, now, signal) {
    const freed = await freeOrphans(parts, now - parts.config.graceMs, signal);
    return { ...freed, orphans: freed.blobs + freed.thumbs };
  },
};

/** Takes steps until one does less than it might. */
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

interface Telling {
  report(report: SweepReport): void;
  failure(step: string, thrown: unknown): void;
}

function createTelling({ metrics, log }: RetentionParts): Telling {
  const done = metrics.counter('retention_total', 'What retention ended, forgot and freed.', ['what']);
  const bytes = metrics.counter('retention_freed_bytes_total', 'Bytes of blobs and thumbnails that were freed.');
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
