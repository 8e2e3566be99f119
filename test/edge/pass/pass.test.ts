/** Requests passed to the origin, seen from both sides of the edge, byte by byte where bytes matter. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { Agent, createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import * as fc from 'fast-check';
import { createProxyServer } from 'http-proxy-3';
import t, { type Test } from 'tap';
import { type PassConfig, type PassOrigin, passSection, type UnsafeAnswer } from '../../../edge/pass/config.js';
import {
  answerHeaders,
  type Framing,
  forwardedHeaders,
  framingOf,
  hopsLeft,
  invalidates,
  mayRepeat,
  type RequestHead,
} from '../../../edge/pass/guards.js';
import { createPass } from '../../../edge/pass/pass.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { FORGED_FIELDS } from '../../kit/http/forged-fields.js';
import { connectRaw, exchangeRaw, listenRaw, type RawConnection } from '../../kit/http/raw.js';
import { sendRequest } from '../../kit/http/request.js';
import { until } from '../../kit/until.js';

interface Bench {
  readonly port: number;
  readonly url: string;
  readonly clock: ManualClock;
  readonly unsafe: UnsafeAnswer[];
  readonly stopping: AbortController;
  active(): number;
  sample(name: string): Promise<number>;
  readonly lines: readonly Readonly<Record<string, unknown>>[];
}

/** The only origin: there is nothing to learn of it. */
function originAt(url: string): PassOrigin {
  const nothing = (): void => undefined;
  return { url, watch: () => nothing, heard: nothing, doubted: nothing, lost: nothing };
}

/** An edge that only passes requests on. */
async function openEdge(
  t: Test,
  originUrl: string,
  values: Partial<PassConfig> = {},
  onUnsafe?: (answer: UnsafeAnswer) => Promise<void> | void,
): Promise<Bench> {
  const clock = new ManualClock();
  const { log, metrics, lines, sample } = testDeps();
  const unsafe: UnsafeAnswer[] = [];
  const stopping = new AbortController();
  const pass = createPass({
    config: configured(passSection, values),
    origins: { inOrder: () => [originAt(originUrl)] },
    originTls: {},
    mode: 'media',
    edgeName: 'edge-1',
    rates: { admit: () => undefined },
    onUnsafe: onUnsafe ?? ((answer) => void unsafe.push(answer)),
    clock,
    log,
    metrics,
  });
  const handle = (request: IncomingMessage, response: ServerResponse): void =>
    void pass.handle(request, response, {
      requestId: 'req-12345678',
      sender: { subject: undefined, admin: false },
      clientAddress: '192.0.2.7',
      signal: stopping.signal,
    });
  const server = createServer({ keepAliveTimeout: 60_000 });
  server.on('request', handle).on('checkContinue', handle);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(async () => {
    server.closeAllConnections();
    server.close();
    await pass.close();
  });
  const { port } = server.address() as AddressInfo;
  return { port, url: `http://127.0.0.1:${port}`, clock, unsafe, stopping, active: () => pass.active, sample, lines };
}

/** The library without guards, with kept connections as in the edge. */
async function openBare(t: Test, originUrl: string): Promise<{ port: number; url: string }> {
  const agent = new Agent({ keepAlive: true });
  const proxy = createProxyServer({ target: originUrl, agent });
  proxy.on('error', () => {});
  const server = createServer((request, response) => proxy.web(request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
    agent.destroy();
  });
  const { port } = server.address() as AddressInfo;
  return { port, url: `http://127.0.0.1:${port}` };
}

const NOTHING: Arrived = { method: '', target: '', headers: {}, body: '' };

interface Arrived {
  readonly method: string;
  readonly target: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

/** An origin that reads whole requests and answers them. */
async function openOrigin(
  t: Test,
  answer: (arrived: Arrived, response: ServerResponse) => void = (_arrived, response) => void response.end('done'),
): Promise<{ url: string; arrived: Arrived[]; sockets: Set<Socket> }> {
  const arrived: Arrived[] = [];
  const sockets = new Set<Socket>();
  const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('error', () => {});
    request.on('end', () => {
      const { method = '', url: target = '', headers } = request;
      const each = { method, target, headers, body: Buffer.concat(chunks).toString('latin1') };
      arrived.push(each);
      answer(each, response);
    });
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, arrived, sockets };
}

