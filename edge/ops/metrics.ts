/** Figures of the edge as a whole for Prometheus, read when it collects them. */
import type { Metrics } from '../../src/metrics.js';
import type { StatsSources } from './stats.js';

export function registerFigures(metrics: Metrics, sources: Pick<StatsSources, 'upstream' | 'lease'>): void {
  const breaker = metrics.gauge(
    'edge_upstream_breaker_open',
    '1 while the circuit breaker is not closed, else 0.',
    [],
    'max',
  );
  const inFlight = metrics.gauge('edge_upstream_in_flight', 'Requests under way to the origin.');
  const lag = metrics.gauge(
    'edge_journal_lag_seconds',
    'Time since the edge was last known to be current with the journal. Absent before it was.',
    [],
    'max',
  );
  metrics.onCollect(() => {
    const upstream = sources.upstream();
    breaker.set(upstream.breaker === 'closed' ? 0 : 1);
    inFlight.set(upstream.inFlight);
    const state = sources.lease()?.state;
    if (state !== undefined && state.kind !== 'new') lag.set(state.currentMsAgo / 1_000);
  });
}
