/** Requests over sockets to handlers as doubles: what a handler is given, what every answer has, what is counted and logged. */
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import type { Meter, RateLimits } from '../../../origin/server/rate-limits.js';
import type { OriginRequest } from '../../../origin/server/request.js';
import { createServer, type OriginServer, requestCounts, type ServerDeps } from '../../../origin/server/server.js';
import { Fault } from '../../../src/errors.js';
import { CORS_HEADERS, GUARD_HEADERS } from '../../../src/http/browser.js';
import { header } from '../../../src/http/head.js';
import { emptyReply, type Reply } from '../../../src/http/reply.js';
import type { LogConfig } from '../../../src/log.js';
import { createRequestLog } from '../../../src/logs/request-line.js';
import { type Audience, type Route, route } from '../../../src/server/routes.js';
import { traceOf } from '../../../src/tracing/context.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { connectRaw, requestHead } from '../../kit/http/raw.js';
import { json, sendRequest } from '../../kit/http/request.js';
import { until } from '../../kit/until.js';

type Handler = (request: OriginRequest) => Promise<Reply> | Reply;

const PROOF = 'the proof of an edge';
const TEXT: Reply = {
  status: 200,
  headers: [['content-type', 'text/plain']],
  body: { kind: 'bytes', bytes: Buffer.from('hello') },
};

function routeOf(methods: Route<OriginRequest>['methods'], pattern: string, audience: Audience, handle: Handler) {
  const notes = { summary: '', responses: [{ status: 200, help: '' }], path: {}, query: {} };
  return route({
    ...notes,
    methods,
    pattern,
    audience,
    handle: async (request: OriginRequest) => await handle(request),
  });
}

interface Given extends Partial<Pick<ServerDeps, 'cors' | 'edgeRoutes' | 'admit' | 'drain'>> {
  readonly requests?: LogConfig['requests'];
  readonly handle?: Handler;
  readonly audience?: Audience;
}

async function setUp(t: Test, given: Given = {}) {
  const { handle = () => TEXT, audience = 'anyone', requests = 'all', ...over } = given;
  const { log, lines, metrics, sample } = testDeps();
  const clock = new ManualClock();
  const seen: OriginRequest[] = [];
  const counted: string[] = [];
  const meter: Meter = {
    address: () => void counted.push('address'),
    subject: (name) => void counted.push(`subject ${name}`),
    admitUpload: () => void counted.push('upload'),
    uploaded: (bytes) => void counted.push(`uploaded ${bytes}`),
    admitDownload: () => void counted.push('download'),
    downloaded: (bytes) => void counted.push(`downloaded ${bytes}`),
    headers: () => [['ratelimit', 'some']],
  };
  const limits: RateLimits = {
    meter(address) {
      counted.push(`meter ${address}`);
      return meter;
    },
    unlimited: { ...meter, headers: () => [] },
  };
  const deps: ServerDeps = {
    addressOf: () => '192.0.2.7',
    traceOf: ({ headers }, proved) =>
      traceOf(
        (name) => header(headers, name),
        'trusted',
        () => proved,
      ),
    limits,
    isEdge: (proof) => proof === PROOF,
    cors: 'any',
    drain: { sizeMaxBytes: 1_000_000, withinMs: 10_000 },
    requestLog: createRequestLog({
      name: 'origin',
      config: { level: 'info', requests, format: 'json' },
      clock,
      write: (line) => log.lines(line, 'requests'),
    }),
    clock,
    log,
    edgeRoutes: () => undefined,
    counts: requestCounts(metrics),
    routes: [
      routeOf(['GET', 'HEAD', 'POST'], '/one/thing', audience, (request) => {
        seen.push(request);
        return handle(request);
      }),
    ],
    ...over,
  };
  const server: OriginServer = createServer(deps);
  const http = createHttpServer((raw, response) => server.handle(raw, response, 'sends'));
  http.on('checkContinue', (raw: IncomingMessage, response: ServerResponse) => server.handle(raw, response, 'waits'));
  await new Promise<void>((resolve) => {
    http.listen(0, '127.0.0.1', resolve);
  });
  const { port } = http.address() as AddressInfo;
  t.teardown(async () => {
    http.closeAllConnections();
    http.close();
    await server.close();
  });
  const send = (path: string, options: Parameters<typeof sendRequest>[1] = {}) =>
    sendRequest(`http://127.0.0.1:${port}${path}`, options);
  /** The line of the log about the request that came so many requests ago; waits for it. */
  const logged = async (count: number) => {
    await until('the line of the log', () => lines.length >= count);
    return lines[count - 1];
  };
  return { server, send, seen, counted, lines, logged, clock, port, sample };
}

