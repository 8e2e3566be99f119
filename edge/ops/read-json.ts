/** Reads the JSON body of an operator's request. */
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { Fault } from '../../src/errors.js';

export async function readJson(request: IncomingMessage, maxBytes: number): Promise<unknown> {
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
    throw new Fault('type_refused', 'An order must be application/json.');
  }
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  request.on('data', (chunk: Buffer) => {
    sizeBytes += chunk.length;
    if (sizeBytes <= maxBytes) chunks.push(chunk);
  });
  await once(request, 'end');
  if (sizeBytes > maxBytes) throw new Fault('too_large', 'The order is too long. Split it into several.');
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new Fault('malformed', 'The order is not JSON.');
  }
}
