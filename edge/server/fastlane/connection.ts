/**
 * One connection in the fast lane: reads its requests one after the other,
 * writes what the story answers to each, and hands the connection over to
 * node's parser, for good, where a request is not plain or is to be passed on.
 *
 * Promises: answers stand in the order of their requests; what a client does
 * not read is neither answered further nor read further; an answer that breaks
 * off breaks the connection, so that nobody takes half for whole.
 */
import type { Readable } from 'node:stream';
import { forwardsInterim } from '../../../src/http/fields.js';
import { requestId } from '../../../src/http/head.js';
import type { HeaderList, Reply } from '../../../src/http/reply.js';
import { errorFields } from '../../../src/log.js';
import type { FirstConnection } from '../../../src/server/listen.js';
import { isAtHand } from '../../../src/server/send.js';
import { REQUEST_ID } from '../../../src/wire.js';
import type { Answer } from '../../answer.js';
import { account, answerTo, failureReply } from '../exchange.js';
import { type Fields, type PlainHead, readHead } from './head.js';
import type { Lane } from './lane.js';
import { PlainRequest } from './request.js';
import type { WrittenHead } from './write-head.js';

/** Small bodies go out in one piece with their head. */
const JOINED_MAX_BYTES = 16_384;
const NOTHING = Buffer.alloc(0);
const LAST_CHUNK = '0\r\n\r\n';

export class Connection {
  readonly #lane: Lane;
  readonly #own: FirstConnection;
  /** Received and not read yet, one character a byte. */
  #held = '';
  /** The request in hand and its text, in case it is to be put back. */
  #request: PlainRequest | undefined;
  #requestText = '';
  #fields: Fields | undefined;
  #answered = 0;
  #paused = false;
  #release: (() => void) | undefined;
  /** When, by the monotonic clock, the wait for a request is over. */
  #dueMs: number;

