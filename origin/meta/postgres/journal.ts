/**
 * The takedown journal in PostgreSQL, as this process tells it to its edges. Entries that others commit are found by
 * asking every `pollMs`; own ones are told at once. Numbers become visible in their order, because each transaction takes
 * its number under a lock that it keeps until it is committed (fetch.ts): what a poll finds is all that there is.
 */
import type { Clock, EpochMs } from '../../../src/clock.js';
import { FIRST_MARK, type JournalEntry, type Mark } from '../../../src/journal/entry.js';
import type { JournalProof } from '../../../src/journal/source.js';
import { bugFields, errorFields, type Log } from '../../../src/log.js';
import type { Journal } from '../store.js';
import type { Pool } from './pool.js';
import { JOURNAL_ROWS } from './rows.js';

/** Most entries that are read at once. */
const READ_MAX = 256;

export type PolledJournal = Journal & {
  /** Tells entries that this process has just committed, after all that come before them. Never rejects. */
  tell(entries: readonly JournalEntry[]): Promise<void>;
  close(): Promise<void>;
};

export type PolledJournalDeps = {
  readonly pool: Pool;
  readonly name: string;
  readonly proof: JournalProof;
  readonly pollMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

const AFTER = 'SELECT * FROM journal WHERE seq > $1 ORDER BY seq LIMIT $2';
const NEWEST_MARKS = 'SELECT seq, mark FROM journal ORDER BY seq DESC LIMIT $1';
const OLDEST = 'SELECT min(seq) AS seq FROM journal';
/** An entry stays while it is the newest of the old ones: an edge that has applied it needs its mark. */
const TRIM = `
  DELETE FROM journal WHERE seq < (
    SELECT coalesce(max(seq), 0) FROM journal
    WHERE at < $1 AND seq < (SELECT coalesce(min(seq), 9223372036854775807) FROM journal WHERE at >= $1))
  RETURNING seq`;
/** How many of the newest marks are kept here. An edge that stands at an older entry empties its cache. */
const MARKS_MAX = 100_000;

export async function openJournal({
  pool,
  name,
  proof,
  pollMs,
  clock,
  log,
}: PolledJournalDeps): Promise<PolledJournal> {
  const listeners = new Set<(entry: JournalEntry) => void>();
  const marks = new Map<number, Mark | null>();
  for (const row of (await pool.run(NEWEST_MARKS, [MARKS_MAX])).toReversed()) {
    marks.set(row['seq'] as number, row['mark'] as Mark | null);
  }
  let newest = [...marks.keys()].at(-1) ?? 0;
  let oldest = await readOldest();
  let polling: Promise<void> | null = null;
  let failing = false;
  let timer = clock.after(pollMs, pollAgain);
  let closed = false;

  async function readOldest(): Promise<number> {
    const [row] = await pool.run(OLDEST);
    return (row?.['seq'] as number | null | undefined) ?? newest + 1;
  }

  async function read(after: number, limit: number): Promise<readonly JournalEntry[]> {
    return (await pool.run(AFTER, [after, limit])).map((row) => JOURNAL_ROWS.valueOf(row));
  }

  function publish(entry: JournalEntry): void {
    if (entry.seq <= newest) return;
    newest = entry.seq;
    marks.set(entry.seq, entry.mark);
    for (const [seq] of marks) {
      if (marks.size <= MARKS_MAX) break;
      marks.delete(seq);
    }
    for (const listener of listeners) {
      try {
        listener(entry);
      } catch (thrown) {
        log.error({ seq: entry.seq, ...bugFields(thrown) }, 'a subscriber of the takedown journal failed');
      }
    }
  }

  async function catchUp(): Promise<void> {
    for (;;) {
      const entries = await read(newest, READ_MAX);
      for (const entry of entries) publish(entry);
      if (entries.length < READ_MAX) return;
    }
  }

  /** One at a time. Never rejects. */
  function poll(): Promise<void> {
    polling ??= catchUp()
      .then(
        () => {
          if (failing) log.info({}, 'the journal can be read again');
          failing = false;
        },
        (thrown: unknown) => {
          if (!failing) log.warn(errorFields(thrown), 'the journal cannot be read at the moment');
          failing = true;
        },
      )
      .finally(() => {
        polling = null;
      });
    return polling;
  }

  function pollAgain(): void {
    void poll().then(() => {
      if (!closed) timer = clock.after(pollMs, pollAgain);
    });
  }

  return {
    name,
    proof,
    newest: () => newest,
    oldest: () => oldest,
    markOf: (seq) => (seq === 0 ? FIRST_MARK : (marks.get(seq) ?? undefined)),
    read,
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    async trim(before: EpochMs) {
      const gone = await pool.run(TRIM, [before]);
      for (const row of gone) marks.delete(row['seq'] as number);
      if (gone.length > 0) oldest = await readOldest();
      return gone.length;
    },
    async tell(entries) {
      for (const entry of entries) {
        if (entry.seq === newest + 1) publish(entry);
      }
      const last = entries.at(-1)?.seq ?? 0;
      // A poll that has begun before may have missed them.
      if (last > newest) await poll();
      if (last > newest) await poll();
    },
    async close() {
      closed = true;
      timer.cancel();
      await polling;
    },
  };
}
