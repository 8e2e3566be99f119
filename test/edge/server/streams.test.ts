/** Plain requests on HTTP/2 streams: which are plain, how each answer is written, what node:http gets, and how streams end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants, type OutgoingHttpHeaders } from 'node:http2';
import { PassThrough, Readable } from 'node:stream';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { BodyLost } from '../../../edge/cache/cache.js';
import { createStreamHeadWriter } from '../../../edge/server/fastlane/stream.js';
import { createStreamHeads } from '../../../edge/server/fastlane/stream-head.js';
import { Fault } from '../../../src/errors.js';
import { NO_BODY, type Reply } from '../../../src/http/reply.js';
import { inspectHttp2 } from '../../../src/server/hygiene.js';
import { hasOpenssl, selfSigned } from '../../kit/certificates.js';
import { ManualClock } from '../../kit/clock.js';
import { type Handler, ID, type Lane, LIMITS, openLane, replied, text } from '../../kit/edge/lane.js';
import { connectFrames, connectHttp2, FRAME, fetchHttp2, fieldBlock, frame, uint32 } from '../../kit/http/http2.js';
import { until } from '../../kit/until.js';

const skip = hasOpenssl ? false : 'there is no openssl to make certificates with';
const { NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR } = constants;

async function openStreams(t: Test, handler?: Handler) {
  const tls = selfSigned(t.testdir(), 'lane');
  const lane: Lane = await openLane(t, handler, {}, { tls });
  const client = await connectHttp2(`https://127.0.0.1:${lane.port}`, tls.cert);
  t.teardown(() => client.destroy());
  const ask = (path: string, fields: OutgoingHttpHeaders = {}) => fetchHttp2(client, { ':path': path, ...fields });
  return { lane, client, ask };
}

const pseudo = (method = 'GET', path = '/a'): readonly string[] => [
  ':method',
  method,
  ':scheme',
  'https',
  ':path',
  path,
  ':authority',
  'a:1',
];

void t.test('a head is plain or not', async (t) => {
  const read = createStreamHeads({ ...LIMITS, targetMaxBytes: 100, headersMaxCount: 5, headersMaxBytes: 400 });
  const plain: readonly (readonly string[])[] = [
    pseudo(),
    pseudo('HEAD', "/a?b=c&d=!$'()*+;[]@~%7C"),
    [...pseudo(), 'accept', 'image/webp,*/*;q=0.8', 'x-empty', '', 'priority', 'u=1'],
    [...pseudo(), 'cookie', 'a=1', 'x', 'y', 'cookie', 'b=2'],
    [...pseudo(), 'host', 'a:1', '1', '', '2', '', '3', '', '4', ''],
  ];
  const unusual: readonly (readonly string[])[] = [
    pseudo('POST'),
    pseudo('get'),
    pseudo('GET', '*'),
    pseudo('GET', 'a'),
    pseudo('GET', '/{'),
    pseudo('GET', `/${'a'.repeat(100)}`),
    pseudo().slice(2),
    pseudo().slice(0, 6),
    [...pseudo().slice(0, 6), ':authority', 'a, b'],
    [...pseudo(), ':protocol', 'websocket'],
    [...pseudo(), 'host', 'b'],
    [...pseudo(), 'host', 'a:1', 'host', 'b'],
    [...pseudo(), 'x', '1', 'x', '2'],
    [...pseudo(), 'x', 'caf\xe9'],
    [...pseudo(), 'x', ' a'],
    [...pseudo(), 'X', 'a'],
    [...pseudo(), 'x y', 'a'],
    [...pseudo(), '1', '', '2', '', '3', '', '4', '', '5', ''],
    [...pseudo(), 'x', 'y'.repeat(340)],
    ...['te', 'expect', 'content-length', 'connection', 'transfer-encoding', 'upgrade'].map((name) => [
      ...pseudo(),
      name,
      'trailers',
    ]),
  ];
  for (const raw of plain) t.ok(read(raw), JSON.stringify(raw));
  for (const raw of unusual) t.equal(read(raw), undefined, JSON.stringify(raw));
  const cookies = read(plain[3] ?? []);
  t.strictSame(cookies?.fields.lines, [
    ['host', 'a:1'],
    ['x', 'y'],
    ['cookie', 'a=1; b=2'],
  ]);
});

