/** The counters of the handler and its fetches. Each label has a closed list of values. */
import type { CounterOf, Metrics } from '../../src/metrics.js';

export interface EngineCounters {
  readonly fills: CounterOf<'outcome'>;
  readonly stored: CounterOf<'tier'>;
  readonly notStored: CounterOf<'reason'>;
  readonly revalidated: CounterOf<'outcome'>;
  readonly shared: CounterOf<'kind'>;
  readonly refusals: CounterOf<'reason'>;
}

export function createCounters(metrics: Metrics): EngineCounters {
  return {
    fills: metrics.counter('edge_fills_total', 'Bodies fetched from the origin to be stored, by outcome.', ['outcome']),
    stored: metrics.counter('edge_stored_total', 'Bodies that a tier has admitted and stored.', ['tier']),
    notStored: metrics.counter(
      'edge_not_stored_total',
      'Responses that were not stored, by the rule that forbids it or the limit that they met.',
      ['reason'],
    ),
    revalidated: metrics.counter(
      'edge_revalidations_total',
      'Stored responses that the origin was asked about, by outcome.',
      ['outcome'],
    ),
    shared: metrics.counter('edge_shared_requests_total', 'Requests that shared the fetch of another.', ['kind']),
    refusals: metrics.counter('edge_refusals_total', 'Requests that the edge itself refused, by reason.', ['reason']),
  };
}
