/**
 * Writes a Reply to a node:http response. HEAD gets the head that GET would
 * have and opens no body. A body that fails after the head went out breaks the
 * connection, so that nobody takes half for whole.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { HeaderList, Reply } from './reply.js';

/** Resolves when the last byte was handed to the connection; rejects when the client left or the body failed. */
export async function send(
  reply: Reply,
  request: Pick<IncomingMessage, 'method'>,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const headers = withLength(reply);
  if (request.method === 'HEAD' || reply.body.kind === 'none') {
    response.writeHead(reply.status, flatten(headers));
    await ended(response, () => response.end());
    return;
  }
  if (reply.body.kind === 'bytes') {
    const { bytes } = reply.body;
    response.writeHead(reply.status, flatten(headers));
    await ended(response, () => response.end(bytes));
    return;
  }
  const body = await reply.body.open(signal);
  response.writeHead(reply.status, flatten(headers));
  try {
    await pipeline(body, response, { signal });
  } catch (thrown) {
    response.destroy();
    throw thrown;
  }
}

function withLength(reply: Reply): HeaderList {
  if (reply.headers.some(([name]) => name === 'content-length')) return reply.headers;
  const sizeBytes = lengthOf(reply);
  return sizeBytes === null ? reply.headers : [...reply.headers, ['content-length', String(sizeBytes)]];
}

/** RFC 9110 8.6: no length on 1xx, 204; none of ours on 304. */
function lengthOf(reply: Reply): number | null {
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

function flatten(headers: HeaderList): string[] {
  return headers.flat();
}

function ended(response: ServerResponse, end: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    response.once('close', () => (response.writableFinished ? resolve() : reject(new Error('the client left'))));
    response.once('finish', resolve);
    end();
  });
}
