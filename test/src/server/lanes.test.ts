/**
 * Requests and their answers in both lanes (node:http, and the fast lane before
 * it), on a plain and on an encrypted listener: first on a connection, after
 * another request, and sent together with one.
 */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import t, { type Test } from 'tap';
import { createTally } from '../../../edge/ops/tally.js';
import type { EdgeRequest } from '../../../edge/request.js';
import { createFastlane } from '../../../edge/server/fastlane/fastlane.js';
import { createOutgoing } from '../../../edge/server/outgoing.js';
import { type Clock, systemClock } from '../../../src/clock.js';
import { emptyReply } from '../../../src/http/reply.js';
import { tlsSection } from '../../../src/server/certificate.js';
import { type ListenLimits, limitsSection } from '../../../src/server/limits.js';
import { type FirstReader, listen } from '../../../src/server/listen.js';
import { hasOpenssl, selfSigned, type TestCertificate } from '../../kit/certificates.js';
import { ManualClock, untilInTime } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { BARE_LINE_FEEDS, MALFORMED_HEADS, MALFORMED_LIMITS, SMUGGLED } from '../../kit/http/malformed.js';
import { connectRaw, type RawConnection } from '../../kit/http/raw.js';
import { until } from '../../kit/until.js';

const head = (...lines: readonly string[]): string => `${lines.join('\r\n')}\r\n\r\n`;
const GOOD = head('GET /good HTTP/1.1', 'Host: a');
const UPLOAD = `${head('POST /upload HTTP/1.1', 'Host: a', 'Content-Length: 3')}abc`;

interface Lane {
  readonly name: string;
  readonly encrypted: boolean;
  connect(): Promise<RawConnection>;
  /** Requests that reached a handler, with their responses where node:http had them. */
  readonly requests: string[];
  readonly held: ServerResponse[];
}

/** `/upload` waits until the test answers it. */
async function openLanes(t: Test, limits: Partial<ListenLimits> = {}, clock?: Clock): Promise<readonly Lane[]> {
  const certificate = hasOpenssl ? selfSigned(t.testdir(), 'lanes') : undefined;
  if (certificate === undefined) t.comment('openssl is missing: without encrypted listeners');
  const lanes: Lane[] = [];
  for (const fast of [false, true]) {
    lanes.push(await openLane(t, fast, undefined, limits, clock));
    if (certificate !== undefined) lanes.push(await openLane(t, fast, certificate, limits, clock));
  }
  return lanes;
}

async function openLane(
  t: Test,
  fast: boolean,
  certificate: TestCertificate | undefined,
  limits: Partial<ListenLimits>,
  clock: Clock = systemClock,
): Promise<Lane> {
  const { log } = testDeps();
  const requests: string[] = [];
  const held: ServerResponse[] = [];
  const answered = {
    status: 200,
    headers: [['content-length', '2']],
    body: { kind: 'bytes', bytes: Buffer.from('ok') },
  } as const;
  const firstReader = (within: ListenLimits): FirstReader =>
    createFastlane(
      {
        handle(request: EdgeRequest) {
          requests.push(`${request.method} ${request.target}`);
          return { kind: 'reply', reply: answered, outcome: 'hit_memory', mediaId: null };
        },
        health: { live: () => emptyReply(200, []), ready: async () => emptyReply(200, []) },
        uses: { note: () => undefined },
        traffic: { note: () => undefined },
        watch: { active: false, note: () => undefined },
        outgoing: createOutgoing(),
        tally: createTally(),
        clock: systemClock,
        log,
        requestLog: { write: () => undefined },
        traceOf: () => undefined,
        newRequestId: () => 'made-here',
        addressOf: () => '192.0.2.1',
      },
      within,
      clock,
    );
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    limits: configured(limitsSection, { closeWithinMs: 0, ...MALFORMED_LIMITS, ...limits }),
    ...(certificate !== undefined && {
      tls: configured(tlsSection, { certificateFile: certificate.certFile, keyFile: certificate.keyFile }),
    }),
    clock,
    log,
    onRequest(request: IncomingMessage, response: ServerResponse) {
      requests.push(`${request.method} ${request.url}`);
      request.resume().on('error', () => undefined);
      if (request.url === '/upload') held.push(response);
      else request.on('end', () => response.end('ok'));
    },
    ...(fast && { firstReader }),
  });
  t.teardown(() => listener.close());
  return {
    encrypted: certificate !== undefined,
    name: `${fast ? 'fast lane' : 'node:http'}, ${certificate === undefined ? 'plain' : 'encrypted'}`,
    connect: () => connectRaw(listener.port, certificate && { ca: certificate.cert, protocol: 'http/1.1' }),
    requests,
    held,
  };
}

