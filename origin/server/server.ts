/**
 * Connects node:http with the handlers: finds the route of a request, turns what
 * a handler throws into a problem response, counts and logs the request, and
 * keeps the set of requests that are not finished.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { sharedController } from '../../src/abort.js';
import { errorCode, Fault, faultOf } from '../../src/errors.js';
import { preflightReply } from '../../src/http/browser.js';
import { problemReply } from '../../src/http/problem.js';
import type { Reply } from '../../src/http/reply.js';
import type { CounterOf, HistogramOf, Metrics } from '../../src/metrics.js';
import { createMatcher, type Route, type RouteMatch } from '../../src/server/routes.js';
import type { Tracer } from '../../src/tracing/tracer.js';
import { type Broken, type ExchangeDeps, openExchange } from './exchange.js';
import type { OriginRequest } from './request.js';

export interface ServerDeps extends ExchangeDeps {
  readonly routes: readonly Route<OriginRequest>[];
  /** Tried first. Undefined: not a route for edges. A promise of undefined: the response has been written. */
  edgeRoutes(
    raw: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<Reply | undefined> | undefined;
  /** Makes what a request causes work of its trace. Absent: nobody records spans. */
  readonly within?: Tracer['within'];
  /** Throws the refusal of a request, before anything else is decided. */
  admit?(request: OriginRequest): Promise<void> | undefined | void;
  readonly counts: RequestCounts;
}

export interface RequestCounts {
  readonly requests: CounterOf<'route' | 'method' | 'status'>;
  readonly seconds: HistogramOf<'route'>;
  readonly firstByte: HistogramOf<'route'>;
  readonly refusals: CounterOf<'route' | 'code'>;
}

export function requestCounts(metrics: Metrics): RequestCounts {
  return {
    requests: metrics.counter('requests_total', 'Requests by route and status.', ['route', 'method', 'status']),
    refusals: metrics.counter('refusals_total', 'Requests that were refused or failed, by route and code.', [
      'route',
      'code',
    ]),
    firstByte: metrics.histogram(
      'first_byte_seconds',
      'Time from the head of a request until there was a response to send.',
      [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30],
      ['route'],
    ),
    seconds: metrics.histogram(
      'request_seconds',
      'Time from the head of a request to the end of its response.',
      [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30],
      ['route'],
    ),
  };
}

export interface OriginServer {
  /** `waits`: the client waits for 100 Continue before it sends its body (RFC 9110 10.1.1). */
  handle(raw: IncomingMessage, response: ServerResponse, body: 'sends' | 'waits'): void;
  /** Aborts the unfinished requests, and resolves when the last of them has ended. */
  close(): Promise<void>;
}

export function createServer(deps: ServerDeps): OriginServer {
  const match = createMatcher(deps.routes);
  const closing = sharedController();
  const { counts } = deps;
  const unfinished = new Set<Promise<void>>();

  async function handle(raw: IncomingMessage, response: ServerResponse, expectsContinue: boolean): Promise<void> {
    const exchange = openExchange(deps, raw, response, expectsContinue, closing.signal);
    const { request, signal } = exchange;
    const inTrace = <T>(work: () => T): T => (deps.within === undefined ? work() : deps.within(request.trace, work));
    let pattern = 'none';
    let status = 0;
    let fault: Fault | undefined;
    let broken: Broken | undefined;
    try {
      const found = match(request.method, request.path);
      const run = async (): Promise<Reply | undefined> => {
        await deps.admit?.(request);
        const forEdge = deps.edgeRoutes(raw, response, signal);
        if (forEdge !== undefined) pattern = 'internal';
        else if (found.kind === 'found') pattern = found.route.pattern;
        return await (forEdge ?? runRoute(found, request, deps.cors));
      };
      const reply = await inTrace(run).catch((thrown: unknown) => {
        if (response.headersSent) throw thrown;
        fault = faultOf(thrown);
        return problemReply(fault);
      });
      if (reply === undefined) {
        status = response.statusCode;
        return;
      }
      status = reply.status;
      counts.firstByte.observe(exchange.elapsedMs() / 1_000, { route: pattern });
      await inTrace(() => exchange.send(reply));
    } catch (thrown) {
      // After the head was sent, the only way to report a failure is to break the connection.
      if (response.headersSent || response.destroyed) {
        broken = hasLeft(thrown, signal) ? {} : { why: thrown instanceof Error ? thrown.message : String(thrown) };
        response.destroy();
      } else {
        fault = faultOf(thrown);
        status = fault.status;
        await exchange.send(problemReply(fault)).catch(() => response.destroy());
      }
    } finally {
      const seconds = exchange.elapsedMs() / 1_000;
      counts.requests.add(1, { route: pattern, method: countedMethod(request.method), status: String(status) });
      counts.seconds.observe(seconds, { route: pattern });
      if (fault !== undefined) counts.refusals.add(1, { route: pattern, code: fault.code });
      exchange.log(status, fault, broken);
      exchange.close();
    }
  }

  return {
    handle(raw, response, body) {
      const handling = handle(raw, response, body === 'waits').finally(() => unfinished.delete(handling));
      unfinished.add(handling);
    },
    async close() {
      closing.abort(new Fault('overloaded', 'The service is stopping.'));
      await Promise.allSettled(unfinished);
    },
  };
}

async function runRoute(
  found: RouteMatch<OriginRequest>,
  request: OriginRequest,
  cors: ServerDeps['cors'],
): Promise<Reply> {
  switch (found.kind) {
    case 'found':
      if (found.route.audience !== 'anyone') request.meter.address();
      return await found.route.run(request, found.segments, request.query);
    case 'method': {
      const allowed = [...found.allowed, 'OPTIONS'];
      if (request.method === 'OPTIONS' && cors === 'any') return preflightReply(allowed);
      throw new Fault('method_not_allowed', `The path knows ${allowed.join(', ')}.`, {
        headers: { allow: allowed.join(', ') },
      });
    }
    case 'none':
      throw new Fault('not_found', 'There is nothing at this path.');
  }
}

const COUNTED = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** Labels of a metric are a closed list. */
function countedMethod(method: string): string {
  return COUNTED.has(method) ? method : 'other';
}

/**
 * Whether an answer was broken off because its client left. A body that fails makes the signal abort as well, for the
 * connection is broken by it, and before or after its own failure is known: that depends on the version of node.
 */
function hasLeft(thrown: unknown, signal: AbortSignal): boolean {
  if (!signal.aborted) return false;
  if (thrown === signal.reason) return true;
  return (
    thrown instanceof Error && (thrown.name === 'AbortError' || errorCode(thrown) === 'ERR_STREAM_PREMATURE_CLOSE')
  );
}
