/** Requests that are passed to one of several origins: the same one for a client, another one while nothing is lost by that. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { passSection } from '../../../edge/pass/config.js';
import { createPass } from '../../../edge/pass/pass.js';
import { upstreamSection } from '../../../edge/upstream/config.js';
import { openUpstream } from '../../../edge/upstream/upstream.js';
import { ManualClock, untilInTime } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { openScriptedOrigin, type ScriptedOrigin } from '../../kit/edge/scripted-origin.js';
import { sendRequest } from '../../kit/http/request.js';
import { ownPort } from '../../kit/ports.js';

const CLIENT = '192.0.2.7';
const LARGE = Buffer.alloc(200_000, 'x');

interface Bench {
  readonly url: string;
  readonly clock: ManualClock;
  /** The address of the client of the next requests. */
  client: string;
  states(): readonly string[];
}

/** An edge that only passes requests on, to these origins in any order. */
async function openEdge(t: Test, urls: readonly string[]): Promise<Bench> {
  const clock = new ManualClock();
  const { log, metrics } = testDeps();
  const upstream = openUpstream({ config: configured(upstreamSection, { urls }), clock, log, metrics });
  const pass = createPass({
    config: configured(passSection, {}),
    origins: upstream,
    originTls: {},
    mode: 'media',
    edgeName: 'edge',
    rates: { admit: () => undefined },
    onUnsafe: () => undefined,
    clock,
    log,
    metrics,
  });
  const bench = { client: CLIENT };
  const signal = new AbortController().signal;
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    const sender = { subject: undefined, admin: false };
    void pass.handle(request, response, { requestId: 'r', sender, clientAddress: bench.client, signal });
  };
  const server = createServer().on('request', handle).on('checkContinue', handle);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(async () => {
    server.closeAllConnections();
    server.close();
    await pass.close();
    await upstream.close();
  });
  const { port } = server.address() as AddressInfo;
  const states = (): readonly string[] => upstream.stats().origins.map(({ state }) => state);
  return Object.assign(bench, { url: `http://127.0.0.1:${port}`, clock, states });
}

/** Two origins; the one that the client's requests go to comes first. */
async function openTwo(t: Test): Promise<{ edge: Bench; first: ScriptedOrigin; second: ScriptedOrigin }> {
  const both = [await openScriptedOrigin(), await openScriptedOrigin()];
  for (const each of both) {
    t.teardown(() => each.close());
    each.on('*', ({ body }, answer) => {
      answer.head(200);
      answer.end(String(body.length));
    });
  }
  const edge = await openEdge(
    t,
    both.map(({ url }) => url),
  );
  await sendRequest(`${edge.url}/which`, { method: 'DELETE' });
  const [one, other] = both;
  if (one === undefined || other === undefined) throw new Error('there are two');
  return one.count('/which') === 1 ? { edge, first: one, second: other } : { edge, first: other, second: one };
}

const upload = (edge: Bench, body: Buffer, path = '/v1/media') =>
  sendRequest(edge.url + path, { method: 'POST', headers: { 'content-type': 'text/plain' }, body });

void t.test('all requests of a client go to one origin, those of many clients to all', async (t) => {
  const { edge, first, second } = await openTwo(t);
  for (let number = 0; number < 3; number += 1) await upload(edge, LARGE, `/same/${number}`);
  t.equal(second.seen.length, 0);
  for (let number = 0; number < 20; number += 1) {
    edge.client = `192.0.2.${number}`;
    await upload(edge, Buffer.from('x'));
  }
  t.ok(first.count('/v1/media') > 0 && second.count('/v1/media') > 0);
  t.equal(first.seen[0]?.headers['host'], new URL(first.url).host);
  t.equal(second.seen[0]?.headers['host'], new URL(second.url).host, 'each is addressed by its own name');
});

void t.test('an upload whose origin is gone reaches the other one whole, whatever its size', async (t) => {
  const alive = await openScriptedOrigin();
  t.teardown(() => alive.close());
  alive.on('*', ({ body }, answer) => {
    answer.head(200);
    answer.end(String(body.length));
  });
  const dead = `http://127.0.0.1:${await ownPort()}`;
  for (const body of [Buffer.from('small'), LARGE]) {
    const edge = await openEdge(t, [dead, alive.url]);
    for (let number = 0; number < 8; number += 1) {
      edge.client = `192.0.2.${number}`;
      const answer = await upload(edge, body);
      t.equal(answer.status, 200);
      t.equal(answer.bytes.toString(), String(body.length));
    }
    t.same(edge.states(), ['down', 'up'], 'after the first of them nobody asks it');
  }
});

void t.test(
  'an upload that waits for an origin that answers nothing goes to the other one, unless its body is sent',
  async (t) => {
    const { edge, first, second } = await openTwo(t);
    // Takes connections and reads nothing that it would answer.
    const silent = createServer();
    silent.on('checkContinue', () => undefined).on('request', () => undefined);
    await first.close();
    silent.listen(first.port, '127.0.0.1');
    await once(silent, 'listening');
    t.teardown(() => {
      silent.closeAllConnections();
      silent.close();
    });
    const heads: string[] = [];
    silent.on('checkContinue', (request) => heads.push(request.url ?? ''));
    const large = upload(edge, LARGE);
    // The origin is asked whether it lives before the wait for its 100 is over.
    await untilInTime('the other one is asked', edge.clock, () => second.count('/v1/media') === 1, 50);
    const answer = await large;
    t.equal(answer.bytes.toString(), String(LARGE.length));
    t.same(heads, ['/v1/media'], 'the first one got the head alone');
    t.same([...edge.states()].sort(), ['down', 'up']);
  },
);

void t.test('a DELETE is sent again to another origin, an upload that was sent is not', async (t) => {
  const { edge, first, second } = await openTwo(t);
  first.on('/v1/media', (_seen, answer) => answer.reset());
  t.equal((await sendRequest(`${edge.url}/v1/media`, { method: 'DELETE' })).status, 200);
  t.equal(second.count('/v1/media', 'DELETE'), 1);
  t.equal((await upload(edge, Buffer.from('x'))).status, 502);
  t.equal(second.count('/v1/media', 'POST'), 0);
});

void t.test('an upload that is refused with 503 before its body is sent goes to another origin', async (t) => {
  const { edge, first, second } = await openTwo(t);
  await first.close();
  const busy = createServer();
  busy.on('checkContinue', (_request, response) => void response.writeHead(503).end());
  busy.on('request', (_request, response) => void response.writeHead(503).end('busy'));
  busy.listen(first.port, '127.0.0.1');
  await once(busy, 'listening');
  t.teardown(() => {
    busy.closeAllConnections();
    busy.close();
  });
  const answer = await upload(edge, LARGE);
  t.equal(answer.status, 200);
  t.equal(answer.bytes.toString(), String(LARGE.length));
  t.equal(second.count('/v1/media'), 1);
  t.equal((await upload(edge, Buffer.from('x'))).status, 200, 'a small body waits too while there is another origin');
});
