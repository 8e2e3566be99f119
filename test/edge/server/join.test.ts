/** Memory in which answers are joined: used again once it has left, and never while it may still be read. */
import t from 'tap';
import { createLender } from '../../../edge/server/fastlane/join.js';
import { createHeadWriter } from '../../../edge/server/fastlane/write-head.js';
import { hasOpenssl, selfSigned } from '../../kit/certificates.js';
import { get, openLane, replied } from '../../kit/edge/lane.js';
import { connectRaw } from '../../kit/http/raw.js';

const body = Buffer.alloc(70_000, 'x');
const writer = createHeadWriter({ now: () => 0 }, 5_000);
const head = writer.write({ status: 200, headers: [], body: { kind: 'bytes', bytes: body } }, 'GET', false);

void t.test('memory that is lent has the answer, and is lent again only once it was given back', async (t) => {
  const lender = createLender();
  for (const sizeBytes of [0, 1, 1_000, 4_000, 20_000, 65_000, 70_000]) {
    const bytes = body.subarray(0, sizeBytes);
    const first = lender.join(head, bytes);
    const text = first.answer.toString('latin1');
    t.match(text, /^HTTP\/1\.1 200 OK\r\n/);
    t.ok(text.endsWith(`\r\n\r\n${'x'.repeat(sizeBytes)}`), `${sizeBytes} bytes`);
    const second = lender.join(head, bytes);
    t.not(second.memory, first.memory, 'it is on its way');
    lender.giveBack(first);
    const third = lender.join(head, bytes);
    // The largest fit no size, and have memory of their own.
    t.equal(third.memory === first.memory, sizeBytes < 69_000, `${sizeBytes} bytes`);
  }
});

void t.test('a bounded amount of memory is kept', async (t) => {
  const lender = createLender();
  const lent = Array.from({ length: 100 }, () => lender.join(head, body.subarray(0, 10_000)));
  t.equal(new Set(lent.map(({ memory }) => memory)).size, 100);
  for (const each of lent) lender.giveBack(each);
  const known = new Set(lent.map(({ memory }) => memory));
  const again = Array.from({ length: 100 }, () => lender.join(head, body.subarray(0, 10_000)));
  t.equal(again.filter(({ memory }) => known.has(memory)).length, 32);
});

void t.test(
  'over TLS no answer overwrites another, whoever reads slowly or leaves',
  { skip: hasOpenssl ? false : 'there is no openssl' },
  async (t) => {
    const certificate = selfSigned(t.testdir(), 'join');
    const sizes = [100, 5_000, 16_384, 30_000, 65_536];
    // The target is /NUMBER-SIZE, and the number is what the body is made of.
    const lane = await openLane(
      t,
      ({ path }) => {
        const [number = '', size = ''] = path.slice(1).split('-');
        return replied({
          status: 200,
          headers: [],
          body: { kind: 'bytes', bytes: Buffer.alloc(Number(size), number) },
        });
      },
      {},
      { tls: certificate },
    );
    const raws = await Promise.all(
      Array.from({ length: 12 }, () => connectRaw(lane.port, { ca: certificate.cert, protocol: 'http/1.1' })),
    );
    for (const [number, raw] of raws.entries()) {
      if (number % 3 === 0) raw.socket.pause();
      const asked = Array.from({ length: 20 }, (_, at) => get(`/${number}.${at}-${sizes[at % sizes.length]}`));
      raw.write(`${asked.join('')}${get('/end-3', 'Connection: close')}`);
      if (number % 4 === 1) setImmediate(() => raw.socket.destroy());
    }
    const read = raws.filter((_, number) => number % 4 !== 1);
    await Promise.all(read.filter((_, at) => at % 2 === 0).map((raw) => raw.socket.resume() && raw.whole()));
    for (const [number, raw] of raws.entries()) {
      if (number % 4 === 1) continue;
      raw.socket.resume();
      const bodies = (await raw.whole()).split(/HTTP\/1\.1 200 OK\r\n.*?\r\n\r\n/s).slice(1);
      const expected = Array.from({ length: 20 }, (_, at) =>
        Buffer.alloc(sizes[at % sizes.length] ?? 0, `${number}.${at}`).toString('latin1'),
      );
      t.ok(bodies.join('|') === [...expected, 'end'].join('|'), `connection ${number}`);
    }
  },
);
