/**
 * `media-service import`: brings files of another media store into this service, through the running service, as uploads in
 * the names of their owners. Everything that holds for an upload holds for them: types by the bytes, limits, one copy of the
 * same bytes, quotas.
 *
 * Promises: a run that was stopped or killed at any moment is continued by the same command, and then nothing is imported
 * twice and nothing is left out. A refused file stops nothing. Exit codes: 0 all is imported, 1 something was refused, 2 the
 * import cannot go on.
 */
import { randomUUID } from 'node:crypto';
import { onAbort, sharedController } from '../../src/abort.js';
import type { AccessConfig } from '../../src/access/config.js';
import { keepAlive } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { ChoreTools } from '../../src/process.js';
import { operatorTarget } from '../../src/server/operators.js';
import type { OriginConfig } from '../config.js';
import { checkFile, EMPTY } from './check.js';
import type { Entry, EntryDefaults, Read, Refusal } from './entry.js';
import { type OpenedFile, openFile } from './file.js';
import { type Counts, noCounts, progressLine, refusedOf, resultLine } from './progress.js';
import { openResults, type Results, readDone } from './results.js';
import { createSender, type Sender } from './send.js';
import { openSource, type Source } from './source.js';

export interface ImportDeps extends ChoreTools {
  readonly config: { readonly access: Pick<AccessConfig, 'links'>; readonly origin: OriginConfig };
}

export interface ImportWords {
  /** A folder, a list, or `-` for a list on standard input. */
  readonly source: string;
  readonly base: string | undefined;
  readonly defaults: EntryDefaults;
  /** The folder of the map and of what was refused. */
  readonly results: string;
  /** Empty: the origin of this configuration, on this machine. */
  readonly urls: readonly string[];
  readonly jobs: number;
  readonly check: boolean;
  readonly statesTypes: boolean;
}

/** Returns the exit code. */
export async function runImport(deps: ImportDeps, words: ImportWords): Promise<number> {
  const alive = keepAlive();
  // The first failure of one job stops the others too.
  const stopping = sharedController();
  const stopListening = onAbort(deps.signal, () => stopping.abort(deps.signal.reason));
  const own = { ...deps, signal: stopping.signal, stop: (reason: unknown) => stopping.abort(reason) };
  try {
    const source = await openSource(words);
    return words.check ? await runCheck(own, words, source) : await runSend(own, words, source);
  } finally {
    stopListening();
    alive.release();
  }
}

interface RunDeps extends ImportDeps {
  stop(reason: unknown): void;
}

interface Work {
  readonly deps: RunDeps;
  readonly source: Source;
  readonly jobs: number;
  readonly counts: Counts;
  isDone(id: string): boolean;
  /** What is to be done with a file that can be read: undefined, or why it is refused. */
  take(entry: Entry, file: OpenedFile): Promise<Refusal | undefined>;
  refuse(refused: Refusal & { readonly id: string; readonly path: string }): Promise<void> | void;
}

async function runSend(deps: RunDeps, words: ImportWords, source: Source): Promise<number> {
  const results = await openResults(words.results, randomUUID);
  const counts = noCounts();
  const sender = senderOf(deps, words);
  try {
    const take = (entry: Entry, file: OpenedFile) => sendOne({ sender, results, counts }, entry, file);
    await runAll({
      deps,
      source,
      jobs: words.jobs,
      counts,
      isDone: (id) => results.isDone(id),
      take,
      refuse: (refused) => results.refuse(refused),
    });
  } catch (thrown) {
    deps.print(`${resultLine(counts, 'imported')}; not all was tried. Run the same command again to go on.`);
    throw thrown;
  } finally {
    sender.close();
    await results.close();
  }
  const refused = refusedOf(counts);
  deps.print(
    `${resultLine(counts, 'imported')}. Old and new ids are in ${results.mapPath}${refused > 0 ? `, what was refused in ${results.refusedPath}` : ''}.`,
  );
  return refused > 0 ? 1 : 0;
}

