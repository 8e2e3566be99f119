/**
 * Faults of an origin, each met by a fill, a revalidation and a pass: what each is answered, that no request waits without
 * end, that stale copies are served as long as they may be and never after a takedown or an expiry, and that everything
 * works again after the fault. For the journal see test/edge/journal/journal.test.ts.
 */
import t, { type Test } from 'tap';
import type { MediaId } from '../../src/ids.js';
import { openTestEdge, type TestEdge } from '../kit/edge/edge.js';
import { mediaHead, mediaScript, type Script } from '../kit/edge/scripted-origin.js';
import { listenRaw, type RawServer } from '../kit/http/raw.js';
import { openRelay, type Relay } from '../kit/http/relay.js';
import { type HttpResponse, sendRequest } from '../kit/http/request.js';

const READER = { authorization: 'Bearer reader' };
const UPLOADER = { authorization: 'Bearer uploader' };
const BYTES = Buffer.from('0123456789abcdefghijklmnopqrstuvwxyz');
const idOf = (last: string): MediaId => `01J9ZC8GZ000000000000000${last}0` as MediaId;
const pathOf = (last: string): string => `/v1/media/${idOf(last)}`;
/** Media that are cached and stale, cached and taken down, cached and expired, and not cached. */
const [STALE, GONE, ENDED, NEW] = ['A', 'B', 'C', 'D'] as const;
const PASSED = '/v1/media';

interface Fault {
  readonly name: string;
  /** The fault is on the network, or in the responses of the origin. */
  readonly relay?: 'refuse' | 'partition';
  readonly script?: Script;
  /** The status that a fill and a pass are answered with. */
  readonly status: number;
  /** The fault comes after the head. Such a response is broken off and not replaced. */
  readonly late?: boolean;
  /** The origin answers, with an error. */
  readonly answered?: boolean;
}

const half: Script = async (_seen, answer) => {
  answer.head(200, mediaHead({ bytes: BYTES }));
  await answer.write(BYTES.subarray(0, 5));
};
const late = (then: (answer: Parameters<Script>[1]) => void): Script => {
  return async (seen, answer) => {
    await half(seen, answer);
    then(answer);
  };
};

