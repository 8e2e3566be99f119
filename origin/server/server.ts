/**
 * Between node:http and the stories: finds the row of a request, turns whatever
 * is thrown into the one answer that may be told, and knows what is in hand.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { sharedController } from '../../src/abort.js';
import { duration, section, size } from '../../src/config/field.js';
import { Fault, faultOf } from '../../src/errors.js';
import { preflightReply } from '../../src/http/browser.js';
import { problemReply } from '../../src/http/problem.js';
import type { Reply } from '../../src/http/reply.js';
import { errorFields } from '../../src/log.js';
import type { CounterOf, HistogramOf, Metrics } from '../../src/metrics.js';
import { createMatcher, type Route, type RouteMatch } from '../../src/server/routes.js';
import { type ExchangeDeps, openExchange } from './exchange.js';
import type { OriginRequest } from './request.js';

export const drainSection = section(
  'What becomes of a body that is refused: it is read on, so that the answer arrives.',
  {
    sizeMaxBytes: size({
      default: '64MB',
      min: 0,
      help: 'Bytes that are read and dropped before the connection is cut.',
    }),
    withinMs: duration({ default: '10s', min: 0, help: 'Time for that.' }),
  },
);

export interface ServerDeps extends ExchangeDeps {
  readonly routes: readonly Route<OriginRequest>[];
  /** What edges ask for: undefined where the request is none of that, a promise of nothing where it writes its answer itself. */
  edgeRoutes(
    raw: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<Reply | undefined> | undefined;
  readonly counts: RequestCounts;
}

export interface RequestCounts {
  readonly requests: CounterOf<'route' | 'method' | 'status'>;
  readonly seconds: HistogramOf<'route'>;
}

export function requestCounts(metrics: Metrics): RequestCounts {
  return {
    requests: metrics.counter('requests_total', 'Requests by route and status.', ['route', 'method', 'status']),
    seconds: metrics.histogram(
      'request_seconds',
      'Time from the head of a request to the end of its answer.',
      [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30],
      ['route'],
    ),
  };
}

export interface OriginServer {
  /** `waits`: the client sends its body once it is told to (RFC 9110 10.1.1). */
  handle(raw: IncomingMessage, response: ServerResponse, body: 'sends' | 'waits'): void;
  /** Breaks off what is in hand, and resolves when the last of it has ended. */
  close(): Promise<void>;
}

export function createServer(deps: ServerDeps): OriginServer {
  const match = createMatcher(deps.routes);
  const closing = sharedController();
  const { counts } = deps;
  const inHand = new Set<Promise<void>>();

  async function handle(raw: IncomingMessage, response: ServerResponse, expects: boolean): Promise<void> {
    const exchange = openExchange(deps, raw, response, expects, closing.signal);
    const { request, signal } = exchange;
    let pattern = 'none';
    let status = 0;
    let fault: Fault | undefined;
    try {
      const found = match(request.method, request.path);
      const run = async (): Promise<Reply | undefined> => {
        const edgeRoutes = deps.edgeRoutes(raw, response, signal);
        if (edgeRoutes !== undefined) pattern = 'internal';
        else if (found.kind === 'found') pattern = found.route.pattern;
        return await (edgeRoutes ?? runRoute(found, request));
      };
      const reply = await run().catch((thrown: unknown) => {
        if (response.headersSent) throw thrown;
        fault = faultOf(thrown);
        return problemReply(fault);
      });
      if (reply === undefined) {
        status = response.statusCode;
        return;
      }
      status = reply.status;
      await exchange.answer(reply);
    } catch (thrown) {
      // Before the head went out there still is somebody to tell; after it the connection has been broken off.
      if (response.headersSent || response.destroyed) {
        request.note({ broken: true, ...(!signal.aborted && { why: errorFields(thrown)['error'] }) });
        response.destroy();
      } else {
        fault = faultOf(thrown);
        status = fault.status;
        await exchange.answer(problemReply(fault)).catch(() => response.destroy());
      }
    } finally {
      const seconds = exchange.elapsedMs() / 1_000;
      counts.requests.add(1, { route: pattern, method: countedMethod(request.method), status: String(status) });
      counts.seconds.observe(seconds, { route: pattern });
      exchange.log(status, fault);
      exchange.close();
    }
  }

  return {
    handle(raw, response, body) {
      const handling = handle(raw, response, body === 'waits').finally(() => inHand.delete(handling));
      inHand.add(handling);
    },
    async close() {
      closing.abort(new Fault('overloaded', 'The service is stopping.'));
      await Promise.allSettled(inHand);
    },
  };
}

async function runRoute(found: RouteMatch<OriginRequest>, request: OriginRequest): Promise<Reply> {
  switch (found.kind) {
    case 'found':
      if (found.route.audience !== 'anyone') request.meter.address();
      return await found.route.run(request, found.segments, request.query);
    case 'method': {
      const allowed = [...found.allowed, 'OPTIONS'];
      if (request.method === 'OPTIONS') return preflightReply(allowed);
      throw new Fault('method_not_allowed', `The path knows ${allowed.join(', ')}.`, {
        headers: { allow: allowed.join(', ') },
      });
    }
    case 'none':
      throw new Fault('not_found', 'There is nothing at this path.');
  }
}

const COUNTED = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** Labels are a closed list. */
function countedMethod(method: string): string {
  return COUNTED.has(method) ? method : 'other';
}