void t.test('requests with the same fields share them, and only those', async (t) => {
  const read = createStreamHeads(LIMITS);
  const first = read([...pseudo(), 'accept', '*/*']);
  const second = read([...pseudo('HEAD', '/b'), 'accept', '*/*']);
  t.match([second?.method, second?.target], ['HEAD', '/b']);
  t.equal(second?.fields, first?.fields);
  for (const other of [
    [...pseudo(), 'accept', 'image/*'],
    [...pseudo(), 'accept-x', '*/*'],
    [...pseudo(), 'accept', '*/*', 'a', 'b'],
    [...pseudo().slice(0, 6), ':authority', 'b:1', 'accept', '*/*'],
  ]) {
    t.not(read(other)?.fields, first?.fields, JSON.stringify(other));
    read([...pseudo(), 'accept', '*/*']);
  }
});

void t.test('whatever is plain passes the inspection, with the same target and fields', async (t) => {
  const limits = { ...LIMITS, targetMaxBytes: 40, headersMaxCount: 6, headersMaxBytes: 500 };
  const name = fc.constantFrom('accept', 'host', 'x', 'authorization', 'cookie', 'te', 'expect', 'content-length', 'X');
  const value = fc.oneof(fc.constantFrom('a:1', '', ' a', 'caf\xe9', 'a, b'), fc.string({ maxLength: 60 }));
  const target = fc.oneof(
    fc.constantFrom('*', '/', 'a', '/%7C?a=[b]', `/${'a'.repeat(40)}`),
    fc.string({ maxLength: 50 }),
  );
  const method = fc.constantFrom('GET', 'HEAD', 'POST', 'get');
  const fields = fc.array(fc.tuple(name, value), { maxLength: 8 });
  fc.assert(
    fc.property(method, target, fields, (method, path, drawn) => {
      const raw = [...pseudo(method, path), ...drawn.flat()];
      const head = createStreamHeads(limits)(raw);
      if (head === undefined) return;
      const rawHeaders = head.fields.lines.flat();
      const seen = inspectHttp2({ method, target: path, rawHeaders }, limits);
      assert.equal(seen.kind, 'ok');
      assert.deepEqual([head.method, head.target], [method, path]);
    }),
  );
  t.pass();
});

void t.test('fields that many answers share are in each of them, and no answer changes them', async (t) => {
  const writer = createStreamHeadWriter();
  const leading: Reply['headers'] = [
    ['etag', '"a"'],
    ['link', '</a>'],
    ['connection', 'close'],
  ];
  const answer = (headers: Reply['headers']): Reply => ({ status: 200, leading, headers, body: NO_BODY });
  const twice = writer.write(
    answer([
      ['link', '</b>'],
      ['etag', '"b"'],
      ['transfer-encoding', 'chunked'],
    ]),
  );
  t.strictSame({ ...twice }, { etag: '"a"', link: ['</a>', '</b>'], 'content-length': '0', ':status': '200' });
  const once = writer.write(answer([['content-length', '5']]));
  t.strictSame({ ...once }, { etag: '"a"', link: '</a>', 'content-length': '5', ':status': '200' });
  t.equal(writer.write({ status: 999, headers: [], body: NO_BODY })[':status'], '502');
});

void t.test(
  'plain requests are answered here, and all others by node:http on the same session',
  { skip },
  async (t) => {
    const { lane, client, ask } = await openStreams(t);
    const first = await ask('/1');
    t.match(first, { status: 200, rstCode: 0, headers: { 'content-type': 'text/plain', 'content-length': '8' } });
    t.equal(first.bytes.toString(), 'lane /1\n');
    t.equal((await ask('/pass')).bytes.toString(), 'node /pass\n');
    t.equal((await ask('/2', { te: 'trailers' })).bytes.toString(), 'node /2\n');
    const posted = await fetchHttp2(client, { ':path': '/3', ':method': 'POST' }, Buffer.from('x'));
    t.equal(posted.bytes.toString(), 'node /3\n');
    t.equal((await ask('/4{')).status, 400);
    const head = await ask('/5', { ':method': 'HEAD' });
    t.match([head.status, head.headers['content-length'], head.bytes.length, head.rstCode], [200, '8', 0, 0]);
    t.same(lane.byNode, ['GET /pass', 'GET /2', 'POST /3']);
    t.match(lane.logged, [
      { method: 'GET', target: '/1', status: 200, outcome: 'hit_memory', sentBytes: 8, complete: true },
      { method: 'HEAD', target: '/5', status: 200, sentBytes: 0, complete: true },
    ]);
  },
);

