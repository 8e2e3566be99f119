/**
 * One request and its answer, the same for node:http and the fast lane: the
 * paths that the edge answers by itself, what a failure becomes, the signal
 * that the client is gone, and how an ended request is counted and logged.
 */
import type { Clock } from '../../src/clock.js';
import { Fault, faultOf } from '../../src/errors.js';
import { problemReply } from '../../src/http/problem.js';
import type { Reply } from '../../src/http/reply.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Health } from '../../src/server/health.js';
import { REQUEST_ID } from '../../src/wire.js';
import type { Tally } from '../ops/tally.js';
import type { Answer, ClientSignal, EdgeRequest } from '../request.js';
import type { UseReports } from '../use-reports.js';
import type { Outgoing } from './outgoing.js';
import type { Ended, RequestLog } from './request-log.js';

/** What both servers of the edge need. */
export interface ServerDeps {
  /** Answers a request, or says that it is to be passed on. */
  handle(ask: EdgeRequest, client: ClientSignal): Answer | Promise<Answer>;
  readonly health: Health;
  readonly tally: Tally;
  readonly uses: Pick<UseReports, 'note'>;
  readonly outgoing: Outgoing;
  readonly clock: Clock;
  readonly log: Log;
  readonly requestLog: RequestLog;
  readonly newRequestId: () => string;
}

/** One error for all clients: it holds nothing of a single request. */
const CLIENT_GONE = new Error('the client is gone, or its answer is complete');

/** Makes its signal when it is first asked for, because a hit in memory needs none. */
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

export function answerTo(deps: ServerDeps, ask: EdgeRequest, client: ClientSignal): Answer | Promise<Answer> {
  return malformed(ask) ?? healthOf(ask, deps.health) ?? deps.handle(ask, client);
}

/** RFC 9112 3.2: a target is in origin form, absolute form, or `*` for OPTIONS; nothing else is forwarded. */
function malformed(ask: EdgeRequest): Answer | undefined {
  if (ask.target.startsWith('/') || (ask.target === '*' && ask.method === 'OPTIONS')) return undefined;
  const fault = new Fault('malformed', 'The request target is malformed.');
  return { kind: 'reply', reply: problemReply(fault), outcome: 'refused', mediaId: null };
}

/** The health of the edge itself; the origin is not asked. */
function healthOf(ask: EdgeRequest, health: Health): Answer | Promise<Answer> | undefined {
  if (ask.method !== 'GET' && ask.method !== 'HEAD') return undefined;
  if (ask.path === '/healthz') return ownAnswer(health.live());
  if (ask.path === '/readyz') return health.ready().then(ownAnswer);
  return undefined;
}

function ownAnswer(reply: Reply): Answer {
  return { kind: 'reply', reply, outcome: 'own', mediaId: null };
}

/** Turns an error into the response for the client. Only for a client that has received no byte of an answer. */
export function failureReply(ask: EdgeRequest, thrown: unknown, { log }: Pick<ServerDeps, 'log'>): Reply {
  const fault = faultOf(thrown);
  if (fault.side === 'self') log.error({ requestId: ask.requestId, ...errorFields(thrown) }, 'a request failed');
  const reply = problemReply(fault);
  return { ...reply, headers: [...reply.headers, [REQUEST_ID, ask.requestId]] };
}

export function account(deps: Pick<ServerDeps, 'tally' | 'requestLog'>, ask: EdgeRequest, ended: Ended): void {
  const { outcome, status, sentBytes, complete, tookMs } = ended;
  deps.tally.count(outcome, sentBytes);
  const { requestId, method, target } = ask;
  deps.requestLog.write({ requestId, method, target, status, outcome, sentBytes, complete, tookMs });
}
