/**
 * The takedown journal in a table. An entry is numbered and appended inside the
 * transaction that causes it. Once it is synced, subscribers are notified, in
 * order.
 */
import type { EpochMs } from '../../src/clock.js';
import type { MediaId } from '../../src/ids.js';
import { FIRST_MARK, type JournalCause, type JournalEntry, type Mark } from '../../src/journal/entry.js';
import { ALWAYS_CURRENT } from '../../src/journal/source.js';
import type { Log } from '../../src/log.js';
import { bugFields } from '../../src/log.js';
import { type Change, readOrSkip } from './database.js';
import type { Journal } from './store.js';
import { decode, JOURNAL, type Reader, type Span, write } from './tables.js';

/** Most entries that one transaction drops. */
const TRIM_STEP = 1_000;

/** Adds an entry to the transaction and returns its number. */
export function appendEntry(change: Change, cause: JournalCause, ids: readonly MediaId[], at: EpochMs): number {
  const entry: JournalEntry = { seq: lastSeq(change.writer) + 1, mark: change.newMark(), at, cause, ids };
  write(change.writer, JOURNAL, entry.seq, entry);
  change.entries.push(entry);
  return entry.seq;
}

export interface TakedownJournal extends Journal {
  /** Called by transactions.ts when these entries are synced. */
  publish(entries: readonly JournalEntry[]): void;
}

export function createJournal(
  name: string,
  reader: Reader,
  run: <T>(body: (change: Change) => T) => Promise<T>,
  log: Log,
): TakedownJournal {
  const listeners = new Set<(entry: JournalEntry) => void>();
  let newest = lastSeq(reader);
  let newestMark = markAt(reader, newest);
  let oldest = firstSeq(reader) ?? newest + 1;

  function notify(entry: JournalEntry): void {
    for (const listener of listeners) {
      try {
        listener(entry);
      } catch (thrown) {
        log.error({ seq: entry.seq, ...bugFields(thrown) }, 'a subscriber of the takedown journal failed');
      }
    }
  }

  return {
    name,
    // One process writes, and it is this one.
    proof: ALWAYS_CURRENT,
    refresh: () => Promise.resolve(),
    onReset: () => () => undefined,
    newest: () => newest,
    oldest: () => oldest,
    markOf: (seq) => (seq === newest ? newestMark : markAt(reader, seq)),
    async read(after, limit) {
      return entriesOf(reader, { start: after + 1, limit });
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    async trim(before) {
      let trimmed = 0;
      for (;;) {
        const dropped = await run((change) => trimStep(change, before));
        trimmed += dropped;
        if (dropped > 0) oldest = firstSeq(reader) ?? newest + 1;
        if (dropped < TRIM_STEP) return trimmed;
      }
    },
    publish(entries) {
      for (const entry of entries) {
        newest = entry.seq;
        newestMark = entry.mark ?? undefined;
        notify(entry);
      }
    },
  };
}

function trimStep({ writer }: Change, before: EpochMs): number {
  let dropped = 0;
  const entries = entriesOf(writer, { limit: TRIM_STEP + 1 });
  for (const [index, entry] of entries.entries()) {
    const next = entries[index + 1];
    if (entry.at >= before || next === undefined || next.at >= before) break;
    write(writer, JOURNAL, entry.seq, undefined);
    dropped += 1;
  }
  return dropped;
}

function entriesOf(reader: Reader, span: Span): readonly JournalEntry[] {
  return [...reader.range(JOURNAL.name, span)].map(({ key, value }) => decode(JOURNAL, key, value));
}

/** A damaged entry has no mark: edges that stand there empty their caches. */
function markAt(reader: Reader, seq: number): Mark | undefined {
  return seq === 0 ? FIRST_MARK : (readOrSkip(reader, JOURNAL, seq, [])?.mark ?? undefined);
}

/** The number of the newest entry, 0 if there is none. */
function lastSeq(reader: Reader): number {
  return seqAt(reader, { reverse: true, limit: 1 }) ?? 0;
}

function firstSeq(reader: Reader): number | undefined {
  return seqAt(reader, { limit: 1 });
}

function seqAt(reader: Reader, span: Span): number | undefined {
  for (const { key } of reader.range(JOURNAL.name, span)) return Number(key);
  return undefined;
}
