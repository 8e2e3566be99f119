/**
 * Checks that the records agree with each other, page by page, while the service may be running. Each page is one
 * statement, and what a repair would change is judged again under its lock. It checks what a constraint of the
 * schema cannot say. There are no indexes that could be wrong as in LMDB.
 */
import type { Sha256 } from '../../../src/ids.js';
import type { Change } from '../database.js';
import { queueJob } from '../queue.js';
import type { MetaFindingKind, VerifyOptions } from '../store.js';
import { DEAD, JOBS, BLOBS as RECORDS, read, write } from '../tables.js';
import { updateReference } from '../takedown.js';
import type { Pool } from './pool.js';
import { MEDIA_ROWS } from './rows.js';
import { byteaOf, hashOf, uuidOf } from './values.js';
import type { Writes } from './writes.js';

const PAGE = 1_000;
const LIVE = 'EXISTS (SELECT FROM media WHERE media.sha256 = blob.sha256 AND ended IS NULL)';
const BLOBS = `
  SELECT sha256, free_since, ${LIVE} AS live, thumbs->>'kind' = 'pending' AS pending,
    EXISTS (SELECT FROM job WHERE job.sha256 = blob.sha256) AS queued
  FROM blob WHERE sha256 > $1 ORDER BY sha256 LIMIT $2`;
const strayOf = (table: string): string => `
  SELECT sha256, EXISTS (SELECT FROM blob WHERE blob.sha256 = ${table}.sha256) AS known
  FROM ${table} WHERE sha256 > $1 ORDER BY sha256 LIMIT $2`;
const MEDIA = `
  SELECT *, ended IS NOT NULL OR EXISTS (SELECT FROM blob WHERE blob.sha256 = media.sha256) AS known
  FROM media WHERE id > $1 ORDER BY id LIMIT $2`;
const JOURNAL = 'SELECT count(*) AS entries, coalesce(max(seq) - min(seq) + 1, 0) AS numbers FROM journal';

export async function verifyRows(pool: Pool, writes: Writes, options: VerifyOptions): Promise<void> {
  const { repair, now } = options;
  const found = async (
    kind: MetaFindingKind,
    table: string,
    sha256: Sha256,
    detail: string,
    mend: (change: Change) => void,
  ): Promise<void> => {
    if (repair) await writes.run({ rule: mend, facts: [{ kind: 'blob', sha256 }], urgency: 'may_fail' });
    options.onFinding({ kind, table, key: sha256, detail, repaired: repair });
  };

  for await (const row of pagesOf(pool, options, 'media', MEDIA, uuidOf)) {
    if (row['known'] !== true) options.onBlobUnknown(MEDIA_ROWS.valueOf(row).record);
  }
  for await (const row of pagesOf(pool, options, 'blob', BLOBS, byteaOf)) {
    const sha256 = hashOf(row['sha256'] as string);
    const [live, isFree] = [row['live'] === true, row['free_since'] !== null];
    if (live === isFree) {
      const detail = live ? 'a live id refers to it' : 'no live id refers to it';
      await found('reference_wrong', 'blob', sha256, detail, (change) => updateReference(change, sha256, now));
    }
    if (live && row['pending'] === true && row['queued'] !== true) {
      const detail = 'its thumbnails are pending, but it has no job';
      await found('job_missing', 'job', sha256, detail, (change) => {
        // It may have been done meanwhile.
        if (read(change.writer, RECORDS, sha256)?.blob.thumbs.kind !== 'pending') return;
        queueJob(change, sha256, 'backfill', now);
      });
    }
  }
  for (const table of [JOBS, DEAD]) {
    for await (const row of pagesOf(pool, options, table.name, strayOf(table.name), byteaOf)) {
      if (row['known'] === true) continue;
      const sha256 = hashOf(row['sha256'] as string);
      await found('job_stray', table.name, sha256, 'there is no such blob', ({ writer }) => {
        // One may have been uploaded meanwhile.
        if (read(writer, RECORDS, sha256) !== undefined) return;
        if (table === JOBS) write(writer, JOBS, sha256, undefined);
        else write(writer, DEAD, sha256, undefined);
      });
    }
  }
  const [journal] = await pool.run(JOURNAL);
  if (journal?.['entries'] !== journal?.['numbers']) {
    options.onFinding({
      kind: 'journal_broken',
      table: 'journal',
      key: '',
      detail: 'numbers are missing in it',
      repaired: false,
    });
  }
}

/** Every row of a table by its key: a hash or an id, whose lowest values these are. */
async function* pagesOf(
  pool: Pool,
  options: VerifyOptions,
  table: string,
  sql: string,
  written: typeof byteaOf | typeof uuidOf,
) {
  let after = written === byteaOf ? '\\x' : '00000000-0000-0000-0000-000000000000';
  for (let seen = 0; ; ) {
    const page = await pool.run(sql, [after, PAGE]);
    yield* page;
    seen += page.length;
    options.onProgress({ table, seen });
    options.signal.throwIfAborted();
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) return;
    after = (written === byteaOf ? last['sha256'] : last['id']) as string;
  }
}
