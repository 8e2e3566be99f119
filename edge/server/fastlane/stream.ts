/**
 * Plain requests on the streams of an HTTP/2 session: has each answered by the
 * handler and writes an answer that is at hand on the stream itself, without a
 * request and a response of node:http. Every other request goes to node:http.
 *
 * Promises what connection.ts promises: an answer that fails midway resets its
 * stream, and one that a takedown breaks off does too. Leaves to sessions.ts how
 * long a stream may take and how many there may be.
 */
import type { ServerResponse } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import type { Clock } from '../../../src/clock.js';
import { forwardsInterim } from '../../../src/http/fields.js';
import { requestId } from '../../../src/http/head.js';
import { addLine, type Http2Fields, http2Fields, mayBeInHttp2, validStatus } from '../../../src/http/http2-fields.js';
import type { HeaderList, Reply } from '../../../src/http/reply.js';
import type { MediaId } from '../../../src/ids.js';
import { errorFields } from '../../../src/log.js';
import { http2Response, PIECE_BYTES, sentMeter } from '../../../src/server/http2.js';
import type { ListenLimits } from '../../../src/server/limits.js';
import type { OpenStream } from '../../../src/server/open-streams.js';
import { hasContent, isAtHand, lengthOf, send } from '../../../src/server/send.js';
import type { StreamReader } from '../../../src/server/sessions.js';
import { REQUEST_ID } from '../../../src/wire.js';
import type { Answer, EdgeRequest, Ended, RequestSender } from '../../request.js';
import { account, answerTo, failureReply, type ServerDeps, schemeOf } from '../exchange.js';
import { type ConnectionFacts, PlainRequest } from './request.js';
import { createStreamHeads, type StreamHead } from './stream-head.js';

/** What all sessions have in common. */
export interface StreamLane {
  readonly deps: ServerDeps;
  readonly limits: ListenLimits;
  readonly clock: Clock;
  readonly heads: StreamHeadWriter;
}

interface Session {
  readonly lane: StreamLane;
  readonly socket: Socket;
  readonly senderOf: ConnectionFacts['senderOf'];
}

/** Returns what reads the streams of one session. */
export function readStreams(lane: StreamLane, socket: Socket): StreamReader {
  const read = createStreamHeads(lane.limits);
  // Read now: the socket has no address any more once it is closed.
  const { remoteAddress } = socket;
  const scheme = schemeOf(socket);
  const session: Session = {
    lane,
    socket,
    senderOf(request: EdgeRequest): RequestSender {
      const headers = { 'x-forwarded-for': request.header('x-forwarded-for') };
      return { address: lane.deps.addressOf({ socket: { remoteAddress }, headers }), scheme, peer: remoteAddress };
    },
  };
  return (opened) => {
    if (!opened.stream.endAfterHeaders) return false;
    const head = read(opened.rawFields);
    if (head === undefined) return false;
    new StreamAnswer(session, opened, head).begin();
    return true;
  };
}

/** One request and its answer. */
class StreamAnswer implements ConnectionFacts {
  readonly senderOf: ConnectionFacts['senderOf'];
  readonly protocol = 'HTTP/2.0';
  readonly #session: Session;
  readonly #opened: OpenStream;
  readonly #stream: ServerHttp2Stream;
  readonly #request: PlainRequest;
  /** What of the answer was given to the stream: nothing, a part, or all of it. */
  #given: 'nothing' | 'part' | 'all' = 'nothing';
  /** The last bytes given, of which the stream has not told yet that they have left. */
  #lastBytes = 0;
  /** The response of node:http that sends the answer, if one does. */
  #response: ServerResponse | undefined;
  #removeOutgoing: (() => void) | undefined;

  constructor(session: Session, opened: OpenStream, head: StreamHead) {
    const { deps, clock } = session.lane;
    this.#session = session;
    this.#opened = opened;
    this.#stream = opened.stream;
    this.senderOf = session.senderOf;
    const id = requestId(head.fields.values.get(REQUEST_ID)) ?? deps.newRequestId();
    this.#request = new PlainRequest(head, id, clock.monotonicMs(), this);
  }

