/** What both servers of the edge share: its own paths, failures as answers, the client's signal, and how a request is counted and logged. */
import t from 'tap';
import { BodyLost } from '../../../edge/cache/cache.js';
import type { Answer, ClientSignal, EdgeRequest } from '../../../edge/request.js';
import {
  account,
  answerTo,
  failureReply,
  LazyClientSignal,
  type ServerDeps,
  schemeOf,
} from '../../../edge/server/exchange.js';
import { createOutgoing } from '../../../edge/server/outgoing.js';
import { createRequestLog, type RequestLine } from '../../../edge/server/request-log.js';
import { Fault } from '../../../src/errors.js';
import { emptyReply, headerOf, type Reply } from '../../../src/http/reply.js';
import type { MediaId } from '../../../src/ids.js';
import type { LogConfig } from '../../../src/log.js';
import { ManualClock } from '../../kit/clock.js';
import { testDeps } from '../../kit/deps.js';

const request = (over: Partial<EdgeRequest> = {}): EdgeRequest =>
  ({ method: 'GET', target: '/a', path: '/a', query: '', requestId: 'r', ...over }) as EdgeRequest;

const client: ClientSignal = { gone: () => new AbortController().signal };

void t.test('the edge answers for its own health, refuses malformed targets, and hands on the rest', async (t) => {
  const handled: string[] = [];
  const live = emptyReply(200, [['x', 'live']]);
  const ready = emptyReply(503, [['x', 'ready']]);
  const deps = {
    health: { live: () => live, ready: () => Promise.resolve(ready) },
    handle: ({ target }: EdgeRequest): Answer => {
      handled.push(target);
      return { kind: 'reply', reply: emptyReply(204), outcome: 'hit_memory', mediaId: null };
    },
  } as unknown as ServerDeps;
  const ask = async (over: Partial<EdgeRequest>) => await answerTo(deps, request(over), client);
  for (const method of ['GET', 'HEAD']) {
    for (const [path, reply] of [
      ['/healthz', live],
      ['/readyz', ready],
    ] as const) {
      const answer = await ask({ method, path, target: `${path}?x` });
      t.strictSame(answer, { kind: 'reply', reply, outcome: 'own', mediaId: null }, `${method} ${path}`);
    }
  }
  for (const [over, hands] of [
    [{ method: 'POST', path: '/healthz', target: '/healthz' }, true],
    [{ path: '/healthz/x', target: '/healthz/x' }, true],
    [{ method: 'OPTIONS', path: '*', target: '*' }, true],
    [{ method: 'GET', path: '*', target: '*' }, false],
    [{ path: 'a', target: 'a' }, false],
    [{ path: '', target: '' }, false],
  ] as const) {
    handled.length = 0;
    const answer = await ask(over);
    t.strictSame(handled, hands ? [over.target] : [], JSON.stringify(over));
    if (!hands) t.match(answer, { kind: 'reply', reply: { status: 400 }, outcome: 'refused', mediaId: null });
  }
});

void t.test('a failure becomes a problem with the id of its request, and only our own are logged', async (t) => {
  const { log, lines } = testDeps();
  const codeOf = ({ body }: Reply): unknown =>
    body.kind === 'bytes' ? (JSON.parse(Buffer.from(body.bytes).toString()) as { code: unknown }).code : undefined;
  for (const [thrown, status, code, logged] of [
    [new Fault('not_found', 'x'), 404, 'not_found', 0],
    [new BodyLost('corrupt'), 502, 'bad_gateway', 0],
    [new Fault('cut_off', 'x'), 503, 'cut_off', 0],
    [new Error('secret /inner/path'), 500, 'internal', 1],
  ] as const) {
    const before = lines.length;
    const reply = failureReply(request({ requestId: 'the-id' }), thrown, { log });
    t.strictSame([reply.status, codeOf(reply), headerOf(reply.headers, 'x-request-id')], [status, code, 'the-id']);
    t.equal(lines.length - before, logged, code);
  }
  t.match(lines, [{ level: 'error', requestId: 'the-id', msg: 'a request failed' }]);
});

void t.test('the signal of a client is made when it is asked for, and tells what was before', async (t) => {
  class Client extends LazyClientSignal {
    over = false;
    end(): void {
      this.over = true;
      this.signalGone();
    }
  }
  const [asked, late] = [new Client(), new Client()];
  const signal = asked.gone();
  t.equal(asked.gone(), signal, 'one for all');
  t.notOk(signal.aborted);
  for (const each of [asked, late]) each.end();
  t.ok(signal.aborted);
  t.ok(late.gone().aborted);
  t.match(signal.reason, { message: /the client is gone/ });
});

