/** A takedown journal in memory, whose reads and listeners a test can observe. */
import { randomUUID } from 'node:crypto';
import type { Journal } from '../../../origin/meta/store.js';
import { type MediaId, parseMediaId } from '../../../src/ids.js';
import type { EdgePosition } from '../../../src/journal/confirmations.js';
import { FIRST_MARK, type JournalCause, type JournalEntry } from '../../../src/journal/entry.js';
import type { JournalStream } from '../../../src/journal/journal-stream.js';
import { ALWAYS_CURRENT } from '../../../src/journal/source.js';

export class MemoryJournal implements Journal {
  readonly name: string;
  readonly proof = ALWAYS_CURRENT;
  /** For each read, the number up to which it returned entries. */
  readonly reads: number[] = [];
  #entries: JournalEntry[] = [];
  #newest: number;
  readonly #listeners = new Set<(entry: JournalEntry) => void>();

  constructor(name = 'journal-a', newest = 0) {
    this.name = name;
    this.#newest = newest;
  }

  newest(): number {
    return this.#newest;
  }

  /** Adds what was added elsewhere, as a poll finds it. */
  elsewhere: () => void = () => undefined;

  async refresh(): Promise<void> {
    this.elsewhere();
  }

  onReset(): () => void {
    return () => undefined;
  }

  markOf(seq: number): string | undefined {
    if (seq === 0) return FIRST_MARK;
    return this.#entries.find((entry) => entry.seq === seq)?.mark ?? undefined;
  }

  oldest(): number {
    return this.#entries[0]?.seq ?? this.#newest + 1;
  }

  async read(after: number, limit: number): Promise<readonly JournalEntry[]> {
    // Like a database, it does not answer in the same turn.
    await new Promise(setImmediate);
    const found = this.#entries.filter(({ seq }) => seq > after).slice(0, limit);
    this.reads.push(found.at(-1)?.seq ?? after);
    return found;
  }

  subscribe(listener: (entry: JournalEntry) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Adds an entry and notifies the listeners at once. */
  add(cause: JournalCause, ids: readonly MediaId[], at = 0): JournalEntry {
    this.#newest += 1;
    const entry: JournalEntry = { seq: this.#newest, mark: randomUUID(), at, cause, ids };
    this.#entries.push(entry);
    for (const listener of this.#listeners) listener(entry);
    return entry;
  }

  async trim(before: number): Promise<number> {
    const last = this.#entries.findLast(({ at }) => at < before)?.seq ?? 0;
    const kept = this.#entries.filter(({ seq }) => seq >= last);
    const dropped = this.#entries.length - kept.length;
    this.#entries = kept;
    return dropped;
  }

  /** Forgets all entries after a number, as an earlier snapshot of it would. */
  setBack(to: number): void {
    this.#entries = this.#entries.filter(({ seq }) => seq <= to);
    this.#newest = to;
  }

  /** Drops all entries up to a number. */
  forget(upTo: number): void {
    this.#entries = this.#entries.filter(({ seq }) => seq > upTo);
  }

  get listeners(): number {
    return this.#listeners.size;
  }
}

const DIGITS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

/** The nth id. */
export function mediaId(index: number): MediaId {
  const tail = index.toString(32).replace(/./g, (digit) => DIGITS[Number.parseInt(digit, 32)] ?? '0');
  const id = parseMediaId(`01J${tail.padStart(23, '0')}`);
  if (id === undefined) throw new Error('not an id');
  return id;
}

/** The edges that follow the journal now. */
export function connectedEdges(stream: JournalStream | undefined): readonly EdgePosition[] {
  return stream?.positions().filter(({ connected }) => connected) ?? [];
}
