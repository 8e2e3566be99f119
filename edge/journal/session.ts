/**
 * One connection to the origin's journal, from request to end: reads lines,
 * applies entries in order, confirms them, and renews the lease for what it is
 * sure of. Tells why it ended; whether to try again is the follower's business.
 */
import type { EpochMs } from '../../src/clock.js';
import { unreachable } from '../../src/errors.js';
import type { MediaId } from '../../src/ids.js';
import type { JournalEntry, JournalLine } from '../../src/journal/entry.js';
import { errorFields, type LogFields } from '../../src/log.js';
import type { FollowerDeps } from './config.js';
import { type Confirmer, createConfirmer } from './confirm.js';
import { createDelayGauge, type LeaseHold } from './lease.js';
import type { Position, PositionFile } from './position.js';
import { chunksOf, createLineSplitter, openStream, type SessionEnd, SessionOver } from './stream.js';

export type FollowerLink = 'connecting' | 'replaying' | 'current' | 'waiting' | 'closed';

/** How far things are, from session to session. */
export interface Progress {
  /** Undefined: nothing that is in the cache can be trusted. */
  position: Position | undefined;
  newest: number | null;
  link: FollowerLink;
  connects: number;
  purges: number;
}

export interface SessionDeps {
  readonly options: FollowerDeps;
  readonly progress: Progress;
  readonly file: PositionFile;
  readonly lease: LeaseHold;
  /** All that the origin had at the start of the session is applied. */
  readonly onCurrent: () => void;
}

export interface SessionOutcome {
  readonly reason: SessionEnd;
  readonly wasCurrent: boolean;
  readonly cause: LogFields;
}

export async function runSession(parts: SessionDeps, signal: AbortSignal): Promise<SessionOutcome> {
  const { options } = parts;
  const over = new AbortController();
  const stop = (): void => over.abort(new SessionOver('closing'));
  signal.addEventListener('abort', stop, { once: true });
  const session = new Session(parts, (why) => over.abort(why));
  try {
    signal.throwIfAborted();
    const body = await openStream(options, parts.progress.position, over);
    const split = createLineSplitter(options.config.lineMaxBytes);
    for await (const chunk of chunksOf(body, over, options.clock, () => session.silenceMaxMs)) {
      await session.take(split(chunk));
      over.signal.throwIfAborted();
    }
    throw new SessionOver('closed_by_origin');
  } catch (thrown) {
    const why: unknown = over.signal.aborted ? over.signal.reason : thrown;
    const reason = why instanceof SessionOver ? why.reason : 'closed_by_origin';
    return { reason, wasCurrent: session.wasCurrent, cause: causeOf(why) };
  } finally {
    signal.removeEventListener('abort', stop);
    over.abort(new SessionOver('closing'));
    await session.close();
  }
}

/** At this instant the origin had nothing newer than this number. */
interface Mark {
  readonly newest: number;
  readonly atMonotonicMs: number;
}

/** Marks wait while a backlog is applied; beyond so many, the lease is renewed a little later. */
const MARKS_MAX = 64;

type OtherLine = Exclude<JournalLine, { readonly t: 'entry' }>;

class Session {
  readonly #parts: SessionDeps;
  readonly #end: (why: SessionOver) => void;
  readonly #gauge = createDelayGauge();
  readonly #marks: Mark[] = [];
  #hello: { readonly journal: string; readonly beatMs: number; readonly confirmer: Confirmer } | undefined;
  #current = false;

  /** `end`: for what ends the session while it waits for the origin. */
  constructor(parts: SessionDeps, end: (why: SessionOver) => void) {
    this.#parts = parts;
    this.#end = end;
  }

  /** Whether it ever was level with the origin. */
  get wasCurrent(): boolean {
    return this.#current;
  }

  /** How long the next piece may take to come. */
  get silenceMaxMs(): number {
    const { config } = this.#parts.options;
    return this.#hello === undefined ? config.connectTimeoutMs : this.#hello.beatMs * config.silentBeatsMax;
  }

