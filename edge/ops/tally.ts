/** How requests end at the edge, counted. */
import { OUTCOMES, type Outcome } from '../request.js';

/** Counts requests as they end; made once, called by the engine. */
export interface Tally {
  count(outcome: Outcome, sentBytes: number): void;
  readonly counts: Readonly<Record<Outcome, { readonly requests: number; readonly bytes: number }>>;
}

export function createTally(): Tally {
  const entries = OUTCOMES.map((outcome) => [outcome, { requests: 0, bytes: 0 }] as const);
  const counts = Object.fromEntries(entries) as Record<Outcome, { requests: number; bytes: number }>;
  return {
    counts,
    count(outcome, sentBytes) {
      const held = counts[outcome];
      held.requests += 1;
      held.bytes += sentBytes;
    },
  };
}
