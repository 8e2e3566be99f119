/** A whole origin and three whole edges in a row, in one process: what each tier answers, and how the tiers add up. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { edgeProof } from '../../src/access/edge-proof.js';
import { TEST_SECRET } from '../kit/auth-service.js';
import { turns, untilInTime } from '../kit/clock.js';
import { EDGE_PROOF, openTestEdge } from '../kit/edge/edge.js';
import { type MediaEdge, startEdge } from '../kit/edge/media-edge.js';
import { openRelay } from '../kit/http/relay.js';
import { type HttpResponse, type RequestOptions, sendRequest } from '../kit/http/request.js';
import { startOrigin, type TestOrigin } from '../kit/origin/origin.js';
import { makeJpeg } from '../kit/pictures.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

interface Row {
  readonly origin: TestOrigin;
  /** From the origin outwards. */
  readonly edges: readonly MediaEdge[];
  /** Header fields with a user's token. */
  readonly user: Readonly<Record<string, string>>;
  readonly admin: Readonly<Record<string, string>>;
}

async function openRow(t: Test, section: Readonly<Record<string, unknown>>): Promise<Row> {
  const origin = await startOrigin(t.testdir(), section);
  t.teardown(() => origin.close());
  const edges: MediaEdge[] = [];
  for (let tier = 1; tier <= 3; tier += 1) {
    const url = edges.at(-1)?.url ?? origin.url;
    const folder = join(origin.folder, `edge-${tier}`);
    const edge = await startEdge(folder, origin, { name: `edge-${tier}`, upstream: { url } }, origin.clock);
    t.teardown(() => edge.close());
    edges.push(edge);
    await inTime(
      `edge ${tier} to be ready`,
      origin,
      async () => (await sendRequest(`${edge.url}/readyz`)).status === 200,
    );
  }
  const bearer = (claims: Readonly<Record<string, unknown>>) => ({
    authorization: `Bearer ${origin.auth.token(claims)}`,
  });
  return { origin, edges, user: bearer({ sub: 'bob' }), admin: bearer({ sub: 'mo', scope: 'media:admin' }) };
}

const inTime = (what: string, { clock }: TestOrigin, holds: () => Promise<boolean>): Promise<void> =>
  untilInTime(what, clock, holds, 250);

/** Advances the clock beat by beat, so that every lease stays held. */
async function pass({ origin, edges }: Row, seconds: number): Promise<void> {
  for (let second = 0; second < seconds; second += 1) {
    origin.clock.advance(1_000);
    await turns(25);
  }
  for (const edge of edges) {
    await untilAsync('its lease', async () => /edge_journal_lease 1/.test(await edge.metrics()));
  }
}

const at = (row: Row, tier: number, path: string, options: RequestOptions = {}): Promise<HttpResponse> =>
  sendRequest(`${row.edges[tier - 1]?.url ?? row.origin.url}${path}`, options);

/** The members of Cache-Status, the nearest to the origin first. */
const statusOf = ({ headers }: HttpResponse): string[] => String(headers['cache-status']).split(/,\s*/);

void t.test('three edges in a row', async (t) => {
  const row = await openRow(t, {
    download: { edge_max_age: '12s', edge_stale_while_revalidate: '0s' },
    retention: { unused_for: '30d', uses_every: '2s' },
  });
  await t.test(
    'private media at three tiers: one fetch from the origin, hits at each, for callers whom each authorises',
    (t) => privateMedia(t, row),
  );
  await t.test('public media need no credential at any tier, and nobody learns what is private', (t) =>
    publicMedia(t, row),
  );
  await t.test('Age adds up over the tiers, and the lifetime that the origin gives to edges is obeyed in each', (t) =>
    ages(t, row),
  );
  await t.test('a takedown through the last tier is confirmed by all, and no tier shows the media', (t) =>
    takedown(t, row),
  );
  await t.test('the proof of an edge opens media for reading, and nothing else', (t) => proofs(t, row));
  await t.test('what the last tier serves counts as used at the origin', (t) => uses(t, row));
});

