/**
 * One connection to the origin's journal, from request to end: reads lines,
 * applies entries in order, confirms them, and renews the lease. Returns why it
 * ended; the follower decides whether to connect again.
 */
import { onAbort } from '../../src/abort.js';
import { unreachable } from '../../src/errors.js';
import type { MediaId } from '../../src/ids.js';
import type { JournalEntry, JournalLine, JournalPosition, Mark } from '../../src/journal/entry.js';
import { errorFields, type LogFields } from '../../src/log.js';
import type { FollowerDeps } from './config.js';
import { type Confirmer, createConfirmer } from './confirm.js';
import { createDelayGauge, type RenewableLease } from './lease.js';
import type { PositionFile } from './position.js';
import { chunksOf, createLineSplitter, openStream, type SessionEnd, SessionEnded } from './stream.js';

export type FollowerLink = 'connecting' | 'replaying' | 'current' | 'waiting' | 'closed';

/** What is known from session to session. */
export interface Progress {
  /** Undefined: the cache may hold anything, and must be emptied. */
  position: JournalPosition | undefined;
  newest: number | null;
  link: FollowerLink;
  connects: number;
  purges: number;
  /** Of the session that follows the journal now. */
  confirmer: Confirmer | undefined;
}

export interface SessionDeps extends FollowerDeps {
  readonly progress: Progress;
  readonly file: PositionFile;
  readonly lease: RenewableLease;
  /** Everything that the origin had at the start of the session is applied. */
  readonly onCurrent: () => void;
}

export interface SessionOutcome {
  readonly reason: SessionEnd;
  readonly wasCurrent: boolean;
  readonly cause: LogFields;
}

export async function runSession(deps: SessionDeps, signal: AbortSignal): Promise<SessionOutcome> {
  const ending = new AbortController();
  const stopListening = onAbort(signal, () => ending.abort(new SessionEnded('closing')));
  const session = new Session(deps, ending);
  try {
    ending.signal.throwIfAborted();
    const body = await openStream(deps, deps.progress.position, ending);
    const split = createLineSplitter(deps.config.lineMaxBytes);
    for await (const chunk of chunksOf(body, ending, deps.clock, () => session.silenceMaxMs)) {
      await session.take(split(chunk));
      ending.signal.throwIfAborted();
    }
    throw new SessionEnded('closed_by_origin');
  } catch (thrown) {
    const end: unknown = ending.signal.aborted ? ending.signal.reason : thrown;
    const reason = end instanceof SessionEnded ? end.reason : 'closed_by_origin';
    return { reason, wasCurrent: session.wasCurrent, cause: causeOf(end) };
  } finally {
    stopListening();
    ending.abort(new SessionEnded('closing'));
    await session.close();
  }
}

/** At this instant the origin had nothing newer than this number. */
interface Proof {
  readonly newest: number;
  readonly atMonotonicMs: number;
}

/** Proofs wait while a backlog is applied. If there are more, the lease is renewed a little later. */
const PROOFS_MAX = 64;

type OtherLine = Exclude<JournalLine, { readonly t: 'entry' }>;

class Session {
  readonly #deps: SessionDeps;
  readonly #ending: AbortController;
  readonly #gauge = createDelayGauge();
  readonly #proofs: Proof[] = [];
  #hello: { readonly journal: string; readonly beatMs: number; readonly confirmer: Confirmer } | undefined;
  #wasCurrent = false;

  /** `ending`: ends the session while it waits for the origin. */
  constructor(deps: SessionDeps, ending: AbortController) {
    this.#deps = deps;
    this.#ending = ending;
  }

  /** Whether the session has ever been current with the origin. */
  get wasCurrent(): boolean {
    return this.#wasCurrent;
  }

  /** How long the next chunk may take. */
  get silenceMaxMs(): number {
    const { config } = this.#deps;
    return this.#hello === undefined ? config.connectTimeoutMs : this.#hello.beatMs * config.silentBeatsMax;
  }

