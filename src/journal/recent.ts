/** The newest takedowns and which edges have applied them, for operators. Pure but for reading the journal. */
import type { EdgePosition } from './confirmations.js';
import type { JournalEntry } from './entry.js';
import type { JournalSource } from './source.js';

export interface RecentTakedown {
  readonly seq: number;
  readonly at: string;
  readonly cause: JournalEntry['cause'];
  /** The first of them. */
  readonly ids: readonly string[];
  readonly media: number;
  readonly confirmed: readonly string[];
  /** The edges that have not confirmed it. */
  readonly missing: readonly { readonly edge: string; readonly connected: boolean }[];
}

const ENTRIES_MAX = 20;
const IDS_MAX = 5;

/** The newest first. `edges`: those that follow this journal, and those that have left as far as they are remembered. */
export async function recentTakedowns(
  journal: Pick<JournalSource, 'newest' | 'read'>,
  edges: readonly EdgePosition[],
): Promise<readonly RecentTakedown[]> {
  const entries = await journal.read(Math.max(0, journal.newest() - ENTRIES_MAX), ENTRIES_MAX);
  return entries.toReversed().map(({ seq, at, cause, ids }) => ({
    seq,
    at: new Date(at).toISOString(),
    cause,
    ids: ids.slice(0, IDS_MAX),
    media: ids.length,
    confirmed: edges.filter(({ confirmed }) => confirmed >= seq).map(({ edge }) => edge),
    missing: edges.filter(({ confirmed }) => confirmed < seq).map(({ edge, connected }) => ({ edge, connected })),
  }));
}
