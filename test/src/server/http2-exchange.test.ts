/** One HTTP/2 stream as a request and response of node:http, over a stream that notes what is done with it. */
import type { ServerResponse } from 'node:http';
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import t from 'tap';
import { http2Exchange, isHttp2, PIECE_BYTES, sentMeter } from '../../../src/server/http2.js';

class Stream extends Duplex {
  endAfterHeaders = false;
  rstCode: number = constants.NGHTTP2_NO_ERROR;
  aborted = false;
  /** Heads, informational heads, pieces and resets, in their order. */
  readonly done: unknown[] = [];
  /** Writes wait until the test lets them go, if it wants so. */
  held: (() => void)[] | undefined;

  resumed = 0;
  #closed = false;

  constructor() {
    super({ autoDestroy: false });
    Object.defineProperty(this, 'closed', { get: () => this.#closed });
    this.on('error', () => undefined);
  }

  /** As the client or the session ends it. */
  shut(): void {
    this.#closed = true;
    this.emit('close');
  }

  override resume(): this {
    this.resumed += 1;
    return super.resume();
  }

  respond(fields: object): void {
    this.done.push(['respond', { ...fields }]);
  }

  additionalHeaders(fields: object): void {
    this.done.push(['inform', { ...fields }]);
  }

  close(code: number): void {
    this.done.push(['close', code]);
  }

  override _read(): void {
    // The test pushes.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.done.push(['write', chunk.length]);
    if (this.held === undefined) done();
    else this.held.push(done);
  }
}

const GET: IncomingHttpHeaders = { ':method': 'GET', ':path': '/a?b', ':scheme': 'https', ':authority': 'h:1' };

function exchange(
  fields: object = GET,
  raw: readonly string[] = [],
  prepare: (stream: Stream) => void = () => undefined,
) {
  const stream = new Stream();
  prepare(stream);
  const moved = { times: 0 };
  const socket = { bytesWritten: 100 };
  const made = http2Exchange(
    stream as unknown as ServerHttp2Stream,
    fields as IncomingHttpHeaders,
    raw,
    socket as Socket,
    () => {
      moved.times += 1;
    },
  );
  return { stream, moved, socket, ...made };
}

const bodiless = (stream: Stream): void => {
  stream.endAfterHeaders = true;
};
const turn = (): Promise<void> => new Promise(setImmediate);
const heads = (stream: Stream): readonly unknown[] => stream.done.filter((one) => (one as [string])[0] === 'respond');

void t.test('fields are those of HTTP/1.1: Host for :authority, no other pseudo-field, one cookie', async (t) => {
  const raw = [
    ':method',
    'GET',
    ':path',
    '/a?b',
    ':authority',
    'h:1',
    'host',
    'h:1',
    'cookie',
    'a=1',
    'x-a',
    '1',
    'cookie',
    'b=2',
    'host',
    'other',
  ];
  const { request, socket } = exchange({ ...GET, 'x-a': '1', cookie: 'a=1; b=2', host: 'other' }, raw, bodiless);
  t.strictSame(
    [request.method, request.url, request.httpVersion, request.httpVersionMajor, request.httpVersionMinor],
    ['GET', '/a?b', '2.0', 2, 0],
  );
  t.strictSame(request.rawHeaders, ['host', 'h:1', 'x-a', '1', 'host', 'other', 'cookie', 'a=1; b=2']);
  t.strictSame(request.headers, { 'x-a': '1', cookie: 'a=1; b=2', host: 'h:1' });
  t.equal(request.socket, socket);
  t.ok(isHttp2(request));
  t.notOk(isHttp2({}));
  const bare = exchange({ host: 'h' }, ['host', 'h', 'x-odd'], bodiless).request;
  t.strictSame([bare.method, bare.url, bare.rawHeaders, bare.headers], ['', '', ['host', 'h'], { host: 'h' }]);
});

void t.test('a request without a body is complete at once', async (t) => {
  const { request, stream } = exchange(GET, [], bodiless);
  t.ok(request.complete);
  request.resume();
  await turn();
  t.ok(request.readableEnded);
  t.notOk(stream.isPaused());
});

void t.test('a body is read as fast as the handler reads it, and counts as movement', async (t) => {
  const { request, stream, moved } = exchange();
  t.ok(stream.isPaused(), 'nothing is read before the handler reads');
  request.read(0);
  stream.push(Buffer.alloc(100_000));
  await turn();
  t.equal(moved.times, 1);
  t.ok(stream.isPaused(), 'more than the handler has room for');
  t.equal((request.read() as Buffer).length, 100_000);
  await turn();
  t.notOk(stream.isPaused());
  t.notOk(request.complete);
  stream.push(null);
  await turn();
  await turn();
  t.ok(request.complete);
  let aborted = 0;
  request.on('aborted', () => {
    aborted += 1;
  });
  request.destroy();
  stream.shut();
  t.equal(aborted, 0, 'a request that was received whole is not aborted by its end');
});

void t.test('a body that is broken off is not taken for the whole', async (t) => {
  for (const [name, breakOff] of [
    ['aborted', (stream: Stream) => (stream.aborted = true)],
    ['reset', (stream: Stream) => (stream.rstCode = constants.NGHTTP2_CANCEL)],
  ] as const) {
    const { request, stream } = exchange();
    const seen: string[] = [];
    request.on('aborted', () => seen.push('aborted')).on('end', () => seen.push('end'));
    request.resume();
    breakOff(stream);
    stream.push(null);
    await turn();
    await turn();
    t.notOk(request.complete, name);
    stream.shut();
    await turn();
    t.strictSame(seen, ['aborted'], name);
    t.ok(request.destroyed, name);
  }
});

void t.test('the rest of a body that nobody reads is discarded, unless its stream is gone', async (t) => {
  const { request, stream } = exchange();
  stream.push(Buffer.alloc(100_000));
  request.destroy();
  await turn();
  stream.push(Buffer.alloc(100_000));
  await turn();
  t.notOk(stream.isPaused());
  t.equal(stream.readableLength, 0);
  const gone = exchange();
  const before = gone.stream.resumed;
  gone.stream.destroy();
  gone.request.destroy();
  await turn();
  t.equal(gone.stream.resumed, before);
});

void t.test('a head has each field once, as HTTP/2 wants it', async (t) => {
  const { response, stream, moved } = exchange(GET, [], bodiless);
  response.setHeader('X-Set', 7);
  response.setHeader('X-List', ['a', 'b']);
  response.setHeader('X-Again', 'before');
  t.strictSame([response.getHeader('x-SET'), response.getHeader('x-none')], ['7', undefined]);
  response.writeHead(200, [
    'Content-Type',
    'text/plain',
    'content-type',
    'text/html',
    'Set-Cookie',
    'a=1',
    'set-cookie',
    'b=2',
    'Content-Encoding',
    'gzip',
    'content-encoding',
    'br',
    'Content-Language',
    'en',
    'content-language',
    'de',
    'Via',
    '1.1 a',
    'via',
    '1.1 b',
    'via',
    '1.1 c',
    'Connection',
    'close',
    'Keep-Alive',
    '1',
    'Proxy-Connection',
    'x',
    'Transfer-Encoding',
    'chunked',
    'Upgrade',
    'x',
    'HTTP2-Settings',
    'x',
    'odd',
  ]);
  t.strictSame(stream.done, [
    [
      'respond',
      {
        'x-set': '7',
        'x-list': ['a', 'b'],
        'x-again': 'before',
        'content-type': 'text/plain',
        'set-cookie': ['a=1', 'b=2'],
        'content-encoding': 'gzip, br',
        'content-language': 'en, de',
        via: ['1.1 a', '1.1 b', '1.1 c'],
        ':status': 200,
      },
    ],
  ]);
  t.equal(moved.times, 1);
  t.strictSame([response.headersSent, response.statusCode], [true, 200]);
  t.throws(() => response.writeHead(200), { message: 'the head of this answer was sent already' });
  const named = exchange(GET, [], bodiless);
  named.response.writeHead(404, { 'X-A': '1', 'X-B': undefined, 'Set-Cookie': ['a', 'b'], Upgrade: 'x' });
  t.strictSame(named.stream.done, [['respond', { 'x-a': '1', 'set-cookie': ['a', 'b'], ':status': 404 }]]);
});

void t.test('a status beyond 599 is an error of the server', async (t) => {
  for (const [status, sent] of [
    [599, 599],
    [600, 502],
    [999, 502],
  ] as const) {
    const { response, stream } = exchange(GET, [], bodiless);
    response.writeHead(status);
    t.strictSame(stream.done, [['respond', { ':status': sent }]]);
    t.equal(response.statusCode, status);
  }
});

void t.test('heads that only inform go before the head, and never after it', async (t) => {
  const { response, stream } = exchange();
  response.writeContinue();
  response.writeProcessing();
  response.writeEarlyHints({ link: '</a>; rel=preload' });
  const informed = [
    ['inform', { ':status': 100 }],
    ['inform', { ':status': 102 }],
    ['inform', { ':status': 103, link: '</a>; rel=preload' }],
  ];
  t.strictSame(stream.done, informed);
  response.flushHeaders();
  response.flushHeaders();
  response.writeContinue();
  t.strictSame(stream.done, [...informed, ['respond', { ':status': 200 }]]);
  const gone = exchange();
  gone.stream.destroy();
  gone.response.writeContinue();
  gone.response.flushHeaders();
  t.strictSame(gone.stream.done, []);
  t.ok(gone.response.headersSent);
});

void t.test('a body goes out in pieces, the next when the stream has taken the one before', async (t) => {
  const { request, response, stream, moved, socket } = exchange(GET, [], bodiless);
  stream.held = [];
  const sent = sentMeter(request, response);
  let written = false;
  response.write(Buffer.alloc(2 * PIECE_BYTES + 1), () => {
    written = true;
  });
  const pieces: unknown[] = [['respond', { ':status': 200 }]];
  for (const [size, total] of [
    [PIECE_BYTES, PIECE_BYTES],
    [PIECE_BYTES, 2 * PIECE_BYTES],
    [1, 2 * PIECE_BYTES + 1],
  ] as const) {
    pieces.push(['write', size]);
    t.strictSame(stream.done, pieces);
    t.notOk(written);
    const movedBefore = moved.times;
    stream.held.shift()?.();
    await turn();
    t.equal(sent(), total);
    t.equal(moved.times, movedBefore + 1);
  }
  t.ok(written);
  t.equal(stream.done.length, 4);
  socket.bytesWritten = 150;
  t.equal(sentMeter({ socket: socket as Socket }, {})(), 0, 'on a connection, what was sent since');
  const meter = sentMeter({ socket: socket as Socket }, {});
  socket.bytesWritten = 190;
  t.equal(meter(), 40);
  socket.bytesWritten = 20;
  t.equal(meter(), 0);
});

void t.test('the end ends the stream, with a head if there was none', async (t) => {
  const { response, stream } = exchange(GET, [], bodiless);
  t.notOk(response.finished);
  response.end();
  await turn();
  await turn();
  t.ok(response.finished);
  t.ok(response.writableFinished);
  t.ok(stream.writableFinished);
  t.strictSame(stream.done, [['respond', { ':status': 200 }]], 'and nothing resets it');
});

void t.test(
  'a client that still sends is told that no more is needed, once the answer is out (RFC 9113 8.1)',
  async (t) => {
    const { response, stream } = exchange();
    stream.held = [];
    response.end('x');
    await turn();
    t.strictSame(stream.done, [
      ['respond', { ':status': 200 }],
      ['write', 1],
    ]);
    stream.held.shift()?.();
    await turn();
    await turn();
    t.strictSame(stream.done.at(-1), ['close', constants.NGHTTP2_NO_ERROR]);
    t.equal(stream.done.length, 3);
  },
);

void t.test('an answer whose stream ended with its head takes a body without sending it', async (t) => {
  const { response, stream } = exchange(GET, [], bodiless);
  stream.held = [];
  stream.write('head');
  stream.end();
  response.end('dropped');
  await turn();
  t.strictSame(stream.done, [
    ['write', 4],
    ['respond', { ':status': 200 }],
  ]);
  t.notOk(response.writableFinished, 'not before the stream has');
  stream.held.shift()?.();
  await turn();
  await turn();
  t.ok(response.writableFinished);
  const done = exchange(GET, [], bodiless);
  done.stream.end();
  await turn();
  done.response.end();
  await turn();
  t.ok(done.response.writableFinished);
});

void t.test('what is written to a client that has left fails, and its end does if the stream was reset', async (t) => {
  const failureOf = (
    write: (response: ServerResponse, told: (error?: Error | null) => void) => void,
    rstCode: number,
  ): Promise<string | undefined> =>
    new Promise((resolve) => {
      const { response, stream } = exchange(GET, [], bodiless);
      response.writeHead(200);
      stream.rstCode = rstCode;
      stream.removeAllListeners('close');
      stream.shut();
      write(response, (error) => resolve(error?.message));
    });
  const { NGHTTP2_CANCEL, NGHTTP2_NO_ERROR } = constants;
  t.equal(await failureOf((response, told) => response.write('x', told), NGHTTP2_NO_ERROR), 'the client left');
  t.equal(await failureOf((response, told) => response.end(told), NGHTTP2_CANCEL), 'the client left');
  t.equal(await failureOf((response, told) => response.end(told), NGHTTP2_NO_ERROR), undefined);
});

void t.test('an answer that is broken off resets its stream, and a whole one does not', async (t) => {
  const broken = exchange(GET, [], bodiless);
  const seen: string[] = [];
  broken.response.on('error', () => seen.push('error')).on('close', () => seen.push('close'));
  broken.response.writeHead(200);
  broken.response.destroy(new Error('the disk failed'));
  await turn();
  t.ok(broken.stream.destroyed);
  t.strictSame(seen, ['close'], 'as node:http tells it');

  const whole = exchange(GET, [], bodiless);
  whole.response.end();
  await turn();
  await turn();
  t.ok(whole.response.destroyed);
  t.notOk(whole.stream.destroyed);

  const left = exchange(GET, [], bodiless);
  left.stream.shut();
  await turn();
  t.ok(left.response.destroyed, 'the end of the stream is the end of the answer');
  t.equal(heads(left.stream).length, 0);
});
