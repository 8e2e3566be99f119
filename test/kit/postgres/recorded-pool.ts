/**
 * A pool without a server. It records every statement, by the transaction in which it was sent, and answers as it is told.
 * A transaction ends in `COMMIT` or in `ROLLBACK`.
 */
import type { Parameter, Pool, Run } from '../../../origin/meta/postgres/pool.js';
import type { Row } from '../../../origin/meta/postgres/rows.js';

export type Statement = {
  readonly sql: string;
  readonly parameters: readonly Parameter[];
  /** From 1; 0 for a statement in a transaction of its own. */
  readonly transaction: number;
};

export type RecordedPool = Pool & {
  readonly statements: readonly Statement[];
  /** Those of one transaction, each by its first words. */
  wordsOf(transaction: number): readonly string[];
};

/** Gives the rows of a statement; undefined stands for none. May reject. */
export type Answer = (statement: Statement) => readonly Row[] | undefined | Promise<readonly Row[] | undefined>;

export function createRecordedPool(answer: Answer = () => undefined): RecordedPool {
  const statements: Statement[] = [];
  let transactions = 0;
  const runIn =
    (transaction: number): Run =>
    async (sql, parameters = []) => {
      const statement = { sql: sql.trim().replaceAll(/\s+/g, ' '), parameters, transaction };
      statements.push(statement);
      return (await answer(statement)) ?? [];
    };
  return {
    statements,
    wordsOf: (transaction) =>
      statements.filter((one) => one.transaction === transaction).map(({ sql }) => wordsOf(sql)),
    run: runIn(0),
    async transact(body) {
      transactions += 1;
      const run = runIn(transactions);
      try {
        return await body(run);
      } catch (thrown) {
        await run('ROLLBACK');
        throw thrown;
      }
    },
    close: async () => undefined,
  };
}

/** What a statement does and to which table, and whether it locks. */
function wordsOf(sql: string): string {
  const lock = sql.endsWith('FOR UPDATE') ? ' lock' : '';
  const found = [...sql.matchAll(/(SELECT [^()]*? FROM|INSERT INTO|UPDATE|DELETE FROM) (\w+)/g)];
  // A statement that writes selects only what it writes.
  const writes = found.filter(([, verb]) => verb?.startsWith('SELECT') === false);
  const named = writes.length > 0 ? writes : found.slice(0, 1);
  const words = named.map(([, verb, table]) => `${verb?.split(' ')[0]?.toLowerCase()} ${table}${lock}`);
  return words.length === 0 ? sql : words.join(', ');
}
