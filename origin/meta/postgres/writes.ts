/**
 * Runs the rules of the store as transactions. Writes that wait at the same time go into one transaction, each with its
 * own changes: one that throws undoes its own alone, and one whose changes cannot be written fails alone. A transaction
 * takes two round trips: BEGIN with the facts, the changes with COMMIT; one more where it gives out a number of the
 * journal, so that its lock is held as shortly as can be.
 *
 * There are two lanes. Takedowns, and what frees room, have one of their own: it numbers, and an upload never waits for
 * the numbers unless it ends or restores media itself.
 */
import { setTimeout as wait } from 'node:timers/promises';
import type { EpochMs } from '../../../src/clock.js';
import { Fault } from '../../../src/errors.js';
import type { JournalEntry } from '../../../src/journal/entry.js';
import type { BlobKey } from '../../blobs/blob-store.js';
import { type Change, startChange, type Urgency } from '../database.js';
import type { EventMaker } from '../outbox/outbox.js';
import { addEvents } from '../outbox/postgres.js';
import { applyChanges } from './apply.js';
import { addLines } from './audit.js';
import { type Fact, Facts, factText, MissingFact, Unwritable } from './facts.js';
import { fetchFacts, fetchJournal } from './fetch.js';
import { faultOfDatabase, isOfContent, isWorthAnotherTry, type Pool, type Run } from './pool.js';

export type Write<T> = {
  readonly rule: (change: Change) => T;
  /** What it will read, as far as that is known. What is missing costs further round trips. */
  readonly facts: readonly Fact[];
  readonly urgency: Urgency;
};

export type Writes = {
  run<T>(write: Write<T>): Promise<T>;
  /** A transaction of its own that looks for its records itself. */
  runAlone<T>(prepare: (run: Run, facts: Facts) => Promise<readonly Fact[]>, rule: (change: Change) => T): Promise<T>;
  /** Refuses later writes, and resolves when none is under way. */
  end(): Promise<void>;
};

export type WritesDeps = {
  readonly pool: Pool;
  readonly newMark: () => string;
  readonly now: () => EpochMs;
  readonly eventMaker?: EventMaker | undefined;
  readonly commitMax: number;
  readonly queueMax: number;
  /** How many transactions of uploads may be under way at once. */
  readonly lanesMax: number;
  /** Called once the changes are committed, before the writes resolve. Never rejects. */
  readonly committed: (changes: readonly Committed[]) => Promise<void>;
  /** Whether this process still has the database. */
  readonly mayWrite: () => boolean;
  /** From 0 to below 1. */
  readonly random: () => number;
};

export type Committed = Pick<Change, 'entries' | 'jobsAdded' | 'jobsEnded'>;

type Waiting = {
  readonly rule: (change: Change) => unknown;
  readonly facts: readonly Fact[];
  resolve(value: unknown): void;
  reject(error: unknown): void;
};

type Ran = { readonly change: Change } & (
  | { readonly kind: 'done'; readonly value: unknown }
  | { readonly kind: 'threw'; readonly error: unknown }
);

/** How often a transaction runs that others come in between. */
const TRIES_MAX = 6;
const PAUSE_MS = 4;
/** How often facts are fetched for one transaction: each time a rule asked for something new. */
const FETCHES_MAX = 20;

export function createWrites(deps: WritesDeps): Writes {
  const lanes = {
    must: createLane({ ...deps, lanesMax: 1 }),
    may_fail: createLane(deps),
  };
  let ended = false;
  return {
    run({ rule, facts, urgency }) {
      if (ended) return Promise.reject(new Fault('overloaded', 'The service is shutting down.'));
      return lanes[urgency].add(rule, facts);
    },
    async runAlone(prepare, rule) {
      if (ended) throw new Fault('overloaded', 'The service is shutting down.');
      const [ran] = await lanes.must.runNow([rule], prepare);
      if (ran === undefined) throw new Error('the rule did not run');
      if (ran.kind === 'threw') throw ran.error;
      return ran.value as ReturnType<typeof rule>;
    },
    async end() {
      ended = true;
      await Promise.all([lanes.must.idle(), lanes.may_fail.idle()]);
    },
  };
}

type Prepare = (run: Run, facts: Facts) => Promise<readonly Fact[]>;

type Lane = {
  add<T>(rule: (change: Change) => T, facts: readonly Fact[]): Promise<T>;
  runNow(rules: readonly ((change: Change) => unknown)[], prepare: Prepare): Promise<readonly Ran[]>;
  idle(): Promise<void>;
};

