/**
 * How far an edge has applied the takedown journal, as a field of its requests to the origin, to edges before it, and to
 * other workers. Whoever is behind would answer with what the asking one has dropped already, and the asking one would
 * store it again.
 */
import type { JournalPosition } from './entry.js';

export function writePosition({ journal, seq, mark }: JournalPosition): string {
  return [journal, String(seq), mark ?? ''].map(encodeURIComponent).join('/');
}

/** Undefined: malformed. */
export function readPosition(text: string): JournalPosition | undefined {
  const [journal, seq, mark, ...more] = text.split('/');
  if (journal === undefined || mark === undefined || more.length > 0 || !/^\d{1,15}$/.test(seq ?? '')) return undefined;
  try {
    return {
      journal: decodeURIComponent(journal),
      seq: Number(seq),
      mark: mark === '' ? null : decodeURIComponent(mark),
    };
  } catch {
    return undefined;
  }
}
