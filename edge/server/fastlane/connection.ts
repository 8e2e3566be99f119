/**
 * One connection in the fast lane: reads its requests one after the other,
 * writes the handler's answer to each, and hands the connection over to node's
 * parser, for good, when a request is not plain or is to be passed on.
 *
 * Promises: answers go out in the order of their requests. While a client does
 * not read its answer, no further request is answered and a bounded amount is
 * read. An answer that fails midway breaks the connection, so that no client
 * takes an incomplete body for a complete one.
 */
import type { Readable } from 'node:stream';
import { waitFor } from '../../../src/abort.js';
import type { Clock } from '../../../src/clock.js';
import { forwardsInterim } from '../../../src/http/fields.js';
import { requestId } from '../../../src/http/head.js';
import type { HeaderList, Reply } from '../../../src/http/reply.js';
import type { MediaId } from '../../../src/ids.js';
import { errorFields } from '../../../src/log.js';
import type { ListenLimits } from '../../../src/server/limits.js';
import type { FirstConnection } from '../../../src/server/listen.js';
import { isAtHand } from '../../../src/server/send.js';
import { REQUEST_ID } from '../../../src/wire.js';
import type { Answer, EdgeRequest, RequestSender } from '../../request.js';
import { account, answerTo, failureReply, type ServerDeps, schemeOf } from '../exchange.js';
import { type Fields, type PlainHead, readHead } from './head.js';
import { JOINED_MAX_BYTES, type Joiner, joined, type Lender, type Lent, NOTHING, writeBoth } from './join.js';
import { type ConnectionFacts, PlainRequest } from './request.js';
import type { SendTurns } from './send-turns.js';
import type { HeadWriter, WrittenHead } from './write-head.js';

/** What all connections of the fast lane share. */
interface Lane {
  readonly deps: ServerDeps;
  readonly limits: ListenLimits;
  /** Measures how long clients take. */
  readonly clock: Clock;
  readonly writer: HeadWriter;
  /** Joins heads and bodies for plain connections. */
  readonly joiner: Joiner;
  /** The same for connections over TLS. */
  readonly lender: Lender;
  readonly sendTurns: SendTurns;
  /** The listener closes: each answer is the last of its connection. */
  readonly closing: boolean;
  /** The connection has ended or was handed over. */
  remove(connection: Connection): void;
}

const LAST_CHUNK = '0\r\n\r\n';

export class Connection {
  readonly #lane: Lane;
  readonly #raw: FirstConnection;
  readonly #encrypted: boolean;
  /** Bytes that were received and not read yet, one character for each. */
  #received = '';
  /** The request that is being answered, and its text, which node's parser needs if the request is to be passed on. */
  #request: PlainRequest | undefined;
  #requestText = '';
  #fields: Fields | undefined;
  #answered = 0;
  #paused = false;
  #removeOutgoing: (() => void) | undefined;
  /** What TLS is being given. */
  #lent: Lent | undefined;
  /** The instant, by the monotonic clock, at which the next head must have begun or, once it has, must be complete. */
  #dueMs: number;
  /** Whether the next head has begun, so that its deadline is set once. The first one begins with the connection. */
  #headBegan = true;

  readonly #facts: ConnectionFacts;