function createLane(deps: WritesDeps): Lane {
  const { pool, commitMax, queueMax, lanesMax, committed } = deps;
  let waiting: Waiting[] = [];
  const underway = new Set<Promise<unknown>>();
  /** Those that wait for no lane. */
  const alone = new Set<Promise<unknown>>();

  function begin(): void {
    while (underway.size < lanesMax && waiting.length > 0) {
      const group = waiting.slice(0, commitMax);
      waiting = waiting.slice(commitMax);
      const work: Promise<void> = runGroup(group).finally(() => {
        underway.delete(work);
        begin();
      });
      underway.add(work);
    }
  }

  async function runGroup(group: readonly Waiting[]): Promise<void> {
    try {
      const wanted = group.flatMap(({ facts }) => facts);
      const ran = await runNow(
        group.map(({ rule }) => rule),
        async () => wanted,
      );
      for (const [at, one] of ran.entries()) {
        if (one.kind === 'done') group[at]?.resolve(one.value);
        else group[at]?.reject(one.error);
      }
    } catch (thrown) {
      if (group.length > 1 && isOfOneWrite(thrown)) {
        // The others must not fail because of it.
        const half = Math.ceil(group.length / 2);
        await runGroup(group.slice(0, half));
        await runGroup(group.slice(half));
        return;
      }
      for (const one of group) one.reject(thrown);
    }
  }

  async function runNow(rules: readonly ((change: Change) => unknown)[], prepare: Prepare): Promise<readonly Ran[]> {
    for (let tries = 1; ; tries += 1) {
      if (!deps.mayWrite()) throw new Fault('storage_unavailable', 'The metadata store cannot be used at the moment.');
      try {
        const ran = await pool.transact((run) => runRules(run, rules, prepare, deps));
        await committed(ran.filter(({ kind }) => kind === 'done').map(({ change }) => change));
        return ran;
      } catch (thrown) {
        if (!isWorthAnotherTry(thrown)) throw isOfOneWrite(thrown) ? thrown : faultOfDatabase(thrown);
        if (tries >= TRIES_MAX) {
          throw new Fault('overloaded', 'Too many writes concern the same records.', { cause: thrown });
        }
        await wait(PAUSE_MS * tries * (1 + deps.random()));
      }
    }
  }

  return {
    add: (rule, facts) =>
      new Promise((resolve, reject) => {
        if (waiting.length >= queueMax) {
          reject(new Fault('overloaded', 'Too many writes are waiting.'));
          return;
        }
        waiting.push({ rule, facts, resolve, reject });
        begin();
      }),
    async runNow(rules, prepare) {
      const work = runNow(rules, prepare);
      alone.add(work);
      try {
        return await work;
      } finally {
        alone.delete(work);
      }
    },
    async idle() {
      while (underway.size + alone.size > 0) await Promise.allSettled([...underway, ...alone]);
    },
  };
}

async function runRules(
  run: Run,
  rules: readonly ((change: Change) => unknown)[],
  prepare: Prepare,
  deps: Pick<WritesDeps, 'newMark' | 'now' | 'eventMaker'>,
): Promise<readonly Ran[]> {
  const facts = new Facts();
  await fetchNew(run, facts, await prepare(run, facts));
  for (let fetches = 0; fetches < FETCHES_MAX; fetches += 1) {
    const { ran, missing } = tryAll(facts, rules, deps);
    if (missing.length > 0) {
      facts.undoTo(0);
      await fetchNew(run, facts, missing);
    } else if (facts.wantsJournal) {
      facts.undoTo(0);
      await fetchJournal(run, facts);
    } else {
      const placed = ran.flatMap((one) => (one.kind === 'done' ? one.change.placed : []));
      const notes = ran.flatMap((one) => (one.kind === 'done' ? one.change.notes : []));
      const noted = notes.length === 0 ? [] : [addLines(run, notes)];
      const events = ran.flatMap((one) => (one.kind === 'done' ? one.change.events : []));
      const told = events.length === 0 ? [] : [addEvents(run, events)];
      await Promise.all([...applyChanges(run, facts.changes(), placed), ...noted, ...told, run('COMMIT')]);
      return ran;
    }
  }
  throw new Unwritable('a rule asks for new facts without end');
}

/** Whether a transaction failed because of one of its writes, so that the others may succeed without it. */
function isOfOneWrite(thrown: unknown): boolean {
  const failure = thrown instanceof Fault ? thrown.cause : thrown;
  return failure instanceof Unwritable || isOfContent(failure);
}

function fetchNew(run: Run, facts: Facts, wanted: readonly Fact[]): Promise<void> {
  const unknown = new Map(wanted.filter((fact) => !facts.knows(fact)).map((fact) => [factText(fact), fact]));
  return fetchFacts(run, facts, [...unknown.values()]);
}

/** Every rule in turn. One that lacks facts does not keep the others from saying what they lack. */
function tryAll(
  facts: Facts,
  rules: readonly ((change: Change) => unknown)[],
  { newMark, now, eventMaker }: Pick<WritesDeps, 'newMark' | 'now' | 'eventMaker'>,
): { readonly ran: readonly Ran[]; readonly missing: readonly Fact[] } {
  const missing: Fact[] = [];
  const ran = rules.map((rule): Ran => {
    const { mark } = facts;
    const isIntended = (key: BlobKey): boolean => facts.isIntended(key);
    const change = startChange(facts, { newMark, now: now(), isIntended, eventMaker });
    try {
      return { kind: 'done', value: rule(change), change };
    } catch (error) {
      facts.undoTo(mark);
      if (error instanceof MissingFact) missing.push(error.fact);
      return { kind: 'threw', error, change };
    }
  });
  return { ran, missing };
}

/** The entries of all changes, in their order. */
export function entriesOf(changes: readonly Committed[]): readonly JournalEntry[] {
  return changes.flatMap(({ entries }) => entries);
}
