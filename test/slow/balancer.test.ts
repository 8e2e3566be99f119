/** Several edges behind nginx with the example configuration, as real processes. Each object belongs to one edge. */
import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  addEdge,
  type Balancer,
  type EdgeAddress,
  type EdgeProcess,
  edgeSectionOf,
  hasNginx,
  startBalancer,
  withEdge,
} from '../kit/edge/balancer.js';
import { type HttpResponse, member, sendRequest } from '../kit/http/request.js';
import { ownPorts, type Service, startService } from '../kit/service.js';

/** So many that, but for one run in millions, each edge owns some. */
const OBJECTS = 40;

interface Deployment {
  readonly service: Service;
  readonly balancer: Balancer;
  /** All edges, also the one that `dev` runs. */
  readonly edges: readonly { readonly name: string; readonly url: string }[];
  readonly mortal: EdgeProcess;
  readonly alice: Readonly<Record<string, string>>;
  readonly admin: Readonly<Record<string, string>>;
}

t.setTimeout(180_000);
void t.test('three edges behind a balancer', async (t) => {
  if (!(await hasNginx())) {
    t.pass('skipped', { skip: 'there is no nginx' });
    return;
  }
  const deployment = await openHouse(t);
  await t.test('uploads and refusals pass through', (t) => uploads(t, deployment));
  const owners = await spread(t, deployment);
  await t.test('all edges confirm a takedown, and none serves the media', (t) => takedown(t, deployment, owners));
  await t.test('the address of a client is its own, whatever it sends in X-Forwarded-For', (t) =>
    addresses(t, deployment),
  );
  await t.test('one edge is killed and restarted', (t) => death(t, deployment, owners));
});

async function openHouse(t: Test): Promise<Deployment> {
  const folder = t.testdir();
  const [first, second] = await Promise.all([ownPorts(), ownPorts()]);
  const addresses: readonly [EdgeAddress, EdgeAddress, EdgeAddress] = [
    { name: 'edge-1', port: first.edge, operatorsPort: first.edgeOperators },
    { name: 'edge-2', port: first.origin, operatorsPort: first.originOperators },
    { name: 'edge-3', port: second.edge, operatorsPort: second.edgeOperators },
  ];
  const service = await startService(folder, (config) => {
    const origin = `http://127.0.0.1:${/origin:\n {2}listen: \{ port: (\d+)/.exec(config)?.[1] ?? ''}`;
    const changed = withEdge(config, edgeSectionOf(addresses[0], origin));
    return changed.replace('origin:\n', `origin:\n  base_uri: http://127.0.0.1:${first.auth}\n`);
  });
  t.teardown(() => service.stop());
  const others = [
    await addEdge(folder, addresses[1], service.origin),
    await addEdge(folder, addresses[2], service.origin),
  ] as const;
  for (const edge of others) {
    t.teardown(() => edge.stop());
    await edge.start();
  }
  const balancer = await startBalancer(join(folder, 'nginx'), first.auth, addresses);
  t.teardown(() => balancer.stop());
  const [alice, admin] = await Promise.all([service.token(), service.token({ subject: 'mo', admin: true })]);
  return {
    service,
    balancer,
    edges: addresses.map(({ name, port }) => ({ name, url: `http://127.0.0.1:${port}` })),
    mortal: others[0],
    alice: { authorization: `Bearer ${alice}` },
    admin: { authorization: `Bearer ${admin}` },
  };
}

const words = (sizeBytes: number): Buffer => Buffer.from(randomBytes(sizeBytes).toString('base64').slice(0, sizeBytes));
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

function upload({ balancer, alice }: Deployment, bytes: Uint8Array): Promise<HttpResponse> {
  const headers = { ...alice, 'content-type': 'text/plain' };
  return sendRequest(`${balancer.url}/v1/media`, { method: 'POST', headers, body: bytes });
}

