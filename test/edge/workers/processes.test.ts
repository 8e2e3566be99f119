/** A generic cache with two workers, as real processes. With media: test/slow/workers.test.ts. */
import t from 'tap';
import { openScriptedOrigin } from '../../kit/edge/scripted-origin.js';
import { type HttpResponse, json, sendRequest } from '../../kit/http/request.js';
import { ownPort } from '../../kit/ports.js';
import { openProcesses } from '../../kit/processes.js';
import { untilAsync } from '../../kit/until.js';

/** The worker that answered, and from what: the last hop of Cache-Status. */
const lastHop = (answer: HttpResponse): string => String(answer.headers['cache-status']).split(/,\s*/).at(-1) ?? '';

void t.test('two workers are one cache: they fetch once, and a change through one is seen at both', async (t) => {
  const origin = await openScriptedOrigin();
  t.teardown(() => origin.close());
  let version = 1;
  origin.on('*', ({ method }, answer) => {
    if (method === 'PUT') version += 1;
    const body = `version ${version}`;
    const lifetime = method === 'GET' ? { 'cache-control': 'max-age=600' } : {};
    answer.head(200, { ...lifetime, 'content-length': String(body.length) });
    answer.end(body);
  });
  const processes = await openProcesses(t.testdir());
  t.teardown(() => processes.close());
  const operators = await ownPort();
  const launched = await processes.launch('edge', {
    access: 'off',
    workers: 2,
    upstream: { url: origin.url },
    operators: { port: operators },
    cache: { disk: { min_free: '0B' } },
  });
  const url = await launched.ready;
  const atBoth = async (path: string): Promise<ReadonlyMap<string, HttpResponse>> => {
    const answers = new Map<string, HttpResponse>();
    await untilAsync('an answer of each worker', async () => {
      const answer = await sendRequest(`${url}${path}`, { headers: { 'x-forwarded-for': '192.0.2.7' } });
      answers.set(lastHop(answer).split(';')[0] ?? '', answer);
      return answers.size === 2;
    });
    return answers;
  };

  for (const path of ['/one', '/two', '/three', '/four']) {
    for (const [name, { status, bytes }] of await atBoth(path))
      t.same([status, bytes.toString()], [200, 'version 1'], name);
    t.equal(origin.count(path, 'GET'), 1, `${path} is fetched once`);
    t.equal(
      origin.seen.find((each) => each.path === path)?.headers['x-forwarded-for'],
      '192.0.2.7',
      'the origin is told the address of the client, whichever worker asks it',
    );
    for (const answer of (await atBoth(path)).values()) t.match(lastHop(answer), /; hit/);
  }

  t.equal((await sendRequest(`${url}/one`, { method: 'PUT', body: 'x' })).status, 200);
  for (const [name, answer] of await atBoth('/one')) t.equal(answer.bytes.toString(), 'version 2', name);
  t.equal(origin.count('/one', 'GET'), 2, 'and fetched once again');

  const body = JSON.stringify({ all: true });
  const headers = { 'content-type': 'application/json' };
  const purged = await sendRequest(`http://127.0.0.1:${operators}/purge`, { method: 'POST', headers, body });
  t.ok(Number(json(purged)['dropped']) >= 4, purged.bytes.toString());
  await atBoth('/two');
  t.equal(origin.count('/two', 'GET'), 2);
  const { bytes } = await sendRequest(`http://127.0.0.1:${operators}/metrics`);
  t.match(bytes.toString(), /^media_edge_requests_total\{[^}]*outcome="hit_memory"\} [1-9]/m, 'all of them together');
  t.equal(await launched.stop(), 0);
});