  constructor(lane: Lane, own: FirstConnection) {
    this.#lane = lane;
    this.#own = own;
    const { clock, limits } = lane;
    this.#dueMs = clock.monotonicMs() + limits.headersWithinMs;
    const { socket } = own;
    socket.on('data', this.#onData).on('end', this.#onEnd).on('timeout', this.#onTimeout);
    socket.on('error', this.#onError).on('close', this.#onClose);
  }

  /** Ends it where a request has been waited for too long. */
  expire(nowMs: number): void {
    if (this.#request !== undefined || nowMs < this.#dueMs) return;
    if (this.#held === '' && this.#answered > 0) this.#own.socket.destroy();
    else {
      this.#leave();
      // Whatever still comes is read and thrown away, so that its client can read why.
      this.#own.socket.resume();
      this.#own.tooSlow();
    }
  }

  /** Ends it, behind the answer in hand if there is one. */
  close(): void {
    if (this.#request === undefined && this.#held === '') this.#own.socket.end();
  }

  breakOff(): void {
    this.#own.socket.destroy();
  }

  readonly #onData = (chunk: Buffer): void => {
    const text = chunk.toString('latin1');
    this.#held = this.#held === '' ? text : this.#held + text;
    if (this.#request === undefined) this.#serve();
    else if (this.#held.length > this.#lane.limits.headersMaxBytes) this.#pause();
  };

  /** A client that has ended its half has left: as node:http has it. */
  readonly #onEnd = (): void => {
    this.#request?.end();
    this.#own.socket.end();
  };

  readonly #onTimeout = (): void => void this.#own.socket.destroy();
  readonly #onError = (): void => undefined;

  readonly #onClose = (): void => {
    const request = this.#request;
    if (request !== undefined) this.#account(request, false);
    this.#lane.left(this);
  };

  /** All requests that are here, until one has to wait. */
  #serve(): void {
    const { limits, clock } = this.#lane;
    while (this.#request === undefined && this.#held !== '' && this.#own.socket.writable) {
      const read = readHead(this.#held, limits, this.#fields);
      switch (read.kind) {
        case 'incomplete':
          if (this.#answered > 0) this.#dueMs = clock.monotonicMs() + limits.headersWithinMs;
          return;
        case 'unusual':
          this.#handOver(this.#held);
          return;
        case 'plain':
          this.#fields = read.fields;
          this.#begin(read);
      }
    }
  }

  #begin(head: PlainHead): void {
    const { parts } = this.#lane;
    const whole = this.#held.length === head.length;
    this.#requestText = whole ? this.#held : this.#held.slice(0, head.length);
    this.#held = whole ? '' : this.#held.slice(head.length);
    const made = {
      requestId: requestId(head.fields.values.get(REQUEST_ID)) ?? parts.newRequestId(),
      receivedAt: parts.clock.now(),
      startedMs: this.#lane.clock.monotonicMs(),
    };
    const request = new PlainRequest(head, made, this.#inform);
    this.#request = request;
    try {
      const answer = answerTo(parts, request, request);
      if (answer instanceof Promise) void this.#answerLater(request, answer);
      else this.#answer(request, answer);
    } catch (thrown) {
      this.#fail(request, thrown);
    }
  }

  async #answerLater(request: PlainRequest, answer: Promise<Answer>): Promise<void> {
    this.#own.socket.setTimeout(this.#lane.limits.stalledMs);
    try {
      this.#answer(request, await answer);
    } catch (thrown) {
      this.#fail(request, thrown);
    }
    this.#serve();
  }

  #answer(request: PlainRequest, answer: Answer): void {
    const { parts } = this.#lane;
    request.outcome = answer.outcome;
    if (answer.kind === 'reply' && !isAtHand(answer.reply, request)) {
      parts.uses.note(answer);
      void this.#writeStream(request, answer.reply);
      return;
    }
    // Its client left meanwhile, and the connection ends. Only a body has to be closed, as above.
    if (request.over) return;
    if (answer.kind === 'reply') {
      parts.uses.note(answer);
      this.#writeWhole(request, answer);
    } else {
      this.#request = undefined;
      this.#handOver(this.#requestText + this.#held);
    }
  }

  /** An answer that is at hand goes out in one write; mostly the system takes all of it at once. */
  #writeWhole(request: PlainRequest, { reply, mediaId }: Extract<Answer, { kind: 'reply' }>): void {
    const { socket } = this.#own;
    const head = this.#writeHead(request, reply);
    const body = head.framing.kind === 'length' && reply.body.kind === 'bytes' ? reply.body.bytes : NOTHING;
    if (head.framing.kind === 'length' && head.framing.sizeBytes !== body.byteLength) {
      throw new Error('a body has another length than its head says');
    }
    request.status = reply.status;
    request.sentBytes = head.sizeBytes + body.byteLength;
    if (body.byteLength <= JOINED_MAX_BYTES) {
      socket.write(joined(head, body));
    } else {
      socket.cork();
      socket.write(joined(head, NOTHING));
      socket.write(body);
      socket.uncork();
    }
    if (socket.writableLength === 0) {
      this.#finish(request);
      return;
    }
    if (mediaId !== null) this.#release = this.#lane.parts.departures.hold(mediaId, socket);
    this.#finishOnceWritten(request);
  }

  async #writeStream(request: PlainRequest, reply: Reply): Promise<void> {
    const { socket } = this.#own;
    if (reply.body.kind !== 'stream') return;
    try {
      socket.setTimeout(this.#lane.limits.stalledMs);
      const head = this.#writeHead(request, reply);
      const body = await reply.body.open(request.leaving());
      // Whoever reads it hears of its errors. One for a client who has left is read by nobody.
      body.on('error', () => undefined);
      if (request.over) {
        body.destroy();
        return;
      }
      // With the first bytes, where they are at hand, and without them where they are slow to come.
      socket.cork();
      setImmediate(() => socket.uncork());
      request.status = reply.status;
      request.sentBytes = head.sizeBytes;
      socket.write(joined(head, NOTHING));
      await this.#pump(request, body, head);
      this.#finishOnceWritten(request);
    } catch (thrown) {
      this.#fail(request, thrown);
      this.#serve();
    }
  }

  /** As fast as the client reads. Neither more nor less than the head has said. */
  async #pump(request: PlainRequest, body: Readable, { framing }: WrittenHead): Promise<void> {
    const { socket } = this.#own;
    let left = framing.kind === 'length' ? framing.sizeBytes : Number.POSITIVE_INFINITY;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      if (request.over) throw new Error('the client left');
      left -= chunk.length;
      if (left < 0) throw new Error('a body is longer than its head says');
      if (framing.kind === 'chunked') writeChunk(socket, chunk);
      else socket.write(chunk);
      request.sentBytes += chunk.length;
      if (socket.writableNeedDrain) await this.#drained(request);
    }
    if (framing.kind === 'chunked') socket.write(LAST_CHUNK);
    else if (left > 0) throw new Error('a body is shorter than its head says');
  }

