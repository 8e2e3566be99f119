/**
 * Fetches one JSON document from the Authentication Service, within a time and
 * a size. Redirects are not followed: the address is configured, and whoever
 * can redirect it must not choose our keys.
 */
import { formatDuration, formatSize } from '../bytes.js';
import { type Clock, withDeadline } from '../clock.js';

export interface DocumentRequest {
  readonly url: string;
  /** A form to POST; without one, the request is a GET. */
  readonly form?: URLSearchParams;
  readonly authorization?: string;
}

export interface DocumentLimits {
  readonly timeoutMs: number;
  readonly sizeMaxBytes: number;
}

/** The parsed document. Rejects with an Error that says for the log what went wrong. */
export async function fetchDocument(
  request: DocumentRequest,
  limits: DocumentLimits,
  clock: Clock,
  signal: AbortSignal,
): Promise<unknown> {
  signal.throwIfAborted();
  const late = (): Error => new Error(`no whole answer within ${formatDuration(limits.timeoutMs)}`);
  try {
    return await withDeadline({ clock, ms: limits.timeoutMs, late, signal }, (ended) =>
      load(request, limits.sizeMaxBytes, ended),
    );
  } catch (thrown) {
    throw new Error(`${request.url} gave no usable document: ${reasonOf(thrown)}`, { cause: thrown });
  }
}

async function load(request: DocumentRequest, sizeMaxBytes: number, signal: AbortSignal): Promise<unknown> {
  try {
    const response = await fetch(request.url, {
      redirect: 'manual',
      signal,
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
    return JSON.parse(await readText(response.body, sizeMaxBytes));
  } catch (thrown) {
    signal.throwIfAborted();
    throw thrown;
  }
}

async function readText(body: ReadableStream<Uint8Array> | null, sizeMaxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  // Leaving the loop early cancels the stream and frees the connection.
  for await (const chunk of body ?? []) {
    sizeBytes += chunk.length;
    if (sizeBytes > sizeMaxBytes) throw new Error(`longer than ${formatSize(sizeMaxBytes)}`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** fetch says only `fetch failed`; the reason is in its cause. */
function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  return thrown.cause instanceof Error ? thrown.cause.message : thrown.message;
}
