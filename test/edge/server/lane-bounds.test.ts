/** What one connection of the fast lane may cost: memory for clients that do not read, holds on media, and time. */
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import { hasOpenssl, selfSigned } from '../../kit/certificates.js';
import { ManualClock, turns } from '../../kit/clock.js';
import { get, type Handler, ID, type Lane, LIMITS, openLane, replied, text } from '../../kit/edge/lane.js';
import { connectRaw, type RawConnection } from '../../kit/http/raw.js';
import { seeded } from '../../kit/random.js';
import { until } from '../../kit/until.js';

const MIB = 1_048_576;
/** More than the system buffers of both sides of a local connection, whatever their settings. */
const WHOLE_BYTES = 64 * MIB;
const CHUNK = Buffer.alloc(65_536, 'x');

/** A body in chunks that are made when they are read. */
function countedBody(sizeBytes: number): { readonly body: Readable; readonly pulledBytes: () => number } {
  let pulled = 0;
  const body = new Readable({
    read() {
      if (pulled >= sizeBytes) this.push(null);
      else {
        pulled += CHUNK.length;
        this.push(CHUNK);
      }
    },
  });
  return { body, pulledBytes: () => pulled };
}

void t.test('a body is read no faster than its client reads', async (t) => {
  for (const sizeBytes of [WHOLE_BYTES, null]) {
    const { body, pulledBytes } = countedBody(WHOLE_BYTES);
    const lane = await openLane(t, () =>
      replied({ status: 200, headers: [], body: { kind: 'stream', sizeBytes, open: () => body } }),
    );
    const raw = await connectRaw(lane.port);
    raw.socket.pause();
    raw.write(get('/'));
    await until('the first bytes', () => pulledBytes() > 0);
    await turns(300);
    const [socket] = lane.sockets;
    t.ok((socket?.writableLength ?? 0) <= 8 * CHUNK.length, `${socket?.writableLength} bytes wait in the edge`);
    t.ok(pulledBytes() < WHOLE_BYTES, 'and the body is not read to its end');
    raw.socket.removeAllListeners('data');
    let received = 0;
    raw.socket.on('data', (bytes: Buffer) => (received += bytes.length)).resume();
    await until('the whole answer', () => lane.logged.length === 1);
    t.match(lane.logged, [{ complete: true }]);
    await until('its bytes', () => received > WHOLE_BYTES);
    raw.socket.destroy();
  }
});

void t.test('a client that sends ahead of its answers is read no further than the size of a head', async (t) => {
  let answer = (): void => undefined;
  const first = new Promise<void>((resolve) => (answer = resolve));
  const lane = await openLane(t, async ({ target }) => {
    if (target === '/first') await first;
    return replied(text(`lane ${target}\n`));
  });
  const raw = await connectRaw(lane.port);
  const ahead = Array.from({ length: 2_000 }, (_, number) => get(`/${number}`, `X: ${'x'.repeat(1_000)}`));
  raw.write(get('/first') + ahead.join(''));
  await until('the first request', () => lane.requests.length === 1);
  const [socket] = lane.sockets;
  await until('the edge reads no more', () => socket?.isPaused() === true);
  // What the client sends needs turns of its own to arrive, and a read that has begun still takes it.
  await turns(300);
  const readBytes = socket?.bytesRead ?? 0;
  t.ok(readBytes < LIMITS.headersMaxBytes + 5 * 65_536, `${readBytes} bytes were read of 2 MB`);
  answer();
  await raw.until(/lane \/1999\n/);
  t.equal(lane.requests.length, 2_001, 'once the answer has gone, all the others follow');
  t.same(lane.requests.slice(1, 4), ['GET /0', 'GET /1', 'GET /2']);
  raw.socket.destroy();
});

void t.test('an answer of any kind is logged with its bytes, and leaves no time limit of its own behind', async (t) => {
  const lane = await openLane(t, ({ target }) => {
    const bytes = Buffer.alloc(target === '/large' ? 100_000 : 10, 'z');
    const stream = { kind: 'stream', sizeBytes: bytes.length, open: () => Readable.from([bytes]) } as const;
    return replied({
      status: 200,
      headers: [],
      body: target === '/stream' ? stream : { kind: 'bytes', bytes },
    });
  });
  const raw = await connectRaw(lane.port);
  for (const [number, target] of ['/small', '/large', '/stream'].entries()) {
    const before = raw.text.length;
    raw.write(get(target));
    await until(`the end of ${target}`, () => lane.logged.length === number + 1);
    const sentBytes = lane.logged.at(-1)?.sentBytes ?? 0;
    await until(`all of ${target}`, () => raw.text.length >= before + sentBytes);
    const answer = raw.text.slice(before);
    t.equal(answer.length, sentBytes, `${target}: no byte more or less was sent than was counted`);
    t.match(answer, /^HTTP\/1\.1 200 OK\r\n/, target);
    t.equal(answer.split('\r\n\r\n')[1]?.length, target === '/large' ? 100_000 : 10);
    t.notOk(lane.sockets[0]?.timeout, `${target}: the connection may be idle now`);
  }
  raw.socket.destroy();
});

