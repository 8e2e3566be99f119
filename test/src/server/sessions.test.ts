/** HTTP/2 sessions over real connections, under a clock that the test moves: what a client may occupy, how long, and how they end. */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { type AddressInfo, createServer, Socket } from 'node:net';
import t, { type Test } from 'tap';
import { type ListenLimits, limitsSection } from '../../../src/server/limits.js';
import { openSessions } from '../../../src/server/sessions.js';
import { ManualClock } from '../../kit/clock.js';
import { configured } from '../../kit/deps.js';
import { until } from '../../kit/until.js';

interface Options {
  readonly limits?: Partial<ListenLimits>;
  readonly interruptionsMax?: number;
}

/** Limits that differ, so that each timer can be told from the others. */
const LIMITS = { headersWithinMs: 300, idleMs: 1_000, stalledMs: 50_000, requestWithinMs: 200_000 };

async function listening(t: Test, { limits = {}, interruptionsMax = 100 }: Options = {}) {
  const clock = new ManualClock();
  const requests: { readonly request: IncomingMessage; readonly response: ServerResponse }[] = [];
  const expecting: string[] = [];
  const floods = { count: 0 };
  const sessions = openSessions({
    limits: configured(limitsSection, { ...LIMITS, ...limits }),
    streamsMax: 7,
    interruptionsMax,
    clock,
    onRequest: (request, response) => requests.push({ request, response }),
    onExpectation: (request, response) => {
      expecting.push(request.url ?? '');
      response.writeContinue();
      requests.push({ request, response });
    },
    onFlood: () => {
      floods.count += 1;
    },
  });
  const server = createServer((socket) => sessions.take(socket)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    sessions.breakOff();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = async (): Promise<ClientHttp2Session> => {
    const session = connect(url);
    session.on('error', () => undefined);
    t.teardown(() => session.destroy());
    await once(session, 'remoteSettings');
    await ping(session);
    return session;
  };
  const asked = async (session: ClientHttp2Session, fields: Readonly<Record<string, string>> = {}) => {
    const count = requests.length + 1;
    const stream = session.request({ ':path': '/', ...fields }, { endStream: fields[':method'] !== 'POST' });
    stream.on('error', () => undefined).resume();
    await until('the request', () => requests.length === count);
    const { request, response } = requests[count - 1] as (typeof requests)[number];
    return { stream, request, response };
  };
  return { clock, sessions, requests, expecting, floods, client, asked, url };
}

/** Resolves once the server has answered, which it does only on an open session. */
function ping(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve, reject) => {
    if (!session.ping((error) => (error === null ? resolve() : reject(error)))) reject(new Error('no ping was sent'));
  });
}

/** Resolves once it has ended, with or without an error. */
function closed(one: ClientHttp2Session | ClientHttp2Stream): Promise<void> {
  return one.closed && one.destroyed ? Promise.resolve() : new Promise((resolve) => one.once('close', resolve));
}

void t.test('a client is told of the limits', async (t) => {
  const { client } = await listening(t, { limits: { headersMaxBytes: 5_000 } });
  t.match((await client()).remoteSettings, {
    maxConcurrentStreams: 7,
    maxHeaderListSize: 5_000,
    initialWindowSize: 262_144,
    enablePush: false,
  });
});

void t.test(
  'a session without a request ends with the time for a head, or with that for an idle one if it is shorter',
  async (t) => {
    for (const [limits, ms] of [
      [{ headersWithinMs: 300, idleMs: 1_000 }, 300],
      [{ headersWithinMs: 1_000, idleMs: 400 }, 400],
    ] as const) {
      const { client, clock } = await listening(t, { limits });
      const session = await client();
      clock.advance(ms - 1);
      await ping(session);
      clock.advance(1);
      await closed(session);
      t.equal(clock.pending, 0);
    }
  },
);

void t.test('a session with a request stays, and is idle from the end of its last one', async (t) => {
  const { client, clock, asked } = await listening(t);
  const session = await client();
  const [first, second] = [await asked(session), await asked(session)];
  clock.advance(20_000);
  first.response.end('a');
  await closed(first.stream);
  clock.advance(20_000);
  await ping(session);
  second.response.end('b');
  await closed(second.stream);
  await clock.timerSet(1_000);
  clock.advance(999);
  await ping(session);
  const third = await asked(session);
  clock.advance(5_000);
  await ping(session);
  third.response.end();
  await closed(third.stream);
  await clock.timerSet(1_000);
  clock.advance(1_000);
  await closed(session);
  t.equal(clock.pending, 0);
});

