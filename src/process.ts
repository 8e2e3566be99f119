/**
 * The life of one process: read the configuration or say what is wrong with
 * it, start, tell where it listens, and on SIGTERM or SIGINT stop accepting,
 * finish what is in hand within a deadline, and end with 0.
 */
import { sharedController } from './abort.js';
import { type Clock, keepAlive, systemClock } from './clock.js';
import type { LoadContext } from './config/field.js';
import {
  type ConfigFault,
  type ConfigOf,
  formatFaults,
  loadConfig,
  processContext,
  type Sections,
} from './config/load.js';
import { errorCode, Fault } from './errors.js';
import { closeWithin } from './lifecycle.js';
import { bugFields, createLog, errorFields, type Log, type LogConfig } from './log.js';
import { createMetrics, type Metrics } from './metrics.js';

export interface ProcessDeps {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
}

export interface Running {
  /** What listens where, by name: `media`, `operators`. */
  readonly urls: Readonly<Record<string, string>>;
  /** Stops accepting, finishes or breaks off what is in hand, closes every part. May be called twice. */
  close(): Promise<void>;
}

/** Where a process has its configuration from, for those that can take a changed one while they run. */
export interface ConfigSource<C> {
  /** Undefined: there is no file, all is at its default. */
  readonly path: string | undefined;
  /** Reads and checks all of it anew. */
  read(): ConfigRead<C>;
  /** The files that its secrets came from when it was last read. */
  files(): readonly string[];
}

export type ConfigRead<C> =
  | { readonly kind: 'loaded'; readonly config: C }
  | { readonly kind: 'faulty'; readonly faults: readonly ConfigFault[] };

/** What a chore is handed beside its configuration: how to tell, and when to stop. */
export interface ChoreTools extends Pick<ProcessDeps, 'clock' | 'log'> {
  readonly signal: AbortSignal;
  /** One line of what was found or done. */
  print(line: string): void;
  /** How far it is; each takes the place of the one before. */
  progress(line: string): void;
}

/** What an operator runs beside the process, by the words of the command line. Resolves with the exit code. */
export type Chore<C> = (config: C, tools: ChoreTools, words: Readonly<Record<string, unknown>>) => Promise<number>;

export interface ProcessEntry {
  readonly name: string;
  /** The sections of config.yaml that this process reads, `log` among them. */
  readonly sections: Sections;
  start(config: ConfigOf<Sections>, deps: ProcessDeps, source: ConfigSource<ConfigOf<Sections>>): Promise<Running>;
  /** Faults that only show when several keys are seen together. */
  check(config: ConfigOf<Sections>): readonly ConfigFault[];
  readonly chores: Readonly<Record<string, Chore<ConfigOf<Sections>>>>;
}

/** Ties a process's sections to the function that starts it, so that the latter sees its own config type. */
export function processEntry<S extends Sections & { readonly log: unknown }>(entry: {
  readonly name: string;
  readonly sections: S;
  start(config: ConfigOf<S>, deps: ProcessDeps, source: ConfigSource<ConfigOf<S>>): Promise<Running>;
  check?(config: ConfigOf<S>): readonly ConfigFault[];
  readonly chores?: Readonly<Record<string, Chore<ConfigOf<S>>>>;
}): ProcessEntry {
  return {
    name: entry.name,
    sections: entry.sections,
    start: (config, deps, source) => entry.start(config as ConfigOf<S>, deps, source as ConfigSource<ConfigOf<S>>),
    check: (config) => entry.check?.(config as ConfigOf<S>) ?? [],
    chores: Object.fromEntries(
      Object.entries(entry.chores ?? {}).map(([word, chore]) => [
        word,
        (config, tools, words) => chore(config as ConfigOf<S>, tools, words),
      ]),
    ),
  };
}

/** How long close() may take before the process ends all the same. */
const CLOSE_DEADLINE_MS = 30_000;

/** Every fault of a file as this process would read it. */
export function checkConfig(entry: ProcessEntry, path: string | undefined): readonly ConfigFault[] {
  const read = sourceOf(entry, path).read();
  return read.kind === 'faulty' ? read.faults : [];
}

/** Where an entry finds its configuration: a file, or none. */
export function sourceOf(entry: ProcessEntry, path: string | undefined): ConfigSource<ConfigOf<Sections>> {
  let files: string[] = [];
  const context: LoadContext = {
    ...processContext,
    file(name) {
      files.push(name);
      return processContext.file(name);
    },
  };
  return {
    path,
    files: () => files,
    read() {
      files = [];
      const outcome = loadConfig(path, entry.sections, context);
      if (outcome.kind === 'faulty') return outcome;
      const faults = entry.check(outcome.config);
      return faults.length > 0 ? { kind: 'faulty', faults } : outcome;
    },
  };
}

