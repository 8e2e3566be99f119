/** What operators ask about single requests: why one is answered as it is, and which ones end. */
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { FateTable } from '../../../edge/cache/fates.js';
import { runExplain, runLog, runPurge, runTop } from '../../../edge/ops/commands.js';
import { operatorsSection } from '../../../edge/ops/config.js';
import { type ExplainOrder, type Explanation, explain, readExplain } from '../../../edge/ops/explain.js';
import { openOps } from '../../../edge/ops/ops.js';
import { purge } from '../../../edge/ops/purge.js';
import type { StatsSources } from '../../../edge/ops/stats.js';
import { createTally } from '../../../edge/ops/tally.js';
import { createTraffic } from '../../../edge/ops/traffic.js';
import { createWatch, sumOfTops, type WatchedRequest } from '../../../edge/ops/watch.js';
import { mergeLogs, watchingOf } from '../../../edge/ops/watching.js';
import type { EdgeRequest, Exchanged } from '../../../edge/request.js';
import { systemClock } from '../../../src/clock.js';
import type { MediaId } from '../../../src/ids.js';
import { limitsSection } from '../../../src/server/limits.js';
import { ManualClock } from '../../kit/clock.js';
import { configured, testDeps } from '../../kit/deps.js';
import { openTestEdge, type TestEdge } from '../../kit/edge/edge.js';
import { mediaHead } from '../../kit/edge/scripted-origin.js';
import { sendRequest } from '../../kit/http/request.js';
import { ownPort } from '../../kit/ports.js';

const ID = '01J9ZC8GZ0000000000000000A' as MediaId;
const PATH = `/v1/media/${ID}`;
const READER = { authorization: 'Bearer reader' };

function serveMedia(edge: TestEdge, bytes = Buffer.alloc(1_000, 7)): void {
  edge.origin.on(PATH, (_seen, answer) => {
    answer.head(200, mediaHead({ bytes, contentType: 'image/webp' }));
    answer.end(bytes);
  });
}

async function why(edge: TestEdge, target: string, fields: ExplainOrder['fields'] = READER): Promise<Explanation> {
  return await explain(edge.engine, { method: 'GET', target, fields });
}

void t.test('a stored response is explained by its key, tier, freshness and rule', async (t) => {
  const edge = await openTestEdge(t.testdir(), {
    edge: ['rules: [{ type: "video/*", tiers: disk }, { path: original, type: "image/*", ttl: 1h }]'],
  });
  t.teardown(() => edge.close());
  serveMedia(edge);
  t.match(await why(edge, PATH), { answer: 'miss', tier: null, fate: null, rule: null });
  await sendRequest(edge.url + PATH, { headers: READER });
  edge.clock.advance(10_000);
  const explained = await why(edge, `https://chat.example${PATH}`.slice('https://chat.example'.length));
  t.match(explained, { answer: 'hit', key: PATH, tier: 'memory', rule: 2, fate: null });
  const says = explained.says.join('\n');
  t.match(says, /A hit/);
  t.match(says, /in the memory tier, 200, image\/webp, 1000 bytes/);
  t.match(says, /age 10 s, fresh for 3590 s/);
  t.match(says, /number 2 of edge.rules \(path: original, type: image\/\*, ttl: 3600s\)/);
  t.equal(edge.origin.count(PATH), 1, 'the origin is not asked for it');
});

void t.test('a response that is not stored is explained by what became of it', async (t) => {
  const edge = await openTestEdge(t.testdir(), { edge: ['rules: [{ path: thumb, tiers: none }]'] });
  t.teardown(() => edge.close());
  serveMedia(edge);
  await sendRequest(edge.url + PATH, { headers: READER });
  await edge.engine.cache.purge({ prefix: PATH });
  t.match(await why(edge, PATH), { answer: 'miss', fate: { fate: 'purged' } });
  await sendRequest(edge.url + PATH, { headers: READER });
  await edge.engine.cache.purge({ all: true });
  t.match(await why(edge, PATH), { fate: { fate: 'purged' } }, 'with all others');
  await sendRequest(edge.url + PATH, { headers: READER });
  await edge.takeDown(ID);
  t.match(await why(edge, PATH), { fate: { fate: 'taken_down' } });
  edge.origin.on(PATH, (_seen, answer) => {
    answer.head(200, { ...mediaHead({ bytes: Buffer.from('x') }), 'cdn-cache-control': 'no-store' });
    answer.end('x');
  });
  await sendRequest(edge.url + PATH, { headers: READER });
  t.match((await why(edge, PATH)).says.join('\n'), /the response said no-store/);
});

