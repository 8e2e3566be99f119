/** Acts of admins on all media of an owner: over HTTP, and step by step over doubles of the stores. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { AuditAct } from '../../../origin/audit.js';
import type { OwnedPage } from '../../../origin/meta/store.js';
import { takeDownOwner } from '../../../origin/takedown/of-owner.js';
import type { MediaId } from '../../../src/ids.js';
import { ManualClock } from '../../kit/clock.js';
import { startEdge } from '../../kit/edge/media-edge.js';
import { type HttpResponse, json, member, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { gateOf, granted, ID, NOW, requestOf } from '../../kit/origin/doubles/request.js';
import { startOrigin, type TestOrigin } from '../../kit/origin/origin.js';
import { untilAsync } from '../../kit/until.js';

const NO_THUMBS = { thumbs: { enabled: false, wait: '0ms', video: { enabled: false } } };
const code = (response: HttpResponse): string => `${response.status} ${String(json(response)['code'])}`;

const act = (origin: TestOrigin, owner: string, verb: string): Promise<HttpResponse> =>
  origin.asAdmin(`/v1/admin/owners/${encodeURIComponent(owner)}/${verb}`, { method: 'POST' });

async function uploadAs(origin: TestOrigin, owner: string, bytes: Buffer, query = ''): Promise<string> {
  return member(await origin.as(owner, `/v1/media${query}`, { method: 'POST', body: bytes }), 'id');
}

const statuses = (origin: TestOrigin, ids: readonly string[]): Promise<readonly number[]> =>
  Promise.all(ids.map(async (id) => (await origin.as('reader', `/v1/media/${id}`)).status));

async function auditOf(origin: TestOrigin): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const text = await readFile(join(origin.folder, 'audit.jsonl'), 'utf8');
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
}

void t.test('all media of an owner are withheld, given back and deleted at once', async (t) => {
  const folder = t.testdir();
  const origin = await startOrigin(folder, { ...NO_THUMBS, audit: { file: join(folder, 'audit.jsonl') } });
  t.teardown(() => origin.close());
  const own = [await uploadAs(origin, 'ada', png(1)), await uploadAs(origin, 'ada', png(2))];
  const shared = await uploadAs(origin, 'bob', png(2), '?public=true');
  const apart = await uploadAs(origin, 'bob', png(3));
  const all = [...own, shared, apart];

  const withheld = await act(origin, 'ada', 'quarantine?wait=edges&reason=spam');
  t.equal(withheld.status, 202);
  t.same(json(withheld), { media: 2, others: 1, next: null });
  t.match(withheld.headers, { 'cache-control': 'no-store', 'takedown-confirmed': '0/0' });
  t.notOk('retry-after' in withheld.headers);
  t.same(await statuses(origin, all), [403, 403, 403, 200], 'the bytes are withheld under every id');
  const again = await act(origin, 'ada', 'quarantine');
  t.same([again.status, json(again)], [202, { media: 0, others: 0, next: null }]);
  t.notOk('takedown-confirmed' in again.headers);

  t.same(json(await act(origin, 'ada', 'restore')), { media: 2, others: 1, next: null });
  t.same(await statuses(origin, all), [200, 200, 200, 200]);
  t.same(json(await act(origin, 'ada', 'delete')), { media: 2, others: 0, next: null });
  t.same(await statuses(origin, all), [410, 410, 200, 200], 'a delete leaves the ids of others');
  t.same(json(await act(origin, 'ada', 'delete')), { media: 0, others: 0, next: null });
  t.same(json(await act(origin, 'nobody', 'delete')), { media: 0, others: 0, next: null });

  t.match((await auditOf(origin)).slice(0, 4), [
    { act: 'quarantine_owner', target: null, owner: 'ada', media: 2, others: 1, outcome: 'done', reason: 'spam' },
    { act: 'quarantine_owner', owner: 'ada', media: 0 },
    { act: 'restore_owner', media: 2 },
    { act: 'delete_owner', media: 2, others: 0 },
  ]);
  t.strictSame(await origin.undescribed(), []);
});

void t.test('only admins may, and a subject is any text', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());
  const id = await uploadAs(origin, 'ada', png(1));
  for (const verb of ['quarantine', 'restore', 'delete']) {
    const path = `/v1/admin/owners/ada/${verb}`;
    t.equal(code(await origin.as('ada', path, { method: 'POST' })), '403 forbidden', 'not even the owner');
    t.equal((await origin.send(path, { method: 'POST' })).status, 401);
    t.equal((await origin.asEdge(path, { method: 'POST' })).status, 401);
    t.equal((await origin.asAdmin(path)).status, 405);
  }
  t.same(await statuses(origin, [id]), [200]);
  const strange = 'auth0|5f/7 ü?#%2F';
  const theirs = await uploadAs(origin, strange, png(2));
  t.match(json(await act(origin, strange, 'delete')), { media: 1 });
  t.same(await statuses(origin, [theirs, id]), [410, 200]);
  for (const wrong of ['%', '%ff', '', 'a'.repeat(1_025)]) {
    const answer = await origin.asAdmin(`/v1/admin/owners/${wrong}/delete`, { method: 'POST' });
    t.equal(code(answer), '400 malformed', wrong.slice(0, 9));
  }
  t.equal((await origin.asAdmin('/v1/admin/owners/ada/delete?cursor=x', { method: 'POST' })).status, 400);
  t.equal((await origin.asAdmin('/v1/admin/owners/a/b/delete', { method: 'POST' })).status, 404);
  t.strictSame(await origin.undescribed(), []);
});

void t.test('where time is over, the next request goes on from there', async (t) => {
  const origin = await startOrigin(t.testdir(), { ...NO_THUMBS, owner_acts: { step_max: 2, time_max: '0ms' } });
  t.teardown(() => origin.close());
  const ids: string[] = [];
  for (let n = 0; n < 5; n += 1) ids.push(await uploadAs(origin, 'ada', png(n)));
  const counts: unknown[] = [];
  let cursor = '';
  for (let requests = 0; requests < 9; requests += 1) {
    const answer = await act(origin, 'ada', `delete?wait=edges${cursor}`);
    const { media, next } = json(answer);
    counts.push(media);
    t.equal(answer.headers['retry-after'], next === null ? undefined : '1');
    if (next === null) break;
    cursor = `&cursor=${next as string}`;
  }
  t.same(counts, [2, 2, 1]);
  t.same(await statuses(origin, ids), [410, 410, 410, 410, 410]);
  t.strictSame(await origin.undescribed(), []);
});

void t.test('edges hear of every batch before the answer, and serve none of it', async (t) => {
  const clock = new ManualClock();
  const origin = await startOrigin(t.testdir(), { ...NO_THUMBS, owner_acts: { step_max: 2 } }, { clock });
  t.teardown(() => origin.close());
  const edge = await startEdge(join(origin.folder, 'edge'), origin, {}, clock);
  t.teardown(() => edge.close());
  await untilAsync('the edge follows the journal', async () => {
    const { journal } = json(await sendRequest(`${edge.operators}/stats`));
    return (journal as { readonly link: string }).link === 'current';
  });
  const ids: string[] = [];
  for (let n = 0; n < 5; n += 1) ids.push(await uploadAs(origin, 'ada', png(n)));
  const reader = { authorization: `Bearer ${origin.auth.token({ sub: 'reader' })}` };
  const atEdge = (): Promise<readonly number[]> =>
    Promise.all(ids.map(async (id) => (await sendRequest(`${edge.url}/v1/media/${id}`, { headers: reader })).status));
  t.same(await atEdge(), [200, 200, 200, 200, 200]);
  const admin = { authorization: `Bearer ${origin.auth.token({ sub: 'mo', scope: 'media:admin' })}` };
  const through = async (verb: string): Promise<HttpResponse> =>
    sendRequest(`${edge.url}/v1/admin/owners/ada/${verb}?wait=edges`, { method: 'POST', headers: admin });
  for (const [verb, status] of [
    ['quarantine', 403],
    ['restore', 200],
    ['delete', 410],
  ] as const) {
    const answer = await through(verb);
    t.match([answer.status, json(answer)], [202, { media: 5, next: null }], verb);
    t.equal(answer.headers['takedown-confirmed'], '1/1');
    t.same(
      await atEdge(),
      ids.map(() => status),
    );
  }
  t.equal((await through('delete')).headers['takedown-confirmed'], '1/1', 'again');
});

/** Steps over a store that has these pages; the step with the number `failing` fails, as after it all others. */
function walking(
  pages: readonly OwnedPage[],
  given: { readonly failing?: number; readonly leavesAfter?: number } = {},
) {
  const done: unknown[] = [];
  const leaving = new AbortController();
  const deps = {
    gate: gateOf(granted({ roles: new Set(['admin'] as const) })),
    meta: {
      owned: async (query: { readonly after: MediaId | null }) => {
        done.push(['owned', query.after]);
        return pages.find((_, n) => n === done.filter((each) => (each as unknown[])[0] === 'owned').length - 1);
      },
      takeDownOwned: async (_owner: string, ids: readonly MediaId[]) => {
        const steps = done.push(['step', ids.length]);
        if (given.failing !== undefined && steps > given.failing) throw new Error('the disk');
        if (given.leavesAfter !== undefined && steps > given.leavesAfter) leaving.abort(new Error('left'));
        return { media: ids.length, others: 1 };
      },
      journal: {
        refresh: async () => void done.push('refresh'),
        newest: () => 7,
      },
    },
    audit: {
      append: async ({ act, outcome, media, others, by, at }: AuditAct) =>
        void done.push(['audit', act, outcome, media, others, by, at]),
    },
    journal: {
      confirmed: async (seq: number, waitMs: number) => {
        done.push(['wait', seq, waitMs]);
        return { confirmed: 2, known: 3 };
      },
    },
    clock: { monotonicMs: () => done.length },
    config: { journal: { waitMaxMs: 5_000 }, ownerActs: { stepMax: 2, timeMaxMs: 100 } },
  };
  const { request } = requestOf({ method: 'POST' });
  return { deps: deps as never, request: { ...request, signal: leaving.signal }, done };
}
const page = (count: number, next: MediaId | null): OwnedPage => ({
  ids: Array.from({ length: count }, () => ID),
  next,
});
const OPTIONS = { wait: 'edges', cursor: undefined } as const;

