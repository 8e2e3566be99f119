/** Metadata that are put back to an earlier snapshot while edges have followed what came after it. Real processes. */
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { member, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { asCaller, type Launched, openProcesses } from '../../kit/processes.js';
import { until, untilAsync } from '../../kit/until.js';

t.setTimeout(90_000);

const ORIGIN = { upload: { free_min: '0B' }, thumbs: { enabled: false, video: { enabled: false } } };

interface Bench {
  /** Stops the origin, does something to its metadata, and starts it again. */
  readonly between: (act: (meta: string) => void) => Promise<void>;
  readonly upload: (seed: number) => Promise<string>;
  /** Takes media down and waits for the edge. Returns the numbers of edges that confirmed. */
  readonly takeDown: (id: string) => Promise<string>;
  readonly statusOf: (id: string) => Promise<number>;
}

async function open(t: Test): Promise<Bench> {
  const processes = await openProcesses(t.testdir());
  t.teardown(() => processes.close());
  let origin: Launched = await processes.launch('origin', ORIGIN);
  const originUrl = await origin.ready;
  const listen = { port: Number(new URL(originUrl).port) };
  const edge = await processes.launch('edge', {
    upstream: { url: originUrl },
    journal: { reconnect_min: '100ms', reconnect_max: '200ms' },
    cache: { disk: { min_free: '0B' } },
  });
  const edgeUrl = await edge.ready;
  const meta = join(processes.folder, 'data', 'origin', 'meta');
  const isReady = async (): Promise<boolean> => (await sendRequest(`${edgeUrl}/readyz`)).status === 200;
  await untilAsync('the edge to be ready', isReady);
  return {
    async between(act) {
      await origin.stop();
      act(meta);
      origin = await processes.launch('origin', { ...ORIGIN, listen }, { level: 'info' });
      await origin.ready;
      // The edge is ready by its lease before it has noticed that the origin was away.
      await until('the edge to follow again', () => origin.printed().includes('an edge follows the journal'));
    },
    async upload(seed) {
      const answer = await sendRequest(
        `${originUrl}/v1/media`,
        asCaller(processes.user, { method: 'POST', body: png(seed) }),
      );
      t.equal(answer.status, 201);
      return member(answer, 'id');
    },
    async takeDown(id) {
      const url = `${originUrl}/v1/media/${id}?wait=edges`;
      const answer = await sendRequest(url, asCaller(processes.admin, { method: 'DELETE' }));
      t.equal(answer.status, 204);
      return String(answer.headers['takedown-confirmed']);
    },
    statusOf: async (id) => (await sendRequest(`${edgeUrl}/v1/media/${id}`, asCaller(processes.user))).status,
  };
}

void t.test(
  'an edge that is ahead of metadata that were put back misses none of the takedowns that follow',
  async (t) => {
    const { between, upload, takeDown, statusOf } = await open(t);
    const ids: string[] = [];
    for (let n = 0; n < 9; n += 1) ids.push(await upload(n));
    for (const id of ids) t.same([await statusOf(id), await statusOf(id)], [200, 200]);
    const [first = '', ...others] = ids;
    t.equal(await takeDown(first), '1/1');
    await between((meta) => cpSync(meta, `${meta}-snapshot`, { recursive: true }));
    for (const id of others.slice(0, 3)) {
      t.equal(await takeDown(id), '1/1');
      t.equal(await statusOf(id), 410);
    }
    await between((meta) => {
      rmSync(meta, { recursive: true });
      cpSync(`${meta}-snapshot`, meta, { recursive: true });
    });
    // As many as the edge was ahead, and one more: numbers that it knows come again with other media.
    for (const id of others.slice(3, 7)) {
      t.equal(await takeDown(id), '1/1');
      t.equal(await statusOf(id), 410);
    }
    t.equal(await statusOf(first), 410, 'what the snapshot has stays down');
    t.equal(await statusOf(others[7] ?? ''), 200);
  },
);
