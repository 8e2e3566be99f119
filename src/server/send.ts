/**
 * Writes a Reply to a node:http response. HEAD gets the head that GET would
 * have and opens no body. A body that fails after the head went out breaks the
 * connection, so that nobody takes half for whole.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { linesOf, type Reply } from '../http/reply.js';

/** Resolves when the last byte was handed to the connection; rejects when the client left or the body failed. */
export async function send(
  reply: Reply,
  request: Pick<IncomingMessage, 'method'>,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const { body } = reply;
  if (body.kind !== 'stream' || request.method === 'HEAD') {
    await ended(response, () => sendNow(reply, request, response));
    return;
  }
  const bytes = await body.open(signal);
  response.writeHead(reply.status, fieldsOf(reply));
  try {
    await pipeBody(bytes, response, { signal });
  } catch (thrown) {
    response.destroy();
    throw thrown;
  }
}

/** Behind a head that was written: one that is slow to begin does not hold that up. */
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

/** Whether all that is to be sent is at hand. */
export function isAtHand(reply: Reply, request: Pick<IncomingMessage, 'method'>): boolean {
  return reply.body.kind !== 'stream' || request.method === 'HEAD';
}

/** The same for a reply that is at hand: hands all of it to the connection, and waits for nothing. */
export function sendNow(reply: Reply, request: Pick<IncomingMessage, 'method'>, response: ServerResponse): void {
  response.writeHead(reply.status, fieldsOf(reply));
  if (reply.body.kind === 'bytes' && request.method !== 'HEAD') response.end(reply.body.bytes);
  else response.end();
}

/** Names and values by turns, as node takes them, with the length where it is known and not stated. */
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

/** RFC 9110 8.6: no length on 1xx, 204; none of ours on 304. */
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
