/** The fast lane: which requests are plain, what it hands over to node:http, and how its connections end. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { connect } from 'node:tls';
import * as fc from 'fast-check';
import t from 'tap';
import { BodyLost } from '../../../edge/cache/cache.js';
import type { EdgeRequest } from '../../../edge/request.js';
import { readHead } from '../../../edge/server/fastlane/head.js';
import { systemClock } from '../../../src/clock.js';
import { Fault } from '../../../src/errors.js';
import { NO_BODY, type Reply } from '../../../src/http/reply.js';
import { listen } from '../../../src/server/listen.js';
import { hasOpenssl, selfSigned } from '../../kit/certificates.js';
import { testDeps } from '../../kit/deps.js';
import { echo, get, type Handler, head, ID, type Lane, LIMITS, openLane, replied, text } from '../../kit/edge/lane.js';
import { MALFORMED_BODIES, MALFORMED_HEADS, MALFORMED_LIMITS, SMUGGLED } from '../../kit/http/malformed.js';
import { connectRaw, exchangeRaw, type RawConnection } from '../../kit/http/raw.js';
import { until } from '../../kit/until.js';

/** Bodies of the answers in a text of pipelined ones, each of which ends with a line feed. */
const bodiesIn = (received: string): readonly string[] =>
  [...received.matchAll(/\r\n\r\n((?:lane|node) [^\n]*)\n/g)].map(([, body]) => body ?? '');

void t.test('a head is plain, unusual or incomplete', async (t) => {
  const kind = (given: string): string => readHead(given, LIMITS, undefined).kind;
  const plain = [
    get('/'),
    get("/a?b=c&d=!$'()*+;[]@~%7C", 'Accept: image/webp,*/*;q=0.8', 'X-Empty:', 'X-Tab:\ta\t'),
    head('HEAD /a HTTP/1.1', 'hOST: [::1]:80', 'Connection: Keep-Alive'),
    get('/', 'Authorization: Bearer abc', 'Range: bytes=0-1', 'If-None-Match: "x", "y"'),
    get('/', 'Connection: Close'),
    `${get('/')}GET`,
  ];
  const unusual = [
    '\r\n',
    'P',
    'GET http',
    head('POST / HTTP/1.1', 'Host: a'),
    head('GET / HTTP/1.0', 'Host: a'),
    head('GET http://a/ HTTP/1.1', 'Host: a'),
    head('GET / HTTP/1.1'),
    head('GET /  HTTP/1.1', 'Host: a'),
    ...'\\|{}^"<>`#'.split('').map((character) => get(`/a?b=${character}`)),
    'GET / HTTP/1.1\n',
    'GET / HTTP/1.1\r\nHost: a\nX',
    head('GET /caf\xe9 HTTP/1.1', 'Host: a'),
    get('/', 'Content-Length: 0'),
    get('/', 'Transfer-Encoding: chunked'),
    get('/', 'Expect: 100-continue'),
    get('/', 'Upgrade: h2c', 'Connection: Upgrade'),
    get('/', 'Connection: close, keep-alive'),
    get('/', 'Connection: x'),
    get('/', 'Accept: a', 'accept: b'),
    get('/', 'Host: a'),
    get('/', 'X: caf\xc3\xa9'),
    get('/', 'X: a\rb'),
    get('/', 'X: a\nY: b'),
    get('/', 'X : a'),
    get('/', ' folded'),
    get('/', 'X: 1', '\tfolded'),
    get('/', 'no colon'),
    get(`/${'x'.repeat(LIMITS.targetMaxBytes)}`),
    get('/', ...Array.from({ length: LIMITS.headersMaxCount }, (_, at) => `X${at}: y`)),
    get('/', `X: ${'y'.repeat(LIMITS.headersMaxBytes)}`),
    `GET / HTTP/1.1\r\nX: ${'y'.repeat(LIMITS.headersMaxBytes)}`,
  ];
  for (const given of plain) t.equal(kind(given), 'plain', given.slice(0, 60));
  for (const given of unusual) t.equal(kind(given), 'unusual', given.slice(0, 60));
  for (const [, bytes] of [...MALFORMED_HEADS, ...MALFORMED_BODIES]) {
    t.not(readHead(bytes + SMUGGLED, { ...LIMITS, ...MALFORMED_LIMITS }, undefined).kind, 'plain', bytes.slice(0, 60));
  }
  const whole = get('/a', 'X: y');
  for (let length = 1; length < whole.length; length += 1) {
    t.equal(kind(whole.slice(0, length)), 'incomplete', `${length} bytes`);
  }
});

