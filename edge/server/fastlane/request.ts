/** One plain request in the fast lane: what the story asks of it, and when its client is done with it. */
import type { EpochMs } from '../../../src/clock.js';
import { splitTarget } from '../../../src/http/head.js';
import type { HeaderList } from '../../../src/http/reply.js';
import type { Leaving } from '../../answer.js';
import type { Outcome } from '../../ops/tally.js';
import type { Ask } from '../../request.js';
import { CLIENT_LEFT } from '../exchange.js';
import type { Fields, PlainHead } from './head.js';

export class PlainRequest implements Ask, Leaving {
  readonly method: 'GET' | 'HEAD';
  readonly target: string;
  readonly path: string;
  readonly query: string;
  readonly receivedAt: EpochMs;
  readonly requestId: string;
  readonly startedMs: number;
  /** Passes an interim answer on. */
  readonly inform: (status: number, headers: HeaderList) => void;
  outcome: Outcome = 'failed';
  /** 0 until the head of the answer went out. */
  status = 0;
  sentBytes = 0;
  over = false;
  readonly carrier: Fields;
  #leaving: AbortController | undefined;

  constructor(
    head: PlainHead,
    made: { readonly requestId: string; readonly receivedAt: EpochMs; readonly startedMs: number },
    inform: (status: number, headers: HeaderList) => void,
  ) {
    this.method = head.method;
    this.target = head.target;
    const { path, query } = splitTarget(head.target);
    this.path = path;
    this.query = query;
    this.receivedAt = made.receivedAt;
    this.requestId = made.requestId;
    this.startedMs = made.startedMs;
    this.inform = inform;
    this.carrier = head.fields;
  }

  header(name: string): string | undefined {
    return this.carrier.values.get(name);
  }

  fields(): HeaderList {
    return this.carrier.lines;
  }

  leaving(): AbortSignal {
    if (this.#leaving === undefined) {
      this.#leaving = new AbortController();
      if (this.over) this.#leaving.abort(CLIENT_LEFT);
    }
    return this.#leaving.signal;
  }

  end(): void {
    this.over = true;
    this.#leaving?.abort(CLIENT_LEFT);
  }
}
