/** The metrics of the thumbnail engine. */
import type { Metrics } from '../../src/metrics.js';
import type { Attempt, Verdict } from './verdict.js';

export interface ThumbGauges {
  readonly children: number;
  readonly busy: number;
  readonly startFailing: boolean;
  readonly jobs: number;
  readonly waiters: number;
}

export interface ThumbCounters {
  attempt(attempt: Attempt, verdict: Verdict, tookMs: number): void;
  /** `ageMs`: since the job was queued. */
  finished(ageMs: number): void;
}

const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600];

export function countThumbs(metrics: Metrics, read: () => ThumbGauges): ThumbCounters {
  const attempts = metrics.counter('thumbs_attempts_total', 'Attempts at thumbnail jobs, by how they ended.', [
    'end',
    'reason',
  ]);
  const verdicts = metrics.counter('thumbs_verdicts_total', 'What became of thumbnail jobs after an attempt.', [
    'verdict',
  ]);
  const took = metrics.histogram('thumbs_attempt_seconds', 'Time of one attempt.', SECONDS);
  const age = metrics.histogram('thumbs_job_age_seconds', 'Time from queueing a job to its end.', SECONDS);
  const children = metrics.gauge('thumbs_children', 'Child processes that render, by state.', ['state']);
  const startFailing = metrics.gauge(
    'thumbs_children_start_failing',
    'Whether the latest start of a child process failed, so that no thumbnails are made: 1 or 0.',
  );
  const jobs = metrics.gauge('thumbs_jobs_in_hand', 'Thumbnail jobs that are running.');
  const waiters = metrics.gauge('thumbs_waiting_requests', 'Requests that wait for a thumbnail.');
  metrics.onCollect(() => {
    const now = read();
    children.set(now.busy, { state: 'busy' });
    children.set(now.children - Math.min(now.busy, now.children), { state: 'idle' });
    startFailing.set(now.startFailing ? 1 : 0);
    jobs.set(now.jobs);
    waiters.set(now.waiters);
  });
  return {
    attempt(attempt, verdict, tookMs) {
      attempts.add(1, { end: attempt.kind, reason: reasonOf(attempt) });
      verdicts.add(1, { verdict: verdict.kind });
      took.observe(tookMs / 1_000);
    },
    finished: (ageMs) => age.observe(ageMs / 1_000),
  };
}

function reasonOf(attempt: Attempt): string {
  if (attempt.kind === 'refused') return attempt.reason;
  return attempt.kind === 'lost' ? attempt.loss : '';
}
