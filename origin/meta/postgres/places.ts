/**
 * Intents and the trash in PostgreSQL (places.ts says what they are for). An intent costs no sync: if it is lost in a
 * crash, no record can name its key any more. The upload stores its bytes again or fails, and whoever gives the key up
 * finds that its bytes were left behind.
 */
import type { Clock, EpochMs } from '../../../src/clock.js';
import { type BlobKey, isPartKey, sourceOf } from '../../blobs/blob-store.js';
import { keysOf } from '../media.js';
import type { MetaStore } from '../store.js';
import { fail, type Pool } from './pool.js';
import { BLOB_ROWS } from './rows.js';
import { byteaOf } from './values.js';

/** A setting of the statement that has it, so that no transaction with further statements is needed. */
const NO_SYNC = "(SELECT set_config('synchronous_commit', 'off', true) AS sync) AS given";
const INTEND = `
  INSERT INTO intent (key, at, origin) SELECT unnest($1::text[]), $2::bigint, $3 FROM ${NO_SYNC} WHERE sync = 'off'
  ON CONFLICT (key) DO NOTHING`;
const WITHDRAW = `DELETE FROM intent USING ${NO_SYNC} WHERE sync = 'off' AND key = ANY ($1::text[]) RETURNING key`;
const toTrash = (which: string): string => `
  WITH abandoned AS (DELETE FROM intent WHERE ${which} RETURNING key, at)
  INSERT INTO trash (key, at) SELECT key, at FROM abandoned ON CONFLICT (key) DO NOTHING`;
const ABANDONED = toTrash('at < $1');
const OF_ORIGIN = toTrash('origin = $1');
const ALL = toTrash('true');
const GIVEN_UP = toTrash('key = ANY ($1::text[])');
const TRASH = 'SELECT key FROM trash WHERE at < $1 ORDER BY at, key LIMIT $2';
const EMPTIED = 'DELETE FROM trash WHERE key = ANY ($1::text[])';
const LEFT = 'INSERT INTO trash (key, at) SELECT unnest($1::text[]), $2::bigint ON CONFLICT (key) DO NOTHING';
const KNOWN = `
  SELECT key FROM intent WHERE key = ANY ($1::text[]) UNION ALL SELECT key FROM trash WHERE key = ANY ($1::text[])`;
const BLOBS = 'SELECT * FROM blob WHERE sha256 = ANY ($1::bytea[])';
const PARTS = 'SELECT key FROM upload_part WHERE key = ANY ($1::text[])';

/** Beyond that they are given up after a day. */
const LATE_MAX = 100_000;
/** Nobody takes so long to store bytes. */
const ABANDONED_MS = 86_400_000;

type Places = Pick<MetaStore, 'intend' | 'withdraw' | 'leftBehind' | 'trash' | 'emptied'>;

export type PostgresPlaces = Places & {
  /** Gives up what could not be withdrawn while the database was away. Never rejects. */
  withdrawLate(): Promise<void>;
};

/** `origin`: the name of the one that has these intents. */
export function createPlaces(pool: Pool, origin: string, clock: Pick<Clock, 'now'>): PostgresPlaces {
  const late = new Set<BlobKey>();

  async function unnamed(keys: readonly BlobKey[]): Promise<readonly BlobKey[]> {
    const parts = keys.filter(isPartKey);
    const others = keys.filter((key) => !isPartKey(key));
    const named = new Set<string>();
    if (parts.length > 0) for (const row of await pool.run(PARTS, [parts])) named.add(row['key'] as string);
    if (others.length > 0) {
      const rows = await pool.run(BLOBS, [others.map((key) => byteaOf(sourceOf(key)))]);
      for (const row of rows) for (const key of keysOf(BLOB_ROWS.valueOf(row).blob)) named.add(key);
    }
    return keys.filter((key) => !named.has(key));
  }

  async function knownOf(keys: readonly BlobKey[]): Promise<ReadonlySet<BlobKey>> {
    const rows = keys.length === 0 ? [] : await pool.run(KNOWN, [keys]);
    return new Set(rows.map((row) => row['key'] as BlobKey));
  }

  async function leftBehind(keys: readonly BlobKey[]): Promise<readonly BlobKey[]> {
    // A key goes from the intents into a record, and from there into the trash: asked in this order, none is missed.
    const intended = await knownOf(keys);
    const left = await unnamed(keys.filter((key) => !intended.has(key)));
    const trashed = await knownOf(left);
    return left.filter((key) => !trashed.has(key));
  }

  const intendAll = together(async (keys) => {
    await pool.run(INTEND, [keys, clock.now(), origin]);
  });
  const withdrawAll = together(async (keys) => {
    const rows = await pool.run(WITHDRAW, [keys]);
    return new Set(rows.map((row) => row['key'] as BlobKey));
  });

  return {
    async intend(keys) {
      if (keys.length > 0) await intendAll(keys).catch(fail);
    },
    async withdraw(keys) {
      if (keys.length === 0) return [];
      const ended = await withdrawAll(keys).catch((thrown: unknown) => {
        for (const key of keys) if (late.size < LATE_MAX) late.add(key);
        return fail(thrown);
      });
      const lost = keys.filter((key) => !ended.has(key));
      const own = await unnamed(keys.filter((key) => ended.has(key)));
      return lost.length === 0 ? own : [...own, ...(await leftBehind(lost))];
    },
    async withdrawLate() {
      const keys = [...late];
      if (keys.length === 0) return;
      try {
        // A commit whose answer was lost has ended the intent: then a record names the key.
        await pool.run(GIVEN_UP, [keys]);
        const left = await leftBehind(keys);
        if (left.length > 0) await pool.run(LEFT, [left, clock.now()]);
        for (const key of keys) late.delete(key);
      } catch {
        // The next beat tries again.
      }
    },
    leftBehind,
    async trash(before: EpochMs, limit) {
      await pool.run(ABANDONED, [clock.now() - ABANDONED_MS]);
      return (await pool.run(TRASH, [before, limit])).map((row) => row['key'] as BlobKey);
    },
    async emptied(keys) {
      await pool.run(EMPTIED, [keys]);
    },
  };
}

/** Who calls while a call is under way waits for the next, which is one for all of them. */
function together<T>(work: (keys: readonly BlobKey[]) => Promise<T>): (keys: readonly BlobKey[]) => Promise<T> {
  let gathered: BlobKey[] = [];
  let next: Promise<T> | null = null;
  let last: Promise<unknown> = Promise.resolve();
  return (keys) => {
    gathered.push(...keys);
    next ??= last
      .catch(() => undefined)
      .then(() => {
        const all = gathered;
        [gathered, next] = [[], null];
        last = work(all);
        return last as Promise<T>;
      });
    return next;
  };
}

/** Those that an earlier run of this origin left; without a name, those of all. */
export async function trashIntents(pool: Pool, origin: string | undefined): Promise<void> {
  await (origin === undefined ? pool.run(ALL) : pool.run(OF_ORIGIN, [origin]));
}