void t.test('bodies of every size arrive whole, at once beside others', { skip }, async (t) => {
  const sizes = [0, 1, 16_383, 16_384, 16_385, 100_000, 1_048_576];
  const bytes = Buffer.alloc(1_048_576, 'abcdefg');
  const { lane, ask } = await openStreams(t, ({ path }) =>
    replied({ status: 200, headers: [], body: { kind: 'bytes', bytes: bytes.subarray(0, Number(path.slice(1))) } }, ID),
  );
  const answers = await Promise.all(sizes.map((size) => ask(`/${size}`)));
  for (const [at, size] of sizes.entries()) {
    t.ok(answers[at]?.bytes.equals(bytes.subarray(0, size)), `${size} bytes`);
    t.equal(answers[at]?.headers['content-length'], String(size));
  }
  await until('the log', () => lane.logged.length === sizes.length);
  t.same(new Set(lane.logged.map(({ sentBytes }) => sentBytes)), new Set(sizes));
  t.ok(lane.logged.every(({ complete }) => complete));
  t.equal(lane.held(), 0);
});

void t.test('bodies that are streams, and those that fail', { skip }, async (t) => {
  const lost = () =>
    new Readable({
      read() {
        this.destroy(new BodyLost('corrupt'));
      },
    });
  const late = (): Readable => {
    const body = new PassThrough();
    body.write('01');
    setImmediate(() => setImmediate(() => body.destroy(new BodyLost('corrupt'))));
    return body;
  };
  const bodies: Readonly<Record<string, Reply['body']>> = {
    '/known': {
      kind: 'stream',
      sizeBytes: 10,
      open: () => Readable.from([Buffer.from('01234'), Buffer.from('56789')]),
    },
    '/unknown': { kind: 'stream', sizeBytes: null, open: async () => Readable.from([Buffer.from('a')]) },
    '/lost': { kind: 'stream', sizeBytes: 3, open: lost },
    '/late': { kind: 'stream', sizeBytes: 9, open: late },
    '/closed': { kind: 'stream', sizeBytes: 3, open: () => Promise.reject(new Fault('overloaded', 'Not now.')) },
    '/none': NO_BODY,
  };
  const { lane, ask } = await openStreams(t, async ({ path }) => {
    if (path === '/thrown') throw new Fault('not_found', 'Nothing.');
    return replied({ status: 200, headers: [], body: bodies[path] ?? NO_BODY }, ID);
  });
  for (const [path, status, body, complete] of [
    ['/known', 200, /^0123456789$/, true],
    ['/unknown', 200, /^a$/, true],
    ['/lost', 502, /"code":"bad_gateway"/, true],
    ['/closed', 503, /"code":"overloaded"/, true],
    ['/thrown', 404, /"code":"not_found"/, true],
    ['/none', 200, /^$/, true],
    ['/late', 200, /^01$/, false],
  ] as const) {
    const before = lane.logged.length;
    const answer = await ask(path);
    t.match({ status: answer.status, body: answer.bytes.toString() }, { status, body }, path);
    t.equal(answer.rstCode, complete ? NGHTTP2_NO_ERROR : NGHTTP2_INTERNAL_ERROR, path);
    await until('the log', () => lane.logged.length === before + 1);
    t.match(lane.logged.at(-1), { status, complete, sentBytes: answer.bytes.length }, path);
  }
});

void t.test('a body that is lost before its first byte is a failure over node:http too', { skip }, async (t) => {
  // Its answer is written by a response of node:http, as that of every stream.
  const { ask } = await openStreams(t, () => {
    const body = new Readable({ read: () => undefined });
    body.destroy(new BodyLost('passed'));
    body.on('error', () => undefined);
    return replied({ status: 200, headers: [], body: { kind: 'stream', sizeBytes: 3, open: () => body } });
  });
  t.equal((await ask('/')).status, 502);
});

void t.test('a takedown resets what is on its way, and lets go what has left', { skip }, async (t) => {
  const { lane, client, ask } = await openStreams(t, ({ path }) =>
    replied({ ...text(''), body: { kind: 'bytes', bytes: Buffer.alloc(path === '/large' ? 900_000 : 9) } }, ID),
  );
  await ask('/');
  const stream = client.request({ ':path': '/large' });
  stream.on('error', () => undefined);
  await once(stream, 'response');
  stream.pause();
  await until('the hold', () => lane.held() === 1);
  lane.outgoing.breakOff(ID);
  stream.resume();
  await new Promise((resolve) => stream.once('close', resolve));
  t.equal(stream.rstCode, NGHTTP2_INTERNAL_ERROR);
  await until('the log', () => lane.logged.length === 2);
  t.match(lane.logged[1], { status: 200, complete: false });
  t.equal(lane.held(), 0);
});

