/** The routes on the operators' listener. */
import { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import { emptyReply, jsonReply, type Reply } from '../../src/http/reply.js';
import type { Sha256 } from '../../src/ids.js';
import type { Metrics } from '../../src/metrics.js';
import { type ReloadOutcome, reloadReply } from '../../src/reload.js';
import type { Health } from '../../src/server/health.js';
import { metricsReply } from '../../src/server/metrics-reply.js';
import { booleanParameter, type Route, route, sha256, textParameter } from '../../src/server/routes.js';
import type { AuditAct, AuditLog } from '../audit.js';
import type { MetaStore } from '../meta/store.js';
import type { OriginRequest } from '../server/request.js';
import type { ThumbsConfig } from '../thumbs/config.js';
import type { Thumbs } from '../thumbs/engine.js';
import { backfillThumbs, reportQueue, retryThumbs } from '../thumbs/maintenance.js';
import type { ScrubMarks } from '../upkeep/scrub.js';
import { reportOutbox, retryEvents } from '../webhooks/outbox-report.js';
import { healthRoutes } from './routes.js';

export interface OperatorDeps {
  readonly health: Health;
  readonly metrics: Metrics;
  /** Applies what a scrub in another process has found (upkeep/commands.ts). */
  readonly marks: ScrubMarks;
  readonly meta: Pick<MetaStore, 'jobs' | 'blobsAfter' | 'finishThumbs' | 'outbox'>;
  readonly thumbs: Pick<Thumbs, 'accepts'>;
  readonly config: { readonly thumbs: ThumbsConfig };
  readonly audit: Pick<AuditLog, 'append'>;
  /** Reads the configuration again. */
  readonly reload: () => Promise<ReloadOutcome>;
  readonly clock: Clock;
}

export function operatorRoutes(deps: OperatorDeps): readonly Route<OriginRequest>[] {
  return [
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/metrics',
      summary: 'Metrics in the format of Prometheus.',
      audience: 'anyone',
      path: {},
      query: {},
      responses: [{ status: 200, help: 'The metrics.', content: { type: 'text/plain' } }],
      handle: (_request: OriginRequest) => metricsReply(deps.metrics),
    }),
    route({
      methods: ['POST'],
      pattern: '/scrub/{sha256}/rotten',
      summary: 'Withholds a blob whose stored bytes are lost or wrong, until the same bytes are uploaded again.',
      audience: 'anyone',
      hidden: true,
      path: { sha256 },
      query: { reason: textParameter('What was found.', REASON_LENGTH_MAX) },
      responses: [{ status: 204, help: 'It is withheld.' }],
      handle: (request: OriginRequest, path, query) =>
        mark(deps, request, { act: 'rotten', sha256: path.sha256, reason: query.reason ?? 'found by a scrub' }),
    }),
    route({
      methods: ['POST'],
      pattern: '/scrub/{sha256}/thumbs',
      summary: 'Renders the thumbnails of a blob again.',
      audience: 'anyone',
      hidden: true,
      path: { sha256 },
      query: {},
      responses: [{ status: 204, help: 'They are queued.' }],
      handle: (request: OriginRequest, path) =>
        mark(deps, request, { act: 'thumbs_again', sha256: path.sha256, reason: null }),
    }),
    reloadRoute(deps),
    ...thumbRoutes(deps),
    ...webhookRoutes(deps),
    ...healthRoutes(deps.health),
  ];
}

function reloadRoute({ reload, audit, clock }: OperatorDeps): Route<OriginRequest> {
  return route({
    methods: ['POST'],
    pattern: '/reload',
    summary: 'Reads the configuration again, and says what has changed and what needs a restart.',
    audience: 'anyone',
    hidden: true,
    path: {},
    query: {},
    responses: [{ status: 200, help: 'It is applied.', content: { type: 'application/json' } }],
    handle: async (request: OriginRequest) => {
      await record(audit, clock, request, 'reload', null, null);
      return reloadReply(await reload());
    },
  });
}

