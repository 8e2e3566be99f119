/** The way to the origin: what is sent again, what is counted, how each failure is called, and what the breaker hears of it. */

import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { type UpstreamConfig, upstreamSection } from '../../../edge/upstream/config.js';
import type { UpstreamFailure, UpstreamOutcome, UpstreamRequest } from '../../../edge/upstream/request.js';
import { tlsTroubleOf } from '../../../edge/upstream/tls.js';
import { openUpstream, type Upstream } from '../../../edge/upstream/upstream.js';
import { createLog } from '../../../src/log.js';
import { createMetrics } from '../../../src/metrics.js';
import { ManualClock } from '../../kit/clock.js';
import { openScriptedOrigin, type ScriptedOrigin } from '../../kit/edge/scripted-origin.js';
import { until } from '../../kit/until.js';

interface Stage {
  readonly origin: ScriptedOrigin;
  readonly upstream: Upstream;
  readonly clock: ManualClock;
  readonly answered: () => number;
  readonly metrics: () => Promise<string>;
  readonly get: (target: string, over?: Partial<UpstreamRequest>, signal?: AbortSignal) => Promise<UpstreamOutcome>;
}

async function setUp(t: Test, over: Readonly<Record<string, unknown>> = {}): Promise<Stage> {
  const origin = await openScriptedOrigin();
  t.teardown(() => origin.close());
  const opened = openFor(t, { url: origin.url, ...over });
  return { origin, ...opened };
}

function openFor(t: Test, section: Readonly<Record<string, unknown>>): Omit<Stage, 'origin'> {
  const clock = new ManualClock();
  const metrics = createMetrics('media_');
  const config: UpstreamConfig = upstreamSection
    .schema({ env: () => undefined, file: () => undefined })
    .parse({ connect_within: '60s', head_within: '60s', idle: '60s', ...section });
  let answered = 0;
  const upstream = openUpstream({
    config,
    clock,
    metrics,
    log: createLog('test', { level: 'silent' }, { write: () => undefined }),
    onAnswered: () => {
      answered += 1;
    },
  });
  t.teardown(() => upstream.close());
  const never = new AbortController().signal;
  return {
    upstream,
    clock,
    answered: () => answered,
    metrics: async () => (await metrics.render()).text,
    get: (target, more = {}, signal = never) => upstream.fetch({ method: 'GET', target, headers: [], ...more }, signal),
  };
}

function failureOf(outcome: UpstreamOutcome): UpstreamFailure | 'answered' {
  return outcome.kind === 'failed' ? outcome.failure : 'answered';
}

async function bodyOf(outcome: UpstreamOutcome): Promise<string> {
  if (outcome.kind === 'failed') throw new Error(`no answer: ${outcome.failure}`);
  const pieces: Buffer[] = [];
  for await (const piece of outcome.body) pieces.push(piece as Buffer);
  return Buffer.concat(pieces).toString();
}

void t.test('a request arrives as it was given, with the host of the origin, and its answer comes back', async (t) => {
  const { origin, get, upstream, clock, answered } = await setUp(t);
  origin.on('/a', (_seen, answer) => {
    answer.head(203, { 'content-length': '5', connection: 'keep-alive, x-hop', 'x-hop': '1', 'x-end': ['1', '2'] });
    answer.end('hello');
  });
  const outcome = await get('/a?q=1', { method: 'POST', headers: [['x-a', '1']], body: Buffer.from('sent') });
  t.match(outcome, { kind: 'answered', status: 203, sizeBytes: 5, requestedAt: clock.now(), receivedAt: clock.now() });
  const headers = outcome.kind === 'answered' ? outcome.headers : [];
  t.strictSame(
    headers.filter(([name]) => name.startsWith('x-')),
    [
      ['x-end', '1'],
      ['x-end', '2'],
    ],
    'the fields of the connection stay there',
  );
  t.equal(await bodyOf(outcome), 'hello');
  const [seen] = origin.seen;
  t.match(seen, { method: 'POST', target: '/a?q=1', headers: { 'x-a': '1', host: new URL(origin.url).host } });
  t.equal(seen?.body.toString(), 'sent');
  t.match(upstream.stats(), { breaker: 'closed', inFlight: 0, requests: 1, failures: 0 });
  t.equal(answered(), 1);
});

void t.test('what has no content has the size nothing, or none that a HEAD could tell', async (t) => {
  const { origin, get } = await setUp(t);
  origin.on('*', ({ target }, answer) => {
    answer.head(Number(target.slice(1)), target === '/205' ? { 'content-length': '0' } : {});
    answer.end();
  });
  const sizes: Record<string, number | null> = {};
  for (const status of [204, 205, 304]) {
    for (const method of ['GET', 'HEAD']) {
      const outcome = await get(`/${status}`, { method });
      t.equal(await bodyOf(outcome), '');
      sizes[`${method} ${status}`] = outcome.kind === 'answered' ? outcome.sizeBytes : -1;
    }
  }
  t.strictSame(sizes, {
    'GET 204': 0,
    'HEAD 204': null,
    'GET 205': 0,
    'HEAD 205': null,
    'GET 304': 0,
    'HEAD 304': null,
  });
  origin.on('/head', (_seen, answer) => {
    answer.head(200, { 'content-length': '7' });
    answer.end();
  });
  t.match(await get('/head', { method: 'HEAD' }), { kind: 'answered', sizeBytes: 7 });
});

