/**
 * Reads a changed configuration while the process runs: on SIGHUP, when the
 * file or a file with a secret changes, or when an operator asks. A bad file is
 * refused with all its faults, and the current settings stay. Which keys take
 * effect at once is declared with them (src/config/field.ts, `live`); those that
 * only a restart can change are named. Secrets are never told.
 */

import type { Clock, EpochMs } from './clock.js';
import { type Change, changesBetween } from './config/changes.js';
import type { Living } from './config/living.js';
import { loggableFault } from './config/load.js';
import { Fault } from './errors.js';
import { jsonReply, type Reply } from './http/reply.js';
import { errorFields, type Log, type LogConfig } from './log.js';
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
  | Refused;

export interface Refused {
  readonly kind: 'refused';
  readonly faults: readonly string[];
}

/** A reload in two steps, so that several processes do it all together or not at all. */
export interface ReloadSteps {
  /** Reads and checks a configuration. Undefined: it is right, and `commit` applies it. */
  prepare(): Refused | undefined;
  /** Applies what was prepared; if nothing was, it is prepared first. */
  commit(): ReloadOutcome;
  state(): { readonly readAt: EpochMs; readonly faults: readonly string[] };
}

export interface ReloadOptions<C> {
  readonly source: ConfigSource<C>;
  /** The configuration with which the process was started. */
  readonly started: C;
  /** What its components were given. */
  readonly living: Living<C>;
  /** Called after the live keys have changed, for components that do not read them at each use. */
  apply?(config: C): void;
  readonly clock: Clock;
  readonly log: Log;
}

export function createReload<C extends { readonly log: LogConfig }>(options: ReloadOptions<C>): ReloadSteps {
  const { source, started, living, clock, log } = options;
  let current = started;
  let prepared: C | undefined;
  let readAt = clock.now();
  let faults: readonly string[] = [];

  function prepare(): Refused | undefined {
    prepared = undefined;
    const read = source.read();
    if (read.kind === 'loaded') {
      prepared = read.config;
      return undefined;
    }
    faults = read.faults.map(loggableFault);
    log.error({ faults }, 'the changed configuration is refused; the current one stays');
    return { kind: 'refused', faults };
  }

  function commit(): ReloadOutcome {
    const refused = prepared === undefined ? prepare() : undefined;
    if (refused !== undefined || prepared === undefined) return refused ?? { kind: 'refused', faults };
    const next = prepared;
    prepared = undefined;
    const applied = changesBetween(source.sections, current, next).filter(({ live }) => live);
    const waiting = changesBetween(source.sections, started, next).filter(({ live }) => !live);
    living.renew(next);
    log.setLevel(next.log.level);
    options.apply?.(living.config);
    current = next;
    readAt = clock.now();
    faults = [];
    return outcomeOf(applied, waiting, log);
  }

  return { prepare, commit, state: () => ({ readAt, faults }) };
}

function outcomeOf(applied: readonly Change[], waiting: readonly Change[], log: Log): ReloadOutcome {
  const changed = applied.map(({ path }) => path);
  const needRestart = waiting.map(({ path }) => path);
  const changes = [...applied.map(({ text }) => text), ...waiting.map(({ text }) => `${text} (needs a restart)`)];
  log.info({ changed, needRestart, changes }, 'the configuration was read again');
  if (needRestart.length > 0) log.warn({ needRestart }, `only a restart changes ${needRestart.join(', ')}`);
  return { kind: 'applied', changed: changed.length > 0, changes, needRestart };
}

/** The answer to an operator who asked for it. */
export function reloadReply(outcome: ReloadOutcome): Reply {
  if (outcome.kind === 'refused') {
    throw new Fault('conflict', 'The configuration has faults, so the current one stays.', {
      members: { faults: outcome.faults },
    });
  }
  return jsonReply(200, {
    changed: outcome.changed,
    changes: outcome.changes,
    need_restart: outcome.needRestart,
  });
}

/** The same two steps in processes that belong to this one. */
export interface Others {
  prepare(): Promise<Refused | undefined>;
  commit(): Promise<void>;
}

export interface Reloading {
  /** All or nothing. */
  reload(): Promise<ReloadOutcome>;
  close(): void;
}

export interface ReloadingOptions {
  readonly steps: ReloadSteps;
  readonly source: Pick<ConfigSource<unknown>, 'path' | 'files'>;
  readonly others?: Others;
  readonly clock: Clock;
  readonly log: Log;
}

/** Reloads on SIGHUP, when a file changes and when it is asked to, one reload after the other. */
export function openReloading({ steps, source, others, clock, log }: ReloadingOptions): Reloading {
  // A failure is logged by then.
  const onChange = (): void => void reload().catch(() => undefined);
  const watches = createWatches(onChange, { clock, log });
  let last: Promise<unknown> = Promise.resolve();

  /** Alone, it is done when this returns. */
  async function reload(): Promise<ReloadOutcome> {
    if (others === undefined) return alone();
    const next = last.then(() => together(others));
    last = next.catch((thrown: unknown) => log.error(errorFields(thrown), 'the configuration was not read again'));
    return await next;
  }

  function alone(): ReloadOutcome {
    const refused = prepare();
    return refused ?? commit();
  }

  async function together(all: Others): Promise<ReloadOutcome> {
    const refused = prepare() ?? (await all.prepare());
    if (refused !== undefined) return refused;
    await all.commit();
    return commit();
  }

  function prepare(): Refused | undefined {
    const refused = steps.prepare();
    // A file that is named but does not exist yet is watched too.
    if (refused !== undefined) watches.add(source.files());
    return refused;
  }

  function commit(): ReloadOutcome {
    const outcome = steps.commit();
    watches.keepOnly(filesOf(source));
    return outcome;
  }

  process.on('SIGHUP', onChange);
  watches.keepOnly(filesOf(source));
  return {
    reload,
    close() {
      process.off('SIGHUP', onChange);
      watches.keepOnly([]);
    },
  };
}

function filesOf(source: ReloadingOptions['source']): readonly string[] {
  return source.path === undefined ? source.files() : [source.path, ...source.files()];
}

interface Watches {
  /** Also watches these. */
  add(paths: readonly string[]): void;
  /** Watches these and no others. */
  keepOnly(paths: readonly string[]): void;
}

function createWatches(onChange: () => void, { clock, log }: { readonly clock: Clock; readonly log: Log }): Watches {
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
