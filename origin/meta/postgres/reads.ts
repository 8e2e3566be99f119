/** What is only read. Each method is one statement; what the rows mean is decided by the same functions as over LMDB. */
import type { EpochMs } from '../../../src/clock.js';
import { lowestIdAt, type MediaId, type Sha256 } from '../../../src/ids.js';
import { foundAsOf, ID_SLACK_MS, stateOf } from '../find.js';
import { chooseBlob } from '../find-sent.js';
import type { BlobRecord, Found } from '../media.js';
import type { ListPage, ListQuery } from '../store.js';
import { ownerKey } from '../tables.js';
import { wouldChange } from '../takedown/owned.js';
import type { MetaReader } from '../transactions.js';
import type { Parameter, Pool } from './pool.js';
import { BLOB_ROWS, MEDIA_ROWS, type Row, USAGE_ROWS } from './rows.js';
import { byteaOf, hashOf, idOf, textOf, uuidOf } from './values.js';

const FIND_BLOB = 'SELECT * FROM blob WHERE sha256 = $1';
/** Both tables name a column sha256: the one of `blob` comes last, and is null where the blob has no record. */
const WITH_BLOB = `
  SELECT media.*, media.sha256 AS media_sha256, blob.* FROM media LEFT JOIN blob ON blob.sha256 = media.sha256`;
const FIND = `${WITH_BLOB} WHERE id = $1`;
/** The blob of the bytes as sent, and those of changed records, in the order of their ids. */
const BY_SENT = `
  SELECT blob.*, NULL::uuid AS by FROM blob WHERE sha256 = $1
  UNION ALL
  SELECT blob.*, media.id FROM media JOIN blob ON blob.sha256 = media.sha256
  WHERE media.sent_sha256 = $1 AND media.sent_sha256 <> media.sha256
  ORDER BY by NULLS FIRST`;
const HELD = `
  SELECT * FROM blob WHERE mark_cause = 'held' AND (mark_at, sha256) > ($1, $2)
  ORDER BY mark_at, sha256 LIMIT $3`;
const FREE = `
  SELECT * FROM blob WHERE free_since < $1 AND mark_cause IS DISTINCT FROM 'admin'
  ORDER BY free_since, sha256 LIMIT $2`;
const BLOBS_AFTER = 'SELECT * FROM blob WHERE sha256 > $1 ORDER BY sha256 LIMIT $2';
const IDS = 'SELECT id FROM media WHERE sha256 = $1 ORDER BY id';
const IS_FREE = `
  SELECT mark_cause IS DISTINCT FROM 'admin'
    AND NOT EXISTS (SELECT FROM media WHERE media.sha256 = blob.sha256 AND ended IS NULL) AS free
  FROM blob WHERE sha256 = $1`;
const TAKEDOWN_SEQ = `
  SELECT greatest(ended_seq, coalesce(mark_seq, 0)) AS seq
  FROM media LEFT JOIN blob ON blob.sha256 = media.sha256 WHERE id = $1`;
const USAGE = 'SELECT * FROM usage WHERE period_at = $1 AND owner_key = $2';
const OWNED = `${WITH_BLOB} WHERE owner_key = $1 AND owner = $2 AND id > $3 ORDER BY id LIMIT $4`;
const LOWEST_UUID = '00000000-0000-0000-0000-000000000000';

