/**
 * The takedown journal as origin and edges exchange it, line by line.
 *
 * `GET /internal/v1/journal?from=N&mark=M&journal=NAME` (edge secret) answers
 * newline-delimited JSON without an end: every entry with a number greater than
 * N, then new ones as they are committed, with heartbeats in between. M is the
 * random mark of entry N. Where the origin's entry N has another mark, its
 * metadata were set back to an earlier state, and it answers with a gap. With `POST
 * /internal/v1/journal/confirm` an edge confirms the entries that it applied
 * (confirmation.ts). An edge answers both to the edges behind it.
 */
import type { EpochMs } from '../clock.js';
import { type MediaId, parseMediaId } from '../ids.js';

export const JOURNAL_PATH = '/internal/v1/journal';
export const CONFIRM_PATH = '/internal/v1/journal/confirm';

/** `restore` and `visibility` make cached copies wrong, not forbidden. They are dropped as well. */
export const JOURNAL_CAUSES = ['delete', 'quarantine', 'restore', 'expire', 'visibility'] as const;
export type JournalCause = (typeof JOURNAL_CAUSES)[number];

/**
 * A random name of one entry. The same number may be given out twice, when metadata are set back to an
 * earlier state; the same mark is not.
 */
export type Mark = string;
/** The mark of number 0, where every journal begins. */
export const FIRST_MARK: Mark = '';

/** How far a journal was applied. */
export interface JournalPosition {
  /** The name of the journal; `seq` is a number in it. */
  readonly journal: string;
  /** The newest number applied. */
  readonly seq: number;
  /** The mark of that entry; null where it is not known. */
  readonly mark: Mark | null;
}

export interface JournalEntry {
  /** Starts at 1, no gaps. */
  readonly seq: number;
  /** Null only from an origin that has no marks yet. */
  readonly mark: Mark | null;
  readonly at: EpochMs;
  readonly cause: JournalCause;
  /** The ids concerned: one for a delete, all ids of the blob for a quarantine. */
  readonly ids: readonly MediaId[];
}

/** `mark` is that of the entry `newest`. An origin that has no marks sends none, which is read as null. */
export type JournalLine =
  /**
   * First line: which journal it is, which entries it still has, the interval of
   * heartbeats, how often to report uses (without it, no reports are wanted) and to confirm.
   */
  | {
      readonly t: 'hello';
      readonly journal: string;
      readonly oldest: number;
      readonly newest: number;
      readonly mark: Mark | null;
      readonly beatMs: number;
      readonly usesEveryMs?: number;
      /** How often to confirm where nothing has changed. Without it, with every beat. */
      readonly confirmEveryMs?: number;
    }
  | ({ readonly t: 'entry' } & JournalEntry)
  /**
   * `ageMs` before this line was sent, at `at`, nothing was newer than `newest`. An origin, which is always
   * current, need not say it.
   */
  | {
      readonly t: 'beat';
      readonly newest: number;
      readonly mark: Mark | null;
      readonly at: EpochMs;
      readonly ageMs: number;
    }
  /**
   * The journal no longer has the entries after `from`, or is another one, or has another history: drop
   * everything and continue after `newest`.
   */
  | { readonly t: 'gap'; readonly newest: number; readonly mark: Mark | null };

const MARK_MAX_CHARS = 64;

export function formatLine(line: JournalLine): string {
  return `${JSON.stringify(line)}\n`;
}

/** Undefined for anything that is not a line of this protocol: the reader then connects again and does not guess. */
export function parseLine(text: string): JournalLine | undefined {
  const value = parseObject(text);
  const mark = value?.['mark'] ?? null;
  if (mark !== null && !isMark(mark)) return undefined;
  switch (value?.['t']) {
    case 'hello': {
      const { journal, oldest, newest, beatMs, usesEveryMs, confirmEveryMs } = value;
      if (typeof journal !== 'string' || !isSeq(oldest) || !isSeq(newest) || !isSeq(beatMs)) return undefined;
      if (usesEveryMs !== undefined && (!isSeq(usesEveryMs) || usesEveryMs === 0)) return undefined;
      if (confirmEveryMs !== undefined && !isSeq(confirmEveryMs)) return undefined;
      const intervals = {
        ...(usesEveryMs !== undefined && { usesEveryMs }),
        ...(confirmEveryMs !== undefined && { confirmEveryMs }),
      };
      return { t: 'hello', journal, oldest, newest, mark, beatMs, ...intervals };
    }
    case 'entry': {
      const { seq, at, cause, ids } = value;
      if (!isSeq(seq) || !isSeq(at) || !isCause(cause) || !Array.isArray(ids)) return undefined;
      const parsed = ids.map((id) => (typeof id === 'string' ? parseMediaId(id) : undefined));
      if (!parsed.every((id) => id !== undefined)) return undefined;
      return { t: 'entry', seq, mark, at, cause, ids: parsed };
    }
    case 'beat': {
      const { newest, at, ageMs = 0 } = value;
      return isSeq(newest) && isSeq(at) && isSeq(ageMs) ? { t: 'beat', newest, mark, at, ageMs } : undefined;
    }
    case 'gap': {
      const { newest } = value;
      return isSeq(newest) ? { t: 'gap', newest, mark } : undefined;
    }
    default:
      return undefined;
  }
}

export function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

export function isSeq(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

export function isMark(value: unknown): value is Mark {
  return typeof value === 'string' && value.length <= MARK_MAX_CHARS;
}

function isCause(value: unknown): value is JournalCause {
  return JOURNAL_CAUSES.some((cause) => cause === value);
}
