/** Who may share a fetch, and what a fetch gives back whatever becomes of it. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t, { type Test } from 'tap';
import { createFlights, type Flight } from '../../../edge/fetch/flight.js';
import type { MediaId } from '../../../src/ids.js';
import { openTestEdge, type TestEdge, type TestEdgeOptions } from '../../kit/edge/edge.js';
import { mediaHead, mediaScript, type Script, type ScriptedResponse } from '../../kit/edge/scripted-origin.js';
import { startDownload } from '../../kit/http/download.js';
import { sendRequest } from '../../kit/http/request.js';
import { until } from '../../kit/until.js';

const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const PATH = `/v1/media/${ID}`;
const READER = { authorization: 'Bearer reader' };
const BYTES = Buffer.alloc(200_000, '0123456789');

async function open(t: Test, options: TestEdgeOptions = {}): Promise<TestEdge> {
  const edge = await openTestEdge(t.testdir(), options);
  t.teardown(() => edge.close());
  return edge;
}

/** Sends the first half, and the second when it is told to. */
function inHalves(headers: Readonly<Record<string, string>> = {}): { readonly script: Script; go(): void } {
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  return {
    go,
    script: async (_seen, answer) => {
      answer.head(200, { ...mediaHead({ bytes: BYTES }), ...headers });
      await answer.write(BYTES.subarray(0, 100_000));
      await gate;
      answer.end(BYTES.subarray(100_000));
    },
  };
}

void t.test('without its lease an edge lets nobody join a fetch that began before', async (t) => {
  const edge = await open(t);
  const arriving = inHalves();
  edge.origin.on(PATH, arriving.script);
  const first = await startDownload(edge.url + PATH, READER);
  await first.until(100_000);
  edge.origin.on(PATH, mediaScript({ bytes: BYTES }));
  const joined = await startDownload(edge.url + PATH, READER);
  t.match(joined.headers['cache-status'], /; collapsed/, 'with its lease it does');
  await joined.until(100_000);
  edge.lease = 'revalidate';
  const fresh = await sendRequest(edge.url + PATH, { headers: READER });
  t.equal(fresh.status, 200);
  t.match(fresh.headers['cache-status'], /detail=fresh-wanted/);
  t.notMatch(fresh.headers['cache-status'], /collapsed/);
  t.equal(edge.origin.count(PATH), 2, 'the origin was asked for this caller');
  edge.origin.on(PATH, (_seen, answer) => {
    answer.head(410, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
    answer.end('{"code":"deleted"}');
  });
  t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 410, 'and what it says now counts');
  t.equal((await sendRequest(edge.url + PATH, { method: 'HEAD', headers: READER })).status, 410, 'for HEAD too');
  edge.lease = 'refuse';
  t.equal((await sendRequest(edge.url + PATH, { headers: READER })).status, 503);
  arriving.go();
  await Promise.all([first.ended, joined.ended]);
});

void t.test('a change that goes through the edge makes what is incomplete invalid too', async (t) => {
  const edge = await open(t, { edge: ['access: off'] });
  const asked = { 'accept-language': 'de' };
  for (const [method, vary] of [
    ['PUT', 'accept-language'],
    ['POST', ''],
    ['DELETE', 'accept-language'],
    ['PATCH', ''],
  ] as const) {
    const path = `/of/${method}`;
    const fields = { 'cache-control': 'max-age=600', etag: '"one"', 'accept-ranges': 'bytes', vary };
    edge.origin.on(path, async (seen, answer) => {
      if (seen.method === 'GET') {
        answer.head(200, { ...fields, 'content-length': String(BYTES.length) });
        await answer.write(BYTES.subarray(0, 100_000));
        answer.reset();
      } else {
        answer.head(204);
        answer.end();
      }
    });
    await (await startDownload(edge.url + path, asked)).ended;
    await until('a part is kept', () => edge.engine.cache.stats().incomplete.entries === 1);
    const part = await sendRequest(edge.url + path, { headers: { ...asked, range: 'bytes=2-5' } });
    t.same([part.status, part.bytes.toString()], [206, '2345'], 'a range of it is answered');
    t.equal(edge.origin.count(path), 1);
    t.equal((await sendRequest(edge.url + path, { method })).status, 204);
    t.equal(edge.engine.cache.stats().incomplete.entries, 0, method);
    edge.origin.on(path, (_seen, answer) => {
      answer.head(200, { ...fields, etag: '"two"', 'content-length': '10' });
      answer.end('abcdefghij');
    });
    const after = await sendRequest(edge.url + path, { headers: { ...asked, range: 'bytes=2-5' } });
    t.same([after.status, after.bytes.toString()], [206, 'cdef'], `after ${method} the new bytes are sent`);
  }
});