const problemCode = (text: string): unknown =>
  (JSON.parse(text.slice(text.indexOf('\r\n\r\n'))) as { code: unknown }).code;

void t.test('a chunked DELETE smuggles a request through the bare library, and nothing through the edge', async (t) => {
  const inner = 'GET /smuggled HTTP/1.1\r\nHost: origin\r\n\r\n';
  const attack = (method: string): string =>
    `${method} /v1/media/x HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n` +
    `${inner.length.toString(16)}\r\n${inner}\r\n0\r\n\r\n`;
  for (const method of ['DELETE', 'OPTIONS']) {
    const victim = await openOrigin(t);
    const bare = await connectRaw((await openBare(t, victim.url)).port);
    bare.write(attack(method));
    await until('the smuggled request', () => victim.arrived.some(({ target }) => target === '/smuggled'));

    const origin = await openOrigin(t);
    const client = await connectRaw((await openEdge(t, origin.url)).port);
    client.write(attack(method));
    await client.until(/done/);
    client.write('GET /after HTTP/1.1\r\nHost: edge\r\n\r\n');
    await client.until(/done[\s\S]*done/);
    t.same(
      origin.arrived.map(({ method, target, body }) => [method, target, body]),
      [
        [method, '/v1/media/x', inner],
        ['GET', '/after', ''],
      ],
    );
    for (const raw of [bare, client]) raw.socket.destroy();
  }
});

void t.test(
  'fields of one connection pass through the bare library, and stop at the edge in both directions',
  async (t) => {
    const hop =
      'Connection: x-mine, keep-alive\r\nX-Mine: 1\r\nTE: trailers\r\nProxy-Authorization: x\r\nKeep-Alive: 9';
    const asked = `GET /p HTTP/1.1\r\nHost: edge\r\n${hop}\r\n\r\n`;
    const origin = await openOrigin(t, (_arrived, response) => {
      response.writeHead(
        200,
        [
          ['Connection', 'x-theirs'],
          ['X-Theirs', '1'],
          ['Proxy-Authenticate', 'Basic'],
          ['X-End', 'to-end'],
          ['CDN-Cache-Control', 'max-age=9'],
          ['Media-Id', 'M'],
        ].flat(),
      );
      response.end('done');
    });
    const bare = await connectRaw((await openBare(t, origin.url)).port);
    bare.write(asked);
    await bare.until(/done/);
    t.equal(origin.arrived[0]?.headers['x-mine'], '1', 'the bare library forwards it');
    t.match(bare.text, /x-theirs: 1/i);

    const client = await connectRaw((await openEdge(t, origin.url)).port);
    client.write(asked);
    const text = await client.until(/done/);
    const seen = origin.arrived[1]?.headers ?? {};
    for (const name of ['x-mine', 'te', 'proxy-authorization', 'keep-alive']) t.notOk(name in seen, name);
    t.notMatch(text, /x-theirs|proxy-authenticate|cdn-cache-control|media-id/i);
    t.match(text, /x-end: to-end/i);
    for (const raw of [bare, client]) raw.socket.destroy();
  },
);

void t.test(
  'an origin that dies during its response leaves the client waiting with the bare library; the edge breaks the connection',
  async (t) => {
    const half = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf';
    const dying = async (raw: RawConnection): Promise<void> => {
      await raw.until(/\r\n\r\n/);
      raw.write(half);
      await new Promise(setImmediate);
      raw.end();
    };
    const first = await listenRaw(dying);
    const bare = await connectRaw((await openBare(t, first.url)).port);
    bare.write('GET /p HTTP/1.1\r\nHost: edge\r\n\r\n');
    await bare.until(/half/);
    await first.connections[0]?.closed;
    for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate);
    t.notOk(bare.socket.readableEnded || bare.socket.destroyed, 'the bare library leaves the client waiting');

    const second = await listenRaw(dying);
    const edge = await openEdge(t, second.url);
    const client = await connectRaw(edge.port);
    client.write('GET /p HTTP/1.1\r\nHost: edge\r\n\r\n');
    await client.closed;
    t.match(client.text, /half$/, 'the received bytes were sent on, then the connection broke');
    await until('the pass to end', () => edge.active() === 0);
    t.equal(await edge.sample('edge_pass_requests_total{ending="broken"}'), 1);
    for (const server of [first, second]) await server.close();
    bare.socket.destroy();
  },
);

