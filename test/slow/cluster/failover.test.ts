/**
 * A failover to a standby that lacks the last entries of the journal. What was acknowledged meanwhile is lost with the
 * server, as README says of a standby that is not synchronous. No edge may go by the lost history: it would skip the
 * takedowns that get the lost numbers again.
 */
import t from 'tap';
import { type HttpResponse, member, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { openCluster } from '../../kit/postgres/cluster.js';
import { asCaller } from '../../kit/processes.js';
import { untilReady } from '../../kit/service.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

void t.test('every edge notices that the history was lost, and serves nothing by it', async (t) => {
  const cluster = await openCluster(t.testdir());
  if (cluster === null) {
    t.comment('there is no PostgreSQL server on this machine');
    return;
  }
  t.teardown(() => cluster.close());
  const { processes, postgres } = cluster;
  const origins = [await cluster.add('a'), await cluster.add('b')] as const;
  const edges = await Promise.all(
    origins.map(async ({ name, url }) => {
      const section = { name, upstream: { url }, cache: { folder: `./data/edge-${name}`, disk: { min_free: '0B' } } };
      const edge = await (await processes.launch('edge', section, { as: `edge-${name}` })).ready;
      await untilReady(edge);
      return edge;
    }),
  );
  const asUser = (url: string): Promise<HttpResponse> => sendRequest(url, asCaller(processes.user));
  const isHit = ({ headers }: HttpResponse): boolean => /; hit/.test(String(headers['cache-status']));
  const upload = async (seed: number): Promise<string> => {
    const sent = { method: 'POST', headers: { 'content-type': 'image/png' }, body: png(seed) };
    const path = `/v1/media/${member(await sendRequest(`${origins[0].url}/v1/media`, asCaller(processes.user, sent)), 'id')}`;
    for (const edge of edges) await untilAsync('the edge has a copy', async () => isHit(await asUser(edge + path)));
    return path;
  };
  const takeDown = async (path: string): Promise<void> => {
    const url = `${origins[0].url}${path}?wait=edges`;
    const answer = await sendRequest(url, asCaller(processes.admin, { method: 'DELETE' }));
    t.match(answer, { status: 204, headers: { 'takedown-confirmed': '2/2' } });
    for (const edge of edges) t.equal((await asUser(edge + path)).status, 410);
  };

  await takeDown(await upload(1));
  const [lost, kept, later] = [await upload(2), await upload(3), await upload(4)];
  const failOver = await postgres.standby();
  await takeDown(lost);
  for (const edge of edges) t.ok(isHit(await asUser(edge + kept)), 'a copy by the history that will be lost');
  await failOver();

  for (const { url } of origins) await untilAsync('the origin is ready again', () => isReady(url));
  for (const edge of edges) {
    await untilAsync('the edge is ready again', () => isReady(edge));
    await untilAsync('the edge has emptied its cache', async () => !isHit(await asUser(edge + kept)));
    await untilAsync('and keeps copies again', async () => isHit(await asUser(edge + kept)));
    t.equal((await asUser(edge + lost)).status, 200, 'the takedown that was lost is told by nobody');
  }
  // It gets the number of the one that was lost.
  await takeDown(later);
  await takeDown(lost);
});

async function isReady(url: string): Promise<boolean> {
  return sendRequest(`${url}/readyz`).then(
    ({ status }) => status === 200,
    () => false,
  );
}