export function createReads(pool: Pool, scanMax: number): MetaReader {
  const blobOf = (row: Row): BlobRecord => BLOB_ROWS.valueOf(row).blob;
  return {
    async find(id, now) {
      const [row] = await pool.run(FIND, [uuidOf(id)]);
      return row === undefined ? { kind: 'unknown' } : foundOf(row, now);
    },
    async findBlob(sha256) {
      const [row] = await pool.run(FIND_BLOB, [byteaOf(sha256)]);
      return row && blobOf(row);
    },
    async findBlobBySent(sentSha256) {
      const rows = await pool.run(BY_SENT, [byteaOf(sentSha256)]);
      const asSent = rows.find((row) => row['by'] === null);
      const others = rows.filter((row) => row !== asSent);
      return chooseBlob(
        asSent && BLOB_ROWS.valueOf(asSent),
        others.map((row) => BLOB_ROWS.valueOf(row)),
      );
    },
    async blobsAwaitingScan(after, limit) {
      const start = after === null ? [-1, '\\x'] : [after.quarantine?.at ?? 0, byteaOf(after.sha256)];
      return (await pool.run(HELD, [...start, limit])).map(blobOf);
    },
    async unreferencedBlobs(before, limit) {
      return (await pool.run(FREE, [before, limit])).map(blobOf);
    },
    list: (query) => list(pool, query, scanMax),
    async owned({ owner, act, after, limit, now }) {
      const start = after === null ? LOWEST_UUID : uuidOf(after);
      const rows = await pool.run(OWNED, [ownerKey(owner), textOf(owner), start, limit]);
      const media = rows.map((row) => ({
        record: MEDIA_ROWS.valueOf({ ...row, sha256: row['media_sha256'] }).record,
        blob: row['sha256'] === null ? undefined : blobOf(row),
      }));
      const ids = media
        .filter(({ record, blob }) => wouldChange(act, record, blob, now))
        .map(({ record }) => record.id);
      return { ids, next: rows.length < limit ? null : (media.at(-1)?.record.id ?? null) };
    },
    async blobsAfter(after, limit) {
      const blobs = (await pool.run(BLOBS_AFTER, [after === null ? '\\x' : byteaOf(after), limit])).map(blobOf);
      return { blobs, next: blobs.length < limit ? null : (blobs.at(-1)?.sha256 ?? null) };
    },
    async idsOfBlob(sha256) {
      return (await pool.run(IDS, [byteaOf(sha256)])).map((row) => idOf(row['id'] as string));
    },
    async isUnreferenced(sha256) {
      const [row] = await pool.run(IS_FREE, [byteaOf(sha256)]);
      return row?.['free'] === true;
    },
    async takedownSeqOf(id) {
      const [row] = await pool.run(TAKEDOWN_SEQ, [uuidOf(id)]);
      return (row?.['seq'] as number | undefined) ?? 0;
    },
    async usage(owner, periodStartAt) {
      const [row] = await pool.run(USAGE, [periodStartAt, ownerKey(owner)]);
      return row === undefined ? { bytes: 0, files: 0 } : USAGE_ROWS.valueOf(row);
    },
  };
}

/** `row` is one of WITH_BLOB. */
function foundOf(row: Row, now: EpochMs): Exclude<Found, { kind: 'unknown' }> {
  const { record } = MEDIA_ROWS.valueOf({ ...row, sha256: row['media_sha256'] });
  return foundAsOf(record, () => (row['sha256'] === null ? undefined : BLOB_ROWS.valueOf(row).blob), now);
}

async function list(pool: Pool, query: ListQuery, scanMax: number): Promise<ListPage> {
  const found: ListPage['found'][number][] = [];
  let after = startOf(query);
  let scanned = 0;
  for (;;) {
    const step = Math.min(query.limit, scanMax - scanned);
    const rows = await pool.run(...pageOf(query, after, step));
    for (const row of rows) {
      after = { id: idOf(row['id'] as string), itself: false };
      const entry = foundOf(row, query.now);
      if (query.state === undefined || stateOf(entry) === query.state) found.push(entry);
      scanned += 1;
      if (found.length >= query.limit || scanned >= scanMax) return { found, next: after.id };
    }
    if (rows.length < step) return { found, next: null };
  }
}

type Start = { readonly id: MediaId | null; readonly itself: boolean };

function startOf({ createdFrom, after }: ListQuery): Start {
  const from = createdFrom === undefined ? undefined : lowestIdAt(createdFrom - ID_SLACK_MS);
  if (from !== undefined && (after ?? '') < from) return { id: from, itself: true };
  return { id: after ?? null, itself: false };
}

function pageOf(query: ListQuery, after: Start, limit: number): [string, Parameter[]] {
  const parameters: Parameter[] = [];
  const given = (value: Parameter): string => `$${parameters.push(value)}`;
  const conditions = [
    after.id === null ? `id >= ${given(LOWEST_UUID)}` : `id ${after.itself ? '>=' : '>'} ${given(uuidOf(after.id))}`,
  ];
  if (query.owner !== undefined) {
    conditions.push(`owner_key = ${given(ownerKey(query.owner))}`, `owner = ${given(textOf(query.owner))}`);
  }
  if (query.mime !== undefined) conditions.push(`mime = ${given(textOf(query.mime))}`);
  if (query.createdFrom !== undefined) conditions.push(`created_at >= ${given(query.createdFrom)}`);
  if (query.createdTo !== undefined) {
    conditions.push(
      `created_at <= ${given(query.createdTo)}`,
      `id <= ${given(uuidOf(lowestIdAt(query.createdTo + ID_SLACK_MS)))}`,
    );
  }
  const sql = `${WITH_BLOB} WHERE ${conditions.join(' AND ')} ORDER BY id LIMIT ${given(limit)}`;
  return [sql, parameters];
}

/** The ids of a selection, for rules that end many. */
export async function idsIn(
  run: Pool['run'],
  sql: string,
  parameters: readonly Parameter[],
): Promise<readonly MediaId[]> {
  return (await run(sql, parameters)).map((row) => idOf(row['id'] as string));
}

export async function hashesIn(
  run: Pool['run'],
  sql: string,
  parameters: readonly Parameter[],
): Promise<readonly Sha256[]> {
  return (await run(sql, parameters)).map((row) => hashOf(row['sha256'] as string));
}
