/**
 * Notes which media were fetched, for retention by `unused_for`: here, and at
 * the edges, which report what they served from their copies. Coarse, and
 * written in batches: what is noted may be behind by `meta.used_step`, by the
 * time between two reports, and by as long as an edge was cut off. Retention
 * waits for all of it (`used_late_max`) before it takes media for unused.
 */
import type { Clock, EpochMs, Timer } from '../../src/clock.js';
import type { MediaId } from '../../src/ids.js';
import type { UseReport } from '../../src/journal/use-report.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { MediaRecord } from '../meta/media.js';
import type { MetaStore } from '../meta/store.js';

export interface UseReports {
  /** A fetch from the origin itself. */
  note(record: Pick<MediaRecord, 'id' | 'usedAt'>, now: EpochMs): void;
  /** What an edge served. Resolves once it is written down. */
  noteReport(report: UseReport): Promise<void>;
  /** Writes what is noted. May be called twice. */
  close(): Promise<void>;
}

export interface UseReportsDeps {
  readonly meta: Pick<MetaStore, 'markUsed'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Two uses of one media nearer together than this count as one. */
  readonly stepMs: number;
  /** False: nobody asks for it, so nothing is written. */
  readonly noted: boolean;
}

const WRITE_EVERY_MS = 10_000;
const BATCH_MAX = 1_000;

export function createUseReports({ meta, clock, log, metrics, stepMs, noted }: UseReportsDeps): UseReports {
  const reported = metrics.counter('uses_reported_total', 'Media that edges reported to have served.');
  let fresh = new Set<MediaId>();
  let writing: Promise<void> = Promise.resolve();
  let timer: Timer | undefined;

  function write(): Promise<void> {
    timer?.cancel();
    timer = undefined;
    const ids = [...fresh];
    fresh = new Set();
    if (ids.length > 0) {
      writing = writing
        .then(() => meta.markUsed(ids, clock.now()))
        .catch((thrown: unknown) => log.warn(errorFields(thrown), 'the use of media could not be noted'));
    }
    return writing;
  }

  return {
    note(record, now) {
      if (!noted || now - record.usedAt < stepMs) return;
      fresh.add(record.id);
      if (fresh.size >= BATCH_MAX) void write();
      else timer ??= clock.after(WRITE_EVERY_MS, () => void write());
    },
    async noteReport({ uses }) {
      if (!noted) return;
      const now = clock.now();
      for (const { agoMs, ids } of uses) {
        await meta.markUsed(ids, now - agoMs);
        reported.add(ids.length);
      }
    },
    close: () => write(),
  };
}