async function privateMedia(t: Test, row: Row): Promise<void> {
  const { origin, user } = row;
  const bytes = await makeJpeg(1, 300, 200);
  const path = `/v1/media/${await origin.uploaded(bytes)}`;
  const as = (headers: Readonly<Record<string, string>>): RequestOptions => ({ headers: { ...user, ...headers } });

  const first = await at(row, 3, path, as({}));
  t.ok(first.bytes.equals(bytes));
  t.strictSame(
    statusOf(first).map((member) => /^edge-\d; fwd=uri-miss; fwd-status=200; ttl=\d+; stored$/.test(member)),
    [true, true, true],
    String(first.headers['cache-status']),
  );
  t.match(first.headers, { via: '1.1 edge-1, 1.1 edge-2, 1.1 edge-3', 'cache-control': 'private, max-age=60' });
  for (const tier of [3, 2, 1]) {
    const hit = await at(row, tier, path, as({}));
    t.ok(hit.bytes.equals(bytes));
    t.match(statusOf(hit).at(-1), new RegExp(`^edge-${tier}; hit; .*detail=memory$`));
    t.match((await at(row, tier, path, as({ range: 'bytes=10-19' }))).status, 206);
    t.match((await at(row, tier, path, as({ 'if-none-match': String(hit.headers['etag']) }))).status, 304);
    t.match(
      (await at(row, tier, path, { method: 'HEAD', headers: user })).headers['content-length'],
      String(bytes.length),
    );
    for (const name of ['cdn-cache-control', 'media-id', 'edge-authorization', 'media-caller']) {
      t.notOk(name in hit.headers, `a client is not shown ${name}`);
    }
    for (const headers of [{}, { authorization: 'Bearer x' }, { 'edge-authorization': edgeProof('x'.repeat(40)) }]) {
      t.equal((await at(row, tier, path, { headers })).status, 401, `tier ${tier} decides by itself`);
    }
  }
  const thumb = `${path}/thumb?w=100`;
  await inTime('the thumbnail at the last tier', origin, async () => (await at(row, 3, thumb, as({}))).status === 200);
  await inTime('a hit', origin, async () => / hit;/.test(statusOf(await at(row, 3, thumb, as({}))).at(-1) ?? ''));
}

async function publicMedia(t: Test, row: Row): Promise<void> {
  const { origin } = row;
  const open = `/v1/media/${await origin.uploaded(await makeJpeg(2, 60, 40), '?public=true')}`;
  const closed = `/v1/media/${await origin.uploaded(await makeJpeg(3, 60, 40))}`;
  t.equal((await at(row, 3, open)).status, 200);
  t.match(statusOf(await at(row, 3, open)).at(-1), /^edge-3; hit/);
  t.equal((await at(row, 2, open)).status, 200);
  const refusals = await Promise.all([closed, '/v1/media/01J9ZC8GZ00000000000000009'].map((path) => at(row, 3, path)));
  t.strictSame(
    refusals.map(({ status }) => status),
    [401, 401],
  );
  t.ok(refusals[0]?.bytes.equals(refusals[1]?.bytes ?? Buffer.alloc(0)));
  const unknown = await at(row, 3, '/v1/media/01J9ZC8GZ00000000000000009', { headers: row.user });
  t.equal(unknown.status, 404);
}

async function ages(t: Test, row: Row): Promise<void> {
  const headers = row.user;
  const path = `/v1/media/${await row.origin.uploaded(await makeJpeg(4, 60, 40), '?public=true')}`;
  const thumbsAreMade = async (): Promise<boolean> => (await row.origin.as('bob', `${path}/thumb?w=40`)).status === 200;
  await inTime('the thumbnails', row.origin, thumbsAreMade);
  t.equal((await at(row, 1, path, { headers })).headers['age'], '0');
  await pass(row, 4);
  t.equal((await at(row, 2, path, { headers })).headers['age'], '4');
  await pass(row, 4);
  const third = await at(row, 3, path, { headers });
  t.equal(third.headers['age'], '8');
  t.match(statusOf(third).at(-1), /ttl=(3|4); stored$/, 'what is left of it');
  // The client may keep it for its own time from now on.
  t.equal(third.headers['cache-control'], 'public, max-age=68');
  await pass(row, 5);
  const later = await at(row, 3, path, { headers });
  t.match(statusOf(later).at(-1), /^edge-3; fwd=stale; fwd-status=304/);
  t.equal(later.headers['age'], '0', 'every tier has asked the one before it');
}

async function takedown(t: Test, row: Row): Promise<void> {
  const { origin, user, admin } = row;
  const deleted = await taken(t, row, await makeJpeg(5, 60, 40));
  const done = await at(row, 3, `${deleted}?wait=edges`, { method: 'DELETE', headers: admin });
  t.match(done, { status: 204, headers: { 'takedown-confirmed': '3/3' } });
  t.same(await statusesOf(row, deleted, user), [410, 410, 410, 410, 410, 410]);

  const quarantined = await taken(t, row, await makeJpeg(6, 60, 40));
  const direct = await origin.asAdmin(`${quarantined}/quarantine?wait=edges`, { method: 'POST' });
  t.match(direct, { status: 204, headers: { 'takedown-confirmed': '3/3' } });
  t.same(await statusesOf(row, quarantined, user), [403, 403, 403, 403, 403, 403]);
}

