/** What `/stats` and `/events` say. */
import type { History } from '../../../src/live/history.js';

export interface Tier {
  readonly entries: number;
  readonly used_bytes: number;
  readonly capacity_bytes: number;
  readonly evictions: number;
  readonly refused: number;
}

export interface Origin {
  readonly url: string;
  readonly state: 'up' | 'unready' | 'down';
  readonly followed: boolean;
}

export interface Figures {
  readonly edge: string;
  readonly now: string;
  readonly started_at: string;
  readonly requests: {
    readonly hit_ratio: number | null;
    readonly byte_hit_ratio: number | null;
    readonly passing: number;
    readonly outcomes: Readonly<Record<string, { readonly requests: number; readonly bytes: number }>>;
    readonly first_byte_ms: Readonly<Record<string, { readonly p50: number | null; readonly p95: number | null }>>;
  };
  readonly cache: {
    readonly memory: Tier;
    readonly disk: Tier;
    readonly filling: number;
    readonly corrupt: number;
  };
  readonly journal: {
    readonly link: string;
    readonly applied: number | null;
    readonly newest: number | null;
    readonly purges: number;
  } | null;
  readonly lease: {
    readonly state: string;
    readonly may_serve: string;
    readonly current_ms_ago: number | null;
  } | null;
  readonly upstream: {
    readonly breaker: 'closed' | 'half_open' | 'open';
    readonly in_flight: number;
    readonly requests: number;
    readonly failures: number;
    readonly origins: readonly Origin[];
  };
  readonly policy: { readonly read_at: string; readonly faults: readonly string[] };
  readonly history: History;
}
