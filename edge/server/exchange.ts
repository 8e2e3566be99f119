/**
 * One request and its answer as the edge sees them, whoever listens: what is
 * the edge's own to answer, what a failure becomes, and how an ended one is
 * counted and logged.
 */

import type { Clock } from '../../src/clock.js';
import { Fault, faultOf } from '../../src/errors.js';
import { problemReply } from '../../src/http/problem.js';
import type { Reply } from '../../src/http/reply.js';
import { errorFields, type Log } from '../../src/log.js';
import type { Health } from '../../src/server/health.js';
import { REQUEST_ID } from '../../src/wire.js';
import type { Answer, Leaving } from '../answer.js';
import type { Outcome, Tally } from '../ops/tally.js';
import type { Ask } from '../request.js';
import type { RequestLog } from './request-log.js';

export interface ExchangeParts {
  /** The story. */
  handle(ask: Ask, leaving: Leaving): Answer | Promise<Answer>;
  readonly health: Health;
  readonly tally: Tally;
  readonly clock: Clock;
  readonly log: Log;
  readonly requestLog: RequestLog;
}

/** The client is gone, or has all it wanted. One for all: it says nothing of who. */
export const CLIENT_LEFT = new Error('the exchange with the client is over');

export function answerTo(parts: ExchangeParts, ask: Ask, client: Leaving): Answer | Promise<Answer> {
  return malformed(ask) ?? healthOf(ask, parts.health) ?? parts.handle(ask, client);
}

/** RFC 9112 3.2: a target is in origin form, absolute form, or `*` for OPTIONS; nothing else is forwarded. */
function malformed(ask: Ask): Answer | undefined {
  if (ask.target.startsWith('/') || (ask.target === '*' && ask.method === 'OPTIONS')) return undefined;
  const fault = new Fault('malformed', 'The request target is malformed.');
  return { kind: 'reply', reply: problemReply(fault), outcome: 'refused', mediaId: null };
}

/** The edge's own state is the edge's to tell, whatever is behind it. */
function healthOf(ask: Ask, health: Health): Answer | Promise<Answer> | undefined {
  if (ask.method !== 'GET' && ask.method !== 'HEAD') return undefined;
  if (ask.path === '/healthz') return ownAnswer(health.live());
  if (ask.path === '/readyz') return health.ready().then(ownAnswer);
  return undefined;
}

function ownAnswer(reply: Reply): Answer {
  return { kind: 'reply', reply, outcome: 'own', mediaId: null };
}

/** The one place where a failure of the edge becomes an answer. Only before one has begun: what has is broken off. */
export function failureReply(ask: Ask, thrown: unknown, { log }: Pick<ExchangeParts, 'log'>): Reply {
  const fault = faultOf(thrown);
  if (fault.side === 'self') log.error({ requestId: ask.requestId, ...errorFields(thrown) }, 'a request failed');
  const reply = problemReply(fault);
  return { ...reply, headers: [...reply.headers, [REQUEST_ID, ask.requestId]] };
}

/** How an exchange ended. */
export interface Ended {
  readonly outcome: Outcome;
  /** 0: it was not answered. */
  readonly status: number;
  readonly sentBytes: number;
  /** Whether all of the answer was handed to the connection. */
  readonly complete: boolean;
  readonly tookMs: number;
}

export function account(parts: Pick<ExchangeParts, 'tally' | 'requestLog'>, ask: Ask, ended: Ended): void {
  const { tally, requestLog } = parts;
  const { outcome, status, sentBytes, complete, tookMs } = ended;
  tally.count(outcome, sentBytes);
  const { requestId, method, target } = ask;
  requestLog.write({ requestId, method, target, status, outcome, sentBytes, complete, tookMs });
}
