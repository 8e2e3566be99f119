/**
 * The line that each request gets in the log. Apart from all other lines, since
 * there is one for every hit: its fields are a closed list made by us, none of
 * which can hold a secret, so that nothing has to be looked for and taken out.
 * The same form and the same output as the rest (log.ts).
 */
import type { Clock } from './clock.js';
import { type LogConfig, type LogSink, standardOutput } from './log.js';

export type RequestFields = Readonly<Record<string, string | number | boolean>>;

export interface RequestLog {
  /** Whether an answer with this status gets a line; 0: a request that was not answered. */
  wants(status: number): boolean;
  write(fields: RequestFields): void;
}

/** `name` says which process writes it. */
export function createRequestLog(
  name: string,
  config: LogConfig,
  clock: Pick<Clock, 'now'>,
  sink: LogSink = standardOutput(),
): RequestLog {
  const mode = SHOWN_AT.has(config.level) ? config.requests : 'none';
  const source = `"name":${JSON.stringify(name)},"pid":${process.pid}`;
  let at = Number.NaN;
  let begin = '';

  return {
    wants: (status) => mode === 'all' || (mode === 'failed' && (status >= 500 || status === 0)),
    write(fields) {
      const now = clock.now();
      if (now !== at) {
        at = now;
        begin = `{"level":"info","time":"${new Date(now).toISOString()}",${source},`;
      }
      sink.write(`${begin}${JSON.stringify(fields).slice(1, -1)},"msg":"request"}\n`);
    },
  };
}

/** The levels at which `info` is written. */
const SHOWN_AT: ReadonlySet<string> = new Set<LogConfig['level']>(['trace', 'debug', 'info']);
