/**
 * Reports to the origin which media were served from the cache, for its retention
 * rule `unused_for`. The origin itself notes what it is asked for. It says in the
 * greeting of the journal whether it wants reports.
 *
 * Promises: noting a hit costs one look into a set; memory is bounded; a report
 * names each media once, however often it was served; a report that fails is
 * repeated later, with the time of the use. Lost are the uses that an edge had
 * not reported when it was killed, and those beyond the bound while the origin is
 * away. The next hit reports the same media anew.
 */
import { type Clock, type Timer, withDeadline } from '../src/clock.js';
import { duration, integer, section, type ValueOf } from '../src/config/field.js';
import type { HeaderList } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import { formatUseReport, USE_REPORT_IDS_MAX, USES_PATH, type Used } from '../src/journal/use-report.js';
import type { Log } from '../src/log.js';
import type { Metrics } from '../src/metrics.js';
import { EDGE_PROOF } from '../src/wire.js';
import type { Answer, Outcome } from './request.js';
import type { Upstream } from './upstream/upstream.js';

export const useReportsSection = section(
  'Reports to the origin of the media that were served from the cache. They are sent only if its retention rules need them.',
  {
    mediaMax: integer({
      default: 200_000,
      min: 1_000,
      max: 10_000_000,
      help: 'Most media that wait to be reported. When half of it is reached, a report is sent early.',
    }),
    answerWithinMs: duration({
      default: '5s',
      min: 100,
      max: 60_000,
      help: 'How long the origin may take to answer a report.',
    }),
  },
);

export type UseReportsConfig = ValueOf<typeof useReportsSection>;

export interface UseReports {
  /** Notes an answer that is being sent. */
  note(answer: Extract<Answer, { kind: 'reply' }>): void;
  /** How often the origin wants reports. Undefined: it wants none. */
  want(everyMs: number | undefined): void;
  /** Reports what is left, in one attempt. */
  close(): Promise<void>;
}

export interface UseReportsDeps {
  readonly config: UseReportsConfig;
  readonly upstream: Pick<Upstream, 'fetchOwn'>;
  /** The value of `edge-authorization`, as it is now. */
  readonly proof: () => string;
  readonly clock: Clock;
  /** From 0 to 1, so that edges do not all report at the same time. */
  random(): number;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** For generic mode, which has no media. */
export const NO_USE_REPORTS: Pick<UseReports, 'note'> = { note: () => undefined };

/** Whether the origin has not seen a request with this outcome. */
const UNSEEN_BY_ORIGIN: Readonly<Record<Outcome, boolean>> = {
  hit_memory: true,
  hit_disk: true,
  hit_filling: true,
  stale: true,
  revalidated: false,
  miss: false,
  pass: false,
  refused: false,
  failed: false,
  own: false,
};

export function createUseReports(deps: UseReportsDeps): UseReports {
  const { config, clock, log } = deps;
  const meters = createMeters(deps.metrics);
  /** Media served since the last report began. */
  let fresh = new Set<MediaId>();
  /** Media of reports that the origin has not accepted yet, with the latest instant at which each may have been served. */
  const unreported = new Map<MediaId, number>();
  let everyMs: number | undefined;
  let timer: Timer | undefined;
  let reporting: Promise<void> | undefined;
  const closing = new AbortController();

  function seal(): void {
    const nowMs = clock.monotonicMs();
    for (const id of fresh) unreported.set(id, nowMs);
    fresh = new Set();
  }

  async function reportAll(): Promise<void> {
    seal();
    while (unreported.size > 0) {
      const batch = [...unreported].slice(0, USE_REPORT_IDS_MAX);
      const accepted = await post(deps, batch, closing.signal);
      meters.reports.add(1, { outcome: accepted ? 'told' : 'failed' });
      if (!accepted) {
        log.warn({ media: unreported.size }, 'a report of served media failed; it is sent again later');
        return;
      }
      for (const [id] of batch) unreported.delete(id);
      meters.media.add(batch.length);
    }
  }

  /** One report at a time. */
  function report(): Promise<void> {
    timer?.cancel();
    reporting ??= reportAll().finally(() => {
      reporting = undefined;
      schedule();
    });
    return reporting;
  }

  function schedule(): void {
    timer?.cancel();
    if (everyMs === undefined || closing.signal.aborted) return;
    // Never later than the origin wants.
    timer = clock.after(everyMs * (0.75 + deps.random() / 4), () => void report());
  }

  return {
    note({ reply, outcome, mediaId }) {
      if (everyMs === undefined || mediaId === null || !UNSEEN_BY_ORIGIN[outcome] || reply.status >= 400) return;
      if (fresh.size + unreported.size < config.mediaMax) fresh.add(mediaId);
      else if (!fresh.has(mediaId)) meters.lost.add();
      // The other half is for media that are served while the report is sent.
      if (fresh.size >= config.mediaMax / 2 && unreported.size === 0) void report();
    },
    want(wantedMs) {
      if (wantedMs === everyMs) return;
      everyMs = wantedMs;
      if (wantedMs === undefined) {
        fresh.clear();
        unreported.clear();
      }
      if (reporting === undefined) schedule();
    },
    async close() {
      timer?.cancel();
      await reporting;
      if (everyMs !== undefined && !closing.signal.aborted) await report();
      closing.abort();
      timer?.cancel();
    },
  };
}

/** Whether the origin has stored the report. */
async function post(
  { config, upstream, proof, clock }: UseReportsDeps,
  batch: readonly (readonly [MediaId, number])[],
  closing: AbortSignal,
): Promise<boolean> {
  const headers: HeaderList = [
    ['content-type', 'application/json'],
    [EDGE_PROOF, proof()],
  ];
  const body = Buffer.from(formatUseReport({ uses: byAge(batch, clock.monotonicMs()) }));
  const late = (): Error => new Error('the report took too long');
  try {
    const answer = await withDeadline({ clock, ms: config.answerWithinMs, late, signal: closing }, (signal) =>
      upstream.fetchOwn({ method: 'POST', target: USES_PATH, headers, body }, signal),
    );
    answer.body.on('error', () => {}).resume();
    return answer.status < 300;
  } catch {
    return false;
  }
}

/** Media that were sealed together have the same instant, so there are few ages. */
function byAge(batch: readonly (readonly [MediaId, number])[], nowMs: number): readonly Used[] {
  const groups = new Map<number, MediaId[]>();
  for (const [id, atMs] of batch) {
    const ids = groups.get(atMs);
    if (ids === undefined) groups.set(atMs, [id]);
    else ids.push(id);
  }
  return [...groups].map(([atMs, ids]) => ({ agoMs: Math.max(0, Math.floor(nowMs - atMs)), ids }));
}

function createMeters(metrics: Metrics) {
  return {
    reports: metrics.counter('edge_use_reports_total', 'Reports of served media to the origin.', ['outcome']),
    media: metrics.counter('edge_uses_told_total', 'Media in reports that the origin has accepted.'),
    lost: metrics.counter(
      'edge_uses_lost_total',
      'Served media that were not noted because too many waited to be reported.',
    ),
  };
}
