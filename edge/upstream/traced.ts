/** Records each request to the origin as a span below that of the request that caused it, and names it to the origin. */
import type { Clock } from '../../src/clock.js';
import { readTraceparent, TRACEPARENT, type Trace, traceFields } from '../../src/tracing/context.js';
import { childOf, type Tracer } from '../../src/tracing/tracer.js';
import type { UpstreamOutcome, UpstreamRequest } from './request.js';
import type { Upstream } from './upstream.js';

export function traceUpstream(upstream: Upstream, tracer: Tracer, clock: Pick<Clock, 'now' | 'monotonicMs'>): Upstream {
  return {
    ...upstream,
    async fetch(request, signal) {
      const trace = spanOf(request);
      if (trace?.sampled !== true) return await upstream.fetch(request, signal);
      const startedAt = clock.now();
      const startedMs = clock.monotonicMs();
      const headers = request.headers.flatMap((field) => (field[0] === TRACEPARENT ? traceFields(trace) : [field]));
      const outcome = await upstream.fetch({ ...request, headers }, signal);
      tracer.record({
        trace,
        name: `fetch ${request.method}`,
        kind: 'client',
        startedAt,
        tookMs: clock.monotonicMs() - startedMs,
        attributes: { 'http.request.method': request.method, ...attributesOf(outcome) },
        failed: outcome.kind === 'failed' || outcome.status >= 500,
      });
      return outcome;
    },
    get tlsTrouble() {
      return upstream.tlsTrouble;
    },
  };
}

/** A new span below the one that the request names. Its `tracestate` is a field of its own, and stays. */
function spanOf({ headers }: UpstreamRequest): Trace | undefined {
  const parent = headers.find(([name]) => name === TRACEPARENT);
  const read = parent === undefined ? undefined : readTraceparent(parent[1]);
  if (read?.parentId === undefined) return undefined;
  return childOf({ ...read, spanId: read.parentId, parentId: undefined, state: undefined });
}

function attributesOf(outcome: UpstreamOutcome): Readonly<Record<string, string | number>> {
  return outcome.kind === 'answered'
    ? { 'http.response.status_code': outcome.status }
    : { 'error.type': outcome.failure };
}
