/** HTTP/2 at the edge: answers that an origin writes with a field twice, streams that stall, and requests that are taken back. */
import { constants, type OutgoingHttpHeaders } from 'node:http2';
import t, { type Test } from 'tap';
import { systemClock } from '../../../src/clock.js';
import { tlsSection } from '../../../src/server/certificate.js';
import { limitsSection } from '../../../src/server/limits.js';
import { type ListenOptions, listen } from '../../../src/server/listen.js';
import { hasOpenssl, selfSigned, type TestCertificate } from '../../kit/certificates.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { openTestEdge, type TestEdge, type TestEdgeOptions } from '../../kit/edge/edge.js';
import {
  connectFrames,
  connectHttp2,
  FRAME,
  fetchHttp2,
  fieldBlock,
  frame,
  type RawSession,
  uint32,
} from '../../kit/http/http2.js';
import { connectRaw, requestHead } from '../../kit/http/raw.js';
import { until } from '../../kit/until.js';

const skip = hasOpenssl ? false : 'there is no openssl to make certificates with';

interface Secure {
  readonly edge: TestEdge;
  readonly port: number;
  readonly certificate: TestCertificate;
}

/** An edge without access control, for any origin. */
async function openEdge(t: Test, tls = '', options: TestEdgeOptions = {}): Promise<Secure> {
  const folder = t.testdir();
  const certificate = selfSigned(folder, 'edge');
  const files = `certificate_file: "${certificate.certFile}", key_file: "${certificate.keyFile}"`;
  const edge = await openTestEdge(folder, {
    edge: ['access: off'],
    ...options,
    tls: tls === '' ? files : `${files}, ${tls}`,
  });
  t.teardown(() => edge.close());
  return { edge, port: Number(new URL(edge.url).port), certificate };
}

async function openFrames(t: Test, port: number, certificate: TestCertificate): Promise<RawSession> {
  const raw = await connectFrames(port, certificate.cert);
  t.teardown(() => raw.destroy());
  return raw;
}

const getOf = (path: string): Buffer =>
  fieldBlock({ ':method': 'GET', ':scheme': 'https', ':path': path, ':authority': 'a' });

void t.test('requests that no client should send are refused as over HTTP/1.1', { skip }, async (t) => {
  const secure = await openEdge(t);
  const client = await connectHttp2(secure.edge.url, secure.certificate.cert);
  t.teardown(() => client.destroy());
  const rows: readonly (readonly [what: string, fields: OutgoingHttpHeaders, status: number, code: string])[] = [
    ...'\\|{}^"<>`#'
      .split('')
      .map((character) => [`${character} in the path`, { ':path': `/a${character}b` }, 400, 'malformed'] as const),
    ['{} in the query', { ':path': '/a?b={c}' }, 400, 'malformed'],
    ['a method in lower case', { ':method': 'get', ':path': '/' }, 400, 'malformed'],
    ['an unknown method', { ':method': 'BREW', ':path': '/' }, 400, 'malformed'],
    ['another Host than the authority', { ':path': '/', ':authority': 'a', host: 'b' }, 400, 'malformed'],
    ['an overlong path', { ':path': `/${'x'.repeat(9_000)}` }, 414, 'uri_too_long'],
    ['an unknown expectation', { ':path': '/', expect: '200-ok' }, 417, 'expectation_failed'],
    ['two expectations', { ':path': '/', expect: '100-continue, 200-ok' }, 417, 'expectation_failed'],
    [
      'an unknown expectation of an upload',
      { ':path': '/', ':method': 'POST', expect: 'x' },
      417,
      'expectation_failed',
    ],
  ];
  for (const [what, fields, status, code] of rows) {
    const answer = await fetchHttp2(client, fields);
    t.equal(answer.status, status, what);
    t.match(JSON.parse(answer.bytes.toString()), { status, code }, what);
    t.match(
      answer.headers,
      {
        'content-type': 'application/problem+json',
        'access-control-allow-origin': '*',
        'x-content-type-options': 'nosniff',
        connection: undefined,
      },
      what,
    );
  }
  const tunnel = await fetchHttp2(client, { ':method': 'CONNECT', ':authority': 'a:443' });
  t.equal(tunnel.status, 405, 'a tunnel');
  t.match(JSON.parse(tunnel.bytes.toString()), { status: 405, code: 'method_not_allowed' });
  t.match(tunnel.headers, { allow: 'GET, HEAD, OPTIONS', 'access-control-allow-origin': '*' });
  // nghttp2 itself ends these (RFC 9113 8.1.1).
  for (const fields of [
    { ':path': '/a b' },
    { ':path': 'http://a/b' },
    { ':path': '*' },
    { ':path': '/', ':authority': 'a, b' },
  ]) {
    const { status, rstCode } = await fetchHttp2(client, fields);
    t.same({ status, rstCode }, { status: 0, rstCode: constants.NGHTTP2_PROTOCOL_ERROR }, JSON.stringify(fields));
  }
  t.equal(secure.edge.origin.seen.length, 0);
  secure.edge.origin.on('/', (_seen, answer) => answer.end('ok'));
  const continued = await fetchHttp2(
    client,
    { ':path': '/', ':method': 'POST', expect: '100-continue' },
    Buffer.from('x'),
  );
  t.equal(continued.status, 200);
});

