/** Several edges behind nginx with the example configuration: real processes, one owner for each object. */
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
import { freePorts, type Service, startService } from '../kit/service.js';

/** So many that each edge owns some, but for one run in millions. */
const OBJECTS = 40;

interface House {
  readonly service: Service;
  readonly balancer: Balancer;
  /** All of them, the one that `dev` runs included. */
  readonly edges: readonly { readonly name: string; readonly url: string }[];
  readonly mortal: EdgeProcess;
  readonly alice: Readonly<Record<string, string>>;
  readonly admin: Readonly<Record<string, string>>;
}

t.setTimeout(180_000);
void t.test('three edges behind a balancer', async (t) => {
  if (!(await hasNginx())) {
    t.pass('left out: there is no nginx', { skip: 'there is no nginx' });
    return;
  }
  const house = await openHouse(t);
  await t.test('uploads pass whole, and refusals arrive', (t) => uploads(t, house));
  const owners = await spread(t, house);
  await t.test('a takedown is confirmed by all of them, and none serves it', (t) => takedown(t, house, owners));
  await t.test('a client is known by its own address, whatever it says', (t) => addresses(t, house));
  await t.test('one edge dies and comes back', (t) => death(t, house, owners));
});

async function openHouse(t: Test): Promise<House> {
  const folder = t.testdir();
  const [first, second] = await Promise.all([freePorts(), freePorts()]);
  const at: readonly [EdgeAddress, EdgeAddress, EdgeAddress] = [
    { name: 'edge-1', port: first.edge, operatorsPort: first.edgeOperators },
    { name: 'edge-2', port: first.origin, operatorsPort: first.originOperators },
    { name: 'edge-3', port: second.edge, operatorsPort: second.edgeOperators },
  ];
  const service = await startService(folder, (config) => {
    const origin = `http://127.0.0.1:${/origin:\n {2}listen: \{ port: (\d+)/.exec(config)?.[1] ?? ''}`;
    const changed = withEdge(config, edgeSectionOf(at[0], origin));
    return changed.replace('origin:\n', `origin:\n  base_uri: http://127.0.0.1:${first.auth}\n`);
  });
  t.teardown(() => service.stop());
  const others = [await addEdge(folder, at[1], service.origin), await addEdge(folder, at[2], service.origin)] as const;
  for (const edge of others) {
    t.teardown(() => edge.stop());
    await edge.start();
  }
  const balancer = await startBalancer(join(folder, 'nginx'), first.auth, at);
  t.teardown(() => balancer.stop());
  const [alice, admin] = await Promise.all([service.token(), service.token({ subject: 'mo', admin: true })]);
  return {
    service,
    balancer,
    edges: at.map(({ name, port }) => ({ name, url: `http://127.0.0.1:${port}` })),
    mortal: others[0],
    alice: { authorization: `Bearer ${alice}` },
    admin: { authorization: `Bearer ${admin}` },
  };
}

const words = (sizeBytes: number): Buffer => Buffer.from(randomBytes(sizeBytes).toString('base64').slice(0, sizeBytes));
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

function upload({ balancer, alice }: House, bytes: Uint8Array): Promise<HttpResponse> {
  const headers = { ...alice, 'content-type': 'text/plain' };
  return sendRequest(`${balancer.url}/v1/media`, { method: 'POST', headers, body: bytes });
}

/** Which edge answered. */
const edgeOf = (answer: HttpResponse): string => String(answer.headers['cache-status']).split(';')[0] ?? '';
const isHit = (answer: HttpResponse): boolean => /^[^,]*; hit/.test(String(answer.headers['cache-status']));

