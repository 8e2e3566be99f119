/** Several origins over one database, on real sockets: which is asked, when another is, and which one the journal is followed at. */
import t, { type Test } from 'tap';
import { edgeSection } from '../../../edge/config.js';
import { originFaults, originWarnings, type UpstreamConfig, upstreamSection } from '../../../edge/upstream/config.js';
import type { UpstreamOutcome, UpstreamRequest } from '../../../edge/upstream/request.js';
import { openUpstream, type Upstream } from '../../../edge/upstream/upstream.js';
import { edgeWarnings } from '../../../edge/warnings.js';
import { parseConfig } from '../../../src/config/load.js';
import { ManualClock, turns, untilInTime } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { openScriptedOrigin, type ScriptedOrigin } from '../../kit/edge/scripted-origin.js';
import { ownPort } from '../../kit/ports.js';
import { until } from '../../kit/until.js';

interface Bench {
  /** In the order in which they are asked for `/x`. */
  readonly origins: readonly [ScriptedOrigin, ScriptedOrigin];
  readonly upstream: Upstream;
  readonly clock: ManualClock;
  readonly sample: (name: string) => Promise<number>;
  readonly get: (target?: string, over?: Partial<UpstreamRequest>) => Promise<UpstreamOutcome>;
  readonly states: () => readonly string[];
}

/** The limits of the requests themselves are far away. */
function configOf(section: Readonly<Record<string, unknown>>): UpstreamConfig {
  const limits = { connect_within: '60s', head_within: '1h', idle: '60s', breaker: { after: '0s', failures: 2 } };
  return upstreamSection.schema({ env: () => undefined, file: () => undefined }).parse({ ...limits, ...section });
}

function openFor(t: Test, urls: readonly string[], over: Readonly<Record<string, unknown>> = {}) {
  const clock = new ManualClock();
  const { log, metrics, sample } = testDeps();
  const upstream = openUpstream({ config: configOf({ urls, ...over }), edgeName: 'edge', clock, log, metrics });
  t.teardown(() => upstream.close());
  const never = new AbortController().signal;
  return {
    upstream,
    clock,
    sample,
    get: (target = '/x', more: Partial<UpstreamRequest> = {}) =>
      upstream.fetch({ method: 'GET', target, headers: [], ...more }, never),
    states: () => upstream.stats().origins.map(({ state }) => state),
  };
}

async function setUp(t: Test, over: Readonly<Record<string, unknown>> = {}): Promise<Bench> {
  const both = [await openScriptedOrigin(), await openScriptedOrigin()];
  for (const each of both) t.teardown(() => each.close());
  // Whichever is asked first for the target of the tests is `first`.
  const probe = openFor(
    t,
    both.map(({ url }) => url),
  );
  const urls = probe.upstream.inOrder('/x').map(({ url }) => url);
  const [first, second] = urls.map((url) => both.find((each) => each.url === url));
  if (first === undefined || second === undefined) throw new Error('both origins have a place');
  for (const each of both) each.on('*', (_seen, answer) => reply(answer, each === first ? 'first' : 'second'));
  return { origins: [first, second], ...openFor(t, urls, over) };
}

type Answer = Parameters<Parameters<ScriptedOrigin['on']>[1]>[1];

function reply(answer: Answer, text: string, status = 200): void {
  answer.head(status, { 'content-length': String(text.length) });
  answer.end(text);
}

async function textOf(outcome: UpstreamOutcome): Promise<string> {
  if (outcome.kind === 'failed') return outcome.failure;
  const pieces: Buffer[] = [];
  for await (const piece of outcome.body) pieces.push(piece as Buffer);
  return Buffer.concat(pieces).toString();
}

void t.test('a target is asked for at the same origin each time, and targets are spread', async (t) => {
  const { get, origins } = await setUp(t);
  for (let round = 0; round < 3; round += 1) t.equal(await textOf(await get()), 'first');
  const answers = new Set<string>();
  for (let number = 0; number < 20; number += 1) answers.add(await textOf(await get(`/${number}`)));
  t.same([...answers].sort(), ['first', 'second']);
  t.equal(origins[1].count('/x'), 0);
  t.notOk(
    origins.some(({ seen }) => seen.some(({ path }) => path.endsWith('z'))),
    'a healthy origin is asked for nothing else',
  );
});

