/**
 * The takedown journal as origin and edges exchange it, line by line.
 *
 * `GET /internal/v1/journal?from=N` (edge secret) answers newline-delimited
 * JSON without an end: every entry with a number greater than N, then new ones
 * as they are committed, with heartbeats in between. With `POST
 * /internal/v1/journal/confirm` an edge confirms the entries that it applied.
 */
import type { EpochMs } from '../clock.js';
import { type MediaId, parseMediaId } from '../ids.js';

export const JOURNAL_PATH = '/internal/v1/journal';
export const CONFIRM_PATH = '/internal/v1/journal/confirm';

/** `restore` and `visibility` make cached copies wrong, not forbidden. They are dropped as well. */
export const JOURNAL_CAUSES = ['delete', 'quarantine', 'restore', 'expire', 'visibility'] as const;
export type JournalCause = (typeof JOURNAL_CAUSES)[number];

export interface JournalEntry {
  /** Starts at 1, no gaps. */
  readonly seq: number;
  readonly at: EpochMs;
  readonly cause: JournalCause;
  /** The ids concerned: one for a delete, all ids of the blob for a quarantine. */
  readonly ids: readonly MediaId[];
}

export type JournalLine =
  /**
   * First line: which journal it is, which entries it still has, the interval of
   * heartbeats, and how often to report uses (without it, no reports are wanted).
   */
  | {
      readonly t: 'hello';
      readonly journal: string;
      readonly oldest: number;
      readonly newest: number;
      readonly beatMs: number;
      readonly usesEveryMs?: number;
    }
  | ({ readonly t: 'entry' } & JournalEntry)
  | { readonly t: 'beat'; readonly newest: number; readonly at: EpochMs }
  /** The journal no longer has the entries after `from`, or is another one: drop everything and continue after `newest`. */
  | { readonly t: 'gap'; readonly newest: number };

export interface Confirmation {
  readonly edge: string;
  /** A random id for each start of the edge, so that two edges with one name are noticed. */
  readonly instance: string;
  readonly seq: number;
}

export function formatLine(line: JournalLine): string {
  return `${JSON.stringify(line)}\n`;
}

/** Undefined for anything that is not a line of this protocol: the reader then connects again and does not guess. */
export function parseLine(text: string): JournalLine | undefined {
  const value = parseObject(text);
  switch (value?.['t']) {
    case 'hello': {
      const { journal, oldest, newest, beatMs, usesEveryMs } = value;
      if (typeof journal !== 'string' || !isSeq(oldest) || !isSeq(newest) || !isSeq(beatMs)) return undefined;
      if (usesEveryMs !== undefined && (!isSeq(usesEveryMs) || usesEveryMs === 0)) return undefined;
      return { t: 'hello', journal, oldest, newest, beatMs, ...(usesEveryMs !== undefined && { usesEveryMs }) };
    }
    case 'entry': {
      const { seq, at, cause, ids } = value;
      if (!isSeq(seq) || !isSeq(at) || !isCause(cause) || !Array.isArray(ids)) return undefined;
      const parsed = ids.map((id) => (typeof id === 'string' ? parseMediaId(id) : undefined));
      if (!parsed.every((id) => id !== undefined)) return undefined;
      return { t: 'entry', seq, at, cause, ids: parsed };
    }
    case 'beat': {
      const { newest, at } = value;
      return isSeq(newest) && isSeq(at) ? { t: 'beat', newest, at } : undefined;
    }
    case 'gap': {
      const { newest } = value;
      return isSeq(newest) ? { t: 'gap', newest } : undefined;
    }
    default:
      return undefined;
  }
}

export function parseConfirmation(text: string): Confirmation | undefined {
  const value = parseObject(text);
  if (value === undefined) return undefined;
  const { edge, instance, seq } = value;
  if (typeof edge !== 'string' || edge === '' || edge.length > 128) return undefined;
  if (typeof instance !== 'string' || instance === '' || instance.length > 64 || !isSeq(seq)) return undefined;
  return { edge, instance, seq };
}

function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function isSeq(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isCause(value: unknown): value is JournalCause {
  return JOURNAL_CAUSES.some((cause) => cause === value);
}