void t.test(
  'an origin that stalls ends the request: 504 before its response has begun, a broken connection after',
  async (t) => {
    const mute = await listenRaw(() => {});
    const edge = await openEdge(t, mute.url, { idleTimeoutMs: 5_000 });
    const waiting = exchangeRaw(edge.port, 'DELETE /v1/media/x HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n');
    await until('the request at the origin', () => (mute.connections[0]?.text ?? '').includes('\r\n\r\n'));
    edge.clock.advance(4_999);
    t.equal(edge.active(), 1);
    edge.clock.advance(2);
    const refused = await waiting;
    t.match(refused, /^HTTP\/1.1 504 /);
    t.equal(problemCode(refused), 'gateway_timeout');

    const stalling = await listenRaw(async (raw) => {
      await raw.until(/\r\n\r\n/);
      raw.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf');
    });
    const other = await openEdge(t, stalling.url, { idleTimeoutMs: 5_000 });
    const client = await connectRaw(other.port);
    client.write('GET /p HTTP/1.1\r\nHost: edge\r\n\r\n');
    await client.until(/half/);
    other.clock.advance(5_001);
    await client.closed;
    await until('the pass to end', () => other.active() === 0);
    t.equal(stalling.connections[0]?.socket.destroyed || (await stalling.connections[0]?.closed) !== undefined, true);
    for (const server of [mute, stalling]) await server.close();
  },
);

void t.test('hints and the head reach the client before a slow body', async (t) => {
  const hint = async (raw: RawConnection): Promise<void> => {
    await raw.until(/\r\n\r\n/);
    raw.write('HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Inner: 1\r\n\r\n');
    raw.write('HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n');
  };
  const [slow, again] = [await listenRaw(hint), await listenRaw(hint)];
  for (const server of [slow, again]) t.teardown(() => server.close());
  const edge = await openEdge(t, slow.url);
  const client = await connectRaw(edge.port);
  client.write('POST /p HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\n\r\n');
  const text = await client.until(/HTTP\/1\.1 200 OK[\s\S]*\r\n\r\n/);
  t.match(text, /^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a\.css>; rel=preload\r\n\r\n/);
  t.notMatch(text, /x-inner/i);
  slow.connections[0]?.write('done');
  await client.until(/done$/);
  client.socket.destroy();

  const old = await connectRaw((await openEdge(t, again.url)).port);
  old.write('POST /p HTTP/1.0\r\nHost: edge\r\nContent-Length: 0\r\n\r\n');
  t.match(await old.until(/\r\n\r\n/), /^HTTP\/1\.1 200 /, 'RFC 9110 15.2: HTTP/1.0 has no interim responses');
  old.socket.destroy();
});

void t.test(
  'an origin that cannot be reached or speaks no HTTP is a 502, and too many requests at once a 503',
  async (t) => {
    const gone = await listenRaw(() => {});
    await gone.close();
    const garbage = await listenRaw((raw) => raw.write('220 mail ready\r\n\r\n'));
    for (const url of [gone.url, garbage.url]) {
      const edge = await openEdge(t, url);
      const answer = await sendRequest(`${edge.url}/v1/media`, { method: 'POST', body: 'x' });
      t.equal(answer.status, 502);
      t.equal((JSON.parse(answer.bytes.toString()) as { code: string }).code, 'bad_gateway');
      t.notMatch(answer.bytes.toString(), /127\.0|ECONN|HPE_/, 'nothing internal');
      t.equal(answer.headers['x-request-id'], 'req-12345678');
      t.equal(edge.lines.filter(({ ending }) => ending === 'bad_gateway').length, 1, 'and the log says why');
    }
    const mute = await listenRaw(() => {});
    const edge = await openEdge(t, mute.url, { concurrentMax: 1 });
    const first = await connectRaw(edge.port);
    first.write('GET /p HTTP/1.1\r\nHost: edge\r\n\r\n');
    await until('the first pass', () => edge.active() === 1);
    t.equal((await sendRequest(`${edge.url}/p`, { method: 'DELETE' })).status, 503);
    edge.stopping.abort();
    t.match(await first.until(/overloaded/), /^HTTP\/1.1 503 /, 'a request in progress is answered at the stop');
    first.socket.destroy();
    for (const server of [garbage, mute]) await server.close();
  },
);