void t.test('a handler is given the request as it was sent, and who sent it', async (t) => {
  const { send, seen, counted, clock, port } = await setUp(t);
  const headers = { 'x-request-id': 'request-0001', 'content-length': '3', 'x-own': 'field' };
  await send('/one/thing?a=b?c', { method: 'POST', headers, body: 'abc' });
  const [request] = seen;
  const { id, method, path, query, sender, address, receivedAt } = request as OriginRequest;
  t.same(
    { id, method, path, query, sender, address, receivedAt },
    {
      id: 'request-0001',
      method: 'POST',
      path: '/one/thing',
      query: 'a=b?c',
      sender: 'client',
      address: '192.0.2.7',
      receivedAt: clock.now(),
    },
  );
  t.same([request?.header('x-own'), request?.header('x-other'), request?.body.sizeBytes], ['field', undefined, 3]);
  t.same(counted, ['meter 192.0.2.7']);

  await send('/one/thing', { headers: { 'edge-authorization': PROOF } });
  await send('/one/thing', { headers: { 'edge-authorization': PROOF, 'media-caller': 'anonymous' } });
  await send('/one/thing', { headers: { 'edge-authorization': 'forged', 'media-caller': 'anonymous' } });
  await send('/one/thing', { method: 'POST', headers: { 'transfer-encoding': 'chunked' }, body: 'abc' });
  t.same(
    seen.slice(1).map((one) => [one.sender, one.body.sizeBytes]),
    [
      ['edge', 0],
      ['edge_for_anonymous', 0],
      ['client', 0],
      ['client', null],
    ],
  );
  t.equal(counted.length, 3, 'edges are not counted');
  t.match(seen[1]?.id, /^[0-9a-f-]{36}$/);

  const wire = await connectRaw(port);
  wire.write(requestHead('GET', 'http://media.example/one/thing?x', { connection: 'close' }));
  t.match(await wire.whole(), /^HTTP\/1\.1 200 /, 'a target in absolute form is one too');
  t.equal(seen.at(-1)?.query, 'x');
});

void t.test('every answer has its id, what is left of the limits, and the fields for browsers', async (t) => {
  const flat = (list: readonly (readonly [string, string])[]) => Object.fromEntries(list);
  const common = { 'x-request-id': 'request-0001', ratelimit: 'some', ...flat(GUARD_HEADERS) };
  const headers = { 'x-request-id': 'request-0001' };
  const fields = async (given: Given, path = '/one/thing') => {
    const answer = await (await setUp(t, given)).send(path, { headers });
    const { date: _, connection: __, ...rest } = answer.headers;
    return rest;
  };
  const ok = { 'content-type': 'text/plain', 'content-length': '5' };
  t.same(await fields({}), { ...ok, ...common, ...flat(CORS_HEADERS) });
  t.same(await fields({ cors: 'none' }), { ...ok, ...common });
  const own = { ...TEXT, headers: [...TEXT.headers, ['access-control-allow-origin', 'own']] } as Reply;
  t.same(await fields({ handle: () => own }), { ...ok, ...common, 'access-control-allow-origin': 'own' });
  t.match(await fields({}, '/nothing'), {
    ...common,
    ...flat(CORS_HEADERS),
    'content-type': 'application/problem+json',
  });
});

