/**
 * Takedowns with the processes of production: one origin and three edges. Each edge has copies in memory and on disk,
 * fresh and stale, which are requested in every form without a pause. One edge is connected, one is behind a partition,
 * one is down. Prints when the last copy was served after the takedown was answered, and compares that with the contract.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { metaSection } from '../../origin/meta/config.js';
import { openMetaStore } from '../../origin/meta/lmdb.js';
import { systemClock } from '../../src/clock.js';
import { configured, testDeps } from '../kit/deps.js';
import { FORMS, type Form, type Poller, poll, sendIn, shows, type Watched } from '../kit/edge/polling.js';
import { openRelay, type Relay } from '../kit/http/relay.js';
import { type HttpResponse, json, member, sendRequest } from '../kit/http/request.js';
import { makeJpeg } from '../kit/pictures.js';
import { asCaller, type Launched, openProcesses, type Processes } from '../kit/processes.js';
import { untilReady } from '../kit/service.js';
import { untilAsync } from '../kit/until.js';

type Mode = 'revalidate' | 'refuse' | 'serve';
type Takedown = 'delete' | 'quarantine' | 'expire' | 'none';

/** Media of each kind for each takedown. */
const EACH = 3;
const LEASE_MS = 10_000;
const SERVE_MAX_MS = 5_000;
/** The contract: connected edges stop within a second. */
const CONNECTED_MAX_MS = 1_000;
const TIMEOUT_MS = 900_000;

interface Media extends Watched {
  readonly takedown: Takedown;
  /** The `detail` in Cache-Status before the takedown. */
  readonly detail: string;
  readonly expiresAt: number | null;
  /** When the takedown was answered, or the media expired, by `performance.now()`. */
  takenDownAt: number;
}

interface Edge {
  readonly name: string;
  readonly relay: Relay;
  process: Launched;
  url: string;
}

class Deployment {
  readonly processes: Processes;
  readonly #edges: Edge[] = [];
  origin!: Launched;
  url = '';
  #seed = 0;