void t.test('the caller of the explained request is judged, and no credential is shown', async (t) => {
  const edge = await openTestEdge(t.testdir());
  t.teardown(() => edge.close());
  serveMedia(edge);
  await sendRequest(edge.url + PATH, { headers: READER });
  const nobody = await why(edge, PATH, {});
  t.match(nobody, { answer: 'refused', tier: 'memory' }, 'an operator may know that it is stored');
  t.match(nobody.says[0], /401/);
  const link = await why(edge, `${PATH}?exp=9999999999&kid=a&sig=good`, {});
  t.equal(link.answer, 'hit');
  const forged = await why(edge, `${PATH}?sig=forged`, { authorization: 'Bearer a-secret-of-its-own' });
  for (const each of [link, forged]) t.notMatch(JSON.stringify(each), /sig=(?:good|forged)|a-secret-of-its-own/);
  edge.lease = 'refuse';
  t.match(await why(edge, PATH), { answer: 'refused' });
  edge.lease = 'revalidate';
  t.match(await why(edge, PATH), { answer: 'revalidate' });
  for (const [path, answer] of [
    ['/v1/media/not-an-id', 'refused'],
    ['/internal/v1/journal', 'refused'],
    ['/v1/uploads', 'passed'],
    [`${PATH}/thumb`, 'passed'],
    ['/.well-known', 'miss'],
  ] as const) {
    t.equal((await why(edge, path)).answer, answer, path);
  }
});

void t.test('what is to be explained is read strictly', async (t) => {
  t.match(readExplain({ url: `http://edge.example${PATH}?w=1#there`, headers: { Accept: 'image/webp' } }), {
    order: { method: 'GET', target: `${PATH}?w=1`, fields: { accept: 'image/webp' } },
  });
  for (const wrong of [
    null,
    7,
    {},
    { url: 'x' },
    { url: 7 },
    { url: '/', method: 'PUT' },
    { url: '/', headers: { a: 1 } },
  ]) {
    t.equal(readExplain(wrong).kind, 'refused', JSON.stringify(wrong));
  }
});

void t.test('an answer of an edge that is cut off and refuses says that it is the lease', async (t) => {
  const edge = await openTestEdge(t.testdir());
  t.teardown(() => edge.close());
  edge.lease = 'refuse';
  const refused = await sendRequest(edge.url + PATH, { headers: READER });
  t.equal(refused.status, 503);
  t.equal(refused.headers['cache-status'], 'edge; detail=lease');
});

