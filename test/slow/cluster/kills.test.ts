/**
 * Several origins over one database and one bucket, as processes: what is taken down at one ends at the edges of all,
 * what is made by one is seen at all, and whatever dies at a random moment, nothing that was answered is lost or undone.
 */
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { keysOf } from '../../../origin/meta/media.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { type HttpResponse, json, member, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { makeJpeg } from '../../kit/pictures.js';
import { type Cluster, type Member, openCluster } from '../../kit/postgres/cluster.js';
import { Traffic } from '../../kit/postgres/traffic.js';
import { asCaller } from '../../kit/processes.js';
import { seeded } from '../../kit/random.js';
import { untilReady } from '../../kit/service.js';
import { untilAsync } from '../../kit/until.js';

const ROUNDS = Number(process.env['CLUSTER_ROUNDS'] ?? 6);
const SAME_BYTES = Number(process.env['CLUSTER_SAME_BYTES'] ?? 400);
const SEED = Number(process.env['CLUSTER_SEED'] ?? 1);
const TIMEOUT_MS = 3_600_000;
/** The contract: connected edges stop within a second. */
const CONNECTED_MAX_MS = 1_000;
const QUICK = {
  retention: { grace: '1s', trash: '1s', sweep_every: '300ms' },
  resumable: { sweep_every: '1s' },
  thumbs: { children: { count: 1 }, video: { enabled: false }, queue: { lease: '10s' } },
};

t.setTimeout(TIMEOUT_MS);

async function cluster(t: Test): Promise<Cluster | null> {
  const opened = await openCluster(t.testdir());
  if (opened === null) t.comment('there is no PostgreSQL server on this machine');
  t.teardown(() => opened?.close());
  return opened;
}

const upload = (cluster: Cluster, origin: Member, body: Buffer, query = ''): Promise<HttpResponse> =>
  sendRequest(
    `${origin.url}/v1/media${query}`,
    asCaller(cluster.processes.user, { method: 'POST', headers: { 'content-type': 'image/png' }, body }),
  );
const fetched = (cluster: Cluster, url: string, path: string): Promise<HttpResponse> =>
  sendRequest(url + path, asCaller(cluster.processes.user));
const removed = (cluster: Cluster, origin: Member, id: string): Promise<HttpResponse> =>
  sendRequest(`${origin.url}/v1/media/${id}`, asCaller(cluster.processes.admin, { method: 'DELETE' }));

void t.test('what one origin takes down or makes is so at the others', async (t) => {
  const opened = await cluster(t);
  if (opened === null) return;
  const a = await opened.add('a', { thumbs: { children: { count: 1 }, video: { enabled: false } } });
  const b = await opened.add('b', { thumbs: { enabled: false, wait: '60s', picture_wait: '60s' } });
  const edges = await Promise.all(
    [a, b].map(async ({ name, url }) => {
      const section = { name, upstream: { url }, cache: { folder: `./data/edge-${name}`, disk: { min_free: '0B' } } };
      const edge = await (await opened.processes.launch('edge', section, { as: `edge-${name}` })).ready;
      await untilReady(edge);
      return edge;
    }),
  );

  const picture = await makeJpeg(1, 320, 240);
  const made = await sendRequest(
    `${a.url}/v1/media?public=true`,
    asCaller(opened.processes.user, { method: 'POST', headers: { 'content-type': 'image/jpeg' }, body: picture }),
  );
  t.equal(made.status, 201, made.bytes.toString());
  const thumb = await fetched(opened, b.url, `/v1/media/${member(made, 'id')}/thumb`);
  t.equal(thumb.status, 200, 'a thumbnail that the other origin made while this one waited');

  for (let n = 0; n < 8; n += 1) {
    const id = member(await upload(opened, [a, b][n % 2] ?? a, png(100 + n)), 'id');
    const path = `/v1/media/${id}`;
    for (const edge of edges) {
      await untilAsync('the edge has a copy', async () =>
        /; hit/.test(String((await fetched(opened, edge, path)).headers['cache-status'])),
      );
    }
    t.equal((await removed(opened, a, id)).status, 204);
    const fromMs = performance.now();
    await Promise.all(
      edges.map((edge) =>
        untilAsync('the copy is gone', async () => (await fetched(opened, edge, path)).status === 410),
      ),
    );
    const tookMs = performance.now() - fromMs;
    t.ok(tookMs < CONNECTED_MAX_MS, `after ${Math.round(tookMs)} ms`);
    t.equal((await fetched(opened, b.url, path)).status, 410);
  }
  const wellKnown = await Promise.all([a, b].map(({ url }) => sendRequest(`${url}/.well-known`)));
  t.same(Object.keys(JSON.parse(String(wellKnown[0]?.bytes))), Object.keys(JSON.parse(String(wellKnown[1]?.bytes))));
  await answersAreTheSame(t, opened, [a, b], member(made, 'id'));
});