void t.test('the hold on media ends with their answer', async (t) => {
  const large = Buffer.alloc(8 * MIB, 'y');
  const { body } = countedBody(CHUNK.length);
  const lane = await openLane(t, ({ target }) => {
    if (target === '/stream') {
      return replied(
        { status: 200, headers: [], body: { kind: 'stream', sizeBytes: CHUNK.length, open: () => body } },
        ID,
      );
    }
    return target === '/large'
      ? replied({ ...text(''), body: { kind: 'bytes', bytes: large } }, ID)
      : replied(text(`lane ${target}\n`));
  });
  const readLarge = async (raw: RawConnection): Promise<void> => {
    const before = lane.logged.length;
    raw.socket.pause();
    raw.write(get('/large'));
    await until('the hold', () => lane.held() === 1);
    raw.socket.resume();
    await until('the end of the answer', () => lane.logged.length > before);
  };

  const raw = await connectRaw(lane.port);
  await readLarge(raw);
  t.equal(lane.held(), 0);
  lane.outgoing.breakOff(ID);
  raw.write(get('/small'));
  await raw.until(/lane \/small\n/);
  t.pass('a takedown of what was served before breaks no later answer of the connection');
  raw.write(get('/stream'));
  await until('the stream', () => lane.logged.length === 3);
  t.equal(lane.held(), 0);
  await readLarge(raw);
  t.equal(lane.held(), 0, 'a second answer of the same media is held and let go too');
  raw.socket.destroy();

  const leaving = await connectRaw(lane.port);
  leaving.socket.pause();
  leaving.write(get('/large'));
  await until('the hold', () => lane.held() === 1);
  leaving.reset();
  await until('its end', () => lane.held() === 0);
});

void t.test('a head has a time from its first byte to its last, however it comes in pieces', async (t) => {
  const clock = new ManualClock();
  const lane = await openLane(t, undefined, { headersWithinMs: 10_000, idleMs: 60_000 }, { clock });
  /** Both ends of a new connection. */
  const connected = async (): Promise<[RawConnection, Lane['sockets'][number] | undefined]> => {
    const before = lane.sockets.length;
    const raw = await connectRaw(lane.port);
    await until('the connection', () => lane.sockets.length > before);
    return [raw, lane.sockets.at(-1)];
  };
  /** Sends a piece of a head, waits until the edge has it, and lets time pass. */
  const send = async (raw: RawConnection, socket: Lane['sockets'][number] | undefined, piece: string, ms: number) => {
    const before = socket?.bytesRead ?? 0;
    raw.write(piece);
    await until('the piece', () => socket?.bytesRead === before + piece.length);
    await turns(2);
    clock.advance(ms);
  };
  for (const [what, before] of [
    ['the first head of a connection', ''],
    ['a later head', get('/before')],
  ] as const) {
    const [raw, socket] = await connected();
    if (before !== '') {
      await send(raw, socket, before, 30_000);
      await raw.until(/lane \/before/);
    }
    await send(raw, socket, 'GET / HT', 4_000);
    await send(raw, socket, 'TP/1.1\r\n', 4_000);
    t.notMatch(raw.text, /408/, `${what}: it still has time`);
    await send(raw, socket, 'Host: a\r\n', 4_000);
    t.match(await raw.whole(), /HTTP\/1\.1 408 /, `${what}: it is over, although bytes came`);
    raw.socket.destroy();

    const [quick, its] = await connected();
    await send(quick, its, `${before}GET / HT`, 9_000);
    await send(quick, its, 'TP/1.1\r\nHost: a\r\n\r\n', 0);
    t.match(await quick.until(/lane \/\n/), /200 OK/, `${what}: a head within its time is answered`);
    quick.socket.destroy();
  }
});