void t.test('where nobody listens the next origin is asked, and the first one again once it is ready', async (t) => {
  const { origins, ...rest } = await setUp(t);
  const port = await ownPort();
  const urls = [`http://127.0.0.1:${port}`, origins[1].url];
  const { get, clock, states, upstream, sample } = openFor(t, urls);
  const targets = Array.from({ length: 40 }, (_, number) => `/${number}`);
  const atDead = targets.find((target) => upstream.inOrder(target)[0]?.url === urls[0]) ?? '';
  t.equal(await textOf(await get(atDead, { method: 'POST', body: Buffer.from('x') })), 'second', 'nothing was sent');
  t.same(states(), ['down', 'up']);
  const before = upstream.stats().origins[0]?.requests;
  for (const target of targets) t.equal(await textOf(await get(target)), 'second');
  t.equal(upstream.stats().origins[0]?.requests, before, 'an origin that is down is left alone');
  t.equal(await sample(`edge_upstream_origin_up{origin="127.0.0.1:${port}"}`), 0);
  t.equal(await sample(`edge_upstream_moved_total{reason="connect"}`), 1);
  clock.advance(2_000);
  await until('it was asked and is still away', () => clock.pending > 0);
  t.same(states(), ['down', 'up']);
  t.equal(await textOf(await rest.get()), 'first', 'the others of this test are not concerned');
});

void t.test('an origin that was away is asked whether it is ready before it gets requests', async (t) => {
  const { origins, get, clock, states, upstream } = await setUp(t);
  const [first] = origins;
  first.on('/x', (_seen, answer) => answer.reset());
  for (let round = 0; round < 2; round += 1) t.equal(await textOf(await get()), 'second', 'a GET is sent again');
  t.same(states(), ['down', 'up']);
  t.equal(await textOf(await get()), 'second');
  t.equal(first.count('/x'), 2);
  first.on('/x', (_seen, answer) => reply(answer, 'first'));
  first.on('/readyz', (_seen, answer) => reply(answer, '', 503));
  await untilInTime('it says that it is not ready', clock, () => states()[0] === 'unready');
  t.equal(await textOf(await get()), 'second');
  first.on('/readyz', (_seen, answer) => reply(answer, ''));
  await untilInTime('it is ready', clock, () => states()[0] === 'up');
  t.equal(await textOf(await get()), 'first');
  t.equal(upstream.stats().breaker, 'closed');
});

void t.test('a request that may have been carried out is not sent again', async (t) => {
  const { origins, get } = await setUp(t);
  origins[0].on('/x', (_seen, answer) => answer.reset());
  t.equal(await textOf(await get('/x', { method: 'POST', body: Buffer.from('x') })), 'reset');
  t.equal(origins[1].count('/x'), 0);
});

void t.test('an origin that answers nothing loses its requests to another within a second', async (t) => {
  const { origins, get, clock, states } = await setUp(t);
  origins[0].on('*', () => undefined);
  const answer = get();
  await origins[0].arrived('/x');
  clock.advance(300);
  await origins[0].arrived('/healthz');
  clock.advance(500);
  t.equal(await textOf(await answer), 'second');
  t.same(states(), ['down', 'up']);
  t.equal(await textOf(await get()), 'second', 'and others do not wait for it');
  t.equal(origins[0].count('/x'), 1);
});

void t.test('an origin that is slow with one answer keeps the request', async (t) => {
  const { origins, get, clock } = await setUp(t);
  let answerIt = (): void => undefined;
  origins[0].on('/x', (_seen, answer) => {
    answerIt = () => reply(answer, 'late');
  });
  const answer = get();
  await origins[0].arrived('/x');
  await untilInTime('it was asked five times whether it lives', clock, () => origins[0].count('/healthz') >= 5);
  answerIt();
  t.equal(await textOf(await answer), 'late');
  t.equal(origins[1].count('/x'), 0);
});

void t.test('while answers arrive from an origin it is not asked', async (t) => {
  const { origins, get, clock } = await setUp(t);
  origins[0].on('/slow', () => undefined);
  const targets = Array.from({ length: 40 }, (_, number) => `/${number}`);
  void get('/x', { method: 'GET' });
  for (const target of targets) {
    await textOf(await get(target));
    clock.advance(20);
  }
  t.equal(origins[0].count('/healthz'), 0);
});

void t.test('the last origin that is up is not given up because it is slow', async (t) => {
  const { origins, get, clock, states } = await setUp(t);
  for (const each of origins) each.on('*', () => undefined);
  void get();
  await origins[0].arrived('/x');
  clock.advance(300);
  await origins[0].arrived('/healthz');
  clock.advance(500);
  await origins[1].arrived('/x');
  t.same(states(), ['down', 'up']);
  await untilInTime('time passes', clock, () => origins[0].count('/readyz') >= 2, 10_000);
  t.same(states(), ['down', 'up']);
  origins[1].on('*', (_seen, answer) => reply(answer, 'second'));
  t.equal(await textOf(await get('/y')), 'second');
});

