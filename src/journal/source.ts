/**
 * What a journal stream tells edges: the origin's own journal, or at an edge the
 * part of it that has been applied there (edge/journal/applied-journal.ts).
 */
import { Fault } from '../errors.js';
import type { JournalEntry, Mark } from './entry.js';

export interface JournalSource {
  /** A random name, by which an edge notices that the journal was replaced. */
  readonly name: string;
  newest(): number;
  /** The mark of an entry, by which an edge notices another history; undefined if the entry is not stored. */
  markOf(seq: number): Mark | undefined;
  /** The number of the oldest entry still stored; newest + 1 if there is none. */
  oldest(): number;
  /** Entries with a number greater than `after`, in order. */
  read(after: number, limit: number): Promise<readonly JournalEntry[]>;
  /** Calls `listener` for every new entry, in order, once it may be told. Returns how to unsubscribe. */
  subscribe(listener: (entry: JournalEntry) => void): () => void;
}

/** Since when `newest` may no longer be all. */
export interface JournalProof {
  /** This is the origin's own journal: nothing can be newer anywhere else. */
  readonly isOwn: boolean;
  /** How long ago everything up to `newest` was known to be all that the origin had; null: never yet. */
  ageMs(): number | null;
  /** Calls `listener` whenever the proof is renewed. Returns how to unsubscribe. */
  onRenewal(listener: () => void): () => void;
}

/** The origin's own journal is always all that it has. */
export const ALWAYS_CURRENT: JournalProof = { isOwn: true, ageMs: () => 0, onRenewal: () => () => undefined };

export function notCurrentYet(): Fault {
  return new Fault('overloaded', 'This edge does not follow the journal itself yet.', {
    headers: { 'retry-after': '1' },
  });
}
