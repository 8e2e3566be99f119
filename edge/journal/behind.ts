/**
 * The edges behind this one: they prove themselves with the edge secret, follow
 * the journal through this edge, confirm here, and report here what they served.
 *
 * Promises: they are told what is applied here and nothing else; the origin gets
 * their confirmations with this edge's own; a use report is accepted once the
 * origin has accepted it. Without the edge secret, the paths look like paths that
 * do not exist.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Clock, withDeadline } from '../../src/clock.js';
import { integer, section, type ValueOf } from '../../src/config/field.js';
import { Fault } from '../../src/errors.js';
import { header, originForm, splitTarget } from '../../src/http/head.js';
import { emptyReply, type Reply } from '../../src/http/reply.js';
import type { EdgesBehind } from '../../src/journal/confirmation.js';
import type { EdgePosition } from '../../src/journal/confirmations.js';
import { CONFIRM_PATH, JOURNAL_PATH } from '../../src/journal/entry.js';
import { createJournalStream, type JournalStream, streamFields } from '../../src/journal/journal-stream.js';
import type { KnownEdges } from '../../src/journal/known-edges.js';
import { parseUseReport, USE_REPORT_MAX_BYTES, USES_PATH } from '../../src/journal/use-report.js';
import type { Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import { readSmallBody } from '../../src/server/small-body.js';
import { EDGE_PROOF } from '../../src/wire.js';
import { type AppliedJournal, createAppliedJournal } from './applied-journal.js';
import type { OpenOrigin } from './config.js';

export const behindSection = section('Edges behind this one, whose `upstream.url` is this edge.', {
  ...streamFields,
  keptIdsMax: integer({
    default: 50_000,
    min: 0,
    max: 10_000_000,
    help: 'How many ids of past takedowns are kept for an edge that was away. One that missed more empties its cache.',
  }),
});

export type BehindConfig = ValueOf<typeof behindSection>;

export interface BehindDeps {
  readonly config: BehindConfig;
  /** Whether a value of `edge-authorization` proves an edge by a secret that is accepted now. */
  isEdge(proof: string | undefined): boolean;
  /** Sends a request to the origin with this edge's own proof. */
  readonly open: OpenOrigin;
  readonly proof: () => string;
  /** How long the origin may take to answer a use report. */
  readonly usesWithinMs: number;
  readonly knownEdges: KnownEdges;
  /** Called when `counts` has changed. */
  onCounts(): void;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface Behind {
  /** Filled by the follower. */
  readonly applied: AppliedJournal;
  counts(): EdgesBehind;
  /** Each edge behind this one, and how far it is. */
  positions(): readonly EdgePosition[];
  /** How often the origin wants use reports; undefined: never. */
  wantUseReports(everyMs: number | undefined): void;
  /** A promise of undefined: the response has been written. Throws a Fault to refuse. */
  handle(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<Reply | undefined>;
  recheckSecrets(): void;
  /** Ends all streams. Call it before the listener is closed. */
  close(): Promise<void>;
}

/** The paths that edges use, beside those of clients. */
export function isPathOfEdges(method: string, path: string): boolean {
  return method === 'GET' ? path === JOURNAL_PATH : method === 'POST' && (path === CONFIRM_PATH || path === USES_PATH);
}

export function createBehind(deps: BehindDeps): Behind {
  let usesEveryMs: number | undefined;
  const applied = createAppliedJournal(deps.config.keptIdsMax, () => stream.startAgain());
  const stream: JournalStream = createJournalStream({
    ...deps,
    journal: applied,
    proof: applied,
    usesEveryMs: () => usesEveryMs,
    onCounts: () => deps.onCounts(),
  });
  return {
    applied,
    counts: () => stream.counts(),
    positions: () => stream.positions(),
    wantUseReports(everyMs) {
      // Edges learn it at the beginning of their streams.
      if (everyMs !== usesEveryMs) stream.startAgain();
      usesEveryMs = everyMs;
    },
    async handle(request, response, signal) {
      const { path } = splitTarget(originForm(request.url ?? '').target);
      switch (path) {
        case JOURNAL_PATH:
          await stream.follow(request, response, signal);
          return undefined;
        case CONFIRM_PATH:
          return await stream.confirm(request, signal);
        case USES_PATH:
          return await forwardUses(deps, request, signal);
        default:
          throw new Fault('not_found', 'There is nothing at this path.');
      }
    },
    recheckSecrets: () => stream.recheckSecrets(),
    close: () => stream.close(),
  };
}

/** Answered when the origin has stored the report: the edge behind then forgets it. */
async function forwardUses(deps: BehindDeps, request: IncomingMessage, signal: AbortSignal): Promise<Reply> {
  if (!deps.isEdge(header(request.headers, EDGE_PROOF))) {
    throw new Fault('not_found', 'There is nothing at this path.');
  }
  const tooLong = (): Fault => new Fault('too_large', 'A use report is shorter than this.');
  const text = await readSmallBody(request, USE_REPORT_MAX_BYTES, tooLong, signal);
  if (parseUseReport(text) === undefined) throw new Fault('malformed', 'Not a use report.');
  const sent = {
    method: 'POST',
    target: USES_PATH,
    headers: [
      ['content-type', 'application/json'],
      [EDGE_PROOF, deps.proof()],
    ],
    body: Buffer.from(text),
  } as const;
  const late = (): Error => new Fault('gateway_timeout', 'The origin did not take the report in time.');
  const { status, body } = await withDeadline({ clock: deps.clock, ms: deps.usesWithinMs, late, signal }, (ending) =>
    deps.open(sent, ending),
  );
  body.on('error', () => {}).resume();
  if (status >= 300) throw new Fault('bad_gateway', 'The origin did not take the report.');
  return emptyReply(204, [['cache-control', 'no-store']]);
}