void t.test(
  'an origin that says it cannot serve is asked after the others; if none can, its answer stands',
  async (t) => {
    const { origins, get, clock, states } = await setUp(t);
    const [first, second] = origins;
    first.on('*', (_seen, answer) => reply(answer, 'no', 503));
    t.equal(await textOf(await get()), 'second');
    clock.advance(0);
    await until('it was asked whether it is ready', () => states()[0] === 'unready');
    t.equal(await textOf(await get()), 'second');
    t.equal(first.count('/x'), 1);
    second.on('*', (_seen, answer) => reply(answer, 'nor this one', 502));
    const both = await get();
    t.match(both, { kind: 'answered', status: 503 });
    t.equal(await textOf(both), 'no');
    t.equal(
      await textOf(await get('/x', { method: 'POST' })),
      'nor this one',
      'what may have been done is not repeated',
    );
    second.on('*', (_seen, answer) => answer.reset());
    t.match(await get(), { kind: 'answered', status: 503 }, 'an answer is better than none');
  },
);

void t.test(
  'requests of the edge itself go to one origin until they move on, and never back to one that is down',
  async (t) => {
    const { origins, upstream } = await setUp(t);
    const never = new AbortController().signal;
    const own = async (): Promise<string> => {
      const { body } = await upstream.fetchOwn({ method: 'GET', target: '/journal', headers: [] }, never);
      const pieces: Buffer[] = [];
      for await (const piece of body) pieces.push(piece as Buffer);
      return Buffer.concat(pieces).toString();
    };
    const followed = await own();
    for (let round = 0; round < 3; round += 1) t.equal(await own(), followed);
    const isFollowed = () => upstream.stats().origins.map((each) => each.followed);
    t.equal(isFollowed().filter((each) => each).length, 1);
    t.ok(upstream.moveOn());
    const other = await own();
    t.not(other, followed);
    const left = origins[followed === 'first' ? 0 : 1];
    await left.close();
    upstream.moveOn();
    await t.rejects(own(), 'it is gone');
    await t.rejects(own(), 'not only the connection that was kept');
    t.ok(upstream.moveOn());
    t.equal(await own(), other);
    t.notOk(upstream.moveOn(), 'there is no other that is up');
  },
);

void t.test('a stream of an origin that falls silent ends, so that another can be followed', async (t) => {
  const { origins, upstream, clock } = await setUp(t);
  for (const each of origins) {
    each.on('/journal', (_seen, answer) => answer.head(200));
    each.on('/healthz', () => undefined);
  }
  const never = new AbortController().signal;
  const { body } = await upstream.fetchOwn({ method: 'GET', target: '/journal', headers: [] }, never);
  body.on('error', () => undefined).resume();
  await untilInTime('the stream ends', clock, () => body.destroyed);
  t.ok(clock.monotonicMs() < 3_000, 'long before three beats are missed and a lease lapses');
  t.ok(upstream.moveOn());
});

void t.test('a stream that beats goes on', async (t) => {
  const { origins, upstream, clock } = await setUp(t);
  let beat = async (): Promise<void> => undefined;
  for (const each of origins) {
    each.on('/journal', (_seen, answer) => {
      answer.head(200);
      beat = () => answer.write('beat\n');
    });
  }
  const never = new AbortController().signal;
  const { body } = await upstream.fetchOwn({ method: 'GET', target: '/journal', headers: [] }, never);
  let received = 0;
  body.on('error', () => undefined).on('data', () => (received += 1));
  for (let second = 1; second <= 5; second += 1) {
    clock.advance(1_000);
    await beat();
    await until('the beat', () => received === second);
  }
  t.notOk(body.destroyed);
  t.notOk(origins.some(({ seen }) => seen.some(({ path }) => path === '/healthz')));
  body.destroy();
  await turns(3);
});

void t.test('check refuses an origin that is named twice, and warns of what is not asked', (t) => {
  const [a, b] = ['http://127.0.0.1:9000', 'http://127.0.0.1:9010'];
  const pathsOf = (faults: readonly { readonly path: string }[]): readonly string[] => faults.map(({ path }) => path);
  t.same(pathsOf(originFaults(configOf({ urls: [a, b, `${a}/`] }))), ['edge.upstream.urls.2']);
  t.same(pathsOf(originFaults(configOf({ urls: [a, b] }))), []);
  t.same(pathsOf(originWarnings(configOf({ url: b, urls: [a] }))), ['edge.upstream.url']);
  t.same(pathsOf(originWarnings(configOf({ url: b, urls: [a, b] }))), []);
  t.same(pathsOf(originWarnings(configOf({ url: b, breaker: { enabled: false } }))), []);
  t.same(pathsOf(originWarnings(configOf({ urls: [a, b], breaker: { enabled: false } }))), [
    'edge.upstream.breaker.enabled',
  ]);
  const clear = parseConfig('edge: { upstream: { urls: ["http://127.0.0.1:1", "http://origin.example:2"] } }', {
    edge: edgeSection,
  });
  if (clear.kind === 'faulty') throw new Error(JSON.stringify(clear.faults));
  t.same(pathsOf(edgeWarnings(clear.config.edge)), ['edge.upstream.urls.1'], 'a secret in clear');
  t.end();
});