  constructor(lane: Lane, raw: FirstConnection) {
    this.#lane = lane;
    this.#raw = raw;
    this.#encrypted = schemeOf(raw.socket) === 'https';
    this.#facts = { inform: this.#inform, senderOf: this.#senderOf, protocol: 'HTTP/1.1' };
    const { clock, limits } = lane;
    this.#dueMs = clock.monotonicMs() + limits.headersWithinMs;
    const { socket } = raw;
    socket.on('end', this.#onEnd).on('timeout', this.#onTimeout);
    socket.on('error', this.#onError).on('close', this.#onClose);
    raw.start(this.#onBytes);
  }

  /** Ends the connection if its next request is overdue. */
  expire(nowMs: number): void {
    if (this.#request !== undefined || nowMs < this.#dueMs) return;
    if (this.#received === '' && this.#answered > 0) this.#raw.socket.destroy();
    else {
      this.#detach();
      // What still arrives is read and dropped, so that the client can read the answer (RFC 9112 9.6).
      this.#raw.socket.resume();
      this.#raw.tooSlow();
    }
  }

  /** Ends the connection now, or after the answer that is being written. */
  close(): void {
    if (this.#request === undefined && this.#received === '') this.#raw.socket.end();
  }

  breakOff(): void {
    this.#raw.socket.destroy();
  }

  /** Keeps nothing of the buffer, which is used again. */
  readonly #onBytes = (buffer: Buffer, length: number): void => {
    // After the last answer nothing is answered, and so nothing is kept.
    if (this.#request === undefined && !this.#raw.socket.writable) return;
    const text = buffer.toString('latin1', 0, length);
    this.#received = this.#received === '' ? text : this.#received + text;
    if (this.#request === undefined) this.#serve();
    else if (this.#received.length > this.#lane.limits.headersMaxBytes) this.#pause();
  };

  /** A client that ends its side of the connection counts as gone, as in node:http. */
  readonly #onEnd = (): void => {
    this.#request?.end();
    this.#raw.socket.end();
  };

  readonly #onTimeout = (): void => {
    if (this.#request !== undefined) this.#raw.socket.destroy();
  };
  readonly #onError = (): void => undefined;

  readonly #onClose = (): void => {
    const request = this.#request;
    if (request !== undefined) this.#account(request, false);
    this.#lane.remove(this);
  };

  /** Answers the requests that have been received, until one is incomplete or an answer takes time. */
  #serve(): void {
    const { limits } = this.#lane;
    while (this.#request === undefined && this.#received !== '' && this.#raw.socket.writable) {
      const read = readHead(this.#received, limits, this.#fields);
      switch (read.kind) {
        case 'incomplete':
          this.#beginHead();
          return;
        case 'unusual':
          this.#beginHead();
          this.#handOver(this.#received, this.#dueMs);
          return;
        case 'plain':
          this.#fields = read.fields;
          this.#begin(read);
      }
    }
  }

  #beginHead(): void {
    if (this.#headBegan) return;
    this.#headBegan = true;
    this.#dueMs = this.#lane.clock.monotonicMs() + this.#lane.limits.headersWithinMs;
  }

  #begin(head: PlainHead): void {
    const { deps } = this.#lane;
    const whole = this.#received.length === head.length;
    this.#requestText = whole ? this.#received : this.#received.slice(0, head.length);
    this.#received = whole ? '' : this.#received.slice(head.length);
    const id = requestId(head.fields.values.get(REQUEST_ID)) ?? deps.newRequestId();
    const request = new PlainRequest(head, id, this.#lane.clock.monotonicMs(), this.#facts);
    this.#request = request;
    try {
      const answer = answerTo(deps, request, request);
      if (answer instanceof Promise) void this.#answerLater(request, answer);
      else this.#answer(request, answer);
    } catch (thrown) {
      this.#fail(request, thrown);
    }
  }

  async #answerLater(request: PlainRequest, answer: Promise<Answer>): Promise<void> {
    this.#raw.socket.setTimeout(this.#lane.limits.stalledMs);
    try {
      this.#answer(request, await answer);
    } catch (thrown) {
      this.#fail(request, thrown);
    }
    this.#serve();
  }

  #answer(request: PlainRequest, answer: Answer): void {
    const { deps } = this.#lane;
    request.decide(answer, this.#lane.clock.monotonicMs());
    if (answer.kind === 'reply' && !isAtHand(answer.reply, request)) {
      deps.uses.note(answer);
      void this.#writeStream(request, answer.reply);
      return;
    }
    // The client is gone and the connection ends. Only a stream needs more than that: it is closed above.
    if (request.over) return;
    if (answer.kind === 'reply') {
      deps.uses.note(answer);
      this.#writeWhole(request, answer);
    } else {
      this.#request = undefined;
      this.#handOver(this.#requestText + this.#received);
    }
  }

  /** Writes an answer that needs no stream. Mostly the system takes all of it at once, and the request is finished. */
  #writeWhole(request: PlainRequest, { reply, mediaId }: Extract<Answer, { kind: 'reply' }>): void {
    const { socket } = this.#raw;
    const head = this.#writeHead(request, reply);
    const body = head.framing.kind === 'length' && reply.body.kind === 'bytes' ? reply.body.bytes : NOTHING;
    if (head.framing.kind === 'length' && head.framing.sizeBytes !== body.byteLength) {
      throw new Error('a body has another length than its head says');
    }
    request.status = reply.status;
    request.sentBytes = head.sizeBytes + body.byteLength;
    if (this.#encrypted) {
      this.#hold(mediaId);
      this.#writeEncrypted(head, body);
      return;
    }
    if (body.byteLength <= JOINED_MAX_BYTES) this.#lane.joiner.write(socket, head, body);
    else writeBoth(socket, head, body);
    if (socket.writableLength === 0) {
      this.#finish(request);
      return;
    }
    this.#hold(mediaId);
    this.#finishOnceWritten();
  }

  /** TLS always tells later that it has taken the bytes, so the request is finished by the write itself. */
  #writeEncrypted(head: WrittenHead, body: Uint8Array): void {
    const { socket } = this.#raw;
    this.#limitStalling();
    if (body.byteLength > JOINED_MAX_BYTES) {
      writeBoth(socket, head, body, this.#onWritten);
      return;
    }
    this.#lent = this.#lane.lender.join(head, body);
    socket.write(this.#lent.answer, this.#onWritten);
  }

  /** Lets a takedown break off the answer that is being written. */
  #hold(mediaId: MediaId | null): void {
    if (mediaId !== null) this.#removeOutgoing = this.#lane.deps.outgoing.add(mediaId, this.#raw.socket);
  }

  async #writeStream(request: PlainRequest, reply: Reply): Promise<void> {
    const { socket } = this.#raw;
    if (reply.body.kind !== 'stream') return;
    try {
      socket.setTimeout(this.#lane.limits.stalledMs);
      const head = this.#writeHead(request, reply);
      const body = await reply.body.open(request.gone());
      // The loop below receives errors too, but a body for a client that is gone is never read.
      body.on('error', () => undefined);
      if (request.over) {
        body.destroy();
        return;
      }
      const begin = (): void => {
        if (request.status !== 0 || request.over) return;
        request.status = reply.status;
        request.sentBytes = head.sizeBytes;
        socket.write(joined(head, NOTHING));
      };
      // The head goes out with the first bytes of the body if they come at once, or else without them. A body that fails
      // before that is answered as a failure.
      const beginning = setImmediate(begin);
      try {
        await this.#pump(request, body, head, begin);
      } finally {
        clearImmediate(beginning);
      }
      this.#finishOnceWritten();
    } catch (thrown) {
      this.#fail(request, thrown);
      this.#serve();
    }
  }

  /**
   * Writes the body as fast as the client reads and the other connections let it, `begin` first. Rejects if its length is
   * not the one in the head.
   */
  async #pump(request: PlainRequest, body: Readable, { framing }: WrittenHead, begin: () => void): Promise<void> {
    const { socket } = this.#raw;
    const { sendTurns } = this.#lane;
    let left = framing.kind === 'length' ? framing.sizeBytes : Number.POSITIVE_INFINITY;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      // The first bytes wait for nobody.
      if (request.status === 0) sendTurns.count(chunk.length);
      else await sendTurns.take(chunk.length);
      // A takedown may have ended the body meanwhile.
      if (body.errored !== null) throw body.errored;
      if (request.over) throw new Error('the client left');
      left -= chunk.length;
      if (left < 0) throw new Error('a body is longer than its head says');
      socket.cork();
      begin();
      if (framing.kind === 'chunked') writeChunk(socket, chunk);
      else socket.write(chunk);
      socket.uncork();
      request.sentBytes += chunk.length;
      if (socket.writableNeedDrain) await this.#drained(request);
    }
    if (left > 0 && framing.kind !== 'chunked') throw new Error('a body is shorter than its head says');
    begin();
    if (framing.kind === 'chunked') socket.write(LAST_CHUNK);
  }

  #drained(request: PlainRequest): Promise<void> {
    const { socket } = this.#raw;
    return waitFor((come) => {
      socket.once('drain', come);
      return () => socket.off('drain', come);
    }, request.gone());
  }

  #writeHead(request: PlainRequest, reply: Reply): WrittenHead {
    return this.#lane.writer.write(reply, request.method, this.#lane.closing || request.carrier.last);
  }