void t.test('the path and the method say which handler is asked', async (t) => {
  const { send, seen, counted, sample, logged } = await setUp(t, { audience: 'token' });
  await send('/one/thing');
  t.same(counted, ['meter 192.0.2.7', 'address'], 'a request counts for its address before it is handled');
  const nothing = await send('/nothing');
  t.match([nothing.status, json(nothing)['code']], [404, 'not_found']);
  const wrong = await send('/one/thing', { method: 'DELETE' });
  t.match(
    [wrong.status, json(wrong)['code'], wrong.headers.allow],
    [405, 'method_not_allowed', 'GET, HEAD, POST, OPTIONS'],
  );
  t.equal(json(wrong)['detail'], 'The path knows GET, HEAD, POST, OPTIONS.');
  const preflight = await send('/one/thing', { method: 'OPTIONS' });
  t.match([preflight.status, preflight.headers['access-control-allow-methods']], [204, 'GET, HEAD, POST, OPTIONS']);
  t.equal((await send('/one/thing', { method: 'PROPFIND' })).status, 405);
  for (const method of ['PUT', 'PATCH', 'POST', 'HEAD']) await send('/nothing', { method });
  await logged(9);
  t.equal(seen.length, 1);
  for (const [labels, count] of [
    ['route="/one/thing",method="GET",status="200"', 1],
    ['route="none",method="GET",status="404"', 1],
    ['route="none",method="DELETE",status="405"', 1],
    ['route="none",method="OPTIONS",status="204"', 1],
    ['route="none",method="other",status="405"', 1],
    ...['PUT', 'PATCH', 'POST', 'HEAD'].map((method) => [`route="none",method="${method}",status="404"`, 1] as const),
  ] as const) {
    t.equal(await sample(`requests_total{${labels}}`), count, labels);
  }

  const closed = await setUp(t, { cors: 'none' });
  t.equal((await closed.send('/one/thing', { method: 'OPTIONS' })).status, 405, 'without CORS there is no preflight');
});

void t.test('a refusal comes before everything, and edges have routes of their own', async (t) => {
  const refused = await setUp(t, {
    admit: () => {
      throw new Fault('misdirected', 'Not here.');
    },
    edgeRoutes: () => {
      throw new Error('it is not asked');
    },
  });
  const answer = await refused.send('/one/thing');
  t.match([answer.status, json(answer)['detail']], [421, 'Not here.']);
  t.equal(refused.seen.length, 0);
  await refused.logged(1);
  t.equal(await refused.sample('requests_total{route="none",method="GET",status="421"}'), 1);

  const written = await setUp(t, {
    edgeRoutes: (raw, response) => {
      if (raw.url === '/stream') {
        response.writeHead(206);
        response.end('written');
        return Promise.resolve(undefined);
      }
      return raw.url === '/reply' ? Promise.resolve(emptyReply(204)) : undefined;
    },
  });
  const stream = await written.send('/stream');
  t.same([stream.status, stream.bytes.toString(), stream.headers['x-request-id']], [206, 'written', undefined]);
  t.equal((await written.send('/reply')).status, 204);
  t.equal((await written.send('/one/thing')).status, 200);
  await written.logged(3);
  for (const [routeName, status] of [
    ['internal', 206],
    ['internal', 204],
    ['/one/thing', 200],
  ] as const) {
    t.equal(await written.sample(`requests_total{route="${routeName}",method="GET",status="${status}"}`), 1);
    t.ok((await written.sample(`request_seconds_count{route="${routeName}"}`)) > 0);
  }
});

