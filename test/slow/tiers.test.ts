/**
 * Three edges in a row with the processes of production, in mode `revalidate`: private media are hits at each, a takedown
 * needs at most a second for each tier, and while the one in the middle is stopped, killed or cut off, the leases behind
 * it lapse in time. Media are requested at every tier in every form without a pause. Prints when each was served last.
 */
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { type Poller, poll, sendIn, shows, type Watched } from '../kit/edge/polling.js';
import { openRelay, type Relay } from '../kit/http/relay.js';
import { member, sendRequest } from '../kit/http/request.js';
import { makeJpeg } from '../kit/pictures.js';
import { asCaller, type Launched, openProcesses, type Processes } from '../kit/processes.js';
import { untilReady } from '../kit/service.js';
import { untilAsync } from '../kit/until.js';

const LEASE_MS = 4_000;
/** The contract: connected edges stop within a second. In a row each tier has its own. */
const TIER_MAX_MS = 1_000;
/** Between two requests for the same media in the same form, and for a busy machine. */
const SLACK_MS = 1_000;

interface Edge {
  readonly name: string;
  /** Between this edge and the one before it, or the origin. */
  readonly link: Relay;
  process: Launched;
  url: string;
}

class Row {
  readonly processes: Processes;
  origin = '';
  /** From the origin outwards. */
  readonly edges: Edge[] = [];
  #seed = 0;

  constructor(processes: Processes) {
    this.processes = processes;
  }

  async open(): Promise<void> {
    const origin = await this.processes.launch('origin', { upload: { free_min: '0B' } });
    this.origin = await origin.ready;
    for (let index = 0; index < 3; index += 1) {
      const link = await openRelay(() => Number(new URL(this.edges[index - 1]?.url ?? this.origin).port));
      const name = `edge-${index + 1}`;
      const process = await this.#launch(name, link);
      this.edges.push({ name, link, process, url: await process.ready });
      await untilReady(this.edges[index]?.url ?? '');
    }
  }

  /** Starts an edge again with its cache, where it listened before. */
  async startAgain(edge: Edge): Promise<void> {
    edge.process = await this.#launch(edge.name, edge.link, Number(new URL(edge.url).port));
    await edge.process.ready;
  }

  #launch(name: string, link: Relay, port?: number): Promise<Launched> {
    const section = {
      name,
      ...(port === undefined ? {} : { listen: { port } }),
      upstream: { url: link.url, connect_within: '1s', head_within: '1s' },
      cache: { folder: `./data/${name}/cache`, disk: { min_free: '0B' } },
      journal: { lease: { ttl: `${LEASE_MS}ms`, mode: 'revalidate' } },
      rate_limits: { enabled: false },
    };
    return this.processes.launch('edge', section, { as: name });
  }

  async upload(): Promise<Watched> {
    this.#seed += 1;
    const body = await makeJpeg(this.#seed, 80, 60);
    const created = await sendRequest(
      `${this.origin}/v1/media`,
      asCaller(this.processes.user, { method: 'POST', headers: { 'content-type': 'image/jpeg' }, body }),
    );
    if (created.status !== 201) throw new Error(`the upload failed with ${created.status}`);
    const forms = ['GET', 'HEAD', 'Range', '304'] as const;
    return { path: `/v1/media/${member(created, 'id')}`, etag: member(created, 'etag'), forms };
  }

  /** Resolves once every edge serves the media from its own cache, in every form. */
  async cacheEverywhere(media: readonly Watched[]): Promise<void> {
    for (const edge of this.edges.toReversed()) {
      for (const each of media) {
        for (const form of each.forms) {
          await untilAsync(`${each.path} at ${edge.name}`, async () => {
            const answer = await sendIn(form, edge.url, each, this.processes.user);
            const own = String(answer.headers['cache-status']).split(/,\s*/).at(-1) ?? '';
            return shows(answer) && own.startsWith(`${edge.name}; hit`);
          });
        }
      }
    }
  }

  /** Returns the value of Takedown-Confirmed; `at`: when the takedown was answered, by `performance.now()`. */
  async takeDown(media: Watched, query = ''): Promise<{ readonly confirmed: string; readonly at: number }> {
    const request = asCaller(this.processes.admin, { method: 'DELETE' });
    const answer = await sendRequest(`${this.origin}${media.path}${query}`, request);
    if (answer.status !== 204) throw new Error(`the takedown failed with ${answer.status}`);
    return { confirmed: String(answer.headers['takedown-confirmed']), at: performance.now() };
  }

  async close(): Promise<void> {
    await this.processes.close();
    for (const { link } of this.edges) await link.close();
  }
}

