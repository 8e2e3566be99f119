/**
 * The takedown journal as edges read it: one long answer each, backlog first,
 * then live, with beats between; and the confirmations that come back.
 *
 * Promises: each stream holds every entry after its start once and in order,
 * because it is driven by its own cursor into the journal; an edge that does
 * not read or does not confirm is dropped rather than waited for; nobody
 * without the edge secret learns that there is a journal.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../src/clock.js';
import { duration, integer, section, size, type ValueOf } from '../src/config/field.js';
import type { Reply } from '../src/http/reply.js';
import type { Log } from '../src/log.js';
import type { Metrics } from '../src/metrics.js';
import type { EdgePosition } from './confirmations.js';
import type { Journal } from './meta/store.js';

export const journalSection = section('The takedown journal, as edges follow it.', {
  beatMs: duration({
    default: '1s',
    min: 50,
    max: 60_000,
    help: 'How often a stream with nothing to tell says that it lives.',
  }),
  edgesMax: integer({ default: 64, min: 1, max: 10_000, help: 'Edges that may follow at once.' }),
  unreadMaxBytes: size({
    default: '4MiB',
    min: 65_536,
    max: 1_073_741_824,
    help: 'What may wait unread for one edge before it is dropped; it comes back and goes on where it was.',
  }),
  silenceMaxMs: duration({
    default: '15s',
    min: 500,
    max: 3_600_000,
    help: 'An edge that has confirmed nothing for so long is dropped.',
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

export interface JournalStreamOptions {
  readonly journal: Journal;
  readonly config: JournalStreamConfig;
  /** Whether the value of `edge-authorization` is the edges' secret. */
  isEdge(proof: string | undefined): boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface EdgesConfirmed {
  readonly confirmed: number;
  readonly connected: number;
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
  /** Ends every stream. */
  close(): Promise<void>;
}

export function createJournalStream(options: JournalStreamOptions): JournalStream {
  throw new Error(`not written yet: ${options.config.beatMs}`);
}