void t.test('the log says what was asked and how it ended, and no more of it than is wanted', async (t) => {
  const { send, logged, clock, sample } = await setUp(t, {
    handle: (request) => {
      clock.advance(12.34);
      request.note({ media: 'noted' });
      return TEXT;
    },
  });
  await send('/one/thing?secret=1', { headers: { 'x-request-id': 'request-0001' } });
  const line = (await logged(1)) ?? {};
  t.match(line, {
    msg: 'request',
    request_id: 'request-0001',
    method: 'GET',
    sender: 'client',
    address: '192.0.2.7',
    status: 200,
    route: 'other',
    outcome: 'answered',
    complete: true,
    first_byte_ms: 12.3,
    total_ms: 12.3,
    media: 'noted',
  });
  t.ok(Number(line['bytes']) > 300, 'the bytes of its answer, with the head');
  t.ok(String(line['target']).startsWith('/one/thing'));
  t.notOk('reason' in line);
  t.notOk('trace_id' in line);
  t.equal(await sample('request_seconds_sum{route="/one/thing"}'), 0.01234);

  const traced = await setUp(t);
  const parent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
  await traced.send('/one/thing', { headers: { traceparent: parent, 'edge-authorization': PROOF } });
  await traced.send('/one/thing', { headers: { traceparent: parent } });
  t.match(await traced.logged(1), { trace_id: 'a'.repeat(32), span_id: /^[0-9a-f]{16}$/ });
  t.not((await traced.logged(1))?.['span_id'], 'b'.repeat(16));
  t.not((await traced.logged(2))?.['trace_id'], 'a'.repeat(32), 'a client does not choose a trace');

  const failing = async (fault: Error, requests: 'all' | 'failed' | 'none' = 'all') => {
    const handle = (): never => {
      throw fault;
    };
    const running = await setUp(t, { handle, requests });
    const answer = await running.send('/one/thing');
    await running.server.close();
    const [first, last] = [running.lines[0], running.lines.at(-1)];
    return [answer.status, first?.['msg'], first?.['code'] ?? first?.['reason'], first?.['error'], last?.['outcome']];
  };
  t.same(await failing(new Fault('forbidden', 'No.')), [403, 'request', 'forbidden', undefined, 'refused']);
  t.same(await failing(new Fault('forbidden', 'No.'), 'failed'), [403, undefined, undefined, undefined, undefined]);
  const storage = new Fault('storage_full', 'No room.', { cause: new Error('ENOSPC') });
  t.match(await failing(storage), [507, 'a request failed', 'storage_full', /ENOSPC/, 'failed']);
  t.match(await failing(storage, 'none'), [507, 'a request failed', 'storage_full', /ENOSPC/], 'failures always');
  t.match(await failing(new Error('a bug')), [500, 'a request failed', 'internal', /a bug/]);

  for (const [requests, status, count] of [
    ['all', 200, 1],
    ['failed', 200, 0],
    ['failed', 499, 0],
    ['failed', 500, 1],
    ['none', 500, 0],
  ] as const) {
    const running = await setUp(t, { handle: () => emptyReply(status), requests });
    await running.send('/one/thing');
    await running.server.close();
    t.equal(running.lines.length, count, `${requests} ${status}`);
  }
});

void t.test('what is streamed is counted as sent, unless nothing of it is sent', async (t) => {
  const streamed = (sizeBytes: number | null): Reply => ({
    status: 200,
    headers: [],
    body: { kind: 'stream', sizeBytes, open: () => Readable.from(['hello']) },
  });
  for (const [method, sizeBytes, expected] of [
    ['GET', 5, ['downloaded 5']],
    ['GET', null, ['downloaded 0']],
    ['HEAD', 5, []],
  ] as const) {
    const { send, counted } = await setUp(t, { handle: () => streamed(sizeBytes) });
    const { bytes } = await send('/one/thing', { method });
    t.equal(bytes.toString(), method === 'GET' ? 'hello' : '');
    t.same(counted.slice(1), expected, `${method} ${sizeBytes}`);
  }
  const { send, counted } = await setUp(t);
  await send('/one/thing');
  t.same(counted.slice(1), []);
});

