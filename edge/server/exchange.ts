/**
 * One request and its answer, the same for node:http and the fast lane: the
 * paths that the edge answers by itself, what a failure becomes, the signal
 * that the client is gone, and how an ended request is counted and logged.
 */
import type { Clock } from '../../src/clock.js';
import { Fault, faultOf } from '../../src/errors.js';
import type { AddressOf } from '../../src/http/address.js';
import { clientProblem } from '../../src/http/problem.js';
import type { Reply } from '../../src/http/reply.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Health } from '../../src/server/health.js';
import type { Trace } from '../../src/tracing/context.js';
import { REQUEST_ID } from '../../src/wire.js';
import { BodyLost } from '../cache/cache.js';
import type { Tally } from '../ops/tally.js';
import type { Traffic } from '../ops/traffic.js';
import type { Watch } from '../ops/watch.js';
import type { Answer, ClientSignal, EdgeRequest, Exchanged } from '../request.js';
import type { UseReports } from '../use-reports.js';
import type { Outgoing } from './outgoing.js';
import type { EdgeRequestLog } from './request-log.js';

/** What both servers of the edge need. */
export interface ServerDeps {
  /** Answers a request, or says that it is to be passed on. */
  handle(request: EdgeRequest, client: ClientSignal): Answer | Promise<Answer>;
  /** The client's address, after trusted proxies were taken into account. */
  readonly addressOf: AddressOf;
  /** The trace of a request, if it has one. */
  traceOf(request: EdgeRequest): Trace | undefined;
  readonly health: Health;
  readonly tally: Tally;
  readonly traffic: Pick<Traffic, 'note'>;
  readonly watch: Pick<Watch, 'active' | 'note'>;
  readonly uses: Pick<UseReports, 'note'>;
  readonly outgoing: Outgoing;
  readonly clock: Clock;
  readonly log: Log;
  readonly requestLog: EdgeRequestLog;
  readonly newRequestId: () => string;
}

/** Of the connection to the client. */
export function schemeOf(socket: object): 'http' | 'https' {
  return 'encrypted' in socket && socket.encrypted === true ? 'https' : 'http';
}

/** One error for all clients: it holds nothing of a single request. */
const CLIENT_GONE = new Error('the client is gone, or its answer is complete');

/** Makes its signal at the first call of `gone`, because a hit in memory needs none. */
export abstract class LazyClientSignal implements ClientSignal {
  #controller: AbortController | undefined;

  /** Whether the client is gone or its answer is complete. */
  abstract readonly over: boolean;

  gone(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.over) this.#controller.abort(CLIENT_GONE);
    }
    return this.#controller.signal;
  }

  protected signalGone(): void {
    this.#controller?.abort(CLIENT_GONE);
  }
}

/** The answer of the edge itself, or the handler's. */
export function answerTo(deps: ServerDeps, request: EdgeRequest, client: ClientSignal): Answer | Promise<Answer> {
  request.trace = deps.traceOf(request);
  return malformed(request) ?? healthOf(request, deps.health) ?? deps.handle(request, client);
}

/** RFC 9112 3.2: a target is in origin form, absolute form, or `*` for OPTIONS; nothing else is forwarded. */
function malformed(request: EdgeRequest): Answer | undefined {
  if (request.target.startsWith('/') || (request.target === '*' && request.method === 'OPTIONS')) return undefined;
  const fault = new Fault('malformed', 'The request target is malformed.');
  return { kind: 'reply', reply: clientProblem(fault), outcome: 'refused', mediaId: null };
}

/** The health of the edge itself. The origin has its own at the same paths. */
function healthOf(request: EdgeRequest, health: Health): Answer | Promise<Answer> | undefined {
  if (request.method !== 'GET' && request.method !== 'HEAD') return undefined;
  if (request.path === '/healthz') return ownAnswer(health.live());
  if (request.path === '/readyz') return health.ready().then(ownAnswer);
  return undefined;
}

function ownAnswer(reply: Reply): Answer {
  return { kind: 'reply', reply, outcome: 'own', mediaId: null };
}

/** Turns an error into the response for the client. Only for a client that has received no byte of an answer. */
export function failureReply(request: EdgeRequest, thrown: unknown, { log }: Pick<ServerDeps, 'log'>): Reply {
  const fault =
    thrown instanceof BodyLost ? new Fault('bad_gateway', 'The origin gave no usable answer.') : faultOf(thrown);
  if (fault.side === 'self') log.error({ request_id: request.requestId, ...errorFields(thrown) }, 'a request failed');
  const reply = clientProblem(fault);
  return { ...reply, headers: [...reply.headers, [REQUEST_ID, request.requestId]] };
}

/** Counts and logs a request that has ended. */
export function account(
  deps: Pick<ServerDeps, 'tally' | 'traffic' | 'watch' | 'requestLog'>,
  request: EdgeRequest,
  ended: Exchanged,
): void {
  deps.tally.count(ended.outcome, ended.sentBytes);
  deps.traffic.note(request, ended);
  if (deps.watch.active) deps.watch.note(request, ended);
  deps.requestLog.write(request, ended);
}