void t.test(
  'the origin gets the edge’s facts about the client, the target as received, and no proof of an edge',
  async (t) => {
    const origin = await openOrigin(t);
    const edge = await openEdge(t, origin.url);
    const client = await connectRaw(edge.port);
    const forged = [
      'Edge-Authorization: v1.forged',
      'Media-Caller: anonymous',
      'Media-Id: 01J',
      'X-Forwarded-For: 203.0.113.9',
      'X-Forwarded-Proto: https',
      'X-Forwarded-Host: evil.example',
      'Forwarded: for=evil',
      'X-Real-IP: 203.0.113.9',
      ...FORGED_FIELDS.map((name) => `${name}: forged`),
      'X-Request-Id: forged-by-client',
      'Via: 1.0 near',
      'Authorization: Bearer abc',
      'Tus-Resumable: 1.0.0',
      'Upload-Offset: 0',
      'Upload-Metadata: filename dGVzdA==',
    ];
    const target = '/v1/../a//b/%2e%2e/c?x=%2E&&y=?z';
    client.write(
      `PATCH ${target} HTTP/1.1\r\nHost: media.example\r\nContent-Length: 2\r\n${forged.join('\r\n')}\r\n\r\nhi`,
    );
    const text = await client.until(/done/);
    const { method, target: seenTarget, headers, body } = origin.arrived[0] ?? NOTHING;
    t.same([method, seenTarget, body], ['PATCH', target, 'hi']);
    for (const name of ['edge-authorization', 'media-caller', 'media-id', 'x-real-ip', ...FORGED_FIELDS])
      t.notOk(name in headers, name);
    t.match(headers, {
      host: new URL(origin.url).host,
      'x-forwarded-for': '192.0.2.7',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': 'media.example',
      'x-request-id': 'req-12345678',
      via: '1.0 near, 1.1 edge-1',
      authorization: 'Bearer abc',
      'tus-resumable': '1.0.0',
      'upload-offset': '0',
      'upload-metadata': 'filename dGVzdA==',
    });
    t.match(text, /\r\nvia: 1.1 edge-1\r\n/i);
    t.match(text, /\r\nx-request-id: req-12345678\r\n/i);
    t.match(text, /\r\ncache-status: edge-1; fwd=method; fwd-status=200\r\n/i);

    client.write('OPTIONS * HTTP/1.1\r\nHost: edge\r\nMax-Forwards: 3\r\n\r\n');
    await client.until(/done[\s\S]*done/);
    t.equal(origin.arrived[1]?.target, '*');
    t.equal(origin.arrived[1]?.headers['max-forwards'], '2');
    client.write('OPTIONS /v1/media HTTP/1.1\r\nHost: edge\r\nMax-Forwards: 0\r\n\r\n');
    t.match(await client.until(/204 [\s\S]*allow: /i), /HTTP\/1.1 204/);
    t.equal(origin.arrived.length, 2, 'RFC 9110 7.6.2: it was not forwarded');
    client.socket.destroy();
  },
);

void t.test('bodies arrive complete, whatever their size, framing and method', async (t) => {
  const origin = await openOrigin(t, (arrived, response) => {
    response.setHeader('content-type', 'text/plain');
    response.end(createHash('sha256').update(Buffer.from(arrived.body, 'latin1')).digest('hex'));
  });
  const edge = await openEdge(t, origin.url, { askFromBytes: 1_000 });
  const pieces = fc.array(fc.uint8Array({ minLength: 1, maxLength: 3_000 }), { maxLength: 5 });
  const method = fc.constantFrom('POST', 'PATCH', 'PUT', 'DELETE', 'OPTIONS', 'GET');
  await fc.assert(
    fc.asyncProperty(pieces, method, fc.boolean(), async (pieces, method, chunked) => {
      const body = Buffer.concat(pieces);
      const framing = chunked ? { 'transfer-encoding': 'chunked' } : { 'content-length': String(body.length) };
      const text = await new Promise<string>((resolve, reject) => {
        const sent = httpRequest(edge.url, { method, headers: framing, agent: false }, (response) => {
          let text = '';
          response.on('data', (chunk: Buffer) => (text += chunk.toString()));
          response.on('end', () => resolve(text));
        });
        sent.on('error', reject);
        for (const piece of pieces) sent.write(piece);
        sent.end();
      });
      t.equal(text, createHash('sha256').update(body).digest('hex'));
      const { headers } = origin.arrived.at(-1) ?? NOTHING;
      t.equal(headers['transfer-encoding'] !== undefined && headers['content-length'] !== undefined, false);
    }),
    { numRuns: 40 },
  );
});