/** Uploads, and has every tier take a copy of the media and of its info. Returns the path. */
async function taken(t: Test, row: Row, bytes: Buffer): Promise<string> {
  const path = `/v1/media/${await row.origin.uploaded(bytes)}`;
  t.same(await statusesOf(row, path, row.user), [200, 200, 200, 200, 200, 200]);
  const again = await at(row, 3, `${path}/info`, { headers: row.user });
  t.match(statusOf(again).at(-1), /^edge-3; hit/, 'the info is kept too');
  return path;
}

/** Of the media and of its info, from the outermost tier to the innermost. */
async function statusesOf(row: Row, path: string, headers: Readonly<Record<string, string>>): Promise<number[]> {
  const statuses: number[] = [];
  for (const tier of [3, 2, 1]) {
    for (const each of [path, `${path}/info`]) statuses.push((await at(row, tier, each, { headers })).status);
  }
  return statuses;
}

async function proofs(t: Test, row: Row): Promise<void> {
  const headers = { 'edge-authorization': edgeProof(TEST_SECRET) };
  const path = `/v1/media/${await row.origin.uploaded(await makeJpeg(7, 60, 40))}`;
  const read = await at(row, 1, path, { headers });
  t.match(read, { status: 200, headers: { 'cdn-cache-control': /max-age=/, 'media-id': path.slice(10) } });
  const anonymous = await at(row, 1, path, { headers: { ...headers, 'media-caller': 'anonymous' } });
  t.equal(anonymous.status, 401, 'for a caller without a credential');
  for (const [method, target] of [
    ['POST', '/v1/media'],
    ['POST', `${path}/link`],
    ['POST', '/v1/uploads'],
    ['DELETE', path],
    ['POST', `${path}/quarantine`],
    ['GET', '/v1/admin/media'],
  ] as const) {
    const body = method === 'POST' ? { body: Buffer.from('x') } : {};
    t.equal((await at(row, 1, target, { method, headers, ...body })).status, 401, `${method} ${target}`);
  }
  t.equal((await at(row, 1, '/internal/v1/else', { headers })).status, 404);
}

async function uses(t: Test, row: Row): Promise<void> {
  const reported = async (): Promise<number> => {
    const { bytes } = await sendRequest(`${row.origin.operators}/metrics`);
    return Number(/uses_reported_total (\d+)/.exec(String(bytes))?.[1]);
  };
  const path = `/v1/media/${await row.origin.uploaded(await makeJpeg(8, 60, 40))}`;
  await at(row, 3, path, { headers: row.user });
  await pass(row, 3);
  const before = await reported();
  await at(row, 3, path, { headers: row.user });
  t.match(statusOf(await at(row, 3, path, { headers: row.user })).at(-1), /^edge-3; hit/);
  // Not exactly one more: a report of what was served before may still be on its way.
  await inTime('the report', row.origin, async () => (await reported()) > before);
}

void t.test('edges that have each other as origin answer 421 at once, in every mode', async (t) => {
  const folder = t.testdir();
  const first = await openTestEdge(join(folder, 'a'), { edge: ['access: "off"', 'name: a'] });
  const second = await openTestEdge(join(folder, 'b'), { edge: ['access: "off"', 'name: b'], originUrl: first.url });
  t.teardown(() => second.close());
  t.teardown(() => first.close());
  first.origin.on('*', async (seen, answer) => {
    const headers = Object.fromEntries(
      Object.entries(seen.headers).flatMap(([name, value]) =>
        name === 'host' || name === 'connection' || value === undefined ? [] : [[name, String(value)]],
      ),
    );
    const round = await sendRequest(second.url + seen.target, { method: seen.method, headers });
    answer.head(round.status, { 'x-round': 'yes' });
    answer.end(round.bytes);
  });
  for (const method of ['GET', 'HEAD', 'DELETE', 'OPTIONS']) {
    const answer = await sendRequest(`${second.url}/${randomUUID()}`, { method });
    t.equal(answer.status, 421, method);
  }
  t.ok(first.origin.seen.length >= 4);
  t.match(first.origin.seen[0]?.headers, { 'cdn-loop': 'b, a', via: '1.1 b, 1.1 a' });
});

