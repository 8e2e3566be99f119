/**
 * Structured logs, one JSON object a line on standard output. Tokens,
 * signatures and cookies never reach it: what callers hand in is named fields,
 * never whole header sets, and targets pass through `loggable` first.
 */
import { pino } from 'pino';
import { type Clock, systemClock } from './clock.js';
import { choice, section, type ValueOf } from './config/field.js';

export const logSection = section('Logs: JSON lines on standard output.', {
  level: choice({
    default: 'info',
    of: ['trace', 'debug', 'info', 'warn', 'error', 'silent'],
    help: 'The least grave line that is written.',
  }),
  requests: choice({
    default: 'all',
    of: ['all', 'failed', 'none'],
    help: 'Which requests get a line of their own: all, those answered 500 and above, or none.',
  }),
});

export type LogConfig = ValueOf<typeof logSection>;
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  child(fields: LogFields): Log;
}

export interface LogSink {
  write(line: string): void;
}

/** `name` says which process wrote the line. */
export function createLog(name: string, config: LogConfig, sink?: LogSink): Log {
  const options = {
    name,
    level: config.level,
    base: { name, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
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
  return pino(options, sink ?? standardOutput());
}

export interface StandardOutput extends LogSink {
  /** The same for lines of which there are many: they go out with the next other line, or a moment later. */
  gather(line: string): void;
}

/** One for all logs of the process, opened by the first. */
export function standardOutput(): StandardOutput {
  opened ??= openStandardOutput(systemClock);
  return opened;
}

let opened: StandardOutput | undefined;

/**
 * pino's own destination tries for ever, and blocks, where a process ends after
 * the reader of its output has gone (sonic-boom's flush at exit). Ours drops the
 * lines that nobody can read, and writes those of one turn of the event loop
 * together: a line for every request costs a system call only once in a while.
 */
function openStandardOutput(clock: Pick<Clock, 'after'>): StandardOutput {
  process.stdout.on('error', () => undefined);
  let gathered = '';
  const flush = (): void => {
    if (gathered === '') return;
    const lines = gathered;
    gathered = '';
    process.stdout.write(lines);
  };
  // However the process ends, short of a kill: standard output is written synchronously then.
  process.once('exit', flush);
  let soon = false;
  let later = false;
  const add = (line: string): void => {
    gathered += line;
    if (gathered.length >= GATHERED_MAX) flush();
  };
  return {
    write(line) {
      if (!soon) {
        soon = true;
        setImmediate(() => {
          soon = false;
          flush();
        });
      }
      add(line);
    },
    gather(line) {
      if (!later) {
        later = true;
        clock.after(GATHERED_MS, () => {
          later = false;
          flush();
        });
      }
      add(line);
    },
  };
}

/** Characters of lines that wait, and for how long those do of which there are many. */
const GATHERED_MAX = 65_536;
const GATHERED_MS = 20;

/** What is logged of a failure that was foreseen: its own words and those of its causes, without a stack. */
export function errorFields(thrown: unknown): LogFields {
  if (!(thrown instanceof Error)) return { error: String(thrown) };
  const causes: string[] = [];
  for (let cause = thrown.cause; cause !== undefined && causes.length < CAUSES_MAX; cause = causeOf(cause)) {
    causes.push(cause instanceof Error ? `${cause.name}: ${cause.message}` : JSON.stringify(cause));
  }
  return { error: thrown.message, ...(causes.length > 0 && { causes }) };
}

/** The same for what may be a bug: with its stack. */
export function bugFields(thrown: unknown): LogFields {
  return thrown instanceof Error ? { ...errorFields(thrown), stack: thrown.stack } : errorFields(thrown);
}

const CAUSES_MAX = 5;

function causeOf(cause: unknown): unknown {
  return cause instanceof Error ? cause.cause : undefined;
}

const SECRET_PARAMETERS = /([?&](?:sig|token|access_token|key)=)[^&]*/gi;

const TARGET_CHARS_MAX = 2_048;

/** A request target without the values of parameters that grant access. */
export function loggable(target: string): string {
  if (target.length <= TARGET_CHARS_MAX && !target.includes('=')) return target;
  return target.replace(SECRET_PARAMETERS, '$1[redacted]').slice(0, TARGET_CHARS_MAX);
}
