/**
 * Stores when media were last used, for retention by `unused_for`: fetches from
 * the origin, and what edges report of their own.
 *
 * The stored time is coarse and written in batches. It may be late by
 * `meta.used_step`, by the time between two reports, and by as long as an edge
 * was disconnected. Retention waits for all of that (`used_late_max`) before
 * media count as unused.
 */
import type { Clock, EpochMs, Timer } from '../../src/clock.js';
import type { MediaId } from '../../src/ids.js';
import type { UseReport } from '../../src/journal/use-report.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { MediaRecord } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';

export interface UseReports {
  /** A fetch from the origin. */
  note(record: Pick<MediaRecord, 'id' | 'usedAt'>, now: EpochMs): void;
  /** What an edge served. Resolves when it is stored. */
  noteReport(report: UseReport): Promise<void>;
  /** Writes what is not written yet. May be called twice. */
  close(): Promise<void>;
}

export interface UseReportsDeps {
  readonly meta: Pick<MetaStore, 'markUsed'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Uses of the same media within this time count as one. */
  readonly stepMs: number;
  /** False if retention does not need it: then nothing is written. */
  readonly enabled: boolean;
}

const WRITE_EVERY_MS = 10_000;
const BATCH_MAX = 1_000;

export function createUseReports({ meta, clock, log, metrics, stepMs, enabled }: UseReportsDeps): UseReports {
  const reported = metrics.counter('uses_reported_total', 'Media that edges reported as used.');
  let unwritten = new Set<MediaId>();
  let writing: Promise<void> = Promise.resolve();
  let timer: Timer | undefined;

  function write(): Promise<void> {
    timer?.cancel();
    timer = undefined;
    const ids = [...unwritten];
    unwritten = new Set();
    if (ids.length > 0) {
      writing = writing
        .then(() => meta.markUsed(ids, clock.now()))
        .catch((thrown: unknown) => log.warn(errorFields(thrown), 'the use of media could not be stored'));
    }
    return writing;
  }

  return {
    note(record, now) {
      if (!enabled || now - record.usedAt < stepMs) return;
      unwritten.add(record.id);
      if (unwritten.size >= BATCH_MAX) void write();
      else timer ??= clock.after(WRITE_EVERY_MS, () => void write());
    },
    async noteReport({ uses }) {
      if (!enabled) return;
      const now = clock.now();
      for (const { agoMs, ids } of uses) {
        await meta.markUsed(ids, now - agoMs);
        reported.add(ids.length);
      }
    },
    close: () => write(),
  };
}
