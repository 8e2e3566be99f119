/**
 * The edge's listener for operators, on a separate address: metrics, figures, a
 * live page, purging and reloading. Who may use it is decided in
 * src/server/operators.ts, before anything else.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../src/clock.js';
import { Fault, faultOf } from '../../src/errors.js';
import { header } from '../../src/http/head.js';
import { problemReply } from '../../src/http/problem.js';
import { jsonReply, type Reply } from '../../src/http/reply.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import { type ReloadOutcome, reloadReply } from '../../src/reload.js';
import type { ListenLimits } from '../../src/server/limits.js';
import { listen } from '../../src/server/listen.js';
import { metricsReply } from '../../src/server/metrics-reply.js';
import { admitOperator } from '../../src/server/operators.js';
import { createMatcher, type Method, route } from '../../src/server/routes.js';
import { send } from '../../src/server/send.js';
import type { OperatorsConfig } from './config.js';
import { type History, openHistory } from './history.js';
import { registerFigures } from './metrics.js';
import { pageReply } from './page.js';
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
  const history = openHistory(deps.sources.tally, clock);
  const find = createMatcher(routesOf(deps, history));
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

function routesOf(deps: OpsDeps, history: History) {
  const { sources, metrics, log } = deps;
  const fresh = async (): Promise<void> => await deps.refresh?.();
  return [
    ...watchingRoutes(deps.watching, deps.config.orderMaxBytes),
    route({
      ...NOTES,
      methods: ['GET', 'HEAD'],
      pattern: '/',
      summary: 'A live page.',
      handle: async (_request: IncomingMessage) => pageReply(),
    }),
    route({
      ...NOTES,
      methods: ['GET', 'HEAD'],
      pattern: '/stats',
      summary: 'Figures as JSON.',
      handle: async (_request: IncomingMessage) => {
        await fresh();
        return jsonReply(200, readStats(sources, history));
      },
    }),
    route({
      ...NOTES,
      methods: ['GET', 'HEAD'],
      pattern: '/metrics',
      summary: 'Metrics, as Prometheus reads them.',
      handle: async (_request: IncomingMessage) => {
        await fresh();
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
