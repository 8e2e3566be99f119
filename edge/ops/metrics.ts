/**
 * The edge's figures for Prometheus, read when it collects them. Counters of
 * single events stand in the files where these events happen.
 */
import type { CounterOf, Metrics } from '../../src/metrics.js';
import { OUTCOMES } from '../request.js';
import type { StatsSources } from './stats.js';

export function registerFigures(metrics: Metrics, sources: StatsSources): void {
  const { tally } = sources;
  const requests = following(
    metrics.counter('edge_requests_total', 'Requests that ended, by outcome.', ['outcome']),
    'outcome',
  );
  const sent = following(
    metrics.counter('edge_sent_bytes_total', 'Bytes sent to clients, by outcome of the request.', ['outcome']),
    'outcome',
  );
  const evictions = following(
    metrics.counter('edge_cache_evictions_total', 'Responses dropped to make room.', ['tier']),
    'tier',
  );
  const entries = metrics.gauge('edge_cache_entries', 'Stored responses.', ['tier']);
  const used = metrics.gauge('edge_cache_used_bytes', 'Bytes that stored responses take.', ['tier']);
  const capacity = metrics.gauge('edge_cache_capacity_bytes', 'Bytes that stored responses may take.', ['tier']);
  const filling = metrics.gauge('edge_cache_filling', 'Responses that are arriving from the origin.');
  const breaker = metrics.gauge(
    'edge_upstream_breaker_open',
    '1 while the circuit breaker is not closed, else 0.',
    [],
    'max',
  );
  const inFlight = metrics.gauge('edge_upstream_in_flight', 'Requests under way to the origin.');

  metrics.onCollect(() => {
    for (const outcome of OUTCOMES) {
      requests(outcome, tally.counts[outcome].requests);
      sent(outcome, tally.counts[outcome].bytes);
    }
    const cache = sources.cache();
    for (const tier of ['memory', 'disk'] as const) {
      const stats = cache[tier];
      entries.set(stats.entries, { tier });
      used.set(stats.usedBytes, { tier });
      capacity.set(stats.capacityBytes, { tier });
      evictions(tier, stats.evictions);
    }
    filling.set(cache.fills);
    const upstream = sources.upstream();
    breaker.set(upstream.breaker === 'closed' ? 0 : 1);
    inFlight.set(upstream.inFlight);
  });
}

/** Raises a counter to a total that is kept elsewhere. */
function following<L extends string>(counter: CounterOf<L>, label: L): (value: string, total: number) => void {
  const counted = new Map<string, number>();
  return (value, total) => {
    counter.add(total - (counted.get(value) ?? 0), { [label]: value } as Partial<Record<L, string>>);
    counted.set(value, total);
  };
}