void t.test('an interim answer is told, and is not the final one', async (t) => {
  const { origin, get } = await setUp(t);
  origin.on('/a', (_seen, answer) => {
    answer.hint('</x>; rel=preload');
    answer.head(200);
    answer.end('a');
  });
  const interim: unknown[] = [];
  const outcome = await get('/a', { onInterim: (status, headers) => interim.push([status, headers]) });
  t.match(outcome, { kind: 'answered', status: 200 });
  t.strictSame(interim, [[103, [['link', '</x>; rel=preload']]]]);
  t.equal(await bodyOf(outcome), 'a');
  t.equal(await bodyOf(await get('/a')), 'a', 'and nobody needs to listen');
});

void t.test('a GET or HEAD whose connection broke before an answer is sent again, so often and no more', async (t) => {
  const { origin, get, upstream, metrics } = await setUp(t, { retries: 2, breaker: { enabled: false } });
  origin.on('/broken', (_seen, answer) => answer.reset());
  for (const [method, times] of [
    ['GET', 3],
    ['HEAD', 3],
    ['POST', 1],
    ['PUT', 1],
  ] as const) {
    t.equal(failureOf(await get('/broken', { method })), 'reset', method);
    t.equal(origin.count('/broken', method), times, method);
  }
  t.match(upstream.stats(), { breaker: 'closed', inFlight: 0, requests: 8, failures: 8 });
  t.match(await metrics(), 'media_edge_upstream_failures_total{failure="reset"} 8');
  t.match(await metrics(), 'media_edge_upstream_requests_total 8');
  let failures = 2;
  origin.on('/mended', (_seen, answer) => {
    failures -= 1;
    if (failures >= 0) return answer.reset();
    answer.head(200);
    answer.end('here');
  });
  t.equal(await bodyOf(await get('/mended')), 'here');
  const once = await setUp(t, { retries: 0 });
  once.origin.on('/broken', (_seen, answer) => answer.reset());
  t.equal(failureOf(await once.get('/broken')), 'reset');
  t.equal(once.origin.count('/broken'), 1);
});

void t.test('each failure has its name, and only a broken connection is worth another try', async (t) => {
  const { origin, get, upstream, answered } = await setUp(t, {
    retries: 1,
    head_max: '1KiB',
    breaker: { enabled: false },
  });
  origin.on('/garbage', (_seen, answer) => answer.raw('what is this\r\n\r\n'));
  origin.on('/long', (_seen, answer) => {
    answer.head(200, { 'x-long': 'x'.repeat(2_000) });
    answer.end();
  });
  origin.on('/coded', (_seen, answer) =>
    answer.raw('HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n'),
  );
  for (const target of ['/garbage', '/long', '/coded']) {
    t.equal(failureOf(await get(target)), 'garbage', target);
    t.equal(origin.count(target), 1, target);
  }
  t.equal(answered(), 0);
  await until('nothing is under way', () => upstream.stats().inFlight === 0);
  const closed = createServer();
  await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
  const { port } = closed.address() as AddressInfo;
  await new Promise((resolve) => closed.close(resolve));
  const nobody = openFor(t, { url: `http://127.0.0.1:${port}`, retries: 1, breaker: { enabled: false } });
  t.equal(failureOf(await nobody.get('/')), 'connect');
  t.equal(nobody.upstream.stats().requests, 2, 'a connection that was refused may be tried again');
});