/** An origin that runs the given function after each head. */
async function openAsking(
  t: Test,
  says: (raw: RawConnection) => void | Promise<void>,
): Promise<{ url: string; text(): string }> {
  const server = await listenRaw(async (raw) => {
    await raw.until(/\r\n\r\n/).catch(() => '');
    await says(raw);
  });
  t.teardown(() => server.close());
  return { url: server.url, text: () => server.connections[0]?.text ?? '' };
}

const REFUSAL = 'HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nX-Why: size\r\n\r\nbig';
const bodyOf = (text: string): string => text.slice(text.indexOf('\r\n\r\n') + 4);

void t.test('a client that expects 100 gets what the origin sends: its 100, or only its refusal', async (t) => {
  const head = 'POST /v1/media HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n';
  await t.test('the origin refuses', async (t) => {
    const origin = await openAsking(t, (raw) => raw.write(REFUSAL));
    const edge = await openEdge(t, origin.url);
    const client = await connectRaw(edge.port);
    client.write(head);
    const text = await client.until(/big$/);
    t.match(text, /^HTTP\/1.1 413 /, 'no 100 before it');
    t.match(text, /connection: close/i);
    t.match(origin.text(), /expect: 100-continue/i);
    t.equal(bodyOf(origin.text()), '');
    client.end();
    await until('the pass to end', () => edge.active() === 0);
    client.socket.destroy();
  });
  await t.test('the origin wants the body', async (t) => {
    const origin = await openAsking(t, async (raw) => {
      raw.write('HTTP/1.1 100 Continue\r\n\r\n');
      await raw.until(/hello$/);
      raw.write('HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n');
    });
    const client = await connectRaw((await openEdge(t, origin.url)).port);
    client.write(head);
    await client.until(/^HTTP\/1.1 100 Continue\r\n\r\n$/);
    client.write('hello');
    await client.until(/HTTP\/1.1 201 /);
    t.equal(client.text.match(/100 Continue/g)?.length, 1);
    client.socket.destroy();
  });
  await t.test('the origin says nothing', async (t) => {
    const origin = await openAsking(t, async (raw) => {
      await raw.until(/hello$/);
      raw.write('HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n');
    });
    const edge = await openEdge(t, origin.url, { continueWaitMs: 1_000 });
    const client = await connectRaw(edge.port);
    client.write(head);
    await until('the head at the origin', () => origin.text().includes('\r\n\r\n'));
    t.equal(client.text, '');
    edge.clock.advance(1_000);
    await client.until(/^HTTP\/1.1 100 Continue/);
    client.write('hello');
    await client.until(/HTTP\/1.1 201 /);
    client.socket.destroy();
  });
});

void t.test('a client that never stops sending can read an early refusal', async (t) => {
  const megabyte = Buffer.alloc(1_000_000, 'x');
  const headOf = (sizeBytes: number): string =>
    `POST /v1/media HTTP/1.1\r\nHost: edge\r\nContent-Length: ${sizeBytes}\r\n\r\n`;
  await t.test('before the body, none of which reaches the origin', async (t) => {
    const origin = await openAsking(t, (raw) => raw.write(REFUSAL));
    const edge = await openEdge(t, origin.url);
    const client = await connectRaw(edge.port);
    client.write(headOf(8_000_000));
    for (let sent = 0; sent < 8; sent += 1) client.write(megabyte);
    t.equal(await client.closed, 'ended', 'closed without a reset, so that nothing was lost');
    t.match(client.text, /^HTTP\/1.1 413 [\s\S]*big$/);
    t.equal(bodyOf(origin.text()), '');
    t.equal(await edge.sample('edge_pass_requests_total{ending="answered"}'), 1);
  });
  await t.test('in the middle of the body, from an origin that stops reading', async (t) => {
    const origin = await openAsking(t, async (raw) => {
      raw.write('HTTP/1.1 100 Continue\r\n\r\n');
      await raw.until(/x{1000}/);
      raw.socket.pause();
      raw.write(REFUSAL);
    });
    const edge = await openEdge(t, origin.url);
    const client = await connectRaw(edge.port);
    client.write(headOf(8_000_000));
    for (let sent = 0; sent < 8; sent += 1) client.write(megabyte);
    t.equal(await client.closed, 'ended');
    t.match(client.text, /^HTTP\/1.1 413 [\s\S]*big$/);
  });
  await t.test('within limits: on the bytes that are dropped, and on silence', async (t) => {
    const origin = await openAsking(t, (raw) => raw.write(REFUSAL));
    const edge = await openEdge(t, origin.url, { drainMaxBytes: 100_000 });
    const greedy = await connectRaw(edge.port);
    greedy.write(headOf(100_000_000));
    greedy.write(megabyte);
    await greedy.closed;
    t.match(greedy.text, /413/);

    const quiet = await openEdge(t, origin.url, { drainIdleMs: 700 });
    const client = await connectRaw(quiet.port);
    client.write(headOf(100_000_000));
    await client.until(/big$/);
    await until('the wait for more, which holds no slot', () => quiet.active() === 0);
    quiet.clock.advance(701);
    t.equal(await client.closed, 'ended');
  });
});

