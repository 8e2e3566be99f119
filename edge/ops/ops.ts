/**
 * The operators' listener of the edge, on an address of its own: metrics,
 * figures, a live page, purging and reloading. Whoever reaches it may purge, so
 * it listens on loopback unless told otherwise, and a web page that somebody
 * opens in a browser near it can make it do nothing.
 */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import type { Clock } from '../../src/clock.js';
import { flag, integer, section, size, text, type ValueOf } from '../../src/config/field.js';
import { Fault, faultOf } from '../../src/errors.js';
import { problemReply } from '../../src/http/problem.js';
import { jsonReply, type Reply } from '../../src/http/reply.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import type { ReloadOutcome } from '../../src/reload.js';
import type { ListenLimits } from '../../src/server/limits.js';
import { listen } from '../../src/server/listen.js';
import { metricsReply } from '../../src/server/metrics-reply.js';
import { createMatcher, type Method, route } from '../../src/server/routes.js';
import { send } from '../../src/server/send.js';
import { type History, openHistory } from './history.js';
import { registerFigures } from './metrics.js';
import { pageReply } from './page.js';
import { type PurgeDeps, purge, readPurge } from './purge.js';
import { readStats, type StatsSources } from './stats.js';

export const operatorsSection = section('The listener for operators: metrics, figures, purging.', {
  enabled: flag({ default: true, help: 'Whether there is one.' }),
  host: text({ default: '127.0.0.1', help: 'The address. Whoever reaches it may purge: keep it inside.' }),
  port: integer({ default: 8081, min: 0, max: 65_535, help: 'The port; 0 takes any free one.' }),
  orderMaxBytes: size({ default: '1MiB', min: 1_024, max: 67_108_864, help: 'The longest purge order that is read.' }),
});

export type OperatorsConfig = ValueOf<typeof operatorsSection>;

export interface OpsOptions {
  readonly config: OperatorsConfig;
  readonly limits: ListenLimits;
  readonly sources: StatsSources;
  readonly purge: PurgeDeps;
  reload(): ReloadOutcome;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface Ops {
  readonly url: string;
  close(): Promise<void>;
}

export async function openOps(options: OpsOptions): Promise<Ops> {
  const { config, limits, clock, log } = options;
  registerFigures(options.metrics, options.sources);
  const history = openHistory(options.sources.tally, clock);
  const find = createMatcher(routesOf(options, history));
  const closing = new AbortController();

  async function answer(request: IncomingMessage): Promise<Reply> {
    try {
      const [path = '', query = ''] = (request.url ?? '').split(/\?(.*)/s);
      const found = find(request.method ?? '', path);
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

function routesOf(options: OpsOptions, history: History) {
  const { sources, metrics, log } = options;
  return [
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
      handle: async (_request: IncomingMessage) => jsonReply(200, readStats(sources, history)),
    }),
    route({
      ...NOTES,
      methods: ['GET', 'HEAD'],
      pattern: '/metrics',
      summary: 'Metrics, as Prometheus reads them.',
      handle: async (_request: IncomingMessage) => metricsReply(metrics),
    }),
    route({
      ...NOTES,
      methods: ['POST'],
      pattern: '/purge',
      summary: 'Drops copies by ids, by prefix, or all.',
      handle: (request: IncomingMessage) => takePurge(request, options),
    }),
    route({
      ...NOTES,
      methods: ['POST'],
      pattern: '/reload',
      summary: 'Reads the configuration again.',
      handle: async (request: IncomingMessage) => {
        requireNoForeignPage(request, options.config.host);
        log.info({ by: request.socket.remoteAddress }, 'an operator asked for a reload');
        return reloadReply(options.reload());
      },
    }),
  ];
}

async function takePurge(request: IncomingMessage, { config, purge: hooks, log }: OpsOptions): Promise<Reply> {
  requireNoForeignPage(request, config.host);
  const read = readPurge(await readJson(request, config.orderMaxBytes));
  if (read.kind === 'refused') throw new Fault('malformed', `A purge order is JSON: ${read.detail}.`);
  const dropped = await purge(read.order, hooks);
  log.info({ by: request.socket.remoteAddress, kind: read.order.kind, dropped }, 'an operator purged');
  return jsonReply(200, { dropped });
}

function reloadReply(outcome: ReloadOutcome): Reply {
  if (outcome.kind === 'refused') {
    throw new Fault('conflict', 'The configuration has faults; the one in force stays.', {
      members: { faults: outcome.faults },
    });
  }
  return jsonReply(200, { changed: outcome.changed, need_restart: outcome.needRestart });
}

/**
 * A browser says where a request comes from, and a page from elsewhere has no
 * business here: neither from another site, nor under a name that somebody else
 * made point at this address (DNS rebinding).
 */
function requireNoForeignPage({ headers }: IncomingMessage, ownHost: string): void {
  const site = headers['sec-fetch-site'];
  const { origin, host = '' } = headers;
  if (origin === undefined && site === undefined) return;
  const name = host.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  const known = isIP(name) !== 0 || name === 'localhost' || name === ownHost;
  const own = origin === undefined || origin === `http://${host}`;
  if (!known || !own || (site !== undefined && site !== 'same-origin')) {
    throw new Fault('forbidden', 'A page from elsewhere may not do this.');
  }
}

async function readJson(request: IncomingMessage, maxBytes: number): Promise<unknown> {
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
    throw new Fault('type_refused', 'The order is to be application/json.');
  }
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  request.on('data', (chunk: Buffer) => {
    sizeBytes += chunk.length;
    if (sizeBytes <= maxBytes) chunks.push(chunk);
  });
  await once(request, 'end');
  if (sizeBytes > maxBytes) throw new Fault('too_large', 'The order is too long; give it in parts.');
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new Fault('malformed', 'The order is not JSON.');
  }
}
