/**
 * What clients may do to a connection, against the edge and the origin as the
 * processes that run: smuggling shapes, bodies where none belong, slowness and
 * greed. The rules themselves are in test/src/http/hygiene.test.ts.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import t, { type Test } from 'tap';
import { MALFORMED_BODIES, MALFORMED_HEADS, type Malformed, SMUGGLED } from '../kit/http/malformed.js';
import { connectRaw, exchangeRaw } from '../kit/http/raw.js';
import { sendRequest } from '../kit/http/request.js';
import { openProcesses } from '../kit/processes.js';

/** Those of MALFORMED_LIMITS, in the words of the file, and such that slowness is told soon. */
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
    await t.test(`${name}: heads that no honest client sends`, (t) => heads(t, port));
    await t.test(`${name}: bodies that break the rules`, (t) => broken(t, port));
    await t.test(`${name}: bodies of which nobody asked`, (t) =>
      unasked(t, port, processes.user['authorization'] ?? ''),
    );
    await t.test(`${name}: slow and silent clients`, (t) => slow(t, port));
    await t.test(`${name}: a client that wants all connections`, (t) => greedy(t, port));
    t.equal((await sendRequest(`http://127.0.0.1:${port}/healthz`)).status, 200, `${name} is well`);
  }
  t.equal(await edge.stop(), 0);
  t.equal(await origin.stop(), 0);
  t.notMatch(edge.printed() + origin.printed(), /Warning|unhandled|uncaught/, 'no process complained of itself');
});

async function heads(t: Test, port: number): Promise<void> {
  for (const [what, bytes, status] of MALFORMED_HEADS) {
    t.same(answersIn(await exchangeRaw(port, bytes + SMUGGLED)), [String(status)], what);
  }
}

/** What the head asked for may have been answered before; nothing is, behind the fault. */
async function broken(t: Test, port: number): Promise<void> {
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

/** RFC 9112 6: a body ends where its framing says, on any method, and the next request begins there. */
async function unasked(t: Test, port: number, authorization: string): Promise<void> {
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
      // Where it was answered before its body was read, the connection may end with it.
      const right = answers.length === 1 || (answers.length === 2 && answers[1] === '200');
      t.ok(right, `${request} with ${framing}: ${answers.join(' ')}`);
    }
  }
}

async function slow(t: Test, port: number): Promise<void> {
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
  t.same(answersIn(idle.text), ['200'], 'a kept connection that is not used again is closed');

  const trickle = await connectRaw(port);
  trickle.write(head('POST /v1/media HTTP/1.1', 'Host: a', 'Content-Type: text/plain', 'Content-Length: 100000'));
  const open = { is: true };
  void trickle.closed.then(() => (open.is = false));
  while (open.is) {
    trickle.write('x');
    await later(100);
  }
  t.ok(
    answersIn(trickle.text).every((status) => status.startsWith('4')),
    `a body that never ends is broken off: ${answersIn(trickle.text).join(' ')}`,
  );
}

async function greedy(t: Test, port: number): Promise<void> {
  const held = [];
  for (let n = 0; n < LIMITS.connections_per_client_max; n += 1) {
    const raw = await connectRaw(port);
    raw.write('GET /healthz HTTP/1.1\r\n');
    held.push(raw);
  }
  const beyond = await connectRaw(port);
  await beyond.closed;
  t.match(answersIn(beyond.text).concat(answersIn(held[0]?.text ?? '')), ['503'], 'one more is refused');
  const other = connect({ port, host: '127.0.0.1', localAddress: '127.0.0.9' });
  other.write(head('GET /healthz HTTP/1.1', 'Host: a', 'Connection: close'));
  const [chunk] = (await once(other, 'data')) as [Buffer];
  t.match(chunk.toString(), /^HTTP\/1\.1 200 /, 'but another client is served');
  other.destroy();
  for (const { socket } of held) socket.destroy();
  let status = '';
  for (let left = 200; left > 0 && status !== '200'; left -= 1) {
    status = answersIn(await exchangeRaw(port, head('GET /healthz HTTP/1.1', 'Host: a', 'Connection: close')))[0] ?? '';
  }
  t.equal(status, '200', 'and the first, once it has given some back');
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
