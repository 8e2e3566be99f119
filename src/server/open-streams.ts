/**
 * The open streams of one HTTP/2 session and how long each may take: the same
 * time limits as on an HTTP/1.1 connection. One timer serves the whole session,
 * so that a stream which is answered at once sets none.
 *
 * Promises: a stream on which nothing moves ends, whatever moves beside it, and a
 * session without a stream ends, whatever its client sends. Node's own timers
 * would also count what moves on other streams, and frames that carry nothing.
 */
import type { IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Clock, Timer } from '../clock.js';
import type { ListenLimits } from './limits.js';

/** A stream whose request is to be answered. */
export class OpenStream {
  readonly stream: ServerHttp2Stream;
  readonly fields: IncomingHttpHeaders;
  /** Names and values in turn, as received, with pseudo-fields. */
  readonly rawFields: readonly string[];
  /** Called once, when the stream has ended. */
  onEnd: (() => void) | undefined;
  /** To be set by `onEnd` if not all of the answer has left. */
  brokenOff = false;
  readonly #session: StreamsOfSession;
  readonly #openedMs: number;
  #movedMs: number;

  constructor(
    stream: ServerHttp2Stream,
    fields: IncomingHttpHeaders,
    rawFields: readonly string[],
    session: StreamsOfSession,
  ) {
    this.stream = stream;
    this.fields = fields;
    this.rawFields = rawFields;
    this.#session = session;
    this.#openedMs = session.clock.monotonicMs();
    this.#movedMs = this.#openedMs;
  }

  /** Must be called when something of the stream itself was sent or received. */
  moved(): void {
    this.#movedMs = this.#session.clock.monotonicMs();
  }

  /** Gives the request to the handler of node:http's requests, which answers it from the beginning. */
  handOver(): void {
    this.#session.pass(this);
  }

  /** When it ends if nothing more moves, or if its request has not arrived. */
  dueMs({ stalledMs, requestWithinMs }: ListenLimits): number {
    const { stream } = this;
    const stalledAt = this.#movedMs + stalledMs;
    if (stream.endAfterHeaders || stream.readableEnded) return stalledAt;
    return Math.min(stalledAt, this.#openedMs + requestWithinMs);
  }
}

export interface StreamsOfSession {
  readonly clock: Clock;
  /** Has the request answered as one of node:http. */
  pass(opened: OpenStream): void;
}

export interface Deadlines {
  add(opened: OpenStream): void;
  remove(opened: OpenStream): void;
  /** To be called at the end of the session. */
  stop(): void;
}

/**
 * Ends streams that take too long, and a session that has had no stream for
 * `idleMs`, or none from its beginning for `headersWithinMs`.
 */
export function watchDeadlines(
  session: ServerHttp2Session,
  limits: ListenLimits,
  streamsMax: number,
  clock: Clock,
): Deadlines {
  const open = new Set<OpenStream>();
  let searching = false;
  let idleUntilMs = clock.monotonicMs() + Math.min(limits.headersWithinMs, limits.idleMs);
  let timer: Timer | undefined;
  let timerMs = Number.POSITIVE_INFINITY;

  /** A timer that comes too early is harmless: most instants are never waited for. */
  function wait(untilMs: number): void {
    if (untilMs >= timerMs || session.destroyed) return;
    timer?.cancel();
    timerMs = untilMs;
    timer = clock.after(untilMs - clock.monotonicMs(), check);
  }

  function check(): void {
    timerMs = Number.POSITIVE_INFINITY;
    const nowMs = clock.monotonicMs();
    if (open.size > 0) wait(endOverdue(nowMs));
    else if (idleUntilMs > nowMs) wait(idleUntilMs);
    else session.destroy();
  }

  /** Returns when the next stream is due. Those that are ended here are removed when they have closed. */
  function endOverdue(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const opened of open) {
      const dueMs = opened.dueMs(limits);
      if (dueMs > nowMs) nextMs = Math.min(nextMs, dueMs);
      else opened.stream.destroy(new Error('the stream took too long'));
    }
    return nextMs;
  }

  /**
   * Node keeps a stream that its client has reset without an error until everything written to it has left, which will
   * never be. Only so can there be more than `streamsMax`. What has left is reported before the next turn.
   */
  function endClosed(): void {
    searching = false;
    for (const { stream } of open) if (stream.closed) stream.destroy();
  }

  wait(idleUntilMs);
  return {
    add(opened) {
      open.add(opened);
      if (open.size > streamsMax && !searching) {
        searching = true;
        setImmediate(endClosed);
      }
      wait(opened.dueMs(limits));
    },
    remove(opened) {
      open.delete(opened);
      if (open.size > 0 || session.destroyed) return;
      idleUntilMs = clock.monotonicMs() + limits.idleMs;
      wait(idleUntilMs);
    },
    stop: () => timer?.cancel(),
  };
}
