/** A reply as node:http writes it: the exact head for each kind of body, and what becomes of bodies that fail or are not wanted. */
import type { ServerResponse } from 'node:http';
import { Readable, Writable } from 'node:stream';
import t from 'tap';
import type { Reply } from '../../../src/http/reply.js';
import { hasContent, isAtHand, lengthOf, pipeBody, send, sendNow } from '../../../src/server/send.js';
import { until } from '../../kit/until.js';

/** Keeps what is written, in its order. A body waits for `read` if it is held. */
class Response extends Writable {
  readonly written: unknown[] = [];
  held: (() => void)[] | undefined;

  writeHead(status: number, fields: readonly string[]): this {
    this.written.push([status, ...fields]);
    return this;
  }

  flushHeaders(): void {
    this.written.push('flushed');
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.written.push(chunk.toString());
    if (this.held === undefined) done();
    else this.held.push(done);
  }
}

const asResponse = (response: Response): ServerResponse => response as unknown as ServerResponse;
const GET = { method: 'GET' };
const HEAD = { method: 'HEAD' };
const signal = new AbortController().signal;

const bytes = (text: string): Reply['body'] => ({ kind: 'bytes', bytes: Buffer.from(text) });

function streamed(
  pieces: readonly string[],
  sizeBytes: number | null,
  opened: { count: number } = { count: 0 },
): Reply['body'] {
  return {
    kind: 'stream',
    sizeBytes,
    open: () => {
      opened.count += 1;
      return Promise.resolve(
        Readable.from(
          pieces.map((piece) => Buffer.from(piece)),
          { objectMode: false },
        ),
      );
    },
  };
}

void t.test('the length is stated where it is known, and never for 204 and 304', async (t) => {
  const lengths: readonly (readonly [number, Reply['body'], number | null])[] = [
    [200, { kind: 'none' }, 0],
    [404, bytes('four'), 4],
    [200, bytes('é'), 2],
    [206, streamed([], 7), 7],
    [200, streamed([], null), null],
    [204, { kind: 'none' }, null],
    [304, bytes('four'), null],
    [304, streamed([], 7), null],
  ];
  for (const [status, body, expected] of lengths) {
    t.equal(lengthOf({ status, headers: [], body }), expected, `${status} ${body.kind}`);
  }
});

void t.test('a HEAD, a 204 and a 304 have no content, so what they have is at hand', async (t) => {
  for (const [status, method, content] of [
    [200, 'GET', true],
    [200, undefined, true],
    [206, 'GET', true],
    [200, 'HEAD', false],
    [204, 'GET', false],
    [304, 'GET', false],
  ] as const) {
    t.equal(hasContent(status, method), content, `${status} ${method}`);
    const ask = method === undefined ? {} : { method };
    t.equal(isAtHand({ status, headers: [], body: streamed([], 7) }, ask), !content, `${status} ${method}`);
    t.ok(isAtHand({ status, headers: [], body: bytes('x') }, ask));
    t.ok(isAtHand({ status, headers: [], body: { kind: 'none' } }, ask));
  }
});

void t.test('the head has the fields of the reply in their order, and its length once', async (t) => {
  const cases: readonly (readonly [string, Reply, { readonly method: string }, readonly unknown[]])[] = [
    [
      'bytes',
      { status: 200, headers: [['x-a', '1']], body: bytes('four') },
      GET,
      [[200, 'x-a', '1', 'content-length', '4'], 'four'],
    ],
    ['HEAD', { status: 200, headers: [], body: bytes('four') }, HEAD, [[200, 'content-length', '4']]],
    ['nothing', { status: 404, headers: [], body: { kind: 'none' } }, GET, [[404, 'content-length', '0']]],
    [
      'a length that is given',
      { status: 200, headers: [['content-length', '9']], body: { kind: 'none' } },
      HEAD,
      [[200, 'content-length', '9']],
    ],
    ['304', { status: 304, headers: [['etag', '"a"']], body: bytes('four') }, GET, [[304, 'etag', '"a"']]],
  ];
  for (const [name, reply, request, written] of cases) {
    const now = new Response();
    sendNow(reply, request, asResponse(now));
    t.strictSame(now.written, written, name);
    t.ok(now.writableEnded, name);
    const later = new Response();
    await send(reply, request, asResponse(later), signal);
    t.strictSame(later.written, written, name);
    t.ok(later.writableFinished, name);
  }
});

void t.test('a body is opened for a GET alone, and sent after its head', async (t) => {
  const opened = { count: 0 };
  const reply: Reply = { status: 200, headers: [], body: streamed(['ab', 'c'], 3, opened) };
  const head = new Response();
  await send(reply, HEAD, asResponse(head), signal);
  t.strictSame(head.written, [[200, 'content-length', '3']]);
  t.equal(opened.count, 0);
  const whole = new Response();
  await send(reply, GET, asResponse(whole), signal);
  t.strictSame(
    whole.written.filter((each) => each !== 'flushed'),
    [[200, 'content-length', '3'], 'ab', 'c'],
  );
  t.ok(whole.writableFinished);
});

void t.test('a client that leaves before the end is told of', async (t) => {
  const response = new Response();
  response.held = [];
  const sent = send({ status: 200, headers: [], body: bytes('four') }, GET, asResponse(response), signal);
  response.destroy();
  await t.rejects(sent, { message: 'the client left' });
});