  begin(): void {
    const { deps } = this.#session.lane;
    this.#opened.onEnd = () => this.#end();
    try {
      const answer = answerTo(deps, this.#request, this.#request);
      if (answer instanceof Promise) void this.#answerLater(answer);
      else this.#answer(answer);
    } catch (thrown) {
      this.#fail(thrown);
    }
  }

  readonly inform = (status: number, fields: HeaderList): void => {
    if (this.#given !== 'nothing' || this.#isGone() || !forwardsInterim(status, '1.1')) return;
    const links = fields.filter(([name]) => name === 'link').map(([, value]) => value);
    if (status === 102) this.#stream.additionalHeaders({ ':status': 102 });
    if (status === 103 && links.length > 0) this.#stream.additionalHeaders({ ':status': 103, link: links });
  };

  async #answerLater(answer: Promise<Answer>): Promise<void> {
    try {
      this.#answer(await answer);
    } catch (thrown) {
      this.#fail(thrown);
    }
  }

  #answer(answer: Answer): void {
    const { deps } = this.#session.lane;
    const request = this.#request;
    if (answer.kind !== 'reply') {
      if (this.#isGone()) return;
      this.#opened.onEnd = undefined;
      this.#opened.handOver();
      return;
    }
    request.decide(answer, this.#session.lane.clock.monotonicMs());
    deps.uses.note(answer);
    if (!isAtHand(answer.reply, request)) void this.#writeStream(answer.reply);
    else if (!this.#isGone()) this.#writeWhole(answer.reply, answer.mediaId);
  }

  #writeWhole(reply: Reply, mediaId: MediaId | null): void {
    const request = this.#request;
    const { body } = reply;
    const bytes = body.kind === 'bytes' && hasContent(reply.status, request.method) ? body.bytes : NOTHING;
    const fields = this.#session.lane.heads.write(reply);
    if (bytes !== NOTHING && Number(fields['content-length']) !== bytes.byteLength) {
      throw new Error('a body has another length than its head says');
    }
    request.status = reply.status;
    this.#given = 'part';
    this.#opened.moved();
    if (mediaId !== null) this.#removeOutgoing = this.#session.lane.deps.outgoing.add(mediaId, this);
    this.#stream.respond(fields, { endStream: bytes.byteLength === 0 });
    if (bytes.byteLength === 0) this.#given = 'all';
    else this.#writePieces(bytes, 0);
  }

  /** RFC 9113 5.2: what the client cannot take yet waits in memory, so the next piece is given when it has taken the last. */
  #writePieces(bytes: Uint8Array, from: number): void {
    const to = from + PIECE_BYTES;
    if (to >= bytes.byteLength) {
      this.#given = 'all';
      this.#lastBytes = bytes.byteLength - from;
      this.#stream.end(from === 0 ? bytes : bytes.subarray(from));
      return;
    }
    this.#stream.write(bytes.subarray(from, to), (broken) => {
      if ((broken ?? null) !== null || this.#request.over) return;
      this.#request.sentBytes = to;
      this.#opened.moved();
      this.#writePieces(bytes, to);
    });
  }

  /** By a response of node:http, whose cost is small beside that of a body that is a stream. */
  async #writeStream(reply: Reply): Promise<void> {
    const request = this.#request;
    const response = http2Response(this.#stream, this.#session.socket, () => this.#opened.moved());
    this.#response = response;
    // It closes with the stream or before, and knows then what has left.
    this.#opened.onEnd = undefined;
    response.once('close', () => this.#end());
    try {
      await send(reply, request, response, request.gone());
    } catch (thrown) {
      if (response.headersSent) this.#given = 'part';
      this.#fail(thrown);
    }
  }

  /** Answers with the failure, or resets the stream if an answer has begun. */
  #fail(thrown: unknown): void {
    const { deps } = this.#session.lane;
    const request = this.#request;
    if (!this.#isGone() && this.#given === 'nothing') {
      request.outcome = 'failed';
      this.#writeWhole(failureReply(request, thrown, deps), null);
      return;
    }
    this.destroy();
    deps.log.debug({ request_id: request.requestId, ...errorFields(thrown) }, 'an answer was broken off');
  }

  /** Resets the stream, so that nobody takes a part for the whole. Not by close(), which would first end it normally. */
  destroy(): void {
    if (!this.#isGone()) this.#stream.destroy(new Error('the answer was broken off'));
  }

  #isGone(): boolean {
    return this.#request.over || this.#stream.destroyed || this.#stream.closed;
  }

  /** The stream has closed, or will not be written to any more. */
  #end(): void {
    const { deps, clock } = this.#session.lane;
    const request = this.#request;
    this.#removeOutgoing?.();
    request.end();
    const sent = this.#sent();
    this.#opened.brokenOff = !sent.complete;
    const { outcome, answer, startedMs, decidedAtMs } = request;
    const tookMs = clock.monotonicMs() - startedMs;
    const decidedMs = decidedAtMs === 0 ? tookMs : decidedAtMs - startedMs;
    account(deps, request, { outcome, answer, ...sent, tookMs, decidedMs });
  }

  #sent(): Pick<Ended, 'status' | 'sentBytes' | 'complete'> {
    const { status, sentBytes } = this.#request;
    const response = this.#response;
    if (response?.headersSent === true) {
      const meter = sentMeter({ socket: this.#session.socket }, response);
      return { status: response.statusCode, sentBytes: meter(), complete: response.writableFinished };
    }
    const complete = this.#given === 'all' && this.#stream.writableFinished;
    return { status, sentBytes: complete ? sentBytes + this.#lastBytes : sentBytes, complete };
  }
}

const NOTHING = new Uint8Array(0);

export interface StreamHeadWriter {
  /** The fields of an answer, as node takes them. */
  write(reply: Reply): Http2Fields;
}

/** Fields that many answers share are brought into their form once. */
export function createStreamHeadWriter(): StreamHeadWriter {
  const written = new WeakMap<HeaderList, Http2Fields>();

  function sharedOf(lines: HeaderList): Http2Fields {
    const known = written.get(lines);
    if (known !== undefined) return known;
    const made = http2Fields(lines);
    written.set(lines, made);
    return made;
  }

  return {
    write(reply) {
      const { status, leading, headers } = reply;
      const fields: Http2Fields = leading === undefined ? {} : { ...sharedOf(leading) };
      for (const [name, value] of headers) if (mayBeInHttp2(name)) addLine(fields, name, value);
      if (fields['content-length'] === undefined) {
        const sizeBytes = lengthOf(reply);
        if (sizeBytes !== null) fields['content-length'] = String(sizeBytes);
      }
      fields[':status'] = String(validStatus(status));
      return fields;
    },
  };
}
