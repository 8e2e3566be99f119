/** The operators' routes over doubles: what each does, in which order it is written down, and the progress that is told. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { type OperatorDeps, operatorRoutes } from '../../../origin/api/operators.js';
import type { AuditAct } from '../../../origin/audit.js';
import { NO_FACTS } from '../../../origin/meta/media.js';
import { runThumbs, type ThumbsVerb } from '../../../origin/thumbs/commands.js';
import type { CommandDeps } from '../../../origin/upkeep/commands.js';
import { emptyReply, type Reply } from '../../../src/http/reply.js';
import { createMatcher } from '../../../src/server/routes.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';
import { requestOf } from '../../kit/origin/doubles/request.js';
import { thumbsConfig } from '../../kit/origin/thumb-fixture.js';

const SHA = 'ab'.repeat(32);
const DEAD = [{ sha256: SHA, attempts: 3, diedAt: 5, reason: 'why' }];

function setUp() {
  const clock = new ManualClock();
  const { metrics } = testDeps();
  metrics.counter('acts_total', 'Acts.').add(3);
  const done: unknown[] = [];
  let dead = 501;
  const blob = (sha256: string, kind: 'pending' | 'none') => ({
    sha256,
    mime: 'image/png',
    sizeBytes: 1,
    picture: NO_FACTS,
    thumbs: kind === 'none' ? { kind, reason: 'broken_image' } : { kind },
  });
  const deps = {
    health: { live: () => emptyReply(200), ready: async () => emptyReply(503) },
    metrics,
    clock,
    marks: {
      rotten: async (...of: unknown[]) => void done.push(['rotten', ...of]),
      redoThumbs: async (...of: unknown[]) => void done.push(['redo', ...of]),
    },
    meta: {
      jobs: {
        counts: async () => ({ waiting: 1, leased: 2, dead }),
        dead: async (limit: number) => {
          done.push(['dead', limit]);
          return DEAD;
        },
        nextReadyAt: async () => 9,
        revive: async (limit: number, now: number) => {
          done.push(['revive', limit, now]);
          dead -= limit;
          return limit;
        },
        add: async (...of: unknown[]) => void done.push(['add', ...of]),
      },
      blobsAfter: async () => ({ blobs: [blob('1', 'pending'), blob('2', 'none')], next: null }),
      finishThumbs: async () => undefined,
    },
    thumbs: { accepts: () => true },
    config: { thumbs: thumbsConfig() },
    audit: {
      append: async (act: AuditAct) => {
        await new Promise(setImmediate);
        done.push(['audit', act]);
      },
    },
  } as unknown as OperatorDeps;
  const match = createMatcher(operatorRoutes(deps));
  const ask = async (method: string, path: string, query = ''): Promise<Reply> => {
    const found = match(method, path);
    if (found.kind !== 'found') throw new Error(`${method} ${path}: ${found.kind}`);
    return await found.route.run(requestOf({ method, query }).request, found.segments, query);
  };
  const audited = (act: string, target: string | null, reason: string | null) => [
    'audit',
    {
      at: clock.now(),
      by: 'operator',
      act,
      target,
      outcome: 'begun',
      seq: null,
      reason,
      requestId: 'request 1',
      address: '192.0.2.1',
    },
  ];
  return { ask, done, clock, audited };
}

async function linesOf({ body }: Reply): Promise<readonly unknown[]> {
  if (body.kind !== 'stream') throw new Error('it is no stream');
  let text = '';
  for await (const piece of await body.open(new AbortController().signal)) text += String(piece);
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as unknown);
}

const PROGRESS = {
  status: 200,
  headers: [
    ['content-type', 'application/x-ndjson'],
    ['cache-control', 'no-store'],
  ],
};

void t.test('what a scrub has found is written down, and then marked', async (t) => {
  const { ask, done, audited } = setUp();
  const ANSWER = { status: 204, headers: [['cache-control', 'no-store']], body: { kind: 'none' } };
  t.same(await ask('POST', `/scrub/${SHA}/rotten`, 'reason=bits'), ANSWER);
  t.same(done, [audited('rotten', SHA, 'bits'), ['rotten', SHA, 'bits']]);
  done.length = 0;
  t.same(await ask('POST', `/scrub/${SHA}/rotten`), ANSWER);
  t.same(done, [audited('rotten', SHA, 'found by a scrub'), ['rotten', SHA, 'found by a scrub']]);
  done.length = 0;
  t.same(await ask('POST', `/scrub/${SHA}/thumbs`), ANSWER);
  t.same(done, [audited('thumbs_again', SHA, null), ['redo', SHA]]);
  await ask('POST', `/scrub/${SHA}/rotten`, `reason=${'r'.repeat(200)}`);
  await t.rejects(ask('POST', `/scrub/${SHA}/rotten`, `reason=${'r'.repeat(201)}`), { code: 'malformed' });
  await t.rejects(ask('POST', '/scrub/x/rotten'), { code: 'malformed' });
});

void t.test('metrics and health are told to whoever may ask', async (t) => {
  const { ask } = setUp();
  const { status, headers, body } = await ask('GET', '/metrics');
  t.equal(status, 200);
  t.match(headers, [
    ['content-type', /^text\/plain/],
    ['cache-control', 'no-store'],
  ]);
  t.match(body.kind === 'bytes' ? Buffer.from(body.bytes).toString() : '', /^acts_total 3$/m);
  t.equal((await ask('HEAD', '/metrics')).status, 200);
  t.equal((await ask('GET', '/healthz')).status, 200);
  t.equal((await ask('GET', '/readyz')).status, 503);
});

void t.test('the queue of thumbnails is told, retried and filled, with its progress', async (t) => {
  const { ask, done, clock, audited } = setUp();
  const status = await ask('GET', '/thumbs/status');
  t.match(status, PROGRESS);
  t.same(await linesOf(status), [{ waiting: 1, leased: 2, dead: 501, deadJobs: DEAD, nextReadyAt: 9 }]);
  t.same(done, [['dead', 20]]);
  done.length = 0;
  const retried = await ask('POST', '/thumbs/retry');
  t.match(retried, PROGRESS);
  t.same(done, [audited('thumbs_retry', null, null)], 'it is written down before');
  t.same(await linesOf(retried), [
    { revived: 500, left: 1 },
    { revived: 501, left: 0 },
  ]);
  t.same(done.slice(1), [
    ['revive', 500, clock.now()],
    ['revive', 1, clock.now()],
  ]);
  for (const [query, queued] of [
    ['', ['1']],
    ['all=true', ['1', '2']],
  ] as const) {
    done.length = 0;
    const filled = await ask('POST', '/thumbs/backfill', query);
    t.match(filled, PROGRESS);
    t.same(done, [audited('thumbs_backfill', null, null)]);
    t.same(await linesOf(filled), [{ seen: 2, queued: queued.length, trimmed: 0, next: null }]);
    t.same(
      done.slice(1),
      queued.map((sha256) => ['add', sha256, 'backfill', clock.now()]),
    );
  }
});

/** A listener that answers with these lines, and the command that asks it. */
async function command(
  t: Test,
  verb: ThumbsVerb,
  all: boolean,
  answer: { readonly status?: number; readonly text: string },
) {
  const asked: unknown[] = [];
  const server = createServer((request, response) => {
    asked.push([request.method, request.url, request.headers.authorization]);
    response.writeHead(answer.status ?? 200);
    response.end(answer.text);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const said: string[] = [];
  const { code } = await run(verb, all, port, said).finally(() => server.closeAllConnections());
  return { code, said, asked };
}

async function run(
  verb: ThumbsVerb,
  all: boolean,
  port: number,
  said: string[],
  signal = new AbortController().signal,
) {
  const deps = {
    config: { operators: { host: '127.0.0.1', port, token: 'secret' } },
    print: (line: string) => void said.push(`print ${line}`),
    complain: (line: string) => void said.push(`complain ${line}`),
    progress: (line: string) => void said.push(`progress ${line}`),
    signal,
  } as unknown as CommandDeps;
  return { code: await runThumbs(deps, { verb, all }) };
}

void t.test('the commands ask the running origin, and print what it says', async (t) => {
  const status = { waiting: 1, leased: 2, dead: 1, deadJobs: DEAD };
  const told = await command(t, 'status', true, { text: `${JSON.stringify(status)}\n` });
  t.same(told, {
    ...told,
    code: 0,
    asked: [['GET', '/thumbs/status', 'Bearer secret']],
    said: [`print 1 waiting, 2 running, 1 given up\n  ${SHA} after 3 attempts: why`],
  });
  const none = await command(t, 'status', false, { text: '{"waiting":0,"leased":0,"dead":0}' });
  t.same(none.said, ['print 0 waiting, 0 running, 0 given up']);

  const steps = '{"revived":500,"left":1}\n{"revived":501,"left":0}\n';
  const retried = await command(t, 'retry', true, { text: steps });
  t.same(retried.asked, [['POST', '/thumbs/retry', 'Bearer secret']]);
  t.same(retried.said, [
    'progress 500 queued again, 1 left',
    'progress 501 queued again, 0 left',
    'print 501 queued again, 0 left',
  ]);
  t.same((await command(t, 'retry', false, { text: '' })).said, ['print There was nothing to do.']);

  const step = '{"seen":7,"queued":2,"trimmed":1}\n';
  for (const all of [false, true]) {
    const filled = await command(t, 'backfill', all, { text: step });
    t.same(filled.asked, [['POST', `/thumbs/backfill${all ? '?all=true' : ''}`, 'Bearer secret']]);
    t.equal(filled.said.at(-1), 'print 7 media seen, 2 queued, 1 with surplus thumbnails');
    t.equal(filled.code, 0);
  }
});

void t.test('a command without an origin says so, and one that is stopped says nothing', async (t) => {
  await t.rejects(command(t, 'retry', false, { status: 401, text: '{}' }), {
    message: /^No origin answers at http:\/\/127\.0\.0\.1:\d+\. This command needs a running origin\.$/,
  });
  const said: string[] = [];
  await t.rejects(run('retry', false, 1, said, AbortSignal.abort(new Error('stopped'))));
  t.same(said, []);
});