void t.test('a stream on which nothing moves ends, and its session does not', async (t) => {
  const { client, clock, asked } = await listening(t, { limits: { stalledMs: 5_000, idleMs: 60_000 } });
  const session = await client();
  const [still, moving] = [await asked(session), await asked(session)];
  clock.advance(3_000);
  moving.response.write('x');
  await once(moving.stream, 'data');
  clock.advance(1_999);
  await ping(session);
  t.notOk(still.stream.destroyed);
  clock.advance(1);
  await closed(still.stream);
  t.ok(still.response.destroyed);
  clock.advance(2_999);
  await ping(session);
  t.notOk(moving.stream.destroyed);
  clock.advance(1);
  await closed(moving.stream);
  await ping(session);
});

void t.test('a request must have arrived within its time', async (t) => {
  const { client, clock, asked } = await listening(t, {
    limits: { requestWithinMs: 9_000, stalledMs: 100_000, idleMs: 60_000 },
  });
  const session = await client();
  const [slow, whole] = [await asked(session, { ':method': 'POST' }), await asked(session, { ':method': 'POST' })];
  whole.stream.end('all of it');
  for await (const _ of whole.request);
  clock.advance(8_999);
  await ping(session);
  t.notOk(slow.stream.destroyed);
  clock.advance(1);
  await closed(slow.stream);
  await ping(session);
  t.notOk(whole.stream.destroyed);
  whole.response.end();
  await closed(whole.stream);
  await clock.timerSet(60_000);
  t.equal(clock.pending, 1, 'only the timer of the idle session is left');
});

void t.test('pings, settings and requests that are taken back are counted for ten seconds', async (t) => {
  const { client, clock, asked, floods } = await listening(t, {
    interruptionsMax: 5,
    limits: { headersWithinMs: 100_000, idleMs: 100_000 },
  });
  const session = await client();
  // Its first settings and the first ping are two.
  const { request, stream } = await asked(session);
  stream.close(constants.NGHTTP2_CANCEL);
  await until('its end at the server', () => request.destroyed || request.complete);
  await closed(stream);
  await ping(session);
  session.settings({ initialWindowSize: 70_000 });
  await once(session, 'localSettings');
  t.equal(floods.count, 0);
  clock.advance(10_000);
  const gone = once(session, 'goaway') as Promise<[number]>;
  session.ping(() => undefined);
  t.equal((await gone)[0], constants.NGHTTP2_ENHANCE_YOUR_CALM);
  await closed(session);
  t.equal(floods.count, 1, 'the sixth is one too many');

  const patient = await client();
  for (let at = 0; at < 3; at += 1) await ping(patient);
  clock.advance(10_001);
  for (let at = 0; at < 5; at += 1) await ping(patient);
  t.equal(floods.count, 1, 'after ten seconds the count begins anew');
});

void t.test('a request that waits for 100-continue is told apart', async (t) => {
  const { client, asked, expecting } = await listening(t);
  const session = await client();
  await asked(session, { ':path': '/plain' });
  const { stream } = await asked(session, { ':method': 'POST', ':path': '/waits', expect: '100-Continue' });
  await asked(session, { ':path': '/other', expect: 'something' });
  t.strictSame(expecting, ['/waits']);
  stream.close();
});

void t.test('closing ends sessions without requests at once and the others after their last answer', async (t) => {
  const { client, sessions, asked, url } = await listening(t);
  const [idle, busy] = [await client(), await client()];
  const { stream, response } = await asked(busy);
  sessions.close();
  await closed(idle);
  t.notOk(busy.destroyed);
  response.end('the answer');
  await closed(stream);
  t.equal(stream.rstCode, constants.NGHTTP2_NO_ERROR);
  await closed(busy);
  const late = connect(url);
  late.on('error', () => undefined);
  await closed(late);
  t.pass('a connection that comes later is closed');
});

void t.test('breaking off ends everything at once, and a connection that has ended already is not taken', async (t) => {
  const { client, sessions, asked, clock } = await listening(t);
  const session = await client();
  const { response } = await asked(session);
  sessions.breakOff();
  await closed(session);
  await until('the end of the answer', () => response.destroyed);
  t.equal(clock.pending, 0);
  const gone = new Socket();
  gone.destroy();
  sessions.take(gone);
  t.equal(clock.pending, 0);
});
