/**
 * The registry of origins: a row for each, which it renews with every beat. Instants are those of the database's clock.
 *
 * Promises: no two living origins have one name. While an origin holds its row, nobody keeps all origins out
 * (keep-out.ts). A beat is a committed write: what the journal ended with, as the same transaction read it, is all that
 * there was before the beat began. Leaves to journal.ts what that proves to edges.
 */
import { type Clock, type EpochMs, sleep } from '../../../src/clock.js';
import { Fault } from '../../../src/errors.js';
import type { Mark } from '../../../src/journal/entry.js';
import { errorFields, type Log } from '../../../src/log.js';
import type { LivingOrigin, Origins } from '../origins.js';
import { StoreInUse } from '../store.js';
import type { Pool, Run } from './pool.js';
import { SERVER_NOW } from './values.js';

/** Whether somebody may write at present, by a row that he renews. */
export type Holding = {
  holds(): boolean;
  release(): Promise<void>;
};

export type Registry = Holding & {
  readonly origins: Origins;
  /** Calls `listener`, which never rejects, with what each beat proved. Returns how to unsubscribe. */
  onBeat(listener: (beat: Beat) => Promise<void>): () => void;
  /** Beats once, and begins to do so regularly. Resolves when it was told. Rejects if the first one fails. */
  start(): Promise<void>;
  /** Whether this origin may decide for all, by its clock. */
  mayWork(): boolean;
  /** How far the clock of the database is ahead of the one of this machine. */
  aheadMs(): number;
};

export type Beat = {
  /** The instant, by the monotonic clock, before which the journal had nothing newer. */
  readonly begunMs: number;
  /** The newest entry; 0 if there is none. */
  readonly seq: number;
  readonly mark: Mark | null;
};

export type RegistryDeps = {
  readonly name: string;
  /** False for a command that writes beside the origins: it does not count as one of them. */
  readonly serves: boolean;
  readonly clockOffMaxMs: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly randomName: () => string;
};

/** How long after its last beat an origin may write. Until then nobody keeps all of them out. */
export const HOLD_MS = 15_000;
const BEAT_MS = 1_000;
/** After so long without a beat an origin counts no longer, and its name is free. */
const LIVING_MS = 3_000;
/** How often a name that is taken is looked at, to tell an origin that is alive from one that has died. */
const LOOK_MS = 250;
const FORGOTTEN_MS = 86_400_000;

/** Whoever keeps all origins out locks the same row, so both see what the other did. */
const LOCK = `SELECT coalesce(origin_until, 0) >= ${SERVER_NOW} AS kept FROM about FOR UPDATE`;
const FORGET = `DELETE FROM origin WHERE beat_at < ${SERVER_NOW} - ${FORGOTTEN_MS}`;
const ENTER = `
  INSERT INTO origin (name, started, serves, beat_at) VALUES ($1, $2, $3, ${SERVER_NOW})
  ON CONFLICT (name) DO UPDATE SET started = excluded.started, serves = excluded.serves, beat_at = excluded.beat_at
  WHERE origin.started = excluded.started OR origin.beat_at < ${SERVER_NOW} - ${LIVING_MS} RETURNING name`;
const LAST_BEAT = 'SELECT beat_at FROM origin WHERE name = $1';
const BEAT = `
  UPDATE origin SET beat_at = ${SERVER_NOW} WHERE name = $1 AND started = $2 RETURNING beat_at`;
const NEWEST = 'SELECT seq, mark FROM journal ORDER BY seq DESC LIMIT 1';
const LIVING = `
  SELECT name, started FROM origin WHERE serves AND beat_at >= ${SERVER_NOW} - ${LIVING_MS} ORDER BY name`;
const LEAVE = 'DELETE FROM origin WHERE name = $1 AND started = $2';

type Entered =
  | { readonly kind: 'entered' }
  | { readonly kind: 'kept' }
  | { readonly kind: 'taken'; readonly at: EpochMs };

