/**
 * The takedown journal in PostgreSQL, as this process tells it to its edges. Entries are found by asking every `pollMs`,
 * and at once after an own commit. Numbers become visible in their order, because each transaction takes its number
 * under a lock that it keeps until it is committed (fetch.ts): what a poll finds is all that there is.
 *
 * Each poll reads the newest known entry again. If that has gone or has another mark, the database goes on from an earlier
 * state, as after a failover to a server that lacked the last entries: the journal starts again from what it has now,
 * and whoever tells it to edges is told.
 */
import type { Clock, EpochMs } from '../../../src/clock.js';
import { FIRST_MARK, type JournalEntry, type Mark } from '../../../src/journal/entry.js';
import { ALWAYS_CURRENT, type JournalProof } from '../../../src/journal/source.js';
import { bugFields, errorFields, type Log } from '../../../src/log.js';
import type { Journal } from '../store.js';
import type { Pool } from './pool.js';
import type { Beat, Registry } from './registry.js';
import { JOURNAL_ROWS } from './rows.js';

/** Most entries that are read at once. */
const READ_MAX = 256;

export type PolledJournal = Journal & {
  /** Tells entries that this process has just committed, after all that come before them. Never rejects. */
  committed(entries: readonly JournalEntry[]): Promise<void>;
  close(): Promise<void>;
};

export type PolledJournalDeps = {
  readonly pool: Pool;
  readonly name: string;
  /** Null: nobody else writes. */
  readonly registry: Pick<Registry, 'onBeat'> | null;
  readonly pollMs: number;
  readonly clock: Clock;
  readonly log: Log;
};

const FROM = 'SELECT * FROM journal WHERE seq >= $1 ORDER BY seq LIMIT $2';
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

export async function openJournal(deps: PolledJournalDeps): Promise<PolledJournal> {
  const { pool, name, registry, pollMs, clock, log } = deps;
  const listeners = new Set<(entry: JournalEntry) => void>();
  const resets = new Set<() => void>();
  const marks = new Map<number, Mark | null>();
  let newest = 0;
  let oldest = 0;
  await readMarks();
  const proof = registry === null ? { proof: ALWAYS_CURRENT, take: () => undefined } : createProof(clock);
  const stopBeats = registry?.onBeat(prove);
  let polling: Promise<boolean> | null = null;
  let failing = false;
  let timer = clock.after(pollMs, pollAgain);
  let closed = false;

  async function readMarks(): Promise<void> {
    const [rows, first] = await Promise.all([pool.run(NEWEST_MARKS, [MARKS_MAX]), readOldest()]);
    marks.clear();
    for (const row of rows.toReversed()) marks.set(row['seq'] as number, row['mark'] as Mark | null);
    newest = (rows[0]?.['seq'] as number | undefined) ?? 0;
    oldest = first ?? newest + 1;
  }

  async function readOldest(): Promise<number | null> {
    const [row] = await pool.run(OLDEST);
    return row?.['seq'] as number | null;
  }

  async function read(after: number, limit: number): Promise<readonly JournalEntry[]> {
    return (await pool.run(FROM, [after + 1, limit])).map((row) => JOURNAL_ROWS.valueOf(row));
  }

  function publish(entry: JournalEntry): void {
    newest = entry.seq;
    marks.set(entry.seq, entry.mark);
    for (const [seq] of marks) {
      if (marks.size <= MARKS_MAX) break;
      marks.delete(seq);
    }
    callAll(listeners, (listener) => listener(entry), log);
  }

  async function catchUp(): Promise<void> {
    for (;;) {
      const known = newest;
      const entries = await read(known - 1, READ_MAX);
      const isKnown = known === 0 || (entries[0]?.seq === known && entries[0].mark === marks.get(known));
      if (!isKnown) {
        await startAgain();
        return;
      }
      for (const entry of entries) if (entry.seq > newest) publish(entry);
      if (entries.length < READ_MAX) return;
    }
  }

  async function startAgain(): Promise<void> {
    const lost = newest;
    await readMarks();
    log.error({ lost, newest }, 'the database lacks journal entries that edges have: every edge starts again');
    callAll(resets, (reset) => reset(), log);
  }

  /** One at a time. Never rejects: false if the journal could not be read. */
  function poll(): Promise<boolean> {
    polling ??= catchUp()
      .then(
        () => {
          if (failing) log.info({}, 'the journal can be read again');
          failing = false;
          return true;
        },
        (thrown: unknown) => {
          if (!failing) log.warn(errorFields(thrown), 'the journal cannot be read at the moment');
          failing = true;
          return false;
        },
      )
      .finally(() => {
        polling = null;
      });
    return polling;
  }

  /** A poll that has begun before may have missed what the caller means. */
  async function refresh(): Promise<boolean> {
    await polling;
    return poll();
  }

  function pollAgain(): void {
    void poll().then(() => {
      if (!closed) timer = clock.after(pollMs, pollAgain);
    });
  }

  /** What is told now is all that there was when the beat began, unless it is still behind or of another history. */
  async function prove(beat: Beat): Promise<void> {
    if (!(await refresh())) return;
    if (beat.seq > 0 && marks.get(beat.seq) !== beat.mark) return;
    proof.take(beat.begunMs);
  }

  return {
    name,
    proof: proof.proof,
    refresh: async () => void (await refresh()),
    onReset(listener) {
      resets.add(listener);
      return () => void resets.delete(listener);
    },
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
      if (gone.length > 0) oldest = (await readOldest()) ?? newest + 1;
      return gone.length;
    },
    async committed(entries) {
      if (entries.length > 0) await refresh();
    },
    async close() {
      closed = true;
      stopBeats?.();
      timer.cancel();
      await polling;
    },
  };
}

function callAll<L>(listeners: ReadonlySet<L>, call: (listener: L) => void, log: Log): void {
  for (const listener of listeners) {
    try {
      call(listener);
    } catch (thrown) {
      log.error(bugFields(thrown), 'a subscriber of the takedown journal failed');
    }
  }
}

/** The latest beat that was proved counts, in whichever order they are. */
function createProof(clock: Pick<Clock, 'monotonicMs'>): { readonly proof: JournalProof; take(atMs: number): void } {
  const listeners = new Set<() => void>();
  let provedMs: number | null = null;
  return {
    proof: {
      isOwn: false,
      ageMs: () => (provedMs === null ? null : clock.monotonicMs() - provedMs),
      onRenewal(listener) {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
    },
    take(atMs) {
      provedMs = Math.max(provedMs ?? atMs, atMs);
      for (const listener of listeners) listener();
    },
  };
}