void t.test('fields that are repeated on a connection are not parsed again', async (t) => {
  const first = readHead(get('/1', 'X: y'), LIMITS, undefined);
  assert.ok(first.kind === 'plain');
  const same = readHead(get('/2', 'X: y'), LIMITS, first.fields);
  const other = readHead(get('/3', 'X: z'), LIMITS, first.fields);
  assert.ok(same.kind === 'plain' && other.kind === 'plain');
  t.equal(same.fields, first.fields);
  t.equal(other.fields.values.get('x'), 'z');
});

void t.test('a plain head is read as node:http reads it', async (t) => {
  const seen: { method: string; target: string; headers: unknown }[] = [];
  const door = await listen({
    host: '127.0.0.1',
    port: 0,
    limits: { ...LIMITS, ...MALFORMED_LIMITS },
    clock: systemClock,
    log: testDeps().log,
    onRequest(request, response) {
      seen.push({ method: request.method ?? '', target: request.url ?? '', headers: { ...request.headers } });
      response.end();
    },
  });
  t.teardown(() => door.close());
  const piece = fc.constantFrom(
    'GET /',
    'HEAD /x',
    'GET',
    ' ',
    '/',
    ' HTTP/1.1',
    '\r\n',
    '\n',
    '\r',
    'Host: a',
    'host:b',
    'X-Y:',
    ': ',
    '\t',
    'Accept: */*',
    'Cookie: a=b; c',
    'Content-Length: 0',
    'Connection: keep-alive',
    'Connection: close',
    'Transfer-Encoding: chunked',
    '\x00',
    '\x7f',
    '\xe9',
    '#',
    '?q=%20',
    ',',
  );
  const fieldLine = fc
    .tuple(fc.constantFrom('X', 'Accept', 'x-y', 'Cookie', 'If-None-Match'), fc.array(piece, { maxLength: 3 }))
    .map(([name, value]) => `${name}: ${value.join('')}`);
  const nearlyPlain = fc
    .tuple(
      fc.constantFrom('GET', 'HEAD'),
      fc.array(piece, { maxLength: 2 }),
      fc.array(fieldLine, { maxLength: 4 }),
      fc.array(piece, { maxLength: 2 }),
    )
    .map(([method, target, fields, tail]) =>
      head(`${method} /${target.join('')} HTTP/1.1`, 'Host: a', ...fields, ...tail),
    );
  const anything = fc.array(piece, { maxLength: 14 }).map((pieces) => `${pieces.join('')}\r\n\r\n`);
  let plain = 0;
  await fc.assert(
    fc.asyncProperty(fc.oneof({ weight: 4, arbitrary: nearlyPlain }, anything), async (given) => {
      const read = readHead(given, { ...LIMITS, ...MALFORMED_LIMITS }, undefined);
      if (read.kind !== 'plain') return;
      plain += 1;
      seen.length = 0;
      const answers = await exchangeRaw(door.port, given.slice(0, read.length) + get('/end', 'Connection: close'));
      assert.equal(answers.match(/HTTP\/1\.1 200 /g)?.length, read.fields.last ? 1 : 2, JSON.stringify(given));
      assert.deepEqual(seen[0], {
        method: read.method,
        target: read.target,
        headers: Object.fromEntries(read.fields.values),
      });
    }),
    { numRuns: 2_000, seed: 7 },
  );
  t.ok(plain > 100, `${plain} heads were plain`);
});

