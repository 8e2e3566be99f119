/**
 * Bad clients at the edge and the origin as processes: request smuggling, unexpected bodies, slow requests, too many
 * connections. The rules themselves are tested in test/src/server/hygiene.test.ts.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { MALFORMED_BODIES, MALFORMED_HEADS, type Malformed, SMUGGLED } from '../kit/http/malformed.js';
import { connectRaw, exchangeRaw } from '../kit/http/raw.js';
import { sendRequest } from '../kit/http/request.js';
import { openProcesses } from '../kit/processes.js';

/** MALFORMED_LIMITS in the form of config.yaml, and short times for slow clients. */
const LIMITS = {
  headers_max: '2KiB',
  target_max: '512B',
  headers_max_count: 20,
  headers_within: '2s',
  request_within: '3s',
  idle: '1s',
  connections_per_client_max: 8,
};

const head = (...lines: readonly string[]): string => `${lines.join('\r\n')}\r\n\r\n`;
const UNKNOWN = '/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV';
const answersIn = (text: string): readonly string[] =>
  [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => status ?? '');

t.setTimeout(120_000);
void t.test('clients that behave badly', async (t) => {
  const processes = await openProcesses(t.testdir());
  t.teardown(() => processes.close());
  const listen = { port: 0, limits: LIMITS };
  const origin = await processes.launch('origin', { listen, upload: { free_min: '0B' } });
  const edge = await processes.launch('edge', { listen, upstream: { url: await origin.ready } });
  for (const [name, { ready }] of Object.entries({ origin, edge })) {
    const port = Number(new URL(await ready).port);
    await t.test(`${name}: malformed heads`, (t) => malformedHeads(t, port));
    await t.test(`${name}: malformed bodies`, (t) => malformedBodies(t, port));
    await t.test(`${name}: bodies of requests that need none`, (t) =>
      unexpectedBodies(t, port, processes.user['authorization'] ?? ''),
    );
    await t.test(`${name}: slow and silent clients`, (t) => slowClients(t, port));
    await t.test(`${name}: a client with too many connections`, (t) => manyConnections(t, port));
    t.equal((await sendRequest(`http://127.0.0.1:${port}/healthz`)).status, 200, `${name} is well`);
  }
  t.equal(await edge.stop(), 0);
  t.equal(await origin.stop(), 0);
  t.notMatch(
    edge.printed() + origin.printed(),
    /Warning|unhandled|uncaught/,
    'no process has logged a fault of its own',
  );
});

async function malformedHeads(t: Test, port: number): Promise<void> {
  for (const [what, bytes, status] of MALFORMED_HEADS) {
    t.same(answersIn(await exchangeRaw(port, bytes + SMUGGLED)), [String(status)], what);
  }
}

/** The request may have been answered before the fault. Nothing after it is answered. */
async function malformedBodies(t: Test, port: number): Promise<void> {
  const onMedia = ([what, bytes, status]: Malformed): Malformed => [
    what,
    bytes.replace('POST /', 'POST /v1/media'),
    status,
  ];
  for (const [what, bytes] of [...MALFORMED_BODIES, ...MALFORMED_BODIES.map(onMedia)]) {
    const answers = answersIn(await exchangeRaw(port, bytes + SMUGGLED));
    t.ok(answers.length <= 1 && answers.every((status) => status.startsWith('4')), `${what}: ${answers.join(' ')}`);
  }
}

/** RFC 9112 6: the framing says where a body ends, whatever the method, and the next request begins there. */
async function unexpectedBodies(t: Test, port: number, authorization: string): Promise<void> {
  const who = `Authorization: ${authorization}`;
  const hidden = SMUGGLED;
  const framed = [
    [`Content-Length: ${hidden.length}`, hidden],
    ['Transfer-Encoding: chunked', `${hidden.length.toString(16)}\r\n${hidden}\r\n0\r\n\r\n`],
    [
      'Transfer-Encoding: chunked',
      `${hidden.length.toString(16)};a="b"\r\n${hidden}\r\n0\r\nHost: b\r\nX-End: 9\r\n\r\n`,
    ],
  ] as const;
  const last = head('GET /healthz HTTP/1.1', 'Host: a', 'Connection: close');
  const requests = ['GET /healthz', 'HEAD /healthz', 'GET /.well-known', `GET ${UNKNOWN}`, `DELETE ${UNKNOWN}`];
  for (const request of [...requests, 'OPTIONS /v1/media', 'OPTIONS *', 'PUT /v1/media']) {
    for (const [framing, body] of framed) {
      const text = await exchangeRaw(port, head(`${request} HTTP/1.1`, 'Host: a', who, framing) + body + last);
      const answers = answersIn(text);
      // If it was answered before its body was read, the connection may be closed.
      const right = answers.length === 1 || (answers.length === 2 && answers[1] === '200');
      t.ok(right, `${request} with ${framing}: ${answers.join(' ')}`);
    }
  }
}

async function slowClients(t: Test, port: number): Promise<void> {
  const [silent, halfLine, halfHead] = await Promise.all([
    exchangeRaw(port, ''),
    exchangeRaw(port, 'GET /healthz HT'),
    exchangeRaw(port, 'GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: '),
  ]);
  t.match(silent, /^$|^HTTP\/1\.1 408 /, 'nothing at all');
  t.match(halfLine, /^HTTP\/1\.1 408 /, 'half a line');
  t.match(halfHead, /^HTTP\/1\.1 408 /, 'half a head');

  const idle = await connectRaw(port);
  idle.write(head('GET /healthz HTTP/1.1', 'Host: a'));
  await idle.closed;
  t.same(answersIn(idle.text), ['200'], 'an idle connection is closed');

  const trickle = await connectRaw(port);
  trickle.write(head('POST /v1/media HTTP/1.1', 'Host: a', 'Content-Type: text/plain', 'Content-Length: 100000'));
  const open = { is: true };
  void trickle.closed.then(() => (open.is = false));
  while (open.is) {
    trickle.write('x');
    await pause(100);
  }
  t.ok(
    answersIn(trickle.text).every((status) => status.startsWith('4')),
    `a body that never ends is broken off: ${answersIn(trickle.text).join(' ')}`,
  );
}

async function manyConnections(t: Test, port: number): Promise<void> {
  const open = [];
  for (let n = 0; n < LIMITS.connections_per_client_max; n += 1) {
    const raw = await connectRaw(port);
    raw.write('GET /healthz HTTP/1.1\r\n');
    open.push(raw);
  }
  const refused = await connectRaw(port);
  await refused.closed;
  t.match(answersIn(refused.text).concat(answersIn(open[0]?.text ?? '')), ['503'], 'one more is refused');
  const other = connect({ port, host: '127.0.0.1', localAddress: '127.0.0.9' });
  other.write(head('GET /healthz HTTP/1.1', 'Host: a', 'Connection: close'));
  const [chunk] = (await once(other, 'data')) as [Buffer];
  t.match(chunk.toString(), /^HTTP\/1\.1 200 /, 'another client is served');
  other.destroy();
  for (const { socket } of open) socket.destroy();
  let status = '';
  for (let left = 200; left > 0 && status !== '200'; left -= 1) {
    status = answersIn(await exchangeRaw(port, head('GET /healthz HTTP/1.1', 'Host: a', 'Connection: close')))[0] ?? '';
  }
  t.equal(status, '200', 'and the first one, once it has closed some');
}
