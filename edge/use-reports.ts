/**
 * Reports to the origin which media were served from copies held here, for its
 * retention by `unused_for`; what the origin was asked about it notes itself.
 * Only where the origin wants it, as the journal's greeting says.
 *
 * Promises: noting a hit is one look into a set; memory is bounded; what could
 * not be told stays and is told later, by how long ago it was; each media once
 * per report, however often it was served. Loses what a killed edge had not yet
 * told, and what is beyond the bound while the origin is away: the next hit
 * tells of the same media anew.
 */

import type { Clock, Timer } from '../src/clock.js';
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
  'Reports to the origin of the media that were served from copies; only where its retention asks for them.',
  {
    mediaMax: integer({
      default: 200_000,
      min: 1_000,
      max: 10_000_000,
      help: 'Media that wait to be reported, at most; with so many, a report is sent early.',
    }),
    answerWithinMs: duration({ default: '5s', min: 100, max: 60_000, help: 'How long the origin may take for one.' }),
  },
);

export type UseReportsConfig = ValueOf<typeof useReportsSection>;

export interface UseReports {
  /** An answer goes out. */
  note(answer: Extract<Answer, { kind: 'reply' }>): void;
  /** How often the origin wants reports; undefined: not at all. */
  want(everyMs: number | undefined): void;
  /** Tells what is left, in one try. */
  close(): Promise<void>;
}

export interface UseReportsDeps {
  readonly config: UseReportsConfig;
  readonly upstream: Pick<Upstream, 'fetchOwn'>;
  /** Value of the request header `edge-authorization`, as it is now. */
  readonly proof: () => string;
  readonly clock: Clock;
  /** Between 0 and 1, so that edges do not all report at once. */
  random(): number;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** Of a generic cache, which has no media. */
export const NO_USE_REPORTS: Pick<UseReports, 'note'> = { note: () => undefined };

/** The origin did not see these. */
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
  /** Served since the last report began. */
  let fresh = new Set<MediaId>();
  /** Not told yet, with the latest instant at which each may have been served. */
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
        log.warn({ media: unreported.size }, 'the origin could not be told what was served; it is told later');
        return;
      }
      for (const [id] of batch) unreported.delete(id);
      meters.media.add(batch.length);
    }
  }

  /** One at a time. */
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
    // Never later than asked for.
    timer = clock.after(everyMs * (0.75 + deps.random() / 4), () => void report());
  }

  return {
    note({ reply, outcome, mediaId }) {
      if (everyMs === undefined || mediaId === null || !UNSEEN_BY_ORIGIN[outcome] || reply.status >= 400) return;
      if (fresh.size + unreported.size < config.mediaMax) fresh.add(mediaId);
      else if (!fresh.has(mediaId)) meters.lost.add();
      // Half the room is for what comes while it is told.
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

/** Whether the origin has written it down. */
async function post(
  { config, upstream, proof, clock }: UseReportsDeps,
  batch: readonly (readonly [MediaId, number])[],
  closing: AbortSignal,
): Promise<boolean> {
  const attempt = new AbortController();
  const give = (): void => attempt.abort(new Error('the report took too long'));
  const timer = clock.after(config.answerWithinMs, give);
  closing.addEventListener('abort', give, { once: true });
  const headers: HeaderList = [
    ['content-type', 'application/json'],
    [EDGE_PROOF, proof()],
  ];
  const body = Buffer.from(formatUseReport({ uses: byAge(batch, clock.monotonicMs()) }));
  try {
    const answer = await upstream.fetchOwn({ method: 'POST', target: USES_PATH, headers, body }, attempt.signal);
    answer.body.on('error', () => {}).resume();
    return answer.status < 300;
  } catch {
    return false;
  } finally {
    timer.cancel();
    closing.removeEventListener('abort', give);
  }
}

/** Sealed together, so there are few instants. */
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
    media: metrics.counter('edge_uses_told_total', 'Media in reports that the origin has taken.'),
    lost: metrics.counter('edge_uses_lost_total', 'Served media that could not be noted, for too many waited.'),
  };
}
