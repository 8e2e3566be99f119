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
  /** Looks at once whether there are newer entries that were added elsewhere. Never rejects. */
  refresh(): Promise<void>;
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
  /** Nothing can be newer anywhere else: this is the journal of the only origin. */
  readonly isOwn: boolean;
  /** How long ago everything up to `newest` was known to be all that the origin had; null: never yet. */
  ageMs(): number | null;
  /** Calls `listener` whenever the proof is renewed. Returns how to unsubscribe. */
  onRenewal(listener: () => void): () => void;
}

/** The only origin's journal is always all that there is. */
export const ALWAYS_CURRENT: JournalProof = { isOwn: true, ageMs: () => 0, onRenewal: () => () => undefined };

export function notCurrentYet(): Fault {
  return new Fault('overloaded', 'It is not known yet whether the journal is current here.', {
    headers: { 'retry-after': '1' },
  });
}
