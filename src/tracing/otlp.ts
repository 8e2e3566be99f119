/**
 * Sends spans to an OpenTelemetry collector, as OTLP over HTTP in JSON. Loaded only
 * if a collector is configured.
 *
 * Promises: memory is limited, and nothing waits for the collector. Spans that it
 * does not take, or that are too many while it is away, are dropped and counted;
 * none is sent twice.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { sharedController } from '../abort.js';
import { type Clock, type EpochMs, type Timer, withDeadline } from '../clock.js';
import { errorFields, type Log } from '../log.js';
import type { Metrics } from '../metrics.js';
import type { OtlpConfig } from './config.js';
import { newTrace, type Trace } from './context.js';
import type { Attributes, Span, Tracer } from './tracer.js';

export interface TracerDeps {
  readonly config: OtlpConfig & { readonly endpoint: string };
  /** Of the service, in every span. */
  readonly resource: Attributes;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** From 0 up to 1. */
  readonly random?: () => number;
}

const BATCH_MAX = 512;
const CLOSE_WITHIN_MS = 2_000;

export function openTracer({ config, resource, clock, log, metrics, random = Math.random }: TracerDeps): Tracer {
  const store = new AsyncLocalStorage<Trace | undefined>();
  const counts = { sent: 0, dropped: 0 };
  const closing = sharedController();
  const waiting: Span[] = [];
  let timer: Timer | undefined;
  let sending: Promise<void> | undefined;
  let away = false;
  for (const [name, help, key] of [
    ['trace_spans_sent_total', 'Spans that the collector has taken.', 'sent'],
    [
      'trace_spans_dropped_total',
      'Spans that were dropped: the collector was away, refused them or was too slow.',
      'dropped',
    ],
  ] as const) {
    metrics.totals(name, help, () => [{ labels: {}, value: counts[key] }]);
  }

  function schedule(): void {
    if (sending !== undefined) return;
    if (waiting.length >= BATCH_MAX) sending = sendAll();
    else timer ??= clock.after(config.everyMs, () => void flush());
  }

  function flush(): Promise<void> {
    sending ??= sendAll();
    return sending;
  }

  /** Until nothing waits, or the collector takes nothing. */
  async function sendAll(): Promise<void> {
    timer?.cancel();
    timer = undefined;
    for (let taken = true; taken && waiting.length > 0 && !closing.signal.aborted; ) {
      taken = await sendBatch(waiting.splice(0, BATCH_MAX));
    }
    sending = undefined;
    if (waiting.length > 0 && !closing.signal.aborted) timer = clock.after(config.everyMs, () => void flush());
  }

  async function sendBatch(batch: readonly Span[]): Promise<boolean> {
    try {
      const late = (): Error => new Error('the collector did not answer in time');
      const deadline = { clock, ms: config.timeoutMs, late, signal: closing.signal };
      const refused = await withDeadline(deadline, (signal) =>
        post(config.endpoint, otlpDocument(resource, batch), signal),
      );
      counts.dropped += refused;
      counts.sent += batch.length - refused;
      if (away) log.info({}, 'the collector takes spans again');
      away = false;
      return true;
    } catch (thrown) {
      counts.dropped += batch.length;
      if (!away) log.warn(errorFields(thrown), 'the collector takes no spans; they are dropped');
      away = true;
      return false;
    }
  }

  return {
    begin: () => newTrace(random() < config.sampleRatio),
    record(span) {
      if (closing.signal.aborted || waiting.length >= config.waitingMax) {
        counts.dropped += 1;
        return;
      }
      waiting.push(span);
      schedule();
    },
    current: () => store.getStore(),
    within: (trace, run) => store.run(trace, run),
    async close() {
      const late = clock.after(CLOSE_WITHIN_MS, () => closing.abort(new Error('the process ends')));
      try {
        while (waiting.length > 0 && !closing.signal.aborted) {
          const before = waiting.length;
          await flush();
          if (away || waiting.length === before) break;
        }
        await sending;
      } finally {
        late.cancel();
        timer?.cancel();
        closing.abort(new Error('the process ends'));
        counts.dropped += waiting.length;
        waiting.length = 0;
      }
    },
  };
}

/** How many of the spans the collector has refused (OTLP: partial success). Rejects if it has not taken the others. */
async function post(endpoint: string, document: object, signal: AbortSignal): Promise<number> {
  const answer = await fetch(endpoint, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(document),
    redirect: 'error',
    signal,
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`the collector answered ${answer.status}`);
  return refusedIn(text);
}

function refusedIn(text: string): number {
  try {
    const { partialSuccess } = JSON.parse(text) as { partialSuccess?: { rejectedSpans?: unknown } };
    const refused = Number(partialSuccess?.rejectedSpans ?? 0);
    return Number.isSafeInteger(refused) && refused > 0 ? refused : 0;
  } catch {
    return 0;
  }
}

/** The numbers of `Span.SpanKind`. */
const KINDS = { internal: 1, server: 2, client: 3 } as const;
/** `Status.StatusCode`. */
const ERROR = 2;

/** `ExportTraceServiceRequest` in the JSON form of OTLP: names in camelCase, ids in hexadecimal, 64-bit numbers as text. */
export function otlpDocument(resource: Attributes, spans: readonly Span[]): object {
  return {
    resourceSpans: [
      {
        resource: { attributes: attributesOf(resource) },
        scopeSpans: [{ scope: { name: 'media-service' }, spans: spans.map(spanOf) }],
      },
    ],
  };
}

function spanOf({ trace, name, kind, startedAt, tookMs, attributes, failed }: Span): object {
  const { traceId, spanId, parentId, state } = trace;
  return {
    traceId,
    spanId,
    ...(parentId !== undefined && { parentSpanId: parentId }),
    ...(state !== undefined && { traceState: state }),
    name,
    kind: KINDS[kind],
    startTimeUnixNano: nanos(startedAt),
    endTimeUnixNano: nanos(startedAt + tookMs),
    attributes: attributesOf(attributes),
    ...(failed && { status: { code: ERROR } }),
  };
}

const NANOS_DIGITS = 6;

/** A number of JavaScript is not exact enough for nanoseconds of today. */
function nanos(at: EpochMs): string {
  const whole = Math.floor(at);
  return `${whole}${String(Math.floor((at - whole) * 10 ** NANOS_DIGITS)).padStart(NANOS_DIGITS, '0')}`;
}

function attributesOf(attributes: Attributes): readonly object[] {
  return Object.entries(attributes).map(([key, value]) => ({ key, value: anyValueOf(value) }));
}

function anyValueOf(value: string | number | boolean): object {
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'string') return { stringValue: value };
  return Number.isSafeInteger(value) ? { intValue: String(value) } : { doubleValue: value };
}