  #drained(request: PlainRequest): Promise<void> {
    const { socket } = this.#own;
    return new Promise((resolve, reject) => {
      const leaving = request.leaving();
      const settle = (): void => {
        socket.off('drain', onDrain);
        leaving.removeEventListener('abort', onLeave);
      };
      const onDrain = (): void => {
        settle();
        resolve();
      };
      const onLeave = (): void => {
        settle();
        reject(leaving.reason);
      };
      socket.once('drain', onDrain);
      leaving.addEventListener('abort', onLeave, { once: true });
      if (leaving.aborted) onLeave();
    });
  }

  #writeHead(request: PlainRequest, reply: Reply): WrittenHead {
    return this.#lane.writer.write(reply, request.method, this.#lane.closing);
  }

  readonly #inform = (status: number, fields: HeaderList): void => {
    const request = this.#request;
    if (request === undefined || request.status !== 0 || request.over || !forwardsInterim(status, '1.1')) return;
    const links = fields.filter(([name]) => name === 'link');
    if (status === 103 && links.length > 0) this.#own.socket.write(this.#lane.writer.interim(103, links), 'latin1');
    if (status === 102) this.#own.socket.write(this.#lane.writer.interim(102, []), 'latin1');
  };

  /** Behind everything that was written, there is an end to wait for. */
  #finishOnceWritten(request: PlainRequest): void {
    const { socket } = this.#own;
    socket.setTimeout(this.#lane.limits.stalledMs);
    socket.write(NOTHING, (broken) => {
      if (request.over || (broken ?? null) !== null) return;
      this.#finish(request);
      this.#serve();
    });
  }

  #finish(request: PlainRequest): void {
    const { socket } = this.#own;
    this.#account(request, true);
    this.#answered += 1;
    if (this.#lane.closing) {
      socket.end();
      return;
    }
    if (socket.timeout !== undefined && socket.timeout > 0) socket.setTimeout(0);
    if (this.#paused) this.#resume();
  }

  #account(request: PlainRequest, complete: boolean): void {
    const { parts, limits, clock } = this.#lane;
    const nowMs = clock.monotonicMs();
    this.#request = undefined;
    this.#requestText = '';
    this.#release?.();
    this.#release = undefined;
    this.#dueMs = nowMs + limits.idleMs;
    request.end();
    const { outcome, status, sentBytes } = request;
    account(parts, request, { outcome, status, sentBytes, complete, tookMs: nowMs - request.startedMs });
  }

  /** A failure becomes an answer, or a broken connection where one has begun. */
  #fail(request: PlainRequest, thrown: unknown): void {
    const { parts } = this.#lane;
    if (request.over) return;
    if (request.status === 0 && this.#own.socket.writable) {
      const reply = failureReply(request, thrown, parts);
      request.outcome = 'failed';
      this.#writeWhole(request, { kind: 'reply', reply, outcome: 'failed', mediaId: null });
      return;
    }
    parts.log.debug({ requestId: request.requestId, ...errorFields(thrown) }, 'an answer was broken off');
    this.#own.socket.destroy();
  }

  #pause(): void {
    this.#paused = true;
    this.#own.socket.pause();
  }

  #resume(): void {
    this.#paused = false;
    this.#own.socket.resume();
  }

  #handOver(received: string): void {
    this.#held = '';
    this.#leave();
    this.#own.handOver(Buffer.from(received, 'latin1'));
  }

  /** Nothing of it is this one's any more. */
  #leave(): void {
    const { socket } = this.#own;
    socket.off('data', this.#onData).off('end', this.#onEnd).off('timeout', this.#onTimeout);
    socket.off('error', this.#onError).off('close', this.#onClose);
    socket.setTimeout(0);
    this.#lane.left(this);
  }
}

/** In one piece. */
function joined({ shared, own, sizeBytes }: WrittenHead, body: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(sizeBytes + body.byteLength);
  bytes.set(shared);
  bytes.write(own, shared.length, 'latin1');
  if (body.byteLength > 0) bytes.set(body, sizeBytes);
  return bytes;
}

/** RFC 9112 7.1. An empty one would be the last. */
function writeChunk(socket: FirstConnection['socket'], chunk: Buffer): void {
  if (chunk.length === 0) return;
  socket.cork();
  socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1');
  socket.write(chunk);
  socket.write('\r\n', 'latin1');
  socket.uncork();
}
