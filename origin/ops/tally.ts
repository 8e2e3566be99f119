/** What this process has counted since its start, for the live page: uploads, and what was refused. */
import type { CounterOf } from '../../src/metrics.js';
import type { RequestCounts } from '../server/server.js';
import type { UploadCounts } from '../upload.js';

export interface Refused {
  readonly code: string;
  /** Of uploads. */
  readonly uploads: number;
  readonly others: number;
}

export interface Counted {
  readonly stored: number;
  readonly duplicates: number;
  /** Of what was stored and of duplicates. */
  readonly bytes: number;
  readonly refused: number;
}

export interface OriginTally {
  counted(): Counted;
  /** The most frequent first. */
  refusals(): readonly Refused[];
  /** The same counters, which are counted here as well. */
  uploads(counts: UploadCounts): UploadCounts;
  requests(counts: RequestCounts): RequestCounts;
}

export function createOriginTally(): OriginTally {
  const totals = { stored: 0, duplicates: 0, bytes: 0, refused: 0 };
  const codes = new Map<string, { uploads: number; others: number }>();
  return {
    counted: () => ({ ...totals }),
    refusals: () =>
      [...codes]
        .map(([code, { uploads, others }]) => ({ code, uploads, others }))
        .sort((one, other) => other.uploads + other.others - (one.uploads + one.others)),
    uploads: (counts) => ({
      ...counts,
      uploads: heard(counts.uploads, (amount, { outcome }) => {
        totals[outcome === 'duplicate' ? 'duplicates' : 'stored'] += amount;
      }),
      bytes: heard(counts.bytes, (amount) => {
        totals.bytes += amount;
      }),
    }),
    requests: (counts) => ({
      ...counts,
      refusals: heard(counts.refusals, (amount, { route = '', code = '' }) => {
        totals.refused += amount;
        const known = codes.get(code) ?? { uploads: 0, others: 0 };
        known[isOfUploads(route) ? 'uploads' : 'others'] += amount;
        codes.set(code, known);
      }),
    }),
  };
}

function isOfUploads(route: string): boolean {
  return route === '/v1/media' || route.startsWith('/v1/uploads');
}

function heard<L extends string>(
  counter: CounterOf<L>,
  hear: (amount: number, labels: Partial<Record<L, string>>) => void,
): CounterOf<L> {
  return {
    add(amount = 1, labels = {}) {
      hear(amount, labels);
      counter.add(amount, labels);
    },
  };
}
