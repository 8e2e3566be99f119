/**
 * Connections to PostgreSQL. Only this file imports the package, and guards it:
 * - an error on a connection, in use or not, ends the process unless it is listened for;
 * - a query over a cut cable never ends: each has a time limit, and its connection is not used again;
 * - int8 is read as a number after a check, as text it would be compared as text.
 *
 * Statements are sent without waiting for the one before (`pipeline`): the server runs them in order. Unnamed statements
 * and settings of one transaction (SET LOCAL) work through PgBouncer in transaction mode too.
 */
import { Socket } from 'node:net';
import pg from 'pg';
import { Fault } from '../../../src/errors.js';
import { errorFields, type Log } from '../../../src/log.js';
import type { PostgresConfig } from '../config.js';
import type { Row } from './rows.js';

export type Parameter = string | number | boolean | null | readonly (string | number)[];

/** Runs one statement. Its rows have values as values.ts reads them. */
export type Run = (sql: string, parameters?: readonly Parameter[]) => Promise<readonly Row[]>;

export type Pool = {
  /** One statement in a transaction of its own. */
  readonly run: Run;
  /**
   * A transaction at READ COMMITTED. `body` ends by sending `COMMIT` itself, behind its last statements. If it rejects,
   * nothing is changed, unless the answer to COMMIT was lost. Rejects with the error of the first statement that failed.
   */
  transact<T>(body: (run: Run) => Promise<T>): Promise<T>;
  close(): Promise<void>;
};

/** Which states of the server mean that the same transaction may succeed if it is run again. */
const AGAIN = new Set(['40001', '40P01', '23505']);

export function isWorthAnotherTry(thrown: unknown): boolean {
  return AGAIN.has(stateOf(thrown));
}

/** Data exceptions, broken constraints, and limits of what a record may be. */
const OF_CONTENT = new Set(['22', '23', '54']);

/** Whether the content of what was sent is why it failed, so that without it the rest may succeed. */
export function isOfContent(thrown: unknown): boolean {
  return OF_CONTENT.has(stateOf(thrown).slice(0, 2));
}

/** SQLSTATE, or empty for what did not come from the server. */
export function stateOf(thrown: unknown): string {
  return thrown instanceof pg.DatabaseError ? (thrown.code ?? '') : '';
}

/** 53100: its disk is full. All else is what the origin cannot help. */
export function faultOfDatabase(thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  const full = stateOf(thrown) === '53100';
  return full
    ? new Fault('storage_full', 'The metadata store has no room left.', { cause: thrown })
    : new Fault('storage_unavailable', 'The metadata store cannot be used at the moment.', { cause: thrown });
}

/** The same pool for a store that is open: what fails is a fault that a request can be answered with. */
export function withFaults(pool: Pool): Pool {
  return { ...pool, run: (sql, parameters) => pool.run(sql, parameters).catch(fail) };
}

export function fail(thrown: unknown): never {
  throw faultOfDatabase(thrown);
}

export function openPool(config: PostgresConfig, url: string, log: Log): Pool {
  const settings = {
    connectionString: url,
    max: config.poolMax,
    connectionTimeoutMillis: config.connectTimeoutMs,
    query_timeout: config.statementTimeoutMs + config.connectTimeoutMs,
    keepAlive: true,
    application_name: 'media-service',
    types: { getTypeParser: parserOf },
    pipeline: true,
    stream: gatheringSocket,
  };
  const pool = new pg.Pool(settings);
  pool.on('error', (error) => log.warn(errorFields(error), 'a connection to the database was lost'));
  // The query that it was busy with fails too.
  pool.on('connect', (client) => client.on('error', () => undefined));
  const begin =
    'BEGIN ISOLATION LEVEL READ COMMITTED; ' +
    `SET LOCAL statement_timeout = ${config.statementTimeoutMs}; SET LOCAL lock_timeout = ${config.lockTimeoutMs}; ` +
    // A process that was stopped must not keep its locks from the other origins.
    `SET LOCAL idle_in_transaction_session_timeout = ${config.statementTimeoutMs}`;
  return {
    async run(sql, parameters = []) {
      const client = await pool.connect();
      try {
        const { rows } = await client.query(sql, [...parameters]);
        client.release();
        return rows as readonly Row[];
      } catch (thrown) {
        client.release(!isFromServer(thrown));
        throw thrown;
      }
    },
    async transact(body) {
      const client = await pool.connect();
      let broken: unknown = null;
      const run: Run = async (sql, parameters = []) => {
        try {
          const { rows } = await client.query(sql, [...parameters]);
          return rows as readonly Row[];
        } catch (thrown) {
          // Those behind it fail because of it.
          broken ??= thrown;
          throw thrown;
        }
      };
      const begun = run(begin);
      begun.catch(() => undefined);
      try {
        const result = await body(run);
        await begun;
        client.release();
        return result;
      } catch (thrown) {
        const rolledBack = await client.query('ROLLBACK').then(
          () => true,
          () => false,
        );
        client.release(!rolledBack);
        throw broken ?? thrown;
      }
    },
    async close() {
      await pool.end();
    },
  };
}

/** Sends what is written at the same time in one piece: each piece costs a system call here, and wakes the server. */
function gatheringSocket(): Socket {
  const socket = new Socket();
  const write = socket.write.bind(socket) as (...given: readonly unknown[]) => boolean;
  let gathers = false;
  const gather = (...given: readonly unknown[]): boolean => {
    if (!gathers) {
      gathers = true;
      socket.cork();
      process.nextTick(() => {
        gathers = false;
        socket.uncork();
      });
    }
    return write(...given);
  };
  // Connecting puts the usual method back.
  return socket.once('connect', () => Object.assign(socket, { write: gather }));
}

function isFromServer(thrown: unknown): boolean {
  return thrown instanceof pg.DatabaseError && !FATAL.has(thrown.severity ?? '');
}

const FATAL = new Set(['FATAL', 'PANIC']);

function parserOf(
  type: Parameters<typeof pg.types.getTypeParser>[0],
  format: 'text' | 'binary' = 'text',
): (value: string) => unknown {
  if (type === pg.types.builtins.INT8) return wholeNumber;
  if (type === pg.types.builtins.BYTEA) return (value) => value;
  return pg.types.getTypeParser(type, format) as (value: string) => unknown;
}

function wholeNumber(value: string): number {
  const read = Number(value);
  if (!Number.isSafeInteger(read)) throw new Error(`${value} is beyond the whole numbers that can be read`);
  return read;
}
