/** What operators ask about single requests, at an edge of one process or of several. */
import type { ExplainOrder, Explanation } from './explain.js';
import type { LogFilter, LogPage, Top, Watch } from './watch.js';

/** Where a reader of the log is, by the number of each process. */
export type Cursor = Readonly<Record<number, number>>;

/** The log of all processes together, the oldest request first. */
export interface MergedLog extends Pick<LogPage, 'requests' | 'skipped'> {
  readonly after: Cursor;
}

export interface Watching {
  /** One for each process: each has a memory tier of its own. */
  explain(order: ExplainOrder): Promise<readonly Explanation[]>;
  log(after: Cursor, filter: LogFilter): Promise<MergedLog>;
  top(): Promise<Top>;
}

export function watchingOf(watch: Watch, explain: (order: ExplainOrder) => Promise<Explanation>): Watching {
  return {
    explain: async (order) => [await explain(order)],
    log: async (after, filter) => mergeLogs(after, new Map([[1, watch.log(after[1] ?? 0, filter)]])),
    top: async () => watch.top(),
  };
}

/** `pages`: by the number of each process that has answered. */
export function mergeLogs(after: Cursor, pages: ReadonlyMap<number, LogPage>): MergedLog {
  const all = [...pages.values()];
  return {
    requests: all.flatMap(({ requests }) => requests).sort((one, other) => (one.time < other.time ? -1 : 1)),
    skipped: all.reduce((sum, { skipped }) => sum + skipped, 0),
    after: { ...after, ...Object.fromEntries([...pages].map(([number, { last }]) => [number, last])) },
  };
}