void t.test(
  'a client that stalls in its body gets 408; one that leaves ends the request at the origin too',
  async (t) => {
    const origin = await openAsking(t, (raw) => raw.write('HTTP/1.1 100 Continue\r\n\r\n'));
    const edge = await openEdge(t, origin.url, { clientTimeoutMs: 9_000, idleTimeoutMs: 2_000, askFromBytes: 1 });
    const stalling = await connectRaw(edge.port);
    stalling.write('POST /v1/media HTTP/1.1\r\nHost: edge\r\nContent-Length: 10\r\n\r\nabc');
    await until('part of the body at the origin', () => origin.text().endsWith('abc'));
    edge.clock.advance(8_000);
    t.equal(edge.active(), 1, 'the edge waits for the client, so the origin’s limit does not apply');
    edge.clock.advance(1_001);
    t.match(await stalling.until(/request_timeout/), /^HTTP\/1.1 408 /);
    await until('the linger', () => edge.clock.pending > 0);
    edge.clock.advance(1_001);
    await stalling.closed;

    const mute = await listenRaw(() => {});
    const other = await openEdge(t, mute.url, { askFromBytes: 100 });
    const leaving = await connectRaw(other.port);
    leaving.write('POST /v1/media HTTP/1.1\r\nHost: edge\r\nContent-Length: 10\r\n\r\nabc');
    await until('the body at the origin', () => (mute.connections[0]?.text ?? '').endsWith('abc'));
    leaving.reset();
    await mute.connections[0]?.closed;
    await until('the pass to end', () => other.active() === 0);
    t.equal(await other.sample('edge_pass_requests_total{ending="left"}'), 1);
    await mute.close();
  },
);

void t.test(
  'after a kept connection broke, a request is sent again if it may be repeated, and is a 502 if not',
  async (t) => {
    // Answers the first request of each connection, dies on the second.
    const fickle = await listenRaw(async (raw) => {
      await raw.until(/\r\n\r\n/).catch(() => '');
      raw.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone');
      await raw.until(/\r\n\r\n[\s\S]*\r\n\r\n/).catch(() => '');
      raw.reset();
    });
    t.teardown(() => fickle.close());
    const edge = await openEdge(t, fickle.url);
    t.equal((await sendRequest(edge.url)).status, 200);
    t.equal((await sendRequest(edge.url, { method: 'DELETE' })).status, 200, 'on a new connection');
    t.equal(fickle.connections.length, 2);
    t.equal((await sendRequest(edge.url, { method: 'POST', body: 'once' })).status, 502, 'never sent twice');
    t.equal(fickle.connections.length, 2);
  },
);

