/**
 * Answers a request whose body was not read to its end. A client that still
 * sends would see its connection reset, and never the answer; so the answer goes
 * out at once, and the connection stays open while the rest is read and dropped,
 * within bounds.
 */
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import type { Reply } from '../../src/http/reply.js';
import { type DrainLimits, drain } from '../../src/server/drain.js';

/** So little is on its way already, or soon: the connection can be kept. */
const SMALL_BYTES = 64 * 1_024;

export function drainedReply(reply: Reply, request: IncomingMessage, limits: DrainLimits, clock: Clock): Reply {
  if (request.complete || reply.body.kind === 'stream' || request.method === 'HEAD') return reply;
  // Readers of the body leave their listeners behind, and those would keep it from flowing.
  request.removeAllListeners('readable');
  const lengthBytes = Number(request.headers['content-length'] ?? Number.NaN);
  if (lengthBytes <= SMALL_BYTES || !hasBody(request)) {
    request.resume();
    return reply;
  }
  const bytes = reply.body.kind === 'bytes' ? reply.body.bytes : new Uint8Array();
  return {
    status: reply.status,
    headers: [...reply.headers, ['connection', 'close']],
    body: {
      kind: 'stream',
      sizeBytes: bytes.byteLength,
      // The client has all of the answer after the first chunk; the end, and with it the close, waits for the drain.
      open: () => Readable.from(answerThenDrain(bytes, request, limits, clock), { objectMode: false }),
    },
  };
}

function hasBody(request: IncomingMessage): boolean {
  return request.headers['transfer-encoding'] !== undefined || request.headers['content-length'] !== undefined;
}

async function* answerThenDrain(
  bytes: Uint8Array,
  request: IncomingMessage,
  limits: DrainLimits,
  clock: Clock,
): AsyncGenerator<Uint8Array> {
  yield bytes;
  await drain(request, limits, clock);
}