void t.test('a body that fails after the head breaks the connection, and the log says why', async (t) => {
  const failing: Reply = {
    status: 200,
    headers: [],
    body: {
      kind: 'stream',
      sizeBytes: 10,
      open: () =>
        Readable.from(
          (async function* () {
            yield 'hello';
            throw new Error('the disk has failed');
          })(),
        ),
    },
  };
  const { send, logged } = await setUp(t, { handle: () => failing });
  const answer = await send('/one/thing').catch(() => undefined);
  t.notOk(answer?.whole, 'nobody takes a part for the whole');
  t.match(await logged(1), { status: 200, complete: false, why: /the disk has failed/, outcome: 'failed' });

  // So does a route of an edge that fails once it has begun to write.
  const written = await setUp(t, {
    edgeRoutes: async (_raw, response) => {
      response.writeHead(200, { 'content-length': '10' });
      response.write('hello');
      await until('the first bytes', () => response.headersSent);
      throw new Error('the journal has failed');
    },
  });
  t.notOk((await written.send('/one/thing').catch(() => undefined))?.whole);
  t.match(await written.logged(1), { status: 0, complete: false, why: /the journal has failed/, msg: 'request' });

  // Before the head it is a refusal like any other.
  const unopened: Reply = {
    ...failing,
    body: { kind: 'stream', sizeBytes: 10, open: () => Promise.reject(new Fault('storage_full', 'No.')) },
  };
  const other = await setUp(t, { handle: () => unopened });
  t.equal((await other.send('/one/thing')).status, 507);
  t.match(await other.logged(1), { code: 'storage_full', msg: 'a request failed' });
  t.match(await other.logged(2), { status: 507, reason: 'storage_full', msg: 'request' });
});

void t.test('a client that leaves ends the work for it, and is not blamed on the service', async (t) => {
  let aborted: unknown;
  const { port, logged, seen } = await setUp(t, {
    handle: (request) =>
      new Promise((_, reject) => {
        request.signal.addEventListener('abort', () => {
          aborted = request.signal.reason;
          reject(request.signal.reason);
        });
      }),
  });
  const wire = await connectRaw(port);
  wire.write(requestHead('GET', '/one/thing', {}));
  await until('the request', () => seen.length === 1);
  wire.reset();
  const line = (await logged(1)) ?? {};
  t.match(aborted, { code: 'malformed', message: 'The client left before it was answered.' });
  t.match(line, { complete: false, outcome: 'left', msg: 'request' });
  t.notOk('why' in line);

  const whole = await setUp(t);
  await whole.send('/one/thing');
  await whole.logged(1);
  t.notOk(whole.seen[0]?.signal.aborted, 'a client that was answered has not left');
});

void t.test('closing ends what is under way, and waits for it', async (t) => {
  let finish: () => void = () => undefined;
  const { server, send, seen, lines } = await setUp(t, {
    handle: (request) =>
      new Promise((_, reject) => {
        request.signal.addEventListener('abort', () => {
          finish = () => reject(request.signal.reason);
        });
      }),
  });
  const answered = send('/one/thing').catch(() => undefined);
  await until('the request', () => seen.length === 1);
  let closed = false;
  const closing = server.close().then(() => {
    closed = true;
  });
  t.match(seen[0]?.signal.reason, { code: 'overloaded', message: 'The service is stopping.' });
  await new Promise(setImmediate);
  t.notOk(closed);
  t.equal(lines.length, 0);
  finish();
  await closing;
  t.match(lines, [{ msg: 'a request failed' }, { msg: 'request', outcome: 'failed' }], 'its line is written');
  await answered;
});