void t.test('no byte of one client reaches another, however their bytes and answers are interleaved', async (t) => {
  const clients = Array.from({ length: 8 }, (_, at) => String.fromCharCode(97 + at));
  const random = seeded(7);
  const lane = await openLane(t, async (request) => {
    const { target } = request;
    // Some answers come at once, some later, and some are more than the system takes at once.
    if (random() < 0.5) await turns(Math.floor(random() * 3));
    const own = request.header('x-own') ?? '';
    return replied(text(`${target} ${own.repeat(target.endsWith('0') ? 100_000 : 10)}\n`));
  });
  const raws = await Promise.all(clients.map(() => connectRaw(lane.port)));
  const count = 40;
  const sent = clients.map((name) =>
    Array.from({ length: count }, (_, at) => get(`/${name}/${at}`, `X-Own: ${name}`)).concat(
      `POST /${name}/last HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n${name.repeat(3_000)}`,
    ),
  );
  const left = sent.map((requests) => requests.join(''));
  while (left.some((bytes) => bytes !== '')) {
    const at = Math.floor(random() * clients.length);
    const size = 1 + Math.floor(random() * 400);
    raws[at]?.write(left[at]?.slice(0, size) ?? '');
    left[at] = left[at]?.slice(size) ?? '';
    const other = raws[Math.floor(random() * clients.length)];
    if (random() < 0.1) other?.socket.pause();
    else other?.socket.resume();
    if (random() < 0.3) await turns(1);
  }
  for (const [at, raw] of raws.entries()) {
    const name = clients[at] ?? '';
    raw.socket.resume();
    await raw.until(new RegExp(`node /${name}/last\n`));
    const bodies = [...raw.text.matchAll(/\r\n\r\n(\/\w\/\d+) (\w+)\n/g)].map(([, target, own]) => [target, own]);
    const expected = Array.from({ length: count }, (_, n) => [
      `/${name}/${n}`,
      name.repeat(n % 10 === 0 ? 100_000 : 10),
    ]);
    t.ok(isDeepStrictEqual(bodies, expected), `${name} has its own answers alone, in their order`);
    raw.socket.destroy();
  }
});

void t.test(
  'over TLS too, an answer that nobody reads ends its connection, and an idle one stays',
  { skip: hasOpenssl ? false : 'there is no openssl' },
  async (t) => {
    const certificate = selfSigned(t.testdir(), 'bounds');
    const large = Buffer.alloc(WHOLE_BYTES, 'x');
    const handler: Handler = ({ target }) =>
      replied(target === '/large' ? { ...text(''), body: { kind: 'bytes', bytes: large } } : text(`lane ${target}\n`));
    const lane = await openLane(t, handler, { stalledMs: 200 }, { tls: certificate });
    const raw = await connectRaw(lane.port, { ca: certificate.cert, protocol: 'http/1.1' });
    raw.write(get('/1'));
    await raw.until(/lane \/1\n/);
    const [socket] = lane.sockets;
    if (socket === undefined) throw new Error('there is no connection');
    await once(socket, 'timeout');
    raw.write(get('/2') + get('/3'));
    await raw.until(/lane \/3\n/);
    await until('nothing is held', () => lane.held() === 0);
    raw.socket.pause();
    raw.write(get('/large'));
    // It may be idle once more before the request comes.
    await until('its end', () => socket.destroyed);
    await until('it is logged', () => lane.logged.length === 4);
    t.match(lane.logged.at(-1), { target: '/large', complete: false });
    raw.socket.destroy();
  },
);

void t.test('a piece that waits for its turn is not sent when its body ends with an error meanwhile', async (t) => {
  /** After the lane has taken the piece, and before the next turn of the event loop. */
  const endSoon = async (body: Readable): Promise<void> => {
    for (let step = 0; step < 100; step += 1) await Promise.resolve();
    body.destroy(new Error('taken down'));
  };
  const opened = (): Readable => {
    const pieces = [Buffer.alloc(MIB + 1, 'x'), Buffer.from('late')];
    return new Readable({
      objectMode: true,
      highWaterMark: 1,
      read() {
        const piece = pieces.shift();
        this.push(piece ?? null);
        if (pieces.length === 0) void endSoon(this);
      },
    });
  };
  const lane = await openLane(t, () =>
    replied({ status: 200, headers: [], body: { kind: 'stream', sizeBytes: null, open: opened } }),
  );
  for (let round = 0; round < 5; round += 1) {
    const raw = await connectRaw(lane.port);
    raw.write(get('/'));
    t.notMatch(await raw.whole(), /late/);
  }
});