void t.test(
  'a body that is lost before its first byte sends nothing, so that a failure can still be answered',
  async (t) => {
    const unread = new Readable({ read: () => undefined });
    unread.on('error', () => undefined).destroy(new Error('lost before'));
    await new Promise(setImmediate);
    const whenRead = new Readable({
      read() {
        this.destroy(new Error('lost when read'));
      },
    });
    const gone = new Readable({ read: () => undefined }).destroy();
    const leaving = new Readable({ read: () => undefined });
    // Its error comes in the next turn, and would end the process if nobody listened.
    const justLost = (): Readable => new Readable({ read: () => undefined }).destroy(new Error('just lost'));
    for (const [body, message] of [
      [unread, 'lost before'],
      [whenRead, 'lost when read'],
      [gone, 'the body was given up before it began'],
      [leaving, 'the body was given up before it began'],
      [justLost, 'just lost'],
    ] as const) {
      const response = new Response();
      const reply: Reply = {
        status: 200,
        headers: [],
        body: { kind: 'stream', sizeBytes: 3, open: () => (body instanceof Readable ? body : body()) },
      };
      const sent = send(reply, GET, asResponse(response), signal);
      if (body === leaving) process.nextTick(() => leaving.destroy());
      await t.rejects(sent, { message });
      t.strictSame(response.written, [], message);
      t.notOk(response.destroyed, message);
    }
  },
);

void t.test('a body that is slow to begin does not keep its head back, and an empty one has an end', async (t) => {
  const slow = new Readable({ read: () => undefined });
  const response = new Response();
  const reply = (body: Readable): Reply => ({
    status: 200,
    headers: [],
    body: { kind: 'stream', sizeBytes: null, open: () => body },
  });
  const sent = send(reply(slow), GET, asResponse(response), signal);
  await until('the head', () => response.written.includes('flushed'));
  slow.push('late');
  slow.push(null);
  await sent;
  t.strictSame(response.written, [[200], 'flushed', 'late']);
  const empty = new Response();
  await send(reply(Readable.from([])), GET, asResponse(empty), signal);
  t.strictSame(
    empty.written.filter((each) => each !== 'flushed'),
    [[200]],
  );
  t.ok(empty.writableFinished);
});

void t.test('a body that fails breaks its answer off, and one that cannot be opened sends no head', async (t) => {
  const broken: Reply = {
    status: 200,
    headers: [],
    body: {
      kind: 'stream',
      sizeBytes: 9,
      open: () =>
        Promise.resolve(
          Readable.from(
            (async function* () {
              yield Buffer.from('part');
              throw new Error('the disk failed');
            })(),
            { objectMode: false },
          ),
        ),
    },
  };
  const response = new Response();
  await t.rejects(send(broken, GET, asResponse(response), signal), { message: 'the disk failed' });
  t.ok(response.destroyed);
  t.notOk(response.writableFinished);

  const unopened = new Response();
  const gone: Reply = {
    status: 200,
    headers: [],
    body: { kind: 'stream', sizeBytes: 9, open: () => Promise.reject(new Error('it is gone')) },
  };
  await t.rejects(send(gone, GET, asResponse(unopened), signal), { message: 'it is gone' });
  t.strictSame([unopened.written, unopened.destroyed], [[], false], 'another answer can still be sent');
});

void t.test('an abort breaks off a body that is being sent', async (t) => {
  const aborting = new AbortController();
  const response = new Response();
  response.held = [];
  const reply: Reply = { status: 200, headers: [], body: streamed(['ab', 'c'], 3) };
  const sent = send(reply, GET, asResponse(response), aborting.signal);
  await new Promise(setImmediate);
  aborting.abort();
  await t.rejects(sent, { name: 'AbortError' });
  t.ok(response.destroyed);
});

void t.test('a head does not wait for a body that is slow to begin', async (t) => {
  const response = new Response();
  const body = new Readable({ read: () => undefined });
  const piped = pipeBody(body, asResponse(response), { signal });
  await new Promise(setImmediate);
  t.strictSame(response.written, ['flushed']);
  body.push('late');
  body.push(null);
  await piped;
  t.strictSame(response.written, ['flushed', 'late']);

  const failed = new Response();
  const failing = new Readable({ read: () => undefined });
  const refused = pipeBody(failing, asResponse(failed), { signal: AbortSignal.abort() });
  await t.rejects(refused);
  await new Promise(setImmediate);
  t.strictSame(failed.written, [], 'nothing is flushed after the end');
});

void t.test('a body that fails in the tick in which it begins ends its answer, and not the process', async (t) => {
  const body = new Readable({ read: () => undefined });
  body.once('readable', () => process.nextTick(() => body.destroy(new Error('at once'))));
  const response = new Response();
  response.on('error', () => undefined);
  const sent = send(
    { status: 200, headers: [], body: { kind: 'stream', sizeBytes: 10, open: () => Promise.resolve(body) } },
    GET,
    asResponse(response),
    signal,
  );
  body.push('first');
  await t.rejects(sent, { message: 'at once' });
  t.ok(response.destroyed);
});
