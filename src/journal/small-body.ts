/** Reads the small body of a message from an edge into memory. */
import type { IncomingMessage } from 'node:http';
import type { Fault } from '../errors.js';

/** Throws `tooLong()` for a body of more than `maxBytes`, and the signal's reason when it has aborted. */
export async function readSmallBody(
  request: IncomingMessage,
  maxBytes: number,
  tooLong: () => Fault,
  signal: AbortSignal,
): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    signal.throwIfAborted();
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes) throw tooLong();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
