/**
 * How far the takedown journal was applied to what the disk index holds, as a row of the index itself. A
 * cache folder that was away for a while, or was put back from a copy, brings its own position with it.
 */
import { isMark, type JournalPosition } from '../../../src/journal/entry.js';

const VERSION = 1;

/** What a row says. Undefined if it is not readable. */
export function readApplied(row: unknown): JournalPosition | undefined {
  if (typeof row !== 'object' || row === null) return undefined;
  const { v, journal, seq, mark } = row as Readonly<Record<string, unknown>>;
  if (v !== VERSION || typeof journal !== 'string') return undefined;
  if (typeof seq !== 'number' || !Number.isSafeInteger(seq) || seq < 0) return undefined;
  return mark === null || isMark(mark) ? { journal, seq, mark } : undefined;
}

export function appliedRow({ journal, seq, mark }: JournalPosition): Readonly<Record<string, unknown>> {
  return { v: VERSION, journal, seq, mark };
}
