/** The edges of all origins, and what origins ask each other about them, as rows. Ages are counted by the database's clock. */
import type { RecordedEdge, SharedEdges } from '../../origins/shared-edges.js';
import type { Pool } from '../pool.js';
import { SERVER_NOW } from '../values.js';

/** In one order, so that two origins that record the same edges never wait for each other. */
const RECORD = `
  INSERT INTO edge (name, instance, origin, connected, connected_at, heard_at, confirmed, edges)
  SELECT edge, instance, $1, connected, ${SERVER_NOW} - ago, ${SERVER_NOW} - heard, confirmed, edges
  FROM jsonb_to_recordset($2::jsonb)
    AS given (edge text, instance text, connected boolean, ago bigint, heard bigint, confirmed bigint, edges integer)
  ORDER BY edge, instance
  ON CONFLICT (name, instance) DO UPDATE SET
    origin = excluded.origin, connected = excluded.connected, connected_at = excluded.connected_at,
    heard_at = excluded.heard_at, confirmed = excluded.confirmed, edges = excluded.edges
  WHERE edge.origin = excluded.origin OR edge.connected_at < excluded.connected_at`;
/** Those that have said that they stop, and those that were gone for long, also from an origin that has died. */
const DROP = `
  DELETE FROM edge WHERE heard_at < ${SERVER_NOW} - 604800000 OR origin = $1 AND NOT EXISTS (
    SELECT FROM jsonb_to_recordset($2::jsonb) AS given (edge text, instance text)
    WHERE given.edge = edge.name AND given.instance = edge.instance)`;
/** An edge that was started again has another instance. */
const DROP_EARLIER = `
  DELETE FROM edge AS earlier USING edge AS later
  WHERE later.origin = $1 AND later.name = earlier.name AND later.instance <> earlier.instance
    AND later.connected AND later.connected_at > earlier.connected_at`;
const MOVED = `
  SELECT DISTINCT name FROM edge WHERE origin <> $1 AND connected AND name IN (
    SELECT edge FROM jsonb_to_recordset($2::jsonb) AS given (edge text, connected boolean) WHERE NOT given.connected)`;
const ELSEWHERE = `
  SELECT name, instance, origin, connected, ${SERVER_NOW} - connected_at AS ago, ${SERVER_NOW} - heard_at AS heard,
    confirmed, edges
  FROM edge WHERE origin <> $1`;
const ASK = `
  INSERT INTO waiting (id, origin, seq, at) SELECT $1, origin, $2, ${SERVER_NOW} FROM unnest($3::text[]) AS origin`;
/** Left by an origin that died while it waited. */
const DROP_OLD = `DELETE FROM waiting WHERE at < ${SERVER_NOW} - 600000`;
const ANSWERS = 'SELECT origin, confirmed, connected, final FROM waiting WHERE id = $1 AND confirmed IS NOT NULL';
const FORGET = 'DELETE FROM waiting WHERE id = $1';
const QUESTIONS = 'SELECT id, seq FROM waiting WHERE origin = $1 AND NOT final ORDER BY at LIMIT 1000';
const ANSWER = 'UPDATE waiting SET confirmed = $3, connected = $4, final = $5 WHERE id = $1 AND origin = $2';

export function sharedEdges(pool: Pool, origin: string): SharedEdges {
  return {
    async record(edges) {
      const given = JSON.stringify(edges.map(rowOf));
      const [, , , moved] = await pool.transact((run) =>
        Promise.all([
          run(RECORD, [origin, given]),
          run(DROP, [origin, given]),
          run(DROP_EARLIER, [origin]),
          run(MOVED, [origin, given]),
          run('COMMIT'),
        ]),
      );
      return moved.map((row) => row['name'] as string);
    },
    async elsewhere() {
      return (await pool.run(ELSEWHERE, [origin])).map((row) => ({
        edge: row['name'] as string,
        instance: row['instance'] as string,
        origin: row['origin'] as string,
        connected: row['connected'] as boolean,
        connectedAgoMs: row['ago'] as number,
        heardAgoMs: row['heard'] as number,
        confirmed: row['confirmed'] as number,
        edges: row['edges'] as number,
      }));
    },
    async ask(id, seq, origins) {
      await Promise.all([pool.run(ASK, [id, seq, origins]), pool.run(DROP_OLD)]);
    },
    async answers(id) {
      return (await pool.run(ANSWERS, [id])).map((row) => ({
        origin: row['origin'] as string,
        confirmed: row['confirmed'] as number,
        known: row['connected'] as number,
        isFinal: row['final'] as boolean,
      }));
    },
    async forget(id) {
      await pool.run(FORGET, [id]);
    },
    async questions() {
      return (await pool.run(QUESTIONS, [origin])).map((row) => ({
        id: row['id'] as string,
        seq: row['seq'] as number,
      }));
    },
    async answer(id, { confirmed, known, isFinal }) {
      await pool.run(ANSWER, [id, origin, confirmed, known, isFinal]);
    },
  };
}

function rowOf({ edge, instance, connected, connectedAgoMs, heardAgoMs, confirmed, edges }: RecordedEdge) {
  return {
    edge,
    instance,
    connected,
    ago: Math.round(connectedAgoMs),
    heard: Math.round(heardAgoMs),
    confirmed,
    edges,
  };
}
