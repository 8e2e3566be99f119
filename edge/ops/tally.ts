/** Counts requests by outcome as they end, with the bytes sent for them. */
import { OUTCOMES, type Outcome } from '../request.js';

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
      const count = counts[outcome];
      count.requests += 1;
      count.bytes += sentBytes;
    },
  };
}