/** What admins are told, whichever origin they ask. `live`: an id of the test. */
async function answersAreTheSame(
  t: Test,
  opened: Cluster,
  [a, b]: readonly [Member, Member],
  live: string,
): Promise<void> {
  const asAdmin = async ({ url }: Member, method: string, path: string): Promise<HttpResponse> =>
    sendRequest(url + path, asCaller(opened.processes.admin, { method }));
  const withheld = member(await upload(opened, b, png(200)), 'id');
  t.equal((await asAdmin(a, 'POST', `/v1/media/${withheld}/quarantine?reason=looked+at`)).status, 204);
  const list = json(await asAdmin(a, 'GET', '/v1/admin/media'))['items'] as readonly { id: string; state: string }[];
  const deleted = list.find(({ state }) => state === 'deleted')?.id ?? '';
  for (const path of [
    '/v1/admin/media',
    '/v1/admin/media?state=deleted&limit=3',
    `/v1/admin/media?owner=${encodeURIComponent('nobody')}`,
    ...[live, withheld, deleted].map((id) => `/v1/admin/media/${id}`),
  ]) {
    let answers: readonly string[] = [];
    // When an edge was heard of changes all the time.
    const told = async (origin: Member): Promise<string> => {
      const { status, bytes } = await asAdmin(origin, 'GET', path);
      return `${status} ${bytes.toString().replaceAll(/"heard_at":"[^"]*"/g, '')}`;
    };
    await untilAsync(`both tell the same of ${path}`, async () => {
      answers = await Promise.all([told(a), told(b)]);
      return answers[0] === answers[1];
    });
    t.match(answers[0], /^200 \{/, path);
  }
  t.equal((await asAdmin(b, 'DELETE', `/v1/media/${withheld}/quarantine`)).status, 204);
  const lines = await opened.postgres.query(
    opened.databaseUrl,
    `SELECT line->>'act' AS act, line->>'target' AS target FROM audit WHERE line->>'act' IN ('quarantine', 'restore') ORDER BY n`,
  );
  t.match(lines, [{ act: 'quarantine' }, { act: 'restore' }], 'one audit log has the acts at both');
}

/** Whether everything is as it was answered, at each origin; nothing waits; nothing is stored that no record names. */
async function holds(t: Test, opened: Cluster, origins: readonly Member[], traffic: Traffic): Promise<void> {
  const counts = { live: 0, deleted: 0, unknown: 0 };
  let wrong = 0;
  for (const [n, file] of traffic.files.entries()) {
    for (const [id, state] of file.copies) {
      counts[state] += 1;
      const at = origins[n % origins.length] ?? origins[0];
      const answer = await fetched(opened, at?.url ?? '', `/v1/media/${id}`);
      const isRight =
        state === 'live'
          ? answer.status === 200 && answer.bytes.equals(file.bytes)
          : answer.status === 410 || (state === 'unknown' && answer.status === 200);
      if (isRight) continue;
      wrong += 1;
      t.fail(`${id} is ${state} and answered with ${answer.status} at ${at?.name}`);
    }
  }
  t.equal(wrong, 0, `everything is as it was answered: ${JSON.stringify(counts)}`);
  t.same(traffic.wrong, []);
  const store = await opened.store();
  await untilAsync('every job has ended', async () => {
    const { waiting, leased } = await store.jobs.counts();
    return waiting + leased === 0;
  });
  t.equal((await store.jobs.counts()).dead, 0, 'no job was given up');
  await untilAsync('nothing is stored that no record names', async () => (await unnamed(opened, store)).length === 0);
  await opened.postgres.query(opened.databaseUrl, 'UPDATE upload SET expires_at = 0');
  await untilAsync('no part of an upload is left', async () =>
    (await opened.bucket.keys()).every((key) => !key.startsWith('part/')),
  );
  const findings: unknown[] = [];
  await store.verify({
    repair: false,
    now: Date.now(),
    signal: new AbortController().signal,
    onFinding: (finding) => findings.push(finding),
    onBlobUnknown: (record) => findings.push(record),
    onProgress: () => undefined,
  });
  t.same(findings, []);
  const entries = await store.journal.read(0, 1_000_000);
  t.same(
    entries.map(({ seq }) => seq),
    entries.map((_, n) => n + 1),
    'the journal has no gaps',
  );
  const ended = entries.filter(({ cause }) => cause === 'delete').flatMap(({ ids }) => ids);
  t.equal(new Set(ended).size, ended.length, 'nothing is deleted twice');
}

/** Keys in the bucket without a record, and keys of records without bytes. */
async function unnamed(opened: Cluster, store: MetaStore): Promise<readonly string[]> {
  const named = new Set<string>();
  for (let after = null as Parameters<MetaStore['blobsAfter']>[0]; ; ) {
    const { blobs, next } = await store.blobsAfter(after, 100);
    for (const blob of blobs) for (const key of keysOf(blob)) named.add(key);
    if (next === null) break;
    after = next;
  }
  const stored = new Set(await opened.bucket.keys());
  const ofBlobs = [...stored].filter((key) => /^(?:media|thumb)\//.test(key));
  return [...ofBlobs.filter((key) => !named.has(key)), ...[...named].filter((key) => !stored.has(key))];
}

void t.test(`one of three origins is killed at a random moment, ${ROUNDS} times`, async (t) => {
  const opened = await cluster(t);
  if (opened === null) return;
  const random = seeded(SEED);
  const origins = [await opened.add('a', QUICK), await opened.add('b', QUICK), await opened.add('c', QUICK)];
  const traffic = new Traffic(opened, origins, random);
  for (let round = 0; round < ROUNDS; round += 1) {
    await traffic.more(20 + Math.floor(random() * 40));
    await pause(random() * 30);
    const victim = origins[Math.floor(random() * origins.length)] ?? origins[0];
    await victim?.kill();
    traffic.alive = origins.filter((origin) => origin !== victim);
    await traffic.more(20);
    await victim?.start();
    traffic.alive = [...origins];
  }
  await traffic.stop();
  const { answered, broken, done, refused } = traffic;
  t.comment(`${answered} answers, ${broken} lost, refused: ${JSON.stringify([...refused])}, ${JSON.stringify(done)}`);
  for (const [kind, count] of Object.entries(done)) t.ok(count > 0, `there was every kind of request: ${kind}`);
  await holds(t, opened, origins, traffic);
});

void t.test('the database is killed, and away for seconds', async (t) => {
  const opened = await cluster(t);
  if (opened === null) return;
  const origins = [await opened.add('a', QUICK), await opened.add('b', QUICK)];
  const traffic = new Traffic(opened, origins, seeded(SEED));
  for (const awayMs of [0, 0, 4_000]) {
    await traffic.more(60);
    await opened.postgres.stop();
    await pause(awayMs);
    await opened.postgres.start();
  }
  await traffic.more(60);
  await traffic.stop();
  t.ok((traffic.refused.get(503) ?? 0) > 0, 'meanwhile everything was refused');
  t.same(
    [...traffic.refused.keys()].filter((status) => status !== 503),
    [],
    'and with nothing but 503',
  );
  for (const { url } of origins) {
    await untilAsync('each is ready again', async () => (await sendRequest(`${url}/readyz`)).status === 200);
  }
  await holds(t, opened, origins, traffic);
});

void t.test(`two origins store and delete the same bytes, ${SAME_BYTES} times`, async (t) => {
  const opened = await cluster(t);
  if (opened === null) return;
  const origins = [await opened.add('a', QUICK), await opened.add('b', QUICK)];
  const body = png(7);
  let without = 0;
  const work = async (own: Member, other: Member, isPublic: boolean): Promise<void> => {
    for (let n = 0; n < SAME_BYTES / 2; n += 1) {
      const created = await upload(opened, own, body, `?public=${isPublic}`);
      if (created.status !== 201 && created.status !== 200) throw new Error(`an upload: ${created.status}`);
      const id = member(created, 'id');
      const found = await fetched(opened, other.url, `/v1/media/${id}`);
      if (found.status !== 200 || !found.bytes.equals(body)) without += 1;
      // Now and then long enough for a sweep to free the bytes.
      if (n % 100 === 99) await pause(1_500);
      await removed(opened, other, id);
      if (n % 100 === 49) await pause(1_500);
    }
  };
  const [a, b] = origins as [Member, Member];
  await Promise.all([work(a, b, true), work(b, a, false)]);
  t.equal(without, 0, 'no live media without bytes');
  const store = await opened.store();
  await untilAsync('nothing is left', async () => (await unnamed(opened, store)).length === 0);
});