void t.test(
  'plain requests are answered in order; a request that is not plain goes to node:http with all that follow',
  async (t) => {
    const lane = await openLane(t);
    const sent = [
      get('/1'),
      head('HEAD /2 HTTP/1.1', 'Host: a'),
      get('/3'),
      `${head('POST /4 HTTP/1.1', 'Host: a', 'Content-Length: 3')}abc`,
      get('/5'),
      get('/6', 'Connection: close'),
    ].join('');
    const received = await exchangeRaw(lane.port, sent);
    t.same(bodiesIn(received), ['lane /1', 'lane /3', 'node /4', 'node /5', 'node /6']);
    t.match(received, /^HTTP\/1\.1 200 OK\r\ncontent-type: text\/plain\r\ncontent-length: 8\r\ndate: [^\r]+ GMT\r\n/);
    t.match(received, /\r\nconnection: keep-alive\r\nkeep-alive: timeout=65\r\n\r\nlane \/1\n/);
    t.same(lane.requests, ['GET /1', 'HEAD /2', 'GET /3', 'POST /4', 'GET /5', 'GET /6']);
    t.equal(lane.tally.counts.hit_memory.requests, 3);
    t.match(lane.logged[0], { requestId: 'made-here', method: 'GET', target: '/1', status: 200, complete: true });

    await t.test('wherever the bytes are cut into pieces', async (t) => {
      const short = get('/1') + get('/pass') + get('/2', 'Connection: close');
      for (let at = 1; at < short.length; at += 1) {
        const raw = await connectRaw(lane.port);
        raw.write(short.slice(0, at));
        await new Promise(setImmediate);
        raw.write(short.slice(at));
        assert.deepEqual(bodiesIn(await raw.whole()), ['lane /1', 'node /pass', 'node /2'], `cut at ${at}`);
      }
      t.pass('all cuts give the same answers');
    });
  },
);

void t.test('a request that says close is answered, and the connection ends without a further answer', async (t) => {
  const large = Buffer.alloc(20_000_000, 'x');
  const lane = await openLane(t, (request) => {
    if (request.target === '/bytes') return replied({ ...text(''), body: { kind: 'bytes', bytes: large } });
    if (request.target === '/stream') {
      const open = () => Readable.from([large.subarray(0, 1_000_000), large.subarray(1_000_000)]);
      return replied({ ...text(''), body: { kind: 'stream', sizeBytes: large.length, open } });
    }
    return echo(request);
  });
  for (const target of ['/small', '/bytes', '/stream']) {
    const raw = await connectRaw(lane.port);
    raw.write(get('/before') + get(target, 'Connection: close') + get('/after'));
    const received = await raw.whole();
    const [, before = '', answer = ''] = received.split('HTTP/1.1 200 OK\r\n');
    t.match(before, /connection: keep-alive\r\n/);
    t.match(answer, /\r\nconnection: close\r\n\r\n/);
    t.notMatch(answer.slice(0, 500), /keep-alive/);
    const length = answer.length - answer.indexOf('\r\n\r\n') - 4;
    t.equal(length, target === '/small' ? 'lane /small\n'.length : large.length, 'all of the answer arrives');
    raw.socket.destroy();
  }
  t.same(
    lane.requests.filter((request) => !request.endsWith('/before')),
    ['GET /small', 'GET /bytes', 'GET /stream'],
  );
  t.same(lane.byNode, []);
  t.ok(lane.logged.every(({ complete }) => complete));
  t.same(bodiesIn(await exchangeRaw(lane.port, get('/pass', 'Connection: close') + get('/after'))), ['node /pass']);
});

