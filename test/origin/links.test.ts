/** Signed links as clients get and use them, at a whole origin and at a whole edge before it. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type MediaEdge, startEdge } from '../kit/edge/media-edge.js';
import { exchangeRaw, requestHead } from '../kit/http/raw.js';
import { type HttpResponse, json, member, type RequestOptions, sendRequest } from '../kit/http/request.js';
import { png } from '../kit/media.js';
import { startOrigin, type TestOrigin } from '../kit/origin/origin.js';
import { untilAsync } from '../kit/until.js';

const UNKNOWN = '01J9ZC8GZ0000000000000000A';

interface Link {
  readonly id: string;
  readonly url: string;
  readonly thumb_url: string;
  readonly info_url: string;
  readonly expires_at: string;
}

interface Both {
  readonly origin: TestOrigin;
  readonly edge: MediaEdge;
  /** A request to one of them. */
  readonly send: (base: string, target: string, options?: RequestOptions) => Promise<HttpResponse>;
  readonly ask: (base: string, body: unknown, claims?: Readonly<Record<string, unknown>>) => Promise<HttpResponse>;
}

async function startBoth(t: Test): Promise<Both> {
  const origin = await startOrigin(join(t.testdir(), 'origin'), { thumbs: { enabled: false, wait: '0s' } });
  t.teardown(() => origin.close());
  const edge = await startEdge(join(t.testdirName, 'edge'), origin, {}, origin.clock);
  t.teardown(() => edge.close());
  const send: Both['send'] = (base, target, options) => sendRequest(base + target, options);
  return {
    origin,
    edge,
    send,
    ask: (base, body, claims = { sub: 'bob' }) =>
      send(base, '/v1/links', {
        method: 'POST',
        headers: { authorization: `Bearer ${origin.auth.token(claims)}`, 'content-type': 'application/json' },
        body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
      }),
  };
}

const linksIn = (response: HttpResponse): readonly Link[] => json(response)['links'] as readonly Link[];
const targetOf = (url: string): string => new URL(url).pathname + new URL(url).search;

void t.test('links for many media', async (t) => {
  const { origin, edge, send, ask } = await startBoth(t);
  const id = await origin.uploaded(png(1), '?filename=gr%C3%BC%C3%9Fe.png');
  // What it passes to the origin says so.
  await untilAsync('the edge knows the service', async () => {
    return (await ask(edge.url, { ids: [id] })).headers['cache-status'] === undefined;
  });

  await t.test('are the same from origin and edge, and tell nothing of what exists', async (t) => {
    const wanted = { ids: [id.toLowerCase(), UNKNOWN], lifetime: 3_000 };
    const answers = [await ask(origin.url, wanted), await ask(edge.url, wanted)];
    t.strictSame(json(answers[1] as HttpResponse), json(answers[0] as HttpResponse));
    for (const answer of answers) {
      t.match(answer, {
        status: 200,
        headers: { 'cache-control': 'no-store', 'access-control-allow-origin': '*', 'x-request-id': /./ },
      });
      t.strictSame(
        linksIn(answer).map((link) => [link.id, Object.keys(link).join(), link.expires_at]),
        [id, UNKNOWN].map((each) => [each, 'id,url,thumb_url,info_url,expires_at', '2026-01-01T00:50:00.000Z']),
      );
    }
  });

  await t.test('are the same when they are asked for again, until the window is over', async (t) => {
    const urls = async (): Promise<string> => JSON.stringify(linksIn(await ask(edge.url, { ids: [id] })));
    origin.clock.advance(1_000);
    const first = await urls();
    origin.clock.advance(1_000);
    t.equal(await urls(), first);
    origin.clock.advance(600_000);
    t.not(await urls(), first);
  });

  await t.test('open the original, the thumbnail and the info, each with the least scope', async (t) => {
    const [link] = linksIn(await ask(edge.url, { ids: [id] }));
    for (const base of [origin.url, edge.url]) {
      const status = async (target: string): Promise<number> => (await send(base, target)).status;
      t.equal(await status(targetOf(link?.url ?? '')), 200);
      t.equal(await status(targetOf(link?.info_url ?? '')), 200);
      t.equal(await status(`${targetOf(link?.thumb_url ?? '')}&w=320`), 202, 'there are no thumbnails here');
      t.equal(await status(targetOf(link?.url ?? '').replace('?', '/info?')), 200);
      t.equal(await status(targetOf(link?.info_url ?? '').replace('/info', '')), 401);
      t.equal(await status(targetOf(link?.url ?? '').replace(id, UNKNOWN)), 401);
    }
  });

  await t.test('are refused to those who may not read, and for what makes no sense', async (t) => {
    const many = Array.from({ length: 501 }, () => id);
    for (const base of [origin.url, edge.url]) {
      for (const [body, expected] of [
        ['{', '400 malformed'],
        [[id], '400 malformed'],
        [{}, '400 malformed'],
        [{ ids: [] }, '400 malformed'],
        [{ ids: many }, '400 malformed'],
        [{ ids: [id, 'x'] }, '400 invalid_id'],
        [{ ids: [7] }, '400 invalid_id'],
        [{ ids: [id], lifetime: 604_801 }, '400 malformed'],
        [{ ids: [id], lifetime: 0 }, '400 malformed'],
        [{ ids: [id], lifetime: '5' }, '400 malformed'],
        [{ ids: [id], more: 'x'.repeat(50_000) }, '400 malformed'],
      ] as const) {
        const answer = await ask(base, body);
        t.equal(`${answer.status} ${member(answer, 'code')}`, expected, JSON.stringify(body).slice(0, 60));
      }
      t.equal((await ask(base, { ids: many.slice(1) })).status, 200);
      t.equal((await ask(base, { ids: [id] }, { sub: 'bob', scope: 'media:upload' })).status, 403);
      t.equal((await send(base, '/v1/links', { method: 'POST', body: Buffer.from('{}') })).status, 401);
      t.equal((await ask(base, { ids: [id] }, { sub: 'bob', exp: 1 })).status, 401);
    }
  });

  await t.test('say when they are over', async (t) => {
    const [link] = linksIn(await ask(edge.url, { ids: [id, UNKNOWN], lifetime: 1 }));
    origin.clock.advance(600_000);
    for (const base of [origin.url, edge.url]) {
      for (const target of [link?.url, link?.thumb_url, link?.info_url].map((url) => targetOf(url ?? ''))) {
        const over = await send(base, target);
        t.equal(`${over.status} ${member(over, 'code')}`, '401 link_expired');
        t.equal(over.headers['www-authenticate'], 'Bearer realm="media"');
        const forged = await send(base, target.replace(/exp=\d/, 'exp=0'));
        t.equal(member(forged, 'code'), 'unauthorized', 'only what was signed once');
      }
    }
  });

  t.strictSame(await origin.undescribed(), []);
});