void t.test('a watching operator sees how requests end, and why', async (t) => {
  const edge = await openTestEdge(t.testdir(), { edge: ['rules: [{ type: "image/*", ttl: 1h }]'] });
  t.teardown(() => edge.close());
  serveMedia(edge);
  await sendRequest(edge.url + PATH, { headers: READER });
  t.same(edge.watch.log(0, {}).requests, [], 'nothing is kept before somebody asks');
  await sendRequest(edge.url + PATH, { headers: READER });
  await sendRequest(`${edge.url + PATH}?sig=forged`);
  await edge.engine.cache.purge({ all: true });
  await sendRequest(edge.url + PATH, { headers: READER });
  const { requests, last, skipped } = edge.watch.log(0, {});
  t.match(requests, [
    { outcome: 'hit_memory', reason: 'memory', rule: 1, status: 200, media: ID, address: '127.0.0.1' },
    { outcome: 'refused', reason: 'unauthorized', rule: undefined, status: 401, target: `${PATH}?sig=[redacted]` },
    { outcome: 'miss', reason: 'purged', rule: 1, status: 200 },
  ]);
  t.equal(skipped, 0);
  t.same(edge.watch.log(last, {}).requests, [], 'each is told once');
  const seqs = (filter: object): readonly number[] => edge.watch.log(0, filter).requests.map(({ seq }) => seq);
  t.same(seqs({ outcome: 'miss' }), [3]);
  t.same(seqs({ rule: 1, status: 200 }), [1, 3]);
  t.same(seqs({ status: 401 }), [2]);
  t.same(seqs({ id: ID.toLowerCase() }), [1, 2, 3]);
  const { lists } = edge.watch.top();
  t.match(lists.objects, [{ name: PATH, requests: 3 }]);
  t.match(lists.misses, [{ name: `${PATH} purged`, requests: 1 }]);
  t.match(lists.clients, [{ name: '127.0.0.1', requests: 3 }]);
  t.equal(lists.reasons.length, 3);
  const { slowest } = edge.watch.top();
  t.equal(slowest.length, 3);
  t.same(
    slowest.map((each) => each.first_byte_ms),
    slowest.map((each) => each.first_byte_ms).toSorted((a, b) => b - a),
  );
});

/** A request that has ended. */
const ended = (outcome: Exchanged['outcome'], path = '/a'): readonly [EdgeRequest, Exchanged] => [
  {
    requestId: 'r',
    method: 'GET',
    target: path,
    path,
    header: () => undefined,
    sender: () => ({ address: '192.0.2.1', scheme: 'http' }),
  } as unknown as EdgeRequest,
  { outcome, answer: undefined, status: 200, sentBytes: 5, complete: true, tookMs: 2, decidedMs: 1 },
];

void t.test('watching keeps no more than it may, says what was lost, and ends by itself', async (t) => {
  const clock = new ManualClock();
  const watch = createWatch({ keptMax: 4, rules: () => [], clock });
  t.notOk(watch.active);
  watch.log(0, {});
  t.ok(watch.active);
  for (let count = 0; count < 10; count += 1) watch.note(...ended('pass', `/${count}`));
  const seen = watch.log(2, {});
  t.same(
    seen.requests.map(({ target }: WatchedRequest) => target),
    ['/6', '/7', '/8', '/9'],
  );
  t.equal(seen.skipped, 4, '3 to 6');
  t.ok(watch.top().lists.objects.length <= 4);
  clock.advance(59_000);
  t.ok(watch.active);
  clock.advance(1_000);
  t.notOk(watch.active, 'a minute after the last question');
  t.same(watch.log(0, {}).requests, []);
  t.equal(watch.top().requests, 0);
  t.same(watch.top().slowest, []);
});

void t.test('the logs and counts of several processes are those of one edge', async (t) => {
  const line = (time: string, seq: number) => ({ time, seq }) as unknown as WatchedRequest;
  const merged = mergeLogs(
    { 2: 9 },
    new Map([
      [1, { requests: [line('b', 1), line('d', 2)], last: 2, skipped: 1 }],
      [3, { requests: [line('a', 4), line('c', 5)], last: 5, skipped: 0 }],
    ]),
  );
  t.equal(merged.requests.map(({ time }) => time).join(''), 'abcd');
  t.same(merged.after, { 1: 2, 2: 9, 3: 5 }, 'one that did not answer is asked from where it was');
  t.equal(merged.skipped, 1);
  const clock = new ManualClock();
  const tops = [1, 2].map((times) => {
    const watch = createWatch({ keptMax: 10, rules: () => [], clock });
    watch.top();
    for (let count = 0; count < times; count += 1) {
      const [request, ending] = ended('pass');
      watch.note(request, { ...ending, decidedMs: 10 * times + count });
    }
    return watch.top();
  });
  t.match(sumOfTops(tops), { requests: 3, lists: { objects: [{ name: '/a', requests: 3, bytes: 15 }] } });
  t.same(
    sumOfTops(tops).slowest.map((each) => each.first_byte_ms),
    [21, 20, 10],
    'the slowest of all of them',
  );
});