void t.test('health is answered here, and a well-formed request id of the client is kept', async (t) => {
  const lane = await openLane(t, ({ requestId }) => replied(text(`lane ${requestId}\n`)));
  const received = await exchangeRaw(
    lane.port,
    [
      get('/healthz'),
      get('/readyz'),
      get('/', 'X-Request-Id: a-good-request-id'),
      get('/', 'X-Request-Id: no'),
      get('/', 'Connection: close'),
    ].join(''),
  );
  t.match(received, /alive.*ready.*lane a-good-request-id\n.*lane made-here\n/s);
  t.equal(lane.tally.counts.own.requests, 2);
});

function lostBody(): Readable {
  return new Readable({
    read() {
      this.destroy(new BodyLost('corrupt'));
    },
  });
}

void t.test('bodies that are streams', async (t) => {
  const bodies: Record<string, Reply['body']> = {
    '/known': {
      kind: 'stream',
      sizeBytes: 10,
      open: () => Readable.from([Buffer.from('01234'), Buffer.from('56789')]),
    },
    '/unknown': { kind: 'stream', sizeBytes: null, open: () => Readable.from([Buffer.from('abc'), Buffer.from('de')]) },
    '/empty': { kind: 'stream', sizeBytes: null, open: () => Readable.from([]) },
    '/short': { kind: 'stream', sizeBytes: 10, open: () => Readable.from([Buffer.from('01234')]) },
    '/long': { kind: 'stream', sizeBytes: 3, open: () => Readable.from([Buffer.from('01234')]) },
    '/longer': { kind: 'stream', sizeBytes: 3, open: () => Readable.from([Buffer.from('01'), Buffer.from('234')]) },
    '/lost': { kind: 'stream', sizeBytes: 3, open: () => lostBody() },
    '/closed': { kind: 'stream', sizeBytes: 3, open: () => Promise.reject(new Fault('overloaded', 'Not now.')) },
    '/none': NO_BODY,
  };
  const lane = await openLane(t, ({ path }) => replied({ status: 200, headers: [], body: bodies[path] ?? NO_BODY }));
  const end = get('/none', 'Connection: close');

  await t.test('are framed by their length or in chunks', async (t) => {
    const received = await exchangeRaw(lane.port, get('/known') + get('/unknown') + get('/empty') + end);
    t.match(received, /\r\ncontent-length: 10\r\n.*\r\n\r\n0123456789HTTP/s);
    t.match(received, /\r\ntransfer-encoding: chunked\r\n.*\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nHTTP/s);
    t.match(received, /\r\ntransfer-encoding: chunked\r\n.*\r\n\r\n0\r\n\r\nHTTP/s);
    t.equal(received.match(/HTTP\/1\.1 200 OK/g)?.length, 4);
  });

  await t.test('break the connection if they turn out too short or too long on their way', async (t) => {
    for (const [target, expected] of [
      ['/short', /\r\ncontent-length: 10\r\n.*\r\n\r\n01234$/s],
      ['/longer', /\r\ncontent-length: 3\r\n.*\r\n\r\n01$/s],
    ] as const) {
      const received = await exchangeRaw(lane.port, get(target) + end);
      t.notMatch(received, /HTTP.*HTTP/s, `${target}: nothing follows`);
      t.match(received, expected, `${target}: it does not look complete`);
    }
  });

  await t.test('are answered with a problem if they fail before their first byte', async (t) => {
    const failed = lane.tally.counts.failed.requests;
    for (const [target, status] of [
      ['/long', 500],
      ['/lost', 502],
    ] as const) {
      const received = await exchangeRaw(lane.port, get(target) + end);
      t.match(
        received,
        new RegExp(`^HTTP/1\\.1 ${status} .*application/problem\\+json.*HTTP/1\\.1 200 OK`, 's'),
        target,
      );
    }
    t.equal(lane.tally.counts.failed.requests - failed, 2);
  });

  await t.test('are answered with a problem if they cannot be opened', async (t) => {
    const failed = lane.tally.counts.failed.requests;
    const received = await exchangeRaw(lane.port, get('/closed') + end);
    t.match(received, /^HTTP\/1\.1 503 .*application\/problem\+json.*"code":"overloaded".*HTTP\/1\.1 200 OK/s);
    t.equal(lane.tally.counts.failed.requests - failed, 1);
  });

  await t.test('have no bytes for HEAD, and are not opened', async (t) => {
    const heads = ['/known', '/unknown', '/closed'].map((target) => head(`HEAD ${target} HTTP/1.1`, 'Host: a'));
    const received = await exchangeRaw(lane.port, heads.join('') + end);
    t.match(received, /content-length: 10/);
    t.notMatch(received, /chunked|01234|problem/);
    t.equal(received.match(/HTTP\/1\.1 200 OK/g)?.length, 4);
  });
});