void t.test('a status that HTTP does not have is an error of the server', { skip }, async (t) => {
  const secure = await openEdge(t);
  const client = await connectHttp2(secure.edge.url, secure.certificate.cert);
  t.teardown(() => client.destroy());
  for (const [status, told] of [
    [599, 599],
    [600, 502],
    [999, 502],
  ] as const) {
    secure.edge.origin.on(`/${status}`, (_seen, answer) => {
      answer.head(status, { 'content-length': '5' });
      answer.end('whole');
    });
    for (const method of ['GET', 'POST']) {
      const answer = await fetchHttp2(client, { ':path': `/${status}`, ':method': method });
      t.same([answer.status, answer.rstCode, answer.bytes.toString()], [told, 0, 'whole'], `${method} ${status}`);
    }
  }
});

/** What each of two lines becomes: the value that reaches clients, or null if the field is left out. */
const TWICE: readonly (readonly [name: string, first: string, second: string, kept: string | null])[] = [
  ['etag', '"a"', '"a"', '"a"'],
  ['etag', '"a"', '"b"', null],
  ['last-modified', 'Wed, 01 Jan 2025 00:00:00 GMT', 'Wed, 01 Jan 2025 00:00:00 GMT', 'Wed, 01 Jan 2025 00:00:00 GMT'],
  ['last-modified', 'Wed, 01 Jan 2025 00:00:00 GMT', 'Thu, 02 Jan 2025 00:00:00 GMT', null],
  ['expires', 'Thu, 01 Jan 2099 00:00:00 GMT', 'Thu, 01 Jan 2099 00:00:00 GMT', 'Thu, 01 Jan 2099 00:00:00 GMT'],
  ['expires', 'Thu, 01 Jan 2099 00:00:00 GMT', 'Fri, 02 Jan 2099 00:00:00 GMT', '0'],
  ['date', 'Thu, 01 Jan 2026 00:00:00 GMT', 'Thu, 01 Jan 2026 00:00:01 GMT', 'Thu, 01 Jan 2026 00:00:00 GMT'],
  ['content-type', 'text/plain', 'text/html', 'text/plain'],
  ['location', '/a', '/b', '/a'],
  ['content-location', '/a', '/b', '/a'],
  ['retry-after', '1', '2', '1'],
  ['age', '1', '2', '1'],
  ['content-language', 'en', 'de', 'en, de'],
  ['x-content-type-options', 'nosniff', 'nosniff', 'nosniff'],
  ['access-control-max-age', '1', '2', '1'],
];

