/**
 * Takedowns as they are in production: one origin and three edges as processes
 * of their own, each with copies in memory and on disk, fresh and stale, asked
 * for in every form without a pause. One edge is connected, one is behind a
 * partition that loses packets and tells nobody, one is down. Prints when the
 * last copy was shown after the admin had the answer, and holds that against
 * the contract alone.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
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

type Mode = 'revalidate' | 'refuse' | 'serve';
type Way = 'delete' | 'quarantine' | 'expire' | 'none';

/** Of each kind and each way to be taken down. */
const EACH = 3;
const LEASE_MS = 10_000;
const SERVE_MAX_MS = 5_000;
/** Contract: connected edges stop within a second. */
const CONNECTED_MAX_MS = 1_000;
const TIMEOUT_MS = 900_000;

interface Media extends Watched {
  readonly way: Way;
  /** What it must be answered from before anything is taken down. */
  readonly detail: string;
  readonly expiresAt: number | null;
  /** When the admin had the answer, or it expired, by `performance.now()`. */
  takenDownAt: number;
}

interface Edge {
  readonly name: string;
  readonly relay: Relay;
  process: Launched;
  url: string;
}

class House {
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

  /** On the port that it had before, if it ran before. */
  async startOrigin(): Promise<void> {
    this.origin = await this.processes.launch('origin', {
      listen: { port: this.url === '' ? 0 : this.port },
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

  async upload(kind: 'memory' | 'disk' | 'stale', way: Way, expiresInSeconds?: number): Promise<Media> {
    const query = expiresInSeconds === undefined ? '' : `?expires_in=${expiresInSeconds}`;
    const [type, body] = await this.#bytes(kind);
    const created = await sendRequest(
      `${this.url}/v1/media${query}`,
      asCaller(this.processes.user, { method: 'POST', headers: { 'content-type': type }, body }),
    );
    if (created.status !== 201) throw new Error(`an upload was answered ${created.status}: ${String(created.bytes)}`);
    const expires = json(created)['expires_at'];
    return {
      path: `/v1/media/${member(created, 'id')}`,
      etag: member(created, 'etag'),
      forms: kind === 'stale' ? ['stale'] : ['GET', 'HEAD', 'Range', '304', ...(kind === 'memory' ? THUMBNAIL : [])],
      detail: kind === 'stale' ? 'stale-while-revalidate' : kind,
      way,
      expiresAt: typeof expires === 'string' ? Date.parse(expires) : null,
      takenDownAt: Number.POSITIVE_INFINITY,
    };
  }

  async #bytes(kind: 'memory' | 'disk' | 'stale'): Promise<readonly [string, Buffer]> {
    this.#seed += 1;
    if (kind === 'stale') return ['text/plain', Buffer.from(randomBytes(300).toString('base64'))];
    const picture = await makeJpeg(this.#seed, 320, 240);
    // What follows the end of a picture belongs to the file.
    return ['image/jpeg', kind === 'memory' ? picture : Buffer.concat([picture, randomBytes(100_000)])];
  }

  async takeDown(media: Media): Promise<HttpResponse> {
    const [method, target] = media.way === 'delete' ? ['DELETE', media.path] : ['POST', `${media.path}/quarantine`];
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

const THUMBNAIL: readonly Form[] = ['thumbnail'];

t.setTimeout(TIMEOUT_MS);
void t.test('takedowns', async (t) => {
  const house = new House(await openProcesses(t.testdir()));
  t.teardown(() => house.close());
  await house.startOrigin();
  for (const mode of ['revalidate', 'refuse', 'serve'] as const) {
    await t.test(`three edges, one cut off with mode ${mode}, one down`, (t) => threeEdges(t, house, mode));
  }
  await t.test('an origin that dies in the middle of a burst, and comes back', (t) => originDies(t, house));
  await t.test('an edge that comes back when the journal no longer knows what it missed', (t) => gap(t, house));
});

async function threeEdges(t: Test, house: House, mode: Mode): Promise<void> {
  const near = await house.openEdge(`near-${mode}`, mode);
  const cut = await house.openEdge(`cut-${mode}`, mode);
  const down = await house.openEdge(`down-${mode}`, mode);
  const edges = [near, cut, down];
  for (const edge of edges) await untilReady(edge);

  const media = await stock(t, house, edges);
  const gone = media.filter(({ way }) => way !== 'none');
  const kept = media.filter(({ way }) => way === 'none');

  await down.process.kill();
  const [nearPolls, cutPolls] = [house.poll(near, media), house.poll(cut, media)];
  await Promise.all([nearPolls.rounds(1), cutPolls.rounds(1)]);
  cut.relay.set('partition');

  const answers = await inLanes(
    gone.filter(({ way }) => way !== 'expire'),
    (each) => house.takeDown(each),
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
  const over = Math.max(...gone.map(({ takenDownAt }) => takenDownAt)) + bounds[mode] + 1_000;
  while (performance.now() < over) await later(100);
  await Promise.all([nearPolls.rounds(2), cutPolls.rounds(1)]);
  await Promise.all([nearPolls.stop(), cutPolls.stop()]);

  report(t, `connected, ${mode}`, nearPolls, gone, CONNECTED_MAX_MS);
  report(t, `cut off, ${mode}`, cutPolls, gone, bounds[mode]);
  const steady = nearPolls.polled.filter(({ media: each }) => kept.some(({ path }) => path === each.path));
  t.ok(
    steady.every(({ shown, notShown }) => shown > 0 && notShown === 0),
    'the connected edge has shown all the time what nobody took down',
  );

  await comesBack(t, house, { edge: down, mode, gone, kept });
  await heals(t, house, { edge: cut, gone, kept });
  await Promise.all(edges.map(({ process }) => process.stop()));
}

/** Uploads of every kind and way, held by every edge as their kind says. What expires comes last. */
async function stock(t: Test, house: House, edges: readonly Edge[]): Promise<Media[]> {
  const kinds = ['memory', 'disk', 'stale'] as const;
  const lasting: Media[] = [];
  for (const way of ['delete', 'quarantine', 'none'] as const) {
    for (const kind of kinds) for (let n = 0; n < EACH; n += 1) lasting.push(await house.upload(kind, way));
  }
  for (const edge of edges) await hold(house, edge, lasting);
  // Held before it expires on any machine: where that took too long, with more time.
  for (let seconds = 15; ; seconds *= 2) {
    const expiring: Media[] = [];
    for (const kind of kinds)
      for (let n = 0; n < EACH; n += 1) expiring.push(await house.upload(kind, 'expire', seconds));
    for (const each of expiring) each.takenDownAt = performance.now() + ((each.expiresAt ?? 0) - Date.now());
    const held = await Promise.all(edges.map((edge) => hold(house, edge, expiring))).then(
      () => true,
      () => false,
    );
    if (held && Math.min(...expiring.map(({ takenDownAt }) => takenDownAt)) > performance.now() + 2_000) {
      t.comment(`${lasting.length + expiring.length} media at each edge, in ${FORMS.length} forms`);
      return [...lasting, ...expiring];
    }
  }
}

/** Asks until every form is answered from the tier that is meant. */
async function hold(house: House, edge: Edge, media: readonly Media[]): Promise<void> {
  await inLanes(media, async (each) => {
    const isHeld = (answer: HttpResponse): boolean => {
      const status = String(answer.headers['cache-status']);
      return shows(answer) && /; hit/.test(status) && status.includes(`detail=${each.detail}`);
    };
    const isHit = (answer: HttpResponse): boolean =>
      shows(answer) && /; hit/.test(String(answer.headers['cache-status']));
    for (const form of each.forms) {
      const enough = form === 'thumbnail' ? isHit : isHeld;
      let answer = await sendIn(form, edge.url, each, house.processes.user);
      for (let left = 400; !enough(answer); left -= 1) {
        if (left === 0 || answer.status === 410)
          throw new Error(`${edge.name} does not hold ${each.path} for ${form}: ${JSON.stringify(answer.headers)}`);
        await later(25);
        answer = await sendIn(form, edge.url, each, house.processes.user);
      }
    }
  });
}

/** The times from the admin's answer, or the expiry, to the last request that was answered with the media, by form. */
function report(t: Test, who: string, polls: Poller, gone: readonly Media[], maxMs: number): void {
  const timesOf = (form: Form | undefined, expired: boolean): number[] =>
    polls.polled.flatMap(({ form: given, media, lastShownAt }) => {
      const found = gone.find(({ path }) => path === media.path);
      if (found === undefined || (found.way === 'expire') !== expired) return [];
      return form === undefined || form === given ? [Math.max(0, (lastShownAt ?? 0) - found.takenDownAt)] : [];
    });
  t.comment(`${who}: each asked for every ${Math.round(polls.everyMs())} ms`);
  for (const form of FORMS) t.comment(`${who}: ${form} after delete or quarantine: ${figures(timesOf(form, false))}`);
  const all = timesOf(undefined, false);
  t.comment(`${who}: any form after delete or quarantine: ${figures(all)}`);
  t.ok(Math.max(...all) <= maxMs, `${who}: the last one was shown within ${maxMs} ms`);
  t.equal(Math.max(...timesOf(undefined, true)), 0, `${who}: nothing is shown beyond its expiry`);
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

/** An edge that was down when it happened: first without an origin to ask, then with one. */
async function comesBack(t: Test, house: House, { edge, mode, gone, kept }: Return): Promise<void> {
  edge.relay.set('refuse');
  edge.process = await house.launchEdge(edge.name, mode, edge.relay);
  edge.url = await edge.process.ready;
  t.equal((await sendRequest(`${edge.url}/healthz`)).status, 200, 'it listens, although its origin is away');
  t.match(json(await sendRequest(`${edge.url}/readyz`)), { status: 'not_ready', journal: 'catching_up' });
  const polls = house.poll(edge, [...gone, ...kept]);
  await polls.rounds(2);
  t.equal(shownIn(polls, [...gone, ...kept]), 0, 'and shows nothing of what it holds');
  t.same(statusesOf(polls), mode === 'refuse' ? [503] : [502], 'but says so');
  polls.reset();
  edge.relay.set('pass');
  await untilReady(edge);
  await polls.rounds(2);
  t.equal(shownIn(polls, gone), 0, 'with its origin it shows nothing that was taken down meanwhile');
  await polls.stop();
  await hold(house, edge, kept);
  t.pass('and what was not, from its cache');
}

async function heals(t: Test, house: House, { edge, gone, kept }: Omit<Return, 'mode'>): Promise<void> {
  const polls = house.poll(edge, gone);
  edge.relay.set('pass');
  await untilReady(edge);
  await polls.rounds(2);
  t.equal(shownIn(polls, gone), 0, 'once healed, the edge that was cut off shows nothing of it again');
  await polls.stop();
  await hold(house, edge, kept);
}

function shownIn({ polled }: Poller, media: readonly Media[]): number {
  return polled
    .filter((each) => media.some(({ path }) => path === each.media.path))
    .reduce((sum, { shown }) => sum + shown, 0);
}

function statusesOf({ polled }: Poller): readonly number[] {
  return [...new Set(polled.flatMap(({ statuses }) => [...statuses]))].sort((a, b) => a - b);
}

async function originDies(t: Test, house: House): Promise<void> {
  const edge = await house.openEdge('steady', 'revalidate');
  await untilReady(edge);
  const media: Media[] = [];
  for (let n = 0; n < 40; n += 1) media.push(await house.upload('stale', n < 30 ? 'delete' : 'none'));
  const [gone, kept] = [media.slice(0, 30), media.slice(30)];
  await hold(house, edge, media);
  const polls = house.poll(edge, media);

  const answered = { count: 0 };
  const dying = inLanes(gone, async (each) => {
    const answer = await house.takeDown(each).catch(() => undefined);
    if (answer?.status === 204) answered.count += 1;
    else each.takenDownAt = Number.POSITIVE_INFINITY;
  });
  while (answered.count < 10) await later(1);
  await house.origin.kill();
  await dying;
  const told = gone.filter(({ takenDownAt }) => Number.isFinite(takenDownAt));
  t.comment(`${told.length} of ${gone.length} takedowns were answered before the origin died`);
  await house.startOrigin();
  await untilConfirmed(house);
  polls.reset();
  await polls.rounds(2);
  t.equal(shownIn(polls, told), 0, 'what was answered is down, whenever the origin died after it');
  for (const each of gone) {
    if (Number.isFinite(each.takenDownAt)) continue;
    const { status } = await house.takeDown(each);
    t.equal(status, 204);
  }
  await later(CONNECTED_MAX_MS);
  polls.reset();
  await polls.rounds(2);
  t.equal(shownIn(polls, gone), 0, 'and the rest, once it is answered');
  await polls.stop();
  await hold(house, edge, kept);
  await edge.process.stop();
}

async function gap(t: Test, house: House): Promise<void> {
  const edge = await house.openEdge('absent', 'revalidate');
  await untilReady(edge);
  const gone: Media[] = [];
  for (let n = 0; n < 5; n += 1) gone.push(await house.upload('memory', n % 2 === 0 ? 'delete' : 'quarantine'));
  const kept = await house.upload('memory', 'none');
  await hold(house, edge, [...gone, kept]);
  t.equal(await edge.process.stop(), 0);
  for (const each of gone) t.equal((await house.takeDown(each)).status, 204);
  await house.origin.stop();
  await trimJournal(house);
  await house.startOrigin();

  edge.process = await house.launchEdge('absent', 'revalidate', edge.relay);
  edge.url = await edge.process.ready;
  const polls = house.poll(edge, gone);
  await untilReady(edge);
  await polls.rounds(2);
  t.equal(shownIn(polls, gone), 0, 'nothing of what was taken down is shown');
  await polls.stop();
  const first = await sendIn('GET', edge.url, kept, house.processes.user);
  t.match(first.headers['cache-status'], /fwd=uri-miss/, 'it has emptied its cache');
  t.ok(shows(first));
  await edge.process.stop();
}

/** As the origin does it once its entries are older than they are kept. */
async function trimJournal({ processes }: House): Promise<void> {
  const config = configured(metaSection, { folder: join(processes.folder, 'data', 'origin', 'meta') });
  const meta = await openMetaStore(config, { clock: systemClock, log: testDeps().log, randomName: () => 'unused' });
  const dropped = await meta.journal.trim(Number.MAX_SAFE_INTEGER);
  await meta.close();
  if (dropped === 0) throw new Error('the journal had nothing to trim');
}

async function untilReady({ url }: Pick<Edge, 'url'>): Promise<void> {
  while ((await sendRequest(`${url}/readyz`)).status !== 200) await later(20);
}

/** Resolves once every edge that runs follows, and has applied all that the origin has. */
async function untilConfirmed(house: House): Promise<void> {
  for (;;) {
    const { path } = await house.upload('stale', 'delete');
    const done = await sendRequest(
      `${house.url}${path}?wait=edges`,
      asCaller(house.processes.admin, { method: 'DELETE' }),
    );
    if (/^([1-9]\d*)\/\1$/.test(String(done.headers['takedown-confirmed']))) return;
    await later(50);
  }
}

async function inLanes<T, R>(items: readonly T[], run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) results.push(await run(item));
  };
  await Promise.all(Array.from({ length: 6 }, lane));
  return results;
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
