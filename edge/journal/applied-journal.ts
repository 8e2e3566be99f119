/**
 * The part of the journal that this edge has applied, for the edges behind it:
 * the latest entries, how far this edge is, and how long ago that was all.
 *
 * Promises: it holds nothing that is not applied here, so that no edge behind
 * this one can fetch from it what it has dropped itself; the age of its proof
 * counts from the origin, whatever the number of edges in between.
 */
import type { JournalEntry, JournalPosition, Mark } from '../../src/journal/entry.js';
import { FIRST_MARK } from '../../src/journal/entry.js';
import type { JournalProof, JournalSource } from '../../src/journal/source.js';
import type { Lease } from './lease.js';

/** What the follower reports, in the order in which it happens. */
export interface AppliedSink {
  /** The lease by which the age of the proof is known, and the position from which this edge continues. */
  begin(lease: Pick<Lease, 'state'>, position: JournalPosition | undefined): void;
  /** The position is no longer known; the cache is being emptied. */
  lost(): void;
  /** The edge continues here, without the entries before. */
  positioned(position: JournalPosition): void;
  /** These entries are applied. The last of them is at this position. */
  applied(entries: readonly JournalEntry[], position: JournalPosition): void;
  /** The mark of the position has become known. */
  marked(position: JournalPosition): void;
  /** The lease is renewed. */
  renewed(): void;
}

export interface AppliedJournal extends JournalSource, JournalProof, AppliedSink {}

/** `idsMax`: how many ids the kept entries have together. `onBreak`: what was told so far does not continue. */
export function createAppliedJournal(idsMax: number, onBreak: () => void): AppliedJournal {
  const listeners = new Set<(entry: JournalEntry) => void>();
  const renewals = new Set<() => void>();
  let lease: Pick<Lease, 'state'> | undefined;
  let position: JournalPosition | undefined;
  /** The entries after `base`, in order. */
  let entries: JournalEntry[] = [];
  let base: { readonly seq: number; readonly mark: Mark | null } | undefined;
  let ids = 0;

  function continueFrom(next: JournalPosition | undefined): void {
    position = next;
    base = next;
    entries = [];
    ids = 0;
  }

  function forgetOldest(): void {
    let count = 0;
    for (const entry of entries) {
      if (ids <= idsMax) break;
      ids -= weightOf(entry);
      base = entry;
      count += 1;
    }
    entries = entries.slice(count);
  }

  return {
    isOwn: false,
    get name() {
      return position?.journal ?? '';
    },
    newest: () => position?.seq ?? 0,
    // The stream tells everything at once.
    refresh: () => Promise.resolve(),
    oldest: () => (base?.seq ?? 0) + 1,
    markOf(seq) {
      if (seq === 0) return FIRST_MARK;
      if (seq === position?.seq) return position.mark ?? undefined;
      if (base === undefined) return undefined;
      return (seq === base.seq ? base : entries[seq - base.seq - 1])?.mark ?? undefined;
    },
    async read(after, limit) {
      const skipped = Math.max(0, after - (base?.seq ?? 0));
      return entries.slice(skipped, skipped + limit);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    ageMs() {
      const state = position === undefined ? undefined : lease?.state();
      return state === undefined || state.kind === 'new' ? null : Math.max(0, state.currentMsAgo);
    },
    onRenewal(listener) {
      renewals.add(listener);
      return () => void renewals.delete(listener);
    },
    begin(given, at) {
      lease = given;
      continueFrom(at);
    },
    lost() {
      continueFrom(undefined);
      onBreak();
    },
    positioned(at) {
      continueFrom(at);
    },
    applied(added, at) {
      position = at;
      entries.push(...added);
      ids += added.reduce((sum, entry) => sum + weightOf(entry), 0);
      forgetOldest();
      for (const entry of added) for (const listener of listeners) listener(entry);
    },
    marked(at) {
      position = at;
      if (base?.seq === at.seq) base = at;
    },
    renewed() {
      for (const listener of renewals) listener();
    },
  };
}

/** An entry without ids takes memory too. */
function weightOf({ ids }: JournalEntry): number {
  return 1 + ids.length;
}
