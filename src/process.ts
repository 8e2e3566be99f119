/**
 * The life of one process: reads the configuration or reports its faults,
 * starts, reports where it listens, and on SIGTERM or SIGINT stops accepting,
 * finishes open requests within a deadline, and exits with 0.
 */
import { sharedController } from './abort.js';
import { type Clock, keepAlive, systemClock } from './clock.js';
import type { LoadContext } from './config/field.js';
import {
  type ConfigFault,
  formatFaults,
  type LoadOutcome,
  loadConfig,
  placedIn,
  processContext,
  type Sections,
  type SectionsOf,
} from './config/load.js';
import { Fault } from './errors.js';
import { closeWithin } from './lifecycle.js';
import { bugFields, createLog, errorFields, type Log, type LogConfig } from './log.js';
import { type LogOutput, openLogOutput } from './logs/output.js';
import { createMetrics, type Metrics } from './metrics.js';
import { sentenceOf } from './system-error.js';
import type { Tracer } from './tracing/tracer.js';
import { ownVersion } from './version.js';

export interface ProcessDeps {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** Absent unless a collector of spans is configured. */
  readonly tracer?: Tracer;
}

export interface Running {
  /** The URLs of the listeners by name: `media`, `operators`. */
  readonly urls: Readonly<Record<string, string>>;
  /** Stops accepting, finishes or breaks off open requests, closes every component. May be called twice. */
  close(): Promise<void>;
}

/** Where the configuration of a process comes from, so that it can be read again while the process runs. */
export interface ConfigSource<C> {
  /** Undefined: there is no file, and every key has its default. */
  readonly path: string | undefined;
  /** Reads and checks all of it again. */
  read(): LoadOutcome<C>;
  /** Its declarations. */
  readonly sections: Sections;
  /** The files of secrets that the last read named. */
  files(): readonly string[];
}

/** What a chore is given besides its configuration. */
export interface ChoreTools extends Pick<ProcessDeps, 'clock' | 'log'> {
  readonly signal: AbortSignal;
  /** Prints one line of what was found or done. */
  print(line: string): void;
  /** Says why it is not done, on standard error. */
  complain(line: string): void;
  /** Shows how far the chore is; each line replaces the one before. */
  progress(line: string): void;
}

/** A task that an operator runs from the command line, such as a backup. Resolves with the exit code. */
export type Chore = (tools: ChoreTools, words: ChoreWords) => Promise<number>;

/** The options and arguments of a chore, by their names on the command line. */
export type ChoreWords = Readonly<Record<string, unknown>>;

/** A process as the command line knows it: its configuration's type stays inside. */
export interface ProcessEntry {
  readonly name: string;
  /** The sections of config.yaml that it reads. */
  readonly sections: Sections;
  /** Reads its configuration from a file; without a path, all defaults. */
  read(path: string | undefined, context?: LoadContext): EntryRead;
}

export type EntryRead =
  | {
      readonly kind: 'loaded';
      readonly log: LogConfig;
      /** What is allowed and yet may be a mistake. */
      readonly warnings: readonly ConfigFault[];
      start(deps: ProcessDeps): Promise<Running>;
      chore(name: string): Chore | undefined;
    }
  | { readonly kind: 'faulty'; readonly faults: readonly ConfigFault[] };

interface EntryOf<C> {
  readonly name: string;
  readonly sections: SectionsOf<C>;
  start(config: C, deps: ProcessDeps, source: ConfigSource<C>): Promise<Running>;
  /** Faults of keys that are right each by itself but do not fit together. */
  check(config: C): readonly ConfigFault[];
  /** Changes what was read, the same at each read. */
  adjust?(config: C): C;
  /** What is allowed and yet may be a mistake. */
  warn?(config: C): readonly ConfigFault[];
  readonly chores?: Readonly<Record<string, (config: C, tools: ChoreTools, words: ChoreWords) => Promise<number>>>;
}