async function uploads(t: Test, house: House): Promise<void> {
  const { balancer, alice } = house;
  const bytes = words(5_000_000);
  const created = await upload(house, bytes);
  t.equal(created.status, 201, created.bytes.toString());
  t.equal(member(created, 'sha256'), sha256(bytes));
  const url = member(created, 'url');
  t.ok(url.startsWith(balancer.url), 'what it hands out leads through the balancer');
  t.ok((await sendRequest(url, { headers: alice })).bytes.equals(bytes), 'and comes back byte for byte');
  const part = await sendRequest(url, { headers: { ...alice, range: 'bytes=4000000-4000009' } });
  t.match(part, { status: 206, bytes: bytes.subarray(4_000_000, 4_000_010) });
  const etag = String(part.headers.etag);
  t.equal((await sendRequest(url, { headers: { ...alice, 'if-none-match': etag } })).status, 304);

  t.equal(await uploadOnceWanted(house, words(5_000_000)), 201, 'one that waits for 100 Continue');
  const body = { method: 'POST', body: words(5_000_000) };
  const stranger = await sendRequest(`${balancer.url}/v1/media`, {
    ...body,
    headers: { 'content-type': 'text/plain' },
  });
  t.match(stranger, { status: 401, headers: { 'content-type': 'application/problem+json' } });
  t.match((await upload(house, words(11_000_000))).status, 413);
}

/** Sends nothing of the body before it is asked to. */
function uploadOnceWanted({ balancer, alice }: House, bytes: Buffer): Promise<number | undefined> {
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

/** Who owns which path. */
type Owners = ReadonlyMap<string, { readonly edge: string; readonly bytes: Buffer }>;

async function spread(t: Test, house: House): Promise<Owners> {
  const owners = new Map<string, { edge: string; bytes: Buffer }>();
  await t.test('objects and uploads spread, and each object has one edge', async (t) => {
    const { balancer, edges, alice } = house;
    const all = edges.map(({ name }) => name);
    const uploadedThrough = new Set<string>();
    for (let n = 0; n < OBJECTS; n += 1) {
      const bytes = words(2_000);
      const created = await upload(house, bytes);
      t.equal(created.status, 201);
      uploadedThrough.add(edgeOf(created));
      const path = `/v1/media/${member(created, 'id')}`;
      const first = await sendRequest(balancer.url + path, { headers: alice });
      t.ok(first.bytes.equals(bytes));
      t.notOk(isHit(first), 'a first fetch is a miss');
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
    t.same([...uploadedThrough].sort(), all, 'each edge takes uploads');
  });
  return owners;
}

function ownedBy(owners: Owners, name: string): readonly string[] {
  return [...owners].filter(([, { edge }]) => edge === name).map(([path]) => path);
}

async function takedown(t: Test, { balancer, edges, alice, admin }: House, owners: Owners): Promise<void> {
  const [path = ''] = ownedBy(owners, 'edge-2');
  for (const { url } of edges) {
    await sendRequest(url + path, { headers: alice });
    t.ok(isHit(await sendRequest(url + path, { headers: alice })), 'every edge holds a copy');
  }
  const done = await sendRequest(`${balancer.url}${path}?wait=edges`, { method: 'DELETE', headers: admin });
  t.match(done, { status: 204, headers: { 'takedown-confirmed': '3/3' } });
  for (const url of [balancer.url, ...edges.map((edge) => edge.url)])
    t.equal((await sendRequest(url + path, { headers: alice })).status, 410, url);
}

async function addresses(t: Test, { service, balancer, admin }: House): Promise<void> {
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

async function death(t: Test, house: House, owners: Owners): Promise<void> {
  const { balancer, mortal, alice, admin } = house;
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
    if (owner?.edge === mortal.name) t.not(edgeOf(answer), mortal.name, 'another stands in');
    else t.match([edgeOf(answer), isHit(answer)], [owner?.edge, true], 'the others keep what they own');
  }
  for (let n = 0; n < 8; n += 1) t.equal((await upload(house, words(100_000))).status, 201, 'uploads go on');
  const done = await sendRequest(`${balancer.url}${removed}?wait=edges`, { method: 'DELETE', headers: admin });
  t.match(done, { status: 204, headers: { 'takedown-confirmed': '2/2' } }, 'confirmed by those that are there');

  await mortal.start();
  t.equal((await sendRequest(mortal.url + removed, { headers: alice })).status, 410, 'it learns what it missed');
  let back = await get(kept);
  for (let left = 200; left > 0 && edgeOf(back) !== mortal.name; left -= 1) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    back = await get(kept);
  }
  t.equal(edgeOf(back), mortal.name, 'and is asked for its share again');
  t.ok(back.bytes.equals(owners.get(kept)?.bytes ?? Buffer.alloc(0)));
  t.equal((await get(removed)).status, 410);
}