void t.test(
  'an answer that its client does not take ends with its time, and counts as what has left',
  { skip },
  async (t) => {
    const clock = new ManualClock();
    const tls = selfSigned(t.testdir(), 'lane');
    const bytes = Buffer.alloc(20_000);
    const handler: Handler = () => replied({ ...text(''), body: { kind: 'bytes', bytes } }, ID);
    const lane = await openLane(t, handler, { stalledMs: 60_000, idleMs: 600_000 }, { tls, clock });
    const raw = await connectFrames(lane.port, tls.cert);
    t.teardown(() => raw.destroy());
    const fields = { ':method': 'GET', ':scheme': 'https', ':path': '/', ':authority': 'a' };
    // RFC 9113 6.9.2: the first piece fits the window, the second does not.
    raw.send(frame(FRAME.settings, 0, 0, Buffer.concat([Buffer.of(0, 4), uint32(17_000)])));
    raw.send(frame(FRAME.headers, 0x5, 1, fieldBlock(fields)));
    const receivedBytes = (): number =>
      raw.frames.filter(({ type }) => type === FRAME.data).reduce((sum, { payload }) => sum + payload.length, 0);
    await until('what fits the window', () => receivedBytes() === 17_000);
    clock.advance(59_999);
    raw.send(frame(FRAME.ping, 0, 0, Buffer.alloc(8)));
    await raw.came(FRAME.ping);
    t.same(lane.logged, []);
    clock.advance(1);
    await raw.came(FRAME.reset);
    await until('the log', () => lane.logged.length === 1);
    t.match(lane.logged, [{ status: 200, complete: false, sentBytes: 16_384 }]);
    t.equal(lane.held(), 0);
  },
);

void t.test(
  'answers that a client asks for and takes back are counted, with whatever code it resets them',
  { skip },
  async (t) => {
    for (const code of [constants.NGHTTP2_CANCEL, NGHTTP2_NO_ERROR]) {
      const tls = selfSigned(t.testdir(), 'lane');
      const lane = await openLane(t, undefined, {}, { tls, interruptionsMax: 20, streamsMax: 10 });
      const raw = await connectFrames(lane.port, tls.cert);
      t.teardown(() => raw.destroy());
      raw.send(frame(FRAME.settings, 0, 0, Buffer.concat([Buffer.of(0, 4), uint32(0)])));
      const fields = { ':method': 'GET', ':scheme': 'https', ':path': '/', ':authority': 'a' };
      let ended = false;
      void raw.over.then(() => (ended = true));
      const heads = (): number => raw.frames.filter(({ type }) => type === FRAME.headers).length;
      for (let number = 0; number < 40; number += 1) {
        raw.send(frame(FRAME.headers, 0x5, 2 * number + 1, fieldBlock(fields)));
        await until('an answer, or the end', () => ended || heads() > number);
        raw.send(frame(FRAME.reset, 0, 2 * number + 1, uint32(code)));
      }
      t.equal(await raw.over, constants.NGHTTP2_ENHANCE_YOUR_CALM, `with ${code}`);
      t.same(lane.reasons, ['flood']);
    }
  },
);

void t.test('the signal of a client tells that it has left, and its answer is written nowhere', { skip }, async (t) => {
  let left = (): void => undefined;
  const leaving = new Promise<void>((resolve) => (left = resolve));
  const { lane, client } = await openStreams(t, async (_request, signal) => {
    await once(signal.gone(), 'abort');
    left();
    return replied(text('late'), ID);
  });
  const stream = client.request({ ':path': '/' });
  stream.on('error', () => undefined);
  await until('the request', () => lane.requests.length === 1);
  stream.close(constants.NGHTTP2_CANCEL);
  await leaving;
  await until('the log', () => lane.logged.length === 1);
  t.match(lane.logged, [{ status: 0, complete: false, sentBytes: 0 }]);
  t.equal(lane.held(), 0);
  t.same(lane.errors(), []);
});

void t.test('interim responses go before the head, and the address is that of the connection', { skip }, async (t) => {
  const { client } = await openStreams(t, async (request) => {
    request.inform?.(102, []);
    request.inform?.(103, [
      ['link', '</a>'],
      ['x', 'y'],
    ]);
    request.inform?.(100, []);
    return replied(text(JSON.stringify(request.sender())));
  });
  const interim: unknown[] = [];
  const stream = client.request({ ':path': '/' });
  stream.on('headers', (fields) => interim.push({ status: fields[':status'], link: fields['link'] }));
  let body = '';
  for await (const chunk of stream.setEncoding('utf8')) body += String(chunk);
  t.strictSame(interim, [
    { status: 102, link: undefined },
    { status: 103, link: '</a>' },
  ]);
  t.equal(body, '{"address":"192.0.2.1","scheme":"https","peer":"127.0.0.1"}');
});
