/**
 * Writes a Reply to a node:http response. HEAD gets the same head as GET, and
 * no body is opened. A body that fails after the head was sent breaks the
 * connection, so that the client does not take a part for the whole.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { linesOf, type Reply } from '../http/reply.js';

/** Resolves when the last byte was handed to the connection. Rejects if the client left or the body failed. */
export async function send(
  reply: Reply,
  request: Pick<IncomingMessage, 'method'>,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const { body } = reply;
  if (body.kind !== 'stream' || isAtHand(reply, request)) {
    await ended(response, () => sendNow(reply, request, response));
    return;
  }
  const bytes = await body.open(signal);
  await begun(bytes);
  response.writeHead(reply.status, fieldsOf(reply));
  try {
    await pipeBody(bytes, response, { signal });
  } catch (thrown) {
    response.destroy();
    throw thrown;
  }
}

/**
 * Waits until a body has bytes or has ended, but no longer than to the next turn of the event loop: the head goes out
 * before a body that is slow to begin. Rejects if it fails before, and then nothing of the answer was sent.
 */
function begun(body: Readable): Promise<void> {
  const givenUp = (): Error => new Error('the body was given up before it began');
  if (body.destroyed) {
    // Its error may not have been emitted yet.
    body.on('error', () => undefined);
    return Promise.reject(body.errored ?? givenUp());
  }
  return new Promise((resolve, reject) => {
    const turn = setImmediate(come);
    function forget(): void {
      clearImmediate(turn);
      // Of an error, somebody must listen until the body is piped: one that nobody hears ends the process.
      body.off('readable', come).off('end', come).off('close', close);
    }
    function come(): void {
      forget();
      resolve();
    }
    function fail(error: Error): void {
      forget();
      reject(error);
    }
    const close = (): void => fail(givenUp());
    body.on('readable', come).on('end', come).on('error', fail).on('close', close);
  });
}

/** Sends a body after its head. The head is not delayed by a body that is slow to begin. */
export async function pipeBody(
  body: NodeJS.ReadableStream,
  response: ServerResponse,
  options: { readonly signal: AbortSignal; readonly end?: boolean },
): Promise<void> {
  const flush = setImmediate(() => response.flushHeaders());
  try {
    await pipeline(body, response, options);
  } finally {
    clearImmediate(flush);
  }
}

/** Whether everything to be sent is in memory. */
export function isAtHand({ status, body }: Reply, { method }: Pick<IncomingMessage, 'method'>): boolean {
  return body.kind !== 'stream' || !hasContent(status, method);
}

/**
 * RFC 9110 6.4.1, RFC 9112 6.3: an answer to HEAD, a 204 and a 304 end with their
 * head, whatever length it states. Their body is not opened.
 */
export function hasContent(status: number, method: string | undefined): boolean {
  return method !== 'HEAD' && status !== 204 && status !== 304;
}

/** Sends a reply that is at hand, without waiting. */
export function sendNow(reply: Reply, request: Pick<IncomingMessage, 'method'>, response: ServerResponse): void {
  response.writeHead(reply.status, fieldsOf(reply));
  if (reply.body.kind === 'bytes' && hasContent(reply.status, request.method)) response.end(reply.body.bytes);
  else response.end();
}

/** Names and values in turn, as node takes them. Adds Content-Length if it is known and not given. */
function fieldsOf(reply: Reply): string[] {
  const fields: string[] = [];
  let stated = false;
  for (const [name, value] of linesOf(reply)) {
    fields.push(name, value);
    if (name === 'content-length') stated = true;
  }
  const sizeBytes = stated ? null : lengthOf(reply);
  if (sizeBytes !== null) fields.push('content-length', String(sizeBytes));
  return fields;
}

/** RFC 9110 8.6: no Content-Length on 204; it is optional on 304. */
export function lengthOf(reply: Reply): number | null {
  if (reply.status === 204 || reply.status === 304) return null;
  switch (reply.body.kind) {
    case 'none':
      return 0;
    case 'bytes':
      return reply.body.bytes.byteLength;
    case 'stream':
      return reply.body.sizeBytes;
  }
}

function ended(response: ServerResponse, end: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    response.once('close', () => (response.writableFinished ? resolve() : reject(new Error('the client left'))));
    response.once('finish', resolve);
    end();
  });
}
