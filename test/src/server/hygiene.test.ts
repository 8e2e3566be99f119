/** Refused requests, by the rules and over raw sockets: the right status, and the connection is closed after it. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { systemClock } from '../../../src/clock.js';
import type { GuardReason } from '../../../src/server/guard.js';
import { clientNetwork, inspect } from '../../../src/server/hygiene.js';
import { type ListenLimits, limitsSection } from '../../../src/server/limits.js';
import { listen } from '../../../src/server/listen.js';
import { configured, testDeps } from '../../kit/deps.js';
import {
  MALFORMED_BODIES,
  MALFORMED_HEADS,
  MALFORMED_LIMITS,
  type Malformed,
  SMUGGLED,
} from '../../kit/http/malformed.js';
import { connectRaw, exchangeRaw } from '../../kit/http/raw.js';
import { until } from '../../kit/until.js';

const LIMITS = { targetMaxBytes: 300, headersMaxCount: 20, headersMaxBytes: 2_000 };

const verdictOf = (method: string, target: string, rawHeaders: readonly string[], httpVersion = '1.1'): string => {
  const seen = inspect({ method, target, httpVersion, rawHeaders }, LIMITS);
  return seen.kind === 'ok' ? 'ok' : seen.reason;
};

void t.test('targets are in origin form, or absolute with a host and without a user', async (t) => {
  const table: readonly (readonly [target: string, host: string, verdict: string])[] = [
    ['/', 'a', 'ok'],
    ["/a?b=c&d=!$'()*+,;[]@~%7C", 'a', 'ok'],
    ...'\\|{}^"<>`'
      .split('')
      .flatMap((character) => [
        [`/a${character}b`, 'a', 'target'] as const,
        [`/a?${character}`, 'a', 'target'] as const,
        [`http://a/${character}`, 'a', 'target'] as const,
      ]),
    ['/%00%zz//../', 'a', 'ok'],
    [`/${'x'.repeat(299)}`, 'a', 'ok'],
    [`/${'x'.repeat(300)}`, 'a', 'target_too_long'],
    ['/a#b', 'a', 'target'],
    ['/caf\xe9', 'a', 'target'],
    ['/a\tb', 'a', 'target'],
    ['/a b', 'a', 'target'],
    ['', 'a', 'target'],
    ['a/b', 'a', 'target'],
    ['*', 'a', 'target'],
    ['a:443', 'a', 'target'],
    ['http://a/x', 'a', 'ok'],
    ['HTTP://A', 'a', 'ok'],
    ['http://a?x', 'a', 'ok'],
    ['http://a:8080/x', 'b', 'ok'],
    ['http://u@a/x', 'a', 'target'],
    ['http://u:p@a/x', 'a', 'target'],
    ['http:///x', 'a', 'target'],
    ['http://a,b/x', 'a', 'target'],
    ['ftp://a/x', 'a', 'target'],
    ['//a/x', 'a', 'ok'],
  ];
  for (const [target, host, verdict] of table)
    t.equal(verdictOf('GET', target, ['Host', host]), verdict, `${target} at ${host}`);
  t.equal(verdictOf('OPTIONS', '*', ['Host', 'a']), 'ok');
});

void t.test('there is exactly one Host, and it is valid', async (t) => {
  const good = [
    'a',
    'media.example',
    'media.example.:8080',
    '127.0.0.1',
    '[::1]:80',
    '[2001:db8::1.2.3.4]',
    'a_b-c',
    'A',
  ];
  const bad = [
    '',
    ' ',
    'a,b',
    'a, a',
    'u@a',
    'a/b',
    'a?b',
    'a#b',
    'a b',
    'a:',
    ':80',
    'a:123456',
    'a:x',
    '[::1',
    '::1',
    'a\\b',
    'é',
    'a%2fb',
    'x'.repeat(256),
  ];
  for (const host of good) t.equal(verdictOf('GET', '/', ['Host', host]), 'ok', host);
  for (const host of bad) t.equal(verdictOf('GET', '/', ['Host', host]), 'host_malformed', host.slice(0, 20));
  t.equal(verdictOf('GET', '/', []), 'host_missing');
  t.equal(verdictOf('GET', '/', [], '1.0'), 'ok');
  t.equal(verdictOf('GET', '/', ['Host', 'a', 'hOST', 'a']), 'host_repeated');
  t.equal(verdictOf('GET', '/', ['Host', 'a', 'Host', ''], '1.0'), 'host_repeated');
});

void t.test('fields that must not repeat are refused twice, and unknown transfer codings are refused', async (t) => {
  const table: readonly (readonly [readonly string[], string])[] = [
    [['Content-Length', '1', 'content-length', '1'], 'field_repeated'],
    [['Authorization', 'Bearer a', 'AUTHORIZATION', 'Bearer b'], 'field_repeated'],
    [['Content-Type', 'a/b', 'Content-Type', 'c/d'], 'field_repeated'],
    [['Transfer-Encoding', 'chunked', 'Transfer-Encoding', 'chunked'], 'field_repeated'],
    [['Accept', 'a', 'Accept', 'b', 'Range', 'a', 'Range', 'b'], 'ok'],
    [['Expect', '100-continue'], 'ok'],
    [['expect', '100-Continue'], 'ok'],
    [['Expect', ''], 'ok'],
    [['Expect', '200-ok'], 'expectation'],
    [['Expect', '100-continue, 200-ok'], 'expectation'],
    [['Expect', '100-continue', 'Expect', '100-continue'], 'field_repeated'],
    [['X', 'host', 'Y', 'host'], 'ok'],
    [['Transfer-Encoding', 'chunked'], 'ok'],
    [['transfer-encoding', 'Chunked'], 'ok'],
    [['Transfer-Encoding', ''], 'transfer_coding'],
    [['Transfer-Encoding', 'gzip, chunked'], 'transfer_coding'],
    [['Transfer-Encoding', 'chunked, chunked'], 'transfer_coding'],
    [['Transfer-Encoding', 'identity'], 'transfer_coding'],
    [Array.from({ length: 19 }, () => ['a', 'b']).flat(), 'ok'],
    [Array.from({ length: 20 }, () => ['a', 'b']).flat(), 'fields_too_many'],
  ];
  for (const [fields, verdict] of table)
    t.equal(verdictOf('POST', '/', ['Host', 'a', ...fields]), verdict, fields.slice(0, 4).join(' '));
  t.equal(verdictOf('POST', '/', ['Host', 'a', 'Transfer-Encoding', 'chunked'], '1.0'), 'transfer_coding');
  t.equal(verdictOf('POST', '/', ['Host', 'a', 'Expect', '200-ok'], '1.0'), 'ok', 'HTTP/1.0 has no expectations');
  for (const version of ['0.9', '2.0', '1.2', '3.0'])
    t.equal(verdictOf('GET', '/', ['Host', 'a'], version), 'version', version);
});

void t.test('no head makes the inspection throw or take long', async () => {
  const text = fc.string({ unit: 'binary-ascii', maxLength: 400 });
  fc.assert(
    fc.property(text, text, fc.array(text, { maxLength: 50 }), text, (method, target, raw, version) => {
      inspect({ method, target, httpVersion: version, rawHeaders: raw }, LIMITS);
      inspect({ method, target, httpVersion: '1.1', rawHeaders: ['Host', target, ...raw] }, LIMITS);
    }),
  );
});

void t.test('connections are counted by IPv4 address and by IPv6 network', async (t) => {
  const table = {
    '192.0.2.1': '192.0.2.1',
    '::ffff:192.0.2.1': '192.0.2.1',
    '2001:db8:1:2:3:4:5:6': '2001:db8:1:2::/64',
    '2001:0db8:0001:0002::9': '2001:db8:1:2::/64',
    '2001:db8::1': '2001:db8:0:0::/64',
    '::1': '0:0:0:0::/64',
    'fe80::1%eth0': 'fe80:0:0:0::/64',
    '': '',
  };
  for (const [address, network] of Object.entries(table)) t.equal(clientNetwork(address), network, address);
});

interface GuardedServer {
  readonly port: number;
  readonly reasons: GuardReason[];
  readonly requests: string[];
}

async function openGuarded(t: Test, limits: Partial<ListenLimits> = {}): Promise<GuardedServer> {
  const { log } = testDeps();
  const reasons: GuardReason[] = [];
  const requests: string[] = [];
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    limits: configured(limitsSection, { closeWithinMs: 0, ...limits }),
    clock: systemClock,
    log,
    onRefused: (reason) => reasons.push(reason),
    onRequest(request, response) {
      requests.push(`${request.method} ${request.url}`);
      if (request.url === '/begun') response.write('begun');
      if (request.url === '/broken') response.destroy(new Error('the answer fails'));
      request.on('data', () => {});
      request.on('error', () => {});
      request.on('end', () => response.end('answer'));
    },
  });
  t.teardown(() => listener.close());
  return { port: listener.port, reasons, requests };
}

const head = (...lines: readonly string[]): string => `${lines.join('\r\n')}\r\n\r\n`;

async function refusesAll(t: Test, port: number, table: readonly Malformed[]): Promise<void> {
  for (const [what, bytes, status] of table) {
    const text = await exchangeRaw(port, bytes + SMUGGLED);
    t.match(text, new RegExp(`^HTTP/1\\.1 ${status} `), what);
    t.match(text, /\r\ncontent-type: application\/problem\+json\r\n/i, what);
    t.match(text, /\r\nconnection: close\r\n/i, what);
    t.equal(text.match(/HTTP\/1\.1 \d/g)?.length, 1, `${what}: one answer`);
  }
}

void t.test(
  'a refused request gets its status and a problem document, and the connection is closed without reading on',
  async (t) => {
    const server = await openGuarded(t, MALFORMED_LIMITS);
    await refusesAll(t, server.port, MALFORMED_HEADS);
    t.same(server.requests, [], 'no request reached the handler');
    await refusesAll(t, server.port, MALFORMED_BODIES);
    t.same(new Set(server.requests), new Set(['POST /']), 'nor did what follows a malformed body');
    t.equal(server.reasons.length, MALFORMED_HEADS.length + MALFORMED_BODIES.length, 'and each was counted once');
  },
);

void t.test(
  'good requests pass: keep-alive, pipelined, chunked, absolute, HTTP/1.0, with an upgrade that is ignored',
  async (t) => {
    const server = await openGuarded(t);
    const text = await exchangeRaw(
      server.port,
      [
        head('GET /1 HTTP/1.1', 'Host: a'),
        `${head('POST /2 HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked')}3\r\nabc\r\n0\r\n\r\n`,
        head('GET http://a/3 HTTP/1.1', 'Host: a'),
        head('OPTIONS * HTTP/1.1', 'Host: a'),
        head('GET /4 HTTP/1.1', 'Host: a', 'Upgrade: h2c', 'Connection: Upgrade'),
      ].join(''),
    );
    t.equal(text.match(/HTTP\/1\.1 200/g)?.length, 5);
    t.match(await exchangeRaw(server.port, head('GET /5 HTTP/1.0')), /200/);
    t.same(server.requests, ['GET /1', 'POST /2', 'GET http://a/3', 'OPTIONS *', 'GET /4', 'GET /5']);
    t.same(server.reasons, []);
  },
);

void t.test('a request whose turn never comes, because the one before it ends the connection, ends too', async (t) => {
  const { log } = testDeps();
  const responses: ServerResponse[] = [];
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    limits: configured(limitsSection, { closeWithinMs: 0 }),
    clock: systemClock,
    log,
    onRequest: (_request, response) => void responses.push(response),
  });
  t.teardown(() => listener.close());
  const raw = await connectRaw(listener.port);
  const request = head('GET / HTTP/1.1', 'Host: a');
  raw.write(request + request + request);
  await until('all of them', () => responses.length === 3);
  const over = Promise.all(responses.map((response) => once(response, 'close')));
  responses[1]?.end('waits for its turn');
  responses[0]?.writeHead(200, { connection: 'close' }).end('last');
  await over;
  t.same(
    responses.map(({ writableFinished }) => writableFinished),
    [true, false, false],
  );
  t.match(await raw.whole(), /\r\n\r\n[\s\S]*last/);
  t.notMatch(raw.text, /turn/);
});

void t.test('a fault in the body breaks the connection without a second answer', async (t) => {
  const server = await openGuarded(t);
  const broken = await exchangeRaw(
    server.port,
    `${head('POST /begun HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked')}3\r\nabc\r\nxyz\r\n`,
  );
  t.equal(broken.match(/HTTP\/1\.1 /g)?.length ?? 0, broken === '' ? 0 : 1);
  t.notMatch(broken, /400/);
  const early = await exchangeRaw(
    server.port,
    `${head('POST /waiting HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked')}zzz\r\n`,
  );
  t.match(early, /^HTTP\/1\.1 400 /);
});

void t.test('slow heads, silent connections and stalled bodies are ended', async (t) => {
  const server = await openGuarded(t, { headersWithinMs: 500, stalledMs: 1_500 });
  const [slow, silent] = await Promise.all([
    exchangeRaw(server.port, 'GET / HTTP/1.1\r\nHost: a\r\nX-Slow: '),
    exchangeRaw(server.port, ''),
  ]);
  t.match(slow, /^HTTP\/1\.1 408 /);
  t.match(silent, /^HTTP\/1\.1 408 |^$/);
  const stalled = await connectRaw(server.port);
  stalled.write(`${head('POST /stalled HTTP/1.1', 'Host: a', 'Content-Length: 10')}abc`);
  await stalled.closed;
  t.notMatch(stalled.text, /200/);
});

void t.test('one client has a limited number of connections, until it closes some', async (t) => {
  const server = await openGuarded(t, { connectionsPerClientMax: 2 });
  const first = await connectRaw(server.port);
  const second = await connectRaw(server.port);
  const third = await connectRaw(server.port);
  await third.closed;
  t.match(third.text, /^HTTP\/1\.1 503 /);
  t.same(server.reasons, ['connections']);
  first.write(head('GET / HTTP/1.1', 'Host: a'));
  await first.until(/answer/);
  second.socket.destroy();
  let fourth = '';
  for (let attempt = 0; attempt < 100 && !fourth.includes('answer'); attempt += 1) {
    fourth = await exchangeRaw(server.port, head('GET / HTTP/1.1', 'Host: a', 'Connection: close'));
  }
  t.match(fourth, /answer/);
  // One that has closed makes room for one, and for no more.
  const open = [first];
  for (let attempt = 0; attempt < 100 && open.length < 2; attempt += 1) {
    const raw = await connectRaw(server.port);
    raw.write(head('GET / HTTP/1.1', 'Host: a'));
    if (/ 200 /.test(await raw.until(/ (?:200|503) /))) open.push(raw);
  }
  t.equal(open.length, 2);
  const further = await connectRaw(server.port);
  t.match(await further.whole(), /^HTTP\/1\.1 503 /);
  for (const { socket } of open) socket.destroy();
});

void t.test('an answer that fails breaks its connection, and is no refusal', async (t) => {
  const server = await openGuarded(t);
  t.equal(await exchangeRaw(server.port, head('GET /broken HTTP/1.1', 'Host: a')), '');
  t.same(server.reasons, []);
});