/** The edge that sent a response. */
const edgeOf = (answer: HttpResponse): string => String(answer.headers['cache-status']).split(';')[0] ?? '';
const isHit = (answer: HttpResponse): boolean => /^[^,]*; hit/.test(String(answer.headers['cache-status']));

async function uploads(t: Test, deployment: Deployment): Promise<void> {
  const { balancer, alice } = deployment;
  const bytes = words(5_000_000);
  const created = await upload(deployment, bytes);
  t.equal(created.status, 201, created.bytes.toString());
  t.equal(member(created, 'sha256'), sha256(bytes));
  const url = member(created, 'url');
  t.ok(url.startsWith(balancer.url), 'the URL of the media is one of the balancer');
  t.ok((await sendRequest(url, { headers: alice })).bytes.equals(bytes), 'and serves the same bytes');
  const ranged = await sendRequest(url, { headers: { ...alice, range: 'bytes=4000000-4000009' } });
  t.match(ranged, { status: 206, bytes: bytes.subarray(4_000_000, 4_000_010) });
  const etag = String(ranged.headers.etag);
  t.equal((await sendRequest(url, { headers: { ...alice, 'if-none-match': etag } })).status, 304);

  t.equal(await uploadOnceWanted(deployment, words(5_000_000)), 201, 'an upload that waits for 100 Continue');
  const body = { method: 'POST', body: words(5_000_000) };
  const stranger = await sendRequest(`${balancer.url}/v1/media`, {
    ...body,
    headers: { 'content-type': 'text/plain' },
  });
  t.match(stranger, { status: 401, headers: { 'content-type': 'application/problem+json' } });
  t.match((await upload(deployment, words(11_000_000))).status, 413);
}

/** Sends the body after 100 Continue. */
function uploadOnceWanted({ balancer, alice }: Deployment, bytes: Buffer): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const headers = { ...alice, 'content-type': 'text/plain', 'content-length': bytes.length, expect: '100-continue' };
    const sent = request(`${balancer.url}/v1/media`, { method: 'POST', headers, agent: false }, (response) => {
      response.resume();
      response.once('end', () => resolve(response.statusCode));
    });
    sent.once('error', reject);
    sent.once('continue', () => sent.end(bytes));
    sent.flushHeaders();
  });
}

/** The edge that owns each path. */
type Owners = ReadonlyMap<string, { readonly edge: string; readonly bytes: Buffer }>;

async function spread(t: Test, deployment: Deployment): Promise<Owners> {
  const owners = new Map<string, { edge: string; bytes: Buffer }>();
  await t.test('objects and uploads are spread over the edges, and each object belongs to one', async (t) => {
    const { balancer, edges, alice } = deployment;
    const all = edges.map(({ name }) => name);
    const uploadedThrough = new Set<string>();
    for (let n = 0; n < OBJECTS; n += 1) {
      const bytes = words(2_000);
      const created = await upload(deployment, bytes);
      t.equal(created.status, 201);
      uploadedThrough.add(edgeOf(created));
      const path = `/v1/media/${member(created, 'id')}`;
      const first = await sendRequest(balancer.url + path, { headers: alice });
      t.ok(first.bytes.equals(bytes));
      t.notOk(isHit(first), 'the first request is a miss');
      for (const [method, query] of [
        ['GET', ''],
        ['HEAD', ''],
        ['GET', `?again=${n}`],
      ]) {
        const again = await sendRequest(`${balancer.url}${path}${query}`, { method: method ?? 'GET', headers: alice });
        t.ok(isHit(again), `${method} hits: ${String(again.headers['cache-status'])}`);
        t.equal(edgeOf(again), edgeOf(first), 'at the same edge');
      }
      owners.set(path, { edge: edgeOf(first), bytes });
    }
    t.same([...new Set([...owners.values()].map(({ edge }) => edge))].sort(), all, 'each edge owns some');
    t.same([...uploadedThrough].sort(), all, 'each edge receives uploads');
  });
  return owners;
}

