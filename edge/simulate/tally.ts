/** What a replay counts, and the ratios of it. The ratios are those of the live edge (`hitRatios` in edge/ops/stats.ts). */
import type { TierName } from '../cache/cache.js';
import { hitRatios, type Ratio } from '../ops/stats.js';
import { createTally } from '../ops/tally.js';
import type { Outcome } from '../request.js';
import type { TracedResponse } from '../trace/format.js';

export const CONTENT_KINDS = ['image', 'video', 'audio', 'thumbnail', 'file'] as const;
export type ContentKind = (typeof CONTENT_KINDS)[number];

export function kindOfFacts({ path, type }: Pick<TracedResponse, 'path' | 'type'>): number {
  if (path === 'thumb') return CONTENT_KINDS.indexOf('thumbnail');
  const found = CONTENT_KINDS.findIndex((kind) => type.startsWith(`${kind}/`));
  return found < 0 ? CONTENT_KINDS.indexOf('file') : found;
}

export interface KindFigures {
  readonly requests: number;
  readonly hits: number;
  readonly bytes: number;
  readonly hitBytes: number;
}

const HIT_OUTCOME = { memory: 'hit_memory', disk: 'hit_disk', stale: 'stale' } as const;

export class Tally {
  readonly #simulated = createTally();
  readonly #recorded = createTally();
  readonly #kinds = CONTENT_KINDS.map(() => ({ requests: 0, hits: 0, bytes: 0, hitBytes: 0 }));
  evictions: Readonly<Record<TierName, number>> = { memory: 0, disk: 0 };
  diskWrites = 0;
  diskWrittenBytes = 0;
  originRequests = 0;
  originBytes = 0;

  hit(where: TierName | 'stale', kind: number, bytes: number): void {
    this.#simulated.count(HIT_OUTCOME[where], bytes);
    this.#count(kind, bytes, true, true);
  }

  /** Of its body, the cache had all. */
  revalidated(kind: number, bytes: number): void {
    this.#simulated.count('revalidated', bytes);
    this.#count(kind, bytes, false, true);
  }

  missed(kind: number, bytes: number): void {
    this.#simulated.count('miss', bytes);
    this.#count(kind, bytes, false, false);
  }

  /** What the edge itself did with the request when it was recorded. */
  recorded(outcome: Outcome, bytes: number): void {
    this.#recorded.count(outcome, bytes);
  }

  fetched(bytes: number): void {
    this.originRequests += 1;
    this.originBytes += bytes;
  }

  wrote(bytes: number): void {
    this.diskWrites += 1;
    this.diskWrittenBytes += bytes;
  }

  get ratios(): { readonly requests: Ratio; readonly bytes: Ratio } {
    return hitRatios(this.#simulated.counts);
  }

  get recordedRatios(): { readonly requests: Ratio; readonly bytes: Ratio } {
    return hitRatios(this.#recorded.counts);
  }

  /** The share of requests, or of their bytes, that ended so. */
  share(outcomes: readonly Outcome[], unit: 'requests' | 'bytes', of: 'simulated' | 'recorded'): Ratio {
    const { counts } = of === 'simulated' ? this.#simulated : this.#recorded;
    const all = Object.values(counts).reduce((sum, each) => sum + each[unit], 0);
    const part = outcomes.reduce((sum, outcome) => sum + counts[outcome][unit], 0);
    return all === 0 ? null : part / all;
  }

  get requests(): number {
    return this.#kinds.reduce((sum, { requests }) => sum + requests, 0);
  }

  get requestedBytes(): number {
    return this.#kinds.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  kind(name: ContentKind): KindFigures {
    return this.#kinds[CONTENT_KINDS.indexOf(name)] ?? { requests: 0, hits: 0, bytes: 0, hitBytes: 0 };
  }

  #count(kind: number, bytes: number, hit: boolean, hitBytes: boolean): void {
    const figures = this.#kinds[kind];
    if (figures === undefined) return;
    figures.requests += 1;
    figures.bytes += bytes;
    if (hit) figures.hits += 1;
    if (hitBytes) figures.hitBytes += bytes;
  }
}