void t.test('an edge signs links without its origin', async (t) => {
  const { origin, edge, ask } = await startBoth(t);
  // What it passes to the origin says so.
  await untilAsync('the edge knows the service', async () => {
    return (await ask(edge.url, { ids: [UNKNOWN] })).headers['cache-status'] === undefined;
  });
  await origin.stop();
  t.equal((await ask(edge.url, { ids: [UNKNOWN] })).status, 200);
  await origin.restart();
});

void t.test('a client that does not finish its request for links is answered', async (t) => {
  const { origin, edge, ask } = await startBoth(t);
  // What it passes to the origin says so.
  await untilAsync('the edge knows the service', async () => {
    return (await ask(edge.url, { ids: [UNKNOWN] })).headers['cache-status'] === undefined;
  });
  const head = requestHead('POST', '/v1/links', {
    authorization: `Bearer ${origin.auth.token({ sub: 'bob' })}`,
    'content-length': 20,
  });
  const answer = exchangeRaw(Number(new URL(edge.url).port), `${head}{"ids"`);
  await origin.clock.timerSet(30_000);
  origin.clock.advance(30_000);
  t.match(await answer, /^HTTP\/1\.1 408 [\s\S]*"code":"request_timeout"/);
});

void t.test('`download` in a query changes Content-Disposition, and nothing else', async (t) => {
  const { origin, edge, send } = await startBoth(t);
  const id = await origin.uploaded(png(1), '?public=true&filename=one.png');
  const dispositions: readonly (readonly [query: string, expected: string])[] = [
    ['', 'inline; filename="one.png"'],
    ['download', 'attachment; filename="one.png"'],
    ['download=', 'attachment; filename="one.png"'],
    ['download=a.png', 'attachment; filename="a.png"'],
    ['x=1&download=..%2F..%2Fb.png', 'attachment; filename="b.png"'],
    ['download=%C3%BC%22%0D%0Ax', `attachment; filename="u_x"; filename*=UTF-8''%C3%BC%22x`],
    ['downloads=a.png', 'inline; filename="one.png"'],
  ];
  const stable = ({ headers }: HttpResponse): unknown => {
    const { date: _date, age: _age, 'x-request-id': _id, 'cache-status': _status, ...others } = headers;
    return { ...others, 'content-disposition': '' };
  };
  for (const base of [origin.url, edge.url]) {
    const path = `/v1/media/${id}`;
    const plain = await send(base, path);
    for (const [query, expected] of dispositions) {
      for (const [method, status, headers] of [
        ['GET', 200, {}],
        ['HEAD', 200, {}],
        ['GET', 206, { range: 'bytes=0-1' }],
      ] as const) {
        const answer = await send(base, `${path}?${query}`, { method, headers });
        t.equal(`${answer.status} ${String(answer.headers['content-disposition'])}`, `${status} ${expected}`, query);
        if (status === 200) t.strictSame(stable(answer), stable(plain));
      }
    }
    const info = await send(base, `${path}/info?download=info.json`);
    t.equal(info.headers['content-disposition'], 'attachment; filename="info.json"');
  }
  const hit = await send(edge.url, `/v1/media/${id}?download=never-seen.png`);
  t.match(hit.headers['cache-status'], /; hit/, 'it is no part of the cache key');
});