function ownedBy(owners: Owners, name: string): readonly string[] {
  return [...owners].filter(([, { edge }]) => edge === name).map(([path]) => path);
}

async function takedown(t: Test, { balancer, edges, alice, admin }: Deployment, owners: Owners): Promise<void> {
  const [path = ''] = ownedBy(owners, 'edge-2');
  for (const { url } of edges) {
    await sendRequest(url + path, { headers: alice });
    t.ok(isHit(await sendRequest(url + path, { headers: alice })), 'every edge has a copy');
  }
  const done = await sendRequest(`${balancer.url}${path}?wait=edges`, { method: 'DELETE', headers: admin });
  t.match(done, { status: 204, headers: { 'takedown-confirmed': '3/3' } });
  for (const url of [balancer.url, ...edges.map((edge) => edge.url)])
    t.equal((await sendRequest(url + path, { headers: alice })).status, 410, url);
}

async function addresses(t: Test, { service, balancer, admin }: Deployment): Promise<void> {
  const path = '/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV';
  const answer = await new Promise<number | undefined>((resolve, reject) => {
    const headers = { ...admin, 'x-forwarded-for': '203.0.113.9' };
    const sent = request(balancer.url + path, { method: 'DELETE', headers, agent: false, localAddress: '127.0.0.7' });
    sent.once('error', reject);
    sent.once('response', (response) => {
      response.resume();
      response.once('end', () => resolve(response.statusCode));
    });
    sent.end();
  });
  const audit = await readFile(join(service.folder, 'data', 'origin', 'audit', 'audit.jsonl'), 'utf8');
  const last = JSON.parse(audit.trim().split('\n').at(-1) ?? '') as Readonly<Record<string, unknown>>;
  t.match(last, { target: path.slice('/v1/media/'.length), address: '127.0.0.7' }, `answered ${answer}`);
}

async function death(t: Test, deployment: Deployment, owners: Owners): Promise<void> {
  const { balancer, mortal, alice, admin } = deployment;
  const orphans = ownedBy(owners, mortal.name).slice(1);
  const [kept = '', removed = ''] = orphans;
  const get = (path: string): Promise<HttpResponse> => sendRequest(balancer.url + path, { headers: alice });

  await mortal.kill();
  for (const path of owners.keys()) {
    if (ownedBy(owners, mortal.name)[0] === path) continue;
    const answer = await get(path);
    const owner = owners.get(path);
    t.equal(answer.status, 200, 'no request fails');
    t.ok(answer.bytes.equals(owner?.bytes ?? Buffer.alloc(0)));
    if (owner?.edge === mortal.name) t.not(edgeOf(answer), mortal.name, 'another edge serves it');
    else t.match([edgeOf(answer), isHit(answer)], [owner?.edge, true], 'the other edges still own their objects');
  }
  for (let n = 0; n < 8; n += 1) t.equal((await upload(deployment, words(100_000))).status, 201, 'uploads still work');
  const done = await sendRequest(`${balancer.url}${removed}?wait=edges`, { method: 'DELETE', headers: admin });
  t.match(
    done,
    { status: 204, headers: { 'takedown-confirmed': '2/3' } },
    'confirmed by the edges that run, and the dead one counts',
  );

  await mortal.start();
  t.equal(
    (await sendRequest(mortal.url + removed, { headers: alice })).status,
    410,
    'it applies the takedown that it missed',
  );
  let back = await get(kept);
  for (let left = 200; left > 0 && edgeOf(back) !== mortal.name; left -= 1) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    back = await get(kept);
  }
  t.equal(edgeOf(back), mortal.name, 'and receives the requests for its objects again');
  t.ok(back.bytes.equals(owners.get(kept)?.bytes ?? Buffer.alloc(0)));
  t.equal((await get(removed)).status, 410);
}