void t.test('the scheme is that of the connection', async (t) => {
  t.strictSame(
    [schemeOf({}), schemeOf({ encrypted: true }), schemeOf({ encrypted: false })],
    ['http', 'https', 'http'],
  );
});

const LINE: RequestLine = {
  requestId: 'r1',
  method: 'GET',
  target: '/v1/media/X?w=1',
  status: 200,
  outcome: 'hit_memory',
  sentBytes: 12,
  complete: true,
  tookMs: 1.5,
};

function linesOf(config: Partial<Pick<LogConfig, 'level' | 'requests'>>, ...written: readonly Partial<RequestLine>[]) {
  const lines: string[] = [];
  const clock = new ManualClock();
  const sink = { write: (line: string) => void lines.push(line) };
  const requestLog = createRequestLog('edge "1"', { level: 'info', requests: 'all', ...config }, clock, sink);
  for (const each of written) {
    requestLog.write({ ...LINE, ...each });
    clock.advance(1);
  }
  return lines;
}

void t.test('a request is one line of JSON, with its target without what grants access', async (t) => {
  const [first = '', second = ''] = linesOf(
    {},
    {},
    { target: '/é"\\?sig=abc', method: 'X"', tookMs: 0.4, complete: false },
  );
  t.ok(first.endsWith('}\n'));
  t.strictSame(JSON.parse(first), {
    level: 'info',
    time: '2026-01-01T00:00:00.000Z',
    name: 'edge "1"',
    pid: process.pid,
    ...LINE,
    tookMs: 2,
    msg: 'request',
  });
  const { time, target, method, tookMs, complete } = JSON.parse(second) as Record<string, unknown>;
  t.strictSame(
    { time, target, method, tookMs, complete },
    { time: '2026-01-01T00:00:00.001Z', target: '/é"\\?sig=[redacted]', method: 'X"', tookMs: 0, complete: false },
  );
});

void t.test('the configuration says which requests are logged', async (t) => {
  const all = [200, 499, 500, 503, 0].map((status) => ({ status }));
  const statuses = (config: Parameters<typeof linesOf>[0]): readonly number[] =>
    linesOf(config, ...all).map((line) => (JSON.parse(line) as { status: number }).status);
  t.strictSame(statuses({ requests: 'all' }), [200, 499, 500, 503, 0]);
  t.strictSame(statuses({ requests: 'failed' }), [500, 503, 0]);
  t.strictSame(statuses({ requests: 'none' }), []);
  for (const level of ['trace', 'debug', 'info'] as const) t.equal(statuses({ level }).length, 5, level);
  for (const level of ['warn', 'error', 'silent'] as const) t.equal(statuses({ level }).length, 0, level);
});

void t.test('a request that has ended is counted and logged once', async (t) => {
  const counted: unknown[] = [];
  const logged: RequestLine[] = [];
  const deps = {
    tally: { count: (...what: readonly unknown[]) => void counted.push(what) },
    traffic: { note: () => undefined },
    watch: { active: false },
    requestLog: { write: (line: RequestLine) => void logged.push(line) },
  } as unknown as Pick<ServerDeps, 'tally' | 'traffic' | 'watch' | 'requestLog'>;
  const { requestId, method, target, ...ended } = LINE;
  account(deps, request({ requestId, method, target }), { ...ended, answer: undefined, decidedMs: 0 });
  t.strictSame(counted, [['hit_memory', 12]]);
  t.strictSame(logged, [LINE]);
});

void t.test('a takedown breaks off the answers with its media that are on their way, and no other', async (t) => {
  const broken: string[] = [];
  const outgoing = createOutgoing();
  const [a, b] = ['a', 'b'] as unknown as readonly [MediaId, MediaId];
  const connection = (name: string) => ({ destroy: () => broken.push(name) });
  const left = outgoing.add(a, connection('left'));
  outgoing.add(a, connection('one'));
  outgoing.add(a, connection('two'));
  outgoing.add(b, connection('other'));
  left();
  left();
  outgoing.breakOff(a);
  t.strictSame(broken.sort(), ['one', 'two']);
  outgoing.breakOff('c' as MediaId);
  outgoing.breakOffAll();
  t.strictSame(broken.slice(2).sort(), ['one', 'other', 'two'], 'what has left is not broken off');
});