void t.test('an unsafe request that succeeded is reported before the client gets its response', async (t) => {
  const statuses: Readonly<Record<string, number>> = { '/ok': 204, '/moved': 303, '/bad': 409, '/broken': 500 };
  const origin = await openOrigin(t, ({ target }, response) => {
    response.writeHead(statuses[target] ?? 200, { location: '/l', 'content-location': '/c' });
    response.end();
  });
  let release = (): void => {};
  const reported: UnsafeAnswer[] = [];
  const edge = await openEdge(t, origin.url, {}, (answer) => {
    reported.push(answer);
    return new Promise((resolve) => {
      release = resolve;
    });
  });
  const client = await connectRaw(edge.port);
  client.write('DELETE /ok HTTP/1.1\r\nHost: edge\r\n\r\n');
  await until('the callback', () => reported.length === 1);
  t.same(reported, [{ method: 'DELETE', target: '/ok', status: 204, location: '/l', contentLocation: '/c' }]);
  t.equal(client.text, '', 'the client has no response yet');
  release();
  await client.until(/204/);
  client.socket.destroy();

  const other = await openEdge(t, origin.url);
  for (const method of ['GET', 'OPTIONS', 'POST', 'PATCH']) {
    for (const path of Object.keys(statuses)) await sendRequest(other.url + path, { method });
  }
  t.same(
    other.unsafe.map(({ method, target }) => `${method} ${target}`),
    ['POST /ok', 'POST /moved', 'PATCH /ok', 'PATCH /moved'],
  );

  const faulty = await openEdge(t, origin.url, {}, () => Promise.reject(new Error('disk')));
  t.equal(
    (await sendRequest(`${faulty.url}/ok`, { method: 'DELETE' })).status,
    500,
    'a failed invalidation is an error for the client',
  );
});

const passed = (over: Partial<RequestHead>): RequestHead => ({
  method: 'POST',
  target: '/',
  host: undefined,
  headers: {},
  httpVersion: '1.1',
  endsAtHead: false,
  ...over,
});

void t.test('framing, repeats, invalidation and hops', async (t) => {
  const framings: readonly (readonly [Partial<RequestHead>, Framing])[] = [
    [{}, { kind: 'none' }],
    [{ headers: { 'content-length': '0' } }, { kind: 'none' }],
    [{ headers: { 'content-length': '7' } }, { kind: 'length', sizeBytes: 7 }],
    [{ headers: { 'transfer-encoding': 'chunked' } }, { kind: 'chunked' }],
    [{ httpVersion: '2.0' }, { kind: 'chunked' }],
    [{ httpVersion: '2.0', endsAtHead: true }, { kind: 'none' }],
    [
      { httpVersion: '2.0', headers: { 'content-length': '7' } },
      { kind: 'length', sizeBytes: 7 },
    ],
  ];
  for (const [given, wanted] of framings) t.same(framingOf(passed(given)), wanted);

  const facts = {
    mode: 'media',
    requestId: 'r',
    clientAddress: '::1',
    scheme: 'https',
    edgeName: 'edge-2',
  } as const;
  const h2 = passed({
    httpVersion: '2.0',
    host: 'shown.example',
    headers: { ':method': 'POST', ':path': '/', ':authority': 'shown.example', cookie: 'a=b' },
  });
  t.same(forwardedHeaders(h2, { kind: 'none' }, facts, 'o:1'), {
    cookie: 'a=b',
    host: 'o:1',
    via: '2.0 edge-2',
    'cdn-loop': 'edge-2',
    'x-request-id': 'r',
    'x-forwarded-for': '::1',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'shown.example',
    'content-length': '0',
  });
  const answered = answerHeaders(
    ['Via', '1.1 o', 'Via', '1.1 p', 'Set-Cookie', 'a', 'Set-Cookie', 'b'],
    200,
    h2,
    facts,
    true,
  );
  t.same(answered, [
    ['set-cookie', 'a'],
    ['set-cookie', 'b'],
    ['via', '1.1 o, 1.1 p, 1.1 edge-2'],
    ['x-request-id', 'r'],
    ['cache-status', 'edge-2; fwd=method; fwd-status=200'],
  ]);

  t.same(
    ['GET', 'DELETE', 'PUT', 'POST', 'PATCH'].map((method) => mayRepeat(method, { kind: 'none' })),
    [true, true, true, false, false],
  );
  t.equal(mayRepeat('PUT', { kind: 'chunked' }), false);
  t.same(
    [199, 200, 204, 303, 400, 500].map((status) => invalidates('DELETE', status)),
    [false, true, true, true, false, false],
  );
  t.same(hopsLeft('OPTIONS', '0'), { kind: 'final' });
  t.same(hopsLeft('TRACE', '5'), { kind: 'left', hops: 4 });
  t.same(hopsLeft('OPTIONS', '-1'), { kind: 'unlimited' });
  t.same(hopsLeft('GET', '0'), { kind: 'unlimited' });
});