void t.test(
  'what the handler throws is answered with a problem, and logged if it is an error of the edge',
  async (t) => {
    const lane = await openLane(t, ({ path }) => {
      if (path === '/fault') throw new Fault('not_found', 'There is nothing here.');
      if (path === '/later') return Promise.reject(new Error('inner words'));
      if (path === '/split') {
        return replied({ status: 200, headers: [['x', 'a\r\nset-cookie: b']], body: NO_BODY });
      }
      return replied(text('lane fine\n'));
    });
    const received = await exchangeRaw(
      lane.port,
      get('/fault') + get('/later') + get('/split') + get('/') + get('/', 'Connection: close'),
    );
    t.match(received, /^HTTP\/1\.1 404 .*HTTP\/1\.1 500 .*HTTP\/1\.1 500 .*lane fine/s);
    t.notMatch(received, /inner words|set-cookie/);
    t.equal(lane.errors().length, 2);
  },
);

void t.test('a client that does not read', async (t) => {
  const large = Buffer.alloc(4_000_000, 'x');

  /** Requests more than all socket buffers hold, and reads nothing. */
  async function unread(lane: Lane): Promise<RawConnection> {
    const raw = await connectRaw(lane.port);
    raw.socket.pause();
    raw.write(get('/large').repeat(8));
    return raw;
  }

  await t.test('gets no further answer, and gets all of them once it reads', async (t) => {
    const lane = await openLane(t, () => replied({ ...text(''), body: { kind: 'bytes', bytes: large } }, ID));
    const raw = await unread(lane);
    await until('the first answer', () => lane.requests.length > 0);
    for (let turn = 0; turn < 50; turn += 1) await new Promise(setImmediate);
    t.ok(lane.requests.length < 8, `${lane.requests.length} of 8 were answered`);
    raw.socket.resume();
    await until('all of them', () => lane.logged.length === 8);
    t.ok(lane.logged.every(({ complete }) => complete));
    t.equal(lane.byNode.length, 0);
    raw.socket.destroy();
  });

  await t.test('does not get the rest of media that are taken down', async (t) => {
    const lane = await openLane(t, () => replied({ ...text(''), body: { kind: 'bytes', bytes: large } }, ID));
    const raw = await unread(lane);
    await until('an answer', () => lane.requests.length > 0);
    await new Promise(setImmediate);
    lane.outgoing.breakOff(ID);
    raw.socket.resume();
    await raw.closed;
    await until('its end', () => lane.logged.length > 0);
    t.match(lane.logged.at(-1), { complete: false, status: 200 });
    t.ok(raw.text.length < 8 * large.length, 'it did not get all bytes');
  });

  await t.test('loses its connection when no byte has moved for too long', async (t) => {
    const handler: Handler = () => replied({ ...text(''), body: { kind: 'bytes', bytes: Buffer.alloc(20_000_000) } });
    const lane = await openLane(t, handler, { stalledMs: 200 });
    const raw = await unread(lane);
    await until('its end', () => lane.logged.length === 1);
    t.match(lane.logged, [{ complete: false }]);
    raw.socket.destroy();
  });
});

