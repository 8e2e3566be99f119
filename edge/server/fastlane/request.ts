/** A plain request in the fast lane, how far its answer is, and the signal that its client is gone. */
import type { Caller } from '../../../src/access/grant.js';
import { splitTarget } from '../../../src/http/head.js';
import type { HeaderList } from '../../../src/http/reply.js';
import type { Trace } from '../../../src/tracing/context.js';
import type { Answer, EdgeRequest, Outcome, RequestSender } from '../../request.js';
import { LazyClientSignal } from '../exchange.js';
import type { Fields, PlainHead } from './head.js';

/** What all requests of a connection have in common. */
export interface ConnectionFacts {
  readonly inform: (status: number, headers: HeaderList) => void;
  readonly senderOf: (request: EdgeRequest) => RequestSender;
  readonly protocol: string;
}

export class PlainRequest extends LazyClientSignal implements EdgeRequest {
  readonly method: 'GET' | 'HEAD';
  readonly target: string;
  readonly path: string;
  readonly query: string;
  readonly requestId: string;
  readonly startedMs: number;
  readonly inform: (status: number, headers: HeaderList) => void;
  readonly carrier: Fields;
  readonly protocol: string;
  caller: Caller | undefined;
  trace: Trace | undefined;
  outcome: Outcome = 'failed';
  answer: Answer | undefined;
  /** When the answer was decided; 0 before. */
  decidedAtMs = 0;
  /** 0 until the head of the answer is written. */
  status = 0;
  sentBytes = 0;
  over = false;
  readonly #senderOf: ConnectionFacts['senderOf'];

  constructor(
    head: Pick<PlainHead, 'method' | 'target' | 'fields'>,
    requestId: string,
    startedMs: number,
    { inform, senderOf, protocol }: ConnectionFacts,
  ) {
    super();
    this.method = head.method;
    this.target = head.target;
    const { path, query } = splitTarget(head.target);
    this.path = path;
    this.query = query;
    this.requestId = requestId;
    this.startedMs = startedMs;
    this.inform = inform;
    this.protocol = protocol;
    this.#senderOf = senderOf;
    this.carrier = head.fields;
  }

  header(name: string): string | undefined {
    return this.carrier.values.get(name);
  }

  fields(): HeaderList {
    return this.carrier.lines;
  }

  sender(): RequestSender {
    return this.#senderOf(this);
  }

  decide(answer: Answer, nowMs: number): void {
    this.outcome = answer.outcome;
    this.answer = answer;
    this.decidedAtMs = nowMs;
  }

  end(): void {
    this.over = true;
    this.signalGone();
  }
}
