/** A larger load of many clients, with purges: a simulation of its trace has the hit ratios of the live edge, also of a sample of it. */
import t from 'tap';
import { replay } from '../../../edge/simulate/replay.js';
import { simulatedEdge } from '../../../edge/simulate/settings.js';
import type { Tally } from '../../../edge/simulate/tally.js';
import { configOf, type EdgeKeys, readTracesIn, serveTraced } from '../../kit/edge/traced-edge.js';
import { sendRequest } from '../../kit/http/request.js';
import { FILE_HANGS_AFTER_MS } from '../../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const KEYS: EdgeKeys = {
  cache: {
    memory: { size: '2MB', max_object: '40KB' },
    disk: { size: '12MB', fill_room: '4MB', min_free: '0B', policy: 's3-fifo' },
    // Promotions that find no free place are skipped, which a simulation does not know.
    fill: { promotions: 64 },
  },
  rules: [{ type: 'video/*', tiers: 'disk', admission: 'second_hit' }],
};

void t.test('many clients, evictions and purges: the simulation has the ratios of the edge', async (t) => {
  const folder = t.testdir();
  const load = {
    seed: 7,
    requests: 6_000,
    objects: 3_000,
    sizeMaxBytes: 60_000,
    clients: 8,
    async before(sent: number, { operators }: { readonly operators: string }) {
      if (sent !== 2_000 && sent !== 4_000) return;
      const which = sent === 2_000 ? { prefix: '/1' } : { all: true };
      const headers = { 'content-type': 'application/json' };
      await sendRequest(`${operators}/purge`, { method: 'POST', body: JSON.stringify(which), headers });
    },
  };
  const live = await serveTraced(folder, KEYS, load);
  t.ok(live.evictions.memory > 200 && live.evictions.disk > 100, JSON.stringify(live.evictions));
  const simulated = async (sampleShare: number): Promise<Tally> =>
    replay(await readTracesIn(folder, sampleShare), simulatedEdge(configOf(KEYS)), {
      skip: 0,
      signal: new AbortController().signal,
      progress: () => undefined,
    });
  const whole = await simulated(1);
  t.equal(whole.requests, load.requests);
  t.same(whole.recordedRatios, { requests: live.objects, bytes: live.bytes });
  t.ok(Math.abs((whole.ratios.requests ?? 0) - live.objects) < 0.005, `${whole.ratios.requests} for ${live.objects}`);
  t.ok(Math.abs((whole.ratios.bytes ?? 0) - live.bytes) < 0.005, `${whole.ratios.bytes} for ${live.bytes}`);
  // A sample differs by which of the most popular keys are in it: it is compared with what the edge did for these keys.
  const half = await simulated(0.5);
  const recorded = half.recordedRatios.requests ?? 0;
  t.ok(Math.abs((half.ratios.requests ?? 0) - recorded) < 0.03, `${half.ratios.requests} for ${recorded}`);
});