void t.test(
  'a field that the origin sends twice breaks no stream, fetched, stored or passed on',
  { skip },
  async (t) => {
    const secure = await openEdge(t);
    const { origin } = secure.edge;
    const client = await connectHttp2(secure.edge.url, secure.certificate.cert);
    t.teardown(() => client.destroy());
    for (const [at, [name, first, second, kept]] of TWICE.entries()) {
      for (const control of ['public, max-age=60', 'no-store']) {
        const path = `/${at}/${control.slice(0, 2)}`;
        origin.on(path, (_seen, answer) => {
          answer.head(200, { 'cache-control': control, 'content-length': '5', [name]: [first, second] });
          answer.end('whole');
        });
        const what = `${name}: ${first}, ${second}; ${control}`;
        for (const method of ['GET', 'GET', 'HEAD', 'POST']) {
          const answer = await fetchHttp2(client, { ':path': path, ':method': method });
          t.match(
            { status: answer.status, reset: answer.rstCode, body: answer.bytes.toString() },
            { status: 200, reset: constants.NGHTTP2_NO_ERROR, body: method === 'HEAD' ? '' : 'whole' },
            `${method}, ${what}`,
          );
          // The edge states the age of what it stored by itself, and its own Date for what has none.
          if (name === 'age' && control !== 'no-store') continue;
          t.same(answer.headers[name] ?? null, kept, `${method}, ${what}`);
        }
      }
    }
  },
);

void t.test('nor is it sent twice over HTTP/1.1, from either lane', { skip }, async (t) => {
  const secure = await openEdge(t);
  for (const [at, [name, first, second, kept]] of TWICE.entries()) {
    if (name === 'age' || name === 'content-language') continue;
    secure.edge.origin.on(`/${at}`, (_seen, answer) => {
      answer.head(200, { 'cache-control': 'public, max-age=60', 'content-length': '5', [name]: [first, second] });
      answer.end('whole');
    });
    for (const method of ['GET', 'POST']) {
      const raw = await connectRaw(secure.port, { ca: secure.certificate.cert, protocol: 'http/1.1' });
      raw.write(requestHead(method, `/${at}`, method === 'POST' ? { 'content-length': 0 } : {}));
      const text = await raw.until(/\r\n\r\nwhole$/);
      const lines = text.split('\r\n').filter((line) => line.toLowerCase().startsWith(`${name}:`));
      t.same(
        lines.map((line) => line.slice(name.length + 2)),
        kept === null ? [] : [kept],
        `${method}, ${name}: ${first}, ${second}`,
      );
      raw.socket.destroy();
    }
  }
});

async function openListener(
  t: Test,
  over: Pick<ListenOptions, 'onRequest'> & Partial<ListenOptions>,
  tls: Readonly<Record<string, number>> = {},
): Promise<{ readonly port: number; readonly certificate: TestCertificate }> {
  const certificate = selfSigned(t.testdir(), 'edge');
  const files = { certificateFile: certificate.certFile, keyFile: certificate.keyFile };
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    tls: configured(tlsSection, { ...files, ...tls }),
    limits: configured(limitsSection, { closeWithinMs: 0 }),
    clock: systemClock,
    log: testDeps().log,
    ...over,
  });
  t.teardown(() => listener.close());
  return { port: listener.port, certificate };
}

