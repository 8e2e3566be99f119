/** The operators' listener of a whole origin: its live page and figures, and media by the operators' token. */
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type FiguresDeps, openOriginHistory, readFigures } from '../../origin/ops/figures.js';
import { createOriginTally } from '../../origin/ops/tally.js';
import { requestCounts } from '../../origin/server/server.js';
import { uploadCounts } from '../../origin/upload.js';
import { recentTakedowns } from '../../src/journal/recent.js';
import { createFiguresFeed } from '../../src/server/live/figures-feed.js';
import { ManualClock } from '../kit/clock.js';
import { testDeps } from '../kit/deps.js';
import { json, type RequestOptions, sendRequest } from '../kit/http/request.js';
import { png } from '../kit/media.js';
import { mediaId } from '../kit/origin/journal.js';
import { startOrigin, type TestOrigin, withToken } from '../kit/origin/origin.js';
import { until } from '../kit/until.js';

const TOKEN = 'the token of operators';

void t.test('on the operators’ listener, media are for those with the token alone', async (t) => {
  const origin = await startOrigin(
    join(t.testdir(), 'origin'),
    { operators: { port: 0, token: 'env:OPERATORS', pages_max: 1 }, thumbs: { enabled: false } },
    { secrets: { OPERATORS: TOKEN } },
  );
  try {
    const id = await origin.uploaded(png(1), '?filename=a.png');
    await origin.asAdmin(`/v1/media/${id}/quarantine?reason=spam`, { method: 'POST' });
    const send = (path: string, options?: RequestOptions) => sendRequest(origin.operators + path, options);
    const admin = origin.auth.token({ sub: 'mo', scope: 'media:admin' });
    const guarded: readonly (readonly [string, string])[] = [
      ['GET', '/v1/admin/media'],
      ['GET', '/v1/admin/media?owner=alice'],
      ['GET', `/v1/admin/media/${id}`],
      ['GET', '/v1/admin/media/nonsense'],
      ['GET', '/takedowns'],
      ['DELETE', `/v1/media/${id}`],
      ['POST', `/v1/media/${id}/quarantine`],
      ['DELETE', `/v1/media/${id}/quarantine`],
      ['POST', '/v1/admin/owners/alice/delete'],
    ];
    for (const [method, path] of guarded) {
      for (const [who, token] of [
        ['nobody', undefined],
        ['an admin of media', admin],
        ['somebody', 'another token'],
      ] as const) {
        const options = token === undefined ? { method } : withToken(token, { method });
        t.equal((await send(path, options)).status, 401, `${who}: ${method} ${path}`);
      }
    }
    for (const path of ['/', '/origin/ops/page/main.js', '/src/live/live.css', '/stats', '/history']) {
      const answer = await send(path);
      t.equal(answer.status, 200, path);
      for (const secret of [id, 'alice', 'a.png', 'spam']) t.notOk(answer.bytes.toString().includes(secret), path);
    }
    for (const path of [
      '/src/live/..%2foperators.js',
      '/src/live/operator.ts',
      '/origin/ops/figures.js',
      '/src/log.js',
    ]) {
      t.equal((await send(path)).status, 404, path);
    }
    t.equal((await send('/')).headers['content-security-policy']?.includes("script-src 'self'"), true);
    t.equal([(await send('/')).headers['content-security-policy']].flat().length, 1, 'one policy');

    const asOperator = (path: string, method = 'GET') => send(path, withToken(TOKEN, { method }));
    t.match(json(await asOperator('/v1/admin/media?state=quarantined')), {
      items: [{ id, state: 'quarantined', quarantine: { by: 'mo', reason: 'spam', cause: 'admin' } }],
    });
    t.equal((await asOperator(`/v1/media/${id}/quarantine?reason=a%20mistake`, 'DELETE')).status, 204);
    t.equal((await origin.as('bob', `/v1/media/${id}`)).status, 200);
    t.match(json(await asOperator('/takedowns')), {
      takedowns: [
        { seq: 2, cause: 'restore', ids: [id], media: 1, confirmed: [], missing: [] },
        { seq: 1, cause: 'quarantine' },
      ],
    });
    t.equal((await asOperator('/v1/media')).status, 404, 'nothing else of clients is here');
    t.equal((await asOperator(`/v1/media/${id}`)).status, 405);

    await pagesAreCounted(t, origin);
  } finally {
    await origin.close();
  }
});

/** One page may be open. It gets figures every second, and ends with the origin. */
async function pagesAreCounted(t: Test, origin: TestOrigin): Promise<void> {
  const [page] = (await once(get(`${origin.operators}/events`), 'response')) as [IncomingMessage];
  let text = '';
  page.on('data', (piece: Buffer) => (text += piece.toString()));
  page.on('error', () => undefined);
  await until('the first figures', () => text.endsWith('\n\n'));
  t.equal((await sendRequest(`${origin.operators}/events`)).status, 503);
  origin.clock.advance(1_000);
  await until('the next figures', () => text.split('\n\n').length > 2);
  t.equal((JSON.parse(text.split('\n\n')[1]?.slice('data: '.length) ?? '') as { origins: number }).origins, 1);
  const ended = once(page, 'close');
  await origin.stop();
  await ended;
}