  readonly #senderOf = (request: EdgeRequest): RequestSender => {
    const { socket } = this.#raw;
    const headers = { 'x-forwarded-for': request.header('x-forwarded-for') };
    const address = this.#lane.deps.addressOf({ socket, headers });
    return { address, scheme: schemeOf(socket), peer: socket.remoteAddress };
  };

  readonly #inform = (status: number, fields: HeaderList): void => {
    const request = this.#request;
    if (request === undefined || request.status !== 0 || request.over || !forwardsInterim(status, '1.1')) return;
    const links = fields.filter(([name]) => name === 'link');
    if (status === 103 && links.length > 0) this.#raw.socket.write(this.#lane.writer.interim(103, links), 'latin1');
    if (status === 102) this.#raw.socket.write(this.#lane.writer.interim(102, []), 'latin1');
  };

  /** Waits until the system has taken all bytes, then goes on to the next request. */
  #finishOnceWritten(): void {
    this.#limitStalling();
    this.#raw.socket.write(NOTHING, this.#onWritten);
  }

  readonly #onWritten = (broken?: Error | null): void => {
    const request = this.#request;
    const lent = this.#lent;
    this.#lent = undefined;
    // Node 20 reports no error for a write over TLS that the end of the connection has cut off.
    if (request === undefined || request.over || (broken ?? null) !== null || this.#raw.socket.destroyed) return;
    if (lent !== undefined) this.#lane.lender.giveBack(lent);
    this.#finish(request);
    this.#serve();
  };

  #limitStalling(): void {
    const { socket } = this.#raw;
    const { stalledMs } = this.#lane.limits;
    if (socket.timeout !== stalledMs) socket.setTimeout(stalledMs);
  }

  #finish(request: PlainRequest): void {
    const { socket } = this.#raw;
    this.#account(request, true);
    this.#answered += 1;
    if (request.carrier.last) {
      // RFC 9112 9.6: what follows such a request is not answered. As in node:http, it is not waited for either.
      this.#received = '';
      socket.destroySoon();
      return;
    }
    if (this.#lane.closing) {
      socket.end();
      return;
    }
    // Over TLS nearly every answer needs the limit: it stays, and means nothing between requests.
    if (!this.#encrypted && socket.timeout !== undefined && socket.timeout > 0) socket.setTimeout(0);
    if (this.#paused) this.#resume();
  }

  #account(request: PlainRequest, complete: boolean): void {
    const { deps, limits, clock } = this.#lane;
    const nowMs = clock.monotonicMs();
    this.#request = undefined;
    this.#requestText = '';
    this.#removeOutgoing?.();
    this.#removeOutgoing = undefined;
    this.#dueMs = nowMs + limits.idleMs;
    this.#headBegan = false;
    request.end();
    const { outcome, answer, status, sentBytes, startedMs, decidedAtMs } = request;
    const tookMs = nowMs - startedMs;
    const decidedMs = decidedAtMs === 0 ? tookMs : decidedAtMs - startedMs;
    account(deps, request, { outcome, answer, status, sentBytes, complete, tookMs, decidedMs });
  }

  /** Answers with the failure, or breaks the connection if an answer has begun. */
  #fail(request: PlainRequest, thrown: unknown): void {
    const { deps } = this.#lane;
    if (request.over) return;
    if (request.status === 0 && this.#raw.socket.writable) {
      const reply = failureReply(request, thrown, deps);
      request.outcome = 'failed';
      this.#writeWhole(request, { kind: 'reply', reply, outcome: 'failed', mediaId: null });
      return;
    }
    deps.log.debug({ request_id: request.requestId, ...errorFields(thrown) }, 'an answer was broken off');
    this.#raw.socket.destroy();
  }

  #pause(): void {
    this.#paused = true;
    this.#raw.socket.pause();
  }

  #resume(): void {
    this.#paused = false;
    this.#raw.socket.resume();
  }

  #handOver(received: string, headDueMs?: number): void {
    this.#received = '';
    this.#detach();
    this.#raw.handOver(Buffer.from(received, 'latin1'), headDueMs);
  }

  /** Stops listening to the socket: somebody else reads it from now on. */
  #detach(): void {
    const { socket } = this.#raw;
    this.#raw.release();
    socket.off('end', this.#onEnd).off('timeout', this.#onTimeout);
    socket.off('error', this.#onError).off('close', this.#onClose);
    socket.setTimeout(0);
    this.#lane.remove(this);
  }
}

/** RFC 9112 7.1. A chunk of size 0 would end the body. */
function writeChunk(socket: FirstConnection['socket'], chunk: Buffer): void {
  if (chunk.length === 0) return;
  socket.cork();
  socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1');
  socket.write(chunk);
  socket.write('\r\n', 'latin1');
  socket.uncork();
}