  async take(lines: readonly JournalLine[]): Promise<void> {
    for (const group of grouped(lines, this.#deps.config.batchMax)) {
      await (group.kind === 'entries' ? this.#takeEntries(group.entries) : this.#takeLine(group.line));
    }
  }

  async close(): Promise<void> {
    this.#deps.progress.confirmer = undefined;
    await this.#hello?.confirmer.close();
  }

  #takeLine(line: OtherLine): Promise<void> | void {
    switch (line.t) {
      case 'hello':
        return this.#takeHello(line);
      case 'beat':
        return this.#takeBeat(line);
      case 'gap':
        return this.#takeGap(line);
      default:
        return unreachable(line);
    }
  }

  async #takeHello(line: OtherLine & { readonly t: 'hello' }): Promise<void> {
    const { journal, newest, mark, beatMs, usesEveryMs, confirmEveryMs = 0 } = line;
    const deps = this.#deps;
    if (this.#hello !== undefined) throw garbled('a second hello');
    const confirmer = createConfirmer(deps, confirmEveryMs, (outcome) => {
      if (outcome === 'unknown') this.#ending.abort(new SessionEnded('not_counted'));
    });
    this.#hello = { journal, beatMs, confirmer };
    deps.progress.confirmer = confirmer;
    deps.progress.newest = newest;
    deps.progress.link = 'replaying';
    warnOfShortLease(deps, beatMs);
    deps.onUseReportsWanted(usesEveryMs);
    if (deps.progress.position === undefined) await emptyCache(deps, { journal, seq: newest, mark });
  }

  async #takeGap({ newest, mark }: OtherLine & { readonly t: 'gap' }): Promise<void> {
    if (this.#hello === undefined) throw garbled('a gap before hello');
    await emptyCache(this.#deps, { journal: this.#hello.journal, seq: newest, mark });
  }

  #takeBeat({ newest, mark, at: sentAt, ageMs }: OtherLine & { readonly t: 'beat' }): void {
    const { config, clock, progress } = this.#deps;
    const now = clock.monotonicMs();
    const delayMs = this.#gauge.delayMs(sentAt, now);
    if (delayMs > config.lease.ttlMs) throw new SessionEnded('delayed');
    if (newest === this.#positionHere().seq) this.#compareMark(mark);
    progress.newest = newest;
    if (this.#proofs.length < PROOFS_MAX) this.#proofs.push({ newest, atMonotonicMs: now - delayMs - ageMs });
    this.#reached(this.#positionHere());
  }

  /** The origin's newest entry is the one applied last. Its mark must be the same, and is learnt if it was unknown. */
  #compareMark(mark: Mark | null): void {
    const position = this.#positionHere();
    if (mark === null || mark === position.mark) return;
    if (position.mark !== null) throw new SessionEnded('other_history');
    const marked = { ...position, mark };
    setPosition(this.#deps, marked);
    this.#deps.applied.marked(marked);
  }

  async #takeEntries(entries: readonly JournalEntry[]): Promise<void> {
    const { journal, seq: before } = this.#positionHere();
    for (const [index, { seq }] of entries.entries()) {
      if (seq !== before + 1 + index) throw garbled(`entry ${seq} instead of ${before + 1 + index}`);
    }
    await applyEntries(this.#deps, entries);
    const position = { journal, seq: before + entries.length, mark: entries.at(-1)?.mark ?? null };
    setPosition(this.#deps, position);
    this.#deps.applied.applied(entries, position);
    this.#reached(position);
  }

  /** The position, if it is one in the journal of this stream. */
  #positionHere(): JournalPosition {
    const { position } = this.#deps.progress;
    if (position !== undefined && position.journal === this.#hello?.journal) return position;
    throw garbled('an entry or a beat before the start of the stream was known');
  }

  /** Everything up to this position is applied: renews the lease by every proof that is reached, and confirms. */
  #reached({ seq }: JournalPosition): void {
    const { progress, lease, onCurrent, applied } = this.#deps;
    for (let proof = this.#proofs[0]; proof !== undefined && proof.newest <= seq; proof = this.#proofs[0]) {
      this.#proofs.shift();
      lease.renewAt(proof.atMonotonicMs);
      this.#wasCurrent = true;
      applied.renewed();
    }
    progress.newest = Math.max(progress.newest ?? 0, seq);
    progress.link = this.#wasCurrent && seq >= progress.newest ? 'current' : 'replaying';
    if (this.#wasCurrent) onCurrent();
    this.#hello?.confirmer.confirm(seq);
  }
}

function garbled(detail: string): SessionEnded {
  return new SessionEnded('garbled', new Error(detail));
}

type Group =
  | { readonly kind: 'entries'; readonly entries: readonly JournalEntry[] }
  | { readonly kind: 'line'; readonly line: OtherLine };

/** Groups consecutive entries, which are applied together. Every other line is a group of its own. */
function grouped(lines: readonly JournalLine[], batchMax: number): Group[] {
  const groups: Group[] = [];
  let entries: JournalEntry[] = [];
  const flush = (): void => {
    if (entries.length > 0) groups.push({ kind: 'entries', entries });
    entries = [];
  };
  for (const line of lines) {
    if (line.t === 'entry') {
      entries.push(line);
      if (entries.length >= batchMax) flush();
    } else {
      flush();
      groups.push({ kind: 'line', line });
    }
  }
  flush();
  return groups;
}

/** Removes everything that shows these ids, whatever the cause of the entry. */
async function applyEntries(deps: SessionDeps, entries: readonly JournalEntry[]): Promise<void> {
  const { cache, config } = deps;
  const ids: MediaId[] = [...new Set(entries.flatMap((entry) => entry.ids))];
  try {
    for (let from = 0; from < ids.length; from += config.batchMax) {
      const batch = ids.slice(from, from + config.batchMax);
      for (const id of batch) deps.onTakedown(id);
      await Promise.all(batch.map((id) => cache.takeDown(id)));
    }
  } catch (thrown) {
    throw new SessionEnded('not_applied', thrown);
  }
}

/** Takedowns may have been missed: empties the cache, and follows the journal from `newest` on. */
async function emptyCache(deps: SessionDeps, newest: JournalPosition): Promise<void> {
  const { cache, log, progress } = deps;
  progress.position = undefined;
  deps.applied.lost();
  try {
    deps.onPurgeAll();
    const dropped = await cache.purge({ all: true });
    if (dropped > 0) log.warn({ ...newest, dropped }, 'emptied the cache: takedowns may have been missed');
    else log.info({ ...newest }, 'following the journal with an empty cache');
  } catch (thrown) {
    throw new SessionEnded('not_applied', thrown);
  }
  progress.purges += 1;
  setPosition(deps, newest);
  deps.applied.positioned(newest);
}

function setPosition(deps: SessionDeps, position: JournalPosition): void {
  deps.progress.position = position;
  deps.cache.noteApplied(position);
  deps.file.save(position);
}

function warnOfShortLease({ config, log }: SessionDeps, beatMs: number): void {
  const { ttlMs } = config.lease;
  if (ttlMs >= 2 * beatMs) return;
  log.warn({ ttlMs, beatMs }, 'the lease is shorter than two beats of the origin: it will lapse at times');
}

function causeOf(end: unknown): LogFields {
  const cause = end instanceof SessionEnded ? end.cause : end;
  return cause === undefined ? {} : errorFields(cause);
}