async function runCheck(deps: RunDeps, words: ImportWords, source: Source): Promise<number> {
  const counts = noCounts();
  const done = await readDone(words.results);
  const rules = { config: deps.config.origin.upload, statesTypes: words.statesTypes };
  await runAll({
    deps,
    source,
    jobs: words.jobs,
    counts,
    isDone: (id) => done.has(id),
    async take(entry, file) {
      const refusal = await checkFile(rules, entry, file);
      if (refusal !== undefined) return refusal;
      counts.stored += 1;
      counts.bytes += file.sizeBytes;
      return undefined;
    },
    refuse: ({ path, code, detail }) => deps.print(`${path}: ${code}: ${detail}`),
  });
  deps.print(`${resultLine(counts, 'would be imported')}. Quotas, quarantine and scanners were not asked.`);
  return refusedOf(counts) > 0 ? 1 : 0;
}

function senderOf({ config, clock, signal }: ImportDeps, { urls, jobs, statesTypes }: ImportWords): Sender {
  const { links } = config.access;
  const [key] = links.secrets;
  if (key === undefined) {
    throw new Fault('not_implemented', 'access.links.secrets is empty. An import signs an upload link for each file.');
  }
  const own = operatorTarget({ ...config.origin.listen, hostNames: [], token: null }).base;
  const deps = { clock, signal, key, linkLifetimeMs: links.uploadLifetimeMs, statesTypes };
  return createSender({ ...deps, urls: urls.length === 0 ? [own] : urls.map((url) => url.replace(/\/+$/, '')) }, jobs);
}

interface Sending {
  readonly sender: Sender;
  readonly results: Results;
  readonly counts: Counts;
}

async function sendOne(
  { sender, results, counts }: Sending,
  entry: Entry,
  file: OpenedFile,
): Promise<Refusal | undefined> {
  if (file.sizeBytes === 0) return EMPTY;
  const outcome = await sender.send(entry, file);
  if (outcome.kind === 'refused') return outcome.refusal;
  const { id, owner, path, created } = entry;
  const { id: media, url, sha256, duplicate } = outcome.media;
  await results.store({ id, media, url, sha256, owner, path, created, duplicate });
  counts[duplicate ? 'duplicates' : 'stored'] += 1;
  counts.bytes += file.sizeBytes;
  return undefined;
}

const SHOW_EVERY_MS = 500;

/** Takes every entry once, several at a time. The first failure ends all. */
async function runAll(work: Work): Promise<void> {
  const { deps, source, jobs, counts } = work;
  const { clock, signal } = deps;
  deps.progress('counting');
  const total = await source.count(signal);
  const startedMs = clock.monotonicMs();
  let shownMs = Number.NEGATIVE_INFINITY;
  const entries = source.entries();
  const seen = new Set<string>();

  async function runJob(): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const next = await entries.next();
      if (next.done === true) return;
      await takeOne(work, seen, next.value);
      const nowMs = clock.monotonicMs();
      if (nowMs - shownMs < SHOW_EVERY_MS) continue;
      shownMs = nowMs;
      deps.progress(progressLine(counts, total, nowMs - startedMs));
    }
  }

  const running = Array.from({ length: jobs }, () => runJob().catch((thrown: unknown) => deps.stop(thrown)));
  await Promise.all(running);
  await entries.return(undefined);
  signal.throwIfAborted();
}

/** An id that comes again is skipped. */
async function takeOne(work: Work, seen: Set<string>, read: Read): Promise<void> {
  const { counts } = work;
  const id = read.kind === 'entry' ? read.entry.id : read.id;
  if (work.isDone(id) || seen.has(id)) {
    counts.skipped += 1;
    return;
  }
  seen.add(id);
  const refused = read.kind === 'entry' ? await takeFile(work, read.entry) : read;
  if (refused === undefined) return;
  const { refusal, path } = refused;
  counts.refused.set(refusal.code, (counts.refused.get(refusal.code) ?? 0) + 1);
  await work.refuse({ id, path, ...refusal });
}

async function takeFile(work: Work, entry: Entry): Promise<{ refusal: Refusal; path: string } | undefined> {
  const file = await openFile(work.source.folder, entry);
  if (file.kind === 'refused') return file;
  try {
    const refusal = await work.take(entry, file);
    return refusal === undefined ? undefined : { refusal, path: entry.path };
  } finally {
    await file.handle.close();
  }
}