void t.test('in generic mode CDN-Cache-Control reaches the next cache, which obeys it (RFC 9213)', async (t) => {
  const folder = t.testdir();
  const outer = await openTestEdge(join(folder, 'a'), { edge: ['access: "off"', 'name: outer'] });
  const inner = await openTestEdge(join(folder, 'b'), { edge: ['access: "off"', 'name: inner'], originUrl: outer.url });
  t.teardown(() => inner.close());
  t.teardown(() => outer.close());
  const fields = { 'cdn-cache-control': 'max-age=100', 'cache-control': 'no-store', etag: '"1"' };
  outer.origin.on('*', (_seen, answer) => {
    answer.head(200, { ...fields, 'content-length': '4' });
    answer.end('page');
  });
  t.match((await sendRequest(`${inner.url}/page`)).headers, fields);
  const hit = await sendRequest(`${inner.url}/page`);
  t.match(hit.headers, { ...fields, 'cache-status': /inner; hit/ });
  t.match(statusOf(hit)[0], /^outer; fwd=uri-miss/, 'the members of both caches');
  outer.clock.advance(40_000);
  const other = await openTestEdge(join(folder, 'c'), { edge: ['access: "off"', 'name: other'], originUrl: outer.url });
  t.teardown(() => other.close());
  const late = await sendRequest(`${other.url}/page`);
  t.match(late.headers, { age: '40', 'cache-status': /outer; hit.*, other; fwd=uri-miss.*ttl=60; stored/ });
  t.equal(outer.origin.count('/page'), 1);
  const posted = await sendRequest(`${inner.url}/page`, { method: 'POST', body: Buffer.from('x') });
  t.match(posted.headers, { 'cdn-cache-control': 'max-age=100' }, 'also of a request that is passed on');
});

void t.test('a request that demands a fresh answer does not share the fetch of one that does not', async (t) => {
  const edge = await openTestEdge(join(t.testdir(), 'a'), { edge: ['access: "off"'] });
  t.teardown(() => edge.close());
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  edge.origin.on('*', async (_seen, answer) => {
    await released;
    answer.head(200, { 'cache-control': 'max-age=100', 'content-length': '4' });
    answer.end('page');
  });
  const get = (headers: Readonly<Record<string, string>>): Promise<HttpResponse> =>
    sendRequest(`${edge.url}/page`, { headers });
  const answers = [get({}), get({})];
  await edge.origin.arrived('/page');
  answers.push(get({ 'cache-control': 'no-cache' }));
  await edge.origin.arrived('/page', 2);
  release();
  for (const answer of await Promise.all(answers)) t.equal(answer.status, 200);
  t.equal(edge.origin.count('/page'), 2, 'the origin may be a cache, and answer only one of them from its store');
});

void t.test('in mode `serve` the journal is followed again as soon as the origin answers any request', async (t) => {
  const origin = await startOrigin(t.testdir());
  t.teardown(() => origin.close());
  const relay = await openRelay(() => origin.port);
  t.teardown(() => relay.close());
  const journal = { reconnect_max: '10m', lease: { mode: 'serve', serve_max: '24h' } };
  const section = { upstream: { url: relay.url }, journal };
  const edge = await startEdge(join(origin.folder, 'edge'), origin, section, origin.clock);
  t.teardown(() => edge.close());
  const holdsLease = async (): Promise<boolean> => /edge_journal_lease 1/.test(await edge.metrics());
  await inTime('the lease', origin, holdsLease);
  for (const passed of ['GET', 'OPTIONS']) {
    relay.set('refuse');
    relay.cut();
    for (let failures = 0; failures < 40; failures += 1) {
      origin.clock.advance(30_000);
      await turns(25);
    }
    t.notOk(await holdsLease());
    relay.set('pass');
    const path = `/v1/media/${await origin.uploaded(await makeJpeg(passed.length, 60, 40))}`;
    const headers = { authorization: `Bearer ${origin.auth.token()}` };
    await untilAsync(`an answer to ${passed}`, async () => {
      const { status } = await sendRequest(edge.url + path, { method: passed, headers });
      return status < 300;
    });
    const answeredAt = origin.clock.monotonicMs();
    await inTime('the lease', origin, holdsLease);
    t.ok(origin.clock.monotonicMs() - answeredAt < 60_000, `after ${passed}, at once instead of after ten minutes`);
  }
});

void t.test('only a proved edge says through which hops a fetch of media has come', async (t) => {
  const edge = await openTestEdge(join(t.testdir(), 'a'), {});
  t.teardown(() => edge.close());
  edge.origin.on('*', (_seen, answer) => {
    answer.head(200, { 'cache-control': 'public, max-age=100', 'content-length': '4' });
    answer.end('file');
  });
  const hops = { via: '1.1 far', 'cdn-loop': 'far; v=1' };
  const ask = (id: number, headers: Readonly<Record<string, string>>): Promise<HttpResponse> =>
    sendRequest(`${edge.url}/v1/media/01J9ZC8GZ0000000000000000${id}`, { headers });
  await ask(1, { ...hops, 'edge-authorization': EDGE_PROOF });
  await ask(2, { ...hops, authorization: 'Bearer reader' });
  t.strictSame(
    edge.origin.seen.map(({ headers }) => [headers['via'], headers['cdn-loop']]),
    [
      ['1.1 far, 1.1 edge', 'far; v=1, edge'],
      ['1.1 edge', 'edge'],
    ],
  );
  const round = await ask(3, { 'cdn-loop': 'far, edge', 'edge-authorization': EDGE_PROOF });
  t.equal(round.status, 421);
  t.equal(edge.origin.seen.length, 2);
});
