/**
 * Several origins as processes, and their bucket: it is away, or answers with errors, or answers an origin that was
 * stopped meanwhile, so long that others have taken over all that it had. Nothing that was answered with success is lost.
 */
import t, { type Test } from 'tap';
import { type HttpResponse, json, member, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { type Failure, type LightS3, openLightS3 } from '../../kit/origin/light-s3.js';
import { bucketOf } from '../../kit/postgres/bucket.js';
import { type Cluster, type Member, openCluster } from '../../kit/postgres/cluster.js';
import { asCaller } from '../../kit/processes.js';
import { untilReady } from '../../kit/service.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../../kit/until.js';

const QUICK = {
  retention: { grace: '1s', trash: '1s', sweep_every: '300ms' },
  thumbs: { enabled: false, video: { enabled: false } },
};

t.setTimeout(FILE_HANGS_AFTER_MS);

type Opened = { readonly cluster: Cluster; readonly s3: LightS3 };

async function opened(t: Test): Promise<Opened | null> {
  const s3 = await openLightS3();
  const cluster = await openCluster(t.testdir(), Promise.resolve(bucketOf(s3)));
  if (cluster === null) t.comment('there is no PostgreSQL server on this machine');
  t.teardown(() => cluster?.close());
  return cluster === null ? null : { cluster, s3 };
}

const fetched = ({ cluster }: Opened, url: string, path: string): Promise<HttpResponse> =>
  sendRequest(url + path, asCaller(cluster.processes.user));
const upload = ({ cluster }: Opened, { url }: Member, body: Buffer): Promise<HttpResponse> =>
  sendRequest(
    `${url}/v1/media`,
    asCaller(cluster.processes.user, { method: 'POST', headers: { 'content-type': 'image/png' }, body }),
  );
const mediaKeys = ({ s3 }: Opened): readonly string[] =>
  [...s3.objects.keys()].filter((key) => key.startsWith('media/'));

void t.test(
  'while the bucket is away or answers with errors, uploads are refused, edges serve, and no answer is lost',
  async (t) => {
    const own = await opened(t);
    if (own === null) return;
    const { cluster, s3 } = own;
    const { processes } = cluster;
    // What succeeds below, and one more.
    const section = { ...QUICK, quota: { files_max: 13 } };
    const a = await cluster.add('a', section);
    const b = await cluster.add('b', section);
    const cache = { folder: './data/edge', disk: { min_free: '0B' } };
    const edge = await (await processes.launch('edge', { upstream: { url: a.url }, cache })).ready;
    await untilReady(edge);
    const acknowledged = new Map<string, Buffer>();
    let made = 0;
    const attempt = async (origin: Member): Promise<HttpResponse> => {
      made += 1;
      const body = png(made);
      const answer = await upload(own, origin, body);
      if (answer.status < 300) acknowledged.set(`/v1/media/${member(answer, 'id')}`, body);
      return answer;
    };
    for (const origin of [a, b, a, b]) t.equal((await attempt(origin)).status, 201);
    for (const path of ['/.well-known', '/readyz']) {
      const [at, other] = await Promise.all([a, b].map(({ url }) => sendRequest(url + path)));
      t.equal(at?.status, 200);
      t.same(at?.bytes.toString(), other?.bytes.toString(), `${path} is the same at both`);
    }
    const [kept = '', removed = '', uncached = ''] = [...acknowledged.keys()];
    for (const path of [kept, removed]) {
      await untilAsync('the edge has a copy', async () =>
        /; hit/.test(String((await fetched(own, edge, path)).headers['cache-status'])),
      );
    }

    const failures: readonly Failure[] = [
      { kind: 'status', status: 503, code: 'SlowDown' },
      { kind: 'early_status', status: 500, code: 'InternalError' },
      { kind: 'reset' },
      { kind: 'lose_response' },
    ];
    for (const failure of failures) {
      s3.failure = () => failure;
      for (const answer of await Promise.all([a, b].map(attempt))) {
        t.match([answer.status, json(answer)['code']], [503, 'storage_unavailable'], failure.kind);
      }
      const copy = await fetched(own, edge, kept);
      t.ok(copy.status === 200 && copy.bytes.equals(acknowledged.get(kept) ?? png(0)), 'the edge serves what it has');
      const other = await fetched(own, edge, uncached);
      t.ok(other.status >= 502 && other.status <= 504, `and has nothing else: ${other.status}`);
      if (acknowledged.delete(removed)) {
        const answer = await sendRequest(b.url + removed, asCaller(processes.admin, { method: 'DELETE' }));
        t.equal(answer.status, 204, 'a takedown needs no bucket');
        await untilAsync('it is gone at the edge', async () => (await fetched(own, edge, removed)).status === 410);
      }
      s3.failure = () => undefined;
      for (const origin of [a, b]) t.equal((await attempt(origin)).status, 201, 'both go on by themselves');
    }
    for (const [path, bytes] of acknowledged) {
      for (const url of [a.url, b.url, edge])
        t.ok((await fetched(own, url, path)).bytes.equals(bytes), `${path} at ${url}`);
    }
    t.equal((await attempt(a)).status, 201, 'what was refused is not counted');
    for (const origin of [b, a]) {
      const full = await attempt(origin);
      t.match([full.status, json(full)['code']], [429, 'quota_exceeded'], 'the quota is used up at both');
    }
    await untilAsync('nothing is left of what was refused', async () => mediaKeys(own).length === acknowledged.size);
  },
);

void t.test(
  'an origin that is stopped between PUT and commit, until others have all that it had, loses nothing',
  async (t) => {
    const own = await opened(t);
    if (own === null) return;
    const { cluster, s3 } = own;
    const stopped = await cluster.add('a', QUICK);
    const other = await cluster.add('b', QUICK);
    const body = png(1);
    let letGo = (): void => undefined;
    const until = new Promise<void>((resolve) => (letGo = resolve));
    s3.failure = ({ method, key }) =>
      method === 'PUT' && key.startsWith('media/') ? { kind: 'hold_response', until } : undefined;
    const pending = upload(own, stopped, body).catch(() => undefined);
    await untilAsync('its bytes are stored', async () => mediaKeys(own).length === 1);
    process.kill(stopped.process.pid, 'SIGSTOP');
    letGo();
    s3.failure = () => undefined;

    const next = await cluster.add('a', QUICK, 'data/a-again');
    await untilAsync('its intent has ended, and its bytes are gone', async () => mediaKeys(own).length === 0);
    process.kill(stopped.process.pid, 'SIGCONT');
    const answer = await pending;
    t.equal(answer?.status ?? 503, 503, 'the upload is refused, as its bytes are gone');
    for (const origin of [next, other]) {
      const again = await upload(own, origin, body);
      t.ok(again.status === 201 || again.status === 200, `${again.status}`);
      for (const { url } of [next, other]) {
        const found = await fetched(own, url, `/v1/media/${member(again, 'id')}`);
        t.ok(found.status === 200 && found.bytes.equals(body));
      }
    }
    await untilAsync('they are stored once', async () => mediaKeys(own).length === 1);
    const ready = await sendRequest(`${stopped.url}/readyz`).catch(() => undefined);
    t.not(ready?.status, 200, 'another has its name, so it serves no more');
    await stopped.kill();
  },
);