void t.test('what became of a key is remembered in limited memory, the newest first', async (t) => {
  const clock = new ManualClock();
  const fates = new FateTable(1_024, clock);
  fates.note('a', 'evicted');
  t.match(fates.recall('a'), { fate: 'evicted', at: clock.now() });
  t.equal(fates.recall('b'), undefined);
  fates.note('a', 'no_store');
  t.equal(fates.recall('a')?.fate, 'no_store');
  fates.note('b', 'stored');
  clock.advance(5);
  fates.noteEmptied();
  t.match(fates.recall('b'), { fate: 'purged', at: clock.now() });
  t.equal(fates.recall('a')?.fate, 'no_store', 'what was not stored was not purged');
  for (let count = 0; count < 5_000; count += 1) fates.note(`key ${count}`, 'expired');
  const known = Array.from({ length: 5_000 }, (_, count) => fates.recall(`key ${count}`)).filter(
    (each) => each !== undefined,
  );
  t.ok(known.length <= 1_024, `${known.length}`);
  t.ok(known.length > 500, `${known.length}`);
});

/** The operators' listener of an edge, and what commands print about it. */
async function openCommands(t: Test, edge: TestEdge) {
  const { log, metrics } = testDeps();
  const access = { host: '127.0.0.1', port: 0, token: 'operators' } as const;
  const traffic = createTraffic(testDeps().metrics);
  const ops = await openOps({
    config: { ...configured(operatorsSection), ...access },
    limits: configured(limitsSection, { closeWithinMs: 0 }),
    sources: {
      tally: createTally(),
      firstByte: () => traffic.firstByte(),
      cache: () => edge.engine.cache.stats(),
    } as unknown as StatsSources,
    takedowns: async () => null,
    purge: (order) => purge(order, { cache: edge.engine.cache, onTakedown: () => undefined, onPurge: () => undefined }),
    reload: () => ({ kind: 'refused', faults: [] }),
    watching: watchingOf(edge.watch, (order) => explain(edge.engine, order)),
    clock: edge.clock,
    log,
    metrics,
  });
  t.teardown(() => ops.close());
  const printed: string[] = [];
  const stop = new AbortController();
  const config = { ...access, hostNames: [], port: Number(new URL(ops.url).port) };
  const command = {
    config,
    clock: systemClock,
    signal: stop.signal,
    print(line: string): void {
      printed.push(line);
      // As an operator who has seen enough.
      if (line.includes(' GET ')) stop.abort();
    },
    complain: (line: string) => void printed.push(line),
  };
  return { url: ops.url, command, printed };
}

void t.test('commands ask the running edge and print what it says', async (t) => {
  const edge = await openTestEdge(t.testdir());
  t.teardown(() => edge.close());
  serveMedia(edge);
  await sendRequest(edge.url + PATH, { headers: READER });
  const { url, command, printed } = await openCommands(t, edge);
  const headers = ['Authorization: Bearer reader'];
  t.equal(await runExplain(command, { url: `${edge.url}${PATH}`, headers, head: false }), 0);
  t.match(printed.join('\n'), /A hit: answered from the cache.*in the memory tier/s);
  t.equal(await runExplain(command, { url: 'nothing', headers: [], head: false }), 1);
  t.match(printed.at(-1), /refused: .*`url` must be a URL or a path/);

  t.equal(await runTop(command, { list: undefined, lines: 5, seconds: 0, once: true }), 0);
  await sendRequest(edge.url + PATH, { headers: READER });
  t.equal(await runTop(command, { list: 'objects', lines: 5, seconds: 0, once: true }), 0);
  t.match(printed.slice(-3), [/^1 requests in \d+ s$/, 'objects:', new RegExp(`^ +1 .* ${PATH}$`)]);
  t.equal(await runLog(command, { outcome: 'hit_memory' }, { seconds: undefined, json: false }), 0);
  t.match(printed.at(-1), new RegExp(`GET ${PATH} 200 outcome=hit_memory tier=memory reason=memory bytes=\\d+ `));
  await sendRequest(edge.url + PATH, { headers: READER });
  printed.length = 0;
  const again = { ...command, signal: new AbortController().signal };
  t.equal(await runLog(again, {}, { seconds: 0, json: true }), 0);
  t.match(JSON.parse(printed.at(-1) ?? '{}'), {
    outcome: 'hit_memory',
    tier: 'memory',
    route: 'original',
    address: '127.0.0.1',
  });

  const post = { method: 'POST', body: '{"url":"/"}' };
  const json = { 'content-type': 'application/json' };
  t.equal((await sendRequest(`${url}/explain`, { ...post, headers: json })).status, 401, 'without the token');
  for (const path of ['/log?after=x', '/log?after=1:2,', '/log?outcome=none', '/log?id=x', '/log?rule=x']) {
    t.equal((await sendRequest(url + path)).status, 400, path);
  }
});

