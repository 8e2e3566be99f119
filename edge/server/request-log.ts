/**
 * The log line of each request. It is written apart from all other lines
 * because every hit writes one: its fields are a fixed list that the edge makes
 * itself and that can hold no secret, so that nothing has to be searched and
 * removed. Form and output are those of src/log.ts.
 */
import type { Clock, EpochMs } from '../../src/clock.js';
import { type LogConfig, type LogSink, loggable } from '../../src/log.js';
import { standardOutput } from '../../src/standard-output.js';
import type { Ended } from '../request.js';

export interface RequestLine extends Ended {
  readonly requestId: string;
  readonly method: string;
  /** As received. */
  readonly target: string;
}

export interface RequestLog {
  write(line: RequestLine): void;
}

/** `name` is the name of the process. `config.requests` is read for each line: a reload may change it. */
export function createRequestLog(
  name: string,
  config: Pick<LogConfig, 'level' | 'requests'>,
  clock: Pick<Clock, 'now'>,
  sink: LogSink = { write: (line) => standardOutput().gather(line) },
): RequestLog {
  const shown = SHOWN_AT.has(config.level);
  const source = `"name":${JSON.stringify(name)},"pid":${process.pid}`;
  let at: EpochMs = Number.NaN;
  let start = '';

  /** The same text for all lines of one millisecond. */
  function startAt(now: EpochMs): string {
    if (now !== at) {
      at = now;
      start = `{"level":"info","time":"${new Date(now).toISOString()}",${source},`;
    }
    return start;
  }

  return {
    write({ requestId, method, target, status, outcome, sentBytes, complete, tookMs }) {
      const { requests } = config;
      if (!shown || requests === 'none' || (requests === 'failed' && status < 500 && status !== 0)) return;
      sink.write(
        `${startAt(clock.now())}"requestId":"${requestId}","method":${quoted(method)},"target":${quoted(loggable(target))},` +
          `"status":${status},"outcome":"${outcome}","sentBytes":${sentBytes},"complete":${complete},` +
          `"tookMs":${Math.round(tookMs)},"msg":"request"}\n`,
      );
    },
  };
}

/** The log levels at which lines of level `info` are written. */
const SHOWN_AT: ReadonlySet<string> = new Set<LogConfig['level']>(['trace', 'debug', 'info']);

/** Characters that JSON escapes (RFC 8259 7), and all that are not ASCII. */
const ESCAPED = /[^\x20\x21\x23-\x5b\x5d-\x7e]/;

/** Most targets need no escape, and then JSON.stringify is not called. */
function quoted(text: string): string {
  return ESCAPED.test(text) ? JSON.stringify(text) : `"${text}"`;
}
