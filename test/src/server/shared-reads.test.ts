/** Connections that are read into one buffer: each gets its own bytes, and is a socket like any other besides. */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { systemClock } from '../../../src/clock.js';
import { limitsSection } from '../../../src/server/limits.js';
import { listen } from '../../../src/server/listen.js';
import { type Reading, shareReads } from '../../../src/server/shared-reads.js';
import { configured, testDeps } from '../../kit/deps.js';
import { connectRaw, requestHead } from '../../kit/http/raw.js';
import { until } from '../../kit/until.js';

const [major = 0] = process.versions.node.split('.').map(Number);
const TRIED = major >= 20 && major <= 26;

interface Open {
  readonly server: Server;
  readonly port: number;
  readonly readings: readonly Reading[];
}

async function open(t: Test, isTried?: boolean): Promise<Open> {
  const readings: Reading[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const reading = shareReads(socket, isTried);
    reading.socket.on('error', () => undefined);
    readings.push(reading);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  t.teardown(() => {
    for (const { socket } of readings) socket.destroy();
    server.close();
  });
  return { server, port: (server.address() as AddressInfo).port, readings };
}

async function connected(opened: Open, number = 1) {
  const raws = [];
  for (let each = 0; each < number; each += 1) {
    raws.push(await connectRaw(opened.port));
    await until('the server has accepted it', () => opened.readings.length === each + 1);
  }
  return raws;
}

void t.test(
  'the versions of node that were tried read all connections into one buffer',
  { skip: TRIED ? false : `node ${major} was not tried` },
  async (t) => {
    const opened = await open(t);
    const buffers = new Set<Buffer>();
    const texts: string[] = [];
    const raws = await connected(opened, 3);
    for (const [at, { start }] of opened.readings.entries()) {
      texts.push('');
      start((buffer, length) => {
        buffers.add(buffer);
        texts[at] += buffer.toString('latin1', 0, length);
      });
    }
    for (const round of [1, 2]) for (const [at, raw] of raws.entries()) raw.write(`${at}${round}`.repeat(1_000));
    const expected = raws.map((_, at) => [1, 2].map((round) => `${at}${round}`.repeat(1_000)).join(''));
    await until('all bytes', () => texts.join('').length === expected.join('').length);
    t.same(texts, expected);
    t.equal(buffers.size, 1);
    for (const raw of raws) raw.socket.destroy();
  },
);

void t.test(
  'heads and bodies that arrive in pieces are not mixed with what arrives on another connection',
  async (t) => {
    const listener = await listen({
      host: '127.0.0.1',
      port: 0,
      limits: configured(limitsSection, { closeWithinMs: 0 }),
      clock: systemClock,
      log: testDeps().log,
      onRequest(request, response) {
        const pieces: Buffer[] = [];
        request.on('data', (piece: Buffer) => pieces.push(piece));
        request.on('end', () => {
          const { 'x-name': name, 'x-other': other } = request.headers;
          response.end(`${request.url} ${String(name)} ${String(other)} ${Buffer.concat(pieces).toString()} END`);
        });
      },
    });
    t.teardown(() => listener.close());
    const [slow, other] = [await connectRaw(listener.port), await connectRaw(listener.port)];
    let noises = 0;
    /** Fills the memory in which connections are read. */
    const noise = async (): Promise<void> => {
      other.write(
        requestHead('POST', '/noise', { 'x-name': '#'.repeat(500), 'content-length': 500 }) + '#'.repeat(500),
      );
      noises += 1;
      await until('the answer', () => other.text.split(' END').length > noises);
    };
    const text =
      requestHead('POST', '/a/long/target', { 'x-name': 'the-first', 'x-other': 'the-second', 'content-length': 26 }) +
      'abcdefghijklmnopqrstuvwxyz';
    for (let at = 0; at < text.length; at += 3) {
      slow.write(text.slice(at, at + 3));
      await noise();
    }
    await slow.until(/ END/);
    t.match(slow.text, '/a/long/target the-first the-second abcdefghijklmnopqrstuvwxyz END');
    const whole = text.repeat(2);
    slow.write(whole.slice(0, -5));
    await noise();
    slow.write(whole.slice(-5));
    await until('both answers', () => slow.text.split('abcdefghijklmnopqrstuvwxyz END').length === 4);
    for (const raw of [slow, other]) raw.socket.destroy();
  },
);

for (const isTried of TRIED ? [true, false] : [false]) {
  void t.test(isTried ? 'with one buffer' : 'with data events, as on other versions', async (t) => {
    await t.test('a released connection has its bytes as data, which no other connection overwrites', async (t) => {
      const opened = await open(t, isTried);
      const [one, other] = await connected(opened, 2);
      const [first, second] = opened.readings;
      if (one === undefined || other === undefined || first === undefined || second === undefined)
        throw new Error('a connection is missing');
      let received = '';
      first.start((buffer, length) => {
        received += buffer.toString('latin1', 0, length);
        first.socket.pause();
        first.release();
        first.socket.unshift(Buffer.from('put back '));
        first.socket.on('data', (chunk: Buffer) => chunks.push(chunk)).resume();
      });
      const chunks: Buffer[] = [];
      let read = 0;
      second.start((_, length) => (read += length));
      one.write('taken');
      await until('the first bytes', () => received === 'taken');
      for (let round = 1; round <= 20; round += 1) {
        one.write(`${round},`);
        await until('its bytes', () => Buffer.concat(chunks).toString().endsWith(`${round},`));
        other.write('#'.repeat(100));
        await until('those of the other', () => read === round * 100);
      }
      const numbers = Array.from({ length: 20 }, (_, at) => `${at + 1},`).join('');
      t.equal(Buffer.concat(chunks).toString(), `put back ${numbers}`);
      for (const raw of [one, other]) raw.socket.destroy();
    });

    await t.test(
      'a lent connection has its bytes as data in order, also those that came while it was paused',
      async (t) => {
        const opened = await open(t, isTried);
        const [raw] = await connected(opened);
        const [reading] = opened.readings;
        if (raw === undefined || reading === undefined) throw new Error('the connection is missing');
        const { socket } = reading;
        let received = '';
        reading.lend();
        socket.on('data', (chunk: Buffer) => (received += chunk.toString('latin1')));
        raw.write('one,');
        await until('the first bytes', () => received === 'one,');
        socket.pause();
        socket.unshift(Buffer.from('put back,'));
        raw.write('two,');
        for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
        t.equal(received, 'one,');
        socket.resume();
        raw.write('three');
        await until('all of it', () => received.endsWith('three'));
        t.equal(received, 'one,put back,two,three');
        raw.socket.destroy();
      },
    );

    await t.test('a released connection that nobody reads takes no more than the others do', async (t) => {
      const opened = await open(t, isTried);
      const [raw] = await connected(opened);
      const socket = opened.readings[0]?.socket;
      socket?.pause();
      raw?.write(Buffer.alloc(20_000_000));
      await until('the sender has to wait', () => raw?.socket.writableNeedDrain === true);
      t.ok((socket?.readableLength ?? 0) <= 2 * 65_536 + (socket?.readableHighWaterMark ?? 0));
      let read = 0;
      socket?.on('data', (chunk: Buffer) => (read += chunk.length)).resume();
      await until('all bytes', () => read === 20_000_000);
      raw?.socket.destroy();
    });

    await t.test('a paused connection is not read, and goes on', async (t) => {
      const opened = await open(t, isTried);
      const [raw] = await connected(opened);
      const [reading] = opened.readings;
      let received = '';
      reading?.start((buffer, length) => {
        received += buffer.toString('latin1', 0, length);
        if (received === 'one') reading.socket.pause();
      });
      raw?.write('one');
      await until('the first bytes', () => received === 'one');
      raw?.write('two');
      for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
      t.equal(received, 'one');
      reading?.socket.resume();
      await until('the others', () => received === 'onetwo');
      raw?.socket.destroy();
    });

    await t.test('the end of the client, and a reset, are told', async (t) => {
      const opened = await open(t, isTried);
      const [ends, resets] = await connected(opened, 2);
      const sockets = opened.readings.map(({ socket, start }) => {
        start(() => undefined);
        return socket;
      });
      const [first, second] = sockets as [Socket, Socket];
      ends?.end();
      await once(first, 'end');
      first.end('still written');
      await ends?.until(/still written/);
      resets?.reset();
      await new Promise<void>((resolve) => second.once('close', () => resolve()));
      t.ok(second.destroyed);
      ends?.socket.destroy();
    });

    await t.test('the server counts a connection until it has ended', async (t) => {
      const opened = await open(t, isTried);
      const count = () =>
        new Promise<number>((resolve) => opened.server.getConnections((_, number) => resolve(number)));
      opened.server.maxConnections = 2;
      const raws = await connected(opened, 2);
      t.equal(await count(), 2);
      const refused = await connectRaw(opened.port);
      await refused.closed;
      t.equal(opened.readings.length, 2, 'a third is not accepted');
      const closed = new Promise<void>((resolve) => opened.server.close(() => resolve()));
      for (const { socket } of opened.readings) socket.destroy();
      await closed;
      t.equal(await count(), 0);
      for (const raw of [...raws, refused]) raw.socket.destroy();
    });
  });
}