void t.test('a stream that stalls ends, whatever moves beside it, and one that moves goes on', { skip }, async (t) => {
  const clock = new ManualClock();
  const limits = configured(limitsSection, { closeWithinMs: 0, stalledMs: 60_000, idleMs: 3_600_000 });
  let more = (): void => undefined;
  const { port, certificate } = await openListener(t, {
    clock,
    limits,
    onRequest(request, response) {
      if (request.url === '/upload') request.resume();
      else if (request.url === '/stalled') response.end(Buffer.alloc(1_000));
      else {
        response.write('x');
        more = () => response.write('x');
      }
    },
  });
  const raw = await openFrames(t, port, certificate);
  // RFC 9113 6.9.2: a window of ten bytes for each stream.
  raw.send(frame(FRAME.settings, 0, 0, Buffer.concat([Buffer.of(0, 4), uint32(10)])));
  const post = fieldBlock({ ':method': 'POST', ':scheme': 'https', ':path': '/upload', ':authority': 'a' });
  raw.send(frame(FRAME.headers, 0x5, 1, getOf('/stalled')), frame(FRAME.headers, 0x5, 3, getOf('/moving')));
  raw.send(frame(FRAME.headers, 0x4, 5, post), frame(FRAME.headers, 0x4, 7, post));
  const dataOf = (stream: number): number =>
    raw.frames.filter((each) => each.type === FRAME.data && each.stream === stream).length;
  const ended = (): readonly number[] =>
    raw.frames.filter(({ type }) => type === FRAME.reset).map(({ stream }) => stream);
  await until('the first bytes', () => dataOf(1) === 1 && dataOf(3) === 1);
  for (let round = 1; round <= 5; round += 1) {
    clock.advance(20_000);
    more();
    // A body that moves, and frames that carry nothing for the streams that stall.
    raw.send(frame(FRAME.data, 0, 5, Buffer.from('x')));
    raw.send(...[1, 7].map((stream) => frame(FRAME.priority, 0, stream, Buffer.alloc(5))));
    raw.send(frame(FRAME.ping, 0, 0, Buffer.alloc(8)));
    await raw.came(FRAME.ping, round);
    await until('the moving stream', () => dataOf(3) === round + 1);
  }
  t.same(new Set(ended()), new Set([1, 7]), 'a download and an upload that stall');
});

void t.test('a head that never ends keeps no session, be it the first or a later one', { skip }, async (t) => {
  const limits = configured(limitsSection, { closeWithinMs: 0, headersWithinMs: 10_000, idleMs: 30_000 });
  for (const before of [0, 1]) {
    const clock = new ManualClock();
    const { port, certificate } = await openListener(t, {
      clock,
      limits,
      onRequest: (_request, response) => void response.end('ok'),
    });
    const raw = await openFrames(t, port, certificate);
    if (before === 1) {
      raw.send(frame(FRAME.headers, 0x5, 1, getOf('/')));
      await raw.came(FRAME.data);
    }
    const whole = frame(FRAME.headers, 0x1, 3, Buffer.concat([getOf('/'), fieldBlock({ x: 'y'.repeat(4_000) })]));
    const over = { is: false };
    void raw.over.then(() => (over.is = true));
    const allowedMs = before === 0 ? limits.headersWithinMs : limits.idleMs;
    for (let at = 0; !over.is && at < whole.length; at += 1) {
      raw.send(whole.subarray(at, at + 1));
      clock.advance(100);
      await new Promise(setImmediate);
    }
    await raw.over;
    t.ok(clock.monotonicMs() >= allowedMs, `not before ${allowedMs} ms`);
  }
});

void t.test('a field with a line break or a NUL reaches nobody', { skip }, async (t) => {
  const secure = await openEdge(t);
  secure.edge.origin.on('*', (_seen, answer) => answer.end('ok'));
  const raw = await openFrames(t, secure.port, secure.certificate);
  const values = ['a\r\nx-smuggled: 1', 'a\nb', 'a\rb', 'a\0b', '\n', '\0'];
  for (const [at, value] of values.entries()) {
    raw.send(frame(FRAME.headers, 0x5, 2 * at + 1, Buffer.concat([getOf(`/${at}`), fieldBlock({ 'x-field': value })])));
  }
  await until('the requests', () => secure.edge.origin.seen.length === values.length);
  for (const { headers } of secure.edge.origin.seen) {
    t.equal(headers['x-field'], undefined);
    t.equal(headers['x-smuggled'], undefined);
  }
});