void t.test('whatever becomes of a fetch, its place is free again', async (t) => {
  const edge = await open(t, {
    edge: ['fill: { finish_share: 1, finish: 0 }'],
    upstream: 'connections_max: 2',
  });
  const ways: readonly (readonly [what: string, script: Script, leave?: boolean])[] = [
    ['it is stored', mediaScript({ bytes: BYTES })],
    ['it may not be stored', mediaScript({ bytes: BYTES, headers: { 'cdn-cache-control': 'no-store' } })],
    ['its hash is wrong', mediaScript({ bytes: BYTES, headers: { 'repr-digest': `sha-256=:${'A'.repeat(43)}=:` } })],
    ['there is none', (_seen, answer) => refuse(answer, 404)],
    ['the origin fails', (_seen, answer) => refuse(answer, 500)],
    ['the origin resets the connection', (_seen, answer) => answer.reset()],
    ['the origin sends no HTTP', (_seen, answer) => answer.raw('what')],
    [
      'the body breaks off',
      async (_seen, answer) => {
        answer.head(200, mediaHead({ bytes: BYTES }));
        await answer.write(BYTES.subarray(0, 1_000));
        answer.hangUp();
      },
    ],
    ['the client leaves before the head', () => undefined, true],
    [
      'the client leaves during the body',
      async (_seen, answer) => {
        answer.head(200, mediaHead({ bytes: BYTES }));
        await answer.write(BYTES.subarray(0, 1_000));
      },
      true,
    ],
  ];
  for (const [number, [what, script, leave = false]] of ways.entries()) {
    const path = `/v1/media/01J9ZC8GZ00000000000000${String(number).padStart(3, '0')}`;
    edge.origin.on(path, script);
    if (leave) {
      const leaving = new AbortController();
      const asked = fetch(edge.url + path, { headers: READER, signal: leaving.signal }).then(
        (response) => response.arrayBuffer().catch(() => undefined),
        () => undefined,
      );
      await edge.origin.arrived(path);
      leaving.abort();
      await asked;
    } else {
      const reading = await startDownload(edge.url + path, READER);
      await reading.ended;
    }
    await until(`${what}: the flight has ended`, () => edge.engine.flights.underWay === 0);
    t.equal(edge.engine.flights.fetching, 0, what);
    await until(`${what}: the connection is free`, () => edge.engine.upstream.stats().inFlight === 0);
    t.equal(edge.engine.cache.stats().fills, 0, what);
  }
});

function refuse(answer: ScriptedResponse, status: number): void {
  answer.head(status, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
  answer.end('{"code":"no"}');
}

void t.test('a flight that has ended is forgotten', async (t) => {
  const flights = createFlights<string>(() => ({ concurrentMax: 1_000, waitersMax: 10 }));
  const started: WeakRef<Flight<string>>[] = [];
  const begin = async (number: number): Promise<void> => {
    const joining = flights.joinOrStart(
      {
        key: `key ${number}`,
        primaryKey: 'primary',
        mediaId: number % 2 === 0 ? ID : null,
        background: number % 3 === 0,
        async run(flight) {
          flight.finish();
          return 'done';
        },
      },
      new AbortController().signal,
    );
    if (joining.kind === 'full') throw new Error('there is no limit here');
    started.push(new WeakRef(joining.flight));
    await joining.flight.result;
  };
  for (let number = 0; number < 60; number += 1) await begin(number);
  t.same([flights.underWay, flights.fetching], [0, 0]);
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let round = 0; round < 3; round += 1) {
    await new Promise(setImmediate);
    collect();
  }
  const left = started.filter((flight) => flight.deref() !== undefined).length;
  t.ok(left <= 2, `${left} of 60 are still held`);
});
