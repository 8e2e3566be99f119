/** Reads the body of a request that is a short text, such as a JSON document, from a sender that may be slow or gone. */
import type { Clock } from '../../src/clock.js';
import { Fault } from '../../src/errors.js';
import type { OriginRequest } from '../server/request.js';
import { type Pace, pacedChunks } from './paced-body.js';

/** Throws a Fault for a body of more than `maxBytes`, or one that is not UTF-8. */
export async function readText(request: OriginRequest, pace: Pace, clock: Clock, maxBytes: number): Promise<string> {
  const tooLong = (): Fault => new Fault('malformed', `The body has at most ${maxBytes} bytes.`);
  if ((request.body.sizeBytes ?? 0) > maxBytes) throw tooLong();
  const source = pacedChunks(request, pace, clock, request.signal);
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for (let chunk = await source.next(); chunk !== undefined; chunk = await source.next()) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes) throw tooLong();
    chunks.push(chunk);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
  } catch {
    throw new Fault('malformed', 'The body is not UTF-8.');
  }
}
