import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { upstreamSection } from '../../../edge/upstream/config.js';
import type { UpstreamOutcome, UpstreamRequest } from '../../../edge/upstream/request.js';
import type { Upstream } from '../../../edge/upstream/upstream.js';
import { openPeers, socketOf } from '../../../edge/workers/peers.js';
import { ownerOf } from '../../../edge/workers/share.js';
import { Budget } from '../../../src/budget.js';
import { systemClock } from '../../../src/clock.js';
import type { JournalPosition } from '../../../src/journal/entry.js';
import { configured, testDeps } from '../../kit/deps.js';

const NEVER = new AbortController().signal;
const POSITION: JournalPosition = { journal: 'j', seq: 7, mark: 'm' };
/** The first targets that each of two workers owns. */
const [OWN, OTHERS] = [1, 2].map(
  (owner) => Array.from({ length: 50 }, (_, at) => `/v1/media/${at}`).find((each) => ownerOf(each, 2) === owner) ?? '',
) as [string, string];

async function open(t: Test, status = 200, position: JournalPosition | null | 'unknown' = POSITION) {
  // Paths of sockets have to be short.
  const folder = await mkdtemp(join(tmpdir(), 'peers-'));
  const atPeer: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    atPeer.push(request);
    response.writeHead(status, { 'content-length': 4 }).end('peer');
  });
  server.listen(socketOf(folder, 2));
  await once(server, 'listening');
  const atOrigin: UpstreamRequest[] = [];
  const origin = {
    tlsTrouble: 'expired',
    async fetch(request: UpstreamRequest): Promise<UpstreamOutcome> {
      atOrigin.push(request);
      return { kind: 'failed', failure: 'connect' };
    },
  } as unknown as Upstream;
  const config = configured(upstreamSection, { connectWithinMs: 1_000 });
  const limits = {
    connectionsMax: 4,
    slowMax: 0,
    idleMs: 1_000,
    ahead: { budget: new Budget(1_000_000), bodyMaxBytes: 1_000_000 },
  };
  const place = { number: 1, of: 2 };
  const { metrics } = testDeps();
  const peers = openPeers({ place, folder, config, limits, clock: systemClock, metrics });
  t.teardown(async () => {
    await peers.close();
    server.close();
    server.closeAllConnections();
    await rm(folder, { recursive: true, force: true });
  });
  const route = peers.route(origin, () => (position === 'unknown' ? undefined : position));
  const get = (target: string, signal = NEVER) =>
    route.fetch({ method: 'GET', target, headers: [['accept', '*/*']] }, signal);
  return { route, get, atPeer, atOrigin, server };
}

void t.test('what this worker owns is fetched from the origin, and the rest from its owner', async (t) => {
  const { route, get, atPeer, atOrigin } = await open(t);
  await get(OWN);
  t.same([atPeer.length, atOrigin.map(({ target }) => target)], [0, [OWN]]);
  const outcome = await get(OTHERS);
  t.match(outcome, { kind: 'answered', status: 200, sizeBytes: 4 });
  t.same([atPeer[0]?.url, atPeer[0]?.headers['media-position'], atOrigin.length], [OTHERS, 'j/7/m', 1]);
  t.equal(route.tlsTrouble, 'expired', 'that of the origin');
});

void t.test('without a journal the owner is asked without a position', async (t) => {
  const { get, atPeer } = await open(t, 200, null);
  await get(OTHERS);
  t.equal(atPeer[0]?.headers['media-position'], undefined);
});

void t.test('a worker that does not know how far it is in the journal asks the origin', async (t) => {
  const { get, atPeer, atOrigin } = await open(t, 200, 'unknown');
  await get(OTHERS);
  t.same([atPeer.length, atOrigin.length], [0, 1]);
});

void t.test('the origin is asked where the owner is away, behind or overloaded, and nowhere else', async (t) => {
  for (const status of [421, 503]) {
    const { get, atOrigin } = await open(t, status);
    t.match(await get(OTHERS), { kind: 'failed' }, 'the answer of the origin');
    t.same(
      atOrigin.map(({ headers }) => headers),
      [[['accept', '*/*']]],
      `${status}: without the position`,
    );
  }
  for (const status of [304, 404, 410, 502]) {
    const { get, atOrigin } = await open(t, status);
    t.match(await get(OTHERS), { kind: 'answered', status });
    t.equal(atOrigin.length, 0, String(status));
  }
  const { get, atOrigin, server } = await open(t);
  server.close();
  await once(server, 'close');
  await get(OTHERS);
  t.equal(atOrigin.length, 1, 'away');
});

void t.test('a client that has left is asked for nowhere else', async (t) => {
  const { get, atOrigin } = await open(t);
  const leaving = new AbortController();
  leaving.abort();
  t.match(await get(OTHERS, leaving.signal), { kind: 'failed', failure: 'left' });
  t.equal(atOrigin.length, 0);
});