const FAULTS: readonly Fault[] = [
  { name: 'resets new connections', relay: 'refuse', status: 502 },
  { name: 'is half open: nothing comes back, nothing is closed', relay: 'partition', status: 504 },
  { name: 'never answers', script: () => undefined, status: 504 },
  { name: 'resets before its head', script: (_seen, answer) => answer.reset(), status: 502 },
  { name: 'hangs up before its head', script: (_seen, answer) => answer.hangUp(), status: 502 },
  { name: 'speaks no HTTP', script: (_seen, answer) => answer.raw('220 mail ready\r\n\r\n'), status: 502 },
  {
    name: 'has a head without end',
    script: (_seen, answer) => answer.raw(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`),
    status: 502,
  },
  {
    name: 'answers 500',
    script: (_seen, answer) => {
      answer.head(500, { 'content-length': '0' });
      answer.end();
    },
    status: 500,
    answered: true,
  },
  {
    name: 'answers 503',
    script: (_seen, answer) => {
      answer.head(503, { 'content-length': '0', 'retry-after': '7' });
      answer.end();
    },
    status: 503,
    answered: true,
  },
  { name: 'stops in its body', script: half, status: 200, late: true },
  { name: 'resets in its body', script: late((answer) => answer.reset()), status: 200, late: true },
  { name: 'hangs up in its body', script: late((answer) => answer.hangUp()), status: 200, late: true },
];

interface Bench {
  readonly edge: TestEdge;
  readonly relay: Relay;
}

async function open(t: Test, name: string, upstream = 'breaker: { enabled: false }'): Promise<Bench> {
  const created: { edge?: TestEdge } = {};
  const relay = await openRelay(() => created.edge?.origin.port ?? 0);
  t.teardown(() => relay.close());
  const edge = await openTestEdge(`${t.testdirName}/${name.replaceAll(/\W/g, '-')}`, {
    originUrl: relay.url,
    upstream: `head_within: 300ms, idle: 300ms, ${upstream}`,
    edge: ['pass: { idle_timeout: 500ms }'],
  });
  created.edge = edge;
  t.teardown(() => edge.close());
  return { edge, relay };
}

function recover({ edge, relay }: Bench): void {
  relay.set('pass');
  const [sunset, date] = [60_000, 0].map((aheadMs) => new Date(edge.clock.now() + aheadMs).toUTCString());
  const ending = { sunset: sunset ?? '', date: date ?? '' };
  for (const last of [STALE, GONE, NEW]) edge.origin.on(pathOf(last), media());
  edge.origin.on(pathOf(ENDED), media(ending));
  edge.origin.on(PASSED, (_seen, answer) => {
    answer.head(201, { 'content-length': '0' });
    answer.end();
  });
}

function media(headers: Readonly<Record<string, string>> = {}): Script {
  return (seen, answer) => {
    const id = seen.path.slice(-26);
    return mediaScript({ bytes: BYTES, maxAgeSeconds: 10, headers: { 'media-id': id, ...headers } })(seen, answer);
  };
}

const get = ({ edge }: Bench, last: string): Promise<HttpResponse> =>
  sendRequest(edge.url + pathOf(last), { headers: READER });
const pass = ({ edge }: Bench): Promise<HttpResponse> =>
  sendRequest(edge.url + PASSED, { method: 'POST', headers: UPLOADER, body: 'x' });

t.setTimeout(120_000);
void t.test('an origin in trouble', async (t) => {
  t.testdir();
  await Promise.all(FAULTS.map((fault) => t.test(`that ${fault.name}`, { buffered: true }, (t) => meet(t, fault))));
});

async function meet(t: Test, fault: Fault): Promise<void> {
  const bench = await open(t, fault.name);
  const { edge, relay } = bench;
  recover(bench);
  for (const last of [STALE, GONE, ENDED]) t.equal((await get(bench, last)).status, 200);
  // All are stale and within stale-if-error; one has expired.
  edge.clock.advance(100_000);
  if (fault.relay !== undefined) {
    relay.set(fault.relay);
    if (fault.relay === 'refuse') relay.cut();
  }
  for (const path of [...[STALE, GONE, ENDED, NEW].map(pathOf), PASSED])
    if (fault.script !== undefined) edge.origin.on(path, fault.script);
  await edge.takeDown(idOf(GONE));

  const [filled, stale, gone, ended, passed] = await Promise.all([
    get(bench, NEW),
    get(bench, STALE),
    get(bench, GONE),
    get(bench, ENDED),
    pass(bench),
  ]);
  for (const [what, answer] of Object.entries({ filled, gone, ended, passed })) {
    t.equal(answer.status, fault.status, what);
    t.equal(answer.whole, fault.late !== true, `${what}: ${fault.late === true ? 'broken off' : 'whole'}`);
    t.notMatch(answer.bytes.toString(), /127\.0\.0\.1|ECONN|undici|node:/, `${what}: nothing internal`);
  }
  for (const answer of [filled, gone, ended]) {
    const status = String(answer.headers['cache-status']);
    t.match(status, fault.answered === true || fault.late === true ? /; fwd-status=\d/ : /; fwd=\S+$/, status);
    t.notMatch(status, /; hit/, 'no copy is served of media that were taken down, have expired or were never cached');
  }
  if (fault.late === true) t.notOk(stale.whole, 'a response that has begun is not replaced');
  else {
    t.same([stale.status, stale.bytes.toString()], [200, BYTES.toString()], 'a stale copy is served');
    t.match(stale.headers['cache-status'], /; hit; ttl=-90; detail=stale-if-error/);
    edge.clock.advance(600_000);
    t.equal((await get(bench, STALE)).status, fault.status, 'but no longer than the origin allowed');
  }
  t.equal(edge.engine.flights.underWay, 0, 'no fetch is left');
  if (fault.relay === 'partition') relay.cut();
  recover(bench);
  for (const last of [NEW, STALE, GONE]) {
    const answer = await get(bench, last);
    t.same(
      [answer.status, answer.whole, answer.bytes.toString()],
      [200, true, BYTES.toString()],
      'all is well after the fault',
    );
  }
  t.equal((await pass(bench)).status, 201);
}

void t.test('fills and passes give up an origin whose TLS handshake never ends', async (t) => {
  t.testdir();
  const mute: RawServer = await listenRaw(() => {});
  t.teardown(() => mute.close());
  const edge = await openTestEdge(`${t.testdirName}/mute`, {
    originUrl: `https://127.0.0.1:${mute.port}`,
    upstream: 'connect_within: 300ms, retries: 0',
    edge: ['pass: { connect_timeout: 300ms, idle_timeout: 1h }'],
  });
  t.teardown(() => edge.close());
  const [filled, passed] = await Promise.all([
    sendRequest(edge.url + pathOf(NEW), { headers: READER }),
    sendRequest(edge.url + PASSED, { method: 'POST', headers: UPLOADER, body: 'x' }),
  ]);
  t.equal(filled.status, 504);
  t.equal(passed.status, 504);
});

void t.test('the breaker opens for an origin that does not answer, not for one that answers with errors', async (t) => {
  t.testdir();
  const without = FAULTS.filter(
    ({ relay, script, status }) => relay === 'refuse' || (script !== undefined && status !== 504),
  );
  for (const fault of without) {
    const bench = await open(t, `breaker ${fault.name}`, 'retries: 0, breaker: { failures: 2, after: 0ms, open: 2s }');
    const { edge, relay } = bench;
    recover(bench);
    if (fault.relay !== undefined) relay.set(fault.relay);
    if (fault.script !== undefined) edge.origin.on(pathOf(NEW), fault.script);
    for (let time = 0; time < 2; time += 1) await get(bench, NEW);
    const opens = fault.answered !== true && fault.late !== true;
    const { breaker } = edge.engine.upstream.stats();
    t.equal(breaker, opens ? 'open' : 'closed', `${fault.name}: ${breaker}`);
    if (!opens) continue;
    const before = relay.accepted;
    recover(bench);
    t.equal((await get(bench, NEW)).status, 502);
    t.equal(relay.accepted, before, 'no request is sent to the origin');
    t.equal((await pass(bench)).status, 201, 'except those that are passed');
    edge.clock.advance(2_000);
    t.equal((await get(bench, NEW)).status, 200, 'until it is tried again after a while');
    t.equal(edge.engine.upstream.stats().breaker, 'closed');
  }
});
