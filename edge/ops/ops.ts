/**
 * The operators' listener of the edge, on an address of its own: metrics,
 * figures, a live page, purging and reloading.
 */
import type { Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { PurgeHooks } from '../purge.js';
import type { StatsSources } from './stats.js';

/** What a reload came to. */
export type ReloadOutcome =
  | { readonly kind: 'applied'; readonly changed: boolean }
  | { readonly kind: 'refused'; readonly faults: readonly string[] };

export interface OpsOptions {
  readonly host: string;
  readonly port: number;
  readonly sources: StatsSources;
  readonly purge: PurgeHooks;
  reload(): Promise<ReloadOutcome>;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface Ops {
  readonly url: string;
  close(deadlineMs: number): Promise<void>;
}

export async function openOps(options: OpsOptions): Promise<Ops> {
  throw new Error(`not written yet: ${options.port}`);
}