t.setTimeout(300_000);
void t.test('three edges in a row', async (t) => {
  const row = new Row(await openProcesses(t.testdir()));
  t.teardown(() => row.close());
  await row.open();
  await t.test('a takedown needs at most a second for each tier, and every edge confirms', (t) => connected(t, row));
  const middle = row.edges[1] as Edge;
  await t.test('the middle edge is stopped and goes on (SIGSTOP, SIGCONT)', (t) =>
    interrupted(t, row, {
      begin: () => void process.kill(middle.process.pid, 'SIGSTOP'),
      end: () => void process.kill(middle.process.pid, 'SIGCONT'),
    }),
  );
  await t.test('the middle edge is cut off, and reached again', (t) =>
    interrupted(t, row, {
      begin: () => middle.link.set('partition'),
      end: () => middle.link.set('pass'),
    }),
  );
  await t.test('the middle edge is killed, and started again', (t) =>
    interrupted(t, row, {
      begin: () => middle.process.kill(),
      end: () => row.startAgain(middle),
    }),
  );
});

async function connected(t: Test, row: Row): Promise<void> {
  const media = [await row.upload(), await row.upload(), await row.upload()];
  await row.cacheEverywhere(media);
  t.pass('private media are hits at every tier');
  const polls = row.edges.map(({ url }) => poll(() => url, media, row.processes.user));
  await Promise.all(polls.map((each) => each.rounds(1)));
  const takenDownAt = new Map<Watched, number>();
  for (const each of media) takenDownAt.set(each, (await row.takeDown(each)).at);
  await pause(3 * TIER_MAX_MS);
  await Promise.all(polls.map((each) => each.rounds(1)));
  for (const [index, each] of polls.entries()) {
    await each.stop();
    const lastMs = lastShown(each, takenDownAt);
    t.comment(`tier ${index + 1}: the last copy was served ${Math.round(lastMs)} ms after the takedown was answered`);
    t.ok(lastMs <= (index + 1) * TIER_MAX_MS, `tier ${index + 1}`);
  }
  const last = await row.upload();
  await row.cacheEverywhere([last]);
  t.equal((await row.takeDown(last, '?wait=edges')).confirmed, '3/3');
}

interface Interruption {
  readonly begin: () => void | Promise<void>;
  readonly end: () => void | Promise<void>;
}

async function interrupted(t: Test, row: Row, { begin, end }: Interruption): Promise<void> {
  const [gone, kept] = [await row.upload(), await row.upload()];
  await row.cacheEverywhere([gone, kept]);
  const polls = row.edges.map(({ url }) => poll(() => url, [gone, kept], row.processes.user));
  await Promise.all(polls.map((each) => each.rounds(1)));
  await begin();
  // With `wait`, the answer comes later than the takedown.
  const takenDownAt = new Map([[gone, performance.now()]]);
  const { confirmed } = await row.takeDown(gone, '?wait=edges');
  t.equal(confirmed, '1/3', 'those behind are known, and have not confirmed');
  await pause(LEASE_MS + SLACK_MS);
  const bounds = [TIER_MAX_MS, LEASE_MS + SLACK_MS, LEASE_MS + SLACK_MS];
  for (const [index, each] of polls.entries()) {
    const lastMs = lastShown(each, takenDownAt);
    t.comment(`tier ${index + 1}: the last copy was served ${Math.round(lastMs)} ms after the takedown was sent`);
    t.ok(lastMs <= (bounds[index] ?? 0), `tier ${index + 1} lets its lease lapse in time`);
    each.reset();
  }
  await end();
  for (const { url } of row.edges) await untilReady(url);
  await Promise.all(polls.map((each) => each.rounds(2)));
  for (const each of polls) {
    await each.stop();
    // A request that was under way when the process was stopped may get its answer now.
    t.equal(lastShown(each, takenDownAt), 0, 'afterwards it is not served to a request that was sent since');
    t.ok(shownOf(each, kept) > 0, 'and the other is');
  }
  await row.cacheEverywhere([kept]);
  await untilAsync('every edge to be counted', async () => {
    const probe = await row.upload();
    return (await row.takeDown(probe, '?wait=edges')).confirmed === '3/3';
  });
}

/** How long after its takedown any of the media was served last. */
function lastShown({ polled }: Poller, takenDownAt: ReadonlyMap<Watched, number>): number {
  const times = polled.flatMap(({ media, lastShownAt }) => {
    const at = takenDownAt.get(media);
    return at === undefined || lastShownAt === undefined ? [] : [lastShownAt - at];
  });
  return Math.max(0, ...times);
}

function shownOf({ polled }: Poller, media: Watched): number {
  return polled.filter((each) => each.media === media).reduce((sum, { shown }) => sum + shown, 0);
}
