/**
 * One stream of journal entries to one edge: where it begins, the entries, and
 * the regular beats. At most one batch of entries waits in memory for an edge
 * that reads slowly.
 */
import type { ServerResponse } from 'node:http';
import { waitFor } from '../abort.js';
import type { Clock } from '../clock.js';
import { bugFields, type Log } from '../log.js';
import type { Confirmations } from './confirmations.js';
import { formatLine, type JournalLine, type Mark } from './entry.js';
import type { JournalProof, JournalSource } from './source.js';

export interface EdgeStreamDeps {
  readonly journal: JournalSource;
  readonly proof: JournalProof;
  readonly confirmations: Confirmations;
  readonly config: { readonly beatMs: number; readonly silenceMaxMs: number; readonly batchMax: number };
  /** How often edges are to report what they served; undefined: they need not. */
  readonly usesEveryMs: () => number | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

/** What an edge asks for. */
export interface StreamStart {
  readonly edge: string;
  readonly instance: string;
  /** The last entry that the edge has applied; null: its cache is empty, so it needs no earlier entries. */
  readonly from: number | null;
  /** The mark of that entry; null if the edge does not know. */
  readonly mark: Mark | null;
  /** The journal that `from` belongs to; null if the edge does not know. */
  readonly journal: string | null;
}

export type StreamEnd = 'left' | 'silent' | 'replaced' | 'secret_withdrawn' | 'other_journal' | 'closing' | 'failed';

export interface EdgeStream {
  readonly ended: Promise<StreamEnd>;
  end(reason: StreamEnd): void;
}

/** Nearly all that an idle edge costs is its confirmations. */
const CONFIRM_EVERY_MS = 5_000;

/** Writes the response until either side ends it. */
export function openEdgeStream(deps: EdgeStreamDeps, start: StreamStart, response: ServerResponse): EdgeStream {
  const { journal, proof, config, clock, log } = deps;
  let finish: (reason: StreamEnd) => void = () => {};
  const ended = new Promise<StreamEnd>((resolve) => {
    finish = resolve;
  });
  let open = true;
  const write = (line: JournalLine): boolean => open && response.write(formatLine(line));
  const begin = whereToBegin(start, journal);
  const edge = deps.confirmations.connect(start.edge, start.instance, begin.gap ? 'gap' : start.from);
  const pump = createPump(journal, begin.after, config.batchMax, write, () => drained(response));
  const unsubscribe = journal.subscribe(() => void advance());
  let next = clock.after(config.beatMs, beat);
  const stopRenewals = proof.onRenewal(beat);

  function end(reason: StreamEnd): void {
    if (!open) return;
    open = false;
    unsubscribe();
    stopRenewals();
    next.cancel();
    edge.disconnect();
    if (reason === 'closing') response.end();
    else response.destroy();
    finish(reason);
  }
  async function advance(): Promise<void> {
    try {
      await pump();
    } catch (thrown) {
      log.error({ edge: start.edge, ...bugFields(thrown) }, 'the journal could not be read for an edge');
      end('failed');
    }
  }
  function beat(): void {
    next.cancel();
    if (edge.silentMs() > config.silenceMaxMs) {
      end('silent');
      return;
    }
    // No beats pile up for an edge that does not read.
    if (!response.writableNeedDrain) write(beatOf(deps));
    next = clock.after(config.beatMs, beat);
  }

  response.once('close', () => end('left'));
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
  const newest = newestOf(journal);
  const usesEveryMs = deps.usesEveryMs();
  const uses = usesEveryMs === undefined ? {} : { usesEveryMs };
  // Two may be lost before the edge counts as silent.
  const confirmEveryMs = Math.min(CONFIRM_EVERY_MS, Math.floor(config.silenceMaxMs / 3));
  const intervals = { beatMs: config.beatMs, confirmEveryMs, ...uses };
  write({ t: 'hello', journal: journal.name, oldest: journal.oldest(), ...newest, ...intervals });
  if (begin.gap) write({ t: 'gap', ...newest });
  write(beatOf(deps));
  void advance();
  return { ended, end };
}

/** The number after which the stream begins, and whether entries that the edge asked for are missing. */
function whereToBegin(start: StreamStart, journal: JournalSource): { readonly after: number; readonly gap: boolean } {
  const newest = journal.newest();
  if (start.from === null) return { after: newest, gap: false };
  const foreign = start.journal !== null && start.journal !== journal.name;
  const otherHistory = start.mark !== null && start.mark !== journal.markOf(start.from);
  const gap = foreign || otherHistory || start.from > newest || start.from + 1 < journal.oldest();
  return { after: gap ? newest : start.from, gap };
}

/** The age is rounded up, so that it never says more than is known. */
function beatOf({ journal, proof, clock }: EdgeStreamDeps): JournalLine {
  const ageMs = Math.ceil(proof.ageMs() ?? Number.MAX_SAFE_INTEGER);
  return { t: 'beat', ...newestOf(journal), at: clock.now(), ageMs };
}

function newestOf(journal: JournalSource): { readonly newest: number; readonly mark: Mark | null } {
  const newest = journal.newest();
  return { newest, mark: journal.markOf(newest) ?? null };
}

/**
 * Returns a function that writes the entries up to the newest. Only one run at a
 * time: a call during a run makes that run look again, so no entry is missed.
 */
function createPump(
  journal: JournalSource,
  after: number,
  batchMax: number,
  write: (line: JournalLine) => boolean,
  drained: () => Promise<void>,
): () => Promise<void> {
  let cursor = after;
  let running = false;
  let again = false;

  async function batch(): Promise<boolean> {
    const entries = await journal.read(cursor, batchMax);
    const [first] = entries;
    if (first === undefined) return false;
    if (first.seq !== cursor + 1) {
      // The journal was trimmed beyond the cursor of this slow edge.
      const newest = newestOf(journal);
      cursor = newest.newest;
      write({ t: 'gap', ...newest });
      return true;
    }
    let room = true;
    for (const entry of entries) {
      room = write({ t: 'entry', ...entry });
      cursor = entry.seq;
    }
    if (!room) await drained();
    return true;
  }

  return async () => {
    again = true;
    if (running) return;
    running = true;
    try {
      while (again) {
        again = false;
        while (await batch());
      }
    } finally {
      running = false;
    }
  };
}

/** Resolves when the edge has taken what was written, or when the connection is closed. */
async function drained(response: ServerResponse): Promise<void> {
  if (!response.writableNeedDrain || response.destroyed) return;
  await waitFor((come) => {
    for (const event of ['drain', 'close']) response.on(event, come);
    return () => {
      for (const event of ['drain', 'close']) response.off(event, come);
    };
  }, undefined);
}
