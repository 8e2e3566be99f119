/**
 * One JSON document from the Authentication Service: within a time, within a
 * size, from the very address that was asked. Redirects are not followed: the
 * address is configured, and whoever can redirect it must not choose our keys.
 */
import { formatDuration, formatSize } from '../bytes.js';
import type { Clock } from '../clock.js';

export interface DocumentRequest {
  readonly url: string;
  /** A form to POST; undefined: GET. */
  readonly form?: URLSearchParams;
  readonly authorization?: string;
}

export interface DocumentLimits {
  readonly timeoutMs: number;
  readonly sizeMaxBytes: number;
}

/** The parsed document. Rejects with an Error that says what went wrong, for the log. */
export async function fetchDocument(
  request: DocumentRequest,
  limits: DocumentLimits,
  clock: Clock,
  signal: AbortSignal,
): Promise<unknown> {
  signal.throwIfAborted();
  const ended = new AbortController();
  const onAbort = (): void => ended.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  const timer = clock.after(limits.timeoutMs, () =>
    ended.abort(new Error(`no whole answer within ${formatDuration(limits.timeoutMs)}`)),
  );
  try {
    const response = await fetch(request.url, {
      redirect: 'manual',
      signal: ended.signal,
      headers: {
        accept: 'application/json',
        ...(request.authorization !== undefined && { authorization: request.authorization }),
      },
      ...(request.form !== undefined && { method: 'POST', body: request.form }),
    });
    if (response.status !== 200) {
      await response.body?.cancel();
      throw new Error(`answered ${response.status}`);
    }
    return JSON.parse(await readText(response.body, limits.sizeMaxBytes));
  } catch (thrown) {
    const reason = reasonOf(ended.signal.aborted ? ended.signal.reason : thrown);
    throw new Error(`${request.url} gave no usable document: ${reason}`, { cause: thrown });
  } finally {
    timer.cancel();
    signal.removeEventListener('abort', onAbort);
  }
}

async function readText(body: ReadableStream<Uint8Array> | null, sizeMaxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  // Leaving the loop early cancels the stream and lets go of the connection.
  for await (const chunk of body ?? []) {
    sizeBytes += chunk.length;
    if (sizeBytes > sizeMaxBytes) throw new Error(`longer than ${formatSize(sizeMaxBytes)}`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** fetch says `fetch failed` and keeps the reason in its cause. */
function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  return thrown.cause instanceof Error ? thrown.cause.message : thrown.message;
}
