/**
 * The takedown journal for edges: `GET` JOURNAL_PATH streams its entries,
 * `POST` CONFIRM_PATH confirms how far an edge has applied them.
 *
 * Promises: a stream has no holes. Each is driven by its own cursor into the
 * journal (edge-stream.ts), and where entries are gone it says so. An edge that
 * confirms nothing is disconnected. Without the edge secret, both paths look
 * like paths that do not exist.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { onAbort } from '../../src/abort.js';
import type { Clock } from '../../src/clock.js';
import { duration, integer, section, type ValueOf } from '../../src/config/field.js';
import { Fault } from '../../src/errors.js';
import { header, splitTarget, wholeNumber } from '../../src/http/head.js';
import { emptyReply, type Reply } from '../../src/http/reply.js';
import { isMark, parseConfirmation } from '../../src/journal/entry.js';
import { bugFields, type Log } from '../../src/log.js';
import type { CounterOf, Metrics } from '../../src/metrics.js';
import { EDGE_PROOF } from '../../src/wire.js';
import type { Journal } from '../meta/store.js';
import { type Confirmations, createConfirmations, type EdgePosition, type EdgesConfirmed } from './confirmations.js';
import { type EdgeStream, openEdgeStream, type StreamStart } from './edge-stream.js';
import { readSmallBody } from './small-body.js';

export const journalSection = section('The takedown journal, which edges follow.', {
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
    help: 'An edge that has confirmed nothing for so long is disconnected. Edges confirm with every beat.',
  }),
  batchMax: integer({ default: 256, min: 1, max: 10_000, help: 'Entries read from the journal at once.' }),
  keepMs: duration({
    default: '7d',
    min: 60_000,
    help: 'How long entries are kept. An edge that was disconnected for longer empties its cache.',
  }),
  waitMaxMs: duration({
    default: '5s',
    min: 0,
    max: 300_000,
    help: 'How long `?wait=edges` waits for edges to confirm.',
  }),
});

export type JournalStreamConfig = ValueOf<typeof journalSection>;

export interface JournalStreamDeps {
  readonly journal: Journal;
  readonly config: JournalStreamConfig;
  /** Whether a value of `edge-authorization` proves an edge by a secret that is accepted now. */
  isEdge(proof: string | undefined): boolean;
  /** How often edges are to report what they served; undefined: they need not. */
  readonly usesEveryMs?: number | undefined;
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
  /**
   * Waits until every edge that is connected now has applied `seq`, at most
   * `timeoutMs` (default: `wait_max`). Never rejects because of a slow edge.
   */
  confirmed(seq: number, timeoutMs?: number, signal?: AbortSignal): Promise<EdgesConfirmed>;
  /** Ends the streams that were opened with a secret that is no longer accepted. */
  recheckSecrets(): void;
  /** Ends all streams and stops trimming the journal. Call it before the listener is closed. */
  close(): Promise<void>;
}

const CONFIRMATION_MAX_BYTES = 4_096;

export function createJournalStream(deps: JournalStreamDeps): JournalStream {
  const { journal, config, log } = deps;
  const confirmations = createConfirmations(config.edgesMax, deps.clock);
  const streams = new Map<string, EdgeStream & { readonly proof: string | undefined }>();
  const meters = createMeters(deps, confirmations);
  const stopTrimming = trimRegularly(deps);

  return {
    async follow(request, response, signal) {
      requireEdge(deps, request);
      const start = readStart(request.url ?? '');
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
      const { edge, instance, seq } = confirmation;
      if (seq > journal.newest()) throw new Fault('conflict', 'This journal has no such entry yet.');
      if (!confirmations.confirm(edge, instance, seq)) {
        throw new Fault('conflict', 'This edge does not follow the journal.');
      }
      return emptyReply(204, [['cache-control', 'no-store']]);
    },
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

/** Answers like a path that does not exist. */
function requireEdge(deps: JournalStreamDeps, request: IncomingMessage): void {
  if (!deps.isEdge(proofOf(request))) throw new Fault('not_found', 'There is nothing at this path.');
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
  const connected = metrics.gauge('journal_edges', 'Edges that follow the takedown journal.');
  const newest = metrics.gauge('journal_newest', 'Number of the newest journal entry.');
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
    ended: metrics.counter('journal_streams_ended_total', 'Journal streams that ended, by reason.', ['reason']),
    refused: metrics.counter('journal_streams_refused_total', 'Edges refused because too many follow.'),
  };
}

/** How often entries that are no longer kept are removed. */
const TRIM_EVERY_MS = 3_600_000;

/** A failure is logged, and trimming is tried again the next time. The function returned stops it. */
function trimRegularly({ journal, config, clock, log }: JournalStreamDeps): () => void {
  const everyMs = Math.min(TRIM_EVERY_MS, config.keepMs);
  const trim = (): void => {
    journal.trim(clock.now() - config.keepMs).then(
      (dropped) => dropped > 0 && log.info({ dropped }, 'trimmed the journal'),
      (thrown: unknown) => log.error(bugFields(thrown), 'the journal could not be trimmed'),
    );
    timer = clock.after(everyMs, trim);
  };
  let timer = clock.after(everyMs, trim);
  return () => timer.cancel();
}