void t.test('a request that is not answered in time ends, and is not sent again', async (t) => {
  const silent: Socket[] = [];
  const server = createServer((socket) => void silent.push(socket.on('error', () => undefined)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const socket of silent) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  const { get, upstream } = openFor(t, { url: `http://127.0.0.1:${port}`, head_within: '10ms', retries: 5 });
  t.equal(failureOf(await get('/')), 'head_timeout');
  t.strictSame([upstream.stats().requests, upstream.stats().failures], [1, 1]);
});

void t.test('a request waits for a connection only so long, and so many may wait', async (t) => {
  const limits = { connections_max: 1, waiting_max: 1, slow_max: 0, head_within: '30s', breaker: { enabled: false } };
  const { origin, get, upstream, clock } = await setUp(t, limits);
  let release = (): void => undefined;
  origin.on('/slow', async (_seen, answer) => {
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    answer.head(200);
    answer.end('done');
  });
  const first = get('/slow');
  await origin.arrived('/slow');
  const waiting = get('/waiting');
  t.equal(upstream.stats().inFlight, 2);
  t.equal(failureOf(await get('/more')), 'overloaded');
  clock.advance(29_999);
  t.equal(upstream.stats().inFlight, 2);
  clock.advance(1);
  t.equal(failureOf(await waiting), 'head_timeout');
  t.equal(upstream.stats().inFlight, 1, 'its place is free');
  release();
  t.equal(await bodyOf(await first), 'done');
  t.equal(origin.count('/waiting'), 0, 'it was never sent');
  t.equal(origin.count('/more'), 0);
  t.equal(clock.pending, 0, 'no timer is left');
});

void t.test('a caller that leaves ends its request, whether it waits, was sent, or is being answered', async (t) => {
  const { origin, get, upstream } = await setUp(t, { connections_max: 1, slow_max: 0 });
  origin.on('/silent', () => undefined);
  origin.on('/begun', (_seen, answer) => {
    answer.head(200, { 'content-length': '100' });
    return answer.write('begun');
  });
  const gone = new AbortController();
  gone.abort();
  t.equal(failureOf(await get('/never', {}, gone.signal)), 'left');
  t.equal(origin.count('/never'), 0);
  const [sent, waiting] = [new AbortController(), new AbortController()];
  const first = get('/silent', {}, sent.signal);
  await origin.arrived('/silent');
  const second = get('/behind', {}, waiting.signal);
  waiting.abort();
  t.equal(failureOf(await second), 'left');
  sent.abort();
  t.equal(failureOf(await first), 'left');
  await until('the connection is free', () => upstream.stats().inFlight === 0);
  const reading = new AbortController();
  const outcome = await get('/begun', {}, reading.signal);
  reading.abort();
  await t.rejects(bodyOf(outcome));
  await until('nothing is under way', () => upstream.stats().inFlight === 0);
  t.strictSame(upstream.stats().breaker, 'closed', 'what a caller gave up says nothing about the origin');
});

void t.test('failures open the breaker, which refuses at once, and an answer closes it', async (t) => {
  const breaker = { failures: 2, after: '1s', open: '2s' };
  const { origin, get, upstream, clock } = await setUp(t, { retries: 0, breaker });
  origin.on('/a', (_seen, answer) => answer.reset());
  await get('/a');
  clock.advance(1_000);
  await get('/a');
  t.equal(upstream.stats().breaker, 'open');
  t.equal(failureOf(await get('/a')), 'breaker_open');
  t.equal(origin.count('/a'), 2);
  t.match(upstream.stats(), { breaker: 'open', inFlight: 0, requests: 2, failures: 3 });
  clock.advance(2_000);
  origin.on('/a', (_seen, answer) => {
    answer.head(503);
    answer.end();
  });
  t.match(await get('/a'), { kind: 'answered', status: 503 });
  t.equal(upstream.stats().breaker, 'closed', 'an origin that answers is there, whatever it answers');
});

void t.test('requests of the edge itself have connections of their own, and no breaker', async (t) => {
  const { origin, get, upstream } = await setUp(t, { connections_max: 1, slow_max: 0, waiting_max: 0 });
  const never = new AbortController().signal;
  origin.on('/silent', () => undefined);
  const leaving = new AbortController();
  const held = get('/silent', {}, leaving.signal);
  await origin.arrived('/silent');
  origin.on('/own', (_seen, answer) => {
    answer.head(201);
    answer.end('own');
  });
  const own = await upstream.fetchOwn({ method: 'GET', target: '/own', headers: [] }, never);
  t.equal(own.status, 201);
  t.equal(await bodyOf({ kind: 'answered', body: own.body } as UpstreamOutcome), 'own');
  t.equal(upstream.stats().requests, 1, 'they are not counted with the others');
  leaving.abort();
  t.equal(failureOf(await held), 'left');
  origin.on('/own', (_seen, answer) => answer.reset());
  const failed = upstream.fetchOwn({ method: 'GET', target: '/own', headers: [] }, never);
  await t.rejects(failed, { code: 'bad_gateway', detail: 'The origin cannot be reached.' });
});

void t.test('an error of TLS is told from one of the connection, by its code', async (t) => {
  for (const [code, trouble] of [
    ['CERT_HAS_EXPIRED', 'expired'],
    ['CERT_NOT_YET_VALID', 'not_yet_valid'],
    ['CERT_REVOKED', 'revoked'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'name_mismatch'],
    ['HOSTNAME_MISMATCH', 'name_mismatch'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'handshake'],
    ['ERR_TLS_HANDSHAKE_TIMEOUT', 'handshake'],
    ['EPROTO', 'handshake'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'untrusted'],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'untrusted'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'untrusted'],
    ['INVALID_CA', 'untrusted'],
    ['INVALID_PURPOSE', 'untrusted'],
    ['PATH_LENGTH_EXCEEDED', 'untrusted'],
    ['ECONNREFUSED', undefined],
    ['EPROTOTYPE', undefined],
    ['UND_ERR_SOCKET', undefined],
  ] as const) {
    t.equal(tlsTroubleOf(Object.assign(new Error('x'), { code })), trouble, code);
  }
  t.equal(tlsTroubleOf(new Error('x')), undefined);
});
