/** The audit log in PostgreSQL: lines are added, and never changed or removed here. */
import type { Change } from '../database.js';
import type { AuditLine, AuditTable, Note } from '../origins/shared.js';
import type { Pool, Run } from './pool.js';

const ADD = `
  INSERT INTO audit (at, line)
  SELECT (added.line->>0)::bigint, (added.line->>1)::json
  FROM json_array_elements($1::json) WITH ORDINALITY AS added (line, nth) ORDER BY nth`;

export function createAuditTable(pool: Pool): AuditTable {
  return {
    async append(lines) {
      await addLines(pool.run, lines);
    },
  };
}

/** In the order in which they are given. */
export async function addLines(run: Run, lines: readonly AuditLine[]): Promise<void> {
  await run(ADD, [JSON.stringify(lines.map(({ at, line }) => [Math.floor(at), line]))]);
}

/** The rule, which also writes down what it came to. */
export function noted<T>(rule: (change: Change) => T, note: Note<T> | undefined): (change: Change) => T {
  if (note === undefined) return rule;
  return (change) => {
    const outcome = rule(change);
    change.notes.push(note(outcome));
    return outcome;
  };
}
