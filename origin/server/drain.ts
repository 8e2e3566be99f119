/**
 * Responds to a request whose body was not read to its end. If the connection
 * was closed at once, a client that is still sending would see a reset and never
 * the response. So the response goes out first, and the connection stays open
 * while the rest of the body is read and dropped, within limits.
 */
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.js';
import { duration, section, size } from '../../src/config/field.js';
import type { Reply } from '../../src/http/reply.js';
import { type DrainLimits, drain } from '../../src/server/drain.js';

export const drainSection = section('The rest of a refused body is read and dropped, so that the response arrives.', {
  sizeMaxBytes: size({
    default: '64MB',
    min: 0,
    help: 'Bytes that are read and dropped before the connection is closed.',
  }),
  withinMs: duration({ default: '10s', min: 0, help: 'Time in which they are read.' }),
});

/** A body up to this size is read to its end, and the connection is kept. */
const SMALL_BYTES = 64 * 1_024;

export function drainedReply(reply: Reply, request: IncomingMessage, limits: DrainLimits, clock: Clock): Reply {
  if (request.complete || reply.body.kind === 'stream' || request.method === 'HEAD') return reply;
  // A reader of the body may have left such a listener, which would stop the body from flowing.
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
      // The first chunk is the whole response. Its end, and so the close of the connection, waits for the drain.
      open: () => Readable.from(bytesThenDrain(bytes, request, limits, clock), { objectMode: false }),
    },
  };
}

function hasBody(request: IncomingMessage): boolean {
  return request.headers['transfer-encoding'] !== undefined || request.headers['content-length'] !== undefined;
}

async function* bytesThenDrain(
  bytes: Uint8Array,
  request: IncomingMessage,
  limits: DrainLimits,
  clock: Clock,
): AsyncGenerator<Uint8Array> {
  yield bytes;
  await drain(request, limits, clock);
}