void t.test('without a token in the configuration nobody sees or takes down media there', async (t) => {
  const origin = await startOrigin(join(t.testdir(), 'origin'), { thumbs: { enabled: false } });
  try {
    const id = await origin.uploaded(png(1));
    for (const [method, path] of [
      ['GET', '/v1/admin/media'],
      ['DELETE', `/v1/media/${id}`],
    ] as const) {
      const answer = await sendRequest(origin.operators + path, withToken('any', { method }));
      t.equal(answer.status, 403);
      t.match(json(answer), { code: 'forbidden', detail: /operators\.token/ });
    }
    t.equal((await sendRequest(`${origin.operators}/stats`)).status, 200);
    t.equal((await origin.as('bob', `/v1/media/${id}`)).status, 200);
  } finally {
    await origin.close();
  }
});

void t.test('figures say what this origin has counted, what all have, and how it went', async (t) => {
  const clock = new ManualClock();
  const { metrics, sample } = testDeps();
  const tally = createOriginTally();
  const uploads = tally.uploads(uploadCounts(metrics));
  const requests = tally.requests(requestCounts(metrics));
  const meta = {
    jobs: { counts: async () => ({ waiting: 3, leased: 1, dead: 2 }), nextReadyAt: async () => clock.now() - 5_000 },
    outbox: { counts: async () => ({ waiting: 0, dead: 0, oldestSince: null }) },
    origins: { living: () => [{ name: 'a' }, { name: 'b' }] },
  };
  const deps = { name: 'a', startedAt: clock.now(), tally, meta, sendsEvents: false, hasToken: true, clock };
  const history = openOriginHistory(tally, clock);
  uploads.uploads.add(1, { outcome: 'stored' });
  uploads.uploads.add(1, { outcome: 'duplicate' });
  uploads.bytes.add(1_000, { outcome: 'stored' });
  for (const route of ['/v1/media', '/v1/uploads/{id}', '/v1/media/{id}'])
    requests.refusals.add(1, { route, code: 'x' });
  requests.refusals.add(1, { route: '/v1/media', code: 'rare' });
  clock.advance(1_000);
  const figures = await readFigures(deps as unknown as FiguresDeps, history);
  t.match(figures, {
    origins: 2,
    uploads: { stored: 1, duplicates: 1, bytes: 1_000 },
    refusals: [
      { code: 'x', uploads: 2, others: 1 },
      { code: 'rare', uploads: 1, others: 0 },
    ],
    thumbnails: { waiting: 3, in_hand: 1, dead: 2, oldest_ms: 6_000 - 1_000 },
    webhooks: null,
    history: { every_ms: 1_000, kept: 120 },
  });
  t.same(figures.history.rows.at(-1), { stored: 1, duplicates: 1, refused: 4, bytes: 1_000 });
  t.equal(await sample('uploads_total{outcome="stored"}'), 1, 'the metrics count as before');
  t.same(history.minutes.rows, []);
  clock.advance(59_000);
  t.match(history.minutes, { every_ms: 60_000, kept: 360, rows: [{ stored: 0, bytes: 17 }] });
  history.close();
});

void t.test('figures are read once for all pages, not at all without one, and a failure ends no stream', async (t) => {
  const clock = new ManualClock();
  const { log } = testDeps();
  let reads = 0;
  let fails = false;
  const read = async (): Promise<object> => {
    reads += 1;
    if (fails) throw new Error('not now');
    return { reads };
  };
  const feed = createFiguresFeed({ read, pagesMax: 3, clock, log });
  clock.advance(5_000);
  t.equal(reads, 0);
  const open = async () => {
    const { body } = feed.open();
    if (body.kind !== 'stream') throw new Error('it is no stream');
    return await body.open(new AbortController().signal);
  };
  const [page, slow] = await Promise.all([open(), open()]);
  const told: string[] = [];
  page.on('data', (piece: Buffer) => void told.push(String(piece)));
  await until('the first', () => told.length === 1);
  t.same(told, ['data: {"reads":1}\n\n']);
  fails = true;
  clock.advance(1_000);
  await until('a failure', () => reads === 2);
  await new Promise(setImmediate);
  fails = false;
  clock.advance(1_000);
  await until('the next', () => told.length === 2);
  t.equal(slow.readableLength, told.join('').length, 'the slow one has what it did not read');
  page.destroy();
  slow.destroy();
  await new Promise(setImmediate);
  clock.advance(60_000);
  await new Promise(setImmediate);
  const before = reads;
  clock.advance(60_000);
  t.equal(reads, before, 'nobody looks any more');
  feed.close();
});

void t.test('of each recent takedown it is told which edges have confirmed it', async (t) => {
  const entries = Array.from({ length: 30 }, (_, at) => ({
    seq: at + 1,
    mark: null,
    at: at * 1_000,
    cause: 'delete' as const,
    ids: Array.from({ length: at === 29 ? 7 : 1 }, (_, each) => mediaId(100 * at + each)),
  }));
  const journal = {
    newest: () => 30,
    read: async (after: number, limit: number) => entries.slice(after, after + limit),
  };
  const edges = [
    { edge: 'near', connected: true, confirmed: 30, heardAt: 0 },
    { edge: 'far', connected: false, confirmed: 29, heardAt: 0 },
  ];
  const [newest, before, ...others] = await recentTakedowns(journal, edges);
  t.match(newest, { seq: 30, media: 7, confirmed: ['near'], missing: [{ edge: 'far', connected: false }] });
  t.equal(newest?.ids.length, 5);
  t.match(before, { seq: 29, confirmed: ['near', 'far'], missing: [] });
  t.equal(others.at(-1)?.seq, 11);
});