  async take(lines: readonly JournalLine[]): Promise<void> {
    for (const group of grouped(lines, this.#parts.options.config.batchMax)) {
      await (group.kind === 'entries' ? this.#takeEntries(group.entries) : this.#takeLine(group.line));
    }
  }

  async close(): Promise<void> {
    await this.#hello?.confirmer.close();
  }

  #takeLine(line: OtherLine): Promise<void> | void {
    switch (line.t) {
      case 'hello':
        return this.#takeHello(line);
      case 'beat':
        return this.#takeBeat(line.newest, line.at);
      case 'gap':
        return this.#takeGap(line.newest);
      default:
        return unreachable(line);
    }
  }

  async #takeHello({ journal, newest, beatMs, usesEveryMs }: OtherLine & { readonly t: 'hello' }): Promise<void> {
    const { options, progress } = this.#parts;
    if (this.#hello !== undefined) throw garbled('a second hello');
    const confirmer = createConfirmer(
      options,
      (outcome) => outcome === 'unknown' && this.#end(new SessionOver('not_counted')),
    );
    this.#hello = { journal, beatMs, confirmer };
    progress.newest = newest;
    progress.link = 'replaying';
    warnOfShortLease(options, beatMs);
    options.onUsesWanted(usesEveryMs);
    if (progress.position === undefined) await startAfresh(this.#parts, journal, newest);
  }

  async #takeGap(newest: number): Promise<void> {
    if (this.#hello === undefined) throw garbled('a gap before hello');
    await startAfresh(this.#parts, this.#hello.journal, newest);
  }

  #takeBeat(newest: number, sentAt: EpochMs): void {
    const { options, progress } = this.#parts;
    const now = options.clock.monotonicMs();
    const delayMs = this.#gauge.delayMs(sentAt, now);
    if (delayMs > options.config.lease.ttlMs) throw new SessionOver('delayed');
    progress.newest = newest;
    if (this.#marks.length < MARKS_MAX) this.#marks.push({ newest, atMonotonicMs: now - delayMs });
    this.#standAt(this.#here());
  }

  async #takeEntries(entries: readonly JournalEntry[]): Promise<void> {
    const { journal, seq: before } = this.#here();
    for (const [index, { seq }] of entries.entries()) {
      if (seq !== before + 1 + index) throw garbled(`entry ${seq} where ${before + 1 + index} was due`);
    }
    await applyEntries(this.#parts.options, entries);
    const position = { journal, seq: before + entries.length };
    moveTo(this.#parts, position);
    this.#standAt(position);
  }

  /** The position in the journal of this very stream. */
  #here(): Position {
    const { position } = this.#parts.progress;
    if (position !== undefined && position.journal === this.#hello?.journal) return position;
    throw garbled('an entry or beat before the stream said where it begins');
  }

  /** Renews the lease by every mark that is reached, and tells the origin. */
  #standAt({ seq }: Position): void {
    const { progress, lease, onCurrent } = this.#parts;
    for (let mark = this.#marks[0]; mark !== undefined && mark.newest <= seq; mark = this.#marks[0]) {
      this.#marks.shift();
      lease.currentAt(mark.atMonotonicMs);
      this.#current = true;
    }
    progress.newest = Math.max(progress.newest ?? 0, seq);
    progress.link = this.#current && seq >= progress.newest ? 'current' : 'replaying';
    if (this.#current) onCurrent();
    this.#hello?.confirmer.tell(seq);
  }
}

function garbled(detail: string): SessionOver {
  return new SessionOver('garbled', new Error(detail));
}

type Group =
  | { readonly kind: 'entries'; readonly entries: readonly JournalEntry[] }
  | { readonly kind: 'line'; readonly line: OtherLine };

/** Entries that follow each other are applied together; every other line stands alone. */
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

/** Whatever the cause of an entry, what shows these ids must go. */
async function applyEntries(options: FollowerDeps, entries: readonly JournalEntry[]): Promise<void> {
  const { cache, config } = options;
  const ids: MediaId[] = [...new Set(entries.flatMap((entry) => entry.ids))];
  try {
    for (let from = 0; from < ids.length; from += config.batchMax) {
      const some = ids.slice(from, from + config.batchMax);
      for (const id of some) options.onTakedown(id);
      await Promise.all(some.map((id) => cache.takeDown(id)));
    }
  } catch (thrown) {
    throw new SessionOver('not_applied', thrown);
  }
}

/** Nothing that is held can be trusted: it goes, and the journal is followed from here on. */
async function startAfresh(parts: SessionDeps, journal: string, newest: number): Promise<void> {
  const { options, progress } = parts;
  progress.position = undefined;
  try {
    options.onPurgeAll();
    const dropped = await options.cache.purge({ all: true });
    if (dropped > 0)
      options.log.warn({ journal, newest, dropped }, 'emptied the cache: its place in the journal is lost');
    else options.log.info({ journal, newest }, 'following the journal with an empty cache');
  } catch (thrown) {
    throw new SessionOver('not_applied', thrown);
  }
  progress.purges += 1;
  moveTo(parts, { journal, seq: newest });
}

function moveTo(parts: SessionDeps, position: Position): void {
  parts.progress.position = position;
  parts.file.note(position);
}

function warnOfShortLease(options: FollowerDeps, beatMs: number): void {
  const { ttlMs } = options.config.lease;
  if (ttlMs >= 2 * beatMs) return;
  options.log.warn({ ttlMs, beatMs }, 'the lease is shorter than two beats of the origin: it will lapse now and then');
}

function causeOf(why: unknown): LogFields {
  const cause = why instanceof SessionOver ? why.cause : why;
  return cause === undefined ? {} : errorFields(cause);
}