void t.test('a client that leaves ends the work that is done for it alone', async (t) => {
  const left: string[] = [];
  const lane = await openLane(t, (request, client) => {
    const signal = client.gone();
    return new Promise((_, reject) => {
      signal.addEventListener('abort', () => {
        left.push(request.target);
        reject(new Error('left'));
      });
    });
  });
  for (const way of ['end', 'reset'] as const) {
    const raw = await connectRaw(lane.port);
    raw.write(get(`/${way}`));
    await until('the request', () => lane.requests.includes(`GET /${way}`));
    raw[way]();
    await until(`the end by ${way}`, () => left.includes(`/${way}`));
    raw.socket.destroy();
  }
  await until('both lines', () => lane.logged.length === 2);
  t.match(lane.logged, [
    { status: 0, complete: false },
    { status: 0, complete: false },
  ]);
});

/** Sends the first request of a lane and leaves before the answer. */
async function askAndLeave(lane: Lane, target: string): Promise<void> {
  const raw = await connectRaw(lane.port);
  raw.write(get(target));
  await until('the request', () => lane.requests.length === 1);
  raw.reset();
  await until('its end', () => lane.logged.length === 1);
}

void t.test('a body for a client that has left meanwhile is closed', async (t) => {
  const body = new Readable({ read: () => undefined });
  let go = (): void => undefined;
  const lane = await openLane(
    t,
    () =>
      new Promise((resolve) => {
        const reply: Reply = { status: 200, headers: [], body: { kind: 'stream', sizeBytes: 5, open: () => body } };
        go = () => resolve(replied(reply));
      }),
  );
  await askAndLeave(lane, '/');
  go();
  await until('the end of the body', () => body.destroyed);
  t.match(lane.logged, [{ status: 0, complete: false }]);
});

