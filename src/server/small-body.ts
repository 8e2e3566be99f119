/**
 * Reads the small body of a request into memory. Never destroys the request, because a refusal is still to be written on
 * the same connection.
 */
import type { IncomingMessage } from 'node:http';
import { onAbort } from '../abort.js';
import type { Fault } from '../errors.js';

/** Rejects with `tooLong()` for a body of more than `maxBytes`, and with the signal's reason as soon as it aborts. */
export function readSmallBody(
  request: IncomingMessage,
  maxBytes: number,
  tooLong: () => Fault,
  signal: AbortSignal,
): Promise<string> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const stopListening = onAbort(signal, () => settle(() => reject(signal.reason)));
    function settle(run: () => void): void {
      stopListening();
      request.off('data', take).off('end', end).off('error', fail).off('close', close);
      // What fails later is nobody's concern.
      request.on('error', () => undefined).pause();
      run();
    }
    function take(chunk: Buffer): void {
      sizeBytes += chunk.length;
      if (sizeBytes > maxBytes) settle(() => reject(tooLong()));
      else chunks.push(chunk);
    }
    const end = (): void => settle(() => resolve(Buffer.concat(chunks).toString('utf8')));
    const fail = (error: Error): void => settle(() => reject(error));
    const close = (): void => fail(new Error('the sender broke off'));
    request.on('end', end).on('error', fail).on('close', close).on('data', take);
  });
}
