/**
 * The line that each request gets in the log. Apart from all other lines, since
 * there is one for every hit: its fields are a closed list made by us, none of
 * which can hold a secret, so that nothing has to be looked for and taken out.
 * The same form and the same output as the rest (src/log.ts).
 */
import type { Clock, EpochMs } from '../../src/clock.js';
import { type LogConfig, type LogSink, loggable, standardOutput } from '../../src/log.js';
import type { Outcome } from '../ops/tally.js';

export interface RequestLine {
  readonly requestId: string;
  readonly method: string;
  /** As received. */
  readonly target: string;
  /** 0: it was not answered. */
  readonly status: number;
  readonly outcome: Outcome;
  readonly sentBytes: number;
  /** Whether all of the answer was handed to the connection. */
  readonly complete: boolean;
  readonly tookMs: number;
}

export interface RequestLog {
  write(line: RequestLine): void;
}

/** `name` says which process writes it. `config.requests` is read anew for each line: it may change. */
export function createRequestLog(
  name: string,
  config: LogConfig,
  clock: Pick<Clock, 'now'>,
  sink: LogSink = { write: (line) => standardOutput().gather(line) },
): RequestLog {
  const shown = SHOWN_AT.has(config.level);
  const source = `"name":${JSON.stringify(name)},"pid":${process.pid}`;
  let at: EpochMs = Number.NaN;
  let begin = '';

  /** Made once a millisecond. */
  function beginAt(now: EpochMs): string {
    if (now !== at) {
      at = now;
      begin = `{"level":"info","time":"${new Date(now).toISOString()}",${source},`;
    }
    return begin;
  }

  return {
    write({ requestId, method, target, status, outcome, sentBytes, complete, tookMs }) {
      const { requests } = config;
      if (!shown || requests === 'none' || (requests === 'failed' && status < 500 && status !== 0)) return;
      sink.write(
        `${beginAt(clock.now())}"requestId":"${requestId}","method":${quoted(method)},"target":${quoted(loggable(target))},` +
          `"status":${status},"outcome":"${outcome}","sentBytes":${sentBytes},"complete":${complete},` +
          `"tookMs":${Math.round(tookMs)},"msg":"request"}\n`,
      );
    },
  };
}

/** The levels at which `info` is written. */
const SHOWN_AT: ReadonlySet<string> = new Set<LogConfig['level']>(['trace', 'debug', 'info']);

/** What JSON would not write as it stands (RFC 8259 7); all but ASCII is left to it as well. */
const ESCAPED = /[^\x20\x21\x23-\x5b\x5d-\x7e]/;

function quoted(text: string): string {
  return ESCAPED.test(text) ? JSON.stringify(text) : `"${text}"`;
}
