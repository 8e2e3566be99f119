/**
 * Clocks that are set while the service runs, with libfaketime, where it is installed. Nothing lives longer at an edge
 * because a clock was set back, nothing that has expired comes back, and takedowns go on.
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { member, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { asCaller, type Launched, openProcesses } from '../../kit/processes.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const library = readdirSync('/usr/lib')
  .map((name) => join('/usr/lib', name, 'faketime', 'libfaketimeMT.so.1'))
  .find((path) => existsSync(path));
const skip = library === undefined ? 'libfaketime is not installed' : false;

/** Long enough to be stored at an edge and shown by it, on a slow machine too. */
const EXPIRES_SECONDS = 25;

/** A clock that a file sets, such as `-1h`. Durations stay right. */
function clockFrom(path: string): Readonly<Record<string, string>> {
  return {
    LD_PRELOAD: library ?? '',
    FAKETIME_TIMESTAMP_FILE: path,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    NO_FAKE_STAT: '1',
  };
}

interface Bench {
  readonly origin: Launched;
  /** Sets the clock of one of them against the real one. */
  readonly set: (who: 'origin' | 'edge', offset: string) => void;
  readonly upload: (seed: number, expiresInSeconds?: number) => Promise<string>;
  /** As the edge answers. */
  readonly statusOf: (id: string) => Promise<number>;
  /** Whether the edge answers from its cache. */
  readonly isHit: (id: string) => Promise<boolean>;
  readonly takeDown: (id: string) => Promise<string>;
  readonly isReady: () => Promise<boolean>;
}

async function open(t: Test): Promise<Bench> {
  const processes = await openProcesses(t.testdir());
  t.teardown(() => processes.close());
  const fileOf = (who: string): string => join(processes.folder, `${who}.clock`);
  const set = (who: 'origin' | 'edge', offset: string): void => writeFileSync(fileOf(who), `${offset}\n`);
  set('origin', '+0');
  set('edge', '+0');
  const origin = await processes.launch(
    'origin',
    { upload: { free_min: '0B' }, thumbs: { enabled: false, video: { enabled: false } } },
    { env: clockFrom(fileOf('origin')) },
  );
  const originUrl = await origin.ready;
  const edge = await processes.launch(
    'edge',
    {
      upstream: { url: originUrl },
      journal: { reconnect_min: '100ms', reconnect_max: '200ms', lease: { mode: 'serve' } },
      cache: { disk: { min_free: '0B' } },
    },
    { env: clockFrom(fileOf('edge')) },
  );
  const edgeUrl = await edge.ready;
  const get = (id: string) => sendRequest(`${edgeUrl}/v1/media/${id}`, asCaller(processes.user));
  const isReady = async (): Promise<boolean> => (await sendRequest(`${edgeUrl}/readyz`)).status === 200;
  await untilAsync('the edge to be ready', isReady);
  return {
    origin,
    set,
    isReady,
    async upload(seed, expiresInSeconds) {
      const query = expiresInSeconds === undefined ? '' : `?expires_in=${expiresInSeconds}`;
      const sent = asCaller(processes.user, { method: 'POST', body: png(seed) });
      const answer = await sendRequest(`${originUrl}/v1/media${query}`, sent);
      t.equal(answer.status, 201);
      return member(answer, 'id');
    },
    statusOf: async (id) => (await get(id)).status,
    isHit: async (id) => String((await get(id)).headers['cache-status']).includes('; hit'),
    async takeDown(id) {
      const url = `${originUrl}/v1/media/${id}?wait=edges`;
      const answer = await sendRequest(url, asCaller(processes.admin, { method: 'DELETE' }));
      return `${answer.status} ${String(answer.headers['takedown-confirmed'])}`;
    },
  };
}

void t.test('clocks that are set while the service runs', { skip }, async (t) => {
  const { set, upload, statusOf, takeDown, isReady } = await open(t);
  const kept = await upload(1);
  const statuses = async (id: string): Promise<readonly number[]> => [await statusOf(id), await statusOf(id)];
  t.same(await statuses(kept), [200, 200]);

  await t.test('the clock of the origin steps ahead: what has expired by it is gone at the edge too', async (t) => {
    const id = await upload(2, 600);
    t.same(await statuses(id), [200, 200]);
    set('origin', '+30m');
    await untilAsync('the expiry at the edge', async () => (await statusOf(id)) === 410);
    t.equal(await statusOf(kept), 200);
    set('origin', '+0');
    t.equal(await statusOf(id), 410, 'it does not come back with the clock');
    await untilAsync('the edge to be ready', isReady);
    t.equal(await takeDown(await upload(3)), '204 1/1');
  });

  for (const offset of ['-30m', '+30m', '+0']) {
    await t.test(`the clock of the edge is at ${offset}: it serves, and takedowns go on`, async (t) => {
      set('edge', offset);
      const id = await upload(100 + Number.parseInt(offset, 10));
      t.same(await statuses(id), [200, 200]);
      t.equal(await statusOf(kept), 200);
      t.equal(await takeDown(id), '204 1/1');
      t.equal(await statusOf(id), 410);
      t.equal(await isReady(), true);
    });
  }
});

void t.test(
  'what expires is not served by an edge whose clock was set back, also without the origin',
  { skip },
  async (t) => {
    const { origin, set, upload, statusOf, isHit } = await open(t);
    const kept = await upload(1);
    const id = await upload(2, EXPIRES_SECONDS);
    for (const each of [kept, id]) t.same([await isHit(each), await isHit(each)], [false, true]);
    set('edge', '-1h');
    await origin.kill();
    t.same([await statusOf(kept), await statusOf(id)], [200, 200], 'the edge may serve its copies alone');
    await untilAsync('the expiry', async () => (await statusOf(id)) !== 200);
    t.equal(await statusOf(kept), 200);
  },
);
