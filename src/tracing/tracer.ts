/**
 * Spans of the work on a request, for OpenTelemetry. There is a tracer only if a collector is configured (otlp.ts);
 * without one, nothing here costs more than a comparison.
 */
import type { Clock, EpochMs } from '../clock.js';
import type { LoggedEnding, LoggedRequest, RequestLog } from '../logs/request-line.js';
import { routeOf } from '../logs/route.js';
import { newSpanId, type Trace } from './context.js';

export type Attributes = Readonly<Record<string, string | number | boolean>>;

/** A span that has ended. */
export interface Span {
  readonly trace: Omit<Trace, 'sampled'>;
  readonly name: string;
  readonly kind: 'internal' | 'server' | 'client';
  readonly startedAt: EpochMs;
  readonly tookMs: number;
  readonly attributes: Attributes;
  readonly failed: boolean;
}

export interface Tracer {
  /** A new trace; chance decides whether it is sampled. */
  readonly begin: () => Trace;
  /** Only spans of traces that are sampled are given. Never throws, and never waits. */
  record(span: Span): void;
  /** The trace of the work in which this is called. */
  current(): Trace | undefined;
  /** What `run` does, also later, is work of this trace. */
  readonly within: <T>(trace: Trace | undefined, run: () => T) => T;
  /** Sends what waits, within a limited time. */
  close(): Promise<void>;
}

/** What is measured, and by which clock. */
export interface SpanDeps {
  /** Absent: nothing is recorded. */
  readonly tracer?: Tracer | undefined;
  readonly clock: Pick<Clock, 'now' | 'monotonicMs'>;
}

/** A span below the one of the work in which this is called, if that is sampled. */
export async function childSpan<T>(
  { tracer, clock }: SpanDeps,
  name: string,
  attributes: Attributes,
  run: () => Promise<T>,
): Promise<T> {
  const parent = tracer?.current();
  if (tracer === undefined || parent?.sampled !== true) return await run();
  const trace = childOf(parent);
  return await recorded(tracer, clock, { trace, name, kind: 'internal', attributes }, () => tracer.within(trace, run));
}

/** A trace of its own, for work that no request waits for. */
export async function rootSpan<T>(
  { tracer, clock }: SpanDeps,
  name: string,
  attributes: Attributes,
  run: () => Promise<T>,
): Promise<T> {
  if (tracer === undefined) return await run();
  const trace = tracer.begin();
  const work = (): Promise<T> => tracer.within(trace, run);
  return trace.sampled
    ? await recorded(tracer, clock, { trace, name, kind: 'internal', attributes }, work)
    : await work();
}

export function childOf(parent: Trace): Trace {
  return { ...parent, spanId: newSpanId(), parentId: parent.spanId };
}

async function recorded<T>(
  tracer: Tracer,
  clock: SpanDeps['clock'],
  span: Pick<Span, 'trace' | 'name' | 'kind' | 'attributes'>,
  run: () => Promise<T>,
): Promise<T> {
  const startedAt = clock.now();
  const startedMs = clock.monotonicMs();
  let failed = true;
  try {
    const value = await run();
    failed = false;
    return value;
  } finally {
    tracer.record({ ...span, startedAt, tookMs: clock.monotonicMs() - startedMs, failed });
  }
}

/** A log of requests that records each of them as the span of its process too. */
export function withSpans(log: RequestLog, { tracer, clock }: SpanDeps): RequestLog {
  if (tracer === undefined) return log;
  return {
    write(request, ended) {
      log.write(request, ended);
      if (request.trace?.sampled === true) tracer.record(requestSpan(request, request.trace, ended, clock.now()));
    },
  };
}

/** Attributes are named as the semantic conventions for HTTP name them, and those of ours as in the log. */
function requestSpan(request: LoggedRequest, trace: Trace, ended: LoggedEnding, now: EpochMs): Span {
  const { status, sentBytes, totalMs, firstByteMs, outcome, tier, reason } = ended;
  const route = routeOf(request.path);
  return {
    trace,
    name: `${request.method} ${route}`,
    kind: 'server',
    startedAt: now - totalMs,
    tookMs: totalMs,
    attributes: {
      'http.request.method': request.method,
      'http.route': route,
      'http.response.status_code': status,
      'http.response.size': sentBytes,
      'media.request_id': request.requestId,
      'media.outcome': outcome,
      'media.first_byte_ms': firstByteMs,
      ...(tier !== undefined && { 'media.tier': tier }),
      ...(reason !== undefined && { 'media.reason': reason }),
    },
    failed: status >= 500,
  };
}
