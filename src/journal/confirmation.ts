/**
 * How an edge confirms the journal entries that it has applied: the body of a
 * `POST` to CONFIRM_PATH. An edge with edges behind it says for these too how far
 * they are, as counts, so that the origin counts every edge of a row.
 */
import { isSeq, parseObject } from './entry.js';

export interface Confirmation {
  readonly edge: string;
  /** A random id for each start of the edge, so that two edges with one name are noticed. */
  readonly instance: string;
  readonly seq: number;
  readonly behind: EdgesBehind;
  /** The edge stops, and nothing is behind it: it need not be counted any more. */
  readonly leaves: boolean;
}

/** The edges that follow the journal through this one, and through those. */
export interface EdgesBehind {
  readonly connected: readonly EdgeCount[];
  /** Those that were connected lately. They may still be serving. */
  readonly away: readonly EdgeCount[];
}

/** So many edges have confirmed everything up to this number, and nothing after it. */
export interface EdgeCount {
  readonly seq: number;
  readonly edges: number;
}

export const NOBODY_BEHIND: EdgesBehind = { connected: [], away: [] };

/** Counts of one confirmation in each list. Edges that follow well share one number, so there are few. */
const COUNTS_MAX = 32;
export const CONFIRMATION_MAX_BYTES = 4_096;

export function formatConfirmation({ edge, instance, seq, behind, leaves }: Confirmation): string {
  const counts = (list: readonly EdgeCount[]) => summed(list).map(({ seq, edges }) => [seq, edges]);
  const { connected, away } = behind;
  return JSON.stringify({
    edge,
    instance,
    seq,
    ...(connected.length + away.length > 0 && { behind: { connected: counts(connected), away: counts(away) } }),
    ...(leaves && { leaves }),
  });
}

export function parseConfirmation(text: string): Confirmation | undefined {
  const value = parseObject(text);
  if (value === undefined) return undefined;
  const { edge, instance, seq, leaves = false } = value;
  if (typeof edge !== 'string' || edge === '' || edge.length > 128) return undefined;
  if (typeof instance !== 'string' || instance === '' || instance.length > 64 || !isSeq(seq)) return undefined;
  const behind = readBehind(value['behind']);
  if (behind === undefined || typeof leaves !== 'boolean') return undefined;
  return { edge, instance, seq, behind, leaves };
}

function readBehind(value: unknown): EdgesBehind | undefined {
  if (value === undefined) return NOBODY_BEHIND;
  if (typeof value !== 'object' || value === null) return undefined;
  const { connected, away } = value as Readonly<Record<string, unknown>>;
  const read = { connected: readCounts(connected), away: readCounts(away) };
  return read.connected === undefined || read.away === undefined
    ? undefined
    : { connected: read.connected, away: read.away };
}

function readCounts(value: unknown): readonly EdgeCount[] | undefined {
  if (!Array.isArray(value) || value.length > COUNTS_MAX) return undefined;
  const counts = value.map((each: unknown): EdgeCount | undefined => {
    if (!Array.isArray(each) || each.length !== 2) return undefined;
    const [seq, edges] = each as unknown[];
    return isSeq(seq) && isSeq(edges) ? { seq, edges } : undefined;
  });
  return counts.every((each) => each !== undefined) ? counts : undefined;
}

/** One count for each number, newest first. Beyond COUNTS_MAX, the lowest numbers become the lowest of them. */
export function summed(counts: readonly EdgeCount[]): readonly EdgeCount[] {
  const bySeq = new Map<number, number>();
  for (const { seq, edges } of counts) bySeq.set(seq, (bySeq.get(seq) ?? 0) + edges);
  const sorted = [...bySeq].map(([seq, edges]) => ({ seq, edges })).sort((a, b) => b.seq - a.seq);
  const lowest = sorted.at(-1);
  if (sorted.length <= COUNTS_MAX || lowest === undefined) return sorted;
  const kept = sorted.slice(0, COUNTS_MAX - 1);
  return [...kept, { seq: lowest.seq, edges: edgesIn(sorted.slice(COUNTS_MAX - 1)) }];
}

/** How many edges there are; with `seq`, how many of them have confirmed it. */
export function edgesIn(counts: readonly EdgeCount[], seq = 0): number {
  return counts.reduce((sum, count) => (count.seq >= seq ? sum + count.edges : sum), 0);
}