void t.test('the act is walked, written down and then confirmed, up to the newest entry', async (t) => {
  const { deps, request, done } = walking([page(2, ID), page(0, ID), page(1, null)]);
  const { status, headers } = await takeDownOwner(deps, request, 'quarantine', 'bob', OPTIONS);
  t.equal(status, 202);
  t.same(Object.fromEntries(headers)['takedown-confirmed'], '2/3');
  t.same(done, [
    ['owned', null],
    ['step', 2],
    ['owned', ID],
    ['owned', ID],
    ['step', 1],
    ['audit', 'quarantine_owner', 'done', 3, 2, 'ada', NOW],
    'refresh',
    ['wait', 7, 5_000],
  ]);
});

void t.test('what was done before a failure, or before the caller left, is written down', async (t) => {
  const failing = walking([page(2, ID), page(2, null)], { failing: 2 });
  await t.rejects(takeDownOwner(failing.deps, failing.request, 'delete', 'bob', OPTIONS), { message: 'the disk' });
  t.same(failing.done.at(-1), ['audit', 'delete_owner', 'failed', 2, 1, 'ada', NOW]);
  const left = walking([page(2, ID), page(2, null)], { leavesAfter: 0 });
  await t.rejects(takeDownOwner(left.deps, left.request, 'restore', 'bob', OPTIONS), { message: 'left' });
  t.same(left.done.at(-1), ['audit', 'restore_owner', 'failed', 2, 1, 'ada', NOW]);
});