const statusesIn = (text: string): readonly number[] =>
  [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));

async function exchange(lane: Lane, ...writes: readonly string[]): Promise<string> {
  const raw = await lane.connect();
  for (const [at, bytes] of writes.entries()) {
    raw.write(bytes);
    if (at + 1 < writes.length) await raw.until(/\r\n\r\nok$/);
  }
  const text = await raw.whole();
  raw.socket.destroy();
  return text;
}

/** What every refusal has, so that a script can read it and a browser guesses nothing. */
const REFUSAL =
  /\r\n\r\n\{"type":"urn:media-service:problem:\w+","title":"[^"]+","status":(\d+),"detail":"[^"]+","code":"\w+"\}$/;
const FIELDS = [
  /^content-type: application\/problem\+json$/im,
  /^cache-control: no-store$/im,
  /^access-control-allow-origin: \*$/im,
  /^access-control-expose-headers: .+$/im,
  /^x-content-type-options: nosniff$/im,
  /^date: .+ GMT$/im,
  /^connection: close$/im,
];

void t.test(
  'a malformed request is refused alike wherever it comes, as a problem, and nothing behind it is read',
  async (t) => {
    for (const lane of await openLanes(t)) {
      await t.test(lane.name, async (t) => {
        for (const [what, bytes, status] of MALFORMED_HEADS) {
          const places = [
            ['first', [bytes + SMUGGLED], []],
            ['after another', [GOOD, bytes + SMUGGLED], [200]],
            ['behind another', [GOOD + bytes + SMUGGLED], [200]],
          ] as const;
          // Handshakes are slow, and encryption does not change the order.
          for (const [place, writes, before] of lane.encrypted ? places.slice(2) : places) {
            const text = await exchange(lane, ...writes);
            t.same(statusesIn(text), [...before, status], `${what}, ${place}`);
            t.equal(Number(REFUSAL.exec(text)?.[1]), status, `${what}, ${place}: a problem`);
            const last = text.split(/(?=HTTP\/1\.1 \d{3} )/).at(-1) ?? '';
            for (const field of FIELDS) if (!field.test(last)) t.fail(`${what}, ${place}: ${field.source}`);
          }
        }
        t.notOk(lane.requests.some((request) => request.includes('smuggled')));
      });
    }
  },
);

void t.test('a line that ends in a bare line feed is refused at once, without the end of its head', async (t) => {
  for (const lane of await openLanes(t, { headersWithinMs: 3_600_000 })) {
    for (const [what, bytes, status] of BARE_LINE_FEEDS) {
      t.same(statusesIn(await exchange(lane, bytes)), [status], `${lane.name}: ${what}`);
      t.same(statusesIn(await exchange(lane, GOOD, bytes)), [200, status], `${lane.name}: ${what}, after another`);
    }
  }
});

