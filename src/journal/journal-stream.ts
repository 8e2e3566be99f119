/**
 * The takedown journal for edges: `GET` JOURNAL_PATH streams its entries, `POST`
 * CONFIRM_PATH confirms how far an edge has applied them. Served by the origin,
 * and by an edge to the edges behind it.
 *
 * Promises: a stream has no holes. Each is driven by its own cursor into the
 * journal (edge-stream.ts), and where entries are gone it says so. An edge that
 * confirms nothing is disconnected. Without the edge secret, both paths look
 * like paths that do not exist.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { onAbort, waitFor } from '../abort.js';
import { type Clock, withDeadline } from '../clock.js';
import { duration, integer } from '../config/field.js';
import { Fault } from '../errors.js';
import { header, splitTarget, wholeNumber } from '../http/head.js';
import { emptyReply, type Reply } from '../http/reply.js';
import type { Log } from '../log.js';
import type { CounterOf, Metrics } from '../metrics.js';
import { readSmallBody } from '../server/small-body.js';
import { EDGE_PROOF } from '../wire.js';
import { CONFIRMATION_MAX_BYTES, type EdgesBehind, parseConfirmation } from './confirmation.js';
import { type Confirmations, createConfirmations, type EdgePosition, type EdgesConfirmed } from './confirmations.js';
import { type EdgeStream, openEdgeStream, type StreamStart } from './edge-stream.js';
import { isMark } from './entry.js';
import { type KnownEdges, NO_KNOWN_EDGES } from './known-edges.js';
import { type JournalProof, type JournalSource, notCurrentYet } from './source.js';

/** The keys of every section that configures such streams. */
export const streamFields = {
  beatMs: duration({
    default: '1s',
    min: 50,
    max: 60_000,
    help: 'How often every stream sends a beat, also when it has no entries.',
  }),
  edgesMax: integer({ default: 64, min: 1, max: 10_000, help: 'Edges that may follow the journal at once.' }),
  silenceMaxMs: duration({
    default: '15s',
    min: 500,
    max: 3_600_000,
    help: 'An edge that has confirmed nothing for so long is disconnected. Edges confirm what is new at once, and otherwise every 5 s, or three times in this time.',
  }),
  batchMax: integer({ default: 256, min: 1, max: 10_000, help: 'Entries read from the journal at once.' }),
  awayMs: duration({
    default: '15m',
    min: 0,
    max: 604_800_000,
    help: 'How long an edge that has left without saying so still counts in `Takedown-Confirmed`, since it may be cut off and serving. Choose no less than `lease.ttl` and `lease.serve_max` of the edges together.',
  }),
};

export interface JournalStreamConfig {
  readonly beatMs: number;
  readonly edgesMax: number;
  readonly silenceMaxMs: number;
  readonly batchMax: number;
  readonly awayMs: number;
}

