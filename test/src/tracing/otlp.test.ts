/** Spans on their way to a collector: their form, their limits, and which of them edge and origin make. */
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import t, { type Test } from 'tap';
import { systemClock } from '../../../src/clock.js';
import { otlpSection } from '../../../src/tracing/config.js';
import { newTrace } from '../../../src/tracing/context.js';
import { openTracer, type TracerDeps } from '../../../src/tracing/otlp.js';
import { childSpan, rootSpan, type Span } from '../../../src/tracing/tracer.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { openTestEdge } from '../../kit/edge/edge.js';
import { sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { startOrigin } from '../../kit/origin/origin.js';
import { until } from '../../kit/until.js';

/** The fields of each message in opentelemetry/proto/trace/v1/trace.proto and those that it uses, with their types in JSON. */
const MESSAGES: Readonly<Record<string, Readonly<Record<string, string | RegExp>>>> = {
  ExportTraceServiceRequest: { resourceSpans: '[ResourceSpans' },
  ResourceSpans: { resource: 'Resource', scopeSpans: '[ScopeSpans' },
  Resource: { attributes: '[KeyValue' },
  ScopeSpans: { scope: 'InstrumentationScope', spans: '[Span' },
  InstrumentationScope: { name: /^.+$/, version: /^.+$/ },
  Span: {
    traceId: /^[0-9a-f]{32}$/,
    spanId: /^[0-9a-f]{16}$/,
    traceState: /^.+$/,
    parentSpanId: /^[0-9a-f]{16}$/,
    name: /^.+$/,
    kind: /^[123]$/,
    startTimeUnixNano: /^\d{18,19}$/,
    endTimeUnixNano: /^\d{18,19}$/,
    attributes: '[KeyValue',
    status: 'Status',
  },
  Status: { code: /^[12]$/, message: /^.+$/ },
  KeyValue: { key: /^.+$/, value: 'AnyValue' },
  AnyValue: { stringValue: /^/, boolValue: /^(?:true|false)$/, intValue: /^-?\d+$/, doubleValue: /^-?[\d.e+-]+$/ },
};
const REQUIRED: readonly string[] = ['traceId', 'spanId', 'name', 'kind', 'startTimeUnixNano', 'endTimeUnixNano'];

function faultsIn(value: unknown, message: string, path = message): readonly string[] {
  const fields = Object.entries(value as Readonly<Record<string, unknown>>);
  const missing = message === 'Span' ? REQUIRED.filter((name) => !fields.some(([each]) => each === name)) : [];
  const wrong = fields.flatMap(([name, held]) => {
    const type = MESSAGES[message]?.[name];
    const at = `${path}.${name}`;
    if (type === undefined) return [`${at} is not known`];
    if (type instanceof RegExp)
      return typeof held === 'object' || !type.test(textOf(held)) ? [`${at}: ${JSON.stringify(held)}`] : [];
    if (!type.startsWith('[')) return faultsIn(held, type, at);
    return Array.isArray(held) ? held.flatMap((each) => faultsIn(each, type.slice(1), at)) : [`${at} is no list`];
  });
  return [...missing.map((name) => `${path}.${name} is missing`), ...wrong];
}

function textOf(held: unknown): string {
  return typeof held === 'string' ? held : JSON.stringify(held);
}

interface SentSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly attributes: readonly { readonly key: string; readonly value: Readonly<Record<string, unknown>> }[];
}