void t.test('a body that fails because its client has left breaks nothing else', async (t) => {
  let go = (): void => undefined;
  const lane = await openLane(t, (request, client) => {
    if (request.target !== '/body') return echo(request);
    return new Promise((resolve) => {
      go = () => {
        // The cache opens an arriving body like this: with the answer, under the signal of its reader.
        const body = new Readable({ read: () => undefined, signal: client.gone() });
        resolve(replied({ status: 200, headers: [], body: { kind: 'stream', sizeBytes: 5, open: () => body } }));
      };
    });
  });
  await askAndLeave(lane, '/body');
  go();
  t.match(await exchangeRaw(lane.port, get('/', 'Connection: close')), /lane \//, 'the process goes on');
});

void t.test('interim responses are sent on, with their Link fields only', async (t) => {
  const lane = await openLane(t, async (request) => {
    request.inform?.(103, [
      ['link', '</a>; rel=preload'],
      ['x', 'y'],
    ]);
    request.inform?.(100, []);
    return replied(text('lane late\n'));
  });
  const received = await exchangeRaw(lane.port, get('/') + head('POST /end HTTP/1.1', 'Host: a', 'Connection: close'));
  t.match(received, /^HTTP\/1\.1 103 Early Hints\r\nlink: <\/a>; rel=preload\r\n\r\nHTTP\/1\.1 200 OK\r\n/);
});

void t.test('every wait for a client has a limit', async (t) => {
  const lane = await openLane(t, echo, { headersWithinMs: 1_000, idleMs: 300 });

  await t.test('a head that does not arrive in time, with or without a first part', async (t) => {
    const [slow, silent] = await Promise.all([
      exchangeRaw(lane.port, 'GET / HTTP/1.1\r\nHost: a\r\nX-Slow: '),
      exchangeRaw(lane.port, ''),
    ]);
    t.match(slow, /^HTTP\/1\.1 408 /);
    t.match(silent, /^HTTP\/1\.1 408 /);
    t.same(lane.reasons, ['slow', 'slow'], 'each is counted');
  });

  await t.test('the next request of a connection, and the second half of one', async (t) => {
    const idle = await connectRaw(lane.port);
    idle.write(get('/1'));
    await idle.closed;
    t.same(bodiesIn(idle.text), ['lane /1']);
    t.notMatch(idle.text, /408/, 'an idle connection ends without a response');
    const begun = await connectRaw(lane.port);
    begun.write(`${get('/1')}GET /2 HTT`);
    t.match(await begun.whole(), /lane \/1\n.*HTTP\/1\.1 408 /s);
  });
});

void t.test('the same over TLS', { skip: hasOpenssl ? false : 'there is no openssl' }, async (t) => {
  const certificate = selfSigned(t.testdir(), 'lane');
  const large = Buffer.alloc(3_000_000, 'x');
  const handler: Handler = (request) =>
    request.target === '/large' ? replied({ ...text(''), body: { kind: 'bytes', bytes: large } }) : echo(request);
  const lane = await openLane(t, handler, {}, { tls: certificate });
  const client = connect({ port: lane.port, host: '127.0.0.1', ca: certificate.cert, ALPNProtocols: ['http/1.1'] });
  await once(client, 'secureConnect');
  let received = '';
  client.on('data', (chunk: Buffer) => (received += chunk.toString('latin1')));
  client.pause();
  client.write(get('/1') + get('/large') + get('/large') + get('/pass') + get('/2', 'Connection: close'));
  await until('the first large one', () => lane.requests.includes('GET /large'));
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  t.notOk(lane.requests.includes('GET /pass'), 'no further answer while the client does not read');
  client.resume();
  await once(client, 'end');
  client.destroy();
  t.same(bodiesIn(received), ['lane /1', 'node /pass', 'node /2']);
  t.equal(received.split(large.toString('latin1')).length, 3, 'both large bodies are complete');
});

void t.test('a lane that closes ends idle connections, and the others after their answer', async (t) => {
  let finish = (): void => undefined;
  const lane = await openLane(
    t,
    ({ path }) =>
      path === '/slow'
        ? new Promise((resolve) => (finish = () => resolve(replied(text('lane slow\n')))))
        : echo({ target: path } as EdgeRequest),
    { closeWithinMs: 5_000 },
  );
  const idle = await connectRaw(lane.port);
  idle.write(get('/1'));
  await idle.until(/lane \/1/);
  const busy = await connectRaw(lane.port);
  busy.write(get('/slow') + get('/never'));
  await until('the request that waits', () => lane.requests.includes('GET /slow'));
  const closed = lane.listener.close();
  t.equal(await idle.closed, 'ended', 'an idle connection ends');
  finish();
  const received = await busy.whole();
  t.match(received, /\r\nconnection: close\r\n\r\nlane slow\n$/, 'the answer that had begun is the last');
  t.notOk(lane.requests.includes('GET /never'));
  await closed;
});

void t.test('too many connections are refused before the lane sees them', async (t) => {
  const lane = await openLane(t, echo, { connectionsPerClientMax: 1 });
  const first = await connectRaw(lane.port);
  first.write(get('/1'));
  await first.until(/lane \/1/);
  const second = await connectRaw(lane.port);
  second.write(get('/2'));
  t.match(await second.whole(), /^HTTP\/1\.1 503 /);
  t.same(lane.requests, ['GET /1']);
  first.socket.destroy();
});

void t.test('malformed requests are refused as without the lane, and what follows is never read', async (t) => {
  const lane = await openLane(t, echo, MALFORMED_LIMITS);
  for (const [what, bytes, status] of [...MALFORMED_HEADS, ...MALFORMED_BODIES]) {
    for (const before of ['', get('/before')]) {
      const received = await exchangeRaw(lane.port, before + bytes + SMUGGLED);
      const statuses = [...received.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, each]) => each);
      t.same(statuses, [...(before === '' ? [] : ['200']), String(status)], what);
    }
  }
  t.same(new Set(lane.requests), new Set(['GET /before', 'POST /']));
});
