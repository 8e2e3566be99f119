/**
 * Dripping, silent, slow and flooding clients beside one that behaves: its requests succeed, each within a bound. All of
 * them come through an edge to an origin, as processes with their default limits.
 */
import { connect, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { requestHead } from '../../kit/http/raw.js';
import { member, sendRequest } from '../../kit/http/request.js';
import { largePng, png } from '../../kit/media.js';
import { asCaller, openProcesses, type Processes } from '../../kit/processes.js';
import { until, untilAsync } from '../../kit/until.js';

t.setTimeout(120_000);

/** What one request may take on a busy machine. Requests that wait for a hostile client take as long as that one likes. */
const BOUND_MS = 5_000;
/** How long each kind of client is borne. */
const BESIDE_MS = 2_000;
const DRIP_MS = 100;

interface Bench {
  readonly processes: Processes;
  readonly edgeUrl: string;
  /** A body of several MB that anybody may read. */
  readonly largePath: string;
}

async function open(t: Test): Promise<Bench> {
  const processes = await openProcesses(t.testdir());
  t.teardown(() => processes.close());
  const still = { thumbs: { enabled: false, video: { enabled: false } } };
  const origin = await processes.launch('origin', { upload: { free_min: '0B' }, ...still });
  const edge = await processes.launch('edge', {
    upstream: { url: await origin.ready },
    cache: { disk: { min_free: '0B' } },
  });
  const edgeUrl = await edge.ready;
  await untilAsync('the edge to be ready', async () => (await sendRequest(`${edgeUrl}/readyz`)).status === 200);
  const body = largePng(0, 4_000_000);
  const answer = await sendRequest(
    `${edgeUrl}/v1/media?public=true`,
    asCaller(processes.user, { method: 'POST', body }),
  );
  t.equal(answer.status, 201);
  return { processes, edgeUrl, largePath: `/v1/media/${member(answer, 'id')}` };
}

/** Starts clients of one kind on the address of a stranger. */
interface Kind {
  readonly what: string;
  readonly count: number;
  readonly begin: (socket: Socket, bench: Bench) => void;
}

const HOSTILE = '127.0.0.2';

/** Sends a text, then one byte more now and then. */
function drip(socket: Socket, first: string): void {
  socket.write(first);
  const timer = setInterval(() => socket.write('x'), DRIP_MS);
  socket.once('close', () => clearInterval(timer));
  socket.resume();
}

const KINDS: readonly Kind[] = [
  { what: 'say nothing', count: 200, begin: (socket) => void socket.resume() },
  {
    what: 'drip a head',
    count: 200,
    begin: (socket) => drip(socket, 'GET /healthz HTTP/1.1\r\nhost: test\r\nx-slow: '),
  },
  {
    what: 'drip a body without a token',
    count: 300,
    begin: (socket) => drip(socket, requestHead('POST', '/v1/media', { 'content-length': 1_000_000 })),
  },
  {
    what: 'drip a body with the token of another user',
    count: 300,
    begin: (socket, { processes }) =>
      drip(socket, requestHead('POST', '/v1/media', { ...processes.other, 'content-length': 1_000_000 })),
  },
  {
    what: 'never read what they asked for',
    count: 100,
    begin(socket, { largePath }) {
      socket.write(requestHead('GET', largePath, {}));
      socket.pause();
    },
  },
  {
    what: 'flood with ids that nobody knows',
    count: 6,
    begin(socket, { processes }) {
      const ask = (): void => {
        const id = `01J9ZC8GZ0${String(Math.floor(Math.random() * 1e16)).padStart(16, '0')}`;
        socket.write(requestHead('GET', `/v1/media/${id}`, processes.other));
      };
      socket.on('data', ask);
      ask();
    },
  },
];

/** One round of what a client that behaves does. Returns its answers and the longest time that one took. */
async function round({ processes, edgeUrl, largePath }: Bench, seed: number) {
  let longestMs = 0;
  const timed = async (...[path, options]: Parameters<typeof sendRequest>) => {
    const fromMs = performance.now();
    const answer = await sendRequest(edgeUrl + path, options);
    longestMs = Math.max(longestMs, performance.now() - fromMs);
    return answer;
  };
  const large = await timed(largePath);
  const upload = await timed('/v1/media', asCaller(processes.user, { method: 'POST', body: png(seed) }));
  const path = upload.headers['location'] ?? '';
  const read = await timed(path, asCaller(processes.user));
  const removed = await timed(path, asCaller(processes.admin, { method: 'DELETE' }));
  const gone = await timed(path, asCaller(processes.user));
  return { statuses: [large, upload, read, removed, gone].map(({ status }) => status), longestMs };
}

void t.test('a client that behaves is served beside clients that do not', async (t) => {
  const bench = await open(t);
  const port = Number(new URL(bench.edgeUrl).port);
  let seed = 0;
  for (const { what, count, begin } of KINDS) {
    await t.test(`beside ${count} that ${what}`, async (t) => {
      let opened = 0;
      const sockets = Array.from({ length: count }, () => {
        const socket = connect({ port, host: '127.0.0.1', localAddress: HOSTILE, noDelay: true });
        socket.on('error', () => undefined);
        socket.once('connect', () => {
          opened += 1;
          begin(socket, bench);
        });
        return socket;
      });
      t.teardown(() => void sockets.map((socket) => socket.destroy()));
      await until('all are connected', () => opened === count);
      let longestMs = 0;
      let rounds = 0;
      for (const fromMs = performance.now(); performance.now() - fromMs < BESIDE_MS; rounds += 1) {
        seed += 1;
        const done = await round(bench, seed);
        longestMs = Math.max(longestMs, done.longestMs);
        t.same(done.statuses, [200, 201, 200, 204, 410]);
        if (longestMs > BOUND_MS) break;
      }
      t.ok(longestMs < BOUND_MS, `${rounds} rounds, the longest request took ${Math.round(longestMs)} ms`);
      for (const socket of sockets) socket.destroy();
    });
  }
  t.equal((await sendRequest(`${bench.edgeUrl}/readyz`)).status, 200);
});
