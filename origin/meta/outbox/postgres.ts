/** The outbox (interface: outbox/outbox.ts) in PostgreSQL. Events are added in the transactions that cause them. */
import type { EpochMs } from '../../../src/clock.js';
import type { Pool, Run } from '../postgres/pool.js';
import { OUTBOX_ROWS } from '../postgres/rows.js';
import { textOf, uuidOf } from '../postgres/values.js';
import type { MediaEvent, Outbox } from './outbox.js';

const ADD = `
  INSERT INTO hook (name, type, at, media, data, since, ready_at, attempts)
  SELECT added.event->>0, added.event->>1, (added.event->>2)::bigint, (added.event->>3)::uuid, added.event->>4,
    (added.event->>2)::bigint, (added.event->>2)::bigint, 0
  FROM json_array_elements($1::json) WITH ORDINALITY AS added (event, nth) ORDER BY nth`;
const DUE = `
  SELECT * FROM hook WHERE died_at IS NULL AND ready_at <= $1 AND NOT EXISTS (
    SELECT FROM hook AS earlier WHERE earlier.media = hook.media AND earlier.died_at IS NULL AND earlier.n < hook.n)
  ORDER BY ready_at, n LIMIT $2`;
const SENT = 'DELETE FROM hook WHERE name = $1 AND died_at IS NULL';
const FAILED = `
  UPDATE hook SET
    attempts = CASE WHEN name = $1 THEN attempts + 1 ELSE attempts END,
    fault = CASE WHEN name = $1 THEN $2 ELSE fault END,
    ready_at = greatest(ready_at, $3::bigint)
  WHERE died_at IS NULL AND media = (SELECT media FROM hook WHERE name = $1 AND died_at IS NULL)`;
const BURY = 'UPDATE hook SET attempts = attempts + 1, fault = $2, died_at = $3 WHERE name = $1 AND died_at IS NULL';
const NEWEST_DEAD = 'SELECT * FROM hook WHERE died_at IS NOT NULL ORDER BY died_at DESC, name DESC LIMIT $1';
const REVIVE = `
  UPDATE hook SET died_at = NULL, attempts = 0, since = $1, ready_at = $1
  WHERE name IN (SELECT name FROM hook WHERE died_at IS NOT NULL ORDER BY died_at, name LIMIT $2) RETURNING name`;
const FORGET = `
  DELETE FROM hook WHERE name IN (
    SELECT name FROM hook WHERE died_at IS NOT NULL AND died_at < $1 ORDER BY died_at, name LIMIT $2) RETURNING name`;
const COUNTS = `
  SELECT count(*) FILTER (WHERE died_at IS NULL) AS waiting, count(died_at) AS dead,
    min(since) FILTER (WHERE died_at IS NULL) AS oldest FROM hook`;

/** In the order in which they are given. */
export async function addEvents(run: Run, events: readonly MediaEvent[]): Promise<void> {
  const rows = events.map(({ name, type, at, id, data }) => [name, type, at, uuidOf(id), textOf(data)]);
  await run(ADD, [JSON.stringify(rows)]);
}

export function createOutboxTable({ run }: Pick<Pool, 'run'>): Outbox {
  return {
    due: async (now, limit) => (await run(DUE, [Math.floor(now), limit])).map((row) => OUTBOX_ROWS.valueOf(row)),
    async sent(name) {
      await run(SENT, [name]);
    },
    async failed(name, fault, readyAt) {
      await run(FAILED, [name, textOf(fault), Math.floor(readyAt)]);
    },
    async bury(name, fault, now) {
      await run(BURY, [name, textOf(fault), Math.floor(now)]);
    },
    dead: async (limit) => (await run(NEWEST_DEAD, [limit])).map((row) => OUTBOX_ROWS.valueOf(row)),
    revive: async (limit, now) => (await run(REVIVE, [Math.floor(now), limit])).length,
    forget: async (before, limit) => (await run(FORGET, [Math.floor(before), limit])).length,
    async counts() {
      const [row] = await run(COUNTS);
      return {
        waiting: row?.['waiting'] as number,
        dead: row?.['dead'] as number,
        oldestSince: row?.['oldest'] as EpochMs | null,
      };
    },
  };
}
