/**
 * A changed configuration while the edge runs: on SIGHUP, when the file or one
 * that holds a secret changes, or when an operator asks. A bad file is refused
 * with all its faults and what is in force stays; keys that only a restart can
 * change are named.
 */
import type { Clock, EpochMs } from '../src/clock.js';
import { formatFaults } from '../src/config/load.js';
import { errorFields, type Log } from '../src/log.js';
import type { ConfigSource } from '../src/process.js';
import { watchFile } from '../src/watch.js';

/** What a reload came to. */
export type ReloadOutcome =
  | {
      readonly kind: 'applied';
      readonly changed: boolean;
      /** Keys that differ from those in force and wait for a restart. */
      readonly needRestart: readonly string[];
    }
  | { readonly kind: 'refused'; readonly faults: readonly string[] };

export interface ReloadOptions<C> {
  readonly source: ConfigSource<C>;
  /** What the edge was started with. */
  readonly config: C;
  /** Dotted paths of what may change while the edge runs. */
  readonly policyPaths: readonly string[];
  /** Puts those parts in force, at once. */
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
  const { clock, log } = options;
  let inForce = options.config;
  let readAt = clock.now();
  let faults: readonly string[] = [];

  function reload(): ReloadOutcome {
    const read = options.source.read();
    if (read.kind === 'faulty') {
      faults = formatFaults(read.faults).split('\n');
      log.error({ faults }, 'the changed configuration is refused; the one in force stays');
      return { kind: 'refused', faults };
    }
    const isPolicy = (path: string): boolean => isWithin(path, options.policyPaths);
    const changed = differences(inForce, read.config, '').some(isPolicy);
    const needRestart = differences(options.config, read.config, '')
      .filter((path) => !isPolicy(path))
      .map(asInFile);
    options.apply(read.config);
    inForce = read.config;
    readAt = clock.now();
    faults = [];
    log.info({ changed, needRestart }, 'the configuration was read again');
    return { kind: 'applied', changed, needRestart };
  }

  const onSignal = (): void => void reload();
  process.on('SIGHUP', onSignal);
  const stops = [options.source.path ?? [], options.source.files()]
    .flat()
    .map((path) =>
      watchFile(path, reload, clock, (trouble) =>
        log.warn({ path, ...errorFields(trouble) }, 'a file cannot be watched; SIGHUP still reads it again'),
      ),
    );
  return {
    reload,
    state: () => ({ readAt, faults }),
    close() {
      process.off('SIGHUP', onSignal);
      for (const stop of stops) stop();
    },
  };
}

/** Dotted paths at which two plain values differ; lists are compared whole. */
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

/** A path in the words of the file: snake_case, without units. */
function asInFile(path: string): string {
  return path
    .replace(/^access\.value\./, 'access.')
    .split('.')
    .map((key) => key.replace(/(?:Ms|Bytes)$/, '').replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`))
    .join('.');
}

function isWithin(path: string, keys: readonly string[]): boolean {
  return keys.some((key) => path === key || path.startsWith(`${key}.`));
}