void t.test('a client that waits for 100 Continue sends its body once somebody reads it', async (t) => {
  const wants = { 'content-length': 5, expect: '100-continue' };
  const reading = await setUp(t, {
    handle: async (request) => {
      const pieces: string[] = [];
      for await (const piece of request.body.open()) pieces.push(String(piece));
      return { ...TEXT, body: { kind: 'bytes', bytes: Buffer.from(`got ${pieces.join('')}`) } };
    },
  });
  const wire = await connectRaw(reading.port);
  wire.write(requestHead('POST', '/one/thing', wants));
  await wire.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/);
  wire.write('12345');
  t.notMatch(await wire.until(/got 12345$/), /connection: close/i, 'the connection can be used again');
  wire.socket.destroy();

  const refusing = await setUp(t);
  const refused = await connectRaw(refusing.port);
  refused.write(requestHead('POST', '/one/thing', wants));
  const text = await refused.whole();
  t.match(text, /^HTTP\/1\.1 200 OK\r\n[\s\S]*connection: close\r\n/i, 'whether it sends its body now is not known');
  t.notMatch(text, /100 Continue/);
  const plain = await refusing.send('/one/thing');
  t.match(plain.bytes.toString(), 'hello');
});

void t.test('the rest of a body that nobody reads is dropped, and a large one costs the connection', async (t) => {
  const SMALL = 65_536;
  const { port, clock } = await setUp(t, { drain: { sizeMaxBytes: 200_000, withinMs: 7_000 } });
  const small = await connectRaw(port);
  small.write(requestHead('POST', '/one/thing', { 'content-length': SMALL }));
  t.notMatch(await small.until(/hello$/), /connection: close/i);
  small.write(Buffer.alloc(SMALL));
  small.write(requestHead('GET', '/one/thing', {}));
  await small.until(/hello[\s\S]*hello$/);
  small.socket.destroy();

  for (const head of [{ 'content-length': SMALL + 1 }, { 'transfer-encoding': 'chunked' }]) {
    const large = await connectRaw(port);
    large.write(requestHead('POST', '/one/thing', head));
    const text = await large.until(/hello/);
    t.match(text, /connection: close/i);
    await clock.timerSet(7_000);
    clock.advance(6_999);
    t.equal(clock.pending > 0, true, 'it may still send the rest');
    clock.advance(1);
    await large.closed;
    large.socket.destroy();
  }
  // An answer without a body, to HEAD, and one that is a stream itself.
  const empty = await setUp(t, { handle: () => emptyReply(204) });
  const none = await connectRaw(empty.port);
  none.write(requestHead('POST', '/one/thing', { 'content-length': SMALL + 1 }));
  t.match(await none.until(/\r\n\r\n$/), /^HTTP\/1\.1 204 [\s\S]*connection: close/i);
  none.socket.destroy();
  const head = await connectRaw(port);
  head.write(requestHead('HEAD', '/one/thing', { 'content-length': SMALL + 1 }));
  t.notMatch(await head.until(/\r\n\r\n$/), /connection: close/i);
  head.socket.destroy();
  const streaming = await setUp(t, {
    handle: () => ({ ...TEXT, body: { kind: 'stream', sizeBytes: 5, open: () => Readable.from(['hello']) } }),
  });
  const stream = await connectRaw(streaming.port);
  stream.write(requestHead('POST', '/one/thing', { 'content-length': SMALL + 1 }));
  t.notMatch(await stream.until(/hello$/), /connection: close/i);
  stream.socket.destroy();

  // A handler that gave up may have left a reader behind.
  const reading = await setUp(t, {
    handle: (request) => {
      request.body.open().on('readable', () => undefined);
      return TEXT;
    },
  });
  const left = await connectRaw(reading.port);
  left.write(requestHead('POST', '/one/thing', { 'content-length': SMALL }));
  await left.until(/hello$/);
  left.write(Buffer.alloc(SMALL));
  left.write(requestHead('GET', '/one/thing', {}));
  await left.until(/hello[\s\S]*hello$/);
  left.socket.destroy();

  const over = await connectRaw(port);
  over.write(requestHead('POST', '/one/thing', { 'content-length': 1_000_000 }));
  await over.until(/hello/);
  over.write(Buffer.alloc(200_001));
  await over.closed;
  t.pass('no more of it is read than is allowed');
  over.socket.destroy();
});
