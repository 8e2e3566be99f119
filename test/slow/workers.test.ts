/**
 * An edge with several workers, as real processes: what one has stored is served by all, a takedown, a purge and a change
 * reach all of them, one that is killed is started again, and operators see them as one edge.
 */
import { readFile, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { type HttpResponse, json, member, sendRequest } from '../kit/http/request.js';
import { makeJpeg } from '../kit/pictures.js';
import { ownPort } from '../kit/ports.js';
import { asCaller, type Launched, openProcesses, type Processes } from '../kit/processes.js';
import { untilAsync } from '../kit/until.js';

const WORKERS = 3;

interface Bench {
  readonly processes: Processes;
  readonly origin: string;
  readonly edge: string;
  readonly operators: string;
  readonly launched: Launched;
}

async function open(t: Test): Promise<Bench> {
  const processes = await openProcesses(t.testdir());
  t.teardown(() => processes.close());
  const origin = await processes.launch('origin', { upload: { free_min: '0B' } });
  const originUrl = await origin.ready;
  const operators = await ownPort();
  const launched = await processes.launch('edge', {
    workers: WORKERS,
    operators: { port: operators },
    upstream: { url: originUrl },
    cache: { disk: { min_free: '0B' } },
  });
  const edge = await launched.ready;
  const bench = { processes, origin: originUrl, edge, operators: `http://127.0.0.1:${operators}`, launched };
  await untilAsync('all workers to be ready', async () => {
    const { lease } = json(await sendRequest(`${bench.operators}/stats`)) as { lease: { may_serve: string } };
    return lease.may_serve === 'yes';
  });
  return bench;
}

async function upload({ processes, origin }: Bench, seed: number): Promise<string> {
  const body = await makeJpeg(seed, 80, 60);
  const headers = { 'content-type': 'image/jpeg' };
  const created = await sendRequest(`${origin}/v1/media`, asCaller(processes.user, { method: 'POST', headers, body }));
  return `/v1/media/${member(created, 'id')}`;
}

/** The worker that answered: the last hop of Cache-Status. */
function workerOf(answer: HttpResponse): { readonly name: string; readonly status: string } {
  const hop = String(answer.headers['cache-status']).split(/,\s*/).at(-1) ?? '';
  const [name = '', ...status] = hop.split('; ');
  return { name, status: status.join('; ') };
}

/** The next answer of each worker: each request has a connection of its own, and connections are spread. */
async function atEach({ processes, edge }: Bench, path: string): Promise<ReadonlyMap<string, HttpResponse>> {
  const answers = new Map<string, HttpResponse>();
  await untilAsync(`an answer of each worker to ${path}`, async () => {
    const answer = await sendRequest(`${edge}${path}`, asCaller(processes.user));
    answers.set(workerOf(answer).name, answer);
    return answers.size === WORKERS;
  });
  return answers;
}

async function metric({ operators }: Bench, line: RegExp): Promise<number> {
  const { bytes } = await sendRequest(`${operators}/metrics`);
  return Number(line.exec(bytes.toString())?.[1] ?? Number.NaN);
}

t.setTimeout(120_000);
void t.test('an edge with three workers', async (t) => {
  const bench = await open(t);
  const { processes, origin, edge, operators, launched } = bench;

  await t.test('fetches what all of them serve from the origin once', async (t) => {
    const paths = await Promise.all([1, 2, 3, 4, 5, 6].map((seed) => upload(bench, seed)));
    const before = await metric(bench, /^media_edge_upstream_requests_total (\d+)/m);
    for (const path of paths) {
      for (const [name, answer] of await atEach(bench, path)) t.equal(answer.status, 200, `${path} at ${name}`);
    }
    const after = await metric(bench, /^media_edge_upstream_requests_total (\d+)/m);
    // Probes of /readyz ask the origin too, and there are none here.
    t.equal(after - before, paths.length, 'one request to the origin for each');
    for (const path of paths) {
      for (const answer of (await atEach(bench, path)).values()) t.match(workerOf(answer).status, /^hit/);
    }
  });

  await t.test('forgets what was taken down at every worker before the takedown is confirmed', async (t) => {
    const path = await upload(bench, 11);
    await atEach(bench, path);
    const removed = await sendRequest(`${origin}${path}?wait=edges`, asCaller(processes.admin, { method: 'DELETE' }));
    t.equal(removed.headers['takedown-confirmed'], `${WORKERS}/${WORKERS}`);
    for (const [name, answer] of await atEach(bench, path)) t.equal(answer.status, 410, name);
  });

  await t.test('forgets at every worker what was removed through one of them', async (t) => {
    const path = await upload(bench, 12);
    await atEach(bench, path);
    const removed = await sendRequest(`${edge}${path}`, asCaller(processes.admin, { method: 'DELETE' }));
    t.equal(removed.status, 204);
    for (const [name, answer] of await atEach(bench, path)) t.equal(answer.status, 410, name);
  });

  await t.test('purges at every worker by one order, and shows the sum of all', async (t) => {
    const path = await upload(bench, 13);
    await atEach(bench, path);
    const headers = { 'content-type': 'application/json' };
    const purged = await sendRequest(`${operators}/purge`, {
      method: 'POST',
      headers,
      body: JSON.stringify({ prefix: path }),
    });
    t.ok(Number(json(purged)['dropped']) >= WORKERS, purged.bytes.toString());
    const again = await sendRequest(`${edge}${path}`, asCaller(processes.user));
    t.match(workerOf(again).status, /^fwd=/);
    const stats = json(await sendRequest(`${operators}/stats`));
    t.match(stats, { edge: 'edge', lease: { may_serve: 'yes' }, journal: { link: 'current' } });
    const served = stats['requests'] as { outcomes: Record<string, { requests: number }> };
    t.ok((served.outcomes['hit_memory']?.requests ?? 0) > 0, JSON.stringify(served.outcomes));
    t.equal(await metric(bench, /^media_edge_journal_lease (\d)/m), 1, 'that of the worker that is furthest behind');
  });

  await t.test('reads its configuration again at every worker', async (t) => {
    const reload = () => sendRequest(`${operators}/reload`, { method: 'POST' });
    t.match(json(await reload()), { changed: false, need_restart: [] });
    const path = await upload(bench, 16);
    await atEach(bench, path);
    const change = async (keys: object): Promise<void> => {
      const config = JSON.parse(await readFile(launched.configPath, 'utf8')) as { readonly edge: object };
      await writeFile(launched.configPath, JSON.stringify({ ...config, edge: { ...config.edge, ...keys } }));
    };
    const asked = asCaller(processes.user, { headers: { range: 'bytes=0-1,5-6' } });
    const statuses = async (): Promise<readonly number[]> => {
      const found: number[] = [];
      for (let request = 0; request < 6 * WORKERS; request += 1) {
        found.push((await sendRequest(`${edge}${path}`, asked)).status);
      }
      return found;
    };
    await change({ ranges_max: 'many' });
    const refused = await reload();
    t.equal(refused.status, 409);
    t.match(json(refused), { faults: [/^line 1, column \d+: edge\.ranges_max: /] });
    t.ok(
      (await statuses()).every((status) => status === 206),
      'the former configuration stays at all of them',
    );
    await change({ ranges_max: 1, cache: { disk: { min_free: '0B' } } });
    t.equal((await reload()).status, 200);
    t.ok(
      (await statuses()).every((status) => status === 200),
      'each of them sends the whole',
    );
    t.equal(await metric(bench, /^media_edge_journal_lease (\d)/m), 1);
  });

  await t.test('goes on while a worker is killed, and starts it again', async (t) => {
    const path = await upload(bench, 14);
    await atEach(bench, path);
    const before = await requestsOf(bench);
    const pids = await childrenOf(launched.pid);
    t.equal(pids.length, WORKERS);
    process.kill(pids[1] ?? 0, 'SIGKILL');
    await untilAsync('a new worker', async () => {
      const now = await childrenOf(launched.pid);
      return now.length === WORKERS && now.some((pid) => !pids.includes(pid));
    });
    for (const [name, answer] of await atEach(bench, await upload(bench, 15))) t.equal(answer.status, 200, name);
    for (const [name, answer] of await atEach(bench, path)) t.equal(answer.status, 200, name);
    t.ok((await requestsOf(bench)) > before, 'what the killed worker had counted stays counted');
  });

  await t.test('says so where its port is taken', async (t) => {
    const taken = await processes.launch(
      'edge',
      {
        workers: 2,
        listen: { port: Number(new URL(edge).port) },
        upstream: { url: origin },
        cache: { folder: './data/other/cache' },
      },
      { as: 'other' },
    );
    await t.rejects(taken.ready, { message: /another process already listens on 127\.0\.0\.1/ });
  });

  await t.test('stops with all of its workers', async (t) => {
    const pids = await childrenOf(launched.pid);
    t.equal(await launched.stop(), 0);
    for (const pid of pids) t.throws(() => process.kill(pid, 0), { code: 'ESRCH' });
  });
});

/** The requests that all workers have ended so far. */
async function requestsOf({ operators }: Bench): Promise<number> {
  const { requests } = json(await sendRequest(`${operators}/stats`)) as {
    requests: { outcomes: Record<string, { requests: number }> };
  };
  return Object.values(requests.outcomes).reduce((sum, outcome) => sum + outcome.requests, 0);
}

async function childrenOf(pid: number): Promise<readonly number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.trim().split(' ').filter(Boolean).map(Number);
}
