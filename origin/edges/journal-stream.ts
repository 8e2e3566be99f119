/**
 * The takedown journal as edges read it: one long answer each, backlog first,
 * then live, with beats between; and the confirmations that come back.
 *
 * Promises: each stream holds every entry after its start once and in order,
 * because it is driven by its own cursor into the journal; no more than a batch
 * waits in memory for an edge that reads slowly, and one that confirms nothing
 * is dropped; nobody without the edge secret learns that there is a journal.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../src/clock.js';
import { duration, integer, section, type ValueOf } from '../../src/config/field.js';
import { Fault } from '../../src/errors.js';
import { header, splitTarget, wholeNumber } from '../../src/http/head.js';
import { emptyReply, type Reply } from '../../src/http/reply.js';
import { type Confirmation, formatLine, type JournalLine, parseConfirmation } from '../../src/journal/entry.js';
import { bugFields, type Log } from '../../src/log.js';
import type { GaugeOf, Metrics } from '../../src/metrics.js';
import { EDGE_PROOF } from '../../src/wire.js';
import type { Journal } from '../meta/store.js';
import {
  type Confirmations,
  createConfirmations,
  type EdgeLink,
  type EdgePosition,
  type EdgesConfirmed,
} from './confirmations.js';
import { readSmallBody } from './small-body.js';

export const journalSection = section('The takedown journal, as edges follow it.', {
  beatMs: duration({
    default: '1s',
    min: 50,
    max: 60_000,
    help: 'How often a stream says that it lives, whether or not it has entries to tell.',
  }),
  edgesMax: integer({ default: 64, min: 1, max: 10_000, help: 'Edges that may follow at once.' }),
  silenceMaxMs: duration({
    default: '15s',
    min: 500,
    max: 3_600_000,
    help: 'An edge that has confirmed nothing for so long is dropped; they confirm with every beat.',
  }),
  batchMax: integer({ default: 256, min: 1, max: 10_000, help: 'Entries read from the journal at once.' }),
  keepMs: duration({
    default: '7d',
    min: 60_000,
    help: 'How long entries are kept. An edge that was away for longer empties its cache.',
  }),
  waitMaxMs: duration({
    default: '5s',
    min: 0,
    max: 300_000,
    help: 'How long `?wait=edges` waits for edges that do not confirm.',
  }),
});

export type JournalStreamConfig = ValueOf<typeof journalSection>;

export interface JournalStreamDeps {
  readonly journal: Journal;
  readonly config: JournalStreamConfig;
  /** Whether the value of `edge-authorization` is of the edges' secrets as they are now. */
  isEdge(proof: string | undefined): boolean;
  /** How often edges are to report what they served; undefined: nobody asks for it. */
  readonly usesEveryMs?: number | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface JournalStream {
  /**
   * `GET` JOURNAL_PATH. Writes the whole answer itself and resolves when the
   * stream has ended. Throws a Fault, before anything is written, for a refusal.
   */
  follow(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void>;
  /** `POST` CONFIRM_PATH. Throws a Fault for a refusal. */
  confirm(request: IncomingMessage, signal: AbortSignal): Promise<Reply>;
  /** Every edge that follows now. */
  connectedEdges(): readonly EdgePosition[];
  /** Also those that have gone, as far as they are remembered. */
  positions(): readonly EdgePosition[];
  /**
   * Waits until every edge connected now has applied `seq`, at most `timeoutMs`
   * (the configured bound without one). Never rejects for a slow edge.
   */
  confirmed(seq: number, timeoutMs?: number, signal?: AbortSignal): Promise<EdgesConfirmed>;
  /** Ends the streams that were opened by a secret which no longer holds. */
  recheckSecrets(): void;
  /** Ends every stream and the trimming of the journal. Call it before the listener is closed. */
  close(): Promise<void>;
}

/** How often the journal is trimmed to what is to be kept. */
const TRIM_EVERY_MS = 3_600_000;
const CONFIRMATION_MAX_BYTES = 4_096;
const notOne = (): Fault => new Fault('malformed', 'Not a confirmation.');

export function createJournalStream(deps: JournalStreamDeps): JournalStream {
  const { journal, config, clock, log } = deps;
  const confirmations = createConfirmations(config.edgesMax, clock);
  const streams = new Map<string, Stream & { readonly proof: string | undefined }>();
  const meters = createMeters(deps, confirmations);
  const stopTrimming = keepTrimmed(deps);

  return {
    async follow(request, response, signal) {
      requireEdge(deps, request);
      const start = readStart(request.url ?? '');
      if (signal.aborted || response.destroyed) return;
      const key = JSON.stringify([start.edge, start.instance]);
      const replaced = streams.get(key);
      if (replaced === undefined && streams.size >= config.edgesMax) {
        meters.refused.add();
        throw new Fault('overloaded', 'As many edges as are allowed follow already.', {
          headers: { 'retry-after': '5' },
        });
      }
      replaced?.end('replaced');
      const stream = { ...openStream(deps, confirmations, start, response), proof: proofOf(request) };
      streams.set(key, stream);
      log.info({ edge: start.edge, instance: start.instance, from: start.from }, 'an edge follows the journal');
      const stop = (): void => stream.end('closing');
      signal.addEventListener('abort', stop, { once: true });
      const why = await stream.ended;
      signal.removeEventListener('abort', stop);
      if (streams.get(key) === stream) streams.delete(key);
      meters.ended.add(1, { reason: why });
      log.info({ edge: start.edge, instance: start.instance, reason: why }, 'an edge no longer follows the journal');
    },
    async confirm(request, signal) {
      requireEdge(deps, request);
      const told = parseConfirmation(await readSmallBody(request, CONFIRMATION_MAX_BYTES, notOne, signal));
      if (told === undefined) throw notOne();
      return noteConfirmation(told, journal, confirmations);
    },
    connectedEdges: () => confirmations.positions().filter(({ connected }) => connected),
    positions: () => confirmations.positions(),
    confirmed: (seq, timeoutMs = config.waitMaxMs, signal) => confirmations.wait(seq, timeoutMs, signal),
    recheckSecrets() {
      for (const stream of streams.values()) if (!deps.isEdge(stream.proof)) stream.end('secret_withdrawn');
    },
    async close() {
      stopTrimming();
      for (const stream of streams.values()) stream.end('closing');
      await Promise.all([...streams.values()].map((stream) => stream.ended));
    },
  };
}

/** Says no more than any path that does not exist. */
function requireEdge(deps: JournalStreamDeps, request: IncomingMessage): void {
  if (!deps.isEdge(proofOf(request))) throw new Fault('not_found', 'There is nothing at this path.');
}

function proofOf(request: IncomingMessage): string | undefined {
  return header(request.headers, EDGE_PROOF);
}

interface Start {
  readonly edge: string;
  readonly instance: string;
  /** Null: the edge holds nothing and needs no history. */
  readonly from: number | null;
  /** The journal that `from` counts in, where the edge knows it. */
  readonly journal: string | null;
}

function readStart(target: string): Start {
  const query = new URLSearchParams(splitTarget(target).query);
  const edge = query.get('edge') ?? '';
  const instance = query.get('instance') ?? '';
  const from = query.get('from');
  if (edge === '' || edge.length > 128 || instance === '' || instance.length > 64) {
    throw new Fault('malformed', 'An edge tells its name and instance.');
  }
  const fromSeq = wholeNumber(from);
  if (from !== null && fromSeq === undefined) throw new Fault('malformed', '`from` is a number.');
  return { edge, instance, from: fromSeq ?? null, journal: query.get('journal') };
}

type StreamEnd = 'left' | 'silent' | 'replaced' | 'secret_withdrawn' | 'closing' | 'failed';

interface Stream {
  readonly ended: Promise<StreamEnd>;
  end(reason: StreamEnd): void;
}

/** Writes the answer to one edge until either side ends it. */
function openStream(
  deps: JournalStreamDeps,
  confirmations: Confirmations,
  start: Start,
  response: ServerResponse,
): Stream {
  const { journal, config, clock, log } = deps;
  let finish: (reason: StreamEnd) => void = () => {};
  const ended = new Promise<StreamEnd>((resolve) => {
    finish = resolve;
  });
  let open = true;
  const write = (line: JournalLine): boolean => open && response.write(formatLine(line));
  const begin = whereToBegin(start, journal);
  const link = confirmations.connect(start.edge, start.instance, begin.gap ? null : start.from);
  const pump = createPump(journal, begin.after, config.batchMax, write, () => drained(response));
  const stopBeating = beat(deps, link, response, write, () => end('silent'));
  const unsubscribe = journal.subscribe(() => void advance());

  function end(reason: StreamEnd): void {
    if (!open) return;
    open = false;
    unsubscribe();
    stopBeating();
    link.gone();
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

  response.once('close', () => end('left'));
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
  const newest = journal.newest();
  const uses = deps.usesEveryMs === undefined ? {} : { usesEveryMs: deps.usesEveryMs };
  write({ t: 'hello', journal: journal.name, oldest: journal.oldest(), newest, beatMs: config.beatMs, ...uses });
  if (begin.gap) write({ t: 'gap', newest: begin.after });
  write({ t: 'beat', newest, at: clock.now() });
  void advance();
  return { ended, end };
}

/** The number after which an edge's stream begins, and whether that leaves out what it asked for. */
function whereToBegin(start: Start, journal: Journal): { readonly after: number; readonly gap: boolean } {
  const newest = journal.newest();
  if (start.from === null) return { after: newest, gap: false };
  const foreign = start.journal !== null && start.journal !== journal.name;
  const gap = foreign || start.from > newest || start.from + 1 < journal.oldest();
  return { after: gap ? newest : start.from, gap };
}

/**
 * Writes entries from the cursor to the newest. One run at a time; a call during
 * a run makes it look once more, so that no entry is left behind.
 */
function createPump(
  journal: Journal,
  beginsAt: number,
  batchMax: number,
  write: (line: JournalLine) => boolean,
  drained: () => Promise<void>,
): () => Promise<void> {
  let cursor = beginsAt;
  let running = false;
  let again = false;

  async function batch(): Promise<boolean> {
    const entries = await journal.read(cursor, batchMax);
    const [first] = entries;
    if (first === undefined) return false;
    if (first.seq !== cursor + 1) {
      // Trimmed away while this edge was slow.
      cursor = journal.newest();
      write({ t: 'gap', newest: cursor });
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

/** Resolves when what was written has been taken, or the connection is gone. */
function drained(response: ServerResponse): Promise<void> {
  if (!response.writableNeedDrain || response.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.on('drain', done);
    response.on('close', done);
  });
}

/** Beats until stopped. Nothing is written to an edge that has not taken what it was sent; silence ends the stream. */
function beat(
  deps: JournalStreamDeps,
  link: EdgeLink,
  response: ServerResponse,
  write: (line: JournalLine) => boolean,
  onSilent: () => void,
): () => void {
  const { journal, config, clock } = deps;
  let timer = clock.after(config.beatMs, tick);
  function tick(): void {
    if (link.silentMs() > config.silenceMaxMs) {
      onSilent();
      return;
    }
    if (!response.writableNeedDrain) write({ t: 'beat', newest: journal.newest(), at: clock.now() });
    timer = clock.after(config.beatMs, tick);
  }
  return () => timer.cancel();
}

function noteConfirmation(told: Confirmation, journal: Journal, confirmations: Confirmations): Reply {
  if (told.seq > journal.newest()) throw new Fault('conflict', 'This journal has no such entry yet.');
  if (!confirmations.confirm(told.edge, told.instance, told.seq)) {
    throw new Fault('conflict', 'This edge does not follow the journal.');
  }
  return emptyReply(204, [['cache-control', 'no-store']]);
}

interface Meters {
  readonly ended: { add(amount?: number, labels?: Partial<Record<'reason', string>>): void };
  readonly refused: { add(amount?: number): void };
}

function createMeters(deps: JournalStreamDeps, confirmations: Confirmations): Meters {
  const { metrics, journal } = deps;
  const connected: GaugeOf<never> = metrics.gauge('journal_edges', 'Edges that follow the takedown journal.');
  const newest: GaugeOf<never> = metrics.gauge('journal_newest', 'Number of the newest journal entry.');
  const slowest: GaugeOf<never> = metrics.gauge(
    'journal_confirmed_least',
    'The least number that a following edge has confirmed; the newest where none follows.',
  );
  metrics.onCollect(() => {
    const following = confirmations.positions().filter((edge) => edge.connected);
    connected.set(following.length);
    newest.set(journal.newest());
    slowest.set(Math.min(journal.newest(), ...following.map(({ confirmed }) => confirmed)));
  });
  return {
    ended: metrics.counter('journal_streams_ended_total', 'Journal streams that ended, by reason.', ['reason']),
    refused: metrics.counter('journal_streams_refused_total', 'Edges refused because too many follow.'),
  };
}

/** Trims now and then; a failure is told and tried again the next time. */
function keepTrimmed(deps: JournalStreamDeps): () => void {
  const { journal, config, clock, log } = deps;
  const trim = (): void => {
    journal.trim(clock.now() - config.keepMs).then(
      (dropped) => dropped > 0 && log.info({ dropped }, 'trimmed the journal'),
      (thrown: unknown) => log.error(bugFields(thrown), 'the journal could not be trimmed'),
    );
    timer = clock.after(Math.min(TRIM_EVERY_MS, config.keepMs), trim);
  };
  let timer = clock.after(Math.min(TRIM_EVERY_MS, config.keepMs), trim);
  return () => timer.cancel();
}
