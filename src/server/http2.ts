/**
 * One HTTP/2 stream as a request and response of node:http, so that handlers
 * need not know which protocol a client speaks: fields without pseudo-fields,
 * `:authority` as Host, and a body that ends, breaks off and waits as on a
 * connection of its own.
 *
 * Leaves sessions, their limits and their end to sessions.ts.
 */
import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { constants, type IncomingHttpHeaders as Http2Fields, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { Readable, Writable } from 'node:stream';
import { addLine, type Http2Fields as FieldsByName, mayBeInHttp2, validStatus } from '../http/http2-fields.js';

export interface Http2Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/**
 * `rawFields`: names and values in turn, as received. `onMoved` is called when something of the stream itself was sent
 * or received. The caller listens for errors of the stream.
 */
export function http2Exchange(
  stream: ServerHttp2Stream,
  fields: Http2Fields,
  rawFields: readonly string[],
  socket: Socket,
  onMoved: () => void,
): Http2Exchange {
  const request = new Http2Request(stream, fields, rawFields, socket, onMoved);
  const response = new Http2Response(stream, request, onMoved);
  // They implement the members of node's classes that this service uses, and no others.
  return {
    request: request as unknown as IncomingMessage,
    response: response as unknown as ServerResponse,
  };
}

/** The response alone, to a request that ended with its head and that the caller has read by itself. */
export function http2Response(stream: ServerHttp2Stream, socket: Socket, onMoved: () => void): ServerResponse {
  return new Http2Response(stream, { socket, complete: true }, onMoved) as unknown as ServerResponse;
}

export function isHttp2(request: object): boolean {
  return request instanceof Http2Request;
}

/** Returns a function that counts the bytes sent since: on the connection, or on the stream for HTTP/2. */
export function sentMeter(request: Pick<IncomingMessage, 'socket'>, response: object): () => number {
  if (response instanceof Http2Response) return () => response.sentBytes;
  const { socket } = request;
  const before = socket.bytesWritten;
  return () => Math.max(0, socket.bytesWritten - before);
}

class Http2Request extends Readable {
  readonly stream: ServerHttp2Stream;
  readonly socket: Socket;
  readonly httpVersion = '2.0';
  readonly httpVersionMajor = 2;
  readonly httpVersionMinor = 0;
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  readonly rawHeaders: string[];
  /** Whether all of it was received. */
  complete: boolean;

  constructor(
    stream: ServerHttp2Stream,
    fields: Http2Fields,
    rawFields: readonly string[],
    socket: Socket,
    onMoved: () => void,
  ) {
    super({ autoDestroy: false });
    this.stream = stream;
    this.socket = socket;
    this.method = fields[':method'] ?? '';
    this.url = fields[':path'] ?? '';
    this.rawHeaders = regularFields(rawFields, fields);
    this.headers = keyedFields(fields);
    this.complete = stream.endAfterHeaders;
    if (this.complete) {
      stream.resume();
      this.push(null);
      return;
    }
    stream.on('data', (chunk: Buffer) => {
      onMoved();
      // One that was given up takes no more, and is not waited for.
      if (!this.push(chunk) && !this.destroyed) stream.pause();
    });
    stream.pause();
    stream.once('end', () => {
      // A stream that was reset also emits `end`.
      if (stream.aborted || stream.rstCode !== constants.NGHTTP2_NO_ERROR) return;
      this.complete = true;
      this.push(null);
    });
    stream.once('close', () => {
      if (!this.complete) this.destroy();
    });
  }

  override _read(): void {
    this.stream.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    // The rest of the body is discarded, or it would fill the session's window.
    if (!this.stream.destroyed) this.stream.resume();
    if (!this.complete) this.emit('aborted');
    callback(error);
  }
}

/** RFC 9113 8.3.1: `:authority` becomes Host. A Host field that differs from it is kept, and the guard refuses two. */
function regularFields(rawFields: readonly string[], { ':authority': authority }: Http2Fields): string[] {
  const regular: string[] = authority === undefined ? [] : ['host', authority];
  const cookies: string[] = [];
  for (let at = 0; at + 1 < rawFields.length; at += 2) {
    const [name = '', value = ''] = [rawFields[at], rawFields[at + 1]];
    if (name.startsWith(':') || (name === 'host' && value === authority)) continue;
    if (name === 'cookie') cookies.push(value);
    else regular.push(name, value);
  }
  // RFC 9113 8.2.3: a cookie that was split into several fields becomes one field again.
  if (cookies.length > 0) regular.push('cookie', cookies.join('; '));
  return regular;
}

function keyedFields(fields: Http2Fields): IncomingHttpHeaders {
  const keyed: IncomingHttpHeaders = {};
  for (const name of Object.keys(fields)) if (!name.startsWith(':')) keyed[name] = fields[name];
  const authority = fields[':authority'];
  if (authority !== undefined) keyed.host = authority;
  return keyed;
}

/**
 * The most that a stream is given at once. What it cannot send yet counts as memory of its session. How much of a piece
 * was sent is not known, so a reader who takes longer for one than a stream may stall is taken for gone.
 */
export const PIECE_BYTES = 16_384;

class Http2Response extends Writable {
  readonly stream: ServerHttp2Stream;
  readonly req: Pick<Http2Request, 'socket' | 'complete'>;
  statusCode = 200;
  headersSent = false;
  /** Has no meaning on a stream. */
  shouldKeepAlive = true;
  /** Bytes of the body. */
  sentBytes = 0;
  readonly #set: FieldsByName = {};
  readonly #onMoved: () => void;

  constructor(stream: ServerHttp2Stream, request: Pick<Http2Request, 'socket' | 'complete'>, onMoved: () => void) {
    super();
    this.#onMoved = onMoved;
    this.stream = stream;
    this.req = request;
    stream.once('close', () => this.destroy());
  }

  get socket(): Socket {
    return this.req.socket;
  }

  get finished(): boolean {
    return this.writableEnded;
  }

  setHeader(name: string, value: number | string | readonly string[]): this {
    this.#set[name.toLowerCase()] = typeof value === 'object' ? [...value] : String(value);
    return this;
  }

  getHeader(name: string): string | string[] | undefined {
    return this.#set[name.toLowerCase()];
  }

  /** Takes fields as node:http does: names and values in turn, or by name. */
  writeHead(status: number, fields: readonly string[] | OutgoingHttpHeaders = []): this {
    if (this.headersSent) throw new Error('the head of this answer was sent already');
    this.headersSent = true;
    this.statusCode = status;
    if (Array.isArray(fields))
      for (let at = 0; at + 1 < fields.length; at += 2) addLine(this.#set, fields[at].toLowerCase(), fields[at + 1]);
    else for (const [name, value] of Object.entries(fields)) if (value !== undefined) this.setHeader(name, value);
    for (const name of Object.keys(this.#set)) if (!mayBeInHttp2(name)) delete this.#set[name];
    // For answers without a body, node ends the stream with the head.
    if (!this.#isGone()) this.stream.respond({ ...this.#set, ':status': validStatus(status) });
    this.#onMoved();
    return this;
  }

  flushHeaders(): void {
    if (!this.headersSent) this.writeHead(this.statusCode);
  }

  writeContinue(): void {
    this.#inform({ ':status': 100 });
  }

  writeProcessing(): void {
    this.#inform({ ':status': 102 });
  }

  writeEarlyHints({ link }: { readonly link: string | string[] }): void {
    this.#inform({ ':status': 103, link });
  }

  #inform(fields: OutgoingHttpHeaders): void {
    if (!this.headersSent && !this.#isGone()) this.stream.additionalHeaders(fields);
  }

  #isGone(): boolean {
    return this.stream.destroyed || this.stream.closed;
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.flushHeaders();
    if (this.#isGone()) {
      callback(new Error('the client left'));
      return;
    }
    if (this.stream.writableEnded) {
      callback();
      return;
    }
    const piece = chunk.subarray(0, PIECE_BYTES);
    this.stream.write(piece, (error) => {
      if (error !== null && error !== undefined) {
        callback(error);
        return;
      }
      this.sentBytes += piece.length;
      this.#onMoved();
      if (piece.length === chunk.length) callback();
      else this._write(chunk.subarray(piece.length), encoding, callback);
    });
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.flushHeaders();
    if (this.#isGone()) {
      callback(this.stream.rstCode === constants.NGHTTP2_NO_ERROR ? null : new Error('the client left'));
      return;
    }
    const done = (): void => {
      // RFC 9113 8.1: tells a client that still sends that nothing more is needed.
      if (!this.req.complete) setImmediate(() => this.stream.close(constants.NGHTTP2_NO_ERROR));
      callback();
    };
    if (this.stream.writableFinished) done();
    else if (this.stream.writableEnded) this.stream.once('finish', done);
    else this.stream.end(done);
  }

  /** An answer that was broken off must not look complete: the stream is reset. */
  override _destroy(_error: Error | null, callback: (error?: Error | null) => void): void {
    // Not by close(), which would first end the stream normally.
    if (!this.writableFinished && !this.#isGone()) this.stream.destroy(new Error('the answer was broken off'));
    // As node:http does: reported as a close, not as an error.
    callback();
  }
}
