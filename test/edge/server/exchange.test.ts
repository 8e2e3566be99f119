/** What both servers of the edge share: its own paths, failures as answers, the client's signal, and how a request is counted and logged. */
import t from 'tap';
import { BodyLost } from '../../../edge/cache/cache.js';
import type { Entry } from '../../../edge/entry.js';
import type { Rule } from '../../../edge/fetch/rules.js';
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
import { createEdgeRequestLog } from '../../../edge/server/request-log.js';
import { Fault } from '../../../src/errors.js';
import { emptyReply, headerOf, type Reply } from '../../../src/http/reply.js';
import type { MediaId } from '../../../src/ids.js';
import { createRequestLog } from '../../../src/logs/request-line.js';
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
    traceOf: () => undefined,
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
  t.match(lines, [{ level: 'error', request_id: 'the-id', msg: 'a request failed' }]);
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

void t.test('a request that has ended is counted once, and logged once with its tier and rule', async (t) => {
  const counted: unknown[] = [];
  const lines: string[] = [];
  const write = (line: string): void => void lines.push(line);
  const config = { level: 'info', requests: 'all', format: 'json' } as const;
  const requestLog = createRequestLog({ name: 'edge', config, clock: new ManualClock(), write });
  const headers = [['content-type', 'image/png']] as const;
  const entry = { mediaId: null, primaryKey: '/a', headers, sizeBytes: 3 } as unknown as Entry;
  const ruleOn = (type: string) => ({ path: 'any', type, fromBytes: 0, toBytes: 9 }) as unknown as Rule;
  const rule = ruleOn('image/*');
  let rules = [ruleOn('video/*'), rule];
  const deps = {
    tally: { count: (...what: readonly unknown[]) => void counted.push(what) },
    traffic: { note: () => undefined },
    watch: { active: false },
    requestLog: createEdgeRequestLog(requestLog, () => rules),
  } as unknown as Pick<ServerDeps, 'tally' | 'traffic' | 'watch' | 'requestLog'>;
  const answer: Answer = {
    kind: 'reply',
    reply: emptyReply(200),
    outcome: 'hit_memory',
    mediaId: null,
    reason: 'memory',
    tier: 'memory',
    entry,
  };
  const ended = {
    outcome: 'hit_memory',
    status: 200,
    sentBytes: 12,
    complete: true,
    tookMs: 1.54,
    decidedMs: 0.4,
  } as const;
  const asked = request({ header: () => undefined, sender: () => ({ address: '192.0.2.1', scheme: 'http' }) });
  account(deps, asked, { ...ended, answer });
  rules = [rule];
  account(deps, asked, { ...ended, answer });
  account(deps, asked, { ...ended, outcome: 'pass', answer: undefined });
  t.strictSame(counted[0], ['hit_memory', 12]);
  const fields = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  t.match(fields[0], {
    outcome: 'hit_memory',
    tier: 'memory',
    reason: 'memory',
    rule: 2,
    first_byte_ms: 0.4,
    total_ms: 1.5,
  });
  t.match(fields[1], { rule: 1 }, 'a reload may change the rules');
  t.strictSame([fields[2]?.['rule'], fields[2]?.['tier'], fields[2]?.['reason']], [undefined, undefined, undefined]);
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
