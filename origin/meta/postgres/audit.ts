/** The audit log in PostgreSQL: lines are added, and never changed or removed here. */
import type { AuditTable } from '../origins/shared.js';
import type { Pool } from './pool.js';

const APPEND = `
  INSERT INTO audit (at, line)
  SELECT at, line FROM jsonb_to_recordset($1) WITH ORDINALITY AS added (at bigint, line text, nth bigint) ORDER BY nth`;

export function createAuditTable(pool: Pool): AuditTable {
  return {
    async append(lines) {
      await pool.run(APPEND, [JSON.stringify(lines)]);
    },
  };
}
