/** What the engine counts, each reason from a closed list. */
import type { CounterOf, Metrics } from '../../src/metrics.js';

export interface EngineCounters {
  readonly fills: CounterOf<'outcome'>;
  readonly notStored: CounterOf<'reason'>;
  readonly revalidated: CounterOf<'outcome'>;
  readonly shared: CounterOf<'kind'>;
  readonly refusals: CounterOf<'reason'>;
}

export function createCounters(metrics: Metrics): EngineCounters {
  return {
    fills: metrics.counter('edge_fills_total', 'Bodies fetched from the origin to be kept.', ['outcome']),
    notStored: metrics.counter('edge_not_stored_total', 'Answers that may not be kept.', ['reason']),
    revalidated: metrics.counter('edge_revalidations_total', 'Stored copies that the origin was asked about.', [
      'outcome',
    ]),
    shared: metrics.counter('edge_shared_requests_total', 'Callers who got an answer that another had asked for.', [
      'kind',
    ]),
    refusals: metrics.counter('edge_refusals_total', 'Requests that the edge itself refused.', ['reason']),
  };
}