/** A collector that keeps what it is sent. */
async function openCollector(t: Test) {
  const spans: SentSpan[] = [];
  const faults: string[] = [];
  const state = { status: 200, answer: '{}', silent: false, posts: 0 };
  const take = async (request: IncomingMessage): Promise<void> => {
    const document = JSON.parse(await text(request)) as {
      resourceSpans: readonly { scopeSpans: readonly { spans: readonly SentSpan[] }[] }[];
    };
    if (request.method !== 'POST' || request.headers['content-type'] !== 'application/json') faults.push('the request');
    faults.push(...faultsIn(document, 'ExportTraceServiceRequest'));
    if (state.status === 200)
      spans.push(...document.resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((each) => each.spans)));
  };
  const server = createServer((request, response) => {
    state.posts += 1;
    if (state.silent) return;
    void take(request).then(() => response.writeHead(state.status).end(state.answer));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`;
  return { endpoint, spans, faults, state };
}

function tracerTo(
  endpoint: string,
  config: Partial<TracerDeps['config']> = {},
  clock: TracerDeps['clock'] = systemClock,
) {
  const { log, lines, metrics, sample } = testDeps();
  const whole = { ...configured(otlpSection, { sampleRatio: 1, ...config }), endpoint };
  const resource = { 'service.name': 'media-test', 'process.pid': 7 };
  return { tracer: openTracer({ config: whole, resource, clock, log, metrics }), lines, sample };
}

const span = (over: Partial<Span> = {}): Span => ({
  trace: newTrace(true),
  name: 'a span',
  kind: 'server',
  startedAt: 1_795_867_200_000.25,
  tookMs: 1.5,
  attributes: { text: 'a', whole: 1, part: 0.5, yes: true },
  failed: false,
  ...over,
});

void t.test('spans are sent together, in the form of OTLP', async (t) => {
  const { endpoint, spans, faults, state } = await openCollector(t);
  const clock = new ManualClock();
  const { tracer, sample } = tracerTo(endpoint, { everyMs: 5_000 }, clock);
  const trace = { ...newTrace(true), parentId: 'a'.repeat(16), state: 'a=1' };
  tracer.record(span({ trace, kind: 'client', failed: true }));
  tracer.record(span());
  clock.advance(4_999);
  t.equal(state.posts, 0);
  clock.advance(1);
  await until('the spans', () => spans.length === 2);
  t.same(faults, []);
  t.match(spans[0], {
    traceId: trace.traceId,
    spanId: trace.spanId,
    parentSpanId: 'a'.repeat(16),
    traceState: 'a=1',
    kind: 3,
    startTimeUnixNano: '1795867200000250000',
    endTimeUnixNano: '1795867200001750000',
    status: { code: 2 },
    attributes: [
      { key: 'text', value: { stringValue: 'a' } },
      { key: 'whole', value: { intValue: '1' } },
      { key: 'part', value: { doubleValue: 0.5 } },
      { key: 'yes', value: { boolValue: true } },
    ],
  });
  for (let n = 0; n < 512; n += 1) tracer.record(span());
  await until('a whole batch, without waiting', () => spans.length === 514);
  state.answer = '{"partialSuccess":{"rejectedSpans":"1"}}';
  tracer.record(span());
  tracer.record(span());
  await tracer.close();
  t.equal(spans.length, 516, 'what waits is sent at the end');
  t.same([await sample('trace_spans_sent_total'), await sample('trace_spans_dropped_total')], [515, 1]);
  tracer.record(span());
  t.equal(await sample('trace_spans_dropped_total'), 2);
});

void t.test('a collector that is away, refuses or says nothing costs spans, within limits', async (t) => {
  const { endpoint, spans, state } = await openCollector(t);
  const clock = new ManualClock();
  const { tracer, sample, lines } = tracerTo(endpoint, { waitingMax: 3, everyMs: 1_000, timeoutMs: 100 }, clock);
  const dropped = async (count: number): Promise<void> => {
    let seen = 0;
    while (seen < count) {
      seen = await sample('trace_spans_dropped_total');
      await new Promise(setImmediate);
    }
    t.equal(seen, count);
  };
  for (let n = 0; n < 5; n += 1) tracer.record(span());
  await dropped(2);
  state.status = 503;
  clock.advance(1_000);
  await dropped(5);
  tracer.record(span());
  state.silent = true;
  clock.advance(1_000);
  await until('the request', () => state.posts === 2);
  clock.advance(100);
  await dropped(6);
  t.match(lines, [{ msg: 'the collector takes no spans; they are dropped' }], 'said once');
  Object.assign(state, { silent: false, status: 200 });
  tracer.record(span());
  clock.advance(1_000);
  await until('the span', () => spans.length === 1);
  await until('the word of it', () => lines.some(({ msg }) => msg === 'the collector takes spans again'));
  await tracer.close();
});

void t.test('chance samples new traces, and work is a child of the work that causes it', async (t) => {
  const { endpoint, spans } = await openCollector(t);
  const { log, metrics } = testDeps();
  const draws = [0.1, 0.3];
  const config = { ...configured(otlpSection, { sampleRatio: 0.2 }), endpoint };
  const deps = { config, resource: {}, clock: systemClock, log, metrics, random: () => draws.shift() ?? 0 };
  const tracer = openTracer(deps);
  t.same([tracer.begin().sampled, tracer.begin().sampled], [true, false]);
  const spanDeps = { tracer, clock: systemClock };
  const inner = async (): Promise<string> => {
    await new Promise(setImmediate);
    return await childSpan(spanDeps, 'inner', {}, async () => 'value');
  };
  t.equal(await rootSpan(spanDeps, 'outer', {}, inner), 'value');
  await t.rejects(rootSpan(spanDeps, 'failing', {}, () => Promise.reject(new Error('x'))));
  t.equal(await inner(), 'value', 'outside any trace nothing is recorded');
  t.equal(await tracer.within(newTrace(false), inner), 'value', 'nor in one that is not sampled');
  t.equal(await rootSpan({ clock: systemClock }, 'none', {}, async () => 1), 1, 'nor without a tracer');
  await tracer.close();
  const [first, second, third] = spans;
  t.same([first?.name, second?.name, third?.name, spans.length], ['inner', 'outer', 'failing', 3]);
  t.same([first?.traceId, first?.parentSpanId], [second?.traceId, second?.spanId]);
});

void t.test('one trace shows an upload and a read from the edge to the storage', async (t) => {
  const { endpoint, spans, faults } = await openCollector(t);
  const [atEdge, atOrigin] = [tracerTo(endpoint), tracerTo(endpoint)];
  const folder = t.testdir({ edge: {}, origin: {} });
  const origin = await startOrigin(`${folder}/origin`, { thumbs: { enabled: false } }, { tracer: atOrigin.tracer });
  const edge = await openTestEdge(`${folder}/edge`, {
    edge: ['access: off'],
    originUrl: origin.url,
    tracer: atEdge.tracer,
  });
  try {
    const headers = { authorization: `Bearer ${origin.auth.token({ sub: 'ada' })}`, 'content-type': 'image/png' };
    const body = png(1);
    const sent = await sendRequest(`${edge.url}/v1/media?public=true&key=secret`, { method: 'POST', headers, body });
    t.equal(sent.status, 201, sent.bytes.toString());
    const path = String(sent.headers['location']);
    t.equal((await sendRequest(edge.url + path)).status, 200);
  } finally {
    await edge.close();
    await origin.close();
  }
  await Promise.all([atEdge.tracer.close(), atOrigin.tracer.close()]);
  t.same(faults, []);
  const traces = new Set(spans.map(({ traceId }) => traceId));
  const named = (name: string): SentSpan | undefined => spans.find((each) => each.name === name);
  const parentOf = ({ parentSpanId }: SentSpan): SentSpan | undefined =>
    spans.find(({ spanId }) => spanId === parentSpanId);
  const wayOf = (from: SentSpan | undefined): readonly string[] => {
    const parent = from === undefined ? undefined : parentOf(from);
    return from === undefined ? [] : [from.name, ...wayOf(parent)];
  };
  t.equal(traces.size, 2, 'the upload and the read');
  t.same(wayOf(named('storage put')), ['storage put', 'POST media', 'POST media']);
  t.same(wayOf(named('metadata commit')), ['metadata commit', 'POST media', 'POST media']);
  t.same(wayOf(named('storage read')), ['storage read', 'GET original', 'fetch GET', 'GET original']);
  t.notMatch(JSON.stringify(spans), /secret|ada"|Bearer/);
});