/** Ties the sections of a process to the functions that take what is read of them. */
export function processEntry<C extends { readonly log: LogConfig }>(entry: EntryOf<C>): ProcessEntry {
  return {
    name: entry.name,
    sections: entry.sections,
    read(path, context = processContext) {
      const source = sourceOf(entry, path, context);
      const read = source.read();
      if (read.kind === 'faulty') return read;
      const { config } = read;
      return {
        kind: 'loaded',
        log: config.log,
        warnings: placedIn(path, entry.warn?.(config) ?? [], entry.sections),
        start: (deps) => entry.start(config, deps, source),
        chore(name) {
          const chore = entry.chores?.[name];
          return chore === undefined ? undefined : (tools, words) => chore(config, tools, words);
        },
      };
    },
  };
}

/** Each read notes which files the configuration names. */
function sourceOf<C>(entry: EntryOf<C>, path: string | undefined, context: LoadContext): ConfigSource<C> {
  let files: string[] = [];
  const noting: LoadContext = {
    ...context,
    file(name) {
      files.push(name);
      return context.file(name);
    },
  };
  return {
    path,
    sections: entry.sections,
    files: () => files,
    read() {
      files = [];
      const outcome = loadConfig(path, entry.sections, noting);
      if (outcome.kind === 'faulty') return outcome;
      const config = entry.adjust?.(outcome.config) ?? outcome.config;
      const faults = entry.check(config);
      if (faults.length > 0) return { kind: 'faulty', faults: placedIn(path, faults, entry.sections) };
      return { kind: 'loaded', config };
    },
  };
}

/** How long close() may take before the process ends anyway. */
const CLOSE_DEADLINE_MS = 30_000;
/** How long a slow disk may then take for the last lines of the log. */
const FLUSH_DEADLINE_MS = 2_000;

/** Runs until a signal. Resolves with the exit code. */
export async function runProcess(entry: ProcessEntry, path: string | undefined): Promise<number> {
  let output: LogOutput | undefined;
  // First of all: without a listener, the signal makes node start its inspector.
  process.on('SIGUSR1', () => output?.reopen());
  const read = readEntry(entry, path);
  if (read === undefined) return 2;
  output = openOutput(entry.name, read.log);
  if (output === undefined) return 1;
  const log = createLog(entry.name, read.log, output);
  output.reportTo(log);
  for (const { path: key, message } of read.warnings) log.warn({ key }, message);
  const stop = stopSignal();
  // A running process reads its configuration again on SIGHUP. Before and after that, the signal must not end it.
  process.on('SIGHUP', () => undefined);
  keepAlive();
  const running = await start(entry.name, read, log, output);
  if (running === undefined) return 1;
  watchForBugs(log);
  log.info({ urls: running.urls }, `${entry.name} is ready`);
  process.send?.({ kind: 'ready', name: entry.name, urls: running.urls });
  const signal = await stop;
  log.info({ signal }, `${entry.name} is stopping`);
  const inTime = await closeWithin(running, CLOSE_DEADLINE_MS, systemClock);
  log.info({ inTime }, `${entry.name} has stopped`);
  await closeWithin({ close: () => output?.flush() }, FLUSH_DEADLINE_MS, systemClock);
  return inTime ? 0 : 1;
}

/**
 * Runs one chore to its end, or until a signal. Resolves with the exit code.
 * Warnings and errors of its log go to standard error.
 */
export async function runChore(
  entry: ProcessEntry,
  word: string,
  path: string | undefined,
  words: ChoreWords,
  context: LoadContext = processContext,
): Promise<number> {
  const chore = readEntry(entry, path, context)?.chore(word);
  if (chore === undefined) return 2;
  const stopping = sharedController();
  void stopSignal().then((signal) => stopping.abort(new Error(`stopped by ${signal}`)));
  const line = statusLine();
  const sink = { write: (text: string) => void process.stderr.write(text) };
  const log = createLog(word, { level: 'warn' }, sink);
  try {
    return await chore({ log, clock: systemClock, signal: stopping.signal, ...line }, words);
  } catch (thrown) {
    const { aborted } = stopping.signal;
    line.complain(`${word}: ${aborted ? 'stopped; finished work is kept' : startFailure(thrown)}`);
    return aborted ? 130 : 2;
  } finally {
    line.clear();
  }
}

