/**
 * Reads a changed configuration while the process runs: on SIGHUP, when the
 * file or a file with a secret changes, or when an operator asks. A bad file is
 * refused with all its faults, and the current settings stay. Keys that only a
 * restart can change are logged by name, never with their values.
 */

import { formatDuration, formatSize } from './bytes.js';
import type { Clock, EpochMs } from './clock.js';
import { declaredAt, holdsSecret } from './config/declared.js';
import { asInFile } from './config/in-file.js';
import { loggableFault, type Sections } from './config/load.js';
import { errorFields, type Log } from './log.js';
import type { ConfigSource } from './process.js';
import { watchFile } from './watch.js';

/** The outcome of a reload. */
export type ReloadOutcome =
  | {
      readonly kind: 'applied';
      readonly changed: boolean;
      /** Each changed key with its old and its new value; secrets without them. */
      readonly changes: readonly string[];
      /** Changed keys that take effect only after a restart. */
      readonly needRestart: readonly string[];
    }
  | { readonly kind: 'refused'; readonly faults: readonly string[] };

export interface ReloadOptions<C> {
  readonly source: ConfigSource<C>;
  /** The configuration with which the process was started. */
  readonly config: C;
  /** Dotted paths of the live settings, which may change while the process runs. */
  readonly livePaths: readonly string[];
  /** Applies the live settings of a new configuration, synchronously. */
  apply(config: C): void;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Reloading {
  reload(): ReloadOutcome;
  state(): { readonly readAt: EpochMs; readonly faults: readonly string[] };
  close(): void;
}

export function openReloading<C extends object>(options: ReloadOptions<C>): Reloading {
  const { source, clock, log } = options;
  const watches = createWatches(() => void reload(), options);
  let current = options.config;
  let readAt = clock.now();
  let faults: readonly string[] = [];

  function reload(): ReloadOutcome {
    const read = source.read();
    if (read.kind === 'faulty') {
      // A file that is named but does not exist yet is watched too.
      watches.add(source.files());
      faults = read.faults.map(loggableFault);
      log.error({ faults }, 'the changed configuration is refused; the current one stays');
      return { kind: 'refused', faults };
    }
    const isLive = (path: string): boolean => isWithin(path, options.livePaths);
    const changed = differences(current, read.config, '').filter(isLive).map(asInFile);
    const needRestart = differences(options.config, read.config, '')
      .filter((path) => !isLive(path))
      .map(asInFile);
    options.apply(read.config);
    watches.keepOnly(filesOf(source));
    readAt = clock.now();
    faults = [];
    const applied = changesOf(current, read.config, source.sections).filter(({ path }) => isLive(path));
    const waiting = changesOf(options.config, read.config, source.sections).filter(({ path }) => !isLive(path));
    const changes = [...applied.map(({ text }) => text), ...waiting.map(({ text }) => `${text} (needs a restart)`)];
    log.info({ changed, needRestart, changes }, 'the configuration was read again');
    current = read.config;
    if (needRestart.length > 0) log.warn({ needRestart }, `only a restart changes ${needRestart.join(', ')}`);
    return { kind: 'applied', changed: changed.length > 0, changes, needRestart };
  }

  const onSignal = (): void => void reload();
  process.on('SIGHUP', onSignal);
  watches.keepOnly(filesOf(source));
  return {
    reload,
    state: () => ({ readAt, faults }),
    close() {
      process.off('SIGHUP', onSignal);
      watches.keepOnly([]);
    },
  };
}

function filesOf(source: ConfigSource<unknown>): readonly string[] {
  return source.path === undefined ? source.files() : [source.path, ...source.files()];
}

interface Watches {
  /** Also watches these. */
  add(paths: readonly string[]): void;
  /** Watches these and no others. */
  keepOnly(paths: readonly string[]): void;
}

function createWatches(onChange: () => void, { clock, log }: Pick<ReloadOptions<unknown>, 'clock' | 'log'>): Watches {
  const stops = new Map<string, () => void>();
  function add(paths: readonly string[]): void {
    for (const path of paths) {
      if (stops.has(path)) continue;
      const onTrouble = (trouble: unknown): void =>
        log.warn({ path, ...errorFields(trouble) }, 'a file cannot be watched; SIGHUP still reads it again');
      stops.set(path, watchFile(path, onChange, clock, onTrouble));
    }
  }
  return {
    add,
    keepOnly(paths) {
      for (const [path, stop] of stops) {
        if (paths.includes(path)) continue;
        stop();
        stops.delete(path);
      }
      add(paths);
    },
  };
}

interface Change {
  /** As in code. */
  readonly path: string;
  readonly text: string;
}

function changesOf(before: unknown, after: unknown, sections: Sections | undefined): readonly Change[] {
  return differences(before, after, '').map((path) => {
    const key = asInFile(path);
    const declared = sections === undefined ? undefined : declaredAt(sections, key);
    // What is not declared could be anything.
    if (declared === undefined || holdsSecret(declared)) return { path, text: `${key}: changed` };
    return { path, text: `${key}: ${said(path, valueAt(before, path))} -> ${said(path, valueAt(after, path))}` };
  });
}

function valueAt(root: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => (isGroup(value) ? value[key] : undefined), root);
}

const SAID_MAX = 120;

/** A value as the file writes it. Of a list of groups, their number. */
function said(path: string, value: unknown): string {
  if (typeof value === 'number' && path.endsWith('Bytes')) return formatSize(value);
  if (typeof value === 'number' && path.endsWith('Ms')) return formatDuration(value);
  if (Array.isArray(value) && value.some((each) => typeof each === 'object')) return `${value.length} entries`;
  return (JSON.stringify(value) ?? 'nothing').slice(0, SAID_MAX);
}

/** Dotted paths at which two plain values differ. Lists are compared as a whole. */
function differences(before: unknown, after: unknown, path: string): string[] {
  if (isGroup(before) && isGroup(after)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
    return [...keys].flatMap((key) => differences(before[key], after[key], path === '' ? key : `${path}.${key}`));
  }
  return JSON.stringify(before) === JSON.stringify(after) ? [] : [path];
}

function isGroup(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isWithin(path: string, keys: readonly string[]): boolean {
  return keys.some((key) => path === key || path.startsWith(`${key}.`));
}
