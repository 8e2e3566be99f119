/**
 * An origin that is cut off from the database, as by a cable: its packets vanish, and nobody closes a connection. It has
 * edges that hear nothing of what the other origin takes down. Their leases end, and they serve no copy after that.
 */
import t from 'tap';
import { openRelay } from '../../kit/http/relay.js';
import { type HttpResponse, member, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { openCluster } from '../../kit/postgres/cluster.js';
import { asCaller } from '../../kit/processes.js';
import { untilReady } from '../../kit/service.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../../kit/until.js';

const LEASE = '5s';

t.setTimeout(FILE_HANGS_AFTER_MS);

void t.test('the edges of an origin without its database serve no copy once their lease has ended', async (t) => {
  const cluster = await openCluster(t.testdir());
  if (cluster === null) {
    t.comment('there is no PostgreSQL server on this machine');
    return;
  }
  t.teardown(() => cluster.close());
  const { processes, postgres, databaseUrl } = cluster;
  const relay = await openRelay(() => postgres.port);
  t.teardown(() => relay.close());
  process.env['CUT_DATABASE'] = databaseUrl.replace(`:${postgres.port}/`, `:${relay.port}/`);
  const within = { connect_timeout: '1s', statement_timeout: '1s' };
  const cut = await cluster.add('cut', {
    meta: { adaptor: 'postgres', postgres: { url: 'env:CUT_DATABASE', ...within } },
  });
  const well = await cluster.add('well');
  const [edgeOfCut, edgeOfWell] = await Promise.all(
    [cut, well].map(async ({ name, url }) => {
      const section = {
        name,
        upstream: { url },
        journal: { lease: { ttl: LEASE } },
        cache: { folder: `./data/edge-${name}`, disk: { min_free: '0B' } },
      };
      const edge = await (await processes.launch('edge', section, { as: `edge-${name}` })).ready;
      await untilReady(edge);
      return edge;
    }),
  );
  if (edgeOfCut === undefined || edgeOfWell === undefined) throw new Error('there are two edges');
  const asUser = (url: string): Promise<HttpResponse> => sendRequest(url, asCaller(processes.user));
  const isHit = ({ headers }: HttpResponse): boolean => /; hit/.test(String(headers['cache-status']));
  const sent = { method: 'POST', headers: { 'content-type': 'image/png' }, body: png(1) };
  const path = `/v1/media/${member(await sendRequest(`${well.url}/v1/media`, asCaller(processes.user, sent)), 'id')}`;
  for (const edge of [edgeOfCut, edgeOfWell])
    await untilAsync('the edge has a copy', async () => isHit(await asUser(edge + path)));

  relay.set('partition');
  const removed = await sendRequest(`${well.url}${path}`, asCaller(processes.admin, { method: 'DELETE' }));
  t.equal(removed.status, 204);
  await untilAsync(
    'the edge that hears of it serves no copy',
    async () => (await asUser(edgeOfWell + path)).status === 410,
  );
  await untilAsync('the lease of the other has ended', async () => (await asUser(edgeOfCut + path)).status !== 200);
  // It asks its origin about every copy from now on, which cannot answer.
  for (let n = 0; n < 10; n += 1) {
    const answer = await asUser(edgeOfCut + path);
    t.ok(answer.status >= 502 && answer.status <= 504, `answered ${answer.status}`);
  }
  const ready = JSON.parse(String((await sendRequest(`${cut.url}/readyz`)).bytes)) as { failed: readonly string[] };
  t.ok(ready.failed.length > 0, `the origin says that it is not ready: ${ready.failed.join(', ')}`);
  const kept = await sendRequest(`${well.url}/v1/media`, asCaller(processes.user, { ...sent, body: png(2) }));
  t.equal(kept.status, 201, 'the other origin goes on');

  relay.set('pass');
  await untilAsync('the edge has heard of it', async () => (await asUser(edgeOfCut + path)).status === 410);
  for (const url of [cut.url, edgeOfCut]) {
    await untilAsync('all are ready again', async () => (await sendRequest(`${url}/readyz`)).status === 200);
  }
  const next = `/v1/media/${member(kept, 'id')}`;
  await untilAsync('copies are kept again', async () => isHit(await asUser(edgeOfCut + next)));
});
