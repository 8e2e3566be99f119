/**
 * Unfinished uploads in PostgreSQL (shared.ts says what is promised). A row has the record, which is not read here, and beside
 * it what statements compare. Whatever changes an upload holds the lock of its row, so that no part is added to one that
 * is being finished or dropped.
 */
import type { Clock } from '../../../src/clock.js';
import type { BlobKey } from '../../blobs/blob-store.js';
import type { UploadPart, UploadTable } from '../origins/shared.js';
import { ownerKey } from '../tables.js';
import { fail, type Parameter, type Pool } from './pool.js';
import type { Row } from './rows.js';

const FIND = 'SELECT record, bytes FROM upload WHERE id = $1';
const EXPIRED = 'SELECT record FROM upload WHERE expires_at <= $1 ORDER BY expires_at, id LIMIT $2';
const COUNT = 'SELECT count(*) AS n FROM upload WHERE media IS NULL';
const COUNT_OF = `${COUNT} AND owner_key = $1`;
const CREATE = `
  WITH counted AS (
    SELECT (${COUNT}) AS every, (${COUNT} AND owner_key = $2) AS own
  ), made AS (
    INSERT INTO upload (id, owner_key, size, bytes, expires_at, media, record)
    SELECT $1, $2, $3::bigint, 0, $4::bigint, NULL, $5 FROM counted WHERE every < $6 AND own < $7
    ON CONFLICT (id) DO NOTHING RETURNING id
  )
  SELECT own >= $7 AS full_for_owner, every >= $6 AS is_full, EXISTS (SELECT FROM made) AS made FROM counted`;
const CHANGE = `
  UPDATE upload SET record = $2, size = $3::bigint, expires_at = $4
  WHERE id = $1 AND media IS NULL AND bytes <= coalesce($3::bigint, bytes) RETURNING id`;
/** The intent ends in either case: with the part, or with the key in the trash. */
const EXTEND = `
  WITH ended AS (
    DELETE FROM intent WHERE key = $4 RETURNING key
  ), moved AS (
    UPDATE upload SET bytes = $2::bigint + $3::bigint FROM ended
    WHERE id = $1 AND bytes = $2 AND media IS NULL AND $2::bigint + $3::bigint <= coalesce(size, $2::bigint + $3::bigint)
    RETURNING id
  ), added AS (
    INSERT INTO upload_part (upload, at, size, key) SELECT id, $2::bigint, $3::bigint, $4 FROM moved
  ), lost AS (
    INSERT INTO trash (key, at) SELECT key, $5::bigint FROM ended WHERE NOT EXISTS (SELECT FROM moved)
  )
  SELECT EXISTS (SELECT FROM ended) AS intended, EXISTS (SELECT FROM moved) AS moved`;
const PARTS = 'SELECT at, size, key FROM upload_part WHERE upload = $1 ORDER BY at';
/** A statement sees what is committed when it begins, so the lock is a statement of its own before those that change. */
const LOCK = 'SELECT FROM upload WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE';
const TO_TRASH = 'INSERT INTO trash (key, at) SELECT key, $2::bigint FROM gone ON CONFLICT (key) DO NOTHING';
const CUT = `
  WITH moved AS (
    UPDATE upload SET bytes = $3 WHERE id = $1 AND bytes = $4 AND media IS NULL RETURNING id
  ), gone AS (
    DELETE FROM upload_part USING moved WHERE upload = id AND at >= $3 RETURNING key
  ) ${TO_TRASH}`;
const FINISH = `
  INSERT INTO upload (id, owner_key, size, bytes, expires_at, media, record)
  SELECT id, owner_key, size, coalesce(size, 0), expires_at, media, record
  FROM jsonb_to_recordset($1) AS finished (id text, owner_key text, size bigint, expires_at bigint, media text, record text)
  ON CONFLICT (id) DO UPDATE
  SET size = excluded.size, bytes = excluded.bytes, expires_at = excluded.expires_at, media = excluded.media,
    record = excluded.record
  WHERE upload.media IS NULL`;
const FORGET_PARTS = `WITH gone AS (DELETE FROM upload_part WHERE upload = ANY ($1::text[]) RETURNING key) ${TO_TRASH}`;
const DROP = 'DELETE FROM upload WHERE id = $1 RETURNING id';

export function createUploadTable(pool: Pool, clock: Pick<Clock, 'now'>): UploadTable {
  /** Runs statements behind the locks of uploads, in one flight. Returns the rows of the last one. */
  async function locked(
    ids: readonly string[],
    ...statements: readonly (readonly [sql: string, parameters: readonly Parameter[]])[]
  ): Promise<readonly Row[]> {
    const results = await pool
      .transact((run) =>
        Promise.all([run(LOCK, [ids]), ...statements.map((statement) => run(...statement)), run('COMMIT')]),
      )
      .catch(fail);
    return results.at(-2) ?? [];
  }

  return {
    async find(id) {
      const [row] = await pool.run(FIND, [id]);
      return row === undefined ? undefined : { record: recordOf(row), offset: row['bytes'] as number };
    },
    expired: async (now, limit) => (await pool.run(EXPIRED, [now, limit])).map(recordOf),
    async unfinished(owner) {
      const [row] = await (owner === undefined ? pool.run(COUNT) : pool.run(COUNT_OF, [ownerKey(owner)]));
      return row?.['n'] as number;
    },
    async create(upload, { unfinishedMax, unfinishedMaxPerSubject }) {
      const { id, owner, sizeBytes, expiresAt, record } = upload;
      const values = [id, ownerKey(owner), sizeBytes, expiresAt, record] as const;
      const [row] = await pool.run(CREATE, [...values, unfinishedMax, unfinishedMaxPerSubject]);
      if (row?.['made'] === true) return 'created';
      if (row?.['full_for_owner'] === true) return 'full_for_owner';
      return row?.['is_full'] === true ? 'full' : 'exists';
    },
    async change({ id, record, sizeBytes, expiresAt }) {
      const values = [id, record, sizeBytes, expiresAt];
      return (await pool.run(CHANGE, values)).length > 0;
    },
    async extend({ uploadId, offset, sizeBytes, key }) {
      const [row] = await pool.run(EXTEND, [uploadId, offset, sizeBytes, key, clock.now()]);
      if (row?.['intended'] !== true) return 'not_intended';
      return row['moved'] === true ? 'extended' : 'moved';
    },
    async cut(id, offset, end) {
      await locked([id], [CUT, [id, clock.now(), offset, end]]);
    },
    async parts(id) {
      const rows = await pool.run(PARTS, [id]);
      return rows.map(
        (row): UploadPart => ({
          uploadId: id,
          offset: row['at'] as number,
          sizeBytes: row['size'] as number,
          key: row['key'] as BlobKey,
        }),
      );
    },
    async finish(uploads) {
      const ids = uploads.map(({ id }) => id);
      const rows = uploads.map((upload) => ({
        id: upload.id,
        owner_key: ownerKey(upload.owner),
        size: upload.sizeBytes,
        expires_at: upload.expiresAt,
        media: upload.mediaId,
        record: upload.record,
      }));
      await locked(ids, [FINISH, [JSON.stringify(rows)]], [FORGET_PARTS, [ids, clock.now()]]);
    },
    async drop(id) {
      return (await locked([id], [FORGET_PARTS, [[id], clock.now()]], [DROP, [id]])).length > 0;
    },
  };
}

function recordOf(row: Row): string {
  return row['record'] as string;
}