/** Rejects with StoreInUse while a living origin has the name, or somebody keeps all origins out. */
export async function register(pool: Pool, deps: RegistryDeps): Promise<Registry> {
  const { name, serves, clock, log, clockOffMaxMs } = deps;
  const started = deps.randomName();
  let begunMs = clock.monotonicMs();
  await enterOrRefuse();
  let heldAtMs = begunMs;
  let holding = true;
  let aheadMs = 0;
  let isClockOff = false;
  let living: readonly LivingOrigin[] = [{ name, started }];
  const listeners = new Set<(beat: Beat) => Promise<void>>();
  let timer = clock.after(BEAT_MS, () => undefined);
  let beating: Promise<void> = Promise.resolve();
  let released: Promise<void> | undefined;

  /** A name whose origin died a moment ago is waited for: its row shows no beat meanwhile. */
  async function enterOrRefuse(): Promise<void> {
    let seenAt: EpochMs | null = null;
    for (;;) {
      begunMs = clock.monotonicMs();
      const entered = await pool.transact((run) => enter(run, [name, started, serves]));
      if (entered.kind === 'entered') return;
      if (entered.kind === 'kept') {
        throw new StoreInUse('the database is kept by a command that needs it for itself: wait until that has ended');
      }
      if (seenAt !== null && entered.at !== seenAt) {
        throw new StoreInUse(
          `another origin has the name ${name} in the same database: give each a name of its own (origin.name)`,
        );
      }
      seenAt = entered.at;
      await sleep(clock, LOOK_MS);
    }
  }

  /** Null: the row is lost. */
  async function beatOnce(): Promise<Beat | null> {
    const beganMs = clock.monotonicMs();
    const beganAt = clock.now();
    // The row may be gone, or another's by now: then only a new entry may write again.
    if (!holding || beganMs - heldAtMs >= HOLD_MS) {
      const entered = await pool.transact((run) => enter(run, [name, started, serves]));
      if (entered.kind !== 'entered') return null;
    }
    const [own, newest, others] = await pool.transact((run) =>
      Promise.all([run(BEAT, [name, started]), run(NEWEST), run(LIVING), run('COMMIT')]),
    );
    const beatAt = own[0]?.['beat_at'] as EpochMs | undefined;
    if (beatAt === undefined) return null;
    // The server's clock was read between the two instants.
    const halfMs = (clock.monotonicMs() - beganMs) / 2;
    aheadMs = beatAt - (beganAt + halfMs);
    isClockOff = Math.abs(aheadMs) - halfMs > clockOffMaxMs;
    living = others.map((row) => ({ name: row['name'] as string, started: row['started'] as string }));
    heldAtMs = beganMs;
    return {
      begunMs: beganMs,
      seq: (newest[0]?.['seq'] as number | undefined) ?? 0,
      mark: (newest[0]?.['mark'] as Mark | null | undefined) ?? null,
    };
  }

  async function take(beat: Beat | null): Promise<void> {
    if (beat === null) {
      if (holding)
        log.error({ name }, 'another has the row of this origin in the database: it writes nothing any more');
      holding = false;
      return;
    }
    if (!holding) log.info({ name }, 'this origin has its row in the database again');
    holding = true;
    if (isClockOff) {
      log.warn({ aheadMs: Math.round(aheadMs) }, 'the clocks of this machine and of the database differ too much');
      return;
    }
    await Promise.all([...listeners].map((listener) => listener(beat)));
  }

  function beatRegularly(): void {
    beating = beatOnce()
      .then(take)
      .catch((thrown: unknown) => {
        log.warn(errorFields(thrown), 'the row of this origin cannot be renewed at the moment');
      })
      .then(() => {
        if (released === undefined) timer = clock.after(BEAT_MS, beatRegularly);
      });
  }

  const holds = (): boolean => holding && clock.monotonicMs() < heldAtMs + HOLD_MS;

  return {
    origins: {
      name,
      living: () => living,
      async checkClock() {
        if (isClockOff) throw new Fault('storage_unavailable', 'The clock differs from that of the database.');
      },
    },
    holds,
    mayWork: () => holds() && !isClockOff,
    aheadMs: () => Math.round(aheadMs),
    onBeat(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    async start() {
      await take(await beatOnce());
      timer = clock.after(BEAT_MS, beatRegularly);
    },
    release() {
      released ??= (async () => {
        timer.cancel();
        await beating;
        await pool.run(LEAVE, [name, started]).catch(() => undefined);
      })();
      return released;
    },
  };
}

async function enter(run: Run, row: readonly [name: string, started: string, serves: boolean]): Promise<Entered> {
  const [about, , own, last] = await Promise.all([run(LOCK), run(FORGET), run(ENTER, row), run(LAST_BEAT, [row[0]])]);
  if (about[0]?.['kept'] !== false) {
    await run('ROLLBACK');
    return { kind: 'kept' };
  }
  await run('COMMIT');
  if (own.length > 0) return { kind: 'entered' };
  return { kind: 'taken', at: last[0]?.['beat_at'] as EpochMs };
}