/** The thumbnail queue (thumbs/commands.ts). Each responds with one JSON object per line, which reports its progress. */
function thumbRoutes({ meta, thumbs, config, audit, clock }: OperatorDeps): readonly Route<OriginRequest>[] {
  const responses = [
    { status: 200, help: 'Progress, one JSON object per line.', content: { type: 'application/x-ndjson' } },
  ];
  return [
    route({
      methods: ['GET'],
      pattern: '/thumbs/status',
      summary: 'Jobs that wait, and jobs that were given up.',
      audience: 'anyone',
      hidden: true,
      path: {},
      query: {},
      responses,
      handle: async (_request: OriginRequest) => stepsReply([await reportQueue(meta, DEAD_SHOWN_MAX)]),
    }),
    route({
      methods: ['POST'],
      pattern: '/thumbs/retry',
      summary: 'Queues the jobs again that were given up.',
      audience: 'anyone',
      hidden: true,
      path: {},
      query: {},
      responses,
      handle: async (request: OriginRequest) => {
        await record(audit, clock, request, 'thumbs_retry', null, null);
        return stepsReply(retryThumbs(meta, clock, request.signal));
      },
    }),
    route({
      methods: ['POST'],
      pattern: '/thumbs/backfill',
      summary: 'Renders the thumbnails that the current configuration asks for.',
      audience: 'anyone',
      hidden: true,
      path: {},
      query: { all: booleanParameter('Also those that already match it.') },
      responses,
      handle: async (request: OriginRequest, _path, query) => {
        await record(audit, clock, request, 'thumbs_backfill', null, null);
        const range = { all: query.all ?? false, after: null };
        return stepsReply(backfillThumbs({ meta, config: config.thumbs, thumbs, clock }, range, request.signal));
      },
    }),
  ];
}

/** The outbox (webhooks/commands.ts). */
function webhookRoutes({ meta, audit, clock }: OperatorDeps): readonly Route<OriginRequest>[] {
  return [
    route({
      methods: ['GET'],
      pattern: '/webhooks',
      summary: 'Events that wait to be sent, and the newest of those that were given up.',
      audience: 'anyone',
      hidden: true,
      path: {},
      query: {},
      responses: [{ status: 200, help: 'Figures and dead letters.', content: { type: 'application/json' } }],
      handle: async (_request: OriginRequest) => jsonReply(200, await reportOutbox(meta)),
    }),
    route({
      methods: ['POST'],
      pattern: '/webhooks/retry',
      summary: 'Has the events sent again that were given up.',
      audience: 'anyone',
      hidden: true,
      path: {},
      query: {},
      responses: [
        { status: 200, help: 'Progress, one JSON object per line.', content: { type: 'application/x-ndjson' } },
      ],
      handle: async (request: OriginRequest) => {
        await record(audit, clock, request, 'webhooks_retry', null, null);
        return stepsReply(retryEvents(meta, clock, request.signal));
      },
    }),
  ];
}

const DEAD_SHOWN_MAX = 20;

function stepsReply(steps: Iterable<object> | AsyncIterable<object>): Reply {
  async function* lines(): AsyncGenerator<Buffer> {
    for await (const step of steps) yield Buffer.from(`${JSON.stringify(step)}\n`);
  }
  return {
    status: 200,
    headers: [
      ['content-type', 'application/x-ndjson'],
      ['cache-control', 'no-store'],
    ],
    body: { kind: 'stream', sizeBytes: null, open: () => Readable.from(lines()) },
  };
}

const REASON_LENGTH_MAX = 200;

async function mark(
  { marks, audit, clock }: OperatorDeps,
  request: OriginRequest,
  { act, sha256, reason }: { act: 'rotten' | 'thumbs_again'; sha256: Sha256; reason: string | null },
): Promise<Reply> {
  await record(audit, clock, request, act, sha256, reason);
  await (act === 'rotten' ? marks.rotten(sha256, reason ?? '') : marks.redoThumbs(sha256));
  return emptyReply(204, [['cache-control', 'no-store']]);
}

/** Writes an act down before it is done. */
async function record(
  audit: OperatorDeps['audit'],
  clock: Clock,
  request: OriginRequest,
  act: AuditAct['act'],
  target: Sha256 | null,
  reason: string | null,
): Promise<void> {
  const { id: requestId, address } = request;
  await audit.append({
    at: clock.now(),
    by: 'operator',
    act,
    target,
    outcome: 'begun',
    seq: null,
    reason,
    requestId,
    address,
  });
}