/** Undefined after all faults of the configuration were reported. */
function readEntry(
  entry: ProcessEntry,
  path: string | undefined,
  context: LoadContext = processContext,
): (EntryRead & { kind: 'loaded' }) | undefined {
  const read = entry.read(path, context);
  if (read.kind === 'loaded') return read;
  process.stderr.write(`${entry.name}: the configuration ${path ?? '(defaults)'} cannot be used:\n`);
  process.stderr.write(`${formatFaults(read.faults).replace(/^/gm, '  ')}\n`);
  return undefined;
}

/** Lasting lines go to standard output; a changing line goes to standard error if that is a terminal. */
function statusLine(): Pick<ChoreTools, 'print' | 'complain' | 'progress'> & { clear(): void } {
  const show = (text: string): void => {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  };
  return {
    clear: () => show(''),
    print(text) {
      show('');
      process.stdout.write(`${text}\n`);
    },
    complain(text) {
      show('');
      process.stderr.write(`${text}\n`);
    },
    progress: show,
  };
}

/** Undefined after the reason was reported. */
function openOutput(name: string, config: LogConfig): LogOutput | undefined {
  try {
    return openLogOutput(name, config);
  } catch (thrown) {
    process.stderr.write(`${name} cannot start: the log cannot be written: ${startFailure(thrown)}\n`);
    return undefined;
  }
}

async function start(
  name: string,
  read: EntryRead & { kind: 'loaded' },
  log: Log,
  output: LogOutput,
): Promise<Running | undefined> {
  try {
    const metrics = createMetrics('media_');
    metrics.totals(
      'log_lines_lost_total',
      'Lines of the log that could not be written, or were not read in time.',
      () => [{ labels: {}, value: output.lost }],
    );
    const build = metrics.gauge(
      'build_info',
      'Always 1; its labels say what runs.',
      ['version', 'node', 'process'],
      'max',
    );
    build.set(1, { version: ownVersion(), node: process.version, process: name });
    const deps = { log, metrics, clock: systemClock };
    const tracer = await tracerOf(name, read.log, deps);
    if (tracer === undefined) return await read.start(deps);
    const running = await read.start({ ...deps, tracer });
    const close = async (): Promise<void> => {
      await running.close();
      await tracer.close();
    };
    return { ...running, close };
  } catch (thrown) {
    process.stderr.write(`${name} cannot start: ${startFailure(thrown)}\n`);
    log.debug(errorFields(thrown), 'start failed');
    return undefined;
  }
}

/** What sends spans is loaded only if somebody takes them. */
async function tracerOf(name: string, { otlp }: LogConfig, deps: ProcessDeps): Promise<Tracer | undefined> {
  const { endpoint } = otlp;
  if (endpoint === null) return undefined;
  const { openTracer } = await import('./tracing/otlp.js');
  const resource = { 'service.name': `media-${name}`, 'service.version': ownVersion(), 'process.pid': process.pid };
  return openTracer({ config: { ...otlp, endpoint }, resource, ...deps });
}

/** The reason of a failed start for a person, without a stack. */
export function startFailure(thrown: unknown): string {
  if (thrown instanceof Fault) return thrown.detail;
  return sentenceOf(thrown);
}

function stopSignal(): Promise<string> {
  return new Promise((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name));
    process.once('disconnect', () => resolve('parent gone'));
  });
}

/**
 * What nobody caught is a bug and is logged in full. After an uncaught exception the state is unknown, so the process ends.
 * It is killed in the end: node joins the threads of its pool first, and one that waits for this thread, as the writer of
 * LMDB does for what it has to write, would keep a process that answers nobody for ever.
 */
function watchForBugs(log: Log): void {
  process.on('unhandledRejection', (thrown) => log.error(bugFields(thrown), 'a rejection went unhandled'));
  process.on('uncaughtException', (thrown) => {
    log.error(bugFields(thrown), 'an exception went uncaught; ending');
    process.once('exit', killSelf);
    process.exit(1);
  });
}

function killSelf(): void {
  process.kill(process.pid, 'SIGKILL');
  // Only the first process of a container gets here: the system does not kill it by a signal of its own.
  process.abort();
}
