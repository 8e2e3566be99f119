/**
 * The edge's listener for operators, on a separate address: metrics, figures, a
 * live page, purging and reloading. Who may use it is decided in
 * src/server/operators.ts, before anything else.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../src/clock.js';
import { Fault, faultOf } from '../../src/errors.js';
import type { History } from '../../src/history.js';
import { header } from '../../src/http/head.js';
import { problemReply } from '../../src/http/problem.js';
import { jsonReply, type Reply } from '../../src/http/reply.js';
import type { RecentTakedown } from '../../src/journal/recent.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import { type ReloadOutcome, reloadReply } from '../../src/reload.js';
import type { ListenLimits } from '../../src/server/limits.js';
import { listen } from '../../src/server/listen.js';
import { createFiguresFeed, type FiguresFeed } from '../../src/server/live/figures-feed.js';
import { pageRoutes } from '../../src/server/live/pages.js';
import { metricsReply } from '../../src/server/metrics-reply.js';
import { admitOperator } from '../../src/server/operators.js';
import { createMatcher, type Method, route } from '../../src/server/routes.js';
import { send } from '../../src/server/send.js';
import type { OperatorsConfig } from './config.js';
import { openEdgeHistory } from './history.js';
import { registerFigures } from './metrics.js';
import { type PurgeOrder, readPurge } from './purge.js';
import { readJson } from './read-json.js';
import { readStats, type StatsSources } from './stats.js';
import type { Watching } from './watching.js';
import { watchingRoutes } from './watching-routes.js';

export interface OpsDeps {
  readonly config: OperatorsConfig;
  readonly limits: ListenLimits;
  readonly sources: StatsSources;
  /** Resolves with the number of stored responses that were dropped. */
  readonly purge: (order: PurgeOrder) => Promise<number>;
  reload(): ReloadOutcome | Promise<ReloadOutcome>;
  readonly watching: Watching;
  /** The newest that were applied here, and which edges behind this one have confirmed them. Null: there is no journal. */
  readonly takedowns: () => Promise<readonly RecentTakedown[] | null>;
  /** Called before the figures are read. */
  refresh?(): Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface Ops {
  readonly url: string;
  close(): Promise<void>;
}

export async function openOps(deps: OpsDeps): Promise<Ops> {
  const { config, limits, clock, log } = deps;
  registerFigures(deps.metrics, deps.sources);
  const history = openEdgeHistory(deps.sources, clock);
  const figures = async (): Promise<object> => {
    await deps.refresh?.();
    return readStats(deps.sources, history);
  };
  const feed = createFiguresFeed({ read: figures, pagesMax: config.pagesMax, clock, log });
  const find = createMatcher(routesOf(deps, { history, figures, feed }));
  const closing = new AbortController();

  async function answer(request: IncomingMessage): Promise<Reply> {
    try {
      const [path = '', query = ''] = (request.url ?? '').split(/\?(.*)/s);
      const { method = '', headers } = request;
      admitOperator(config, { method, path, header: (name) => header(headers, name) });
      const found = find(method, path);
      switch (found.kind) {
        case 'found':
          return await found.route.run(request, found.segments, query);
        case 'method':
          throw notAllowed(found.allowed);
        case 'none':
          throw new Fault('not_found', 'There is nothing at this path.');
      }
    } catch (thrown) {
      const fault = faultOf(thrown);
      if (fault.status >= 500) log.error(errorFields(thrown), 'an operator’s request failed');
      return problemReply(fault);
    }
  }
  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await send(await answer(request), request, response, closing.signal);
    } catch {
      response.destroy();
    }
  }

  const listener = await listen({
    host: config.host,
    port: config.port,
    limits,
    clock,
    log,
    onRequest: (request, response) => void handle(request, response),
    problem: problemReply,
  }).catch((thrown: unknown) => {
    history.close();
    throw thrown;
  });
  return {
    url: listener.url,
    async close() {
      history.close();
      // The streams to pages do not end by themselves.
      feed.close();
      const closed = listener.close();
      closing.abort(new Fault('overloaded', 'The edge is stopping.'));
      await closed;
    },
  };
}

function notAllowed(allowed: readonly Method[]): Fault {
  return new Fault('method_not_allowed', 'This path has other methods.', { headers: { allow: allowed.join(', ') } });
}

const NOTES = { audience: 'anyone', path: {}, query: {}, responses: [] } as const;

interface PageDeps {
  readonly history: History;
  readonly figures: () => Promise<object>;
  readonly feed: FiguresFeed;
}

function routesOf(deps: OpsDeps, { history, figures, feed }: PageDeps) {
  const { metrics, log } = deps;
  return [
    ...watchingRoutes(deps.watching, deps.config.orderMaxBytes),
    ...pageRoutes<IncomingMessage>('edge/ops/page'),
    route({
      ...NOTES,
      methods: ['GET'],
      pattern: '/events',
      summary: 'The figures of the page, once a second.',
      handle: async (_request: IncomingMessage) => feed.open(),
    }),
    route({
      ...NOTES,
      methods: ['GET', 'HEAD'],
      pattern: '/history',
      summary: 'How the figures went, minute by minute.',
      handle: async (_request: IncomingMessage) => jsonReply(200, history.minutes),
    }),
    route({
      ...NOTES,
      methods: ['GET'],
      pattern: '/takedowns',
      summary: 'The newest takedowns, and which edges behind this one have confirmed them.',
      handle: async (_request: IncomingMessage) => jsonReply(200, { takedowns: await deps.takedowns() }),
    }),
    route({
      ...NOTES,
      methods: ['GET', 'HEAD'],
      pattern: '/stats',
      summary: 'Figures as JSON.',
      handle: async (_request: IncomingMessage) => jsonReply(200, await figures()),
    }),
    route({
      ...NOTES,
      methods: ['GET', 'HEAD'],
      pattern: '/metrics',
      summary: 'Metrics, as Prometheus reads them.',
      handle: async (_request: IncomingMessage) => {
        await deps.refresh?.();
        return metricsReply(metrics);
      },
    }),
    route({
      ...NOTES,
      methods: ['POST'],
      pattern: '/purge',
      summary: 'Drops copies by ids, by prefix, or all.',
      handle: (request: IncomingMessage) => handlePurge(request, deps),
    }),
    route({
      ...NOTES,
      methods: ['POST'],
      pattern: '/reload',
      summary: 'Reads the configuration again.',
      handle: async (request: IncomingMessage) => {
        log.info({ audit: true, by: request.socket.remoteAddress }, 'an operator asked for a reload');
        return reloadReply(await deps.reload());
      },
    }),
  ];
}

async function handlePurge(request: IncomingMessage, { config, purge, log }: OpsDeps): Promise<Reply> {
  const read = readPurge(await readJson(request, config.orderMaxBytes));
  if (read.kind === 'refused') throw new Fault('malformed', `The purge order is malformed: ${read.detail}.`);
  const dropped = await purge(read.order);
  log.info({ audit: true, by: request.socket.remoteAddress, kind: read.order.kind, dropped }, 'an operator purged');
  return jsonReply(200, { dropped });
}