void t.test('a purge by command drops what it names, and nothing if a word is wrong', async (t) => {
  const edge = await openTestEdge(t.testdir());
  t.teardown(() => edge.close());
  serveMedia(edge);
  const { command, printed } = await openCommands(t, edge);
  const small = { ...command, config: { ...command.config, orderMaxBytes: 50 } };
  const other = '01J9ZC8GZ0000000000000000B';
  const run = async (given: Partial<Parameters<typeof runPurge>[1]>): Promise<unknown> => {
    await sendRequest(edge.url + PATH, { headers: READER });
    printed.length = 0;
    const code = await runPurge(small, { ids: [], prefix: undefined, all: false, ...given });
    return [code, ...printed];
  };
  t.same(await run({}), [1, 'Give exactly one of --id, --prefix and --all.']);
  t.same(await run({ ids: [ID], all: true }), [1, 'Give exactly one of --id, --prefix and --all.']);
  t.same(await run({ ids: [ID, 'x'] }), [1, 'x is not a media id.']);
  t.equal(edge.origin.count(PATH), 1, 'it is still stored');
  t.same(await run({ ids: [other, ID.toLowerCase()] }), [0, '1 of 2 ids', '2 of 2 ids', 'copies dropped: 1']);
  t.same(await run({ prefix: '/v1/media/01J' }), [0, 'copies dropped: 1']);
  t.same(await run({ all: true }), [0, 'copies dropped: 1']);
  t.equal(edge.origin.count(PATH), 3);
  t.match(await run({ prefix: 'v1' }), [1, /refused: .*`prefix` must be a text that starts with/]);
});

void t.test('a purge that takes a while says what is left meanwhile', async (t) => {
  const clock = new ManualClock();
  const purging: ServerResponse[] = [];
  const server = createServer((request, response) => {
    if (request.url === '/purge') {
      purging.push(response);
      clock.advance(1_000);
    } else response.end('{"cache":{"memory":{"entries":3},"disk":{"entries":9}}}');
  });
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });
  t.teardown(() => server.close());
  const printed: string[] = [];
  const print = (line: string): void => {
    printed.push(line);
    purging.pop()?.end('{"dropped":12}');
  };
  const config = { host: '127.0.0.1', hostNames: [], token: null, port, orderMaxBytes: 1_024 };
  const command = { config, clock, signal: new AbortController().signal, print, complain: print };
  t.equal(await runPurge(command, { ids: [], prefix: undefined, all: true }), 0);
  t.same(printed, ['stored now: 3 copies in memory, 9 on disk', 'copies dropped: 12']);
});

void t.test('commands say that no edge answers', async (t) => {
  const printed: string[] = [];
  const config = { host: '127.0.0.1', hostNames: [], token: null, port: await ownPort() };
  const signal = new AbortController().signal;
  const print = (line: string): void => void printed.push(line);
  const command = { config, clock: systemClock, signal, print, complain: print };
  await t.rejects(runLog(command, {}, { seconds: 0, json: false }), { message: /^No edge answers at/ });
  t.same(printed, []);
});
