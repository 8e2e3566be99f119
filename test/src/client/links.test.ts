/** Signed links of the client library against scripted answers and a clock that the test moves. */
import t from 'tap';
import { createMediaClient, type MediaClient } from '../../../src/client/client.js';
import { ManualClock } from '../../kit/clock.js';
import { until } from '../../kit/until.js';

interface Asked {
  readonly path: string;
  readonly body: { readonly ids: readonly string[]; readonly lifetime?: number };
}

const LIFETIME_MS = 600_000;

/** A client of a service that signs, or does as `refuse` says. */
function open(refuse: () => Response | undefined = () => undefined) {
  const clock = new ManualClock();
  const asked: Asked[] = [];
  const client: MediaClient = createMediaClient({
    baseUrl: 'http://media.test/',
    clock: {
      now: () => clock.now(),
      after: (ms, run) =>
        (
          (timer) => () =>
            timer.cancel()
        )(clock.after(ms, run)),
    },
    linkLifetime: LIFETIME_MS / 1_000,
    async fetch(input, init) {
      const path = new Request(input).url.replace('http://media.test', '');
      asked.push({
        path,
        body: typeof init?.body === 'string' ? (JSON.parse(init.body) as Asked['body']) : { ids: [] },
      });
      const expires_at = new Date(clock.now() + LIFETIME_MS).toISOString();
      const link = (id: string) => ({ id, url: `/${id}?${clock.now()}`, thumb_url: '/t', info_url: '/i', expires_at });
      const refusal = refuse();
      if (refusal !== undefined) return refusal;
      return Response.json({ links: asked.at(-1)?.body.ids.map(link), expires_at });
    },
  });
  return { client, clock, asked };
}

void t.test('links that are wanted at once are one request, and are kept until shortly before their end', async (t) => {
  const { client, clock, asked } = open();
  const [one, many] = await Promise.all([client.links.get('A'), client.links.many(['A', 'B', 'B'])]);
  t.same(asked, [{ path: '/v1/links', body: { ids: ['A', 'B'], lifetime: 600 } }]);
  t.equal(many.get('A'), one);
  clock.advance(LIFETIME_MS - 61_000);
  t.equal(await client.links.get('A'), one);
  clock.advance(2_000);
  t.not(await client.links.get('A'), one, 'a minute before its end it is another one');
  t.equal(asked.length, 2);
});

void t.test('no more than 500 ids are asked for in one request', async (t) => {
  const { client, asked } = open();
  const ids = Array.from({ length: 1_001 }, (_, at) => String(at));
  t.equal((await client.links.many(ids)).size, 1_001);
  t.same(
    asked.map(({ body }) => body.ids.length),
    [500, 500, 1],
  );
});

void t.test('watched links are renewed before they end, also after a failure, until nobody watches', async (t) => {
  let fails = false;
  const { client, clock, asked } = open(() => (fails ? new Response('', { status: 503 }) : undefined));
  const urls: (string | undefined)[] = [];
  const errors: string[] = [];
  const stop = client.links.watch(
    ['A'],
    (links) => urls.push(links.get('A')?.url),
    (error) => errors.push(error.code),
  );
  await until('the first links', () => urls.length === 1);
  fails = true;
  clock.advance(LIFETIME_MS - 60_000);
  await until('the failure', () => errors.length === 1);
  fails = false;
  clock.advance(10_000);
  await until('the renewal', () => urls.length === 2);
  t.not(urls[0], urls[1]);
  stop();
  clock.advance(LIFETIME_MS);
  t.equal(asked.length, 3);
});
