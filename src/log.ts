/**
 * Structured logs: one JSON object per line, written by logs/output.ts. Tokens,
 * signatures and cookies are never logged: callers log named fields, never whole
 * sets of header fields, and every text passes through redact.ts. The lines of
 * requests are made in logs/request-line.ts.
 */
import { type Logger, pino } from 'pino';
import { choice, integer, section, size, text, type ValueOf } from './config/field.js';
import { standardOutput } from './logs/standard-output.js';
import { redactText } from './redact.js';
import { otlpSection } from './tracing/config.js';
import { TRACE_SENDERS } from './tracing/context.js';

export const logSection = section(
  'Logs: lines on standard output or in a file, one for each answered request and for what happens.',
  {
    level: choice({
      default: 'info',
      of: ['trace', 'debug', 'info', 'warn', 'error', 'silent'],
      live: true,
      help: 'The least severe level that is written.',
    }),
    requests: choice({
      default: 'all',
      of: ['all', 'failed', 'none'],
      live: true,
      help: 'Which requests are logged: all, those answered with 500 or above, or none.',
    }),
    format: choice({
      default: 'json',
      of: ['json', 'combined'],
      help: 'How requests are written: as JSON, or in the combined format of Apache and nginx, which has fewer fields. All other lines are JSON.',
    }),
    to: choice({
      default: 'stdout',
      of: ['stdout', 'file'],
      help: 'Where the lines go. With `format: combined` the file has requests alone; all other lines go to standard output.',
    }),
    file: section('The file of `to: file`. On SIGUSR1 it is opened anew, for logrotate.', {
      path: text({
        default: './data/log/{process}.log',
        pattern: /\S/,
        accepts: 'a path; {process} stands for edge or origin',
        help: 'The file. All workers of an edge write to one.',
      }),
      sizeMaxBytes: size({
        default: '100MiB',
        min: 0,
        max: 1_099_511_627_776,
        help: 'A file that would grow beyond it is renamed to PATH.1, and so on. 0: never, because something else does it.',
      }),
      keep: integer({ default: 5, min: 0, max: 1_000, help: 'How many renamed files are kept.' }),
    }),
    trace: choice({
      default: 'trusted',
      of: TRACE_SENDERS,
      help: 'Whose W3C trace context (`traceparent`, `tracestate`) is continued, logged as trace_id and span_id, and passed on to the origin: that of trusted_proxies and proved edges, of anyone, or of nobody. Any other is replaced by a new one; with `nobody` it is dropped.',
    }),
    otlp: otlpSection,
    waitingMaxBytes: size({
      default: '16MiB',
      min: 65_536,
      max: 1_073_741_824,
      help: 'How much may wait for a slow reader of the output, or a slow disk. Further lines are lost, and so are those that a full disk does not take; their number is logged and counted.',
    }),
  },
);

export type LogConfig = ValueOf<typeof logSection>;
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  child(fields: LogFields): Log;
  /** Writes whole lines that were made elsewhere, perhaps a moment later. */
  lines(text: string, of: 'requests' | 'others'): void;
  /** From now on, also for children. */
  setLevel(level: LogConfig['level']): void;
}

export interface LogSink {
  write(line: string): void;
  /** For the lines of requests, which are frequent. Absent: `write`. */
  gather?(line: string): void;
}

/** `name` is the process that writes the lines. */
export function createLog(name: string, config: Pick<LogConfig, 'level'>, sink: LogSink = standardOutput()): Log {
  const options = {
    name,
    // Children of pino have a level of their own, which would stay.
    level: 'trace',
    base: { name, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }), log: (fields: LogFields) => redacted(fields) },
    redact: {
      paths: [
        'authorization',
        'cookie',
        'token',
        'secret',
        'signature',
        'sig',
        '*.authorization',
        '*.cookie',
        '*.token',
      ],
      censor: '[redacted]',
    },
  };
  return logOf(pino(options, sink), sink, { least: LEVELS.indexOf(config.level) });
}

/** From the least severe; nothing is as severe as the last. */
const LEVELS: readonly LogConfig['level'][] = ['trace', 'debug', 'info', 'warn', 'error', 'silent'];

/** pino formats the fields of each line, but not those of a child. `shown`: shared with all children. */
function logOf(logger: Logger, sink: LogSink, shown: { least: number }): Log {
  const write = (level: 'debug' | 'info' | 'warn' | 'error') => {
    const rank = LEVELS.indexOf(level);
    return (fields: LogFields, message: string): void => {
      if (rank >= shown.least) logger[level](fields, message);
    };
  };
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: (fields) => logOf(logger.child(redacted(fields)), sink, shown),
    lines: (text, of) => (of === 'others' || sink.gather === undefined ? sink.write(text) : sink.gather(text)),
    setLevel(level) {
      shown.least = LEVELS.indexOf(level);
    },
  };
}

/** What is logged of an expected failure: its message and those of its causes, without a stack. */
export function errorFields(thrown: unknown): LogFields {
  if (!(thrown instanceof Error)) return { error: String(thrown) };
  const causes: string[] = [];
  for (let cause = thrown.cause; cause !== undefined && causes.length < CAUSES_MAX; cause = causeOf(cause)) {
    causes.push(cause instanceof Error ? `${cause.name}: ${cause.message}` : JSON.stringify(cause));
  }
  return { error: thrown.message, ...(causes.length > 0 && { causes }) };
}

/** What is logged of a possible bug: the same with the stack. */
export function bugFields(thrown: unknown): LogFields {
  return thrown instanceof Error ? { ...errorFields(thrown), stack: thrown.stack } : errorFields(thrown);
}

const CAUSES_MAX = 5;

function causeOf(cause: unknown): unknown {
  return cause instanceof Error ? cause.cause : undefined;
}

const TARGET_CHARS_MAX = 2_048;

/** A request target without the values of parameters that grant access, and of limited length. */
export function loggable(target: string): string {
  return redactText(target).slice(0, TARGET_CHARS_MAX);
}

/** Objects in fields are few and flat. */
const DEPTH_MAX = 6;

/** The fields with every text in them redacted. */
function redacted<T>(value: T, depth?: number): T;
function redacted(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return redactText(value);
  if (typeof value !== 'object' || value === null || depth >= DEPTH_MAX) return value;
  if (Array.isArray(value)) return value.map((each) => redacted(each, depth + 1));
  if (value instanceof Error || Buffer.isBuffer(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, redacted(each, depth + 1)]));
}