/** Runs until a signal; resolves with the exit code. */
export async function runProcess(entry: ProcessEntry, path: string | undefined): Promise<number> {
  const source = sourceOf(entry, path);
  const config = readConfig(entry.name, source);
  if (config === undefined) return 2;
  const log = createLog(entry.name, config['log'] as LogConfig);
  const stop = stopSignal();
  // Whoever reads its configuration again on SIGHUP does so while it runs; before and after that it must not end by it.
  process.on('SIGHUP', () => undefined);
  keepAlive();
  const running = await start(entry, config, log, source);
  if (running === undefined) return 1;
  watchForBugs(log);
  log.info({ urls: running.urls }, `${entry.name} is ready`);
  process.send?.({ kind: 'ready', name: entry.name, urls: running.urls });
  const signal = await stop;
  log.info({ signal }, `${entry.name} is stopping`);
  const inTime = await closeWithin(running, CLOSE_DEADLINE_MS, systemClock);
  log.info({ inTime }, `${entry.name} has stopped`);
  return inTime ? 0 : 1;
}

/**
 * Runs one chore to its end, or until a signal; resolves with the exit code. Of
 * its log, warnings and graver lines are shown, on standard error.
 */
export async function runChore(
  entry: ProcessEntry,
  word: string,
  path: string | undefined,
  words: Readonly<Record<string, unknown>>,
): Promise<number> {
  const config = readConfig(entry.name, sourceOf(entry, path));
  const chore = entry.chores[word];
  if (config === undefined || chore === undefined) return 2;
  const stopping = sharedController();
  void stopSignal().then((signal) => stopping.abort(new Error(`stopped by ${signal}`)));
  const line = statusLine();
  const sink = { write: (text: string) => void process.stderr.write(text) };
  const log = createLog(word, { level: 'warn', requests: 'none' }, sink);
  try {
    return await chore(config, { log, clock: systemClock, signal: stopping.signal, ...line }, words);
  } catch (thrown) {
    const { aborted } = stopping.signal;
    line.print(`${word}: ${aborted ? 'stopped; what is done stays done' : startFailure(thrown)}`);
    return aborted ? 130 : 2;
  } finally {
    line.clear();
  }
}

/** The configuration, or undefined after all its faults were told. */
function readConfig(name: string, source: ConfigSource<ConfigOf<Sections>>): ConfigOf<Sections> | undefined {
  const outcome = source.read();
  if (outcome.kind === 'loaded') return outcome.config;
  process.stderr.write(`${name}: the configuration ${source.path ?? '(defaults)'} cannot be used:\n`);
  process.stderr.write(`${formatFaults(outcome.faults).replace(/^/gm, '  ')}\n`);
  return undefined;
}

/** Lines that stay, on standard output; below them on a terminal one that changes, on standard error. */
function statusLine(): Pick<ChoreTools, 'print' | 'progress'> & { clear(): void } {
  const show = (text: string): void => {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  };
  return {
    clear: () => show(''),
    print(text) {
      show('');
      process.stdout.write(`${text}\n`);
    },
    progress: show,
  };
}

async function start(
  entry: ProcessEntry,
  config: ConfigOf<Sections>,
  log: Log,
  source: ConfigSource<ConfigOf<Sections>>,
): Promise<Running | undefined> {
  try {
    return await entry.start(config, { log, metrics: createMetrics('media_'), clock: systemClock }, source);
  } catch (thrown) {
    process.stderr.write(`${entry.name} cannot start: ${startFailure(thrown)}\n`);
    log.debug(errorFields(thrown), 'start failed');
    return undefined;
  }
}

/** What a person needs to know of a failed start: never a stack. */
export function startFailure(thrown: unknown): string {
  if (thrown instanceof Fault) return thrown.detail;
  const code = errorCode(thrown);
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (code === 'EADDRINUSE')
    return `${message.replace(/^listen EADDRINUSE: address already in use /, 'another process already listens on ')}; stop it, or choose another port in the configuration.`;
  if (code === 'EACCES') return `${message}; this user may not do that.`;
  return message;
}

function stopSignal(): Promise<string> {
  return new Promise((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name));
    process.once('disconnect', () => resolve('parent gone'));
  });
}

/** What nobody caught is a bug: it is told in full, and the process goes on only where nothing is half done. */
function watchForBugs(log: Log): void {
  process.on('unhandledRejection', (thrown) => log.error(bugFields(thrown), 'a rejection went unhandled'));
  process.on('uncaughtException', (thrown) => {
    log.error(bugFields(thrown), 'an exception went uncaught; ending');
    process.exit(70);
  });
}