void t.test('an answer that takes its time goes out before the refusal of what came behind its request', async (t) => {
  const garbage: readonly (readonly [what: string, bytes: string, status: number])[] = [
    ['no HTTP', 'garbage\r\n\r\n', 400],
    ['no Host', head('GET / HTTP/1.1'), 400],
    ['a tunnel', head('CONNECT a:443 HTTP/1.1', 'Host: a'), 405],
    ['overlong fields', head('GET / HTTP/1.1', 'Host: a', `X: ${'x'.repeat(4_000)}`), 431],
    ['a body that is none', `${head('POST /upload HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked')}zz\r\n`, 400],
    ['an unknown expectation', head('GET / HTTP/1.1', 'Host: a', 'Expect: more'), 417],
  ];
  for (const lane of await openLanes(t)) {
    for (const [what, bytes, status] of garbage) {
      for (const pieces of [[UPLOAD + bytes], [UPLOAD, bytes]]) {
        lane.held.length = 0;
        const raw = await lane.connect();
        for (const piece of pieces) raw.write(piece);
        await until('the upload', () => lane.held.length > 0);
        // The refused request may not be told to the handler at all. So another connection shows that it was read.
        await exchange(lane, head('GET /good HTTP/1.1', 'Host: a', 'Connection: close'));
        lane.held[0]?.end('stored');
        const text = await raw.whole();
        t.same(statusesIn(text), [200, status], `${lane.name}: ${what}`);
        t.match(text, /stored[\s\S]*HTTP\/1\.1 /, `${lane.name}: ${what}`);
        raw.socket.destroy();
      }
    }
  }
});

void t.test('a client that leaves before the answer in hand ends both', async (t) => {
  for (const lane of await openLanes(t)) {
    const raw = await lane.connect();
    raw.write(`${UPLOAD}garbage\r\n\r\n`);
    await until('the upload', () => lane.held.length > 0);
    const [response] = lane.held;
    const closed = response === undefined ? undefined : once(response, 'close');
    raw.socket.destroy();
    await closed;
    t.notOk(response?.writableFinished, lane.name);
  }
});

void t.test(
  'the time for a head is counted from its first byte, on each request, however slowly bytes come',
  async (t) => {
    const clock = new ManualClock();
    // Node's own timers run on the machine's time, and would not end it within the test.
    const lanes = await openLanes(t, { headersWithinMs: 3_600_000, idleMs: 86_400_000 }, clock);
    const begun = await Promise.all(
      lanes.flatMap((lane) =>
        [
          { what: 'the first head', before: '', line: 'GET / HTTP/1.1\r\nHost: a\r\nX: ', drop: 'x' },
          { what: 'the second head', before: GOOD, line: 'GET / HTTP/1.1\r\nHost: a\r\nX: ', drop: 'x' },
          {
            what: 'a head that the fast lane leaves to node:http',
            before: GOOD,
            line: 'POST / HTTP/1.1\r\nHost: a\r\nX: ',
            drop: 'x',
          },
          { what: 'empty lines before the first head', before: '', line: '\r\n', drop: '\r\n' },
          { what: 'empty lines before the second head', before: GOOD, line: '\r\n', drop: '\r\n' },
        ].map(async ({ what, before, line, drop }) => {
          const raw = await lane.connect();
          if (before !== '') {
            raw.write(before);
            await raw.until(/\r\n\r\nok$/);
          }
          raw.write(line);
          let open = true;
          void raw.closed.then(() => (open = false));
          const wanted = before === '' ? [408] : [200, 408];
          return { raw, name: `${lane.name}: ${what}`, drop, wanted, isOpen: () => open };
        }),
      ),
    );
    await untilInTime(
      'all are given up',
      clock,
      () => {
        for (const { raw, drop, isOpen } of begun) if (isOpen() && raw.socket.writable) raw.write(drop);
        return !begun.some(({ isOpen }) => isOpen());
      },
      200_000,
    );
    for (const { raw, name, wanted } of begun) {
      t.same(statusesIn(raw.text), wanted, name);
      raw.socket.destroy();
    }
  },
);

void t.test('a head that is left to node:http half received keeps its deadline', async (t) => {
  const clock = new ManualClock();
  // Node's own timers run on the machine's time, and would not end it within the test.
  const lane = await openLane(t, true, undefined, { headersWithinMs: 3_600_000 }, clock);
  const raw = await lane.connect();
  raw.write('POST /upload HTTP/1.1\r\nHost: a\r\nX: ');
  let open = true;
  void raw.closed.then(() => (open = false));
  await until('the head is given up', () => {
    if (clock.monotonicMs() < 3_600_000) clock.advance(60_000);
    return !open;
  });
  t.same(statusesIn(raw.text), [408]);
});