  constructor(processes: Processes) {
    this.processes = processes;
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** Starts it on the port that it had before, if it ran before. */
  async startOrigin(): Promise<void> {
    this.origin = await this.processes.launch('origin', {
      ...(this.url === '' ? {} : { listen: { port: this.port } }),
      upload: { free_min: '0B' },
      retention: { sweep_every: '1h' },
      rate_limits: {},
    });
    this.url = await this.origin.ready;
  }

  async openEdge(name: string, mode: Mode): Promise<Edge> {
    const relay = await openRelay(() => this.port);
    const edge: Edge = { name, relay, process: await this.launchEdge(name, mode, relay), url: '' };
    edge.url = await edge.process.ready;
    this.#edges.push(edge);
    return edge;
  }

  launchEdge(name: string, mode: Mode, relay: Relay): Promise<Launched> {
    const section = {
      name,
      upstream: { url: relay.url, connect_within: '1s', head_within: '1s' },
      cache: { folder: `./data/${name}/cache`, memory: { max_object: '20KB' }, disk: { min_free: '0B' } },
      journal: { lease: { ttl: `${LEASE_MS}ms`, mode, serve_max: `${SERVE_MAX_MS}ms` } },
      rules: [{ type: 'text/plain', ttl: '1s', stale_while_revalidate: '1h', stale_if_error: '1h' }],
    };
    return this.processes.launch('edge', section, { as: name });
  }

  async upload(kind: 'memory' | 'disk' | 'stale', takedown: Takedown, expiresInSeconds?: number): Promise<Media> {
    const query = expiresInSeconds === undefined ? '' : `?expires_in=${expiresInSeconds}`;
    const [type, body] = await this.#bytes(kind);
    const created = await sendRequest(
      `${this.url}/v1/media${query}`,
      asCaller(this.processes.user, { method: 'POST', headers: { 'content-type': type }, body }),
    );
    if (created.status !== 201) throw new Error(`the upload failed with ${created.status}: ${String(created.bytes)}`);
    const expires = json(created)['expires_at'];
    return {
      path: `/v1/media/${member(created, 'id')}`,
      etag: member(created, 'etag'),
      forms: kind === 'stale' ? ['stale'] : ['GET', 'HEAD', 'Range', '304', ...(kind === 'memory' ? BESIDE : [])],
      detail: kind === 'stale' ? 'stale-while-revalidate' : kind,
      takedown,
      expiresAt: typeof expires === 'string' ? Date.parse(expires) : null,
      takenDownAt: Number.POSITIVE_INFINITY,
    };
  }

  async #bytes(kind: 'memory' | 'disk' | 'stale'): Promise<readonly [string, Buffer]> {
    this.#seed += 1;
    if (kind === 'stale') return ['text/plain', Buffer.from(randomBytes(300).toString('base64'))];
    const picture = await makeJpeg(this.#seed, 320, 240);
    // Bytes after the end of a picture belong to the file.
    return ['image/jpeg', kind === 'memory' ? picture : Buffer.concat([picture, randomBytes(100_000)])];
  }

  async takeDown(media: Media): Promise<HttpResponse> {
    const [method, target] =
      media.takedown === 'delete' ? ['DELETE', media.path] : ['POST', `${media.path}/quarantine`];
    const answer = await sendRequest(this.url + target, asCaller(this.processes.admin, { method }));
    media.takenDownAt = performance.now();
    return answer;
  }

  poll(edge: Edge, media: readonly Watched[]): Poller {
    return poll(() => edge.url, media, this.processes.user);
  }

  async close(): Promise<void> {
    await this.processes.close();
    for (const { relay } of this.#edges) await relay.close();
  }
}

const BESIDE: readonly Form[] = ['thumbnail', 'info'];

t.setTimeout(TIMEOUT_MS);
void t.test('takedowns', async (t) => {
  const deployment = new Deployment(await openProcesses(t.testdir()));
  t.teardown(() => deployment.close());
  await deployment.startOrigin();
  for (const mode of ['revalidate', 'refuse', 'serve'] as const) {
    await t.test(`three edges, one cut off with mode ${mode}, one down`, (t) => threeEdges(t, deployment, mode));
  }
  await t.test('an origin that is killed during a burst of takedowns, and restarted', (t) => originDies(t, deployment));
  await t.test('an edge that comes back when the journal no longer has the entries that it missed', (t) =>
    gap(t, deployment),
  );
});

async function threeEdges(t: Test, deployment: Deployment, mode: Mode): Promise<void> {
  const near = await deployment.openEdge(`near-${mode}`, mode);
  const cut = await deployment.openEdge(`cut-${mode}`, mode);
  const down = await deployment.openEdge(`down-${mode}`, mode);
  const edges = [near, cut, down];
  for (const edge of edges) await untilReady(edge.url);

  const media = await stock(t, deployment, edges);
  const gone = media.filter(({ takedown }) => takedown !== 'none');
  const kept = media.filter(({ takedown }) => takedown === 'none');

  await down.process.kill();
  const [nearPolls, cutPolls] = [deployment.poll(near, media), deployment.poll(cut, media)];
  await Promise.all([nearPolls.rounds(1), cutPolls.rounds(1)]);
  cut.relay.set('partition');

  const answers = await concurrently(
    gone.filter(({ takedown }) => takedown !== 'expire'),
    (each) => deployment.takeDown(each),
  );
  t.ok(
    answers.every(({ status }) => status === 204),
    'every takedown is answered',
  );
  const bounds: Readonly<Record<Mode, number>> = {
    revalidate: LEASE_MS,
    refuse: LEASE_MS,
    serve: LEASE_MS + SERVE_MAX_MS,
  };
  const endsAt = Math.max(...gone.map(({ takenDownAt }) => takenDownAt)) + bounds[mode] + 1_000;
  while (performance.now() < endsAt) await pause(100);
  await Promise.all([nearPolls.rounds(2), cutPolls.rounds(1)]);
  await Promise.all([nearPolls.stop(), cutPolls.stop()]);

  report(t, `connected, ${mode}`, nearPolls, gone, CONNECTED_MAX_MS);
  report(t, `cut off, ${mode}`, cutPolls, gone, bounds[mode]);
  const steady = nearPolls.polled.filter(({ media: each }) => kept.some(({ path }) => path === each.path));
  t.ok(
    steady.every(({ shown, notShown }) => shown > 0 && notShown === 0),
    'the connected edge has always served the media that were not taken down',
  );

  await comesBack(t, deployment, { edge: down, mode, gone, kept });
  await partitionEnds(t, deployment, { edge: cut, gone, kept });
  await Promise.all(edges.map(({ process }) => process.stop()));
}

/** Media of every kind for every takedown, in the cache of every edge. Those that expire are uploaded last. */
async function stock(t: Test, deployment: Deployment, edges: readonly Edge[]): Promise<Media[]> {
  const kinds = ['memory', 'disk', 'stale'] as const;
  const lasting: Media[] = [];
  for (const takedown of ['delete', 'quarantine', 'none'] as const) {
    for (const kind of kinds) for (let n = 0; n < EACH; n += 1) lasting.push(await deployment.upload(kind, takedown));
  }
  for (const edge of edges) await cacheAll(deployment, edge, lasting);
  // All of them have to be cached before they expire. If that took too long, try again with a longer lifetime.
  for (let seconds = 15; ; seconds *= 2) {
    const expiring: Media[] = [];
    for (const kind of kinds)
      for (let n = 0; n < EACH; n += 1) expiring.push(await deployment.upload(kind, 'expire', seconds));
    for (const each of expiring) each.takenDownAt = performance.now() + ((each.expiresAt ?? 0) - Date.now());
    const cached = await Promise.all(edges.map((edge) => cacheAll(deployment, edge, expiring))).then(
      () => true,
      () => false,
    );
    if (cached && Math.min(...expiring.map(({ takenDownAt }) => takenDownAt)) > performance.now() + 2_000) {
      t.comment(`${lasting.length + expiring.length} media at each edge, in ${FORMS.length} forms`);
      return [...lasting, ...expiring];
    }
  }
}

/** Requests each form until it is served from the intended tier. */
async function cacheAll(deployment: Deployment, edge: Edge, media: readonly Media[]): Promise<void> {
  await concurrently(media, async (each) => {
    const isFromTier = (answer: HttpResponse): boolean => {
      const status = String(answer.headers['cache-status']);
      return shows(answer) && /; hit/.test(status) && status.includes(`detail=${each.detail}`);
    };
    const isHit = (answer: HttpResponse): boolean =>
      shows(answer) && /; hit/.test(String(answer.headers['cache-status']));
    for (const form of each.forms) {
      const enough = form === 'thumbnail' || form === 'info' ? isHit : isFromTier;
      await untilAsync(`${each.path} to be cached at ${edge.name} for ${form}`, async () => {
        const answer = await sendIn(form, edge.url, each, deployment.processes.user);
        if (answer.status === 410) throw new Error(`${each.path} has ended before ${edge.name} cached it`);
        return enough(answer);
      });
    }
  });
}

/** Reports the times from the answer of the takedown, or the expiry, to the last request that was served, by form. */
function report(t: Test, who: string, polls: Poller, gone: readonly Media[], maxMs: number): void {
  const timesOf = (form: Form | undefined, expired: boolean): number[] =>
    polls.polled.flatMap(({ form: given, media, lastShownAt }) => {
      const found = gone.find(({ path }) => path === media.path);
      if (found === undefined || (found.takedown === 'expire') !== expired) return [];
      const endedAt = expired ? expiredAt(found) : found.takenDownAt;
      return form === undefined || form === given ? [Math.max(0, (lastShownAt ?? 0) - endedAt)] : [];
    });
  t.comment(`${who}: each is requested every ${Math.round(polls.everyMs())} ms`);
  for (const form of FORMS) t.comment(`${who}: ${form} after delete or quarantine: ${figures(timesOf(form, false))}`);
  const all = timesOf(undefined, false);
  t.comment(`${who}: any form after delete or quarantine: ${figures(all)}`);
  t.ok(Math.max(...all) <= maxMs, `${who}: the last copy was served within ${maxMs} ms`);
  t.equal(Math.max(...timesOf(undefined, true)), 0, `${who}: nothing is served after its expiry`);
}

/** By `performance.now()`. The wall clock, by which media expire, may be made to go slower meanwhile (NTP): a millisecond in half a minute. */
function expiredAt({ expiresAt, takenDownAt }: Media): number {
  return Math.max(takenDownAt, performance.now() + ((expiresAt ?? 0) - Date.now()));
}

function figures(times: readonly number[]): string {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): string =>
    String(Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0));
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms (${sorted.length})`;
}

interface Return {
  readonly edge: Edge;
  readonly mode: Mode;
  readonly gone: readonly Media[];
  readonly kept: readonly Media[];
}

/** An edge that was down during the takedowns is started, first without its origin, then with it. */
async function comesBack(t: Test, deployment: Deployment, { edge, mode, gone, kept }: Return): Promise<void> {
  edge.relay.set('refuse');
  edge.process = await deployment.launchEdge(edge.name, mode, edge.relay);
  edge.url = await edge.process.ready;
  t.equal((await sendRequest(`${edge.url}/healthz`)).status, 200, 'it listens, although its origin is down');
  t.match(json(await sendRequest(`${edge.url}/readyz`)), { status: 'not_ready', journal: 'catching_up' });
  const polls = deployment.poll(edge, [...gone, ...kept]);
  await polls.rounds(2);
  t.equal(shownIn(polls, [...gone, ...kept]), 0, 'it serves nothing from its cache');
  t.same(statusesOf(polls), mode === 'refuse' ? [503] : [502], 'and answers with an error');
  polls.reset();
  edge.relay.set('pass');
  await untilReady(edge.url);
  await polls.rounds(2);
  t.equal(shownIn(polls, gone), 0, 'with its origin, it serves nothing that was taken down meanwhile');
  await polls.stop();
  await cacheAll(deployment, edge, kept);
  t.pass('and serves the other media from its cache');
}

async function partitionEnds(
  t: Test,
  deployment: Deployment,
  { edge, gone, kept }: Omit<Return, 'mode'>,
): Promise<void> {
  const polls = deployment.poll(edge, gone);
  edge.relay.set('pass');
  await untilReady(edge.url);
  await polls.rounds(2);
  t.equal(shownIn(polls, gone), 0, 'after the partition, the edge serves nothing that was taken down');
  await polls.stop();
  await cacheAll(deployment, edge, kept);
}

function shownIn({ polled }: Poller, media: readonly Media[]): number {
  return polled
    .filter((each) => media.some(({ path }) => path === each.media.path))
    .reduce((sum, { shown }) => sum + shown, 0);
}

function statusesOf({ polled }: Poller): readonly number[] {
  return [...new Set(polled.flatMap(({ statuses }) => [...statuses]))].sort((a, b) => a - b);
}

async function originDies(t: Test, deployment: Deployment): Promise<void> {
  const edge = await deployment.openEdge('steady', 'revalidate');
  await untilReady(edge.url);
  const media: Media[] = [];
  for (let n = 0; n < 40; n += 1) media.push(await deployment.upload('stale', n < 30 ? 'delete' : 'none'));
  const [gone, kept] = [media.slice(0, 30), media.slice(30)];
  await cacheAll(deployment, edge, media);
  const polls = deployment.poll(edge, media);

  const answered = { count: 0 };
  const dying = concurrently(gone, async (each) => {
    const answer = await deployment.takeDown(each).catch(() => undefined);
    if (answer?.status === 204) answered.count += 1;
    else each.takenDownAt = Number.POSITIVE_INFINITY;
  });
  while (answered.count < 10) await pause(1);
  await deployment.origin.kill();
  await dying;
  const acknowledged = gone.filter(({ takenDownAt }) => Number.isFinite(takenDownAt));
  t.comment(`${acknowledged.length} of ${gone.length} takedowns were answered before the origin was killed`);
  await deployment.startOrigin();
  await untilConfirmed(deployment);
  polls.reset();
  await polls.rounds(2);
  t.equal(shownIn(polls, acknowledged), 0, 'no media are served whose takedown was answered');
  for (const each of gone) {
    if (Number.isFinite(each.takenDownAt)) continue;
    const { status } = await deployment.takeDown(each);
    t.equal(status, 204);
  }
  await pause(CONNECTED_MAX_MS);
  polls.reset();
  await polls.rounds(2);
  t.equal(shownIn(polls, gone), 0, 'nor the rest, once their takedown is answered');
  await polls.stop();
  await cacheAll(deployment, edge, kept);
  await edge.process.stop();
}

async function gap(t: Test, deployment: Deployment): Promise<void> {
  const edge = await deployment.openEdge('absent', 'revalidate');
  await untilReady(edge.url);
  const gone: Media[] = [];
  for (let n = 0; n < 5; n += 1) gone.push(await deployment.upload('memory', n % 2 === 0 ? 'delete' : 'quarantine'));
  const kept = await deployment.upload('memory', 'none');
  await cacheAll(deployment, edge, [...gone, kept]);
  t.equal(await edge.process.stop(), 0);
  for (const each of gone) t.equal((await deployment.takeDown(each)).status, 204);
  await deployment.origin.stop();
  await trimJournal(deployment);
  await deployment.startOrigin();

  edge.process = await deployment.launchEdge('absent', 'revalidate', edge.relay);
  edge.url = await edge.process.ready;
  const polls = deployment.poll(edge, gone);
  await untilReady(edge.url);
  await polls.rounds(2);
  t.equal(shownIn(polls, gone), 0, 'nothing that was taken down is served');
  await polls.stop();
  const first = await sendIn('GET', edge.url, kept, deployment.processes.user);
  t.match(first.headers['cache-status'], /fwd=uri-miss/, 'it has emptied its cache');
  t.ok(shows(first));
  await edge.process.stop();
}

/** Removes all entries of the journal, as the origin does with entries that are older than it keeps them. */
async function trimJournal({ processes }: Deployment): Promise<void> {
  const config = configured(metaSection, { folder: join(processes.folder, 'data', 'origin', 'meta') });
  const meta = await openMetaStore(config, { clock: systemClock, log: testDeps().log, randomName: () => 'unused' });
  const dropped = await meta.journal.trim(Number.MAX_SAFE_INTEGER);
  await meta.close();
  if (dropped === 0) throw new Error('the journal had nothing to trim');
}

/** Resolves once every running edge follows the journal and has applied all entries. */
async function untilConfirmed(deployment: Deployment): Promise<void> {
  for (;;) {
    const { path } = await deployment.upload('stale', 'delete');
    const done = await sendRequest(
      `${deployment.url}${path}?wait=edges`,
      asCaller(deployment.processes.admin, { method: 'DELETE' }),
    );
    if (/^([1-9]\d*)\/\1$/.test(String(done.headers['takedown-confirmed']))) return;
    await pause(50);
  }
}

async function concurrently<T, R>(items: readonly T[], run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) results.push(await run(item));
  };
  await Promise.all(Array.from({ length: 6 }, worker));
  return results;
}