void t.test(
  'of a thousand requests that are taken back few are started in a turn, and few at all',
  { skip },
  async (t) => {
    let turn = 0;
    let counting = true;
    const next = (): void => {
      turn += 1;
      if (counting) setImmediate(next);
    };
    setImmediate(next);
    t.teardown(() => (counting = false));
    const begun: { readonly turn: number; readonly gone: boolean }[] = [];
    const waits: number[] = [];
    const { port, certificate } = await openListener(
      t,
      {
        onRequest(request, response) {
          if (request.url === '/hit') {
            waits.push(begun.length);
            response.end('hit');
          } else begun.push({ turn, gone: response.destroyed });
        },
      },
      { interruptionsMax: 100_000, streamsMax: 10_000 },
    );
    const other = await openFrames(t, port, certificate);
    const flood = await openFrames(t, port, certificate);
    const streams = Array.from({ length: 1_000 }, (_, index) => 2 * index + 1);
    // Each record of TLS is read at once, and holds a hundred of them and more.
    flood.send(
      ...streams.flatMap((stream) => [
        frame(FRAME.headers, 0x5, stream, getOf('/slow')),
        frame(FRAME.reset, 0, stream, uint32(constants.NGHTTP2_CANCEL)),
      ]),
      frame(FRAME.ping, 0, 0, Buffer.alloc(8)),
    );
    other.send(frame(FRAME.headers, 0x5, 1, getOf('/hit')));
    await Promise.all([flood.came(FRAME.ping), other.came(FRAME.data)]);
    const perTurn = new Map<number, number>();
    for (const each of begun) perTurn.set(each.turn, (perTurn.get(each.turn) ?? 0) + 1);
    // A turn of the test's own counter may hold the end of one turn and the beginning of the next.
    t.ok(Math.max(...perTurn.values()) <= 32, `at most ${Math.max(...perTurn.values())} in a turn`);
    t.ok(begun.length < 500, `${begun.length} of 1000 were started`);
    t.notOk(
      begun.some(({ gone }) => gone),
      'none whose client had left',
    );
    t.equal(waits.length, 1);
  },
);

void t.test('requests whose client has left never reach the origin, and hold no place there', { skip }, async (t) => {
  const secure = await openEdge(t, '', { upstream: 'connections_max: 2, waiting_max: 40' });
  const { origin } = secure.edge;
  const answers: (() => void)[] = [];
  origin.on('*', (_seen, answer) => {
    answers.push(() => {
      answer.head(200, { 'cache-control': 'public, max-age=60', 'content-length': '2' });
      answer.end('ok');
    });
  });
  const holder = await connectHttp2(secure.edge.url, secure.certificate.cert);
  t.teardown(() => holder.destroy());
  const held = ['/held/1', '/held/2'].map((path) => fetchHttp2(holder, { ':path': path }));
  await Promise.all([origin.arrived('/held/1'), origin.arrived('/held/2')]);

  const leaver = await openFrames(t, secure.port, secure.certificate);
  for (let wave = 0; wave < 3; wave += 1) {
    const streams = Array.from({ length: 40 }, (_, index) => 2 * (40 * wave + index) + 1);
    leaver.send(...streams.map((stream) => frame(FRAME.headers, 0x5, stream, getOf(`/left/${stream}`))));
    await until('the requests', () => secure.edge.engine.flights.underWay >= 42);
    leaver.send(...streams.map((stream) => frame(FRAME.reset, 0, stream, uint32(constants.NGHTTP2_CANCEL))));
    await until('the end of the requests', () => secure.edge.engine.flights.underWay === 2);
  }
  const later = fetchHttp2(holder, { ':path': '/later' });
  await until('the request of the other client', () => secure.edge.engine.flights.underWay === 3);
  for (const answer of answers.splice(0)) answer();
  t.same(
    (await Promise.all(held)).map(({ status }) => status),
    [200, 200],
  );
  await origin.arrived('/later');
  for (const answer of answers.splice(0)) answer();
  t.equal((await later).status, 200);
  t.same(
    origin.seen.map(({ target }) => target).filter((target) => target.startsWith('/left')),
    [],
  );
});
