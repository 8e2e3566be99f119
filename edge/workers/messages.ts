/** What the parent of an edge's workers and a worker say to each other over node's channel between processes. */
import type { RecentTakedown } from '../../src/journal/recent.js';
import type { MetricsSnapshot } from '../../src/metrics.js';
import type { ReloadOutcome } from '../../src/reload.js';
import type { ExplainOrder, Explanation } from '../ops/explain.js';
import type { PurgeOrder } from '../ops/purge.js';
import type { StatsSources } from '../ops/stats.js';
import type { FirstByte } from '../ops/traffic.js';
import type { LogFilter, LogPage, Top } from '../ops/watch.js';
import type { Cursor } from '../ops/watching.js';
import type { UnsafeAnswer } from '../pass/config.js';

/** The figures of one worker at one instant. */
export interface WorkerFigures {
  readonly counts: StatsSources['tally']['counts'];
  readonly cache: ReturnType<StatsSources['cache']>;
  readonly journal: ReturnType<StatsSources['journal']>;
  readonly lease: ReturnType<StatsSources['lease']>;
  readonly upstream: ReturnType<StatsSources['upstream']>;
  readonly passing: number;
  readonly policy: ReturnType<StatsSources['policy']>;
  readonly firstByte: FirstByte;
}

/** What the parent asks, and what each question is answered with. */
export interface Answers {
  readonly figures: WorkerFigures;
  readonly metrics: MetricsSnapshot;
  /** The number of stored responses that were dropped. */
  readonly purge: number;
  /** Undefined: it is prepared. */
  readonly reload: ReloadOutcome | undefined;
  readonly invalidate: undefined;
  readonly explain: Explanation;
  readonly log: LogPage;
  readonly top: Top;
  readonly takedowns: readonly RecentTakedown[] | null;
}

export type Question =
  | { readonly kind: 'figures' }
  | { readonly kind: 'metrics' }
  | { readonly kind: 'purge'; readonly order: PurgeOrder }
  /** In two steps, so that all workers apply a changed configuration, or none does. */
  | { readonly kind: 'reload'; readonly step: 'prepare' | 'commit' }
  | { readonly kind: 'invalidate'; readonly answer: UnsafeAnswer }
  | { readonly kind: 'explain'; readonly order: ExplainOrder }
  /** `after`: by the numbers of the workers. */
  | { readonly kind: 'log'; readonly after: Cursor; readonly filter: LogFilter }
  | { readonly kind: 'top' }
  | { readonly kind: 'takedowns' };

export type ToWorker =
  | { readonly kind: 'question'; readonly id: number; readonly question: Question }
  /** All other workers have done what `tell` asked for, or are late. */
  | { readonly kind: 'told'; readonly id: number };

export type ToParent =
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'failed'; readonly id: number }
  /** A change passed through this worker: the others have to invalidate too. */
  | { readonly kind: 'tell'; readonly id: number; readonly answer: UnsafeAnswer };