export interface JournalStreamDeps {
  readonly journal: JournalSource;
  readonly proof: JournalProof;
  readonly config: JournalStreamConfig;
  /** Whether a value of `edge-authorization` proves an edge by a secret that is accepted now. */
  isEdge(proof: string | undefined): boolean;
  /** How often edges are to report what they served; undefined: they need not. */
  readonly usesEveryMs: () => number | undefined;
  /** Remembers the edges over a restart. */
  readonly knownEdges?: KnownEdges;
  /** Called when `counts` has changed. */
  onCounts?(): void;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface JournalStream {
  /** Writes the whole response and resolves when the stream has ended. Throws a Fault to refuse, before it writes anything. */
  follow(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void>;
  /** Throws a Fault to refuse. */
  confirm(request: IncomingMessage, signal: AbortSignal): Promise<Reply>;
  /** The connected edges, and those that have left as far as they are remembered. */
  positions(): readonly EdgePosition[];
  following: Confirmations['following'];
  forget: Confirmations['forget'];
  /** All edges that follow here or behind those, by what they have confirmed. */
  counts(): EdgesBehind;
  /**
   * Waits until every edge that is connected now has applied `seq`, at most `timeoutMs`. Never rejects
   * because of a slow edge. Counts also the edges that left lately.
   */
  confirmed(seq: number, timeoutMs: number, signal?: AbortSignal): Promise<EdgesConfirmed>;
  /** Ends the streams that were opened with a secret that is no longer accepted. */
  recheckSecrets(): void;
  /** Ends all streams: the journal has become another one, or its entries have a gap. */
  startAgain(): void;
  /** Ends all streams. Call it before the listener is closed. */
  close(): Promise<void>;
}

export function createJournalStream(deps: JournalStreamDeps): JournalStream {
  const { journal, config, log, clock } = deps;
  const knownEdges = deps.knownEdges ?? NO_KNOWN_EDGES;
  const confirmations = createConfirmations({
    goneMax: config.edgesMax,
    awayMs: config.awayMs,
    known: knownEdges.known,
    clock,
    onChange(which) {
      if (which === 'edges') knownEdges.save(() => confirmations.known());
      deps.onCounts?.();
    },
  });
  const streams = new Map<string, EdgeStream & { readonly proof: string | undefined }>();
  const meters = createMeters(deps, confirmations);

  return {
    async follow(request, response, signal) {
      requireEdge(deps, request);
      const start = readStart(request.url ?? '');
      await untilCovered(deps, start, signal);
      if (signal.aborted || response.destroyed) return;
      const { edge, instance, from } = start;
      const key = JSON.stringify([edge, instance]);
      const replaced = streams.get(key);
      if (replaced === undefined && streams.size >= config.edgesMax) {
        meters.refused.add();
        throw new Fault('overloaded', 'No more edges may follow at once.', { headers: { 'retry-after': '5' } });
      }
      replaced?.end('replaced');
      const stream = { ...openEdgeStream({ ...deps, confirmations }, start, response), proof: proofOf(request) };
      streams.set(key, stream);
      log.info({ edge, instance, from }, 'an edge follows the journal');
      const stopListening = onAbort(signal, () => stream.end('closing'));
      const reason = await stream.ended;
      stopListening();
      if (streams.get(key) === stream) streams.delete(key);
      meters.ended.add(1, { reason });
      log.info({ edge, instance, reason }, 'an edge no longer follows the journal');
    },
    async confirm(request, signal) {
      requireEdge(deps, request);
      const confirmation = parseConfirmation(
        await readSmallBody(request, CONFIRMATION_MAX_BYTES, notAConfirmation, signal),
      );
      if (confirmation === undefined) throw notAConfirmation();
      if (confirmation.seq > journal.newest()) await journal.refresh();
      if (confirmation.seq > journal.newest()) throw new Fault('conflict', 'This journal has no such entry yet.');
      if (!confirmations.confirm(confirmation)) {
        throw new Fault('conflict', 'This edge does not follow the journal.');
      }
      return emptyReply(204, [['cache-control', 'no-store']]);
    },
    positions: () => confirmations.positions(),
    following: () => confirmations.following(),
    forget: (names) => confirmations.forget(names),
    counts: () => confirmations.counts(),
    confirmed: (seq, timeoutMs, signal) => confirmations.wait(seq, timeoutMs, signal),
    recheckSecrets() {
      for (const stream of streams.values()) if (!deps.isEdge(stream.proof)) stream.end('secret_withdrawn');
    },
    startAgain() {
      for (const stream of streams.values()) stream.end('other_journal');
    },
    async close() {
      for (const stream of streams.values()) stream.end('closing');
      await Promise.all([...streams.values()].map((stream) => stream.ended));
      await knownEdges.close();
    },
  };
}

/** Answers like a path that does not exist. */
function requireEdge(deps: Pick<JournalStreamDeps, 'isEdge'>, request: IncomingMessage): void {
  if (!deps.isEdge(proofOf(request))) throw new Fault('not_found', 'There is nothing at this path.');
}

/**
 * An edge that asks for entries after the newest one here may know more than this journal, which then has
 * to catch up first, or come from another history. So the journal is asked when its proof is younger than
 * the question. Throws if it does not get one.
 */
async function untilCovered(deps: JournalStreamDeps, start: StreamStart, signal: AbortSignal): Promise<void> {
  const { journal, proof, clock, config } = deps;
  if (proof.ageMs() === null) throw notCurrentYet();
  const { from } = start;
  if (proof.isOwn || from === null || (start.journal !== null && start.journal !== journal.name)) return;
  const askedMs = clock.monotonicMs();
  if (from > journal.newest()) await journal.refresh();
  const isCovered = (): boolean => from <= journal.newest() || (proof.ageMs() ?? 0) < clock.monotonicMs() - askedMs;
  await withDeadline({ clock, ms: config.beatMs * 3, late: notCurrentYet, signal }, async (ending) => {
    while (!isCovered()) await waitFor((come) => proof.onRenewal(come), ending);
  });
}

function proofOf(request: IncomingMessage): string | undefined {
  return header(request.headers, EDGE_PROOF);
}

function notAConfirmation(): Fault {
  return new Fault('malformed', 'Not a confirmation.');
}

function readStart(target: string): StreamStart {
  const query = new URLSearchParams(splitTarget(target).query);
  const edge = query.get('edge') ?? '';
  const instance = query.get('instance') ?? '';
  const from = query.get('from');
  const mark = query.get('mark');
  if (edge === '' || edge.length > 128 || instance === '' || instance.length > 64) {
    throw new Fault('malformed', 'An edge gives its name and instance.');
  }
  const fromSeq = wholeNumber(from);
  if (from !== null && fromSeq === undefined) throw new Fault('malformed', '`from` is a number.');
  if (mark !== null && !isMark(mark)) throw new Fault('malformed', '`mark` is the mark of an entry.');
  return { edge, instance, from: fromSeq ?? null, mark, journal: query.get('journal') };
}

interface Meters {
  readonly ended: CounterOf<'reason'>;
  readonly refused: CounterOf<never>;
}

function createMeters({ metrics, journal }: JournalStreamDeps, confirmations: Confirmations): Meters {
  const connected = metrics.gauge('journal_edges', 'Edges that follow the takedown journal here.');
  const newest = metrics.gauge('journal_newest', 'Number of the newest journal entry.', [], 'max');
  const slowest = metrics.gauge(
    'journal_confirmed_least',
    'The lowest number that a following edge has confirmed; the newest if none follows.',
  );
  metrics.onCollect(() => {
    const following = confirmations.positions().filter((edge) => edge.connected);
    connected.set(following.length);
    newest.set(journal.newest());
    slowest.set(Math.min(journal.newest(), ...following.map(({ confirmed }) => confirmed)));
  });
  return {
    ended: metrics.counter('journal_streams_ended_total', 'Journal streams to edges that ended, by reason.', [
      'reason',
    ]),
    refused: metrics.counter('journal_streams_refused_total', 'Edges refused because too many follow.'),
  };
}
